"""The lexer, against the rules of psql and against the parser of Postgres itself (pglast)."""

from __future__ import annotations

import glob
import os
import re
import time

import pytest
from bed.gaps import SHARED, wants_shared
from hypothesis import given, settings
from hypothesis import strategies as st
from pglast import parser

from nself_core.failures import FileFailure
from nself_core.sql.lexer import decode, line_column, split, tokens

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
HARD = SHARED / "sql-hard"


def texts(sql):
    return [statement.text for statement in split(sql)]


def refusal(sql):
    """The failure with which `sql` is refused."""
    with pytest.raises(FileFailure) as caught:
        split(sql, "up.sql")
    return caught.value


# decode


def test_utf8_is_decoded():
    assert decode("SELECT 'é';".encode()) == "SELECT 'é';"


def test_a_byte_order_mark_is_dropped():
    assert decode(b"\xef\xbb\xbfSELECT 1;") == "SELECT 1;"


def test_only_the_mark_at_the_beginning_is_dropped():
    assert decode("SELECT '\ufeff';".encode()) == "SELECT '\ufeff';"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_wide_encodings_are_named(encoding):
    with pytest.raises(FileFailure, match=encoding[:6].upper()) as caught:
        decode("CREATE TABLE t (name text DEFAULT 'Ünï');\n".encode(encoding), "up.sql")
    assert caught.value.file == "up.sql"


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_a_nul_byte_is_refused_with_offset_and_line(line_end):
    before = f"\ufeffSELECT 'é';{line_end}SELECT ".encode()
    with pytest.raises(FileFailure) as caught:
        decode(before + b"\0;", "up.sql")
    assert caught.value.message == f"NUL byte at offset {len(before)} (line 2)"
    assert caught.value.place == "up.sql:2:8"


def test_invalid_utf8_is_refused_with_line_and_byte_offset():
    with pytest.raises(FileFailure) as caught:
        decode(b"SELECT 1;\nSELECT 'caf\xe9';", "up.sql")
    assert caught.value.message == "not UTF-8: byte 0xE9 at offset 21 (line 2)"
    assert caught.value.place == "up.sql:2:12"


def test_an_empty_file_is_an_empty_text():
    assert decode(b"") == ""


# where statements end


@pytest.mark.parametrize("sql", ["", " \n\t", ";;", " ; -- only ;\n ; /* a ; comment */ ;", "-- the end"])
def test_what_holds_no_statement_yields_nothing(sql):
    assert split(sql) == []


def test_statements_end_at_semicolons():
    assert texts("SELECT 1; SELECT 2 ;SELECT 3") == ["SELECT 1", "SELECT 2", "SELECT 3"]


def test_comments_around_a_statement_are_not_part_of_it():
    assert texts("-- a\n/* b; */ SELECT /* c */ 1 -- d\n/* e */ ; -- f") == ["SELECT /* c */ 1"]


def test_a_comment_between_code_is_part_of_it():
    assert texts("SELECT 1 -- ;\n + /* ; */ 2 -- end\n") == ["SELECT 1 -- ;\n + /* ; */ 2"]


@pytest.mark.parametrize(
    "code",
    [
        "SELECT 'a;b'",
        "SELECT 'it''s; so'",
        "SELECT 'ends with a backslash\\'",
        "SELECT E'a\\';b'",
        "SELECT e'a\\\\'",
        "SELECT E'a'';\\''",
        "SELECT U&'\\0061;'",
        'SELECT U&"\\0061;"',
        "SELECT U&'a!0061;' UESCAPE '!'",
        "SELECT N'a;'",
        "SELECT B'0;1', X'f;f'",
        'SELECT "a;b", "a"";b"',
        'SELECT "a\\"',
        "SELECT dateE'a;' ",
        "SELECT date'2020-01-01;'",
        "SELECT $$a;'b$$",
        "SELECT $a$ $$;$$ $b$;$b$ $a$",
        "SELECT $a$ $a;$a$",
        "SELECT $été$;$été$",
        "SELECT $_1$;$_1$",
        "SELECT $1, a$b, a$$, $2",
        "SELECT 1$$;$$",
        "SELECT a[1:2]",
        "SELECT 1 /* ; /* ; */ ; */ + 1",
        "SELECT 1 /*/ ; /* ; */ */ + 1",
        "SELECT 1 /***;***/ + 1",
        "SELECT 1 +/* ; */ 2",
        "SELECT 1 *-- ;\n 2",
        "SELECT '-- not a comment;' || '/*'",
        "SELECT a - -1, a/b, a<-b, a @>b, a->>'b;', a #>> '{a;b}'",
        "SELECT 'a;'\n'b;'",
        "SELECT E'a'\n-- between\n  '\\';'",
        "SELECT 'a' --\n'\\'",
        "CREATE TABLE été (naïve text, \u00a0 int)",
        "CREATE RULE r AS ON INSERT TO t DO ALSO (SELECT 1; SELECT 2;)",
        "SELECT (1;2)",
    ],
)
def test_a_semicolon_inside_does_not_end_the_statement(code):
    code = code.strip()
    assert texts(f"{code};SELECT 2") == [code, "SELECT 2"]


def test_a_closing_parenthesis_too_many_does_not_hide_the_end():
    assert texts("SELECT 1); SELECT (2)") == ["SELECT 1)", "SELECT (2)"]


def test_a_string_that_is_continued_keeps_its_escapes():
    # psql, which reads line by line, takes the second line for a string of its own; the server does not.
    assert texts("SELECT E'a'\n'\\'; b'; SELECT 2") == ["SELECT E'a'\n'\\'; b'", "SELECT 2"]


def test_a_string_on_the_same_line_is_not_a_continuation():
    assert texts("SELECT E'a' '\\'; SELECT 2") == ["SELECT E'a' '\\'", "SELECT 2"]


def test_a_continued_bit_string_has_no_escapes():
    assert texts("SELECT B'1'\n'\\'; SELECT 2") == ["SELECT B'1'\n'\\'", "SELECT 2"]


# standard_conforming_strings


@pytest.mark.parametrize(
    "setting",
    [
        "SET standard_conforming_strings = off",
        "set session Standard_Conforming_Strings to 'off'",
        "SET LOCAL standard_conforming_strings TO false",
        'SET "standard_conforming_strings" = 0',
        "SELECT pg_catalog.set_config('standard_conforming_strings', 'off', false)",
        "SELECT set_config ( 'standard_conforming_strings' , 'no' , true )",
    ],
)
def test_strings_have_escapes_once_standard_conforming_strings_is_off(setting):
    after = "SELECT 'a\\'; b', N'\\';'"
    assert texts(f"{setting};{after};SELECT 2") == [setting, after, "SELECT 2"]


@pytest.mark.parametrize(
    "back",
    ["SET standard_conforming_strings = on", "RESET standard_conforming_strings", "RESET ALL", "DISCARD ALL"],
)
def test_strings_lose_their_escapes_when_it_is_on_again(back):
    assert texts(f"SET standard_conforming_strings = off; {back}; SELECT '\\'; SELECT 2")[2:] == [
        "SELECT '\\'",
        "SELECT 2",
    ]


@pytest.mark.parametrize(
    "other",
    [
        "SELECT 'standard_conforming_strings', 'off'",
        "SHOW standard_conforming_strings",
        "SELECT 'SET standard_conforming_strings = off'",
        "ALTER DATABASE d SET standard_conforming_strings = off",
        "SET",
        "SET my.standard_conforming_strings = off",
    ],
)
def test_what_only_names_the_setting_changes_nothing(other):
    assert texts(f"{other}; SELECT '\\'; SELECT standard_conforming_strings") == [
        other,
        "SELECT '\\'",
        "SELECT standard_conforming_strings",
    ]


def test_other_quotes_do_not_depend_on_the_setting():
    code = "SELECT B'1\\', X'f\\', U&'\\', \"a\\\", $$\\$$"
    assert texts(f"SET standard_conforming_strings = off; {code}; SELECT 2")[1:] == [code, "SELECT 2"]


def test_a_statement_knows_how_its_strings_are_read():
    off, after = split("SET standard_conforming_strings = off; SELECT '\\'', 1")
    assert (off.standard_strings, after.standard_strings) == (True, False)
    assert [token.text for token in after.tokens] == ["SELECT", "'\\''", ",", "1"]


# BEGIN ATOMIC


@pytest.mark.parametrize(
    "code",
    [
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END",
        "create or replace procedure p() begin atomic select 1; end",
        "CREATE /* a; */ FUNCTION f(a int DEFAULT 1) RETURNS int LANGUAGE sql BEGIN -- ;\n ATOMIC SELECT 1; END",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN a THEN 1 ELSE 2 END; END",
        "CREATE FUNCTION f() BEGIN ATOMIC SELECT CASE a WHEN 1 THEN CASE WHEN b THEN 2 END END; SELECT 1; END",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT (CASE WHEN a THEN 1 END); END",
        "CREATE FUNCTION f() BEGIN ATOMIC END",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT t.end FROM t; SELECT 1 AS end; SELECT 2 AS case; END",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT begin, 'END;' FROM t; END",
        'CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT "end" FROM t; END',
        "CREATE FUNCTION f() BEGIN ATOMIC INSERT INTO t VALUES (1); RETURN 1; END",
        "CREATE FUNCTION begin() RETURNS int LANGUAGE sql RETURN 1",
        "CREATE FUNCTION f() RETURNS int RETURN CASE WHEN true THEN 1 END",
        "CREATE FUNCTION f(atomic int) RETURNS int LANGUAGE sql AS 'SELECT 1;'",
    ],
)
def test_the_body_of_a_routine_is_part_of_it(code):
    assert texts(f"{code}; SELECT 2") == [code, "SELECT 2"]


@pytest.mark.parametrize(
    "code", ["CREATE TABLE begin (atomic int)", "BEGIN", "CREATE VIEW v AS SELECT 1 AS begin, 2 AS atomic", "CREATE"]
)
def test_begin_atomic_counts_in_routines_only(code):
    assert texts(f"{code}; SELECT 2; END") == [code, "SELECT 2", "END"]


# COPY


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_copy_data_belong_to_their_statement(line_end):
    lines = ["COPY t (a, b) FROM stdin; -- the data", "1\t'one;", "2\t\\N", "3\t\\. no", "", "\\.", "SELECT 1;"]
    copy, select = split(line_end.join(lines))
    assert copy.text == "COPY t (a, b) FROM stdin"
    assert copy.copy_data == line_end.join(["1\t'one;", "2\t\\N", "3\t\\. no", "", ""])
    assert (copy.end_line, select.line, select.copy_data) == (1, 7, None)


@pytest.mark.parametrize(
    "copy",
    [
        "COPY t FROM STDIN",
        "copy t from stdin",
        'COPY "s"."t" ("from") FROM STDIN WITH (FORMAT csv, HEADER)',
        "COPY t FROM STDIN CSV",
        "COPY t FROM stdin WHERE a > 1",
        "COPY /* to */ t FROM -- to\n stdin",
        "COPY BINARY t FROM stdin",
        "COPY t FROM STDOUT",
    ],
)
def test_every_form_of_copy_from_stdin_takes_data(copy):
    assert split(f"{copy};\n1\n\\.\n")[0].copy_data == "1\n"


@pytest.mark.parametrize(
    "copy",
    [
        "COPY t TO STDOUT",
        "COPY t TO stdin",
        "COPY (SELECT 1 FROM stdin) TO STDOUT",
        "COPY t FROM '/tmp/stdin'",
        "COPY t FROM PROGRAM 'stdin'",
        "COPY t (a) TO STDOUT WITH (DELIMITER ';')",
        "COMMENT ON TABLE t IS 'COPY t FROM stdin'",
    ],
)
def test_other_copies_take_none(copy):
    assert [(s.text, s.copy_data) for s in split(f"{copy};\nSELECT 1;")] == [(copy, None), ("SELECT 1", None)]


def test_copy_data_may_be_empty():
    assert split("COPY t FROM stdin;\n\\.\n")[0].copy_data == ""


def test_copy_data_may_end_with_the_file():
    assert split("COPY t FROM stdin;\n1\n\\.")[0].copy_data == "1\n"


def test_a_carriage_return_inside_a_line_of_data_does_not_end_it():
    copy = split('COPY t FROM stdin CSV;\n"a\r\\.\rb"\n\\.\nSELECT 1;')[0]
    assert copy.copy_data == '"a\r\\.\rb"\n'


def test_data_full_of_quotes_are_only_data():
    assert [s.copy_data for s in split("COPY t FROM stdin;\n'\"$$/*(\n\\.\nSELECT 1")] == ["'\"$$/*(\n", None]


@pytest.mark.parametrize("behind", ["SELECT 1;", "1", "/* not\nclosed here */", "'"])
def test_what_stands_behind_copy_on_its_line_is_refused(behind):
    failure = refusal(f"SELECT 1;\nCOPY t FROM stdin; {behind}\n1\n\\.\n")
    assert "COPY" in failure.message
    assert failure.line == 2


@pytest.mark.parametrize("data", ["", ";", ";\n", ";\n1\n", ";\n1\n\\.x\n", ";\n1\n \\.\n", ";\r1\r\\.\n"])
def test_copy_data_without_an_end_are_refused_with_the_line_of_the_copy(data):
    failure = refusal(f"SELECT 1;\n\n  COPY t FROM stdin{data}")
    assert "\\." in failure.message
    assert failure.place == "up.sql:3:3"


# what is refused


@pytest.mark.parametrize(
    ("sql", "command"),
    [
        ("\\set x 5", "\\set"),
        ("SELECT 1;\n\\echo :x", "\\echo"),
        ("\\! rm -rf /", "\\!"),
        ("\\d+ t", "\\d+"),
        ("SELECT 1 \\gexec", "\\gexec"),
        ("SELECT 1\\; SELECT 2;", "\\;"),
        ("SELECT (1 \\", "\\"),
        ("\\.", "\\."),
        ("\\\\", "\\\\"),
        ("CREATE FUNCTION f() BEGIN ATOMIC SELECT 1 \\g", "\\g"),
        ("\\restricted x", "\\restricted"),
        ("\\restrict", "\\restrict"),
        ("\\restrict a b", "\\restrict"),
        ("SELECT 1; \\restrict abc", "\\restrict"),
        ("SELECT 1\n\\restrict abc\n", "\\restrict"),
    ],
)
def test_a_psql_meta_command_is_refused_by_name(sql, command):
    failure = refusal(sql)
    assert failure.message == f"psql meta-command {command} is not supported"
    assert failure.line == sql[: sql.index("\\")].count("\n") + 1


def test_a_meta_command_inside_a_statement_says_where_that_began():
    assert "line 2" in refusal("SELECT 1;\nSELECT 2\n\\g").hint


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_the_restrict_lines_of_pg_dump_are_skipped(line_end):
    sql = line_end.join(["-- dump", "\\restrict aB3x", "", "SELECT 1;", " \\unrestrict aB3x ", ""])
    assert texts(sql) == ["SELECT 1"]


@pytest.mark.parametrize(
    ("opener", "word"),
    [
        ("'", "quote"),
        ("E'", "quote"),
        ("U&'", "quote"),
        ("B'", "quote"),
        ('"', "double quote"),
        ('U&"', "double quote"),
        ("$$", "dollar quote"),
        ("$a$ $A$", "dollar quote"),
        ("/*", "comment"),
        ("/* /* */", "comment"),
        ("(", "parenthesis"),
        ("(a (b)", "parenthesis"),
        ("E'\\'", "quote"),
        ("'a''", "quote"),
    ],
)
def test_what_is_never_closed_is_refused_where_it_opened(opener, word):
    failure = refusal(f"SELECT 1;\r\nSELECT 2,\n  {opener} \nSELECT 3;\n")
    assert re.fullmatch(rf"a {word}( \(.*\))? that is never closed", failure.message)
    assert (failure.file, failure.line) == ("up.sql", 3)


def test_what_is_never_closed_is_refused_with_its_column():
    assert refusal("SELECT 1;\nSELECT 'é', E'a").place == "up.sql:2:13"


def test_the_outermost_open_parenthesis_is_the_one_named():
    assert refusal("CREATE TABLE t (\n  a numeric(5,\n  b int);").line == 1


def test_a_body_without_its_end_is_refused_where_it_began():
    failure = refusal("CREATE FUNCTION f() RETURNS int\nBEGIN ATOMIC\n SELECT 1;\nSELECT 2;")
    assert failure.message.startswith("BEGIN ATOMIC without its END")
    assert failure.place == "up.sql:2:1"


def test_an_open_quote_after_create_is_refused_where_it_opened():
    assert refusal("CREATE\n/* FUNCTION").place == "up.sql:2:1"


def test_a_nul_character_is_refused():
    assert refusal("SELECT 1;\n\0").place == "up.sql:2:1"


def test_a_failure_needs_no_file():
    with pytest.raises(FileFailure) as caught:
        split("SELECT '")
    assert caught.value.file is None


# places and tokens


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_lines_and_columns_are_right_with_every_line_end(line_end):
    sql = line_end.join(["-- é", "  SELECT", "  1; SELECT 2;", "", "SELECT 3"])
    assert [(s.line, s.column, s.end_line) for s in split(sql)] == [(2, 3, 3), (3, 6, 3), (5, 1, 5)]


@given(st.text(st.sampled_from("a\r\n"), max_size=12))
def test_line_column_agrees_with_lines_as_written(text):
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    # A CRLF is one line end of two characters: its LF stands on the line it ends.
    line, column = 1, 1
    for offset, char in enumerate(text):
        assert line_column(text, offset) == (line, column)
        ends = char == "\n" or (char == "\r" and text[offset + 1 : offset + 2] != "\n")
        line, column = (line + 1, 1) if ends else (line, column + 1)
    assert line_column(text, len(text)) == (line, column)
    assert line == len(lines)


def test_columns_count_characters_and_not_bytes():
    assert line_column("ééé x", 4) == (1, 5)


def test_tokens_come_with_kind_text_and_offset_in_the_file():
    (statement,) = split("-- a\nSELECT a$1, \"B\"::E'x' /* c */ <= $1 + 1.5e3;")
    assert [tuple(token) for token in statement.tokens] == [
        ("word", "SELECT", 5),
        ("word", "a$1", 12),
        ("op", ",", 15),
        ("quoted", '"B"', 17),
        ("op", "::", 20),
        ("string", "E'x'", 22),
        ("op", "<=", 35),
        ("param", "$1", 38),
        ("op", "+", 41),
        ("number", "1.5e3", 43),
    ]


def test_a_key_word_is_ascii():
    # Python would make S of ſ and K of the Kelvin sign; Postgres takes neither for a letter of a key word.
    assert [token.keyword for token in tokens("select ſet roll\u212a x")] == ["SELECT", "", "", "X"]


def test_only_the_tokens_asked_for_are_lexed():
    (statement,) = split("SELECT " + "1, " * 200_000 + "1")
    began = time.perf_counter()
    assert next(statement.tokens).text == "SELECT"
    assert time.perf_counter() - began < 0.05


def test_tokens_of_an_open_text_fail_with_its_place():
    with pytest.raises(FileFailure) as caught:
        list(tokens("SELECT\n 'a"))
    assert (caught.value.line, caught.value.column) == (2, 2)


# against Postgres's own lexer and parser

SOUP = [
    "'", "''", "\\", "\\'", "E'", "U&'", 'u&"', "N'", "B'", "X'", '"', '""', "$", "$$", "$a$", "$b$", "a", "E", "U",
    "&", "$1", "1", "1.5", "..", "--", "-", "/", "*", "/*", "*/", "+", "@", "\n", "\r", " ", "\t", "\f", "\r\n", ";",
    "(", ")", "é", "\u00a0", "_", ".", ":", "::", "[", "]", "=", "<", "'x'", "$q$;$q$", "/* ; */", "-- ;\n", '"a;"',
    "E'\\''", "é$$",
]  # fmt: skip


def scanned(text):
    """What Postgres's lexer makes of `text`: the statements between its semicolons, and the depth that is left open."""
    statements, begin, end, depth = [], None, 0, 0
    for token in parser.scan(text):
        if token.name in ("C_COMMENT", "SQL_COMMENT"):
            continue
        if token.name == "ASCII_59" and not depth:
            statements += [] if begin is None else [text[begin:end]]
            begin = None
            continue
        depth = max(depth + {"ASCII_40": 1, "ASCII_41": -1}.get(token.name, 0), 0)
        begin, end = token.start if begin is None else begin, token.end + 1
    return statements + ([] if begin is None else [text[begin:end]]), depth


@settings(max_examples=1500, deadline=None)
@given(st.lists(st.sampled_from(SOUP), max_size=14).map("".join))
def test_any_text_is_cut_where_the_lexer_of_postgres_cuts_it(text):
    try:
        expected, depth = scanned(text)
    except Exception as error:
        if "unterminated" in str(error):
            refusal(text)
        return  # Postgres refuses the rest for what is none of a splitter's business: junk behind a number, …
    try:
        assert texts(text) == expected
    except FileFailure as failure:
        backslash = any(token.name == "ASCII_92" for token in parser.scan(text))
        assert depth if "parenthesis" in failure.message else backslash and "meta-command" in failure.message


EXPRESSION = st.sampled_from(
    [
        "1", "'a;b'", "'it''s'", "'back\\'", "E'a\\';\\\\'", "U&'\\0061;'", "N'x;'", "B'01'", "X'ff'", "$$a;'b$$",
        "$a$ $$;$$ $a$", "'a;'\n'b'", "E'a'\n  '\\';'", '"c;d"', '"e"";f"', "a$b", "t.end",
        "(SELECT ';')", "CASE WHEN a THEN 1 END", "(CASE a WHEN 1 THEN ';' ELSE CASE WHEN b THEN 2 END END)",
        "f(a, (b))", "1 +/* ; */2", "1 -- ;\n", "- -1", "a[1:2]", "x::text", "é", "/* /* ; */ ' */ 1",
        "date'2020-01-01'", "a->>'b;'", "1 */**/2", "a #>> '{;}'", "current_date", "$1",
    ]
)  # fmt: skip
GAP = st.sampled_from([" ", "\n", "\r\n", "\t", " /* ; ' */ ", " -- ; $$\n", "\n/*/* */;*/\n", " /**/ "])
SELECT = st.builds(
    lambda gap, values, label: f"SELECT{gap}{f',{gap}'.join(values)}{label}",
    GAP,
    st.lists(EXPRESSION, min_size=1, max_size=4),
    st.sampled_from(["", " AS end", " AS case", ' AS "begin;"', " FROM t WHERE a", ' FROM "t;"']),
)
BODY = st.lists(SELECT, max_size=3).map(lambda selects: "BEGIN ATOMIC " + "".join(s + "; " for s in selects) + "END")
STATEMENT = st.one_of(
    SELECT,
    BODY.map(lambda body: f"CREATE FUNCTION f(a int) RETURNS int LANGUAGE sql {body}"),
    BODY.map(lambda body: f"create or replace /* ; */ procedure begin() {body}"),
    st.lists(SELECT, min_size=1, max_size=3).map(lambda s: f"CREATE RULE r AS ON INSERT TO t DO ALSO ({'; '.join(s)})"),
    st.sampled_from(
        [
            "BEGIN", "COMMIT", "CREATE TABLE t (a$b int, \"c;d\" text DEFAULT ';')",
            "DO $do$ BEGIN EXECUTE $e$;$e$; END $do$",
            "CREATE FUNCTION f() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN 'x;--y'; END; $$",
            "CREATE FUNCTION f() RETURNS int RETURN CASE WHEN true THEN 1 END", "CREATE TABLE begin (atomic int)",
            "CREATE FUNCTION begin() RETURNS int LANGUAGE sql AS 'SELECT 1;'", "COMMENT ON TABLE t IS '(;'",
        ]
    ),
)  # fmt: skip
FILE = st.lists(st.tuples(GAP, STATEMENT, GAP), max_size=5).map(
    lambda parts: ";".join(before + code + after for before, code, after in parts)
)


@settings(max_examples=400, deadline=None)
@given(FILE)
def test_valid_sql_is_cut_where_the_parser_of_postgres_cuts_it(text):
    ours = texts(text)
    theirs = parser.split(text)
    assert len(ours) == len(theirs)
    # Theirs keep comments at their end.
    assert ours == [scanned_text(statement) for statement in theirs]


def scanned_text(text):
    """`text` without the comments around it."""
    significant = [token for token in parser.scan(text) if token.name not in ("C_COMMENT", "SQL_COMMENT")]
    return text[significant[0].start : significant[-1].end + 1]


@settings(max_examples=200, deadline=None)
@given(FILE, st.integers(0, 10_000))
def test_a_file_cut_anywhere_fails_or_yields_a_prefix(text, place):
    whole = texts(text)
    try:
        part = texts(text[: place % (len(text) + 1)])
    except FileFailure:
        return
    assert part[:-1] == whole[: len(part[:-1])]


@settings(max_examples=200, deadline=None)
@given(FILE)
def test_offsets_and_lines_point_at_the_text_of_the_statement(text):
    behind = 0
    for statement in split(text):
        end = statement.offset + len(statement.text)
        assert statement.offset >= behind
        assert text[statement.offset : end] == statement.text
        assert line_column(text, statement.offset) == (statement.line, statement.column)
        assert line_column(text, end - 1)[0] == statement.end_line
        assert all(text[t.offset : t.offset + len(t.text)] == t.text for t in statement.tokens)
        behind = end


@settings(max_examples=200, deadline=None)
@given(FILE)
def test_each_statement_alone_is_one_statement(text):
    for statement in split(text):
        assert texts(statement.text) == [statement.text]


@settings(max_examples=100, deadline=None)
@given(STATEMENT)
def test_the_length_of_a_statement_does_not_matter(statement):
    # The lexer reads in runs of bounded length: what stands behind many of them is read alike.
    for count in (165, 499, 500, 501, 1000):
        padding = "SELECT " + "1," * count
        assert texts(f"{padding}{count}; {statement}; SELECT 1")[1:] == texts(f"{statement}; SELECT 1")


@pytest.mark.parametrize(
    "piece", ["'a' ", "E'\\'' ", "$$;$$ ", "(;) ", "/*;*/ 1 ", "--;\n1 ", '"a;" ', "a ", "- ", "é,"]
)
def test_a_statement_of_many_equal_pieces_is_one(piece):
    for count in (499, 500, 501, 1001):
        code = "SELECT " + (piece * count).strip()
        assert texts(f"{code};SELECT 2") == [code, "SELECT 2"]


@pytest.mark.servers("url-psql-13", "url-psql-15", "url-psql-17", "embedded-16", "embedded-18")
def test_a_server_continues_a_string_as_we_do(database):
    cases = {
        "E'a'\n'\\''": "a'",
        "E'a' -- c;\n '\\''": "a'",
        "E'a'\n-- c;\n'\\''": "a'",
        "'a' -- c\r'b'": "ab",
    }
    for sql, value in cases.items():
        assert texts(f"SELECT {sql}; SELECT 2") == [f"SELECT {sql}", "SELECT 2"]
        assert database.admin(f"SELECT {sql} AS value") == [{"value": value}]


def sample_files():
    return sorted(glob.glob(os.path.join(ROOT, "migrations", "**", "*.sql"), recursive=True))


@pytest.mark.parametrize("path", sample_files(), ids=lambda path: os.path.relpath(path, ROOT))
def test_a_real_migration_is_cut_where_the_parser_of_postgres_cuts_it(path):
    with open(path, "rb") as file:
        text = decode(file.read(), path)
    ours = split(text)
    for statement in ours:  # the parser knows nothing of data
        text = text if statement.copy_data is None else text.replace(f"{statement.copy_data}\\.", "")
    assert [statement.text for statement in ours] == [scanned_text(statement) for statement in parser.split(text)]


# time


def seconds(sql):
    began = time.process_time()
    try:
        split(sql)
    except FileFailure:
        pass
    return time.process_time() - began


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t (a, b) VALUES (1, 'it''s', now());\n" * 100_000,
        "INSERT INTO t VALUES " + "(1, 'abc def', NULL, 3.14),\n" * 190_000 + "(1);",
        "SELECT '" + "x" * 5_000_000 + "';",
        "COPY t FROM stdin;\n" + "1\t2\t3\n" * 800_000 + "\\.\n",
    ],
    ids=["100,000 statements", "one statement", "one string", "COPY data"],
)
def test_five_megabytes_are_split_in_seconds(sql):
    assert seconds(sql) < 10  # about one; the rest is for a busy machine


@pytest.mark.parametrize(
    "piece",
    [
        "'", '"', "$a", "$a$ $b", "$", "/*", "/* x */ ", "--\n", "E'a'\n", "'a\\' ", "E'\\''", "(", ")", ";", "\\'",
        "E'\\", "B'1'\n",
        "CREATE ", "CREATE /* a */ ", "BEGIN ", "BEGIN ATOMIC ", "CASE ", "END ", "- ", "a$", "U&", "1.", "\r",
        "\r\n", "é",
        "COPY t FROM ",
        "SET standard_conforming_strings = off;", "COPY t FROM stdin;\n\\.\n", "\\restrict a\n", " ", "/*/", "*/",
    ],
)  # fmt: skip
@pytest.mark.parametrize("head", ["", "CREATE FUNCTION f() BEGIN ATOMIC "], ids=["file", "body"])
def test_time_is_linear_whatever_is_repeated(head, piece):
    sql = head + piece * (400_000 // len(piece))
    assert seconds(sql) < 10  # a square of it would take minutes


# the hard files of the project's shared data, where they are


def hard_file(name):
    return (HARD / name).read_bytes()


@wants_shared(HARD.name)
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("01_dollar_quotes.sql", ["CREATE FUNCTION", "CREATE FUNCTION", "CREATE TABLE", "DO $do$"]),
        ("02_nested_comments.sql", ["CREATE TABLE", "CREATE TABLE"]),
        ("05_begin_atomic.sql", ["CREATE FUNCTION", "CREATE PROCEDURE", "CREATE TABLE"]),
        ("07_plpgsql_txn_words.sql", ["CREATE PROCEDURE", "CREATE TABLE"]),
        ("10_copy_stdin.sql", ["CREATE TABLE", "COPY h10", "CREATE TABLE"]),
        ("15_search_path_leak.sql", ["SELECT pg_catalog.set_config", "CREATE TABLE"]),
        ("20_create_index_concurrently.sql", ["CREATE INDEX", "CREATE INDEX"]),
        ("20_setup.sql", ["CREATE TABLE", "INSERT INTO"]),
        ("21_cic_unique_violation.sql", ["CREATE TABLE", "INSERT INTO", "CREATE UNIQUE INDEX"]),
        ("23_alter_type_add_value.sql", ["CREATE TYPE", "ALTER TYPE", "CREATE TABLE", "INSERT INTO"]),
        ("26_txn_control.sql", ["BEGIN", "CREATE TABLE", "COMMIT", "CREATE TABLE", "SELECT 1/0"]),
        ("30_deferred_constraint.sql", ["CREATE TABLE", "CREATE TABLE", "INSERT INTO"]),
        ("40_bom.sql", ["CREATE TABLE"]),
        ("41_crlf.sql", ["CREATE TABLE", "CREATE FUNCTION"]),
        ("46_empty.sql", []),
        ("51_error_position.sql", ["CREATE TABLE", "CREATE TABLE", "CREATE TABEL"]),
        ("52_unicode_idents.sql", ["CREATE TABLE", "CREATE TABLE"]),
    ],
)
def test_a_hard_file_is_split_as_it_should(name, words):
    found = texts(decode(hard_file(name), name))
    assert [text[: len(word)] for text, word in zip(found, words)] == words
    assert len(found) == len(words)


@wants_shared(HARD.name)
@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("12_psql_meta.sql", 3, "psql meta-command \\set is not supported"),
        ("43_nul_byte.sql", 2, "NUL byte at offset 135 (line 2)"),
        ("49_unterminated_quote.sql", 3, "a quote (') that is never closed"),
    ],
)
def test_a_hard_file_is_refused_at_the_right_line(name, line, message):
    with pytest.raises(FileFailure) as caught:
        split(decode(hard_file(name), name), name)
    assert (caught.value.file, caught.value.line, caught.value.message) == (name, line, message)


@wants_shared(HARD.name)
def test_the_third_statement_of_a_hard_file_stands_on_its_line():
    assert [s.line for s in split(decode(hard_file("51_error_position.sql")))] == [2, 3, 5]


@wants_shared(HARD.name)
def test_the_data_of_a_hard_file_are_its_lines():
    assert split(decode(hard_file("10_copy_stdin.sql")))[1].copy_data.count("\n") == 3
