"""Locks and deadlocks with the application: a transactional file is tried again as a whole, three times."""

from __future__ import annotations

import threading

import pytest
from bed.local_processes import wait_until

from .conftest import EVERY_WAY, PLAIN
from .watch import PATIENT, WAIT, outcome_of
from .workload import rows

ALTERING = "INSERT INTO log VALUES (1);\nALTER TABLE a ADD COLUMN n int;\n"
SQL_WAITING = """
SELECT pid FROM pg_locks WHERE NOT granted AND relation = 'a'::regclass
AND pid IN (SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'nself-db%')
"""


@pytest.fixture
def make_tables(new_project):
    """make_tables(name) -> a Project with tables a, b and log."""

    def make(name):
        project = new_project(name)
        project.migration("1_tables", "CREATE TABLE a (id int); CREATE TABLE b (id int); CREATE TABLE log (step int);")
        project.run("migrate", "up").ok()
        return project

    return make


class Tries:
    """How often the server refused a statement with `words` since this was made: it writes each into its log."""

    def __init__(self, project, words):
        self._cluster, self._words = project.database.server.cluster, words
        self._before = self._cluster.logs().count(words)

    def failed(self):
        return self._cluster.logs().count(self._words) - self._before


def wait_for_try(watcher, seen):
    """Wait until the migration waits for table a in a session that is not in `seen`, and put it there."""
    def look():
        row = watcher.execute(SQL_WAITING).fetchone()
        return row and row["pid"] not in seen and row["pid"]
    seen.append(wait_until(look, WAIT, lambda: f"the migration does not wait another time: {seen}"))


@pytest.mark.parametrize("name", EVERY_WAY)
def test_a_lock_that_is_given_up_before_the_third_try(make_tables, name):
    project = make_tables(name)
    project.migration("2_b", "-- nself:lock-timeout=700ms\n" + ALTERING)
    project.migration("3_c", "INSERT INTO log VALUES (2);")
    tries, seen = Tries(project, "canceling statement due to lock timeout"), []
    with project.database.connect() as holder, project.database.connect() as watcher:
        holder.execute("BEGIN")
        holder.execute("LOCK TABLE a IN ACCESS SHARE MODE")
        process = project.start("migrate", "up")
        for _ in range(3):
            wait_for_try(watcher, seen)
        holder.execute("ROLLBACK")
    outcome_of(process).ok()
    assert tries.failed() == 2
    assert rows(project, "SELECT step FROM log ORDER BY 1") == [(1,), (2,)]
    assert rows(project, "SELECT count(*) FROM pg_attribute WHERE attrelid = 'a'::regclass AND attname = 'n'") == [(1,)]


@pytest.mark.parametrize("name", PLAIN)
def test_a_lock_that_is_never_given_up(make_tables, name):
    project = make_tables(name)
    project.migration("2_b", "-- nself:lock-timeout=100ms\n" + ALTERING)
    tries = Tries(project, "canceling statement due to lock timeout")
    with project.database.connect() as holder:
        holder.execute("BEGIN")
        holder.execute("LOCK TABLE a")
        outcome = project.run("migrate", "up")
    assert outcome.code == 1
    assert "migrations/2_b.sql:3:1: canceling statement due to lock timeout (SQLSTATE 55P03)" in outcome.err
    assert tries.failed() == 3
    assert rows(project, "SELECT * FROM log") == []
    project.run("migrate", "up").ok()
    assert rows(project, "SELECT * FROM log") == [(1,)]


@pytest.mark.parametrize("name", EVERY_WAY)
def test_a_deadlock_is_tried_again(make_tables, name):
    """The migration holds b and waits for a, the application holds a and then wants b; only the migration looks."""
    project = make_tables(name)
    project.migration("2_b", PATIENT + "SET LOCAL deadlock_timeout = '2s';\nINSERT INTO log VALUES (1);\n"
                      "LOCK TABLE b;\nLOCK TABLE a;\n")  # fmt: skip
    tries = Tries(project, "deadlock detected")
    with project.database.connect() as application, project.database.connect() as watcher:
        application.execute("SET deadlock_timeout = '1h'")
        application.execute("BEGIN")
        application.execute("LOCK TABLE a")
        process = project.start("migrate", "up")
        wait_for_try(watcher, [])
        closing = threading.Thread(target=lambda: (application.execute("LOCK TABLE b"), application.execute("COMMIT")))
        closing.start()
        outcome_of(process).ok()
        closing.join(WAIT)
    assert tries.failed() == 1
    assert rows(project, "SELECT step FROM log") == [(1,)]


@pytest.mark.parametrize("name", EVERY_WAY)
def test_a_serialization_failure_is_tried_again(make_tables, name):
    project = make_tables(name)
    project.database.admin("INSERT INTO a VALUES (1)")
    project.migration("2_b", "BEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT * FROM b;\nINSERT INTO log VALUES (1);\n"
                      "UPDATE a SET id = id + 1;\nCOMMIT;\n")  # fmt: skip
    tries = Tries(project, "could not serialize access")
    with project.database.connect() as application, project.database.connect() as watcher:
        application.execute("BEGIN")
        application.execute("UPDATE a SET id = 10")
        process = project.start("migrate", "up")
        waiting = "SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'nself-db%' AND wait_event_type = 'Lock'"
        wait_until(lambda: watcher.execute(waiting).fetchone(), WAIT, lambda: "the migration does not wait")
        application.execute("COMMIT")
    outcome_of(process).ok()
    assert tries.failed() == 1
    assert rows(project, "SELECT id FROM a") == [(11,)]
    assert rows(project, "SELECT step FROM log") == [(1,)]


@pytest.mark.parametrize("name", PLAIN)
def test_the_lock_is_free_between_two_tries_and_another_run_may_do_the_work(make_tables, name):
    project = make_tables(name)
    project.migration("2_b", "-- nself:lock-timeout=500ms\n" + ALTERING)
    seen = []
    with project.database.connect() as holder, project.database.connect() as watcher:
        holder.execute("BEGIN")
        holder.execute("LOCK TABLE a")
        processes = [project.start("migrate", "up") for _ in range(3)]
        for _ in range(4):
            wait_for_try(watcher, seen)
        holder.execute("ROLLBACK")
    for process in processes:
        outcome_of(process).ok()
    assert rows(project, "SELECT step FROM log") == [(1,)]
