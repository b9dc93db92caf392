"""`migrate up`: what is applied, in which order, whole or not at all, and what it says."""

from __future__ import annotations

import pytest

VERSIONS = "SELECT version, dirty FROM hdb_catalog.schema_migrations ORDER BY version"


def values(project, statement):
    """The rows of a statement as tuples, asked by psycopg and not by the program."""
    return [tuple(row.values()) for row in project.database.admin(statement)]


def applied(project):
    """The versions that Hasura's own table holds."""
    return [version for version, _ in values(project, VERSIONS)]


def tables(project):
    """The names of the tables in schema public."""
    rows = values(project, "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
    return [name for (name,) in rows]


@pytest.mark.versions
def test_applies_files_in_the_order_of_their_numbers(project):
    project.migration("0010_second", "ALTER TABLE a ADD COLUMN n int;")
    project.migration("9_first", "CREATE TABLE a (id int);")
    project.migration("20240501120000_third", "CREATE INDEX ON a (n);")
    document = project.run("migrate", "up", "--json").ok().json()
    assert [item["version"] for item in document["data"]["applied"]] == ["9", "10", "20240501120000"]
    assert applied(project) == [9, 10, 20240501120000]


def test_a_second_run_has_nothing_to_apply(project):
    project.migration("1_a", "CREATE TABLE a (id int);")
    project.run("migrate", "up").ok()
    assert project.run("migrate", "up").ok().out == "nothing to apply\n"


def test_count_limits_how_many_are_applied(project):
    for number in (1, 2, 3):
        project.migration(f"{number}_t", f"CREATE TABLE t{number} (id int);")
    project.run("migrate", "up", "--count", "2").ok()
    assert applied(project) == [1, 2]


def test_to_applies_up_to_and_with_that_version(project):
    for number in (1, 2, 3):
        project.migration(f"{number}_t", f"CREATE TABLE t{number} (id int);")
    project.run("migrate", "up", "--to", "002").ok()
    assert applied(project) == [1, 2]


def test_a_failing_statement_leaves_nothing_of_its_file(project):
    project.migration("1_a", "CREATE TABLE a (id int);")
    project.migration("2_b", "CREATE TABLE b (id int);\nSELECT 1/0;\n")
    project.migration("3_c", "CREATE TABLE c (id int);")
    outcome = project.run("migrate", "up")
    assert outcome.code == 1
    assert "migrations/2_b.sql:2:1: division by zero (SQLSTATE 22012)" in outcome.err
    assert tables(project) == ["a"]
    assert applied(project) == [1]


def test_an_error_shows_line_column_and_caret(project):
    project.migration("1_a", "CREATE TABLE a (id int);\n\nSELECT id,\n       nope\nFROM a;\n")
    outcome = project.run("migrate", "up")
    assert 'error: migrations/1_a.sql:4:8: column "nope" does not exist (SQLSTATE 42703)' in outcome.err
    assert "         nope\n         ^\n" in outcome.err


def test_a_refusal_at_commit_is_an_error_and_nothing_is_recorded(project):
    project.migration(
        "1_deferred",
        """
CREATE TABLE p (id int PRIMARY KEY);
CREATE TABLE c (p int REFERENCES p DEFERRABLE INITIALLY DEFERRED);
INSERT INTO c VALUES (42);
""",
    )
    outcome = project.run("migrate", "up")
    assert outcome.code == 1
    assert "violates foreign key constraint" in outcome.err
    assert tables(project) == []


def test_inline_copy_data_is_loaded_in_the_transaction(project):
    project.migration(
        "1_copy",
        "CREATE TABLE t (a int, b text);\nCOPY t (a, b) FROM stdin;\n1\tone; 'x\n2\t\\N\n\\.\n"
        "CREATE TABLE u (a int);\n",
    )
    project.run("migrate", "up").ok()
    assert values(project, "SELECT a, b FROM t ORDER BY a") == [(1, "one; 'x"), (2, None)]


def test_a_failing_copy_never_runs_its_data_as_commands(project, tmp_path):
    touched = tmp_path / "touched"
    project.migration("1_copy", f"COPY nowhere FROM stdin;\n\\! touch {touched}\nDROP TABLE x;\n\\.\n")
    outcome = project.run("migrate", "up")
    assert outcome.code == 1
    assert not touched.exists()


@pytest.mark.versions
def test_concurrent_index_is_built_outside_a_transaction(project):
    project.migration(
        "1_t", "CREATE TABLE t (a int, b int);\nINSERT INTO t SELECT i, i FROM generate_series(1, 100) i;"
    )
    project.migration("2_i", "CREATE INDEX CONCURRENTLY t_a ON t (a);\nCREATE INDEX CONCURRENTLY t_b ON t (b);\n")
    project.migration("3_u", "CREATE TABLE u (a int);")
    document = project.run("migrate", "up", "--json").ok().json()
    assert [item["mode"] for item in document["data"]["applied"]] == ["transaction", "no_transaction", "transaction"]
    assert values(project, "SELECT count(*) FROM pg_index WHERE indisvalid AND indrelid = 't'::regclass") == [(2,)]


def test_a_failed_concurrent_index_is_dropped_and_rebuilt(project):
    project.migration(
        "1_i",
        """-- nself:no-transaction
CREATE TABLE t (a int);
INSERT INTO t VALUES (1), (1);
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS t_a ON t (a);
""",
    )
    outcome = project.run("migrate", "up")
    assert outcome.code == 1
    assert "statement 3 of 3 failed, 2 of 3 are done" in outcome.err
    assert "index t_a is left INVALID" in outcome.err
    assert values(project, VERSIONS) == [(1, True)]
    project.database.admin("DELETE FROM t")
    project.run("migrate", "up").ok()
    assert values(project, VERSIONS) == [(1, False)]
    assert values(project, "SELECT indisvalid FROM pg_index WHERE indexrelid = 't_a'::regclass") == [(True,)]
    assert values(project, "SELECT count(*) FROM t") == [(0,)]


def test_settings_of_a_file_do_not_reach_the_next(project):
    project.migration(
        "1_a", "SELECT set_config('search_path', '', false);\nCREATE TABLE public.a (id int);\nSET lock_timeout = '1h';"
    )
    project.migration(
        "2_b",
        'CREATE ROLE "r 1"; GRANT CREATE, USAGE ON SCHEMA public TO "r 1"; SET ROLE "r 1";\nCREATE TABLE b (id int);',
    )
    project.migration(
        "3_c",
        "CREATE TABLE c AS SELECT current_setting('lock_timeout') AS v, current_user::text AS u,\n"
        "current_setting('search_path') AS p;",
    )
    try:
        project.run("migrate", "up").ok()
        (row,) = values(project, "SELECT v, u = session_user, p FROM c")
        assert row == ("5s", True, '"$user", public')
    finally:
        project.database.admin('DROP OWNED BY "r 1"')
        project.database.admin('DROP ROLE "r 1"')


def test_begin_and_commit_around_the_file_are_our_own_transaction(project):
    project.migration("1_a", "BEGIN;\nCREATE TABLE a (id int);\nSELECT 1/0;\nCOMMIT;\n")
    assert project.run("migrate", "up").code == 1
    assert tables(project) == []


def test_begin_and_rollback_around_the_file_are_a_self_test(project):
    project.migration("1_test", "BEGIN;\nCREATE TABLE a (id int);\nROLLBACK;\n")
    outcome = project.run("migrate", "up").ok()
    assert "warning: " in outcome.err
    assert tables(project) == []
    assert applied(project) == [1]


def test_commit_inside_a_file_is_refused_before_anything_runs(project):
    project.migration("1_a", "CREATE TABLE a (id int);")
    project.migration("2_b", "CREATE TABLE b (id int);\nCOMMIT;\nSELECT 1/0;")
    outcome = project.run("migrate", "up")
    assert outcome.code == 1
    assert "migrations/2_b.sql:2:1" in outcome.err
    assert tables(project) == []


def test_a_transaction_that_a_procedure_ends_is_not_recorded(project):
    project.migration("1_p", "CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$;")
    project.migration("2_call", "CREATE TABLE b (id int);\nCALL p();")
    outcome = project.run("migrate", "up")
    assert outcome.code == 1
    assert applied(project) == [1]
    assert tables(project) == []


def test_out_of_order_is_an_error_unless_allowed(project):
    project.migration("2_b", "CREATE TABLE b (id int);")
    project.run("migrate", "up").ok()
    project.migration("1_a", "CREATE TABLE a (id int);")
    outcome = project.run("migrate", "up")
    assert outcome.code == 1
    assert "migrations/1_a.sql" in outcome.err
    project.run("migrate", "up", "--allow-out-of-order").ok()
    assert applied(project) == [1, 2]


def test_dry_run_prints_the_sql_and_creates_nothing(project):
    project.migration("1_a", "-- a comment\nCREATE TABLE a (id int);\n")
    outcome = project.run("migrate", "up", "--dry-run").ok()
    assert "-- a comment\nCREATE TABLE a (id int);" in outcome.out
    assert "[transaction]" in outcome.out
    assert values(project, "SELECT count(*) FROM pg_namespace WHERE nspname IN ('hdb_catalog', 'nself_db')") == [(0,)]


def test_a_changed_file_is_a_warning_and_under_strict_an_error(project):
    project.migration("1_a", "CREATE TABLE a (id int);")
    project.run("migrate", "up").ok()
    project.migration("1_a", "CREATE TABLE a (id bigint);")
    project.migration("2_b", "CREATE TABLE b (id int);")
    assert project.run("migrate", "up", "--strict").code == 1
    assert tables(project) == ["a"]
    outcome = project.run("migrate", "up").ok()
    assert "migrations/1_a.sql has changed since it was applied" in outcome.err


def test_lock_timeout_of_the_head_and_three_tries(project):
    project.migration("1_a", "CREATE TABLE a (id int);")
    project.run("migrate", "up").ok()
    project.migration("2_b", "-- nself:lock-timeout=100ms\nALTER TABLE a ADD COLUMN n int;")
    with project.database.connect() as holder:
        holder.execute("BEGIN")
        holder.execute("LOCK TABLE a")
        outcome = project.run("migrate", "up")
        holder.execute("ROLLBACK")
    assert outcome.code == 1
    assert "SQLSTATE 55P03" in outcome.err
    project.run("migrate", "up").ok()


def test_another_run_holds_the_lock(project):
    project.migration("1_a", "CREATE TABLE a (id int);")
    with project.database.connect() as holder:
        holder.execute("SET application_name = 'somebody else'")
        holder.execute(f"SELECT pg_advisory_lock({0x6E73656C66})")
        outcome = project.run("migrate", "up", "--lock-wait", "0")
    assert outcome.code == 4
    assert "somebody else" in outcome.err
    assert tables(project) == []


@pytest.mark.versions
def test_inline_csv_data_is_loaded_whatever_psql_and_server(project):
    project.migration(
        "1_csv",
        'CREATE TABLE t (a int, b text);\nCOPY t FROM stdin (FORMAT csv);\n'
        '1,"one; \'x"\n2,\n\\.\nINSERT INTO t VALUES (3);\n',
    )
    project.run("migrate", "up").ok()
    assert values(project, "SELECT a, b FROM t ORDER BY a") == [(1, "one; 'x"), (2, None), (3, None)]


def test_a_block_put_round_done_statements_runs_only_its_rest(project):
    project.migration("1_a", "-- nself:no-transaction\nCREATE TABLE a (id int);\nSELECT 1/0;\n")
    assert project.run("migrate", "up").code == 1
    project.migration(
        "1_a", "-- nself:no-transaction\nBEGIN;\nCREATE TABLE a (id int);\nCREATE TABLE b (id int);\nCOMMIT;\n"
    )
    project.run("migrate", "up").ok()
    assert tables(project) == ["a", "b"]


def test_a_block_of_a_file_without_a_transaction_may_set_its_isolation(project):
    block = "BEGIN;\nSET TRANSACTION ISOLATION LEVEL SERIALIZABLE;\nCREATE TABLE a (id int);\n{}COMMIT;\n"
    project.migration("1_a", "-- nself:no-transaction\n" + block.format("SELECT 1/0;\n"))
    outcome = project.run("migrate", "up")
    assert (outcome.code, tables(project)) == (1, [])
    assert "1_a.sql:5:" in outcome.err and "statement 3 of 3 failed, 0 of 3 are done" in outcome.err
    check = "DO $$BEGIN ASSERT current_setting('transaction_isolation') = 'serializable'; END$$;\n"
    project.migration("1_a", "-- nself:no-transaction\n" + block.format(check))
    project.run("migrate", "up").ok()
    assert (applied(project), tables(project)) == ([1], ["a"])
