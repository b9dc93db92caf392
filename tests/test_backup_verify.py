"""`backup verify`: what is whole passes, and every cut, every flipped bit and every foreign manifest is found.

The damage is done in this process to copies of one backup of each format, so that many rounds cost little; the issue
asks for 50 cuts and 50 flips a format, and that many are made where there is a manifest (NSELF_DAMAGE_ROUNDS).
"""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil

import pytest
from bed.gaps import not_run

from nself_core.backups.folder import Folder, find_backup, measure
from nself_core.backups.tar import Unpacking, tar_of
from nself_core.backups.verify import DAMAGED, GOOD, UNKNOWN, examine
from nself_core.failures import FileFailure, Unreachable, UsageFailure
from nself_core.postgres import tools
from nself_core.settings import load_settings

ROUNDS = int(os.environ.get("NSELF_DAMAGE_ROUNDS", "50"))
WITHOUT_MANIFEST = 8  # of which each starts a pg_restore
SORTS = {
    "custom": ["--format", "custom"],
    "custom-0": ["--format", "custom", "--compress", "0"],
    "plain": ["--format", "plain"],
    "plain-gz": ["--format", "plain", "--compress", "6"],
    "directory": ["--format", "directory"],
}
FILL = "CREATE TABLE {} AS SELECT i, md5(i::text) AS word FROM generate_series(1, 7000) i"


class Here:
    """A Database as far as verify asks: by URL, so that the host's pg_restore reads."""

    where = "here"
    reach = type("Reach", (), {"kind": "url"})
    settings = load_settings(project=os.path.dirname(__file__), environ={"PROJECT_NAME": "nowhere"})


class Stopped:
    """A Database whose container does not run."""

    where = "container app_postgres, database app"

    class reach:
        kind = "container"
        container = "app_postgres"

        @staticmethod
        def command(program, variables, login):
            words = "echo 'Error response from daemon: container 1f is not running' >&2; exit 1"
            return ["sh", "-c", words, program], dict(os.environ)

    @staticmethod
    def variables(parameters):
        return {}


def put_into(made, plain_project):
    made.update({
        sort: plain_project.root / plain_project.run("backup", *options, "--json").ok().json()["data"]["file"]
        for sort, options in SORTS.items()
    })


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Backups of every sort by name, filled by the first test that asks; the module's own copies."""
    return {}, tmp_path_factory.mktemp("backups")


@pytest.fixture
def sample(kept, plain_project):
    """sample(sort, manifest=True) -> the path of a fresh copy of a backup of that sort."""
    made, place = kept
    if not made:
        for name in "tuv":
            plain_project.database.admin(FILL.format(name))
        fresh = {}
        put_into(fresh, plain_project)
        for sort, path in fresh.items():
            target = place / sort
            target.mkdir()
            made[sort] = target / path.name
            copy(path, made[sort])
    numbers = iter(range(10**6))

    def fresh_copy(sort, manifest=True):
        folder = plain_project.root / f"copy-{next(numbers)}"
        folder.mkdir()
        return copy(made[sort], folder / made[sort].name, manifest)

    return fresh_copy


def copy(source, target, manifest=True):
    (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)
    if manifest:
        shutil.copyfile(f"{source}.json", f"{target}.json")
    return target


def state(path, database=Here, jobs=1):
    return examine(database, find_backup(Folder(str(path.parent), str(path.parent)), str(path)), jobs)[0]


def write_manifest_anew(path):
    """Make the manifest one of the file as it is now."""
    manifest = path.with_name(path.name + ".json")
    size, digest = measure(str(path))
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "bytes": size, "sha256": digest}))


def files_of(path):
    return sorted(path.iterdir()) if path.is_dir() else [path]


def flip(file, chance):
    data = bytearray(file.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    file.write_bytes(data)


def cut(file, chance):
    os.truncate(file, chance.randrange(file.stat().st_size))


# With its manifest.


@pytest.mark.parametrize("sort", SORTS)
def test_good(sample, sort):
    assert state(sample(sort)) == GOOD
    assert state(sample(sort, manifest=False)) == UNKNOWN


@pytest.mark.parametrize("damage", [cut, flip])
@pytest.mark.parametrize("sort", SORTS)
def test_every_cut_and_every_flipped_bit_is_found(sample, sort, damage):
    seed = random.SystemRandom().randrange(10**9)
    print("seed", seed)
    chance = random.Random(seed)
    path = sample(sort)
    whole = {file: file.read_bytes() for file in files_of(path)}
    for _ in range(ROUNDS):
        file = chance.choice([file for file, data in whole.items() if data])
        damage(file, chance)
        assert state(path) == DAMAGED
        file.write_bytes(whole[file])
    assert state(path) == GOOD


def test_a_file_too_few_or_too_many_in_a_directory(sample):
    path = sample("directory")
    (path / "more.dat").write_bytes(b"")
    assert state(path) == DAMAGED
    (path / "more.dat").unlink()
    next(path.glob("*.dat.gz")).unlink()
    assert state(path) == DAMAGED


@pytest.mark.parametrize("jobs", [1, 2, 99])
@pytest.mark.parametrize("sort", ["custom", "custom-0"])
def test_a_dump_that_was_cut_before_it_was_hashed(sample, sort, jobs):
    chance = random.Random()
    path = sample(sort)
    whole = path.read_bytes()
    for size in [0, 1, len(whole) - 30, *(chance.randrange(len(whole) - 9) for _ in range(WITHOUT_MANIFEST))]:
        path.write_bytes(whole[:size])
        write_manifest_anew(path)
        assert state(path, jobs=jobs) == DAMAGED, size
    path.write_bytes(whole)
    write_manifest_anew(path)
    assert state(path, jobs=jobs) == GOOD


def test_two_who_read_see_what_one_sees(sample):
    chance = random.Random()
    path = sample("custom")
    whole = path.read_bytes()
    found = []
    for _ in range(4 * WITHOUT_MANIFEST):
        flip(path, chance)
        write_manifest_anew(path)
        found.append(state(path))
        assert state(path, jobs=2) == found[-1]
        path.write_bytes(whole)
    assert found.count(DAMAGED) > len(found) / 2


@pytest.fixture
def ended_by(monkeypatch, tmp_path):
    """ended_by(words) puts a script of these words in the place of pg_restore."""

    def replace(words):
        script = tmp_path / "pg_restore"
        script.write_text(f"#!/bin/sh\n{words}\n")
        script.chmod(0o755)
        monkeypatch.setattr(tools, "find_client", lambda program: str(script))

    return replace


@pytest.mark.parametrize("words", ["kill -SEGV $$", "exit 139"])
def test_a_dump_on_which_pg_restore_crashes_is_damaged(sample, ended_by, words):
    ended_by(words)
    assert state(sample("custom")) == DAMAGED


def test_a_pg_restore_that_somebody_ended_says_nothing_about_the_dump(sample, ended_by):
    ended_by("kill -KILL $$")
    with pytest.raises(Unreachable, match="signal 9"):
        state(sample("custom"))


# Without: what the format itself can tell.


@pytest.mark.parametrize("sort", SORTS)
def test_a_cut_is_found_without_a_manifest(sample, sort):
    chance = random.Random()
    path = sample(sort, manifest=False)
    if sort == "directory":
        for file in files_of(path):
            data = file.read_bytes()
            os.truncate(file, len(data) // 2)
            assert state(path) == DAMAGED, file
            file.write_bytes(data)
            file.unlink()
            assert state(path) == DAMAGED, file
            file.write_bytes(data)
        return
    whole = path.read_bytes()
    for size in [0, 1, len(whole) - 30, *(chance.randrange(len(whole) - 9) for _ in range(WITHOUT_MANIFEST))]:
        path.write_bytes(whole[:size])
        assert state(path) == DAMAGED, size


def test_a_flip_in_a_gzip_stream_is_found_without_a_manifest(sample):
    chance = random.Random()
    path = sample("plain-gz", manifest=False)
    whole = path.read_bytes()
    for _ in range(ROUNDS):
        at = chance.randrange(10, len(whole))  # the head has a time and a name that mean nothing
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << chance.randrange(8)]) + whole[at + 1 :])
        assert state(path) == DAMAGED, at


@pytest.mark.parametrize("row", [b"-- PostgreSQL database dump complete\n", b"PostgreSQL database dump complete"])
def test_a_plain_dump_that_is_cut_behind_a_row_with_the_last_words(sample, row):
    path = sample("plain", manifest=False)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] + b"\n" + row)
    assert state(path) == DAMAGED
    path.write_bytes(whole + b"1\tmore rows\n")
    assert state(path) == DAMAGED
    old = b"--\n\nSELECT 1;\n\n\n--\n-- PostgreSQL database dump complete\n--\n\n"
    new = b"--\n\n\\restrict aBc\n\n" + old
    for text, expected in (
        (old, UNKNOWN), (new + b"\\unrestrict aBc\n\n", UNKNOWN), (new, DAMAGED), (new + b"\\unrestrict a\n", DAMAGED),
        (new + b"\\unrestrict aBc", DAMAGED),
    ):  # fmt: skip
        path.write_bytes(text)
        assert state(path) == expected, text


# Manifests.


@pytest.mark.parametrize("text", [
    "", "{", "[]", "null", '{"nself_backup": 2}', '{"nself_backup": 1}', "[" * 100000, "\xff",
    '{"nself_backup": 1, "file": "x", "bytes": "5", "sha256": "x", "database": "d", "env": "dev"}',
])  # fmt: skip
def test_a_damaged_manifest_is_damage(sample, text):
    path = sample("custom")
    path.with_name(path.name + ".json").write_bytes(text.encode("latin-1"))
    assert state(path) == DAMAGED


def test_the_manifest_of_another_backup(sample):
    path, other = sample("custom"), sample("custom-0")
    shutil.copyfile(f"{other}.json", f"{path}.json")
    assert state(path) == DAMAGED


def test_every_flipped_bit_of_the_hash_in_the_manifest_counts(sample):
    path = sample("plain")
    place = path.with_name(path.name + ".json")
    manifest = json.loads(place.read_text())
    manifest["sha256"] = manifest["sha256"][::-1]
    place.write_text(json.dumps(manifest))
    assert state(path) == DAMAGED


# Odd things in the folder.


def test_a_folder_where_a_file_should_be_and_the_other_way_round(sample):
    path = sample("directory", manifest=False)
    as_file = path.with_suffix(".dump")
    path.rename(as_file)
    assert state(as_file) == DAMAGED
    file = sample("custom", manifest=False)
    as_folder = file.with_suffix(".dir")
    file.rename(as_folder)
    assert state(as_folder) == DAMAGED


def test_a_link_that_leads_nowhere_and_a_folder_in_a_directory_backup(plain_project):
    place = plain_project.root / ".nself-backups"
    (place / "2024-05-01T12:00:01.dir" / "sub").mkdir(parents=True)
    (place / "2024-05-01T12:00:00.dump").symlink_to("nowhere")
    outcome = plain_project.run("backup", "verify", "--json")
    assert outcome.code == 1
    assert [item["state"] for item in outcome.json()["data"]["backups"]] == ["damaged", "damaged"]
    assert len(plain_project.run("backup", "list", "--json").ok().json()["data"]["backups"]) == 2


# Which file.


def test_by_path_by_name_and_from_another_folder(plain_project, run, tmp_path):
    file = plain_project.run("backup", "--json").ok().json()["data"]["file"]
    name = os.path.basename(file)
    absolute = str(plain_project.root / file)
    for given in (file, name, absolute):
        outcome = plain_project.run("backup", "verify", given, "--json").ok()
        assert [item["file"] for item in outcome.json()["data"]["backups"]] == [file]
    elsewhere = ["--project", str(plain_project.root)]
    for given in (name, absolute):
        run("backup", "verify", given, *elsewhere, cwd=tmp_path).ok()
    missing = run("backup", "verify", file, *elsewhere, cwd=tmp_path)
    assert missing.code == 1
    assert "there is no backup" in missing.err
    assert plain_project.run("backup", "verify", "").code == 1


def test_damage_is_exit_1_and_named(plain_project):
    files = [plain_project.run("backup", "--json").ok().json()["data"]["file"] for _ in range(2)]
    os.truncate(plain_project.root / files[0], 100)
    outcome = plain_project.run("backup", "verify")
    assert outcome.code == 1
    assert "1 of 2 backups damaged" in outcome.out + outcome.err
    assert "100 bytes" in outcome.out
    document = plain_project.run("backup", "verify", "--json").json()
    assert {item["file"]: item["state"] for item in document["data"]["backups"]} == {
        files[0]: "damaged",
        files[1]: "good",
    }


def test_a_name_that_is_no_backups(tmp_path):
    (tmp_path / "prod.dump").write_bytes(b"")
    with pytest.raises(UsageFailure, match="not named as a backup is"):
        find_backup(Folder(str(tmp_path), "."), "prod.dump")


# What reads it.


@pytest.mark.parametrize("sort", ["custom", "directory", "plain"])
def test_with_the_container_stopped_the_hosts_pg_restore_reads(sample, sort):
    if not tools.find_client("pg_restore"):
        not_run("a container that is stopped", "this host has no pg_restore")
    path = sample(sort)
    assert state(path, Stopped) == GOOD
    cut(files_of(path)[0], random.Random())
    assert state(path, Stopped) == DAMAGED


def test_with_the_container_stopped_and_no_pg_restore_it_is_exit_2(sample, monkeypatch):
    monkeypatch.setattr(tools, "find_clients", lambda program: [])
    with pytest.raises(Unreachable, match="is not running"):
        state(sample("custom"), Stopped)
    assert state(sample("plain"), Stopped) == GOOD


@pytest.mark.parametrize("words", ["unsupported version (1.99) in file header", "this build does not support "
                                   "compression with zstd"])  # fmt: skip
def test_a_pg_restore_that_does_not_know_the_dump_is_no_damage(sample, monkeypatch, tmp_path, words):
    program = tmp_path / "pg_restore"
    program.write_text(f'#!/bin/sh\necho "pg_restore: error: {words}" >&2\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setattr(tools, "find_clients", lambda name: [str(program)])
    with pytest.raises(Unreachable, match="cannot read it"):
        state(sample("custom"))


@pytest.mark.servers("container-15", "container-18")
def test_a_directory_whose_files_fill_whole_blocks(project):
    """A tar has no padding behind such a file."""
    project.database.admin("CREATE TABLE t AS SELECT repeat('x', 506) AS word")  # a line end, and 5 bytes behind it
    file = project.run("backup", "--format", "directory", "--compress", "0", "--json").ok().json()["data"]["file"]
    assert 512 in [entry.stat().st_size for entry in (project.root / file).iterdir()]
    project.run("backup", "verify").ok()


# A folder as a tar, and back.


@pytest.mark.parametrize("step", [1, 100, 512, 10**7])
def test_a_tar_comes_out_as_it_went_in(tmp_path, step):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    contents = {"empty": b"", "block": b"b" * 512, "blocks": b"c" * 5120, "odd": b"d" * 777, "toc.dat": os.urandom(99)}
    for name, data in contents.items():
        (source / name).write_bytes(data)
    pieces = [*tar_of(source)]
    stream = b"".join(pieces)
    seen = []
    unpacking = Unpacking(str(target), seen.append)
    for at in range(0, len(stream), step):
        unpacking(stream[at : at + step])
    unpacking.close()
    assert {file.name: file.read_bytes() for file in target.iterdir()} == contents
    assert seen[-1] == sum(map(len, contents.values()))


@pytest.mark.parametrize("spoil", [
    lambda tar: tar[:-1024], lambda tar: tar[:700], lambda tar: b"", lambda tar: b"x" * 512 + tar,
    lambda tar: tar.replace(b"name", b"../n", 1),
])  # fmt: skip
def test_a_tar_that_is_cut_or_foreign(tmp_path, spoil):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    (source / "name").write_bytes(b"x" * 600)
    unpacking = Unpacking(str(target), lambda done: None)
    with pytest.raises(FileFailure):
        unpacking(spoil(b"".join(tar_of(source))))
        unpacking.close()
    unpacking.abandon()
    assert not (tmp_path / "n").exists()


def test_a_gzip_that_says_nothing_is_no_dump(tmp_path):
    path = tmp_path / "2024-05-01T12:00:00.sql.gz"
    path.write_bytes(gzip.compress(b""))
    assert state(path) == DAMAGED
