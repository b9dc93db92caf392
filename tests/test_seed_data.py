"""Seeds of data, CSV and JSON: values come through as they stand, into tables of every sort, and once."""

from __future__ import annotations

import json
import re

import pytest
from bed.bookkeeping import schemas, values
from bed.seeds import LONGEST, NASTY, write_seeds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nself_core.sql.quoting import identifier


@pytest.fixture(params=["psql", "psycopg"])
def both(plain_project, request):
    """The same project over each driver."""
    plain_project.write_env({**plain_project.database.settings, "NSELF_DB_DRIVER": request.param})
    return plain_project


def seeded(project, files, *options):
    """The Outcome of `seed run` with these seeds."""
    write_seeds(project.root, files)
    return project.run("seed", "run", *options)


def records(project):
    return [file for (file,) in values(project, "SELECT file FROM nself_db.seeds ORDER BY applied_at")]


# Values and shapes of CSV.


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ("a,b\r\n1,x\r\n2,y\r\n", [("1", "x"), ("2", "y")]),
        (b"\xef\xbb\xbfa,b\n1,x\n", [("1", "x")]),
        ("b,a\nx,1", [("1", "x")]),
        ("a,b\n", []),
        ("a,b", []),
        ('a,b\n,""\n', [(None, "")]),
        ('a,b\n"x ""y"", z","ü\r\n€"\n', [('x "y", z', "ü\r\n€")]),
        ('a,b\n"\\.",\\.\n"x\n\\.\n","\n\\.\n\\! echo\n"\n', [("\\.", "\\."), ("x\n\\.\n", "\n\\.\n\\! echo\n")]),
        ("a\n\\.\nb\n\\! exit 3\n", [("\\.", None), ("b", None), ("\\! exit 3", None)]),
        ("a,b\r\n1,x\r\n2,y", [("1", "x"), ("2", "y")]),
        ("a\nNULL\n\\N\n", [("NULL", None), ("\\N", None)]),
        ("a\n$$ :x %s {} \\ '\n", [("$$ :x %s {} \\ '", None)]),
    ],
)
def test_values_of_a_csv_come_through_as_they_stand(both, content, rows):
    both.database.admin("CREATE TABLE t (a text, b text)")
    seeded(both, {"t.csv": content}).ok()
    assert values(both, "TABLE t") == rows
    both.run("seed", "run").ok()
    assert values(both, "TABLE t") == rows


@pytest.mark.servers("container-15")
def test_what_stands_behind_a_line_that_could_end_the_data_is_never_run(project):
    project.database.admin("CREATE TABLE t (a text)")
    content = "a\nb\n\\.\n\\! touch /tmp/nself-ran\nDROP TABLE t;\n"
    seeded(project, {"t.csv": content}).ok()
    assert values(project, "TABLE t") == [(line,) for line in content.splitlines()[1:]]
    assert "nself-ran" not in str(project.database.server.cluster.run("ls", "/tmp"))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("a,b\n1,x\n2\n3,z\n", 3),
        ("a,b\n1,x,y\n", 2),
        ('a,b\n1,x\n2,"y\n', 4),
        ("a,b\n1,x\n\n", 3),
        (b"a,b\n1,x\n2,y\0z\n", 3),
        (b"a,b\n1,x\n2,\xe4\n", 3),
        ('"a","b"\n1,x\n2,y\r', 3),
        (', line 9: "\nx', 1),
    ],
)
def test_a_line_that_is_no_row_is_told(both, content, line):
    both.database.admin("CREATE TABLE t (a int, b text)")
    outcome = seeded(both, {"t.csv": content}, "--json")
    assert outcome.code == 1
    assert outcome.json()["error"]["file"] == "seeds/t.csv"
    assert outcome.json()["error"]["line"] == line
    assert values(both, "TABLE t") == []


def test_the_line_is_found_whatever_the_table_is_called(both):
    both.database.admin('CREATE TABLE "t, line 9" (a int)')
    outcome = seeded(both, {"t, line 9.csv": "a\n1\nx\n"}, "--json")
    assert outcome.json()["error"]["line"] == 3


def test_a_row_that_only_the_insert_refuses_has_no_line_rather_than_a_wrong_one(both):
    both.database.admin("CREATE TABLE t (a int CHECK (a > 0))")
    both.database.admin("INSERT INTO t VALUES (1)")
    error = seeded(both, {"t.csv": "a\n2\n-1\n"}, "--json").json()["error"]
    assert (error["file"], error.get("line")) == ("seeds/t.csv", None)
    assert "violates check constraint" in error["message"]


def test_a_value_of_many_megabytes(both):
    both.database.admin("CREATE TABLE t (a int, b text)")
    seeded(both, {"t.csv": f'a,b\n1,"{"ü" * 4_000_000}"\n2,x\n'}).ok()
    assert values(both, "SELECT a, length(b) FROM t") == [(1, 4_000_000), (2, 1)]


@pytest.mark.parametrize("name", [NASTY, LONGEST, "new\nline", "Up Per", "a\"b'c", "t\\e", "%1$s"])
@pytest.mark.parametrize("kind", ["csv", "json"])
def test_names_of_any_kind_for_table_column_and_file(both, name, kind):
    column = name + "2" if len(name.encode()) < 63 else name
    both.database.admin(f"CREATE TABLE {identifier(name)} (id int PRIMARY KEY, {identifier(column)} text)")
    doubled = column.replace('"', '""')
    content = f'id,"{doubled}"\n1,x\n' if kind == "csv" else json.dumps([{"id": 1, column: "x"}])
    for _ in range(2):
        seeded(both, {f"{name}.{kind}": content}).ok()
    assert values(both, f"TABLE {identifier(name)}") == [(1, "x")]
    assert records(both) == [f"seeds/{name}.{kind}"]


# Tables of every sort.


def test_a_view_takes_rows_like_its_table(both):
    both.database.admin("CREATE TABLE t (id int PRIMARY KEY, a text)")
    both.database.admin("CREATE VIEW v AS SELECT * FROM t")
    write_seeds(both.root, {"v.csv": "id,a\n1,x\n"})
    for _ in range(2):
        both.run("seed", "run").ok()
    assert values(both, "TABLE t") == [(1, "x")]


def test_a_view_with_a_trigger_instead(plain_project):
    plain_project.database.admin("CREATE TABLE t (id int PRIMARY KEY)")
    plain_project.database.admin("CREATE VIEW v AS SELECT id AS number FROM t")
    plain_project.database.admin(
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO t VALUES (NEW.number);"
        " RETURN NEW; END'"
    )
    plain_project.database.admin("CREATE TRIGGER f INSTEAD OF INSERT ON v FOR EACH ROW EXECUTE FUNCTION f()")
    write_seeds(plain_project.root, {"v.json": '[{"number": 1}]'})
    for _ in range(2):
        plain_project.run("seed", "run").ok()
    assert values(plain_project, "TABLE t") == [(1,)]


def test_rows_of_a_table_whose_keys_may_wait(plain_project):
    plain_project.database.admin("CREATE TABLE t (id int PRIMARY KEY, place int UNIQUE DEFERRABLE)")
    write_seeds(plain_project.root, {"t.csv": "id,place\n1,1\n2,2\n", "t.json": '[{"id": 3, "place": 3}]'})
    for _ in range(2):
        plain_project.run("seed", "run").ok()
    assert values(plain_project, "TABLE t ORDER BY id") == [(1, 1), (2, 2), (3, 3)]


@pytest.mark.parametrize("content", ['"a"\nx\ny\n', '[{"a": "x"}, {"a": "y"}]'])
def test_rows_whose_key_the_table_gives_are_not_there_twice(plain_project, content):
    plain_project.database.admin("CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a text)")
    write_seeds(plain_project.root, {"t.json" if content[0] == "[" else "t.csv": content})
    for _ in range(2):
        plain_project.run("seed", "run").ok()
    assert values(plain_project, "TABLE t") == [(1, "x"), (2, "y")]


def test_equal_rows_of_a_file_are_all_there_once(plain_project):
    plain_project.database.admin("CREATE TABLE t (a text)")
    plain_project.database.admin("CREATE TABLE u (a text)")
    rows = json.dumps([{"a": "x"}] * 1500)
    write_seeds(plain_project.root, {"t.csv": "a\n" + "x\n" * 1500, "u.json": rows})
    for _ in range(2):
        plain_project.run("seed", "run").ok()
    assert values(plain_project, "SELECT (SELECT count(*) FROM t) AS t, (SELECT count(*) FROM u) AS u") == [
        (1500, 1500)
    ]


def test_rows_that_refuse_one_another_are_told_and_not_dropped(plain_project):
    plain_project.database.admin("CREATE TABLE t (id int PRIMARY KEY, a text)")
    outcome = seeded(plain_project, {"t.json": '[{"id": 1, "a": "x"}, {"id": 1, "a": "y"}]'})
    assert outcome.code == 1
    assert "duplicate key" in outcome.err


@pytest.mark.parametrize("ahead", ["fill.sql", "s.csv"])
def test_rows_that_a_function_or_a_trigger_has_just_made_are_not_there_twice(plain_project, ahead):
    admin = plain_project.database.admin
    admin("CREATE TABLE s (id int)")
    admin("CREATE TABLE t (id int PRIMARY KEY)")
    admin(
        "CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO t VALUES (1); RETURN NEW; END'"
    )
    admin("CREATE TRIGGER fill BEFORE INSERT ON s FOR EACH ROW EXECUTE FUNCTION fill()")
    admin("CREATE FUNCTION call() RETURNS void LANGUAGE sql AS 'INSERT INTO t VALUES (1)'")
    seeded(plain_project, {ahead: "id\n5\n" if ahead == "s.csv" else "SELECT call();", "t.csv": "id\n1\n2\n"}).ok()
    assert values(plain_project, "TABLE t ORDER BY 1") == [(1,), (2,)]


def test_a_partition_is_its_table_and_its_rows_go_where_they_belong(plain_project):
    admin = plain_project.database.admin
    admin(
        "CREATE TABLE p (id int GENERATED ALWAYS AS IDENTITY, part int, PRIMARY KEY (id, part)) "
        "PARTITION BY LIST (part)"
    )
    admin("CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)")
    admin("CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2)")
    outcome = seeded(
        plain_project, {"p.csv": "id,part\n5,1\n6,2\n", "p2.json": '[{"id": 7, "part": 2}]'}, "--json"
    ).ok()
    assert values(plain_project, "SELECT tableoid::regclass::text, id FROM p ORDER BY 2") == [
        ("p1", 5),
        ("p2", 6),
        ("p2", 7),
    ]
    assert [list(seed["rows"]) for seed in outcome.json()["data"]["seeds"]] == [["public.p"], ["public.p"]]
    assert values(plain_project, "INSERT INTO p (part) VALUES (1) RETURNING id") == [(8,)]


def test_a_computed_column_and_an_unknown_table_are_refused_before_anything_runs(plain_project):
    plain_project.database.admin("CREATE TABLE t (a int, b int GENERATED ALWAYS AS (a + 1) STORED)")
    outcome = seeded(plain_project, {"a.sql": "INSERT INTO t VALUES (1);", "t.csv": "a,b\n1,2\n"})
    assert (outcome.code, "seeds/t.csv:1: t computes b itself" in outcome.err) == (1, True)
    outcome = seeded(plain_project, {"t.csv": "a\n1\n", "none.csv": "a\n1\n"})
    assert (outcome.code, "there is no table none" in outcome.err) == (1, True)
    assert values(plain_project, "TABLE t") == []
    assert schemas(plain_project) == []


def test_past_row_level_security_rows_go_in_by_insert(plain_project):
    admin = plain_project.database.admin
    admin("CREATE TABLE t (id int)")
    admin("ALTER TABLE t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    admin("CREATE POLICY everything ON t USING (true)")
    role = f"seeder_{plain_project.database.name}"
    admin(f"CREATE ROLE {role} LOGIN PASSWORD 'seeder'")
    try:
        admin(f"GRANT ALL ON DATABASE {plain_project.database.name} TO {role}")
        admin(f"ALTER TABLE t OWNER TO {role}")
        url = plain_project.database.settings["NSELF_DB_URL"]
        url = re.sub(r"//[^@]*@", f"//{role}:seeder@", url)
        write_seeds(plain_project.root, {"t.csv": "id\n1\n"})
        plain_project.run("seed", "run", "--url", url).ok()
        assert values(plain_project, "TABLE t") == [(1,)]
    finally:
        admin(f"DROP OWNED BY {role}")
        admin(f"DROP ROLE {role}")


# Values of every type, equal from CSV and JSON.

TYPES = {
    "b": "bytea",
    "j": "jsonb",
    "i": "bigint[]",
    "s": "text[]",
    "r": "int4range",
    "z": "timestamptz",
    "t": "text",
    "n": "numeric",
    "d": "date",
    "f": "boolean",
}
SOUND = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
HARD = st.lists(st.sampled_from(["\\.", "\n", '"', "\\", ",", "'", "$$", "\r", "ü", "NULL"]), max_size=6).map("".join)
ROW = st.fixed_dictionaries(
    {
        "b": st.binary(max_size=6).map(lambda value: f"\\x{value.hex()}"),
        "t": SOUND | HARD,
        "n": st.decimals(allow_nan=False, allow_infinity=False, places=5).map(str),
        "j": st.recursive(
            st.none() | st.integers(0, 9) | SOUND, lambda inner: st.lists(inner, max_size=2), max_leaves=4
        ),
        "s": st.lists(SOUND | HARD, max_size=3),
        "i": st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
        "z": st.datetimes().map(lambda value: f"{value:%Y-%m-%d %H:%M:%S}+05:30".rjust(25, "0")),
        "f": st.booleans(),
    }
).flatmap(lambda row: st.sets(st.sampled_from(sorted(row))).map(lambda empty: row | dict.fromkeys(empty)))


def quoted_array(items):
    escaped = (str(item).replace("\\", "\\\\").replace('"', '\\"') for item in items)
    return "{" + ",".join(f'"{item}"' for item in escaped) + "}"


def as_csv(row):
    made = {
        **row,
        "j": None if row["j"] is None else json.dumps(row["j"]),
        "s": None if row["s"] is None else quoted_array(row["s"]),
        "i": None if row["i"] is None else quoted_array(row["i"]),
    }
    fields = ["" if made[name] is None else '"' + str(made[name]).replace('"', '""') + '"' for name in sorted(row)]
    return ",".join(fields)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROW, min_size=1, max_size=12))
def test_csv_and_json_bring_the_same_values(both, rows):
    admin = both.database.admin
    columns = ", ".join(f"{name} {kind}" for name, kind in TYPES.items())
    admin("DROP TABLE IF EXISTS c")
    admin("DROP TABLE IF EXISTS k")
    admin(f"CREATE TABLE c (place int, {columns})")
    admin(f"CREATE TABLE k (place int, {columns})")
    head = ",".join(["place", *sorted(rows[0])])
    lines = "".join(f"{place},{as_csv(row)}\n" for place, row in enumerate(rows))
    document = json.dumps([{"place": place, **row} for place, row in enumerate(rows)], ensure_ascii=False)
    seeded(both, {"c.csv": f"{head}\n{lines}", "k.json": document}).ok()
    assert values(both, "SELECT place, t, s, n, b, j, z FROM c ORDER BY 1") == values(
        both, "SELECT place, t, s, n, b, j, z FROM k ORDER BY 1"
    )
    assert [row[1:] for row in values(both, "SELECT place, t, s, i FROM k ORDER BY 1")] == [
        (row["t"], row["s"], row["i"]) for row in rows
    ]


# The row of a JSON seed that is refused.


def refused_line(project, files, verb="run"):
    outcome = seeded(project, files, "--json") if verb == "run" else project.run("seed", verb, "--json")
    assert outcome.code == 1
    return outcome.json()["error"]["line"] if verb == "run" else outcome.json()["data"]["findings"][0]["line"]


@pytest.mark.versions
def test_a_refused_row_of_json_is_told_at_its_own_line_and_nothing_is_kept(project):
    project.database.admin("CREATE TABLE t (id int PRIMARY KEY, n int CHECK (n < 100000), word text)")
    rows = [{"id": number, "n": number, "word": "two\nlines"} for number in range(2400)]
    rows[1717]["n"] = 100000
    document = ",\n\n".join(json.dumps(row) for row in rows)
    assert refused_line(project, {"t.json": f"[\n{document}]"}) == 2 + 2 * 1717
    assert values(project, "SELECT count(*) FROM t") == [(0,)]
    assert records(project) == []


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        (['{"id": 1}', '{"id": "x"}', '{"id": 3}'], 2),
        (['{"id": 1}', '{"id": 99999999999}'], 2),
        (['{"id": 1}', '{"id": 2, "part": 1}', '{"id": 3, "part": 7}', '{"id": 4, "part": 1}'], 3),
        (['{"id": 1}', '{"id": 5}', '{"id": 1}'], 3),
        (['{"id": 1}', '{"id": null}'], 2),
        (['{"id": 1, "body": {"a": 1}}', '{"id": 2, "body": "x\\u0000"}'], 2),
    ],
)
def test_whatever_a_row_is_refused_for_it_is_its_line(both, rows, line):
    both.database.admin("CREATE TABLE parts (id int PRIMARY KEY)")
    both.database.admin("INSERT INTO parts VALUES (1)")
    both.database.admin("CREATE TABLE t (id int PRIMARY KEY, part int REFERENCES parts, body text)")
    document = "[" + ",\n".join(rows) + "]"
    assert refused_line(both, {"t.json": document}) == line
    if '"id": 1}' not in rows[-1]:
        assert refused_line(both, {}, "verify") == line
    assert values(both, "SELECT count(*) FROM t") == [(0,)]


def test_what_only_the_batch_as_a_whole_is_refused_for_has_no_line_rather_than_a_wrong_one(plain_project):
    plain_project.database.admin("CREATE TABLE t (id int)")
    plain_project.database.admin(
        "CREATE FUNCTION few() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN "
        "IF (SELECT count(*) FROM new_rows) > 1 THEN RAISE 'too many'; END IF; RETURN NULL; END$$"
    )
    plain_project.database.admin(
        "CREATE TRIGGER few AFTER INSERT ON t REFERENCING NEW TABLE AS new_rows "
        "FOR EACH STATEMENT EXECUTE FUNCTION few()"
    )
    write_seeds(plain_project.root, {"t.json": '[{"id": 1},\n{"id": 2}]'})
    error = plain_project.run("seed", "run", "--json").json()["error"]
    assert ("too many" in error["message"], error["file"], error.get("line")) == (True, "seeds/t.json", None)
