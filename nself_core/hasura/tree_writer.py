"""Has metadata files written under the project's lock, with a note of what a run that is killed leaves undone.

What it has not removed, the next run removes; what it wrote is not taken for a person's edit.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import namedtuple

from nself_core.hasura.export import Remove, Write, path_of, read_bytes, text_of, text_there
from nself_core.hasura.synced import FOLDER, Locked, read_synced, write_failure, write_whole
from nself_core.hasura.write_files import apply_files, check_unchanged, sweep
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
# Behind an environment's name among the bases, before a version: what a run that has begun to write will have synced.
BEGUN = " begun "


def bases_begun(synced, env, engine):
    """The Bases that runs which were ended would have kept, since the environment's own, in the order of those runs."""
    found = [base for key, base in synced.bases.items() if key.startswith(f"{env}{BEGUN}")]
    return [base for base in found if base.engine == engine]


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
        sweep({_path(root, shown) for shown in [*synced.pending, *(change.shown for change in changes)]})
        copies = _keep_copies(root, [change for change in changes if change.keep])
        _settle_pending(root, synced)
        if changes:
            synced.pending = {change.shown: _sha256(change.text) for change in changes}
            for work in works:
                if isinstance(work, Recorded):
                    synced.bases[f"{work.env}{BEGUN}{work.base.version}"] = work.base
            synced.save()
            apply_files(changes[0].folder, [change.action for change in changes])
            _settle_pending(root, synced)
        for work in works:
            if isinstance(work, Recorded):
                _keep_base(synced, work.env, work.base)
        synced.save()
    return _report(changes, copies, works)


def _now(change):
    return text_there(change.folder, change.file)


def _path(root, shown):
    return os.path.join(root, *shown.split("/")) if not os.path.isabs(shown) else shown  # of a tree outside of it


def _settle_pending(root, synced):
    """Take what was to be written or removed, and is, out of the note."""
    for shown, wanted in list(synced.pending.items()):
        path = _path(root, shown)
        if wanted == (_sha256(text_of(read_bytes(path))) if os.path.isfile(path) else None):
            del synced.pending[shown]
            synced.written.pop(shown, None)
            if wanted is not None:
                synced.written[shown] = wanted


def _keep_copies(root, changes):
    """Copy the files of Changes, as they are, for their owner alone; returns the copies' paths from the root.

    Where that fails nothing is overwritten yet, and none of them is left.
    """
    if not changes:
        return []
    folder = _make_folder(root)
    try:
        return [_keep_copy(root, folder, change) for change in changes]
    except BaseException:
        import shutil

        shutil.rmtree(_path(root, folder), ignore_errors=True)
        raise


def _make_folder(root):
    """Make a folder for the copies of one run, which is nobody else's; returns its path from the root."""
    stamp = f"{COPIES}/{time.strftime('%Y-%m-%dT%H-%M-%SZ', time.gmtime())}"
    number, shown = 1, stamp
    while True:
        try:
            os.makedirs(_path(root, shown), 0o700)
            return shown
        except FileExistsError:
            number += 1
            shown = f"{stamp}-{number}"
        except OSError as error:
            raise write_failure(error, shown) from error


def _keep_copy(root, folder, change):
    data = read_bytes(path_of(change.folder, change.file))
    check_unchanged(change.folder, change.action, text_of(data))
    shown = f"{folder}/{change.shown.lstrip('/')}"
    write_whole(_path(root, shown), data, 0o600)
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
        _keep_base(synced, env, base)
        synced.save()


def _keep_base(synced, env, base):
    for key in [key for key in synced.bases if key.startswith(f"{env}{BEGUN}")]:
        del synced.bases[key]
    synced.bases[env] = base
