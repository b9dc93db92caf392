"""A backup is struck in its midst: no file that looks good, no pg_dump that lives on, and a next backup that works.

The midst is a row near the end of a table, before which pg_dump's COPY waits for as long as a session of a certain name
is there. (pg_dump reads a table by a condition of its own where it is an extension's configuration.)
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time

import pytest
from bed.local_processes import wait_until
from bed.servers import Server

from .conftest import or_gap
from .test_full_disk import check_words, fill
from .watch import (
    WAIT,
    children_of,
    kill_program,
    kill_with_children,
    make_random,
    outcome_of,
    sessions,
    wait_until_orphans_end,
)

SECONDS = 5  # in which the server process must be gone
WAYS = ("plain-psql", "plain-psycopg", "container-15")
FORMATS = ("custom", "plain", "directory")
FILL = "CREATE TABLE t AS SELECT i, md5(i::text) FROM generate_series(1, 20000) i; CREATE SEQUENCE s"
GATE = """
CREATE EXTENSION citext;
CREATE FUNCTION gate(i int) RETURNS bool LANGUAGE plpgsql AS $f$
BEGIN
    WHILE i = {row} AND EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'gate_dump') LOOP
        PERFORM pg_sleep(0.02);
        PERFORM pg_stat_clear_snapshot();
    END LOOP;
    RETURN true;
END $f$;
UPDATE pg_extension SET extconfig = ARRAY['t'::regclass::oid], extcondition = ARRAY['WHERE public.gate(i)']
WHERE extname = 'citext';
"""
SQL_AT_GATE = """
SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'nself-db%'
AND wait_event_type = 'Lock'
"""
SQL_AT_ROW = SQL_AT_GATE.replace("wait_event_type = 'Lock'", "wait_event = 'PgSleep'")


def entries(project):
    folder = project.root / ".nself-backups"
    return sorted(os.listdir(folder)) if folder.exists() else []


@contextlib.contextmanager
def in_mid_dump(project, *options, fill=FILL, row=19000):
    """A backup that has written most rows and waits: gives (process, the pid of its server process, connection)."""
    project.database.admin(fill + ";" + GATE.format(row=row))
    with project.database.connect(application_name="gate_dump"):
        process = project.start("backup", *options)
        with project.database.connect() as watcher:
            found = wait_until(lambda: watcher.execute(SQL_AT_ROW).fetchone(), WAIT, lambda: f"{sessions(watcher)}")
            yield process, found["pid"], watcher
            # The server has not restarted: to Postgres as a container's first process an orphan would be a crash.
            watcher.execute("SELECT 1")


def check_next(project):
    """The next backup works, and what the blow has left goes when it is old."""
    project.run("backup", "--verify").ok()
    past = time.time() - 3 * 86400
    for folder, _, files in os.walk(project.root / ".nself-backups"):
        for name in files:
            os.utime(os.path.join(folder, name), (past, past))
        os.utime(folder, (past, past))
    project.run("backup", "prune", "--keep-last", "1", "--force").ok()
    assert len([name for name in entries(project) if not name.endswith(".json")]) == 1, entries(project)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", WAYS)
def test_interrupted(new_project, name, form, number):
    project = new_project(name)
    with in_mid_dump(project, "--format", form) as (process, _, _):
        process.send_signal(number)
        outcome = outcome_of(process)
        wait_until_orphans_end(project.database, SECONDS)
    assert outcome.code == 130, repr(outcome)
    assert "Traceback" not in outcome.err
    assert entries(project) == []
    project.run("backup", "--verify").ok()


@pytest.mark.parametrize("kill", [kill_program, kill_with_children])
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", WAYS[::2])
def test_killed_program(new_project, name, form, kill):
    project = new_project(name)
    with in_mid_dump(project, "--format", form) as (process, _, _):
        kill(process)
        assert outcome_of(process).code == -9
        if kill is kill_program or name.startswith("container"):
            # A pg_dump of this host that is killed itself cannot say so; the server sees it once it has the lock.
            wait_until_orphans_end(project.database, SECONDS)
    wait_until_orphans_end(project.database, SECONDS)
    left = entries(project)
    assert len(left) == 1 and left[0].startswith(".") and left[0].endswith(".part")
    assert project.run("backup", "list").ok().out.strip() == "no backups"
    check_next(project)


@pytest.mark.parametrize("form", ["custom", "directory"])
@pytest.mark.parametrize("name", WAYS[::2])
def test_killed_pg_dump(new_project, name, form):
    project = new_project(name)
    with in_mid_dump(project, "--format", form) as (process, _, _):
        if name.startswith("container"):
            project.database.server.cluster.run(
                "sh", "-c", "for folder in /proc/[0-9]*; do read -r name < $folder/comm || continue; "
                "[ $name != pg_dump ] || kill -9 ${folder#/proc/}; done",
            )  # fmt: skip
        else:
            for pid in children_of(process.pid):
                # With one job gone pg_dump's leader ends the others: some may have ended before their turn.
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    with open(f"/proc/{pid}/comm", encoding="utf-8") as file:
                        name_of = file.read().strip()
                    if name_of == "pg_dump":
                        os.kill(pid, signal.SIGKILL)
        outcome = outcome_of(process)
    assert outcome.code == 2, repr(outcome)
    assert "Traceback" not in outcome.err
    assert entries(project) == []


@pytest.mark.parametrize("form", ["custom", "directory"])
@pytest.mark.parametrize("name", WAYS[::2])
def test_ended_server_process(new_project, name, form):
    project = new_project(name)
    with in_mid_dump(project, "--format", form) as (process, pid, watcher):
        watcher.execute("SELECT pg_terminate_backend(%s)", [pid])
        outcome = outcome_of(process)
    assert outcome.code == 2, repr(outcome)
    assert "terminating connection" in outcome.err
    assert entries(project) == []
    project.run("backup", "--verify").ok()


@pytest.mark.parametrize("end", ["stop", "kill"])
@pytest.mark.parametrize("form", ["custom", "directory"])
def test_stopped_container(new_project, own_container, form, end):
    project = new_project(Server("container", own_container))
    with contextlib.suppress(Exception), in_mid_dump(project, "--format", form) as (process, _, _):
        getattr(own_container, end)()
        raise RuntimeError("the connections of the test are gone as well")
    outcome = outcome_of(process)
    assert outcome.code == 2, repr(outcome)
    assert "Traceback" not in outcome.err and "exit code" not in outcome.err
    assert entries(project) == []
    assert project.run("backup").code == 2
    own_container.start()
    project.run("backup", "--verify").ok()


def test_a_frozen_container_does_not_hold_the_program(new_project, own_container):
    own_container.ensure_running()
    project = new_project(Server("container", own_container))
    docker = {**os.environ, "DOCKER_HOST": own_container.docker_host}
    with in_mid_dump(project) as (process, _, _):
        subprocess.run(["docker", "pause", own_container.name], env=docker, check=True, capture_output=True)
        try:
            process.send_signal(signal.SIGINT)
            outcome = outcome_of(process, 30)
        finally:
            subprocess.run(["docker", "unpause", own_container.name], env=docker, check=True, capture_output=True)
        wait_until_orphans_end(project.database, SECONDS)
    assert outcome.code == 130, repr(outcome)
    assert entries(project) == []


@pytest.mark.parametrize("name", WAYS[::2])
def test_interrupted_while_it_waits_for_a_table(new_project, name):
    """pg_dump waits for a lock for ever, and so would its server process when nobody tells it."""
    project = new_project(name)
    project.database.admin(FILL)
    with project.database.connect() as holder, project.database.connect() as watcher:
        holder.execute("BEGIN; LOCK TABLE t")
        process = project.start("backup")
        wait_until(lambda: watcher.execute(SQL_AT_GATE).fetchone(), WAIT, lambda: f"{sessions(watcher)}")
        process.send_signal(signal.SIGINT)
        assert outcome_of(process).code == 130
        wait_until_orphans_end(project.database, SECONDS)
        holder.execute("ROLLBACK")
    assert entries(project) == []


def test_killed_at_random_points(new_project):
    project = new_project("plain-psql")
    project.database.admin(FILL)
    chance = make_random("backup")
    for number in range(8):
        form = FORMATS[number % 3]
        process = project.start("backup", "--format", form)
        time.sleep(chance.uniform(0.05, 0.45))  # the random point itself, no synchronisation
        kill_program(process)
        outcome_of(process)
        wait_until_orphans_end(project.database, SECONDS)
        verified = project.run("backup", "verify", "--json")
        states = {item["state"] for item in verified.json()["data"].get("backups", ())}
        assert "damaged" not in states, repr(verified)
    check_next(project)


# The disk of the host.


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", WAYS[::2])
def test_a_full_disk(new_project, small_disk, name, form):
    project = new_project(name)
    project.database.admin("CREATE TABLE t AS SELECT i, md5(i::text) FROM generate_series(1, 50000) i")
    folder = small_disk(1) / "backups"
    outcome = project.run("backup", "--format", form, env={"BACKUP_DIR": str(folder)})
    check_words(outcome)
    assert os.listdir(folder) == []
    project.database.admin("TRUNCATE t")
    project.run("backup", "--format", form, "--verify", env={"BACKUP_DIR": str(folder)}).ok()


@pytest.mark.parametrize("form", FORMATS)
def test_a_disk_that_is_full_at_any_page(new_project, small_disk, form):
    """With room for the dump and none for its manifest neither stays."""
    project = new_project("plain-psql")
    project.database.admin("CREATE TABLE t AS SELECT i, md5(i::text) FROM generate_series(1, 300) i")
    disk = small_disk(1)
    folder = disk / "backups"
    codes = []
    for pages in range(9):
        filler = fill(disk, pages * 4096)
        outcome = project.run("backup", "--format", form, env={"BACKUP_DIR": str(folder)})
        codes.append(outcome.code)
        left = os.listdir(folder) if folder.exists() else []
        if outcome.code:
            check_words(outcome)
            assert left == []
        else:
            assert len(left) == 2
            break
        filler.unlink()
    assert codes[0] == 2 and codes[-1] == 0


# The disk of the container.


@pytest.fixture(scope="module")
def small_tmp(bed):
    """A container with 2 megabytes of /tmp."""
    cluster = or_gap(bed.new_container, 15, tmp_megabytes=2)
    yield cluster
    cluster.close()


def test_a_full_tmp_of_the_container(new_project, small_tmp):
    """A directory is dumped there first; what stood there is gone afterwards."""
    project = new_project(Server("container", small_tmp))
    project.database.admin("CREATE TABLE t AS SELECT i, md5(i::text) FROM generate_series(1, 100000) i")
    outcome = project.run("backup", "--format", "directory", "--compress", "0")
    check_words(outcome)
    assert entries(project) == []
    assert small_tmp.run("ls", "/tmp") == ""
    project.run("backup", "--verify").ok()
    project.database.admin("TRUNCATE t")
    project.run("backup", "--format", "directory", "--compress", "0", "--verify").ok()


def dumped_for_small_tmp(project, small_tmp, is_folder):
    """A backup that small_tmp has no room for a copy of, and a row that was written since."""
    project.database.admin("CREATE TABLE t AS SELECT i, md5(i::text) FROM generate_series(1, 100000) i")
    # A folder by the host's pg_dump, which has room for it.
    url = {"NSELF_DB_URL": small_tmp.url(project.database.name), "NSELF_DB_DRIVER": "psycopg"}
    form = ["--format", "directory"] if is_folder else []
    project.run("backup", "--compress", "0", *form, env=url if is_folder else {}).ok()
    project.database.admin("INSERT INTO t VALUES (0, 'since')")


def check_room_is_told(outcome):
    assert outcome.code == 2 and "no room in /tmp" in outcome.err, repr(outcome)
    assert outcome.err.count(" bytes)") == 2 and "Traceback" not in outcome.err
    assert "make room there" in outcome.err


@pytest.mark.parametrize("options", [["--jobs", "2"], [], ["--in-place"]], ids=str)
def test_a_copy_that_the_container_has_no_room_for_is_seen_before_anything_is_done(new_project, small_tmp, options):
    project = new_project(Server("container", small_tmp))
    dumped_for_small_tmp(project, small_tmp, is_folder="--jobs" not in options)
    there = entries(project)
    check_room_is_told(project.run("restore", "--force", *options))
    check_room_is_told(project.run("restore", "--dry-run", *options))
    assert entries(project) == there
    assert small_tmp.run("ls", "/tmp") == ""
    assert project.database.admin("SELECT count(*) AS n FROM t")[0]["n"] == 100001
    if "--jobs" in options:  # read as it comes, it needs none
        project.run("restore", "--in-place", "--force", "--no-safety-backup").ok()
        assert project.database.admin("SELECT count(*) AS n FROM t")[0]["n"] == 100000


def test_a_copy_for_the_containers_clients_of_a_url(new_project, small_tmp, tmp_path):
    from test_container_clients import Bare

    project = new_project(Server("url-psycopg", small_tmp))
    dumped_for_small_tmp(project, small_tmp, is_folder=True)
    bare = Bare(project, tmp_path, small_tmp)
    for options in ([], ["--in-place"]):
        check_room_is_told(bare.run("restore", "--force", *options))
    check_room_is_told(bare.run("restore", "--force", "--jobs", "2"))
    project.run("restore", "--in-place", "--force", "--no-safety-backup").ok()  # with the host's, nothing is copied
    assert project.database.admin("SELECT count(*) AS n FROM t")[0]["n"] == 100000


@pytest.fixture
def silent_tmp(small_tmp):
    """small_tmp without its df, so that nothing tells how much room there is."""
    place = small_tmp.run("sh", "-c", "command -v df").strip()
    small_tmp.run("mv", place, f"{place}.away")
    yield small_tmp
    small_tmp.run("mv", f"{place}.away", place)


@pytest.mark.parametrize("options", [["--jobs", "2"], []], ids=str)
def test_a_full_tmp_of_the_container_in_a_restore(new_project, silent_tmp, options):
    """A dump for several jobs, and a directory, are copied there."""
    small_tmp, project = silent_tmp, new_project(Server("container", silent_tmp))
    name = project.database.name
    dumped_for_small_tmp(project, small_tmp, is_folder=not options)
    outcome = project.run("restore", "--force", "--no-safety-backup", *options)
    check_words(outcome)
    assert small_tmp.run("ls", "/tmp") == ""
    assert project.database.admin("SELECT count(*) AS n FROM t")[0]["n"] == 100001
    left = small_tmp.admin("SELECT datname FROM pg_database WHERE starts_with(datname, %s)", parameters=[f"{name}_"])
    assert left == []
