"""What the program says: texts and tables, JSON, progress, failures, secrets, and the question before destruction."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import subprocess
import sys
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nself_core.consent import Target, confirm
from nself_core.failures import CheckFailed, FileFailure, Interrupted, Refused, Unreachable
from nself_core.output import (
    Console,
    Marked,
    Report,
    Table,
    bytes_progress,
    bytes_text,
    display_width,
    duration_text,
    json_ready,
    visible,
)
from nself_core.redaction import MASK, Redactor, redact


class Terminal(io.StringIO):
    """A text stream that says it is a terminal."""

    def isatty(self):
        return True


class Clock:
    """Seconds that a test moves on."""

    now = 0.0

    def __call__(self):
        return self.now


def console(stdout=None, stderr=None, environ=(), **options):
    """A Console over texts; `stdout` and `stderr` default to plain ones."""
    return Console(stdout or io.StringIO(), stderr or io.StringIO(), environ=dict(environ), **options)


def said(report, **options):
    """What a report leaves on (stdout, stderr)."""
    one = console(**options)
    one.emit(report, "migrate status", "dev")
    return one.stdout.getvalue(), one.stderr.getvalue()


def document(report, dry_run=False, **options):
    """The JSON document of a report."""
    one = console(json_mode=True, **options)
    one.emit(report, "migrate status", "dev", dry_run)
    return json.loads(one.stdout.getvalue())


def failed(failure, **options):
    """What a failure leaves on (stdout, stderr)."""
    one = console(**options)
    one.emit_failure(failure, "migrate up", "dev")
    return one.stdout.getvalue(), one.stderr.getvalue()


# Tables.


def table(columns, *rows, aligns=None):
    """A table as text, without its last line end."""
    return "\n".join(Table(columns, rows, aligns).lines())


def test_columns_are_aligned_and_numbers_stand_right():
    assert table(["NAME", "ROWS", "SIZE"], ["accounts", 5, 1.5], ["posts", 12000, None], ["x", None, 10.25]) == (
        "NAME       ROWS   SIZE\n"
        "accounts      5    1.5\n"
        "posts     12000\n"
        "x                10.25"
    )  # fmt: skip


def test_aligns_can_be_given():
    assert table(["A", "B"], ["1", 22], ["333", 4], aligns="><") == "  A  B\n  1  22\n333  4"


def test_a_column_of_numbers_and_texts_stands_left():
    assert table(["VALUE"], [1], ["all"]) == "VALUE\n1\nall"


def test_nothing_and_yes_and_no_and_lists():
    assert table(["A", "B", "C"], [None, True, ["x", None, 1]], ["", False, ()]) == "A  B    C\n   yes  x, , 1\n   no"


def test_a_table_without_rows_is_its_titles():
    assert table(["NAME", "ROWS"]) == "NAME  ROWS"


def test_wide_and_combining_characters_keep_the_columns_straight():
    assert table(["NAME", "N"], ["日本", 1], ["e\u0301te\u0301", 2], ["café", 3]) == (
        "NAME  N\n"
        "日本  1\n"
        "e\u0301te\u0301   2\n"
        "café  3"
    )  # fmt: skip


def test_control_characters_are_made_visible():
    assert table(["A"], ["a\nb\tc\x1b[31m\u202e\x9b\udcff"]) == "A\n" + r"a\nb\tc\x1b[31m\u202e\x9b\udcff"


@pytest.mark.parametrize(
    ("text", "width"), [("", 0), ("abc", 3), ("日本", 4), ("e\u0301", 1), ("ｗ", 2), ("\u200b", 0)]
)
def test_display_width(text, width):
    assert display_width(text) == width


@given(st.lists(st.lists(st.text(), min_size=2, max_size=2), min_size=1))
def test_every_row_is_one_line_and_the_second_column_begins_in_one_place(rows):
    lines = Table(["A", "B"], [[first, "|" + second] for first, second in rows]).lines()
    assert len(lines) == len(rows) + 1
    shown = [visible(first) for first, _ in rows]
    start = max([1, *map(display_width, shown)]) + 2
    for first, line in zip(shown, lines[1:]):
        assert line.startswith(first + " " * (start - display_width(first)) + "|")


@given(st.text(st.characters()))
def test_visible_text_is_nothing_a_terminal_obeys(text):
    shown = visible(text)
    assert shown.encode("utf-8").decode("utf-8") == shown
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 or char in "\u202e\u2066\u2028" for char in shown)


# Sizes and spans.


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 KB"), (1536, "1.5 KB"), (20 * 1024**2, "20 MB"), (3 * 1024**5, "3072 TB")],
)
def test_bytes_for_people(count, text):
    assert bytes_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (59, "59 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")]
)
def test_time_for_people(seconds, text):
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("done", "total", "seconds", "text"),
    [
        (0, 1000, 0, "dump: 0 B of 1.0 KB (0 %)"),
        (5 * 1024**2, 20 * 1024**2, 2, "dump: 5.0 MB of 20 MB (25 %), 2.5 MB/s, 6.0 s left"),
        (20 * 1024**2, 20 * 1024**2, 8, "dump: 20 MB of 20 MB (100 %), 2.5 MB/s"),
        (21 * 1024**2, 20 * 1024**2, 8, "dump: 21 MB of 20 MB (100 %), 2.6 MB/s"),
        (5 * 1024**2, None, 2, "dump: 5.0 MB, 2.5 MB/s"),
    ],
)
def test_progress_names_rate_and_time_left_where_the_total_is_known(done, total, seconds, text):
    assert bytes_progress("dump", done, total, seconds) == text


# A report as text.

REPORT = Report(
    {"applied": 1},
    ["Two migrations:", Table(["VERSION", "STATE"], [["1", "applied"], ["2", "pending"]]), "One line.", "Another."],
    "1 of 2 applied",
    ["migration 1 has changed"],
)


def test_a_report_as_text():
    assert said(REPORT) == (
        "Two migrations:\n"
        "\n"
        "VERSION  STATE\n"
        "1        applied\n"
        "2        pending\n"
        "\n"
        "One line.\n"
        "Another.\n"
        "\n"
        "1 of 2 applied\n",
        "warning: migration 1 has changed\n",
    )


def test_quiet_leaves_the_last_line():
    assert said(REPORT, quiet=True) == ("1 of 2 applied\n", "")


def test_a_report_may_be_its_last_line_only():
    assert said(Report({}, summary="nothing to do")) == ("nothing to do\n", "")


def test_a_report_may_have_no_last_line():
    assert said(Report({}, ["text\n"])) == ("text\n", "")


def test_the_exit_code_is_the_reports():
    assert console().emit(Report({}, exit_code=1), "check", "dev") == 1


def test_a_text_goes_into_a_pipe_as_it_is():
    assert said(Report({}, ["SELECT 'a\r\n\x1b';"]))[0] == "SELECT 'a\r\n\x1b';\n"


def test_a_text_goes_to_a_terminal_with_nothing_it_would_obey():
    assert said(Report({}, ["SELECT\t'\x1b[2J'\n;"]), stdout=Terminal())[0] == "SELECT\t'\\x1b[2J'\n;\n"


# Colour.


@pytest.mark.parametrize(
    ("stream", "environ", "coloured"),
    [
        (Terminal, {}, True),
        (Terminal, {"NO_COLOR": ""}, True),
        (Terminal, {"NO_COLOR": "1"}, False),
        (Terminal, {"TERM": "dumb"}, False),
        (io.StringIO, {}, False),
    ],
)
def test_colour_is_for_terminals_that_want_it(stream, environ, coloured):
    one = console(stream(), stream(), environ)
    one.emit(REPORT, "x", "dev")
    one.emit_failure(CheckFailed("bad", "do"), "x", "dev")
    assert ("\x1b[1mVERSION  STATE\x1b[0m" in one.stdout.getvalue()) == coloured
    assert ("\x1b[33mwarning: \x1b[0mmigration" in one.stderr.getvalue()) == coloured
    assert ("\x1b[1;31merror: \x1b[0mbad" in one.stderr.getvalue()) == coloured


def test_a_diffs_lines_have_colours_on_a_terminal():
    report = Report({}, [Marked("table a\n+ more\n- less\n~ other")])
    one = console(Terminal())
    one.emit(report, "x", "dev")
    assert one.stdout.getvalue() == (
        "\x1b[1mtable a\x1b[0m\n\x1b[32m+ more\x1b[0m\n\x1b[31m- less\x1b[0m\n\x1b[33m~ other\x1b[0m\n"
    )
    plain = console()
    plain.emit(report, "x", "dev")
    assert plain.stdout.getvalue() == "table a\n+ more\n- less\n~ other\n"


def test_each_stream_has_its_own_colour():
    one = console(io.StringIO(), Terminal())
    assert (one.colour_out, one.colour_err) == (False, True)


# A report as JSON.


def test_a_report_as_json():
    one = console(json_mode=True)
    one.emit(Report({"name": "é", "rows": [1]}, ["text"], "done", ["careful"]), "migrate up", "dev", True)
    assert one.stdout.getvalue() == (
        "{\n"
        '  "ok": true,\n'
        '  "command": "migrate up",\n'
        '  "env": "dev",\n'
        '  "dry_run": true,\n'
        '  "data": {\n'
        '    "name": "é",\n'
        '    "rows": [\n'
        "      1\n"
        "    ]\n"
        "  },\n"
        '  "warnings": [\n'
        '    "careful"\n'
        "  ]\n"
        "}\n"
    )
    assert one.stderr.getvalue() == "warning: careful\ndone\n"


def test_a_check_that_found_something_is_not_ok():
    found = document(Report({"changed": ["1"]}, summary="1 file has changed", exit_code=1))
    assert found["ok"] is False
    assert found["data"] == {"changed": ["1"]}
    assert found["error"] == {
        "code": "check_failed",
        "message": "1 file has changed",
        "hint": None,
        "exit_code": 1,
    }


def test_warnings_given_on_the_way_stand_in_the_document_once():
    one = console(json_mode=True)
    one.warn("first")
    one.warn("second")
    one.emit(Report({}, warnings=["second", "third"]), "x", "dev")
    assert json.loads(one.stdout.getvalue())["warnings"] == ["first", "second", "third"]
    assert one.stderr.getvalue() == "warning: first\nwarning: second\nwarning: third\n"


def test_quiet_keeps_the_document_whole():
    assert document(REPORT, quiet=True)["warnings"] == ["migration 1 has changed"]


def test_lone_surrogates_are_json_escapes():
    one = console(json_mode=True)
    one.emit(Report({"path": "a\udcff"}), "x", "dev")
    assert '"a\\udcff"' in one.stdout.getvalue()
    assert json.loads(one.stdout.getvalue())["data"]["path"] == "a\udcff"


@pytest.mark.parametrize(
    ("value", "ready"),
    [
        (math.inf, "inf"),
        (math.nan, "nan"),
        (1.5, 1.5),
        (10**30, 10**30),
        ((1, None), [1, None]),
        ({1: True}, {"1": True}),
    ],
)
def test_values_that_json_has_no_word_for(value, ready):
    assert json_ready(value, redact) == ready


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON_VALUES)
def test_any_data_comes_back_from_the_document(value):
    assert document(Report({"value": value}))["data"]["value"] == json_ready(value, redact)


# Failures.

FAILURE = FileFailure(
    'syntax error at or near "FORM"',
    "did you mean FROM?",
    file="migrations/1_a.sql",
    line=3,
    column=10,
    excerpt=["  SELECT 1 FORM t", "           ^"],
    data={"version": "1"},
)


def test_a_failure_as_text():
    assert failed(FAILURE) == (
        "",
        'error: migrations/1_a.sql:3:10: syntax error at or near "FORM"\n'
        "  SELECT 1 FORM t\n"
        "           ^\n"
        "hint: did you mean FROM?\n",
    )


def test_a_failure_is_said_under_quiet_too():
    assert failed(Interrupted("interrupted"), quiet=True) == ("", "error: interrupted\n")


def test_a_failure_as_json():
    stdout, stderr = failed(FAILURE, json_mode=True)
    assert json.loads(stdout) == {
        "ok": False,
        "command": "migrate up",
        "env": "dev",
        "dry_run": False,
        "data": {"version": "1"},
        "warnings": [],
        "error": {
            "code": "bad_file",
            "message": 'syntax error at or near "FORM"',
            "hint": "did you mean FROM?",
            "exit_code": 1,
            "file": "migrations/1_a.sql",
            "line": 3,
            "column": 10,
            "excerpt": "  SELECT 1 FORM t\n           ^",
        },
    }
    assert stderr.startswith("error: migrations/1_a.sql:3:10: ")


def test_what_is_not_known_of_a_failure_is_left_out():
    error = json.loads(failed(Unreachable("no server"), json_mode=True)[0])["error"]
    assert error == {"code": "unreachable", "message": "no server", "hint": None, "exit_code": 2}


def test_a_failure_before_anything_is_known_has_no_command_and_no_env():
    one = console(json_mode=True)
    assert one.emit_failure(Refused("no"), None, None, warnings=["w"]) == 4
    found = json.loads(one.stdout.getvalue())
    assert (found["command"], found["env"], found["warnings"]) == (None, None, ["w"])


def test_a_servers_message_cannot_move_the_cursor():
    assert failed(CheckFailed("bad \x1b[2J\rname"))[1] == "error: bad \\x1b[2J\\rname\n"


# While it runs.


def test_notes_are_for_people_who_want_them():
    one = console()
    one.note("hello")
    quiet = console(quiet=True)
    quiet.note("hello")
    assert (one.stderr.getvalue(), quiet.stderr.getvalue()) == ("hello\n", "")


def test_sql_is_shown_under_verbose():
    one = console(verbose=True)
    one.sql("\nSELECT 1\r\n  FROM t;\n")
    other = console()
    other.sql("SELECT 1;")
    assert (one.stderr.getvalue(), other.stderr.getvalue()) == ("SELECT 1\n  FROM t;\n", "")


def progress(stderr, *seconds, **options):
    """What is left on stderr after progress at these seconds, and a note."""
    clock = Clock()
    one = console(stderr=stderr, clock=clock, **options)
    for clock.now in seconds:
        one.progress(f"at {clock.now}")
    one.note("end")
    return one.stderr.getvalue()


def test_progress_is_silent_for_a_second():
    assert progress(Terminal(), 0, 0.5, 1) == "end\n"


def test_progress_rewrites_one_line_on_a_terminal_and_takes_it_away():
    assert progress(Terminal(), 0, 1.5, 1.55, 2) == "\r\x1b[Kat 1.5\r\x1b[Kat 2\r\x1b[Kend\n"


def test_progress_in_a_log_is_a_line_now_and_then():
    assert progress(io.StringIO(), 0, 1.5, 5, 11, 11.5, 12, 30) == "at 1.5\nat 11.5\nat 30\nend\n"


def test_a_dumb_terminal_is_a_log():
    assert progress(Terminal(), 0, 2, environ={"TERM": "dumb"}) == "at 2\nend\n"


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_quiet_knows_no_progress(stream):
    assert progress(stream(), 0, 2, 20, quiet=True) == ""


def test_the_next_work_begins_in_silence_again():
    clock = Clock()
    one = console(clock=clock)
    for clock.now in (0, 2):
        one.progress("first")
    one.end_progress()
    for clock.now in (3, 3.5):
        one.progress("second")
    assert one.stderr.getvalue() == "first\n"


def test_progress_of_bytes():
    clock = Clock()
    one = console(clock=clock)
    for clock.now, done in ((0, 0), (2, 4096)):
        one.progress_bytes(done, 8192, "dump")
    assert one.stderr.getvalue() == "dump: 4.0 KB of 8.0 KB (50 %), 2.0 KB/s, 2.0 s left\n"


def test_a_long_progress_line_is_cut_to_the_terminal():
    clock = Clock()
    one = console(stderr=Terminal(), clock=clock)
    for clock.now in (0, 2):
        one.progress("日" * 60)
    shown = one.stderr.getvalue().replace("\r\x1b[K", "")
    assert shown.endswith("...")
    assert display_width(shown) <= 79


def test_the_progress_line_is_gone_before_the_report_is_written():
    clock = Clock()
    stream = Terminal()
    one = console(stream, stream, {"NO_COLOR": "1"}, clock=clock)
    for clock.now in (0, 2):
        one.progress("working")
    one.emit(Report({}, summary="done"), "x", "dev")
    assert stream.getvalue() == "\r\x1b[Kworking\r\x1b[Kdone\n"


# Streams that fail.


class Full(io.StringIO):
    """A stream on a full disk."""

    def write(self, text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_under_stdout_is_an_unreachable_place():
    with pytest.raises(Unreachable, match="standard output cannot be written: No space left") as caught:
        console(stdout=Full()).emit(REPORT, "x", "dev")
    assert caught.value.hint == "make room on the disk"


def test_a_stdout_that_is_not_there_is_an_unreachable_place():
    with pytest.raises(Unreachable, match="standard output is closed"):
        Console(None, io.StringIO()).emit(REPORT, "x", "dev")


def test_a_full_disk_under_stderr_stops_nothing():
    one = console(stderr=Full())
    assert one.emit(REPORT, "x", "dev") == 0
    assert one.stdout.getvalue().endswith("1 of 2 applied\n")


def test_without_stderr_everything_goes_on():
    stdout = io.StringIO()
    assert Console(stdout, None).emit(REPORT, "x", "dev") == 0


PROGRAM = """
import sys
from nself_core.failures import Unreachable
from nself_core.output import Console, Report
console = Console(sys.stdout, sys.stderr, json_mode=len(sys.argv) > 1)
try:
    code = console.emit(Report({"text": "\\u00e9\\udcff"}, ["\\u00e9\\udcff" * 5], "x" * 100000), "x", "dev")
except Unreachable as failure:
    code = console.emit_failure(failure, "x", "dev")
except BrokenPipeError:
    code = 141
sys.exit(code)
"""


def run_program(*arguments, stdout=subprocess.PIPE, **environ):
    """A real process that writes a report; its CompletedProcess, in bytes."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environ}
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, env=environ, check=False)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_a_full_disk_is_said_once_and_is_exit_code_2(arguments):
    with open("/dev/full", "wb") as full:
        done = run_program(*arguments, stdout=full)
    assert done.returncode == 2
    assert done.stderr.decode().splitlines() == [
        "error: standard output cannot be written: No space left on device",
        "hint: make room on the disk",
    ]


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_a_reader_that_has_gone_is_no_noise(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as pipe:
        done = run_program(*arguments, stdout=pipe)
    assert (done.returncode, done.stderr.splitlines()[1:]) == (141, [])


def test_text_is_written_as_the_terminal_can_hold_it():
    assert run_program(PYTHONIOENCODING="latin-1").stdout.startswith(b"\xe9\\udcff\xe9\\udcff")


def test_json_is_utf_8_whatever_the_terminal_holds():
    stdout = run_program("--json", PYTHONIOENCODING="latin-1").stdout
    assert json.loads(stdout.decode("utf-8"))["data"] == {"text": "é\udcff"}


# Secrets.


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgres://me:pw@host/db", "postgres://me:********@host/db"),
        ("postgres://:pw@host/db", "postgres://:********@host/db"),
        ("postgres://me@host:5432/db", "postgres://me@host:5432/db"),
        ("postgres://me:p@ss:w@host/db", "postgres://me:********@host/db"),
        ("postgres://me:p/w@host/db", "postgres://me:********@host/db"),
        ("http://localhost:8080/a@b", "http://localhost:8080/a@b"),
        ("ssh://me@host", "ssh://me@host"),
        ("('postgres://me:pw@a/b', \"redis://:pw@c\")", "('postgres://me:********@a/b', \"redis://:********@c\")"),
        ("postgres://h/d?user=me&password=pw&x=1", "postgres://h/d?user=me&password=********&x=1"),
        ("host=h password=pw dbname=d", "host=h password=******** dbname=d"),
        (r"host=h password='p \' w' dbname=d", "host=h password=******** dbname=d"),
        ("sslpassword=pw PGPASSWORD=pw", "sslpassword=******** PGPASSWORD=********"),
        ("ALTER ROLE me PASSWORD 'p''w';", "ALTER ROLE me PASSWORD '********';"),
        ("X-Hasura-Admin-Secret: pw", "X-Hasura-Admin-Secret: ********"),
        ('{"x-hasura-admin-secret": "pw", "a": 1}', '{"x-hasura-admin-secret": "********", "a": 1}'),
        ("Authorization: Bearer abc.def", "Authorization: ********"),
        ("http://x/y?api_key=pw", "http://x/y?api_key=********"),
        ("http://x?a=1&X-Api-Key=pw&b=2 c", "http://x?a=1&X-Api-Key=********&b=2 c"),
        ("http://x?access_token=p%2Fw#t", "http://x?access_token=********#t"),
        ("http://x?api%5Fkey=pw", "http://x?api%5Fkey=********"),
        ("http://x#token=pw", "http://x#token=********"),
        ("http://x?clientSecret=pw&key=pw&sig=pw", "http://x?clientSecret=********&key=********&sig=********"),
        ("http://x?primary=1&keys=2&monkey=3&page=4", "http://x?primary=1&keys=2&monkey=3&page=4"),
        ("UPDATE t SET token = 'x', api_key=y WHERE a ? 'b'", "UPDATE t SET token = 'x', api_key=y WHERE a ? 'b'"),
        ("password authentication failed for user", "password authentication failed for user"),
        ("UPDATE t SET password = crypt('x', salt)", "UPDATE t SET password = crypt('x', salt)"),
    ],
)
def test_what_stands_where_a_secret_stands_is_masked(text, shown):
    assert redact(text) == shown


SECRET = "p@ss w/ö'\"\\\n"


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        quote(SECRET, safe=""),
        quote(SECRET),
        quote(SECRET, safe="").lower(),
        quote(SECRET, safe="").replace("%20", "+"),
        SECRET.replace("'", "''"),
        json.dumps(SECRET, ensure_ascii=False)[1:-1],
    ],
)
def test_a_secret_is_known_in_every_spelling(text):
    assert redact(f"a{text}b", [SECRET]) == f"a{MASK}b"


def test_a_secret_inside_a_longer_one_does_not_save_the_rest():
    assert redact("x hunter22-prod", ["hunter22", "hunter22-prod"]) == "x ********"


def test_a_secret_of_many_lines_is_known_line_by_line():
    key = "-----BEGIN KEY-----\nMIIBVgIBADANBgkqhkiG\n-----END KEY-----\n"
    assert redact("line 2: MIIBVgIBADANBgkqhkiG", [key]) == "line 2: ********"


def test_short_values_are_no_secrets():
    assert redact("a b abc", ["", "a", "abc"]) == "a b abc"


SECRETS = st.text(min_size=4).filter(lambda text: "*" not in text)


@given(st.text(), SECRETS, st.text())
def test_no_secret_survives(before, secret, after):
    assert secret not in redact(before + secret + after, [secret])
    encoded = quote(secret, safe="")
    assert encoded not in redact(before + encoded + after, [secret])


# Without control characters, whose escapes would be texts of their own.
@given(st.lists(SECRETS, min_size=1, max_size=4), st.text(st.characters(exclude_categories=["C"])))
def test_no_secret_survives_anywhere_in_what_is_written(secrets, text):
    told = f"{text} ".join(["", *secrets, ""])
    report = Report({"told": told, "more": [{"told": told}]}, [told, Table(["A"], [[told]])], told, [told])
    for json_mode in (False, True):
        one = console(json_mode=json_mode, verbose=True, secrets=secrets)
        one.note(told)
        one.sql(told)
        one.emit(report, "x", "dev")
        one.emit_failure(CheckFailed(told, told, file=told, excerpt=[told], data={"a": told}), "x", "dev")
        written = one.stdout.getvalue() + one.stderr.getvalue()
        # Words of the document itself may happen to hold a secret such as `warn`.
        frame = console(json_mode=json_mode)
        frame.emit(Report({"told": "", "more": []}, ["", Table(["A"], [])], "", [""]), "x", "dev")
        frame.emit_failure(CheckFailed("", "", file="", excerpt=[""], data={"a": ""}), "x", "dev")
        words = frame.stdout.getvalue() + frame.stderr.getvalue()
        assert not [secret for secret in secrets if secret.strip() and secret in written and secret not in words]


def test_secrets_that_become_known_later_are_masked_from_then_on():
    one = console(secrets=["hunter22"])
    one.add_secrets(["hunter33"])
    one.note("hunter22 hunter33")
    assert one.stderr.getvalue() == "******** ********\n"


@pytest.mark.parametrize(
    "number", ["20240501120000", "2024", "12024", "-2024.5", "2024-05-01T12:00:00.5Z", "2024" * 16, "20242024"]
)
def test_a_secret_of_digits_changes_no_number_that_it_is_a_part_of(number):
    """Versions and hashes are what others compare; only the secret itself, as a whole value, is masked."""
    expected = MASK if number == "2024" else number
    redactor = Redactor(["2024"])
    assert json_ready({"version": number, "list": [number, 2024]}, redactor) == {
        "version": expected,
        "list": [expected, 2024],
    }
    assert json_ready({number: 1}, redactor) == {expected: 1}
    one = console(secrets=["2024"])
    one.emit(Report({}, [Table(["version"], [[number]])], ""), "x", "dev")
    assert expected in one.stdout.getvalue()


@pytest.mark.parametrize("text", ["pw 2024", "postgres://u:2024@h", "/run/2024", "2024x", "2024\n"])
def test_in_any_other_text_a_secret_of_digits_is_masked(text):
    assert "2024" not in json_ready(text, Redactor(["2024"]))


def test_keys_of_the_document_are_the_schemas_but_for_those_that_are_data():
    found = json_ready({"password_set": True, "postgres://me:pw@h": 1}, lambda text: redact(text, ["password"]))
    assert found == {"password_set": True, "postgres://me:********@h": 1}


def test_the_documents_own_words_are_never_masked():
    one = console(json_mode=True, secrets=["check_failed", "migrate up"])
    one.emit_failure(CheckFailed("x"), "migrate up", "dev")
    found = json.loads(one.stdout.getvalue())
    assert (found["command"], found["error"]["code"]) == ("migrate up", "check_failed")


# Consent.

DEV = Target("dev", "container shop_postgres", "shop", "my-shop")
PROD = DEV._replace(env="prod")
WHAT = ["12 tables, 34,000 rows, 20 MB", "the API loses: posts, comments"]


@pytest.mark.parametrize(
    ("place", "named", "where"),
    [
        ("container shop_postgres, database shop", "shop", "container shop_postgres, database shop"),
        ("container shop_postgres, database shop", "pooled", "container shop_postgres, database shop, database pooled"),
        ("127.0.0.1:5432/shop", "shop", "127.0.0.1:5432/shop, database shop"),
        ("http://localhost:8080", None, "http://localhost:8080"),
    ],
)
def test_a_database_is_named_once(place, named, where):
    assert Target("dev", place, named, "x").lines([]) == [f"  where: environment dev, {where}"]


def ask(target, answer=None, force=False, name=None, environ=(), stderr=None, **options):
    """Ask for consent, with `answer` typed on a terminal, or no terminal; answers what stands on stderr."""
    stdin = io.StringIO() if answer is None else Terminal(answer)
    one = console(stderr=stderr or Terminal(), environ={"NO_COLOR": "1"}, **options)
    confirm(one, target, WHAT, force=force, confirm_name=name, environ=dict(environ), stdin=stdin)
    return one.stderr.getvalue()


def refused(*arguments, **options):
    """The Refused that asking ends with."""
    with pytest.raises(Refused) as caught:
        ask(*arguments, **options)
    assert caught.value.exit_code == 4
    assert caught.value.message.endswith("; nothing was changed")
    return caught.value


def test_the_question_says_where_and_what():
    assert ask(DEV, "yes\n") == (
        "This destroys or replaces data:\n"
        "  where: environment dev, container shop_postgres, database shop\n"
        "  what:  12 tables, 34,000 rows, 20 MB\n"
        "         the API loses: posts, comments\n"
        "Type yes to go on: "
    )


def test_the_question_is_asked_under_quiet_too():
    assert "what:  12 tables" in ask(DEV, "yes\n", quiet=True)


def test_in_prod_the_projects_name_is_typed():
    assert ask(PROD, " my-shop \n").endswith("Type the project's name to go on: ")


@pytest.mark.parametrize(
    ("target", "answer"),
    [(DEV, "\n"), (DEV, ""), (DEV, "y\n"), (DEV, "no\n"), (DEV, "my-shop\n"), (PROD, "yes\n"), (PROD, "my shop\n")],
)
def test_any_other_answer_is_no_consent(target, answer):
    assert refused(target, answer).message == "not confirmed; nothing was changed"


def test_without_a_terminal_it_wants_force():
    told = refused(DEV)
    assert told.message == "this destroys or replaces data in dev, and there is nobody to ask; nothing was changed"
    assert told.hint == "give --force to do it without being asked"
    assert told.excerpt.startswith(
        "  where: environment dev, container shop_postgres, database shop\n  what:  12 tables"
    )


def test_a_stderr_that_nobody_sees_is_no_terminal():
    refused(DEV, "yes\n", stderr=io.StringIO())


def test_force_is_consent():
    assert ask(DEV, force=True).startswith("This destroys or replaces data:\n  where: ")


def test_force_says_nothing_under_quiet():
    assert ask(DEV, force=True, quiet=True) == ""


def test_in_prod_without_a_terminal_force_is_not_enough():
    assert refused(PROD, force=True).hint == "give --force --confirm my-shop to do it without being asked"


def test_in_prod_on_a_terminal_force_still_asks():
    assert "Type the project's name" in ask(PROD, "my-shop\n", force=True)


def test_in_prod_force_and_the_projects_name_are_consent():
    assert "Type" not in ask(PROD, force=True, name="my-shop")


def test_the_projects_name_without_force_is_not_enough():
    refused(PROD, name="my-shop")
    refused(DEV, name="my-shop")


@pytest.mark.parametrize("target", [DEV, PROD])
def test_another_projects_name_is_refused(target):
    told = refused(target, "yes\n", force=True, name="other")
    assert told.message == "--confirm says other, but the project is my-shop; nothing was changed"


@pytest.mark.parametrize("value", ["1", "true", "yes"])
def test_NSELF_NONINTERACTIVE_never_prompts(value):
    refused(DEV, "yes\n", environ={"NSELF_NONINTERACTIVE": value})


@pytest.mark.parametrize("value", ["", "0", "false"])
def test_NSELF_NONINTERACTIVE_can_be_off(value):
    assert "Type yes" in ask(DEV, "yes\n", environ={"NSELF_NONINTERACTIVE": value})
