"""The units of work that run a migration: which SQL of ours goes before, after and between its statements.

Pure text: a test can read, cut and feed what is made here without a server (issue 2, "A cut stream never
runs half a statement").
"""

from __future__ import annotations

import itertools

from nself_core.migrations import ledger
from nself_core.migrations.script import prefix_hashes, settings_before
from nself_core.postgres.session import Unit
from nself_core.sql.quoting import literal
from nself_core.sql.statements import first_words

# What a file may have left in the session; RESET ALL does not touch the role.
RESET_ROLE = ("SET SESSION AUTHORIZATION DEFAULT", "RESET ROLE")
RESET_SESSION = (*RESET_ROLE, "RESET ALL", "CLOSE ALL", "DEALLOCATE ALL", "DISCARD TEMP")
# Without it the server notices a dead client only when it next talks to it (manual, client_connection_check_interval,
# since 14). RESET ALL empties it, so each unit sets it anew.
NOTICE_DEATH = (
    "CASE WHEN pg_catalog.current_setting('server_version_num')::pg_catalog.int4 >= 140000 "
    "THEN pg_catalog.set_config('client_connection_check_interval', '1s', false) END"
)
# For bookkeeping between two statements of a file: the file's own settings come back with the end of the transaction.
OWN_BEGIN = "BEGIN READ WRITE"  # whatever default_transaction_read_only a file has set
AS_OURSELVES = ("SET LOCAL SESSION AUTHORIZATION DEFAULT", "SET LOCAL ROLE NONE")


def transaction_unit(label, work, guard_texts=()):
    """The Unit of a file that is one transaction, its bookkeeping included: all of it or nothing.

    Arguments: `label`, any value that tells units apart; `work`, a Work; `guard_texts`, SQL that fails when the
    migration would break the live API.
    """
    script = work.script
    opening = (
        script.begin_text or "BEGIN",
        *(statement.text for statement in transaction_settings(script)),
        *_timeouts(script, "SET LOCAL"),
        f"SELECT pg_catalog.pg_current_xact_id()::pg_catalog.text AS nself_xid, {NOTICE_DEATH} AS nself_watch",
    )
    closing = ("SET CONSTRAINTS ALL IMMEDIATE", *RESET_SESSION, *guard_texts, *_bookkeeping(work), "COMMIT")
    return Unit(label, opening, script.statements[len(transaction_settings(script)) :], closing)


def transaction_settings(script):
    """The SET TRANSACTION statements a file begins with: they must come before any query, ours too."""
    settings = itertools.takewhile(lambda s: first_words(s, 2) == ("SET", "TRANSACTION"), script.statements)
    return tuple(settings)


def _bookkeeping(work):
    if work.direction == "down":
        return ledger.sql_removed(work.migration.version)
    return ledger.sql_applied(
        work.migration, work.script.mode, len(work.script.statements), ledger.proven(work.checksum)
    )


def self_test_unit(label, work):
    """The Unit of a file that rolls itself back: run, undone, and recorded on its own."""
    script = work.script
    settings = transaction_settings(script)
    opening = (
        script.begin_text or "BEGIN",
        *(statement.text for statement in settings),
        *_timeouts(script, "SET LOCAL"),
        f"SELECT {NOTICE_DEATH} AS nself_watch",
    )
    record = ledger.sql_applied(work.migration, script.mode, len(script.statements), ledger.locked(work.checksum))
    closing = ("ROLLBACK", *RESET_SESSION, "BEGIN", *record, "COMMIT")
    return Unit(label, opening, script.statements[len(settings) :], closing)


def partial_units(work, done, fresh):
    """The units of a file outside a transaction, from statement `done` (counted from 0) on.

    Arguments: `work`, a Work; `fresh`, whether nothing is recorded of it yet. A statement that may be in a
    transaction commits together with its count; before one that may not, its start is recorded. The label of each
    unit is the number of the file's statement it begins with, None for bookkeeping alone.
    """
    version, script = work.migration.version, work.script
    if fresh:
        texts = ledger.sql_partial(work.migration, work.checksum, work.direction, len(script.statements))
        yield Unit(None, closing=(OWN_BEGIN, *texts, "COMMIT"))
    hashes = list(prefix_hashes(script.statements))
    for unit in script.units:
        # A block may have been put round statements that were done one by one: only the rest of it runs.
        first, left = max(unit.first, done), unit.statements[max(done - unit.first, 0) :]
        count = first + len(left)
        if not left:
            continue
        mark_done = (*AS_OURSELVES, ledger.sql_done(version, count, hashes[count]), "COMMIT")
        if unit.alone:
            yield Unit(None, closing=(OWN_BEGIN, *AS_OURSELVES, ledger.sql_started(version, count), "COMMIT"))
            yield Unit(first, statements=left)
            yield Unit(None, closing=(OWN_BEGIN, *mark_done))
        else:
            yield Unit(first, (unit.begin_text or OWN_BEGIN,), left, mark_done)
    yield Unit(None, closing=RESET_SESSION)
    yield Unit(None, closing=(OWN_BEGIN, *_finish(work), "COMMIT"))


def _finish(work):
    if work.direction == "up":
        return ledger.sql_finished(work.migration.version, work.checksum)
    return ledger.sql_forgotten(work.migration.version)


def session_units(work, done):
    """The units that bring a new session to where the file left the old one: its timeouts, its SETs so far."""
    yield Unit(None, closing=(*_timeouts(work.script, "SET"), f"SELECT {NOTICE_DEATH}"))
    settings = settings_before(work.script.statements, done)
    if settings:
        yield Unit(None, statements=settings)


def _timeouts(script, verb):
    texts = []
    if script.lock_timeout is not None:
        texts.append(f"{verb} lock_timeout = {literal(script.lock_timeout)}")
    if script.statement_timeout is not None:
        texts.append(f"{verb} statement_timeout = {literal(script.statement_timeout)}")
    return tuple(texts)
