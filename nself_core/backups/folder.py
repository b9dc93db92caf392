"""The backups' folder on this host: which are there, and how a new one gets its name once it is whole."""

from __future__ import annotations

import os
from collections import namedtuple

from nself_core.backups.age import read_identity
from nself_core.backups.names import ENDINGS, MANIFEST, file_name, read_name
from nself_core.disk import sync
from nself_core.failures import FileFailure, Unreachable, UsageFailure

DEFAULT_FOLDER = ".nself-backups"
PART = ".part"
CHUNK = 1 << 20
SKEW_SECONDS = 30  # by which a backup may be of a later time than now: a taken name makes it a second later

Folder = namedtuple("Folder", "path shown identity", defaults=(None,))
Folder.__doc__ = (
    "The folder, absolute, and as the user would write it; the `identity` file by which to decrypt, or None."
)

Backup = namedtuple("Backup", "name path shown bytes manifest identity", defaults=(None,))
Backup.__doc__ = """One backup.

Its Name, its `path`, `shown` to people, its size in `bytes`, its manifest or None, and the folder's `identity`.
"""


def backup_folder(settings):
    """The Folder of BACKUP_DIR."""
    path = settings.path("BACKUP_DIR", DEFAULT_FOLDER)
    relative = os.path.relpath(path, settings.root)
    return Folder(path, path if relative.startswith(os.pardir) else relative, read_identity(settings))


def reserve(folder, seconds, label, ending):
    """(name, path of its hidden part) of a new backup; a name that is taken makes it a second later.

    The part is made here, a file or a folder that only we may read, so that two runs cannot choose one name.
    """
    while True:
        name = file_name(seconds, label, ending)
        part = os.path.join(folder, f".{name}{PART}")
        try:
            if ending == ".dir":
                os.mkdir(part, 0o700)
            else:
                os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            seconds += 1
            continue
        # Looked for behind the part: whose part is ours now has given its name before it let go of it.
        if not os.path.lexists(os.path.join(folder, name)):
            return name, part
        remove(part)
        seconds += 1


def give_name(part, path):
    """Give a finished part its name, which nothing else has."""
    if os.path.isdir(part):
        os.rename(part, path)
        return
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:
        os.rename(part, path)  # not every file system has hard links; the name is ours all the same
        return
    os.unlink(part)


def remove(path):
    """Remove a file or a folder, and do nothing where there is none. Raises OSError."""
    import shutil

    try:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    except FileNotFoundError:
        pass


def settle(folder):
    """Make the files of a folder ours alone, and bring them to disk."""
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        os.chmod(path, 0o600)
        sync(path)
    sync(folder)


class Measuring:
    """Hands what it is called with to each of `sinks`, and knows its size and hash.

    Arguments: `sinks`, functions of bytes; `progress(done)`, told the bytes so far.
    """

    def __init__(self, sinks, progress):
        import hashlib

        self._sinks = sinks
        self._digest = hashlib.sha256()
        self._progress = progress
        self.size = 0

    def __call__(self, data):
        for sink in self._sinks:
            sink(data)
        self._digest.update(data)
        self.size += len(data)
        self._progress(self.size)

    @property
    def hexdigest(self):
        """SHA-256 of what passed."""
        return self._digest.hexdigest()


def is_intact(backup):
    """Whether a Backup is as its manifest says, which it has. Reads all of it."""
    try:
        return measure(backup.path) == (backup.manifest["bytes"], backup.manifest["sha256"])
    except OSError:
        return False


def measure(path):
    """(bytes, SHA-256 in hex) of a backup, a file or a folder. Raises OSError."""
    return measure_folder(path) if os.path.isdir(path) else measure_file(path)


def measure_file(path):
    """(bytes, SHA-256 in hex) of a file."""
    import hashlib

    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while data := file.read(CHUNK):
            digest.update(data)
            size += len(data)
    return size, digest.hexdigest()


def measure_folder(path):
    """(bytes, SHA-256 in hex) of a folder: the hash of its files' names and hashes, in the order of the names."""
    import hashlib

    digest, size = hashlib.sha256(), 0
    for name in sorted(os.listdir(path)):
        length, own = measure_file(os.path.join(path, name))
        digest.update(f"{name}\0{own}\n".encode())
        size += length
    return size, digest.hexdigest()


def list_backups(folder):
    """The Backups of a Folder, the newest first. A manifest that is damaged counts as none."""
    found = [_backup(folder, name) for name in map(read_name, _entries(folder)) if name]
    return sorted(found, key=lambda backup: (backup.name.seconds, backup.name.file), reverse=True)


def later_names(folder, seconds):
    """The files of the backups whose time is later than `seconds` since 1970, and half a minute; the newest first."""
    names = [name for name in map(read_name, _entries(folder)) if name and name.seconds > seconds + SKEW_SECONDS]
    return [name.file for name in sorted(names, key=lambda name: name.seconds, reverse=True)]


def _entries(folder):
    try:
        return os.listdir(folder.path)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise FileFailure(f"cannot be read: {error.strerror}", file=folder.shown) from None


def _backup(folder, name):
    from nself_core.backups.manifest import read_manifest

    path = os.path.join(folder.path, name.file)
    try:
        manifest = read_manifest(path)
    except FileFailure:
        manifest = None
    return Backup(name, path, os.path.join(folder.shown, name.file), size(path), manifest, folder.identity)


def size(path):
    """Bytes of a file or of a folder's files; 0 for what has gone meanwhile, or leads nowhere."""
    try:
        if not os.path.isdir(path):
            return os.path.getsize(path)
        return sum(os.path.getsize(os.path.join(path, name)) for name in os.listdir(path))
    except OSError:
        return 0


def find_backup(folder, file):
    """The Backup that a --file or FILE means: a path, or a name in the folder.

    Raises UsageFailure where there is none, or its name is not a backup's.
    """
    path = next((p for p in (file, os.path.join(folder.path, file)) if os.path.exists(p)), None)
    if path is None:
        raise UsageFailure(f"there is no backup {file}", "see: nself-db backup list")
    name = read_name(os.path.basename(os.path.normpath(path)))
    if name is None:
        form = f"2024-05-01T12:00:00_label{'|'.join(ENDINGS)}"
        raise UsageFailure(f"{file or repr(file)} is not named as a backup is", f"its form is {form}")
    place = os.path.dirname(os.path.abspath(path))
    shown = folder.shown if place == folder.path else os.path.dirname(path)
    return _backup(folder._replace(path=place, shown=shown), name)


def write_failure(place, error):
    """The failure of a backup folder that cannot be written."""
    import errno

    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Unreachable(f"the disk is full: {place}", "make room, or set BACKUP_DIR to another place")
    return FileFailure(f"cannot be written: {error.strerror}", file=place)


def leftovers(folder, older_than):
    """Paths of hidden parts that a killed run has left, untouched since `older_than` (seconds since 1970)."""
    names = _entries(folder)
    parts = [os.path.join(folder.path, name) for name in names if name.startswith(".") and name.endswith(PART)]
    manifests = [os.path.join(folder.path, name) for name in names if name.endswith(f"{MANIFEST}{PART}")]
    return sorted(path for path in {*parts, *manifests} if _touched(path) < older_than)


def _touched(path):
    """When something was last written there, or below it."""
    below = [os.path.join(place, name) for place, _, names in os.walk(path) for name in names]
    try:
        return max(os.lstat(each).st_mtime for each in (path, *below))
    except FileNotFoundError:
        return float("inf")  # somebody is at work there
