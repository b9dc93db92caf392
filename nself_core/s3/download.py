"""Fetches objects of any size in pieces: several on their way at once, handed over in their order.

Each piece is a range of the very object that was there at the beginning (If-Match), asked for again when its way is
cut. A file is written under a hidden name beside its own and gets that only when it is whole and its checksum is
right; what a dead run left of it is where the next one goes on.
"""

from __future__ import annotations

import os
import threading
from collections import deque, namedtuple

from nself_core.disk import sync
from nself_core.failures import CheckFailed, FileFailure, LockHeld, Unreachable
from nself_core.s3.answers import NoSuchObject
from nself_core.s3.client import Asked
from nself_core.s3.store import SHA256, damaged

PIECE = 8 * 1024 * 1024
PARALLEL = 4  # pieces on their way; with the one that is written, all that is in memory

Fetched = namedtuple("Fetched", "size sha256 resumed_at")
Fetched.__doc__ = "`size` in bytes and `sha256` in hex of the whole object; `resumed_at`, bytes that were there before."


def fetch(store, key, write, *, sha256=None, parallel=PARALLEL, piece=PIECE):
    """Give an object to `write(bytes)`, piece after piece, and return its Fetched.

    Arguments: `sha256`, the hex digits it must have, by default those that its metadata names. Raises NoSuchObject;
    CheckFailed where it changed meanwhile or is damaged, which is known only after the last piece; and what Store's
    methods and `write` raise.
    """
    import hashlib

    head = find_head(store, key)
    digest = hashlib.sha256()
    for data in _pieces(store, key, head, 0, parallel, piece):
        digest.update(data)
        write(data)
    _check(store, key, digest, sha256 or head.meta.get(SHA256))
    return Fetched(head.size, digest.hexdigest(), 0)


def read_pieces(store, key, parallel=2, piece=PIECE // 2):
    """Yield the bytes of an object, piece after piece; nothing is compared. Raises as `fetch` does."""
    yield from _pieces(store, key, find_head(store, key), 0, parallel, piece)


def fetch_file(store, key, path, *, sha256=None, parallel=PARALLEL, piece=PIECE):
    """Write an object to the file `path`, readable by its owner alone, and return its Fetched.

    Arguments and failures as of `fetch`, and besides: FileFailure for a file that cannot be written, Unreachable for a
    full disk, LockHeld where another run fetches the same object to the same place.
    """
    head = find_head(store, key)
    expected = sha256 or head.meta.get(SHA256)
    folder, name = os.path.split(os.path.abspath(path))
    unfinished = os.path.join(folder, f".{name}.{_short(head.etag)}.part")
    try:
        with _opened(unfinished) as file:
            # Without a checksum nobody could tell whether what a crash left is what was fetched.
            digest, start = _what_is_there(file, head.size if expected else -1)
            for data in _pieces(store, key, head, start, parallel, piece):
                digest.update(data)
                file.write(data)
            _finish(store, key, file, unfinished, digest, expected)
            os.replace(unfinished, path)
            sync(folder)
    except OSError as error:
        raise _file_failure(error, path) from None
    return Fetched(head.size, digest.hexdigest(), start)


def find_head(store, key):
    """The Head of an object that must be there. Raises NoSuchObject."""
    head = store.head(key)
    if head is None:
        raise NoSuchObject(f"there is no {store.client.name(key)}")
    return head


def _check(store, key, digest, expected):
    if expected is not None and digest.hexdigest() != expected:
        raise damaged(store.client.name(key))


# Pieces.


class _Fetching:
    # One range on its way, in a thread of its own.

    def __init__(self, store, key, etag, start, end, stop):
        self._store = store
        self._key = key
        self._range = (start, end)
        self._headers = {"Range": f"bytes={start}-{end - 1}", **({"If-Match": f'"{etag}"'} if etag else {})}
        self._stop = stop
        self._data = b""
        self._trouble = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        # What it raises is raised again by `result`.
        try:
            asked = Asked("GET", self._key, headers=self._headers)
            self._data = self._checked(self._store.client.ask(asked, accepts=(412,), stop=self._stop))
        except BaseException as error:
            self._trouble = error

    def _checked(self, response):
        name = self._store.client.name(self._key)
        if response.status == 412:
            raise CheckFailed(f"{name} was changed while it was fetched", "fetch it again")
        start, end = self._range
        if len(response.body) != end - start:
            raise Unreachable(f"{name}: the server gave {len(response.body)} bytes for bytes {start} to {end - 1}")
        return response.body

    def result(self):
        """The bytes, waited for. Raises what kept them away."""
        self._thread.join()
        if self._trouble is not None:
            raise self._trouble
        return self._data


def _pieces(store, key, head, start, parallel, piece):
    """Yield an object's bytes from `start` in order, while the next pieces are on their way."""
    stop = threading.Event()
    waiting = deque()
    starts = iter(range(start, head.size, piece))
    try:
        for begin in starts:
            waiting.append(_Fetching(store, key, head.etag, begin, min(begin + piece, head.size), stop))
            if len(waiting) >= parallel:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        stop.set()


# The file.


def _opened(path):
    """The unfinished file, open and locked; a lock on a file that has just got its real name is given up again."""
    import fcntl

    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        file = os.fdopen(handle, "r+b")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return file
        except FileNotFoundError:
            pass
        except BlockingIOError:
            file.close()
            raise LockHeld("another run is fetching it to the same place", file=path) from None
        file.close()


def _what_is_there(file, size):
    """Digest and number of the bytes that a dead run left, if they are `size` at most; the file stands behind them."""
    import hashlib

    digest, count = hashlib.sha256(), 0
    while True:
        data = file.read(1024 * 1024)
        if not data:
            break
        digest.update(data)
        count += len(data)
    if count <= size:
        return digest, count
    file.seek(0)
    file.truncate()
    return hashlib.sha256(), 0


def _finish(store, key, file, unfinished, digest, expected):
    """Have the bytes on the disk; those of a damaged file are thrown away, for no later run can go on from them."""
    try:
        _check(store, key, digest, expected)
    except CheckFailed:
        os.unlink(unfinished)
        raise
    file.flush()
    os.fsync(file.fileno())


def _short(etag):
    """What stands for an ETag in a file's name."""
    from nself_core.s3.signing import sha256_hex

    return sha256_hex(etag.encode("utf-8"))[:12]


def _file_failure(error, path):
    import errno

    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Unreachable("the disk is full", file=path)
    return FileFailure(f"cannot be written: {error.strerror or error}", file=path)
