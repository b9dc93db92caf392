"""What psql prints of an error, read back, and the failure a person is shown."""

from __future__ import annotations

import pytest

from nself_core.failures import CredentialsRefused, LockHeld, MigrationFailed, SqlFailure, Unreachable
from nself_core.postgres.errors import ServerError, connection_failure, failure_of, parse_reports

WHERE = "h:5432/d"


def only(text, statement=""):
    """The one report in `text`."""
    (report,) = parse_reports(text, statement)
    return report


def place(text, statement):
    """Line and column of the one report in `text`."""
    report = only(text, statement)
    return report.line, report.column


# Reading psql's text.


def test_no_text_has_no_reports():
    assert parse_reports("") == []
    assert parse_reports("psql: error: could not connect\n") == []


def test_severity_state_and_message():
    report = only('ERROR:  42P01: relation "x" does not exist\nLOCATION:  parserOpenTable, parse_relation.c:1384\n')
    assert (report.severity, report.sqlstate, report.message) == ("ERROR", "42P01", 'relation "x" does not exist')


def test_the_name_of_a_script_before_it_is_left_out():
    assert only("psql:<stdin>:12: ERROR:  22012: division by zero\n").message == "division by zero"


def test_a_translated_severity_is_one_too():
    assert only("FEHLER:  22012: Division durch Null\n").severity == "FEHLER"


def test_detail_hint_and_context_of_many_lines():
    text = (
        "ERROR:  XY123: no: a\nb\nDETAIL:  line 1\nline 2\nHINT:  try\n"
        'CONTEXT:  PL/pgSQL function f() line 2 at RAISE\nSQL statement "SELECT f()"\n'
        "LOCATION:  exec_stmt_raise, pl_exec.c:3905\n"
    )
    report = only(text)
    assert (report.message, report.detail, report.hint) == ("no: a\nb", "line 1\nline 2", "try")
    assert report.context == 'PL/pgSQL function f() line 2 at RAISE\nSQL statement "SELECT f()"'


def test_an_empty_message():
    assert only("ERROR:  P0001: \nLOCATION:  x\n").message == ""


def test_several_reports_in_order():
    text = "NOTICE:  00000: one\nLOCATION:  x\nWARNING:  01000: two\nLOCATION:  x\nERROR:  22012: three\nLOCATION:  x\n"
    assert [(report.severity, report.message) for report in parse_reports(text)] == [
        ("NOTICE", "one"),
        ("WARNING", "two"),
        ("ERROR", "three"),
    ]


def test_names_of_a_constraint_are_no_part_of_the_message():
    text = (
        'ERROR:  23505: duplicate key value violates unique constraint "t_pkey"\nDETAIL:  Key (a)=(1) already exists.\n'
        "SCHEMA NAME:  public\nTABLE NAME:  t\nCONSTRAINT NAME:  t_pkey\nLOCATION:  x\n"
    )
    report = only(text)
    assert report.message.endswith('constraint "t_pkey"')
    assert report.detail == "Key (a)=(1) already exists."


# Finding the place again.


def test_the_caret_gives_line_and_column():
    statement = "SELECT 1,\n  nope"
    assert place("ERROR:  42703: no\nLINE 2:   nope\n          ^\n", statement) == (2, 3)


def test_a_wide_character_is_two_columns_of_the_terminal():
    statement = "SELECT '日本語', nope"
    assert place(f"ERROR:  42703: no\nLINE 1: {statement}\n{' ' * 25}^\n", statement) == (1, 15)


def test_a_combining_character_is_one_column():
    statement = "SELECT 'e\u0301', nope"
    assert place(f"ERROR:  42703: no\nLINE 1: {statement}\n{' ' * 21}^\n", statement) == (1, 14)


def test_a_tab_is_shown_as_one_blank():
    statement = "SELECT\t1,\tnope"
    assert place("ERROR:  42703: no\nLINE 1: SELECT 1, nope\n                  ^\n", statement) == (1, 11)


def test_an_extract_of_a_long_line():
    statement = f"SELECT {'1, ' * 50}nope, {'2, ' * 50}3"
    text = "ERROR:  42703: no\nLINE 1: ...1, 1, 1, 1, 1, 1, 1, 1, nope, 2, 2, 2, 2, 2, 2...\n"
    assert place(text + " " * 35 + "^\n", statement) == (1, 158)


def test_an_extract_at_the_end_of_a_line_that_repeats_itself():
    statement = "SELECT " + "abc + " * 40 + "abc"
    text = f"ERROR:  42703: no\nLINE 1: ...{statement[-52:]}\n"
    assert place(text + " " * (len("LINE 1: ...") + 49) + "^\n", statement) == (1, len(statement) - 2)


def test_dots_of_the_line_itself_are_no_cut():
    statement = "...nope"
    assert place(f"ERROR:  42601: no\nLINE 1: {statement}\n        ^\n", statement) == (1, 1)


def test_a_place_inside_a_functions_query_is_not_one_in_the_statement():
    text = "ERROR:  42703: no\nLINE 1: SELECT nope\n               ^\nQUERY:  SELECT nope\nCONTEXT:  PL/pgSQL\n"
    report = only(text, "DO $$ ... $$")
    assert (report.line, report.internal) == (None, "SELECT nope")


def test_a_line_beyond_the_statement_does_no_harm():
    assert place("ERROR:  42703: no\nLINE 9: x\n        ^\n", "SELECT 1") == (9, 1)


# The failure shown.


@pytest.mark.parametrize(
    ("sqlstate", "kind", "exit_code"),
    [
        ("42P01", SqlFailure, 1),
        ("23505", SqlFailure, 1),
        ("28P01", CredentialsRefused, 3),
        ("08006", Unreachable, 2),
        ("53100", Unreachable, 2),
        ("53300", Unreachable, 2),
        ("57P01", Unreachable, 2),
        ("58030", Unreachable, 2),
        ("55P03", LockHeld, 4),
        ("57014", SqlFailure, 1),
    ],
)
def test_the_class_of_a_failure_follows_the_sqlstate(sqlstate, kind, exit_code):
    failure = failure_of(ServerError(sqlstate, "message"), WHERE)
    assert (type(failure), failure.exit_code) == (kind, exit_code)


def test_a_lock_is_the_migrations_own_failure():
    assert isinstance(failure_of(ServerError("55P03", "m"), WHERE, kind=MigrationFailed), MigrationFailed)


def test_the_statements_line_stands_over_a_caret():
    error = ServerError("42703", 'column "nope" does not exist', line=2, column=3)
    failure = failure_of(error, WHERE, "SELECT 1,\n  nope")
    assert failure.message == 'column "nope" does not exist (SQLSTATE 42703)'
    assert failure.excerpt == "    nope\n    ^"


def test_the_caret_stands_under_wide_characters_and_tabs():
    failure = failure_of(ServerError("42703", "no", line=1, column=14), WHERE, "\tSELECT\t'日',\tnope")
    assert failure.excerpt.splitlines()[1] == "  \t" + " " * 6 + "\t" + " " * 5 + "\t^"


def test_a_long_line_is_cut_around_its_caret():
    statement = f"SELECT {'1, ' * 200}nope{', 2' * 200}"
    shown, caret = failure_of(ServerError("42703", "no", line=1, column=608), WHERE, statement).excerpt.splitlines()
    assert len(shown) <= 162
    assert shown[len(caret) - 1 :].startswith("nope")


def test_line_and_column_count_from_the_statements_place_in_its_file():
    error = ServerError("42703", "no", line=1, column=8)
    failure = failure_of(error, WHERE, "SELECT nope", "migrations/1_a.sql", 10, 5)
    assert failure.place == "migrations/1_a.sql:10:12"
    below = failure_of(error._replace(line=2), WHERE, "SELECT\n       nope", "migrations/1_a.sql", 10, 5)
    assert below.place == "migrations/1_a.sql:11:8"


def test_an_error_without_a_place_is_at_the_statements_begin():
    assert failure_of(ServerError("22012", "no"), WHERE, "SELECT 1/0", "a.sql", 3, 2).place == "a.sql:3:2"


def test_detail_query_and_context_are_shown():
    error = ServerError("P0001", "m", "the\ndetail", "the hint", "the context", internal="SELECT 1")
    failure = failure_of(error, WHERE)
    assert failure.excerpt == "  detail: the\n  detail\n  query: SELECT 1\n  context: the context"
    assert failure.hint == "the hint"


@pytest.mark.parametrize(
    ("error", "statement", "word"),
    [
        (ServerError("55P04", "unsafe use of new value"), "INSERT", "a migration of its own"),
        (ServerError("42601", "syntax error", line=1, column=7), "SELECT\u00a01", "U+00A0"),
        (ServerError("42601", "syntax error", line=1, column=8), "SELECT\u00a01", "U+00A0"),
        (ServerError("25001", "VACUUM cannot run inside a transaction block"), "VACUUM", "nself:no-transaction"),
    ],
)
def test_hints_that_experience_adds(error, statement, word):
    assert word in failure_of(error, WHERE, statement, "a.sql").hint


def test_a_statement_of_no_file_has_no_hint_about_files():
    for sqlstate in ("55P03", "25001", "2D000"):
        assert "nself:" not in (failure_of(ServerError(sqlstate, "transaction block"), WHERE).hint or "")


def test_a_no_break_space_elsewhere_is_not_blamed():
    error = ServerError("42703", "no", line=1, column=8)
    assert failure_of(error, WHERE, "SELECT nope, '\u00a0'").hint is None


# A connection that is not made, or lost.


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('psql: error: connection failed: FATAL:  password authentication failed for user "u"', CredentialsRefused),
        ("psql: error: connection to server failed: fe_sendauth: no password supplied", CredentialsRefused),
        ('FATAL:  role "u" does not exist', CredentialsRefused),
        ('FATAL:  role "u" is not permitted to log in', CredentialsRefused),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "u", database "d"', CredentialsRefused),
        ('FATAL:  permission denied for database "d"', CredentialsRefused),
        ('FATAL:  database "d" does not exist', Unreachable),
        ('FATAL:  too many connections for role "u"', Unreachable),
        ('connection to server at "h", port 5432 failed: Connection refused\n\tIs the server running?', Unreachable),
        ('could not translate host name "h" to address: Name or service not known', Unreachable),
        ("FATAL:  the database system is starting up", Unreachable),
        ("", Unreachable),
    ],
)  # fmt: skip
def test_the_words_of_a_refused_connection(text, kind):
    failure = connection_failure(text, WHERE)
    assert type(failure) is kind
    assert WHERE in failure.message
    assert failure.hint


def test_what_psql_says_beside_the_point_is_left_out():
    text = "NOTICE:  00000: x\nLOCATION:  y\npsql: error: connection to server was lost\n"
    assert connection_failure(text, WHERE).message == f"{WHERE} cannot be reached: connection to server was lost"


def test_what_several_jobs_say_is_told_once():
    failure = connection_failure("FATAL:  sorry, too many clients already\n" * 90, "h/d")
    assert failure.message == "h/d cannot be reached: FATAL:  sorry, too many clients already"
