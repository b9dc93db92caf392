"""Has metadata files written under the project's lock and the tree's, with a note of what a run that is killed leaves.

What it has not removed, the next run removes; what it wrote is not taken for a person's edit.
"""

from __future__ import annotations

import json
import os
import time
from collections import namedtuple

from nself_core.failures import FileFailure
from nself_core.hasura import unfinished
from nself_core.hasura.export import Remove, Write, path_of, read_bytes, text_of, text_there
from nself_core.hasura.project import find_metadata
from nself_core.hasura.synced import FOLDER, Locked, read_synced, text_digest, write_failure, write_whole
from nself_core.hasura.write_files import apply_files, check_files, check_unchanged, sweep
from nself_core.output import Report

Seen = namedtuple("Seen", "note files")
Seen.__doc__ = """What a plan was made of: the `note` that lay in the tree, and the text of each of its `files`."""
NOTHING = Seen({}, {})


class Change(namedtuple("Change", "folder shown action keep is_fix seen", defaults=(False, False, NOTHING))):
    """A file that is written or removed.

    Fields: the tree's `folder`; the file's path as `shown` to people, from the project's root; the `action`, an
    export.Write or Remove; `keep`, whether a copy of its present text is kept; `is_fix`, whether it is lint's: then
    each file means afterwards what it meant, and is a person's edit unless it was an export's; what the plan was made
    of, as `seen`.
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
Settled = namedtuple("Settled", "folder shown seen")
Settled.__doc__ = "That a tree's note of a run which was ended counts no more: its files are as the engine has them."

COPIES = f"{FOLDER}/hasura-copies"


def digest(document):
    """A short text for a document: the same for the same, whatever the order of keys."""
    return text_digest(json.dumps(document, sort_keys=True, ensure_ascii=False))


def is_ours(synced, note, change):
    """Whether a file's present text is what an export or a pull wrote, and nothing of a person's.

    Argument: `note`, of a run that was ended in this tree, as unfinished.read_note gives it.
    """
    _, wanted = note.get(change.file, (None, None))
    return text_digest(change.before) in (synced.written.get(change.shown), wanted)


def perform(root, works):
    """Make the Changes, then keep the Recorded, of a plan; returns a Report.

    Argument: `root`, the project's. Raises LockHeld where another run does not end, and what
    `write_files.apply_files` does: where a file is no longer as it was planned for, nothing is written.
    """
    files = [work for work in works if isinstance(work, (Change, Settled))]
    records = [work for work in works if isinstance(work, Recorded)]
    if not files:
        with Locked(root):
            return _perform(root, [], records)
    folder = files[0].folder
    _make_tree(folder)
    with Locked(root), unfinished.tree_lock(folder, writes=True):
        return _perform(root, files, records)


def _make_tree(folder):
    """Make a tree's folder, so that it can be locked."""
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise write_failure(error, folder) from error


def _perform(root, files, records):
    synced = read_synced(root)
    changes = [work for work in files if isinstance(work, Change) and text_there(work.folder, work.file) != work.text]
    copies: list = []
    if files:
        copies = _write_tree(root, synced, files, changes, records)
    for record in records:
        synced.keep(record.env, record.base)
    synced.save()
    if files:
        unfinished.remove_note(files[0].folder)  # behind what it says of whose the texts are
    return _report(changes, copies, records)


def _write_tree(root, synced, files, changes, records):
    """Write those `changes` of a plan's `files` that are not there yet; returns the copies that were kept.

    The note lies in the tree afterwards.
    """
    first = files[0]
    folder, prefix = first.folder, first.shown.removesuffix(first.file if isinstance(first, Change) else "")
    note = unfinished.read_note(folder)
    _check_seen(first, note, {work.file for work in files if isinstance(work, Change)})
    sweep([path_of(folder, file) for file in (unfinished.NOTE, *note, *(change.file for change in changes))])
    present = _digests(folder, note)
    for file in note:
        _mark(synced, prefix + file, present[file], present[file] == note[file][1])
    actions = [change.action for change in changes]
    check_files(folder, actions)
    copies = _keep_copies(root, [change for change in changes if change.keep])
    run = {item.file: (text_digest(item.before), text_digest(item.text)) for item in changes if not item.is_fix}
    if run:
        for record in records:
            synced.begin(record.env, record.base)
        synced.save()
        unfinished.write_note(folder, unfinished.joined(note, present, run))
    try:
        apply_files(folder, actions)
    except BaseException:
        _forget_untouched(folder, run)
        raise
    for change in changes:
        _mark(synced, change.shown, text_digest(change.text), not change.is_fix or is_ours(synced, note, change))
    return copies


def _check_seen(first, note, planned):
    """Raise FileFailure where the tree is no longer what the plan was made of: what it leaves as it is has changed.

    Arguments: `note`, the tree's now; `planned`, the files that are written or removed, which are looked at by others.
    """
    if note != first.seen.note:
        raise FileFailure("another run was ended here meanwhile, so nothing was written", "run the command again",
                          file=path_of(first.folder, unfinished.NOTE))  # fmt: skip
    for file, text in first.seen.files.items():
        if file not in planned:
            check_unchanged(first.folder, Write(file, text, text), text_there(first.folder, file))


def _mark(synced, shown, digest, is_wanted):
    """Note what an export or a pull wrote into a file, or that it removed it, unless what is there is a person's."""
    if is_wanted and digest is not None:
        synced.written[shown] = digest
    elif is_wanted:
        synced.written.pop(shown, None)


def _digests(folder, files):
    """The digest of each of a tree's files as it is now; of one that is no regular file there is none."""
    return {
        file: text_digest(text_there(folder, file)) if os.path.isfile(path_of(folder, file)) else None for file in files
    }


def _forget_untouched(folder, run):
    """Take the note away where a run has failed before it changed anything."""
    note = unfinished.read_note(folder) if run else {}
    if note and unfinished.is_untouched(note, _digests(folder, note)):
        unfinished.remove_note(folder)


def _path(root, shown):
    return os.path.join(root, *shown.split("/")) if not os.path.isabs(shown) else shown  # of a tree outside of it


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


def _report(changes, copies, records):
    written = [change.shown for change in changes if change.text is not None]
    removed = [change.shown for change in changes if isinstance(change.action, Remove)]
    lines = [f"wrote {file}" for file in written] + [f"removed {file}" for file in removed]
    lines += [f"kept a copy: {file}" for file in copies]
    data = {"written": written, "removed": removed, "copies": copies}
    if not changes:
        return Report(data, (), "no file had to be changed" + ("; the synced state is recorded" if records else ""))
    return Report(data, lines, f"wrote {len(written)} file{'' if len(written) == 1 else 's'}, removed {len(removed)}")


def record(settings, base):
    """Keep a Base of the active environment after an apply, under the same locks.

    What was applied was whole: where a run that was ended has left a note in the tree, and the files are as they were
    before it or as it wanted them, it goes.
    """
    folder = unfinished.folder_of(find_metadata(settings).path)
    with Locked(settings.root), unfinished.tree_lock(folder, writes=True):
        synced = read_synced(settings.root)
        synced.keep(settings.env, base)
        synced.save()
        note = unfinished.read_note(folder)
        present = _digests(folder, note)
        if note and (unfinished.is_untouched(note, present) or unfinished.is_done(note, present)):
            unfinished.remove_note(folder)
