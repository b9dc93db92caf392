"""A project with a Hasura engine (the double) over its own database, and metadata files to apply."""

from __future__ import annotations

import copy

from bed.hasura_engine import Engine

SECRET = "admin-s3cret"

SCHEMA = """
CREATE TABLE authors (id int PRIMARY KEY, name text);
CREATE TABLE posts (id int PRIMARY KEY, author_id int REFERENCES authors, title text, body text);
"""
CONFIGURATION = {
    "connection_info": {
        "database_url": {"from_env": "HASURA_GRAPHQL_DATABASE_URL"}, "isolation_level": "read-committed",
        "use_prepared_statements": True,
    }
}  # fmt: skip


def permission(role, *columns, **rule):
    """A select permission's entry."""
    return {"role": role, "permission": {"columns": [*columns], "filter": {}, **rule}}


def table(name, **more):
    """A table's entry."""
    return {"table": {"schema": "public", "name": name}, **more}


def document(*tables, **more):
    """Metadata of one source."""
    source = {"name": "default", "kind": "postgres", "tables": [*tables], "configuration": CONFIGURATION}
    return {"version": 3, "sources": [source], **copy.deepcopy(more)}


POSTS = table("posts", select_permissions=[permission("user", "id", "title")])
BLOG = document(table("authors"), POSTS)

# The same as files, laid out as Hasura's CLI does and with a comment of a person's.
FILES = {
    "version.yaml": "version: 3\n",
    "databases/databases.yaml": """- name: default
  kind: postgres
  configuration:
    connection_info:
      database_url:
        from_env: HASURA_GRAPHQL_DATABASE_URL
      isolation_level: read-committed
      use_prepared_statements: true
  tables: "!include default/tables/tables.yaml"
""",
    "databases/default/tables/tables.yaml": '- "!include public_authors.yaml"\n- "!include public_posts.yaml"\n',
    "databases/default/tables/public_authors.yaml": "table:\n  name: authors\n  schema: public\n",
    "databases/default/tables/public_posts.yaml": """# what everybody reads
table:
  name: posts
  schema: public
select_permissions:
  - role: user
    permission:
      columns:
        - id
        - title
      filter: {}
""",
}
METADATA = "hasura/metadata"
POSTS_FILE = f"{METADATA}/databases/default/tables/public_posts.yaml"


def url_of(project):
    """The address of the project's database, as the engine connects to it."""
    return project.database.server.cluster.url(project.database.name)


def start_engine(project, **options):
    """An Engine over the project's database, to which the project's settings lead."""
    engine = Engine(url_of(project), SECRET, **options)
    settings = {**project.database.settings, **settings_of(engine)}
    project.write_env(settings)
    return engine


def settings_of(engine, secret=SECRET):
    """The settings that lead to an engine."""
    return {"HASURA_GRAPHQL_ENDPOINT": engine.endpoint, "HASURA_GRAPHQL_ADMIN_SECRET": secret}


def write_files(project, files=FILES):
    """Write metadata files below the project's metadata folder."""
    for name, text in files.items():
        project.write(f"{METADATA}/{name}", text)


def live(engine):
    """What the engine has: (document, resource version)."""
    status, answer = engine.ask("export_metadata", version=2)
    assert status == 200, answer
    return answer["metadata"], answer["resource_version"]


def replace(engine, metadata):
    """Let somebody else put metadata into the engine."""
    status, answer = engine.ask("replace_metadata", {"allow_inconsistent_metadata": True, "metadata": metadata})
    assert status == 200, answer


def files_of(project):
    """The metadata files and their texts, by path below the metadata folder."""
    root = project.root / METADATA
    return {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}
