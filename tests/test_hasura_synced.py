"""The project's own folder, in which the last synced state stands: never part of a commit."""

from __future__ import annotations

import os
import subprocess

import pytest

from nself_core.failures import FileFailure
from nself_core.hasura.synced import Base, Locked, Synced, make_own_folder


def listed(root):
    """What git would add of a project."""
    words = ["git", "status", "--porcelain", "--untracked-files=all"]
    return subprocess.run(words, cwd=root, capture_output=True, check=True, text=True).stdout.splitlines()


@pytest.mark.parametrize("made", [(), (".nself",), (".nself", ".nself/postgres", ".nself/console")])
def test_nothing_of_it_is_added_also_where_somebody_else_made_it(tmp_path, made):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    for folder in made:
        (tmp_path / folder).mkdir()
    with Locked(str(tmp_path)):
        synced = Synced(str(tmp_path))
        synced.bases["dev"] = Base("engine", 1, {"secret": "x"})
        synced.save()
    assert listed(tmp_path) == []
    assert sorted(os.listdir(tmp_path / ".nself")) == sorted(
        [".gitignore", "hasura-base.json", "hasura.lock", *(name[7:] for name in made[1:])]
    )


@pytest.mark.parametrize("text", ["", "postgres/\n", None])
def test_a_gitignore_of_a_persons_stays(tmp_path, text):
    folder = tmp_path / ".nself"
    folder.mkdir()
    if text is None:
        (folder / ".gitignore").symlink_to("elsewhere")
    else:
        (folder / ".gitignore").write_text(text)
    make_own_folder(str(folder))
    assert os.listdir(folder) == [".gitignore"]
    left = folder / ".gitignore"
    assert os.readlink(left) == "elsewhere" if text is None else left.read_text() == text


def test_a_file_of_that_name_is_a_failure(tmp_path):
    (tmp_path / ".nself").write_text("no folder")
    with pytest.raises(FileFailure, match="cannot be written") as caught:
        make_own_folder(str(tmp_path / ".nself"))
    assert caught.value.file == str(tmp_path / ".nself")
