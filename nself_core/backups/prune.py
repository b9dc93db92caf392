"""Which backups may go: pure, from their times and what is to be kept.

The newest good one never goes, and neither does the newest that `restore` takes by itself: the former may be of the
state that a restore has just replaced.
"""

from __future__ import annotations

import os
import time
from collections import namedtuple

from nself_core.backups import folder as folders
from nself_core.backups.manifest import is_of_project
from nself_core.backups.names import MANIFEST, SAFETY_LABEL
from nself_core.failures import FileFailure, UsageFailure
from nself_core.output import Report, bytes_text
from nself_core.plan import Plan, Step

Keep = namedtuple("Keep", "last daily weekly monthly")
Keep.__doc__ = (
    "How many to keep: of the newest, and one for each of so many days, weeks and months (UTC); None for none."
)

Leftover = namedtuple("Leftover", "path shown")
Leftover.__doc__ = "What a run that was ended has left."

SETTINGS = ("BACKUP_RETENTION_LAST", "BACKUP_RETENTION_DAILY", "BACKUP_RETENTION_WEEKLY", "BACKUP_RETENTION_MONTHLY")
PERIODS = (("daily", "%Y-%m-%d"), ("weekly", "%G-%V"), ("monthly", "%Y-%m"))
STALE_SECONDS = 24 * 3600  # what a killed run has left is not touched while it may still be one that runs


def read_keep(settings, last, daily, weekly, monthly):
    """The Keep of the options, or of the settings where none is given. Raises UsageFailure where neither says any."""
    given = Keep(last, daily, weekly, monthly)
    if not any(given):
        given = Keep(*(settings.integer(name) for name in SETTINGS))
    if not any(given):
        raise UsageFailure(
            "nothing says which backups to keep",
            f"give --keep-last, --keep-daily, --keep-weekly or --keep-monthly N, or set {SETTINGS[0]} and the like",
        )
    return given


def kept_files(names, keep):
    """The files of the Names that are kept, as a set; `names`, of good backups of one database."""
    newest_first = sorted(names, key=lambda name: (name.seconds, name.file), reverse=True)
    kept = {name.file for name in (*newest_first[: keep.last or 0], *never_going(newest_first))}
    for period, form in PERIODS:
        seen: set = set()
        for name in newest_first:
            key = time.strftime(form, time.gmtime(name.seconds))
            if key not in seen and len(seen) < (getattr(keep, period) or 0):
                seen.add(key)
                kept.add(name.file)
    return kept


def never_going(newest_first):
    """Of Names, the newest and the newest that `restore` takes by itself, which may be the same."""
    return [*newest_first[:1], *[name for name in newest_first if name.label != SAFETY_LABEL][:1]]


def plan_prune(folder, settings, database_name, keep):
    """The Plan of `backup prune` for this environment's database.

    Backups of other projects, databases and environments, and those without a manifest, are left alone.
    """
    found = folders.list_backups(folder)
    ours = [backup for backup in found if _is_ours(backup.manifest, settings, database_name)]
    good, damaged = _split(ours, keep)
    kept = kept_files([backup.name for backup in good], keep)
    going = [backup for backup in good if backup.name.file not in kept]
    parts = folders.leftovers(folder, time.time() - STALE_SECONDS)
    steps = [
        Step("prune", f"remove {backup.shown} and {backup.shown}{MANIFEST}", None, None, True, backup)
        for backup in going
    ]
    steps += [_leftover(folder, path) for path in parts]
    strange = len(found) - len(ours)
    warnings = [left_alone(strange, "of other projects or databases, or without a manifest,")] if strange else []
    warnings += [f"{backup.shown} is not as it was written, and is left alone" for backup in damaged]
    loses = [f"{backup.shown} ({bytes_text(backup.bytes)})" for backup in going]
    data = {"removed": [], "kept": sorted(kept, reverse=True)}
    return Plan(steps, warnings, f"nothing to remove; {len(kept)} kept", data, loses, asks_everywhere=True)


def left_alone(count, words):
    """The warning that says that so many backups, which `words` describe, are none of ours to remove."""
    return f"{count} {'backup' if count == 1 else 'backups'} {words} {'is' if count == 1 else 'are'} left alone"


def _split(ours, keep):
    """(good, damaged) Backups of `ours`, the newest first: by size, and where some would go, by hash what they leave.

    Read are those alone that never go, until they are as they were written.
    """
    good, read = [backup for backup in ours if backup.bytes == backup.manifest["bytes"]], set()
    while len(good) > len(kept_files([backup.name for backup in good], keep)):
        heads = never_going([backup.name for backup in good])
        head = next((backup for backup in good if backup.name in heads and backup.name not in read), None)
        if head is None:
            break
        read.add(head.name)
        if not folders.is_intact(head):
            good.remove(head)
    return good, [backup for backup in ours if backup not in good]


def _leftover(folder, path):
    shown = os.path.join(folder.shown, os.path.basename(path))
    return Step("prune", f"remove {shown}, left by a run that was ended", work=Leftover(path, shown))


def _is_ours(manifest, settings, database_name):
    if manifest is None or not is_of_project(manifest, settings.project_name):
        return False
    return manifest.get("env") == settings.env and manifest.get("database") == database_name


def perform(steps):
    """Remove what the steps name, each manifest first: what is left of a killed run does not look whole."""
    removed = []
    for step in steps:
        place = step.work
        try:
            folders.remove(place.path + MANIFEST)
            folders.remove(place.path)
        except OSError as error:
            raise FileFailure(
                f"cannot be removed: {error.strerror}", file=place.shown, data={"removed": removed}
            ) from None
        removed.append(place.shown)
    count = len(removed)
    return Report({"removed": removed}, (), f"removed {count} file{'' if count == 1 else 's'}")
