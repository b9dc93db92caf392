"""What a session with the server is, whichever way it is reached: questions as rows, work as units.

A unit is what stands or falls together: statements of ours that open it, statements of a file, statements
of ours that close it. The two ways (psql's stream, libpq through psycopg) run the same units to the same effect.
"""

from __future__ import annotations

from collections import namedtuple

Unit = namedtuple("Unit", "label opening statements closing", defaults=((), (), ()))
Unit.__doc__ = """Work that is sent without waiting for an answer in between.

`label` names it in the answers; `opening` and `closing` are tuples of SQL texts of ours without semicolons, each
tuple sent as one query; the row that `opening` ends with gives variables, which `closing` takes as :'name';
`statements` are the file's own (`text`, `copy_data`), sent one by one so that an error has its place.
"""

Done = namedtuple("Done", "label notices")
Done.__doc__ = "A unit has run: its `label` and the server's `notices` (ServerError) in the order they came."

Result = namedtuple("Result", "columns types rows tag notices", defaults=((),))
Result.__doc__ = """What one statement returned.

`columns`, names; `types`, the server's type names ("" where unknown); `rows`, lists of texts and None; `tag`, the
command's tag ("UPDATE 3"), empty for what returned rows; `notices`, ServerErrors the server sent along. COPY TO STDOUT
has one column named copy, one row a line, and the tag COPY.
"""

OPENING, CLOSING = "opening", "closing"


class StatementFailed(Exception):
    """The server refused a part of a unit; nothing after it was run and the session is over.

    `label` is the unit's, `index` counts its statements from 0 or is "opening" or "closing", `error` is the
    ServerError, `notices` came before it in the same unit.
    """

    def __init__(self, label, index, error, notices=()):
        super().__init__(error.message)
        self.label = label
        self.index = index
        self.error = error
        self.notices = notices


class ConnectionLost(Exception):
    """The server or the way to it went away; `index` is the last part known to have been begun."""

    def __init__(self, label, index, text):
        super().__init__(text)
        self.label = label
        self.index = index
        self.text = text


def as_rows_query(sql):
    """The query that answers `sql` (SELECT, VALUES, TABLE or WITH) as one JSON array of objects."""
    return (
        "SELECT coalesce(pg_catalog.json_agg(pg_catalog.row_to_json(nself_row)), '[]') "
        f"FROM (\n{sql.strip().rstrip(';')}\n) nself_row"
    )
