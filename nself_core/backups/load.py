"""Loads a backup into an empty database: pg_restore or psql beside the server, stopping at the first error."""

from __future__ import annotations

from nself_core.backups.folder import CHUNK
from nself_core.backups.names import CUSTOM, PLAIN
from nself_core.backups.verify import content, opened
from nself_core.failures import UsageFailure
from nself_core.postgres.tools import ToolFailed, command_of, failure_of_tool, stream

FOLDER_IN_CONTAINER = (
    "folder=$(mktemp -d) && trap 'rm -rf \"$folder\"' EXIT && "
    '{ tar -C "$folder" -xf - && pg_restore "$@" "$folder"; }; '
    'code=$?; echo "nself-exit $code" >&2; exit $code'
)
# pg_restore reads a custom dump from a pipe only with one job; several want a file.
FILE_IN_CONTAINER = (
    "file=$(mktemp) && trap 'rm -f \"$file\"' EXIT && "
    '{ cat > "$file" && pg_restore "$@" "$file"; }; '
    'code=$?; echo "nself-exit $code" >&2; exit $code'
)


def load(target, backup, jobs, server_version):
    """Load a Backup into the database `target`. Raises SqlFailure with pg_restore's words, Unreachable.

    Arguments: `jobs`, how many tables at once, or None; `server_version`, the server's server_version_num.
    """
    try:
        if backup.name.format == PLAIN:
            stream(command_of(target, "psql", _psql_arguments()), source=_text(backup))
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
    """Raise UsageFailure where pg_restore would have to read a stream with several jobs, which it cannot."""
    if jobs and backup.name.is_encrypted and database.reach.kind != "container":
        raise UsageFailure("--jobs wants a file to read from, and an encrypted backup is decrypted as a stream")


def _text(backup):
    """The text of a plain dump, in pieces."""
    with opened(backup.name, content(backup)) as file:
        while data := file.read(CHUNK):
            yield data


def _run_pg_restore(target, backup, jobs, server_version):
    arguments = ["--exit-on-error", "--no-password"]
    if target.reach.kind != "url":  # there, the URL names the database
        arguments.append(f"--dbname={target.reach_database}")
    arguments += [f"--jobs={jobs}"] if jobs else []
    command = command_of(target, "pg_restore", arguments, server_version)
    if not command.in_container and backup.name.is_encrypted:
        stream(command, source=content(backup))
        return
    if not command.in_container:
        stream(command._replace(argv=[*command.argv, backup.path]))
        return
    single = backup.name.format == CUSTOM and not jobs
    if single:
        stream(command, source=content(backup))
        return
    script = FILE_IN_CONTAINER if backup.name.format == CUSTOM else FOLDER_IN_CONTAINER
    at = command.argv.index("sh")
    stream(command._replace(argv=[*command.argv[:at], "sh", "-c", script, "sh", *arguments]), source=content(backup))
