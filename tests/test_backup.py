"""`backup`: every format over every way to a server; what stands in the folder, in the manifest and in no place."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import secrets
import stat
import subprocess
import time
from types import SimpleNamespace

import pytest
from bed.servers import NASTY_NAME
from psycopg import sql

from nself_core.backups import take as taking
from nself_core.backups.folder import give_name, reserve
from nself_core.backups.names import file_name
from nself_core.postgres.toolchain import find_clients

FORMATS = ("custom", "plain", "directory")
FILL = """
CREATE TABLE "T a.b" (id int PRIMARY KEY, word text);
INSERT INTO "T a.b" SELECT i, md5(i::text) FROM generate_series(1, 2000) i;
CREATE TABLE empty (id int);
ANALYZE "T a.b";
"""


def folder_of(project):
    return project.root / ".nself-backups"


def entries(project):
    """What lies in the folder of backups, hidden names too."""
    return sorted(os.listdir(folder_of(project))) if folder_of(project).exists() else []


def take(project, *options):
    """A backup; returns its path and its manifest."""
    data = project.run("backup", *options, "--json").ok().json()["data"]
    path = project.root / data["file"]
    return path, json.loads((project.root / (data["file"] + ".json")).read_text(encoding="utf-8"))


def plain_text(path):
    data = path.read_bytes()
    return (gzip.decompress(data) if path.name.endswith(".gz") else data).decode()


def modes(path):
    """The permissions of a backup: of the file, or of the folder and all in it."""
    return {stat.S_IMODE(each.stat().st_mode) for each in [path, *(path.iterdir() if path.is_dir() else ())]}


def refused_as_too_old(project, *options):
    """Whether all programs here are older than the server that a URL leads to; then the backup says so."""
    server = project.database.server
    newest = subprocess.run([find_clients("pg_dump")[0], "--version"], capture_output=True, text=True).stdout
    if not server.kind.startswith("url") or server.version <= int(newest.split()[2].split(".")[0]):
        return False
    error = project.run("backup", *options, "--json").json()["error"]
    assert error["exit_code"] == 2
    assert f"is older than the server, which is {server.version}" in error["message"]
    assert entries(project) == []
    return True


def test_a_table_that_is_gone_after_the_dump_is_not_in_its_manifest(monkeypatch):
    monkeypatch.setattr(taking, "_globals", lambda *_: ("", []))
    monkeypatch.setattr(taking, "read_facts", lambda _: {"estimated_rows": {"public.stays": 2, "public.new": 3}})
    facts = {"estimated_rows": {"public.stays": 1, "public.goes": 5}}
    job = SimpleNamespace(facts=facts, details={}, recipients=[])
    dumped = taking.Dumped(1, "0", "nself-program pg_dump (PostgreSQL) 15.1\n", None)
    manifest, warnings = taking._manifest(None, job, "a.dump", dumped, 0)
    assert manifest["estimated_rows"] == {"public.stays": 1} and not warnings


# Every format over every way.


@pytest.mark.versions
@pytest.mark.parametrize("form", FORMATS)
def test_a_backup_is_whole_ours_alone_and_described(project, form):
    if refused_as_too_old(project, "--format", form):
        return
    project.database.admin(FILL)
    with project.database.connect() as other:
        path, manifest = take(project, "--format", form, "--label", "first", "--verify")
        other.execute("SELECT 1")  # the server has not restarted: an orphan in its container would be a crash to it
    assert path.name.endswith("_first" + {"custom": ".dump", "plain": ".sql", "directory": ".dir"}[form])
    assert modes(path) == ({0o700, 0o600} if form == "directory" else {0o600})
    assert modes(path.with_name(path.name + ".json")) == {0o600}
    assert stat.S_IMODE(folder_of(project).stat().st_mode) == 0o700
    assert entries(project) == sorted([path.name, path.name + ".json"])
    assert manifest["file"] == path.name
    assert (manifest["format"], manifest["label"], manifest["env"]) == (form, "first", "dev")
    assert manifest["database"] == project.database.name
    assert manifest["encoding"] == "UTF8"
    assert manifest["estimated_rows"]['public."T a.b"'] == 2000
    assert manifest["server"].startswith(str(project.database.server.version))
    assert int(manifest["pg_dump"].split()[2].split(".")[0]) >= project.database.server.version
    assert "CREATE ROLE" in manifest["globals"]
    assert {"plpgsql"} <= {*manifest["extensions"]}
    owner = {entry.stat().st_uid for entry in (path.iterdir() if path.is_dir() else [path])}
    assert owner == {os.getuid()}
    assert project.run("backup", "verify", "--json").ok().json()["data"]["backups"][0]["state"] == "good"


@pytest.mark.parametrize(("form", "level", "ending"), [
    ("custom", "0", ".dump"), ("custom", "9", ".dump"), ("plain", "0", ".sql"), ("plain", "6", ".sql.gz"),
    ("directory", "0", ".dir"), ("directory", "1", ".dir"),
])  # fmt: skip
def test_levels(plain_project, form, level, ending):
    plain_project.database.admin(FILL)
    path, manifest = take(plain_project, "--format", form, "--compress", level, "--verify")
    assert path.name.endswith(ending) and not path.name.endswith(".sql" + ending)
    if form == "plain":
        assert "PostgreSQL database dump complete" in plain_text(path)
    if form != "directory":
        assert hashlib.sha256(path.read_bytes()).hexdigest() == manifest["sha256"]
        assert path.stat().st_size == manifest["bytes"]


@pytest.mark.servers("container-17", "url-psql-15", "embedded-18")
@pytest.mark.parametrize("method", ["zstd", "zstd:3", "lz4"])
def test_zstd_and_lz4_where_the_server_has_them(project, method):
    project.database.admin(FILL)
    outcome = project.run("backup", "--compress", method, "--verify", "--json")
    if project.database.server.version < 16:
        assert outcome.code == 1
        assert "since Postgres 16" in outcome.json()["error"]["message"]
        assert entries(project) == []
        return
    if outcome.code and "build" in outcome.err:  # a server that was built without it says so itself
        assert entries(project) == []
        return
    outcome.ok()


@pytest.mark.parametrize(("options", "words"), [
    (["--compress", "10"], "is no compression"),
    (["--compress", "zstd:"], "is no compression"),
    (["--compress", "zstd:x"], "is no compression"),
    (["--compress", "\u0663"], "is no compression"),
    (["--compress", ""], "is no compression"),
    (["--compress", "zstd", "--format", "plain"], "gzip only"),
    (["--compress", "zstd"], "since Postgres 16"),
    (["--jobs", "2"], "--format directory only"),
    (["--jobs", "0", "--format", "directory"], "whole number from 1"),
    (["--label", ""], "is no label"),
    (["--label", "../up"], "is no label"),
    (["--label", "a b"], "is no label"),
    (["--label", "ä"], "is no label"),
    (["--label", ".hidden"], "is no label"),
    (["--label", "a\n"], "is no label"),
    (["--label", "x" * 65], "is no label"),
])  # fmt: skip
def test_what_is_refused_before_anything_is_made(plain_project, options, words):
    if plain_project.database.server.version >= 16 and options == ["--compress", "zstd"]:
        pytest.skip("this host's Postgres has it")
    outcome = plain_project.run("backup", *options, "--json")
    assert outcome.code == 1
    assert words in outcome.json()["error"]["message"]
    assert not folder_of(plain_project).exists()


@pytest.mark.parametrize("label", ["v1.2.dump", "x" * 64, "2024", "a.sql.gz", "A_b-c.json"])
def test_labels_with_dots_and_the_like_are_found_again(plain_project, label):
    path, manifest = take(plain_project, "--label", label)
    assert path.name.endswith(f"_{label}.dump")
    [found] = plain_project.run("backup", "list", "--json").ok().json()["data"]["backups"]
    assert (found["label"], found["manifest"], manifest["label"]) == (label, True, label)
    plain_project.run("backup", "verify", path.name).ok()


@pytest.mark.parametrize("form", FORMATS)
def test_two_backups_in_one_second_both_stay(plain_project, form):
    runs = [plain_project.start("backup", "--format", form, "--json") for _ in range(4)]
    files = {json.loads(run.communicate(timeout=60)[0])["data"]["file"] for run in runs}
    assert len(files) == 4
    listed = plain_project.run("backup", "verify", "--json").ok().json()["data"]["backups"]
    assert {item["file"] for item in listed} == files
    assert not [name for name in entries(plain_project) if name.startswith(".")]


def test_jobs(plain_project):
    plain_project.database.admin(FILL)
    path, _ = take(plain_project, "--format", "directory", "--jobs", "2", "--verify")
    assert (path / "toc.dat").exists()


# What is said.


def test_text_and_quiet(plain_project):
    outcome = plain_project.run("backup").ok()
    assert outcome.out.startswith(f"backed up {plain_project.database.name} to .nself-backups/20")
    assert outcome.err == ""
    assert plain_project.run("backup", "list").ok().out.count(".dump") == 1
    assert len(plain_project.run("backup", "--quiet").ok().out.splitlines()) <= 1


def test_a_dry_run_names_every_step_and_makes_nothing(plain_project):
    outcome = plain_project.run("backup", "--format", "plain", "--label", "x", "--verify", "--dry-run").ok()
    assert "pg_dump --format=p" in outcome.out
    assert all(words in outcome.out for words in ("_x.sql:", "SHA-256", "whole"))
    assert not folder_of(plain_project).exists()


def test_progress_of_a_long_dump(plain_project):
    plain_project.database.admin(
        "CREATE TABLE big AS SELECT i, md5(i::text) AS one, md5((7 * i)::text) AS two FROM generate_series(1, 700000) i"
    )
    process = plain_project.start("backup", "--compress", "9")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "dumped" in err, "a dump of more than a second tells how far it is"


def test_what_the_shell_beside_pg_dump_tells_us_is_told_to_nobody(plain_project):
    outcome = plain_project.run("backup", "--json").ok()
    assert outcome.json()["warnings"] == []
    assert not {"nself-program", "nself-exit"} & {*outcome.err.split()}


@pytest.mark.parametrize("ending", [".dump", ".dir"])
def test_a_name_that_another_run_gives_in_the_same_moment_is_not_taken(tmp_path, monkeypatch, ending):
    taken, real = tmp_path / file_name(0, None, ending), {name: getattr(os, name) for name in ("open", "mkdir")}

    def late(name):
        def make(path, *rest, **named):
            if not taken.exists():
                taken.write_text("of the other run")
            return real[name](path, *rest, **named)

        return make

    for name in real:
        monkeypatch.setattr(os, name, late(name))
    name, part = reserve(str(tmp_path), 0, None, ending)
    assert name == file_name(1, None, ending)
    assert sorted(os.listdir(tmp_path)) == sorted([taken.name, os.path.basename(part)])


@pytest.mark.parametrize("links", [True, False])
def test_a_name_is_given_with_and_without_hard_links_and_never_over_another(tmp_path, monkeypatch, links):
    def refuse(*paths):
        raise PermissionError(1, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    part, path = tmp_path / "part", tmp_path / "path"
    part.write_text("dump")
    give_name(str(part), str(path))
    assert (os.listdir(tmp_path), path.read_text()) == (["path"], "dump")
    if links:
        part.write_text("another")
        with pytest.raises(FileExistsError):
            give_name(str(part), str(path))
        assert path.read_text() == "dump"


# Names, roles, places.


@pytest.mark.parametrize("name", [NASTY_NAME, "a=b", "ö" * 31, "UPPER", "$$", "postgresql://x", "back\\slash", "-d"])
def test_database_names(plain_server, make_database, make_project, name):
    project = make_project(make_database(plain_server, name))
    project.database.admin(FILL)
    for form in FORMATS:
        _, manifest = take(project, "--format", form, "--verify")
        assert manifest["database"] == name
        assert manifest["globals"], "the roles are missing"


@pytest.mark.servers("container-15", "embedded-18")
@pytest.mark.parametrize("form", ["custom", "directory"])
def test_a_nasty_database_name(nasty_database, make_project, form):
    project = make_project(nasty_database)
    project.database.admin(FILL)
    _, manifest = take(project, "--format", form, "--verify")
    assert manifest["database"] == NASTY_NAME and manifest["globals"]


@pytest.mark.parametrize("form", FORMATS)
def test_a_role_that_may_not_read_a_table(plain_project, form):
    database, name, password = plain_project.database, f"reader_{secrets.token_hex(3)}", secrets.token_hex(8)
    database.admin(FILL)
    create = "CREATE ROLE {} LOGIN PASSWORD {}"
    database.admin(sql.SQL(create).format(sql.Identifier(name), sql.Literal(password)))
    try:
        url = database.server.cluster.url(database.name, user=name, password=password)
        outcome = plain_project.run("backup", "--format", form, "--url", url, "--json")
    finally:
        database.admin(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))
    assert outcome.code == 1
    assert "permission denied for table" in outcome.json()["error"]["message"]
    assert entries(plain_project) == []
    assert password not in outcome.out + outcome.err


def test_the_folder_may_be_elsewhere(plain_project, tmp_path):
    place = tmp_path / "else where" / "deep"
    outcome = plain_project.run("backup", "--json", env={"BACKUP_DIR": str(place)}).ok()
    assert outcome.json()["data"]["file"].startswith(str(place))
    assert len(os.listdir(place)) == 2
    assert stat.S_IMODE(place.stat().st_mode) == 0o700


def test_a_file_in_the_folders_place(plain_project):
    plain_project.write(".nself-backups", "not a folder")
    outcome = plain_project.run("backup", "--json")
    assert outcome.code == 1
    assert outcome.json()["error"]["code"] == "bad_file"
    listed = plain_project.run("backup", "list", "--json")
    assert (listed.code, listed.json()["error"]["file"]) == (1, ".nself-backups"), "not that there are none"
    assert plain_project.run("backup", "verify").code == 1


def test_a_folder_that_cannot_be_written(plain_project):
    outcome = plain_project.run("backup", "--json", env={"BACKUP_DIR": "/proc/backups"})
    assert outcome.code == 1
    assert outcome.json()["error"]["file"] == "/proc/backups"


def test_no_server(plain_project):
    plain_project.database.server.drop_database(plain_project.database.name)
    outcome = plain_project.run("backup", "--json")
    assert outcome.code == 2
    assert not folder_of(plain_project).exists()


# Secrets.


def test_no_password_in_manifest_output_or_arguments(plain_project):
    from test_secrets import forms, watch

    database, secret, name = plain_project.database, f"s3cret/{secrets.token_hex(12)}@:?", f"o_{secrets.token_hex(3)}"
    role = sql.Identifier(name)
    database.admin("CREATE TABLE big AS SELECT i, md5(i::text) FROM generate_series(1, 100000) i")
    database.admin(sql.SQL("CREATE ROLE {} LOGIN SUPERUSER PASSWORD {}").format(role, sql.Literal(secret)))
    hashed = database.admin("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [name])[0]["rolpassword"]
    url = database.server.cluster.url(database.name, user=name, password=secret)
    try:
        process = plain_project.start("backup", "--verbose", "--json", env={"NSELF_DB_URL": url})
        leaks, looks = watch(process, forms(secret))
        out, err = process.communicate()
    finally:
        database.admin(sql.SQL("DROP ROLE {}").format(role))
    assert process.returncode == 0, err
    assert looks and not leaks
    file = plain_project.root / json.loads(out)["data"]["file"]
    manifest = file.with_name(file.name + ".json").read_text()
    assert name in manifest
    for word in (*forms(secret), hashed, hashed.rpartition("$")[2]):
        assert word not in out + err + manifest
    assert "PASSWORD" not in json.loads(manifest)["globals"]


# The manifest.


def test_the_manifest_tells_the_database(plain_project):
    plain_project.migration("1_a", "CREATE TABLE a (id int);")
    plain_project.run("migrate", "up").ok()
    database = plain_project.database
    database.admin(sql.SQL("ALTER DATABASE {} SET work_mem = '8MB'").format(sql.Identifier(database.name)))
    database.admin(sql.SQL("COMMENT ON DATABASE {} IS 'it''s ours'").format(sql.Identifier(database.name)))
    database.admin('CREATE SCHEMA "a.b"; CREATE TABLE "a.b".c (); CREATE SCHEMA a; CREATE TABLE a."b.c" ()')
    before = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    _, manifest = take(plain_project)
    assert manifest["versions"] == ["1"]
    assert manifest["settings"] == [{"role": None, "settings": ["work_mem=8MB"]}] or (
        manifest["settings"][0]["settings"] == ["work_mem=8MB"]
    )
    assert manifest["comment"] == "it's ours"
    assert {'"a.b".c', 'a."b.c"'} <= {*manifest["estimated_rows"]}
    assert before <= manifest["started_at"] <= manifest["finished_at"]
    assert manifest["tool"].startswith("nself-db ")
    assert manifest["owner"] == database.server.cluster.user
