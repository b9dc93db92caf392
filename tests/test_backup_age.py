"""Encrypted backups: `age` on the way out and back, what its manifest tells, and who can read what."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import time

import pytest
from bed.gaps import not_run

from nself_core.backups import age
from nself_core.failures import CheckFailed, CredentialsRefused, UsageFailure

FILL = 'CREATE TABLE "hidden t" AS SELECT i, md5(i::text) AS word FROM generate_series(1, 5000) i; ANALYZE "hidden t"'
ENDINGS = {"custom": ".dump.age", "plain": ".sql.age"}


class Keys:
    """Identities of age: `path(n)`, the file of the n-th, and `recipient(n)`."""

    def __init__(self, folder):
        self._folder = folder
        for number in (1, 2, 3):
            made = subprocess.run(["age-keygen", "-o", self.path(number)], capture_output=True, text=True, check=True)
            assert "AGE-SECRET-KEY" not in made.stderr

    def path(self, number):
        return str(self._folder / f"key-{number}")

    def recipient(self, number):
        with open(self.path(number), encoding="utf-8") as file:
            return next(line.split()[-1] for line in file if "public key" in line)


@pytest.fixture(scope="session")
def keys(tmp_path_factory):
    if not shutil.which("age-keygen"):
        not_run("age", "there is no age on this host (Debian: apt-get install age)")
    return Keys(tmp_path_factory.mktemp("age"))


def sealed_for(project, keys, *numbers, **settings):
    """The project, whose backups are encrypted for these keys."""
    recipients = {"BACKUP_AGE_RECIPIENTS": ",".join(map(keys.recipient, numbers))}
    project.write_env({**project.database.settings, **recipients, **settings})
    project.database.admin(FILL)
    return project


@pytest.fixture
def secret_project(plain_project, keys):
    """A plain project that encrypts for two keys and has no identity."""
    return sealed_for(plain_project, keys, 1, 2)


def entries(project):
    folder = project.root / ".nself-backups"
    return sorted(os.listdir(folder)) if folder.exists() else []


def take(project, *options):
    return project.run("backup", *options, "--json").ok().json()


def newest_row(project):
    return project.database.admin('SELECT max(i) AS i FROM "hidden t"')[0]["i"]


def identity(keys, number):
    return {"BACKUP_AGE_IDENTITY": keys.path(number)}


# There and back.


@pytest.mark.servers("container-15", "url-psql-15", "embedded-18")
@pytest.mark.parametrize("options", [["custom"], ["plain"], ["plain", "--compress", "6"]])
def test_it_is_encrypted_and_comes_back(project, keys, options):
    sealed_for(project, keys, 1, 2)
    data = take(project, "--format", *options, "--label", "x")["data"]
    path = project.root / data["file"]
    assert path.name.endswith("_x.sql.gz.age" if len(options) > 1 else "_x" + ENDINGS[options[0]])
    content = path.read_bytes()
    assert content.startswith(b"age-encryption.org/v1\n")
    assert b"hidden t" not in content and b"PGDMP" not in content
    manifest = path.with_name(path.name + ".json").read_text()
    assert "hidden t" not in manifest and "CREATE ROLE" not in manifest
    assert json.loads(manifest)["encryption"] == "age"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for number in (1, 2):
        [item] = project.run("backup", "verify", "--json", env=identity(keys, number)).ok().json()["data"]["backups"]
        assert (item["state"], item["reason"]) == ("good", None)
    project.database.admin('DELETE FROM "hidden t" WHERE i > 9')
    project.run("restore", "--force", "--no-safety-backup", env=identity(keys, 2)).ok()
    assert newest_row(project) == 5000
    assert entries(project) == [path.name, path.name + ".json"]
    project.run("restore", "--clean", "--force").ok()


@pytest.mark.parametrize("form", ENDINGS)
def test_age_itself_reads_it(secret_project, keys, form):
    path = secret_project.root / take(secret_project, "--format", form)["data"]["file"]
    done = subprocess.run(["age", "-d", "-i", keys.path(1), str(path)], capture_output=True, check=True)
    assert done.stdout.startswith(b"PGDMP" if form == "custom" else b"--\n-- PostgreSQL database dump")
    manifest = json.loads(path.with_name(path.name + ".json").read_text())
    whole = age.unsealed(manifest, keys.path(2))
    assert whole["estimated_rows"]['public."hidden t"'] == 5000 and "CREATE ROLE" in whole["globals"]
    assert whole["content"] == {"bytes": len(done.stdout), "sha256": sha256(done.stdout)}
    assert age.as_sealed(whole) == manifest


def sha256(data):
    import hashlib

    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("options", [[], ["--no-local"]])
def test_in_the_object_store_too(plain_project, keys, storage, options):
    sealed_for(plain_project, keys, 1, **storage.settings())
    data = take(plain_project, "--remote", *options, "--verify")
    assert "not set" in " ".join(data["warnings"])
    [key, _] = storage.keys()
    assert key.endswith(".dump.age") and storage.get(key).startswith(b"age-encryption.org/v1\n")
    assert b"hidden t" not in storage.get(key + ".json")
    [item] = plain_project.run("backup", "verify", "--remote", "--json").ok().json()["data"]["backups"]
    assert item["state"] == "not decrypted"
    outcome = plain_project.run("backup", "verify", "--remote", "--json", env=identity(keys, 1)).ok()
    assert outcome.json()["data"]["backups"][0]["state"] == "good"
    shutil.rmtree(plain_project.root / ".nself-backups", ignore_errors=True)
    assert plain_project.run("restore", "--remote", "--force").code == 3
    assert entries(plain_project) == []
    plain_project.database.admin('DROP TABLE "hidden t"')
    plain_project.run("restore", "--remote", "--force", env=identity(keys, 1)).ok()
    assert newest_row(plain_project) == 5000
    assert b"hidden t" not in (plain_project.root / ".nself-backups" / (os.path.basename(key) + ".json")).read_bytes()
    plain_project.run("restore", "--clean", "--force").ok()


def test_what_is_taken_before_a_drop_is_encrypted(secret_project):
    secret_project.database.admin("CREATE TABLE np_a (id int)")
    data = secret_project.run("drop", "--force", "--backup", "--json").ok().json()["data"]
    assert data["file"].endswith("_before-drop.dump.age")


def test_a_plain_backup_is_not_sent_where_they_are_to_be_encrypted(plain_project, keys, storage):
    name = os.path.basename(take(plain_project)["data"]["file"])
    sealed_for(plain_project, keys, 1, **storage.settings())
    outcome = plain_project.run("backup", "--upload", name, "--json")
    assert outcome.code == 4 and "is not encrypted" in outcome.json()["error"]["message"]
    assert storage.keys() == []


# Without the identity, or with another one.


def test_without_the_identity_the_hash_is_compared_and_that_is_said(secret_project):
    document = take(secret_project, "--verify")
    assert "only its hash was compared" in document["warnings"][0]
    path = secret_project.root / document["data"]["file"]
    outcome = secret_project.run("backup", "verify", "--json").ok()
    [item] = outcome.json()["data"]["backups"]
    assert item["state"] == "not decrypted" and "BACKUP_AGE_IDENTITY is not set" in item["reason"]
    assert "read whole" not in secret_project.run("backup", "verify", "--quiet").ok().out.replace(
        "0 of them read whole", ""
    )
    outcome = secret_project.run("restore", "--force", "--json")
    assert outcome.code == 3 and "BACKUP_AGE_IDENTITY is not set" in outcome.json()["error"]["message"]
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    outcome = secret_project.run("backup", "verify", "--json")
    assert outcome.code == 1 and outcome.json()["data"]["backups"][0]["state"] == "damaged"
    assert newest_row(secret_project) == 5000


@pytest.mark.parametrize("words", [["backup", "verify"], ["restore", "--force"]])
def test_another_identity_is_exit_3(secret_project, keys, words):
    take(secret_project)
    outcome = secret_project.run(*words, "--json", env=identity(keys, 3))
    assert outcome.code == 3 and "none of the identities" in outcome.json()["error"]["message"]
    assert newest_row(secret_project) == 5000


@pytest.mark.parametrize(("content", "words"), [(None, "there is no such file"), ("junk", "age cannot use")])
def test_an_identity_that_is_none(secret_project, tmp_path, content, words):
    take(secret_project)
    path = tmp_path / "identity"
    if content:
        path.write_text(content)
    outcome = secret_project.run("restore", "--force", "--json", env={"BACKUP_AGE_IDENTITY": str(path)})
    assert outcome.code == 1 and words in outcome.json()["error"]["message"]


def test_a_key_in_the_place_of_its_path_is_not_told(secret_project, keys):
    with open(keys.path(1), encoding="utf-8") as file:
        key = file.read().split()[-1]
    assert key.startswith("AGE-SECRET-KEY-1")
    for name in ("BACKUP_AGE_IDENTITY", "BACKUP_AGE_RECIPIENTS"):
        outcome = secret_project.run("backup", "--verbose", env={name: key})
        assert outcome.code == 1
        assert key not in outcome.out + outcome.err
    assert entries(secret_project) == []


def test_a_manifest_lost_leaves_a_dump_that_can_be_read(secret_project, keys):
    path = secret_project.root / take(secret_project)["data"]["file"]
    path.with_name(path.name + ".json").unlink()
    [item] = secret_project.run("backup", "verify", "--json").ok().json()["data"]["backups"]
    assert item["state"] == "without manifest"
    [item] = secret_project.run("backup", "verify", "--json", env=identity(keys, 1)).ok().json()["data"]["backups"]
    assert item["state"] == "without manifest" and "read whole" in item["reason"]
    path.write_bytes(path.read_bytes()[:-100])
    outcome = secret_project.run("backup", "verify", "--json", env=identity(keys, 1))
    assert outcome.code == 1 and outcome.json()["data"]["backups"][0]["state"] == "damaged"


def test_jobs_want_a_file(secret_project, keys):
    take(secret_project)
    outcome = secret_project.run("restore", "--jobs", "2", "--force", "--json", env=identity(keys, 1))
    assert outcome.code == 1 and "--jobs" in outcome.json()["error"]["message"]


# Checked before the dump begins.


@pytest.mark.parametrize(("recipients", "code", "words"), [
    ("age1nonsense", 1, "malformed recipient"), ("nonsense", 1, "is no recipient"),
    ("ssh-ed25519 nonsense", 1, "age does not take"), ("-x", 1, "is no recipient"),
])  # fmt: skip
def test_recipients_that_are_none(secret_project, recipients, code, words):
    for options in ([], ["--dry-run"]):
        outcome = secret_project.run("backup", *options, "--json", env={"BACKUP_AGE_RECIPIENTS": recipients})
        assert outcome.code == code
        assert words in outcome.json()["error"]["message"]
    assert entries(secret_project) == []


def test_no_age_on_this_host(secret_project, tmp_path):
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("psql", "pg_dump", "pg_dumpall", "sh"):
        (folder / name).symlink_to(shutil.which(name) or "/bin/sh")
    outcome = secret_project.run("backup", "--json", env={"PATH": str(folder)})
    assert outcome.code == 2
    error = outcome.json()["error"]
    assert "there is no age" in error["message"] and "apt-get install age" in error["hint"]
    assert entries(secret_project) == []


def test_a_directory_is_not_encrypted(secret_project):
    outcome = secret_project.run("backup", "--format", "directory", "--json")
    assert outcome.code == 1 and "--format custom" in outcome.json()["error"]["hint"]
    assert entries(secret_project) == []


def test_a_dry_run_names_the_recipients(secret_project, keys):
    out = secret_project.run("backup", "--dry-run").ok().out
    assert f"encrypted by age for {keys.recipient(1)}, {keys.recipient(2)}" in out and ".dump.age" in out


# age dies, or the way to it.


def test_an_age_that_dies_leaves_nothing(secret_project, tmp_path):
    folder = tmp_path / "bin"
    folder.mkdir()
    fake = folder / "age"
    real = shutil.which("age")
    dies = f'if [ -e "{folder}/die" ]; then head -c 1000; echo "age: error: it dies" >&2; exit 1; fi'
    fake.write_text(f'#!/bin/sh\n{dies}\ntouch "{folder}/die"; exec {real} "$@"\n')
    fake.chmod(0o755)
    outcome = secret_project.run("backup", "--json", env={"PATH": f"{folder}:{os.environ['PATH']}"})
    assert outcome.code == 1 and "it dies" in outcome.json()["error"]["message"]
    assert entries(secret_project) == []


def test_an_interrupted_one_leaves_nothing(secret_project):
    secret_project.database.admin("CREATE SEQUENCE s")
    with secret_project.database.connect() as gate:
        gate.execute("BEGIN; ALTER SEQUENCE s RENAME TO renamed")
        process = secret_project.start("backup")
        deadline = time.monotonic() + 20
        while not entries(secret_project) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        gate.execute("ROLLBACK")
    assert process.returncode == 130
    assert entries(secret_project) == []


# In parts.


def encrypt(keys, data, piece=100_000):
    out = []
    encrypting = age.Encrypting((keys.recipient(1),), out.append)
    for start in range(0, len(data), piece):
        encrypting(data[start : start + piece])
    encrypting.finish()
    encrypting.end()
    assert (encrypting.size, encrypting.hexdigest) == (len(data), sha256(data))
    return b"".join(out)


@pytest.mark.parametrize("size", [0, 1, 65536, 3_000_000])
def test_streams_of_any_length(keys, size):
    data = os.urandom(size)
    secret = encrypt(keys, data)
    pieces = [secret[start : start + 70_000] for start in range(0, len(secret), 70_000)]
    assert b"".join(age.decrypted(keys.path(1), pieces)) == data


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: data[:-1] + b"\0", lambda data: b""]
)
def test_what_is_damaged_is_never_taken_for_whole(keys, damage):
    secret = encrypt(keys, os.urandom(300_000))
    with pytest.raises(CheckFailed, match="cannot be decrypted"):
        list(age.decrypted(keys.path(1), [damage(secret)]))
    with pytest.raises(CredentialsRefused):
        list(age.decrypted(keys.path(3), [secret]))


def test_a_sealed_manifest_that_was_changed(keys):
    sealed = age.sealed({"file": "x", "globals": "CREATE ROLE"}, (keys.recipient(1),))
    assert "globals" not in sealed and age.unsealed(sealed, keys.path(1))["globals"] == "CREATE ROLE"
    with pytest.raises(CheckFailed):
        age.unsealed({**sealed, "sealed": sealed["sealed"][:-80]}, keys.path(1))


def test_recipients_are_separated_by_commas_lines_or_blanks():
    class Settings:
        def __init__(self, text):
            self.text = text

        def get(self, name, default=None):
            return self.text

        def source(self, name):
            return "here"

    read = age.read_recipients
    assert read(Settings("")) == ()
    assert read(Settings("age1a, age1b\nage1c age1d,")) == ("age1a", "age1b", "age1c", "age1d")
    assert read(Settings("ssh-ed25519 AAAA me@host\nage1x")) == ("ssh-ed25519 AAAA me@host", "age1x")
    for text in ("age1a;age1b x", "AGE-SECRET-KEY-1X", "--output=/etc/passwd"):
        with pytest.raises(UsageFailure) as caught:
            read(Settings(text))
        assert text not in str(caught.value)
