"""`hasura git status`, `pull` and `push` between real git and an engine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time

import jsonschema
import pytest
from bed.hasura_projects import (
    BLOG,
    FILES,
    METADATA,
    POSTS_FILE,
    SCHEMA,
    document,
    files_of,
    live,
    permission,
    replace,
    settings_of,
    start_engine,
    table,
    write_files,
)

from nself_core import shapes
from nself_core.hasura import unfinished

STATUS = ("hasura", "git", "status")
PULL = ("hasura", "git", "pull")
PUSH = ("hasura", "git", "push")
BASE = ".nself/hasura-base.json"
AUTHORS_FILE = f"{METADATA}/databases/default/tables/public_authors.yaml"


def git(project, *arguments):
    """Run git in the project, as a person of its own would."""
    who = ("-c", "user.name=Test", "-c", "user.email=test@example.test")
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    done = subprocess.run(["git", *who, *arguments], cwd=project.root, env=env, capture_output=True, check=True)
    return done.stdout.decode()


@pytest.fixture
def engine(plain_project):
    """An engine whose metadata is that of the files, which are committed; both sides are synced."""
    plain_project.database.admin(SCHEMA)
    with start_engine(plain_project) as engine:
        prepare(plain_project, engine)
        yield engine


def prepare(project, engine):
    write_files(project)
    replace(engine, BLOG)
    git(project, "init", "-q")
    git(project, "add", "-A")
    git(project, "commit", "-qm", "state")
    project.run(*PULL).ok()


def checked(project, words, *arguments, **options):
    """The outcome of a command with --json, whose document has the documented shape."""
    outcome = project.run(*words, "--json", *arguments, **options)
    schema = shapes.document_schema(" ".join(words)) if outcome.code == 0 else shapes.failure_schema()
    jsonschema.validate(outcome.json(), shapes.plan_schema() if "--dry-run" in arguments else schema)
    return outcome


def with_user(*columns, **more):
    """The blog's metadata, with these columns of posts for role user."""
    return document(table("authors"), table("posts", select_permissions=[permission("user", *columns)], **more))


def edit_posts(project, old, new):
    """A person's edit of posts' file, not committed."""
    text = (project.root / POSTS_FILE).read_text()
    assert old in text
    project.write(POSTS_FILE, text.replace(old, new))


# status


def test_all_is_as_committed(plain_project, engine):
    data = checked(plain_project, STATUS).ok().json()["data"]
    assert data == {
        "files": [],
        "engine": {
            "asked": True,
            "resource_version": live(engine)[1],
            "differs_from_head": False,
            "differs_from_working_tree": False,
        },
    }
    assert {*os.listdir(plain_project.root / ".nself")} == {".gitignore", "hasura-base.json", "hasura.lock"}


def test_files_that_are_not_committed(plain_project, engine):
    edit_posts(plain_project, "- title", "- body")
    plain_project.write(f"{METADATA}/näm es/new file.yaml", "{}\n")
    (plain_project.root / METADATA / "version.yaml").unlink()
    plain_project.write("elsewhere.txt", "not of the metadata\n")
    data = checked(plain_project, STATUS).ok().json()["data"]
    assert {row["file"]: row["state"] for row in data["files"]} == {
        POSTS_FILE: "modified",
        f"{METADATA}/näm es/new file.yaml": "untracked",
        f"{METADATA}/version.yaml": "deleted",
    }
    assert data["engine"]["differs_from_head"] is False
    assert data["engine"]["differs_from_working_tree"] is True
    text = plain_project.run(*STATUS).ok().out
    assert "modified" in text
    assert text.splitlines()[-1].endswith("differs from the files")


def test_the_engine_differs_from_both(plain_project, engine):
    replace(engine, with_user("id"))
    engine_data = checked(plain_project, STATUS).ok().json()["data"]["engine"]
    assert (engine_data["differs_from_head"], engine_data["differs_from_working_tree"]) == (True, True)


def test_the_index_is_not_touched(plain_project, engine):
    edit_posts(plain_project, "- title", "- body")
    git(plain_project, "add", "-A")
    before = git(plain_project, "status", "--porcelain"), git(plain_project, "ls-files", "-s")
    checked(plain_project, STATUS).ok()
    assert (git(plain_project, "status", "--porcelain"), git(plain_project, "ls-files", "-s")) == before


def test_nothing_committed_yet(plain_project, engine):
    shutil.rmtree(plain_project.root / ".git")
    git(plain_project, "init", "-q")
    data = checked(plain_project, STATUS).ok().json()["data"]
    assert {row["state"] for row in data["files"]} == {"untracked"}
    assert data["engine"]["differs_from_head"] is None


def test_files_are_told_also_where_the_engine_is_down(plain_project, engine):
    edit_posts(plain_project, "- title", "- body")
    outcome = checked_status(plain_project, {"HASURA_GRAPHQL_ENDPOINT": "http://127.0.0.1:1"})
    assert outcome.code == 2
    assert outcome.json()["data"]["files"] == [{"file": POSTS_FILE, "state": "modified"}]
    assert outcome.json()["data"]["engine"]["asked"] is False


def test_a_wrong_secret_is_exit_3_of_status_too(plain_project, engine):
    assert checked_status(plain_project, {"HASURA_GRAPHQL_ADMIN_SECRET": "wrong"}).code == 3


def checked_status(project, settings):
    return project.run(*STATUS, "--json", env=settings)


def test_no_work_tree_says_so(plain_project, engine):
    shutil.rmtree(plain_project.root / ".git")
    outcome = checked(plain_project, STATUS)
    assert outcome.code == 1
    assert "in no git work tree" in outcome.json()["error"]["message"]
    assert outcome.json()["error"]["hint"] == "make one: git init"


def test_no_git_says_so(plain_project, engine, tmp_path):
    outcome = checked(plain_project, STATUS, env={"PATH": str(tmp_path)})
    assert outcome.code == 2
    assert "git was not found" in outcome.json()["error"]["message"]


def test_a_tree_below_the_work_tree_whose_name_is_special(plain_project, engine):
    """git would take such a name for a pattern."""
    special = "a *[b] 'c'/metadata"
    os.makedirs(plain_project.root / special)
    write_special = {f"{special}/{name}": text for name, text in FILES.items()}
    for name, text in write_special.items():
        plain_project.write(name, text)
    data = checked(plain_project, STATUS, env={"HASURA_METADATA_DIR": special}).ok().json()["data"]
    assert {row["file"] for row in data["files"]} == set(write_special)
    git(plain_project, "add", "-A")
    git(plain_project, "commit", "-qm", "special")
    data = checked(plain_project, STATUS, env={"HASURA_METADATA_DIR": special}).ok().json()["data"]
    assert data["files"] == []
    assert data["engine"]["differs_from_head"] is False


def test_metadata_in_a_single_file(plain_project, engine):
    single = {"HASURA_METADATA_DIR": "hasura/metadata.json"}
    plain_project.write("hasura/metadata.json", json.dumps(BLOG, indent=2))
    git(plain_project, "add", "-A")
    git(plain_project, "commit", "-qm", "one file")
    data = checked(plain_project, STATUS, env=single).ok().json()["data"]
    assert (data["files"], data["engine"]["differs_from_head"]) == ([], False)
    replace(engine, with_user("id"))
    assert checked(plain_project, PULL, env=single).ok().json()["data"]["written"] == ["hasura/metadata.json"]
    data = checked(plain_project, STATUS, env=single).ok().json()["data"]
    assert data["files"] == [{"file": "hasura/metadata.json", "state": "modified"}]
    assert (data["engine"]["differs_from_head"], data["engine"]["differs_from_working_tree"]) == (True, False)


def test_a_link_to_the_tree_and_a_work_tree_around_the_project(plain_project, engine, tmp_path):
    """The project is a folder of a larger repository, and is reached through a symbolic link."""
    shutil.rmtree(plain_project.root / ".git")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "link").symlink_to(plain_project.root)
    outcome = plain_project.run(*STATUS, "--json", "--project", str(tmp_path / "link")).ok()
    assert {row["state"] for row in outcome.json()["data"]["files"]} == {"untracked"}
    assert POSTS_FILE in {row["file"] for row in outcome.json()["data"]["files"]}


def test_what_could_not_be_compared_is_not_said_to_be_the_same(plain_project, engine):
    edit_posts(plain_project, "filter: {}", "filter: {")
    outcome = checked(plain_project, STATUS).ok()
    assert outcome.err.endswith(f"{engine.endpoint} has the metadata of HEAD\n")
    assert len(outcome.json()["warnings"]) == 1
    shutil.rmtree(plain_project.root / ".git")
    git(plain_project, "init", "-q")
    outcome = checked(plain_project, STATUS).ok()
    assert outcome.err.endswith(f"nothing to compare {engine.endpoint} with\n")


def test_the_files_of_a_submodule_are_compared_as_head_has_them(plain_project, engine, tmp_path):
    inner = tmp_path / "inner"
    shutil.copytree(plain_project.root / METADATA / "databases", inner)
    for words in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "inner")):
        git(plain_project, "-C", str(inner), *words)
    git(plain_project, "rm", "-qr", f"{METADATA}/databases")
    folder = f"{METADATA}/databases"
    git(plain_project, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(inner), folder)
    git(plain_project, "commit", "-qm", "submodule")
    data = checked(plain_project, STATUS).ok().json()["data"]
    assert (data["files"], data["engine"]["differs_from_head"]) == ([], False)
    edit_posts(plain_project, "- title", "- body")
    data = checked(plain_project, STATUS).ok().json()["data"]["engine"]
    assert (data["differs_from_head"], data["differs_from_working_tree"]) == (False, True)


def test_a_mix_that_was_committed_is_known(plain_project, engine):
    """The note of the run goes with it."""
    note = {name: ("before", unfinished.text_digest(text)) for name, text in FILES.items()}
    unfinished.write_note(str(plain_project.root / METADATA), {**note, "network.yaml": (None, "wanted")})
    git(plain_project, "add", "-A")
    git(plain_project, "commit", "-qm", "mix")
    outcome = checked(plain_project, STATUS).ok()
    assert (outcome.json()["data"]["files"], len(outcome.json()["warnings"])) == ([], 2)
    assert all("some are old and some are new" in warning for warning in outcome.json()["warnings"])


# pull


@pytest.mark.servers("url-psql-15", "url-psql-17")
def test_a_pull_brings_what_changed_in_the_engine(project):
    project.database.admin(SCHEMA)
    with start_engine(project) as engine:
        prepare(project, engine)
        replace(engine, with_user("id", "title", "body"))
        assert checked(project, PULL).ok().json()["data"]["written"] == [POSTS_FILE]
        text = (project.root / POSTS_FILE).read_text()
        assert "- body" in text
        assert text.startswith("# what everybody reads\n")
        assert "nothing to write" in checked(project, PULL).ok().err


def test_both_sides_are_joined_and_the_local_edit_stays(plain_project, engine):
    guest = "  - role: guest\n    permission:\n      columns: []\n      filter: {}"
    edit_posts(plain_project, "select_permissions:", f"# mine\nselect_permissions:\n{guest}")
    replace(engine, with_user("id", "title", "body"))
    data = checked(plain_project, PULL).ok().json()["data"]
    assert data["written"] == [POSTS_FILE]
    text = (plain_project.root / POSTS_FILE).read_text()
    assert "role: guest" in text
    assert "- body" in text
    (copy,) = data["copies"]
    assert "- body" not in (plain_project.root / copy).read_text()


def test_a_local_removal_is_kept_and_an_engines_removal_taken(plain_project, engine):
    (plain_project.root / AUTHORS_FILE).unlink()
    plain_project.write(
        f"{METADATA}/databases/default/tables/tables.yaml", '- "!include public_posts.yaml"\n'
    )  # fmt: skip
    replace(engine, document(table("authors"), table("posts")))
    checked(plain_project, PULL).ok()
    texts = files_of(plain_project)
    assert "databases/default/tables/public_authors.yaml" not in texts
    assert "role: user" not in texts["databases/default/tables/public_posts.yaml"]


@pytest.fixture
def conflicting(plain_project, engine):
    """The project and its engine, both of which have changed the filter of one permission."""
    edit_posts(plain_project, "filter: {}", "filter:\n        id:\n          _gt: 1")
    posts = table("posts", select_permissions=[permission("user", "id", "title", filter={"id": {"_gt": 2}})])
    replace(engine, document(table("authors"), posts))
    return plain_project


def test_a_conflict_is_listed_and_nothing_written(conflicting, engine):
    before = files_of(conflicting), (conflicting.root / BASE).read_text()
    outcome = checked(conflicting, PULL)
    assert outcome.code == 4
    (conflict,) = outcome.json()["data"]["conflicts"]
    assert conflict["path"][3:] == ["public.posts", "select_permissions", "user", "permission", "filter"]
    assert (conflict["local"], conflict["live"], conflict["base"]) == ({"id": {"_gt": 1}}, {"id": {"_gt": 2}}, {})
    assert (conflict["file"], conflict["line"]) == (POSTS_FILE, 11)
    assert (files_of(conflicting), (conflicting.root / BASE).read_text()) == before
    assert f"{POSTS_FILE}:11: sources default tables" in conflicting.run(*PULL).err


def test_with_force_the_engines_is_taken_and_a_copy_kept(conflicting, engine):
    mine = (conflicting.root / POSTS_FILE).read_text()
    outcome = checked(conflicting, PULL, "--force").ok()
    assert "_gt: 2" in (conflicting.root / POSTS_FILE).read_text()
    (copy,) = outcome.json()["data"]["copies"]
    assert (conflicting.root / copy).read_text() == mine
    assert any("the engine's was taken" in warning for warning in outcome.json()["warnings"])


def test_pull_without_git_keeps_a_copy_of_what_it_cannot_know(plain_project, engine):
    shutil.rmtree(plain_project.root / ".git")
    replace(engine, with_user("id"))
    data = checked(plain_project, PULL).ok().json()["data"]
    assert len(data["copies"]) == 1


def test_the_first_pull_into_nothing(plain_project, engine):
    shutil.rmtree(plain_project.root / "hasura")
    shutil.rmtree(plain_project.root / ".nself")
    checked(plain_project, PULL).ok()
    assert checked(plain_project, ("hasura", "metadata", "diff")).ok().json()["data"]["changes"] == []


def test_an_engine_made_anew_takes_nothing_away(plain_project, engine):
    """Its base is not the one of the engine before: what it lacks was not removed by anybody."""
    before = files_of(plain_project)
    plain_project.database.admin("UPDATE hdb_catalog.hdb_version SET hasura_uuid = gen_random_uuid()")
    replace(engine, document())
    checked(plain_project, PULL).ok()
    assert files_of(plain_project) == before


def test_each_environment_has_a_base_of_its_own(plain_project, engine):
    plain_project.write_env({**plain_project.database.settings, **settings_of(engine)}, ".env.staging")
    checked(plain_project, PULL, "--env", "staging").ok()
    bases = json.loads((plain_project.root / BASE).read_text())["bases"]
    assert sorted(bases) == ["dev", "staging"]


def test_a_pull_that_has_nothing_to_write_does_not_say_that_both_are_the_same(plain_project, engine):
    edit_posts(plain_project, "- title", "- body")
    outcome = checked(plain_project, PULL).ok()
    assert f"has what changed in {engine.endpoint}, and more" in outcome.err
    assert "has the metadata of" not in outcome.err
    edit_posts(plain_project, "- body", "- title")
    assert f"has the metadata of {engine.endpoint}" in checked(plain_project, PULL).ok().err


# push


def test_a_push_applies_the_files(plain_project, engine):
    edit_posts(plain_project, "- title", "- body")
    assert checked(plain_project, PUSH).ok().json()["data"]["applied"] is True
    assert live(engine)[0] == with_user("id", "body")
    edit_posts(plain_project, "- body", "- title")
    checked(plain_project, PUSH).ok()
    assert live(engine)[0] == BLOG


def test_a_push_over_a_change_in_the_engine_is_refused_and_told(plain_project, engine):
    edit_posts(plain_project, "- title", "- body")
    other = document(table("authors", select_permissions=[permission("guest", "id")]), BLOG["sources"][0]["tables"][1])
    replace(engine, other)
    outcome = checked(plain_project, PUSH)
    assert outcome.code == 4
    assert outcome.json()["error"]["code"] == "metadata_moved"
    assert [(change["path"][3:], change["change"]) for change in outcome.json()["data"]["changes"]] == [
        (["public.authors", "select_permissions", "guest"], "added")
    ]
    assert live(engine)[0] == other
    checked(plain_project, PULL).ok()
    checked(plain_project, PUSH).ok()
    assert checked(plain_project, ("hasura", "metadata", "diff")).ok().json()["data"]["changes"] == []
    assert live(engine)[0]["sources"][0]["tables"][0]["select_permissions"][0]["role"] == "guest"


def test_with_force_it_is_undone(plain_project, engine):
    replace(engine, with_user("id"))
    assert checked(plain_project, PUSH).code == 4
    checked(plain_project, PUSH, "--force").ok()
    assert live(engine)[0] == BLOG


def test_after_a_restore_the_same_version_is_not_the_same_metadata(plain_project, engine):
    """A restore sets the resource version back, and keeps the id by which the engine is known."""
    plain_project.run("backup").ok()
    replace(engine, with_user("id", "body"))
    replace(engine, with_user("id", "title", "body"))
    checked(plain_project, PULL).ok()
    base = json.loads((plain_project.root / BASE).read_text())["bases"]["dev"]
    plain_project.run("restore", "--force", "--no-safety-backup").ok()
    guest = table("authors", select_permissions=[permission("guest", "id")])
    theirs = document(guest, BLOG["sources"][0]["tables"][1])
    while live(engine)[1] < base["version"]:
        replace(engine, theirs)
    assert (base["engine"], base["version"]) == (engine.ask("get_catalog_state")[1]["id"], live(engine)[1])
    outcome = checked(plain_project, PUSH)
    assert outcome.code == 4
    assert outcome.json()["error"]["code"] == "metadata_moved"
    assert live(engine)[0] == theirs


def test_a_reload_in_between_is_no_change(plain_project, engine):
    engine.ask("reload_metadata")
    edit_posts(plain_project, "- title", "- body")
    checked(plain_project, PUSH).ok()


def test_dry_run_of_push_and_pull_change_nothing(plain_project, engine):
    edit_posts(plain_project, "- title", "- body")
    before = files_of(plain_project), live(engine), (plain_project.root / BASE).read_text()
    assert checked(plain_project, PUSH, "--dry-run").ok().json()["data"]["plan"]
    engine_had = live(engine)[0]
    assert (files_of(plain_project), live(engine), (plain_project.root / BASE).read_text()) == before
    replace(engine, document(table("authors"), *engine_had["sources"][0]["tables"][1:], remote_schemas=[]))
    checked(plain_project, PULL, "--dry-run").ok()
    assert files_of(plain_project) == before[0]


def test_the_first_push_into_an_empty_engine_needs_no_base(plain_project, engine):
    (plain_project.root / BASE).unlink()
    replace(engine, document())
    checked(plain_project, PUSH).ok()
    assert live(engine)[0] == BLOG


def test_without_a_base_what_differs_is_not_overwritten(plain_project, engine):
    (plain_project.root / BASE).unlink()
    replace(engine, with_user("id"))
    outcome = checked(plain_project, PUSH)
    assert outcome.code == 4
    assert "had in common" in outcome.json()["error"]["message"]


def test_a_directory_of_version_2_goes_both_ways(plain_project, engine):
    shutil.rmtree(plain_project.root / "hasura")
    plain_project.write(f"{METADATA}/version.yaml", "version: 2\n")
    plain_project.write(f"{METADATA}/tables.yaml", "- table:\n    name: posts\n    schema: public\n")
    plain_project.run("hasura", "metadata", "apply").ok()
    assert live(engine)[0] == document(table("posts"))
    replace(engine, BLOG)
    assert checked(plain_project, PUSH).code == 4
    assert checked(plain_project, PULL).ok().json()["data"]["written"] == [f"{METADATA}/tables.yaml"]
    assert checked(plain_project, ("hasura", "metadata", "diff")).ok().json()["data"]["changes"] == []


# Faults.


def many(count, *columns):
    """Metadata of `count` tables, which are not there."""
    return document(*(table(f"t{n:04}", select_permissions=[permission("user", *columns)]) for n in range(count)))


@pytest.mark.parametrize("words", [PULL, ("hasura", "metadata", "export")], ids=["pull", "export"])
def test_killed_in_the_middle_each_file_is_whole_and_the_next_run_completes(plain_project, engine, words):
    count = 180
    replace(engine, many(count, "id"))
    checked(plain_project, PULL).ok()
    git(plain_project, "add", "-A")
    git(plain_project, "commit", "-qm", "many")
    old = files_of(plain_project)
    replace(engine, many(count - 100, "id", "name"))
    running = plain_project.start(*words)
    folder = plain_project.root / METADATA / "databases/default/tables"
    seconds = 0.0
    while running.poll() is None and "- name" not in (folder / "public_t0030.yaml").read_text() and seconds < 30:
        time.sleep(0.002)
        seconds += 0.002
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()
    half = files_of(plain_project)
    assert half != old
    outcome = plain_project.run("hasura", "metadata", "apply")  # the mix is never taken for metadata
    assert (outcome.code, "some are old and some are new" in outcome.err) == (1, True), repr(outcome)
    checked(plain_project, words).ok()
    done = files_of(plain_project)
    for name, text in half.items():
        assert name.rpartition("/")[2].startswith(".") or text in (old.get(name), done.get(name)), name
    assert checked(plain_project, ("hasura", "metadata", "diff")).ok().json()["data"]["changes"] == []
    assert len([name for name in done if "public_t" in name]) == count - 100
    assert not [name for name in done if name.rpartition("/")[2].startswith(".")]


def test_what_a_killed_run_has_not_removed_is_removed_by_the_next(plain_project, engine):
    """As it is when the list of tables is written and the files of those that are gone are still there."""
    note = {AUTHORS_FILE.removeprefix(f"{METADATA}/"): ("before", None)}
    unfinished.write_note(str(plain_project.root / METADATA), note)
    plain_project.write(f"{METADATA}/databases/default/tables/tables.yaml", '- "!include public_posts.yaml"\n')
    replace(engine, document(BLOG["sources"][0]["tables"][1]))
    left = plain_project.write(f"{METADATA}/databases/default/tables/.tables.yaml.4711.nself-tmp", "- half of")
    data = checked(plain_project, PULL).ok().json()["data"]
    assert data["removed"] == [AUTHORS_FILE]
    assert not left.exists()
    assert unfinished.NOTE not in files_of(plain_project)


def test_two_pulls_at_once(plain_project, engine):
    replace(engine, many(200, "id"))
    runs = [plain_project.start(*PULL, "--json") for _ in range(3)]
    codes = []
    for process in runs:
        out, err = process.communicate(timeout=120)
        codes.append(process.returncode)
        assert process.returncode in (0, 1, 4), err
    assert 0 in codes
    checked(plain_project, PULL).ok()
    assert checked(plain_project, ("hasura", "metadata", "diff")).ok().json()["data"]["changes"] == []
    assert len([name for name in files_of(plain_project) if "public_t" in name]) == 200
