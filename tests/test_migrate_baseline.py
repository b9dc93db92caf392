"""`migrate baseline`: a database that exists is taken over; versions are recorded and nothing is run."""

from __future__ import annotations

import hashlib

import pytest
from bed.bookkeeping import (
    applied,
    make_cli_state,
    make_schema_migrations,
    record,
    schemas,
    tables,
    values,
    versions,
)


@pytest.fixture
def grown(project):
    """A project with three migrations on a database that has what the first two make, and no bookkeeping."""
    return with_grown(project)


@pytest.fixture
def plain_grown(plain_project):
    """The same on the plain server."""
    return with_grown(plain_project)


def with_grown(project):
    project.migration("1_a", "CREATE TABLE a (id int);\nINSERT INTO a VALUES (1);\n")
    project.migration("0002_b", "CREATE SCHEMA app;\nCREATE TABLE app.b (id int);\n")
    project.migration("20240501120000_c", "CREATE TABLE c (id int);\n")
    project.database.admin("CREATE TABLE a (id int); CREATE SCHEMA app; CREATE TABLE app.b (id int)")
    return project


# Up to a version.


@pytest.mark.versions
def test_everything_up_to_the_version_is_recorded_and_nothing_run(grown):
    outcome = grown.run("migrate", "baseline", "02", "--json").ok()
    assert outcome.json()["data"] == {"recorded": ["1", "2"]}
    assert versions(grown) == [(1, False), (2, False)]
    assert values(grown, "SELECT count(*) FROM a") == [(0,)]
    grown.run("migrate", "up").ok()
    assert applied(grown) == [1, 2, 20240501120000]
    assert tables(grown) == ["a", "c"]


def test_name_file_and_checksum_are_recorded_and_no_duration(plain_grown):
    plain_grown.run("migrate", "baseline", "1").ok()
    kept = record(plain_grown, 1)
    assert (kept["name"], kept["file"], kept["mode"]) == ("a", "migrations/1_a.sql", "transaction")
    assert kept["checksum"] == hashlib.sha256((plain_grown.root / "migrations/1_a.sql").read_bytes()).hexdigest()
    assert kept["duration_ms"] is None
    plain_grown.run("migrate", "verify-checksums").ok()


def test_absent_tables_are_refused_and_named(grown):
    outcome = grown.run("migrate", "baseline", "20240501120000", "--json")
    assert outcome.code == 1
    assert outcome.json()["data"] == {"absent": ['"c"']}
    assert "--force" in outcome.json()["error"]["hint"]
    assert schemas(grown) == []


def test_force_records_them_all_the_same(grown):
    grown.run("migrate", "baseline", "20240501120000", "--force").ok()
    assert applied(grown) == [1, 2, 20240501120000]
    assert tables(grown) == ["a"]


def test_what_is_recorded_stays_as_it_is(plain_grown):
    plain_grown.run("migrate", "baseline", "1").ok()
    before = record(plain_grown, 1)
    assert plain_grown.run("migrate", "baseline", "2", "--json").ok().json()["data"] == {"recorded": ["2"]}
    assert record(plain_grown, 1) == before
    outcome = plain_grown.run("migrate", "baseline", "2", "--json").ok()
    assert outcome.json()["data"] == {"recorded": []}
    assert "nothing to record" in outcome.err


def test_dry_run_shows_what_is_recorded_and_creates_nothing(plain_grown):
    outcome = plain_grown.run("migrate", "baseline", "2", "--dry-run").ok()
    assert "record migrations/0002_b.sql as applied" in outcome.out
    assert schemas(plain_grown) == []


@pytest.mark.parametrize("arguments", [(), ("2", "--from-hasura")])
def test_exactly_one_way_must_be_said(plain_grown, arguments):
    make_cli_state(plain_grown, {"1": False})
    outcome = plain_grown.run("migrate", "baseline", *arguments)
    assert outcome.code == 1
    assert "say either up to which VERSION, or --from-hasura" in outcome.err
    assert versions(plain_grown) == []


def test_an_unknown_version_is_refused(plain_grown):
    outcome = plain_grown.run("migrate", "baseline", "3")
    assert outcome.code == 1
    assert "no migration has version 3" in outcome.err


def test_a_half_done_version_stays_so_and_is_warned_of(plain_grown):
    make_schema_migrations(plain_grown, (1, True))
    outcome = plain_grown.run("migrate", "baseline", "2", "--json").ok()
    assert outcome.json()["data"] == {"recorded": ["2"]}
    assert "version 1 is half done and stays so: settle it with migrate repair" in outcome.json()["warnings"]
    assert versions(plain_grown) == [(1, True), (2, False)]


def test_another_run_holds_the_lock(plain_grown):
    with plain_grown.database.connect() as holder:
        holder.execute(f"SELECT pg_advisory_lock({0x6E73656C66})")
        assert plain_grown.run("migrate", "baseline", "2").code == 4
    assert schemas(plain_grown) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("CREATE TABLE x ();\nCOMMIT;\nCREATE TABLE y ();", "migrations/3_old.sql:2:1: "),
        ("\\set ON_ERROR_STOP on\nCREATE TABLE x ();", "migrations/3_old.sql:1:1: "),
        (b"-- caf\xe9\nCREATE TABLE x ();", "migrations/3_old.sql:1:7: "),
    ],
    ids=["COMMIT", "meta-command", "Latin-1"],
)
def test_a_file_that_up_would_refuse_can_be_recorded(plain_grown, content, said):
    plain_grown.write("migrations/3_old.sql", content)
    outcome = plain_grown.run("migrate", "baseline", "3", "--json").ok()
    (warning,) = [text for text in outcome.json()["warnings"] if "recorded all the same" in text]
    assert warning.startswith(said)
    assert applied(plain_grown) == [1, 2, 3]
    plain_grown.run("migrate", "verify-checksums").ok()


# Which tables must be there.


@pytest.mark.parametrize(
    "later",
    [
        "DROP TABLE t;",
        "DROP TABLE IF EXISTS public.x, T CASCADE;",
        "DROP TABLE public.t;",
        "ALTER TABLE t RENAME TO a;",
        'ALTER TABLE IF EXISTS ONLY public.t RENAME TO "a";',
        "ALTER TABLE t SET SCHEMA app; ALTER TABLE app.t RENAME TO b;",
    ],
)
def test_a_table_that_later_files_drop_or_rename_need_not_be_there(plain_grown, later):
    plain_grown.migration("3_t", "CREATE TABLE t (id int);")
    plain_grown.migration("4_later", later)
    plain_grown.run("migrate", "baseline", "4").ok()
    assert applied(plain_grown) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "later",
    [
        "DROP TABLE t_old;",
        "ALTER TABLE t RENAME COLUMN id TO number;",
        "ALTER TABLE t RENAME id TO number;",
        "ALTER TABLE t RENAME CONSTRAINT one TO two;",
        "DROP VIEW t;",
        "COMMENT ON TABLE t IS 'DROP TABLE t';",
    ],
)
def test_a_table_that_they_only_speak_of_must_be_there(plain_grown, later):
    plain_grown.migration("3_t", "CREATE TABLE t (id int);")
    plain_grown.migration("4_later", later)
    outcome = plain_grown.run("migrate", "baseline", "4", "--json")
    assert outcome.json()["data"] == {"absent": ['"t"']}


def test_the_new_name_of_a_renamed_table_must_be_there(plain_grown):
    plain_grown.migration("3_t", "CREATE TABLE t (id int);\nALTER TABLE t RENAME TO renamed;\n")
    assert plain_grown.run("migrate", "baseline", "3", "--json").json()["data"] == {"absent": ['"renamed"']}


def test_the_tables_of_a_dropped_schema_need_not_be_there(plain_grown):
    plain_grown.migration("3_t", "CREATE SCHEMA old;\nCREATE TABLE old.t ();\nDROP SCHEMA old CASCADE;\n")
    plain_grown.run("migrate", "baseline", "3").ok()


def test_temporary_tables_and_self_tests_do_not_count(plain_grown):
    plain_grown.migration(
        "3_temp",
        "CREATE TEMP TABLE t3 ();\nCREATE TEMPORARY TABLE t4 ();\nDO $$ BEGIN NULL; /* CREATE TABLE t5 (); */ END $$;",
    )
    plain_grown.migration("4_test", "BEGIN;\nCREATE TABLE t6 ();\nROLLBACK;\n")
    plain_grown.run("migrate", "baseline", "4").ok()


def test_tables_of_any_name_are_found(project):
    long = "x" * 62 + "Y" + "z" * 10
    create = f'CREATE TABLE "{long}" ();\nCREATE TABLE "Quo""ted\'s %I $$ ü" ();\nCREATE TABLE Folded ();\n'
    project.migration("1_a", create)
    project.database.admin(create)
    project.run("migrate", "baseline", "1").ok()
    assert applied(project) == [1]


# Hasura's own state.


def test_hasuras_versions_are_taken_over_also_those_without_a_file(project):
    project.migration("1_a", "CREATE TABLE a ();")
    project.migration("2_b", "CREATE TABLE b ();")
    project.migration("3_c", "CREATE TABLE c ();")
    project.database.admin("CREATE TABLE a (); CREATE TABLE c ()")
    make_cli_state(project, {"1": False, "3": False, "1700000000000": False})
    outcome = project.run("migrate", "baseline", "--from-hasura", "--json").ok()
    assert outcome.json()["data"] == {"recorded": ["1", "3", "1700000000000"]}
    assert versions(project) == [(1, False), (3, False), (1700000000000, False)]
    assert record(project, 1)["name"] == "a"
    assert record(project, 1700000000000) is None
    assert tables(project) == ["a", "c"]
    rows = project.run("migrate", "status", "--json").ok().json()
    assert [row["state"] for row in rows["data"]["migrations"]] == ["applied", "out_of_order", "applied", "missing"]
    assert rows["warnings"] == []


def test_absent_tables_are_refused_here_too(plain_grown):
    make_cli_state(plain_grown, {"20240501120000": False})
    outcome = plain_grown.run("migrate", "baseline", "--from-hasura")
    assert outcome.code == 1
    assert '"c"' in outcome.err
    plain_grown.run("migrate", "baseline", "--from-hasura", "--force").ok()
    assert applied(plain_grown) == [20240501120000]


def test_what_hasuras_cli_left_half_done_is_not_taken_over(plain_grown):
    make_cli_state(plain_grown, {"1": False, "2": True})
    outcome = plain_grown.run("migrate", "baseline", "--from-hasura", "--json").ok()
    assert outcome.json()["data"] == {"recorded": ["1"]}
    assert "version 2 is not taken over, for Hasura's CLI has left it half done (dirty)" in outcome.json()["warnings"]


def test_a_second_time_there_is_nothing_to_take_over(plain_grown):
    make_cli_state(plain_grown, {"1": False, "5": False})
    plain_grown.run("migrate", "baseline", "--from-hasura").ok()
    assert plain_grown.run("migrate", "baseline", "--from-hasura", "--json").ok().json()["data"] == {"recorded": []}


@pytest.mark.parametrize("there", [True, False], ids=["empty state", "no Hasura"])
def test_where_hasuras_cli_recorded_nothing_it_says_so(plain_grown, there):
    if there:
        make_cli_state(plain_grown, {})
    outcome = plain_grown.run("migrate", "baseline", "--from-hasura")
    assert outcome.code == 1
    assert "Hasura's CLI has recorded no migrations here" in outcome.err


def test_hasuras_own_table_and_state_are_not_altered(plain_grown):
    make_cli_state(plain_grown, {"1": False})
    make_schema_migrations(plain_grown)
    before = values(plain_grown, "SELECT cli_state, console_state FROM hdb_catalog.hdb_version")
    plain_grown.run("migrate", "baseline", "--from-hasura").ok()
    plain_grown.run("migrate", "down")
    plain_grown.run("migrate", "up", "--count", "1")
    assert values(plain_grown, "SELECT cli_state, console_state FROM hdb_catalog.hdb_version") == before
    columns = (
        "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute WHERE attnum > 0 AND attrelid = %s::regclass"
    )
    assert values(plain_grown, columns, ("hdb_catalog.schema_migrations",)) == [
        ("version", "bigint"),
        ("dirty", "boolean"),
    ]
