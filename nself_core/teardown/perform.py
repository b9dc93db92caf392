"""Gathers the facts of a drop, and performs it: one transaction under the migration lock, planned anew inside it."""

from __future__ import annotations

from nself_core.bookkeeping import lock
from nself_core.bookkeeping.protection import refuse_protected
from nself_core.failures import CheckFailed, Failure, Interrupted, LockHeld, Unreachable
from nself_core.guard.check_sql import SQL_METADATA
from nself_core.guard.requirements import requirements
from nself_core.output import Report
from nself_core.postgres.errors import connection_failure, failure_of
from nself_core.postgres.session import ConnectionLost, StatementFailed
from nself_core.row_counts import count_rows
from nself_core.sql.quoting import qualified
from nself_core.teardown.closure import read_closure
from nself_core.teardown.drop import RECORDS, Facts

SQL_PLACES = """
SELECT n.nspname AS schema, c.relname AS name, pg_catalog.pg_is_in_recovery() AS standby,
       pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT') AS readable
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname IN ('hdb_catalog', 'nself_db') AND c.relkind IN ('r', 'p', 'v')
"""
SQL_STANDBY = "SELECT pg_catalog.pg_is_in_recovery() AS standby"

SQL_SIZE = """
SELECT coalesce(pg_catalog.sum(coalesce(
    (SELECT pg_catalog.sum(pg_catalog.pg_total_relation_size(part.relid))
     FROM pg_catalog.pg_partition_tree(c.oid) AS part), pg_catalog.pg_total_relation_size(c.oid))), 0) AS bytes
FROM pg_catalog.json_to_recordset(:names) AS wanted(schema pg_catalog.text, name pg_catalog.text)
    JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.schema
    JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name
"""

# Who has a lock on a table, and so may be in the way; the longest at it first. A table that ours refer to is locked too
# when they go, so who is at another is looked at where none is at ours.
SQL_HOLDERS = """
SELECT a.pid, a.application_name AS application, a.usename AS "user", a.state,
       pg_catalog.to_char(a.query_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"') AS query_start,
       pg_catalog.min(pg_catalog.format('%s.%s', n.nspname, c.relname)) AS relation, wanted.name IS NOT NULL AS ours
FROM pg_catalog.pg_locks l
    JOIN pg_catalog.pg_class c ON c.oid = l.relation
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.json_to_recordset(:names) AS wanted(schema pg_catalog.text, name pg_catalog.text)
        ON wanted.schema = n.nspname AND wanted.name = c.relname
    JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.granted AND l.pid <> pg_catalog.pg_backend_pid() AND c.relkind IN ('r', 'p')
  AND n.nspname NOT IN ('pg_catalog', 'information_schema')
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
GROUP BY a.pid, a.application_name, a.usename, a.state, a.query_start, a.xact_start, ours
ORDER BY ours DESC, a.xact_start LIMIT 5
"""

UNKNOWN_HINT = "whether the drop is done or nothing of it, this shows: nself-db list"

BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"


def read_facts(database, scope, tell):
    """The Facts of a drop of what `scope` means; changes nothing.

    Arguments: `tell(text)`, progress while rows are counted. Raises Refused where the database is protected, LockHeld,
    with who holds it, where a table stays locked.
    """
    if database.rows(SQL_STANDBY)[0]["standby"]:
        raise Unreachable(f"{database.where} is a standby, which takes no changes", "connect to the primary")
    refuse_protected(database)
    closure = read_closure(database, scope)
    places = {(row["schema"], row["name"]): row["readable"] for row in database.rows(SQL_PLACES)}
    tables = [item for item in closure.objects if item.kind == "table"]
    try:
        rows = count_rows(database, [item._asdict() for item in tables], tell)
        size = database.rows(SQL_SIZE, names=_names(tables))[0]["bytes"]
    except LockHeld as failure:
        raise _with_holders(database, failure, tables) from None
    return Facts(closure, rows, size, _records(database, places), _api(database, places))


def _names(tables):
    return [{"schema": item.schema, "name": item.name} for item in tables]


def _records(database, places):
    """The numbers of rows by (schema, name) of the records that are there."""
    there = [place[:2] for place in RECORDS if place[:2] in places]
    ask = "SELECT pg_catalog.count(*) AS rows FROM "
    return {place: database.rows(ask + qualified(*place))[0]["rows"] for place in there}


def _api(database, places):
    """The Requirements of Hasura's metadata: none where it is not in this database, None where it may not be read."""
    readable = places.get(("hdb_catalog", "hdb_metadata"), True)
    if not readable:
        return None
    rows = database.rows(SQL_METADATA) if ("hdb_catalog", "hdb_metadata") in places else []
    return requirements(rows[0]["metadata"]) if rows else frozenset()


def drop(database, steps, wait, tell):
    """Perform the steps of `plan_drop` in one transaction and return the Report.

    Arguments: `wait`, seconds to wait for another run; `tell(text)`, progress. The facts are read again once all tables
    are locked: what differs from what was consented to is not dropped. Raises LockHeld with who is in the way.
    """
    work = steps[0].work
    tables = [item for item in work.facts.closure.objects if item.kind == "table"]
    texts = [step.sql.rstrip(";") for step in steps]
    process = lock.take_lock(database, wait, tell)
    tell("waiting for the tables' locks")
    try:
        first = 1 if tables else 0
        session = database.session()  # this one and no later one: outside the transaction nothing may run
        _run(database, session, (BEGIN, *texts[:first]))
        refuse_protected(database)
        _check_same(database, work)
        _run(database, session, (*texts[first:], "COMMIT"))
    except LockHeld as failure:
        raise _with_holders(database, failure, tables) from None
    except KeyboardInterrupt:
        raise _stopped(database, work, process) from None
    return _report(work)


def _stopped(database, work, process):
    """What to tell of an interrupted drop: its COMMIT may have been sent, so the database is looked at."""
    try:
        lock.end_session(database, process)
        done = _compared(read_closure(database, work.scope)) != _compared(work.facts.closure)
    except Failure:
        return Interrupted("interrupted", UNKNOWN_HINT)
    return Interrupted("interrupted; the drop was done by then" if done else "interrupted; nothing was dropped")


def _run(database, session, texts):
    for text in texts if database.on_statement else ():
        database.on_statement(text)
    try:
        session.execute(*texts)
    except StatementFailed as failed:
        failure = failure_of(failed.error, database.where)
        failure.message += "; nothing was dropped"
        raise failure from None
    except ConnectionLost as lost:
        failure = connection_failure(lost.text, database.where)
        failure.hint = UNKNOWN_HINT
        raise failure from None


def _check_same(database, work):
    """Refuse to drop other things than those that were shown; numbers of rows may have grown meanwhile.

    The records count as such things: where another run has applied migrations, what these made may not be among ours.
    """
    places = {(row["schema"], row["name"]): row["readable"] for row in database.rows(SQL_PLACES)}
    same = _records(database, places) == work.facts.records
    if not same or _compared(read_closure(database, work.scope)) != _compared(work.facts.closure):
        database.execute("ROLLBACK")
        raise CheckFailed("the database's objects have changed meanwhile; nothing was dropped", "run it again")


def _compared(closure):
    return closure.objects, closure.outside, sorted(closure.needs)


def _with_holders(database, failure, tables):
    """The failure of a wait for a lock, with the sessions that are in the way."""
    rows = database.rows(SQL_HOLDERS, names=_names(tables))
    told = [
        f"  {row['relation']}: pid {row['pid']}, application {row['application'] or '(no name)'}, user {row['user']}, "
        f"{row['state']}, query started {row['query_start']}"
        for row in [row for row in rows if row["ours"]] or rows
    ]
    failure.hint = "wait for the other session, or end it: SELECT pg_terminate_backend(PID)"
    failure.excerpt = "\n".join(told) or None
    return failure


def _report(work):
    data = work.data
    lines = [f"dropped {item.kind} {item.shown}" for item in work.facts.closure.objects]
    lines += [f"dropped with them: {text}" for text in data["also_dropped"]]
    count = len(data["dropped"]) + len(data["also_dropped"])
    forgotten = data["forgotten"]
    summary = f"dropped {count} object{'' if count == 1 else 's'}"
    summary += f", forgot {forgotten} migration{'' if forgotten == 1 else 's'}" if forgotten else ""
    return Report(data, lines, summary)
