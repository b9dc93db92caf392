"""Takes over a database that exists: records migrations as applied, running nothing."""

from __future__ import annotations

from nself_core.failures import CheckFailed, UsageFailure
from nself_core.migrations import ledger, survey
from nself_core.migrations.planning import DIRTY, PENDING, Entry
from nself_core.plan import Plan, Step
from nself_core.sql import statements as sql_statements
from nself_core.sql.quoting import qualified

SQL_ABSENT = """
SELECT wanted.name FROM pg_catalog.json_array_elements_text(:names) AS wanted (name)
WHERE pg_catalog.to_regclass(wanted.name) IS NULL ORDER BY wanted.name
"""


def plan_baseline(database, found, version, from_hasura, force):
    """The Plan that records every migration up to `version`, or every one that Hasura's CLI has applied.

    Arguments: `found`, a Survey; `version`, the last to record, or None with `from_hasura`; `force`, do not look
    whether the tables that the files create are there. Raises UsageFailure unless exactly one way was said, CheckFailed
    when a table is absent.
    """
    if (version is None) != bool(from_hasura):
        raise UsageFailure("say either up to which VERSION, or --from-hasura")
    wanted, warnings = _from_hasura(database, found) if from_hasura else _up_to(found, version)
    recordings = survey.read_recordings([entry for entry in wanted if entry.migration])
    warnings += [_unread(recording) for recording in recordings if recording.problem]
    if not force:
        _check_tables(database, recordings)
    steps = [_step(recording) for recording in recordings]
    steps += [_bare_step(entry.version) for entry in wanted if entry.migration is None]
    recorded = [str(entry.version) for entry in wanted]
    return Plan(steps, (*found.listing.warnings, *warnings), "nothing to record: all of it is", {"recorded": recorded})


def _up_to(found, version):
    """The entries to record and the warnings: a version that is half done stays so."""
    survey.find_entry(found.entries, version)
    entries = [entry for entry in found.entries if entry.version <= version]
    half = [
        f"version {entry.version} is half done and stays so: settle it with migrate repair"
        for entry in entries
        if entry.state == DIRTY
    ]
    return [entry for entry in entries if entry.migration and entry.record is None], half


def _from_hasura(database, found):
    known = ledger.read_hasura_versions(database, found.ledger.facts)
    if not known:
        raise CheckFailed(
            "Hasura's CLI has recorded no migrations here", "is this the database that keeps Hasura's metadata?"
        )
    by_version = {entry.version: entry for entry in found.entries}
    entries = [by_version.get(number, Entry(number, PENDING, None, None)) for number in sorted(known)]
    lacking = [entry for entry in entries if entry.record is None]
    half = [
        f"version {entry.version} is not taken over, for Hasura's CLI has left it half done (dirty)"
        for entry in lacking
        if known[entry.version]
    ]
    return [entry for entry in lacking if not known[entry.version]], half


def _unread(recording):
    problem = recording.problem
    return f"{problem.place}: {problem.message}; recorded all the same, without a look at its tables"


def _check_tables(database, recordings):
    """Refuse when a table that is there once the files have run is not in the database."""
    kept = [recording for recording in recordings if recording.mode != "self_test"]
    tables = _left_tables(statement for recording in kept for statement in recording.statements)
    names = sorted(qualified(schema, name) for schema, name in tables)
    absent = [row["name"] for row in database.rows(SQL_ABSENT, names=names)] if names else []
    if absent:
        raise CheckFailed(
            f"{len(absent)} table(s) that these migrations create are not in the database: {', '.join(absent[:10])}",
            "apply the migrations instead, or record them all the same with --force",
            data={"absent": absent},
        )


def _left_tables(statements):
    """The tables, as (schema or None, name), that `statements` create and leave under that name."""
    tables = set()
    for statement in statements:
        tables.update(sql_statements.created_tables(statement))
        words = sql_statements.first_words(statement, 2)
        if words in (("DROP", "TABLE"), ("DROP", "SCHEMA"), ("ALTER", "TABLE")):
            tokens = list(statement.tokens)[2:]
            tables = {table for table in (_after(words, tokens, table) for table in tables) if table}
    return tables


def _after(words, tokens, table):
    """What becomes of `table` in a DROP or ALTER with these tokens: itself, its new name, or None."""
    schema, name = table
    spelled = [_spelled(token) for token in tokens]
    if words == ("DROP", "SCHEMA"):
        return None if schema in spelled else table
    if words == ("DROP", "TABLE"):
        return None if name in spelled else table
    keywords = [token.keyword for token in tokens]
    for place, pair in enumerate(zip(keywords, keywords[1:])):
        if pair in (("RENAME", "TO"), ("SET", "SCHEMA")) and name in spelled[:place]:
            new = spelled[place + 2]
            return (schema, new) if pair[0] == "RENAME" else (new, name)
    return table


def _spelled(token):
    """A token's text as the catalogue spells it, were it a name."""
    text = token.text
    return text[1:-1].replace('""', '"') if token.kind == "quoted" and text[0] == '"' else text.lower()


def _step(recording):
    migration = recording.migration
    texts = ledger.sql_recorded(migration, recording.mode, len(recording.statements), recording.checksum)
    return _record_step(migration.version, migration.file, texts)


def _bare_step(number):
    text = (
        f"INSERT INTO hdb_catalog.schema_migrations (version, dirty) VALUES ({int(number)}, false) "
        "ON CONFLICT DO NOTHING"
    )
    return _record_step(number, f"version {number}, which has no file", (text,))


def _record_step(version, title, texts):
    work = {"texts": texts, "seen": (version, None), "data": {}, "summary": f"recorded {title}"}
    return Step("sql", f"record {title} as applied", ";\n".join(texts) + ";", "transaction", False, work)
