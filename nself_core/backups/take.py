"""Takes a backup: pg_dump beside the server, its stream hashed, encrypted, written and sent in one pass.

Until its manifest stands beside it, nothing looks like a backup: the dump is written under a hidden name, brought to
disk, and only then given its own. What a killed run leaves is a hidden `.part`, which `backup prune` removes; in the
object store, an upload that was never completed, which `backup prune --remote` takes back.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections import namedtuple

from nself_core.backups import folder as folders
from nself_core.backups import remote as remotes
from nself_core.backups import send, verify_remote
from nself_core.backups.age import Encrypting, check_recipients, read_recipients, sealed
from nself_core.backups.manifest import check_connections, document, read_facts, write_manifest
from nself_core.backups.names import (
    CUSTOM,
    DIRECTORY,
    MANIFEST,
    PLAIN,
    TAR,
    check_label,
    ending_of,
    file_name,
    read_name,
)
from nself_core.backups.tar import Unpacking
from nself_core.backups.verify import GOOD, HASH_ONLY, UNREAD, examine
from nself_core.disk import sync
from nself_core.failures import CheckFailed, Failure, Unreachable, UsageFailure
from nself_core.output import Report, bytes_text, duration_text
from nself_core.plan import Plan, Step
from nself_core.postgres.tools import (
    ToolFailed,
    command_of,
    failure_of_tool,
    program_version,
    runs_in_container,
    scripted,
    stream,
)

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

Job = namedtuple("Job", "folder label format ending arguments facts details verify recipients destination keeps")
Job.__doc__ = """A backup to take.

`folder`, the Folder where it goes; `label`, `format` and `ending`, of its name; `arguments`, for pg_dump; `facts`, the
manifest's of the database; `details`, the manifest's of who takes it; `verify`, whether it is read whole afterwards;
`recipients`, for whom it is encrypted; `destination`, the send.Destination where it is uploaded to, or None; `keeps`,
whether it is written to the folder.
"""

Options = namedtuple("Options", "label format compress jobs verify remote no_local", defaults=(False, False))
Options.__doc__ = "The options of `backup` by which `plan_backup` plans, for who takes one without a command line."

Dumped = namedtuple("Dumped", "bytes sha256 words plain")
Dumped.__doc__ = """What was dumped.

Its `bytes` and SHA-256 in hex, what pg_dump said, and of what was encrypted the same two as {"bytes", "sha256"}.
"""


def plan_backup(settings, facts, args):
    """The Plan of `backup`.

    Arguments: `facts`, of `manifest.read_facts`; `args`, the options, as those of Options. Raises UsageFailure for what
    pg_dump, or this server's version, does not take, Unreachable where there is no `age` to encrypt with.
    """
    label, form, compress, jobs = args.label, args.format, args.compress, args.jobs
    check_label(label)
    arguments = [f"--format={FORMAT_LETTERS[form]}", "--no-password", *compression(form, compress, facts)]
    if jobs is not None and form != DIRECTORY:
        raise UsageFailure(f"--jobs works with --format directory only, not with {form}")
    if jobs is not None:
        check_connections(jobs, facts)
        arguments.append(f"--jobs={jobs}")
    recipients = read_recipients(settings)
    _check_stream(form, recipients, args)
    check_recipients(recipients)
    destination = None
    if args.remote:
        destination = send.Destination(remotes.open_remote(settings), settings.env, facts["database"])
    ending = ending_of(form, compress not in (None, "0"), bool(recipients))
    details = {"format": form, "label": label, "env": settings.env, "project": settings.project_name}
    job = Job(
        folders.backup_folder(settings), label, form, ending, arguments, facts, details, args.verify, recipients,
        destination, not args.no_local,
    )  # fmt: skip
    later = folders.later_names(job.folder, time.time()) if job.keeps else []
    return Plan([Step("backup", title, work=job) for title in _titles(job)], _later(job.folder, later))


def _later(folder, names):
    """A warning where backups are there of a time to come: this one is not the newest then."""
    if not names:
        return []
    told = f"{os.path.join(folder.shown, names[0])} has a time that is still to come: a clock is wrong, or was"
    return [f"{told}; until then `restore` and `backup prune` take it for newer than this backup"]


def _check_stream(form, recipients, args):
    """Raise UsageFailure where a folder is wanted and only a stream will do."""
    if args.no_local and not args.remote:
        raise UsageFailure("--no-local leaves no backup at all without --remote")
    if form == DIRECTORY and args.no_local:
        raise UsageFailure(
            "--no-local sends a stream, and a directory is none", "leave out --no-local, or use --format custom"
        )
    if form == DIRECTORY and recipients:
        raise UsageFailure("a directory is not encrypted: age takes a stream", "use --format custom")


def _titles(job):
    """What taking a backup does, step by step, for people."""
    name = file_name(time.time(), job.label, job.ending)
    file, key = os.path.join(job.folder.shown, name), None
    if job.destination:
        tar = TAR if job.format == DIRECTORY else ""
        key = remotes.shown_key(job.destination.remote, send.key_of(job.destination, name + tar))
    encrypted = f", encrypted by age for {', '.join(job.recipients)}" if job.recipients else ""
    target = f" into {file}" if job.keeps else ""
    yield f"dump {job.facts['database']}{target}{encrypted}: pg_dump {' '.join(job.arguments)}"
    if key and job.format != DIRECTORY:
        yield f"send it meanwhile to {key}, in parts"
    if job.keeps:
        yield f"write what it is of, and its SHA-256, into {file}{MANIFEST}"
    if key and job.format == DIRECTORY:
        yield f"send it as a tar to {key}, in parts"
    if key:
        yield f"store its manifest, last, as {key}{MANIFEST}"
    if job.verify:
        yield f"read {file if job.keeps else key} whole"


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


def progress_label(job):
    """What stands before the bytes that are dumped: how many come nobody knows, the database's size gives an idea."""
    return f"dumped of a database of {bytes_text(job.facts['size_bytes'])}"


def take(database, job, progress):
    """Take the backup of a Job and return the Report.

    Argument: `progress(done)`, told the bytes so far. Raises Unreachable (no server, disk full, no object store),
    CredentialsRefused (of the store), SqlFailure (pg_dump's own words), FileFailure.
    """
    begun = time.time()
    sending = send.Sending(job.destination, not job.keeps) if job.destination else None
    try:
        name, dumped, warnings = (_take_here if job.keeps else _take_away)(database, job, begun, sending, progress)
    except OSError as error:
        raise folders.write_failure(job.folder.shown, error) from error
    except ToolFailed as failed:
        raise failure_of_tool(database, failed) from None
    finally:
        if sending:
            sending.leave()
    seconds = time.time() - begun
    if job.verify:
        warnings += _verify(database, job, name)
    return _report(job, name, dumped, seconds, warnings, sending)


def _take_here(database, job, begun, sending, progress):
    """Take it into the folder, and beside that send it; returns its name, the Dumped and warnings."""
    place = job.folder.path
    os.makedirs(place, mode=0o700, exist_ok=True)
    name, part = _reserve(job, begun, sending)
    path = os.path.join(place, name)
    try:
        dumped = _dump(database, job, part, sending, progress)
        manifest, warnings = _manifest(database, job, name, dumped, begun)
        _finish(part, path, manifest)
    except BaseException:
        with contextlib.suppress(OSError):  # why it failed is the news
            folders.remove(part)
        raise
    if sending:
        if job.format == DIRECTORY:
            send.send_file(sending, path, progress)
        sending.finish(lambda done: send.object_manifest(manifest, done))
    return name, dumped, warnings


def _reserve(job, seconds, sending):
    """A name that is free here and in the object store, and the path of its hidden part; see `folder.reserve`."""
    while True:
        name, part = folders.reserve(job.folder.path, seconds, job.label, job.ending)
        if sending is None or _is_begun(sending, name + (TAR if job.format == DIRECTORY else ""), part):
            return name, part
        folders.remove(part)
        seconds = read_name(name).seconds + 1


def _is_begun(sending, file, part):
    """Whether the object `file` is not there yet, and so the upload's; `part` is not left where that ends otherwise."""
    try:
        is_free = sending.is_free(file)
        if is_free:
            sending.begin(file)
    except BaseException:
        folders.remove(part)
        raise
    return is_free


def _take_away(database, job, begun, sending, progress):
    """Take it into the object store alone; returns what `_take_here` does."""
    seconds = begun
    while not sending.is_free(file_name(seconds, job.label, job.ending)):
        seconds += 1
    name = file_name(seconds, job.label, job.ending)
    sending.begin(name)
    dumped = _dump_stream(database, job, [sending], progress)
    manifest, warnings = _manifest(database, job, name, dumped, begun)
    sending.finish(lambda done: manifest)
    return name, dumped, warnings


def _manifest(database, job, name, dumped, begun):
    """The manifest of what was dumped, and warnings."""
    version, words = program_version(dumped.words)
    roles, unread = _globals(database, job)
    dump = {"file": name, "bytes": dumped.bytes, "sha256": dumped.sha256, "pg_dump": version, "globals": roles}
    times = {"started_at": _stamp(begun), "finished_at": _stamp(time.time())}
    rows, changed = _lasting(database, job.facts)
    whole = document({**job.facts, "estimated_rows": rows}, {**job.details, **dump, **times})
    if job.recipients:
        whole = sealed({**whole, "content": dumped.plain}, job.recipients)
    return whole, [*(line for line in words.split("\n") if "warning: " in line), *unread, *changed]


def _lasting(database, facts):
    """The estimated rows of `facts`, of tables that are there after the dump, too, and warnings where nobody can tell.

    A table that was dropped before the dump took its snapshot is not in it, and a restore would miss it.
    """
    rows = facts["estimated_rows"]
    try:
        later = read_facts(database)["estimated_rows"]
    except Failure as failure:
        return rows, [f"whether tables were dropped meanwhile is not known: {failure.message}"]
    return {name: number for name, number in rows.items() if name in later}, []


def _finish(part, path, manifest):
    """Give the whole dump its name, and its manifest. Raises OSError, and then there is neither."""
    folders.give_name(part, path)
    try:
        write_manifest(path, manifest)
        sync(os.path.dirname(path))
    except BaseException:
        folders.remove(path + MANIFEST)
        folders.remove(path)
        raise


def _verify(database, job, name):
    """Read the backup whole; returns warnings. What cannot be read loses its manifest: it is not to look good."""
    shown, (state, reason), disown = (_examine_here if job.keeps else _examine_away)(database, job, name)
    if state not in (GOOD, UNREAD):
        with contextlib.suppress(OSError, Failure):  # that it cannot be read is the news
            disown()
        raise CheckFailed(
            f"the backup was written, and cannot be read: {reason}", "it is left without manifest", file=shown
        )
    return [f"{shown}: {HASH_ONLY}"] if state == UNREAD else []


def _examine_here(database, job, name):
    """(the backup for people, its state and reason, what takes its manifest away), of the file or folder."""
    backup = folders.find_backup(job.folder, os.path.join(job.folder.path, name))
    examined = examine(database, backup)
    return os.path.join(job.folder.shown, name), examined, lambda: folders.remove(backup.path + MANIFEST)


def _examine_away(database, job, name):
    """The same of the object."""
    remote = job.destination.remote
    found = remotes.find_backup(remote, name, job.destination.database, job.folder.identity)
    examined = verify_remote.examine(database, remote, found, job.folder)
    return found.shown, examined, lambda: remote.store.delete(found.key + MANIFEST)


def _dump(database, job, part, sending, progress):
    """Dump into `part`, a file or a folder that is there, and beside it to `sending`; returns the Dumped."""
    if job.format == DIRECTORY:
        words = _dump_directory(database, job, part, job.facts["server_version"], progress)
        size, digest = folders.measure_folder(part)
        return Dumped(size, digest, words, None)
    with open(part, "wb") as file:
        dumped = _dump_stream(database, job, [file.write, *([sending] if sending else [])], progress)
        file.flush()
        os.fsync(file.fileno())
    return dumped


def _dump_stream(database, job, sinks, progress):
    """Dump to each of `sinks`, functions of bytes, encrypted where there are recipients; returns the Dumped."""
    measuring = folders.Measuring(sinks, progress)
    command = command_of(database, "pg_dump", job.arguments, job.facts["server_version"], True)
    if not job.recipients:
        words = stream(command, measuring, idle=lambda: progress(measuring.size))
        return Dumped(measuring.size, measuring.hexdigest, words, None)
    encrypting = Encrypting(job.recipients, measuring)
    try:
        words = stream(command, encrypting, idle=lambda: progress(measuring.size))
        encrypting.finish()
    finally:
        encrypting.end()
    plain = {"bytes": encrypting.size, "sha256": encrypting.hexdigest}
    return Dumped(measuring.size, measuring.hexdigest, words, plain)


def _dump_directory(database, job, part, version, progress):
    if runs_in_container(database, "pg_dump", version):
        return _unpack_directory(database, job, part, progress)
    target = os.path.join(part, "dump")
    command = command_of(database, "pg_dump", [*job.arguments, f"--file={target}"], version, True)
    words = stream(command, idle=lambda: progress(folders.size(target)))
    for name in os.listdir(target):
        os.rename(os.path.join(target, name), os.path.join(part, name))
    os.rmdir(target)
    folders.settle(part)
    return words


def _unpack_directory(database, job, part, progress):
    command = scripted(database, "pg_dump", DIRECTORY_IN_CONTAINER, job.arguments, job.facts["server_version"])
    unpacking = Unpacking(part, progress)
    try:
        words = stream(command, unpacking, idle=lambda: progress(folders.size(part)))
        unpacking.close()
    finally:
        unpacking.abandon()
    sync(part)
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


def _report(job, name, dumped, seconds, warnings, sending):
    """The Report. Raises what says that the upload did not happen, where it did not."""
    file = os.path.join(job.folder.shown, name) if job.keeps else None
    trouble = sending.trouble if sending else None
    key = sending.shown if sending and not trouble else None
    data = {
        "file": file,
        "format": job.format,
        "bytes": dumped.bytes,
        "sha256": dumped.sha256,
        "remote": key,
        "duration_ms": round(seconds * 1000),
    }
    send.raise_trouble(trouble, file, data, warnings)
    told = f"{bytes_text(dumped.bytes)} in {duration_text(seconds)}"
    places = " and ".join(filter(None, (file, key)))
    return Report(data, (), f"backed up {job.facts['database']} to {places}: {told}", warnings)
