"""What a read-only console lets through, and how it sends SQL on."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nself_core.hasura.console_reading import allowed_body


def sent(path, document, method="POST"):
    """What is sent on for a JSON document, parsed; None where it is refused."""
    body = allowed_body(method, path, json.dumps(document).encode())
    return None if body is None else json.loads(body)


def call(kind, args=None, **more):
    return {"type": kind, "args": {} if args is None else args, **more}


@pytest.mark.parametrize("kind", [
    "export_metadata", "get_inconsistent_metadata", "get_catalog_state", "list_source_kinds", "dump_internal_state",
    "introspect_remote_schema", "pg_get_viewdef", "get_source_tables", "pg_suggest_relationships",
])  # fmt: skip
def test_requests_that_read_pass_as_they_are(kind):
    assert sent("/v1/metadata", call(kind, {"a": 1}, version=2)) == call(kind, {"a": 1}, version=2)


@pytest.mark.parametrize("kind", [
    "replace_metadata", "reload_metadata", "clear_metadata", "drop_inconsistent_metadata", "set_catalog_state",
    "pg_track_table", "pg_untrack_table", "pg_create_select_permission", "bulk_atomic", "rename_source",
    "invoke_event_trigger", "pg_redeliver_event", "test_webhook_transform", "mssql_run_sql", "bigquery_run_sql",
    "insert", "delete", "", None, 7,
])  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/metadata", "/v2/query", "/v1/query"])
def test_what_is_not_known_to_read_is_refused(path, kind):
    assert sent(path, call(kind)) is None


@pytest.mark.parametrize("kind", ["run_sql", "pg_run_sql", "citus_run_sql"])
def test_sql_is_sent_read_only(kind):
    args = {"sql": "SELECT 1", "read_only": False, "no_transaction": True, "source": "other"}
    assert sent("/v2/query", call(kind, args))["args"] == {**args, "read_only": True, "no_transaction": False}


@pytest.mark.parametrize("sql", [
    "DROP TABLE a", "SELECT 1; DROP TABLE a", "SELECT 1; COMMIT; DELETE FROM a", "COMMIT", "SET ROLE x",
    "DO $$BEGIN END$$", "SELECT 'open", "\\! ls", None, 7,
])  # fmt: skip
def test_sql_that_is_not_of_reading_statements_is_refused(sql):
    assert sent("/v2/query", call("run_sql", {"sql": sql})) is None


@pytest.mark.parametrize("sql", ["", "SELECT 1; TABLE a;", "WITH x AS (SELECT 1) SELECT * FROM x", "SELECT ';COMMIT;'"])
def test_sql_that_reads_passes(sql):
    assert sent("/v2/query", call("run_sql", {"sql": sql}))["args"]["sql"] == sql


def test_a_bulk_is_as_good_as_its_parts():
    reads = [call("run_sql", {"sql": "SELECT 1"}), call("bulk", [call("export_metadata")])]
    assert sent("/v2/query", call("bulk", reads))["args"][0]["args"]["read_only"] is True
    assert sent("/v2/query", call("concurrent_bulk", [*reads, call("clear_metadata")])) is None
    assert sent("/v1/metadata", call("bulk", [call("bulk", [call("pg_track_table")])])) is None
    assert sent("/v1/metadata", call("bulk", {"type": "export_metadata"})) is None


@pytest.mark.parametrize(("query", "passes"), [
    ("{ a }", True), ("query Q($a: Int) { a(b: $a) }", True), ("subscription { a }", True),
    ("query A { mutation }", True), ('query A { a(b: "} mutation {") }', True), ("# mutation\n{ a }", True),
    ('query A { a(b: """ } mutation { " \\""" """) }', True), ("", True),
    ("mutation { a }", False), ("query A { a } mutation B { c }", False), ("#\rmutation { a }", False),
    (",mutation@x{a}", False), ('{ a(b: "\\"}") } mutation { c }', False), ("}{mutation{a}", False), (7, False),
    ("fragment F on T { a } mutation M { a }", False), ('"""{"""mutation{a}', False), ("\ufeffmutation { a }", False),
    (None, False),
])  # fmt: skip
def test_mutations_are_refused(query, passes):
    assert (sent("/v1/graphql", {"query": query}) is not None) == passes
    assert (sent("/v1beta1/relay", [{"query": "{ a }"}, {"query": query}]) is not None) == passes


@pytest.mark.parametrize("document", [None, [], {}, "text", {"query": ["mutation"]}, {"extensions": {}}])
def test_what_is_no_graphql_request_is_refused(document):
    assert sent("/v1/graphql", document) is None


@pytest.mark.parametrize(("method", "path", "passes"), [
    ("GET", "/console", True), ("HEAD", "/console/assets/a", True), ("GET", "/api/rest/x", True),
    ("POST", "/v1alpha1/pg_dump", True), ("POST", "/v1/graphql/explain", True),
    ("POST", "/api/rest/x", False), ("PUT", "/v1/metadata", False), ("DELETE", "/api/rest/x", False),
    ("PATCH", "/x", False), ("OPTIONS", "/x", False), ("POST", "/v1/metadata/", False),
    ("POST", "/v1//metadata", False), ("POST", "/v1/%6detadata", False), ("POST", "/v1/other", False),
])  # fmt: skip
def test_methods_and_paths(method, path, passes):
    body = b'{"type": "export_metadata", "args": {}}'
    assert (allowed_body(method, path, body) is not None) == passes


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b'{"type": "run_sql", "args": []}'])
def test_what_cannot_be_read_is_refused(body):
    assert allowed_body("POST", "/v1/metadata", body) is None


@given(st.lists(st.sampled_from(['"', '"""', "\\", "{", "}", "#", "\n", "mutation", "a", " ", '\\"""']), max_size=200))
def test_any_text_is_judged_quickly(parts):
    sent("/v1/graphql", {"query": "".join(parts)})
