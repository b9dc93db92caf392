"""Hasura's API against a small server that answers as upstream's recorded exchanges do."""

from __future__ import annotations

import json

import pytest
from bed.bookkeeping import make_metadata
from bed.hasura_engine import Engine
from bed.little_server import LittleServer, reply

from nself_core.failures import CheckFailed, CredentialsRefused, Failure, Unreachable
from nself_core.hasura.api import (
    HasuraApi,
    MetadataConflict,
    MetadataInconsistent,
    MetadataRefused,
    read_stored_metadata,
)

SECRET = "admin-s3cret"
LOST = {"type": "table", "name": "table foobar in source default", "reason": "no such table", "definition": "foobar"}


@pytest.fixture
def engine():
    """engine(*answers) -> (HasuraApi, LittleServer); each answer is a document, or a status and one."""
    servers = []

    def start(*answers):
        left = [answer if isinstance(answer, tuple) else ("200 OK", answer) for answer in answers]

        def answer(connection, request):
            status, document = left.pop(0)
            reply(status, document if isinstance(document, str) else json.dumps(document))(connection, request)

        servers.append(LittleServer(answer))
        return HasuraApi(servers[-1].url(""), SECRET, timeout=5), servers[-1]

    yield start
    for server in servers:
        server.close()


def asked(server, number=0):
    """The request line and the JSON body of a request."""
    head, _, body = server.requests[number].partition(b"\r\n\r\n")
    return head.split(b" HTTP")[0].decode(), json.loads(body)


def test_reload_asks_the_metadata_api_with_the_secret(engine):
    api, server = engine({"is_consistent": True, "message": "success"})
    assert api.reload_metadata() == {"is_consistent": True, "inconsistent_objects": []}
    assert asked(server) == ("POST /v1/metadata", {"type": "reload_metadata", "args": {}})
    assert f"X-Hasura-Admin-Secret: {SECRET}".lower().encode() in server.requests[0].lower()


def test_reload_tells_what_is_inconsistent(engine):
    api, _ = engine({"is_consistent": False, "message": "success", "inconsistent_objects": [LOST]})
    assert api.reload_metadata() == {"is_consistent": False, "inconsistent_objects": [LOST]}


def test_reload_asks_again_where_an_old_engine_says_only_success(engine):
    api, server = engine({"message": "success"}, {"is_consistent": False, "inconsistent_objects": [LOST]})
    assert api.reload_metadata()["inconsistent_objects"] == [LOST]
    assert asked(server, 1)[1]["type"] == "get_inconsistent_metadata"


def test_export_gives_the_metadata_with_its_version(engine):
    document = {"resource_version": 7, "metadata": {"version": 3, "sources": []}}
    api, server = engine(document)
    assert api.export_metadata() == document
    assert asked(server)[1] == {"type": "export_metadata", "version": 2, "args": {}}


def test_the_catalog_state_is_returned_whole(engine):
    state = {"id": "x", "cli_state": {"migrations": {"default": {"1": False}}}, "console_state": {}}
    api, _ = engine(state)
    assert api.get_catalog_state() == state


def test_the_version_is_asked_without_the_secret(engine):
    api, server = engine({"version": "v2.48.10", "server_type": "ce"})
    assert api.version() == "v2.48.10"
    assert server.requests[0].startswith(b"GET /v1/version ")
    assert SECRET.encode() not in server.requests[0]


@pytest.mark.parametrize("suffix", ["/", "/v1/graphql", "/console", "/v1/metadata/"])
def test_an_endpoint_with_a_path_of_the_engine_is_understood(engine, suffix):
    api, server = engine({"is_consistent": True})
    HasuraApi(api.endpoint + suffix, SECRET).get_inconsistent_metadata()
    assert asked(server)[0] == "POST /v1/metadata"


def test_an_endpoint_below_a_path_keeps_it(engine):
    api, server = engine({"is_consistent": True})
    HasuraApi(api.endpoint + "/hasura/", SECRET).get_inconsistent_metadata()
    assert asked(server)[0] == "POST /hasura/v1/metadata"


@pytest.mark.parametrize("secret", [None, ""])
def test_an_engine_without_a_secret_is_asked_without_one(engine, secret):
    api, server = engine({"is_consistent": True})
    HasuraApi(api.endpoint, secret).get_inconsistent_metadata()
    assert b"admin-secret" not in server.requests[0].lower()


def refusal(code, error, status="400 Bad Request", **rest):
    return status, {"path": "$.args", "error": error, "code": code, **rest}


@pytest.mark.parametrize(("answer", "kind", "said"), [
    (refusal("access-denied", 'invalid "x-hasura-admin-secret"', "401 Unauthorized"), CredentialsRefused, "invalid"),
    (refusal("access-denied", "restricted access : admin only"), CredentialsRefused, "admin only"),
    (refusal("not-found", "resource does not exist", "404 Not Found"), Unreachable, "no metadata API"),
    (("502 Bad Gateway", "<title>502 Bad Gateway</title>"), Unreachable, "502 Bad Gateway"),
    (("503 Busy", {"error": "starting"}), Unreachable, "not ready: starting"),
    (("200 OK", "[]"), Unreachable, "not Hasura's metadata API"),
    (refusal("conflict", "resource version (1) did not match", "409 Conflict"), MetadataConflict, "did not match"),
    (refusal("parse-failed", "the key 'x' was not present"), MetadataRefused, "was not present at $.args"),
    (refusal("unexpected", "internal error", "500 Internal Server Error"), MetadataRefused, "internal error"),
    (("400 Bad Request", '"text"'), MetadataRefused, "status 400"),
])
def test_an_error_of_the_engine_becomes_a_failure(engine, answer, kind, said):
    api, _ = engine(answer)
    with pytest.raises(Failure) as caught:
        api.reload_metadata()
    assert type(caught.value) is kind
    assert said in caught.value.message


def test_a_refusal_carries_the_engines_own_words(engine):
    api, _ = engine(refusal("unexpected", "cannot continue due to inconsistent metadata", internal=[LOST]))
    with pytest.raises(MetadataRefused) as caught:
        api.export_metadata()
    assert caught.value.data == {"hasura_code": "unexpected", "path": "$.args", "internal": [LOST]}


@pytest.mark.parametrize("answer", [
    refusal("access-denied", f"not {SECRET}", "401 X"),
    refusal("unexpected", f"not {SECRET}"),
    ("502 X", f"not {SECRET}"),
])
def test_the_secret_is_in_no_error(engine, answer):
    api, _ = engine(answer)
    with pytest.raises(Failure, match=r"not \*\*\*") as caught:
        api.reload_metadata()
    assert SECRET not in f"{caught.value} {caught.value!r} {caught.value.hint} {caught.value.data} {api!r}"


def test_an_engine_that_is_down_is_unreachable(engine):
    api, server = engine()
    server.close()
    with pytest.raises(Unreachable, match="nothing listens there"):
        api.reload_metadata()


@pytest.mark.parametrize("answer", [{"version": None}, [], ("404 Not Found", {"error": "no"})])
def test_something_else_than_an_engine_has_no_version(engine, answer):
    api, _ = engine(answer)
    with pytest.raises(Unreachable, match="is not Hasura's engine"):
        api.version()


@pytest.mark.parametrize(("method", "answer"), [
    ("export_metadata", {"ok": True}), ("export_metadata", {"resource_version": 1, "metadata": None}),
    ("export_metadata", {"metadata": {}}), ("get_catalog_state", {"ok": True}), ("get_catalog_state", {"id": 1}),
    ("get_inconsistent_metadata", {"ok": True}), ("reload_metadata", {"is_consistent": "yes"}),
    ("reload_metadata", {"is_consistent": False, "inconsistent_objects": ["x"]}),
    ("reload_metadata", {"is_consistent": False, "inconsistent_objects": {"x": 1}}),
])  # fmt: skip
def test_json_that_is_not_hasuras_is_no_answer(engine, method, answer):
    api, _ = engine(answer)
    with pytest.raises(Unreachable, match="is not Hasura's metadata API"):
        getattr(api, method)()


# Replacing, against the double over a real database.

DOCUMENT = {"version": 3, "sources": []}


@pytest.fixture
def double(plain_server, make_database):
    """(HasuraApi, Engine): the double over an empty database."""
    database = make_database(plain_server)
    with Engine(plain_server.cluster.url(database.name), SECRET) as engine:
        yield HasuraApi(engine.endpoint, SECRET, timeout=10), engine


def tracking(engine, *names):
    """A document that tracks these tables, beside what source default is configured with."""
    document = engine.ask("export_metadata")[1]
    return {**document, "sources": [{**document["sources"][0], "tables": [{"table": name} for name in names]}]}


def test_replace_asks_version_2_with_the_resource_version(engine):
    api, server = engine({"is_consistent": True, "inconsistent_objects": []})
    answer = api.replace_metadata(DOCUMENT, 7)
    assert answer == {"is_consistent": True, "inconsistent_objects": [], "warnings": []}
    assert asked(server)[1] == {
        "type": "replace_metadata", "version": 2, "resource_version": 7,
        "args": {"allow_inconsistent_metadata": False, "metadata": DOCUMENT},
    }  # fmt: skip


def test_replace_without_a_version_names_none(engine):
    api, server = engine({"is_consistent": True, "inconsistent_objects": [], "warnings": [{"message": "old"}]})
    assert api.replace_metadata(DOCUMENT, allow_inconsistent=True)["warnings"] == [{"message": "old"}]
    assert "resource_version" not in asked(server)[1]
    assert asked(server)[1]["args"]["allow_inconsistent_metadata"] is True


def test_what_was_exported_can_replace(double):
    api, engine = double
    found = api.export_metadata()
    assert api.replace_metadata(found["metadata"], found["resource_version"])["is_consistent"]
    assert api.export_metadata()["resource_version"] == found["resource_version"] + 1


def test_another_version_is_a_conflict_and_changes_nothing(double):
    api, engine = double
    found = api.export_metadata()
    with pytest.raises(MetadataConflict, match="did not match current version"):
        api.replace_metadata(DOCUMENT, found["resource_version"] + 1)
    assert api.export_metadata() == found


def test_inconsistent_metadata_is_listed_and_changes_nothing(double):
    api, engine = double
    found = api.export_metadata()
    with pytest.raises(MetadataInconsistent, match="inconsistent metadata") as caught:
        api.replace_metadata(tracking(engine, "lost", 'o"dd'), found["resource_version"])
    assert [item["name"] for item in caught.value.objects] == [
        "table lost in source default", 'table o"dd in source default',
    ]  # fmt: skip
    assert api.export_metadata() == found
    assert caught.value.exit_code == 1


def test_inconsistent_metadata_that_is_allowed_is_told(double):
    api, engine = double
    answer = api.replace_metadata(tracking(engine, "lost"), allow_inconsistent=True)
    assert not answer["is_consistent"]
    assert [item["type"] for item in answer["inconsistent_objects"]] == ["table"]
    assert api.get_inconsistent_metadata()["inconsistent_objects"] == answer["inconsistent_objects"]


def test_large_metadata_goes_both_ways(double):
    api, engine = double
    query = "query { " + "x" * 1000 + " }"
    queries = [{"name": f"q{number}", "query": query} for number in range(10_000)]
    document = {**tracking(engine), "query_collections": [{"name": "all", "definition": {"queries": queries}}]}
    api.replace_metadata(document)
    assert api.export_metadata()["metadata"] == document


def test_a_wrong_secret_is_refused(double):
    api, engine = double
    with pytest.raises(CredentialsRefused, match="invalid"):
        HasuraApi(engine.endpoint, "wrong-secret").replace_metadata(DOCUMENT)
    with pytest.raises(CredentialsRefused, match="required, but not found"):
        HasuraApi(engine.endpoint).export_metadata()


@pytest.mark.parametrize("status", ["200 OK", "413 Payload Too Large", "502 Bad Gateway"])
def test_a_proxys_page_is_no_engine(engine, status):
    api, _ = engine((status, f"<html><head><title>{status}</title></head><body>nginx</body></html>"))
    with pytest.raises(Unreachable, match=f"answered {status[:3]} and not in JSON: {status}"):
        api.replace_metadata(DOCUMENT, 1)


def test_the_headers_of_others_are_in_no_failure(engine):
    headers = [{"name": "authorization", "value": "Bearer t0ken"}, {"name": "x", "value_from_env": "X"},
               {"name": "y", "values": "t0ken"}, {"name": "z", "value": ["t0ken"]}, "t0ken"]
    connection = {"connection_info": {"database_url": "postgres://u:t0ken@h/d", "ssl_configuration": {"a": "t0ken"}}}
    lost = {**LOST, "definition": {"name": "pay", "configuration": connection,
                                   "definition": {"url": "http://pay", "headers": headers}}}  # fmt: skip
    api, _ = engine(refusal("unexpected", "cannot continue due to inconsistent metadata", internal=[lost]))
    with pytest.raises(MetadataInconsistent) as caught:
        api.replace_metadata(DOCUMENT)
    assert "t0ken" not in repr(caught.value.data)
    assert caught.value.objects[0]["definition"]["definition"]["headers"][1] == headers[1]


# What the engine has stored, read without it.


def stored(project):
    from nself_core.postgres.database import Database
    from nself_core.settings import load_settings

    database = Database(load_settings(str(project.root), environ={}), "test")
    try:
        return read_stored_metadata(database)
    finally:
        database.close()


@pytest.mark.versions
def test_stored_metadata_is_what_the_engine_exports(project):
    document = {"version": 3, "sources": [{"name": "default", "tables": [{"table": "a \\ b ü $$ %"}]}], "empty": []}
    make_metadata(project, document)
    found = stored(project)
    assert found == {"resource_version": 1, "metadata": document}
    assert [*found["metadata"]] == ["version", "sources", "empty"]


def test_stored_metadata_of_the_double(plain_project):
    url = plain_project.database.server.cluster.url(plain_project.database.name)
    with Engine(url, SECRET) as engine:
        assert stored(plain_project) == engine.ask("export_metadata", version=2)[1]


def test_a_database_without_metadata_says_so(plain_project):
    with pytest.raises(CheckFailed, match="keeps no metadata in") as caught:
        stored(plain_project)
    assert "HASURA_GRAPHQL_METADATA_DATABASE_URL" in caught.value.hint
    make_metadata(plain_project, {})
    plain_project.database.admin("DELETE FROM hdb_catalog.hdb_metadata")
    with pytest.raises(CheckFailed, match="keeps no metadata in"):
        stored(plain_project)


def test_metadata_that_may_not_be_read_says_so(plain_project):
    make_metadata(plain_project, DOCUMENT)
    admin, cluster = plain_project.database.admin, plain_project.database.server.cluster
    admin("DROP ROLE IF EXISTS api_stranger")
    admin("CREATE ROLE api_stranger LOGIN PASSWORD 'stranger-word'")
    url = cluster.url(plain_project.database.name, user="api_stranger", password="stranger-word")
    plain_project.write_env({"NSELF_DB_URL": url})
    try:
        with pytest.raises(CredentialsRefused, match="may not be read by this role"):
            stored(plain_project)
    finally:
        admin("DROP ROLE api_stranger")
