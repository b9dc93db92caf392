"""Cut at 50 places and with 50 bits flipped, no backup of any format passes the check that `restore` begins with."""

from __future__ import annotations

import os
import random
import shutil

import pytest
from test_restore import backup, count, databases, filled

from nself_core.backups import folder as folders
from nself_core.backups import manifest, restore
from nself_core.failures import CheckFailed
from nself_core.postgres.database import Database
from nself_core.settings import load_settings

CASES = (
    ["custom"],
    ["custom", "--compress", "0"],
    ["plain"],
    ["plain", "--compress", "3"],
    ["directory"],
)
DAMAGES = 50


@pytest.fixture
def ready(plain_project):
    """(project, its Database of the program's, the facts that a restore plans by)."""
    filled(plain_project)
    environ = dict(os.environ)
    settings = load_settings(project=str(plain_project.root), environ=environ, cwd=str(plain_project.root))
    database = Database(settings, "restore")
    yield plain_project, database, manifest.read_facts(database)
    database.close()


def cut(data, chance):
    return data[: chance.randrange(len(data))]


def flip(data, chance):
    at, bit = chance.randrange(len(data)), chance.randrange(8)
    return data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]


@pytest.mark.parametrize("damage", [cut, flip])
@pytest.mark.parametrize("options", CASES, ids=" ".join)
def test_every_damage_is_found(ready, options, damage):
    project, database, facts = ready
    path = project.root / backup(project, "--format", *options)
    place = folders.Folder(str(path.parent), "backups")
    assert restore.check(database, folders.find_backup(place, str(path)), facts) == []
    chance = random.Random(f"{options} {damage.__name__}")
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    for _ in range(DAMAGES):
        file = chance.choice([one for one in files if one.stat().st_size])
        good = file.read_bytes()
        file.write_bytes(damage(good, chance))
        with pytest.raises(CheckFailed, match="damaged"):
            restore.check(database, folders.find_backup(place, str(path)), facts)
        file.write_bytes(good)


@pytest.mark.parametrize("options", CASES[:-1], ids=" ".join)
def test_every_cut_is_found_without_a_manifest(ready, options):
    """Then only the whole reading can find it; of a directory, pg_restore takes an empty file for an empty table."""
    project, database, facts = ready
    path = project.root / backup(project, "--format", *options)
    os.unlink(f"{path}.json")
    place = folders.Folder(str(path.parent), "backups")
    chance = random.Random(str(options))
    good = path.read_bytes()
    for _ in range(DAMAGES // 2):
        path.write_bytes(cut(good, chance))
        with pytest.raises(CheckFailed, match="damaged"):
            restore.check(database, folders.find_backup(place, str(path)), facts)


def damaged_copies(path, damage, chance):
    """DAMAGES damaged copies of the backup, each with its manifest and of another year; their names."""
    manifest = path.with_name(path.name + ".json").read_bytes()
    good = path.read_bytes()
    for number in range(DAMAGES):
        copy = path.with_name(f"20{number + 10}-05-01T12:00:00{path.name[len('2024-05-01T12:00:00') :]}")
        copy.write_bytes(damage(good, chance))
        copy.with_name(copy.name + ".json").write_bytes(manifest)
        yield copy.name


@pytest.mark.parametrize("damage", [cut, flip])
@pytest.mark.parametrize("options", CASES[:-1], ids=" ".join)
def test_the_commands_find_every_damage(ready, options, damage):
    project = ready[0]
    path = project.root / backup(project, "--format", *options)
    chance = random.Random(f"{options} {damage.__name__} by command")
    names = [*damaged_copies(path, damage, chance)]
    outcome = project.run("backup", "verify", "--json")
    found = {os.path.basename(row["file"]): row["state"] for row in outcome.json()["data"]["backups"]}
    assert outcome.code == 1 and len(names) == DAMAGES
    assert found == {**dict.fromkeys(names, "damaged"), path.name: "good"}
    for name in chance.sample(names, 3):
        assert project.run("backup", "verify", name).code == 1
        outcome = project.run("restore", "--force", "--file", name)
        assert (outcome.code, "the backup is damaged" in outcome.err) == (1, True), repr(outcome)
    assert (count(project), databases(project)) == (500, [])


def test_a_file_that_is_missing_from_a_directory_is_found(ready):
    project, database, facts = ready
    path = project.root / backup(project, "--format", "directory")
    copy = path.with_name("copy")
    shutil.copytree(path, copy)
    place = folders.Folder(str(path.parent), "backups")
    for file in sorted(path.iterdir()):
        file.unlink()
        with pytest.raises(CheckFailed, match="damaged"):
            restore.check(database, folders.find_backup(place, str(path)), facts)
        shutil.copy(copy / file.name, file)
