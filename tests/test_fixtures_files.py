"""What stands in fixture files: YAML and JSON with places and exact numbers, names, references, SQL files, sets."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from nself_core.failures import FileFailure, Unreachable, UsageFailure
from nself_core.fixtures.documents import read_document
from nself_core.fixtures.files import Ref, Sql, choose_sets, find_sets, read_rows, read_set, read_sql


def plain(node):
    """The value of a Node without places; numbers as ("number", text)."""
    if node.kind == "list":
        return [plain(item) for item in node.value]
    if node.kind == "mapping":
        return {key.value: plain(value) for key, value in node.value}
    return ("number", node.value) if node.kind == "number" else node.value


def settings_of(folder):
    return SimpleNamespace(root=str(folder), path=lambda name, default: str(folder / default))


# documents

SAME = [
    ("{a: 1.10, b: -3}", '{"a": 1.10, "b": -3}', {"a": ("number", "1.10"), "b": ("number", "-3")}),
    ("a: 123456789012345678901234567890", '{"a": 123456789012345678901234567890}', None),
    ("a: 1e400", '{"a": 1e400}', {"a": ("number", "1e400")}),
    ("a: [true, null, x]", '{"a": [true, null, "x"]}', {"a": [True, None, "x"]}),
    ('a: "\\u00e9\\n\'"', '{"a": "\\u00e9\\n\'"}', {"a": "é\n'"}),
    ("{}", "{}", {}),
    ("{a: {}, b: []}", '{"a": {}, "b": []}', {"a": {}, "b": []}),
]


@pytest.mark.parametrize(("yaml", "json", "value"), SAME)
def test_yaml_and_json_mean_the_same(yaml, json, value):
    read = plain(read_document(json, "x.json"))
    assert plain(read_document(yaml, "x.yaml")) == read
    assert value is None or read == value


@pytest.mark.parametrize(
    "word", ["on", "yes", "No", "2024-01-01", "012", "0x1F", "1_000", "12:30", "1.", "~x", "=", "y"]
)
def test_what_yaml_1_1_would_change_stays_a_text(word):
    assert plain(read_document(f"a: {word}", "x.yaml")) == {"a": word}


def test_binary_explicit_texts_and_keys_as_they_are_written():
    read = plain(read_document("{a: !!binary AAH/, b: !!str 12, c: !!timestamp 2024-01-01, 1: x, null: y}", "x.yml"))
    assert read == {"a": b"\0\1\xff", "b": "12", "c": "2024-01-01", "1": "x", "null": "y"}


def test_anchors_and_merge_keys():
    text = "base: &b {x: 1, y: 2}\nmore: &m {y: 3, z: 4}\nrow: {<<: [*b, *m], x: 9}\nsame: *b\n"
    read = plain(read_document(text, "x.yaml"))
    assert read["row"] == {"x": ("number", "9"), "y": ("number", "2"), "z": ("number", "4")}
    assert read["same"] == read["base"]


def test_a_place_is_that_of_the_value():
    text = "a:\n  b:\n    - x\n    - {c: d}\n"
    node = read_document(text, "x.yaml")
    deep = node.value[0][1].value[0][1].value[1].value[0][1]
    assert (deep.value, deep.line, deep.column) == ("d", 4, 11)
    node = read_document('{"a":\n  [1,\n   "é", true]}', "x.json")
    assert [(each.line, each.column) for each in node.value[0][1].value] == [(2, 4), (3, 4), (3, 9)]


LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)
MERGED_LAUGHS = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 60))
UNSOUND = [
    ("a: 1\na: 2", "x.yaml", "a stands twice", (2, 1)),
    ("a: {b: 1, b: 2}", "x.yaml", "b stands twice", (1, 11)),
    ("a: &a [*a]", "x.yaml", "alias inside itself", (1, 4)),
    ("a: &a {<<: *a}", "x.yaml", "merged into itself", (1, 4)),
    ("a: {<<: [1]}", "x.yaml", "only mappings can be merged", (1, 10)),
    (LAUGHS, "x.yaml", "aliases repeat too much", None),
    ("[" * 100_000, "x.yaml", "nesting", None),
    ("? [1]\n: 2", "x.yaml", "cannot be a key", (1, 3)),
    ("a: !!set {x}", "x.yaml", "means nothing here", (1, 4)),
    ("a: !thing x", "x.yaml", "means nothing here", (1, 4)),
    ("a: !!binary é", "x.yaml", "not base64", (1, 4)),
    ("a: 1\n---\nb: 2", "x.yaml", "another document", (2, 1)),
    ("a: [1", "x.yaml", "did not find", None),
    ("[" * 100_000, "x.json", "levels", (1, 102)),
    ('{"a": 1, "a": 2}', "x.json", "a stands twice", (1, 10)),
    ('{"a": 1,}', "x.json", "a key in double quotes", (1, 9)),
    ('{"a" 1}', "x.json", "a colon", (1, 6)),
    ('{"a": 1\n "b": 2}', "x.json", "a comma or }", (2, 2)),
    ("[1 2]", "x.json", "a comma or ]", (1, 4)),
    ("[1", "x.json", "a comma or ]", (1, 3)),
    ("[", "x.json", "ends too early", (1, 2)),
    ('"a\nb"', "x.json", "control character", (1, 3)),
    ('{"a": nul}', "x.json", "a value is missing", (1, 7)),
    ('{"a": NaN}', "x.json", "a value is missing", (1, 7)),
    ("{} x", "x.json", "more behind the end", (1, 4)),
]


@pytest.mark.parametrize(("text", "file", "said", "place"), UNSOUND)
def test_what_is_not_sound_says_where(text, file, said, place):
    with pytest.raises(FileFailure) as raised:
        read_document(text, file)
    assert said in raised.value.message
    assert raised.value.file == file
    assert raised.value.line and (place is None or (raised.value.line, raised.value.column) == place)


def test_merges_of_merges_take_no_time():
    assert len(read_document(MERGED_LAUGHS, "x.yaml").value) == 60


def test_without_pyyaml_json_and_sql_are_read_and_yaml_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert read_rows('{"t": [{"a": 1}]}', "x.json")
    assert read_sql("INSERT INTO t VALUES (1)", "x.sql").statements
    with pytest.raises(Unreachable) as raised:
        read_rows("t: [{a: 1}]", "x.yaml")
    assert "pyyaml" in raised.value.hint


# rows


def test_rows_have_a_table_a_label_and_a_place():
    rows = read_rows("t:\n  a: {x: 1}\n  b:\napp.u:\n  - {y: 2}\n  - {}\nv:\n", "f.yaml")
    assert [(row.table, row.label, row.line, row.column) for row in rows] == [
        ((None, "t"), "a", 2, 3),
        ((None, "t"), "b", 3, 3),
        (("app", "u"), None, 5, 5),
        (("app", "u"), None, 6, 5),
    ]
    assert [[*row.cells] for row in rows] == [["x"], [], ["y"], []]


@pytest.mark.parametrize(
    ("key", "table"),
    [
        ("Users", (None, "Users")),
        ("app.Ü ser", ("app", "Ü ser")),
        ('"a.b"', (None, "a.b")),
        ('app."a.""b"', ("app", 'a."b')),
        ('"x".y', ("x", "y")),
        ("o'clock $$ %", (None, "o'clock $$ %")),
    ],
)
def test_names_are_the_catalogue_s_own(key, table):
    import json

    (row,) = read_rows(json.dumps({key: [{}]}), "f.json")
    assert row.table == table


def test_references_and_expressions():
    (row,) = read_rows(
        "t: [{a: {ref: u.x}, b: {sql: now()}, c: {ref: 1, more: 2}, d: {ref: 's.\"u.v\".x.id'}}]", "f.yaml"
    )
    assert row.cells["a"] == Ref(("u", "x"), 1, 9)
    assert row.cells["b"] == Sql("now()", 1, 24)
    assert row.cells["c"].kind == "mapping"
    assert row.cells["d"].parts == ("s", "u.v", "x", "id")


WRONG = [
    ("[1]", "a mapping of tables", (1, 1)),
    ("x", "a mapping of tables", (1, 1)),
    ("t: 1", "the rows of t", (1, 4)),
    ("t: {a: 1}", "a row is a mapping", (1, 8)),
    ("t: [[]]", "a row is a mapping", (1, 5)),
    ("a.b.c: [{}]", "no table's name", (1, 1)),
    ("a..b: [{}]", "an empty part", (1, 1)),
    ("'\"a': [{}]", "never closed", (1, 1)),
    ("'\"a\"b': [{}]", "behind a closing quote", (1, 1)),
    ("t: [{a: {ref: u}}]", "no reference", (1, 15)),
    ("t: [{a: {ref: a.b.c.d.e}}]", "no reference", (1, 15)),
    ("t: [{a: {ref: [u]}}]", "wants a text", (1, 15)),
    ("t: [{a: {sql: 12}}]", "wants a text", (1, 15)),
    ("t: [{a: {sql: ''}}]", "wants a text", (1, 15)),
    ("t: [{a: {sql: '1; DROP TABLE t'}}]", "not one SQL expression", (1, 15)),
    ("t: [{a: {sql: '1), (2'}}]", "never closed", (1, 15)),
    ("t: [{a: {sql: '1), 2'}}]", "not one SQL expression", (1, 15)),
    ("t: [{a: {sql: '1 -- x'}}]", "not one SQL expression", (1, 15)),
    ('t: [{a: {sql: "\'x"}}]', "never closed", (1, 15)),
]


@pytest.mark.parametrize(("text", "said", "place"), WRONG)
def test_what_is_no_row_says_where(text, said, place):
    with pytest.raises(FileFailure) as raised:
        read_rows(text, "f.yaml")
    assert said in raised.value.message
    assert (raised.value.file, raised.value.line, raised.value.column) == ("f.yaml", *place)


# SQL files


def test_a_block_around_the_whole_is_taken_as_ours():
    script = read_sql("BEGIN;\nINSERT INTO t VALUES (1);\nCOPY t FROM stdin;\n2\n\\.\nCOMMIT;", "f.sql")
    assert [each.line for each in script.statements] == [2, 3]
    assert script.statements[1].copy_data == "2\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SELECT 1;\nCOMMIT;", "COMMIT would end"),
        ("BEGIN;\nSELECT 1;\nROLLBACK;", "ROLLBACK, which would undo it"),
        ("VACUUM t;", "VACUUM cannot run in a transaction"),
        ("-- nself:no-transaction\nSELECT 1;", "cannot be a fixture"),
        ("\\i other.sql", "meta-command"),
    ],
)
def test_an_sql_fixture_cannot_leave_its_transaction(text, said):
    with pytest.raises(FileFailure) as raised:
        read_sql(text, "f.sql")
    assert said in raised.value.message


# sets


def test_a_set_is_a_file_or_a_folder_of_files(tmp_path):
    folder = tmp_path / "fixtures"
    (folder / "many" / "deeper").mkdir(parents=True)
    (folder / "empty").mkdir()
    names = (
        "b.json",
        "a.sql",
        "c.yml",
        "README.md",
        ".x.sql",
        "many/2.sql",
        "many/1.yaml",
        "many/3.json",
        "many/n.txt",
    )
    for name in names:
        (folder / name).write_text("{}" if name.endswith("json") else "", encoding="utf-8")
    sets = find_sets(settings_of(tmp_path))
    assert [(each.name, each.files) for each in sets] == [
        ("a", ("fixtures/a.sql",)),
        ("b", ("fixtures/b.json",)),
        ("c", ("fixtures/c.yml",)),
        ("many", ("fixtures/many/1.yaml", "fixtures/many/2.sql", "fixtures/many/3.json")),
    ]
    assert [each.name for each in choose_sets(sets, ["c", "a", "c"])] == ["c", "a"]
    with pytest.raises(UsageFailure, match="no fixture set mani") as raised:
        choose_sets(sets, ["mani"])
    assert raised.value.hint == "did you mean many?"


def test_no_folder_is_no_set_and_two_of_one_name_are_refused(tmp_path):
    assert find_sets(settings_of(tmp_path)) == []
    (tmp_path / "fixtures").mkdir()
    for name in ("a.sql", "a.yaml"):
        (tmp_path / "fixtures" / name).write_text("", encoding="utf-8")
    with pytest.raises(FileFailure, match=r"fixtures/a\.sql and fixtures/a\.yaml"):
        find_sets(settings_of(tmp_path))


def test_rows_of_neighbouring_files_belong_together_and_a_label_is_theirs_once(tmp_path):
    folder = tmp_path / "fixtures" / "s"
    folder.mkdir(parents=True)
    texts = {"1.yaml": "t: {a: {}}", "2.json": '{"t": {"b": {}}}', "3.sql": "SELECT 1", "4.yaml": "t: {c: {}}"}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    parts = read_set(find_sets(settings_of(tmp_path))[0]).parts
    assert [[row.label for row in part] if isinstance(part, list) else part.file for part in parts] == [
        ["a", "b"],
        "fixtures/s/3.sql",
        ["c"],
    ]
    (folder / "4.yaml").write_text("t:\n  a: {}", encoding="utf-8")
    with pytest.raises(FileFailure, match=r"t has a row a already: fixtures/s/1\.yaml:1") as raised:
        read_set(find_sets(settings_of(tmp_path))[0])
    assert raised.value.place == "fixtures/s/4.yaml:2:3"
