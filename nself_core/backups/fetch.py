"""Brings a backup from the object store into the folder of backups, where it then is as if it had been taken here.

What a cut way has left of it is where the next run goes on. It gets its name when its hash is right, and its manifest
after that.
"""

from __future__ import annotations

import os
from collections import namedtuple

from nself_core.backups import folder as folders
from nself_core.backups.age import as_sealed
from nself_core.backups.folder import Backup, write_failure
from nself_core.backups.manifest import write_manifest
from nself_core.backups.names import DIRECTORY, MANIFEST
from nself_core.backups.tar import chunks
from nself_core.backups.verify import DAMAGED, examine
from nself_core.backups.verify_remote import unpack
from nself_core.disk import sync
from nself_core.failures import CheckFailed, FileFailure, Unreachable
from nself_core.output import Report, bytes_text
from nself_core.plan import Step
from nself_core.s3.download import fetch_file

PIECE = 4 * 1024 * 1024  # of which four are on their way

Fetch = namedtuple("Fetch", "remote source backup")
Fetch.__doc__ = "What is fetched: of the Remote the RemoteBackup `source`, and the Backup that it becomes here."


def plan_fetch(remote, source, folder):
    """(the Backup that a RemoteBackup with its manifest will be in the Folder, the Steps that bring it there)."""
    manifest = _own_manifest(source)
    name, shown = source.name, os.path.join(folder.shown, source.name.file)
    path = os.path.join(folder.path, name.file)
    backup = Backup(name, path, shown, manifest["bytes"], manifest, folder.identity)
    size = bytes_text(source.bytes)
    title = f"fetch {source.shown} ({size}) to {shown}, unless it is there, and read it whole"
    return backup, [Step("fetch", title, work=Fetch(remote, source, backup))]


def _own_manifest(source):
    """The manifest as it stands beside a local backup: a folder has its own facts again."""
    manifest = source.manifest
    if source.name.format != DIRECTORY:
        return manifest
    own = manifest.get("content")
    if not isinstance(own, dict) or not {"file", "bytes", "sha256"} <= own.keys():
        raise FileFailure("this manifest does not say what the folder holds", file=source.shown + MANIFEST)
    return {**{name: value for name, value in manifest.items() if name != "content"}, **own}


def perform(database, step, tell):
    """Fetch the backup of a step and read it whole; returns an empty Report.

    Argument: `tell(text)`, progress. Raises CheckFailed for a damaged one, FileFailure where another file has its name,
    Unreachable for a full disk, and what the store raises.
    """
    fetch = step.work
    backup = fetch.backup
    try:
        if not _is_here(backup):
            tell(f"fetching {fetch.source.shown}")
            os.makedirs(os.path.dirname(backup.path), mode=0o700, exist_ok=True)
            _check_room(fetch)
            (_fetch_folder if backup.name.format == DIRECTORY else _fetch_file)(fetch, backup.path)
        write_manifest(backup.path, as_sealed(backup.manifest))
        sync(os.path.dirname(backup.path))
    except OSError as error:
        raise write_failure(backup.shown, error) from None
    tell(f"reading {backup.shown}")
    state, reason = examine(database, backup)
    if state == DAMAGED:
        raise CheckFailed(f"the backup is damaged: {reason}", "choose another one with --file", file=backup.shown)
    return Report({}, (), "")


def _is_here(backup):
    """Whether the backup lies here already. Raises FileFailure where something else has its name."""
    if not os.path.lexists(backup.path):
        return False
    if not folders.is_intact(backup):
        raise FileFailure(
            "another file of this name is here, and is not what the object store holds",
            "move it away, or remove it",
            file=backup.shown,
        )
    return True


def _check_room(fetch):
    place = os.statvfs(os.path.dirname(fetch.backup.path))
    free = place.f_bavail * place.f_frsize
    times = 2 if fetch.backup.name.format == DIRECTORY else 1  # the tar, and what is in it
    if free < times * fetch.source.bytes:
        raise Unreachable(
            f"the disk has no room for the backup: {bytes_text(fetch.source.bytes)} are to be fetched, and "
            f"{bytes_text(free)} are free",
            "make room, or set BACKUP_DIR to another place",
            file=fetch.backup.shown,
        )


def _fetch_file(fetch, path):
    fetch_file(fetch.remote.patient, fetch.source.key, path, sha256=fetch.source.manifest["sha256"], piece=PIECE)


def _fetch_folder(fetch, path):
    """Fetch the tar under a hidden name, unpack it under another, and give that the folder's name."""
    place, name = os.path.split(path)
    tar, part = (os.path.join(place, f".{name}{ending}{folders.PART}") for ending in (".tar", f".{os.getpid()}"))
    _fetch_file(fetch, tar)
    try:
        os.mkdir(part, 0o700)
        unpack(chunks(tar), part)
        sync(part)
        folders.give_name(part, path)
    finally:
        folders.remove(part)
        folders.remove(tar)
