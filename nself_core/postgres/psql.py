"""One psql process as one session: a stream of text written ahead while the answers are read.

psql runs what stands in its buffer when its input ends, so a cut stream must never leave half a statement
that does harm: a file's statements go dollar-quoted through \\gexec, our own only between BEGIN and COMMIT.
With ON_ERROR_STOP psql ends at the first error, so nothing written ahead runs after one.
"""

from __future__ import annotations

import os
import select
import time
from collections import namedtuple

from nself_core import processes
from nself_core.failures import FileFailure, Unreachable
from nself_core.postgres.errors import ServerError, parse_reports
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

# The most that is written before its answers are read: enough to keep psql busy, little enough that
# what a stopped run still does in the pipe is short.
UNITS_AHEAD = 24
CHUNK = 65536
END_SECONDS = 5
MOST_PENDING = 1 << 20

# A stream that is cut inside \\echo can end in \\e, which opens an editor and would wait for a person.
ENVIRONMENT = {"PSQL_EDITOR": "false"}

# What \\gdesc says of a statement that returns nothing (psql, common.c).
NO_COLUMNS = "The command has no result, or the result has no columns."

PREAMBLE = (
    "\\set ON_ERROR_STOP on\n\\set VERBOSITY verbose\n\\set SHOW_CONTEXT errors\n"
    "\\pset tuples_only on\n\\pset format unaligned\n\\pset pager off\n\\o /dev/null\n"
)


def stream_text(unit, mark, in_file=None):
    """The text that makes psql run `unit` and tell its progress.

    Arguments: `unit`, a Unit; `mark`, a word that stands in nothing else that psql prints; `in_file(*pieces)`, writes
    bytes to a file and answers its path, None where psql sees no file of ours. Lines `mark s N` say that part N
    begins; `mark d` (on both streams) says that the unit is done.
    """
    return b"".join(stream_pieces(unit, mark, in_file)).decode("utf-8", "surrogatepass")


def stream_pieces(unit, mark, in_file=None):
    """The bytes of `stream_text` one after another: the data of a file is read while it is sent."""
    if unit.opening:
        yield _bytes(f"\\echo {mark} s {OPENING}\n" + _opening(unit.opening))
    for number, statement in enumerate(unit.statements):
        yield _bytes(f"\\echo {mark} s {number}\n")
        if isinstance(statement.copy_data, DataFile):
            yield from _file_copy(statement, in_file)
        else:
            yield _bytes(_statement_text(statement, in_file))
    if unit.closing:
        yield _bytes(f"\\echo {mark} s {CLOSING}\n" + " \\;\n".join(unit.closing) + ";\n")
    yield _bytes(f"\\warn {mark} d\n\\echo {mark} d\n")


def _bytes(text):
    return text.encode("utf-8", "surrogatepass")


def _file_copy(statement, in_file):
    """What makes psql run a COPY … FROM STDIN in CSV format whose data is a DataFile.

    A psql on this host reads the file itself, by \\copy, which wants it all on one line.
    """
    data = statement.copy_data
    if not in_file:
        yield _bytes(_run(statement.text))
        yield from data.chunks()
        yield b"\\.\n"
        return
    if {*"\r\n"} & {*statement.text}:
        yield _bytes(_include(in_file(_bytes(_run(statement.text)), *data.chunks())))
        return
    target, _, options = statement.text.rpartition(" FROM STDIN ")
    copies = {*"\r\n"} & {*data.path} or not data.is_plain()
    path = in_file(*data.chunks()) if copies else data.path
    quoted = path.replace("'", "''")
    yield _bytes(f"\\copy {target[5:]} FROM '{quoted}' {options}\n")


def _run(text):
    return f"SELECT {quoting.dollar(text)} \\gexec\n"


def _include(path):
    quoted = path.replace("\\", "\\\\").replace("'", "\\'")
    return f"\\i '{quoted}'\n"


def _statement_text(statement, in_file):
    """What makes psql run a statement whole or not at all, with its data where it is a COPY; see `stream_text`."""
    text = _run(statement.text)
    if statement.copy_data is None:
        return text
    csv = "csv" in statement.text.lower()
    if not (csv and in_file):
        return text + _copy_lines(statement.copy_data, csv)
    # psql before 18 sends the line \\. on, which a server from 18 takes for a row of CSV. The end of a file ends the
    # data without it.
    return _include(in_file(_bytes(text + statement.copy_data)))


def _opening(texts):
    ends_with_row = texts[-1].lstrip().upper().startswith("SELECT")
    return " \\;\n".join(texts) + (" \\gset\n" if ends_with_row else ";\n")


def _copy_lines(data, csv):
    """A COPY's data and its end, with one kind of line end; in CSV a quoted value may hold another kind."""
    if not csv:
        data = data.replace("\r\n", "\n").replace("\r", "\n")
    return data + ("" if not data or data.endswith("\n") else "\n") + "\\.\n"


class _Answer:
    """The rows of one question; None until they have been heard."""

    rows = None


class PsqlSession:
    """A session over one psql process.

    Arguments: `argv` and `env` start psql (directly or by docker exec); `where` names the server in failures;
    `on_statement(text)` is called with each statement of a file when psql begins it; `shares_files`, whether psql runs
    on this host and can read a file of ours.
    """

    def __init__(self, argv, env, where, on_statement=None, shares_files=False):
        self.where = where
        self._in_file = self._write_file if shares_files else None
        self._files = []
        self.on_statement = on_statement
        self.alive = True
        self.deadline = None  # on the monotonic clock; after it, who waits for an answer hears that there is none
        self._mark = "nself_" + os.urandom(9).hex()
        self._child = processes.start(argv, env)
        self._pending = bytearray(PREAMBLE.encode())
        self._asked: list = []
        self._out = _Lines()
        self._errors = bytearray()
        for stream in (self._child.stdin, self._child.stdout, self._child.stderr):
            os.set_blocking(stream.fileno(), False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def rows(self, sql, **params):
        """The rows of a SELECT as a list of dicts with JSON types.

        Arguments: `sql` with :name for each of `params`. Raises StatementFailed or ConnectionLost.
        """
        return self.ask(sql, **params)()

    def ask(self, sql, **params):
        """Send a SELECT now, and return the function that waits for its rows and returns them; see `rows`."""
        query = as_rows_query(quoting.bind(sql, params) if params else sql)
        self.send(f"\\o\n{query};\n\\o /dev/null\n\\echo {self._mark} d\n")
        answer = _Answer()
        self._asked.append(answer)
        if not self._child.stdin.closed:
            self._write()
        return lambda: self._hear(answer)

    def _hear(self, answer):
        """The rows of `answer`, after those of what was asked before it."""
        import json

        while self._asked and answer.rows is None:
            first = self._asked.pop(0)
            text = "\n".join(self._lines_to_mark(None, None))
            try:
                first.rows = json.loads(text)
            except ValueError:
                told = text.split("\n", 1)[0][:100]
                raise Unreachable(f"psql printed something of its own: {told}", "is it a wrapper?") from None
        return answer.rows

    def _hear_all(self):
        if self._asked:
            self._hear(self._asked[-1])

    def _lines_to_mark(self, unit, index):
        lines = []
        while True:
            line = self._next_line(unit, index)
            if line == f"{self._mark} d":
                return lines
            lines.append(line)

    def query(self, text, before=(), copy_data=None):
        """Run one statement of a person and return its Result.

        Arguments: `before`, SQL texts of ours run first as one query; `copy_data`, the lines of a COPY FROM STDIN.
        psql describes the statement by the extended protocol before it runs, which takes no second statement along.
        Raises StatementFailed, ConnectionLost or UsageFailure (the text is not Unicode).
        """
        self._hear_all()
        unit = Unit("query", statements=(_Text(text, copy_data),))
        run = _statement_text(unit.statements[0], self._in_file)
        if before:
            self.send(" \\;\n".join(before) + ";\n")
        if self.on_statement:
            self.on_statement(text)
        self.send(f"\\pset null {self._mark}_null\n\\pset format csv\n\\o\n")
        self.send(f"{_for_buffer(text)}\n\\gdesc\n\\echo {self._mark} d\n")
        told = self._lines_to_mark(unit, 0)
        described = _csv_rows(told, 2) if told != [NO_COLUMNS] else []
        answer = self._rows_of if described else self._tag_of
        return answer(run, unit, described)

    def _rows_of(self, run, unit, described):
        """The Result of a statement that psql described: a list of (name, type)."""
        self.send(run + f"\\warn {self._mark} d\n\\echo {self._mark} d\n")
        null = f"{self._mark}_null"
        rows = _csv_rows(self._lines_to_mark(unit, 0), len(described))
        shown = [[None if value == null else value for value in row] for row in rows]
        return Result([name for name, _ in described], [kind for _, kind in described], shown, "", self._take_notices())

    def _tag_of(self, run, unit, _):
        """The Result of a statement without columns: its tag, COPY's lines, or so many empty rows.

        psql prints no tag behind the lines of COPY TO STDOUT. The last of them may have no end: a line of ours ends it.
        """
        self.send(f"\\pset format aligned\n\\pset tuples_only off\n\\unset QUIET\n{run}")
        self.send(f"\\warn {self._mark} d\n\\echo\n\\echo {self._mark} d\n")
        *lines, ended = self._lines_to_mark(unit, 0)
        notices = self._take_notices()
        if unit.statements[0].text[:4].upper() == "COPY" and not _is_copy_tag(lines):
            lines += [ended] if ended else []
            return Result(["copy"], [""], [[line] for line in lines], "COPY", notices)
        if lines[:1] == ["--"]:  # a table without columns: its rule and `(3 rows)`
            return Result([], [], [[]] * int(lines[1][1:].split()[0]), "", notices)
        return Result([], [], [], lines[-1], notices)

    def execute(self, *texts):
        """Run SQL texts of ours as one query, for their effect. Raises StatementFailed or ConnectionLost."""
        for _ in self.perform([Unit("", closing=texts)]):
            pass

    def perform(self, units):
        """Run `units` in order and yield a Done for each as it ends.

        Nothing of a later unit runs after one that failed. Raises StatementFailed or ConnectionLost.
        """
        self._hear_all()
        ahead: list = []
        try:
            for unit in units:
                for piece in stream_pieces(unit, self._mark, self._in_file):
                    self._send_piece(piece)
                ahead.append(unit)
                while len(ahead) >= UNITS_AHEAD:
                    yield self._finish(ahead.pop(0))
        except (Unreachable, FileFailure):
            # What was sent before runs on: it is heard to its end before this is told.
            while ahead:
                yield self._finish(ahead.pop(0))
            raise
        while ahead:
            yield self._finish(ahead.pop(0))

    def send(self, text):
        """Put `text` on the way to psql."""
        self._pending += text.encode("utf-8", "surrogatepass")

    def _send_piece(self, piece):
        """As `send`, but no more than MOST_PENDING bytes are kept for a psql that is slower than we are."""
        stdin = self._child.stdin
        if stdin.closed:
            return  # psql has ended, which is heard where its answer is waited for
        self._pending += piece
        while len(self._pending) > MOST_PENDING and not stdin.closed and self._pump():
            pass

    def _write_file(self, *pieces):
        """Write bytes to a new file, for us alone, and return its path; it is removed with the session."""
        folder = os.environ.get("TMPDIR") or "/tmp"
        path = os.path.join(folder, f"{self._mark}_{len(self._files)}")
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            self._files.append(path)
            with os.fdopen(handle, "wb") as file:
                file.writelines(pieces)
        except OSError as error:
            hint = "set TMPDIR to a folder with space"
            raise Unreachable(f"{folder} cannot be written: {error.strerror}", hint) from None
        return path

    def _remove_files(self):
        for path in self._files:
            try:
                os.unlink(path)
            except FileNotFoundError:
                continue  # somebody has cleaned the temporary folder
        self._files.clear()

    def _finish(self, unit):
        """Read what psql says about `unit` up to its end."""
        index: str | int = OPENING
        while True:
            word, _, rest = self._next_line(unit, index).partition(" ")
            if word != self._mark:
                continue
            if rest == "d":
                return Done(unit.label, self._take_notices())
            index = int(rest[2:]) if rest[2:].isdigit() else rest[2:]
            if isinstance(index, int) and self.on_statement:
                self.on_statement(unit.statements[index].text)

    def _take_notices(self):
        """The reports on stderr up to the mark that ends the unit."""
        mark = f"{self._mark} d\n".encode()
        while mark not in self._errors:
            if not self._pump():
                self._raise_end(None, None)
        text, _, rest = bytes(self._errors).partition(mark)
        self._errors = bytearray(rest)
        return parse_reports(text.decode("utf-8", "replace")) if text else []

    def _next_line(self, unit, index):
        """The next line of psql's output; raises when psql has ended."""
        while True:
            line = self._out.take()
            if line is not None:
                return line
            left = None if self.deadline is None else self.deadline - time.monotonic()
            if left is not None and left <= 0:
                self.abandon()
                raise ConnectionLost(unit.label if unit else None, index, "no answer in time")
            if not self._pump(left):
                self._raise_end(unit, index)

    def _pump(self, seconds=None):
        """Write what can be written and read what can be read; False when psql has ended and all is read.

        Waits until one of them is possible, or for `seconds`.
        """
        child = self._child
        poll = select.poll()
        if self._pending and not child.stdin.closed:
            poll.register(child.stdin.fileno(), select.POLLOUT)
        open_streams = [stream for stream in (child.stdout, child.stderr) if not stream.closed]
        for stream in open_streams:
            poll.register(stream.fileno(), select.POLLIN)
        if not open_streams:
            return False
        ready = dict(poll.poll(None if seconds is None else seconds * 1000))
        for stream in open_streams:
            if stream.fileno() in ready:
                self._read(stream)
        if not child.stdin.closed and child.stdin.fileno() in ready:
            self._write()
        return True

    def _read(self, stream):
        data = os.read(stream.fileno(), CHUNK)
        if not data:
            stream.close()
        elif stream is self._child.stdout:
            self._out.add(data)
        else:
            self._errors += data

    def _write(self):
        try:
            written = os.write(self._child.stdin.fileno(), self._pending[:CHUNK])
            del self._pending[:written]
        except BlockingIOError:
            return  # the pipe is full: the rest follows when psql has read
        except (BrokenPipeError, ConnectionResetError):
            self._pending.clear()
            self._child.stdin.close()

    def _raise_end(self, unit, index):
        """psql has ended: say why. An error that is the statement's ends it with 3, a lost connection with 2."""
        self.alive = False
        code = self._child.wait()
        mark = f"{self._mark} d\n"
        text = self._errors.decode("utf-8", "replace").replace(mark, "")
        label = unit.label if unit else None
        statement = unit.statements[index].text if unit and isinstance(index, int) else ""
        reports = parse_reports(text, statement)
        if code == 3 and reports and not reports[-1].sqlstate.startswith("57P0"):
            raise StatementFailed(label, index, reports[-1], reports[:-1])
        if code == 3 and not reports:
            raise StatementFailed(label, index, ServerError("XX000", text.strip() or "psql stopped"))
        raise ConnectionLost(label, index, _last_words(text) or _how_it_ended(code))

    def finish(self):
        """Tell psql that nothing more comes; it ends by itself."""
        self.alive = False
        if not self._pending:
            self._child.stdin.close()

    def close(self):
        """End psql: what it was sent is finished first, within END_SECONDS. It closes its streams when it ends."""
        self.alive = False
        child = self._child
        child.stdin.close()
        deadline = time.monotonic() + END_SECONDS
        while (left := deadline - time.monotonic()) > 0 and self._pump(left):
            pass
        processes.kill(child)
        self._remove_files()

    def abandon(self):
        """End psql at once; what runs in the server goes on until the server notices."""
        self.alive = False
        self._pending.clear()
        processes.kill(self._child)
        self._remove_files()


def _how_it_ended(code):
    """What a psql that said nothing died of; a shell and docker count a signal from 128 on."""
    if code < 0 or code > 128:
        return "psql was ended from outside, as when its container or its host stops"
    return f"psql ended with exit code {code}"


def _last_words(text):
    """What psql said at the end of `text`, without the notices that came before it."""
    lines = text.strip().split("\n")
    fatal = [number for number, line in enumerate(lines) if line.startswith(("FATAL:", "PANIC:"))]
    ends = [number + 1 for number, line in enumerate(lines) if line.startswith("LOCATION:")]
    start = fatal[-1] if fatal else ends[-1] if ends and ends[-1] < len(lines) else 0
    return "\n".join(lines[start:])


_Text = namedtuple("_Text", "text copy_data", defaults=(None,))


def _is_copy_tag(lines):
    return len(lines) == 1 and lines[0].startswith("COPY ") and lines[0][5:].isdigit()


def _for_buffer(text):
    """`text` for psql's buffer, where outside quotes a semicolon runs what it ends and a colon begins a variable.

    With a backslash before them they stand for themselves (manual, psql, "SQL Interpolation" and `\\;`).
    """
    from nself_core.sql.lexer import tokens

    if ":" not in text and ";" not in text:
        return text
    pieces, done = [], 0
    for token in tokens(text):
        if token.kind == "op" and (":" in token.text or token.text == ";"):
            pieces += [text[done:token.offset], token.text.replace(":", "\\:").replace(";", "\\;")]
            done = token.offset + len(token.text)
    return "".join([*pieces, text[done:]])


def _csv_rows(lines, width):
    """The rows of psql's CSV output with so many columns; one empty value alone is an empty line there."""
    import csv

    csv.field_size_limit(2**31 - 1)
    return [row or [""] * width for row in csv.reader([line + "\n" for line in lines])]


class _Lines:
    """Bytes in, whole lines out."""

    def __init__(self):
        self._begun: list = []  # the pieces of a line that has not ended
        self._lines: list = []
        self._next = 0

    def add(self, data):
        first, *more = data.split(b"\n")
        self._begun.append(first)
        if not more:
            return
        whole, self._begun = b"".join(self._begun), [more.pop()]
        self._lines = [*self._lines[self._next :], whole, *more]
        self._next = 0

    def take(self):
        if self._next >= len(self._lines):
            return None
        self._next += 1
        return self._lines[self._next - 1].decode("utf-8", "replace")
