"""Changes to the ledger that run no migration: repair, reset-checksum, and what performs them."""

from __future__ import annotations

from nself_core.bookkeeping import lock
from nself_core.failures import CheckFailed, UsageFailure
from nself_core.migrations import ledger, survey
from nself_core.migrations.planning import DIRTY
from nself_core.output import Report
from nself_core.plan import Plan, Step
from nself_core.sql.script import prefix_hash


def choose(applied, pending, done, undone):
    """Which of repair's four ways was asked for, as (way, number). Raises UsageFailure unless it is exactly one."""
    given = [
        (way, value)
        for way, value in (
            ("applied", applied),
            ("pending", pending),
            ("statement_done", done),
            ("statement_undone", undone),
        )
        if value
    ]
    if len(given) != 1:
        raise UsageFailure("say exactly one of --applied, --pending, --statement-done K, --statement-undone K")
    return given[0]


def plan_reset_checksum(found, version):
    """The Plan that stores the present checksum of an applied file."""
    entry = survey.find_entry(found.entries, version)
    if entry.record is None:
        raise UsageFailure(f"version {version} is not applied, so it has no checksum")
    if entry.migration is None:
        raise CheckFailed(f"the file of version {version} is gone", "bring it back first")
    if entry.state == DIRTY:
        raise CheckFailed(
            f"version {version} is half done", "finish it, or settle it with migrate repair", file=entry.migration.file
        )
    now = survey.checksum_of(entry.migration)
    if entry.record.checksum == now:
        return Plan((), nothing=f"the checksum of {entry.migration.file} is right already", data={"migration": None})
    texts = (ledger.sql_checksum(version, now),)
    if entry.record.checksum is None:
        (found_now,) = survey.read_recordings([entry])
        texts = ledger.sql_recorded(entry.migration, found_now.mode, len(found_now.statements), now)
    title = f"accept the present text of {entry.migration.file}"
    work = {
        "texts": texts,
        "seen": (version, entry.record),
        "data": {"migration": str(version), "checksum": now},
        "summary": f"checksum of {entry.migration.file} reset",
    }
    return Plan([Step("sql", title, ";\n".join(texts) + ";", "transaction", True, work)], loses=(title,))


def plan_repair(found, version, choice):
    """The Plan that settles one version: recorded as applied, forgotten, or a statement decided."""
    entry = survey.find_entry(found.entries, version)
    way, number = choice
    make = {"applied": _applied, "pending": _pending, "statement_done": _statement, "statement_undone": _statement}[way]
    texts, title = make(entry, way, number)
    if not texts:
        return Plan((), nothing=title, data={"migration": str(version), "repaired": None})
    data = {"migration": str(version), "repaired": way}
    work = {"texts": texts, "seen": (version, entry.record), "data": data, "summary": title}
    return Plan([Step("sql", title, ";\n".join(texts) + ";", "transaction", True, work)], loses=(title,))


def _applied(entry, way, number):
    title = f"version {entry.version} recorded as applied"
    if entry.record is not None and not entry.record.dirty:
        return (), f"version {entry.version} is applied already"
    if entry.migration is None:
        return (ledger.sql_clean(entry.version),), title
    (read,) = survey.read_recordings([entry])
    return ledger.sql_recorded(entry.migration, read.mode, len(read.statements), read.checksum), title


def _pending(entry, way, number):
    if entry.record is None:
        return (), f"version {entry.version} is pending already"
    texts = (*ledger.sql_forgotten(entry.version), ledger.sql_gone(entry.version))
    return texts, f"version {entry.version} recorded as pending"


def _statement(entry, way, number):
    record = entry.record
    if entry.state != DIRTY or record.started is None or entry.migration is None:
        raise UsageFailure(
            f"version {entry.version} has no statement that needs a decision", "see: nself-db migrate status"
        )
    if number != record.started:
        raise UsageFailure(f"the statement that needs a decision is {record.started}, not {number}")
    if way == "statement_undone":
        return (ledger.sql_not_started(entry.version),), f"statement {number} of version {entry.version} will run again"
    statements = _statements(entry)
    _check_prefix(entry, statements)
    text = ledger.sql_done(entry.version, number, prefix_hash(statements, number))
    return (text,), f"statement {number} of version {entry.version} counts as done"


def _statements(entry):
    read = survey.read_ups if entry.record.direction == "up" else survey.read_downs
    return read([entry])[0].script.statements


def _check_prefix(entry, statements):
    """Refuse to decide on a statement of a file that is not the one that was run so far."""
    record = entry.record
    same = len(statements) == record.statements
    if not same or (record.statements_done and prefix_hash(statements, record.statements_done) != record.prefix_hash):
        raise CheckFailed(
            f"the file has changed since {record.statements_done} of its {record.statements} statements were done",
            "put it back as it was, or settle the whole of it with --applied or --pending",
            file=entry.migration.file,
        )


def perform(database, steps, tell):
    """Run the steps' texts in one transaction under the migration lock and return the Report."""
    lock.take_lock(database, 0, tell)
    known = ledger.read_ledger(database)
    for version, record in (step.work["seen"] for step in steps):
        if known.records.get(version) != record:
            raise CheckFailed(f"version {version} was changed by another run meanwhile", "see: nself-db migrate status")
    texts = [text for step in steps for text in step.work["texts"]]
    database.execute("BEGIN", *ledger.sql_create(known.facts), *texts, "COMMIT")
    data: dict = {}
    for step in steps:
        data.update(step.work["data"])
    lines = [step.work["summary"] for step in steps]
    if len(lines) == 1:
        return Report(data, (), lines[0])
    return Report(data, lines, f"{len(lines)} versions recorded as applied")
