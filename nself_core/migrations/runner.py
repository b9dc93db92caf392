"""Runs migrations: one session, one lock, each file whole or not at all.

Transactional files are streamed ahead of their answers; a file outside a transaction is run by `partial`.
What fails on a lock, a deadlock or a serialization conflict is tried again as a whole, three times.
"""

from __future__ import annotations

import json
import random
import time
from collections import namedtuple

from nself_core.bookkeeping import lock
from nself_core.bookkeeping.proof import is_unproven
from nself_core.bookkeeping.units import transaction_settings
from nself_core.failures import CheckFailed, Failure, Interrupted, MigrationFailed, Unreachable
from nself_core.guard.check_sql import BROKEN_SQLSTATE
from nself_core.guard.requirements import describe
from nself_core.migrations import ledger as ledgers
from nself_core.migrations import partial, units
from nself_core.output import Report
from nself_core.postgres.errors import CHECK_PLACE, RETRYABLE, connection_failure, failure_of
from nself_core.postgres.session import CLOSING, ConnectionLost, StatementFailed
from nself_core.processes import ignore_interrupts

TRIES = 3
GO_ON = "what was not committed is undone; run the same command again, it goes on from there"
FIRST_PAUSE = 0.5  # seconds; doubled and jittered for each further try

Options = namedtuple("Options", "direction lock_wait guard tell choose_again", defaults=(None,))
Options.__doc__ = """How a run is made.

`direction`, "up" or "down"; `lock_wait`, seconds; `guard`, a function of the ledger's facts that gives the ApiGuard,
called once under the lock; `tell(text)`, progress for people; `choose_again`, a function of a Ledger that gives the
versions that the same command would choose now, None where it chooses all.
"""


def run(database, works, options):
    """Run `works` (planned Works) in order under the lock and return the Report.

    Those that another run has finished meanwhile are left out. Raises MigrationFailed, CheckFailed, LockHeld,
    Unreachable…, each with what was done so far in its data.
    """
    state = _Run(database, works, options)
    try:
        while state.remaining:
            state.start()
            state.advance()
    except KeyboardInterrupt:
        ignore_interrupts()  # an impatient second Ctrl-C would lose the account of what was done
        state.stop()
        told = f"interrupted: {state.told_done()}, {len(state.remaining)} not"
        interrupted = Interrupted(told, "run the same command again: it goes on from there", data=state.data())
        interrupted.warnings = tuple(state.warnings)
        raise interrupted from None
    except Failure as failure:
        failure.data = {**state.data(), **(failure.data or {})}
        failure.warnings = tuple(state.warnings)
        if state.process and failure.hint == CHECK_PLACE:
            failure.hint = GO_ON  # it was reached, and lost between two files
        if state.done:
            failure.message += f" ({state.told_done()} before it)"
        raise
    return state.report()


class _Run:
    """One run under way: what remains, what is done, how often the present file was tried."""

    def __init__(self, database, works, options):
        self.database = database
        self.options = options
        self.remaining = list(works)
        self.done = []
        self.warnings = [text for work in works for text in work.script.warnings]
        self.tries = 0
        self.process: dict = {}
        self.guard = None

    def start(self):
        """Open the session, take the lock, and leave out what is done by now."""
        self.process = lock.take_lock(self.database, self.options.lock_wait, self.options.tell)
        known = ledgers.read_ledger(self.database)
        self._make_tables(known)
        self.remaining = [work for work in self.remaining if self._to_do(work, known)]
        self._check_choice(known)
        self.records = known.records
        if self.guard is None:
            self.guard = self.options.guard(known.facts)

    def _check_choice(self, known):
        """Refuse to go on where another run has changed more than that it did a part of this one.

        What was chosen before the lock was chosen by a ledger that may have changed while this run waited.
        """
        if not self.options.choose_again or not self.remaining:
            return
        versions = [work.migration.version for work in self.remaining]
        if self.options.choose_again(known)[: len(versions)] != versions:
            raise CheckFailed(
                "another run has changed meanwhile which migrations are applied; nothing was run", "run it again"
            )

    def _make_tables(self, known):
        if known.facts["standby"]:
            raise Unreachable(f"{self.database.where} is a standby, which takes no changes", "connect to the primary")
        ledgers.check_writable(known.facts)
        texts = ledgers.sql_create(known.facts)
        if texts:
            self.database.execute("BEGIN", *texts, "COMMIT")

    def _to_do(self, work, known):
        record = known.records.get(work.migration.version)
        if self.options.direction == "up":
            return record is None or record.dirty
        return record is not None

    def advance(self):
        """Run what remains, up to the end or to a failure that is worth another try."""
        try:
            while self.remaining:
                if self.remaining[0].script.mode == "no_transaction":
                    self._run_partial(self.remaining[0])
                else:
                    self._run_stream()
        except StatementFailed as failed:
            self._retry_or_raise(failed)
        except ConnectionLost as lost:
            raise lost_failure(self.database.where, lost) from None

    def _run_stream(self):
        """Run the files up to the next one that is outside a transaction."""
        stream = []
        for work in self.remaining:
            if work.script.mode == "no_transaction":
                break
            stream.append(work)
        session = self.database.session()
        for done in session.perform(self._unit(work) for work in stream):
            self._finished(done.label, done.notices)

    def _unit(self, work):
        if work.script.mode == "self_test":
            return units.self_test_unit(work, work)
        return units.transaction_unit(work, work, self.guard.texts() if self.guard else ())

    def _finished(self, work, notices):
        self.remaining.remove(work)
        self.done.append(work)
        self.tries = 0
        self.warnings += [f"{work.script.file}: {notice.message}" for notice in notices if notice.severity == "WARNING"]
        verb = "applied" if self.options.direction == "up" else "rolled back"
        self.options.tell(f"{verb} {work.script.file} ({len(self.done)} of {len(self.done) + len(self.remaining)})")

    def _run_partial(self, work):
        record = self.records.get(work.migration.version)
        if record and not (record.dirty and record.direction == work.direction):
            record = None
        notices = partial.run_partial(self.database, work, record)
        self._finished(work, notices)
        broken = self.guard.broken(self.database) if self.guard and not self.guard.allowed else []
        if broken:
            raise api_failure(work, self._placed(broken), "is done and recorded, but it breaks the live API")

    def _retry_or_raise(self, failed):
        work = failed.label
        if failed.error.sqlstate in RETRYABLE and self.tries + 1 < TRIES:
            self.tries += 1
            pause = FIRST_PAUSE * 2 ** (self.tries - 1) * (0.5 + random.random())
            self.options.tell(
                f"{work.script.file}: {failed.error.message}; try {self.tries + 1} of {TRIES} in {pause:.1f} s"
            )
            time.sleep(pause)
            return
        raise stream_failure(self.database.where, work, failed, self._placed) from None

    def _placed(self, broken):
        """The guard's rows with their places in the metadata files."""
        return self.guard.placed(broken) if self.guard else broken

    def stop(self):
        """End the server's side of an interrupted run, so that nothing written ahead goes on."""
        self.database.abandon()
        if not self.process:
            return
        pid = self.process["pid"]
        try:
            if not lock.end_session(self.database, self.process):
                self.warnings.append(f"server process {pid} has not ended yet, and may still commit what it was sent")
            self._see_what_was_done()
        except Failure:
            self.warnings.append(f"server process {pid} could not be ended; see: nself-db migrate status")

    def _see_what_was_done(self):
        """Count what was written ahead and committed before the server's side ended, as it has just now.

        What a run that waited does next is not ours.
        """
        known = ledgers.read_ledger(self.database)
        for work in [work for work in self.remaining if not self._to_do(work, known)]:
            self.remaining.remove(work)
            self.done.append(work)

    def told_done(self):
        """How many were done, in words."""
        return f"{len(self.done)} {'applied' if self.options.direction == 'up' else 'rolled back'}"

    def data(self):
        """What was done, for the JSON document."""
        name = "applied" if self.options.direction == "up" else "rolled_back"
        return {
            name: [
                {
                    "version": str(work.migration.version),
                    "name": work.migration.name,
                    "file": work.script.file,
                    "mode": work.script.mode,
                }
                for work in self.done
            ]
        }

    def report(self):
        """The Report of a run that ended well."""
        verb = "applied" if self.options.direction == "up" else "rolled back"
        count = len(self.done)
        lines = [f"{verb} {work.script.file}" for work in self.done]
        summary = f"{verb} {count} migration{'' if count == 1 else 's'}"
        if self.guard and self.guard.allowed:
            self.warnings += [f"the live API is broken: {line}" for line in describe(self.guard.broken(self.database))]
        return Report(self.data(), lines, summary, self.warnings)


def stream_failure(where, work, failed, placed):
    """The failure that shows a StatementFailed of a transactional file; nothing of the file was kept.

    Argument: `placed(rows)`, gives the guard's rows their places in the metadata files.
    """
    error, script = failed.error, work.script
    if failed.index == CLOSING and error.sqlstate == BROKEN_SQLSTATE:
        broken = placed(json.loads(error.detail or "[]"))
        return api_failure(work, broken, "would break the live API; nothing of it was kept")
    if failed.index == CLOSING and is_unproven(error):
        return MigrationFailed(
            "the file ended the transaction it ran in, or gave up the migration lock; it is not recorded",
            "leave BEGIN, COMMIT and pg_advisory_unlock_all() out of it, or mark it -- nself:no-transaction",
            file=script.file,
        )
    if isinstance(failed.index, int):
        statement = script.statements[failed.index + len(transaction_settings(script.statements))]
        failure = failure_of(
            error, where, statement.text, script.file, statement.line, statement.column, MigrationFailed
        )
    else:
        failure = failure_of(error, where, None, script.file, None, None, MigrationFailed)
        failure.message += " (at its COMMIT)" if failed.index == CLOSING else ""
    failure.data = {"failed": {"version": str(work.migration.version), "file": script.file, "kept": "nothing"}}
    return failure


def lost_failure(where, lost):
    """The failure of a run whose connection was lost: the statement that ran then, and what becomes of the file."""
    failure = connection_failure(lost.text, where)
    failure.hint = GO_ON
    script = getattr(lost.label, "script", None)
    if script and isinstance(lost.index, int):
        statement = script.statements[lost.index + len(transaction_settings(script.statements))]
        failure.file, failure.line, failure.column = script.file, statement.line, statement.column
        failure.excerpt = "  " + statement.text.split("\n")[0]
    elif script:
        failure.file = script.file
    return failure


def api_failure(work, broken, sentence):
    """The failure of a migration that breaks what Hasura tracks."""
    return CheckFailed(
        f"the migration {sentence}",
        "change the metadata first, or apply it knowingly with --allow-inconsistent",
        file=work.script.file,
        excerpt="\n".join("  " + line for line in describe(broken)),
        data={"broken": broken},
    )
