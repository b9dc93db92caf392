"""The GraphQL of actions: read as upstream's own program reads it, and written as it writes it."""

from __future__ import annotations

import re
import time

import pytest
from bed.gaps import wants_shared
from bed.hasura_material import (
    GOLDEN,
    REAL,
    cases_of,
    reads,
    recorded,
    recorded_json,
    recorded_text,
    without_null_descriptions,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from nself_core.failures import FileFailure
from nself_core.hasura.sdl import check_sdl, read_sdl, render_sdl
from nself_core.hasura.tree import read_tree


def action(name, root, output, *arguments):
    """An action as reading gives it; arguments are (name, type) or (name, type, description)."""
    made = [dict(zip(("name", "type", "description"), argument)) for argument in arguments]
    return {"name": name, "definition": {"type": root, "arguments": made, "output_type": output}}


def test_actions_and_types_are_read():
    sdl = read_sdl(
        """
        type Query { a(x: Int!, y: [[String!]]!): Out  b: [Out!]! }
        extend type Mutation { c(in: In): Boolean }
        scalar uuid
        input In { x: Int, y: E = A }
        type Out { id: uuid! }
        enum E { A B }
        """,
        "actions.graphql",
    )
    assert sdl.actions == [
        action("a", "query", "Out", ("x", "Int!"), ("y", "[[String!]]!")),
        action("b", "query", "[Out!]!"),
        action("c", "mutation", "Boolean", ("in", "In")),
    ]
    assert sdl.types == {
        "scalars": [{"name": "uuid"}],
        "input_objects": [{"name": "In", "fields": [{"name": "x", "type": "Int"}, {"name": "y", "type": "E"}]}],
        "objects": [{"name": "Out", "fields": [{"name": "id", "type": "uuid!"}]}],
        "enums": [{"name": "E", "values": [{"value": "A"}, {"value": "B"}]}],
    }


def test_descriptions_are_read():
    sdl = read_sdl(
        '''"""  two
            lines
          """ type T { "a\\n\\"b\\" \\u00e9" a: Int  """ with \\""" three """ b: Int  """ """ c: Int }
        type Query { "not kept" a("kept" x: Int): Int }''',
        "x",
    )
    assert sdl.types["objects"] == [
        {
            "name": "T",
            "description": "two\n  lines".replace("  ", ""),
            "fields": [
                {"name": "a", "type": "Int", "description": 'a\n"b" é'},
                {"name": "b", "type": "Int", "description": 'with """ three'},
                {"name": "c", "type": "Int"},
            ],
        }
    ]
    assert sdl.actions == [action("a", "query", "Int", ("x", "Int", "kept"))]


def test_what_has_no_place_is_named_with_its_line():
    sdl = read_sdl(
        """interface Node { id: ID }
"of the root" type Query @a {
  "of a" a(x: Int = 3 @b(c: {d: [1, "e", $f]})): T @deprecated(reason: "old")
}
type T implements & Node & Other { f(x: Int): Int }
type Subscription { a: Int }
""".replace("$f", "F"),
        "x",
    )
    assert sdl.dropped == [
        (1, "interface Node"), (2, "directive @a"), (2, "the description of Query"),
        (3, "the default value of x"), (3, "directive @b"), (3, "directive @deprecated"), (3, "the description of a"),
        (5, "implements"), (5, "the arguments of T.f"), (6, "type Subscription"),
    ]  # fmt: skip
    assert [one["name"] for one in sdl.actions] == ["a"]
    assert [one["name"] for one in sdl.types["objects"]] == ["T"]


def test_lines():
    text = 'type Query {\n  a(\n    x: Int\n  ): T\n}\n\n"""d"""\ntype T {\n  b: Int\n}\n'
    sdl = read_sdl(text, "x")
    assert sdl.lines == {"actions": {("a",): 2, ("a", "x"): 3}, "types": {("T",): 8, ("T", "b"): 9}}


@pytest.mark.parametrize("text", ["", " \n,\n", "# only a comment", "\ufeff"])
def test_what_holds_nothing_is_empty(text):
    """Upstream refuses a file of comments, and nobody is helped by that."""
    assert read_sdl(text, "x")[:2] == ([], {"scalars": [], "input_objects": [], "objects": [], "enums": []})


@pytest.mark.parametrize(("text", "place", "said"), [
    ("type Query { a: }", ":1:17", "a name is expected, and } found"),
    ("type Query {\n a: Int", ":2:8", "a name is expected, and the end found"),
    ("type Query { a(x: Int: Int }", ":1:22", "a name is expected, and : found"),
    ("type Query { a: [Int }", ":1:22", "] is expected"),
    ("type Query { }", ":1:15", "} found"),
    ("schema { query: Query }", ":1:1", "schema has no place"),
    ("type A { x: Int }\nunion U = A", ":2:1", "union has no place"),
    ("directive @x on FIELD", ":1:1", "directive has no place"),
    ("extend type T { a: Int }", ":1:1", "only Query and Mutation"),
    ("extend input I { a: Int }", ":1:1", "only Query and Mutation"),
    ("query { a }", ":1:1", "query has no place"),
    ("type Query { a: Int ; }", ":1:21", "';' means nothing"),
    ('type Query { "a\n" a: Int }', ":1:14", "means nothing"),
    ('type Query { "\\q" a: Int }', ":1:14", "an escape"),
    ('"""never ends', ":1:", ""),
    ("type Query { a(x: Int = ): Int }", ":1:25", "a value is expected"),
    ("type Query { a: " + "[" * 10_000 + "Int" + "]" * 10_000 + " }", ":1:", "brackets"),
    ("type Query { a(x: Int = " + "[" * 10_000 + "): Int }", ":1:", "brackets"),
    ("{" * 10_000, ":1:1", "a name is expected"),
])  # fmt: skip
def test_what_is_no_graphql_is_named_with_its_place(text, place, said):
    start = time.monotonic()
    with pytest.raises(FileFailure) as caught:
        read_sdl(text, "actions.graphql")
    assert caught.value.place.startswith(f"actions.graphql{place}")
    assert said in caught.value.message
    assert time.monotonic() - start < 2


def test_a_long_text_is_read_quickly():
    text = "type Query { " + " ".join(f"a{n}(x: Int, y: [String!]!): Out" for n in range(10_000)) + " }"
    for many in (text, text.replace("a1", "} type Query { b1")):
        start = time.monotonic()
        assert len(read_sdl(many, "x").actions) == 10_000
        assert time.monotonic() - start < 10


def test_it_is_written_as_upstream_writes_it():
    actions = [
        action("login", "mutation", "Session", ("name", "String!"), ("otp", "[Int!]", "six\ndigits")),
        action("who", "query", "Session!"),
    ]
    types = {
        "objects": [{"name": "Session", "description": "one", "fields": [{"name": "t", "type": "String!"}]}],
        "enums": [{"name": "E", "values": [{"value": "A", "description": "a"}, {"value": "B"}]}],
        "scalars": [{"name": "uuid"}, {"name": "s", "description": 'of """'}],
        "input_objects": [{"name": "In", "fields": [{"name": "a", "type": "Int", "description": "x"}]}],
    }
    assert (
        render_sdl(actions, types)
        == '''\
type Mutation {
  login(
    name: String!
    """ six
digits """ otp: [Int!]
  ): Session
}

type Query {
  who: Session!
}

scalar uuid

""" of \\""" """ scalar s

input In {
  """ x """ a: Int
}

""" one """ type Session {
  t: String!
}

enum E {
  """ a """ A
  B
}

'''
    )


NAMES = st.sampled_from(["a", "b", "_c", "Query1", "type", "input", "D2", "null", "true"])
TYPE_TEXTS = st.recursive(
    NAMES.map(str), lambda inner: st.one_of(inner.map("[{}]".format), inner.map("[{}]!".format)), max_leaves=3
)
# Whole descriptions, in blocks and in quotes; blanks around a block are not kept, so there are none.
DESCRIPTIONS = st.text(st.sampled_from("ab \n\t\"\\#'é{}😀"), min_size=1, max_size=12).filter(lambda text: text.strip())


def described(**parts):
    return st.fixed_dictionaries(parts, optional={"description": DESCRIPTIONS})


def unique(strategy, key="name", **sizes):
    return st.lists(strategy, unique_by=lambda one: str(one[key]), max_size=3, **sizes)


FIELDS = unique(described(name=NAMES, type=TYPE_TEXTS), min_size=1)
ACTIONS = unique(st.fixed_dictionaries({"name": NAMES, "definition": st.fixed_dictionaries({
    "type": st.sampled_from(["query", "mutation"]), "arguments": unique(described(name=NAMES, type=TYPE_TEXTS)),
    "output_type": TYPE_TEXTS,
})}))  # fmt: skip
TYPES = st.fixed_dictionaries({
    "scalars": unique(described(name=NAMES)),
    "input_objects": unique(described(name=NAMES, fields=FIELDS)),
    "objects": unique(described(name=NAMES, fields=FIELDS)),
    "enums": unique(described(name=NAMES, values=unique(described(value=NAMES), "value", min_size=1))),
})  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(ACTIONS, TYPES)
def test_what_is_written_is_read_as_it_was(actions, types):
    sdl = read_sdl(render_sdl(actions, types), "x")
    assert sdl.actions == actions
    assert sdl.types == types
    assert sdl.dropped == []


# The form alone, of any definitions.

WHOLE_SCHEMA = """
"all of it" schema @link(url: "x") { query: Query mutation: Changes }
directive @preset(value: PresetValue = [1, {a: B}]) repeatable on | INPUT_FIELD_DEFINITION | ARGUMENT_DEFINITION
extend schema @more
type Query implements Node & Named @key(fields: "id") { find(of: [ID!]! = ["x"] @preset(value: 3)): Hit }
extend type Query { more: Int }
interface Named implements Node { name: String }
union Hit @odd = | Book | Author
union Nothing
extend union Hit = Other
scalar Date @specifiedBy(url: "x")
enum Kind { A @deprecated B }
input Where { kind: Kind = A, not: Where }
type Empty
"""


def test_every_definition_has_a_form():
    check_sdl(WHOLE_SCHEMA)
    check_sdl("")


@pytest.mark.parametrize(("text", "place", "said"), [
    ("type Query {\n a: Int", (2, 8), "the end found"),
    ("type Query { }", (1, 15), "a name is expected"),
    ("query { a }", (1, 1), "query begins no definition"),
    ("union A = |", (1, 12), "a name is expected"),
    ("directive preset on FIELD", (1, 11), "@ is expected, and preset found"),
    ("directive @preset FIELD", (1, 24), "a name is expected"),
    ("schema {\n  query: [}\n}", (2, 11), "a name is expected"),
    ("type A { b: Int } }", (1, 19), "a name is expected, and } found"),
    ("type A { b: %Int }", (1, 13), "'%' means nothing here"),
    ("extend", (1, 7), "a name is expected"),
    ("type A { b: " + "[" * 500, None, "brackets"),
])  # fmt: skip
def test_what_has_no_form_is_named_with_its_place(text, place, said):
    with pytest.raises(FileFailure, match=re.escape(said)) as caught:
        check_sdl(text)
    assert place in (None, (caught.value.line, caught.value.column))


# What upstream's own program made of the same texts.


def check_recorded(graphql, wanted):
    """Read a recorded text as upstream's program reads it, and give what is written of it."""
    sdl = read_sdl(recorded_text(graphql), graphql)
    assert sdl.actions == without_null_descriptions(wanted["actions"])
    assert sdl.types == without_null_descriptions(wanted["types"])
    return render_sdl(sdl.actions, sdl.types)


AERIE = recorded("oracle-sdl-aerie/*")


@reads(AERIE)
def test_recorded_actions_of_a_real_project():
    (case,) = cases_of(AERIE)
    wanted = recorded_json(f"{case}/want.from.json")
    assert check_recorded(f"{case}/actions.graphql", wanted) == recorded_text(f"{case}/want.to.graphql")
    tree = read_tree(str(GOLDEN / case))
    assert {"actions.graphql", "actions.yaml"} <= set(tree.files)
    assert [action["name"] for action in tree.document["actions"]] == [action["name"] for action in wanted["actions"]]
    assert all(action["definition"]["handler"] for action in tree.document["actions"])


EDGES = recorded("oracle-sdl-edge/*")
# A text that upstream refuses, because its parser wants something; a file of comments holds nothing.
COMMENTS_ONLY = "oracle-sdl-edge/comments-only.graphql"


@reads(EDGES)
@pytest.mark.parametrize("file", [file for file in EDGES if file.endswith(".graphql") and ".want." not in file])
def test_recorded_edges(file):
    wanted = recorded_json(file.replace(".graphql", ".want.from.json"))
    if file == COMMENTS_ONLY:
        sdl = read_sdl(recorded_text(file), file)
        assert "error" in wanted
        assert (sdl.actions, any(sdl.types.values())) == ([], False)
    elif "error" in wanted:
        with pytest.raises(FileFailure):
            read_sdl(recorded_text(file), file)
    else:
        assert check_recorded(file, wanted) == recorded_text(file.replace(".graphql", ".want.to.graphql"))


ACTIONS_FILES = [file for file in recorded("**/actions.graphql") if file not in AERIE]


@reads(ACTIONS_FILES)
@pytest.mark.parametrize("file", ACTIONS_FILES)
def test_every_recorded_text_of_actions_is_written_as_it_is(file):
    text = recorded_text(file)
    sdl = read_sdl(text, file)
    assert render_sdl(sdl.actions, sdl.types).rstrip() == text.rstrip()


@wants_shared(REAL.name)
def test_texts_of_real_projects_are_read():
    paths = sorted(REAL.glob("*/metadata/actions.graphql"))
    assert paths
    for path in paths:
        sdl = read_sdl(path.read_text(encoding="utf-8"), str(path))
        assert read_sdl(render_sdl(sdl.actions, sdl.types), "x")[:2] == sdl[:2]
