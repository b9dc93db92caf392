"""The way to the engine: by its address, or through `docker exec` where only its container reaches it.

localhost in the settings means the computer that Docker runs on. Where that is another one (DOCKER_HOST=ssh://…), the
engine at our own localhost, if any, is another environment's, and is never asked. Where it is this one and nothing
listens (the port is not published), the container is tried too.
"""

from __future__ import annotations

from collections import namedtuple

from nself_core import processes
from nself_core.failures import Unreachable
from nself_core.hasura.api import HasuraApi
from nself_core.postgres.reach import docker_environment, labelled_container

LOOPBACK = ("localhost", "127.0.0.1", "::1")
PORT = 8080  # the engine's own in its container, unless HASURA_GRAPHQL_SERVER_PORT says otherwise
PROBE_SECONDS = 2
DOCKER_SECONDS = 60  # by ssh, a first connection included

# Join the standard streams to a port, with what an image has: curl and socat are seldom there. When either side closes,
# both directions end, and the command with them. With the mode "check" they only connect.
BASH = """
exec 3<>"/dev/tcp/$0/$1" || exit 7
[ "$2" = check ] && exit 0
cat <&3 & reader=$!
cat <&0 >&3 & writer=$!
wait -n
kill $reader $writer 2>/dev/null
"""
PERL = """
use IO::Socket::INET;
my ($host, $port, $mode) = @ARGV;
my $server = IO::Socket::INET->new(PeerAddr => $host, PeerPort => $port) or die "$!\\n";
exit 0 if $mode eq "check";
sub carry {
    my ($from, $to) = @_;
    while (sysread($from, my $piece, 65536)) {
        while (length $piece) { my $sent = syswrite($to, $piece) or return; substr($piece, 0, $sent) = "" }
    }
}
my $main = $$;
if (my $writer = fork) { carry($server, \\*STDOUT); kill "TERM", $writer; exit 0 }
carry(\\*STDIN, $server);
kill "TERM", $main if getppid == $main;
"""
# BusyBox's nc goes on until the server closes, which it does after an answer.
CHOOSE = """
command -v bash >/dev/null && exec bash -c "$3" "$0" "$1" "$2"
command -v perl >/dev/null && exec perl -e "$4" "$0" "$1" "$2"
if command -v nc >/dev/null; then [ "$2" = check ] && exec nc -z "$0" "$1"; exec nc "$0" "$1"; fi
echo "it has neither bash nor perl nor nc" >&2
exit 8
"""

Engine = namedtuple("Engine", "endpoint secret dial where")
Engine.__doc__ = """How to ask the engine.

`endpoint`, its base address; `secret`, the admin secret or None; `dial`, what gives a socket to it, None where the
address leads there; `where`, the place in words.
"""


def find_engine(settings):
    """The Engine of this environment.

    Raises Unreachable where the settings mean a container, and neither it nor the stack's Postgres container leads to
    the engine. Whether the engine answers is not asked where its address leads there.
    """
    endpoint, secret = settings.hasura_endpoint, settings.hasura_admin_secret
    direct = Engine(endpoint, secret, None, endpoint)
    host, port = _place(endpoint)
    if host not in LOOPBACK:
        return direct
    is_remote = docker_is_elsewhere(settings)
    if not is_remote and _listens(host, port):
        return direct
    try:
        return _through_container(settings, secret)
    except Unreachable:
        if is_remote:
            raise
        return direct  # the failure of the address that was set says more


def open_api(settings):
    """The HasuraApi of this environment's engine. Raises what find_engine raises."""
    engine = find_engine(settings)
    return HasuraApi(engine.endpoint, engine.secret, dial=engine.dial)


def _place(endpoint):
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(endpoint)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:  # told by the request
        return "", 0


def docker_is_elsewhere(settings):
    """Whether this environment's Docker runs on another computer; without one, it does not."""
    host = settings.docker_host
    context = settings.get("DOCKER_CONTEXT")
    if not host and context and context != "default":
        argv = ["docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}", context]
        host = processes.run(argv, timeout=DOCKER_SECONDS).out.strip()
    scheme, mark, rest = (host or "").partition("://")
    return bool(mark) and scheme in ("ssh", "tcp") and _place(f"x://{rest}")[0] not in LOOPBACK


def _listens(host, port):
    import socket

    try:
        socket.create_connection((host, port), PROBE_SECONDS).close()
        return True
    except OSError:
        return False


# Through a container.


def _through_container(settings, secret):
    """The Engine by the container of Hasura, or by that of Postgres where that one cannot. Raises Unreachable."""
    env = processes.child_env(docker_environment(settings))
    name, port = _hasura_container(settings, env)
    postgres = settings.get("NSELF_DB_CONTAINER") or f"{settings.project_name}_postgres"
    problems = []
    for container, host in ((name, "127.0.0.1"), (postgres, name)):
        problem = _trouble(container, host, port, env)
        if problem is None:
            return _engine(_bridge(container, host, port, "join"), env, f"http://{name}:{port}", secret, container)
        problems.append(problem)
    raise problems[0]


def _bridge(container, host, port, mode):
    return ["docker", "exec", "-i", container, "sh", "-c", CHOOSE, host, str(port), mode, BASH, PERL]


def _engine(argv, env, endpoint, secret, container):
    def dial():
        return processes.attach(argv, env)

    return Engine(endpoint, secret, dial, f"{endpoint} (through container {container})")


def _hasura_container(settings, env):
    """The name of Hasura's container and the port it serves inside. Raises Unreachable."""
    name = f"{settings.project_name}_hasura"
    done = _inspect(name, env)
    if done.code:
        labelled = labelled_container(settings, "hasura")
        if labelled is None:
            said = (done.err.strip().splitlines() or ["no reason given"])[-1]
            hint = "start the stack, or set PROJECT_NAME or HASURA_GRAPHQL_ENDPOINT"
            raise Unreachable(f"the container {name} cannot be looked at: {said}", hint)
        name, done = labelled, _inspect(labelled, env)
    return name, _served_port(done.out)


def _inspect(container, env):
    argv = ["docker", "inspect", "--type", "container", "--format", "{{json .Config.Env}}", container]
    return processes.run(argv, env, timeout=DOCKER_SECONDS)


def _served_port(variables):
    import json

    found = dict(pair.partition("=")[::2] for pair in json.loads(variables or "null") or ())
    told = found.get("HASURA_GRAPHQL_SERVER_PORT", "")
    return int(told) if told.isdecimal() else PORT


def _trouble(container, host, port, env):
    """The failure of a first, empty connection; None when it works."""
    done = processes.run(_bridge(container, host, port, "check"), env, timeout=DOCKER_SECONDS)
    if done.code == 0:
        return None
    # A program that is not there is told on standard output.
    said = ((done.err or done.out).strip().splitlines() or [f"exit code {done.code}"])[-1]
    return Unreachable(
        f"Hasura cannot be reached at port {port} through the container {container}: {said}",
        "publish its port and set HASURA_GRAPHQL_ENDPOINT, or forward the port by ssh",
    )
