"""A file outside a transaction whose client died: the next run goes on rightly, or says what a person must decide."""

from __future__ import annotations

import time

import pytest
from bed.local_processes import wait_until

from .conftest import EVERY_WAY, PLAIN
from .watch import (
    GATE,
    PATIENT,
    WAIT,
    at_gate,
    closed_gate,
    end_container_psql,
    kill_program,
    kill_with_children,
    make_random,
    outcome_of,
    recorded,
    sessions,
    wait_until_orphans_end,
)
from .workload import rows

HEAD = f"{PATIENT}-- nself:no-transaction\n"
SQL_BUILDING = "SELECT pid FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting%'"
SQL_VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'i'::regclass"
SQL_STEPS = "SELECT step, count(*) FROM log WHERE number = 2 GROUP BY 1 ORDER BY 1"


def three_statements(second):
    """A file outside a transaction whose first and third statement leave a row in log."""
    return HEAD + f"INSERT INTO log VALUES (2, 1);\n{second};\nINSERT INTO log VALUES (2, 3);\n"


def started(project):
    """(statements done, statement begun) of version 2."""
    return rows(project, "SELECT statements_done, started FROM nself_db.migrations WHERE version = 2")[0]


@pytest.fixture
def make_indexed(new_project):
    """make_indexed(name) -> a Project whose second migration builds an index concurrently as its statement 2 of 3."""

    def make(name):
        project = new_project(name)
        project.migration("1_log", "CREATE TABLE log (number int, step int);")
        project.run("migrate", "up").ok()
        project.migration("2_index", three_statements("CREATE INDEX CONCURRENTLY i ON log (step)"))
        return project

    return make


def start_building(project, blocker):
    """Start a run that stands in CREATE INDEX CONCURRENTLY until `blocker` ends its transaction."""
    blocker.execute("BEGIN")
    blocker.execute("LOCK TABLE log IN ROW EXCLUSIVE MODE")
    process = project.start("migrate", "up")
    with project.database.connect() as watcher:
        wait_until(lambda: watcher.execute(SQL_BUILDING).fetchone(), WAIT, lambda: "no index is being built")
    return process


@pytest.mark.parametrize("name", EVERY_WAY)
def test_the_next_run_waits_while_the_server_still_builds_the_index(make_indexed, name):
    project = make_indexed(name)
    with project.database.connect() as blocker:
        process = start_building(project, blocker)
        # psql lives on and with it the server process; psycopg's dies with the program, which the server notices.
        kill_program(process)
        outcome_of(process)
        second = project.run("migrate", "up", "--lock-wait", "0")
        if name != "plain-psycopg":
            assert second.code == 4, repr(second)
            assert "another run holds the migration lock: pid" in second.err
        third = project.start("migrate", "up")
        blocker.execute("ROLLBACK")
        outcome_of(third).ok()
    assert rows(project, SQL_VALID) == [(True,)]
    assert rows(project, SQL_STEPS) == [(1, 1), (3, 1)]
    assert started(project) == (3, None)


@pytest.mark.parametrize("name", EVERY_WAY)
def test_an_index_that_a_dead_client_left_invalid_is_built_anew(make_indexed, name):
    project = make_indexed(name)
    with project.database.connect() as blocker:
        process = start_building(project, blocker)
        kill_with_children(process)
        end_container_psql(project.database.server)
        outcome_of(process)
        wait_until_orphans_end(project.database)
    assert started(project) == (1, 2)
    assert rows(project, SQL_VALID) == [(False,)]
    project.run("migrate", "up").ok()
    assert rows(project, SQL_VALID) == [(True,)]
    assert rows(project, SQL_STEPS) == [(1, 1), (3, 1)]


@pytest.mark.parametrize("name", EVERY_WAY)
def test_an_index_that_was_finished_but_not_counted_is_not_built_again(make_indexed, name):
    project = make_indexed(name)
    run_to_statement(project, 2)
    project.database.admin("CREATE INDEX i ON log (step)")
    before = rows(project, "SELECT 'i'::regclass::oid::int")
    project.run("migrate", "up").ok()
    assert rows(project, "SELECT 'i'::regclass::oid::int") == before
    assert rows(project, SQL_STEPS) == [(1, 1), (2, 1), (3, 1)]  # the second is pass_gate's


def run_to_statement(project, number):
    """Bring version 2 to where statement `number` is begun and nothing is known of its end."""
    with closed_gate(project.database) as gate:
        text = (project.root / "migrations" / "2_index.sql").read_text()
        project.migration("2_index", text.replace("CREATE INDEX CONCURRENTLY i", f"CALL pass_gate({number}); --"))
        gate.execute(SQL_PASS_GATE)
        process = project.start("migrate", "up")
        pid = at_gate(gate, process)
        gate.execute("SELECT pg_terminate_backend(%s)", [pid])
        assert outcome_of(process).code == 2
        wait_until_orphans_end(project.database)
    project.migration("2_index", text)
    assert started(project) == (number - 1, number)


# What a procedure did before it committed stays, however the statement ends; the catalogue shows nothing of it.
SQL_PASS_GATE = f"""CREATE PROCEDURE pass_gate(step int) LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO log VALUES (2, step);
    COMMIT;
    PERFORM pg_advisory_xact_lock({GATE});
END $$"""
CALLING = three_statements("CALL pass_gate(2)")


@pytest.fixture
def make_undecided(new_project):
    """make_undecided(name) -> a Project in which a run died inside statement 2 of 3, a CALL."""

    def make(name):
        project = new_project(name)
        project.migration("1_log", f"CREATE TABLE log (number int, step int);\n{SQL_PASS_GATE};\n")
        project.migration("2_call", CALLING)
        with closed_gate(project.database) as gate:
            process = project.start("migrate", "up")
            pid = at_gate(gate, process)
            gate.execute("SELECT pg_terminate_backend(%s)", [pid])
            assert outcome_of(process).code == 2
        wait_until_orphans_end(project.database)
        assert started(project) == (1, 2)
        return project

    return make


@pytest.mark.parametrize("name", EVERY_WAY)
def test_what_the_catalogue_cannot_tell_is_a_persons_to_decide(make_undecided, name):
    project = make_undecided(name)
    for _ in range(2):
        outcome = project.run("migrate", "up")
        assert outcome.code == 1
        assert "migrations/2_call.sql:4:1: the last run ended inside statement 2" in outcome.err
        assert "CALL pass_gate(2)" in outcome.err
        assert "migrate repair --migration 2 --statement-done 2 (or --statement-undone 2)" in outcome.err
        assert rows(project, SQL_STEPS) == [(1, 1), (2, 1)]
        assert started(project) == (1, 2)


@pytest.mark.parametrize("name", EVERY_WAY)
def test_repair_says_that_it_was_done(make_undecided, name):
    project = make_undecided(name)
    project.run("migrate", "repair", "--migration", "2", "--statement-done", "2").ok()
    project.run("migrate", "up").ok()
    assert rows(project, SQL_STEPS) == [(1, 1), (2, 1), (3, 1)]
    assert started(project) == (3, None)


@pytest.mark.parametrize("name", EVERY_WAY)
def test_repair_says_that_it_was_not(make_undecided, name):
    project = make_undecided(name)
    project.run("migrate", "repair", "--migration", "2", "--statement-undone", "2").ok()
    project.run("migrate", "up").ok()
    assert rows(project, SQL_STEPS) == [(1, 1), (2, 2), (3, 1)]
    assert started(project) == (3, None)


@pytest.mark.parametrize("option", ["--statement-done", "--statement-undone"])
def test_repair_refuses_another_statement_than_the_one_in_question(make_undecided, option):
    project = make_undecided("plain-psql")
    for number in ("1", "3"):
        assert project.run("migrate", "repair", "--migration", "2", option, number).code == 1
    assert started(project) == (1, 2)


def test_repair_finds_nothing_to_decide_while_a_run_goes_on(new_project):
    project = new_project("plain-psql")
    project.migration("1_log", f"CREATE TABLE log (number int, step int);\n{SQL_PASS_GATE};\n")
    project.migration("2_call", CALLING)
    with closed_gate(project.database) as gate:
        process = project.start("migrate", "up")
        at_gate(gate, process)
        outcome = project.run("migrate", "repair", "--migration", "2", "--statement-done", "2")
        assert outcome.code == 4, repr(outcome)
    outcome_of(process).ok()
    assert started(project) == (3, None)


def test_a_statement_that_failed_needs_no_decision(new_project):
    project = new_project("plain-psql")
    failing = "CREATE PROCEDURE fails() LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;"
    project.migration("1_log", f"CREATE TABLE log (number int, step int);\n{failing}\n")
    project.migration("2_call", three_statements("CALL fails()"))
    outcome = project.run("migrate", "up")
    assert outcome.code == 1
    assert "statement 2 of 3 failed, 1 of 3 are done" in outcome.err
    assert started(project) == (1, None)
    project.database.admin("CREATE OR REPLACE PROCEDURE fails() LANGUAGE sql AS 'SELECT 1'")
    project.run("migrate", "up").ok()
    assert rows(project, SQL_STEPS) == [(1, 1), (3, 1)]


@pytest.mark.parametrize("name", PLAIN)
def test_a_run_that_waits_is_told_of_the_failure_and_not_of_a_doubt(new_project, name):
    """Between a failed statement and the record that it failed no other run may take the lock and look."""
    project = new_project(name)
    project.migration("1_log", "CREATE TABLE log (number int, step int);\n"
                      "CREATE PROCEDURE fails() LANGUAGE plpgsql AS "
                      f"$$ BEGIN PERFORM pg_advisory_xact_lock({GATE}); RAISE EXCEPTION 'no'; END $$;")  # fmt: skip
    project.migration("2_call", HEAD + "INSERT INTO log VALUES (2, 1);\nCALL fails();\n")
    with closed_gate(project.database) as gate:
        first = project.start("migrate", "up")
        at_gate(gate, first)
        others = [project.start("migrate", "up") for _ in range(6)]
        wait_until(lambda: len(sessions(gate)) == 7, WAIT, lambda: f"{sessions(gate)}")
    outcomes = [outcome_of(process) for process in (first, *others)]
    assert [outcome.code for outcome in outcomes] == [1] * 7
    doubts = [outcome.err for outcome in outcomes if "cannot tell" in outcome.err]
    assert not doubts, doubts[0]
    assert started(project) == (1, None)


def test_a_half_done_file_that_is_made_transactional_does_not_run_its_done_statements_again(new_project):
    project = new_project("plain-psql")
    project.migration("1_log", "CREATE TABLE log (number int, step int);")
    project.migration("2_call", HEAD + "INSERT INTO log VALUES (2, 1);\nSELECT 1/0;\n")
    assert project.run("migrate", "up").code == 1
    project.migration("2_call", "INSERT INTO log VALUES (2, 1);\nINSERT INTO log VALUES (2, 2);\n")
    outcome = project.run("migrate", "up")
    assert rows(project, SQL_STEPS) == [(1, 1)], "statement 1 ran a second time"
    assert outcome.code == 1
    assert "2_call.sql" in outcome.err


def run_until_dead_in(project, gate, statement):
    """Run version 2, whose statement 2 is `statement`, and let its client die when that waits for the blocker."""
    project.migration("2_outside", three_statements(statement))
    process = project.start("migrate", "up")
    waiting = "SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'nself-db%' AND wait_event_type = 'Lock'"
    wait_until(lambda: gate.execute(waiting).fetchone(), WAIT, lambda: f"{sessions(gate)}")
    kill_with_children(process)
    end_container_psql(project.database.server)
    outcome_of(process)
    wait_until_orphans_end(project.database)
    assert started(project) == (1, 2)


@pytest.mark.parametrize("name", EVERY_WAY)
def test_an_index_whose_concurrent_drop_died_is_dropped(new_project, name):
    project = new_project(name)
    project.migration("1_log", "CREATE TABLE log (number int, step int);\nCREATE INDEX i ON log (step);")
    project.run("migrate", "up").ok()
    with project.database.connect() as blocker, project.database.connect() as watcher:
        blocker.execute("BEGIN")
        blocker.execute("SELECT * FROM log")
        run_until_dead_in(project, watcher, "DROP INDEX CONCURRENTLY i")
    assert rows(project, "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('i')") == [(False,)]
    project.run("migrate", "up").ok()
    assert rows(project, "SELECT to_regclass('i') IS NULL") == [(True,)]
    assert rows(project, SQL_STEPS) == [(1, 1), (3, 1)]


@pytest.mark.parametrize("name", EVERY_WAY)
def test_a_partition_whose_concurrent_detaching_died_is_detached(new_project, name):
    project = new_project(name)
    project.migration("1_log", "CREATE TABLE log (number int, step int);\n"
                      "CREATE TABLE whole (id int) PARTITION BY RANGE (id);\n"
                      "CREATE TABLE part PARTITION OF whole FOR VALUES FROM (1) TO (10);\n"
                      "INSERT INTO whole VALUES (5);\n")  # fmt: skip
    project.run("migrate", "up").ok()
    with project.database.connect() as blocker, project.database.connect() as watcher:
        blocker.execute("BEGIN")
        blocker.execute("SELECT * FROM whole")
        run_until_dead_in(project, watcher, "ALTER TABLE whole DETACH PARTITION part CONCURRENTLY")
        pending = "SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = 'part'::regclass"
        assert rows(project, pending) == [(True,)]
    project.run("migrate", "up").ok()
    assert rows(project, "SELECT count(*) FROM pg_inherits") == [(0,)]
    assert rows(project, "SELECT id FROM part") == [(5,)]
    assert rows(project, SQL_STEPS) == [(1, 1), (3, 1)]


@pytest.mark.parametrize("statement, done, look", [
    ("CREATE DATABASE fault_database", "CREATE DATABASE fault_database", True),
    ("DROP DATABASE fault_database", None, False),
    ("CREATE DATABASE fault_database", None, True),
])  # fmt: skip
def test_a_database_that_may_have_been_made_or_dropped(new_project, statement, done, look):
    project = new_project("plain-psql")
    project.database.admin("DROP DATABASE IF EXISTS fault_database")
    project.migration("1_log", "CREATE TABLE log (number int, step int);")
    project.migration("2_index", HEAD + "INSERT INTO log VALUES (2, 1);\nCREATE INDEX CONCURRENTLY i ON log (step);\n")
    project.run("migrate", "up", "--to", "1").ok()
    run_to_statement(project, 2)
    project.migration("2_index", HEAD + f"INSERT INTO log VALUES (2, 1);\n{statement};\n")
    if done:
        project.database.admin(done)
    try:
        project.run("migrate", "up").ok()
        there = rows(project, "SELECT count(*) FROM pg_database WHERE datname = 'fault_database'")
        assert there == [(int(look),)]
    finally:
        project.database.admin("DROP DATABASE IF EXISTS fault_database")


NUMBERS = range(2, 14)
DOWN = {
    "transaction": "INSERT INTO undone VALUES ({0});\nDROP TABLE t{0};\n",
    "no_transaction": "-- nself:no-transaction\nINSERT INTO undone VALUES ({0});\nDROP INDEX CONCURRENTLY i{0};\n"
                      "DROP TABLE t{0};\n",  # fmt: skip
}


@pytest.mark.parametrize("name", EVERY_WAY)
def test_a_rollback_killed_at_random_points_is_whole_or_not_at_all(new_project, name):
    chance = make_random(f"down-{name}")
    for _ in range(3):
        project = new_project(name)
        project.migration("1_undone", "CREATE TABLE undone (number int);", "SELECT 1;")
        for number in NUMBERS:
            up = f"CREATE TABLE t{number} (id int);\nCREATE INDEX i{number} ON t{number} (id);"
            mode = "no_transaction" if number % 3 == 0 else "transaction"
            project.migration(f"{number}_t", up, DOWN[mode].format(number))
        project.run("migrate", "up").ok()
        strike_rollback(project, chance)
        check_undone(project, NUMBERS)
        project.run("migrate", "down", "--to", "1").ok()
        assert rows(project, "SELECT number, count(*) FROM undone GROUP BY 1 ORDER BY 1") == [(n, 1) for n in NUMBERS]
        assert rows(project, "SELECT version, dirty FROM hdb_catalog.schema_migrations") == [(1, False)]
        assert rows(project, "SELECT version FROM nself_db.migrations") == [(1,)]


def strike_rollback(project, chance):
    """Start a rollback and kill it at a random point."""
    process = project.start("migrate", "down", "--to", "1")
    left = chance.choice(NUMBERS)
    with project.database.connect() as connection:
        wait_until(lambda: recorded(connection) <= left or process.poll() is not None, WAIT)
    time.sleep(chance.uniform(0, 0.02))  # the random point itself, no synchronisation
    chance.choice([kill_program, kill_with_children])(process)
    outcome_of(process)
    wait_until_orphans_end(project.database)


def check_undone(project, numbers):
    """Each version is recorded and nothing of it undone, or forgotten and wholly undone, or half undone and counted."""
    records = dict(rows(project, "SELECT version, (dirty, statements_done)::text FROM hdb_catalog.schema_migrations "
                        "JOIN nself_db.migrations USING (version)"))  # fmt: skip
    undone = dict(rows(project, "SELECT number, count(*) FROM undone GROUP BY 1"))
    tables = {name for (name,) in rows(project, "SELECT tablename FROM pg_tables WHERE tablename ~ '^t[0-9]+$'")}
    for number in numbers:
        dirty, _, done = records.get(number, "(f,-1)").strip("()").partition(",")
        steps = {"-1": 1, "0": 0}.get(done, 1) if number not in records or dirty == "t" else 0
        assert undone.get(number, 0) == steps, f"{number}: {records.get(number)}, undone {undone.get(number)} times"
        assert (f"t{number}" in tables) == (number in records and done != "3"), f"{number}: {records.get(number)}"
