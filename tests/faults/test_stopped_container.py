"""The server's container is stopped or killed under a backup or a restore, and started again.

The database then serves under its name, nothing looks good that is not, and the next command works.
"""

from __future__ import annotations

import contextlib

import psycopg
import pytest
from bed.local_processes import wait_until
from bed.servers import Server

from .between import FILL, LARGE, entries
from .restoring import (
    SQL_OPEN,
    beside,
    check_next,
    check_present,
    check_stopped,
    held,
    held_in_the_swap,
    of_server,
)
from .test_backup import in_mid_dump
from .watch import WAIT, kill_with_children, outcome_of

ENDS = ("stop", "kill")


# In the swap, while the database is closed.


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("words", [["--no-safety-backup"], ["--undo"]], ids=" ".join)
def test_in_the_swap(ready, own_container, words, end):
    """The program waits until the server is there again, and opens the database."""
    project = ready(Server("container", own_container))
    if words == ["--undo"]:
        project.run("restore", "--force", "--no-safety-backup").ok()
    before = beside(project)
    with contextlib.suppress(psycopg.Error), held_in_the_swap(project, *words) as (process, _):
        getattr(own_container, end)()
        assert process.poll() is None, repr(outcome_of(process))
        own_container.start()
        outcome = outcome_of(process)
    assert outcome.code == 2 and "stays as it was" in outcome.err, repr(outcome)
    assert "Traceback" not in outcome.err
    left = [name for name in beside(project) if name not in before]
    assert all(name in outcome.err for name in left), repr(outcome)
    check_present(project, 10 if before else 11)
    check_next(project, left)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("words", [["--no-safety-backup"], ["--undo"], ["--clean"]], ids=" ".join)
def test_in_the_swap_with_the_program(ready, own_container, words, end):
    """Nobody is there to open the database: the next restore, undo or clean does it."""
    project = ready(Server("container", own_container))
    if words == ["--undo"]:
        project.run("restore", "--force", "--no-safety-backup").ok()
    first = words if words == ["--undo"] else ["--no-safety-backup"]
    with contextlib.suppress(psycopg.Error), held_in_the_swap(project, *first) as (process, _):
        kill_with_children(process)
        getattr(own_container, end)()
        outcome_of(process)
    own_container.start()
    assert not of_server(project, SQL_OPEN, [project.database.name])
    told = project.run("list")
    assert told.code == 2 and "ALLOW_CONNECTIONS true" in told.err, repr(told)
    outcome = project.run("restore", *words, "--force").ok()
    assert "lets connections in again" in outcome.out + outcome.err, repr(outcome)
    check_present(project, 10 if words == ["--no-safety-backup"] else 11)
    project.run("restore", "--clean", "--force").ok()
    assert beside(project) == []


# While several jobs' load is analyzed.


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("form", ["custom", "directory"])
def test_while_what_several_jobs_have_loaded_is_analyzed(ready, own_container, form, end):
    project = ready(Server("container", own_container), "--format", form)
    with held(project, "analyze", "--jobs", "2") as process:
        getattr(own_container, end)()
        outcome = outcome_of(process)
        own_container.start()
    check_stopped(project, outcome)
    assert own_container.run("ls", "/tmp").strip() == ""


# While a backup is sent.


@pytest.mark.parametrize("options", [[], ["--no-local"]], ids=" ".join)
@pytest.mark.parametrize("end", ENDS)
def test_while_a_backup_is_sent(new_project, storage, own_container, end, options):
    """Two parts are there, or on their way, and the rows of a third are still to come."""
    sent = new_project(Server("container", own_container))
    sent.write_env({**sent.database.settings, **storage.settings()})
    words = ["--remote", *LARGE, *options]
    with contextlib.suppress(psycopg.Error), in_mid_dump(sent, *words, fill=FILL, row=1900) as (process, _, _):
        wait_until(storage.uploads, WAIT, lambda: f"{process.poll()}")
        getattr(own_container, end)()
    outcome = outcome_of(process)
    assert outcome.code == 2, repr(outcome)
    assert "Traceback" not in outcome.err
    assert entries(sent) == [] and storage.keys() == [] and storage.uploads() == []
    assert sent.run("backup", "--remote", *options).code == 2
    assert sent.run("backup", "list", "--remote").ok().out.strip() == "no backups"
    own_container.start()
    sent.run("backup", "--remote", "--verify", *LARGE, *options).ok()
    assert len(storage.keys()) == 2 and storage.uploads() == []
    [item] = sent.run("backup", "verify", "--remote", "--json").ok().json()["data"]["backups"]
    assert item["state"] == "good"
