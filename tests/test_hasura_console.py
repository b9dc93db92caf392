"""`hasura console`: what the proxy lets through, what it keeps, how it ends."""

from __future__ import annotations

import errno
import http.client
import json
import os
import re
import signal
import socket
import time
from pathlib import Path

import pytest
import websocket
from bed.hasura_engine import Engine
from bed.little_server import LittleServer, reply

from nself_core.hasura import console_gate, reach
from nself_core.hasura.console import Job, Proxy, open_browser

SECRET = "admin-s3cret"
EXPORT = b'{"type": "export_metadata", "args": {}}'


@pytest.fixture(scope="module")
def engine(plain_server):
    """A double over a database of this module's own."""
    plain_server.drop_database("console")
    plain_server.create_database("console")
    with Engine(plain_server.cluster.url("console"), SECRET) as running:
        yield running
    plain_server.drop_database("console")


@pytest.fixture
def serve(engine):
    """serve(endpoint=…, **job) -> a running Proxy of the engine."""
    proxies = []

    def start(endpoint=None, read_only=False, secret=SECRET, idle=None):
        address = endpoint or engine.endpoint
        job = Job(reach.Engine(address, secret, None, address), 0, False, read_only, False, idle, "")
        proxies.append(Proxy(job))
        proxies[-1].start()
        return proxies[-1]

    yield start
    for proxy in proxies:
        proxy.close()


@pytest.fixture
def visit(serve):
    """A Visitor of a new proxy who has opened the link."""
    return Visitor(serve()).enter()


class Visitor:
    """A browser of few words: it sends what it is told to."""

    def __init__(self, proxy):
        self.proxy = proxy
        self.own = {"Host": f"127.0.0.1:{proxy.port}"}

    def enter(self):
        """Open the link and keep the cookie."""
        answer = self.ask("GET", "/" + self.proxy.link.rpartition("/")[2])
        assert answer.status == 200, answer.body
        self.own["Cookie"] = answer.headers["Set-Cookie"].partition(";")[0]
        return self

    def ask(self, method, path, body=None, **headers):
        """The answer, an http.client.HTTPResponse with its `body` read."""
        answer = self.begin(method, path, body, **headers)
        answer.body = answer.read()
        return answer

    def begin(self, method, path, body=None, **headers):
        """The answer, its body not read."""
        sent = {**self.own, **{name.replace("_", "-"): value for name, value in headers.items()}}
        connection = http.client.HTTPConnection("127.0.0.1", self.proxy.port, timeout=20)
        connection.request(method, path, body, {name: value for name, value in sent.items() if value is not None})
        return connection.getresponse()

    def socket(self, path="/v1/graphql", **options):
        """A websocket through the proxy."""
        headers = [f"{name}: {value}" for name, value in self.own.items() if name != "Host"]
        return websocket.create_connection(
            f"ws://127.0.0.1:{self.proxy.port}{path}", header=headers, timeout=20, **options
        )


# The link and the cookie.


def test_the_link_lets_one_browser_in_once(serve):
    proxy = serve()
    path = "/" + proxy.link.rpartition("/")[2]
    first, second = Visitor(proxy).ask("GET", path), Visitor(proxy).ask("GET", path)
    assert (first.status, second.status) == (200, 403)
    assert first.headers["Set-Cookie"].startswith(f"nself_console_{proxy.port}=")
    assert first.headers["Set-Cookie"].endswith("; HttpOnly; SameSite=Strict; Path=/")
    assert b"url=/console" in first.body and first.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in second.headers and b"does not work any more" in second.body


def test_the_link_of_a_browser_that_is_in_does_not_work_again_either(visit):
    assert visit.ask("GET", "/" + visit.proxy.link.rpartition("/")[2]).status == 403
    assert visit.ask("GET", "/console").status == 200


@pytest.mark.parametrize("path", ["/?entry=", "/?entry=" + "0" * 48, "/?entry=ü", "/?x=1"])
def test_another_token_lets_nobody_in(serve, path):
    proxy = serve()
    assert Visitor(proxy).ask("GET", path.replace("ü", "%C3%BC")).status == 403
    assert Visitor(proxy).enter().ask("GET", "/console").status == 200  # and the link still works


def test_a_link_is_not_spent_by_another_method_or_page(serve):
    proxy = serve()
    path = "/" + proxy.link.rpartition("/")[2]
    assert Visitor(proxy).ask("POST", path, b"").status == 403
    assert Visitor(proxy).ask("GET", path, Origin="http://evil.example").status == 403
    assert Visitor(proxy).ask("GET", path, Host="evil.example").status == 403
    assert Visitor(proxy).ask("GET", path, Sec_Fetch_Site="cross-site").status == 200  # from the page that leads here


@pytest.mark.parametrize(("method", "path"), [
    ("GET", "/"), ("GET", "/console"), ("POST", "/v1/metadata"), ("POST", "/v2/query"), ("GET", "/healthz"),
    ("OPTIONS", "/v1/metadata"), ("PUT", "/x"), ("GET", "/v1/graphql"),
])  # fmt: skip
def test_nothing_passes_without_the_cookie(serve, engine, method, path):
    before = len(engine.seen)
    for headers in ({}, {"Cookie": "nself_console_1=x"}, {"X_Hasura_Admin_Secret": SECRET}):
        assert Visitor(serve()).ask(method, path, b"{}" if method == "POST" else None, **headers).status == 403
    assert len(engine.seen) == before


def test_a_cookie_of_another_console_does_not_count(serve):
    one, other = Visitor(serve()).enter(), Visitor(serve()).enter()
    assert one.own["Cookie"].partition("=")[0] != other.own["Cookie"].partition("=")[0]
    assert one.ask("GET", "/console", Cookie=other.own["Cookie"]).status == 403
    assert one.ask("GET", "/console", Cookie=f"{other.own['Cookie']}; {one.own['Cookie']}").status == 200


# Host, Origin, Sec-Fetch-Site.


@pytest.mark.parametrize("host", [
    "evil.example", "evil.example:{port}", "127.0.0.1", "localhost:1", "0.0.0.0:{port}", "",
])  # fmt: skip
def test_another_host_is_403(visit, host):
    assert visit.ask("GET", "/console", Host=host.format(port=visit.proxy.port)).status == 403


@pytest.mark.parametrize("host", ["localhost:{port}", "[::1]:{port}", "LOCALHOST:{port}"])
def test_this_computers_other_names_pass(visit, host):
    assert visit.ask("GET", "/console", Host=host.format(port=visit.proxy.port)).status == 200


@pytest.mark.parametrize("origin", [
    "http://evil.example", "null", "http://127.0.0.1:1", "https://127.0.0.1:{port}", "http://localhost:{port}", "",
])  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_another_origin_is_403(visit, engine, origin, method):
    before = len(engine.seen)
    answer = visit.ask(method, "/v1/metadata", EXPORT, Origin=origin.format(port=visit.proxy.port))
    assert answer.status == 403
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert len(engine.seen) == before


@pytest.mark.parametrize(("site", "status"), [
    ("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200),
])  # fmt: skip
def test_another_site_is_403(visit, site, status):
    assert visit.ask("POST", "/v1/metadata", EXPORT, Sec_Fetch_Site=site).status == status


def test_the_own_origin_passes(visit):
    answer = visit.ask("POST", "/v1/metadata", EXPORT, Origin=f"http://127.0.0.1:{visit.proxy.port}")
    assert answer.status == 200
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


def raw(proxy, head):
    """The status line of the answer to a head as it stands."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as connection:
        connection.sendall(head.encode())
        return connection.makefile("rb").readline().decode()


def test_two_hosts_are_none(visit):
    own, cookie = visit.own["Host"], visit.own["Cookie"]
    head = f"GET /console HTTP/1.1\r\nHost: {own}\r\nHost: {own}\r\nCookie: {cookie}\r\n\r\n"
    assert " 403 " in raw(visit.proxy, head)


@pytest.mark.parametrize("head", [
    "\r\n\r\n", "x" * 100_000, "GET / HTTP/1.1\r\n" + "X: y\r\n" * 500 + "\r\n", "GET / HTTP/9.9\r\n\r\n",
    "GET /\x00 HTTP/1.1\r\nHost: a b\r\n\r\n", "\x16\x03\x01\x02", "BREW / HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /\r\n\r\n",
])  # fmt: skip
def test_garbage_harms_nobody(visit, engine, head):
    before = len(engine.seen)
    with socket.create_connection(("127.0.0.1", visit.proxy.port), timeout=10) as connection:
        try:
            connection.sendall(head.encode("latin-1"))
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
        except OSError as error:  # it was not read to its end
            assert error.errno in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN), error
    assert len(engine.seen) == before
    assert visit.ask("GET", "/console").status == 200


@pytest.mark.parametrize("target", ["http://evil.example/", "evil.example:443", "*"])
def test_only_paths_are_asked_for(visit, target):
    own, cookie = visit.own["Host"], visit.own["Cookie"]
    head = f"GET {target} HTTP/1.1\r\nHost: {own}\r\nCookie: {cookie}\r\n\r\n"
    assert " 400 " in raw(visit.proxy, head)


def test_a_body_without_a_length_is_refused(visit):
    own, cookie = visit.own["Host"], visit.own["Cookie"]
    head = f"POST /v1/metadata HTTP/1.1\r\nHost: {own}\r\nCookie: {cookie}\r\nTransfer-Encoding: chunked\r\n"
    assert " 411 " in raw(visit.proxy, head + "\r\n0\r\n\r\n")


# What goes to the engine, and what comes back.


def test_the_secret_is_the_proxys_alone(visit, engine):
    answer = visit.ask(
        "POST", "/v1/metadata", EXPORT, X_Hasura_Admin_Secret="null", X_Hasura_Access_Key="undefined",
        Authorization="Bearer x", X_Hasura_Role="admin", Origin=f"http://127.0.0.1:{visit.proxy.port}",
        X_Forwarded_For="1.2.3.4", Connection="close, X-Mine", X_Mine="x",
    )  # fmt: skip
    assert answer.status == 200
    method, path, headers = engine.seen[-1]
    assert (method, path) == ("POST", "/v1/metadata")
    assert headers.getall("X-Hasura-Admin-Secret") == [SECRET]
    assert headers["X-Hasura-Role"] == "admin" and headers["Host"] == f"127.0.0.1:{engine.port}"
    gone = ("X-Hasura-Access-Key", "Authorization", "Cookie", "Origin", "X-Forwarded-For", "X-Mine")
    assert not [name for name in gone if name in headers]


def test_the_page_is_told_that_no_secret_is_wanted(visit):
    answer = visit.ask("GET", "/console", Accept_Encoding="gzip")
    assert b"isAdminSecretSet: false" in answer.body and b"isAdminSecretSet: true" not in answer.body
    assert int(answer.headers["Content-Length"]) == len(answer.body)
    assert visit.ask("GET", "/console/data/default").body.count(b"isAdminSecretSet: false") == 1


def test_the_secret_is_in_no_answer(visit):
    read = ("/", "/console", "/console/settings", "/healthz", "/v1alpha1/config", "/v1/version", "/nothing")
    sent = [("/v1/metadata", EXPORT), ("/v1/metadata", b"{"), ("/v1/graphql", b'{"query": "{ a }"}')]
    asked = [("GET", path, None) for path in read] + [("POST", path, body) for path, body in sent]
    for method, path, body in [*asked, ("PUT", "/v1/metadata", b"{}")]:
        answer = visit.ask(method, path, body)
        assert SECRET.encode() not in answer.body and SECRET not in str(answer.headers)


def test_every_answer_forbids_frames(visit):
    for path in ("/console", "/v1/version", "/nothing"):
        answer = visit.ask("GET", path)
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Content-Security-Policy"] == "frame-ancestors 'none'"


def test_what_would_outlive_the_console_is_not_passed_on():
    from_engine = [
        ("Set-Cookie", "a=b"), ("Strict-Transport-Security", "max-age=1"), ("Access-Control-Allow-Origin", "*"),
        ("access-control-max-age", "1"), ("Alt-Svc", "h3"), ("Content-Type", "text/plain"), ("Connection", "X-A"),
        ("X-A", "1"), ("Location", "http://engine/console"), ("Transfer-Encoding", "chunked"),
    ]  # fmt: skip
    kept = console_gate.headers_to_browser(from_engine, "http://engine")
    assert [pair for pair in kept if pair not in console_gate.OURS] == [
        ("Content-Type", "text/plain"), ("Location", "/console"), ("Connection", "close"),
    ]  # fmt: skip


@pytest.mark.parametrize(("location", "own"), [
    ("http://engine:1/a?b", "/a?b"), ("http://engine:1", "/"), ("/console", "/console"), ("http://engine:12/a", None),
    ("https://elsewhere/", None),
])  # fmt: skip
def test_redirects_of_the_engine_stay_here(location, own):
    (found,) = [value for name, value in console_gate.headers_to_browser([("Location", location)], "http://engine:1")
                if name == "Location"]  # fmt: skip
    assert found == (own or location)


def test_an_engine_below_a_path_is_asked_there(serve):
    little = LittleServer(reply(body=b"here"))
    try:
        assert Visitor(serve(little.url("/hasura"))).enter().ask("GET", "/v1/version?x=%2F").body == b"here"
        assert little.requests[0].startswith(b"GET /hasura/v1/version?x=%2F HTTP/1.1\r\n")
    finally:
        little.close()


def test_an_engine_without_a_secret_is_asked_without_one(serve, engine):
    visitor = Visitor(serve(secret=None)).enter()
    assert visitor.ask("POST", "/v1/metadata", EXPORT, X_Hasura_Admin_Secret=SECRET).status == 401


def test_an_engine_that_is_down_is_502_in_its_own_form(serve):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    answer = Visitor(serve(f"http://127.0.0.1:{port}")).enter().ask("POST", "/v1/metadata", EXPORT)
    assert answer.status == 502
    assert "Connection refused" in json.loads(answer.body)["error"]


def test_a_body_that_breaks_off_does_not_look_whole(serve):
    broken = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    little = LittleServer(lambda connection, request: connection.sendall(broken))
    try:
        answer = Visitor(serve(little.url(""))).enter().begin("GET", "/api/rest/x")
        with pytest.raises(http.client.IncompleteRead) as caught:
            answer.read()
        assert caught.value.partial == b"hello"
    finally:
        little.close()


@pytest.mark.parametrize("way", ["length", "none"])
def test_bodies_arrive_as_they_were(visit, way):
    answer = visit.ask("GET", f"/api/rest/stream?size=300001&length={way}")
    assert len(answer.body) == 300001 and answer.body[:16] == b"0123456789abcdef"
    head = visit.ask("HEAD", "/console")
    assert (head.status, head.body) == (200, b"")


# Websockets.


@pytest.mark.parametrize("protocol", ["graphql-ws", "graphql-transport-ws"])
def test_a_websocket_passes_with_the_proxys_secret(visit, protocol):
    channel = visit.socket(subprotocols=[protocol], origin=f"http://127.0.0.1:{visit.proxy.port}")
    assert channel.getsubprotocol() == protocol
    channel.send(json.dumps({"type": "connection_init", "payload": {"headers": {"x-hasura-admin-secret": "null"}}}))
    assert json.loads(channel.recv()) == {"type": "connection_ack"}
    for size in (1, 70_000, 3_000_000):
        channel.send(json.dumps({"id": "1", "type": "subscribe", "payload": {"query": "x" * size}}))
        assert json.loads(channel.recv())["payload"]["data"]["echo"]["query"] == "x" * size
    channel.close()


def test_the_engines_cors_domains_do_not_matter(serve, plain_server):
    with Engine(plain_server.cluster.url("console"), SECRET, origins=["https://app.example"]) as strict:
        visitor = Visitor(serve(strict.endpoint)).enter()
        channel = visitor.socket(origin=f"http://127.0.0.1:{visitor.proxy.port}")
        channel.send('{"type": "ping"}')
        assert json.loads(channel.recv()) == {"type": "pong"}
        channel.close()


@pytest.mark.parametrize("options", [
    {"origin": "http://evil.example"}, {"host": "evil.example"}, {"suppress_origin": True, "cookie": "a=b"},
])  # fmt: skip
def test_a_websocket_of_another_page_is_403(visit, options):
    if "cookie" in options:
        visit.own.pop("Cookie")
    with pytest.raises(websocket.WebSocketBadStatusException) as caught:
        visit.socket(**options)
    assert caught.value.status_code == 403


def test_what_is_no_websocket_there_is_answered_as_the_engine_does(visit):
    with pytest.raises(websocket.WebSocketBadStatusException) as caught:
        visit.socket("/v1/version", origin=f"http://127.0.0.1:{visit.proxy.port}")
    assert caught.value.status_code == 200


def test_a_websocket_ends_when_either_side_does(serve, plain_server):
    engine = Engine(plain_server.cluster.url("console"), SECRET)
    visitor = Visitor(serve(engine.endpoint)).enter()
    own = {"origin": f"http://127.0.0.1:{visitor.proxy.port}"}
    channels = [visitor.socket(**own) for _ in range(2)]
    channels[0].close()
    engine.close()
    with pytest.raises((websocket.WebSocketException, OSError)):
        while channels[1].recv():
            pass
    deadline = time.monotonic() + 10
    while visitor.proxy.open_requests and time.monotonic() < deadline:
        time.sleep(0.05)
    assert visitor.proxy.open_requests == 0


# A read-only console, from end to end; its rules are test_hasura_console_reading's.


def run_sql(sql):
    return json.dumps({"type": "run_sql", "args": {"sql": sql}}).encode()


def test_a_read_only_console_changes_nothing(serve, engine):
    visitor = Visitor(serve(read_only=True)).enter()
    before = engine.ask("export_metadata", version=2)
    assert visitor.ask("GET", "/console").status == 200
    assert visitor.ask("POST", "/v1/metadata", EXPORT).status == 200
    assert json.loads(visitor.ask("POST", "/v2/query", run_sql("SELECT 1 AS one")).body)["result"] == [["one"], ["1"]]
    writes = "WITH gone AS (DELETE FROM hdb_catalog.hdb_metadata RETURNING 1) SELECT * FROM gone"
    answer = visitor.ask("POST", "/v2/query", run_sql(writes))
    assert json.loads(answer.body)["internal"]["error"]["status_code"] == "25006"
    assert visitor.ask("POST", "/v2/query", run_sql("CREATE TABLE lost ()")).status == 403
    answer = visitor.ask("POST", "/v1/metadata", b'{"type": "clear_metadata", "args": {}}')
    assert answer.status == 403 and "read-only" in json.loads(answer.body)["error"]
    with pytest.raises(websocket.WebSocketBadStatusException):
        visitor.socket(origin=f"http://127.0.0.1:{visitor.proxy.port}")
    assert engine.ask("export_metadata", version=2) == before


# The command.


@pytest.fixture
def project(plain_project):
    """A project whose engine is `project.engine`, over the project's own database."""
    settings = plain_project.database.settings
    url = plain_project.database.server.cluster.url(plain_project.database.name)
    with Engine(url, SECRET) as engine:
        plain_project.engine = engine
        plain_project.write_env({**settings, **hasura(engine.endpoint)})
        yield plain_project


def hasura(endpoint, secret=SECRET):
    return {"HASURA_GRAPHQL_ENDPOINT": endpoint, "HASURA_GRAPHQL_ADMIN_SECRET": secret}


class Running:
    """A console in a process of its own; `proxy` has its port and link."""

    def __init__(self, project, *arguments, **options):
        self.process = project.start("hasura", "console", *arguments, **options)
        self.said = ""
        while "entry=" not in self.said:
            line = self.process.stderr.readline()
            assert line, self.said
            self.said += line
        (self.link,) = re.findall(r"http://127\.0\.0\.1:\d+/\?entry=\w+", self.said)
        self.port = int(self.link.split(":")[2].partition("/")[0])

    def end(self, number=signal.SIGINT):
        """(exit code, stdout, stderr) after a signal."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, self.said + err


@pytest.fixture
def console(project):
    """console(*arguments) -> a Running one, killed after the test if it still runs."""
    running = []

    def start(*arguments, **options):
        running.append(Running(project, "--no-browser", *arguments, **options))
        return running[-1]

    yield start
    for each in running:
        if each.process.poll() is None:
            each.process.kill()
            each.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_is_how_it_ends(console, number):
    running = console("--port", "0")
    assert Visitor(running).enter().ask("GET", "/console").status == 200
    code, out, err = running.end(number)
    assert (code, out) == (0, "the console has ended; the metadata is as it was\n")
    assert SECRET not in err


def test_it_ends_at_once_whatever_is_under_way(console):
    running = console("--port", "0")
    visitor = Visitor(running).enter()
    channel = visitor.socket(origin=f"http://127.0.0.1:{running.port}")
    download = visitor.begin("GET", "/api/rest/stream?size=100000000")
    assert download.read(1)
    began = time.monotonic()
    assert running.end()[0] == 0
    assert time.monotonic() - began < 5
    channel.close()


def test_changed_metadata_is_told_at_its_end(console, project):
    running = console("--port", "0", "--json")
    project.database.admin("CREATE TABLE notes ()")
    visitor = Visitor(running).enter()
    visitor.ask("POST", "/v1/metadata", b'{"type": "reload_metadata", "args": {}}')
    track = b'{"type": "pg_track_table", "args": {"table": "notes"}}'
    assert visitor.ask("POST", "/v1/metadata", track).status == 200
    code, out, err = running.end()
    assert code == 0
    data = json.loads(out)["data"]
    assert data["changed"] and data["resource_version"] == {"before": 1, "after": 3}
    assert "nself-db hasura git pull" in err and "resource version 1 to 3" in err


def test_a_reload_alone_is_no_change(console):
    running = console("--port", "0", "--json")
    Visitor(running).enter().ask("POST", "/v1/metadata", b'{"type": "reload_metadata", "args": {}}')
    data = json.loads(running.end()[1])["data"]
    assert not data["changed"] and data["resource_version"] == {"before": 1, "after": 2}


def test_an_engine_that_has_gone_meanwhile_is_a_warning(console, project):
    running = console("--port", "0", "--json")
    project.engine.close()
    code, out, err = running.end()
    assert code == 0
    assert json.loads(out)["data"]["resource_version"]["after"] is None
    assert "whether the console changed the metadata is not known" in json.loads(out)["warnings"][-1]


def test_it_ends_by_itself_when_idle(project):
    outcome = project.run("hasura", "console", "--no-browser", "--port", "0", "--idle", "0.3", timeout=30).ok()
    assert "entry=" in outcome.err


def test_a_port_that_is_wanted_and_taken_is_usage(project):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        outcome = project.run("hasura", "console", "--no-browser", "--port", port)
    assert outcome.code == 1
    assert f"port {port} cannot be had" in outcome.err and "--port" in outcome.err


def test_the_usual_port_may_be_taken(project):
    try:
        taken = socket.create_server(("127.0.0.1", 9695))
    except OSError:
        taken = socket.socket()  # somebody else has it: as well
    with taken:
        outcome = project.run("hasura", "console", "--no-browser", "--idle", "0.1", "--json").ok()
    assert outcome.json()["data"]["port"] not in (0, 9695)
    assert "port 9695 is taken" in outcome.err


def test_it_listens_on_this_computer_only(console):
    running = console("--port", "0")
    with open("/proc/net/tcp", encoding="ascii") as file:
        listening = [line.split()[1] for line in file if line.split()[3] == "0A"]
    assert [place for place in listening if place.endswith(f":{running.port:04X}")] == [f"0100007F:{running.port:04X}"]


@pytest.mark.parametrize(("settings", "code", "said"), [
    (lambda engine: hasura("http://127.0.0.1:1"), 2, "nothing listens there"),
    (lambda engine: hasura(engine.endpoint, "wr0ng-secret"), 3, "refused"),
])  # fmt: skip
def test_an_engine_that_cannot_be_asked_ends_it_at_once(project, settings, code, said):
    project.write_env({**project.database.settings, **settings(project.engine)})
    outcome = project.run("hasura", "console", "--no-browser", "--port", "0")
    assert outcome.code == code and said in outcome.err
    assert "wr0ng-secret" not in outcome.err


def test_an_engine_without_a_console_says_what_to_set(project):
    url = project.database.server.cluster.url(project.database.name)
    with Engine(url, SECRET, console=False) as engine:
        project.write_env({**project.database.settings, **hasura(engine.endpoint)})
        outcome = project.run("hasura", "console", "--no-browser", "--port", "0")
    assert outcome.code == 1
    assert "serves no console (404)" in outcome.err and "HASURA_GRAPHQL_ENABLE_CONSOLE=true" in outcome.err


@pytest.mark.parametrize(("assets", "script", "said"), [
    (None, "", "loads its scripts from the internet"),
    ({}, '<script src="/console/assets/versioned/assetLoader.js.gz"></script>', "does not serve the console's assets"),
    ({"versioned/a.js": b"x"}, '<script src="/console/assets/versioned/a.js"></script>', None),
])  # fmt: skip
def test_an_engine_without_internet_is_told_how(project, assets, script, said):
    url = project.database.server.cluster.url(project.database.name)
    with Engine(url, SECRET, assets=assets, script=script) as engine:
        project.write_env({**project.database.settings, **hasura(engine.endpoint)})
        outcome = project.run("hasura", "console", "--no-browser", "--port", "0", "--idle", "0.1", "--json").ok()
    warnings = outcome.json()["warnings"]
    if said is None:
        assert warnings == []
    else:
        assert said in warnings[0] and "HASURA_GRAPHQL_CONSOLE_ASSETS_DIR" in warnings[0]


def test_prod_is_read_only_unless_told_otherwise(project):
    project.write_env({**project.database.settings, **hasura(project.engine.endpoint)}, ".env.prod")
    arguments = ("hasura", "console", "--env", "prod", "--dry-run", "--json")
    for more, mode in (((), "read-only"), (("--rw",), "read-write"), (("--read-only",), "read-only")):
        assert project.run(*arguments, *more).ok().json()["data"]["plan"][0]["mode"] == mode
    assert project.run("hasura", "console", "--dry-run", "--json").json()["data"]["plan"][0]["mode"] == "read-write"
    assert project.run("hasura", "console", "--rw", "--read-only").code == 1


# Large bodies, in a process whose memory can be looked at.


def peak(running):
    """The most memory that the process has held, in bytes."""
    with open(f"/proc/{running.process.pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


def test_a_hundred_megabytes_stream_without_being_held(console, project):
    running, size = console("--port", "0"), 100_000_000
    visitor = Visitor(running).enter()
    before = peak(running)
    answer = visitor.begin("GET", f"/api/rest/stream?size={size}")
    assert answer.read(16) == b"0123456789abcdef"
    time.sleep(0.5)
    assert project.engine.sent < size / 4  # who does not read is not sent more
    count = 16
    while piece := answer.read(1024 * 1024):
        count += len(piece)
    assert count == size
    assert peak(running) - before < 16_000_000


def test_a_hundred_megabytes_are_sent_without_being_held(console):
    running = console("--port", "0")
    visitor = Visitor(running).enter()
    before = peak(running)
    answer = visitor.ask("POST", "/v1/metadata", b'{"type": "none", "args": "' + b"x" * 100_000_000 + b'"}')
    assert (answer.status, json.loads(answer.body)["path"]) == (400, "$.type")
    assert peak(running) - before < 16_000_000


# The way to the browser.


def test_the_browser_is_given_a_file_and_not_the_link(serve, tmp_path):
    proxy = serve()
    path = proxy.write_doorway(str(tmp_path / ".nself"))
    assert os.stat(path).st_mode & 0o777 == 0o600 and os.stat(os.path.dirname(path)).st_mode & 0o777 == 0o700
    assert proxy.link in Path(path).read_text(encoding="utf-8")
    assert proxy.write_doorway(str(tmp_path / ".nself")) == path  # over one that was left behind
    Visitor(proxy).enter()
    assert os.listdir(tmp_path / ".nself" / "console") == [".gitignore"]
    assert (tmp_path / ".nself" / ".gitignore").read_text(encoding="utf-8") == "*\n"


@pytest.mark.parametrize("browser", [True, False])
def test_what_opens_the_browser_is_tried_once_and_the_link_is_printed_anyway(project, tmp_path, browser):
    program = tmp_path / "bin" / "xdg-open"
    program.parent.mkdir()
    if browser:
        program.write_text("#!/bin/sh\nexit 3\n", encoding="utf-8")
        program.chmod(0o755)
    env = {"DISPLAY": ":0", "PATH": f"{program.parent}:/usr/bin:/bin", "BROWSER": ""}
    if not browser:
        project.write(".nself", "no folder\n")  # so the page that leads there cannot be written
    outcome = project.run("hasura", "console", "--port", "0", "--idle", "0.3", env=env).ok()
    assert "entry=" in outcome.err
    assert ("in your browser" in outcome.err) == browser


def test_a_browser_is_started_where_there_is_a_screen(tmp_path, monkeypatch):
    program = tmp_path / "firefox"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called\n', encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("BROWSER", "firefox")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    assert not open_browser("/page.html")
    monkeypatch.setenv("DISPLAY", ":0")
    assert open_browser("/page.html")
    deadline = time.monotonic() + 10
    while not (tmp_path / "called").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (tmp_path / "called").read_text(encoding="utf-8") == "/page.html\n"
