"""The network between the program and a server by URL: cut or reset at some byte, silent, or gone in the midst."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bed.local_processes import wait_until
from bed.projects import REPOSITORY
from bed.proxy import CLOSE, RESET, STALL, TO_CLIENT, TO_SERVER

from .conftest import PLAIN
from .watch import (
    PASS_GATE,
    PATIENT,
    WAIT,
    at_gate,
    closed_gate,
    kill_program,
    log_gate,
    make_random,
    outcome_of,
    recorded,
    sessions,
    wait_until_orphans_end,
)
from .workload import check_complete, check_whole_or_nothing, make_pieces, read_state, write_pieces

PIECES = make_pieces(14)
LONG = "x" * 1000
ROUNDS = 4  # places at which each direction is cut in each way


def by_proxy(project, proxy):
    """The URL of the project's database through `proxy`."""
    return project.database.server.cluster.url(project.database.name, port=proxy.port)


@pytest.fixture
def run_by(run):
    """run_by(project, proxy, …) -> the Popen of `migrate up` through the proxy; its URL is in the environment."""

    def start(project, proxy, *options):
        driver = project.database.settings["NSELF_DB_DRIVER"]
        url = {"NSELF_DB_URL": by_proxy(project, proxy), "NSELF_DB_DRIVER": driver}
        return project.start("migrate", "up", *options, env=url)

    return start


@pytest.mark.parametrize("action", [CLOSE, RESET])
@pytest.mark.parametrize("direction", [TO_SERVER, TO_CLIENT])
@pytest.mark.parametrize("name", PLAIN)
def test_a_connection_cut_at_any_byte(new_project, proxy, run_by, name, direction, action):
    chance = make_random(f"{name}-{direction}-{action}")
    project = new_project(name)
    write_pieces(project, PIECES)
    undisturbed = proxy(project.database.server.cluster)
    outcome_of(run_by(project, undisturbed)).ok()
    total = max(connection[direction] for connection in undisturbed.transferred)
    for number in range(ROUNDS):
        project = new_project(name)
        write_pieces(project, PIECES)
        disturbed = proxy(project.database.server.cluster)
        # The last bytes are the goodbye, after which there is nothing to lose.
        after = int(total * 0.95 * (number + chance.random()) / ROUNDS)
        disturbed.cut(after, direction, action)
        outcome = outcome_of(run_by(project, disturbed))
        wait_until_orphans_end(project.database)
        state = read_state(project.database)
        print(f"{after} of {total} bytes: exit {outcome.code}, {len(state.versions)} recorded")
        check_whole_or_nothing(PIECES, state)
        assert outcome.code == 2, repr(outcome)
        assert "Traceback" not in outcome.err
        project.run("migrate", "up").ok()
        check_complete(PIECES, read_state(project.database))


@pytest.mark.parametrize("name", PLAIN)
def test_a_connection_that_is_gone_while_a_statement_runs(new_project, proxy, run_by, name):
    project = new_project(name)
    write_pieces(project, PIECES)
    project.migration("15_gate", log_gate(15))
    middle = proxy(project.database.server.cluster)
    with closed_gate(project.database) as gate:
        process = run_by(project, middle)
        at_gate(gate, process)
        middle.drop_all()
        outcome = outcome_of(process)
        # The statement runs on in the server until it sees that nobody listens, which it looks for every second.
        wait_until(lambda: not sessions(gate), 10, lambda: f"{sessions(gate)}")
    assert outcome.code == 2
    assert "run the same command again" in outcome.err
    check_complete(PIECES, read_state(project.database))
    project.run("migrate", "up").ok()
    assert project.database.admin("SELECT count(*) AS n FROM log WHERE number = 15") == [{"n": 1}]


def test_a_server_that_never_answers_is_given_up(new_project, proxy, run_by):
    processes = []
    for name in PLAIN:
        for direction in (TO_SERVER, TO_CLIENT):
            project = new_project(name)
            write_pieces(project, PIECES)
            silent = proxy(project.database.server.cluster)
            silent.cut(0, direction, STALL)
            processes.append((project, run_by(project, silent)))
    for project, process in processes:
        outcome = outcome_of(process, 25)
        assert outcome.code == 2, repr(outcome)
        assert "timeout" in outcome.err.lower()
        assert read_state(project.database).versions == {}


@pytest.mark.parametrize("direction", [TO_SERVER, TO_CLIENT])
@pytest.mark.parametrize("name", PLAIN)
def test_a_connection_that_falls_silent_in_the_midst_can_be_interrupted(new_project, proxy, run_by, name, direction):
    project = new_project(name)
    write_pieces(project, PIECES)
    undisturbed = proxy(project.database.server.cluster)
    outcome_of(run_by(project, undisturbed)).ok()
    total = max(connection[direction] for connection in undisturbed.transferred)
    project = new_project(name)
    write_pieces(project, PIECES)
    silent = proxy(project.database.server.cluster)
    silent.cut(total // 2, direction, STALL)
    process = run_by(project, silent)
    with project.database.connect() as watcher:
        wait_until(lambda: any(each[direction] >= total // 2 for each in silent.transferred), WAIT)
        wait_until(lambda: idle(watcher), WAIT, lambda: f"{sessions(watcher)}")
        assert process.poll() is None
        before = recorded(watcher)
    silent.mend()
    process.send_signal(signal.SIGINT)
    outcome = outcome_of(process, 30)
    assert outcome.code == 130
    assert "Traceback" not in outcome.err
    wait_until_orphans_end(project.database)
    state = read_state(project.database)
    check_whole_or_nothing(PIECES, state)
    assert len(state.versions) == before
    silent.resume()
    project.run("migrate", "up").ok()
    check_complete(PIECES, read_state(project.database))


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("kind", ["copy", "statement"])
def test_a_connection_that_falls_silent_in_a_large_file_can_be_interrupted(new_project, proxy, run_by, name, kind):
    """What is to be sent fills every buffer on the way, so that the program cannot get rid of it."""
    project = new_project(name)
    if kind == "copy":
        text = "COPY t FROM stdin;\n" + "".join(f"{number}\t{LONG}\n" for number in range(8000)) + "\\.\n"
    else:
        text = "INSERT INTO t VALUES\n" + ",\n".join(f"({number}, '{LONG}')" for number in range(8000)) + ";\n"
    project.migration("1_large", "CREATE TABLE t (a int, b text);\n" + text)
    silent = proxy(project.database.server.cluster)
    silent.cut(1_000_000, TO_SERVER, STALL)
    process = run_by(project, silent)
    wait_until(lambda: any(each[TO_SERVER] >= 1_000_000 for each in silent.transferred), WAIT)
    silent.mend()
    wait_until(lambda: asleep(process.pid), WAIT, lambda: "the program is busy")
    process.send_signal(signal.SIGINT)
    try:
        outcome = outcome_of(process, 20)
    finally:
        kill_program(process)
    assert outcome.code == 130
    wait_until_orphans_end(project.database)
    assert project.database.admin("SELECT to_regclass('t') IS NULL AS undone") == [{"undone": True}]
    project.run("migrate", "up", timeout=30).ok()
    assert project.database.admin("SELECT count(*) AS n FROM t") == [{"n": 8000}]


def asleep(pid):
    """Whether process `pid` slept at ten looks in a row, 30 ms apart."""
    seen = set()
    for _ in range(10):
        seen.add(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0])
        time.sleep(0.03)
    return seen == {"S"}


def idle(connection):
    return all(row["state"].startswith("idle") for row in sessions(connection))


# psql says the end of a unit on two streams; what carries them may break between the two.
LOSES_ITS_ERRORS = """
import sys
from nself_core.postgres.psql import PREAMBLE, PsqlSession
from nself_core.postgres.session import ConnectionLost
lines = PREAMBLE.count("\\n") + 4  # up to the second mark: then psql's input is at its end
argv = ["sh", "-c", f'head -n {lines} | "$@" 2>/dev/null', "sh", *sys.argv[1:]]
try:
    PsqlSession(argv, None, "here").execute("SELECT 1")
except ConnectionLost:
    sys.exit(7)
"""


def test_a_psql_that_ends_before_its_second_stream_is_read_is_no_endless_loop(new_project, run):
    project = new_project("plain-psql")
    cluster = project.database.server.cluster
    login = ["-h", str(cluster.socket_folder), "-p", str(cluster.port), "-U", cluster.user, "-d", project.database.name]
    command = [sys.executable, "-c", LOSES_ITS_ERRORS, "psql", "-X", "-q", *login]
    done = subprocess.run(command, env=run.environment({}), cwd=REPOSITORY, timeout=15, capture_output=True, text=True)
    assert done.returncode == 7, done.stderr


@pytest.mark.parametrize("name", [*PLAIN, "container-15"])
def test_what_the_server_noted_before_is_not_taken_for_a_refused_login(new_project, name):
    project = new_project(name)
    words = 'DO $$ BEGIN RAISE WARNING E\'see:\\nrole "x" of database "y" does not exist\'; END $$;\n'
    project.migration("1_gate", PATIENT + "DROP ROLE IF EXISTS nobody_at_all;\n" + words + PASS_GATE)
    with closed_gate(project.database) as gate:
        process = project.start("migrate", "up")
        pid = at_gate(gate, process)
        gate.execute("SELECT pg_terminate_backend(%s)", [pid])
        outcome = outcome_of(process)
    assert outcome.code == 2, repr(outcome)
    assert "run the same command again" in outcome.err
