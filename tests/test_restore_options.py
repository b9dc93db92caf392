"""What a person may not ask for: options of `restore` that contradict each other, and a label that is not theirs."""

from __future__ import annotations

import itertools
import os
import socket

import pytest
from test_restore import backup, databases, drop_beside, filled

from nself_core.backups import restore
from nself_core.failures import LockHeld, Refused
from nself_core.postgres.database import Database
from nself_core.settings import load_settings

OTHERS = (["--file", "x.dump"], ["--remote"], ["--jobs", "2"], ["--in-place"], ["--no-safety-backup"])
CONTRADICTIONS = [["--undo", "--clean"]] + [
    [alone, *other] for alone, other in itertools.product(("--undo", "--clean"), OTHERS)
]


@pytest.fixture
def plain_filled(plain_project):
    yield filled(plain_project)
    drop_beside(plain_project)


@pytest.mark.parametrize("words", CONTRADICTIONS, ids=" ".join)
def test_options_that_contradict_each_other_are_refused_before_a_server_is_asked(words, plain_project):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"postgresql://127.0.0.1:{probe.getsockname()[1]}/db"
    for order in (words, words[1:] + words[:1]):
        outcome = plain_project.run("restore", *order, "--force", "--url", url)
        assert (outcome.code, f"{words[0]} does not go with {words[1]}" in outcome.err) == (1, True), repr(outcome)


def test_jobs_do_not_go_with_a_plain_dump(plain_filled):
    backup(plain_filled, "--format", "plain")
    for more in ([], ["--dry-run"]):
        outcome = plain_filled.run("restore", "--jobs", "2", "--force", *more)
        assert (outcome.code, "--jobs does not go with a plain dump" in outcome.err) == (1, True), repr(outcome)
    assert databases(plain_filled) == []


def test_the_label_of_safety_backups_is_not_for_people(plain_filled):
    outcome = plain_filled.run("backup", "--label", "before-restore")
    assert (outcome.code, "the label before-restore" in outcome.err) == (1, True), repr(outcome)
    assert not os.path.exists(plain_filled.root / ".nself-backups")
    backup(plain_filled, "--label", "before-restore-of-friday")
    taken = plain_filled.run("restore", "--force", "--json").ok().json()["data"]["safety_backup"]
    assert taken.endswith("_before-restore.dump")


# Nothing is dropped beside a protected database.


def test_clean_is_refused_on_a_protected_database(plain_filled):
    backup(plain_filled)
    plain_filled.run("restore", "--force", "--no-safety-backup").ok()
    before = databases(plain_filled)
    plain_filled.run("protect").ok()
    for more in (["--force"], ["--dry-run"], ["--force", "--json"]):
        assert plain_filled.run("restore", "--clean", *more).code == 4
    assert databases(plain_filled) == before != []
    plain_filled.run("protect", "--off", "--force").ok()
    plain_filled.run("restore", "--clean", "--force").ok()
    assert databases(plain_filled) == []


def test_clean_is_refused_where_it_is_protected_after_the_plan_was_made(plain_filled):
    backup(plain_filled)
    plain_filled.run("restore", "--force", "--no-safety-backup").ok()
    root, name = str(plain_filled.root), plain_filled.database.name
    database = Database(load_settings(project=root, environ=dict(os.environ), cwd=root), "restore")
    try:
        steps = restore.plan_clean(database, name).steps
        with plain_filled.database.connect() as other:
            other.execute(f"SELECT pg_advisory_lock({0x6E73656C66})")
            with pytest.raises(LockHeld):
                restore.perform_clean(database, name, steps, lambda _: None)
        plain_filled.run("protect").ok()
        with pytest.raises(Refused, match="protected"):
            restore.perform_clean(database, name, steps, lambda _: None)
    finally:
        database.close()
    assert databases(plain_filled) == [step.work for step in steps]
