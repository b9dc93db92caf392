"""What git says of a tree: asked of real repositories, without an engine."""

from __future__ import annotations

import os
import subprocess

import pytest
from bed.gaps import not_run

from nself_core.failures import FileFailure
from nself_core.hasura.git_tree import LOCAL_VARIABLES, changed_files, committed_files, find_repository, write_head

FILES = ("version.yaml", "databases/databases.yaml", "databases/tables.yaml")


def git(folder, *words):
    """Run git in a folder as a person would, with no settings but the repository's."""
    who = ("-c", "user.name=Test", "-c", "user.email=test@example.test", "-c", "protocol.file.allow=always")
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    done = subprocess.run(["git", *who, *words], cwd=folder, env=env, capture_output=True, check=True, text=True)
    return done.stdout


def make(folder, *files):
    """A repository with these files in it, committed."""
    folder.mkdir(parents=True)
    git(folder, "init", "-q")
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(f"a: 1\nin: {file}\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "state", "--allow-empty")
    return folder


@pytest.fixture
def tree(tmp_path):
    """A committed tree, which is a folder of its repository."""
    return make(tmp_path / "project", *(f"metadata/{file}" for file in FILES)) / "metadata"


def said(tree):
    """(what is not as committed, what is) of the tree's files."""
    repository = find_repository(str(tree))
    return changed_files(repository), committed_files(repository, FILES)


# The variables by which git tells its hooks where they are.


@pytest.mark.parametrize("value", [".git", "{other}/.git", "/nowhere"])
@pytest.mark.parametrize("name", ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX",
                                  "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES"])  # fmt: skip
def test_the_variables_of_a_hook_lead_to_no_other_repository(tree, tmp_path, monkeypatch, name, value):
    other = make(tmp_path / "other", "x")
    (tree / FILES[0]).write_text("mine")
    monkeypatch.setenv(name, value.format(other=other))
    repository = find_repository(str(tree))
    assert (repository.top, repository.prefix) == (str(tree.parent), "metadata/")
    assert said(tree) == ({FILES[0]: "modified"}, {*FILES[1:]})


def test_every_variable_that_git_calls_local_is_known():
    settings = {"GIT_CONFIG_PARAMETERS", "GIT_CONFIG_COUNT"}
    assert {*git("/", "rev-parse", "--local-env-vars").split()} - settings <= {*LOCAL_VARIABLES}
    assert not settings & {*LOCAL_VARIABLES}


def test_settings_in_the_environment_go_on_to_count(tree, monkeypatch):
    for file in FILES:
        (tree / file).write_bytes((tree / file).read_bytes().replace(b"\n", b"\r\n"))
    assert said(tree)[1] == set()
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.autocrlf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "true")
    assert said(tree)[1] == {*FILES}


def test_a_folder_of_somebody_elses_that_is_said_to_be_safe(tree, monkeypatch):
    if os.geteuid() != 0:
        not_run("a repository of somebody else's", "only root can give a folder away")
    monkeypatch.delenv("SUDO_UID", raising=False)
    for folder in (tree.parent, tree.parent / ".git"):
        os.chown(folder, 65534, 65534)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "safe.directory")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "*")
    assert said(tree) == ({}, {*FILES})


# No work tree.


def test_a_bare_repository_and_gits_own_folder_are_no_work_tree(tree, tmp_path):
    git(tmp_path, "init", "-q", "--bare", "bare")
    (tmp_path / "bare" / "metadata").mkdir()
    assert find_repository(str(tmp_path / "bare" / "metadata")) is None
    assert find_repository(str(tmp_path / "bare" / "not there yet")) is None
    assert find_repository(str(tree.parent / ".git")) is None
    assert find_repository(str(tmp_path)) is None


# Repositories within.


@pytest.fixture
def submodule(tree, tmp_path):
    """The same tree, whose `databases` are a submodule; the folder of that."""
    make(tmp_path / "inner", "databases.yaml", "tables.yaml")
    git(tree.parent, "rm", "-qr", "metadata/databases")
    git(tree.parent, "submodule", "add", "-q", str(tmp_path / "inner"), "metadata/databases")
    git(tree.parent, "commit", "-qm", "submodule")
    return tree / "databases"


def test_files_that_are_committed_in_a_submodule_are_committed(tree, submodule):
    assert said(tree) == ({}, {*FILES})


def test_an_edit_in_a_submodule_is_none_until_it_is_committed_there(tree, submodule):
    (submodule / "tables.yaml").write_text("mine")
    assert said(tree) == ({"databases": "modified", FILES[2]: "modified"}, {*FILES[:2]})
    git(submodule, "commit", "-qam", "mine")
    assert said(tree) == ({"databases": "modified"}, {*FILES})


def test_a_repository_within_that_is_no_submodule(tree):
    git(tree / "databases", "init", "-q")
    assert said(tree)[1] == {FILES[0]}
    git(tree / "databases", "add", "-A")
    git(tree / "databases", "commit", "-qm", "inner")
    (tree / FILES[1]).write_text("mine")
    assert said(tree)[1] == {FILES[0], FILES[2]}


@pytest.mark.parametrize("content", ["gitdir: /nowhere\n", "no repository\n", None])
def test_what_is_only_called_a_repository_confirms_nothing(tree, submodule, content):
    (submodule / ".git").unlink()
    if content is None:
        (submodule / ".git").mkdir()
    else:
        (submodule / ".git").write_text(content)
    assert committed_files(find_repository(str(tree)), FILES) == {FILES[0]}


# What HEAD has.


def head(tree, target):
    """The tree's files as HEAD has them: {path relative to the tree: text}."""
    write_head(find_repository(str(tree)), str(target))
    assert not os.path.lexists(f"{target}.index")
    return {str(path.relative_to(target)): path.read_text() for path in target.rglob("*") if path.is_file()}


def test_the_files_of_a_submodule_are_in_head_as_the_commit_has_them_that_it_names(tree, submodule, tmp_path):
    there = {file: (tree / file).read_text() for file in FILES}
    assert head(tree, tmp_path / "first") == there
    (submodule / "tables.yaml").write_text("mine")
    assert head(tree, tmp_path / "edited") == there
    git(submodule, "commit", "-qam", "mine")
    assert head(tree, tmp_path / "committed within") == there
    git(tree.parent, "commit", "-qam", "mine")
    assert head(tree, tmp_path / "committed") == {**there, FILES[2]: "mine"}
    assert said(tree) == ({}, {*FILES})


def test_the_files_of_a_submodule_in_a_submodule_are_in_head_too(tree, submodule, tmp_path):
    make(tmp_path / "innermost", "a b.yaml")
    git(submodule, "submodule", "add", "-q", str(tmp_path / "innermost"), "more/näm e")
    git(submodule, "commit", "-qm", "more")
    git(tree.parent, "commit", "-qam", "more")
    assert "databases/more/näm e/a b.yaml" in head(tree, tmp_path / "head")


def test_a_tree_that_lies_in_a_submodule_is_that_ones(tree, tmp_path):
    outer = make(tmp_path / "outer", "x")
    git(outer, "submodule", "add", "-q", str(tree.parent), "hasura")
    inner = outer / "hasura" / "metadata"
    (inner / FILES[0]).write_text("mine")
    assert said(inner) == ({FILES[0]: "modified"}, {*FILES[1:]})
    assert head(inner, tmp_path / "head") == {file: (tree / file).read_text() for file in FILES}


def test_a_submodule_that_is_not_checked_out_has_no_files(tree, submodule, tmp_path):
    git(tree.parent, "submodule", "--quiet", "deinit", "-f", "--all")
    assert [*head(tree, tmp_path / "head")] == [FILES[0]]


def test_a_commit_that_the_submodule_lacks_is_named(tree, submodule, tmp_path):
    git(tree.parent, "update-index", "--cacheinfo", f"160000,{'12' * 20},metadata/databases")
    git(tree.parent, "commit", "-qm", "moved")
    with pytest.raises(FileFailure, match="the submodule databases lacks the commit that HEAD names") as caught:
        head(tree, tmp_path / "head")
    assert caught.value.hint == "git submodule update"
