"""What a database holds now against what a backup holds: told before consent, as far as estimates and the manifest go.

Rows are estimates on both sides: counting them would read every table of a database that is about to be replaced.
"""

from __future__ import annotations

from collections import namedtuple

from nself_core.backups.manifest import ABOUT_ROWS
from nself_core.failures import CheckFailed
from nself_core.guard.check_sql import SQL_METADATA
from nself_core.guard.requirements import TABLE, requirements
from nself_core.output import bytes_text, duration_text

# The same tables as in the manifest.
SQL_PRESENT = f"""
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS name, n.nspname AS schema, c.relname AS "table",
       {ABOUT_ROWS} AS rows
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
"""

# After ANALYZE the numbers are as exact as the manifest's were.
SQL_TABLES = """
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS name, c.reltuples::bigint AS rows
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
"""

SQL_LAST_COMMIT = """
SELECT pg_catalog.to_char(timestamp AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"') AS at
FROM pg_catalog.pg_last_committed_xact()
"""
SQL_TRACKS = "SELECT pg_catalog.current_setting('track_commit_timestamp') = 'on' AS tracks"
SQL_READABLE = (
    "SELECT pg_catalog.has_schema_privilege('hdb_catalog', 'USAGE') "
    "AND pg_catalog.has_table_privilege('hdb_catalog.hdb_metadata', 'SELECT') AS readable"
)

FAR_ROWS, FAR_PART = 100, 0.1  # by so many, and such a part, numbers of rows differ that should be the same
MOST_SHOWN = 20  # lines of a kind in a question

Present = namedtuple("Present", "tables api last_commit size versions")
Present.__doc__ = """What the database holds now.

`tables`, rows of SQL_PRESENT; `api`, the (schema, table) that Hasura tracks, None where its metadata may not be read;
`last_commit`, a text or None; `size`, bytes; `versions`, of the migrations applied.
"""


def read_present(database, facts):
    """The Present of a database. Argument: `facts`, of `manifest.read_facts`."""
    tables = database.rows(SQL_PRESENT)
    tracks = database.rows(SQL_TRACKS)[0]["tracks"]
    commits = database.rows(SQL_LAST_COMMIT) if tracks else []
    return Present(
        tables, _tracked(database, facts), commits[0]["at"] if commits else None, facts["size_bytes"], facts["versions"]
    )


def _tracked(database, facts):
    if not facts["metadata"]:
        return frozenset()
    if not database.rows(SQL_READABLE)[0]["readable"]:
        return None
    rows = database.rows(SQL_METADATA)
    required = requirements(rows[0]["metadata"]) if rows else ()
    return frozenset((item.schema, item.table) for item in required if item.kind == TABLE)


def lines(present, manifest, age):
    """Lines that say what the present database holds and what comes in its place.

    Arguments: `present`, a Present; `manifest`, the backup's, or None; `age`, of the backup in seconds.
    """
    rows = sum(max(table["rows"], 0) for table in present.tables)
    told = [f"now: {_tables(len(present.tables))}, {_rows(rows)}, {bytes_text(present.size)}"]
    if present.last_commit:
        told[0] += f"; last commit on this server {present.last_commit}"
    if manifest is None:
        return told
    then = manifest["estimated_rows"]
    count = sum(max(number, 0) for number in then.values())
    told.append(
        f"then: {_tables(len(then))}, {_rows(count)}, as of {manifest['started_at']} "
        f"({duration_text(age)} ago), from {manifest['env']}, database {manifest['database']}"
    )
    told += _first(differences(present.tables, then))
    return told + _migrations(present.versions, manifest.get("versions") or ()) + _api(present, then)


def differences(tables, then):
    """A line for each table that goes, comes, or has another number of rows; what goes first, then by how much.

    Arguments: `tables`, rows of SQL_PRESENT; `then`, the manifest's numbers of rows by name.
    """
    now = {table["name"]: table["rows"] for table in tables}
    gone = [f"table {name} goes: {_rows(now[name])}" for name in sorted(set(now) - set(then))]
    changed = [name for name in set(now) & set(then) if now[name] >= 0 and then[name] >= 0 and now[name] != then[name]]
    changed.sort(key=lambda name: (then[name] - now[name], name))
    other = [f"table {name}: {_rows(now[name])} now, {then[name]} then" for name in changed]
    return gone + other + [f"table {name} comes: {_rows(then[name])}" for name in sorted(set(then) - set(now))]


def _migrations(now, then):
    """What becomes of the record of migrations."""
    found = []
    for words, versions in (("no longer applied", set(now) - set(then)), ("applied then", set(then) - set(now))):
        if versions:
            shown = _first(sorted(versions, key=int))
            found.append(f"migrations {words}: {', '.join(shown)}")
    return found


def _api(present, then):
    if present.api is None:
        return ["what the live API loses is not known: hdb_catalog.hdb_metadata may not be read"]
    lost = [table for table in present.tables if (table["schema"], table["table"]) in present.api]
    return _first([f"the live API loses table {table['name']}" for table in lost if table["name"] not in then])


def compare(target, manifest):
    """Raise CheckFailed where tables of the manifest are not there; a warning for those whose rows are not as many.

    The manifest's rows are estimates: a table that was emptied before the backup, and not analysed, counts as full.
    Those of a manifest that does not say which are unsure are compared for none at all only.
    """
    if manifest is None:
        return []
    present = {row["name"]: row["rows"] for row in target.rows(SQL_TABLES)}
    wanted = manifest["estimated_rows"]
    absent = sorted(set(wanted) - set(present))
    if absent:
        told = f"{_tables(len(absent))} absent: {', '.join(absent[:5])}"
        raise CheckFailed(f"what was restored is not what the manifest says: {told}")
    empty = sorted(name for name, rows in wanted.items() if rows > 0 and present[name] == 0)
    warnings = [f"empty, and in the manifest {_rows(wanted[name])}: {name}" for name in empty[:5]]
    unsure = manifest.get("unsure_rows")
    sure = {*wanted} - {*empty} - {*(wanted if unsure is None else unsure)}
    others = sorted(name for name in sure if _is_far(present[name], wanted[name]))
    return warnings + [
        f"{_rows(present[name])}, and in the manifest about {wanted[name]}: {name}" for name in others[:5]
    ]


def _is_far(rows, wanted):
    """Whether two estimates of one table's rows are further apart than estimates of the same rows are."""
    return abs(rows - wanted) > max(FAR_ROWS, wanted * FAR_PART)


def _tables(number):
    return f"{number} table{'' if number == 1 else 's'}"


def _rows(number):
    return "rows unknown" if number < 0 else f"about {number} row{'' if number == 1 else 's'}"


def _first(texts):
    more = len(texts) - MOST_SHOWN
    return [*texts[:MOST_SHOWN], f"and {more} more"] if more > 0 else list(texts)
