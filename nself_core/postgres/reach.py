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
    import shutil

    found = shutil.which("psql")
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
    return "psql" if find_psql() else "psycopg"


class UrlReach:
    """A direct connection by NSELF_DB_URL, over the host's psql or over psycopg."""

    kind = "url"

    def __init__(self, url, driver, settings):
        self.driver = driver
        self.url, self.password = _without_password(url)
        self.where = _describe_url(self.url)
        self.settings = settings

    def command(self, program, variables, login):
        """Arguments and environment to start client `program` (psql, pg_dump…) with libpq `variables`."""
        path = find_psql() if program == "psql" else program
        if not path:
            raise Unreachable("there is no psql on this host", "install a Postgres client, or use --driver psycopg")
        env = processes.child_env({**variables, "PGPASSWORD": login.password or self.password})
        return [path, *self._arguments(login)], env

    def interactive(self, variables, login):
        """As `command`, for psql on the terminal."""
        return self.command("psql", variables, login)

    def _arguments(self, login):
        mark = "&" if "?" in self.url else "?"
        user = f"&user={_encode(login.user)}" if login.user else ""
        return ["-d", f"{_without_user(self.url) if login.user else self.url}{mark}{KEEPALIVES}{user}"]

    def connection(self, login):
        """libpq's connection string and the password, for psycopg."""
        return self._arguments(login)[1], login.password or self.password


class ContainerReach:
    """psql inside the stack's container, by `docker exec`."""

    kind = "container"
    driver = "psql"

    def __init__(self, settings):
        self.settings = settings
        self.container = settings.get("NSELF_DB_CONTAINER") or f"{settings.project_name}_postgres"
        self.database = settings.database_name
        named = {"DOCKER_HOST": settings.docker_host, "DOCKER_CONTEXT": settings.get("DOCKER_CONTEXT")}
        self.docker_env = {name: value for name, value in named.items() if value}

    @property
    def where(self):
        return f"container {self.container}, database {self.database}"

    def command(self, program, variables, login):
        """Arguments and environment for `program` in the container, its standard streams on pipes."""
        return self._command(["-i"], program, variables, login)

    def interactive(self, variables, login):
        """As `command`, for psql on the terminal."""
        terminal = sys.stdin is not None and sys.stdin.isatty()
        variables = {**variables, "TERM": os.environ.get("TERM", "dumb")}
        return self._command(["-it" if terminal else "-i"], "psql", variables, login)

    def _command(self, flags, program, variables, login):
        # Docker takes `-e NAME` without a value from its own environment: so no value stands in the arguments.
        inside = {**variables, "PGUSER": login.user or self.settings.database_user, "PGDATABASE": self.database}
        if login.password:
            inside["PGPASSWORD"] = login.password
        names = [part for name in inside for part in ("-e", name)]
        env = processes.child_env({**self.docker_env, **inside})
        return ["docker", "exec", *flags, *names, self.container, program], env

    def find_by_labels(self):
        """The name of the container that Compose labelled as this project's postgres; None when there is none.

        Docker knows a container by its labels where the name was changed (Compose, "container_name").
        """
        argv = ["docker", "ps", "--format", "{{.Names}}"]
        for label in (f"project={self.settings.project_name}", "service=postgres"):
            argv += ["--filter", f"label=com.docker.compose.{label}"]
        found = processes.run(argv, processes.child_env(self.docker_env), timeout=30).out.split()
        return found[0] if len(found) == 1 else None


class EmbeddedReach:
    """A private server under the project's .nself/postgres; it is started when it does not run."""

    kind = "embedded"
    driver = "psql"

    def __init__(self, settings):
        from nself_core.postgres import embedded

        self.settings = settings
        self.server = embedded.ensure_started(settings)
        self.where = f"embedded server {self.server.major}, database {self.server.database}"

    def command(self, program, variables, login):
        """Arguments and environment for `program` of the server's own toolchain."""
        inside = {
            **variables,
            "PGHOST": self.server.host,
            "PGPORT": None,
            "PGUSER": login.user or self.server.user,
            "PGDATABASE": self.server.database,
        }
        return [os.path.join(self.server.bin_folder, program)], processes.child_env(inside)

    def interactive(self, variables, login):
        """As `command`, for psql on the terminal."""
        return self.command("psql", variables, login)


def _without_password(url):
    """The URL without its password, and the password (None when it has none).

    libpq takes it in the authority part and as a query parameter (manual, "Connection URIs").
    """
    scheme, mark, rest = url.partition("://")
    if scheme not in ("postgres", "postgresql") or not mark:
        raise UsageFailure("the database URL does not begin with postgresql://", "postgresql://user:password@host:5432/db")
    authority, slash, tail = rest.partition("/")
    if not slash and "?" in authority:
        authority, question, tail = authority.partition("?")
        slash = question
    userinfo, at, hosts = authority.rpartition("@")
    user, colon, password = userinfo.partition(":")
    path, question, query = (slash + tail).partition("?")
    kept, from_query = [], None
    for pair in query.split("&") if question else ():
        name, _, value = pair.partition("=")
        if name in ("password", "sslpassword"):
            from_query = value if name == "password" else from_query
        else:
            kept.append(pair)
    clean = f"{scheme}://{user}{at}{hosts}{path}" + ("?" + "&".join(kept) if kept else "")
    found = password if colon else from_query
    return clean, None if found is None else _decode(found)


def _without_user(url):
    scheme, _, rest = url.partition("://")
    head, slash, tail = rest.partition("/")
    return f"{scheme}://{head.rpartition('@')[2]}{slash}{tail}"


def _describe_url(url):
    """host:port/database of a URL without password."""
    rest = _without_user(url).partition("://")[2]
    address, _, query = rest.partition("?")
    host = next((_decode(pair[5:]) for pair in query.split("&") if pair.startswith("host=")), None)
    return f"{host}{address}" if host and address.startswith("/") else address or host or "the database URL"


def _decode(text):
    """Percent-decoding, as libpq does it (urllib would cost 10 ms of imports)."""
    head, *parts = text.split("%")
    data = head.encode()
    for part in parts:
        code = part[:2]
        try:
            data += bytes([int(code, 16)]) + part[2:].encode()
        except ValueError:
            raise UsageFailure("the database URL has a % that begins no percent-encoded byte", "write % as %25") from None
    return data.decode("utf-8", "replace")


def _encode(text):
    safe = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~"
    return "".join(c if c in safe else "".join(f"%{byte:02X}" for byte in c.encode()) for c in text)
