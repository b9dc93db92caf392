"""Has metadata files written under the project's lock, with a note of what a run that is killed leaves undone.

What it has not removed, the next run removes; what it wrote is not taken for a person's edit.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import namedtuple

from nself_core.hasura.export import Remove, Write
from nself_core.hasura.synced import FOLDER, Locked, read_synced, write_whole
from nself_core.hasura.tree import read_text
from nself_core.hasura.write_files import apply_files
from nself_core.output import Report


class Change(namedtuple("Change", "folder shown action keep", defaults=(False,))):
    """A file that is written or removed.

    Fields: the tree's `folder`; the file's path as `shown` to people, from the project's root; the `action`, an
    export.Write or Remove; `keep`, whether a copy of its present text is kept.
    """

    __slots__ = ()

    @property
    def file(self):
        """Its path in the tree."""
        return self.action.file

    @property
    def before(self):
        """Its present text, None where there is no such file."""
        return self.action.before

    @property
    def text(self):
        """Its text afterwards, None where there is to be no such file."""
        return self.action.text if isinstance(self.action, Write) else None


Recorded = namedtuple("Recorded", "env base")
Recorded.__doc__ = "An environment's synced.Base that is to be kept."

COPIES = f"{FOLDER}/hasura-copies"


def digest(document):
    """A short text for a document: the same for the same, whatever the order of keys."""
    return _sha256(json.dumps(document, sort_keys=True, ensure_ascii=False))


def _sha256(text):
    return None if text is None else hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def is_ours(synced, change):
    """Whether a file's present text is what an export or a pull wrote, and nothing of a person's."""
    return _sha256(change.before) in (synced.written.get(change.shown), synced.pending.get(change.shown))


def perform(root, works):
    """Make the Changes, then keep the Recorded, of a plan; returns a Report.

    Argument: `root`, the project's. Raises LockHeld where another run does not end, and what
    `write_files.apply_files` does: where a file is no longer as it was planned for, nothing is written.
    """
    with Locked(root):
        synced = read_synced(root)
        changes = [work for work in works if isinstance(work, Change) and _now(work) != work.text]
        copies = [_keep_copy(root, change) for change in changes if change.keep]
        _settle_pending(root, synced)
        if changes:
            _sweep(changes)
            synced.pending = {change.shown: _sha256(change.text) for change in changes}
            synced.save()
            apply_files(changes[0].folder, [change.action for change in changes])
            _settle_pending(root, synced)
        for work in works:
            if isinstance(work, Recorded):
                synced.bases[work.env] = work.base
        synced.save()
    return _report(changes, copies, works)


def _now(change):
    path = os.path.join(change.folder, *change.file.split("/"))
    return read_text(path) if os.path.lexists(path) else None


def _settle_pending(root, synced):
    """Take what was to be written or removed, and is, out of the note."""
    for shown, wanted in list(synced.pending.items()):
        path = os.path.join(root, shown)  # of a tree outside of the project it is the whole path
        if wanted == (_sha256(read_text(path)) if os.path.isfile(path) else None):
            del synced.pending[shown]
            synced.written.pop(shown, None)
            if wanted is not None:
                synced.written[shown] = wanted


def _sweep(changes):
    """Remove temporary files that a killed run has left beside those that change: nobody else writes here now."""
    for folder in {os.path.dirname(os.path.join(change.folder, *change.file.split("/"))) for change in changes}:
        for name in os.listdir(folder) if os.path.isdir(folder) else ():
            if name.startswith(".") and name.endswith(_number_behind(name)) and ".yaml." in name:
                os.unlink(os.path.join(folder, name))


def _number_behind(name):
    number = name.rpartition(".")[2]
    return f".{number}" if number.isdecimal() else "\0"


def _keep_copy(root, change):
    """Write a copy of a file's present text for its owner alone, and return its path from the root."""
    stamp = time.strftime("%Y-%m-%dT%H-%M-%SZ", time.gmtime())
    shown = f"{COPIES}/{stamp}/{change.shown.lstrip('/')}"
    write_whole(os.path.join(root, *shown.split("/")), change.before.encode("utf-8"), 0o600)
    return shown


def _report(changes, copies, works):
    written = [change.shown for change in changes if change.text is not None]
    removed = [change.shown for change in changes if isinstance(change.action, Remove)]
    lines = [f"wrote {file}" for file in written] + [f"removed {file}" for file in removed]
    lines += [f"kept a copy: {file}" for file in copies]
    data = {"written": written, "removed": removed, "copies": copies}
    if not changes:
        is_recorded = any(isinstance(work, Recorded) for work in works)
        return Report(data, (), "no file had to be changed" + ("; the synced state is recorded" if is_recorded else ""))
    return Report(data, lines, f"wrote {len(written)} file{'' if len(written) == 1 else 's'}, removed {len(removed)}")


def record(root, env, base):
    """Keep a Base after an apply, under the same lock."""
    with Locked(root):
        synced = read_synced(root)
        synced.bases[env] = base
        synced.save()
