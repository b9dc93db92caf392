"""`fixtures list`, `run` and `verify` on real servers: what is loaded, what is left, what is said of a failure."""

from __future__ import annotations

import json
import shutil
import time

import pytest
from bed.projects import REPOSITORY
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SCHEMA = """
CREATE TABLE np_people (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE,
                        boss_id int REFERENCES np_people, born date);
CREATE TABLE np_pets (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), owner_id int NOT NULL REFERENCES np_people,
                      name text NOT NULL, tags text[] NOT NULL DEFAULT '{}', kind text NOT NULL DEFAULT 'cat');
"""
PEOPLE = """
np_pets:
  tom: {owner_id: {ref: np_people.ann}, name: Tom}
np_people:
  bob: {name: Bob, boss_id: {ref: np_people.ann}, born: 1990-05-01}
  ann: {name: Ann}
"""


def with_schema(project):
    project.database.admin(SCHEMA)
    project.write("fixtures/people.yaml", PEOPLE)
    return project


@pytest.fixture
def ready(plain_project):
    return with_schema(plain_project)


def count(project, table="np_people"):
    return project.database.admin(f"SELECT count(*) FROM {table}")[0]["count"]


def run(project, *names, options=()):
    return project.run("fixtures", "run", *(word for name in names for word in ("--fixture", name)), *options)


# run


@pytest.mark.versions
def test_a_set_is_loaded_counted_and_rolled_back(project):
    with_schema(project)
    outcome = run(project, "people", options=["--json"]).ok()
    assert outcome.json()["data"] == {
        "fixtures": ["people"],
        "rows": [
            {"schema": "public", "table": "np_people", "rows": 2},
            {"schema": "public", "table": "np_pets", "rows": 1},
        ],
        "kept": False,
    }
    assert "people: 3 rows loaded, then rolled back" in outcome.err
    assert count(project) == count(project, "np_pets") == 0


def test_commit_keeps_the_rows_with_their_references(project):
    with_schema(project)
    run(project, "people", options=["--commit"]).ok()
    found = project.database.admin(
        "SELECT p.name, b.name AS boss, p.born::text, t.name AS pet FROM np_people p LEFT JOIN np_people b "
        "ON b.id = p.boss_id LEFT JOIN np_pets t ON t.owner_id = p.id ORDER BY p.name"
    )
    assert [tuple(row.values()) for row in found] == [("Ann", None, None, "Tom"), ("Bob", "Ann", "1990-05-01", None)]


def test_several_sets_share_one_transaction_and_what_follows_an_sql_file_is_as_it_was(ready):
    ready.database.admin("CREATE ROLE fx_reader; GRANT USAGE ON SCHEMA public TO fx_reader; CREATE SCHEMA other;")
    ready.write("fixtures/sql.sql", "BEGIN;\nSET search_path = other;\nSET ROLE fx_reader;\nSELECT 1;\nCOMMIT;\n")
    ready.write(
        "fixtures/copy.sql", "COPY np_people (name) FROM stdin;\nCid\nDan\n\\.\nUPDATE np_people SET born = now();\n"
    )
    try:
        outcome = run(ready, "sql", "people", "copy", options=["--json"]).ok()
    finally:
        ready.database.admin("REVOKE USAGE ON SCHEMA public FROM fx_reader; DROP ROLE fx_reader")
    assert [row["rows"] for row in outcome.json()["data"]["rows"]] == [4, 1]
    assert count(ready) == 0


def test_dry_run_shows_the_sql_that_runs(ready):
    shown = run(ready, "people", options=["--dry-run"]).ok().out
    assert """INSERT INTO "public"."np_people" ("name") VALUES\n  ('Ann')""" in shown
    assert shown.index("'Ann'") < shown.index("'Bob'") and "ROLLBACK;" in shown
    assert "COMMIT;" in run(ready, "people", options=["--dry-run", "--commit"]).ok().out


def test_a_trigger_s_rows_are_counted_and_partitions_as_their_parent(ready):
    ready.database.admin(
        "CREATE TABLE np_log (at date NOT NULL, what text) PARTITION BY RANGE (at);"
        "CREATE TABLE np_log_1 PARTITION OF np_log FOR VALUES FROM ('2000-01-01') TO ('2010-01-01');"
        "CREATE TABLE np_log_2 PARTITION OF np_log DEFAULT;"
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN INSERT INTO np_log VALUES (''2001-01-01'', NEW.name), (''2011-01-01'', NEW.name); RETURN NEW; END';"
        "CREATE TRIGGER t AFTER INSERT ON np_people FOR EACH ROW EXECUTE FUNCTION f()"
    )
    rows = run(ready, "people", options=["--json"]).ok().json()["data"]["rows"]
    assert {row["table"]: row["rows"] for row in rows} == {"np_log": 4, "np_people": 2, "np_pets": 1}


def test_sequences_go_past_written_numbers_where_the_rows_are_kept(ready):
    ready.write("fixtures/numbered.json", '{"np_people": [{"id": 40, "name": "Eve"}, {"id": 41, "name": "Fay"}]}')
    run(ready, "numbered", options=["--commit"]).ok()
    assert ready.database.admin("INSERT INTO np_people (name) VALUES ('Gil') RETURNING id") == [{"id": 42}]


def test_commit_is_refused_in_prod_and_rolling_back_is_not(ready):
    ready.write_env(ready.database.settings, ".environments/prod/.env")
    outcome = run(ready, "people", options=["--commit", "--env", "prod"])
    assert outcome.code == 4
    assert count(ready) == 0
    run(ready, "people", options=["--env", "prod"]).ok()


def test_another_set_s_name_is_near(ready):
    outcome = run(ready, "peple")
    assert (outcome.code, outcome.err) == (1, "error: there is no fixture set peple\nhint: did you mean people?\n")


NASTY = """we"ird 'ä' $$ %s \\ tab"""


def test_names_that_want_quoting_everywhere(plain_project):
    name = NASTY[:18]
    quoted = '"' + name.replace('"', '""') + '"'
    key, long = f"{quoted}.{quoted}", "ü" * 31
    plain_project.database.admin(
        f"CREATE SCHEMA {quoted}; CREATE TABLE {key} ({quoted} int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "
        f'"{long}" int REFERENCES {key}, "Up" text)'
    )
    rows: dict = {"a.b": {long: {"ref": f'{key}."c d"'}, "Up": name}, "c d": {"Up": "$nself$ :x :'y' \\gexec"}}
    plain_project.write("fixtures/n.json", json.dumps({key: rows}))
    run(plain_project, "n", options=["--commit"]).ok()
    found = plain_project.database.admin(f"SELECT *, {quoted} AS id FROM {key} ORDER BY {quoted}")
    assert [row["Up"] for row in found] == [rows["c d"]["Up"], name]
    assert found[1][long] == found[0]["id"]


# failures


FAILURES = {
    "a type": (
        "people.yaml", "np_people:\n  a: {name: A}\n  b: {name: B, born: soon}\n", "people.yaml:3:22", "type date",
    ),
    "unique": (
        "people.yaml", "np_people:\n  - {name: A}\n  - {name: B}\n  - {name: B}\n", "people.yaml:4", "duplicate key",
    ),
    "not null": ("people.json", '{"np_people": [\n{"name": "A"},\n{"name": null}]}', "people.json:3", "null value"),
    "foreign key": ("people.yaml", "np_pets:\n  - {owner_id: 9, name: T}\n", "people.yaml:2", "foreign key"),
    "expression": ("people.yaml", "np_people:\n  - name: {sql: nope()}\n", "people.yaml:2:11", "nope()"),
    "array": (
        "people.yaml",
        "np_people: {a: {name: A}}\nnp_pets:\n  - {owner_id: {ref: np_people.a}, name: T, tags: x}\n",
        "people.yaml:3:51",
        "malformed array",
    ),
    "sql": (
        "people.sql",
        "SELECT 1;\nINSERT INTO np_people (name)\n  VALUES (1, 2);\n",
        "people.sql:3:14",
        "more expressions",
    ),
    "column": ("people.yaml", "np_people:\n  a: {name: A, nam: B}\n", "people.yaml:2:21", "no column nam"),
    "control": ("people.sql", "SELECT 1;\nCOMMIT;\n", "people.sql:2:1", "COMMIT"),
    "yaml": ("people.yaml", "np_people:\n  a: {name: A\n", "people.yaml:3:1", "YAML"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAILURES)
@pytest.mark.parametrize("plain_server", ["psql", "psycopg"], indirect=True)
def test_a_failure_says_where_and_leaves_nothing(plain_project, case):
    file, text, place, said = FAILURES[case]
    plain_project.database.admin(SCHEMA)
    plain_project.write(f"fixtures/{file}", text)
    for words in (["run", "--fixture", "people"], ["run", "--fixture", "people", "--commit"]):
        outcome = plain_project.run("fixtures", *words)
        assert outcome.code == 1
        assert f"error: fixtures/{place}: " in outcome.err and said in outcome.err
    assert count(plain_project) == 0
    outcome = plain_project.run("fixtures", "verify", "--json")
    assert outcome.code == 1
    (found,) = outcome.json()["data"]["fixtures"]
    shown = [str(found["error"][name]) for name in ("file", "line", "column") if found["error"][name]]
    assert ":".join(shown) == f"fixtures/{place}"
    assert said in found["error"]["message"]


def test_a_check_that_waits_for_the_end_names_the_table_s_first_row(ready):
    ready.database.admin("ALTER TABLE np_pets ALTER CONSTRAINT np_pets_owner_id_fkey DEFERRABLE INITIALLY DEFERRED")
    ready.write("fixtures/late.yaml", "np_people: {a: {name: A}}\nnp_pets:\n  - {owner_id: 9, name: T}\n")
    outcome = run(ready, "late", options=["--commit"])
    assert outcome.code == 1
    assert outcome.err.startswith("error: fixtures/late.yaml:3: ") and "(checked at the end)" in outcome.err
    assert count(ready) == 0


def test_the_wrong_row_among_thousands_is_found(ready):
    rows = [f'{{"name": "n{number}"}}' for number in range(3000)]
    rows[2500] = '{"name": "n7"}'
    ready.write("fixtures/many.json", '{"np_people": [\n' + ",\n".join(rows) + "]}")
    outcome = run(ready, "many")
    assert outcome.err.startswith("error: fixtures/many.json:2502: duplicate key")


# list and verify


def test_list_shows_files_tables_and_what_is_needed(ready):
    ready.write("fixtures/pets/1.yaml", "np_pets: [{owner_id: 1, name: T}]")
    ready.write(
        "fixtures/pets/2.sql", "INSERT INTO np_pets (owner_id, name) VALUES (1, 'U'); INSERT INTO gone VALUES (1);"
    )
    ready.write("fixtures/wrong.yaml", "x: [")
    outcome = ready.run("fixtures", "list", "--json").ok()
    assert outcome.json()["data"]["fixtures"] == [
        {"name": "people", "files": ["fixtures/people.yaml"], "tables": ["np_pets", "np_people"], "needs": []},
        {"name": "pets", "files": ["fixtures/pets/1.yaml", "fixtures/pets/2.sql"], "tables": ["np_pets", "gone"],
         "needs": ["np_people"]},
        {"name": "wrong", "files": ["fixtures/wrong.yaml"], "tables": [], "needs": []},
    ]  # fmt: skip
    assert outcome.json()["warnings"][0].startswith("fixtures/wrong.yaml:")
    assert "pets     fixtures/pets/1.yaml, fixtures/pets/2.sql" in ready.run("fixtures", "list").ok().out


def test_no_sets_at_all(plain_project):
    assert "no fixture sets" in plain_project.run("fixtures", "list").ok().out
    assert plain_project.run("fixtures", "verify", "--json").ok().json()["data"] == {"fixtures": []}


def test_another_folder_by_a_setting(ready):
    ready.write("t/data/one.sql", "SELECT 1")
    assert "t/data/one.sql" in ready.run("fixtures", "list", env={"FIXTURES_DIR": "t/data"}).ok().out


def test_verify_reports_all_sets_and_one_failure_is_exit_1(project):
    with_schema(project)
    project.write("fixtures/bad.sql", "INSERT INTO np_people (name) VALUES ('x');\nINSERT INTO nowhere VALUES (1);\n")
    project.write("fixtures/worse.json", "{")
    outcome = project.run("fixtures", "verify", "--json")
    assert outcome.code == 1
    found = {each["name"]: each for each in outcome.json()["data"]["fixtures"]}
    assert {name: each["ok"] for name, each in found.items()} == {"bad": False, "people": True, "worse": False}
    assert (found["bad"]["error"]["file"], found["bad"]["error"]["line"]) == ("fixtures/bad.sql", 2)
    assert 'relation "nowhere" does not exist' in found["bad"]["error"]["message"]
    assert count(project) == 0
    text = project.run("fixtures", "verify")
    assert "failed  bad: fixtures/bad.sql:2:13: " in text.out and text.out.endswith(
        "1 of 3 fixture sets can be loaded\n"
    )
    project.run("fixtures", "verify", "--fixture", "people").ok()


def test_the_sample_project_s_sets_can_be_loaded(plain_project):
    for name in ("migrations", "fixtures"):
        shutil.copytree(REPOSITORY / name, plain_project.root / name, dirs_exist_ok=True)
    plain_project.run("migrate", "up").ok()
    plain_project.run("fixtures", "verify").ok()
    outcome = run(plain_project, "basic-users", "inbox", "orders", options=["--json"]).ok()
    counts = {row["table"]: row["rows"] for row in outcome.json()["data"]["rows"]}
    assert (counts["np_accounts"], counts["np_order_items"], counts["np_notifications"]) == (7, 3, 3)


def test_many_rows_take_little_time(ready):
    rows = [f'{{"name": "n{number}", "boss_id": null}}' for number in range(50_000)]
    ready.write("fixtures/many.json", '{"np_people": [' + ",".join(rows) + "]}")
    begun = time.monotonic()
    run(ready, "many").ok()
    assert time.monotonic() - begun < 30


def test_yaml_without_pyyaml_is_exit_2(ready):
    ready.write("none/yaml.py", "raise ImportError('no yaml here')")
    path = {"PYTHONPATH": f"{ready.root / 'none'}:{REPOSITORY}"}
    outcome = ready.run("fixtures", "run", "--fixture", "people", env=path)
    assert outcome.code == 2
    assert "pip install pyyaml" in outcome.err
    assert ready.run("fixtures", "verify", env=path).code == 2


# circles of foreign keys, at random


@st.composite
def circles(draw):
    """Tables whose keys lead anywhere, with keys that may be NULL or deferred, and rows that refer to one another."""
    count = draw(st.integers(1, 4))
    kinds = [draw(st.sampled_from(["identity", "uuid", "written"])) for _ in range(count)]
    keys = []
    for source in range(count):
        for number in range(draw(st.integers(0, 2))):
            target = draw(st.integers(0, count - 1))
            way = draw(st.sampled_from(["nullable", "deferrable", "both"] + (["rigid"] if target < source else [])))
            keys.append((source, f"k{number}", target, way))
    rows = [[f"r{number}" for number in range(draw(st.integers(1, 3)))] for _ in range(count)]
    choices = {
        (source, name, label): draw(st.sampled_from(rows[target])) if way in ("rigid", "deferrable")
        else draw(st.sampled_from([None, *rows[target]]))
        for source, name, target, way in keys for label in rows[source]
    }  # fmt: skip
    return kinds, keys, rows, choices


TYPES = {
    "identity": "int GENERATED ALWAYS AS IDENTITY",
    "uuid": "uuid DEFAULT gen_random_uuid()",
    "written": "int",
}


def schema_of(kinds, keys):
    texts = [f"CREATE TABLE c.t{n} (id {TYPES[kind]} PRIMARY KEY, label text)" for n, kind in enumerate(kinds)]
    for source, name, target, way in keys:
        kind = "uuid" if kinds[target] == "uuid" else "int"
        null = "" if way in ("nullable", "both") else " NOT NULL"
        later = " DEFERRABLE" if way in ("deferrable", "both") else ""
        texts.append(f"ALTER TABLE c.t{source} ADD {name} {kind}{null} REFERENCES c.t{target}{later}")
    return ";".join(["DROP SCHEMA IF EXISTS c CASCADE", "CREATE SCHEMA c", *texts])


def document_of(kinds, keys, rows, choices):
    document = {}
    for source, labels in enumerate(rows):
        table: dict = document.setdefault(f"c.t{source}", {})
        for number, label in enumerate(labels):
            table[label] = {"label": label, **({"id": number + 1} if kinds[source] == "written" else {})}
            for at, name, target, _ in keys:
                chosen = choices.get((source, name, label))
                if at == source and chosen is not None:
                    table[label][name] = {"ref": f"c.t{target}.{chosen}"}
    return document


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(made=circles())
def test_circles_of_foreign_keys_are_loaded_as_they_are_written(plain_project, made):
    kinds, keys, rows, choices = made
    plain_project.database.admin(schema_of(kinds, keys))
    plain_project.write("fixtures/c.json", json.dumps(document_of(*made)))
    run(plain_project, "c", options=["--commit"]).ok()
    for source, name, target, _ in keys:
        found = plain_project.database.admin(
            f"SELECT s.label, t.label AS target FROM c.t{source} s LEFT JOIN c.t{target} t ON t.id = s.{name}"
        )
        assert {row["label"]: row["target"] for row in found} == {
            label: choices[source, name, label] for label in rows[source]
        }
