"""Asks an S3 server: signs each request, asks again where that helps, and says what went wrong.

A request is repeated on the way's failures, on 5xx and on what S3 calls passing, with pauses that grow and are drawn
by lot, so that many clients do not come back at once. How often is a number of tries, or, for what must outlive a
server's restart, a time. A redirect is signed anew for its host, and only followed to one that may see whose key it is.
"""

from __future__ import annotations

import random
import threading
import time
from collections import namedtuple

from nself_core import http
from nself_core.failures import Unreachable, UsageFailure
from nself_core.s3 import answers
from nself_core.s3.account import OWN_NAMES, Place
from nself_core.s3.signing import Scope, query_string, sha256_hex, signed_headers

TIMEOUT = 60  # seconds without a byte
TRIES = 6
FIRST_PAUSE = 0.3  # seconds; each further one is twice as long at most
LONGEST_PAUSE = 10
SLOWEST = 16 * 1024  # bytes a second, below which a transfer is given up
USUAL_SIZE = 16 * 1024 * 1024  # bytes that an answer may have to carry

Asked = namedtuple("Asked", "method key query headers body", defaults=(None, (), None, None))
Asked.__doc__ = "A request: `key` None is the bucket itself, `query` (name, value) pairs, `body` bytes or None."


class Client:
    """Asks the server of one Account.

    Arguments: `timeout`, seconds without a byte after which a connection is dead; `tries`, how often a request is
    sent at most; `first_pause`, seconds before the second; `clock`, seconds since 1970, for the signature's date;
    `patience`, seconds from its first failure on in which a request is sent again, whatever `tries` says.
    """

    def __init__(self, account, timeout=TIMEOUT, tries=TRIES, first_pause=FIRST_PAUSE, clock=time.time, patience=0):
        self.account = account
        self._timeout = timeout
        self._tries = tries
        self._patience = patience
        self._first_pause = first_pause
        self._clock = clock

    def ask(self, asked, accepts=(), stop=None):
        """The Response to an Asked.

        Arguments: `accepts`, statuses that are an answer and no failure; `stop`, a threading.Event that ends the
        waiting. Raises CredentialsRefused, UsageFailure, CheckFailed, NoSuchObject, Unreachable after the last try
        (Busy where it is the server that says so), and Failure for what else the server refuses.
        """
        stop = stop or threading.Event()
        number, over = 0, 0.0
        while True:
            number += 1
            try:
                response = self._send(asked)
            except Unreachable as error:
                trouble = error.with_traceback(None)  # its frames would hold the body for as long as it lives
            else:
                refused = answers.refusal(asked.method, response)
                if refused is None or refused.status in accepts:
                    return response
                trouble = self._failure(refused, response, asked.key)
                if not answers.may_pass(refused):
                    raise trouble
            over = over or time.monotonic() + self._patience
            if (number >= self._tries and time.monotonic() >= over) or stop.wait(self._pause(number)):
                raise trouble

    def document(self, response, name):
        """The root element of an answer, which must be `name`. Raises Unreachable: something else answers there."""
        try:
            root = answers.read_xml(response.body)
            if root.tag == name:
                return root
        except ValueError:
            pass
        said = self._clean(http.first_line(response.body, ())) or "an empty body"
        raise Unreachable(
            f"{self.account} answered {response.status} and not as an S3 server does: {said}",
            "something else answers at this address: check it, and any proxy before it",
        )

    def name(self, key=None):
        """What a message calls an object, or the bucket."""
        return str(self.account) if key is None else f"object {ascii(key)[1:-1]} in {self.account}"

    def _pause(self, number):
        """Seconds before the next try, after `number` of them."""
        grown = 2 ** min(number - 1, 20)  # of a thousand tries the power would be no float any more
        return random.uniform(0, min(LONGEST_PAUSE, self._first_pause * grown))

    def _send(self, asked):
        place = self.account.place(asked.key)
        for _ in range(http.MAX_REDIRECTS + 1):
            response = self._exchange(place, asked)
            location = response.headers.get("location")
            if response.status not in (307, 308) or not location:
                return response
            place = redirected(place, location)
        raise Unreachable(f"{self.name(asked.key)} redirects again and again")

    def _exchange(self, place, asked):
        """One request and its answer, signed for just this place."""
        query = query_string(asked.query)
        payload_hash = sha256_hex(asked.body or b"")
        headers = {**(asked.headers or {}), "Host": place.host}
        if asked.body is not None:
            headers.setdefault("Content-Type", "application/octet-stream")
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._clock()))
        scope = Scope(moment, self.account.region, "s3")
        headers = signed_headers(asked.method, place.path, query, headers, payload_hash, self.account.keys, scope)
        url = f"{place.scheme}://{place.host}{place.path}" + (f"?{query}" if query else "")
        timeout = self._timeout + max(len(asked.body or b""), USUAL_SIZE) / SLOWEST
        secrets = tuple(filter(None, self.account.keys[1:]))
        return http.request(asked.method, url, headers, asked.body, timeout, secrets, idle=self._timeout, follow=False)

    def _failure(self, refused, response, key):
        clean = refused._replace(code=self._clean(refused.code), message=self._clean(refused.message))
        return answers.failure(clean, self.name(key), self.account.region, self._skew(response))

    def _clean(self, text):
        """A server's text without our keys, and without a signature: it may quote what it was sent."""
        import re

        return re.sub(r"[0-9A-Fa-f]{64}", "***", http.redact(text, self.account.keys))

    def _skew(self, response):
        """The seconds by which this host's clock is ahead of the server's; 0 where it does not tell the time."""
        from email.utils import parsedate_to_datetime

        try:
            return self._clock() - parsedate_to_datetime(response.headers["date"]).timestamp()
        except (KeyError, TypeError, ValueError):
            return 0


def redirected(source, location):
    """The Place that a redirect of the Place `source` names.

    Raises UsageFailure for one that must not learn whose key it is: another server, or one without the TLS we began
    with. AWS sends from one of its own hosts to another, which is allowed.
    """
    from urllib.parse import urljoin, urlsplit

    try:
        parts = urlsplit(urljoin(f"{source.scheme}://{source.host}{source.path}", location))
        target = Place(parts.scheme, parts.netloc, parts.path or "/")
        is_known = "@" not in target.host and _is_of_the_same(source, target)
    except ValueError:
        is_known, target = False, Place("", "elsewhere", "")
    if not is_known:
        raise UsageFailure(
            f"{source.scheme}://{source.host} redirects to {target.host.rpartition('@')[2]}, which is another server",
            "give that address in STORAGE_ENDPOINT if it is yours",
        )
    return target


def _is_of_the_same(source, target):
    from urllib.parse import urlsplit

    one, other = urlsplit("//" + source.host), urlsplit("//" + target.host)
    names = one.hostname or "", other.hostname or ""
    is_amazon = any(all(name.endswith(own) for name in names) for own in OWN_NAMES)
    is_near = names[0] == names[1] or names[1].endswith("." + names[0]) or is_amazon
    return is_near and one.port == other.port and target.scheme in ("https", source.scheme)
