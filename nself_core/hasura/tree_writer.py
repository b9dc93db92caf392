"""Writes metadata files: each whole, in an order in which the tree can be read after each, under the project's lock.

A file is written only while it is as it was planned for. What a run that is killed has not removed, the next one does.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import namedtuple

from nself_core.failures import Failure, Refused
from nself_core.hasura.synced import FOLDER, Locked, read_synced, sync_folder, write_failure, write_whole
from nself_core.hasura.tree import read_text
from nself_core.output import Report

Change = namedtuple("Change", "file shown path before text keep", defaults=(False,))
Change.__doc__ = """A `file` of a tree, as `shown` to people and by its whole `path`: its text `before` and its new
`text`, None for none; `keep`, whether a copy of the former is kept."""

Recorded = namedtuple("Recorded", "env base")
Recorded.__doc__ = "An environment's synced.Base that is to be kept."

COPIES = f"{FOLDER}/hasura-copies"


def digest(document):
    """A short text for a document: the same for the same, whatever the order of keys."""
    return _sha256(json.dumps(document, sort_keys=True, ensure_ascii=False))


def _sha256(text):
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def is_ours(synced, change):
    """Whether a file's present text is what an export or a pull wrote, and nothing of a person's."""
    return change.before is not None and synced.written.get(change.shown) == _sha256(change.before)


def perform(root, works):
    """Make the Changes, then keep the Recorded, of a plan in order; returns a Report.

    Argument: `root`, the project's. Raises Refused where a file is no longer as it was planned for, LockHeld where
    another run does not end, FileFailure and Unreachable where something cannot be written: then `data` says what was.
    """
    changes = [work for work in works if isinstance(work, Change)]
    done: dict = {"written": [], "removed": [], "copies": []}
    with Locked(root):
        synced = read_synced(root)
        changes = _still_to_do(changes)
        _keep_copies(root, changes, done)
        removing = [change.shown for change in changes if change.text is None]
        if removing:
            synced.removing = removing
            synced.save()
        try:
            for change in changes:
                _make(change, synced, done)
        except (Failure, OSError) as error:
            synced.save()
            raise _with_data(error, done) from None
        synced.removing = []
        for work in works:
            if isinstance(work, Recorded):
                synced.bases[work.env] = work.base
        synced.save()
    return Report(done, _lines(done), _summary(done))


def _still_to_do(changes):
    """The Changes that are not made yet. Raises Refused for a file that is neither as before nor as it is to be."""
    left = []
    for change in changes:
        now = read_text(change.path) if os.path.lexists(change.path) else None
        if now == change.text:
            continue
        if now != change.before:
            raise Refused(f"{change.shown} has changed meanwhile; nothing was written", "run the command again")
        left.append(change)
    return left


def _keep_copies(root, changes, done):
    stamp = time.strftime("%Y-%m-%dT%H-%M-%SZ", time.gmtime())
    for change in changes:
        if change.keep:
            shown = f"{COPIES}/{stamp}/{change.shown}"
            write_whole(os.path.join(root, *shown.split("/")), change.before.encode("utf-8"), 0o600)
            done["copies"].append(shown)


def _make(change, synced, done):
    if change.text is None:
        os.unlink(change.path)
        sync_folder(os.path.dirname(change.path))
        synced.written.pop(change.shown, None)
        done["removed"].append(change.shown)
    else:
        write_whole(change.path, change.text.encode("utf-8", "surrogatepass"))
        synced.written[change.shown] = _sha256(change.text)
        done["written"].append(change.shown)


def _with_data(error, done):
    failure = error if isinstance(error, Failure) else write_failure(error, error.filename or FOLDER)
    failure.data = dict(done)
    return failure


def _lines(done):
    verbs = (("written", "wrote"), ("removed", "removed"), ("copies", "kept a copy:"))
    return [f"{verb} {file}" for key, verb in verbs for file in done[key]]


def _summary(done):
    written, removed = len(done["written"]), len(done["removed"])
    if not written and not removed:
        return "no file had to be changed; the engine's metadata is recorded as the last synced state"
    return f"wrote {written} file{'' if written == 1 else 's'}, removed {removed}"


def record(root, env, base):
    """Keep a Base after an apply, under the same lock."""
    with Locked(root):
        synced = read_synced(root)
        synced.bases[env] = base
        synced.save()
