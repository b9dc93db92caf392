"""What both sides last had: the engine's metadata as it was at the last pull, export, apply or push.

It stands in `.nself/hasura-base.json`, one entry an environment. An entry counts only for the engine it was made with,
which is known by the id of its catalogue: one that was made anew has lost what the entry says it had.
"""

from __future__ import annotations

import contextlib
import os
from collections import namedtuple

from nself_core.disk import sync
from nself_core.failures import FileFailure, LockHeld, Unreachable

FOLDER = ".nself"
FILE = f"{FOLDER}/hasura-base.json"
LOCK = f"{FOLDER}/hasura.lock"
LOCK_SECONDS = 10

# How a file's name ends here while it is being written, behind the process id.
UNFINISHED = ".tmp"

Base = namedtuple("Base", "engine version document")
Base.__doc__ = """One environment's last synced state: the `engine`'s id, the resource `version` (None where it is not
known) and the metadata `document`."""


class Synced:
    """The file of one project. `bases` are Bases by environment; `begun`, what runs that were ended, or are under way,
    will have synced, as (environment, Base) in their order; `written`, the digest of each file that an export or a pull
    wrote, by its path from the root.
    """

    def __init__(self, root):
        self.path = os.path.join(root, *FILE.split("/"))
        self.bases: dict = {}
        self.begun: list = []
        self.written: dict = {}

    def base(self, env, engine):
        """The Base of an environment, None where there is none or it is another engine's."""
        found = self.bases.get(env)
        return found if found is not None and found.engine == engine else None

    def bases_begun(self, env, engine):
        """The Bases that runs which were ended would have kept, since the environment's own, in their order."""
        return [base for name, base in self.begun if name == env and base.engine == engine]

    def begin(self, env, base):
        """Note what a run is about to sync."""
        if (env, base) not in self.begun:
            self.begun.append((env, base))

    def keep(self, env, base):
        """Make a Base the environment's: what runs had begun before it counts no more."""
        self.bases[env] = base
        self.begun = [entry for entry in self.begun if entry[0] != env]

    def save(self):
        """Write the file whole; it may hold what the metadata holds, so nobody else may read it."""
        import json

        document = {
            "bases": {env: base._asdict() for env, base in self.bases.items()},
            "begun": [{"env": env, **base._asdict()} for env, base in self.begun],
            "written": self.written,
        }
        write_whole(self.path, json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass"), 0o600)


def read_synced(root):
    """The Synced of a project; empty where there is no file. Raises FileFailure for one that is damaged."""
    import json

    synced = Synced(root)
    try:
        with open(synced.path, "rb") as file:
            document = json.loads(file.read())
    except FileNotFoundError:
        return synced
    except OSError as error:
        raise FileFailure(f"this cannot be read: {error.strerror}", file=FILE) from None
    except ValueError:
        document = None
    try:
        _take(synced, document)
    except (TypeError, KeyError, ValueError, AttributeError):
        raise FileFailure(
            "this is not what nself-db wrote", "remove it: the next pull or export makes it anew", file=FILE
        ) from None
    return synced


def _take(synced, document):
    """What a file says. In old ones, runs that had begun stood among the bases, and what they were to write behind."""
    for name, entry in document["bases"].items():
        env, is_begun, _ = name.partition(" begun ")
        if is_begun:
            synced.begin(env, Base(**entry))
        else:
            synced.bases[env] = Base(**entry)
    for entry in document.get("begun", ()):
        synced.begin(entry["env"], Base(*(entry[field] for field in Base._fields)))
    wanted = {file: digest for file, digest in document.get("pending", {}).items() if digest is not None}
    synced.written = {**document["written"], **wanted}


def text_digest(text):
    """The SHA-256 of a text, None for None."""
    import hashlib

    return None if text is None else hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Locked:
    """While it lasts, no other run writes metadata files or the synced state of this project. Raises LockHeld."""

    def __init__(self, root):
        self._path = os.path.join(root, *LOCK.split("/"))
        self._handle = -1

    def __enter__(self):
        folder = os.path.dirname(self._path)
        make_own_folder(folder)
        try:
            self._handle = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise write_failure(error, LOCK) from None
        try:
            wait_for_lock(self._handle, True, "another run is writing metadata files of this project")
            _sweep(folder)
        except BaseException:
            os.close(self._handle)
            raise
        return self

    def __exit__(self, *_):
        os.close(self._handle)


def wait_for_lock(handle, is_exclusive, held):
    """Lock an open file or folder, shared with readers or not. Raises LockHeld with the text `held`, and OSError."""
    import fcntl
    import time

    mode = fcntl.LOCK_EX if is_exclusive else fcntl.LOCK_SH
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            return fcntl.flock(handle, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise LockHeld(held, "try again") from None
            time.sleep(0.05)


def _sweep(folder):
    """Take away what runs that were killed have left unfinished in the project's own folder."""
    for name in os.listdir(folder):
        process = name.removesuffix(UNFINISHED).rpartition(".")[2]
        if name.endswith(UNFINISHED) and process.isascii() and process.isdecimal() and not is_running(int(process)):
            with contextlib.suppress(FileNotFoundError):  # another has swept it
                os.unlink(os.path.join(folder, name))


def is_running(pid):
    """Whether another process with this id runs, as far as can be told; this one is not meant."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def make_own_folder(path):
    """Make `.nself` where it is not there, with a .gitignore in it: what stands there is no part of the project.

    A .gitignore that is there stays as it is. Raises FileFailure, and Unreachable where the disk is full.
    """
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise write_failure(error, path) from None
    ignored = os.path.join(path, ".gitignore")
    if not os.path.lexists(ignored):
        write_whole(ignored, b"*\n")


def write_whole(path, data, mode=None):
    """Write a file under a temporary name beside it, bring it to disk, and only then give it its name.

    Arguments: `data`, bytes; `mode`, its permissions, None for those of the file that it replaces. Raises FileFailure,
    and Unreachable where the disk is full.
    """
    temporary = f"{path}.{os.getpid()}{UNFINISHED}"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _write(temporary, data, _mode_of(path) if mode is None else mode)
        os.replace(temporary, path)
        sync(os.path.dirname(path))
    except OSError as error:
        raise write_failure(error, path) from None
    finally:
        if os.path.lexists(temporary):
            os.unlink(temporary)


def _write(path, data, mode):
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666 if mode is None else mode)
    with open(handle, "wb") as file:
        if mode is not None:
            os.fchmod(handle, mode)
        file.write(data)
        file.flush()
        os.fsync(handle)


def _mode_of(path):
    try:
        return os.stat(path).st_mode & 0o7777
    except FileNotFoundError:
        return None


def write_failure(error, path):
    """The failure that an OSError of writing or removing a file is."""
    import errno

    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Unreachable("the disk is full", file=path)
    return FileFailure(f"cannot be written: {error.strerror}", file=path)
