"""What the settings of a project's environment say, and where each value comes from.

The contract is DESIGN.md, section 3: of the env files a later one wins, and the process environment wins over all.
"""

from __future__ import annotations

import os
import re

from nself_core.environments import (
    DEFAULT,
    ENV_ALIASES,
    EnvFiles,
    active_env,
    cascade,
    env_name,
    environments,
    find_root,
    own_files,
    working_directory,
)
from nself_core.failures import CredentialsRefused, Refused, UsageFailure
from nself_core.redaction import MASK, SHORTEST, is_secret, redact, url_passwords

KNOWN_ENVS = ("dev", "staging", "prod")

# Patterns are compiled where they are used: most commands use none of them.
PROJECT_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"
DEPLOY_HOST = r"(?:ssh://)?(?:[A-Za-z0-9_][\w.-]*@)?[A-Za-z0-9\[][\w.:%\[\]-]*"

ALIASES = {"HASURA_GRAPHQL_ADMIN_SECRET": "HASURA_ADMIN_SECRET"}

# The settings that say which server is meant.
SERVER_SETTINGS = (
    "NSELF_DB_URL",
    "NSELF_DB_CONTAINER",
    "NSELF_DB_ENGINE",
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "PROJECT_NAME",
    "POSTGRES_DB",
    "POSTGRES_PORT",
    "HASURA_GRAPHQL_ENDPOINT",
)
CONTAINER_SETTINGS = ("NSELF_DB_CONTAINER", "DOCKER_HOST", "DOCKER_CONTEXT")
# Where the process environment has one of these, it knows which server it means. DOCKER_HOST is none of them: a
# rootless docker sets it for every shell.
CHOOSING_SETTINGS = ("NSELF_DB_URL", "NSELF_DB_CONTAINER", "NSELF_DB_ENGINE")

# What --verbose lists: an nSelf project's files also hold the settings of many other services.
OUR_PREFIXES = (
    "NSELF_",
    "POSTGRES_",
    "PROJECT_",
    "DOCKER_",
    "HASURA_",
    "STORAGE_",
    "BACKUP_",
    "S3_",
    "MINIO_",
    "PGBOUNCER_",
    "MIGRATIONS_",
    "SEEDS_",
    "FIXTURES_",
)

PROCESS = "process environment"


def load_settings(project=None, env=None, url=None, environ=None, cwd=None):
    """The Settings of the project around `cwd`, or of --project, in its active environment.

    Arguments: `project`, `env` and `url`, the options of these names or None; `environ`, the process environment.
    Raises UsageFailure (no project, no such environment), FileFailure (an env file cannot be read as one), and
    Refused where `env` is given, its files name another server than the process environment, and `url` is not.
    """
    if url == "":
        raise UsageFailure("--url is empty", "leave it out to use the project's own server")
    environ = os.environ if environ is None else environ
    cwd = working_directory() if cwd is None else os.path.abspath(cwd)
    files = EnvFiles(find_root(project, cwd), cwd, environ)
    name, given_by = active_env(files, env)
    layers = files.layers(cascade(name))
    settings = Settings(files, name, given_by, layers, url)
    _check_known(settings)
    if env is not None and url is None:
        _check_one_server(settings)
    return settings


def _check_known(settings):
    """An environment nobody described is a typing error: its commands would run against another one's server."""
    env = settings.env
    if env == "dev" or settings.own_values is not None:
        return
    if env in KNOWN_ENVS and (settings.env_given_by != "--env" or _server_is_named(settings)):
        return
    raise UsageFailure(
        f"there is no environment {env}: it has no file of its own",
        f"make {settings.own_file}, or choose another with --env: {', '.join(environments(settings.root))}",
    )


def _server_is_named(settings):
    """Whether a known environment without files of its own has a server of its own all the same."""
    is_named = settings.env in [_plain_env(layer.values.get("ENV")) for _, layer in settings.layers]
    chosen = settings.url or settings.deploy_host or any(map(settings.environ.get, CHOOSING_SETTINGS))
    return bool(is_named or chosen)


def _check_one_server(settings):
    """Refuse --env where the process environment would silently take the command to another server."""
    for name, value, other in _rivals(settings):
        given = settings.environ.get(other)
        if given and _server_part(given) != _server_part(value):
            raise _two_servers(settings, name, value, other, given)
    _check_one_database(settings)


def _check_one_database(settings):
    """Refuse --env, too, where its files name a database by POSTGRES_DB, and the process's URL another one."""
    own, url = _values_for(settings), settings.environ.get("NSELF_DB_URL", "")
    name = own.get("POSTGRES_DB")
    in_url = url.partition("://")[2].rpartition("@")[2].partition("?")[0].partition("/")[2]
    if name and in_url and not own.get("NSELF_DB_URL") and in_url != name:
        raise _two_servers(settings, "POSTGRES_DB", name, "NSELF_DB_URL", url)


def _rivals(settings):
    """(setting, its value in the environment's files, the setting that would win from the process environment)."""
    own = _values_for(settings)
    for name in filter(own.get, SERVER_SETTINGS):
        yield name, own[name], name
    places = {name: own[name] for name in filter(own.get, CONTAINER_SETTINGS)}
    if settings.deploy_host and not places.keys() & {"DOCKER_HOST", "DOCKER_CONTEXT"}:
        name = _deploy_setting(settings.env)
        places[name] = settings.deploy_host
        yield from ((name, places[name], other) for other in ("DOCKER_HOST", "DOCKER_CONTEXT"))
    if not own.get("NSELF_DB_URL") and not own.get("NSELF_DB_ENGINE"):
        for name, value in places.items():
            yield from ((name, value, other) for other in ("NSELF_DB_URL", "NSELF_DB_ENGINE"))


def _values_for(settings):
    """What is said for this environment alone: its own files, and .env where its ENV= line names this environment."""
    base = dict(settings.layers).get(".env")
    common = base.values if base is not None and _plain_env(base.values.get("ENV")) == settings.env else {}
    return {**common, **(settings.own_values or {})}


def _server_part(value):
    """What of a setting says where the server is: a URL without its password."""
    return redact(value).rstrip("/")


def _plain_env(name):
    return ENV_ALIASES.get(name, name)


def _two_servers(settings, own_name, own_value, other_name, other_value):
    own = f"{own_name}={redact(own_value)}"
    other = f"{other_name}={redact(other_value)}"
    return Refused(
        f"--env {settings.env} means {own}, but the process environment says {other}",
        f"unset {other_name}, or say with --url which server is meant",
    )


def _deploy_setting(env):
    return "NSELF_DEPLOY_HOST_" + env.upper().replace("-", "_")


class Settings:
    """What the settings of one environment say; load_settings makes it.

    Attributes: `root`, the project's folder; `env`, the environment's name; `env_given_by`, who named it; `url`,
    the value of --url or None; `layers`, (file, EnvFile) in the order they were read; `environ`, the process's.
    """

    def __init__(self, files, env, env_given_by, layers, url):
        self._files = files
        self.root = files.root
        self.environ = files.environ
        self.env = env
        self.env_given_by = env_given_by
        self.layers = layers
        self.url = url
        self._secrets = None
        self._found = {}
        for file, layer in layers:
            for name, value in layer.values.items():
                self._found[name] = (value, file)

    # Any setting.

    def get(self, name, default=None):
        """The value of a setting as text, or `default` where it is unset or empty."""
        return self._value_and_source(name)[0] or default

    def source(self, name):
        """Where a value comes from: a file relative to the root, "--url", "process environment" or "default"."""
        return self._value_and_source(name)[1]

    def _value_and_source(self, name):
        if name == "NSELF_DB_URL" and self.url:
            return self.url, "--url"
        for spelling in (name, ALIASES.get(name)):
            if spelling is None:
                continue
            # An empty value in a later place takes an earlier one away, as it does for Compose.
            value, source = self._found.get(spelling, (None, DEFAULT))
            if spelling in self.environ:
                value, source = self.environ[spelling], PROCESS
            if value:
                return value, source
        if name == "DOCKER_HOST" and self.deploy_host and not self.get("DOCKER_CONTEXT"):
            setting = _deploy_setting(self.env)
            return self.deploy_host, f"{setting} ({self.source(setting)})"
        return None, DEFAULT

    def require(self, name, hint=None):
        """The value of a setting that must be there.

        Raises CredentialsRefused (exit code 3) for a secret, UsageFailure for any other setting.
        """
        value = self.get(name)
        if value is None:
            kind = CredentialsRefused if is_secret(name) else UsageFailure
            raise kind(f"{name} is not set", hint or f"set it in {self.own_file} or in the environment")
        return value

    def integer(self, name, default=None):
        """The value of a setting as a whole number, not negative. Raises UsageFailure for what is none."""
        value = self.get(name)
        if value is None:
            return default
        if not re.fullmatch(r"[0-9]{1,18}", value):
            raise UsageFailure(f"{name} is not a whole number (from {self.source(name)})")
        return int(value)

    def path(self, name, default):
        """The absolute path that a setting names; relative ones are taken from the root."""
        return os.path.abspath(os.path.join(self.root, os.path.expanduser(self.get(name, default))))

    # The environment.

    @property
    def is_prod(self):
        """Whether this environment is prod, the one that asks twice."""
        return self.env == "prod"

    @property
    def own_file(self):
        """The file in which a setting of this environment is best put, relative to the root."""
        return own_files(self.env)[0]

    @property
    def own_values(self):
        """What the environment's own files say, name -> text; None where it has no such file."""
        own = [layer.values for file, layer in self.layers if file in own_files(self.env)]
        if not own:
            return None
        merged = {}
        for values in own:
            merged.update(values)
        return merged

    @property
    def active_env(self):
        """The environment that would be active without --env."""
        return active_env(self._files, None)[0]

    def for_env(self, name):
        """The Settings of another environment of this project. Raises what load_settings raises."""
        env = None if env_name(name, "--env") == self.active_env else name
        return load_settings(self.root, env, None, self.environ, self._files.cwd)

    # What the program's parts ask for.

    @property
    def project_name(self):
        """PROJECT_NAME, by default the root folder's name, lower-cased, with other characters as `-`.

        Raises UsageFailure for a name that no container could have.
        """
        name = self.get("PROJECT_NAME")
        if name is None:
            return self._folder_name
        if not re.fullmatch(PROJECT_NAME, name):
            raise UsageFailure(
                f"PROJECT_NAME {ascii(name)} is not a name (from {self.source('PROJECT_NAME')})",
                "letters, digits, - and _, beginning with a letter or digit",
            )
        return name

    @property
    def _folder_name(self):
        folder = os.path.basename(self.root).lower()
        return re.sub(r"[^a-z0-9-]", "-", folder).strip("-") or "nself"

    @property
    def database_name(self):
        """POSTGRES_DB, by default the project's name with `_` for `-`."""
        return self.get("POSTGRES_DB", self.project_name.replace("-", "_"))

    @property
    def database_user(self):
        """POSTGRES_USER, by default postgres, as in the Postgres image."""
        return self.get("POSTGRES_USER", "postgres")

    @property
    def prefixes(self):
        """The prefixes of managed tables: NSELF_TABLE_PREFIXES, by default np_ and the project's own."""
        given = [prefix.strip() for prefix in self.get("NSELF_TABLE_PREFIXES", "").split(",")]
        own = self.project_name.replace("-", "_") + "_"
        return tuple(dict.fromkeys(filter(None, given))) or tuple(dict.fromkeys(("np_", own)))

    @property
    def migrations_folders(self):
        """The folders to look for migrations in, absolute; the first is where new ones are written.

        MIGRATIONS_DIR, else migrations, else (where that is absent) the first of hasura/migrations/default and
        hasura/migrations that exists.
        """
        plain = self.path("MIGRATIONS_DIR", "migrations")
        if self.get("MIGRATIONS_DIR") or os.path.isdir(plain):
            return (plain,)
        hasura = [os.path.join(self.root, "hasura", "migrations", *rest) for rest in (("default",), ())]
        return tuple(filter(os.path.isdir, hasura))[:1] or (plain,)

    @property
    def deploy_host(self):
        """NSELF_DEPLOY_HOST_<ENV> as an ssh:// address, or None. Raises UsageFailure for what is no host."""
        name = _deploy_setting(self.env)
        host = self.get(name)
        if host is None:
            return None
        if not re.fullmatch(DEPLOY_HOST, host):
            raise UsageFailure(f"{name} is not user@host (from {self.source(name)})")
        return host if host.startswith("ssh://") else "ssh://" + host

    @property
    def docker_host(self):
        """DOCKER_HOST, else the environment's deploy host where no DOCKER_CONTEXT is chosen, else None."""
        return self.get("DOCKER_HOST")

    @property
    def hasura_endpoint(self):
        """Hasura's base URL without a slash at its end; a GraphQL or metadata address is cut down to it.

        HASURA_GRAPHQL_ENDPOINT, by default http://localhost:$HASURA_PORT (8080). Raises UsageFailure for what is no
        http address.
        """
        endpoint = self.get("HASURA_GRAPHQL_ENDPOINT")
        if endpoint is None:
            return f"http://localhost:{self.integer('HASURA_PORT', 8080)}"
        if not re.fullmatch(r"https?://[^\s/]+\S*", endpoint):
            raise UsageFailure(
                f"HASURA_GRAPHQL_ENDPOINT is not an http address (from {self.source('HASURA_GRAPHQL_ENDPOINT')})",
                "such as http://localhost:8080",
            )
        return re.sub(r"(?:/v1(?:alpha1)?/(?:graphql|metadata|query))?/*$", "", endpoint)

    @property
    def hasura_admin_secret(self):
        """HASURA_GRAPHQL_ADMIN_SECRET (or its alias HASURA_ADMIN_SECRET), or None."""
        return self.get("HASURA_GRAPHQL_ADMIN_SECRET")

    # Secrets, and what may be shown.

    @property
    def secrets(self):
        """The secret values in play, for redaction: by their names, and passwords inside URLs.

        A password that is also a public word (the project's name, the user's, `postgres`) is left out: it tells
        nothing, and masking it would make every message unreadable.
        """
        if self._secrets is None:
            values = []
            for name, value in self._everything():
                values += _secrets_in(name, value)
            words = self._public_words()
            self._secrets = tuple(value for value in dict.fromkeys(values) if not _is_public(value, words))
        return self._secrets

    def _everything(self):
        """(name, value) of every setting of the files, of the process environment, and of --url."""
        pairs = [(name, value) for _, layer in self.layers for name, value in layer.values.items()]
        return pairs + list(self.environ.items()) + [("NSELF_DB_URL", self.url or "")]

    def _public_words(self):
        own = (self.env, self._folder_name, *map(self.get, ("PROJECT_NAME", "POSTGRES_DB", "POSTGRES_USER")))
        return {word.lower() for word in own if word} | {"postgresql", "localhost", "false", "true", "none"}

    def describe(self):
        """Rows (name, value, source) of the settings that concern this program, secrets masked, for --verbose."""
        rows = [("project", self.root, "folder"), ("environment", self.env, self.env_given_by)]
        rows += [("file", file, "read") for file, _ in self.layers]
        names = {name for name in [*self._found, *self.environ] if name.startswith(OUR_PREFIXES)}
        if self.url:
            names.add("NSELF_DB_URL")
        return rows + [(name, *self._masked(name)) for name in sorted(names) if self.get(name)]

    def _masked(self, name):
        """A setting's value as it may be shown, and where it comes from."""
        value, source = self._value_and_source(name)
        missing = dict(self.layers)[source].unset.get(name) if source in dict(self.layers) else None
        note = f" (refers to {', '.join(missing)}, which nothing sets)" if missing else ""
        return MASK if is_secret(name) else redact(value, self.secrets), source + note


def _secrets_in(name, value):
    """The secret texts in one setting: the whole of it by its name, the key in a JWT's JSON, passwords in URLs."""
    found = url_passwords(value)
    if is_secret(name):
        found += [value, *re.findall(r'"(?:key|secret)"\s*:\s*"([^"]+)"', value)]
    return found


def _is_public(value, words):
    return len(value) < SHORTEST or any(value.lower() in word for word in words)
