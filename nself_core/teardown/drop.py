"""What `drop` does, decided from the facts: which statements in which order, what is lost, what stands in the way."""

from __future__ import annotations

from collections import namedtuple

from nself_core.failures import CheckFailed
from nself_core.guard.requirements import COLUMN, FUNCTION, RELATIONSHIP, TABLE, TRACKED
from nself_core.output import bytes_text
from nself_core.plan import Plan, Step
from nself_core.sql.quoting import qualified
from nself_core.teardown.closure import RELATIONS

# In this order where nothing else decides: what is asked of others goes last.
VERBS = {
    "view": "DROP VIEW",
    "materialized view": "DROP MATERIALIZED VIEW",
    "routine": "DROP ROUTINE",
    "table": "DROP TABLE",
    "foreign table": "DROP FOREIGN TABLE",
    "sequence": "DROP SEQUENCE",
    "type": "DROP TYPE",
    "schema": "DROP SCHEMA",
}

# The records of what was run, which go too, so that `migrate up` starts anew; and what a person calls them.
RECORDS = (
    ("hdb_catalog", "schema_migrations", "migration"),
    ("nself_db", "migrations", "checksum"),
    ("nself_db", "seeds", "seed"),
)

MOST_SHOWN = 20  # lines of a kind in a question; the JSON has all

Facts = namedtuple("Facts", "closure rows size records api")
Facts.__doc__ = """What is known before it is dropped.

`closure`, a Closure; `rows`, numbers of rows by (schema, name); `size`, bytes of all tables; `records`, numbers of
rows by (schema, name) of those RECORDS that are there; `api`, the Requirements of Hasura's metadata, None where it may
not be read.
"""

Work = namedtuple("Work", "scope facts data")
Work.__doc__ = "What performs a drop needs the Scope, the Facts it was planned on, and the report's data."

Group = namedtuple("Group", "kind objects cascade if_exists")
Group.__doc__ = "Objects of one kind for one DROP, whether with CASCADE, and whether some may be gone by then."


def plan_drop(scope, facts, cascade=False, hint="drop them first, or let them go too with --cascade"):
    """The Plan of one transaction that drops what `scope` means and forgets what was run.

    Arguments: `facts`, Facts; `cascade`, whether what hangs on it goes too; `hint`, what to do where that stops it.
    Raises CheckFailed when something outside stands in the way. No step where there is nothing to drop.
    """
    closure = facts.closure
    check_outside(closure.outside, cascade, hint)
    data = _data(facts)
    groups = order_drops(closure.objects, closure.needs, cascade and bool(closure.outside))
    forgotten = [(place, count) for place, count in facts.records.items() if count]
    if not groups and not forgotten:
        return Plan((), nothing="nothing to drop: nothing has a managed prefix (see NSELF_TABLE_PREFIXES)", data=data)
    work = Work(scope, facts, data)
    steps = [_step(title, sql, work) for title, sql in (*_locks(closure.objects), *map(_dropped, groups))]
    steps += [_step(f"forget {_records_text(place, count)}", _sql_forget(place), work) for place, count in forgotten]
    return Plan(steps, loses=tuple(losses(facts)), asks_everywhere=True, data=data)


def _step(title, sql, work):
    return Step("drop", title, sql + ";", "transaction", True, work)


def check_outside(outside, cascade, hint):
    """Raise CheckFailed for what hangs on the managed objects and stops the drop.

    Arguments: `outside`, Outsides; `cascade`, whether they may go too, which those that are kept may never.
    """
    kept = [item.text for item in outside if item.kept]
    texts = kept if cascade else [item.text for item in outside]
    if not texts:
        return
    one = len(texts) == 1
    message = f"{len(texts)} thing{' that stays hangs' if one else 's that stay hang'} on what would be dropped"
    if kept:
        hint = "what is in auth, storage, hdb_*, cron or an extension is never dropped: take it away yourself first"
    raise CheckFailed(
        f"{message}; nothing was changed", hint, excerpt="\n".join("  " + line for line in _first(texts)),
        data={"outside": texts},
    )  # fmt: skip


# The order of the statements.


def order_drops(objects, needs, cascade=False):
    """The Groups in which `objects` can be dropped, each by one statement and without CASCADE where that is possible.

    Arguments: `needs`, (a, b): object number a hangs on number b, so b goes with a or after it; `cascade`, CASCADE in
    all. Where objects of several kinds hang on one another in a circle no order helps: the first kind goes with
    CASCADE, which takes nothing that is not to be dropped, for all that hangs on it is known.
    """
    left = {item.number: item for item in objects}
    hangs_on: dict = {number: [] for number in left}
    for one, other in needs:
        hangs_on[one].append(other)
    groups: list = []
    while left:
        chosen = _free(left, hangs_on)
        circle = not chosen
        if circle:
            kind = min((item.kind for item in left.values()), key=[*VERBS].index)
            chosen = [item for item in left.values() if item.kind == kind]
        if_exists = cascade or any(group.cascade for group in groups)
        groups.append(Group(chosen[0].kind, chosen, cascade or circle, if_exists))
        for item in chosen:
            del left[item.number]
    return groups


def _free(left, hangs_on):
    """All objects of one kind on which nothing of another kind hangs, directly or by way of others; [] if none."""
    for kind in VERBS:
        held = [number for number, item in left.items() if item.kind != kind]
        seen = set(held)
        while held:
            for other in hangs_on[held.pop()]:
                if other in left and other not in seen:
                    seen.add(other)
                    held.append(other)
        chosen = [item for item in left.values() if item.kind == kind and item.number not in seen]
        if chosen:
            return chosen
    return []


def _dropped(group):
    names = ", ".join(item.sql for item in group.objects)
    sql = f"{VERBS[group.kind]} {'IF EXISTS ' if group.if_exists else ''}{names}{' CASCADE' if group.cascade else ''}"
    return f"drop {_count(len(group.objects), group.kind)}", sql


def _locks(objects):
    """All locks at once and first: a table in use ends the drop before it has begun, and nobody can hang on it anew."""
    tables = [item.sql for item in objects if item.kind == "table"]
    if tables:
        yield f"lock {_count(len(tables), 'table')}", f"LOCK TABLE {', '.join(tables)} IN ACCESS EXCLUSIVE MODE"


def _sql_forget(place):
    return f"DELETE FROM {qualified(*place)}"


# What is lost, in words.


def losses(facts):
    """Lines that say what will be lost: objects, rows and bytes, what goes with them, what the API loses."""
    closure = facts.closure
    lines = []
    for kind in VERBS:
        chosen = [item for item in closure.objects if item.kind == kind]
        lines += [f"{_count(len(chosen), kind)}: " + ", ".join(_first(_named(chosen, facts.rows)))] if chosen else []
    tables = [item for item in closure.objects if item.kind == "table"]
    if tables:
        counted = f"{_count(sum(facts.rows.values()), 'row')}, {bytes_text(facts.size)}"
        lines.append(counted + _uncounted(tables, facts.rows))
    lines += [f"goes too: {text}" for text in _first([item.text for item in closure.outside])]
    if facts.api is None:
        lines.append("what the live API loses is not known: hdb_catalog.hdb_metadata may not be read")
    lines += [f"the live API loses {text}" for text in _first(api_losses(facts.api or (), closure.gone))]
    return lines + [_records_text(place, count) for place, count in facts.records.items() if count]


def _named(objects, rows):
    known = [rows.get((item.schema, item.name)) if item.kind == "table" else None for item in objects]
    return [item.shown + ("" if count is None else f" ({_count(count, 'row')})") for item, count in zip(objects, known)]


def _uncounted(tables, rows):
    names = [item.shown for item in tables if (item.schema, item.name) not in rows]
    return f"; not counted, for want of the right to read: {', '.join(_first(names))}" if names else ""


def api_losses(required, gone):
    """What of Hasura's metadata would have nothing to stand on: sorted texts.

    Arguments: `required`, Requirements; `gone`, a Closure's. What is missing with its whole table is not said apart.
    """
    tables = {(schema, name) for kind, schema, name in gone if kind in RELATIONS}
    routines = {(schema, name) for kind, schema, name in gone if kind == "routine"}
    lost = set()
    for item in required:
        table = (item.schema, item.table)
        if item.kind in (TABLE, TRACKED) and table in tables:
            lost.add(f"table {item.schema}.{item.table}")
        elif item.kind == FUNCTION and (item.schema, item.name) in routines:
            lost.add(f"function {item.schema}.{item.name}")
        elif item.kind == RELATIONSHIP and item.other in tables and table not in tables:
            lost.add(f"relationship {item.schema}.{item.table}.{item.name}")
        elif item.kind == COLUMN and table in tables and not item.why.endswith(f" {item.schema}.{item.table}"):
            lost.add(item.why)
    return sorted(lost)


def _records_text(place, count):
    word = next(word for schema, name, word in RECORDS if (schema, name) == place)
    return f"the record of {_count(count, word)} in {'.'.join(place)}"


def _first(texts):
    more = len(texts) - MOST_SHOWN
    return [*texts[:MOST_SHOWN], f"and {more} more"] if more > 0 else texts


def _count(number, word):
    return f"{number} {word}{'' if number == 1 else 's'}"


def _data(facts):
    closure = facts.closure
    return {
        "dropped": [
            {
                "kind": item.kind,
                "schema": item.schema,
                "name": item.name,
                "arguments": [".".join(type) for type in item.arguments],
                "rows": facts.rows.get((item.schema, item.name)) if item.kind == "table" else None,
            }
            for item in closure.objects
        ],
        "also_dropped": [item.text for item in closure.outside],
        "api_loses": api_losses(facts.api or (), closure.gone),
        "forgotten": facts.records.get(RECORDS[0][:2], 0),
    }
