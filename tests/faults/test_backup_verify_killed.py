"""kill -9 of `backup --verify` at chosen calls of its own functions: what `backup list` shows as good is good.

The program runs as it always does, but for one function of its own that ends the process before its work, behind it,
or behind the first piece that it yields.
"""

from __future__ import annotations

import pytest

from .between import LARGE, entries
from .test_backup import check_next
from .watch import outcome_of, wait_until_orphans_end

BEFORE, BEHIND, WITHIN = "before", "behind", "within"
STRUCK = """
import importlib, os, signal, sys
place, name, when = sys.argv[1:4]
module = importlib.import_module("nself_core." + place)
real = getattr(module, name)

def end():
    os.kill(os.getpid(), signal.SIGKILL)

def struck(*arguments, **options):
    if when == "before":
        end()
    found = real(*arguments, **options)
    if when == "behind":
        end()
    return pieces_of(found)

def pieces_of(found):
    for piece in found:
        yield piece
        end()

setattr(module, name, struck)
import nself_db
sys.exit(nself_db.main(sys.argv[4:]))
"""
FILL = "CREATE TABLE t AS SELECT i, md5(i::text) FROM generate_series(1, 20000) i; CREATE SEQUENCE s"
# In the order in which they come: the dump, its name, its manifest, the reading.
POINTS = (
    ("backups.take._dump", BEFORE),
    ("backups.take._dump", BEHIND),
    ("backups.take._globals", BEHIND),
    ("backups.folder.give_name", BEFORE),
    ("backups.folder.give_name", BEHIND),
    ("backups.manifest._write", BEFORE),
    ("backups.manifest._write", BEHIND),
    ("backups.take.write_manifest", BEHIND),
    ("backups.take._verify", BEFORE),
    ("backups.verify.content", WITHIN),
    ("backups.take._verify", BEHIND),
)


def struck(project, point, *words):
    """The Outcome of a `backup` that a point of POINTS ends."""
    where, when = point
    place, _, name = where.rpartition(".")
    process = project.start("backup", *words, program=("-c", STRUCK, place, name, when))
    outcome = outcome_of(process)
    assert outcome.code == -9, repr(outcome)
    return outcome


def check_looks(project, *remote):
    """What `list` shows with a manifest is good, and what has none is restored by its name only; returns the former."""
    listed = project.run("backup", "list", *remote, "--json").ok().json()["data"]["backups"]
    states = {}
    if listed:
        found = project.run("backup", "verify", *remote, "--json").ok().json()["data"]["backups"]
        states = {item["file"]: item["state"] for item in found}
    assert {item["file"] for item in listed} == states.keys()
    good = [item["file"] for item in listed if item["manifest"]]
    assert all((states[item["file"]] == "good") == item["manifest"] for item in listed), states
    outcome = project.run("restore", *remote, "--dry-run")
    assert outcome.code == (0 if good else 1), repr(outcome)
    return good


# pg_restore opens a folder itself: no piece of it passes through the program.
CASES = [("custom", *point) for point in POINTS]
CASES += [("directory", *point) for point in POINTS if point[1] != WITHIN]


@pytest.mark.parametrize(("form", "where", "when"), CASES)
def test_killed(new_project, form, where, when):
    point = where, when
    project = new_project("plain-psql")
    project.database.admin(FILL)
    struck(project, point, "--verify", "--format", form)
    wait_until_orphans_end(project.database)
    names = [name for name in entries(project) if not name.startswith(".")]
    has_manifest = POINTS.index(point) > POINTS.index(("backups.manifest._write", BEHIND))
    assert len(check_looks(project)) == has_manifest
    has_name = POINTS.index(point) > POINTS.index(("backups.folder.give_name", BEFORE))
    assert len([name for name in names if not name.endswith((".json", ".part"))]) == has_name, names
    if not has_name or has_manifest:
        check_next(project)


@pytest.mark.parametrize(
    ("point", "is_there"),
    [
        (("backups.take._manifest", BEHIND), False),
        (("backups.remote.put_manifest", BEHIND), True),
        (("backups.verify_remote.read_pieces", WITHIN), True),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_killed_in_the_object_store_alone(remote_project, storage, point, is_there):
    struck(remote_project, point, "--verify", "--remote", "--no-local", *LARGE)
    wait_until_orphans_end(remote_project.database)
    assert len(check_looks(remote_project, "--remote")) == is_there
    assert [name for name in entries(remote_project) if not name.startswith(".")] == []
    remote_project.run("backup", "--verify", "--remote", "--no-local", *LARGE).ok()
    assert len(check_looks(remote_project, "--remote")) == is_there + 1


# What --verify finds damaged.

DAMAGING = """
import sys
from nself_core.backups import take
examine = {0}.examine

def damaging(*arguments):
    {1}
    return examine(*arguments)

{0}.examine = damaging
import nself_db
sys.exit(nself_db.main(sys.argv[1:]))
"""
OF_FILE = DAMAGING.format("take", "open(arguments[1].path, 'r+b').truncate(5000)")
OF_OBJECT = DAMAGING.format("take.verify_remote", "store = arguments[1].store; store.put(arguments[2].key, b'other')")


def test_what_cannot_be_read_does_not_look_good(new_project):
    project = new_project("plain-psql")
    project.database.admin(FILL)
    good = project.run("backup", "--json").ok().json()["data"]["file"]
    outcome = outcome_of(project.start("backup", "--verify", program=("-c", OF_FILE)))
    assert outcome.code == 1 and "cannot be read" in outcome.err and "without manifest" in outcome.err, repr(outcome)
    assert len(entries(project)) == 3
    listed = project.run("backup", "list", "--json").ok().json()["data"]["backups"]
    assert [item["file"] for item in listed if item["manifest"]] == [good]
    assert good in project.run("restore", "--dry-run").ok().out


def test_what_cannot_be_read_in_the_object_store_does_not_look_good(remote_project, storage):
    outcome = outcome_of(
        remote_project.start("backup", "--verify", "--remote", "--no-local", program=("-c", OF_OBJECT))
    )
    assert outcome.code == 1 and "without manifest" in outcome.err, repr(outcome)
    assert len(storage.keys()) == 1 and not storage.keys()[0].endswith(".json")
    assert remote_project.run("restore", "--remote", "--dry-run").code == 1
