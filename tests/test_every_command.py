"""What holds for every command of the table: help, JSON, dry-run, quiet, bad input, no server.

The tests are made from COMMANDS: a command without a case here fails.
"""

from __future__ import annotations

import shlex
import socket
import subprocess

import jsonschema
import pytest
from bed.hasura_engine import Engine
from bed.hasura_projects import FILES, write_files

import nself_db
from nself_core import shapes

# How each command is run on a project with migration 1 applied and migration 2 pending.
CASES = {
    "migrate up": [],
    "migrate down": [],
    "migrate status": [],
    "migrate create": ["add_column", "--sql", "ALTER TABLE np_a ADD COLUMN n int"],
    "migrate verify-checksums": [],
    "migrate reset-checksum": ["--migration", "1"],
    "migrate baseline": ["2", "--force"],
    "migrate repair": ["--migration", "2", "--applied"],
    "seed run": [],
    "seed list": [],
    "seed verify": [],
    "seed graph": [],
    "backup": [],
    "backup list": [],
    "backup verify": [],
    "backup prune": ["--keep-last", "1"],
    "restore": ["--force", "--no-safety-backup"],
    "list": ["--counts"],
    "shell": ["--command", "SELECT 1 AS one, 'ä' AS two"],
    "drop": ["--force"],
    "reset": ["--force"],
    "protect": [],
    "fixtures list": [],
    "fixtures run": ["--fixture", "one"],
    "fixtures verify": ["--fixture", "one"],
    "hasura console": ["--no-browser", "--port", "0", "--idle", "0.1"],
    "hasura metadata apply": [],
    "hasura metadata export": ["--force"],
    "hasura metadata reload": [],
    "hasura metadata diff": [],
    "hasura metadata validate": [],
    "hasura metadata lint": [],
    "hasura git status": [],
    "hasura git pull": [],
    "hasura git push": [],
    "server status": [],
    "server stop": [],
}
# The same with the backups of an object store, where a command knows them.
REMOTE_CASES = {
    "backup": ["--remote"],
    "backup list": ["--remote"],
    "backup verify": ["--remote"],
    "backup prune": ["--remote", "--keep-last", "1"],
    "restore": ["--remote", "--force", "--no-safety-backup"],
}
WITHOUT_SERVER = {
    "backup list", "backup verify", "hasura metadata lint", "migrate create", "server status", "server stop",
}  # fmt: skip
PATHS = [row.path for row in nself_db.COMMANDS]

FINGERPRINT = """
SELECT string_agg(n.nspname || '.' || c.relname || c.relfilenode, ',' ORDER BY c.oid) AS relations
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname NOT LIKE 'pg%' AND nspname <> 'information_schema'
"""
BOOKKEEPING = """
SELECT v.version, v.dirty, m.checksum
FROM hdb_catalog.schema_migrations v LEFT JOIN nself_db.migrations m USING (version)
"""


# Metadata of the project: it tracks the table of migration 1, of which the engine knows nothing yet.
TREE = {
    **{name: FILES[name] for name in ("version.yaml", "databases/databases.yaml")},
    "databases/default/tables/tables.yaml": '- "!include public_np_a.yaml"\n',
    "databases/default/tables/public_np_a.yaml": "table:\n  name: np_a\n  schema: public\n",
}


@pytest.fixture
def engine(request, plain_project):
    """An engine of Hasura's that the project's settings lead to, for the commands that are about one.

    With it the project has metadata files, in a git work tree.
    """
    values = request.node.callspec.params.values()
    if not any(str(getattr(value, "path", value)).startswith("hasura ") for value in values):
        yield None
        return
    url = plain_project.database.server.cluster.url(plain_project.database.name)
    with Engine(url) as running:
        hasura = {"HASURA_GRAPHQL_ENDPOINT": running.endpoint, "HASURA_GRAPHQL_ADMIN_SECRET": running.secret}
        plain_project.write_env({**plain_project.database.settings, **hasura})
        write_files(plain_project, TREE)
        subprocess.run(["git", "init", "-q"], cwd=plain_project.root, check=True)
        yield running


@pytest.fixture
def ready(plain_project, engine):
    """A project with one migration applied and one pending, a seed, and a backup."""
    plain_project.migration("1_a", "CREATE TABLE np_a (id int);", "DROP TABLE np_a;")
    plain_project.run("migrate", "up").ok()
    plain_project.write("seeds/first.sql", "INSERT INTO np_a SELECT 1 WHERE false;\n")
    plain_project.run("backup").ok()
    plain_project.write("fixtures/one.json", '{"np_a": {"first": {"id": 1}}}')
    plain_project.migration("2_b", "CREATE TABLE np_b (id int);", "DROP TABLE np_b;")
    return plain_project


def state(project):
    """What the database and the project's folders hold, to be compared."""
    places = [project.root / name for name in ("migrations", "hasura")]
    files = sorted((str(path), path.stat().st_mtime_ns) for place in places for path in place.rglob("*.*"))
    return project.database.admin(FINGERPRINT), project.database.admin(BOOKKEEPING), files


def closed_port():
    """A port of this host that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_every_command_has_a_case_a_handler_and_a_shape():
    assert sorted(CASES) == sorted(PATHS) == sorted(shapes.DATA)
    assert all(callable(nself_db.handler_of(path)) for path in PATHS)


@pytest.mark.parametrize("row", nself_db.COMMANDS, ids=PATHS)
def test_help_has_the_sentence_the_options_and_the_example(row, run):
    outcome = run(*row.path.split(), "--help").ok()
    assert row.help in outcome.out
    assert row.example in outcome.out
    assert all(
        name in outcome.out
        for option in (*row.options, *nself_db.GLOBAL)
        for name in option.names[:1]
        if name[0] == "-"
    )
    assert row.help[0].isupper() and row.help.endswith(".")


def test_the_help_of_a_group_is_shown_whatever_options_stand_beside_it(run):
    assert run("--env", "dev", "migrate", "--help", "--url", "x").ok().out == run("migrate", "--help").ok().out


@pytest.mark.parametrize("row", nself_db.COMMANDS, ids=PATHS)
def test_the_example_is_a_command_line_that_parses(row):
    path, rest = nself_db.find_command(shlex.split(row.example)[1:])
    assert path == row.path
    nself_db.build_parser(row).parse_args(rest)


@pytest.mark.parametrize("path", PATHS)
def test_json_is_one_document_of_the_documented_shape(path, ready):
    outcome = ready.run(*path.split(), *CASES[path], "--json").ok()
    jsonschema.validate(outcome.json(), shapes.document_schema(path))
    assert outcome.json()["command"] == path


@pytest.mark.parametrize("row", nself_db.COMMANDS, ids=PATHS)
def test_dry_run_changes_nothing_and_prints_the_plan(row, ready):
    before = state(ready)
    outcome = ready.run(*row.path.split(), *CASES[row.path], "--dry-run", "--json").ok()
    assert state(ready) == before
    plans = row.effect != nself_db.READS
    jsonschema.validate(outcome.json(), shapes.plan_schema() if plans else shapes.document_schema(row.path))
    assert outcome.json()["dry_run"] is True


def test_every_command_with_remote_has_a_case():
    options = {row.path: {name for option in row.options for name in option.names} for row in nself_db.COMMANDS}
    assert {path for path in PATHS if "--remote" in options[path]} == {*REMOTE_CASES}


@pytest.mark.parametrize("path", REMOTE_CASES)
def test_remote_in_json_dry_and_quiet(path, ready, storage):
    ready.write_env({**ready.database.settings, **storage.settings()})
    ready.run("backup", "--remote").ok()
    before = state(ready), storage.keys()
    plans = next(row for row in nself_db.COMMANDS if row.path == path).effect != nself_db.READS
    outcome = ready.run(*path.split(), *REMOTE_CASES[path], "--dry-run", "--json").ok()
    jsonschema.validate(outcome.json(), shapes.plan_schema() if plans else shapes.document_schema(path))
    assert (state(ready), storage.keys()) == before
    outcome = ready.run(*path.split(), *REMOTE_CASES[path], "--json").ok()
    jsonschema.validate(outcome.json(), shapes.document_schema(path))
    outcome = ready.run(*path.split(), *REMOTE_CASES[path], "--quiet").ok()
    assert outcome.err == "" and len(outcome.out.splitlines()) <= 1
    outcome = ready.run(*path.split(), *REMOTE_CASES[path], "--json", env={"STORAGE_BUCKET": ""})
    assert outcome.code == 1
    jsonschema.validate(outcome.json(), shapes.failure_schema())


@pytest.mark.parametrize("path", PATHS)
def test_quiet_prints_the_final_status_only(path, ready):
    outcome = ready.run(*path.split(), *CASES[path], "--quiet").ok()
    assert outcome.err == ""
    assert len(outcome.out.splitlines()) <= 1


@pytest.mark.parametrize("path", PATHS)
def test_an_unknown_option_is_usage(path, ready):
    outcome = ready.run(*path.split(), *CASES[path], "--no-such-option", "--json")
    assert outcome.code == 1
    jsonschema.validate(outcome.json(), shapes.failure_schema())
    assert outcome.json()["error"]["code"] == "usage"
    assert outcome.err.count("error: ") == 1


@pytest.mark.parametrize("path", PATHS)
def test_no_server_is_exit_2_with_a_hint(path, ready):
    url = f"postgresql://someone:s3cret-word@127.0.0.1:{closed_port()}/db"
    env = {"HASURA_GRAPHQL_ENDPOINT": f"http://127.0.0.1:{closed_port()}"}
    outcome = ready.run(*path.split(), *CASES[path], "--url", url, "--json", env=env)
    if path in WITHOUT_SERVER:
        outcome.ok()
        return
    assert outcome.code == 2
    jsonschema.validate(outcome.json(), shapes.failure_schema())
    assert outcome.json()["error"]["code"] == "unreachable"
    assert outcome.json()["error"]["hint"]
    assert "s3cret-word" not in outcome.out + outcome.err


@pytest.mark.parametrize("path", PATHS)
def test_options_for_every_command_may_stand_before_it(path, ready):
    ready.run("--json", "--env", "dev", "db", *path.split(), *CASES[path]).ok().json()


@pytest.mark.parametrize("path", ["migrate", "seed", "server", "hasura", "hasura metadata", "hasura git", ""])
def test_a_bare_group_prints_its_commands(path, run):
    outcome = run(*path.split()).ok()
    assert all(row.path in outcome.out and row.help in outcome.out for row in nself_db.below(path))


def test_an_unknown_command_names_the_nearest(run):
    outcome = run("migrate", "stauts")
    assert outcome.code == 1
    assert outcome.err == "error: there is no command 'migrate stauts'\nhint: did you mean: nself-db migrate status\n"


def test_no_project_says_where_it_looked(run):
    outcome = run("migrate", "status")
    assert outcome.code == 1
    assert "--project" in outcome.err
