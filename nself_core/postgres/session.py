"""What a session with the server is, whichever way it is reached: questions as rows, work as units.

A unit is what stands or falls together: statements of ours that open it, statements of a file, statements
of ours that close it. The two ways (psql's stream, libpq through psycopg) run the same units to the same effect.
"""

from __future__ import annotations

from collections import namedtuple

from nself_core.failures import FileFailure

Unit = namedtuple("Unit", "label opening statements closing", defaults=((), (), ()))
Unit.__doc__ = """Work that is sent without waiting for an answer in between.

`label` names it in the answers; `opening` and `closing` are tuples of SQL texts of ours without semicolons, each
tuple sent as one query; the row that `opening` ends with gives variables, which `closing` takes as :'name';
`statements` are the file's own (`text`, `copy_data`: a text, a DataFile or None), sent one by one so that an error has
its place.
"""

DATA_CHUNK = 1 << 16


class DataFile(namedtuple("DataFile", "path skip")):
    """A COPY's data that stays in its file until it is sent: `path`, and how many bytes at its head are none of it."""

    __slots__ = ()

    def chunks(self):
        """Its bytes in pieces, with a line end at the end. Raises FileFailure where it cannot be read."""
        last = b"\n"
        try:
            with open(self.path, "rb") as stream:
                stream.seek(self.skip)
                while piece := stream.read(DATA_CHUNK):
                    last = piece
                    yield piece
        except OSError as error:
            raise FileFailure(f"cannot be read: {error.strerror}", file=self.path) from None
        if not last.endswith((b"\n", b"\r")):
            yield b"\n"


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
