"""What an S3 server says, read: documents in XML, refusals, and the failure that each refusal is."""

from __future__ import annotations

from collections import namedtuple

from nself_core import http
from nself_core.failures import CheckFailed, CredentialsRefused, Failure, FileFailure, Unreachable, UsageFailure

Refusal = namedtuple("Refusal", "status code message region")
Refusal.__doc__ = "A server's no: HTTP status, S3's code word and sentence or empty texts, the bucket's region or None."

# Refusals that the same request may not meet again. A damaged body is among them: it was whole when it left here.
DAMAGED = ("BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "InvalidDigest", "IncompleteBody")
PASSING_STATUS = (429, 500, 502, 503, 504)
PASSING = (
    *DAMAGED,
    "ConditionalRequestConflict",
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
)
CREDENTIALS = ("ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId", "SignatureDoesNotMatch")
OTHER_REGION = ("AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException")
SKEW = 5 * 60  # seconds of difference that are worth a word; S3 refuses from 15 minutes on


class NoSuchObject(FileFailure):
    """The bucket has no object of this key."""

    code = "no_such_object"


class Busy(Unreachable):
    """The server is there, and says that it cannot now."""


def read_xml(body):
    """The root element of a document, its names without their namespaces. Raises ValueError for what is none.

    A DOCTYPE is refused: S3 sends none, and the entities it may declare can grow a small answer beyond all memory.
    """
    from xml.etree import ElementTree

    text = body.decode("utf-8").lstrip("\ufeff \r\n\t")
    if "<!DOCTYPE" in text:
        raise ValueError("a document with a DOCTYPE")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(str(error)) from None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def refusal(method, response):
    """The Refusal that an answer is, or None. A POST may be refused under 200: S3 answers before its work is done."""
    if response.status < 300 and not (method == "POST" and b"<Error" in response.body[:1000]):
        return None
    region = response.headers.get("x-amz-bucket-region")
    try:
        root = read_xml(response.body)
    except ValueError:
        root = None
    if root is None or root.tag != "Error":
        said = http.first_line(response.body, ())
        return None if response.status < 300 else Refusal(response.status, "", said, region)
    code, message = (_one_line(root.findtext(name)) for name in ("Code", "Message"))
    return Refusal(response.status, code, message, region or root.findtext("Region"))


def _one_line(text):
    line = " ".join((text or "").split())[:300]
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)


def may_pass(refused):
    """Whether asking again may help."""
    return refused.status in PASSING_STATUS or refused.code in PASSING


def failure(refused, place, region, skew):
    """The failure that a Refusal is.

    Arguments: `place`, what was asked, for the message; `region`, ours; `skew`, the seconds this host's clock is ahead
    of the server's.
    """
    said = ": ".join(filter(None, (refused.code, refused.message))) or "no reason given"
    message = f"{place}: {said} ({refused.status})"
    if refused.code == "RequestTimeTooSkewed" or (refused.status in (401, 403) and abs(skew) > SKEW):
        return CredentialsRefused(message, f"this host's clock is {_offset(skew)} the server's: set it right")
    is_elsewhere = refused.region not in (None, region)
    if refused.code in OTHER_REGION or refused.status == 301 or (refused.status == 400 and is_elsewhere):
        wanted = f"set STORAGE_REGION to {refused.region}" if is_elsewhere else "check STORAGE_REGION, STORAGE_ENDPOINT"
        return UsageFailure(message, f"{wanted} (the region is {region} now)")
    if refused.status in (401, 403) or refused.code in CREDENTIALS:
        return CredentialsRefused(message, "check access key and secret key, and what they may do with this bucket")
    return _kind(refused)(message)


def _kind(refused):
    if refused.code in DAMAGED:
        return CheckFailed
    if refused.code == "NoSuchBucket":
        return UsageFailure
    if refused.status == 404:
        return NoSuchObject
    if refused.status < 500:
        return Failure
    return Busy if may_pass(refused) else Unreachable


def _offset(skew):
    """A difference of clocks in words: 1 h 0 min ahead of."""
    hours, minutes = divmod(round(abs(skew) / 60), 60)
    return f"{hours} h {minutes} min {'ahead of' if skew > 0 else 'behind'}"
