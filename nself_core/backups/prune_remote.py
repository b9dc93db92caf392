"""Which backups in the object store may go, and what killed runs have left there.

A manifest goes before its object: what a killed run of this leaves is an object that is no backup. Such objects, and
uploads that were never completed, are taken back once they are a day old and bear the mark of our own.
"""

from __future__ import annotations

import time
from collections import namedtuple

from nself_core.backups import remote as remotes
from nself_core.backups.manifest import is_of_project
from nself_core.backups.names import MANIFEST, read_object_name
from nself_core.backups.prune import STALE_SECONDS, kept_files, left_alone
from nself_core.failures import Failure, FileFailure
from nself_core.output import Report, bytes_text
from nself_core.plan import Plan, Step
from nself_core.s3.multipart import abort_upload, find_uploads, last_sent

Work = namedtuple("Work", "key shown upload is_half", defaults=(None, False))
Work.__doc__ = """What is removed, `shown` to people.

The object of a `key` with its manifest, or the one of them that is there alone (`is_half`), or an `upload`, an Upload.
"""


def plan_prune(remote, database_name, keep):
    """The Plan of `backup prune --remote` for this environment's database; `keep`, a Keep.

    A backup is good here when its manifest is its own and says the object's size: reading all of each would cost more
    than they do.
    """
    entries = remotes.find_keys(remote, database_name)
    found = remotes.list_backups(remote, database_name, None, entries)
    good, strange, others = _split(remote, found)
    kept = kept_files([backup.name for backup in good], keep)
    going = [backup for backup in good if backup.name.file not in kept]
    steps = [
        Step(
            "prune",
            f"remove {backup.shown} and {backup.shown}{MANIFEST}",
            None,
            None,
            True,
            Work(backup.key, backup.shown),
        )
        for backup in going
    ]
    left, young = _left(remote, database_name, entries)
    steps += [Step("prune", f"remove {work.shown}, left by a run that was ended", work=work) for work in left]
    warnings = [f"{backup.shown} is not what its manifest says, and is left alone" for backup in strange]
    warnings += [left_alone(others, "of other projects")] if others else []
    warnings += [f"{shown} is unfinished, or under way, and is left for a day" for shown in young]
    loses = [f"{backup.shown} ({bytes_text(backup.bytes)})" for backup in going]
    data = {"removed": [], "kept": sorted(kept, reverse=True)}
    return Plan(steps, warnings, f"nothing to remove; {len(kept)} kept", data, loses, asks_everywhere=True)


def _split(remote, found):
    """(good, strange) of the RemoteBackups that have a manifest, and how many are another project's."""
    good, strange, others = [], [], 0
    for backup in found:
        if backup.has_manifest:
            manifest = _manifest(remote, backup)
            if manifest and not is_of_project(manifest, remote.project):
                others += 1
            else:
                (good if manifest and manifest["bytes"] == backup.bytes else strange).append(backup)
    return good, strange, others


def _manifest(remote, backup):
    """The manifest of a RemoteBackup, or None for what is not one, or another's."""
    try:
        return remotes.with_manifest(remote, backup).manifest
    except FileFailure:
        return None


def _left(remote, database_name, entries):
    """What killed runs have left: (Works of what is old enough to go, what is shown of the rest)."""
    limit = remotes.stamp(time.time() - STALE_SECONDS)
    old, young = [], []
    for entry in _halves(entries):
        work = Work(entry.key.removesuffix(MANIFEST), remotes.shown_key(remote, entry.key), None, True)
        if (entry.modified or "") >= limit:
            young.append(work.shown)
        elif _is_ours(remote, entry.key):
            old.append(work)
    for upload in find_uploads(remote.store, remotes.folder_key(remote, remote.env, database_name)):
        shown = f"the upload of {remotes.shown_key(remote, upload.key)}"
        # A long dump's own is old, and still gets parts.
        if (upload.begun or "") >= limit or last_sent(remote.store, upload) >= limit:
            young.append(shown)
        else:
            old.append(Work(upload.key, shown, upload))
    return old, young


def _halves(entries):
    """The Entries of objects without their manifest, and of manifests without their object."""
    for key, entry in entries.items():
        is_manifest = key.endswith(MANIFEST)
        other = key[: -len(MANIFEST)] if is_manifest else key + MANIFEST
        name = (other if is_manifest else key).rpartition("/")[2]
        if other not in entries and read_object_name(name):
            yield entry


def _is_ours(remote, key):
    head = remote.store.head(key)
    return head is not None and remotes.MARK.items() <= head.meta.items()


def _is_completed(remote, work):
    """Whether a half has got its other half since the plan was made."""
    return work.is_half and all(remote.store.head(key) for key in (work.key, work.key + MANIFEST))


def perform(remote, steps):
    """Remove what the steps name, all manifests first, and return the Report."""
    objects = [step.work for step in steps if step.work.upload is None and not _is_completed(remote, step.work)]
    remote.store.delete_all([work.key + MANIFEST for work in objects])
    remote.store.delete_all([work.key for work in objects])
    removed = [work.shown for work in objects]
    for step in steps:
        if step.work.upload is not None:
            try:
                abort_upload(remote.store, step.work.upload)
            except Failure as failure:
                failure.data = {"removed": removed}
                raise
            removed.append(step.work.shown)
    count = len(removed)
    return Report({"removed": removed}, (), f"removed {count} object{'' if count == 1 else 's'}")
