"""What `up` and `down` choose, and what state a version is in: decided from facts alone."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nself_core.failures import CheckFailed, FileFailure, UsageFailure
from nself_core.migrations.files import Migration
from nself_core.migrations.ledger import Ledger, Record
from nself_core.migrations.planning import (
    APPLIED,
    CHANGED,
    DIRTY,
    MISSING,
    OUT_OF_ORDER,
    PENDING,
    STATES,
    Entry,
    check_resumed,
    choose_down,
    choose_up,
    list_entries,
    plan_run,
)
from nself_core.migrations.planning import Work as PlannedWork
from nself_core.sql.script import read_script

TEXT = "SELECT 1;"


def migration(version, down=True):
    file = f"migrations/{version}_m.sql"
    down_file = f"migrations/{version}_m.down.sql" if down else None
    return Migration(version, "m", "/p/" + file, "/p/" + down_file if down_file else None, file, down_file, "number")


def applied(version, **changes):
    """The record of an applied version; `changes` are its other fields."""
    fields = {"name": "m", "file": f"migrations/{version}_m.sql", "checksum": "same", "mode": "transaction",
              "direction": "up", "statements": 1, "statements_done": 1}  # fmt: skip
    return Record(version, **{**fields, **changes})


def half(version, direction="up", **changes):
    """The record of a version of which one of three statements is done."""
    fields = {"dirty": True, "mode": "no_transaction", "direction": direction, "statements": 3, "statements_done": 1,
              "prefix_hash": "hash"}  # fmt: skip
    return applied(version, **{**fields, **changes})


def entries(files, records, checksum_of=lambda one: "same"):
    """The entries of files (versions, or Migrations) and records (versions, or Records)."""
    found = sorted(one if isinstance(one, Migration) else migration(one) for one in files)
    known = [one if isinstance(one, Record) else applied(one) for one in records]
    return list_entries(found, Ledger({one.version: one for one in known}, {}), checksum_of)


def versions(chosen):
    return [entry.version for entry in chosen]


def states(listed):
    return {entry.version: entry.state for entry in listed}


# States.


def test_a_version_without_a_record_is_pending_above_the_newest_applied_one_and_out_of_order_below():
    assert states(entries([1, 2, 3], [2])) == {1: OUT_OF_ORDER, 2: APPLIED, 3: PENDING}


def test_on_an_empty_ledger_everything_is_pending():
    assert set(states(entries([1, 2], [])).values()) == {PENDING}


def test_a_version_that_is_half_done_does_not_put_others_out_of_order():
    assert states(entries([1, 2], [half(2)])) == {1: PENDING, 2: DIRTY}


def test_a_record_without_a_file_is_missing():
    assert states(entries([], [1])) == {1: MISSING}


def test_half_done_is_told_before_missing_and_changed():
    assert states(entries([1], [half(1), half(2)], lambda one: "other")) == {1: DIRTY, 2: DIRTY}


def test_another_checksum_is_a_change_and_none_is_not():
    listed = entries([1, 2], [1, applied(2, checksum=None)], lambda one: "other")
    assert states(listed) == {1: CHANGED, 2: APPLIED}


def test_only_files_with_a_stored_checksum_are_read():
    asked = []
    entries([1, 2, 3], [1, applied(2, checksum=None)], lambda one: asked.append(one.version))
    assert asked == [1]


@given(st.sets(st.integers(0, 9)), st.sets(st.integers(0, 9)), st.sets(st.integers(0, 9)))
def test_every_version_has_one_state_and_they_ascend(files, known, dirty):
    records = [half(one) if one in dirty else applied(one) for one in known]
    listed = entries(files, records)
    assert versions(listed) == sorted(files | known)
    assert {entry.state for entry in listed} <= set(STATES)


# up.


def test_up_chooses_what_is_not_applied_ascending():
    chosen, warnings = choose_up(entries([10, 9, 1, 2], [1]))
    assert versions(chosen) == [2, 9, 10]
    assert warnings == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"count": 2}, [2, 3]),
        ({"to": 3}, [2, 3]),
        ({"count": 1, "to": 3}, [2]),
        ({"to": 1}, []),
        ({"count": 9}, [2, 3, 4]),
    ],
)
def test_up_takes_no_more_than_count_and_to_say(options, expected):
    assert versions(choose_up(entries([1, 2, 3, 4], [1]), **options)[0]) == expected


def test_up_to_an_unknown_version_is_refused():
    with pytest.raises(UsageFailure, match="no migration has version 7"):
        choose_up(entries([1], []), to=7)


def test_out_of_order_is_refused_with_all_of_them():
    with pytest.raises(CheckFailed) as caught:
        choose_up(entries([1, 2, 3, 4], [3]))
    assert caught.value.message == (
        "2 migrations are older than the newest applied one: migrations/1_m.sql, migrations/2_m.sql"
    )
    assert caught.value.data == {"out_of_order": ["1", "2"]}


def test_out_of_order_beyond_to_is_none_of_this_runs_business():
    assert versions(choose_up(entries([1, 3], [5]), to=1, allow_out_of_order=True)[0]) == [1]


def test_out_of_order_is_applied_in_its_place_when_allowed():
    assert versions(choose_up(entries([1, 2, 3], [2]), allow_out_of_order=True)[0]) == [1, 3]


def test_long_lists_are_cut():
    with pytest.raises(CheckFailed, match="and 5 more"):
        choose_up(entries(range(26), [25]))


def test_changed_and_vanished_files_are_warned_of():
    chosen, warnings = choose_up(entries([1, 3], [1, 2], lambda one: "other"))
    assert versions(chosen) == [3]
    assert warnings == [
        "migrations/1_m.sql has changed since it was applied",
        "version 2 (m) is applied, but its file is gone",
    ]


def test_under_strict_a_changed_file_is_refused_and_a_vanished_one_not():
    with pytest.raises(CheckFailed) as caught:
        choose_up(entries([1], [1], lambda one: "other"), strict=True)
    assert caught.value.data == {"changed": ["1"]}
    assert choose_up(entries([], [1]), strict=True)[0] == []


def test_up_goes_on_with_a_half_applied_file():
    assert versions(choose_up(entries([1, 2, 3], [1, half(2)]))[0]) == [2, 3]


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (half(2, direction="down"), "version 2 is half rolled back: 1 of 3 statements"),
        (Record(2, True), "left half done by another tool"),
        (applied(2, dirty=True), "left half done by another tool"),
        (applied(2, dirty=True, mode="no_transaction"), "left half done by another tool"),
    ],
)
def test_up_refuses_what_it_cannot_go_on_with(record, said):
    with pytest.raises(CheckFailed, match=said):
        choose_up(entries([1, 2, 3], [1, record]))


def test_up_refuses_a_half_done_version_without_a_file():
    with pytest.raises(CheckFailed, match="half done and its file is gone"):
        choose_up(entries([1], [half(2)]))


def test_up_does_not_mind_what_is_half_done_beyond_to():
    assert versions(choose_up(entries([1, 2], [half(2, direction="down")]), to=1)[0]) == [1]


def test_all_statements_done_and_not_yet_recorded_is_ours_to_finish():
    record = half(2, statements_done=3)
    assert versions(choose_up(entries([2], [record]))[0]) == [2]


# down.


def test_down_chooses_the_latest_one():
    assert versions(choose_down(entries([1, 2, 3, 4], [1, 2, 3]))) == [3]


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"count": 2}, [4, 3]), ({"count": 9}, [4, 3, 2, 1]), ({"to": 2}, [4, 3]), ({"to": 4}, [])],
)
def test_down_goes_from_the_latest_and_keeps_to(options, expected):
    assert versions(choose_down(entries([1, 2, 3, 4, 5], [1, 2, 3, 4]), **options)) == expected


def test_down_of_nothing_is_nothing():
    assert choose_down(entries([1], [])) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"to": 9}, "no migration has version 9"),
        ({"to": 2}, "version 2 is not applied"),
        ({"to": 1, "count": 1}, "either"),
    ],
)
def test_down_refuses_a_target_it_cannot_reach(options, said):
    with pytest.raises(UsageFailure, match=said):
        choose_down(entries([1, 2], [1]), **options)


def test_down_refuses_a_missing_down_file_whichever_it_is():
    with pytest.raises(FileFailure, match="no down file") as caught:
        choose_down(entries([1, migration(2, down=False), 3], [1, 2, 3]), count=3)
    assert caught.value.file == "migrations/2_m.sql"


def test_down_does_not_mind_a_missing_down_file_that_it_does_not_need():
    assert versions(choose_down(entries([migration(1, down=False), 2], [1, 2]))) == [2]


def test_down_refuses_a_version_without_files():
    with pytest.raises(FileFailure, match="files of applied version 2 are gone"):
        choose_down(entries([1], [1, 2]))


def test_down_goes_on_with_a_half_rolled_back_file_and_refuses_a_half_applied_one():
    assert versions(choose_down(entries([1], [half(1, direction="down")]))) == [1]
    with pytest.raises(CheckFailed, match="version 1 is half applied: 1 of 3 statements"):
        choose_down(entries([1], [half(1)]))


def test_down_takes_a_changed_file_for_its_down_file_may_be_right():
    assert versions(choose_down(entries([1], [1], lambda one: "other"))) == [1]


@given(st.sets(st.integers(0, 9)), st.integers(0, 9), st.integers(1, 12))
def test_down_to_is_down_by_the_number_above_it(known, to, count):
    listed = entries(range(10), known)
    above = sorted((one for one in known if one > to), reverse=True)
    if to in known:
        assert versions(choose_down(listed, to=to)) == above
    assert versions(choose_down(listed, count=count)) == sorted(known, reverse=True)[:count]


@given(st.sets(st.integers(0, 9)), st.sets(st.integers(0, 9)), st.integers(1, 10))
def test_runs_of_any_count_together_choose_what_one_run_chooses(files, known, count):
    known = {one for one in known if one <= min(files, default=0)}
    whole = versions(choose_up(entries(files, known))[0])
    parts = []
    for _ in itertools.count():
        step = versions(choose_up(entries(files, {*known, *parts}), count=count)[0])
        if not step:
            break
        parts += step
    assert parts == whole


# Going on with a half-done file.


def script(text):
    return read_script(text, "migrations/1_m.sql", "same")


THREE = "-- nself:no-transaction\nSELECT 1; SELECT 2; SELECT 3;"


@pytest.mark.parametrize(
    "record", [half(1), half(1, started=2), half(1, statements_done=0), half(1, statements_done=3)]
)
def test_a_file_that_still_runs_outside_a_transaction_goes_on(record):
    check_resumed(Entry(1, DIRTY, migration(1), record), script(THREE))


@pytest.mark.parametrize(
    ("record", "text", "said"),
    [
        (half(1), "SELECT 1; SELECT 2; SELECT 3;", "1 of 3 statements .* it would run in one now"),
        (half(1, statements_done=0, started=1), "SELECT 1;", "0 of 3 statements .* it would run in one now"),
        (half(1, started=2), "-- nself:no-transaction\nSELECT 1;", "the file has only 1 now"),
        (half(1, statements_done=2), "-- nself:no-transaction\nSELECT 1;", "the file has only 1 now"),
    ],
)
def test_a_file_whose_done_statements_would_run_again_or_be_lost_is_refused(record, text, said):
    with pytest.raises(CheckFailed, match=said):
        check_resumed(Entry(1, DIRTY, migration(1), record), script(text))


def test_a_file_of_which_nothing_is_done_may_run_in_a_transaction_now():
    check_resumed(Entry(1, DIRTY, migration(1), half(1, statements_done=0)), script(TEXT))


def test_what_is_not_half_done_is_not_looked_at():
    check_resumed(Entry(1, PENDING, migration(1), None), script(TEXT))


# The plan.


def test_a_plan_holds_each_files_text_and_mode_and_what_is_lost():
    works = [PlannedWork(migration(one), script(text), "down", "same", text) for one, text in ((2, TEXT), (1, THREE))]
    plan = plan_run(works, ["careful"], "roll back")
    assert [(step.sql, step.mode) for step in plan.steps] == [
        (TEXT, "transaction"),
        (THREE, "no_transaction: line 1 says so: -- nself:no-transaction"),
    ]
    assert plan.destroys
    assert plan.warnings == ("careful",)
    assert plan.loses == ("migrations/2_m.sql is rolled back", "migrations/1_m.sql is rolled back")


def test_applying_destroys_nothing_and_an_empty_plan_says_so():
    assert not plan_run([PlannedWork(migration(1), script(TEXT), "up", "same", TEXT)], (), "apply").destroys
    empty = plan_run([], (), "apply")
    assert (empty.nothing, empty.data) == ("nothing to apply", {"applied": []})
