"""Puts a backup in place of what the database holds, in one transaction: for who may create no database beside it.

One shell beside the server runs pg_restore into psql, between a text that locks and empties and one that commits. The
tables are locked against writing first; then, while that transaction waits, the safety backup is taken: it holds all
that is replaced. What waits, waits for a lock that this program's own session holds, so that it never goes on alone.
"""

from __future__ import annotations

import time
from collections import namedtuple

from nself_core.backups import clearing, load
from nself_core.backups.comparison import SQL_TABLES, compare
from nself_core.backups.names import DIRECTORY, PLAIN
from nself_core.bookkeeping import lock
from nself_core.bookkeeping.proof import LOCK_KEY, NOTICE_DEATH
from nself_core.bookkeeping.protection import IS_PROTECTED, refuse_protected
from nself_core.failures import Interrupted, LockHeld, Refused, SqlFailure, UsageFailure
from nself_core.output import Report, duration_text
from nself_core.plan import Step
from nself_core.postgres.errors import failure_of, parse_reports
from nself_core.postgres.maintenance import SQL_NO_TIMEOUTS
from nself_core.postgres.tools import FOLDER, PIPE, ToolFailed, failure_of_tool, joined_command, stream
from nself_core.sql.quoting import dollar

# Two advisory locks of this database: at the first the transaction waits, the second says that it may go on.
KEY = LOCK_KEY & 0x7FFFFFFF
GATE, LEAVE = 1, 2
LOCK_SECONDS = 5
GATE_SECONDS = 60  # for the transaction to come to the gate: it has waited for LOCK_SECONDS then, for each table

SQL_RIGHTS = """
SELECT r.rolsuper OR (r.rolcreatedb AND pg_catalog.pg_has_role(d.datdba, 'MEMBER')) AS may_create
FROM pg_catalog.pg_roles r, pg_catalog.pg_database d
WHERE r.rolname = CURRENT_USER AND d.datname = pg_catalog.current_database()
"""
SQL_SHUT = f"SELECT pg_catalog.pg_try_advisory_lock({KEY}, {GATE}) AS taken"
SQL_AT_GATE = f"""
SELECT EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE {{ours}} AND l.objid = {GATE} AND NOT l.granted) AS waits,
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity a WHERE a.datname = pg_catalog.current_database()
        AND a.application_name = pg_catalog.current_setting('application_name')) > 1 AS lives
"""
OURS = (
    f"l.locktype = 'advisory' AND l.objsubid = 2 AND l.classid = {KEY} AND l.database = "
    "(SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())"
)
SQL_OPEN = (
    f"SELECT pg_catalog.pg_advisory_lock({KEY}, {LEAVE})",
    f"SELECT pg_catalog.pg_advisory_unlock({KEY}, {GATE})",
)

# Whoever waits for a table in this mode makes pg_dump wait behind him, and he himself waits for our transaction.
SQL_WAITING = """
SELECT coalesce(pg_catalog.string_agg(DISTINCT l.pid::text, ', '), '') AS pids FROM pg_catalog.pg_locks l
WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND NOT l.granted
    AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
"""

# A newer pg_restore's first lines set what a server before 17 does not know.
NO_TRANSACTION_TIMEOUT = "1,40s/^SET transaction_timeout = 0;$//"

Job = namedtuple("Job", "backup name safety server_version")
Job.__doc__ = """A restore in place.

`backup`, the Backup; `name`, the database; `safety`, the Job of the safety backup, or None; `server_version`, a number.
"""


def refuse_beside(database):
    """Raise Refused where the role may not make a database beside the present one and rename both."""
    if not database.rows(SQL_RIGHTS)[0]["may_create"]:
        raise Refused(
            "this role may not create databases, or does not own this one; nothing was changed",
            "let it (ALTER ROLE … CREATEDB), or restore inside the database: nself-db restore --in-place",
        )


def steps_of(backup, facts, jobs, safety):
    """The Steps of `restore --in-place`. Arguments as of `restore.plan_restore`."""
    if jobs:
        raise UsageFailure("--jobs does not go with --in-place: one transaction is one connection")
    if backup.name.format == PLAIN and backup.manifest is None:
        raise Refused(
            f"{backup.shown} is a plain dump without a manifest: what stands in it may end the transaction",
            "restore it beside: leave out --in-place",
        )
    name = facts["database"]
    job = Job(backup, name, safety.steps[0].work if safety else None, facts["server_version"])
    titles = [
        f"begin a transaction in {name}, and lock its tables against writing",
        *([step.title for step in safety.steps] if safety else []),
        f"end the sessions that have its tables in use, and drop all that a dump of {name} holds",
        f"load {backup.shown}, compare the number of tables with the manifest's, and commit",
    ]
    return [Step("in place", title, None, "transaction", True, job) for title in titles]


def perform(database, job, take, tell):
    """Restore in one transaction, and return the Report. Whatever fails leaves the database as it was.

    Arguments: as of `restore.perform`. Raises LockHeld where another run, or another session's lock, is in the way.
    """
    begun = time.time()
    lock.take_lock(database, 0, tell)
    refuse_protected(database)
    database.execute(SQL_NO_TIMEOUTS.format(local="false"))
    if not database.rows(SQL_SHUT)[0]["taken"]:
        raise LockHeld(f"another restore of {job.name} is under way", "wait for it to end")
    told: dict = {}
    try:
        stream(_command(database, job), source=_source(database, job, take, tell, told))
    except ToolFailed as failed:
        raise _failure(database, failed) from None
    except KeyboardInterrupt:
        raise Interrupted("interrupted", "whether all of it is done or nothing, this shows: nself-db list") from None
    finally:
        database.close()  # and with it its locks
    tell(f"analyzing {job.name}")
    database.execute(SQL_NO_TIMEOUTS.format(local="false"), "ANALYZE")
    warnings = compare(database, job.backup.manifest)
    return _report(job, told.get("safety"), time.time() - begun)._replace(warnings=warnings)


def _command(database, job):
    backup = job.backup
    how, size = backup.path, 0
    if _is_fed(database, backup):
        how, size = FOLDER if backup.name.format == DIRECTORY else PIPE, load.size_of(backup)
    reader = None if backup.name.format == PLAIN else "pg_restore"
    line_filter = NO_TRANSACTION_TIMEOUT if job.server_version < 170000 else ""
    around = sql_before(backup), sql_after(backup)
    database.show(*around)
    return joined_command(database, reader, (size, how), *around, line_filter)


def _source(database, job, take, tell, told):
    """The dump's bytes; before the first of them is asked for, the safety backup is taken and the gate opened."""
    tell(f"locking the tables of {job.name}")
    if not _come_to_gate(database):
        return  # it has ended, and says why
    if job.safety:
        told["safety"] = _take_safety(database, job.safety, take).data["file"]
    database.execute(*SQL_OPEN)
    tell(f"loading {job.backup.shown} into {job.name}")
    if _is_fed(database, job.backup):
        yield from load.source_of(job.backup, load.size_of(job.backup))


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


def _is_fed(database, backup):
    """Whether the dump is given to what reads it, which cannot open it itself."""
    return backup.name.format == PLAIN or backup.name.is_encrypted or database.reach.kind == "container"


def _come_to_gate(database):
    """Wait until the transaction holds its locks; False where it has ended instead."""
    deadline, lived = time.monotonic() + GATE_SECONDS, False
    while time.monotonic() < deadline:
        state = database.rows(SQL_AT_GATE.format(ours=OURS))[0]
        if state["waits"]:
            return True
        if lived and not state["lives"]:
            return False
        lived = state["lives"]
        time.sleep(0.05)
    raise LockHeld("the tables could not be locked; nothing was changed", "see who uses them: SELECT * FROM pg_locks")


def sql_before(backup):
    """The text that comes before the dump's: locks, waits for the safety backup, and empties the database."""
    manifest = backup.manifest or {}
    lost = "the restore that has begun this has ended"
    texts = (
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
        SQL_NO_TIMEOUTS.format(local="true"),
        f"SELECT {NOTICE_DEATH}",
        "SET LOCAL client_min_messages = error",
        f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'",
        clearing.sql_lock("EXCLUSIVE"),
        "SET LOCAL lock_timeout = 0",
        f"SELECT pg_catalog.pg_advisory_xact_lock({KEY}, {GATE})",
        _sql_refuse(f"NOT EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE {OURS} AND l.objid = {LEAVE})", lost),
        _sql_refuse(IS_PROTECTED, "this database is protected by now"),
        f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'",
        clearing.sql_lock("ACCESS EXCLUSIVE", ends_others=True),
        clearing.sql_clear(manifest.get("extensions") or ("plpgsql",)),
    )
    return ";\n".join(texts) + ";\n"


def sql_after(backup):
    """The text that comes behind the dump's: compares, and commits."""
    manifest = backup.manifest or {}
    wanted = len(manifest.get("estimated_rows") or ())
    count = f"(SELECT pg_catalog.count(*) FROM ({SQL_TABLES}) present)"
    told = f"what was restored has fewer tables than the manifest''s {wanted}"
    return ";\n".join((_sql_refuse(f"{count} < {wanted}", told), "COMMIT")) + ";\n"


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
