"""New migrations: versions, names, the two files, the undo of simple statements, and writing them whole."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg.rows import tuple_row

from nself_core.failures import FileFailure, Unreachable, UsageFailure
from nself_core.migrations import create
from nself_core.migrations.files import LARGEST_VERSION, Listing, Migration
from nself_core.migrations.undo import undo
from nself_core.sql.lexer import split
from nself_core.sql.script import read_down_script, read_script

NOW = time.struct_time((2026, 2, 7, 9, 5, 1, 5, 38, 0))
STAMP = 20260207090501


def undone(sql):
    """The undo of one statement."""
    (statement,) = split(sql)
    return undo(statement)


def planned(sql, name="add_users"):
    """The texts of the up and the down file."""
    (_, up), (_, down) = create.plan_create(name, sql, [], NOW, "migrations")
    return up, down


def down_statements(sql):
    """The statements of the down file, which must be one that may run."""
    return [statement.text for statement in read_down_script(planned(sql)[1], "x.down.sql", None).statements]


def is_to_be_written(sql):
    with pytest.raises(FileFailure, match="still to be written"):
        read_down_script(planned(sql)[1], "x.down.sql", None)
    return True


# Versions


def test_the_version_is_the_time_in_utc():
    assert create.next_version([], NOW) == STAMP


def test_any_six_numbers_are_a_time():
    assert create.next_version([], (2026, 2, 7, 9, 5, 1)) == STAMP


def test_a_version_above_all_others_stays():
    assert create.next_version([7, 20240101000000, 1714550400123], NOW) == STAMP


@pytest.mark.parametrize(
    ("newest", "version"),
    [
        (STAMP, STAMP + 1),
        (20990101000000, 20990101000001),
        (20261231235959, 20270101000000),
        (20280228235959, 20280229000000),
        (20269999999999, 20270000000000),
        (99991231235959, 99991231235960),
        (1714550400123000, 1714550400123001),
    ],
)
def test_a_version_taken_or_below_the_newest_moves_up(newest, version):
    assert create.next_version([1, newest], NOW) == version


def test_no_version_is_left_above_the_largest():
    with pytest.raises(UsageFailure, match="no version is left"):
        create.next_version([LARGEST_VERSION], NOW)


@settings(deadline=None)
@given(st.lists(st.integers(0, LARGEST_VERSION - 1), max_size=6))
def test_the_version_is_above_all_others(versions):
    assert create.next_version(versions, NOW) > max(versions, default=-1)


@settings(deadline=None)
@given(st.datetimes().filter(lambda moment: moment.year >= 1000))
def test_after_a_time_comes_the_next_second(moment):
    newest = int(moment.strftime("%Y%m%d%H%M%S"))
    version = str(create.next_version([newest], (1000, 1, 1, 0, 0, 0)))
    assert len(version) == 14
    assert int(version) > newest


# Names


@pytest.mark.parametrize(
    "name", ["a", "add_users", "2fa", "add-users", "x" * 100, "download", "shutdown", "down_it", "up"]
)
def test_a_name_of_the_allowed_characters_is_taken(name):
    create.check_name(name)


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("Add Users", "add_users"),
        ("AddUsers", "add_users"),
        ("add.users", "add_users"),
        ("../../etc/passwd", "etc_passwd"),
        ("Größe", "grosse"),
        ("naïve", "naive"),
        ("shut_down", "shutdown"),
        ("a" * 101, "a" * 100),
        ("add users\n", "add_users"),
    ],
)
def test_another_name_is_refused_with_a_better_one(name, better):
    with pytest.raises(UsageFailure) as caught:
        create.check_name(name)
    assert caught.value.hint == f"did you mean {better}?"


@pytest.mark.parametrize("name", ["", "///", "down", "DOWN", "日本"])
def test_a_name_of_which_nothing_is_left_is_refused_without_one(name):
    with pytest.raises(UsageFailure) as caught:
        create.check_name(name)
    assert caught.value.hint is None


@settings(deadline=None)
@given(st.text(max_size=120))
def test_the_better_name_will_do(name):
    try:
        create.check_name(name)
    except UsageFailure as failure:
        if failure.hint:
            create.check_name(failure.hint.removeprefix("did you mean ").removesuffix("?"))


# The two files


def test_two_files_are_planned_in_the_folder():
    (up, _), (down, _) = create.plan_create("add_users", None, [], NOW, "/srv/app/migrations")
    assert up == f"/srv/app/migrations/{STAMP}_add_users.sql"
    assert down == f"/srv/app/migrations/{STAMP}_add_users.down.sql"


def test_without_sql_both_files_are_to_be_written_and_are_refused_until_then():
    up, _ = planned(None)
    with pytest.raises(FileFailure) as caught:
        read_script(up, "x.sql", None)
    assert (caught.value.message, caught.value.line) == ("the file is still to be written", 1)
    assert is_to_be_written(None)


def test_an_up_file_whose_mark_is_removed_runs():
    up, _ = planned(None)
    written = up.partition("\n")[2] + "CREATE TABLE users (id int);\n"
    assert len(read_script(written, "x.sql", None).statements) == 1


@pytest.mark.parametrize(
    ("sql", "text"),
    [
        ("CREATE TABLE t (a int)", "CREATE TABLE t (a int);\n"),
        ("CREATE TABLE t (a int);", "CREATE TABLE t (a int);\n"),
        ("  CREATE TABLE t (a int) ; \n", "CREATE TABLE t (a int) ;\n"),
        ("CREATE TABLE t (a int) -- last", "CREATE TABLE t (a int); -- last\n"),
        ("BEGIN; SELECT 1; COMMIT", "BEGIN; SELECT 1; COMMIT\n"),
        ("COPY t FROM STDIN;\n1\n\\.\n", "COPY t FROM STDIN;\n1\n\\.\n"),
    ],
)
def test_the_up_file_holds_the_sql_as_it_is(sql, text):
    assert planned(sql)[0] == text


def test_sql_that_cannot_be_in_a_transaction_gets_the_mark():
    up, down = planned("CREATE INDEX CONCURRENTLY i ON app.t (a)")
    assert up == "-- nself:no-transaction\nCREATE INDEX CONCURRENTLY i ON app.t (a);\n"
    script = read_down_script(down, "x.down.sql", None)
    assert script.mode == "no_transaction"
    assert script.statements[0].text == "DROP INDEX CONCURRENTLY app.i"


@pytest.mark.parametrize("mark", ["-- nself:no-transaction", "-- migrate:up transaction:false"])
def test_a_mark_that_stands_is_not_doubled(mark):
    assert planned(f"{mark}\nVACUUM t;")[0] == f"{mark}\nVACUUM t;\n"


@pytest.mark.parametrize(
    ("sql", "said", "line"),
    [
        ("", "--sql holds no statement", None),
        (" ; -- nothing", "--sql holds no statement", None),
        ("SELECT 'x", "a quote (') that is never closed", 1),
        ("SELECT 1;\nCOMMIT;", "COMMIT", 2),
        ("SELECT 1;\n\\d", "psql meta-command", 2),
        ("SELECT 1;\n-- migrate:down\nSELECT 2;", "down part", 2),
        ("SELECT '\ud800'", "--sql is not UTF-8", None),
    ],
)
def test_sql_that_is_wrong_is_wrong_usage(sql, said, line):
    with pytest.raises(UsageFailure) as caught:
        planned(sql)
    assert said in caught.value.message
    assert caught.value.line == line
    assert caught.value.file == ("--sql" if line else None)


def test_several_statements_are_undone_in_reverse():
    sql = "CREATE TABLE a (id int); CREATE TABLE b (id int); CREATE INDEX i ON b (id);"
    assert down_statements(sql) == ["DROP INDEX i", "DROP TABLE b", "DROP TABLE a"]


def test_settings_at_the_head_are_repeated_in_the_down_file():
    sql = "SET search_path = app; CREATE TABLE a (id int); CREATE TABLE b (id int);"
    assert down_statements(sql) == ["SET search_path = app", "DROP TABLE b", "DROP TABLE a"]


def test_settings_between_statements_make_the_undo_unsure():
    assert is_to_be_written("CREATE TABLE a (id int); SET search_path = app; CREATE TABLE b (id int);")


def test_the_transaction_around_the_sql_is_left_out():
    assert down_statements("BEGIN; CREATE TABLE a (id int); COMMIT;") == ["DROP TABLE a"]


def test_one_statement_without_undo_makes_the_file_to_be_written_but_keeps_the_others():
    sql = "CREATE TABLE a (id int); INSERT INTO a VALUES (1),\n (2); CREATE TABLE b (id int);"
    assert is_to_be_written(sql)
    assert planned(sql)[1].splitlines()[2:] == [
        "DROP TABLE b;",
        "-- to be undone by hand: INSERT INTO a VALUES (1), (2)",
        "DROP TABLE a;",
    ]


def test_a_self_test_has_no_undo():
    assert is_to_be_written("BEGIN; CREATE TABLE a (id int); ROLLBACK;")


# Undo

UNDO = [
    ("CREATE TABLE t (a int)", "DROP TABLE t"),
    ('CREATE TABLE "My Schema"."T ""x""" (a int)', 'DROP TABLE "My Schema"."T ""x"""'),
    ("create unlogged table App.T (a int)", "DROP TABLE App.T"),
    ("CREATE TABLE t2 AS SELECT 1 AS a", "DROP TABLE t2"),
    ("CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (1) TO (2)", "DROP TABLE p2"),
    ("CREATE VIEW v AS SELECT 1 AS a", "DROP VIEW v"),
    ("CREATE RECURSIVE VIEW v (n) AS VALUES (1)", "DROP VIEW v"),
    ("CREATE MATERIALIZED VIEW app.v AS SELECT 1 AS a", "DROP MATERIALIZED VIEW app.v"),
    ("CREATE INDEX i ON base (a)", "DROP INDEX i"),
    ("CREATE UNIQUE INDEX i ON ONLY app.base USING btree (a)", "DROP INDEX app.i"),
    ("CREATE SCHEMA s", "DROP SCHEMA s"),
    ("CREATE SCHEMA s AUTHORIZATION CURRENT_USER", "DROP SCHEMA s"),
    ("CREATE TYPE app.mood AS ENUM ('a', 'b')", "DROP TYPE app.mood"),
    ("CREATE SEQUENCE s START 5", "DROP SEQUENCE s"),
    ("CREATE EXTENSION plperl WITH SCHEMA pg_catalog", "DROP EXTENSION plperl"),
    ("CREATE DOMAIN app.email AS text CHECK (VALUE LIKE '%@%')", "DROP DOMAIN app.email"),
    ("ALTER TABLE base ADD COLUMN c int", "ALTER TABLE base DROP COLUMN c"),
    ("ALTER TABLE ONLY app.base ADD c int DEFAULT 1", "ALTER TABLE ONLY app.base DROP COLUMN c"),
    ("ALTER TABLE base ADD COLUMN IF NOT EXISTS c int", "ALTER TABLE base DROP COLUMN IF EXISTS c"),
    ("ALTER TABLE IF EXISTS base ADD COLUMN c int", "ALTER TABLE IF EXISTS base DROP COLUMN c"),
    (
        "ALTER TABLE base ADD COLUMN c numeric(10, 2), ADD COLUMN d int, ADD CONSTRAINT positive CHECK (d > 0)",
        "ALTER TABLE base DROP CONSTRAINT positive, DROP COLUMN d, DROP COLUMN c",
    ),
    ('ALTER TABLE base ADD CONSTRAINT "U" UNIQUE (a)', 'ALTER TABLE base DROP CONSTRAINT "U"'),
    ("ALTER TABLE base RENAME COLUMN a TO z", "ALTER TABLE base RENAME COLUMN z TO a"),
    ('ALTER TABLE base RENAME a TO "Z"', 'ALTER TABLE base RENAME COLUMN "Z" TO a'),
    ("ALTER TABLE base RENAME CONSTRAINT base_pkey TO k", "ALTER TABLE base RENAME CONSTRAINT k TO base_pkey"),
    ("ALTER TABLE app.base RENAME TO other", "ALTER TABLE app.other RENAME TO base"),
    ("ALTER TABLE base ALTER COLUMN b SET NOT NULL", "ALTER TABLE base ALTER COLUMN b DROP NOT NULL"),
    ("ALTER TABLE base ALTER k DROP NOT NULL", "ALTER TABLE base ALTER COLUMN k SET NOT NULL"),
    ("ALTER TABLE base ENABLE ROW LEVEL SECURITY", "ALTER TABLE base DISABLE ROW LEVEL SECURITY"),
    (
        "ALTER TABLE base ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        "ALTER TABLE base NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY",
    ),
    (
        "CREATE TRIGGER g BEFORE UPDATE OF a ON app.base FOR EACH ROW WHEN (OLD.a > 1) EXECUTE FUNCTION touch()",
        "DROP TRIGGER g ON app.base",
    ),
    (
        "CREATE CONSTRAINT TRIGGER g AFTER INSERT ON base DEFERRABLE FOR EACH ROW EXECUTE FUNCTION touch()",
        "DROP TRIGGER g ON base",
    ),
    ('CREATE POLICY "Own rows" ON app.base USING (a = 1)', 'DROP POLICY "Own rows" ON app.base'),
    ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "DROP FUNCTION f()"),
    (
        "CREATE FUNCTION app.f(a int,\n  b numeric(10, 2) DEFAULT 1.5, c text = ',)')"
        " RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "DROP FUNCTION app.f(a int, b numeric(10, 2), c text)",
    ),
    (
        "CREATE FUNCTION f(VARIADIC a int[]) RETURNS int LANGUAGE sql AS $$ SELECT 1; $$",
        "DROP FUNCTION f(VARIADIC a int[])",
    ),
    ("CREATE PROCEDURE f(IN a int) LANGUAGE sql AS 'SELECT 1'", "DROP PROCEDURE f(IN a int)"),
]


@pytest.mark.parametrize(("sql", "text"), UNDO)
def test_a_simple_statement_gets_its_undo(sql, text):
    assert undone(sql) == text
    assert down_statements(sql) == [text]


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE IF NOT EXISTS t (a int)",
        "CREATE TEMP TABLE t (a int)",
        "CREATE TABLE pg_temp.t (a int)",
        "CREATE OR REPLACE VIEW v AS SELECT 1",
        "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE EXTENSION IF NOT EXISTS pgcrypto",
        "CREATE EXTENSION earthdistance CASCADE",
        "CREATE INDEX ON t (a)",
        "CREATE INDEX IF NOT EXISTS i ON t (a)",
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON t (a)",
        "CREATE SCHEMA AUTHORIZATION joe",
        "CREATE SCHEMA s CREATE TABLE t (a int)",
        "CREATE FUNCTION f(a int, OUT b int) LANGUAGE sql AS 'SELECT 1'",
        "CREATE FUNCTION f(a -- x\n int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE TABLE U&\"d!0061t\" UESCAPE '!' (a int)",
        "CREATE DATABASE d",
        "CREATE ROLE r",
        "CREATE",
        "CREATE TABLE",
        "CREATE INDEX i",
        "CREATE TRIGGER g",
        "CREATE FUNCTION f",
        "ALTER TABLE t",
        "ALTER TABLE t ADD",
        "ALTER TABLE t * ADD COLUMN a int",
        "ALTER TABLE t ADD UNIQUE (a)",
        "ALTER TABLE t ADD PRIMARY KEY (a)",
        "ALTER TABLE t ADD CONSTRAINT k PRIMARY KEY USING INDEX i",
        "ALTER TABLE t ADD COLUMN a int, ALTER COLUMN b SET DEFAULT 1",
        "ALTER TABLE t ALTER COLUMN a TYPE bigint",
        "ALTER TABLE t DROP COLUMN a",
        "ALTER TABLE IF EXISTS t RENAME TO u",
        "ALTER TABLE t OWNER TO joe",
        "ALTER TYPE mood ADD VALUE 'c'",
        "DROP TABLE t",
        "INSERT INTO t VALUES (1)",
        "GRANT SELECT ON t TO joe",
    ],
)
def test_what_cannot_be_taken_back_for_sure_has_no_undo(sql):
    assert undone(sql) is None
    assert is_to_be_written(sql)


SETUP = """
CREATE SCHEMA app; CREATE SCHEMA "My Schema";
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TABLE base (a int PRIMARY KEY, b int, k int NOT NULL);
CREATE TABLE app.base (a int, b int);
CREATE TABLE p (a int) PARTITION BY RANGE (a);
"""
SHAPE = """
SELECT 'class', oid::regclass::text, relkind::text, relrowsecurity::text, relforcerowsecurity::text FROM pg_class
UNION ALL SELECT 'column', attrelid::regclass::text, attname, attnotnull::text, atttypid::text FROM pg_attribute
    WHERE NOT attisdropped
UNION ALL SELECT 'type', oid::regtype::text, '', '', '' FROM pg_type
UNION ALL SELECT 'constraint', conrelid::regclass::text, conname, '', '' FROM pg_constraint
UNION ALL SELECT 'routine', oid::regprocedure::text, '', '', '' FROM pg_proc
UNION ALL SELECT 'trigger', tgrelid::regclass::text, tgname, '', '' FROM pg_trigger
UNION ALL SELECT 'policy', polrelid::regclass::text, polname, '', '' FROM pg_policy
UNION ALL SELECT 'schema', nspname, '', '', '' FROM pg_namespace
"""


@pytest.fixture(scope="module")
def connection(plain_server):
    """A connection whose transaction each test rolls back."""
    with plain_server.cluster.connect("postgres", row_factory=tuple_row) as connection:
        yield connection


@pytest.mark.parametrize("sql", [sql for sql, _ in UNDO if "EXTENSION" not in sql])
def test_the_undo_restores_the_schema_on_a_real_server(connection, sql):
    with connection.transaction(force_rollback=True):
        connection.execute(SETUP)
        before = set(connection.execute(SHAPE))
        connection.execute(sql)
        assert set(connection.execute(SHAPE)) != before
        for text in down_statements(sql):
            connection.execute(text)
        assert set(connection.execute(SHAPE)) == before


# Writing


def pairs(folder):
    return create.plan_create("add_users", "CREATE TABLE users (id int)", [], NOW, str(folder))


def test_both_files_are_written(tmp_path):
    made = create.apply_create(pairs(tmp_path))
    assert sorted(os.listdir(tmp_path)) == [f"{STAMP}_add_users.down.sql", f"{STAMP}_add_users.sql"]
    assert [Path(path).read_text() for path in made] == [text for _, text in pairs(tmp_path)]


def test_the_folder_is_made(tmp_path):
    create.apply_create(pairs(tmp_path / "new" / "migrations"))
    assert len(os.listdir(tmp_path / "new" / "migrations")) == 2


@pytest.mark.parametrize("place", [0, 1])
def test_a_file_that_is_there_is_not_overwritten_and_nothing_is_left(tmp_path, place):
    wanted = pairs(tmp_path)
    there = wanted[place][0]
    Path(there).write_text("mine")
    with pytest.raises(FileFailure) as caught:
        create.apply_create(wanted)
    assert caught.value.file == there
    assert os.listdir(tmp_path) == [os.path.basename(there)]
    assert Path(there).read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_a_failure(tmp_path):
    (tmp_path / "migrations").write_text("a file")
    with pytest.raises(FileFailure):
        create.apply_create(pairs(tmp_path / "migrations"))


def test_a_file_system_without_hard_links_will_do(tmp_path, monkeypatch):
    def refuse(*names):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    create.apply_create(pairs(tmp_path))
    with pytest.raises(FileFailure):
        create.apply_create(pairs(tmp_path))
    assert len(os.listdir(tmp_path)) == 2


def test_a_full_disk_leaves_nothing_and_is_infrastructure(tmp_path, monkeypatch):
    synced = os.fsync
    calls = []

    def full_at_the_second_file(handle):
        calls.append(handle)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "full")
        synced(handle)

    monkeypatch.setattr(os, "fsync", full_at_the_second_file)
    with pytest.raises(Unreachable, match="disk is full"):
        create.apply_create(pairs(tmp_path))
    assert os.listdir(tmp_path) == []


# The command


def listing(tmp_path, *versions):
    migrations = [Migration(version, "x", "x", None, "x", None, "number") for version in versions]
    return Listing(tuple(migrations), (), str(tmp_path / "migrations" / "default"), "migrations/default")


def test_the_plan_shows_both_files_and_writes_none(tmp_path):
    plan = create.plan_command("add_users", "CREATE TABLE users (id int)", listing(tmp_path, 20990101000000))
    assert [(step.kind, step.title, step.sql.splitlines()[-1], step.destroys) for step in plan.steps] == [
        ("file", "write migrations/default/20990101000001_add_users.sql", "CREATE TABLE users (id int);", False),
        ("file", "write migrations/default/20990101000001_add_users.down.sql", "DROP TABLE users;", False),
    ]
    assert os.listdir(tmp_path) == []


def test_the_report_names_the_files(tmp_path):
    plan = create.plan_command("add_users", None, listing(tmp_path, 20990101000000))
    report = create.apply_steps(plan.steps, list)
    names = ["20990101000001_add_users.sql", "20990101000001_add_users.down.sql"]
    assert report.data == {"version": "20990101000001", "files": [f"migrations/default/{name}" for name in names]}
    assert sorted(os.listdir(tmp_path / "migrations" / "default")) == sorted(names)
    assert report.warnings == [
        f"migrations/default/{name} is to be written: until then migrate refuses it" for name in names
    ]


def test_of_two_runs_that_chose_one_version_the_second_takes_the_next(tmp_path):
    plans = [create.plan_command(name, None, listing(tmp_path, 20990101000000)) for name in ("one", "two")]
    create.apply_steps(plans[0].steps, list)
    again = create.plan_command("two", None, listing(tmp_path, 20990101000001))
    report = create.apply_steps(plans[1].steps, lambda: again.steps)
    assert report.data["version"] == "20990101000002"
    names = [
        f"2099010100000{number}_{name}.sql"
        for number, name in ((1, "one.down"), (1, "one"), (2, "two.down"), (2, "two"))
    ]
    assert sorted(os.listdir(tmp_path / "migrations" / "default")) == names


def test_a_folder_that_somebody_holds_for_long_is_written_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(create, "CLAIM_SECONDS", 0.2)
    plan = create.plan_command("one", None, listing(tmp_path, 20990101000000))
    folder = os.path.dirname(plan.steps[0].work[0])
    os.makedirs(folder)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        create.apply_steps(plan.steps, list)
    finally:
        os.close(handle)
    assert len(os.listdir(folder)) == 2
