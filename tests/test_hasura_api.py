"""Hasura's API against a small server that answers as upstream's recorded exchanges do."""

from __future__ import annotations

import json

import pytest
from bed.little_server import LittleServer, reply

from nself_core.failures import CredentialsRefused, Failure, Unreachable
from nself_core.hasura.api import HasuraApi, MetadataConflict, MetadataRefused

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
