"""How another program reaches a database: the URL and libpq's variables that lead to it from this host.

They hold the password, and so belong into a child's environment and nowhere else.
"""

from __future__ import annotations

from collections import namedtuple

from nself_core import processes
from nself_core.failures import Unreachable
from nself_core.postgres.reach import percent_decode, percent_encode

Address = namedtuple("Address", "url variables")
Address.__doc__ = "`url`, postgresql://…, and `variables`, a dict of PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE."

PROBE_SECONDS = 2

# What docker is asked to print: a container's addresses, and where the engine of the current context is.
ADDRESSES = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
ENGINE = "{{.Endpoints.docker.Host}}"

# Parameters of a URL that other programs know by libpq's variables.
TLS_VARIABLES = {
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "channel_binding": "PGCHANNELBINDING",
}


def address_of(reach, name, port):
    """The Address of database `name` on the server that `reach` leads to.

    Argument: `port`, on which the server itself listens, for a container. Raises Unreachable where a container's server
    cannot be reached from this host.
    """
    if reach.kind == "url":
        return _url_address(reach, name)
    if reach.kind == "embedded":
        return _made(reach.server.host, str(reach.server.port), reach.server.user, None, name)
    host, number = _container_place(reach, port)
    return _made(host, number, reach.settings.database_user, reach.settings.get("POSTGRES_PASSWORD"), name)


def _made(host, port, user, password, name):
    login = percent_encode(user) + ("" if password is None else ":" + percent_encode(password))
    if host.startswith("/"):
        url = f"postgresql://{login}@/{percent_encode(name)}?host={percent_encode(host)}&port={port}"
    else:
        url = f"postgresql://{login}@{_bracketed(host)}:{port}/{percent_encode(name)}"
    variables = {"PGHOST": host, "PGPORT": port, "PGUSER": user, "PGPASSWORD": password, "PGDATABASE": name}
    return Address(url, variables)


def _bracketed(host):
    return f"[{host}]" if ":" in host else host


def _url_address(reach, name):
    """The user's own URL with another database in it."""
    scheme, _, rest = reach.url.partition("://")
    place, _, query = rest.partition("?")
    user, at, hosts = place.partition("/")[0].rpartition("@")
    password = reach.password
    pairs = [pair for pair in query.split("&") if pair and percent_decode(pair.partition("=")[0]) != "dbname"]
    extra = {key: value for key, value in reach.secrets.items() if key != "password" or not at}
    extra.update({} if reach.options is None else {"options": reach.options})
    pairs += [f"{key}={percent_encode(value)}" for key, value in extra.items()]
    login = user + (f":{percent_encode(password)}" if password is not None and at else "")
    url = f"{scheme}://{login}{at}{hosts}/{percent_encode(name)}" + ("?" + "&".join(pairs) if pairs else "")
    return Address(url, _url_variables(percent_decode(user), hosts, pairs, password, name))


def _url_variables(user, hosts, pairs, password, name):
    """libpq's variables for what a URL says; what it does not say is left to the environment."""
    given = {percent_decode(key): percent_decode(value) for key, _, value in (pair.partition("=") for pair in pairs)}
    ends = [host.rpartition(":") if ":" in host.rpartition("]")[2] else (host, "", "") for host in hosts.split(",")]
    names = ",".join(percent_decode(host.strip("[]")) for host, _, _ in ends)
    ports = ",".join(port for _, _, port in ends)
    told = {
        "PGHOST": given.get("host") or names,
        "PGPORT": given.get("port") or ports.strip(",") and ports,
        "PGUSER": given.get("user") or user,
        "PGPASSWORD": password,
        "PGOPTIONS": given.get("options"),
        **{variable: given.get(key) for key, variable in TLS_VARIABLES.items()},
    }
    return {**{variable: value for variable, value in told.items() if value}, "PGDATABASE": name}


def _container_place(reach, port):
    """(host, port) at which this host reaches the container's server."""
    machine = docker_machine(reach)
    for host, number in _published(reach, port):
        if host in ("0.0.0.0", "::"):
            host = machine or ("::1" if host == "::" else "127.0.0.1")
        elif machine:
            continue  # another machine's own address: here it may be another server's
        if _answers(host, number):
            return host, number
    for address in () if machine else _docker(reach, "inspect", "--format", ADDRESSES, reach.container).split():
        if _answers(address, port):
            return address, str(port)
    raise Unreachable(
        f"Postgres in the container {reach.container} cannot be reached from this host: neither by a published port "
        f"{port} nor by the container's own address",
        "publish the port (ports: in docker-compose.yml), or give a connection by --url or NSELF_DB_URL",
    )


def _published(reach, port):
    """(host, port) pairs at which Docker publishes a port of the container."""
    lines = _docker(reach, "port", reach.container, f"{port}/tcp").split()
    pairs = (line.rpartition(":") for line in lines if line.rpartition(":")[2].isdigit())
    return [(host.strip("[]") or "0.0.0.0", number) for host, _, number in pairs]


def docker_machine(reach):
    """The host name of a Docker engine on another machine; empty for one on this."""
    engine = reach.docker_env.get("DOCKER_HOST") or _docker(reach, "context", "inspect", "--format", ENGINE).strip()
    scheme, _, rest = engine.partition("://")
    host = rest.rpartition("@")[2].partition("/")[0].partition(":")[0]
    return host if scheme in ("ssh", "tcp", "http", "https") and host not in ("localhost", "127.0.0.1") else ""


def _docker(reach, *words):
    """What a docker command prints; empty where it fails."""
    done = processes.run(["docker", *words], processes.child_env(reach.docker_env), timeout=30)
    return "" if done.code else done.out


def _answers(host, port):
    """Whether something takes connections there."""
    import socket

    try:
        with socket.create_connection((host, int(port)), PROBE_SECONDS):
            return True
    except OSError:
        return False
