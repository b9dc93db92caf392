"""Blows in the midst of drop and reset: the database is as before, or dropped, or dropped and partly migrated anew."""

from __future__ import annotations

import signal
import time

import pytest
from bed.local_processes import wait_until

from .watch import (
    GATE,
    WAIT,
    at_gate,
    closed_gate,
    kill_program,
    kill_with_children,
    make_random,
    outcome_of,
    wait_for_session,
    wait_until_orphans_end,
)
from .workload import check_complete, check_whole_or_nothing, make_pieces, read_state, write_pieces

PIECES = make_pieces(14)
RESET = ("reset", "--all", "--force")

# Whoever drops a table stands at the gate when it has been dropped, and before the transaction ends.
GUARDED = f"""
CREATE FUNCTION kept_gate() RETURNS event_trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_advisory_xact_lock({GATE}); END $$;
CREATE EVENT TRIGGER kept_gate ON sql_drop WHEN TAG IN ('DROP TABLE') EXECUTE FUNCTION kept_gate();
"""
MADE = """
CREATE TABLE np_a (id int PRIMARY KEY); CREATE TABLE np_b (a int REFERENCES np_a); INSERT INTO np_a VALUES (1);
CREATE VIEW np_v AS SELECT * FROM np_a; CREATE TYPE np_mood AS ENUM ('low');
"""
SQL_STATE = """
SELECT (SELECT count(*) FROM pg_class WHERE relname IN ('np_a', 'np_b', 'np_v')) AS relations,
       (SELECT count(*) FROM pg_type WHERE typname = 'np_mood') AS types,
       (SELECT count(*) FROM hdb_catalog.schema_migrations) AS versions,
       (SELECT count(*) FROM nself_db.migrations) AS records
"""
WHOLE, EMPTY = (3, 1, 1, 1), (0, 0, 0, 0)


def state(project):
    """How much of MADE is there, and of its records."""
    return tuple(project.database.admin(SQL_STATE)[0].values())


def made(project):
    """`project` with MADE applied."""
    project.migration("1_made", MADE)
    project.run("migrate", "up").ok()
    assert state(project) == WHOLE
    return project


def duration_of(project):
    """Seconds that a reset takes from its first session on."""
    process = project.start(*RESET)
    with project.database.connect() as connection:
        wait_for_session(connection, process)
    began = time.monotonic()
    outcome_of(process).ok()
    return time.monotonic() - began


@pytest.mark.parametrize("name, rounds, kill", [
    ("plain-psql", 6, kill_program),
    ("plain-psql", 6, kill_with_children),
    ("plain-psycopg", 5, kill_program),
    ("container-15", 4, kill_with_children),
])  # fmt: skip
def test_a_killed_reset_leaves_whole_migrations_and_the_next_completes(new_project, name, rounds, kill):
    chance = make_random(f"reset-{name}-{kill.__name__}")
    project = new_project(name)
    write_pieces(project, PIECES)
    project.run("migrate", "up").ok()
    seconds = duration_of(project)
    struck, seen = 0, []
    for number in range(rounds):
        process = project.start(*RESET)
        with project.database.connect() as connection:
            wait_for_session(connection, process)
        time.sleep(chance.uniform(0, 0.9 * seconds))  # the random point itself, no synchronisation
        kill(process)
        struck += outcome_of(process).code == -9
        wait_until_orphans_end(project.database)
        found = read_state(project.database)
        seen.append(len(found.versions))
        check_whole_or_nothing(PIECES, found)
        project.run(*(RESET if number % 2 else ("migrate", "up"))).ok()
        check_complete(PIECES, read_state(project.database))
    print(f"recorded after each blow: {seen}, a reset takes {seconds:.2f} s")
    assert struck >= rounds / 3, "the kills came too late to prove anything"


@pytest.mark.parametrize("name, blow", [
    ("plain-psql", "kill -9"), ("plain-psql", "with its psql"), ("plain-psql", "connection"), ("plain-psql", "Ctrl-C"),
    ("plain-psycopg", "kill -9"), ("plain-psycopg", "connection"), ("plain-psycopg", "Ctrl-C"),
    ("container-15", "with its psql"), ("container-15", "Ctrl-C"),
])  # fmt: skip
def test_a_blow_between_the_statements_of_a_drop_leaves_all_as_it_was(new_project, name, blow):
    project = made(new_project(name))
    project.database.admin(GUARDED)
    with closed_gate(project.database) as connection:
        process = project.start("drop", "--force")
        pid = at_gate(connection, process)
        if blow == "connection":
            connection.execute("SELECT pg_terminate_backend(%s)", [pid])
        elif blow == "Ctrl-C":
            process.send_signal(signal.SIGINT)
        else:
            (kill_program if blow == "kill -9" else kill_with_children)(process)
        outcome = outcome_of(process)
        wait_until_orphans_end(project.database)
    assert outcome.code == {"connection": 2, "Ctrl-C": 130}.get(blow, -9)
    assert blow != "Ctrl-C" or "interrupted; nothing was dropped" in outcome.err
    assert blow != "connection" or "this shows: nself-db list" in outcome.err
    assert state(project) == WHOLE
    project.run("drop", "--force").ok()
    assert state(project) == EMPTY


def test_two_resets_at_once_end_with_one_whole_schema(new_project):
    """The second finds another database than it was told of, or the lock held, or does it all again."""
    project = new_project("plain-psql")
    write_pieces(project, PIECES)
    project.run("migrate", "up").ok()
    for _ in range(3):
        outcomes = [outcome_of(process) for process in [project.start(*RESET) for _ in range(2)]]
        assert 0 in [outcome.code for outcome in outcomes], outcomes
        assert {outcome.code for outcome in outcomes} <= {0, 1, 4}, outcomes
        project.run("migrate", "up").ok()
        check_complete(PIECES, read_state(project.database))


def test_a_migrate_that_waits_while_all_is_dropped_begins_anew(new_project):
    """It reads the ledger again under the lock; what it was to run then fails as a whole, or is the whole."""
    project = made(new_project("plain-psql"))
    project.migration("2_next", "CREATE VIEW np_next AS SELECT * FROM np_a;")
    project.database.admin(GUARDED)
    with closed_gate(project.database) as connection:
        dropping = project.start("drop", "--force")
        at_gate(connection, dropping)
        migrating = project.start("migrate", "up")
        asks = "SELECT count(*) AS n FROM pg_stat_activity WHERE application_name = 'nself-db migrate up'"
        wait_until(lambda: connection.execute(asks).fetchone()["n"], WAIT, lambda: "migrate has not come")
        time.sleep(0.5)  # for its survey, which sees version 1 applied
    outcome_of(dropping).ok()
    failed = outcome_of(migrating)
    assert failed.code == 1, failed
    assert state(project) == EMPTY
    project.run("migrate", "up").ok()
    assert state(project) == (3, 1, 2, 2)
