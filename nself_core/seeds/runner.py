"""Runs seeds under the migration lock, each in one transaction with its record: all of it or nothing."""

from __future__ import annotations

import re
from collections import namedtuple

from nself_core.bookkeeping import lock
from nself_core.bookkeeping.proof import is_unproven
from nself_core.bookkeeping.units import file_unit, transaction_settings
from nself_core.failures import Failure, Interrupted, SeedFailed, Unreachable
from nself_core.output import Report, Table
from nself_core.postgres.errors import connection_failure, failure_of
from nself_core.postgres.session import CLOSING, ConnectionLost, DataFile, StatementFailed
from nself_core.processes import ignore_interrupts
from nself_core.seeds import ledger
from nself_core.seeds.refused_row import find_line
from nself_core.seeds.scripts import CsvData
from nself_core.seeds.survey import is_done, load
from nself_core.sql.quoting import identifier, literal

INTEGERS = ("smallint", "integer", "bigint")
# Behind the number comes the column or the line itself; the table's name may hold anything.
COPY_LINE = r"^COPY .*?, line (\d+)(?:, column |: \"|$)"
# What helps a migration in these cases is no way out for a seed.
HINTS = {
    "2D000": "a seed runs in one transaction: leave COMMIT and ROLLBACK out of what it calls",
    "25001": "a seed runs in one transaction: put what cannot be in one into a migration",
    "55P04": "a new enum value can be used only after it is committed: add it in a migration",
}

Options = namedtuple("Options", "env lock_wait changed tell")
Options.__doc__ = """How a run is made.

`env`, the environment's name; `lock_wait`, seconds; `changed`, whether seeds that another run has recorded meanwhile
are left out; `tell(text)`, progress for people.
"""


def run(database, steps, options):
    """Run the Steps of `survey.plan_run` in order and return the Report.

    A seed that fails leaves nothing of itself and stops the run; those before it stay, and stand in the failure's data.
    Raises SeedFailed, LockHeld, Unreachable…
    """
    works, facts = [step.work[0] for step in steps], steps[0].work[1]
    done: list = []
    process: dict = {}
    before: dict = {}
    try:
        process = lock.take_lock(database, options.lock_wait, options.tell)
        _make_table(database)
        before = ledger.read_records(database)
        if options.changed:
            works = [work for work in works if not is_done(work, before)]
        for work in _perform(database, works, facts, options):
            done.append(work)
            options.tell(f"ran {work.seed.file} ({len(done)} of {len(works)})")
    except KeyboardInterrupt:
        raise _stopped(database, process, works, before, done) from None
    except Failure as failure:
        failure.data = {**_data(done), **(failure.data or {})}
        if done:
            failure.message += f" ({len(done)} ran before it)"
        raise
    return _report(database, done)


def _make_table(database):
    facts = database.rows(ledger.SQL_FACTS)[0]
    if facts["standby"]:
        raise Unreachable(f"{database.where} is a standby, which takes no changes", "connect to the primary")
    if not facts["seeds"]:
        database.execute("BEGIN", *ledger.SQL_CREATE, "COMMIT")


def _perform(database, works, facts, options):
    """Yield each work as it is done."""
    # Under the lock the tables may hold more than when the run was planned.
    works = load(database, works, facts)
    try:
        for done in database.session().perform(unit(work, facts, options.env) for work in works):
            yield done.label
    except StatementFailed as failed:
        raise seed_failure(database, failed) from None
    except ConnectionLost as lost:
        raise _lost(database.where, lost) from None


def unit(work, facts, env):
    """The Unit of one seed: its statements, what moves the sequences on, and its record."""
    tables = {facts.tables[table].key: facts.tables[table] for table in work.fills if table in facts.tables}
    texts = (*sql_sequences(tables.values()), *ledger.sql_applied(work.seed.file, env, work.checksum))
    return file_unit(work, work.script, texts, (ledger.BEFORE,))


def sql_sequences(tables):
    """The statements that move each column's own sequence past the numbers that rows have brought along.

    One that counts downwards is left alone, and one that cannot get there. Sequences do not go back with a transaction,
    so they are only ever moved forward.
    """
    return tuple(
        f"SELECT pg_catalog.setval({literal(column.sequence)}, rows.last) "
        f"FROM (SELECT pg_catalog.max({identifier(column.name)})::bigint AS last FROM {table.sql}) AS rows, "
        f"{column.sequence} AS own, pg_catalog.pg_sequence AS q "
        f"WHERE q.seqrelid = {literal(column.sequence)}::pg_catalog.regclass AND q.seqincrement > 0 "
        "AND rows.last <= q.seqmax AND (rows.last > own.last_value OR rows.last = own.last_value AND NOT own.is_called)"
        for table in tables
        for column in table.columns
        if column.sequence and column.type in INTEGERS
    )


def seed_failure(database, failed):
    """The failure that shows a StatementFailed of a seed at its place in the file; nothing of the seed was kept."""
    error, work = failed.error, failed.label
    script = work.script
    if failed.index == CLOSING and is_unproven(error):
        return SeedFailed(
            "the seed ended the transaction it ran in, or gave up the migration lock; it is not recorded",
            "leave COMMIT and pg_advisory_unlock_all() out of what it calls",
            file=script.file,
        )
    if not isinstance(failed.index, int):
        failure = failure_of(error, database.where, None, script.file, None, None, SeedFailed)
        failure.message += " (at its end)" if failed.index == CLOSING else ""
        return failure
    statement = script.statements[failed.index + len(transaction_settings(script.statements))]
    line, column = statement.line, statement.column
    if work.data is not None:
        line, column = _data_line(database, failed, statement), None
    failure = failure_of(error, database.where, statement.text, script.file, line, column, SeedFailed)
    if work.data is not None:
        failure.line, failure.column = line, None  # a place in SQL that we made is none in the file
    failure.hint = HINTS.get(error.sqlstate, failure.hint)
    return failure


def _data_line(database, failed, statement):
    """The line of a data file at which the server has refused it, None where that is not known.

    In a CSV it counts from the header, which it is sent, too; of JSON it has got a batch of rows.
    """
    if not isinstance(failed.label.data, CsvData):
        return find_line(database, failed.label, failed)
    if not isinstance(statement.copy_data, DataFile):
        return None
    found = re.search(COPY_LINE, failed.error.context or "", re.MULTILINE | re.DOTALL)
    return int(found[1]) if found else None


def _lost(where, lost):
    failure = connection_failure(lost.text, where)
    failure.hint = "nothing of the seed that was under way is kept; run the same command again"
    failure.file = lost.label.seed.file if lost.label else None
    return failure


def _stopped(database, process, works, before, done):
    """The failure of an interrupted run, its server process ended so that nothing sent ahead goes on.

    What had been sent ahead and was committed before that counts as done. `before`, the records at the run's start.
    """
    ignore_interrupts()  # an impatient second Ctrl-C would lose the account of what was done
    database.abandon()
    warnings: tuple = ()
    try:
        if process:
            if not lock.end_session(database, process):
                warnings = (f"server process {process['pid']} has not ended yet",)
            done = [*done, *_done_unheard(database, works[len(done) :], before)]
    except Failure:
        warnings = (f"server process {process['pid']} could not be ended",)
    interrupted = Interrupted(
        f"interrupted: {len(done)} seed{'' if len(done) == 1 else 's'} ran",
        "run the same command again, with --changed to leave out those that ran",
        data=_data(done),
    )
    interrupted.warnings = warnings
    return interrupted


def _done_unheard(database, works, before):
    """Those of the works that have a new record, read as soon as the server process has ended."""
    records = ledger.read_records(database)
    return [work for work in works if records.get(work.seed.file) not in (None, before.get(work.seed.file))]


def _data(done, rows=None):
    known = rows or {}
    return {
        "seeds": [
            {
                "file": work.seed.file,
                "rows": known.get(work.seed.file, {}).get("rows", {}),
                "duration_ms": known.get(work.seed.file, {}).get("duration_ms"),
            }
            for work in done
        ]
    }


def _report(database, done):
    files = [work.seed.file for work in done]
    rows = {row["file"]: row for row in database.rows(ledger.SQL_ROWS_OF, files=files)} if files else {}
    data = _data(done, rows)
    table = Table(
        ("seed", "table", "inserted", "updated", "deleted"),
        [
            (seed["file"] if first else "", _shown(place), counts["inserted"], counts["updated"], counts["deleted"])
            for seed in data["seeds"]
            for first, (place, counts) in _numbered(seed["rows"])
        ],
    )
    count = len(done)
    return Report(data, [table] if table.rows else [], f"ran {count} seed{'' if count == 1 else 's'}")


def _numbered(rows):
    """(whether it is the first, (table, counts)) of what a seed wrote; one that wrote nothing has a row for that."""
    items = sorted(rows.items()) or [("", dict.fromkeys(("inserted", "updated", "deleted"), 0))]
    return [(number == 0, item) for number, item in enumerate(items)]


def _shown(place):
    return place[len("public.") :] if place.startswith("public.") else place
