"""Exact numbers of rows of many tables, in a few statements, and who stands in the way of a lock."""

from __future__ import annotations

from nself_core.sql.quoting import literal, qualified

BATCHES = 5  # statements that count rows, so that progress can be told in between
MOST_AT_ONCE = 1000  # tables in one statement: the server parses a UNION by recursion


def count_rows(database, objects, tell):
    """The exact number of rows by (schema, name) of every table that may be read, counted in a few statements.

    Arguments: `objects`, dicts with `schema`, `name` and `obstacle`, which is "" where the rows may be counted;
    `tell(text)`, progress. Raises as Database.rows does: LockHeld where another session locks a table.
    """
    readable = [item for item in objects if item["obstacle"] == ""]
    size = min(MOST_AT_ONCE, max(1, -(-len(readable) // BATCHES)))
    counted = {}
    for at in range(0, len(readable), size):
        tell(f"counting rows: {at} of {len(readable)} tables")
        for row in database.rows(sql_counts(readable[at : at + size])):
            counted[row["schema"], row["name"]] = row["rows"]
    return counted


def sql_counts(objects):
    """One query that counts the rows of all `objects`."""
    return "\nUNION ALL ".join(
        f"SELECT {literal(item['schema'])} AS schema, {literal(item['name'])} AS name, pg_catalog.count(*) AS rows "
        f"FROM {qualified(item['schema'], item['name'])}"
        for item in objects
    )
