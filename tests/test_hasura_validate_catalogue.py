"""Metadata beside a real database: what is missing in it, and what has not the form that the engine asks."""

from __future__ import annotations

import copy

import pytest
from bed.metadata_documents import all_documents, many_tables
from bed.projects import Project
from bed.servers import Database as BedDatabase

from nself_core.guard.requirements import placed_requirements, requirements
from nself_core.hasura.lint_rules import RULES as LINT_RULES
from nself_core.hasura.validate import RULES as STRUCTURE_RULES
from nself_core.hasura.validate_catalogue import RULES, find_broken, find_facts
from nself_core.postgres.database import Database
from nself_core.settings import load_settings

ODD = 'Käse "Nº1" $$ %s :x'
SCHEMA = f"""
CREATE TABLE users (id int PRIMARY KEY, name text, made timestamptz DEFAULT now(), facts jsonb, tags text[]);
CREATE TABLE profiles (user_id int UNIQUE REFERENCES users, photo text);
CREATE TABLE posts (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, author_id int REFERENCES users, title text, state text,
    length int GENERATED ALWAYS AS (length(title)) STORED);
CREATE TABLE states (value text PRIMARY KEY, comment text);
INSERT INTO states VALUES ('draft', ''), ('live', '');
CREATE VIEW authors AS SELECT DISTINCT author_id AS id FROM posts;
CREATE TABLE "{ODD.replace('"', '""')}" ("{ODD.replace('"', '""')}" text PRIMARY KEY);
CREATE FUNCTION short(post posts, session json) RETURNS text LANGUAGE sql STABLE AS 'SELECT post.title';
CREATE FUNCTION changing(post posts) RETURNS text LANGUAGE sql AS 'SELECT post.title';
CREATE FUNCTION search(words text, who json) RETURNS SETOF posts LANGUAGE sql STABLE AS 'SELECT * FROM posts';
CREATE FUNCTION counted() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1';
CREATE FUNCTION tabled() RETURNS TABLE (a int) LANGUAGE sql STABLE AS 'SELECT 1';
CREATE FUNCTION many(VARIADIC words text[]) RETURNS SETOF posts LANGUAGE sql STABLE AS 'SELECT * FROM posts';
CREATE FUNCTION twice() RETURNS SETOF posts LANGUAGE sql STABLE AS 'SELECT * FROM posts';
CREATE FUNCTION twice(a int) RETURNS SETOF posts LANGUAGE sql STABLE AS 'SELECT * FROM posts';
"""


def key(column):
    return {"foreign_key_constraint_on": column}


def by_hand(table, **mapping):
    return {"manual_configuration": {"remote_table": table, "column_mapping": mapping}}


def rule(**keys):
    return [{"role": "user", "permission": {"columns": ["title"], "filter": {}, **keys}}]


def document(posts=(), functions=(), tables=()):
    """A document whose source default tracks all tables above; `posts`, more of what is said of posts."""
    entries: list = [{"table": name} for name in ("users", "profiles", "authors", ODD)]
    entries += [{"table": "states", "is_enum": True}, {"table": "posts", **dict(posts)}, *tables]
    source = {"name": "default", "kind": "postgres", "tables": entries,
              "functions": [{"function": name, **more} for name, more in functions]}  # fmt: skip
    return {"version": 3, "sources": [{"name": "other", "kind": "postgres", "tables": [{"table": "gone"}]}, source]}


def opened(project):
    """The Database of a project, as the program opens it."""
    return Database(load_settings(project=str(project.root), environ={}), "test")


def asked(database, document):
    """What is found in a document, as (rule, the path from posts or the source on, message)."""
    return [(found.rule, shown(found.path), found.message) for found in find_broken(database, document)]


@pytest.fixture(scope="module")
def filled(plain_server, tmp_path_factory):
    """The database of SCHEMA on the plain server, for tests that only read it."""
    made = BedDatabase(plain_server, "validate_catalogue")
    plain_server.drop_database(made.name)
    plain_server.create_database(made.name)
    made.admin(SCHEMA)
    database = opened(Project(tmp_path_factory.mktemp("validate") / "project", made, None))
    yield database
    database.close()
    plain_server.drop_database(made.name)


@pytest.fixture
def ask(filled):
    """ask(document) -> what is found in it beside SCHEMA; see `asked`."""
    return lambda document: asked(filled, document)


@pytest.fixture
def empty(plain_project):
    """An empty database on the plain server, as the program asks it."""
    database = opened(plain_project)
    yield database
    database.close()


def shown(path):
    below = path[4:] if path[2:4] == ("tables", 5) else path[2:]
    return ".".join(map(str, below))


GOOD = document(
    posts={
        "object_relationships": [{"name": "author", "using": key("author_id")},
                                 {"name": "view", "using": by_hand("authors", author_id="id")}],
        "computed_fields": [{"name": "short", "definition": {
            "function": "short", "table_argument": "post", "session_argument": "session"}}],
        "select_permissions": rule(filter={"_and": [
            {"author": {"facts": {"_has_key": "x"}, "tags": {"_contains": ["a"]}, "name": {"_ilike": "%x"}}},
            {"short": {"_eq": "x"}}, {"title": "x-hasura-user-id"}, {"id": {"_cast": {"String": {"_like": "1%"}}}},
            {"_exists": {"_table": "users", "_where": {"id": {"_ceq": "id"}}}}]}),
        "insert_permissions": [{"role": "user", "permission": {"check": {"author": {"id": {"_eq": 1}}},
                                                               "set": {"author_id": "x-hasura-user-id"}}}],
        "event_triggers": [{"name": "e", "definition": {"update": {"columns": ["title"]}}}],
    },
    functions=[("search", {"configuration": {"session_argument": "who"}})],
    tables=[{"table": {"schema": "public", "name": "posts2"}}],
)  # fmt: skip


def test_what_fits_is_no_finding_but_for_the_one_table(ask):
    assert ask(GOOD) == [("missing-table", "tables.6", "table public.posts2 is missing")]


@pytest.mark.parametrize(
    ("posts", "said"),
    [
        ({"select_permissions": rule(columns=["title", "titel"])},
         [("missing-column", "select_permissions.0.permission.columns.1", "column public.posts.titel is missing")]),
        ({"select_permissions": rule(filter={"titel": {"_eq": 1}})},
         [("missing-column", "select_permissions.0.permission.filter", "column public.posts.titel is missing")]),
        ({"update_permissions": rule(check={"titel": {"_eq": 1}})},
         [("missing-column", "update_permissions.0", "column public.posts.titel is missing")]),
        ({"insert_permissions": [{"role": "u", "permission": {"check": {}, "set": {"titel": 1}}}]},
         [("missing-column", "insert_permissions.0.permission.set.titel", "column public.posts.titel is missing")]),
        ({"insert_permissions": [{"role": "u", "permission": {"check": {}, "set": {"length": 1}}}]},
         [("generated-preset", "insert_permissions.0.permission.set.length",
           "column length is filled by the database, so the preset ends every insert")]),
        ({"select_permissions": rule(filter={"_or": [{"title": {"_eqq": 1}}]})},
         [("unknown-operator", "select_permissions.0.permission.filter._or.0.title._eqq",
           "column title is compared by _eqq, which is no operator")]),
        ({"select_permissions": rule(filter={"_not": {"author_id": {"_like": "1%"}}})},
         [("wrong-operator", "select_permissions.0.permission.filter._not.author_id._like",
           "_like does not work on column author_id, which is integer")]),
        ({"object_relationships": [{"name": "author", "using": key("author_id")}],
          "select_permissions": rule(filter={"author": {"facts": {"_regex": "x"}, "made": {"_has_key": "a"}}})},
         [("wrong-operator", "select_permissions.0.permission.filter.author.facts._regex",
           "_regex does not work on column facts, which is jsonb"),
          ("wrong-operator", "select_permissions.0.permission.filter.author.made._has_key",
           "_has_key does not work on column made, which is timestamp with time zone")]),
        ({"select_permissions": rule(filter={"_exists": {"_table": "gone", "_where": {"a": {"_eq": 1}}}})},
         [("missing-table", "select_permissions.0", "table public.gone is missing")]),
        ({"object_relationships": [{"name": "state", "using": key("state")}]},
         [("broken-relationship", "object_relationships.0",
           "relationship public.posts.state does not work: it needs exactly one foreign key of public.posts (state), "
           "to a tracked table")]),
        ({"array_relationships": [{"name": "photos", "using": key({"table": "profiles", "column": "user_id"})}]},
         [("broken-relationship", "array_relationships.0",
           "relationship public.posts.photos does not work: it needs exactly one foreign key of public.profiles "
           "(user_id) to public.posts")]),
        ({"object_relationships": [{"name": "same", "using": by_hand("posts", author_id="author_id")}]},
         [("not-unique", "object_relationships.0",
           "several rows of public.posts (author_id) can answer, and one is taken")]),
        ({"array_relationships": [{"name": "odd", "using": by_hand("users", title="id")}]},
         [("mapped-types", "array_relationships.0", "column title is text, and id is integer")]),
        ({"computed_fields": [{"name": "f", "definition": {"function": "gone"}}]},
         [("missing-function", "computed_fields.0", "function public.gone is missing or overloaded")]),
        ({"computed_fields": [{"name": "f", "definition": {"function": "changing"}}]},
         [("function-form", "computed_fields.0",
           "function public.changing is VOLATILE, and a computed field's must be STABLE or IMMUTABLE")]),
        ({"computed_fields": [{"name": "f", "definition": {"function": "counted"}}]},
         [("function-form", "computed_fields.0", "function public.counted takes no row")]),
        ({"computed_fields": [{"name": "f", "definition": {"function": "short", "session_argument": "sesion"}}]},
         [("function-form", "computed_fields.0", "function public.short has no argument sesion")]),
        ({"computed_fields": [{"name": "f", "definition": {"function": "search", "table_argument": "words"}}]},
         [("function-form", "computed_fields.0",
           "function public.search takes text where a row of public.posts is given")]),
        ({"event_triggers": [{"name": "e", "definition": {"update": {"columns": ["titel"]}}}]},
         [("missing-column", "event_triggers.0", "column public.posts.titel is missing")]),
        ({"remote_relationships": [{"name": "r", "definition": {"to_remote_schema": {"lhs_fields": ["titel"]}}}]},
         [("missing-column", "remote_relationships.0", "column public.posts.titel is missing")]),
        ({"is_enum": True},
         [("enum-table", "",
           "enum table public.posts cannot be one: it needs a text key, at most one more text column, and rows whose "
           "keys are names in GraphQL")]),
    ],
)  # fmt: skip
def test_what_is_found_in_a_table(ask, posts, said):
    assert sorted(ask(document(posts))) == sorted(said)


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("search", {}, []),
        ("gone", {}, [("missing-function", "function public.gone is missing or overloaded")]),
        ("twice", {}, [("missing-function", "function public.twice is missing or overloaded")]),
        ("counted", {},
         [("function-form", "function public.counted returns integer, which is no row of a tracked table")]),
        ("tabled", {},
         [("function-form", "function public.tabled returns integer, which is no row of a tracked table")]),
        ("many", {}, [("function-form", "function public.many is VARIADIC, and cannot be tracked")]),
        ("search", {"configuration": {"exposed_as": "mutation"}},
         [("function-form", "function public.search is not VOLATILE, and cannot be exposed as a mutation")]),
        ("search", {"configuration": {"session_argument": "words"}},
         [("function-form", "argument words of function public.search is text, and the session is given as json")]),
    ],
)  # fmt: skip
def test_what_is_found_in_a_tracked_function(ask, name, more, said):
    assert ask(document(functions=[(name, more)])) == [(rule, "functions.0", message) for rule, message in said]


@pytest.mark.versions
def test_every_version_over_every_way_answers_alike(project):
    project.database.admin(SCHEMA)
    database = opened(project)
    made = document({"select_permissions": rule(filter={"title": {"_eqq": 1}}), "is_enum": True},
                    functions=[("many", {})])  # fmt: skip
    assert [found[0] for found in asked(database, GOOD)] == ["missing-table"]
    assert sorted(found[0] for found in asked(database, made)) == ["enum-table", "function-form", "unknown-operator"]
    database.close()


def test_a_one_to_one_relationship_by_the_far_key_wants_it_unique(empty, plain_project):
    plain_project.database.admin(SCHEMA)
    users = {"table": "users", "object_relationships": [
        {"name": "profile", "using": key({"table": "profiles", "column": "user_id"})},
        {"name": "post", "using": key({"table": "posts", "columns": ["author_id"]})}]}  # fmt: skip
    made = document()
    made["sources"][1]["tables"][0] = users
    assert asked(empty, made) == [("not-unique", "tables.0.object_relationships.1",
                          "several rows of public.posts (author_id) can answer, and one is taken")]  # fmt: skip
    plain_project.database.admin("CREATE UNIQUE INDEX ON posts (author_id) WHERE id > 5")
    assert len(asked(empty, made)) == 1
    plain_project.database.admin("CREATE UNIQUE INDEX ON posts (author_id) INCLUDE (title)")
    assert asked(empty, made) == []


def test_relationships_from_elsewhere_are_told_at_their_place(ask):
    made = document()
    made["sources"][0]["tables"][0]["remote_relationships"] = [
        {
            "name": "r",
            "definition": {
                "to_source": {
                    "source": "default",
                    "table": "posts",
                    "relationship_type": "array",
                    "field_mapping": {"a": "gone"},
                }
            },
        }
    ]
    made["remote_schemas"] = [
        {
            "name": "s",
            "remote_relationships": [
                {
                    "type_name": "T",
                    "relationships": [
                        {
                            "name": "r",
                            "definition": {
                                "to_source": {"source": "default", "table": "posts", "field_mapping": {"x": "lost"}}
                            },
                        }
                    ],
                }
            ],
        }
    ]
    made["custom_types"] = {"objects": [{"name": "O", "relationships": [
        {"name": "r", "remote_table": "posts", "field_mapping": {"x": "away"}}]}]}  # fmt: skip
    assert sorted(ask(made)) == [
        ("missing-column", "0.relationships.0", "column public.posts.away is missing"),
        ("missing-column", "remote_relationships.0.relationships.0", "column public.posts.lost is missing"),
        ("missing-column", "tables.0.remote_relationships.0", "column public.posts.gone is missing"),
    ]


def test_names_of_any_kind(ask):
    made = document()
    made["sources"][1]["tables"][3].update(
        select_permissions=[{"role": "u", "permission": {"columns": [ODD], "filter": {ODD: {"_eq": ODD}}}}],
        computed_fields=[{"name": "f", "definition": {"function": ODD}}])  # fmt: skip
    assert ask(made) == [("missing-function", "tables.3.computed_fields.0",
                          f"function public.{ODD} is missing or overloaded")]  # fmt: skip


def test_without_source_default_there_is_nothing_to_find(ask):
    assert ask({"version": 3, "sources": []}) == []
    assert ask({"version": 3, "sources": [{"name": "default", "kind": "mssql", "tables": [{"table": "gone"}]}]}) == []
    assert ask({"version": 2, "tables": [{"table": "gone"}]}) == [("missing-table", "", "table public.gone is missing")]


def test_all_documents_are_asked_of_an_empty_database(empty):
    """None of their tables is there: each is told once, and nothing else of it."""
    for _name, made in all_documents():
        tables = {path for path, need in placed_requirements(made) if need.why == "tracked table"}
        found = find_broken(empty, made)
        assert {finding.path for finding in found if finding.rule == "missing-table"} >= tables
        assert {finding.rule for finding in found} <= {"missing-table", "missing-function"}


def test_the_placed_requirements_are_the_guards():
    for _name, made in all_documents():
        placed = list(placed_requirements(made))
        assert {need for _path, need in placed} == requirements(made)
        for path, _need in placed:
            place = made
            for step in path:
                place = place[step]
            assert place is not made or "sources" not in made


def test_many_tables_are_asked_in_two_questions(empty, plain_project):
    columns = ", ".join(f"column_{number} text" for number in range(2, 12))
    plain_project.database.admin(
        "DO $$ BEGIN FOR n IN 0..399 LOOP EXECUTE format('CREATE TABLE table_%s (column_0 text PRIMARY KEY,"
        f" column_1 text, {columns})', n); END LOOP; END $$"
    )
    made = many_tables(400)
    for entry in made["sources"][0]["tables"]:
        del entry["object_relationships"]
    broken = copy.deepcopy(made)
    broken["sources"][0]["tables"][123]["select_permissions"][1]["permission"]["columns"] = ["column_12"]
    questions, rows = [], empty.rows

    def counted(sql, **params):
        questions.append(sql)
        return rows(sql, **params)

    empty.rows = counted
    assert [finding.path[3] for finding in find_broken(empty, broken)] == [123]
    assert len(questions) == 2
    assert len(find_facts(empty, made).relations) == 400


def test_no_two_rules_have_one_name():
    names = [*RULES, *STRUCTURE_RULES, *LINT_RULES]
    assert len(set(names)) == len(names)
