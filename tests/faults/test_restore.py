"""A restore is struck in its midst: the database serves all along, and the next command works and names what is left.

How its moments are held, see restoring.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from types import SimpleNamespace

import psycopg
import pytest
from bed.local_processes import wait_until
from bed.projects import REPOSITORY
from bed.servers import Server

from nself_core.backups import exchange
from nself_core.failures import Interrupted, Unreachable
from nself_core.postgres import tools

from .restoring import (
    FILL,
    PHASES,
    SECONDS,
    SQL_OPEN,
    beside,
    check_next,
    check_present,
    check_stopped,
    held,
    held_in_the_swap,
    of_server,
    ours,
    wait_until_dumping,
    wait_until_ended,
)
from .test_full_disk import check_words, fill
from .watch import WAIT, kill_program, kill_with_children, make_random, outcome_of

WAYS = ("plain-psql", "container-15")


# kill -9.


@pytest.mark.parametrize(
    ("options", "kill"),
    [
        (["custom"], kill_program),
        (["custom"], kill_with_children),
        (["custom", "--jobs", "2"], kill_program),
        (["directory"], kill_program),
        (["directory", "--jobs", "2"], kill_with_children),
        (["plain"], kill_program),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value.__name__,
)
@pytest.mark.parametrize("name", WAYS)
def test_killed_in_mid_load(ready, name, options, kill):
    project = ready(name, "--format", options[0])
    started = of_server(project, "SELECT pg_postmaster_start_time() AS at, pg_current_wal_lsn() > '0/0' AS up")
    with held(project, "load", *options[1:]) as process:
        kill(process)
        assert outcome_of(process).code == -9
        check_present(project)
        # psql, unlike pg_restore, does not tell the server, which sees it when the statement is over.
        if (kill is kill_program or name.startswith("container")) and options != ["plain"]:
            wait_until_ended(project)
    wait_until_ended(project)
    assert of_server(project, "SELECT pg_postmaster_start_time() AS at, true AS up") == started
    left = beside(project)
    assert len(left) == 1 and "_restore_" in left[0]
    check_next(project, left)


@pytest.mark.parametrize("name", WAYS)
def test_killed_after_the_load(ready, name):
    project = ready(name)
    with held(project, "analyze") as process:
        kill_program(process)
        assert outcome_of(process).code == -9
        check_present(project)
    wait_until_ended(project)
    left = beside(project)
    assert len(left) == 1 and "_restore_" in left[0]
    check_next(project, left)


@pytest.mark.parametrize("name", WAYS)
def test_killed_in_the_safety_backup(ready, name):
    project = ready(name)
    project.database.admin("CREATE SEQUENCE s")
    with project.database.connect() as gate:
        gate.execute("BEGIN; ALTER SEQUENCE s RENAME TO renamed")
        process = project.start("restore", "--force")
        wait_until_dumping(project)
        kill_program(process)
        outcome_of(process)
        gate.execute("ROLLBACK")
    wait_until_ended(project)
    assert beside(project) == []
    check_present(project)
    check_next(project, [])


@pytest.mark.parametrize(
    ("holder_ends", "kill"), [("soon", kill_program), ("late", kill_program), ("late", kill_with_children)]
)
@pytest.mark.parametrize("name", WAYS)
def test_killed_in_the_swap(ready, name, holder_ends, kill):
    """The rename waits for a lock on the database: the server brings the swap to its end, one way or the other."""
    project = ready(name)
    with project.database.server.cluster.connect() as holder:
        holder.execute("BEGIN")
        with held(project, "analyze") as process:
            lock = psycopg.sql.SQL("COMMENT ON DATABASE {} IS 'held'")
            holder.execute(lock.format(psycopg.sql.Identifier(project.database.name)))
        # The gate is open: what waits now is the rename.
        waits = "SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'object'"
        wait_until(lambda: of_server(project, waits), WAIT, lambda: f"{ours(project)}")
        kill(process)
        assert outcome_of(process).code == -9
        if holder_ends == "late":  # than lock_timeout
            wait_until(lambda: of_server(project, SQL_OPEN, [project.database.name]), WAIT)
        holder.execute("ROLLBACK")
    wait_until(lambda: of_server(project, SQL_OPEN, [project.database.name]), WAIT)
    check_present(project, 11 if beside(project, "restore") else 10)
    assert len(beside(project)) == 1
    check_next(project, beside(project, "restore"))


def test_killed_at_random_points(ready):
    project = ready("plain-psql")
    chance = make_random("restore")
    for _ in range(8):
        process = project.start("restore", "--force", "--no-safety-backup")
        time.sleep(chance.uniform(0.1, 0.9))  # the random point itself, no synchronisation
        kill_program(process)
        outcome_of(process)
        wait_until_ended(project)
        is_new = not project.database.admin("SELECT i FROM u WHERE i = 11")
        check_present(project, 10 if is_new else 11)
        assert is_new or not beside(project, "before")
    check_next(project, beside(project, "restore"))


# kill -9 of what comes after a restore: --undo and --clean.


def wait_until_nobody_works(project):
    """Wait until the program has no session on the server, in the database from which others are renamed neither."""
    sessions = "SELECT query FROM pg_stat_activity WHERE application_name LIKE 'nself-db%'"
    wait_until(lambda: not of_server(project, sessions), SECONDS, lambda: f"{of_server(project, sessions)}")


@contextlib.contextmanager
def stopped_at(project, name, *options):
    """A `restore` with these options that waits for a lock on the database `name`: gives (process, the holder)."""
    with project.database.server.cluster.connect() as holder:
        lock = psycopg.sql.SQL("BEGIN; COMMENT ON DATABASE {} IS 'held'")
        holder.execute(lock.format(psycopg.sql.Identifier(name)))
        process = project.start("restore", "--force", *options)
        waits = "SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'object'"
        wait_until(lambda: of_server(project, waits) or process.poll() is not None, WAIT, lambda: f"{ours(project)}")
        assert process.poll() is None, repr(outcome_of(process))
        yield process, holder


@pytest.mark.parametrize(
    ("holder_ends", "kill"), [("soon", kill_program), ("late", kill_program), ("late", kill_with_children)]
)
@pytest.mark.parametrize("name", WAYS)
def test_killed_in_an_undo(ready, name, holder_ends, kill):
    """The server brings the swap to its end: both are there, one in its place, and one more undo goes back."""
    project = ready(name)
    project.run("restore", "--force", "--no-safety-backup").ok()
    check_present(project, 10)
    with stopped_at(project, project.database.name, "--undo") as (process, holder):
        kill(process)
        assert outcome_of(process).code == -9
        if holder_ends == "late":  # than lock_timeout
            wait_until(lambda: of_server(project, SQL_OPEN, [project.database.name]), WAIT)
        holder.execute("ROLLBACK")
    wait_until(lambda: of_server(project, SQL_OPEN, [project.database.name]), WAIT)
    wait_until_nobody_works(project)
    rows = project.database.admin("SELECT count(*) AS n FROM u")[0]["n"]
    check_present(project, rows)
    (aside,) = beside(project)
    assert of_server(project, SQL_OPEN, [aside])
    project.run("restore", "--undo", "--force").ok()
    check_present(project, 21 - rows)
    assert len(beside(project)) == 1
    check_next(project, [])


@pytest.mark.parametrize("kill", [kill_program, kill_with_children])
@pytest.mark.parametrize("name", WAYS)
def test_killed_in_a_clean(ready, name, kill):
    """What stood aside is dropped whole or there whole, and the next --clean drops the rest."""
    project = ready(name)
    for _ in range(2):
        project.run("restore", "--force", "--no-safety-backup").ok()
    first, second = beside(project)
    with stopped_at(project, first, "--clean") as (process, holder):
        kill(process)
        assert outcome_of(process).code == -9
        holder.execute("ROLLBACK")
    wait_until_nobody_works(project)
    left = beside(project)
    assert second in left and {*left} <= {first, second}
    assert all(of_server(project, SQL_OPEN, [one]) for one in left)
    check_present(project, 10)
    project.run("restore", "--undo", "--force").ok()
    check_present(project, 10)
    project.run("restore", "--clean", "--force").ok()
    assert beside(project) == []
    check_next(project, [])


def forget_size(project, file):
    """Let the manifest speak of a little database, so that what finds no room is the load."""
    path = project.root / f"{file}.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**document, "size_bytes": 1000}), encoding="utf-8")


# In place: what is not committed was never there, and its locks are soon gone.


@pytest.mark.parametrize(
    ("form", "kill"),
    [("custom", kill_program), ("custom", kill_with_children), ("plain", kill_program), ("directory", kill_program)],
)
@pytest.mark.parametrize("name", WAYS)
def test_killed_in_place(ready, name, form, kill):
    project = ready(name, "--format", form)
    with held(project, "load", "--in-place") as process:
        kill(process)
        assert outcome_of(process).code == -9
        wait_until_ended(project)
        check_present(project)
    project.run("restore", "--in-place", "--force", "--no-safety-backup").ok()
    check_present(project, 10)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", WAYS)
def test_interrupted_in_place(ready, name, number):
    project = ready(name)
    with held(project, "load", "--in-place") as process:
        process.send_signal(number)
        outcome = outcome_of(process)
        wait_until_ended(project)
    assert outcome.code == 130, repr(outcome)
    assert "Traceback" not in outcome.err
    check_present(project)


@pytest.mark.parametrize("kill", [kill_program, kill_with_children])
@pytest.mark.parametrize("name", WAYS)
def test_killed_in_the_safety_backup_in_place(ready, name, kill):
    """The transaction that waits for the safety backup must not go on alone when nobody takes it any more."""
    project = ready(name)
    project.database.admin("CREATE SEQUENCE s")
    with project.database.connect() as gate:
        gate.execute("BEGIN; ALTER SEQUENCE s RENAME TO renamed")
        process = project.start("restore", "--in-place", "--force")
        wait_until_dumping(project)
        kill(process)
        outcome_of(process)
        gate.execute("ROLLBACK")
    wait_until_ended(project)
    check_present(project)


@pytest.mark.parametrize("phase", ["load"])
def test_stopped_container_in_place(ready, own_container, phase):
    own_container.ensure_running()
    project = ready(Server("container", own_container))
    with held(project, phase, "--in-place") as process:
        own_container.kill()
        outcome = outcome_of(process)
        own_container.start()
    assert outcome.code == 2, repr(outcome)
    assert "Traceback" not in outcome.err
    check_present(project)
    project.run("restore", "--in-place", "--force").ok()
    check_present(project, 10)


def test_the_servers_disk_is_full_in_place(ready, small_server):
    project = ready(Server("container", small_server))
    project.database.admin("CREATE UNLOGGED TABLE big AS SELECT repeat('x', 1000) AS x FROM generate_series(1, 45000)")
    forget_size(project, project.run("backup", "--label", "big", "--json").ok().json()["data"]["file"])
    small_server.admin("CHECKPOINT")
    project.database.admin("INSERT INTO u VALUES (12)")
    check_words(project.run("restore", "--in-place", "--force", "--no-safety-backup"))
    check_present(project, 12)
    project.database.admin("TRUNCATE big")
    project.run("restore", "--in-place", "--force", "--no-safety-backup").ok()
    check_present(project, 11)


def test_clients_write_around_a_restore_in_place(ready):
    """Whatever was acknowledged is in the safety backup or in the database."""
    project = ready("plain-psql")
    stop, lock, acknowledged, errors = threading.Event(), threading.Lock(), [], []

    def write(number):
        value = number * 100000
        while not stop.is_set():
            try:
                with project.database.connect() as connection:
                    while not stop.is_set():
                        value += 1
                        connection.execute("INSERT INTO u VALUES (%s)", [value])
                        with lock:
                            acknowledged.append(value)
            except psycopg.Error as error:
                errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    try:
        outcome = project.run("restore", "--in-place", "--force", "--json")
        time.sleep(0.5)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    safety = outcome.ok().json()["data"]["safety_backup"]
    assert all(isinstance(error, (psycopg.OperationalError, psycopg.errors.UndefinedTable)) for error in errors)
    after = {row["i"] for row in project.database.admin("SELECT i FROM u")}
    project.run("restore", "--force", "--no-safety-backup", "--file", safety).ok()
    before = {row["i"] for row in project.database.admin("SELECT i FROM u")}
    assert {*acknowledged} <= before | after


# Signals, and other ends.


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", WAYS)
def test_interrupted(ready, name, phase, number):
    project = ready(name)
    with held(project, phase) as process:
        process.send_signal(number)
        outcome = outcome_of(process)
        wait_until_ended(project)
    assert outcome.code == 130, repr(outcome)
    assert "Traceback" not in outcome.err
    assert beside(project) == []
    check_present(project)


# As long as somebody is in its way a swap waits: only a signal ends it.
PATIENT = """
from nself_core.backups import swap
from nself_core.postgres import database
swap.WAIT_SECONDS, database.PARAMETERS["lock_timeout"] = 600, "10min"
"""


@pytest.fixture
def patient(tmp_path):
    """The environment of such a program."""
    (tmp_path / "sitecustomize.py").write_text(PATIENT, encoding="utf-8")
    return {"PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}"}


@pytest.mark.parametrize(
    ("name", "words", "number"),
    [
        ("plain-psql", ["--no-safety-backup"], signal.SIGINT),
        ("plain-psycopg", ["--no-safety-backup"], signal.SIGTERM),
        ("container-15", ["--no-safety-backup"], signal.SIGINT),
        ("container-15", ["--undo"], signal.SIGTERM),
        ("plain-psql", ["--undo"], signal.SIGHUP),
    ],
)
def test_a_signal_before_the_renames_has_the_swap_taken_back(ready, patient, name, words, number):
    """While the server waits for what is in its way, which is there until the program has ended."""
    project = ready(name)
    if words == ["--undo"]:
        project.run("restore", "--force", "--no-safety-backup").ok()
    before = beside(project)
    with held_in_the_swap(project, *words, env=patient) as (process, _):
        process.send_signal(number)
        outcome = outcome_of(process)
        check_present(project, 10 if before else 11)
    assert outcome.code == 130 and "stays as it was" in outcome.err, repr(outcome)
    assert "Traceback" not in outcome.err
    assert beside(project) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_swap_waits_for_sessions_to_end(ready, patient, number):
    project = ready("plain-psql")
    cluster = project.database.server.cluster
    with project.database.connect() as client:
        pid = client.execute("SELECT pg_backend_pid() AS pid").fetchone()["pid"]
        cluster.kill_backend(pid, signal.SIGSTOP)
        try:
            process = project.start("restore", "--force", "--no-safety-backup", env=patient)
            closed = f"{SQL_OPEN.partition(' AND ')[0]} AND NOT datallowconn"
            wait_until(lambda: of_server(project, closed, [project.database.name]), 2 * WAIT)
            process.send_signal(number)
            wait_until(lambda: of_server(project, SQL_OPEN, [project.database.name]), WAIT)
            check_present(project)
        finally:
            cluster.kill_backend(pid, signal.SIGCONT)  # without which the server could not drop the new database
        outcome = outcome_of(process)
    assert outcome.code == 130 and "stays as it was" in outcome.err, repr(outcome)
    assert beside(project) == []


class Keeper:
    """A database to swap from, in which a signal comes at a question or at the swap; no other session can be had."""

    def __init__(self, moment):
        self.moment = moment
        self.sent = []
        self.asked = 0

    def rows(self, sql, **params):
        if self.moment == "before" and sql is exchange.SQL_PROCESS:
            os.kill(os.getpid(), signal.SIGINT)
        return [{"pid": 1, "started": "now"}]

    def execute(self, *texts):
        self.sent.append(texts)
        if self.moment == "late":
            for _ in range(3):
                os.kill(os.getpid(), signal.SIGINT)

    def sibling(self, name):
        self.asked += 1
        return SimpleNamespace(rows=self.refuse, close=lambda: None)

    def refuse(self, sql, **params):
        raise Unreachable("the server takes no more connections")


def swap_with(keeper):
    database = SimpleNamespace(settings={}, close=lambda: None)
    before = signal.getsignal(signal.SIGINT)
    try:
        return exchange.swap_databases(database, keeper, ("shop", "shop_restore_1", "shop_before_1"), lambda text: None)
    finally:
        assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_before_the_swap_is_sent_keeps_it_from_that():
    keeper = Keeper("before")
    with pytest.raises(Interrupted, match="shop stays as it was"):
        swap_with(keeper)
    assert keeper.sent == []


def test_a_signal_that_comes_too_late_is_told_with_the_swap_that_is_done():
    keeper = Keeper("late")
    assert swap_with(keeper) == ["the interruption came too late: the swap was done"]
    assert len(keeper.sent) == 1 and keeper.asked == 3
    assert swap_with(Keeper("never")) == []


@pytest.mark.parametrize("name", WAYS)
def test_ended_server_process(ready, name):
    project = ready(name)
    with held(project, "load", "--jobs", "2") as process:
        of_server(project, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%%INDEX slow%%'"
                  " AND starts_with(datname, %s)", [project.database.name])  # fmt: skip
        outcome = outcome_of(process)
    assert outcome.code == 2, repr(outcome)
    assert "Traceback" not in outcome.err
    assert beside(project) == []
    check_present(project)


@pytest.mark.parametrize("end", ["stop", "kill"])
@pytest.mark.parametrize("phase", PHASES)
def test_stopped_container(ready, own_container, phase, end):
    project = ready(Server("container", own_container))
    with held(project, phase) as process:
        getattr(own_container, end)()
        outcome = outcome_of(process)
        own_container.start()
    check_stopped(project, outcome)


@pytest.mark.parametrize("options", [[], ["--in-place"]], ids=str)
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_stopped_container_in_the_safety_backup(ready, own_container, end, options):
    project = ready(Server("container", own_container))
    project.database.admin("CREATE SEQUENCE s")
    folder = project.root / ".nself-backups"
    there = sorted(os.listdir(folder))
    with contextlib.suppress(psycopg.Error), project.database.connect() as gate:
        gate.execute("BEGIN; ALTER SEQUENCE s RENAME TO renamed")
        process = project.start("restore", "--force", *options)
        wait_until_dumping(project)
        getattr(own_container, end)()
    outcome = outcome_of(process)
    own_container.start()
    assert outcome.code == 2, repr(outcome)
    assert "Traceback" not in outcome.err
    assert sorted(os.listdir(folder)) == there
    assert beside(project) == []
    check_present(project)
    check_next(project, [])


# The server dies in the swap, while the database is closed.


@pytest.fixture
def own_plain(new_plain):
    """A Server of the test's own, whose processes may be killed."""
    return Server("url-psql", new_plain())


def crash_in_the_swap(project, *words):
    """Kill the program and then the server process that swaps, which restarts the whole server."""
    cluster = project.database.server.cluster
    with held_in_the_swap(project, *words) as (process, pid):
        kill_with_children(process)
        cluster.kill_backend(pid)
    outcome_of(process)
    wait_until(cluster.answers, WAIT)
    assert not of_server(project, SQL_OPEN, [project.database.name])


@pytest.mark.parametrize("words", [["--no-safety-backup"], ["--undo"]], ids=" ".join)
def test_the_servers_process_is_killed_in_the_swap(ready, own_plain, words):
    project = ready(own_plain)
    if words == ["--undo"]:
        project.run("restore", "--force", "--no-safety-backup").ok()
    before = beside(project)
    with held_in_the_swap(project, *words) as (process, pid):
        own_plain.cluster.kill_backend(pid)
        outcome = outcome_of(process)
    assert outcome.code == 2 and "stays as it was" in outcome.err, repr(outcome)
    assert "Traceback" not in outcome.err
    assert beside(project) == before
    check_present(project, 10 if before else 11)


def test_what_is_closed_for_a_swap_under_way_is_opened_by_no_other(ready):
    project = ready("plain-psql")
    cluster = project.database.server.cluster
    with project.database.connect() as client:  # which the swap waits for, once it has told it to end
        pid = client.execute("SELECT pg_backend_pid() AS pid").fetchone()["pid"]
        cluster.kill_backend(pid, signal.SIGSTOP)
        try:
            process = project.start("restore", "--force", "--no-safety-backup")
            wait_until(lambda: not of_server(project, SQL_OPEN, [project.database.name]), WAIT)
            outcomes = [project.run("restore", "--force", *words) for words in (["--clean"], ["--no-safety-backup"])]
        finally:
            cluster.kill_backend(pid, signal.SIGCONT)
        outcome_of(process).ok()
    for outcome in outcomes:
        assert outcome.code == 4 and "another restore" in outcome.err, repr(outcome)
    check_present(project, 10)


def test_the_server_is_killed_in_the_swap_and_started_anew(ready, own_plain):
    project = ready(own_plain)
    with held_in_the_swap(project, "--no-safety-backup") as (process, _):
        own_plain.kill()
        time.sleep(2)  # longer than one try takes
        own_plain.start()
        outcome = outcome_of(process)
    assert outcome.code == 2 and "stays as it was" in outcome.err, repr(outcome)
    assert beside(project) == []
    check_present(project)


def test_the_session_of_the_swap_is_ended(ready):
    project = ready("plain-psql")
    with held_in_the_swap(project, "--no-safety-backup") as (process, pid):
        of_server(project, "SELECT pg_terminate_backend(%s)", [pid])
        outcome = outcome_of(process)
    assert outcome.code == 2 and "stays as it was" in outcome.err, repr(outcome)
    assert beside(project) == []
    check_present(project)


@pytest.mark.parametrize("driver", ["psql", "psycopg"])
def test_a_swap_whose_end_is_not_heard_of_is_told_as_done(ready, proxy, driver):
    project = ready(f"plain-{driver}")
    way = proxy(project.database.server.cluster)
    url = project.database.server.cluster.url(project.database.name, port=way.port)
    with held_in_the_swap(project, "--no-safety-backup", env={"NSELF_DB_URL": url}) as (process, _):
        way.drop_all()
    outcome = outcome_of(process).ok()
    assert "the swap was done" in outcome.err, repr(outcome)
    check_present(project, 10)
    assert len(beside(project, "before")) == 1 and not beside(project, "restore")


@pytest.mark.parametrize("words", [["--no-safety-backup"], ["--undo"], ["--clean"], ["--in-place"]], ids=" ".join)
def test_the_next_command_opens_what_a_killed_swap_left_closed(ready, own_plain, words):
    project = ready(own_plain)
    if words == ["--undo"]:
        project.run("restore", "--force", "--no-safety-backup").ok()
    crash_in_the_swap(project, *(words if words == ["--undo"] else ["--no-safety-backup"]))
    shown = project.run("restore", *words, "--dry-run").ok()
    assert "let connections into" in shown.out and "ALLOW_CONNECTIONS true" in shown.out
    assert not of_server(project, SQL_OPEN, [project.database.name])
    outcome = project.run("restore", *words, "--force").ok()
    assert "lets connections in again" in outcome.out + outcome.err, repr(outcome)
    check_present(project, 11 if words in (["--undo"], ["--clean"]) else 10)
    project.run("restore", "--clean", "--force").ok()
    assert beside(project) == []


def test_every_command_names_the_command_that_opens_it(ready, own_plain, make_database, make_project):
    project = make_project(make_database(own_plain, 'o\'clock "x" ü'))
    project.database.admin(FILL)
    project.run("backup").ok()
    crash_in_the_swap(project, "--no-safety-backup")
    cluster = own_plain.cluster
    place = {"PGHOST": cluster.host, "PGPORT": str(cluster.port)}
    login = {**os.environ, **place, "PGUSER": cluster.user, "PGPASSWORD": cluster.password}
    outcomes = [project.run("list", "--json", env={"NSELF_DB_DRIVER": driver}) for driver in ("psql", "psycopg")]
    assert [outcome.code for outcome in outcomes] == [2, 2]
    (hint,) = {outcome.json()["error"]["hint"] for outcome in outcomes}
    command = hint.partition("let connections in again: ")[2]
    subprocess.run(command, shell=True, check=True, env=login, capture_output=True)
    project.run("list").ok()
    project.run("restore", "--clean", "--force").ok()


def test_what_somebody_has_closed_on_purpose_stays_closed(ready, own_plain):
    project = ready(own_plain)
    of_server(project, f'ALTER DATABASE "{project.database.name}" WITH ALLOW_CONNECTIONS false')
    for words in ([], ["--undo"], ["--clean"]):
        outcome = project.run("restore", "--force", *words)
        assert (outcome.code, "ALLOW_CONNECTIONS true" in outcome.err) == (2, True), repr(outcome)
    assert not of_server(project, SQL_OPEN, [project.database.name])
    of_server(project, f'ALTER DATABASE "{project.database.name}" WITH ALLOW_CONNECTIONS true')


# Full disks.


def test_the_servers_disk_is_full(ready, small_server):
    project = ready(Server("container", small_server))
    project.database.admin("CREATE UNLOGGED TABLE big AS SELECT repeat('x', 1000) AS x FROM generate_series(1, 45000)")
    forget_size(project, project.run("backup", "--label", "big", "--json").ok().json()["data"]["file"])
    small_server.admin("CHECKPOINT")
    project.database.admin("INSERT INTO u VALUES (12)")
    outcome = project.run("restore", "--force", "--no-safety-backup")
    check_words(outcome)
    # With no room for its write-ahead log either, the server restarts.
    wait_until(small_server.answers, WAIT)
    left = beside(project)
    assert all(name in outcome.err for name in left), repr(outcome)
    check_present(project, 12)
    project.run("restore", "--clean", "--force").ok()
    assert beside(project) == []
    project.database.admin("TRUNCATE big")
    project.run("restore", "--force", "--no-safety-backup").ok()
    check_present(project, 11)


@pytest.mark.parametrize("options", [[], ["--in-place"]], ids=" ".join)
def test_a_disk_without_room_is_seen_before_anything_is_done(ready, small_server, options):
    project = ready(Server("container", small_server))
    project.database.admin("CREATE UNLOGGED TABLE big AS SELECT repeat('x', 1000) AS x FROM generate_series(1, 45000)")
    project.run("backup", "--label", "big").ok()
    project.database.admin("INSERT INTO u VALUES (12)")
    outcome = project.run("restore", "--force", *options)
    assert outcome.code == 2 and "no room for a second copy" in outcome.err, repr(outcome)
    assert outcome.err.count("bytes)") == 2
    assert beside(project) == []
    assert len(list((project.root / ".nself-backups").glob("*.dump"))) == 2
    check_present(project, 12)


# Named as pg_restore is, it reads a part and then fails; from then on no file can be made where it runs.
READER = """#!/bin/sh
echo 'a part of the dump'
while true >"$TMPDIR/more$((number += 1))"; do :; done 2>/dev/null
exit {code}
"""


@pytest.mark.parametrize("code", [0, 3])
def test_in_place_nothing_is_committed_of_a_dump_whose_reader_fails_on_a_full_disk(small_disk, tmp_path, code):
    """Nor is the end waited for for ever. The program in psql's place tells what it was given."""
    folder = small_disk(1)
    subprocess.run(["mount", "-o", "remount,nr_inodes=20", folder], check=True)
    reader = tmp_path / "reader"
    reader.write_text(READER.format(code=code), encoding="utf-8")
    reader.chmod(0o755)
    shell = ["sh", "-c", tools.JOINED, "sh", "0", "/dev/null", "BEGIN\n", "COMMIT\n", "", str(reader), "cat"]
    command = tools.Command("psql", shell, {**os.environ, "TMPDIR": str(folder)}, False, True)
    told = []
    if code:
        with pytest.raises(tools.ToolFailed) as failed:
            tools.stream(command, told.append)
        assert failed.value.code == code
    else:
        tools.stream(command, told.append)
    assert b"".join(told) == b"BEGIN\na part of the dump\n" + (b"" if code else b"COMMIT\n")
    assert not [name for name in os.listdir(folder) if not name.startswith("more")]


def test_our_disk_is_full(ready, small_disk):
    project = ready("plain-psql")
    folder = small_disk(1) / "backups"
    env = {"BACKUP_DIR": str(folder)}
    project.run("backup", env=env).ok()
    filler = fill(folder.parent)
    outcome = project.run("restore", "--force", env=env)
    check_words(outcome)
    filler.unlink()
    assert beside(project) == []
    check_present(project)
    project.run("restore", "--force", env=env).ok()


# Others at the same time.


def test_two_at_once_the_second_is_refused(ready):
    project = ready("plain-psql")
    with held(project, "load") as process:
        for words in (["restore"], ["restore", "--clean"]):
            outcome = project.run(*words, "--force", *(["--no-safety-backup"] if len(words) == 1 else []))
            assert outcome.code == 4 and "another restore" in outcome.err, repr(outcome)
        assert len(beside(project)) == 1
    outcome_of(process).ok()
    check_present(project, 10)


def test_what_is_set_and_granted_during_the_load_is_kept(ready):
    project = ready("plain-psql")
    name, role = f'"{project.database.name}"', f"{project.database.name}_later"
    look = (
        "SELECT datdba::regrole::text AS owner, array_to_string(datacl, ' ') AS grants, datconnlimit AS most, "
        "(SELECT setconfig FROM pg_db_role_setting WHERE setdatabase = d.oid AND setrole = 0) AS settings "
        "FROM pg_database d WHERE datname = %s"
    )
    of_server(project, f"CREATE ROLE {role}")
    try:
        with held(project, "load") as process:
            of_server(project, f"ALTER DATABASE {name} OWNER TO {role}; GRANT CREATE ON DATABASE {name} TO PUBLIC")
            of_server(project, f"ALTER DATABASE {name} SET work_mem = '7MB'")
            of_server(project, f"ALTER DATABASE {name} CONNECTION LIMIT 77")
            (before,) = of_server(project, look, [project.database.name])
        outcome_of(process).ok()
        (after,) = of_server(project, look, [project.database.name])
        assert (before["owner"], before["most"], before["settings"]) == (role, 77, ["work_mem=7MB"])
        assert {**after, "grants": {*after["grants"].split()}} == {**before, "grants": {*before["grants"].split()}}
    finally:
        of_server(project, f"REASSIGN OWNED BY {role} TO CURRENT_USER; DROP ROLE {role}")
