"""Lets two databases change places, and sees to it that the present one takes connections again, whatever happens.

Where the server, or the way to it, goes away in the midst of the swap, what came of it is asked once it can be. Where
this program, too, is killed, the database stays closed: the next restore, undo or clean opens it before all else.
"""

from __future__ import annotations

import time

from nself_core.backups import swap
from nself_core.backups.pooler import Paused
from nself_core.bookkeeping.proof import LOCK_KEY
from nself_core.failures import CheckFailed, DatabaseClosed, Failure, Interrupted, LockHeld, Refused, Unreachable
from nself_core.output import Report
from nself_core.plan import Plan, Step
from nself_core.postgres.database import SQL_PROCESS
from nself_core.postgres.maintenance import SQL_NO_TIMEOUTS, command_to_open, maintenance_name, sql_open
from nself_core.processes import Heeded

PATIENCE_SECONDS = 60  # with a server that is being started anew, or that goes on with a swap we have lost sight of
POLL_SECONDS = 0.5
CANCEL_SECONDS = 10  # for the server to take the connection by which a swap is cancelled

# One restore of a database at a time, wherever it was started; the key is beside that of migrations.
SQL_LOCK = "SELECT pg_catalog.pg_try_advisory_lock({key}, pg_catalog.hashtext(:name)) AS taken"
RESTORE_KEY = LOCK_KEY & 0x7FFFFFFF

SQL_NUMBER = "SELECT oid FROM pg_catalog.pg_database WHERE datname = :name"
# The catalogue is one for the whole server.
SQL_SUBSCRIPTIONS = """
SELECT s.subname AS name, s.subenabled AS enabled
FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid
WHERE d.datname = :name ORDER BY s.subname
"""
SQL_CANCEL = """
SELECT pg_catalog.pg_cancel_backend(pid) AS told FROM pg_catalog.pg_stat_activity
WHERE pid = :pid AND backend_start::pg_catalog.text = :started
"""
SQL_NOT_OURS = f"""
SELECT coalesce(pg_catalog.string_agg(DISTINCT a.usename::text, ', '), '') AS roles
FROM pg_catalog.pg_stat_activity a JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid
WHERE a.datname = :name AND a.pid <> pg_catalog.pg_backend_pid() AND {swap.MAY_NOT_END}
    AND pg_catalog.current_setting('is_superuser') = 'off'
"""


def lock(keeper, name):
    """Take the lock of restores of the database `name` in the keeper's session. Raises LockHeld."""
    if not keeper.rows(SQL_LOCK.format(key=RESTORE_KEY), name=name)[0]["taken"]:
        raise LockHeld(f"another restore of {name} is under way", "wait for it to end")


def check_swap(database, name):
    """Warnings of what will hinder a swap of the database `name`. Raises Refused where data would go astray by it."""
    subscriptions = database.rows(SQL_SUBSCRIPTIONS, name=name)
    at_work = [row["name"] for row in subscriptions if row["enabled"]]
    if at_work:
        raise Refused(
            f"{name} has a subscription ({', '.join(at_work)}), which would go on in the database that steps aside; "
            "nothing was changed",
            "drop it first (DROP SUBSCRIPTION), and make it anew afterwards",
        )
    warnings = []
    if subscriptions:
        names = ", ".join(row["name"] for row in subscriptions)
        warnings.append(f"a subscription ({names}) stays with what steps aside, which cannot be dropped before it is")
    roles = database.rows(SQL_NOT_OURS, name=name)[0]["roles"]
    if roles:
        warnings.append(
            f"this role may not end sessions of {roles}, which are in {name}: while they are, no swap is done"
        )
    return warnings


def swap_databases(database, keeper, names, tell):
    """Let two databases change places, and return warnings; where it fails, connections are let in again.

    Raises Interrupted, too, for a signal that comes before the renames are committed: the server, which ends what it
    was sent also without us, is told to take it back. One that comes later changes nothing.
    Arguments: `names`, the present one's, the new one's, and that under which the present one steps aside.
    """
    present = names[0]
    number = keeper.rows(SQL_NUMBER, name=present)
    if not number:
        raise CheckFailed(f"the database {present} is no longer there")
    database.close()
    with Paused(database, present, tell) as pause, Heeded() as heeded:
        warnings = _swap(keeper, names, number, heeded, tell)
        pause.end()  # here, where no signal keeps it from that
    return [*pause.warnings, *warnings]


def _swap(keeper, names, number, heeded, tell):
    """Send the swap, see what comes of it, and return warnings. Argument: `heeded`, the Heeded that is in force."""
    present = names[0]
    process = keeper.rows(SQL_PROCESS)[0]
    heeded.act = lambda: _take_back(keeper, present, process)
    if heeded.told:
        raise Interrupted(f"interrupted; {present} stays as it was")
    try:
        tell(f"swapping {present} and {names[1]}")
        keeper.execute(*swap.sql_swap(*names))
    except Failure as failure:
        heeded.act = None
        keeper.close()
        if not _settle(keeper, names, number, failure.message, tell):
            if heeded.told:
                raise Interrupted(f"interrupted; {present} stays as it was") from None
            failure.message = f"{present} could not be renamed, and stays as it was: {failure.message}"
            raise
        return [f"the swap was done, though its end was not heard of: {failure.message}"]
    heeded.act = None
    return ["the interruption came too late: the swap was done"] if heeded.told else []


def _take_back(keeper, present, process):
    """Have the server cancel the swap that the keeper's session is at; it then lets connections in again by itself.

    Argument: `process`, that session's row of SQL_PROCESS. Where the server cannot be told, the swap goes on.
    """
    other = keeper.sibling(maintenance_name(present))
    other.patience = CANCEL_SECONDS
    try:
        other.rows(SQL_CANCEL, **process)
    except Failure:
        pass
    finally:
        other.close()


def _settle(keeper, names, number, reason, tell):
    """Whether a swap that has failed to answer was done after all; where it was not, the present database is opened.

    Arguments: `number`, by which the present database is known under any name; `reason`, why it is asked. Raises a
    Failure whose hint is the command that opens it by hand.
    """
    present, _, aside = names
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            if keeper.rows(SQL_NUMBER, name=aside) == number:
                return True
            lock(keeper, present)  # a server process that is still at it, or that does not notice our end, has it
            is_done = keeper.rows(SQL_NUMBER, name=aside) == number
            if not is_done:
                keeper.execute(sql_open(present))
            return is_done
        except Failure as failure:
            if time.monotonic() > deadline or not isinstance(failure, (Unreachable, LockHeld)):
                failure.message = (
                    f"{present} may let nobody in, for the swap failed ({reason}) and then: {failure.message}"
                )
                failure.hint = f"once the server is there, let connections in again: {command_to_open(present)}"
                raise
        tell(f"waiting for the server, to let connections into {present} again; this cannot be interrupted")
        time.sleep(POLL_SECONDS)


def plan_reopen(database):
    """The Plan of a command on a database that a killed swap has left closed; None where it is open.

    Its second step, "again", is the command itself, whose own plan can be made only then. From here on no timeout that
    the role has set ends the command's session: a question may wait for its answer for long. Raises DatabaseClosed
    where no restore has left it so.
    """
    try:
        database.execute(SQL_NO_TIMEOUTS.format(local="false"))
        return None
    except DatabaseClosed as closed:
        if not _has_others_beside(database, closed.database):
            raise
        name = closed.database
    title = f"let connections into {name} again, which a restore that was killed has left closed"
    again = "then do what was asked for, whose steps can be told only then"
    return Plan([Step("reopen", title, f"{sql_open(name)};", None, False, name), Step("again", again)])


def _has_others_beside(database, name):
    """Whether restores have left databases beside `name`, as each does before it closes that."""
    keeper = database.sibling(maintenance_name(name))
    try:
        prefixes = [swap.side_prefix(name, kind) for kind in (swap.BEFORE, swap.RESTORE)]
        return any(keeper.rows(swap.SQL_DATABASES, prefix=prefix) for prefix in prefixes)
    finally:
        keeper.close()


def perform_reopen(database, step):
    """Open the database of the step, unless another restore is at it, and return the Report."""
    name = step.work
    keeper = database.sibling(maintenance_name(name))
    try:
        lock(keeper, name)
        keeper.execute(sql_open(name))
    finally:
        keeper.close()
    return Report({}, (), f"{name} lets connections in again")
