"""Which files are migrations: names, versions, folders, links, texts and checksums."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import namedtuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nself_core.failures import FileFailure, UsageFailure
from nself_core.migrations import files

Settings = namedtuple("Settings", "root migrations_folders")
FOLDERS = ("migrations", "hasura/migrations/default", "hasura/migrations")


@pytest.fixture
def project(tmp_path):
    """A function that writes files (name -> text) below a fresh root and returns its settings."""

    def write(*names, **texts):
        for name in names:
            texts[name] = "SELECT 1;\n"
        for name, text in texts.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return Settings(str(tmp_path), FOLDERS)

    return write


def shown(listing):
    """What a listing holds, as (version, name, up, down)."""
    return [(one.version, one.name, one.file, one.down_file) for one in listing.migrations]


def files_of(listing):
    return [one.file for one in listing.migrations]


# Forms


@pytest.mark.parametrize(
    ("up", "down"),
    [
        ("migrations/0007_users.sql", "migrations/0007_users.down.sql"),
        ("migrations/0007_users.sql", "migrations/0007_users_down.sql"),
        ("migrations/0007_users.sql", "migrations/0007_users.DOWN.SQL"),
        ("migrations/0007_users.sql", "migrations/0007_users_Down.sql"),
        ("migrations/0007_users.sql", "migrations/0007_users_down.down.sql"),
        ("migrations/0007_users.sql", "migrations/0007_down.sql"),
        ("migrations/0007_users.sql", "migrations/0007.down.sql"),
        ("migrations/0007_users.sql", "migrations/07_other_name.down.sql"),
        ("migrations/0007_users.up.sql", "migrations/0007_users.down.sql"),
        ("migrations/0007_users.UP.sql", "migrations/0007_users.down.sql"),
        ("migrations/0007_users/up.sql", "migrations/0007_users/down.sql"),
        ("migrations/0007_users/up.sql", "migrations/0007_users.down.sql"),
        ("migrations/default/0007_users.sql", "migrations/default/0007_users.down.sql"),
        ("migrations/default/0007_users/up.sql", "migrations/default/0007_users/down.sql"),
        ("migrations/app/0007_users/up.sql", "migrations/app/0007_users/down.sql"),
        ("hasura/migrations/default/7_users/up.sql", "hasura/migrations/default/7_users/down.sql"),
        ("hasura/migrations/app/7_users/up.sql", "hasura/migrations/app/7_users/down.sql"),
    ],
)
def test_a_form_is_recognised_with_its_down(project, up, down):
    listing = files.find_migrations(project(up, down))
    assert shown(listing) == [(7, "users", up, down)]
    assert listing.warnings == ()


def test_paths_can_be_opened(project):
    settings = project("migrations/1_a.sql", "migrations/1_a.down.sql")
    (migration,) = files.find_migrations(settings).migrations
    assert migration.up_path == os.path.join(settings.root, "migrations/1_a.sql")
    assert migration.down_path == os.path.join(settings.root, "migrations/1_a.down.sql")


def test_a_migration_without_a_down(project):
    (migration,) = files.find_migrations(project("migrations/1_a.sql")).migrations
    assert (migration.down_path, migration.down_file) == (None, None)


@pytest.mark.parametrize(
    "name",
    [
        "0001_x.rollback.sql",
        "0001_x.sqlite.sql",
        "0001_x.up.sqlite.sql",
        "0001_x.sqlite.down.sql",
        "0001_x.sqlite.up.sql",
        ".0001_x.sql",
        "rollbacks/0001_x.rollback.sql",
        "rollbacks/0001_x.sql",
        "sqlite/0001_x.sql",
        ".trash/0001_x.sql",
        "README.md",
        "0001_x.sql.bak",
        "0001_x.txt",
        "0001_x.up.yaml",
    ],
)
def test_what_is_plainly_something_else_is_passed_over(project, name):
    listing = files.find_migrations(project("migrations/0002_y.sql", f"migrations/{name}"))
    assert files_of(listing) == ["migrations/0002_y.sql"]
    assert listing.warnings == ()


@pytest.mark.parametrize("name", ["init.sql", "V1__init.sql", "0001-init.sql", "0001.sql", "١_x.sql"])
def test_sql_without_a_version_is_warned_of(project, name):
    listing = files.find_migrations(project(f"migrations/{name}"))
    assert listing.migrations == ()
    (warning,) = listing.warnings
    assert os.path.basename(name) in warning


def test_a_down_without_an_up_is_warned_of_and_not_run(project):
    listing = files.find_migrations(project("migrations/0001_a.sql", "migrations/0002_b_down.sql"))
    assert files_of(listing) == ["migrations/0001_a.sql"]
    assert listing.warnings == ("down files without an up file: migrations/0002_b_down.sql",)


def test_a_folder_with_only_a_down_is_warned_of(project):
    listing = files.find_migrations(project("migrations/0002_b/down.sql"))
    assert listing.migrations == ()
    assert "migrations/0002_b/down.sql" in listing.warnings[0]


def test_a_version_folder_without_sql_is_warned_of(project):
    listing = files.find_migrations(project("migrations/0002_b/up.yaml"))
    assert listing.warnings == ("migrations/0002_b holds no up.sql",)


def test_many_strays_make_one_short_warning(project):
    listing = files.find_migrations(project(*(f"migrations/note{number}.sql" for number in range(9))))
    (warning,) = listing.warnings
    assert warning.endswith("and 4 more")


def test_a_name_that_ends_in_down_can_be_an_up_when_it_says_so(project):
    listing = files.find_migrations(project("migrations/5_shut_down.up.sql", "migrations/5_shut_down.down.sql"))
    assert shown(listing) == [(5, "shut_down", "migrations/5_shut_down.up.sql", "migrations/5_shut_down.down.sql")]


def test_of_several_downs_the_plainest_is_used_and_the_others_are_named(project):
    names = ("1_x.sql", "1_x_down.sql", "1_x_down.down.sql", "1_x.down.sql")
    listing = files.find_migrations(project(*(f"migrations/{name}" for name in names)))
    assert listing.migrations[0].down_file == "migrations/1_x.down.sql"
    (warning,) = listing.warnings
    assert "migrations/1_x_down.down.sql, migrations/1_x_down.sql" in warning


def test_an_empty_file_is_a_migration(project):
    settings = project(**{"migrations/1_a/up.sql": ""})
    assert files_of(files.find_migrations(settings)) == ["migrations/1_a/up.sql"]


# Versions


def test_order_is_by_number_not_by_text(project):
    names = ("migrations/10_b.sql", "migrations/9_a.sql", "migrations/0011_c.sql", "migrations/00001_z.sql")
    listing = files.find_migrations(project(*names))
    assert [one.version for one in listing.migrations] == [1, 9, 10, 11]
    assert [one.version_text for one in listing.migrations] == ["1", "9", "10", "11"]


@settings(deadline=None)
@given(numbers=st.lists(st.integers(0, files.LARGEST_VERSION), unique=True, max_size=12), padding=st.integers(0, 6))
def test_any_versions_come_back_sorted(tmp_path_factory, numbers, padding):
    root = tmp_path_factory.mktemp("project")
    (root / "migrations").mkdir()
    for number in numbers:
        (root / "migrations" / f"{'0' * (number % (padding + 1))}{number}_x.sql").touch()
    listing = files.find_migrations(Settings(str(root), FOLDERS))
    assert [one.version for one in listing.migrations] == sorted(numbers)


@pytest.mark.parametrize(
    "pair",
    [
        ("migrations/0007_a.sql", "migrations/7_b.sql"),
        ("migrations/7_a.sql", "migrations/7_a.up.sql"),
        ("migrations/7_a.sql", "migrations/7_a/up.sql"),
        ("migrations/7_a.sql", "migrations/default/7_a.sql"),
        ("migrations/20260207_a.sql", "migrations/20260207_b.sql"),
    ],
)
def test_two_ups_with_one_version_are_refused_and_named(project, pair):
    with pytest.raises(FileFailure) as caught:
        files.find_migrations(project(*pair))
    assert all(name in caught.value.message for name in pair)
    assert caught.value.data["duplicates"][0]["files"] == sorted(pair)


def test_three_ups_with_one_version_are_all_named(project):
    names = [f"migrations/20260207_{letter}.sql" for letter in "abc"]
    with pytest.raises(FileFailure, match="3 migrations have the version 20260207") as caught:
        files.find_migrations(project(*names))
    assert all(name in caught.value.message for name in names)


def test_the_largest_bigint_is_a_version(project):
    listing = files.find_migrations(project(f"migrations/000{2**63 - 1}_x.sql"))
    assert listing.migrations[0].version == 2**63 - 1


@pytest.mark.parametrize("version", [str(2**63), "9" * 40, "1" + "0" * 200])
def test_a_version_beyond_bigint_is_refused(project, version):
    with pytest.raises(FileFailure, match="beyond") as caught:
        files.find_migrations(project(f"migrations/{version}_x.sql"))
    assert caught.value.file == f"migrations/{version}_x.sql"


def test_version_zero_is_allowed(project):
    listing = files.find_migrations(project("migrations/0000_init.sql"))
    assert listing.migrations[0].version_text == "0"


def test_mixed_schemes_work_and_are_warned_of(project):
    names = ("7_a", "00013_b", "20240501_c", "1714550400_d", "1714550400123_e", "20240501120000_f")
    listing = files.find_migrations(project(*(f"migrations/{name}.sql" for name in names)))
    assert [one.scheme for one in listing.migrations] == [
        "number", "number", "date", "unix seconds", "unix milliseconds", "date and time",
    ]  # fmt: skip
    (warning,) = listing.warnings
    assert "5 schemes" in warning
    assert "20240501120000" in warning


def test_one_scheme_is_not_warned_of(project):
    assert files.find_migrations(project("migrations/7_a.sql", "migrations/00013_b.sql")).warnings == ()


@pytest.mark.parametrize(("text", "version"), [("13", 13), ("00013", 13), (" 13 ", 13), ("0", 0), ("000", 0)])
def test_any_spelling_of_a_version_is_an_argument(text, version):
    assert files.parse_version(text) == version


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "1_000", "١", "²", str(2**63), "9" * 5000, "13_users.sql"])
def test_a_bad_version_argument_is_refused(text):
    with pytest.raises(UsageFailure):
        files.parse_version(text)


def test_a_file_name_given_as_version_gets_the_number_as_hint():
    with pytest.raises(UsageFailure) as caught:
        files.parse_version("migrations/0013_users.sql")
    assert caught.value.hint == "give the number alone: 0013"


# Folders


def test_no_folder_is_an_empty_listing_with_a_warning(project):
    listing = files.find_migrations(project())
    assert listing.migrations == ()
    assert listing.warnings == ("there is no folder migrations, and so no migrations",)
    assert listing.shown_folder == "migrations"


def test_an_empty_folder_holds_no_migrations(project):
    settings = project("migrations/.gitkeep")
    assert files.find_migrations(settings)[:2] == ((), ())


def test_the_first_folder_that_is_there_counts(project):
    listing = files.find_migrations(project("migrations/1_a.sql", "hasura/migrations/default/2_b/up.sql"))
    assert files_of(listing) == ["migrations/1_a.sql"]


def test_a_folder_outside_the_root_is_shown_as_it_is(project, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "1_a.sql").touch()
    listing = files.find_migrations(Settings(project().root, (str(outside),)))
    assert files_of(listing) == [f"{outside}/1_a.sql"]


def test_top_and_default_are_read_together(project):
    listing = files.find_migrations(project("migrations/2_b.sql", "migrations/default/1_a/up.sql"))
    assert files_of(listing) == ["migrations/default/1_a/up.sql", "migrations/2_b.sql"]
    assert listing.shown_folder == "migrations"


def test_a_new_migration_belongs_to_the_source_folder_when_all_are_there(project):
    settings = project("migrations/default/1_a/up.sql")
    listing = files.find_migrations(settings)
    assert listing.shown_folder == "migrations/default"
    assert listing.folder == os.path.join(settings.root, "migrations/default")


def test_another_source_beside_migrations_is_warned_of(project):
    listing = files.find_migrations(project("migrations/1_a.sql", "migrations/other/2_b.sql"))
    assert files_of(listing) == ["migrations/1_a.sql"]
    assert listing.warnings == ("the migrations in migrations/other are not read",)


def test_two_sources_are_refused(project):
    with pytest.raises(FileFailure) as caught:
        files.find_migrations(project("migrations/one/1_a/up.sql", "migrations/two/2_b/up.sql"))
    assert "migrations/one, migrations/two" in caught.value.message


def test_a_folder_that_cannot_be_read_is_a_failure(project):
    settings = project("migrations")
    with pytest.raises(FileFailure, match="cannot be read") as caught:
        files.find_migrations(settings)
    assert caught.value.file == "migrations"


def test_a_folder_without_permission_is_a_failure(project):
    settings = project("migrations/1_a.sql")
    script = (
        "import os, sys; from collections import namedtuple\n"
        "from nself_core.migrations import files; import nself_core.failures\n"
        "os.getuid() or os.setuid(65534)\n"
        "try: files.find_migrations(namedtuple('S', 'root migrations_folders')(sys.argv[1], ['migrations']))\n"
        "except nself_core.failures.FileFailure as failure: print(failure.message)\n"
    )
    os.chmod(os.path.join(settings.root, "migrations"), 0)
    _let_others_reach(settings.root)
    run = subprocess.run([sys.executable, "-c", script, settings.root], capture_output=True, text=True, cwd=os.getcwd())
    os.chmod(os.path.join(settings.root, "migrations"), 0o755)
    assert run.stdout == "cannot be read: Permission denied\n", run.stderr


def _let_others_reach(path):
    while path != "/" and os.stat(path).st_uid == os.getuid():
        os.chmod(path, os.stat(path).st_mode | 0o011)
        path = os.path.dirname(path)


def test_a_source_that_cannot_be_read_is_only_noted(project):
    settings = project("migrations/1_a.sql", f"migrations/other/{2**63}_b.sql")
    listing = files.find_migrations(settings)
    assert files_of(listing) == ["migrations/1_a.sql"]


# Links


def link(settings, target, name):
    path = os.path.join(settings.root, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    os.symlink(target, path)


def test_the_migrations_folder_may_be_a_link(project):
    settings = project("elsewhere/1_a.sql")
    link(settings, "elsewhere", "migrations")
    assert files_of(files.find_migrations(settings)) == ["migrations/1_a.sql"]


def test_a_file_may_be_a_link(project):
    settings = project("elsewhere/a.sql")
    link(settings, "../elsewhere/a.sql", "migrations/1_a.sql")
    assert files_of(files.find_migrations(settings)) == ["migrations/1_a.sql"]


def test_a_version_folder_may_be_a_link(project):
    settings = project("elsewhere/up.sql", "elsewhere/down.sql")
    link(settings, "../elsewhere", "migrations/1_a")
    assert shown(files.find_migrations(settings)) == [(1, "a", "migrations/1_a/up.sql", "migrations/1_a/down.sql")]


def test_a_source_folder_may_be_a_link(project):
    settings = project("elsewhere/1_a.sql")
    link(settings, "../elsewhere", "migrations/default")
    assert files_of(files.find_migrations(settings)) == ["migrations/default/1_a.sql"]


@pytest.mark.parametrize("target", [".", "..", "default"])
def test_a_link_that_leads_back_is_not_followed(project, target):
    settings = project("migrations/1_a.sql")
    link(settings, target, "migrations/default")
    assert files_of(files.find_migrations(settings)) == ["migrations/1_a.sql"]


@pytest.mark.parametrize(("name", "target"), [("1_a.sql", "gone.sql"), ("1_a.sql", "1_a.sql"), ("1_a", "gone")])
def test_a_link_to_nothing_is_a_failure(project, name, target):
    settings = project()
    link(settings, target, f"migrations/{name}")
    with pytest.raises(FileFailure) as caught:
        files.find_migrations(settings)
    assert caught.value.file == f"migrations/{name}"


def test_a_migrations_folder_that_links_to_nothing_is_a_failure(project):
    settings = project("hasura/migrations/default/1_a/up.sql")
    link(settings, "gone", "migrations")
    with pytest.raises(FileFailure, match="No such file"):
        files.find_migrations(settings)


def test_a_pipe_is_refused_and_not_waited_for(project):
    settings = project("migrations/1_a.sql")
    os.mkfifo(os.path.join(settings.root, "migrations/2_b.sql"))
    with pytest.raises(FileFailure, match="not a plain file"):
        files.find_migrations(settings)


def test_a_name_that_is_not_utf8_is_refused(project):
    settings = project("migrations/1_a.sql")
    try:
        open(os.path.join(os.fsencode(settings.root), b"migrations/2_\xe9.sql"), "w").close()
    except OSError:
        pytest.skip("this file system refuses such a name itself")
    with pytest.raises(FileFailure, match="not UTF-8"):
        files.find_migrations(settings)
