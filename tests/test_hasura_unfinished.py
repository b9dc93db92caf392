"""Runs that write one tree and are killed, at every single step: what is read afterwards is whole, or refused.

No engine is asked: a run is a process that is forked here, and killed in the midst of a call that changes the disk.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from bed.hasura_projects import document, permission, table

from nself_core.failures import FileFailure, LockHeld
from nself_core.hasura import synced, tree_writer
from nself_core.hasura.comparison import Live
from nself_core.hasura.project import SETTING
from nself_core.hasura.sync import plan_export, read_files
from nself_core.hasura.synced import Base, Synced, read_synced
from nself_core.hasura.tree_writer import Change, Recorded, Seen
from nself_core.hasura.unfinished import NOTE, joined, read_whole, tree_lock, write_note

CALLS = ("mkdir", "replace", "unlink", "rmdir", "fsync")

# Of each what the one before has goes, changes and comes, in several files.
FIRST = document(table("a"), table("b"), table("c", select_permissions=[permission("user", "id")]))
SECOND = document(table("b", is_enum=True), table("c"), table("d"), network={"tls_allowlist": [{"host": "x"}]})
THIRD = document(table("c", is_enum=True), table("a"), table("d", is_enum=True))


@pytest.fixture
def root(tmp_path):
    """The root of a project that has the first document."""
    write(tmp_path, FIRST)
    return tmp_path


def tree_of(root):
    return Path(root) / "metadata"


class Settings:
    """So much of a project's settings as says where its tree is."""

    def __init__(self, root):
        self.root = str(root)

    def get(self, name):
        return self.path(name) if name == SETTING else ""

    def path(self, name, default=None):
        return str(tree_of(self.root))


def works_of(root, metadata):
    """What an export of a document has done, as the handler makes it of the tree."""
    record = Recorded("dev", Base("engine", metadata["sources"][0]["tables"][0]["table"]["name"], metadata))
    plan = plan_export(read_files(Settings(root), False), Live(metadata, 1, "the engine"), record, True)
    return [step.work for step in plan.steps]


def write(root, metadata):
    tree_writer.perform(str(root), works_of(root, metadata))


def write_killed(root, metadata, point):
    """Write a document in another process, which is killed in its call number `point`; whether it was."""
    child = os.fork()
    if child == 0:
        left = itertools.count(1)

        def struck(call):
            def act(*arguments, **options):
                if next(left) == point:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*arguments, **options)

            return act

        for name in CALLS:
            setattr(os, name, struck(getattr(os, name)))
        write(root, metadata)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
    return os.WIFSIGNALED(status)


def read(root):
    """The document of the tree as commands read it, None where they refuse it."""
    try:
        return read_whole(str(tree_of(root)), None, "metadata").document
    except FileFailure as failure:
        assert "all files" in failure.message or "no source" in failure.message or "no metadata" in failure.message
        return None


def same(one, other):
    """Whether two documents are the same but for the order of the tables, in which a tree keeps its own."""
    return one is not None and ordered(one) == ordered(other)


def ordered(metadata):
    (source,) = metadata["sources"]
    rest = {key: value for key, value in source.items() if key != "tables"}
    tables = sorted(source["tables"], key=lambda entry: entry["table"]["name"])
    return json.dumps([tables, rest, metadata.get("network")], sort_keys=True)


def keep(root):
    """restore(): puts the project back to what it is now."""
    kept = root.parent / f"{root.name} kept"
    shutil.copytree(root, kept)

    def restore():
        shutil.rmtree(root)
        shutil.copytree(kept, root)

    return restore


def test_a_run_that_is_killed_at_any_step_leaves_the_old_the_new_or_what_is_refused(root):
    restore, seen = keep(root), []
    for point in itertools.count(1):
        restore()
        if not write_killed(root, SECOND, point):
            break
        found = read(root)
        seen.append("mix" if found is None else "old" if same(found, FIRST) else "new")
        assert found is None or seen[-1] == "old" or same(found, SECOND)
        write(root, SECOND)
        assert same(read(root), SECOND)
        assert not [name for name in os.listdir(tree_of(root)) if name.startswith(".")]
    assert [name for name, _ in itertools.groupby(seen)] == ["old", "mix", "new"]


def test_a_first_run_that_is_killed_at_any_step_is_no_tree_until_its_last_file(tmp_path):
    root, seen = tmp_path / "project", []
    for point in itertools.count(1, 4):
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        if not write_killed(root, FIRST, point):
            break
        found = read(root)
        assert found is None or same(found, FIRST)
        seen.append(found)
        write(root, FIRST)
        assert same(read(root), FIRST)
    assert len(seen) > 15


def test_a_second_run_that_is_killed_over_the_mix_of_a_first_leaves_no_mix_that_looks_whole(root):
    restore, refused = keep(root), 0
    for first in itertools.count(8, 7):
        restore()
        if not write_killed(root, SECOND, first):
            break
        half = root.parent / "half"
        shutil.copytree(root, half)
        for second in itertools.count(1, 2):
            shutil.rmtree(root)
            shutil.copytree(half, root)
            if not write_killed(root, THIRD, second):
                break
            found = read(root)
            refused += found is None
            assert found is None or any(same(found, one) for one in (FIRST, SECOND, THIRD))
        assert same(read(root), THIRD)
        shutil.rmtree(half)
    assert refused > 20


def mixed(root):
    """Leave the tree in the middle of a run to the second document."""
    for point in itertools.count(10):
        assert write_killed(root, SECOND, point)
        if read(root) is None:
            return


def test_files_that_are_brought_back_are_a_tree_again_also_with_new_ones_left(root):
    before = {path: path.read_bytes() for path in tree_of(root).rglob("*.yaml")}
    mixed(root)
    assert read(root) is None
    for path, data in before.items():
        path.write_bytes(data)
    assert {*tree_of(root).rglob("*.yaml")} > {*before}
    assert same(read(root), FIRST)


def test_an_edit_in_a_mix_does_not_make_it_whole(root):
    mixed(root)
    for path in tree_of(root).rglob("*.yaml"):
        text = path.read_text()
        path.write_text(f"{text}# mine\n")
        assert read(root) is None, path
        path.write_text(text)


def test_a_copy_of_a_mix_is_known_in_another_project(root, tmp_path_factory):
    mixed(root)
    other = tmp_path_factory.mktemp("image")
    shutil.copytree(tree_of(root), tree_of(other))
    assert read(other) is None
    write(other, SECOND)
    assert same(read(other), SECOND)


def test_a_run_that_fails_before_it_changed_anything_leaves_no_note(root):
    works = works_of(root, SECOND)
    changed = tree_of(root) / works[0].file
    changed.parent.mkdir(parents=True, exist_ok=True)
    changed.write_text("# a person's, meanwhile\n")
    with pytest.raises(FileFailure, match="changed meanwhile"):
        tree_writer.perform(str(root), works)
    assert NOTE not in os.listdir(tree_of(root))


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_run_that_is_interrupted_leaves_the_note_where_it_has_changed_something(root, monkeypatch, error):
    real, restore = os.replace, keep(root)
    for number in itertools.count(1):
        restore()
        left = itertools.count(1)

        def strike(source, target, left=left, number=number):
            if next(left) == number:
                raise error
            real(source, target)

        monkeypatch.setattr(os, "replace", strike)
        try:
            write(root, SECOND)
        except BaseException:
            found = read(root)
            assert found is None or same(found, FIRST) or same(found, SECOND)
            assert found is not None or NOTE in os.listdir(tree_of(root))
        else:
            break
    assert number > 5


def test_a_plan_is_not_carried_out_where_another_run_was_ended_meanwhile(root):
    """It would leave some of that one's files, and take away what tells of them."""
    restore, plans = keep(root), [works_of(root, THIRD), works_of(root, FIRST)]
    mixed(root)
    half = tree_of(root) / NOTE
    for works in (*plans, [work._replace(seen=Seen({}, {})) for work in plans[0] if isinstance(work, Change)]):
        if any(isinstance(work, Change) for work in works):
            with pytest.raises(FileFailure, match="another run was ended here meanwhile"):
                tree_writer.perform(str(root), works)
        assert half.exists()
        assert read(root) is None
    restore()


def test_a_plan_is_not_carried_out_where_another_run_has_written_what_it_leaves(root):
    other = document(table("a"), table("b"), table("c", is_enum=True))
    works = works_of(root, document(*FIRST["sources"][0]["tables"][:1], table("b", is_enum=True), table("c")))
    write(root, document(*FIRST["sources"][0]["tables"], network={"tls_allowlist": [{"host": "x"}]}))
    write(root, other)
    with pytest.raises(FileFailure, match="changed meanwhile"):
        tree_writer.perform(str(root), works)
    assert same(read(root), other)


def test_two_runs_with_the_same_plan_both_end_well(root):
    first, second = works_of(root, SECOND), works_of(root, SECOND)
    tree_writer.perform(str(root), first)
    assert tree_writer.perform(str(root), second).data["written"] == []
    assert same(read(root), SECOND)


# The note.


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": []}', '{"files": {"a": null}}', "\x00", "<<<<<<< HEAD"])
def test_a_note_that_is_none_is_named(root, text):
    (tree_of(root) / NOTE).write_text(text)
    with pytest.raises(FileFailure, match="not what nself-db wrote") as caught:
        read_whole(str(tree_of(root)), None, "metadata")
    assert caught.value.file == str(tree_of(root) / NOTE)


@pytest.mark.parametrize("name", ["../outside.yaml", "link/outside.yaml", "/outside.yaml"])
def test_a_note_of_somebody_elses_has_nothing_removed_outside_of_the_tree(root, name):
    outside = root / "outside.yaml"
    outside.write_text("mine")
    (tree_of(root) / "link").symlink_to(root)
    write_note(str(tree_of(root)), {name: (None, None)})
    write(root, SECOND)
    assert outside.read_text() == "mine"
    assert NOTE not in os.listdir(tree_of(root))


def test_what_counts_as_before_is_what_was_there_before_all_that_were_ended():
    old = {"a": ("1", "2"), "b": ("1", "2")}
    half = {"a": "2", "b": "1"}
    assert joined(old, half, {"b": ("1", "3"), "c": (None, "3")}) == {
        "a": ("1", "2"), "b": ("1", "3"), "c": (None, "3")}  # fmt: skip
    for whole in ("1", "2"):
        assert joined(old, {"a": whole, "b": whole}, {"b": (whole, "3")}) == {"b": (whole, "3")}


# The lock.


def test_projects_that_share_a_tree_wait_for_one_another(root, monkeypatch):
    monkeypatch.setattr(synced, "LOCK_SECONDS", 0)
    with tree_lock(str(tree_of(root)), writes=True):
        with pytest.raises(LockHeld, match="another run is writing"):
            write(root, SECOND)
        with pytest.raises(LockHeld, match="another run is writing"):
            read(root)
    with tree_lock(str(tree_of(root))):
        assert same(read(root), FIRST)  # readers do not wait for one another
        with pytest.raises(LockHeld):
            write(root, SECOND)
    write(root, SECOND)
    assert same(read(root), SECOND)


def test_a_link_to_a_tree_is_that_tree(root, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(synced, "LOCK_SECONDS", 0)
    link = tmp_path_factory.mktemp("other") / "metadata"
    link.symlink_to(tree_of(root))
    with tree_lock(str(link), writes=True), pytest.raises(LockHeld):
        write(root, SECOND)


def test_git_sees_nothing_of_the_lock(root):
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    with tree_lock(str(tree_of(root)), writes=True):
        words = ["git", "status", "--porcelain", "--untracked-files=all", "metadata"]
        text = subprocess.run(words, cwd=root, capture_output=True, check=True, text=True).stdout
    assert "metadata/version.yaml" in text
    assert "/." not in text


# What killed runs leave in the project's own folder.


def finished_process():
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_unfinished_files_of_dead_processes_go_and_those_of_living_ones_stay(root):
    folder = root / ".nself"
    dead = finished_process()
    ours = [f"hasura-base.json.{dead}.tmp", f".gitignore.{dead}.tmp", f"hasura-base.json.{os.getpid()}.tmp",
            f"hasura-base.json.{10**30}.tmp"]  # fmt: skip
    others = [f"hasura-base.json.{os.getppid()}.tmp", "notes.tmp", "hasura-base.json.12a.tmp", f"x.{dead}.tmp.kept"]
    for name in (*ours, *others):
        (folder / name).write_text("half")
    write(root, SECOND)
    assert {*os.listdir(folder)} - {".gitignore", "hasura-base.json", "hasura.lock"} == {*others}


# The file of the last synced state.


def test_a_file_of_an_earlier_version_is_read(tmp_path):
    file = tmp_path / synced.FILE
    file.parent.mkdir()
    base = {"engine": "e", "version": 3, "document": {"version": 3}}
    old = {
        "bases": {"dev": base, "dev begun 5": {**base, "version": 5}, "dev begun 4": {**base, "version": 4},
                  "prod begun 1": base},
        "written": {"a": "1", "b": "1"}, "pending": {"b": "2", "c": None},
    }  # fmt: skip
    file.write_text(json.dumps(old))
    found = read_synced(str(tmp_path))
    assert found.bases == {"dev": Base("e", 3, {"version": 3})}
    assert [one.version for one in found.bases_begun("dev", "e")] == [5, 4]
    assert [one.version for one in found.bases_begun("prod", "e")] == [3]
    assert found.bases_begun("dev", "another") == []
    assert found.written == {"a": "1", "b": "2"}
    found.save()
    again = read_synced(str(tmp_path))
    assert (again.bases, again.begun, again.written) == (found.bases, found.begun, found.written)
    assert sorted(json.loads(file.read_text())) == ["bases", "begun", "written"]


def test_what_an_environments_runs_had_begun_ends_with_its_next_base(tmp_path):
    state = Synced(str(tmp_path))
    for env, version in (("dev", 1), ("prod", 1), ("dev", 2), ("dev", 1)):
        state.begin(env, Base("e", version, {}))
    assert [(env, base.version) for env, base in state.begun] == [("dev", 1), ("prod", 1), ("dev", 2)]
    state.keep("dev", Base("e", 3, {}))
    assert [(env, base.version) for env, base in state.begun] == [("prod", 1)]


@pytest.mark.parametrize("begun", [{}, [1], [{"env": "dev"}], None])
def test_a_damaged_file_is_named(tmp_path, begun):
    file = tmp_path / synced.FILE
    file.parent.mkdir()
    file.write_text(json.dumps({"bases": {}, "begun": begun, "written": {}}))
    if begun == {}:
        assert read_synced(str(tmp_path)).begun == []
        return
    with pytest.raises(FileFailure, match="not what nself-db wrote"):
        read_synced(str(tmp_path))
