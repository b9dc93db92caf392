"""Whether a backup in the object store can be restored: hashed and read by pg_restore as it comes, on no disk.

A folder alone, which is a tar there, is unpacked first, beside the local backups: pg_restore wants its files.
"""

from __future__ import annotations

import os

from nself_core.backups import folder as folders
from nself_core.backups import remote as remotes
from nself_core.backups.age import SEALED, decrypted, require_identity
from nself_core.backups.folder import write_failure
from nself_core.backups.manifest import check_restorable
from nself_core.backups.names import DIRECTORY, MANIFEST
from nself_core.backups.tar import Unpacking, tar_of
from nself_core.backups.verify import DAMAGED, GOOD, HASH_ONLY, UNKNOWN, UNREAD, difference, read_whole
from nself_core.failures import CheckFailed, FileFailure
from nself_core.s3.answers import NoSuchObject
from nself_core.s3.download import read_pieces

NO_MANIFEST = "it is no backup: its upload was never finished, or is under way"


class Reading:
    """An object read from its beginning, and measured.

    `pieces()` begins anew; `drain()` reads what has not been read; `found`, (bytes, SHA-256 in hex) of what was.
    """

    def __init__(self, remote, key):
        self._remote = remote
        self._key = key
        self._pieces = iter(())

    def pieces(self):
        """Yield the object's bytes."""
        self._measuring = folders.Measuring([], lambda done: None)
        self._pieces = self._measured(read_pieces(self._remote.patient, self._key))
        return self._pieces

    def _measured(self, pieces):
        for data in pieces:
            self._measuring(data)
            yield data

    def drain(self):
        """Read to the end."""
        for _ in self._pieces:
            pass

    @property
    def found(self):
        return self._measuring.size, self._measuring.hexdigest


def choose(remote, file, identity):
    """The RemoteBackups that `backup verify --remote` reads: the one that is named, else all of the environment."""
    if file is not None:
        return [remotes.find_backup(remote, file, None, identity)]
    found = remotes.list_backups(remote, None, identity)
    if not found:
        raise CheckFailed(
            f"there is no backup of {remote.env} in {remote.store.account}", "take one: nself-db backup --remote"
        )
    return found


def examine(database, remote, backup, place):
    """(state, reason or None) of one RemoteBackup; `place`, the Folder where a directory may be unpacked."""
    if not backup.has_manifest:
        return UNKNOWN, NO_MANIFEST
    try:
        manifest = remotes.with_manifest(remote, backup).manifest
        check_restorable(manifest, backup.shown + MANIFEST, SEALED)
        reading = Reading(remote, backup.key)
        state, reason = _read(database, backup, reading, place)
    except NoSuchObject:
        return UNKNOWN, "it was removed meanwhile"
    except (FileFailure, CheckFailed) as failure:
        return DAMAGED, failure.message
    if state == DAMAGED:
        return state, reason
    reading.drain()
    damage = difference(manifest, *reading.found)
    return (DAMAGED, damage) if damage else (state, reason)


def _read(database, backup, reading, place):
    if backup.name.is_encrypted and backup.identity is None:
        reading.pieces()
        return UNREAD, HASH_ONLY
    if backup.name.format == DIRECTORY:
        reason = _read_folder(database, backup.name, reading, place)
    else:
        reason = read_whole(database, backup.name, lambda: _content(backup, reading), None)
    return (DAMAGED, reason) if reason else (GOOD, None)


def _read_folder(database, name, reading, place):
    """As `read_whole`, of a tar that is unpacked for as long."""
    folder = os.path.join(place.path, f".{name.file}.{os.getpid()}{folders.PART}")
    try:
        os.makedirs(folder, mode=0o700)
        unpack(reading.pieces(), folder)
        return read_whole(database, name, lambda: tar_of(folder), folder)
    except OSError as error:
        raise write_failure(place.shown, error) from None
    finally:
        folders.remove(folder)


def unpack(pieces, folder):
    """Unpack a tar of a folder's files into `folder`. Raises OSError, FileFailure for what is no such tar."""
    unpacking = Unpacking(folder, lambda done: None)
    try:
        for data in pieces:
            unpacking(data)
        unpacking.close()
    finally:
        unpacking.abandon()


def _content(backup, reading):
    if not backup.name.is_encrypted:
        return reading.pieces()
    require_identity(backup.identity, backup.shown)
    return decrypted(backup.identity, reading.pieces())
