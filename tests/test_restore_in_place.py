"""`restore --in-place`: inside the database, in one transaction, for who may create no database beside it."""

from __future__ import annotations

import os
import shutil
import threading
import time

import pytest
from bed.local_processes import wait_until
from test_restore import CATALOGUE, backup, count, databases, drop_beside, filled

from nself_core.backups import clearing, in_place
from nself_core.failures import LockHeld


@pytest.fixture
def plain_filled(plain_project):
    yield filled(plain_project)
    drop_beside(plain_project)


@pytest.fixture
def full(project):
    """As plain_filled, over each way to a server."""
    yield filled(project)
    drop_beside(project)


# What a dump brings back, and what it has to take away first.
MORE = """
CREATE SCHEMA later; CREATE TABLE later.t (id int); CREATE TABLE t (id int); CREATE TYPE pair AS (a int, b int);
CREATE TYPE span AS RANGE (subtype = float8); CREATE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT $1';
CREATE PROCEDURE p() LANGUAGE sql AS 'SELECT 1'; CREATE AGGREGATE a(int) (sfunc = int4pl, stype = int);
CREATE OPERATOR @+@ (leftarg = int, rightarg = int, procedure = int4pl); CREATE COLLATION c (locale = 'C');
CREATE OPERATOR CLASS o FOR TYPE int USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=,
    OPERATOR 5 >, FUNCTION 1 btint4cmp(int, int);
CREATE TEXT SEARCH CONFIGURATION s (copy = simple); CREATE TEXT SEARCH DICTIONARY d (template = simple);
CREATE STATISTICS st ON id, n FROM parent; CREATE SEQUENCE q; CREATE CAST (mood AS int) WITH INOUT;
CREATE FOREIGN DATA WRAPPER w; CREATE SERVER r FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE ft (i int) SERVER r;
CREATE PUBLICATION pub FOR TABLE parent;
CREATE FUNCTION ev() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER e ON ddl_command_end
    EXECUTE FUNCTION ev();
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
GRANT CREATE ON SCHEMA public TO PUBLIC; REVOKE USAGE ON SCHEMA public FROM PUBLIC;
SELECT lo_from_bytea(777, 'x');
DELETE FROM ONLY parent WHERE id > 100;
"""
# Everything that stands in the catalogue of this database alone, by its address.
OBJECTS = """
SELECT o.type, o.identity FROM (
    SELECT DISTINCT classid, objid FROM pg_depend WHERE classid <> 0 AND objid >= 16384
        AND classid NOT IN ('pg_rewrite'::regclass, 'pg_amop'::regclass, 'pg_amproc'::regclass)) d,
    pg_identify_object(d.classid, d.objid, 0) o
WHERE o.type <> 'toast table' AND o.identity NOT LIKE '%pg_toast%' AND o.identity NOT LIKE '%RI_Constraint%'
UNION ALL SELECT 'grants', nspname || (SELECT string_agg(a::text, ',' ORDER BY a::text)
                                       FROM unnest(coalesce(nspacl, acldefault('n', nspowner))) a)
FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%' ORDER BY 1, 2
"""


LOCKED = "SELECT count(*) AS n FROM pg_locks WHERE mode = 'ExclusiveLock' AND relation = 'parts'::regclass AND granted"


def state(project):
    """All of it as a set of texts."""
    rows = [tuple(row.values()) for text in (CATALOGUE, OBJECTS) for row in project.database.admin(text)]
    return {" ".join(map(str, row)) for row in rows}


@pytest.mark.servers("container-15", "url-psycopg-17", "embedded-16")
def test_the_database_equals_the_backup(full):
    before = state(full)
    file = backup(full)
    full.database.admin(MORE)
    assert state(full) != before
    with full.database.connect() as own:
        oid = own.execute("SELECT oid FROM pg_database WHERE datname = current_database()").fetchone()
        data = full.run("restore", "--in-place", "--force", "--json").ok().json()["data"]
        assert own.execute("SELECT oid FROM pg_database WHERE datname = current_database()").fetchone() == oid
    assert state(full) == before
    assert (data["file"], data["before"], databases(full)) == (file, None, [])
    full.run("restore", "--in-place", "--force", "--no-safety-backup", "--file", data["safety_backup"]).ok()
    assert count(full) == 100
    assert full.database.admin("SELECT to_regclass('later.t') IS NOT NULL AS there") == [{"there": True}]


@pytest.mark.parametrize(
    "options", [["plain"], ["plain", "--compress", "3"], ["directory"], ["directory", "--jobs", "2"]], ids=" ".join
)
@pytest.mark.servers("container-15", "url-psql-17", "embedded-18")
def test_every_format(full, options):
    before = state(full)
    backup(full, "--format", *options)
    full.database.admin("DROP TABLE parent CASCADE; CREATE TABLE b (id int)")
    full.run("restore", "--in-place", "--force", "--no-safety-backup").ok()
    assert state(full) == before


def test_what_the_dump_makes_is_dropped_and_made_again(plain_filled):
    """A backup of a database with one object of every kind."""
    plain_filled.database.admin(MORE)
    plain_filled.database.admin("REFRESH MATERIALIZED VIEW counted")
    before = state(plain_filled)
    backup(plain_filled)
    plain_filled.run("restore", "--in-place", "--force", "--no-safety-backup").ok()
    assert state(plain_filled) == before


def test_extensions_come_and_go(plain_filled):
    plain_filled.database.admin("CREATE SCHEMA ext; CREATE EXTENSION pgcrypto SCHEMA ext; CREATE EXTENSION citext")
    plain_filled.database.admin("CREATE TABLE words (w citext PRIMARY KEY); INSERT INTO words VALUES ('A')")
    before = state(plain_filled)
    backup(plain_filled)
    plain_filled.database.admin("DROP EXTENSION citext CASCADE; CREATE EXTENSION hstore; CREATE TABLE h (h hstore)")
    plain_filled.run("restore", "--in-place", "--force", "--no-safety-backup").ok()
    assert state(plain_filled) == before


@pytest.fixture
def poor(plain_filled):
    """The project with a role that owns the database and may not create one, as (project, its environment)."""
    cluster = plain_filled.database.server.cluster
    name = plain_filled.database.name
    cluster.admin("DROP ROLE IF EXISTS poor; CREATE ROLE poor LOGIN PASSWORD 'poor'")
    cluster.admin(f'ALTER DATABASE "{name}" OWNER TO poor')
    plain_filled.database.admin(
        "ALTER SCHEMA public OWNER TO poor; DROP TABLE parent, parts CASCADE; "
        'DROP SCHEMA "Odd ""Schema"" x" CASCADE; SELECT lo_unlink(424242); DROP TYPE mood; DROP DOMAIN positive;'
        "DROP FUNCTION touch"
    )
    yield plain_filled, {"NSELF_DB_URL": cluster.url(name, user="poor", password="poor")}
    plain_filled.database.server.drop_database(name)
    plain_filled.database.server.create_database(name)
    cluster.admin("DROP ROLE poor")


def test_a_role_that_may_create_none_is_told_and_restores_in_place(poor):
    project, env = poor
    with project.database.server.cluster.connect(project.database.name, user="poor", password="poor") as own:
        own.execute("CREATE TABLE mine AS SELECT 1 AS one; CREATE SCHEMA s; CREATE TABLE s.t (i int)")
        project.run("backup", env=env).ok()
        own.execute("DROP TABLE mine; CREATE TABLE other (i int)")
    outcome = project.run("restore", "--force", env=env)
    assert (outcome.code, "--in-place" in outcome.err) == (4, True), repr(outcome)
    project.run("restore", "--in-place", "--force", env=env).ok()
    assert project.database.admin("SELECT one FROM mine") == [{"one": 1}]
    assert project.database.admin("SELECT to_regclass('other') AS other") == [{"other": None}]


def test_jobs_are_refused(plain_filled):
    backup(plain_filled)
    outcome = plain_filled.run("restore", "--in-place", "--force", "--jobs", "2")
    assert (outcome.code, "--jobs" in outcome.err) == (1, True)


def test_a_plain_dump_without_its_manifest_is_refused_because_it_may_commit(plain_filled):
    file = backup(plain_filled, "--format", "plain")
    os.unlink(plain_filled.root / f"{file}.json")
    before = state(plain_filled)
    outcome = plain_filled.run("restore", "--in-place", "--force", "--file", file)
    assert (outcome.code, "plain dump without a manifest" in outcome.err) == (4, True), repr(outcome)
    assert state(plain_filled) == before


def test_dry_run_names_every_step(plain_filled):
    backup(plain_filled)
    before = state(plain_filled)
    outcome = plain_filled.run("restore", "--in-place", "--dry-run").ok()
    for words in ("begin a transaction", "dump ", "drop all", "commit"):
        assert words in outcome.out
    assert state(plain_filled) == before
    assert len(list((plain_filled.root / ".nself-backups").glob("*.dump"))) == 1


# Failures, each of which leaves the database as it was.


def test_what_cannot_be_loaded_changes_nothing(plain_filled):
    plain_filled.database.admin("CREATE ROLE test_in_place_owner; ALTER TABLE parts OWNER TO test_in_place_owner")
    try:
        backup(plain_filled)
    finally:
        plain_filled.database.admin("REASSIGN OWNED BY test_in_place_owner TO CURRENT_USER")
        plain_filled.database.admin("DROP ROLE test_in_place_owner")
    plain_filled.database.admin(MORE)
    before = state(plain_filled)
    outcome = plain_filled.run("restore", "--in-place", "--force", "--no-safety-backup")
    assert (outcome.code, "test_in_place_owner" in outcome.err) == (1, True), repr(outcome)
    assert "nothing was changed" in outcome.err
    assert state(plain_filled) == before


def test_fewer_tables_than_the_manifest_says(plain_filled):
    file = plain_filled.root / (backup(plain_filled) + ".json")
    file.write_text(file.read_text().replace('"estimated_rows": {', '"estimated_rows": {"public.unknown": 5,'))
    before = state(plain_filled)
    outcome = plain_filled.run("restore", "--in-place", "--force", "--no-safety-backup")
    assert (outcome.code, "fewer tables" in outcome.err) == (1, True), repr(outcome)
    assert state(plain_filled) == before


def test_a_writer_in_a_transaction_is_in_the_way(plain_filled):
    backup(plain_filled)
    with plain_filled.database.connect() as writer:
        writer.execute("BEGIN; INSERT INTO parent (id) VALUES (1000)")
        outcome = plain_filled.run("restore", "--in-place", "--force", "--no-safety-backup")
        assert outcome.code == 4 and "nothing was changed" in outcome.err, repr(outcome)
        writer.execute("COMMIT")
    assert count(plain_filled) == 501


def test_who_comes_with_a_truncate_meanwhile_does_not_hold_the_safety_backup_up(plain_filled):
    """A ring that the server does not see: pg_dump, the TRUNCATE, our transaction, our session, which runs pg_dump."""
    backup(plain_filled)
    ended = threading.Event()

    def truncate():
        with plain_filled.database.connect() as other, plain_filled.database.connect() as watching:
            while not ended.is_set() and not watching.execute(LOCKED).fetchone()["n"]:
                time.sleep(0.005)
            other.execute("SET lock_timeout = '40s'; TRUNCATE parts")

    thread = threading.Thread(target=truncate)
    thread.start()
    try:
        outcome = plain_filled.run("restore", "--in-place", "--force")
    finally:
        ended.set()
        thread.join()
    assert (outcome.code, "nothing was changed" in outcome.err) == (4, True), repr(outcome)
    assert count(plain_filled) == 500


def test_timeouts_of_the_role_do_not_end_it(plain_filled):
    """A second of one's own is less than the safety backup takes here, for which the transaction waits."""
    backup(plain_filled, "--format", "plain")
    plain_filled.database.admin("DELETE FROM ONLY parent")
    name = plain_filled.database.name
    for setting in ("statement_timeout", "idle_session_timeout", "idle_in_transaction_session_timeout"):
        plain_filled.database.admin(f"ALTER DATABASE \"{name}\" SET {setting} = '100ms'")
    try:
        plain_filled.run("restore", "--in-place", "--force").ok()
    finally:
        plain_filled.database.admin(f'ALTER DATABASE "{name}" RESET ALL')
    assert count(plain_filled) == 500


# A psql that comes only when it is told to.
LATE_PSQL = """#!/bin/sh
: >"{folder}/started"
until [ -e "{folder}/go" ]; do sleep 0.05; done
exec {psql} "$@"
"""
LOOKS = """
SELECT 1 FROM pg_stat_activity WHERE query LIKE '%%pg_locks%%' AND pid <> pg_backend_pid() AND query_start > %s
"""


def test_sessions_of_its_name_that_come_and_go_are_not_taken_for_its_transaction(plain_filled, tmp_path):
    """While the transaction's own is not there yet; whoever counted them would wait for ever afterwards."""
    backup(plain_filled)
    plain_filled.database.admin("DELETE FROM ONLY parent")
    psql = tmp_path / "psql"
    psql.write_text(LATE_PSQL.format(folder=tmp_path, psql=shutil.which("psql")), encoding="utf-8")
    psql.chmod(0o755)
    env = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "NSELF_DB_DRIVER": "psycopg"}

    def wait_until_it_looks():
        now = plain_filled.database.admin("SELECT clock_timestamp() AS now")[0]["now"]
        wait_until(lambda: plain_filled.database.admin(LOOKS, [now]) or process.poll() is not None, 60)

    try:
        with plain_filled.database.connect(application_name="nself-db restore"):
            process = plain_filled.start("restore", "--in-place", "--force", "--no-safety-backup", env=env)
            wait_until(lambda: (tmp_path / "started").exists() or process.poll() is not None, 60)
            wait_until_it_looks()
        others = "SELECT count(*) AS n FROM pg_stat_activity WHERE application_name = 'nself-db restore'"
        wait_until(lambda: plain_filled.database.admin(others)[0]["n"] < 2, 60)
        wait_until_it_looks()
    finally:
        (tmp_path / "go").touch()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    assert count(plain_filled) == 500


def test_a_psql_that_never_comes_to_the_server_is_noticed_at_once(plain_filled, tmp_path):
    backup(plain_filled)
    before = state(plain_filled)
    env = {"TMPDIR": str(tmp_path / "nowhere")}  # where the shell beside psql wants a folder
    outcome = plain_filled.run("restore", "--in-place", "--force", env=env)
    assert outcome.code == 2 and "nowhere" in outcome.err, repr(outcome)
    assert state(plain_filled) == before


def test_a_transaction_that_does_not_come_to_the_gate_is_not_waited_for_for_ever(monkeypatch):
    class Database:
        answers = [False, False, True]

        def rows(self, sql):
            return [{"waits": self.answers.pop(0)}]

    assert list(in_place._until_at_gate(Database(), 4)) == [None, None]
    monkeypatch.setattr(in_place, "GATE_SECONDS", -1)
    Database.answers = [False]
    with pytest.raises(LockHeld, match="nothing was changed"):
        list(in_place._until_at_gate(Database(), 4))


def test_a_reader_in_a_transaction_is_ended(plain_filled):
    backup(plain_filled)
    plain_filled.database.admin("DELETE FROM ONLY parent")
    with plain_filled.database.connect() as reader:
        reader.execute("BEGIN; SELECT count(*) FROM parent")
        plain_filled.run("restore", "--in-place", "--force", "--no-safety-backup").ok()
        with pytest.raises(Exception, match="terminating connection"):
            reader.execute("SELECT 1")
    assert count(plain_filled) == 500


def test_while_a_migration_runs_it_is_refused(plain_filled):
    backup(plain_filled)
    with plain_filled.database.connect() as other:
        other.execute(f"SELECT pg_advisory_lock({0x6E73656C66})")
        outcome = plain_filled.run("restore", "--in-place", "--force", "--no-safety-backup")
    assert (outcome.code, "migration lock" in outcome.err) == (4, True), repr(outcome)


MAKE_SUBSCRIPTION = "CREATE SUBSCRIPTION \"S '1\" CONNECTION 'dbname=x' PUBLICATION p WITH (connect = false)"
DROP_SUBSCRIPTION = "ALTER SUBSCRIPTION \"S '1\" SET (slot_name = NONE); DROP SUBSCRIPTION \"S '1\""


@pytest.mark.parametrize("options", [["--force"], ["--dry-run"], []], ids=str)
def test_a_subscription_is_refused_in_the_plan(plain_filled, options):
    """Switched off as it is: before anybody is asked, and before the safety backup."""
    backup(plain_filled)
    plain_filled.database.admin(MAKE_SUBSCRIPTION)
    try:
        outcome = plain_filled.run("restore", "--in-place", *options, "--json")
    finally:
        plain_filled.database.admin(DROP_SUBSCRIPTION)
    error = outcome.json()["error"]
    assert (outcome.code, error["code"]) == (4, "refused"), repr(outcome)
    assert "has a subscription (S '1)" in error["message"] and "DROP SUBSCRIPTION" in error["hint"]
    assert len(os.listdir(plain_filled.root / ".nself-backups")) == 2


def test_a_subscription_that_is_made_meanwhile_is_refused_by_the_transaction(plain_filled):
    backup(plain_filled)
    plain_filled.database.admin("CREATE SEQUENCE held")
    before = state(plain_filled)
    with plain_filled.database.connect() as holder:
        holder.execute("BEGIN; ALTER SEQUENCE held RENAME TO other")
        process = plain_filled.start("restore", "--in-place", "--force")
        dumping = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT last_value%' AND wait_event_type = 'Lock'"
        wait_until(lambda: plain_filled.database.admin(dumping) or process.poll() is not None, 60)
        plain_filled.database.admin(MAKE_SUBSCRIPTION)
        holder.execute("ROLLBACK")
        out, err = process.communicate(timeout=120)
    plain_filled.database.admin(DROP_SUBSCRIPTION)
    assert process.returncode == 1 and "subscription" in err and "nothing was changed" in err, out + err
    assert state(plain_filled) == before


def test_what_is_written_until_the_lock_is_in_the_safety_backup(plain_filled):
    backup(plain_filled)
    plain_filled.database.admin("INSERT INTO parts SELECT 5000, '2024-07-01'")
    data = plain_filled.run("restore", "--in-place", "--force", "--json").ok().json()["data"]
    assert plain_filled.database.admin("SELECT id FROM parts WHERE id = 5000") == []
    plain_filled.run("restore", "--force", "--file", os.path.basename(data["safety_backup"])).ok()
    assert plain_filled.database.admin("SELECT id FROM parts WHERE id = 5000") == [{"id": 5000}]


def test_the_clearing_is_one_text_whatever_there_is():
    assert len(clearing.sql_clear(["plpgsql"])) < 20000
