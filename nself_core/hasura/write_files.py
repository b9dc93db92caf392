"""Writes and removes the files that an export has decided on, each whole or not at all."""

from __future__ import annotations

import os

from nself_core.disk import sync
from nself_core.failures import FileFailure
from nself_core.hasura.export import Keep, Write, path_of, text_there
from nself_core.hasura.synced import write_failure

# How the name of a file ends that is being written: `.{name}.{process id}.nself-tmp`.
UNFINISHED = ".nself-tmp"
LONGEST_NAME = 200  # bytes of a name that stand in it: file systems take 255


def apply_files(folder, actions):
    """Write and remove files below `folder`, in the order of the actions.

    Argument: `actions`, as `export.plan_files` gives them. Each file is written under a temporary name in its folder,
    brought to disk, and then given its name; folders are made where they are not there, and taken away when they are
    left empty. Before anything is done all files must be as they were when the export was decided on, and each still
    when its turn comes. Returns the number of files written and removed. Raises FileFailure where one is not, or cannot
    be written, and Unreachable where the disk is full.
    """
    changes = [action for action in actions if not isinstance(action, Keep)]
    data = check_files(folder, changes)
    touched = set()
    for number, action in enumerate(changes):
        if number:  # the others have taken their time
            check_unchanged(folder, action, text_there(folder, action.file), "it is left as it is")
        touched |= _act(path_of(folder, action.file), data.get(action.file))
    for inner in sorted(touched, reverse=True):
        try:
            _settle(folder, inner)
        except OSError as error:
            raise write_failure(error, inner) from error
    return len(changes)


def check_files(folder, actions):
    """Raise FileFailure where a file is not as it was when the export was decided on, or its text cannot be written.

    Argument: `actions`, Writes and Removes. Returns the bytes of each file that is to be written.
    """
    data = {action.file: _encoded(folder, action) for action in actions if isinstance(action, Write)}
    for action in actions:
        check_unchanged(folder, action, text_there(folder, action.file))
    return data


def _encoded(folder, action):
    try:
        return action.text.encode("utf-8")
    except UnicodeEncodeError:
        raise FileFailure("half a character would stand in it", file=path_of(folder, action.file)) from None


def check_unchanged(folder, action, there, so="nothing was written"):
    """Raise FileFailure where somebody has changed a file since the export was decided on: it would be lost.

    Arguments: `there`, its present text; `so`, what became of it.
    """
    if there != action.before and not (isinstance(action, Write) and there == action.text):
        path = path_of(folder, action.file)
        raise FileFailure(f"this was changed meanwhile, so {so}", "run the command again", file=path)


def _act(path, data):
    """Write bytes into a file, or with None remove it; returns the folders in which names have changed."""
    target = os.path.realpath(path) if data is not None else path  # what is a link to a file stays one
    try:
        _write(target, data) if data is not None else os.unlink(target)
    except OSError as error:
        raise write_failure(error, path) from error
    return {os.path.dirname(path), os.path.dirname(target)}


def write_file(path, data):
    """Write bytes into a file by a temporary name beside it, which `sweep` knows; its name, too, is brought to disk.

    Raises as apply_files does.
    """
    try:
        _write(path, data)
        sync(os.path.dirname(path))
    except OSError as error:
        raise write_failure(error, path) from error


def _write(target, data):
    folder, name = os.path.split(target)
    os.makedirs(folder, exist_ok=True)
    temporary = os.path.join(folder, _unfinished_name(name))
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
        if os.path.islink(touched):  # that is a person's
            break
        os.rmdir(touched)
        touched = os.path.dirname(touched)
    if os.path.isdir(touched):
        sync(touched)


# What a run that was killed leaves.


def _unfinished_name(name):
    kept = name.encode("utf-8", "surrogateescape")[:LONGEST_NAME].decode("utf-8", "ignore")
    return f".{kept}.{os.getpid()}{UNFINISHED}"


def _is_unfinished(name):
    process = name.removesuffix(UNFINISHED).rpartition(".")[2]
    return name.startswith(".") and name.endswith(UNFINISHED) and process.isascii() and process.isdecimal()


def sweep(paths):
    """Remove what runs that were killed have left where these files are written; no other run may be writing there.

    Raises FileFailure.
    """
    for folder in {os.path.dirname(os.path.realpath(path)) for path in paths}:
        try:
            for name in os.listdir(folder) if os.path.isdir(folder) else ():
                if _is_unfinished(name) and os.path.isfile(os.path.join(folder, name)):
                    os.unlink(os.path.join(folder, name))
        except OSError as error:
            raise write_failure(error, folder) from error
