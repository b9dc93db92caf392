"""The two kinds of session, psql's and libpq's: their answers, what they tell of failures, how they are reached."""

from __future__ import annotations

import json
import os
import signal
import stat
import time
from collections import namedtuple

import pytest
from bed.local_processes import wait_until

from nself_core.failures import CredentialsRefused, SqlFailure, Unreachable, UsageFailure
from nself_core.postgres import reach
from nself_core.postgres.database import SQL_PROCESS, Database
from nself_core.postgres.session import CLOSING, OPENING, ConnectionLost, StatementFailed, Unit
from nself_core.settings import load_settings

BOTH_DRIVERS = pytest.mark.parametrize("plain_server", ["psql", "psycopg"], indirect=True)
WAYS = pytest.mark.servers("container-13", "url-psql-17", "url-psycopg-17", "embedded-18")

Statement = namedtuple("Statement", "text copy_data", defaults=(None,))


def open_database(project, **values):
    """The Database of a project, as a command opens it, with more settings on top."""
    return Database(load_settings(project=str(project.root), environ={"HOME": os.environ["HOME"], **values}), "test")


@pytest.fixture
def opened():
    """opened(project) -> a Database, closed after the test."""
    made = []

    def make(project, **values):
        made.append(open_database(project, **values))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def session(plain_project, opened):
    """A session of `plain_project`."""
    return opened(plain_project).session()


def unit(*texts, **parts):
    """A Unit of statements without data."""
    return Unit("unit", statements=[Statement(text) for text in texts], **parts)


# What a session answers.


@WAYS
def test_rows_have_json_types(project, opened):
    rows = opened(project).rows(
        "SELECT 1 AS n, 1.5 AS f, true AS b, NULL AS nothing, 'a''\\b' AS t, ARRAY[1,2] AS a, "
        "'{\"k\": [1]}'::jsonb AS j"
    )
    assert rows == [{"n": 1, "f": 1.5, "b": True, "nothing": None, "t": "a'\\b", "a": [1, 2], "j": {"k": [1]}}]


@WAYS
def test_values_come_back_as_they_were_given(project, opened):
    values = [
        "",
        "'",
        "\\",
        "\\.",
        "$nself$",
        "a\r\nb\tc\n",
        "日本 é ü",
        "; DROP TABLE x; --",
        ":DBNAME",
        "\x01\x7f",
        None,
    ]
    database = opened(project)
    for value in values:
        assert database.rows("SELECT :value::text AS v", value=value) == [{"v": value}]


@BOTH_DRIVERS
def test_no_rows_are_an_empty_list(session):
    assert session.rows("SELECT 1 AS n WHERE false") == []


@BOTH_DRIVERS
def test_a_large_answer_arrives_whole(session):
    (row,) = session.rows("SELECT repeat('é', 1000000) AS text")
    assert row["text"] == "é" * 1000000


@BOTH_DRIVERS
def test_a_session_keeps_its_state_between_questions(session):
    session.execute("CREATE TEMP TABLE t (a int)", "INSERT INTO t VALUES (1)")
    session.execute("INSERT INTO t VALUES (2)")
    assert session.rows("SELECT a FROM t ORDER BY a") == [{"a": 1}, {"a": 2}]


@BOTH_DRIVERS
def test_texts_of_one_execute_are_one_query(session):
    with pytest.raises(StatementFailed):
        session.execute("CREATE TABLE t (a int)", "SELECT 1/0")
    assert session.alive is False


# Units.


@WAYS
def test_units_run_in_order_and_are_told_one_by_one(project, opened):
    session = opened(project).session()
    first = Unit("first", ("BEGIN", "CREATE TABLE t (a int)"), [Statement("INSERT INTO t VALUES (1)")], ("COMMIT",))
    second = Unit("second", (), [Statement("INSERT INTO t VALUES (2)"), Statement("SELECT a FROM t")])
    assert [done.label for done in session.perform([first, second])] == ["first", "second"]
    assert session.rows("SELECT count(*) AS n FROM t") == [{"n": 2}]


@BOTH_DRIVERS
def test_more_units_than_are_written_ahead(session):
    session.execute("CREATE TEMP TABLE t (a int)")
    units = (Unit(n, statements=[Statement(f"INSERT INTO t VALUES ({n})")]) for n in range(100))
    assert [done.label for done in session.perform(units)] == list(range(100))
    assert session.rows("SELECT count(*) AS n FROM t") == [{"n": 100}]


@BOTH_DRIVERS
def test_the_row_of_the_opening_gives_variables_to_the_closing(session):
    session.execute("CREATE TEMP TABLE t (a text)")
    whole = Unit("u", ("BEGIN", "SELECT 'it''s' AS word"), [], ("INSERT INTO t VALUES (:'word')", "COMMIT"))
    assert len([*session.perform([whole])]) == 1
    assert session.rows("SELECT a FROM t") == [{"a": "it's"}]


@BOTH_DRIVERS
def test_copy_data_goes_to_its_statement(session):
    session.execute("CREATE TEMP TABLE t (a int, b text)")
    lines = "1\tone; 'x\n2\t\\N\n"
    assert [*session.perform([Unit("u", statements=[Statement("COPY t FROM stdin", lines)])])]
    assert session.rows("SELECT a, b FROM t ORDER BY a") == [{"a": 1, "b": "one; 'x"}, {"a": 2, "b": None}]


@WAYS
def test_notices_belong_to_their_unit(project, opened):
    raises = "DO $$ BEGIN RAISE WARNING E'first\\nsecond ü' USING DETAIL = 'why', HINT = 'so'; END $$"
    session = opened(project).session()
    quiet, loud, last = session.perform([unit("SELECT 1"), unit(raises), unit("SELECT 2")])
    assert (quiet.notices, last.notices) == ([], [])
    (notice,) = loud.notices
    assert (notice.severity, notice.message) == ("WARNING", "first\nsecond ü")
    assert (notice.detail, notice.hint, notice.sqlstate) == ("why", "so", "01000")


@BOTH_DRIVERS
def test_nothing_after_a_failed_statement_runs(session, plain_project):
    session.execute("CREATE TABLE t (a int)")
    with pytest.raises(StatementFailed) as failed:
        [
            *session.perform(
                [unit("INSERT INTO t VALUES (1)", "SELECT 1/0", "INSERT INTO t VALUES (2)"), unit("DROP TABLE t")]
            )
        ]
    assert (failed.value.label, failed.value.index, failed.value.error.sqlstate) == ("unit", 1, "22012")
    assert plain_project.database.admin("SELECT a FROM t") == [{"a": 1}]


@BOTH_DRIVERS
@pytest.mark.parametrize(("part", "index"), [("opening", OPENING), ("closing", CLOSING)])
def test_a_failure_in_our_own_part_is_named(session, part, index):
    with pytest.raises(StatementFailed) as failed:
        [*session.perform([unit("SELECT 1", **{part: ("BEGIN", "SELECT nope")})])]
    assert failed.value.index == index


@BOTH_DRIVERS
def test_notices_before_the_failure_come_with_it(session):
    with pytest.raises(StatementFailed) as failed:
        [*session.perform([unit("DO $$ BEGIN RAISE WARNING 'look'; END $$", "SELECT 1/0")])]
    assert [notice.message for notice in failed.value.notices] == ["look"]


# Errors and their places.

PLACES = [
    ("SELECT nope", 1, 8),
    ("SELECT 1,\n\n  nope", 3, 3),
    ("SELECT 1,\r\n  nope", 2, 3),
    ("SELECT '日本語', nope", 1, 15),
    ("SELECT 'e\u0301', nope", 1, 14),
    ("\tSELECT\t'a',\tnope", 1, 14),
    (f"SELECT {'1, ' * 100}nope, {'2, ' * 100}3", 1, 308),
    (f"SELECT {'1, ' * 100}nope", 1, 308),
    (f"SELECT {'日本, ' * 50}nope FROM (SELECT 1 AS 日本) x", 1, 208),
    ("SELECT a.b.", 1, 12),
    ("SELECT '...' || nope", 1, 17),
]


@BOTH_DRIVERS
def test_an_error_has_its_line_and_column(plain_project, opened):
    for text, line, column in PLACES:
        with opened(plain_project).session() as session, pytest.raises(StatementFailed) as failed:
            [*session.perform([unit(text)])]
        assert (failed.value.error.line, failed.value.error.column) == (line, column), text


@WAYS
def test_an_error_has_detail_hint_and_context(project, opened):
    text = """DO $$ BEGIN
        RAISE EXCEPTION 'no: %', E'a\\nb' USING DETAIL = E'line 1\\nline 2', HINT = 'try', ERRCODE = 'XY123';
    END $$"""
    with pytest.raises(StatementFailed) as failed:
        [*opened(project).session().perform([unit(text)])]
    error = failed.value.error
    assert (error.sqlstate, error.message, error.detail, error.hint) == ("XY123", "no: a\nb", "line 1\nline 2", "try")
    assert "inline_code_block line 2" in error.context


@BOTH_DRIVERS
def test_an_error_inside_a_function_shows_its_query(session):
    text = "DO $$ BEGIN PERFORM nope FROM pg_class; END $$"
    with pytest.raises(StatementFailed) as failed:
        [*session.perform([unit(text)])]
    assert "nope" in failed.value.error.internal
    assert failed.value.error.line is None


@BOTH_DRIVERS
def test_the_database_answers_again_after_a_failed_question(plain_project, opened):
    database = opened(plain_project)
    with pytest.raises(SqlFailure, match="division by zero"):
        database.rows("SELECT 1/0 AS n")
    assert database.rows("SELECT 1 AS n") == [{"n": 1}]


# A person's statement.


@WAYS
def test_a_query_has_columns_types_and_texts(project, opened):
    result = opened(project).session().query('SELECT 1 AS n, NULL AS n, \'a,"b"\n\' AS t, true AS "B :x"')
    assert result.columns == ["n", "n", "t", "B :x"]
    assert result.rows == [["1", None, 'a,"b"\n', "t"]]
    assert [kind if kind in ("integer", "boolean") else "" for kind in result.types] == ["integer", "", "", "boolean"]


RESULTS = [
    ("SELECT ''", ["?column?"], [[""]], ""),
    ("SELECT NULL AS a", ["a"], [[None]], ""),
    ("SELECT '\\.' AS a", ["a"], [["\\."]], ""),
    ("SELECT", [], [[]], ""),
    ("SELECT FROM generate_series(1, 3)", [], [[], [], []], ""),
    ("SELECT WHERE false", [], [], ""),
    ("SELECT 1 AS a WHERE false", ["a"], [], ""),
    ("SELECT ':DBNAME' AS a, (ARRAY[1,2,3])[1:2]::text AS b", ["a", "b"], [[":DBNAME", "{1,2}"]], ""),
    ("CREATE TABLE t (a int)", [], [], "CREATE TABLE"),
    ("CREATE TABLE u AS SELECT 1 AS a", [], [], "SELECT 1"),
    ("COPY (SELECT 'COPY me' UNION ALL SELECT '') TO STDOUT", ["copy"], [["COPY me"], [""]], "COPY"),
    ("COPY (SELECT 1 WHERE false) TO STDOUT", ["copy"], [], "COPY"),
    ("VACUUM t", [], [], "VACUUM"),
    ("DROP TABLE IF EXISTS v", [], [], "DROP TABLE"),
]


@WAYS
def test_the_results_of_statements(project, opened):
    database = opened(project)
    for text, columns, rows, tag in RESULTS:
        with database.connect() as session:
            result = session.query(text)
        assert (result.columns, result.rows, result.tag) == (columns, rows, tag), text


@BOTH_DRIVERS
def test_returning_gives_rows_and_no_tag(session):
    session.execute("CREATE TEMP TABLE t (a int, b text)")
    result = session.query("INSERT INTO t VALUES (1, 'x'), (2, NULL) RETURNING a, b")
    assert (result.columns, result.rows, result.tag) == (["a", "b"], [["1", "x"], ["2", None]], "")


@BOTH_DRIVERS
def test_copy_of_a_person_takes_its_own_lines(session):
    session.execute("CREATE TEMP TABLE t (a int)")
    assert session.query("COPY t FROM stdin", copy_data="1\n2\n").tag == "COPY 2"


@BOTH_DRIVERS
def test_copy_to_stdout_keeps_every_kind_of_line_end(session):
    result = session.query("COPY (SELECT E'a\\u2028b\\x0b\\x1cc\\rd') TO STDOUT CSV")
    assert result.rows == [['"a\u2028b\x0b\x1cc\rd"']]


@BOTH_DRIVERS
def test_a_field_of_a_megabyte(session):
    assert session.query("SELECT repeat('x', 1000000) AS a").rows == [["x" * 1000000]]


@WAYS
def test_a_second_statement_does_not_come_along(project, opened):
    with pytest.raises(StatementFailed) as failed:
        opened(project).session().query("CREATE TABLE t (a int); SELECT 2")
    assert failed.value.error.sqlstate == "42601"
    assert project.database.admin("SELECT 1 AS n FROM pg_class WHERE relname = 't'") == []


@BOTH_DRIVERS
def test_semicolons_inside_one_statement(session):
    session.execute("CREATE TABLE t (a int)")
    assert session.query("CREATE RULE r AS ON INSERT TO t DO ALSO (SELECT 1; SELECT 2)").tag == "CREATE RULE"


@BOTH_DRIVERS
def test_a_body_of_sql_with_semicolons(session):
    text = "CREATE FUNCTION f(n int) RETURNS bool BEGIN ATOMIC SELECT n::int; SELECT (ARRAY[1,2])[1:n] IS NULL; END"
    assert session.query(text).tag == "CREATE FUNCTION"


@BOTH_DRIVERS
def test_variables_of_psql_are_nothing_here(plain_project, opened):
    for text in ("SELECT :DBNAME", "SELECT :'HOST'", 'SELECT :"USER"', "SELECT :{?DBNAME}"):
        with opened(plain_project).session() as session, pytest.raises(StatementFailed) as failed:
            session.query(text)
        assert (failed.value.error.sqlstate, failed.value.error.column) == ("42601", 8)


@BOTH_DRIVERS
def test_bytes_that_are_no_text_are_a_usage_failure(session):
    with pytest.raises(UsageFailure, match="UTF-8"):
        session.query("SELECT '\udcff'")


@BOTH_DRIVERS
def test_notices_come_with_the_result(session):
    result = session.query("DO $$ BEGIN RAISE NOTICE 'hello'; END $$")
    assert [(notice.severity, notice.message) for notice in result.notices] == [("NOTICE", "hello")]


# Connections: what is set, and what is said when they fail.


@WAYS
def test_every_session_has_our_settings(project, opened):
    row = opened(project).rows(
        "SELECT current_setting('lock_timeout') AS lock_timeout, current_setting('application_name') AS application, "
        "current_setting('client_encoding') AS encoding, current_setting('standard_conforming_strings') AS strings"
    )[0]
    assert row == {"lock_timeout": "5s", "application": "nself-db test", "encoding": "UTF8", "strings": "on"}


@BOTH_DRIVERS
def test_what_stands_in_the_url_does_not_undo_our_settings(plain_project, opened):
    url = plain_project.database.settings["NSELF_DB_URL"]
    url += "?options=-c%20lock_timeout%3D0%20-c%20search_path%3Dnowhere&application_name=theirs&client_encoding=LATIN1"
    row = opened(plain_project, NSELF_DB_URL=url).rows(
        "SELECT current_setting('lock_timeout') AS lock_timeout, current_setting('application_name') AS application, "
        "current_setting('client_encoding') AS encoding, current_setting('search_path') AS path"
    )[0]
    assert row == {"lock_timeout": "5s", "application": "nself-db test", "encoding": "UTF8", "path": "nowhere"}


@BOTH_DRIVERS
def test_pgoptions_of_the_user_still_count(plain_project, opened, monkeypatch):
    monkeypatch.setenv("PGOPTIONS", "-c search_path=elsewhere")
    assert opened(plain_project).rows("SELECT current_setting('search_path') AS path") == [{"path": "elsewhere"}]


@BOTH_DRIVERS
def test_the_password_may_come_from_the_users_own_environment(plain_project, opened, monkeypatch):
    cluster = plain_project.database.server.cluster
    monkeypatch.setenv("PGPASSWORD", cluster.password)
    url = f"postgresql://{cluster.user}@{cluster.host}:{cluster.port}/{plain_project.database.name}"
    assert opened(plain_project, NSELF_DB_URL=url).rows("SELECT 1 AS n") == [{"n": 1}]


@BOTH_DRIVERS
def test_a_url_with_a_socket_folder(plain_project, opened):
    cluster = plain_project.database.server.cluster
    url = f"postgresql:///{plain_project.database.name}?host={cluster.socket_folder}&port={cluster.port}&user={cluster.user}"
    assert opened(plain_project, NSELF_DB_URL=url).rows("SELECT inet_client_addr() AS a") == [{"a": None}]


@BOTH_DRIVERS
@pytest.mark.parametrize("place", ["session", "unit"])
def test_a_killed_server_process_is_a_lost_connection(plain_project, opened, place):
    session = opened(plain_project).session()
    pid = session.rows("SELECT pg_backend_pid() AS pid")[0]["pid"]
    plain_project.database.admin(f"SELECT pg_terminate_backend({pid})")
    with pytest.raises(ConnectionLost):
        session.rows("SELECT 1 AS n") if place == "session" else [*session.perform([unit("SELECT 1")])]
    assert session.alive is False


@BOTH_DRIVERS
def test_a_server_that_ends_the_session_is_a_lost_connection(session):
    session.execute("SET idle_in_transaction_session_timeout = '100ms'", "BEGIN")
    time.sleep(0.3)
    with pytest.raises(ConnectionLost):
        session.execute("SELECT 1")


@BOTH_DRIVERS
def test_a_server_that_is_stopped_is_unreachable(new_plain, make_project, opened, plain_server):
    from bed.servers import Database as BedDatabase
    from bed.servers import Server

    cluster = new_plain()
    project = make_project(BedDatabase(Server(plain_server.kind, cluster), "postgres"))
    database = opened(project)
    assert database.rows("SELECT 1 AS n")
    cluster.stop()
    with pytest.raises(Unreachable):
        database.rows("SELECT 1 AS n")
    with pytest.raises(Unreachable, match="cannot be reached"):
        database.rows("SELECT 1 AS n")


@BOTH_DRIVERS
def test_a_proxy_that_cuts_the_stream_is_a_lost_connection(plain_project, opened, proxy):
    cluster = plain_project.database.server.cluster
    between = proxy(cluster)
    url = cluster.url(plain_project.database.name, port=between.port)
    session = opened(plain_project, NSELF_DB_URL=url).session()
    between.drop_all()
    with pytest.raises(ConnectionLost):
        session.rows("SELECT 1 AS n")


@BOTH_DRIVERS
def test_a_database_that_is_not_there(plain_project, opened):
    url = plain_project.database.server.cluster.url("no such database")
    with pytest.raises(Unreachable, match="does not exist") as failed:
        opened(plain_project, NSELF_DB_URL=url).rows("SELECT 1 AS n")
    assert "POSTGRES_DB" in failed.value.hint


@BOTH_DRIVERS
@pytest.mark.parametrize(("user", "password"), [(None, "wrong"), ("nobody here", "wrong")])
def test_refused_credentials(plain_project, opened, user, password):
    url = plain_project.database.server.cluster.url(plain_project.database.name, user=user, password=password)
    with pytest.raises(CredentialsRefused):
        opened(plain_project, NSELF_DB_URL=url).rows("SELECT 1 AS n")


@BOTH_DRIVERS
def test_a_user_without_the_right_to_connect_is_refused(plain_project, opened):
    admin = plain_project.database.admin
    admin(f'REVOKE CONNECT ON DATABASE "{plain_project.database.name}" FROM PUBLIC')
    admin("CREATE ROLE outsider LOGIN PASSWORD 'outside'")
    try:
        url = plain_project.database.server.cluster.url(
            plain_project.database.name, user="outsider", password="outside"
        )
        with pytest.raises(CredentialsRefused):
            opened(plain_project, NSELF_DB_URL=url).rows("SELECT 1 AS n")
    finally:
        admin("DROP ROLE outsider")


@BOTH_DRIVERS
def test_too_many_connections_are_no_matter_of_credentials(plain_project, opened):
    admin = plain_project.database.admin
    admin("CREATE ROLE crowded LOGIN PASSWORD 'crowd' CONNECTION LIMIT 0")
    try:
        url = plain_project.database.server.cluster.url(plain_project.database.name, user="crowded", password="crowd")
        with pytest.raises(Unreachable):
            opened(plain_project, NSELF_DB_URL=url).rows("SELECT 1 AS n")
    finally:
        admin("DROP ROLE crowded")


# URLs.


@pytest.mark.parametrize(
    ("url", "clean", "secrets", "options"),
    [
        ("postgresql://u:p%40%2F@h:5432/d", "postgresql://u@h:5432/d", {"password": "p@/"}, None),
        ("postgres://u@h/d", "postgres://u@h/d", {}, None),
        ("postgresql://u:a@b:c@h/d", "postgresql://u@h/d", {"password": "a@b:c"}, None),
        ("postgresql://u:p?x@h/d", "postgresql://u@h/d", {"password": "p?x"}, None),
        ("postgresql://u:p#x@h/d", "postgresql://u@h/d", {"password": "p#x"}, None),
        ("postgresql://u:p@[::1]:5/d", "postgresql://u@[::1]:5/d", {"password": "p"}, None),
        ("postgresql://u:p@a:1,b:2/d?sslmode=allow", "postgresql://u@a:1,b:2/d?sslmode=allow", {"password": "p"}, None),
        ("postgresql:///d?host=/run/pg&password=a/b", "postgresql:///d?host=/run/pg", {"password": "a/b"}, None),
        ("postgresql://h?host=/run/pg&password=a/b", "postgresql://h?host=/run/pg", {"password": "a/b"}, None),
        ("postgresql://u@h?application_name=a@b", "postgresql://u@h?application_name=a@b", {}, None),
        ("postgresql://h/d?pass%77ord=p", "postgresql://h/d", {"password": "p"}, None),
        ("postgresql://h/d?sslpassword=k&sslmode=allow", "postgresql://h/d?sslmode=allow", {"sslpassword": "k"}, None),
        ("postgresql://h/d?options=-c%20search_path%3Da", "postgresql://h/d", {}, "-c search_path=a"),
        ("postgresql://u:%C3%9F@%2Frun%2Fpg/d", "postgresql://u@%2Frun%2Fpg/d", {"password": "ß"}, None),
    ],
)  # fmt: skip
def test_a_url_is_taken_apart(url, clean, secrets, options):
    assert reach._take_apart(url) == (clean, secrets, options)


@pytest.mark.parametrize(
    "url",
    [
        "host=h password=s3cret",
        "mysql://u:s3cret@h/d",
        "postgresql://u:s3/cret@h/d",
        "postgresql://u:12/s3cret@h/d",
        "postgresql://u:s3@cret?x@h/d",
        "postgresql://h?password=s3@cret",
        "postgresql://u:s3cret%zz@h/d",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_repeating_it(url):
    with pytest.raises(UsageFailure) as failed:
        reach._take_apart(url)
    assert "cret" not in f"{failed.value.message} {failed.value.hint}"


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("postgresql://u@h:5432/d", "h:5432/d"),
        ("postgresql://u@[::1]/d?sslmode=require", "[::1]/d"),
        ("postgresql:///d?host=/run/pg", "/run/pg/d"),
        ("postgresql://", "the database URL"),
    ],
)
def test_the_place_in_words(url, where):
    assert reach._describe_url(url) == where


def test_a_secret_that_psql_would_take_in_its_arguments_is_refused(tmp_path):
    environ = {"NSELF_DB_URL": "postgresql://u@h/d?sslpassword=k", "NSELF_DB_DRIVER": "psql"}
    (tmp_path / "migrations").mkdir()
    with pytest.raises(UsageFailure, match="sslpassword"):
        Database(load_settings(project=str(tmp_path), environ=environ), "test").rows("SELECT 1")


def test_an_unknown_driver_or_engine_is_usage(tmp_path):
    (tmp_path / "migrations").mkdir()
    for environ in ({"NSELF_DB_URL": "postgresql://h/d", "NSELF_DB_DRIVER": "jdbc"}, {"NSELF_DB_ENGINE": "oracle"}):
        with pytest.raises(UsageFailure):
            reach.find_reach(load_settings(project=str(tmp_path), environ=environ))


# Containers.


@pytest.fixture
def docker_log(tmp_path):
    """A folder whose `docker` logs its arguments and runs the real one, and the log."""
    folder, log = tmp_path / "shim", tmp_path / "docker.log"
    folder.mkdir()
    real = next(path for path in os.environ["PATH"].split(":") if os.access(f"{path}/docker", os.X_OK))
    shim = folder / "docker"
    shim.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> "{log}"\nexec "{real}/docker" "$@"\n', encoding="utf-8")
    shim.chmod(shim.stat().st_mode | stat.S_IXUSR)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}, log


@pytest.mark.servers("container-15")
@pytest.mark.parametrize("words", [("migrate", "status"), ("migrate", "up"), ("list", "--counts")])
def test_a_container_costs_at_most_two_docker_execs(project, docker_log, words):
    project.migration("1_a", "CREATE TABLE np_a (id int);")
    project.run("migrate", "up").ok()
    env, log = docker_log
    project.run(*words, env=env).ok()
    calls = log.read_text(encoding="utf-8").splitlines()
    assert all(call.startswith("exec ") for call in calls)
    assert 1 <= len(calls) <= 2


@pytest.mark.servers("container-15")
def test_a_container_is_found_by_its_labels(project, server, bed):
    cluster = server.cluster
    name = f"{cluster.name}-labelled"
    engine = bed.engine()
    labels = {"com.docker.compose.project": "labelled", "com.docker.compose.service": "postgres"}
    labels["nself-db-tests"] = engine.session.id
    image = engine.client.containers.get(cluster.name).image
    env = {"POSTGRES_USER": cluster.user, "POSTGRES_PASSWORD": cluster.password}
    other = engine.client.containers.run(
        image, detach=True, name=name, labels=labels, environment=env, network_mode="none"
    )
    try:
        wait_until(lambda: "init process complete" in other.logs().decode(), 60)
        settings = {**project.database.settings, "PROJECT_NAME": "labelled", "POSTGRES_DB": cluster.user}
        project.write_env(settings)
        wait_until(lambda: project.run("list").code == 0, 20, lambda: repr(project.run("list")))
        outcome = project.run("shell", "--command", "SELECT current_setting('cluster_name') AS c", "--json").ok()
        assert outcome.json()["data"]["rows"] == [[""]]
    finally:
        other.remove(force=True, v=True)


@pytest.mark.servers("container-15")
def test_a_container_that_is_not_there(project):
    project.write_env({**project.database.settings, "PROJECT_NAME": "nowhere"})
    outcome = project.run("migrate", "status")
    assert outcome.code == 2
    assert outcome.err.startswith("error: there is no container nowhere_postgres\n")


def test_a_container_that_is_stopped_or_paused(new_container, make_project):
    from bed.servers import Database as BedDatabase
    from bed.servers import Server

    cluster = new_container(15)
    project = make_project(BedDatabase(Server("container", cluster), "postgres"))
    cluster._docker.pause()
    outcome = project.run("list")
    assert outcome.code == 2
    assert "is paused" in outcome.err
    cluster._docker.unpause()
    cluster.stop()
    outcome = project.run("list")
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: the container {cluster.name} is not running\nhint: ")
    assert f"docker start {cluster.name}" in outcome.err


def test_a_container_whose_local_socket_wants_a_password(new_container, make_project, opened):
    from bed.servers import Database as BedDatabase
    from bed.servers import Server

    cluster = new_container(15)
    data = "/var/lib/postgresql/data/pg_hba.conf"
    cluster.run("sh", "-c", f"sed -i 's/^local.*trust/local all all scram-sha-256/' {data}")
    cluster.admin("SELECT pg_reload_conf()")
    project = make_project(BedDatabase(Server("container", cluster), "postgres"))
    assert opened(project).rows("SELECT 1 AS n") == [{"n": 1}]


def test_no_docker_on_the_path(run, tmp_path):
    (tmp_path / "p" / "migrations").mkdir(parents=True)
    outcome = run("list", cwd=tmp_path / "p", env={"PATH": str(tmp_path)})
    assert outcome.code == 2
    assert outcome.err.startswith("error: the program docker was not found\nhint: ")


@pytest.mark.servers("container-15")
def test_no_docker_engine_answers(project, tmp_path):
    project.write_env({**project.database.settings, "DOCKER_HOST": f"unix://{tmp_path}/nothing.sock"})
    outcome = project.run("list", "--json")
    assert outcome.code == 2
    assert json.loads(outcome.out)["error"]["message"] == "Docker cannot be reached"
    assert "NSELF_DB_URL" in outcome.err


@BOTH_DRIVERS
def test_terminate_ends_a_session_and_no_later_one_of_its_number(plain_project, opened):
    database = opened(plain_project)
    with database.connect() as own:
        process = own.rows(SQL_PROCESS)[0]
        database.terminate({**process, "started": "2001-01-01 00:00:00+00"})
        assert own.rows("SELECT 1 AS n") == [{"n": 1}]
        database.terminate(process)
        with pytest.raises(ConnectionLost):
            own.rows("SELECT 1 AS n")


@pytest.mark.servers("container-15", "url-psql-17", "url-psycopg-17")
def test_an_interrupted_statement_is_ended_in_the_server(project):
    process = project.start("shell", "--command", "SELECT pg_sleep(60)")
    running = (
        "SELECT pid FROM pg_stat_activity WHERE query ~ 'pg_sleep.60' AND pid <> pg_backend_pid() AND state = 'active'"
    )
    wait_until(lambda: project.database.admin(running), 20)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130, err
    wait_until(lambda: not project.database.admin(running), 5)
