"""The order of seeds: what is declared, then foreign keys, then names, whatever order they came in."""

from __future__ import annotations

import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nself_core.catalogue import ForeignKey
from nself_core.failures import CheckFailed
from nself_core.seeds import graph
from nself_core.seeds.order import KEY, OPTIONAL_KEY, STATED, Edge, find_edges, sort_seeds

NAMES = [f"seeds/{letter}.sql" for letter in "abcdefgh"]
PAIRS = st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)).filter(lambda pair: pair[0] != pair[1])
EDGES = st.lists(st.tuples(PAIRS, st.sampled_from([OPTIONAL_KEY, KEY, STATED])), max_size=25).map(
    lambda found: sorted({pair: Edge(*pair, "why", strength) for pair, strength in found}.values())
)


def key(table, target, nullable=False, column="id", schema="public"):
    """A foreign key between two tables of one schema."""
    return ForeignKey(f"{table}_{column}", (schema, table), (column,), (schema, target), ("id",), False, nullable)


def filling(**fills):
    """file -> tables, from a="t u" for seeds/a.sql."""
    return {f"seeds/{name}.sql": {("public", table) for table in tables.split()} for name, tables in fills.items()}


def order_of(fills, keys=(), declared=()):
    edges = find_edges([(f"seeds/{a}.sql", f"seeds/{b}.sql") for a, b in declared], fills, keys)
    return [file[len("seeds/") : -len(".sql")] for file in sort_seeds(list(fills), edges).files]


def test_without_any_reason_the_name_decides():
    assert order_of(filling(c="", a="", b="")) == ["a", "b", "c"]


def test_a_table_comes_behind_those_its_keys_lead_to():
    assert order_of(filling(a="orders", z="accounts"), [key("orders", "accounts")]) == ["z", "a"]


def test_what_is_declared_counts_more_than_a_key():
    fills = filling(a="orders", z="accounts")
    assert order_of(fills, [key("orders", "accounts")], [("a", "z")]) == ["a", "z"]


def test_a_key_that_may_stay_empty_gives_way():
    keys = [key("teams", "people", nullable=True), key("people", "teams")]
    order = sort_seeds(["p", "t"], find_edges([], {"p": {("public", "people")}, "t": {("public", "teams")}}, keys))
    assert order.files == ["t", "p"]
    assert [(edge.before, edge.after) for edge in order.dropped] == [("p", "t")]


def test_a_seed_that_fills_both_tables_itself_waits_for_nobody():
    assert order_of(filling(a="orders accounts", z="accounts"), [key("orders", "accounts")]) == ["a", "z"]


def test_several_seeds_of_one_table_all_come_first():
    fills = filling(a="orders", x="accounts", y="accounts")
    assert order_of(fills, [key("orders", "accounts")]) == ["x", "y", "a"]


def test_a_key_to_its_own_table_is_no_reason():
    assert order_of(filling(b="tree", a="tree"), [key("tree", "tree")]) == ["a", "b"]


def test_the_reason_names_column_and_schema():
    fills = {"a": {("app", "o")}, "z": {("app", "t")}}
    (edge,) = find_edges([], fills, [key("o", "t", schema="app")])
    assert edge == ("z", "a", "app.o.id -> app.t", KEY)


def test_keys_that_are_required_in_a_circle_are_an_error_that_shows_the_path():
    with pytest.raises(CheckFailed) as caught:
        order_of(filling(a="t", b="u", c="v"), [key("t", "u"), key("u", "v"), key("v", "t")])
    assert "seeds/a.sql -> seeds/c.sql -> seeds/b.sql -> seeds/a.sql" in caught.value.message
    assert "seeds/b.sql comes after seeds/c.sql (u.id -> v)" in caught.value.excerpt


def test_a_declared_circle_is_shown_and_not_what_hangs_on_it():
    fills = filling(a="", b="", c="", d="")
    with pytest.raises(CheckFailed) as caught:
        order_of(fills, [], [("b", "c"), ("c", "b"), ("c", "a"), ("d", "b")])
    assert sorted(caught.value.data["circle"]) == ["seeds/b.sql", "seeds/c.sql"]


def test_two_keys_between_the_same_tables_give_one_edge_whatever_their_order():
    fills = filling(a="o", z="t")
    keys = [key("o", "t", column="x"), key("o", "t", column="b"), key("o", "t", nullable=True, column="a")]
    assert find_edges([], fills, keys) == find_edges([], fills, keys[::-1])
    assert [edge.reason for edge in find_edges([], fills, keys)] == ["o.b -> t"]


@given(EDGES)
def test_it_is_a_topological_order_of_what_it_keeps_or_there_is_a_real_circle(edges):
    try:
        order = sort_seeds(NAMES, edges)
    except CheckFailed as failure:
        circle = failure.data["circle"]
        steps = {(edge.before, edge.after): edge.strength for edge in edges}
        strengths = [steps[pair] for pair in zip(circle, [*circle[1:], circle[0]])]
        assert len({*circle}) == len(circle)
        assert min(strengths) == STATED or {*strengths} == {KEY}
        return
    assert sorted(order.files) == NAMES
    places = {file: place for place, file in enumerate(order.files)}
    assert all(places[edge.before] < places[edge.after] for edge in order.edges)
    assert sorted([*order.edges, *order.dropped]) == edges
    assert all(edge.strength != STATED for edge in order.dropped)


@given(EDGES, st.randoms())
def test_the_result_does_not_depend_on_the_order_of_the_input(edges, chance):
    assume(edges)
    shuffled, names = list(edges), list(NAMES)
    chance.shuffle(shuffled)
    chance.shuffle(names)
    assert outcome(NAMES, edges) == outcome(names, shuffled)


def outcome(names, edges):
    try:
        order = sort_seeds(names, edges)
        return order.files, sorted(order.edges), sorted(order.dropped)
    except CheckFailed as failure:
        return failure.message


@given(EDGES)
def test_nothing_gives_way_where_there_is_no_circle(edges):
    forward = [edge for edge in edges if edge.before < edge.after]
    assert sort_seeds(NAMES, forward).dropped == []


@given(st.dictionaries(st.sampled_from(NAMES), st.sets(st.sampled_from(["t", "u", "v"]))), st.randoms())
def test_edges_do_not_depend_on_the_order_of_seeds_and_keys(tables, chance):
    fills = {file: {("public", name) for name in names} for file, names in tables.items()}
    keys = [key(a, b, nullable=nullable) for a in "tuv" for b in "tuv" for nullable in (True, False)]
    turned = dict(reversed(fills.items()))
    shuffled = list(keys)
    chance.shuffle(shuffled)
    assert find_edges([], fills, keys) == find_edges([], turned, shuffled)


def test_two_thousand_seeds_in_a_chain_take_no_second():
    files = [f"seeds/{number:04}.sql" for number in range(2000)]
    edges = [Edge(after, before, "declared", STATED) for before, after in zip(files, files[1:])]
    start = time.monotonic()
    assert sort_seeds(files, sorted(edges)).files == files[::-1]
    assert time.monotonic() - start < 1


# What `seed graph` shows of it.


def shown(form):
    edges = [Edge('seeds/a"b.sql', "seeds/<c>#.ts", "declared", STATED)]
    return graph.report(sort_seeds(['seeds/a"b.sql', "seeds/<c>#.ts"], edges), [], form)


def test_mermaid_has_a_node_for_each_seed_and_marks_up_nothing():
    assert shown("mermaid").blocks == [
        'flowchart TD\n    s0["seeds/a#34;b.sql"]\n    s1["seeds/#60;c#62;#35;.ts"]\n    s0 -->|"declared"| s1'
    ]


def test_dot_quotes_what_ends_a_string():
    assert shown("dot").blocks == [
        'digraph seeds {\n    "seeds/a\\"b.sql";\n    "seeds/<c>#.ts";\n'
        '    "seeds/a\\"b.sql" -> "seeds/<c>#.ts" [label="declared"];\n}'
    ]


def test_the_data_have_nodes_edges_and_order():
    assert shown("text").data == {
        "nodes": ["seeds/<c>#.ts", 'seeds/a"b.sql'],
        "edges": [{"from": 'seeds/a"b.sql', "to": "seeds/<c>#.ts", "reason": "declared"}],
        "order": ['seeds/a"b.sql', "seeds/<c>#.ts"],
    }
