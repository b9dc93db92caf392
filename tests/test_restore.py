"""`restore`: checked first, loaded beside the present database, and only then the two change places."""

from __future__ import annotations

import os
import random
import threading
import time

import psycopg
import pytest
from bed.bookkeeping import values

from nself_core.backups import swap

SCHEMA = """
CREATE SCHEMA "Odd ""Schema"" x";
CREATE TYPE mood AS ENUM ('fine', 'it''s so so');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE parent (id int PRIMARY KEY, n positive DEFAULT 1, m mood, span int4range, doc jsonb, raw bytea,
                     twice int GENERATED ALWAYS AS (id * 2) STORED);
CREATE TABLE "Odd ""Schema"" x"."ü $$ %"
    (id serial PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE, note text);
CREATE TABLE parts (id int, at date NOT NULL) PARTITION BY RANGE (at);
CREATE TABLE parts_2024 PARTITION OF parts FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE child () INHERITS (parent);
CREATE VIEW shown AS SELECT id, m FROM parent;
CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM parent;
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $f$BEGIN NEW.note := NEW.note || '!'; RETURN NEW; END$f$;
CREATE TRIGGER touched BEFORE UPDATE ON "Odd ""Schema"" x"."ü $$ %" FOR EACH ROW EXECUTE FUNCTION touch();
ALTER TABLE parent ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON parent USING (id > 0);
COMMENT ON TABLE parent IS 'it''s the "parent"';
INSERT INTO parent (id, m, span, doc, raw)
    SELECT i, 'it''s so so', int4range(i, i + 5), jsonb_build_object('k', i), '\\x00ff' FROM generate_series(1, 500) i;
INSERT INTO "Odd ""Schema"" x"."ü $$ %" (parent, note) SELECT i, E'line\\none\\t' || i FROM generate_series(1, 300) i;
INSERT INTO parts SELECT i, '2024-06-01' FROM generate_series(1, 200) i;
SELECT lo_from_bytea(424242, '\\xdeadbeef');
REFRESH MATERIALIZED VIEW counted;
"""

# Everything of the catalogue that a dump is to bring back, in words, and a hash of each table's rows.
CATALOGUE = """
SELECT 'relation' AS kind, n.nspname || '.' || c.relname AS name,
       c.relkind::text || c.relrowsecurity::text || coalesce(obj_description(c.oid, 'pg_class'), '') AS what
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname IN ('public', 'Odd "Schema" x')
UNION ALL SELECT 'column', a.attrelid::regclass || '.' || a.attname,
       format_type(a.atttypid, a.atttypmod) || a.attnotnull::text || a.attgenerated::text
       || coalesce(pg_get_expr(d.adbin, d.adrelid), '')
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attnum > 0 AND NOT a.attisdropped AND n.nspname IN ('public', 'Odd "Schema" x')
    AND c.relkind IN ('r', 'p', 'v', 'm')
UNION ALL SELECT 'constraint', c.conname, pg_get_constraintdef(c.oid) FROM pg_constraint c
JOIN pg_namespace n ON n.oid = c.connamespace WHERE n.nspname IN ('public', 'Odd "Schema" x')
UNION ALL SELECT 'policy', polname, pg_get_expr(polqual, polrelid) FROM pg_policy
UNION ALL SELECT 'trigger', tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT 'sequence', schemaname || '.' || sequencename, last_value::text FROM pg_sequences
UNION ALL SELECT 'object', oid::text, encode(lo_get(oid), 'hex') FROM pg_largeobject_metadata
UNION ALL SELECT 'rows', 'parent', md5(string_agg(p::text, '|' ORDER BY p.id)) FROM parent p
UNION ALL SELECT 'rows', 'odd', md5(string_agg(o::text, '|' ORDER BY o.id)) FROM "Odd ""Schema"" x"."ü $$ %" o
UNION ALL SELECT 'rows', 'parts', md5(string_agg(o::text, '|' ORDER BY o.id)) FROM parts o
UNION ALL SELECT 'rows', 'counted', n::text FROM counted
ORDER BY 1, 2, 3
"""


def filled(project):
    project.database.admin(SCHEMA)
    project.database.admin("ANALYZE")
    return project


@pytest.fixture
def plain_filled(plain_project):
    yield filled(plain_project)
    drop_beside(plain_project)


@pytest.fixture
def full(project):
    """As plain_filled, over each way to a server."""
    yield filled(project)
    drop_beside(project)


def drop_beside(project):
    """Drop the databases that a test's restores have set aside."""
    for name in databases(project):
        project.database.server.drop_database(name)


def backup(project, *options):
    return project.run("backup", "--json", *options).ok().json()["data"]["file"]


def count(project, table="parent"):
    return values(project, f"SELECT count(*) FROM ONLY {table}")[0][0]


def databases(project):
    """The names of the databases beside the project's own."""
    name = project.database.name
    rows = project.database.server.cluster.admin("SELECT datname FROM pg_database ORDER BY 1")
    return [row["datname"] for row in rows if row["datname"].startswith(name + "_")]


# Round trips.


@pytest.mark.versions
def test_a_custom_backup_brings_everything_back(full):
    before = full.database.admin(CATALOGUE)
    file = backup(full)
    full.database.admin('DROP TABLE parent CASCADE; DROP SCHEMA "Odd ""Schema"" x" CASCADE; CREATE TABLE b (id int)')
    data = full.run("restore", "--force", "--json").ok().json()["data"]
    assert full.database.admin(CATALOGUE) == before
    assert data["file"] == file and data["before"] in databases(full)
    assert os.path.exists(full.root / data["safety_backup"])


@pytest.mark.parametrize(
    "options",
    [
        ["--format", "plain"],
        ["--format", "plain", "--compress", "3"],
        ["--format", "directory"],
        ["--format", "directory", "--jobs", "2"],
        ["--compress", "0"],
    ],
    ids=" ".join,
)
def test_every_format_brings_everything_back(options, full):
    before = full.database.admin(CATALOGUE)
    backup(full, *options)
    full.database.admin("DROP TABLE parent CASCADE")
    full.run("restore", "--force", "--no-safety-backup").ok()
    assert full.database.admin(CATALOGUE) == before


def test_several_jobs_load_a_custom_backup(full):
    before = full.database.admin(CATALOGUE)
    backup(full)
    full.run("restore", "--force", "--jobs", "3", "--no-safety-backup").ok()
    assert full.database.admin(CATALOGUE) == before


def test_settings_grants_and_comment_of_the_database_are_kept(plain_filled):
    name = '"' + plain_filled.database.name + '"'
    cluster = plain_filled.database.server.cluster
    cluster.admin(f'ALTER DATABASE {name} SET search_path TO public, "Odd ""Schema"" x"')
    cluster.admin(f"ALTER ROLE {cluster.user} IN DATABASE {name} SET work_mem TO '7MB'")
    cluster.admin(f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC; COMMENT ON DATABASE {name} IS 'it''s ours'")
    look = (
        "SELECT d.datacl::text, shobj_description(d.oid, 'pg_database') AS comment, d.datdba AS owner, "
        "(SELECT string_agg(s.setrole || s.setconfig::text, ';' ORDER BY 1) FROM pg_db_role_setting s "
        "WHERE s.setdatabase = d.oid) AS settings FROM pg_database d WHERE datname = current_database()"
    )
    before = plain_filled.database.admin(look)
    backup(plain_filled)
    plain_filled.run("restore", "--force", "--no-safety-backup").ok()
    after = plain_filled.database.admin(look)
    assert {key: after[0][key] for key in ("comment", "owner", "settings")} == {
        key: before[0][key] for key in ("comment", "owner", "settings")
    }
    assert sorted(after[0]["datacl"].strip("{}").split(",")) == sorted(before[0]["datacl"].strip("{}").split(","))


def test_a_database_whose_name_wants_quoting(plain_server, make_database, make_project):
    project = filled(make_project(make_database(plain_server, 'Shop "1" ü\'s 100%')))
    before = project.database.admin(CATALOGUE)
    backup(project)
    project.database.admin("DROP TABLE parent CASCADE")
    project.run("restore", "--force").ok()
    assert project.database.admin(CATALOGUE) == before
    project.run("restore", "--clean", "--force").ok()
    assert databases(project) == []


# Which one.


def test_the_newest_of_this_database_is_taken_and_never_a_safety_backup(plain_filled):
    first = backup(plain_filled, "--label", "one")
    plain_filled.database.admin("DELETE FROM ONLY parent WHERE id > 400")
    plain_filled.run("restore", "--force").ok()
    data = plain_filled.run("restore", "--force", "--json").ok().json()["data"]
    assert data["file"] == first
    assert count(plain_filled) == 500


def test_a_named_file_is_taken_by_path_and_by_name(plain_filled):
    file = backup(plain_filled, "--label", "one")
    plain_filled.database.admin("DELETE FROM ONLY parent")
    backup(plain_filled, "--label", "two")
    plain_filled.run("restore", "--force", "--file", os.path.basename(file), "--no-safety-backup").ok()
    assert count(plain_filled) == 500


def test_without_a_backup_it_says_so(plain_filled):
    outcome = plain_filled.run("restore", "--force")
    assert (outcome.code, "there is no backup of" in outcome.err) == (1, True)


def test_an_unknown_file_is_refused(plain_filled):
    outcome = plain_filled.run("restore", "--force", "--file", "nothing.dump")
    assert (outcome.code, "there is no backup nothing.dump" in outcome.err) == (1, True)


# What is refused, with nothing changed.


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("damage", [cut, flip])
@pytest.mark.parametrize("form", ["custom", "plain"])
def test_a_damaged_backup_is_refused(form, damage, plain_filled):
    file = backup(plain_filled, "--format", form)
    damage(plain_filled.root / file)
    outcome = plain_filled.run("restore", "--force")
    assert (outcome.code, "the backup is damaged" in outcome.err) == (1, True)
    assert (count(plain_filled), databases(plain_filled)) == (500, [])


@pytest.mark.parametrize("options", [["custom"], ["plain"], ["plain", "--compress", "3"]], ids=" ".join)
def test_a_dump_without_its_manifest_is_restored_with_a_warning(options, plain_filled):
    before = plain_filled.database.admin(CATALOGUE)
    file = backup(plain_filled, "--format", *options)
    os.unlink(plain_filled.root / f"{file}.json")
    plain_filled.database.admin("DROP TABLE parent CASCADE")
    outcome = plain_filled.run("restore", "--force", "--file", file, "--no-safety-backup").ok()
    assert "has no manifest" in outcome.err
    assert plain_filled.database.admin(CATALOGUE) == before


@pytest.mark.parametrize("damage", [cut, lambda path: path.write_text(path.read_text() + "\\! touch x\n")])
def test_a_plain_dump_without_its_manifest_is_read_whole_first(damage, plain_filled):
    file = backup(plain_filled, "--format", "plain")
    os.unlink(plain_filled.root / f"{file}.json")
    damage(plain_filled.root / file)
    outcome = plain_filled.run("restore", "--force", "--file", file)
    assert (outcome.code, "the backup is damaged" in outcome.err) == (1, True), repr(outcome)
    assert (count(plain_filled), databases(plain_filled)) == (500, [])


def test_a_backup_of_a_newer_server_is_refused(plain_filled):
    file = plain_filled.root / (backup(plain_filled) + ".json")
    file.write_text(file.read_text().replace('"server_version": 15', '"server_version": 99'))
    outcome = plain_filled.run("restore", "--force")
    assert (outcome.code, "the backup is of Postgres" in outcome.err) == (1, True)


def test_a_protected_database_is_refused_always(plain_filled):
    backup(plain_filled)
    plain_filled.run("protect").ok()
    for words in (["--force"], ["--force", "--confirm", plain_filled.root.name], ["--undo", "--force"], ["--dry-run"]):
        assert plain_filled.run("restore", *words).code == 4
    assert databases(plain_filled) == []


def test_without_consent_it_is_refused(plain_filled):
    backup(plain_filled)
    outcome = plain_filled.run("restore")
    assert outcome.code == 4
    assert "now: 4 tables" in outcome.err and "then: 4 tables" in outcome.err
    assert databases(plain_filled) == []


def test_in_prod_the_projects_name_is_wanted(plain_filled):
    plain_filled.write_env(plain_filled.database.settings, ".env.prod")
    plain_filled.run("backup", "--env", "prod").ok()
    assert plain_filled.run("restore", "--env", "prod", "--force").code == 4
    name = plain_filled.root.name
    plain_filled.run("restore", "--env", "prod", "--force", "--confirm", name, "--no-safety-backup").ok()


def test_two_at_once_the_second_is_refused(plain_filled):
    backup(plain_filled)
    cluster = plain_filled.database.server.cluster
    key = f"pg_advisory_lock({0x6E73656C66 & 0x7FFFFFFF}, hashtext('{plain_filled.database.name}'))"
    with cluster.connect("postgres") as other:
        other.execute(f"SELECT {key}")
        outcome = plain_filled.run("restore", "--force")
    assert (outcome.code, "another restore" in outcome.err) == (4, True)


@pytest.mark.parametrize("words", [["--no-safety-backup"], ["--undo"]], ids=" ".join)
def test_while_a_migration_runs_it_is_refused(plain_filled, words):
    backup(plain_filled)
    plain_filled.run("restore", "--force", "--no-safety-backup").ok()
    with plain_filled.database.connect() as other:
        other.execute(f"SELECT pg_advisory_lock({0x6E73656C66})")
        outcome = plain_filled.run("restore", "--force", *words)
    assert (outcome.code, "migration lock" in outcome.err) == (4, True), repr(outcome)
    assert len(databases(plain_filled)) == 1


def test_clean_leaves_databases_of_others_with_names_alike(plain_filled, make_database):
    other = make_database(plain_filled.database.server, f"{plain_filled.database.name}_before_launch")
    backup(plain_filled)
    plain_filled.run("restore", "--force", "--no-safety-backup").ok()
    plain_filled.run("restore", "--clean", "--force").ok()
    assert databases(plain_filled) == [other.name]


def test_dry_run_names_every_step_and_changes_nothing(plain_filled):
    backup(plain_filled)
    outcome = plain_filled.run("restore", "--dry-run").ok()
    for words in ("dump ", "create database", "load ", "end the sessions"):
        assert words in outcome.out
    assert databases(plain_filled) == []
    assert len(list((plain_filled.root / ".nself-backups").glob("*.dump"))) == 1


def test_what_cannot_be_loaded_leaves_the_present_database_and_no_other(plain_filled):
    plain_filled.database.admin("CREATE ROLE test_restore_owner; ALTER TABLE parts OWNER TO test_restore_owner")
    try:
        backup(plain_filled)
    finally:
        plain_filled.database.admin("REASSIGN OWNED BY test_restore_owner TO CURRENT_USER")
        plain_filled.database.admin("DROP ROLE test_restore_owner")
    outcome = plain_filled.run("restore", "--force", "--no-safety-backup")
    assert (outcome.code, "test_restore_owner" in outcome.err) == (1, True)
    assert (count(plain_filled), databases(plain_filled)) == (500, [])


# Afterwards.


def test_undo_puts_the_old_database_back_and_again(plain_filled):
    backup(plain_filled)
    plain_filled.database.admin("DELETE FROM ONLY parent WHERE id > 100")
    plain_filled.run("restore", "--force", "--no-safety-backup").ok()
    plain_filled.run("restore", "--undo", "--force").ok()
    assert count(plain_filled) == 100
    plain_filled.run("restore", "--undo", "--force").ok()
    assert count(plain_filled) == 500


def test_clean_drops_what_stands_aside(plain_filled):
    backup(plain_filled)
    plain_filled.run("restore", "--force", "--no-safety-backup").ok()
    (beside,) = databases(plain_filled)
    assert plain_filled.run("restore", "--clean", "--force", "--json").ok().json()["data"] == {"dropped": [beside]}
    assert databases(plain_filled) == []
    assert plain_filled.run("restore", "--clean", "--force").ok().out.startswith("no database stands aside")


def test_clients_that_write_meanwhile_get_clean_errors_and_go_on(plain_filled):
    backup(plain_filled)
    stop, errors, written = threading.Event(), [], []

    def write(number):
        while not stop.is_set():
            try:
                with plain_filled.database.server.cluster.connect(plain_filled.database.name) as connection:
                    while not stop.is_set():
                        connection.execute("INSERT INTO parts VALUES (%s, '2024-07-01')", (number,))
                        written.append(number)
            except psycopg.Error as error:
                errors.append(error)
                time.sleep(random.random() / 20)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(1000, 1008)]
    for thread in threads:
        thread.start()
    try:
        outcome = plain_filled.run("restore", "--force", "--no-safety-backup")
        time.sleep(0.3)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    outcome.ok()
    assert written and errors
    assert all(isinstance(error, psycopg.OperationalError) for error in errors)
    (beside,) = databases(plain_filled)
    rows = plain_filled.database.server.cluster.admin("SELECT count(*) AS n FROM parts WHERE id >= 1000", beside)
    here = values(plain_filled, "SELECT count(*) FROM parts WHERE id >= 1000")[0][0]
    # A commit whose answer was cut off may be there and not counted; none that was counted is lost.
    assert rows[0]["n"] + here >= len(written)


def test_names_beside_a_database_have_at_most_63_bytes():
    name = swap.side_name("ü" * 40, swap.RESTORE, 0)
    assert len(name.encode()) <= 63 and name.endswith("_restore_19700101000000")
