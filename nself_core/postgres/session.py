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


# This line alone ends the data for psql before 18 and for a server before 18, in CSV too, for psql even inside quotes;
# what follows it psql would take for commands.
END_LINE = b"\\."


class DataFile(namedtuple("DataFile", "path file checksum", defaults=(None, None))):
    """A COPY's data in CSV, with their header, that stay in their file until they are sent.

    `path`; `file`, the same as people write it, for failures; `checksum`, the SHA-256 in hex that the bytes must have,
    or None.
    """

    __slots__ = ()

    def head(self):
        """The bytes of its first record, which names the columns. Raises FileFailure where it cannot be read."""
        head, quotes = [], 0
        with self._open() as stream:
            try:
                while line := stream.readline():
                    head.append(line)
                    quotes += line.count(b'"')
                    if quotes % 2 == 0:
                        break
            except OSError as error:
                raise self._unreadable(error) from None
        return b"".join(head)

    def chunks(self):
        """Its bytes in pieces, with a line end at the end, and without a line that could be read as their end.

        Raises FileFailure where it cannot be read, for a NUL, at which psql would drop the rest of the line, and behind
        the last piece where the bytes are not those that were announced.
        """
        inside, last = False, b"\n"
        for last, lines in self._pieces():
            if END_LINE in last:
                last = b"".join(_guarded(lines, inside))
            inside ^= last.count(b'"') % 2 == 1
            yield last
        if not last.endswith(b"\n"):
            # The server refuses two kinds of line end in one file.
            yield b"\r\n" if self.head().endswith(b"\r\n") else b"\n"

    def is_plain(self):
        """Whether `chunks` would send it as it is. Raises as `chunks` does."""
        return not any(END_LINE in data and any(map(_is_end, lines)) for data, lines in self._pieces())

    def _pieces(self):
        """(bytes, their lines), about DATA_CHUNK bytes each."""
        import hashlib

        digest, number = hashlib.sha256(), 0
        with self._open() as stream:
            try:
                while lines := stream.readlines(DATA_CHUNK):
                    data = b"".join(lines)
                    if b"\0" in data:
                        raise self._nul(lines, number)
                    number += len(lines)
                    digest.update(data)
                    yield data, lines
            except OSError as error:
                raise self._unreadable(error) from None
        if self.checksum not in (None, digest.hexdigest()):
            raise FileFailure("it was changed after the run had begun", "run again", file=self.file or self.path)

    def _nul(self, lines, number):
        place = next(place for place, line in enumerate(lines, number + 1) if b"\0" in line)
        return FileFailure("a NUL byte cannot stand in a text", file=self.file or self.path, line=place)

    def _open(self):
        try:
            return open(self.path, "rb")
        except OSError as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error):
        return FileFailure(f"cannot be read: {error.strerror}", file=self.file or self.path)


def _is_end(line):
    return line.rstrip(b"\r\n") == END_LINE


def _guarded(lines, inside):
    """The lines, those that would end the data written so that they do not: the value that they stand for is the same.

    Argument: `inside`, whether the first begins within a quoted value, which then is closed for the backslash.
    """
    for line in lines:
        if _is_end(line):
            line = (b'"\\".' if inside else b'"\\."') + line[2:]
        inside ^= line.count(b'"') % 2 == 1
        yield line


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
