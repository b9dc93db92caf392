"""Postgres' client programs, run beside the server: pg_dump, pg_restore, pg_dumpall.

In a container they are the server's own. By a URL they are the host's, and one that is older than the server is
refused; where there is none that will do, those of the project's container (container_clients). What they write is
handed on in pieces; what they say is kept to its end.
"""

from __future__ import annotations

import os
import re
import select
import time
from collections import namedtuple

from nself_core import processes
from nself_core.failures import SqlFailure, Unreachable
from nself_core.postgres.database import NO_PARAMETERS, OWN_LOGIN, docker_failure
from nself_core.postgres.errors import connection_failure
from nself_core.postgres.reach import find_psql
from nself_core.postgres.toolchain import find_clients

CHUNK = 1 << 18
PIPE_BYTES = 1 << 20
GATHER_SECONDS = 0.01
IDLE_SECONDS = 1
SET_PIPE_SIZE = 1031  # fcntl.F_SETPIPE_SZ, which Python names since 3.10
KEPT_WORDS = 64 << 10  # bytes of what a program says; of more, the last are kept

# In a container the program's own exit code is told, too: that of `docker exec` may be of its own making.
IN_CONTAINER = 'program=$1; shift; "$program" "$@"; code=$?; echo "nself-exit $code" >&2; exit $code'
# A dump must not go on when we are gone, in a container neither, where the end of `docker exec` ends nothing. So a
# shell waits for the end of its standard input, on which nothing ever comes, and then ends the program, which on
# SIGTERM cancels what the server does for it. The shell waits for all it has started: a process that is left to the
# container's first one, which is Postgres, and then ended by a signal, is to Postgres a crash of its own.
WATCHED = (
    'program=$1; shift; case ${program##*/} in pg_dump) echo "nself-program $("$program" --version)" >&2;; esac; '
    'exec 3<&0; "$program" "$@" 3<&- </dev/null & child=$!; '
    '(read -r line <&3; kill "$child") >/dev/null 2>&1 & guard=$!; '
    'exec 3<&-; wait "$child"; code=$?; { kill "$guard"; wait "$guard"; } 2>/dev/null; '
    'echo "nself-exit $code" >&2; exit $code'
)
# The same for a program that is given a dump to read, `$size` bytes of it, behind which our end of the pipe stays open
# until the program has ended: by "pipe" on its standard input, by "file" or "folder" (of a tar) as its last argument.
# SIGPIPE is ignored, so that what may be left to the container's first process ends by itself, with an exit code.
FED = """
size=$1 how=$2 program=$3; shift 3; trap '' PIPE
folder=$(mktemp -d) || exit 1; trap 'rm -rf "$folder"' EXIT
exec 3<&0
case $how in
pipe) mkfifo "$folder/dump" ;;
file) head -c "$size" <&3 >"$folder/dump" && set -- "$@" "$folder/dump" ;;
folder) mkdir "$folder/dump" && head -c "$size" <&3 | tar -C "$folder/dump" -xf - && set -- "$@" "$folder/dump" ;;
esac || { code=$?; echo "nself-exit $code" >&2; exit $code; }
if [ $how = pipe ]; then "$program" "$@" 3<&- <"$folder/dump" & else "$program" "$@" 3<&- </dev/null & fi
child=$!
(
    if [ $how = pipe ]; then
        head -c "$size" <&3 >"$folder/dump" & feeder=$!
        trap 'kill "$feeder"; wait "$feeder"; exit' TERM; wait "$feeder"; trap - TERM
    fi
    read -r line <&3; kill "$child"
) >/dev/null 2>&1 & guard=$!
exec 3<&-
wait "$child"; code=$?
{ kill "$guard"; wait "$guard"; } 2>/dev/null
echo "nself-exit $code" >&2; exit $code
"""
# A dump's text between two of ours, all into one psql: it commits what it is told to commit at the end, and what goes
# wrong before keeps that end from it. What tells of that is made at the beginning, and renamed or taken away when it is
# done: on a disk that is full by then nothing could be made.
JOINED = """
size=$1 how=$2 before=$3 after=$4 lines=$5 reader=$6; shift 6; trap '' PIPE
folder=$(mktemp -d) || exit 1; trap 'rm -rf "$folder"' EXIT
echo 1 >"$folder/unread" && : >"$folder/unsaid" && : >"$folder/undone" || exit 1
exec 3<&0; dump=$how
case $how in pipe | folder) dump=$folder/dump; mkfifo "$dump" || exit ;; esac
read_dump() {
    case $reader,$how in
    ,*) cat <"$dump" ;;
    *,pipe) "$reader" --file=- <"$dump" ;;
    *,folder) mkdir "$folder/files" && tar -C "$folder/files" -xf - <"$dump" && "$reader" --file=- "$folder/files" ;;
    *) "$reader" --file=- "$dump" ;;
    esac && mv "$folder/unread" "$folder/read" || echo $? >"$folder/unread"
}
{
    printf '%s' "$before"
    read_dump | sed "$lines" && [ -e "$folder/read" ] && printf '%s' "$after" && mv "$folder/unsaid" "$folder/said"
    rm "$folder/undone"
} 3<&- </dev/null | "$@" 3<&- &
child=$!
(
    if [ -p "$dump" ]; then
        head -c "$size" <&3 >"$dump" & feeder=$!
        trap 'kill "$feeder"; wait "$feeder"; exit' TERM; wait "$feeder"; trap - TERM
    fi
    read -r line <&3; kill "$child"
) >/dev/null 2>&1 & guard=$!
exec 3<&-
wait "$child"; code=$?
{ kill "$guard"; wait "$guard"; } 2>/dev/null
# Whoever opens the pipe only now would wait for ever for one who writes.
while [ -e "$folder/undone" ]; do [ ! -p "$dump" ] || : <>"$dump"; sleep 0.1; done
wait
if [ $code -eq 0 ] && [ ! -e "$folder/said" ]; then code=$(cat "$folder/unread" 2>/dev/null); code=${code:-1}; fi
echo "nself-exit $code" >&2; exit $code
"""
PIPE, FILE, FOLDER = "pipe", "file", "folder"
TOLD_EXIT = re.compile(rb"^nself-exit (\d+)\s*\Z", re.MULTILINE)
TOLD_PROGRAM = re.compile(r"^nself-program (.*)\n?", re.MULTILINE)
NO_SUCH_PROGRAM = 127  # a shell's exit code
SIGNALS = 128  # to which a shell adds the number of the signal that ended a program
END_SECONDS = 5
LOOK_SECONDS = 0.05  # between two questions to a source that has nothing to give yet
INSTALL = "install Postgres' client programs"

Command = namedtuple("Command", "program argv env in_container watched", defaults=(False,))
Command.__doc__ = """A client program ready to run.

`in_container`, whether it runs there and tells its own exit code; `watched`, whether a shell beside it ends it when we
are gone and tells its exit code: its standard input then stays open until it has ended.
"""


class ToolFailed(Exception):
    """A client program did not end well: `program`, its exit `code`, and the `words` it said.

    `told` says whether the code is the program's own; otherwise the way to it was cut, or never there.
    """

    def __init__(self, program, code, words, told=True):
        super().__init__(f"{program} ended with {code}: {words}")
        self.program = program
        self.code = code
        self.words = words
        self.told = told


_Start = namedtuple("_Start", "before program after env in_container")
_Start.__doc__ = """How a client program is started on a database.

What stands before it (docker exec …), its name or path, its arguments for the server, and the environment.
"""


def command_of(database, program, arguments, server_version=None, watched=False, fed=None):
    """The Command that runs a client program on the database.

    Arguments: `arguments`, a list of texts; `server_version`, the server's server_version_num, where a program older
    than the server will not do; `watched`, whether it ends when we are gone, for one that reads nothing; `fed`, the
    same for one that reads a dump: PIPE, FILE or FOLDER, and the number of bytes that `stream` will give it. Raises
    Unreachable where there is none, or it is too old.
    """
    start = _start(database, program, server_version)
    shell = ["sh", "-c", FED, "sh", str(fed[1]), fed[0]] if fed else ["sh", "-c", WATCHED, "sh"] if watched else []
    if start.in_container:
        shell = shell or ["sh", "-c", IN_CONTAINER, "sh"]
    argv = [*start.before, *shell, start.program, *start.after, *arguments]
    return Command(program, argv, start.env, start.in_container, bool(watched or fed))


def runs_in_container(database, program, server_version=None, also=None):
    """Whether `command_of` would run a client program in a container. Raises what that raises.

    Argument: `also`, another that is wanted beside it, as a reader is by `joined_command`.
    """
    return _start(database, program, server_version, also).in_container


def scripted(database, program, script, arguments, server_version):
    """The watched Command of a shell script in the place of a client program, which is given its arguments."""
    start = _start(database, program, server_version)
    argv = [*start.before, "sh", "-c", WATCHED, "sh", "sh", "-c", script, "sh", *start.after, *arguments]
    return Command(program, argv, start.env, start.in_container, True)


def shell_beside(database, program, server_version=None, also=None):
    """What starts a shell where a client program would run, to be given a script, and its environment.

    Arguments: as of `runs_in_container`. For what is asked once, and ends soon.
    """
    start = _start(database, program, server_version, also)
    return [*start.before, "sh", "-c"], start.env


def joined_command(database, reader, fed, before, after, lines):
    """The Command of one psql on the database, which is given `before`, the text of a dump, and `after`.

    Arguments: `reader`, "pg_restore" or None for a dump that is text; `fed`, the number of bytes that `stream` will
    give it and PIPE or FOLDER, or 0 and the path of a dump on this host, where `runs_in_container` says that the
    programs are its own; `lines`, what sed does to the text.
    """
    start = _start(database, "psql", None, also=reader)
    if reader and not start.in_container:
        reader = offline_command(database, reader, []).argv[0]
    shell = ["sh", "-c", JOINED, "sh", str(fed[0]), fed[1], before, after, lines, reader or ""]
    options = ["-X", "-q", "-w", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose", "-o", "/dev/null", "-f", "-"]
    argv = [*start.before, *shell, start.program, *start.after, *options]
    return Command("psql", argv, start.env, start.in_container, True)


def _start(database, program, server_version, also=None):
    """The _Start of a client program; `also`, another that is wanted at the same place."""
    reach = database.reach
    if reach.kind == "url":
        return _start_by_url(database, program, (server_version or 0) // 10000, also)
    argv, env = reach.command(program, database.variables(NO_PARAMETERS), OWN_LOGIN)
    return _Start(argv[:-1], argv[-1], [], env, reach.kind == "container")


def _start_by_url(database, program, server_major, also):
    """That of this host's program; where it has none that will do, that of the project's container."""
    variables = database.variables(NO_PARAMETERS)
    try:
        path = _on_host(program, server_major)
        if also:
            _on_host(also, 0)
    except Unreachable as failure:
        from nself_core.postgres import container_clients

        place = container_clients.place_of(database, program, server_major, failure)
        before, after, env = container_clients.started(database.reach, place, variables, OWN_LOGIN)
        return _Start(before, program, after, env, True)
    argv, env = database.reach.command(program, variables, OWN_LOGIN)
    return _Start([], path, argv[1:], env, False)


def _on_host(program, server_major):
    """The path of a client program on this host that is not older than the server."""
    known = [path for path in [find_psql()] if path] if program == "psql" else find_clients(program, server_major)
    if not known:
        raise Unreachable(f"there is no {program} on this host", INSTALL)
    return _new_enough(known, program, server_major) if server_major else known[0]


def offline_command(database, program, arguments):
    """The Command of a client program that needs no server: of a container where one is meant, else the host's.

    With a URL and none on this host it is that of the project's container.
    """
    reach = database.reach
    if reach.kind == "container":
        return command_of(database, program, arguments)
    path = os.path.join(reach.server.bin_folder, program) if reach.kind == "embedded" else find_client(program)
    if path:
        return _offline(program, path, arguments)
    failure = Unreachable(f"there is no {program} on this host", INSTALL)
    if reach.kind != "url":
        raise failure
    return container_command(database, program, arguments, failure)


def container_command(database, program, arguments, failure):
    """The Command of a program of the project's container that needs no server, for a database by URL.

    Raises Unreachable with the words of `failure`, why it is not this host's, where there is none either.
    """
    from nself_core.postgres import container_clients

    before, env = container_clients.offline(database.settings, failure)
    return Command(program, [*before, "sh", "-c", IN_CONTAINER, "sh", program, *arguments], env, True)


def host_command(program, arguments):
    """The Command of a client program of this host that needs no server, or None where there is none."""
    path = find_client(program)
    return _offline(program, path, arguments) if path else None


def _offline(program, path, arguments):
    return Command(program, [path, *arguments], processes.child_env({"LC_ALL": "C"}), False)


def find_client(program):
    """The path of a client program on this host, the newest there is, or None."""
    return next(iter(find_clients(program)), None)


def _new_enough(paths, program, server_major):
    """The first of the programs that is not older than the server."""
    majors = []
    for path in paths:
        majors.append(_major(path))
        if majors[-1] is None or majors[-1] >= server_major:
            return path
    raise Unreachable(
        f"{program} {max(majors)} is older than the server, which is {server_major}",
        f"install the client programs of Postgres {server_major} on this host",
    )


def _major(path):
    found = re.search(r"\d+", processes.run([path, "--version"], timeout=30).out)
    return int(found[0]) if found else None


def stream(command, sink=None, source=(), idle=None):
    """Run a Command to its end, hand what it writes to `sink(bytes)` and give it what `source` yields to read.

    A source that yields None has nothing to give yet: it is asked again in a moment, unless the program has ended.
    Argument: `idle()`, called each second in which it writes and takes nothing: it may wait for a lock. Returns what it
    said on standard error, as text. Raises ToolFailed where it, or the way to it, did not end well.
    """
    child = processes.start(command.argv, command.env)
    try:
        words = _pump(child, sink or (lambda data: None), iter(source), command.watched, idle)
        code = child.wait()
    except BaseException:
        _end(child)
        raise
    finally:
        processes.kill(child)
    told = TOLD_EXIT.search(words)
    text = TOLD_EXIT.sub(b"", words).decode("utf-8", "replace").strip()
    own_code = int(told[1]) if told else None
    tells = command.in_container or command.watched
    if code or (tells and own_code != 0):
        text = TOLD_PROGRAM.sub("", text).strip()
        raise ToolFailed(command.program, own_code or code or -1, text, not tells or own_code is not None)
    return text


def _end(child):
    """Let a child end by itself: it finds its ends closed, and has a while to tell the server."""
    for stream_end in (child.stdin, child.stdout, child.stderr):
        if not stream_end.closed:
            stream_end.close()
    deadline = time.monotonic() + END_SECONDS
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


def _pump(child, sink, source, stays_open, idle):
    """Feed and read a child until it has closed both its outputs; returns what came on standard error.

    Arguments: `stays_open`, whether its standard input stays open for as long; `idle`, as of `stream`.
    """
    for end in (child.stdin, child.stdout, child.stderr):
        os.set_blocking(end.fileno(), False)
    words, feeds = bytearray(), True
    waiting: bytes | None = b""
    gathering = _Gathering(child.stdout)
    _enlarge(child.stdin)
    while not (child.stdout.closed and child.stderr.closed):
        if feeds and not waiting and not child.stdin.closed:
            waiting = next((data for data in source if data is None or data), b"")
            feeds = waiting != b""
            if not feeds and not stays_open:
                child.stdin.close()
        looks_again = waiting is None
        patience = LOOK_SECONDS if looks_again else IDLE_SECONDS if idle else None
        ready = _ready(child, feeds and not looks_again, patience)
        if idle and not (ready or looks_again):
            idle()
        if child.stdin in ready:
            waiting = _fed(child.stdin, waiting)
        if child.stdout in ready:
            gathering.heard(_take(child.stdout, sink))
        if child.stderr in ready:
            _take(child.stderr, words.extend)
            del words[: max(len(words) - KEPT_WORDS, 0)]
    if not child.stdin.closed:
        child.stdin.close()
    return bytes(words)


def _ready(child, feeds, patience):
    """The ends of a child's pipes at which there is something to do, none after so many seconds, or None, without."""
    poll = select.poll()
    ends = {}
    for end, event in (
        *([(child.stdin, select.POLLOUT)] if feeds else []),
        (child.stdout, select.POLLIN),
        (child.stderr, select.POLLIN),
    ):
        if not end.closed:
            ends[end.fileno()] = end
            poll.register(end.fileno(), event)
    return [ends[number] for number, _ in poll.poll(None if patience is None else patience * 1000)]


def _fed(stdin, waiting):
    """What is left of `waiting` once the child has taken what it takes now."""
    try:
        return memoryview(waiting)[os.write(stdin.fileno(), waiting) :]  # a view: the rest is not copied each time
    except BlockingIOError:
        return waiting
    except (BrokenPipeError, ConnectionResetError):
        stdin.close()  # it wants no more; its exit code says why
        return b""


def _take(end, sink):
    """Hand on what is there to read, and return how many bytes that was, 0 at the end."""
    data = os.read(end.fileno(), CHUNK)
    if data:
        sink(data)
    else:
        end.close()
    return len(data)


class _Gathering:
    """Lets a program's output gather in its pipe, so that it is read in large pieces.

    pg_dump writes 4 KiB at a time, and each would wake us beside a program that wants the processor itself: a third of
    what a backup costs beyond its pg_dump. The pauses are so short that the pipe, made larger, does not fill up.
    """

    def __init__(self, end):
        self._pause = GATHER_SECONDS if _enlarge(end) else 0
        self._gathered = 0

    def heard(self, size):
        """Take note that `size` bytes were read, and pause where they were few."""
        self._gathered += size
        if self._pause and 0 < size < CHUNK // 4:
            half_full = self._gathered >= PIPE_BYTES // 2
            self._pause = self._pause / 2 if half_full else min(self._pause * 2, GATHER_SECONDS)
            self._gathered = 0
            time.sleep(self._pause)


def _enlarge(end):
    """Whether a pipe now takes PIPE_BYTES."""
    import fcntl

    try:
        return fcntl.fcntl(end.fileno(), SET_PIPE_SIZE, PIPE_BYTES) >= PIPE_BYTES
    except OSError:
        return False  # no Linux, or the user's pipes have no more room


# What libpq and the server say when a connection is not there, or no longer.
LOST = (
    "connection to server",
    "could not connect to",
    "server closed the connection",
    "terminating connection due to",
    "connection has been closed unexpectedly",
    "could not receive data from server",
    "could not send data to server",
    "no connection to the server",
    "the database system is",
)
PREFIX = re.compile(r"^pg_\w+: (?:error: |detail: )?", re.MULTILINE)
# The system's words, and the hint of a server that could write a part of a page only.
NO_ROOM = ("No space left on device", "HINT:  Check free disk space.")


def failure_of_tool(database, failed):
    """The failure that shows a ToolFailed to a person."""
    words, where = failed.words, database.where
    lines = [line for line in words.split("\n") if line.strip()]
    if not failed.told:
        container = database.reach if database.reach.kind == "container" else getattr(database.reach, "place", None)
        problem = docker_failure(words, container) if container else None
        cut = f"{failed.program} was cut off: {lines[-1].strip() if lines else where}"
        return problem or Unreachable(cut, "see whether the server still runs, and try again")
    if failed.code < 0 or failed.code > SIGNALS:
        return Unreachable(f"{failed.program} was ended by signal {abs(failed.code) % SIGNALS}: {where}", "try again")
    if failed.code == NO_SUCH_PROGRAM:
        return Unreachable(f"there is no {failed.program}: {where}", INSTALL)
    if any(told in words for told in NO_ROOM):
        return Unreachable(f"the disk is full: {where}: {_cause(lines)}", "make room")
    if any(lost in words for lost in LOST):
        return connection_failure(PREFIX.sub("", words), where)
    return SqlFailure(
        f"{failed.program} failed ({failed.code}): {_cause(lines)}",
        excerpt="\n".join(f"  {line}" for line in lines[-10:]) or None,
    )


def _cause(lines):
    """The first of the errors: what follows it (a worker that died, a transaction that is aborted) comes of it."""
    first = next((line for line in lines if "error:" in line or "fatal:" in line.lower()), lines[-1] if lines else "")
    return first.partition("error: ")[2] or first or "it said nothing"


def program_version(words):
    """The version that a watched pg_dump told of itself among the `words` of `stream`, and the words without it."""
    found = TOLD_PROGRAM.search(words)
    return (found[1].strip() if found else None), TOLD_PROGRAM.sub("", words).strip()
