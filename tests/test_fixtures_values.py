"""Values of every type come back from YAML and JSON as they were written."""

from __future__ import annotations

import base64
import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SCHEMA = """
CREATE TYPE mood AS ENUM ('sad', 'It''s "ok"');
CREATE DOMAIN positive AS numeric(30, 10) CHECK (value > 0);
CREATE DOMAIN words AS text[];
CREATE TYPE pair AS (a int, b text);
CREATE TABLE v (
    id int PRIMARY KEY, t text, c character(5), vc varchar(9), b bool, i2 smallint, i8 bigint, n numeric,
    f double precision, r real, d date, ts timestamp, tz timestamptz, ti time, iv interval, u uuid,
    j json, jb jsonb, by bytea, e mood, ir int4range, tr tstzrange, inet inet, bits bit varying,
    p positive, pt point, pa pair,
    ta text[], ia int[], ea mood[], ba bytea[], ja jsonb[], w words, da date[], tza timestamptz[]
)
"""

# column, what stands in YAML, what in JSON, what Postgres says it is (its text, at UTC)
VALUES = [
    ("t", "\"it's \\\"q\\\" \\\\ \\n\\t\\r ü 🐘 $$ %s :x\"", "\"it's \\\"q\\\" \\\\ \\n\\t\\r ü 🐘 $$ %s :x\"",
     "it's \"q\" \\ \n\t\r ü 🐘 $$ %s :x"),
    ("t", "yes", '"yes"', "yes"),
    ("t", "2024-01-01", '"2024-01-01"', "2024-01-01"),
    ("t", "007", '"007"', "007"),
    ("t", "1.10", "1.10", "1.10"),
    ("t", "true", "true", "true"),
    ("t", "''", '""', ""),
    ("t", "null", "null", None),
    ("t", "~", "null", None),
    ("t", "'null'", '"null"', "null"),
    ("t", "|\n      two\n      lines\n", '"two\\nlines\\n"', "two\nlines\n"),
    ("c", "ab", '"ab"', "ab"),
    ("b", "true", "true", "true"),
    ("b", "off", '"off"', "false"),
    ("i2", "-32768", "-32768", "-32768"),
    ("i8", "9223372036854775807", "9223372036854775807", "9223372036854775807"),
    ("i8", "+5", '"+5"', "5"),
    ("n", "1.10", "1.10", "1.10"),
    ("n", "123456789012345678901234567890.0987654321000", "123456789012345678901234567890.0987654321000",
     "123456789012345678901234567890.0987654321000"),
    ("n", "1e-30", "1e-30", "0." + "0" * 29 + "1"),
    ("n", "NaN", '"NaN"', "NaN"),
    ("f", "0.1", "0.1", "0.1"),
    ("f", "-Infinity", '"-Infinity"', "-Infinity"),
    ("f", "1e308", "1e308", "1e+308"),
    ("r", "3.4e38", "3.4e38", "3.4e+38"),
    ("p", "0.0000000001", "0.0000000001", "0.0000000001"),
    ("d", "2024-02-29", '"2024-02-29"', "2024-02-29"),
    ("d", "infinity", '"infinity"', "infinity"),
    ("ts", "2024-02-29 23:59:59.999999", '"2024-02-29 23:59:59.999999"', "2024-02-29 23:59:59.999999"),
    ("tz", "2024-09-01T12:00:00+02:00", '"2024-09-01T12:00:00+02:00"', "2024-09-01 10:00:00+00"),
    ("ti", "12:30", '"12:30"', "12:30:00"),
    ("iv", "1 mon -3 days 04:05:06.7", '"1 mon -3 days 04:05:06.7"', "1 mon -3 days +04:05:06.7"),
    ("u", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", '"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"',
     "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("j", "{b: 1, a: [1.10, null, x]}", '{"b": 1, "a": [1.10, null, "x"]}', '{"b": 1, "a": [1.10, null, "x"]}'),
    ("jb", "{z: {}, a: 1e2, b: 12345678901234567890.10}", '{"z": {}, "a": 1e2, "b": 12345678901234567890.10}',
     '{"a": 100, "b": 12345678901234567890.10, "z": {}}'),
    ("jb", "text", '"text"', '"text"'),
    ("jb", "[]", "[]", "[]"),
    ("jb", "12", "12", "12"),
    ("jb", "false", "false", "false"),
    ("jb", "{ref: x, more: y}", '{"ref": "x", "more": "y"}', '{"ref": "x", "more": "y"}'),
    ("by", "!!binary AAECXCf/", '"\\\\x0001025c27ff"', "\\x0001025c27ff"),
    ("by", "'\\x00ff'", '"\\\\x00ff"', "\\x00ff"),
    ("e", "It's \"ok\"", '"It\'s \\"ok\\""', "It's \"ok\""),
    ("ir", "'[1,5)'", '"[1,5)"', "[1,5)"),
    ("ir", "empty", '"empty"', "empty"),
    ("tr", "'[2024-01-01 00:00+01,)'", '"[2024-01-01 00:00+01,)"', '["2023-12-31 23:00:00+00",)'),
    ("inet", "10.0.0.1/8", '"10.0.0.1/8"', "10.0.0.1/8"),
    ("bits", "'101'", '"101"', "101"),
    ("pt", "(1,2)", '"(1,2)"', "(1,2)"),
    ("pa", "(1,\"a \"\"b\")", '"(1,\\"a \\"\\"b\\")"', '(1,"a ""b")'),
    ("ta", "[]", "[]", "{}"),
    ("ta", "['', 'a,b', '{c}', 'd\"e', 'f\\g', null, 'NULL', ' h ', ü]",
     '["", "a,b", "{c}", "d\\"e", "f\\\\g", null, "NULL", " h ", "ü"]',
     '{"","a,b","{c}","d\\"e","f\\\\g",NULL,"NULL"," h ",ü}'),
    ("ta", "[[a, b], [c, null]]", '[["a", "b"], ["c", null]]', "{{a,b},{c,NULL}}"),
    ("ta", "'{x,y}'", '"{x,y}"', "{x,y}"),
    ("ia", "[1, -2, null]", "[1, -2, null]", "{1,-2,NULL}"),
    ("ea", "[sad]", '["sad"]', "{sad}"),
    ("ba", "[!!binary AAH/, null]", '["\\\\x0001ff", null]', '{"\\\\x0001ff",NULL}'),
    ("ja", "[{a: [1]}, [2, 3], x, null]", '[{"a": [1]}, [2, 3], "x", null]',
     '{"{\\"a\\": [1]}","[2, 3]","\\"x\\"",NULL}'),
    ("w", "[a, 'b c']", '["a", "b c"]', '{a,"b c"}'),
    ("da", "[2024-01-01]", '["2024-01-01"]', "{2024-01-01}"),
    ("tza", "[2024-01-01T00:00:00Z]", '["2024-01-01T00:00:00Z"]', '{"2024-01-01 00:00:00+00"}'),
]  # fmt: skip


def texts(project, columns):
    """Each row's value in its column, as the server writes it."""
    project.database.admin("SELECT 1")
    with project.database.connect(options="-c timezone=UTC") as connection:
        return [
            connection.execute(f"SELECT {column}::text AS value FROM v WHERE id = {number}").fetchone()["value"]
            for number, column in enumerate(columns)
        ]


def load(project, name, text):
    project.write(f"fixtures/{name}", text)
    project.run("fixtures", "run", "--fixture", name.partition(".")[0], "--commit").ok()


@pytest.mark.versions
def test_every_type_from_yaml_and_from_json(project):
    project.database.admin(SCHEMA)
    wanted = [value for *_, value in VALUES]
    columns = [column for column, *_ in VALUES]
    load(
        project,
        "y.yaml",
        "v:\n" + "".join(f"  - id: {n}\n    {column}: {yaml}\n" for n, (column, yaml, *_) in enumerate(VALUES)),
    )
    assert texts(project, columns) == wanted
    project.database.admin("TRUNCATE v")
    rows = ",\n".join(f'{{"id": {n}, "{column}": {text}}}' for n, (column, _, text, _) in enumerate(VALUES))
    load(project, "j.json", f'{{"v": [{rows}]}}')
    assert texts(project, columns) == wanted


def test_a_sql_expression_for_any_type(plain_project):
    plain_project.database.admin(SCHEMA)
    load(
        plain_project,
        "s.yaml",
        "v: [{id: 0, jb: {sql: \"'{\\\"ref\\\": 1}'\"}, ia: {sql: 'ARRAY[1, 2]'}, tz: {sql: now()}, "
        "pa: {sql: 'ROW(1, $$;$$)'}}]",
    )
    assert plain_project.database.admin("SELECT jb::text, ia, pa::text, tz IS NOT NULL AS at FROM v") == [
        {"jb": '{"ref": 1}', "ia": [1, 2], "pa": "(1,;)", "at": True}
    ]


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
# jsonb takes no \\u0000, and numbers are compared as Python reads them back.
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**25), 10**25) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
ROW = st.fixed_dictionaries(
    {
        "t": TEXT,
        "n": st.decimals(allow_nan=False, allow_infinity=False, places=12),
        "by": st.binary(max_size=20),
        "ta": st.lists(st.none() | TEXT, max_size=4),
        "jb": JSON.filter(
            lambda value: value is not None and not (isinstance(value, dict) and {*value} & {"ref", "sql"})
        ),
    }
)


def as_json(row, number):
    values = {**row, "id": number, "by": "\\x" + row["by"].hex(), "n": 0}
    return json.dumps(values, ensure_ascii=False).replace('"n": 0', f'"n": {row["n"]:f}', 1)


def yaml_flow(value):
    """JSON as YAML reads it: it knows no surrogate pairs, and takes no control characters as they are."""
    return re.sub(r"[^\x20-\x7e]", lambda found: f"\\U{ord(found.group()):08x}", json.dumps(value, ensure_ascii=False))


def as_yaml(row, number):
    binary = base64.b64encode(row["by"]).decode()
    values = {"id": number, "n": f"{row['n']:f}", "by": f'!!binary "{binary}"'}
    values.update((name, yaml_flow(row[name])) for name in ("t", "ta", "jb"))
    return "{" + ", ".join(f"{name}: {value}" for name, value in values.items()) + "}"


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(rows=st.lists(ROW, min_size=5, max_size=20))
def test_any_value_comes_back_equal(plain_project, rows):
    plain_project.database.admin(
        f"DROP TABLE IF EXISTS v; DROP DOMAIN IF EXISTS positive, words; DROP TYPE IF EXISTS mood, pair; {SCHEMA}"
    )
    load(plain_project, "j.json", '{"v": [' + ",".join(as_json(row, number) for number, row in enumerate(rows)) + "]}")
    load(plain_project, "y.yaml", "v:\n" + "".join(f"  - {as_yaml(row, 100 + n)}\n" for n, row in enumerate(rows)))
    found = plain_project.database.admin("SELECT t, n, by, ta, jb FROM v ORDER BY id")
    assert found == rows + rows
    assert [f"{row['n']:f}" for row in found[: len(rows)]] == [f"{row['n']:f}" for row in rows]
