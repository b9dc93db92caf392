"""The guard of a run: what Hasura tracks and the catalogue had before must still be there at each commit."""

from __future__ import annotations

from nself_core.failures import Failure
from nself_core.guard.check_sql import SQL_METADATA, sql_guard, sql_unsatisfied
from nself_core.guard.requirements import narrow, requirements, without
from nself_core.hasura.project import find_metadata, read_local_metadata
from nself_core.migrations.ledger import check_readable


class ApiGuard:
    """What the live API needs of the catalogue and had when the run began.

    Arguments: `required`, Requirements; `allowed`, whether breaking them was allowed by --allow-inconsistent;
    `settings`, by which the project's metadata files are found.
    """

    def __init__(self, required, allowed, settings=None):
        self.required = required
        self.allowed = allowed
        self._settings = settings

    def texts(self):
        """SQL that fails inside the migration's transaction when something newly broke."""
        return () if self.allowed or not self.required else (sql_guard(self.required),)

    def broken(self, database):
        """The requirement rows that do not hold now, as dicts."""
        return database.rows(sql_unsatisfied(self.required)) if self.required else []

    def placed(self, rows):
        """Rows of broken requirements, each with `file` and `line` of what needs it and the place in its `why`.

        The files are read for it. What stands in none of them stays as it is.
        """
        from nself_core.guard.requirements import placed_requirements
        from nself_core.hasura.comparison import read_local

        try:
            local = read_local(self._settings)
        except Failure:
            return rows
        places: dict = {}
        for path, needed in placed_requirements(local.document):
            places.setdefault((needed.kind, needed.schema, needed.table, needed.name, needed.why), path)
        return [_with_place(row, local, places) for row in rows]


def _with_place(row, local, places):
    path = places.get((row["kind"], row["schema"], row["table"], row["name"], row["why"]))
    if path is None:
        return row
    place = local.place(path)
    return {**row, **place, "why": f"{row['why']} ({place['file']}:{place['line']})"}


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
    opened = ApiGuard(narrow(live, None if local is None else requirements(local)), allowed, settings)
    opened.required = without(opened.required, opened.broken(database))
    return opened
