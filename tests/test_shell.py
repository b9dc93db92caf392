"""`shell`: one statement that cannot write, what it prints, psql on a terminal, and the reader role."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest
from bed.local_processes import wait_until
from psycopg import sql

from nself_core.postgres.session import Result
from nself_core.shell import aligned, json_value, scram_verifier

BOTH_DRIVERS = pytest.mark.parametrize("plain_server", ["psql", "psycopg"], indirect=True)
WAYS = pytest.mark.servers("container-13", "url-psql-17", "url-psycopg-17", "embedded-18")

SETUP = """
CREATE TABLE t (id int PRIMARY KEY, name text);
INSERT INTO t VALUES (1, 'one'), (2, 'two');
CREATE SEQUENCE s;
CREATE FUNCTION writes() RETURNS int LANGUAGE sql AS 'DELETE FROM t; SELECT 1';
CREATE FUNCTION opens() RETURNS void LANGUAGE plpgsql AS 'BEGIN SET transaction_read_only = off; DELETE FROM t; END';
CREATE PROCEDURE p() LANGUAGE plpgsql AS 'BEGIN DELETE FROM t; COMMIT; END';
"""
STATE = """
SELECT (SELECT string_agg(t::text, ',' ORDER BY id) FROM t) AS rows,
       (SELECT last_value || ' ' || is_called FROM s) AS s,
       (SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace) AS relations,
       (SELECT count(*) FROM pg_largeobject_metadata) AS objects
"""


def ask(project, statement, *options, **more):
    """The Outcome of `shell --command`."""
    return project.run("shell", "--command", statement, *options, **more)


def data(project, statement, *options):
    """The JSON data of `shell --command`, which must end well."""
    return ask(project, statement, *options, "--json").ok().json()["data"]


# Read-only is enforced.

# Statement, and the exit codes that are right: 4 refused before it ran, 1 refused by the server, 0 done and undone.
WRITES = [
    ("COMMIT; DROP TABLE t", {4}),
    ("SELECT 1; DROP TABLE t", {4}),
    ("COMMIT", {4}),
    ("END", {4}),
    ("ROLLBACK", {4}),
    ("BEGIN READ WRITE", {4}),
    ("SAVEPOINT a", {4}),
    ("PREPARE TRANSACTION 'x'", {4}),
    ("SET transaction_read_only = off; DROP TABLE t", {4}),
    ("SET transaction_read_only = off", {4}),
    ("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE", {4}),
    ("RESET ALL", {4}),
    ("SET ROLE postgres", {4}),
    ("DISCARD ALL", {4}),
    ("\\! touch {touched}", {4}),
    ("SELECT 1 \\g {touched}", {4}),
    ("SELECT 'DROP TABLE t' \\gexec", {4}),
    ("\\o {touched}", {4}),
    ("DO $$ BEGIN DELETE FROM t; END $$", {4}),
    ("CALL p()", {4}),
    ("COPY t TO PROGRAM 'touch {touched}'", {4}),
    ("COPY (SELECT 1) TO '{touched}'", {4}),
    ("COPY t FROM PROGRAM 'touch {touched}'", {4}),
    ("copy/**/t to\nprogram 'touch {touched}'", {4}),
    ("DELETE FROM t", {4}),
    ("DROP TABLE t", {4}),
    ("VACUUM FULL t", {4}),
    ("ALTER SYSTEM SET work_mem = '64MB'", {4}),
    ("LOCK TABLE t", {4}),
    ("LOAD 'auto_explain'", {4}),
    ("NOTIFY x", {4}),
    ("LISTEN x", {4}),
    ("PREPARE x AS DELETE FROM t", {4}),
    ("CREATE TEMP TABLE u (a int)", {4}),
    ("SELECT set_config('transaction_read_only', 'off', false)", {1}),
    ("SELECT set_config('transaction_read_only', 'off', true), writes()", {1}),
    ("SELECT set_config('default_transaction_read_only', 'off', false), writes()", {1}),
    ("SELECT writes()", {1}),
    ("SELECT opens()", {1}),
    ("EXPLAIN ANALYZE DELETE FROM t", {1}),
    ("EXPLAIN (ANALYZE) CREATE TABLE u AS SELECT 1", {0, 1}),
    ("WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x", {1}),
    ("WITH x AS (SELECT 1) INSERT INTO t SELECT 3", {1}),
    ("SELECT * INTO u FROM t", {1}),
    ("(SELECT * INTO u FROM t)", {1}),
    ("SELECT nextval('s')", {1}),
    ("SELECT setval('s', 9)", {1}),
    ("SELECT * FROM t FOR UPDATE", {1}),
    ("SELECT lo_create(0)", {0, 1}),
    ("SELECT query_to_xml('DELETE FROM t', true, true, '')", {1}),
]


@WAYS
def test_nothing_is_written_in_any_way(project, tmp_path):
    project.database.admin(SETUP)
    before = project.database.admin(STATE)
    for statement, codes in WRITES:
        outcome = ask(project, statement.replace("{touched}", str(tmp_path / "touched")))
        assert outcome.code in codes, outcome
        assert "Traceback" not in outcome.err
    assert project.database.admin(STATE) == before
    assert not (tmp_path / "touched").exists()
    assert project.database.admin("SHOW default_transaction_read_only") == [{"default_transaction_read_only": "off"}]


@BOTH_DRIVERS
def test_a_refusal_says_what_to_do(plain_project):
    outcome = ask(plain_project, "DELETE FROM t")
    assert outcome.code == 4
    assert outcome.err == "error: not run, the shell is read-only: DELETE does not only read\nhint: add --rw to write\n"
    outcome = ask(plain_project, "SELECT 1 INTO u")
    assert outcome.code == 1
    assert outcome.err.endswith("\nhint: the shell is read-only: add --rw to write\n")


def test_what_only_reads_is_allowed(plain_project):
    plain_project.database.admin(SETUP)
    allowed = ["VALUES (1)", "TABLE t", "(SELECT 1)", "WITH x AS (SELECT 1) SELECT * FROM x", "SHOW work_mem"]
    allowed += [
        "EXPLAIN DELETE FROM t",
        "COPY t TO STDOUT",
        "-- a comment\nSELECT 1;",
        "SELECT 1; -- done",
        "select ';'",
    ]
    for statement in allowed:
        ask(plain_project, statement).ok()


def test_no_statement_is_usage(plain_project):
    for statement in ("", " ;; ", "-- nothing", "/* nothing */"):
        assert ask(plain_project, statement).code == 1


def test_what_is_not_closed_is_refused(plain_project):
    for statement in ("SELECT 'a", 'SELECT "a', "SELECT $$a", "SELECT (1", "SELECT /* 1"):
        outcome = ask(plain_project, statement)
        assert (outcome.code, outcome.out) == (4, "")


@BOTH_DRIVERS
def test_bytes_that_are_no_text(plain_project):
    outcome = ask(plain_project, os.fsdecode(b"SELECT '\xff'"))
    assert outcome.code == 1
    assert "not UTF-8" in outcome.err


# Texts that are nothing to us, and something to psql.


@WAYS
def test_texts_that_psql_would_read_otherwise(project):
    statement = (
        "SELECT ':DBNAME' AS \":x\", 'a'::text AS b, (ARRAY[1,2,3])[1:2] AS c, E'\\\\! x\\n' AS d, $$\\q :'y'$$ AS e, "
        '5 AS "o\'clock """ -- :z\n, \'日本 é\' AS ü'
    )
    assert data(project, statement) == {
        "columns": [":x", "b", "c", "d", "e", "o'clock \"", "ü"],
        "rows": [[":DBNAME", "a", "{1,2}", "\\! x\n", "\\q :'y'", 5, "日本 é"]],
        "tag": "",
    }


@BOTH_DRIVERS
def test_a_database_with_a_nasty_name(plain_server, make_database, make_project):
    from bed.servers import NASTY_NAME

    project = make_project(make_database(plain_server, NASTY_NAME))
    assert data(project, "SELECT current_database() AS d")["rows"] == [[NASTY_NAME]]


# What is printed.


@WAYS
def test_values_have_their_json_types(project):
    statement = """
        SELECT true AS a, 7::smallint AS b, 9007199254740993 AS c, 1.5::float8 AS d, 0.1::real AS e,
               1.10::numeric(9, 2) AS f, 12345678901234567890.12345 AS g, 'NaN'::float8 AS h,
               '{"k": [1, null, 1.10]}'::jsonb AS i, '[1, {}]'::json AS j, ARRAY[1, 2] AS k, NULL::int AS l,
               '2024-05-01'::date AS m, 'x'::text AS n, '3 days'::interval AS o, 5::oid AS p
    """
    assert data(project, statement)["rows"] == [
        [True, 7, 9007199254740993, 1.5, 0.1, 1.1, "12345678901234567890.12345", "NaN", {"k": [1, None, 1.1]}, [1, {}],
         "{1,2}", None, "2024-05-01", "x", "3 days", 5]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        (None, "integer", None),
        ("f", "boolean", False),
        ("-0", "double precision", 0),
        ("1e+20", "double precision", 1e20),
        ("Infinity", "numeric", "Infinity"),
        ("0.30000000000000004", "numeric", 0.30000000000000004),
        ("0.1234567890123456789", "numeric(30,19)", "0.1234567890123456789"),
        ("9" * 5000, "numeric", "9" * 5000),
        ("0.1234567890123456789", "jsonb", "0.1234567890123456789"),
        ('"\\ud800"', "json", "\ud800"),
        ("[" * 100000 + "]" * 100000, "json", "[" * 100000 + "]" * 100000),
        ("null", "jsonb", None),
        ("12", "", "12"),
        ("$1.00", "money", "$1.00"),
    ],
)  # fmt: skip
def test_json_has_a_value_exactly_or_as_its_text(text, kind, value):
    assert json_value(text, kind) == value


@BOTH_DRIVERS
def test_columns_of_one_name_are_all_there(plain_project):
    shown = data(plain_project, 'SELECT 1 AS a, 2 AS a, 3 AS "A"')
    assert (shown["columns"], shown["rows"]) == (["a", "a", "A"], [[1, 2, 3]])


# Statements whose table must be psql's to the last blank.
TABLES = [
    "SELECT 1 AS id, 'one' AS name, 1.5 AS n, NULL AS nothing, true AS b, 'last' AS l",
    "SELECT * FROM (VALUES (1, 'a'), (1000, 'longer')) v (number, \"A wide title\")",
    "SELECT E'a\\nb\\n' AS x, 1 AS \"two\nlines\", E'1\\n22\\n\\n333' AS y",
    "SELECT 1 AS a WHERE false",
    "SELECT",
    "SELECT FROM generate_series(1, 3)",
    "SELECT '' AS a",
    "SELECT '日本' AS wide, 'é' AS \"ü\", E'e\\u0301' AS c, 3 AS n",
    "SELECT E'a\\tb\\t' AS tabs, E'\\rx' AS cr, E'\\x01' AS control, 5::oid AS o, '1'::money AS m, '7'::xid AS x",
    "SELECT repeat('x', 300) AS long, ARRAY[1,2] AS a, '{\"a\": 1}'::jsonb AS j",
    "EXPLAIN SELECT 1",
    "SHOW work_mem",
]


@BOTH_DRIVERS
def test_the_table_is_psqls(plain_project):
    cluster = plain_project.database.server.cluster
    env = {"PATH": os.environ["PATH"], "PGPASSWORD": cluster.password, "PGCLIENTENCODING": "UTF8", "LC_ALL": "C.UTF-8"}
    where = f"host={cluster.host} port={cluster.port} user={cluster.user} dbname={plain_project.database.name}"
    for statement in TABLES:
        psql = subprocess.run(
            ["psql", "-X", where, "-c", statement], env=env, capture_output=True, encoding="utf-8", check=True
        )
        assert ask(plain_project, statement).ok().out == psql.stdout.removesuffix("\n"), statement


def test_a_table_has_nothing_in_it_that_a_terminal_would_obey():
    text = aligned(Result(["a\x1b[31m"], [""], [["\x1b]0;x\x07\u202e"]], ""))
    assert text.splitlines() == ["     a\\x1b[31m      ", "-" * 20, " \\x1b]0;x\\x07\\u202e", "(1 row)"]


@BOTH_DRIVERS
def test_the_lines_of_copy_are_printed_as_they_are(plain_project):
    statement = "COPY (SELECT 'COPY 1' UNION ALL SELECT E'a\\tb, \"c\"') TO STDOUT"
    assert ask(plain_project, statement).ok().out == 'COPY 1\na\\tb, "c"\n'
    assert ask(plain_project, "COPY (SELECT 1 WHERE false) TO STDOUT").ok().out == ""


@BOTH_DRIVERS
def test_binary_copy_is_refused(plain_project):
    outcome = ask(plain_project, "COPY (SELECT 1) TO STDOUT (FORMAT binary)", timeout=20)
    assert outcome.code == 1
    assert "binary" in outcome.err
    for statement in ("SELECT 'PGCOPY' AS a", "COPY (SELECT 'PGCOPY') TO STDOUT"):
        assert "PGCOPY" in ask(plain_project, statement).ok().out


@BOTH_DRIVERS
def test_an_error_has_its_line_and_caret(plain_project):
    outcome = ask(plain_project, "SELECT 1,\n  '日本', nope\nFROM pg_class")
    assert outcome.code == 1
    assert outcome.err.startswith(
        "error: column \"nope\" does not exist (SQLSTATE 42703)\n    '日本', nope\n            ^\n"
    )
    document = ask(plain_project, "SELECT nope", "--json").json()
    assert document["error"]["excerpt"] == "  SELECT nope\n         ^"


@BOTH_DRIVERS
def test_notices_are_shown(plain_project):
    outcome = ask(plain_project, "DROP TABLE IF EXISTS nowhere", "--rw").ok()
    assert outcome.out == "DROP TABLE\n"
    assert outcome.err == 'warning: notice: table "nowhere" does not exist, skipping\n'


def test_dry_run_shows_the_statement_and_its_mode(plain_project):
    plain_project.database.admin(SETUP)
    outcome = ask(plain_project, "UPDATE t SET name = ':x'", "--rw", "--dry-run").ok()
    assert outcome.out.startswith("-- run one statement (read-write) [read-write]\nUPDATE t SET name = ':x'\n")
    assert plain_project.database.admin("SELECT count(*) AS n FROM t WHERE name = ':x'") == [{"n": 0}]


# Writing.


@WAYS
def test_rw_writes_and_says_what_it_did(project):
    project.database.admin(SETUP)
    assert ask(project, "UPDATE t SET name = 'x'", "--rw").ok().out == "UPDATE 2\n"
    assert data(project, "DELETE FROM t WHERE id = 2 RETURNING id, name", "--rw") == {
        "columns": ["id", "name"], "rows": [[2, "x"]], "tag": "",
    }  # fmt: skip
    assert ask(project, "VACUUM ANALYZE t", "--rw").ok().out == "VACUUM\n"
    assert ask(project, "CREATE INDEX CONCURRENTLY i ON t (name)", "--rw").ok().out == "CREATE INDEX\n"
    assert ask(project, "COPY t (id) FROM STDIN;\n7\n8\n\\.\n", "--rw").ok().out == "COPY 2\n"
    assert ask(project, "DO $$ BEGIN DELETE FROM t WHERE id = 7; END $$", "--rw").ok().out == "DO\n"
    assert project.database.admin("SELECT id, name FROM t ORDER BY id") == [
        {"id": 1, "name": "x"},
        {"id": 8, "name": None},
    ]


@BOTH_DRIVERS
def test_rw_takes_one_statement_too(plain_project):
    plain_project.database.admin(SETUP)
    assert ask(plain_project, "DELETE FROM t; SELECT 1", "--rw").code == 4
    assert ask(plain_project, "COPY t FROM STDIN", "--rw", timeout=20).code == 4
    assert plain_project.database.admin("SELECT count(*) AS n FROM t") == [{"n": 2}]


# psql on the terminal.


class Terminal:
    """`nself-db shell` in a pseudo terminal of its own."""

    def __init__(self, project, *words, **env):
        self.text = ""
        self._is_over = False
        runner = project._runner
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 200, 0, 0))  # else psql would page every answer
            os.chdir(project.root)
            environ = runner.environment({"TERM": "xterm", "LC_ALL": "C.UTF-8", **env})
            os.execve(sys.executable, [sys.executable, "-m", "nself_db", "shell", *words], environ)

    def expect(self, pattern, seconds=20):
        """Read until the text since the last match has `pattern`; the match."""
        deadline = time.monotonic() + seconds
        while True:
            match = re.search(pattern, self.text)
            if match:
                self.text = self.text[match.end() :]
                return match
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.text!r}"
            if select.select([self._master], [], [], 0.2)[0]:
                self._read()

    def _read(self):
        try:
            data = os.read(self._master, 65536)
        except OSError:
            data = b""
        assert data, f"the terminal was closed: {self.text!r}"
        self.text += data.decode(errors="replace")

    def type(self, text):
        """Type a line."""
        os.write(self._master, (text + "\r").encode())

    def press(self, key):
        """Press a key."""
        os.write(self._master, key)

    def code(self):
        """The exit code of the program, which must end now."""
        pid, status = wait_until(self._ended, 20, lambda: f"the program has not ended: {self.text!r}")
        self._is_over = True
        return os.waitstatus_to_exitcode(status)

    def _ended(self):
        if select.select([self._master], [], [], 0)[0]:
            with contextlib.suppress(OSError):
                self.text += os.read(self._master, 65536).decode(errors="replace")
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return (pid, status) if pid else None

    def close(self):
        """End what is left."""
        if not self._is_over:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._master)


@pytest.fixture
def terminal():
    """terminal(project, *words, **env) -> a Terminal, closed after the test."""
    made = []

    def make(*arguments, **env):
        made.append(Terminal(*arguments, **env))
        return made[-1]

    yield make
    for each in made:
        each.close()


@WAYS
def test_a_terminal_names_env_and_mode_and_does_not_write(project, terminal):
    shell = terminal(project)
    shell.expect(r"dev read-only \S+=[#>] ")
    shell.type("CREATE TABLE u (a int);")
    shell.expect("cannot execute CREATE TABLE in a read-only transaction")
    shell.type("SELECT 'é' || 6 * 7;")
    shell.expect("é42")
    shell.type("\\q")
    assert shell.code() == 0
    assert project.database.admin("SELECT 1 FROM pg_class WHERE relname = 'u'") == []


@pytest.mark.servers("container-15", "url-psql-17")
def test_a_terminal_with_rw_writes(project, terminal):
    shell = terminal(project, "--rw")
    shell.expect(r"dev read-write \S+=[#>] ")
    shell.type("CREATE TABLE u (a int);")
    shell.expect(r"CREATE TABLE\r")
    shell.type("\\q")
    assert shell.code() == 0


def test_the_prompt_is_red_on_prod(plain_project, terminal):
    plain_project.write_env(plain_project.database.settings, ".env.prod")
    terminal(plain_project, "--env", "prod").expect("\x1b\\[1;31mprod read-only .*\x1b\\[0m")
    terminal(plain_project, "--env", "prod", NO_COLOR="1").expect(r"[hn\n]prod read-only \S+=[#>] ")


def test_a_superuser_is_warned_before_psql_starts(plain_project, terminal):
    shell = terminal(plain_project)
    shell.expect("logged in as a superuser: .* make a reader role with: nself-db shell --install-reader")
    shell.expect("dev read-only")


@pytest.mark.servers("container-15", "url-psql-17")
def test_ctrl_c_ends_the_query_and_not_the_shell(project, terminal):
    shell = terminal(project)
    shell.expect("dev read-only")
    shell.type("SELECT pg_sleep(60);")
    running = "SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60);' AND state = 'active'"
    wait_until(lambda: project.database.admin(running), 20)
    shell.press(b"\x03")
    shell.expect("canceling statement due to user request")
    shell.expect("dev read-only .*# ")
    shell.type("SELECT 6 * 7;")
    shell.expect("42")
    shell.expect("dev read-only .*# ")
    shell.press(b"\x04")
    assert shell.code() == 0


@pytest.mark.servers("container-15", "url-psql-17")
def test_the_exit_code_is_psqls(project):
    outcome = project.run("shell", stdin="\\set ON_ERROR_STOP on\nSELECT nope;\n")
    assert outcome.code == 3
    assert 'column "nope" does not exist' in outcome.err


@WAYS
def test_input_from_a_pipe(project):
    outcome = project.run("shell", stdin="\\pset format unaligned\n\\t on\nSELECT 'é' || 6 * 7;\n").ok()
    assert outcome.out.splitlines()[-1] == "é42"
    outcome = project.run("shell", stdin="CREATE TABLE u (a int);\n")
    assert "cannot execute CREATE TABLE in a read-only transaction" in outcome.err
    assert project.database.admin("SELECT 1 FROM pg_class WHERE relname = 'u'") == []


def test_options_in_the_url_do_not_make_the_terminal_read_write(plain_project):
    url = plain_project.database.settings["NSELF_DB_URL"] + "?options=-c%20default_transaction_read_only%3Doff"
    outcome = plain_project.run("shell", "--url", url, stdin="CREATE TABLE u (a int);\n")
    assert "cannot execute CREATE TABLE in a read-only transaction" in outcome.err


def test_a_psqlrc_of_the_user_is_not_read(plain_project, tmp_path):
    rc = tmp_path / "psqlrc"
    rc.write_text("SET default_transaction_read_only = off;\n", encoding="utf-8")
    outcome = plain_project.run("shell", stdin="CREATE TABLE u (a int);\n", env={"PSQLRC": str(rc)})
    assert "read-only transaction" in outcome.err


def test_a_terminal_has_no_json(plain_project):
    outcome = plain_project.run("shell", "--json")
    assert outcome.code == 1
    assert outcome.json()["error"]["code"] == "usage"


def test_a_terminal_is_shown_by_dry_run(plain_project):
    outcome = plain_project.run("shell", "--dry-run").ok()
    assert outcome.out.startswith("-- open psql (read-only) [read-only]\n")


def test_no_psql_on_the_host(plain_project, tmp_path):
    outcome = plain_project.run("shell", "--driver", "psycopg", env={"PATH": str(tmp_path)})
    assert outcome.code == 2
    assert "hint: install a Postgres client, or use shell --command\n" in outcome.err
    ask(plain_project, "SELECT 1", "--driver", "psycopg", env={"PATH": str(tmp_path)}).ok()


# The reader role.


@pytest.fixture
def with_reader(project):
    """`project` with tables, whose server has no reader role before and after."""
    drop = """
        DO $$ BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'nself_reader') THEN
            DROP OWNED BY nself_reader; DROP ROLE nself_reader;
        END IF; END $$
    """
    project.database.admin(drop)
    project.database.admin(SETUP)
    project.database.admin('CREATE SCHEMA "nasty ""s"; CREATE TABLE "nasty ""s".t AS SELECT 7 AS a')
    project.database.admin("CREATE TABLE owned (tenant text); INSERT INTO owned VALUES ('a'), ('b')")
    project.database.admin("ALTER TABLE owned ENABLE ROW LEVEL SECURITY")
    project.database.admin("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    yield project
    project.database.admin(drop)


ALL_OF_IT = pytest.mark.servers("container-13", "container-15", "url-psql-13", "url-psycopg-17", "embedded-16")


def install(project):
    """Make the reader role, or make it again."""
    return project.run("shell", "--install-reader", "--force", "--json").ok()


@ALL_OF_IT
def test_both_forms_log_in_as_the_reader(with_reader):
    assert install(with_reader).json()["data"] == {"reader": "nself_reader"}
    outcome = ask(with_reader, "SELECT current_user, session_user", "--json").ok()
    assert outcome.json()["data"]["rows"] == [["nself_reader", "nself_reader"]]
    assert outcome.json()["warnings"] == []
    outcome = with_reader.run("shell", stdin="\\t on\nSELECT current_user;\n").ok()
    assert "nself_reader" in outcome.out
    assert outcome.err == ""
    assert data(with_reader, "SELECT current_user::text AS u", "--rw")["rows"] != [["nself_reader"]]


@ALL_OF_IT
def test_the_reader_reads_everything(with_reader):
    install(with_reader)
    statement = 'SELECT (SELECT count(*) FROM t), (SELECT a FROM "nasty ""s".t), (SELECT count(*) FROM owned)'
    assert data(with_reader, statement)["rows"] == [[2, 7, 2]]
    assert data(with_reader, "SELECT last_value FROM s")["rows"] == [[1]]
    with_reader.database.admin(
        "CREATE SCHEMA later; CREATE TABLE later.t AS SELECT 1 AS a; CREATE TABLE later_too (a int)"
    )
    assert data(with_reader, "SELECT count(*) FROM later.t, later_too")["rows"] == [[0]]


ACTS = [
    "DO $$ BEGIN EXECUTE 'COPY t TO PROGRAM ''touch {touched}'''; END $$",
    "DO $$ BEGIN EXECUTE 'COPY t TO ''{touched}'''; END $$",
    "DO $$ BEGIN EXECUTE 'SET ROLE {owner}'; EXECUTE 'SET transaction_read_only = off'; DELETE FROM t; END $$",
    "DO $$ BEGIN EXECUTE 'SET SESSION AUTHORIZATION {owner}'; END $$",
    "DO $$ BEGIN EXECUTE 'RESET SESSION AUTHORIZATION'; DELETE FROM t; END $$",
    "DO $$ BEGIN COMMIT; DELETE FROM t; END $$",
    "DO $$ BEGIN ROLLBACK; DELETE FROM t; END $$",
    "DO $$ BEGIN PERFORM pg_reload_conf(); END $$",
    "DO $$ BEGIN PERFORM pg_read_file('PG_VERSION'); END $$",
    "DO $$ BEGIN PERFORM lo_export(1, '{touched}'); END $$",
    "DO $$ BEGIN EXECUTE 'CREATE ROLE made'; END $$",
    "DO $$ BEGIN EXECUTE 'ALTER SYSTEM SET work_mem = ''64MB'''; END $$",
    "DO $$ BEGIN EXECUTE 'ALTER ROLE nself_reader RESET default_transaction_read_only'; END $$",
    "DO $$ BEGIN PERFORM set_config('transaction_read_only', 'off', true); DELETE FROM t; END $$",
    "CALL p()",
    "SELECT pg_reload_conf()",
    "SELECT writes()",
    "SELECT pg_ls_dir('/')",
]


@ALL_OF_IT
def test_the_reader_cannot_act(with_reader, tmp_path):
    install(with_reader)
    before = with_reader.database.admin(STATE)
    names = {"touched": str(tmp_path / "touched"), "owner": with_reader.database.server.cluster.user}
    for statement in ACTS:
        for name, value in names.items():
            statement = statement.replace(f"{{{name}}}", value)
        outcome = ask(with_reader, statement)
        assert outcome.code == 1, outcome
    lo_create = ask(with_reader, "DO $$ BEGIN PERFORM lo_create(0); END $$")
    assert lo_create.code in (0, 1)
    assert with_reader.database.admin(STATE) == before
    assert not (tmp_path / "touched").exists()
    assert with_reader.database.admin("SELECT 1 FROM pg_roles WHERE rolname = 'made'") == []


@ALL_OF_IT
def test_installing_again_changes_nothing(with_reader):
    roles = """
        SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolcanlogin,
               ARRAY (SELECT roleid::regrole::text FROM pg_auth_members WHERE member = r.oid) AS member
        FROM pg_roles r WHERE rolname = 'nself_reader'
    """
    install(with_reader)
    before = with_reader.database.admin(roles)
    install(with_reader)
    assert with_reader.database.admin(roles) == before
    assert [*before[0].values()][:5] == [False, False, False, False, True]
    ask(with_reader, "SELECT 1").ok()


@pytest.mark.servers("url-psql-15")
def test_a_reader_that_was_made_too_mighty_is_cut_down(with_reader):
    with_reader.database.admin("CREATE ROLE nself_reader SUPERUSER CREATEDB")
    install(with_reader)
    row = "SELECT rolsuper, rolcreatedb, rolcanlogin FROM pg_roles WHERE rolname = 'nself_reader'"
    assert [*with_reader.database.admin(row)[0].values()] == [False, False, True]


@pytest.fixture
def by_chief(with_reader):
    """with_reader, whose login `chief` makes roles and is no superuser."""
    admin = with_reader.database.admin
    admin("CREATE ROLE chief LOGIN CREATEROLE PASSWORD 'his word'")
    admin(f'GRANT ALL ON DATABASE "{with_reader.database.name}" TO chief WITH GRANT OPTION')
    url = with_reader.database.server.cluster.url(with_reader.database.name, user="chief", password="his word")
    with_reader.write_env({**with_reader.database.settings, "NSELF_DB_URL": url})
    yield with_reader
    admin("DROP OWNED BY chief CASCADE; DROP ROLE IF EXISTS nself_reader; DROP ROLE chief")


@pytest.mark.servers("url-psql-15", "url-psql-16")
def test_an_owner_who_is_no_superuser_may_install_it_twice(by_chief, server):
    if server.version > 15:
        outcome = by_chief.run("shell", "--install-reader", "--force")
        assert outcome.code == 1 and "error: chief may not grant pg_read_all_data" in outcome.err
        assert 'hint: a superuser lets it: GRANT pg_read_all_data TO "chief" WITH ADMIN OPTION' in outcome.err
        by_chief.database.admin("GRANT pg_read_all_data TO chief WITH ADMIN OPTION")
    install(by_chief)
    install(by_chief)
    assert data(by_chief, "SELECT current_user::text AS u, count(*) FROM t")["rows"] == [["nself_reader", 2]]


@pytest.mark.servers("url-psql-13")
def test_a_reader_without_the_right_is_told_how_to_get_it(with_reader):
    install(with_reader)
    with_reader.database.admin("CREATE TABLE secret (a int); REVOKE ALL ON secret FROM nself_reader")
    outcome = ask(with_reader, "SELECT * FROM secret")
    assert outcome.code == 1
    assert (
        "hint: this ran as nself_reader; to let it read what is new: nself-db shell --install-reader\n" in outcome.err
    )


def test_the_reader_is_made_with_consent_only(plain_project):
    outcome = plain_project.run("shell", "--install-reader")
    assert outcome.code == 4
    assert plain_project.database.admin("SELECT 1 FROM pg_roles WHERE rolname = 'nself_reader'") == []
    shown = plain_project.run("shell", "--install-reader", "--dry-run").ok()
    assert 'CREATE ROLE "nself_reader" LOGIN' in shown.out
    assert plain_project.database.admin("SELECT 1 FROM pg_roles WHERE rolname = 'nself_reader'") == []


def test_installing_does_nothing_else(plain_project):
    for words in (("--command", "SELECT 1"), ("--rw",)):
        assert plain_project.run("shell", "--install-reader", "--force", *words).code == 1


def test_a_wrong_password_of_the_reader_falls_back_with_a_warning(plain_project):
    admin = plain_project.database.admin
    admin("CREATE ROLE nself_reader LOGIN PASSWORD 'right'")
    try:
        for password, user, warned in (("wrong", False, True), ("right", True, False)):
            outcome = ask(
                plain_project,
                "SELECT current_user = 'nself_reader' AS r",
                "--json",
                env={"NSELF_DB_READER_PASSWORD": password},
            )
            assert outcome.ok().json()["data"]["rows"] == [[user]]
            assert bool(outcome.json()["warnings"]) is warned
    finally:
        admin("DROP ROLE nself_reader")


def test_a_password_file_that_cannot_be_written(plain_project):
    plain_project.write(".nself", "a file where a folder should be")
    outcome = plain_project.run("shell", "--install-reader", "--force")
    assert outcome.code == 1
    assert "cannot be written" in outcome.err
    assert plain_project.database.admin("SELECT 1 FROM pg_roles WHERE rolname = 'nself_reader'") == []


def test_the_verifier_is_one_that_the_server_takes(plain_project):
    admin = plain_project.database.admin
    password = "pä ss'\"\\%"
    verifier = scram_verifier(password, b"0123456789abcdef")
    admin(sql.SQL("CREATE ROLE verified LOGIN PASSWORD {}").format(sql.Literal(verifier)))
    try:
        with plain_project.database.connect(user="verified", password=password) as connection:
            assert connection.execute("SELECT current_user AS u").fetchone() == {"u": "verified"}
    finally:
        admin("DROP ROLE verified")


def test_without_a_reader_a_superuser_is_warned(plain_project):
    document = ask(plain_project, "SELECT 1", "--json").ok().json()
    (warning,) = document["warnings"]
    assert "superuser" in warning and "--install-reader" in warning
    assert json.dumps(document["data"]["rows"]) == "[[1]]"
