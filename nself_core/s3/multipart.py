"""Sends streams of any length: one PUT where they are short, else parts, of which two are in memory at most.

While one part is on its way the next is read. Each part's SHA-256 is signed and checked by the server. What fails is
aborted, so that nobody pays for parts that no object shows; with `resume` it is left, and the next call for the same
key sends only the parts that the server does not have.
"""

from __future__ import annotations

import threading
from collections import namedtuple

from nself_core.failures import Failure, Unreachable
from nself_core.s3.client import Asked
from nself_core.s3.signing import sha256_hex
from nself_core.s3.store import SAME, STORED, TAKEN, checksum_header, md5, meta_headers, unquoted

MIB = 1024 * 1024
PART = 16 * MIB
LARGEST_PART = 1024 * MIB
MOST_PARTS = 10_000  # S3's own rule
DOUBLED_AFTER = 950  # parts; 14 GiB go in the first size, and 10,000 parts hold 5 TiB, which is S3's largest object
LEAVING = 5  # seconds that a part on its way is waited for when everything has failed

Uploaded = namedtuple("Uploaded", "outcome size sha256")
Uploaded.__doc__ = "`outcome` STORED, SAME or TAKEN (see store); `size` in bytes, `sha256` in hex of the whole stream."

Upload = namedtuple("Upload", "key id begun")
Upload.__doc__ = "An upload that was never completed; `begun` is ISO 8601 in UTC."

# digest: SHA-256 in hex; None where the server has not told it, as `modified`, ISO 8601 in UTC.
_Part = namedtuple("_Part", "number etag size digest modified", defaults=(None,))


def part_size(number, least=PART):
    """The bytes of part `number` (from 1), which grow so that a stream of unknown length fits into 10,000 parts."""
    return max(least, min(LARGEST_PART, least * 2 ** ((number - 1) // DOUBLED_AFTER)))


def upload(store, key, source, meta=None, *, only_new=False, resume=False, part=PART):
    """Store what `source.read(n)` gives, until it gives nothing, as one object, and return the Uploaded.

    Arguments: `meta`, texts by name; `only_new`, replace nothing: the outcome is SAME or TAKEN where the key is taken;
    `resume`, take up what an earlier call for this key left unfinished (its metadata stays as it was begun), and leave
    this one on failure; `part`, bytes of the first parts. Raises what Store's methods and `source.read` raise.
    """
    uploading = Uploading(store, key, meta, only_new=only_new, resume=resume, part=part)
    try:
        while data := source.read(MIB):
            uploading(data)
        return uploading.finish()
    except BaseException:
        uploading.leave(keep=resume)
        raise


class Uploading:
    """An object that is stored from the pieces it is called with; arguments as of `upload`.

    It ends by `finish` or by `leave`. A call waits for the part before the last one where that is still on its way.
    """

    def __init__(self, store, key, meta=None, *, only_new=False, resume=False, part=PART):
        import hashlib

        self._start = lambda: _Sending(store, key, meta, resume)
        self._put = lambda data: store.put(key, data, meta, only_new=only_new)
        self._only_new = only_new
        self._least = part
        self._number = 1
        # Two buffers that change places: one that grew would be copied each time it outgrows its place.
        self._buffer = bytearray(part_size(1, part))
        self._spare = bytearray()
        self._filled = 0
        self._sending = None
        self._digest = hashlib.sha256()
        self.size = 0

    def __call__(self, data):
        """Take the next bytes. Raises what sending those before them met, and Failure for more than S3 can hold."""
        self._digest.update(data)
        self.size += len(data)
        rest = memoryview(data)
        while rest:
            taken = rest[: len(self._buffer) - self._filled]
            self._buffer[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            rest = rest[len(taken) :]
            if self._filled == len(self._buffer):
                self._send()

    @property
    def _gathered(self):
        return memoryview(self._buffer)[: self._filled]

    def _send(self):
        """Have what has gathered sent as the next part, once that before it has arrived, whose buffer is free then."""
        if self._number > MOST_PARTS:
            raise Failure("the stream is longer than 5 TiB, which is more than an object may hold")
        if self._sending is None:
            self._sending = self._start()
        self._sending.send(self._number, self._gathered)
        self._number += 1
        size = part_size(self._number, self._least)
        if len(self._spare) != size:
            self._spare = bytearray(size)
        self._buffer, self._spare, self._filled = self._spare, self._buffer, 0

    def finish(self):
        """Say that nothing follows, and return the Uploaded."""
        if self._sending is None:
            outcome = self._put(self._gathered)
        else:
            if self._filled:
                self._send()
            outcome = self._sending.complete(self._only_new, self.size)
        return Uploaded(outcome, self.size, self._digest.hexdigest())

    def leave(self, keep=False):
        """End without an object; `keep` leaves the parts for who resumes. Raises nothing."""
        if self._sending is not None:
            self._sending.leave(keep)


class _Sending:
    # One multipart upload under way.

    def __init__(self, store, key, meta, resume):
        self._store = store
        self._client = store.client
        self._key = key
        self._stop = threading.Event()
        self._thread = None
        self._trouble = None
        self._sent = []
        self._there = {}
        self._id = None
        begun = _find_own(store, key) if resume else None
        if begun:
            self._id = begun.id
            self._there = {part.number: part for part in find_parts(store, begun)}
        else:
            self._id = self._begin(meta)

    def _begin(self, meta):
        headers = {**meta_headers(meta or {}), "x-amz-checksum-algorithm": "SHA256"}
        response = self._client.ask(Asked("POST", self._key, (("uploads", ""),), headers, b""))
        begun = self._client.document(response, "InitiateMultipartUploadResult").findtext("UploadId")
        if not begun:
            raise Unreachable(f"{self._client.name(self._key)}: the server began an upload without giving its id")
        return begun

    def send(self, number, data):
        """Send a part, once the one before it has arrived; returns while it is on its way."""
        self._wait()
        self._thread = threading.Thread(target=self._send, args=(number, data), daemon=True)
        self._thread.start()

    def _wait(self):
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._trouble is not None:
            raise self._trouble

    def _send(self, number, data):
        # Runs in a thread of its own; what it raises is raised again by `_wait`.
        try:
            digest = sha256_hex(data)
            etag = self._etag_there(number, data, digest)
            if etag is None:
                query = (("partNumber", str(number)), ("uploadId", self._id))
                asked = Asked("PUT", self._key, query, checksum_header(digest), data)
                etag = unquoted(self._client.ask(asked, stop=self._stop).headers.get("etag"))
            self._sent.append(_Part(number, etag, len(data), digest))
        except BaseException as error:
            self._trouble = error

    def _etag_there(self, number, data, digest):
        """The ETag of a part that an earlier call sent with just these bytes, else None."""
        part = self._there.get(number)
        if part is None or part.size != len(data):
            return None
        is_proven = part.digest == digest if part.digest else part.etag == md5(data).hex()
        return part.etag if is_proven else None

    def complete(self, only_new, size):
        """Make the object of its parts and return STORED, SAME or TAKEN."""
        self._wait()
        headers = {"Content-Type": "application/xml", **({"If-None-Match": "*"} if only_new else {})}
        body = _complete_document(self._sent)
        query = (("uploadId", self._id),)
        accepts = (404, 412, 501) if only_new else (404,)
        response = self._client.ask(Asked("POST", self._key, query, headers, body), accepts=accepts)
        if response.status == 501:
            return self._complete_unconditionally(query, headers, body, size)
        if response.status < 300:
            self._client.document(response, "CompleteMultipartUploadResult")
            return STORED
        # 404: the upload is gone, as it is when an earlier answer to this very request was lost on its way.
        return self._judge(response.status, size)

    def _complete_unconditionally(self, query, headers, body, size):
        # A server without conditional writes: look, then write.
        if self._store.head(self._key) is not None:
            return self._judge(412, size)
        del headers["If-None-Match"]
        response = self._client.ask(Asked("POST", self._key, query, headers, body), accepts=(404,))
        return STORED if response.status < 300 else self._judge(404, size)

    def _judge(self, status, size):
        """What to make of an object that is there already, or of an upload that is not."""
        there = self._store.head(self._key)
        is_same = there is not None and there.size == size and there.etag == _whole_etag(self._sent)
        if status == 404:
            if is_same:
                return STORED
            raise Failure(f"the upload of {self._client.name(self._key)} is gone: it was aborted by somebody else")
        abort_upload(self._store, Upload(self._key, self._id, None))
        return SAME if is_same else TAKEN

    def leave(self, keep):
        """End after a failure: abort the upload, unless it is to be resumed. Raises nothing more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(LEAVING)
        if keep:
            return
        try:
            abort_upload(self._store, Upload(self._key, self._id, None), self._stop)
        except Failure:
            pass  # what failed first is told; find_uploads finds what stays


def _whole_etag(parts):
    """The ETag of an object made of parts, as S3 makes it."""
    try:
        return f"{md5(b''.join(bytes.fromhex(part.etag) for part in parts)).hex()}-{len(parts)}"
    except ValueError:  # a server with ETags of its own
        return None


def _complete_document(parts):
    import base64
    from xml.etree import ElementTree

    root = ElementTree.Element("CompleteMultipartUpload")
    for part in parts:
        item = ElementTree.SubElement(root, "Part")
        ElementTree.SubElement(item, "PartNumber").text = str(part.number)
        ElementTree.SubElement(item, "ETag").text = f'"{part.etag}"'
        ElementTree.SubElement(item, "ChecksumSHA256").text = base64.b64encode(bytes.fromhex(part.digest)).decode()
    return ElementTree.tostring(root, encoding="utf-8")


# Uploads that were left.


def find_uploads(store, prefix=""):
    """Yield the Upload of each unfinished upload whose key begins with `prefix`, for sweeping."""
    from urllib.parse import unquote_plus

    query = {"uploads": "", "encoding-type": "url", "prefix": prefix}
    while True:
        response = store.client.ask(Asked("GET", query=tuple(query.items())))
        page = store.client.document(response, "ListMultipartUploadsResult")
        for item in page.iterfind("Upload"):
            key, begun = unquote_plus(item.findtext("Key") or ""), item.findtext("Initiated")
            yield Upload(key, item.findtext("UploadId"), begun)
        marker = unquote_plus(page.findtext("NextKeyMarker") or "")
        if page.findtext("IsTruncated") != "true" or not marker:
            return
        query["key-marker"] = marker
        query["upload-id-marker"] = page.findtext("NextUploadIdMarker") or ""


def _find_own(store, key):
    """The newest unfinished Upload of just this key, or None."""
    found = [each for each in find_uploads(store, key) if each.key == key]
    return max(found, key=lambda each: each.begun or "", default=None)


def find_parts(store, begun):
    """Yield the parts that the server has of an Upload."""
    import base64

    query = {"uploadId": begun.id}
    while True:
        response = store.client.ask(Asked("GET", begun.key, tuple(query.items())))
        page = store.client.document(response, "ListPartsResult")
        for item in page.iterfind("Part"):
            checksum = item.findtext("ChecksumSHA256")
            digest = base64.b64decode(checksum).hex() if checksum else None
            number, size = (int(item.findtext(name) or 0) for name in ("PartNumber", "Size"))
            yield _Part(number, unquoted(item.findtext("ETag")), size, digest, item.findtext("LastModified"))
        marker = page.findtext("NextPartNumberMarker")
        if page.findtext("IsTruncated") != "true" or not marker:
            return
        query["part-number-marker"] = marker


def last_sent(store, begun):
    """When an Upload last got a part, or was begun; ISO 8601 in UTC."""
    return max([begun.begun or "", *(part.modified or "" for part in find_parts(store, begun))])


def abort_upload(store, begun, stop=None):
    """Take back an Upload and its parts; one that is gone is no failure."""
    store.client.ask(Asked("DELETE", begun.key, (("uploadId", begun.id),)), accepts=(404,), stop=stop)
