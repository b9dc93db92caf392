"""The rules of lint, each on a document that breaks it and on one that does not; what is set right means the same."""

from __future__ import annotations

import copy
import json

import pytest
from bed.metadata_documents import all_documents, many_tables, shuffled
from hypothesis import given, settings
from hypothesis import strategies as st

from nself_core.hasura.diff import find_changes
from nself_core.hasura.lint import chosen_rules, fixed, lint, rules_page
from nself_core.hasura.lint_rules import RULES, style_of

DOCUMENTS = all_documents()


def with_table(source=None, **keys):
    entry = {"table": "posts", **keys}
    return {"version": 3, "sources": [{"name": "default", "kind": "postgres", "tables": [entry], **(source or {})}]}


def rule(role="user", **keys):
    return {"role": role, "permission": {"columns": ["a"], "filter": {"a": {"_eq": 1}}, "limit": 1, **keys}}


def relationship(name, using="a"):
    return {"name": name, "using": {"foreign_key_constraint_on": using}}


REMOTE = {"remote_schema": "r", "hasura_fields": ["id"], "remote_field": {"x": {"arguments": {}}}}

# Per rule: a document that breaks it, the places of its findings from the table on, and one that does not.
CASES = [
    ("no-filter", with_table(select_permissions=[rule(filter={})]),
     ["select_permissions.0.permission.filter"], with_table(select_permissions=[rule(), rule("admin", filter={})])),
    ("no-filter", with_table(insert_permissions=[{"role": "u", "permission": {"check": {}, "columns": []}}]),
     ["insert_permissions.0.permission.check"],
     with_table(insert_permissions=[{"role": "u", "permission": {"check": {"a": {"_eq": 1}}, "columns": []}}])),
    ("no-filter", with_table(select_permissions=[{"role": "u", "permission": {"columns": ["a"]}}, rule(filter=None)]),
     ["select_permissions.0.permission", "select_permissions.1.permission.filter"],
     with_table(select_permissions=[{"role": "admin", "permission": {"columns": ["a"]}}],
                insert_permissions=[{"role": "u", "permission": {"check": {"a": {"_eq": 1}}}}],
                update_permissions=[rule(check=None)])),
    ("no-filter", with_table(insert_permissions=[rule(), rule(check=None)]),
     ["insert_permissions.0.permission", "insert_permissions.1.permission.check"],
     with_table(insert_permissions=[{"role": "admin", "permission": {"columns": ["a"]}}])),
    ("no-filter", with_table(delete_permissions=[{"role": "u", "permission": {}}]),
     ["delete_permissions.0.permission"], with_table(delete_permissions=[rule()])),
    ("no-filter", with_table(delete_permissions=[{"role": "u", "permission": {"filter": {}}}]),
     ["delete_permissions.0.permission.filter"], with_table()),
    ("all-columns", with_table(select_permissions=[rule(columns="*")]),
     ["select_permissions.0.permission.columns"], with_table(select_permissions=[rule()])),
    ("all-columns", with_table(insert_permissions=[{"role": "u", "permission": {"check": {}}}]),
     ["insert_permissions.0.permission"], with_table(delete_permissions=[{"role": "u", "permission": {"filter": {}}}])),
    ("missing-limit", with_table(select_permissions=[rule(limit=None)]),
     ["select_permissions.0.permission"],
     with_table(select_permissions=[rule()], update_permissions=[rule(limit=None)])),
    ("empty-permission", with_table(select_permissions=[rule(columns=[])]),
     ["select_permissions.0.permission"], with_table(select_permissions=[rule(columns=[], computed_fields=["f"])])),
    ("duplicate-relationship",
     with_table(object_relationships=[relationship("a"), relationship("b"), relationship("a", "c")]),
     ["object_relationships.2"],
     with_table(object_relationships=[relationship("a"), relationship("a", ["a"]), relationship("b", "c")])),
    ("duplicate-relationship",
     with_table(object_relationships=[relationship("a")], array_relationships=[relationship("a"), relationship(None)],
                remote_relationships=[{"name": "a", "definition": REMOTE}, {"name": "b", "definition": REMOTE}]),
     ["array_relationships.0", "remote_relationships.0"],
     with_table(object_relationships=[relationship("a"), relationship(None), relationship(None, "c")],
                array_relationships=[relationship("b")])),
    ("two-relationships-one-key",
     with_table(object_relationships=[relationship("a"), relationship("b", ["a"]), relationship("c", "c")]),
     ["object_relationships.1"],
     with_table(object_relationships=[relationship("a")], array_relationships=[relationship("b")])),
    ("two-relationships-one-key",
     with_table(array_relationships=[
         {"name": name, "using": {"manual_configuration": {"remote_table": table, "column_mapping": {"a": "b"}}}}
         for name, table in (("x", "t"), ("y", {"schema": "public", "name": "t"}))]),
     ["array_relationships.1"],
     with_table(array_relationships=[
         {"name": name, "using": {"manual_configuration": {"remote_table": "t", "column_mapping": {"a": name}}}}
         for name in "xy"])),
    ("naming", with_table(object_relationships=[relationship("by_author"), relationship("byEditor", "b"),
                                                relationship("the_blog", "c"), relationship("one", "d")]),
     ["object_relationships.1.name"],
     with_table(object_relationships=[relationship("by_author"), relationship("byEditor")])),
    ("naming", with_table({"customization": {"naming_convention": "graphql-default"}},
                          object_relationships=[relationship("by_author")]),
     ["object_relationships.0.name"], with_table(object_relationships=[relationship("by_author")])),
    ("unknown-key", with_table(select_permissions=[rule(fliter={})], is_enums=True),
     ["is_enums", "select_permissions.0.permission.fliter"],
     with_table(select_permissions=[rule(filter={"anything": 1})], configuration={"custom_name": "x"})),
    ("unsorted", with_table(select_permissions=[rule("b"), rule("a")]), ["select_permissions"],
     with_table(select_permissions=[rule("a"), rule("b", columns=["b", "a"])])),
    ("duplicate-entry", with_table(select_permissions=[rule(columns=["a", "b"]), rule(columns=["b", "a"])]),
     ["select_permissions.1"], with_table(select_permissions=[rule(), rule(limit=2)])),
    ("duplicate-entry", with_table(select_permissions=[rule(columns=["a", "b", "a"])]),
     ["select_permissions.0.permission.columns.2"], with_table(select_permissions=[rule(columns=["a", "b"])])),
    ("deprecated", with_table(configuration={"custom_column_names": {"a": "b"}}),
     ["configuration.custom_column_names"],
     with_table(configuration={"custom_column_names": {"a": "b"}, "column_config": {"a": {"custom_name": "b"}}})),
    ("deprecated", with_table(select_permissions=[rule(filter={"$or": [{"a": {"$eq": 1}}]})]),
     ["select_permissions.0.permission.filter"],
     with_table(select_permissions=[rule(filter={"$odd": {"_eq": "$eq"}})])),
    ("deprecated", with_table(remote_relationships=[{"name": "r", "definition": REMOTE}]),
     ["remote_relationships.0.definition"],
     with_table(remote_relationships=[{"name": "r", "definition": {"to_remote_schema": {}}}])),
    ("overruled-name",
     with_table(configuration={"custom_column_names": {"a": "b"}, "column_config": {"a": {"custom_name": "c"}}}),
     ["configuration.custom_column_names.a"],
     with_table(configuration={"custom_column_names": {"a": "b"}, "column_config": {"a": {"comment": "c"}}})),
    ("include-in-text", with_table(configuration={"comment": "see !include x.yaml"}), ["configuration.comment"],
     with_table(configuration={"comment": "see include x.yaml"})),
]  # fmt: skip


@pytest.mark.parametrize(("name", "broken", "places", "right"), CASES)
def test_a_rule_finds_what_breaks_it_and_nothing_else(name, broken, places, right):
    said = lint(broken, [name])
    assert [".".join(map(str, finding.path[4:])) for finding in said] == places
    assert {finding.rule for finding in said} == {name}
    assert all(finding.path[:4] == ("sources", 0, "tables", 0) and finding.message for finding in said)
    assert lint(right, [name]) == []


def login(**definition):
    return {"actions": [{"name": "login", "definition": definition}]}


SECTIONS = [
    ("action-without-handler", login(kind="", handler=""), [("actions", 0, "definition")], login(handler="http://x")),
    ("unexported-cron-trigger", {"cron_triggers": [{"name": "c", "include_in_metadata": False}]},
     [("cron_triggers", 0, "include_in_metadata")], {"cron_triggers": [{"name": "c", "include_in_metadata": True}]}),
    ("unused-collection", {"query_collections": [{"name": "a"}, {"name": "b"}, {"name": "c"}],
                           "allowlist": [{"collection": "a"}],
                           "rest_endpoints": [{"definition": {"query": {"collection_name": "c"}}}]},
     [("query_collections", 1)], {}),
    ("deprecated", {"version": 2, "tables": []}, [()], {"version": 3, "sources": []}),
    ("deprecated", {"sources": [{"name": "d", "kind": "pg"}]}, [("sources", 0, "kind")],
     {"sources": [{"name": "d", "kind": "postgres"}]}),
    ("include-in-text", {"remote_schemas": ["!include x.yaml"]}, [("remote_schemas", 0)],
     {"remote_schemas": [{"comment": "it has no !include"}]}),
    ("literal-secret",
     {"sources": [{"configuration": {"connection_info": {"database_url": "postgres://h"}}}],
      "remote_schemas": [{"definition": {"headers": [{"name": "Authorization", "value": "x"},
                                                     {"name": "x-trace", "value": "y"}]}}]},
     [("sources", 0, "configuration", "connection_info", "database_url"),
      ("remote_schemas", 0, "definition", "headers", 0, "value")],
     {"sources": [{"configuration": {"connection_info": {"database_url": {"from_env": "URL"}}}}]}),
    ("unknown-key", {"remote_schema": []}, [("remote_schema",)], {"remote_schemas": []}),
    ("unsorted", {"sources": [{"tables": [{"table": "b"}, {"table": {"schema": "app", "name": "z"}}]}]},
     [("sources", 0, "tables")],
     {"sources": [{"tables": [{"table": {"schema": "app", "name": "z"}}, {"table": "b"}, {"table": "É"}]}]}),
    ("duplicate-entry", {"sources": [{"tables": [{"table": "b"}, {"table": {"name": "b", "schema": "public"}}]}]},
     [("sources", 0, "tables", 1)], {"sources": [{"tables": [{"table": "b"}, {"table": "c"}]}]}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "broken", "places", "right"), SECTIONS)
def test_a_rule_of_the_other_sections(name, broken, places, right):
    assert [finding.path for finding in lint(broken, [name])] == places
    assert lint(right, [name]) == []


def test_every_rule_has_a_case():
    assert {case[0] for case in (*CASES, *SECTIONS)} | {"orphan-file"} == set(RULES)


def test_orphans_are_findings_of_their_file():
    (finding,) = lint({"version": 3, "sources": []}, ["orphan-file"], ["databases/default/tables/public_old.yaml"])
    assert (finding.path, finding.file) == ((), "databases/default/tables/public_old.yaml")
    assert lint({"version": 3, "sources": []}, ["unsorted"], ["x.yaml"]) == []


def test_rules_are_chosen_by_their_ids():
    assert chosen_rules() == list(RULES)
    assert chosen_rules(["unsorted", "naming"], ["naming"]) == ["unsorted"]
    assert "naming" not in chosen_rules(ignored=["naming"])
    with pytest.raises(ValueError, match="nmaing"):
        chosen_rules(["nmaing"])
    assert all(name == name.lower() and " " not in name for name in RULES)


@pytest.mark.parametrize(
    ("name", "style"),
    [("posts", None), ("by_author", "snake_case"), ("byAuthor", "camelCase"), ("by_Author", "mixed"),
     ("_private", None), ("Posts", "camelCase"), ("ünder_scored", "snake_case")],
)  # fmt: skip
def test_the_style_of_a_name(name, style):
    assert style_of(name) == style


def test_the_page_of_rules_names_each():
    page = rules_page()
    assert all(f"| `{name}` |" in page for name in RULES)
    assert "| `unsorted` |" in page and page.count("| yes |") == 3


# What is set right.


def test_lists_are_sorted_and_double_entries_go():
    document = with_table(select_permissions=[rule("b"), rule("a"), rule("b")])
    made = fixed(document, ["unsorted", "duplicate-entry"])
    assert [entry["role"] for entry in made["sources"][0]["tables"][0]["select_permissions"]] == ["a", "b"]
    assert len(document["sources"][0]["tables"][0]["select_permissions"]) == 3


def test_old_forms_become_new_ones():
    document = with_table(
        {"kind": "pg"}, configuration={"custom_name": "x", "custom_column_names": {"a": "b"}},
        remote_relationships=[{"name": "r", "definition": REMOTE}],
        select_permissions=[rule(filter={"$and": [{"a": {"$in": [1]}}, {"$x": {"_eq": "$eq"}}]})],
    )  # fmt: skip
    made = fixed(document, ["deprecated"])
    entry = made["sources"][0]["tables"][0]
    assert made["sources"][0]["kind"] == "postgres"
    assert entry["configuration"]["column_config"] == {"a": {"custom_name": "b"}}
    assert entry["remote_relationships"][0]["definition"] == {"to_remote_schema": {
        "remote_schema": "r", "remote_field": {"x": {"arguments": {}}}, "lhs_fields": ["id"]}}  # fmt: skip
    assert entry["select_permissions"][0]["permission"]["filter"] == {
        "_and": [{"a": {"_in": [1]}}, {"$x": {"_eq": "$eq"}}]}  # fmt: skip
    assert lint(made, ["deprecated"]) == []


def test_what_is_right_is_the_same_object():
    document = with_table(select_permissions=[rule("a"), rule("b")])
    assert fixed(document, chosen_rules()) is document


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_fixed_document_means_the_same_and_has_nothing_to_fix(data):
    name, document = data.draw(st.sampled_from(DOCUMENTS))
    document = shuffled(document, data.draw(st.integers()))
    before = json.dumps(document)
    rules = [name for name in RULES if RULES[name].fix]
    made = fixed(document, rules)
    assert json.dumps(document) == before
    assert find_changes(made, document) == [] or "obj-tables-v3-export-t1" in name  # it has a table twice
    assert [finding for finding in lint(made, rules) if finding.path] == []
    assert fixed(made, rules) is made


SCALARS = st.none() | st.integers() | st.text()
KEYS = st.sampled_from(["name", "table", "definition", "queries", "columns"]) | st.integers()
ODDITIES = SCALARS | st.lists(SCALARS) | st.dictionaries(KEYS, SCALARS)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_one_odd_value_anywhere_ends_no_rule(data):
    documents = [many_tables(1), *(document for _name, document in DOCUMENTS), *(case[1] for case in CASES)]
    document = copy.deepcopy(data.draw(st.sampled_from(documents)))
    place, path = document, []
    while isinstance(place, (dict, list)) and place:
        key = data.draw(st.sampled_from(list(place) if isinstance(place, dict) else list(range(len(place)))))
        path.append((place, key))
        place = place[key]
    if path:
        around, key = data.draw(st.sampled_from(path))
        around[key] = data.draw(ODDITIES)
    lint(document, chosen_rules())
    fixed(document, chosen_rules())


@pytest.mark.parametrize("document", [None, [], "x", {"sources": "x"}, {"sources": [1]}, {"tables": {}}])
def test_what_is_no_document(document):
    assert isinstance(lint(document, chosen_rules()), list)
    assert fixed(document, chosen_rules()) is document
