"""`backup list` shows what restores have set aside, where a server answers, and waits for none that does not."""

from __future__ import annotations

import os
import socket
import time

import pytest
from bed.local_processes import wait_until
from test_restore import backup, drop_beside

from nself_core.backups import status
from nself_core.backups.aside import Aside
from nself_core.backups.folder import Folder

PROMPT = 8  # seconds: the program's patience, and what a busy machine adds


@pytest.fixture
def ready(plain_project):
    plain_project.database.admin("CREATE TABLE t (id int)")
    backup(plain_project)
    yield plain_project
    drop_beside(plain_project)


def listed(project, *options, **more):
    return project.run("backup", "list", "--json", *options, **more).ok().json()


def beside(project, ending):
    """Make a database beside the project's own and return its name."""
    name = project.database.name + ending
    project.database.server.create_database(name)
    return name


def test_what_stands_aside_and_what_was_never_finished_are_shown(ready):
    assert listed(ready)["data"]["aside"] == []
    set_aside = ready.run("restore", "--force", "--no-safety-backup", "--json").ok().json()["data"]["before"]
    unfinished = beside(ready, "_restore_20240501120000")
    for ending in ("_before_launch", "_restore_20240501", "x_before_20240501120000"):
        beside(ready, ending)
    told = listed(ready)["data"]["aside"]
    assert [(row["database"], row["kind"]) for row in told] == [(set_aside, "before"), (unfinished, "restore")]
    assert all(row["size_bytes"] > 1_000_000 for row in told)
    assert told[1]["since"] == "2024-05-01T12:00:00Z"
    assert told[1]["age_seconds"] > 2 * 365 * 86400 and 0 <= told[0]["age_seconds"] < 120
    text = ready.run("backup", "list").ok().out
    for words in (set_aside, unfinished, "as it was before a restore", "2 databases beside", "restore --clean"):
        assert words in text
    ready.run("restore", "--clean", "--force").ok()
    assert listed(ready)["data"]["aside"] == []


def test_a_name_that_wants_quoting_and_is_cut(plain_server, make_database, make_project):
    project = make_project(make_database(plain_server, 'Shop "1" ü\'s 100% ' + "long " * 8))
    backup(project)
    project.run("restore", "--force", "--no-safety-backup").ok()
    try:
        (row,) = listed(project)["data"]["aside"]
        assert row["kind"] == "before" and row["age_seconds"] < 120
    finally:
        project.run("restore", "--clean", "--force").ok()


def test_a_name_that_is_no_time_is_shown_without_an_age(ready):
    name = beside(ready, "_before_99999999999999")
    (row,) = listed(ready)["data"]["aside"]
    assert (row["database"], row["since"], row["age_seconds"]) == (name, None, None)
    assert name in ready.run("backup", "list").ok().out


@pytest.mark.servers("container-15", "url-psycopg-15", "embedded-18")
def test_over_each_way_to_a_server(project):
    name = beside(project, "_before_20240501120000")
    try:
        assert [row["database"] for row in listed(project)["data"]["aside"]] == [name]
    finally:
        drop_beside(project)


# Without a server.


def check_not_known(document, reason):
    assert "aside" not in document["data"] and len(document["data"]["backups"]) == 1
    (warning,) = document["warnings"]
    assert "set aside is not known" in warning and reason in warning


def test_a_server_that_is_stopped(ready):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"postgresql://someone:s3cret-word@127.0.0.1:{port}/db"
    for driver in ("psql", "psycopg"):
        document = listed(ready, "--url", url, "--driver", driver)
        check_not_known(document, "cannot be reached")
        assert "s3cret-word" not in str(document)


@pytest.mark.parametrize("driver", ["psql", "psycopg"])
def test_a_server_that_never_answers(ready, driver):
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"postgresql://someone@127.0.0.1:{deaf.getsockname()[1]}/db"
        begun = time.monotonic()
        check_not_known(listed(ready, "--url", url, "--driver", driver), "cannot be reached")
    assert time.monotonic() - begun < PROMPT


def test_a_docker_that_never_answers(ready, tmp_path):
    pid = tmp_path / "pid"
    (tmp_path / "docker").write_text(f"#!/bin/sh\necho $$ > {pid}\nexec sleep 300\n")
    (tmp_path / "docker").chmod(0o755)
    ready.write_env({"NSELF_DB_CONTAINER": "somewhere"})
    begun = time.monotonic()
    document = listed(ready, env={"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"})
    check_not_known(document, "no answer in time")
    assert time.monotonic() - begun < PROMPT
    wait_until(lambda: not os.path.exists(f"/proc/{pid.read_text().strip()}"), 5)


def test_an_embedded_server_is_not_started_for_it(ready):
    ready.write_env({"NSELF_DB_ENGINE": "embedded"})
    check_not_known(listed(ready), "the embedded server does not run")
    assert not (ready.root / ".nself").exists()


def test_a_login_that_is_refused(ready):
    cluster = ready.database.server.cluster
    document = listed(ready, "--url", cluster.url(ready.database.name, user="nobody_of_this_name", password="x"))
    check_not_known(document, "set aside")


def test_where_no_server_is_configured_nothing_is_said_of_it(ready):
    ready.write_env({"PROJECT_NAME": "no-such-stack"})
    document = listed(ready)
    assert document["warnings"] == [] and "aside" not in document["data"]
    assert ready.run("backup", "list").ok().err == ""


def test_of_an_object_store_no_server_is_asked(ready, storage):
    ready.write_env({**ready.database.settings, **storage.settings()})
    assert listed(ready, "--remote")["data"].keys() == {"backups"}


# The report.


def test_the_report_without_backups_and_with_databases_beside():
    asides = [Aside("d_before_20240501120000", "before", 1714564800, 2 << 20)]
    report = status.report(Folder("/x", "x"), [], 1714564800 + 90, asides)
    assert report.summary == "no backups; 1 database beside, 2.0 MB: nself-db restore --clean"
    assert report.data["aside"] == [
        {
            "database": "d_before_20240501120000",
            "kind": "before",
            "since": "2024-05-01T12:00:00Z",
            "age_seconds": 90,
            "size_bytes": 2 << 20,
        }
    ]
