"""The server's process dies under a run, alone or with the whole server, at random points: 50 runs in all."""

from __future__ import annotations

import time

import psycopg
import pytest
from bed.local_processes import wait_until

from .watch import (
    WAIT,
    make_random,
    outcome_of,
    wait_for_progress,
    wait_for_session,
    wait_until_orphans_end,
)
from .workload import (
    NO_TRANSACTION,
    check_complete,
    check_whole_or_nothing,
    make_pieces,
    read_state,
    write_pieces,
)

PIECES = make_pieces(30)
LATEST = len(PIECES) * 3 // 4  # what is struck later has mostly ended before the blow
OUTSIDE = [piece.number for piece in PIECES[:LATEST] if piece.mode == NO_TRANSACTION]
JITTER = 0.02  # seconds


def end_politely(database, connection, pid):
    """As an administrator ends a session: FATAL 57P01 in the client."""
    connection.execute("SELECT pg_terminate_backend(%s)", [pid])


def kill_hard(database, connection, pid):
    """As the kernel's out-of-memory killer does: Postgres ends every other session, ours too, and restarts."""
    try:
        database.server.kill_backend(pid)
    except (ProcessLookupError, RuntimeError):
        return  # the run was quicker
    wait_until(lambda: not is_alive(database, pid), WAIT, lambda: f"backend {pid} lives on")
    wait_until(database.server.cluster.answers, WAIT, lambda: "the server did not restart")


def is_alive(database, pid):
    try:
        return database.admin("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [pid])
    except psycopg.OperationalError:
        return True


def strike(project, end, chance):
    """Start a run, end its server process at a random point, and return the program's Outcome."""
    point = chance.choice([chance.randrange(LATEST), chance.choice(OUTSIDE)])
    process = project.start("migrate", "up")
    with project.database.connect() as connection:
        pid = wait_for_session(connection, process)
        wait_for_progress(connection, process, point)
        time.sleep(chance.uniform(0, JITTER))  # the random point itself, no synchronisation
        if pid is not None:
            end(project.database, connection, pid)
    return outcome_of(process)


@pytest.mark.parametrize("name, rounds, end", [
    ("plain-psql", 14, end_politely),
    ("plain-psycopg", 8, end_politely),
    ("container-15", 12, end_politely),
    ("plain-psql", 6, kill_hard),
    ("plain-psycopg", 4, kill_hard),
    ("container-15", 6, kill_hard),
])  # fmt: skip
def test_a_lost_server_process_is_exit_2_and_the_next_run_completes(new_project, name, rounds, end):
    chance = make_random(f"{name}-{end.__name__}")
    struck = number = 0
    # On a busy machine a strike may come too late: then there are more rounds, up to four times as many.
    while number < rounds or (struck < rounds / 3 and number < 4 * rounds):
        number += 1
        project = new_project(name)
        write_pieces(project, PIECES)
        outcome = strike(project, end, chance)
        wait_until_orphans_end(project.database)
        state = read_state(project.database)
        print(f"round {number}: exit {outcome.code}, {len(state.versions)} recorded: {outcome.err[-300:]}")
        check_whole_or_nothing(PIECES, state)
        if outcome.code:
            struck += 1
            assert outcome.code == 2, repr(outcome)
            assert "Traceback" not in outcome.err
            assert "run the same command again" in outcome.err or not state.versions
        else:
            check_complete(PIECES, state)
        project.run("migrate", "up").ok()
        check_complete(PIECES, read_state(project.database))
    assert struck >= rounds / 3, "the strikes came too late to prove anything"
