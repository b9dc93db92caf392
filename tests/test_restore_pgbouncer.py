"""While databases change places, the clients behind pgBouncer wait: a real one, of this host, before a real server."""

from __future__ import annotations

import os
import signal
import threading
import time

import psycopg
import pytest
from bed.local_processes import wait_until
from bed.projects import REPOSITORY
from test_restore import backup, databases, drop_beside

NAMES = ["shop", 'Odd "name" $1; ü']


@pytest.fixture
def ready(make_database, make_project, plain_server, pooler):
    """ready(pool_mode, name) -> (project, the Pooler, the environment by which the program finds it)."""
    made = []

    def make(pool_mode="transaction", name="pooled", **changes):
        project = make_project(make_database(plain_server, name))
        made.append(project)
        project.database.admin("CREATE TABLE t (i int)")
        backup(project)
        bouncer = pooler(plain_server.cluster, pool_mode)
        env = {
            "PGBOUNCER_ENABLED": "true",
            "PGBOUNCER_PORT": str(bouncer.port),
            "PGBOUNCER_HOST": "127.0.0.1",
            "PGBOUNCER_ADMIN_USER": plain_server.cluster.user,
            "PGBOUNCER_ADMIN_PASSWORD": plain_server.cluster.password,
        }
        return project, bouncer, {**env, **changes}

    yield make
    for project in made:
        drop_beside(project)


def through(project, bouncer):
    return psycopg.connect(bouncer.url(project.database.name), autocommit=True, prepare_threshold=None)


class Writers:
    """Clients that write one row after another through the pooler until the end of the block."""

    def __init__(self, project, bouncer):
        self._arguments = project, bouncer
        self.errors = []
        self.written = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write) for _ in range(6)]

    def _write(self):
        try:
            with through(*self._arguments) as connection:
                while not self._stop.is_set():
                    connection.execute("INSERT INTO t VALUES (1)")
                    self.written += 1
                    time.sleep(0.002)
        except psycopg.Error as error:
            self.errors.append(error)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        wait_until(lambda: self.written > 20 or self.errors, 20)
        return self

    def __exit__(self, *_):
        time.sleep(0.3)
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.parametrize("name", NAMES)
def test_clients_in_transaction_mode_notice_nothing(ready, name):
    project, bouncer, env = ready(name=name)
    with Writers(project, bouncer) as writers:
        outcome = project.run("restore", "--force", "--no-safety-backup", env=env).ok()
        undone = project.run("restore", "--undo", "--force", env=env).ok()
    assert writers.errors == []
    assert "warning" not in outcome.err + undone.err
    with through(project, bouncer) as connection:
        assert connection.execute("SELECT current_database()").fetchone() == (name,)


def test_the_plan_names_the_pause(ready):
    project, _, env = ready()
    assert "pause pgBouncer, end the sessions" in project.run("restore", "--dry-run", env=env).ok().out
    assert "pgBouncer" not in project.run("restore", "--dry-run").ok().out


def test_without_the_setting_they_are_cut_off(ready):
    project, bouncer, env = ready(PGBOUNCER_ENABLED="false")
    with through(project, bouncer) as connection:
        connection.execute("BEGIN")
        connection.execute("INSERT INTO t VALUES (1)")
        project.run("restore", "--force", "--no-safety-backup", env=env).ok()
        with pytest.raises(psycopg.Error):
            connection.execute("COMMIT")


def test_a_transaction_that_does_not_end_is_cut_off_with_a_warning(ready):
    project, bouncer, env = ready()
    with through(project, bouncer) as connection:
        connection.execute("BEGIN")
        connection.execute("INSERT INTO t VALUES (1)")
        data = project.run("restore", "--force", "--no-safety-backup", "--json", env=env).ok().json()
        assert any("took longer" in warning for warning in data["warnings"])
        with pytest.raises(psycopg.Error):
            connection.execute("COMMIT")
    with through(project, bouncer) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)


def test_a_wrong_password_is_a_warning_without_the_password(ready):
    project, bouncer, env = ready(PGBOUNCER_ADMIN_PASSWORD="wrongsecret")
    with through(project, bouncer) as connection:
        connection.execute("SELECT 1")
    outcome = project.run("restore", "--force", "--no-safety-backup", env=env).ok()
    assert "pgBouncer was not paused" in outcome.err
    assert "wrongsecret" not in outcome.err + outcome.out


def test_no_pooler_there_is_a_warning(ready):
    project, bouncer, env = ready()
    bouncer.close()
    bouncer.close = lambda: None
    outcome = project.run("restore", "--force", "--no-safety-backup", env=env).ok()
    assert "pgBouncer was not paused" in outcome.err


def is_paused(bouncer, name):
    """Whether the pooler says that a database is paused, or about to be."""
    with psycopg.connect(bouncer.url("pgbouncer"), autocommit=True, cursor_factory=psycopg.ClientCursor) as console:
        rows = console.cursor(row_factory=psycopg.rows.dict_row).execute("SHOW DATABASES")
        return [row["paused"] for row in rows if row["name"] == name] == [1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_pause_cuts_nobody_off(ready, tmp_path, number):
    """One that takes as long as the transaction does, which is open until the program has ended."""
    project, bouncer, env = ready()
    patient = "from nself_core.backups import pooler\npooler.PAUSE_SECONDS = 600\n"
    (tmp_path / "sitecustomize.py").write_text(patient, encoding="utf-8")
    env["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{REPOSITORY}"
    with through(project, bouncer) as connection:
        connection.execute("BEGIN")
        connection.execute("INSERT INTO t VALUES (1)")
        process = project.start("restore", "--force", "--no-safety-backup", env=env)
        name = project.database.name
        wait_until(lambda: is_paused(bouncer, name) or process.poll() is not None, 60)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130, out + err
        connection.execute("COMMIT")
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (1,)
    assert not is_paused(bouncer, project.database.name)
    assert databases(project) == []


@pytest.mark.parametrize("kill", [True, False])
def test_a_swap_that_fails_or_is_killed_leaves_no_pause(ready, kill):
    project, bouncer, env = ready()
    with through(project, bouncer) as connection:
        connection.execute("SELECT 1")
    with project.database.server.cluster.connect() as holder:
        lock = psycopg.sql.SQL("BEGIN; COMMENT ON DATABASE {} IS 'held'")
        holder.execute(lock.format(psycopg.sql.Identifier(project.database.name)))
        process = project.start("restore", "--force", "--no-safety-backup", env=env)
        waits = "SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'object'"
        wait_until(lambda: project.database.server.cluster.admin(waits), 30)
        if kill:
            os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
        assert process.returncode == (-9 if kill else 1)
        holder.execute("ROLLBACK")
    with through(project, bouncer) as connection:
        connection.execute("SET statement_timeout = '5s'")
        assert connection.execute("SELECT current_database()").fetchone() == (project.database.name,)
    assert len(databases(project)) <= 1
