"""Whether a metadata document has the form the engine takes; upstream's own documents have."""

from __future__ import annotations

import copy

import pytest
from bed.gaps import wants_shared
from bed.metadata_documents import all_documents, golden_documents, own_documents
from hypothesis import given, settings
from hypothesis import strategies as st

from nself_core.hasura.validate import RULES, check_structure

DOCUMENTS = all_documents()
GOLDENS, OWN = list(golden_documents()), list(own_documents())

# Upstream's tests of single sections, whose content no engine would take, or whose other sections are left out.
MADE_UP = {
    "obj-allowlist-build-t1": {"unknown-reference"},  # the collection is not in the document
    "obj-allowlist-export": {"unknown-reference"},
    "obj-rest_endpoints-build-t1": {"unknown-reference"},
    "obj-rest_endpoints-export-t1": {"unknown-reference"},
    "obj-remoteschemas-build-t4": {"unknown-reference"},  # the source is not in the document
    "obj-remoteschemas-export-t5": {"unknown-reference"},
    "obj-remoteschemas-build-t3": {"missing-key"},  # a remote schema of a name alone
    "obj-network-build-t1": {"wrong-kind"},  # a bare host name
    "obj-network-export-t1": {"wrong-kind"},
    "obj-opentelemetry-build-t1": {"wrong-kind"},  # headers as a mapping
    "obj-opentelemetry-export-t1": {"wrong-kind"},
    "obj-tables-v3-export-t1": {"missing-key", "twice"},  # a source without a configuration
    "obj-tables-v3-export-t2": {"missing-key"},
}


def whole(document):
    """A document of one section with the key that every document must have."""
    is_flat = "sources" not in document and ("tables" in document or document.get("version") in (1, 2))
    return {"tables": [], **document} if is_flat else {"version": 3, "sources": [], **document}


@wants_shared("hasura-golden")
@pytest.mark.parametrize(("name", "document"), GOLDENS, ids=lambda value: value if isinstance(value, str) else "")
def test_no_document_of_upstreams_is_called_invalid(name, document):
    case = name.split("/")[1]
    assert {finding.rule for finding in check_structure(whole(document))} == MADE_UP.get(case, set())


@pytest.mark.parametrize(("name", "document"), OWN, ids=lambda value: value if isinstance(value, str) else "")
def test_no_document_of_ours_is_called_invalid(name, document):
    assert check_structure(document) == []


def with_table(**keys):
    source = {"name": "default", "kind": "postgres", "tables": [{"table": "posts", **keys}], "configuration": {
        "connection_info": {"database_url": {"from_env": "URL"}}}}  # fmt: skip
    return {"version": 3, "sources": [source]}


def found(document):
    """What is found in a document: (rule, path, message)."""
    return [(finding.rule, ".".join(map(str, finding.path)), finding.message) for finding in check_structure(document)]


RULE = {"columns": ["id"], "filter": {}}
TABLE = "sources.0.tables.0"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, []),
        ({"is_enum": "yes"}, [("wrong-kind", f"{TABLE}.is_enum", "is_enum is a text and not true or false")]),
        ({"select_permissions": {"role": "u"}},
         [("wrong-kind", f"{TABLE}.select_permissions", "select_permissions is a mapping and not a list")]),
        ({"select_permissions": ["u"]},
         [("wrong-kind", f"{TABLE}.select_permissions.0",
           "an entry of select_permissions is a text and not a mapping")]),
        ({"select_permissions": [{"permission": RULE}]},
         [("missing-key", f"{TABLE}.select_permissions.0", "an entry of select_permissions has no role")]),
        ({"select_permissions": [{"role": "u", "permission": None}]},
         [("wrong-kind", f"{TABLE}.select_permissions.0.permission", "permission is empty and not a mapping")]),
        ({"select_permissions": [{"role": "u", "permission": {"columns": "id", "filter": {}}}]},
         [("wrong-kind", f"{TABLE}.select_permissions.0.permission.columns",
           'columns is a text and not "*" or a list')]),
        ({"select_permissions": [{"role": "u", "permission": RULE}, {"role": "u", "permission": RULE}]},
         [("twice", f"{TABLE}.select_permissions.1", "u stands twice in select_permissions")]),
        ({"object_relationships": [{"name": "a", "using": {}}]},
         [("one-of", f"{TABLE}.object_relationships.0.using",
           "using has neither foreign_key_constraint_on nor manual_configuration")]),
        ({"event_triggers": [{"name": "e", "definition": {}, "retry_conf": {"num_retries": 1, "interval_sec": 1},
                              "webhook": "http://x", "webhook_from_env": "X"}]},
         [("one-of", f"{TABLE}.event_triggers.0",
           "an entry of event_triggers has both webhook and webhook_from_env")]),
        ({"remote_relationships": [{"name": "r", "definition": {"to_source": {
            "source": "other", "table": "t", "relationship_type": "many", "field_mapping": {"a": "b"}}}}]},
         [("unknown-reference", f"{TABLE}.remote_relationships.0.definition.to_source.source",
           "source other is not in the metadata"),
          ("wrong-kind", f"{TABLE}.remote_relationships.0.definition.to_source.relationship_type",
           'relationship_type is a text and not "object" or "array"')]),
        ({"object_relationships": [{"name": "x", "using": {"foreign_key_constraint_on": "a"}}],
          "computed_fields": [{"name": "x", "definition": {"function": "f"}}]},
         [("name-twice", f"{TABLE}.computed_fields.0",
           "x is a name in object_relationships of the same table too")]),
        ({"array_relationships": [{"name": "x", "using": {"foreign_key_constraint_on": {
            "column": "a", "table": "gone"}}}]},
         [("unknown-reference", f"{TABLE}.array_relationships.0.using.foreign_key_constraint_on.table",
           "table public.gone is not in the metadata")]),
        ({"select_permissions": [{"role": "u", "permission": {**RULE, "computed_fields": ["f"]}}]},
         [("unknown-reference", f"{TABLE}.select_permissions.0.permission.computed_fields.0",
           "computed field f is not in the metadata")]),
        ({"unheard_of": 1, "configuration": {"also": 2}, "is_enum": None, "comment": None}, []),
    ],
)  # fmt: skip
def test_what_is_found_in_a_table(keys, said):
    assert sorted(found(with_table(**keys))) == sorted(said)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"version": 4}, [("wrong-kind", "version", "the version is none of 1, 2 and 3")]),
        ({"remote_schemas": [{"name": "r", "definition": {"url": "u", "url_from_env": None, "headers": [
            {"name": "h", "value": "a", "value_from_env": "b"}]}}]},
         [("one-of", "remote_schemas.0.definition.headers.0",
           "an entry of headers has both value and value_from_env")]),
        ({"allowlist": [{"collection": "c"}]},
         [("unknown-reference", "allowlist.0.collection", "query collection c is not in the metadata")]),
        ({"query_collections": [{"name": "c", "definition": {"queries": [{"name": "q", "query": "{ a }"}]}}],
          "rest_endpoints": [{"name": "r", "url": "u", "methods": ["GET"],
                              "definition": {"query": {"collection_name": "c", "query_name": "p"}}}]},
         [("unknown-reference", "rest_endpoints.0.definition.query.query_name",
           "in query collection c the query p is not in the metadata")]),
        ({"actions": [{"name": "a", "definition": {"handler": "h", "output_type": "[Out!]!", "arguments": [
            {"name": "x", "type": "In"}, {"name": "y", "type": "uuid!"}, {"name": "z", "type": "Int"}]}}],
          "custom_types": {"objects": [{"name": "Out", "fields": [{"name": "f", "type": "Gone"}]}]}},
         [("unknown-reference", "actions.0.definition.arguments.0.type", "type In is not in the metadata"),
          ("unknown-reference", "custom_types.objects.0.fields.0.type", "type Gone is not in the metadata")]),
        ({"actions": [{"name": "a", "definition": {"kind": "synchronous"}}]},
         [("missing-key", "actions.0.definition", "definition has no handler")]),
        ({"remote_schemas": [{"name": "r", "definition": {"url": "u"}, "permissions": [
            {"role": "a", "definition": {"schema": "type Query {\n  a: Int\n}"}},
            {"role": "b", "definition": {"schema": "type Query {\n  a Int\n}"}}]}]},
         [("wrong-graphql", "remote_schemas.0.permissions.1.definition.schema",
           "line 2 of the schema: this is not sound GraphQL: : is expected, and Int found")]),
        ({"inherited_roles": [{"role_name": "r", "role_set": ["a"]}, {"role_name": "r", "role_set": ["b"]}]},
         [("twice", "inherited_roles.1", "r stands twice in inherited_roles")]),
    ],
)  # fmt: skip
def test_what_is_found_in_the_other_sections(sections, said):
    assert found({**with_table(), **sections}) == said


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], [("wrong-kind", "", "the metadata is a list and not a mapping")]),
        (None, [("wrong-kind", "", "the metadata is empty and not a mapping")]),
        ({}, [("missing-key", "", "the metadata has no sources")]),
        ({"version": 2}, [("missing-key", "", "the metadata has no tables")]),
        ({"version": 2, "tables": [{"table": "a"}], "functions": ["f"]},
         [("wrong-kind", "functions.0", "an entry of functions is a text and not a mapping")]),
        ({"version": 1, "tables": [{"table": "a"}], "functions": ["f"]}, []),
        ({"sources": [with_table()["sources"][0], {"name": "default", "tables": []}]},
         [("twice", "sources.1", "default stands twice in sources"),
          ("missing-key", "sources.1", "an entry of sources has no configuration")]),
    ],
)  # fmt: skip
def test_what_is_no_document(document, said):
    assert sorted(found(document)) == sorted(said)


def test_findings_stand_in_the_documents_order():
    document = with_table(select_permissions=[{"role": "u"}], is_enum=3)
    document["actions"] = [3]
    assert [finding.path[-1] for finding in check_structure(document)] == [0, "is_enum", 0]


def test_every_rule_is_said_and_known():
    assert all(rule == rule.lower() and text.endswith(".") for rule, text in RULES.items())


ODDITIES = st.none() | st.integers() | st.text() | st.lists(st.integers() | st.text() | st.none()) | st.dictionaries(
    st.sampled_from(["name", "table", "definition", "queries"]) | st.integers(), st.integers() | st.text())  # fmt: skip


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_one_odd_value_anywhere_is_a_finding_at_most(data):
    document = copy.deepcopy(data.draw(st.sampled_from([document for _name, document in DOCUMENTS])))
    place, path = document, []
    while isinstance(place, (dict, list)) and place:
        key = data.draw(st.sampled_from(list(place) if isinstance(place, dict) else list(range(len(place)))))
        path.append((place, key))
        place = place[key]
    if path:
        around, key = data.draw(st.sampled_from(path))
        around[key] = data.draw(ODDITIES)
    assert {finding.rule for finding in check_structure(document)} <= set(RULES)
