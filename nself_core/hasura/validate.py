"""Whether a metadata document has the form that the engine takes: keys, kinds of values, and names that exist.

Only the document is looked at; what the database must have for it is checked by validate_catalogue.py. Keys that the
schema does not know are no finding here: the engine passes over them, and lint tells of them.
"""

from __future__ import annotations

from collections import namedtuple

from nself_core.failures import FileFailure
from nself_core.hasura.identity import is_flat, qualified_text, repeated
from nself_core.hasura.objects import EXACTLY_ONE, keys_of, kind_of, root
from nself_core.hasura.sdl import check_sdl

Finding = namedtuple("Finding", "path rule message file", defaults=(None,))
Finding.__doc__ = """One thing that was found: its index `path` in the document, the id of the `rule`, a `message`.

`file`, where it is of a file that is no part of the document."""

RULES = {
    "wrong-kind": "A value has another kind than the engine takes there.",
    "missing-key": "A key is not there without which the engine refuses the document.",
    "one-of": "Of keys that stand for one another there must be exactly one.",
    "twice": "Two entries of a list have the same name, table or role.",
    "name-twice": "Two relationships, computed fields or remote relationships of a table have one name.",
    "wrong-graphql": "The schema that a remote schema's permission gives is no GraphQL.",
    "unknown-reference": "A table, source, collection, query, remote schema or type is named that the document lacks.",
}

# Lists whose entries may have one name more than once.
REPEATABLE = ("header", "attribute", "tls_host")


def check_structure(document):
    """All Findings of a metadata document's form and of the names in it, in the document's order.

    Arguments: `document`, of version 3, or of version 2 with `tables` at its top; anything else is a finding.
    """
    if not isinstance(document, dict):
        return [Finding((), "wrong-kind", f"the metadata is {_words(document)} and not a mapping")]
    found = [*_versions(document), *_forms(document), *_names(document), *_schemas(document), *_references(document)]
    places = {finding: number for number, finding in enumerate(found)}
    return sorted(places, key=lambda finding: (_order(document, finding.path), places[finding]))


def _order(document, path):
    """A sort key for index paths: the order in which their places stand in the document."""
    order = []
    for key in path:
        order.append(key if isinstance(document, list) else list(document).index(key))
        document = document[key]
    return order


def _versions(document):
    needed = "tables" if is_flat(document) or document.get("version") in (1, 2) else "sources"
    if needed not in document:
        yield Finding((), "missing-key", f"the metadata has no {needed}")
    if document.get("version", 3) not in (1, 2, 3):
        yield Finding(("version",), "wrong-kind", "the version is none of 1, 2 and 3")


# Keys and kinds.


def _forms(document):
    waiting: list = [(root(), document, ())]
    while waiting:
        spec, value, path = waiting.pop()
        kind = _fitting(spec, value)
        if kind is None and _is_bare_function(document, value, path):
            continue
        if kind is None:
            yield Finding(path, "wrong-kind", f"{_title(path)} is {_words(value)} and not {_wanted(spec)}")
            continue
        if kind.form == "object":
            yield from _object(kind.item, value, path)
        if isinstance(value, list) and kind.key and kind.item.name not in REPEATABLE:
            for index in repeated(kind, value):
                yield Finding((*path, index), "twice", f"{_entry(kind, value[index])} stands twice in {_title(path)}")
        waiting += reversed([*_inside(kind, value, path)])


def _is_bare_function(document, value, path):
    """Functions of version 1 were their names alone."""
    return path[:1] == ("functions",) and isinstance(value, str) and document.get("version", 1) == 1


def _inside(kind, value, path):
    """What stands in a value of `kind`, with its Spec and path; a null under a key that may be missing is nothing."""
    if kind.form == "object":
        keys = keys_of(kind.item)
        for key, item in value.items():
            spec = keys.get(key)
            if spec is not None and (item is not None or spec.required):
                yield spec, item, (*path, key)
    elif kind.form == "map":
        yield from ((kind.item, item, (*path, key)) for key, item in value.items())
    elif kind.form in ("set", "list"):
        yield from ((kind.item, item, (*path, index)) for index, item in enumerate(value))


def _fitting(spec, value):
    """The Kind of `spec` that `value` really has, None where it has none."""
    if isinstance(value, (dict, list)):
        return kind_of(spec, value)
    if isinstance(value, str):
        forms: tuple = ("text", "sdl", "secret", "any", "opaque")
    else:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        forms = ("number" if number else "boolean" if isinstance(value, bool) else "null", "any", "opaque")
    literals = (kind for kind in spec.kinds if kind.form == "literal" and kind.item == value)
    return next((kind for kind in spec.kinds if kind.form in forms), None) or next(literals, None)


def _object(name, value, path):
    for key, spec in keys_of(name).items():
        if spec.required and key not in value and name != "metadata":
            yield Finding(path, "missing-key", f"{_title(path)} has no {key}")
    choices = EXACTLY_ONE.get(name, ())
    given = [key for key in choices if value.get(key) is not None]
    if choices and len(given) != 1:
        has = f"has both {' and '.join(given)}" if given else f"has neither {' nor '.join(choices)}"
        yield Finding(path, "one-of", f"{_title(path)} {has}")


def _entry(kind, item):
    value = item.get(kind.key) if isinstance(item, dict) else item
    return value if isinstance(value, str) else qualified_text(value) or "an entry"


def _title(path):
    names = [str(key) for key in path if not isinstance(key, int)]
    if not path:
        return "the metadata"
    return f"an entry of {names[-1]}" if isinstance(path[-1], int) and names else names[-1] if names else "an entry"


WORDS = {dict: "a mapping", list: "a list", str: "a text", bool: "a boolean", int: "a number", float: "a number"}
WANTED = {"object": "a mapping", "map": "a mapping", "set": "a list", "list": "a list", "text": "a text",
          "sdl": "a text", "secret": "a text", "number": "a number", "boolean": "true or false"}  # fmt: skip


def _words(value):
    return "empty" if value is None else WORDS.get(type(value), "another thing")


def _wanted(spec):
    wanted = [f'"{kind.item}"' if kind.form == "literal" else WANTED.get(kind.form, "another") for kind in spec.kinds]
    return " or ".join(dict.fromkeys(wanted))


# Names.


def dicts(value):
    """The mappings in a list with their indexes; nothing of what is no list."""
    return (
        [(index, item) for index, item in enumerate(value) if isinstance(item, dict)] if isinstance(value, list) else []
    )


def sources_of(document):
    """Each source as (index path, mapping). A document of version 2 is one, named default."""
    if is_flat(document):
        return [((), {"name": "default", **document})]
    return [(("sources", index), source) for index, source in dicts(document.get("sources"))]


def tables_of(document):
    """Each table as (index path, mapping, its source's mapping)."""
    for path, source in sources_of(document):
        for index, table in dicts(source.get("tables")):
            yield (*path, "tables", index), table, source


FIELDS = ("object_relationships", "array_relationships", "computed_fields", "remote_relationships")


def _names(document):
    for path, table, _source in tables_of(document):
        seen: dict = {}
        for key in FIELDS:
            for index, field in dicts(table.get(key)):
                name = field.get("name")
                if isinstance(name, str) and seen.setdefault(name, key) != key:
                    place = (*path, key, index)
                    yield Finding(place, "name-twice", f"{name} is a name in {seen[name]} of the same table too")


# GraphQL.


def _schemas(document):
    for index, schema in dicts(document.get("remote_schemas")):
        for number, permission in dicts(schema.get("permissions")):
            definition = permission.get("definition")
            text = definition.get("schema") if isinstance(definition, dict) else None
            path = ("remote_schemas", index, "permissions", number, "definition", "schema")
            try:
                check_sdl(text if isinstance(text, str) else "")
            except FileFailure as failure:
                yield Finding(path, "wrong-graphql", f"line {failure.line} of the schema: {failure.message}")


# What a name leads to.

Known = namedtuple("Known", "tables sources schemas collections types")
BASE_TYPES = ("Int", "Float", "String", "Boolean", "ID")


def _references(document):
    known = _known(document)
    for path, table, source in tables_of(document):
        yield from _of_table(path, table, source, known)
    yield from _of_collections(document, known)
    yield from _of_types(document, known)
    for index, schema in dicts(document.get("remote_schemas")):
        for place, entry in dicts(schema.get("remote_relationships")):
            for number, relationship in dicts(entry.get("relationships")):
                at = ("remote_schemas", index, "remote_relationships", place, "relationships", number, "definition")
                yield from _of_remote(at, relationship.get("definition"), known)


def _known(document):
    tables = {(_name(source), qualified_text(table.get("table"))) for _path, table, source in tables_of(document)}
    types = document.get("custom_types") if isinstance(document.get("custom_types"), dict) else {}
    return Known(
        tables,
        {_name(source) for _path, source in sources_of(document)},
        {_name(schema) for _index, schema in dicts(document.get("remote_schemas"))},
        {
            _name(collection): {_name(query) for _place, query in _queries(collection)}
            for _index, collection in dicts(document.get("query_collections"))
        },
        {_name(entry) for key in types for _index, entry in dicts(types[key])},
    )


def _name(item):
    """The name of a mapping where that is a text, else None."""
    name = item.get("name")
    return name if isinstance(name, str) else None


def _queries(collection):
    definition = collection.get("definition")
    return dicts(definition.get("queries")) if isinstance(definition, dict) else []


def _unknown(path, noun, name):
    return Finding(path, "unknown-reference", f"{noun} {name} is not in the metadata")


def _of_table(path, table, source, known):
    for key in ("object_relationships", "array_relationships"):
        for index, relationship in dicts(table.get(key)):
            using = relationship.get("using")
            for place, far in _far_tables(using if isinstance(using, dict) else {}):
                name = qualified_text(far)
                if name and (_name(source), name) not in known.tables:
                    yield _unknown((*path, key, index, "using", *place), "table", name)
    for index, relationship in dicts(table.get("remote_relationships")):
        at = (*path, "remote_relationships", index, "definition")
        yield from _of_remote(at, relationship.get("definition"), known)
    fields = {_name(field) for _index, field in dicts(table.get("computed_fields"))}
    for index, permission in dicts(table.get("select_permissions")):
        rule = permission.get("permission")
        names = rule.get("computed_fields") if isinstance(rule, dict) else None
        for number, name in enumerate(names if isinstance(names, list) else []):
            if isinstance(name, str) and name not in fields:
                at = (*path, "select_permissions", index, "permission", "computed_fields", number)
                yield _unknown(at, "computed field", name)


def _far_tables(using):
    for first, second in (("foreign_key_constraint_on", "table"), ("manual_configuration", "remote_table")):
        value = using.get(first)
        if isinstance(value, dict) and second in value:
            yield (first, second), value[second]


def _of_remote(path, definition, known):
    """What a remote relationship leads to: a table of a source, or a remote schema (two forms in use)."""
    if not isinstance(definition, dict):
        return
    source = definition.get("to_source")
    if isinstance(source, dict):
        yield from _of_source((*path, "to_source"), source, "table", known)
    for at, schema in (((*path, "to_remote_schema"), definition.get("to_remote_schema")), (path, definition)):
        name = schema.get("remote_schema") if isinstance(schema, dict) else None
        if isinstance(name, str) and name not in known.schemas:
            yield _unknown((*at, "remote_schema"), "remote schema", name)


def _of_source(path, target, key, known):
    source, table = target.get("source", "default"), qualified_text(target.get(key))
    if not isinstance(source, str):
        return
    if source not in known.sources:
        yield _unknown((*path, "source") if "source" in target else path, "source", source)
    elif table and (source, table) not in known.tables:
        yield _unknown((*path, key), "table", f"{table} of source {source}")


def _of_collections(document, known):
    for index, entry in dicts(document.get("allowlist")):
        name = entry.get("collection")
        if isinstance(name, str) and name not in known.collections:
            yield _unknown(("allowlist", index, "collection"), "query collection", name)
    for index, endpoint in dicts(document.get("rest_endpoints")):
        definition = endpoint.get("definition")
        query = definition.get("query") if isinstance(definition, dict) else None
        if not isinstance(query, dict):
            continue
        path = ("rest_endpoints", index, "definition", "query")
        collection, name = query.get("collection_name"), query.get("query_name")
        if isinstance(collection, str) and collection not in known.collections:
            yield _unknown((*path, "collection_name"), "query collection", collection)
        elif isinstance(name, str) and isinstance(collection, str) and name not in known.collections[collection]:
            yield _unknown((*path, "query_name"), f"in query collection {collection} the query", name)


def _of_types(document, known):
    for index, action in dicts(document.get("actions")):
        path = ("actions", index, "definition")
        definition = action.get("definition")
        if not isinstance(definition, dict):
            continue
        yield from _of_type((*path, "output_type"), definition.get("output_type"), known)
        for number, argument in dicts(definition.get("arguments")):
            yield from _of_type((*path, "arguments", number, "type"), argument.get("type"), known)
    types = document.get("custom_types") if isinstance(document.get("custom_types"), dict) else {}
    for key in ("objects", "input_objects"):
        for index, entry in dicts(types.get(key)):
            path = ("custom_types", key, index)
            for number, field in dicts(entry.get("fields")):
                yield from _of_type((*path, "fields", number, "type"), field.get("type"), known)
            for number, relationship in dicts(entry.get("relationships")):
                yield from _of_source((*path, "relationships", number), relationship, "remote_table", known)


def _of_type(path, text, known):
    """A type that begins with a capital is one of the document's; others may be the database's own."""
    name = text.strip("[]! \n\t") if isinstance(text, str) else ""
    if name[:1].isupper() and name not in BASE_TYPES and name not in known.types:
        yield _unknown(path, "type", name)
