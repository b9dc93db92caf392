"""Whether a backup can be restored: its hash against its manifest, and every byte of it read as pg_restore reads it.

`pg_restore --list` proves nothing: it reads the table of contents, and a dump that is cut in its middle passes. A
flipped bit in an uncompressed dump passes even the whole reading, which is why the hash comes first.
"""

from __future__ import annotations

import gzip
import os
import zlib

from nself_core.backups import folder as folders
from nself_core.backups.names import CUSTOM, PLAIN
from nself_core.failures import CheckFailed
from nself_core.output import Report, Table
from nself_core.postgres.tools import ToolFailed, failure_of_tool, offline_command, stream

GOOD, DAMAGED, UNKNOWN = "good", "damaged", "without manifest"
# What pg_dump writes behind everything else.
LAST_WORDS = b"PostgreSQL database dump complete"
TAIL = 4096

FOLDER_IN_CONTAINER = (
    "folder=$(mktemp -d) && trap 'rm -rf \"$folder\"' EXIT && "
    '{ tar -C "$folder" -xf - && pg_restore --file=/dev/null "$folder"; }; '
    'code=$?; echo "nself-exit $code" >&2; exit $code'
)


def check(database, backups, progress):
    """The Report of `backup verify`: each of the Backups, hashed and read whole. Exit code 1 where one is damaged."""
    rows = []
    for backup in backups:
        progress(f"reading {backup.shown}")
        state, reason = examine(database, backup)
        rows.append({"file": backup.shown, "bytes": backup.bytes, "state": state, "reason": reason})
    damaged = [row for row in rows if row["state"] == DAMAGED]
    table = Table(("backup", "state", "reason"), [(row["file"], row["state"], row["reason"]) for row in rows])
    count = len(rows)
    summary = f"{count} backup{'' if count == 1 else 's'} read whole" if rows else "no backups"
    if damaged:
        summary = f"{len(damaged)} of {count} backups damaged"
    return Report({"backups": rows}, [table] if rows else [], summary, (), 1 if damaged else 0)


def examine(database, backup):
    """(state, reason or None) of one Backup."""
    try:
        size, digest = folders.measure(backup.path)
    except OSError as error:
        return DAMAGED, f"it cannot be read: {error.strerror}"
    manifest = backup.manifest
    if manifest and (size, digest) != (manifest["bytes"], manifest["sha256"]):
        told = f"{size} bytes" if size != manifest["bytes"] else "the same size, but another SHA-256"
        return DAMAGED, f"it is not as it was written: {told} (of {manifest['bytes']} bytes)"
    reason = read_whole(database, backup)
    if reason:
        return DAMAGED, reason
    return (GOOD, None) if manifest else (UNKNOWN, "read whole, but nothing says what it should be")


def read_whole(database, backup):
    """Why a backup cannot be read to its end, or None where it can."""
    if backup.name.format == PLAIN:
        return _read_plain(backup)
    try:
        if backup.name.format == CUSTOM:
            stream(offline_command(database, "pg_restore", ["--file=/dev/null"]), source=_chunks(backup.path))
        else:
            _read_folder(database, backup)
    except ToolFailed as failed:
        failure = failure_of_tool(database, failed)
        if failure.exit_code != 1:
            raise failure from None
        return failure.message
    return None


def _chunks(path):
    with open(path, "rb") as file:
        while data := file.read(folders.CHUNK):
            yield data


def _read_folder(database, backup):
    command = offline_command(database, "pg_restore", ["--file=/dev/null", backup.path])
    if not command.in_container:
        stream(command)
        return
    at = command.argv.index("sh")
    argv = [*command.argv[:at], "sh", "-c", FOLDER_IN_CONTAINER]
    stream(command._replace(argv=argv), source=tar_of(backup.path))


def tar_of(path):
    """The files of a folder as a tar, in pieces."""
    import tarfile

    for name in sorted(os.listdir(path)):
        file = os.path.join(path, name)
        entry = tarfile.TarInfo(name)
        entry.size = os.path.getsize(file)
        yield entry.tobuf()
        yield from _chunks(file)
        yield bytes(-entry.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _read_plain(backup):
    """Why a plain dump is not whole: it ends before pg_dump's last words, or its gzip stream is damaged."""
    opened = gzip.open(backup.path, "rb") if backup.path.endswith(".gz") else open(backup.path, "rb")  # noqa: SIM115
    tail = b""
    try:
        with opened as file:
            while data := file.read(folders.CHUNK):
                tail = (tail + data)[-TAIL:]
    except (OSError, EOFError, zlib.error) as error:
        return f"it cannot be read to its end: {error}"
    return None if LAST_WORDS in tail else "it ends before pg_dump's last words"


def choose(folder, file):
    """The Backups that `backup verify` reads: the one that is named, else all of the folder."""
    if file is not None:
        return [folders.find_backup(folder, file)]
    found = folders.list_backups(folder)
    if not found:
        raise CheckFailed(f"there is no backup in {folder.shown}", "take one: nself-db backup")
    return found
