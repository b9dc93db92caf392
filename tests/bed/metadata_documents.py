"""Metadata documents for tests: upstream's recorded ones, and our own, that hypothesis shuffles and changes."""

from __future__ import annotations

import json
import os
import random

import yaml

from bed.gaps import SHARED
from bed.projects import REPOSITORY
from nself_core import yaml_reader

DATA = str(SHARED)
GOLDEN = os.path.join(DATA, "hasura-golden")
REAL = os.path.join(DATA, "hasura-real")

SECTIONS = {
    "remote_schemas.yaml": "remote_schemas", "query_collections.yaml": "query_collections",
    "allow_list.yaml": "allowlist", "cron_triggers.yaml": "cron_triggers", "network.yaml": "network",
    "rest_endpoints.yaml": "rest_endpoints", "inherited_roles.yaml": "inherited_roles",
    "opentelemetry.yaml": "opentelemetry", "backend_configs.yaml": "backend_configs", "api_limits.yaml": "api_limits",
    "graphql_schema_introspection.yaml": "graphql_schema_introspection", "metrics_config.yaml": "metrics_config",
    "tables.yaml": "tables", "functions.yaml": "functions",
}  # fmt: skip


def load(path):
    """What one YAML or JSON file holds, with its includes read; None for an empty one."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    if path.endswith(".json"):
        return json.loads(text)
    loader = yaml_reader.loader(yaml)
    loader.add_constructor("!include", lambda made, node: "!include " + made.construct_scalar(node))
    return _included(yaml.load(text, loader), os.path.dirname(path))


def _included(value, folder):
    if isinstance(value, list):
        return [_included(item, folder) for item in value]
    if isinstance(value, dict):
        return {key: _included(item, folder) for key, item in value.items()}
    if isinstance(value, str) and value.startswith("!include "):
        return load(os.path.join(folder, value[len("!include ") :].strip('"')))
    return value


def read_folder(folder):
    """The document of a metadata folder, its types without the fields that stand in actions.graphql."""
    document = load(os.path.join(folder, "version.yaml")) if _has(folder, "version.yaml") else {"version": 3}
    if _has(folder, "databases", "databases.yaml"):
        document["sources"] = load(os.path.join(folder, "databases", "databases.yaml"))
    for name, key in SECTIONS.items():
        if _has(folder, name):
            document[key] = load(os.path.join(folder, name))
    if _has(folder, "actions.yaml"):
        document.update(load(os.path.join(folder, "actions.yaml")) or {})
    types = document.get("custom_types")
    for entry in types["objects"] + types["input_objects"] if isinstance(types, dict) else []:
        entry["fields"] = []
    return document


def _has(folder, *names):
    return os.path.isfile(os.path.join(folder, *names))


def golden_documents():
    """Every recorded document as (path below the data folder, document): JSON files, single YAML files, folders."""
    for folder in (GOLDEN, REAL):
        for place, _folders, names in sorted(os.walk(folder)):
            for name in sorted(names):
                found = _document(place, name)
                if isinstance(found, dict):
                    yield os.path.relpath(os.path.join(place, name), DATA), found


def _document(place, name):
    is_recorded = "oracle" not in place and "inconsistent" not in place
    if name.endswith(".json") and is_recorded:
        return load(os.path.join(place, name))
    if name == "metadata.yaml" and is_recorded:
        return load(os.path.join(place, name))
    if name == "version.yaml" and (_has(place, "databases", "databases.yaml") or _has(place, "tables.yaml")):
        return read_folder(place)
    return None


def all_documents():
    """Every recorded document, where they are, and those of our own, as golden_documents gives them."""
    return [*golden_documents(), *own_documents()]


def own_documents():
    """The sample project's document, and made ones: of many tables alike, and of every section; as golden_documents."""
    yield "own/sample", read_folder(str(REPOSITORY / "hasura" / "metadata"))
    for name, document in (("own/tables", many_tables(3)), ("own/sections", EVERY_SECTION)):
        yield name, json.loads(json.dumps(document))  # no part of it is another one's too


AUTHOR, BOOK = ({"schema": "public", "name": name} for name in ("author", "Book shelf"))
OWN_ROWS = {"author_id": {"_eq": "X-Hasura-User-Id"}}
RETRIES = {"num_retries": 2, "interval_sec": 10, "timeout_sec": 60}
URL = {"connection_info": {"database_url": {"from_env": "URL"}}}
EVERY_SECTION = {
    "version": 3,
    "sources": [
        {"name": "default", "kind": "postgres", "configuration": URL,
         "customization": {"root_fields": {"prefix": "own_"}},
         "functions": [{"function": {"schema": "public", "name": "find_books"}, "permissions": [{"role": "reader"}]}],
         "tables": [
             {"table": AUTHOR,
              "configuration": {"custom_name": "Author", "column_config": {"id": {"custom_name": "key"}}},
              "array_relationships": [{"name": "books", "using": {"foreign_key_constraint_on": {
                  "column": "author_id", "table": BOOK}}}],
              "computed_fields": [{"name": "title", "definition": {"function": "author_title"}, "comment": "shown"}],
              "remote_relationships": [{"name": "sales", "definition": {"to_source": {
                  "source": "other", "table": "sales", "relationship_type": "array", "field_mapping": {"id": "who"}}}}],
              "select_permissions": [
                  {"role": "reader", "permission": {"columns": ["id", "name"], "filter": {}, "limit": 10,
                                                    "computed_fields": ["title"], "allow_aggregations": True}},
                  {"role": "writer", "comment": "all\nof it\n", "permission": {"columns": "*", "filter": {
                      "_or": [OWN_ROWS, {"books": {"pages": {"_in": [1, 2.5, True, None]}}}, {"_not": {}}]}}}]},
             {"table": BOOK, "is_enum": True,
              "object_relationships": [
                  {"name": "author", "using": {"foreign_key_constraint_on": "author_id"}},
                  {"name": "next", "using": {"manual_configuration": {
                      "remote_table": BOOK, "column_mapping": {"next": "id"}, "insertion_order": None}}}],
              "insert_permissions": [{"role": "writer", "permission": {
                  "check": OWN_ROWS, "columns": ["title"], "set": {"author_id": "x-hasura-user-id"}}}],
              "update_permissions": [{"role": "writer", "permission": {
                  "columns": ["title"], "filter": OWN_ROWS, "check": None}}],
              "delete_permissions": [{"role": "writer", "permission": {"filter": OWN_ROWS}}],
              "event_triggers": [{"name": "told", "webhook_from_env": "HOOK", "retry_conf": RETRIES, "definition": {
                  "enable_manual": False, "insert": {"columns": "*"}, "update": {"columns": ["title"]}}}]}]},
        {"name": "other", "kind": "postgres", "configuration": URL, "tables": [{"table": "sales"}]},
    ],
    "remote_schemas": [{
        "name": "shop", "comment": "of others",
        "definition": {"url_from_env": "SHOP", "timeout_seconds": 60, "headers": [
            {"name": "x-key", "value_from_env": "KEY"}, {"name": "x-from", "value": "us"}]},
        "permissions": [{"role": "reader", "definition": {"schema": "type Query {\n  price(of: Int!): Float\n}"}}],
    }],
    "query_collections": [{"name": "asked", "definition": {
        "queries": [{"name": "all", "query": "{ author { key } }"}]}}],
    "allowlist": [{"collection": "asked", "scope": {"global": True}}],
    "rest_endpoints": [{"name": "all", "url": "all", "methods": ["GET", "POST"], "definition": {
        "query": {"collection_name": "asked", "query_name": "all"}}}],
    "actions": [{"name": "login", "comment": "in", "permissions": [{"role": "reader"}], "definition": {
        "kind": "synchronous", "type": "mutation", "handler": "{{HOOKS}}/login", "output_type": "Session!",
        "arguments": [{"name": "who", "type": "Who!"}, {"name": "long", "type": "Boolean", "description": "stay"}]}}],
    "custom_types": {
        "input_objects": [{"name": "Who", "fields": [{"name": "name", "type": "String!"}]}],
        "objects": [{"name": "Session", "description": "begun", "fields": [
            {"name": "token", "type": "Token!"}, {"name": "kind", "type": "Kind"}]}],
        "scalars": [{"name": "Token"}],
        "enums": [{"name": "Kind", "values": [{"value": "LONG"}, {"value": "SHORT", "description": "a day"}]}],
    },
    "cron_triggers": [{"name": "nightly", "webhook": "{{HOOKS}}/night", "schedule": "0 0 * * *", "payload": {"a": [1]},
                       "include_in_metadata": True}],
    "network": {"tls_allowlist": [{"host": "inner", "suffix": "443"}]},
    "inherited_roles": [{"role_name": "editor", "role_set": ["reader", "writer"]}],
    "graphql_schema_introspection": {"disabled_for_roles": ["reader"]},
    "api_limits": {"disabled": False, "depth_limit": {"global": 5, "per_role": {"reader": 3}}},
}  # fmt: skip


def shuffled(document, seed):
    """A copy of a document with its keys, and the lists of it that are sets, in another order."""
    from nself_core.hasura.objects import root

    return _shuffled(root(), document, random.Random(seed))


def _shuffled(spec, value, chance):
    from nself_core.hasura.objects import below, kind_of

    if isinstance(value, dict):
        keys = list(value)
        chance.shuffle(keys)
        return {key: _shuffled(below(spec, value, key), value[key], chance) for key in keys}
    if isinstance(value, list):
        kind = kind_of(spec, value)
        items = [_shuffled(below(spec, value, index), item, chance) for index, item in enumerate(value)]
        if kind is not None and kind.form == "set":
            chance.shuffle(items)
        return items
    return value


def many_tables(count):
    """A document with so many tables, of about a hundred lines each as JSON."""
    return {"version": 3, "sources": [{
        "name": "default", "kind": "postgres",
        "configuration": {"connection_info": {"database_url": {"from_env": "URL"}}},
        "tables": [_table(number) for number in range(count)],
    }]}  # fmt: skip


def _table(number):
    columns = [f"column_{place}" for place in range(12)]
    own = {"column_0": {"_eq": "X-Hasura-User-Id"}}
    return {
        "table": {"schema": "public", "name": f"table_{number}"},
        "object_relationships": [{"name": "next", "using": {"foreign_key_constraint_on": "column_1"}}],
        "insert_permissions": [{"role": "user", "permission": {"check": own, "columns": columns}}],
        "select_permissions": [
            {"role": role, "permission": {"columns": columns, "filter": {"_or": [own, {"column_2": {"_gt": 1}}]}}}
            for role in ("user", "guest", "editor")
        ],
        "update_permissions": [{"role": "user", "permission": {"columns": columns, "filter": own, "check": None}}],
    }
