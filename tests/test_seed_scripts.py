"""What each kind of seed becomes: statements, the tables they fill, and refusals with their place."""

from __future__ import annotations

import hashlib
import json
import re
import time

import pytest
from bed.seeds import NASTY, find_in
from hypothesis import given
from hypothesis import strategies as st

from nself_core.catalogue import Column, Table
from nself_core.failures import FileFailure
from nself_core.postgres.psql import stream_text
from nself_core.postgres.session import DataFile, Unit
from nself_core.seeds import scripts
from nself_core.seeds.files import Seed
from nself_core.seeds.scripts import (
    Work,
    check_columns,
    read_csv,
    read_json,
    read_works,
    row_by_row,
    table_of,
    with_statements,
)
from nself_core.sql.lexer import Statement


def seed_of(tmp_path, name, content):
    """The Seed of one file."""
    listing, _ = find_in(tmp_path, {name: content})
    (seed,) = listing.seeds
    return seed


def work_of(tmp_path, name, content):
    """The Work of one file that is no program."""
    (work,) = read_works([seed_of(tmp_path, name, content)], "dev", None)
    return work


def table(*columns, primary_key=(), unique=False, deferrable=False, copies=True):
    """The Table public.t with integer columns."""
    made = tuple(Column(name, "integer", False, True, False, "", False, None) for name in columns)
    return Table("public", "t", made, primary_key, unique, deferrable, copies, False)


def texts(work):
    return [statement.text for statement in work.script.statements]


def refusal(read, *arguments):
    with pytest.raises(FileFailure) as caught:
        read(*arguments)
    return caught.value


# SQL.


def test_the_tables_that_an_sql_seed_fills(tmp_path):
    work = work_of(
        tmp_path,
        "a.sql",
        'INSERT INTO t SELECT * FROM source;\nINSERT INTO app."T" VALUES (1);\n'
        "COPY u (a) FROM stdin;\n1\n\\.\nWITH x AS (INSERT INTO v VALUES (1) RETURNING *) INSERT INTO t TABLE x;\n"
        "MERGE INTO w USING t ON true WHEN MATCHED THEN DELETE;\nUPDATE z SET a = 1;\n",
    )
    assert sorted(work.fills, key=str) == sorted(
        [(None, "t"), ("app", "T"), (None, "u"), (None, "v"), (None, "w")], key=str
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SELECT 1;\nCOMMIT;\nSELECT 2;", "COMMIT would end"),
        ("SELECT 1;\nROLLBACK;\nSELECT 2;", "ROLLBACK would undo"),
        ("SELECT 1;\nPREPARE TRANSACTION 'x';", "PREPARE TRANSACTION"),
        ("-- nself:no-transaction\nSELECT 1;", "a seed runs in one transaction"),
        ("VACUUM t;", "a seed runs in one transaction"),
        ("BEGIN;\nSELECT 1;\nROLLBACK;", "ends in ROLLBACK"),
    ],
)
def test_what_would_not_be_one_transaction_is_refused_with_no_migrations_hint(tmp_path, text, message):
    failure = refusal(work_of, tmp_path, "a.sql", text)
    assert message in failure.message
    assert "no-transaction" not in (failure.hint or "")
    assert failure.file == "seeds/a.sql"


def test_its_own_begin_and_commit_are_taken_as_ours(tmp_path):
    work = work_of(tmp_path, "a.sql", "BEGIN ISOLATION LEVEL SERIALIZABLE;\nSELECT 1;\nCOMMIT;\n")
    assert texts(work) == ["SELECT 1"]
    assert work.script.begin_text == "BEGIN ISOLATION LEVEL SERIALIZABLE"


# The table of a data file.


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("t.csv", (None, "t")),
        ("T t.csv", (None, "T t")),
        ("app.t.csv", ("app", "t")),
        ("public.a.b.csv", ("public", "a.b")),
        (f"{NASTY}.json", (None, NASTY)),
        ("dev/t.csv", (None, "t")),
    ],
)
def test_a_data_file_is_named_after_its_table(tmp_path, name, found):
    assert table_of(seed_of(tmp_path, name, "a\n")) == found


# CSV.


@pytest.mark.parametrize(
    ("content", "columns", "head"),
    [
        (b"a,b\n1,2\n", ("a", "b"), 4),
        (b"a,b\r\n1,2\r\n", ("a", "b"), 5),
        (b"a,b", ("a", "b"), 3),
        (b"\xef\xbb\xbfa,b\n", ("a", "b"), 7),
        (b'"a ""x""","b,c"\n', ('a "x"', "b,c"), 16),
        (b'"a\nb",c\n1,2\n', ("a\nb", "c"), 8),
        ("a\u2028b,c\x0cd,\x85\n".encode(), ("a\u2028b", "c\x0cd", "\x85"), 13),
        ("$$,%s,ü\n".encode(), ("$$", "%s", "ü"), 9),
    ],
)
def test_the_columns_stand_in_the_header(tmp_path, content, columns, head):
    data = read_csv(seed_of(tmp_path, "t.csv", content))
    assert (data.columns, len(data.file.head())) == (columns, head)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "it is empty"),
        ("\n", "it is empty"),
        ("a,,b\n", "does not name a column for every value"),
        ("a,b,a\n", "the column a stands twice"),
        ("a,b\r1,2\r", "its lines end in CR alone"),
        ('a"b\n1\n', "cannot be read as CSV"),
        (b"caf\xe9\n", "not UTF-8"),
        (b"\xff\xfea\x00\n\x00", "not UTF-8"),
    ],
)
def test_a_header_that_names_no_columns_is_refused(tmp_path, content, message):
    failure = refusal(read_csv, seed_of(tmp_path, "t.csv", content))
    assert message in failure.message
    assert failure.place == "seeds/t.csv:1"


def test_a_column_that_the_table_has_not_or_computes_is_refused_before_anything_runs(tmp_path):
    work = work_of(tmp_path, "t.csv", "a,x,y\n1,2,3\n")
    failure = refusal(check_columns, work, table("a", "b"))
    assert failure.message == "t has no column x and y"
    assert failure.hint == "its columns are a, b"
    computed = table("a", "y")._replace(
        columns=(table("a").columns[0], table("x").columns[0], table("y").columns[0]._replace(generated=True))
    )
    assert refusal(check_columns, work, computed).message == "t computes y itself"


def test_into_an_empty_table_a_csv_goes_straight(tmp_path):
    work = with_statements(work_of(tmp_path, "t.csv", "a,b\n1,2\n"), table("a", "b"), True)
    assert texts(work) == ['COPY "public"."t" ("a", "b") FROM STDIN WITH (FORMAT csv, HEADER)']


@pytest.mark.parametrize(
    ("facts", "is_empty", "end"),
    [
        ({"copies": False}, True, "FROM pg_temp.nself_rows AS new"),
        ({"primary_key": ("a",), "unique": True}, False, "AS new ON CONFLICT DO NOTHING"),
        (
            {"primary_key": ("z",), "unique": True},
            False,
            'WHERE ROW(present."a", present."b")::pg_catalog.text = ROW(new."a", new."b")::pg_catalog.text) '
            "ON CONFLICT DO NOTHING",
        ),
        (
            {"primary_key": ("a",), "unique": True, "deferrable": True},
            False,
            'WHERE ROW(present."a")::pg_catalog.text = ROW(new."a")::pg_catalog.text)',
        ),
        ({}, False, 'ROW(new."a", new."b")::pg_catalog.text)'),
    ],
)
def test_beside_rows_that_are_there_it_goes_by_a_stage(tmp_path, facts, is_empty, end):
    work = with_statements(work_of(tmp_path, "t.csv", "a,b\n1,2\n"), table("a", "b", **facts), is_empty)
    *_, insert, drop = texts(work)
    assert drop == "DROP TABLE pg_temp.nself_rows"
    assert insert.endswith(end)


# The data of a CSV on their way: the value a `\.` stands for must come through, and never be the end.


def read_back(data):
    """What Postgres makes of CSV bytes: rows of values, by its own rules for quotes (CopyReadAttributesCSV)."""
    rows, row, value, inside, place = [], [], b"", False, 0
    while place < len(data):
        char = data[place : place + 1]
        if char == b'"' and inside and data[place + 1 : place + 2] == b'"':
            value, place = value + b'"', place + 1
        elif char == b'"':
            inside = not inside
        elif inside or char not in (b",", b"\n"):
            value += char
        else:
            row.append(value)
            value = b""
            if char == b"\n":
                rows.append(row)
                row = []
        place += 1
    return rows


def sent(tmp_path, content, head=b"", checksum=None):
    """What of a file with the header `head` is sent behind it."""
    path = tmp_path / "t.csv"
    path.write_bytes(head + content)
    told = b"".join(DataFile(str(path), "seeds/t.csv", checksum).chunks())
    assert told.startswith(head)
    return told[len(head) :]


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"a\n", b"a\n"),
        (b"a", b"a\n"),
        (b"", b""),
        (b"\\.\nb\n", b'"\\."\nb\n'),
        (b"a\n\\.\nb", b'a\n"\\."\nb\n'),
        (b"\\.", b'"\\."\n'),
        (b'"x\n\\.\ny"\n', b'"x\n"\\".\ny"\n'),
        (b'"x""\n\\.\n"\n\\.\n', b'"x""\n"\\".\n"\n"\\."\n'),
        (b"x\\.\n\\.x\n \\.\n", b"x\\.\n\\.x\n \\.\n"),
        (b"a\r", b"a\r\n"),
    ],
)
def test_no_line_could_be_read_as_the_end_of_the_data(tmp_path, content, wanted):
    assert sent(tmp_path, content) == wanted
    assert sent(tmp_path, content, b"head\n") == wanted


@pytest.mark.parametrize("head", [b"head\r\n", b'"he\nad",x\r\n'])
def test_the_last_line_ends_as_the_first_record_does(tmp_path, head):
    assert sent(tmp_path, b"a\r\n\\.\r\nb", head) == b'a\r\n"\\."\r\nb\r\n'


@pytest.mark.parametrize("content", [b"1\n", b"1\n\\.\n", b"", b"1"])
def test_bytes_that_are_not_those_that_were_announced_are_refused(tmp_path, content):
    right = hashlib.sha256(b"a\n" + content).hexdigest()
    sent(tmp_path, content, b"a\n", right)
    (tmp_path / "t.csv").write_bytes(b"a\n2\n")
    data = DataFile(str(tmp_path / "t.csv"), "seeds/t.csv", right)
    for ask in (lambda: list(data.chunks()), data.is_plain):
        failure = refusal(ask)
        assert (failure.message, failure.place) == ("it was changed after the run had begun", "seeds/t.csv")


PIECES = st.lists(st.sampled_from([b"\\.", b"\n", b'"', b'""', b"\\", b".", b"a", b","]), max_size=30).map(b"".join)


@given(PIECES)
def test_what_is_sent_means_the_same(tmp_path_factory, content):
    content += b"" if content.count(b'"') % 2 == 0 else b'"'
    content += b"\n"
    folder = tmp_path_factory.mktemp("data")
    told = sent(folder, content)
    assert read_back(told) == read_back(content)
    assert b"\\." not in told.splitlines()


def test_over_the_borders_of_pieces_too(tmp_path):
    content = b"".join(b'"%d\n\\.\n"\n' % number for number in range(20000))
    told = sent(tmp_path, content)
    assert b"\\." not in told.split(b"\n")
    assert read_back(told[-2000:][told[-2000:].index(b'\n"1') + 1 :])[-1] == [b"19999\n\\.\n"]


@pytest.mark.parametrize("head", [b"", b"a\n", b'"a\nb"\n'])
def test_a_nul_is_refused_with_its_line(tmp_path, head):
    failure = refusal(sent, tmp_path, b"x\nab\0c\nd\n", head)
    assert failure.line == head.count(b"\n") + 2


def test_a_file_that_is_gone_is_told_by_the_name_people_know(tmp_path):
    data = DataFile(str(tmp_path / "none.csv"), "seeds/none.csv")
    for ask in (lambda: list(data.chunks()), data.is_plain, data.head):
        failure = refusal(ask)
        assert failure.place == "seeds/none.csv"


def copied(path, text='COPY "t" ("a") FROM STDIN WITH (FORMAT csv, HEADER)'):
    """(psql's text, the pieces that went to a file of ours) for a COPY of the file at `path`."""
    kept = []

    def in_file(*pieces):
        kept.append(b"".join(pieces).decode())
        return "/tmp/it's"

    statement = Statement(text, 1, 1, 0, 1, DataFile(str(path)), True)
    return stream_text(Unit("u", (), (statement,), ()), "mark", in_file), kept


def test_a_psql_here_reads_a_plain_file_itself(tmp_path):
    path = tmp_path / "it's \\a.csv"
    path.write_text("a\n1\n")
    text, kept = copied(path)
    doubled = str(path).replace("'", "''")
    assert f'\\copy "t" ("a") FROM \'{doubled}\' WITH (FORMAT csv, HEADER)\n' in text
    assert kept == []


def test_a_psql_here_reads_another_file_where_a_line_would_end_the_data_or_the_path(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a\n\\.\n")
    text, kept = copied(path)
    assert kept == ['a\n"\\."\n']
    assert "FROM '/tmp/it''s' WITH (FORMAT csv, HEADER)" in text
    path = tmp_path / "new\nline.csv"
    path.write_text("a\n1\n")
    text, kept = copied(path)
    assert kept == ["a\n1\n"]
    assert "new\nline" not in text


def test_a_column_whose_name_has_a_line_end_goes_with_its_statement_in_a_file(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('"a\nb"\n1\n')
    text, kept = copied(path, 'COPY "t" ("a\nb") FROM STDIN WITH (FORMAT csv, HEADER)')
    (whole,) = kept
    assert whole.endswith('WITH (FORMAT csv, HEADER)$nself$ \\gexec\n"a\nb"\n1\n')
    assert "\\i '/tmp/it\\'s'\n" in text


# JSON.


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("", "not an array", 1),
        ('{"a": 1}', "not an array", 1),
        ('\n\n["a"]', "a row is an object", 3),
        ('[{"a": 1},\n{}]', "a row is an object", 2),
        ('[{"a": 1}\n{"a": 2}]', "a comma or ] is missing", 2),
        ('[{"a": 1},\n {"a": }]', "Expecting value", 2),
        ('[{"a": 1, "a": 2}]', "the key a stands twice", 1),
        ('[{"a": 1}]\nx', "there is more behind the array", 1),
        ('[{"a": 1}', "a comma or ] is missing", 1),
        ('[\n{"a": ' + "[" * 100000 + "]" * 100000 + "}]", "too deep", 2),
    ],
    ids=range(10),
)
def test_json_that_is_no_list_of_rows_is_refused_with_its_line(tmp_path, text, message, line):
    failure = refusal(read_json, seed_of(tmp_path, "t.json", text))
    assert message in failure.message
    assert (failure.file, failure.line) == ("seeds/t.json", line)


def test_an_empty_list_is_no_rows(tmp_path):
    assert read_json(seed_of(tmp_path, "t.json", " [ ]\n")).batches == []


def test_rows_with_the_same_keys_go_together_and_keep_their_order_and_their_digits(tmp_path):
    text = '[{"a": 1.10, "b": 9007199254740993},\n{"b": 2, "a": 1e400},\n\n{"a": ' + "7" * 5000 + '},\n{"a": -0}]'
    batches = read_json(seed_of(tmp_path, "t.json", text)).batches
    assert [(columns, line) for columns, _, line in batches] == [(("a", "b"), 1), (("a",), 4)]
    assert batches[0][1] == '[{"a": 1.10, "b": 9007199254740993},\n{"b": 2, "a": 1e400}]'
    assert "7" * 5000 in batches[1][1]


def test_batches_are_of_a_thousand_rows_and_of_a_megabyte(tmp_path):
    rows = [{"a": number} for number in range(2500)]
    batches = read_json(seed_of(tmp_path, "t.json", json.dumps(rows))).batches
    assert [len(json.loads(text)) for _, text, _ in batches] == [1000, 1000, 500]
    big = json.dumps([{"a": "x" * 700_000}] * 3)
    assert len(read_json(seed_of(tmp_path, "t.json", big)).batches) == 3


def test_rows_of_changing_keys_take_no_time_that_grows_with_its_square(tmp_path):
    rows = ",\n".join(f'{{"{"ab"[number % 2]}": "{"x" * 100}"}}' for number in range(40000))
    seed = seed_of(tmp_path, "t.json", f"[{rows}]")
    start = time.monotonic()
    batches = read_json(seed).batches
    assert time.monotonic() - start < 5
    assert [line for *_, line in batches] == list(range(1, 40001))


ROWS = st.lists(
    st.dictionaries(st.text(min_size=1, max_size=3), st.none() | st.integers() | st.text(max_size=5), min_size=1),
    max_size=8,
)


@given(ROWS, st.sampled_from([None, 1]))
def test_every_row_is_in_one_batch_as_it_was(tmp_path_factory, rows, indent):
    path = tmp_path_factory.mktemp("rows") / "t.json"
    path.write_text(json.dumps(rows, indent=indent), encoding="utf-8")
    seed = Seed("seeds/t.json", str(path), "json", (), (), None)
    batches = read_json(seed).batches
    assert [row for _, text, _ in batches for row in json.loads(text)] == rows
    assert all(tuple(sorted(row)) == columns for columns, text, _ in batches for row in json.loads(text))


FEW_KEYS = st.lists(st.dictionaries(st.sampled_from("ab"), st.text(max_size=3), min_size=1), min_size=1, max_size=8)


@given(FEW_KEYS, st.sampled_from([None, 1]), st.integers(0, 7))
def test_every_row_can_be_told_apart_with_its_line(tmp_path_factory, rows, indent, number):
    path = tmp_path_factory.mktemp("rows") / "t.json"
    text = json.dumps(rows, indent=indent)
    path.write_text(text, encoding="utf-8")
    seed = Seed("seeds/t.json", str(path), "json", (), (), None)
    found = with_statements(Work(seed, None, "c", ((None, "t"),), read_json(seed)), table("a"), True)
    number = min(number, len(found.data.batches) - 1)
    before, apart = found.script.statements[:number], row_by_row(found, number)
    batch = json.loads(found.data.batches[number][1])
    assert apart[:number] == before
    assert len(apart) == number + len(batch)
    if indent:
        starts = [line for line, one in enumerate(text.split("\n"), 1) if one.startswith(" {")]
        done = sum(len(json.loads(text)) for _, text, _ in found.data.batches[:number])
        assert [one.line for one in apart[number:]] == starts[done : done + len(batch)]


def test_a_key_that_is_no_column_is_refused_with_the_line_of_its_rows(tmp_path):
    work = work_of(tmp_path, "t.json", '[{"a": 1},\n{"a": 1, "x": 2}]')
    failure = refusal(check_columns, work, table("a"))
    assert (failure.message, failure.line) == ("t has no column x", 2)


def test_all_made_sql_names_where_its_names_are_from(tmp_path):
    work = work_of(tmp_path, "t.json", '[{"a": "it\'s; $$ \\\\"}]')
    (text,) = texts(with_statements(work, table("a"), False))
    assert re.search(r"\bpg_catalog\.json_populate_recordset\(NULL::\"public\"\.\"t\", E'", text)
    assert scripts.STAGE.startswith("pg_temp.")
