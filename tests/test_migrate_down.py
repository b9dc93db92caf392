"""`migrate down`: what is rolled back, in which order, whole or not at all, and what it refuses beforehand."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest
from bed.bookkeeping import applied, make_metadata, make_schema_migrations, record, schemas, tables, values, versions

TABLES = ("a", "b", "c")


@pytest.fixture
def three(project):
    """A project with three applied migrations, each with its down file; the third refers to the second."""
    return with_three(project)


@pytest.fixture
def plain_three(plain_project):
    """The same on the plain server."""
    return with_three(plain_project)


def with_three(project):
    project.migration("1_a", "CREATE TABLE a (id int PRIMARY KEY);", "DROP TABLE a;")
    project.migration("0002_b", "CREATE TABLE b (id int PRIMARY KEY REFERENCES a);", "DROP TABLE b;")
    project.migration("20240501120000_c", "CREATE TABLE c (id int REFERENCES b);", "DROP TABLE c;")
    project.run("migrate", "up").ok()
    return project


def rolled_back(outcome):
    """The versions that a run with --json says it rolled back, in its order."""
    return [item["version"] for item in outcome.json()["data"]["rolled_back"]]


# What is chosen.


@pytest.mark.versions
def test_without_a_count_the_latest_is_rolled_back(three):
    outcome = three.run("migrate", "down", "--json").ok()
    assert outcome.json()["data"]["rolled_back"] == [
        {
            "version": "20240501120000",
            "name": "c",
            "file": "migrations/20240501120000_c.down.sql",
            "mode": "transaction",
        }
    ]
    assert tables(three) == ["a", "b"]
    assert applied(three) == [1, 2]
    assert record(three, 20240501120000) is None


def test_count_rolls_back_so_many_the_latest_first(three):
    assert rolled_back(three.run("migrate", "down", "--count", "2", "--json").ok()) == ["20240501120000", "2"]
    assert tables(three) == ["a"]
    assert applied(three) == [1]


def test_a_count_above_what_is_applied_rolls_back_all(plain_three):
    assert rolled_back(plain_three.run("migrate", "down", "--count", "99", "--json").ok())[-1] == "1"
    assert tables(plain_three) == []
    assert versions(plain_three) == []


@pytest.mark.parametrize("spelling", ["1", "0001", "00000000000000000001"])
def test_the_version_after_to_stays_applied(plain_three, spelling):
    assert rolled_back(plain_three.run("migrate", "down", "--to", spelling, "--json").ok()) == ["20240501120000", "2"]
    assert applied(plain_three) == [1]


def test_to_the_newest_has_nothing_to_roll_back(plain_three):
    outcome = plain_three.run("migrate", "down", "--to", "20240501120000", "--json").ok()
    assert rolled_back(outcome) == []
    assert tables(plain_three) == [*TABLES]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--to", "1", "--count", "1"), "either --count N or --to VERSION"),
        (("--to", "7"), "no migration has version 7"),
        (("--to", "4"), "version 4 is not applied"),
        (("--to", "x"), "'x' is not a version"),
        (("--count", "0"), "'0' is not a whole number from 1"),
    ],
)
def test_bad_arguments_are_refused_before_anything_runs(plain_three, arguments, said):
    plain_three.migration("4_pending", "CREATE TABLE d ();", "DROP TABLE d;")
    outcome = plain_three.run("migrate", "down", *arguments)
    assert outcome.code == 1
    assert said in outcome.err
    assert tables(plain_three) == [*TABLES]


def test_on_a_fresh_database_nothing_is_rolled_back_and_nothing_created(project):
    project.migration("1_a", "CREATE TABLE a (id int);", "DROP TABLE a;")
    assert project.run("migrate", "down").ok().out == "nothing to roll back\n"
    assert schemas(project) == []


def test_a_pending_version_above_is_passed_over(plain_three):
    plain_three.migration("20250101000000_d", "CREATE TABLE d ();", "DROP TABLE d;")
    assert rolled_back(plain_three.run("migrate", "down", "--json").ok()) == ["20240501120000"]


def test_up_applies_again_what_down_took_back(three):
    three.run("migrate", "down", "--count", "3").ok()
    three.run("migrate", "up").ok()
    assert tables(three) == [*TABLES]
    assert applied(three) == [1, 2, 20240501120000]


def test_a_version_that_only_hasura_recorded_is_rolled_back(project):
    make_schema_migrations(project, (1, False))
    project.database.admin("CREATE TABLE a (id int)")
    project.migration("1_a", "CREATE TABLE a (id int);", "DROP TABLE a;")
    project.run("migrate", "down").ok()
    assert tables(project) == []
    assert versions(project) == []


def test_a_down_file_in_a_folder_of_its_version_is_used(plain_project):
    plain_project.write("migrations/default/1700000000000_a/up.sql", "CREATE TABLE a (id int);")
    plain_project.write("migrations/default/1700000000000_a/down.sql", "DROP TABLE a;")
    plain_project.run("migrate", "up").ok()
    outcome = plain_project.run("migrate", "down", "--json").ok()
    assert outcome.json()["data"]["rolled_back"][0]["file"] == "migrations/default/1700000000000_a/down.sql"
    assert tables(plain_project) == []


# Whole or not at all.


def test_a_failing_statement_leaves_the_version_applied_and_everything_there(three):
    three.migration("20240501120000_c", "CREATE TABLE c (id int REFERENCES b);", "DROP TABLE c;\nDROP TABLE c;\n")
    outcome = three.run("migrate", "down")
    assert outcome.code == 1
    assert 'migrations/20240501120000_c.down.sql:2:1: table "c" does not exist (SQLSTATE 42P01)' in outcome.err
    assert tables(three) == [*TABLES]
    assert applied(three) == [1, 2, 20240501120000]
    assert record(three, 20240501120000)["direction"] == "up"


def test_an_error_that_shows_at_commit_leaves_the_version_applied(project):
    project.migration(
        "1_a",
        "CREATE TABLE p (id int PRIMARY KEY);\nCREATE TABLE c (p int REFERENCES p DEFERRABLE INITIALLY DEFERRED);",
        "INSERT INTO c VALUES (42);",
    )
    project.run("migrate", "up").ok()
    outcome = project.run("migrate", "down")
    assert outcome.code == 1
    assert "violates foreign key constraint" in outcome.err
    assert applied(project) == [1]


def test_what_was_rolled_back_before_a_failure_is_said_and_stays_so(three):
    three.migration("0002_b", "CREATE TABLE b (id int PRIMARY KEY REFERENCES a);", "SELECT 1/0;")
    outcome = three.run("migrate", "down", "--count", "3", "--json")
    assert outcome.code == 1
    assert rolled_back(outcome) == ["20240501120000"]
    assert outcome.json()["data"]["failed"]["version"] == "2"
    assert applied(three) == [1, 2]


def test_a_down_file_that_ends_its_transaction_is_not_taken_for_done(project):
    project.migration("1_a", "CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$;", "CALL p();")
    project.run("migrate", "up").ok()
    assert project.run("migrate", "down").code == 1
    assert applied(project) == [1]


def test_begin_and_commit_around_a_down_file_are_our_own_transaction(plain_three):
    up = "CREATE TABLE c (id int REFERENCES b);"
    plain_three.migration("20240501120000_c", up, "BEGIN;\nDROP TABLE c;\nSELECT 1/0;\nCOMMIT;\n")
    assert plain_three.run("migrate", "down").code == 1
    assert tables(plain_three) == [*TABLES]


# What is refused before anything runs.


def test_a_missing_down_file_is_found_before_anything_runs(three):
    (three.root / "migrations/0002_b.down.sql").unlink()
    outcome = three.run("migrate", "down", "--count", "2")
    assert outcome.code == 1
    assert "migrations/0002_b.sql: there is no down file for this migration" in outcome.err
    assert tables(three) == [*TABLES]
    assert applied(three) == [1, 2, 20240501120000]


def test_a_down_file_to_be_written_is_refused_before_anything_runs(plain_three):
    created = plain_three.run("migrate", "create", "notes", "--json").ok().json()["data"]
    up, down = created["files"]
    plain_three.write(up, "CREATE TABLE d ();")
    plain_three.run("migrate", "up").ok()
    plain_three.migration("99990101000000_e", "CREATE TABLE e ();", "DROP TABLE e;")
    plain_three.run("migrate", "up").ok()
    outcome = plain_three.run("migrate", "down", "--count", "2")
    assert outcome.code == 1
    assert f"{down}:1:1: the file is still to be written" in outcome.err
    assert tables(plain_three) == [*TABLES, "d", "e"]


def test_a_version_whose_files_are_gone_is_refused(plain_three):
    for name in ("20240501120000_c.sql", "20240501120000_c.down.sql"):
        (plain_three.root / "migrations" / name).unlink()
    outcome = plain_three.run("migrate", "down")
    assert outcome.code == 1
    assert "version 20240501120000" in outcome.err
    assert "--migration 20240501120000 --pending" in outcome.err
    assert tables(plain_three) == [*TABLES]


@pytest.mark.parametrize(
    ("down", "said"),
    [
        ("BEGIN;\nDROP TABLE c;\nROLLBACK;\n", "ends in ROLLBACK"),
        ("DROP TABLE c;\n\\echo gone\n", "c.down.sql:2:1"),
        ("DROP TABLE c;\nCOMMIT;\nSELECT 1;", "c.down.sql:2:1"),
        ('DROP TABLE "c;', "c.down.sql:1:12"),
        ("-- migrate:up\nCREATE TABLE x ();\n-- migrate:down\nDROP TABLE c;\n", "c.down.sql:1:1"),
    ],
)
def test_a_down_file_that_cannot_run_is_refused_before_anything_runs(plain_three, down, said):
    (plain_three.root / "migrations/20240501120000_c.down.sql").write_text(down)
    outcome = plain_three.run("migrate", "down")
    assert outcome.code == 1
    assert said in outcome.err
    assert tables(plain_three) == [*TABLES]


def test_another_run_holds_the_lock(plain_three):
    with plain_three.database.connect() as holder:
        holder.execute(f"SELECT pg_advisory_lock({0x6E73656C66})")
        outcome = plain_three.run("migrate", "down", "--lock-wait", "0")
    assert outcome.code == 4
    assert tables(plain_three) == [*TABLES]


# Outside a transaction.

INDEXES = "CREATE INDEX CONCURRENTLY t_a ON t (a);\nCREATE INDEX CONCURRENTLY t_b ON t (b);\n"


def with_indexes(project, down):
    project.migration("1_t", "CREATE TABLE t (a int, b int);\nCREATE TABLE tally (n int);", "DROP TABLE t, tally;")
    project.migration("2_i", INDEXES, down)
    project.run("migrate", "up").ok()
    return project


def indexes(project):
    """The names of the indexes of table t, sorted."""
    return [name for (name,) in values(project, "SELECT indexname FROM pg_indexes WHERE tablename = 't' ORDER BY 1")]


@pytest.mark.versions
def test_each_file_runs_in_the_mode_it_needs(project):
    with_indexes(project, "DROP INDEX CONCURRENTLY t_b;\nDROP INDEX CONCURRENTLY t_a;\n")
    document = project.run("migrate", "down", "--count", "2", "--json").ok().json()
    assert [item["mode"] for item in document["data"]["rolled_back"]] == ["no_transaction", "transaction"]
    assert tables(project) == []
    assert versions(project) == []


HALF = (
    "INSERT INTO tally VALUES (1);\nDROP INDEX CONCURRENTLY t_b;\nDROP TABLE nowhere;\nDROP INDEX CONCURRENTLY t_a;\n"
)


def test_a_half_rolled_back_file_is_dirty_and_goes_on_where_it_stopped(project):
    with_indexes(project, HALF)
    outcome = project.run("migrate", "down")
    assert outcome.code == 1
    assert "migrations/2_i.down.sql:3:1" in outcome.err
    assert "statement 3 of 4 failed, 2 of 4 are done" in outcome.err
    assert versions(project) == [(1, False), (2, True)]
    assert record(project, 2)["direction"] == "down"
    assert indexes(project) == ["t_a"]

    project.migration("2_i", INDEXES, HALF.replace("nowhere", "IF EXISTS nowhere"))
    assert rolled_back(project.run("migrate", "down", "--json").ok()) == ["2"]
    assert values(project, "SELECT n FROM tally") == [(1,)]
    assert indexes(project) == []
    assert versions(project) == [(1, False)]


def test_up_refuses_a_half_rolled_back_file(plain_project):
    with_indexes(plain_project, HALF)
    plain_project.run("migrate", "down")
    outcome = plain_project.run("migrate", "up")
    assert outcome.code == 1
    assert "version 2 is half rolled back: 2 of 4 statements" in outcome.err
    assert indexes(plain_project) == ["t_a"]


def test_a_half_rolled_back_file_whose_done_part_changed_is_refused(plain_project):
    with_indexes(plain_project, HALF)
    plain_project.run("migrate", "down")
    plain_project.migration("2_i", INDEXES, HALF.replace("VALUES (1)", "VALUES (2)").replace("nowhere", "tally"))
    outcome = plain_project.run("migrate", "down")
    assert outcome.code == 1
    assert "the first 2 statements of this file are done, and they have changed since" in outcome.err
    assert tables(plain_project) == ["t", "tally"]


def test_a_half_rolled_back_file_does_not_begin_anew_in_a_transaction(plain_project):
    with_indexes(plain_project, HALF)
    plain_project.run("migrate", "down")
    plain_project.migration("2_i", INDEXES, "INSERT INTO tally VALUES (1);\nDROP INDEX IF EXISTS t_b;\n")
    outcome = plain_project.run("migrate", "down")
    assert outcome.code == 1
    assert "2 of 4 statements of this file are done outside a transaction" in outcome.err
    assert values(plain_project, "SELECT n FROM tally") == [(1,)]


def test_a_half_applied_file_is_refused(plain_project):
    plain_project.migration("1_t", "-- nself:no-transaction\nCREATE TABLE t ();\nSELECT 1/0;\n", "DROP TABLE t;")
    plain_project.run("migrate", "up")
    outcome = plain_project.run("migrate", "down")
    assert outcome.code == 1
    assert "version 1 is half applied: 1 of 2 statements" in outcome.err
    assert tables(plain_project) == ["t"]


def test_a_version_that_another_tool_left_dirty_is_refused(plain_three):
    plain_three.database.admin("UPDATE hdb_catalog.schema_migrations SET dirty = true WHERE version = 20240501120000")
    outcome = plain_three.run("migrate", "down")
    assert outcome.code == 1
    assert "left half done by another tool" in outcome.err
    assert tables(plain_three) == [*TABLES]


# Consent.


def in_prod(project):
    """The same server under the name prod, and the project's name there."""
    project.write_env(project.database.settings, ".env.prod")
    return project.database.settings.get("PROJECT_NAME", project.root.name)


def test_outside_prod_nobody_is_asked(three):
    three.write_env(three.database.settings, ".env.staging")
    three.run("migrate", "down", "--env", "staging").ok()
    assert tables(three) == ["a", "b"]


@pytest.mark.parametrize("arguments", [(), ("--force",), ("--force", "--confirm", "another"), ("--confirm", "NAME")])
def test_in_prod_without_a_terminal_it_wants_force_and_the_projects_name(plain_three, arguments):
    name = in_prod(plain_three)
    words = [name if word == "NAME" else word for word in arguments]
    outcome = plain_three.run("migrate", "down", "--env", "prod", *words, stdin=f"{name}\n")
    assert outcome.code == 4
    assert "nothing was changed" in outcome.err
    assert tables(plain_three) == [*TABLES]


def test_in_prod_with_force_and_the_projects_name_it_is_done(three):
    name = in_prod(three)
    outcome = three.run("migrate", "down", "--env", "prod", "--force", "--confirm", name).ok()
    assert "migrations/20240501120000_c.sql is rolled back" in outcome.err
    assert tables(three) == ["a", "b"]


@pytest.mark.parametrize(("typed", "code"), [("{name}", 0), ("yes", 4), ("", 4)])
def test_in_prod_on_a_terminal_the_projects_name_is_typed(plain_three, run, typed, code):
    name = in_prod(plain_three)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "nself_db", "migrate", "down", "--env", "prod"],
        cwd=plain_three.root, env=run.environment({}), stdin=theirs, stdout=subprocess.PIPE, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    os.write(ours, typed.format(name=name).encode() + b"\n")
    process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == code
    assert tables(plain_three) == ([*TABLES] if code else ["a", "b"])


def test_without_a_server_it_is_not_a_matter_of_consent(plain_three):
    plain_three.write_env({"NSELF_DB_URL": "postgresql://u:p@127.0.0.1:1/d"}, ".env.prod")
    assert plain_three.run("migrate", "down", "--env", "prod").code == 2


def test_dry_run_prints_the_sql_asks_nobody_and_changes_nothing(three):
    in_prod(three)
    outcome = three.run("migrate", "down", "--count", "2", "--env", "prod", "--dry-run").ok()
    assert outcome.out.index("DROP TABLE c;") < outcome.out.index("DROP TABLE b;")
    assert "migrations/0002_b.down.sql [transaction]" in outcome.out
    assert tables(three) == [*TABLES]
    assert applied(three) == [1, 2, 20240501120000]


# The live API.


def test_a_rollback_that_breaks_the_live_api_is_undone(three):
    make_metadata(three, {"version": 3, "sources": [
        {"name": "default", "kind": "postgres", "tables": [{"table": {"schema": "public", "name": "c"}}]},
    ]})  # fmt: skip
    outcome = three.run("migrate", "down", "--skip-metadata", "--json")
    assert outcome.code == 1
    assert outcome.json()["data"]["broken"][0]["table"] == "c"
    assert tables(three) == [*TABLES]
    three.run("migrate", "down", "--skip-metadata", "--allow-inconsistent").ok()
    assert tables(three) == ["a", "b"]
    assert applied(three) == [1, 2]


# Names.

NASTY = """9_Ünï 'q' "d" $$ $1 %s %41 :name \\ ;--"""
LONG = "x" * 62 + "Y"


def test_nasty_names_of_files_tables_and_database(nasty_database, make_project):
    project = make_project(nasty_database)
    quoted = f'"{LONG}", "o\'Hara ""x"" $$ %I ü"'
    project.migration(
        NASTY, f'CREATE TABLE "{LONG}" (); CREATE TABLE "o\'Hara ""x"" $$ %I ü" ();', f"DROP TABLE {quoted};"
    )
    applied_data = project.run("migrate", "up", "--json").ok().json()["data"]["applied"]
    assert applied_data[0]["name"] == NASTY[2:]
    assert record(project, 9)["file"] == f"migrations/{NASTY}.sql"
    assert tables(project) == sorted([LONG, """o'Hara "x" $$ %I ü"""])
    assert project.run("migrate", "status").ok().out.endswith("1 applied\n")
    project.run("migrate", "verify-checksums").ok()
    project.run("migrate", "down").ok()
    assert tables(project) == []
