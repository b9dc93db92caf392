"""Gathers what the commands of `seed` decide on: files, statements, tables, order."""

from __future__ import annotations

from collections import namedtuple

from nself_core.catalogue import find_tables
from nself_core.failures import CheckFailed, FileFailure, Refused
from nself_core.plan import Plan, Step
from nself_core.seeds import ledger, order
from nself_core.seeds.files import choose, find_dependency, find_seeds, is_for
from nself_core.seeds.scripts import check_columns, read_works, with_statements

Survey = namedtuple("Survey", "listing works order facts")
Survey.__doc__ = "The project's Listing, the Works of a run in order, their Order, and the Facts of their tables."


def survey(settings, database, programs, file=None, tag=None):
    """Read the seeds of this environment, run those that are programs, and put all in order; changes nothing.

    Arguments: `programs`, as for `scripts.read_works`; `file` and `tag`, the options or None. The tables and keys of
    all seeds together are asked for in one query.
    """
    database.begin()
    listing = find_seeds(settings)
    seeds = choose(listing, settings, file, tag)
    works = read_works(seeds, settings.env, programs)
    facts = find_tables(database, [table for work in works for table in work.fills])
    _check_data(works, facts)
    fills = {work.seed.file: tables_of(work, facts) for work in works}
    edges = order.find_edges(_declared(seeds, listing.seeds, settings.env), fills, facts.keys)
    found = order.sort_seeds(list(fills), edges)
    by_file = {work.seed.file: work for work in works}
    return Survey(listing, [by_file[name] for name in found.files], found, facts)


def tables_of(work, facts):
    """The (schema, name) of the tables a seed fills, partitions under their roots."""
    return {facts.tables[table].key for table in work.fills if table in facts.tables}


def _declared(seeds, all_seeds, env):
    """The pairs (before, after) that the seeds of this run declare among themselves.

    What a seed depends on may be left out of a run (--file, --tag), but must be for this environment.
    """
    chosen = {seed.file for seed in seeds}
    for seed in seeds:
        for said in seed.head.depends:
            other = find_dependency(seed, said, all_seeds)
            if not is_for(other, env):
                raise CheckFailed(f"it depends on {other.file}, which is not for {env}", file=seed.file, line=said.line)
            if other.file == seed.file:
                raise FileFailure("it depends on itself", file=seed.file, line=said.line)
            if other.file in chosen:
                yield other.file, seed.file


def _check_data(works, facts):
    """Refuse a data file that is not named after a table, or has a column that the table has not."""
    for work in works:
        if work.data is None:
            continue
        table = facts.tables.get(work.fills[0])
        if table is None:
            name = ".".join(part for part in work.fills[0] if part)
            hint = "a data file is named after the table it fills: <table>.csv or <schema>.<table>.csv"
            raise FileFailure(f"there is no table {name}", hint, file=work.seed.file)
        check_columns(work, table)


def load(database, works, facts):
    """The works with the statements of their data files, which depend on whether a table holds rows already.

    One query asks it of all of them. What a seed calls, and a trigger, may fill any table: behind such a seed each may
    hold rows.
    """
    tables = {facts.tables[work.fills[0]].key: facts.tables[work.fills[0]] for work in works if work.data is not None}
    holding = _holding(database, tables)
    loaded, is_sure = [], True
    for work in works:
        if work.data is not None:
            table = facts.tables[work.fills[0]]
            work = with_statements(work, table, is_sure and table.key not in holding)
            is_sure = is_sure and not table.triggers
        else:
            is_sure = False
        loaded.append(work)
        holding |= tables_of(work, facts)
    return loaded


def _holding(database, tables):
    """The keys of those tables that hold rows."""
    if not tables:
        return set()
    keys = list(tables)
    texts = [f"SELECT {n} AS number, EXISTS (SELECT FROM {tables[key].sql}) AS holds" for n, key in enumerate(keys)]
    return {keys[row["number"]] for row in database.rows(" UNION ALL ".join(texts)) if row["holds"]}


def plan_run(found, database, changed, env):
    """The Plan of `seed run`.

    Arguments: `changed`, whether only new and edited seeds run; `env`, the environment's name. Raises Refused where
    that is prod and a seed says that it is destructive.
    """
    works = found.works
    _refuse_destructive(works, env)
    if changed:
        records = ledger.read_records(database)
        works = [work for work in works if not is_done(work, records)]
    steps = [
        Step("seed", f"run {work.seed.file}", _shown(work), "transaction", False, (work, found.facts))
        for work in load(database, works, found.facts)
    ]
    nothing = "no seed is new or changed" if changed and found.works else "no seeds for this environment"
    return Plan(steps, warnings=[*found.listing.warnings, *_warnings(works)], nothing=nothing, data={"seeds": []})


def plan_after_reset(settings, programs):
    """The Plan of the seeds that `reset` runs once the migrations are applied: every file read, none of it run.

    Their order is known when their tables are; until then they stand by name.
    """
    listing = find_seeds(settings)
    works = read_works(choose(listing, settings), settings.env, programs)
    steps = [Step("seed", f"run {work.seed.file}", work.script and _shown(work), "transaction") for work in works]
    return Plan(steps, warnings=list(listing.warnings) if works else ())


def _refuse_destructive(works, env):
    for work in works:
        if work.seed.head.destructive and env == "prod":
            raise Refused(f"{work.seed.file} says that it is destructive, and this is prod; nothing was run")


def is_done(work, records):
    """Whether the seed ran before with this very text."""
    record = records.get(work.seed.file)
    return record is not None and record.checksum == work.checksum


def _warnings(works):
    return [text for work in works if work.script for text in work.script.warnings]


def _shown(work):
    """The SQL of a work for people; the rows of a CSV stay in their file."""
    parts = []
    for statement in work.script.statements:
        parts.append(f"{statement.text};")
        if isinstance(statement.copy_data, str):
            parts.append(statement.copy_data.rstrip("\n") + "\n\\.")
        elif statement.copy_data is not None:
            parts.append(f"-- the rows of {work.seed.file}")
    return "\n".join(parts)
