"""The object store fails while a backup goes there or comes back: no half looks good, and what is kept here stays good.

A little server stands before the real one and does to chosen requests what a test says.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import threading
import time

import pytest
from bed.local_processes import free_port, wait_until

from nself_core.backups.names import file_name

from .between import (
    LARGE,
    SHORT,
    busy,
    check_kept,
    check_nothing,
    close,
    entries,
    hang,
    is_manifest,
    part_of,
    times,
)
from .test_full_disk import check_words
from .watch import WAIT, kill_program, kill_with_children, outcome_of, wait_until_orphans_end

# What passes.


def test_what_passes_is_survived(remote_project, storage, between):
    between.strike = times(4, lambda line: part_of(line) in (1, 2) or is_manifest(line), busy)
    data = remote_project.run("backup", "--remote", *LARGE, "--json", env={"STORAGE_TRIES": "6"}).ok().json()["data"]
    assert data["remote"].endswith(storage.keys()[0])
    assert storage.uploads() == []
    remote_project.run("backup", "verify", "--remote").ok()


# What lasts.


STRIKES = {
    "busy in part 2": lambda connection, line: part_of(line) == 2 and busy(connection),
    "hung in part 2": lambda connection, line: part_of(line) == 2 and hang(connection),
    "busy at the end": lambda connection, line: line.startswith("POST ") and "uploadId" in line and busy(connection),
}


@pytest.mark.parametrize("strike", STRIKES)
def test_what_lasts_spoils_no_local_backup_and_leaves_no_remote_one(remote_project, storage, between, strike):
    between.strike = STRIKES[strike]
    outcome = remote_project.run("backup", "--remote", *LARGE, "--json", env=SHORT if "hung" in strike else {})
    words = check_kept(remote_project, storage, outcome)
    between.strike = lambda connection, line: False
    remote_project.run(*words).ok()
    [item] = remote_project.run("backup", "verify", "--remote", "--json").ok().json()["data"]["backups"]
    assert item["state"] == "good"


@pytest.mark.parametrize("strike", ["busy in part 2", "busy at the end"])
def test_what_lasts_leaves_nothing_without_a_local_file(remote_project, storage, between, strike):
    between.strike = STRIKES[strike]
    check_nothing(remote_project, storage, remote_project.run("backup", "--remote", "--no-local", *LARGE, "--json"))
    wait_until_orphans_end(remote_project.database, 5)


@pytest.mark.parametrize("options", [[], ["--no-local"]])
def test_nothing_listens(remote_project, storage, options):
    there = {"STORAGE_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    outcome = remote_project.run("backup", "--remote", *options, "--json", env=there)
    assert "nothing listens there" in outcome.json()["error"]["message"]
    (check_nothing if options else check_kept)(remote_project, storage, outcome)


@pytest.mark.parametrize("options", [[], ["--no-local"]])
def test_it_hangs_from_the_beginning(remote_project, storage, s3_server, options):
    s3_server.pause()
    try:
        start = time.monotonic()
        outcome = remote_project.run("backup", "--remote", *options, "--json", env={"STORAGE_TIMEOUT": "1"})
        assert time.monotonic() - start < 30
    finally:
        s3_server.go_on()
    assert "nothing moved for 1 seconds" in outcome.json()["error"]["message"]
    (check_nothing if options else check_kept)(remote_project, storage, outcome)


@pytest.mark.parametrize("options", [[], ["--no-local"]])
def test_a_wrong_secret_is_exit_3(remote_project, storage, options):
    wrong = {"STORAGE_SECRET_KEY": "not-the-secret"}
    outcome = remote_project.run("backup", "--remote", *options, "--json", env=wrong)
    assert "SignatureDoesNotMatch" in outcome.json()["error"]["message"]
    assert "not-the-secret" not in outcome.out + outcome.err
    (check_nothing if options else check_kept)(remote_project, storage, outcome, 3)
    for words in (["backup", "list"], ["backup", "verify"], ["backup", "prune", "--keep-last", "1"], ["restore"]):
        assert remote_project.run(*words, "--remote", env=wrong).code == 3


@pytest.mark.parametrize("options", [[], ["--no-local"]])
def test_pg_dump_is_cut_off_while_parts_are_sent(remote_project, storage, between, options):
    # Larger than what the program and the sockets hold while a part is on its way: pg_dump waits in the midst of it.
    remote_project.database.admin("INSERT INTO t SELECT t.* FROM t, generate_series(1, 2)")
    began, struck = threading.Event(), threading.Event()

    def strike(connection, line):
        if part_of(line) == 1:
            began.set()
            struck.wait(WAIT)
        return False

    between.strike = strike
    patient = {"STORAGE_TIMEOUT": str(WAIT)}
    process = remote_project.start("backup", "--remote", *LARGE, *options, "--json", env=patient)
    assert began.wait(WAIT)
    remote_project.database.admin(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
        "AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    struck.set()
    check_nothing(remote_project, storage, outcome_of(process))


# The program is struck.


@contextlib.contextmanager
def held_at(project, between, matches, *options):
    """A backup under way, one of whose requests hangs on its way: gives its process."""
    arrived, over = threading.Event(), threading.Event()

    def strike(connection, line):
        if matches(line):
            arrived.set()
            over.wait(WAIT)
            return True
        return False

    between.strike = strike
    process = project.start("backup", "--remote", *LARGE, *options, env={"STORAGE_TIMEOUT": "60"})
    try:
        assert arrived.wait(WAIT), outcome_of(process)
        yield process
    finally:
        over.set()
        between.strike = lambda connection, line: False


# With the first part on its way and the second gathered the dump waits.
@pytest.mark.parametrize(("kill", "options"), [(kill_program, []), (kill_with_children, ["--no-local"])])
def test_killed_in_mid_upload(remote_project, storage, between, kill, options):
    with held_at(remote_project, between, lambda line: part_of(line) == 1, *options) as process:
        kill(process)
        assert outcome_of(process).code == -9
    wait_until_orphans_end(remote_project.database)
    assert storage.keys() == [] and len(storage.uploads()) == 1
    assert not [name for name in entries(remote_project) if not name.startswith(".")]
    for words in (["backup", "list", "--remote"], ["backup", "list"]):
        assert remote_project.run(*words).ok().out.strip() == "no backups"
    assert remote_project.run("restore", "--remote", "--force").code == 1
    told = remote_project.run("backup", "prune", "--remote", "--keep-last", "1", "--force", "--json").ok().json()
    assert len(told["warnings"]) == 1 and "the upload of s3://" in told["warnings"][0]
    check_swept(remote_project, storage)
    assert storage.uploads() == []


def check_swept(project, storage):
    """A day later prune takes back what was left; the day is skipped here, for the store's clock is its own."""
    from nself_core.backups import prune_remote
    from nself_core.backups import remote as remotes
    from nself_core.backups.prune import Keep
    from nself_core.settings import load_settings

    remote = remotes.open_remote(load_settings(str(project.root), environ={}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prune_remote, "STALE_SECONDS", -3600)
        plan = prune_remote.plan_prune(remote, project.database.name, Keep(1, None, None, None))
    assert plan.steps
    prune_remote.perform(remote, plan.steps)


@pytest.mark.parametrize("options", [[], ["--no-local"]])
def test_killed_before_the_manifest(remote_project, storage, between, options):
    with held_at(remote_project, between, is_manifest, *options) as process:
        kill_program(process)
        assert outcome_of(process).code == -9
    [key] = storage.keys()
    assert storage.uploads() == []
    [listed] = remote_project.run("backup", "list", "--remote", "--json").ok().json()["data"]["backups"]
    assert listed["manifest"] is False
    [item] = remote_project.run("backup", "verify", "--remote", "--json").ok().json()["data"]["backups"]
    assert item["state"] == "without manifest"
    assert remote_project.run("restore", "--remote", "--force").code == 1
    assert remote_project.run("restore", "--remote", "--file", os.path.basename(key), "--force").code == 1
    if not options:  # the local backup was whole before
        remote_project.run("backup", "verify").ok()
        remote_project.run("backup", "--upload", os.path.basename(key)).ok()
        assert storage.keys() == [key, key + ".json"]
        remote_project.run("backup", "verify", "--remote").ok()
    else:
        check_swept(remote_project, storage)
        assert storage.keys() == []


@pytest.mark.parametrize(("number", "options"), [(signal.SIGINT, []), (signal.SIGTERM, ["--no-local"])])
def test_interrupted_in_mid_upload(remote_project, storage, between, number, options):
    with held_at(remote_project, between, lambda line: part_of(line) == 1, *options) as process:
        process.send_signal(number)
        time.sleep(0.3)
    check_nothing(remote_project, storage, outcome_of(process), 130)


def test_an_upload_of_what_is_here_goes_on_where_it_was_cut(remote_project, storage, between):
    name = os.path.basename(remote_project.run("backup", *LARGE, "--json").ok().json()["data"]["file"])
    between.strike = lambda connection, line: part_of(line) == 3 and close(connection)
    outcome = remote_project.run("backup", "--upload", name, "--json")
    assert outcome.code == 2
    assert storage.keys() == [] and len(storage.uploads()) == 1
    between.strike = lambda connection, line: False
    between.seen.clear()
    remote_project.run("backup", "--upload", name).ok()
    assert [part_of(line) for line in between.seen if part_of(line)] == [3]
    remote_project.run("backup", "verify", "--remote").ok()


# The way back.


@pytest.fixture
def stored(remote_project, storage):
    """A project whose backup lies in the store alone, and whose table has changed since; gives its key."""
    remote_project.run("backup", "--remote", "--no-local", *LARGE).ok()
    remote_project.database.admin("DELETE FROM t WHERE i > 10")
    return storage.keys()[0]


FOURTH = f"bytes={3 * 4 * 1024 * 1024}-"  # of the pieces that a file is fetched in


def is_read(line, wanted):
    return line.startswith("GET ") and wanted in line


def check_untouched(project):
    """The database is as it was, no other stands beside it, and no file looks good."""
    assert project.database.admin("SELECT count(*) AS n FROM t")[0]["n"] == 10
    assert project.run("restore", "--clean", "--dry-run").ok().out.strip().startswith("no database")
    assert not [name for name in entries(project) if not name.startswith(".")]


def truncate(connection):
    connection.sendall(b"HTTP/1.1 206 X\r\nContent-Length: 9000000\r\n\r\nabc")
    return True


@pytest.mark.parametrize("act", [busy, close, hang, truncate])
def test_a_fetch_that_fails_changes_nothing_and_the_next_goes_on(remote_project, between, stored, act):
    between.strike = lambda connection, line: is_read(line, FOURTH) and act(connection)
    short = SHORT if act is hang else {}
    outcome = remote_project.run("restore", "--remote", "--force", "--no-safety-backup", "--json", env=short)
    assert outcome.code == 2, repr(outcome)
    check_untouched(remote_project)
    between.strike = lambda connection, line: False
    between.seen.clear()
    remote_project.run("restore", "--remote", "--force", "--no-safety-backup").ok()
    assert not [line for line in between.seen if is_read(line, "bytes=0-")]
    assert remote_project.database.admin("SELECT count(*) AS n FROM t")[0]["n"] == 2000
    remote_project.run("restore", "--clean", "--force").ok()


def test_a_verify_whose_way_is_cut_says_so(remote_project, between, stored):
    between.strike = lambda connection, line: is_read(line, FOURTH) and close(connection)
    outcome = remote_project.run("backup", "verify", "--remote", "--json")
    assert outcome.code == 2, repr(outcome)


def test_a_fetch_that_was_killed_goes_on(remote_project, storage, between, stored):
    arrived, over = threading.Event(), threading.Event()

    def strike(connection, line):
        if is_read(line, FOURTH):
            arrived.set()
            over.wait(WAIT)
        return False

    between.strike = strike
    process = remote_project.start(
        "restore", "--remote", "--force", "--no-safety-backup", env={"STORAGE_TIMEOUT": "60"}
    )
    assert arrived.wait(WAIT)
    wait_until(
        lambda: sum(path.stat().st_size for path in (remote_project.root / ".nself-backups").iterdir()), WAIT, str
    )
    kill_program(process)
    over.set()
    outcome_of(process)
    between.strike = lambda connection, line: False
    check_untouched(remote_project)
    left = entries(remote_project)
    assert len(left) == 1 and left[0].startswith(".") and left[0].endswith(".part")
    remote_project.run("restore", "--remote", "--force", "--no-safety-backup").ok()
    assert remote_project.database.admin("SELECT count(*) AS n FROM t")[0]["n"] == 2000
    assert entries(remote_project) == [os.path.basename(stored), os.path.basename(stored) + ".json"]
    remote_project.run("restore", "--clean", "--force").ok()


@pytest.mark.parametrize("form", ["custom", "directory"])
def test_no_room_for_what_is_fetched(remote_project, storage, small_disk, form):
    remote_project.run("backup", "--remote", "--format", form, *LARGE).ok()
    shutil.rmtree(remote_project.root / ".nself-backups")
    folder = small_disk(1) / "backups"
    outcome = remote_project.run("restore", "--remote", "--force", env={"BACKUP_DIR": str(folder)})
    assert outcome.code == 2 and "the disk has no room" in outcome.err, repr(outcome)
    assert not folder.exists() or os.listdir(folder) == []
    assert remote_project.database.admin("SELECT count(*) AS n FROM t")[0]["n"] == 2000


def test_a_full_disk_leaves_nothing_there_either(remote_project, storage, small_disk):
    folder = small_disk(1) / "backups"
    outcome = remote_project.run("backup", "--remote", *LARGE, env={"BACKUP_DIR": str(folder)})
    check_words(outcome)
    assert os.listdir(folder) == [] and storage.keys() == [] and storage.uploads() == []


# Prune.


def test_a_prune_that_is_cut_leaves_no_good_looking_half(remote_project, storage, between):
    place = f"dev/{remote_project.database.name}/"
    for number in range(3):
        name = file_name(1714564800 + number, None, ".dump")
        facts = {"nself_backup": 1, "file": name, "bytes": 4, "sha256": "0" * 64, "env": "dev"}
        storage.put(place + name, b"dump", {"nself-backup": "1"})
        manifest = json.dumps({**facts, "database": remote_project.database.name}).encode()
        storage.put(place + name + ".json", manifest, {"nself-backup": "1"})
    deletes = []

    def strike(connection, line):
        deletes.append(1) if "?delete" in line else None
        return len(deletes) > 1 and "?delete" in line and close(connection)

    between.strike = strike
    outcome = remote_project.run("backup", "prune", "--remote", "--keep-last", "1", "--force")
    assert outcome.code == 2
    between.strike = lambda connection, line: False
    listed = remote_project.run("backup", "list", "--remote", "--json").ok().json()["data"]["backups"]
    assert [item["manifest"] for item in listed] == [True, False, False]
    check_swept(remote_project, storage)
    assert len(storage.keys()) == 2
