"""A metadata document as the engine's server holds it: its canonical form, and what each request does to it. Pure.

Key order, what is left out, and the words of the errors are upstream's (RQL/Types/Metadata/Serialization.hs, RQL/DDL).
"""

from __future__ import annotations

import copy
import operator

from .hasura_catalogue import VERBS, key_of, shown

TOP = (
    "version", "sources", "remote_schemas", "query_collections", "allowlist", "actions", "custom_types",
    "cron_triggers", "rest_endpoints", "api_limits", "metrics_config", "inherited_roles",
    "graphql_schema_introspection", "network", "backend_configs", "opentelemetry",
)  # fmt: skip
SOURCE = (
    "name", "kind", "tables", "functions", "native_queries", "stored_procedures", "logical_models", "configuration",
    "query_tags", "customization", "health_check",
)  # fmt: skip
RELATIONSHIP_LISTS = ("object_relationships", "array_relationships")
TABLE = (
    "table", "is_enum", "configuration", *RELATIONSHIP_LISTS, "computed_fields", "remote_relationships",
    *(f"{verb}_permissions" for verb in VERBS), "event_triggers", "apollo_federation_config", "logical_model",
)  # fmt: skip
PERMISSION = (
    "columns", "computed_fields", "filter", "check", "set", "limit", "allow_aggregations", "backend_only",
    "query_root_fields", "subscription_root_fields", "validate_input",
)  # fmt: skip
SORTED_BY = {
    "remote_schemas": "name", "query_collections": "name", "allowlist": "collection", "actions": "name",
    "cron_triggers": "name", "rest_endpoints": "name", "inherited_roles": "role_name",
}  # fmt: skip
RETRY = {"interval_sec": 10, "num_retries": 0, "timeout_sec": 60}
EMPTY = (None, [], {}, False)


class Refusal(Exception):
    """An error of the API: its status and its body."""

    def __init__(self, code, error, path="$.args", status=400, internal=None):
        super().__init__(error)
        self.status = status
        self.body = {"code": code, "error": error, "path": path}
        if internal is not None:
            self.body["internal"] = internal


# The canonical form.


def canonical(document, configuration):
    """A document of version 1, 2 or 3 as the server would export it.

    Argument: `configuration`, that of source default, for a document that knows no sources.
    """
    if document.get("version", 2) != 3 and "sources" not in document:
        functions = document.get("functions", [])
        source = {"name": "default", "kind": "postgres", "tables": document.get("tables", []), "functions": functions}
        rest = {name: value for name, value in document.items() if name not in ("tables", "functions")}
        document = {**rest, "sources": [{**source, "configuration": configuration}]}
    whole = {**document, "version": 3, "sources": [_source(source) for source in document.get("sources", [])]}
    for name, field in SORTED_BY.items():
        if whole.get(name):
            whole[name] = sorted(whole[name], key=operator.itemgetter(field))
    return _ordered(whole, TOP, keep=("version", "sources"))


def _ordered(mapping, order, keep=()):
    return {name: mapping[name] for name in order if name in mapping and (name in keep or mapping[name] not in EMPTY)}


def _source(source):
    tables = [_table(entry) for entry in source.get("tables", [])]
    functions = [_function(item) for item in source.get("functions", [])]
    whole = {
        "kind": "postgres", **source,
        "tables": sorted(tables, key=lambda entry: str(entry["table"])),
        "functions": sorted(functions, key=lambda item: str(item["function"])),
    }  # fmt: skip
    return _ordered(whole, SOURCE, keep=("name", "kind", "tables", "configuration"))


def _name(name):
    if isinstance(name, list):
        return name
    return (
        {"name": name, "schema": "public"}
        if isinstance(name, str)
        else dict(sorted({"schema": "public", **name}.items()))
    )


def _function(item):
    if not isinstance(item, dict) or "function" not in item:
        item = {"function": item}
    return {**item, "function": _name(item["function"])}


def _table(entry):
    whole = {**entry, "table": _name(entry["table"])}
    if whole.get("configuration"):
        whole["configuration"] = _configuration(whole["configuration"])
    for name in RELATIONSHIP_LISTS:
        whole[name] = [{**item, "using": _using(item["using"])} for item in _by(whole.get(name), "name")]
    for verb in VERBS:
        name = f"{verb}_permissions"
        whole[name] = [{**item, "permission": _permission(verb, item["permission"])}
                       for item in _by(whole.get(name), "role")]  # fmt: skip
    for name in ("computed_fields", "remote_relationships"):
        whole[name] = _by(whole.get(name), "name")
    whole["computed_fields"] = [
        {**item, "definition": {**item["definition"], "function": _name(item["definition"]["function"])}}
        for item in whole["computed_fields"]
    ]
    whole["event_triggers"] = [_trigger(item) for item in _by(whole.get("event_triggers"), "name")]
    return _ordered(whole, TABLE, keep=("table",))


def _by(items, field):
    kept = [{name: value for name, value in item.items() if name != "comment" or value} for item in items or ()]
    return sorted(kept, key=lambda item: item[field])


def _configuration(configuration):
    names = configuration.get("custom_column_names") or {}
    columns = {name: {"custom_name": value} for name, value in names.items()}
    columns.update(configuration.get("column_config") or {})
    rest = {
        name: value for name, value in configuration.items() if name not in ("custom_column_names", "column_config")
    }
    whole = {"column_config": columns, **rest}
    return {name: value for name, value in sorted(whole.items()) if value not in EMPTY}


def _using(using):
    told = using.get("foreign_key_constraint_on")
    if isinstance(told, dict):
        return {"foreign_key_constraint_on": dict(sorted({**told, "table": _name(told["table"])}.items()))}
    if told is not None:
        return {"foreign_key_constraint_on": told}
    manual = {"insertion_order": None, **using["manual_configuration"]}
    manual["remote_table"] = _name(manual["remote_table"])
    return {"manual_configuration": dict(sorted(manual.items()))}


def _permission(verb, permission):
    always = {"insert": ("check",), "select": ("columns", "filter"), "update": ("columns", "filter", "check"),
              "delete": ("filter",)}[verb]  # fmt: skip
    whole = {"check": None, **permission} if verb == "update" else dict(permission)
    order = [name for name in PERMISSION if name not in ("filter", "check")]
    order[1:1] = ["check", "filter"] if verb == "insert" else ["filter", "check"]
    keep = (*always, *(("columns",) if verb == "insert" and permission.get("columns") else ()))
    return _ordered(whole, order, keep)


def _trigger(item):
    definition = {"enable_manual": False, **item["definition"]}
    return {**item, "definition": definition, "retry_conf": {**RETRY, **(item.get("retry_conf") or {})}}


# Finding things.


def find_source(document, name):
    """The source of this name. Raises Refusal."""
    for source in document["sources"]:
        if source["name"] == name:
            return source
    raise Refusal("not-exists", f'source with name "{name}" does not exist')


def find_entry(document, args):
    """The tracked table that a request's `source` and `table` name. Raises Refusal."""
    source = find_source(document, args.get("source", "default"))
    key = key_of(args["table"])
    for entry in source["tables"]:
        if key_of(entry["table"]) == key:
            return entry
    raise Refusal("not-exists", f'table "{shown(key)}" does not exist in source: {source["name"]}')


def _put(items, field, item, what):
    if any(other[field] == item[field] for other in items):
        raise Refusal("already-exists", f'{what} "{item[field]}" already exists')
    items.append(item)


def _take(items, field, name, what):
    for position, item in enumerate(items):
        if item[field] == name:
            return items.pop(position)
    raise Refusal("not-exists", f'{what} "{name}" does not exist')


# The requests. Each changes the document it is given.


def add_source(document, args):
    """pg_add_source."""
    name = args["name"]
    if any(source["name"] == name for source in document["sources"]) and not args.get("replace_configuration"):
        raise Refusal("already-exists", f'source with name "{name}" already exists')
    kept = [source for source in document["sources"] if source["name"] != name]
    rest = {part: args[part] for part in ("configuration", "customization") if part in args}
    document["sources"] = [*kept, {"name": name, "kind": "postgres", "tables": [], **rest}]


def drop_source(document, args):
    """pg_drop_source."""
    document["sources"].remove(find_source(document, args["name"]))


def rename_source(document, args):
    """rename_source."""
    find_source(document, args["name"])["name"] = args["new_name"]


def track_table(document, args):
    """pg_track_table, and track_table of versions 1 (a bare name) and 2."""
    args = args if isinstance(args, dict) and "table" in args else {"table": args}
    source, key = find_source(document, args.get("source", "default")), key_of(args["table"])
    if any(key_of(entry["table"]) == key for entry in source["tables"]):
        raise Refusal("already-tracked", f'view/table already tracked: "{shown(key)}"')
    rest = {name: args[name] for name in ("configuration", "is_enum", "apollo_federation_config") if args.get(name)}
    source["tables"].append({"table": args["table"], **rest})


def untrack_table(document, args):
    """pg_untrack_table."""
    find_source(document, args.get("source", "default"))["tables"].remove(find_entry(document, args))


def set_table_is_enum(document, args):
    """pg_set_table_is_enum."""
    find_entry(document, args)["is_enum"] = args["is_enum"]


def set_table_customization(document, args):
    """pg_set_table_customization."""
    find_entry(document, args)["configuration"] = args.get("configuration", {})


def track_function(document, args):
    """pg_track_function, and track_function of versions 1 (a bare name) and 2."""
    args = args if isinstance(args, dict) and "function" in args else {"function": args}
    functions = find_source(document, args.get("source", "default")).setdefault("functions", [])
    key = key_of(args["function"])
    if any(key_of(item["function"]) == key for item in functions):
        raise Refusal("already-tracked", f'function already tracked: "{shown(key)}"')
    functions.append({name: value for name, value in args.items() if name != "source"})


def untrack_function(document, args):
    """pg_untrack_function."""
    args = args if isinstance(args, dict) and "function" in args else {"function": args}
    functions = find_source(document, args.get("source", "default")).get("functions", [])
    key = key_of(args["function"])
    for item in functions:
        if key_of(item["function"]) == key:
            functions.remove(item)
            return
    raise Refusal("not-exists", f'function "{shown(key)}" does not exist')


def _creates(part, field, what):
    def create(document, args):
        item = {name: value for name, value in args.items() if name not in ("table", "source")}
        _put(find_entry(document, args).setdefault(part, []), field, item, what)

    return create


def _drops(parts, argument, field, what):
    def drop(document, args):
        entry = find_entry(document, args)
        name = args[argument]
        for part in parts:
            if any(item[field] == name for item in entry.get(part, [])):
                _take(entry[part], field, name, what)
                return
        raise Refusal("not-exists", f'{what} "{name}" does not exist')

    return drop


def create_event_trigger(document, args):
    """pg_create_event_trigger, whose definition stands flat in its arguments."""
    definition = {name: args[name] for name in ("enable_manual", "insert", "update", "delete") if name in args}
    names = ("name", "webhook", "webhook_from_env", "retry_conf", "headers", "request_transform")
    item = {name: args[name] for name in names if name in args}
    triggers = find_entry(document, args).setdefault("event_triggers", [])
    _put(triggers, "name", {**item, "definition": definition}, "event trigger")


def create_collection(document, args):
    """create_query_collection."""
    _put(document.setdefault("query_collections", []), "name", args, "query collection")


def drop_collection(document, args):
    """drop_query_collection; with `cascade`, out of the allow list too."""
    name = args["collection"]
    listed = [item for item in document.get("allowlist", []) if item["collection"] == name]
    if listed and not args.get("cascade"):
        raise Refusal("dependency-error", f'query collection with name "{name}" is present in the allowlist')
    _take(document.get("query_collections", []), "name", name, "query collection")
    document["allowlist"] = [item for item in document.get("allowlist", []) if item not in listed]


def allow_collection(document, args):
    """add_collection_to_allowlist."""
    if not any(item["name"] == args["collection"] for item in document.get("query_collections", [])):
        raise Refusal("not-exists", f'query collection with name "{args["collection"]}" does not exist')
    _put(document.setdefault("allowlist", []), "collection", args, "collection")


def clear(document, args):
    """clear_metadata: an empty source default stays where there was one."""
    kept = [source for source in document["sources"] if source["name"] == "default"]
    document.clear()
    document["version"] = 3
    document["sources"] = [{**source, "tables": [], "functions": []} for source in kept]


CHANGES = {
    "add_source": add_source,
    "drop_source": drop_source,
    "rename_source": rename_source,
    "track_table": track_table,
    "untrack_table": untrack_table,
    "set_table_is_enum": set_table_is_enum,
    "set_table_customization": set_table_customization,
    "track_function": track_function,
    "untrack_function": untrack_function,
    "create_object_relationship": _creates("object_relationships", "name", "relationship"),
    "create_array_relationship": _creates("array_relationships", "name", "relationship"),
    "create_remote_relationship": _creates("remote_relationships", "name", "remote relationship"),
    "drop_relationship": _drops(RELATIONSHIP_LISTS, "relationship", "name", "relationship"),
    "add_computed_field": _creates("computed_fields", "name", "computed field"),
    "drop_computed_field": _drops(("computed_fields",), "name", "name", "computed field"),
    "create_event_trigger": create_event_trigger,
    "create_query_collection": create_collection,
    "drop_query_collection": drop_collection,
    "add_collection_to_allowlist": allow_collection,
    "clear_metadata": clear,
    **{f"create_{verb}_permission": _creates(f"{verb}_permissions", "role", "permission") for verb in VERBS},
    **{f"drop_{verb}_permission": _drops((f"{verb}_permissions",), "role", "role", "permission") for verb in VERBS},
}


def changed(document, request_type, args):
    """The document after one request of CHANGES. Raises Refusal."""
    after = copy.deepcopy(document)
    try:
        CHANGES[request_type](after, args)
    except (KeyError, TypeError) as error:
        raise Refusal("parse-failed", f"the key {error} was not present") from error
    return after


# What is left when objects are taken out.


def without(document, objects):
    """The document less the given inconsistent objects."""
    after = copy.deepcopy(document)
    for item in objects:
        definition = item["definition"]
        if item["type"] == "source":
            after["sources"] = [source for source in after["sources"] if source["name"] != definition]
            continue
        name = item["name"].rpartition(" in source ")[2]
        source = next(source for source in after["sources"] if source["name"] == name)
        _remove(source, item["type"], definition)
    return after


def _remove(source, kind, definition):
    if kind in ("table", "function"):
        items = source.get(f"{kind}s", [])
        items[:] = [item for item in items if key_of(item[kind]) != key_of(definition)]
        return
    part = {"object_relation": "object_relationships", "array_relation": "array_relationships"}.get(kind, f"{kind}s")
    field = "role" if kind.endswith("_permission") else "name"
    for entry in source["tables"]:
        if key_of(entry["table"]) == key_of(definition["table"]):
            entry[part] = [item for item in entry.get(part, []) if item[field] != definition[field]]
