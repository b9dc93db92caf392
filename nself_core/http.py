"""The one way out over HTTP: a request, its answer, and every way it can go wrong said in a sentence.

It stands on urllib, so that it works where only Python is. Proxies come from http_proxy, https_proxy, all_proxy and
no_proxy (this host itself is never asked through one), certificates from SSL_CERT_FILE, SSL_CERT_DIR, or the names
that requests and curl use. A time-out is for the whole exchange: a server that sends a byte now and then ends it too.
Large bodies are given an idle time-out besides, so that a slow line has its hours and a dead one is left at once.
"""

from __future__ import annotations

import io
import os
import time
from collections import namedtuple

from nself_core.failures import CredentialsRefused, Unreachable, UsageFailure

Response = namedtuple("Response", "status headers body url")
Response.__doc__ = "An answer: `status` code, `headers` by lower-case name, `body` in bytes, the `url` that gave it."

JsonResponse = namedtuple("JsonResponse", "status headers document url")
JsonResponse.__doc__ = "An answer whose body was JSON: `document` is what it held, None for an empty body."

MAX_BODY = 64 * 1024 * 1024
MAX_REDIRECTS = 5
PIECE = 64 * 1024  # bytes of a body that are handed to the socket, or asked of it, at once

# Headers that name the asker, whatever their value; those that hold one of the caller's secrets come on top.
SECRET_HEADERS = ("authorization", "cookie", "proxy-authorization", "x-hasura-admin-secret", "x-hasura-access-key")

CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
# Where the systems keep their bundle: a Python that was built elsewhere (the binary) looks in its builder's places.
CA_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


class _Exchange(namedtuple("_Exchange", "method body secrets time dial")):
    """What stays the same over one request's redirects."""

    __slots__ = ()

    def pieces(self):
        """The body as the socket is to be given it: each piece has a time-out of its own."""
        whole = memoryview(self.body)
        for start in range(0, len(whole), PIECE):
            self.time.patience()
            yield whole[start : start + PIECE]


class _Time(namedtuple("_Time", "timeout deadline idle")):
    """How long an exchange may take, in seconds; `deadline` is on time.monotonic's clock."""

    __slots__ = ()

    def patience(self):
        """The seconds that the next byte may take. Raises TimeoutError where none are left."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time for the whole exchange is over")
        return left if self.idle is None else min(left, self.idle)


def request(method, url, headers=None, body=None, timeout=30, secrets=(), *, idle=None, follow=True, dial=None):
    """Ask once and return the Response, whatever its status.

    Arguments: `headers`, texts by name; `body`, bytes or None; `timeout`, seconds for the whole exchange; `secrets`,
    texts that no error may show and no redirect may carry to another host; `idle`, seconds without a byte in either
    direction, None for as many as `timeout`. Redirects of GET and HEAD are followed, unless `follow` is False. `dial()`
    gives a connected socket to a server that speaks plain HTTP, where no address on the network leads to it.
    Raises UsageFailure for an address or a header that cannot be sent, Unreachable for everything on the way.
    """
    secrets = tuple(secret for secret in secrets if secret)
    exchange = _Exchange(method, body, secrets, _Time(timeout, time.monotonic() + timeout, idle), dial)
    headers = _sendable(headers or {})
    for _ in range(MAX_REDIRECTS + 1):
        response = _ask(exchange, _checked(url), headers)
        target = _redirect_target(method, response) if follow else None
        if target is None:
            return response
        headers = _headers_for(target, response.url, headers, secrets)
        url = target
    raise Unreachable(f"{_shown(url)} redirects again and again")


def json_request(method, url, document=None, headers=None, timeout=30, secrets=(), dial=None):
    """Ask with a JSON `document` (None sends no body) and return the JsonResponse, also when its status is an error.

    Raises as `request` does, CredentialsRefused for 401 and 403, and Unreachable for a body that is not JSON: then
    something else answers at this address (a proxy's page, a login), and its status and first line are told.
    """
    import json

    headers = {"Accept": "application/json", **(headers or {})}
    body = None
    if document is not None:
        headers["Content-Type"] = "application/json"
        body = json.dumps(document).encode("utf-8")
    response = request(method, url, headers, body, timeout, secrets, dial=dial)
    if response.status in (401, 403):
        said = _refusal(response, secrets) or "no reason given"
        raise CredentialsRefused(f"{_shown(response.url)} refused the credentials: {said} ({response.status})")
    if 300 <= response.status < 400:
        target = _shown(response.headers.get("location", "elsewhere"))
        raise Unreachable(f"{_shown(response.url)} redirects to {target}", "give that address in the settings")
    return JsonResponse(response.status, response.headers, _document(response, secrets), response.url)


def _document(response, secrets):
    import json

    if not response.body.strip() and response.status < 300:
        return None
    try:
        return json.loads(response.body)
    except (ValueError, RecursionError):
        pass
    said = first_line(response.body, secrets) or "an empty body"
    raise Unreachable(
        f"{_shown(response.url)} answered {response.status} and not in JSON: {said}",
        "something else than the expected server answers at this address: check it, and any proxy before it",
    )


def _refusal(response, secrets):
    """What the server says of a refusal: the `error` or `message` of its JSON, else its first line."""
    import json

    try:
        document = json.loads(response.body)
        said = document.get("error") or document.get("message")
    except (ValueError, RecursionError, AttributeError):
        said = None
    return redact(said, secrets) if isinstance(said, str) else first_line(response.body, secrets)


def first_line(body, secrets):
    """What a body says in one line: an HTML page's title, or its first line that is not empty."""
    import html
    import re

    text = body[:20_000].decode("utf-8", "replace")
    title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
    lines = (html.unescape(title.group(1)) if title else text).split("\n")
    line = next((" ".join(line.split()) for line in lines if line.strip()), "")
    line = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)
    return redact(line, secrets)[:200]


def redact(text, secrets):
    """`text` with each of `secrets` masked, also where it stands percent-encoded."""
    from urllib.parse import quote, quote_plus

    forms = {form for secret in secrets if secret for form in (secret, quote(secret, ""), quote_plus(secret))}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, "***")
    return text


def connection(url, timeout, dial=None):
    """An http.client connection to the server of `url`, not opened yet, for what is more than an exchange of bodies.

    Arguments: `timeout`, seconds for each step; `dial`, as for `request`. It goes through the proxy that the
    environment wants. Raises UsageFailure for an address that cannot be asked.
    """
    import http.client
    from urllib.parse import urlsplit

    if dial:
        made = http.client.HTTPConnection(urlsplit(_checked(url)).hostname or "", timeout=timeout)
        made.sock = dial()
        made.sock.settimeout(timeout)
        return made
    parts, proxy = urlsplit(_checked(url)), _proxy_for(url)
    at = urlsplit(proxy) if proxy else parts
    made = http.client.HTTPConnection(at.hostname, at.port, timeout=timeout)
    if parts.scheme == "https":
        made = http.client.HTTPSConnection(at.hostname, at.port, timeout=timeout, context=_tls_context())
    if proxy:
        made.set_tunnel(parts.hostname, parts.port or made.default_port, _proxy_login(at))
    return made


def _proxy_login(proxy):
    """The header by which a proxy's own URL logs in there."""
    import base64
    from urllib.parse import unquote

    if proxy.username is None:
        return {}
    login = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
    return {"Proxy-Authorization": "Basic " + base64.b64encode(login).decode()}


# Addresses, headers and redirects.


def _checked(url):
    """`url`, when it can be asked at all. Raises UsageFailure."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        sound = sound and url.isascii() and url.isprintable() and " " not in url
        has_user = "@" in parts.netloc
    except ValueError:  # a port that is no number, a bracket left open
        sound = has_user = False
    if not sound:
        raise UsageFailure(f"{_shown(url)} is not an http or https address")
    if has_user:
        raise UsageFailure(f"{_shown(url)} holds a user or password: give the address without them")
    return url


def _shown(url):
    """The address as a message may show it: no user, password or query, no control characters."""
    address = url.partition("?")[0].partition("#")[0]
    scheme, mark, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    shown = scheme + mark + host.rpartition("@")[2] + slash + path if mark else address.rpartition("@")[2]
    return "".join(character if character.isprintable() else "?" for character in shown)[:200]


def _sendable(headers):
    """The headers in bytes, as UTF-8; Raises UsageFailure, without the value, for what HTTP cannot carry."""
    sendable = {}
    for name, value in headers.items():
        if not all(character.isprintable() or character == "\t" for character in value):
            raise UsageFailure(f"the value of header {name} holds a line break or another control character",
                               "check the setting it comes from")
        sendable[name] = value.encode("utf-8")
    return sendable


def _redirect_target(method, response):
    location = response.headers.get("location")
    if method not in ("GET", "HEAD") or response.status not in (301, 302, 303, 307, 308) or not location:
        return None
    from urllib.parse import urljoin

    return urljoin(response.url, location)


def _headers_for(target, source, headers, secrets):
    """The headers that may go on to a redirect's target: those that tell secrets only to the host they were for."""
    if _same_host(source, target):
        return headers
    return {
        name: value for name, value in headers.items()
        if name.lower() not in SECRET_HEADERS and not any(secret.encode("utf-8") in value for secret in secrets)
    }


def _same_host(source, target):
    """Whether two addresses are one server; from http to https at their own ports counts as the same."""
    from urllib.parse import urlsplit

    try:
        one, other = urlsplit(source), urlsplit(target)
        ports = [parts.port or {"http": 80, "https": 443}.get(parts.scheme) for parts in (one, other)]
    except ValueError:
        return False
    upgraded = (one.scheme, other.scheme, *ports) == ("http", "https", 80, 443)
    return one.hostname == other.hostname and (upgraded or (one.scheme, ports[0]) == (other.scheme, ports[1]))


def _proxy_for(url):
    """The proxy that the environment wants for `url`, or None."""
    from urllib.parse import urlsplit
    from urllib.request import getproxies_environment, proxy_bypass

    parts = urlsplit(url)
    proxies = getproxies_environment()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or _is_this_host(parts.hostname) or proxy_bypass(parts.netloc):
        return None
    if "://" in proxy and not proxy.startswith(("http://", "https://")):
        raise UsageFailure(f"the proxy {_shown(proxy)} is not an HTTP proxy", "name the server in NO_PROXY")
    return proxy


def _is_this_host(host):
    numeric = host.startswith("127.") and host.replace(".", "").isdigit()
    return numeric or host in ("localhost", "::1") or host.endswith(".localhost")


# The exchange itself.


class _TimedReader(io.RawIOBase):
    """The bytes of a socket until the deadline; a socket's own time-out would start anew with each byte."""

    def __init__(self, sock, allowed):
        self._sock = sock
        self._allowed = allowed
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self):
        return True

    def readinto(self, buffer):
        self._sock.settimeout(self._allowed.patience())
        return self._raw.readinto(buffer)

    def close(self):
        self._raw.close()
        super().close()


def _send(kind, connection, arguments, options):
    """Let `connection`, of the class `kind`, send a request.

    A server that refuses a large body answers, and reads no further: its answer says more than the broken pipe.
    """
    try:
        kind.request(connection, *arguments, **options)
    except (BrokenPipeError, ConnectionResetError):
        if connection.sock is None:
            raise


def _opener(allowed, proxy, is_secure, dial):
    """A urllib opener whose answers obey a _Time; it follows no redirect and raises for no status.

    Its classes are garbage that only the collector finds, late: nothing in here may hold a body.
    """
    import http.client
    import urllib.request

    class TimedResponse(http.client.HTTPResponse):
        def __init__(self, sock, *args, **kwargs):
            super().__init__(sock, *args, **kwargs)
            untimed = self.fp
            self.fp = io.BufferedReader(_TimedReader(sock, allowed))
            untimed.close()

    class Plain(http.client.HTTPConnection):
        response_class = TimedResponse

        def connect(self):
            if dial is None:
                super().connect()
            else:
                self.sock = dial()
                self.sock.settimeout(allowed.patience())

        def request(self, *arguments, **options):
            _send(http.client.HTTPConnection, self, arguments, options)

    class Secure(http.client.HTTPSConnection):
        response_class = TimedResponse

        def request(self, *arguments, **options):
            _send(http.client.HTTPSConnection, self, arguments, options)

    context = _tls_context() if is_secure else None

    class PlainHandler(urllib.request.HTTPHandler):
        def http_open(self, req):
            return self.do_open(Plain, req)

    class SecureHandler(urllib.request.HTTPSHandler):
        def https_open(self, req):
            return self.do_open(Secure, req, context=context)

    opener = urllib.request.OpenerDirector()
    opener.addheaders = [("User-Agent", "nself-db")]
    opener.add_handler(urllib.request.ProxyHandler({"http": proxy, "https": proxy} if proxy else {}))
    opener.add_handler(PlainHandler())
    if is_secure:
        opener.add_handler(SecureHandler(context=context))
    return opener


def _tls_context():
    import ssl

    variable = next((name for name in CA_VARIABLES if os.environ.get(name)), None)
    bundle = os.environ.get(variable) if variable else None
    if bundle and os.path.isdir(bundle):
        return ssl.create_default_context(capath=bundle)
    paths = ssl.get_default_verify_paths()
    if not bundle and not (paths.cafile or paths.capath):
        bundle = next((path for path in CA_BUNDLES if os.path.exists(path)), None)
    try:
        return ssl.create_default_context(cafile=bundle)
    except OSError as error:
        raise UsageFailure(f"{variable or 'the system'} names {bundle}, which holds no certificates: {error}") from None


def _ask(exchange, url, headers):
    """One request without redirects. Raises Unreachable, and UsageFailure for a proxy or bundle that cannot be used."""
    import http.client
    import urllib.error
    import urllib.request

    proxy = None if exchange.dial else _proxy_for(url)
    is_secure = "https:" in (url[:6].lower(), (proxy or "")[:6].lower())
    opener = _opener(exchange.time, proxy, is_secure, exchange.dial)
    if exchange.body is not None:
        headers = {**headers, "Content-Length": str(len(exchange.body))}
    body = None if exchange.body is None else exchange.pieces()
    asked = urllib.request.Request(url, body, headers, method=exchange.method)
    try:
        with opener.open(asked, timeout=exchange.time.patience()) as answer:
            found = {name.lower(): value for name, value in answer.headers.items()}
            return Response(answer.status, found, _read(answer), url)
    except urllib.error.URLError as error:
        reason = error.reason if isinstance(error.reason, Exception) else error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error
    try:
        raise _failure(reason, exchange, url, proxy)
    finally:
        del reason  # it holds this frame, and with it the body, for as long as this frame holds it


def _read(answer):
    import http.client

    parts, size = [], 0
    while True:
        part = answer.read(PIECE)
        if not part:
            break
        parts.append(part)
        size += len(part)
        if size > MAX_BODY:
            raise ValueError(f"its answer is larger than {MAX_BODY // 1024 // 1024} MB")
    if answer.length:
        raise http.client.IncompleteRead(b"", answer.length)
    return b"".join(parts)


def _failure(reason, exchange, url, proxy):
    """The Unreachable that says what `reason`, an exception of the network's libraries, means."""
    said, hint = _explained(reason, exchange.time)
    way = f" (through the proxy {_shown(proxy)})" if proxy else ""
    return Unreachable(redact(f"{_shown(url)}{way}: {said}", exchange.secrets), hint)


def _explained(reason, allowed):
    """What went wrong and what to do, as two texts; the second may be None."""
    import http.client
    import socket
    import ssl

    situations = (
        (ssl.SSLCertVerificationError, f"its certificate is not trusted: {getattr(reason, 'verify_message', '')}",
         "set SSL_CERT_FILE to the file of the authority that signed it"),
        (ssl.SSLError, _tls_trouble(reason), "check scheme and port of the address"),
        ((TimeoutError, socket.timeout), _waited(allowed), None),
        (ConnectionRefusedError, "nothing listens there (connection refused)",
         "start it, or correct the address in the settings"),
        (socket.gaierror, f"the name of the host is not known: {getattr(reason, 'strerror', '')}", None),
        ((ConnectionError, http.client.IncompleteRead), "it closed the connection before its answer was whole", None),
        (http.client.HTTPException, "what answers there does not speak HTTP", "check scheme and port of the address"),
        (UnicodeError, "the name of the host cannot be one", None),
    )
    for kinds, said, hint in situations:
        if isinstance(reason, kinds):
            return said, hint
    return str(reason) or type(reason).__name__, None


def _waited(allowed):
    if allowed.idle is None or time.monotonic() >= allowed.deadline:
        return f"no whole answer within {allowed.timeout:g} seconds"
    return f"nothing moved for {allowed.idle:g} seconds"


# What OpenSSL calls it when the other side answers without TLS.
NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")


def _tls_trouble(reason):
    word = getattr(reason, "reason", None)
    return "it does not speak TLS" if word in NO_TLS else f"the TLS connection failed: {word or reason}"
