"""Gathers what the commands of `migrate` decide on: files, ledger, scripts, checksums."""

from __future__ import annotations

from collections import namedtuple

from nself_core.failures import FileFailure, UsageFailure
from nself_core.migrations import files, ledger, planning
from nself_core.migrations.directives import TO_BE_WRITTEN
from nself_core.migrations.script import read_script

Survey = namedtuple("Survey", "listing ledger entries")
Survey.__doc__ = "The project's Listing, the database's Ledger, and the Entry of every version that either knows."


def survey(settings, database):
    """Read files and ledger and compare them; changes nothing.

    Raises FileFailure for files that cannot be used, and what Database.rows raises.
    """
    listing = files.find_migrations(settings)
    known = ledger.read_ledger(database)
    return Survey(listing, known, planning.list_entries(listing.migrations, known, checksum_of))


def checksum_of(migration):
    """The checksum of a migration's up file, SHA-256 in hexadecimal."""
    return files.checksum_of_file(migration.up_path, migration.file)


def read_ups(entries):
    """The Works that apply `entries`: every file is read and split here, before anything runs.

    Raises FileFailure with file and line for the first that must not run.
    """
    works = []
    for entry in entries:
        migration = entry.migration
        text = files.read_text(migration.up_path, migration.file)
        script = read_script(text, migration.file)
        works.append(planning.Work(migration, script, "up", files.checksum(text)))
    return works


def read_downs(entries):
    """The Works that roll `entries` back; raises FileFailure for a down file that was never written."""
    works = []
    for entry in entries:
        migration = entry.migration
        text = files.read_text(migration.down_path, migration.down_file)
        if TO_BE_WRITTEN in text:
            raise FileFailure("this down file is still to be written", "write what undoes the migration and take the mark out",
                              file=migration.down_file)
        script = read_script(text, migration.down_file)
        if script.mode == "self_test":
            raise FileFailure("this down file ends in ROLLBACK, so it would undo nothing", file=migration.down_file)
        works.append(planning.Work(migration, script, "down", checksum_of(migration)))
    return works


def find_entry(entries, version):
    """The Entry of `version` (a number). Raises UsageFailure when neither files nor the ledger know it."""
    for entry in entries:
        if entry.version == version:
            return entry
    raise UsageFailure(f"no migration has version {version}", "see: nself-db migrate status")
