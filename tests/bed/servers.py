"""Servers as nself-db meets them: a cluster and the settings that lead to it, and the matrix of them.

One container serves three servers of its version: reached through docker, and by URL with psql and with psycopg.
"""

from __future__ import annotations

import contextlib
import secrets

from .clusters import ContainerCluster, PlainCluster
from .docker_engine import connect
from .embedded import EmbeddedCluster
from .gaps import Gap
from .npm_image import Images
from .session import remove_folder

# Every behaviour is tested over every way to a server; the versions are tested with what could differ between them.
FULL_PASS = ("container-15", "url-psycopg-17", "url-psql-17", "embedded-18")
VERSION_MATRIX = (
    *(f"{kind}-{version}" for version in range(13, 19) for kind in ("container", "url-psycopg")),
    *(f"url-psql-{version}" for version in (13, 15, 17, 18)),
    "embedded-16",
    "embedded-18",
)
NASTY_NAME = """nasty "name" o'clock $1 %41 ü;--"""


class Server:
    """A cluster reached in one way: `kind` is container, url-psycopg, url-psql or embedded."""

    def __init__(self, kind, cluster):
        self.kind = kind
        self.cluster = cluster

    def __repr__(self):
        return f"{self.kind}-{self.version}"

    @property
    def version(self):
        """The major version of Postgres."""
        return self.cluster.version

    def settings(self, database):
        """The environment variables under which nself-db reaches `database`."""
        if self.kind == "embedded":
            version = str(self.version)
            return {"NSELF_DB_ENGINE": "embedded", "NSELF_DB_EMBEDDED_VERSION": version, "POSTGRES_DB": database}
        if self.kind == "container":
            return {
                "PROJECT_NAME": self.cluster.project,
                "POSTGRES_USER": self.cluster.user,
                "POSTGRES_PASSWORD": self.cluster.password,
                "POSTGRES_DB": database,
                "DOCKER_HOST": self.cluster.docker_host,
            }
        return {"NSELF_DB_URL": self.cluster.url(database), "NSELF_DB_DRIVER": self.kind.split("-")[1]}

    def lend(self, project_folder):
        """Let the project in `project_folder` use this server, where its settings alone do not lead there."""
        if self.kind == "embedded":
            self.cluster.lend(project_folder)

    def admin(self, statement, database="postgres", parameters=None):
        """Run `statement` without nself-db and return its rows as dicts."""
        return self.cluster.admin(statement, database, parameters)

    def create_database(self, name):
        """A new, empty database."""
        self.cluster.create_database(name)

    def drop_database(self, name):
        """Drop it if it is there, ending the sessions in it."""
        self.cluster.drop_database(name)

    def start(self):
        """Start the server and wait until it takes connections."""
        self.cluster.start()

    def stop(self):
        """Stop the server as its owner would."""
        self.cluster.stop()

    def kill(self):
        """Let the server die at once."""
        self.cluster.kill()

    def kill_backend(self, pid):
        """kill -9 of the server process `pid`."""
        self.cluster.kill_backend(pid)


class Database:
    """A test's own database: `name` on `server`, and the `settings` that lead nself-db to it."""

    def __init__(self, server, name):
        self.server = server
        self.name = name
        self.settings = server.settings(name)

    def admin(self, statement, parameters=None):
        """Run `statement` in it without nself-db and return its rows as dicts."""
        return self.server.admin(statement, self.name, parameters)

    def connect(self, **options):
        """A psycopg connection of the test's own to it."""
        return self.server.cluster.connect(self.name, **options)


class Bed:
    """All servers of one run, started when first asked for and ended together.

    `wanted_versions` are the container versions this run will ask for, so that their images are made side by side.
    """

    def __init__(self, session):
        self.session = session
        self.wanted_versions = ()
        self._ends = contextlib.ExitStack()
        self._made = {}
        with session.registry_lock():
            for _, folder in session.dead():
                remove_folder(folder)

    def server(self, name):
        """The Server of a `name` from the matrix, such as "url-psql-17". Raises Gap when this machine cannot."""
        kind, _, version = name.rpartition("-")
        if kind == "embedded":
            cluster = self._once(name, lambda: EmbeddedCluster(self.session, int(version)).create())
        else:
            cluster = self._once(f"container-{version}", lambda: self.new_container(int(version)))
        return Server(kind, cluster)

    def plain_server(self, driver):
        """The Server of this host's own Postgres programs, by URL with `driver`, psql or psycopg."""
        return Server(f"url-{driver}", self._once("plain", self.new_plain))

    def new_container(self, version, **options):
        """A ContainerCluster of `version` in a container of its own; its caller may close it before the run ends."""
        image = self.images().tag(version)
        # The name is new each time, so no two tests or runs meet in a container's name.
        project = f"bed{version}-{secrets.token_hex(3)}"
        return ContainerCluster(self.engine(), image, version, project, **options).create()

    def new_plain(self, **options):
        """A PlainCluster of its own; its caller may close it before the run ends."""
        return PlainCluster(self.session, **options).create()

    def engine(self):
        """The Docker Engine, connected or started on first use."""
        return self._once("engine", self._connect)

    def images(self):
        """The Images; with its first use the images of `wanted_versions` begin to be made."""
        return self._once("images", self._open_images)

    def close(self):
        """End everything this run started."""
        self._ends.close()

    def _once(self, name, make):
        # Made at the first call and closed with the run; a gap, too, is found only once.
        if name not in self._made:
            try:
                self._made[name] = make()
                self._ends.callback(self._made[name].close)
            except Gap as gap:
                self._made[name] = gap
        if isinstance(self._made[name], Gap):
            raise self._made[name]
        return self._made[name]

    def _connect(self):
        engine = connect(self.session)
        with self.session.registry_lock():
            for name, _ in self.session.dead():
                engine.remove_containers(name)
                self.session.forget(name)
        return engine

    def _open_images(self):
        images = Images(self.session, self.engine())
        images.prepare(self.wanted_versions)
        return images
