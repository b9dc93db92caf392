"""AWS Signature Version 4 as S3 wants it: facts in, texts and headers out.

S3 differs from AWS' other services: a path is percent-encoded once and never normalised, so that `//`, `.` and `..`
in a key stay as they are, and the hash of the payload is itself a signed header. No payload goes out unsigned.
"""

from __future__ import annotations

from collections import namedtuple

ALGORITHM = "AWS4-HMAC-SHA256"

Keys = namedtuple("Keys", "access_key secret_key token")
Keys.__doc__ = "Credentials: `token` is the session token of temporary ones, None for lasting ones."


class Scope(namedtuple("Scope", "moment region service")):
    """When and for what a signature is good: `moment`, UTC as YYYYMMDDTHHMMSSZ."""

    __slots__ = ()

    def __str__(self):
        return f"{self.moment[:8]}/{self.region}/{self.service}/aws4_request"


def encoded(text, kept=""):
    """`text` percent-encoded as AWS wants it: all but letters, digits, `-._~` and what `kept` names."""
    from urllib.parse import quote

    return quote(text, safe=kept)


def query_string(pairs):
    """The query of (name, value) pairs in the one order that is both sent and signed; empty values keep their `=`."""
    return "&".join(f"{name}={value}" for name, value in sorted((encoded(one), encoded(two)) for one, two in pairs))


def sha256_hex(data):
    """The SHA-256 of bytes, in hex digits."""
    import hashlib

    return hashlib.sha256(data).hexdigest()


def canonical_request(method, path, query, headers, payload_hash):
    """The text that stands for a request.

    Arguments: `path`, percent-encoded as it is sent; `query`, of `query_string`; `headers`, texts by name, all of
    which are signed; `payload_hash`, of `sha256_hex`.
    """
    lines = [f"{name.lower()}:{' '.join(value.split())}" for name, value in _sorted(headers)]
    return "\n".join([method, path, query, *lines, "", signed_names(headers), payload_hash])


def signed_names(headers):
    """The names of the signed headers, as signature and request list them."""
    return ";".join(name.lower() for name, _ in _sorted(headers))


def _sorted(headers):
    return sorted(headers.items(), key=lambda item: item[0].lower())


def string_to_sign(scope, canonical):
    """The text whose signature is the request's."""
    return "\n".join([ALGORITHM, scope.moment, str(scope), sha256_hex(canonical.encode("utf-8"))])


def signature(secret_key, scope, text):
    """The signature of `text` in hex digits."""
    import hmac

    key = b"AWS4" + secret_key.encode("utf-8")
    for part in [*str(scope).split("/"), text]:
        key = hmac.digest(key, part.encode("utf-8"), "sha256")
    return key.hex()


def signed_headers(method, path, query, headers, payload_hash, keys, scope):
    """All headers of a request, its signature among them.

    Arguments as of `canonical_request`; `headers` must hold Host exactly as it will be sent.
    """
    whole = {**headers, "x-amz-date": scope.moment, "x-amz-content-sha256": payload_hash}
    if keys.token:
        whole["x-amz-security-token"] = keys.token
    text = string_to_sign(scope, canonical_request(method, path, query, whole, payload_hash))
    credential = f"Credential={keys.access_key}/{scope}"
    signed = signature(keys.secret_key, scope, text)
    whole["Authorization"] = f"{ALGORITHM} {credential}, SignedHeaders={signed_names(whole)}, Signature={signed}"
    return whole
