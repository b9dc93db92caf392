"""The two artefacts, built once: each is copied to a bare place and does the main job on a real server.

Each runs with no environment of ours: no virtual environment, no PYTHONPATH, an empty home.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from urllib.parse import quote

import pytest

from nself_core import __version__
from nself_core.postgres import embedded
from nself_core.settings import load_settings

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SAMPLE = ("migrations", "hasura", ".env.dev")
ARTEFACTS = ("nself-db.pyz", "nself-db")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder that `build.py dist` built into."""
    folder = tmp_path_factory.mktemp("dist")
    argv = [sys.executable, os.path.join(ROOT, "build.py"), "dist", "--output", str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(params=ARTEFACTS)
def artefact(request, built, tmp_path):
    """One artefact alone in a folder, and how to start it there: artefact(*words, **variables) -> CompletedProcess."""
    path = shutil.copy(built / request.param, tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    # The pyz is given to the Python that made our environment, so that nothing of ours is importable.
    start = [getattr(sys, "_base_executable", sys.executable), path] if request.param.endswith(".pyz") else [path]

    def run(*words, cwd=home, **variables):
        env = {"HOME": str(home), "PATH": "/usr/bin:/bin", **variables}
        return subprocess.run([*start, *words], cwd=cwd, env=env, capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="module")
def private():
    """An embedded server for this module."""
    root = tempfile.mkdtemp(prefix="nself-db-test-", dir="/tmp")
    os.chmod(root, 0o755)
    os.mkdir(os.path.join(root, "migrations"))
    settings = load_settings(project=root, environ={"POSTGRES_DB": "postgres"})
    yield embedded.ensure_started(settings)
    embedded.stop(settings)
    shutil.rmtree(root)


def client(server, program, *words):
    argv = [os.path.join(server.bin_folder, program), "-h", server.host, "-U", server.user, *words]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def url(private):
    """The URL of an empty database."""
    client(private, "createdb", "sample")
    yield f"postgresql://{private.user}@/sample?host={quote(private.host, safe='')}"
    client(private, "dropdb", "--force", "sample")


@pytest.fixture
def sample(tmp_path):
    """A copy of the sample project."""
    root = tmp_path / "sample"
    root.mkdir()
    for name in SAMPLE:
        source = os.path.join(ROOT, name)
        (shutil.copytree if os.path.isdir(source) else shutil.copy)(source, root / name)
    return root


def test_it_says_its_version(artefact):
    done = artefact("--version")
    assert (done.returncode, done.stdout) == (0, f"nself-db {__version__}\n"), done.stderr


def test_it_carries_its_own_libpq(artefact):
    # psycopg without its own library falls to the host's, silently.
    assert "psycopg 3.2.13, binary, libpq 17" in artefact("--version", "--verbose").stdout


@pytest.mark.parametrize("driver", ["psycopg", "psql"])
def test_it_applies_the_samples_migrations(artefact, sample, private, url, driver):
    variables = {"NSELF_DB_URL": url, "NSELF_DB_DRIVER": driver, "PATH": f"{private.bin_folder}:/usr/bin:/bin"}
    done = artefact("migrate", "up", "--skip-metadata", cwd=sample, **variables)
    assert done.returncode == 0, done.stderr
    files = [name for name in os.listdir(sample / "migrations") if not name.endswith(".down.sql")]
    status = artefact("migrate", "status", "--json", cwd=sample, **variables)
    assert json.loads(status.stdout)["data"]["counts"]["applied"] == len(files) > 10, status.stdout
    applied = client(private, "psql", "-XAtd", "sample", "-c", "SELECT count(*) FROM hdb_catalog.schema_migrations")
    assert int(applied) == len(files)


def test_its_exit_code_is_the_commands(artefact, sample):
    url = "postgresql://nobody@127.0.0.1:1/none"
    done = artefact("migrate", "status", cwd=sample, NSELF_DB_URL=url, NSELF_DB_DRIVER="psycopg")
    assert done.returncode == 2, done.stdout + done.stderr
