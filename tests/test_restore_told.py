"""What `restore` tells: its SQL under --verbose, every step and what is lost under --dry-run, and its warnings."""

from __future__ import annotations

import json
import os
import re

import psycopg
import pytest
from bed.local_processes import wait_until
from bed.projects import Project
from test_restore import backup, count, databases, drop_beside, filled

from nself_core.backups import comparison, swap


@pytest.fixture
def plain_filled(plain_project):
    yield filled(plain_project)
    drop_beside(plain_project)


def shown(project, *options, **more):
    """(titles, SQL texts of the steps, what is lost) of a dry run."""
    data = project.run("restore", *options, "--dry-run", "--json", **more).ok().json()["data"]
    return [step["title"] for step in data["plan"]], [step["sql"] for step in data["plan"]], data["loses"]


# Its SQL.


@pytest.mark.parametrize("driver", ["psql", "psycopg"])
def test_verbose_shows_each_statement_on_the_databases(plain_filled, driver):
    name = plain_filled.database.name
    plain_filled.database.server.cluster.admin(f"ALTER DATABASE {name} SET work_mem TO '7MB'")
    backup(plain_filled)
    said = plain_filled.run("restore", "--force", "--no-safety-backup", "--verbose", "--driver", driver).ok().err
    at = [
        said.index(words)
        for words in (
            f'CREATE DATABASE "{name}_restore_',
            "\nANALYZE\n",
            "SET \"work_mem\" TO '7MB'",
            f'ALTER DATABASE "{name}" WITH ALLOW_CONNECTIONS false',
            f'ALTER DATABASE "{name}" RENAME TO "{name}_before_',
        )
    ]
    assert at == sorted(at)
    assert f'ALTER DATABASE "{name}" RENAME' in plain_filled.run("restore", "--undo", "--force", "--verbose").ok().err
    (beside,) = databases(plain_filled)
    said = plain_filled.run("restore", "--clean", "--force", "--verbose").ok().err
    assert f'"{beside}"' in said[said.index("DROP DATABASE") :]
    assert "DATABASE" not in plain_filled.run("restore", "--force", "--no-safety-backup").ok().err


def test_verbose_shows_what_drops_and_commits_in_place(plain_filled):
    backup(plain_filled)
    said = plain_filled.run("restore", "--in-place", "--force", "--no-safety-backup", "--verbose").ok().err
    assert said.index("BEGIN ISOLATION LEVEL") < said.index("DROP SCHEMA IF EXISTS") < said.index("\nCOMMIT")


def without_gate(text):
    """A text without the numbers of a run's own gate."""
    return re.sub(r"(pg_advisory_xact_lock\(\d+, |l\.objid = )\d+", r"\1N", text)


def test_in_place_the_sql_that_is_shown_is_what_is_sent(plain_filled):
    backup(plain_filled)
    titles, texts, _ = shown(plain_filled, "--in-place")
    assert [text is not None for text in texts] == [True, False, False, True, True], titles
    begin, _, _, clear, end = map(without_gate, map(str, texts))
    assert "LOCK TABLE" in begin and "DROP SCHEMA IF EXISTS" in clear and end.endswith("COMMIT;\nANALYZE;\n")
    told = without_gate(plain_filled.run("restore", "--in-place", "--dry-run").ok().out)
    assert begin in told and clear in told and end in told
    sent = without_gate(plain_filled.run("restore", "--in-place", "--force", "--verbose").ok().err)
    at = [sent.index(text.rstrip("\n")) for text in (begin, clear, end.removesuffix("ANALYZE;\n"))]
    assert at == sorted(at) and sent.index("\nANALYZE\n") > at[-1]


def test_in_place_the_sql_that_is_shown_locks_clears_and_compares(plain_filled):
    """Only with another session's leave; and where no dump was loaded, what compares refuses."""
    backup(plain_filled)
    _, (begin, clear, end), _ = shown(plain_filled, "--in-place", "--no-safety-backup")
    ((key, number),) = re.findall(r"l\.classid = (\d+) AND l\.objid = (\d+)", clear)
    with plain_filled.database.connect() as other, plain_filled.database.connect() as connection:
        connection.execute(begin)
        with pytest.raises(psycopg.errors.RaiseException, match="has ended"):
            connection.execute(clear)
        connection.execute("ROLLBACK")
        other.execute(f"SELECT pg_advisory_lock({key}, {number})")
        connection.execute(begin)
        connection.execute(clear)
        assert connection.execute("SELECT to_regclass('parent') AS there").fetchone() == {"there": None}
        with pytest.raises(psycopg.errors.RaiseException, match="fewer tables"):
            connection.execute(end.partition("COMMIT")[0])
        connection.execute("ROLLBACK")
    assert count(plain_filled) == 500


def test_a_setting_that_may_be_a_secret_is_kept_and_never_shown(plain_filled):
    name, cluster = plain_filled.database.name, plain_filled.database.server.cluster
    cluster.admin(f"ALTER DATABASE {name} SET app.jwt_secret TO 'un-guess-able'")
    cluster.admin(f"ALTER ROLE {cluster.user} IN DATABASE {name} SET app.key TO 'un-guess-able'")
    backup(plain_filled)
    for more in (["--dry-run"], ["--dry-run", "--json"], ["--force", "--verbose"], ["--force", "--verbose", "--json"]):
        outcome = plain_filled.run("restore", *more).ok()
        assert "un-guess-able" not in outcome.out + outcome.err
        assert 'SET "app"."jwt_secret" TO' in outcome.out.replace("\\", "") + outcome.err or "--json" in more
    (row,) = plain_filled.database.admin("SELECT current_setting('app.jwt_secret') || current_setting('app.key') AS s")
    assert row["s"] == "un-guess-able" * 2


def test_what_may_be_a_secret_runs_as_it_is():
    like = {"owner": "o", "has_grants": False, "connections": -1, "comment": None}
    settings = [{"role": None, "name": name, "value": "it's"} for name in ("app.word", "work_mem")]
    *_, ours, known = swap.sql_dress("n", {**like, "settings": settings})
    assert ours == 'ALTER DATABASE "n" SET "app"."word" TO \'it\'\'s\'' and "it" not in ours.shown
    assert known == "ALTER DATABASE \"n\" SET \"work_mem\" TO 'it''s'" and not hasattr(known, "shown")


# Every step.


def test_the_steps_of_a_restore_from_the_object_store_with_all_that_can_stand_around(plain_filled, storage):
    name = plain_filled.database.name
    plain_filled.write_env({**plain_filled.database.settings, **storage.settings()})
    plain_filled.run("backup", "--remote", "--no-local", "--label", "far").ok()
    env = {"PGBOUNCER_ENABLED": "true", "HASURA_GRAPHQL_ENDPOINT": "http://127.0.0.1:1"}
    titles, texts, loses = shown(plain_filled, "--remote", env=env)
    words = (
        "fetch s3://",
        f"dump {name} into ",
        "write what it is of, and its SHA-256, into ",
        f"create database {name}_restore_",
        "load .nself-backups/",
        f"pause pgBouncer, end the sessions in {name}, and in one transaction rename it to {name}_before_",
        "reload Hasura's metadata at http://127.0.0.1:1",
    )
    assert len(titles) == len(words)
    assert all(title.startswith(word) for title, word in zip(titles, words)), titles
    assert titles[1].count("_before-restore.dump") == 1
    assert "analyze it, and compare its tables with the manifest's" in titles[4]
    assert [text is not None for text in texts] == [False, False, False, True, False, True, False]
    assert texts[3].startswith(f'CREATE DATABASE "{name}_restore_') and "RENAME TO" in texts[5]
    assert loses[0].startswith("now: ")
    titles, _, _ = shown(plain_filled, "--remote", "--no-safety-backup", "--skip-metadata", env=env)
    assert len(titles) == 4
    assert databases(plain_filled) == [] and not os.path.exists(plain_filled.root / ".nself-backups")


def test_the_sql_that_is_shown_is_what_runs(plain_filled):
    backup(plain_filled)
    name, cluster = plain_filled.database.name, plain_filled.database.server.cluster
    cluster.admin(f"ALTER DATABASE {name} SET search_path TO public; COMMENT ON DATABASE {name} IS 'it''s; ours'")
    _, texts, _ = shown(plain_filled, "--no-safety-backup")
    with cluster.connect("postgres") as connection:
        create, *dress = texts[0].split(";\n", 1)
        connection.execute(create)
        connection.execute("".join(dress))
        connection.execute(texts[2])
    drop_beside(plain_filled)
    assert plain_filled.database.admin("SELECT 1 FROM pg_tables WHERE schemaname = 'public'") == []


@pytest.mark.parametrize("options", [[], ["--in-place"]], ids=["beside", "in place"])
def test_dry_run_tells_what_is_lost_as_the_question_does(plain_filled, options):
    backup(plain_filled)
    plain_filled.database.admin('CREATE TABLE "late\n; DROP" (id int)')
    asked = plain_filled.run("restore", *options)
    _, _, loses = shown(plain_filled, *options)
    text = plain_filled.run("restore", *options, "--dry-run").ok().out
    assert asked.code == 4 and "-- what would be lost:" in text
    assert any("late" in line for line in loses) and loses[0].startswith("now: ") and loses[1].startswith("then: ")
    for line in loses[2:]:
        line = line.replace("\n", "\\n")
        assert line in asked.err.replace("\n; DROP", "\\n; DROP") and f"--   {line}\n" in text


def test_dry_runs_of_undo_and_clean_tell_what_goes(plain_filled):
    backup(plain_filled)
    plain_filled.run("restore", "--force", "--no-safety-backup").ok()
    (beside,) = databases(plain_filled)
    _, texts, loses = shown(plain_filled, "--undo")
    assert "steps aside as" in loses[0] and beside in loses[1] and "RENAME TO" in texts[0]
    _, texts, loses = shown(plain_filled, "--clean")
    assert loses[0].startswith(f"database {beside} (") and texts == [f'DROP DATABASE "{beside}";']


# Warnings.


def test_another_encoding_and_collation_are_told_and_the_present_ones_kept(
    plain_project, plain_server, make_database, tmp_path, run
):
    other = make_database(plain_server)
    cluster = plain_server.cluster
    plain_server.drop_database(other.name)
    cluster.admin(f"CREATE DATABASE {other.name} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    source = Project(tmp_path / "latin", other, run)
    other.admin("CREATE TABLE word AS SELECT 'Grüße'::text AS w")
    file = source.root / backup(source)
    ours = plain_project.database.admin(
        "SELECT pg_encoding_to_char(encoding) AS encoding, datcollate AS collate FROM pg_database "
        "WHERE datname = current_database()"
    )[0]
    assert ours["encoding"] == "UTF8"
    outcome = plain_project.run("restore", "--file", file, "--force", "--no-safety-backup", "--json").ok()
    drop_beside(plain_project)
    warnings = outcome.json()["warnings"]
    assert "the backup's encoding is LATIN1, the database's UTF8: the latter is kept" in warnings
    told = f"the backup's collation is C, the database's {ours['collate']}: the latter is kept"
    assert (told in warnings) == (ours["collate"] != "C")
    assert plain_project.database.admin("SELECT w FROM word") == [{"w": "Grüße"}]


def test_another_collation_is_told(plain_filled):
    file = plain_filled.root / (backup(plain_filled) + ".json")
    manifest = json.loads(file.read_text())
    file.write_text(json.dumps({**manifest, "collate": "xx_YY"}))
    assert "the backup's collation is xx_YY, the database's" in plain_filled.run("restore", "--dry-run").ok().err


# Rows.


def with_rows(project, rows):
    """Take a backup whose manifest says that parent has so many rows."""
    file = project.root / (backup(project) + ".json")
    manifest = json.loads(file.read_text())
    assert manifest["estimated_rows"]["public.parent"] == 500 and isinstance(manifest["unsure_rows"], list)
    manifest["estimated_rows"]["public.parent"] = rows
    file.write_text(json.dumps({**manifest, "unsure_rows": []}))  # what was loaded may be counted after the ANALYZE


@pytest.mark.parametrize("options", [[], ["--in-place"]], ids=["beside", "in place"])
def test_rows_that_are_far_from_the_manifests_are_told(plain_filled, options):
    with_rows(plain_filled, 5000)
    outcome = plain_filled.run("restore", "--force", "--no-safety-backup", "--json", *options).ok()
    assert "about 500 rows, and in the manifest about 5000: public.parent" in outcome.json()["warnings"]
    assert count(plain_filled) == 500


def test_rows_that_are_near_or_of_no_analysis_are_not_told(plain_filled):
    with_rows(plain_filled, 550)
    assert plain_filled.run("restore", "--force", "--no-safety-backup", "--json").ok().json()["warnings"] == []
    plain_filled.database.admin(
        "ALTER TABLE parent SET (autovacuum_enabled = false);"  # its ANALYZE would make the rows sure again
        "DELETE FROM ONLY parent WHERE id > 200; CREATE TABLE fresh (id int)"
    )
    told = "SELECT n_mod_since_analyze > 0 AS told FROM pg_stat_user_tables WHERE relid = 'parent'::regclass"
    wait_until(lambda: plain_filled.database.admin(told)[0]["told"], 20)  # a session tells its statistics at leisure
    manifest = json.loads((plain_filled.root / (backup(plain_filled, "--label", "b") + ".json")).read_text())
    assert {"public.parent", "public.fresh"} <= {*manifest["unsure_rows"]}
    assert plain_filled.run("restore", "--force", "--no-safety-backup", "--json").ok().json()["warnings"] == []


class Target:
    """A database that answers one question."""

    def __init__(self, rows):
        self._rows = rows

    def rows(self, _):
        return self._rows


@pytest.mark.parametrize(
    ("rows", "wanted", "told"),
    [(900, 1000, False), (899, 1000, True), (1101, 1000, True), (10, 100, False), (1, 102, True), (89, 99, False),
     (5, 1_000_000, True), (200, 0, True), (90, 0, False)],
)  # fmt: skip
def test_which_difference_is_far(rows, wanted, told):
    manifest = {"estimated_rows": {"t": wanted}, "unsure_rows": []}
    target = Target([{"name": "t", "rows": rows}])
    assert bool(comparison.compare(target, manifest)) == told
    assert comparison.compare(target, {**manifest, "unsure_rows": ["t"]}) == []
    assert comparison.compare(target, {"estimated_rows": {"t": wanted}}) == []


def test_no_more_than_five_are_told():
    names = [f"t{number}" for number in range(9)]
    manifest = {"estimated_rows": dict.fromkeys(names, 1000), "unsure_rows": []}
    assert len(comparison.compare(Target([{"name": name, "rows": 1} for name in names]), manifest)) == 5
