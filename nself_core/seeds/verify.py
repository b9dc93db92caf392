"""Whether what the seeds bring is in the database: each is run in a transaction that is rolled back, and counted.

Truth, not belief: the tables that a seed names as its targets are counted before and after it, inside the transaction,
with triggers as usual. Rows that it would still add are missing. Data are the same before and after; sequences, which
no rollback takes back, may have gaps.
"""

from __future__ import annotations

from nself_core.bookkeeping.proof import NOTICE_DEATH, RESET_SESSION
from nself_core.bookkeeping.units import timeouts, transaction_settings
from nself_core.output import Report, Table
from nself_core.postgres.errors import connection_failure
from nself_core.postgres.session import ConnectionLost, StatementFailed, Unit
from nself_core.seeds.runner import seed_failure
from nself_core.seeds.scripts import with_statements

MISSING, NOT_IDEMPOTENT, FAILS, UNTRUE = "missing rows", "not idempotent", "fails", "not true"
UNIQUE_VIOLATIONS = ("23505", "23P01")


def check(database, found, twice):
    """The Report of `seed verify`.

    Arguments: `found`, a Survey; `twice`, whether each seed runs a second time in the same transaction, in which it
    must add nothing. Exit code 1 where anything is missing or wrong.
    """
    works = [work for work in found.works if not work.seed.head.destructive]
    skipped = [work.seed.file for work in found.works if work.seed.head.destructive]
    findings = []
    for work in works:
        findings += _check_one(database, _loaded(work, found.facts), _tables(work, found.facts), twice)
    warnings = [*found.listing.warnings, *(f"{file} says that it is destructive: not verified" for file in skipped)]
    return _report(works, findings, warnings)


def _loaded(work, facts):
    """The work with its statements, those of a data file as for a table that holds rows: it may, and twice it does."""
    return work if work.data is None else with_statements(work, facts.tables[work.fills[0]], False)


def _tables(work, facts):
    found = [facts.tables[table] for table in work.fills if table in facts.tables]
    return list({table.key: table for table in found}.values())


def _check_one(database, work, tables, twice):
    """The findings of one seed, as dicts."""
    try:
        return list(_findings(database, work, tables, twice))
    except StatementFailed as failed:
        return [_failed(database, work, failed)]
    except ConnectionLost as lost:
        raise connection_failure(lost.text, database.where) from None


def _findings(database, work, tables, twice):
    session = database.session()
    settings = (statement.text for statement in transaction_settings(work.script.statements))
    begin = (work.script.begin_text or "BEGIN", *settings, *timeouts(work.script, "SET LOCAL"))
    session.execute(*begin, f"SELECT {NOTICE_DEATH}")
    before = _count(session, tables)
    counts = [before]
    for _ in range(2 if twice else 1):
        _run(session, work)
        counts.append(_count(session, tables))
    untrue = [said for said in work.seed.head.verify if not _is_true(session, said.text)]
    session.execute("ROLLBACK", *RESET_SESSION)
    yield from _grown(work, tables, before, counts[1], MISSING)
    if twice:
        yield from _grown(work, tables, counts[1], counts[2], NOT_IDEMPOTENT)
    for said in untrue:
        yield _finding(work, UNTRUE, None, None, f"{said.text}", said.line)


def _run(session, work):
    # As behind a run: neither the second one nor what is asked then depends on what the seed has set.
    closing = ("SET CONSTRAINTS ALL IMMEDIATE", *RESET_SESSION)
    statements = work.script.statements[len(transaction_settings(work.script.statements)) :]
    for _ in session.perform([Unit(work, (), statements, closing)]):
        pass


def _count(session, tables):
    if not tables:
        return []
    texts = [f"SELECT {n} AS number, count(*) AS rows FROM {table.sql}" for n, table in enumerate(tables)]
    return [row["rows"] for row in sorted(session.rows(" UNION ALL ".join(texts)), key=lambda row: row["number"])]


def _is_true(session, sql):
    """Whether the first value of a query's only row is true."""
    (row,) = session.rows(f"SELECT ({sql.rstrip().rstrip(';')}\n) IS TRUE AS holds")
    return row["holds"]


def _grown(work, tables, before, after, kind):
    for table, earlier, later in zip(tables, before, after):
        if later > earlier:
            yield _finding(work, kind, table.shown, later - earlier, None, None)


def _finding(work, kind, table, rows, message, line):
    return {"file": work.seed.file, "line": line, "kind": kind, "table": table, "rows": rows, "message": message}


def _place(finding):
    return f"{finding['file']}:{finding['line']}" if finding["line"] else finding["file"]


def _failed(database, work, failed):
    if failed.label is not work:
        # A count of ours or a +seed:verify: it has no place among the file's statements.
        return _finding(work, FAILS, None, None, f"{failed.error.message} (SQLSTATE {failed.error.sqlstate})", None)
    failure = seed_failure(database, failed)
    kind = NOT_IDEMPOTENT if failed.error.sqlstate in UNIQUE_VIOLATIONS else FAILS
    return _finding(work, kind, None, None, failure.message, failure.line)


def _report(works, findings, warnings):
    rows = [(_place(one), one["table"], one["kind"], one["rows"], one["message"]) for one in findings]
    bad = {one["file"] for one in findings}
    data = {"checked": [work.seed.file for work in works], "findings": findings}
    count = len(works)
    summary = f"{count} seed{'' if count == 1 else 's'} verified"
    if findings:
        summary = f"{len(bad)} of {count} seeds are not as they should be"
    table = Table(("seed", "table", "finding", "rows", "message"), rows)
    return Report(data, [table] if rows else [], summary, warnings, 1 if findings else 0)
