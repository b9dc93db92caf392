"""Where a project lies, which environments it has, and which of them is meant.

DESIGN.md, section 3: the root is the nearest folder upward that looks like a project's; the active environment is
--env, NSELF_ENV, ENV or dev; env files are read in a fixed order, and a later one wins.
"""

from __future__ import annotations

import os
import re

from nself_core.env_files import decode, read
from nself_core.failures import FileFailure, UsageFailure

ROOT_FOLDERS = ("migrations", "hasura")
ROOT_FILES = ("docker-compose.yml", ".env", ".env.dev")

ENV_ALIASES = {"development": "dev", "develop": "dev", "local": "dev", "stage": "staging", "production": "prod"}
ENV_NAME = r"[a-z0-9][a-z0-9_-]{0,62}"
# .env.secrets belongs to every environment, .env.example to none.
RESERVED_ENVS = ("secrets", "example")

DEFAULT = "default"


def find_root(project=None, cwd=None):
    """The project's root folder, as an absolute path.

    Arguments: `project`, the folder given with --project, or None to look upward from `cwd` (default: the working
    directory) for the nearest folder with migrations/, hasura/, docker-compose.yml, .env or .env.dev.
    Raises UsageFailure where `project` is no folder, or where no such folder is found.
    """
    start = working_directory() if cwd is None else os.path.abspath(cwd)
    if project is not None:
        root = os.path.abspath(os.path.join(start, os.path.expanduser(project)))
        if not project or not os.path.isdir(root):
            raise UsageFailure(f"--project {project!r} is not a folder", "give the folder that holds migrations/")
        return root
    folder = start
    while not _is_root(folder):
        if folder == os.path.dirname(folder):
            raise UsageFailure(
                f"no project here: neither {start} nor a folder above it has migrations/, hasura/, docker-compose.yml, "
                ".env or .env.dev",
                "go to the project's folder, or name it with --project DIR",
            )
        folder = os.path.dirname(folder)
    return folder


def working_directory():
    """The working directory. Raises UsageFailure where somebody has removed it."""
    try:
        return os.getcwd()
    except OSError:
        raise UsageFailure("the working directory no longer exists", "go to another one") from None


def _is_root(folder):
    return any(os.path.isdir(os.path.join(folder, name)) for name in ROOT_FOLDERS) or any(
        os.path.isfile(os.path.join(folder, name)) for name in ROOT_FILES
    )


def env_name(name, given_by):
    """The environment that `name` stands for, with aliases resolved (production -> prod).

    Arguments: `given_by`, who said it, for the message. Raises UsageFailure for what is no environment's name: it
    becomes part of a file's name, so a path is refused here.
    """
    if not re.fullmatch(ENV_NAME, name) or name in RESERVED_ENVS:
        raise UsageFailure(
            f"{ascii(name)} is not the name of an environment (from {given_by})",
            "a name is lower-case letters, digits, - and _, such as dev, staging or prod; --env NAME overrides",
        )
    return ENV_ALIASES.get(name, name)


def own_files(env):
    """The files that belong to one environment alone, relative to the root, in the order they are read."""
    return (".env." + env, _in_env_folder(env, ".env"), _in_env_folder(env, ".env.secrets"))


def cascade(env):
    """The env files of an environment behind .env, relative to the root; a later file's setting holds."""
    dotted, folder, folder_secrets = own_files(env)
    files = (dotted, folder, ".env.secrets", folder_secrets)
    return files + (".env.local",) if env == "dev" else files


def _in_env_folder(env, name):
    return os.path.join(".environments", env, name)


class EnvFiles:
    """The env files of one root, as seen from `cwd` in the process environment `environ`."""

    def __init__(self, root, cwd, environ):
        self.root = root
        self.cwd = cwd
        self.environ = environ
        self._base = None

    def layers(self, names):
        """(file, EnvFile) of .env and those of `names` that exist; a file may refer to what those before it set."""
        if self._base is None:
            self._base = self._layer(".env", ())
        found = [] if self._base is None else [(".env", self._base)]
        earlier = {} if self._base is None else dict(self._base.values)
        for name in names:
            layer = self._layer(name, earlier)
            if layer is not None:
                earlier.update(layer.values)
                found.append((name, layer))
        return found

    def _layer(self, name, earlier):
        """The EnvFile of one file, or None where there is none. Raises FileFailure for one that cannot be used."""
        path = os.path.join(self.root, name)
        if not os.path.isfile(path):
            return None
        shown = self._shown(path)
        try:
            with open(path, "rb") as stream:
                data = stream.read()
        except OSError as error:
            raise FileFailure(f"the file cannot be read: {error.strerror}", file=shown) from None
        return read(decode(data, shown), shown, self.environ.get, earlier)

    def _shown(self, path):
        """A path as the user would write it: relative to the working directory where that is near."""
        relative = os.path.relpath(path, self.cwd)
        return path if relative.startswith(os.path.join("..", "..", "..")) else relative


def active_env(files, env):
    """The active environment and who named it: --env, NSELF_ENV, ENV, the ENV= line of a file, or nobody (dev)."""
    if env is not None:
        return env_name(env, "--env"), "--env"
    for name in ("NSELF_ENV", "ENV"):
        if files.environ.get(name):
            return env_name(files.environ[name], name), name
    for file, layer in reversed(files.layers((".env.local",))):
        if layer.values.get("ENV"):
            given_by = f"ENV in {file}"
            return env_name(layer.values["ENV"], given_by), given_by
    return "dev", DEFAULT


def environments(root):
    """The environments that have files of their own in `root`, and dev, sorted."""
    dotted = {name[5:] for name in os.listdir(root) if name.startswith(".env.")}
    folder = os.path.join(root, ".environments")
    nested = os.listdir(folder) if os.path.isdir(folder) else []
    names = (dotted - {"local", *RESERVED_ENVS}) | set(nested) | {"dev"}
    return sorted(name for name in names if re.fullmatch(ENV_NAME, name))
