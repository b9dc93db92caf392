"""What the database knows of seeds that ran: the table `nself_db.seeds`, and the SQL that writes and reads it."""

from __future__ import annotations

from collections import namedtuple

from nself_core.bookkeeping.proof import SQL_CREATE_SCHEMA, proven
from nself_core.sql.quoting import literal

# Where the table is not there, or its schema is closed to us, there is nothing to read: to_regclass would fail.
SQL_FACTS = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = 'nself_db' AND c.relname = 'seeds') AS seeds,
       pg_catalog.pg_is_in_recovery() AS standby
"""

SQL_RECORDS = """
SELECT file, checksum,
       pg_catalog.to_char(applied_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS applied_at
FROM nself_db.seeds
"""

SQL_CREATE = (
    *SQL_CREATE_SCHEMA,
    """CREATE TABLE IF NOT EXISTS nself_db.seeds (
    file text PRIMARY KEY,
    env text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    applied_by text NOT NULL DEFAULT CURRENT_USER,
    duration_ms double precision,
    rows jsonb NOT NULL DEFAULT '{}'
)""",
    "REVOKE ALL ON nself_db.seeds FROM PUBLIC",
)

# Rows written by this transaction so far, by table, a partition's counted as its root's. The counters may hold what
# earlier transactions of the session have left (manual, "The Cumulative Statistics System"), so a run takes them at its
# start and at its end.
SQL_WRITTEN = """
SELECT pg_catalog.jsonb_object_agg(place, counts) FROM (
    SELECT n.nspname || '.' || c.relname AS place, pg_catalog.jsonb_build_array(
        pg_catalog.sum(s.n_tup_ins), pg_catalog.sum(s.n_tup_upd), pg_catalog.sum(s.n_tup_del)) AS counts
    FROM pg_catalog.pg_stat_xact_user_tables s
    JOIN pg_catalog.pg_class c ON c.oid = coalesce(pg_catalog.pg_partition_root(s.relid), s.relid)
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE s.n_tup_ins + s.n_tup_upd + s.n_tup_del > 0 AND n.nspname <> 'nself_db' AND c.relpersistence <> 't'
    GROUP BY 1) AS written
"""

BEFORE = f"coalesce(({SQL_WRITTEN})::pg_catalog.text, '{{}}') AS nself_before"

_SQL_ROWS = f"""
SELECT coalesce(pg_catalog.jsonb_object_agg(place, pg_catalog.jsonb_build_object(
           'inserted', inserted, 'updated', updated, 'deleted', deleted)), '{{}}')
FROM (SELECT now.place,
             (now.counts ->> 0)::bigint - coalesce((before.counts ->> 0)::bigint, 0) AS inserted,
             (now.counts ->> 1)::bigint - coalesce((before.counts ->> 1)::bigint, 0) AS updated,
             (now.counts ->> 2)::bigint - coalesce((before.counts ->> 2)::bigint, 0) AS deleted
      FROM pg_catalog.jsonb_each(coalesce(({SQL_WRITTEN}), '{{}}')) AS now(place, counts)
      LEFT JOIN pg_catalog.jsonb_each(:'nself_before'::pg_catalog.jsonb) AS before(place, counts) USING (place)
     ) AS grown
WHERE inserted + updated + deleted > 0
"""

Record = namedtuple("Record", "file checksum applied_at")
Record.__doc__ = "One seed that ran: its `file`, the `checksum` of its text then, and when (UTC, ISO 8601)."

APPLIED, CHANGED, PENDING, OTHER_ENV = "applied", "changed", "pending", "other_env"


def read_records(database, facts=None):
    """The Records by file; {} where none was ever written. Raises as Database.rows does."""
    facts = facts or database.rows(SQL_FACTS)[0]
    if not facts["seeds"]:
        return {}
    return {row["file"]: Record(**row) for row in database.rows(SQL_RECORDS)}


def state_of(seed, record, is_here):
    """The state of a seed: applied, changed, pending, or other_env where it is not for this one."""
    if not is_here:
        return OTHER_ENV
    if record is None:
        return PENDING
    return APPLIED if record.checksum == seed.checksum else CHANGED


def sql_applied(file, env, checksum):
    """The statements that record a seed in the transaction that ran it; the row fails where that is not ours.

    They take the variables nself_xid and nself_before (see `units.file_unit`).
    """
    return (
        "INSERT INTO nself_db.seeds (file, env, checksum, duration_ms, rows) "
        f"SELECT {literal(file)}, {literal(env)}, {proven(checksum)}, "
        "round((EXTRACT(EPOCH FROM pg_catalog.clock_timestamp() - pg_catalog.now()) * 1000)::pg_catalog.numeric, 3), "
        f"({_SQL_ROWS}) ON CONFLICT (file) DO UPDATE SET env = excluded.env, checksum = excluded.checksum, "
        "applied_at = pg_catalog.clock_timestamp(), applied_by = CURRENT_USER, duration_ms = excluded.duration_ms, "
        "rows = excluded.rows",
    )


SQL_ROWS_OF = """
SELECT file, rows, duration_ms FROM nself_db.seeds
WHERE file IN (SELECT pg_catalog.json_array_elements_text(:files::json))
"""
