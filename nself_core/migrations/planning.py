"""What `up`, `down`, `status`, `baseline` and `repair` mean for given files and a given ledger: pure decisions."""

from __future__ import annotations

from collections import namedtuple

from nself_core.failures import CheckFailed, FileFailure, UsageFailure
from nself_core.plan import Plan, Step

APPLIED, PENDING, OUT_OF_ORDER, MISSING, CHANGED, DIRTY = (
    "applied",
    "pending",
    "out_of_order",
    "missing",
    "changed",
    "dirty",
)
STATES = (APPLIED, PENDING, OUT_OF_ORDER, MISSING, CHANGED, DIRTY)

Entry = namedtuple("Entry", "version state migration record")
Entry.__doc__ = (
    "One version: its `state`, its `migration` (None when the file is gone) and `record` (None when unknown)."
)

Work = namedtuple("Work", "migration script direction checksum text")
Work.__doc__ = "A migration to run: its Script, `direction` up or down, its up file's `checksum`, the file's `text`."


def list_entries(migrations, ledger, checksum_of):
    """Every version that files or the ledger know, ascending, with its state.

    Arguments: `migrations`, sorted; `checksum_of(migration)`, its file's checksum, asked only where one is stored.
    """
    by_version = {migration.version: migration for migration in migrations}
    highest = max(ledger.applied, default=None)
    return [
        _entry(version, by_version.get(version), ledger.records.get(version), highest, checksum_of)
        for version in sorted({*by_version, *ledger.records})
    ]


def _entry(version, migration, record, highest, checksum_of):
    if record is None:
        late = highest is not None and version < highest
        return Entry(version, OUT_OF_ORDER if late else PENDING, migration, None)
    if record.dirty:
        return Entry(version, DIRTY, migration, record)
    if migration is None:
        return Entry(version, MISSING, None, record)
    same = record.checksum is None or record.checksum == checksum_of(migration)
    return Entry(version, APPLIED if same else CHANGED, migration, record)


def choose_up(entries, count=None, to=None, allow_out_of_order=False, strict=False):
    """The entries that `migrate up` runs, ascending, and the warnings that go with them.

    Arguments: `count`, at most so many; `to`, the last version to apply. Raises CheckFailed for versions out of order,
    for files half rolled back, and under `strict` for applied files that have changed.
    """
    _check_target(entries, to)
    warnings = _drift_warnings(entries, strict)
    wanted = [
        entry
        for entry in entries
        if entry.state in (PENDING, OUT_OF_ORDER, DIRTY) and (to is None or entry.version <= to)
    ]
    for entry in wanted:
        _check_resumable(entry, "up")
    late = [entry for entry in wanted if entry.state == OUT_OF_ORDER]
    if late and not allow_out_of_order:
        raise CheckFailed(
            f"{_count(late, 'migration is', 'migrations are')} older than the newest applied one: " + _names(late),
            "give them a newer version, or apply them with --allow-out-of-order",
            data={"out_of_order": [str(entry.version) for entry in late]},
        )
    return wanted[:count], warnings


def choose_down(entries, count=None, to=None):
    """The entries that `migrate down` undoes, the latest first.

    Arguments: `count`, how many (1 when nothing is given), or `to`, the version that stays applied. Raises FileFailure,
    before anything runs, when one has no down file.
    """
    if count is not None and to is not None:
        raise UsageFailure("say either --count N or --to VERSION, not both")
    _check_target(entries, to)
    known = [entry for entry in entries if entry.record is not None]
    if to is not None and not any(entry.version == to for entry in known):
        raise UsageFailure(f"version {to} is not applied, so there is nothing to go down to")
    chosen = [entry for entry in reversed(known) if to is None or entry.version > to]
    chosen = chosen[: count or 1] if to is None else chosen
    for entry in chosen:
        _check_resumable(entry, "down")
        _check_down_file(entry)
    return chosen


def _check_down_file(entry):
    if entry.migration is None:
        raise FileFailure(
            f"the files of applied version {entry.version} are gone, so it cannot be rolled back",
            f"bring the files back, or forget the version: migrate repair --migration {entry.version} --pending",
        )
    if entry.migration.down_path is None:
        raise FileFailure("there is no down file for this migration", "write one beside it", file=entry.migration.file)


def _check_resumable(entry, direction):
    record = entry.record
    if entry.state != DIRTY:
        return
    repair = f"settle it with: nself-db migrate repair --migration {entry.version} --applied (or --pending)"
    if entry.migration is None:
        raise CheckFailed(f"version {entry.version} was left half done and its file is gone", repair)
    if _left_by_another_tool(record):
        raise CheckFailed(
            f"version {entry.version} was left half done by another tool (dirty in schema_migrations)",
            repair,
            file=entry.migration.file,
        )
    if record.direction != direction:
        done = "half rolled back" if record.direction == "down" else "half applied"
        other = "down" if record.direction == "down" else "up"
        raise CheckFailed(
            f"version {entry.version} is {done}: {record.statements_done} of {record.statements} statements",
            f"finish it with: nself-db migrate {other}; or {repair}",
            file=entry.migration.file,
        )


def _left_by_another_tool(record):
    """Whether a dirty version is none of ours: we leave only files outside a transaction dirty, and with a hash of
    what is done until all of it is recorded."""
    finished = record.statements and record.statements_done == record.statements and record.prefix_hash is None
    return record.mode != "no_transaction" or bool(finished)


def check_resumed(entry, script):
    """Refuse a half-done file that cannot go on where it stopped, for its done statements would run again or be lost.

    Arguments: `entry`, with its record; `script`, what its file says now. Raises CheckFailed.
    """
    if entry.state != DIRTY:
        return
    record, count = entry.record, len(script.statements)
    begun = max(record.statements_done or 0, record.started or 0)
    if not begun or (script.mode == "no_transaction" and begun <= count):
        return
    now = "it would run in one now" if script.mode != "no_transaction" else f"the file has only {count} now"
    raise CheckFailed(
        f"{record.statements_done} of {record.statements} statements of this file are done outside a transaction, "
        f"and {now}",
        f"put the file back as it was, or settle it: nself-db migrate repair --migration {entry.version} --applied "
        "(or --pending)",
        file=script.file,
    )


def _check_target(entries, to):
    if to is not None and not any(entry.version == to for entry in entries):
        raise UsageFailure(f"no migration has version {to}", "see: nself-db migrate status")


def _drift_warnings(entries, strict):
    changed = [entry for entry in entries if entry.state == CHANGED]
    missing = [entry for entry in entries if entry.state == MISSING]
    if changed and strict:
        raise CheckFailed(
            f"{_count(changed, 'applied file has', 'applied files have')} changed since: " + _names(changed),
            "restore the file, or accept it: nself-db migrate reset-checksum --migration VERSION",
            data={"changed": [str(entry.version) for entry in changed]},
        )
    warnings = [f"{entry.migration.file} has changed since it was applied" for entry in changed]
    return warnings + [
        f"version {entry.version} ({entry.record.name or 'recorded by Hasura'}) is applied, but its file is gone"
        for entry in missing
    ]


def _names(entries):
    shown = [entry.migration.file if entry.migration else str(entry.version) for entry in entries[:20]]
    return ", ".join(shown) + (f" and {len(entries) - 20} more" if len(entries) > 20 else "")


def _count(items, one, more):
    return f"{len(items)} {one if len(items) == 1 else more}"


def plan_run(works, warnings, verb):
    """The Plan that runs `works` in order; `verb` is "apply" or "roll back"."""
    steps = [
        Step("migration", f"{verb} {work.script.file}", work.text, _mode_of(work.script), verb != "apply", work)
        for work in works
    ]
    return Plan(
        steps,
        tuple(warnings),
        "nothing to apply" if verb == "apply" else "nothing to roll back",
        {"applied" if verb == "apply" else "rolled_back": []},
        _losses(works, verb),
    )


def _losses(works, verb):
    return () if verb == "apply" else tuple(f"{work.migration.file} is rolled back" for work in works)


def _mode_of(script):
    return f"{script.mode}: {script.reason}" if script.reason else script.mode
