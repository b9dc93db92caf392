"""Finds the moment to strike, strikes, and waits for what must follow."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import psycopg
from bed.local_processes import wait_until
from bed.projects import Outcome

GATE = 4242  # an advisory lock: the test holds it, a migration waits for it
WAIT = 30  # seconds until what must happen has failed to happen

SQL_SESSIONS = """
SELECT pid, state, wait_event_type, wait_event, query FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'nself-db%' ORDER BY backend_start
"""
SQL_AT_GATE = f"""
SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = {GATE} AND classid = 0
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
# The head lets a migration wait at the gate for as long as the test wants.
PATIENT = "-- nself:lock-timeout=0\n"
PASS_GATE = f"SELECT pg_advisory_xact_lock({GATE});\n"


def make_random(name):
    """A Random for the test `name`, whose seed is printed."""
    seed = os.environ.get("NSELF_FAULT_SEED") or str(random.SystemRandom().randrange(10**9))
    print(f"{name}: NSELF_FAULT_SEED={seed}")
    return random.Random(f"{seed} {name}")


@contextlib.contextmanager
def closed_gate(database):
    """Hold the gate: a migration that comes to PASS_GATE waits inside. Gives the connection that holds it."""
    with database.connect() as connection:
        connection.execute(f"SELECT pg_advisory_lock({GATE})")
        yield connection


def log_gate(number):
    """A transactional migration that leaves its row in `log` and then stands at the gate."""
    return f"{PATIENT}INSERT INTO log (number, step) VALUES ({number}, 1);\n{PASS_GATE}"


def at_gate(connection, process=None):
    """Wait until a migration stands at the gate and return its server process's number."""
    return wait_until(lambda: _at_gate(connection, process), WAIT, lambda: "no migration came to the gate")


def _at_gate(connection, process):
    assert process is None or process.poll() is None, f"the program has ended: {process.communicate()}"
    row = connection.execute(SQL_AT_GATE).fetchone()
    return row and row["pid"]


def sessions(connection):
    """The program's server processes in this database, the eldest first, as rows of pg_stat_activity."""
    return connection.execute(SQL_SESSIONS).fetchall()


def wait_for_session(connection, process):
    """Wait until the program has a session, and return its pid; None when the program has ended before."""
    def look():
        found = sessions(connection)
        return found or process.poll() is not None
    found = wait_until(look, WAIT, lambda: "the program opened no session")
    return found[0]["pid"] if found is not True else None


def wait_until_orphans_end(database, seconds=WAIT):
    """Wait until no server process of the program is left in `database`."""
    with database.connect() as connection:
        wait_until(lambda: not sessions(connection), seconds, lambda: f"still there: {sessions(connection)}")


def recorded(connection):
    """How many versions are recorded; 0 before the table is there."""
    try:
        return connection.execute("SELECT count(*) AS n FROM hdb_catalog.schema_migrations").fetchone()["n"]
    except psycopg.errors.UndefinedTable:
        return 0


def wait_for_progress(connection, process, count):
    """Wait until at least `count` versions are recorded, or the program has ended."""
    deadline = time.monotonic() + 2 * WAIT
    while recorded(connection) < count and process.poll() is None:
        assert time.monotonic() < deadline, f"{recorded(connection)} of {count} recorded"
        time.sleep(0.002)  # a run does several migrations in the time that wait_until sleeps


def children_of(pid):
    """All descendants of process `pid`, by /proc: the program's psql or docker stands in a session of its own."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found = {pid}
    while True:
        more = {child for child, parent in parents.items() if parent in found} - found
        if not more:
            return found - {pid}
        found |= more


def kill_program(process):
    """kill -9 of the program alone; what it started finds its pipes closed."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)


def kill_with_children(process):
    """kill -9 of the program and of its psql or docker at one moment: none can act on another's death."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGSTOP)
    for pid in (*children_of(process.pid), process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def end_container_psql(server):
    """kill -9 of every psql in the server's container; where it is reached by URL there is none."""
    if server.kind == "container":
        server.cluster.run("sh", "-c", "for folder in /proc/[0-9]*; do read -r name < $folder/comm || continue; "
                           "[ $name != psql ] || kill -9 ${folder#/proc/}; done")  # fmt: skip


def outcome_of(process, seconds=60):
    """The Outcome of a started program, once it has ended."""
    out, err = process.communicate(timeout=seconds)
    return Outcome(["nself-db"], process.returncode, out, err)
