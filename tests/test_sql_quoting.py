"""Quoting: what we write as SQL is read back by Postgres's own parser as the very same value, and as nothing more."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pglast import parse_sql, parser

from nself_core.failures import UsageFailure
from nself_core.sql.lexer import split, tokens
from nself_core.sql.quoting import array_text, bind, dollar, identifier, literal, qualified

ALPHABET = st.sampled_from(
    ["'", '"', "\\", "$", "$$", "$nself$", "$nself1", ":a", "--", "/*", ";", "\n", "E", "a", "é"]
)
NASTY = st.lists(ALPHABET, max_size=12).map("".join)
TEXT = NASTY | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
NAME = TEXT.filter(lambda name: 0 < len(name.encode()) < 64)


def selected(sql):
    """What a SELECT selects, as nodes of Postgres's parser."""
    (statement,) = parse_sql(sql)
    # pglast types a statement as any of its nodes; that it is a SELECT is what the caller wrote.
    return [target.val for target in statement.stmt.targetList]  # type: ignore[union-attr]


def read_constant(sql):
    """The text of the constant in `SELECT sql`, as Postgres's parser reads it."""
    (constant,) = selected(f"SELECT {sql}")
    return constant.val.sval


# literal


@pytest.mark.parametrize(
    ("value", "sql"),
    [
        (None, "NULL"),
        (True, "TRUE"),
        (False, "FALSE"),
        (7, "7"),
        (1.5, "1.5"),
        ("", "''"),
        ("it's", "'it''s'"),
        ("a\\b", "E'a\\\\b'"),
        ("\\'", "E'\\\\'''"),
        ({"a": [1, None]}, "'{\"a\": [1, null]}'"),
        (["it's"], "'[\"it''s\"]'"),
    ],
)
def test_a_value_is_written_as_a_constant(value, sql):
    assert literal(value) == sql


def test_a_negative_number_stands_in_parentheses_lest_it_make_a_comment():
    assert f"1 -{literal(-1)}" == "1 -(-1)"


def test_the_smallest_bigint_survives_a_cast():
    parse_sql(f"SELECT {literal(-(2**63))}::bigint")
    assert literal(-(2**63)) == "(-9223372036854775808)"


@pytest.mark.parametrize(
    ("value", "text"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")], ids=["nan", "inf", "-inf"]
)
def test_what_is_no_finite_number_is_written_as_a_text_with_its_type(value, text):
    assert literal(value) == f"'{text}'::double precision"


@given(TEXT)
def test_a_text_reads_back_as_itself(text):
    assert read_constant(literal(text)) == text


@given(TEXT)
def test_a_text_is_one_token_whatever_standard_conforming_strings_is(text):
    for standard_strings in (True, False):
        assert [token.kind for token in tokens(literal(text), standard_strings)] == ["string"]


@given(st.recursive(TEXT | st.integers() | st.none() | st.booleans(), lambda inner: st.lists(inner, max_size=3)))
def test_a_list_reads_back_as_its_json(value):
    assert json.loads(read_constant(literal([value]))) == [value]


@given(st.dictionaries(TEXT, TEXT, max_size=3))
def test_a_dict_reads_back_as_its_json(value):
    assert json.loads(read_constant(literal(value))) == value


@pytest.mark.parametrize("value", ["a\0b", "\ud800", b"bytes", object(), {"a": object()}, [math.nan]])
def test_what_sql_cannot_hold_is_a_usage_failure(value):
    with pytest.raises(UsageFailure):
        literal(value)


# identifier and qualified


@pytest.mark.parametrize(("name", "sql"), [("a", '"a"'), ("User", '"User"'), ('a"b', '"a""b"'), ("a.b;", '"a.b;"')])
def test_a_name_is_always_quoted(name, sql):
    assert identifier(name) == sql


@given(NAME)
def test_a_name_reads_back_as_itself(name):
    (column,) = selected(f"SELECT {identifier(name)}")
    assert column.fields[0].sval == name


@pytest.mark.parametrize("name", ["", None, "a\0", "\udc80"])
def test_a_name_that_cannot_be_is_a_usage_failure(name):
    with pytest.raises(UsageFailure):
        identifier(name)


def test_a_qualified_name_quotes_both_parts():
    assert qualified("my schema", 'ta"ble') == '"my schema"."ta""ble"'


def test_a_qualified_name_without_a_schema_is_the_name():
    assert qualified(None, "t") == '"t"'


# dollar


@pytest.mark.parametrize(
    "text",
    [
        "",
        "$",
        "$$",
        "$nself$",
        "$nself",
        "x$nself",
        "$nself$$nself1$$nself2",
        "$nself1$",
        "ends with $nself1",
        "$$nself",
    ],
)
def test_a_dollar_quoted_text_reads_back_as_itself(text):
    assert read_constant(dollar(text)) == text


@given(TEXT)
def test_any_dollar_quoted_text_reads_back_as_itself(text):
    # Postgres normalises nothing inside a dollar quote, not even line ends.
    assert read_constant(dollar(text)) == text


@given(TEXT)
def test_a_dollar_quote_cut_anywhere_is_left_open(text):
    quoted = dollar(text)
    opened = quoted.index("$", 1) + 1
    for end in range(opened, len(quoted)):
        with pytest.raises(Exception, match="unterminated dollar-quoted string"):
            parser.scan(f"SELECT {quoted[:end]}")


def test_a_tag_is_found_in_linear_time_among_many_taken_ones():
    text = "".join(f"$nself{number}$" for number in range(50_000)) + "$nself$"
    assert dollar(text).startswith("$nself50000$")


def test_a_nul_cannot_be_dollar_quoted():
    with pytest.raises(UsageFailure):
        dollar("a\0b")


# bind


def test_a_parameter_becomes_its_constant():
    assert bind("SELECT :name::text, :count", {"name": "it's", "count": 2}) == "SELECT 'it''s'::text, 2"


def test_a_parameter_may_stand_twice():
    assert bind("SELECT :a, :a", {"a": 1}) == "SELECT 1, 1"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1::a",
        "SELECT ':a'",
        'SELECT ":a"',
        "SELECT $$ :a $$",
        "SELECT $x$ :a $x$",
        "SELECT 1 -- :a",
        "SELECT 1 /* :a /* :a */ :a */",
        "SELECT x[1:a]",
        "SELECT x[(y):a]",
        "SELECT f(x := 1)",
        "SELECT E'\\':a'",
    ],
)
def test_what_only_looks_like_a_parameter_is_left_alone(sql):
    assert bind(sql, {}) == sql


def test_a_value_is_not_searched_for_parameters():
    assert bind("SELECT :a, :b", {"a": ":b", "b": ":a"}) == "SELECT ':b', ':a'"


def test_a_parameter_that_is_not_given_is_an_error_that_names_it():
    with pytest.raises(UsageFailure, match=":b"):
        bind("SELECT :a, :b", {"a": 1})


def test_a_parameter_that_is_not_used_is_an_error_that_names_it():
    with pytest.raises(UsageFailure, match=":b"):
        bind("SELECT :a, ':b'", {"a": 1, "b": 2})


@given(TEXT, TEXT)
def test_bound_sql_is_one_statement_with_the_values_in_it(first, second):
    sql = bind("SELECT :a, :b", {"a": first, "b": second})
    assert len(split(sql)) == 1
    assert [constant.val.sval for constant in selected(sql)] == [first, second]


# array_text


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], "{}"),
        ([1, -2, None, 1.5], "{1,-2,NULL,1.5}"),
        ([True, False], "{t,f}"),
        (["a", "", "NULL", "null"], '{"a","","NULL","null"}'),
        (['"', "\\", "{", ",", " "], '{"\\"","\\\\","{",","," "}'),
        ([[1, 2], [3, None]], "{{1,2},{3,NULL}}"),
    ],
)
def test_a_list_is_written_as_postgres_reads_an_array(values, text):
    assert array_text(values) == text


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(TEXT | st.none() | st.sampled_from(["NULL", "{}", " a ", "\u2003"]), max_size=8))
def test_postgres_reads_the_same_list_back(plain_server, values):
    (row,) = plain_server.admin(f"SELECT {literal(array_text(values))}::text[] AS read")
    assert row["read"] == values
