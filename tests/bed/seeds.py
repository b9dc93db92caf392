"""Seeds for tests: files in a project's folder, and the programs that run some of them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from nself_core.seeds.files import find_seeds
from nself_core.settings import load_settings

from .gaps import not_run

PROGRAMS = Path(sys.executable).parent  # where the extras `typescript` and `test` put node and deno
NASTY = 'Qu"oted $$ %s ü {}'  # a name that wants quoting everywhere and is in no one's case
LONGEST = "x" * 61 + "ü"  # 63 bytes


def write_seeds(root, files):
    """Write `files`, a dict of path below seeds/ to text or bytes."""
    for name, content in files.items():
        path = Path(root) / "seeds" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def find_in(root, files=(), env="dev"):
    """The Listing of `files` (see `write_seeds`) in the folder `root`, and the settings it was found by."""
    write_seeds(root, dict(files))
    (Path(root) / f".env.{env}").touch()
    settings = load_settings(project=str(root), env=env, environ={}, cwd=str(root))
    return find_seeds(settings), settings


def path_with(*programs, folder):
    """A PATH that leads to exactly these of the programs beside Python, by links in `folder`, and to psql."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in programs:
        if not (PROGRAMS / name).exists():
            not_run(f"seeds in {name}", f"there is no {name} beside {sys.executable}")
        (folder / name).symlink_to(PROGRAMS / name)
    return f"{folder}:{folder / 'none'}"


def path_of_node():
    """A PATH on which the tests' own node stands before any other."""
    if not (PROGRAMS / "node").exists():
        not_run("seeds in TypeScript", f"there is no node beside {sys.executable}")
    return f"{PROGRAMS}:{os.environ['PATH']}"
