"""`migrate` and the live API: what Hasura tracks is not broken unasked, and Hasura reads its metadata after a run."""

from __future__ import annotations

import json

import pytest
from bed.bookkeeping import applied, make_metadata, tables, values, versions
from bed.little_server import LittleServer, reply

SCHEMA = """
CREATE TABLE authors (id int PRIMARY KEY, name text);
CREATE TABLE moods (value text PRIMARY KEY, comment text);
INSERT INTO moods VALUES ('calm', 'at rest'), ('wild', NULL);
CREATE TABLE posts (
    id int PRIMARY KEY, author_id int CONSTRAINT posts_author REFERENCES authors, mood text REFERENCES moods,
    title text, body text);
CREATE FUNCTION find_posts(words text) RETURNS SETOF posts LANGUAGE sql STABLE AS 'SELECT * FROM posts';
"""


def key(column):
    return {"foreign_key_constraint_on": column}


def source(*tracked, name="default", functions=()):
    return {"name": name, "kind": "postgres", "tables": [*tracked], "functions": [*functions],
            "configuration": {"connection_info": {"database_url": {"from_env": "PG_URL"}}}}  # fmt: skip


def public(name, **more):
    return {"table": {"schema": "public", "name": name}, **more}


POSTS = public(
    "posts",
    object_relationships=[{"name": "author", "using": key("author_id")}],
    select_permissions=[
        {"role": "reader", "permission": {"columns": ["id", "title"], "filter": {"author": {"name": {"_neq": "x"}}}}}
    ],
)
BLOG = {
    "version": 3,
    "sources": [source(
        public("authors", array_relationships=[
            {"name": "posts", "using": key({"column": "author_id", "table": {"schema": "public", "name": "posts"}})}]),
        public("moods", is_enum=True),
        POSTS,
        functions=[{"function": {"schema": "public", "name": "find_posts"}}],
    )],
}  # fmt: skip


@pytest.fixture
def blog(project):
    """A project with version 1 applied, whose tables and function Hasura tracks."""
    return with_blog(project)


@pytest.fixture
def plain_blog(plain_project):
    """The same on the plain server."""
    return with_blog(plain_project)


def with_blog(project, document=BLOG):
    project.migration("1_blog", SCHEMA)
    project.run("migrate", "up").ok()
    make_metadata(project, document)
    return project


def up(project, *arguments, **options):
    """The outcome of `migrate up --json` without the reload."""
    return project.run("migrate", "up", "--skip-metadata", "--json", *arguments, **options)


def broken(outcome):
    """The broken things of a run, as kind schema.table.name texts."""
    rows = outcome.json()["data"]["broken"]
    return sorted({f"{row['kind']} {row['schema']}.{row['table']}.{row['name']}" for row in rows})


# What fails a migration.


@pytest.mark.versions
@pytest.mark.parametrize(
    ("statement", "thing"),
    [
        ("DROP TABLE posts CASCADE", "table public.posts."),
        ("ALTER TABLE posts DROP COLUMN title", "column public.posts.title"),
        ("ALTER TABLE posts DROP CONSTRAINT posts_author", "relationship public.posts.author"),
        ("DROP FUNCTION find_posts", "function public..find_posts"),
        ("DELETE FROM moods", "enum_table public.moods."),
    ],
    ids=["table", "column", "foreign key", "function", "enum rows"],
)
def test_what_breaks_the_api_is_undone_and_listed(blog, statement, thing):
    blog.migration("2_breaks", f"CREATE TABLE marker ();\n{statement};\n")
    outcome = up(blog)
    assert outcome.code == 1
    assert thing in broken(outcome)
    assert all(row["why"] for row in outcome.json()["data"]["broken"])
    assert outcome.json()["data"]["applied"] == []
    assert outcome.json()["error"]["file"] == "migrations/2_breaks.sql"
    assert applied(blog) == [1]
    assert tables(blog) == ["authors", "moods", "posts"]
    assert values(blog, "SELECT count(*) FROM moods") == [(2,)]


@pytest.mark.parametrize(
    ("statement", "thing"),
    [
        ("ALTER TABLE posts RENAME TO articles", "table public.posts."),
        ("ALTER TABLE posts RENAME title TO headline", "column public.posts.title"),
        ("ALTER TABLE authors RENAME name TO called", "column public.posts.author.name"),
        ("CREATE SCHEMA app; ALTER TABLE posts SET SCHEMA app", "table public.posts."),
        ("ALTER TABLE posts ADD CONSTRAINT again FOREIGN KEY (author_id) REFERENCES authors",
         "relationship public.posts.author"),
        ("ALTER FUNCTION find_posts(text) RENAME TO look_up", "function public..find_posts"),
        ("CREATE FUNCTION find_posts(n int) RETURNS SETOF posts LANGUAGE sql STABLE AS 'SELECT * FROM posts'",
         "function public..find_posts"),
        ("INSERT INTO moods VALUES ('not a name', NULL)", "enum_table public.moods."),
        ("ALTER TABLE moods ADD COLUMN third text", "enum_table public.moods."),
        ("DO $$ BEGIN EXECUTE 'DROP TABLE posts CASCADE'; END $$", "table public.posts."),
        ("SET search_path = pg_catalog; SET ROLE pg_monitor; RESET ROLE; DROP TABLE public.posts CASCADE",
         "table public.posts."),
    ],
)  # fmt: skip
def test_however_it_is_broken(plain_blog, statement, thing):
    plain_blog.migration("2_breaks", f"{statement};")
    outcome = up(plain_blog)
    assert outcome.code == 1
    assert thing in broken(outcome)
    assert applied(plain_blog) == [1]


def test_people_are_shown_the_list_and_the_way_out(plain_blog):
    plain_blog.migration("2_breaks", "ALTER TABLE posts DROP COLUMN title;")
    outcome = plain_blog.run("migrate", "up", "--skip-metadata")
    assert (
        "error: migrations/2_breaks.sql: the migration would break the live API; nothing of it was kept" in outcome.err
    )
    assert "  column public.posts.title is missing: " in outcome.err
    assert "select permission of role reader on public.posts" in outcome.err
    assert "--allow-inconsistent" in outcome.err


def test_each_is_told_with_its_line_in_the_metadata_files(plain_blog):
    plain_blog.write("hasura/metadata.json", json.dumps(BLOG, indent=2))
    plain_blog.write_env({**plain_blog.database.settings, "HASURA_METADATA_DIR": "hasura/metadata.json"})
    plain_blog.migration("2_breaks", "ALTER TABLE posts DROP COLUMN title;")
    outcome = up(plain_blog)
    assert outcome.code == 1
    (row,) = outcome.json()["data"]["broken"]
    lines = json.dumps(BLOG, indent=2).splitlines()
    assert row["file"] == "hasura/metadata.json"
    assert '"reader"' in "".join(lines[row["line"] - 1 : row["line"] + 1])
    assert f"(hasura/metadata.json:{row['line']})" in outcome.json()["error"]["excerpt"]


def test_files_before_it_are_kept_and_told(blog):
    blog.migration("2_fine", "CREATE TABLE fine ();")
    blog.migration("3_breaks", "DROP FUNCTION find_posts;")
    blog.migration("4_after", "CREATE TABLE after ();")
    outcome = up(blog)
    assert outcome.code == 1
    assert [item["version"] for item in outcome.json()["data"]["applied"]] == ["2"]
    assert applied(blog) == [1, 2]
    assert "after" not in tables(blog)


def test_each_commit_must_leave_the_api_whole(plain_blog):
    plain_blog.migration("2_drop", "DROP FUNCTION find_posts;")
    plain_blog.migration("3_again", SCHEMA[SCHEMA.index("CREATE FUNCTION") :])
    assert up(plain_blog).code == 1
    plain_blog.migration("2_drop", "DROP FUNCTION find_posts;\n" + SCHEMA[SCHEMA.index("CREATE FUNCTION") :])
    (plain_blog.root / "migrations/3_again.sql").unlink()
    up(plain_blog).ok()


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE posts DROP COLUMN body",
        "ALTER TABLE posts ADD COLUMN views int",
        "CREATE TABLE untracked (); DROP TABLE untracked",
        "DELETE FROM moods WHERE value = 'wild'",
        "ALTER TABLE posts DROP CONSTRAINT posts_author, ADD FOREIGN KEY (author_id) REFERENCES authors",
        "CREATE VIEW v AS SELECT 1; DROP VIEW v",
    ],
)
def test_what_hasura_does_not_need_may_change(plain_blog, statement):
    plain_blog.migration("2_fine", f"{statement};")
    assert up(plain_blog).ok().json()["warnings"] == []


def test_a_self_test_and_a_dry_run_break_nothing(plain_blog):
    plain_blog.migration("2_test", "BEGIN;\nDROP TABLE posts CASCADE;\nROLLBACK;\n")
    up(plain_blog).ok()
    plain_blog.migration("3_breaks", "DROP TABLE posts CASCADE;")
    plain_blog.run("migrate", "up", "--dry-run").ok()
    assert "posts" in tables(plain_blog)


def test_names_that_want_quoting_are_found_and_missed(project):
    table, column = """o'Hara "x" $$ %I ü""", "a'b\\"
    quoted, named = '"' + table.replace('"', '""') + '"', '"' + column + '"'
    project.migration("1_odd", f"CREATE TABLE {quoted} ({named} int, {'c' * 63} int);")
    project.run("migrate", "up").ok()
    permission = {"role": "user", "permission": {"columns": [column, "c" * 63], "filter": {}}}
    make_metadata(project, {"version": 3, "sources": [source(public(table, select_permissions=[permission]))]})
    project.migration("2_fine", f"ALTER TABLE {quoted} ADD COLUMN n int;")
    up(project).ok()
    project.migration("3_breaks", f"ALTER TABLE {quoted} DROP COLUMN {named};")
    outcome = up(project)
    assert broken(outcome) == [f"column public.{table}.{column}"]


# What does not count.


def test_what_was_broken_before_does_not_count(blog):
    blog.database.admin("ALTER TABLE posts DROP COLUMN title; DROP FUNCTION find_posts")
    blog.migration("2_fine", "CREATE TABLE fine ();")
    up(blog).ok()
    blog.migration("3_breaks", "ALTER TABLE posts DROP COLUMN id;")
    assert broken(up(blog)) == ["column public.posts.id"]


TREE = {
    "hasura/metadata/version.yaml": "version: 3\n",
    "hasura/metadata/databases/databases.yaml":
        "- name: default\n  kind: postgres\n  tables: \"!include default/tables/tables.yaml\"\n",
    "hasura/metadata/databases/default/tables/tables.yaml": '- "!include public_posts.yaml"\n',
}  # fmt: skip
POSTS_YAML = """
table:
  name: posts
  schema: public
select_permissions:
  - role: reader
    permission:
      columns:
        - id
      filter: {}
"""


def test_what_the_local_tree_no_longer_tracks_does_not_count(blog):
    for path, text in {**TREE, "hasura/metadata/databases/default/tables/public_posts.yaml": POSTS_YAML}.items():
        blog.write(path, text)
    blog.migration("2_fine", "ALTER TABLE posts DROP COLUMN title; DROP FUNCTION find_posts; DELETE FROM moods;")
    up(blog).ok()
    blog.migration("3_breaks", "ALTER TABLE posts DROP COLUMN id;")
    assert broken(up(blog)) == ["column public.posts.id"]


def test_a_tree_that_tracks_nothing_says_nothing_of_what_is_wanted(plain_blog):
    plain_blog.write("hasura/metadata/databases/databases.yaml", "[]\n")
    plain_blog.migration("2_breaks", "DROP FUNCTION find_posts;")
    assert up(plain_blog).code == 1


def test_a_tree_that_cannot_be_read_is_found_before_anything_runs(plain_blog):
    plain_blog.write("hasura/metadata/databases/databases.yaml", "- name: [default\n")
    plain_blog.migration("2_fine", "CREATE TABLE fine ();")
    outcome = up(plain_blog)
    assert outcome.code == 1
    assert outcome.json()["error"]["file"].endswith("hasura/metadata/databases/databases.yaml")
    assert "fine" not in tables(plain_blog)


@pytest.mark.parametrize(
    "document",
    [
        {"version": 3, "sources": []},
        {"version": 3, "sources": [source(POSTS, name="other")]},
        {"version": 3, "sources": [{**source(POSTS), "kind": "mssql"}]},
    ],
    ids=["no source", "another source", "not Postgres"],
)
def test_only_source_default_counts(plain_project, document):
    with_blog(plain_project, document)
    plain_project.migration("2_breaks", "DROP TABLE posts CASCADE;")
    up(plain_project).ok()


def test_a_hasura_without_metadata_tracks_nothing(plain_blog):
    plain_blog.database.admin("DELETE FROM hdb_catalog.hdb_metadata")
    plain_blog.migration("2_drop", "DROP TABLE posts CASCADE;")
    up(plain_blog).ok()


def test_metadata_that_may_not_be_read_is_a_failure_that_says_so(plain_blog):
    role, database = "nself_migrator", plain_blog.database
    database.admin(f"CREATE ROLE {role} LOGIN PASSWORD 'may migrate'")
    database.admin(f"GRANT USAGE ON SCHEMA hdb_catalog, nself_db TO {role}")
    database.admin(f"GRANT ALL ON hdb_catalog.schema_migrations, nself_db.migrations TO {role}")
    plain_blog.migration("2_fine", "SELECT 1;")
    try:
        outcome = up(plain_blog, "--url", database.server.cluster.url(database.name, user=role, password="may migrate"))
        assert outcome.code == 1
        assert f"user {role} may not read hdb_catalog.hdb_metadata" in outcome.err
        assert applied(plain_blog) == [1]
    finally:
        database.admin(f"DROP OWNED BY {role}")
        database.admin(f"DROP ROLE {role}")


# --allow-inconsistent.


def test_allow_inconsistent_commits_and_warns_of_each(blog):
    blog.migration("2_breaks", "ALTER TABLE posts DROP COLUMN title; DROP FUNCTION find_posts;")
    outcome = up(blog, "--allow-inconsistent").ok()
    assert applied(blog) == [1, 2]
    column, function = outcome.json()["warnings"]
    assert column.startswith("the live API is broken: column public.posts.title")
    assert function.startswith("the live API is broken: function public.find_posts")


def test_the_next_run_is_not_troubled_by_it(plain_blog):
    plain_blog.migration("2_breaks", "DROP FUNCTION find_posts;")
    up(plain_blog, "--allow-inconsistent").ok()
    plain_blog.migration("3_fine", "CREATE TABLE fine ();")
    assert up(plain_blog).ok().json()["warnings"] == []


def test_allow_inconsistent_has_nothing_to_warn_of_where_nothing_broke(plain_blog):
    plain_blog.migration("2_fine", "CREATE TABLE fine ();")
    assert up(plain_blog, "--allow-inconsistent").ok().json()["warnings"] == []


# A file outside a transaction.

OUTSIDE = (
    "-- nself:no-transaction\nCREATE INDEX CONCURRENTLY posts_title ON posts (title);\nDROP FUNCTION find_posts;\n"
)


def test_after_a_file_outside_a_transaction_it_is_recorded_listed_and_a_failure(blog):
    blog.migration("2_outside", OUTSIDE)
    blog.migration("3_after", "CREATE TABLE after ();")
    outcome = up(blog)
    assert outcome.code == 1
    assert broken(outcome) == ["function public..find_posts"]
    assert "is done and recorded, but it breaks the live API" in outcome.json()["error"]["message"]
    assert [item["version"] for item in outcome.json()["data"]["applied"]] == ["2"]
    assert versions(blog) == [(1, False), (2, False)]
    up(blog).ok()
    assert applied(blog) == [1, 2, 3]


def test_with_allow_inconsistent_it_is_a_warning_there_too(blog):
    blog.migration("2_outside", OUTSIDE)
    blog.migration("3_after", "CREATE TABLE after ();")
    outcome = up(blog, "--allow-inconsistent").ok()
    assert applied(blog) == [1, 2, 3]
    (warning,) = outcome.json()["warnings"]
    assert warning.startswith("the live API is broken: function public.find_posts")


def test_a_file_outside_a_transaction_that_breaks_nothing_passes(plain_blog):
    plain_blog.migration("2_outside", OUTSIDE.replace("DROP FUNCTION find_posts", "SELECT 1"))
    assert up(plain_blog).ok().json()["warnings"] == []


# The reload.

SECRET = "open-sesame-4711"
CONSISTENT = json.dumps({"message": "success", "is_consistent": True, "inconsistent_objects": []})


@pytest.fixture
def engine():
    """engine(answer) -> a LittleServer that stands for Hasura's engine; by default it is content."""
    made = []

    def make(answer=None):
        made.append(LittleServer(answer or reply(body=CONSISTENT, Content_Type="application/json")))
        return made[-1]

    yield make
    for server in made:
        server.close()


def settings_for(project, server, **more):
    """Let the project's .env.dev lead to `server` with SECRET."""
    hasura = {"HASURA_GRAPHQL_ENDPOINT": server.url("/v1/graphql"), "HASURA_GRAPHQL_ADMIN_SECRET": SECRET}
    project.write_env({**project.database.settings, **hasura, **more})


def requests(server):
    """What came, as (request line, headers in lower case, JSON document)."""
    found = []
    for request in server.requests:
        head, _, body = request.decode().partition("\r\n\r\n")
        line, *fields = head.split("\r\n")
        found.append(
            (line, {k.lower(): v for k, _, v in (field.partition(": ") for field in fields)}, json.loads(body))
        )
    return found


def test_after_a_run_the_metadata_is_reloaded_once_with_the_admin_secret(project, engine):
    server = engine()
    settings_for(project, server)
    project.migration("1_a", "CREATE TABLE a ();")
    project.migration("2_b", "-- nself:no-transaction\nCREATE TABLE b ();")
    project.migration("3_c", "CREATE TABLE c ();")
    outcome = project.run("migrate", "up", "--json").ok()
    ((line, headers, document),) = requests(server)
    assert line == "POST /v1/metadata HTTP/1.1"
    assert headers["x-hasura-admin-secret"] == SECRET
    assert document["type"] == "reload_metadata"
    assert outcome.json()["data"]["metadata"] == "reloaded"
    assert SECRET not in outcome.out + outcome.err


def test_it_is_reloaded_when_everything_is_committed(plain_project, engine):
    seen = []

    def answer(connection, request):
        seen.append(applied(plain_project))
        reply(body=CONSISTENT)(connection, request)

    settings_for(plain_project, engine(answer))
    plain_project.migration("1_a", "CREATE TABLE a ();")
    plain_project.migration("2_b", "CREATE TABLE b ();")
    plain_project.run("migrate", "up").ok()
    assert seen == [[1, 2]]


def test_down_reloads_it_too(plain_project, engine):
    plain_project.migration("1_a", "CREATE TABLE a ();", "DROP TABLE a;")
    plain_project.run("migrate", "up").ok()
    server = engine()
    settings_for(plain_project, server)
    assert plain_project.run("migrate", "down", "--json").ok().json()["data"]["metadata"] == "reloaded"
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "arguments", [("up", "--skip-metadata"), ("up", "--dry-run"), ("status",), ("down", "--skip-metadata")]
)
def test_it_is_not_reloaded_unasked(plain_project, engine, arguments):
    server = engine()
    settings_for(plain_project, server)
    plain_project.migration("1_a", "CREATE TABLE a ();", "DROP TABLE a;")
    if arguments[0] == "down":
        plain_project.run("migrate", "up", "--skip-metadata").ok()
    plain_project.run("migrate", *arguments).ok()
    assert server.requests == []


def test_it_is_not_reloaded_where_nothing_was_applied(plain_project, engine):
    server = engine()
    settings_for(plain_project, server)
    plain_project.run("migrate", "up").ok()
    plain_project.migration("1_a", "SELECT 1/0;")
    assert plain_project.run("migrate", "up").code == 1
    assert server.requests == []


def test_it_is_reloaded_where_a_run_failed_after_it_had_applied_something(plain_project, engine):
    server = engine()
    settings_for(plain_project, server)
    plain_project.migration("1_a", "CREATE TABLE a ();")
    plain_project.migration("2_b", "SELECT 1/0;")
    outcome = plain_project.run("migrate", "up", "--json")
    assert outcome.code == 1
    assert outcome.json()["data"]["metadata"] == "reloaded"
    assert len(server.requests) == 1


def test_dry_run_names_the_reload(plain_project, engine):
    server = engine()
    settings_for(plain_project, server)
    plain_project.migration("1_a", "CREATE TABLE a ();")
    outcome = plain_project.run("migrate", "up", "--dry-run").ok()
    assert f"reload Hasura's metadata at {server.url('')}" in outcome.out


def test_where_metadata_is_in_the_database_the_port_alone_will_do(plain_blog, engine):
    server = engine()
    port = {"HASURA_PORT": str(server.port), "HASURA_ADMIN_SECRET": SECRET}
    plain_blog.write_env({**plain_blog.database.settings, **port})
    plain_blog.migration("2_fine", "CREATE TABLE fine ();")
    plain_blog.run("migrate", "up").ok()
    assert requests(server)[0][1]["x-hasura-admin-secret"] == SECRET


def test_without_a_hasura_nothing_is_said_of_it(plain_project):
    plain_project.migration("1_a", "CREATE TABLE a ();")
    document = plain_project.run("migrate", "up", "--json").ok().json()
    assert "metadata" not in document["data"]
    assert document["warnings"] == []


def told(project, *arguments):
    """The JSON document and all the output of an `up` that applied version 1; the secret is nowhere in it."""
    project.migration("1_a", "CREATE TABLE a ();")
    outcome = project.run("migrate", "up", "--json", *arguments).ok()
    assert applied(project) == [1]
    assert SECRET not in outcome.out + outcome.err
    return outcome.json()


def test_an_engine_that_is_down_is_a_warning(project, engine):
    server = engine()
    settings_for(project, server)
    server.close()
    document = told(project, "--verbose")
    assert document["data"]["metadata"] == "not_reloaded"
    assert [item["version"] for item in document["data"]["applied"]] == ["1"]
    (warning,) = document["warnings"]
    assert warning.startswith("Hasura's metadata was not reloaded: ")


ACCESS_DENIED = {"path": "$", "error": f'invalid "x-hasura-admin-secret" {SECRET}', "code": "access-denied"}


@pytest.mark.parametrize(
    "answer",
    [
        reply("401 Unauthorized", json.dumps(ACCESS_DENIED)),
        reply("400 Bad Request", json.dumps({"path": "$.args", "error": "no", "code": "parse-failed"})),
        reply("500 Internal Server Error", "<html>oops</html>"),
        reply("404 Not Found", ""),
        reply("200 OK", "not JSON"),
        reply("302 Found", "", Location="http://127.0.0.1:1/elsewhere"),
        lambda connection, request: None,
    ],
    ids=["secret refused", "request refused", "internal error", "not found", "no JSON", "redirect", "hangs up"],
)
def test_an_engine_that_refuses_is_a_warning(plain_project, engine, answer):
    settings_for(plain_project, engine(answer))
    document = told(plain_project)
    assert document["data"]["metadata"] == "not_reloaded"
    assert len(document["warnings"]) == 1


def test_what_the_engine_finds_inconsistent_is_warned_of(plain_project, engine):
    found = [
        {
            "type": "table",
            "name": "posts",
            "reason": 'no such table/view exists in source: "posts"',
            "definition": "posts",
        }
    ]
    settings_for(plain_project, engine(reply(body=json.dumps(
        {"message": "success", "is_consistent": False, "inconsistent_objects": found}))))  # fmt: skip
    document = told(plain_project)
    assert document["data"]["metadata"] == "inconsistent"
    assert document["warnings"] == ['Hasura: table: no such table/view exists in source: "posts"']


def test_what_is_inconsistent_is_told_with_its_line_in_the_metadata_files(plain_project, engine):
    lost = {"type": "table", "name": "table posts in source default", "reason": "no such table", "definition": "posts"}
    settings_for(plain_project, engine(reply(body=json.dumps(
        {"message": "success", "is_consistent": False, "inconsistent_objects": [lost]}))),
        HASURA_METADATA_DIR="hasura/metadata.json")  # fmt: skip
    plain_project.write("hasura/metadata.json", '{"version": 3, "sources": [{"name": "default", "kind": "postgres",\n'
                        '"configuration": {}, "tables": [\n{"table": "posts"}]}]}')  # fmt: skip
    assert told(plain_project)["warnings"] == ["Hasura: hasura/metadata.json:3: table: no such table"]


def test_an_engine_that_does_not_say_what_is_inconsistent_is_warned_of(plain_project, engine):
    settings_for(plain_project, engine(reply(body='{"message": "success", "is_consistent": false}')))
    document = told(plain_project)
    assert document["data"]["metadata"] == "inconsistent"
    assert document["warnings"] == ["Hasura: its metadata is inconsistent"]


def test_an_endpoint_that_is_no_address_is_found_before_anything_runs(plain_project):
    plain_project.write_env({**plain_project.database.settings, "HASURA_GRAPHQL_ENDPOINT": "localhost:8080"})
    plain_project.migration("1_a", "CREATE TABLE a ();")
    outcome = plain_project.run("migrate", "up")
    assert outcome.code == 1
    assert "HASURA_GRAPHQL_ENDPOINT is not an http address" in outcome.err
    assert tables(plain_project) == []
