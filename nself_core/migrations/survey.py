"""Gathers what the commands of `migrate` decide on: files, ledger, scripts, checksums."""

from __future__ import annotations

from collections import namedtuple

from nself_core.failures import CheckFailed, FileFailure, UsageFailure
from nself_core.migrations import files, ledger, planning
from nself_core.sql import source

SQL_ANY_RECORD = "SELECT version FROM nself_db.migrations LIMIT 1"

Survey = namedtuple("Survey", "listing ledger entries")
Survey.__doc__ = "The project's Listing, the database's Ledger, and the Entry of every version that either knows."

Recording = namedtuple("Recording", "migration mode statements checksum problem")
Recording.__doc__ = """What is recorded of a migration that is not run here.

Its file's `mode`, `statements` and `checksum`; `problem`, the FileFailure for which `up` would refuse the file, else
None: another tool may have run it all the same.
"""


def survey(settings, database):
    """Read files and ledger and compare them; changes nothing.

    Raises FileFailure for files that cannot be used, and what Database.rows raises.
    """
    database.begin()
    database.ask_first(ledger.SQL_FACTS)
    listing = files.find_migrations(settings)
    answer = ledger.ask_ledger(database)
    checksums = _checksums_ahead(listing.migrations)
    known = answer()

    def checksum(migration):
        return checksums.get(migration.version) or checksum_of(migration)

    return Survey(listing, known, planning.list_entries(listing.migrations, known, checksum))


def _checksums_ahead(migrations):
    """The checksums of all files that can be read, by version; made while the server answers."""
    checksums = {}
    for migration in migrations:
        try:
            checksums[migration.version] = checksum_of(migration)
        except FileFailure:
            continue  # told where its checksum is wanted
    return checksums


def survey_for_run(settings, database):
    """As `survey`, for what runs migrations: refuses a database whose version table has been dropped."""
    found = survey(settings, database)
    facts = found.ledger.facts
    if facts["records"] and not facts["versions"] and database.rows(SQL_ANY_RECORD):
        raise CheckFailed(
            "hdb_catalog.schema_migrations is gone, but nself_db.migrations still knows applied migrations",
            "record what is applied anew: nself-db migrate baseline VERSION",
        )
    return found


def choose_again(found, choose):
    """A function of a Ledger that gives the versions chosen by it; the Survey's own Ledger is not asked again.

    Arguments: `found`, the Survey that the plan rests on; `choose(entries)`, which gives the entries to run.
    """

    def versions(known):
        if known.records == found.ledger.records:
            return [entry.version for entry in choose(found.entries)]
        return [entry.version for entry in choose(planning.list_entries(found.listing.migrations, known, checksum_of))]

    return versions


def checksum_of(migration):
    """The checksum of a migration's up file, SHA-256 in hexadecimal."""
    return source.checksum_of_file(migration.up_path, migration.file)


def read_ups(entries):
    """The Works that apply `entries`: every file is read and split here, before anything runs.

    Raises FileFailure with file and line for the first that must not run.
    """
    return [_read_up(entry) for entry in entries]


def _read_up(entry):
    # Imported where a file is split: status and a run with nothing to do are 20 ms faster for it.
    from nself_core.sql.script import read_script

    migration = entry.migration
    text = source.read_text(migration.up_path, migration.file)
    checksum = source.checksum(text)
    script = read_script(text, migration.file, checksum)
    planning.check_resumed(entry, script)
    return planning.Work(migration, script, "up", checksum, text)


def read_downs(entries):
    """The Works that roll `entries` back; raises FileFailure, too, for a down file that was never written."""
    return [_read_down(entry) for entry in entries]


def _read_down(entry):
    from nself_core.sql.script import SELF_TEST, read_down_script

    migration = entry.migration
    text = source.read_text(migration.down_path, migration.down_file)
    script = read_down_script(text, migration.down_file, source.checksum(text))
    if script.mode == SELF_TEST:
        raise FileFailure("this down file ends in ROLLBACK, so it would undo nothing", file=migration.down_file)
    planning.check_resumed(entry, script)
    return planning.Work(migration, script, "down", checksum_of(migration), text)


def read_recordings(entries):
    """The Recordings of `entries`, each with its file; raises FileFailure only for a file that cannot be opened."""
    return [_read_recording(entry.migration) for entry in entries]


def _read_recording(migration):
    from nself_core.sql.script import TRANSACTION, read_script

    checksum = checksum_of(migration)
    try:
        script = read_script(source.read_text(migration.up_path, migration.file), migration.file, checksum)
    except FileFailure as problem:
        return Recording(migration, TRANSACTION, (), checksum, problem)
    return Recording(migration, script.mode, script.statements, checksum, None)


def find_entry(entries, version):
    """The Entry of `version` (a number). Raises UsageFailure when neither files nor the ledger know it."""
    for entry in entries:
        if entry.version == version:
            return entry
    raise UsageFailure(f"no migration has version {version}", "see: nself-db migrate status")
