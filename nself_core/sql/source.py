"""A project's files of SQL and data: their bytes, their text, their checksum."""

from __future__ import annotations

import os

from nself_core.failures import FileFailure

# Python's own SHA-256, where it is to be had: hashlib loads OpenSSL, which takes 3 ms and pays off from megabytes.
try:
    from _sha2 import sha256  # since Python 3.12
except ImportError:
    try:
        from _sha256 import sha256
    except ImportError:
        from hashlib import sha256

CHUNK = 65536


def read_bytes(path, file):
    """The bytes of a file. Raises FileFailure under the name `file` where it cannot be read."""
    # Without a file object: of a thousand small files each costs half.
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.read(handle, CHUNK)
            return data + b"".join(iter(lambda: os.read(handle, CHUNK), b"")) if len(data) == CHUNK else data
        finally:
            os.close(handle)
    except OSError as error:
        raise FileFailure(f"cannot be read: {error.strerror}", file=file) from error


def read_text(path, file):
    """The text of a file without its BOM, line ends as they are.

    Raises FileFailure, with line and column, for what the lexer's `decode` refuses: NUL bytes, bytes that are not
    UTF-8, UTF-16.
    """
    from nself_core.sql.lexer import decode

    return decode(read_bytes(path, file), file)


def checksum(text):
    """SHA-256 in hex over the text with its BOM dropped and CRLF and CR as LF (issue 2)."""
    return _hashed(text.encode("utf-8"))


def checksum_of_file(path, file):
    """The same as `checksum(read_text(path, file))` for every file that can be read, without reading it as text."""
    return _hashed(read_bytes(path, file))


def _hashed(data):
    while data.startswith(b"\xef\xbb\xbf"):  # twice: an editor that adds its own
        data = data[3:]
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return sha256(data).hexdigest()



def checksum_of_data(path, file):
    """SHA-256 in hex of a data file's bytes, read in pieces: it may be large. Raises as `read_bytes` does."""
    import hashlib  # OpenSSL's is the faster one from megabytes on

    digest = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            while piece := stream.read(1 << 20):
                digest.update(piece)
    except OSError as error:
        raise FileFailure(f"cannot be read: {error.strerror}", file=file) from error
    return digest.hexdigest()
