"""The SQL by which bookkeeping proves that it stands where it should: our transaction, our lock, our session.

A file's statements run in the session that records them, so nothing they may have set is relied on.
"""

from __future__ import annotations

from nself_core.sql.quoting import literal

# Advisory locks are per database; the number spells "nself" in ASCII.
LOCK_KEY = 0x6E73656C66

# The schema of our own facts.
SQL_CREATE_SCHEMA = (
    "CREATE SCHEMA IF NOT EXISTS nself_db",
    "REVOKE ALL ON SCHEMA nself_db FROM PUBLIC",
)

# What a file may have left in the session; RESET ALL does not touch the role.
RESET_ROLE = ("SET SESSION AUTHORIZATION DEFAULT", "RESET ROLE")
RESET_SESSION = (*RESET_ROLE, "RESET ALL", "CLOSE ALL", "DEALLOCATE ALL", "DISCARD TEMP")
# Without it the server notices a dead client only when it next talks to it (manual, client_connection_check_interval,
# since 14). RESET ALL empties it, so each unit sets it anew.
NOTICE_DEATH = (
    "CASE WHEN pg_catalog.current_setting('server_version_num')::pg_catalog.int4 >= 140000 "
    "THEN pg_catalog.set_config('client_connection_check_interval', '1s', false) END"
)
# For bookkeeping between two statements of a file: the file's own settings come back with the end of the transaction.
OWN_BEGIN = "BEGIN READ WRITE"  # whatever default_transaction_read_only a file has set
AS_OURSELVES = ("SET LOCAL SESSION AUTHORIZATION DEFAULT", "SET LOCAL ROLE NONE")


def proven(value):
    """SQL for `value` that is NULL unless the transaction is the one we began and the lock is still ours.

    It stands where a column is NOT NULL, so that a lost transaction or lock makes the bookkeeping itself fail.
    A setting would be no proof: a file's RESET ALL empties it.
    """
    return (
        "CASE WHEN pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.text = :'nself_xid' "
        f"THEN {locked(value)} END"
    )


def locked(value):
    """SQL for `value` that is NULL unless the lock is still ours."""
    return f"CASE WHEN pg_catalog.pg_try_advisory_lock({LOCK_KEY}) THEN {literal(value)} END"


def is_unproven(error):
    """Whether a ServerError is the refusal of a NULL that `proven` or `locked` put into our table."""
    return error.sqlstate == "23502" and any(f'"{column}"' in error.message for column in ("checksum", "direction"))
