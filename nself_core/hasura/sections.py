"""Which file of a metadata directory holds which part of the metadata, as Hasura's CLI lays it out."""

from __future__ import annotations

from collections import namedtuple

VERSION, DATABASES, ACTIONS, GRAPHQL = "version.yaml", "databases/databases.yaml", "actions.yaml", "actions.graphql"

Section = namedtuple("Section", "file key root empty")
Section.__doc__ = """One file that holds one key of the document: `root` is list or dict, `empty` the value that stands
for nothing in it."""

# Everything but version.yaml, the sources and the actions, in the order of the server's export.
PLAIN = (
    Section("remote_schemas.yaml", "remote_schemas", list, []),
    Section("query_collections.yaml", "query_collections", list, []),
    Section("allow_list.yaml", "allowlist", list, []),
    Section("cron_triggers.yaml", "cron_triggers", list, []),
    Section("rest_endpoints.yaml", "rest_endpoints", list, []),
    Section("api_limits.yaml", "api_limits", dict, {}),
    Section("metrics_config.yaml", "metrics_config", dict, {}),
    Section("inherited_roles.yaml", "inherited_roles", list, []),
    # The server does not take {} here.
    Section("graphql_schema_introspection.yaml", "graphql_schema_introspection", dict, {"disabled_for_roles": []}),
    Section("network.yaml", "network", dict, {}),
    Section("backend_configs.yaml", "backend_configs", dict, {}),
    Section("opentelemetry.yaml", "opentelemetry", dict, {}),
)
# What a directory of config v2 holds in place of its sources.
FLAT = (Section("tables.yaml", "tables", list, []), Section("functions.yaml", "functions", list, []))

# The document's keys in the order of the server's export.
ORDER = (
    "version", "sources", "tables", "functions", "remote_schemas", "query_collections", "allowlist", "actions",
    "custom_types", "cron_triggers", "rest_endpoints", "api_limits", "metrics_config", "inherited_roles",
    "graphql_schema_introspection", "network", "backend_configs", "opentelemetry",
)  # fmt: skip
# The file that makes a directory a tree, of config v3 and of v2. In one that is made anew it is written last.
LAST = (DATABASES, FLAT[0].file)

CUSTOM_TYPES = ("enums", "input_objects", "objects", "scalars")


def is_empty(section, value):
    """Whether `value` says no more than that the section is empty; the server leaves such out of its export."""
    return value in (None, [], {}) or value == section.empty


def in_server_order(document):
    """The document with its keys in the server's order, and those it does not know behind them."""
    known = {key: document[key] for key in ORDER if key in document}
    return {**known, **{key: value for key, value in document.items() if key not in known}}
