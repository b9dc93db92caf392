"""build.py as a newcomer meets it: the demo runs and leaves nothing, also when it is interrupted."""

from __future__ import annotations

import glob
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pytest

from nself_core.postgres.toolchain import STATE_FOLDER

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = [sys.executable, os.path.join(ROOT, "build.py")]


@pytest.fixture
def temporary():
    """A folder for the demo's project that other users may enter, as the system's own is; pytest's are closed."""
    folder = tempfile.mkdtemp(prefix="nself-db-test-", dir="/tmp")
    os.chmod(folder, 0o755)
    yield folder
    shutil.rmtree(folder)


def start_demo(temporary):
    env = {**os.environ, "TMPDIR": temporary, "NSELF_DB_URL": "postgresql://another.project/"}
    return subprocess.Popen([*BUILD, "demo"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)


def servers_below(folder):
    """The lock files of servers whose data lies, or lay, below `folder`."""
    found = []
    for path in glob.glob("/tmp/nself-db-*/.s.PGSQL.*.lock"):
        with open(path, encoding="utf-8") as file:
            found += [path] if folder in file.read() else []
    return found


def test_the_demo_shows_each_command_and_its_output(temporary):
    had_state = os.path.exists(STATE_FOLDER)
    child = start_demo(temporary)
    shown, _ = child.communicate()
    assert child.returncode == 0, shown
    commands = ["migrate up", "migrate status", "list --counts", 'shell --command "SELECT']
    places = [shown.find(f"$ nself-db {command}") for command in commands]
    assert -1 not in places and places == sorted(places), shown
    assert "np_accounts" in shown
    assert os.listdir(temporary) == []
    assert os.path.exists(STATE_FOLDER) == had_state
    assert servers_below(temporary) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("line", "pause"), [("$ nself-db migrate up", 0.3), ("$ nself-db migrate status", 0)])
def test_an_interrupted_demo_leaves_nothing(temporary, number, line, pause):
    child = start_demo(temporary)
    shown = []
    while line not in shown:
        shown.append(child.stdout.readline().rstrip("\n"))
        assert shown[-1] or child.poll() is None, shown
    time.sleep(pause)
    child.send_signal(number)
    child.communicate()
    assert child.returncode == 130
    assert os.listdir(temporary) == []
    assert servers_below(temporary) == []


def test_a_wrong_word_shows_the_three_right_ones():
    done = subprocess.run([*BUILD, "deploy"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "demo|test|dist" in done.stderr
