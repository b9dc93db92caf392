"""`reset`: drop, then every migration anew; a file that cannot run, or an object that would be left, stops it."""

from __future__ import annotations

import pytest
from bed.bookkeeping import applied, make_metadata, record, tables, values, versions

from nself_core.failures import CheckFailed
from nself_core.reset import Made, check_left
from nself_core.sql.lexer import split
from nself_core.sql.statements import created_name

LONG = "np_" + "x" * 60
FIRST = f"""
CREATE TABLE np_a (id serial PRIMARY KEY);
CREATE TABLE np_b (a int REFERENCES np_a);
CREATE TABLE "{LONG}" (id int); CREATE TABLE "np_Quo""ted ü's $$ %" (id int);
CREATE FUNCTION np_f(np_a) RETURNS int LANGUAGE sql AS 'SELECT 1';
"""
SECOND = "CREATE VIEW np_v AS SELECT * FROM np_a;\nINSERT INTO np_a DEFAULT VALUES;\n"


def ready(project):
    project.migration("1_a", FIRST)
    project.migration("2_b", SECOND)
    project.run("migrate", "up").ok()
    return project


@pytest.fixture
def plain_ready(plain_project):
    return ready(plain_project)


@pytest.mark.versions
def test_all_is_as_after_the_first_run(project):
    ready(project)
    project.database.admin("INSERT INTO np_a DEFAULT VALUES; CREATE TABLE np_later (id int)")
    project.migration("3_c", "CREATE INDEX CONCURRENTLY np_i ON np_b (a);")
    outcome = project.run("reset", "--force", "--json").ok()
    data = outcome.json()["data"]
    assert [item["version"] for item in data["applied"]] == ["1", "2", "3"]
    assert {"np_a", "np_later", LONG, "np_Quo\"ted ü's $$ %"} <= {item["name"] for item in data["dropped"]}
    assert data["forgotten"] == 2
    assert versions(project) == [(1, False), (2, False), (3, False)]
    assert values(project, "SELECT id FROM np_a") == [(1,)]
    assert "np_later" not in tables(project)
    project.run("reset", "--force", "--no-seed").ok()
    assert applied(project) == [1, 2, 3]


def test_in_prod_it_is_always_refused(plain_ready):
    plain_ready.write_env(plain_ready.database.settings, ".env.prod")
    for more in ([], ["--dry-run"], ["--confirm", plain_ready.root.name]):
        outcome = plain_ready.run("reset", "--env", "production", "--force", *more)
        assert (outcome.code, "never done in prod" in outcome.err) == (4, True)
    assert values(plain_ready, "SELECT count(*) FROM np_v") == [(1,)]


def test_it_asks_everywhere(plain_ready):
    outcome = plain_ready.run("reset")
    assert outcome.code == 4
    assert "4 tables: " in outcome.err and "np_a (1 row)" in outcome.err
    assert applied(plain_ready) == [1, 2]


def test_dry_run_shows_the_drop_and_then_the_migrations(plain_ready):
    steps = plain_ready.run("reset", "--dry-run", "--json").ok().json()["data"]["plan"]
    kinds = [step["kind"] for step in steps]
    assert kinds == sorted(kinds) and set(kinds) == {"drop", "migration"}
    assert [step["sql"] for step in steps[-2:]] == [FIRST, SECOND]
    assert applied(plain_ready) == [1, 2]


def test_on_an_empty_database_it_applies_all_and_asks_nothing(plain_project):
    plain_project.migration("1_a", FIRST)
    plain_project.run("reset").ok()
    assert applied(plain_project) == [1]


def test_with_nothing_at_all_it_says_so(plain_project):
    outcome = plain_project.run("reset", "--json").ok()
    assert "nothing to drop and nothing to apply" in outcome.err
    assert outcome.json()["data"]["applied"] == []


@pytest.mark.parametrize(("text", "said"), [
    ("CREATE TABLE np_c (id int);\nSELECT 'open", "migrations/3_c.sql:2:8"),
    ("CREATE TABLE np_c (id int);\n\\i other.sql\n", "migrations/3_c.sql:2:1"),
    (b"SELECT 'caf\xe9';", "migrations/3_c.sql:1:"),
])  # fmt: skip
def test_a_file_that_cannot_be_read_stops_it_with_nothing_changed(plain_ready, text, said):
    plain_ready.write("migrations/3_c.sql", text)
    outcome = plain_ready.run("reset", "--force")
    assert (outcome.code, said in outcome.err) == (1, True)
    assert values(plain_ready, "SELECT count(*) FROM np_v") == [(1,)]
    assert applied(plain_ready) == [1, 2]


def test_a_migration_that_fails_says_that_the_drop_is_done(plain_ready):
    plain_ready.migration("3_c", "CREATE TABLE np_c (id integr);")
    outcome = plain_ready.run("reset", "--force", "--json")
    error = outcome.json()["error"]
    assert (outcome.code, error["file"], error["line"]) == (1, "migrations/3_c.sql", 1)
    assert "2 applied before it" in error["message"] and "the drop before it is done" in error["message"]
    assert "nself-db migrate up" in error["hint"]
    data = outcome.json()["data"]
    assert ([item["version"] for item in data["applied"]], data["forgotten"]) == (["1", "2"], 2)
    assert applied(plain_ready) == [1, 2]
    plain_ready.migration("3_c", "CREATE TABLE np_c (id integer);")
    plain_ready.run("migrate", "up").ok()


# What no prefix covers.


def unmanaged(project):
    project.migration("1_a", "CREATE SCHEMA app; CREATE TABLE users (id int PRIMARY KEY); CREATE TABLE np_a ();"
                             "CREATE TYPE mood AS ENUM ('low'); CREATE TABLE app.things (id int);")  # fmt: skip
    project.migration("2_b", "CREATE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT 1';"
                             "CREATE TABLE first (id int); ALTER TABLE first RENAME TO second;"
                             "CREATE TABLE o (); DROP TABLE o; CREATE EXTENSION IF NOT EXISTS plpgsql;")  # fmt: skip
    project.run("migrate", "up").ok()
    project.database.admin("CREATE TABLE public.by_hand (id int REFERENCES users)")
    project.database.admin("CREATE SCHEMA other; CREATE TABLE other.t (id int)")
    project.database.admin("CREATE SCHEMA auth; CREATE TABLE auth.users (id int)")
    return project


def test_what_no_prefix_covers_is_listed_and_stops_it(plain_project):
    unmanaged(plain_project)
    outcome = plain_project.run("reset", "--force", "--json")
    assert outcome.code == 1
    assert outcome.json()["data"]["left"] == [
        "relation app.things", "relation public.second", "relation public.users", "routine public.f", "schema app",
        "type public.mood",
    ]  # fmt: skip
    assert "reset --all" in outcome.json()["error"]["hint"]
    assert "relation public.users" in outcome.err
    assert "np_a" in tables(plain_project)
    assert applied(plain_project) == [1, 2]


def test_all_empties_the_schemas_that_migrations_filled(project):
    unmanaged(project)
    outcome = project.run("reset", "--force", "--all", "--json").ok()
    assert {"by_hand", "users", "app", "things", "f", "mood"} <= {i["name"] for i in outcome.json()["data"]["dropped"]}
    assert tables(project) == ["np_a", "second", "users"]
    assert tables(project, "other") == ["t"]
    assert tables(project, "auth") == ["users"]
    assert applied(project) == [1, 2]


def test_a_schema_that_may_be_another_s_stays_with_all(plain_project):
    plain_project.database.admin("CREATE SCHEMA theirs; CREATE TABLE theirs.t (id int)")
    plain_project.migration("1_a", "CREATE SCHEMA IF NOT EXISTS theirs; CREATE TABLE np_a (id int);")
    plain_project.run("migrate", "up").ok()
    plain_project.run("reset", "--force", "--all").ok()
    assert tables(plain_project, "theirs") == ["t"]


def test_the_audit_log_that_a_migration_made_goes_with_all_only(plain_project):
    plain_project.migration("1_a", "CREATE TABLE np_audit_log (id int); CREATE TABLE np_a (id int);")
    plain_project.run("migrate", "up").ok()
    outcome = plain_project.run("reset", "--force", "--json")
    assert outcome.json()["data"]["left"] == ["relation public.np_audit_log"]
    plain_project.run("reset", "--force", "--all").ok()


def test_what_reset_never_drops_must_be_made_if_not_exists(plain_project):
    plain_project.migration("1_a", "CREATE SCHEMA storage; CREATE TABLE storage.files (id int);")
    plain_project.run("migrate", "up").ok()
    for more in ([], ["--all"]):
        outcome = plain_project.run("reset", "--force", "--json", *more)
        assert outcome.json()["data"]["left"] == ["relation storage.files", "schema storage"]
        assert "IF NOT EXISTS" in outcome.json()["error"]["hint"]
    again = "CREATE SCHEMA IF NOT EXISTS storage; CREATE TABLE IF NOT EXISTS storage.files (id int);"
    plain_project.migration("1_a", again)
    plain_project.run("reset", "--force").ok()


def test_another_s_object_that_hangs_on_them_stops_it_too(plain_ready):
    plain_ready.database.admin("CREATE VIEW report AS SELECT * FROM np_a")
    outcome = plain_ready.run("reset", "--force")
    assert outcome.code == 1
    assert "view report" in outcome.err and "drop --cascade" in outcome.err
    assert applied(plain_ready) == [1, 2]


def test_a_version_whose_file_is_gone_is_warned_of_and_forgotten(plain_ready):
    (plain_ready.root / "migrations" / "2_b.sql").unlink()
    outcome = plain_ready.run("reset", "--force", "--json").ok()
    assert "version 2 is applied, but its file is gone" in outcome.json()["warnings"][0]
    assert applied(plain_ready) == [1]


def test_a_half_done_version_begins_anew(plain_project):
    plain_project.migration("1_a", "-- nself:no-transaction\nCREATE TABLE np_a (id int);\nSELECT 1/0;\n")
    assert plain_project.run("migrate", "up").code == 1
    assert versions(plain_project) == [(1, True)]
    plain_project.migration("1_a", "CREATE TABLE np_a (id int);")
    plain_project.run("reset", "--force").ok()
    assert versions(plain_project) == [(1, False)]
    assert record(plain_project, 1)["mode"] == "transaction"


def test_what_hasura_tracks_does_not_stop_the_migrations(plain_ready):
    make_metadata(plain_ready, {"version": 3, "sources": [{"name": "default", "kind": "postgres", "tables": [
        {"table": {"schema": "public", "name": name}} for name in ("np_a", "np_v")]}]})  # fmt: skip
    outcome = plain_ready.run("reset", "--force", "--json").ok()
    assert outcome.json()["data"]["api_loses"] == ["table public.np_a", "table public.np_v"]
    assert outcome.json()["data"]["metadata"] == "not_reloaded"
    assert applied(plain_ready) == [1, 2]


def test_a_session_of_another_s_does_not_make_it_hang(plain_ready):
    with plain_ready.database.connect() as other:
        other.execute("SET application_name = 'the app'; BEGIN; INSERT INTO np_a DEFAULT VALUES")
        outcome = plain_ready.run("reset", "--force", timeout=60)
    assert outcome.code == 4
    assert "application the app" in outcome.err
    assert applied(plain_ready) == [1, 2]


def test_bad_input(plain_project):
    assert plain_project.run("reset", "now").code == 1
    assert plain_project.run("reset", "--cascade").code == 1


# Without a server.


@pytest.mark.parametrize(("text", "made"), [
    ("CREATE TABLE IF NOT EXISTS s.t (id int)", ("relation", "s", "t", True)),
    ("CREATE UNLOGGED TABLE T ()", ("relation", None, "t", False)),
    ("CREATE TEMP TABLE t ()", None),
    ("CREATE TABLE pg_temp.t ()", None),
    ('CREATE OR REPLACE RECURSIVE VIEW "V v" AS SELECT 1', ("relation", None, "V v", True)),
    ("CREATE MATERIALIZED VIEW IF NOT EXISTS m AS SELECT 1", ("relation", None, "m", True)),
    ("CREATE FOREIGN TABLE f () SERVER x", ("relation", None, "f", False)),
    ("CREATE FOREIGN DATA WRAPPER f", None),
    ("CREATE SEQUENCE s", ("relation", None, "s", False)),
    ("CREATE OR REPLACE FUNCTION a.f(int) RETURNS int LANGUAGE sql AS 'SELECT 1'", ("routine", "a", "f", True)),
    ("CREATE PROCEDURE p() LANGUAGE sql AS ''", ("routine", None, "p", False)),
    ("CREATE AGGREGATE a (int) (SFUNC = f, STYPE = int)", ("routine", None, "a", False)),
    ("CREATE TYPE t AS ENUM ('a')", ("type", None, "t", False)),
    ("CREATE DOMAIN d AS int", ("type", None, "d", False)),
    ("CREATE SCHEMA AUTHORIZATION joe", ("schema", None, "joe", False)),
    ("CREATE SCHEMA IF NOT EXISTS s AUTHORIZATION joe", ("schema", None, "s", True)),
    ("CREATE EXTENSION pgcrypto", ("extension", None, "pgcrypto", False)),
    ("ALTER TABLE IF EXISTS ONLY s.a RENAME TO b", ("relation", "s", "b", False)),
    ("ALTER TABLE a RENAME COLUMN b TO c", None),
    ("ALTER FUNCTION f(a int) SET SCHEMA s", ("routine", "s", "f", False)),
    ("ALTER SCHEMA a RENAME TO b", ("schema", None, "b", False)),
    ("CREATE INDEX i ON t (a)", None),
    ("INSERT INTO t VALUES ('CREATE TABLE x ()')", None),
])  # fmt: skip
def test_the_name_that_a_statement_makes(text, made):
    (statement,) = split(text)
    assert created_name(statement) == made


def test_what_is_left_is_told_with_what_helps():
    gone = {("table", "public", "a")}
    check_left([Made("relation", "public", "a", False)], gone, False)
    check_left([Made("schema", "app", "app", True), Made("extension", "", "x", True)], gone, False)
    check_left([Made("relation", "auth", "b", True)], gone, False)
    for made, everything, hint in (
        (Made("relation", "public", "b", True), False, "reset --all"),
        (Made("extension", "", "x", False), False, "IF NOT EXISTS"),
        (Made("relation", "auth", "b", False), False, "IF NOT EXISTS"),
    ):
        with pytest.raises(CheckFailed) as stopped:
            check_left([made], gone, everything)
        assert hint in stopped.value.hint


# Seeds.


@pytest.mark.versions
def test_the_seeds_run_when_the_migrations_are_applied(project):
    ready(project)
    project.migration("3_c", "CREATE TABLE np_later (id int PRIMARY KEY);")
    project.write("seeds/np_later.csv", "id\n7\n")
    project.write("seeds/a_first.sql", "INSERT INTO np_b VALUES (NULL);")
    data = project.run("reset", "--force", "--json").ok().json()["data"]
    assert [seed["file"] for seed in data["seeds"]] == ["seeds/a_first.sql", "seeds/np_later.csv"]
    assert values(project, "SELECT id FROM np_later") == [(7,)]
    project.run("reset", "--force", "--no-seed").ok()
    assert values(project, "SELECT id FROM np_later") == []


def test_a_seed_that_cannot_run_stops_it_before_anything_is_dropped(plain_ready):
    plain_ready.write("seeds/bad.sql", "INSERT INTO np_a DEFAULT VALUES;\nCOMMIT;\n")
    outcome = plain_ready.run("reset", "--force")
    assert (outcome.code, "seeds/bad.sql:2:1" in outcome.err) == (1, True)
    assert values(plain_ready, "SELECT count(*) FROM np_v") == [(1,)]


def test_a_seed_that_fails_says_what_is_done_and_how_to_go_on(plain_ready):
    plain_ready.write("seeds/bad.sql", "SELECT 1/0;\n")
    error = plain_ready.run("reset", "--force", "--json").json()
    assert error["error"]["code"] == "seed_failed"
    assert error["error"]["message"].endswith("the drop before it is done")
    assert error["error"]["hint"].endswith("go on with: nself-db seed run")
    assert [item["version"] for item in error["data"]["applied"]] == ["1", "2"]
    assert applied(plain_ready) == [1, 2]


def test_dry_run_shows_the_seeds_too(plain_ready):
    plain_ready.write("seeds/one.sql", "INSERT INTO np_a DEFAULT VALUES;\n")
    outcome = plain_ready.run("reset", "--dry-run", "--json").ok()
    assert [step["kind"] for step in outcome.json()["data"]["plan"]][-1] == "seed"
    assert values(plain_ready, "SELECT count(*) FROM np_v") == [(1,)]
