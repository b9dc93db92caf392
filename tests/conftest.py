"""Fixtures of the tests: servers, databases, projects, the program, and what stands between them.

A test asks for `project` (or `database`, or `server`) and runs once over each way to a server; marked `versions` it
runs over every supported version too, marked `servers` over those it names. A test that needs just one real Postgres
asks for `plain_project`.
"""

from __future__ import annotations

import itertools
import signal

import pytest
from bed.gaps import Gap, GapReporter, not_run
from bed.object_store import object_store
from bed.pooler import Pooler
from bed.projects import Project, Runner
from bed.proxy import Proxy
from bed.servers import FULL_PASS, NASTY_NAME, VERSION_MATRIX, Bed, Database
from bed.session import LABEL, BedSession
from bed.storage import Storage

_numbers = itertools.count(1)


def pytest_configure(config):
    """Name our markers, have the gaps counted, and take Ctrl-C as a terminal gives it.

    A run that was started in the background ignores SIGINT and SIGQUIT, and so would every child that a test ends
    by them.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    config.addinivalue_line("markers", "versions: run over every supported version of Postgres, not only one")
    config.addinivalue_line("markers", "servers(*names): run over these servers, such as container-13")
    config.pluginmanager.register(GapReporter(), "gaps")


def pytest_generate_tests(metafunc):
    """Give each test that reaches `server` its servers."""
    if "server" in metafunc.fixturenames:
        chosen = metafunc.definition.get_closest_marker("servers")
        names = VERSION_MATRIX if metafunc.definition.get_closest_marker("versions") else FULL_PASS
        names = chosen.args if chosen else names
        metafunc.parametrize("server", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def bed(request):
    """The Bed of this run: every server, started when first asked for."""
    session = BedSession()
    bed = Bed(session)
    bed.wanted_versions = _container_versions(request.session.items)
    yield bed
    bed.close()
    session.close()


def _container_versions(items):
    names = {item.callspec.params.get("server", "") for item in items if hasattr(item, "callspec")}
    return sorted({int(name.rpartition("-")[2]) for name in names if name.startswith(("container", "url"))})


def _or_gap(make, *arguments, **options):
    try:
        return make(*arguments, **options)
    except Gap as gap:
        return not_run(gap.what, gap.reason)


@pytest.fixture(scope="session")
def server(bed, request):
    """A Server, in turn each of FULL_PASS or of VERSION_MATRIX. It is shared: leave it as it was."""
    return _or_gap(bed.server, request.param)


@pytest.fixture(scope="session")
def plain_server(bed, request):
    """This host's own Postgres by URL, no Docker; parametrise it indirectly for another driver than psql."""
    return _or_gap(bed.plain_server, getattr(request, "param", "psql"))


@pytest.fixture
def make_database():
    """make_database(server, name=None) -> a fresh Database, dropped after the test; without `name` it gets one."""
    made = []

    def make(server, name=None):
        server.cluster.ensure_running()
        database = Database(server, name or f"test_{next(_numbers)}")
        server.drop_database(database.name)
        server.create_database(database.name)
        made.append(database)
        return database

    yield make
    for database in made:
        database.server.cluster.ensure_running()
        database.server.drop_database(database.name)


@pytest.fixture
def database(server, make_database):
    """A fresh Database on `server`."""
    return make_database(server)


@pytest.fixture
def nasty_database(server, make_database):
    """A fresh Database on `server` whose name wants quoting everywhere."""
    return make_database(server, NASTY_NAME)


@pytest.fixture
def make_project(tmp_path, run):
    """make_project(database) -> a Project that leads to it, in a folder of its own below tmp_path."""
    return lambda database: Project(tmp_path / f"project-{next(_numbers)}", database, run)


@pytest.fixture
def project(database, make_project):
    """A Project with an empty migrations/ and a .env.dev that leads to `database`."""
    return make_project(database)


@pytest.fixture
def plain_project(plain_server, make_database, make_project):
    """As `project`, on `plain_server`."""
    return make_project(make_database(plain_server))


@pytest.fixture
def run(tmp_path):
    """run(*arguments, cwd=…, env=…, stdin=…, timeout=…) -> Outcome of nself-db in a clean environment."""
    home = tmp_path / "home"
    home.mkdir()
    return Runner(home)


@pytest.fixture
def new_container(bed):
    """new_container(version, **options) -> a ContainerCluster of the test's own, to be stopped, killed or filled."""
    made = []

    def make(version=15, **options):
        made.append(_or_gap(bed.new_container, version, **options))
        return made[-1]

    yield make
    for cluster in made:
        cluster.close()


@pytest.fixture
def new_plain(bed):
    """new_plain(**options) -> a PlainCluster of the test's own, to be stopped or killed."""
    made = []

    def make(**options):
        made.append(_or_gap(bed.new_plain, **options))
        return made[-1]

    yield make
    for cluster in made:
        cluster.close()


@pytest.fixture(scope="module")
def hasura_container(bed):
    """start(project, port) -> a container `<project>_hasura`, without bash, whose engine serves at that port.

    It shares this host's network, and so reaches the double as Hasura's own reaches its engine.
    """
    made = []
    try:
        engine, image = bed.engine(), bed.images().tag(15)
    except Gap as gap:
        not_run(gap.what, gap.reason)

    def start(project, port):
        made.append(engine.client.containers.run(
            image, ["600"], entrypoint="sleep", name=f"{project}_hasura", network_mode="host", detach=True, init=True,
            environment={"HASURA_GRAPHQL_SERVER_PORT": str(port)}, labels={LABEL: engine.session.id},
        ))  # fmt: skip
        return made[-1]

    yield start
    for container in made:
        container.remove(force=True)


@pytest.fixture
def pooler(bed):
    """pooler(cluster, pool_mode, **options) -> a Pooler in front of a cluster that is reached by TCP."""
    made = []

    def make(cluster, pool_mode="transaction", **options):
        made.append(_or_gap(Pooler, bed.session, cluster, pool_mode, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(scope="session")
def s3_server(bed):
    """A real S3 server with one bucket, see bed/object_store. It is shared: write under a prefix of your own."""
    store = _or_gap(object_store, bed.session)
    yield store
    store.close()


@pytest.fixture
def storage(s3_server):
    """A Storage: a place of the test's own in the object store."""
    storage = Storage(s3_server)
    yield storage
    storage.close()


@pytest.fixture
def proxy():
    """proxy(cluster) -> a Proxy to a cluster that is reached by TCP."""
    made = []

    def make(cluster):
        made.append(Proxy(cluster.port, cluster.host))
        return made[-1]

    yield make
    for each in made:
        each.close()
