"""Which files are seeds, for which environments, and what their heads say."""

from __future__ import annotations

import os

import pytest
from bed.seeds import find_in

from nself_core.failures import CheckFailed, FileFailure, UsageFailure
from nself_core.seeds.directives import read_head
from nself_core.seeds.files import choose, find_dependency, find_seed, is_for


def head(text, comment="--"):
    return read_head(text, comment, "seeds/a.sql")


def names(seeds):
    return [seed.file for seed in seeds]


# The head.


def test_all_that_a_head_can_say():
    said = head(
        "-- Some words.\n-- +seed:env dev, staging\n-- +seed:depends-on users.sql\n--+seed:depends-on a.sql,b.sql\n\n"
        "-- +seed:idempotent\n-- +seed:destructive\n-- +seed:verify SELECT 1, 2\n-- +seed:tag demo\nSELECT 1;\n"
    )
    assert said.envs == ("dev", "staging")
    assert [tuple(one) for one in said.depends] == [("users.sql", 3), ("a.sql", 4), ("b.sql", 4)]
    assert [tuple(one) for one in said.verify] == [("SELECT 1, 2", 8)]
    assert (said.tags, said.idempotent, said.destructive) == (("demo",), True, True)


def test_the_short_forms():
    said = head("// env: prod\n// depends: users.sql\n// verify: SELECT true\n", "//")
    assert said.envs == ("prod",)
    assert [one.text for one in (*said.depends, *said.verify)] == ["users.sql", "SELECT true"]


def test_aliases_of_environments_are_resolved():
    assert head("-- +seed:env production,local,ALL").envs == ("prod", "dev", "all")


@pytest.mark.parametrize("text", ["-- +seed:env\tdev\r\n", "-- +seed:env:  dev\n", "--   +seed:env   dev  \n"])
def test_space_of_any_kind_parts_word_and_value(text):
    assert head(text).envs == ("dev",)


def test_what_stands_behind_the_first_statement_says_nothing():
    assert head("SELECT 1;\n-- +seed:env prod\n").envs is None


def test_a_shebang_is_no_statement():
    assert head("#!/usr/bin/env node\n// +seed:env prod\n", "//").envs == ("prod",)


def test_a_line_counts_as_one_whatever_is_in_it():
    assert head("-- a\u2028b\x0cc\x85d\n-- +seed:depends-on x\n").depends[0].line == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-- +seed:depend-on a.sql", "+seed:depend-on is not a directive"),
        ("-- +seed:", "+seed: is not a directive"),
        ("-- +seed:env", "+seed:env says nothing"),
        ("-- +seed:env ,", "+seed:env says nothing"),
        ("-- +seed:depends-on , ,", "+seed:depends-on says nothing"),
        ("-- verify:", "+seed:verify says nothing"),
        ("-- +seed:idempotent yes", "+seed:idempotent takes no value"),
    ],
)
def test_a_directive_that_cannot_be_meant_is_refused_with_its_line(line, message):
    with pytest.raises(FileFailure) as caught:
        head(f"-- words\n{line}\n")
    assert caught.value.message == message
    assert caught.value.line == 2


def test_an_environment_that_cannot_be_one_is_refused_with_its_line():
    with pytest.raises(FileFailure) as caught:
        head("\n-- +seed:env dev staging\n")
    assert caught.value.line == 2


def test_a_near_word_is_offered():
    with pytest.raises(FileFailure) as caught:
        head("-- +seed:depend a.sql")
    assert caught.value.hint == "did you mean +seed:depends?"


# Which files.


def test_every_kind_at_any_depth_sorted_and_nothing_else(tmp_path):
    listing, _ = find_in(
        tmp_path,
        {
            **dict.fromkeys(["z.sql", "dev/deep/er/a.ts", "b.mts", "c.js", "d.mjs", "Upper.SQL"], ""),
            **{"t.csv": "a\n", "u.json": "[]"},
            **dict.fromkeys([".hidden.sql", "_shared.ts", "x.d.ts", "x.d.mts", "README.md", "package.json"], ""),
            **dict.fromkeys(["tsconfig.json", "node_modules/pkg/a.js", ".git/a.sql", "c.cts", "d.yaml"], ""),
        },
    )
    assert names(listing.seeds) == sorted(
        f"seeds/{name}"
        for name in ("z.sql", "dev/deep/er/a.ts", "b.mts", "c.js", "d.mjs", "Upper.SQL", "t.csv", "u.json")
    )


def test_no_folder_is_no_seeds_and_a_warning(tmp_path):
    listing, _ = find_in(tmp_path)
    assert listing.seeds == ()
    assert listing.warnings == ("there is no folder seeds, and so no seeds",)


def test_a_link_back_up_is_not_followed_for_ever(tmp_path):
    find_in(tmp_path, {"a.sql": ""})
    os.symlink(tmp_path / "seeds", tmp_path / "seeds" / "again")
    listing, _ = find_in(tmp_path)
    assert names(listing.seeds) == ["seeds/a.sql"]


def test_a_name_that_is_not_utf_8_is_refused(tmp_path):
    find_in(tmp_path, {"a.sql": ""})
    os.rename(tmp_path / "seeds" / "a.sql", os.fsencode(tmp_path / "seeds") + b"/\xff.sql")
    with pytest.raises(FileFailure, match="not UTF-8"):
        find_in(tmp_path)


@pytest.mark.parametrize("name", ["qu\"o'te.sql", "sp ace.sql", "ü€😀.sql", "$$.sql", "%s {0}.sql", "new\nline.sql"])
def test_names_of_any_kind(tmp_path, name):
    listing, settings = find_in(tmp_path, {name: ""})
    assert names(listing.seeds) == [f"seeds/{name}"]
    assert find_seed(listing, name, settings).file == f"seeds/{name}"


@pytest.mark.parametrize("content", [b"\xff\xfes\x00", b"-- caf\xe9\n", b"SELECT 1;\0"])
def test_an_sql_file_that_is_no_text_is_refused(tmp_path, content):
    with pytest.raises(FileFailure) as caught:
        find_in(tmp_path, {"a.sql": content})
    assert caught.value.file == "seeds/a.sql"


# For which environments.


@pytest.mark.parametrize(
    ("name", "text", "envs"),
    [
        ("a.sql", "", "dev staging test"),
        ("demo/a.sql", "", "dev staging test"),
        ("dev/a.sql", "", "dev"),
        ("development/a.sql", "", "dev"),
        ("prod/a.sql", "", "prod"),
        ("_common/a.sql", "", "dev staging test prod"),
        ("common/a.sql", "", "dev staging test prod"),
        ("all/a.sql", "", "dev staging test prod"),
        ("all/dev/a.sql", "", "dev"),
        ("dev/all/a.sql", "", "dev staging test prod"),
        ("prod/a.sql", "-- env: dev", "dev"),
        ("a.sql", "-- env: all", "dev staging test prod"),
        ("a.sql", "-- env: production", "prod"),
        ("t.csv", "a\n", "dev staging test"),
        ("prod/t.csv", "a\n", "prod"),
    ],
)
def test_for_which_environments_a_seed_is(tmp_path, name, text, envs):
    listing, _ = find_in(tmp_path, {name: text})
    assert [env for env in ("dev", "staging", "test", "prod") if is_for(listing.seeds[0], env)] == envs.split()


def test_a_folder_is_an_environment_where_the_project_has_one_of_that_name(tmp_path):
    listing, _ = find_in(tmp_path, {"qa/a.sql": ""})
    assert is_for(listing.seeds[0], "dev")
    (tmp_path / ".env.qa").touch()
    listing, _ = find_in(tmp_path)
    assert listing.seeds[0].envs == ("qa",)


# --file and --tag.


def test_file_may_be_a_path_from_anywhere_or_a_name(tmp_path, monkeypatch):
    listing, settings = find_in(tmp_path, {"dev/users.sql": "", "other.sql": ""})
    monkeypatch.chdir(tmp_path / "seeds")
    for said in ("users.sql", "dev/users.sql", "seeds/dev/users.sql", str(tmp_path / "seeds/dev/users.sql")):
        assert find_seed(listing, said, settings).file == "seeds/dev/users.sql"


@pytest.mark.parametrize("said", ["sers.sql", "none.sql", "dev", ""])
def test_a_file_that_is_no_seed_is_usage(tmp_path, said):
    listing, settings = find_in(tmp_path, {"dev/users.sql": ""})
    with pytest.raises(UsageFailure, match="there is no seed"):
        find_seed(listing, said, settings)


def test_a_name_that_two_have_is_usage(tmp_path):
    listing, settings = find_in(tmp_path, {"dev/users.sql": "", "all/users.sql": ""})
    with pytest.raises(UsageFailure, match="any of seeds/all/users.sql, seeds/dev/users.sql"):
        find_seed(listing, "users.sql", settings)


def test_a_file_for_other_environments_is_refused(tmp_path):
    listing, settings = find_in(tmp_path, {"prod/a.sql": "", "b.sql": ""})
    with pytest.raises(CheckFailed, match="is for prod, not for dev"):
        choose(listing, settings, "prod/a.sql")
    prod = find_in(tmp_path, env="prod")[1]
    with pytest.raises(CheckFailed, match="is for every environment but prod, not for prod"):
        choose(listing, prod, "b.sql")


def test_a_tag_is_a_folder_or_a_word_and_an_unknown_one_is_usage(tmp_path):
    listing, settings = find_in(tmp_path, {"demo/a.sql": "", "b.sql": "-- +seed:tag demo, x", "prod/demo/c.sql": ""})
    assert names(choose(listing, settings, tag="demo")) == ["seeds/b.sql", "seeds/demo/a.sql"]
    assert names(choose(listing, settings, tag="x")) == ["seeds/b.sql"]
    with pytest.raises(UsageFailure, match="no seed has the tag dem"):
        choose(listing, settings, tag="dem")


# What depends-on means.


@pytest.mark.parametrize(
    "said", ["users.sql", "./users.sql", "dev/users.sql", "../dev/users.sql", "seeds/dev/users.sql"]
)
def test_a_dependency_is_beside_or_named_from_the_seeds_folder(tmp_path, said):
    listing, _ = find_in(tmp_path, {"dev/users.sql": "", "all/users.sql": "", "dev/a.sql": f"-- depends: {said}"})
    seed = listing.seeds[1]
    assert find_dependency(seed, seed.head.depends[0], listing.seeds).file == "seeds/dev/users.sql"


@pytest.mark.parametrize(("said", "message"), [("none.sql", "no such seed"), ("users.sql", "may be any of")])
def test_a_dependency_that_is_none_or_several_is_an_error_with_its_line(tmp_path, said, message):
    listing, _ = find_in(
        tmp_path, {"dev/users.sql": "", "all/users.sql": "", "a.sql": f"-- words\n-- depends: {said}\n"}
    )
    seed = listing.seeds[0]
    with pytest.raises(FileFailure, match=message) as caught:
        find_dependency(seed, seed.head.depends[0], listing.seeds)
    assert caught.value.place == "seeds/a.sql:2"


# The checksum.


def test_line_ends_and_a_bom_do_not_change_the_checksum_of_text_but_every_byte_of_data_does(tmp_path):
    listing, _ = find_in(
        tmp_path,
        {"a.sql": "SELECT 1;\n", "b.sql": b"\xef\xbb\xbfSELECT 1;\r\n", "t.csv": "a\n1\n", "u.csv": "a\r\n1\r\n"},
    )
    a, b, t, u = (seed.checksum for seed in listing.seeds)
    assert a == b
    assert t != u
