"""`restore` where names, roles, settings and servers are not as one would wish."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import shlex
import subprocess
import sys
import time

import pytest
from bed.bookkeeping import values
from bed.local_processes import wait_until
from test_restore import backup, databases, drop_beside

from nself_core.backups import exchange, swap
from nself_core.failures import Unreachable

LONG = "customer_portal_for_the_northern_region_of_us_"


@pytest.fixture
def hostile(plain_project):
    """A Project with a table of three rows."""
    plain_project.database.admin("CREATE TABLE t (id int); INSERT INTO t SELECT generate_series(1, 3); ANALYZE")
    yield plain_project
    drop_beside(plain_project)


def rows(project):
    return values(project, "SELECT count(*) FROM t")[0][0]


@pytest.mark.parametrize("kind", [swap.BEFORE, swap.RESTORE])
def test_long_names_that_begin_alike_have_names_beside_them_of_their_own(kind):
    names = [f"{LONG}prod", f"{LONG}test", "ü" * 31, "ü" * 30]
    prefixes = [swap.side_prefix(name, kind) for name in names]
    assert not any(one != other and one.startswith(other) for one in prefixes for other in prefixes)
    assert len(set(prefixes)) == len(names)
    assert all(len(swap.side_name(name, kind, 0).encode()) <= 63 for name in names)
    assert swap.side_prefix("a" * 40, swap.BEFORE) == "a" * 40 + "_before_"


def test_undo_and_clean_leave_what_stands_aside_of_a_database_whose_long_name_begins_alike(
    plain_server, make_database, make_project
):
    prod, test = (make_project(make_database(plain_server, LONG + end)) for end in ("prod", "test"))
    for project in (prod, test):
        project.database.admin("CREATE TABLE t AS SELECT pg_catalog.current_database() AS name")
        backup(project)
        project.run("restore", "--force", "--no-safety-backup").ok()
    prod.run("restore", "--undo", "--force").ok()
    assert values(prod, "SELECT name FROM t") == [(prod.database.name,)]
    assert len(test.run("restore", "--clean", "--force", "--json").ok().json()["data"]["dropped"]) == 1
    assert len(prod.run("restore", "--clean", "--force", "--json").ok().json()["data"]["dropped"]) == 1


@pytest.fixture
def owned(hostile):
    """`hostile`, its database owned by an ordinary role, by which the program logs in."""
    cluster, name = hostile.database.server.cluster, hostile.database.name
    hostile.role = f"{name}_owner"
    cluster.admin(f"CREATE ROLE {hostile.role} LOGIN CREATEDB PASSWORD 'own'")
    cluster.admin(f'ALTER DATABASE "{name}" OWNER TO {hostile.role}')
    hostile.database.admin(f"ALTER TABLE t OWNER TO {hostile.role}")
    url = cluster.url(name, user=hostile.role, password="own")
    hostile.write_env({**hostile.database.settings, "NSELF_DB_URL": url})
    yield hostile
    drop_beside(hostile)
    cluster.drop_database(name)
    cluster.admin(f"DROP ROLE {hostile.role}")


def test_an_ordinary_owner_that_may_create_databases_restores(owned):
    backup(owned)
    owned.database.admin("DELETE FROM t")
    owned.run("restore", "--force").ok()
    assert rows(owned) == 3
    owned.run("restore", "--undo", "--force").ok()
    owned.run("restore", "--clean", "--force").ok()
    assert (rows(owned), databases(owned)) == (0, [])


def test_an_ordinary_owner_is_told_whose_sessions_it_may_not_end(owned):
    backup(owned)
    with owned.database.connect() as other:
        other.execute("SELECT 1")
        outcome = owned.run("restore", "--force", "--no-safety-backup")
    user = owned.database.server.cluster.user
    assert (outcome.code, f"may not end sessions of {user}" in outcome.err) == (1, True), repr(outcome)
    assert (rows(owned), databases(owned)) == (3, [])


@pytest.mark.parametrize("words", [[], ["--undo"]], ids=" ".join)
def test_whose_sessions_will_be_in_the_way_is_told_before_anything_is_done(owned, words):
    backup(owned)
    if words:
        owned.run("restore", "--force", "--no-safety-backup").ok()
    user, told = owned.database.server.cluster.user, "this role may not end sessions of"
    with owned.database.connect() as other:
        other.execute("SELECT 1")
        for more in (["--dry-run"], ["--force"]):
            outcome = owned.run("restore", *words, *more)
            assert f"{told} {user}" in outcome.err, repr(outcome)
    assert told not in owned.run("restore", *words, "--dry-run").err


def test_a_superuser_is_not_told_of_sessions_which_it_may_end(hostile):
    backup(hostile)
    with hostile.database.connect() as other:
        other.execute("SELECT 1")
        assert "may not end" not in hostile.run("restore", "--dry-run").ok().err


# What takes longer than the role's timeouts: a load, an analysis, and the wait of the other sessions for both.
SLOW = """
CREATE FUNCTION slow(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM pg_sleep(0.3); RETURN i; END';
CREATE INDEX ON t (slow(id));
"""
TIMEOUTS = ("statement_timeout", "idle_session_timeout", "idle_in_transaction_session_timeout", "transaction_timeout")


def limit(project, role):
    """Set every timeout that the server knows to half a second for the role."""
    admin = project.database.server.cluster.admin
    for row in admin("SELECT name FROM pg_settings WHERE name = ANY (%s)", parameters=[list(TIMEOUTS)]):
        admin(f"ALTER ROLE {role} SET {row['name']} = '500ms'")


@pytest.mark.parametrize("form", ["custom", "plain"])
def test_timeouts_of_the_role_do_not_end_it(owned, form):
    owned.database.admin(f"SET ROLE {owned.role}; {SLOW}")
    backup(owned, "--format", form)
    owned.database.admin("DELETE FROM t")
    limit(owned, owned.role)
    owned.run("restore", "--force").ok()
    assert rows(owned) == 3
    owned.run("restore", "--undo", "--force").ok()
    owned.run("restore", "--clean", "--force").ok()
    assert (rows(owned), databases(owned)) == (0, [])


@pytest.mark.servers("container-17", "url-psycopg-17")
def test_a_limit_of_transactions_does_not_end_a_plain_dump_that_does_not_know_it(project):
    user = project.database.server.cluster.user
    project.database.admin(f"CREATE TABLE t (id int); INSERT INTO t SELECT generate_series(1, 3); {SLOW}")
    path = project.root / backup(project, "--format", "plain")
    data = path.read_bytes().replace(b"SET transaction_timeout = 0;", b"")
    path.write_bytes(data)
    manifest = path.with_name(path.name + ".json")
    document = json.loads(manifest.read_text(encoding="utf-8"))
    document |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    manifest.write_text(json.dumps(document), encoding="utf-8")
    limit(project, user)
    try:
        project.run("restore", "--force", "--no-safety-backup").ok()
    finally:
        project.database.server.cluster.admin(f"ALTER ROLE {user} RESET ALL")
        drop_beside(project)


def test_while_the_question_waits_no_timeout_ends_the_session(owned, run):
    """As a person who reads for longer than the server lets a session idle."""
    backup(owned)
    limit(owned, owned.role)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "nself_db", "restore", "--no-safety-backup"]
    process = subprocess.Popen(command, cwd=owned.root, env=run.environment({}), stdin=theirs, stderr=theirs)
    os.close(theirs)
    told = b""
    while b"type yes" not in told.lower():
        told += os.read(ours, 4096)
    time.sleep(1.2)
    os.write(ours, b"yes\n")
    assert process.wait(60) == 0, told + os.read(ours, 4096)
    os.close(ours)


# A server that does not come back in time.


class Gone:
    """A database of a server that goes away once it is asked to do something."""

    settings: dict = {}
    is_there = True

    def execute(self, *_):
        self.is_there = False
        raise Unreachable("it is gone", "start it")

    def rows(self, *_, **__):
        if self.is_there:
            return [{"oid": "1"}]
        raise Unreachable("it is gone", "start it")

    def close(self):
        pass


def test_what_opens_a_database_is_named_where_its_server_stays_away(monkeypatch):
    monkeypatch.setattr(exchange, "PATIENCE_SECONDS", 0)
    server = Gone()
    with pytest.raises(Unreachable) as caught:
        exchange.swap_databases(server, server, ('o\'clock "x"', "new", "aside"), lambda text: None)
    command = shlex.split(caught.value.hint.partition("let connections in again: ")[2])
    statement = 'ALTER DATABASE "o\'clock ""x""" WITH ALLOW_CONNECTIONS true'
    assert command == ["psql", "-d", "postgres", "-c", statement]
    assert "may let nobody in" in caught.value.message


# Subscriptions, whose publisher need not be there for them.


def subscribe(project, database=None, **options):
    """Make a subscription that copies nothing; `at_work`, whether it is switched on."""
    admin, name = project.database.server.cluster.admin, database or project.database.name
    admin("CREATE SUBSCRIPTION sub CONNECTION 'host=/nowhere dbname=x' PUBLICATION p WITH (connect = false)", name)
    if options.get("at_work"):
        admin("ALTER SUBSCRIPTION sub ENABLE", name)


def unsubscribe(project, database=None):
    admin, name = project.database.server.cluster.admin, database or project.database.name
    for change in ("DISABLE", "SET (slot_name = NONE)"):
        admin(f"ALTER SUBSCRIPTION sub {change}", name)
    admin("DROP SUBSCRIPTION sub", name)


@pytest.mark.parametrize("words", [[], ["--undo"]], ids=" ".join)
def test_a_subscription_at_work_is_refused(hostile, words):
    backup(hostile)
    if words:
        hostile.run("restore", "--force", "--no-safety-backup").ok()
    before = databases(hostile)
    subscribe(hostile, at_work=True)
    try:
        outcome = hostile.run("restore", *words, "--force")
    finally:
        unsubscribe(hostile)
    assert (outcome.code, "subscription (sub)" in outcome.err, "DROP SUBSCRIPTION" in outcome.err) == (4, True, True)
    assert databases(hostile) == before
    hostile.run("restore", *words, "--force").ok()


def test_a_subscription_that_is_switched_off_is_told_of_and_clean_goes_on_past_it(hostile):
    backup(hostile)
    subscribe(hostile)
    outcome = hostile.run("restore", "--force", "--no-safety-backup").ok()
    assert "a subscription (sub) stays with what steps aside" in outcome.err
    (kept,) = databases(hostile)
    try:
        hostile.run("restore", "--force", "--no-safety-backup").ok()
        (other,) = {*databases(hostile)} - {kept}
        outcome = hostile.run("restore", "--clean", "--force", "--json")
        document = outcome.json()
        assert (outcome.code, document["data"]) == (1, {"dropped": [other]}), repr(outcome)
        assert kept in document["error"]["message"] and "DROP SUBSCRIPTION" in document["error"]["hint"]
        assert "slot_name" not in document["error"]["hint"]
        assert databases(hostile) == [kept]
    finally:
        unsubscribe(hostile, kept)
    hostile.run("restore", "--clean", "--force").ok()
    assert databases(hostile) == []


def test_clean_goes_on_past_a_database_that_is_held(owned):
    backup(owned)
    for _ in range(3):
        owned.run("restore", "--force", "--no-safety-backup").ok()
    first, held, last = databases(owned)
    with owned.database.server.cluster.connect(held) as other:
        other.execute("SELECT 1")
        outcome = owned.run("restore", "--clean", "--force")
    assert outcome.code == 1 and held in outcome.err and "hint: " in outcome.err, repr(outcome)
    assert "may not end sessions" in outcome.err and "dropped 2 databases" in outcome.err
    assert databases(owned) == [held] and {first, last} == {first, last} - {held}
    owned.run("restore", "--clean", "--force").ok()


def test_an_ordinary_owner_does_not_end_what_vacuums_by_itself(owned):
    # Slowed down, the worker is still in the table when the swap comes.
    cluster = owned.database.server.cluster
    backup(owned)
    with cluster.connect() as admin:
        for setting in ("autovacuum_naptime = '1s'", "autovacuum_vacuum_cost_delay = '100ms'"):
            admin.execute(f"ALTER SYSTEM SET {setting}")
        admin.execute("SELECT pg_reload_conf()")
        try:
            owned.database.admin(
                "CREATE TABLE big WITH (autovacuum_vacuum_threshold = 1, autovacuum_vacuum_cost_delay = 100, "
                "autovacuum_vacuum_cost_limit = 1) AS SELECT i FROM generate_series(1, 200000) i"
            )
            owned.database.admin("DELETE FROM big WHERE i % 2 = 0")
            seen = (
                "SELECT 1 FROM pg_stat_activity WHERE backend_type = 'autovacuum worker' AND datname = %s "
                "AND query LIKE '%%big%%'"
            )
            wait_until(lambda: admin.execute(seen, [owned.database.name]).fetchall(), 30)
            owned.run("restore", "--force", "--no-safety-backup").ok()
        finally:
            admin.execute("ALTER SYSTEM RESET ALL")
            admin.execute("SELECT pg_reload_conf()")
    assert len(databases(owned)) == 1


def test_every_kind_of_setting_of_the_database_is_kept(hostile):
    cluster, name = hostile.database.server.cluster, f'"{hostile.database.name}"'
    for setting in (
        f"role = {cluster.user}",
        "search_path = public, \"$user\", 'Odd \"Schema\", x', ''",
        "DateStyle = 'German, DMY'",
        "temp_tablespaces = ''",
        "session_preload_libraries = 'auto_explain'",
        "app.note = 'it''s \\ 100%, \"so\"'",
        "TimeZone = 'Europe/Paris'",
    ):
        cluster.admin(f"ALTER DATABASE {name} SET {setting}")
    look = (
        "SELECT unnest(s.setconfig) AS one FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase "
        "WHERE d.datname = current_database() ORDER BY 1"
    )
    before = values(hostile, look)
    backup(hostile)
    hostile.run("restore", "--force", "--no-safety-backup").ok()
    assert (values(hostile, look), len(before)) == (before, 7)


# Locales.


@pytest.mark.servers("url-psql-17")
def test_rules_of_an_icu_locale_are_kept(server, make_database, make_project):
    database = make_database(server)
    name = f'"{database.name}"'
    rules = "&V << w <<< W & z < 'it''s'"
    server.drop_database(database.name)
    server.admin(
        f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C' LOCALE_PROVIDER icu "
        f"ICU_LOCALE 'de' ICU_RULES $r${rules}$r$"
    )
    look = "SELECT datlocprovider, daticurules FROM pg_database WHERE datname = current_database()"
    project = make_project(database)
    project.database.admin("CREATE TABLE t AS SELECT 1 AS id")
    backup(project)
    project.run("restore", "--force", "--no-safety-backup").ok()
    assert values(project, look) == [("i", rules)]
    drop_beside(project)
