"""A database with every kind of object, backed up and restored: the catalogue and every row compare equal.

The catalogue is compared as pg_dump writes it down before and after; rows by a hash of each table.
"""

from __future__ import annotations

import os
import subprocess

import psycopg
import pytest
from bed.bookkeeping import make_cli_state
from bed.clusters import ContainerCluster
from bed.gaps import Gap, not_run
from bed.local_processes import WHEEL_INSTALLS, wheel_folder
from test_restore import SCHEMA, backup, drop_beside
from test_restore_in_place import OBJECTS

EVERYTHING = (
    SCHEMA
    + """
CREATE TYPE pair AS (a int, b text); CREATE TYPE spans AS RANGE (subtype = float8);
CREATE TABLE typed OF pair; ALTER TABLE typed ADD PRIMARY KEY (a);
CREATE TABLE list (k text, v int) PARTITION BY LIST (k);
CREATE TABLE list_a PARTITION OF list FOR VALUES IN ('a') PARTITION BY HASH (v);
CREATE TABLE list_a0 PARTITION OF list_a FOR VALUES WITH (modulus 2, remainder 0);
CREATE TABLE list_a1 PARTITION OF list_a FOR VALUES WITH (modulus 2, remainder 1);
CREATE TABLE list_rest PARTITION OF list DEFAULT;
CREATE INDEX ON list (v);
INSERT INTO list SELECT chr(97 + i % 3), i FROM generate_series(1, 100) i;
CREATE TABLE numbers (id bigint GENERATED ALWAYS AS IDENTITY (START 100 INCREMENT 7), small smallserial,
    s spans, d date DEFAULT '2024-02-29', t timestamptz, n numeric(30, 10), f float8, i inet, x xml, u uuid, b bit(3),
    a int[], p point, e mood[], c char(5), l interval, EXCLUDE USING gist (s WITH &&), CHECK (n > -1e9), UNIQUE (d, u));
INSERT INTO numbers (s, t, n, f, i, u, b, a, p, e, c, l)
    SELECT spans(i, i + 0.5), '2024-01-01'::timestamptz + i * interval '1 h',
    i / 3.0, 'NaN', '10.0.0.1', md5(i::text)::uuid, B'101', ARRAY[i, NULL], point(i, 0), ARRAY['fine']::mood[], 'x',
    '1 mon -2 days' FROM generate_series(1, 50) i;
INSERT INTO numbers (d, f) VALUES ('infinity', '-Infinity');
ALTER TABLE parent FORCE ROW LEVEL SECURITY;
CREATE POLICY "Odd "" policy" ON parent AS RESTRICTIVE FOR UPDATE TO PUBLIC USING (true) WITH CHECK (id < 1000000);
ALTER TABLE parts REPLICA IDENTITY FULL; ALTER TABLE list ALTER COLUMN v SET STATISTICS 500;
CREATE SEQUENCE q AS int MINVALUE -5 START -5 CYCLE; SELECT nextval('q'), nextval('q');
CREATE FUNCTION f(a int, b text DEFAULT $x$it's $$ %$x$) RETURNS int LANGUAGE sql STABLE AS 'SELECT $1';
CREATE PROCEDURE p(INOUT n int) LANGUAGE plpgsql AS 'BEGIN n := n + 1; END';
CREATE AGGREGATE total(int) (sfunc = int4pl, stype = int, initcond = '0');
CREATE OPERATOR @+@ (leftarg = int, rightarg = int, procedure = int4pl, commutator = @+@);
CREATE OPERATOR CLASS o FOR TYPE int USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=,
    OPERATOR 5 >, FUNCTION 1 btint4cmp(int, int);
CREATE INDEX partial ON parent (n o) WHERE n > 0;
CREATE COLLATION c (locale = 'C'); CREATE CAST (mood AS int) WITH INOUT;
CREATE TEXT SEARCH CONFIGURATION ts (copy = simple); CREATE TEXT SEARCH DICTIONARY dict (template = simple);
CREATE STATISTICS st (dependencies) ON id, n FROM parent;
CREATE RULE silent AS ON INSERT TO shown DO INSTEAD NOTHING;
CREATE VIEW "Odd ""Schema"" x".over AS SELECT * FROM shown WITH CHECK OPTION;
CREATE MATERIALIZED VIEW unfilled AS SELECT 1 AS one WITH NO DATA;
CREATE FOREIGN DATA WRAPPER w; CREATE SERVER r FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE ft (i int) SERVER r;
CREATE USER MAPPING FOR PUBLIC SERVER r;
CREATE PUBLICATION pub FOR TABLE parent, numbers;
CREATE FUNCTION ev() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER everywhere ON ddl_command_end EXECUTE FUNCTION ev();
CREATE TRIGGER off AFTER INSERT ON numbers FOR EACH STATEMENT EXECUTE FUNCTION suppress_redundant_updates_trigger();
ALTER TABLE numbers DISABLE TRIGGER off;
CREATE CONSTRAINT TRIGGER later AFTER INSERT ON typed DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION touch();
GRANT SELECT (id), UPDATE (n) ON parent TO pg_monitor; GRANT ALL ON list TO PUBLIC;
REVOKE ALL ON FUNCTION f FROM PUBLIC;
GRANT USAGE ON SCHEMA "Odd ""Schema"" x" TO pg_monitor WITH GRANT OPTION; GRANT SELECT ON LARGE OBJECT 424242 TO PUBLIC;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO pg_monitor;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
REVOKE USAGE ON SCHEMA public FROM PUBLIC;
COMMENT ON COLUMN parent.n IS E'two\\nlines'; COMMENT ON FUNCTION touch() IS '%s';
COMMENT ON POLICY mine ON parent IS 'p';
COMMENT ON LARGE OBJECT 424242 IS 'large'; COMMENT ON INDEX partial IS 'i';
CREATE UNLOGGED TABLE unlogged AS SELECT 1 AS one; CREATE TABLE empty (); INSERT INTO empty DEFAULT VALUES;
CREATE TABLE hdb_catalog.hdb_metadata (id int PRIMARY KEY, metadata json NOT NULL, resource_version int UNIQUE);
INSERT INTO hdb_catalog.hdb_metadata VALUES (1, '{"version": 3, "sources": []}', 7);
CREATE TABLE hdb_catalog.event_log (id text PRIMARY KEY DEFAULT gen_random_uuid(), payload jsonb, at timestamptz);
CREATE FUNCTION hdb_catalog.insert_event_log() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER "notify_hasura_x_INSERT" AFTER INSERT ON parent FOR EACH ROW
    EXECUTE FUNCTION hdb_catalog.insert_event_log();
"""
)
CHANGES = """
DROP EVENT TRIGGER everywhere; DROP TABLE parent, numbers CASCADE; DROP SCHEMA hdb_catalog CASCADE;
CREATE TABLE other (id int); SELECT lo_unlink(424242); GRANT CREATE ON SCHEMA public TO PUBLIC;
"""
TABLES = """
SELECT format('%I.%I', n.nspname, c.relname) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'm') AND c.relispopulated AND n.nspname NOT LIKE 'pg\\_%'
AND n.nspname <> 'information_schema' ORDER BY 1
"""


def catalogue(project):
    """The definitions that pg_dump finds, as a set: the server's own in a container, this host's newest elsewhere."""
    cluster = project.database.server.cluster
    if isinstance(cluster, ContainerCluster):
        text = cluster.run("pg_dump", "--schema-only", "-U", cluster.user, "-d", project.database.name)
    else:
        text = _host_dump(cluster, project.database.name)
    return {block.strip() for block in text.split("\n\n--\n-- ") if "estrict" not in block}


def _host_dump(cluster, name):
    try:
        program = wheel_folder() / WHEEL_INSTALLS[18] / "bin" / "pg_dump"
    except Gap as gap:
        return not_run(gap.what, gap.reason)
    place = {"PGHOST": str(cluster.host), "PGPORT": str(cluster.port), "PGUSER": cluster.user}
    env = {**os.environ, **place, "PGPASSWORD": cluster.password or "", "PGDATABASE": name}
    return subprocess.run([program, "--schema-only"], env=env, capture_output=True, text=True, check=True).stdout


def hashes(project):
    """A hash of the rows of every table and matview, and what large objects and sequences hold."""
    found = {}
    for row in project.database.admin(TABLES):
        name = row["name"]
        statement = f"SELECT count(*) AS n, md5(string_agg(t::text, '|' ORDER BY t::text)) AS hash FROM {name} t"
        found[name] = project.database.admin(statement)
    found["large objects"] = project.database.admin(
        "SELECT oid, encode(lo_get(oid), 'hex') AS data FROM pg_largeobject_metadata ORDER BY oid"
    )
    found["sequences"] = project.database.admin(
        "SELECT schemaname, sequencename, last_value FROM pg_sequences ORDER BY 1, 2"
    )
    return found


def addresses(project):
    return {" ".join(map(str, row.values())) for row in project.database.admin(OBJECTS)}


@pytest.fixture
def full(project):
    project.migration("1_first", "CREATE TABLE np_first (id int);", "DROP TABLE np_first;")
    project.run("migrate", "up").ok()
    make_cli_state(project, {})
    project.database.admin(EVERYTHING)
    project.database.admin("REFRESH MATERIALIZED VIEW counted")
    project.database.admin("ANALYZE")
    yield project
    drop_beside(project)


def state(project):
    """Catalogue, rows and addresses."""
    return catalogue(project), hashes(project), addresses(project)


def check_like(project, before):
    """The project's `state` is what it was."""
    for one, other in zip(state(project), before):
        assert one == other


def check_round_trip(project, form, way):
    """Back up, change, restore: everything is as it was."""
    before = state(project)
    backup(project, "--format", *form)
    project.database.admin(CHANGES)
    project.run("restore", "--force", "--no-safety-backup", *way).ok()
    check_like(project, before)


BESIDE = [(["custom"], ["--jobs", "2"]), (["plain"], []), (["directory"], ["--jobs", "2"])]


@pytest.mark.servers("container-13", "container-15", "url-psql-17", "embedded-18")
@pytest.mark.parametrize(("form", "way"), [*BESIDE, (["custom"], ["--in-place"])], ids=" ".join)
def test_everything_comes_back(full, form, way):
    assert len(catalogue(full)) > 100
    check_round_trip(full, form, way)
    assert full.run("migrate", "status").ok().out.endswith("1 applied\n")


@pytest.mark.servers("container-15")
@pytest.mark.parametrize("form", [["plain", "--compress", "3"], ["directory", "--jobs", "2"]], ids=" ".join)
def test_everything_comes_back_in_place(full, form):
    check_round_trip(full, form, ["--in-place"])


# Extensions: all that the server has, and what uses them.

NOT_ALONE = ("plperl", "plpython", "jsonb_pl", "hstore_pl", "ltree_pl", "bool_pl")  # they want Perl, or Python
USED = """
CREATE SCHEMA "Ext ""x"" !";
CREATE EXTENSION hstore SCHEMA "Ext ""x"" !"; CREATE EXTENSION citext; CREATE EXTENSION pg_trgm;
CREATE EXTENSION btree_gist;
CREATE TABLE used (id citext PRIMARY KEY, pairs "Ext ""x"" !".hstore DEFAULT 'a=>1', during tsrange, room int,
                   EXCLUDE USING gist (room WITH =, during WITH &&));
INSERT INTO used SELECT 'Word ' || i, "Ext ""x"" !".hstore('k', i::text), tsrange('2024-01-01', '2024-01-02'), i
    FROM generate_series(1, 100) i;
CREATE INDEX by_likeness ON used USING gin ((id::text) gin_trgm_ops);
CREATE VIEW pairs AS SELECT id, (pairs OPERATOR("Ext ""x"" !".->) 'k') AS k FROM used;
CREATE FUNCTION first_of(p "Ext ""x"" !".hstore) RETURNS text LANGUAGE sql
    AS 'SELECT $1 OPERATOR("Ext ""x"" !".->) ''k''';
REVOKE EXECUTE ON FUNCTION similarity(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION similarity(text, text) TO pg_monitor;
COMMENT ON EXTENSION citext IS 'it''s ours';
ANALYZE;
"""
WITHOUT = """
DROP TABLE used CASCADE; DROP EXTENSION citext, pg_trgm CASCADE; DROP SCHEMA "Ext ""x"" !" CASCADE;
"""
SQL_EXTENSIONS = """
SELECT e.extname || ' ' || e.extversion || ' in ' || n.nspname AS name
FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace ORDER BY 1
"""


def all_extensions(project):
    """Make every extension that the server has, and return their names, versions and schemas."""
    with project.database.connect() as connection:
        rows = connection.execute("SELECT name FROM pg_available_extensions ORDER BY name").fetchall()
        for name in (row["name"] for row in rows):
            if not name.startswith(NOT_ALONE):
                quoted = psycopg.sql.Identifier(name)
                connection.execute(psycopg.sql.SQL("CREATE EXTENSION IF NOT EXISTS {} CASCADE").format(quoted))
    return project.database.admin(SQL_EXTENSIONS)


@pytest.mark.servers("container-13", "url-psql-17")
@pytest.mark.parametrize(("form", "way"), BESIDE, ids=" ".join)
def test_extensions_come_back(project, form, way):
    project.database.admin(USED)
    there = all_extensions(project)
    assert len(there) > 25
    before = state(project)
    backup(project, "--format", *form)
    project.database.admin(WITHOUT)
    outcome = project.run("restore", "--force", "--no-safety-backup", *way).ok()
    try:
        assert "wants extensions that the present database has not: citext" in outcome.err
        assert project.database.admin(SQL_EXTENSIONS) == there
        check_like(project, before)
    finally:
        drop_beside(project)
