"""The YAML that is written: byte for byte as Hasura's CLI writes it, and read back as the same by every reader."""

from __future__ import annotations

import json

import pytest
import yaml
from bed.hasura_material import reads, recorded, recorded_json, recorded_text
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from nself_core.hasura.layout import SINGLE_FILE_ORDER
from nself_core.hasura.yaml_style import render, render_entry, render_item
from nself_core.hasura.yaml_values import YamlReader

READER = YamlReader()


def test_the_layout():
    value = {
        "version": 3,
        "empty": {"list": [], "mapping": {}, "text": "", "null": None},
        "list": ["a", {"b": 1, "c": [1, 2]}, [], {}, ["x", ["w", {"z": True}]]],
        "numbers": [0, -1, 10**20, 1.5, -0.25, 1e-07, 1e22],
        "text": "one\ntwo\n",
    }
    assert (
        render(value)
        == """\
version: 3
empty:
  list: []
  mapping: {}
  text: ""
  "null": null
list:
  - a
  - b: 1
    c:
      - 1
      - 2
  - []
  - {}
  - - x
    - - w
      - z: true
numbers:
  - 0
  - -1
  - 100000000000000000000
  - 1.5
  - -0.25
  - 1e-07
  - 1e+22
text: |
  one
  two
"""
    )


def test_roots_that_are_no_filled_collection():
    assert [render(value) for value in ([], {}, None, "a", "a\nb")] == [
        "[]\n",
        "{}\n",
        "null\n",
        "a\n",
        "|-\n  a\n  b\n",
    ]


# A text, and how it stands as a value.
TEXTS = [
    ("plain text", "plain text"), ("http://localhost:3000", "http://localhost:3000"), ("X-Hasura-User-Id",) * 2,
    ("äöü €漢字", "äöü €漢字"), ("a#b", "a#b"), ("a: b", "'a: b'"), ("a:", "'a:'"), ("a:b", "a:b"), ("a #b", "'a #b'"),
    ("*", "'*'"), ("* * * * *", "'* * * * *'"), ("{{BASE}}/x", "'{{BASE}}/x'"), ("[a", "'[a'"), ("&a", "'&a'"),
    ("!x", "'!x'"), ("%x", "'%x'"), ("@x", "'@x'"), ("`x", "'`x'"), ("#x", "'#x'"), (",x", "',x'"), ("|x", "'|x'"),
    (">x", "'>x'"), ("'x", "'''x'"), ('"x', "'\"x'"), ("it's", "it's"), ("- x", "'- x'"), ("-x", "-x"), ("-", "'-'"),
    ("?x", "?x"), ("? x", "'? x'"), (":x", ":x"), (": x", "': x'"), ("---", '"---"'), ("...x", "'...x'"), ("--", "--"),
    (" x", "' x'"), ("x ", "'x '"), ("]x", "']x'"), ("}x", "'}x'"), ("x]", "x]"), ("<x", "<x"), ("=", "="),
    # What a reader would take for something else.
    ("true", '"true"'), ("TRUE", '"TRUE"'), ("tRUE", "tRUE"), ("null", '"null"'), ("~", '"~"'), ("", '""'),
    ("on", '"on"'), ("On", '"On"'), ("oN", "oN"), ("yes", '"yes"'), ("n", '"n"'), ("off", '"off"'), ("t", '"t"'),
    ("12", '"12"'), ("-12", '"-12"'), ("+1", '"+1"'), ("012", '"012"'), ("0o17", '"0o17"'), ("0x1F", '"0x1F"'),
    ("0b101", '"0b101"'), ("1_000", '"1_000"'), ("1.5", '"1.5"'), (".5", '".5"'), ("5.", '"5."'), ("1e3", '"1e3"'),
    ("1e999", '"1e999"'), (".inf", '".inf"'), ("-.Inf", '"-.Inf"'), (".nan", '".nan"'), ("inf", "inf"), ("09", '"09"'),
    ("0o8", "0o8"), ("1.2.3", "1.2.3"), ("+", "+"), (".", "."), ("1a", "1a"), ("_1", "_1"), ("<<", '"<<"'),
    ("2024-01-01", '"2024-01-01"'), ("2001-12-14t21:59:43.10-05:00", '"2001-12-14t21:59:43.10-05:00"'),
    ("1:30", '"1:30"'), ("10:20:30", '"10:20:30"'), ("2024-13-45", '"2024-13-45"'), ("1-2", '"1-2"'),
    # What only double quotes can hold.
    ("a\tb", r'"a\tb"'), ("a\rb", r'"a\rb"'), ("\x1b[0m", r'"\e[0m"'), ("\x7f", r'"\x7F"'), ("a\x85b", r'"a\Nb"'),
    ("\ufeff", r'"\uFEFF"'), ("a\u2028b", r'"a\Lb"'), ("\U0001f600", r'"\U0001F600"'), ("\x00", r'"\0"'),
    ("!include a b.yaml", '"!include a b.yaml"'), ('a\t"\\', r'"a\t\"\\"'),
    # Lines.
    ("a\nb", "|-\n    a\n    b"), ("a\nb\n", "|\n    a\n    b"), ("a\n\n", "|+\n    a\n"),
    ("a\n\nb\n", "|\n    a\n\n    b"),
    ("\n", "|2+\n"), ("\na\n", "|2\n\n    a"), (" a\nb\n", "|2\n     a\n    b"), ("a \nb", r'"a \nb"'),
    ("a\nb ", r'"a\nb "'), ("a\n \nb", r'"a\n \nb"'), ("a\n\tb\n", "|\n    a\n    \tb"), ("a\r\nb\n", r'"a\r\nb\n"'),
    ("\U0001f600\nb", r'"\U0001F600\nb"'), ("a:\n  - b\n", "|\n    a:\n      - b"), ("# a\n", "|\n    # a"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "written"), TEXTS)
def test_how_a_text_is_written(text, written):
    assert render({"a": {"key": text}}) == f"a:\n  key: {written}\n"
    assert READER.value(render({"a": {"key": text}}), "x") == {"a": {"key": text}}
    item = written.replace("\n    ", "\n  ")
    assert render([text]) == f"- {item}\n"
    assert READER.value(render([text]), "x") == [text]


@pytest.mark.parametrize(("key", "written"), [
    ("a", "a"), ("1", '"1"'), ("true", '"true"'), ("", '""'), ("a b", "a b"), ("a: b", "'a: b'"), ("a\nb", r'"a\nb"'),
    ("*", "'*'"), ("-", "'-'"), ("x" * 128, "x" * 128),
])  # fmt: skip
def test_how_a_key_is_written(key, written):
    assert render({key: 1}) == f"{written}: 1\n"
    assert READER.value(render({key: 1}), "x") == {key: 1}


def test_a_long_key_stands_apart():
    value = {"k" * 129: {"a": ["x" * 2000]}, "b": 1}
    assert render(value).startswith("? " + "k" * 129 + "\n:\n  a:\n    - x")
    assert READER.value(render(value), "x") == value


def test_parts_of_a_file_are_written_alike():
    assert render_item({"a": [1], "b": "x\ny"}, 2) == "  - a:\n      - 1\n    b: |-\n      x\n      y\n"
    assert render_entry("k", {"a": [1]}, 4) == "    k:\n      a:\n        - 1\n"


# Whatever the value: it is read back as what it was.

CHARACTERS = st.characters(exclude_categories=["Cs"])
PIECES = st.sampled_from([*" \n\t:#-?[]{}&*!|>'\"%@`,.0123456789+_eExob~<=", "\r", "\x85", "\u2028", "\ufeff", "true",
                          "no", "null", "---", "...", "!include ", "2024-01-01", ": ", " #", "- "])  # fmt: skip
STRINGS = st.one_of(st.text(CHARACTERS, max_size=30), st.lists(PIECES, max_size=8).map("".join),
                    st.sampled_from([text for text, _ in TEXTS]))  # fmt: skip
SCALARS = st.one_of(STRINGS, st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False))
VALUES = st.recursive(
    SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(STRINGS, inner, max_size=4)),
    max_leaves=15,
)  # fmt: skip


def exactly(value):
    """A text that is the same only for the same value: 1, 1.0 and true are three."""
    return repr(value)


@settings(max_examples=200, deadline=None)
@given(VALUES)
@example({"a": "\n"})
@example([["\n a"]])
@example({"\n": "\n\n"})
@example("\t\n")
@example(["\n\ta\n \tb\n"])
def test_what_is_written_is_read_as_it_was(value):
    assert exactly(READER.value(render(value), "x")) == exactly(value)


def texts_of(value):
    """All keys and scalars of a value."""
    if isinstance(value, (list, dict)):
        inner = [text for item in (value.values() if isinstance(value, dict) else value) for text in texts_of(item)]
        return [*inner, *(value if isinstance(value, dict) else ())]
    return [value]


@settings(max_examples=100, deadline=None)
@given(VALUES)
def test_other_readers_read_the_same(value):
    """PyYAML reads YAML 1.1, in which more plain texts are something else: all those stand in quotes.

    But not a lone =, which the CLI writes as it is, and PyYAML alone cannot read.
    """
    assume("=" not in texts_of(value))
    for loader in (yaml.SafeLoader, yaml.CSafeLoader):
        assert_alike(yaml.load(render(value), loader), value)


def assert_alike(found, value):
    """Assert that a reader found a value; YAML 1.1 knows no number like 1e+22 without a point, and reads a text."""
    if isinstance(value, float):
        assert float(found) == value
    elif isinstance(value, list):
        assert len(found) == len(value)
        for one, other in zip(found, value):
            assert_alike(one, other)
    elif isinstance(value, dict):
        assert [*found] == [*value]
        for key in value:
            assert_alike(found[key], value[key])
    else:
        assert exactly(found) == exactly(value)


@settings(max_examples=100, deadline=None)
@given(VALUES)
def test_what_was_written_once_is_written_the_same_again(value):
    text = render(value)
    assert render(READER.value(text, "x")) == text


# Upstream's recorded cases.

WRITTEN = recorded("*/want*.yaml")


@reads(WRITTEN)
@pytest.mark.parametrize("file", WRITTEN)
def test_recorded_files_are_written_as_they_are(file):
    text = recorded_text(file)
    assert render(READER.value(text, file)) == text


ORDERED = recorded("jsonyaml-order-t1/*")


@reads(ORDERED)
def test_a_recorded_single_file():
    document, wanted = recorded_json(ORDERED[0]), recorded_text(ORDERED[1])
    assert render({key: document[key] for key in SINGLE_FILE_ORDER if key in document}) == wanted
    assert json.loads(json.dumps(READER.value(wanted, "x"))) == document
