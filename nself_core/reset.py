"""`reset`: what `drop`, `migrate up` and `seed run` do, one after the other, as one plan.

It joins two groups and so stands above them. All files are read and split before anything is dropped, and so is what
the drop would leave standing that the same files make again.
"""

from __future__ import annotations

from collections import namedtuple

from nself_core.bookkeeping.protection import refuse_protected
from nself_core.failures import CheckFailed, Failure, Refused
from nself_core.migrations import planning, survey
from nself_core.plan import Plan
from nself_core.sql.statements import created_name
from nself_core.teardown import drop, perform
from nself_core.teardown.closure import RELATIONS, Scope, is_kept

# The objects of the database that have one of the names. An unqualified name means the search_path's schemas, or one
# that the files themselves made: a file may have set its own search_path.
SQL_THERE = """
WITH wanted AS (
    SELECT * FROM pg_catalog.json_to_recordset(:names)
        AS item(kind pg_catalog.text, schema pg_catalog.text, name pg_catalog.text)
), thing AS (
    SELECT 'relation' AS kind, c.relnamespace AS space, c.relname::pg_catalog.text AS name FROM pg_catalog.pg_class c
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    UNION ALL SELECT 'routine', p.pronamespace, p.proname FROM pg_catalog.pg_proc p
    UNION ALL SELECT 'type', t.typnamespace, t.typname FROM pg_catalog.pg_type t
)
SELECT DISTINCT thing.kind, n.nspname AS schema, thing.name
FROM wanted JOIN thing ON thing.kind = wanted.kind AND thing.name = wanted.name
    JOIN pg_catalog.pg_namespace n ON n.oid = thing.space
WHERE CASE WHEN wanted.schema IS NOT NULL THEN n.nspname = wanted.schema
      ELSE n.nspname = ANY (pg_catalog.current_schemas(false))
           OR n.nspname IN (SELECT wanted.name FROM wanted WHERE wanted.kind = 'schema') END
UNION SELECT 'schema', n.nspname, n.nspname FROM pg_catalog.pg_namespace n
    JOIN wanted ON wanted.kind = 'schema' AND wanted.name = n.nspname
UNION SELECT 'extension', '', e.extname FROM pg_catalog.pg_extension e
    JOIN wanted ON wanted.kind = 'extension' AND wanted.name = e.extname
ORDER BY 1, 2, 3
"""

Made = namedtuple("Made", "kind schema name repeatable")
Made.__doc__ = "An object that is there under a name that an applied file makes; fields as Creation's, `schema` known."


def refuse_prod(settings):
    """Raise Refused in prod: nothing overrides it."""
    if settings.is_prod:
        raise Refused(
            "reset is never done in prod; nothing was changed",
            "restore a backup, or drop and migrate step by step",
        )


def plan_reset(settings, database, everything, tell):
    """The Plan that drops what is managed and applies every migration anew; and the ledger's facts, for the reload.

    Arguments: `everything`, whether all of what the applied files made goes, managed or not; `tell(text)`, progress.
    Raises Refused where the database is protected, FileFailure for a file that cannot run, CheckFailed for what would
    be left of what the files made.
    """
    refuse_protected(database)
    found = survey.survey(settings, database)
    entries = [planning.Entry(item.version, planning.PENDING, item, None) for item in found.listing.migrations]
    works = survey.read_ups(entries)
    applied = {entry.version for entry in found.entries if entry.record is not None}
    creations = _creations(work.script for work in works if work.migration.version in applied)
    made = find_made(database, creations)
    scope = _scope(settings.prefixes, made if everything else [])
    facts = perform.read_facts(database, scope, tell)
    if facts.records.get(("hdb_catalog", "schema_migrations"), 0) != len(found.ledger.records):
        raise CheckFailed("another run is changing the database; nothing was dropped", "run it again when it has ended")
    check_left(made, facts.closure.gone, everything)
    hint = "drop them first, or run: nself-db drop --cascade, then: nself-db migrate up"
    dropping = drop.plan_drop(scope, facts, hint=hint)
    run = planning.plan_run(works, [*found.listing.warnings, *_missing(found.entries)], "apply")
    return join(dropping, run), found.ledger.facts


NO_SEEDS = Plan(())


def join(first, second):
    """The Plan of both, one after the other; what is lost is lost by the first."""
    return Plan(
        [*first.steps, *second.steps],
        (*first.warnings, *second.warnings),
        "nothing to drop and nothing to apply",
        {**(first.data or {}), **(second.data or {})},
        first.loses,
        True,
    )


def _missing(entries):
    return [
        f"version {entry.version} is applied, but its file is gone: what it did will not be done again"
        for entry in entries
        if entry.state == planning.MISSING
    ]


def _creations(scripts):
    """What the files make, each once; what one of them makes unconditionally is not repeatable."""
    found: dict = {}
    for script in scripts:
        for statement in script.statements if script.mode != "self_test" else ():
            item = created_name(statement)
            if item:
                key = item[:3]
                found[key] = item._replace(repeatable=item.repeatable and found.get(key, item).repeatable)
    return list(found.values())


def find_made(database, creations):
    """The Made objects: those of `creations` that are in the database now."""
    if not creations:
        return []
    names = [{"kind": item.kind, "schema": item.schema, "name": item.name} for item in creations]
    rows = database.rows(SQL_THERE, names=names)
    return [Made(row["kind"], row["schema"], row["name"], _is_repeatable(row, creations)) for row in rows]


def _is_repeatable(row, creations):
    return all(
        item.repeatable
        for item in creations
        if (item.kind, item.name) == (row["kind"], row["name"]) and item.schema in (None, row["schema"])
    )


def _scope(prefixes, made):
    """The Scope of the drop: with `made` also the schemas that the files filled, and those that they surely made."""
    usual = [item for item in made if item.kind != "extension" and not is_kept(item.schema)]
    emptied = sorted({item.schema for item in usual if item.kind != "schema"})
    # IF NOT EXISTS may have found another's schema, and does no harm where it stays.
    whole = sorted({item.name for item in usual if item.kind == "schema" and not item.repeatable})
    return Scope(prefixes, bool(made), tuple(emptied), tuple(whole))


def check_left(made, gone, everything):
    """Raise CheckFailed for what the files made and the drop leaves: they would fail on it, or find its old rows.

    Arguments: `made`, Made objects; `gone`, a Closure's; `everything`, whether --all was given.
    """
    names = {("relation" if kind in RELATIONS else kind, schema, name) for kind, schema, name in gone}
    left = [item for item in made if item[:3] not in names and not _does_no_harm(item)]
    if not left:
        return
    texts = [_told(item) for item in left]
    never = [item for item in left if everything or item.kind == "extension" or is_kept(item.schema)]
    hint = "drop them too, with all else in their schemas: nself-db reset --all"
    if never:
        hint = f"write IF NOT EXISTS, or take it away yourself: {_told(never[0])} is never dropped"
    raise CheckFailed(
        f"{len(left)} object{'' if len(left) == 1 else 's'} that applied migrations made would be left, for no managed "
        "prefix covers them (see NSELF_TABLE_PREFIXES); nothing was changed",
        hint,
        excerpt="\n".join("  " + text for text in texts[: drop.MOST_SHOWN]),
        data={"left": texts},
    )


def _does_no_harm(item):
    """Whether a name may stay for the files to run again, as far as reset is concerned."""
    return item.repeatable and (item.kind in ("schema", "extension") or is_kept(item.schema))


def _told(item):
    place = "" if item.kind in ("schema", "extension") else f"{item.schema}."
    return f"{item.kind} {place}{item.name}"


AGAIN = {"migration": "nself-db migrate up && nself-db seed run", "seed": "nself-db seed run"}


def told_after_drop(performers):
    """`performers` as they are, but that a failure behind the drop says what is done, and how to go on.

    Arguments: `performers`, by kind, with "drop", "migration" and "seed".
    """
    done: dict = {}

    def told(kind):
        def perform(steps):
            try:
                report = performers[kind](steps)
            except Failure as failure:
                raise _with_done(failure, done, kind) from None
            done.update(report.data)
            return report

        return perform

    return {**performers, **{kind: told(kind) for kind in ("drop", "migration", "seed")}}


def _with_done(failure, done, kind):
    """The failure with what was done before it; as it is, where nothing was."""
    if not done or kind not in AGAIN:
        return failure
    failure.message += "; the drop before it is done"
    again = f"mend it, then go on with: {AGAIN[kind]}"
    failure.hint = f"{failure.hint}; {again}" if failure.hint else again
    failure.data = {**done, **(failure.data or {})}
    return failure
