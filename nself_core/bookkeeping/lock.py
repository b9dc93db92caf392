"""One runner at a time: a session's advisory lock, taken by asking again and again.

A blocked pg_advisory_lock() holds a snapshot, for which CREATE INDEX CONCURRENTLY in the holder waits: a deadlock.
So the lock is polled with no transaction open. A pooler in transaction mode would lend the lock's
session to others; it is detected and refused.
"""

from __future__ import annotations

import time

from nself_core.bookkeeping.proof import LOCK_KEY, NOTICE_DEATH
from nself_core.failures import LockHeld, Refused
from nself_core.postgres.database import SQL_PROCESS

POLL_SECONDS = 0.25
STOP_SECONDS = 5  # how long an interrupted run waits for its old session to end, to see what that had done

SQL_LIVES = (
    "SELECT pid FROM pg_catalog.pg_stat_activity WHERE pid = :pid AND backend_start::pg_catalog.text = :started"
)

SQL_TRY = f"SELECT pg_catalog.pg_try_advisory_lock({LOCK_KEY}) AS taken, pg_catalog.pg_backend_pid() AS pid"

# Asked of the process that take_lock returned.

SQL_HOLDER = f"""
SELECT l.pid, a.application_name AS application, a.usename AS "user", a.state,
       coalesce(host(a.client_addr), 'local') AS address,
       round(EXTRACT(EPOCH FROM pg_catalog.clock_timestamp() - a.backend_start)) AS seconds
FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND l.classid = {LOCK_KEY >> 32} AND l.objid = {LOCK_KEY & 0xFFFFFFFF}
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
"""


def take_lock(database, wait, tell):
    """Take the migration lock in the command's session and return the server's process, its row of SQL_PROCESS.

    Arguments: `wait`, seconds to go on asking (0 asks once); `tell(text)`, called while waiting. Raises LockHeld
    when the time is over, Refused behind a pooler in transaction mode.
    """
    database.rows(f"SELECT {NOTICE_DEATH} AS interval")
    deadline = time.monotonic() + wait
    while True:
        answer = database.rows(SQL_TRY)[0]
        if answer["taken"]:
            _check_pooler(database, answer["pid"])
            return database.rows(SQL_PROCESS)[0]
        holder = _describe(database.rows(SQL_HOLDER))
        left = deadline - time.monotonic()
        if left <= 0:
            raise LockHeld(f"another run holds the migration lock: {holder}", _hint(wait))
        tell(f"waiting for the migration lock, held by {holder}; {left:.0f} s left")
        time.sleep(min(POLL_SECONDS, left))


def end_session(database, process):
    """End the server's side of an interrupted session, so that nothing written ahead goes on, and wait for its end.

    Arguments: `process`, as `take_lock` returned it. Returns whether it has ended; waits for STOP_SECONDS at most.
    Raises as Database.rows does.
    """
    database.abandon()
    database.terminate(process)
    deadline = time.monotonic() + STOP_SECONDS
    while database.rows(SQL_LIVES, **process):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _hint(wait):
    return "wait for it to end, or give --lock-wait SECONDS" if wait <= 0 else "wait for it to end, or end that session"


def _describe(holders):
    if not holders:
        return "a session that has just ended"
    holder = holders[0]
    return (
        f"pid {holder['pid']}, application {holder['application'] or '(no name)'}, user {holder['user']}, "
        f"from {holder['address']}, connected for {holder['seconds'] or 0:.0f} s"
    )


def _check_pooler(database, pid):
    """Refuse a pooler in transaction mode: the lock's server process must be ours from query to query.

    A second connection that is given the same server process while ours is open shows it for certain.
    """
    # Behind a pooler the server would not have our settings from the connection itself.
    if database.reach.kind != "url" or database.keeps_parameters:
        return
    again = database.rows("SELECT pg_catalog.pg_backend_pid() AS pid")[0]["pid"]
    if again == pid:
        with database.connect() as other:
            again = other.rows("SELECT pg_catalog.pg_backend_pid() AS pid")[0]["pid"]
        shared = again == pid
    else:
        shared = True
    if shared:
        raise Refused(
            "this connection goes through a pooler in transaction mode, which cannot hold a session's lock",
            "give a direct connection to Postgres by --url or NSELF_DB_URL (not pgBouncer's port)",
        )
