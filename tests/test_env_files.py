"""Env files as Compose reads them: what a line may look like, and what it says when it may not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nself_core import env_files
from nself_core.failures import FileFailure


def parse(text, **environ):
    """The settings in `text`, in a process environment of `environ`."""
    return env_files.parse(text, ".env", environ.get)


def failure(text, **environ):
    """What the parser says about `text`: the FileFailure."""
    with pytest.raises(FileFailure) as caught:
        parse(text, **environ)
    return caught.value


def value(text, **environ):
    """The value of A in `text`."""
    return parse(text, **environ)["A"]


# Lines.


def test_settings_come_in_the_order_of_the_file():
    assert list(parse("B=1\nA=2\nC=3\n").items()) == [("B", "1"), ("A", "2"), ("C", "3")]


def test_of_a_name_given_twice_the_last_holds():
    assert parse("A=1\nA=2\n") == {"A": "2"}


def test_blank_lines_and_comment_lines_are_skipped():
    assert parse("\n  \t\n# A=0\n  # B=0\nA=1\n\n") == {"A": "1"}


def test_an_empty_file_has_no_settings():
    assert parse("") == {}


def test_the_last_line_needs_no_end():
    assert parse("A=1") == {"A": "1"}


def test_the_word_export_is_dropped():
    assert parse("export A=1\nexport\tB='2'\n") == {"A": "1", "B": "2"}


def test_a_setting_may_be_called_export():
    assert parse("export=1\n") == {"export": "1"}


def test_blanks_around_name_and_value_are_dropped():
    assert parse("  A =  1 2  \n") == {"A": "1 2"}


def test_a_colon_may_stand_for_the_sign():
    assert parse("A: one\nB:two\n") == {"A": "one", "B": "two"}


def test_only_the_first_sign_counts():
    assert parse("A=b=c:d\n") == {"A": "b=c:d"}


def test_a_bare_name_is_taken_over_from_the_process_environment():
    assert parse("A\nB\nC=1", A="from outside") == {"A": "from outside", "C": "1"}


def test_line_ends_of_windows_are_line_ends():
    assert parse("A=1\r\nB='x\r\ny'\r\nC\r\n", C="3") == {"A": "1", "B": "x\ny", "C": "3"}


def test_a_byte_order_mark_is_dropped():
    assert parse("\ufeffA=1\n") == {"A": "1"}


# Unquoted values.


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("A=1 # one", "1"),
        ("A=1\t# one", "1"),
        ("A=1#one", "1#one"),
        ("A=#one", "#one"),
        ("A= # one", ""),
        ("A=", ""),
        ('A=it\'s "here"', 'it\'s "here"'),
        (r"A=C:\new\table", r"C:\new\table"),
    ],
)
def test_an_unquoted_value_ends_at_a_comment_that_has_a_space_before_it(line, expected):
    assert value(line) == expected


# Single quotes.


def test_single_quotes_are_literal():
    assert value(r"""A='$B ${C} \n "x" # y'""", B="no") == r'$B ${C} \n "x" # y'


def test_a_quote_in_single_quotes_is_written_with_a_backslash():
    assert value(r"A='it\'s'") == "it's"


# Double quotes.


def test_double_quotes_know_escapes():
    assert value(r'A="a\nb\tc\rd \"e\" \\ \$F"') == 'a\nb\tc\rd "e" \\ $F'


def test_an_unknown_escape_stays_as_it_is():
    assert value(r'A="\d\w"') == r"\d\w"


def test_an_escaped_backslash_does_not_escape_a_reference():
    assert value(r'A="\\$B"', B="x") == r"\x"


def test_a_hash_in_quotes_is_no_comment():
    assert value('A="52428800  # 50MB"') == "52428800  # 50MB"


def test_a_comment_may_follow_the_closing_quote():
    assert parse("A='1' # one\nB=\"2\"#two\n") == {"A": "1", "B": "2"}


def test_quoted_values_span_lines():
    text = 'A="-----BEGIN KEY-----\nabc\n-----END KEY-----"\nB=\'{\n  "type": "HS256"\n}\'\nC=1\n'
    assert parse(text) == {
        "A": "-----BEGIN KEY-----\nabc\n-----END KEY-----",
        "B": '{\n  "type": "HS256"\n}',
        "C": "1",
    }


# References.


@pytest.mark.parametrize("line", ["A=api.${B}/x", "A=api.$B/x", 'A="api.${B}/x"', 'A="api.$B/x"'])
def test_references_are_replaced(line):
    assert value(line, B="host") == "api.host/x"


@pytest.mark.parametrize(
    ("reference", "unset", "empty", "full"),
    [
        ("${B}", "", "", "full"),
        ("${B:-text}", "text", "text", "full"),
        ("${B-text}", "text", "", "full"),
        ("${B:+text}", "", "", "text"),
        ("${B+text}", "", "text", "text"),
        ("${B:-}", "", "", "full"),
        ("${B:?text}", None, None, "full"),
        ("${B?text}", None, "", "full"),
    ],
)
def test_a_reference_may_say_what_stands_for_it(reference, unset, empty, full):
    def result(**environ):
        try:
            return value(f"A={reference}", **environ)
        except FileFailure:
            return None

    assert [result(), result(B=""), result(B="full")] == [unset, empty, full]


def test_what_is_needed_and_not_there_is_named_with_its_reason():
    told = failure("X=1\nA=${B:?say which host}\n")
    assert (told.message, told.place) == ("A needs B, which is not set: say which host", ".env:2")


def test_a_default_may_hold_references():
    assert value("A=${B:-http://${C:-localhost}:$D}/x", D="80") == "http://localhost:80/x"


def test_a_reference_sees_the_lines_above_it():
    assert parse("A=1\nB=${A}2\nC=$B$A\n") == {"A": "1", "B": "12", "C": "121"}


def test_a_reference_does_not_see_the_lines_below_it():
    assert parse("B=x$A\nA=1\n")["B"] == "x"


def test_the_process_environment_wins_in_references():
    assert parse("A=file\nB=$A\n", A="process") == {"A": "file", "B": "process"}


def test_references_see_the_files_read_before_but_the_own_lines_first():
    told = env_files.read("B=2\nX=$A$B\n", ".env.dev", None, {"A": "1", "B": "0"})
    assert told.values == {"B": "2", "X": "12"}


def test_what_a_value_refers_to_and_nothing_sets_is_remembered():
    assert env_files.read("A=pa$word${x:-}\nB=1\n", ".env").unset == {"A": ["word"]}


@pytest.mark.parametrize("line", ["A=p$$1", "A=p$1", 'A="p$1"', 'A="p\\$1"'])
def test_a_dollar_that_starts_no_name_stands_for_itself(line):
    assert value(line) == "p$1"


def test_two_dollars_are_one():
    assert value("A=$$B", B="x") == "$B"


def test_an_inserted_value_is_not_expanded_again():
    assert value("A=$B", B="${C} $$ # x") == "${C} $$ # x"


def test_nothing_is_executed(tmp_path):
    mark = tmp_path / "mark"
    assert value(f'A="$(touch {mark}) `touch {mark}`"') == f"$(touch {mark}) `touch {mark}`"
    assert not mark.exists()


# What is refused.


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("A=1\nhello world\n", 2),
        ("A=1\n\n=x\n", 3),
        ("A B=1", 1),
        ("<<<<<<< HEAD\n", 1),
        ("A=1\nB='x\ny\n", 2),
        ('A=1\nB="x\\"\n', 2),
        ("A='x\ny' z\n", 2),
        ("A=${B\n", 1),
        ("A=${}\n", 1),
        ("A=${1}\n", 1),
        ("A=1\nB=${A B}\n", 2),
        ("A=1\nB=x\0y\n", 2),
    ],
)
def test_a_bad_line_is_named(text, line):
    assert failure(text).place == f".env:{line}"


def test_a_message_never_holds_the_line():
    for text in ("PASSWORD hunter2", "A='hunter2", "A='x' hunter2", "A=${hunter2 x}"):
        told = failure(text)
        assert "hunter2" not in told.message + (told.hint or "")


def test_references_nest_only_so_deep():
    assert "too deeply" in failure("A=" + "${B:-" * 2000 + "}" * 2000).message


def test_utf_16_is_named():
    with pytest.raises(FileFailure, match="UTF-16"):
        env_files.decode("A=1\n".encode("utf-16"), ".env")


def test_what_is_not_utf_8_is_named_with_its_line():
    with pytest.raises(FileFailure, match="not UTF-8") as caught:
        env_files.decode(b"A=1\nB=\xe4\n", ".env")
    assert caught.value.place == ".env:2"


# Properties.

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
# The text of a file is UTF-8, and its line ends are made one kind.
VALUES = TEXTS.map(lambda text: text.replace("\r\n", "\n"))
LINES = st.lists(
    st.sampled_from(["A", "B=", "export ", "'", '"', "\\", "$", "${", "}", ":-", ":?", "#", " ", "\n", "x"])
)


def double_quoted(text):
    """`text` as a double-quoted value."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$") + '"'


@given(st.dictionaries(st.sampled_from("ABCDE"), VALUES))
def test_double_quoted_values_survive(settings):
    text = "".join(f"{name}={double_quoted(text)}\n" for name, text in settings.items())
    assert parse(text, A="not this") == settings


@given(VALUES.filter(lambda text: "\\" not in text))
def test_single_quoted_values_survive(text):
    quoted = text.replace("'", "\\'")
    assert value(f"A='{quoted}' # comment\nB=1\n") == text


@given(st.one_of(TEXTS, LINES.map("".join)))
def test_any_text_is_read_or_refused_with_a_line(text):
    try:
        found = parse(text, A="a")
    except FileFailure as told:
        assert 1 <= told.line <= text.count("\n") + 1
    else:
        assert all(isinstance(item, str) for pair in found.items() for item in pair)


@given(st.binary())
def test_any_bytes_are_a_text_or_refused(data):
    try:
        assert isinstance(env_files.decode(data, ".env"), str)
    except FileFailure as told:
        assert told.line is not None
