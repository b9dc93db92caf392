"""Who may pass the console's proxy, and which headers go on, each way: pure decisions over plain values.

The proxy turns "can reach this port" into "is admin", so each request must show that it comes from the one browser that
was given the one-time link, and from a page of ours in it: by Host (against DNS rebinding), Origin and Sec-Fetch-Site
(against other pages in the same browser) and a cookie (against other users of this computer).
"""

from __future__ import annotations

from collections import namedtuple

COOKIE = "nself_console_{port}"  # cookies know no ports: two consoles at once would take each other's
OWN_NAMES = ("127.0.0.1", "localhost", "[::1]")

# What belongs to one connection and not to the message (RFC 9110, 7.6.1); Connection may name more.
HOP_BY_HOP = (
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade",
)  # fmt: skip
# What says who asks: the proxy's own answer to that is the admin secret. Where a page is from is no business of the
# engine's either: it would compare it with its CORS domains.
ASKER = ("authorization", "cookie", "x-hasura-admin-secret", "x-hasura-access-key", "host", "origin", "referer")
FORWARDED = ("forwarded", "via", "x-real-ip")
# Of an answer, what would open this origin to others, or tell the browser things about localhost that outlive us.
FROM_ENGINE = ("set-cookie", "strict-transport-security", "alt-svc", "clear-site-data", "refresh", "content-length")
OURS = (
    ("X-Frame-Options", "DENY"),
    ("Content-Security-Policy", "frame-ancestors 'none'"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "same-origin"),  # with none at all, a form's own Origin would be sent as null
)

UPGRADE = (("Connection", "Upgrade"), ("Upgrade", "websocket"))
CLOSE = (("Connection", "close"),)

Denied = namedtuple("Denied", "status message")
Denied.__doc__ = "Why a request may not pass: HTTP `status`, and a sentence for the person at the browser."


class Gate:
    """What one console lets pass.

    Arguments: `port`, its own; `token`, the secret of the one-time link; `session`, the secret that the cookie holds.
    `token` is None from its first use on.
    """

    def __init__(self, port, token, session):
        self.port = port
        self.token = token
        self._session = session
        self._hosts = tuple(f"{name}:{port}" for name in OWN_NAMES)

    @property
    def cookie(self):
        """The Set-Cookie header's value."""
        return f"{COOKIE.format(port=self.port)}={self._session}; HttpOnly; SameSite=Strict; Path=/"

    def check_place(self, headers):
        """Denied where a request was not sent to us, or was sent by another page; None where it may go on.

        Argument: `headers`, (name, value) pairs with the names in lower case.
        """
        hosts = [value for name, value in headers if name == "host"]
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return Denied(403, "this is not the name of the console")
        origins = [value for name, value in headers if name == "origin"]
        if any(origin.lower() != f"http://{hosts[0].lower()}" for origin in origins):
            return Denied(403, "another page may not use the console")
        return None

    def check_asker(self, headers):
        """Denied where a request is not from a page of ours in the browser that opened the link; else None."""
        sites = [value for name, value in headers if name == "sec-fetch-site"]
        if any(site not in ("same-origin", "none") for site in sites):
            return Denied(403, "another page may not use the console")
        if not any(_same(value, self._session) for value in cookies(headers, COOKIE.format(port=self.port))):
            return Denied(403, "open the link that `nself-db hasura console` printed; it works once, in one browser")
        return None

    def take_token(self, given):
        """Whether `given` is the link's token; true once. Call it from one thread at a time."""
        if self.token is None or not _same(given, self.token):
            return False
        self.token = None
        return True


def _same(given, expected):
    import hmac

    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


def cookies(headers, name):
    """The values of a cookie, of which a browser may send several."""
    for header, value in headers:
        if header == "cookie":
            for pair in value.split(";"):
                key, _, text = pair.strip().partition("=")
                if key == name:
                    yield text


def token_of(target):
    """The token in a request for the link's own path, `/?entry=…`; None for any other request."""
    path, _, query = target.partition("?")
    if path != "/" or not query.startswith("entry="):
        return None
    return query[len("entry=") :]


def headers_to_engine(headers, secret, host, is_upgrade=False):
    """The (name, value) pairs that go to the engine.

    Arguments: `headers`, those of the browser, names in lower case; `secret`, the admin secret or None; `host`, the
    engine's; `is_upgrade`, whether it asks for a websocket.
    """
    dropped = {*HOP_BY_HOP, *ASKER, *FORWARDED, *_named_by_connection(headers)}
    kept = [(name, value) for name, value in headers if name not in dropped and not name.startswith("x-forwarded-")]
    kept.insert(0, ("host", host))
    if secret:
        kept.append(("x-hasura-admin-secret", secret))
    return [*kept, *(UPGRADE if is_upgrade else CLOSE)]


def headers_to_browser(headers, base, is_upgrade=False):
    """The (name, value) pairs that go to the browser.

    Arguments: `headers`, the engine's; `base`, its base address, which a redirect may name; `is_upgrade`, whether they
    grant a websocket.
    """
    low = [(name.lower(), value) for name, value in headers]
    dropped = {*HOP_BY_HOP, *FROM_ENGINE, *_named_by_connection(low)}
    kept = [(name, value) for name, value in headers if not _is_dropped(name.lower(), dropped)]
    if is_upgrade:
        return [*kept, *UPGRADE]
    moved = [(name, _own_address(value, base)) if name.lower() == "location" else (name, value) for name, value in kept]
    return [*moved, *OURS, *CLOSE]


def _is_dropped(name, dropped):
    return name in dropped or name.startswith("access-control-")


def _named_by_connection(headers):
    values = [value for name, value in headers if name == "connection"]
    return {part.strip().lower() for value in values for part in value.split(",")}


def _own_address(location, base):
    """A redirect to the engine as one to ourselves."""
    is_ours = location == base or location.startswith((base + "/", base + "?"))
    return (location[len(base) :] or "/") if is_ours else location


def is_upgrade(headers):
    """Whether a request asks for a websocket."""
    values = {name: value.lower() for name, value in headers if name in ("upgrade", "connection")}
    asks = [part.strip() for part in values.get("connection", "").split(",")]
    return values.get("upgrade") == "websocket" and "upgrade" in asks


def body_length(headers):
    """The bytes of a request's body; None where that cannot be said, and the request is to be refused."""
    lengths = {value for name, value in headers if name == "content-length"}
    if any(name == "transfer-encoding" for name, _ in headers) or len(lengths) > 1:
        return None
    length = next(iter(lengths), "0")
    return int(length) if length.isascii() and length.isdecimal() and len(length) < 16 else None
