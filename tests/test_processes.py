"""Child processes: their environment, what is said when they fail, and who hears Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from nself_core import processes
from nself_core.failures import Unreachable

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TELL = [
    sys.executable,
    "-c",
    "import sys; sys.stdout.write(sys.stdin.read().upper()); sys.stderr.write('é'); sys.exit(7)",
]


def test_a_child_has_our_environment_and_what_is_added():
    env = processes.child_env({"B": "2", "C": None}, {"A": "1", "C": "3"})
    assert env == {"A": "1", "B": "2"}


def test_the_environment_is_a_copy():
    assert processes.child_env({"NSELF_TEST_ONLY": "1"})["NSELF_TEST_ONLY"] == "1"
    assert "NSELF_TEST_ONLY" not in os.environ


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"LD_LIBRARY_PATH": "/tmp/_MEI1", "LD_LIBRARY_PATH_ORIG": "/opt/lib"}, {"LD_LIBRARY_PATH": "/opt/lib"}),
        ({"LD_LIBRARY_PATH": "/tmp/_MEI1"}, {}),
        ({"LD_LIBRARY_PATH": "/tmp/_MEI1", "LD_LIBRARY_PATH_ORIG": ""}, {}),
    ],
)
def test_a_frozen_program_gives_its_library_path_to_no_child(monkeypatch, environ, expected):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert processes.child_env(environ=environ) == expected


def test_an_ordinary_program_leaves_the_library_path_alone():
    environ = {"LD_LIBRARY_PATH": "/opt/lib", "LD_LIBRARY_PATH_ORIG": "x"}
    assert processes.child_env(environ=environ) == environ


def test_run_gives_code_and_texts():
    assert processes.run(TELL, input="ä") == (7, "Ä", "é")


def test_bytes_that_are_no_text_do_no_harm():
    done = processes.run([sys.executable, "-c", "import sys; sys.stdout.buffer.write(b'a\\xff')"])
    assert done.out == "a\ufffd"


def test_a_program_that_is_not_there():
    with pytest.raises(Unreachable, match="no-such-program was not found") as failed:
        processes.run(["no-such-program"])
    assert "PATH" in failed.value.hint


def test_a_program_that_may_not_be_run(tmp_path):
    path = tmp_path / "script"
    path.write_text("#!/bin/sh\n", encoding="utf-8")
    with pytest.raises(Unreachable, match="could not be started"):
        processes.run([str(path)])


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(Unreachable, match="nowhere is not there"):
        processes.run(["true"], cwd=str(tmp_path / "nowhere"))


def test_a_child_that_takes_too_long_is_ended():
    started = time.monotonic()
    with pytest.raises(Unreachable, match="within 0.2 seconds"):
        processes.run(["sleep", "30"], timeout=0.2)
    assert time.monotonic() - started < 10


def test_what_a_child_has_started_ends_with_it(tmp_path):
    note = tmp_path / "pid"
    with pytest.raises(Unreachable, match="within 1 seconds"):
        processes.run(["sh", "-c", f"sleep 60 & echo $! > '{note}'; wait"], timeout=1)
    pid = int(note.read_text())
    deadline = time.monotonic() + 10
    while _is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _is_running(pid)


def _is_running(pid):
    """Whether a process runs; one that nobody has collected yet has no command line any more."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            return bool(stream.read())
    except OSError:
        return False


def test_a_child_is_in_a_session_of_its_own():
    child = processes.start(["sleep", "30"])
    try:
        assert os.getsid(child.pid) == child.pid
    finally:
        processes.kill(child)
    assert child.returncode == -signal.SIGKILL


def test_a_child_speaks_over_its_three_streams():
    child = processes.start(["sh", "-c", "read line; echo out $line; echo err $line >&2; exit 3"])
    child.stdin.write(b"x\n")
    assert (child.stdout.read(), child.stderr.read(), child.wait()) == (b"out x\n", b"err x\n", 3)
    processes.kill(child)


def test_a_child_does_not_ignore_a_broken_pipe():
    child = processes.start(["sh", "-c", "trap - PIPE; kill -s PIPE $$; echo alive"])
    assert (child.stdout.read(), child.wait()) == (b"", -signal.SIGPIPE)
    processes.kill(child)


def test_a_program_that_is_not_there_is_named_by_start():
    with pytest.raises(Unreachable, match="the program nself-no-such was not found"):
        processes.start(["nself-no-such"])


CLOSED_STREAMS = """
import os
for handle in (0, 1, 2):
    os.close(handle)
from nself_core import processes
child = processes.start(["sh", "-c", "read line; echo out $line; echo err >&2"])
child.stdin.write(b"x\\n")
heard = child.stdout.read() + child.stderr.read()
os._exit(0 if (heard, child.wait()) == (b"out x\\nerr\\n", 0) else 1)
"""


def test_a_child_has_its_streams_also_where_ours_are_closed():
    assert subprocess.run([sys.executable, "-c", CLOSED_STREAMS], cwd=ROOT).returncode == 0


def test_killing_an_ended_child_does_nothing():
    child = processes.start(["true"])
    child.wait()
    processes.kill(child)
    processes.kill(child)
    assert child.returncode == 0


# An interactive program: `replace`, run in a process of its own.

REPLACE = """
import sys
from nself_core import processes
code = processes.replace(sys.argv[1:], processes.child_env())
print("ended with", code)
"""


def replaced(*argv, **options):
    """The Popen of a Python process that calls `replace` with `argv`."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return subprocess.Popen(
        [sys.executable, "-c", REPLACE, *argv],
        env={**os.environ, "PYTHONPATH": root},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_is_heeded_has_something_done_and_ends_nothing(number):
    before, done = signal.getsignal(number), []

    def act():
        done.append(number)
        if len(done) < 3:
            os.kill(os.getpid(), number)  # once more, while the first is being seen to

    with processes.Heeded() as heeded:
        os.kill(os.getpid(), number)
        assert heeded.told and done == []
        heeded.act = act
        os.kill(os.getpid(), number)
        assert done == [number] and heeded.act is act
    assert signal.getsignal(number) is before


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137), ("kill -15 $$", 143)])
def test_an_interactive_programs_exit_code(script, code):
    out, err = replaced("sh", "-c", script).communicate(timeout=20)
    assert (out, err) == (f"ended with {code}\n", "")


def test_an_interactive_program_reads_our_input():
    out, _ = replaced("cat").communicate("typed\n", timeout=20)
    assert out == "typed\nended with 0\n"


def test_ctrl_c_is_the_interactive_programs_own():
    script = "trap 'echo heard; exit 5' INT; echo ready; while :; do sleep 0.1; done"
    process = replaced("sh", "-c", script)
    assert process.stdout.readline() == "ready\n"
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (out, err) == ("heard\nended with 5\n", "")


def test_an_interactive_program_that_is_not_there():
    _, err = replaced("no-such-program").communicate(timeout=20)
    assert "the program no-such-program was not found" in err
