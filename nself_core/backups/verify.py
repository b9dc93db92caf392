"""Whether a backup can be restored: its hash against its manifest, and every byte of it read as pg_restore reads it.

`pg_restore --list` proves nothing: it reads the table of contents, and a dump that is cut in its middle passes. A
flipped bit in an uncompressed dump passes even the whole reading, which is why the hash comes first.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import zlib

from nself_core.backups import folder as folders
from nself_core.backups.age import IDENTITY, SEALED, decrypted, require_identity
from nself_core.backups.manifest import check_restorable, read_manifest
from nself_core.backups.names import CUSTOM, DIRECTORY, MANIFEST, PLAIN
from nself_core.backups.plain import find_command
from nself_core.backups.shares import read_shares
from nself_core.backups.tar import CHUNK, chunks, tar_of
from nself_core.failures import CheckFailed, FileFailure, Unreachable
from nself_core.output import Report, Table
from nself_core.postgres.tools import (
    SIGNALS,
    ToolFailed,
    container_command,
    failure_of_tool,
    host_command,
    offline_command,
    stream,
)

GOOD, DAMAGED, UNKNOWN, UNREAD = "good", "damaged", "without manifest", "not decrypted"
HASH_ONLY = f"only its hash was compared: it is encrypted, and {IDENTITY} is not set"
# What pg_dump writes behind everything else; since August 2025 it gives at the end the word it gave at the head, too.
LAST_WORDS = re.compile(rb"\n-- PostgreSQL database dump complete\n--\s+(?:\\unrestrict (\w+)\n\s*)?\Z")
FIRST_WORD = re.compile(rb"^\\restrict (\w+)$", re.MULTILINE)
# pg_restore's words for a dump that is newer than it, or compressed by what it was built without.
UNABLE = ("unsupported version", "does not support compression")
CRASHES = (6, 7, 8, 11)  # signals that a program which trips over its input gets: abort, bus, arithmetic, segment
TAIL = 4096

FOLDER_IN_CONTAINER = (
    "folder=$(mktemp -d) && trap 'rm -rf \"$folder\"' EXIT && "
    '{ tar -C "$folder" -xf - && pg_restore --file=/dev/null "$folder"; }; '
    'code=$?; echo "nself-exit $code" >&2; exit $code'
)


def check(examined, backups, progress):
    """The Report of `backup verify`: each of the backups, hashed and read whole. Exit code 1 where one is damaged.

    Argument: `examined(backup)`, its (state, reason or None).
    """
    rows = []
    for backup in backups:
        progress(f"reading {backup.shown}")
        state, reason = examined(backup)
        rows.append({"file": backup.shown, "bytes": backup.bytes, "state": state, "reason": reason})
    damaged = [row for row in rows if row["state"] == DAMAGED]
    table = Table(("backup", "state", "reason"), [(row["file"], row["state"], row["reason"]) for row in rows])
    return Report({"backups": rows}, [table] if rows else [], _summary(rows, damaged), (), 1 if damaged else 0)


def _summary(rows, damaged):
    count = len(rows)
    if damaged:
        return f"{len(damaged)} of {count} backup{'' if count == 1 else 's'} damaged"
    unread = sum(row["state"] == UNREAD for row in rows)
    told = f"{count} backup{'' if count == 1 else 's'}"
    if unread:
        return f"{told} compared with the manifest's hash, {count - unread} of them read whole"
    return f"{told} read whole" if rows else "no backups"


def misshapen(backup):
    """Why a Backup is none, as far as what it is on the disk and its manifest tell, or None."""
    wanted, is_it = ("a folder", os.path.isdir) if backup.name.format == DIRECTORY else ("a file", os.path.isfile)
    if not is_it(backup.path):  # to read a pipe or a device may take for ever
        return f"it should be {wanted}, and is not"
    try:
        manifest = read_manifest(backup.path)
        if manifest:
            check_restorable(manifest, backup.path + MANIFEST, SEALED)
    except FileFailure as failure:
        return f"{failure.message}: {os.path.basename(failure.file)}"
    return None


def examine(database, backup, jobs=1):
    """(state, reason or None) of one Backup. Argument: `jobs`, how many processes may read it at once."""
    reason = misshapen(backup)
    if reason:
        return DAMAGED, reason
    try:
        manifest = read_manifest(backup.path)
        size, digest = folders.measure(backup.path)
    except FileFailure as failure:
        return DAMAGED, f"{failure.message}: {os.path.basename(failure.file)}"
    except OSError as error:
        return DAMAGED, f"it cannot be read: {error.strerror}"
    reason = difference(manifest, size, digest) if manifest else None
    if reason is None and backup.name.is_encrypted and backup.identity is None:
        return (UNREAD, HASH_ONLY) if manifest else (UNKNOWN, f"it is encrypted, and {IDENTITY} is not set")
    reason = reason or _read(database, backup, jobs if manifest else 1)
    if reason:
        return DAMAGED, reason
    return (GOOD, None) if manifest else (UNKNOWN, "read whole, but nothing says what it should be")


def _read(database, backup, jobs):
    """Why a backup cannot be read to its end, or None; by several processes where they can read the file itself."""
    is_file = backup.name.format == CUSTOM and not backup.name.is_encrypted
    command = offline_command(database, "pg_restore", []) if jobs > 1 and is_file else None
    if command and not command.in_container:
        try:
            read_shares(command, backup.path, jobs)
            return None
        except ToolFailed:
            pass  # one who reads all of it says what is wrong
    return read_whole(database, backup.name, lambda: content(backup), backup.path)


def difference(manifest, size, digest):
    """Why what has this size and SHA-256 is not what the manifest is of, or None where it is."""
    if (size, digest) == (manifest["bytes"], manifest["sha256"]):
        return None
    told = f"{size} bytes" if size != manifest["bytes"] else "the same size, but another SHA-256"
    return f"it is not as it was written: {told} (of {manifest['bytes']} bytes)"


def content(backup):
    """What pg_dump wrote, in pieces, decrypted; a folder as a tar. Raises OSError, and what `age.decrypted` raises."""
    if backup.name.format == DIRECTORY:
        return tar_of(backup.path)
    if not backup.name.is_encrypted:
        return chunks(backup.path)
    require_identity(backup.identity, backup.shown)
    return decrypted(backup.identity, chunks(backup.path))


def read_whole(database, name, pieces, path):
    """Why a backup cannot be read to its end, or None where it can.

    Arguments: its Name; `pieces()`, its content from the beginning; `path`, the folder that it is, where it is one.
    Raises Unreachable where no pg_restore is at hand, or none that knows this form of a dump.
    """
    if name.format == PLAIN:
        return _read_plain(name, pieces())
    arguments = ["--file=/dev/null", *([path] if name.format == DIRECTORY else [])]
    try:
        return _read_by(database, offline_command(database, "pg_restore", arguments), name, pieces)
    except Unreachable as failure:
        other = _other_reader(database, arguments, failure)
        if other is None:
            raise
        return _read_by(database, other, name, pieces)


def _other_reader(database, arguments, failure):
    """The Command of another pg_restore, where the first is not there or cannot read this; None without one.

    In the container's place this host's will do, and for a URL in this host's place the container's.
    """
    here = host_command("pg_restore", arguments)
    if database.reach.kind == "url" and here:
        return container_command(database, "pg_restore", arguments, failure)
    return here if database.reach.kind == "container" else None


def _read_by(database, command, name, pieces):
    try:
        if name.format == CUSTOM:
            stream(command, source=pieces())
        elif command.in_container:
            at = command.argv.index("sh")
            argv = [*command.argv[:at], "sh", "-c", FOLDER_IN_CONTAINER]
            stream(command._replace(argv=argv), source=pieces())
        else:
            stream(command)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    except CheckFailed as failure:  # age's
        return failure.message
    except ToolFailed as failed:
        return _reason(database, failed)
    return None


def _reason(database, failed):
    """What is wrong with the dump, where it is the dump. Raises what is wrong with the way to read it."""
    signal = -failed.code if failed.code < 0 else failed.code - SIGNALS
    if failed.told and signal in CRASHES:
        return f"pg_restore crashed on it, with signal {signal}"
    failure = failure_of_tool(database, failed)
    if failure.exit_code != 1:
        raise failure from None
    if any(words in failure.message for words in UNABLE):
        hint = "use the pg_restore of the Postgres that the backup was made with"
        raise Unreachable(f"this pg_restore cannot read it: {failure.message}", hint) from None
    return failure.message


class Pieces(io.RawIOBase):
    """What a generator yields, as a file to read from."""

    def __init__(self, pieces):
        self._pieces = iter(pieces)
        self._rest = memoryview(b"")

    def readable(self):
        return True

    def readinto(self, buffer):
        while not self._rest:
            data = next(self._pieces, None)
            if data is None:
                return 0
            self._rest = memoryview(data)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def opened(name, pieces):
    """The text of a plain dump, as a file, of the pieces of its content."""
    file = io.BufferedReader(Pieces(pieces), CHUNK)
    return gzip.GzipFile(fileobj=file) if name.is_gzipped else file


class _Watched(io.RawIOBase):
    """A text that is read through, whose first and last bytes are kept."""

    def __init__(self, file):
        self._file = file
        self.head = self.tail = b""

    def readable(self):
        return True

    def readinto(self, buffer):
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self.head += data[: TAIL - len(self.head)]
        self.tail = data[-TAIL:] if len(data) >= TAIL else (self.tail + data)[-TAIL:]
        return len(data)


def _read_plain(name, pieces):
    """Why a plain dump is not whole, or not to be run: it ends before pg_dump's last words, its gzip stream is damaged,
    or it holds what psql takes for a command.
    """
    try:
        with opened(name, pieces) as file:
            watched = _Watched(file)
            found = find_command(io.BufferedReader(watched, CHUNK))
    except (OSError, EOFError, zlib.error) as error:
        return f"it cannot be read to its end: {error}"
    except CheckFailed as failure:  # age's
        return failure.message
    if found:
        return f"{name.file}:{found[0]}: {found[1]}, which pg_dump does not write"
    first, last = FIRST_WORD.search(watched.head), LAST_WORDS.search(watched.tail)
    whole = last and (first is None or first[1] == last[1])
    return None if whole else "it does not end with pg_dump's last words"


def choose(folder, file):
    """The Backups that `backup verify` reads: the one that is named, else all of the folder."""
    if file is not None:
        return [folders.find_backup(folder, file)]
    found = folders.list_backups(folder)
    if not found:
        raise CheckFailed(f"there is no backup in {folder.shown}", "take one: nself-db backup")
    return found
