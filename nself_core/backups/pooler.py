"""pgBouncer held back while two databases change places: its clients wait, where others are cut off.

A shell of its own pauses, waits for the end of its standard input, and resumes: so the clients do not wait for ever
where this program is killed in between. It runs psql beside the server, as everything does.
"""

from __future__ import annotations

import time
from collections import namedtuple

from nself_core import processes
from nself_core.failures import Failure, Unreachable
from nself_core.postgres import container_clients
from nself_core.postgres.reach import Login, find_psql
from nself_core.postgres.tools import INSTALL
from nself_core.sql.quoting import identifier

PAUSE_SECONDS = 5  # for the transactions under way to end
RESUME_SECONDS = 10
CONNECT_SECONDS = 5
SERVICE, PORT = "pgbouncer", "6432"  # the name of nSelf's service, and its port, in the stack's own network
IN_STACK = {"PGHOST": SERVICE, "PGPORT": PORT}
CONSOLE = "pgbouncer"  # the console's name as a database
OPTIONS = ("-X", "-q", "-w", "-v", "ON_ERROR_STOP=1", "-d", CONSOLE)

# psql sends each command by itself, as the console wants it.
HELD = """
pause=$1 resume=$2; shift 2; exec 3<&0
printf '%s\\n' "$pause" | "$@" 3<&- >&2 & child=$!
(read -r line <&3; kill "$child") >/dev/null 2>&1 & guard=$!
exec 3<&-
wait "$child"; echo "nself-paused $?"
wait "$guard" 2>/dev/null
printf '%s\\n' "$resume" | "$@" >&2; echo "nself-resumed $?"
"""

Console = namedtuple("Console", "start argv env")
Console.__doc__ = "psql on pgBouncer's console: what stands before a program (docker exec …), its `argv` and `env`."


def is_enabled(settings):
    """Whether the settings say that there is a pgBouncer."""
    return (settings.get("PGBOUNCER_ENABLED") or "").strip().lower() in ("1", "true", "yes", "on")


def console_of(database):
    """The Console of the pgBouncer that the settings enable, or None. Raises Unreachable where there is no psql."""
    settings = database.settings
    if not is_enabled(settings):
        return None
    host, port = settings.get("PGBOUNCER_HOST"), settings.get("PGBOUNCER_PORT") or PORT
    login = Login(settings.get("PGBOUNCER_ADMIN_USER") or CONSOLE, settings.get("PGBOUNCER_ADMIN_PASSWORD") or "")
    common = {"PGCONNECT_TIMEOUT": str(CONNECT_SECONDS), "LC_ALL": "C"}
    if database.reach.kind == "container":
        place = {"PGHOST": host, "PGPORT": port} if host else IN_STACK
        return _in_container(database.reach, {**place, **common}, login)
    path = find_psql()
    if not path:
        failure = Unreachable("there is no psql on this host", INSTALL)
        there, place = container_clients.way_to(settings, (host, port) if host else None, failure)
        return _in_container(there, {**(place or IN_STACK), **common}, login)
    place = {"PGHOST": host or "localhost", "PGPORT": port, **common}
    others = {"PGHOSTADDR": None, "PGSERVICE": None, "PGOPTIONS": None}
    env = processes.child_env({**place, **others, "PGUSER": login.user, "PGPASSWORD": login.password or None})
    return Console([], [path, *OPTIONS], env)


def _in_container(reach, variables, login):
    """The Console by the psql of a ContainerReach."""
    argv, env = reach.command("psql", variables, login)
    return Console(argv[:-1], ["psql", *OPTIONS], env)


def names_of(console, name):
    """What pgBouncer calls the database `name`, which may be several names. Raises Unreachable with its words."""
    import csv

    argv = [*console.start, *console.argv, "--csv", "-c", "SHOW DATABASES"]
    done = processes.run(argv, console.env, timeout=2 * CONNECT_SECONDS)
    if done.code:
        raise Unreachable(_last_line(done.err))
    return [row["name"] for row in csv.DictReader(done.out.splitlines()) if row["database"] == name]


def _last_line(words):
    lines = [line for line in words.strip().split("\n") if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"


class Paused:
    """While it lasts, pgBouncer lets no client at the database `name`, where there is a pgBouncer.

    Arguments: `database`, with the settings; `tell(text)`, progress. `warnings` says what could not be had: a swap
    without a pause is a swap all the same.
    """

    def __init__(self, database, name, tell):
        self._database = database
        self._name = name
        self._tell = tell
        self._child: processes.Child | None = None
        self._heard = b""
        self.warnings: list = []

    def __enter__(self):
        try:
            self._hold()
        except BaseException:  # a signal, say: what it has begun is taken back
            self.end()
            raise
        return self

    def _hold(self):
        try:
            console = console_of(self._database)
            names = names_of(console, self._name) if console else []
            if names:
                self._tell(f"pausing pgBouncer for {self._name}")
                self._pause(console, names)
        except Failure as failure:
            self.warnings.append(f"pgBouncer was not paused, and its clients were cut off: {failure.message}")

    def _pause(self, console, names):
        pause, resume = ("\n".join(f"{word} {identifier(name)};" for name in names) for word in ("PAUSE", "RESUME"))
        argv = [*console.start, "sh", "-c", HELD, "sh", pause, resume, *console.argv]
        self._child = processes.start(argv, console.env)
        code = self._answer(self._child.stdout, b"nself-paused ", PAUSE_SECONDS)
        if code is None:
            told = f"transactions that go through pgBouncer took longer than {PAUSE_SECONDS} s, and were cut off"
            self.warnings.append(told)
        elif code:
            self.warnings.append("pgBouncer was not paused, and its clients were cut off")

    def _answer(self, pipe, word, seconds):
        """The exit code that the shell tells behind `word`, None where it takes longer than `seconds`."""
        import os
        import select

        deadline = time.monotonic() + seconds
        while True:
            _, found, rest = self._heard.partition(word)
            if found and b"\n" in rest:
                return int(rest.partition(b"\n")[0])
            ready = select.select([pipe], [], [], max(deadline - time.monotonic(), 0))[0]
            data = os.read(pipe.fileno(), 4096) if ready else b""
            if not data:
                return None
            self._heard += data

    def __exit__(self, *_):
        self.end()

    def end(self):
        """Let the clients in again, whatever signals come; once done, it does nothing."""
        if self._child is None:
            return
        with processes.Undisturbed():
            child, self._child = self._child, None
            child.stdin.close()
            self._tell(f"letting pgBouncer go on with {self._name}; this cannot be interrupted")
            if self._answer(child.stdout, b"nself-resumed ", RESUME_SECONDS) != 0:
                self.warnings.append(f'pgBouncer may still be paused: give its console RESUME "{self._name}"')
            processes.kill(child)
