"""The protect marker: while it is set, nothing that destroys runs on this database.

The marker is that the table nself_db.protection is there. So it can be asked for in the catalogue with no right on
anything, pg_dump carries it to where the data goes, and only its owner can take it away. Whoever sets it, and
whoever destroys, holds the migration lock: between a look at the marker and the end of a transaction nobody sets it.
"""

from __future__ import annotations

from nself_core.bookkeeping.proof import SQL_CREATE_SCHEMA
from nself_core.failures import Refused

# An expression, so that a question that is asked anyway can answer this one too.
IS_PROTECTED = (
    "EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
    "WHERE n.nspname = 'nself_db' AND c.relname = 'protection')"
)

SQL_MARKER = f"""
SELECT {IS_PROTECTED} AS protected, pg_catalog.to_regnamespace('nself_db') IS NOT NULL AS has_schema,
       coalesce((SELECT pg_catalog.has_schema_privilege(n.oid, 'USAGE')
                        AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
                 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                 WHERE n.nspname = 'nself_db' AND c.relname = 'protection'), false) AS readable
"""
SQL_WHO = (
    "SELECT protected_by, pg_catalog.to_char(protected_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI \"UTC\"') AS since "
    "FROM nself_db.protection LIMIT 1"
)


def read_marker(database):
    """Whether this database is protected, as a dict: protected, readable, has_schema."""
    return database.rows(SQL_MARKER)[0]


def refuse_protected(database):
    """Raise Refused where the database is protected, naming since when and by whom.

    To be called before asking for consent, and again under the migration lock inside the transaction that destroys.
    """
    marker = read_marker(database)
    if marker["protected"]:
        raise Refused(
            f"this database is protected{_since(database, marker)}; nothing was changed",
            "take the protection away first: nself-db protect --off",
        )


def _since(database, marker):
    told = database.rows(SQL_WHO) if marker["readable"] else []
    return f" since {told[0]['since']}, by {told[0]['protected_by']}" if told else ""


def sql_protect(marker):
    """The statements that set the marker; `marker` is as `read_marker` gives it."""
    return (
        *(() if marker["has_schema"] else SQL_CREATE_SCHEMA),
        "CREATE TABLE IF NOT EXISTS nself_db.protection AS "
        "SELECT pg_catalog.now() AS protected_at, CURRENT_USER::pg_catalog.text AS protected_by",
        "REVOKE ALL ON nself_db.protection FROM PUBLIC",
    )


def sql_unprotect():
    """The statements that take the marker away."""
    return ("DROP TABLE IF EXISTS nself_db.protection",)
