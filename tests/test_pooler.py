"""Behind a pooler: transaction mode is refused and leaves nothing in the pool, session mode works."""

from __future__ import annotations

import contextlib
import threading

import psycopg
import pytest

BOTH_DRIVERS = pytest.mark.parametrize("plain_server", ["psql", "psycopg"], indirect=True)
# What a pooler does with start-up options: it drops them, or it refuses the connection (pgbouncer before 1.20).
DROPPED, REFUSED = "extra_float_digits,options", "extra_float_digits"
BOTH_WAYS = pytest.mark.parametrize("ignored", [DROPPED, REFUSED], ids=["dropped", "refused"])

SETTINGS = ("lock_timeout", "default_transaction_read_only", "application_name")


@pytest.fixture
def pooled(plain_project, pooler):
    """pooled(mode, ignored) -> the project whose env file leads through a pooler, and the pooler."""

    def make(mode, ignored=DROPPED, **options):
        made = pooler(plain_project.database.server.cluster, mode, ignored=ignored, **options)
        plain_project.write_env(
            {**plain_project.database.settings, "NSELF_DB_URL": made.url(plain_project.database.name)}
        )
        return plain_project, made

    return make


def settings_in_the_pool(project, through):
    """SETTINGS as the pool's other clients meet them, for each of its server sessions that answers."""
    with contextlib.ExitStack() as stack:
        url = through.url(project.database.name)
        clients = [stack.enter_context(psycopg.connect(url, autocommit=True, application_name="app")) for _ in range(3)]
        for client in clients:
            client.execute("BEGIN")
        return {
            client.execute(f"SELECT {', '.join(map('current_setting({!r})'.format, SETTINGS))}").fetchone()
            for client in clients
        }


@contextlib.contextmanager
def traffic(url, clients=4):
    """Other clients of the pool, which ask one short question after another."""
    stopped = threading.Event()

    def ask():
        with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
            while not stopped.is_set():
                connection.execute("SELECT pg_sleep(0.001)")

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopped.set()
        for thread in threads:
            thread.join(20)


@BOTH_DRIVERS
@BOTH_WAYS
def test_transaction_mode_is_refused(pooled, ignored):
    project, _ = pooled("transaction", ignored)
    project.migration("1_a", "CREATE TABLE np_a (id int);")
    for words in (("migrate", "up"), ("migrate", "status"), ("shell", "--command", "SELECT 1")):
        outcome = project.run(*words, "--json")
        assert outcome.code == 4, outcome
        error = outcome.json()["error"]
        assert "pooler in transaction mode" in error["message"]
        assert "NSELF_DB_URL" in error["hint"]
    assert project.database.admin("SELECT 1 FROM pg_class WHERE relname IN ('np_a', 'schema_migrations')") == []


@BOTH_DRIVERS
@BOTH_WAYS
def test_a_refusal_leaves_no_lock_and_no_setting_in_the_pool(pooled, ignored):
    project, through = pooled("transaction", ignored)
    project.migration("1_a", "CREATE TABLE np_a (id int);")
    assert project.run("migrate", "up").code == 4
    assert project.run("shell", stdin="SELECT 1;").code == 4
    assert settings_in_the_pool(project, through) == {("0", "off", "app")}
    project.write_env(project.database.settings)
    project.run("migrate", "up", "--lock-wait", "0").ok()


@BOTH_DRIVERS
def test_transaction_mode_is_refused_while_others_use_the_pool(pooled):
    project, through = pooled("transaction", pool_size=3)
    project.migration("1_a", "CREATE TABLE np_a (id int);")
    with traffic(through.url(project.database.name)):
        assert [project.run("migrate", "up").code for _ in range(3)] == [4, 4, 4]
    assert project.database.admin("SELECT 1 FROM pg_class WHERE relname = 'np_a'") == []


@BOTH_DRIVERS
@BOTH_WAYS
def test_session_mode_works_with_our_settings(pooled, ignored):
    project, through = pooled("session", ignored)
    project.migration(
        "1_a",
        "CREATE TABLE np_a AS SELECT current_setting('lock_timeout') AS t, current_setting('application_name') AS n;",
    )
    with traffic(through.url(project.database.name), clients=2):
        project.run("migrate", "up").ok()
        assert project.run("migrate", "status", "--exit-code").ok()
        assert "np_a" in project.run("list", "--counts").ok().out
    assert project.database.admin("SELECT t, n FROM np_a") == [{"t": "5s", "n": "nself-db migrate up"}]


@BOTH_DRIVERS
def test_in_session_mode_two_runs_still_exclude_one_another(pooled):
    project, _ = pooled("session")
    project.migration("1_a", "SELECT pg_sleep(2);")
    first = project.start("migrate", "up")
    held = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted"
    while first.poll() is None and not project.database.admin(held):
        pass
    outcome = project.run("migrate", "up", "--lock-wait", "0")
    _, err = first.communicate(timeout=30)
    assert first.returncode == 0, err
    assert outcome.code == 4
    assert "another run holds the migration lock" in outcome.err


@BOTH_DRIVERS
@BOTH_WAYS
def test_in_session_mode_one_statement_is_read_only(pooled, ignored):
    project, through = pooled("session", ignored)
    outcome = project.run("shell", "--command", "SELECT 1 INTO np_a")
    assert outcome.code == 1
    assert "read-only transaction" in outcome.err
    assert settings_in_the_pool(project, through) == {("0", "off", "app")}


@BOTH_WAYS
def test_a_terminal_that_would_not_be_read_only_is_refused(pooled, ignored):
    project, _ = pooled("session", ignored)
    outcome = project.run("shell", stdin="CREATE TABLE np_a (a int);\n")
    assert outcome.code == 4
    assert "would not be read-only" in outcome.err
    assert project.database.admin("SELECT 1 FROM pg_class WHERE relname = 'np_a'") == []
    project.run("shell", "--rw", stdin="CREATE TABLE np_a (a int);\n").ok()
    assert project.database.admin("SELECT 1 AS n FROM pg_class WHERE relname = 'np_a'") == [{"n": 1}]
