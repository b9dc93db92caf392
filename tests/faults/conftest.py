"""Fixtures of the fault tests: projects on named servers, one after another in one test, and small disks."""

from __future__ import annotations

import os
import subprocess

import pytest
from bed.clusters import FAST
from bed.gaps import Gap, not_run

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


@pytest.fixture(scope="module")
def small_server(bed):
    """A container whose data lies on a small memory disk."""
    cluster = or_gap(bed.new_container, 15, data_megabytes=150, options=SMALL_LOG)
    yield cluster
    cluster.close()
