"""`restore` where names, roles, settings and servers are not as one would wish."""

from __future__ import annotations

import pytest
from bed.bookkeeping import values
from bed.local_processes import wait_until
from test_restore import backup, databases, drop_beside

from nself_core.backups import swap

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
