"""Nobody reads what the program says: the pipe is closed or the disk behind it is full. The migrations stay whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from .conftest import EVERY_WAY
from .watch import wait_until_orphans_end
from .workload import check_complete, check_whole_or_nothing, make_pieces, read_state, write_pieces

PIECES = make_pieces(30)


def run_with(project, environment, redirection):
    """Run `migrate up` in a shell that redirects its streams; returns (exit code, what is left of standard error)."""
    command = f"exec {sys.executable} -m nself_db migrate up --verbose {redirection}"
    process = subprocess.Popen(
        ["sh", "-c", command], cwd=project.root, env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, encoding="utf-8", start_new_session=True,
    )  # fmt: skip
    try:
        _, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, err


@pytest.mark.parametrize("redirection", [">/dev/full", "2>/dev/full", ">&- 2>&-"])
@pytest.mark.parametrize("name", EVERY_WAY)
def test_output_that_cannot_be_written(new_project, run, name, redirection):
    project = new_project(name)
    write_pieces(project, PIECES)
    code, err = run_with(project, run.environment({}), redirection)
    print(code, err[-600:])
    wait_until_orphans_end(project.database)
    check_whole_or_nothing(PIECES, read_state(project.database))
    assert "Traceback" not in err, err
    project.run("migrate", "up").ok()
    check_complete(PIECES, read_state(project.database))
