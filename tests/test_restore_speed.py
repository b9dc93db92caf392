"""What `restore` does to be done sooner: settings for its load, and an ANALYZE by several sessions."""

from __future__ import annotations

import os

import pytest
from bed.bookkeeping import values
from bed.local_processes import wait_until
from test_restore import backup, drop_beside, filled

from nself_core.backups import load

MIB = 1 << 20
ALL_JOBS = str(os.cpu_count())
# Each index of the new database is built only with these settings.
WANTED = """
CREATE FUNCTION wanted(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $f$BEGIN
    IF current_query() LIKE 'CREATE INDEX%' AND strpos(current_database(), '_restore_') > 0
            AND current_setting('{name}') <> '{value}' THEN
        RAISE EXCEPTION 'is %', current_setting('{name}');
    END IF;
    RETURN i;
END$f$;
CREATE INDEX ON parent (wanted(id));
"""


@pytest.fixture
def plain_filled(plain_project):
    yield filled(plain_project)
    drop_beside(plain_project)


class Memory:
    """A database that says how much memory it gives to an index."""

    def __init__(self, size):
        self._bytes = size

    def rows(self, _):
        return [{"bytes": self._bytes}]


def test_an_index_is_sorted_in_more_memory_than_the_servers_default():
    assert load.tuning(Memory(64 * MIB), None) == {"maintenance_work_mem": "128MB"}


def test_who_gives_more_keeps_it():
    assert load.tuning(Memory(128 * MIB), None) == load.tuning(Memory(1024 * MIB), 1) == {}


@pytest.mark.parametrize(("processors", "is_alone"), [(1, True), (4, True), (5, False), (None, True)])
def test_jobs_that_take_all_processors_leave_none_for_parallel_workers(processors, is_alone, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: processors)
    assert ("max_parallel_maintenance_workers" in load.tuning(Memory(MIB), 4)) == is_alone


@pytest.mark.parametrize(
    ("name", "value", "options"),
    [("maintenance_work_mem", "128MB", []), ("max_parallel_maintenance_workers", "0", ["--jobs", ALL_JOBS])],
    ids=["memory", "workers"],
)
def test_the_load_is_given_them_and_the_database_keeps_none(name, value, options, plain_filled):
    plain_filled.database.admin(WANTED.format(name=name, value=value))
    before = values(plain_filled, f"SHOW {name}")
    backup(plain_filled)
    plain_filled.run("restore", "--force", "--no-safety-backup", *options).ok()
    assert values(plain_filled, f"SHOW {name}") == before
    assert values(plain_filled, "SELECT count(*) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase"
                  " WHERE d.datname = current_database()") == [(0,)]  # fmt: skip


def analyzed(project):
    """How often each relation was analyzed by hand; partitioned tables and views' are known by their statistics."""
    rows = project.database.admin(
        "SELECT relname AS name, analyze_count AS times FROM pg_stat_all_tables "
        "WHERE schemaname !~ '^pg_|^information_schema'"
    )
    return {row["name"]: row["times"] for row in rows}


@pytest.mark.parametrize("jobs", ["1", "2", "7"])
def test_every_table_is_analyzed_once(jobs, plain_filled):
    plain_filled.database.admin("CREATE TABLE more (i int) PARTITION BY LIST (i); CREATE TABLE less PARTITION OF more "
                                "DEFAULT PARTITION BY LIST (i); CREATE TABLE least PARTITION OF less DEFAULT; "
                                "INSERT INTO more SELECT generate_series(1, 9)")  # fmt: skip
    backup(plain_filled)
    plain_filled.run("restore", "--force", "--no-safety-backup", "--jobs", jobs).ok()
    tables = ("parent", "child", "ü $$ %", "parts_2024", "counted", "least")
    wait_until(
        lambda: {analyzed(plain_filled)[name] for name in tables} == {1}, 20, lambda: f"{analyzed(plain_filled)}"
    )
    parents = "SELECT DISTINCT starelid::regclass::text AS name FROM pg_statistic WHERE stainherit ORDER BY 1"
    assert [row["name"] for row in plain_filled.database.admin(parents)] == ["less", "more", "parent", "parts"]


@pytest.mark.versions
def test_several_sessions_analyze_over_every_way(project):
    filled(project)
    backup(project)
    project.run("restore", "--force", "--no-safety-backup", "--jobs", "2").ok()
    assert values(project, "SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'm') AND reltuples < 0") == [(0,)]
    project.run("restore", "--clean", "--force").ok()


def test_verbose_says_what_runs(plain_filled):
    backup(plain_filled)
    outcome = plain_filled.run("restore", "--force", "--no-safety-backup", "--jobs", "2", "--verbose").ok()
    assert outcome.err.count("ANALYZE") == 1
