"""Whether there is room for a restore: which disk wants how much, and what df's words mean. No server."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from nself_core.backups import room
from nself_core.backups.names import CUSTOM, DIRECTORY
from nself_core.backups.room import Disk
from nself_core.failures import Unreachable

DATA, TEMPORARY = Disk("/var/lib/postgresql/data", 1000), Disk("/tmp", 100)


@pytest.mark.parametrize(
    ("size", "data", "copied", "temporary"),
    [
        (1000, DATA, 100, TEMPORARY),
        (1000, DATA, 0, Disk("/tmp", 0)),
        (0, None, 100, TEMPORARY),
        (9000, None, 900, None),  # nothing is known
        (900, Disk("/", 1000), 100, Disk("/", 1000)),
        (0, Disk("/", 1), 0, Disk("/", 1)),
    ],
)
def test_what_has_room(size, data, copied, temporary):
    room.check_room(size, data, copied, temporary, "make room there")


@pytest.mark.parametrize(
    ("size", "data", "copied", "temporary", "told"),
    [
        (1001, DATA, 0, None, ("second copy", "1001 bytes", "1000 bytes", "in /var/lib/postgresql/data")),
        (1, DATA, 101, TEMPORARY, ("copy of the dump", "101 bytes", "100 bytes", "in /tmp")),
        (0, None, 101, TEMPORARY, ("copy of the dump", "101 bytes")),
        # On one disk both are needed at once.
        (901, Disk("/", 1000), 100, Disk("/", 1000), ("second copy", "1001 bytes", "1000 bytes")),
    ],
)
def test_what_has_none_is_told_with_both_numbers(size, data, copied, temporary, told):
    with pytest.raises(Unreachable) as failure:
        room.check_room(size, data, copied, temporary, "make room there")
    assert all(words in failure.value.message for words in (*told, "nothing was changed")), failure.value.message


@pytest.mark.parametrize(
    ("line", "disk"),
    [
        ("overlay 263174212 37437652 68931328 36% /", Disk("/", 68931328 * 1024)),
        ("/dev/sda1 100 90 10 90% /var/lib/a folder", Disk("/var/lib/a folder", 10240)),
        ("", None),
        ("Filesystem 1024-blocks Used Available Capacity Mounted on", None),
        ("tmpfs - - - - /tmp", None),
    ],
)
def test_a_line_of_df(line, disk):
    assert room._disk_of(line) == disk


@pytest.mark.parametrize(
    ("form", "jobs", "manifest", "copied"),
    [
        (CUSTOM, None, {"bytes": 7}, 0),
        (CUSTOM, 2, {"bytes": 7}, 7),
        (CUSTOM, 2, {"bytes": 7, "content": {"bytes": 5}}, 5),  # encrypted
        (DIRECTORY, None, {"bytes": 7}, 7),
    ],
)
def test_of_what_a_copy_is_made(form, jobs, manifest, copied):
    backup = SimpleNamespace(name=SimpleNamespace(format=form), manifest=manifest)
    assert room._copied_bytes(backup, jobs) == copied
