"""What one statement is, asked of every form the question names and of the forms that only look like it."""

from __future__ import annotations

import pytest
from bed.gaps import SHARED, wants_shared

from nself_core.sql.lexer import decode, split
from nself_core.sql.statements import (
    CatalogueEffect,
    created_tables,
    effect_in_catalogue,
    filled_tables,
    first_words,
    is_session_setting,
    may_end_transaction,
    needs_no_transaction,
    read_only_refusal,
    read_only_refusal_for_reader,
    transaction_control,
)

HARD = SHARED / "sql-hard"


def statement(sql):
    (only,) = split(sql)
    return only


# first words


@pytest.mark.parametrize(
    ("sql", "count", "words"),
    [
        ("select 1", 3, ("SELECT",)),
        ("create /* x */ unique\nindex i on t (a)", 3, ("CREATE", "UNIQUE", "INDEX")),
        ("VACUUM (FULL) t", 2, ("VACUUM",)),
        ('ALTER "TABLE" t', 3, ("ALTER",)),
        ("(SELECT 1)", 2, ()),
        ("'text'", 1, ()),
    ],
)
def test_the_first_words_are_key_words_in_capitals(sql, count, words):
    assert first_words(statement(sql), count) == words


# transaction control


@pytest.mark.parametrize(
    ("sql", "control"),
    [
        ("BEGIN", "begin"),
        ("begin work isolation level serializable", "begin"),
        ("BEGIN TRANSACTION READ ONLY", "begin"),
        ("START TRANSACTION", "begin"),
        ("COMMIT", "commit"),
        ("COMMIT WORK AND CHAIN", "commit"),
        ("END", "commit"),
        ("END TRANSACTION", "commit"),
        ("ROLLBACK", "rollback"),
        ("/* a */ rollback -- b\n work", "rollback"),
        ("ROLLBACK AND CHAIN", "rollback"),
        ("ABORT", "rollback"),
        ("ROLLBACK TO s", "savepoint"),
        ("ROLLBACK WORK TO SAVEPOINT s", "savepoint"),
        ("ROLLBACK TRANSACTION TO s", "savepoint"),
        ("SAVEPOINT s", "savepoint"),
        ("RELEASE s", "savepoint"),
        ("RELEASE SAVEPOINT s", "savepoint"),
        ("PREPARE TRANSACTION 'x'", "prepare"),
        ("PREPARE /* */ TRANSACTION E'x'", "prepare"),
        ("COMMIT PREPARED 'x'", "prepare"),
        ("ROLLBACK PREPARED 'x'", "prepare"),
    ],
)
def test_transaction_control_is_known_in_all_its_forms(sql, control):
    assert transaction_control(statement(sql)) == control


@pytest.mark.parametrize(
    "sql",
    [
        "PREPARE p AS SELECT 1",
        "PREPARE transaction AS SELECT 1",
        "SELECT 'COMMIT'",
        'CREATE TABLE t ("commit" int) -- COMMIT',
        "CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END",
        "CREATE TEMP TABLE t (a int) ON COMMIT DROP",
        "SET TRANSACTION READ ONLY",
        '"commit"',
        "DO $$ BEGIN COMMIT; END $$",
        "commits",
        "comm\u0131t",
    ],
)
def test_what_only_has_the_words_is_no_transaction_control(sql):
    assert transaction_control(statement(sql)) is None


# what may not be in a transaction

ALONE = [
    ("CREATE INDEX CONCURRENTLY i ON t (a)", "CREATE INDEX CONCURRENTLY"),
    ("create unique index concurrently if not exists i on t (a)", "CREATE INDEX CONCURRENTLY"),
    ("CREATE INDEX /* x */ CONCURRENTLY ON t (a)", "CREATE INDEX CONCURRENTLY"),
    ("DROP INDEX CONCURRENTLY i", "DROP INDEX CONCURRENTLY"),
    ("DROP INDEX CONCURRENTLY IF EXISTS s.i CASCADE", "DROP INDEX CONCURRENTLY"),
    ("REINDEX TABLE CONCURRENTLY t", "REINDEX CONCURRENTLY"),
    ("REINDEX INDEX CONCURRENTLY i", "REINDEX CONCURRENTLY"),
    ("REINDEX (CONCURRENTLY) TABLE t", "REINDEX CONCURRENTLY"),
    ("REINDEX (VERBOSE, CONCURRENTLY true) INDEX i", "REINDEX CONCURRENTLY"),
    ("REINDEX (TABLESPACE ts, concurrently ON) INDEX i", "REINDEX CONCURRENTLY"),
    ("REINDEX DATABASE d", "REINDEX DATABASE"),
    ("REINDEX (VERBOSE) SCHEMA s", "REINDEX SCHEMA"),
    ("REINDEX SYSTEM d", "REINDEX SYSTEM"),
    ("REINDEX (CONCURRENTLY off) DATABASE d", "REINDEX DATABASE"),
    ("VACUUM", "VACUUM"),
    ("VACUUM (ANALYZE) t", "VACUUM"),
    ("vacuum full verbose t", "VACUUM"),
    ("CREATE DATABASE d", "CREATE DATABASE"),
    ("DROP DATABASE IF EXISTS d WITH (FORCE)", "DROP DATABASE"),
    ("ALTER DATABASE d SET TABLESPACE ts", "ALTER DATABASE ... SET TABLESPACE"),
    ("CREATE TABLESPACE ts LOCATION '/x'", "CREATE TABLESPACE"),
    ("DROP TABLESPACE IF EXISTS ts", "DROP TABLESPACE"),
    ("ALTER SYSTEM SET work_mem = '4MB'", "ALTER SYSTEM"),
    ("ALTER SYSTEM RESET ALL", "ALTER SYSTEM"),
    ("ALTER TABLE p DETACH PARTITION q CONCURRENTLY", "ALTER TABLE ... DETACH PARTITION CONCURRENTLY"),
    (
        'ALTER TABLE IF EXISTS ONLY s."P" * DETACH PARTITION s.q CONCURRENTLY',
        "ALTER TABLE ... DETACH PARTITION CONCURRENTLY",
    ),
    ("CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p", "CREATE SUBSCRIPTION"),
    ("CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p WITH (slot_name = 'connect=false')", "CREATE SUBSCRIPTION"),
    ("CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p WITH (create_slot, connect = true)", "CREATE SUBSCRIPTION"),
    ("DROP SUBSCRIPTION s", "DROP SUBSCRIPTION"),
    ("ALTER SUBSCRIPTION s REFRESH PUBLICATION", "ALTER SUBSCRIPTION ... REFRESH"),
    ("ALTER SUBSCRIPTION s SET PUBLICATION a, b", "ALTER SUBSCRIPTION ... SET PUBLICATION"),
    ("ALTER SUBSCRIPTION s ADD PUBLICATION a WITH (copy_data = false)", "ALTER SUBSCRIPTION ... ADD PUBLICATION"),
    ("ALTER SUBSCRIPTION s DROP PUBLICATION a WITH (refresh)", "ALTER SUBSCRIPTION ... DROP PUBLICATION"),
    ("ALTER SUBSCRIPTION s SET (failover = true)", "ALTER SUBSCRIPTION ... SET (failover)"),
    ("ALTER SUBSCRIPTION s SET (binary, two_phase = false)", "ALTER SUBSCRIPTION ... SET (two_phase)"),
    ("CLUSTER", "CLUSTER without a table"),
    ("CLUSTER VERBOSE", "CLUSTER without a table"),
    ("CLUSTER (VERBOSE)", "CLUSTER without a table"),
    ("DISCARD ALL", "DISCARD ALL"),
    ("COMMIT PREPARED 'x'", "COMMIT PREPARED"),
    ("ROLLBACK PREPARED 'x'", "ROLLBACK PREPARED"),
]

TOGETHER = [
    "CREATE INDEX i ON t (a)",
    "CREATE INDEX ON t (concurrently)",
    'CREATE INDEX "concurrently" ON t (a)',
    "CREATE INDEX i ON t (a) WHERE b = 'CONCURRENTLY'",
    "CREATE INDEX /* CONCURRENTLY */ i ON t (a) -- CONCURRENTLY",
    "DROP INDEX i, j",
    "REINDEX TABLE t",
    "REINDEX (VERBOSE) INDEX i",
    "REINDEX (CONCURRENTLY false) TABLE t",
    "REINDEX (CONCURRENTLY 0, VERBOSE) TABLE t",
    'REINDEX TABLE "concurrently"',
    "ANALYZE t",
    "COMMENT ON TABLE t IS 'VACUUM'",
    "DO $$ BEGIN EXECUTE 'VACUUM'; END $$",
    "CREATE TABLE database (a int)",
    "CREATE TABLE t (a int) TABLESPACE ts",
    "ALTER DATABASE d SET work_mem = '4MB'",
    "ALTER DATABASE d SET tablespace = 'x'",
    "ALTER DATABASE d SET tablespace TO x",
    "ALTER DATABASE d RENAME TO e",
    "ALTER TABLE t SET TABLESPACE ts",
    "ALTER TABLE p DETACH PARTITION q",
    "ALTER TABLE p DETACH PARTITION q FINALIZE",
    "ALTER TABLE p ATTACH PARTITION concurrently DEFAULT",
    "ALTER TABLE t ADD COLUMN concurrently int",
    "ALTER TYPE e ADD VALUE 'x'",
    "REFRESH MATERIALIZED VIEW CONCURRENTLY v",
    "CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p WITH (connect = false)",
    "CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p WITH (CREATE_SLOT = 'off', slot_name = NONE)",
    'CREATE SUBSCRIPTION s CONNECTION \'x\' PUBLICATION p, "WITH" WITH ("create_slot" = 0)',
    "ALTER SUBSCRIPTION s DISABLE",
    "ALTER SUBSCRIPTION s SET PUBLICATION a WITH (refresh = false)",
    "ALTER SUBSCRIPTION s ADD PUBLICATION a WITH (copy_data = true, refresh = off)",
    "ALTER SUBSCRIPTION s SET (binary = true)",
    "ALTER SUBSCRIPTION s SET (two_phase = true)",
    "ALTER SUBSCRIPTION s CONNECTION 'refresh'",
    "CLUSTER t USING i",
    "CLUSTER VERBOSE t",
    "CLUSTER (VERBOSE) s.t",
    "DISCARD TEMP",
    "COMMIT",
    "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1 AS vacuum; END",
    "CREATE FUNCTION vacuum() RETURNS text LANGUAGE sql AS 'VACUUM'",
    '"vacuum"',
    "SELECT 1",
]


@pytest.mark.parametrize(("sql", "words"), ALONE)
def test_what_may_not_be_in_a_transaction_says_why(sql, words):
    assert needs_no_transaction(statement(sql)) == words


@pytest.mark.parametrize("sql", TOGETHER)
def test_what_may_be_in_a_transaction_needs_none_other(sql):
    assert needs_no_transaction(statement(sql)) is None


SERVER_OBJECTS = """
CREATE TABLE t (a int); CREATE INDEX i ON t (a); ALTER TABLE t CLUSTER ON i; CREATE SCHEMA s;
CREATE TABLE p (a int) PARTITION BY LIST (a); CREATE TABLE q PARTITION OF p FOR VALUES IN (1);
CREATE TYPE e AS ENUM ('a'); CREATE MATERIALIZED VIEW v AS SELECT 1 AS a; CREATE UNIQUE INDEX vi ON v (a);
"""
# Left out: what depends on a subscription's state or on the version, and what is refused for what it runs.
NOT_ASKED = (
    "ALTER SUBSCRIPTION",
    "DROP SUBSCRIPTION",
    "CREATE SUBSCRIPTION",
    "CLUSTER (",
    "REINDEX (TABLESPACE",
    "DO ",
)
ASKED = [
    sql
    for sql in [sql for sql, _ in ALONE] + TOGETHER
    if not sql.startswith(NOT_ASKED) and "DETACH" not in sql and not sql.startswith('"')
]


@pytest.mark.servers("url-psql-13", "url-psql-15", "url-psql-17", "embedded-18")
def test_the_server_refuses_the_same_statements_in_a_transaction(database):
    import psycopg

    disagreements = []
    with database.connect(autocommit=True) as connection:
        connection.execute(SERVER_OBJECTS)
        for sql in ASKED:
            connection.execute("BEGIN")
            state = None
            try:
                connection.execute(sql)
            except psycopg.Error as error:
                state = error.sqlstate
            connection.execute("ROLLBACK")
            unknown = state == "42601"  # a syntax that this version does not have yet
            if not unknown and (state == "25001") != bool(needs_no_transaction(statement(sql))):
                disagreements.append(sql)
    assert disagreements == []


# what may end a transaction by itself


@pytest.mark.parametrize(
    "sql",
    [
        "CALL p()",
        "call s.p(1)",
        "DO $$ BEGIN COMMIT; END $$",
        "DO LANGUAGE plpgsql $x$ BEGIN rollback; END $x$",
        "DO 'BEGIN COMMIT AND CHAIN; END' LANGUAGE plpgsql",
        "DO $$ BEGIN CALL p(); END $$",
        "DO $$ plpy.commit() $$ LANGUAGE plpython3u",
        "DO $$ spi_commit() $$ LANGUAGE plperl",
        "DO E'BEGIN\\n COMMIT; END'",
        "DO E'BEGIN \\103OMMIT; END'",
    ],
)
def test_what_may_commit_by_itself_is_known(sql):
    assert may_end_transaction(statement(sql))


@pytest.mark.parametrize(
    "sql",
    [
        "DO $$ BEGIN PERFORM 1; END $$",
        "DO $$ BEGIN committed := recall(callback, rollbacks); END $$",
        "DO E'BEGIN\\n PERFORM 1; END'",
        "CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$",
        "SELECT 'CALL'",
        'SELECT "call"(1)',
    ],
)
def test_what_cannot_commit_by_itself_is_known(sql):
    assert not may_end_transaction(statement(sql))


# effects in the catalogue


@pytest.mark.parametrize(
    ("sql", "effect"),
    [
        ("CREATE INDEX CONCURRENTLY I ON T (a)", ("create_index", None, "i", None, "t")),
        ("CREATE UNIQUE INDEX IF NOT EXISTS i ON ONLY s.t USING gin (a)", ("create_index", "s", "i", "s", "t")),
        ('CREATE INDEX "I""1" ON "S"."T" (a)', ("create_index", "S", 'I"1', "S", "T")),
        ("CREATE INDEX été_É ON t (a)", ("create_index", None, "été_É", None, "t")),
        ("DROP INDEX CONCURRENTLY IF EXISTS S.I RESTRICT", ("drop_index", "s", "i", None, None)),
        ("DROP INDEX i", ("drop_index", None, "i", None, None)),
        ("CREATE DATABASE D TEMPLATE template0", ("create_database", None, "d", None, None)),
        ('DROP DATABASE IF EXISTS "D" (FORCE)', ("drop_database", None, "D", None, None)),
        ("ALTER TABLE s.P DETACH PARTITION x.Q CONCURRENTLY", ("detach_partition", "x", "q", "s", "p")),
        ("ALTER TABLE IF EXISTS ONLY p DETACH PARTITION q CONCURRENTLY", ("detach_partition", None, "q", None, "p")),
        ("CREATE SUBSCRIPTION s CONNECTION 'x' PUBLICATION p", ("create_subscription", None, "s", None, None)),
        ("DROP SUBSCRIPTION IF EXISTS s", ("drop_subscription", None, "s", None, None)),
        ("CREATE TABLESPACE ts LOCATION '/x'", ("create_tablespace", None, "ts", None, None)),
        ("DROP TABLESPACE ts", ("drop_tablespace", None, "ts", None, None)),
        ("VACUUM FULL t", ("repeatable", None, None, None, None)),
        ("ALTER SYSTEM SET a = 1", ("repeatable", None, None, None, None)),
        ("CLUSTER", ("repeatable", None, None, None, None)),
        ("REINDEX DATABASE d", ("repeatable", None, None, None, None)),
        ("DISCARD ALL", ("repeatable", None, None, None, None)),
        ("ALTER DATABASE d SET TABLESPACE ts", ("repeatable", None, None, None, None)),
        ("ALTER SUBSCRIPTION s REFRESH PUBLICATION", ("repeatable", None, None, None, None)),
    ],
)
def test_the_effect_of_a_statement_is_found_by_the_names_of_the_catalogue(sql, effect):
    assert effect_in_catalogue(statement(sql)) == CatalogueEffect(*effect)


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE INDEX CONCURRENTLY ON t (a)",
        "CREATE INDEX IF NOT EXISTS",
        'CREATE INDEX U&"\\0061" ON t (a)',
        "DROP INDEX i, j",
        "ALTER TABLE p DETACH PARTITION q",
        'ALTER TABLE U&"p" DETACH PARTITION q CONCURRENTLY',
        "ALTER SUBSCRIPTION s ADD PUBLICATION p",
        "ALTER DATABASE d SET a = 1",
        "CREATE TABLE t (a int)",
        "INSERT INTO t VALUES (1)",
        "COMMIT PREPARED 'x'",
        "CREATE DATABASE",
    ],
)
def test_where_the_catalogue_cannot_tell_there_is_no_effect(sql):
    assert effect_in_catalogue(statement(sql)) is None


def test_a_name_is_cut_at_63_bytes_between_two_characters():
    effect = effect_in_catalogue(statement(f"CREATE INDEX {'é' * 40} ON t (a)"))
    assert effect.name == "é" * 31


# created tables


@pytest.mark.parametrize(
    ("sql", "tables"),
    [
        ("CREATE TABLE T (a int)", [(None, "t")]),
        ("create table if not exists S.T as select 1", [("s", "t")]),
        ('CREATE UNLOGGED TABLE "S"."T" ()', [("S", "T")]),
        ("CREATE TABLE a.b.c (d int)", [("b", "c")]),
        ("CREATE TABLE q PARTITION OF s.p FOR VALUES IN (1)", [(None, "q")]),
        ("CREATE TABLE t OF some_type", [(None, "t")]),
        ("CREATE TEMP TABLE t (a int)", []),
        ("CREATE LOCAL TEMPORARY TABLE t (a int)", []),
        ("CREATE TABLE pg_temp.t (a int)", []),
        ("CREATE VIEW v AS SELECT 1", []),
        ("SELECT 'CREATE TABLE t'", []),
        ("ALTER TABLE t RENAME TO u", []),
        ("CREATE TABLE", []),
    ],
)
def test_the_tables_that_a_statement_creates(sql, tables):
    assert created_tables(statement(sql)) == tables


# session settings


@pytest.mark.parametrize(
    "sql",
    [
        "SET search_path = ''",
        "set session work_mem to '4MB'",
        "SET ROLE r",
        "SET TIME ZONE 'UTC'",
        "SET SESSION AUTHORIZATION r",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        'SET "local" = 1',
        "RESET ALL",
        "RESET search_path",
    ],
)
def test_what_outlives_the_transaction_is_a_session_setting(sql):
    assert is_session_setting(statement(sql))


@pytest.mark.parametrize(
    "sql",
    [
        "SET LOCAL search_path = ''",
        "SET CONSTRAINTS ALL DEFERRED",
        "SET TRANSACTION READ ONLY",
        "SELECT set_config('a.b', 'c', false)",
        "ALTER DATABASE d SET a = 1",
        "SHOW search_path",
        "UPDATE t SET a = 1",
    ],
)
def test_what_ends_with_the_transaction_is_none(sql):
    assert not is_session_setting(statement(sql))


# the read-only shell

READING = [
    "SELECT 1",
    "(SELECT 1) UNION SELECT 2",
    "VALUES (1)",
    "TABLE t",
    "WITH x AS (SELECT 1) SELECT * FROM x",
    "EXPLAIN ANALYZE SELECT 1",
    "SHOW search_path",
    "COPY t TO STDOUT",
    "COPY (SELECT 1 FROM t) TO stdout WITH (FORMAT csv)",
    "COPY s.t (a, b) TO STDOUT",
    'COPY "to" TO STDOUT',
    "SELECT 'COMMIT; DROP TABLE t'",
]
NOT_READING = [
    "BEGIN", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT a", "START TRANSACTION READ WRITE",
    "PREPARE TRANSACTION 'x'",
    "SET transaction_read_only = off", "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE", "SET LOCAL a = 1",
    "RESET ALL",
    "SET ROLE postgres", "DISCARD ALL", "LOAD 'x'", "ALTER SYSTEM SET a = 1", "VACUUM", "ANALYZE", "CLUSTER",
    "REINDEX TABLE t",
    "LOCK TABLE t", "PREPARE p AS SELECT 1", "EXECUTE p", "DEALLOCATE ALL", "LISTEN a", "UNLISTEN a", "NOTIFY a",
    "CHECKPOINT",
    "DECLARE c CURSOR WITH HOLD FOR SELECT 1", "INSERT INTO t VALUES (1)", "UPDATE t SET a = 1", "DELETE FROM t",
    "TRUNCATE t",
    "DROP TABLE t", "CREATE TABLE t (a int)", "GRANT ALL ON t TO r", "COPY t FROM '/x'", "COPY t FROM PROGRAM 'x'",
    "COPY t TO '/x'", "COPY t TO PROGRAM 'rm'", "COPY (SELECT 1) TO PROGRAM 'x'",
    "COPY (SELECT 1 /* TO STDOUT */) TO 'STDOUT'",
    'COPY "TO" FROM \'/x\'', "COPY t (a) TO '/x' -- TO STDOUT", "COPY", '"select"', "1",
    "IMPORT FOREIGN SCHEMA s FROM SERVER r INTO t",
]  # fmt: skip


@pytest.mark.parametrize("sql", READING)
def test_reading_statements_are_allowed(sql):
    assert read_only_refusal(statement(sql)) is None
    assert read_only_refusal_for_reader(statement(sql)) is None


@pytest.mark.parametrize("sql", NOT_READING)
def test_every_other_statement_is_refused_to_every_login(sql):
    assert read_only_refusal(statement(sql))
    assert read_only_refusal_for_reader(statement(sql))


@pytest.mark.parametrize("sql", ["DO $$ BEGIN END $$", "CALL p()"])
def test_do_and_call_are_for_the_reader_only(sql):
    assert "reader role" in read_only_refusal(statement(sql))
    assert read_only_refusal_for_reader(statement(sql)) is None


def test_copy_from_stdin_is_refused():
    assert "COPY" in read_only_refusal(statement("COPY t FROM stdin;\n1\n\\.\n"))


@pytest.mark.parametrize(
    ("sql", "word"),
    [
        ("commit", "COMMIT"),
        ("SET a = 1", "settings"),
        ("COPY t TO '/x'", "STDOUT"),
        ("insert into t values (1)", "INSERT"),
    ],
)
def test_a_refusal_says_why(sql, word):
    assert word in read_only_refusal(statement(sql))


# what a statement fills

FILLED = [
    ("INSERT INTO t VALUES (1)", [(None, "t")]),
    ('insert into App."My ""T""" AS x (a) SELECT a FROM other', [("app", 'My "T"')]),
    ("INSERT INTO db.s.t DEFAULT VALUES", [("s", "t")]),
    ("INSERT INTO t AS a (x) VALUES ('INSERT INTO u') ON CONFLICT DO UPDATE SET x = 1 RETURNING *", [(None, "t")]),
    ("/* INSERT INTO a */ INSERT /* b */ INTO -- c\n t SELECT 1", [(None, "t")]),
    ("WITH a AS (INSERT INTO t VALUES (1) RETURNING id) INSERT INTO s.u SELECT id FROM a", [(None, "t"), ("s", "u")]),
    ("WITH a AS MATERIALIZED (INSERT INTO t VALUES (1) RETURNING id) SELECT * FROM a", [(None, "t")]),
    ("WITH a AS (SELECT 1) MERGE INTO ONLY t USING a ON true WHEN NOT MATCHED THEN INSERT VALUES (1)", [(None, "t")]),
    ("MERGE INTO s.t USING u ON true WHEN NOT MATCHED THEN INSERT (a) VALUES (1)", [("s", "t")]),
    ("WITH a AS (INSERT INTO t VALUES (1)), b AS (INSERT INTO t VALUES (2)) SELECT 1", [(None, "t")]),
    ("WITH RECURSIVE a AS (SELECT 1) SEARCH DEPTH FIRST BY b SET c INSERT INTO t SELECT 1 FROM a", [(None, "t")]),
    ("INSERT INTO t WITH a AS (INSERT INTO u VALUES (1) RETURNING b) SELECT b FROM a", [(None, "t"), (None, "u")]),
    ("COPY t FROM stdin;\n1\n\\.\n", [(None, "t")]),
    ("COPY BINARY s.t (a, \"b)\") FROM '/x'", [("s", "t")]),
    ("COPY t FROM PROGRAM 'x'", [(None, "t")]),
    ("INSERT INTO \u00dcber VALUES (1)", [(None, "\u00dcber")]),
    ("INSERT INTO " + "a" * 70 + " VALUES (1)", [(None, "a" * 63)]),
]
FILLING_NOTHING = [
    "SELECT 1", "SELECT insert INTO t FROM u", "WITH a AS (SELECT 1 AS insert) SELECT insert INTO t FROM a",
    "WITH a AS (SELECT 1) SELECT a.insert INTO t FROM a", "WITH a AS (SELECT 1) SELECT 'INSERT INTO t'",
    "COPY t TO STDOUT", "COPY (SELECT 1) TO STDOUT", "COPY t (a) TO '/x'", "COPY",
    "UPDATE t SET a = 1", "DELETE FROM t", "CREATE TABLE t (a int)", "TRUNCATE t",
    "CREATE RULE r AS ON INSERT TO t DO ALSO INSERT INTO u VALUES (1)", "PREPARE p AS INSERT INTO t VALUES (1)",
    "DO $$ BEGIN INSERT INTO t VALUES (1); END $$", "INSERT INTO pg_temp.t VALUES (1)", "INSERT INTO", "INSERT INTO 1",
]  # fmt: skip


@pytest.mark.parametrize(("sql", "tables"), FILLED)
def test_the_tables_that_a_statement_fills(sql, tables):
    assert filled_tables(statement(sql)) == tables


@pytest.mark.parametrize("sql", FILLING_NOTHING)
def test_what_fills_no_table(sql):
    assert filled_tables(statement(sql)) == []


# the hard files of the project's shared data, where they are


@wants_shared(HARD.name)
@pytest.mark.parametrize(
    ("name", "control", "alone"),
    [
        ("05_begin_atomic.sql", [None] * 3, [None] * 3),
        ("07_plpgsql_txn_words.sql", [None] * 2, [None] * 2),
        ("20_create_index_concurrently.sql", [None] * 2, ["CREATE INDEX CONCURRENTLY"] * 2),
        ("21_cic_unique_violation.sql", [None] * 3, [None, None, "CREATE INDEX CONCURRENTLY"]),
        ("23_alter_type_add_value.sql", [None] * 4, [None] * 4),
        ("26_txn_control.sql", ["begin", None, "commit", None, None], [None] * 5),
    ],
)
def test_the_statements_of_a_hard_file_are_what_they_should_be(name, control, alone):
    statements = split(decode((HARD / name).read_bytes(), name), name)
    assert [transaction_control(each) for each in statements] == control
    assert [needs_no_transaction(each) for each in statements] == alone
