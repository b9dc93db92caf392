"""A URL on a host without client programs, or with older ones: those of the project's container run in their place."""

from __future__ import annotations

import json
import secrets
import shutil
from types import SimpleNamespace

import psycopg
import pytest
from bed.docker_engine import NETWORK
from bed.gaps import not_run
from bed.local_processes import wait_until
from bed.projects import REPOSITORY
from psycopg import sql
from test_restore import CATALOGUE, drop_beside, filled
from test_secrets import forms, watch

from nself_core import processes
from nself_core.failures import CredentialsRefused, Unreachable
from nself_core.postgres import container_clients as clients
from nself_core.postgres.reach import UrlReach
from nself_core.settings import load_settings

# What the host has beside its PATH is taken away before the program looks.
WITHOUT_CLIENTS = """
from nself_core.postgres import toolchain
toolchain.HOST_FOLDERS, toolchain._wheel_toolchains = (), lambda: []
"""
WITHOUT_PSYCOPG = """
import sys
sys.modules["psycopg"] = None
from nself_core.postgres import reach
reach._has_psycopg = lambda: False
"""
VERSION = 15
PUBLISHED = {"5432/tcp": [{"HostIp": "127.0.0.1", "HostPort": "5433"}], "80/tcp": None}


class Bare:
    """A project by the URL of its container's published port, whose host has docker and no client program."""

    def __init__(self, project, folder, cluster):
        self.project = project
        self.database = project.database
        self.cluster = cluster
        self.root = project.root
        self.programs = folder / "bin"
        self.programs.mkdir()
        for name in ("docker", "age", "sh", "sleep"):
            if shutil.which(name):
                (self.programs / name).symlink_to(shutil.which(name))
        self.site = folder / "site" / "sitecustomize.py"
        self.site.parent.mkdir()
        self.site.write_text(WITHOUT_CLIENTS, encoding="utf-8")
        self.env = {"PATH": str(self.programs), "PYTHONPATH": f"{self.site.parent}:{REPOSITORY}"}
        self.settings = {**project.database.settings, "NSELF_DB_URL": cluster.url(project.database.name)}
        self.settings.update({"NSELF_DB_CONTAINER": cluster.name, "DOCKER_HOST": cluster.docker_host})
        self.settings["NSELF_DB_DRIVER"] = "psycopg"
        project.write_env(self.settings)

    def change(self, **settings):
        """Write the settings anew, with these; None takes one away."""
        self.settings.update(settings)
        self.project.write_env({name: value for name, value in self.settings.items() if value is not None})

    def run(self, *words, env=None, **options):
        return self.project.run(*words, env={**self.env, **(env or {})}, **options)

    def start(self, *words):
        return self.project.start(*words, env=self.env)

    def fake(self, program, version):
        """Put a client program of another version on the PATH."""
        path = self.programs / program
        path.write_text(f"#!/bin/sh\necho '{program} (PostgreSQL) {version}'\n", encoding="utf-8")
        path.chmod(0o755)


@pytest.fixture
def bare(project, server, tmp_path):
    folder = tmp_path / "bare"
    folder.mkdir()
    yield Bare(project, folder, server.cluster)
    drop_beside(project)


IN_A_CONTAINER = pytest.mark.servers("url-psycopg-15")


def manifest_of(bare, data):
    return json.loads((bare.root / f"{data['file']}.json").read_text(encoding="utf-8"))


# There and back.


@IN_A_CONTAINER
@pytest.mark.parametrize(
    ("options", "jobs"),
    [
        ([], []),
        ([], ["--jobs", "2"]),
        (["--format", "plain", "--compress", "3"], []),
        (["--format", "directory", "--jobs", "2"], ["--jobs", "2"]),
    ],
    ids=str,
)
def test_every_format_there_and_back(bare, options, jobs):
    filled(bare)
    before = bare.database.admin(CATALOGUE)
    data = bare.run("backup", *options, "--verify", "--json").ok().json()["data"]
    manifest = manifest_of(bare, data)
    assert f" {VERSION}." in manifest["pg_dump"] and "CREATE ROLE" in manifest["globals"]
    assert bare.run("backup", "verify", "--json").ok().json()["data"]["backups"][0]["state"] == "good"
    bare.database.admin("DROP TABLE parent CASCADE")
    safety = ["--no-safety-backup"] if options else []
    bare.run("restore", "--force", *jobs, *safety).ok()
    assert bare.database.admin(CATALOGUE) == before
    assert bare.cluster.run("sh", "-c", "ls /tmp").split() == []


@IN_A_CONTAINER
def test_a_verify_finds_what_is_damaged(bare):
    filled(bare)
    data = bare.run("backup", "--compress", "0", "--json").ok().json()["data"]
    path = bare.root / data["file"]
    path.write_bytes(path.read_bytes()[:-100])
    (bare.root / f"{data['file']}.json").unlink()
    row = bare.run("backup", "verify", "--json").json()["data"]["backups"][0]
    assert row["state"] == "damaged" and "end of file" in row["reason"]


@IN_A_CONTAINER
def test_an_older_program_of_the_host_is_passed_over(bare):
    filled(bare)
    for program in ("pg_dump", "pg_dumpall"):
        bare.fake(program, "9.6.1")
    data = bare.run("backup", "--json").ok().json()["data"]
    assert f" {VERSION}." in manifest_of(bare, data)["pg_dump"]
    unable = "echo 'pg_restore: error: unsupported version (1.16) in file header' >&2; exit 1"
    (bare.programs / "pg_restore").write_text(f"#!/bin/sh\n{unable}\n", encoding="utf-8")
    (bare.programs / "pg_restore").chmod(0o755)
    bare.run("backup", "verify").ok()
    bare.change(NSELF_DB_CONTAINER="nowhere_postgres")
    outcome = bare.run("backup", "verify")
    assert outcome.code == 2 and "unsupported version" in outcome.err and "nowhere_postgres" in outcome.err


@IN_A_CONTAINER
def test_at_an_address_that_both_reach_the_url_stays(bare):
    filled(bare)
    address = bare.cluster.run("sh", "-c", "hostname -i").split()[0]
    url = bare.settings["NSELF_DB_URL"].replace(f"127.0.0.1:{bare.cluster.port}", f"{address}:5432")
    bare.change(NSELF_DB_URL=url)
    bare.run("backup", "--verify").ok()


@IN_A_CONTAINER
def test_what_the_url_leaves_open_is_the_environments(bare):
    filled(bare)
    url = f"postgresql://localhost:{bare.cluster.port}/{bare.database.name}"
    bare.change(NSELF_DB_URL=url)
    login = {"PGUSER": bare.cluster.user, "PGPASSWORD": bare.cluster.password, "PGSSLMODE": "prefer"}
    bare.run("backup", env=login).ok()


@IN_A_CONTAINER
def test_an_encrypted_backup_is_restored_with_jobs(bare, tmp_path):
    if not shutil.which("age-keygen"):
        not_run("an encrypted backup by a container's client", "age is not installed")
    filled(bare)
    key = tmp_path / "key"
    processes.run(["age-keygen", "-o", str(key)])
    recipient = key.read_text(encoding="utf-8").partition("public key: ")[2].split()[0]
    bare.change(BACKUP_AGE_RECIPIENTS=recipient, BACKUP_AGE_IDENTITY=str(key))
    before = bare.database.admin(CATALOGUE)
    bare.run("backup", "--verify").ok()
    bare.database.admin("DROP TABLE parent CASCADE")
    bare.run("restore", "--force", "--jobs", "2", "--no-safety-backup").ok()
    assert bare.database.admin(CATALOGUE) == before


@IN_A_CONTAINER
def test_into_an_object_store_and_back(bare, storage):
    filled(bare)
    before = bare.database.admin(CATALOGUE)
    bare.change(**storage.settings())
    bare.run("backup", "--remote", "--no-local", "--verify").ok()
    assert bare.run("backup", "verify", "--remote", "--json").ok().json()["data"]["backups"][0]["state"] == "good"
    bare.database.admin("DROP TABLE parent CASCADE")
    bare.run("restore", "--remote", "--force", "--no-safety-backup").ok()
    assert bare.database.admin(CATALOGUE) == before


@IN_A_CONTAINER
@pytest.mark.parametrize("options", ["custom", "directory", "plain", "plain --compress 3", "custom psql"])
def test_in_place(bare, options):
    form, *more = options.split()
    if more == ["psql"]:
        bare.change(NSELF_DB_DRIVER=more.pop())
    filled(bare)
    before = bare.database.admin(CATALOGUE)
    bare.run("backup", "--format", form, *more).ok()
    bare.database.admin("DROP TABLE parent CASCADE")
    safety = [] if form == "custom" else ["--no-safety-backup"]
    bare.run("restore", "--in-place", "--force", *safety).ok()
    assert bare.database.admin(CATALOGUE) == before
    assert bare.cluster.run("sh", "-c", "ls /tmp").split() == []


@IN_A_CONTAINER
def test_what_fails_in_place_changes_nothing(bare):
    filled(bare)
    bare.database.admin("CREATE ROLE gone_owner; ALTER TABLE parts OWNER TO gone_owner")
    try:
        data = bare.run("backup", "--compress", "0", "--json").ok().json()["data"]
    finally:
        bare.database.admin("REASSIGN OWNED BY gone_owner TO CURRENT_USER; DROP ROLE gone_owner")
    before = bare.database.admin(CATALOGUE)
    words = ("restore", "--in-place", "--force", "--no-safety-backup")
    outcome = bare.run(*words)
    assert outcome.code == 1 and "gone_owner" in outcome.err and "nothing was changed" in outcome.err, repr(outcome)
    wrong = bare.cluster.url(bare.database.name, password="wr0ng-guess")
    outcome = bare.run(*words, env={"NSELF_DB_URL": wrong})
    assert outcome.code == 3 and "wr0ng-guess" not in outcome.err + outcome.out, repr(outcome)
    outcome = bare.run(*words, env={"NSELF_DB_CONTAINER": "nowhere_postgres"})
    assert outcome.code == 2 and "there is no container nowhere_postgres" in outcome.err, repr(outcome)
    path = bare.root / data["file"]
    path.write_bytes(path.read_bytes()[:-100])
    outcome = bare.run(*words)
    assert outcome.code == 1 and "damaged" in outcome.err, repr(outcome)
    assert bare.database.admin(CATALOGUE) == before
    assert bare.cluster.run("sh", "-c", "ls /tmp").split() == []


# pgBouncer's console, and the template of clones.


@IN_A_CONTAINER
def test_pgbouncer_is_paused_by_the_containers_psql(bare, bed, pooler):
    (network,) = bed.engine().client.networks.list(names=[f"^{NETWORK}$"])
    network.reload()
    gateway = network.attrs["IPAM"]["Config"][0]["Gateway"]
    bouncer = pooler(bare.cluster, listen=f"127.0.0.1,{gateway}")
    filled(bare)
    bare.run("backup").ok()
    bare.change(
        PGBOUNCER_ENABLED="true",
        PGBOUNCER_HOST=gateway,
        PGBOUNCER_PORT=str(bouncer.port),
        PGBOUNCER_ADMIN_USER=bare.cluster.user,
        PGBOUNCER_ADMIN_PASSWORD=bare.cluster.password,
    )
    with psycopg.connect(bouncer.url(bare.database.name), autocommit=True, prepare_threshold=None) as client:
        client.execute("SELECT 1")
        outcome = bare.run("restore", "--force", "--no-safety-backup").ok()
        assert "warning" not in outcome.err
        assert client.execute("SELECT current_database()").fetchone() == (bare.database.name,)
    bare.change(PGBOUNCER_HOST="127.0.0.1")
    outcome = bare.run("restore", "--force", "--no-safety-backup").ok()
    assert "pgBouncer was not paused" in outcome.err and f"port {bouncer.port} of this host" in outcome.err


@IN_A_CONTAINER
def test_a_clone_for_fixtures_is_made_by_the_containers_programs(bare):
    bare.database.admin("CREATE TABLE np_t (id int)")
    bare.project.write("fixtures/one.yaml", "np_t:\n  a: {id: 7}\n")
    try:
        bare.run("fixtures", "run", "--fixture", "one", "--", "sh", "-c", "true").ok()
    finally:
        bare.database.server.drop_database(f"{bare.database.name}_template")


@pytest.mark.parametrize(
    ("end", "variables"),
    [
        (None, {}),
        (("10.1.2.3", "6432"), {"PGHOST": "10.1.2.3", "PGPORT": "6432", "PGHOSTADDR": "10.1.2.3"}),
        (("localhost", "5433"), {"PGHOST": "localhost", "PGPORT": "5432", "PGHOSTADDR": "127.0.0.1"}),
        (("127.0.0.1", "6432"), None),
    ],
)
def test_the_way_to_another_server(monkeypatch, end, variables):
    there = SimpleNamespace(container="app_postgres", docker_env={})
    monkeypatch.setattr(processes, "find_program", lambda name: name)
    monkeypatch.setattr(clients, "_find_container", lambda _: (there, {"network": "bridge", "ports": PUBLISHED}))
    if variables is not None:
        assert clients.way_to(None, end, Unreachable("no psql")) == (there, variables)
        return
    with pytest.raises(Unreachable, match="no psql, and the container's cannot be used: .*port 6432 of this host"):
        clients.way_to(None, end, Unreachable("no psql"))


# The shell.


@IN_A_CONTAINER
def test_the_shell_is_the_containers_psql(bare):
    told = bare.run("shell", stdin="SELECT current_database() AS here;\n\\! cat /proc/1/comm\n").ok().out
    assert bare.database.name in told and "postgres" in told


# Sessions: psycopg is not meant, or not there.


@IN_A_CONTAINER
@pytest.mark.parametrize("driver", ["psql", None])
def test_without_psycopg_everything_is_asked_by_the_containers_psql(bare, driver):
    filled(bare)
    before = bare.database.admin(CATALOGUE)
    bare.change(NSELF_DB_DRIVER=driver)
    if driver is None:
        # As on a host that has the one file and a bare Python.
        bare.site.write_text(bare.site.read_text(encoding="utf-8") + WITHOUT_PSYCOPG, encoding="utf-8")
    bare.project.migration("1_a", "CREATE TABLE np_a (id int);")
    bare.run("migrate", "up").ok()
    bare.database.admin("DROP TABLE np_a")
    bare.run("backup", "--verify").ok()
    bare.database.admin("DROP TABLE parent CASCADE")
    bare.run("restore", "--force").ok()
    assert bare.database.admin(CATALOGUE) == before
    rows = bare.run("shell", "--command", "SELECT inet_server_addr()", "--json").ok().json()["data"]["rows"]
    assert rows == [["127.0.0.1"]]


@IN_A_CONTAINER
def test_without_psycopg_and_container_the_hint_names_all_ways(bare):
    bare.change(NSELF_DB_DRIVER="psql", NSELF_DB_CONTAINER="nowhere_postgres")
    error = refusal(bare, "list")
    assert "there is no psql on this host" in error["message"] and "nowhere_postgres" in error["message"]
    assert error["hint"] == "install a Postgres client, or psycopg, or start the stack"


# Secrets, and what a killed run leaves.


@IN_A_CONTAINER
@pytest.mark.parametrize("words", [("backup", "--verify"), ("restore", "--force", "--no-safety-backup")], ids=" ".join)
def test_a_password_is_in_no_argument_list(bare, words):
    secret, name = f"s3cret/{secrets.token_hex(12)}@:?", f"owner_{secrets.token_hex(4)}"
    create = "CREATE ROLE {} LOGIN SUPERUSER PASSWORD {}"
    bare.database.admin(sql.SQL(create).format(sql.Identifier(name), sql.Literal(secret)))
    try:
        bare.database.admin("CREATE TABLE a AS SELECT i, md5(i::text) FROM generate_series(1, 100000) i")
        bare.change(NSELF_DB_URL=bare.cluster.url(bare.database.name, user=name, password=secret))
        bare.run("backup").ok()
        process = bare.start(*words, "--verbose")
        leaks, looks = watch(process, forms(secret))
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert looks > 3
        assert leaks == set()
        assert not any(form in out + err for form in forms(secret))
    finally:
        drop_beside(bare.project)
        bare.database.admin(sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(sql.Identifier(name)))
        bare.database.admin(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@IN_A_CONTAINER
@pytest.mark.parametrize("options", [[], ["--format", "directory"]], ids=str)
def test_a_killed_run_leaves_no_program_in_the_container(bare, options):
    filled(bare)
    dumps = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'nself-db%' AND datname = current_database()"
    with bare.database.connect(autocommit=False) as gate:
        gate.execute("LOCK TABLE parent IN ACCESS EXCLUSIVE MODE")
        process = bare.start("backup", *options)
        waits = f"{dumps} AND wait_event_type = 'Lock'"
        wait_until(lambda: bare.database.admin(waits), 20, lambda: "pg_dump does not wait")
        process.kill()
        process.communicate()
        wait_until(lambda: not bare.database.admin(dumps), 10, lambda: "its session lives on")
    assert "pg_dump" not in bare.cluster.run("sh", "-c", "cat /proc/[0-9]*/comm")
    assert bare.cluster.run("sh", "-c", "ls /tmp").split() == []


# Where the container cannot stand in, exit code 2 says why.


def refusal(bare, *words):
    outcome = bare.run(*words, "--json")
    assert outcome.code == 2, outcome
    assert not list(bare.root.glob(".nself-backups/*"))
    return outcome.json()["error"]


@IN_A_CONTAINER
def test_a_url_to_another_server_of_this_host(bare, plain_server, make_database):
    other = make_database(plain_server)
    bare.change(NSELF_DB_URL=plain_server.cluster.url(other.name))
    error = refusal(bare, "backup")
    assert error["message"].startswith("there is no pg_dump on this host, and the container's cannot be used: ")
    assert f"port {plain_server.cluster.port} of this host" in error["message"]
    assert error["hint"] == "install Postgres' client programs"


@IN_A_CONTAINER
def test_no_container(bare):
    bare.change(NSELF_DB_CONTAINER="nowhere_postgres")
    error = refusal(bare, "backup")
    assert "there is no container nowhere_postgres" in error["message"]
    assert error["hint"] == "install Postgres' client programs, or start the stack"
    outcome = bare.run("shell")
    assert outcome.code == 2 and "there is no psql on this host" in outcome.err


@IN_A_CONTAINER
def test_no_docker(bare):
    (bare.programs / "docker").unlink()
    error = refusal(bare, "backup")
    assert (error["message"], error["hint"]) == (
        "there is no pg_dump on this host",
        "install Postgres' client programs",
    )


def test_a_container_that_is_older_than_the_server(monkeypatch):
    monkeypatch.setattr(processes, "find_program", lambda name: name)
    reach = SimpleNamespace(place=clients.Place("app_postgres", {}, "", {}, 13))
    with pytest.raises(Unreachable) as caught:
        clients.place_of(SimpleNamespace(reach=reach), "pg_dump", 15, Unreachable("no pg_dump", "install it"))
    assert "app_postgres is 13, and the server 15" in caught.value.message


# Which way: pure.


@pytest.mark.parametrize(
    ("url", "env", "ends"),
    [
        ("postgresql://u@h:5433/d", {}, [("h", "5433")]),
        ("postgresql://h/d", {"PGPORT": "6000", "PGHOST": "other"}, [("h", "6000")]),
        ("postgresql://u@[::1]:5433/d", {}, [("::1", "5433")]),
        ("postgresql://a:1,b:2/d", {}, [("a", "1"), ("b", "2")]),
        ("postgresql://a,b/d?port=7", {}, [("a", "7"), ("b", "7")]),
        ("postgresql://%2Ftmp/d", {}, [("/tmp", "5432")]),
        ("postgresql:///d?host=/run&port=1", {}, [("/run", "1")]),
        ("postgresql://db:9/d?hostaddr=127.0.0.1", {}, [("127.0.0.1", "9")]),
        ("postgresql:///d", {}, [("", "5432")]),
        ("postgresql:///d", {"PGHOST": "h"}, [("h", "5432")]),
        ("postgresql:///d", {"PGHOST": "h", "PGHOSTADDR": "10.0.0.1"}, [("10.0.0.1", "5432")]),
    ],
)
def test_where_a_url_leads(url, env, ends):
    assert clients._ends(url, env) == ends


LAN = {"5432/tcp": [{"HostIp": "192.168.7.7", "HostPort": "5433"}]}


@pytest.mark.parametrize(
    ("ends", "ports", "network", "added"),
    [
        ([("127.0.0.1", "5433")], PUBLISHED, "bridge", "&hostaddr=127.0.0.1&port=5432"),
        ([("localhost", "5433")], PUBLISHED, "bridge", "&hostaddr=127.0.0.1&port=5432"),
        ([("10.1.2.3", "5433")], {}, "bridge", "&hostaddr=10.1.2.3"),
        ([("10.1.2.3", "5433"), ("::2", "5433")], {}, "bridge", "&hostaddr=10.1.2.3,::2"),
        ([("127.0.0.1", "5433")], {}, "host", "&hostaddr=127.0.0.1"),
        ([("no-such-host.invalid", "5433")], PUBLISHED, "bridge", None),
        ([("127.0.0.1", "5432")], PUBLISHED, "bridge", None),
        ([("127.0.0.1", "5433")], LAN, "bridge", None),
        ([("127.0.0.1", "5433"), ("10.1.2.3", "5433")], PUBLISHED, "bridge", None),
        ([("/run/postgresql", "5433")], PUBLISHED, "host", None),
        ([("", "5433")], PUBLISHED, "bridge", None),
    ],
)
def test_the_way_from_the_container(ends, ports, network, added):
    there = SimpleNamespace(container="app_postgres", docker_env={"DOCKER_HOST": "unix:///run/docker.sock"})
    facts = {"network": network, "ports": ports}
    if added is not None:
        assert clients._way_from(there, facts, ends) == added
        return
    with pytest.raises(Unreachable, match="of this host|is not known here"):
        clients._way_from(there, facts, ends)


def test_an_engine_on_another_machine_has_another_localhost():
    there = SimpleNamespace(container="app_postgres", docker_env={"DOCKER_HOST": "ssh://deploy@far"})
    facts = {"network": "host", "ports": PUBLISHED}
    assert clients._way_from(there, facts, [("10.1.2.3", "5433")]) == "&hostaddr=10.1.2.3"
    with pytest.raises(Unreachable, match="port 5433 of this host"):
        clients._way_from(there, facts, [("127.0.0.1", "5433")])


@pytest.mark.parametrize(
    ("url", "env", "file"),
    [
        ("postgresql://u:p@h/d?sslrootcert=/etc/root.crt", {}, "sslrootcert"),
        ("postgresql://u:p@h/d", {"PGSSLKEY": "/k"}, "sslkey"),
        ("postgresql://u:p@h/d?service=x", {}, "service"),
        ("postgresql://u@h/d", {"PGPASSFILE": "~/passwords"}, "passwords"),
        ("postgresql://u:p@h/d?sslrootcert=system", {"PGPASSFILE": "~/passwords"}, None),
        ("postgresql://u@h/d", {"PGPASSFILE": "~/passwords", "PGPASSWORD": "p"}, None),
    ],
)
def test_what_stands_in_a_file_of_this_host(tmp_path, monkeypatch, url, env, file):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "passwords").write_text("", encoding="utf-8")
    env = {name: value.replace("~", str(tmp_path)) for name, value in env.items()}
    reach = UrlReach(url, "psycopg", load_settings(project=str(tmp_path), environ={}))
    if file is None:
        clients._refuse_files(reach, env)
        return
    with pytest.raises(Unreachable, match=f"{file} is a file of this host"):
        clients._refuse_files(reach, env)


def test_trusted_authorities_of_the_user_are_a_file_too(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".postgresql").mkdir()
    (tmp_path / ".postgresql" / "root.crt").write_text("", encoding="utf-8")
    reach = UrlReach("postgresql://u:p@h/d", "psycopg", load_settings(project=str(tmp_path), environ={}))
    with pytest.raises(Unreachable, match="root.crt is a file"):
        clients._refuse_files(reach, {})


def test_another_server_that_answers_is_found_out():
    place = clients.Place("app_postgres", {}, "", {}, 0)
    proof = ["u", "d", 16384, 1700000000000000]
    assert clients._same(place, 'psql (PostgreSQL) 15.9 (Debian)\n["u", "d", 16384, 1700000000000000]\n', proof) == 15
    for other in (["u", "d", 16384, 1], ["v", "d", 16384, 1700000000000000], ["u", "d", 1, 1700000000000000]):
        with pytest.raises(Unreachable, match="another server"):
            clients._same(place, f"psql (PostgreSQL) 15.9\n{json.dumps(other)}\n", proof)


def test_refused_credentials_are_told_as_such():
    class Database:
        reach = SimpleNamespace(place=None)

    def refuse(database):
        raise CredentialsRefused("no")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(CredentialsRefused):
        patch.setattr(clients, "_find_place", refuse)
        patch.setattr(processes, "find_program", lambda name: name)
        clients.place_of(Database(), "pg_dump", 15, Unreachable("none"))
