"""`migrate verify-checksums` and `reset-checksum`: what counts as a change of an applied file, and accepting one."""

from __future__ import annotations

import hashlib

import pytest
from bed.bookkeeping import make_schema_migrations, record, schemas, versions

TEXT = "CREATE TABLE a (id int);\n-- ü\nCREATE TABLE b (id int);\n"


def verify(project):
    """The outcome of `verify-checksums --json`."""
    return project.run("migrate", "verify-checksums", "--json")


@pytest.fixture
def applied_file(project):
    """A project whose one migration is applied."""
    return with_applied_file(project)


@pytest.fixture
def plain_file(plain_project):
    """The same on the plain server."""
    return with_applied_file(plain_project)


def with_applied_file(project):
    project.migration("1_a", TEXT)
    project.run("migrate", "up").ok()
    return project


# verify-checksums.


def test_an_unchanged_file_passes(applied_file):
    outcome = verify(applied_file).ok()
    assert outcome.json()["data"] == {"checked": 1, "wrong": []}
    assert "1 applied file unchanged" in outcome.err


def test_the_checksum_is_sha_256_of_the_text(plain_file):
    assert record(plain_file, 1)["checksum"] == hashlib.sha256(TEXT.encode()).hexdigest()


def test_a_changed_file_is_named_and_the_exit_code_is_1(applied_file):
    applied_file.migration("1_a", TEXT.replace("int", "bigint"))
    outcome = verify(applied_file)
    assert outcome.code == 1
    assert outcome.json()["data"] == {
        "checked": 1,
        "wrong": [{"version": "1", "file": "migrations/1_a.sql", "state": "changed"}],
    }
    text = applied_file.run("migrate", "verify-checksums")
    assert text.code == 1
    assert "migrations/1_a.sql  changed" in text.out


def test_each_changed_or_vanished_file_is_named(plain_project):
    for number in (1, 2, 3, 4):
        plain_project.migration(f"{number}_t", f"CREATE TABLE t{number} ();")
    plain_project.run("migrate", "up", "--count", "3").ok()
    plain_project.migration("1_t", "CREATE TABLE t1 (id int);")
    (plain_project.root / "migrations/3_t.sql").unlink()
    outcome = verify(plain_project)
    assert outcome.code == 1
    assert outcome.json()["data"]["checked"] == 3
    assert [(row["file"], row["state"]) for row in outcome.json()["data"]["wrong"]] == [
        ("migrations/1_t.sql", "changed"),
        ("migrations/3_t.sql", "missing"),
    ]
    assert outcome.json()["error"]["message"] == "2 of 3 applied files changed or vanished"


@pytest.mark.parametrize(
    "content",
    [
        TEXT.replace("\n", "\r\n").encode(),
        TEXT.replace("\n", "\r").encode(),
        b"\xef\xbb\xbf" + TEXT.encode(),
        b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode(),
    ],
    ids=["CRLF", "CR", "BOM", "BOM and CRLF"],
)
def test_line_ends_and_a_bom_are_no_change(plain_file, content):
    plain_file.write("migrations/1_a.sql", content)
    verify(plain_file).ok()
    plain_file.run("migrate", "up", "--strict").ok()


@pytest.mark.parametrize("content", [TEXT + "\n", TEXT.rstrip("\n"), TEXT + "-- a word\n", TEXT.replace("ü", "u"), ""])
def test_any_other_character_is_a_change(plain_file, content):
    plain_file.migration("1_a", content)
    assert verify(plain_file).code == 1


def test_a_renamed_file_of_the_same_version_is_no_change(plain_file):
    (plain_file.root / "migrations/1_a.sql").rename(plain_file.root / "migrations/001_accounts.up.sql")
    verify(plain_file).ok()


def test_a_changed_down_file_is_no_change(plain_project):
    plain_project.migration("1_a", TEXT, "DROP TABLE a, b;")
    plain_project.run("migrate", "up").ok()
    plain_project.migration("1_a", TEXT, "DROP TABLE b, a;")
    verify(plain_project).ok()


def test_a_file_that_is_not_text_any_more_is_a_change(plain_file):
    plain_file.write("migrations/1_a.sql", b"\xff\xfe\x00\x00")
    outcome = verify(plain_file)
    assert outcome.code == 1
    assert outcome.json()["data"]["wrong"][0]["state"] == "changed"


def test_what_hasura_recorded_has_no_checksum_and_is_warned_of(plain_project):
    make_schema_migrations(plain_project, (1, False), (2, False))
    plain_project.migration("1_a", TEXT)
    outcome = verify(plain_project)
    assert outcome.code == 1
    assert outcome.json()["data"] == {"checked": 1, "wrong": [{"version": "2", "file": None, "state": "missing"}]}
    assert outcome.json()["warnings"] == ["version 1 was recorded by another tool: it has no checksum"]


def test_on_a_fresh_database_there_is_nothing_to_verify_and_nothing_is_created(plain_project):
    plain_project.migration("1_a", TEXT)
    assert verify(plain_project).ok().json()["data"] == {"checked": 0, "wrong": []}
    assert schemas(plain_project) == []


# reset-checksum.


def test_the_present_text_is_accepted(applied_file):
    applied_file.migration("1_a", TEXT + "-- more\n")
    outcome = applied_file.run("migrate", "reset-checksum", "--migration", "0001", "--json").ok()
    expected = hashlib.sha256((TEXT + "-- more\n").encode()).hexdigest()
    assert outcome.json()["data"] == {"migration": "1", "checksum": expected}
    verify(applied_file).ok()


def test_when_and_how_it_was_applied_stays(plain_file):
    before = record(plain_file, 1)
    plain_file.migration("1_a", TEXT + "-- more\n")
    plain_file.run("migrate", "reset-checksum", "--migration", "1").ok()
    after = record(plain_file, 1)
    assert {**before, "checksum": None} == {**after, "checksum": None}


def test_a_checksum_that_is_right_is_left_alone(plain_file):
    outcome = plain_file.run("migrate", "reset-checksum", "--migration", "1", "--json").ok()
    assert outcome.json()["data"] == {"migration": None}
    assert "is right already" in outcome.err


def test_a_version_that_hasura_recorded_gets_a_checksum(project):
    make_schema_migrations(project, (1, False))
    project.migration("1_a", TEXT)
    project.run("migrate", "reset-checksum", "--migration", "1").ok()
    assert record(project, 1)["checksum"] == hashlib.sha256(TEXT.encode()).hexdigest()
    assert record(project, 1)["duration_ms"] is None
    assert verify(project).ok().json()["data"]["checked"] == 1
    assert versions(project) == [(1, False)]


@pytest.mark.parametrize(
    ("version", "said"),
    [("2", "version 2 is not applied"), ("9", "no migration has version 9"), ("3", "the file of version 3 is gone")],
)
def test_what_has_no_file_or_no_record_is_refused(plain_project, version, said):
    make_schema_migrations(plain_project, (3, False))
    plain_project.migration("2_b", "CREATE TABLE b ();")
    outcome = plain_project.run("migrate", "reset-checksum", "--migration", version)
    assert outcome.code == 1
    assert said in outcome.err


def test_a_half_done_version_is_not_made_whole_by_it(plain_project):
    make_schema_migrations(plain_project, (1, True))
    plain_project.migration("1_a", TEXT)
    outcome = plain_project.run("migrate", "reset-checksum", "--migration", "1")
    assert outcome.code == 1
    assert "version 1 is half done" in outcome.err
    assert versions(plain_project) == [(1, True)]


def test_dry_run_shows_the_statement_and_changes_nothing(plain_file):
    before = record(plain_file, 1)
    plain_file.migration("1_a", "SELECT 1;")
    outcome = plain_file.run("migrate", "reset-checksum", "--migration", "1", "--dry-run").ok()
    assert "UPDATE nself_db.migrations SET checksum = '" in outcome.out
    assert record(plain_file, 1) == before


def test_in_prod_it_wants_consent(plain_file):
    plain_file.write_env(plain_file.database.settings, ".env.prod")
    plain_file.migration("1_a", "SELECT 1;")
    words = ("migrate", "reset-checksum", "--migration", "1", "--env", "prod")
    assert plain_file.run(*words).code == 4
    assert plain_file.run(*words, "--force").code == 4
    plain_file.run(*words, "--force", "--confirm", plain_file.root.name).ok()


def test_another_run_holds_the_lock(plain_file):
    plain_file.migration("1_a", "SELECT 1;")
    with plain_file.database.connect() as holder:
        holder.execute(f"SELECT pg_advisory_lock({0x6E73656C66})")
        outcome = plain_file.run("migrate", "reset-checksum", "--migration", "1")
    assert outcome.code == 4
    assert verify(plain_file).code == 1
