"""Loads a backup into an empty database: pg_restore or psql beside the server, stopping at the first error."""

from __future__ import annotations

import os
import re

from nself_core.backups.folder import CHUNK
from nself_core.backups.names import DIRECTORY, PLAIN
from nself_core.backups.tar import tar_size
from nself_core.backups.verify import content, opened
from nself_core.failures import FileFailure, UsageFailure
from nself_core.postgres.tools import (
    FILE,
    FOLDER,
    KEPT_WORDS,
    PIPE,
    ToolFailed,
    command_of,
    failure_of_tool,
    runs_in_container,
    stream,
)

# A pg_restore since 17 sets transaction_timeout, which a server before 17 does not know: the one error that is none.
UNKNOWN_SETTING = 'unrecognized configuration parameter "transaction_timeout"'
IGNORED = re.compile(r"errors ignored on restore: (\d+)")
INDEX_MEMORY = 128 << 20  # bytes, to sort what an index is built of: half of the server's default spills to disk sooner
SQL_MEMORY = "SELECT pg_catalog.pg_size_bytes(pg_catalog.current_setting('maintenance_work_mem')) AS bytes"


def tuning(database, jobs):
    """Server settings, by name, with which a database is loaded sooner; what it has more of already stays.

    Argument: `jobs`, how many tables at once, or None. Where they are as many as this host has processors, an index is
    built by one process: its parallel workers would only take the processors from the other jobs.
    """
    parameters = {}
    if database.rows(SQL_MEMORY)[0]["bytes"] < INDEX_MEMORY:
        parameters["maintenance_work_mem"] = f"{INDEX_MEMORY >> 20}MB"
    if jobs and jobs >= (os.cpu_count() or 1):
        parameters["max_parallel_maintenance_workers"] = "0"
    return parameters


def load(target, backup, jobs, server_version):
    """Load a Backup into the database `target`. Raises SqlFailure with pg_restore's words, Unreachable.

    Arguments: `jobs`, how many tables at once, or None; `server_version`, the server's server_version_num.
    """
    try:
        if backup.name.format == PLAIN:
            _feed(target, "psql", _psql_arguments(), backup, PIPE)
        else:
            _run_pg_restore(target, backup, jobs, server_version)
    except ToolFailed as failed:
        raise failure_of_tool(target, failed) from None


def _psql_arguments():
    return [
        "--no-psqlrc",
        "--quiet",
        "--no-password",
        "--set=ON_ERROR_STOP=1",
        "--single-transaction",
        "--output=/dev/null",
        "--file=-",
    ]


def check_jobs(database, backup, jobs):
    """Raise UsageFailure where what loads it would have to read a stream with several jobs, which it cannot."""
    if jobs and backup.name.format == PLAIN:
        raise UsageFailure("--jobs does not go with a plain dump: psql runs it as one stream")
    if jobs and backup.name.is_encrypted and not runs_in_container(database, "pg_restore"):
        raise UsageFailure("--jobs wants a file to read from, and an encrypted backup is decrypted as a stream")


def _feed(target, program, arguments, backup, how, server_version=None):
    """Run a program that reads a backup by `how`, see command_of."""
    size = size_of(backup)
    command = command_of(target, program, arguments, server_version, fed=(how, size))
    stream(command, source=source_of(backup, size))


def source_of(backup, size):
    """What is loaded of a backup, in pieces: pg_dump's own bytes, a folder's as a tar, of a plain dump its text.

    Raises FileFailure where it is not of `size` bytes: who reads it would wait for the rest.
    """
    given = 0
    for data in _pieces(backup):
        given += len(data)
        yield data
    if given != size:
        raise FileFailure("it was changed while it was read", file=backup.shown)


def size_of(backup):
    """The bytes that `source_of` gives; where nothing says how many, it is read for that."""
    if backup.name.format == DIRECTORY:
        return tar_size(backup.path)
    if backup.name.format == PLAIN:
        return sum(map(len, _pieces(backup)))
    if not backup.name.is_encrypted:
        return os.path.getsize(backup.path)
    known = (backup.manifest or {}).get("content")
    return known["bytes"] if known else sum(map(len, _pieces(backup)))


def _pieces(backup):
    if backup.name.format != PLAIN:
        yield from content(backup)
        return
    with opened(backup.name, content(backup)) as file:
        while data := file.read(CHUNK):
            yield data


def _run_pg_restore(target, backup, jobs, server_version):
    arguments = ["--no-password"]
    if target.reach.kind != "url":  # there, the URL names the database
        arguments.append(f"--dbname={target.reach_database}")
    arguments += [f"--jobs={jobs}"] if jobs else []
    how = _how(target, backup, jobs, server_version)
    try:
        _load_once(target, backup, ["--exit-on-error", *arguments], how, server_version)
    except ToolFailed as failed:
        if UNKNOWN_SETTING not in failed.words:
            raise
        _load_past_setting(target, backup, arguments, how, server_version)


def _how(target, backup, jobs, server_version):
    """By what pg_restore is given the backup, see command_of; None where it opens the file itself."""
    if not runs_in_container(target, "pg_restore", server_version):
        return PIPE if backup.name.is_encrypted else None
    # From a pipe it reads a custom dump, and with one job only.
    return FOLDER if backup.name.format == DIRECTORY else FILE if jobs else PIPE


def _load_once(target, backup, arguments, how, server_version):
    if how:
        _feed(target, "pg_restore", arguments, backup, how, server_version)
        return
    stream(command_of(target, "pg_restore", [*arguments, backup.path], server_version, watched=True))


def _load_past_setting(target, backup, arguments, how, server_version):
    """Run pg_restore again, to its end, where its first setting has ended it; any other error counts."""
    try:
        _load_once(target, backup, arguments, how, server_version)
    except ToolFailed as failed:
        if not _is_harmless(failed.words):
            raise


def _is_harmless(words):
    """Whether all the errors that a pg_restore told are of the one setting. Those of its jobs' starts it counts not."""
    errors = [line for line in words.split("\n") if "error: " in line]
    ignored = IGNORED.search(words)
    whole = len(words) < KEPT_WORDS // 4  # of more, the beginning may be lost; a character has up to 4 bytes
    return (
        whole
        and ignored is not None
        and int(ignored[1]) <= len(errors)
        and all(UNKNOWN_SETTING in line for line in errors)
    )
