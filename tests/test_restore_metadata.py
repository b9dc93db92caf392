"""What `restore` tells Hasura: its metadata is read anew when what comes or goes may have held it."""

from __future__ import annotations

import json
import os

import pytest
from bed.hasura_projects import BLOG, SCHEMA, SECRET, document, live, replace, start_engine, table

from nself_core.backups.manifest import may_hold_metadata

# A stack whose settings name no endpoint: that there is an engine is known from the metadata in the database alone.
RESTORE = ("restore", "--force", "--no-safety-backup", "--json")


@pytest.fixture
def engine(plain_project):
    """An engine over the plain project's database, with the blog's metadata, at localhost and a port of its own."""
    plain_project.database.admin(SCHEMA)
    with start_engine(plain_project) as engine:
        by_port(plain_project, engine)
        replace(engine, BLOG)
        engine.seen.clear()
        yield engine


def by_port(project, engine, secret=SECRET):
    """Let the settings lead to the engine by its port, without an endpoint."""
    hasura = {"HASURA_PORT": str(engine.port), "HASURA_GRAPHQL_ADMIN_SECRET": secret}
    project.write_env({**project.database.settings, **hasura})


def asked(engine):
    """How many requests came to the metadata API since the last look."""
    count = len([path for _, path, _ in engine.seen if path == "/v1/metadata"])
    engine.seen.clear()
    return count


def lose_metadata(project):
    project.database.admin("DROP SCHEMA hdb_catalog CASCADE")


def restored(project, *arguments):
    """The document of a restore that succeeds."""
    outcome = project.run(*RESTORE, *arguments).ok()
    assert SECRET not in outcome.out + outcome.err
    return outcome.json()


def test_a_restore_reloads_what_it_brings(plain_project, engine):
    plain_project.run("backup").ok()
    replace(engine, document(table("posts")))
    engine.seen.clear()
    document_after = restored(plain_project)
    assert document_after["data"]["metadata"] == "reloaded"
    assert asked(engine) == 1
    assert live(engine)[0] == BLOG


@pytest.mark.parametrize("options", [(), ("--in-place",)], ids=["beside", "in place"])
def test_also_where_the_present_database_has_lost_it(plain_project, engine, options):
    plain_project.run("backup").ok()
    lose_metadata(plain_project)
    assert "reload Hasura's metadata at" in plain_project.run("restore", "--dry-run", *options).ok().out
    assert asked(engine) == 0
    assert restored(plain_project, *options)["data"]["metadata"] == "reloaded"
    assert asked(engine) == 1
    assert live(engine)[0] == BLOG


def test_an_undo_reloads_what_returns(plain_project, engine):
    lose_metadata(plain_project)
    plain_project.run("backup", "--label", "without").ok()
    with start_engine(plain_project):
        pass  # an engine that starts makes its tables
    by_port(plain_project, engine)
    replace(engine, BLOG)
    engine.seen.clear()
    document_after = restored(plain_project)
    assert document_after["data"]["metadata"] == "not_reloaded"  # there is none left
    assert asked(engine) == 1
    outcome = plain_project.run("restore", "--undo", "--force", "--json").ok()
    assert outcome.json()["data"]["metadata"] == "reloaded"
    assert asked(engine) == 1
    assert live(engine)[0] == BLOG


def test_an_undo_of_what_has_none_asks_no_engine(plain_project, engine):
    lose_metadata(plain_project)
    plain_project.run("backup").ok()
    assert "metadata" not in restored(plain_project)["data"]
    assert "metadata" not in plain_project.run("restore", "--undo", "--force", "--json").ok().json()["data"]
    assert asked(engine) == 0


@pytest.mark.parametrize("words", [("restore", "--no-safety-backup"), ("restore", "--undo")], ids=" ".join)
def test_skip_metadata_asks_nothing(plain_project, engine, words):
    plain_project.run("backup").ok()
    restored(plain_project, "--skip-metadata")
    assert "metadata" not in plain_project.run(*words, "--force", "--skip-metadata", "--json").ok().json()["data"]
    assert asked(engine) == 0


@pytest.mark.parametrize("words", [("restore", "--no-safety-backup"), ("restore", "--undo")], ids=" ".join)
def test_an_engine_that_is_down_is_a_warning(plain_project, engine, words):
    plain_project.run("backup").ok()
    restored(plain_project)
    endpoint = {"HASURA_GRAPHQL_ENDPOINT": engine.endpoint}
    plain_project.write_env({**plain_project.database.settings, **endpoint, "HASURA_GRAPHQL_ADMIN_SECRET": SECRET})
    engine.close()
    outcome = plain_project.run(*words, "--force", "--json").ok()
    assert outcome.json()["data"]["metadata"] == "not_reloaded"
    (warning,) = outcome.json()["warnings"]
    assert warning.startswith("Hasura's metadata was not reloaded: ") and "nothing listens there" in warning
    assert SECRET not in outcome.out + outcome.err


def test_a_backup_without_a_manifest_may_hold_it(plain_project, engine):
    file = plain_project.run("backup", "--json").ok().json()["data"]["file"]
    os.unlink(plain_project.root / f"{file}.json")
    lose_metadata(plain_project)
    assert restored(plain_project, "--file", file)["data"]["metadata"] == "reloaded"


@pytest.mark.parametrize(
    ("manifest", "may"),
    [
        (None, True),
        ({"metadata": True}, True),
        ({"estimated_rows": {"hdb_catalog.hdb_metadata": 1}}, True),
        ({"metadata": False, "estimated_rows": {"public.hdb_metadata": 1}}, False),
        ({"metadata": False}, False),
    ],
    ids=json.dumps,
)
def test_what_a_manifest_says_of_it(manifest, may):
    assert may_hold_metadata(manifest) is may
