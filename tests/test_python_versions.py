"""The oldest and the newest Python that the program promises to run on: those of two of Debian's suites, each with its
own psql and nothing else of ours. The code stands there as it is, read-only.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest
from bed.gaps import Gap, not_run
from bed.images import PYTHONS
from bed.projects import REPOSITORY
from bed.session import LABEL

SAMPLE = ("migrations", "seeds", "hasura")
IMPORT_ALL = """
import importlib, pkgutil, sys
import nself_core
names = [module.name for module in pkgutil.walk_packages(nself_core.__path__, "nself_core.")]
for name in ["nself_db", *names]:
    importlib.import_module(name)
print(len(names), *sys.version_info[:2])
"""


@pytest.fixture(scope="module", params=PYTHONS)
def container(bed, request):
    """(run, version): run(*words, folder=…) runs a Python of that version in a container in this host's network."""
    try:
        tag, engine = bed.images().tag(request.param), bed.engine()
    except Gap as gap:
        not_run(gap.what, gap.reason)

    def run(*words, folder="/tmp"):
        command = ["docker", "--host", engine.host, "run", "--rm", "--network=host", "--entrypoint=python3"]
        command += [f"--label={LABEL}={bed.session.id}", f"--volume={REPOSITORY}/nself_db.py:/code/nself_db.py:ro"]
        command += [f"--volume={REPOSITORY}/nself_core:/code/nself_core:ro", f"--volume={folder}:/project"]
        command += ["--env=PYTHONPATH=/code", "--env=PYTHONDONTWRITEBYTECODE=1", "--workdir=/project"]
        done = subprocess.run([*command, tag, "-W", "error", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run, request.param.partition("-")[2]


@pytest.fixture
def python(container):
    """python(*words, folder=…) -> what it printed."""
    return container[0]


@pytest.fixture
def sample(plain_project):
    """The sample project on a real database."""
    for name in SAMPLE:
        shutil.rmtree(plain_project.root / name, ignore_errors=True)
        shutil.copytree(os.path.join(REPOSITORY, name), plain_project.root / name)
    return plain_project


def test_every_module_can_be_imported(container):
    run, expected = container
    count, *version = run("-c", IMPORT_ALL).split()
    assert int(count) > 100
    assert ".".join(version) == expected


@pytest.mark.parametrize("words", [
    ["migrate", "up"],
    ["migrate", "status"],
    ["seed", "graph"],
    ["list", "--counts"],
    ["hasura", "metadata", "lint", "--ignore", "missing-limit", "--ignore", "no-filter"],
    ["migrate", "down", "--count", "2"],
    ["shell", "--command", "SELECT 1 AS one"],
])  # fmt: skip
def test_main_commands(python, sample, words):
    if words[:2] != ["migrate", "up"]:
        sample.run("migrate", "up").ok()
    answer = json.loads(python("-m", "nself_db", *words, "--json", folder=sample.root))
    assert answer["ok"], answer


@pytest.mark.parametrize("container", ["python-3.13"], indirect=True)  # the other's pg_dump is older than the server
def test_a_backup_is_taken_and_restored(python, sample):
    sample.run("migrate", "up").ok()
    python("-m", "nself_db", "backup", folder=sample.root)
    sample.run("migrate", "down").ok()
    python("-m", "nself_db", "restore", "--force", "--no-safety-backup", folder=sample.root)
    counts = sample.run("migrate", "status", "--json").ok().json()["data"]["counts"]
    assert {state for state, count in counts.items() if count} == {"applied"}
