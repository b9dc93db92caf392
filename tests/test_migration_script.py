"""How a migration file runs: modes, units, its own transaction, directives, parts, and the hash of its done part."""

from __future__ import annotations

import hashlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nself_core.failures import FileFailure
from nself_core.sql.script import (
    prefix_hash,
    prefix_hashes,
    read_down_script,
    read_script,
    settings_before,
)

FILE = "migrations/1_a.sql"
CIC = "CREATE INDEX CONCURRENTLY i ON t (a);\n"
MARK = "-- nself:no-transaction\n"


def up(text):
    return read_script(text, FILE, "abc")


def down(text):
    return read_down_script(text, FILE, "abc")


def texts(statements):
    return [statement.text for statement in statements]


def units(script):
    return [(texts(unit.statements), unit.alone, unit.first) for unit in script.units]


def refused(read, text):
    """The failure that `text` is refused with, whose place is in the file."""
    with pytest.raises(FileFailure) as caught:
        read(text)
    assert caught.value.file == FILE
    return caught.value


# Modes


def test_a_plain_file_is_one_transaction():
    script = up("CREATE TABLE t (a int);\nINSERT INTO t VALUES (1);\n")
    assert (script.mode, script.reason, script.begin_text) == ("transaction", None, None)
    assert units(script) == [(["CREATE TABLE t (a int)", "INSERT INTO t VALUES (1)"], False, 0)]
    assert script.statements == script.units[0].statements


def test_file_and_checksum_are_carried():
    assert up("SELECT 1;")[:2] == (FILE, "abc")


@pytest.mark.parametrize("text", ["", "\n", "-- nothing\n", "/* nothing */", ";;", "BEGIN; COMMIT;"])
def test_a_file_without_statements_is_a_warning(text):
    script = up(text)
    assert (script.mode, script.statements, script.units) == ("transaction", (), ())
    assert script.warnings == (f"{FILE} has no statements",)


@pytest.mark.parametrize(
    "text",
    [
        "BEGIN; CREATE TABLE t (a int); COMMIT;",
        "begin work;\nCREATE TABLE t (a int);\nend;",
        "START TRANSACTION; CREATE TABLE t (a int); END TRANSACTION;",
        "-- head\nBEGIN TRANSACTION; CREATE TABLE t (a int); COMMIT -- last",
        "BEGIN; CREATE TABLE t (a int); COMMIT AND NO CHAIN;",
    ],
)
def test_a_transaction_around_the_whole_file_is_ours(text):
    script = up(text)
    assert script.mode == "transaction"
    assert texts(script.statements) == ["CREATE TABLE t (a int)"]
    assert script.warnings == ()


def test_the_options_of_its_begin_are_kept():
    script = up("BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT 1; COMMIT;")
    assert script.begin_text == "BEGIN ISOLATION LEVEL SERIALIZABLE"
    assert script.units[0].begin_text == script.begin_text


def test_settings_may_stand_before_its_begin():
    script = up("SET client_min_messages = warning;\nBEGIN;\nSELECT 1;\nCOMMIT;\n")
    assert script.mode == "transaction"
    assert texts(script.statements) == ["SET client_min_messages = warning", "SELECT 1"]


def test_a_rollback_around_the_whole_file_is_a_self_test():
    script = up("BEGIN;\nCREATE TABLE t (a int);\nROLLBACK;\n")
    assert script.mode == "self_test"
    assert units(script) == [(["CREATE TABLE t (a int)"], False, 0)]
    assert script.warnings == (f"{FILE} ends in ROLLBACK: it is run, undone, and recorded as applied",)


def test_savepoints_are_fine_in_a_transaction():
    script = up("SAVEPOINT a; SELECT 1; ROLLBACK TO SAVEPOINT a; RELEASE a;")
    assert script.mode == "transaction"
    assert len(script.statements) == 4


def test_words_in_a_body_are_not_transaction_control():
    script = up("DO $$ BEGIN PERFORM 1; END $$;\nSELECT 'COMMIT;';\n-- COMMIT;\n")
    assert (script.mode, len(script.statements)) == ("transaction", 2)


@pytest.mark.parametrize(
    ("text", "line", "column", "said"),
    [
        ("BEGIN;\nSELECT 1;\n COMMIT;\nSELECT 2;", 3, 2, "COMMIT"),
        ("SET a.b = 1;\nBEGIN;\nSELECT 1;\nCOMMIT;\nSELECT 2;", 4, 1, "COMMIT"),
        ("SELECT 1;\nCOMMIT;", 2, 1, "COMMIT"),
        ("SELECT 1;\nROLLBACK;", 2, 1, "ROLLBACK"),
        ("SELECT 1;\nABORT;", 2, 1, "ABORT"),
        ("SELECT 1;\nEND;", 2, 1, "END"),
        ("SELECT 1;\n  BEGIN;\nSELECT 2;\nCOMMIT;", 2, 3, "BEGIN"),
        ("BEGIN;\nSELECT 1;", 1, 1, "BEGIN without a COMMIT"),
        ("BEGIN;\nSELECT 1;\nCOMMIT;\nBEGIN;\nSELECT 2;\nCOMMIT;", 3, 1, "COMMIT"),
        ("BEGIN;\nSELECT 1;\nCOMMIT AND CHAIN;", 3, 1, "COMMIT AND CHAIN"),
        ("BEGIN;\nSELECT 1;\nPREPARE TRANSACTION 'x';", 3, 1, "PREPARE TRANSACTION"),
        ("COMMIT PREPARED 'x';", 1, 1, "COMMIT PREPARED"),
        ("BEGIN READ ONLY;\nSELECT 1;\nCOMMIT;", 1, 1, "READ ONLY"),
        ("BEGIN;\nVACUUM t;\nCOMMIT;", 2, 1, "VACUUM cannot run in a transaction"),
    ],
)
def test_other_transaction_control_is_refused_with_its_place(text, line, column, said):
    failure = refused(up, text)
    assert (failure.line, failure.column) == (line, column)
    assert said in failure.message
    assert failure.hint


# Without a transaction


@pytest.mark.parametrize(
    "mark",
    [
        "-- nself:no-transaction",
        "-- nself: no-transaction",
        "--nself:no-transaction",
        "-- NSELF: No_Transaction",
        "-- migrate:up transaction:false",
        "-- migrate:up  foo:bar transaction: false",
        "-- +goose NO TRANSACTION",
        "-- +goose no transaction",
        "-- +migrate Up notransaction",
    ],
)
def test_a_mark_in_the_head_takes_the_transaction_away(mark):
    script = up(f"-- about\n{mark}\nSELECT 1;\nSELECT 2;\n")
    assert script.mode == "no_transaction"
    assert script.reason.startswith("line 2 says so: ")
    assert units(script) == [(["SELECT 1"], False, 0), (["SELECT 2"], False, 1)]


@pytest.mark.parametrize(
    "text",
    [
        "-- migrate:up\nSELECT 1;",
        "-- migrate:up transaction:true\nSELECT 1;",
        "-- +goose Up\n-- +goose StatementBegin\nSELECT 1;\n-- +goose StatementEnd\n",
        "-- +migrate Up\nSELECT 1;",
        "/* -- nself:no-transaction */ SELECT 1;",
        "/*\n-- nself:no-transaction\n*/\nSELECT 1;",
        "SELECT '\n-- nself:no-transaction\n';",
        "SELECT 1;\n-- +goose NO TRANSACTION\n",
    ],
)
def test_what_is_no_mark_leaves_the_transaction(text):
    assert up(text).mode == "transaction"


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_marks_are_seen_with_every_line_end(line_end):
    script = up(f"-- about{line_end}-- nself:no-transaction{line_end}SELECT 1;{line_end}")
    assert (script.mode, script.reason) == ("no_transaction", "line 2 says so: -- nself:no-transaction")


def test_a_mark_is_seen_behind_the_restrict_line_of_pg_dump():
    assert up("\\restrict abc\n-- nself:no-transaction\nSELECT 1;\n").mode == "no_transaction"


@pytest.mark.parametrize(
    "text",
    ["CREATE INDEX CONCURRENTLY i ON t (a)", "VACUUM", "CREATE DATABASE d", "ALTER SYSTEM SET a = 1", "DISCARD ALL"],
)
def test_a_statement_that_cannot_be_in_a_transaction_is_detected(text):
    script = up(f"CREATE TABLE t (a int);\n{text};\n")
    assert script.mode == "no_transaction"
    assert script.reason.startswith("line 2: ")
    assert script.reason.endswith(" cannot run in a transaction")
    assert [unit.alone for unit in script.units] == [False, True]


@pytest.mark.parametrize("text", ["CALL p()", "DO $$ BEGIN COMMIT; END $$"])
def test_a_statement_that_may_commit_by_itself_runs_alone(text):
    assert [unit.alone for unit in up(f"{MARK}SELECT 1;{text};").units] == [False, True]


def test_a_statement_that_may_commit_does_not_take_the_transaction_away():
    assert up("CALL p();").mode == "transaction"


def test_a_block_in_a_file_without_a_transaction_is_one_unit():
    script = up(f"{MARK}SELECT 1;\nBEGIN ISOLATION LEVEL SERIALIZABLE;\nSELECT 2;\nSELECT 3;\nCOMMIT;\n{CIC}")
    assert units(script) == [
        (["SELECT 1"], False, 0),
        (["SELECT 2", "SELECT 3"], False, 1),
        (["CREATE INDEX CONCURRENTLY i ON t (a)"], True, 3),
    ]
    assert [unit.begin_text for unit in script.units] == [None, "BEGIN ISOLATION LEVEL SERIALIZABLE", None]
    assert len(script.statements) == 4


def test_blocks_beside_a_detected_statement_are_kept():
    script = up(f"BEGIN;\nSELECT 1;\nCOMMIT;\n{CIC}")
    assert script.mode == "no_transaction"
    assert units(script)[0] == (["SELECT 1"], False, 0)


def test_savepoints_are_fine_in_a_block():
    assert len(up(f"{MARK}BEGIN; SAVEPOINT a; ROLLBACK TO a; COMMIT;").statements) == 2


def test_an_empty_block_is_no_unit():
    assert up(f"{MARK}BEGIN; COMMIT; SELECT 1;").units[0].first == 0


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("BEGIN;\nSELECT 1;", 1, "BEGIN without a COMMIT"),
        ("SELECT 1;\nCOMMIT;", 2, "COMMIT without a BEGIN"),
        ("SELECT 1;\nROLLBACK;", 2, "ROLLBACK without a BEGIN"),
        ("BEGIN;\nSELECT 1;\nROLLBACK;", 3, "ROLLBACK cannot end a block"),
        ("BEGIN;\nSELECT 1;\nCOMMIT AND CHAIN;", 3, "COMMIT AND CHAIN cannot end a block"),
        ("BEGIN;\nBEGIN;\nCOMMIT;", 2, "BEGIN inside the block that line"),
        ("BEGIN;\nPREPARE TRANSACTION 'x';", 2, "PREPARE TRANSACTION"),
        ("COMMIT PREPARED 'x';", 1, "COMMIT PREPARED"),
        ("SAVEPOINT a;", 1, "SAVEPOINT outside a transaction"),
        ("BEGIN;\nVACUUM;\nCOMMIT;", 2, "VACUUM cannot run in a transaction, and BEGIN on line 2"),
        ("BEGIN READ ONLY;\nSELECT 1;\nCOMMIT;", 1, "READ ONLY"),
    ],
)
def test_unbalanced_blocks_are_refused(text, line, said):
    failure = refused(up, MARK + text)
    assert failure.line == line + 1
    assert said in failure.message


# Timeouts and other directives


@pytest.mark.parametrize(
    ("written", "milliseconds"),
    [
        ("5s", 5000), ("600s", 600_000), ("0", 0), ("0s", 0), ("250", 250), ("250ms", 250), ("1.5s", 1500),
        ("2min", 120_000), ("1h", 3_600_000), ("1d", 86_400_000), ("1500us", 2), (" 5 s ", 5000), ("'5s'", 5000),
        ("2147483647", 2_147_483_647),
    ],
)  # fmt: skip
def test_a_timeout_is_read_as_postgres_reads_it(written, milliseconds):
    script = up(f"-- nself:lock-timeout={written}\n-- nself: statement-timeout = {written}\nSELECT 1;")
    assert (script.lock_timeout, script.statement_timeout) == (milliseconds, milliseconds)


def test_without_a_directive_there_is_no_timeout_of_the_file():
    assert up("SELECT 1;")[4:6] == (None, None)


@pytest.mark.parametrize(
    "written",
    ["", "=", "=soon", "=5 parsecs", "=-1", "=5S", "=1e3", "=2147483648", "=25d", "=1us", "=" + "9" * 400, "=٥"],
)
def test_a_bad_timeout_is_refused_with_its_line(written):
    failure = refused(up, f"-- about\n  -- nself:lock-timeout{written}\nSELECT 1;")
    assert (failure.line, failure.column) == (2, 3)


def test_an_unknown_directive_is_refused_with_a_near_one():
    failure = refused(up, "-- nself:lock-timeuot=5s\nSELECT 1;")
    assert failure.hint == "did you mean nself:lock-timeout?"
    assert failure.line == 1


def test_an_unknown_directive_with_nothing_near_lists_them_all():
    assert "statement-timeout" in refused(up, "-- nself: xyzzy\n").hint


def test_a_directive_that_takes_no_value_says_so():
    assert refused(up, "-- nself:no-transaction=yes\n").message == "nself:no-transaction takes no value"


def test_a_directive_behind_the_first_statement_comes_too_late():
    failure = refused(up, "SELECT 1;\n\n-- nself:no-transaction\nSELECT 2;")
    assert failure.line == 3
    assert "too late" in failure.message


def test_prose_that_begins_with_nself_is_left_alone_further_down():
    assert up("SELECT 1;\n-- nself: our own schema\nSELECT '\n-- nself:no-transaction\n';").mode == "transaction"


@pytest.mark.parametrize("read", [up, down])
@pytest.mark.parametrize("mark", ["-- nself: to be written", "-- nself:to-be-written"])
def test_a_file_that_is_to_be_written_is_refused(read, mark):
    failure = refused(read, f"-- about\n{mark}\nDROP TABLE t;\n")
    assert failure.line == 2
    assert "still to be written" in failure.message
    assert "line 2" in failure.hint


# Two parts in one file

DOWN_MARKS = [
    "-- migrate:down",
    "-- MIGRATE:DOWN",
    "-- migrate:down transaction:false",
    "-- migrate down",
    "-- +goose Down",
    "-- +migrate Down",
    "-- +migrate Down notransaction",
    "-- DOWN",
    "-- Down:",
    "--DOWN",
    "  -- DOWN",
    "---- DOWN ----",
    "-- ==== DOWN ====",
    "-- Down Migration",
    "--//@UNDO",
    "-- //@UNDO",
]


@pytest.mark.parametrize("mark", DOWN_MARKS)
def test_an_up_file_with_a_down_part_is_refused(mark):
    failure = refused(up, f"CREATE TABLE t (a int);\n{mark}\nDROP TABLE t;\n")
    assert failure.line == 2
    assert failure.column == mark.index("-") + 1
    assert "down part" in failure.message
    assert failure.hint


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_a_down_part_is_seen_with_every_line_end(line_end):
    text = f"CREATE TABLE t (a int);{line_end}-- migrate:down{line_end}DROP TABLE t;{line_end}"
    assert refused(up, text).line == 2


def test_a_down_part_behind_a_missing_semicolon_is_seen():
    assert refused(up, "CREATE TABLE t (a int)\n-- migrate:down\nDROP TABLE t;\n").line == 2


def test_a_down_part_that_opens_the_up_file_is_seen():
    assert refused(up, "-- migrate:up\n-- migrate:down\nDROP TABLE t;\n").line == 2


def test_a_down_part_behind_copy_data_is_seen():
    assert refused(up, "COPY t FROM STDIN -- x\n;\n1\n\\.\n-- migrate:down\nDROP TABLE t;\n").line == 5


@pytest.mark.parametrize(
    "text",
    [
        "CREATE TABLE t (a int); -- the way down\nSELECT 1;",
        "-- slow down here\nSELECT 1;",
        "SELECT '\n-- migrate:down\n'; SELECT 1;",
        'SELECT 1 AS "\n-- migrate:down\n"; SELECT 1;',
        "DO $$\n-- migrate:down\n$$; SELECT 1;",
        "/* /* */\n-- migrate:down\n*/ SELECT 1;",
        "COPY t FROM STDIN;\n-- migrate:down\n\\.\nSELECT 1;",
        "COPY t FROM STDIN /* ; */ -- ;\n;\n-- migrate:down\n\\.\nSELECT 1;",
        "CREATE TABLE t (a int);\n-- migrate:down\n",
        "CREATE TABLE t (a int);\n-- DOWN:\n-- DROP TABLE t;\n",
    ],
)
def test_what_is_no_down_part_passes(text):
    assert up(text).mode == "transaction"


@pytest.mark.parametrize("mark", ["-- migrate:down", "-- migrate down", "-- DOWN", "-- +goose Down", "--//@UNDO"])
def test_a_down_file_may_say_that_it_is_one(mark):
    assert texts(down(f"{mark}\nDROP TABLE t;\n").statements) == ["DROP TABLE t"]


@pytest.mark.parametrize("mark", ["-- migrate:up", "-- +goose Up", "-- +migrate Up", "-- UP", "-- Up Migration"])
def test_a_down_file_with_an_up_part_is_refused(mark):
    failure = refused(down, f"{mark}\nCREATE TABLE t (a int);\n-- migrate:down\nDROP TABLE t;\n")
    assert failure.line == 1
    assert "up part" in failure.message


def test_dbmates_mark_counts_in_a_down_file():
    assert down("-- migrate:down transaction:false\nDROP INDEX CONCURRENTLY i;\n").mode == "no_transaction"


@pytest.mark.parametrize(
    "text",
    [
        "-- a comment on the way down\nSELECT 1; -- step down\n" * 20_000,
        "-" * 200_000 + "\nSELECT 1;\n" + ("-" * 1000 + "x\n") * 500,
        "--=" * 100_000 + "\nSELECT 1;\n",
        ("-- migrate" + " " * 1000 + "x\n") * 500 + "SELECT 1;\n",
        "SELECT '\n-- migrate:down\n';\n" * 20_000,
        "/* -- down\n */" * 50_000 + "SELECT 1;\n",
    ],
)
def test_comments_in_a_large_file_take_no_long_time(text):
    begin = time.perf_counter()
    refused(up, text + "-- migrate:down\nSELECT 2;")
    assert time.perf_counter() - begin < 10


# The done part of a file without a transaction


def statements(text):
    return up(MARK + text).statements


def test_the_hash_is_of_the_first_statements_only():
    one, two = statements("SELECT 1; SELECT 2;"), statements("SELECT 1; SELECT 3;")
    assert prefix_hash(one, 1) == prefix_hash(two, 1)
    assert prefix_hash(one, 2) != prefix_hash(two, 2)
    assert prefix_hash(one, 0) == hashlib.sha256().hexdigest()


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1;\n\n\nSELECT '\n';",
        "-- about\nSELECT 1; -- done\n/* x */ SELECT '\n';\n",
        "SELECT 1;\r\nSELECT '\r\n';\r\n",
        "SELECT 1;\rSELECT '\r';\r",
        "SELECT 1;;SELECT '\n'",
        "BEGIN; SELECT 1; COMMIT; SELECT '\n'",
    ],
)
def test_the_hash_does_not_see_what_stands_between_statements(text):
    assert prefix_hash(statements(text), 2) == prefix_hash(statements("SELECT 1; SELECT '\n';"), 2)


@pytest.mark.parametrize("text", ["SELECT  1;", "SELECT /* x */ 1;", "SELECT 2;", "select 1;"])
def test_the_hash_sees_every_change_inside_a_statement(text):
    assert prefix_hash(statements(text), 1) != prefix_hash(statements("SELECT 1;"), 1)


def test_the_hash_sees_the_data_of_a_copy():
    one, two = statements("COPY t FROM STDIN;\n1\n\\.\n"), statements("COPY t FROM STDIN;\n2\n\\.\n")
    assert prefix_hash(one, 1) != prefix_hash(two, 1)


@settings(deadline=None)
@given(st.lists(st.text("ab'; \n", max_size=6), max_size=5), st.lists(st.text("ab'; \n", max_size=6), max_size=5))
def test_different_statements_have_different_hashes(left, right):
    left, right = (tuple(statements("SELECT 1;")[0]._replace(text=text) for text in side) for side in (left, right))
    same = prefix_hash(left, len(left)) == prefix_hash(right, len(right))
    assert same == (texts(left) == texts(right))


def test_all_hashes_come_in_one_pass():
    found = statements("SELECT 1; SELECT 2; SELECT 3;")
    assert list(prefix_hashes(found)) == [prefix_hash(found, count) for count in range(4)]


def test_the_settings_before_a_statement_are_found():
    found = statements(f"SET search_path = app; SELECT 1; SET LOCAL a.b = 1; RESET ROLE; {CIC} SET ROLE x;")
    assert texts(settings_before(found, 5)) == ["SET search_path = app", "RESET ROLE"]
