"""How the server of this environment is reached: the stack's container, a URL, or an embedded server.

The three answer the same questions: which program to start, in which environment, and what to call the place.
Nothing here puts a password into an argument list.
"""

from __future__ import annotations

import os
import sys
from collections import namedtuple

from nself_core import processes
from nself_core.failures import Unreachable, UsageFailure

# Questions that a dead client must not leave unanswered for long (seconds; libpq, "keepalives_idle").
KEEPALIVES = "keepalives_idle=30&keepalives_interval=10&keepalives_count=3"

# Parameters of a URL that are secrets (manual, "Parameter Key Words"). Only the password has a variable of its own.
SECRET_PARAMETERS = ("password", "sslpassword", "oauth_client_secret")

EXAMPLE_URL = "postgresql://user:password@host:5432/db"
# What stands in a URL counts more than libpq's variables of the same meaning.
URL_WORDS = (("application_name", "PGAPPNAME"), ("client_encoding", "PGCLIENTENCODING"))

# Of libpq's variables those that would lead elsewhere than to the host that a URL names (manual, libpq, "Environment
# Variables").
OTHER_PLACES = ("PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE")

Login = namedtuple("Login", "user password", defaults=(None, None))
Login.__doc__ = "Another role than the settings' own to log in as; None keeps the settings'."


def find_reach(settings, driver=None):
    """The way to this environment's server.

    Arguments: `settings`; `driver`, "psql" or "psycopg" for a URL, None to choose. Order: NSELF_DB_URL, then
    NSELF_DB_ENGINE=embedded, then the stack's container (DESIGN.md, section 4).
    """
    url = settings.get("NSELF_DB_URL")
    if url:
        return UrlReach(url, _choose_driver(driver or settings.get("NSELF_DB_DRIVER")), settings)
    engine = settings.get("NSELF_DB_ENGINE")
    if engine and engine != "embedded":
        raise UsageFailure(f"NSELF_DB_ENGINE is {engine!r}", "the only engine is embedded; leave it empty otherwise")
    return EmbeddedReach(settings) if engine else ContainerReach(settings)


def find_psql():
    """The host's psql, or None. Debian's is a Perl script that starts the real one: that costs 20 ms a start."""
    found = processes.find_program("psql")
    if found and os.path.basename(os.path.realpath(found)) == "pg_wrapper":
        versions = os.listdir("/usr/lib/postgresql") if os.path.isdir("/usr/lib/postgresql") else []
        numbers = sorted((int(v) for v in versions if v.isdigit()), reverse=True)
        real = [f"/usr/lib/postgresql/{number}/bin/psql" for number in numbers]
        found = next((path for path in real if os.access(path, os.X_OK)), found)
    return found


def _choose_driver(driver):
    if driver not in (None, "psql", "psycopg"):
        raise UsageFailure(f"the driver {driver!r} is not known", "use psql or psycopg")
    if driver:
        return driver
    return "psql" if find_psql() or not _has_psycopg() else "psycopg"


def _has_psycopg():
    import importlib.util

    return importlib.util.find_spec("psycopg") is not None


class UrlReach:
    """A direct connection by NSELF_DB_URL, over the host's psql or over psycopg."""

    kind = "url"

    def __init__(self, url, driver, settings):
        self.driver = driver
        self.url, self.secrets, self.options = _take_apart(url)
        self.where = _describe_url(self.url)
        self.settings = settings
        self.place = None  # the container_clients.Place of client programs, once one was wanted
        unheard = next((name for name in self.secrets if name != "password"), None)
        if unheard and driver == "psql":
            message = f"psql takes {unheard} on its command line only, where others can read it"
            raise UsageFailure(message, "use --driver psycopg")

    def for_database(self, name):
        """The way to another database of the same server."""
        other = _copy(self)
        # Of a parameter that the URL has twice, the last counts.
        other.url = f"{self.url}{'&' if '?' in self.url else '?'}dbname={percent_encode(name)}"
        other.where = f"{self.where.rpartition('/')[0] or self.where}/{name}"
        return other

    @property
    def password(self):
        """The password in the URL; None when it has none, and libpq looks in its own places."""
        return self.secrets.get("password")

    def command(self, program, variables, login):
        """Arguments and environment to start client `program` (psql, pg_dump…) with libpq `variables`."""
        path = find_psql() if program == "psql" else program
        if not path:
            raise Unreachable("there is no psql on this host", "install a Postgres client, or psycopg")
        password = self._password_of(login)
        known = {} if password is None and not login.user else {"PGPASSWORD": password}
        env = processes.child_env({**variables, **known})
        self.forget_other_places(env)
        return [path, *self._arguments(variables, login)], env

    def forget_other_places(self, environ):
        """Take out of an environment what would lead elsewhere than the URL says, where it names a host."""
        if _names_host(self.url):
            for name in OTHER_PLACES:
                environ.pop(name, None)

    def interactive(self, variables, login):
        """As `command`, for psql on the terminal."""
        if not find_psql():
            raise Unreachable("there is no psql on this host", "install a Postgres client, or use shell --command")
        return self.command("psql", _own_locale(variables), login)

    def _password_of(self, login):
        # The settings' own password is no business of another role's.
        return login.password if login.user else self.password

    def _arguments(self, variables, login):
        # What stands last counts the most.
        url, user = (_without_user(self.url), f"&user={percent_encode(login.user)}") if login.user else (self.url, "")
        ours = "".join(f"&{name}={percent_encode(variables[variable])}" for name, variable in URL_WORDS)
        return ["-d", f"{url}{'&' if '?' in url else '?'}{KEEPALIVES}{ours}{user}"]

    def connection(self, variables, login):
        """libpq's connection string and further parameters by name, for psycopg."""
        secrets = {name: value for name, value in self.secrets.items() if name != "password"}
        given = {"password": self._password_of(login), "options": variables["PGOPTIONS"]}
        parameters = {**secrets, **{name: value for name, value in given.items() if value is not None}}
        return self._arguments(variables, login)[1], parameters


def docker_environment(settings):
    """The variables under which the docker command reaches this environment's engine."""
    named = {"DOCKER_HOST": settings.docker_host, "DOCKER_CONTEXT": settings.get("DOCKER_CONTEXT")}
    return {name: value for name, value in named.items() if value}


def labelled_container(settings, service):
    """The name of the one running container that Compose labelled as this project's `service`; None without one."""
    argv = ["docker", "ps", "--format", "{{.Names}}"]
    for label in (f"project={settings.project_name}", f"service={service}"):
        argv += ["--filter", f"label=com.docker.compose.{label}"]
    found = processes.run(argv, processes.child_env(docker_environment(settings)), timeout=30).out.split()
    return found[0] if len(found) == 1 else None


class ContainerReach:
    """psql inside the stack's container, by `docker exec`."""

    kind = "container"
    driver = "psql"

    def __init__(self, settings):
        self.settings = settings
        self.container = settings.get("NSELF_DB_CONTAINER") or f"{settings.project_name}_postgres"
        self.database = settings.database_name
        self.docker_env = docker_environment(settings)

    def for_database(self, name):
        """The way to another database of the same server."""
        other = _copy(self)
        other.database = name
        return other

    @property
    def where(self):
        return f"container {self.container}, database {self.database}"

    def command(self, program, variables, login):
        """Arguments and environment for `program` in the container, its standard streams on pipes."""
        return self._command(["-i"], program, variables, login)

    def interactive(self, variables, login):
        """As `command`, for psql on the terminal."""
        terminal = sys.stdin is not None and sys.stdin.isatty()
        # A container has no locale of its own, and psql's line editing needs one to take ä for one character.
        variables = {**variables, "TERM": os.environ.get("TERM", "dumb"), "LC_ALL": "C.UTF-8"}
        return self._command(["-it" if terminal else "-i"], "psql", variables, login)

    def _command(self, flags, program, variables, login):
        # Docker takes `-e NAME` without a value from its own environment: so no value stands in the arguments.
        inside = {**variables, "PGUSER": login.user or self.settings.database_user, "PGDATABASE": self.database}
        password = login.password if login.user else self.settings.get("POSTGRES_PASSWORD")
        if password:
            inside["PGPASSWORD"] = password
        names = [part for name in inside for part in ("-e", name)]
        env = processes.child_env({**self.docker_env, **inside})
        return ["docker", "exec", *flags, *names, self.container, program], env

    def find_by_labels(self):
        """The name of the container that Compose labelled as this project's postgres; None when there is none.

        Docker knows a container by its labels where the name was changed (Compose, "container_name").
        """
        return labelled_container(self.settings, "postgres")


class EmbeddedReach:
    """A private server under the project's .nself/postgres; it is started when it does not run."""

    kind = "embedded"
    driver = "psql"

    def __init__(self, settings):
        from nself_core.postgres import embedded

        self.settings = settings
        self.server = embedded.ensure_started(settings)
        self.where = f"embedded server {self.server.major}, database {self.server.database}"

    def for_database(self, name):
        """The way to another database of the same server."""
        other = _copy(self)
        other.server = self.server._replace(database=name)
        other.where = f"embedded server {self.server.major}, database {name}"
        return other

    def command(self, program, variables, login):
        """Arguments and environment for `program` of the server's own toolchain."""
        inside = {
            **variables,
            "PGHOST": self.server.host,
            "PGPORT": None,
            "PGUSER": login.user or self.server.user,
            "PGDATABASE": self.server.database,
        }
        # A private server has nothing to do with the user's own: a PGSERVICE would even win over PGHOST.
        ours = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        return [os.path.join(self.server.bin_folder, program)], processes.child_env(inside, ours)

    def interactive(self, variables, login):
        """As `command`, for psql on the terminal."""
        return self.command("psql", _own_locale(variables), login)


def _copy(reach):
    import copy

    return copy.copy(reach)


def _own_locale(variables):
    """The variables, with the user's locale for a psql that the user reads and writes, where ours is for reading it."""
    return {**variables, "LC_ALL": os.environ.get("LC_ALL")}


def _take_apart(url):
    """The URL without its secrets and `options`, the secrets by name, and the options (None when it has none).

    libpq takes a password in the authority part and as a query parameter (manual, "Connection URIs"). Raises
    UsageFailure for what no server could be meant by: there, a part of a password might stand in a wrong place.
    """
    scheme, mark, rest = url.partition("://")
    if scheme not in ("postgres", "postgresql") or not mark:
        raise UsageFailure("the database URL does not begin with postgresql://", EXAMPLE_URL)
    head = rest.partition("/")[0]
    before_query = head.partition("?")[0]
    userinfo, at, _ = (before_query if "@" in before_query else head).rpartition("@")
    user, colon, password = userinfo.partition(":")
    place, question, query = rest[len(userinfo + at):].partition("?")
    _check_places(user, place, query)
    secrets = {"password": percent_decode(password)} if colon else {}
    options, kept = None, []
    for pair in query.split("&") if question else ():
        name, _, value = pair.partition("=")
        if percent_decode(name) in SECRET_PARAMETERS:
            secrets[percent_decode(name)] = percent_decode(value)
        elif percent_decode(name) == "options":
            options = percent_decode(value)
        else:
            kept.append(pair)
    clean = f"{scheme}://{user}{at}{place}" + ("?" + "&".join(kept) if kept else "")
    return clean, secrets, options


def _check_places(user, place, query):
    hosts = place.partition("/")[0].split(",")
    ports = [host.rpartition("]")[2].rpartition(":")[2] for host in hosts if ":" in host.rpartition("]")[2]]
    pairs = [pair for pair in query.split("&") if pair]
    numbers = all(port.isdigit() or not port for port in ports)
    if "@" in place or {*"?="} & {*user} or not numbers or not all("=" in pair for pair in pairs):
        raise UsageFailure(
            "the database URL cannot be read: user, password, host, port and name do not stand in their places",
            f"in a password, write / as %2F, @ as %40, ? as %3F, % as %25: {EXAMPLE_URL}",
        )


def _names_host(url):
    """Whether a URL without its secrets names a host and no service."""
    address, _, query = _without_user(url).partition("://")[2].partition("?")
    names = [pair.partition("=")[0] for pair in query.split("&")]
    return "service" not in names and ("host" in names or bool(address.partition("/")[0]))


def _without_user(url):
    scheme, _, rest = url.partition("://")
    address, question, query = rest.partition("?")
    return f"{scheme}://{address.rpartition('@')[2]}{question}{query}"


def _describe_url(url):
    """host:port/database of a URL without password."""
    rest = _without_user(url).partition("://")[2]
    address, _, query = rest.partition("?")
    host = next((percent_decode(pair[5:]) for pair in query.split("&") if pair.startswith("host=")), None)
    return f"{host}{address}" if host and address.startswith("/") else address or host or "the database URL"


def percent_decode(text):
    """Percent-decoding, as libpq does it (urllib would cost 10 ms of imports)."""
    head, *parts = text.split("%")
    data = head.encode()
    for part in parts:
        code = part[:2]
        try:
            data += bytes([int(code, 16)]) + part[2:].encode()
        except ValueError:
            message = "the database URL has a % that begins no percent-encoded byte"
            raise UsageFailure(message, "write % as %25") from None
    return data.decode("utf-8", "replace")


def percent_encode(text):
    """`text` as it stands in any part of a URL."""
    safe = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~"
    return "".join(c if c in safe else "".join(f"%{byte:02X}" for byte in c.encode()) for c in text)
