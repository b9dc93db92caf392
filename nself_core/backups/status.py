"""What `backup list` shows."""

from __future__ import annotations

import time

from nself_core.backups.names import TIME_FORM
from nself_core.output import Report, Table, bytes_text, duration_text


def report(folder, backups, now):
    """The Report of `backup list`; `now`, seconds since 1970, for the age."""
    rows = [_row(backup) for backup in backups]
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
    summary = f"{count} backup{'' if count == 1 else 's'} in {folder.shown}, {total}" if rows else "no backups"
    return Report({"backups": rows}, [table] if rows else [], summary)


def _row(backup):
    manifest = backup.manifest or {}
    return {
        "file": backup.shown,
        "time": time.strftime(f"{TIME_FORM}Z", time.gmtime(backup.name.seconds)),
        "label": backup.name.label,
        "format": backup.name.format,
        "bytes": backup.bytes,
        "env": manifest.get("env"),
        "database": manifest.get("database"),
        "manifest": backup.manifest is not None,
    }
