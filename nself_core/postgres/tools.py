"""Postgres' client programs, run beside the server: pg_dump, pg_restore, pg_dumpall.

In a container they are the server's own. By a URL they are the host's, the newest there is, and one that is older than
the server is refused. What they write is handed on in pieces; what they say is kept to its end.
"""

from __future__ import annotations

import os
import re
import select
from collections import namedtuple

from nself_core import processes
from nself_core.failures import SqlFailure, Unreachable
from nself_core.postgres.database import NO_PARAMETERS, OWN_LOGIN, docker_failure
from nself_core.postgres.errors import connection_failure
from nself_core.postgres.toolchain import find_client

CHUNK = 1 << 18
KEPT_WORDS = 64 << 10  # bytes of what a program says; of more, the last are kept

# In a container the program's own exit code is told, too: that of `docker exec` may be of its own making.
IN_CONTAINER = 'program=$1; shift; "$program" "$@"; code=$?; echo "nself-exit $code" >&2; exit $code'
TOLD_EXIT = re.compile(rb"^nself-exit (\d+)\n?", re.MULTILINE)

Command = namedtuple("Command", "program argv env in_container")
Command.__doc__ = "A client program ready to run; `in_container`, whether it runs there and tells its own exit code."


class ToolFailed(Exception):
    """A client program did not end well: `program`, its exit `code`, and the `words` it said."""

    def __init__(self, program, code, words):
        super().__init__(f"{program} ended with {code}: {words}")
        self.program = program
        self.code = code
        self.words = words


def command_of(database, program, arguments, server_version=None):
    """The Command that runs a client program on the database.

    Arguments: `arguments`, a list of texts; `server_version`, the server's server_version_num, where a program older
    than the server will not do. Raises Unreachable where there is none, or it is too old.
    """
    reach = database.reach
    argv, env = reach.command(program, database.variables(NO_PARAMETERS), OWN_LOGIN)
    if reach.kind == "container":
        return Command(program, [*argv[:-1], "sh", "-c", IN_CONTAINER, "sh", program, *arguments], env, True)
    path = argv[0] if os.sep in argv[0] else find_client(program, (server_version or 0) // 10000)
    if not path:
        raise Unreachable(f"there is no {program} on this host", "install Postgres' client programs")
    if server_version is not None:
        _check_version(path, program, server_version // 10000)
    return Command(program, [path, *argv[1:], *arguments], env, False)


def offline_command(database, program, arguments):
    """The Command of a client program that needs no server: of a container where one is meant, else the host's."""
    reach = database.reach
    if reach.kind == "container":
        return command_of(database, program, arguments)
    path = os.path.join(reach.server.bin_folder, program) if reach.kind == "embedded" else find_client(program)
    if not path:
        raise Unreachable(f"there is no {program} on this host", "install Postgres' client programs")
    return Command(program, [path, *arguments], processes.child_env({"LC_ALL": "C"}), False)


def _check_version(path, program, server_major):
    found = re.search(r"\d+", processes.run([path, "--version"], timeout=30).out)
    if found and int(found[0]) < server_major:
        raise Unreachable(
            f"{program} {found[0]} is older than the server, which is {server_major}",
            f"install the client programs of Postgres {server_major} on this host",
        )


def stream(command, sink=None, source=()):
    """Run a Command to its end, hand what it writes to `sink(bytes)` and give it what `source` yields to read.

    Returns what it said on standard error, as text. Raises ToolFailed where it, or the way to it, did not end well.
    """
    child = processes.start(command.argv, command.env)
    try:
        words = _pump(child, sink or (lambda data: None), iter(source))
        code = child.wait()
    finally:
        processes.kill(child)
    told = TOLD_EXIT.search(words)
    text = TOLD_EXIT.sub(b"", words).decode("utf-8", "replace").strip()
    own_code = int(told[1]) if told else None
    if code or (command.in_container and own_code != 0):
        raise ToolFailed(command.program, code or own_code or -1, text or "the way to it was cut")
    return text


def _pump(child, sink, source):
    """Feed and read a child until it has closed both its outputs; returns what came on standard error."""
    for end in (child.stdin, child.stdout, child.stderr):
        os.set_blocking(end.fileno(), False)
    words, waiting = bytearray(), b""
    while not (child.stdout.closed and child.stderr.closed):
        if not waiting and not child.stdin.closed:
            waiting = next(source, b"")
            if not waiting:
                child.stdin.close()
        ready = _ready(child)
        if child.stdin in ready:
            waiting = _fed(child.stdin, waiting)
        if child.stdout in ready:
            _take(child.stdout, sink)
        if child.stderr in ready:
            _take(child.stderr, words.extend)
            del words[: max(len(words) - KEPT_WORDS, 0)]
    return bytes(words)


def _ready(child):
    poll = select.poll()
    ends = {}
    for end, event in (
        (child.stdin, select.POLLOUT),
        (child.stdout, select.POLLIN),
        (child.stderr, select.POLLIN),
    ):
        if not end.closed:
            ends[end.fileno()] = end
            poll.register(end.fileno(), event)
    return [ends[number] for number, _ in poll.poll()]


def _fed(stdin, waiting):
    """What is left of `waiting` once the child has taken what it takes now."""
    try:
        return waiting[os.write(stdin.fileno(), waiting) :]
    except BlockingIOError:
        return waiting
    except (BrokenPipeError, ConnectionResetError):
        stdin.close()  # it wants no more; its exit code says why
        return b""


def _take(end, sink):
    data = os.read(end.fileno(), CHUNK)
    if data:
        sink(data)
    else:
        end.close()


def failure_of_tool(database, failed):
    """The failure that shows a ToolFailed to a person."""
    words = failed.words
    problem = docker_failure(words, database.reach) if database.reach.kind == "container" else None
    if problem:
        return problem
    if "connection to server" in words or "could not connect" in words:
        return connection_failure(words, database.where)
    lines = [line for line in words.split("\n") if line.strip()]
    last = next((line for line in reversed(lines) if "error:" in line or "fatal:" in line.lower()), "")
    return SqlFailure(
        f"{failed.program} failed ({failed.code}): {last.partition('error: ')[2] or last or 'it said nothing'}",
        excerpt="\n".join(f"  {line}" for line in lines[-10:]) or None,
    )
