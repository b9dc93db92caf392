"""What `migrate status` and `migrate verify-checksums` show."""

from __future__ import annotations

from nself_core.failures import CredentialsRefused, SqlFailure, Unreachable
from nself_core.migrations import ledger
from nself_core.migrations.planning import APPLIED, CHANGED, MISSING, STATES
from nself_core.migrations.survey import survey
from nself_core.output import Report, Table


def read_state(settings, database):
    """The Survey of one environment and the warnings that belong to it."""
    found = survey(settings, database)
    hasura = ledger.read_hasura_versions(database, found.ledger.facts)
    return found, [*found.listing.warnings, *hasura_warnings(found, hasura)]


def hasura_warnings(found, hasura):
    """What to say when Hasura CLI's own state knows versions that the table does not."""
    lacking = sorted(set(hasura) - set(found.ledger.records))
    whole = [version for version in lacking if not hasura[version]]
    half = [version for version in lacking if hasura[version]]
    warnings = (
        [
            f"Hasura's CLI has recorded {len(whole)} version(s) that schema_migrations lacks: {_versions(whole)}; "
            "take them over with: nself-db migrate baseline --from-hasura"
        ]
        if whole
        else []
    )
    return warnings + ([f"Hasura's CLI has left half done (dirty): {_versions(half)}"] if half else [])


def _versions(versions):
    return ", ".join(str(version) for version in versions[:10]) + (" …" if len(versions) > 10 else "")


def report(found, warnings, exit_code):
    """The Report of one environment; `exit_code`, whether anything not applied means exit 1."""
    rows = [entry_data(entry) for entry in found.entries]
    counts = counts_of(rows)
    table = Table(
        ("version", "name", "state", "applied at"),
        [(row["version"], row["name"], _state_text(row), row["applied_at"]) for row in rows],
    )
    code = 1 if exit_code and any(row["state"] != APPLIED for row in rows) else 0
    return Report({"migrations": rows, "counts": counts}, [table] if rows else [], summary(counts), warnings, code)


def _state_text(row):
    return row["state"].replace("_", " ")


def entry_data(entry):
    """One version as `data.migrations` has it."""
    record, migration = entry.record, entry.migration
    return {
        "version": str(entry.version),
        "name": migration.name if migration else (record.name or ""),
        "file": migration.file if migration else (record.file or None),
        "state": entry.state,
        "applied_at": record.applied_at if record else None,
        "duration_ms": record.duration_ms if record else None,
    }


def counts_of(rows):
    """How many rows are in each state; every state is named."""
    states = [row["state"] for row in rows]
    return {state: states.count(state) for state in STATES}


def summary(counts):
    """The counts in words; states that nothing is in are left out."""
    parts = [f"{number} {state.replace('_', ' ')}" for state, number in counts.items() if number]
    return ", ".join(parts) or "no migrations"


def compare(settings, database, other, exit_code):
    """The Report of a named environment beside the active one.

    Arguments: `other`, the active environment's (settings, Database). Where it cannot be reached or read, the
    comparison is left out with a warning.
    """
    found, warnings = read_state(settings, database)
    rows = [entry_data(entry) for entry in found.entries]
    other_settings, other_database = other
    try:
        theirs = {row["version"]: row for row in map(entry_data, survey(other_settings, other_database).entries)}
    except (Unreachable, CredentialsRefused, SqlFailure) as failure:
        warnings.append(f"environment {other_settings.env} could not be compared: {failure.message}")
        theirs = None
    if theirs is not None and database.where == other_database.where:
        warnings.append(f"{settings.env} and {other_settings.env} are the same database: {database.where}")
    data = {"migrations": rows, "counts": counts_of(rows), "compared_with": _compared(other_settings.env, rows, theirs)}
    table = Table(
        ("version", "name", settings.env, other_settings.env, "applied at"),
        [(row["version"], row["name"], _state_text(row), _their_state(theirs, row), row["applied_at"]) for row in rows],
    )
    code = 1 if exit_code and any(row["state"] != APPLIED for row in rows) else 0
    return Report(data, [table] if rows else [], _compare_summary(data), warnings, code)


def _their_state(theirs, row):
    if theirs is None:
        return "?"
    return _state_text(theirs[row["version"]]) if row["version"] in theirs else "unknown"


def _compared(env, rows, theirs):
    if theirs is None:
        return {"env": env, "reachable": False, "differs": []}
    ours = {row["version"]: row["state"] for row in rows}
    versions = sorted({*ours, *theirs}, key=int)
    differs = [v for v in versions if ours.get(v) != (theirs[v]["state"] if v in theirs else None)]
    return {"env": env, "reachable": True, "differs": differs}


def _compare_summary(data):
    compared = data["compared_with"]
    if not compared["reachable"]:
        return summary(data["counts"])
    count = len(compared["differs"])
    same = (
        "no difference from"
        if not count
        else f"{count} version{'' if count == 1 else 's'} differ{'s' if count == 1 else ''} from"
    )
    return f"{summary(data['counts'])}; {same} {compared['env']}"


def checksum_report(found, warnings):
    """The Report of `verify-checksums`: applied files that changed or vanished; exit 1 when there is one."""
    wrong = [entry for entry in found.entries if entry.state in (CHANGED, MISSING)]
    unknown = [entry for entry in found.entries if entry.state == APPLIED and entry.record.checksum is None]
    checked = sum(entry.state in (APPLIED, CHANGED, MISSING) for entry in found.entries) - len(unknown)
    rows = [{"version": str(entry.version), "file": entry_data(entry)["file"], "state": entry.state} for entry in wrong]
    warnings = [
        *warnings,
        *(f"version {entry.version} was recorded by another tool: it has no checksum" for entry in unknown),
    ]
    table = Table(("version", "file", "state"), [(row["version"], row["file"], row["state"]) for row in rows])
    summary_text = f"{len(wrong)} of {checked} applied files changed or vanished" if wrong else _unchanged(checked)
    return Report(
        {"checked": checked, "wrong": rows}, [table] if rows else [], summary_text, warnings, 1 if wrong else 0
    )


def _unchanged(count):
    return f"{count} applied file{'' if count == 1 else 's'} unchanged"
