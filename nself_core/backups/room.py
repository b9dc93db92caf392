"""Whether the disks have room for what a restore writes, where that can be known: a second copy of the data on the
server's, and in a container a copy of the dump, where what reads it there wants files.

A load that fills the disk does not only fail: the present database can write no more, either.
"""

from __future__ import annotations

import os
from collections import namedtuple

from nself_core import processes
from nself_core.backups import load
from nself_core.backups.names import DIRECTORY
from nself_core.failures import Unreachable
from nself_core.output import bytes_text
from nself_core.postgres.tools import runs_in_container, shell_beside

# pg_settings leaves out the folder where the role may not know it.
SQL_FOLDER = """
SELECT coalesce(nullif(pg_catalog.pg_tablespace_location(d.dattablespace), ''),
                (SELECT s.setting FROM pg_catalog.pg_settings s WHERE s.name = 'data_directory')) AS folder
FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
"""
DF_SECONDS = 20
# One line a folder, whatever df says; what wants files (mktemp) makes them in the last.
DF = 'for folder in {folders} "${{TMPDIR:-/tmp}}"; do echo $(df -Pk "$folder" 2>/dev/null | tail -n 1); done'

Disk = namedtuple("Disk", "mount free")
Disk.__doc__ = "What a folder lies on: `mount`, which tells it from others, and how many bytes are `free`."


def refuse_full(database, backup, jobs, inside, server_version):
    """Raise Unreachable where a disk has less room than a restore takes.

    Arguments: as of `restore.plan_restore`. Of a server by a URL the data's disk is not known, and of a backup without
    a manifest the data's size.
    """
    size = backup.manifest["size_bytes"] if backup.manifest and database.reach.kind != "url" else 0
    folder = database.rows(SQL_FOLDER)[0]["folder"] if size else None
    programs = ("psql", None, "pg_restore") if inside else ("pg_restore", server_version)
    copied = _copied_bytes(backup, jobs)
    copied = copied if copied and runs_in_container(database, *programs) else 0
    if database.reach.kind == "embedded":
        data, temporary = _own_disk(folder) if folder else None, None
    elif folder or copied:
        data, temporary = _disks(shell_beside(database, *programs), folder)
    else:
        return
    check_room(size, data, copied, temporary, "make room there, or leave out --jobs" if jobs else "make room there")


def _copied_bytes(backup, jobs):
    """How many bytes a copy of the dump takes, 0 where it is read as it comes: a folder cannot be, nor by many jobs."""
    if backup.name.format != DIRECTORY and not jobs:
        return 0
    if backup.manifest is None:
        return load.size_of(backup)
    return (backup.manifest.get("content") or backup.manifest)["bytes"]


def check_room(size, data, copied, temporary, hint):
    """Raise Unreachable where a Disk has less room than is needed; one that is None is not known.

    Arguments: `size`, bytes of the data, on the Disk `data`; `copied`, of the dump's copy, on `temporary`; `hint`, what
    to do where that has no room.
    """
    if copied and temporary and temporary.free < copied:
        raise Unreachable(
            "the container has no room in /tmp (or its TMPDIR) for a copy of the dump: "
            f"{_told(copied, temporary)}; nothing was changed",
            hint,
        )
    both = size + copied if data and temporary and data.mount == temporary.mount else size
    if size and data and data.free < both:
        raise Unreachable(
            f"the server's disk has no room for a second copy: {_told(both, data)}; nothing was changed",
            "make room; nself-db restore --clean drops what earlier restores set aside",
        )


def _told(needed, disk):
    return (
        f"{bytes_text(needed)} ({needed} bytes) are needed, "
        f"{bytes_text(disk.free)} ({disk.free} bytes) are free in {disk.mount}"
    )


def _own_disk(folder):
    facts = os.statvfs(folder)
    return Disk(folder, facts.f_bavail * facts.f_frsize)


def _disks(shell, folder):
    """The Disks of a folder, None for none, and of temporary files, as a shell tells them; None where it does not.

    Argument: `shell`, arguments and environment that start it.
    """
    import shlex

    argv, env = shell
    script = DF.format(folders=shlex.quote(folder) if folder else "")
    lines = processes.run([*argv, script], env, timeout=DF_SECONDS).out.split("\n")
    found = [_disk_of(line) for line in lines[: 2 if folder else 1]]
    return (found[0] if folder else None), found[-1]


def _disk_of(line):
    """The Disk of a line of df's, None where it is none: device, blocks, used, free, their share, mount."""
    columns = line.split(maxsplit=5)
    return Disk(columns[5], int(columns[3]) * 1024) if len(columns) == 6 and columns[3].isdigit() else None
