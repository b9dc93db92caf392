"""The engine's inconsistent objects are found again in the local document."""

from __future__ import annotations

import pytest
import yaml
from bed.hasura_material import GOLDEN, reads, recorded, recorded_json, recorded_text
from hypothesis import given
from hypothesis import strategies as st

from nself_core.hasura.inconsistency import inconsistency_path, inconsistency_paths
from nself_core.hasura.tree import read_tree, value_at

F = {"schema": "app", "name": "f"}
ODD = {"schema": "app", "name": "a.b"}
RULE = {"columns": "*", "filter": {}}
DOCUMENT = {
    "version": 3,
    "sources": [
        {"name": "second db", "tables": [{"table": ODD, "computed_fields": [{"name": "f"}]}]},
        {"name": "default", "tables": [
            {"table": "article"},
            {"table": {"schema": "public", "name": "author"},
             "array_relationships": [{"name": "others"}, {"name": "articles"}],
             "select_permissions": [{"role": "user", "permission": RULE}, {"role": "guest", "permission": RULE}],
             "event_triggers": [{"name": "told"}], "remote_relationships": [{"name": "far"}]},
        ], "functions": [{"function": "g"}, {"function": F, "permissions": [{"role": "u"}]}],
         "native_queries": [{"root_field_name": "q"}], "logical_models": [{"name": "m"}]},
    ],
    "remote_schemas": [{"name": "r", "permissions": [{"role": "u"}]}],
    "actions": [{"name": "login", "permissions": [{"role": "u"}]}],
    "cron_triggers": [{"name": "nightly"}],
    "inherited_roles": [{"role_name": "both", "role_set": ["a", "b"]}],
    "rest_endpoints": [{"name": "get"}],
    "custom_types": {"objects": []},
}  # fmt: skip
SECOND, DEFAULT = ("sources", 0), ("sources", 1)
AUTHOR = (*DEFAULT, "tables", 1)
PUBLIC = {"schema": "public", "name": "author"}


@pytest.mark.parametrize(
    ("kind", "definition", "name", "path"),
    [
        ("table", PUBLIC, "table author in source default", AUTHOR),
        ("table", PUBLIC, None, AUTHOR),
        ("table", "article", None, (*DEFAULT, "tables", 0)),
        ("table", {"schema": "app", "name": "a.b"}, "table app.a.b in source second db", (*SECOND, "tables", 0)),
        ("table", {"schema": "public", "name": "gone"}, None, (*DEFAULT, "tables")),
        ("array_relation", {"name": "articles", "source": "default", "table": PUBLIC, "using": {}},
         "array_relation articles in table author in source default", (*AUTHOR, "array_relationships", 1)),
        ("object_relation", {"name": "gone", "source": "default", "table": PUBLIC}, None, AUTHOR),
        ("select_permission", {"role": "guest", "source": "default", "table": PUBLIC, "permission": RULE}, None,
         (*AUTHOR, "select_permissions", 1)),
        ("event_trigger", {"name": "told", "source": "default", "table": PUBLIC}, None, (*AUTHOR, "event_triggers", 0)),
        ("remote_relationship", {"name": "far", "table": PUBLIC}, None, (*AUTHOR, "remote_relationships", 0)),
        ("computed_field", {"name": "f", "source": "second db", "table": {"schema": "app", "name": "a.b"}}, None,
         (*SECOND, "tables", 0, "computed_fields", 0)),
        ("function", {"function": F, "configuration": {}}, "function app.f in source default",
         (*DEFAULT, "functions", 1)),
        ("function", {"schema": "app", "name": "f"}, None, (*DEFAULT, "functions", 1)),
        ("function_permission", {"function": {"schema": "app", "name": "f"}, "source": "default", "role": "u"}, None,
         (*DEFAULT, "functions", 1, "permissions", 0)),
        ("native_query", {"root_field_name": "q", "source": "default"}, None, (*DEFAULT, "native_queries", 0)),
        ("logical_model", {"name": "m"}, None, (*DEFAULT, "logical_models", 0)),
        ("source", "second db", "source second db", SECOND),
        ("source", {"name": "default"}, None, DEFAULT),
        ("remote_schema", {"name": "r", "definition": {}}, "remote_schema r", ("remote_schemas", 0)),
        ("remote_schema_permission", {"remote_schema": "r", "role": "u"}, None,
         ("remote_schemas", 0, "permissions", 0)),
        ("action", {"name": "login"}, None, ("actions", 0)),
        ("action_permission", {"action": "login", "role": "u"}, None, ("actions", 0, "permissions", 0)),
        ("cron_trigger", {"name": "nightly"}, None, ("cron_triggers", 0)),
        ("inherited_role", {"role_name": "both", "role_set": []}, None, ("inherited_roles", 0)),
        ("rest_endpoint", {"name": "get"}, None, ("rest_endpoints", 0)),
        ("endpoint", {"name": "get"}, None, ("rest_endpoints", 0)),
        ("custom_types", {"objects": []}, None, ("custom_types",)),
        ("unheard_of", {"name": "x"}, None, ()),
    ],
)  # fmt: skip
def test_each_type_of_object(kind, definition, name, path):
    item = {"type": kind, "definition": definition, "reason": "x"}
    item = item if name is None else {**item, "name": name}
    assert inconsistency_path(DOCUMENT, item) == path
    assert inconsistency_paths(DOCUMENT, [{"type": "action"}, item]) == [("actions",), path]


def test_objects_in_conflict_and_objects_given_twice():
    conflict = {"reason": "x", "objects": [{"type": "action", "definition": {"name": "gone"}},
                                           {"type": "action", "definition": {"name": "login"}}]}  # fmt: skip
    assert inconsistency_path(DOCUMENT, conflict) == ("actions", 0)
    assert inconsistency_path(DOCUMENT, {"type": "action", "definition": [{"name": "login"}] * 2}) == ("actions", 0)


def test_a_document_of_version_2():
    document = {"version": 2, "tables": [{"table": "article"}, {"table": PUBLIC}]}
    assert inconsistency_path(document, {"type": "table", "definition": PUBLIC}) == ("tables", 1)


EXCHANGE = recorded("server-v1-metadata/replace_metadata_allow_inconsistent_inconsistent.yaml")


@reads(EXCHANGE)
def test_upstreams_recorded_exchange():
    exchange = yaml.safe_load(recorded_text(EXCHANGE[0]))
    document = exchange["query"]["args"]["metadata"]
    found = [inconsistency_path(document, item) for item in exchange["response"]["inconsistent_objects"]]
    places = [value_at(document, path) for path in found]
    assert [place.get("name", place.get("table")) for place in places] == ["foobar", "author"]


LISTS = recorded("pkg-metadata/get_inconsistent_metadata_test/*")


@reads(LISTS)
@pytest.mark.parametrize("file", LISTS)
def test_upstreams_recorded_lists_lead_to_the_projects_tables(file):
    version = 3 if "config_v3" in file else 2
    document = read_tree(str(GOLDEN / "pkg-metadata" / f"projectv{version}" / "metadata")).document
    items = recorded_json(file)["inconsistent_objects"]
    assert items
    for item, path in zip(items, inconsistency_paths(document, items)):
        assert value_at(document, path)["table"] == item["definition"]


PARTS = st.none() | st.integers() | st.text() | st.lists(st.integers())


@given(
    PARTS
    | st.dictionaries(
        st.sampled_from(["type", "name", "definition", "objects"]),
        PARTS
        | st.sampled_from(["table", "source", "action", "select_permission"])
        | st.dictionaries(st.sampled_from(["name", "table", "source", "role", "function"]), PARTS | st.just({})),
    )
)
def test_whatever_the_engine_says_there_is_a_place(item):
    assert isinstance(inconsistency_path(DOCUMENT, item), tuple)
    assert inconsistency_paths(DOCUMENT, [item, item]) == [inconsistency_path(DOCUMENT, item)] * 2
