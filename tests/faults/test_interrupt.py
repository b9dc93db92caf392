"""Ctrl-C and `kill`: the run ends with 130, its server process ends, nothing is half applied, the next completes."""

from __future__ import annotations

import signal
import time

import pytest
from bed.local_processes import wait_until

from .conftest import EVERY_WAY
from .watch import (
    PASS_GATE,
    PATIENT,
    WAIT,
    at_gate,
    closed_gate,
    end_container_psql,
    kill_with_children,
    log_gate,
    make_random,
    outcome_of,
    recorded,
    sessions,
    wait_for_progress,
    wait_for_session,
    wait_until_orphans_end,
)
from .workload import check_complete, check_whole_or_nothing, make_pieces, read_state, rows, write_pieces

SIGNALS = [signal.SIGINT, signal.SIGTERM]
SECONDS = 5  # in which the server process must be gone
PIECES = make_pieces(9)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("name", EVERY_WAY)
def test_a_long_statement_is_ended_and_its_file_undone(new_project, name, number):
    project = new_project(name)
    write_pieces(project, PIECES)
    project.migration("10_gate", log_gate(10))
    project.migration("11_after", "INSERT INTO log VALUES (11, 1);")
    with closed_gate(project.database) as gate:
        process = project.start("migrate", "up", "--json")
        at_gate(gate, process)
        process.send_signal(number)
        outcome = outcome_of(process)
        wait_until_orphans_end(project.database, SECONDS)
        check_complete(PIECES, read_state(project.database))
    assert outcome.code == 130
    assert [item["version"] for item in outcome.json()["data"]["applied"]] == [str(piece.number) for piece in PIECES]
    assert rows(project, "SELECT * FROM log WHERE number > 9") == []
    project.run("migrate", "up").ok()
    assert rows(project, "SELECT number, step FROM log WHERE number > 9 ORDER BY 1") == [(10, 1), (11, 1)]


@pytest.mark.parametrize("name", EVERY_WAY)
def test_a_session_that_the_file_gave_another_name_is_ended_too(new_project, name):
    project = new_project(name)
    project.migration("1_a", "CREATE TABLE log (number int, step int);")
    project.migration("2_named", PATIENT + "SET application_name = 'my migration';\n" + PASS_GATE)
    with closed_gate(project.database) as gate:
        process = project.start("migrate", "up")
        pid = at_gate(gate, process)
        process.send_signal(signal.SIGINT)
        assert outcome_of(process).code == 130
        gone = "SELECT count(*) = 0 AS gone FROM pg_stat_activity WHERE pid = %s"
        wait_until(lambda: gate.execute(gone, [pid]).fetchone()["gone"], SECONDS, lambda: f"{pid} lives on")


@pytest.mark.parametrize("name", EVERY_WAY)
def test_what_another_run_did_meanwhile_is_not_told_as_its_own(new_project, name):
    project = new_project(name)
    write_pieces(project, PIECES)
    project.migration("10_gate", log_gate(10))
    project.migration("11_after", "INSERT INTO log VALUES (11, 1);")
    with closed_gate(project.database) as gate:
        first = project.start("migrate", "up", "--json")
        pid = at_gate(gate, first)
        second = project.start("migrate", "up", "--json")
        wait_until(lambda: len(sessions(gate)) == 2, WAIT, lambda: f"{sessions(gate)}")
        first.send_signal(signal.SIGINT)
        wait_until(lambda: at_gate(gate, second) != pid, WAIT, lambda: "the second run does not take over")
        # The second holds the lock now and keeps it until the gate opens; the first must end all the same.
        outcomes = [outcome_of(first)]
    outcomes.append(outcome_of(second))
    assert [outcome.code for outcome in outcomes] == [130, 0]
    assert "could not be ended" not in outcomes[0].err + outcomes[0].out
    told = [[int(item["version"]) for item in outcome.json()["data"]["applied"]] for outcome in outcomes]
    assert told == [[piece.number for piece in PIECES], [10, 11]]


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("name", EVERY_WAY)
def test_while_it_waits_for_the_lock(new_project, name, number):
    project = new_project(name)
    write_pieces(project, PIECES)
    with project.database.connect() as holder:
        holder.execute(f"SELECT pg_advisory_lock({0x6E73656C66})")
        process = project.start("migrate", "up")
        wait_for_session(holder, process)
        assert "waiting for the migration lock" in process.stderr.readline()
        process.send_signal(number)
        outcome = outcome_of(process)
        wait_until_orphans_end(project.database, SECONDS)
    assert outcome.code == 130
    assert "Traceback" not in outcome.err
    project.run("migrate", "up").ok()
    check_complete(PIECES, read_state(project.database))


@pytest.mark.parametrize("name", EVERY_WAY)
def test_during_an_index_that_is_built_concurrently(new_project, name):
    project = new_project(name)
    project.migration("1_log", "CREATE TABLE log (number int, step int);")
    project.migration("2_index", "-- nself:no-transaction\n-- nself:lock-timeout=0\nINSERT INTO log VALUES (2, 1);\n"
                      "CREATE INDEX CONCURRENTLY i ON log (number);\nINSERT INTO log VALUES (2, 3);\n")  # fmt: skip
    project.run("migrate", "up", "--to", "1").ok()
    with project.database.connect() as blocker:
        blocker.execute("BEGIN")
        blocker.execute("LOCK TABLE log IN ROW EXCLUSIVE MODE")
        process = project.start("migrate", "up")
        building = "SELECT 1 FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting%'"
        with project.database.connect() as watcher:
            wait_until(lambda: watcher.execute(building).fetchone(), WAIT, lambda: "no index is being built")
        process.send_signal(signal.SIGINT)
        assert outcome_of(process).code == 130
        wait_until_orphans_end(project.database, SECONDS)
        assert rows(project, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'i'::regclass") == [(False,)]
    project.run("migrate", "up").ok()
    assert rows(project, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'i'::regclass") == [(True,)]
    assert rows(project, "SELECT step, count(*) FROM log GROUP BY 1 ORDER BY 1") == [(1, 1), (3, 1)]


@pytest.mark.parametrize("name", EVERY_WAY)
def test_at_random_points_what_is_told_is_what_is_recorded(new_project, name):
    chance = make_random(f"interrupt-{name}")
    pieces = make_pieces(30)
    for _ in range(4):
        project = new_project(name)
        write_pieces(project, pieces)
        process = project.start("migrate", "up", "--json")
        with project.database.connect() as connection:
            wait_for_session(connection, process)
            wait_for_progress(connection, process, chance.randrange(25))
        time.sleep(chance.uniform(0, 0.02))  # the random point itself, no synchronisation
        process.send_signal(chance.choice(SIGNALS))
        outcome = outcome_of(process)
        wait_until_orphans_end(project.database, SECONDS)
        state = read_state(project.database)
        check_whole_or_nothing(pieces, state)
        # Once all is done and said, Python takes its leave, and a signal then ends it as it ends any program.
        done = (0, -signal.SIGINT, -signal.SIGTERM)
        assert outcome.code == 130 or (outcome.code in done and outcome.json()["ok"]), repr(outcome)
        assert "Traceback" not in outcome.err, repr(outcome)
        told = [int(item["version"]) for item in outcome.json()["data"].get("applied", ())]
        applied = [version for version, dirty in sorted(state.versions.items()) if not dirty]
        assert told == applied, f"told {told}, recorded {applied}"
        project.run("migrate", "up").ok()
        check_complete(pieces, read_state(project.database))


@pytest.mark.parametrize("name, text", [
    *((name, log_gate(2)) for name in EVERY_WAY),
    ("plain-psql", f"{PATIENT}BEGIN;\n{PASS_GATE}ROLLBACK;\n"),
    ("plain-psql", f"{PATIENT}-- nself:no-transaction\n{PASS_GATE}"),
], ids=[*EVERY_WAY, "self-test", "no-transaction"])  # fmt: skip
def test_a_dead_client_is_noticed_in_every_file_of_the_run(new_project, name, text):
    project = new_project(name)
    project.migration("1_a", "CREATE TABLE log (number int, step int);")
    project.migration("2_gate", text)
    with closed_gate(project.database) as gate:
        process = project.start("migrate", "up")
        pid = at_gate(gate, process)
        assert recorded(gate) >= 1
        kill_with_children(process)
        end_container_psql(project.database.server)
        outcome_of(process)
        if gate.info.server_version >= 140000:  # an older server cannot (client_connection_check_interval)
            wait_until(lambda: pid not in [row["pid"] for row in sessions(gate)], SECONDS, lambda: f"{pid} lives on")
    project.run("migrate", "up").ok()
