"""A test's nSelf project, and the program run in it as a user would run it: in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
# What the program reads from its environment must come from the test alone.
OURS = ("NSELF_", "PG", "POSTGRES_", "HASURA_", "STORAGE_", "BACKUP_", "MINIO_", "S3_", "AWS_", "COMPOSE_", "DOCKER_")
OUR_NAMES = ("ENV", "PROJECT_NAME", "DATABASE_URL", "MIGRATIONS_DIR", "SEEDS_DIR", "FIXTURES_DIR", "NO_COLOR", "PAGER")


class Outcome:
    """How a run of the program ended: `code`, and the texts `out` and `err`."""

    def __init__(self, command, code, out, err):
        self.command = command
        self.code = code
        self.out = out
        self.err = err

    def __repr__(self):
        return f"{' '.join(self.command)}: exit {self.code}\n--- out\n{self.out}\n--- err\n{self.err}"

    def json(self):
        """The one JSON document on standard output."""
        return json.loads(self.out)

    def ok(self):
        """Itself, when the program ended with 0; otherwise an AssertionError that shows all it said."""
        assert self.code == 0, repr(self)
        return self


class Runner:
    """Runs nself-db in a clean environment; `home` is the HOME of its processes, so no file of the user's is read."""

    def __init__(self, home):
        self._home = home

    def __call__(self, *arguments, cwd=None, env=None, stdin="", timeout=120):
        """Run it to its end and return its Outcome.

        Arguments: `cwd`, by default a folder with no project; `env`, variables on top of the clean environment;
        `stdin`, a text; `timeout` in seconds, after which it is killed with its children and TimeoutExpired raised.
        """
        process = self.start(*arguments, cwd=cwd, env=env, stdin=subprocess.PIPE)
        try:
            out, err = process.communicate(stdin, timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
        return Outcome(["nself-db", *arguments], process.returncode, out, err)

    def start(self, *arguments, cwd=None, env=None, stdin=subprocess.DEVNULL, program=("-m", "nself_db")):
        """Start it and return its Popen, standard output and error as text pipes; the leader of a process group.

        Argument: `program`, what Python is given to run, where that is not nself-db alone.
        """
        return subprocess.Popen(
            [sys.executable, *program, *map(str, arguments)],
            cwd=cwd or self._home,
            env=self.environment(env or {}),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,
        )

    def environment(self, extra):
        """This process's environment without what nself-db, Docker or libpq read, and with `extra`."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(OURS) and name not in OUR_NAMES
        }
        return {**kept, "HOME": str(self._home), "PYTHONPATH": str(REPOSITORY), **extra}


class Project:
    """An nSelf project in the folder `root`, whose .env.dev leads to `database`."""

    def __init__(self, root, database, runner):
        self.root = Path(root)
        self.database = database
        self._runner = runner
        (self.root / "migrations").mkdir(parents=True)
        self.write_env(database.settings)
        database.server.lend(self.root)

    def write_env(self, settings, name=".env.dev"):
        """Write `settings` as the env file `name`, replacing it."""
        lines = [f"{key}={env_value(value)}\n" for key, value in settings.items()]
        self.write(name, "".join(lines))

    def write(self, path, content):
        """Write a file below the root, a text or bytes as they are, and return its path."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())
        return target

    def migration(self, name, up, down=None):
        """Write migrations/<name>.sql, and <name>.down.sql when `down` is given."""
        self.write(f"migrations/{name}.sql", up)
        if down is not None:
            self.write(f"migrations/{name}.down.sql", down)

    def run(self, *arguments, **options):
        """Run nself-db in the root; options and Outcome as of Runner."""
        return self._runner(*arguments, cwd=self.root, **options)

    def start(self, *arguments, **options):
        """Start nself-db in the root; options and Popen as of Runner.start."""
        return self._runner.start(*arguments, cwd=self.root, **options)


def env_value(value):
    """`value` as it stands in an env file: plain, in single quotes, or in double quotes when it has a single one."""
    if value.replace("_", "").replace("-", "").isalnum():
        return value
    if "'" not in value:
        return f"'{value}'"
    for special in '\\"$':
        value = value.replace(special, f"\\{special}")
    return f'"{value}"'
