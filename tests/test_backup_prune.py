"""Which backups may go: the retention is pure; the rest on a folder of files, with no server."""

from __future__ import annotations

import hashlib
import json
import os
import time
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nself_core.backups.folder import Folder
from nself_core.backups.names import file_name, read_name
from nself_core.backups.prune import Keep, kept_files, perform, plan_prune, read_keep
from nself_core.failures import FileFailure, UsageFailure

DAY = 86400
NOON = 1714564800  # 2024-05-01T12:00:00
OURS = SimpleNamespace(env="dev", project_name="shop")
TIMES = st.lists(st.integers(NOON - 900 * DAY, NOON), unique=True, max_size=40)
COUNT = st.none() | st.integers(1, 8)
KEEPS = st.builds(Keep, COUNT, COUNT, COUNT, COUNT)


def names_of(times):
    return [read_name(file_name(seconds, None, ".dump")) for seconds in times]


def kept_times(times, keep):
    return sorted(read_name(file).seconds for file in kept_files(names_of(times), keep))


@given(TIMES, KEEPS)
def test_the_newest_never_goes_and_the_last_are_kept(times, keep):
    kept = kept_times(times, keep)
    newest = sorted(times)[-(keep.last or 1) :]
    assert {*newest} <= {*kept} <= {*times}


@given(TIMES, KEEPS, st.randoms())
def test_the_order_of_the_input_does_not_matter(times, keep, chance):
    mixed = [*times]
    chance.shuffle(mixed)
    assert kept_times(times, keep) == kept_times(mixed, keep)


@given(TIMES, KEEPS)
def test_no_more_than_the_counts_together_and_each_period_has_its_newest(times, keep):
    kept = kept_times(times, keep)
    assert len(kept) <= max(keep.last or 0, 1) + sum(count or 0 for count in keep[1:])
    days = sorted({seconds // DAY for seconds in times}, reverse=True)[: keep.daily or 0]
    for day in days:
        assert max(seconds for seconds in times if seconds // DAY == day) in kept


@given(TIMES, KEEPS)
def test_pruning_twice_removes_no_more(times, keep):
    kept = kept_times(times, keep)
    assert kept_times(kept, keep) == kept


@given(TIMES, KEEPS, COUNT)
def test_keeping_more_removes_no_more(times, keep, count):
    if count and (keep.daily is None or count > keep.daily):
        assert {*kept_times(times, keep)} <= {*kept_times(times, keep._replace(daily=count))}


def test_weeks_and_months_at_the_turn_of_the_year():
    stamps = ["2023-12-30", "2023-12-31", "2024-01-01", "2024-01-02", "2024-01-31", "2024-02-01"]
    names = [read_name(f"{stamp}T12:00:00.dump") for stamp in stamps]
    weekly = kept_files(names, Keep(None, None, 3, None))
    assert sorted(file[:10] for file in weekly) == ["2023-12-31", "2024-01-02", "2024-02-01"]
    monthly = kept_files(names, Keep(None, None, None, 9))
    assert sorted(file[:10] for file in monthly) == ["2023-12-31", "2024-01-31", "2024-02-01"]


SAFE = "before-restore"


@given(TIMES, st.sets(st.integers(0, 40)), KEEPS)
def test_the_newest_that_restore_takes_by_itself_never_goes(times, safe, keep):
    names = [read_name(file_name(at, SAFE if number in safe else None, ".dump")) for number, at in enumerate(times)]
    kept = kept_files(names, keep)
    for found in (names, [name for name in names if name.label != SAFE]):
        assert not found or max(found, key=lambda name: name.seconds).file in kept
    assert kept_files([name for name in names if name.file in kept], keep) == kept


def settings(**values):
    return SimpleNamespace(integer=values.get)


def test_options_count_before_settings_and_nothing_is_usage():
    assert read_keep(settings(BACKUP_RETENTION_LAST=3), None, 2, None, None) == Keep(None, 2, None, None)
    assert read_keep(settings(BACKUP_RETENTION_LAST=3), None, None, None, None) == Keep(3, None, None, None)
    with pytest.raises(UsageFailure, match="nothing says"):
        read_keep(settings(), None, None, None, None)


# On a folder.


@pytest.fixture
def folder(tmp_path):
    return Folder(str(tmp_path), "shown")


def put(folder, seconds, ending=".dump", content=b"dump", label=None, **manifest):
    """A backup in the folder with its manifest; returns its name."""
    name = file_name(seconds, label, ending)
    path = os.path.join(folder.path, name)
    with open(path, "wb") as file:
        file.write(content)
    told = {"nself_backup": 1, "file": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    with open(f"{path}.json", "w", encoding="utf-8") as file:
        json.dump({**told, "env": "dev", "database": "app", **manifest}, file)
    return name


def goes(folder, **keep):
    plan = plan_prune(folder, OURS, "app", Keep(**{**dict.fromkeys(Keep._fields), **keep}))
    return [os.path.basename(step.work.path) for step in plan.steps], plan


def test_other_databases_environments_and_what_has_no_manifest_are_left_alone(folder):
    old = put(folder, NOON)
    newest = put(folder, NOON + 1, project="shop")
    put(folder, NOON + 2, database="other")
    put(folder, NOON + 3, env="prod")
    put(folder, NOON + 8, project="another")
    for seconds, manifest in ((4, None), (5, "{"), (6, '{"nself_backup": 1}'), (7, "[" * 100000)):
        path = os.path.join(folder.path, put(folder, NOON + seconds)) + ".json"
        os.unlink(path)
        if manifest is not None:
            with open(path, "w", encoding="utf-8") as file:
                file.write(manifest)
    going, plan = goes(folder, last=1)
    assert going == [old]
    assert plan.data["kept"] == [newest]
    assert plan.warnings == ["7 backups of other projects or databases, or without a manifest, are left alone"]


def test_one_alone_is_told_as_one(folder):
    put(folder, NOON), put(folder, NOON + 2, database="other")
    told = "1 backup of other projects or databases, or without a manifest, is left alone"
    assert goes(folder, last=1)[1].warnings == [told]


@pytest.mark.parametrize("damage", [b"dum", b"dumq", None])
def test_a_damaged_backup_does_not_count_as_the_newest_good_one(folder, damage):
    old, good, newest = put(folder, NOON), put(folder, NOON + 1), put(folder, NOON + 2)
    path = os.path.join(folder.path, newest)
    os.unlink(path)
    if damage is not None:
        with open(path, "wb") as file:
            file.write(damage)
    else:
        os.symlink("nowhere", path)
    going, plan = goes(folder, last=1)
    assert going == [old]
    assert plan.data["kept"] == [good]
    assert f"shown/{newest} is not as it was written, and is left alone" in plan.warnings


@pytest.mark.parametrize("damaged", [False, True])
def test_behind_the_safety_backup_of_a_restore_the_newest_other_that_is_whole_stays(folder, damaged):
    old, good, newest = put(folder, NOON), put(folder, NOON + 1), put(folder, NOON + 2)
    safe = put(folder, NOON + 3, label=SAFE)
    if damaged:
        with open(os.path.join(folder.path, newest), "wb") as file:
            file.write(b"dumq")
    going, plan = goes(folder, last=1)
    assert going == ([old] if damaged else [good, old])
    assert plan.data["kept"] == [safe, good if damaged else newest]


def test_each_goes_with_its_manifest_and_is_told_as_it_is_shown(folder):
    old, newest = put(folder, NOON), put(folder, NOON + 1)
    _, plan = goes(folder, last=1)
    assert all(step.destroys for step in plan.steps)
    assert perform(plan.steps).data == {"removed": [f"shown/{old}"]}
    assert sorted(os.listdir(folder.path)) == [newest, f"{newest}.json"]


def test_old_parts_go_and_young_ones_stay(folder):
    put(folder, NOON)
    part = os.path.join(folder.path, ".2024-05-01T12:00:00.dump.part")
    inner = os.path.join(folder.path, ".2024-05-01T12:00:00.dir.part")
    manifest = os.path.join(folder.path, "2024-05-01T12:00:00.dump.json.part")
    os.mkdir(inner)
    for path in (part, os.path.join(inner, "1.dat"), manifest):
        with open(path, "wb"):
            pass
    assert goes(folder, last=1)[0] == []
    past = time.time() - 2 * DAY
    for path in (part, inner, manifest):
        os.utime(path, (past, past))
    going, plan = goes(folder, last=1)
    assert sorted(going) == sorted(map(os.path.basename, (part, manifest))), "in the folder something was just written"
    assert not plan.destroys
    os.utime(os.path.join(inner, "1.dat"), (past, past))
    _, plan = goes(folder, last=1)
    perform(plan.steps)
    assert len(os.listdir(folder.path)) == 2


def test_what_cannot_be_removed_is_told(folder, monkeypatch):
    put(folder, NOON)
    put(folder, NOON + 1)
    _, plan = goes(folder, last=1)

    def refuse(path):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(FileFailure, match="cannot be removed"):
        perform(plan.steps)


# The command.


def test_the_command_keeps_the_newest(plain_project):
    files = [plain_project.run("backup", "--json").ok().json()["data"]["file"] for _ in range(3)]
    shown = plain_project.run("backup", "prune", "--keep-last", "1", "--dry-run").ok()
    assert all(file in shown.out for file in files[:2]) and files[2] not in shown.out
    outcome = plain_project.run("backup", "prune", "--keep-last", "1", "--force", "--json").ok()
    assert sorted(outcome.json()["data"]["removed"]) == sorted(files[:2])
    left = plain_project.run("backup", "list", "--json").ok().json()["data"]["backups"]
    assert [item["file"] for item in left] == files[2:]
    assert plain_project.run("backup", "prune", "--keep-last", "1").ok().out.startswith("nothing to remove; 1 kept")
    assert plain_project.run("backup", "prune").code == 1


def test_another_projects_backup_is_neither_restored_by_itself_nor_removed(plain_project):
    file = plain_project.run("backup", "--json").ok().json()["data"]["file"]
    another = {**plain_project.database.settings, "PROJECT_NAME": "another"}
    plain_project.write_env(another)
    plain_project.run("backup").ok()
    assert plain_project.run("backup", "prune", "--keep-last", "1").ok().out.startswith("nothing to remove; 1 kept")
    (plain_project.root / f"{file}.json").rename(plain_project.root / "kept.json")
    plain_project.write_env({**another, "PROJECT_NAME": "third"})
    outcome = plain_project.run("restore", "--force", "--json")
    assert outcome.code == 1 and "there is no backup of" in outcome.json()["error"]["message"]


@pytest.mark.parametrize(("env", "words"), [("dev", []), ("prod", []), ("prod", ["--force"])])
def test_it_wants_consent(env, words, plain_project):
    plain_project.write_env(plain_project.database.settings, f".env.{env}")
    for _ in range(2):
        plain_project.run("backup", "--env", env).ok()
    refused = plain_project.run("backup", "prune", "--keep-last", "1", "--env", env, *words)
    assert refused.code == 4
    assert len(plain_project.run("backup", "list", "--json").json()["data"]["backups"]) == 2
