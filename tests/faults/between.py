"""A little server before the object store, which does to chosen requests what a test says; what backups then leave."""

from __future__ import annotations

import os
import re
import socket
import time
from typing import TYPE_CHECKING, Any

from bed.little_server import LittleServer, reply

if TYPE_CHECKING:
    from collections.abc import Callable

# 40 MB in a dump that is not compressed: two parts of 16 MiB, and a third.
FILL = "CREATE TABLE t AS SELECT i, repeat(md5(i::text), 640) AS word FROM generate_series(1, 2000) i"
LARGE = ("--compress", "0")
FEW_TRIES = {"STORAGE_TRIES": "3"}
SHORT = {"STORAGE_TIMEOUT": "2"}  # for what is to hang: a loaded machine may move nothing for as long either
BUSY = reply("503 X", "<Error><Code>SlowDown</Code><Message>busy</Message></Error>")
HALF = "half"  # of the request reaches the store, and then the connection is cut
UNHEARD = "unheard"  # the store does what it is asked, and its answer is lost


class Between:
    """Stands before the object store; `strike(connection, line)` may answer a request itself, and says so by True.

    `line` is the request's first line, with the range that is asked for behind it; `seen`, all of them. What it lets
    through meets `damage(line)`: HALF, UNHEARD or None.
    """

    def __init__(self, port):
        self._port = port
        self.mend()
        self.seen = []
        self._server = LittleServer(self._answer)
        self.endpoint = self._server.url("")

    def _answer(self, connection, request):
        line = request.partition(b"\r\n")[0].decode()
        wanted = re.search(rb"\r\nrange: (\S+)", request.partition(b"\r\n\r\n")[0], re.IGNORECASE)
        line += f" {wanted[1].decode()}" if wanted else ""
        self.seen.append(line)
        if self.strike(connection, line):
            return
        damage = self.damage(line)
        with socket.create_connection(("127.0.0.1", self._port)) as server:
            if damage == HALF:
                head = request.index(b"\r\n\r\n")
                server.sendall(request[: (head + len(request)) // 2])
                return
            server.sendall(request)
            while data := server.recv(1 << 16):
                if damage != UNHEARD:
                    connection.sendall(data)

    def mend(self):
        """Let everything pass from now on."""
        self.strike: Callable[..., Any] = lambda connection, line: False
        self.damage: Callable[[str], str | None] = lambda line: None

    def close(self):
        self._server.close()


# Requests.


def part_of(line):
    """The number of the part that a request sends, or 0."""
    found = re.search(r"^PUT .*partNumber=(\d+)", line)
    return int(found[1]) if found else 0


def is_complete(line):
    return line.startswith("POST ") and "uploadId" in line


def is_manifest(line):
    return line.startswith("PUT ") and ".json" in line


# What is done to them.


def close(connection):
    connection.shutdown(socket.SHUT_RDWR)
    return True


def hang(connection):
    time.sleep(4 * float(SHORT["STORAGE_TIMEOUT"]))
    return True


def busy(connection):
    BUSY(connection, b"")
    return True


def times(count, matches, act):
    """A strike that does `act(connection)` to the first `count` requests that match."""
    left = [count]

    def strike(connection, line):
        if left[0] and matches(line):
            left[0] -= 1
            act(connection)
            return True
        return False

    return strike


# What a backup leaves.


def entries(project):
    folder = project.root / ".nself-backups"
    return sorted(os.listdir(folder)) if folder.exists() else []


def check_kept(project, storage, outcome, code=2):
    """The local backup is whole, nothing is in the store, and the way on that is told works."""
    words = check_told(project, outcome, code)
    assert storage.keys() == [] and storage.uploads() == []
    return words


def check_told(project, outcome, code=2):
    """The local backup is whole; returns the words of the command that is told to send it."""
    assert outcome.code == code, repr(outcome)
    error, data = outcome.json()["error"], outcome.json()["data"]
    assert "Traceback" not in outcome.err
    assert f"the backup is whole in {data['file']}, but it was not uploaded" in error["message"]
    assert data["remote"] is None
    name = os.path.basename(data["file"])
    assert entries(project) == [name, name + ".json"]
    project.run("backup", "verify").ok()
    words = re.search(r"nself-db (backup --upload \S+)", error["hint"])
    assert words
    return words[1].split()


def check_nothing(project, storage, outcome, code=2):
    assert outcome.code == code, repr(outcome)
    assert "Traceback" not in outcome.err
    assert entries(project) == [] and storage.keys() == [] and storage.uploads() == []
