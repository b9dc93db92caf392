"""What a test asks of a database behind the program's back: by psycopg, so that no assertion rests on what it tests."""

from __future__ import annotations


def values(project, statement, parameters=None):
    """The rows of a statement as tuples."""
    return [tuple(row.values()) for row in project.database.admin(statement, parameters)]


def versions(project):
    """(version, dirty) of Hasura's own table, ascending; [] where it is not there."""
    if values(project, "SELECT to_regclass('hdb_catalog.schema_migrations') IS NULL") == [(True,)]:
        return []
    return values(project, "SELECT version, dirty FROM hdb_catalog.schema_migrations ORDER BY version")


def applied(project):
    """The versions that Hasura's own table holds, ascending."""
    return [version for version, _ in versions(project)]


def record(project, version):
    """Our record of a version as a dict, None where there is none."""
    rows = project.database.admin("SELECT * FROM nself_db.migrations WHERE version = %s", (version,))
    return rows[0] if rows else None


def tables(project, schema="public"):
    """The names of the tables of a schema, sorted."""
    rows = values(project, "SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY 1", (schema,))
    return [name for (name,) in rows]


def schemas(project):
    """Which of the two schemas of bookkeeping there are."""
    sql = "SELECT nspname FROM pg_namespace WHERE nspname IN ('hdb_catalog', 'nself_db') ORDER BY 1"
    return [name for (name,) in values(project, sql)]


def make_schema_migrations(project, *rows):
    """Hasura CLI's own table, as its config v2 makes it, holding `rows` of (version, dirty)."""
    project.database.admin("CREATE SCHEMA IF NOT EXISTS hdb_catalog")
    project.database.admin(
        "CREATE TABLE hdb_catalog.schema_migrations (version bigint NOT NULL PRIMARY KEY, dirty boolean NOT NULL)"
    )
    for row in rows:
        project.database.admin("INSERT INTO hdb_catalog.schema_migrations VALUES (%s, %s)", row)


def make_cli_state(project, versions):
    """Hasura's hdb_version as its engine makes it, with `versions` (text to dirty) in the state of source default."""
    import json

    project.database.admin("CREATE SCHEMA IF NOT EXISTS hdb_catalog")
    project.database.admin(
        "CREATE TABLE hdb_catalog.hdb_version (hasura_uuid uuid PRIMARY KEY DEFAULT gen_random_uuid(),"
        " version text NOT NULL, upgraded_on timestamptz NOT NULL, cli_state jsonb NOT NULL DEFAULT '{}',"
        " console_state jsonb NOT NULL DEFAULT '{}', ee_client_id text, ee_client_secret text)"
    )
    state = {"settings": {"migration_mode": "true"}, "migrations": {"default": versions, "other": {"99": False}}}
    project.database.admin(
        "INSERT INTO hdb_catalog.hdb_version (version, upgraded_on, cli_state) VALUES ('48', now(), %s)",
        (json.dumps(state),),
    )


def make_metadata(project, document):
    """Hasura's hdb_metadata as its engine makes it, holding `document`."""
    import json

    project.database.admin("CREATE SCHEMA IF NOT EXISTS hdb_catalog")
    project.database.admin(
        "CREATE TABLE hdb_catalog.hdb_metadata"
        " (id integer PRIMARY KEY, metadata json NOT NULL, resource_version integer NOT NULL DEFAULT 1 UNIQUE)"
    )
    project.database.admin(
        "INSERT INTO hdb_catalog.hdb_metadata (id, metadata) VALUES (1, %s)", (json.dumps(document),)
    )
