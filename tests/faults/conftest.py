"""Fixtures of the fault tests: projects on named servers, one after another in one test, and small disks."""

from __future__ import annotations

import os
import subprocess

import pytest
from bed.clusters import FAST
from bed.gaps import Gap, not_run

from . import restoring
from .between import FEW_TRIES, FILL, Between

PLAIN = ("plain-psql", "plain-psycopg")
CONTAINER = "container-15"
EVERY_WAY = (*PLAIN, CONTAINER)
SMALL_LOG = (*FAST, "max_wal_size=48MB", "min_wal_size=32MB", "wal_recycle=off")


def or_gap(make, *arguments, **options):
    """make(…), or the test is left out because this machine lacks something."""
    try:
        return make(*arguments, **options)
    except Gap as gap:
        return not_run(gap.what, gap.reason)


@pytest.fixture
def find_server(bed):
    """find_server(name) -> a shared Server: "plain-psql" and "plain-psycopg" are this host's own Postgres by URL."""

    def find(name):
        kind, _, rest = name.partition("-")
        return or_gap(bed.plain_server, rest) if kind == "plain" else or_gap(bed.server, name)

    return find


@pytest.fixture
def new_project(find_server, make_database, make_project):
    """new_project(server or its name) -> a Project with a fresh database there."""

    def make(server):
        server = find_server(server) if isinstance(server, str) else server
        return make_project(make_database(server))

    return make


@pytest.fixture
def small_disk(bed):
    """small_disk(megabytes) -> the folder of a new memory disk of that size, which Postgres may reach."""
    made = []

    def make(megabytes):
        folder = bed.session.make_folder("disk")
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder]
        done = subprocess.run(command, capture_output=True, text=True) if os.geteuid() == 0 else None
        if done is None or done.returncode:
            not_run("a full disk", f"no memory disk can be mounted: {done.stderr.strip() if done else 'not root'}")
        made.append(folder)
        return folder

    yield make
    for folder in made:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def between(s3_server):
    """A Between before the run's object store."""
    if not hasattr(s3_server, "port"):
        not_run("a store that fails", "what stands before it speaks plain HTTP, and so may a given S3 server not")
    server = Between(s3_server.port)
    yield server
    server.close()


@pytest.fixture
def remote_project(new_project, storage, between):
    """A project with a large table, whose object store stands behind `between`."""
    project = new_project("plain-psql")
    project.write_env({**project.database.settings, **storage.settings(ENDPOINT=between.endpoint), **FEW_TRIES})
    project.database.admin(FILL)
    return project


@pytest.fixture
def ready(new_project):
    """ready(server) -> a Project whose database has changed since its backup; what its restores leave is dropped."""
    made = []

    def make(server, *options):
        project = new_project(server)
        project.database.admin(restoring.FILL)
        project.run("backup", *options).ok()
        project.database.admin("INSERT INTO u VALUES (11)")
        made.append(project)
        return project

    yield make
    for project in made:
        project.database.server.cluster.ensure_running()
        for name in restoring.beside(project):
            project.database.server.drop_database(name)


@pytest.fixture(scope="module")
def own_container(bed):
    """A container that only these tests stop."""
    cluster = or_gap(bed.new_container, 15)
    yield cluster
    cluster.close()


@pytest.fixture(scope="module")
def small_server(bed):
    """A container whose data lies on a small memory disk."""
    cluster = or_gap(bed.new_container, 15, data_megabytes=150, options=SMALL_LOG)
    yield cluster
    cluster.close()
