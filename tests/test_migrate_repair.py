"""`migrate repair`: a version is settled by a person's word, where the program cannot know."""

from __future__ import annotations

import pytest
from bed.bookkeeping import applied, make_schema_migrations, record, schemas, tables, values, versions
from bed.local_processes import wait_until

HALF = "-- nself:no-transaction\nCREATE TABLE half ();\nSELECT 1/0;\nCREATE TABLE rest ();\n"

# The procedure commits what it did and then hangs, so that a run can be cut off inside it: the catalogue cannot tell.
WORK = """
CREATE TABLE tally (n int);
CREATE PROCEDURE work() LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO tally VALUES (2);
    COMMIT;
    PERFORM pg_sleep(60);
END $$;
"""
CALLS = "-- nself:no-transaction\nINSERT INTO tally VALUES (1);\nCALL work();\nINSERT INTO tally VALUES (3);\n"
WORKER = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event = 'PgSleep' AND application_name = 'nself-db migrate up'
"""


def repair(project, *arguments, **options):
    """The outcome of `migrate repair --json`."""
    return project.run("migrate", "repair", "--migration", *arguments, "--json", **options)


def tally(project):
    """What the statements of CALLS have left, in order."""
    return [n for (n,) in values(project, "SELECT n FROM tally ORDER BY n")]


@pytest.fixture
def half(plain_project):
    """A project whose version 2 stopped at statement 2 of 3."""
    plain_project.migration("1_a", "CREATE TABLE a ();")
    plain_project.migration("0002_half", HALF, "DROP TABLE half;")
    plain_project.run("migrate", "up")
    assert versions(plain_project) == [(1, False), (2, True)]
    return plain_project


@pytest.fixture
def cut_off(project):
    """A project whose version 2 was cut off inside its statement 2, which did take effect."""
    return with_cut_off(project)


@pytest.fixture
def plain_cut_off(plain_project):
    """The same on the plain server."""
    return with_cut_off(plain_project)


def with_cut_off(project):
    project.migration("1_work", WORK)
    project.migration("2_calls", CALLS)
    process = project.start("migrate", "up")
    wait_until(lambda: values(project, WORKER) == [(True,)], 60, lambda: "the procedure was never called")
    process.communicate(timeout=60)
    assert process.returncode == 2
    assert record(project, 2)["started"] == 2
    return project


# Applied, pending.


def test_a_pending_version_is_recorded_as_applied_and_nothing_run(project):
    project.migration("1_a", "CREATE TABLE a ();")
    project.migration("2_b", "CREATE TABLE b ();")
    outcome = repair(project, "0001", "--applied").ok()
    assert outcome.json()["data"] == {"migration": "1", "repaired": "applied"}
    assert versions(project) == [(1, False)]
    assert record(project, 1)["duration_ms"] is None
    project.run("migrate", "up").ok()
    assert tables(project) == ["b"]


def test_a_half_done_version_is_recorded_as_applied(half):
    repair(half, "2", "--applied").ok()
    assert versions(half) == [(1, False), (2, False)]
    assert half.run("migrate", "up").ok().out == "nothing to apply\n"
    half.run("migrate", "verify-checksums").ok()
    assert tables(half) == ["a", "half"]


def test_a_half_done_version_is_forgotten_and_begins_anew(half):
    assert repair(half, "2", "--pending").ok().json()["data"] == {"migration": "2", "repaired": "pending"}
    assert versions(half) == [(1, False)]
    assert record(half, 2) is None
    half.database.admin("DROP TABLE half")
    half.migration("0002_half", HALF.replace("1/0", "1"))
    half.run("migrate", "up").ok()
    assert tables(half) == ["a", "half", "rest"]


def test_an_applied_version_is_forgotten(project):
    project.migration("1_a", "CREATE TABLE IF NOT EXISTS a ();")
    project.run("migrate", "up").ok()
    repair(project, "1", "--pending").ok()
    assert versions(project) == []
    assert tables(project) == ["a"]
    project.run("migrate", "up").ok()
    assert applied(project) == [1]


@pytest.mark.parametrize(("version", "way"), [("1", "applied"), ("3", "pending")])
def test_what_is_so_already_is_left_alone(half, version, way):
    half.migration("3_c", "SELECT 1;")
    outcome = repair(half, version, f"--{way}").ok()
    assert outcome.json()["data"] == {"migration": version, "repaired": None}
    assert f"version {version} is {way} already" in outcome.err


def test_a_version_whose_file_is_gone_is_forgotten(half):
    (half.root / "migrations/1_a.sql").unlink()
    repair(half, "1", "--pending").ok()
    assert versions(half) == [(2, True)]


def test_a_file_that_up_would_refuse_can_be_recorded(plain_project):
    plain_project.migration("1_old", "\\set x 1\nCREATE TABLE a ();\nCOMMIT;\n")
    repair(plain_project, "1", "--applied").ok()
    assert versions(plain_project) == [(1, False)]
    plain_project.run("migrate", "verify-checksums").ok()


@pytest.mark.parametrize(
    "arguments",
    [
        (), ("--applied", "--pending"), ("--applied", "--statement-done", "1"),
        ("--statement-done", "1", "--statement-undone", "1"),
    ],
)  # fmt: skip
def test_exactly_one_way_must_be_said(half, arguments):
    outcome = repair(half, "2", *arguments)
    assert outcome.code == 1
    assert "exactly one of --applied, --pending, --statement-done K, --statement-undone K" in outcome.err
    assert versions(half) == [(1, False), (2, True)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("9", "--applied"), "no migration has version 9"),
        (("x", "--applied"), "'x' is not a version"),
        (("2", "--statement-done", "0"), "'0' is not a whole number from 1"),
    ],
)
def test_bad_arguments_are_refused(half, arguments, said):
    outcome = repair(half, *arguments)
    assert outcome.code == 1
    assert said in outcome.err


def test_dry_run_shows_the_statements_and_changes_nothing(half):
    outcome = half.run("migrate", "repair", "--migration", "2", "--pending", "--dry-run").ok()
    assert "DELETE FROM hdb_catalog.schema_migrations WHERE version = 2" in outcome.out
    assert versions(half) == [(1, False), (2, True)]


def test_dry_run_on_a_fresh_database_creates_nothing(plain_project):
    plain_project.migration("1_a", "CREATE TABLE a ();")
    plain_project.run("migrate", "repair", "--migration", "1", "--applied", "--dry-run").ok()
    assert schemas(plain_project) == []


def test_in_prod_it_wants_consent(half):
    half.write_env(half.database.settings, ".env.prod")
    assert repair(half, "2", "--pending", "--env", "prod").code == 4
    assert repair(half, "2", "--pending", "--env", "prod", "--force").code == 4
    assert versions(half) == [(1, False), (2, True)]
    repair(half, "2", "--pending", "--env", "prod", "--force", "--confirm", half.root.name).ok()
    assert versions(half) == [(1, False)]


def test_another_run_holds_the_lock(half):
    with half.database.connect() as holder:
        holder.execute(f"SELECT pg_advisory_lock({0x6E73656C66})")
        assert repair(half, "2", "--pending").code == 4
    assert versions(half) == [(1, False), (2, True)]


# A version that another tool left dirty.


@pytest.fixture
def dirty(project):
    """A project whose version 1 Hasura's CLI has left dirty."""
    make_schema_migrations(project, (1, True))
    project.migration("1_a", "CREATE TABLE a ();", "DROP TABLE a;")
    return project


def test_up_and_down_refuse_it_and_say_what_settles_it(dirty):
    for verb in ("up", "down"):
        outcome = dirty.run("migrate", verb)
        assert outcome.code == 1
        assert "version 1 was left half done by another tool (dirty in schema_migrations)" in outcome.err
        assert "migrate repair --migration 1 --applied (or --pending)" in outcome.err
    assert tables(dirty) == []


def test_it_is_recorded_as_applied(dirty):
    repair(dirty, "1", "--applied").ok()
    assert versions(dirty) == [(1, False)]
    assert record(dirty, 1)["name"] == "a"


def test_it_is_recorded_as_pending_and_applied_by_the_next_run(dirty):
    repair(dirty, "1", "--pending").ok()
    dirty.run("migrate", "up").ok()
    assert tables(dirty) == ["a"]
    assert versions(dirty) == [(1, False)]


def test_without_a_file_it_can_be_recorded_either_way(plain_project):
    make_schema_migrations(plain_project, (1, True), (2, True))
    repair(plain_project, "1", "--applied").ok()
    repair(plain_project, "2", "--pending").ok()
    assert versions(plain_project) == [(1, False)]


@pytest.mark.parametrize("up", ["CREATE TABLE a ();", "-- nself:no-transaction\nCREATE TABLE a ();\nSELECT 1;"])
def test_one_that_was_ours_before_does_not_run_again(plain_project, up):
    plain_project.migration("1_a", up)
    plain_project.run("migrate", "up").ok()
    plain_project.database.admin("UPDATE hdb_catalog.schema_migrations SET dirty = true")
    outcome = plain_project.run("migrate", "up")
    assert outcome.code == 1
    assert "left half done by another tool" in outcome.err


# A statement that nobody can tell about.


def test_up_stops_and_names_the_statement_and_what_settles_it(cut_off):
    outcome = cut_off.run("migrate", "up")
    assert outcome.code == 1
    assert "migrations/2_calls.sql:3:1: the last run ended inside statement 2" in outcome.err
    assert "  CALL work()" in outcome.err
    assert "migrate repair --migration 2 --statement-done 2 (or --statement-undone 2)" in outcome.err
    assert tally(cut_off) == [1, 2]


def test_a_statement_said_to_be_done_does_not_run_again(cut_off):
    outcome = repair(cut_off, "2", "--statement-done", "2").ok()
    assert outcome.json()["data"] == {"migration": "2", "repaired": "statement_done"}
    cut_off.run("migrate", "up").ok()
    assert tally(cut_off) == [1, 2, 3]
    assert applied(cut_off) == [1, 2]


def test_a_statement_said_to_be_undone_runs_again(cut_off):
    cut_off.database.admin(
        "CREATE OR REPLACE PROCEDURE work() LANGUAGE sql AS $$ DELETE FROM tally WHERE n = 2;"
        " INSERT INTO tally VALUES (4); $$"
    )
    outcome = repair(cut_off, "2", "--statement-undone", "2").ok()
    assert outcome.json()["data"] == {"migration": "2", "repaired": "statement_undone"}
    cut_off.run("migrate", "up").ok()
    assert tally(cut_off) == [1, 3, 4]


@pytest.mark.parametrize("way", ["done", "undone"])
def test_only_the_statement_in_question_can_be_decided(plain_cut_off, way):
    outcome = repair(plain_cut_off, "2", f"--statement-{way}", "3")
    assert outcome.code == 1
    assert "the statement that needs a decision is 2, not 3" in outcome.err
    assert record(plain_cut_off, 2)["started"] == 2


@pytest.mark.parametrize(
    "text",
    [
        CALLS.replace("(1)", "(7)"),
        "-- nself:no-transaction\nINSERT INTO tally VALUES (1);\n",
        "INSERT INTO tally VALUES (1);\nSELECT 1;\nSELECT 2;\n",
    ],
    ids=["done part changed", "shorter", "in a transaction"],
)
def test_nothing_is_decided_about_a_file_that_has_changed(plain_cut_off, text):
    plain_cut_off.migration("2_calls", text)
    for command in (("repair", "--migration", "2", "--statement-done", "2"), ("up",)):
        outcome = plain_cut_off.run("migrate", *command)
        assert outcome.code == 1
        assert "statements" in outcome.err
    assert tally(plain_cut_off) == [1, 2]


def test_where_no_statement_is_in_question_there_is_nothing_to_decide(half):
    for version in ("1", "2"):
        outcome = repair(half, version, "--statement-done", "2")
        assert outcome.code == 1
        assert f"version {version} has no statement that needs a decision" in outcome.err


def test_the_whole_of_it_can_be_settled_instead(plain_cut_off):
    repair(plain_cut_off, "2", "--applied").ok()
    assert versions(plain_cut_off) == [(1, False), (2, False)]
    assert record(plain_cut_off, 2)["started"] is None


# What the server keeps is told.


def test_a_version_whose_row_is_kept_is_not_told_to_be_pending(plain_project):
    plain_project.migration("1_a", "CREATE TABLE a ();")
    plain_project.run("migrate", "up").ok()
    plain_project.database.admin(
        "CREATE FUNCTION kept() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$; "
        "CREATE TRIGGER kept BEFORE DELETE ON hdb_catalog.schema_migrations FOR EACH ROW EXECUTE FUNCTION kept()"
    )
    outcome = repair(plain_project, "1", "--pending", "--force")
    assert outcome.code == 1
    assert "version 1 is still recorded" in outcome.json()["error"]["message"]
    assert versions(plain_project) == [(1, False)]
    assert record(plain_project, 1) is not None, "what was removed beside it came back with the transaction"


def test_a_password_of_digits_changes_no_version(plain_project):
    plain_project.migration("20240501120000_a", "CREATE TABLE a ();")
    env = {"HASURA_GRAPHQL_ADMIN_SECRET": "2024"}
    rows = plain_project.run("migrate", "status", "--json", env=env).ok().json()["data"]["migrations"]
    assert [row["version"] for row in rows] == ["20240501120000"]
