"""One libpq connection as one session, through psycopg's own layer over libpq.

Statements go by the simple protocol one by one, as psql sends them, so that both ways behave alike. Waiting
is done on the socket and not inside libpq, so that Ctrl-C is heard.
"""

from __future__ import annotations

import select

from nself_core.postgres.errors import ServerError
from nself_core.postgres.session import (
    CLOSING,
    OPENING,
    ConnectionLost,
    DataFile,
    Done,
    Result,
    StatementFailed,
    Unit,
    as_rows_query,
)
from nself_core.sql import quoting

CHUNK = 65536

# Types by their OID, which the catalogue never changes (pg_type.dat), as far as JSON has a form for them
# or as psql aligns them to the right.
TYPE_NAMES = {16: "boolean", 20: "bigint", 21: "smallint", 23: "integer", 26: "oid", 28: "xid", 29: "cid", 114: "json",
              700: "real", 701: "double precision", 790: "money", 1700: "numeric", 3802: "jsonb", 5069: "xid8"}


class LibpqSession:
    """A session over one libpq connection.

    Arguments: `conninfo`, a connection string without the password; `parameters`, further connection
    parameters by name (password, options, application_name…); `where` and `on_statement` as in PsqlSession.
    """

    def __init__(self, conninfo, parameters, where, on_statement=None):
        import psycopg

        self.where = where
        self.on_statement = on_statement
        self.deadline = None  # as in PsqlSession; here libpq's own connect_timeout counts
        self.alive = True
        self._notices = []
        try:
            self._connection = psycopg.connect(conninfo, autocommit=True, **parameters)
        except psycopg.Error as error:
            raise ConnectionLost(None, None, str(error)) from None
        self._pg = self._connection.pgconn
        self._pg.notice_handler = lambda result: self._notices.append(_report(result))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def rows(self, sql, **params):
        """The rows of a SELECT as a list of dicts with JSON types; see PsqlSession.rows."""
        import json

        result = self._run(as_rows_query(quoting.bind(sql, params) if params else sql), None, None)
        return json.loads(result.get_value(0, 0))

    def ask(self, sql, **params):
        """The function that returns the rows of a SELECT; see PsqlSession.ask. Here nothing is sent before that."""
        return lambda: self.rows(sql, **params)

    def execute(self, *texts):
        """Run SQL texts of ours as one query, for their effect."""
        for _ in self.perform([Unit("", closing=texts)]):
            pass

    def perform(self, units):
        """Run `units` in order and yield a Done for each; see PsqlSession.perform."""
        for unit in units:
            self._notices.clear()
            variables = self._open(unit)
            for number, statement in enumerate(unit.statements):
                if self.on_statement:
                    self.on_statement(statement.text)
                self._run(statement.text, unit.label, number, statement.copy_data)
            if unit.closing:
                self._run(_with_variables(";\n".join(unit.closing), variables), unit.label, CLOSING)
            yield Done(unit.label, list(self._notices))

    def _open(self, unit):
        if not unit.opening:
            return {}
        result = self._run(";\n".join(unit.opening), unit.label, OPENING)
        if not result.ntuples:
            return {}
        return {result.fname(n).decode(): _text(result.get_value(0, n)) for n in range(result.nfields)}

    def query(self, text, before=(), copy_data=None):
        """Run one statement of a person, by the extended protocol, and return its Result; see PsqlSession.query."""
        from psycopg.pq import ExecStatus

        quoting.dollar(text)  # raises for what is not Unicode
        if before:
            self._run(";\n".join(before), "query", OPENING)
        if self.on_statement:
            self.on_statement(text)
        self._notices.clear()
        copied = []
        result = self._run(text, "query", 0, copy_data, lambda sql: self._pg.send_query_params(sql, None), copied)
        if result.command_status.startswith(b"COPY"):
            return _copy_result(result, copied, list(self._notices))
        columns = [_text(result.fname(n)) for n in range(result.nfields)]
        types = [TYPE_NAMES.get(result.ftype(n), "") for n in range(result.nfields)]
        rows = [[_text(result.get_value(r, n)) for n in range(result.nfields)] for r in range(result.ntuples)]
        tag = "" if result.status == ExecStatus.TUPLES_OK else _text(result.command_status)
        return Result(columns, types, rows, tag, list(self._notices))

    def _run(self, sql, label, index, copy_data=None, send=None, copied=None):
        """Send one query, feed or drain COPY, and return its last result.

        Arguments: `send`, how it is sent, by default the simple protocol; `copied`, a list that takes COPY's output.
        """
        from psycopg import OperationalError
        from psycopg.pq import ExecStatus

        last = error = None
        try:
            (send or self._pg.send_query)(sql.encode())
            while True:
                result = self._next_result()
                if result is None:
                    break
                if result.status == ExecStatus.COPY_IN:
                    self._feed(copy_data)
                elif result.status == ExecStatus.COPY_OUT:
                    self._drain([] if copied is None else copied)
                elif result.status == ExecStatus.FATAL_ERROR:
                    error = _report(result, sql)
                else:
                    last = result
        except OperationalError as lost:
            self.alive = False
            raise ConnectionLost(label, index, str(lost)) from None
        if error:
            self._raise(label, index, error)
        return last

    def _raise(self, label, index, error):
        """End the session with its failed statement, as psql's would."""
        notices = list(self._notices)
        self.close()
        if not error.sqlstate or error.sqlstate.startswith("57P0") or error.severity in ("FATAL", "PANIC"):
            raise ConnectionLost(label, index, error.message)
        raise StatementFailed(label, index, error, notices)

    def _flush(self):
        """Wait until all is sent: what exceeds the socket's buffer stays with libpq until it is asked to go on."""
        while self._pg.flush():
            readable, _, _ = select.select([self._pg.socket], [self._pg.socket], [])
            if readable:
                self._pg.consume_input()

    def _next_result(self):
        self._flush()
        while self._pg.is_busy():
            select.select([self._pg.socket], [], [])
            self._pg.consume_input()
        return self._pg.get_result()

    def _feed(self, copy_data):
        """Send a COPY's data; a COPY that has none of its own in the file is ended with an error."""
        if copy_data is None:
            self._pg.put_copy_end(b"there is no data for this COPY in the file")
            return
        for chunk in copy_data.chunks() if isinstance(copy_data, DataFile) else _chunks(copy_data.encode()):
            self._pg.put_copy_data(chunk)
            self._flush()
        self._pg.put_copy_end()

    def _drain(self, copied):
        """Read COPY's output to its end into `copied`, which is not empty afterwards."""
        copied.append(b"")
        while True:
            size, data = self._pg.get_copy_data(0)
            if size <= 0:
                return
            copied.append(bytes(data))

    @property
    def backend_pid(self):
        """The process number that the server, or a pooler in its place, gave at connection."""
        return self._pg.backend_pid

    def close(self):
        """End the connection."""
        self.alive = False
        self._connection.close()

    abandon = finish = close


def _chunks(data):
    return (data[start : start + CHUNK] for start in range(0, len(data), CHUNK))


def _copy_result(result, copied, notices):
    """The Result of a COPY; `copied` has the pieces of what it gave out, and none where it gave nothing out."""
    if not copied:
        return Result([], [], [], _text(result.command_status), notices)
    lines = b"".join(copied).decode("utf-8", "replace").split("\n")
    return Result(["copy"], [""], [[line] for line in lines[: len(lines) - (not lines[-1])]], "COPY", notices)


def _with_variables(sql, variables):
    for name, value in variables.items():
        sql = sql.replace(f":'{name}'", quoting.literal(value))
    return sql


def _text(value):
    return None if value is None else value.decode("utf-8", "replace")


def _report(result, sql=""):
    """The ServerError in a libpq result; the position counts characters from 1."""
    from psycopg.pq import DiagnosticField as Field

    def field(name):
        return _text(result.error_field(name))

    line = column = None
    position = field(Field.STATEMENT_POSITION)
    if position:
        before = sql[: int(position) - 1].replace("\r\n", "\n").replace("\r", "\n")
        line = before.count("\n") + 1
        column = len(before) - before.rfind("\n")
    return ServerError(
        field(Field.SQLSTATE) or "",
        field(Field.MESSAGE_PRIMARY) or _text(result.error_message) or "",
        field(Field.MESSAGE_DETAIL), field(Field.MESSAGE_HINT), field(Field.CONTEXT), line, column,
        field(Field.SEVERITY_NONLOCALIZED) or "ERROR", field(Field.INTERNAL_QUERY),
    )
