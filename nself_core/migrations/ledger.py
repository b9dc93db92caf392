"""What the database knows of applied migrations, and the SQL that changes it.

Two tables: Hasura's own `hdb_catalog.schema_migrations` (version, dirty), never altered, decides what is
applied; `nself_db.migrations` keeps our facts about it. Both are made by the first command that writes.
"""

from __future__ import annotations

from collections import namedtuple

from nself_core.bookkeeping.proof import LOCK_KEY, SQL_CREATE_SCHEMA, locked, proven
from nself_core.bookkeeping.protection import IS_PROTECTED
from nself_core.failures import SqlFailure
from nself_core.sql.quoting import dollar, identifier, literal

# The fact that each table's presence is.
TABLES = {
    "versions": "hdb_catalog.schema_migrations",
    "records": "nself_db.migrations",
    "metadata": "hdb_catalog.hdb_metadata",
    "hasura_state": "hdb_catalog.hdb_version",
}

# The catalogue is asked and not to_regclass, which fails where the schema may not be used.
SQL_FACTS = f"""
WITH found AS (
    SELECT n.nspname || '.' || c.relname AS place,
           pg_catalog.has_schema_privilege(n.oid, 'USAGE')
           AND pg_catalog.has_table_privilege(c.oid, 'SELECT') AS readable,
           pg_catalog.has_table_privilege(c.oid, 'INSERT') AND pg_catalog.has_table_privilege(c.oid, 'UPDATE')
           AND pg_catalog.has_table_privilege(c.oid, 'DELETE') AS writable
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname IN ('hdb_catalog', 'nself_db')
      AND c.relname IN ('schema_migrations', 'migrations', 'hdb_metadata', 'hdb_version')
)
SELECT EXISTS (SELECT FROM found WHERE place = 'hdb_catalog.schema_migrations') AS versions,
       EXISTS (SELECT FROM found WHERE place = 'nself_db.migrations') AS records,
       EXISTS (SELECT FROM found WHERE place = 'hdb_catalog.hdb_metadata') AS metadata,
       EXISTS (SELECT FROM found WHERE place = 'hdb_catalog.hdb_version') AS hasura_state,
       ARRAY (SELECT place FROM found WHERE NOT readable ORDER BY place) AS unreadable,
       ARRAY (SELECT place FROM found WHERE NOT writable ORDER BY place) AS unwritable,
       ARRAY (SELECT nspname FROM pg_catalog.pg_namespace WHERE nspname IN ('hdb_catalog', 'nself_db')) AS schemas,
       CURRENT_USER AS role,
       pg_catalog.current_database() AS database,
       pg_catalog.current_setting('server_version_num')::int AS server_version,
       pg_catalog.pg_is_in_recovery() AS standby,
       {IS_PROTECTED} AS protected
"""

SQL_HASURA_STATE = """
SELECT key::numeric AS version, value = 'true' AS dirty
FROM hdb_catalog.hdb_version AS state, pg_catalog.jsonb_each_text(
    coalesce(pg_catalog.to_jsonb(state) -> 'cli_state' -> 'migrations' -> :source, '{}'))
WHERE key ~ '^[0-9]{1,19}$'
"""

SQL_CREATE_HASURA_SCHEMA = ("CREATE SCHEMA IF NOT EXISTS hdb_catalog",)

SQL_CREATE_SCHEMA_MIGRATIONS = (
    "CREATE TABLE IF NOT EXISTS hdb_catalog.schema_migrations"
    " (version bigint NOT NULL PRIMARY KEY, dirty boolean NOT NULL)",
)

SQL_CREATE_RECORDS = (
    """CREATE TABLE IF NOT EXISTS nself_db.migrations (
    version bigint PRIMARY KEY,
    name text NOT NULL,
    file text NOT NULL,
    checksum text NOT NULL,
    mode text NOT NULL,
    direction text NOT NULL DEFAULT 'up',
    applied_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    applied_by text NOT NULL DEFAULT CURRENT_USER,
    duration_ms double precision,
    statements integer NOT NULL DEFAULT 0,
    statements_done integer NOT NULL DEFAULT 0,
    prefix_hash text,
    started integer
)""",
    "REVOKE ALL ON nself_db.migrations FROM PUBLIC",
)

Record = namedtuple(
    "Record",
    "version dirty name file checksum mode direction duration_ms statements statements_done prefix_hash started "
    "applied_at",
    defaults=(False, None, None, None, None, None, None, None, None, None, None, None),
)
Record.__doc__ = """One version that the database knows.

Everything after `dirty` is None where only Hasura's table knows the version. `direction` and `statements_done` of
`statements` tell how far a file outside a transaction came; `started` is the number, from 1, of a statement that
was begun and not seen to end; `duration_ms` is milliseconds, `applied_at` UTC in ISO 8601.
"""


def _by_columns(fields, source):
    """SQL for one row with an array for each of `fields`: half of what an object for each record would take."""
    columns = ", ".join(f"pg_catalog.array_agg({field}) AS {field}" for field in fields)
    return f"SELECT {columns} FROM ({source}) AS known"


SQL_VERSIONS = _by_columns(Record._fields[:2], "SELECT version, dirty FROM hdb_catalog.schema_migrations")

SQL_RECORDS = _by_columns(
    Record._fields,
    """
SELECT v.version, v.dirty, r.name, r.file, r.checksum, r.mode, r.direction, r.duration_ms,
       r.statements, r.statements_done, r.prefix_hash, r.started,
       pg_catalog.to_char(r.applied_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS applied_at
FROM hdb_catalog.schema_migrations v LEFT JOIN nself_db.migrations r USING (version)
""",
)


class Ledger(namedtuple("Ledger", "records facts")):
    """The database's knowledge at one moment: `records` by version, `facts` as SQL_FACTS names them."""

    @property
    def applied(self):
        """Versions that are wholly applied, ascending."""
        return [version for version, record in self.records.items() if not record.dirty]


def read_ledger(database):
    """Read the Ledger in two questions; creates nothing. Raises as Database.rows and `check_readable` do."""
    return ask_ledger(database)()


def ask_ledger(database):
    """As `read_ledger`, in two parts: the second question is sent, and the Ledger is what the returned function gives.

    The caller has work to do while the server answers.
    """
    facts = database.rows(SQL_FACTS)[0]
    check_readable(facts, "versions", "records")
    if not facts["versions"]:
        return lambda: Ledger({}, facts)
    answer = database.ask(SQL_RECORDS if facts["records"] else SQL_VERSIONS)
    return lambda: Ledger(_records(answer()[0]), facts)


def _records(columns):
    """The Records by version, ascending, of columns in the order of Record's fields (None where there is no row)."""
    rows = sorted(zip(*(values or () for values in columns.values())))
    return {row[0]: Record(*row) for row in rows}


def check_readable(facts, *names):
    """Raise SqlFailure, with what to grant, where a table that one of the `names` of TABLES means may not be read."""
    wanted = [TABLES[name] for name in names if TABLES[name] in facts["unreadable"]]
    if not wanted:
        return
    # What status reads is granted at once; the metadata is asked for only where it is wanted.
    places = [place for place in facts["unreadable"] if place in wanted or place != TABLES["metadata"]]
    schemas = sorted({place.partition(".")[0] for place in places})
    role = identifier(facts["role"])
    raise SqlFailure(
        f"user {facts['role']} may not read {' and '.join(wanted)}",
        f"connect as the user that owns them, or: GRANT USAGE ON SCHEMA {', '.join(schemas)} TO {role}; "
        f"GRANT SELECT ON {', '.join(places)} TO {role}",
    )


def read_hasura_versions(database, facts, source="default"):
    """Versions and whether each is dirty in Hasura CLI v3's own place (hdb_version.cli_state), as a dict."""
    if not facts["hasura_state"]:
        return {}
    check_readable(facts, "hasura_state")
    rows = database.rows(SQL_HASURA_STATE, source=source)
    return {int(row["version"]): row["dirty"] for row in rows}


def sql_create(facts):
    """The statements that make what is missing of the two tables; empty when both are there.

    A schema that is there is not made: even IF NOT EXISTS wants the right to create one.
    """
    texts: tuple = ()
    if not facts["versions"]:
        texts += () if "hdb_catalog" in facts["schemas"] else SQL_CREATE_HASURA_SCHEMA
        texts += SQL_CREATE_SCHEMA_MIGRATIONS
    if not facts["records"]:
        texts += () if "nself_db" in facts["schemas"] else SQL_CREATE_SCHEMA
        texts += SQL_CREATE_RECORDS
    return texts


def check_writable(facts):
    """Raise SqlFailure, with what to grant, where a version could not be recorded: better before a file has run."""
    wanted = [TABLES[name] for name in ("versions", "records") if TABLES[name] in facts["unwritable"]]
    if wanted:
        raise SqlFailure(
            f"user {facts['role']} may not write {' and '.join(wanted)}",
            "connect as the user that owns them, or: "
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON {', '.join(wanted)} TO {identifier(facts['role'])}",
        )


def sql_applied(migration, mode, statements, checksum_sql):
    """The statements that record `migration` as applied in the open transaction.

    Arguments: `mode`, the script's; `statements`, how many it has; `checksum_sql`, the checksum as `proven` or `locked`
    gives it. The time it took is from the transaction's start.
    """
    version = int(migration.version)
    values = (
        f"{version}, {literal(migration.name)}, {literal(migration.file)}, {checksum_sql}, {literal(mode)}, 'up', "
        "round((EXTRACT(EPOCH FROM pg_catalog.clock_timestamp() - pg_catalog.now()) * 1000)::pg_catalog.numeric, 3), "
        f"{int(statements)}, {int(statements)}"
    )
    return (
        f"INSERT INTO hdb_catalog.schema_migrations (version, dirty) VALUES ({version}, false) "
        "ON CONFLICT (version) DO UPDATE SET dirty = false",
        "INSERT INTO nself_db.migrations (version, name, file, checksum, mode, direction, duration_ms, statements, "
        f"statements_done) VALUES ({values}) ON CONFLICT (version) DO UPDATE SET name = excluded.name, "
        "file = excluded.file, checksum = excluded.checksum, mode = excluded.mode, direction = 'up', "
        "applied_at = pg_catalog.clock_timestamp(), applied_by = CURRENT_USER, duration_ms = excluded.duration_ms, "
        "statements = excluded.statements, statements_done = excluded.statements_done, prefix_hash = NULL, "
        "started = NULL",
    )


def sql_recorded(migration, mode, statements, checksum):
    """The statements that record as applied what is not run here: as `sql_applied`, but it took no time."""
    texts = sql_applied(migration, mode, statements, locked(checksum))
    return (*texts, f"UPDATE nself_db.migrations SET duration_ms = NULL WHERE version = {int(migration.version)}")


def sql_clean(version):
    """Record that nothing of `version` is left to do."""
    return f"UPDATE hdb_catalog.schema_migrations SET dirty = false WHERE version = {int(version)}"


def sql_removed(version):
    """The statements that forget `version`; the first fails when the transaction or the lock is not ours."""
    return (
        "INSERT INTO nself_db.migrations (version, name, file, checksum, mode) VALUES "
        f"({int(version)}, '', '', {proven('')}, '') ON CONFLICT (version) DO UPDATE SET checksum = excluded.checksum",
        *sql_forgotten(version),
    )


def sql_partial(migration, checksum, direction, statements):
    """The statements that mark a file outside a transaction as begun: dirty, nothing of it done."""
    version = int(migration.version)
    return (
        f"INSERT INTO hdb_catalog.schema_migrations (version, dirty) VALUES ({version}, true) "
        "ON CONFLICT (version) DO UPDATE SET dirty = true",
        "INSERT INTO nself_db.migrations (version, name, file, checksum, mode, direction, statements) VALUES "
        f"({version}, {literal(migration.name)}, {literal(migration.file)}, {locked(checksum)}, 'no_transaction', "
        f"{literal(direction)}, {int(statements)}) ON CONFLICT (version) DO UPDATE SET file = excluded.file, "
        "checksum = excluded.checksum, mode = excluded.mode, direction = excluded.direction, "
        "applied_at = pg_catalog.clock_timestamp(), statements = excluded.statements, statements_done = 0, "
        "prefix_hash = NULL, started = NULL",
    )


def _same_direction():
    """The column as it is, or NULL, which it refuses, when the lock is ours no more: two would run the same file."""
    return f"CASE WHEN pg_catalog.pg_try_advisory_lock({LOCK_KEY}) THEN direction END"


def sql_started(version, number):
    """Record that statement `number` (from 1), which may be in no transaction, is about to run."""
    return (
        f"UPDATE nself_db.migrations SET started = {int(number)}, direction = {_same_direction()} "
        f"WHERE version = {int(version)}"
    )


def sql_done(version, count, prefix_hash):
    """Record that the first `count` statements, whose texts hash to `prefix_hash`, are done."""
    return (
        f"UPDATE nself_db.migrations SET statements_done = {int(count)}, prefix_hash = {literal(prefix_hash)}, "
        f"started = NULL, direction = {_same_direction()} WHERE version = {int(version)}"
    )


def sql_finished(version, checksum):
    """The statements that turn a half-done file into an applied one."""
    return (
        sql_clean(version),
        f"UPDATE nself_db.migrations SET checksum = {locked(checksum)}, started = NULL, statements_done = statements, "
        "prefix_hash = NULL, duration_ms = round((EXTRACT(EPOCH FROM pg_catalog.clock_timestamp() - applied_at) * 1000)"
        f"::pg_catalog.numeric, 3), applied_at = pg_catalog.clock_timestamp() WHERE version = {int(version)}",
    )


def sql_not_started(version):
    """Record that no statement is under way."""
    return f"UPDATE nself_db.migrations SET started = NULL WHERE version = {int(version)}"


def sql_forgotten(version):
    """The statements that forget `version`, whatever its state."""
    return (
        f"DELETE FROM nself_db.migrations WHERE version = {int(version)}",
        f"DELETE FROM hdb_catalog.schema_migrations WHERE version = {int(version)}",
    )


def sql_gone(version):
    """A statement that fails where `version` is still recorded: a policy, rule or trigger may keep its row."""
    kept = f"version {int(version)} is still recorded: a policy, rule or trigger of the table keeps its row"
    return "DO " + dollar(
        f"BEGIN\n    IF EXISTS (SELECT FROM hdb_catalog.schema_migrations WHERE version = {int(version)}) THEN\n"
        f"        RAISE EXCEPTION {literal(kept)};\n    END IF;\nEND"
    )


def sql_checksum(version, checksum):
    """Set the stored checksum of one version."""
    return f"UPDATE nself_db.migrations SET checksum = {literal(checksum)} WHERE version = {int(version)}"
