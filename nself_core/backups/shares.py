"""Reads a custom dump whole by several pg_restores at once, each with its share of the entries.

To read is to decompress, which one pg_restore does on one processor. It seeks past the data that its list does not name
(pg_restore, --use-list), so that shares cost little more together than the whole does. What stands between the entries
is read by none of them: only a dump whose hash is known is read so.
"""

from __future__ import annotations

from nself_core import processes
from nself_core.postgres.tools import ToolFailed, stream


def read_shares(command, path, count):
    """Read the dump `path` to its end with `count` processes.

    Argument: `command`, that of a pg_restore which needs no server. Raises ToolFailed with the words of the first that
    did not end well, Unreachable where it cannot be started.
    """
    entries = _entries(command, path)
    children = []
    try:
        for number in range(count):
            argv = [*command.argv, "--file=/dev/null", "--use-list=/dev/stdin", path]
            children.append(processes.start(argv, command.env))
            _give(children[-1], b"".join(entries[number::count]))
        for child in children:
            words = child.stderr.read().decode("utf-8", "replace").strip()
            if child.wait():
                raise ToolFailed(command.program, child.returncode, words)
    finally:
        for child in children:
            processes.kill(child)


def _entries(command, path):
    """The lines of the dump's table of contents, each of an entry."""
    listing = bytearray()
    stream(command._replace(argv=[*command.argv, "--list", path]), sink=listing.extend)
    return [line for line in listing.splitlines(keepends=True) if not line.startswith(b";")]


def _give(child, share):
    rest = memoryview(share)
    try:
        while rest:
            rest = rest[child.stdin.write(rest) :]
        child.stdin.close()
    except BrokenPipeError:
        pass  # its exit code says why it wants no more
