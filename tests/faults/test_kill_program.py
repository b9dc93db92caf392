"""kill -9 of the program at random points of a run of 30 migrations: each is applied and recorded, or neither."""

from __future__ import annotations

import time

import pytest

from .watch import (
    kill_program,
    kill_with_children,
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
JITTER = 0.04  # seconds; about what one migration takes


def strike(project, kill, chance):
    """Start a run, kill it at a random point, and return whether it was killed in its midst.

    Half of the points lie in a file outside a transaction: there most can go wrong.
    """
    point = chance.choice([chance.randrange(LATEST), chance.choice(OUTSIDE)])
    process = project.start("migrate", "up")
    with project.database.connect() as connection:
        wait_for_session(connection, process)
        wait_for_progress(connection, process, point)
    time.sleep(chance.uniform(0, JITTER))  # the random point itself, no synchronisation
    kill(process)
    return outcome_of(process).code == -9


@pytest.mark.parametrize("name, rounds, kill", [
    ("plain-psql", 10, kill_program),
    ("plain-psql", 10, kill_with_children),
    ("container-15", 10, kill_program),
    ("container-15", 10, kill_with_children),
    ("plain-psycopg", 10, kill_program),
])  # fmt: skip
def test_a_killed_run_leaves_whole_migrations_and_the_next_completes(new_project, name, rounds, kill):
    chance = make_random(f"{name}-{kill.__name__}")
    struck = 0
    for number in range(rounds):
        project = new_project(name)
        write_pieces(project, PIECES)
        struck += strike(project, kill, chance)
        wait_until_orphans_end(project.database)
        state = read_state(project.database)
        print(f"round {number + 1}: {len(state.versions)} recorded, half done: {any(state.versions.values())}")
        check_whole_or_nothing(PIECES, state)
        project.run("migrate", "up").ok()
        check_complete(PIECES, read_state(project.database))
    assert struck >= rounds / 3, "the kills came too late to prove anything"


@pytest.mark.parametrize("name", ["plain-psql", "container-15", "plain-psycopg"])
def test_the_next_run_may_start_at_once(new_project, name):
    chance = make_random(f"at-once-{name}")
    for _ in range(3):
        project = new_project(name)
        write_pieces(project, PIECES)
        strike(project, kill_program, chance)
        project.run("migrate", "up").ok()
        check_complete(PIECES, read_state(project.database))
