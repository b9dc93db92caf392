"""The table of the metadata's objects, held to the server's own schema where that is at hand."""

from __future__ import annotations

import json

import pytest
from bed.gaps import SHARED, wants_shared

from nself_core.hasura.objects import ABSENT, EXACTLY_ONE, FORMS, OBJECTS, Spec, keys_of, kind_of, root, spec_of

# What we take and the schema does not have, with its reason.
BEYOND_THE_SCHEMA = {
    "metadata": {"tables", "functions"},  # documents of version 2
    "connection_set_member": {"name", "connection_info"},  # the schema leaves connection sets open
    "qualified": {"dataset"},  # BigQuery's names
    "query_using": {"manual_configuration"},  # how the documentation writes them
    "native_query": {"type"},  # the server writes it: "query"
    "request_transform": {"content_type"},  # version 1, in upstream's goldens
    "pool_settings": {"enable"},  # MSSQL
    "remote_schema": {"name", "definition", "comment", "permissions", "remote_relationships"},  # see `reading`
    "introspection_options": {"disabled_for_roles"},  # the schema says an array, the server sends this
}
# Keys that the schema asks for and we do not, because not every alternative does.
NOT_REQUIRED_HERE = {
    "action_definition": {"output_type", "type"},  # asynchronous actions have none, and mutation is assumed
    "query_using": {"column_mapping"},
    "affixes": {"mapping"},  # required of a remote schema's, unknown to a source's
    "field_names": {"mapping"},  # the server writes none that is empty
    "metadata": {"sources"},  # documents of version 2
    "metrics_config": {
        "analyze_query_variables",
        "analyze_response_body",
    },  # `{}` is what an empty section is written as
    "source": {"kind"},  # postgres is assumed
}
# Their defaults are other ones on other databases than Postgres, or not what the server sends.
DEFAULTS_BY_BACKEND = {
    "schema", "trigger_on_replication", "idle_timeout", "max_connections", "graphql_schema_introspection",
}  # fmt: skip


@pytest.fixture(scope="module")
def schema():
    with open(SHARED / "hasura-schema" / "metadata.openapi.json", encoding="utf-8") as file:
        return json.load(file)["components"]["schemas"]


class Reading:
    """The schema read beside our table: what each of our objects is in it."""

    def __init__(self, schemas):
        self.schemas = schemas
        self.keys: dict = {}
        self.required: dict = {}
        self.defaults: dict = {}
        self._seen: set = set()

    def read(self, schema, spec):
        name = schema.get("$ref", "").rpartition("/")[2]
        if (name, str(spec)) in self._seen:
            return
        if name:
            self._seen.add((name, str(spec)))
            schema = self.schemas[name]
        for part in schema.get("oneOf", []) + schema.get("anyOf", []):
            self.read(part, spec)
        if "properties" in schema:
            self._read_object(schema, spec)
        for inner in (schema.get("items"), schema.get("additionalProperties")):
            kinds = [kind for kind in spec.kinds if isinstance(kind.item, Spec)]
            if isinstance(inner, dict) and kinds:
                self.read(inner, kinds[0].item)

    def _read_object(self, schema, spec):
        properties = schema["properties"]
        kind = kind_of(spec, dict.fromkeys(properties))
        if kind is None or kind.form in ("any", "opaque"):
            return
        assert kind.form == "object", (spec, list(properties))
        required = set(schema.get("required", []))
        self.keys.setdefault(kind.item, set()).update(properties)
        self.required[kind.item] = self.required.get(kind.item, required) & required
        for key, inner in properties.items():
            if "default" in inner:
                self.defaults[kind.item, key] = inner["default"]
            if key in keys_of(kind.item):
                self.read(inner, keys_of(kind.item)[key])


@pytest.fixture(scope="module")
def reading(schema):
    reading = Reading(schema)
    # The schema's generator gives two objects one name, and so lost that of a remote schema itself.
    del schema["MetadataV3"]["properties"]["remote_schemas"]
    for name, ours in (
        ("MetadataV3", "metadata"), ("RemoteSchemaDef", "schema_definition"),
        ("RemoteSchemaPermissionMetadata", "schema_permission"),
        ("RemoteSchemaMetadata_RemoteRelationshipDefinition", "type_relationships"),
    ):  # fmt: skip
        reading.read({"$ref": f"#/components/schemas/{name}"}, spec_of(ours))
    reading.keys["metadata"].add("remote_schemas")
    return reading


@wants_shared("hasura-schema")
def test_every_key_of_the_schema_is_known_and_no_other(reading):
    for name in OBJECTS:
        ours = set(keys_of(name))
        theirs = reading.keys.get(name, set())
        assert theirs <= ours, f"{name}: unknown {theirs - ours}"
        assert ours - theirs <= BEYOND_THE_SCHEMA.get(name, set()), f"{name}: {ours - theirs} stand nowhere"


@wants_shared("hasura-schema")
def test_no_key_is_required_that_the_schema_does_not_require(reading):
    for name, theirs in reading.required.items():
        ours = {key for key, spec in keys_of(name).items() if spec.required}
        optional = set(EXACTLY_ONE.get(name, ())) | NOT_REQUIRED_HERE.get(name, set())
        assert ours <= theirs | BEYOND_THE_SCHEMA.get(name, set()), f"{name}: {ours - theirs}"
        assert theirs - ours <= optional, f"{name}: {theirs - ours}"


@wants_shared("hasura-schema")
def test_the_defaults_are_the_schemas(reading):
    for (name, key), default in reading.defaults.items():
        ours = keys_of(name)[key].default
        if default is None or key in DEFAULTS_BY_BACKEND:
            continue
        assert ours is not ABSENT, f"{name}.{key} has the default {default}"
        assert ours == default, f"{name}.{key}"


def test_every_object_and_form_is_used():
    used: set = set()

    def collect(spec):
        for kind in spec.kinds:
            if kind.form == "object" and kind.item not in used:
                used.add(kind.item)
                for inner in keys_of(kind.item).values():
                    collect(inner)
            elif isinstance(kind.item, Spec):
                collect(kind.item)

    collect(root())
    assert used == set(OBJECTS)
    texts = " ".join(OBJECTS.values())
    assert all(f": {name}" in texts for name in FORMS)


def test_a_kind_is_found_by_what_the_value_has():
    definition = spec_of("remote_definition")
    assert kind_of(definition, {"to_source": {}}).item == "to_source_definition"
    assert kind_of(definition, {"hasura_fields": [], "remote_schema": "x", "remote_field": {}}).item.startswith("old")
    assert kind_of(spec_of("columns"), "*").form == "literal"
    assert kind_of(spec_of("columns"), "id") is None
    assert kind_of(spec_of("text"), {"a": 1}) is None
