"""`migrate status`: the state of every version, in words and as JSON, of one environment and of two."""

from __future__ import annotations

import re

import pytest
from bed.bookkeeping import make_cli_state, make_schema_migrations, schemas
from bed.servers import Server

HALF = "-- nself:no-transaction\nCREATE TABLE half ();\nSELECT 1/0;\n"


def migrations(project, *arguments):
    """`data.migrations` of `migrate status`."""
    return project.run("migrate", "status", "--json", *arguments).ok().json()["data"]["migrations"]


def states(project, *arguments):
    """Version to state."""
    return {row["version"]: row["state"] for row in migrations(project, *arguments)}


@pytest.fixture
def every_state(project):
    """A project with a version in each state."""
    for number in (1, 2, 3, 5):
        project.migration(f"000{number}_t{number}", f"CREATE TABLE t{number} ();")
    project.run("migrate", "up").ok()
    project.migration("0002_t2", "CREATE TABLE t2 (id int);")
    (project.root / "migrations/0003_t3.sql").unlink()
    project.migration("0006_half", HALF)
    project.run("migrate", "up")
    project.migration("0004_late", "CREATE TABLE t4 ();")
    project.migration("0007_next", "CREATE TABLE t7 ();")
    return project


# One environment.


@pytest.mark.versions
def test_on_a_fresh_database_everything_is_pending_and_nothing_is_created(project):
    project.migration("2_b", "CREATE TABLE b ();")
    project.migration("0001_a", "CREATE TABLE a ();")
    document = project.run("migrate", "status", "--json").ok().json()
    assert document["data"]["migrations"] == [
        {"version": "1", "name": "a", "file": "migrations/0001_a.sql", "state": "pending", "applied_at": None,
         "duration_ms": None},
        {"version": "2", "name": "b", "file": "migrations/2_b.sql", "state": "pending", "applied_at": None,
         "duration_ms": None},
    ]  # fmt: skip
    assert document["warnings"] == []
    assert schemas(project) == []


def test_every_state_is_told(every_state):
    document = every_state.run("migrate", "status", "--json").ok().json()
    rows = document["data"]["migrations"]
    assert [(row["version"], row["state"]) for row in rows] == [
        ("1", "applied"), ("2", "changed"), ("3", "missing"), ("4", "out_of_order"), ("5", "applied"), ("6", "dirty"),
        ("7", "pending"),
    ]  # fmt: skip
    assert document["data"]["counts"] == {
        "applied": 2, "pending": 1, "out_of_order": 1, "missing": 1, "changed": 1, "dirty": 1,
    }  # fmt: skip


def test_a_version_whose_file_is_gone_keeps_its_name(every_state):
    row = migrations(every_state)[2]
    assert (row["name"], row["file"]) == ("t3", "migrations/0003_t3.sql")


def test_people_see_a_table_and_the_counts(every_state):
    outcome = every_state.run("migrate", "status").ok()
    lines = outcome.out.splitlines()
    assert lines[0].split() == ["version", "name", "state", "applied", "at"]
    assert lines[4].split() == ["4", "late", "out", "of", "order"]
    assert lines[-1] == "2 applied, 1 pending, 1 out of order, 1 missing, 1 changed, 1 dirty"


def test_when_and_how_long_is_told_of_what_is_applied(every_state):
    row = migrations(every_state)[0]
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", row["applied_at"])
    assert row["duration_ms"] > 0


def test_exit_code_is_1_when_anything_is_not_applied(plain_project):
    plain_project.migration("1_a", "CREATE TABLE a ();")
    outcome = plain_project.run("migrate", "status", "--exit-code", "--json")
    assert outcome.code == 1
    assert outcome.json()["ok"] is False
    assert outcome.json()["error"]["exit_code"] == 1
    assert outcome.json()["data"]["counts"]["pending"] == 1
    plain_project.run("migrate", "up").ok()
    plain_project.run("migrate", "status", "--exit-code").ok()


@pytest.mark.parametrize("change", ["changed", "missing"])
def test_exit_code_is_1_for_drift_too(plain_project, change):
    plain_project.migration("1_a", "CREATE TABLE a ();")
    plain_project.run("migrate", "up").ok()
    if change == "changed":
        plain_project.migration("1_a", "CREATE TABLE a (id int);")
    else:
        (plain_project.root / "migrations/1_a.sql").unlink()
    assert states(plain_project) == {"1": change}
    assert plain_project.run("migrate", "status", "--exit-code").code == 1


def test_without_exit_code_pending_is_no_failure(plain_project):
    plain_project.migration("1_a", "CREATE TABLE a ();")
    assert plain_project.run("migrate", "status").code == 0


def test_the_version_is_its_number_without_leading_zeros(plain_project):
    plain_project.migration("00000000000000000013_a", "CREATE TABLE a ();")
    plain_project.migration("0_zero", "CREATE TABLE z ();")
    plain_project.migration("9223372036854775807_last", "CREATE TABLE l ();")
    plain_project.run("migrate", "up").ok()
    assert [row["version"] for row in migrations(plain_project)] == ["0", "13", "9223372036854775807"]


@pytest.mark.parametrize("spelling", ["13", "00013", "00000000000000000000013"])
def test_any_spelling_of_a_version_is_accepted(plain_project, spelling):
    plain_project.migration("013_a", "CREATE TABLE a ();")
    plain_project.migration("14_b", "CREATE TABLE b ();")
    plain_project.run("migrate", "up", "--to", spelling).ok()
    assert states(plain_project) == {"13": "applied", "14": "pending"}
    plain_project.run("migrate", "repair", "--migration", spelling, "--pending").ok()
    assert states(plain_project)["13"] == "pending"


def test_versions_are_ordered_by_number_through_all_schemes_and_the_mixture_is_warned_of(plain_project):
    for name in ("1700000000000_ms", "20240501120000_stamp", "00013_number", "7_number"):
        plain_project.migration(name, "SELECT 1;")
    outcome = plain_project.run("migrate", "status", "--json").ok()
    document = outcome.json()
    shown = [row["version"] for row in document["data"]["migrations"]]
    assert shown == ["7", "13", "1700000000000", "20240501120000"]
    (warning,) = document["warnings"]
    assert "versions of 3 schemes are mixed" in warning


def test_one_scheme_is_not_warned_of(plain_project):
    for name in ("7_a", "00013_b"):
        plain_project.migration(name, "SELECT 1;")
    assert plain_project.run("migrate", "status", "--json").ok().json()["warnings"] == []


def test_files_that_cannot_be_told_apart_are_an_error_that_names_both(plain_project):
    plain_project.migration("7_a", "SELECT 1;")
    plain_project.migration("007_b", "SELECT 1;")
    outcome = plain_project.run("migrate", "status")
    assert outcome.code == 1
    assert "migrations/007_b.sql and migrations/7_a.sql" in outcome.err


def test_without_migrations_it_says_so(plain_project):
    assert plain_project.run("migrate", "status").ok().out == "no migrations\n"


def test_a_file_that_another_tool_could_not_read_does_not_stop_status(plain_project):
    plain_project.migration("1_a", "SELECT 'open;\n")
    plain_project.write("migrations/2_b.sql", b"\xff\xfe\x00S")
    assert states(plain_project) == {"1": "pending", "2": "pending"}


# What Hasura's own tools have recorded.


def test_rows_of_hasuras_cli_count_as_applied(project):
    make_schema_migrations(project, (1, False), (2, True), (3, False))
    for number in (1, 2, 4):
        project.migration(f"{number}_t", "SELECT 1;")
    rows = migrations(project)
    assert [(row["version"], row["state"]) for row in rows] == [
        ("1", "applied"), ("2", "dirty"), ("3", "missing"), ("4", "pending"),
    ]  # fmt: skip
    assert (rows[0]["applied_at"], rows[0]["duration_ms"]) == (None, None)
    assert (rows[2]["name"], rows[2]["file"]) == ("", None)
    assert schemas(project) == ["hdb_catalog"]


def test_versions_in_the_state_of_hasuras_cli_that_the_table_lacks_are_told(project):
    make_cli_state(project, {"1": False, "1700000000000": False, "4": True})
    project.migration("1_t", "SELECT 1;")
    (whole, half) = project.run("migrate", "status", "--json").ok().json()["warnings"]
    assert "2 version(s) that schema_migrations lacks: 1, 1700000000000" in whole
    assert "migrate baseline --from-hasura" in whole
    assert half == "Hasura's CLI has left half done (dirty): 4"
    assert states(project) == {"1": "pending"}
    assert schemas(project) == ["hdb_catalog"]


def test_versions_that_both_know_are_not_told(plain_project):
    make_cli_state(plain_project, {"1": False})
    make_schema_migrations(plain_project, (1, False))
    plain_project.migration("1_t", "SELECT 1;")
    assert plain_project.run("migrate", "status", "--json").ok().json()["warnings"] == []


@pytest.mark.parametrize(
    "state", ["{}", '{"migrations": {}}', '{"migrations": {"other": {"5": false}}}', '{"settings": {}}']
)
def test_a_state_without_versions_of_our_source_says_nothing(plain_project, state):
    make_cli_state(plain_project, {})
    plain_project.database.admin("UPDATE hdb_catalog.hdb_version SET cli_state = %s", (state,))
    plain_project.migration("1_t", "SELECT 1;")
    assert plain_project.run("migrate", "status", "--json").ok().json()["warnings"] == []


def test_a_hasura_without_such_a_state_says_nothing(plain_project):
    make_cli_state(plain_project, {})
    plain_project.database.admin("ALTER TABLE hdb_catalog.hdb_version DROP COLUMN cli_state")
    assert plain_project.run("migrate", "status", "--json").ok().json()["warnings"][1:] == []


# Two environments.


@pytest.fixture
def two(project, make_database):
    """dev with versions 1 and 2 applied, staging (another database) with 1."""
    staging = make_database(project.database.server)
    project.write_env(staging.settings, ".env.staging")
    project.migration("1_a", "CREATE TABLE a ();")
    project.run("migrate", "up", "--env", "staging").ok()
    project.run("migrate", "up").ok()
    project.migration("2_b", "CREATE TABLE b ();")
    project.run("migrate", "up").ok()
    return project


def test_a_named_environment_is_compared_with_the_active_one(two):
    data = two.run("migrate", "status", "--env", "staging", "--json").ok().json()["data"]
    assert [(row["version"], row["state"]) for row in data["migrations"]] == [("1", "applied"), ("2", "pending")]
    assert data["compared_with"] == {"env": "dev", "reachable": True, "differs": ["2"]}
    assert data["counts"]["pending"] == 1


def test_people_see_a_second_column(two):
    outcome = two.run("migrate", "status", "--env", "staging").ok()
    lines = [line.split() for line in outcome.out.splitlines()]
    assert lines[0] == ["version", "name", "staging", "dev", "applied", "at"]
    assert lines[2] == ["2", "b", "pending", "applied"]
    assert outcome.out.endswith("1 applied, 1 pending; 1 version differs from dev\n")


def test_a_version_that_only_the_other_environment_knows_differs(two):
    (two.root / "migrations/2_b.sql").unlink()
    data = two.run("migrate", "status", "--env", "staging", "--json").ok().json()["data"]
    assert [row["version"] for row in data["migrations"]] == ["1"]
    assert data["compared_with"]["differs"] == ["2"]


def test_two_environments_in_one_state_do_not_differ(two):
    two.run("migrate", "up", "--env", "staging").ok()
    outcome = two.run("migrate", "status", "--env", "staging", "--json").ok()
    assert outcome.json()["data"]["compared_with"]["differs"] == []


def test_exit_code_speaks_of_the_named_environment(two):
    assert two.run("migrate", "status", "--env", "staging", "--exit-code").code == 1
    two.run("migrate", "up", "--env", "staging").ok()
    two.database.admin("DELETE FROM hdb_catalog.schema_migrations WHERE version = 2")
    two.run("migrate", "status", "--env", "staging", "--exit-code").ok()


def test_the_active_environment_by_its_own_name_is_compared_with_nothing(plain_project):
    plain_project.migration("1_a", "CREATE TABLE a ();")
    for name in ("dev", "development"):
        document = plain_project.run("migrate", "status", "--env", name, "--json").ok().json()
        assert "compared_with" not in document["data"]


def test_an_active_environment_that_is_out_of_reach_is_a_warning(two):
    two.write_env({"NSELF_DB_URL": "postgresql://u:sesame-of-dev@127.0.0.1:1/d"})
    outcome = two.run("migrate", "status", "--env", "staging", "--json").ok()
    document = outcome.json()
    assert document["data"]["compared_with"] == {"env": "dev", "reachable": False, "differs": []}
    assert [row["state"] for row in document["data"]["migrations"]] == ["applied", "pending"]
    (warning,) = document["warnings"]
    assert warning.startswith("environment dev could not be compared: ")
    assert "sesame-of-dev" not in outcome.out + outcome.err
    assert "?" in two.run("migrate", "status", "--env", "staging").ok().out


def test_an_active_environment_that_refuses_the_login_is_a_warning(plain_project, make_database):
    server = plain_project.database.server
    staging = make_database(server)
    plain_project.write_env(staging.settings, ".env.staging")
    url = server.cluster.url(plain_project.database.name, password="wrong")
    plain_project.write_env({"NSELF_DB_URL": url})
    document = plain_project.run("migrate", "status", "--env", "staging", "--json").ok().json()
    assert document["data"]["compared_with"]["reachable"] is False


def test_a_named_environment_that_is_out_of_reach_is_a_failure(plain_project):
    plain_project.write_env({"NSELF_DB_URL": "postgresql://u:p@127.0.0.1:1/d"}, ".env.staging")
    outcome = plain_project.run("migrate", "status", "--env", "staging", "--json")
    assert outcome.code == 2
    assert outcome.json()["error"]["code"] == "unreachable"


# Who may read.

both_drivers = pytest.mark.parametrize("plain_server", ["psql", "psycopg"], indirect=True)
READER = "nself_reader"


@pytest.fixture
def reader(plain_project):
    """The arguments by which a login role that may connect and nothing else reaches the project's database."""
    database = plain_project.database
    database.admin(f"CREATE ROLE {READER} LOGIN PASSWORD 'may only read'")
    yield "--url", database.server.cluster.url(database.name, user=READER, password="may only read")
    database.admin(f"DROP OWNED BY {READER}")
    database.admin(f"DROP ROLE {READER}")


@both_drivers
def test_who_may_only_connect_sees_a_fresh_database(plain_project, reader):
    plain_project.migration("1_a", "CREATE TABLE a ();")
    assert states(plain_project, *reader) == {"1": "pending"}


@both_drivers
def test_who_may_not_read_the_bookkeeping_is_told_so(plain_project, reader):
    plain_project.migration("1_a", "CREATE TABLE a ();")
    plain_project.run("migrate", "up").ok()
    outcome = plain_project.run("migrate", "status", *reader)
    assert outcome.code == 1
    assert f"user {READER} may not read hdb_catalog.schema_migrations and nself_db.migrations" in outcome.err
    assert f'GRANT USAGE ON SCHEMA hdb_catalog, nself_db TO "{READER}"' in outcome.err


@both_drivers
def test_what_the_hint_grants_is_enough(plain_project, reader):
    plain_project.migration("1_a", "CREATE TABLE a ();")
    plain_project.run("migrate", "up").ok()
    make_cli_state(plain_project, {"2": False})
    hint = plain_project.run("migrate", "status", "--json", *reader).json()["error"]["hint"]
    plain_project.database.admin(hint[hint.index("GRANT") :])
    assert states(plain_project, *reader) == {"1": "applied"}


@pytest.mark.servers("url-psql-15", "url-psycopg-18")
def test_a_role_that_may_read_all_data_sees_the_state(project):
    database = project.database
    database.admin(f"CREATE ROLE {READER} LOGIN PASSWORD 'may only read' IN ROLE pg_read_all_data")
    try:
        project.migration("1_a", "CREATE TABLE a ();")
        project.run("migrate", "up").ok()
        url = database.server.cluster.url(database.name, user=READER, password="may only read")
        assert states(project, "--url", url) == {"1": "applied"}
    finally:
        database.admin(f"DROP ROLE {READER}")


@both_drivers
def test_who_may_not_create_schemas_is_told_so_by_up(plain_project, reader):
    plain_project.migration("1_a", "CREATE TABLE a ();")
    outcome = plain_project.run("migrate", "up", *reader)
    assert outcome.code == 1
    assert "permission denied for database" in outcome.err
    assert schemas(plain_project) == []


# A server that takes no changes.


def test_a_standby_shows_its_state_and_takes_no_migration(new_plain, make_database, make_project):
    cluster = new_plain()
    project = make_project(make_database(Server("url-psql", cluster)))
    project.migration("1_a", "CREATE TABLE a ();")
    project.run("migrate", "up").ok()
    cluster.stop()
    (cluster._data / "standby.signal").touch()
    cluster.start()
    project.migration("2_b", "CREATE TABLE b ();")
    assert states(project) == {"1": "applied", "2": "pending"}
    outcome = project.run("migrate", "up")
    assert outcome.code == 2
    assert "is a standby, which takes no changes" in outcome.err
    (cluster._data / "standby.signal").unlink()
    cluster.stop()
    cluster.start()
