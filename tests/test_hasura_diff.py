"""The difference of two metadata documents: what counts, what does not, and what is said of it."""

from __future__ import annotations

import copy
import json
import os
import textwrap
import time

import pytest
import yaml
from bed.hasura_material import GOLDEN, reads, recorded, recorded_json, recorded_text
from bed.metadata_documents import all_documents, many_tables, read_folder, shuffled
from hypothesis import given, settings
from hypothesis import strategies as st

from nself_core.hasura.diff import find_changes, graphql_tokens
from nself_core.hasura.diff_report import report_lines
from nself_core.hasura.identity import identity_path, index_path
from nself_core.hasura.merge import merge
from nself_core.hasura.objects import GUARDED, OBJECTS, Spec, below, keys_of, kind_of, root

DOCUMENTS = [document for _name, document in all_documents()]


def with_table(**keys):
    source = {"name": "default", "kind": "postgres", "tables": [{"table": "posts", **keys}], "configuration": {}}
    return {"version": 3, "sources": [source]}


def rule(**keys):
    return {"role": "user", "permission": {"columns": ["a", "b"], "filter": {}, **keys}}


def told(local, live):
    """What find_changes says of two documents, as (change, last of its path, local, live)."""
    return [(change.change, change.path[-1], change.local, change.live) for change in find_changes(local, live)]


# What counts.


@pytest.mark.parametrize(
    ("live", "local", "said"),
    [
        ({}, {"is_enum": True}, [("added", "is_enum", True, None)]),
        ({"is_enum": True}, {}, [("removed", "is_enum", None, True)]),
        ({"select_permissions": [rule()]}, {"select_permissions": [rule(columns=["b", "c"])]},
         [("changed", "columns", ["b", "c"], ["a", "b"])]),
        ({"select_permissions": [rule()]}, {"select_permissions": [rule(columns="*")]},
         [("changed", "columns", "*", ["a", "b"])]),
        ({"select_permissions": [rule(filter={"a": {"_eq": 1}})]}, {"select_permissions": [rule()]},
         [("removed", "a", None, {"_eq": 1})]),
        ({"select_permissions": [rule(filter={"a": {"_eq": 1}})]},
         {"select_permissions": [rule(filter={"a": {"_eq": True}})]}, [("changed", "_eq", True, 1)]),
        ({"select_permissions": [rule(filter={"a": {"_eq": None}})]},
         {"select_permissions": [rule(filter={"a": {}})]}, [("removed", "_eq", None, None)]),
        ({"insert_permissions": [rule(set={"a": None})]}, {"insert_permissions": [rule()]},
         [("removed", "a", None, None)]),
        ({"select_permissions": [rule()]}, {"select_permissions": [rule(query_root_fields=[])]},
         [("added", "query_root_fields", [], None)]),
        ({"select_permissions": [rule()]}, {}, [("removed", "user", None, rule())]),
        ({}, {"configuration": {"custom_name": "x"}}, [("added", "custom_name", "x", None)]),
        ({}, {"unheard_of": {"a": 1}}, [("added", "unheard_of", {"a": 1}, None)]),
        ({}, {"unheard_of": None}, [("added", "unheard_of", None, None)]),
    ],
)  # fmt: skip
def test_one_thing_that_differs_is_one_change(live, local, said):
    assert told(with_table(**local), with_table(**live)) == said


def test_what_would_be_added_and_removed_in_lists():
    local = {"version": 3, "remote_schemas": [{"name": "a"}, {"name": "c", "definition": {"url": "x"}}]}
    live = {"version": 3, "remote_schemas": [{"name": "b"}, {"name": "a"}]}
    changes = find_changes(local, live)
    assert [(change.change, change.path) for change in changes] == [
        ("added", ("remote_schemas", "c")), ("removed", ("remote_schemas", "b"))]  # fmt: skip
    assert [change.place for change in changes] == [("remote_schemas", 1), ("remote_schemas",)]


def test_the_order_of_what_is_no_set_counts():
    local, live = (
        {"custom_types": {"enums": [{"name": "e", "values": [{"value": value} for value in values]}]}}
        for values in ("abc", "acb")
    )
    assert told(local, live) == [("changed", "values", [{"value": v} for v in "abc"], [{"value": v} for v in "acb"])]


def test_one_more_argument_is_one_change_wherever_it_stands():
    local, live = (
        {"actions": [{"name": "a", "definition": {"handler": "h", "arguments": [
            {"name": name, "type": "Int"} for name in names]}}]}
        for names in ("xyz", "xz")
    )  # fmt: skip
    assert told(local, live) == [("added", "y", {"name": "y", "type": "Int"}, None)]


def test_the_changes_of_a_document_of_version_2():
    """The engine drops every other source when it is given one."""
    live = {"version": 3, "rest_endpoints": [{"name": "r"}], "inherited_roles": [{"role_name": "x", "role_set": ["y"]}],
            "sources": [{"name": "default", "kind": "postgres", "configuration": {"connection_info": {}},
                         "tables": [{"table": "a"}, {"table": "b"}]}, {"name": "second", "tables": []}]}  # fmt: skip
    local = {"version": 2, "tables": [{"table": "b", "is_enum": True}, {"table": "c"}]}
    changes = find_changes(local, live)
    assert {(change.change, ".".join(change.path)): change.place for change in changes} == {
        ("added", "sources.default.tables.public.b.is_enum"): ("tables", 0, "is_enum"),
        ("added", "sources.default.tables.public.c"): ("tables", 1),
        ("removed", "sources.default.tables.public.a"): ("tables",),
        ("removed", "sources.second"): (),
        ("removed", "inherited_roles.x"): (),
    }  # fmt: skip
    assert find_changes({"version": 2, "tables": []}, {"version": 2, "tables": [], "functions": []}) == []


# What does not count.


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"is_enum": False, "object_relationships": [], "configuration": {}, "select_permissions": None}),
        ({"configuration": {}},
         {"configuration": {"column_config": {}, "custom_column_names": {}, "custom_root_fields": {}}}),
        ({"configuration": {"custom_column_names": {"a": "b"}}},
         {"configuration": {"column_config": {"a": {"custom_name": "b"}}, "custom_column_names": {"a": "b"}}}),
        ({"configuration": {"custom_root_fields": {"select": "x"}}},
         {"configuration": {"custom_root_fields": {"select": {"name": "x", "comment": None}, "insert": None}}}),
        ({"table": "posts"}, {"table": {"name": "posts", "schema": "public"}}),
        ({"select_permissions": [rule()]},
         {"select_permissions": [rule(allow_aggregations=False, computed_fields=[], columns=["b", "a"])]}),
        ({"insert_permissions": [{"role": "u", "permission": {"check": {}}}]},
         {"insert_permissions": [{"role": "u", "comment": None,
                                  "permission": {"check": {}, "columns": "*", "set": {}, "backend_only": False}}]}),
        ({"update_permissions": [rule(check=None)]}, {"update_permissions": [rule()]}),
        ({"object_relationships": [{"name": "r", "using": {"foreign_key_constraint_on": "a"}}]},
         {"object_relationships": [{"using": {"foreign_key_constraint_on": ["a"]}, "name": "r", "comment": None}]}),
        ({"array_relationships": [{"name": "r", "using": {"foreign_key_constraint_on": {
            "column": "a", "table": "t"}}}]},
         {"array_relationships": [{"name": "r", "using": {"foreign_key_constraint_on": {
             "columns": ["a"], "table": {"schema": "public", "name": "t"}}}}]}),
        ({"event_triggers": [{"name": "e", "retry_conf": {"num_retries": 0, "interval_sec": 10}}]},
         {"event_triggers": [{"name": "e", "retry_conf": {"num_retries": 0, "interval_sec": 10, "timeout_sec": 60},
                              "headers": []}]}),
    ],
)  # fmt: skip
def test_another_way_to_write_the_same_is_no_change(one, other):
    assert find_changes(with_table(**one), with_table(**other)) == []
    assert find_changes(with_table(**other), with_table(**one)) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"actions": [], "custom_types": {"enums": [], "input_objects": [], "objects": [], "scalars": []},
              "network": {"tls_allowlist": []}, "graphql_schema_introspection": {"disabled_for_roles": []},
              "metrics_config": {"analyze_query_variables": False}, "backend_configs": {}, "api_limits": {},
              "opentelemetry": {"status": "disabled"}}),
        ({"actions": [{"name": "a", "definition": {"handler": "h", "output_type": "[T!]!"}}]},
         {"actions": [{"name": "a", "definition": {"handler": "h", "kind": "synchronous", "timeout": 30, "headers": [],
                                                   "forward_client_headers": False, "type": "mutation",
                                                   "output_type": "[ T! ] !", "arguments": []}}]}),
        ({"sources": [{"name": "d", "kind": "pg"}]}, {"sources": [{"name": "d"}]}),
        ({"allowlist": [{"collection": "c"}]}, {"allowlist": [{"collection": "c", "scope": {"global": True}}]}),
        ({"cron_triggers": [{"name": "c"}]},
         {"cron_triggers": [{"name": "c", "payload": None, "retry_conf": {
             "num_retries": 0, "timeout_seconds": 60, "tolerance_seconds": 21600, "retry_interval_seconds": 10}}]}),
        ({"inherited_roles": [{"role_name": "r", "role_set": ["a", "b"]}]},
         {"inherited_roles": [{"role_name": "r", "role_set": ["b", "a"]}]}),
        ({"query_collections": [{"name": "c", "definition": {"queries": [
            {"name": "q", "query": "query { a(x: 1, y: \"b  c\") { id } } # why"}]}}]},
         {"query_collections": [{"name": "c", "definition": {"queries": [
             {"name": "q", "query": "query {\n  a(x: 1 y: \"b  c\") {\n    id\n  }\n}\n"}]}}]}),
    ],
)  # fmt: skip
def test_another_way_to_write_the_same_section_is_no_change(one, other):
    assert find_changes(one, other) == []
    assert find_changes(other, one) == []


def test_a_number_in_place_of_graphql_is_a_change():
    one, other = ({"query_collections": [{"name": "c", "definition": {"queries": [{"name": "q", "query": query}]}}]}
                  for query in (5, "{ a }"))  # fmt: skip
    assert [change[-3:] for change in told(one, other)] == [("query", 5, "{ a }")]
    assert [change[-3:] for change in told(other, one)] == [("query", "{ a }", 5)]


def test_graphql_is_compared_by_its_tokens():
    assert graphql_tokens('type A { """ why \n  so """ b: Int # c\n}') == graphql_tokens('type A{"""why\nso"""b:Int}')
    assert graphql_tokens('{ a(b: "x  y") }') != graphql_tokens('{ a(b: "x y") }')
    assert graphql_tokens("{ ab }") != graphql_tokens("{ a b }")
    assert graphql_tokens('"\\"" "é" ...F @x(y: -1.5e3)') == ['"\\""', '"é"', "...", "F", "@", "x", "(", "y", ":",
                                                              "-1.5e3", ")"]  # fmt: skip


# Properties.


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_another_order_is_no_change(data):
    document = data.draw(st.sampled_from(DOCUMENTS))
    assert find_changes(document, shuffled(document, data.draw(st.integers()))) == []


def leaves(document):
    """The index paths of every leaf that can change alone.

    What names an entry cannot: another name is another entry. Nor can custom_column_names, which column_config
    overrules.
    """
    waiting: list = [(root(), document, (), ())]
    while waiting:
        spec, value, path, naming = waiting.pop()
        if isinstance(value, dict):
            keys = [key for key in value if key not in naming and key != "custom_column_names"]
            waiting += [(below(spec, value, key), value[key], (*path, key), ()) for key in keys]
        elif isinstance(value, list):
            kind = kind_of(spec, value)
            naming = (kind.key, "suffix") if kind is not None and kind.key else ()
            items = [(index, item) for index, item in enumerate(value) if isinstance(item, (dict, list)) or not naming]
            waiting += [(below(spec, value, index), item, (*path, index), naming) for index, item in items]
        elif path:
            yield path


def changed(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    return f"changed {value}"


def replaced(document, path, value):
    made = copy.deepcopy(document)
    place = made
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return made


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_changed_leaf_is_exactly_one_change_and_told_at_its_place(data):
    document = data.draw(st.sampled_from([document for document in DOCUMENTS if any(leaves(document))]))
    path = data.draw(st.sampled_from(list(leaves(document))))
    old = document
    for key in path:
        old = old[key]
    local = replaced(document, path, changed(old))
    changes = find_changes(local, shuffled(document, data.draw(st.integers())))
    assert len(changes) == 1, (path, old)
    assert path[: len(changes[0].place)] == changes[0].place
    assert changes[0].place == index_path(local, changes[0].path)
    assert changes[0].path[: len(changes[0].place)] == identity_path(local, changes[0].place)


ODDITIES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["name", "sources", "tables", "table", "columns", "configuration", "custom_column_names",
                         "column_config", "definition", "actions", "headers", "value", "query_collections", "queries",
                         "query", "select_permissions", "permission", "role", "using", "foreign_key_constraint_on",
                         "column", "graphql_schema_introspection", "suffix", "host", "network", "tls_allowlist"])
        | st.integers() | st.text(), inner, max_size=6),
    max_leaves=40,
)  # fmt: skip


@given(ODDITIES, ODDITIES)
@settings(max_examples=400, deadline=None)
def test_what_is_not_well_formed_is_compared_all_the_same(local, live):
    report_lines(find_changes(local, live))
    assert find_changes(live, copy.deepcopy(live)) == []


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_one_odd_value_anywhere_is_compared_all_the_same(data):
    document = many_tables(1)
    path = data.draw(st.sampled_from([(), *leaves(document)]))
    path = path[: data.draw(st.integers(1, max(1, len(path))))]
    odd = replaced(document, path, data.draw(ODDITIES)) if path else data.draw(ODDITIES)
    json.dumps([change._asdict() for change in find_changes(odd, document)], default=str)
    report_lines(find_changes(document, odd))


def test_what_is_nested_deep_is_compared_to_its_end_and_shown_to_a_depth():
    def nested(value):
        for _ in range(5000):
            value = {"_not": value}
        return with_table(select_permissions=[rule(filter=value)])

    (change,) = find_changes(nested({"a": 1}), nested({"a": 2}))
    assert (len(change.path), change.local, change.live) == (5009, 1, 2)
    assert find_changes(nested({}), nested({})) == []
    assert len("".join(report_lines(find_changes(nested({}), with_table())))) < 10_000


def test_2000_tables_are_quick():
    document = many_tables(2000)
    live = json.loads(json.dumps(document))
    for table in live["sources"][0]["tables"][::2]:
        table["is_enum"] = True
    start = time.process_time()
    changes = find_changes(document, live)
    assert time.process_time() - start < 1.0  # 0.1 s on an idle machine
    assert len(changes) == 1000


# Secrets.


SECRETS = {
    "sources": [{"name": "d", "configuration": {
        "connection_info": {"database_url": "postgres://u:hunter2aa@h/d"},
        "read_replicas": [{"database_url": {"connection_parameters": {"password": "hunter2bb", "host": "h"}}}]},
        "tables": [{"table": "t", "event_triggers": [
            {"name": "e", "webhook": "https://u:hunter2cc@h/x", "headers": [{"name": "x-key", "value": "hunter2dd"}],
             "request_transform": {"request_headers": {"add_headers": {"Authorization": "Bearer hunter2ee"}}}}]}]}],
    "remote_schemas": [{"name": "r", "definition": {"headers": [
        {"name": "x-hasura-admin-secret", "value": "hunter2ff"}, {"value": "hunter2gg"}]}}],
    "backend_configs": {"dataconnector": {"a": {"uri": "https://u:hunter2hh@h"}}},
    "cron_triggers": [{"name": "c", "payload": {"api_token": "hunter2jj", "keys": [{"secret": ["hunter2kk"]}]}}],
    "unheard_of": {"password": "hunter2ll"},
    "opentelemetry": {"exporter_otlp": {"headers": [{"name": "k", "value": "hunter2ii"}]}},
}  # fmt: skip


OTHER_SECRETS = json.loads(json.dumps(SECRETS).replace("hunter2", "swordfish"))


@pytest.mark.parametrize(("local", "live"), [(SECRETS, {}), ({}, SECRETS), (SECRETS, OTHER_SECRETS)])
def test_no_secret_stands_in_what_is_said(local, live):
    changes = find_changes(local, live)
    said = json.dumps([change._asdict() for change in changes]) + "\n".join(report_lines(changes))
    assert "hunter2" not in said and "swordfish" not in said
    assert "********" in said


def test_a_secret_that_differs_is_told_as_changed():
    live = json.loads(json.dumps(SECRETS).replace("hunter2ff", "swordfish"))
    (change,) = find_changes(SECRETS, live)
    assert change.path == ("remote_schemas", "r", "definition", "headers", "x-hasura-admin-secret", "value")
    assert change[1:4] == ("changed", "********", "********")
    assert report_lines([change])[1].endswith("(the value differs)")


# Of each place, a document that has something there.


def with_source(configuration):
    return {"version": 3, "sources": [{"name": "d", "kind": "postgres", "tables": [], "configuration": configuration}]}


def with_connection(info):
    return with_source({"connection_info": info})


def with_schema(headers):
    return {"remote_schemas": [{"name": "r", "definition": {"url": "http://x", "headers": headers}}]}


HEADER_LISTS = {
    "remote schema": with_schema,
    "action": lambda headers: {"actions": [{"name": "a", "definition": {"handler": "h", "headers": headers}}]},
    "cron trigger": lambda headers: {"cron_triggers": [{"name": "c", "headers": headers}]},
    "event trigger": lambda headers: with_table(event_triggers=[{"name": "e", "headers": headers}]),
    "input": lambda headers: with_table(insert_permissions=[{"role": "u", "permission": {
        "check": {}, "validate_input": {"type": "http", "definition": {"url": "http://x", "headers": headers}}}}]),
    "exporter": lambda headers: {"opentelemetry": {"exporter_otlp": {"headers": headers}}},
}  # fmt: skip


def planted(value):
    """A document for each place of a header or a connection, with `value` there, by the place's name."""
    headers = {
        "value": {"name": "n", "value": value}, "misspelled": {"name": "n", "values": value},
        "beside": {"name": "n", "value": "x", "note": value}, "from env": {"name": "n", "value_from_env": [value]},
        "name": {"name": {"n": value}}, "key": {"k": value}, "bare": value,
    }  # fmt: skip
    transforms = {
        "added": {"request_headers": {"add_headers": {"k": value}}},
        "no list": {"request_headers": {"add_headers": value}},
        "removed": {"request_headers": {"remove_headers": {"k": value}}},
        "no headers": {"request_headers": value},
        "parameters": {"query_params": {"api_token": value}},
    }
    places = {f"headers of {owner}": made(value) for owner, made in HEADER_LISTS.items()}
    for owner, made in HEADER_LISTS.items():
        places |= {f"header of {owner}, {name}": made([entry]) for name, entry in headers.items()}
    for name, transform in transforms.items():
        definition = {"handler": "h", "request_transform": transform}
        places[f"transform, {name}"] = {"actions": [{"name": "a", "definition": definition}]}
    for key in ("sslmode", "sslcert", "sslkey", "sslpassword", "sslrootcert", "unheard_of"):
        places[f"ssl {key}"] = with_connection({"ssl_configuration": {key: value}})
    for key in ("database_url", "connection_string", "ssl_configuration", "unheard_of"):
        places[f"connection {key}"] = with_connection({key: value})
    for key in ("read_replicas", "connection_set", "connection_template", "unheard_of"):
        places[f"configuration {key}"] = with_source({"connection_info": {}, key: value})
    return {
        **places,
        "configuration": with_source(value),
        "connection": with_connection(value),
        "replica": with_source({"read_replicas": [value]}),
        "member": with_source({"connection_set": [{"name": "m", "connection_info": value}]}),
        "bare member": with_source({"connection_set": [value]}),
        "parameters": with_connection({"database_url": {"connection_parameters": {"password": value}}}),
        "no parameters": with_connection({"database_url": {"connection_parameters": [value]}}),
        "account": with_source({"service_account": {"private_key": value}, "datasets": [], "project_id": 1}),
        "agent": with_source({"value": {"connection": value}}),
        "agent template": with_source({"value": {}, "template": value}),
        "environment": with_connection({"database_url": {"from_env": [value]}}),
    }


PLACES = sorted(planted("x"))
# What may stand there instead of a text.
NESTED = [lambda secret: secret, lambda secret: [secret], lambda secret: {"a": secret}, lambda secret: [[secret]],
          lambda secret: {"a": [{"b": secret}, 1]}, lambda secret: f"http://u:{secret}@h/x?y=z#{secret}"]  # fmt: skip
PLANTED = st.from_regex(r"[A-Za-z0-9]{12,40}", fullmatch=True) | st.integers(10**12, 10**30)


def said_of(local, live):
    changes = find_changes(local, live)
    conflicts = merge({}, local, live)[1]
    rows = [item._asdict() for item in (*changes, *conflicts)]
    return changes, json.dumps(rows) + "\n".join(report_lines(changes))


@pytest.mark.parametrize("place", PLACES)
def test_no_secret_of_a_header_or_a_connection_is_shown_whatever_its_form(place):
    for nested in NESTED:
        check_masking(place, nested, "hunter2hunter2", "swordfish77")
        check_masking(place, nested, 4711471147114711, "swordfish77")


@given(st.sampled_from(PLACES), st.sampled_from(NESTED), PLANTED, PLANTED)
@settings(max_examples=150, deadline=None)
def test_no_secret_of_a_header_or_a_connection_is_shown_whatever_its_text(place, nested, one, other):
    if one != other:
        check_masking(place, nested, one, other)


def check_masking(place, nested, one, other):
    secrets = [str(one), str(other)]
    local, live, nothing = (planted(nested(value))[place] for value in (one, other, "x"))
    for sides in ((local, live), (local, {}), ({}, live), (local, nothing), (nothing, live)):
        changes, said = said_of(*sides)
        assert changes and "********" in said, said
        assert not [secret for secret in secrets if secret in said], said
    changes = find_changes(local, live)
    # An entry that nothing names is taken away and another one added.
    is_named = not any(step.startswith("#") for change in changes for step in change.path)
    assert [change.change for change in changes] == (["changed"] if is_named else ["added", "removed"])


def test_every_list_of_headers_has_a_place_above_and_every_object_with_a_secret_is_guarded():
    with_headers = {name for name in OBJECTS if any(spec.name == "headers" for spec in keys_of(name).values())}
    assert with_headers == {"validate_definition", "event_trigger", "schema_definition", "action_definition",
                            "cron_trigger", "otlp_exporter"}  # fmt: skip
    assert len(HEADER_LISTS) == len(with_headers)
    specs = [(name, kind) for name in OBJECTS for spec in keys_of(name).values() for kind in spec.kinds]
    forms = [(name, kind.item.kinds[0].form if isinstance(kind.item, Spec) else kind.form) for name, kind in specs]
    secretive = {name for name, form in forms if form in ("secret", "opaque")}
    assert secretive <= {*GUARDED}


def test_what_is_harmless_beside_secrets_is_shown():
    info = {"database_url": {"from_env": "PG_URL"}, "isolation_level": "serializable", "pool_settings": {"retries": 3},
            "ssl_configuration": {"sslmode": "verify-full", "sslkey": {"from_env": "SSL_KEY"}}}  # fmt: skip
    headers = [{"name": "x-key", "value_from_env": "X_KEY"}]
    for document in (with_connection(info), with_schema(headers)):
        assert "********" not in said_of(document, {})[1]
    parameters = {"host": "db", "port": 5432, "username": "app", "password": "hunter2"}
    (change,) = find_changes(
        with_connection({"database_url": {"connection_parameters": parameters}}), {"version": 3}
    )
    shown = change.local["configuration"]["connection_info"]["database_url"]["connection_parameters"]
    assert shown == {**parameters, "password": "********"}


def test_a_filter_on_a_column_whose_name_sounds_secret_is_shown():
    local, live = (with_table(select_permissions=[rule(filter={"_and": [{"api_token": {"_eq": name}}]})])
                   for name in ("X-Hasura-Token", "X-Hasura-User"))  # fmt: skip
    assert told(local, live) == [("changed", "_eq", "X-Hasura-Token", "X-Hasura-User")]


def test_a_secret_in_a_url_is_one_change():
    local, live = ({"cron_triggers": [{"name": "c", "webhook": f"http://x/y?a=1&api_key={key}"}]} for key in "xy")
    assert told(local, live) == [("changed", "webhook", *["http://x/y?a=1&api_key=********"] * 2)]


# What is said.


TWO_PROJECTS = recorded("full-diff-t1/**/*")


@reads(TWO_PROJECTS)
def test_upstreams_recorded_diff_of_two_whole_projects():
    project, server = (read_folder(str(GOLDEN / "full-diff-t1" / side / "metadata")) for side in ("project", "server"))
    tables = ("sources", "default", "tables")
    changes = find_changes(project, server)
    assert [(change.change, change.path) for change in changes] == [
        ("added", (*tables, "public.albums", "array_relationships", "tracks")),
        ("added", (*tables, "public.genres", "array_relationships", "tracks")),
        ("added", (*tables, "public.media_types", "array_relationships", "tracks")),
        ("added", (*tables, "public.playlist_track", "object_relationships", "track")),
        ("added", (*tables, "public.tracks")),
        ("removed", (*tables, "public.foo")),
        ("changed", ("remote_schemas", "countries", "permissions", "test", "definition", "schema")),
        ("removed", ("actions", "bar")),
    ]
    paths = [change.path for change in changes]
    names = [path[3].replace(".", "_") if path[0] == "sources" else path[0] for path in paths]
    report = recorded_text("full-diff-t1/want").splitlines()
    told_files = {os.path.basename(line)[: -len(".yaml")] for line in report if line.endswith(".yaml")}
    assert told_files == set(names)


ALLOW_LISTS = recorded("obj-allowlist-write-diff-t1/**/*")


@reads(ALLOW_LISTS)
def test_upstreams_recorded_diff_of_an_allow_list():
    here, there = ({"allowlist": yaml.safe_load(recorded_text(file))} for file in sorted(ALLOW_LISTS, reverse=True)[1:])
    assert told(here, there) == [("removed", "some-queries", None, {"collection": "some-queries"})]
    assert "- one list entry removed:\n  - collection: some-queries\n" in recorded_text(ALLOW_LISTS[-1])


EMPTY_SERVER = recorded("pkg-metadata/metadata_diff_test/*")


@reads(EMPTY_SERVER)
@pytest.mark.parametrize("file", EMPTY_SERVER)
def test_upstreams_recorded_diff_of_a_project_and_an_empty_server(file):
    """Upstream compares the lines of one file of all; its lines of sections that say nothing are no change."""
    version = int(file[-len("2_diff")])
    project = read_folder(str(GOLDEN / "pkg-metadata" / f"projectv{version}" / "metadata"))
    server = recorded_json("pkg-metadata/metadata_export_test/config-v2.json")
    server = server if version == 3 else {"version": 2, "tables": server["sources"][0]["tables"]}
    lines = recorded_text(file).splitlines()[2:]
    gone = {line[1:].strip() for line in lines if line.startswith("-")} - {"graphql_schema_introspection:"}
    assert {line.partition(": ")[2] for line in gone} <= {"[]", "{}"}
    added = yaml.safe_load(textwrap.dedent("\n".join(line[1:] for line in lines if line.startswith("+"))))
    tables = sorted(f"{entry['table']['schema']}.{entry['table']['name']}" for entry in added["tables"])
    changes = find_changes(project, server)
    assert sorted((change.change, change.path[-1]) for change in changes) == [("added", table) for table in tables]


def test_a_report_is_grouped_by_table_and_marked():
    local = with_table(is_enum=True, select_permissions=[rule(columns=["a", "c"], limit=5)])
    live = with_table(select_permissions=[rule(limit=50)], object_relationships=[{"name": "author", "using": {}}])
    local["actions"] = [{"name": "login", "definition": {"handler": "http://x"}}]
    local["version"] = 4
    assert report_lines(find_changes(local, live)) == [
        "version",
        "~ all of it: 3 -> 4",
        "source default, table public.posts",
        "+ is_enum: true",
        "~ select_permissions user permission columns:",
        '-   - b',
        '+   - c',
        "~ select_permissions user permission limit: 50 -> 5",
        "- object_relationships author:",
        "-   name: author",
        "-   using: {}",
        "actions login",
        "+ all of it:",
        "+   name: login",
        "+   definition:",
        "+     handler: http://x",
    ]  # fmt: skip


def test_a_text_of_many_lines_is_told_line_by_line():
    local, live = (
        {"sources": [{"name": "default", "native_queries": [{"root_field_name": "q", "code": code}]}]}
        for code in ("SELECT 1\nFROM a\nWHERE x", "SELECT 1\nFROM b\nWHERE x")
    )
    assert report_lines(find_changes(local, live)) == [
        "source default, native query q",
        "~ code:",
        "~   SELECT 1",
        "-   FROM b",
        "+   FROM a",
        "~   WHERE x",
    ]
