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


def start(argv, env=None, **options):
    """Start `argv` with pipes on its three streams (bytes) and return the Popen.

    Arguments: `env`, the whole environment (see `child_env`); `options`, passed to Popen (cwd, stdin, user…).
    Raises Unreachable when the program is not there or may not be run.
    """
    import subprocess

    pipes: dict = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    pipes.update(options)
    try:
        return subprocess.Popen(argv, env=env or child_env(), start_new_session=True, **pipes)
    except FileNotFoundError:
        if not os.path.isdir(options.get("cwd") or "."):
            raise Unreachable(f"the folder {options.get('cwd')} is not there") from None
        raise Unreachable(f"the program {argv[0]} was not found", f"install {argv[0]}, or put it on PATH") from None
    except OSError as error:
        raise Unreachable(f"the program {argv[0]} could not be started: {error.strerror}") from None


def run(argv, env=None, input=None, timeout=None, **options):
    """Run `argv` to its end and return Completed.

    Arguments: `input`, text for its standard input; `timeout`, seconds after which it is killed;
    `options`, passed to Popen (cwd, user, group…). Raises Unreachable when it cannot be started or takes longer.
    """
    import subprocess

    child = start(argv, env, **options)
    try:
        out, err = child.communicate(None if input is None else input.encode(), timeout)
    except subprocess.TimeoutExpired:
        kill(child)
        raise Unreachable(f"{os.path.basename(argv[0])} gave no answer within {timeout} seconds") from None
    except BaseException:
        kill(child)
        raise
    return Completed(child.returncode, _text(out), _text(err))


def kill(child):
    """End a child and collect it; does nothing when it has ended."""
    if child.poll() is None:
        child.kill()
    for stream in (child.stdin, child.stdout, child.stderr):
        if stream:
            _close(stream)
    child.wait()


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
