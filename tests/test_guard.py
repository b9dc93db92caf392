"""The guard of the live API: what a metadata document needs, and whether the catalogue has it."""

from __future__ import annotations

import json
import time

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nself_core.guard.check_sql import BROKEN_SQLSTATE, SQL_METADATA, sql_guard, sql_unsatisfied
from nself_core.guard.requirements import Requirement, describe, narrow, requirements, without

ODD = 'Käse "Nº1".x'

SCHEMA = f"""
CREATE TABLE orgs (id int PRIMARY KEY, name text);
CREATE TABLE users (id int PRIMARY KEY, email text, org_id int REFERENCES orgs);
CREATE TABLE status (value text PRIMARY KEY, comment text);
INSERT INTO status VALUES ('draft', 'not yet'), ('live', NULL);
CREATE TABLE posts (
    id int PRIMARY KEY, author_id int REFERENCES users, editor_id int, title text, body text,
    status text REFERENCES status);
CREATE VIEW live_posts AS SELECT id, author_id FROM posts WHERE status = 'live';
CREATE TABLE orders (shop int, number int, note text, PRIMARY KEY (shop, number));
CREATE TABLE items (id int, shop int, number int, FOREIGN KEY (shop, number) REFERENCES orders);
CREATE SCHEMA app;
CREATE TABLE app."{ODD.replace('"', '""')}" ("ID" int, "a'b" text);
CREATE FUNCTION search_posts(words text) RETURNS SETOF posts LANGUAGE sql STABLE AS 'SELECT * FROM posts';
CREATE FUNCTION app.age(post posts) RETURNS int LANGUAGE sql STABLE AS 'SELECT 1';
"""


def by_key(column):
    return {"foreign_key_constraint_on": column}


def permission(role, **rule):
    return {"role": role, "permission": rule}


def one_source(*tables, functions=(), **sections):
    source = {"name": "default", "kind": "postgres", "tables": list(tables), "functions": list(functions)}
    return {"version": 3, "sources": [source], **sections}


BLOG = one_source(
    {"table": "orgs"},
    {
        "table": {"schema": "public", "name": "users"},
        "object_relationships": [{"name": "org", "using": by_key("org_id")}],
        "array_relationships": [
            {"name": "posts", "using": by_key({"table": "posts", "column": "author_id"})},
            {"name": "live", "using": {"manual_configuration": {
                "remote_table": {"schema": "public", "name": "live_posts"}, "column_mapping": {"id": "author_id"}}}},
        ],
        "select_permissions": [permission("user", columns=["id", "email"], filter={"id": {"_eq": "X-Hasura-User-Id"}})],
    },
    {"table": "status", "is_enum": True},
    {
        "table": "posts",
        "object_relationships": [{"name": "author", "using": by_key("author_id")}],
        "select_permissions": [permission("user", columns="*", filter={"author": {"org": {"name": {"_eq": "us"}}}})],
        "insert_permissions": [permission("user", columns=["title"], set={"editor_id": "x-hasura-user-id"}, check={})],
        "computed_fields": [{"name": "age", "definition": {"function": {"schema": "app", "name": "age"}}}],
        "event_triggers": [{"name": "told", "definition": {"update": {"columns": ["body"], "payload": ["id"]}}}],
    },
    {"table": "live_posts"},
    {"table": "orders", "array_relationships": [
        {"name": "items", "using": by_key({"table": "items", "columns": ["shop", "number"]})}]},
    {"table": "items", "object_relationships": [{"name": "order", "using": by_key(["number", "shop"])}]},
    {"table": {"schema": "app", "name": ODD}, "select_permissions": [
        permission("user", columns=["ID", "a'b"], filter={})]},
    functions=[{"function": "search_posts"}],
)


def needs(metadata, kind="column"):
    """What a document needs of one kind, as schema.table.name texts."""
    return sorted({".".join(r[1:4]).strip(".") for r in requirements(metadata) if r.kind == kind})


def filtered(expression, *tables):
    """The columns that a select permission on `posts` with this filter needs; `tables` are tracked beside it."""
    posts = {
        "table": "posts",
        "object_relationships": [{"name": "author", "using": by_key("author_id")}],
        "array_relationships": [{"name": "notes", "using": by_key({"table": "notes", "column": "post"})}],
        "computed_fields": [{"name": "age", "definition": {"function": "age"}}],
        "select_permissions": [permission("user", columns=[], filter=expression)],
    }
    return needs(one_source(posts, *tables))


# What a metadata document needs.


def test_tracked_tables_are_needed():
    assert needs(one_source({"table": "a"}, {"table": {"schema": "s", "name": "b"}}), "table") == ["public.a", "s.b"]


def test_the_columns_of_every_permission_are_needed_but_not_a_star():
    table = {
        "table": "t",
        "select_permissions": [permission("a", columns=["one"], filter={}), permission("b", columns="*", filter={})],
        "insert_permissions": [permission("a", columns=["two"], set={"three": 1}, check={"four": {"_eq": 1}})],
        "update_permissions": [
            permission("a", columns=["five"], set={"six": 1}, filter={"seven": 1}, check={"eight": 1})],
        "delete_permissions": [permission("a", filter={"nine": {"_is_null": True}})],
    }
    names = ("eight", "five", "four", "nine", "one", "seven", "six", "three", "two")
    assert needs(one_source(table)) == [f"public.t.{name}" for name in names]


def test_a_requirement_says_which_permission_needs_it():
    table = {"table": "np_posts", "select_permissions": [permission("user", columns=["title"], filter={})]}
    assert Requirement(
        "column", "public", "np_posts", "title", "select permission of role user on public.np_posts"
    ) in requirements(one_source(table))


@pytest.mark.parametrize(("expression", "expected"), [
    ({"_and": [{"a": {"_eq": 1}}, {"_or": [{"b": 1}, {"_not": {"c": {"_in": [1]}}}]}]},
     ["posts.a", "posts.b", "posts.c"]),
    ({"$or": [{"$not": {"a": 1}}]}, ["posts.a"]),
    ({"_exists": {"_table": {"schema": "s", "name": "x"}, "_where": {"k": {"_eq": 1}}}}, ["s.x.k"]),
    ({"a": {"_ceq": "b"}}, ["posts.a", "posts.b"]),
    ({"a": {"_cast": {"String": {"_ceq": ["c"]}}}}, ["posts.a", "posts.c"]),
    ({"notes": {"text": {"_ceq": ["$", "title"]}}}, ["notes.text", "posts.title"]),
    ({"notes": {"_exists": {"_table": "x", "_where": {"k": {"_cgt": ["$", "id"]}}}}}, ["posts.id", "x.k"]),
    ({"notes_aggregate": {"count": {"arguments": ["id"], "filter": {"seen": {"_eq": True}}, "predicate": {"_gt": 1}}}},
     ["notes.id", "notes.seen"]),
    ({"author": {"email": {"_eq": "x"}}}, ["posts.author.email"]),
    ({"author": {"org": {"_or": [{"name": "x"}]}}}, ["posts.author.org.name"]),
    ({"age": {"_gt": 1}}, []),
    ({}, []),
])
def test_names_in_a_boolean_expression(expression, expected):
    found = [name.replace("public.", "") for name in filtered(expression, {"table": "notes"})]
    assert found == expected


def test_relationships_need_their_foreign_key_or_both_sides_of_their_mapping():
    assert needs(BLOG, "relationship") == [
        "public.items.order", "public.orders.items", "public.posts.author", "public.users.live", "public.users.org",
        "public.users.posts",
    ]
    assert {"public.users.id", "public.live_posts.author_id"} <= set(needs(BLOG))


def test_functions_of_computed_fields_and_tracked_ones_are_needed():
    table = {"table": "t", "computed_fields": [{"name": "x", "definition": {"function": {"schema": "s", "name": "f"}}}]}
    listed = ["old", {"schema": "s", "name": "bare"}, {"function": "new"}]
    assert needs(one_source(table, functions=listed), "function") == ["public..new", "public..old", "s..bare", "s..f"]


def test_columns_of_event_triggers_are_needed():
    assert {"public.posts.body", "public.posts.id"} <= set(needs(BLOG))


def test_relationships_to_and_from_other_places_need_their_columns():
    remote = {"name": "r", "definition": {"to_remote_schema": {"lhs_fields": ["a", "shown"]}}}
    table = {"table": "t", "remote_relationships": [remote, {"name": "o", "definition": {"hasura_fields": ["b"]}}],
             "computed_fields": [{"name": "shown", "definition": {"function": "f"}}]}
    to_source = {"source": "default", "table": "t", "field_mapping": {"q": "c"}}
    inward = {"name": "x", "definition": {"to_source": to_source}}
    metadata = one_source(
        table,
        remote_schemas=[{"name": "s", "remote_relationships": [{"relationships": [inward]}]}],
        custom_types={"objects": [{"relationships": [
            {"name": "y", "source": "default", "remote_table": "t", "field_mapping": {"q": "d"}}]}]},
    )
    assert needs(metadata) == ["public.t.a", "public.t.b", "public.t.c", "public.t.d"]


def test_version_2_documents_have_their_tables_at_the_top():
    assert needs({"version": 2, "tables": [{"table": "t", "is_enum": True}]}, "enum_table") == ["public.t"]


@pytest.mark.parametrize("metadata", [
    {}, {"sources": []}, {"sources": [{"name": "other", "tables": [{"table": "t"}]}]},
    {"sources": [{"name": "default", "kind": "mssql", "tables": [{"table": "t"}]}]},
    {"sources": [{"name": "default", "tables": [None, 1, {"table": ["a", "b"]}, {"table": {"name": 1}}]}]},
    {"sources": [{"name": "default", "tables": "!include x.yaml", "functions": [2, None]}]},
])
def test_what_is_not_in_postgres_source_default_does_not_count(metadata):
    assert requirements(metadata) == frozenset()


def test_names_that_postgres_cannot_have_are_left_out():
    assert requirements(one_source({"table": "a\0b"}, {"table": "a\ud800"})) == frozenset()


def test_a_reason_with_odd_characters_can_be_sent():
    table = {"table": "t", "delete_permissions": [permission("\ud800\0", filter={"a": 1})]}
    assert {r.why for r in requirements(one_source(table))} == {
        "tracked table", "delete permission of role ?? on public.t"}


# What counts, and how it is told.


def test_narrow_keeps_what_the_local_tree_still_tracks():
    live = requirements(one_source({"table": "a"}, {"table": "b"}))
    assert {r.table for r in narrow(live, requirements(one_source({"table": "b"}, {"table": "c"})))} == {"b"}


def test_narrow_keeps_a_thing_that_another_local_object_needs():
    def table(role):
        return one_source({"table": "t", "delete_permissions": [permission(role, filter={"a": 1})]})

    kept = narrow(requirements(table("old")), requirements(table("new")))
    assert "delete permission of role old on public.t" in {r.why for r in kept}


def test_narrow_without_a_local_tree_keeps_everything():
    live = requirements(BLOG)
    assert narrow(live, None) == live


def test_describe_puts_the_parts_of_a_lost_table_into_one_line():
    rows = [{"kind": kind, "schema": "public", "table": "t", "name": name, "why": why} for kind, name, why in (
        ("table", "", "tracked table"), ("column", "a", "x"), ("column", "b", "x"), ("column", "b", "y"))]
    assert describe(rows) == [
        "table public.t is missing: tracked table; with it 2 of its columns and relationships"]


def test_describe_names_at_most_three_reasons():
    rows = [{"kind": "column", "schema": "s", "table": "t", "name": "c", "why": f"reason {n}"} for n in range(5)]
    assert describe(rows) == ["column s.t.c is missing: reason 0, reason 1, reason 2 and 2 more"]


def test_describe_says_what_each_kind_of_thing_lacks():
    rows = [need._asdict() for need in requirements(BLOG) if need.kind not in ("column", "table")
            and need.name not in ("org", "posts")]
    key = "it needs a text key, at most one more text column, and rows whose keys are names in GraphQL"
    assert describe(rows) == [
        f"enum table public.status cannot be one: {key}",
        "function app.age is missing or overloaded: computed field age of public.posts",
        "function public.search_posts is missing or overloaded: tracked function",
        "relationship public.items.order does not work: "
        "it needs exactly one foreign key of public.items (number, shop), to a tracked table",
        "relationship public.orders.items does not work: "
        "it needs exactly one foreign key of public.items (number, shop) to public.orders",
        "relationship public.posts.author does not work: "
        "it needs exactly one foreign key of public.posts (author_id), to a tracked table",
        "relationship public.users.live does not work: it needs table public.live_posts",
    ]


# The check on a real server.


@pytest.fixture(scope="module")
def blog(plain_server):
    """The name of a database with SCHEMA in it."""
    plain_server.drop_database("guard_blog")
    plain_server.create_database("guard_blog")
    plain_server.admin(SCHEMA, "guard_blog")
    yield "guard_blog"
    plain_server.drop_database("guard_blog")


@pytest.fixture
def session(plain_server, blog):
    """A connection to it, in a transaction that is rolled back."""
    with plain_server.cluster.connect(blog, autocommit=False) as connection:
        yield connection
        connection.rollback()


def broken(session, metadata=BLOG):
    """What is missing, as kind and place."""
    rows = session.execute(sql_unsatisfied(requirements(metadata)).encode()).fetchall()
    return sorted({" ".join(part for part in (r["kind"], r["table"], r["name"]) if part) for r in rows})


def test_an_intact_database_satisfies_everything(session):
    assert broken(session) == []


@pytest.mark.parametrize(("change", "expected"), [
    ("ALTER TABLE posts DROP COLUMN title", ["column posts title"]),
    ("ALTER TABLE posts RENAME COLUMN body TO text", ["column posts body"]),
    ("ALTER TABLE posts DROP COLUMN editor_id", ["column posts editor_id"]),
    ("ALTER TABLE orgs RENAME COLUMN name TO title", ["column posts author.org.name"]),
    ("ALTER TABLE orgs SET SCHEMA app", ["column posts author.org.name", "relationship users org", "table orgs"]),
    ("DROP VIEW live_posts", ["column live_posts author_id", "relationship users live", "table live_posts"]),
    ("ALTER TABLE posts DROP CONSTRAINT posts_author_id_fkey",
     ["column posts author.org.name", "relationship posts author", "relationship users posts"]),
    ("ALTER TABLE posts ADD FOREIGN KEY (author_id) REFERENCES users",
     ["column posts author.org.name", "relationship posts author", "relationship users posts"]),
    ("CREATE TABLE people (id int PRIMARY KEY, org_id int); ALTER TABLE posts DROP CONSTRAINT posts_author_id_fkey,"
     " ADD FOREIGN KEY (author_id) REFERENCES people",
     ["column posts author.org.name", "relationship posts author", "relationship users posts"]),
    ("ALTER TABLE items DROP CONSTRAINT items_shop_number_fkey",
     ["relationship items order", "relationship orders items"]),
    ("DROP FUNCTION search_posts", ["function search_posts"]),
    ("ALTER FUNCTION app.age(posts) RENAME TO years", ["function age"]),
    ("CREATE FUNCTION search_posts(a int) RETURNS SETOF posts LANGUAGE sql AS 'SELECT * FROM posts'",
     ["function search_posts"]),
    ("ALTER TABLE posts DROP CONSTRAINT posts_status_fkey; DELETE FROM status", ["enum_table status"]),
    ("INSERT INTO status VALUES ('in progress')", ["enum_table status"]),
    ("INSERT INTO status VALUES ('true')", ["enum_table status"]),
    ("ALTER TABLE status ADD COLUMN colour text", ["enum_table status"]),
    ("ALTER TABLE status ALTER COLUMN comment TYPE varchar", ["enum_table status"]),
    ("ALTER TABLE posts DROP CONSTRAINT posts_status_fkey; ALTER TABLE status DROP CONSTRAINT status_pkey",
     ["enum_table status"]),
    (f"""ALTER TABLE app."{ODD.replace('"', '""')}" DROP COLUMN "ID" """, [f"column {ODD} ID"]),
    (f"""DROP TABLE app."{ODD.replace('"', '""')}" """, [f"column {ODD} ID", f"column {ODD} a'b", f"table {ODD}"]),
])
def test_a_change_that_breaks_the_api(session, change, expected):
    session.execute(change)
    assert broken(session) == expected


@pytest.mark.parametrize("change", [
    "ALTER TABLE posts ADD COLUMN extra int, ALTER COLUMN title TYPE varchar(9)",
    "ALTER TABLE posts ALTER COLUMN editor_id TYPE bigint",
    "CREATE OR REPLACE FUNCTION search_posts(words text) RETURNS SETOF posts LANGUAGE sql AS 'SELECT * FROM posts'",
    "DROP VIEW live_posts; CREATE MATERIALIZED VIEW live_posts AS SELECT * FROM posts",
    "ALTER TABLE posts DROP CONSTRAINT posts_status_fkey; ALTER TABLE status DROP COLUMN comment",
    "CREATE DOMAIN word AS text; ALTER TABLE status ALTER COLUMN comment TYPE word",
    "ALTER TABLE posts RENAME CONSTRAINT posts_author_id_fkey TO posts_written_by",
    "CREATE TABLE other (id int PRIMARY KEY); ALTER TABLE posts ADD FOREIGN KEY (editor_id) REFERENCES other",
    "CREATE TABLE app.posts (id int)",
])
def test_a_change_that_does_not_break_the_api(session, change):
    session.execute(change)
    assert broken(session) == []


def test_a_foreign_key_to_a_partitioned_table_is_one_key(session):
    session.execute("""
        CREATE TABLE days (day int PRIMARY KEY) PARTITION BY RANGE (day);
        CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM (1) TO (9);
        CREATE TABLE days_2 PARTITION OF days FOR VALUES FROM (9) TO (99);
        CREATE TABLE visits (day int REFERENCES days)""")
    assert broken(session, one_source(
        {"table": "days", "array_relationships": [
            {"name": "visits", "using": by_key({"table": "visits", "column": "day"})}]},
        {"table": "visits", "object_relationships": [{"name": "at", "using": by_key("day")}]},
    )) == []


def test_a_relationship_of_a_table_to_itself(session):
    session.execute("CREATE TABLE nodes (id int PRIMARY KEY, up int REFERENCES nodes)")
    metadata = one_source({
        "table": "nodes", "object_relationships": [{"name": "parent", "using": by_key("up")}],
        "array_relationships": [{"name": "children", "using": by_key({"table": "nodes", "column": "up"})}],
        "delete_permissions": [permission("u", filter={"parent": {"parent": {"parent": {"id": {"_eq": 1}}}}})],
    })
    assert broken(session, metadata) == []
    session.execute("ALTER TABLE nodes RENAME id TO key")
    assert broken(session, metadata) == ["column nodes parent.parent.parent.id"]


def guard(session, needed=None):
    session.execute(sql_guard(requirements(BLOG) if needed is None else needed).encode())


def test_the_guard_lets_an_intact_database_pass(session):
    guard(session)


def test_the_guard_counts_and_lists_what_is_missing(session):
    session.execute("ALTER TABLE posts DROP COLUMN title")
    with pytest.raises(psycopg.Error) as caught:
        guard(session)
    assert caught.value.sqlstate == BROKEN_SQLSTATE
    assert "1 of the things" in str(caught.value)
    assert json.loads(caught.value.diag.message_detail or "") == [
        {"kind": "column", "schema": "public", "table": "posts", "name": "title",
         "why": "insert permission of role user on public.posts"}]


def test_the_guards_detail_is_one_line(session):
    session.execute("ALTER TABLE posts DROP COLUMN title, DROP COLUMN body")
    with pytest.raises(psycopg.Error) as caught:
        guard(session)
    assert len(json.loads(caught.value.diag.message_detail or "")) == 2
    assert "\n" not in str(caught.value.diag.message_detail)


def test_what_was_broken_before_does_not_stop_the_guard(session):
    session.execute("ALTER TABLE posts DROP COLUMN title")
    needed = requirements(BLOG)
    rows = session.execute(sql_unsatisfied(needed).encode()).fetchall()
    guard(session, without(needed, rows))


def test_a_table_that_was_missing_may_come_and_be_referenced(session):
    posts = {"table": "posts", "object_relationships": [{"name": "author", "using": by_key("author_id")}]}
    needed = requirements(one_source({"table": "later"}, posts, {"table": "users"}))
    fine = without(needed, session.execute(sql_unsatisfied(needed).encode()).fetchall())
    session.execute("CREATE TABLE later (id int PRIMARY KEY); ALTER TABLE posts DROP CONSTRAINT posts_author_id_fkey,"
                    " ADD FOREIGN KEY (author_id) REFERENCES later")
    guard(session, fine)


HOSTILE = """
CREATE SCHEMA evil;
CREATE FUNCTION evil.never(text, text) RETURNS bool LANGUAGE sql AS 'SELECT false';
CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.never);
CREATE FUNCTION evil.count() RETURNS bigint LANGUAGE sql AS 'SELECT 0::bigint';
CREATE TYPE evil.text AS (broken int);
SET search_path = evil, pg_catalog;
"""


@pytest.mark.parametrize("state", [
    HOSTILE,
    "SET search_path = ''",
    "SET standard_conforming_strings = off",
    "SET client_encoding = latin1",
    "SET default_transaction_read_only = on; SET row_security = off; SET lc_numeric = 'C'",
    "CREATE ROLE guard_weak; SET ROLE guard_weak",
    "CREATE ROLE guard_weak; SET LOCAL ROLE guard_weak; SET plpgsql.variable_conflict = use_column",
])
def test_the_guard_does_not_heed_what_a_file_left_set(session, state):
    session.execute(state)
    guard(session)
    assert broken(session) == []


def test_the_guard_leaves_the_role_as_it_was(session):
    session.execute("CREATE ROLE guard_weak; SET ROLE guard_weak")
    guard(session)
    assert session.execute("SELECT current_user").fetchone() == {"current_user": "guard_weak"}


def test_the_guard_reads_enum_rows_that_the_files_role_may_not(session):
    session.execute("ALTER TABLE posts DROP CONSTRAINT posts_status_fkey; DELETE FROM status;"
                    " CREATE ROLE guard_weak; SET ROLE guard_weak")
    assert broken(session) == []
    with pytest.raises(psycopg.Error, match="things that Hasura"):
        guard(session)


def test_the_check_runs_in_a_read_only_transaction(session):
    session.execute("SET TRANSACTION READ ONLY")
    assert broken(session) == []


def test_nothing_needed_is_nothing_missing(session):
    assert session.execute(sql_unsatisfied(frozenset()).encode()).fetchall() == []
    guard(session, frozenset())


@pytest.mark.versions
def test_the_check_says_the_same_on_every_version(database):
    with database.connect(autocommit=False) as session:
        session.execute(SCHEMA)
        assert broken(session) == []
        guard(session)
        session.execute("ALTER TABLE posts DROP COLUMN title, DROP CONSTRAINT posts_author_id_fkey;"
                        " INSERT INTO status VALUES ('not a name')")
        assert broken(session) == ["column posts author.org.name", "column posts title", "enum_table status",
                                   "relationship posts author", "relationship users posts"]
        with pytest.raises(psycopg.Error, match="would break the live API"):
            guard(session)
        session.rollback()


def test_two_thousand_requirements_are_checked_quickly(session):
    columns = [f"c{number}" for number in range(20)]
    session.execute("; ".join(f"CREATE TABLE wide{n} ({', '.join(f'{c} int' for c in columns)})" for n in range(100)))
    rule = permission("user", columns=columns, filter={})
    needed = requirements(one_source(*({"table": f"wide{n}", "select_permissions": [rule]} for n in range(100))))
    assert len(needed) >= 2000
    statement = sql_guard(needed).encode()
    times = []
    for _ in range(5):
        start = time.monotonic()
        session.execute(statement)
        times.append(time.monotonic() - start)
    # Measured at 15 ms; the bound allows for a machine that does other things at the same time.
    assert min(times) < 0.1


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=15)


@settings(max_examples=25, deadline=None)
@given(table=NAMES, column=NAMES, role=NAMES)
def test_any_name_is_found_as_it_is_written(plain_server, blog, table, column, role):
    rule = permission(role, columns=[column], filter={})
    metadata = one_source({"table": {"schema": "odd", "name": table}, "select_permissions": [rule]})
    quoted = ['"' + name.replace('"', '""') + '"' for name in (table, column)]
    with plain_server.cluster.connect(blog, autocommit=False) as session:
        session.execute("CREATE SCHEMA odd")
        session.execute("CREATE TABLE odd.{} ({} int)".format(*quoted).encode())
        assert broken(session, metadata) == []
        session.execute("ALTER TABLE odd.{} RENAME {} TO \"another name\"".format(*quoted).encode())
        rows = session.execute(sql_unsatisfied(requirements(metadata)).encode()).fetchall()
        assert [row["name"] for row in rows] == [column]
        assert without(requirements(metadata), rows) != requirements(metadata)
        session.rollback()


def test_the_metadata_is_read_from_hasuras_own_table(session):
    session.execute("CREATE SCHEMA hdb_catalog; CREATE TABLE hdb_catalog.hdb_metadata"
                    " (id int PRIMARY KEY, metadata json NOT NULL, resource_version int NOT NULL DEFAULT 1 UNIQUE)")
    session.execute("INSERT INTO hdb_catalog.hdb_metadata VALUES (1, %s)", [json.dumps(BLOG)])
    assert requirements(session.execute(SQL_METADATA).fetchone()["metadata"]) == requirements(BLOG)
