"""A host whose only client programs are newer than the server: pg_restore's transaction_timeout is no failure there."""

from __future__ import annotations

import os

import pytest
from bed.gaps import Gap, not_run
from bed.local_processes import WHEEL_INSTALLS, wheel_folder
from test_restore import CATALOGUE, backup, filled

from nself_core.backups import folder as folders
from nself_core.backups import load, manifest
from nself_core.failures import SqlFailure
from nself_core.postgres import tools
from nself_core.postgres.database import Database
from nself_core.settings import load_settings


@pytest.fixture
def ready(plain_project, make_database, monkeypatch):
    """ready(options) -> (what loads a backup taken with these options into a fresh database, that database)."""
    try:
        newer = str(wheel_folder() / WHEEL_INSTALLS[18] / "bin")
    except Gap as gap:
        not_run(gap.what, gap.reason)
    if plain_project.database.server.version >= 17:
        not_run("a pg_restore newer than the server", "this host's server is 17 or later")
    filled(plain_project)
    opened = []

    def make(*options):
        path = str(plain_project.root / backup(plain_project, *options))
        fresh = make_database(plain_project.database.server)
        settings = load_settings(project=str(plain_project.root), environ=dict(os.environ), cwd=str(plain_project.root))
        database = Database(settings, "restore").sibling(fresh.name)
        opened.append(database)
        version = manifest.read_facts(database)["server_version"]
        found = folders.find_backup(folders.Folder(os.path.dirname(path), "backups"), path)
        monkeypatch.setattr(tools, "find_clients", lambda program, major=0: [os.path.join(newer, program)])
        return lambda jobs=None: load.load(database, found, jobs, version), fresh

    yield make
    for database in opened:
        database.close()


@pytest.mark.parametrize("options", [[], ["--format", "directory"]], ids=" ".join)
@pytest.mark.parametrize("jobs", [None, 2])
def test_the_one_setting_is_passed_over(ready, plain_project, options, jobs):
    act, fresh = ready(*options)
    act(jobs)
    assert fresh.admin(CATALOGUE) == plain_project.database.admin(CATALOGUE)


@pytest.mark.parametrize("jobs", [None, 2])
def test_any_other_error_counts(ready, jobs):
    act, fresh = ready()
    fresh.admin("CREATE TABLE parent (other int)")
    with pytest.raises(SqlFailure):
        act(jobs)


ONE = 'pg_restore: error: could not execute query: ERROR:  unrecognized configuration parameter "transaction_timeout"\n'


@pytest.mark.parametrize(
    ("words", "harmless"),
    [
        (ONE + "pg_restore: warning: errors ignored on restore: 1", True),
        (ONE * 4 + "pg_restore: warning: errors ignored on restore: 2", True),
        (ONE, False),
        (ONE + "pg_restore: warning: errors ignored on restore: 2", False),
        (ONE * 2 + "pg_restore: error: other\npg_restore: warning: errors ignored on restore: 2", False),
        ("x" * 70000 + ONE + "pg_restore: warning: errors ignored on restore: 1", False),
    ],
)
def test_which_words_are_harmless(words, harmless):
    assert load._is_harmless(words) is harmless
