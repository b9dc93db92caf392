"""Three-way merge of metadata documents: what both sides did stands, and what cannot is told."""

from __future__ import annotations

import copy
import json

import pytest
from bed.metadata_documents import all_documents, many_tables, shuffled
from hypothesis import given, settings
from hypothesis import strategies as st

from nself_core.hasura.diff import find_changes
from nself_core.hasura.identity import named
from nself_core.hasura.merge import merge

DOCUMENTS = [document for _name, document in all_documents()]


def with_tables(**tables):
    entries = [{"table": name, **keys} for name, keys in tables.items()]
    return {"version": 3, "sources": [{"name": "default", "kind": "postgres", "tables": entries}]}


def rule(role="user", **keys):
    return {"role": role, "permission": {"columns": ["a", "b"], "filter": {}, **keys}}


def table(document, name):
    return next(entry for entry in document["sources"][0]["tables"] if entry["table"] == name)


def test_what_both_sides_changed_in_different_places_stands():
    base = with_tables(posts={"select_permissions": [rule(), rule("guest")]}, users={}, old={})
    ours = with_tables(posts={"select_permissions": [rule(limit=5), rule("guest")]}, users={"is_enum": True}, old={},
                       more={})  # fmt: skip
    theirs_of_posts = {"select_permissions": [rule("guest", filter={"a": {"_eq": 1}}), rule()]}
    theirs = with_tables(old={"is_enum": True}, posts=theirs_of_posts, users={}, another={})
    merged, conflicts = merge(base, ours, theirs)
    assert conflicts == []
    wanted = with_tables(
        posts={"select_permissions": [rule(limit=5), rule("guest", filter={"a": {"_eq": 1}})]},
        users={"is_enum": True}, old={"is_enum": True}, more={}, another={},
    )  # fmt: skip
    assert find_changes(merged, wanted) == []


def test_what_one_side_removed_is_gone():
    base, gone = with_tables(a={}, b={}, c={}), with_tables(a={}, c={"is_enum": True})
    assert merge(base, base | {"inherited_roles": []}, gone)[0]["sources"] == gone["sources"]
    merged, conflicts = merge(base, with_tables(a={}, b={}), gone)
    assert [entry["table"] for entry in merged["sources"][0]["tables"]] == ["a"]
    assert [(conflict.path[-1], conflict.ours) for conflict in conflicts] == [("public.c", None)]


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "merged"),
    [
        (["a", "b"], ["b", "a", "c"], ["d", "b", "a"], ["b", "a", "c", "d"]),
        (["a", "b"], ["a"], ["b"], []),
        (["a", "b"], ["a"], ["a", "b", "c"], ["a", "c"]),
        (["a"], "*", ["a"], "*"),
        (["a"], ["a"], "*", "*"),
    ],
)
def test_columns_are_merged_as_a_set(base, ours, theirs, merged):
    documents = (with_tables(posts={"select_permissions": [rule(columns=columns)]}) for columns in (base, ours, theirs))
    document, conflicts = merge(*documents)
    assert conflicts == []
    assert table(document, "posts")["select_permissions"][0]["permission"]["columns"] == merged


POSTS = ("sources", "default", "tables", "public.posts")


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "path"),
    [
        ({"is_enum": True}, {"is_enum": False, "configuration": {"custom_name": "a"}},
         {"configuration": {"custom_name": "b"}}, ("configuration", "custom_name")),
        ({"select_permissions": [rule()]}, {"select_permissions": [rule(columns="*")]},
         {"select_permissions": [rule(columns=["a"])]}, ("select_permissions", "user", "permission", "columns")),
        ({"select_permissions": [rule()]}, {"select_permissions": [rule(filter={"a": {"_eq": 1}})]},
         {"select_permissions": [rule(filter={"b": {"_eq": 2}})]},
         ("select_permissions", "user", "permission", "filter")),
        ({}, {"select_permissions": [rule()]}, {"select_permissions": [rule(limit=2)]},
         ("select_permissions", "user")),
        ({"select_permissions": [rule()]}, {}, {"select_permissions": [rule(limit=2)]},
         ("select_permissions", "user")),
        ({"object_relationships": [{"name": "r", "using": {"foreign_key_constraint_on": "a"}}]},
         {"object_relationships": [{"name": "r", "using": {"foreign_key_constraint_on": "b"}}]},
         {"object_relationships": [{"name": "r", "using": {"manual_configuration": {}}}]},
         ("object_relationships", "r", "using")),
        ({"configuration": {"custom_column_names": {"a": "b"}}},
         {"configuration": {"custom_column_names": {"a": "c"}}},
         {"configuration": {"custom_column_names": {"a": "d"}, "column_config": {"a": {"custom_name": "d"}}}},
         ("configuration", "column_config", "a", "custom_name")),
    ],
)  # fmt: skip
def test_what_both_changed_is_a_conflict_that_keeps_ours(base, ours, theirs, path):
    document, conflicts = merge(*(with_tables(posts=keys) for keys in (base, ours, theirs)))
    assert [conflict.path for conflict in conflicts] == [POSTS + path]
    assert conflicts[0].place[:4] == ("sources", 0, "tables", 0)
    assert find_changes(document, with_tables(posts=ours)) == []


def test_a_deletion_and_a_change_conflict_either_way():
    base, changed, gone = with_tables(posts={}), with_tables(posts={"is_enum": True}), with_tables()
    for ours, theirs, kept in ((changed, gone, changed), (gone, changed, gone)):
        document, (conflict,) = merge(base, ours, theirs)
        assert conflict.path == POSTS
        assert None in (conflict.ours, conflict.theirs)
        assert find_changes(document, kept) == []


def test_both_did_the_same_in_another_way():
    base = with_tables(posts={})
    ours = with_tables(posts={"select_permissions": [rule(allow_aggregations=False)], "is_enum": False})
    theirs = with_tables(posts={"select_permissions": [rule(columns=["b", "a"])]})
    assert merge(base, ours, theirs) == (ours, [])


def test_without_a_base_what_only_one_side_has_stays():
    ours, theirs = with_tables(a={}, c={"is_enum": True}), with_tables(b={}, c={})
    document, conflicts = merge({}, ours, theirs)
    assert [entry["table"] for entry in document["sources"][0]["tables"]] == ["a", "c", "b"]
    assert conflicts == []


def test_no_secret_stands_in_a_conflict():
    documents = [
        {"remote_schemas": [{"name": "r", "definition": {"headers": [{"name": "k", "value": value}]}}]}
        for value in ("swordfish-1", "swordfish-2", "swordfish-3")
    ]
    document, (conflict,) = merge(*documents)
    assert "swordfish" not in json.dumps(conflict)
    assert conflict.path == ("remote_schemas", "r", "definition", "headers", "k")
    assert document == documents[1]


# Properties.


def varied(document, chance):
    """A copy of a document with some of its named entries gone, changed, or twice under another name."""
    made = copy.deepcopy(document)
    for place in reversed(list(named(made).values())):
        action = chance.choice(["keep", "keep", "keep", "remove", "change", "add"])
        around = made
        for key in place[:-1]:
            around = around[key]
        entry = around[place[-1]]
        if action == "remove":
            del around[place[-1]]
        elif action == "change" and isinstance(entry, dict):
            entry["comment"] = chance.choice(["one", "two"])
        elif action == "add" and isinstance(entry, dict) and isinstance(entry.get("name"), str):
            around.append({**copy.deepcopy(entry), "name": entry["name"] + chance.choice("xy")})
    return made


documents = st.sampled_from(DOCUMENTS)
chances = st.randoms(use_true_random=False)


@given(documents, chances)
@settings(max_examples=150, deadline=None)
def test_a_side_that_changed_nothing_leaves_the_other_as_it_is(base, chance):
    other = shuffled(varied(base, chance), chance.random())
    assert merge(base, base, other) == (other, [])
    assert merge(base, other, base) == (other, [])
    assert merge(base, other, copy.deepcopy(other)) == (other, [])
    assert merge(other, other, other) == (other, [])


@given(documents, chances)
@settings(max_examples=150, deadline=None)
def test_the_order_of_sets_makes_no_conflict(base, chance):
    other = varied(base, chance)
    for ours, theirs in ((shuffled(base, chance.random()), other), (other, shuffled(base, chance.random()))):
        merged, conflicts = merge(base, ours, theirs)
        assert conflicts == []
        assert find_changes(merged, other) == []


@given(documents, chances)
@settings(max_examples=150, deadline=None)
def test_what_is_merged_has_all_that_either_side_changed(base, chance):
    ours, theirs = varied(base, chance), varied(base, chance)
    merged, conflicts = merge(base, ours, theirs)
    accounted = [conflict.path for conflict in conflicts] + [change.path for change in find_changes(theirs, base)]
    for change in find_changes(merged, ours):
        assert any(change.path[: len(path)] == path for path in accounted), change
    again, conflicts = merge(ours, merged, ours)
    assert (again, conflicts) == (merged, [])


@pytest.mark.parametrize("odd", [None, 3, "x", [], [1], {"sources": "x"}, {"sources": [1, None, ["a"]]},
                                 {"sources": [{"tables": {"a": 1}}]}])  # fmt: skip
def test_what_is_no_document_is_merged_all_the_same(odd):
    document = many_tables(1)
    for sides in ((odd, document, {}), (document, odd, {}), (document, {}, odd), (odd, odd, document)):
        merge(*sides)
