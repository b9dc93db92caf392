"""An export or a pull is killed, or its disk runs full, at many points: no mix looks whole, the next completes.

Killed is the program itself, in the midst of the call that would change the disk next.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil

import pytest
from bed.hasura_projects import (
    BLOG,
    METADATA,
    POSTS_FILE,
    SCHEMA,
    document,
    files_of,
    live,
    permission,
    replace,
    start_engine,
    table,
    write_files,
)
from bed.projects import REPOSITORY, Project
from test_hasura_git import BASE, PULL, PUSH, edit_posts, git, many

from nself_core.hasura.unfinished import NOTE

from .test_full_disk import PAGE, check_words, fill

EXPORT = ("hasura", "metadata", "export")
DIFF = ("hasura", "metadata", "diff")
APPLY = ("hasura", "metadata", "apply")

# Read by Python when it starts: the call with this number, of those that change a disk's names, ends the process.
STRIKE = """
import os, signal
left = [int(os.environ["STRIKE_AT"])]

def struck(call):
    def act(*arguments, **options):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **options)
    return act

for name in ("mkdir", "replace", "unlink", "rmdir"):
    setattr(os, name, struck(getattr(os, name)))
"""


@pytest.fixture
def strike(tmp_path):
    """strike(project, point, *words) -> the Outcome of a command that is killed at its point, or ends before it."""
    folder = tmp_path / "strike"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(STRIKE)

    def run(project, point, *words):
        env = {"PYTHONPATH": f"{folder}{os.pathsep}{REPOSITORY}", "STRIKE_AT": str(point)}
        outcome = project.run(*words, env=env)
        assert outcome.code in (0, -9), repr(outcome)
        return outcome

    return run


@pytest.fixture
def engine(plain_project):
    """An engine that has the blog's metadata, over a project in git that has no metadata yet."""
    plain_project.database.admin(SCHEMA)
    git(plain_project, "init", "-q")
    with start_engine(plain_project) as engine:
        replace(engine, BLOG)
        yield engine


def changes(project):
    """What applying the files would change in the engine."""
    outcome = project.run(*DIFF, "--json").ok()
    return outcome.json()["data"]["changes"]


def check_settled(project):
    """Nothing is left to be done, and no unfinished file."""
    assert not [name for name in files_of(project) if name.endswith((".nself-tmp", NOTE))]
    assert json.loads((project.root / BASE).read_text())["begun"] == []


def texts_of(project):
    """The files without those that are being written and the note of them."""
    return {name: text for name, text in files_of(project).items() if not name.endswith((".nself-tmp", NOTE))}


# Each of them goes by what the files say. The engine is left as it is by all of them.
READERS = (
    ("hasura", "metadata", "apply", "--dry-run"), ("hasura", "metadata", "diff"),
    ("hasura", "metadata", "validate", "--offline"), ("hasura", "metadata", "lint"),
    ("hasura", "metadata", "lint", "--fix"), ("hasura", "git", "push", "--force", "--dry-run"),
)  # fmt: skip


def is_refused(project, words):
    """Whether a command refuses the tree, as it must a mix; it then says what to do."""
    outcome = project.run(*words, "--json")
    error = outcome.json().get("error", {"message": ""})
    if "ended before it had written all files" not in error["message"]:
        return False
    assert (outcome.code, error["file"]) == (1, METADATA), repr(outcome)
    assert "hasura metadata export" in error["hint"]
    assert "git pull" in error["hint"]
    return True


# The first export.


@pytest.mark.parametrize("words, step", [(EXPORT, 2), (PULL, 7)], ids=["export", "pull"])
def test_a_first_run_that_is_killed_is_completed_by_the_next(plain_project, engine, strike, words, step):
    """What is there until then is no tree: to apply it would take everything out of the engine."""
    plain_project.run(*EXPORT).ok()
    whole = files_of(plain_project)
    cut_off = 0
    for point in itertools.count(1, step):
        shutil.rmtree(plain_project.root / METADATA)
        shutil.rmtree(plain_project.root / ".nself")
        if strike(plain_project, point, *words).code == 0:
            break
        if not (plain_project.root / METADATA / "databases/databases.yaml").exists():
            cut_off += (plain_project.root / METADATA).exists()
            outcome = plain_project.run(*APPLY, "--force", "--json")
            assert outcome.code == 1, repr(outcome)
            assert "hasura metadata export" in outcome.json()["error"]["hint"]
            assert live(engine)[0] == BLOG
        plain_project.run(*words).ok()
        assert files_of(plain_project) == whole
        check_settled(plain_project)
    assert cut_off > 15 // step


def test_where_the_note_of_it_is_lost_it_still_is_no_tree(plain_project, engine, strike):
    strike(plain_project, 12, *EXPORT)
    assert files_of(plain_project)
    (plain_project.root / BASE).unlink()
    outcome = plain_project.run(*APPLY, "--force")
    assert outcome.code == 1, repr(outcome)
    assert live(engine)[0] == BLOG


# Pull, and export with copies: both sides have changed.

GUEST = "  - role: guest\n    permission:\n      columns: []\n      filter: {}\n"
NEW = document(
    table("posts", select_permissions=[permission("user", "id", "title", "body")]),
    table("tags"),
    network={"tls_allowlist": [{"host": "example.test"}]},
)


@pytest.fixture
def both_changed(plain_project, engine, tmp_path):
    """restore(): the project as it was synced, committed, and then edited; the engine has tables more and less."""
    write_files(plain_project)
    git(plain_project, "add", "-A")
    git(plain_project, "commit", "-qm", "state")
    plain_project.run(*PULL).ok()
    edit_posts(plain_project, "select_permissions:\n", f"# mine\nselect_permissions:\n{GUEST}")
    replace(engine, NEW)
    kept = tmp_path / "kept"
    for name in ("hasura", ".nself"):
        shutil.copytree(plain_project.root / name, kept / name)

    def restore():
        for name in ("hasura", ".nself"):
            shutil.rmtree(plain_project.root / name)
            shutil.copytree(kept / name, plain_project.root / name)

    return restore


def copies(project):
    """The texts that are kept of a person's."""
    return [path.read_text() for path in (project.root / ".nself/hasura-copies").rglob("*.yaml")]


@pytest.mark.parametrize("words", [PULL, (*EXPORT, "--force")], ids=["pull", "export"])
def test_a_run_over_edits_that_is_killed_loses_none_and_is_completed_by_the_next(
    plain_project, engine, both_changed, strike, words
):
    old, before = files_of(plain_project), changes(plain_project)
    mine = (plain_project.root / POSTS_FILE).read_text()
    plain_project.run(*words).ok()
    whole, left = files_of(plain_project), changes(plain_project)
    assert [change["path"][-1] for change in left] == (["guest"] if words == PULL else [])
    killed = mixed = 0
    for point in itertools.count(1, 2):
        both_changed()
        if strike(plain_project, point, *words).code == 0:
            break
        killed += 1
        half = texts_of(plain_project)
        assert all(text in (old.get(name), whole.get(name)) for name, text in half.items())
        assert (plain_project.root / POSTS_FILE).read_text() == mine or copies(plain_project) == [mine]
        if not is_refused(plain_project, DIFF):  # then the tree is the old one or the new one
            assert changes(plain_project) in (before, left)
        elif (mixed := mixed + 1) == 1:
            assert all(is_refused(plain_project, reader) for reader in READERS)
        plain_project.run(*words).ok()
        assert (files_of(plain_project), changes(plain_project)) == (whole, left)
        assert mine in copies(plain_project)
        check_settled(plain_project)
    assert killed > 6
    assert mixed > 1


# Of NEW the engine takes back what posts' columns got, and more changes.
LATER = document(
    table("posts", select_permissions=[permission("user", "id", "title")]),
    table("tags", is_enum=True),
    network={"tls_allowlist": [{"host": "other.test"}]},
)


def test_what_a_killed_pull_brought_is_not_kept_where_the_engine_takes_it_back(
    plain_project, engine, both_changed, strike
):
    replace(engine, LATER)
    plain_project.run(*PULL).ok()
    whole = changes(plain_project)
    assert [change["path"][-1] for change in whole] == ["guest"]
    for point in itertools.count(3, 3):
        both_changed()
        replace(engine, NEW)
        if strike(plain_project, point, *PULL).code == 0:
            break
        replace(engine, LATER)
        plain_project.run(*PULL).ok()
        assert changes(plain_project) == whole
        assert sorted(json.loads((plain_project.root / BASE).read_text())["bases"]) == ["dev"]
    assert point > 10


def test_a_push_does_not_give_back_what_a_killed_pull_brought(plain_project, engine, both_changed, strike):
    taken_back = document(table("authors"), table("posts", select_permissions=[permission("user", "id", "title")]))
    codes = set()
    for point in itertools.count(3, 3):
        both_changed()
        replace(engine, document(*NEW["sources"][0]["tables"][:1]))
        if strike(plain_project, point, *PULL).code == 0:
            break
        replace(engine, taken_back)
        codes.add(1 if is_refused(plain_project, PUSH) else plain_project.run(*PUSH).code)
        assert "body" not in json.dumps(live(engine)[0])
    assert {1, 4} <= codes <= {0, 1, 4}


def test_two_pulls_are_killed_one_after_the_other(plain_project, engine, both_changed, strike):
    posts = plain_project.root / POSTS_FILE
    for point in itertools.count(1):
        both_changed()
        assert strike(plain_project, point, *PULL).code
        if "- body" in posts.read_text():
            break
    replace(engine, LATER)
    for point in itertools.count(1):
        assert strike(plain_project, point, *PULL).code
        assert "- body" in posts.read_text()
        if len(json.loads((plain_project.root / BASE).read_text())["begun"]) == 2:
            break
    plain_project.run(*PULL).ok()
    assert [change["path"][-1] for change in changes(plain_project)] == ["guest"]
    assert [*json.loads((plain_project.root / BASE).read_text())["bases"]] == ["dev"]


# A full disk.


@pytest.fixture
def small(small_disk, plain_server, make_database, run):
    """(project, engine): a project on a memory disk of two megabytes, and an engine with 40 tables."""
    project = Project(small_disk(2) / "project", make_database(plain_server), run)
    with start_engine(project) as engine:
        replace(engine, many(40, "id"))
        yield project, engine


def export_into(project, pages):
    """The Outcome of an export for which there is room for so many pages; then there is more room again."""
    filler = fill(project.root.parent, pages * PAGE)
    try:
        outcome = project.run(*EXPORT, "--json")
    finally:
        filler.unlink()
    if outcome.code:
        check_words(outcome)
        error = outcome.json()["error"]
        assert f"{error['file']}/".removeprefix(f"{project.root}/").startswith((".nself/", f"{METADATA}/"))
    return outcome


def test_no_room_for_a_first_export(small):
    project, engine = small
    project.run(*EXPORT).ok()
    whole = files_of(project)
    for pages in itertools.count(0, 5):
        shutil.rmtree(project.root / METADATA)
        shutil.rmtree(project.root / ".nself")
        if export_into(project, pages).code == 0:
            break
        half = texts_of(project)
        assert half.items() <= whole.items()
        assert half == whole or project.run(*APPLY, "--force").code == 1
        project.run(*EXPORT).ok()
        assert files_of(project) == whole
        check_settled(project)
    assert pages > 40


def test_no_room_for_what_changed(small):
    project, engine = small
    project.run(*EXPORT).ok()
    old = files_of(project)
    larger = many(30, *(f"column_{number:03}" for number in range(300)))  # each file takes more room than before
    replace(engine, larger)
    project.run(*EXPORT).ok()
    new = files_of(project)
    half_done = 0
    for pages in itertools.count(0, 8):
        replace(engine, many(40, "id"))
        project.run(*EXPORT).ok()
        assert files_of(project) == old
        replace(engine, larger)
        if export_into(project, pages).code == 0:
            break
        half = texts_of(project)
        half_done += half not in (old, new)
        assert all(text in (old.get(name), new.get(name)) for name, text in half.items())
        assert half in (old, new) or is_refused(project, DIFF)
        project.run(*EXPORT).ok()
        assert files_of(project) == new
        check_settled(project)
    assert half_done > 1
