"""Takes a backup: pg_dump beside the server, its stream hashed and written in one pass, its manifest last.

Until its manifest stands beside it, nothing looks like a backup: the dump is written under a hidden name, brought to
disk, and only then given its own. What a killed run leaves is a hidden `.part`, which `backup prune` removes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from collections import namedtuple

from nself_core.backups import folder as folders
from nself_core.backups.manifest import document, write_manifest
from nself_core.backups.names import CUSTOM, DIRECTORY, MANIFEST, PLAIN, check_label, ending_of, file_name
from nself_core.backups.tar import Unpacking
from nself_core.backups.verify import GOOD, examine
from nself_core.failures import CheckFailed, FileFailure, Unreachable, UsageFailure
from nself_core.output import Report, bytes_text, duration_text
from nself_core.plan import Plan, Step
from nself_core.postgres.tools import ToolFailed, command_of, failure_of_tool, program_version, stream

FORMAT_LETTERS = {CUSTOM: "c", PLAIN: "p", DIRECTORY: "d"}
DEFAULT_LEVEL = "6"
# A directory can be dumped only where there is room beside the server; it comes out of the container as one stream.
# The shell waits for its children in the background, so that it can still clear up when it is told to end.
DIRECTORY_IN_CONTAINER = (
    'echo "nself-program $(pg_dump --version)" >&2; folder=$(mktemp -d) || exit 1; trap \'rm -rf "$folder"\' EXIT; '
    'trap \'kill "$child"; wait "$child"; exit 143\' TERM; '
    'pg_dump --file "$folder/dump" "$@" >&2 & child=$!; wait "$child" || exit; '
    'tar -C "$folder/dump" -cf - . & child=$!; wait "$child"'
)
COMPRESSION = re.compile(r"[0-9]|(zstd|lz4)(?::[0-9]{1,3})?")

Job = namedtuple("Job", "folder shown label format ending arguments facts details verify")
Job.__doc__ = """A backup to take.

`folder`, where it goes, and `shown`, the same for people; `label`, `format` and `ending`, of its name; `arguments`, for
pg_dump; `facts`, the manifest's of the database; `details`, the manifest's of who takes it; `verify`, whether it is
read whole afterwards.
"""


Options = namedtuple("Options", "label format compress jobs verify")
Options.__doc__ = "The options of `backup` by which `plan_backup` plans, for who takes one without a command line."


def plan_backup(settings, facts, args):
    """The Plan of `backup`.

    Arguments: `facts`, of `manifest.read_facts`; `args`, the options: label, format, compress, jobs, verify. Raises
    UsageFailure for what pg_dump, or this server's version, does not take.
    """
    label, form, compress, jobs = args.label, args.format, args.compress, args.jobs
    check_label(label)
    arguments = [f"--format={FORMAT_LETTERS[form]}", "--no-password", *compression(form, compress, facts)]
    if jobs is not None and form != DIRECTORY:
        raise UsageFailure(f"--jobs works with --format directory only, not with {form}")
    if jobs is not None:
        arguments.append(f"--jobs={jobs}")
    ending = ending_of(form, compress not in (None, "0"))
    details = {"format": form, "label": label, "env": settings.env, "project": settings.project_name}
    found = folders.backup_folder(settings)
    job = Job(found.path, found.shown, label, form, ending, arguments, facts, details, args.verify)
    name = os.path.join(found.shown, file_name(time.time(), label, ending))
    steps = [
        Step("backup", f"dump {facts['database']} into {name}: pg_dump {' '.join(arguments)}", work=job),
        Step("backup", f"write what it is of, and its SHA-256, into {name}{MANIFEST}"),
    ]
    if args.verify:
        steps.append(Step("backup", f"read {name} whole"))
    return Plan(steps)


def compression(form, compress, facts):
    """pg_dump's arguments for --compress: a level from 0 to 9, zstd[:LEVEL] or lz4[:LEVEL] (since Postgres 16)."""
    if compress is None:
        return [] if form == PLAIN else [f"--compress={DEFAULT_LEVEL}"]
    found = COMPRESSION.fullmatch(compress)
    if not found:
        raise UsageFailure(f"{compress!r} is no compression", "give a level from 0 to 9, zstd, zstd:LEVEL or lz4")
    method = found[1]
    if method and form == PLAIN:
        raise UsageFailure(f"a plain dump is compressed by gzip only, not by {method}", "give a level from 0 to 9")
    if method and facts["server_version"] < 160000:
        raise UsageFailure(f"pg_dump knows {method} since Postgres 16, and this is {facts['server']}")
    return [f"--compress={compress}"]


def take(database, job, progress):
    """Take the backup of a Job and return the Report.

    Argument: `progress(done)`, told the bytes so far. Raises Unreachable (no server, disk full), SqlFailure (pg_dump's
    own words), FileFailure.
    """
    begun = time.time()
    try:
        os.makedirs(job.folder, mode=0o700, exist_ok=True)
        name, part = folders.reserve(job.folder, begun, job.label, job.ending)
        path = os.path.join(job.folder, name)
        try:
            size, digest, words = _dump(database, job, part, progress)
            version, words = program_version(words)
            roles, unread = _globals(database, job)
            finished = time.time()
            dump = {"file": name, "bytes": size, "sha256": digest, "pg_dump": version, "globals": roles}
            times = {"started_at": _stamp(begun), "finished_at": _stamp(finished)}
            _finish(part, path, document(job.facts, {**job.details, **dump, **times}))
        except BaseException:
            with contextlib.suppress(OSError):  # why it failed is the news
                folders.remove(part)
            raise
    except OSError as error:
        raise write_failure(job.shown, error) from error
    except ToolFailed as failed:
        raise failure_of_tool(database, failed) from None
    if job.verify:
        _verify(database, job, name)
    warnings = [*(line for line in words.split("\n") if "warning: " in line), *unread]
    return _report(job, name, size, digest, finished - begun, warnings)


def _finish(part, path, manifest):
    """Give the whole dump its name, and its manifest. Raises OSError, and then there is neither."""
    folders.give_name(part, path)
    try:
        write_manifest(path, manifest)
        folders.sync(os.path.dirname(path))
    except BaseException:
        folders.remove(path + MANIFEST)
        folders.remove(path)
        raise


def _verify(database, job, name):
    backup = folders.find_backup(folders.Folder(job.folder, job.shown), os.path.join(job.folder, name))
    state, reason = examine(database, backup)
    if state != GOOD:
        raise CheckFailed(f"the backup was written, and cannot be read: {reason}", file=os.path.join(job.shown, name))


def write_failure(place, error):
    """The failure of a backup folder that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Unreachable(f"the disk is full: {place}", "make room, or set BACKUP_DIR to another place")
    return FileFailure(f"cannot be written: {error.strerror}", file=place)


def _dump(database, job, part, progress):
    """Dump into `part`, a file or a folder that is there; returns (bytes, SHA-256 in hex, what pg_dump said)."""
    version = job.facts["server_version"]
    if job.format == DIRECTORY:
        words = _dump_directory(database, job, part, version, progress)
        return (*folders.measure_folder(part), words)
    with open(part, "wb") as file:
        sink = folders.HashingFile(file, progress)
        words = stream(command_of(database, "pg_dump", job.arguments, version, True), sink)
        file.flush()
        os.fsync(file.fileno())
    return sink.size, sink.hexdigest, words


def _dump_directory(database, job, part, version, progress):
    if database.reach.kind == "container":
        return _unpack_directory(database, job, part, progress)
    target = os.path.join(part, "dump")
    words = stream(command_of(database, "pg_dump", [*job.arguments, f"--file={target}"], version, True))
    for name in os.listdir(target):
        os.rename(os.path.join(target, name), os.path.join(part, name))
    os.rmdir(target)
    folders.settle(part)
    return words


def _unpack_directory(database, job, part, progress):
    script = ["-c", DIRECTORY_IN_CONTAINER, "sh", *job.arguments]
    command = command_of(database, "sh", script, watched=True)._replace(program="pg_dump")
    unpacking = Unpacking(part, progress)
    try:
        words = stream(command, unpacking)
        unpacking.close()
    finally:
        unpacking.abandon()
    folders.sync(part)
    return words


def _stamp(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _globals(database, job):
    """The cluster's roles and tablespaces as SQL, without passwords, and warnings where they may not be read."""
    # As a connection string: a name that looks like one would be taken for one.
    name = job.facts["database"].replace("\\", "\\\\").replace("'", "\\'")
    arguments = ["--globals-only", "--no-role-passwords", "--no-password", f"--database=dbname='{name}'"]
    text = bytearray()
    try:
        stream(command_of(database, "pg_dumpall", arguments, job.facts["server_version"], True), text.extend)
    except ToolFailed as failed:
        return None, [f"the backup is without roles and tablespaces: {failure_of_tool(database, failed).message}"]
    except Unreachable as failure:
        return None, [f"the backup is without roles and tablespaces: {failure.message}"]
    return text.decode("utf-8", "replace"), []


def _report(job, name, size, digest, seconds, warnings):
    file = os.path.join(job.shown, name)
    data = {
        "file": file,
        "format": job.format,
        "bytes": size,
        "sha256": digest,
        "remote": None,
        "duration_ms": round(seconds * 1000),
    }
    told = f"{bytes_text(size)} in {duration_text(seconds)}"
    return Report(data, (), f"backed up {job.facts['database']} to {file}: {told}", warnings)
