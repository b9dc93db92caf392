"""Writes and removes the files that an export has decided on, each whole or not at all."""

from __future__ import annotations

import errno
import os

from nself_core.disk import sync
from nself_core.failures import FileFailure, Unreachable
from nself_core.hasura.export import Keep, Write
from nself_core.hasura.tree import read_text


def apply_files(folder, actions):
    """Write and remove files below `folder`, in the order of the actions.

    Argument: `actions`, as `export.plan_files` gives them. Each file is written under a temporary name in its folder,
    brought to disk, and then given its name; folders are made where they are not there, and taken away when they are
    left empty. Before anything is done all files must be as they were when the export was decided on. Returns the
    number of files written and removed. Raises FileFailure where one is not, or cannot be written, and Unreachable
    where the disk is full.
    """
    changes = [action for action in actions if not isinstance(action, Keep)]
    data = {action.file: _encoded(folder, action) for action in changes if isinstance(action, Write)}
    for action in changes:
        _check_unchanged(folder, action)
    for action in changes:
        path = _path(folder, action.file)
        try:
            if isinstance(action, Write):
                _write(path, data[action.file])
            else:
                os.unlink(path)
        except OSError as error:
            raise _failure(path, error) from error
    for touched in sorted({os.path.dirname(_path(folder, action.file)) for action in changes}, reverse=True):
        _settle(folder, touched)
    return len(changes)


def _path(folder, file):
    return os.path.join(folder, *file.split("/"))


def _encoded(folder, action):
    try:
        return action.text.encode("utf-8")
    except UnicodeEncodeError:
        raise FileFailure("half a character would stand in it", file=_path(folder, action.file)) from None


def _check_unchanged(folder, action):
    """Refuse what somebody else has changed meanwhile: it would be lost."""
    path = _path(folder, action.file)
    there = read_text(path) if os.path.lexists(path) else None
    if there != action.before and not (isinstance(action, Write) and there == action.text):
        raise FileFailure("this was changed meanwhile, so nothing was written", "run the command again", file=path)


def _write(path, data):
    target = os.path.realpath(path)  # what is a link to a file stays one
    folder, name = os.path.split(target)
    os.makedirs(folder, exist_ok=True)
    temporary = os.path.join(folder, f".{name}.{os.getpid()}")
    try:
        with open(temporary, "xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        if os.path.exists(target):
            os.chmod(temporary, os.stat(target).st_mode & 0o7777)
        os.replace(temporary, target)
    finally:
        if os.path.lexists(temporary):
            os.unlink(temporary)


def _settle(folder, touched):
    """Bring the names in a folder to disk, or take it away with those above it that are empty then."""
    while touched.startswith(folder + os.sep) and os.path.isdir(touched) and not os.listdir(touched):
        os.rmdir(touched)
        touched = os.path.dirname(touched)
    if os.path.isdir(touched):
        sync(touched)


def _failure(path, error):
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Unreachable("the disk is full", file=path)
    return FileFailure(f"this cannot be written: {error.strerror}", file=path)
