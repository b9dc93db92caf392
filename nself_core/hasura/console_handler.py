"""One request to the console's proxy, from the browser to the engine and back. Imported by a console that serves."""

from __future__ import annotations

import http.client
import http.server
import re
import socket
import socketserver
import threading

from nself_core import http as exchange
from nself_core.failures import Failure
from nself_core.hasura import console_gate, console_reading
from nself_core.hasura.console import ANSWER_SECONDS, HEAD_SECONDS, MAX_PAGE, MAX_READ, PIECE, REDIRECT

# The page's own words for "ask for the secret first"; the second is what they were called before 2019.
SECRET_IS_SET = re.compile(rb"""((?:isAdminSecretSet|isAccessKeySet)["']?\s*:\s*["']?)true""")


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """The listening side; `proxy` is the console.Proxy it belongs to."""

    daemon_threads = True
    allow_reuse_address = True
    proxy = None

    def handle_error(self, request, client_address):
        """Say nothing: what breaks is the browser's connection, and stderr belongs to the program."""


def server_on(address, port, proxy):
    """A Server that listens there. Raises OSError."""
    server = Server((address, port), Handler)
    server.proxy = proxy
    return server


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection, with one request."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "nself-db", ""
    timeout = HEAD_SECONDS
    server: Server

    @property
    def proxy(self):
        """The console.Proxy."""
        return self.server.proxy

    def _serve(self):
        self.close_connection = True
        self.proxy.begin()
        self._status = 0
        try:
            self._judge()
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._fail(error)
        finally:
            self.proxy.end()
            self.proxy.tell(f"{self.command} {self.path.partition('?')[0]} {self._status}")

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _serve

    def log_message(self, *_):
        """Say nothing; the proxy is told what is of interest."""

    # Who may pass.

    def _judge(self):
        headers = [(name.lower(), value) for name, value in self.headers.items()]
        gate = self.proxy.gate
        denied = gate.check_place(headers)
        token = console_gate.token_of(self.path)
        if denied is None and token is not None:
            return self._enter(token)
        denied = denied or gate.check_asker(headers)
        if denied is None and not self.path.startswith("/"):
            denied = console_gate.Denied(400, "only paths are asked for here")
        if denied:
            return self._refuse(denied.status, denied.message)
        length = console_gate.body_length(headers)
        if length is None:
            return self._refuse(411, "the length of the request's body must be told")
        return self._pass(headers, length)

    def _enter(self, token):
        if self.command != "GET" or not self.proxy.enter(token):
            return self._refuse(403, "this link does not work any more: start `nself-db hasura console` again")
        more = [("Set-Cookie", self.proxy.gate.cookie), ("Cache-Control", "no-store"), *console_gate.OURS]
        return self._answer(200, "text/html; charset=utf-8", REDIRECT.format(target="/console").encode(), more)

    def _refuse(self, status, message):
        if "html" in self.headers.get("accept", ""):
            return self._answer(status, "text/plain; charset=utf-8", message.encode() + b"\n")
        return self._answer(status, "application/json", _error(message))

    def _answer(self, status, kind, body, more=()):
        facts = (("Content-Type", kind), ("Content-Length", str(len(body))))
        self._begin(status, [*facts, *more, *console_gate.CLOSE])
        if self.command != "HEAD":
            self.wfile.write(body)

    def _begin(self, status, headers, reason=None):
        self._status = status
        self.send_response_only(status, reason)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()

    def _fail(self, error):
        """Say that the engine did not answer, where nothing was said yet."""
        if not self._status:
            said = str(getattr(error, "strerror", None) or error) or type(error).__name__
            engine = self.proxy.job.engine
            message = exchange.redact(f"Hasura at {engine.where} cannot be asked: {said}", (engine.secret or "",))
            try:
                self._refuse(502, message)
            except OSError:
                return

    # To the engine and back.

    def _pass(self, headers, length):
        job = self.proxy.job
        self.connection.settimeout(ANSWER_SECONDS)
        upgrade = console_gate.is_upgrade(headers)
        body = None
        if job.read_only:
            body = self._readable(length, upgrade)
            if body is None:
                return self._refuse(403, console_reading.REASON)
            length = len(body)
        try:
            connection = exchange.connection(job.engine.endpoint, ANSWER_SECONDS, job.engine.dial)
        except Failure as failure:
            return self._refuse(502, failure.message)
        try:
            self._send(connection, headers, length, body, upgrade)
            answer = connection.getresponse()
            if answer.status == 101:
                self._begin(101, console_gate.headers_to_browser(answer.getheaders(), job.engine.endpoint, True))
                return _Tunnel(self, connection, answer).run()
            return self._bring(answer)
        finally:
            connection.close()

    def _readable(self, length, upgrade):
        """The body that a read-only console sends on, None where it refuses; a websocket could carry a mutation."""
        if upgrade or length > MAX_READ:
            return None
        body = self.rfile.read(length)
        return console_reading.allowed_body(self.command, self.path.partition("?")[0], body)

    def _send(self, connection, headers, length, body, upgrade):
        engine = self.proxy.job.engine
        base, _, below = engine.endpoint.partition("://")[2].partition("/")
        target = (f"/{below}" if below else "") + self.path
        sent = [pair for pair in headers if pair[0] != "content-length"]
        if _is_page(self.command, self.path):
            sent = [pair for pair in sent if pair[0] not in ("accept-encoding", "range")]
        connection.putrequest(self.command, target, skip_host=True, skip_accept_encoding=True)
        for name, value in console_gate.headers_to_engine(sent, engine.secret, base, upgrade):
            connection.putheader(name, value.encode("utf-8" if name == "x-hasura-admin-secret" else "latin-1"))
        if length or self.command in ("POST", "PUT", "PATCH"):
            connection.putheader("content-length", str(length))
        connection.endheaders()
        self._send_body(connection, length, body)

    def _send_body(self, connection, length, body):
        if body is not None:
            connection.send(body)
            return
        while length:
            piece = self.rfile.read1(min(PIECE, length))
            if not piece:
                raise http.client.IncompleteRead(b"", length)
            connection.send(piece)
            length -= len(piece)

    def _bring(self, answer):
        headers = console_gate.headers_to_browser(answer.getheaders(), self.proxy.job.engine.endpoint)
        kind = answer.getheader("content-type", "")
        if _is_page(self.command, self.path) and kind.startswith("text/html"):
            page = SECRET_IS_SET.sub(rb"\1false", answer.read(MAX_PAGE))
            headers = [pair for pair in headers if pair[0].lower() not in ("etag", "last-modified", "cache-control")]
            self._begin(answer.status, [*headers, ("Cache-Control", "no-store"), ("Content-Length", str(len(page)))])
            self.wfile.write(page)
            return
        length = answer.getheader("content-length")
        has_body = self.command != "HEAD" and answer.status not in (204, 304)
        # In chunks a body that breaks off does not look like one that has ended.
        chunked = has_body and length is None and self.request_version != "HTTP/1.0"
        framing = [("Transfer-Encoding", "chunked")] if chunked else [("Content-Length", length)] if length else []
        self._begin(answer.status, [*headers, *framing], answer.reason)
        while has_body:
            piece = answer.read1(PIECE)
            if chunked:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            elif piece:
                self.wfile.write(piece)
            has_body = bool(piece)


def _is_page(method, target):
    """Whether a request is for the console's page, which is rewritten, and not for one of its assets."""
    path = target.partition("?")[0]
    inside = path == "/console" or path.startswith("/console/")
    return method == "GET" and inside and not path.startswith("/console/assets/")


def _error(message):
    """An error in the form of the engine's own, which its console can show."""
    import json

    return json.dumps({"path": "$", "error": message, "code": "access-denied"}).encode()


class _Tunnel:
    """A websocket's bytes, both ways, until one side ends.

    Arguments: `handler`, whose connection is the browser's; `connection` and `answer` of the engine, which may have
    read the first bytes already.
    """

    def __init__(self, handler, connection, answer):
        self._browser = handler.connection
        self._engine = connection.sock
        self._from_browser = handler.rfile
        self._from_engine = answer.fp

    def run(self):
        """Carry bytes until both directions have ended."""
        for side in (self._browser, self._engine):
            side.settimeout(None)
        back = threading.Thread(target=self._carry, args=(self._from_engine, self._browser), daemon=True)
        back.start()
        self._carry(self._from_browser, self._engine)
        back.join()

    def _carry(self, source, target):
        try:
            while True:
                piece = source.read1(PIECE)
                if not piece:
                    break
                target.sendall(piece)
        except (OSError, ValueError):
            pass  # the other direction has ended both
        for side in (self._browser, self._engine):
            try:
                side.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
