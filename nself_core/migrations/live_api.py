"""The guard of a run: what Hasura tracks and the catalogue had before must still be there at each commit."""

from __future__ import annotations

from nself_core import guard as tracked


class ApiGuard:
    """What the live API needs of the catalogue and had when the run began.

    Arguments: `required`, Requirements; `allowed`, whether breaking them was allowed by --allow-inconsistent.
    """

    def __init__(self, required, allowed):
        self.required = required
        self.allowed = allowed

    def texts(self):
        """SQL that fails inside the migration's transaction when something newly broke."""
        return () if self.allowed or not self.required else (tracked.sql_guard(self.required),)

    def broken(self, database):
        """The requirement rows that do not hold now, as dicts."""
        return database.rows(tracked.sql_unsatisfied(self.required)) if self.required else []


def open_guard(database, facts, settings, allowed):
    """The ApiGuard for this run, or None where Hasura keeps no metadata in this database.

    What the local metadata tree no longer tracks does not count, nor does what was broken before.
    """
    if not facts["metadata"]:
        return None
    rows = database.rows("SELECT metadata FROM hdb_catalog.hdb_metadata")
    required = tracked.requirements(rows[0]["metadata"]) if rows else frozenset()
    local = tracked.read_local_metadata(settings.path("HASURA_METADATA_DIR", "hasura/metadata"))
    if local is not None:
        required = tracked.narrow(required, tracked.requirements(local))
    opened = ApiGuard(required, allowed)
    before = {_identity(row) for row in opened.broken(database)}
    opened.required = frozenset(item for item in required if (item.kind, item.schema, item.table, item.name) not in before)
    return opened


def _identity(row):
    return row["kind"], row["schema"], row["table"], row["name"]
