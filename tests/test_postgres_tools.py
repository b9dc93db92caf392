"""Client programs: what they write is handed on whole, what they say is kept, and none of them outlives us."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import time

import pytest
from bed.local_processes import wait_until

from nself_core.failures import CredentialsRefused, SqlFailure, Unreachable
from nself_core.postgres import toolchain, tools
from nself_core.postgres.tools import WATCHED, Command, ToolFailed, failure_of_tool, program_version, stream

MEGABYTE = 1 << 20


def shell(script, *words, **options):
    """A Command that runs a shell script on this host."""
    return Command("pg_dump", ["sh", "-c", script, "sh", *words], dict(os.environ), options.pop("inside", False))


def watched(script):
    return Command("pg_dump", ["sh", "-c", WATCHED, "sh", "sh", "-c", script], dict(os.environ), False, True)


def python(program):
    return Command("pg_dump", [sys.executable, "-c", program], dict(os.environ), False)


class Where:
    """A Database as far as a failure's words go."""

    def __init__(self, kind="url"):
        self.where = "container app_postgres, database app" if kind == "container" else "db:5432/app"
        self.reach = type("Reach", (), {"kind": kind, "container": "app_postgres"})


# Output, words, exit codes.


def test_large_output_and_many_words_at_once():
    script = (
        "import sys, threading\n"
        "def fill(stream, letter):\n    for _ in range(64): stream.write(letter * 65536)\n    stream.flush()\n"
        "threads = [threading.Thread(target=fill, args=pair) "
        "for pair in ((sys.stdout.buffer, b'o'), (sys.stderr.buffer, b'e'))]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
    )
    got = bytearray()
    words = stream(python(script), got.extend)
    assert got == b"o" * (64 * 65536)
    assert words == "e" * tools.KEPT_WORDS


@pytest.mark.parametrize(("first", "second"), [("stdout", "stderr"), ("stderr", "stdout")])
def test_one_stream_to_its_end_before_the_other_begins(first, second):
    program = (
        f"import sys\nsys.{first}.write('1' * {MEGABYTE}); sys.{first}.flush()\n"
        f"sys.{second}.write('2' * {MEGABYTE}); sys.{second}.flush()\n"
    )
    got = bytearray()
    words = stream(python(program), got.extend)
    assert (len(got), len(words)) == (MEGABYTE, tools.KEPT_WORDS)


@pytest.mark.skipif(sys.platform != "linux", reason="a pipe has another size only there")
def test_small_pieces_gather_and_a_fast_program_is_not_held_up():
    small, large = [], []
    stream(python("import os, time\nfor _ in range(1000): os.write(1, bytes(4096)); time.sleep(0.0002)"), small.append)
    assert b"".join(small) == bytes(4096 * 1000)
    assert len(small) < 300
    begun = time.monotonic()
    stream(python("import os\nfor _ in range(4096): os.write(1, bytes(65536))"), lambda data: large.append(len(data)))
    assert sum(large) == 4096 * 65536
    assert time.monotonic() - begun < 5


def test_where_a_pipe_has_no_other_size_all_comes_as_it_is_written(monkeypatch):
    monkeypatch.setattr(tools, "SET_PIPE_SIZE", -1)
    got = bytearray()
    stream(python("import os\nfor _ in range(64): os.write(1, bytes(65536))"), got.extend)
    assert got == bytes(64 * 65536)


def test_what_it_is_given_comes_whole_also_in_empty_pieces():
    pieces = [b"", b"a" * MEGABYTE, b"", b"b" * 3, b"", b"c" * MEGABYTE, b""]
    got = bytearray()
    stream(shell("cat"), got.extend, pieces)
    assert hashlib.sha256(got).digest() == hashlib.sha256(b"".join(pieces)).digest()


def test_a_program_that_reads_nothing():
    stream(shell("exit 0"), source=[b"x" * MEGABYTE] * 8)
    with pytest.raises(ToolFailed) as caught:
        stream(shell("echo why >&2; exit 3"), source=[b"x" * MEGABYTE] * 8)
    assert (caught.value.code, caught.value.words) == (3, "why")


def test_a_program_that_closes_its_input_and_goes_on():
    got = bytearray()
    stream(shell("exec <&-; sleep 0.2; echo done"), got.extend, [b"x" * MEGABYTE] * 8)
    assert got == b"done\n"


@pytest.mark.parametrize("make", [shell, watched])
@pytest.mark.parametrize("code", [0, 1, 77, 137])
def test_exit_codes(make, code):
    command = make(f"echo said >&2; echo out; exit {code}")
    got = bytearray()
    if code == 0:
        assert stream(command, got.extend) == "said"
        assert got == b"out\n"
        return
    with pytest.raises(ToolFailed) as caught:
        stream(command, got.extend)
    assert (caught.value.code, caught.value.words, caught.value.told) == (code, "said", True)


def test_a_program_that_is_not_there():
    with pytest.raises(Unreachable, match="was not found"):
        stream(Command("pg_dump", ["/no/such/program"], dict(os.environ), False))


@pytest.mark.parametrize("script", [
    "echo part; exit 0",  # docker's own 0, while the program never told its end
    "echo part; echo 'nself-exit 0 of somebody' >&2",
    "echo part; printf 'nself-exit 0\\nand more words' >&2",
])  # fmt: skip
def test_in_a_container_only_the_programs_own_word_counts(script):
    with pytest.raises(ToolFailed) as caught:
        stream(shell(script, inside=True))
    assert not caught.value.told
    failure = failure_of_tool(Where("container"), caught.value)
    assert isinstance(failure, Unreachable)
    assert "cut off" in failure.message


def test_a_name_with_a_line_that_looks_like_the_told_code():
    with pytest.raises(ToolFailed) as caught:
        stream(shell("printf 'pg_dump: error: no table \"x\\nnself-exit 0\\n\"\\nnself-exit 1\\n' >&2", inside=True))
    assert caught.value.code == 1


def test_the_version_that_a_watched_program_tells(tmp_path):
    program = tmp_path / "pg_dump"
    program.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "pg_dump (PostgreSQL) 15.9" || echo why >&2\n')
    program.chmod(0o755)
    command = Command("pg_dump", ["sh", "-c", WATCHED, "sh", str(program)], dict(os.environ), False, True)
    assert program_version(stream(command)) == ("pg_dump (PostgreSQL) 15.9", "why")
    assert program_version("only words") == (None, "only words")


# What the words mean.


@pytest.mark.parametrize(("code", "words", "kind", "message"), [
    (1, "pg_dump: error: query failed: ERROR:  permission denied for table t\npg_dump: detail: Query was: LOCK TABLE",
     SqlFailure, "permission denied for table t"),
    (1, "pg_dump: error: the cause\npg_dump: error: a worker process died unexpectedly", SqlFailure, "the cause"),
    (1, 'pg_dump: error: connection to server at "h" failed: Connection refused', Unreachable, "Connection refused"),
    (1, 'pg_dump: error: connection to server at "h" failed: FATAL:  password authentication failed for user "x"',
     CredentialsRefused, "refused the login"),
    (1, "pg_dump: error: Dumping the contents of table \"t\" failed: PQgetResult() failed.\npg_dump: detail: Error "
     "message from server: server closed the connection unexpectedly", Unreachable, "cannot be reached"),
    (1, "pg_dump: detail: Error message from server: FATAL:  terminating connection due to administrator command",
     Unreachable, "administrator"),
    (1, "pg_dump: error: could not write to file: No space left on device", Unreachable, "disk is full"),
    (1, "pg_restore: error: COPY failed: ERROR:  could not extend file \"base/1/2\": wrote only 4096 of 8192 bytes at "
        "block 7\nHINT:  Check free disk space.", Unreachable, "disk is full"),
    (127, "sh: 1: pg_dump: not found", Unreachable, "there is no pg_dump"),
    (137, "", Unreachable, "ended by signal 9"),
    (-15, "", Unreachable, "ended by signal"),
    (1, "", SqlFailure, "it said nothing"),
    (1, 'pg_dump: error: relation "the program is not running" is odd', SqlFailure, "is odd"),
])  # fmt: skip
@pytest.mark.parametrize("kind_of_reach", ["url", "container"])
def test_failures(code, words, kind, message, kind_of_reach):
    failure = failure_of_tool(Where(kind_of_reach), ToolFailed("pg_dump", code, words))
    assert type(failure) is kind
    assert message in failure.message


@pytest.mark.parametrize(("words", "message"), [
    ("Error response from daemon: No such container: app_postgres", "there is no container"),
    ("Error response from daemon: container 1f is not running", "is not running"),
    ("Cannot connect to the Docker daemon at unix:///x", "Docker cannot be reached"),
    ("unexpected EOF", "cut off: unexpected EOF"),
])  # fmt: skip
def test_docker_that_fails(words, message):
    failure = failure_of_tool(Where("container"), ToolFailed("pg_dump", 1, words, told=False))
    assert failure.exit_code == 2
    assert message in failure.message


# Which program.


def fake(folder, program, body):
    folder.mkdir(exist_ok=True)
    path = folder / program
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return str(path)


@pytest.fixture
def on_path(tmp_path, monkeypatch):
    """A folder that comes first on PATH; Debian's folder is away."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setattr(toolchain, "HOST_FOLDERS", ((str(tmp_path / "debian"), "", "bin"),))
    monkeypatch.setattr(toolchain, "_wheel_toolchains", lambda: [])
    return folder


def test_an_older_client_than_the_server_is_refused_with_both_versions(on_path):
    path = fake(on_path, "pg_dump", "echo 'pg_dump (PostgreSQL) 13.4 (Debian 13.4-1)'")
    with pytest.raises(Unreachable, match="pg_dump 13 is older than the server, which is 15"):
        tools._new_enough([path], "pg_dump", 15)
    assert tools._new_enough([path], "pg_dump", 13) == path


def test_the_first_that_is_new_enough_is_taken(on_path, tmp_path):
    (tmp_path / "debian" / "9" / "bin").mkdir(parents=True)
    (tmp_path / "debian" / "15" / "bin").mkdir(parents=True)
    (tmp_path / "debian" / "not a version").mkdir()
    ninth = fake(tmp_path / "debian" / "9" / "bin", "pg_dump", "echo pg_dump 9.6")
    fifteenth = fake(tmp_path / "debian" / "15" / "bin", "pg_dump", "echo pg_dump 15.1")
    newest = fake(on_path, "pg_dump", "echo pg_dump 17rc1")
    paths = tools.find_clients("pg_dump")
    assert paths == [fifteenth, ninth, newest]
    assert tools._new_enough(paths, "pg_dump", 14) == fifteenth
    assert tools._new_enough(paths, "pg_dump", 16) == newest
    assert tools.find_client("pg_no_such") is None
    assert tools.host_command("pg_no_such", []) is None


# Nothing outlives us.

FOREVER = 'trap \'echo ended > "$1"; exit 1\' TERM; echo $$ > "$1.pid"; while :; do sleep 0.05; done'
KEEPER = """
import sys
from nself_core.postgres.tools import WATCHED, Command, stream
import os
stream(Command("pg_dump", ["sh", "-c", WATCHED, "sh", "sh", "-c", sys.argv[1], "sh", sys.argv[2]], dict(os.environ),
               False, True))
"""


@pytest.mark.parametrize("end", ["interrupt", "kill"])
def test_a_watched_program_is_told_to_end_when_we_are_gone(tmp_path, end):
    mark = tmp_path / "mark"
    process = subprocess.Popen([sys.executable, "-c", KEEPER, FOREVER, str(mark)], stderr=subprocess.DEVNULL)
    wait_until((tmp_path / "mark.pid").exists, 10)
    process.send_signal(2 if end == "interrupt" else 9)
    process.wait(10)
    wait_until(mark.exists, 10, lambda: "it was not told")
    pid = int((tmp_path / "mark.pid").read_text())
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), 10, lambda: f"{pid} lives on")


def test_a_sink_that_fails_ends_the_program_and_its_failure_is_the_news():
    def fail(data):
        raise OSError(28, "No space left on device")

    begun = time.monotonic()
    with pytest.raises(OSError, match="No space"):
        stream(watched("while :; do echo x; done"), fail)
    assert time.monotonic() - begun < 4
