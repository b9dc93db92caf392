"""`list`: which objects, how large, how many rows, and what it does where it may not look."""

from __future__ import annotations

import time

import pytest

from nself_core import inventory

BOTH_DRIVERS = pytest.mark.parametrize("plain_server", ["psql", "psycopg"], indirect=True)

OBJECTS = """
CREATE TABLE np_users (id int GENERATED ALWAYS AS IDENTITY, name text);
INSERT INTO np_users (name) SELECT 'x' FROM generate_series(1, 250);
CREATE TABLE np_posts (id serial, day date) PARTITION BY RANGE (day);
CREATE TABLE np_posts_2024 PARTITION OF np_posts FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')
    PARTITION BY LIST (id);
CREATE TABLE np_posts_2024_rest PARTITION OF np_posts_2024 DEFAULT;
CREATE TABLE np_posts_rest PARTITION OF np_posts DEFAULT;
INSERT INTO np_posts (day) SELECT '2024-03-01' FROM generate_series(1, 40);
INSERT INTO np_posts (day) SELECT '2020-03-01' FROM generate_series(1, 2);
CREATE VIEW np_view AS SELECT 1 AS one;
CREATE MATERIALIZED VIEW np_totals AS SELECT count(*) FROM np_users;
CREATE SEQUENCE np_counter;
CREATE FOREIGN DATA WRAPPER nothing;
CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing;
CREATE FOREIGN TABLE np_far (a int) SERVER nowhere;
CREATE TABLE np (a int);
CREATE TABLE npx_other (a int);
CREATE TABLE unmanaged (a int);
CREATE TABLE "NP_capital" (a int);
"""


def objects(project, *options):
    """The objects of `list --json` by (schema, name)."""
    found = project.run("list", "--json", *options).ok().json()["data"]["objects"]
    return {(item["schema"], item["name"]): item for item in found}


def names(project, *options):
    """The names of `list --json`, in order."""
    return [name for _, name in objects(project, *options)]


@pytest.mark.servers("container-13", "url-psycopg-17", "embedded-18")
def test_every_kind_of_object_with_its_rows(project):
    project.database.admin(OBJECTS)
    found = objects(project, "--counts")
    assert {name: (item["type"], item["rows"]) for (_, name), item in found.items()} == {
        "np_counter": ("sequence", None),
        "np_far": ("foreign table", None),
        "np_posts": ("partitioned table", 42),
        "np_posts_id_seq": ("sequence", None),
        "np_totals": ("materialized view", 1),
        "np_users": ("table", 250),
        "np_users_id_seq": ("sequence", None),
        "np_view": ("view", None),
    }


def test_a_partitioned_table_is_as_large_as_its_partitions(plain_project):
    plain_project.database.admin(OBJECTS)
    sizes = (
        "SELECT sum(pg_total_relation_size(oid))::int AS n FROM pg_class WHERE relkind = 'r' AND relname ^@ 'np_posts'"
    )
    (expected,) = plain_project.database.admin(sizes)
    assert objects(plain_project)["public", "np_posts"]["size_bytes"] == expected["n"] > 0


def test_a_size_counts_indexes_and_toast(plain_project):
    plain_project.database.admin("CREATE TABLE np_t (a int PRIMARY KEY, b text)")
    plain_project.database.admin("INSERT INTO np_t SELECT i, repeat(i::text, 1000) FROM generate_series(1, 1000) i")
    (expected,) = plain_project.database.admin("SELECT pg_total_relation_size('np_t')::int AS n")
    assert objects(plain_project)["public", "np_t"]["size_bytes"] == expected["n"]


@BOTH_DRIVERS
def test_the_table_for_people(plain_project):
    plain_project.database.admin(
        "CREATE TABLE np_b (a int); INSERT INTO np_b VALUES (1), (2); CREATE VIEW np_a AS SELECT 1"
    )
    assert plain_project.run("list", "--counts").ok().out == (
        "schema  name  type   rows    size\n"
        "public  np_a  view\n"
        "public  np_b  table     2  8.0 KB\n"
        "\n"
        "2 objects, 2 rows, 8.0 KB\n"
    )
    assert "rows" not in plain_project.run("list").ok().out


# Which objects.


def test_the_projects_own_prefix_counts_as_managed(plain_project):
    plain_project.database.admin("CREATE TABLE my_app_t (a int); CREATE TABLE np_t (a int); CREATE TABLE x_t (a int)")
    plain_project.write_env({**plain_project.database.settings, "PROJECT_NAME": "my-app"})
    assert names(plain_project) == ["my_app_t", "np_t"]


def test_prefixes_are_a_setting(plain_project):
    plain_project.database.admin('CREATE TABLE "a%_t" (a int); CREATE TABLE ab_t (a int); CREATE TABLE np_t (a int)')
    plain_project.write_env({**plain_project.database.settings, "NSELF_TABLE_PREFIXES": "a%_, ab_"})
    assert names(plain_project) == ["a%_t", "ab_t"]
    plain_project.write_env({**plain_project.database.settings, "NSELF_TABLE_PREFIXES": "a%_"})
    assert names(plain_project) == ["a%_t"]


def test_all_shows_every_schema_and_prefix(plain_project):
    plain_project.database.admin(
        "CREATE SCHEMA other; CREATE TABLE other.t (a int); CREATE TABLE np_t (a int); CREATE TABLE u (a int)"
    )
    assert [*objects(plain_project, "--all")] == [("other", "t"), ("public", "np_t"), ("public", "u")]
    assert names(plain_project) == ["np_t"]


def test_a_managed_name_counts_in_every_schema(plain_project):
    plain_project.database.admin("CREATE SCHEMA auth; CREATE TABLE auth.np_t (a int); CREATE TABLE np_t (a int)")
    assert [*objects(plain_project)] == [("auth", "np_t"), ("public", "np_t")]


def test_a_filter_is_a_prefix_and_nothing_else(plain_project):
    plain_project.database.admin(
        "CREATE TABLE np_auth_users (a int); CREATE TABLE np_auth (a int); CREATE TABLE np_posts (a int)"
    )
    assert names(plain_project, "--filter", "np_auth") == ["np_auth", "np_auth_users"]
    assert names(plain_project, "--filter", "np_auth_") == ["np_auth_users"]
    for text in ("np%", "np_'; DROP TABLE np_posts; --", "\\", "nothing"):
        assert names(plain_project, "--filter", text) == []
    assert names(plain_project, "--all", "--filter", "np_p") == ["np_posts"]


def test_objects_of_an_extension_and_temporary_ones_are_left_out(plain_project):
    plain_project.database.admin("CREATE TABLE np_mine (a int); CREATE TABLE np_of_extension (a int)")
    plain_project.database.admin(
        "INSERT INTO pg_depend SELECT 'pg_class'::regclass, 'np_of_extension'::regclass, 0, 'pg_extension'::regclass, "
        "oid, 0, 'e' FROM pg_extension WHERE extname = 'plpgsql'"
    )
    with plain_project.database.connect() as other:
        other.execute("CREATE TEMP TABLE np_temporary (a int)")
        assert names(plain_project, "--all") == ["np_mine"]


@BOTH_DRIVERS
def test_nasty_names(plain_project):
    plain_project.database.admin(
        'CREATE SCHEMA "a ""b"; CREATE TABLE "a ""b"."np_o\'clock \\ ;\n--:x ü" AS SELECT 1 AS "a b"'
    )
    assert [(key, item["rows"]) for key, item in objects(plain_project, "--counts").items()] == [
        (('a "b', "np_o'clock \\ ;\n--:x ü"), 1)
    ]
    assert "np_o'clock \\ ;\\n--:x ü" in plain_project.run("list").ok().out


# Nothing there, and much.


@BOTH_DRIVERS
def test_an_empty_database(plain_project):
    outcome = plain_project.run("list", "--counts").ok()
    assert outcome.out == "no objects with a managed prefix (see NSELF_TABLE_PREFIXES, or --all)\n"
    assert plain_project.run("list", "--all", "--counts", "--json").ok().json()["data"] == {"objects": []}
    assert plain_project.database.admin("SELECT 1 FROM pg_namespace WHERE nspname IN ('hdb_catalog', 'nself_db')") == []


@BOTH_DRIVERS
def test_two_thousand_tables(plain_project):
    with plain_project.database.connect() as connection:
        for start in range(0, 2000, 500):
            connection.execute(
                f"DO $$ BEGIN FOR i IN {start}..{start + 499} LOOP "
                "EXECUTE 'CREATE TABLE np_' || i || ' AS SELECT ' || i; END LOOP; END $$"
            )
    started = time.monotonic()
    found = objects(plain_project, "--counts")
    assert time.monotonic() - started < 10
    assert len(found) == 2000
    assert {item["rows"] for item in found.values()} == {1}


def test_counting_takes_few_statements():
    class Counted:
        """A database that only counts what it is asked."""

        asked = 0

        def rows(self, sql):
            self.asked += 1
            return []

    for count, most in ((0, 0), (1, 1), (7, 5), (2000, 5)):
        database, told = Counted(), []
        tables = [{"schema": "public", "name": f"t{n}", "obstacle": ""} for n in range(count)]
        inventory.count_rows(database, tables, told.append)
        assert database.asked == len(told) <= most


# Where it may not look.


@pytest.fixture
def limited(plain_project):
    """`plain_project`, seen by a role that may read np_open alone, and in schema public only."""
    admin = plain_project.database.admin
    admin(
        "CREATE TABLE np_open AS SELECT 1 AS a; CREATE TABLE np_closed (a int); "
        "CREATE SCHEMA shut; CREATE TABLE shut.np_t (a int)"
    )
    admin("CREATE ROLE limited LOGIN PASSWORD 'limited'; GRANT SELECT ON np_open, shut.np_t TO limited")
    url = plain_project.database.server.cluster.url(plain_project.database.name, user="limited", password="limited")
    plain_project.write_env({**plain_project.database.settings, "NSELF_DB_URL": url})
    yield plain_project
    admin("DROP OWNED BY limited; DROP ROLE limited")


def test_tables_that_may_not_be_read_are_named_and_not_counted(limited):
    outcome = limited.run("list", "--counts", "--json").ok()
    rows = {(item["schema"], item["name"]): item["rows"] for item in outcome.json()["data"]["objects"]}
    assert rows == {("public", "np_closed"): None, ("public", "np_open"): 1, ("shut", "np_t"): None}
    assert outcome.json()["warnings"] == ["not counted, no right to read: public.np_closed, shut.np_t"]


def test_sizes_need_no_right_to_read(limited):
    outcome = limited.run("list", "--json").ok()
    assert len(outcome.json()["data"]["objects"]) == 3
    assert outcome.json()["warnings"] == []


def test_a_materialized_view_without_data_is_not_counted(plain_project):
    plain_project.database.admin(
        "CREATE MATERIALIZED VIEW np_m AS SELECT 1 AS a WITH NO DATA; CREATE TABLE np_t AS SELECT 1 AS a"
    )
    outcome = plain_project.run("list", "--counts", "--json").ok()
    assert [item["rows"] for item in outcome.json()["data"]["objects"]] == [None, 1]
    assert outcome.json()["warnings"] == ["not counted, not populated yet: public.np_m"]


@BOTH_DRIVERS
def test_a_locked_table_is_a_failure_that_names_it(plain_project):
    plain_project.database.admin("CREATE TABLE np_free (a int); CREATE TABLE np_taken (a int)")
    with plain_project.database.connect(application_name="the holder") as holder:
        holder.execute("BEGIN")
        holder.execute("LOCK TABLE np_taken")
        pid = holder.info.backend_pid
        started = time.monotonic()
        outcome = plain_project.run("list", "--counts")
        taken = time.monotonic() - started
    assert outcome.code == 4
    assert 4 < taken < 15
    assert "lock timeout" in outcome.err
    assert f"hint: wait for the other session, which holds public.np_taken by pid {pid} (the holder)\n" in outcome.err
    plain_project.run("list", "--counts").ok()


def test_a_table_that_is_only_written_to_is_counted(plain_project):
    plain_project.database.admin("CREATE TABLE np_busy AS SELECT 1 AS a")
    with plain_project.database.connect() as writer:
        writer.execute("BEGIN")
        writer.execute("INSERT INTO np_busy VALUES (2)")
        assert objects(plain_project, "--counts")["public", "np_busy"]["rows"] == 1
