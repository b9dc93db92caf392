"""The way to Hasura's engine: its address, or a container that alone reaches it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time

import pytest
from bed.hasura_engine import Engine

from nself_core import processes
from nself_core.failures import Unreachable
from nself_core.hasura import reach
from nself_core.settings import load_settings

SECRET = "admin-s3cret"


@pytest.fixture
def settings(tmp_path):
    """settings(**variables) -> the Settings of an empty project under these variables."""
    (tmp_path / "migrations").mkdir()
    return lambda **variables: load_settings(str(tmp_path), environ=variables)


def closed_port():
    """A port of this host that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def no_docker(monkeypatch):
    """Fail when docker is asked anything."""
    monkeypatch.setattr(processes, "run", lambda *arguments, **_: pytest.fail(f"asked: {arguments}"))


# Which way.


@pytest.mark.parametrize("endpoint", ["http://hasura.example:8080", "https://api.example/hasura", "http://10.0.0.7"])
def test_an_address_elsewhere_is_asked_directly(settings, no_docker, endpoint):
    found = reach.find_engine(settings(HASURA_GRAPHQL_ENDPOINT=endpoint, DOCKER_HOST="ssh://me@prod"))
    assert (found.endpoint, found.dial, found.secret) == (endpoint, None, None)


def test_a_published_port_is_asked_directly(settings, no_docker):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        found = reach.find_engine(settings(HASURA_PORT=str(port), HASURA_GRAPHQL_ADMIN_SECRET="s3cret"))
    assert (found.endpoint, found.dial, found.secret) == (f"http://localhost:{port}", None, "s3cret")


@pytest.mark.parametrize(("variables", "elsewhere"), [
    ({}, False), ({"DOCKER_HOST": "unix:///run/docker.sock"}, False), ({"DOCKER_HOST": "tcp://127.0.0.1:2375"}, False),
    ({"DOCKER_HOST": "tcp://10.0.0.7:2375"}, True), ({"DOCKER_HOST": "ssh://me@prod:22"}, True),
    ({"NSELF_DEPLOY_HOST_DEV": "me@prod"}, True), ({"DOCKER_CONTEXT": "default"}, False),
])  # fmt: skip
def test_where_docker_is(settings, no_docker, variables, elsewhere):
    assert reach.docker_is_elsewhere(settings(**variables)) is elsewhere


@pytest.mark.parametrize(("said", "elsewhere"), [("ssh://me@prod\n", True), ("unix:///x.sock\n", False), ("", False)])
def test_a_context_says_where_docker_is(settings, monkeypatch, said, elsewhere):
    monkeypatch.setattr(processes, "run", lambda *_, **__: processes.Completed(0, said, ""))
    assert reach.docker_is_elsewhere(settings(DOCKER_CONTEXT="prod")) is elsewhere


def docker(monkeypatch, *answers):
    """Let docker answer so, in turn; returns the list of what it was asked."""
    asked, left = [], list(answers)

    def run(argv, env=None, **_):
        asked.append(argv[1:])
        return left.pop(0)

    monkeypatch.setattr(processes, "run", run)
    return asked


OK = processes.Completed(0, "", "")
VARIABLES = processes.Completed(0, json.dumps(["PATH=/bin", "HASURA_GRAPHQL_SERVER_PORT=9000"]), "")
NO_SHELL = processes.Completed(126, 'exec failed: exec: "sh": executable file not found in $PATH\n', "")
NO_CONTAINER = processes.Completed(1, "", "Error: No such container: shop_hasura\n")


def test_our_own_localhost_is_never_asked_for_a_remote_docker(settings, monkeypatch):
    asked = docker(monkeypatch, VARIABLES, OK)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = str(listening.getsockname()[1])
        found = reach.find_engine(settings(PROJECT_NAME="shop", HASURA_PORT=port, DOCKER_HOST="ssh://me@prod"))
    assert found.endpoint == "http://shop_hasura:9000" and found.dial
    assert asked[1][:5] == ["exec", "-i", "shop_hasura", "sh", "-c"]
    assert asked[1][6:9] == ["127.0.0.1", "9000", "check"]


def test_the_postgres_container_leads_there_where_hasuras_cannot(settings, monkeypatch):
    asked = docker(monkeypatch, processes.Completed(0, "null", ""), NO_SHELL, OK)
    found = reach.find_engine(settings(PROJECT_NAME="shop", DOCKER_HOST="ssh://me@prod"))
    assert found.where == "http://shop_hasura:8080 (through container shop_postgres)"
    assert asked[2][2] == "shop_postgres" and asked[2][6:9] == ["shop_hasura", "8080", "check"]


def test_a_container_is_found_by_its_labels(settings, monkeypatch):
    asked = docker(monkeypatch, NO_CONTAINER, processes.Completed(0, "other_name\n", ""), VARIABLES, OK)
    found = reach.find_engine(settings(PROJECT_NAME="shop", DOCKER_HOST="ssh://me@prod"))
    assert found.endpoint == "http://other_name:9000"
    assert "label=com.docker.compose.service=hasura" in asked[1]


def test_no_way_is_told_with_dockers_words(settings, monkeypatch):
    remote = settings(PROJECT_NAME="shop", DOCKER_HOST="ssh://me@prod")
    docker(monkeypatch, NO_CONTAINER, OK)
    with pytest.raises(Unreachable, match="container shop_hasura cannot be looked at: Error: No such container"):
        reach.find_engine(remote)
    docker(monkeypatch, VARIABLES, NO_SHELL, NO_CONTAINER)
    with pytest.raises(Unreachable, match="through the container shop_hasura: exec failed") as caught:
        reach.find_engine(remote)
    assert "HASURA_GRAPHQL_ENDPOINT" in caught.value.hint


def test_without_a_container_the_address_that_was_set_is_told(settings, monkeypatch):
    docker(monkeypatch, NO_CONTAINER, OK)
    port = closed_port()
    api = reach.open_api(settings(HASURA_PORT=str(port)))
    with pytest.raises(Unreachable, match=f"localhost:{port}.*nothing listens there"):
        api.export_metadata()


# Through a container of ours.


@pytest.fixture(scope="module")
def inside(plain_server, hasura_container):
    """(Engine, container, variables) of a double that is reached through the container only."""
    plain_server.drop_database("inside")
    plain_server.create_database("inside")
    with Engine(plain_server.cluster.url("inside"), SECRET) as engine:
        project = f"inside{engine.port}"
        container = hasura_container(project, engine.port)
        variables = {"PROJECT_NAME": project, "HASURA_PORT": str(closed_port()), "HASURA_GRAPHQL_ADMIN_SECRET": SECRET}
        yield engine, container, variables
    plain_server.drop_database("inside")


def running(container):
    """How many processes of the bridge the container has."""
    return sum("/dev/tcp" in line or "perl" in line for (*_, line) in container.top()["Processes"])


def wait_until_gone(container):
    deadline = time.monotonic() + 15
    while running(container) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert running(container) == 0


def test_the_api_goes_through_the_container(settings, inside):
    engine, container, variables = inside
    api = reach.open_api(settings(**variables, DOCKER_HOST=_docker_host()))
    found = api.export_metadata()
    assert found == engine.ask("export_metadata", version=2)[1]
    large = {**found["metadata"], "query_collections": [
        {"name": "all", "definition": {"queries": [{"name": "q", "query": "x" * 5_000_000}]}}
    ]}  # fmt: skip
    assert api.replace_metadata(large, found["resource_version"])["is_consistent"]
    assert api.export_metadata()["metadata"] == large
    wait_until_gone(container)


def _docker_host():
    return os.environ["DOCKER_HOST"]


def test_nothing_stays_in_the_container_when_we_go_away(settings, inside):
    engine, container, variables = inside
    found = reach.find_engine(settings(**variables, DOCKER_HOST=_docker_host()))
    channel = found.dial()
    channel.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert channel.recv(100).startswith(b"HTTP/1.1 200 OK")
    assert running(container) > 0
    channel.close()
    wait_until_gone(container)


def test_the_console_goes_through_the_container(inside, tmp_path, run):
    engine, container, variables = inside
    (tmp_path / "migrations").mkdir()
    env = {**variables, "DOCKER_HOST": _docker_host()}
    arguments = ("hasura", "console", "--no-browser", "--port", "0", "--idle", "0.1", "--json")
    outcome = run(*arguments, cwd=tmp_path, env=env).ok()
    assert outcome.json()["data"]["endpoint"] == f"http://{variables['PROJECT_NAME']}_hasura:{engine.port}"


def test_a_wrong_secret_is_refused_through_the_container(inside, tmp_path, run):
    engine, container, variables = inside
    (tmp_path / "migrations").mkdir()
    env = {**variables, "DOCKER_HOST": _docker_host(), "HASURA_GRAPHQL_ADMIN_SECRET": "wr0ng"}
    outcome = run("hasura", "console", "--no-browser", cwd=tmp_path, env=env)
    assert outcome.code == 3 and "wr0ng" not in outcome.err


# Each program that can join streams to a port, on this host.


PROGRAMS = {
    "bash": ["bash", "-c", reach.BASH],
    "perl": ["perl", "-e", reach.PERL],
    "any": ["sh", "-c", reach.CHOOSE],
}


def joined(program, port, mode="join"):
    """The command that joins its streams to a port of this host."""
    more = [reach.BASH, reach.PERL] if program == "any" else []
    return [*PROGRAMS[program], "127.0.0.1", str(port), mode, *more]


@pytest.fixture
def echo():
    """A server that echoes; the fixture is (port, connections that it has taken)."""
    taken = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)

        def serve():
            connection, _ = listening.accept()
            taken.append(connection)
            while piece := connection.recv(65536):
                connection.sendall(piece)
            connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1], taken
        for connection in taken:
            connection.close()
        thread.join(10)


@pytest.mark.parametrize("program", PROGRAMS)
def test_bytes_of_any_kind_go_both_ways(program, echo):
    port, _ = echo
    data = bytes(range(256)) * 20_000
    with processes.attach(joined(program, port)) as channel:
        channel.settimeout(20)
        writer = threading.Thread(target=channel.sendall, args=(data,))
        writer.start()
        found = b""
        while len(found) < len(data):
            found += channel.recv(65536)
        writer.join()
    assert found == data


@pytest.mark.parametrize("program", PROGRAMS)
def test_it_ends_when_the_server_closes(program, echo):
    port, taken = echo
    with processes.attach(joined(program, port)) as channel:
        channel.settimeout(20)
        channel.sendall(b"x")
        assert channel.recv(10) == b"x"
        taken[0].shutdown(socket.SHUT_RDWR)
        assert channel.recv(10) == b""


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_connection_is_closed_when_we_close(program, echo):
    port, taken = echo
    channel = processes.attach(joined(program, port))
    channel.settimeout(20)
    channel.sendall(b"x")
    assert channel.recv(10) == b"x"
    channel.close()
    deadline = time.monotonic() + 10
    while taken[0].fileno() >= 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert taken[0].fileno() == -1  # the server has seen its end


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_check_only_connects(program, echo):
    port, _ = echo
    assert subprocess.run(joined(program, port, "check"), timeout=20, check=False).returncode == 0
    done = subprocess.run(joined(program, closed_port(), "check"), timeout=20, capture_output=True, check=False)
    assert done.returncode and b"refused" in done.stderr


def test_without_any_program_it_says_so(tmp_path):
    (tmp_path / "sh").symlink_to(shutil.which("sh") or "/bin/sh")
    argv = [str(tmp_path / "sh"), *joined("any", 1)[1:]]
    done = subprocess.run(argv, env={"PATH": str(tmp_path)}, capture_output=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (8, b"it has neither bash nor perl nor nc\n")
