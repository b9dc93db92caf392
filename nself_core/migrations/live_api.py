"""The guard of a run: what Hasura tracks and the catalogue had before must still be there at each commit."""

from __future__ import annotations

from nself_core.guard.check_sql import SQL_METADATA, sql_guard, sql_unsatisfied
from nself_core.guard.requirements import narrow, requirements, without
from nself_core.hasura.project import find_metadata, read_local_metadata
from nself_core.migrations.ledger import check_readable


class ApiGuard:
    """What the live API needs of the catalogue and had when the run began.

    Arguments: `required`, Requirements; `allowed`, whether breaking them was allowed by --allow-inconsistent.
    """

    def __init__(self, required, allowed):
        self.required = required
        self.allowed = allowed

    def texts(self):
        """SQL that fails inside the migration's transaction when something newly broke."""
        return () if self.allowed or not self.required else (sql_guard(self.required),)

    def broken(self, database):
        """The requirement rows that do not hold now, as dicts."""
        return database.rows(sql_unsatisfied(self.required)) if self.required else []


def open_guard(database, facts, settings, allowed):
    """The ApiGuard for this run, or None where Hasura keeps no metadata in this database.

    What the local metadata tree no longer tracks does not count, nor does what was broken before.
    """
    if not facts["metadata"]:
        return None
    check_readable(facts, "metadata")
    rows = database.rows(SQL_METADATA)
    live = requirements(rows[0]["metadata"]) if rows else frozenset()
    local = read_local_metadata(*find_metadata(settings)).document
    opened = ApiGuard(narrow(live, None if local is None else requirements(local)), allowed)
    opened.required = without(opened.required, opened.broken(database))
    return opened
