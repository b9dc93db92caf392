"""Metadata documents for tests: upstream's recorded ones, and made ones that hypothesis shuffles and changes."""

from __future__ import annotations

import json
import os
import random

import yaml

from nself_core import yaml_reader

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DATA = os.path.join(os.path.dirname(REPOSITORY), "shared", "data")
GOLDEN = os.path.join(DATA, "hasura-golden")
REAL = os.path.join(DATA, "hasura-real")
SCHEMA = os.path.join(DATA, "hasura-schema", "metadata.openapi.json")

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
