"""What holds for every command that is about Hasura's engine, whatever the engine does: a table of them, and cases.

The state before each: files that are committed say BLOG, nothing was synced yet, and the engine has what the command's
row of the table says.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections import namedtuple

import jsonschema
import pytest
from bed.hasura_engine import Engine
from bed.hasura_projects import (
    BLOG,
    METADATA,
    POSTS,
    POSTS_FILE,
    SCHEMA,
    SECRET,
    document,
    files_of,
    live,
    permission,
    replace,
    settings_of,
    table,
    url_of,
    write_files,
)
from bed.little_server import LittleServer, reply
from bed.projects import Project, Runner
from bed.servers import Database

import nself_db
from nself_core import shapes

AUTHORS = document(table("authors"))
GUESTS = document(table("authors", select_permissions=[permission("guest", "id")]), POSTS)
READS = {"export_metadata", "get_inconsistent_metadata", "get_catalog_state"}
BASE = ".nself/hasura-base.json"


def put_before(api, listen):
    """Let `listen` be asked in the place of an engine's Api; returns what answered until now."""
    answer, api.answer = api.answer, listen
    return answer


class Stand:
    """A project over a database of `server`, with an engine of its own, for all tests of this module.

    `sent` are the types of the requests of the metadata API that the last run of the program has sent.
    """

    def __init__(self, server, folder):
        server.cluster.ensure_running()
        self.server, self.name = server, f"every_hasura_{os.getpid()}"
        server.drop_database(self.name)
        server.create_database(self.name)
        server.admin(SCHEMA, self.name)
        (folder / "home").mkdir()
        self.project = Project(folder / "project", Database(server, self.name), Runner(folder / "home"))
        self.engine = Engine(url_of(self.project), SECRET)
        self.sent, self._heard, self._meanwhile = [], [], None
        self._answer = put_before(self.engine.api, self._listen)
        write_files(self.project)
        for words in (["init", "-q"], ["add", "hasura"], ["commit", "-qm", "state"]):
            who = ["-c", "user.name=Test", "-c", "user.email=test@example.test"]
            subprocess.run(["git", *who, *words], cwd=self.project.root, check=True)

    def _listen(self, path, body, asker):
        kind = json.loads(body)["type"]
        if kind == "replace_metadata" and self._meanwhile:
            act, self._meanwhile = self._meanwhile, None
            act()
        self._heard.append(kind)
        return self._answer(path, body, asker)

    def reset(self, metadata):
        """Set files and engine to the state before a test; `metadata` is the engine's."""
        shutil.rmtree(self.project.root / METADATA)
        shutil.rmtree(self.project.root / ".nself", ignore_errors=True)
        write_files(self.project)
        self.lead(settings_of(self.engine))
        replace(self.engine, metadata)
        self._meanwhile = None

    def lead(self, settings, name=".env.dev"):
        """Let an env file lead to the database and, by `settings`, to an engine."""
        self.project.write_env({**self.project.database.settings, **settings}, name)

    def meanwhile(self, act):
        """Let `act()` happen when the program's next replacement of the metadata is on its way."""
        self._meanwhile = act

    def run(self, words, *arguments, **options):
        """Run a command; its Outcome."""
        self._heard.clear()
        self.engine.seen.clear()
        outcome = self.project.run(*words, *arguments, **options)
        self.sent = [*self._heard]
        return outcome

    def state(self):
        """What the engine and the files have, and whether a sync is recorded, to be compared."""
        return live(self.engine), files_of(self.project), (self.project.root / BASE).exists()

    def close(self):
        """End the engine, and drop the database."""
        self.engine.close()
        self.server.drop_database(self.name)


@pytest.fixture(scope="module")
def each_stand(server, tmp_path_factory):
    """A Stand on each server in turn."""
    stand = Stand(server, tmp_path_factory.mktemp("stand"))
    yield stand
    stand.close()


@pytest.fixture(scope="module")
def plain_stand(plain_server, tmp_path_factory):
    """A Stand on this host's own Postgres, for what no version of Postgres makes a difference to."""
    stand = Stand(plain_server, tmp_path_factory.mktemp("stand"))
    yield stand
    stand.close()


# The table.

Case = namedtuple("Case", "words live says told effect")
Case.__doc__ = """A command.

Its `words`; the engine's metadata before; what the text `says`; `told(data)`, whether the data of the JSON document is
right; and `effect(stand, before)`, which asserts what it has done."""


def nothing(stand, before):
    assert stand.state()[:2] == before[:2]


def applied(stand, before):
    (metadata, _), files, is_recorded = stand.state()
    assert (metadata, files, is_recorded) == (BLOG, before[1], True)
    assert stand.sent.count("replace_metadata") == 1


def written(stand, before):
    (metadata, version), files, is_recorded = stand.state()
    assert ((metadata, version), is_recorded) == (before[0], True)
    assert files != before[1]


def reloaded(stand, before):
    assert stand.sent == ["reload_metadata"]
    assert stand.state()[1:] == before[1:]


def case(words, live, says, told, effect):
    return Case(("hasura", *words.split()), live, says, told, effect)


ROWS = [
    case("metadata apply", AUTHORS, "metadata applied to {endpoint}: 1 added", lambda data: data["applied"], applied),
    case("metadata export", AUTHORS, "removed", lambda data: data["removed"] == [POSTS_FILE], written),
    case("metadata reload", BLOG, "metadata reloaded at {endpoint}", lambda data: data["is_consistent"], reloaded),
    case("metadata diff", AUTHORS, "against {endpoint}: 1 added", lambda data: len(data["changes"]) == 1, nothing),
    case("metadata validate", BLOG, "by structure, catalogue and engine", lambda data: not data["findings"], nothing),
    case("git status", AUTHORS, "differs from HEAD and the files", lambda data: data["engine"]["asked"], nothing),
    case("git pull", GUESTS, "public_authors.yaml", lambda data: len(data["written"]) == 1, written),
    case("git push", AUTHORS, "metadata applied to {endpoint}: 1 added", lambda data: data["applied"], applied),
    case("console --no-browser --port 0 --idle 0.1", BLOG, "the metadata is as it was",
         lambda data: not data["changed"], nothing),
]  # fmt: skip
IDS = [" ".join(row.words[1:3]) if row.words[1] != "console" else "console" for row in ROWS]
every_command = pytest.mark.parametrize("row", ROWS, ids=IDS)
both_versions = pytest.mark.servers("url-psql-15", "url-psql-17")
WRITING = [row for row in ROWS if row.effect is applied]


def path_of(row):
    """The words of a row without its options."""
    return nself_db.find_command(row.words)[0]


def effect_of(row):
    """What the face says a command does."""
    return next(item.effect for item in nself_db.COMMANDS if item.path == path_of(row))


def test_every_command_that_asks_the_engine_is_in_the_table():
    hasura = {item.path for item in nself_db.COMMANDS if item.path.startswith("hasura ")}
    assert {path_of(row) for row in ROWS} == hasura - {"hasura metadata lint"}


# What goes well.


@both_versions
@every_command
def test_in_text(each_stand, row):
    each_stand.reset(row.live)
    before = each_stand.state()
    outcome = each_stand.run(row.words).ok()
    assert row.says.format(endpoint=each_stand.engine.endpoint) in outcome.out
    assert SECRET not in outcome.out + outcome.err
    row.effect(each_stand, before)


@both_versions
@every_command
def test_in_json(each_stand, row):
    each_stand.reset(row.live)
    before = each_stand.state()
    outcome = each_stand.run(row.words, "--json").ok()
    jsonschema.validate(outcome.json(), shapes.document_schema(path_of(row)))
    assert row.told(outcome.json()["data"])
    assert (outcome.json()["command"], outcome.json()["env"]) == (path_of(row), "dev")
    assert SECRET not in outcome.out + outcome.err
    row.effect(each_stand, before)


@both_versions
@every_command
def test_dry_run_only_reads(each_stand, row):
    each_stand.reset(row.live)
    before = each_stand.state()
    outcome = each_stand.run(row.words, "--dry-run", "--json").ok()
    assert {*each_stand.sent} <= READS
    assert each_stand.state() == before
    plans = effect_of(row) != nself_db.READS
    jsonschema.validate(outcome.json(), shapes.plan_schema() if plans else shapes.document_schema(path_of(row)))
    assert not plans or outcome.json()["data"]["plan"]


@pytest.mark.parametrize("words", [("metadata", "reload"), ("console",)], ids=" ".join)
def test_dry_run_of_what_compares_nothing_sends_nothing(plain_stand, words):
    plain_stand.reset(BLOG)
    plain_stand.run(("hasura", *words), "--dry-run").ok()
    assert plain_stand.engine.seen == []


@every_command
def test_env_leads_to_the_engine_of_that_environment(plain_stand, row):
    plain_stand.reset(row.live)
    plain_stand.lead(settings_of(plain_stand.engine), ".env.staging")
    plain_stand.lead({**settings_of(plain_stand.engine), "HASURA_GRAPHQL_ENDPOINT": "http://127.0.0.1:1"})
    before = plain_stand.state()
    outcome = plain_stand.run(row.words, "--env", "staging", "--json").ok()
    assert (outcome.json()["env"], bool(plain_stand.sent)) == ("staging", True)
    row.effect(plain_stand, before)


# What goes wrong.


def failed(stand, row, code, settings):
    """The `error` of a command that fails with this exit code and changes nothing; it is told once, and no secret."""
    stand.reset(row.live)
    stand.lead({**settings_of(stand.engine), **settings})
    before = stand.state()
    outcome = stand.run(row.words, "--json")
    assert outcome.code == code, outcome
    jsonschema.validate(outcome.json(), shapes.failure_schema())
    assert stand.state()[:2] == before[:2]
    assert outcome.err.count("error: ") == 1 and "Traceback" not in outcome.err
    assert "s3cret" not in outcome.out + outcome.err
    return outcome.json()["error"]


@every_command
def test_a_wrong_secret_is_exit_3(plain_stand, row):
    error = failed(plain_stand, row, 3, {"HASURA_GRAPHQL_ADMIN_SECRET": "wrong-s3cret"})
    assert error["code"] == "credentials_refused"


@every_command
def test_an_engine_that_is_down_is_exit_2(plain_stand, row):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # taken, and nothing listens there
        endpoint = f"http://127.0.0.1:{probe.getsockname()[1]}"
        error = failed(plain_stand, row, 2, {"HASURA_GRAPHQL_ENDPOINT": endpoint})
    assert error["code"] == "unreachable"
    assert endpoint in error["message"] and error["hint"]


@pytest.mark.parametrize("status", ["200 OK", "502 Bad Gateway"])
@every_command
def test_a_proxys_page_is_exit_2(plain_stand, row, status):
    server = LittleServer(reply(status, "<html><head><title>Welcome to the portal</title></head></html>"))
    error = failed(plain_stand, row, 2, {"HASURA_GRAPHQL_ENDPOINT": server.url("")})
    server.close()
    assert error["code"] == "unreachable"
    assert "Welcome to the portal" in error["message"]


CONFLICT = {"path": "$", "error": "metadata resource version referenced (1) did not match", "code": "conflict"}


@every_command
def test_an_engine_that_answers_409_to_everything(plain_stand, row):
    server = LittleServer(reply("409 Conflict", json.dumps(CONFLICT), Content_Type="application/json"))
    error = failed(plain_stand, row, 1, {"HASURA_GRAPHQL_ENDPOINT": server.url("")})
    server.close()
    assert error["code"] == "metadata_conflict"


@both_versions
@pytest.mark.parametrize("row", WRITING, ids=path_of)
def test_a_change_on_the_way_is_a_refusal_that_tells_it(each_stand, row):
    """The engine answers 409 to the replacement, because somebody has changed its metadata meanwhile."""
    each_stand.reset(AUTHORS)
    each_stand.meanwhile(lambda: replace(each_stand.engine, GUESTS))
    outcome = each_stand.run(row.words, "--json")
    assert (outcome.code, outcome.json()["error"]["code"]) == (4, "metadata_moved")
    jsonschema.validate(outcome.json(), shapes.failure_schema())
    assert any(change["path"][-1] == "guest" for change in outcome.json()["data"]["changes"])
    assert live(each_stand.engine)[0] == GUESTS
    assert not (each_stand.project.root / BASE).exists()


@both_versions
@pytest.mark.parametrize("row", WRITING, ids=path_of)
def test_a_reload_on_the_way_is_no_change(each_stand, row):
    """The engine answers 409 here too, though its metadata is what it was: it is asked again."""
    each_stand.reset(AUTHORS)
    each_stand.meanwhile(lambda: each_stand.engine.ask("reload_metadata"))
    each_stand.run(row.words).ok()
    assert live(each_stand.engine)[0] == BLOG


# What is large.

LARGE = [{"name": "large", "definition": {"queries": [
    {"name": f"q{number}", "query": f"query q{number} {{ " + "posts { title } " * 630 + "}"} for number in range(1000)
]}}]  # fmt: skip


@every_command
def test_ten_megabytes(plain_stand, row):
    large = json.dumps(LARGE)
    assert len(large) > 10_000_000
    plain_stand.reset({**row.live, "query_collections": LARGE})
    plain_stand.project.write(f"{METADATA}/query_collections.yaml", large)
    outcome = plain_stand.run(row.words, "--json", timeout=300).ok()
    assert row.told(outcome.json()["data"])
    assert live(plain_stand.engine)[0]["query_collections"] == LARGE


# Through a container.


@pytest.fixture(scope="module")
def by_container(plain_stand, hasura_container):
    """The settings under which only a container leads to the engine: its port is not published."""
    name = f"every{plain_stand.engine.port}"
    hasura_container(name, plain_stand.engine.port)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        hasura = {"HASURA_PORT": str(probe.getsockname()[1]), "HASURA_GRAPHQL_ADMIN_SECRET": SECRET}
        yield {"PROJECT_NAME": name, "DOCKER_HOST": os.environ["DOCKER_HOST"], **hasura}


THROUGH = [row for row in ROWS if path_of(row).split()[-1] in ("apply", "diff", "pull", "push")]


@pytest.mark.parametrize("row", THROUGH, ids=path_of)
def test_through_docker_exec(plain_stand, by_container, row):
    plain_stand.reset(row.live)
    plain_stand.lead(by_container)
    before = plain_stand.state()
    outcome = plain_stand.run(row.words, "--json").ok()
    assert row.told(outcome.json()["data"])
    assert plain_stand.sent
    row.effect(plain_stand, before)
