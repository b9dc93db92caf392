"""Puts a backup in place of the present database, so that a failure before the last step leaves everything as it was.

Checked first: manifest, hash, every byte, version, room. Then, with consent: a safety backup of the present state, a
restore into a new database beside it, ANALYZE, a comparison with the manifest, and only then the swap of names.
"""

from __future__ import annotations

import time
from collections import namedtuple

from nself_core.backups import analysis, comparison, exchange, in_place, load, swap
from nself_core.backups import folder as folders
from nself_core.backups.age import readable
from nself_core.backups.manifest import check_connections, check_restorable, read_metadata
from nself_core.backups.names import MANIFEST, SAFETY_LABEL
from nself_core.backups.pooler import is_enabled
from nself_core.backups.room import refuse_full
from nself_core.backups.verify import DAMAGED, GOOD, examine, misshapen
from nself_core.bookkeeping.lock import take_lock
from nself_core.bookkeeping.protection import refuse_protected
from nself_core.failures import CheckFailed, Failure, LockHeld, SqlFailure, UsageFailure
from nself_core.output import Report, bytes_text, duration_text
from nself_core.plan import Plan, Step
from nself_core.postgres.maintenance import find_keeper, maintenance_name
from nself_core.redaction import shown_text
from nself_core.sql.quoting import identifier

KEPT_ASIDE = "in the database that steps aside only"
KEPT_INSIDE = "in the safety backup only, where there is one; until all is loaded nobody reads or writes"

Job = namedtuple("Job", "backup name jobs safety server_version")
Job.__doc__ = """A restore.

`backup`, the Backup; `name`, the database it is put in place of; `jobs`, how many tables are loaded at once; `safety`,
the Job of the safety backup, or None; `server_version`, a number.
"""


def choose(folder, settings, database_name, file):
    """The Backup to restore: the one named by --file, else the newest of this environment's database.

    What a restore took of the state before it is restored only by name: a second `restore` would undo the first.
    Raises CheckFailed where there is none.
    """
    if file is not None:
        return folders.find_backup(folder, file)
    for backup in folders.list_backups(folder):
        manifest = backup.manifest or {}
        is_ours = manifest.get("env") == settings.env and manifest.get("database") == database_name
        is_ours = is_ours and manifest.get("project", settings.project_name) == settings.project_name
        if is_ours and backup.name.label != SAFETY_LABEL:
            return backup
    raise CheckFailed(
        f"there is no backup of {database_name} in {settings.env} in {folder.shown}",
        "name another one with --file; see: nself-db backup list",
    )


def passed_over(folder, backup):
    """Warnings of what `choose` passed over, though it is newer than its Backup and may be this database's.

    What others' manifests name as theirs is not told, nor what a restore took by itself.
    """
    newer = (each for each in folders.list_backups(folder) if each.name.seconds > backup.name.seconds)
    nameless = [each.shown for each in newer if each.manifest is None and each.name.label != SAFETY_LABEL]
    return [f"{shown} is newer, and passed over: its manifest is absent or damaged" for shown in nameless[:1]]


def check(database, backup, facts, jobs=None, is_here=True):
    """Warnings about a Backup that may be restored. Raises CheckFailed for one that may not.

    Arguments: `facts`, of `manifest.read_facts`, of the present database; `jobs`, how many processes may read it at
    once; `is_here`, whether the backup is, so that it can be read; one that is fetched first is read then.
    """
    state, reason = examine(database, backup, jobs or 1) if is_here else (GOOD, None)
    if state == DAMAGED:
        raise _damaged(backup, reason)
    manifest = backup.manifest
    if manifest is None:
        return [f"{backup.shown} has no manifest: it was read whole, but nothing says what it should be"]
    if manifest["server_version"] // 10000 > facts["server_version"] // 10000:
        raise CheckFailed(
            f"the backup is of Postgres {manifest['server']}, and this server is {facts['server']}",
            "restore it on a server of its own version or later",
            file=backup.shown,
        )
    return [*_still_to_come(backup), *_differences(manifest, facts)]


def _refuse_misshapen(backup, is_here):
    """Raise CheckFailed, or FileFailure, for what is no backup without that its bytes are looked at."""
    reason = misshapen(backup) if is_here else None
    if reason:
        raise _damaged(backup, reason)
    if backup.manifest:
        check_restorable(backup.manifest, backup.shown + MANIFEST)


def _damaged(backup, reason):
    return CheckFailed(f"the backup is damaged: {reason}", "choose another one with --file", file=backup.shown)


def _still_to_come(backup):
    if backup.name.seconds > time.time() + folders.SKEW_SECONDS:
        yield f"{backup.shown} has a time that is still to come: a clock is wrong, or was, and others may be newer"


def _differences(manifest, facts):
    for key, what in (("encoding", "encoding"), ("collate", "collation")):
        if manifest[key] != facts[key]:
            yield f"the backup's {what} is {manifest[key]}, the database's {facts[key]}: the latter is kept"
    lacking = sorted(set(manifest["extensions"]) - set(facts["extensions"]))
    if lacking:
        yield f"the backup wants extensions that the present database has not: {', '.join(lacking)}"


def plan_restore(database, backup, facts, jobs, safety, inside=False, is_here=True):
    """The Plan of `restore`: every step, and what is lost by it.

    Arguments: `facts`, of `manifest.read_facts`; `safety`, the Plan of the safety backup, or None; `inside`, whether
    it is done inside the database, with none beside it; `is_here`, as of `check`.
    """
    refuse_protected(database)
    backup = readable(backup)
    load.check_jobs(database, backup, jobs)
    check_connections(jobs, facts)
    if not inside:
        in_place.refuse_beside(database)
    name = facts["database"]
    _refuse_misshapen(backup, is_here)
    refuse_full(database, backup, jobs, inside, facts["server_version"])  # to read it may want a copy of it, too
    warnings = [*check(database, backup, facts, jobs, is_here), *_left_behind(database, name)]
    losses = _losses(database, backup, facts, inside)
    if inside:
        steps = in_place.steps_of(database, backup, facts, jobs, safety)
        return Plan(steps, warnings, loses=losses, asks_everywhere=True)
    warnings += exchange.check_swap(database, name)
    job = Job(backup, name, jobs, safety.steps[0].work if safety else None, facts["server_version"])
    titles = [step.title for step in safety.steps] if safety else []
    new, aside = swap.side_name(name, swap.RESTORE, time.time()), swap.side_name(name, swap.BEFORE, time.time())
    likeness = _likeness(database, name)
    create = (swap.sql_create(new, likeness), *swap.sql_dress(new, likeness))
    works = [
        *((title, None) for title in titles),
        (f"create database {new}, with the owner, settings and grants of {name}", _shown(create)),
        (f"load {backup.shown} into it, analyze it, and compare its tables with the manifest's", None),
        (_swap_title(database, name, new, aside), _shown(swap.sql_swap(name, new, aside))),
    ]
    steps = [Step("restore", title, sql, None, True, job) for title, sql in works]
    return Plan(steps, warnings, loses=losses, asks_everywhere=True)


def _swap_title(database, name, new, aside):
    pause = "pause pgBouncer, " if is_enabled(database.settings) else ""
    return f"{pause}end the sessions in {name}, and in one transaction rename it to {aside} and {new} to {name}"


def _shown(texts):
    """SQL texts of ours as a plan shows them, without what may be a secret."""
    return "".join(f"{shown_text(text)};\n" for text in texts)


def _left_behind(database, name):
    """A warning for each database that a restore has begun to fill and never finished."""
    for row in database.rows(swap.SQL_DATABASES, prefix=_restores(name)):
        size = bytes_text(row["size_bytes"])
        yield f"database {row['name']} ({size}) is left of a restore that did not end: nself-db restore --clean"


def _losses(database, backup, facts, inside):
    """Lines that say what the present database holds and what comes in its place."""
    age = max(time.time() - backup.name.seconds, 0)
    lines = comparison.lines(comparison.read_present(database, facts), backup.manifest, age)
    kept = KEPT_INSIDE if inside else KEPT_ASIDE
    return [*lines, f"what was written since {backup.shown} was taken is {kept}"]


def perform(database, job, take, tell):
    """Restore, and return the Report. Whatever fails before the swap leaves the present database as it was.

    Arguments: `take(job)`, which takes the safety backup and returns its Report; `tell(text)`, progress.
    """
    begun = time.time()
    keeper = find_keeper(database, job.name)
    try:
        exchange.lock(keeper, job.name)
        take_lock(database, 0, tell)  # what a migration does meanwhile would be in the database that steps aside
        safety = take(job.safety).data["file"] if job.safety else None
        new, aside = (_free_name(keeper, job.name, kind, begun) for kind in (swap.RESTORE, swap.BEFORE))
        keeper.execute(swap.sql_create(new, _likeness(keeper, job.name)))
        try:
            warnings = _fill(keeper.sibling(new), job, new, tell)
            # What was set or granted in a long load is kept, too.
            keeper.execute("BEGIN", *swap.sql_dress(new, _likeness(keeper, job.name)), "COMMIT")
            take_lock(database, 0, tell)  # once more: a session that was lost in a long load has lost its lock, too
            refuse_protected(database)  # and somebody may have protected it meanwhile
            warnings += exchange.swap_databases(database, keeper, (job.name, new, aside), tell)
        except BaseException as error:
            _drop(keeper, job.name, new, error)
            raise
    finally:
        keeper.close()
    return _report(job, aside, safety, time.time() - begun)._replace(warnings=warnings)


def _free_name(keeper, name, kind, seconds):
    """A name of `swap.later_name` that no database has yet."""
    found = keeper.rows(swap.SQL_DATABASES, prefix=swap.side_prefix(name, kind))
    return swap.later_name(name, kind, seconds, [row["name"] for row in found])


def _likeness(keeper, name):
    """The row of SQL_LIKENESS of the present database."""
    found = keeper.rows(swap.SQL_LIKENESS, name=name)
    if not found:
        raise CheckFailed(f"the database {name} is no longer there")
    return found[0]


def _fill(target, job, new, tell):
    """Load the backup into the new database, look whether it is what the manifest says, and return warnings."""
    try:
        tell(f"loading {job.backup.shown} into {new}")
        load.load(target.sibling(new, load.tuning(target, job.jobs)), job.backup, job.jobs, job.server_version)
        tell(f"analyzing {new}")
        analysis.analyze(target, job.jobs or 1)
        return comparison.compare(target, job.backup.manifest)
    finally:
        target.close()


def _drop(keeper, name, new, error):
    """Drop a new database that did not take its place; where that fails, the error says what to remove."""
    other = keeper.sibling(maintenance_name(name))
    try:
        other.execute(swap.sql_end_sessions((new,)))
        other.execute(f"DROP DATABASE IF EXISTS {identifier(new)}")
    except Failure:
        if isinstance(error, Failure):
            remove = f"remove the database {new}: nself-db restore --clean"
            error.hint = f"{error.hint}; {remove}" if error.hint else remove
    finally:
        other.close()


def _report(job, aside, safety, seconds):
    data = {
        "file": job.backup.shown,
        "database": job.name,
        "before": aside,
        "safety_backup": safety,
        "duration_ms": round(seconds * 1000),
    }
    lines = [f"the database as it was is {aside}; nself-db restore --undo puts it back, --clean removes it"]
    return Report(data, lines, f"restored {job.name} from {job.backup.shown} in {duration_text(seconds)}")


def plan_undo(database, name):
    """The Plan of `restore --undo`: the newest database that stepped aside takes its place again."""
    refuse_protected(database)
    warnings = exchange.check_swap(database, name)
    keeper = find_keeper(database, name)
    found = keeper.rows(swap.SQL_DATABASES, prefix=swap.side_prefix(name, swap.BEFORE))
    if not found:
        raise UsageFailure(f"no database stands aside of {name}", "a restore leaves one")
    aside = found[-1]
    now = _free_name(keeper, name, swap.BEFORE, time.time())
    keeper.close()
    title = _swap_title(database, name, aside["name"], now)
    loses = [
        f"{name} as it is now steps aside as {now}",
        f"{aside['name']} ({bytes_text(aside['size_bytes'])}) returns",
    ]
    step = Step("undo", title, _shown(swap.sql_swap(name, aside["name"], now)), None, True, (name, aside["name"], now))
    return Plan([step], warnings, loses=loses, asks_everywhere=True)


def may_return_metadata(database, plan):
    """Whether Hasura may keep its metadata in the database that returns by a Plan of `plan_undo`."""
    _, back, _ = plan.steps[0].work
    returning = database.sibling(back)
    try:
        return read_metadata(returning)
    except Failure:
        return True
    finally:
        returning.close()


def perform_undo(database, step, tell):
    """Swap back and return the Report. Argument: `tell(text)`, progress."""
    name, back, aside = step.work
    keeper = find_keeper(database, name)
    try:
        exchange.lock(keeper, name)
        take_lock(database, 0, tell)
        refuse_protected(database)
        warnings = exchange.swap_databases(database, keeper, (name, back, aside), tell)
    finally:
        keeper.close()
    told = f"{back} is {name} again; what was there is {aside}"
    return Report({"database": name, "before": aside}, (), told, warnings)


def plan_clean(database, name):
    """The Plan of `restore --clean`: databases that stepped aside, or were never finished, are dropped."""
    refuse_protected(database)
    keeper = find_keeper(database, name)
    found = [
        row
        for kind in (swap.BEFORE, swap.RESTORE)
        for row in keeper.rows(swap.SQL_DATABASES, prefix=swap.side_prefix(name, kind))
    ]
    keeper.close()
    steps = [
        Step(
            "clean",
            f"drop database {row['name']}",
            f"DROP DATABASE {identifier(row['name'])};",
            None,
            True,
            row["name"],
        )
        for row in found
    ]
    loses = [f"database {row['name']} ({bytes_text(row['size_bytes'])})" for row in found]
    return Plan(
        steps, nothing=f"no database stands aside of {name}", data={"dropped": []}, loses=loses, asks_everywhere=True
    )


def perform_clean(database, name, steps, tell):
    """Drop the databases of the steps, each that can be, and return the Report. Raises SqlFailure for the others.

    Argument: `tell(text)`, progress.
    """
    keeper = find_keeper(database, name)
    try:
        exchange.lock(keeper, name)
        take_lock(database, 0, tell)
        refuse_protected(database)
        failures = {step.work: _drop_aside(keeper, name, step.work) for step in steps}
    finally:
        keeper.close()
    dropped = [aside for aside, failure in failures.items() if failure is None]
    told = f"dropped {len(dropped)} database{'' if len(dropped) == 1 else 's'}"
    failed = [(aside, failure) for aside, failure in failures.items() if failure]
    if failed:
        raise SqlFailure(
            f"{told}, and could not drop {', '.join(aside for aside, _ in failed)}",
            failed[0][1].hint or "see what holds it, and run nself-db restore --clean again",
            data={"dropped": dropped},
            excerpt="\n".join(f"  {aside}: {failure.message}" for aside, failure in failed),
        )
    return Report({"dropped": dropped}, (), told)


def _drop_aside(keeper, name, aside):
    """Drop a database beside `name`; returns the failure where the server refuses that, else None.

    It is done in a session of its own, which ends with what is refused: the keeper's has the lock.
    """
    subscriptions = keeper.rows(exchange.SQL_SUBSCRIPTIONS, name=aside)
    if subscriptions:
        # A copy out of a backup has the name of a slot that is another's.
        unslotted = "ALTER SUBSCRIPTION … SET (slot_name = NONE), " if aside.startswith(_restores(name)) else ""
        names = ", ".join(row["name"] for row in subscriptions)
        hint = f"drop it first, in that database: {unslotted}DROP SUBSCRIPTION"
        return SqlFailure(f"it has a subscription: {names}", hint)
    other = keeper.sibling(maintenance_name(name))
    try:
        other.execute(swap.sql_end_sessions((aside,)))
        other.execute(f"DROP DATABASE IF EXISTS {identifier(aside)}")
    except (SqlFailure, LockHeld) as failure:
        return failure
    finally:
        other.close()
    return None


def _restores(name):
    return swap.side_prefix(name, swap.RESTORE)
