"""A folder of backups as it should not be: manifests that lack facts, pipes, clocks that were wrong, too many jobs."""

from __future__ import annotations

import json
import os
import re
import time

import pytest
from test_restore import backup, databases, drop_beside

from nself_core.backups import swap
from nself_core.backups.folder import Folder, later_names
from nself_core.backups.manifest import RESTORED_BY, check_connections, check_restorable
from nself_core.backups.names import file_name
from nself_core.failures import FileFailure, UsageFailure

WHOLE = {
    "server": "15.1", "server_version": 150001, "encoding": "UTF8", "collate": "C", "size_bytes": 1,
    "started_at": "2024-05-01T12:00:00Z", "extensions": {}, "estimated_rows": {"public.t": 1}, "versions": ["1"],
}  # fmt: skip
DAY = 86400


def copy_of(project, seconds, **changes):
    """A second backup, the bytes of the first, of another time; its manifest with `changes`, None takes a fact away."""
    source = next((project.root / ".nself-backups").glob("*.dump"))
    manifest = json.loads(source.with_name(f"{source.name}.json").read_text(encoding="utf-8"))
    name = file_name(seconds, None, ".dump")
    manifest = {**manifest, "file": name, **changes}
    source.with_name(name).write_bytes(source.read_bytes())
    kept = {key: value for key, value in manifest.items() if value is not None}
    source.with_name(f"{name}.json").write_text(json.dumps(kept), encoding="utf-8")
    return source.with_name(name)


# Manifests.


@pytest.mark.parametrize("fact", [*RESTORED_BY])
@pytest.mark.parametrize("value", [None, object()], ids=["absent", "of another kind"])
def test_a_manifest_that_lacks_what_a_restore_asks_is_told(fact, value):
    check_restorable(WHOLE, "m.json")
    with pytest.raises(FileFailure, match=f"does not say its {fact}"):
        check_restorable({**WHOLE, fact: value}, "m.json")


@pytest.mark.parametrize("facts", [{"estimated_rows": {"t": "many"}}, {"versions": ["one"]}, {"versions": [1]}])
def test_a_manifest_with_facts_of_another_kind_inside(facts):
    with pytest.raises(FileFailure, match="that are none"):
        check_restorable({**WHOLE, **facts}, "m.json")


def test_what_is_encrypted_in_a_manifest_is_not_missed():
    hidden = {name: value for name, value in WHOLE.items() if name not in ("extensions", "estimated_rows", "versions")}
    sealed = ("extensions", "estimated_rows", "versions")
    check_restorable({**hidden, "sealed": "…"}, "m.json", sealed)
    with pytest.raises(FileFailure, match="extensions, estimated_rows, versions"):
        check_restorable({**hidden, "sealed": "…"}, "m.json")
    with pytest.raises(FileFailure, match="extensions, estimated_rows, versions"):
        check_restorable(hidden, "m.json", sealed)


def test_a_backup_whose_manifest_lacks_facts_is_damaged_and_not_restored(plain_project):
    plain_project.database.admin("CREATE TABLE t (i int)")
    backup(plain_project)
    copy_of(plain_project, time.time() + 1, server_version=None)
    verified = plain_project.run("backup", "verify")
    assert verified.code == 1 and "1 of 2 backups damaged" in verified.out + verified.err
    refused = plain_project.run("restore", "--force")
    assert refused.code == 1 and "does not say its server_version" in refused.err, refused
    assert databases(plain_project) == []


@pytest.mark.servers("container-15")
@pytest.mark.parametrize("fact", ["size_bytes", "server_version"])
def test_what_is_asked_of_a_containers_disk_needs_such_a_fact(fact, project):
    backup(project)
    copy_of(project, time.time() + 1, **{fact: None})
    for words in ([], ["--in-place"], ["--jobs", "2"]):
        refused = project.run("restore", "--force", *words)
        assert refused.code == 1 and f"does not say its {fact}" in refused.err, refused


# What is no file.


def test_a_pipe_named_as_a_backup_is_not_waited_for(plain_project):
    folder = plain_project.root / ".nself-backups"
    folder.mkdir()
    os.mkfifo(folder / "2024-05-01T12:00:00.dump")
    verified = plain_project.run("backup", "verify", timeout=60)
    assert verified.code == 1 and "1 of 1 backup damaged" in verified.out + verified.err
    refused = plain_project.run("restore", "--force", "--file", "2024-05-01T12:00:00.dump", timeout=60)
    assert refused.code == 1 and "should be a file, and is not" in refused.err


def test_an_empty_name_is_told_as_one(plain_project):
    (plain_project.root / ".nself-backups").mkdir()
    assert "'' is not named as a backup is" in plain_project.run("restore", "--file", "").err


@pytest.mark.parametrize("words", [("backup", "list"), ("backup", "verify"), ("restore",), ("backup",)], ids=" ".join)
def test_a_file_in_the_place_of_the_folder_is_told(plain_project, words):
    plain_project.write(".nself-backups", "no folder")
    outcome = plain_project.run(*words)
    assert outcome.code == 1 and ".nself-backups: cannot be " in outcome.err


# What is passed over, and what is told before consent.


def test_a_newer_backup_whose_manifest_is_damaged_is_passed_over_and_told_before_consent(plain_project):
    plain_project.database.admin("CREATE TABLE t (i int)")
    backup(plain_project)
    newer = copy_of(plain_project, time.time() + 2)
    newer.with_name(f"{newer.name}.json").write_text("{", encoding="utf-8")
    asked = plain_project.run("restore", "--json")
    assert asked.code == 4
    assert [f".nself-backups/{newer.name} is newer, and passed over: its manifest is absent or damaged"] == (
        asked.json()["warnings"]
    )
    assert asked.err.index("warning: ") < asked.err.index("this destroys or replaces data")
    assert "passed over" not in plain_project.run("restore", "--file", newer.name).err


def test_a_warning_before_consent_is_told_once(plain_project):
    plain_project.database.admin("CREATE TABLE t (i int)")
    name = os.path.basename(backup(plain_project))
    (plain_project.root / ".nself-backups" / f"{name}.json").unlink()
    outcome = plain_project.run("restore", "--force", "--no-safety-backup", "--file", name).ok()
    assert outcome.err.count("has no manifest") == 1
    assert outcome.err.index("has no manifest") < outcome.err.index("This destroys or replaces data")
    plain_project.run("restore", "--clean", "--force").ok()


# Clocks.


def test_the_names_of_a_time_to_come(tmp_path):
    for seconds in (0, 20, 40, 5000):
        (tmp_path / file_name(seconds, None, ".dump")).touch()
    (tmp_path / "notes.txt").touch()
    assert later_names(Folder(str(tmp_path), "b"), 0) == [file_name(5000, None, ".dump"), file_name(40, None, ".dump")]
    assert later_names(Folder(str(tmp_path / "none"), "b"), 0) == []


def test_a_backup_of_a_time_to_come_is_told_by_backup_and_restore(plain_project):
    plain_project.database.admin("CREATE TABLE t (i int)")
    backup(plain_project)
    later = copy_of(plain_project, time.time() + DAY)
    told = plain_project.run("backup", "--json").ok().json()["warnings"]
    assert len(told) == 1 and later.name in told[0] and "still to come" in told[0]
    assert f"{later.name} has a time that is still to come" in plain_project.run("restore", "--dry-run").err


def test_what_steps_aside_is_named_behind_what_stands_there_though_the_clock_went_back():
    hour = 3600
    taken = [swap.side_name("app", swap.BEFORE, seconds) for seconds in (hour, 9 * hour)]
    assert swap.later_name("app", swap.BEFORE, 10 * hour, taken) == swap.side_name("app", swap.BEFORE, 10 * hour)
    for seconds in (0, hour, 9 * hour):
        assert swap.later_name("app", swap.BEFORE, seconds, taken) == swap.side_name("app", swap.BEFORE, 9 * hour + 1)
    odd = ["app_before_99991231235959", "app_before_12345678901234"]
    assert swap.later_name("app", swap.BEFORE, hour, odd) == swap.side_name("app", swap.BEFORE, hour)


def test_undo_after_the_clock_went_back_returns_what_stepped_aside_last(plain_project):
    plain_project.database.admin("CREATE TABLE t AS SELECT 'first' AS word")
    backup(plain_project)
    name = plain_project.database.name
    plain_project.database.server.create_database(f"{name}_before_20990101000000")
    plain_project.database.admin("UPDATE t SET word = 'last'")
    try:
        data = plain_project.run("restore", "--force", "--no-safety-backup", "--json").ok().json()["data"]
        assert data["before"] == f"{name}_before_20990101000001"
        plain_project.run("restore", "--undo", "--force").ok()
        assert plain_project.database.admin("SELECT word FROM t") == [{"word": "last"}]
    finally:
        drop_beside(plain_project)


# Jobs.


def test_more_jobs_than_the_server_has_connections():
    check_connections(None, {"max_connections": 100})
    check_connections(99, {"max_connections": 100})
    with pytest.raises(UsageFailure, match="--jobs 100 takes 101 connections, and the server has 100"):
        check_connections(100, {"max_connections": 100})


def test_so_many_jobs_are_refused_before_anything_is_begun(plain_project):
    words = "takes 1000001 connections"
    taken = plain_project.run("backup", "--format", "directory", "--jobs", "1000000")
    assert taken.code == 1 and words in taken.err
    backup(plain_project)
    restored = plain_project.run("restore", "--force", "--jobs", "1000000")
    assert restored.code == 1 and words in restored.err


# Waiting.


@pytest.mark.parametrize("form", ["custom", "directory"])
def test_a_dump_that_waits_for_a_lock_says_that_nothing_comes(plain_project, form):
    plain_project.database.admin("CREATE TABLE t (i int)")
    with plain_project.database.connect(autocommit=False) as holder:
        holder.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        process = plain_project.start("backup", "--format", form)
        assert re.fullmatch(r"dumped of a database of [0-9.]+ MB: 0 B\n", process.stderr.readline())
        holder.rollback()
    process.communicate(timeout=60)
    assert process.returncode == 0
