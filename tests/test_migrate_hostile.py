"""`migrate up` on files that work against it: huge, odd, or after the program's own bookkeeping."""

from __future__ import annotations

import threading

import pytest

# Both sessions, psql's and libpq's: what these files do differs by the way and not by the server.
pytestmark = pytest.mark.servers("url-psql-15", "url-psycopg-15")


def one(project, statement):
    """The first value of the first row of a statement, asked by psycopg and not by the program."""
    return next(iter(project.database.admin(statement)[0].values()))


def test_data_and_statements_larger_than_any_buffer_pass(project):
    rows = "".join(f"{number}\t{'x' * 40}\n" for number in range(100_000))
    project.migration("1_copy", f"CREATE TABLE t (a int, b text);\nCOPY t FROM stdin;\n{rows}\\.\n")
    project.migration("2_insert", "INSERT INTO t VALUES " + ",".join(f"({n}, 'y')" for n in range(300_000)) + ";")
    project.run("migrate", "up").ok()
    assert one(project, "SELECT count(*) FROM t") == 400_000


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_inline_data_with_other_line_ends(project, end):
    project.migration(
        "1_copy", f"CREATE TABLE t (a int, b text);{end}COPY t FROM stdin;{end}1\ta{end}2\tb{end}\\.{end}"
    )
    project.run("migrate", "up").ok()
    assert one(project, "SELECT string_agg(a || b, ',' ORDER BY a) FROM t") == "1a,2b"


def test_inline_binary_data_is_refused_before_anything_runs(project):
    project.migration("1_copy", "CREATE TABLE t (a int);\nCOPY t FROM stdin (FORMAT binary);\nPGCOPY\n\\.\n")
    outcome = project.run("migrate", "up")
    assert outcome.code == 1
    assert "migrations/1_copy.sql:2:1" in outcome.err


@pytest.mark.parametrize("release", ["DISCARD ALL", "SELECT pg_advisory_unlock_all()"])
def test_a_file_that_gives_up_the_lock_does_not_run_twice(project, release):
    project.migration(
        "1_a",
        f"-- nself:no-transaction\nCREATE TABLE IF NOT EXISTS t (n int);\n{release};\nINSERT INTO t VALUES (1);\n"
        "SELECT pg_sleep(1.5);\nINSERT INTO t VALUES (2);\n",
    )
    outcomes = []
    runners = [threading.Thread(target=lambda: outcomes.append(project.run("migrate", "up"))) for _ in range(2)]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join()
    project.run("migrate", "up").ok()
    assert one(project, "SELECT string_agg(n::text, ',' ORDER BY n) FROM t") == "1,2"
    assert all(outcome.code in (0, 1) and "Traceback" not in outcome.err for outcome in outcomes)


@pytest.mark.parametrize(
    "statement",
    [
        "DROP SCHEMA hdb_catalog CASCADE",
        "DROP SCHEMA nself_db CASCADE",
        "ALTER TABLE nself_db.migrations DROP COLUMN started",
    ],
)
def test_a_file_that_takes_the_bookkeeping_away_fails_as_a_whole(project, statement):
    project.migration("1_a", "CREATE TABLE a (id int);")
    project.migration("2_b", f"CREATE TABLE b (id int);\n{statement};\n")
    document = project.run("migrate", "up", "--json").json()
    assert document["error"]["file"] == "migrations/2_b.sql"
    assert document["error"]["exit_code"] == 1
    assert one(project, "SELECT to_regclass('b') IS NULL AND to_regclass('nself_db.migrations') IS NOT NULL")


@pytest.mark.parametrize("code", ["28000", "08001", "NSG01", "58P01"])
def test_an_error_that_the_file_raises_is_the_files(project, code):
    project.migration("1_a", f"SELECT 1;\nDO $$ BEGIN RAISE EXCEPTION 'mine' USING ERRCODE = '{code}'; END $$;\n")
    document = project.run("migrate", "up", "--json").json()
    assert document["error"]["exit_code"] == 1
    assert document["error"]["code"] == "migration_failed"
    assert (document["error"]["file"], document["error"]["line"]) == ("migrations/1_a.sql", 2)


def test_a_message_that_looks_like_another_report_stays_one_message(project):
    project.migration("1_a", "DO $$ BEGIN RAISE EXCEPTION E'boom\\nERROR:  55P03: fake\\nHINT:  do this'; END $$;")
    error = project.run("migrate", "up", "--json").json()["error"]
    assert error["message"].startswith("boom\n")
    assert "SQLSTATE P0001" in error["message"]


def test_a_file_that_ends_its_own_session_is_named(project):
    project.migration("1_a", "CREATE TABLE a (id int);\nSELECT pg_terminate_backend(pg_backend_pid());\n")
    error = project.run("migrate", "up", "--json").json()["error"]
    assert (error["exit_code"], error["file"], error["line"]) == (2, "migrations/1_a.sql", 2)


def test_warnings_are_told_when_the_run_fails(project):
    project.migration("1_test", "BEGIN;\nSELECT 1;\nROLLBACK;\n")
    project.migration("2_b", "SELECT 1/0;")
    document = project.run("migrate", "up", "--json").json()
    assert any("1_test.sql" in warning for warning in document["warnings"])
    assert [item["version"] for item in document["data"]["applied"]] == ["1"]


def test_set_transaction_at_the_head_is_kept(project):
    project.migration(
        "1_a",
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE;\n"
        "CREATE TABLE a AS SELECT current_setting('transaction_isolation') AS level;\n",
    )
    project.migration("2_b", "BEGIN;\nSET TRANSACTION ISOLATION LEVEL REPEATABLE READ;\nSELECT 1/0;\nCOMMIT;\n")
    outcome = project.run("migrate", "up")
    assert "migrations/2_b.sql:3:1: division by zero" in outcome.err
    assert one(project, "SELECT level FROM a") == "serializable"


def test_deferred_constraints_of_temporary_tables(project):
    project.migration(
        "1_a",
        "CREATE TEMP TABLE p (id int PRIMARY KEY);\n"
        "CREATE TEMP TABLE c (p int REFERENCES p DEFERRABLE INITIALLY DEFERRED);\n"
        "INSERT INTO c VALUES (1);\nINSERT INTO p VALUES (1);\n",
    )
    project.run("migrate", "up").ok()


def test_default_read_only_of_a_file_does_not_stop_the_bookkeeping(project):
    project.migration("1_a", "-- nself:no-transaction\nSET default_transaction_read_only = on;\nSELECT 1;\n")
    project.migration("2_b", "CREATE TABLE b (id int);")
    project.run("migrate", "up").ok()


def test_a_password_in_a_statement_is_in_no_output(project):
    project.migration("1_a", "SELECT 1;\nCREATE ROLE postgres PASSWORD $$Hush4321$$;\n")
    outcome = project.run("migrate", "up", "--verbose")
    assert "Hush4321" not in outcome.out + outcome.err


def test_a_dropped_version_table_is_noticed_before_all_is_run_again(project):
    project.migration("1_a", "CREATE TABLE a (id int);")
    project.run("migrate", "up").ok()
    project.database.admin("DROP TABLE hdb_catalog.schema_migrations")
    outcome = project.run("migrate", "up")
    assert outcome.code == 1
    assert "migrate baseline" in outcome.err


def test_closed_and_full_stdout_are_exit_2_and_no_traceback(project):
    helps = ("--version", "--help", "migrate --help", "migrate up --help")
    for words in (*helps, "migrate status --json", "bogus --json"):
        for stream in (">&-", ">/dev/full"):
            code, err = shell(project, f"{words} {stream}")
            assert code == 2 or words.startswith("bogus"), (words, stream, code, err)
            assert "Traceback" not in err


def shell(project, words):
    """Exit code and stderr of the program started by a shell, which closes streams."""
    import subprocess
    import sys

    environment = project._runner.environment({})
    done = subprocess.run(
        f"{sys.executable} -m nself_db {words}",
        shell=True,
        cwd=project.root,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr
