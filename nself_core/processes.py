"""Every child process of the program goes through here: docker, psql, pg_ctl, node, git.

A child gets an environment of our making, never a secret in its arguments, and a group of its own, so that
Ctrl-C on the terminal reaches this program alone, which then decides what the child may finish.
"""

from __future__ import annotations

import os
import sys
from collections import namedtuple

from nself_core.failures import Unreachable

Completed = namedtuple("Completed", "code out err")
Completed.__doc__ = "What a finished child left: exit `code`, `out` and `err` as text."


def child_env(extra=None, environ=None):
    """The environment for a child process.

    Arguments: `extra`, names and values to add (None removes a name); `environ`, the base, by default ours.
    A PyInstaller binary points LD_LIBRARY_PATH at its own libraries, which breaks psql, git and ssh: the
    value from before is put back (PyInstaller manual, "LD_LIBRARY_PATH / LIBPATH considerations").
    """
    env = dict(os.environ if environ is None else environ)
    if getattr(sys, "frozen", False):
        env.pop("LD_LIBRARY_PATH", None)
        original = env.pop("LD_LIBRARY_PATH_ORIG", None)
        if original:
            env["LD_LIBRARY_PATH"] = original
    for name, value in (extra or {}).items():
        if value is None:
            env.pop(name, None)
        else:
            env[name] = value
    return env


def find_program(name):
    """The path of the program `name` on PATH, or None; shutil.which would cost 2 ms of imports."""
    places = [os.path.join(folder, name) for folder in os.get_exec_path()]
    return next((path for path in places if os.path.isfile(path) and os.access(path, os.X_OK)), None)


class Child:
    """A running child with pipes on its three streams: what a session needs of subprocess.Popen.

    Importing subprocess costs 4 ms, which is much of a command that asks one question. Arguments as for `start`.
    """

    def __init__(self, argv, env):
        import signal

        self.returncode = None
        (theirs_in, ours_in), (ours_out, theirs_out), (ours_err, theirs_err) = _pipe(), _pipe(), _pipe()
        theirs = (theirs_in, theirs_out, theirs_err)
        try:
            self.pid = os.posix_spawnp(
                argv[0],
                argv,
                env,
                file_actions=[(os.POSIX_SPAWN_DUP2, handle, number) for number, handle in enumerate(theirs)],
                setsid=True,
                # Python ignores these two, and what is ignored stays so in a child.
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
            )
        except BaseException:
            for handle in (ours_in, ours_out, ours_err):
                os.close(handle)
            raise
        finally:
            for handle in theirs:
                os.close(handle)
        self.stdin, self.stdout, self.stderr = map(_stream, (ours_in, ours_out, ours_err), ("wb", "rb", "rb"))

    def poll(self):
        """The exit code, or None while it runs; a child that a signal ended has the signal's number, negative."""
        return self._collect(os.WNOHANG)

    def wait(self):
        """Wait for its end and return the exit code."""
        return self._collect(0)

    def _collect(self, flags):
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, flags)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def kill(self):
        """End it at once."""
        if self.poll() is None:
            os.kill(self.pid, 9)


def _stream(handle, mode):
    return open(handle, mode, buffering=0)


def _pipe():
    """A pipe's two ends. Where a standard stream of ours is closed, an end could take its number: it gets another."""
    ends = os.pipe()
    if min(ends) > 2:
        return ends
    import fcntl

    moved = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 3) for end in ends)
    for end in ends:
        os.close(end)
    return moved


def start(argv, env=None):
    """Start `argv` with pipes on its three streams (bytes) and return the Child.

    Argument: `env`, the whole environment, by default `child_env()`. Raises Unreachable when the program is not there
    or may not be run.
    """
    try:
        return Child(argv, env or child_env())
    except OSError as error:
        raise _start_failure(argv, error) from None


def _start_failure(argv, error):
    if isinstance(error, FileNotFoundError):
        return Unreachable(f"the program {argv[0]} was not found", f"install {argv[0]}, or put it on PATH")
    return Unreachable(f"the program {argv[0]} could not be started: {error.strerror}")


def attach(argv, env=None):
    """Start `argv` and return a socket that is its standard input and output; it ends when the socket is closed.

    What it says on standard error is not heard. Raises Unreachable when it cannot be started.
    """
    import socket
    import subprocess
    import threading

    ours, theirs = socket.socketpair()
    try:
        child = _popen(argv, env, {"stdin": theirs, "stdout": theirs, "stderr": subprocess.DEVNULL})
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    threading.Thread(target=child.wait, daemon=True).start()  # collects it
    return ours


def run(argv, env=None, input=None, timeout=None, **options):
    """Run `argv` to its end and return Completed.

    Arguments: `input`, text for its standard input; `timeout`, seconds after which it is killed;
    `options`, passed to Popen (cwd, user, group…). Raises Unreachable when it cannot be started or takes longer.
    """
    import subprocess

    child = _popen(argv, env, options)
    try:
        out, err = child.communicate(None if input is None else input.encode(), timeout)
    except subprocess.TimeoutExpired:
        _kill_group(child)
        raise Unreachable(f"{os.path.basename(argv[0])} gave no answer within {timeout} seconds") from None
    except BaseException:
        _kill_group(child)
        raise
    return Completed(child.returncode, _text(out), _text(err))


def serve(argv, log, is_ready, **options):
    """Start a server that outlives us, and wait until it is ready. Returns False when it ended instead.

    Arguments: `log`, the handle of a file for what it says; `is_ready()`, asked until it is true; `options`, as for
    `run`. Interrupted meanwhile, or where `is_ready` raises, it is told to end (SIGINT) and waited for: it is known
    from the moment it is there, for signals are held back while it is being started. Raises Unreachable when it cannot
    be started.
    """
    import signal
    import subprocess
    import threading
    import time

    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    try:
        child = _popen(argv, None, {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, **options})
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        while not is_ready():
            if child.poll() is not None:
                return False
            time.sleep(0.02)
    except BaseException:
        child.send_signal(signal.SIGINT)
        child.wait()
        raise
    threading.Thread(target=child.wait, daemon=True).start()  # collects it
    return True


def _popen(argv, env, options):
    import subprocess

    pipes: dict = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    pipes.update(options)
    try:
        return subprocess.Popen(argv, env=env or child_env(), start_new_session=True, **pipes)
    except OSError as error:
        folder = options.get("cwd") or "."
        if not os.path.isdir(folder):
            raise Unreachable(f"the folder {folder} is not there") from None
        raise _start_failure(argv, error) from None


def kill(child):
    """End a child and collect it; does nothing when it has ended."""
    if child.poll() is None:
        child.kill()
    for stream in (child.stdin, child.stdout, child.stderr):
        if stream:
            _close(stream)
    child.wait()


def _kill_group(child):
    """End a child of `run` with all that it has started: a node or tsx may be a script that runs the real one."""
    import signal

    if child.returncode is None:  # and so its number is not yet another's
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # all of them have ended, or run as another user: `kill` does what can be done
    kill(child)


def replace(argv, env):
    """Run `argv` on our own terminal streams and return its exit code: an interactive program such as psql.

    One that a signal ended counts as 128 and the signal's number, as in a shell.

    Ctrl-C belongs to the child while it runs, as it would without us.
    """
    import signal
    import subprocess

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code = subprocess.call(argv, env=env, preexec_fn=_default_interrupt)
        return code if code >= 0 else 128 - code
    except FileNotFoundError:
        raise Unreachable(f"the program {argv[0]} was not found", f"install {argv[0]}, or put it on PATH") from None
    finally:
        signal.signal(signal.SIGINT, before)


def ignore_interrupts():
    """From here on a signal comes too late: what was done is done, and is told."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


TERM_SECONDS = 10  # how long a command that was told to end may take before it is killed


def attend(argv, env, quiet_stdout=False):
    """Run a command on our own streams, as a shell would, and return its exit code when it has ended.

    Arguments: `quiet_stdout`, whether its standard output goes to our standard error. The command is in our process
    group: Ctrl-C on the terminal reaches it without us, and it decides what to do about it. Told to end ourselves
    (SIGTERM, SIGHUP, or SIGINT without a terminal), we pass it on, and kill what goes on for TERM_SECONDS; after SIGINT
    it may take its time. One that a signal ended counts as 128 and the signal's number. Raises Unreachable when it
    cannot be started.
    """
    import subprocess

    with _Passing() as passing:
        try:
            child = subprocess.Popen(argv, env=env, stdout=2 if quiet_stdout else None)
        except OSError as error:
            raise _start_failure(argv, error) from None
        passing.to(child)
        code = None
        while code is None:
            try:
                code = child.wait(TERM_SECONDS)
            except subprocess.TimeoutExpired:
                if passing.ends:
                    child.kill()
    return code if code >= 0 else 128 - code


class Undisturbed:
    """While it lasts, signals that would end us are not heard: what cleans up behind a run must come to its end."""

    def __enter__(self):
        import signal

        self._signal = signal
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        self._before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            self._signal.signal(number, handler)


class Heeded:
    """While it lasts, signals that would end us do not: each calls `act`, a function, where there is one.

    `told` says whether one came. What is called must raise nothing: it may stand between any two steps of a work.
    """

    def __init__(self):
        self.told = False
        self.act = None
        self._before = {}

    def __enter__(self):
        import signal

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._heard)
        return self

    def __exit__(self, *_):
        import signal

        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _heard(self, *_):
        self.told = True
        act, self.act = self.act, None  # who presses the keys again does not have it done within itself
        if act:
            act()
        self.act = act


class _Passing:
    """While it lasts, signals that would end us are passed on to a child.

    `told`, those that came. One that comes before the child is there is passed on as soon as it is. `ends`, whether one
    of them leaves no choice.
    """

    def __init__(self):
        import signal

        self._signal = signal
        self._child = None
        self._before = {}
        self.told = []

    def __enter__(self):
        for number in (self._signal.SIGINT, self._signal.SIGTERM, self._signal.SIGHUP):
            self._before[number] = self._signal.signal(number, self._heard)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            self._signal.signal(number, handler)

    @property
    def ends(self):
        return any(number != self._signal.SIGINT for number in self.told)

    def to(self, child):
        self._child = child
        for number in self.told:
            child.send_signal(number)

    def _heard(self, number, _frame):
        if number == self._signal.SIGINT and any(os.isatty(stream) for stream in (0, 1, 2)):
            return  # the terminal has told the child as well
        self.told.append(number)
        if self._child:
            self._child.send_signal(number)


def _default_interrupt():
    import signal

    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _text(data):
    return (data or b"").decode("utf-8", "replace")


def _close(stream):
    try:
        stream.close()
    except OSError:
        pass
