"""One run of the tests: its name, its folder, the cache it shares with other runs, and what dead runs left behind.

A run holds a lock on its own file in the cache for as long as it lives, and the kernel lets go of it however the run
ends. So another run can tell the living from the dead, and only what belongs to the dead is removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import signal
import tempfile
from pathlib import Path

LABEL = "nself-db-tests"


def cache_folder():
    """Where images and the engine's data are kept between runs: NSELF_TEST_CACHE, or the user's cache folder."""
    named = os.environ.get("NSELF_TEST_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(named) if named else base / LABEL
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


@contextlib.contextmanager
def exclusive(path):
    """Hold the lock of file `path`, waiting for it; one process at a time on this machine is inside."""
    with open(path, "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class BedSession:
    """This run: `id` names its containers and its folder, `folder` is open to the user that Postgres runs as."""

    def __init__(self):
        self.cache = cache_folder()
        self.id = f"{os.getpid()}-{secrets.token_hex(3)}"
        # Not TMPDIR: the way to it must be open to the user postgres, and short enough for a socket.
        self.folder = Path("/tmp") / f"{LABEL}-{self.id}"
        self._registry = self.cache / "sessions"
        self._registry.mkdir(exist_ok=True)
        with self.registry_lock():
            self._lock = open(self._registry / self.id, "w", encoding="utf-8")  # noqa: SIM115  held for the whole run
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            self._lock.write(str(self.folder))
            self._lock.flush()
        self.folder.mkdir()
        self.folder.chmod(0o755)

    def registry_lock(self):
        """Held while the list of runs changes, and while something is done because of who is on it."""
        return exclusive(self.cache / "registry.lock")

    def make_folder(self, name):
        """A new folder of this run whose name starts with `name`, open to every user."""
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))
        folder.chmod(0o755)
        return folder

    def short_name(self, folder):
        """Eight hex digits that stand for `folder`, for paths that must be short."""
        return hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]

    def dead(self):
        """The runs that ended without cleaning up, as a list of (id, folder). Call it inside `registry_lock`."""
        return [(file.name, Path(file.read_text(encoding="utf-8"))) for file in self._others() if not _is_held(file)]

    def others_live(self):
        """Whether another run that uses the same cache is going on."""
        return any(_is_held(file) for file in self._others())

    def forget(self, name):
        """Strike a dead run from the list once all it left is gone."""
        (self._registry / name).unlink(missing_ok=True)

    def close(self):
        """Remove the run's folder and let go of its lock."""
        remove_folder(self.folder)
        self.forget(self.id)
        self._lock.close()

    def _others(self):
        return [file for file in self._registry.iterdir() if file.name != self.id]


def _is_held(file):
    try:
        with open(file, "r+", encoding="utf-8") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def remove_folder(folder):
    """Remove a run's folder, after ending the servers whose data lies in it.

    A process counts as such a server only when it works in the very folder that names it in its pid file.
    """
    for pid_file in [path for name in ("postmaster", "pgbouncer", "swift-*") for path in folder.glob(f"**/{name}.pid")]:
        pid = int(pid_file.read_text(encoding="utf-8").split()[0])
        with contextlib.suppress(OSError):
            if os.path.samefile(f"/proc/{pid}/cwd", pid_file.parent):
                os.kill(pid, signal.SIGQUIT)
    shutil.rmtree(folder, ignore_errors=True)
