"""Forty clients write while the databases change places.

Each row that a client was told of is in the database that it was written to, and what the clients get is a clean error,
or, behind a pgBouncer in transaction mode, none.
"""

from __future__ import annotations

import threading
import time

import psycopg
import pytest
from bed.local_processes import wait_until

from .restoring import beside, of_server
from .watch import WAIT

CLIENTS = 40
WRITE = "INSERT INTO u SELECT %s RETURNING (SELECT oid FROM pg_database WHERE datname = current_database()) AS oid"


class Writers:
    """CLIENTS threads, each of which writes one row after another by `connect()` until the block's end.

    `told` holds (the database's oid, the row) of each that was acknowledged; `errors`, what the clients got besides.
    """

    def __init__(self, connect):
        self.told, self.errors = [], []
        self._connect = connect
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._write, args=(number,)) for number in range(1, CLIENTS + 1)]

    def _write(self, number):
        row = number * 1_000_000
        while not self._stop.is_set():
            try:
                with self._connect() as connection:
                    while not self._stop.is_set():
                        row += 1
                        oid = connection.execute(WRITE, [row]).fetchone()["oid"]
                        with self._lock:
                            self.told.append((oid, row))
                        time.sleep(0.002)
            except Exception as error:  # of whatever kind: the test looks at it
                with self._lock:
                    self.errors.append(error)
                time.sleep(0.02)

    def wait_for_all(self, oid):
        """Wait until every client has written to the database of this oid."""
        wait_until(lambda: len(self._clients_of(oid)) == CLIENTS, 10 * WAIT, lambda: f"{self.errors[-5:]}")

    def _clients_of(self, oid):
        with self._lock:
            return {row // 1_000_000 for number, row in self.told if number == oid}

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()


def oid_of(project, name=None):
    rows = of_server(project, "SELECT oid FROM pg_database WHERE datname = %s", [name or project.database.name])
    return rows[0]["oid"]


def restore_among(project, writers, **options):
    """A restore while all of `writers` write, before it and behind it; returns its Outcome."""
    with writers:
        writers.wait_for_all(oid_of(project))
        outcome = project.run("restore", "--force", "--no-safety-backup", **options)
        writers.wait_for_all(oid_of(project))
    return outcome.ok()


def check_no_row_is_lost(project, writers):
    """What was acknowledged went to either of the two databases, and stands there."""
    (aside,) = beside(project, "before")
    assert not beside(project, "restore")
    oids = {oid_of(project, name): name for name in (aside, project.database.name)}
    assert {oid for oid, _ in writers.told} == oids.keys()
    for oid, name in oids.items():
        found = {row["i"] for row in project.database.server.cluster.admin("SELECT i FROM u", name)}
        assert {row for number, row in writers.told if number == oid} <= found


def check_clean(errors):
    """Whatever a client gets, it is libpq's word for a connection that was ended or refused."""
    assert all(isinstance(error, psycopg.OperationalError) for error in errors), errors


@pytest.mark.parametrize("name", ["plain-psql", "container-15"])
def test_forty_clients_are_cut_off_cleanly(ready, name):
    project = ready(name)
    writers = Writers(project.database.connect)
    restore_among(project, writers)
    assert writers.errors
    check_clean(writers.errors)
    check_no_row_is_lost(project, writers)


@pytest.fixture
def pooled(ready, pooler):
    """pooled(server, pool_mode) -> (project, Writers through a pgBouncer, the environment by which it is found)."""

    def make(name, pool_mode):
        project = ready(name)
        cluster = project.database.server.cluster
        bouncer = pooler(cluster, pool_mode, pool_size=CLIENTS, listen="*")
        env = {
            "PGBOUNCER_ENABLED": "true",
            "PGBOUNCER_HOST": "127.0.0.1" if name == "plain-psql" else cluster.host_address(),
            "PGBOUNCER_PORT": str(bouncer.port),
            "PGBOUNCER_ADMIN_USER": cluster.user,
            "PGBOUNCER_ADMIN_PASSWORD": cluster.password,
        }
        return project, Writers(lambda: through(bouncer, project.database.name)), env

    return make


def through(bouncer, name):
    # A prepared statement would be of the server connection that it was prepared in.
    return psycopg.connect(
        bouncer.url(name), autocommit=True, prepare_threshold=None, row_factory=psycopg.rows.dict_row
    )


@pytest.mark.parametrize("name", ["plain-psql", "container-15"])
def test_forty_clients_behind_pgbouncer_notice_nothing(pooled, name):
    project, writers, env = pooled(name, "transaction")
    outcome = restore_among(project, writers, env=env)
    assert writers.errors == []
    assert "pgBouncer was not" not in outcome.err and "took longer" not in outcome.err
    check_no_row_is_lost(project, writers)


def test_forty_clients_behind_a_pgbouncer_of_sessions_are_cut_off_cleanly(pooled):
    """Its pause waits for sessions that do not end, and is then left."""
    project, writers, env = pooled("plain-psql", "session")
    outcome = restore_among(project, writers, env=env)
    assert "took longer" in outcome.err
    check_clean(writers.errors)
    check_no_row_is_lost(project, writers)
