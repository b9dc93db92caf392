"""Order, references and cycles, decided from made-up facts with no server."""

from __future__ import annotations

import pytest

from nself_core.catalogue import Column, Facts, ForeignKey, Table
from nself_core.failures import FileFailure
from nself_core.fixtures.files import Loaded, read_rows, read_sql
from nself_core.fixtures.order import order_items, table_ranks
from nself_core.fixtures.pieces import pieces_of, sequence_texts
from nself_core.fixtures.planning import filled_and_needed
from nself_core.fixtures.resolve import named_tables, resolve


def column(name, type="integer", **more):
    facts = {"array": False, "nullable": True, "default": False, "identity": "", "generated": False, "sequence": None}
    return Column(name, type, **{**facts, **more})


NUMBERED = column("id", nullable=False, identity="by default", sequence="public.some_seq")


def table(name, *columns, key=("id",), schema="public"):
    return Table(schema, name, (NUMBERED, *columns), key, True, False, True, False)


def foreign(source, name, target, target_column="id", deferrable=False, nullable=True):
    return ForeignKey(f"{source}_{name}", ("public", source), (name,), ("public", target), (target_column,), deferrable,
                      nullable)  # fmt: skip


def facts_of(tables, keys=()):
    return Facts({(None, each.name): each for each in tables} | {each.key: each for each in tables}, [*keys])


A = table("a", column("b_id"), column("name", "text"))
A_RIGID = table("a", column("b_id", nullable=False), column("name", "text"))
B = table("b", column("a_id"), column("code", "text"))
B_RIGID = table("b", column("a_id", nullable=False), column("code", "text"))
A_TO_B, B_TO_A = foreign("a", "b_id", "b"), foreign("b", "a_id", "a")
SELF = table("t", column("parent_id"))


def ordered(text, facts):
    items = resolve([read_rows(text, "f.yaml")], facts)
    return order_items(items, facts.keys)


def labels(order):
    return [f"{item.table.name}.{item.row.label}" for item in order.items]


def texts(text, facts, **options):
    return [piece.text for piece in pieces_of(Loaded("s", [read_rows(text, "f.yaml")]), facts, **options)]


def test_tables_come_in_the_order_of_their_keys_whatever_their_place_in_the_file():
    facts = facts_of([A, B], [A_TO_B])
    assert labels(ordered("a: {x: {}, y: {b_id: 1}}\nb: {z: {}}", facts)) == ["b.z", "a.x", "a.y"]
    assert table_ranks([A.key, B.key], [A_TO_B]) == {B.key: 0, A.key: 1}


def test_rows_of_one_table_come_behind_what_they_refer_to():
    facts = facts_of([SELF], [foreign("t", "parent_id", "t")])
    text = "t: {c: {parent_id: {ref: t.b}}, b: {parent_id: {ref: t.a}}, a: {}}"
    assert labels(ordered(text, facts)) == ["t.a", "t.b", "t.c"]


def test_written_keys_order_rows_too():
    facts = facts_of([SELF], [foreign("t", "parent_id", "t")])
    order = ordered("t: {c: {id: 3, parent_id: 2}, b: {id: 2, parent_id: 1}, a: {id: 1}}", facts)
    assert labels(order) == ["t.a", "t.b", "t.c"]
    assert not order.deferred and not order.drawn


def test_a_deferrable_key_waits_where_the_value_is_written():
    facts = facts_of([A_RIGID, B_RIGID], [A_TO_B._replace(deferrable=True, nullable=False), B_TO_A])
    order = ordered("a: {x: {id: 1, b_id: {ref: b.y}}}\nb: {y: {id: 2, a_id: {ref: a.x}}}", facts)
    assert (labels(order), order.deferred, order.drawn) == (["a.x", "b.y"], True, [])


def test_a_deferrable_key_waits_for_a_number_that_is_drawn_before():
    facts = facts_of([A_RIGID, B_RIGID], [A_TO_B._replace(deferrable=True), B_TO_A])
    order = ordered("a: {x: {b_id: {ref: b.y}}}\nb: {y: {a_id: {ref: a.x}}}", facts)
    assert order.deferred
    assert [(item.shown, drawn.name) for item, drawn in order.drawn] == [("b.y", "id")]
    assert labels(order) == ["a.x", "b.y"]


def test_a_column_that_may_be_null_is_filled_afterwards():
    facts = facts_of([A, B_RIGID], [A_TO_B, B_TO_A])
    made = texts("a: {x: {b_id: {ref: b.y}}}\nb: {y: {a_id: {ref: a.x}}}", facts)
    assert made[2].startswith('WITH nself_new AS (INSERT INTO "public"."a" ("b_id") VALUES\n  (NULL)')
    assert made[3].startswith('WITH nself_new AS (INSERT INTO "public"."b" ("a_id")')
    assert made[4].startswith('UPDATE "public"."a" SET "b_id" = (SELECT (kept ->> \'id\')::integer FROM')
    assert made[4].endswith("WHERE \"id\" = (SELECT (kept ->> 'id')::integer FROM pg_temp.nself_rows WHERE number = 0)")
    assert len(made) == 5


def test_an_update_finds_its_row_by_the_written_key():
    facts = facts_of([A, B_RIGID], [A_TO_B, B_TO_A])
    made = texts("a: {x: {id: 7, b_id: {ref: b.y}}}\nb: {y: {id: 8, a_id: {ref: a.x}}}", facts)
    assert made[-1] == """UPDATE "public"."a" SET "b_id" = '8' WHERE "id" = '7'"""


def test_a_row_may_refer_to_itself():
    key = foreign("t", "parent_id", "t")
    order = ordered("t: {a: {parent_id: {ref: t.a}}}", facts_of([SELF], [key]))
    assert [drawn.name for _, drawn in order.drawn] == ["id"] and not order.deferred
    made = texts("t: {a: {id: 4, parent_id: {ref: t.a}}}", facts_of([SELF], [key]))
    assert made == ["""INSERT INTO "public"."t" ("id", "parent_id") OVERRIDING SYSTEM VALUE VALUES\n  ('4', '4')"""]


def test_a_cycle_that_nothing_breaks_is_shown_as_a_path():
    facts = facts_of([A_RIGID, B_RIGID], [A_TO_B._replace(nullable=False), B_TO_A._replace(nullable=False)])
    with pytest.raises(FileFailure) as raised:
        ordered("a:\n  x: {b_id: {ref: b.y}}\nb:\n  y: {a_id: {ref: a.x}}", facts)
    assert "a.x -> b.y -> a.x" in raised.value.message
    assert raised.value.place == "f.yaml:2:3"
    assert raised.value.excerpt.splitlines() == [
        "  f.yaml:2: a.x needs b.y: a.b_id cannot be NULL, and its key a_b_id is not deferrable",
        "  f.yaml:4: b.y needs a.x: b.a_id cannot be NULL, and its key b_a_id is not deferrable",
    ]


def test_a_long_cycle_is_broken_once_and_a_long_chain_not_at_all():
    facts = facts_of([SELF], [foreign("t", "parent_id", "t")])
    count = 3000
    rows = ", ".join(f"r{n}: {{parent_id: {{ref: t.r{(n + 1) % count}}}}}" for n in range(count))
    order = ordered(f"t: {{{rows}}}", facts)
    assert sum(len(item.late) for item in order.items) == 1
    chain = ordered(f"t: {{{rows.replace('{parent_id: {ref: t.r0}}', '{}')}}}", facts)
    assert labels(chain)[:2] == [f"t.r{count - 1}", f"t.r{count - 2}"]


def test_rows_without_references_to_them_go_together():
    facts = facts_of([A, B], [A_TO_B])
    text = "a: [{name: x}, {name: y}, {b_id: 1}, {name: z}]\nb: [{}, {}]"
    made = texts(text, facts)
    assert made == [
        'INSERT INTO "public"."b" DEFAULT VALUES',
        'INSERT INTO "public"."b" DEFAULT VALUES',
        """INSERT INTO "public"."a" ("name") VALUES\n  ('x'),\n  ('y')""",
        """INSERT INTO "public"."a" ("b_id") VALUES\n  ('1')""",
        """INSERT INTO "public"."a" ("name") VALUES\n  ('z')""",
    ]
    assert len(texts(text, facts, at_once=1)) == 6


def test_a_place_in_a_statement_is_that_of_its_row_and_value():
    rows = read_rows('{"a": [{"name": "x\\n\\r\\ny"},\n {"name": "z"}]}', "f.json")
    (piece,) = pieces_of(Loaded("s", [rows]), facts_of([A]))
    line = piece.text.replace("\r\n", "\n").replace("\r", "\n").split("\n").index("  ('z')") + 1
    assert piece.place_at(line, 4) == ("f.json", 2, 11)
    assert piece.place_at(2, 5) == ("f.json", 1, 17)
    assert piece.rows == 2


# references

REFERENCES = [
    ("a: {x: {b_id: {ref: b.y}}}\nb: {y: {id: 5}}", "'5'"),
    ("a: {x: {b_id: {ref: public.b.y}}}\nb: {y: {id: 5}}", "'5'"),
    ("public.a: {x: {b_id: {ref: b.y.id}}}\npublic.b: {y: {id: 5}}", "'5'"),
    ("a: {x: {name: {ref: b.y.code}}}\nb: {y: {code: q}}", "'q'"),
    ("a: {x: {b_id: {ref: 'b.\"y.1\"'}}}\nb: {y.1: {id: 5}}", "'5'"),
    (
        "a: {x: {b_id: {ref: b.y}}}\nb: {y: {}}",
        "(SELECT (kept ->> 'id')::integer FROM pg_temp.nself_rows WHERE number = 1)",
    ),
]


@pytest.mark.parametrize(("text", "value"), REFERENCES)
def test_what_a_reference_becomes(text, value):
    assert value in texts(text, facts_of([A, B], [A_TO_B]))[-1]


def test_a_reference_takes_the_column_that_the_key_leads_to_not_the_primary_key():
    facts = facts_of([A, B], [foreign("a", "name", "b", "code")])
    assert "'q'" in texts("a: {x: {name: {ref: b.y}}}\nb: {y: {id: 5, code: q}}", facts)[-1]


WRONG = [
    ("c: {x: {}}", "there is no table c", "f.yaml:1:5", None),
    ("a: {x: {nam: 1}}", "a has no column nam", "f.yaml:1:14", "did you mean name?"),
    ("a: {x: {b_id: {ref: b.yy}}}\nb: {yyy: {}}", "b.yy leads to no row", "f.yaml:1:15", "did you mean yyy?"),
    ("a: {x: {b_id: {ref: q.y}}}", "q.y leads to no row", "f.yaml:1:15", None),
    ("a: {x: {b_id: {ref: b.y.idd}}}\nb: {y: {}}", "b has no column idd", "f.yaml:1:15", "did you mean id?"),
    ("a: {x: {b_id: {ref: k.y}}}\nk: {y: {}}", "k has no primary key of one column", "f.yaml:1:15", None),
    ("a: {x: {name: 1, b_id: {p: 1}}}", "b_id is integer, which takes no mapping", "f.yaml:1:24", None),
    ("a: {x: {b_id: [1]}}", "b_id is integer, which takes no list", "f.yaml:1:15", None),
    ("a: {x: {name: !!binary aGk=}}", "name is text, which takes no binary", "f.yaml:1:15", None),
    ('a: {x: {name: "\\0"}}', "NUL", "f.yaml:1:15", None),
]


@pytest.mark.parametrize(("text", "said", "place", "hint"), WRONG)
def test_what_does_not_fit_the_catalogue_says_where(text, said, place, hint):
    facts = facts_of([A, B, table("k", key=())], [A_TO_B])
    with pytest.raises(FileFailure) as raised:
        texts(text, facts)
    assert said in raised.value.message
    assert raised.value.place == place
    assert hint is None or raised.value.hint == hint


def test_half_a_surrogate_pair_is_refused_where_it_stands():
    with pytest.raises(FileFailure) as raised:
        pieces_of(Loaded("s", [read_rows('{"a": [{"name": "\\ud800"}]}', "f.json")]), facts_of([A]))
    assert raised.value.place == "f.json:1:17"


def test_a_reference_over_an_sql_file_leads_backwards_only():
    facts = facts_of([A, B], [A_TO_B])
    script = read_sql("SELECT 1", "2.sql")
    early, late = read_rows("b: {y: {}}", "1.yaml"), read_rows("a: {x: {b_id: {ref: b.y}}}", "3.yaml")
    made = [piece.text for piece in pieces_of(Loaded("s", [early, script, late]), facts)]
    assert made.index("SELECT 1") < len(made) - 1 and "RESET ALL" in made
    with pytest.raises(FileFailure, match="only after this row"):
        pieces_of(Loaded("s", [late, script, early]), facts)


# what a set fills and needs


def test_filled_and_needed_tables():
    c = table("c", column("x"))
    keys = [A_TO_B, foreign("b", "a_id", "c", nullable=False), foreign("c", "x", "c")]
    facts = facts_of([A, B, c], keys)
    parts = [read_rows("a: {x: {name: q}}", "f.yaml")]
    assert filled_and_needed(Loaded("s", parts), facts) == (["a"], [])
    parts = [read_rows("a: {x: {b_id: 1}}", "f.yaml")]
    assert filled_and_needed(Loaded("s", parts), facts) == (["a"], ["b"])
    parts = [read_sql("INSERT INTO b VALUES (1); INSERT INTO other.t VALUES (1)", "f.sql")]
    assert filled_and_needed(Loaded("s", parts), facts) == (["b", "other.t"], ["c"])


def test_tables_named_by_references_are_asked_for_too():
    parts = [
        read_rows("a: {x: {p: {ref: b.y}, q: {ref: s.t.l}}}", "f.yaml"),
        read_sql("COPY z FROM stdin;\n\\.\n", "g.sql"),
    ]
    assert named_tables(parts) == [(None, "a"), (None, "b"), (None, "s"), ("s", "t"), (None, "z")]


def test_only_sequences_of_written_columns_are_moved():
    facts = facts_of([A, B])
    loaded = Loaded("s", [read_rows("a: [{id: 4}]\nb: [{code: x}]", "f.yaml")])
    (text,) = sequence_texts([(None, "a"), (None, "b")], [loaded], facts)
    assert '"public"."a"' in text and "setval" in text
