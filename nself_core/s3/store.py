"""The verbs of a bucket's objects: put, get, head, find, delete.

Every object that `put` writes carries its SHA-256 in its metadata and has it checked by the server. With `only_new`
an object that is there already is never written over: two primaries that archive to one place cannot harm each other.
"""

from __future__ import annotations

import base64
import time
from collections import namedtuple

from nself_core.failures import CheckFailed, Failure, UsageFailure
from nself_core.s3.client import FIRST_PAUSE, TIMEOUT, TRIES, Asked, Client

# What became of a write: done, already there with the same content, or the name is taken by another content.
STORED, SAME, TAKEN = "stored", "same", "taken"

SHA256 = "sha256"  # the name of our checksum among an object's metadata
AT_ONCE = 1000  # keys in one multi-delete, by S3's own rule
META = "x-amz-meta-"

Head = namedtuple("Head", "size etag meta checksum modified")
Head.__doc__ = (
    "What HEAD tells: `size` in bytes; `etag` without quotes; `meta`, texts by name; `checksum`, the server's own "
    "x-amz-checksum-sha256 or None; `modified`, the Last-Modified text."
)

Entry = namedtuple("Entry", "key size etag modified")
Entry.__doc__ = "One object of a listing; `modified` is ISO 8601 in UTC."


class Store:
    """The objects of one Account.

    Arguments: `account`; `timeout`, `tries`, `first_pause`, `clock` and `patience`, as Client takes them. Every method
    raises what Client.ask raises: CredentialsRefused, UsageFailure, CheckFailed, Unreachable, or Failure.
    """

    def __init__(self, account, timeout=TIMEOUT, tries=TRIES, first_pause=FIRST_PAUSE, clock=time.time, patience=0):
        self.account = account
        self.client = Client(account, timeout, tries, first_pause, clock, patience)

    def head(self, key):
        """The Head of an object, or None where there is none."""
        response = self.client.ask(Asked("HEAD", key, headers={"x-amz-checksum-mode": "ENABLED"}), accepts=(404,))
        return None if response.status == 404 else _head(response.headers)

    def get(self, key):
        """The bytes of a small object (64 MiB at most; download fetches larger ones), held to its checksum.

        Raises NoSuchObject, and CheckFailed where the bytes are not those that were stored.
        """
        response = self.client.ask(Asked("GET", key))
        check_sha256(response.body, _head(response.headers).meta.get(SHA256), self.client.name(key))
        return response.body

    def put(self, key, data, meta=None, *, only_new=False):
        """Store bytes as one object and return STORED; with `only_new` also SAME or TAKEN, and nothing is replaced.

        `meta` is texts by name, in ASCII.
        """
        from nself_core.s3.signing import sha256_hex

        digest = sha256_hex(data)
        headers = {**meta_headers({**(meta or {}), SHA256: digest}), **checksum_header(digest)}
        if not only_new:
            self.client.ask(Asked("PUT", key, headers=headers, body=data))
            return STORED
        return self._put_new(Asked("PUT", key, headers=headers, body=data), digest)

    def _put_new(self, asked, digest):
        conditional = asked._replace(headers={**asked.headers, "If-None-Match": "*"})
        response = self.client.ask(conditional, accepts=(412, 501))
        if response.status < 300:
            return STORED
        there = self.head(asked.key)
        if there is None and response.status == 501:  # a server without conditional writes: look, then write
            self.client.ask(asked)
            return STORED
        if there is None:
            raise Failure(f"{self.client.name(asked.key)} was there when it was to be written, and is gone now")
        return SAME if _is_same(there, len(asked.body), digest) else TAKEN

    def find_objects(self, prefix="", *, after=""):
        """Yield the Entry of each object whose key begins with `prefix`, in the order of keys, from behind `after`."""
        for page in self._pages(prefix, "", after):
            for item in page.iterfind("Contents"):
                size = int(item.findtext("Size") or 0)
                yield Entry(_key(item, "Key"), size, unquoted(item.findtext("ETag")), item.findtext("LastModified"))

    def find_folders(self, prefix=""):
        """Yield each prefix one slash below `prefix`, which is "" or ends in a slash."""
        for page in self._pages(prefix, "/", ""):
            for item in page.iterfind("CommonPrefixes"):
                yield _key(item, "Prefix")

    def _pages(self, prefix, delimiter, after):
        wanted = {"prefix": prefix, "delimiter": delimiter, "start-after": after}
        query = {"list-type": "2", "encoding-type": "url"}
        query.update((name, value) for name, value in wanted.items() if value)
        while True:
            response = self.client.ask(Asked("GET", query=tuple(query.items())))
            page = self.client.document(response, "ListBucketResult")
            yield page
            token = page.findtext("NextContinuationToken")
            if page.findtext("IsTruncated") != "true" or not token:
                return
            query["continuation-token"] = token

    def delete(self, key):
        """Delete an object; one that is not there is deleted already."""
        self.client.ask(Asked("DELETE", key), accepts=(404,))

    def delete_all(self, keys):
        """Delete objects, a thousand at a time. Raises Failure that names the first one that was not deleted."""
        keys = list(keys)
        failed = []
        for start in range(0, len(keys), AT_ONCE):
            failed += self._delete_many(keys[start : start + AT_ONCE])
        if failed:
            key, said = failed[0]
            count = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
            raise Failure(f"not deleted: {self.client.name(key)}{count}: {said}")

    def _delete_many(self, keys):
        """Delete at most a thousand and return (key, what the server says) of those that it did not delete."""
        body = _delete_document(keys)
        headers = {"Content-MD5": base64.b64encode(md5(body)).decode(), "Content-Type": "application/xml"}
        response = self.client.ask(Asked("POST", query=(("delete", ""),), headers=headers, body=body))
        root = self.client.document(response, "DeleteResult")
        return [(item.findtext("Key") or "", item.findtext("Code")) for item in root.iterfind("Error")]

    def check(self):
        """Ask whether the bucket is there and may be read; returns nothing, raises what is wrong."""
        query = (("list-type", "2"), ("max-keys", "1"))
        self.client.document(self.client.ask(Asked("GET", query=query)), "ListBucketResult")


# Texts of headers and documents.


def check_sha256(data, expected, name):
    """Raises CheckFailed where bytes have another SHA-256 than `expected`, hex digits; None is not checked."""
    from nself_core.s3.signing import sha256_hex

    if expected is not None and sha256_hex(data) != expected:
        raise damaged(name)


def damaged(name):
    """The failure of an object whose bytes are not those that were stored."""
    return CheckFailed(f"{name} is damaged: its SHA-256 is not the one that it was stored with")


def checksum_header(digest):
    """The header that has the server check a body against its SHA-256, given in hex digits."""
    return {"x-amz-checksum-sha256": base64.b64encode(bytes.fromhex(digest)).decode()}


def meta_headers(meta):
    """The headers that carry an object's metadata. Raises UsageFailure for what a header cannot carry everywhere."""
    for name, value in meta.items():
        if not value.isascii() or not value.isprintable() or not name.replace("-", "a").isalnum() or not name.isascii():
            raise UsageFailure(f"metadata {ascii(name)} is not plain ASCII", "store its percent-encoding instead")
    return {META + name.lower(): value for name, value in meta.items()}


def md5(data):
    """The MD5 of bytes, as S3 wants it of some bodies and makes ETags of; it guards nothing here."""
    import hashlib

    return hashlib.md5(data, usedforsecurity=False).digest()


def unquoted(etag):
    """An ETag without its quotes; "" for None."""
    return (etag or "").strip('"')


def _head(headers):
    meta = {name[len(META) :]: value for name, value in headers.items() if name.startswith(META)}
    return Head(
        int(headers.get("content-length", 0)),
        unquoted(headers.get("etag")),
        meta,
        headers.get("x-amz-checksum-sha256"),
        headers.get("last-modified"),
    )


def _is_same(head, size, digest):
    return head.size == size and head.meta.get(SHA256) == digest


def _key(item, name):
    # Asked for by encoding-type=url: XML cannot hold every character that a key may.
    from urllib.parse import unquote_plus

    return unquote_plus(item.findtext(name) or "")


def _delete_document(keys):
    from xml.etree import ElementTree

    root = ElementTree.Element("Delete")
    ElementTree.SubElement(root, "Quiet").text = "true"
    for key in keys:
        ElementTree.SubElement(ElementTree.SubElement(root, "Object"), "Key").text = key
    return ElementTree.tostring(root, encoding="utf-8")
