"""The embedded server, as far as the bed must know it: nself-db starts it, the bed calls nself-db in a child process.

One server a version serves the whole run: it belongs to a project of the bed's own, and a test's project borrows it
by a link named .nself. The link is followed by nself-db before it names the socket, so both find the same server.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from .clusters import Cluster
from .local_processes import wait_until, wheel_folder

REPOSITORY = Path(__file__).resolve().parents[2]
# The only lines of the bed that name the shipped code.
CALL = """
import json, sys
from nself_core.postgres import embedded
from nself_core.settings import load_settings
answer = getattr(embedded, sys.argv[1])(load_settings(project=sys.argv[2]))
print(json.dumps(answer._asdict() if hasattr(answer, "_asdict") else answer))
"""


class EmbeddedCluster(Cluster):
    """The embedded server of `version` (16 or 18) for this run, reached by its socket as its own user."""

    user = "postgres"
    password = ""

    def __init__(self, session, version):
        wheel_folder()
        self.version = version
        self.home = session.make_folder(f"embedded-{version}")
        lines = ["NSELF_DB_ENGINE=embedded", f"NSELF_DB_EMBEDDED_VERSION={version}", "POSTGRES_DB=postgres"]
        (self.home / ".env.dev").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def create(self):
        """Initialise and start it; returns itself."""
        self.start()
        return self

    def lend(self, project_folder):
        """Let the project in `project_folder` use this server."""
        os.symlink(self.home / ".nself", project_folder / ".nself")

    def start(self):
        found = self._call("ensure_started")
        self.host, self.port = found["host"], found["port"]

    def stop(self):
        self._call("stop")

    def kill(self):
        pid = self._postmaster()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not self.answers(), 30, lambda: f"postgres {pid} still answers")

    def kill_backend(self, pid, number=signal.SIGKILL):
        os.kill(pid, number)

    def url(self, database, **unused):
        raise NotImplementedError("the embedded server has no URL")

    def close(self):
        self.stop()

    def _postmaster(self):
        pid_file = self.home / ".nself" / "postgres" / str(self.version) / "postmaster.pid"
        return int(pid_file.read_text(encoding="utf-8").split()[0])

    def _call(self, function):
        env = {name: value for name, value in os.environ.items() if not name.startswith(("NSELF_", "POSTGRES_", "PG"))}
        command = [sys.executable, "-c", CALL, function, self.home]
        done = subprocess.run(
            command, env={**env, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{function} of embedded Postgres {self.version} failed:\n{done.stderr}")
        return json.loads(done.stdout)
