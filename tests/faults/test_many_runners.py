"""Eight runs at once on a fresh database: each migration is applied by one of them, once."""

from __future__ import annotations

from collections import Counter

import pytest
from bed.local_processes import wait_until

from .conftest import EVERY_WAY
from .watch import GATE, PATIENT, SQL_AT_GATE, WAIT, at_gate, closed_gate, log_gate, outcome_of
from .workload import check_complete, check_whole_or_nothing, make_pieces, read_state, write_pieces

RUNNERS = 8
PIECES = make_pieces(16)


def start_all(project, *options):
    return [project.start("migrate", "up", "--json", *options) for _ in range(RUNNERS)]


def applied_by(outcomes):
    """How often each version is told as applied, over all runs."""
    told = Counter()
    for outcome in outcomes:
        told.update(int(item["version"]) for item in outcome.json()["data"].get("applied", ()))
    return told


@pytest.mark.parametrize("name", EVERY_WAY)
def test_eight_runs_apply_each_migration_once(new_project, name):
    project = new_project(name)
    write_pieces(project, PIECES)
    outcomes = [outcome_of(process, 120).ok() for process in start_all(project)]
    check_complete(PIECES, read_state(project.database))
    assert applied_by(outcomes) == Counter(piece.number for piece in PIECES)


@pytest.mark.parametrize("name", EVERY_WAY)
def test_runs_whose_wait_ran_out_end_with_4_and_change_nothing(new_project, name):
    project = new_project(name)
    write_pieces(project, PIECES)
    project.migration("17_gate", log_gate(17))
    with closed_gate(project.database) as gate:
        first = project.start("migrate", "up", "--json")
        at_gate(gate, first)
        outcomes = [outcome_of(process, 120) for process in start_all(project, "--lock-wait", "0.3")]
        check_whole_or_nothing(PIECES, read_state(project.database))
    assert [outcome.code for outcome in outcomes] == [4] * RUNNERS
    assert all("nself-db migrate up" in outcome.err + outcome.out for outcome in outcomes), "the holder is named"
    outcome_of(first).ok()
    assert applied_by([*outcomes]) == Counter()
    assert project.database.admin("SELECT count(*) AS n FROM log WHERE number = 17") == [{"n": 1}]


@pytest.mark.parametrize("name", EVERY_WAY)
def test_a_run_that_waited_takes_over_from_one_that_was_killed(new_project, name):
    project = new_project(name)
    write_pieces(project, PIECES)
    project.migration("17_gate", log_gate(17))
    with closed_gate(project.database) as gate:
        first = project.start("migrate", "up")
        pid = at_gate(gate, first)
        others = start_all(project)
        project.database.admin("SELECT pg_terminate_backend(%s)", [pid])
        assert outcome_of(first).code == 2
    for process in others:
        outcome_of(process, 120).ok()
    assert project.database.admin("SELECT count(*) AS n FROM log WHERE number = 17") == [{"n": 1}]


@pytest.mark.parametrize("giving_up", ["DISCARD ALL", "SELECT pg_advisory_unlock_all()"])
@pytest.mark.parametrize("name", EVERY_WAY)
def test_a_file_that_gives_up_the_lock_is_not_run_by_two(new_project, name, giving_up):
    """DISCARD ALL releases a session's advisory locks, and so ours."""
    project = new_project(name)
    project.migration("1_log", "CREATE TABLE log (number int, step int);")
    project.migration("2_outside", f"{PATIENT}-- nself:no-transaction\nINSERT INTO log VALUES (2, 1);\n{giving_up};\n"
                      f"INSERT INTO log SELECT 2, 3 FROM pg_advisory_xact_lock({GATE});\n"
                      "INSERT INTO log VALUES (2, 4);\n")  # fmt: skip
    with closed_gate(project.database) as gate:
        first = project.start("migrate", "up")
        at_gate(gate, first)
        second = project.start("migrate", "up", "--lock-wait", "3")
        # It waits for the lock, gives up, or stands at the gate, too, and then it was let in.
        wait_until(lambda: second.poll() is not None or len(gate.execute(SQL_AT_GATE).fetchall()) > 1, WAIT)
    outcomes = [outcome_of(process) for process in (first, second)]
    assert project.database.admin("SELECT step, count(*) AS n FROM log GROUP BY 1 ORDER BY 1") == [
        {"step": 1, "n": 1}, {"step": 3, "n": 1}, {"step": 4, "n": 1}]  # fmt: skip
    assert sorted(outcome.code for outcome in outcomes) == [0, 4]
