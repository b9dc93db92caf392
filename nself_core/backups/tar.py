"""A folder of files as one stream and back: a directory backup on its way into a container or out of one.

What comes out goes into files that only we may read and is brought to disk; a `tar` of the host would give the files to
whom the container's user is here, and say of a full disk what nobody reads.
"""

from __future__ import annotations

import os

from nself_core.failures import FileFailure

CHUNK = 1 << 20
BLOCK = 512


def tar_of(path):
    """The files of a folder as a tar, in pieces. Raises OSError."""
    import tarfile

    for name in sorted(os.listdir(path)):
        file = os.path.join(path, name)
        entry = tarfile.TarInfo(name)
        entry.size = os.path.getsize(file)
        yield entry.tobuf()
        yield from chunks(file)
        yield bytes(-entry.size % BLOCK)
    yield bytes(2 * BLOCK)


def tar_size(path):
    """How many bytes `tar_of` gives. Raises OSError."""
    sizes = [os.path.getsize(os.path.join(path, name)) for name in os.listdir(path)]
    return sum(BLOCK + size + -size % BLOCK for size in sizes) + 2 * BLOCK


def chunks(path):
    """A file's bytes, in pieces. Raises OSError."""
    with open(path, "rb") as file:
        while data := file.read(CHUNK):
            yield data


class Unpacking:
    """Called with the pieces of a tar of plain files, it writes them into a folder.

    Arguments: `folder`; `progress(done)`, told the bytes so far. Raises OSError, FileFailure for what is no such tar.
    """

    def __init__(self, folder, progress):
        self._folder = folder
        self._progress = progress
        self._head = b""
        self._file = None
        self._left = 0  # bytes of the file that is under way
        self._padding = 0  # bytes behind it, to the next block
        self._size = 0
        self._ended = False

    def __call__(self, data):
        view = memoryview(data)
        while view:
            view = self._take(view)
        self._progress(self._size)

    def close(self):
        """Say that nothing follows. Raises FileFailure where the tar is not whole."""
        whole = self._ended and self._file is None
        self.abandon()
        if not whole:
            raise FileFailure("the dump that came out of the container is not whole", file=self._folder)

    def abandon(self):
        """Close what is open."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _take(self, view):
        """Use the beginning of `view` and return what is left of it."""
        if self._file is not None:
            return self._write(self._file, view)
        if self._padding:
            skipped = min(self._padding, len(view))
            self._padding -= skipped
            return view[skipped:]
        wanted = BLOCK - len(self._head)
        self._head += bytes(view[:wanted])
        if len(self._head) == BLOCK:
            head, self._head = self._head, b""
            self._begin(head)
        return view[wanted:]

    def _begin(self, head):
        import tarfile

        if not head.strip(b"\0"):
            self._ended = True
            return
        try:
            entry = tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
        except tarfile.TarError as error:
            raise FileFailure(f"this is no tar: {error}", file=self._folder) from None
        name = os.path.normpath(entry.name)
        if entry.isdir() and name == os.curdir:
            return
        if not entry.isreg() or os.sep in name or name in (os.curdir, os.pardir):
            raise FileFailure(f"a dump has no {entry.name!r}", file=self._folder)
        path = os.path.join(self._folder, name)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._file = open(handle, "wb")  # noqa: SIM115  it is closed at its last byte, in a later call
        self._left = entry.size
        self._padding = -entry.size % BLOCK
        self._write(self._file, memoryview(b""))

    def _write(self, file, view):
        part = view[: self._left]
        file.write(part)
        self._left -= len(part)
        self._size += len(part)
        if not self._left:
            file.flush()
            os.fsync(file.fileno())
            self.abandon()
        return view[len(part) :]
