"""Identity paths: names for the parts of a metadata document, whatever their order."""

from __future__ import annotations

import pytest
from bed.gaps import wants_shared
from bed.metadata_documents import all_documents, many_tables, shuffled
from hypothesis import given, settings
from hypothesis import strategies as st

from nself_core.hasura.identity import entry_names, identity_path, index_path, named, qualified_text
from nself_core.hasura.objects import spec_of

DOCUMENTS = all_documents()
BLOG = {
    "version": 3,
    "sources": [
        {"name": "other", "kind": "postgres", "tables": []},
        {"name": "default", "kind": "postgres", "tables": [
            {"table": "users"},
            {"table": {"schema": "app", "name": "posts"}, "select_permissions": [
                {"role": "guest", "permission": {"columns": ["id"], "filter": {}}},
                {"role": "user", "permission": {"columns": ["id", "title"], "filter": {"_or": [{"id": {"_eq": 1}}]}}},
            ]},
        ]},
    ],
    "actions": [{"name": "login", "definition": {"arguments": [{"name": "who", "type": "String!"}]}}],
}  # fmt: skip
RULE = ("sources", "default", "tables", "app.posts", "select_permissions", "user", "permission")


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ((), ()),
        (("sources", "default"), ("sources", 1)),
        (("sources", "default", "tables", "public.users"), ("sources", 1, "tables", 0)),
        ((*RULE, "columns"), ("sources", 1, "tables", 1, "select_permissions", 1, "permission", "columns")),
        ((*RULE, "columns", "title"), ("sources", 1, "tables", 1, "select_permissions", 1, "permission", "columns", 1)),
        ((*RULE, "filter", "_or", "0", "id"),
         ("sources", 1, "tables", 1, "select_permissions", 1, "permission", "filter", "_or", 0, "id")),
        (("actions", "login", "definition", "arguments", "who", "type"),
         ("actions", 0, "definition", "arguments", 0, "type")),
    ],
)  # fmt: skip
def test_an_identity_path_and_its_index_path(path, place):
    assert index_path(BLOG, path) == place
    assert identity_path(BLOG, place) == path


@pytest.mark.parametrize("folder", [
    "own", *(pytest.param(name, marks=wants_shared(name)) for name in ("hasura-golden", "hasura-real")),
])  # fmt: skip
def test_both_ways_agree_in_every_document(folder):
    found = [named(document) for name, document in DOCUMENTS if name.startswith(folder)]
    documents = [document for name, document in DOCUMENTS if name.startswith(folder)]
    for document, paths in zip(documents, found):
        for path, place in paths.items():
            assert index_path(document, path) == place
            assert identity_path(document, place) == path
    assert sum(map(len, found)) > 100


def test_what_is_not_there_is_looked_for_at_its_nearest_parent():
    assert index_path(BLOG, ("sources", "default", "tables", "public.gone", "is_enum")) == ("sources", 1, "tables")
    assert index_path(BLOG, ("remote_schemas", "x")) == ()
    assert identity_path(BLOG, ("sources", 1, "tables", 7)) == ("sources", "default", "tables")


def test_the_tables_of_a_document_of_version_2_are_those_of_source_default():
    document = {"version": 2, "tables": [{"table": "a"}, {"table": "b", "is_enum": True}]}
    assert index_path(document, ("sources", "default", "tables", "public.b", "is_enum")) == ("tables", 1, "is_enum")


def test_the_names_of_every_entry_lead_to_it():
    names = named(BLOG)
    assert names[("sources", "default")] == ("sources", 1)
    assert names[("sources", "default", "tables", "app.posts", "select_permissions", "guest")][-1] == 0
    assert ("actions", "login", "definition", "arguments", "who") in names


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_names_do_not_depend_on_the_order(seed):
    document = many_tables(3)
    document["sources"][0]["tables"] += [{"table": "table_1", "is_enum": True}, {"table": "table_1"}, {"odd": 1}]
    assert set(named(document)) == set(named(shuffled(document, seed)))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("posts", "public.posts"),
        ({"name": "posts"}, "public.posts"),
        ({"name": "posts", "schema": "app"}, "app.posts"),
        ({"name": "b", "schema": "c.a"}, '"c.a".b'),
        ({"name": "a.b", "schema": "c"}, 'c."a.b"'),
        ({"name": 'a"b', "schema": "Ünïcode $$ %"}, 'Ünïcode $$ %."a""b"'),
        ({"dataset": "sales", "name": "x"}, "sales.x"),
        (["Album"], "Album"),
        (["a", "b"], "a.b"),
        ({"name": 3}, None),
        (None, None),
        (7, None),
        ([], None),
    ],
)
def test_how_a_table_is_named(value, text):
    assert qualified_text(value) == text


def test_entries_of_one_name_are_told_apart_the_same_in_any_order():
    kind = spec_of("{object_relationship: name}").kinds[0]
    one, other = {"name": "a", "using": 1}, {"name": "a", "using": 2}
    taken = {"name": "a#2", "using": 3}
    first = dict(zip(entry_names(kind, [one, other, taken]), [one, other, taken]))
    second = dict(zip(entry_names(kind, [taken, other, one]), [taken, other, one]))
    assert first == second
    assert set(first) == {"a", "a#2", "a#3"}


def test_an_entry_without_a_name_has_a_digest_that_does_not_give_it_away():
    kind = spec_of("headers").kinds[0]
    (name,) = entry_names(kind, [{"value": "hunter2-hunter2"}])
    assert name.startswith("#") and "hunter" not in name
    assert entry_names(kind, [{"value": "hunter2-hunter2"}]) == [name]


@pytest.mark.parametrize("document", [None, 3, "x", [], [1], {"sources": "x"}, {"sources": [1, None, ["a"]]},
                                      {"sources": [{"tables": {"a": 1}}]}, {"actions": {"name": "x"}}])  # fmt: skip
def test_what_is_no_document_has_paths_all_the_same(document):
    assert isinstance(named(document), dict)
    assert isinstance(index_path(document, ("sources", "default", "tables")), tuple)
    assert isinstance(identity_path(document, ("sources", 0, "tables")), tuple)
