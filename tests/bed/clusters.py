"""Running Postgres servers, one class for each way to run one; what tests do to them and ask of them.

A cluster is reached here through psycopg alone, so what a test asserts does not rest on the code it tests.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from .images import DATA_FOLDER
from .local_processes import (
    free_port,
    give_away,
    host_programs,
    quiet_run,
    start_logged,
    unprivileged,
    wait_until,
)
from .session import LABEL

USER = "nself_owner"
# Everything that a shell, a URL, an env file or a COPY line could trip over, but for the quote and the backslash,
# which no two readers of env files take alike.
PASSWORD = 'pa ss:/@?#%41$HOME"&;ß'
START_SECONDS = 60
# Nothing here outlives the machine, so nothing is flushed to disk. Commits still reach the kernel: a killed server
# loses none.
FAST = ("fsync=off", "full_page_writes=off")
DURABLE = ("fsync=on",)


class Cluster:
    """What every running server has: `host` and `port` for libpq, `user`, `password`, the major `version`."""

    version = 0
    host = "127.0.0.1"
    port = 0
    user = USER
    password = PASSWORD

    def connect(self, database="postgres", **options):
        """A psycopg connection of the test's own, in autocommit, its rows dicts."""
        options = {"connect_timeout": 10, "autocommit": True, "row_factory": dict_row, **options}
        login = {"host": self.host, "port": self.port, "user": self.user, "password": self.password}
        return psycopg.connect(dbname=database, **{**login, **options})

    def admin(self, statement, database="postgres", parameters=None):
        """Run `statement` and return its rows as dicts, [] when it has none."""
        with self.connect(database) as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def create_database(self, name):
        """A new, empty database."""
        self.admin(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def drop_database(self, name):
        """Drop it if it is there, ending the sessions in it."""
        self.admin(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def url(self, database, *, port=None, user=None, password=None):
        """The URL of `database` with user and password; `port` leads through a proxy or a pooler instead."""
        login = f"{quote(user or self.user, safe='')}:{quote(password or self.password, safe='')}"
        return f"postgresql://{login}@{self.host}:{port or self.port}/{quote(database, safe='')}"

    def answers(self):
        """Whether it takes connections now."""
        try:
            self.admin("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def ensure_running(self):
        """Start it if a test left it stopped."""
        if not self.answers():
            self.start()

    def start(self):
        """Start it and wait until it takes connections."""
        raise NotImplementedError

    def stop(self):
        """Stop it as its owner would: sessions are ended, everything is flushed."""
        raise NotImplementedError

    def kill(self):
        """Let it die at once, as by a power cut of the server."""
        raise NotImplementedError

    def kill_backend(self, pid, number=signal.SIGKILL):
        """Send signal `number` to the server process `pid` (as pg_backend_pid() says it)."""
        raise NotImplementedError

    def close(self):
        """Stop it for good and remove what it left."""
        raise NotImplementedError


class ContainerCluster(Cluster):
    """A container of one of our images: reached by name through docker, and at a published port of 127.0.0.1.

    Arguments: `engine`, an Engine; `image`, its tag; `version`, the major; `project`, the nSelf project whose stack
    this plays; `options`, server settings as "name=value"; `data_megabytes`, where given, puts the data on a memory
    disk of that size, for tests of a full disk, and `tmp_megabytes` its /tmp; `env`, more variables for the script.
    """

    def __init__(self, engine, image, version, project, *, options=FAST, data_megabytes=None, env=None,
                 tmp_megabytes=None):  # fmt: skip
        from testcontainers.core.container import DockerContainer

        self.version = version
        self.project = project
        self.name = f"{project}_postgres"
        self.docker_host = engine.host
        self.port = free_port()
        self._container = DockerContainer(image).with_name(self.name)
        self._container.with_envs(**{"POSTGRES_USER": self.user, "POSTGRES_PASSWORD": self.password, **(env or {})})
        self._container.with_command(["postgres", *(word for option in options for word in ("-c", option))])
        ports: dict[str, Any] = self._container.ports  # testcontainers knows no way to name the address
        ports["5432/tcp"] = ("127.0.0.1", self.port)
        if data_megabytes:
            self._container.tmpfs[DATA_FOLDER] = f"size={data_megabytes}m"
        if tmp_megabytes:
            self._container.tmpfs["/tmp"] = f"size={tmp_megabytes}m"
        self._container.with_kwargs(
            labels={LABEL: engine.session.id}, network=LABEL, stop_signal="SIGINT", shm_size="128m"
        )

    def create(self):
        """Make the container and start it; returns itself once it takes connections."""
        self._container.start()
        self._wait()
        return self

    def start(self):
        self._docker.start()
        self._wait()

    def stop(self):
        self._docker.stop(timeout=20)

    def kill(self):
        self._docker.kill()
        self._docker.wait()

    def kill_backend(self, pid, number=signal.SIGKILL):
        self.run("sh", "-c", f"kill -{int(number)} {int(pid)}")  # kill is a word of the shell's, not a program

    def run(self, *command, user="root"):
        """Run `command` in the container and return its output; RuntimeError when it fails."""
        done = self._docker.exec_run(list(command), user=user)
        if done.exit_code:
            raise RuntimeError(f"{command} in {self.name}: exit {done.exit_code}\n{done.output.decode()}")
        return done.output.decode()

    def logs(self):
        """What the entry script and the server have printed."""
        return self._docker.logs().decode(errors="replace")

    def host_address(self):
        """The address at which the container reaches this host."""
        networks = self._docker.attrs["NetworkSettings"]["Networks"]
        return networks[LABEL]["Gateway"]

    def close(self):
        self._container.stop()

    @property
    def _docker(self):
        return self._container.get_wrapped_container()

    def _wait(self):
        wait_until(self._settled, START_SECONDS, lambda: f"{self.name} takes no connections\n{self.logs()}")

    def _settled(self):
        self._docker.reload()
        if self._docker.status in ("exited", "dead"):
            raise RuntimeError(f"{self.name} has ended\n{self.logs()}")
        return self.answers()


class PlainCluster(Cluster):
    """A server of this host's own programs, as user postgres, in a folder of this run; no Docker is needed."""

    def __init__(self, session, *, options=FAST):
        self._programs, self.version = host_programs()
        self._folder = session.make_folder("plain")
        self._data = self._folder / "data"
        self._log = self._folder / "log"
        self._options = options
        self._process: Any = None
        self.port = free_port()
        self.socket_folder = self._folder
        give_away(self._folder)

    def create(self):
        """Initialise and start it; returns itself once it takes connections."""
        password_file = self._folder / "password"
        password_file.write_text(self.password + "\n", encoding="utf-8")
        give_away(password_file)
        command = [self._programs / "initdb", "-D", self._data, "-U", self.user, f"--pwfile={password_file}"]
        command += ["--no-sync", "--encoding=UTF8", "--locale=C", "--auth-local=trust", "--auth-host=scram-sha-256"]
        quiet_run(command, cwd=self._folder, **unprivileged())
        self.start()
        return self

    def start(self):
        settings = ("listen_addresses=127.0.0.1", f"port={self.port}", f"unix_socket_directories={self.socket_folder}")
        command = [self._programs / "postgres", "-D", self._data]
        command += [word for setting in (*settings, *self._options) for word in ("-c", setting)]
        self._process = start_logged(command, self._log, **unprivileged())
        wait_until(self._settled, START_SECONDS, lambda: f"postgres takes no connections\n{self.logs()}")

    def stop(self):
        self._end(signal.SIGINT)

    def kill(self):
        # Its children see that it is gone and end by themselves; a new start waits for the last of them.
        self._end(signal.SIGKILL)
        with contextlib.suppress(FileNotFoundError):
            wait_until(lambda: not _processes_in(self._data), START_SECONDS, lambda: "its children live on")

    def kill_backend(self, pid, number=signal.SIGKILL):
        os.kill(pid, number)

    def logs(self):
        """What the server has printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def close(self):
        self._end(signal.SIGQUIT)

    def _end(self, number):
        if self._process:
            self._process.send_signal(number)
            self._process.wait(START_SECONDS)
            self._process = None

    def _settled(self):
        if self._process.poll() is not None:
            raise RuntimeError(f"postgres has ended\n{self.logs()}")
        return self.answers()


def _processes_in(folder):
    # The processes whose working folder is `folder`: those of the server whose data it is (Linux; elsewhere none).
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.path.samefile(entry / "cwd", folder):
                found.append(int(entry.name))
    return found
