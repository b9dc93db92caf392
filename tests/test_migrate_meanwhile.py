"""What another run, or another session, does while a run waits or before it begins is seen, and never passed over."""

from __future__ import annotations

import signal
import time

import pytest
from bed.bookkeeping import applied, tables, values

from nself_core.bookkeeping.proof import LOCK_KEY

HOLD = f"SELECT pg_advisory_lock({LOCK_KEY})"
RECORD = "INSERT INTO hdb_catalog.schema_migrations VALUES (%s, false)"


def started_waiting(project, *words):
    """A run that has read the ledger and waits for the lock, which the test holds."""
    process = project.start(*words, "--lock-wait", "60")
    seen = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE %s AND query LIKE %s"
    deadline = time.monotonic() + 30
    while values(project, seen, ("nself-db migrate%", "%pg_locks%")) == [(0,)] and time.monotonic() < deadline:
        time.sleep(0.05)
    return process


@pytest.fixture
def two(plain_project):
    """A project with 1 applied and 2 pending."""
    plain_project.migration("1_a", "CREATE TABLE a (id int);", "DROP TABLE a;")
    plain_project.run("migrate", "up").ok()
    plain_project.migration("2_b", "CREATE TABLE b (id int);", "DROP TABLE b;")
    return plain_project


def meanwhile(project, words, *statements):
    """(exit code, stderr) of a run during whose wait for the lock the statements are run."""
    cluster = project.database.server.cluster
    with cluster.connect(project.database.name) as other:
        other.execute(HOLD)
        process = started_waiting(project, *words)
        for statement, parameters in statements:
            other.execute(statement, parameters)
    _, err = process.communicate(timeout=60)
    return process.returncode, err


def test_a_newer_version_applied_meanwhile_makes_it_out_of_order(two):
    code, err = meanwhile(two, ["migrate", "up"], (RECORD, (3,)))
    assert (code, "older than the newest applied" in err) == (1, True)
    assert tables(two) == ["a"]


def test_an_earlier_version_rolled_back_meanwhile_stops_it(two):
    gone = ("DELETE FROM hdb_catalog.schema_migrations WHERE version = 1", None)
    code, err = meanwhile(two, ["migrate", "up"], gone)
    assert (code, "another run has changed meanwhile" in err) == (1, True)
    assert "b" not in tables(two)


def test_a_text_that_changed_meanwhile_stops_a_strict_run(two):
    changed = ("UPDATE nself_db.migrations SET checksum = 'other' WHERE version = 1", None)
    assert meanwhile(two, ["migrate", "up", "--strict"], changed)[0] == 1
    assert tables(two) == ["a"]


def test_a_newer_version_applied_meanwhile_stops_a_roll_back(two):
    code, err = meanwhile(two, ["migrate", "down"], (RECORD, (3,)))
    assert (code, tables(two)) == (1, ["a"]), err


def test_what_another_run_did_of_the_same_is_left_out(two):
    code, err = meanwhile(two, ["migrate", "up"], (RECORD, (2,)))
    assert (code, applied(two)) == (0, [1, 2]), err


# Indexes and partitions that an earlier try left.


def test_an_invalid_index_of_an_earlier_try_is_rebuilt_also_when_nothing_is_recorded(plain_project):
    plain_project.database.admin("CREATE TABLE u (i int); INSERT INTO u VALUES (1), (1)")
    plain_project.migration("3_ux", "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS ux ON u (i);")
    assert plain_project.run("migrate", "up").code == 1
    plain_project.database.admin("DELETE FROM u")
    plain_project.run("migrate", "repair", "--migration", "3", "--pending").ok()
    plain_project.run("migrate", "up").ok()
    assert values(plain_project, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'ux'::regclass") == [(True,)]


def test_a_partition_left_half_detached_is_detached_by_the_next_run(plain_project):
    plain_project.database.admin(
        "CREATE TABLE m (i int) PARTITION BY LIST (i); CREATE TABLE m1 PARTITION OF m FOR VALUES IN (1)"
    )
    plain_project.migration(
        "2_d", "-- nself:lock-timeout=1s\n-- nself:no-transaction\nALTER TABLE m DETACH PARTITION m1 CONCURRENTLY;"
    )
    cluster = plain_project.database.server.cluster
    with cluster.connect(plain_project.database.name, autocommit=False) as reader:
        reader.execute("SELECT * FROM m")
        assert plain_project.run("migrate", "up").code == 1
    assert values(plain_project, "SELECT inhdetachpending FROM pg_inherits") == [(True,)]
    plain_project.run("migrate", "up").ok()
    assert values(plain_project, "SELECT count(*) FROM pg_inherits") == [(0,)]


def test_indexes_that_a_failed_reindex_left_are_told_and_dropped(plain_project):
    plain_project.database.admin("CREATE TABLE t (i int); CREATE INDEX ix ON t (i); INSERT INTO t VALUES (1)")
    plain_project.migration("2_r", "-- nself:lock-timeout=1s\nREINDEX INDEX CONCURRENTLY ix;")
    cluster = plain_project.database.server.cluster
    with cluster.connect(plain_project.database.name, autocommit=False) as writer:
        writer.execute("UPDATE t SET i = 2")
        outcome = plain_project.run("migrate", "up")
    assert (outcome.code, "ix_ccnew" in outcome.err) == (1, True)
    plain_project.run("migrate", "up").ok()
    assert values(plain_project, "SELECT count(*) FROM pg_index WHERE NOT indisvalid") == [(0,)]


# Rights and connections.


def role(project, options=""):
    """A login role of the test's own, and the URL that logs in as it."""
    cluster = project.database.server.cluster
    name = f"role_{project.database.name}"
    cluster.admin(f"CREATE ROLE {name} LOGIN PASSWORD 'pw-of-role' {options}")
    return name, cluster.url(project.database.name, user=name, password="pw-of-role")


@pytest.fixture
def roles(plain_project):
    yield plain_project
    plain_project.database.admin(
        f"DROP OWNED BY role_{plain_project.database.name} CASCADE; DROP ROLE role_{plain_project.database.name}"
    )


def test_schemas_that_are_prepared_need_no_right_to_create_one(roles):
    name, url = role(roles)
    roles.database.admin(
        f"CREATE SCHEMA hdb_catalog AUTHORIZATION {name}; CREATE SCHEMA nself_db AUTHORIZATION {name}; "
        f"CREATE SCHEMA app AUTHORIZATION {name}"
    )
    roles.migration("1_a", "CREATE TABLE app.a (id int);")
    roles.run("migrate", "up", "--url", url).ok()
    assert applied(roles) == [1]


def test_a_version_table_that_may_not_be_written_is_refused_before_anything_runs(roles):
    roles.migration("1_a", "CREATE TABLE a (id int);")
    roles.run("migrate", "up").ok()
    name, url = role(roles)
    roles.database.admin(
        f"GRANT USAGE ON SCHEMA hdb_catalog, nself_db TO {name}; "
        f"GRANT SELECT ON ALL TABLES IN SCHEMA hdb_catalog, nself_db TO {name}"
    )
    roles.migration("2_b", "SELECT pg_sleep(0);")
    outcome = roles.run("migrate", "up", "--url", url)
    assert (outcome.code, "may not write" in outcome.err, "GRANT SELECT, INSERT" in outcome.err) == (1, True, True)


def test_a_role_with_one_connection_can_migrate(roles):
    name, url = role(roles, "CONNECTION LIMIT 1")
    roles.database.admin(
        f'GRANT ALL ON DATABASE "{roles.database.name}" TO {name}; GRANT ALL ON SCHEMA public TO {name}'
    )
    roles.migration("1_a", "CREATE TABLE a (id int);")
    for driver in ("psql", "psycopg"):
        roles.run("migrate", "up", "--url", url, "--driver", driver).ok()


# Where to.


@pytest.mark.servers("embedded-18")
def test_an_embedded_server_is_no_business_of_a_service_file(project, plain_server, tmp_path):
    cluster = plain_server.cluster
    service = tmp_path / "services.conf"
    service.write_text(
        f"[other]\nhost={cluster.host}\nport={cluster.port}\nuser={cluster.user}\ndbname=postgres\n", encoding="utf-8"
    )
    project.migration("1_a", "CREATE TABLE only_embedded (id int);")
    env = {"PGSERVICE": "other", "PGSERVICEFILE": str(service), "PGHOSTADDR": "127.0.0.9", "PGPASSWORD": "x"}
    project.run("migrate", "up", env=env).ok()
    assert tables(project) == ["only_embedded"]


@pytest.mark.parametrize("driver", ["psql", "psycopg"])
def test_a_url_is_not_led_elsewhere_by_the_environment(driver, plain_project):
    plain_project.migration("1_a", "CREATE TABLE a (id int);")
    env = {"PGHOSTADDR": "127.0.0.9", "PGSERVICE": "no-such-service"}
    plain_project.run("migrate", "up", "--driver", driver, env=env).ok()
    assert tables(plain_project) == ["a"]


def test_an_environment_whose_files_name_another_database_than_the_url_is_refused(plain_project):
    plain_project.write(".env.staging", "POSTGRES_DB=shop_staging\n")
    env = {"NSELF_DB_URL": plain_project.database.settings["NSELF_DB_URL"]}
    assert plain_project.run("migrate", "status", "--env", "staging", env=env).code == 4


# How it ends.


def test_a_second_interrupt_does_not_lose_the_account(plain_project):
    for number in range(1, 60):
        plain_project.migration(f"{number}_t", f"CREATE TABLE t{number} (id int); SELECT pg_sleep(0.05);")
    process = plain_project.start("migrate", "up", "--json")
    deadline = time.monotonic() + 30
    while len(tables(plain_project)) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    time.sleep(0.015)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    import json

    told = [int(item["version"]) for item in json.loads(out)["data"]["applied"]]
    assert told == applied(plain_project)


def test_a_long_line_is_read_in_linear_time(plain_project):
    begun = time.monotonic()
    plain_project.run("shell", "--command", "SELECT repeat('x', 20000000)").ok()
    assert time.monotonic() - begun < 15
