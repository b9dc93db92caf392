"""Loads a backup into an empty database: pg_restore or psql beside the server, stopping at the first error."""

from __future__ import annotations

import os
import re

from nself_core.backups.names import CUSTOM, PLAIN
from nself_core.backups.tar import chunks, tar_of, tar_size, text_of
from nself_core.postgres.tools import FILE, FOLDER, KEPT_WORDS, PIPE, ToolFailed, command_of, failure_of_tool, stream

# A pg_restore since 17 sets transaction_timeout, which a server before 17 does not know: the one error that is none.
UNKNOWN_SETTING = 'unrecognized configuration parameter "transaction_timeout"'
IGNORED = re.compile(r"errors ignored on restore: (\d+)")


def load(target, backup, jobs, server_version):
    """Load a Backup into the database `target`. Raises SqlFailure with pg_restore's words, Unreachable.

    Arguments: `jobs`, how many tables at once, or None; `server_version`, the server's server_version_num.
    """
    try:
        if backup.name.format == PLAIN:
            size = sum(map(len, text_of(backup.path)))
            command = command_of(target, "psql", _psql_arguments(), fed=(PIPE, size))
            stream(command, source=text_of(backup.path))
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


def _run_pg_restore(target, backup, jobs, server_version):
    arguments = ["--no-password"]
    if target.reach.kind != "url":  # there, the URL names the database
        arguments.append(f"--dbname={target.reach_database}")
    arguments += [f"--jobs={jobs}"] if jobs else []
    if target.reach.kind == "container":
        arguments.append("--exit-on-error")  # the container's own pg_restore is as old as its server
        _feed(target, backup, arguments, jobs)
        return
    try:
        _load_from_here(target, backup, ["--exit-on-error", *arguments], server_version)
    except ToolFailed as failed:
        if UNKNOWN_SETTING not in failed.words:
            raise
        _load_past_setting(target, backup, arguments, server_version)


def _load_from_here(target, backup, arguments, server_version):
    stream(command_of(target, "pg_restore", [*arguments, backup.path], server_version, watched=True))


def _load_past_setting(target, backup, arguments, server_version):
    """Run pg_restore again, to its end, where its first setting has ended it; any other error counts."""
    try:
        _load_from_here(target, backup, arguments, server_version)
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


def _feed(target, backup, arguments, jobs):
    """Run pg_restore in the container. From a pipe it reads a custom dump, and with one job only."""
    if backup.name.format == CUSTOM:
        how, size, source = FILE if jobs else PIPE, os.path.getsize(backup.path), chunks(backup.path)
    else:
        how, size, source = FOLDER, tar_size(backup.path), tar_of(backup.path)
    stream(command_of(target, "pg_restore", arguments, fed=(how, size)), source=source)
