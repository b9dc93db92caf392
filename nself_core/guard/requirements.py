"""What Hasura's metadata needs of the Postgres catalogue, read out of a metadata document; no server is asked.

Hasura takes an object out of its API when a thing it names is gone (reference: the metadata API's inconsistent
objects), so each thing becomes one Requirement that check_sql.py can look for. Only source `default` counts.
"""

from __future__ import annotations

from collections import namedtuple

TABLE, COLUMN, RELATIONSHIP, FUNCTION, ENUM_TABLE, TRACKED = (
    "table", "column", "relationship", "function", "enum_table", "tracked",
)
SOURCE = "default"
TRACKED_TABLE = "tracked table"

# Kinds of a source whose tables stand in Postgres' own catalogue; a source without a kind is Postgres.
POSTGRES_KINDS = (None, "postgres", "citus", "alloy")

AND_OR = ("_and", "_or", "$and", "$or")
NOT = ("_not", "$not")
EXISTS = ("_exists", "$exists")
CAST = ("_cast", "$cast")
# Operators whose right-hand side names another column.
COLUMN_OPERATORS = tuple(
    sign + word for sign in "_$" for word in ("ceq", "cne", "cneq", "cgt", "clt", "cgte", "clte")
)


class Requirement(
    namedtuple("Requirement", "kind schema table name why path columns other", defaults=((), (), None))
):
    """One thing of the catalogue that one object of the metadata needs.

    `kind` is one of this module's constants; `schema` and `table` name the table (`table` is empty for a function);
    `name` is the column, relationship or function, empty for a table; `why` names the metadata object, or says what a
    relationship or an enum table needs. `path`: where the column is not the table's own, the relationships on the way
    and last the column. For a relationship, `columns` are those of its foreign key, sorted (none when it is configured
    by hand), and `other` is the table at its other end as (schema, table); without `other` the foreign key is the
    table's own and tells the target.
    """

    __slots__ = ()


class Tracked(namedtuple("Tracked", "entry relationships computed_fields")):
    """A tracked table's metadata `entry`, its Hops by relationship name, the names of its computed fields."""

    __slots__ = ()


Hop = namedtuple("Hop", "columns other mapping")
Hop.__doc__ = """How a relationship gets to its table: `columns` and `other` as Requirement has them, and the column
`mapping` (own column to the other's) where it is configured by hand."""

# Where a boolean expression stands: at a table, or at what `path` (relationship names) leads to from there, which
# only the catalogue knows when the way goes over the table's own foreign key.
Spot = namedtuple("Spot", "table path")

# What does not change while one expression is read.
Scope = namedtuple("Scope", "root tables why")


def requirements(metadata):
    """All Requirements of a metadata document.

    Arguments: `metadata`, the document as `export_metadata` gives it and hdb_catalog.hdb_metadata holds it: version 3
    with `sources`, or version 2 with `tables` at its top. Returns a frozenset, empty when source `default` is not
    there or is not Postgres. What has not the expected form is passed over: the engine would not have stored it.
    """
    source = default_source(metadata)
    tables = _tracked_tables(source)
    found = set(_of_other_places(metadata, tables))
    for name, tracked in tables.items():
        found.update(_of_table(name, tracked, tables))
    for function in _dicts_or_names(source.get("functions")):
        found.update(_function(function.get("function", function), "tracked function"))
    return frozenset(_readable(requirement) for requirement in found if _can_exist(requirement))


def placed_requirements(metadata):
    """Each of the requirements with the index path of the object that has it, as (path, Requirement).

    Argument: `metadata`, as `requirements` takes it. An object is a table, or one entry of one of a table's lists; a
    function; or a relationship that starts elsewhere.
    """
    source, path = default_source(metadata), _default_path(metadata)
    tables = _tracked_tables(source)
    for index, entry in _numbered(source.get("tables")):
        name = table_name(entry.get("table"))
        for place, requirement in _of_parts(name, entry, tables) if name else ():
            yield from _placed((*path, "tables", index, *place), [requirement])
    functions = source.get("functions")
    for index, function in enumerate(functions if isinstance(functions, list) else ()):
        for item in _dicts_or_names([function]):
            yield from _placed((*path, "functions", index), _function(item.get("function", item), "tracked function"))
    for place, part in _parts_elsewhere(metadata):
        yield from _placed(place, _of_other_places(part, tables))


def _placed(path, found):
    for requirement in found:
        if _can_exist(requirement):
            yield path, _readable(requirement)


# A table's lists whose entries need something of the catalogue.
PARTS = (
    "object_relationships", "array_relationships", "computed_fields", "event_triggers", "remote_relationships",
    "insert_permissions", "select_permissions", "update_permissions", "delete_permissions",
)


def _of_parts(name, entry, tables):
    """What a table needs, each with where in the table's `entry` it is said: () for the table itself."""
    tracked = tables[name]
    for requirement in _of_table(name, Tracked({"is_enum": entry.get("is_enum")}, {}, set()), tables):
        yield (), requirement
    for key in PARTS:
        for index, part in _numbered(entry.get(key)):
            hops = {link["name"]: tracked.relationships[link["name"]] for link in _relationships({key: [part]})}
            for requirement in _of_table(name, Tracked({key: [part]}, hops, tracked.computed_fields), tables):
                if requirement.why != TRACKED_TABLE:
                    yield (key, index), requirement


def _parts_elsewhere(metadata):
    """Each relationship that _relationships_elsewhere finds, as its path and a document of it alone."""
    for source_index, source in _numbered(metadata.get("sources")):
        for index, table in _numbered(source.get("tables")):
            for number, part in _numbered(table.get("remote_relationships")):
                alone = {"name": source.get("name"), "tables": [{"remote_relationships": [part]}]}
                path = ("sources", source_index, "tables", index, "remote_relationships", number)
                yield path, {"sources": [alone]}
    for index, schema in _numbered(metadata.get("remote_schemas")):
        for place, entry in _numbered(schema.get("remote_relationships")):
            for number, part in _numbered(entry.get("relationships")):
                alone = {"name": schema.get("name"), "remote_relationships": [{"relationships": [part]}]}
                path = ("remote_schemas", index, "remote_relationships", place, "relationships", number)
                yield path, {"remote_schemas": [alone]}
    for index, entry in _numbered(_of(metadata.get("custom_types"), "objects")):
        for number, part in _numbered(entry.get("relationships")):
            alone = {"objects": [{"name": entry.get("name"), "relationships": [part]}]}
            yield ("custom_types", "objects", index, "relationships", number), {"custom_types": alone}


def _numbered(value):
    """The mappings of a list with their indexes in it."""
    items = enumerate(value) if isinstance(value, list) else ()
    return [(index, item) for index, item in items if isinstance(item, dict)]


def _default_path(metadata):
    for index, source in _numbered(metadata.get("sources")):
        if source.get("name") == SOURCE:
            return "sources", index
    return ()


def narrow(live, local):
    """What of the `live` requirements the `local` metadata tree still has.

    Arguments: two sets of Requirements; `local` None means that there is no local tree, and everything live counts.
    Two requirements are the same when they are of the same thing of the catalogue, whatever needs it: a live
    permission whose column another local permission still names would break that one too.
    """
    if local is None:
        return frozenset(live)
    kept = {_thing(requirement) for requirement in local}
    return frozenset(requirement for requirement in live if _thing(requirement) in kept)


def without(needed, rows):
    """The requirements `needed` less those in `rows`, as check_sql.sql_unsatisfied returns them.

    A table that is missing stays known as tracked: a later migration may make it and point a foreign key at it.
    """
    broken = {(row["kind"], row["schema"], row["table"], row["name"], row["why"]) for row in rows}
    kept = set()
    for requirement in needed:
        if requirement[:5] not in broken:
            kept.add(requirement)
        elif requirement.kind == TABLE:
            kept.add(requirement._replace(kind=TRACKED))
    return frozenset(kept)


def describe(rows):
    """One line for each broken thing of `rows` (sql_unsatisfied's, or the guard's detail), naming what needs it.

    What is missing because its whole table is missing goes into the table's line.
    """
    reasons: dict = {}
    for row in rows:
        reasons.setdefault((row["kind"], row["schema"], row["table"], row["name"]), set()).add(row["why"])
    gone = {thing[1:3] for thing in reasons if thing[0] == TABLE}
    parts: dict = {}
    for kind, *place, _name in reasons:
        if kind != TABLE and tuple(place) in gone:
            parts[tuple(place)] = parts.get(tuple(place), 0) + 1
    return [
        f"{verdict(*thing)}: {_first_of(sorted(whys))}" + _and_parts(thing, parts)
        for thing, whys in sorted(reasons.items())
        if thing[0] == TABLE or thing[1:3] not in gone
    ]


def _and_parts(thing, parts):
    count = parts.get(thing[1:3], 0) if thing[0] == TABLE else 0
    return f"; with it {count} of its columns and relationships" if count else ""


VERDICTS = {
    TABLE: "table {} is missing",
    COLUMN: "column {} is missing",
    RELATIONSHIP: "relationship {} does not work",
    FUNCTION: "function {} is missing or overloaded",
    ENUM_TABLE: "enum table {} cannot be one",
}


def verdict(kind, schema, table, name):
    """A few words for one broken thing: its `kind`, one of this module's constants, and its names as rows have them."""
    return VERDICTS[kind].format(".".join(part for part in (schema, table, name) if part))


def _first_of(whys):
    more = f" and {len(whys) - 3} more" if len(whys) > 3 else ""
    return ", ".join(whys[:3]) + more


def _thing(requirement):
    return requirement._replace(why="")


def _can_exist(requirement):
    """Whether Postgres could have such a name at all: no NUL and no half of a surrogate pair, which JSON can write."""
    names = (requirement.schema, requirement.table, requirement.name, *requirement.path, *requirement.columns,
             *(requirement.other or ()))
    text = "".join(names)
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _readable(requirement):
    """The requirement with a reason that can be sent to the server and comes back as it was sent."""
    why = requirement.why.encode("utf-8", "replace").decode("utf-8").replace("\0", "?")
    return requirement if why == requirement.why else requirement._replace(why=why)


# The document.


def default_source(metadata):
    """The part of a metadata document that is source `default`; empty when that is absent or not Postgres."""
    if "sources" not in metadata:
        return metadata
    for source in _dicts(metadata["sources"]):
        if source.get("name") == SOURCE:
            return source if source.get("kind") in POSTGRES_KINDS else {}
    return {}


def _tracked_tables(source):
    tables = {}
    for entry in _dicts(source.get("tables")):
        name = table_name(entry.get("table"))
        if name:
            tables[name] = Tracked(
                entry,
                {relationship["name"]: _hop(relationship.get("using")) for relationship in _relationships(entry)},
                {field.get("name") for field in _dicts(entry.get("computed_fields"))},
            )
    return tables


def _relationships(entry):
    for key in ("object_relationships", "array_relationships"):
        for relationship in _dicts(entry.get(key)):
            if isinstance(relationship.get("name"), str):
                yield relationship


def table_name(value):
    """The (schema, table) that metadata means by a bare name, or by `schema` and `name`; None for anything else."""
    if isinstance(value, str):
        return "public", value
    if not isinstance(value, dict):
        return None
    schema, name = value.get("schema", "public"), value.get("name")
    return (schema, name) if isinstance(schema, str) and isinstance(name, str) else None


def _dicts(value):
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _dicts_or_names(value):
    """The functions' list holds mappings, and in old documents bare names."""
    items = value if isinstance(value, list) else []
    return [{"name": item} if isinstance(item, str) else item for item in items if isinstance(item, (dict, str))]


def _names(value):
    """The texts of a list, or the keys of a mapping; nothing for "*", which needs no particular column."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, (list, dict)) else []


def _of(value, key):
    """`value[key]` where `value` is a mapping, else None."""
    return value.get(key) if isinstance(value, dict) else None


# A table.


def _of_table(name, tracked, tables):
    entry = tracked.entry
    schema, table = name
    yield Requirement(TABLE, schema, table, "", TRACKED_TABLE)
    if entry.get("is_enum"):
        why = "it needs a text key, at most one more text column, and rows whose keys are names in GraphQL"
        yield Requirement(ENUM_TABLE, schema, table, "", why)
    yield from _of_relationships(name, tracked)
    yield from _of_permissions(name, entry, tables)
    for field in _dicts(entry.get("computed_fields")):
        why = f"computed field {field.get('name')} of {schema}.{table}"
        yield from _function(_of(field.get("definition"), "function"), why)
    for trigger in _dicts(entry.get("event_triggers")):
        yield from _of_event_trigger(name, trigger)
    for relationship in _dicts(entry.get("remote_relationships")):
        yield from _of_remote_relationship(name, tracked, relationship)


def _columns(table, names, why):
    schema, name = table
    for column in names:
        yield Requirement(COLUMN, schema, name, column, why)


def _function(value, why):
    name = table_name(value)
    if name:
        schema, function = name
        yield Requirement(FUNCTION, schema, "", function, why)


def _of_event_trigger(table, trigger):
    why = f"event trigger {trigger.get('name')} on {'.'.join(table)}"
    for operation in ("insert", "update", "delete"):
        specification = _of(trigger.get("definition"), operation)
        for key in ("columns", "payload"):
            yield from _columns(table, _names(_of(specification, key)), why)


# Relationships.


def _hop(using):
    """The Hop of a relationship's `using`; None where it leads to no table (a native query)."""
    key = _of(using, "foreign_key_constraint_on")
    if isinstance(key, str):
        return Hop((key,), None, {})
    if isinstance(key, list):
        return Hop(tuple(sorted(_names(key))), None, {})
    if isinstance(key, dict):
        columns = key["columns"] if "columns" in key else [key.get("column")]
        return _hop_to(key.get("table"), tuple(sorted(_names(columns))), {})
    manual = _of(using, "manual_configuration")
    return _hop_to(_of(manual, "remote_table"), (), _of(manual, "column_mapping"))


def _hop_to(table, columns, mapping):
    other = table_name(table)
    return other and Hop(columns, other, mapping if isinstance(mapping, dict) else {})


def _of_relationships(place, tracked):
    schema, table = place
    for name, hop in tracked.relationships.items():
        if hop is None:
            continue
        yield Requirement(RELATIONSHIP, schema, table, name, _way(place, hop), (), hop.columns, hop.other)
        if not hop.columns:
            why = f"relationship {name} of {schema}.{table}"
            yield from _columns(place, _names(hop.mapping), why)
            yield from _columns(hop.other, _names(list(hop.mapping.values())), why)


def _way(place, hop):
    """What a relationship needs to get to its table, in words."""
    columns, here = ", ".join(hop.columns), ".".join(place)
    if not columns:
        return f"it needs table {'.'.join(hop.other)}"
    if hop.other is None:
        return f"it needs exactly one foreign key of {here} ({columns}), to a tracked table"
    return f"it needs exactly one foreign key of {'.'.join(hop.other)} ({columns}) to {here}"


def _of_remote_relationship(table, tracked, relationship):
    """The columns on this side of a relationship to a remote schema or another source (three forms in use)."""
    definition = relationship.get("definition")
    names = {
        *_names(_of(_of(definition, "to_source"), "field_mapping")),
        *_names(_of(_of(definition, "to_remote_schema"), "lhs_fields")),
        *_names(_of(definition, "hasura_fields")),
    }
    why = f"remote relationship {relationship.get('name')} of {'.'.join(table)}"
    yield from _columns(table, names - tracked.computed_fields, why)


def _of_other_places(metadata, tables):
    """What relationships that start elsewhere need here: in any source, in remote schemas, in the actions' types."""
    for place, relationship in _relationships_elsewhere(metadata):
        target = _of(relationship.get("definition"), "to_source") or relationship
        table = table_name(_of(target, "table") or _of(target, "remote_table"))
        if table in tables and target.get("source", SOURCE) == SOURCE:
            columns = set(_values(target.get("field_mapping"))) - tables[table].computed_fields
            yield from _columns(table, columns, f"relationship {relationship.get('name')} of {place}")


def _values(mapping):
    return _names(list(mapping.values())) if isinstance(mapping, dict) else []


def _relationships_elsewhere(metadata):
    for source in _dicts(metadata.get("sources")):
        for table in _dicts(source.get("tables")):
            for relationship in _dicts(table.get("remote_relationships")):
                yield f"a table of source {source.get('name')}", relationship
    for schema in _dicts(metadata.get("remote_schemas")):
        for remote_type in _dicts(schema.get("remote_relationships")):
            for relationship in _dicts(remote_type.get("relationships")):
                yield f"remote schema {schema.get('name')}", relationship
    for custom_type in _dicts(_of(metadata.get("custom_types"), "objects")):
        for relationship in _dicts(custom_type.get("relationships")):
            yield f"custom type {custom_type.get('name')}", relationship


# Permissions.


def _of_permissions(table, entry, tables):
    for verb in ("insert", "select", "update", "delete"):
        for permission in _dicts(entry.get(f"{verb}_permissions")):
            why = f"{verb} permission of role {permission.get('role')} on {'.'.join(table)}"
            rule = permission.get("permission")
            for key in ("columns", "set"):
                yield from _columns(table, _names(_of(rule, key)), why)
            for key in ("filter", "check"):
                yield from _in_expression(_of(rule, key), Spot(table, ()), Scope(table, tables, why))


def _in_expression(expression, spot, scope):
    """The requirements of a boolean expression that is said of the rows at `spot`."""
    if not isinstance(expression, dict):
        return
    for key, value in expression.items():
        if key in AND_OR:
            for part in _dicts(value):
                yield from _in_expression(part, spot, scope)
        elif key in NOT:
            yield from _in_expression(value, spot, scope)
        elif key in EXISTS:
            yield from _in_exists(value, scope)
        else:
            yield from _in_field(key, value, spot, scope)


def _in_exists(value, scope):
    table = table_name(_of(value, "_table"))
    if table:
        schema, name = table
        yield Requirement(TABLE, schema, name, "", scope.why)
        yield from _in_expression(_of(value, "_where"), Spot(table, ()), scope)


def _in_field(key, value, spot, scope):
    """One name of an expression: a column with operators, a relationship with an expression, or a computed field."""
    tracked = None if spot.path else scope.tables.get(spot.table)
    if tracked is None:
        if _is_expression(value):
            yield from _in_expression(value, Spot(spot.table, (*spot.path, key)), scope)
        else:
            yield from _in_column(key, value, spot, scope)
    elif key in tracked.relationships:
        yield from _in_relationship(key, value, spot, scope)
    elif key.endswith("_aggregate") and key[: -len("_aggregate")] in tracked.relationships:
        yield from _in_aggregate(key[: -len("_aggregate")], value, spot, scope)
    elif key not in tracked.computed_fields:
        yield from _in_column(key, value, spot, scope)


def _is_expression(value):
    """Whether `value`, under a name of a table that only the catalogue can tell, is an expression and not operators."""
    if not isinstance(value, dict):
        return False
    return any(key in AND_OR + NOT + EXISTS or not key.startswith(("_", "$")) for key in value)


def _beyond(name, spot, scope):
    """The Spot behind relationship `name` of the table at `spot`; None where that is no table."""
    hop = scope.tables[spot.table].relationships[name]
    if hop is None:
        return None
    return Spot(hop.other, ()) if hop.other else Spot(spot.table, (name,))


def _in_relationship(name, value, spot, scope):
    beyond = _beyond(name, spot, scope)
    if beyond:
        yield from _in_expression(value, beyond, scope)


def _in_aggregate(name, value, spot, scope):
    """An aggregate over an array relationship: per function the columns it takes and a filter on the rows."""
    beyond = _beyond(name, spot, scope)
    if beyond is None or not isinstance(value, dict):
        return
    for function in value.values():
        arguments = _of(function, "arguments")
        for column in [arguments] if isinstance(arguments, str) else _names(arguments):
            yield _at(beyond, column, scope.why)
        yield from _in_expression(_of(function, "filter"), beyond, scope)


def _in_column(name, value, spot, scope):
    yield _at(spot, name, scope.why)
    for start, column in _compared_columns(value):
        yield _at(Spot(scope.root, ()) if start == "$" else spot, column, scope.why)


def _compared_columns(operators):
    """The columns on the right of column operators, as (start, name); `start` "$" means the permission's own table."""
    if not isinstance(operators, dict):
        return
    for operator, value in operators.items():
        if operator in CAST and isinstance(value, dict):
            for cast in value.values():
                yield from _compared_columns(cast)
        elif operator in COLUMN_OPERATORS:
            parts = [value] if isinstance(value, str) else _names(value)
            if parts:
                yield parts[0] if len(parts) > 1 else "", parts[-1]


def _at(spot, column, why):
    schema, table = spot.table
    path = (*spot.path, column) if spot.path else ()
    return Requirement(COLUMN, schema, table, ".".join(path) or column, why, path)
