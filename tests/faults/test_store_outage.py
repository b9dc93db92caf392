"""The way to the object store is cut at any request of an upload, or the store is away for a minute.

What passes is survived, also where a request was done and its answer lost; what lasts leaves nothing that looks good.
"""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest
from bed.little_server import LittleServer, reply
from bed.local_processes import free_port

from nself_core.backups import remote as remotes
from nself_core.backups.send import Destination, Sending
from nself_core.failures import Unreachable
from nself_core.http import Response
from nself_core.s3 import client
from nself_core.s3.account import make_account
from nself_core.s3.signing import Keys
from nself_core.s3.store import Store
from nself_core.settings import load_settings

from .between import (
    HALF,
    LARGE,
    UNHEARD,
    busy,
    check_kept,
    check_nothing,
    check_told,
    close,
    is_complete,
    is_manifest,
    part_of,
)
from .watch import wait_until_orphans_end

MINUTE = 60

# The upload is of three parts.
PLACES = {
    "part 1": lambda line: part_of(line) == 1,
    "part 2": lambda line: part_of(line) == 2,
    "part 3": lambda line: part_of(line) == 3,
    "complete": is_complete,
    "manifest": is_manifest,
}
CLOSE = "close"  # nothing of the request reaches the store
LOCAL, ALONE = [], ["--no-local"]


def cut(between, places, how, lasting):
    """Have the requests of `places` cut, each once or for ever; returns the set of the places that were."""
    met = set()

    def meets(line):
        found = [name for name in places if PLACES[name](line) and (lasting or name not in met)]
        met.update(found)
        return bool(found)

    if how == CLOSE:
        between.strike = lambda connection, line: meets(line) and close(connection)
    else:
        between.damage = lambda line: how if meets(line) else None
    return met


@pytest.mark.parametrize(("how", "options"), [(CLOSE, ALONE), (HALF, LOCAL), (UNHEARD, ALONE), (UNHEARD, LOCAL)])
def test_each_request_is_cut_once_and_the_backup_is_there(remote_project, storage, between, how, options):
    met = cut(between, PLACES, how, False)
    data = remote_project.run("backup", "--remote", *LARGE, *options, "--json").ok().json()["data"]
    assert met == {*PLACES}
    [key, manifest] = storage.keys()
    assert data["remote"].endswith(key) and manifest == key + ".json"
    assert storage.uploads() == []
    [item] = remote_project.run("backup", "verify", "--remote", "--json").ok().json()["data"]["backups"]
    assert item["state"] == "good"


@pytest.mark.parametrize(
    ("place", "how", "options"),
    [
        ("part 1", HALF, ALONE),
        ("part 2", HALF, LOCAL),
        ("part 3", CLOSE, LOCAL),
        ("part 3", UNHEARD, ALONE),
        ("complete", CLOSE, ALONE),
        ("manifest", CLOSE, ALONE),
        ("manifest", HALF, LOCAL),
        ("manifest", UNHEARD, LOCAL),
    ],
)
def test_a_way_that_stays_cut_leaves_no_remote_backup(remote_project, storage, between, place, how, options):
    met = cut(between, [place], how, True)
    outcome = remote_project.run("backup", "--remote", *LARGE, *options, "--json")
    assert met == {place}
    between.mend()
    if options == ALONE:
        check_nothing(remote_project, storage, outcome)
        wait_until_orphans_end(remote_project.database)
        remote_project.run("backup", "--remote", *LARGE, *options).ok()
    else:
        remote_project.run(*check_kept(remote_project, storage, outcome)).ok()
    remote_project.run("backup", "verify", "--remote").ok()


def test_an_object_whose_completion_was_never_heard_of_is_no_backup(remote_project, storage, between):
    cut(between, ["complete"], UNHEARD, True)
    outcome = remote_project.run("backup", "--remote", *LARGE, "--json")
    between.mend()
    words = check_told(remote_project, outcome)
    [key] = storage.keys()
    assert not key.endswith(".json") and storage.uploads() == []
    assert remote_project.run("restore", "--remote", "--force").code == 1
    remote_project.run(*words).ok()
    [item] = remote_project.run("backup", "verify", "--remote", "--json").ok().json()["data"]["backups"]
    assert item["state"] == "good"


# A store that is away for a while.


def test_a_minute_of_nothing_but_500_is_survived_by_what_is_set_by_default(remote_project, storage, between):
    """In real time: the minute begins with the first part."""
    remote_project.write_env({**remote_project.database.settings, **storage.settings(ENDPOINT=between.endpoint)})
    began, lock = [], threading.Lock()

    def strike(connection, line):
        with lock:
            if part_of(line) and not began:
                began.append(time.monotonic())
        return bool(began) and time.monotonic() < began[0] + MINUTE and busy(connection)

    between.strike = strike
    remote_project.run("backup", "--remote", "--no-local", *LARGE, timeout=10 * MINUTE).ok()
    assert time.monotonic() > began[0] + MINUTE
    assert len(storage.keys()) == 2 and storage.uploads() == []
    remote_project.run("backup", "verify", "--remote").ok()


class Away:
    """A store that answers 500 for `seconds` from the first request on, by a clock of its own: it is a test's `stop`.

    `now` is that clock; each request takes `each` seconds of it.
    """

    def __init__(self, seconds, each=0.01):
        self.now = 1000.0
        self.asked = 0
        self._each = each
        self._until = self.now + seconds

    def wait(self, seconds):
        self.now += seconds
        return False

    def answer(self, *arguments, **options):
        self.asked += 1
        self.now += self._each
        return Response(200 if self.now >= self._until else 500, {}, b"", "http://store/")


@pytest.fixture
def away(monkeypatch):
    """away(seconds, …) -> an Away that every Client asks, and by whose clock it waits."""

    def make(*arguments):
        made = Away(*arguments)
        clock = SimpleNamespace(time=time.time, strftime=time.strftime, gmtime=time.gmtime, monotonic=lambda: made.now)
        monkeypatch.setattr(client, "time", clock)
        monkeypatch.setattr(client.http, "request", made.answer)
        return made

    return make


def remote_of(tmp_path, **settings):
    """The Remote of a project with the least of settings, and these."""
    (tmp_path / "migrations").mkdir()
    environ = {"STORAGE_BUCKET": "b", "STORAGE_ACCESS_KEY": "a", "STORAGE_SECRET_KEY": "s", **settings}
    return remotes.open_remote(load_settings(str(tmp_path), environ=environ))


@pytest.mark.parametrize("lot", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("seconds", [MINUTE, 2 * MINUTE, remotes.PATIENCE - 10])
def test_the_default_outlives_an_outage_whatever_the_lot_says(away, tmp_path, monkeypatch, seconds, lot):
    monkeypatch.setattr(client.random, "uniform", lambda least, most: least + lot * (most - least))
    store = away(seconds)
    asked = client.Asked("PUT", "k", body=b"x")
    assert remote_of(tmp_path).patient.client.ask(asked, stop=store).status == 200
    assert store.now < 1000 + seconds + client.LONGEST_PAUSE + 1


def test_what_stays_away_is_given_up(away, tmp_path):
    store = away(10**9)
    with pytest.raises(Unreachable, match="500"):
        remote_of(tmp_path).patient.client.ask(client.Asked("PUT", "k", body=b"x"), stop=store)
    assert remotes.PATIENCE <= store.now - 1000 <= remotes.PATIENCE + client.LONGEST_PAUSE + 1


def test_a_store_that_hangs_is_asked_a_few_times(away, tmp_path):
    """Each try takes its whole time-out here, and longer than all patience."""
    store = away(10**9, 1000)
    with pytest.raises(Unreachable):
        remote_of(tmp_path).patient.client.ask(client.Asked("PUT", "k", body=b"x"), stop=store)
    assert store.asked == remotes.PATIENT_TRIES


@pytest.mark.parametrize("tries", [1, 3, 12])
def test_a_number_of_tries_that_is_set_is_that_number(away, tmp_path, tries):
    store = away(10**9)
    with pytest.raises(Unreachable):
        remote_of(tmp_path, STORAGE_TRIES=str(tries)).patient.client.ask(client.Asked("GET", "k"), stop=store)
    assert store.asked == tries


def two_stores(endpoint):
    """A Remote whose stores try twice, and for half a minute."""
    account = make_account(endpoint, "b", Keys("access", "secret", None))
    patient = Store(account, 2, 1, 0.01, patience=30)
    return remotes.Remote(Store(account, 2, 2, 0.01), patient, "dev", "p")


def test_a_store_that_is_busy_when_an_upload_begins_is_waited_for():
    left, listing = [1] * 6, reply("200 OK", "<ListBucketResult/>")
    trouble = reply("500 X", "<Error><Code>InternalError</Code></Error>")

    def answer(connection, request):
        (trouble if left and left.pop() else listing)(connection, request)

    server = LittleServer(answer)
    try:
        sending = Sending(Destination(two_stores(server.url("")), "dev", "d"), False)
    finally:
        server.close()
    assert sending.trouble is None and len(server.requests) == 7


def test_where_nothing_listens_when_an_upload_begins_that_is_told_at_once():
    begun = time.monotonic()
    sending = Sending(Destination(two_stores(f"http://127.0.0.1:{free_port()}"), "dev", "d"), False)
    assert "nothing listens there" in str(sending.trouble) and time.monotonic() - begun < 20
