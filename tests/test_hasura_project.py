"""The local metadata tree as the guard reads it, on trees of our own and of real projects."""

from __future__ import annotations

import os
import re
import shutil
import sys

import pytest
from bed.gaps import wants_shared
from bed.hasura_material import REAL, REAL_NAMES
from bed.projects import REPOSITORY

from nself_core.failures import FileFailure
from nself_core.guard.requirements import narrow, requirements
from nself_core.hasura.project import read_local_metadata
from nself_core.hasura.unfinished import write_note


def tables_of(local):
    """The tables that a LocalMetadata tracks, as (schema, name)."""
    return {(need.schema, need.table) for need in requirements(local.document) if need.kind == "table"}


def write_tree(folder, **files):
    """Write files below `folder`; a name's `__` stands for a slash."""
    for name, text in files.items():
        path = folder / (name.replace("__", "/") + ".yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return str(folder)


SOURCES = """
- name: default
  kind: postgres
  tables: "!include default/tables/tables.yaml"
  functions: !include default/functions.yaml
"""


def test_a_tree_is_read_through_both_forms_of_include(tmp_path):
    folder = write_tree(
        tmp_path, databases__databases=SOURCES, databases__default__functions="- function: f\n",
        databases__default__tables__tables='- "!include public_a.yaml"\n- !include public_b.yaml\n',
        databases__default__tables__public_a="table: {schema: public, name: a}\n",
        databases__default__tables__public_b="table: b\nselect_permissions: '!include perms.yaml'\n",
        databases__default__tables__perms="- role: u\n  permission: {columns: [x], filter: {}}\n",
    )
    local = read_local_metadata(folder)
    assert local.reason == ""
    assert {" ".join(r[:4]) for r in requirements(local.document)} == {
        "table public a ", "table public b ", "column public b x", "function public  f"}


def test_a_flat_tree_of_version_2_is_read(tmp_path):
    folder = write_tree(tmp_path, tables="- table: a\n", functions="- f\n")
    assert tables_of(read_local_metadata(folder)) == {("public", "a")}


def test_scalars_are_read_as_yaml_1_2_reads_them(tmp_path):
    texts = ["yes", "no", "off", "2024-01-01", "012", "1:30", "0x1f", "1_000", "y", "Null!", ".5.1"]
    text = f"- table: on\n  texts: [{', '.join(texts)}]\n  others: [12, -3, 1.5, 1e3, true, null, ~, '1']\n"
    table = read_local_metadata(write_tree(tmp_path, tables=text)).document["tables"][0]
    assert table == {"table": "on", "texts": texts, "others": [12, -3, 1.5, 1000.0, True, None, None, "1"]}


@pytest.mark.parametrize(("files", "reason"), [
    ({}, "there is no metadata tree in"),
    ({"databases__databases": "[]\n"}, "tracks nothing in source default"),
    ({"databases__databases": "- name: other\n  tables: [{table: a}]\n"}, "tracks nothing in source default"),
    ({"tables": "[]\n"}, "tracks nothing in source default"),
])
def test_a_tree_that_says_nothing_is_none_with_a_reason(tmp_path, files, reason):
    local = read_local_metadata(write_tree(tmp_path, **files))
    assert local.document is None
    assert reason in local.reason


def test_without_pyyaml_there_is_none_with_a_reason(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    local = read_local_metadata(write_tree(tmp_path, tables="- table: a\n"))
    assert local.document is None
    assert "PyYAML is not installed" in local.reason


@pytest.mark.parametrize(("text", "place", "said"), [
    ("- table: a\n  b: [1\n", ":3", "YAML"),
    ("- table: a\n  x: 1\n  x: 2\n", ":3:3", "x stands twice"),
    ("- table: a\n  x: !strange 1\n", ":2:6", "YAML"),
    ("- 1\n- table: a\n", "", "entry 1 of the tables names no table"),
    ("a: 1\n", "", "not a list"),
    ("- table: a\n  comment: \x01\n", "", "YAML"),
])
def test_a_file_that_is_not_right_is_named_with_its_line(tmp_path, text, place, said):
    folder = write_tree(tmp_path, tables=text)
    with pytest.raises(FileFailure) as caught:
        read_local_metadata(folder)
    assert caught.value.place.startswith(os.path.join(folder, "tables.yaml") + place)
    assert said in caught.value.message


def test_a_file_that_is_not_utf_8_is_named_with_its_line(tmp_path):
    (tmp_path / "tables.yaml").write_bytes(b"- table: a\n  comment: caf\xe9\n")
    with pytest.raises(FileFailure, match="not UTF-8") as caught:
        read_local_metadata(str(tmp_path))
    assert caught.value.line == 2


@pytest.mark.parametrize(("name", "said"), [
    ("../../../outside.yaml", "leads out of"), ("/etc/passwd", "leads out of"), ("link.yaml", "leads out of"),
    ("gone.yaml", "leads to no file"), ("tables.yaml", "leads round in a circle"),
])
def test_an_include_that_leads_wrong_is_named_with_its_line(tmp_path, name, said):
    (tmp_path / "outside.yaml").write_text("table: a\n", encoding="utf-8")
    folder = write_tree(
        tmp_path / "metadata", databases__databases="- name: default\n  tables: '!include t/tables.yaml'\n",
        databases__t__tables=f"- table: a\n- '!include {name}'\n",
    )
    (tmp_path / "metadata" / "databases" / "t" / "link.yaml").symlink_to(tmp_path / "outside.yaml")
    with pytest.raises(FileFailure, match=said) as caught:
        read_local_metadata(folder)
    assert caught.value.place == os.path.join(folder, "databases", "t", "tables.yaml") + ":2"


def test_the_tree_may_be_reached_through_a_link(tmp_path):
    folder = write_tree(tmp_path / "real", databases__databases="- name: default\n  tables: '!include a.yaml'\n",
                        databases__a="- table: a\n")
    (tmp_path / "link").symlink_to(folder)
    assert read_local_metadata(str(tmp_path / "link")).document["sources"][0]["tables"] == [{"table": "a"}]


def with_source_default(folder, target):
    """A copy of a tree in which the first source is called default."""
    shutil.copytree(folder, target)
    databases = target / "databases" / "databases.yaml"
    text = databases.read_text(encoding="utf-8")
    databases.write_text(re.sub(r"- name: .*", "- name: default", text, count=1), encoding="utf-8")
    return str(target)


@pytest.mark.parametrize("project", [
    REPOSITORY / "hasura", *(pytest.param(REAL / name, marks=wants_shared(REAL.name)) for name in REAL_NAMES),
], ids=lambda path: path.name)  # fmt: skip
def test_real_trees_are_read_and_understood(tmp_path, project):
    local = read_local_metadata(with_source_default(project / "metadata", tmp_path / "copy"))
    needed = requirements(local.document)
    tables = tables_of(local)
    assert len(tables) >= 3
    assert {(need.schema, need.table) for need in needed if need.kind in ("column", "relationship")} <= tables
    assert narrow(needed, requirements(local.document)) == needed


def test_what_an_ended_export_left_is_nothing_to_go_by(tmp_path):
    """The guard then goes by all that is live."""
    folder = write_tree(tmp_path, tables="- table: {schema: public, name: a}\n")
    assert tables_of(read_local_metadata(folder)) == {("public", "a")}
    write_note(folder, {"tables.yaml": ("before", "wanted")})
    local = read_local_metadata(folder)
    assert local.document is None
    assert "ended before it had written all files" in local.reason
