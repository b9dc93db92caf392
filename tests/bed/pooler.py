"""Debian's pgbouncer in front of a cluster, in a pool mode of the test's choice."""

from __future__ import annotations

import shutil
import signal

import psycopg

from .gaps import Gap
from .local_processes import free_port, give_away, start_logged, unprivileged, wait_until

CONFIGURATION = """
[databases]
* = host={host} port={target_port}

[pgbouncer]
listen_addr = {listen}
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users
pool_mode = {pool_mode}
default_pool_size = {pool_size}
ignore_startup_parameters = {ignored}
pidfile = {folder}/pgbouncer.pid
admin_users = {user}
"""


class Pooler:
    """A running pgbouncer: connect to `port` of 127.0.0.1 with the cluster's user and password.

    Arguments: `cluster`, reached by TCP; `pool_mode`, transaction, session or statement; `pool_size`, server
    connections a database; `ignored`, start-up parameters it drops instead of refusing the connection; `listen`, its
    addresses, 127.0.0.1 among them.
    """

    def __init__(self, session, cluster, pool_mode, *, pool_size=5, ignored="extra_float_digits,options",
                 listen="127.0.0.1"):  # fmt: skip
        program = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
        if not program:
            raise Gap("pgbouncer", "it is not installed")
        self.cluster = cluster
        self.port = free_port()
        folder = session.make_folder("pgbouncer")
        configuration = CONFIGURATION.format(
            folder=folder, host=cluster.host, target_port=cluster.port, port=self.port, user=cluster.user,
            pool_mode=pool_mode, pool_size=pool_size, ignored=ignored, listen=listen,
        )  # fmt: skip
        (folder / "pgbouncer.ini").write_text(configuration, encoding="utf-8")
        password = cluster.password.replace('"', '""')
        (folder / "users").write_text(f'"{cluster.user}" "{password}"\n', encoding="utf-8")
        for path in (folder, *folder.iterdir()):
            give_away(path)
        self._log = folder / "log"
        command = [program, "-q", folder / "pgbouncer.ini"]
        self._process = start_logged(command, self._log, cwd=folder, **unprivileged())
        wait_until(self._answers, 20, lambda: self._log.read_text(encoding="utf-8", errors="replace"))

    def url(self, database):
        """The URL of `database` through this pooler."""
        return self.cluster.url(database, port=self.port)

    def close(self):
        """End it; clients are cut off."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(20)

    def _answers(self):
        if self._process.poll() is not None:
            raise RuntimeError(f"pgbouncer has ended\n{self._log.read_text(encoding='utf-8', errors='replace')}")
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True
