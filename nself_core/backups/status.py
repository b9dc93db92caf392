"""What `backup list` shows."""

from __future__ import annotations

import time

from nself_core.backups import swap
from nself_core.backups.names import TIME_FORM
from nself_core.output import Report, Table, bytes_text, duration_text

WHAT_IT_IS = {
    swap.BEFORE: "as it was before a restore",
    swap.RESTORE: "of a restore that did not end, or is under way",
}


def report(folder, backups, now, asides=None, warnings=()):
    """The Report of `backup list`.

    Arguments: `now`, seconds since 1970, for the age; `asides`, the Asides, None where they are not known.
    """
    told = _report(folder.shown, [_row(backup) for backup in backups], backups, now)._replace(warnings=warnings)
    return told if asides is None else _with_asides(told, asides, now)


def _with_asides(told, asides, now):
    rows = [_aside_row(aside, now) for aside in asides]
    told = told._replace(data={**told.data, "aside": rows})
    if not rows:
        return told
    table = Table(
        ("database", "age", "size", "what it is"),
        [
            (row["database"], _age_text(row["age_seconds"]), bytes_text(row["size_bytes"]), WHAT_IT_IS[row["kind"]])
            for row in rows
        ],
        ("<", ">", ">", "<"),
    )
    total = bytes_text(sum(row["size_bytes"] for row in rows))
    beside = f"{len(rows)} database{'' if len(rows) == 1 else 's'} beside, {total}: nself-db restore --clean"
    return told._replace(blocks=[*told.blocks, table], summary=f"{told.summary}; {beside}")


def _aside_row(aside, now):
    known = aside.seconds is not None
    return {
        "database": aside.database,
        "kind": aside.kind,
        "since": _stamp(aside.seconds) if known else None,
        "age_seconds": max(int(now - aside.seconds), 0) if known else None,
        "size_bytes": aside.size_bytes,
    }


def _age_text(seconds):
    return None if seconds is None else duration_text(seconds)


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


def _stamp(seconds):
    return time.strftime(f"{TIME_FORM}Z", time.gmtime(seconds))


def _facts(backup):
    return {
        "file": backup.shown,
        "time": _stamp(backup.name.seconds),
        "label": backup.name.label,
        "format": backup.name.format,
        "bytes": backup.bytes,
    }
