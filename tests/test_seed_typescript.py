"""Seeds that are programs: what they yield becomes rows, what they throw is told at its line, and they see little."""

from __future__ import annotations

import json
import os
import stat
import subprocess

import pytest
from bed.bookkeeping import values
from bed.gaps import not_run
from bed.seeds import NASTY, PROGRAMS, path_of_node, write_seeds
from hypothesis import given
from hypothesis import strategies as st

from nself_core.failures import FileFailure
from nself_core.seeds import typescript
from nself_core.seeds.typescript import render
from nself_core.sql.quoting import identifier

HEAD = "export default function* (sql: any, env: string) {\n"


@pytest.fixture
def noted(plain_project):
    """A project with a table `t` of one text."""
    plain_project.database.admin("CREATE TABLE t (a text)")
    return plain_project


def seeded(project, body, *options, name="a.ts", head=HEAD, env=None):
    """The Outcome of `seed run` with one program whose function has `body`, on the tests' own node."""
    write_seeds(project.root, {name: f"{head}{body}\n}}\n"})
    return project.run("seed", "run", *options, env={"PATH": path_of_node(), **(env or {})})


def texts(project):
    return [text for (text,) in values(project, "SELECT a FROM t ORDER BY ctid")]


# The runtimes, each the real one.


@pytest.fixture(scope="module")
def tsx(tmp_path_factory):
    """The path of tsx, installed by the tests' own npm."""
    folder = tmp_path_factory.mktemp("tsx")
    env = {**os.environ, "PATH": path_of_node(), "npm_config_cache": str(folder / "cache")}
    try:
        command = [str(PROGRAMS / "npm"), "install", "--no-audit", "--no-fund", "tsx"]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        return not_run("seeds in tsx", f"npm cannot install it: {error}")
    path = folder / "node_modules/.bin/tsx"
    if not path.exists():
        not_run("seeds in tsx", f"npm cannot install it: {done.stderr.strip()[-200:]}")
    return path


@pytest.fixture(params=["node", "deno", "tsx"])
def runtime(request):
    """SEED_RUNTIME's value for each runtime."""
    if request.param == "tsx":
        return f"{request.getfixturevalue('tsx')}"
    path_of_node()
    if not (PROGRAMS / request.param).exists():
        not_run(f"seeds in {request.param}", "it is not beside the tests' Python")
    return str(PROGRAMS / request.param)


VALUES = """
  const rows: [string, unknown][] = [
    ["text", "it's \\n \\\\ \\"ü😀\\" $$ ${1} :x"], ["text", null], ["text", ""], ["boolean", true],
    ["bigint", 9223372036854775807n], ["numeric", 12345678901234567890123456789n], ["float8", 0.1], ["float8", -1e300],
    ["float8", NaN], ["float8", -Infinity], ["integer", -5],
    ["bytea", new Uint8Array([0, 92, 255])], ["bytea", Buffer.from("'")],
    ["timestamptz", new Date(Date.UTC(2024, 1, 29, 12, 0, 0, 5))], ["timestamptz", "2024-02-29 12:00:00+05:30"],
    ["jsonb", { a: [1, null, "\\"'\\\\"], b: { c: "ü" } }], ["jsonb", [{ a: 1 }, 2]], ["jsonb", sql.json([1, "x"])],
    ["jsonb", sql.json(null)], ["integer[]", [1, -2, null]], ["text[]", ["a", "", "NULL", null, "{\\"\\\\,}"]],
    ["integer[]", []], ["integer[]", [[1, 2], [3, 4]]], ["bytea[]", [new Uint8Array([1, 92])]],
    ["jsonb[]", [sql.json({ a: 1 })]],
    ["int4range", "[1,5)"], ["text", new URL("http://x/y")],
  ];
"""
WANTED = [
    "it's \n \\ \"ü😀\" $$ ${1} :x", None, "", "true", "9223372036854775807", "12345678901234567890123456789",
    "0.1", "-1e+300", "NaN", "-Infinity", "-5", "\\x005cff", "\\x27",
    "2024-02-29 12:00:00.005+00", "2024-02-29 06:30:00+00",
    '{"a": [1, null, "\\"\'\\\\"], "b": {"c": "ü"}}', '[{"a": 1}, 2]', '[1, "x"]', "null", "{1,-2,NULL}",
    '{a,"","NULL",NULL,"{\\"\\\\,}"}', "{}", "{{1,2},{3,4}}", '{"\\\\x015c"}', '{"{\\"a\\": 1}"}', "[1,5)", "http://x/y",
]  # fmt: skip


def test_values_of_every_type_come_through_in_every_runtime(noted, runtime):
    noted.database.admin(f"ALTER DATABASE {noted.database.name} SET timezone = 'UTC'")
    head = f'import {{ Buffer }} from "node:buffer";\n{HEAD}'
    body = VALUES.replace("${1}", "\\${1}")
    body += "  const types: any = {};\n"
    kinds = ("text", "boolean", "bigint", "numeric", "float8", "integer", "bytea", "timestamptz", "jsonb", "int4range")
    for kind in (*kinds, "integer[]", "text[]", "bytea[]", "jsonb[]"):
        body += f'  types["{kind}"] = sql`{kind}`;\n'
    body += (
        "  for (const [type, value] of rows) yield sql`INSERT INTO t SELECT CAST(${value} AS ${types[type]})::text`;"
    )
    seeded(noted, body, head=head, env={"SEED_RUNTIME": runtime}).ok()
    assert texts(noted) == WANTED


@pytest.mark.parametrize(
    ("body", "message", "line"),
    [
        ("  yield sql`SELECT 1`;\n\n  throw new RangeError('too\\nmuch');", "RangeError: too\nmuch", 4),
        ("  const x: any = null;\n  yield sql`SELECT ${x.y}`;", "TypeError: Cannot read properties of null", 3),
        ("  yield sql`SELECT 1`;\n  yield sql`SELECT ${undefined}`;", "a value is undefined; for NULL give null", 3),
        ("  Promise.reject(new Error('unheard'));\n  yield sql`SELECT 1`;", "Error: unheard", 2),
    ],
)
def test_what_a_seed_throws_is_told_at_its_own_line(noted, runtime, body, message, line):
    outcome = seeded(noted, body, "--json", env={"SEED_RUNTIME": runtime}, name="sp ace%ü.ts")
    error = outcome.json()["error"]
    assert (outcome.code, error["code"], error["file"], error["line"]) == (1, "bad_file", "seeds/sp ace%ü.ts", line)
    assert message in error["message"]


def test_a_refused_statement_is_told_at_its_line_in_the_template(noted, runtime):
    body = '  const n = 1;\n  yield sql`\n    INSERT INTO t\n    VALUES (${"x"}, ${"y"})`;'
    error = seeded(noted, body, "--json", env={"SEED_RUNTIME": runtime}).json()["error"]
    assert error["code"] == "seed_failed"
    assert (error["file"], error["line"]) == ("seeds/a.ts", 5)


def test_a_seed_sees_no_credentials(noted, runtime):
    project = noted
    project.write_env(
        {**project.database.settings, "POSTGRES_PASSWORD": "s3cret-one", "HASURA_GRAPHQL_ADMIN_SECRET": "s3cret-two"}
    )
    env = {
        "SEED_RUNTIME": runtime,
        "PGPASSWORD": "s3cret-three",
        "AWS_SECRET_ACCESS_KEY": "s3cret-four",
        "NODE_OPTIONS": "",
    }
    head = f'import process from "node:process";\n{HEAD}'
    seeded(
        project,
        "  yield sql`INSERT INTO t VALUES (${JSON.stringify([process.env, process.argv])})`;",
        head=head,
        env=env,
    ).ok()
    (told,) = texts(project)
    assert "s3cret" not in told
    assert project.database.settings["NSELF_DB_URL"] not in told
    assert {*json.loads(told)[0]} <= {*typescript.KEPT, *typescript.PLAIN, "PWD", "SHLVL", "_", "NODE_OPTIONS"}


# What a seed may be and do.


@pytest.mark.parametrize(
    "text",
    [
        "export default function (sql) { return [sql`INSERT INTO t VALUES ('1')`, sql`INSERT INTO t VALUES ('2')`]; }",
        "export default async (sql) => [sql`INSERT INTO t VALUES ('1'); INSERT INTO t VALUES ('2');`];",
        "export default (sql) => sql`INSERT INTO t VALUES ('1'), ('2')`;",
        "export default async function* (sql) { for (const n of '12') yield await sql`INSERT INTO t VALUES (${n})`; }",
        "export default function* (sql) { for (const n of '12') yield sql`INSERT INTO t ${sql`VALUES (${n})`}`; }",
        "export default (sql) => new Set([1, 2].map((n) => sql`INSERT INTO t VALUES (${n})`));",
        "setInterval(() => {}, 1000); export default (sql) => sql`INSERT INTO t VALUES ('1'), ('2')`;",
    ],
)
def test_a_seed_is_a_function_a_promise_a_generator_or_a_list(noted, text):
    write_seeds(noted.root, {"a.mjs": text})
    noted.run("seed", "run", env={"PATH": path_of_node()}, timeout=30).ok()
    assert texts(noted) == ["1", "2"]


@pytest.mark.parametrize(
    "text", ["export default () => {};", "export default function* () {}", "export default () => null;"]
)
def test_a_seed_may_yield_nothing(noted, text):
    write_seeds(noted.root, {"a.js": text})
    noted.run("seed", "run", env={"PATH": path_of_node()}).ok()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("  yield 'INSERT INTO t VALUES (1)';", "a seed yields sql`...` and nothing else"),
        ("  yield undefined;", "a seed yields sql`...` and nothing else"),
        ("  yield sql.id('t');", "a seed yields sql`...` and nothing else"),
        ("  yield sql('SELECT 1');", "sql is a tag"),
        ("  yield sql`SELECT ${() => 1}`;", "a function is no value for SQL"),
        ("  yield sql`SELECT ${Symbol('x')}`;", "a symbol is no value for SQL"),
        ("  yield sql`SELECT ${Promise.resolve(1)}`;", "a Promise is no value for SQL"),
        ("  yield sql`SELECT ${new Map([[1, 2]])}`;", "a Map is no value for SQL"),
        ("  yield sql`SELECT ${{ a: new Set([1]) }}`;", "a Set is no value for SQL"),
        ("  yield sql`SELECT ${[1, , 2]}`;", "a value is undefined"),
        ("  yield sql`SELECT ${[sql`now()`]}`;", "in a list of values there can be no SQL"),
        ("  yield sql`SELECT ${[sql.id('a')]}`;", "in a list of values there can be no SQL"),
        ("  yield sql`SELECT ${{ a: 1n }}`;", "BigInt"),
        ("  yield sql`SELECT ${new Date('x')}`;", "Invalid time value"),
        ("  yield sql`SELECT ${sql.id()}`;", "sql.id takes names"),
        ("  yield sql`SELECT ${sql.id('a', undefined)}`;", "sql.id takes names"),
        ("  yield sql`SELECT ${sql.id('')}`;", "a name in SQL cannot be empty"),
        ("  yield sql`SELECT ${'a\\0b'}`;", "a NUL character cannot stand in a text"),
        ("  yield sql`SELECT ${'\\ud800'}`;", "cannot stand in a text"),
        ("  yield sql`SELECT '\\x'`;", "an escape in this template means nothing"),
        ("  yield sql`SELECT '${'x'}'`;", "a value stands inside quotes"),
        ("  yield sql`DO $$ BEGIN PERFORM ${1}; END $$`;", "a value stands inside quotes"),
        ("  yield sql`SELECT 1 -- ${1}\n`;", "a value stands inside quotes, in a comment"),
        ("  yield sql`SELECT a${'x'}`;", "right behind a name"),
        ("  yield sql`SELECT 'x`;", "quote"),
        ("  yield sql`COPY t FROM STDIN`;", "the data of COPY .. FROM STDIN have no end"),
        ("  yield sql`COMMIT`;", "COMMIT would end"),
        ("  yield sql`VACUUM t`;", "VACUUM cannot run in a transaction"),
        ("  return 5;", "returns neither a generator nor a list"),
        ("  throw 'only text';", "only text"),
        ("  process.exit(0);", "the program ended with 0 before its last statement"),
        ("  process.kill(process.pid, 'SIGKILL');", "before its last statement"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_nothing_run(noted, body, message):
    head = "export default function (sql: any) {\n" if "return" in body else HEAD
    outcome = seeded(noted, f"  // a line\n{body}", head=head)
    assert outcome.code == 1
    assert message in outcome.err
    assert outcome.err.startswith("error: seeds/a.ts:")
    assert "Traceback" not in outcome.err
    assert texts(noted) == []


def test_a_value_never_becomes_sql(noted):
    hostile = "'); DELETE FROM t; --"
    body = f"  for (const x of [{json.dumps(hostile)}, '\\\\']) yield sql`INSERT INTO t VALUES (${{x}})`;"
    seeded(noted, body).ok()
    assert texts(noted) == [hostile, "\\"]


def test_a_name_of_any_kind_is_a_name(noted):
    noted.database.admin(f"CREATE TABLE {identifier(NASTY)} (a int)")
    seeded(noted, f"  yield sql`INSERT INTO ${{sql.id('public', {json.dumps(NASTY)})}} VALUES (1)`;").ok()
    assert values(noted, f"TABLE {identifier(NASTY)}") == [(1,)]


def test_what_a_seed_prints_is_told_and_no_statement_is_lost(noted):
    body = (
        "  process.stdout.write('half');\n  yield sql`INSERT INTO t VALUES ('1')`;\n  console.log('a\\nb');\n"
        "  fs.writeSync(1, 'half');\n  yield sql`INSERT INTO t VALUES ('2')`;\n  console.table([1]);"
        "  process.exitCode = 3;"
    )
    outcome = seeded(noted, body, head=f'import fs from "node:fs";\n{HEAD}').ok()
    assert texts(noted) == ["1", "2"]
    assert "seeds/a.ts: b" in outcome.err
    assert outcome.err.count("half") == 2


def test_a_seed_with_a_syntax_error_is_told_at_its_line(noted):
    outcome = seeded(noted, "  let x = = 3;", "--json")
    assert (outcome.code, outcome.json()["error"]["line"]) == (1, 2)


def test_a_missing_import_is_told(noted):
    assert "nothing.ts" in seeded(noted, "", head=f"import x from './nothing.ts';\n{HEAD}").err


def test_the_environment_is_given_and_what_a_seed_imports_is_beside_it(noted):
    write_seeds(noted.root, {"dev/_lib.ts": "export const name: string = 'lib';\n"})
    head = f"import {{ name }} from './_lib.ts';\n{HEAD}"
    seeded(noted, "  yield sql`INSERT INTO t VALUES (${env + name})`;", name="dev/a.ts", head=head).ok()
    assert texts(noted) == ["devlib"]


def test_ten_thousand_statements(noted):
    seeded(noted, "  for (let n = 0; n < 10000; n += 1) yield sql`INSERT INTO t VALUES (${n})`;").ok()
    assert values(noted, "SELECT count(*), sum(a::int) FROM t") == [(10000, 49995000)]


def test_dry_run_and_verify_run_the_program_and_change_nothing(noted):
    outcome = seeded(noted, "  yield sql`INSERT INTO t VALUES (${'x'})`;", "--dry-run").ok()
    assert "INSERT INTO t VALUES ('x');" in outcome.out
    outcome = noted.run("seed", "verify", env={"PATH": path_of_node()})
    assert (outcome.code, "missing rows" in outcome.out) == (1, True)
    assert texts(noted) == []


def test_where_it_cannot_write_its_script_it_says_so(noted):
    outcome = seeded(noted, "", env={"TMPDIR": "/nonexistent"})
    assert outcome.code == 2
    assert "/nonexistent cannot be written" in outcome.err


# Which runtime.


def fake(folder, name, version, more=""):
    """A program `name` in `folder` that says a version."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo {version} && exit 0\n{more}\nexit 9\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def only(folder, *links):
    """A PATH of `folder`, with links to some real programs, that has neither node nor any other runtime."""
    folder.mkdir(exist_ok=True)
    for link in (*links, "/usr/bin/psql", "/bin/sh"):
        (folder / os.path.basename(link)).symlink_to(link)
    return str(folder)


def test_without_any_runtime_it_is_exit_2_and_says_what_to_install(noted, tmp_path):
    outcome = seeded(noted, "", env={"PATH": only(tmp_path / "bin")})
    assert outcome.code == 2
    assert "node is not installed, deno is not installed, bun is not installed, tsx is not installed" in outcome.err
    assert "install Node.js 22.18 or later" in outcome.err


def test_a_node_that_is_too_old_is_passed_over_for_deno(noted, tmp_path):
    fake(tmp_path / "bin", "node", "v20.1.0")
    if not (PROGRAMS / "deno").exists():
        not_run("seeds in deno", "it is not beside the tests' Python")
    path = only(tmp_path / "bin", PROGRAMS / "deno")
    seeded(noted, "  yield sql`INSERT INTO t VALUES ('deno')`;", env={"PATH": path}).ok()
    assert texts(noted) == ["deno"]
    (tmp_path / "bin" / "deno").unlink()
    outcome = noted.run("seed", "run", env={"PATH": path})
    assert (outcome.code, "node v20.1.0 does not take types off" in outcome.err) == (2, True)


@pytest.mark.parametrize(
    ("version", "types", "options"),
    [
        ("v20.1.0", True, None),
        ("v20.1.0", False, ()),
        ("v22.5.1", True, None),
        ("v22.6.0", True, ("--experimental-strip-types",)),
        ("v22.17.1", True, ("--experimental-strip-types",)),
        ("v22.18.0", True, ()),
        ("v23.5.0", True, ("--experimental-strip-types",)),
        ("v23.6.0", True, ()),
        ("v24.0.0", True, ()),
        ("nonsense", True, None),
    ],
)
def test_what_node_is_told_of_types(version, types, options):
    assert typescript._node_options(f"{version}\n", types) == options


def test_a_runtime_named_from_the_projects_root(noted):
    path_of_node()
    (noted.root / "tools").mkdir()
    (noted.root / "tools" / "node").symlink_to(PROGRAMS / "node")
    body = "  yield sql`INSERT INTO t VALUES ('x')`;"
    for runtime in ("./tools/node", "tools/node --no-warnings", f"{PROGRAMS / 'node'}"):
        seeded(noted, body, name="deep/er/a.ts", env={"SEED_RUNTIME": runtime}).ok()
    assert texts(noted) == ["x"] * 3


@pytest.mark.parametrize(
    ("runtime", "code", "message"),
    [
        ("no-such-runtime", 2, "which is not installed"),
        ("/bin/false", 2, "which does not start"),
        ("node 'x", 1, "which cannot be read"),
        ("  ", 1, "SEED_RUNTIME"),
    ],
)
def test_a_runtime_that_is_none_is_told(noted, runtime, code, message):
    outcome = seeded(noted, "", env={"SEED_RUNTIME": runtime})
    assert (outcome.code, message in outcome.err) == (code, True)


def test_the_question_for_the_version_gives_no_credentials_away_either(noted, tmp_path):
    program = tmp_path / "spy"
    program.write_text(f"#!/bin/sh\nenv > {tmp_path}/seen\nexit 1\n")
    program.chmod(0o755)
    seeded(noted, "", env={"SEED_RUNTIME": str(program), "PGPASSWORD": "s3cret"})
    assert "PATH=" in (tmp_path / "seen").read_text()
    assert "s3cret" not in (tmp_path / "seen").read_text()


# Pure: the SQL of a message.


def message(parts, *found):
    return {"t": "sql", "parts": parts, "values": list(found), "line": 1, "column": 1}


@pytest.mark.parametrize(
    ("value", "sql"),
    [
        ({"t": "number", "v": "-5"}, "(-5)"),
        ({"t": "number", "v": "1e+21"}, "1e+21"),
        ({"t": "number", "v": "NaN"}, "'NaN'"),
        ({"t": "number", "v": "9" * 5000}, f"'{'9' * 5000}'"),
        ({"t": "bytes", "v": "00ff"}, "E'\\\\x00ff'::pg_catalog.bytea"),
        ({"t": "null"}, "NULL"),
        ({"t": "name", "v": ['a"b', "c"]}, '"a""b"."c"'),
        ({"t": "array", "v": [{"t": "number", "v": "1"}, {"t": "null"}]}, "'{1,NULL}'"),
    ],
    ids=range(8),
)
def test_a_value_is_written_as_one_constant(value, sql):
    assert render(message(["SELECT ", ""], value)) == f"SELECT {sql}"


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_a_text_stays_one_token_wherever_it_may_stand(text):
    from nself_core.sql.lexer import tokens

    sql = render(message(["SELECT ", ", ", ""], {"t": "text", "v": text}, {"t": "text", "v": text}))
    assert [token.kind for token in tokens(sql)] == ["word", "string", "op", "string"]


@pytest.mark.parametrize(
    "parts",
    [["'", "'"], ["$$", "$$"], ["-- ", "\n"], ["/* ", " */"], ['"', '"'], ["E'", "'"], ["a", ""], ["'' ", "'", "'"]],
)
def test_a_place_where_a_value_would_be_none_is_refused(parts):
    with pytest.raises(FileFailure, match="a value stands inside quotes"):
        render(message(parts, *[{"t": "text", "v": "x"}] * (len(parts) - 1)))
