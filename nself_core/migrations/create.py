"""A new migration: its version, its name, and its two files, written whole.

For simple statements the down file holds their undos (see `undo`). For all else it says that it is to be written,
and `migrate down` refuses it until it is.
"""

from __future__ import annotations

import errno
import os
import time

from nself_core.disk import sync
from nself_core.failures import FileFailure, Unreachable, UsageFailure
from nself_core.migrations.files import LARGEST_VERSION
from nself_core.migrations.undo import undo
from nself_core.output import Report
from nself_core.plan import Plan, Step
from nself_core.sql.directives import TO_BE_WRITTEN, read_head
from nself_core.sql.lexer import split
from nself_core.sql.script import NO_TRANSACTION, SELF_TEST, read_script
from nself_core.sql.statements import is_session_setting

NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_-")
LONGEST_NAME = 100
CLAIM_SECONDS = 5
NO_TRANSACTION_MARK = "-- nself:no-transaction\n"

UP_TO_WRITE = f"""\
{TO_BE_WRITTEN}
-- {{name}}: write the statements of this migration here and remove the line above. They run in one transaction.
-- What undoes them belongs into {{down}}.
"""
DOWN_MADE = "-- Undoes {up}; made from its statements.\n"
DOWN_TO_WRITE = f"""\
{TO_BE_WRITTEN}
-- Write the statements that undo {{up}} and remove the line above: while it stands, migrate down refuses this file.
"""


def plan_command(name, sql, listing):
    """The Plan of `migrate create`: one step a file.

    Arguments: `name` and `sql` as for `plan_create`; `listing`, what `files.find_migrations` found.
    """
    versions = [migration.version for migration in listing.migrations]
    pairs = plan_create(name, sql, versions, time.gmtime(), listing.folder)
    steps = []
    for path, text in pairs:
        file = f"{listing.shown_folder}/{os.path.basename(path)}"
        steps.append(Step("file", f"write {file}", text, None, False, (path, text, file)))
    return Plan(steps)


def apply_steps(steps, plan_again):
    """Writes the files of `plan_command`'s steps and returns the Report of `migrate create`.

    Argument: `plan_again()`, gives the steps by the folder as it is now: where another run has taken the version
    meanwhile, this one takes the next.
    """
    folder, name = os.path.split(steps[0].work[0])
    with _Claim(folder):
        if _is_taken(folder, name.partition("_")[0]):
            steps = plan_again()
        apply_create([step.work[:2] for step in steps])
    files = [step.work[2] for step in steps]
    unwritten = [file for _, text, file in (step.work for step in steps) if TO_BE_WRITTEN in text]
    warnings = [f"{file} is to be written: until then migrate refuses it" for file in unwritten]
    version = os.path.basename(files[0]).partition("_")[0]
    return Report({"files": files, "version": version}, (), f"created {' and '.join(files)}", warnings)


def plan_create(name, sql, versions, now, folder):
    """The two files of a new migration, as a list of (path, text): the up file, then the down file.

    Arguments: `name`, of a-z, 0-9, _ and -; `sql`, the up file's statements, or None; `versions`, the numbers that
    are taken; `now`, the time in UTC as `time.gmtime()` gives it (year to second
    first); `folder`, where they belong. Raises UsageFailure for a name or SQL that will not do.
    """
    check_name(name)
    stem = f"{next_version(versions, now)}_{name}"
    up, down = f"{stem}.sql", f"{stem}.down.sql"
    if sql is None:
        texts = (UP_TO_WRITE.format(name=name, down=down), DOWN_TO_WRITE.format(up=up))
    else:
        script = _checked(sql)
        texts = (_up_text(sql, script), _down_text(script, up))
    return [(os.path.join(folder, file), text) for file, text in zip((up, down), texts)]


def check_name(name):
    """Raises UsageFailure, with a better name as hint, where `name` cannot be a migration's.

    A name that ends in `_down` would make the up file a down file (see `files`).
    """
    better = _cleaned(name)
    hint = f"did you mean {better}?" if better else None
    if not name or not NAME_CHARACTERS.issuperset(name):
        raise UsageFailure(f"{name!r} is no name for a migration: it may hold a-z, 0-9, _ and -", hint)
    if len(name) > LONGEST_NAME:
        raise UsageFailure(f"the name has {len(name)} characters, and {LONGEST_NAME} are allowed", hint)
    if f"_{name}".endswith("_down"):
        raise UsageFailure(f"a file whose name ends in _down is a down file, so {name} is no name", hint)


def _cleaned(name):
    """A name near to `name` that will do, or an empty text."""
    import re
    import unicodedata

    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).casefold()
    plain = unicodedata.normalize("NFKD", words).encode("ascii", "ignore").decode()
    short = re.sub(r"[^a-z0-9_-]+", "_", plain).strip("_-")[:LONGEST_NAME].rstrip("_-")
    return re.sub(r"_down$", "down", short) if short != "down" else ""


def next_version(versions, now):
    """The version of a new migration: the time as YYYYMMDDHHMMSS, or what follows the newest where that is above.

    Arguments as for `plan_create`. After a newest that is such a time comes the next second, after any other number
    the next number.
    """
    stamp = int(f"{now[0]:04}" + "".join(f"{part:02}" for part in now[1:6]))
    newest = max(versions, default=-1)
    if stamp > newest:
        return stamp
    version = _a_second_later(newest) or newest + 1
    if version > LARGEST_VERSION:
        raise UsageFailure(f"no version is left above {newest}", "the newest migration has the largest possible number")
    return version


def _a_second_later(version):
    """The time a second after `version`, in the same 14 digits; None where it is not a time."""
    import datetime

    form = "%Y%m%d%H%M%S"
    if len(str(version)) != 14:
        return None
    try:
        return int((datetime.datetime.strptime(str(version), form) + datetime.timedelta(seconds=1)).strftime(form))
    except (ValueError, OverflowError):
        return None


def _checked(sql):
    """The `Script` of the SQL; what is wrong with it is wrong with the command line."""
    try:
        sql.encode("utf-8")
        script = read_script(sql, None, None)
    except UnicodeEncodeError as error:
        raise UsageFailure("--sql is not UTF-8") from error
    except FileFailure as failure:
        place = {"file": "--sql", "line": failure.line, "column": failure.column}
        raise UsageFailure(failure.message, failure.hint, **place) from failure
    if not script.statements:
        raise UsageFailure("--sql holds no statement", "leave --sql out to write the file by hand")
    return script


def _up_text(sql, script):
    """The SQL as given, with a `;` behind its last statement and, where it is needed, the mark for no transaction."""
    last = script.statements[-1]
    end = last.offset + len(last.text)
    if last.copy_data is None and not sql[end:].lstrip().startswith(";"):
        sql = f"{sql[:end]};{sql[end:]}"
    marked = script.mode != NO_TRANSACTION or read_head(sql, split(sql), None).no_transaction
    return ("" if marked else NO_TRANSACTION_MARK) + sql.strip() + "\n"


def _down_text(script, up):
    """The down file for the statements of an up file: their undos, the last first, or the mark."""
    settings, others = _settings_first(script.statements)
    undos = [undo(statement) for statement in reversed(others)]
    made = None not in undos and script.mode != SELF_TEST
    if not made and not any(undos):
        return DOWN_TO_WRITE.format(up=up)
    lines = [f"{statement.text};" for statement in settings]
    lines += [f"{undone};" if undone else _by_hand(statement) for undone, statement in zip(undos, reversed(others))]
    head = DOWN_MADE if made else DOWN_TO_WRITE
    mark = NO_TRANSACTION_MARK if any("CONCURRENTLY" in (undone or "").split() for undone in undos) else ""
    return mark + head.format(up=up) + "".join(f"{line}\n" for line in lines)


def _settings_first(statements):
    """The SET and RESET before everything else, which the down file repeats, and the other statements."""
    count = 0
    while count < len(statements) and is_session_setting(statements[count]):
        count += 1
    return statements[:count], statements[count:]


def _by_hand(statement):
    return f"-- to be undone by hand: {' '.join(statement.text.split())[:80]}"


def apply_create(pairs):
    """Writes the files of `plan_create` whole and overwrites nothing; returns their paths.

    Each is written under a temporary name in its folder (which is made where it is not there), brought to disk, and
    only then given its name; where one fails, those before it are taken away again. Raises FileFailure where a file
    is there already or cannot be written, Unreachable where the disk is full.
    """
    made: list[str] = []
    for path, text in pairs:
        try:
            _write_new(path, text.encode("utf-8"))
        except OSError as error:
            for earlier in made:
                os.unlink(earlier)
            raise _write_failure(path, error) from error
        made.append(path)
    return made


class _Claim:
    """The folder's lock, where its file system has one and nobody else holds it for long; made where it is not there.

    Without it two runs in one second may choose one version, which the next listing names.
    """

    def __init__(self, folder):
        self._folder = folder
        self._handle = -1

    def __enter__(self):
        import fcntl

        try:
            os.makedirs(self._folder, exist_ok=True)
            self._handle = os.open(self._folder, os.O_RDONLY)
        except OSError as error:
            raise _write_failure(self._folder, error) from error
        deadline = time.monotonic() + CLAIM_SECONDS
        while time.monotonic() < deadline:
            try:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                time.sleep(0.05)
            except OSError:
                return

    def __exit__(self, *_):
        os.close(self._handle)


def _is_taken(folder, version):
    return any(name.startswith(f"{version}_") for name in os.listdir(folder))


def _write_failure(path, error):
    if isinstance(error, FileExistsError):
        return FileFailure("there is such a file already", "run the command again", file=path)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Unreachable("the disk is full", file=path)
    return FileFailure(f"cannot be written: {error.strerror}", file=path)


def _write_new(path, data):
    folder, name = os.path.split(path)
    os.makedirs(folder or os.curdir, exist_ok=True)
    # A hidden name is no migration (see `files`), should the process die before it is taken away.
    temporary = os.path.join(folder, f".{name}.{os.getpid()}")
    try:
        with open(temporary, "xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        _give_name(temporary, path)
    finally:
        _remove(temporary)
    sync(folder or os.curdir)


def _give_name(temporary, path):
    """Gives a file its name if that is free. A file system without hard links takes an empty file as the claim."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        os.replace(temporary, path)


def _remove(path):
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
