"""The HTTP helper against small servers that answer well, wrongly, slowly or not at all."""

from __future__ import annotations

import ssl
import subprocess
import sys
import time

import pytest
from bed.little_server import LittleServer, reply

from nself_core import http
from nself_core.failures import CredentialsRefused, Unreachable, UsageFailure

SECRET = "s3cret/ü+value"
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    """No proxy and no certificates of the machine that runs the tests."""
    for name in (*PROXY_VARIABLES, *map(str.upper, PROXY_VARIABLES), *http.CA_VARIABLES, "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def serve():
    """serve(answer, context=None) -> a LittleServer, closed after the test."""
    servers = []

    def start(answer, context=None):
        servers.append(LittleServer(answer, context))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """The files of a certificate for 127.0.0.1 that signs itself, and of its key."""
    folder = tmp_path_factory.mktemp("tls")
    files = str(folder / "certificate.pem"), str(folder / "key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-out", files[0], "-keyout", files[1]],
        check=True, capture_output=True,
    )
    return files


@pytest.fixture
def tls(certificate):
    """A server's TLS context with that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


def head_of(server, number=-1):
    """The head of a request the server got, in lower case."""
    return server.requests[number].partition(b"\r\n\r\n")[0].decode("utf-8").lower()


def everything_said(failure):
    """All texts of a failure and of what it came from."""
    causes = [failure, failure.__cause__, failure.__context__ if not failure.__suppress_context__ else None]
    return " ".join(f"{cause} {cause!r} {getattr(cause, 'hint', '')}" for cause in causes if cause)


# Answers.


def test_an_answer_has_status_headers_and_body(serve):
    response = http.request("GET", serve(reply("202 Accepted", b"\x00\xff", X_Thing="one")).url("/a"))
    assert (response.status, response.headers["x-thing"], response.body) == (202, "one", b"\x00\xff")


@pytest.mark.parametrize("status", [204, 304, 400, 401, 404, 409, 500, 503])
def test_a_status_is_returned_and_not_raised(serve, status):
    assert http.request("GET", serve(reply(f"{status} X")).url()).status == status


def test_a_body_is_sent_with_its_method(serve):
    server = serve(reply())
    http.request("PUT", server.url("/x"), {"Content-Type": "text/plain"}, b"\x00body")
    assert server.requests[0].startswith(b"PUT /x HTTP/1.1\r\n")
    assert server.requests[0].endswith(b"\r\n\r\n\x00body")


def test_json_goes_out_and_comes_back(serve):
    server = serve(reply("400 Bad", '{"a": [1]}'))
    answer = http.json_request("POST", server.url(), {"é": 1})
    assert (answer.status, answer.document) == (400, {"a": [1]})
    assert server.requests[0].endswith(b'{"\\u00e9": 1}')
    assert "content-type: application/json" in head_of(server)


def test_an_empty_answer_is_no_document(serve):
    assert http.json_request("POST", serve(reply("204 No Content")).url(), {}).document is None


def test_a_chunked_answer_is_read_whole(serve):
    def answer(connection, request):
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")

    assert http.request("GET", serve(answer).url()).body == b"abcde"


def test_a_secret_with_letters_of_any_script_is_sent_in_utf_8(serve):
    server = serve(reply())
    http.request("GET", server.url(), {"X-Secret": SECRET})
    assert f"x-secret: {SECRET}" in head_of(server)


def test_an_answer_without_end_is_given_up(serve, monkeypatch):
    monkeypatch.setattr(http, "MAX_BODY", 1024 * 1024)
    server = serve(reply("200 OK", b"x" * (2 * 1024 * 1024)))
    with pytest.raises(Unreachable, match="larger than 1 MB"):
        http.request("GET", server.url())


# Servers that do not answer.


def test_nothing_listening_is_unreachable(serve):
    server = serve(reply())
    server.close()
    with pytest.raises(Unreachable, match=r"http://127.0.0.1:\d+/x: nothing listens there") as caught:
        http.request("GET", server.url("/x?token=1"))
    assert caught.value.exit_code == 2
    assert caught.value.hint


def drip(head, body):
    """An answer of one byte each 20 milliseconds after `head`, without end."""
    def answer(connection, request):
        connection.sendall(head)
        while True:
            connection.sendall(body)
            time.sleep(0.02)

    return answer


@pytest.mark.parametrize("answer", [
    lambda connection, request: time.sleep(3),
    drip(b"", b"x"),
    drip(b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
    drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"x"),
    drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    drip(b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
], ids=["hangs", "drips a status", "drips a header", "drips a body", "drips chunks", "drips without a length"])
def test_a_server_that_is_too_slow_is_left(serve, answer):
    start = time.monotonic()
    with pytest.raises(Unreachable, match="no whole answer within 0.4 seconds"):
        http.request("GET", serve(answer).url(), timeout=0.4)
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("sent", [
    b"",
    b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
])
def test_a_connection_that_drops_is_unreachable(serve, sent):
    server = serve(lambda connection, request: connection.sendall(sent))
    with pytest.raises(Unreachable, match="closed the connection|does not speak HTTP"):
        http.request("GET", server.url())


@pytest.mark.parametrize("sent", [b"SSH-2.0-OpenSSH_9.2\r\n", b"\x00\x15\x03\x01\r\n\r\n", b"HTTP/1.1 abc OK\r\n\r\n"])
def test_garbage_is_not_http(serve, sent):
    server = serve(lambda connection, request: connection.sendall(sent))
    with pytest.raises(Unreachable, match="does not speak HTTP"):
        http.request("GET", server.url())


def test_a_name_that_cannot_be_a_host_is_unreachable():
    with pytest.raises(Unreachable, match="the name of the host"):
        http.request("GET", f"http://{'a' * 70}.test/")


@pytest.mark.parametrize("url", [
    "", "localhost:8080", "ftp://host/", "file:///etc/passwd", "http://", "http://host:port/", "http://host:99999/",
    "http://[::1/", "http://a b/", "http://host/\r\nX: y", "http://höst/",
])
def test_an_address_that_cannot_be_asked_is_wrong_usage(url):
    with pytest.raises(UsageFailure, match="is not an http or https address"):
        http.request("GET", url)


def test_a_password_in_the_address_is_refused_and_not_shown():
    with pytest.raises(UsageFailure, match="holds a user or password") as caught:
        http.request("GET", "http://me:hunter2@host/")
    assert "hunter2" not in everything_said(caught.value)


# Bodies that are not JSON.


@pytest.mark.parametrize(("status", "body", "said"), [
    ("502 Bad Gateway", "<html>\n<head><title>\n502 Bad\n</title></head>", "answered 502 and not in JSON: 502 Bad"),
    ("200 OK", "\n\n  Welcome to nginx \nmore", "answered 200 and not in JSON: Welcome to nginx"),
    ("404 Not Found", "<TITLE lang='en'>R&amp;D</TITLE>", "answered 404 and not in JSON: R&D"),
    ("503 X", "", "answered 503 and not in JSON: an empty body"),
    ("200 OK", b"\x1b[31m\xff", "answered 200 and not in JSON: \ufffd"),
    ("200 OK", "[" * 100_000, "answered 200 and not in JSON"),
])
def test_a_body_that_is_not_json_is_told_by_status_and_first_line(serve, status, body, said):
    with pytest.raises(Unreachable) as caught:
        http.json_request("POST", serve(reply(status, body)).url(), {})
    assert said in caught.value.message
    assert "\n" not in caught.value.message
    assert "\x1b" not in caught.value.message


@pytest.mark.parametrize(("status", "body", "said"), [
    ("401 Unauthorized", '{"error": "invalid secret", "code": "access-denied"}', "invalid secret (401)"),
    ("403 Forbidden", "<title>Who are you?</title>", "Who are you? (403)"),
    ("401 Unauthorized", "", "no reason given (401)"),
    ("401 Unauthorized", "[1]", "[1] (401)"),
])
def test_refused_credentials(serve, status, body, said):
    with pytest.raises(CredentialsRefused) as caught:
        http.json_request("POST", serve(reply(status, body)).url(), {})
    assert said in caught.value.message
    assert caught.value.exit_code == 3


# Secrets.


@pytest.mark.parametrize("status", ["401 X", "502 X", "200 X"])
@pytest.mark.parametrize("echo", [SECRET, "s3cret%2F%C3%BC%2Bvalue", f'{{"error": "bad {SECRET}"}}x'])
def test_a_secret_that_the_server_echoes_is_not_told(serve, status, echo):
    with pytest.raises((CredentialsRefused, Unreachable)) as caught:
        http.json_request("POST", serve(reply(status, echo)).url(), {}, {"X-Secret": SECRET}, secrets=[SECRET, ""])
    said = everything_said(caught.value)
    assert "***" in said
    assert "s3cret" not in said


@pytest.mark.parametrize("value", ["abc\nX-Other: 1", "abc\r", "abc\0"])
def test_a_secret_with_a_line_break_is_refused_and_not_shown(value):
    with pytest.raises(UsageFailure, match="the value of header X-Secret") as caught:
        http.request("GET", "http://127.0.0.1:9/", {"X-Secret": value}, secrets=[value])
    assert "abc" not in everything_said(caught.value)


# Redirects.


def in_turn(answers):
    """An answer that is each of the list `answers` once, as it then stands."""
    def answer(connection, request):
        answers.pop(0)(connection, request)

    return answer


def test_a_redirect_on_the_same_server_keeps_the_headers(serve):
    server = serve(in_turn([reply("302 Found", Location="/there"), reply("200 OK", b"here")]))
    response = http.request("GET", server.url("/here"), {"X-Secret": SECRET}, secrets=[SECRET])
    assert (response.body, response.url) == (b"here", server.url("/there"))
    assert f"x-secret: {SECRET}" in head_of(server)


@pytest.mark.parametrize("status", ["301 X", "302 X", "303 X", "307 X", "308 X"])
def test_a_redirect_to_another_host_does_not_carry_secrets(serve, status):
    other = serve(reply("200 OK", b"other"))
    server = serve(reply(status, Location=other.url("/x", host="localhost")))
    headers = {"X-Secret": f"key={SECRET}", "X-Hasura-Admin-Secret": "a", "Authorization": "Basic b", "X-Open": "c"}
    assert http.request("GET", server.url(), headers, secrets=[SECRET]).body == b"other"
    head = head_of(other)
    assert "x-open: c" in head
    assert not any(name in head for name in ("x-secret", "x-hasura-admin-secret", "authorization"))


def test_another_port_is_another_host(serve):
    other = serve(reply())
    http.request("GET", serve(reply("302 X", Location=other.url())).url(), {"Authorization": "Basic b"})
    assert "authorization" not in head_of(other)


def test_secrets_do_not_come_back_with_a_redirect_back(serve):
    answers: list = []
    home = serve(in_turn(answers))
    away = serve(reply("302 X", Location=home.url()))
    answers += [reply("302 X", Location=away.url()), reply("200 OK", b"end")]
    assert http.request("GET", home.url(), {"Authorization": "Basic b"}).body == b"end"
    assert "authorization" not in head_of(home)


def test_a_circle_of_redirects_ends(serve):
    server = serve(reply("302 X", Location="/again"))
    with pytest.raises(Unreachable, match="redirects again and again"):
        http.request("GET", server.url())
    assert len(server.requests) == http.MAX_REDIRECTS + 1


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://host/"])
def test_a_redirect_to_something_else_than_http_is_not_followed(serve, target):
    with pytest.raises(UsageFailure, match="is not an http or https address"):
        http.request("GET", serve(reply("302 X", Location=target)).url())


def test_a_post_is_not_redirected_but_told_where(serve):
    server = serve(reply("301 Moved", Location="https://me:pw@new.example/v1/metadata?a=b"))
    with pytest.raises(Unreachable, match=r"redirects to https://new.example/v1/metadata$"):
        http.json_request("POST", server.url(), {})
    assert len(server.requests) == 1


# Proxies.


def test_a_proxy_is_asked_for_other_hosts(serve, monkeypatch):
    proxy = serve(reply("200 OK", b"by proxy"))
    monkeypatch.setenv("http_proxy", proxy.url())
    assert http.request("GET", "http://hasura.example/x").body == b"by proxy"
    assert head_of(proxy).startswith("get http://hasura.example/x http/1.1")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_no_proxy_is_asked_for_this_host(serve, monkeypatch, host):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert http.request("GET", serve(reply("200 OK", b"direct")).url(host=host)).body == b"direct"


def test_no_proxy_is_heeded(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "example,invalid")
    with pytest.raises(Unreachable) as caught:
        http.request("GET", f"http://{'a' * 70}.invalid/")
    assert "through the proxy" not in caught.value.message


def test_a_proxy_that_refuses_is_named_without_its_password(serve, monkeypatch):
    proxy = serve(reply("407 Proxy Authentication Required"))
    monkeypatch.setenv("https_proxy", f"http://me:hunter2@127.0.0.1:{proxy.port}")
    with pytest.raises(Unreachable, match=f"through the proxy http://127.0.0.1:{proxy.port}.*407") as caught:
        http.request("POST", "https://hasura.example/v1/metadata", {"X-Secret": SECRET}, b"{}")
    assert "hunter2" not in everything_said(caught.value)
    assert "x-secret" not in head_of(proxy)


def test_a_proxy_that_drips_is_left(serve, monkeypatch):
    monkeypatch.setenv("https_proxy", serve(drip(b"HTTP/1.1 200 OK\r\nX: ", b"x")).url())
    with pytest.raises(Unreachable, match="no whole answer within 0.4 seconds"):
        http.request("GET", "https://hasura.example/", timeout=0.4)


def test_a_socks_proxy_is_said_to_be_none(monkeypatch):
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:1080")
    with pytest.raises(UsageFailure, match="not an HTTP proxy"):
        http.request("GET", "http://hasura.example/")


# TLS.


def test_a_certificate_that_nobody_signed_is_explained(serve, tls):
    with pytest.raises(Unreachable, match="its certificate is not trusted: self") as caught:
        http.request("GET", serve(reply(), tls).url())
    assert "SSL_CERT_FILE" in caught.value.hint


@pytest.mark.parametrize("variable", http.CA_VARIABLES)
def test_a_certificate_of_an_own_authority_is_trusted(serve, tls, certificate, monkeypatch, variable):
    monkeypatch.setenv(variable, certificate[0])
    assert http.request("GET", serve(reply("200 OK", b"safe"), tls).url()).body == b"safe"


def test_a_certificate_for_another_name_is_explained(serve, tls, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", certificate[0])
    with pytest.raises(Unreachable, match="not trusted.*localhost"):
        http.request("GET", serve(reply(), tls).url(host="localhost"))


def test_a_slow_answer_over_tls_is_left(serve, tls, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", certificate[0])
    with pytest.raises(Unreachable, match="no whole answer within 0.5 seconds"):
        http.request("GET", serve(drip(b"HTTP/1.1 200 OK\r\n\r\n", b"x"), tls).url(), timeout=0.5)


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_bundle_that_is_none_is_named(tmp_path, monkeypatch, content):
    bundle = tmp_path / "bundle.pem"
    if content:
        bundle.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    with pytest.raises(UsageFailure, match=f"SSL_CERT_FILE names {bundle}"):
        http.request("GET", "https://127.0.0.1:9/")


def test_https_to_a_server_without_tls_is_explained(serve):
    server = serve(reply())
    with pytest.raises(Unreachable, match="it does not speak TLS"):
        http.request("GET", server.url().replace("http:", "https:"), timeout=5)


def test_http_to_a_server_with_tls_is_unreachable(serve, tls):
    with pytest.raises(Unreachable, match="does not speak HTTP|closed the connection"):
        http.request("GET", serve(reply(), tls).url().replace("https:", "http:"), timeout=5)


# A connection for more than one exchange of bodies.


def asked_by(connection):
    """The status and the body of an answer over a connection."""
    connection.request("GET", "/x")
    answer = connection.getresponse()
    try:
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("secure", [True, False])
def test_a_connection_reaches_its_server(serve, tls, certificate, monkeypatch, secure):
    monkeypatch.setenv("SSL_CERT_FILE", certificate[0])
    server = serve(reply(body=b"here"), tls if secure else None)
    assert asked_by(http.connection(server.url("/below"), 5)) == (200, b"here")


def test_a_connection_does_not_trust_everybody(serve, tls):
    with pytest.raises(ssl.SSLCertVerificationError):
        asked_by(http.connection(serve(reply(), tls).url(), 5))


def test_a_connection_goes_through_a_proxy_with_its_login(serve, monkeypatch):
    def answer(connection, request):
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        assert connection.recv(65536).startswith(b"GET /x HTTP/1.1\r\nHost: hasura.example\r\n")
        reply(body=b"there")(connection, request)

    proxy = serve(answer)
    monkeypatch.setenv("http_proxy", proxy.url().replace("http://", "http://me:hunter%202@"))
    assert asked_by(http.connection("http://hasura.example", 5)) == (200, b"there")
    assert head_of(proxy).startswith("connect hasura.example:80 http/1.")
    assert "proxy-authorization: basic bwu6ahvudgvyidi=" in head_of(proxy)


@pytest.mark.parametrize("url", ["ftp://x/", "http://u:p@x/", "http://x:99999/", "http://"])
def test_a_connection_to_what_is_no_address_is_usage(url):
    with pytest.raises(UsageFailure):
        http.connection(url, 5)


# Start-up.


def test_importing_it_loads_nothing_heavy():
    code = "import sys, nself_core.http; print(sorted({'urllib.request', 'ssl', 'json', 'email'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
