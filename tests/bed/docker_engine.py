"""A Docker engine for the tests: the one that answers already, or a private one that the bed starts.

The private engine shares nothing with another: its own socket, data, bridge. It leaves the machine's packet filter
alone, for published ports of 127.0.0.1 go through Docker's own proxy process. Runs of the tests that go on at the same
time share it, and the last of them stops it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from pathlib import Path

from .gaps import Gap
from .local_processes import start_logged, wait_until
from .session import LABEL

NETWORK = LABEL
DEFAULT_SOCKET = "unix:///var/run/docker.sock"
STORAGE_DRIVERS = ("", "vfs")  # Docker's own choice (overlay2 where it works), else the one that works anywhere
START_SECONDS = 60


class Engine:
    """An engine that answers: `host` is its DOCKER_HOST, `client` a docker.DockerClient."""

    def __init__(self, session, host, private):
        self.session = session
        self.host = host
        self._private = private
        self._outer_host = os.environ.get("DOCKER_HOST")
        self.client = _client(host)
        # testcontainers and the programs under test look here.
        os.environ["DOCKER_HOST"] = host
        os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"
        if not self.client.networks.list(names=[f"^{NETWORK}$"]):
            self.client.networks.create(NETWORK, driver="bridge")

    def remove_containers(self, session_id):
        """Remove every container that the run `session_id` started."""
        for container in self.client.containers.list(all=True, filters={"label": f"{LABEL}={session_id}"}):
            container.remove(force=True, v=True)

    def close(self):
        """Remove this run's containers; the last run also removes the network and stops the private engine."""
        self.remove_containers(self.session.id)
        with self.session.registry_lock():
            if not self.session.others_live():
                for network in self.client.networks.list(names=[f"^{NETWORK}$"]):
                    network.remove()
                if self._private:
                    self._private.stop()
        self.client.close()
        if self._outer_host is None:
            os.environ.pop("DOCKER_HOST", None)
        else:
            os.environ["DOCKER_HOST"] = self._outer_host


def connect(session):
    """An Engine: the one of DOCKER_HOST or of the default socket if it answers, else the private one, started.

    Raises Gap when none answers and none can be started.
    """
    if not shutil.which("docker"):
        raise Gap("container servers", "there is no docker command on PATH")
    for host in (os.environ.get("DOCKER_HOST", ""), DEFAULT_SOCKET):
        # Only an engine of this machine: published ports are looked for at 127.0.0.1.
        if host.startswith("unix://") and _answers(host):
            return Engine(session, host, None)
    private = PrivateEngine(session)
    with session.registry_lock():
        private.ensure_started()
        return Engine(session, private.host, private)


class PrivateEngine:
    """The bed's own dockerd; its files lie in the cache, its sockets under /run, where paths are short."""

    def __init__(self, session):
        self.data_root = session.cache / "docker"
        self.log = session.cache / "dockerd.log"
        self.run_folder = Path("/run") / f"{LABEL}-{session.short_name(session.cache)}"
        self.host = f"unix://{self.run_folder}/docker.sock"
        self.pid_file = self.run_folder / "docker.pid"

    def ensure_started(self):
        """Start it unless it answers. Raises Gap when this machine or user cannot."""
        if self._process() and _answers(self.host):
            return
        if sys.platform != "linux" or os.geteuid() != 0:
            raise Gap("container servers", "no Docker engine answers, and only root on Linux can start one")
        if not shutil.which("dockerd"):
            raise Gap("container servers", "no Docker engine answers, and dockerd is not installed")
        self.run_folder.mkdir(exist_ok=True, mode=0o700)
        self.pid_file.unlink(missing_ok=True)
        for driver in STORAGE_DRIVERS:
            if self._start(driver):
                return
        raise Gap("container servers", f"dockerd does not start: {self._last_words()}")

    def stop(self):
        """Stop it and wait until it is gone."""
        pid = self._process()
        if pid:
            os.kill(pid, signal.SIGTERM)
            wait_until(lambda: not self._process(), START_SECONDS, lambda: f"dockerd {pid} does not stop")
        shutil.rmtree(self.run_folder, ignore_errors=True)

    def _start(self, driver):
        command = ["dockerd", "--host", self.host, "--pidfile", self.pid_file, "--data-root", self.data_root]
        command += ["--exec-root", self.run_folder / "exec"]
        command += ["--bridge=none", "--iptables=false", "--ip-masq=false", "--ip-forward=false"]
        command += [f"--storage-driver={driver}"] if driver else []
        self.log.unlink(missing_ok=True)
        # A session of its own, so that Ctrl-C in the terminal does not stop it under another run.
        process = start_logged(command, self.log, start_new_session=True)
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: process.poll() is not None or _answers(self.host), START_SECONDS)
        if process.poll() is None and _answers(self.host):
            return True
        process.kill()
        process.wait()
        self.pid_file.unlink(missing_ok=True)
        return False

    def _process(self):
        # The pid of our dockerd, known by our socket in its arguments; None when the file is stale.
        with contextlib.suppress(OSError, ValueError):
            pid = int(self.pid_file.read_text(encoding="utf-8"))
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            return pid if os.fsencode(self.host) in arguments else None
        return None

    def _last_words(self):
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "it says nothing"


def _client(host):
    try:
        import docker
    except ImportError:
        raise Gap("container servers", "the packages docker and testcontainers are not installed") from None
    return docker.DockerClient(base_url=host, timeout=120)


def _answers(host):
    import docker.errors
    import requests.exceptions

    client = None
    try:
        client = _client(host)
        return client.ping()
    except (docker.errors.DockerException, requests.exceptions.RequestException, OSError):
        return False
    finally:
        if client:
            client.close()
