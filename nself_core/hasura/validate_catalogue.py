"""Whether the database has what a metadata document needs, and has it in the form that the engine can use.

Two questions are put to the server, whatever the number of tables: what is missing (guard/check_sql.py, as the guard
of migrations asks it), and what the tables and functions are like. Only source `default` is looked at.
"""

from __future__ import annotations

from collections import namedtuple

from nself_core.guard.check_sql import sql_unsatisfied
from nself_core.guard.requirements import (
    COLUMN,
    ENUM_TABLE,
    FUNCTION,
    RELATIONSHIP,
    SOURCE,
    TABLE,
    default_source,
    placed_requirements,
    table_name,
    verdict,
)
from nself_core.hasura.expressions import operator_findings
from nself_core.hasura.validate import Finding, dicts

RULES = {
    "missing-table": "A table or view that is tracked or asked in a permission is not in the database.",
    "missing-column": "A column that a permission, relationship or event trigger names is not in its table.",
    "missing-function": "A function is not in the database, or more than one has its name.",
    "broken-relationship": "A relationship has no foreign key that it could follow, or more than one.",
    "enum-table": "A table cannot be an enum: see its key, its columns and its rows.",
    "unknown-operator": "A permission compares a column by an operator that the engine does not know.",
    "wrong-operator": "A permission compares a column by an operator that does not work on its type.",
    "generated-preset": "A permission presets a column that the database fills itself.",
    "mapped-types": "A relationship that is configured by hand compares columns of types that cannot be compared.",
    "not-unique": "An object relationship leads to a table in which several rows can answer.",
    "function-form": "A function has not the form that the engine asks of it.",
}
KIND_RULES = {
    TABLE: "missing-table",
    COLUMN: "missing-column",
    FUNCTION: "missing-function",
    RELATIONSHIP: "broken-relationship",
    ENUM_TABLE: "enum-table",
}

# One row: the tables and functions asked for that are there. A column is [type, category, type's name, whether the
# database fills it]; a function's argument is [name, type, schema and name of the table whose row type it is].
SQL_FACTS = """
WITH asked AS MATERIALIZED (
    SELECT DISTINCT c.oid, n.nspname AS schema, c.relname AS name
    FROM pg_catalog.json_to_recordset(:tables::pg_catalog.json) AS item(s text, t text)
    JOIN pg_catalog.pg_namespace n ON n.nspname = item.s
    JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = item.t
        AND c.relkind IN ('r', 'v', 'm', 'f', 'p')
), tables AS (
    SELECT pg_catalog.json_build_array(asked.schema, asked.name, (
        SELECT pg_catalog.json_object_agg(a.attname, pg_catalog.json_build_array(
            pg_catalog.format_type(t.oid, NULL), t.typcategory, t.typname,
            a.attgenerated <> '' OR a.attidentity = 'a'))
        FROM pg_catalog.pg_attribute a
        JOIN pg_catalog.pg_type d ON d.oid = a.atttypid
        JOIN pg_catalog.pg_type t ON t.oid = CASE WHEN d.typtype = 'd' THEN d.typbasetype ELSE d.oid END
        WHERE a.attrelid = asked.oid AND a.attnum > 0 AND NOT a.attisdropped
    ), (
        SELECT pg_catalog.json_agg((
            SELECT pg_catalog.json_agg(a.attname)
            FROM pg_catalog.unnest(i.indkey::pg_catalog.int2[]) WITH ORDINALITY AS k(attnum, place)
            JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
            WHERE k.place <= i.indnkeyatts))
        FROM pg_catalog.pg_index i
        WHERE i.indrelid = asked.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
    ), (
        SELECT pg_catalog.json_agg(pg_catalog.json_build_array((
            SELECT pg_catalog.json_agg(a.attname) FROM pg_catalog.pg_attribute a
            WHERE a.attrelid = f.conrelid AND a.attnum = ANY (f.conkey)), n.nspname, c.relname))
        FROM pg_catalog.pg_constraint f
        JOIN pg_catalog.pg_class c ON c.oid = f.confrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE f.conrelid = asked.oid AND f.contype = 'f'
    )) AS facts
    FROM asked
), functions AS (
    SELECT n.nspname AS schema, p.proname AS name, p.provolatile = 'v' AS volatile, p.provariadic <> 0 AS variadic,
        pg_catalog.format_type(p.prorettype, NULL) AS returns, rn.nspname AS return_schema, r.relname AS return_table,
        p.proretset AS returns_set, (
            SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_array(
                coalesce(arg.name, ''), pg_catalog.format_type(arg.type, NULL), an.nspname, ac.relname)
                ORDER BY arg.place), '[]')
            FROM ROWS FROM (
                pg_catalog.unnest(coalesce(p.proallargtypes, p.proargtypes::pg_catalog.oid[])),
                pg_catalog.unnest(p.proargnames), pg_catalog.unnest(p.proargmodes)
            ) WITH ORDINALITY AS arg(type, name, mode, place)
            JOIN pg_catalog.pg_type at ON at.oid = arg.type
            LEFT JOIN pg_catalog.pg_class ac ON ac.oid = at.typrelid
            LEFT JOIN pg_catalog.pg_namespace an ON an.oid = ac.relnamespace
            WHERE arg.mode IS NULL OR arg.mode IN ('i', 'b', 'v')) AS arguments
    FROM (SELECT DISTINCT item.s, item.n
          FROM pg_catalog.json_to_recordset(:functions::pg_catalog.json) AS item(s text, n text)) wanted
    JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.s
    JOIN pg_catalog.pg_proc p ON p.pronamespace = n.oid AND p.proname = wanted.n AND p.prokind <> 'a'
    JOIN pg_catalog.pg_type rt ON rt.oid = p.prorettype
    LEFT JOIN pg_catalog.pg_class r ON r.oid = rt.typrelid
    LEFT JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace
)
SELECT coalesce((SELECT pg_catalog.json_agg(tables.facts) FROM tables), '[]') AS tables,
    coalesce((SELECT pg_catalog.json_agg(functions) FROM functions), '[]') AS functions
"""

Column = namedtuple("Column", "type category name filled")
Column.__doc__ = """A column's `type` as SQL writes it (a domain's base type), the type's `category` (pg_type) and bare
`name`, and whether the database fills it itself (`filled`)."""

Relation = namedtuple("Relation", "columns uniques keys")
Relation.__doc__ = """A table: `columns`, name -> Column; `uniques`, the sets of columns that no two rows share; `keys`,
per foreign key (its columns as a set, (schema, table) that it leads to)."""

Facts = namedtuple("Facts", "relations functions")
Facts.__doc__ = """What is known: `relations`, (schema, name) -> Relation; `functions`, (schema, name) -> the list of
functions of that name, as SQL_FACTS gives them."""


def find_broken(database, document):
    """All Findings of a document against the database.

    Arguments: `database`, asked in its session; `document`, one in which check_structure found nothing of a wrong kind.
    Raises SqlFailure, Unreachable, CredentialsRefused.
    """
    needs = list(placed_requirements(document))
    rows = database.rows(sql_unsatisfied({requirement for _path, requirement in needs})) if needs else []
    facts = find_facts(database, document)
    return [*missing_findings(document, needs, rows), *form_findings(document, facts)]


def unasked_sources(document):
    """A sentence for each source whose database find_broken does not ask."""
    names = [source.get("name") for _index, source in dicts(document.get("sources"))]
    return [f"source {name} was not compared with its database" for name in names if name != SOURCE]


def find_facts(database, document):
    """The Facts of all tables and functions that source `default` of a document names, in one question."""
    source = default_source(document)
    tables: set = set()
    functions: set = set()
    for _index, entry in dicts(source.get("tables")):
        tables.add(table_name(entry.get("table")))
        tables.update(far for _path, _key, _columns, far in _relationships(entry))
        functions.update(table_name(function) for _path, function, _definition in _computed(entry))
    functions.update(table_name(entry.get("function")) for _index, entry in dicts(source.get("functions")))
    wanted = [{"s": name[0], "t": name[1]} for name in sorted(filter(_can_exist, tables))]
    asked = [{"s": name[0], "n": name[1]} for name in sorted(filter(_can_exist, functions))]
    (row,) = database.rows(SQL_FACTS, tables=wanted, functions=asked)
    found: dict = {}
    for function in row["functions"]:
        found.setdefault((function["schema"], function["name"]), []).append(function)
    return Facts(dict(map(_relation, row["tables"])), found)


def _can_exist(name):
    """Whether Postgres could have such a name: JSON can write what is no Unicode."""
    text = "".join(name) if name else "\0"
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _relation(found):
    schema, name, columns, uniques, keys = found
    return (schema, name), Relation(
        {column: Column(*facts) for column, facts in (columns or {}).items()},
        [frozenset(unique) for unique in uniques or ()],
        [(frozenset(own), (far_schema, far)) for own, far_schema, far in keys or ()],
    )


# What is missing.


def missing_findings(document, needs, rows):
    """A Finding for each object that needs what is missing.

    Arguments: `needs`, (path, Requirement) as placed_requirements gives them; `rows`, those of sql_unsatisfied. What is
    missing because its whole table is, is told with the table alone.
    """
    broken = {(row["kind"], row["schema"], row["table"], row["name"], row["why"]) for row in rows}
    gone = {thing[1:3] for thing in broken if thing[0] == TABLE}
    found = []
    for path, requirement in needs:
        is_told = requirement.kind != TABLE and requirement[1:3] in gone
        if requirement[:5] in broken and not is_told:
            place = _closer(document, path, requirement)
            found.append(Finding(place, KIND_RULES[requirement.kind], _message(requirement)))
    return list(dict.fromkeys(found))


def _message(requirement):
    said = verdict(*requirement[:4])
    return f"{said}: {requirement.why}" if requirement.kind in (RELATIONSHIP, ENUM_TABLE) else said


def _closer(document, path, requirement):
    """The place in a permission where a missing column is named, or the object's own place."""
    entry = document
    for key in path:
        entry = entry[key]
    rule = entry.get("permission") if isinstance(entry, dict) else None
    if requirement.kind != COLUMN or not isinstance(rule, dict):
        return path
    columns = rule.get("columns")
    if isinstance(columns, list) and requirement.name in columns and not requirement.path:
        return (*path, "permission", "columns", columns.index(requirement.name))
    if isinstance(rule.get("set"), dict) and requirement.name in rule["set"] and not requirement.path:
        return (*path, "permission", "set", requirement.name)
    told = [key for key in ("filter", "check") if key in rule]
    return (*path, "permission", *told) if len(told) == 1 else path


# What is there, and in which form.


def form_findings(document, facts):
    """A Finding for each object whose tables and functions are there, and not as it needs them."""
    source, path = default_source(document), _source_path(document)
    tables = {table_name(entry.get("table")): entry for _index, entry in dicts(source.get("tables"))}
    found: list = []
    for index, entry in dicts(source.get("tables")):
        name, place = table_name(entry.get("table")), (*path, "tables", index)
        if name in facts.relations:
            found += _of_relationships(place, name, entry, facts)
            found += _of_permissions(place, name, entry, tables, facts)
            found += _of_computed(place, name, entry, facts)
    for index, entry in dicts(source.get("functions")):
        found += _of_function((*path, "functions", index), entry, tables, facts)
    return found


def _source_path(document):
    sources = [index for index, source in dicts(document.get("sources")) if source.get("name") == "default"]
    return ("sources", sources[0]) if sources else ()


def _relationships(entry):
    """A table's relationships that name the far table, as (path, key, far columns or mapping, far table)."""
    for key in ("object_relationships", "array_relationships"):
        for index, relationship in dicts(entry.get(key)):
            using = relationship.get("using") if isinstance(relationship.get("using"), dict) else {}
            far, manual = using.get("foreign_key_constraint_on"), using.get("manual_configuration")
            if isinstance(far, dict):
                columns = far.get("columns", [far.get("column")])
                yield (key, index), key, columns, table_name(far.get("table"))
            elif isinstance(manual, dict):
                yield (key, index), key, manual.get("column_mapping"), table_name(manual.get("remote_table"))


def _of_relationships(path, name, entry, facts):
    for place, key, columns, far in _relationships(entry):
        if far not in facts.relations:
            continue
        if isinstance(columns, dict):
            yield from _of_mapping((*path, *place), columns, facts.relations[name], facts.relations[far])
            columns = list(columns.values())
        named = {column for column in columns if isinstance(column, str)} if isinstance(columns, list) else set()
        relation = facts.relations[far]
        if key == "object_relationships" and named <= set(relation.columns) and _several_answer(relation, named):
            shown = f"{'.'.join(far)} ({', '.join(sorted(named))})"
            yield Finding((*path, *place), "not-unique", f"several rows of {shown} can answer, and one is taken")


def _several_answer(relation, named):
    """Whether more than one row can have the same in the `named` columns; of a view nothing says so, or that not."""
    is_known = relation.uniques or relation.keys
    return bool(is_known) and not any(unique <= named for unique in relation.uniques)


def _of_mapping(path, mapping, own, far):
    for column, other in mapping.items():
        here, there = own.columns.get(column), far.columns.get(other) if isinstance(other, str) else None
        if here and there and here.category != there.category:
            message = f"column {column} is {here.type}, and {other} is {there.type}"
            yield Finding(path, "mapped-types", message)


def _of_permissions(path, name, entry, tables, facts):
    for verb in ("insert", "select", "update", "delete"):
        for index, permission in dicts(entry.get(f"{verb}_permissions")):
            rule = permission.get("permission")
            place = (*path, f"{verb}_permissions", index, "permission")
            if not isinstance(rule, dict):
                continue
            for key in ("filter", "check"):
                for inner, kind, message in operator_findings(rule.get(key), name, tables, facts):
                    yield Finding((*place, key, *inner), kind, message)
            for column in rule["set"] if isinstance(rule.get("set"), dict) else ():
                known = facts.relations[name].columns.get(column)
                if known and known.filled:
                    message = f"column {column} is filled by the database, so the preset ends every {verb}"
                    yield Finding((*place, "set", column), "generated-preset", message)


# Functions.


def _computed(entry):
    for index, field in dicts(entry.get("computed_fields")):
        definition = field.get("definition")
        if isinstance(definition, dict):
            yield ("computed_fields", index), definition.get("function"), definition


def _only_function(value, facts):
    found = facts.functions.get(table_name(value), [])
    return found[0] if len(found) == 1 else None


def _of_computed(path, name, entry, facts):
    for place, value, definition in _computed(entry):
        function = _only_function(value, facts)
        for message in _computed_problems(function, name, definition) if function else ():
            yield Finding((*path, *place), "function-form", message)


def _computed_problems(function, table, definition):
    shown, arguments = _shown(function), function["arguments"]
    if function["volatile"]:
        yield f"function {shown} is VOLATILE, and a computed field's must be STABLE or IMMUTABLE"
    wanted = definition.get("table_argument")
    rows = [argument for argument in arguments if not wanted or argument[0] == wanted][:1]
    if not rows:
        yield f"function {shown} has no argument {wanted}" if wanted else f"function {shown} takes no row"
    elif tuple(rows[0][2:]) != table:
        yield f"function {shown} takes {rows[0][1]} where a row of {'.'.join(table)} is given"
    yield from _session_problems(function, definition)


def _session_problems(function, settings):
    wanted = settings.get("session_argument")
    types = [argument[1] for argument in function["arguments"] if argument[0] == wanted]
    if wanted and not types:
        yield f"function {_shown(function)} has no argument {wanted}"
    elif wanted and types != ["json"]:
        yield f"argument {wanted} of function {_shown(function)} is {types[0]}, and the session is given as json"


def _of_function(path, entry, tables, facts):
    function = _only_function(entry.get("function"), facts)
    settings = entry.get("configuration") if isinstance(entry.get("configuration"), dict) else {}
    for message in _tracked_problems(function, settings, tables) if function else ():
        yield Finding(path, "function-form", message)


def _tracked_problems(function, settings, tables):
    shown = _shown(function)
    if function["variadic"]:
        yield f"function {shown} is VARIADIC, and cannot be tracked"
    target = (function["return_schema"], function["return_table"])
    if function["return_table"] is None or target not in tables:
        yield f"function {shown} returns {function['returns']}, which is no row of a tracked table"
    if settings.get("exposed_as") == "mutation" and not function["volatile"]:
        yield f"function {shown} is not VOLATILE, and cannot be exposed as a mutation"
    yield from _session_problems(function, settings)


def _shown(function):
    return f"{function['schema']}.{function['name']}"
