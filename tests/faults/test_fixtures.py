"""Fixture loads that are cut short leave no row, and clones that are made when it happens leave no database."""

from __future__ import annotations

import signal
import sys
import time

import pytest

SLOW = "INSERT INTO np_t VALUES (1);\nSELECT pg_sleep(6);\nINSERT INTO np_t VALUES (2);\n"
# A psql whose program has died ends only after its statement: so the set does not sleep for long.
WAITING = (
    "SELECT pid FROM pg_stat_activity "
    "WHERE datname = current_database() AND query LIKE '%pg_sleep(6)%' AND pid <> pg_backend_pid()"
)


@pytest.fixture(params=["psql", "psycopg"])
def slow(request, plain_project):
    """A project whose set sleeps between two rows, by either driver."""
    plain_project.database.admin("CREATE TABLE np_t (id int)")
    plain_project.write("fixtures/slow.sql", SLOW)
    plain_project.options = ["--driver", request.param]
    return plain_project


def sleeping(project, there=True):
    """The server process that sleeps in the set, waited for; with `there` false, its end is waited for."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = project.database.admin(WAITING)
        if bool(found) == there:
            return found[0]["pid"] if found else None
        time.sleep(0.05)
    raise AssertionError("the set does not sleep" if there else "the set sleeps on")


def count(project):
    return project.database.admin("SELECT count(*) FROM np_t")[0]["count"]


def start(project):
    process = project.start("fixtures", "run", "--fixture", "slow", "--commit", *project.options)
    return process, sleeping(project)


def test_kill_9_of_the_program(slow):
    process, _ = start(slow)
    process.kill()
    process.communicate(timeout=20)
    sleeping(slow, there=False)
    assert count(slow) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt(slow, number):
    process, _ = start(slow)
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "interrupted; nothing was kept" in err
    sleeping(slow, there=False)
    assert count(slow) == 0


def test_the_server_s_process_dies(slow):
    process, pid = start(slow)
    slow.database.admin("SELECT pg_terminate_backend(%s)", [pid])
    _, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "error: fixtures/slow.sql:2" in err and "nothing of it was kept" in err
    assert count(slow) == 0


def databases(project):
    rows = project.database.admin("SELECT datname FROM pg_database")
    return sorted(row["datname"] for row in rows if row["datname"].startswith(project.database.name + "_"))


@pytest.mark.parametrize("driver", ["psql", "psycopg"])
def test_interrupts_while_a_template_and_a_clone_are_made(plain_project, driver):
    plain_project.database.admin("CREATE TABLE np_t (id int)")
    plain_project.write("fixtures/one.sql", "INSERT INTO np_t VALUES (1)")
    template = f"{plain_project.database.name}_template"
    words = ["fixtures", "run", "--fixture", "one", "--driver", driver, "--", sys.executable, "-c", "pass"]
    plain_project.run(*words).ok()
    try:
        for number in range(7):
            plain_project.database.server.drop_database(template)
            process = plain_project.start(*words)
            time.sleep(0.15 + number * 0.08)
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)
            assert [name for name in databases(plain_project) if name != template] == [], number
    finally:
        plain_project.database.server.drop_database(template)
