"""The ANALYZE of a restore with --jobs is struck, which several sessions do at once: nothing is left behind."""

from __future__ import annotations

import signal

import pytest
from bed.local_processes import wait_until

from .restoring import SQL_WAITS, beside, check_next, check_present, held, of_server, ours, wait_until_ended
from .watch import WAIT, kill_program, outcome_of

WAYS = ("plain-psql", "container-15")
SESSIONS = 3
SQL_END = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE query LIKE 'ANALYZE %%' AND wait_event = 'PgSleep' AND starts_with(datname, %s)
"""
# Each session then waits at a table of its own.
TABLES = "".join(
    f"CREATE TABLE t{number} AS SELECT i FROM generate_series(1, 500) i; CREATE INDEX ON t{number} (gate(i));"
    for number in range(SESSIONS)
)


@pytest.fixture
def analyzing(ready):
    """analyzing(server) -> (a Project, a context whose restore waits with all its sessions in ANALYZE)."""

    def make(name):
        project = ready(name)
        project.database.admin(TABLES + "DELETE FROM u WHERE i = 11")
        project.run("backup", "--label", "more").ok()
        project.database.admin("INSERT INTO u VALUES (11)")
        return project, held(project, "analyze", "--jobs", str(SESSIONS))

    return make


def wait_until_all_wait(project):
    pattern = ["%ANALYZE%", project.database.name]
    wait_until(lambda: len(of_server(project, SQL_WAITS, pattern)) == SESSIONS, WAIT, lambda: f"{ours(project)}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", WAYS)
def test_interrupted(analyzing, name, number):
    project, restore = analyzing(name)
    with restore as process:
        wait_until_all_wait(project)
        process.send_signal(number)
        outcome = outcome_of(process)
        wait_until_ended(project)
    assert (outcome.code, beside(project)) == (130, []), repr(outcome)
    assert "Traceback" not in outcome.err
    check_present(project)


@pytest.mark.parametrize("name", WAYS)
def test_killed(analyzing, name):
    project, restore = analyzing(name)
    with restore as process:
        wait_until_all_wait(project)
        kill_program(process)
        assert outcome_of(process).code == -9
    wait_until_ended(project)
    left = beside(project)
    assert len(left) == 1 and "_restore_" in left[0]
    check_present(project)
    project.run("restore", "--clean", "--force").ok()
    check_next(project, [])


@pytest.mark.parametrize("name", (*WAYS, "plain-psycopg"))
def test_ended_sessions(analyzing, name):
    project, restore = analyzing(name)
    with restore as process:
        wait_until_all_wait(project)
        of_server(project, SQL_END, [project.database.name])
        outcome = outcome_of(process)
    assert (outcome.code, beside(project)) == (2, []), repr(outcome)
    assert "Traceback" not in outcome.err
    check_present(project)
