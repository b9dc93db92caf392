"""The units of work that run a migration: which SQL of ours goes before, after and between its statements.

Pure text: a test can read, cut and feed what is made here without a server (issue 2, "A cut stream never
runs half a statement").
"""

from __future__ import annotations

from nself_core.bookkeeping.proof import AS_OURSELVES, NOTICE_DEATH, OWN_BEGIN, RESET_SESSION, locked, proven
from nself_core.bookkeeping.units import file_unit, timeouts, transaction_settings
from nself_core.migrations import ledger
from nself_core.postgres.session import Unit
from nself_core.sql.script import prefix_hashes, settings_before


def transaction_unit(label, work, guard_texts=()):
    """The Unit of a file that is one transaction, its bookkeeping included: all of it or nothing.

    Arguments: `label`, any value that tells units apart; `work`, a Work; `guard_texts`, SQL that fails when the
    migration would break the live API.
    """
    return file_unit(label, work.script, (*guard_texts, *_bookkeeping(work)))


def _bookkeeping(work):
    if work.direction == "down":
        return ledger.sql_removed(work.migration.version)
    return ledger.sql_applied(work.migration, work.script.mode, len(work.script.statements), proven(work.checksum))


def self_test_unit(label, work):
    """The Unit of a file that rolls itself back: run, undone, and recorded on its own."""
    script = work.script
    settings = transaction_settings(script.statements)
    opening = (
        script.begin_text or "BEGIN",
        *(statement.text for statement in settings),
        *timeouts(script, "SET LOCAL"),
        f"SELECT {NOTICE_DEATH} AS nself_watch",
    )
    record = ledger.sql_applied(work.migration, script.mode, len(script.statements), locked(work.checksum))
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
            settings = transaction_settings(left)
            opening = (unit.begin_text or OWN_BEGIN, *(statement.text for statement in settings))
            yield Unit(first, opening, left[len(settings) :], mark_done)
    yield Unit(None, closing=RESET_SESSION)
    yield Unit(None, closing=(OWN_BEGIN, *_finish(work), "COMMIT"))


def _finish(work):
    if work.direction == "up":
        return ledger.sql_finished(work.migration.version, work.checksum)
    return ledger.sql_forgotten(work.migration.version)


def session_units(work, done):
    """The units that bring a new session to where the file left the old one: its timeouts, its SETs so far."""
    yield Unit(None, closing=(*timeouts(work.script, "SET"), f"SELECT {NOTICE_DEATH}"))
    settings = settings_before(work.script.statements, done)
    if settings:
        yield Unit(None, statements=settings)
