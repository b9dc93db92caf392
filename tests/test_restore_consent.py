"""What a restore says before it is consented to: rows now and then, migrations, what Hasura's API loses."""

from __future__ import annotations

import json

import pytest
from bed.bookkeeping import make_schema_migrations
from test_restore import backup

from nself_core.backups import comparison

TRACKED = {
    "version": 3,
    "sources": [
        {
            "name": "default",
            "kind": "postgres",
            "tables": [{"table": {"schema": "public", "name": name}} for name in ("kept", "Late $1")],
        }
    ],
}


def test_tables_that_go_change_and_come_are_told(plain_project):
    project = plain_project
    project.database.admin("CREATE TABLE kept (id int); CREATE TABLE early (id int); CREATE TABLE same (id int)")
    project.database.admin("INSERT INTO kept SELECT generate_series(1, 100); ANALYZE")
    backup(project)
    project.database.admin('CREATE TABLE "Late $1" (id int); DROP TABLE early; DELETE FROM kept WHERE id > 40')
    project.database.admin('INSERT INTO "Late $1" VALUES (1)')
    project.database.admin("VACUUM ANALYZE")
    outcome = project.run("restore")
    assert outcome.code == 4
    for words in (
        "now: 3 tables, about 41 rows",
        "then: 3 tables, about 100 rows",
        'table public."Late $1" goes: about 1 row',
        "table public.kept: about 40 rows now, 100 then",
        "table public.early comes: about 0 rows",
    ):
        assert words in outcome.err, outcome.err
    assert "public.same" not in outcome.err


def test_rows_of_a_table_that_was_never_analysed_are_what_has_been_seen_written(plain_project):
    project = plain_project
    project.database.admin("CREATE TABLE fresh (id int); INSERT INTO fresh SELECT generate_series(1, 30)")
    backup(project)
    assert "then: 1 table, about 30 rows" in project.run("restore").err


def test_what_the_api_loses_and_the_migrations_are_told(plain_project):
    project = plain_project
    make_schema_migrations(project, (1, False))
    project.database.admin("CREATE TABLE hdb_catalog.hdb_metadata (id int, metadata json, resource_version int)")
    statement = "INSERT INTO hdb_catalog.hdb_metadata VALUES (1, %s, 1)"
    project.database.admin(statement, [json.dumps(TRACKED)])
    project.database.admin("CREATE TABLE kept (id int)")
    backup(project)
    project.database.admin('CREATE TABLE "Late $1" (id int); CREATE TABLE untracked (id int)')
    project.database.admin("INSERT INTO hdb_catalog.schema_migrations VALUES (20, false), (3, false)")
    outcome = project.run("restore")
    assert 'the live API loses table public."Late $1"' in outcome.err
    assert outcome.err.count("the live API loses") == 1
    assert "migrations no longer applied: 3, 20" in outcome.err


def test_the_last_commit_is_told_where_the_server_knows_it(new_plain, make_database, make_project):
    from bed.clusters import FAST
    from bed.servers import Server

    server = Server("url-psql", new_plain(options=(*FAST, "track_commit_timestamp=on")))
    project = make_project(make_database(server))
    backup(project)
    assert "last commit on this server 20" in project.run("restore").err


def table(name, rows):
    return {"name": name, "schema": "s", "table": name, "rows": rows}


def test_the_list_is_bounded():
    present = comparison.Present([table(f"t{n:03}", n) for n in range(100)], frozenset(), None, 10, [])
    manifest = {"estimated_rows": {}, "started_at": "x", "env": "dev", "database": "d"}
    told = comparison.lines(present, manifest, 5)
    assert len(told) == 2 + comparison.MOST_SHOWN + 1
    assert told[-1] == "and 80 more"


@pytest.mark.parametrize(
    ("now", "then", "told"),
    [
        (5, 5, []),
        (-1, 5, []),
        (5, -1, []),
        (7, 5, ["table t: about 7 rows now, 5 then"]),
        (1, 5, ["table t: about 1 row now, 5 then"]),
    ],
)
def test_differences_of_one_table(now, then, told):
    assert comparison.differences([table("t", now)], {"t": then}) == told


def test_what_loses_the_most_comes_first():
    tables = [table("a", 5), table("b", 90), table("c", 10)]
    told = comparison.differences(tables, {"a": 10, "b": 10, "c": 9, "d": 1})
    assert [line.split()[1] for line in told] == ["b:", "c:", "a:", "d"]


class Target:
    """A database that answers one question."""

    def __init__(self, rows):
        self._rows = rows

    def rows(self, _):
        return self._rows


def test_an_empty_table_is_a_warning_and_an_absent_one_a_failure():
    manifest = {"estimated_rows": {"a": 5, "b": 0}}
    assert comparison.compare(Target([table("a", 0), table("b", 0)]), manifest) == [
        "empty, and in the manifest about 5 rows: a"
    ]
    assert comparison.compare(Target([table("a", 4), table("b", 0)]), manifest) == []
    with pytest.raises(comparison.CheckFailed, match="absent: b"):
        comparison.compare(Target([table("a", 4)]), manifest)


def test_a_table_emptied_before_the_backup_is_restored_with_a_warning(plain_project):
    project = plain_project
    project.database.admin("CREATE TABLE t WITH (autovacuum_enabled = off) AS SELECT generate_series(1, 100) i")
    project.database.admin("ANALYZE; DELETE FROM t")  # autovacuum would count them before the backup does
    backup(project)
    data = project.run("restore", "--force", "--no-safety-backup", "--json").ok().json()
    project.run("restore", "--clean", "--force").ok()
    assert any("public.t" in warning for warning in data["warnings"])
