"""A plain dump is text that psql runs: commands of psql that pg_dump does not write are found before."""

from __future__ import annotations

import gzip
import hashlib
import io
import json

import pytest
from test_restore import CATALOGUE, SCHEMA, backup, count, databases, drop_beside, filled

from nself_core.backups.plain import find_command

ON = "SET standard_conforming_strings = on;\n"
OFF = "SET standard_conforming_strings = off;\n"
# What looks like a command of psql, in every place where it is none.
LOOKALIKES = r"""
CREATE TABLE back (a text DEFAULT 'C:\', b text DEFAULT E'it\\''s\n\\! touch', "c
\! d" text, CHECK (a <> '
\! touch x'));
INSERT INTO back VALUES (E'\\.', E'a\n\\.\nb', E'\\! touch'), ('\restrict x', '''', '"');
COMMENT ON TABLE back IS '
\! touch x
\connect other \';
CREATE TABLE "na
\! me" (i int); INSERT INTO "na
\! me" VALUES (1);
CREATE TABLE none ();  INSERT INTO none DEFAULT VALUES; INSERT INTO none DEFAULT VALUES;
CREATE TABLE "begin" ("case" int[], "end" int); INSERT INTO "begin" VALUES ('{1,2}', 2);
CREATE VIEW sliced AS SELECT "case"[1:2] AS s, "end"::text || '\' AS t, CASE WHEN "end" > 1 THEN '
\q' ELSE $$\!$$ END AS u FROM "begin";
CREATE FUNCTION body() RETURNS text LANGUAGE plpgsql AS $f$
BEGIN /* it's $$ not "closed
\! touch x
COPY t FROM stdin;
\.
*/ RETURN 'x'; END$f$;
CREATE FUNCTION atomic(x int) RETURNS int LANGUAGE sql
BEGIN ATOMIC SELECT CASE WHEN x > 1 THEN 1 ELSE 2 END; SELECT length('\! touch
\!'); END;
CREATE FUNCTION set_otherwise() RETURNS int LANGUAGE sql SET standard_conforming_strings TO 'off' AS 'SELECT 1';
CREATE RULE two AS ON UPDATE TO back DO ALSO (INSERT INTO none DEFAULT VALUES; INSERT INTO "na
\! me" VALUES (2));
CREATE OPERATOR @-*@ (leftarg = int, rightarg = int, procedure = int4pl);
SELECT lo_from_bytea(77, '\\x5c21');
"""


def first(text):
    return find_command(io.BytesIO(text.encode() if isinstance(text, str) else text))


@pytest.mark.versions
def test_what_pg_dump_writes_passes_and_comes_back(project):
    project.database.admin(SCHEMA)
    if project.database.admin("SELECT current_setting('server_version_num')::int AS n")[0]["n"] < 140000:
        return
    project.database.admin(LOOKALIKES)
    rows = project.database.admin(CATALOGUE), project.database.admin("SELECT * FROM back ORDER BY a, b")
    backup(project, "--format", "plain")
    project.database.admin("DROP TABLE back CASCADE")
    try:
        project.run("restore", "--force").ok()
        assert (project.database.admin(CATALOGUE), project.database.admin("SELECT * FROM back ORDER BY a, b")) == rows
    finally:
        drop_beside(project)


def test_a_database_without_standard_strings(plain_project):
    name = plain_project.database.name
    plain_project.database.admin(LOOKALIKES)
    plain_project.database.admin(f'ALTER DATABASE "{name}" SET standard_conforming_strings = off')
    try:
        file = plain_project.root / backup(plain_project, "--format", "plain")
    finally:
        plain_project.database.admin(f'ALTER DATABASE "{name}" RESET ALL')
    assert first(file.read_bytes()) is None


@pytest.mark.parametrize("options", [[], ["--in-place"]], ids=["beside", "in place"])
@pytest.mark.parametrize("level", ["0", "3"])
def test_a_command_of_another_hand_is_refused_before_anything_changes(plain_project, options, level):
    project = filled(plain_project)
    file = project.root / backup(project, "--format", "plain", "--compress", level)
    opened = gzip.decompress if level == "3" else bytes
    lines = [line for line in opened(file.read_bytes()).split(b"\n") if not line.startswith((b"\\restrict", b"\\unre"))]
    at = lines.index(b"SET row_security = off;") + 1
    lines.insert(at, b"SELECT 1 \\! touch " + str(project.root / "touched").encode())
    data = b"\n".join(lines)
    data = gzip.compress(data) if level == "3" else data
    file.write_bytes(data)
    manifest = file.with_name(file.name + ".json")
    known = {**json.loads(manifest.read_text()), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest.write_text(json.dumps(known))
    outcome = project.run("restore", "--force", "--no-safety-backup", *options)
    assert (outcome.code, f"{file.name}:{at + 1}: psql's command \\!" in outcome.err) == (1, True), repr(outcome)
    assert project.run("backup", "verify").code == 1
    assert (count(project), databases(project), (project.root / "touched").exists()) == (500, [], False)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (1, "\\! touch x\n"),
        (1, "SELECT 1 \\g |touch x\n"),
        (2, "--\n\\connect other\n"),
        (1, "\\restrict `touch x`\n"),
        (1, "SELECT 1 \\restrict x\n"),
        (1, "\\.\n"),
        (1, "-- a\r\\! touch x\n"),
        (1, "/* /* */ */ \\! touch x\n"),
        (2, ON + "SELECT 'a\\' \\! touch x\n"),
        (2, ON + "SELECT E'a\\'' \\! touch x\n"),
        (2, ON + "SELECT typE'a\\' \\! touch x\n"),
        (2, ON + "SELECT $a$ $b$ $a$ \\! touch x\n"),
        (2, ON + 'SELECT "a\\" \\! touch x\n'),
        (1, "SELECT 'a\\' \\! touch x\n"),
        (2, OFF + "SELECT 'a\\'' \\! touch x\n"),
        (2, OFF + ON),
        (3, ON + "SELECT E'a'\n'b\\' \\! touch x'\n"),
        (2, ON + "SELECT 1E'a\\' \\! touch x'\n"),
        (2, ON + "SELECT :DBNAME\n"),
        (1, "SET client_encoding = 'SJIS';\n"),
        (1, "\ufeffCOPY t FROM stdin;\n"),
        (1, "SELECT '\0'\n"),
        (4, "COPY t FROM stdin;\n\\! data\n\\.\n\\! touch x\n"),
        (3, "SELECT (\nCOPY t FROM stdin;\n\\! touch x\n\\.\n"),
        (3, "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC\nSELECT 1;\nCOPY t FROM stdin;\n\\! touch x\n\\.\nEND;\n"),
        (1, "COPY t FROM stdin; \\! touch x\n"),
        (1, "COPY t FROM stdin WITH (FORMAT csv);\n\\! touch x\n"),
    ],
)
def test_what_psql_would_take_for_a_command(line, text):
    assert first(text)[0] == line


def test_a_line_of_copy_longer_than_what_is_read_at_once():
    long = "x" * (1 << 20)
    assert first(f"COPY t FROM stdin;\n{long}\\.\n\\! data\n\\.\nSELECT '{long}\n';\n") is None
    assert first(f"COPY t FROM stdin;\n{long}\n\\.\nSELECT '{long}' \\q\n") == (4, "psql's command \\q")
