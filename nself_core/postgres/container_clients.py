"""The client programs of the project's container, for a server by a URL, where this host has none that will do.

They see the network as the container does: what a URL calls localhost is this host, and in the container it would be
the container. So nothing is run there before the same server, database and role have answered from there.
"""

from __future__ import annotations

import os
import sys
from collections import namedtuple

from nself_core import processes
from nself_core.failures import Unreachable
from nself_core.postgres.address import docker_machine
from nself_core.postgres.database import NO_PARAMETERS, OWN_LOGIN, docker_failure
from nself_core.postgres.reach import ContainerReach, percent_decode

# What docker is asked to print of a container.
FACTS = (
    '{"running": {{json .State.Running}}, "network": {{json .HostConfig.NetworkMode}}, '
    '"ports": {{json .NetworkSettings.Ports}}}'
)
DOCKER_SECONDS = 30
START = "start the stack"
EVERY_ADDRESS = ("", "0.0.0.0", "::")
# Parameters and variables that name a file of this host, which the container has not.
FILES = ("sslcert", "sslkey", "sslrootcert", "sslcrl", "sslcrldir", "sslkeylogfile", "service", "servicefile")
# What libpq reads without being told, and what would be worth less without it.
OWN_FILES = (".postgresql/root.crt", ".postgresql/postgresql.crt")
NOT_FOR_CLIENTS = ("PGDATA", "PGSYSCONFDIR", "PGLOCALEDIR", "PGPASSFILE", "PGSERVICE", "PGSERVICEFILE")

SQL_PROOF = """
SELECT pg_catalog.json_build_array(session_user, pg_catalog.current_database(), d.oid::pg_catalog.int8,
    (extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::pg_catalog.int8) AS proof
FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
"""
ASKED = 'psql --version && exec psql -X -q -A -t -w "$@"'

Place = namedtuple("Place", "container docker_env added defaults major")
Place.__doc__ = """Where the client programs are.

`container`, its name; `docker_env`, the variables for docker; `added`, what is put behind the URL so that it leads
from there to the same server; `defaults`, libpq's variables for what the URL leaves open; `major`, their version, None
until it is proved that the same server answers from there.
"""


def place_of(database, program, major, failure):
    """The Place of a client program for a database by URL; it is looked for, and proved, once.

    Arguments: `major`, the server's version, 0 where any client will do; `failure`, why there is none on this host.
    Raises Unreachable, which says why there is none in the container either.
    """
    return _instead(failure, lambda: _proved_place(database, program, major))


def _proved_place(database, program, major):
    reach = database.reach
    if reach.place is None or reach.place.major is None:
        reach.place = _prove(database, reach.place or _find_place(reach))
    if reach.place.major < major:
        raise Unreachable(f"{program} in {reach.place.container} is {reach.place.major}, and the server {major}")
    return reach.place


def session_psql(reach, variables, login, failure):
    """Arguments and environment for the psql of a session, where the host of a URL has neither it nor psycopg.

    Nothing on this host can prove the server then: the URL's host is looked up here, and its address given there.
    """
    reach.place = reach.place or _instead(failure, lambda: _find_place(reach))
    before, after, env = started(reach, reach.place, variables, login)
    return [*before, "psql", *after], env


def _instead(failure, find):
    """What `find()` returns. Raises `failure`, and with it why the container's programs cannot be used, where so."""
    if not processes.find_program("docker"):
        raise failure  # there is no container to speak of
    try:
        return find()
    except Unreachable as why:
        told = f"{failure.message}, and the container's cannot be used: {why.message}"
        raise Unreachable(told, f"{failure.hint}, or {why.hint}" if why.hint else failure.hint) from None


def started(reach, place, variables, login, flags=("-i",)):
    """What stands before a client program in the container, its arguments for the server, and the environment.

    Arguments: `variables`, libpq's; `login`, as of `UrlReach.command`; `flags`, of `docker exec`.
    """
    # Docker takes `-e NAME` without a value from its own environment: so no value stands in the arguments.
    argv, env = reach.command("pg_dump", variables, login)
    known = {name: value for name, value in env.items() if name.startswith("PG") and name not in NOT_FOR_CLIENTS}
    inside = {**place.defaults, **known, **{name: env[name] for name in variables if name in env}}
    names = [part for name in inside for part in ("-e", name)]
    before = ["docker", "exec", *flags, *names, place.container]
    return before, ["-d", argv[-1] + place.added], {**env, **place.docker_env, **inside}


def offline(settings, failure):
    """What stands before a client program in the container that needs no server, and its environment."""
    there, _ = _instead(failure, lambda: _find_container(settings))
    env = processes.child_env({**there.docker_env, "LC_ALL": "C"})
    return ["docker", "exec", "-i", "-e", "LC_ALL", there.container], env


def way_to(settings, end, failure):
    """(the ContainerReach of the project's container, libpq's variables that lead from there to another server).

    Arguments: `end`, the (host, port) as this host knows it, or None for what is known in the stack by name, which
    wants no variables; `failure`, why there is no client program on this host.
    """

    def find():
        there, facts = _find_container(settings)
        if end is None:
            return there, {}
        found = {f"PG{name.upper()}": value for name, value in _pairs(f"?{_way_from(there, facts, [end])[1:]}")}
        return there, {"PGHOST": end[0], "PGPORT": end[1], **found}

    return _instead(failure, find)


def interactive(database, variables, login):
    """Arguments and environment for psql on the terminal: where a URL's host has none, the container's."""
    try:
        return database.reach.interactive(variables, login)
    except Unreachable as failure:
        if database.reach.kind != "url":
            raise
        place = place_of(database, "psql", 0, failure)
    terminal = sys.stdin is not None and sys.stdin.isatty()
    # A container has no locale of its own, and psql's line editing needs one to take ä for one character.
    variables = {**variables, "TERM": os.environ.get("TERM", "dumb"), "LC_ALL": "C.UTF-8"}
    before, after, env = started(database.reach, place, variables, login, ["-it" if terminal else "-i"])
    return [*before, "psql", *after], env


def _find_place(reach):
    """The Place in the project's container, not proved yet. Raises Unreachable where there is none, with why."""
    import pwd

    there, facts = _find_container(reach.settings)
    env = processes.child_env()
    reach.forget_other_places(env)
    _refuse_files(reach, env)
    added = _way_from(there, facts, _ends(reach.url, env))
    return Place(there.container, there.docker_env, added, {"PGUSER": pwd.getpwuid(os.geteuid()).pw_name}, None)


def _find_container(settings):
    """(ContainerReach, facts of FACTS) of the project's container, which runs."""
    import json

    there = ContainerReach(settings)
    done = _inspect(there)
    if done.code and not settings.get("NSELF_DB_CONTAINER"):
        there.container = there.find_by_labels() or there.container
        done = _inspect(there)
    if done.code:
        problem = docker_failure(done.err, there)
        raise Unreachable(problem.message if problem else f"there is no container {there.container}", START)
    facts = json.loads(done.out)
    if not facts["running"]:
        raise Unreachable(f"the container {there.container} is not running", START)
    return there, facts


def _inspect(there):
    argv = ["docker", "container", "inspect", "--format", FACTS, there.container]
    return processes.run(argv, processes.child_env(there.docker_env), timeout=DOCKER_SECONDS)


def _refuse_files(reach, env):
    """Raise Unreachable where the way to the server needs a file of this host's."""
    query = dict(_pairs(reach.url))
    named = [name for name in FILES if query.get(name, env.get(f"PG{name.upper()}")) not in (None, "", "system")]
    home = os.path.expanduser("~")
    named += [f"~/{name}" for name in OWN_FILES if os.path.exists(os.path.join(home, name))]
    if reach.password is None and "PGPASSWORD" not in env:
        file = query.get("passfile") or env.get("PGPASSFILE") or os.path.join(home, ".pgpass")
        named += [file] if os.path.exists(file) else []
    if named:
        raise Unreachable(f"{named[0]} is a file of this host, which the container has not")


def _pairs(url):
    """(name, value) of each parameter behind a URL's question mark."""
    for pair in url.partition("?")[2].split("&"):
        name, equals, value = pair.partition("=")
        if equals:
            yield percent_decode(name), percent_decode(value)


def _ends(url, env):
    """[(host, port)] to which a URL and libpq's variables lead; a host is "" where it is libpq's default socket."""
    query = dict(_pairs(url))
    address = url.partition("://")[2].partition("?")[0].partition("/")[0].rpartition("@")[2]
    split = [host.rpartition(":") if ":" in host.rpartition("]")[2] else (host, "", "") for host in address.split(",")]
    hosts = [percent_decode(host.strip("[]")) for host, _, _ in split]
    ports = [port for _, _, port in split]
    unnamed = {} if any(hosts) else env
    for given in (query.get("hostaddr"), query.get("host"), unnamed.get("PGHOSTADDR"), unnamed.get("PGHOST")):
        if given:
            hosts = given.split(",")
            break
    ports = query["port"].split(",") if query.get("port") else ports
    default = env.get("PGPORT") or "5432"
    return [(host, ports[at if len(ports) == len(hosts) else 0] or default) for at, host in enumerate(hosts)]


def _way_from(there, facts, ends):
    """What is put behind a URL that leads to these ends from this host, so that it does so from the container.

    Names are looked up here: in the container they may be another's. Raises Unreachable where nothing would do.
    """
    if any(not host or host[0] in "/@" for host, _ in ends):
        raise Unreachable(f"the URL leads to a socket of this host, which is not in {there.container}")
    addresses = [_address(host) for host, _ in ends]
    here = any(address.startswith("127.") or address in (*EVERY_ADDRESS, "::1") for address in addresses)
    if not here or (facts["network"] == "host" and not docker_machine(there)):
        return f"&hostaddr={','.join(addresses)}"
    inside = _published(facts["ports"] or {}, ends[0][1]) if len(ends) == 1 and not docker_machine(there) else None
    if inside is None:
        raise Unreachable(f"the URL leads to port {ends[0][1]} of this host, which is none of {there.container}'s")
    return f"&hostaddr=127.0.0.1&port={inside}"


def _address(host):
    """The address of a host as this one knows it; one of IPv4 where there is one, for a container may have no other."""
    import socket

    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        raise Unreachable(f"the host {host} of the URL is not known here") from None
    return str(min(found, key=lambda entry: entry[0] != socket.AF_INET)[4][0])


def _published(ports, number):
    """The container's own port that Docker publishes as port `number` of this host, None where there is none."""
    for inside, places in ports.items():
        for place in places or ():
            if place["HostPort"] == number and place["HostIp"] in (*EVERY_ADDRESS, "127.0.0.1", "::1"):
                return inside.partition("/")[0]
    return None


def _prove(database, place):
    """The Place with its defaults and version, once the same server, database and role have answered from there."""
    proof = database.rows(SQL_PROOF)[0]["proof"]
    place = place._replace(defaults={"PGUSER": proof[0], "PGDATABASE": proof[1]})
    # Under another name: who counts the sessions of a command's name (a restore in place) is not to count this one.
    variables = {**database.variables(NO_PARAMETERS), "PGAPPNAME": "nself-db proof"}
    before, after, env = started(database.reach, place, variables, OWN_LOGIN)
    argv = [*before, "sh", "-c", ASKED, "sh", *after, "-c", SQL_PROOF]
    done = processes.run(argv, env, timeout=DOCKER_SECONDS)
    if done.code:
        lines = done.err.strip().split("\n")
        raise Unreachable(f"from the container {place.container} the server does not answer: {lines[-1].strip()}")
    return place._replace(major=_same(place, done.out, proof))


def _same(place, told, proof):
    """The major version of the client that told its version and a proof, which is to be `proof`."""
    import json
    import re

    version, _, answer = told.partition("\n")
    if json.loads(answer) != proof:
        raise Unreachable(f"from the container {place.container} the URL leads to another server, database or role")
    found = re.search(r"\d+", version)
    return int(found[0]) if found else 0
