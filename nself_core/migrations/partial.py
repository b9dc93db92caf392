"""Runs a file that cannot be in a transaction, statement by statement, and goes on after a failure.

Done statements are counted with a hash of their texts; none runs again. Where a run died inside a statement
that no transaction holds, the catalogue is asked whether it took effect; where it cannot tell, a person decides.
"""

from __future__ import annotations

import time

from nself_core.bookkeeping.proof import AS_OURSELVES, is_unproven
from nself_core.bookkeeping.units import transaction_settings
from nself_core.failures import CheckFailed, Failure, MigrationFailed
from nself_core.migrations import ledger, units
from nself_core.postgres.errors import failure_of
from nself_core.postgres.session import CLOSING, ConnectionLost, StatementFailed, Unit
from nself_core.sql import statements as sql_statements
from nself_core.sql.lexer import split
from nself_core.sql.quoting import identifier, qualified
from nself_core.sql.script import prefix_hash

DONE, UNDONE, UNKNOWN = "done", "undone", "unknown"

SQL_INDEX = """
SELECT n.nspname AS schema, i.indisvalid AS valid,
       EXISTS (SELECT FROM pg_catalog.pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid) AS building
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = :name AND i.indrelid = pg_catalog.to_regclass(:table)
"""
# What an interrupted REINDEX CONCURRENTLY leaves: its new index, or the old one under a new name (manual, REINDEX).
SQL_REINDEX_LEFT = """
SELECT n.nspname AS schema, c.relname AS name
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE NOT i.indisvalid AND c.relname ~ '_cc(new|old)[0-9]*$' AND n.nspname NOT LIKE 'pg\\_toast%'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid)
"""
SQL_RELATION = "SELECT pg_catalog.to_regclass(:name) IS NOT NULL AS there"
SQL_PARTITION = """
SELECT h.inhdetachpending AS pending FROM pg_catalog.pg_inherits h
WHERE h.inhrelid = pg_catalog.to_regclass(:name) AND h.inhparent = pg_catalog.to_regclass(:table)
"""
SQL_THERE = {
    "database": "SELECT 1 AS one FROM pg_catalog.pg_database WHERE datname = :name",
    "subscription": "SELECT 1 AS one FROM pg_catalog.pg_subscription WHERE subname = :name",
    "tablespace": "SELECT 1 AS one FROM pg_catalog.pg_tablespace WHERE spcname = :name",
}


def run_partial(database, work, record):
    """Run `work` from where `record` says it stopped and return the server's notices.

    Arguments: `record`, the ledger's Record of this file half done, None for one not begun. Raises MigrationFailed
    naming the statement and what is done, CheckFailed where it cannot go on.
    """
    session = database.session()
    done = _statements_done(work, record)
    notices = []
    try:
        for _ in session.perform(units.session_units(work, done)):
            pass
        if record is not None:
            done = _settle(database, work, record, done)
        for statement in work.script.statements[done:]:
            _drop_invalid_index(database, work, statement)
        for finished in session.perform(units.partial_units(work, done, record is None)):
            notices += finished.notices
    except StatementFailed as failed:
        raise _failure(database, work, failed) from None
    except ConnectionLost as lost:
        lost.text += f" (in {work.script.file})"
        raise
    return notices


def _statements_done(work, record):
    """How many statements of the file need not run; refuses a file whose done part has changed."""
    if record is None or not record.statements_done:
        return 0
    done = record.statements_done
    if prefix_hash(work.script.statements, done) != record.prefix_hash:
        raise CheckFailed(
            f"the first {done} statements of this file are done, and they have changed since",
            "put them back, or settle it: nself-db migrate repair "
            f"--migration {work.migration.version} --applied (or --pending)",
            file=work.script.file,
        )
    return done


def _settle(database, work, record, done):
    """The number of statements done, after asking what became of the one that was begun."""
    if done >= len(work.script.statements):
        return done
    statement = work.script.statements[done]
    if record.started is not None and record.started > done:
        verdict = _verdict(database, statement)
        if verdict == UNKNOWN and _known_to_have_failed(database, work):
            verdict = UNDONE
        if verdict == UNKNOWN:
            raise _undecided(work, record.started, statement)
        if verdict == DONE:
            done = record.started
            _mark_done(database, work, done)
            return done
    elif _finalize_detach(database, statement):
        done += 1
        _mark_done(database, work, done)
        return done
    if statement.keyword == "REINDEX":
        _drop_reindex_left(database)
    return done


def _finalize_detach(database, statement):
    """Whether the statement is a DETACH PARTITION CONCURRENTLY that failed between its halves, and now is done."""
    effect = sql_statements.effect_in_catalogue(statement)
    if effect is None or effect.kind != "detach_partition":
        return False
    child, parent = _regclass(effect.schema, effect.name), _regclass(effect.table_schema, effect.table_name)
    rows = database.rows(SQL_PARTITION, name=child, table=parent)
    return bool(rows and rows[0]["pending"]) and _partition_verdict(database, effect) == DONE


def _drop_reindex_left(database):
    """Drop the INVALID indexes that a failed REINDEX CONCURRENTLY left: a further one would pass them over."""
    for row in database.rows(SQL_REINDEX_LEFT):
        _run_alone(database, f"DROP INDEX CONCURRENTLY {qualified(row['schema'], row['name'])}")


def _known_to_have_failed(database, work):
    """Whether the run before, which lost the lock with its session, records within 3 seconds that it failed."""
    for _ in range(12):
        record = ledger.read_ledger(database).records.get(work.migration.version)
        if record is not None and record.started is None:
            return True
        time.sleep(0.25)
    return False


def _mark_done(database, work, count):
    text = ledger.sql_done(work.migration.version, count, prefix_hash(work.script.statements, count))
    database.execute("BEGIN", *AS_OURSELVES, text, "COMMIT")


def _undecided(work, number, statement):
    version = work.migration.version
    return CheckFailed(
        f"the last run ended inside statement {number}, and the catalogue cannot tell whether it took effect",
        f"look, then say: nself-db migrate repair --migration {version} --statement-done {number} "
        f"(or --statement-undone {number})",
        file=work.script.file,
        line=statement.line,
        column=statement.column,
        excerpt="  " + statement.text.split("\n")[0],
    )


def _verdict(database, statement):
    """Whether a statement that was begun took effect, as the catalogue shows it."""
    effect = sql_statements.effect_in_catalogue(statement)
    if effect is None:
        return UNKNOWN
    if effect.kind == "repeatable":
        return UNDONE
    verb, _, noun = effect.kind.partition("_")
    if noun == "index":
        return _index_verdict(database, effect, verb)
    if effect.kind == "detach_partition":
        return _partition_verdict(database, effect)
    there = bool(database.rows(SQL_THERE[noun], name=effect.name))
    return DONE if there == (verb == "create") else UNDONE


def _index_verdict(database, effect, verb):
    if verb == "create":
        found = _find_index(database, effect)
        return DONE if found and found["valid"] else UNDONE
    there = database.rows(SQL_RELATION, name=_regclass(effect.schema, effect.name))[0]["there"]
    return UNDONE if there else DONE


def _partition_verdict(database, effect):
    parent = _regclass(effect.table_schema, effect.table_name)
    child = _regclass(effect.schema, effect.name)
    rows = database.rows(SQL_PARTITION, name=child, table=parent)
    if not rows:
        return DONE
    if not rows[0]["pending"]:
        return UNDONE
    _run_alone(database, f"ALTER TABLE {parent} DETACH PARTITION {child} FINALIZE")
    return DONE


def _find_index(database, effect):
    table = _regclass(effect.table_schema, effect.table_name)
    rows = database.rows(SQL_INDEX, name=effect.name, table=table)
    return rows[0] if rows else None


def _drop_invalid_index(database, work, statement):
    """Drop the INVALID index that an earlier CREATE INDEX CONCURRENTLY left: IF NOT EXISTS would keep it as it is."""
    effect = sql_statements.effect_in_catalogue(statement)
    if effect is None or effect.kind != "create_index":
        return
    found = _find_index(database, effect)
    if not found or found["valid"]:
        return
    if found["building"]:
        raise CheckFailed(
            f"another session is building the index {effect.name}",
            "wait for it, then run it again",
            file=work.script.file,
            line=statement.line,
            column=statement.column,
        )
    _run_alone(database, f"DROP INDEX CONCURRENTLY {qualified(found['schema'], effect.name)}")


def _run_alone(database, text):
    for _ in database.session().perform([Unit(None, statements=tuple(split(text)))]):
        pass


def _regclass(schema, name):
    return qualified(schema, name) if schema else identifier(name)


def _failure(database, work, failed):
    """The failure of a file outside a transaction: what failed, what is done, where the next run goes on."""
    script = work.script
    if is_unproven(failed.error) and failed.index == CLOSING:
        return MigrationFailed(
            "the file gave up the migration lock, and another run may have it",
            "leave pg_advisory_unlock_all() and DISCARD ALL out of it, then run it again: it goes on where it stopped",
            file=script.file,
        )
    if not isinstance(failed.label, int):
        return failure_of(failed.error, database.where, None, script.file, None, None, MigrationFailed)
    at = failed.label
    if isinstance(failed.index, int):
        # A block's SET TRANSACTION went ahead of its statements.
        at += failed.index + len(transaction_settings(script.statements[at:]))
    statement = script.statements[at]
    # In the closing the position is one in our own SQL.
    error = failed.error if failed.index != CLOSING else failed.error._replace(line=None, column=None)
    failure = failure_of(
        error, database.where, statement.text, script.file, statement.line, statement.column, MigrationFailed
    )
    left = _after_failure(database, work, statement) if failed.index != CLOSING else ""
    total = len(script.statements)
    failure.message += f"; statement {at + 1} of {total} failed, {failed.label} of {total} are done{left}"
    again = f"mend the cause and run migrate {work.direction} again: it goes on with statement {failed.label + 1}"
    failure.hint = f"{failure.hint}; {again}" if failure.hint else again
    failure.data = {
        "failed": {
            "version": str(work.migration.version),
            "file": script.file,
            "statement": at + 1,
            "statements": total,
            "done": failed.label,
        }
    }
    return failure


def _after_failure(database, work, statement):
    """Record that the statement is known to have failed, and tell of an INVALID index it left."""
    try:
        database.execute("BEGIN", ledger.sql_not_started(work.migration.version), "COMMIT")
        effect = sql_statements.effect_in_catalogue(statement)
        found = _find_index(database, effect) if effect and effect.kind == "create_index" else None
        left = database.rows(SQL_REINDEX_LEFT) if statement.keyword == "REINDEX" else []
    except Failure:
        return ""
    if left:
        names = ", ".join(row["name"] for row in left)
        return f"; INVALID indexes are left ({names}), the next run drops them"
    if found and not found["valid"]:
        return f"; index {effect.name} is left INVALID, the next run drops and rebuilds it"
    return ""
