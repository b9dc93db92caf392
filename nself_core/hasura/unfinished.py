"""A tree that is being written: the note that lies in it meanwhile, and the lock on its folder.

The note goes with the tree, into whatever commit, image or project that goes. So where a run was killed in its midst,
nobody takes the mix of old and new files that it left for metadata.
"""

from __future__ import annotations

import contextlib
import os

from nself_core.failures import FileFailure
from nself_core.hasura.sections import LAST
from nself_core.hasura.synced import text_digest, wait_for_lock, write_failure
from nself_core.hasura.tree import V2, V3, read_tree

NOTE = ".nself-unfinished.json"
SINGLE = (".json", ".yaml", ".yml")


def is_single(path):
    """Whether a metadata tree is a single file; of one that is not there its name says it."""
    return os.path.isfile(path) or (path.endswith(SINGLE) and not os.path.isdir(path))


def folder_of(path):
    """The folder of a metadata tree, which is a directory or a single file."""
    return os.path.dirname(path) if is_single(path) else path


@contextlib.contextmanager
def tree_lock(folder, writes=False):
    """While it lasts nobody writes the tree in `folder`; and if `writes`, nobody reads it either. Raises LockHeld.

    It is the folder itself that is locked, so that projects which share a tree wait for one another. Where that cannot
    be (there is no folder, it may not be read, a network drive knows no such lock), it goes on without.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield
        return
    try:
        with contextlib.suppress(OSError):
            wait_for_lock(handle, writes, f"another run is writing the metadata files in {folder}")
        yield
    finally:
        os.close(handle)


# The note: of each file of a run the digests of its text before and afterwards, None for no file.


def read_note(folder):
    """The note in a tree, as {file: (before, wanted)}; empty where there is none. Raises FileFailure."""
    import json

    path = os.path.join(folder, NOTE)
    try:
        with open(path, "rb") as file:
            document = json.loads(file.read())
        return {file: (entry["before"], entry["wanted"]) for file, entry in document["files"].items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise FileFailure(f"this cannot be read: {error.strerror}", file=path) from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise FileFailure(
            "this is not what nself-db wrote", "remove it once the files beside it are as you want them", file=path
        ) from None


def write_note(folder, note):
    """Write the note of a run that begins, and bring it to disk before all that it tells of."""
    import json

    from nself_core.hasura.write_files import write_file  # who only reads goes without all that stands below it

    document = {
        "about": "nself-db is writing these files, or was ended before it had: run it again, and this file goes",
        "files": {file: {"before": before, "wanted": wanted} for file, (before, wanted) in note.items()},
    }
    write_file(os.path.join(folder, NOTE), json.dumps(document, indent=1).encode())


def remove_note(folder):
    """Take the note away: the tree is whole."""
    try:
        os.unlink(os.path.join(folder, NOTE))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise write_failure(error, os.path.join(folder, NOTE)) from None


def joined(old, present, run):
    """The note of a `run` that begins in a tree where the one of note `old` was ended; all three are as read_note's.

    What counts as before is what was there before both, unless the tree is whole as it is. Argument: `present`, the
    digest of each file of `old` now.
    """
    if is_untouched(old, present) or is_done(old, present):
        return run
    kept = {file: (before, present.get(file)) for file, (before, _) in old.items()}
    return {**kept, **{file: (old.get(file, entry)[0], entry[1]) for file, entry in run.items()}}


def is_untouched(note, present):
    """Whether every file is as it was before the run of the note; `present`, the digest of each now."""
    return all(present.get(file) == before for file, (before, _) in note.items())


def is_done(note, present):
    """Whether every file is as the run of the note wanted it."""
    return all(present.get(file) == wanted for file, (_, wanted) in note.items())


# Reading what is whole.


def read_whole(path, version, shown):
    """The Tree of a directory or file, read while nobody writes it.

    Arguments: as of tree.read_tree; `shown`, the tree as people know it. Raises what that does, LockHeld, and
    FileFailure where a run that was ended has left a mix of old files and new ones.
    """
    folder = folder_of(path)
    with tree_lock(folder):
        note = read_note(folder) if os.path.isdir(path) else {}  # a single file is one or the other
        if lacks_last(path, note):
            raise _cut_off(shown)
        tree = read_tree(path, version)
    if not is_mixed(tree, note):
        return tree
    raise _cut_off(shown)


def is_mixed(tree, note):
    """Whether a Tree is partly what it was before the run of a note, and partly what that run wanted.

    A file that the tree does not include counts as none: one not yet included, or left over.
    """
    if tree.kind not in (V3, V2):
        return False
    present = {file: text_digest(tree.files.get(file)) for file in note}
    return not is_untouched(note, present) and not is_done(note, present)


def lacks_last(path, note):
    """Whether the run of a note was the first into a directory and ended before its last file: there is no tree yet."""
    if any(os.path.lexists(os.path.join(path, file)) for file in LAST):
        return False
    return any(note.get(file, (None, None))[1] is not None for file in LAST)


def _cut_off(shown):
    return FileFailure(
        "an export or a pull ended before it had written all files: some are old and some are new",
        "nself-db hasura metadata export completes it, and so does git pull; or bring all files back from git",
        file=shown,
    )
