"""Exporting metadata: the files of a whole directory, and what of a tree is written, kept and removed."""

from __future__ import annotations

import copy
import json
import os
import re

import pytest
import yaml
from bed.gaps import wants_shared
from bed.hasura_material import (
    GOLDEN,
    REAL,
    cases_of,
    reads,
    recorded,
    recorded_json,
    recorded_text,
    without_nothing,
    without_null_descriptions,
    write_tree,
)
from bed.metadata_documents import EVERY_SECTION, own_documents
from bed.projects import REPOSITORY
from hypothesis import given, settings
from hypothesis import strategies as st
from test_hasura_tree import CANONICAL

from nself_core.failures import FileFailure
from nself_core.hasura.diff import find_changes, graphql_tokens
from nself_core.hasura.export import Keep, Remove, Write, lower, plan_anew, plan_files, plan_single
from nself_core.hasura.layout import render_files, render_single
from nself_core.hasura.tree import V2, V3, read_tree
from nself_core.hasura.write_files import apply_files, sweep
from nself_core.hasura.yaml_values import YamlReader


def planned(tree, document):
    """What an export does, as {file: new text, or None for one that is removed}; what stays is left out."""
    actions = plan_files(tree.folder, tree, document)
    files = [action.file for action in actions]
    assert len(files) == len(set(files))
    assert set(tree.files) <= set(files)
    return {action.file: getattr(action, "text", None) for action in actions if not isinstance(action, Keep)}


def exported(tmp_path, tree, document):
    """The Tree that is there after an export."""
    apply_files(tree.folder, plan_files(tree.folder, tree, document))
    return read_tree(tree.folder)


def changed(tree):
    """A copy of a tree's document, to be changed."""
    return copy.deepcopy(tree.document)


# A whole directory.


def test_a_directory_is_written_in_the_form_of_the_cli(tmp_path):
    tree = read_tree(write_tree(tmp_path, CANONICAL))
    files = render_files(tree.document)
    assert {name: files[name] for name in CANONICAL} == CANONICAL
    assert {name: text for name, text in files.items() if name not in CANONICAL} == {
        "allow_list.yaml": "[]\n", "api_limits.yaml": "{}\n", "backend_configs.yaml": "{}\n",
        "graphql_schema_introspection.yaml": "disabled_for_roles: []\n", "inherited_roles.yaml": "[]\n",
        "metrics_config.yaml": "{}\n", "opentelemetry.yaml": "{}\n", "query_collections.yaml": "[]\n",
        "rest_endpoints.yaml": "[]\n",
    }  # fmt: skip


def test_an_empty_document():
    files = render_files({"version": 3})
    assert "databases/databases.yaml" not in files
    assert files["version.yaml"] == "version: 3\n"
    assert files["actions.graphql"] == ""
    assert files["actions.yaml"] == (
        "actions: []\ncustom_types:\n  enums: []\n  input_objects: []\n  objects: []\n  scalars: []\n"
    )
    assert render_files({"version": 3, "sources": []})["databases/databases.yaml"] == "[]\n"


def test_a_document_of_version_2_gives_a_directory_of_config_v2():
    files = render_files({"version": 2, "tables": [{"table": {"schema": "public", "name": "a"}}]})
    assert files["version.yaml"] == "version: 2\n"
    assert files["tables.yaml"] == "- table:\n    schema: public\n    name: a\n"
    assert files["functions.yaml"] == "[]\n"


def names(*tables, key="tables"):
    """The file names of tables, without their folder."""
    document = {"version": 3, "sources": [{"name": "s", key: [{key[:-1]: table} for table in tables]}]}
    start = f"databases/s/{key}/"
    return [name[len(start) :] for name in render_files(document) if name.startswith(start)][1:]


def test_file_names():
    assert names({"schema": "public", "name": "My Table"}, {"dataset": "d", "name": "t"}, {"name": "n"}, ["a", "b"],
                 "bare") == ["public_My Table.yaml", "d_t.yaml", "_n.yaml", "a_b.yaml", "public_bare.yaml"]  # fmt: skip
    assert names({"schema": "public", "name": "f"}, ["x"], key="functions") == ["public_f.yaml", "x.yaml"]


def test_no_two_objects_share_a_file():
    found = names(
        {"schema": "a_b", "name": "c"}, {"schema": "a", "name": "b_c"}, {"schema": "A", "name": "B_C"},
        {"schema": "a", "name": "é"}, {"schema": "a", "name": "e\u0301"}, {"name": "tables"}, ["tables"],
    )  # fmt: skip
    assert found == ["a_b_c.yaml", "a_b_c_2.yaml", "A_B_C_3.yaml", "a_é.yaml", "a_e\u0301_2.yaml", "_tables.yaml",
                     "tables_2.yaml"]  # fmt: skip


@pytest.mark.parametrize(
    "name", ["../../../../x", "a/b", "..", '"q"', "a\nb", "\x7f", "a\\b", " x ", "ß" * 500, "a%2Fb"]
)
def test_a_name_never_leads_elsewhere(tmp_path, name):
    source = {"name": name, "tables": [{"table": {"schema": name, "name": name}}], "functions": [{"function": [name]}]}
    document = {"version": 3, "sources": [source, {"name": "s", "tables": []}]}
    folder = str(tmp_path / "metadata")
    apply_files(folder, plan_files(folder, None, document))
    assert os.listdir(tmp_path) == ["metadata"]
    assert read_tree(folder).document == document
    assert read_tree(folder).orphans == []


def test_sources_whose_folders_would_be_one_have_two(tmp_path):
    document = {"version": 3, "sources": [
        {"name": name, "tables": [{"table": {"schema": "s", "name": name}}]} for name in ("a", "A", "a/", "a%2F", ".")
    ]}  # fmt: skip
    folder = str(tmp_path / "m")
    apply_files(folder, plan_files(folder, None, document))
    assert read_tree(folder).document == document


# What stays.


@pytest.mark.parametrize("name", ["canonical", "sample"])
def test_nothing_is_written_where_nothing_changed(tmp_path, name):
    folder = write_tree(tmp_path, CANONICAL) if name == "canonical" else str(REPOSITORY / "hasura" / "metadata")
    tree = read_tree(folder)
    assert planned(tree, changed(tree)) == {}
    # Nor where only the order differs that does not count, or a default that the engine adds or drops.
    document = dict(reversed(changed(tree).items()))
    for source in document["sources"]:
        source["tables"].reverse()
        for table in source["tables"]:
            table["is_enum"] = table.get("is_enum", False)
            table["event_triggers"] = table.get("event_triggers", [])
            for permission in table.get("select_permissions", ()):
                permission["permission"].setdefault("allow_aggregations", False)
                if isinstance(permission["permission"]["columns"], list):
                    permission["permission"]["columns"].reverse()
    assert planned(tree, document) == {}


HAND_MADE = {
    "databases/databases.yaml": """\
# Our one source.
- name: default
  kind: postgres

  configuration: {connection_info: {database_url: {from_env: PG}}} # short
  tables: !include "tables/all.yaml"
""",
    "databases/tables/all.yaml": """\
# What everybody sees.
- !include 'blog/posts.yaml'

# Ours.
- "!include admin.yaml"
- !include   blog/tags.yaml # at last
""",
    "databases/tables/blog/posts.yaml": """\
# The posts.
table: posts
select_permissions:
# Who reads.
- role: user # everybody
  permission:
    columns: [id, title]   # not the body
    filter: {}
- permission: !include 'perms/editor.yaml'
  role: editor
# Who writes.
insert_permissions: !include ../own.yaml
""",
    "databases/tables/blog/perms/editor.yaml": "# Editors see all.\ncolumns: '*'\nfilter: {}\n",
    "databases/tables/own.yaml": "- role: user\n  permission: {check: {}, columns: [id]}\n",
    "databases/tables/admin.yaml": "table: {schema: public, name: admin}\ninsert_permissions: !include own.yaml\n",
    "databases/tables/blog/tags.yaml": "table: {schema: public, name: tags}",
    "cron_triggers.yaml": "# Nothing yet.\n",
}


@pytest.fixture
def by_hand(tmp_path):
    """A tree with a layout, includes and comments of its own."""
    return read_tree(write_tree(tmp_path, HAND_MADE))


def table(document, name):
    entries = document["sources"][0]["tables"]
    return next(entry for entry in entries if entry["table"] in (name, {"schema": "public", "name": name}))


def test_what_is_made_by_hand_stays(by_hand):
    document = changed(by_hand)
    document["sources"][0]["tables"].sort(key=str)
    table(document, "posts")["table"] = {"schema": "public", "name": "posts"}
    assert planned(by_hand, document) == {}


def test_exactly_what_a_document_says_is_written_where_that_is_wanted(by_hand):
    document = changed(by_hand)
    document["sources"][0]["tables"].reverse()
    table(document, "posts")["table"] = {"schema": "public", "name": "posts"}
    table(document, "posts")["select_permissions"][0]["permission"]["columns"].reverse()
    actions = plan_files(by_hand.folder, by_hand, document, exact=True)
    assert {action.file for action in actions if isinstance(action, Write)} == {
        "databases/tables/all.yaml", "databases/tables/blog/posts.yaml"}  # fmt: skip
    apply_files(by_hand.folder, actions)
    after = read_tree(by_hand.folder)
    assert after.document == document
    assert "# Who reads." in after.files["databases/tables/blog/posts.yaml"]
    assert {type(action) for action in plan_files(by_hand.folder, after, document, exact=True)} == {Keep}


def test_what_changed_is_written_in_its_own_place(by_hand):
    document = changed(by_hand)
    permissions = table(document, "posts")["select_permissions"]
    permissions[0]["permission"]["columns"].append("body")
    permissions[0]["permission"]["limit"] = 10
    permissions[1]["permission"]["filter"] = {"draft": {"_eq": True}}
    files = planned(by_hand, document)
    assert files == {
        "databases/tables/blog/posts.yaml": HAND_MADE["databases/tables/blog/posts.yaml"].replace(
            "    columns: [id, title]   # not the body\n    filter: {}\n",
            "    columns:\n      - id\n      - title\n      - body\n    filter: {}\n    limit: 10\n",
        ),
        "databases/tables/blog/perms/editor.yaml":
            "# Editors see all.\ncolumns: '*'\nfilter:\n  draft:\n    _eq: true\n",
    }  # fmt: skip


def test_parts_come_and_go_and_their_neighbours_stay(by_hand):
    document = changed(by_hand)
    posts = table(document, "posts")
    del posts["select_permissions"][0]
    posts["select_permissions"].insert(0, {"role": "anonymous", "permission": {"columns": ["id"], "filter": {}}})
    posts["object_relationships"] = [{"name": "a", "using": {"foreign_key_constraint_on": "a_id"}}]
    text = planned(by_hand, document)["databases/tables/blog/posts.yaml"]
    assert (
        text
        == """\
# The posts.
table: posts
select_permissions:
# Who reads.
- role: anonymous
  permission:
    columns:
      - id
    filter: {}
- permission: !include 'perms/editor.yaml'
  role: editor
# Who writes.
insert_permissions: !include ../own.yaml
object_relationships:
  - name: a
    using:
      foreign_key_constraint_on: a_id
"""
    )


def test_new_tables_get_a_file_and_gone_ones_lose_it(by_hand, tmp_path):
    document = changed(by_hand)
    tables = document["sources"][0]["tables"]
    tables.remove(table(document, "tags"))
    tables.insert(1, {"table": {"schema": "public", "name": "new one"}})
    files = planned(by_hand, document)
    assert files == {
        "databases/tables/public_new one.yaml": "table:\n  schema: public\n  name: new one\n",
        "databases/tables/all.yaml": HAND_MADE["databases/tables/all.yaml"]
            .replace("- !include   blog/tags.yaml # at last\n", "")
            .replace("posts.yaml'\n", "posts.yaml'\n- \"!include public_new one.yaml\"\n"),
        "databases/tables/blog/tags.yaml": None,
    }  # fmt: skip
    assert find_changes(exported(tmp_path, by_hand, document).document, document) == []
    assert not (tmp_path / "databases/tables/blog/tags.yaml").exists()


def test_a_file_that_others_include_stays_for_them(by_hand, tmp_path):
    document = changed(by_hand)
    table(document, "admin")["insert_permissions"][0]["permission"]["columns"] = ["name"]
    files = planned(by_hand, document)
    assert list(files) == ["databases/tables/admin.yaml"]
    after = exported(tmp_path, by_hand, document)
    assert find_changes(after.document, document) == []
    assert table(after.document, "posts")["insert_permissions"][0]["permission"]["columns"] == ["id"]


def test_a_table_whose_includes_are_gone_takes_them_along(by_hand):
    document = changed(by_hand)
    document["sources"][0]["tables"].remove(table(document, "posts"))
    assert {file for file, text in planned(by_hand, document).items() if text is None} == {
        "databases/tables/blog/posts.yaml", "databases/tables/blog/perms/editor.yaml"}  # fmt: skip


def test_folders_that_are_left_empty_go(tmp_path):
    tree = read_tree(write_tree(tmp_path, CANONICAL))
    document = changed(tree)
    document["sources"] = []
    after = exported(tmp_path, tree, document)
    assert after.document["sources"] == []
    assert sorted(os.listdir(tmp_path / "databases")) == ["databases.yaml"]


def test_a_link_to_a_folder_that_is_left_empty_stays(tmp_path):
    text = '- name: s\n  tables: "!include a/tables.yaml"\n'
    folder = write_tree(tmp_path, {"databases/databases.yaml": text, "databases/b/tables.yaml": "[]\n"})
    (tmp_path / "databases/a").symlink_to("b")
    tree = read_tree(folder)
    exported(tmp_path, tree, {"version": 3, "sources": []})
    assert (tmp_path / "databases/a").is_symlink()
    assert os.listdir(tmp_path / "databases/b") == []


def test_functions_that_are_gone_leave_no_list(tmp_path):
    tree = read_tree(write_tree(tmp_path, CANONICAL))
    document = changed(tree)
    del document["sources"][0]["functions"]
    files = planned(tree, document)
    assert {file for file, text in files.items() if text is None} == {
        "databases/default/functions/functions.yaml", "databases/default/functions/public_search.yaml"}  # fmt: skip
    kept = CANONICAL["databases/databases.yaml"].replace(
        '  functions: "!include default/functions/functions.yaml"\n', ""
    )
    assert files["databases/databases.yaml"] == kept
    after = exported(tmp_path, tree, document)
    document["sources"][0]["functions"] = [{"function": {"schema": "public", "name": "g"}}]
    assert (
        exported(tmp_path, after, document).files["databases/databases.yaml"] == CANONICAL["databases/databases.yaml"]
    )


def test_sources_come_and_go(tmp_path):
    tree = read_tree(write_tree(tmp_path, CANONICAL))
    document = changed(tree)
    source: dict = {"name": "a b", "kind": "postgres", "tables": [{"table": {"schema": "s", "name": "tt"}}]}
    source.update({"configuration": {"x": 1}, "native_queries": [{"root_field_name": "q"}], "future": True})
    document["sources"].insert(0, source)
    after = exported(tmp_path, tree, document)
    assert after.document == {**document, "sources": document["sources"]}
    assert (
        after.files["databases/databases.yaml"]
        == """\
- name: a b
  kind: postgres
  configuration:
    x: 1
  native_queries:
    - root_field_name: q
  future: true
  tables: "!include a b/tables/tables.yaml"
"""
        + CANONICAL["databases/databases.yaml"]
    )
    assert after.files["databases/a b/tables/s_tt.yaml"] == "table:\n  schema: s\n  name: tt\n"
    assert exported(tmp_path, after, tree.document).files == tree.files


def test_what_the_tree_does_not_know_stays_and_is_never_overwritten(tmp_path):
    orphan = "table: {schema: public, name: other}\n# mine\n"
    files = {**CANONICAL, "databases/default/tables/public_new.yaml": orphan, "databases/default/notes.md": "x"}
    tree = read_tree(write_tree(tmp_path, files))
    document = changed(tree)
    document["sources"][0]["tables"].append({"table": {"schema": "public", "name": "new"}})
    after = exported(tmp_path, tree, document)
    assert "databases/default/tables/public_new_2.yaml" in after.files
    assert (tmp_path / "databases/default/tables/public_new.yaml").read_text(encoding="utf-8") == orphan
    assert after.orphans == ["databases/default/tables/public_new.yaml"]


def test_a_file_that_the_same_table_left_behind_is_written_over(tmp_path):
    files = {
        **CANONICAL,
        "databases/default/tables/public_new.yaml": "table: {schema: public, name: new}\nis_enum: true\n",
    }
    tree = read_tree(write_tree(tmp_path, files))
    document = changed(tree)
    document["sources"][0]["tables"].append({"table": {"schema": "public", "name": "new"}})
    actions = plan_files(tree.folder, tree, document)
    (write,) = [action for action in actions if action.file == "databases/default/tables/public_new.yaml"]
    assert write.before == files[write.file]
    after = exported(tmp_path, tree, document)
    assert after.document == document
    assert after.orphans == []


def test_a_table_that_stands_twice_stands_once_after_an_export(tmp_path):
    files = {**CANONICAL, "databases/default/tables/tables.yaml": '- "!include public_posts.yaml"\n' * 3}
    tree = read_tree(write_tree(tmp_path, files))
    document = changed(tree)
    del document["sources"][0]["tables"][1:]
    document["sources"][0]["tables"][0]["is_enum"] = True
    assert find_changes(exported(tmp_path, tree, document).document, document) == []


def test_version_2_has_no_place_in_files_of_version_3(tmp_path):
    tree = read_tree(write_tree(tmp_path, CANONICAL))
    with pytest.raises(FileFailure, match="version 2"):
        planned(tree, {"version": 2, "tables": []})


def test_sections_come_and_go(tmp_path):
    tree = read_tree(write_tree(tmp_path, CANONICAL))
    document = changed(tree)
    del document["cron_triggers"]
    document["rest_endpoints"] = [{"name": "r", "url": "u", "methods": ["GET"], "definition": {}}]
    document["remote_schemas"] = [{"comment": "c", "definition": {"url": "u"}, "name": "r", "future": 1}]
    document["future"] = {"a": 1}
    files = planned(tree, document)
    assert files == {
        "version.yaml": "version: 3\nfuture:\n  a: 1\n",
        "cron_triggers.yaml": "[]\n",
        "rest_endpoints.yaml": "- name: r\n  url: u\n  methods:\n    - GET\n  definition: {}\n",
        "remote_schemas.yaml": "- name: r\n  definition:\n    url: u\n  comment: c\n  future: 1\n",
    }
    assert exported(tmp_path, tree, document).document == document


def test_comments_of_sections_stay(tmp_path):
    text = "# one\n- name: a # a\n  schedule: '* * * * *'\n\n# two\n- name: b\n  schedule: x\n  # end of b\n# end\n"
    tree = read_tree(write_tree(tmp_path, {"cron_triggers.yaml": text}))
    document = changed(tree)
    document["cron_triggers"][1]["schedule"] = "z"
    document["cron_triggers"].append({"name": "c"})
    after = text.replace("schedule: x\n  # end of b\n", "schedule: z\n  # end of b\n- name: c\n")
    assert planned(tree, document) == {"cron_triggers.yaml": after}
    del document["cron_triggers"][0]
    assert "# one\n\n# two\n- name: b\n" in planned(tree, document)["cron_triggers.yaml"]


# Actions.


def test_an_action_that_changed_is_written_in_its_own_place(tmp_path):
    graphql = """\
# What users do.
type Mutation {
  "gone" login(credentials: Credentials!): Session # logs in
  logout: Session
}
extend type Query { who: Session @deprecated }

input Credentials { name: String!, password: String! = "x" }
# One session.
type Session implements Node {
  token: String!
}
interface Node { id: ID }
"""
    listed = """\
# By hand.
actions:
- name: logout
  definition: {kind: synchronous, handler: /out} # out
- definition: {kind: synchronous, handler: /in}
  name: login
- name: who
  definition:
    handler: /who
custom_types:
  input_objects: [{name: Credentials}]
  objects:
  - name: Session
"""
    tree = read_tree(write_tree(tmp_path, {"actions.graphql": graphql, "actions.yaml": listed}))
    document = changed(tree)
    assert planned(tree, document) == {}
    actions = {action["name"]: action for action in document["actions"]}
    actions["login"]["definition"]["arguments"].append({"name": "otp", "type": "String", "description": "six digits"})
    actions["login"]["definition"]["timeout"] = 5
    document["actions"].append({"name": "new", "definition": {"type": "query", "arguments": [], "output_type": "Int",
                                                              "handler": "/new"}, "comment": "c"})  # fmt: skip
    document["custom_types"]["scalars"] = [{"name": "uuid"}]
    assert planned(tree, document) == {
        "actions.graphql": graphql.replace(
            '  "gone" login(credentials: Credentials!): Session #',
            '  login(\n    credentials: Credentials!\n    """ six digits """ otp: String\n  ): Session #',
        ).replace("@deprecated }\n", "@deprecated }\n\ntype Query {\n  new: Int\n}\n\nscalar uuid\n"),
        "actions.yaml": listed.replace(
            "- definition: {kind: synchronous, handler: /in}\n  name: login\n",
            "- definition:\n    kind: synchronous\n    handler: /in\n    timeout: 5\n  name: login\n",
        ).replace("    handler: /who\n", "    handler: /who\n- name: new\n  definition:\n    kind: \"\"\n"
                  "    handler: /new\n  comment: c\n",
        ).replace("  - name: Session\n", "  - name: Session\n  scalars:\n    - name: uuid\n"),
    }  # fmt: skip
    assert find_changes(exported(tmp_path, tree, document).document, document) == []
    document = changed(tree)
    document["actions"] = [action for action in document["actions"] if action["name"] == "who"]
    after = exported(tmp_path, read_tree(tree.folder), document)
    assert "What users do" in after.files["actions.graphql"]
    assert "Mutation" not in after.files["actions.graphql"]
    assert find_changes(after.document, document) == []


def test_what_graphql_cannot_hold_is_kept_in_the_yaml(tmp_path):
    action = {
        "name": "a",
        "definition": {"type": "mutation", "handler": "h", "output_type": "T", "future": {"x": 1},
                       "arguments": [{"name": "x", "type": "Int", "limit": 3, "description": "  two\n    lines "}]},
        "future": [1],
    }  # fmt: skip
    types = {"objects": [{"name": "T", "description": "d", "fields": [{"name": "f", "type": "[Int!]!", "x": {"y": 1}}],
                          "relationships": [{"name": "r"}], "z": 1}],
             "enums": [{"name": "E", "values": [{"value": "A", "is_deprecated": True}, {"value": "B"}]}],
             "future": {"a": 1}}  # fmt: skip
    document = {"version": 3, "actions": [action], "custom_types": types}
    folder = str(tmp_path)
    apply_files(folder, plan_files(folder, None, document))
    assert read_tree(folder).document == document


@pytest.mark.parametrize(("action", "said"), [
    ({"name": "a b", "definition": {"output_type": "T"}}, "'a b' is no name"),
    ({"name": "a", "definition": {}}, "action a has no output_type"),
    ({"name": "a", "definition": {"output_type": "[T } x"}}, "the type of a"),
    ({"name": "a", "definition": {"output_type": "T", "arguments": [{"name": "x"}]}}, "the type of x"),
])  # fmt: skip
def test_an_action_that_graphql_cannot_hold_is_refused(action, said):
    with pytest.raises(FileFailure, match=re.escape(said)) as caught:
        render_files({"version": 3, "actions": [action]})
    assert caught.value.file == "actions.yaml"


# Other kinds of trees.


def test_a_tree_of_config_v2_stays_one(tmp_path):
    text = "# all\n- table: {schema: public, name: a} # a\n- table:\n    schema: public\n    name: b\n"
    tree = read_tree(write_tree(tmp_path, {"tables.yaml": text, "version.yaml": "version: 3\n"}))
    live: dict = {"version": 3, "sources": [{
        "name": "default", "kind": "postgres", "configuration": {},
        "tables": [{"table": {"schema": "public", "name": "a"}},
                   {"table": {"schema": "public", "name": "b"}, "is_enum": True}],
    }]}  # fmt: skip
    assert planned(tree, live) == {"tables.yaml": text + "  is_enum: true\n"}
    live["sources"][0]["functions"] = [{"function": "ff"}]
    assert planned(tree, live)["functions.yaml"] == "- function: ff\n"
    live["sources"].append({"name": "other", "tables": []})
    with pytest.raises(FileFailure, match="no place for source other"):
        planned(tree, live)


def test_single_files_stay_single_files(tmp_path):
    yaml_text = "# ours\nversion: 3\nsources:\n- name: default # one\n  tables:\n  - table: a\n  - table: b # two\n"
    json_text = '{\n    "version": 3,\n    "sources": [\n        {\n            "name": "default",\n' \
                '            "tables": [{"table": "a"}, {"table": "b"}]\n        }\n    ]\n}'  # fmt: skip
    write_tree(tmp_path, {"m.yaml": yaml_text, "m.json": json_text})
    for kind in ("yaml", "json"):
        tree = read_tree(str(tmp_path / f"m.{kind}"))
        document = changed(tree)
        assert planned(tree, document) == {}
        document["sources"][0]["tables"] = [{"table": {"schema": "public", "name": "a"}, "is_enum": True}]
        document["network"] = {"tls_allowlist": [{"host": "ü"}]}
        (text,) = planned(tree, document).values()
        if kind == "json":
            assert json.loads(text) == {**document, "sources": [{"name": "default", "tables": [
                {"table": "a", "is_enum": True}]}]}  # fmt: skip
            assert text.startswith('{\n    "version": 3,\n    "sources": [\n        {\n')
            assert text.endswith("\n}")
            assert "ü" in text
        else:
            assert text == ("# ours\nversion: 3\nsources:\n- name: default # one\n  tables:\n  - table: a\n"
                            "    is_enum: true\nnetwork:\n  tls_allowlist:\n    - host: ü\n")  # fmt: skip


@pytest.mark.parametrize("name", ["metadata.json", "metadata.yaml"])
def test_a_single_file_that_is_not_there_yet(tmp_path, name):
    document = {"version": 3, "network": {}, "sources": [{"name": "a", "tables": []}], "future": 1}
    apply_files(str(tmp_path), plan_single(str(tmp_path / name), document))
    tree = read_tree(str(tmp_path / name))
    assert tree.document == document
    assert list(tree.document) == ["version", "sources", "network", "future"]


@pytest.mark.parametrize("document", [
    {"sources": {}}, {"sources": ["a"]}, {"actions": [1]}, {"custom_types": []}, {"custom_types": {"enums": {}}},
    {"sources": [{"name": ["a"]}]},
])  # fmt: skip
def test_what_is_no_metadata_is_refused(tmp_path, document):
    with pytest.raises(FileFailure, match="this is no metadata"):
        plan_files(str(tmp_path), None, document)
    tree = read_tree(write_tree(tmp_path, CANONICAL))
    with pytest.raises(FileFailure, match="this is no metadata"):
        plan_files(str(tmp_path), tree, document)


# A directory that is not there yet, or cannot be read.

BLOG = {"version": 3, "sources": [{"name": "default", "kind": "postgres", "tables": [{"table": "a"}, {"table": "b"}]}]}


@pytest.mark.parametrize("name, text", [
    ("tables.yaml", "- table: [\n"), ("tables.yaml", b"\xff\xfe"), ("actions.yaml", b"\x80"),
])  # fmt: skip
def test_a_directory_of_config_v2_that_cannot_be_read_is_made_one_anew(tmp_path, name, text):
    folder = write_tree(tmp_path, {"version.yaml": "version: 3\n", "tables.yaml": "[]\n", name: text})
    apply_files(folder, plan_anew(folder, {**BLOG, "network": {"a": 1}}, V2))
    tree = read_tree(folder)
    assert (tree.kind, sorted(tree.files)) == (V2, sorted(os.listdir(folder)))
    assert tree.document == {"version": 2, "tables": [{"table": "a"}, {"table": "b"}], "network": {"a": 1}}


def test_what_a_kind_of_directory_has_no_place_for_is_refused(tmp_path):
    two: dict = {**BLOG}
    two["sources"] = [*two["sources"], {"name": "other", "tables": []}]
    with pytest.raises(FileFailure, match="no place for source other") as caught:
        plan_anew(str(tmp_path), two, V2)
    assert "config.yaml" in caught.value.hint
    with pytest.raises(FileFailure, match="version 2 has no place"):
        plan_anew(str(tmp_path), {"version": 2, "tables": []}, V3)


@pytest.mark.parametrize("kind, file", [(V3, "databases/databases.yaml"), (V2, "tables.yaml")])
def test_no_source_at_all_is_written_over_what_cannot_be_read(tmp_path, kind, file):
    folder = write_tree(tmp_path, {file: "- [\n"})
    apply_files(folder, plan_anew(folder, {"version": 3}, kind))
    assert not read_tree(folder).document.get("sources")
    assert not read_tree(folder).document.get("tables")


def test_a_tree_is_one_with_its_last_file_only(tmp_path):
    """To apply a part of it would take the rest out of the engine."""
    folder = str(tmp_path / "metadata")
    steps = plan_anew(folder, {**BLOG, "network": {"a": 1}}, None)
    for step in steps[:-1]:
        apply_files(folder, [step])
        with pytest.raises(FileFailure):
            read_tree(folder)
    apply_files(folder, steps[-1:])
    assert read_tree(folder).document == {**BLOG, "network": {"a": 1}}


@pytest.mark.parametrize("link, target", [
    ("databases/default", "../../elsewhere"), ("network.yaml", "../elsewhere/network.yaml"),
    ("network.yaml", "../elsewhere/nothing.yaml"),
])  # fmt: skip
def test_nothing_is_written_where_a_link_leads_out_of_the_directory(tmp_path, link, target):
    write_tree(tmp_path, {"elsewhere/network.yaml": "a: 2\n", "metadata/databases/x": ""})
    (tmp_path / "metadata" / link).symlink_to(target)
    with pytest.raises(FileFailure, match="leads out of"):
        plan_anew(str(tmp_path / "metadata"), BLOG, None)


def test_a_link_to_nothing_within_the_directory_is_followed(tmp_path):
    (tmp_path / "network.yaml").symlink_to("shared/network.yaml")
    apply_files(str(tmp_path), plan_anew(str(tmp_path), {**BLOG, "network": {"a": 1}}, None))
    assert (tmp_path / "network.yaml").is_symlink()
    assert (tmp_path / "shared/network.yaml").read_text() == "a: 1\n"


def test_what_is_no_file_is_told(tmp_path):
    (tmp_path / "network.yaml").mkdir()
    with pytest.raises(FileFailure, match="no regular file") as caught:
        plan_anew(str(tmp_path), BLOG, None)
    assert caught.value.file == str(tmp_path / "network.yaml")


# Writing.


def test_only_what_a_killed_run_left_is_swept(tmp_path):
    """Of every kind of file, and where it was made: beside what a link leads to."""
    persons = {
        "t/.notes.yaml.2024", "t/.tables.yaml.4711", "t/notes.nself-tmp", "t/a.1.nself-tmp", "t/.a.x1.nself-tmp",
        "t/.a.\u0661.nself-tmp", "t/.a.1.nself-tmp.yaml", "t/.nself-tmp", "elsewhere/.b.1.nself-tmp",
    }  # fmt: skip
    left = {"t/.actions.graphql.17.nself-tmp", "t/.meta.json.1.nself-tmp", "shared/.x y.yaml.4194304.nself-tmp"}
    write_tree(tmp_path, dict.fromkeys(persons | left | {"shared/b.yaml"}, ""))
    (tmp_path / "t/b.yaml").symlink_to("../shared/b.yaml")
    (tmp_path / "t/.c.1.nself-tmp").mkdir()
    sweep([str(tmp_path / "t/b.yaml"), str(tmp_path / "t/a.yaml"), str(tmp_path / "not there/a.yaml")])
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == (
        persons | {"shared/b.yaml", "t/b.yaml"}
    )


def test_a_file_with_a_name_as_long_as_can_be_is_written(tmp_path):
    name = "é" * 125 + ".json"
    apply_files(str(tmp_path), plan_single(str(tmp_path / name), BLOG))
    assert os.listdir(tmp_path) == [name]


def test_what_was_not_text_may_be_overwritten_but_not_what_somebody_made_of_it_meanwhile(tmp_path):
    folder = write_tree(tmp_path, {"network.yaml": b"a: \xe9\n"})
    (action,) = [one for one in plan_anew(folder, {**BLOG, "network": {"a": 1}}, None) if one.file == "network.yaml"]
    (tmp_path / "network.yaml").write_bytes(b"a: \xe8\n")
    with pytest.raises(FileFailure, match="changed meanwhile"):
        apply_files(folder, [action])
    (tmp_path / "network.yaml").write_bytes(b"a: \xe9\n")
    apply_files(folder, [action])
    assert (tmp_path / "network.yaml").read_text() == "a: 1\n"


def test_what_somebody_changed_meanwhile_is_not_lost(tmp_path):
    tree = read_tree(write_tree(tmp_path, CANONICAL))
    document = changed(tree)
    document["cron_triggers"] = []
    document["network"] = {"a": 1}
    actions = plan_files(tree.folder, tree, document)
    (tmp_path / "network.yaml").write_text("b: 2\n", encoding="utf-8")
    with pytest.raises(FileFailure, match="changed meanwhile"):
        apply_files(tree.folder, actions)
    assert (tmp_path / "cron_triggers.yaml").read_text(encoding="utf-8") == CANONICAL["cron_triggers.yaml"]


def test_nor_what_somebody_changes_while_others_are_written(tmp_path, monkeypatch):
    tree = read_tree(write_tree(tmp_path, CANONICAL))
    document = {**changed(tree), "network": {"a": 1}, "cron_triggers": []}
    first, last = [one.file for one in plan_files(tree.folder, tree, document) if isinstance(one, Write)]
    replace = os.replace

    def save_meanwhile(*paths):
        (tmp_path / last).write_text("b: 2\n", encoding="utf-8")
        replace(*paths)

    monkeypatch.setattr(os, "replace", save_meanwhile)
    with pytest.raises(FileFailure, match="changed meanwhile, so it is left") as caught:
        apply_files(tree.folder, plan_files(tree.folder, tree, document))
    assert caught.value.file == str(tmp_path / last)
    assert (tmp_path / last).read_text(encoding="utf-8") == "b: 2\n"
    assert (tmp_path / first).read_text(encoding="utf-8") != CANONICAL[first]


def test_each_step_of_an_export_leaves_a_tree_that_can_be_read(by_hand, tmp_path):
    document = changed(by_hand)
    tables = document["sources"][0]["tables"]
    tables.remove(table(document, "tags"))
    tables.append({"table": {"schema": "public", "name": "n"}})
    document["sources"].append({"name": "s", "tables": [{"table": "x"}]})
    steps = [action for action in plan_files(by_hand.folder, by_hand, document) if not isinstance(action, Keep)]
    assert {type(step) for step in steps} == {Write, Remove}
    for step in steps:
        apply_files(by_hand.folder, [step])
        read_tree(by_hand.folder)
    assert find_changes(read_tree(by_hand.folder).document, document) == []


def test_nothing_is_left_behind_where_a_file_cannot_be_written(tmp_path):
    tree = read_tree(write_tree(tmp_path, CANONICAL))
    document = changed(tree)
    document["network"] = {"a": "\ud800"}
    with pytest.raises(FileFailure, match="half a character"):
        apply_files(tree.folder, plan_files(tree.folder, tree, document))
    assert sorted(os.listdir(tmp_path)) == sorted({name.split("/")[0] for name in CANONICAL})


def test_links_and_modes_stay(tmp_path):
    files = {**CANONICAL, "shared/network.yaml": "{}\n"}
    del files["network.yaml"]
    tree_folder = write_tree(tmp_path, files)
    (tmp_path / "network.yaml").symlink_to("shared/network.yaml")
    os.chmod(tmp_path / "shared/network.yaml", 0o640)
    tree = read_tree(tree_folder)
    document = changed(tree)
    document["network"] = {"a": 1}
    exported(tmp_path, tree, document)
    assert (tmp_path / "network.yaml").is_symlink()
    assert (tmp_path / "shared/network.yaml").read_text(encoding="utf-8") == "a: 1\n"
    assert os.stat(tmp_path / "shared/network.yaml").st_mode & 0o777 == 0o640


# Whatever changes: what is read after an export is what was exported.

NAMES = st.sampled_from(["a", "b", "c", "d e", "on", "1", "ü"])
FILTERS: list = [{}, {"a": {"_eq": 1}}, {"_and": [{"a": {"_eq": "x\ny\n"}}, {"b": {}}]}]
RULES = st.fixed_dictionaries(
    {"columns": st.lists(NAMES, unique=True, max_size=4), "filter": st.sampled_from(FILTERS)},
    optional={"limit": st.integers(1, 3)},
)
PERMISSIONS = st.lists(
    st.fixed_dictionaries(
        {"role": NAMES, "permission": RULES}, optional={"comment": st.sampled_from(["x", "a\n\n", " y: z"])}
    ),
    unique_by=lambda one: str(one["role"]),
    max_size=4,
)
FREE = st.recursive(
    NAMES, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2), max_leaves=4
)
TABLE: st.SearchStrategy = st.fixed_dictionaries(
    {"table": st.fixed_dictionaries({"schema": st.just("public"), "name": NAMES})},
    optional={"select_permissions": PERMISSIONS, "is_enum": st.booleans(), "future": FREE},
)
TABLES = st.lists(TABLE, unique_by=lambda one: one["table"]["name"], max_size=5)
CRON = st.lists(st.fixed_dictionaries({"name": NAMES, "schedule": NAMES}), unique_by=lambda one: one["name"])
SOURCES = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from(["default", "o"]), "configuration": st.just({}), "tables": TABLES}),
    unique_by=lambda one: str(one["name"]),
    max_size=2,
)
DOCUMENTS: st.SearchStrategy = st.fixed_dictionaries(
    {"version": st.just(3), "sources": SOURCES}, optional={"cron_triggers": CRON}
)


def in_other_style(text):
    """A YAML text as other tools write it, lists not indented, with comments between its lines."""
    text = yaml.safe_dump(YamlReader().value(text, "x"), sort_keys=False, allow_unicode=True)
    with_comments = re.sub(r"^(\s*)- (?=role|name|table)", r"\1# of this\n\1- ", text, flags=re.MULTILINE)
    return f"# first\n{with_comments}# last\n"


@settings(max_examples=60, deadline=None)
@given(before=DOCUMENTS, after=DOCUMENTS, restyled=st.booleans())
def test_any_document_over_any_tree(tmp_path_factory, before, after, restyled):
    path = tmp_path_factory.mktemp("tree")
    folder = str(path)
    apply_files(folder, plan_files(folder, None, before))
    if restyled:
        files = read_tree(folder).files.items()
        write_tree(path, {file: in_other_style(text) for file, text in files if file.endswith(".yaml")})
    tree = read_tree(folder)
    apply_files(folder, plan_files(folder, tree, after))
    found = read_tree(folder)
    assert find_changes(found.document, after) == []
    assert found.orphans == []
    assert planned(found, after) == {}


# Upstream's recorded cases, and real projects.

# Files that are written otherwise than upstream writes them, and why.
WRITTEN_APART = {
    "obj-querycollections-export-t3": "upstream prints the queries anew; a text of the user's is left as it is",
    "obj-querycollections-export-t4": "upstream prints the queries anew; a text of the user's is left as it is",
    "obj-remoteschemas-export-t1": "upstream prints the SDL of permissions anew",
    "obj-remoteschemas-export-t3": "upstream prints the SDL of permissions anew",
}


def as_tokens(value):
    """A value with its texts as tokens of GraphQL."""
    if isinstance(value, list):
        return [as_tokens(item) for item in value]
    if isinstance(value, dict):
        return {key: as_tokens(item) for key, item in value.items()}
    return graphql_tokens(value) if isinstance(value, str) else value


EXPORTS = recorded("obj-*-export*/*")


@reads(EXPORTS)
@pytest.mark.parametrize("case", cases_of(EXPORTS))
def test_recorded_exports(case):
    document = recorded_json(f"{case}/metadata.json")
    document = document if isinstance(document, dict) else {}
    if "v2-config" in case or "tables-v3" in case:
        document = lower({"sources": [], **document})
    if f"{case}/want.functions.yaml" in EXPORTS:
        document.setdefault("functions", [])
    files = render_files(document)
    for file in EXPORTS:
        start, _, name = file.partition("/want.")
        if start == case and case in WRITTEN_APART:
            reader = YamlReader()
            assert as_tokens(reader.value(files[name], name)) == as_tokens(reader.value(recorded_text(file), name))
        elif start == case:
            assert files[name] == recorded_text(file)


ASSERTED_IN_CODE = ("obj-allowlist-export/metadata.json", "obj-api_limits-export/metadata.json")


@reads(ASSERTED_IN_CODE)
def test_recorded_exports_that_upstream_asserts_in_code():
    allow_list, limits = map(recorded_json, ASSERTED_IN_CODE)
    assert render_files(allow_list)["allow_list.yaml"] == "- collection: allowed-queries\n"
    text = render_files(limits)["api_limits.yaml"]
    assert text.startswith("disabled: false\nrate_limit:\n  global:\n")
    assert YamlReader().value(text, "x") == limits["api_limits"]


ONE_FILE = recorded("pkg-metadata/metadata_export_test/*")


@reads(ONE_FILE)
def test_a_recorded_export_to_a_single_file():
    as_json, as_yaml = ONE_FILE
    document = recorded_json(as_json)
    assert render_single(document, False) == recorded_text(as_yaml).rstrip("\n") + "\n"
    assert json.loads(render_single(document, True)) == document


# Everything that is recorded as a document, wherever it stands: in a file of its own, in a directory's files, in the
# request or the answer of an exchange.

SECTIONS = {*EVERY_SECTION, "tables", "functions", "metrics_config", "backend_configs", "opentelemetry"}
NO_DOCUMENTS = recorded("oracle-*/*", "*/*inconsistent*/*")


def documents_in(value):
    """The metadata documents in a value of whatever form, outermost first."""
    if isinstance(value, list):
        for item in value:
            yield from documents_in(item)
    elif isinstance(value, dict):
        is_document = isinstance(value.get("sources"), list) or isinstance(value.get("tables"), list)
        if is_document or set(value) - {"version"} and set(value) <= SECTIONS:
            yield value
        else:
            for item in value.values():
                yield from documents_in(item)


FILES = ("**/*.json", "*/from-server.golden", "server-*/**/*.yaml", "**/metadata.yaml", "**/config-v2.yaml")
HOLDERS = [file for file in recorded(*FILES) if file not in NO_DOCUMENTS]


def recorded_documents():
    """Every recorded document, by the file that holds it."""
    for file in HOLDERS:
        for number, document in enumerate(documents_in(YamlReader().value(recorded_text(file), file))):
            yield pytest.param(document, id=f"{file}-{number}")


def recorded_directories():
    """The folder of every recorded directory and of the real projects."""
    for root in (GOLDEN, REAL):
        for path in sorted(root.rglob("version.yaml")):
            yield pytest.param(path.parent, id=str(path.parent.relative_to(root)))


def as_the_engine_exports(document):
    """A document as the engine exports it: with a version, and without what says nothing."""
    document = without_null_descriptions(document)
    if "custom_types" in document:
        document["custom_types"] = without_nothing(document["custom_types"])
    sources = {"sources": document["sources"]} if "sources" in document else {}
    if not sources and ("tables" in document or "functions" in document):
        document = {"version": 2, "tables": [], **document}
    flat = {"tables": document["tables"]} if "tables" in document else {}
    document = copy.deepcopy({"version": 3, **without_nothing(document), **sources, **flat})
    for source in document.get("sources", ()):
        source.setdefault("tables", [])
        if not source.get("functions", True):
            del source["functions"]
    return document


def check_round_trip(folder, document):
    """Assert that what was exported to a directory, and to each kind of single file, is read as it was."""
    apply_files(str(folder / "tree"), plan_files(str(folder / "tree"), None, document))
    assert read_tree(str(folder / "tree")).document == document
    for name in ("metadata.json", "metadata.yaml"):
        apply_files(str(folder), plan_single(str(folder / name), document))
        assert read_tree(str(folder / name)).document == document


@reads(())
@pytest.mark.parametrize("document", [*recorded_documents()])
def test_every_recorded_document_is_read_as_it_was_exported(tmp_path, document):
    check_round_trip(tmp_path, as_the_engine_exports(document))


@reads(())
@pytest.mark.parametrize("folder", [*recorded_directories()])
def test_every_recorded_directory_is_read_as_it_was_exported(tmp_path, folder):
    check_round_trip(tmp_path, as_the_engine_exports(read_tree(str(folder)).document))


@pytest.mark.parametrize(("name", "document"), list(own_documents()), ids=lambda value: str(value)[:20])
def test_every_document_of_ours_is_read_as_it_was_exported(tmp_path, name, document):
    check_round_trip(tmp_path, as_the_engine_exports(document))


PROJECTS = recorded("pkg-*/project*/metadata/**/*")


@reads(PROJECTS)
@pytest.mark.parametrize("folder", sorted({file.partition("/metadata/")[0] for file in PROJECTS}))
def test_recorded_projects_are_written_as_they_are(folder):
    tree = read_tree(str(GOLDEN / folder / "metadata"))
    files = render_files(tree.document)
    assert {name: files[name] for name in tree.files} == tree.files


@pytest.mark.parametrize("project", [
    REPOSITORY / "hasura", pytest.param(REAL / "learn-graphql-services", marks=wants_shared(REAL.name)),
], ids=lambda path: path.name)  # fmt: skip
def test_canonical_projects_are_written_byte_for_byte(project):
    tree = read_tree(str(project / "metadata"))
    files = render_files(tree.document)
    assert {name: files[name] for name in tree.files} == tree.files
    more = {name: text for name, text in files.items() if name not in tree.files}
    assert all(text in ("[]\n", "{}\n") for text in more.values())


@wants_shared(REAL.name)
@pytest.mark.parametrize("name", ["aerie", "bdjuno", "learn-graphql-services"])
def test_real_trees_keep_what_does_not_change(tmp_path, name):
    tree = read_tree(str(REAL / name / "metadata"))
    assert planned(tree, changed(tree)) == {}
    document = changed(tree)
    tables = document["sources"][0]["tables"]
    tables[2]["is_enum"] = True
    gone = tables.pop(1)
    files = planned(tree, document)
    assert len([text for text in files.values() if text is None]) == 1
    assert len(files) == 3
    listed = next(text for file, text in files.items() if file.endswith("/tables.yaml"))
    before = tree.files[next(file for file in files if file.endswith("/tables.yaml"))]
    assert len(before.splitlines()) - len(listed.splitlines()) == 1, gone


NEW_PROJECTS = recorded("cmd-init/**/*")


@reads(NEW_PROJECTS)
@pytest.mark.parametrize("file", NEW_PROJECTS)
def test_recorded_new_projects(file):
    document = {"version": 2, "tables": []} if "config-v2" in file else {"version": 3}
    assert render_files(document)["version.yaml"].strip() == recorded_text(file).strip()
