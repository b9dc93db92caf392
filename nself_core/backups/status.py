"""What `backup list` shows."""

from __future__ import annotations

import time

from nself_core.backups.names import TIME_FORM
from nself_core.output import Report, Table, bytes_text, duration_text


def report(folder, backups, now):
    """The Report of `backup list`; `now`, seconds since 1970, for the age."""
    return _report(folder.shown, [_row(backup) for backup in backups], backups, now)


def report_remote(remote, backups, now):
    """The Report of `backup list --remote`."""
    return _report(remote.store.account, [_remote_row(backup) for backup in backups], backups, now)


def _report(place, rows, backups, now):
    table = Table(
        ("backup", "age", "format", "size", "env", "database", "manifest"),
        [
            (
                row["file"],
                duration_text(max(now - backup.name.seconds, 0)),
                row["format"],
                bytes_text(row["bytes"]),
                row["env"],
                row["database"],
                row["manifest"],
            )
            for row, backup in zip(rows, backups)
        ],
        ("<", ">", "<", ">", "<", "<", "<"),
    )
    count = len(rows)
    total = bytes_text(sum(row["bytes"] for row in rows))
    summary = f"{count} backup{'' if count == 1 else 's'} in {place}, {total}" if rows else "no backups"
    return Report({"backups": rows}, [table] if rows else [], summary)


def _row(backup):
    manifest = backup.manifest or {}
    whose = {"env": manifest.get("env"), "database": manifest.get("database")}
    return {**_facts(backup), **whose, "manifest": backup.manifest is not None}


def _remote_row(backup):
    return {**_facts(backup), "env": backup.env, "database": backup.database, "manifest": backup.has_manifest}


def _facts(backup):
    return {
        "file": backup.shown,
        "time": time.strftime(f"{TIME_FORM}Z", time.gmtime(backup.name.seconds)),
        "label": backup.name.label,
        "format": backup.name.format,
        "bytes": backup.bytes,
    }
