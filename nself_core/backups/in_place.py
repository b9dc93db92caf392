"""Puts a backup in place of what the database holds, in one transaction: for who may create no database beside it.

One shell beside the server runs pg_restore into psql, between a text that locks and empties and one that commits. The
tables are locked against writing first; then, while that transaction waits, the safety backup is taken: it holds all
that is replaced. What waits, waits for a lock that this program's own session holds, so that it never goes on alone.
"""

from __future__ import annotations

import os
import time
from collections import namedtuple

from nself_core.backups import clearing, load
from nself_core.backups.comparison import SQL_TABLES, compare
from nself_core.backups.exchange import SQL_SUBSCRIPTIONS
from nself_core.backups.names import DIRECTORY, PLAIN
from nself_core.bookkeeping import lock
from nself_core.bookkeeping.proof import LOCK_KEY, NOTICE_DEATH
from nself_core.bookkeeping.protection import IS_PROTECTED, refuse_protected
from nself_core.failures import Interrupted, LockHeld, Refused, SqlFailure, UsageFailure
from nself_core.output import Report, duration_text
from nself_core.plan import Step
from nself_core.postgres.errors import failure_of, parse_reports
from nself_core.postgres.maintenance import SQL_NO_TIMEOUTS
from nself_core.postgres.tools import (
    FOLDER,
    PIPE,
    ToolFailed,
    failure_of_tool,
    joined_command,
    runs_in_container,
    stream,
)
from nself_core.sql.quoting import dollar

# Two advisory locks of this database, whose numbers are a run's own, so that what a killed run may have left cannot be
# taken for ours: at the gate the transaction waits, the leave says that it may go on.
KEY = LOCK_KEY & 0x7FFFFFFF
ANALYZE = "ANALYZE"
LOCK_SECONDS = 5
GATE_SECONDS = 60  # for the transaction to come to the gate: it has waited for LOCK_SECONDS then, for each table

SQL_RIGHTS = """
SELECT r.rolsuper OR (r.rolcreatedb AND pg_catalog.pg_has_role(d.datdba, 'MEMBER')) AS may_create
FROM pg_catalog.pg_roles r, pg_catalog.pg_database d
WHERE r.rolname = CURRENT_USER AND d.datname = pg_catalog.current_database()
"""
# Whether an advisory lock `l` is the one of this database with a number.
OF_NUMBER = (
    f"l.locktype = 'advisory' AND l.objsubid = 2 AND l.classid = {KEY} AND l.objid = {{number}} AND l.database = "
    "(SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())"
)
SQL_AT_GATE = f"SELECT EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE {OF_NUMBER} AND NOT l.granted) AS waits"

# Whoever waits for a table in this mode makes pg_dump wait behind him, and he himself waits for our transaction.
SQL_WAITING = """
SELECT coalesce(pg_catalog.string_agg(DISTINCT l.pid::text, ', '), '') AS pids FROM pg_catalog.pg_locks l
WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND NOT l.granted
    AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
"""

# A newer pg_restore's first lines set what a server before 17 does not know.
NO_TRANSACTION_TIMEOUT = "1,40s/^SET transaction_timeout = 0;$//"

Job = namedtuple("Job", "backup name safety server_version is_fed gate texts")
Job.__doc__ = """A restore in place.

`backup`, the Backup; `name`, the database; `safety`, the Job of the safety backup, or None; `server_version`, a number;
`is_fed`, whether the dump is given to what reads it, which cannot open it itself; `gate`, the number of the gate's
lock; `texts`, the Texts around the dump.
"""

Texts = namedtuple("Texts", "begin clear end")
Texts.__doc__ = """SQL for psql: up to the gate, from there to the dump, and behind the dump."""


def refuse_beside(database):
    """Raise Refused where the role may not make a database beside the present one and rename both."""
    if not database.rows(SQL_RIGHTS)[0]["may_create"]:
        raise Refused(
            "this role may not create databases, or does not own this one; nothing was changed",
            "let it (ALTER ROLE … CREATEDB), or restore inside the database: nself-db restore --in-place",
        )


def steps_of(database, backup, facts, jobs, safety):
    """The Steps of `restore --in-place`. Arguments as of `restore.plan_restore`."""
    if jobs:
        raise UsageFailure("--jobs does not go with --in-place: one transaction is one connection")
    if backup.name.format == PLAIN and backup.manifest is None:
        raise Refused(
            f"{backup.shown} is a plain dump without a manifest: what stands in it may end the transaction",
            "restore it beside: leave out --in-place",
        )
    name = facts["database"]
    _refuse_subscriptions(database, name)
    gate = 2 * int.from_bytes(os.urandom(3), "big")
    texts = texts_around(backup.manifest or {}, gate)
    taken = safety.steps[0].work if safety else None
    job = Job(backup, name, taken, facts["server_version"], _is_fed(database, backup), gate, texts)
    works = [
        (f"begin a transaction in {name}, and lock its tables against writing", texts.begin),
        *((step.title, None) for step in (safety.steps if safety else ())),
        (f"end the sessions that have its tables in use, and drop all that a dump of {name} holds", texts.clear),
        (
            f"load {backup.shown}, compare the number of tables with the manifest's, commit, and analyze",
            f"{texts.end}{ANALYZE};\n",
        ),
    ]
    return [Step("in place", title, sql, "transaction", True, job) for title, sql in works]


def _refuse_subscriptions(database, name):
    """Raise Refused where the database has a subscription: no transaction can drop it, nor a dump replace it."""
    found = [row["name"] for row in database.rows(SQL_SUBSCRIPTIONS, name=name)]
    if found:
        raise Refused(
            f"{name} has a subscription ({', '.join(found)}), which cannot be dropped in a transaction; "
            "nothing was changed",
            "drop it first (DROP SUBSCRIPTION), and make it anew afterwards",
        )


def _is_fed(database, backup):
    """Whether the dump is given to what reads it. Raises Unreachable where there is nothing that could."""
    in_container = runs_in_container(database, "psql", also=_reader_of(backup))
    return in_container or backup.name.format == PLAIN or backup.name.is_encrypted


def _reader_of(backup):
    """The program that makes text of the dump, None where it is text."""
    return None if backup.name.format == PLAIN else "pg_restore"


def perform(database, job, take, tell):
    """Restore in one transaction, and return the Report. Whatever fails leaves the database as it was.

    Arguments: as of `restore.perform`. Raises LockHeld where another run, or another session's lock, is in the way.
    """
    begun = time.time()
    lock.take_lock(database, 0, tell)
    refuse_protected(database)
    database.execute(SQL_NO_TIMEOUTS.format(local="false"), f"SELECT pg_catalog.pg_advisory_lock({KEY}, {job.gate})")
    told: dict = {}
    try:
        size = load.size_of(job.backup) if job.is_fed else 0
        stream(_command(database, job, size), source=_source(database, job, size, take, tell, told))
    except ToolFailed as failed:
        raise _failure(database, failed) from None
    except KeyboardInterrupt:
        raise Interrupted("interrupted", "whether all of it is done or nothing, this shows: nself-db list") from None
    finally:
        database.close()  # and with it its locks
    tell(f"analyzing {job.name}")
    database.show(ANALYZE)
    database.execute(SQL_NO_TIMEOUTS.format(local="false"), ANALYZE)
    warnings = compare(database, job.backup.manifest)
    return _report(job, told.get("safety"), time.time() - begun)._replace(warnings=warnings)


def _command(database, job, size):
    """The Command of what restores. Argument: `size`, of the dump in bytes, where it is fed."""
    backup, how = job.backup, job.backup.path
    if job.is_fed:
        how = FOLDER if backup.name.format == DIRECTORY else PIPE
    line_filter = NO_TRANSACTION_TIMEOUT if job.server_version < 170000 else ""
    before = job.texts.begin + job.texts.clear
    return joined_command(database, _reader_of(backup), (size, how), before, job.texts.end, line_filter)


def _source(database, job, size, take, tell, told):
    """The dump's bytes; before the first of them is given, the safety backup is taken and the gate opened."""
    tell(f"locking the tables of {job.name}")
    database.show(job.texts.begin)
    yield from _until_at_gate(database, job.gate)
    if job.safety:
        told["safety"] = _take_safety(database, job.safety, take).data["file"]
    database.show(job.texts.clear, job.texts.end)
    database.execute(
        f"SELECT pg_catalog.pg_advisory_lock({KEY}, {job.gate + 1})",
        f"SELECT pg_catalog.pg_advisory_unlock({KEY}, {job.gate})",
    )
    tell(f"loading {job.backup.shown} into {job.name}")
    if job.is_fed:
        yield from load.source_of(job.backup, size)


def _until_at_gate(database, gate):
    """None, which is nothing to read yet, until the transaction holds its locks and waits at the gate.

    Whether it has ended instead, only who runs it can tell: sessions by our name may be others'. Raises LockHeld where
    it comes to the gate too late.
    """
    deadline = time.monotonic() + GATE_SECONDS
    while not database.rows(SQL_AT_GATE.format(number=gate))[0]["waits"]:
        if time.monotonic() > deadline:
            told = "the tables could not be locked; nothing was changed"
            raise LockHeld(told, "see who uses them: SELECT * FROM pg_locks")
        yield None


def _take_safety(database, safety, take):
    """The Report of the safety backup: its pg_dump waits for nobody who waits for us, a ring that no server sees."""
    arguments = [*safety.arguments, f"--lock-wait-timeout={LOCK_SECONDS}s"]
    try:
        return take(safety._replace(arguments=arguments))
    except SqlFailure as failure:
        pids = database.rows(SQL_WAITING)[0]["pids"]
        if not pids:
            raise
        told = f"the safety backup waits for a session that waits for a table ({pids}); nothing was changed"
        raise LockHeld(told, "end it, and run it again", excerpt=failure.excerpt) from None


def texts_around(manifest, gate):
    """The Texts that lock and empty the database, and compare and commit. Argument: `gate`, its lock's number."""
    return Texts(_joined(_sql_begin(gate)), _joined(_sql_clear(manifest, gate)), _joined(_sql_end(manifest)))


def _joined(texts):
    return "".join(f"{text};\n" for text in texts)


def _sql_begin(gate):
    return (
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
        SQL_NO_TIMEOUTS.format(local="true"),
        f"SELECT {NOTICE_DEATH}",
        "SET LOCAL client_min_messages = error",
        f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'",
        clearing.sql_lock("EXCLUSIVE"),
        "SET LOCAL lock_timeout = 0",
        f"SELECT pg_catalog.pg_advisory_xact_lock({KEY}, {gate})",
    )


def _sql_clear(manifest, gate):
    no_leave = f"NOT EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE {OF_NUMBER.format(number=gate + 1)})"
    return (
        _sql_refuse(no_leave, "the restore that has begun this has ended"),
        _sql_refuse(IS_PROTECTED, "this database is protected by now"),
        f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'",
        clearing.sql_lock("ACCESS EXCLUSIVE", ends_others=True),
        clearing.sql_clear(manifest.get("extensions") or ("plpgsql",)),
    )


def _sql_end(manifest):
    wanted = len(manifest.get("estimated_rows") or ())
    count = f"(SELECT pg_catalog.count(*) FROM ({SQL_TABLES}) present)"
    told = f"what was restored has fewer tables than the manifest''s {wanted}"
    return (_sql_refuse(f"{count} < {wanted}", told), "COMMIT")


def _sql_refuse(condition, told):
    return "DO " + dollar(f"BEGIN IF {condition} THEN RAISE EXCEPTION '{told}'; END IF; END")


def _failure(database, failed):
    """What the server said first, where it said something; nothing was changed in any case but a lost connection."""
    reports = [one for one in parse_reports(failed.words) if one.severity in ("ERROR", "FATAL", "PANIC")]
    if not reports:
        return failure_of_tool(database, failed)
    failure = failure_of(reports[0], database.where)
    failure.message += "; nothing was changed"
    if isinstance(failure, LockHeld) or reports[0].sqlstate == "40P01":
        failure = LockHeld(failure.message, "end the sessions that use the tables, and run it again")
    return failure


def _report(job, safety, seconds):
    data = {
        "file": job.backup.shown,
        "database": job.name,
        "before": None,
        "safety_backup": safety,
        "duration_ms": round(seconds * 1000),
    }
    back = f"nself-db restore --in-place --file {safety} puts back what was there"
    lines = [back] if safety else ["what was there is gone: no safety backup was wanted"]
    return Report(data, lines, f"restored {job.name} in place from {job.backup.shown} in {duration_text(seconds)}")
