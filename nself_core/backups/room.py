"""Whether the server's disk has room for a second copy of the data, where that can be known.

A load that fills the disk does not only fail: the present database can write no more, either.
"""

from __future__ import annotations

import os

from nself_core import processes
from nself_core.failures import Unreachable
from nself_core.output import bytes_text
from nself_core.postgres.reach import Login

# pg_settings leaves out the folder where the role may not know it.
SQL_FOLDER = """
SELECT coalesce(nullif(pg_catalog.pg_tablespace_location(d.dattablespace), ''),
                (SELECT s.setting FROM pg_catalog.pg_settings s WHERE s.name = 'data_directory')) AS folder
FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
"""
DF_SECONDS = 20


def refuse_full(database, manifest):
    """Raise Unreachable where the server's disk has less room than the backed-up database took.

    Argument: `manifest`, the backup's, or None: then, and by a URL, nothing is known, and nothing is asked.
    """
    if manifest is None or database.reach.kind == "url":
        return
    folder = database.rows(SQL_FOLDER)[0]["folder"]
    free = free_bytes(database.reach, folder) if folder else None
    needed = manifest["size_bytes"]
    if free is not None and free < needed:
        raise Unreachable(
            f"the server's disk has no room for a second copy: {bytes_text(needed)} ({needed} bytes) are needed, "
            f"{bytes_text(free)} ({free} bytes) are free in {folder}; nothing was changed",
            "make room; nself-db restore --clean drops what earlier restores set aside",
        )


def free_bytes(reach, folder):
    """How many bytes are free for Postgres in a folder of the server, None where that cannot be found out."""
    if reach.kind == "embedded":
        facts = os.statvfs(folder)
        return facts.f_bavail * facts.f_frsize
    argv, env = reach.command("df", {"LC_ALL": "C"}, Login())
    done = processes.run([*argv, "-Pk", folder], env, timeout=DF_SECONDS)
    columns = done.out.strip().split("\n")[-1].split()
    return int(columns[3]) * 1024 if done.code == 0 and len(columns) > 3 and columns[3].isdigit() else None
