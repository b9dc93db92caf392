"""Hard SQL through `migrate up`: each idea of shared/data/sql-hard in cases of our own, and those files themselves.

Each test says in its name what is right. The files stand beside a checkout on the machines that build the project
(README.md there); where they are, the last part runs every one of them.
"""

from __future__ import annotations

import pytest
from bed.bookkeeping import applied, record, tables, values, versions
from bed.gaps import SHARED, wants_shared

HARD = SHARED / "sql-hard"


def run_file(project, text, name="1_hard", *arguments):
    """The outcome of `migrate up --json` with one migration of this text, a text or bytes."""
    project.write(f"migrations/{name}.sql", text)
    return project.run("migrate", "up", "--json", *arguments)


def value(project, statement):
    """The one value of a statement."""
    ((found,),) = values(project, statement)
    return found


def refused(project, text, place, said):
    """Assert that the file is refused at `place` with `said`, before the file that stands before it is applied."""
    project.migration("0_first", "CREATE TABLE first ();")
    outcome = run_file(project, text)
    assert outcome.code == 1
    error = outcome.json()["error"]
    assert (error["file"], error.get("line")) == ("migrations/1_hard.sql", place)
    assert said in error["message"] + " " + (error["hint"] or "")
    assert tables(project) == []
    assert versions(project) == []


# What looks like an end or a quote and is none.


def test_dollar_quotes_with_tags_inside_tags(project):
    run_file(
        project,
        """
CREATE FUNCTION one() RETURNS text LANGUAGE plpgsql AS $body$
BEGIN
    -- it's; a comment with one quote
    RETURN $$a;b$$ || $q$ $body $$ ; $q$;
END; $body$;
CREATE FUNCTION two(int, int) RETURNS int LANGUAGE sql AS $_1é$ SELECT $1*$2; $_1é$;
CREATE TABLE "semi;colon" (cost$eur int, x$$y$$z int);
INSERT INTO "semi;colon" VALUES (two(2, 3), 1);
""",
    ).ok()
    assert value(project, "SELECT one()") == "a;b $body $$ ; "
    assert value(project, 'SELECT cost$eur FROM "semi;colon"') == 6


def test_block_comments_nest_and_what_is_in_them_does_nothing(project):
    run_file(
        project,
        """/* a /* b */ DROP TABLE nothing; ' " $$ /**/ */ CREATE TABLE a (); -- don't; $x$
/*/ still open */ CREATE TABLE b (n int /* , m int); */ );--/* no comment opens here
CREATE TABLE c ();
/* -- */ CREATE TABLE d ();
""",
    ).ok()
    assert tables(project) == ["a", "b", "c", "d"]


def test_strings_of_every_kind(project):
    run_file(
        project,
        r"""
CREATE TABLE t (n int, v text);
INSERT INTO t VALUES (1, 'back\'), (2, E'es\'c;aped\\'), (3, 'two''s; complement'), (4, U&'d\0061t\+000061;'),
    (5, U&'d!0061t;' UESCAPE '!'), (6, 'con'
    'tin;ued'), (7, E'tab\tbed'), (8, $$;$$), (9, '/* no -- comment */'), (10, ':name :''x'' \set');
INSERT INTO t VALUES (11, ':' || 'psql');
CREATE TABLE "quo""ted;" ("a'b" int);
""",
    ).ok()
    assert [v for (v,) in values(project, "SELECT v FROM t ORDER BY n")] == [
        "back\\", "es'c;aped\\", "two's; complement", "data;", "dat;", "contin;ued", "tab\tbed", ";",
        "/* no -- comment */", ":name :'x' \\set", ":psql",
    ]  # fmt: skip
    assert 'quo"ted;' in tables(project)


def test_backslashes_with_standard_conforming_strings_off(project):
    run_file(
        project,
        r"""
SET standard_conforming_strings = off; SET escape_string_warning = off;
CREATE TABLE t (v text);
INSERT INTO t VALUES ('it\'s; one');
RESET standard_conforming_strings;
INSERT INTO t VALUES ('two\');
""",
    ).ok()
    assert [v for (v,) in values(project, "SELECT v FROM t ORDER BY v")] == ["it's; one", "two\\"]


def test_the_parentheses_of_create_rule(project):
    run_file(
        project,
        """
CREATE TABLE t (n int); CREATE TABLE log (n int);
CREATE RULE doubled AS ON INSERT TO t DO ALSO (INSERT INTO log VALUES (NEW.n); INSERT INTO log VALUES (-NEW.n));
INSERT INTO t VALUES (7);
""",
    ).ok()
    assert values(project, "SELECT n FROM log ORDER BY n") == [(-7,), (7,)]


def test_operators_that_hold_signs_of_comments(project):
    run_file(
        project,
        """
CREATE TABLE t AS SELECT 5 --3
    - -1 AS a, 2*/* two */3 AS b, ARRAY[1,2,3] @> ARRAY[2] AS c, 8 /-/**/2 AS d,
    '{"a":1}'::jsonb->>'a' AS e, (ARRAY[4,5])[1:2] AS f;
""",
    ).ok()
    assert values(project, "SELECT a, b, c, d, e, f FROM t") == [(6, 6, True, -4, "1", [4, 5])]


@pytest.mark.servers("container-15", "url-psycopg-17", "url-psql-18", "embedded-16")
def test_begin_atomic_bodies(project):
    run_file(
        project,
        """
CREATE FUNCTION f(n int) RETURNS text LANGUAGE sql BEGIN ATOMIC
    SELECT 'END;';
    SELECT CASE WHEN n > 0 THEN CASE n WHEN 1 THEN 'one' ELSE 'more' END ELSE 'none' END;
END;
CREATE OR REPLACE PROCEDURE p(INOUT x int) BEGIN ATOMIC SELECT x + 1; END;CREATE TABLE
t ("begin" int, begin_atomic int);
COMMENT ON TABLE t IS 'BEGIN ATOMIC';
""",
    ).ok()
    assert value(project, "SELECT f(1) || f(2) || f(0)") == "onemorenone"
    assert tables(project) == ["t"]


def test_words_of_transactions_that_are_none(project):
    run_file(
        project,
        """
CREATE PROCEDURE p() LANGUAGE plpgsql AS $$ BEGIN ROLLBACK; COMMIT; END $$;
CREATE TABLE t ("rollback" int, begin_at int, note text DEFAULT 'BEGIN; COMMIT;', "end" int); -- ROLLBACK;
/* COMMIT; */ DO $$ BEGIN INSERT INTO t ("rollback") VALUES (1); END $$;
SAVEPOINT one; INSERT INTO t ("rollback") VALUES (2); ROLLBACK TO SAVEPOINT one; RELEASE one;
""",
    ).ok()
    assert values(project, 'SELECT "rollback", note FROM t') == [(1, "BEGIN; COMMIT;")]


# COPY and psql.


def test_inline_copy_data_in_text_and_csv(project):
    run_file(
        project,
        '''
CREATE TABLE t (n int, v text); CREATE TABLE after (n int);
COPY t (n, v) FROM stdin;
1\tit's; $$ -- "all" data
2\t\\N
3\t\\\\. and \\\\x
\\.

copy public.t from STDIN with (format csv, header, delimiter ';');
n;v
4;"two
lines; one ""value"""
5;
\\.
COPY t FROM stdin; -- none at all
\\.
INSERT INTO after SELECT count(*) FROM t;
''',
    ).ok()
    assert values(project, "SELECT n, v FROM t ORDER BY n") == [
        (1, """it's; $$ -- "all" data"""), (2, None), (3, "\\. and \\x"), (4, 'two\nlines; one "value"'), (5, None),
    ]  # fmt: skip
    assert value(project, "SELECT n FROM after") == 5


def test_a_bad_line_of_copy_data_leaves_nothing(project):
    outcome = run_file(
        project, "CREATE TABLE t (n int);\nCOPY t FROM stdin;\n1\nDROP TABLE t;\n\\.\nCREATE TABLE u ();\n"
    )
    assert outcome.code == 1
    assert outcome.json()["error"]["line"] == 2
    assert "COPY t, line 2" in outcome.json()["error"]["excerpt"]
    assert tables(project) == []


def test_a_dump_with_restrict_lines_and_an_empty_search_path(project):
    run_file(
        project,
        """--
-- PostgreSQL database dump
--
\\restrict k2hQbUOvP0AbC

SET statement_timeout = 0;
SET lock_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET default_table_access_method = heap;
CREATE TABLE public.t (id integer NOT NULL, v text);
COPY public.t (id, v) FROM stdin;
1\tone
\\.
ALTER TABLE ONLY public.t ADD CONSTRAINT t_pkey PRIMARY KEY (id);
\\unrestrict k2hQbUOvP0AbC
""",
    ).ok()
    assert values(project, "SELECT * FROM t") == [(1, "one")]


@pytest.mark.parametrize(
    ("text", "line"),
    [("CREATE TABLE a ();\n\\i other.sql\n", 2), ("\\! touch x\nCREATE TABLE a ();", 1), ("SELECT 1 \\gexec\n", 1),
     ("CREATE TABLE a ();\n  \\connect other\n", 2)],
)  # fmt: skip
def test_psql_commands_are_refused_before_anything_runs(project, text, line):
    refused(project, text, line, "psql")


# What a file leaves in the session.


def test_nothing_of_a_file_reaches_the_bookkeeping_or_the_next_file(project):
    owner = f"r{project.database.name}"
    project.migration(
        "2_next",
        """CREATE TABLE next AS SELECT current_setting('search_path') AS path,
        current_setting('work_mem') AS memory, current_user = session_user AS same,
        current_setting('statement_timeout') AS timeout, current_setting('TimeZone') AS zone;""",
    )
    before = values(project, "SELECT current_setting('work_mem')")[0][0]
    try:
        run_file(
            project,
            f"""
CREATE ROLE {owner}; CREATE SCHEMA evil; GRANT ALL ON SCHEMA evil TO {owner};
CREATE TABLE evil.schema_migrations (version bigint, dirty boolean);
CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT ''-infinity''::timestamptz';
SET search_path = evil, pg_catalog; SET work_mem = '3MB'; SET TimeZone = 'Asia/Kolkata';
SET statement_timeout = '59s'; SET session_replication_role = replica; SET default_transaction_deferrable = on;
CREATE TEMP TABLE schema_migrations (n int); PREPARE p AS SELECT 1; DECLARE c CURSOR WITH HOLD FOR SELECT 1;
SET ROLE {owner};
CREATE TABLE evil.mine ();
""",
        ).ok()
        assert applied(project) == [1, 2]
        assert tables(project) == ["next"]
        assert value(project, "SELECT count(*) FROM evil.schema_migrations") == 0
        ((path, memory, same, timeout, zone),) = values(project, "SELECT * FROM next")
        assert (path, memory, same) == ('"$user", public', before, True)
        assert (timeout, zone) != ("59s", "Asia/Kolkata")
        assert timeout == "0"
    finally:
        project.database.admin(f"DROP OWNED BY {owner} CASCADE; DROP ROLE {owner}")


def test_a_file_that_resets_everything_is_recorded_all_the_same(project):
    settings = "SET ROLE pg_monitor; RESET ROLE; RESET ALL; SET LOCAL search_path = ''; DEALLOCATE ALL;"
    run_file(project, f"CREATE TABLE a ();\n{settings}\n").ok()
    assert versions(project) == [(1, False)]
    assert tables(project) == ["a"]


# Transactions.


def test_two_concurrent_indexes_each_run_alone(project):
    project.migration(
        "0_t", "CREATE TABLE t (a int, b int);\nINSERT INTO t SELECT i, i % 9 FROM generate_series(1, 500) i;"
    )
    outcome = run_file(
        project,
        """-- +goose NO TRANSACTION
CREATE INDEX CONCURRENTLY IF NOT EXISTS t_a ON t (a);
CREATE INDEX CONCURRENTLY IF NOT EXISTS t_b ON t (b) WHERE b > 3;
""",
    ).ok()
    assert outcome.json()["data"]["applied"][1]["mode"] == "no_transaction"
    assert value(project, "SELECT count(*) FROM pg_index WHERE indrelid = 't'::regclass AND indisvalid") == 2
    assert record(project, 1)["statements_done"] == 2


def test_a_concurrent_unique_index_over_doubles_fails_is_told_and_rebuilt(project):
    project.migration("0_t", "CREATE TABLE t (a int);\nINSERT INTO t VALUES (5), (5);")
    outcome = run_file(project, "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS t_a ON t (a);\n")
    assert outcome.code == 1
    assert "Key (a)=(5) is duplicated" in outcome.err
    assert "index t_a is left INVALID" in outcome.err
    assert versions(project) == [(0, False), (1, True)]
    project.database.admin("DELETE FROM t")
    project.run("migrate", "up").ok()
    assert values(project, "SELECT indisvalid FROM pg_index WHERE indexrelid = 't_a'::regclass") == [(True,)]
    assert versions(project) == [(0, False), (1, False)]


def test_vacuum_and_alter_system_are_found_to_need_no_transaction(project):
    outcome = run_file(project, "CREATE TABLE t (n int);\nVACUUM (ANALYZE) t;\n").ok()
    assert outcome.json()["data"]["applied"][0]["mode"] == "no_transaction"


def test_an_enum_value_used_where_it_was_made_is_told_to_be_split(project):
    outcome = run_file(project, "CREATE TYPE mood AS ENUM ('calm');\n")
    outcome = run_file(
        project, "ALTER TYPE mood ADD VALUE 'wild';\nCREATE TABLE t AS SELECT 'wild'::mood AS m;\n", "2_use"
    )
    assert outcome.code == 1
    error = outcome.json()["error"]
    assert "55P04" in error["message"]
    assert error["line"] == 2
    assert "put its use in a migration of its own" in error["hint"]
    assert value(project, "SELECT count(*) FROM pg_enum") == 1
    run_file(project, "ALTER TYPE mood ADD VALUE 'wild';\n", "2_use").ok()
    run_file(project, "CREATE TABLE t AS SELECT 'wild'::mood AS m;\n", "3_use").ok()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("BEGIN;\nCREATE TABLE a ();\nCOMMIT;\nCREATE TABLE b ();\n", 3),
        ("CREATE TABLE a ();\nROLLBACK;\n", 2),
        ("BEGIN;\nCREATE TABLE a ();\n", 1),
        ("CREATE TABLE a ();\nPREPARE TRANSACTION 'x';\n", 2),
        ("CREATE TABLE a ();\nABORT AND CHAIN;\n", 2),
        ("CREATE TABLE a ();\nEND;\n", 2),
        ("START TRANSACTION;\nCREATE TABLE a ();\nEND;\nBEGIN;\nCREATE TABLE b ();\nEND;\n", 3),
    ],
)  # fmt: skip
def test_transaction_control_inside_a_file_is_refused_before_anything_runs(project, text, line):
    refused(project, text, line, "")


def test_an_error_that_only_shows_at_commit_records_nothing(project):
    outcome = run_file(
        project,
        """
CREATE TABLE p (id int PRIMARY KEY);
CREATE TABLE c (p int CONSTRAINT c_p REFERENCES p DEFERRABLE INITIALLY DEFERRED);
INSERT INTO c VALUES (1);
""",
    )
    assert outcome.code == 1
    assert 'violates foreign key constraint "c_p"' in outcome.json()["error"]["message"]
    assert tables(project) == []
    assert versions(project) == []


def test_a_file_that_ends_its_own_session_records_nothing(project):
    outcome = run_file(
        project, "CREATE TABLE a ();\nSELECT pg_terminate_backend(pg_backend_pid());\nCREATE TABLE b ();\n"
    )
    assert outcome.code == 2
    assert tables(project) == []
    assert versions(project) == []


def test_a_flood_of_notices_is_no_trouble(project):
    run_file(
        project, "DO $$ BEGIN FOR i IN 1..20000 LOOP RAISE NOTICE 'notice % %', i, repeat('x', 50); END LOOP; END $$;"
    ).ok()
    assert versions(project) == [(1, False)]


def test_a_flood_of_rows_is_no_trouble(project):
    run_file(project, "SELECT repeat('row', 20) FROM generate_series(1, 50000);\nCREATE TABLE a ();").ok()
    assert tables(project) == ["a"]


# Bytes.


def test_a_bom_is_skipped_and_the_mark_behind_it_seen(project):
    text = "\ufeff-- nself:no-transaction\nCREATE TABLE a ();\n"
    outcome = run_file(project, text.encode()).ok()
    assert outcome.json()["data"]["applied"][0]["mode"] == "no_transaction"


@pytest.mark.parametrize("end", ["\r\n", "\r"], ids=["CRLF", "CR"])
def test_line_ends_are_kept_in_literals_and_do_not_count_in_the_checksum(project, end):
    text = "CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$\nSELECT 'a\nb'\n$$;\n-- the end"
    run_file(project, text.replace("\n", end).encode()).ok()
    assert value(project, "SELECT prosrc FROM pg_proc WHERE proname = 'f'") == f"{end}SELECT 'a{end}b'{end}"
    project.write("migrations/1_hard.sql", text)
    project.run("migrate", "verify-checksums").ok()


def test_the_line_of_an_error_is_counted_with_any_line_end(project):
    for end in ("\n", "\r\n", "\r"):
        outcome = run_file(project, "CREATE TABLE a ();\n\nSELECT nope,\n  nil;\n".replace("\n", end).encode())
        assert (outcome.json()["error"]["line"], outcome.json()["error"]["column"]) == (3, 8)


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        (b"CREATE TABLE a ();\nCREATE\0 TABLE b ();\n", 2, "NUL"),
        (b"CREATE TABLE a ();\n-- caf\xe9\n", 2, "UTF-8"),
        ("CREATE TABLE a ();\n".encode("utf-16"), None, "UTF-16"),
        (b"CREATE TABLE a ();\n\nINSERT INTO a VALUES ('it''s);\nCREATE TABLE b ();\n", 3, "never closed"),
        (b"CREATE TABLE a ();\nDO $x$ BEGIN END $$;\n", 2, "never closed"),
        (b"CREATE TABLE a ();\n/* /* */\n", 2, "never closed"),
        (b'CREATE TABLE "a ();\n', 1, "never closed"),
        (b"CREATE TABLE a (;\n\n", 1, "never closed"),
    ],
    ids=["NUL", "Latin-1", "UTF-16", "quote", "dollar quote", "comment", "double quote", "parenthesis"],
)
def test_what_cannot_be_read_is_refused_with_the_line_where_it_began(project, content, line, said):
    refused(project, content, line, said)


@pytest.mark.parametrize("text", ["", "\n\n", "-- nothing but words\n/* and more */\n", ";;\n ;"])
def test_a_file_without_statements_is_recorded_with_a_warning(project, text):
    outcome = run_file(project, text).ok()
    assert outcome.json()["warnings"] == ["migrations/1_hard.sql has no statements"]
    assert versions(project) == [(1, False)]


def test_an_error_names_file_line_and_statement(project):
    outcome = run_file(project, "CREATE TABLE a (); CREATE TABLE b ();\n\n-- x\nCREATE TABEL c ();\n")
    error = outcome.json()["error"]
    assert (error["file"], error["line"], error["column"]) == ("migrations/1_hard.sql", 4, 8)
    assert 'syntax error at or near "TABEL"' in error["message"]
    assert "CREATE TABEL c ()" in error["excerpt"]
    assert tables(project) == []


def test_a_no_break_space_is_pointed_out(project):
    outcome = run_file(project, "CREATE TABLE a ();\nCREATE\u00a0TABLE b ();\n")
    assert outcome.code == 1
    assert "U+00A0" in outcome.json()["error"]["hint"]


def test_names_and_texts_of_many_scripts(project):
    run_file(
        project,
        """
CREATE TABLE "Ζωή;λόγος" ("名前" text DEFAULT '안녕; \u200b👩‍🚀', naïve int);
INSERT INTO "Ζωή;λόγος" DEFAULT VALUES;
CREATE TABLE été (ключ int);
""",
    ).ok()
    assert value(project, 'SELECT "名前" FROM "Ζωή;λόγος"') == "안녕; \u200b👩‍🚀"
    assert tables(project) == sorted(["Ζωή;λόγος", "été"], key=lambda name: name.encode())


def test_a_column_is_counted_in_characters(project):
    outcome = run_file(project, "SELECT '日本語👩', nope;\n")
    assert (outcome.json()["error"]["line"], outcome.json()["error"]["column"]) == (1, 16)


def test_long_names_are_cut_as_the_server_cuts_them(project):
    run_file(project, f'CREATE TABLE {"n" * 80} (); CREATE TABLE "{"ü" * 40}" ();').ok()
    assert tables(project) == ["n" * 63, "ü" * 31]


def test_a_file_of_five_megabytes(project):
    rows = "".join(f"INSERT INTO t VALUES ({n}, '{'x' * 100};');\n" for n in range(40000))
    run_file(project, "CREATE TABLE t (n int, v text);\n" + rows).ok()
    assert value(project, "SELECT count(*) FROM t") == 40000


def test_one_statement_of_two_megabytes(project):
    run_file(project, f"CREATE TABLE t AS SELECT '{'y;' * 1_000_000}' AS v;").ok()
    assert value(project, "SELECT length(v) FROM t") == 2_000_000


# The files themselves.


def right_01(project, outcome):
    assert values(project, 'SELECT a$b, "c;d", "e""f" FROM h01') == [(1, ";", 2)]
    assert value(project, "SELECT h01a() || h01b(7)") == "x;--ya;b$$c;7"


def right_02(project, outcome):
    assert tables(project) == ["h02a", "h02b"]


def right_05(project, outcome):
    assert tables(project) == ["h05t"]
    assert value(project, "SELECT h05(4)") == 5


def right_07(project, outcome):
    assert tables(project) == ["h07"]


def right_10(project, outcome):
    assert values(project, "SELECT a, b FROM h10 ORDER BY a") == [
        (1, "one; 'quote"),
        (2, None),
        (3, "-- not a comment $$"),
    ]
    assert tables(project) == ["h10", "h10_after"]


def right_15(project, outcome):
    project.migration("99_after", "CREATE TABLE after ();")
    project.run("migrate", "up").ok()
    assert tables(project) == ["after", "h15"]


def right_20(project, outcome):
    assert outcome.json()["data"]["applied"][-1]["mode"] == "no_transaction"
    assert value(project, "SELECT count(*) FROM pg_index WHERE indrelid = 'h20'::regclass AND indisvalid") == 2


def right_40(project, outcome):
    assert tables(project) == ["h40"]


def right_41(project, outcome):
    file = next((project.root / "migrations").iterdir())
    file.write_bytes(file.read_bytes().replace(b"\r\n", b"\n"))
    project.run("migrate", "verify-checksums").ok()
    assert value(project, "SELECT prosrc FROM pg_proc WHERE proname = 'h41f'").count("\r\n") == 4


def right_46(project, outcome):
    assert "has no statements" in outcome.json()["warnings"][0]


def right_52(project, outcome):
    assert values(project, 'SELECT count("столбец") FROM "таблица;h52"') == [(0,)]
    assert "h52_été" in tables(project)


def wrong_12(project, error):
    assert error["line"] == 3
    assert "\\set" in error["message"]


def wrong_21(project, error):
    assert "Key (a)=(1) is duplicated" in error["excerpt"]
    assert "index h21_i is left INVALID" in error["message"]
    (dirty,) = [version for version, dirty in versions(project) if dirty]
    assert dirty == 21
    project.database.admin("DELETE FROM h21")
    project.run("migrate", "up").ok()
    assert values(project, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'h21_i'::regclass") == [(True,)]
    project.database.admin("DROP TABLE h21; DELETE FROM hdb_catalog.schema_migrations")


def wrong_23(project, error):
    assert "55P04" in error["message"]
    assert "migration of its own" in error["hint"]


def wrong_26(project, error):
    assert error["line"] == 4


def wrong_30(project, error):
    assert "violates foreign key constraint" in error["message"]


def wrong_43(project, error):
    assert "NUL" in error["message"]
    assert error["line"] == 2


def wrong_49(project, error):
    assert error["line"] == 3


def wrong_51(project, error):
    assert (error["file"], error["line"]) == ("migrations/51_error_position.sql", 5)
    assert "CREATE TABEL h51_c (a int)" in error["excerpt"]


def right_23(project, outcome):
    assert values(project, "SELECT v::text FROM h23_t") == [("b",)]


def check_of(project, name):
    """("right" or "wrong", the function above) that says what this server has to make of a file."""
    number = name[:2]
    found = [(verb, globals()[f"{verb}_{number}"]) for verb in ("right", "wrong") if f"{verb}_{number}" in globals()]
    assert found, f"nothing here says what is right for {name}"
    # Since 17 a new value may be used where the whole type was made in the same transaction.
    return found[0] if len(found) == 1 or project.database.server.version >= 17 else found[1]


FILES = sorted(path.name for path in HARD.glob("*.sql") if path.name != "20_setup.sql")
# BEGIN ATOMIC is of PostgreSQL 14.
SINCE_14 = ("container-15", "url-psycopg-15", "url-psql-17", "embedded-18")


@wants_shared(HARD.name)
@pytest.mark.servers(*SINCE_14)
@pytest.mark.parametrize("name", FILES)
def test_each_file_does_what_its_first_line_says_is_right(project, name):
    if name.startswith("20"):
        run_file(project, (HARD / "20_setup.sql").read_bytes(), "19_setup").ok()
    outcome = run_file(project, (HARD / name).read_bytes(), name[: -len(".sql")])
    verb, check = check_of(project, name)
    if verb == "right":
        assert int(name[:2]) in applied(project), repr(outcome)
        check(project, outcome.ok())
        return
    assert outcome.code == 1
    check(project, outcome.json()["error"])
    assert tables(project) == []
    assert versions(project) == []
