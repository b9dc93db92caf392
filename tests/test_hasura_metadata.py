"""`hasura metadata export`, `reload` and `diff`: what is written, removed and left, and what is told of it."""

from __future__ import annotations

import hashlib
import json
import os
import select
import shutil
import signal
import subprocess

import jsonschema
import pytest
from bed.hasura_projects import (
    BLOG,
    FILES,
    METADATA,
    POSTS,
    POSTS_FILE,
    SCHEMA,
    document,
    files_of,
    live,
    permission,
    replace,
    start_engine,
    table,
    write_files,
)

from nself_core import shapes
from nself_core.hasura import tree_writer
from nself_core.hasura.export import Write
from nself_core.hasura.unfinished import NOTE

EXPORT = ("hasura", "metadata", "export")
DIFF = ("hasura", "metadata", "diff")
STATUS = ("hasura", "git", "status")
RELOAD = ("hasura", "metadata", "reload")
BASE = ".nself/hasura-base.json"


@pytest.fixture
def engine(plain_project):
    """An engine over the plain project's database, whose metadata is that of the files."""
    plain_project.database.admin(SCHEMA)
    with start_engine(plain_project) as engine:
        write_files(plain_project)
        replace(engine, BLOG)
        yield engine


def checked(project, words, *arguments, **options):
    """The outcome of a command with --json, whose document has the documented shape."""
    outcome = project.run(*words, "--json", *arguments, **options)
    schema = shapes.document_schema(" ".join(words)) if outcome.code == 0 else None
    if schema is not None:
        jsonschema.validate(outcome.json(), shapes.plan_schema() if "--dry-run" in arguments else schema)
    return outcome


def git(project, *arguments):
    """Run git in the project, as a person of its own would."""
    who = ("-c", "user.name=Test", "-c", "user.email=test@example.test")
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    done = subprocess.run(["git", *who, *arguments], cwd=project.root, env=env, capture_output=True, check=True)
    return done.stdout.decode()


def commit(project):
    git(project, "init", "-q")
    git(project, "add", "-A")
    git(project, "commit", "-qm", "state")


# export


@pytest.mark.servers("url-psql-15", "url-psql-17")
def test_an_export_makes_a_whole_tree_where_there_is_none(project):
    project.database.admin(SCHEMA)
    with start_engine(project) as engine:
        replace(engine, BLOG)
        data = checked(project, EXPORT).ok().json()["data"]
        assert f"{METADATA}/databases/default/tables/public_posts.yaml" in data["written"]
        assert data["resource_version"] == live(engine)[1]
        assert "nothing to write" in checked(project, EXPORT).ok().err
        assert checked(project, DIFF).ok().json()["data"]["changes"] == []
        base = json.loads((project.root / BASE).read_text())["bases"]["dev"]
        assert (base["document"], base["version"]) == live(engine)
    assert (project.root / BASE).stat().st_mode & 0o777 == 0o600


def test_what_is_the_same_keeps_its_file_and_its_comments(plain_project, engine):
    before = files_of(plain_project)
    data = checked(plain_project, EXPORT).ok().json()["data"]
    assert (data["written"], data["removed"]) == ([], [])
    assert files_of(plain_project) == before


def test_only_what_changed_is_written_and_what_is_gone_removed(plain_project, engine):
    commit(plain_project)
    replace(engine, document(table("posts", select_permissions=[permission("user", "id", "title", "body")])))
    data = checked(plain_project, EXPORT).ok().json()["data"]
    tables = f"{METADATA}/databases/default/tables"
    assert sorted(data["written"]) == [f"{tables}/public_posts.yaml", f"{tables}/tables.yaml"]
    assert data["removed"] == [f"{tables}/public_authors.yaml"]
    assert "public_authors" not in "".join(files_of(plain_project))
    assert checked(plain_project, DIFF).ok().json()["data"]["changes"] == []


def test_dry_run_lists_the_files_and_writes_none(plain_project, engine):
    replace(engine, document(POSTS))
    before = files_of(plain_project)
    plan = checked(plain_project, EXPORT, "--dry-run").ok().json()["data"]["plan"]
    titles = [step["title"] for step in plan]
    assert f"write {METADATA}/databases/default/tables/tables.yaml; a copy of its uncommitted text is kept" in titles
    assert any(title.startswith(f"remove {METADATA}/databases/default/tables/public_authors.yaml") for title in titles)
    assert files_of(plain_project) == before
    assert not (plain_project.root / ".nself").exists()


@pytest.fixture
def edited(plain_project, engine):
    """The project, committed, with an edit of a person's that is not; the engine has something else."""
    commit(plain_project)
    plain_project.write(POSTS_FILE, FILES["databases/default/tables/public_posts.yaml"] + "  # mine\n")
    replace(engine, document(table("authors"), table("posts", select_permissions=[permission("user", "id")])))
    return plain_project


def test_an_uncommitted_edit_is_not_overwritten(edited):
    before = files_of(edited)
    outcome = checked(edited, EXPORT)
    assert outcome.code == 4
    assert outcome.json()["data"]["files"] == [POSTS_FILE]
    assert "git pull" in outcome.json()["error"]["hint"]
    assert files_of(edited) == before


def test_with_force_it_is_and_a_copy_is_kept(edited):
    mine = (edited.root / POSTS_FILE).read_text()
    data = checked(edited, EXPORT, "--force").ok().json()["data"]
    assert data["written"] == [POSTS_FILE]
    (copy,) = data["copies"]
    assert (edited.root / copy).read_text() == mine
    assert (edited.root / copy).stat().st_mode & 0o777 == 0o600


def test_what_an_export_wrote_may_be_overwritten_by_the_next(plain_project, engine):
    commit(plain_project)
    for columns in (["id"], ["id", "body"]):
        replace(engine, document(table("authors"), table("posts", select_permissions=[permission("user", *columns)])))
        assert checked(plain_project, EXPORT).ok().json()["data"]["written"] == [POSTS_FILE]


def test_an_untracked_file_counts_as_an_edit(plain_project, engine):
    git(plain_project, "init", "-q")
    replace(engine, document(POSTS))
    assert checked(plain_project, EXPORT).code == 4


def test_the_stored_metadata_is_exported_without_an_engine(plain_project, engine):
    replace(engine, document(POSTS))
    engine_gone = {"HASURA_GRAPHQL_ENDPOINT": "http://127.0.0.1:1"}
    data = checked(plain_project, EXPORT, "--from-database", env=engine_gone).ok().json()["data"]
    assert data["removed"] == [f"{METADATA}/databases/default/tables/public_authors.yaml"]


def test_a_database_without_hasura_is_told(plain_project):
    outcome = checked(plain_project, EXPORT, "--from-database")
    assert outcome.code == 1
    assert "keeps no metadata" in outcome.json()["error"]["message"]


def test_files_that_cannot_be_read_are_overwritten_with_force_only(plain_project, engine):
    plain_project.write(POSTS_FILE, "table: [\n")
    assert checked(plain_project, EXPORT).code == 1
    checked(plain_project, EXPORT, "--force").ok()
    assert checked(plain_project, DIFF).ok().json()["data"]["changes"] == []


NOT_TEXT = [b"table: \xe9\xff\n", b"\xff\xfet\x00a\x00", bytes(range(256)), b"\xef\xbb\xbftable: [\r\n"]


@pytest.mark.parametrize("data", NOT_TEXT)
def test_what_is_no_text_is_overwritten_with_force_and_its_bytes_are_kept(plain_project, engine, data):
    commit(plain_project)
    plain_project.write(POSTS_FILE, data)
    assert checked(plain_project, EXPORT).code == 1
    data_of = checked(plain_project, EXPORT, "--force").ok().json()["data"]
    (copy,) = [file for file in data_of["copies"] if file.endswith(POSTS_FILE)]
    assert (plain_project.root / copy).read_bytes() == data
    assert checked(plain_project, DIFF).ok().json()["data"]["changes"] == []
    assert checked(plain_project, EXPORT).ok().json()["data"]["written"] == []


def test_a_single_file_that_is_no_text_is_overwritten_with_force(plain_project, engine):
    single = {"HASURA_METADATA_DIR": "hasura/metadata.json"}
    plain_project.write("hasura/metadata.json", b"{\xff")
    assert checked(plain_project, EXPORT, env=single).code == 1
    (copy,) = checked(plain_project, EXPORT, "--force", env=single).ok().json()["data"]["copies"]
    assert (plain_project.root / copy).read_bytes() == b"{\xff"
    assert checked(plain_project, DIFF, env=single).ok().json()["data"]["changes"] == []


@pytest.mark.parametrize("config", ["version: 2\n", None])
def test_a_directory_of_config_v2_stays_one_where_it_could_not_be_read(plain_project, engine, config):
    shutil.rmtree(plain_project.root / METADATA)
    plain_project.write(f"{METADATA}/tables.yaml", "- table: [\n")
    if config:
        plain_project.write("hasura/config.yaml", config)
    assert checked(plain_project, EXPORT).code == 1
    checked(plain_project, EXPORT, "--force").ok()
    assert not (plain_project.root / METADATA / "databases").exists()
    assert checked(plain_project, DIFF).ok().json()["data"]["changes"] == []
    assert checked(plain_project, EXPORT).ok().json()["data"]["written"] == []


def test_where_config_v2_has_no_place_for_it_nothing_is_written(plain_project, engine):
    shutil.rmtree(plain_project.root / METADATA)
    plain_project.write("hasura/config.yaml", "version: 2\n")
    plain_project.write(f"{METADATA}/tables.yaml", "- table: [\n")
    replace(engine, {**BLOG, "sources": [*BLOG["sources"], {**BLOG["sources"][0], "name": "other", "tables": []}]})
    outcome = checked(plain_project, EXPORT, "--force")
    assert outcome.code == 1
    assert "write version: 3 into config.yaml" in outcome.json()["error"]["hint"]
    assert files_of(plain_project) == {"tables.yaml": "- table: [\n"}
    plain_project.write("hasura/config.yaml", "version: 3\n")
    (plain_project.root / METADATA / "tables.yaml").unlink()
    checked(plain_project, EXPORT).ok()
    assert checked(plain_project, DIFF).ok().json()["data"]["changes"] == []


def test_the_first_export_is_of_the_version_that_config_says(plain_project, engine):
    shutil.rmtree(plain_project.root / METADATA)
    plain_project.write("hasura/config.yaml", "version: 2\n")
    checked(plain_project, EXPORT).ok()
    assert "tables.yaml" in files_of(plain_project)
    assert not (plain_project.root / METADATA / "databases").exists()
    assert checked(plain_project, DIFF).ok().json()["data"]["changes"] == []


def test_two_forced_exports_in_one_second_keep_both_texts(tmp_path, monkeypatch):
    monkeypatch.setattr(tree_writer.time, "gmtime", lambda: (2026, 1, 2, 3, 4, 5, 0, 0, 0))
    kept = []
    for before in ("first\n", "second\n"):
        (tmp_path / "a.yaml").write_text(before)
        change = tree_writer.Change(str(tmp_path), "a.yaml", Write("a.yaml", "theirs\n", before), True)
        kept += tree_writer.perform(str(tmp_path), [change]).data["copies"]
    assert [(tmp_path / copy).read_text() for copy in kept] == ["first\n", "second\n"]
    assert len({*kept}) == 2
    assert {os.stat(tmp_path / os.path.dirname(copy)).st_mode & 0o777 for copy in kept} == {0o700}


def test_a_file_of_a_persons_with_a_number_behind_it_is_left(plain_project, engine):
    notes = plain_project.write(f"{METADATA}/databases/default/tables/.notes.yaml.2024", "mine\n")
    commit(plain_project)
    replace(engine, document(POSTS))
    checked(plain_project, EXPORT).ok()
    assert notes.read_text() == "mine\n"


@pytest.mark.parametrize("name", ["tree.yaml", "tree.json"])
def test_a_directory_with_the_name_of_a_file_is_a_directory(plain_project, engine, name):
    shutil.move(plain_project.root / METADATA, plain_project.root / name)
    elsewhere = {"HASURA_METADATA_DIR": name}
    replace(engine, document(POSTS))
    data = checked(plain_project, EXPORT, env=elsewhere).ok().json()["data"]
    assert data["removed"] == [f"{name}/databases/default/tables/public_authors.yaml"]
    assert checked(plain_project, DIFF, env=elsewhere).ok().json()["data"]["changes"] == []


def test_a_single_file_may_have_any_name(plain_project, engine):
    (plain_project.root / "all of it").write_text("version: 3\nsources: []\n")
    elsewhere = {"HASURA_METADATA_DIR": "all of it"}
    assert len(checked(plain_project, EXPORT, env=elsewhere).ok().json()["data"]["written"]) == 1
    assert checked(plain_project, DIFF, env=elsewhere).ok().json()["data"]["changes"] == []


@pytest.mark.parametrize("name", ["metadata.json", "metadata.yaml"])
def test_a_single_file_is_made_and_then_changed(plain_project, engine, name):
    single = {"HASURA_METADATA_DIR": f"hasura/{name}"}
    assert checked(plain_project, EXPORT, env=single).ok().json()["data"]["written"] == [f"hasura/{name}"]
    assert checked(plain_project, DIFF, env=single).ok().json()["data"]["changes"] == []
    replace(engine, document(POSTS))
    (change,) = checked(plain_project, DIFF, env=single).ok().json()["data"]["changes"]
    assert change["file"] == f"hasura/{name}"
    checked(plain_project, EXPORT, env=single).ok()
    assert checked(plain_project, DIFF, env=single).ok().json()["data"]["changes"] == []


def test_a_tree_outside_of_the_project(plain_project, engine, tmp_path):
    elsewhere = {"HASURA_METADATA_DIR": str(tmp_path / "else where" / "metadata")}
    checked(plain_project, EXPORT, env=elsewhere).ok()
    replace(engine, document(POSTS))
    data = checked(plain_project, EXPORT, env=elsewhere).ok().json()["data"]
    assert data["removed"] == [f"{elsewhere['HASURA_METADATA_DIR']}/databases/default/tables/public_authors.yaml"]
    assert data["copies"] == []
    assert not (tmp_path / "else where/metadata" / NOTE).exists()


def test_a_damaged_base_says_what_to_do(plain_project, engine):
    plain_project.write(BASE, "[]")
    outcome = checked(plain_project, EXPORT)
    assert outcome.code == 1
    assert outcome.json()["error"]["file"] == BASE


# diff


def test_no_difference(plain_project, engine):
    outcome = plain_project.run(*DIFF).ok()
    assert outcome.out == f"{METADATA} and {engine.endpoint} have the same metadata\n"


def test_a_difference_in_both_directions(plain_project, engine):
    more = table("authors", select_permissions=[permission("guest", "name")])
    replace(engine, document(more, table("posts", select_permissions=[permission("user", "title", "id", "body")])))
    data = checked(plain_project, DIFF).ok().json()["data"]
    assert [(change["path"][3:], change["change"]) for change in data["changes"]] == [
        (["public.authors", "select_permissions", "guest"], "removed"),
        (["public.posts", "select_permissions", "user", "permission", "columns"], "changed"),
    ]
    assert (data["changes"][1]["file"], data["changes"][1]["line"]) == (POSTS_FILE, 8)
    assert data["changes"][1]["local"] == ["id", "title"]
    text = plain_project.run(*DIFF).ok().out
    assert f"source default, table public.posts  ({POSTS_FILE}:8)\n" in text
    assert text.splitlines()[-1] == f"{METADATA} against {engine.endpoint}: 1 changed, 1 removed"


def test_exit_code_tells_a_difference(plain_project, engine):
    assert checked(plain_project, DIFF, "--exit-code").code == 0
    replace(engine, document(POSTS))
    outcome = checked(plain_project, DIFF, "--exit-code")
    assert outcome.code == 1
    assert outcome.json()["data"]["changes"]
    assert checked(plain_project, DIFF).code == 0


# reload


def test_reload_of_what_is_consistent(plain_project, engine):
    assert checked(plain_project, RELOAD).ok().json()["data"] == {"is_consistent": True, "inconsistent": []}


def test_reload_tells_what_is_inconsistent_by_file_and_line(plain_project, engine):
    plain_project.database.admin("ALTER TABLE posts DROP COLUMN title; DROP TABLE authors CASCADE")
    outcome = checked(plain_project, RELOAD)
    assert outcome.code == 1
    found = {(item["type"], item["file"], item["line"]) for item in outcome.json()["data"]["inconsistent"]}
    authors = f"{METADATA}/databases/default/tables/public_authors.yaml"
    assert found == {("table", authors, 1), ("select_permission", POSTS_FILE, 6)}
    assert f"{POSTS_FILE}:6: " in plain_project.run(*RELOAD).out


def test_reload_where_there_are_no_files(plain_project, engine):
    plain_project.database.admin("ALTER TABLE posts DROP COLUMN title")
    outcome = checked(plain_project, RELOAD, env={"HASURA_METADATA_DIR": "elsewhere"})
    assert outcome.code == 1
    assert outcome.json()["data"]["inconsistent"][0]["file"] is None


# validate

VALIDATE = ("hasura", "metadata", "validate")
NOBODY = {"HASURA_GRAPHQL_ENDPOINT": "http://127.0.0.1:1", "NSELF_DB_URL": "postgresql://nobody@127.0.0.1:1/none"}


def findings(outcome):
    """What of a run's findings tells them apart."""
    return [(row.get("asked"), row["rule"], row["file"], row["line"]) for row in outcome.json()["data"]["findings"]]


def test_nothing_is_wrong(plain_project, engine):
    outcome = checked(plain_project, VALIDATE).ok()
    data = outcome.json()["data"]
    assert data == {"asked": {"structure": True, "catalogue": True, "engine": True}, "findings": []}
    assert outcome.err == f"nothing wrong with {METADATA}, by structure, catalogue and engine\n"


@pytest.mark.servers("container-15", "url-psql-17")
def test_what_the_database_does_not_have(project):
    project.database.admin(SCHEMA)
    with start_engine(project) as engine:
        replace(engine, BLOG)
        text = FILES["databases/default/tables/public_posts.yaml"].replace("- title", "- headline")
        write_files(project, {**FILES, "databases/default/tables/public_posts.yaml": text})
        outcome = project.run(*VALIDATE, "--json")
    assert outcome.code == 1
    assert findings(outcome) == [("catalogue", "missing-column", POSTS_FILE, 10)]
    assert "headline" in outcome.json()["data"]["findings"][0]["message"]


def test_what_the_engine_says(plain_project, engine):
    replace(engine, document(table("nowhere")))
    outcome = plain_project.run(*VALIDATE, "--json")
    assert outcome.code == 1
    assert findings(outcome) == [("engine", "table", f"{METADATA}/databases/default/tables/tables.yaml", 1)]
    assert "nowhere" in plain_project.run(*VALIDATE).out


def test_a_source_that_is_not_asked_is_named(plain_project, engine):
    databases = "databases/databases.yaml"
    more = """- name: "far away"
  kind: postgres
  configuration: {connection_info: {database_url: {from_env: FAR}}}
  tables: [{table: gone}]
"""
    plain_project.write(f"{METADATA}/{databases}", FILES[databases] + more)
    outcome = plain_project.run(*VALIDATE, "--json").ok()
    assert outcome.json()["warnings"] == ["source far away was not compared with its database"]
    assert "source far away was not compared" in plain_project.run(*VALIDATE).ok().err


def test_the_graphql_of_a_remote_schemas_permission_has_its_place(plain_project, engine):
    plain_project.write(f"{METADATA}/remote_schemas.yaml", """- name: shop
  definition: {url: "http://shop"}
  permissions:
    - role: user
      definition:
        schema: |
          type Query {
            price(of Int!): Float
          }
""")  # fmt: skip
    outcome = plain_project.run(*VALIDATE, "--json")
    assert outcome.code == 1
    assert findings(outcome) == [("structure", "wrong-graphql", f"{METADATA}/remote_schemas.yaml", 6)]
    assert outcome.json()["data"]["findings"][0]["message"].startswith("line 2 of the schema: ")


def test_the_structure_is_checked_without_any_server(plain_project, engine):
    plain_project.write(POSTS_FILE, "table:\n  name: posts\n  schema: public\nselect_permissions:\n  - role: 12\n")
    outcome = plain_project.run(*VALIDATE, "--offline", "--json", env=NOBODY)
    assert outcome.code == 1
    assert {row[:3] for row in findings(outcome)} == {
        ("structure", "missing-key", POSTS_FILE), ("structure", "wrong-kind", POSTS_FILE),
    }  # fmt: skip
    assert outcome.json()["data"]["asked"] == {"structure": True, "catalogue": False, "engine": False}
    assert outcome.json()["warnings"] == []


def test_offline_nothing_is_asked(plain_project, engine):
    seen = len(engine.seen)
    outcome = checked(plain_project, VALIDATE, "--offline").ok()
    assert len(engine.seen) == seen
    assert outcome.err == f"nothing wrong with {METADATA}, by structure\n"
    env = {**NOBODY, "HASURA_GRAPHQL_ADMIN_SECRET": "wr0ng"}
    assert plain_project.run(*VALIDATE, "--offline", env=env).ok().out == outcome.err


def test_without_an_engine_what_the_others_found_is_told(plain_project, engine):
    text = FILES["databases/default/tables/public_posts.yaml"].replace("- title", "- headline")
    plain_project.write(POSTS_FILE, text)
    engine_gone = {"HASURA_GRAPHQL_ENDPOINT": NOBODY["HASURA_GRAPHQL_ENDPOINT"]}
    outcome = plain_project.run(*VALIDATE, "--json", env=engine_gone)
    jsonschema.validate(outcome.json(), shapes.failure_schema())
    assert (outcome.code, outcome.json()["error"]["code"]) == (2, "unreachable")
    assert "--offline" in outcome.json()["error"]["hint"]
    assert findings(outcome) == [("catalogue", "missing-column", POSTS_FILE, 10)]
    assert outcome.json()["data"]["asked"] == {"structure": True, "catalogue": True, "engine": False}
    assert outcome.json()["warnings"] == []
    err = plain_project.run(*VALIDATE, env=engine_gone).err.splitlines()
    assert err[0].startswith("error: ") and "nothing listens there" in err[0]
    assert err[1].startswith(f"{POSTS_FILE}:10: ")
    assert err[2] == f"1 finding in {METADATA}, by structure and catalogue"


def test_without_any_server_both_are_told(plain_project, engine):
    outcome = plain_project.run(*VALIDATE, "--json", env=NOBODY)
    assert outcome.code == 2
    (warning,) = outcome.json()["warnings"]
    assert warning.startswith("the catalogue was not asked: ")
    assert "http://127.0.0.1:1" in outcome.json()["error"]["message"]
    assert f"nothing wrong with {METADATA}, by structure\n" in outcome.err


def test_a_wrong_secret_is_not_passed_over(plain_project, engine):
    wrong = {"HASURA_GRAPHQL_ADMIN_SECRET": "wr0ng"}
    outcome = plain_project.run(*VALIDATE, "--json", env=wrong)
    assert outcome.code == 3
    assert outcome.json()["data"]["asked"] == {"structure": True, "catalogue": True, "engine": False}
    assert plain_project.run(*VALIDATE, env={**wrong, "NSELF_DB_URL": NOBODY["NSELF_DB_URL"]}).code == 3


# lint

LINT = ("hasura", "metadata", "lint")
UNTIDY = """# what everybody reads
table:
  name: posts
  schema: public
select_permissions:
  - role: user
    permission:
      columns:
        - id
        - id
      filter: {}
  - role: guest
    permission:
      columns: []
      filter:
        $and: []
"""


@pytest.fixture
def untidy(plain_project):
    """A project whose metadata has something for many rules; no engine, and no server that is asked."""
    write_files(plain_project)
    plain_project.write(POSTS_FILE, UNTIDY)
    plain_project.write(f"{METADATA}/databases/default/tables/public_old.yaml", "table:\n  name: old\n")
    return plain_project


def test_findings_have_their_rule_and_line(untidy):
    outcome = untidy.run(*LINT, "--json", env=NOBODY)
    assert outcome.code == 1
    found = {(row["rule"], row["line"], row["fixable"]) for row in outcome.json()["data"]["findings"]}
    assert {("duplicate-entry", 10, True), ("no-filter", 11, False), ("deprecated", 15, True)} <= found
    assert ("orphan-file", 1, False) in found
    text = untidy.run(*LINT).out
    assert f"{POSTS_FILE}:10: an entry of columns stands there already (duplicate-entry)\n" in text


def test_only_one_rule_and_all_but_one(untidy):
    one = untidy.run(*LINT, "--json", "--rule", "no-filter").json()["data"]["findings"]
    assert {row["rule"] for row in one} == {"no-filter"}
    others = untidy.run(*LINT, "--json", "--ignore", "no-filter").json()["data"]["findings"]
    assert "no-filter" not in {row["rule"] for row in others}
    assert checked(untidy, LINT, "--rule", "unused-collection").ok().json()["data"] == {"findings": []}


def test_an_unknown_rule_names_the_nearest(untidy):
    outcome = untidy.run(*LINT, "--json", "--rule", "nofilter")
    assert outcome.code == 1
    assert outcome.json()["error"] == {
        "code": "usage", "message": "there is no rule 'nofilter'", "hint": "did you mean no-filter?", "exit_code": 1,
    }  # fmt: skip


def test_fix_sets_right_what_means_the_same(untidy):
    git(untidy, "init", "-q")
    before = untidy.run(*LINT, "--json").json()["data"]["findings"]
    outcome = untidy.run(*LINT, "--fix", "--json")
    data = outcome.json()["data"]
    assert data["written"] == [POSTS_FILE]
    assert (untidy.root / data["copies"][0]).read_text() == UNTIDY
    assert (outcome.code, data["findings"]) == (1, untidy.run(*LINT, "--json").json()["data"]["findings"])
    assert not [row for row in data["findings"] if row["fixable"]]
    assert len(data["findings"]) < len(before)
    text = (untidy.root / POSTS_FILE).read_text()
    assert text.startswith("# what everybody reads\n")
    assert text.index("guest") < text.index("user")
    assert "_and" in text


@pytest.mark.parametrize("is_committed", [True, False], ids=["committed", "edited"])
def test_what_lint_set_right_is_no_exports(plain_project, engine, is_committed):
    """Nor is a person's edit, because lint has written it anew."""
    plain_project.run(*EXPORT).ok()
    git(plain_project, "init", "-q")
    plain_project.write(POSTS_FILE, UNTIDY)
    if is_committed:
        git(plain_project, "add", "-A")
        git(plain_project, "commit", "-qm", "state")
    assert plain_project.run(*LINT, "--fix", "--json").json()["data"]["written"] == [POSTS_FILE]
    text = (plain_project.root / POSTS_FILE).read_text()
    outcome = checked(plain_project, EXPORT)
    assert (outcome.code, outcome.json()["data"]["files"]) == (4, [POSTS_FILE])
    assert (plain_project.root / POSTS_FILE).read_text() == text


def test_what_lint_set_right_in_an_exports_file_still_is_the_exports(plain_project, engine):
    plain_project.run(*EXPORT).ok()
    git(plain_project, "init", "-q")
    plain_project.write(POSTS_FILE, UNTIDY)
    state = json.loads((plain_project.root / BASE).read_text())
    state["written"][POSTS_FILE] = hashlib.sha256(UNTIDY.encode()).hexdigest()
    plain_project.write(BASE, json.dumps(state))
    assert plain_project.run(*LINT, "--fix", "--json").json()["data"]["copies"] == []
    checked(plain_project, EXPORT).ok()


def test_no_rule_at_all_is_refused(untidy):
    outcome = untidy.run(*LINT, "--json", "--rule", "naming", "--ignore", "naming")
    assert (outcome.code, outcome.json()["error"]["message"]) == (1, "no rule is left to go by")


def test_fix_under_dry_run_shows_the_files(untidy):
    outcome = untidy.run(*LINT, "--fix", "--dry-run", "--json").ok()
    jsonschema.validate(outcome.json(), shapes.plan_schema())
    assert outcome.json()["data"]["plan"][0]["title"].startswith(f"write {POSTS_FILE}")
    assert (untidy.root / POSTS_FILE).read_text() == UNTIDY


# Edits of which git's status does not speak, or not by the file's name.

TABLES = f"{METADATA}/databases/default/tables"


def link_file(project):
    shared = project.root / METADATA / "databases" / "shared"
    shared.mkdir()
    (project.root / POSTS_FILE).rename(shared / "posts.yaml")
    (project.root / POSTS_FILE).symlink_to("../../shared/posts.yaml")


def link_folder(project):
    databases = project.root / METADATA / "databases"
    (databases / "default").rename(databases / "prod")
    (databases / "default").symlink_to("prod")


def nest_a_repository(project):
    databases = project.root / METADATA / "databases"
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "inner"]):
        subprocess.run(["git", "-c", "user.name=Test", "-c", "user.email=t@e.test", *words], cwd=databases, check=True)


def be_plain(project):
    pass


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (link_file, ()),
        (link_folder, ()),
        (nest_a_repository, ()),
        (be_plain, ("update-index", "--skip-worktree", POSTS_FILE)),
        (be_plain, ("update-index", "--assume-unchanged", POSTS_FILE)),
    ],
    ids=["file link", "folder link", "nested repository", "skip-worktree", "assume-unchanged"],
)
def test_an_edit_that_git_does_not_list_is_not_overwritten(plain_project, engine, before, after):
    before(plain_project)
    commit(plain_project)
    if after:
        git(plain_project, *after)
    mine = FILES["databases/default/tables/public_posts.yaml"].replace("- title", "- body # mine")
    (plain_project.root / POSTS_FILE).write_text(mine)
    outcome = checked(plain_project, EXPORT)
    assert outcome.code == 4
    assert outcome.json()["data"]["files"] == [POSTS_FILE]
    (copy,) = checked(plain_project, EXPORT, "--force").ok().json()["data"]["copies"]
    assert (plain_project.root / copy).read_text() == mine


def test_an_edit_is_not_overwritten_in_a_hook_of_git_either(plain_project, engine):
    """git tells a hook where the repository is, from the folder that the hook is run in."""
    commit(plain_project)
    path = plain_project.root / POSTS_FILE
    path.write_text(path.read_text().replace("- title", "- body # mine"))
    for variables in ({"GIT_DIR": ".git"}, {"GIT_DIR": ".git", "GIT_WORK_TREE": ".", "GIT_INDEX_FILE": ".git/index"}):
        assert checked(plain_project, EXPORT, "--dry-run", env=variables).code == 4
    assert "# mine" in path.read_text()


def test_in_a_bare_repository_there_is_nothing_to_refuse(plain_project, engine):
    """A project may stand in one: a copy is kept of what no git can tell."""
    git(plain_project, "init", "-q", "--bare")
    replace(engine, document(table("authors"), table("posts", select_permissions=[permission("user", "id")])))
    data = checked(plain_project, EXPORT).ok().json()["data"]
    assert (data["written"], len(data["copies"])) == ([POSTS_FILE], 1)
    outcome = plain_project.run("hasura", "git", "status", "--json")
    assert (outcome.code, outcome.json()["error"]["hint"]) == (1, "make one: git init")


def test_secrets_of_a_tree_stand_in_nothing_that_is_said(plain_project, engine):
    schema = "- name: pay\n  definition:\n    url: http://h/p?api_key=hunter2\n    headers:\n      - hunter2\n"
    plain_project.write(f"{METADATA}/remote_schemas.yaml", schema + "      - {name: k, values: hunter2}\n")
    for words in (DIFF, ("hasura", "metadata", "apply", "--dry-run"), ("hasura", "git", "push", "--dry-run")):
        for more in ((), ("--json",), ("--verbose",)):
            outcome = plain_project.run(*words, *more)
            assert "hunter2" not in outcome.out + outcome.err
            assert "********" in outcome.out + outcome.err


@pytest.mark.parametrize("before", [link_file, link_folder], ids=["file link", "folder link"])
def test_what_is_committed_behind_a_link_is_overwritten(plain_project, engine, before):
    before(plain_project)
    commit(plain_project)
    replace(engine, document(table("authors"), table("posts", select_permissions=[permission("user", "id")])))
    data = checked(plain_project, EXPORT).ok().json()["data"]
    assert (data["written"], data["copies"]) == ([POSTS_FILE], [])
    assert "- title" not in (plain_project.root / POSTS_FILE).read_text()


@pytest.mark.parametrize("when", ["before", "after"])
def test_files_whose_line_ends_git_turns_are_committed(plain_project, engine, when):
    path = plain_project.root / POSTS_FILE
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    git(plain_project, "init", "-q")
    if when == "before":
        git(plain_project, "config", "core.autocrlf", "true")
    git(plain_project, "add", "-A")
    git(plain_project, "commit", "-qm", "state")
    git(plain_project, "config", "core.autocrlf", "true")
    replace(engine, document(table("authors"), table("posts", select_permissions=[permission("user", "id")])))
    assert checked(plain_project, EXPORT).ok().json()["data"]["written"] == [POSTS_FILE]


def test_a_failure_that_is_being_told_is_told_whole_also_at_ctrl_c(plain_project):
    """More stands in it than a pipe takes that nobody reads; the first word of it is awaited."""
    git(plain_project, "init", "-q")
    for number in range(1500):
        plain_project.write(f"{METADATA}/{number:0200}.yaml", "")
    process = plain_project.start(*STATUS, env={"HASURA_GRAPHQL_ENDPOINT": "http://127.0.0.1:1"})
    assert select.select([process.stderr], [], [], 60)[0]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2, err[-2000:]
    assert err.count("untracked") == 1500
    assert "Traceback" not in err
