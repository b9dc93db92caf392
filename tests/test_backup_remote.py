"""`--remote`: backups go to a real object store that checks signatures, and come back from there."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import time

import pytest
from bed.servers import NASTY_NAME

from nself_core.backups import prune_remote
from nself_core.backups.names import file_name
from nself_core.backups.prune import left_alone

FORMATS = ("custom", "plain", "directory")
ENDINGS = {"custom": ".dump", "plain": ".sql", "directory": ".dir.tar"}
FILL = "CREATE TABLE t AS SELECT i, md5(i::text) AS word FROM generate_series(1, 5000) i; ANALYZE t"
# 40 MB in a dump that is not compressed, some parts of 16 MiB, and little in the database.
FILL_LARGE = "CREATE TABLE t AS SELECT i, repeat(md5(i::text), 640) AS word FROM generate_series(1, 2000) i"
NOON = 1714564800  # 2024-05-01T12:00:00


def entries(project):
    folder = project.root / ".nself-backups"
    return sorted(os.listdir(folder)) if folder.exists() else []


@pytest.fixture
def remote_project(plain_project, storage):
    """A plain project whose settings lead to the object store, with a filled table."""
    return connected(plain_project, storage)


def connected(project, storage, **changes):
    project.write_env({**project.database.settings, **storage.settings(**changes)})
    project.database.admin(FILL)
    return project


def take(project, *options):
    return project.run("backup", "--remote", *options, "--json").ok().json()["data"]


def newest_row(project):
    return project.database.admin("SELECT max(i) AS i FROM t")[0]["i"]


# Taken.


@pytest.mark.servers("container-15", "url-psql-15", "embedded-18")
@pytest.mark.parametrize("form", FORMATS)
def test_a_backup_goes_there_and_comes_back(project, storage, form):
    connected(project, storage)
    data = take(project, "--format", form, "--label", "far", "--verify")
    name = os.path.basename(data["file"])
    key = f"dev/{project.database.name}/{name}" + (".tar" if form == "directory" else "")
    assert key.endswith("_far" + ENDINGS[form])
    assert storage.keys() == [key, key + ".json"]
    assert data["remote"] == f"s3://{storage.server.bucket}/{storage.prefix}{key}"
    manifest, content = storage.manifest(key), storage.get(key)
    assert (manifest["bytes"], manifest["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    local = json.loads((project.root / (data["file"] + ".json")).read_text())
    assert local["sha256"] == data["sha256"]
    assert manifest["file"] == os.path.basename(key)
    assert storage.uploads() == []
    [verified] = project.run("backup", "verify", "--remote", "--json").ok().json()["data"]["backups"]
    assert (verified["state"], verified["file"]) == ("good", data["remote"])
    for left in entries(project):
        path = project.root / ".nself-backups" / left
        subprocess.run(["rm", "-r", str(path)], check=True)
    project.database.admin("DELETE FROM t WHERE i > 10")
    project.run("restore", "--remote", "--force", "--no-safety-backup").ok()
    assert newest_row(project) == 5000
    assert entries(project) == [name, name + ".json"]
    fetched = json.loads((project.root / (data["file"] + ".json")).read_text())
    assert fetched == local
    project.run("backup", "verify").ok()
    project.run("restore", "--clean", "--force").ok()


@pytest.mark.parametrize("form", ["custom", "plain"])
def test_without_a_local_file_nothing_is_written_here(remote_project, storage, form):
    data = take(remote_project, "--no-local", "--format", form, "--verify")
    assert data["file"] is None
    assert not (remote_project.root / ".nself-backups").exists()
    [key, manifest] = storage.keys()
    assert data["remote"].endswith(key) and manifest == key + ".json"
    assert hashlib.sha256(storage.get(key)).hexdigest() == data["sha256"] == storage.manifest(key)["sha256"]


def test_a_large_one_goes_in_parts(remote_project, storage):
    remote_project.database.admin("DROP TABLE t")
    remote_project.database.admin(FILL_LARGE)
    data = take(remote_project, "--no-local", "--compress", "0", "--verify")
    assert data["bytes"] > 2 * 16 * 1024 * 1024
    [key, _] = storage.keys()
    etag = storage.store.head(storage.prefix + key).etag
    assert re.fullmatch(r"[0-9a-f]{32}-\d", etag)
    assert storage.uploads() == []


def test_memory_does_not_grow_with_the_dump(remote_project, storage):
    remote_project.database.admin("DROP TABLE t")
    remote_project.database.admin(FILL_LARGE)
    remote_project.database.admin("INSERT INTO t SELECT i + n * 2000, word FROM t, generate_series(1, 7) n")
    process = remote_project.start("backup", "--remote", "--no-local", "--compress", "0", "--json")
    peak = 0
    while process.poll() is None:
        try:
            with open(f"/proc/{process.pid}/status", encoding="ascii") as file:
                found = re.search(r"VmHWM:\s+(\d+) kB", file.read())
        except FileNotFoundError:
            break
        peak = max(peak, int(found[1]) if found else 0)
        time.sleep(0.02)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert json.loads(out)["data"]["bytes"] > 300 * 1000 * 1000
    print(f"peak {peak} kB")
    assert 0 < peak < 80 * 1024


@pytest.mark.parametrize("name", [NASTY_NAME, "a/b", "..", "ö" * 31, "50%", "a b+c"])
def test_any_database_has_a_place_of_its_own(plain_server, make_database, make_project, storage, name):
    project = connected(make_project(make_database(plain_server, name)), storage)
    data = take(project, "--verify")
    [key, _] = storage.keys()
    assert key.count("/") == 2 and storage.manifest(key)["database"] == name
    [listed] = project.run("backup", "list", "--remote", "--json").ok().json()["data"]["backups"]
    assert (listed["database"], listed["file"], listed["manifest"]) == (name, data["remote"], True)
    project.database.admin("DROP TABLE t")
    project.run("restore", "--remote", "--force", "--no-safety-backup").ok()
    assert newest_row(project) == 5000
    project.run("restore", "--clean", "--force").ok()


def test_a_name_that_is_taken_makes_it_a_second_later(remote_project, storage):
    now = int(time.time())
    place = f"dev/{remote_project.database.name}/"
    taken = [place + file_name(now + number, None, ".dump") for number in range(20)]
    for key in taken[::2]:
        storage.put(key, b"another's")
    for key in taken[1::2]:
        storage.put(key + ".json", b"another's")
    for options in ([], ["--no-local"]):
        key = take(remote_project, *options)["remote"].partition(storage.prefix)[2]
        assert key not in taken
        assert storage.manifest(key)["file"] == os.path.basename(key)
    assert all(storage.get(key) == b"another's" for key in taken[::2])


def test_several_at_once_do_not_harm_each_other(remote_project, storage):
    runs = [remote_project.start("backup", "--remote", "--json") for _ in range(3)]
    done = [json.loads(run.communicate(timeout=120)[0]) for run in runs]
    good = [document["data"]["remote"] for document in done if document["ok"]]
    assert len({*good}) == len(good) > 0
    listed = remote_project.run("backup", "verify", "--remote", "--json").ok().json()["data"]["backups"]
    assert {item["file"] for item in listed} == {*good} and {item["state"] for item in listed} == {"good"}


def test_a_backup_that_is_here_is_sent_later_and_twice_is_once(remote_project, storage):
    for form in FORMATS:
        name = remote_project.run("backup", "--format", form, "--json").ok().json()["data"]["file"]
        data = {}
        for _ in range(2):
            data = remote_project.run("backup", "--upload", os.path.basename(name), "--json").ok().json()["data"]
        assert data["file"] == name and data["remote"].endswith(ENDINGS[form])
    assert len(storage.keys()) == 6
    listed = remote_project.run("backup", "verify", "--remote", "--json").ok().json()["data"]["backups"]
    assert [item["state"] for item in listed] == ["good"] * 3


def test_what_is_damaged_or_has_no_manifest_is_not_sent(remote_project, storage):
    path = remote_project.root / remote_project.run("backup", "--json").ok().json()["data"]["file"]
    path.write_bytes(path.read_bytes()[:-1])
    outcome = remote_project.run("backup", "--upload", path.name, "--json")
    assert outcome.code == 1 and "not as its manifest says" in outcome.json()["error"]["message"]
    path.with_name(path.name + ".json").unlink()
    assert "no manifest" in remote_project.run("backup", "--upload", path.name, "--json").json()["error"]["message"]
    assert storage.keys() == []


# What is said, and refused.


def test_a_dry_run_names_every_step_with_the_key(remote_project, storage):
    place = f"s3://{storage.server.bucket}/{storage.prefix}dev/{remote_project.database.name}/"
    out = remote_project.run("backup", "--remote", "--no-local", "--verify", "--dry-run").ok().out
    assert f"send it meanwhile to {place}" in out and ".dump.json" in out and f"read {place}" in out
    out = remote_project.run("backup", "--remote", "--format", "directory", "--dry-run").ok().out
    assert f"send it as a tar to {place}" in out and ".dir.tar.json" in out
    assert storage.keys() == []
    data = take(remote_project)
    out = remote_project.run("restore", "--remote", "--dry-run").ok().out
    assert f"fetch {data['remote']} (" in out and "rename" in out
    out = remote_project.run("backup", "--upload", os.path.basename(data["file"]), "--dry-run").ok().out
    assert f"send {data['file']} to {data['remote']}, in parts" in out
    take(remote_project)
    plan = remote_project.run("backup", "prune", "--remote", "--keep-last", "1", "--dry-run", "--json").ok().json()
    assert [step["title"] for step in plan["data"]["plan"]] == [
        f"remove {data['remote']} and {data['remote']}.json"
    ]  # fmt: skip
    assert len(storage.keys()) == 4


@pytest.mark.parametrize(("options", "words"), [
    (["--no-local"], "without --remote"),
    (["--remote", "--no-local", "--format", "directory"], "a directory is none"),
    (["--upload", "no.dump"], "there is no backup"),
    (["--upload", "x", "--label", "y"], "leave out --label"),
    (["--upload", "x", "--no-local"], "leave out --no-local"),
])  # fmt: skip
def test_what_is_refused_before_anything_is_made(remote_project, storage, options, words):
    outcome = remote_project.run("backup", *options, "--json")
    assert outcome.code == 1
    error = outcome.json()["error"]
    assert words in f"{error['message']} {error['hint']}"
    assert storage.keys() == [] and entries(remote_project) == []


@pytest.mark.parametrize(
    "words",
    [
        ["backup", "--remote"],
        ["backup", "list", "--remote"],
        ["restore", "--remote"],
        ["backup", "verify", "--remote"],
        ["backup", "prune", "--remote", "--keep-last", "1"],
    ],
)
def test_settings_that_are_missing_are_named(plain_project, storage, words):
    outcome = plain_project.run(*words, "--json")
    assert outcome.code == 1 and "STORAGE_BUCKET is not set" in outcome.json()["error"]["message"]
    settings = storage.settings()
    del settings["STORAGE_SECRET_KEY"]
    outcome = plain_project.run(*words, "--json", env=settings)
    assert outcome.code == 3 and "STORAGE_SECRET_KEY is not set" in outcome.json()["error"]["message"]
    assert entries(plain_project) == []


def test_the_other_names_of_the_settings(plain_project, storage):
    plain_project.database.admin(FILL)
    named = {name.replace("STORAGE_", "BACKUP_S3_"): value for name, value in storage.settings().items()}
    plain_project.run("backup", "--remote", env={**named, "BACKUP_S3_FORCE_PATH_STYLE": "true"}).ok()
    assert len(storage.keys()) == 2


def test_a_bucket_that_is_not_there(remote_project, storage):
    outcome = remote_project.run("backup", "--remote", "--no-local", "--json", env={"STORAGE_BUCKET": "nosuchbucket"})
    assert outcome.code == 1 and "NoSuchBucket" in outcome.json()["error"]["message"]


def test_no_secret_is_told_or_passed_on(remote_project, storage):
    from test_secrets import forms, watch

    secret = storage.server.secret_key
    process = remote_project.start("backup", "--remote", "--verbose", "--json")
    leaks, looks = watch(process, forms(secret))
    out, err = process.communicate()
    assert process.returncode == 0 and looks and not leaks
    assert not [form for form in forms(secret) if form in out + err]
    [key, manifest] = storage.keys()
    assert secret.encode() not in storage.get(manifest)
    assert not [
        name for name in storage.store.head(storage.prefix + key).meta if name != "sha256" and name != "nself-backup"
    ]


# Listed, verified, pruned.


def test_an_object_without_manifest_is_no_backup(remote_project, storage):
    take(remote_project)
    [key, manifest] = storage.keys()
    storage.delete(manifest)
    [listed] = remote_project.run("backup", "list", "--remote", "--json").ok().json()["data"]["backups"]
    assert listed["manifest"] is False
    [verified] = remote_project.run("backup", "verify", "--remote", "--json").ok().json()["data"]["backups"]
    assert verified["state"] == "without manifest" and "no backup" in verified["reason"]
    for options in ([], ["--file", os.path.basename(key)], ["--file", listed["file"]]):
        outcome = remote_project.run("restore", "--remote", *options, "--force", "--json")
        assert outcome.code == 1 and outcome.json()["error"]["code"] == "check_failed"
    assert newest_row(remote_project) == 5000


@pytest.mark.parametrize("form", ["custom", "plain", "directory"])
@pytest.mark.parametrize("damage", ["cut", "flip", "more"])
def test_damage_is_found_by_verify_and_by_restore(remote_project, storage, form, damage):
    take(remote_project, "--format", form, "--compress", "0")
    key = storage.keys()[0]
    content = bytearray(storage.get(key))
    if damage == "flip":
        content[len(content) // 2] ^= 4
    content = {"cut": content[: len(content) * 2 // 3], "flip": content, "more": content + b"x"}[damage]
    storage.put(key, bytes(content))
    for path in (remote_project.root / ".nself-backups").iterdir():
        subprocess.run(["rm", "-r", str(path)], check=True)
    outcome = remote_project.run("backup", "verify", "--remote", "--json")
    assert outcome.code == 1
    assert [item["state"] for item in outcome.json()["data"]["backups"]] == ["damaged"]
    assert entries(remote_project) == []
    outcome = remote_project.run("restore", "--remote", "--force", "--no-safety-backup", "--json")
    assert outcome.code == 1 and outcome.json()["error"]["code"] == "check_failed"
    assert "damaged" in outcome.json()["error"]["message"]
    assert not [name for name in entries(remote_project) if not name.startswith(".")]
    assert newest_row(remote_project) == 5000


@pytest.mark.parametrize(("facts", "words"), [
    ({"database": "other"}, "database differ"), ({"env": "prod"}, "env differ"), ({"file": "x.dump"}, "file differ"),
    ({"sha256": 5}, "does not say its sha256"), ({"nself_backup": 9}, "not the manifest"), (None, "cannot be read"),
])  # fmt: skip
def test_a_manifest_that_is_anothers_or_none(remote_project, storage, facts, words):
    take(remote_project)
    [key, manifest] = storage.keys()
    text = "{" if facts is None else json.dumps({**storage.manifest(key), **facts})
    storage.put(manifest, text.encode())
    outcome = remote_project.run("backup", "verify", "--remote", "--json")
    [item] = outcome.json()["data"]["backups"]
    assert outcome.code == 1 and item["state"] == "damaged" and words in item["reason"]
    assert remote_project.run("restore", "--remote", "--force").code == 1
    outcome = remote_project.run("restore", "--remote", "--file", os.path.basename(key), "--force", "--json")
    assert outcome.code == 1 and words in outcome.json()["error"]["message"]
    outcome = remote_project.run("backup", "prune", "--remote", "--keep-last", "1", "--force", "--json").ok()
    assert "left alone" in outcome.json()["warnings"][0]


def put_backup(storage, project, seconds, /, content=b"dump", label=None, **facts):
    """A backup there that is small and no dump; returns its key."""
    name = file_name(seconds, label, ".dump")
    key = f"dev/{project.database.name}/{name}"
    manifest = {
        "nself_backup": 1, "file": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(),
        "database": project.database.name, "env": "dev", **facts,
    }  # fmt: skip
    storage.put(key, content, {"nself-backup": "1"})
    storage.put(key + ".json", json.dumps(manifest).encode(), {"nself-backup": "1"})
    return key


def test_prune_keeps_the_newest_good_ones_and_what_is_not_ours(remote_project, storage):
    days = [put_backup(storage, remote_project, NOON + day * 86400) for day in range(5)]
    strange = put_backup(storage, remote_project, NOON + 9 * 86400, bytes=99)
    storage.put("dev/other/2024-05-01T12:00:00.dump", b"of another database")
    storage.put("prod/app/2024-05-01T12:00:00.dump", b"of another environment")
    storage.put(f"dev/{remote_project.database.name}/notes.txt", b"anything")
    outcome = remote_project.run("backup", "prune", "--remote", "--keep-last", "2", "--force", "--json").ok().json()
    assert [os.path.basename(key) for key in outcome["data"]["removed"]] == [
        os.path.basename(key) for key in days[2::-1]
    ]
    assert outcome["data"]["kept"] == [os.path.basename(key) for key in days[:2:-1]]
    assert strange in outcome["warnings"][0]
    left = storage.keys()
    assert {*days[3:], strange} <= {*left} and not {*days[:3]} & {*left}
    assert len(left) == 2 * 3 + 3


def test_another_projects_backups_under_the_same_keys(remote_project, storage):
    old = put_backup(storage, remote_project, NOON)
    data = take(remote_project, "--no-local")
    ours = data["remote"].partition(storage.prefix)[2]
    later = int(time.time()) + 3600
    others = [put_backup(storage, remote_project, later + number, project="another") for number in range(3)]
    outcome = remote_project.run("backup", "prune", "--remote", "--keep-last", "1", "--force", "--json").ok().json()
    assert "3 backups of other projects are left alone" in outcome["warnings"]
    left = {*storage.keys()}
    assert old not in left and {ours, *others} <= left
    assert left_alone(1, "of other projects") == "1 backup of other projects is left alone"
    assert f"fetch {data['remote']} (" in remote_project.run("restore", "--remote", "--dry-run").ok().out
    storage.delete(ours + ".json")
    outcome = remote_project.run("restore", "--remote", "--force", "--json")
    assert outcome.code == 1 and "and 3 of others" in outcome.json()["error"]["message"]


def test_prune_keeps_what_restore_takes_behind_a_safety_backup(remote_project, storage):
    old, good = (put_backup(storage, remote_project, NOON + day) for day in range(2))
    safe = put_backup(storage, remote_project, NOON + 2, label="before-restore")
    outcome = remote_project.run("backup", "prune", "--remote", "--keep-last", "1", "--force", "--json").ok().json()
    assert outcome["data"]["kept"] == [os.path.basename(key) for key in (safe, good)]
    left = {*storage.keys()}
    assert old not in left and {good, safe} <= left


def test_prune_asks_in_prod(remote_project, storage):
    remote_project.write_env({**remote_project.database.settings, **storage.settings()}, ".env.prod")
    for day in range(2):
        name = file_name(NOON + day, None, ".dump")
        put_backup(storage, remote_project, NOON + day)
        key = f"prod/{remote_project.database.name}/{name}"
        storage.put(key, b"dump")
        facts = storage.manifest(f"dev/{remote_project.database.name}/{name}")
        storage.put(key + ".json", json.dumps({**facts, "env": "prod"}).encode())
    before = storage.keys()
    assert remote_project.run("backup", "prune", "--remote", "--keep-last", "1", "--env", "prod").code == 4
    assert storage.keys() == before


def test_halves_and_unfinished_uploads_go_when_they_are_old(remote_project, storage, monkeypatch):
    from nself_core.backups import remote as remotes
    from nself_core.s3.multipart import Uploading, find_uploads
    from nself_core.settings import load_settings

    place = f"{storage.prefix}dev/{remote_project.database.name}/"
    ours, foreign = place + file_name(NOON, None, ".dump"), place + file_name(NOON + 1, None, ".dump")
    storage.store.put(ours, b"ours", remotes.MARK)
    storage.store.put(foreign, b"somebody's")
    storage.store.put(place + file_name(NOON + 2, None, ".dump") + ".json", b"{}", remotes.MARK)
    uploading = Uploading(storage.store, place + file_name(NOON + 3, None, ".dump"), part=5 * 1024 * 1024)
    uploading(bytes(5 * 1024 * 1024))
    assert uploading._sending is not None
    uploading._sending._wait()
    whole = remote_project.run("backup", "prune", "--remote", "--keep-last", "1", "--force", "--json").ok().json()
    assert whole["data"]["removed"] == []
    assert len([line for line in whole["warnings"] if "left for a day" in line]) == 4
    settings = load_settings(str(remote_project.root), environ={})
    remote = remotes.open_remote(settings)
    with monkeypatch.context() as patched:  # begun long ago, and a part has just come
        found = [each._replace(begun="2001-01-01T00:00:00Z") for each in find_uploads(storage.store, place)]
        patched.setattr(prune_remote, "find_uploads", lambda *_: found)
        plan = prune_remote.plan_prune(remote, remote_project.database.name, prune_remote_keep())
        assert len(found) == 1 and not plan.steps
    monkeypatch.setattr(prune_remote, "STALE_SECONDS", -60)
    keep = prune_remote_keep()
    plan = prune_remote.plan_prune(remote, remote_project.database.name, keep)
    assert not plan.destroys and len(plan.steps) == 3
    storage.store.put(ours + ".json", b"{}")  # completed meanwhile, as by --upload
    assert len(prune_remote.perform(remote, plan.steps).data["removed"]) == 2
    storage.store.delete(ours + ".json")
    assert len(prune_remote.perform(remote, plan.steps).data["removed"]) == 3
    assert storage.keys() == [foreign.removeprefix(storage.prefix)]
    assert storage.uploads() == []


def prune_remote_keep():
    from nself_core.backups.prune import Keep

    return Keep(1, None, None, None)


def test_a_name_alone_is_this_databases_and_a_whole_one_anybodys(remote_project, storage):
    data = take(remote_project)
    name = os.path.basename(data["file"])
    key = data["remote"].partition(storage.prefix)[2]
    for file in (name, key, data["remote"]):
        [found] = remote_project.run("backup", "verify", file, "--remote", "--json").ok().json()["data"]["backups"]
        assert (found["file"], found["state"]) == (data["remote"], "good")
    storage.put(f"dev/other/{name}", b"another's")
    outcome = remote_project.run("backup", "verify", name, "--remote", "--json")
    assert outcome.code == 1 and "more than one database" in outcome.json()["error"]["message"]
    for file in ("2001-01-01T00:00:00.dump", "x/y/z", "s3://elsewhere/x", "s3://"):
        assert remote_project.run("backup", "verify", file, "--remote").code == 1


# Restored.


def test_the_newest_is_restored_but_not_a_safety_backup(remote_project, storage):
    take(remote_project, "--no-local")
    put_backup(storage, remote_project, time.time() + 60, label="before-restore")
    remote_project.database.admin("DELETE FROM t WHERE i > 10")
    outcome = remote_project.run("restore", "--remote", "--force", "--json").ok().json()
    assert "before-restore" not in outcome["data"]["file"]
    assert "before-restore" in outcome["data"]["safety_backup"]
    assert newest_row(remote_project) == 5000
    remote_project.run("restore", "--clean", "--force").ok()


def test_what_is_here_already_is_not_fetched_and_another_file_not_replaced(remote_project, storage):
    data = take(remote_project)
    path = remote_project.root / data["file"]
    before = path.stat().st_ino
    remote_project.run("restore", "--remote", "--force", "--no-safety-backup").ok()
    assert path.stat().st_ino == before
    path.write_bytes(b"another")
    outcome = remote_project.run("restore", "--remote", "--force", "--no-safety-backup", "--json")
    assert outcome.code == 1 and "another file of this name" in outcome.json()["error"]["message"]
    assert path.read_bytes() == b"another"
    remote_project.run("restore", "--clean", "--force").ok()


def test_no_backup_there(remote_project):
    for words in (["restore", "--remote", "--force"], ["backup", "verify", "--remote"]):
        outcome = remote_project.run(*words, "--json")
        assert outcome.code == 1 and "there is no backup of" in outcome.json()["error"]["message"]
    assert remote_project.run("backup", "list", "--remote").ok().out.strip() == "no backups"


def test_an_interrupted_one_leaves_nothing(remote_project, storage):
    remote_project.database.admin("CREATE SEQUENCE s")
    with remote_project.database.connect() as gate:
        gate.execute("BEGIN; ALTER SEQUENCE s RENAME TO renamed")
        process = remote_project.start("backup", "--remote")
        deadline = time.monotonic() + 20
        while not entries(remote_project) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        gate.execute("ROLLBACK")
    assert process.returncode == 130
    assert storage.keys() == [] and storage.uploads() == [] and entries(remote_project) == []
