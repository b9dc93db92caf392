"""Takes over a database that exists: records migrations as applied, running nothing."""

from __future__ import annotations

from nself_core.failures import CheckFailed, UsageFailure
from nself_core.migrations import ledger, survey
from nself_core.plan import Plan, Step
from nself_core.sql import statements as sql_statements
from nself_core.sql.quoting import identifier, qualified

SQL_ABSENT = """
SELECT wanted.name FROM pg_catalog.json_array_elements_text(:names) AS wanted (name)
WHERE pg_catalog.to_regclass(wanted.name) IS NULL ORDER BY wanted.name
"""


def plan_baseline(database, found, version, from_hasura, force):
    """The Plan that records every migration up to `version`, or every one Hasura's CLI knows.

    Arguments: `found`, a Survey; `version`, the last to record; `from_hasura`, take the versions from Hasura CLI's state;
    `force`, do not look whether the tables that the files create are there. Raises CheckFailed when one is absent.
    """
    wanted = _from_hasura(database, found) if from_hasura else _up_to(found, version)
    works = survey.read_ups([entry for entry in wanted if entry.migration])
    if not force:
        _check_tables(database, works)
    bare = [entry.version for entry in wanted if entry.migration is None]
    steps = [_step(work) for work in works] + [_bare_step(number) for number in bare]
    recorded = [str(entry.version) for entry in wanted]
    return Plan(steps, tuple(found.listing.warnings), "nothing to record: all of it is", {"recorded": recorded})


def _up_to(found, version):
    if version is None:
        raise UsageFailure("say up to which VERSION, or --from-hasura")
    survey.find_entry(found.entries, version)
    return [entry for entry in found.entries if entry.version <= version and entry.migration and entry.record is None]


def _from_hasura(database, found):
    known = ledger.read_hasura_versions(database, found.ledger.facts)
    if not known:
        raise CheckFailed("Hasura's CLI has recorded no migrations here", "is this the database that keeps Hasura's metadata?")
    by_version = {entry.version: entry for entry in found.entries}
    from nself_core.migrations.planning import PENDING, Entry

    wanted = [by_version.get(number, Entry(number, PENDING, None, None)) for number, dirty in sorted(known.items()) if not dirty]
    return [entry for entry in wanted if entry.record is None]


def _check_tables(database, works):
    """Refuse when a table that the files create, and none of them drops, is not there."""
    made = {}
    for work in works:
        for statement in work.script.statements:
            for schema, name in sql_statements.created_tables(statement):
                made[qualified(schema, name) if schema else identifier(name)] = work.migration.file
            for dropped in _dropped(statement, made):
                made.pop(dropped, None)
    absent = [row["name"] for row in database.rows(SQL_ABSENT, names=sorted(made))] if made else []
    if absent:
        raise CheckFailed(
            f"{len(absent)} table(s) that these migrations create are not in the database: {', '.join(absent[:10])}",
            "apply the migrations instead, or record them all the same with --force",
            data={"absent": absent},
        )


def _dropped(statement, made):
    """The names in `made` that a DROP or RENAME of a table speaks of: these need not be there any more."""
    words = sql_statements.first_words(statement, 2)
    if words[:2] == ("DROP", "TABLE") or (words[:2] == ("ALTER", "TABLE") and "RENAME" in statement.text.upper()):
        text = statement.text.lower()
        return [name for name in made if name.rpartition(".")[2].strip('"').lower() in text]
    return []


def _step(work):
    migration = work.migration
    texts = ledger.sql_applied(migration, work.script.mode, len(work.script.statements), ledger.locked(work.checksum))
    return _record_step(migration.version, migration.file, texts)


def _bare_step(number):
    text = f"INSERT INTO hdb_catalog.schema_migrations (version, dirty) VALUES ({int(number)}, false) ON CONFLICT DO NOTHING"
    return _record_step(number, f"version {number}, which has no file", (text,))


def _record_step(number, title, texts):
    work = {"texts": texts, "data": {}, "summary": f"recorded {title}", "version": str(number)}
    return Step("sql", f"record {title} as applied", ";\n".join(texts) + ";", "transaction", False, work)
