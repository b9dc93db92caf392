"""Seeds that are struck: each is wholly there and recorded, or neither, and the next run completes."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest
from bed.bookkeeping import values
from bed.local_processes import wait_until
from bed.proxy import CLOSE, TO_SERVER
from bed.seeds import path_of_node, write_seeds

from .conftest import EVERY_WAY, PLAIN
from .watch import (
    PASS_GATE,
    PATIENT,
    WAIT,
    at_gate,
    closed_gate,
    end_container_psql,
    kill_program,
    kill_with_children,
    make_random,
    outcome_of,
    wait_for_session,
    wait_until_orphans_end,
)

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


LINES = 2000  # of the CSV
NUMBERS = 12  # seeds in SQL; every one leaves its number once


# Seeds that insert without any key, so that what ran twice is seen; the deterministic moments are those at the gate.


@pytest.fixture
def filled(new_project):
    """filled(server) -> a Project with two tables, NUMBERS seeds in SQL and one in CSV."""

    def make(name):
        project = new_project(name)
        project.database.admin("CREATE TABLE log (number int)")
        project.database.admin("CREATE TABLE big (id int, body text)")
        seeds = {f"{number:02}.sql": f"INSERT INTO log VALUES ({number});\n" for number in range(NUMBERS)}
        rows = "".join(f'{number},"{"x" * 50}\n\\.\n"\n' for number in range(LINES))
        write_seeds(project.root, {**seeds, "big.csv": f"id,body\n{rows}"})
        return project

    return make


def gate(number):
    """A seed that leaves its number and then stands at the gate."""
    return f"{PATIENT}INSERT INTO log VALUES ({number});\n{PASS_GATE}"


def recorded_numbers(project):
    """The numbers of the seeds in SQL that are recorded, and whether the CSV is."""
    if values(project, "SELECT to_regclass('nself_db.seeds') IS NULL AS none") == [(True,)]:
        return [], False
    files = [file for (file,) in values(project, "SELECT file FROM nself_db.seeds ORDER BY file")]
    return [int(file[6:8]) for file in files if file.endswith(".sql")], "seeds/big.csv" in files


def check_whole(project):
    """What is recorded is in the tables, once, and nothing else is."""
    numbers, is_big = recorded_numbers(project)
    assert [number for (number,) in values(project, "SELECT number FROM log ORDER BY 1")] == numbers
    counts = values(project, "SELECT count(*) AS n, count(DISTINCT id) AS ids FROM big")
    assert counts == [(LINES, LINES) if is_big else (0, 0)]


def check_next_completes(project, *more):
    """A further run brings what is missing, and nothing twice."""
    check_whole(project)
    project.run("seed", "run", "--changed").ok()
    check_whole(project)
    assert recorded_numbers(project) == ([*range(NUMBERS), *more], True)


@pytest.mark.parametrize("kill", [kill_program, kill_with_children])
@pytest.mark.parametrize("name", EVERY_WAY)
def test_killed_in_the_midst_of_a_seed(filled, name, kill):
    project = filled(name)
    write_seeds(project.root, {"50.sql": gate(50)})
    with closed_gate(project.database) as held:
        process = project.start("seed", "run")
        at_gate(held, process)
        kill(process)
        end_container_psql(project.database.server)
        outcome_of(process)
    wait_until_orphans_end(project.database)
    assert 50 not in recorded_numbers(project)[0] or kill is kill_program
    check_next_completes(project, 50)


@pytest.mark.parametrize("name", PLAIN)
def test_killed_at_random_points(filled, name):
    chance = make_random(f"seeds-{name}")
    for _ in range(4):
        project = filled(name)
        process = project.start("seed", "run")
        time.sleep(chance.uniform(0.05, 0.5))  # the random point itself, no synchronisation
        kill_with_children(process)
        outcome_of(process)
        wait_until_orphans_end(project.database)
        check_next_completes(project)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", EVERY_WAY)
def test_interrupted_in_the_midst_of_a_seed(filled, name, number):
    project = filled(name)
    write_seeds(project.root, {"50.sql": gate(50), "60.sql": "INSERT INTO log VALUES (60);"})
    with closed_gate(project.database) as held:
        process = project.start("seed", "run", "--json")
        at_gate(held, process)
        process.send_signal(number)
        outcome = outcome_of(process)
        wait_until_orphans_end(project.database, 5)
    assert outcome.code == 130
    assert "Traceback" not in outcome.err
    told = [seed["file"] for seed in outcome.json()["data"]["seeds"]]
    assert sorted(told) == [file for (file,) in values(project, "SELECT file FROM nself_db.seeds ORDER BY file")]
    check_next_completes(project, 50, 60)


@pytest.mark.parametrize("name", PLAIN)
def test_interrupted_at_random_points_what_is_told_is_what_is_recorded(filled, name):
    chance = make_random(f"seeds-interrupt-{name}")
    for _ in range(4):
        project = filled(name)
        process = project.start("seed", "run", "--json")
        with project.database.connect() as connection:
            wait_for_session(connection, process)
        time.sleep(chance.uniform(0, 0.2))  # the random point itself, no synchronisation
        process.send_signal(signal.SIGINT)
        outcome = outcome_of(process)
        wait_until_orphans_end(project.database, 5)
        assert outcome.code in (0, 130, -signal.SIGINT), repr(outcome)
        assert "Traceback" not in outcome.err
        told = [seed["file"] for seed in outcome.json()["data"].get("seeds", ())]
        numbers, is_big = recorded_numbers(project)
        assert sorted(told) == [f"seeds/{number:02}.sql" for number in numbers] + ["seeds/big.csv"] * is_big
        check_next_completes(project)


def is_running(pid):
    """Whether a process runs; one that has ended and waits to be collected has no command line any more."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


def test_interrupted_while_a_program_runs(filled):
    project = filled("plain-psql")
    mark = project.root / "begun"
    write_seeds(
        project.root,
        {"99.mjs": f"import fs from 'node:fs'; fs.writeFileSync({str(mark)!r}, `${{process.pid}}`); for (;;) {{}}"},
    )
    process = project.start("seed", "run", env={"PATH": path_of_node()})
    pid = int(wait_until(lambda: mark.exists() and mark.read_text(), WAIT))
    process.send_signal(signal.SIGINT)
    assert outcome_of(process).code == 130
    wait_until(lambda: not is_running(pid), WAIT, lambda: f"{pid} runs on")
    (project.root / "seeds" / "99.mjs").unlink()
    check_next_completes(project)


@pytest.mark.parametrize("name", EVERY_WAY)
def test_two_runs_at_once_bring_nothing_twice(filled, name):
    project = filled(name)
    processes = [project.start("seed", "run", "--changed", "--json") for _ in range(2)]
    outcomes = [outcome_of(process).ok() for process in processes]
    told = [seed["file"] for outcome in outcomes for seed in outcome.json()["data"]["seeds"]]
    assert len(told) == len({*told}) == NUMBERS + 1
    check_whole(project)
    assert recorded_numbers(project) == ([*range(NUMBERS)], True)


@pytest.mark.parametrize("name", EVERY_WAY)
def test_two_runs_of_a_data_file_at_once(new_project, name):
    project = new_project(name)
    project.database.admin("CREATE TABLE big (id int, body text)")
    rows = "".join(f"{number},x\n" for number in range(LINES))
    write_seeds(project.root, {"big.csv": f"id,body\n{rows}"})
    for process in [project.start("seed", "run") for _ in range(2)]:
        outcome_of(process).ok()
    assert values(project, "SELECT count(*) FROM big") == [(LINES,)]


@pytest.mark.parametrize("name", PLAIN)
def test_a_connection_cut_in_the_midst_of_a_csv(filled, proxy, name):
    project = filled(name)
    server = project.database.server
    disturbed = proxy(server.cluster)
    disturbed.cut(100_000, TO_SERVER, CLOSE)
    url = server.cluster.url(project.database.name, port=disturbed.port)
    driver = project.database.settings["NSELF_DB_DRIVER"]
    outcome = project.run("seed", "run", "--json", env={"NSELF_DB_URL": url, "NSELF_DB_DRIVER": driver})
    assert (outcome.code, outcome.json()["error"]["code"]) == (2, "unreachable")
    assert "run the same command again" in outcome.json()["error"]["hint"]
    wait_until_orphans_end(project.database)
    assert not recorded_numbers(project)[1]
    check_next_completes(project)


@pytest.mark.parametrize("change", ["gone", "half", "NUL"])
@pytest.mark.parametrize("name", EVERY_WAY)
def test_a_csv_that_changes_between_its_look_and_its_load(filled, name, change):
    project = filled(name)
    path = project.root / "seeds" / "big.csv"
    content = path.read_bytes()
    # The lock is held until the program has read all its files.
    with project.database.connect() as holder:
        holder.execute(f"SELECT pg_advisory_lock({0x6E73656C66})")
        process = project.start("seed", "run", "--json")
        assert "waiting for the migration lock" in process.stderr.readline()
        if change == "gone":
            path.unlink()
        else:
            path.write_bytes(b"id,body\n1,\0\n" if change == "NUL" else b"id,body\n1,x\n")
    outcome = outcome_of(process)
    assert outcome.code == 1, repr(outcome)
    assert "seeds/big.csv" in str(outcome.json()["error"])
    assert change != "half" or "it was changed after the run had begun" in outcome.json()["error"]["message"]
    assert "Traceback" not in outcome.err
    wait_until_orphans_end(project.database)
    told = [seed["file"] for seed in outcome.json()["data"]["seeds"]]
    assert (
        told
        == [f"seeds/{number:02}.sql" for number in recorded_numbers(project)[0]]
        == [f"seeds/{number:02}.sql" for number in range(NUMBERS)]
    )
    path.write_bytes(content)
    check_next_completes(project)


@pytest.mark.parametrize("name", EVERY_WAY)
def test_a_server_process_that_dies_in_the_midst_of_a_seed(filled, name):
    project = filled(name)
    write_seeds(project.root, {"50.sql": gate(50)})
    with closed_gate(project.database) as held:
        process = project.start("seed", "run", "--json")
        held.execute("SELECT pg_terminate_backend(%s)", [at_gate(held, process)])
        outcome = outcome_of(process)
    assert outcome.code == 2
    check_next_completes(project, 50)


@pytest.mark.parametrize("name", EVERY_WAY)
def test_a_seed_that_commits_by_itself_leaves_nothing(filled, name):
    project = filled(name)
    project.database.admin("CREATE PROCEDURE p() LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (98); COMMIT; END'")
    for text in ("INSERT INTO log VALUES (97);\nCALL p();", "DO $$ BEGIN INSERT INTO log VALUES (98); COMMIT; END $$;"):
        write_seeds(project.root, {"97.sql": text})
        outcome = project.run("seed", "run", "--changed")
        assert outcome.code == 1
        assert "no-transaction" not in outcome.err
    (project.root / "seeds" / "97.sql").unlink()
    check_next_completes(project)
