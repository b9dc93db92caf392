"""The S3 client on a real server that checks signatures, hashes and conditions."""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import stat
import threading
import time
import tracemalloc

import pytest

from nself_core.failures import CheckFailed, CredentialsRefused, Failure, FileFailure, LockHeld, UsageFailure
from nself_core.s3 import download, multipart
from nself_core.s3.account import make_account, read_account
from nself_core.s3.answers import NoSuchObject
from nself_core.s3.client import Asked
from nself_core.s3.download import fetch, fetch_file
from nself_core.s3.multipart import abort_upload, find_parts, find_uploads, part_size, upload
from nself_core.s3.signing import Keys
from nself_core.s3.store import SAME, STORED, TAKEN, Store
from nself_core.settings import load_settings

MIB = 1024 * 1024
PART = 5 * MIB  # the smallest that S3 takes for a part that is not the last
HARD_NAMES = [
    "plain",
    "a b+c",
    "100% é",
    "%41",
    "a//b",
    "./a/../b",
    "q?x=1&y#z",
    "$$'\"<>\\",
    "\U0001f418/",
    "tab\tx",
    "é" * 100,
]

_numbers = itertools.count(1)


def account_of(server, **changes):
    """The Account of a server of the bed."""
    facts = {"access_key": server.access_key, "secret_key": server.secret_key, "bucket": server.bucket, **changes}
    keys = Keys(facts.pop("access_key"), facts.pop("secret_key"), None)
    return make_account(server.endpoint, facts.pop("bucket"), keys, region=facts.pop("region", server.region), **facts)


@pytest.fixture(scope="module")
def store(s3_server):
    """A Store of the server's bucket, which is made if it is not there."""
    store = Store(account_of(s3_server), tries=3, first_pause=0.01)
    store.client.ask(Asked("PUT"), accepts=(409,))
    return store


@pytest.fixture
def folder(store):
    """A prefix of the test's own."""
    name = f"t{os.getpid()}-{next(_numbers)}/"
    yield name
    store.delete_all([entry.key for entry in store.find_objects(name)])


def content(size, seed=b"x"):
    """`size` bytes that differ from place to place."""
    block = b"".join(hashlib.sha256(seed + bytes([each])).digest() for each in range(256))
    return (block * (size // len(block) + 1))[:size]


def record_requests(store, monkeypatch):
    """The list to which each request of `store` is added from now on."""
    sent = []
    asked = store.client.ask

    def ask(one, **more):
        sent.append(one)
        return asked(one, **more)

    monkeypatch.setattr(store.client, "ask", ask)
    return sent


def sha256(data):
    return hashlib.sha256(data).hexdigest()


# Objects.


@pytest.mark.parametrize("name", HARD_NAMES)
def test_an_object_of_any_name_comes_back(store, folder, name):
    data = name.encode() * 3
    assert store.put(folder + name, data) == STORED
    assert store.get(folder + name) == data
    assert [entry.key for entry in store.find_objects(folder)] == [folder + name]
    store.delete_all([folder + name])
    assert store.head(folder + name) is None


def test_an_empty_object_is_an_object(store, folder):
    store.put(folder + "empty", b"")
    assert store.get(folder + "empty") == b""
    assert store.head(folder + "empty").size == 0


def test_head_tells_size_metadata_and_etag(store, folder):
    store.put(folder + "a", b"abc", {"Kind": "base backup, 100 %"})
    head = store.head(folder + "a")
    assert (head.size, head.etag, head.meta["kind"]) == (3, hashlib.md5(b"abc").hexdigest(), "base backup, 100 %")
    assert head.meta["sha256"] == sha256(b"abc")


def test_what_is_not_there(store, folder):
    assert store.head(folder + "no") is None
    with pytest.raises(NoSuchObject, match="no in bucket.*NoSuchKey") as caught:
        store.get(folder + "no")
    assert caught.value.exit_code == 1
    store.delete(folder + "no")
    store.delete_all([folder + "no"])


@pytest.mark.parametrize("meta", [{"a": "é"}, {"a": "x\ny"}, {"a b": "x"}, {"é": "x"}])
def test_metadata_that_no_header_carries_is_refused(store, folder, meta):
    with pytest.raises(UsageFailure, match="is not plain ASCII"):
        store.put(folder + "a", b"", meta)


@pytest.mark.parametrize("key", ["", "x" * 1025, "é" * 513, "\udc80"])
def test_a_key_that_s3_cannot_hold_is_refused(store, key):
    with pytest.raises(UsageFailure, match="cannot be an object's key"):
        store.put(key, b"")


def test_a_body_that_is_not_what_was_hashed_is_refused_and_not_stored(store, folder):
    wrong = {"x-amz-checksum-sha256": "A" * 43 + "="}
    with pytest.raises(CheckFailed, match="BadDigest"):
        store.client.ask(Asked("PUT", folder + "a", headers=wrong, body=b"abc"))
    assert store.head(folder + "a") is None


def test_a_damaged_object_is_told(store, folder):
    meta = {"x-amz-meta-sha256": sha256(b"other")}
    store.client.ask(Asked("PUT", folder + "a", headers=meta, body=b"abc"))
    with pytest.raises(CheckFailed, match="is damaged"):
        store.get(folder + "a")


# Never written over.


def test_only_new_writes_once(store, folder):
    assert store.put(folder + "wal", b"one", only_new=True) == STORED
    assert store.put(folder + "wal", b"one", only_new=True) == SAME
    assert store.put(folder + "wal", b"two", only_new=True) == TAKEN
    assert store.get(folder + "wal") == b"one"


def test_of_many_writers_at_once_the_later_ones_are_told(store, folder):
    # How many of those that begin in the same instant are let in is the server's matter: AWS takes one, Swift may
    # take those that came before the first had ended.
    outcomes = []
    data = [bytes([number]) * 1000 for number in range(8)]
    writers = [
        threading.Thread(target=lambda each=each: outcomes.append(store.put(folder + "wal", each, only_new=True)))
        for each in data
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(outcomes) == 8
    assert STORED in outcomes
    assert set(outcomes) <= {STORED, TAKEN}
    there = store.get(folder + "wal")
    assert [store.put(folder + "wal", each, only_new=True) for each in data] == [
        SAME if each == there else TAKEN for each in data
    ]


@pytest.mark.parametrize(("second", "outcome"), [(b"x", SAME), (b"y", TAKEN)])
def test_an_upload_in_parts_does_not_write_over_either(store, folder, second, outcome):
    first, other = content(PART + 9, b"x"), content(PART + 9, second)
    assert upload(store, folder + "a", io.BytesIO(first), only_new=True, part=PART).outcome == STORED
    assert upload(store, folder + "a", io.BytesIO(other), only_new=True, part=PART).outcome == outcome
    assert not list(find_uploads(store, folder))
    seen = hashlib.sha256()
    fetch(store, folder + "a", seen.update)
    assert seen.hexdigest() == sha256(first)


# Listings.


def test_a_listing_has_every_page(store, folder, monkeypatch):
    keys = [f"{folder}{number:02} +%" for number in range(7)]
    for key in keys:
        store.put(key, key.encode())
    asked = store.client.ask
    monkeypatch.setattr(store.client, "ask", lambda one, **more: asked(_three_a_page(one), **more))
    entries = list(store.find_objects(folder))
    assert [entry.key for entry in entries] == keys
    assert {entry.size for entry in entries} == {len(keys[0])}
    assert entries[0].etag == hashlib.md5(keys[0].encode()).hexdigest()
    assert [entry.key for entry in store.find_objects(folder, after=keys[4])] == keys[5:]


def _three_a_page(asked):
    return asked._replace(query=(*asked.query, ("max-keys", "3"))) if asked.method == "GET" else asked


def test_folders_are_found(store, folder):
    for name in ("a/1", "a/2", "b c/1", "d"):
        store.put(folder + name, b"")
    assert list(store.find_folders(folder)) == [folder + "a/", folder + "b c/"]


def test_many_are_deleted_at_once(store, folder, monkeypatch):
    monkeypatch.setattr("nself_core.s3.store.AT_ONCE", 2)
    keys = [f"{folder}{number} <&>" for number in range(5)]
    for key in keys:
        store.put(key, b"")
    store.delete_all(keys[:4])
    assert [entry.key for entry in store.find_objects(folder)] == keys[4:]


# Uploads in parts.


class Trickle(io.RawIOBase):
    """A source that gives a little at a time, as a pipe does."""

    def __init__(self, data, step=70_001):
        self._inner = io.BytesIO(data)
        self._step = step

    def read(self, size=-1):
        return self._inner.read(min(size, self._step))


class Failing(io.RawIOBase):
    """A source that gives `data` and then fails."""

    def __init__(self, data, error):
        self._inner = io.BytesIO(data)
        self._error = error

    def read(self, size=-1):
        data = self._inner.read(size)
        if not data:
            raise self._error
        return data


@pytest.mark.parametrize("size", [0, 10, PART - 1, PART, PART + 1, 2 * PART, 2 * PART + 100])
def test_a_stream_of_any_length_is_one_object(store, folder, size):
    data = content(size)
    done = upload(store, folder + "a", Trickle(data), {"kind": "dump"}, part=PART)
    assert done == (STORED, size, sha256(data))
    pieces = []
    assert fetch(store, folder + "a", pieces.append, piece=MIB).sha256 == sha256(data)
    assert b"".join(pieces) == data
    assert store.head(folder + "a").meta["kind"] == "dump"
    assert not list(find_uploads(store, folder))


@pytest.mark.parametrize("error", [OSError("pg_dump died"), KeyboardInterrupt()])
def test_an_upload_that_fails_leaves_nothing(store, folder, error):
    with pytest.raises(type(error)):
        upload(store, folder + "a", Failing(content(2 * PART), error), part=PART)
    assert not list(find_uploads(store, folder))
    assert store.head(folder + "a") is None


def test_an_upload_is_resumed_with_the_parts_that_are_there(store, folder, monkeypatch):
    data = content(3 * PART + 5)
    with pytest.raises(OSError, match="cut"):
        upload(store, folder + "a", Failing(data[: 2 * PART], OSError("cut")), resume=True, part=PART)
    begun = list(find_uploads(store, folder))
    assert [each.key for each in begun] == [folder + "a"]
    assert [part.number for part in find_parts(store, begun[0])] == [1, 2]
    sent = record_requests(store, monkeypatch)
    assert upload(store, folder + "a", io.BytesIO(data), resume=True, part=PART) == (STORED, len(data), sha256(data))
    assert [dict(one.query).get("partNumber") for one in sent if one.method == "PUT"] == ["3", "4"]
    fetched = []
    fetch(store, folder + "a", fetched.append)
    assert b"".join(fetched) == data


def test_a_resumed_upload_sends_anew_what_has_changed(store, folder):
    old, new = content(2 * PART, b"old"), content(2 * PART, b"old")[:PART] + content(PART + 1, b"new")
    with pytest.raises(OSError, match="cut"):
        upload(store, folder + "a", Failing(old, OSError("cut")), resume=True, part=PART)
    upload(store, folder + "a", io.BytesIO(new), resume=True, part=PART)
    fetched = []
    fetch(store, folder + "a", fetched.append)
    assert b"".join(fetched) == new


def test_uploads_that_were_left_are_found_and_swept(store, folder):
    for name in ("a b", "c+é"):
        with pytest.raises(OSError, match="cut"):
            upload(store, folder + name, Failing(content(PART), OSError("cut")), resume=True, part=PART)
    begun = list(find_uploads(store, folder))
    assert [each.key for each in begun] == [folder + "a b", folder + "c+é"]
    assert begun[0].begun[:4].isdigit()
    for each in [*begun, *begun]:  # a second time it is gone already
        abort_upload(store, each)
    assert not list(find_uploads(store, folder))


def test_an_upload_that_another_took_away_is_a_failure(store, folder):
    data = content(2 * PART)

    class Thief(Trickle):
        def read(self, size=-1):
            if self._inner.tell() > PART + MIB:
                for each in find_uploads(store, folder):
                    abort_upload(store, each)
            return super().read(size)

    with pytest.raises(Failure, match="gone|NoSuchUpload"):
        upload(store, folder + "a", Thief(data, MIB), part=PART)
    assert store.head(folder + "a") is None


def test_a_completion_whose_answer_was_lost_is_seen_to_have_happened(store, folder, monkeypatch):
    asked = store.client.ask

    def twice(one, **more):
        if b"CompleteMultipartUpload" in (one.body or b"")[:40]:
            asked(one, **more)
        return asked(one, **more)

    monkeypatch.setattr(store.client, "ask", twice)
    data = content(PART + 5)
    assert upload(store, folder + "a", io.BytesIO(data), part=PART).outcome == STORED
    assert upload(store, folder + "b", io.BytesIO(data), part=PART, only_new=True).outcome in (STORED, SAME)


def test_memory_holds_two_parts_at_most(store, folder):
    class Zeros:
        left = 8 * PART

        def read(self, size):
            size = min(size, self.left)
            self.left -= size
            return bytes(size)

    tracemalloc.start()
    try:
        upload(store, folder + "a", Zeros(), part=PART)
        uploading = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        fetch(store, folder + "a", lambda data: None, parallel=2, piece=2 * MIB)
        fetching = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert uploading < 2.5 * PART + 4 * MIB
    assert fetching < 16 * MIB


def test_part_sizes_suffice_for_the_largest_object():
    sizes = [part_size(number) for number in range(1, multipart.MOST_PARTS + 1)]
    assert sizes[0] == 16 * MIB
    assert sum(sizes) >= 5 * MIB * MIB
    assert sizes == sorted(sizes)
    assert max(sizes) <= 1024 * MIB


# Downloads.


@pytest.fixture(scope="module")
def large(store):
    """(key, bytes) of an object of some pieces."""
    data = content(3 * MIB + 77)
    key = f"t{os.getpid()}-large"
    store.put(key, data)
    yield key, data
    store.delete(key)


def test_a_file_is_fetched_whole_and_for_its_owner_alone(store, large, tmp_path):
    path = tmp_path / "a file"
    done = fetch_file(store, large[0], str(path), piece=MIB)
    assert path.read_bytes() == large[1]
    assert done == (len(large[1]), sha256(large[1]), 0)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["a file"]


def unfinished(store, key, path):
    """The file in which a fetch to `path` is under way."""
    return path.with_name(f".{path.name}.{download._short(store.head(key).etag)}.part")


def test_a_fetch_goes_on_where_a_dead_run_ended(store, large, tmp_path, monkeypatch):
    key, data = large
    unfinished(store, key, tmp_path / "f").write_bytes(data[: 2 * MIB + 5])
    sent = record_requests(store, monkeypatch)
    assert fetch_file(store, key, str(tmp_path / "f"), piece=MIB).resumed_at == 2 * MIB + 5
    assert (tmp_path / "f").read_bytes() == data
    ranges = [(one.headers or {}).get("Range") for one in sent]
    assert ranges[1:] == [f"bytes={2 * MIB + 5}-{3 * MIB + 4}", f"bytes={3 * MIB + 5}-{len(data) - 1}"]


@pytest.mark.parametrize("left", [b"damaged" * 100, b"x" * (4 * MIB)])
def test_what_a_dead_run_left_damaged_is_not_taken(store, large, tmp_path, left):
    key, data = large
    unfinished(store, key, tmp_path / "f").write_bytes(left)
    if len(left) < len(data):
        with pytest.raises(CheckFailed, match="is damaged"):
            fetch_file(store, key, str(tmp_path / "f"), piece=MIB)
        assert os.listdir(tmp_path) == []
    fetch_file(store, key, str(tmp_path / "f"), piece=MIB)
    assert (tmp_path / "f").read_bytes() == data


def test_without_a_checksum_nothing_is_resumed(store, folder, tmp_path):
    store.client.ask(Asked("PUT", folder + "a", body=b"0123456789"))
    unfinished(store, folder + "a", tmp_path / "f").write_bytes(b"xxxx")
    assert fetch_file(store, folder + "a", str(tmp_path / "f")).resumed_at == 0
    assert (tmp_path / "f").read_bytes() == b"0123456789"


def test_a_wrong_checksum_of_the_caller_is_told_and_the_file_kept(store, large, tmp_path):
    (tmp_path / "f").write_bytes(b"old")
    with pytest.raises(CheckFailed, match="is damaged"):
        fetch_file(store, large[0], str(tmp_path / "f"), sha256="0" * 64)
    assert (tmp_path / "f").read_bytes() == b"old"
    with pytest.raises(CheckFailed, match="is damaged"):
        fetch(store, large[0], lambda data: None, sha256="0" * 64)


def test_an_object_that_changes_meanwhile_is_told(store, folder, tmp_path):
    store.put(folder + "a", content(3 * MIB))

    def write(data):
        store.put(folder + "a", content(3 * MIB, b"new"))

    with pytest.raises(CheckFailed, match="was changed while it was fetched"):
        fetch(store, folder + "a", write, parallel=1, piece=MIB)


def test_two_runs_do_not_write_one_file(store, large, tmp_path):
    with download._opened(str(unfinished(store, large[0], tmp_path / "f"))), pytest.raises(LockHeld) as caught:
        fetch_file(store, large[0], str(tmp_path / "f"))
    assert caught.value.exit_code == 4


def test_a_place_that_cannot_be_written_is_told(store, large, tmp_path):
    with pytest.raises(FileFailure, match="cannot be written"):
        fetch_file(store, large[0], str(tmp_path / "no" / "f"))
    with pytest.raises(NoSuchObject):
        fetch_file(store, large[0] + "x", str(tmp_path / "f"))
    assert os.listdir(tmp_path) == []


# Who may, and where.


@pytest.mark.parametrize("change", [{"secret_key": "wrong/secret"}, {"access_key": "nobody:here"}])
def test_wrong_keys_are_refused_keys(s3_server, store, change):
    wrong = Store(account_of(s3_server, **change), tries=1)
    for ask in (wrong.check, lambda: wrong.put("a", b"x"), lambda: wrong.head("a"), lambda: wrong.get("a")):
        with pytest.raises(CredentialsRefused) as caught:
            ask()
        said = f"{caught.value} {caught.value.hint}"
        assert caught.value.exit_code == 3
        assert s3_server.secret_key not in said
        assert not any(value in said for value in change.values())


def test_a_wrong_clock_is_told_with_its_offset(s3_server, store):
    fast = Store(account_of(s3_server), tries=1, clock=lambda: time.time() + 3660)
    with pytest.raises(CredentialsRefused, match="RequestTimeTooSkewed") as caught:
        fast.check()
    assert caught.value.hint == "this host's clock is 1 h 1 min ahead of the server's: set it right"


def test_a_wrong_region_is_told(s3_server, store):
    with pytest.raises(UsageFailure, match="AuthorizationHeaderMalformed") as caught:
        Store(account_of(s3_server, region="eu-north-9"), tries=1).check()
    assert "STORAGE_REGION" in caught.value.hint


def test_a_bucket_that_is_not_there_is_told(s3_server, store):
    with pytest.raises(UsageFailure, match="bucket no-such-bucket at .*NoSuchBucket"):
        Store(account_of(s3_server, bucket="no-such-bucket"), tries=1).check()
    store.check()


# Settings.

KEYS = {"STORAGE_ACCESS_KEY": "ak", "STORAGE_SECRET_KEY": "sk"}


def read(tmp_path, **environ):
    (tmp_path / "migrations").mkdir(exist_ok=True)
    return read_account(load_settings(str(tmp_path), environ=environ))


def test_the_settings_name_the_store(tmp_path):
    account = read(
        tmp_path, **KEYS, STORAGE_ENDPOINT="https://Minio.Example:443/base/", STORAGE_BUCKET="b", STORAGE_REGION="r",
        STORAGE_PREFIX="/one/two/", STORAGE_SESSION_TOKEN="tk", S3_BUCKET="other", MINIO_ROOT_USER="root",
    )  # fmt: skip
    assert account.place("k") == ("https", "minio.example", "/base/b/k")
    assert (account.region, account.prefix, account.keys) == ("r", "one/two/", ("ak", "sk", "tk"))


@pytest.mark.parametrize(("environ", "endpoint", "keys"), [
    ({"BACKUP_S3_ACCESS_KEY_ID": "i", "BACKUP_S3_SECRET_ACCESS_KEY": "s", "BACKUP_S3_REGION": "eu-west-1"},
     "s3.eu-west-1.amazonaws.com", ("i", "s")),
    ({"S3_ACCESS_KEY": "i", "S3_SECRET_KEY": "s", "S3_ENDPOINT": "http://[::1]:9000"}, "[::1]:9000", ("i", "s")),
    ({"MINIO_ROOT_USER": "i", "MINIO_ROOT_PASSWORD": "s", "MINIO_PORT": "9100"}, "localhost:9100", ("i", "s")),
    ({"MINIO_ROOT_USER": "i", "MINIO_ROOT_PASSWORD": "s"}, "localhost:9000", ("i", "s")),
    ({**KEYS, "S3_SECRET_KEY": "other", "S3_ENDPOINT": "http://h:80"}, "h", ("ak", "sk")),
])  # fmt: skip
def test_each_setting_falls_back(tmp_path, environ, endpoint, keys):
    account = read(tmp_path, STORAGE_BUCKET="b", **environ)
    assert (account.endpoint.host, account.keys[:2]) == (endpoint, keys)


def test_a_bucket_has_its_own_host_at_amazon_only(tmp_path):
    amazon = {"S3_ENDPOINT": "https://s3.us-east-1.amazonaws.com", **KEYS}
    assert read(tmp_path, S3_BUCKET="b", **amazon).place("k")[1:] == ("b.s3.us-east-1.amazonaws.com", "/k")
    assert read(tmp_path, S3_BUCKET="b", **amazon).place()[2] == "/"
    assert read(tmp_path, S3_BUCKET="b.c", **amazon).place("k")[1:] == ("s3.us-east-1.amazonaws.com", "/b.c/k")
    assert read(tmp_path, S3_BUCKET="b", S3_FORCE_PATH_STYLE="true", **amazon).place("k").path == "/b/k"
    other = read(tmp_path, S3_BUCKET="b", S3_ENDPOINT="http://h:9", S3_FORCE_PATH_STYLE="false", **KEYS)
    assert other.place("k") == ("http", "b.h:9", "/k")


@pytest.mark.parametrize(("environ", "kind", "said"), [
    ({}, UsageFailure, "STORAGE_BUCKET is not set"),
    ({"STORAGE_BUCKET": "b"}, CredentialsRefused, "STORAGE_ACCESS_KEY and STORAGE_SECRET_KEY are not set"),
    ({"STORAGE_BUCKET": "b", "S3_ACCESS_KEY": "i"}, CredentialsRefused, "S3_SECRET_KEY is not set"),
    ({"STORAGE_BUCKET": "b", "MINIO_ROOT_PASSWORD": "i"}, CredentialsRefused, "MINIO_ROOT_USER is not set"),
    ({"STORAGE_BUCKET": "b/c", **KEYS}, UsageFailure, "cannot be the name of a bucket"),
    ({"STORAGE_BUCKET": "b", "S3_ENDPOINT": "host:9000", **KEYS}, UsageFailure, "is not an http address"),
    ({"STORAGE_BUCKET": "b", "S3_ENDPOINT": "http://h:x", **KEYS}, UsageFailure, "is not an http address"),
    ({"STORAGE_BUCKET": "b", "S3_ENDPOINT": "http://a:pw@h", **KEYS}, UsageFailure, "holds a user or password"),
    ({"STORAGE_BUCKET": "b", "S3_FORCE_PATH_STYLE": "maybe", **KEYS}, UsageFailure, "neither true nor false"),
])  # fmt: skip
def test_settings_that_name_no_store_are_told(tmp_path, environ, kind, said):
    with pytest.raises(kind, match=said) as caught:
        read(tmp_path, **environ)
    assert "pw" not in str(caught.value)
