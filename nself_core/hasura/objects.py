"""The objects of a metadata document: which keys each may and must have, of which kind, and what the server assumes.

One table for everybody who reads a document by meaning: identity, diff, merge, lint and validate. It is distilled
from the server's own schema (tests/test_hasura_objects.py holds it to that) and holds every backend's keys at once.
"""

from __future__ import annotations

from collections import namedtuple
from functools import cache

# How a kind is written: text number boolean any; name of an object or of FORMS below; "literal"; {x: key} a set of x
# by what identifies them, {x} a set of plain values, [x] an ordered list, [x: key] one whose items have names,
# <x> a mapping from any name to x; a|b either; ! required; = the default, which the server adds or drops.
# `sdl` is GraphQL text; `secret` a text that must not be shown; `opaque` how to connect, of which HARMLESS is shown.
OBJECTS = {
    "metadata": """
        version: number!; sources: {source: name} = [];
        tables: {table: table} = []; functions: {function: function} = [];
        remote_schemas: {remote_schema: name} = []; query_collections: {query_collection: name} = [];
        allowlist: {allowlist_entry: collection} = []; actions: {action: name} = []; custom_types: custom_types = {};
        cron_triggers: {cron_trigger: name} = []; rest_endpoints: {rest_endpoint: name} = [];
        api_limits: api_limits = {}; metrics_config: metrics_config = {};
        inherited_roles: {inherited_role: role_name} = []; graphql_schema_introspection: introspection = {};
        network: network = {}; backend_configs: backend_configs = {}; opentelemetry: opentelemetry = {}""",
    # Sources.
    "source": """
        name: text!; kind: source_kind = "postgres"; tables: {table: table}!; functions: {function: function} = [];
        native_queries: {native_query: root_field_name} = [];
        stored_procedures: {stored_procedure: stored_procedure} = []; logical_models: {logical_model: name} = [];
        configuration: configuration!; query_tags: query_tags; customization: customization = {};
        health_check: health_check""",
    "connection_configuration": """
        connection_info: connection_info!; read_replicas: [connection_info] = []; extensions_schema: text = "public";
        connection_template: connection_template; connection_set: [connection_set_member: name] = []""",
    "connection_set_member": "name: text!; connection_info: connection_info!",
    "connection_info": """
        database_url: database_url; connection_string: secret|from_env; pool_settings: pool_settings = {};
        use_prepared_statements: boolean = false; isolation_level: text = "read-committed";
        ssl_configuration: ssl_configuration""",
    "connection_parameters_url": "connection_parameters: opaque!",
    "connection_template": "template: any!; version: number = 1",
    "from_env": "from_env: text!",
    "pool_settings": """
        max_connections: number; total_max_connections: number; idle_timeout: number; retries: number;
        pool_timeout: number; connection_lifetime: number; enable: boolean = true""",
    "ssl_configuration": """
        sslmode: ssl_mode!; sslcert: from_env; sslkey: from_env; sslpassword: secret|from_env;
        sslrootcert: from_env""",
    "bigquery_configuration": """
        service_account: opaque!; project_id: text|number|from_env!; datasets: datasets!;
        global_select_limit: text|number|from_env; retry_limit: text|number|from_env;
        retry_base_delay: text|number|from_env""",
    "agent_configuration": "value: opaque!; template: secret; timeout: any; template_variables: <opaque> = {}",
    "query_tags": "disabled: boolean = false; format: text; omit_request_id: boolean = true",
    "customization": """
        root_fields: root_fields_customization = {}; type_names: affixes = {}; naming_convention: text""",
    "root_fields_customization": "namespace: text; prefix: text; suffix: text",
    "affixes": "prefix: text; suffix: text; mapping: <text> = {}",
    "health_check": """
        test: health_test = {}; interval: number!; retries: number = 3; retry_interval: number = 10;
        timeout: number = 10""",
    "health_test": 'sql: text = "SELECT 1"',
    # Tables.
    "table": """
        table: table_name!; is_enum: boolean = false; configuration: table_configuration = {};
        object_relationships: {object_relationship: name} = []; array_relationships: {array_relationship: name} = [];
        computed_fields: {computed_field: name} = []; remote_relationships: {remote_relationship: name} = [];
        insert_permissions: {insert_permission: role} = []; select_permissions: {select_permission: role} = [];
        update_permissions: {update_permission: role} = []; delete_permissions: {delete_permission: role} = [];
        event_triggers: {event_trigger: name} = []; apollo_federation_config: apollo_federation; logical_model: text""",
    "qualified": "name: text!; schema: text; dataset: text",
    "table_settings": """
        custom_name: text; custom_root_fields: table_root_fields = {}; column_config: <column_config> = {};
        custom_column_names: <text> = {}; comment: text""",
    "table_root_fields": """
        select: root_field; select_by_pk: root_field; select_aggregate: root_field; select_stream: root_field;
        insert: root_field; insert_one: root_field; update: root_field; update_by_pk: root_field;
        update_many: root_field; delete: root_field; delete_by_pk: root_field""",
    "named_field": "name: text; comment: text",
    "column_config": "custom_name: text; comment: text",
    "apollo_federation": "enable: text!",
    "object_relationship": "name: text!; using: object_using!; comment: text",
    "array_relationship": "name: text!; using: array_using!; comment: text",
    "object_using": """
        foreign_key_constraint_on: object_key; manual_configuration: manual_relationship""",
    "array_using": "foreign_key_constraint_on: array_key; manual_configuration: manual_relationship",
    "far_key": "table: table_name!; column: text; columns: {text}",
    "manual_relationship": """
        remote_table: table_name; remote_native_query: text; column_mapping: <text>!; insertion_order: text""",
    "computed_field": "name: text!; definition: computed_definition!; comment: text",
    "computed_definition": """
        function: function_name!; table_argument: text; session_argument: text; argument_mapping: <text>;
        return_table: table_name""",
    "remote_relationship": "name: text!; definition: remote_definition!",
    "to_source_definition": "to_source: to_source!",
    "to_schema_definition": "to_remote_schema: to_schema!",
    "to_source": """
        source: text!; table: table_name!; relationship_type: "object"|"array"!; field_mapping: <text>!""",
    "to_schema": "remote_schema: text!; lhs_fields: {text}!; remote_field: any!",
    "old_schema_definition": "remote_schema: text!; hasura_fields: {text}!; remote_field: any!",
    "insert_permission": "role: text!; permission: insert_rule!; comment: text",
    "select_permission": "role: text!; permission: select_rule!; comment: text",
    "update_permission": "role: text!; permission: update_rule!; comment: text",
    "delete_permission": "role: text!; permission: delete_rule!; comment: text",
    "insert_rule": """
        check: expression!; set: <any> = {}; columns: columns = "*"; backend_only: boolean = false;
        validate_input: validate_input""",
    "select_rule": """
        columns: columns!; computed_fields: {text} = []; filter: expression!; limit: number;
        allow_aggregations: boolean = false; query_root_fields: {text}; subscription_root_fields: {text}""",
    "update_rule": """
        columns: columns!; filter: expression!; check: expression; set: <any> = {}; backend_only: boolean = false;
        validate_input: validate_input""",
    "delete_rule": "filter: expression!; backend_only: boolean = false; validate_input: validate_input",
    "validate_input": "type: text!; definition: validate_definition!",
    "validate_definition": """
        url: text!; headers: headers = []; forward_client_headers: boolean = false; timeout: number = 10""",
    "event_trigger": """
        name: text!; definition: trigger_operations!; retry_conf: event_retry!; webhook: text; webhook_from_env: text;
        headers: headers = []; request_transform: request_transform; response_transform: response_transform;
        cleanup_config: cleanup_config; trigger_on_replication: boolean = false""",
    "trigger_operations": """
        insert: trigger_columns; update: trigger_columns; delete: trigger_columns; enable_manual: boolean = false""",
    "trigger_columns": "columns: columns!; payload: columns",
    "event_retry": "num_retries: number!; interval_sec: number!; timeout_sec: number = 60",
    "cleanup_config": """
        schedule: text!; clear_older_than: number!; batch_size: number = 10000; timeout: number = 60;
        clean_invocation_logs: boolean = false; paused: boolean = false""",
    "header": "name: text!; value: secret; value_from_env: text",
    # Functions, native queries, logical models.
    "function": """
        function: function_name!; configuration: function_configuration = {};
        permissions: {function_permission: role} = []; comment: text""",
    "function_configuration": """
        custom_name: text; custom_root_fields: function_root_fields = {}; session_argument: text;
        exposed_as: "query"|"mutation"; response: any""",
    "function_root_fields": "function: text; function_aggregate: text",
    "function_permission": "role: text!",
    "native_query": """
        root_field_name: text!; type: text; code: text!; arguments: <query_argument> = {}; returns: any!;
        description: text; object_relationships: {query_relationship: name} = [];
        array_relationships: {query_relationship: name} = []""",
    "query_argument": "type: text!; nullable: boolean = false; description: text",
    "query_relationship": "name: text!; using: query_using!; comment: text",
    "query_using": """
        manual_configuration: manual_relationship; remote_table: table_name; remote_native_query: text;
        column_mapping: <text>; insertion_order: text""",
    "stored_procedure": """
        stored_procedure: function_name!; configuration: procedure_configuration!; returns: text!;
        arguments: <query_argument> = {}; description: text""",
    "procedure_configuration": "exposed_as: text!; custom_name: text",
    "logical_model": """
        name: text!; fields: model_fields!; description: text;
        select_permissions: {select_permission: role} = []""",
    "model_field": "name: text!; type: any!; description: text",
    # Remote schemas.
    "remote_schema": """
        name: text!; definition: schema_definition!; comment: text; permissions: {schema_permission: role} = [];
        remote_relationships: {type_relationships: type_name} = []""",
    "schema_definition": """
        url: text; url_from_env: text; timeout_seconds: number = 60; customization: schema_customization = {};
        headers: headers = []; forward_client_headers: boolean = false""",
    "schema_customization": """
        root_fields_namespace: text; type_names: affixes = {}; field_names: {field_names: parent_type} = []""",
    "field_names": "parent_type: text!; prefix: text; suffix: text; mapping: <text> = {}",
    "schema_permission": "role: text!; definition: permitted_schema!; comment: text",
    "permitted_schema": "schema: sdl!",
    "type_relationships": "type_name: text!; relationships: {remote_relationship: name} = []",
    # Actions and their types.
    "action": """
        name: text!; definition: action_definition!; comment: text; permissions: {action_permission: role} = []""",
    "action_definition": """
        kind: text = "synchronous"; type: "query"|"mutation" = "mutation"; handler: text!;
        arguments: [argument: name] = []; output_type: sdl; forward_client_headers: boolean = false;
        headers: headers = []; timeout: number = 30; ignored_client_headers: {text} = ["Content-Length", "Content-MD5",
        "User-Agent", "Host", "Origin", "Referer", "Accept", "Accept-Encoding", "Accept-Language", "Accept-Datetime",
        "Cache-Control", "Connection", "DNT", "Content-Type"];
        request_transform: request_transform; response_transform: response_transform""",
    "argument": "name: text!; type: sdl!; description: text",
    "action_permission": "role: text!; comment: text",
    "custom_types": """
        input_objects: {input_object: name} = []; objects: {object_type: name} = []; scalars: {scalar: name} = [];
        enums: {enum: name} = []""",
    "input_object": "name: text!; fields: [argument: name]!; description: text",
    "object_type": """
        name: text!; fields: [object_field: name]!; description: text;
        relationships: {custom_relationship: name} = []""",
    "object_field": "name: text!; type: sdl!; arguments: any; description: text",
    "custom_relationship": """
        name: text!; type: "object"|"array"!; remote_table: table_name!; field_mapping: <text>!;
        source: text = "default\"""",
    "scalar": "name: text!; description: text",
    "enum": "name: text!; values: [enum_value: value]!; description: text",
    "enum_value": "value: text!; description: text; is_deprecated: boolean = false",
    "request_transform": """
        version: number = 1; method: text; url: text; body: any; content_type: text; query_params: any;
        request_headers: request_headers = {}; template_engine: text = "Kriti\"""",
    "request_headers": "add_headers: <secret> = {}; remove_headers: {text} = []",
    "response_transform": 'version: number = 1; body: any; template_engine: text = "Kriti"',
    # The other sections.
    "query_collection": "name: text!; definition: collection_definition!; comment: text",
    "collection_definition": "queries: {collection_query: name}!",
    "collection_query": "name: text!; query: sdl!",
    "allowlist_entry": 'collection: text!; scope: allowlist_scope = {"global": true}',
    "allowlist_scope": "global: boolean!; roles: {text}",
    "cron_trigger": """
        name: text!; webhook: text!; schedule: text!; include_in_metadata: boolean!; payload: any;
        retry_conf: cron_retry = {}; headers: headers = []; comment: text; request_transform: request_transform;
        response_transform: response_transform""",
    "cron_retry": """
        num_retries: number = 0; retry_interval_seconds: number = 10; timeout_seconds: number = 60;
        tolerance_seconds: number = 21600""",
    "rest_endpoint": """
        name: text!; url: text!; methods: {text}!; definition: rest_definition!; comment: text""",
    "rest_definition": "query: query_reference!",
    "query_reference": "collection_name: text!; query_name: text!",
    "inherited_role": "role_name: text!; role_set: {text}!",
    "api_limits": """
        disabled: boolean = false; rate_limit: rate_limit; depth_limit: number_limit; node_limit: number_limit;
        time_limit: number_limit; batch_limit: number_limit""",
    "number_limit": "global: number!; per_role: <number> = {}",
    "rate_limit": "global: rate!; per_role: <rate> = {}",
    "rate": "max_reqs_per_min: number!; unique_params: any",
    "metrics_config": "analyze_query_variables: boolean = false; analyze_response_body: boolean = false",
    "introspection_options": "disabled_for_roles: {text} = []",
    "network": "tls_allowlist: {tls_host: host} = []",
    "tls_host": "host: text!; suffix: text; permissions: {text} = []",
    "backend_configs": """
        dataconnector: <agent> = {}; postgres: any; citus: any; cockroach: any; mssql: any; bigquery: any""",
    "agent": "uri: text|from_env!; display_name: text",
    "opentelemetry": """
        status: text|from_env = "disabled"; data_types: {text} = []; exporter_otlp: otlp_exporter = {};
        batch_span_processor: span_processor = {}""",
    "otlp_exporter": """
        headers: headers = []; protocol: text = "http/protobuf"; resource_attributes: {attribute: name} = [];
        otlp_traces_endpoint: text|from_env; otlp_metrics_endpoint: text|from_env; otlp_logs_endpoint: text|from_env;
        traces_propagators: {text} = ["b3"]""",
    "attribute": "name: text!; value: text!",
    "span_processor": "max_export_batch_size: number = 512",
}

# Objects with places for secrets: what the schema does not know in them, or not in that form, is taken for one.
GUARDED = (
    "header", "request_headers", "from_env", "connection_configuration", "connection_set_member", "connection_info",
    "connection_parameters_url", "connection_template", "pool_settings", "ssl_configuration", "bigquery_configuration",
    "agent_configuration",
)  # fmt: skip

HARMLESS = ("client_email", "database", "host", "port", "project_id", "schema", "user", "username")

# Values that several forms can have, under the name by which `canonical` knows them.
FORMS = {
    "source_kind": "text",
    "configuration": "connection_configuration|bigquery_configuration|agent_configuration",
    "database_url": "secret|from_env|connection_parameters_url",
    "ssl_mode": '"disable"|"allow"|"prefer"|"require"|"verify-ca"|"verify-full"|from_env',
    "datasets": "{text}|from_env",
    "table_name": "text|qualified|[text]",
    "function_name": "text|qualified|[text]",
    "table_configuration": "table_settings",
    "root_field": "text|named_field",
    "model_fields": "[model_field: name]|<any>",
    "object_key": "text|{text}|far_key",
    "array_key": "far_key",
    "remote_definition": "to_source_definition|to_schema_definition|old_schema_definition",
    "columns": '"*"|{text}',
    "headers": "{header: name}",
    "expression": "any",
    "introspection": "introspection_options|{text}",
}

# At least one of these must be there, and the engine takes no more than one of them.
EXACTLY_ONE = {
    "header": ("value", "value_from_env"),
    "event_trigger": ("webhook", "webhook_from_env"),
    "schema_definition": ("url", "url_from_env"),
    "far_key": ("column", "columns"),
    "object_using": ("foreign_key_constraint_on", "manual_configuration"),
    "array_using": ("foreign_key_constraint_on", "manual_configuration"),
    "manual_relationship": ("remote_table", "remote_native_query"),
    "connection_info": ("database_url", "connection_string"),
}

SCALARS = ("text", "number", "boolean", "any", "sdl", "secret", "opaque")


class _Absent:
    """The type of ABSENT, which is what a key that is not there has for its value."""

    def __repr__(self):
        return "ABSENT"


ABSENT = _Absent()

Spec = namedtuple("Spec", "name kinds required default guards", defaults=(False, ABSENT, False))
Spec.__doc__ = """What a value may be: the `name` of its object or form ("" for none), the Kinds it may have, whether
its key is `required`, the `default` that the server assumes where it is not there (ABSENT for none), and whether it
`guards` secrets: what has none of its Kinds must not be shown."""

Kind = namedtuple("Kind", "form item key", defaults=(None, ""))
Kind.__doc__ = """One kind of value. `form` is "object" (a mapping with the keys of OBJECTS[item]), "map" (any names, to
Spec `item`), "set" or "list" (of Spec `item`, which `key` identifies; "" for plain values), "literal" (just `item`),
or one of SCALARS."""


def root():
    """The Spec of a whole document."""
    return spec_of("metadata")


@cache
def keys_of(name):
    """The Specs of an object's keys by name. Argument: `name`, one of OBJECTS."""
    entries = (entry.strip().split(": ", 1) for entry in OBJECTS[name].split(";"))
    specs = {key: spec_of(kind) for key, kind in entries}
    return {key: spec._replace(guards=spec.guards or name in GUARDED) for key, spec in specs.items()}


@cache
def spec_of(text):
    """The Spec of a value whose kind is written as in OBJECTS."""
    text, has_default, default = text.partition(" = ")
    required = text.endswith("!")
    name = text.rstrip("!")
    forms = FORMS.get(name, name)
    kinds = tuple(_kind(part) for part in forms.split("|"))
    return Spec(
        name if name in FORMS or name in OBJECTS else "",
        kinds,
        required,
        _json(default) if has_default else ABSENT,
        any(map(_guards, kinds)),
    )


def _guards(kind):
    if isinstance(kind.item, Spec):
        return kind.item.guards
    return kind.form in ("secret", "opaque") or (kind.form == "object" and kind.item in GUARDED)


def _json(text):
    import json

    return json.loads(text)


def _kind(text):
    if text in SCALARS:
        return Kind(text)
    if text in OBJECTS:
        return Kind("object", text)
    if text.startswith('"'):
        return Kind("literal", text.strip('"'))
    item, _, key = text[1:-1].partition(": ")
    return Kind({"{": "set", "[": "list", "<": "map"}[text[0]], spec_of(item), key)


ANY = spec_of("any")
# What a key has that the server's schema does not name, and all that is inside a value of kind any.
UNKNOWN = Spec("unknown", ANY.kinds)
# The same where it is a secret, with all that is inside it.
HIDDEN = Spec("hidden", ANY.kinds, guards=True)
EXPRESSION = spec_of("expression")


def kind_of(spec, value):
    """The Kind of `spec` that `value` has the form of, None where it has none.

    Of several objects it is the first whose required keys are all there, else the one that shares most keys.
    """
    if isinstance(value, dict):
        return _mapping_kind(spec, value)
    forms = ("set", "list") if isinstance(value, list) else SCALARS + ("literal",)
    fitting = [kind for kind in spec.kinds if kind.form in forms or kind.form in ("any", "opaque")]
    return next((kind for kind in fitting if kind.form != "literal" or kind.item == value), None)


def _mapping_kind(spec, value):
    fitting = [kind for kind in spec.kinds if kind.form in ("object", "map", "any", "opaque")]
    if len(fitting) < 2:
        return fitting[0] if fitting else None
    return max(fitting, key=lambda kind: _likeness(kind, value))


def _likeness(kind, value):
    keys = keys_of(kind.item) if kind.form == "object" else {}
    complete = all(key in value for key, spec in keys.items() if spec.required)
    return complete, sum(key in value for key in keys)


def below(spec, value, key):
    """The Spec of what stands under `key` (a name or an index) in `value`, which is of `spec`."""
    kind = kind_of(spec, value)
    if spec is HIDDEN or (kind is None and spec.guards):
        return HIDDEN
    if kind is None:
        return _left_open(UNKNOWN, key)
    if kind.form == "object":
        return key_of(kind.item, key)
    if kind.form == "opaque":
        is_harmless = key in HARMLESS and isinstance(value, dict) and not isinstance(value.get(key), (dict, list))
        return UNKNOWN if is_harmless else HIDDEN
    if kind.form == "any":
        return _of_anything(spec, value, key)
    return kind.item if isinstance(kind.item, Spec) else UNKNOWN


def key_of(name, key):
    """The Spec of a key of the object `name`, also of one that the schema does not know."""
    return keys_of(name).get(key) or (HIDDEN if name in GUARDED else _left_open(UNKNOWN, key))


def _left_open(spec, key):
    """`spec`, of what the schema leaves open, or HIDDEN where the key it stands under names a secret."""
    return HIDDEN if isinstance(key, str) and sounds_secret(key) else spec


def _of_anything(spec, value, key):
    if spec.name != EXPRESSION.name:
        return _left_open(UNKNOWN, key)
    # That a column's name sounds secret says nothing of what the column is compared with.
    is_column = isinstance(value, list) or isinstance(value.get(key), (dict, list))
    return EXPRESSION if is_column else _left_open(EXPRESSION, key)


def sounds_secret(key):
    """Whether a key of a part that the schema leaves open names a secret."""
    from nself_core.redaction import is_secret_key

    return is_secret_key(key) or key.lower() in ("connection_string", "database_url", "headers", "jdbc_url")


# One form for each value that can be written in several.


def canonical(spec, value):
    """`value` in the one form that the engine means by it, for comparing; the value itself where it has that form.

    A bare table name is in schema public, one column is a list of one, a root field's bare name is a mapping, and
    `custom_column_names` is what `column_config` says.
    """
    change = CANONICAL.get(spec.name)
    return change(value) if change else value


def _canonical_kind(value):
    return "postgres" if value == "pg" else value


def _canonical_name(value):
    if isinstance(value, str):
        return {"name": value, "schema": "public"}
    if isinstance(value, dict) and "schema" not in value and "dataset" not in value:
        return {**value, "schema": "public"}
    return value


def _canonical_key(value):
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict) and "column" in value and "columns" not in value:
        others = {key: item for key, item in value.items() if key != "column"}
        return {**others, "columns": [value["column"]]}
    return value


def _canonical_field(value):
    return {"name": value} if isinstance(value, str) else value


def _canonical_settings(value):
    names = value.get("custom_column_names") if isinstance(value, dict) else None
    config = value.get("column_config", {}) if isinstance(value, dict) else None
    if not isinstance(names, dict) or not isinstance(config, dict):
        return value
    named = {column: {"custom_name": name} for column, name in names.items()}
    merged = {column: item for column, item in config.items() if column not in named}
    for column, item in named.items():
        merged[column] = {**item, **config[column]} if isinstance(config.get(column), dict) else item
    return {**{key: item for key, item in value.items() if key != "custom_column_names"}, "column_config": merged}


def _canonical_roles(value):
    return {"disabled_for_roles": value} if isinstance(value, list) else value


CANONICAL = {
    "source_kind": _canonical_kind,
    "table_name": _canonical_name,
    "function_name": _canonical_name,
    "object_key": _canonical_key,
    "array_key": _canonical_key,
    "root_field": _canonical_field,
    "table_configuration": _canonical_settings,
    "introspection": _canonical_roles,
}
