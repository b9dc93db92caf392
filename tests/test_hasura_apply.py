"""`hasura metadata apply`: what it shows, what it sends, and what it does when somebody else was faster."""

from __future__ import annotations

import json
import time

import jsonschema
import pytest
from bed.hasura_projects import (
    BLOG,
    FILES,
    METADATA,
    POSTS_FILE,
    SCHEMA,
    SECRET,
    document,
    live,
    permission,
    replace,
    settings_of,
    start_engine,
    table,
    write_files,
)

from nself_core import shapes
from nself_core.hasura.apply import refused_path

APPLY = ("hasura", "metadata", "apply")


@pytest.fixture
def engine(plain_project):
    """An engine over the plain project's database, whose tables are there and whose metadata tracks none."""
    plain_project.database.admin(SCHEMA)
    with start_engine(plain_project) as engine:
        write_files(plain_project)
        yield engine


def apply(project, *arguments, **options):
    outcome = project.run(*APPLY, "--json", *arguments, **options)
    schema = shapes.document_schema("hasura metadata apply") if outcome.code == 0 else shapes.failure_schema()
    jsonschema.validate(outcome.json(), schema if "--dry-run" not in arguments else shapes.plan_schema())
    return outcome


@pytest.mark.servers("url-psql-15", "url-psql-17")
def test_the_files_become_the_engines_metadata(project):
    project.database.admin(SCHEMA)
    with start_engine(project) as engine:
        write_files(project)
        outcome = apply(project)
        assert live(engine)[0] == BLOG
    data = outcome.json()["data"]
    assert data["applied"] is True
    assert data["inconsistent"] == []
    assert [(change["path"], change["change"]) for change in data["changes"]] == [
        (["sources", "default", "tables", "public.authors"], "added"),
        (["sources", "default", "tables", "public.posts"], "added"),
    ]
    assert (data["changes"][1]["file"], data["changes"][1]["line"]) == (POSTS_FILE, 2)
    assert data["resource_version"] == live(engine)[1]


def test_people_see_the_changes_with_their_files(plain_project, engine):
    replace(engine, document(table("authors", select_permissions=[permission("user", "id")])))
    outcome = plain_project.run(*APPLY).ok()
    lines = outcome.out.splitlines()
    assert f"source default, table public.authors  ({METADATA}/databases/default/tables/public_authors.yaml:1)" in lines
    assert "- select_permissions user:" in lines
    assert lines[-1].startswith(f"metadata applied to {engine.endpoint}: 1 added, 1 removed")


def test_dry_run_shows_the_diff_and_sends_nothing(plain_project, engine):
    before = live(engine)
    outcome = apply(plain_project, "--dry-run")
    assert live(engine) == before
    (step,) = outcome.json()["data"]["plan"]
    assert step["title"].startswith(f"replace the metadata of {engine.endpoint} (resource version {before[1]})")
    assert "+ all of it:" in step["detail"]
    text = plain_project.run(*APPLY, "--dry-run").ok().out
    assert "source default, table public.posts" in text
    assert text.splitlines()[-1] == "dry run: 1 step, nothing was changed"


def test_nothing_to_do_sends_nothing(plain_project, engine):
    apply(plain_project)
    version = live(engine)[1]
    outcome = apply(plain_project)
    assert outcome.json()["data"] == {"applied": False, "changes": [], "inconsistent": [], "resource_version": version}
    assert "nothing to apply" in outcome.err
    assert live(engine)[1] == version


# What the engine cannot use.

LOST = FILES["databases/default/tables/public_posts.yaml"].replace("- title", "- headline")


@pytest.fixture
def broken(plain_project, engine):
    """The project, one of whose permissions names a column that is not there."""
    plain_project.write(POSTS_FILE, LOST)
    return plain_project


def test_inconsistent_metadata_is_not_applied_and_each_object_has_its_line(broken, engine):
    before = live(engine)
    outcome = apply(broken)
    assert outcome.code == 1
    assert live(engine) == before
    (finding,) = outcome.json()["data"]["inconsistent"]
    assert (finding["type"], finding["file"], finding["line"]) == ("select_permission", POSTS_FILE, 6)
    assert "headline" in finding["reason"]
    error = outcome.json()["error"]
    assert (error["code"], error["file"], error["line"]) == ("check_failed", POSTS_FILE, 6)
    text = broken.run(*APPLY)
    assert f"{POSTS_FILE}:6: " in text.err
    assert "--allow-inconsistent" in text.err


def test_allowed_it_is_applied_and_still_exit_1(broken, engine):
    outcome = broken.run(*APPLY, "--allow-inconsistent", "--json")
    assert outcome.code == 1
    assert outcome.json()["data"]["applied"] is True
    assert outcome.json()["data"]["inconsistent"][0]["line"] == 6
    assert live(engine)[0]["sources"][0]["tables"][1]["select_permissions"][0]["permission"]["columns"] == [
        "id", "headline",
    ]  # fmt: skip


def test_what_the_engine_cannot_read_is_told_with_its_line(plain_project, engine):
    lines = FILES["databases/databases.yaml"].splitlines(keepends=True)
    more = "- name: second\n  kind: postgres\n  tables: []\n"
    plain_project.write(f"{METADATA}/databases/databases.yaml", "".join(lines) + more)
    outcome = apply(plain_project)
    assert outcome.code == 1
    error = outcome.json()["error"]
    assert (error["code"], error["file"]) == ("metadata_refused", f"{METADATA}/databases/databases.yaml")
    assert error["line"] == len(lines) + 1


@pytest.mark.parametrize(
    ("told", "path"),
    [
        ("$.args.metadata.sources[0].tables[12]['a b']", ("sources", 0, "tables", 12, "a b")),
        ("$.args.metadata", ()),
        ("$.args", ()),
        ("$", ()),
        (None, ()),
    ],
)
def test_the_engines_paths_lead_into_the_document(told, path):
    assert refused_path(told) == path


# Somebody else.


def meanwhile(engine, act):
    """Let `act()` happen between the export that is compared with and the replacement."""
    answer, waiting = engine.api.answer, [act]

    def watched(path, body, asker):
        if json.loads(body)["type"] == "replace_metadata" and waiting:
            waiting.pop()()
        return answer(path, body, asker)

    engine.api.answer = watched


def test_a_change_meanwhile_is_a_refusal_that_tells_it(plain_project, engine):
    other = document(table("authors"))

    def act():
        engine.api.answer, watched = type(engine.api).answer.__get__(engine.api), engine.api.answer
        replace(engine, other)
        engine.api.answer = watched

    meanwhile(engine, act)
    outcome = apply(plain_project)
    assert outcome.code == 4
    assert outcome.json()["error"]["code"] == "metadata_moved"
    assert [(change["path"], change["change"]) for change in outcome.json()["data"]["changes"]] == [
        (["sources", "default", "tables", "public.authors"], "added")
    ]
    assert live(engine)[0] == other


def test_a_reload_meanwhile_changes_nothing_and_is_no_conflict(plain_project, engine):
    def act():
        type(engine.api).answer(engine.api, "/v1/metadata", b'{"type": "reload_metadata", "args": {}}', ADMIN)

    from bed.hasura_requests import Asker

    ADMIN = Asker()
    meanwhile(engine, act)
    apply(plain_project).ok()
    assert live(engine)[0] == BLOG


def test_what_cannot_be_recorded_afterwards_is_a_warning(plain_project, engine):
    plain_project.write(".nself", "no folder\n")
    outcome = apply(plain_project).ok()
    assert live(engine)[0] == BLOG
    assert "this sync is not recorded" in outcome.json()["warnings"][0]


# Secrets.


def test_no_header_of_a_webhook_is_shown(plain_project, engine):
    header = {"name": "Authorization", "value": "Bearer top-s3cret-token"}
    remote: dict = {
        "name": "other",
        "definition": {"url": "http://other.test/graphql", "headers": [header]},
        "permissions": [],
    }
    plain_project.write(f"{METADATA}/remote_schemas.yaml", json.dumps([remote]))
    for arguments in ((), ("--dry-run",), ("--json",), ("--verbose",), ("--json", "--dry-run")):
        outcome = plain_project.run(*APPLY, *arguments).ok()
        assert "top-s3cret-token" not in outcome.out + outcome.err
        assert SECRET not in outcome.out + outcome.err
        replace(engine, document())
    changed = {**remote, "definition": {**remote["definition"], "headers": [{**header, "value": "another-s3cret"}]}}
    replace(engine, document(remote_schemas=[changed]))
    outcome = plain_project.run("hasura", "metadata", "diff").ok()
    assert "the value differs" in outcome.out
    assert "s3cret" not in outcome.out + outcome.err


# In prod.


def test_in_prod_it_asks_and_says_what_is_taken_away(plain_project, engine):
    replace(engine, document(table("authors"), table("posts", select_permissions=[permission("guest", "id")])))
    settings = {**plain_project.database.settings, **settings_of(engine), "PROJECT_NAME": "blog"}
    plain_project.write_env(settings, ".env.prod")
    plain_project.write_env({}, ".env.dev")
    before = live(engine)
    outcome = plain_project.run(*APPLY, "--env", "prod", "--json")
    assert outcome.code == 4
    assert live(engine) == before
    excerpt = outcome.json()["error"]["excerpt"]
    assert f"environment prod, {engine.endpoint}" in excerpt
    assert "takes away sources default tables public.posts select_permissions guest" in excerpt
    plain_project.run(*APPLY, "--env", "prod", "--force", "--confirm", "blog").ok()
    assert live(engine)[0] == BLOG


# What can be wrong.


def test_files_that_are_no_yaml_are_told_with_their_line(plain_project, engine):
    plain_project.write(POSTS_FILE, "table:\n  name: [\n")
    outcome = apply(plain_project)
    assert outcome.code == 1
    assert outcome.json()["error"]["file"].endswith(POSTS_FILE)


def test_no_files_say_how_to_make_them(plain_project, engine):
    outcome = plain_project.run(*APPLY, "--json", env={"HASURA_METADATA_DIR": "elsewhere"})
    assert outcome.code == 1
    assert "hasura metadata export" in outcome.json()["error"]["hint"]


def test_another_environments_engine(plain_project, engine):
    plain_project.write_env({**plain_project.database.settings, **settings_of(engine)}, ".env.staging")
    plain_project.write_env({"HASURA_GRAPHQL_ENDPOINT": "http://127.0.0.1:1"}, ".env.dev")
    outcome = apply(plain_project, "--env", "staging")
    assert outcome.json()["env"] == "staging"
    assert live(engine)[0] == BLOG


def test_ten_megabytes(plain_project, engine):
    """Recorded queries make metadata large without making the engine slow."""
    queries = [{"name": f"q{number}", "query": "query { " + "a " * 500 + "}"} for number in range(10_000)]
    collection = {"name": "big", "definition": {"queries": queries}}
    text = json.dumps([collection])
    assert len(text) > 10_000_000
    plain_project.write(f"{METADATA}/query_collections.yaml", text)
    started = time.monotonic()
    apply(plain_project, timeout=300).ok()
    seconds = time.monotonic() - started
    assert len(live(engine)[0]["query_collections"][0]["definition"]["queries"]) == 10_000
    assert seconds < 60
