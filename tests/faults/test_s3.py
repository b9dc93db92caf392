"""An object store that delays, drops, truncates, refuses, redirects or answers garbage; what the client makes of it."""

from __future__ import annotations

import hashlib
import io
import re
import time
from email.utils import formatdate

import pytest
from bed.little_server import LittleServer, reply
from bed.proxy import CLOSE, RESET, STALL, TO_CLIENT, TO_SERVER, Proxy

from nself_core.failures import CheckFailed, CredentialsRefused, Failure, Unreachable, UsageFailure
from nself_core.s3 import multipart
from nself_core.s3.account import Place, make_account
from nself_core.s3.client import Asked, redirected
from nself_core.s3.download import fetch, fetch_file
from nself_core.s3.multipart import find_uploads, upload
from nself_core.s3.signing import Keys
from nself_core.s3.store import SAME, STORED, TAKEN, Store

MIB = 1024 * 1024
PART = 5 * MIB
KEYS = Keys("accesskey", "secretkey/+", "sessiontoken")


@pytest.fixture
def serve():
    """serve(*answers) -> (Store, LittleServer) that gives each answer once, and the last one for ever."""
    servers = []

    def start(*answers, **options):
        left = list(answers)

        def answer(connection, request):
            (left.pop(0) if len(left) > 1 else left[0])(connection, request)

        servers.append(LittleServer(answer))
        account = make_account(servers[-1].url("").rstrip("/"), "bucket", KEYS)
        return Store(account, **{"tries": 3, "first_pause": 0.01, "timeout": 2, **options}), servers[-1]

    yield start
    for server in servers:
        server.close()


def error(status, code, message="why not", **headers):
    """An answer that refuses as S3 does."""
    return reply(status, f"<Error><Code>{code}</Code><Message>{message}</Message></Error>", **headers)


def told(failure):
    return f"{failure} {failure.hint}"


# What passes is tried again.


@pytest.mark.parametrize("trouble", [
    error("500 X", "InternalError"), error("503 X", "SlowDown"), reply("502 X", "<html>bad gateway"), reply("503 X"),
    reply("429 X"), error("400 X", "RequestTimeout"), error("400 X", "BadDigest"), lambda connection, request: None,
    lambda connection, request: connection.sendall(b"SSH-2.0 \r\n"),
    lambda connection, request: connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"),
])  # fmt: skip
def test_a_passing_trouble_is_survived(serve, trouble):
    store, server = serve(trouble, trouble, reply("200 OK", b"content"))
    assert store.get("k") == b"content"
    assert len(server.requests) == 3


@pytest.mark.parametrize(("trouble", "kind"), [
    (error("500 X", "InternalError"), Unreachable), (reply("503 X", "<title>Busy</title>"), Unreachable),
    (error("400 X", "BadDigest"), CheckFailed), (lambda connection, request: None, Unreachable),
])  # fmt: skip
def test_a_lasting_trouble_is_given_up_and_told(serve, trouble, kind):
    store, server = serve(trouble)
    with pytest.raises(kind, match=rf"127.0.0.1:{server.port}"):
        store.put("k", b"x")
    assert len(server.requests) == 3


@pytest.mark.parametrize(("answer", "kind"), [
    (error("403 X", "SignatureDoesNotMatch"), CredentialsRefused), (error("403 X", "AccessDenied"), CredentialsRefused),
    (error("400 X", "ExpiredToken"), CredentialsRefused), (reply("403 X"), CredentialsRefused),
    (error("404 X", "NoSuchBucket"), UsageFailure), (error("400 X", "EntityTooLarge"), Failure),
    (error("507 X", "InsufficientStorage"), Unreachable), (error("301 X", "PermanentRedirect"), UsageFailure),
])  # fmt: skip
def test_a_refusal_is_not_tried_again(serve, answer, kind):
    store, server = serve(answer)
    with pytest.raises(kind, match=r"object k in bucket bucket at http://127.0.0.1:\d+"):
        store.put("k", b"x")
    assert len(server.requests) == 1


def test_a_server_that_hangs_is_left(serve):
    store, _ = serve(lambda connection, request: time.sleep(4), timeout=0.3, tries=2)
    start = time.monotonic()
    with pytest.raises(Unreachable, match="nothing moved for 0.3 seconds"):
        store.get("k")
    assert time.monotonic() - start < 2


def test_a_slow_answer_that_moves_is_waited_for(serve):
    def slow(connection, request):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
        for _ in range(6):
            time.sleep(0.1)
            connection.sendall(b"x")

    assert serve(slow, timeout=0.4)[0].get("k") == b"xxxxxx"


def test_a_refusal_before_the_body_was_sent_is_heard():
    import socket
    import threading

    def refuse(listener):
        connection, _ = listener.accept()
        with connection:
            connection.recv(1000)
            body = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
            connection.sendall(
                b"HTTP/1.1 403 X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body)
            )
            connection.shutdown(socket.SHUT_WR)
            time.sleep(0.3)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=refuse, args=(listener,), daemon=True).start()
        account = make_account(f"http://127.0.0.1:{listener.getsockname()[1]}", "bucket", KEYS)
        with pytest.raises((CredentialsRefused, Unreachable)) as caught:
            Store(account, tries=1, timeout=2).put("k", bytes(8 * MIB))
    # A reset may take the answer away with it; where it arrived, it is what is told.
    assert isinstance(caught.value, CredentialsRefused) or "closed the connection" in str(caught.value)


# Garbage, bombs, and errors under 200.


@pytest.mark.parametrize("body", [
    b"", b"<html><title>Sign in</title>", b"<Other/>", b"\xff\xfe", b"<ListBucketResult>",
    b'<!DOCTYPE x [<!ENTITY a "b">]><ListBucketResult>&a;</ListBucketResult>',
])  # fmt: skip
def test_a_listing_that_is_none_is_something_elses_answer(serve, body):
    store, _ = serve(reply("200 OK", body))
    with pytest.raises(Unreachable, match="not as an S3 server does"):
        list(store.find_objects())


def test_an_error_in_xml_with_entities_is_no_bomb(serve):
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;">]><Error><Code>&b;</Code></Error>'
    with pytest.raises(CredentialsRefused) as caught:
        serve(reply("403 X", bomb))[0].get("k")
    assert len(str(caught.value)) < 400


def test_an_object_that_looks_like_an_error_is_an_object(serve):
    body = b"<Error><Code>SlowDown</Code></Error>"
    assert serve(reply("200 OK", body))[0].get("k") == body


def multipart_answers(*completions):
    """What a server says to an upload of one part."""
    begun = reply("200 OK", "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>")
    return [begun, reply("200 OK", ETag='"0cc175b9c0f1b6a831c399e269772661"'), *completions]


DONE = reply("200 OK", "<CompleteMultipartUploadResult/>")


def test_a_completion_that_fails_under_200_is_tried_again(serve):
    late = reply("200 OK", "  \n<?xml version='1.0'?><Error><Code>InternalError</Code></Error>")
    store, server = serve(*multipart_answers(late, DONE))
    assert upload(store, "k", io.BytesIO(b"a" * 10), part=10).outcome == STORED
    assert len(server.requests) == 4


def test_a_completion_that_fails_for_good_is_aborted(serve):
    store, server = serve(
        *multipart_answers(reply("200 OK", "<Error><Code>InvalidPart</Code></Error>"), reply("204 X"))
    )
    with pytest.raises(Failure, match="InvalidPart"):
        upload(store, "k", io.BytesIO(b"a" * 10), part=10)
    assert server.requests[-1].startswith(b"DELETE /bucket/k?uploadId=u1 ")


def test_a_part_that_fails_is_told_and_aborted(serve):
    answers = multipart_answers()[:1]
    store, server = serve(*answers, *[error("500 X", "InternalError")] * 3, reply("204 X"))
    with pytest.raises(Unreachable, match="InternalError"):
        upload(store, "k", io.BytesIO(b"a" * 30), part=10)
    assert server.requests[-1].startswith(b"DELETE /bucket/k?uploadId=u1 ")


def test_the_requests_of_a_server_without_conditions(serve):
    no = error("501 X", "NotImplemented")
    assert serve(no, reply("404 X"), reply("200 OK"))[0].put("k", b"x", only_new=True) == STORED
    digest = hashlib.sha256(b"x").hexdigest()
    there = reply("200 OK", b"", x_amz_meta_sha256=digest)
    assert serve(no, there)[0].put("k", b"x", only_new=True) == TAKEN  # its length is another

    def same(connection, request):
        head = f"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nx-amz-meta-sha256: {digest}\r\n\r\n"
        connection.sendall(head.encode())

    assert serve(no, same)[0].put("k", b"x", only_new=True) == SAME
    store, server = serve(*multipart_answers(no, reply("404 X"), DONE))
    assert upload(store, "k", io.BytesIO(b"a" * 10), only_new=True, part=10).outcome == STORED
    assert b"if-none-match" not in server.requests[-1].lower()


# Redirects, clocks, secrets.


def test_a_redirect_is_signed_anew(serve):
    store, server = serve(reply("307 X", Location="/elsewhere/k"), reply("200 OK", b"x"))
    assert store.get("k") == b"x"
    signatures = [re.search(rb"Signature=(\w+)", request)[1] for request in server.requests]  # type: ignore[index]
    assert signatures[0] != signatures[1]
    assert server.requests[1].startswith(b"GET /elsewhere/k ")


@pytest.mark.parametrize("location", [
    "http://evil.example/bucket/k", "http://127.0.0.1:1/bucket/k", "ftp://127.0.0.1/", "http://[", "http://u:p@127.0.0.1/",
])  # fmt: skip
def test_a_redirect_to_another_server_is_not_followed(serve, location):
    store, server = serve(reply("307 X", Location=location))
    with pytest.raises(UsageFailure, match="which is another server"):
        store.get("k")
    assert len(server.requests) == 1


def test_a_circle_of_redirects_ends(serve):
    store, _ = serve(reply("307 X", Location="/again"), tries=1)
    with pytest.raises(Unreachable, match="again and again"):
        store.get("k")


def test_amazons_own_redirects_are_followed_and_never_away_from_tls():
    source = Place("https", "b.s3.amazonaws.com", "/k")
    assert redirected(source, "https://b.s3.eu-west-1.amazonaws.com/k").host == "b.s3.eu-west-1.amazonaws.com"
    for location in ("http://b.s3.amazonaws.com/k", "https://b.s3.amazonaws.com.evil.example/k"):
        with pytest.raises(UsageFailure, match="another server"):
            redirected(source, location)


@pytest.mark.parametrize(("offset", "words"), [(3660, "1 h 1 min behind"), (-1200, "0 h 20 min ahead of")])
def test_a_wrong_clock_is_seen_by_the_servers_date(serve, offset, words):
    store, _ = serve(error("403 X", "AccessDenied", Date=formatdate(time.time() + offset, usegmt=True)))
    with pytest.raises(CredentialsRefused) as caught:
        store.get("k")
    assert f"this host's clock is {words} the server's" in caught.value.hint


def test_the_right_region_is_told(serve):
    store, _ = serve(reply("301 X", x_amz_bucket_region="eu-west-3"))
    with pytest.raises(UsageFailure) as caught:
        store.head("k")
    assert "STORAGE_REGION to eu-west-3" in caught.value.hint


def test_neither_keys_nor_signature_are_told(serve):
    def echo(connection, request):
        sent = re.search(rb"authorization: (.*)\r", request, re.IGNORECASE)[1].decode()  # type: ignore[index]
        error("403 X", "AccessDenied", f"{sent} {' '.join(KEYS)}")(connection, request)

    with pytest.raises(CredentialsRefused) as caught:
        serve(echo)[0].get("k")
    said = told(caught.value)
    assert "AWS4-HMAC-SHA256" in said
    assert not any(key in said for key in KEYS)
    assert not re.search("[0-9a-f]{64}", said)


# The way to a real server.


@pytest.fixture
def way(s3_server):
    """(Store, Proxy): a real server behind a proxy that the test disturbs."""
    if not hasattr(s3_server, "port"):
        pytest.skip("a given S3 server: the proxy stands before the bed's own only")
    keys = Keys(s3_server.access_key, s3_server.secret_key, None)
    direct = Store(make_account(s3_server.endpoint, s3_server.bucket, keys))
    direct.client.ask(Asked("PUT"), accepts=(409,))
    proxy = Proxy(s3_server.port)
    account = make_account(f"http://127.0.0.1:{proxy.port}", s3_server.bucket, keys)
    yield Store(account, timeout=1, tries=4, first_pause=0.3), proxy
    proxy.close()
    direct.delete_all([entry.key for entry in direct.find_objects("faults/")])


def mend_soon(proxy):
    import threading

    threading.Timer(0.15, proxy.mend).start()


@pytest.mark.parametrize("action", [CLOSE, RESET, STALL])
def test_a_part_whose_way_is_cut_is_sent_again(way, action):
    store, proxy = way
    data = hashlib.sha256(b"x").digest() * (PART * 2 // 32)
    proxy.cut(2 * MIB, TO_SERVER, action)
    mend_soon(proxy)
    assert upload(store, "faults/a", io.BytesIO(data), part=PART).outcome == STORED
    fetched = io.BytesIO()
    fetch(store, "faults/a", fetched.write)
    assert fetched.getvalue() == data
    assert not list(find_uploads(store, "faults/"))


@pytest.mark.parametrize("action", [CLOSE, RESET, STALL])
def test_a_fetch_whose_way_is_cut_goes_on(way, tmp_path, action):
    store, proxy = way
    data = hashlib.sha256(b"y").digest() * (4 * MIB // 32)
    store.put("faults/b", data)
    proxy.cut(MIB // 2, TO_CLIENT, action)
    mend_soon(proxy)
    fetch_file(store, "faults/b", str(tmp_path / "f"), piece=MIB)
    assert (tmp_path / "f").read_bytes() == data


@pytest.mark.parametrize("action", [CLOSE, STALL])
def test_a_conditional_write_whose_answer_is_lost_is_ours(way, action):
    store, proxy = way
    proxy.cut(10, TO_CLIENT, action)
    mend_soon(proxy)
    assert store.put("faults/" + action, b"wal", only_new=True) in (STORED, SAME)
    assert store.get("faults/" + action) == b"wal"


def test_a_dead_fetch_leaves_what_the_next_goes_on_from(way, tmp_path, monkeypatch):
    store, proxy = way
    data = hashlib.sha256(b"z").digest() * (4 * MIB // 32)
    store.put("faults/c", data)
    cut = Store(store.account, timeout=0.3, tries=1)
    asked, pieces = cut.client.ask, []

    def dies(one, **more):
        pieces.append(one)
        if len(pieces) == 4:  # HEAD, two pieces, and the one that dies
            proxy.cut(MIB // 2, TO_CLIENT)
        return asked(one, **more)

    monkeypatch.setattr(cut.client, "ask", dies)
    with pytest.raises(Unreachable):
        fetch_file(cut, "faults/c", str(tmp_path / "f"), parallel=1, piece=MIB)
    assert not (tmp_path / "f").exists()
    proxy.mend()
    assert fetch_file(store, "faults/c", str(tmp_path / "f"), piece=MIB).resumed_at == 2 * MIB
    assert (tmp_path / "f").read_bytes() == data


def test_a_store_that_hangs_is_left_and_found_again(way, s3_server, monkeypatch):
    store, _ = way
    monkeypatch.setattr(multipart, "LEAVING", 1)
    s3_server.pause()
    try:
        with pytest.raises(Unreachable, match="nothing moved for 0.5 seconds"):
            Store(store.account, timeout=0.5, tries=2, first_pause=0.01).put("faults/d", b"x")
    finally:
        s3_server.go_on()
    assert store.put("faults/d", b"x") == STORED
