"""The container stops in the midst of a run: exit 2 and plain words, whole migrations, a next run that completes."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest
from bed.servers import Server

from .conftest import or_gap
from .watch import (
    PATIENT,
    at_gate,
    closed_gate,
    log_gate,
    make_random,
    outcome_of,
    wait_for_progress,
    wait_until_orphans_end,
)
from .workload import check_complete, check_whole_or_nothing, make_pieces, read_state, rows, write_pieces

PIECES = make_pieces(9)
WAYS = ["container", "url-psql", "url-psycopg"]


@pytest.fixture(scope="module")
def own_container(bed):
    """A container that only these tests stop."""
    cluster = or_gap(bed.new_container, 15)
    yield cluster
    cluster.close()


def check_words(outcome, way):
    assert outcome.code == 2, repr(outcome)
    assert "Traceback" not in outcome.err
    assert "error: " in outcome.err
    assert "exit code" not in outcome.err, "a number is no clear message"
    assert ("container" in outcome.err) == (way == "container")
    assert "hint: " in outcome.err


@pytest.mark.parametrize("end", ["stop", "kill"])
@pytest.mark.parametrize("way", WAYS)
def test_stopped_inside_a_transaction(new_project, own_container, way, end):
    project = new_project(Server(way, own_container))
    write_pieces(project, PIECES)
    project.migration("10_gate", log_gate(10))
    with closed_gate(project.database) as gate:
        process = project.start("migrate", "up")
        at_gate(gate, process)
        getattr(own_container, end)()
        outcome = outcome_of(process)
    check_words(outcome, way)
    refused = project.run("migrate", "up")
    check_words(refused, way)
    own_container.start()
    check_complete(PIECES, read_state(project.database))
    assert rows(project, "SELECT * FROM log WHERE number = 10") == []
    project.run("migrate", "up").ok()
    assert rows(project, "SELECT * FROM log WHERE number = 10") == [(10, 1)]


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_stopped_inside_a_file_outside_a_transaction(new_project, own_container, end):
    project = new_project(Server("container", own_container))
    project.migration("1_log", "CREATE TABLE log (number int, step int);")
    project.migration("2_outside", f"{PATIENT}-- nself:no-transaction\nINSERT INTO log VALUES (2, 1);\n"
                      "INSERT INTO log SELECT 2, 2 FROM pg_advisory_xact_lock(4242);\nVACUUM log;\n"
                      "CREATE INDEX CONCURRENTLY i ON log (step);\nINSERT INTO log VALUES (2, 5);\n")  # fmt: skip
    with closed_gate(project.database) as gate:
        process = project.start("migrate", "up")
        at_gate(gate, process)
        getattr(own_container, end)()
        outcome = outcome_of(process)
    check_words(outcome, "container")
    own_container.start()
    assert rows(project, "SELECT step FROM log ORDER BY 1") == [(1,)]
    assert rows(project, "SELECT statements_done, started FROM nself_db.migrations WHERE version = 2") == [(1, None)]
    project.run("migrate", "up").ok()
    assert rows(project, "SELECT step FROM log ORDER BY 1") == [(1,), (2,), (5,)]
    assert rows(project, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'i'::regclass") == [(True,)]


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_stopped_at_random_points(new_project, own_container, end):
    chance = make_random(f"container-{end}")
    pieces = make_pieces(30)
    for _ in range(3):
        project = new_project(Server("container", own_container))
        write_pieces(project, pieces)
        process = project.start("migrate", "up")
        with project.database.connect() as connection:
            wait_for_progress(connection, process, chance.randrange(20))
        time.sleep(chance.uniform(0, 0.02))  # the random point itself, no synchronisation
        getattr(own_container, end)()
        outcome = outcome_of(process)
        assert outcome.code in (0, 2), repr(outcome)
        own_container.start()
        check_whole_or_nothing(pieces, read_state(project.database))
        project.run("migrate", "up").ok()
        check_complete(pieces, read_state(project.database))


def test_a_frozen_container_does_not_hold_the_program(new_project, own_container):
    project = new_project(Server("container", own_container))
    write_pieces(project, PIECES)
    project.migration("10_gate", log_gate(10))
    docker = {**os.environ, "DOCKER_HOST": own_container.docker_host}
    with closed_gate(project.database) as gate:
        process = project.start("migrate", "up")
        pid = at_gate(gate, process)
        subprocess.run(["docker", "pause", own_container.name], env=docker, check=True, capture_output=True)
        try:
            process.send_signal(signal.SIGINT)
            outcome = outcome_of(process, 30)
        finally:
            subprocess.run(["docker", "unpause", own_container.name], env=docker, check=True, capture_output=True)
    assert outcome.code == 130
    assert f"server process {pid} could not be ended" in outcome.err, "nobody is told that the run may go on"
    wait_until_orphans_end(project.database)
    check_whole_or_nothing([*PIECES], read_state_without_gate(project))
    project.run("migrate", "up").ok()
    assert rows(project, "SELECT * FROM log WHERE number = 10") == [(10, 1)]


def read_state_without_gate(project):
    state = read_state(project.database)
    for table in (state.versions, state.records):
        table.pop(10, None)
    state.effects.pop(("log", "10 1"), None)
    return state
