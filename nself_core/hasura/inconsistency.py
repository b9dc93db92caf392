"""Where in the local document an object stands that the engine calls inconsistent.

The engine names an object by its type and its definition (reference: get_inconsistent_metadata), which has the source,
the table and the name or role, but not the place in the metadata that it was given.
"""

from __future__ import annotations

from nself_core.hasura.identity import index_path, named, qualified_text

# The engine's types of objects that stand in one of a table's lists, by the list (moiTypeName in its source).
IN_TABLES = {
    "object_relation": "object_relationships",
    "array_relation": "array_relationships",
    "computed_field": "computed_fields",
    "remote_relationship": "remote_relationships",
    "event_trigger": "event_triggers",
    **{f"{verb}_permission": f"{verb}_permissions" for verb in ("insert", "select", "update", "delete")},
}
# Those in a source, with the key that names one.
IN_SOURCES = {
    "native_query": ("native_queries", "root_field_name"),
    "logical_model": ("logical_models", "name"),
}
IN_DOCUMENT = {
    "remote_schema": "remote_schemas",
    "action": "actions",
    "cron_trigger": "cron_triggers",
    "inherited_role": "inherited_roles",
    "rest_endpoint": "rest_endpoints",
    "endpoint": "rest_endpoints",
    "custom_types": "custom_types",
    "query_collections": "query_collections",
    "open_telemetry": "opentelemetry",
}


def inconsistency_path(document, item):
    """The index path in `document` of what an entry of `inconsistent_objects` speaks of.

    Arguments: `document`, the local metadata; `item`, the engine's {type, name, reason, definition}, of which anything
    may be missing. Where the object is not in the document, it is the path of the nearest thing that would hold it, ()
    for the document itself.
    """
    return max((index_path(document, identity) for identity in _identities(item)), key=len, default=())


def inconsistency_paths(document, items):
    """inconsistency_path of each of `items`, in their order; for thousands of them, in one reading of the document."""
    known = named(document)
    found = []
    for item in items:
        paths = [known[identity] for identity in _identities(item) if identity in known]
        found.append(max(paths, key=len) if paths else inconsistency_path(document, item))
    return found


def _identities(item):
    """The identity paths that an entry can mean: of two objects in conflict, each has one."""
    if not isinstance(item, dict):
        return
    if isinstance(item.get("objects"), list):
        for part in item["objects"]:
            yield from _identities(part)
    definitions = item.get("definition")
    for definition in definitions if isinstance(definitions, list) and item.get("type") else [definitions]:
        yield _steps(item, definition)


def _steps(item, definition):
    """The steps of one identity path; it may end earlier, where the definition says no more."""
    kind = item.get("type") if isinstance(item.get("type"), str) else ""
    if not isinstance(definition, dict):
        definition = {"name": definition}
    source = definition.get("source") or _source_of(item.get("name"))
    if kind == "source":
        return _until_none("sources", definition.get("name"))
    if kind == "table":
        return _until_none("sources", source, "tables", qualified_text(definition.get("table", definition)))
    if kind in IN_TABLES:
        name = definition.get("role" if kind.endswith("_permission") else "name")
        table = qualified_text(definition.get("table"))
        return _until_none("sources", source, "tables", table, IN_TABLES[kind], name)
    if kind in ("function", "function_permission"):
        name = qualified_text(definition.get("function", definition))
        parts = ("permissions", definition.get("role")) if kind == "function_permission" else ()
        return _until_none("sources", source, "functions", name, *parts)
    return _other_steps(kind, source, definition)


def _other_steps(kind, source, definition):
    if kind in IN_SOURCES:
        section, key = IN_SOURCES[kind]
        return _until_none("sources", source, section, definition.get(key, definition.get("name")))
    if kind == "remote_schema_permission":
        name = definition.get("remote_schema", definition.get("name"))
        return _until_none("remote_schemas", name, "permissions", definition.get("role"))
    if kind == "action_permission":
        name = definition.get("action", definition.get("name"))
        return _until_none("actions", name, "permissions", definition.get("role"))
    name = definition.get("role_name", definition.get("collection_name", definition.get("name")))
    return _until_none(IN_DOCUMENT.get(kind), name)


def _until_none(*steps):
    return steps[: next((place for place, step in enumerate(steps) if not isinstance(step, str)), len(steps))]


def _source_of(name):
    """The source in the engine's words for an object ("table author in source default")."""
    words = name.rpartition(" in source ") if isinstance(name, str) else ("", "", "")
    return words[2] if words[1] else "default"
