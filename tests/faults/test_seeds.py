"""Seeds that are struck: each is wholly there and recorded, or neither, and the next run completes."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest
from bed.bookkeeping import values

from .watch import kill_program, kill_with_children, make_random, outcome_of, wait_until_orphans_end

COUNT = 12
ROWS = 40
# Each row takes a moment, so that a blow falls into the midst of a seed.
SLOW = (
    "INSERT INTO np_{0} SELECT i FROM generate_series(1, {1}) i WHERE pg_sleep(0.002) IS NOT NULL\n"
    "ON CONFLICT DO NOTHING;"
)
WAYS = ["plain-psql", "plain-psycopg", "container-15"]


def with_seeds(project):
    """A project with a table and a slow seed for each of COUNT numbers, and a CSV behind them."""
    for number in range(COUNT + 1):
        project.database.admin(f"CREATE TABLE np_{number:02} (id int PRIMARY KEY)")
        project.write(f"seeds/{number:02}.sql", SLOW.format(f"{number:02}", ROWS))
    project.database.admin("CREATE TABLE np_rows (id int PRIMARY KEY, word text)")
    project.write("seeds/np_rows.csv", "id,word\n" + "".join(f"{n},word {n}\n" for n in range(20000)))
    return project


def recorded(project):
    if values(project, "SELECT to_regclass('nself_db.seeds') IS NULL") == [(True,)]:
        return set()
    return {file for (file,) in values(project, "SELECT file FROM nself_db.seeds")}


def check_whole_or_nothing(project):
    """Each seed's rows are all there where it is recorded, and none where it is not."""
    done = recorded(project)
    for number in range(COUNT + 1):
        wanted = ROWS if f"seeds/{number:02}.sql" in done else 0
        assert values(project, f"SELECT count(*) FROM np_{number:02}") == [(wanted,)]
    wanted = 20000 if "seeds/np_rows.csv" in done else 0
    assert values(project, "SELECT count(*) FROM np_rows") == [(wanted,)]
    return len(done)


def check_complete(project):
    assert check_whole_or_nothing(project) == COUNT + 2


def wait_until_recorded(project, count):
    deadline = time.monotonic() + 60
    while len(recorded(project)) < count and time.monotonic() < deadline:
        time.sleep(0.005)


@pytest.mark.parametrize("kill", [kill_program, kill_with_children])
@pytest.mark.parametrize("name", WAYS)
def test_a_killed_run_leaves_whole_seeds_and_the_next_completes(new_project, name, kill):
    chance = make_random(f"seeds-{name}-{kill.__name__}")
    struck = 0
    for _ in range(3):
        project = with_seeds(new_project(name))
        process = project.start("seed", "run")
        wait_until_recorded(project, chance.randrange(COUNT))
        time.sleep(chance.uniform(0, 0.1))  # the random point itself, no synchronisation
        kill(process)
        struck += outcome_of(process).code == -9
        wait_until_orphans_end(project.database)
        check_whole_or_nothing(project)
        project.run("seed", "run", "--changed").ok()
        check_complete(project)
    assert struck, "every kill came too late to prove anything"


@pytest.mark.parametrize("name", WAYS)
def test_an_interrupted_run_tells_what_it_did(new_project, name):
    project = with_seeds(new_project(name))
    process = project.start("seed", "run", "--json")
    wait_until_recorded(project, 3)
    process.send_signal(signal.SIGINT)
    outcome = outcome_of(process)
    assert outcome.code == 130
    assert {seed["file"] for seed in outcome.json()["data"]["seeds"]} == recorded(project)
    check_whole_or_nothing(project)
    project.run("seed", "run", "--changed").ok()
    check_complete(project)


@pytest.mark.parametrize("name", WAYS)
def test_two_runs_at_once_both_end_well(new_project, name):
    project = with_seeds(new_project(name))
    runs = [project.start("seed", "run", "--changed", stdin=subprocess.DEVNULL) for _ in range(2)]
    outcomes = [outcome_of(process) for process in runs]
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    check_complete(project)


@pytest.mark.parametrize("name", ["plain-psql", "plain-psycopg"])
def test_a_server_process_that_dies_in_mid_seed_undoes_it(new_project, name):
    project = with_seeds(new_project(name))
    process = project.start("seed", "run")
    wait_until_recorded(project, 2)
    ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'nself-db seed run'"
    project.database.admin(ended)
    outcome = outcome_of(process)
    assert outcome.code == 2, outcome
    check_whole_or_nothing(project)
    project.run("seed", "run", "--changed").ok()
    check_complete(project)
