"""Fixtures of the fault tests: projects on named servers, one after another in one test."""

from __future__ import annotations

import pytest
from bed.gaps import Gap, not_run

PLAIN = ("plain-psql", "plain-psycopg")
CONTAINER = "container-15"
EVERY_WAY = (*PLAIN, CONTAINER)


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
