"""What a seed program imports is part of it: a change there is a change of the seed."""

from __future__ import annotations

import os

import pytest
from bed.seeds import path_of_node, write_seeds

from nself_core.seeds.imports import checksum_with_imports
from nself_core.sql.source import checksum


def sum_of(path):
    return checksum_with_imports(str(path), path.read_text(encoding="utf-8"))


def change(path):
    path.write_text(path.read_text(encoding="utf-8") + "\n// more\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("said", "file"),
    [
        ('import { a } from "./b.ts";', "b.ts"),
        ("import a,\n  { c }\n  from './b.ts'", "b.ts"),
        ('import "./b.mjs"', "b.mjs"),
        ('export * from "../b.js";', "../b.js"),
        ("const b = await import(`./b.ts`);", "b.ts"),
        ('import type { T } from "./lib/types.ts"', "lib/types.ts"),
        ('const b = require ( "./b.cjs" )', "b.cjs"),
        ('import rows from "./rows.json" with { type: "json" };', "rows.json"),
        ('fs.readFileSync(new URL("./rows.bin", import.meta.url))', "rows.bin"),
        ('import.meta.resolve("./b.ts")', "b.ts"),
        ('import "./lib"', "lib/index.ts"),
        ('import "./b"', "b.ts"),
        ('import "./b.js"', "b.ts"),
        ('import "./b.mjs"', "b.mts"),
        ('import "./a%20b.ts?v=1#x"', "a b.ts"),
        ('import "./it\'s ü $$.ts"', "it's ü $$.ts"),
        ('import ".."', "../index.js"),
    ],
)
def test_an_import_is_found_however_it_is_written(tmp_path, said, file):
    seed, other = tmp_path / "seeds" / "a.ts", tmp_path / "seeds" / file
    for path, text in ((seed, f"{said}\nexport default () => [];\n"), (other, "1\n")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    before = sum_of(seed)
    assert before != checksum(seed.read_text(encoding="utf-8"))
    assert sum_of(seed) == before
    change(other)
    assert sum_of(seed) != before


@pytest.mark.parametrize(
    "text",
    [
        "export default () => [];",
        'import x from "left-pad"; import fs from "node:fs"; import "#alias";',
        'import "./gone.ts"; const from = "./b.ts";',
        'import(`./${"b"}.ts`)',
        'import "./folder"',
    ],
)
def test_without_a_file_beside_it_the_checksum_is_that_of_the_text(tmp_path, text):
    (tmp_path / "b.ts").write_text("1")
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.ts").write_text(text)
    assert sum_of(tmp_path / "a.ts") == checksum(text)


def test_what_an_import_imports_counts_and_a_circle_ends(tmp_path):
    write_seeds(
        tmp_path,
        {
            "a.ts": 'import "./lib/b.ts"',
            "lib/b.ts": 'import "./c.ts"; import "../a.ts"',
            "lib/c.ts": 'import "./b.ts"; import "./c.ts"',
        },
    )
    folder = tmp_path / "seeds"
    seen = {sum_of(folder / "a.ts")}
    for name in ("lib/b.ts", "lib/c.ts", "a.ts"):
        change(folder / name)
        seen.add(sum_of(folder / name))
    assert len(seen) == 4


def test_line_ends_and_the_projects_place_make_no_difference(tmp_path):
    sums = set()
    for place, end in (("one", "\n"), ("two", "\r\n")):
        write_seeds(tmp_path / place, {"a.ts": f'import "./b.ts"{end}', "b.ts": f"1{end}2{end}"})
        sums.add(checksum_with_imports(str(tmp_path / place / "seeds/a.ts"), 'import "./b.ts"\n'))
    assert len(sums) == 1


def test_a_file_that_changes_its_name_counts(tmp_path):
    write_seeds(tmp_path, {"a.ts": 'import "./b"', "b.ts": "1\n"})
    before = sum_of(tmp_path / "seeds/a.ts")
    os.rename(tmp_path / "seeds/b.ts", tmp_path / "seeds/b.js")
    assert sum_of(tmp_path / "seeds/a.ts") != before


def test_imports_begin_where_a_link_leads_as_they_do_for_the_runtime(tmp_path):
    write_seeds(tmp_path, {"shared/a.ts": 'import "./b.ts"', "shared/b.ts": "1\n"})
    (tmp_path / "seeds/a.ts").symlink_to("shared/a.ts")
    before = sum_of(tmp_path / "seeds/a.ts")
    change(tmp_path / "seeds/shared/b.ts")
    assert sum_of(tmp_path / "seeds/a.ts") != before


def test_code_that_is_not_utf8_counts_by_its_bytes(tmp_path):
    write_seeds(tmp_path, {"a.ts": 'import "./b.ts"', "b.ts": b"// caf\xe9\n"})
    before = sum_of(tmp_path / "seeds/a.ts")
    (tmp_path / "seeds/b.ts").write_bytes(b"// caf\xe8\n")
    assert sum_of(tmp_path / "seeds/a.ts") != before


def test_a_seed_whose_import_has_changed_runs_again(plain_project):
    plain_project.database.admin("CREATE TABLE t (a text)")
    write_seeds(
        plain_project.root,
        {
            "a.mjs": 'import { word } from "./_word.mjs";\n'
            "export default (sql) => [sql`INSERT INTO t VALUES (${word})`];",
            "_word.mjs": 'export { word } from "./_more.mjs";',
            "_more.mjs": "export const word = 'one';",
        },
    )

    def ran():
        outcome = plain_project.run("seed", "run", "--changed", "--json", env={"PATH": path_of_node()}).ok()
        return [seed["file"] for seed in outcome.json()["data"]["seeds"]]

    def states():
        return [seed["state"] for seed in plain_project.run("seed", "list", "--json").ok().json()["data"]["seeds"]]

    assert (ran(), states(), ran()) == (["seeds/a.mjs"], ["applied"], [])
    write_seeds(plain_project.root, {"_more.mjs": "export const word = 'two';"})
    assert states() == ["changed"]
    assert (ran(), states(), ran()) == (["seeds/a.mjs"], ["applied"], [])
    assert [row["a"] for row in plain_project.database.admin("SELECT a FROM t ORDER BY ctid")] == ["one", "two"]
