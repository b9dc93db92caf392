"""What `seed list` shows: every seed with its tags, what it depends on, and whether it ran."""

from __future__ import annotations

from nself_core.output import Report, Table
from nself_core.seeds.files import find_dependency, is_for
from nself_core.seeds.ledger import APPLIED, CHANGED, OTHER_ENV, PENDING, state_of

STATES = (APPLIED, CHANGED, PENDING, OTHER_ENV)


def report(listing, records, env):
    """The Report of `seed list`; `records`, by file; `env`, the environment's name."""
    rows = [_row(seed, listing, records.get(seed.file), env) for seed in listing.seeds]
    table = Table(
        ("seed", "kind", "tags", "state", "applied at"),
        [(row["file"], row["kind"], row["tags"], row["state"].replace("_", " "), row["applied_at"]) for row in rows],
    )
    states = [row["state"] for row in rows]
    counts = {state: states.count(state) for state in STATES}
    parts = [f"{count} {state.replace('_', ' ')}" for state, count in counts.items() if count]
    data = {"seeds": rows, "counts": counts}
    return Report(data, [table] if rows else [], ", ".join(parts) or "no seeds", listing.warnings)


def _row(seed, listing, record, env):
    return {
        "file": seed.file,
        "kind": seed.kind,
        "tags": list(seed.tags),
        "depends_on": [find_dependency(seed, said, listing.seeds).file for said in seed.head.depends],
        "state": state_of(seed, record, is_for(seed, env)),
        "applied_at": record.applied_at if record else None,
    }
