"""What the program says: a Report becomes text or JSON here and nowhere else (DESIGN.md, section 5).

A handler answers with a Report and never writes. The Console knows the two streams, whether they are terminals,
and the secrets that must not stand in anything: every text goes through redaction on its way out.
"""

from __future__ import annotations

import errno
import math
import os
import time
from collections import namedtuple

from nself_core.failures import Unreachable
from nself_core.redaction import MASK, Redactor

# A second must pass before progress is shown; then a terminal's line is renewed often, a log's line seldom.
PROGRESS_AFTER = 1.0
PROGRESS_EVERY_ON_TERMINAL = 0.1
PROGRESS_EVERY_IN_LOG = 10.0

CODES = {1: "check_failed", 2: "unreachable", 3: "credentials_refused", 4: "refused", 130: "interrupted"}

# Ranges of code points: control characters, line separators, marks and overrides of direction, lone surrogates.
UNSEEN = (
    (0x00, 0x1F),
    (0x7F, 0x9F),
    (0x061C, 0x061C),
    (0x200E, 0x200F),
    (0x2028, 0x202E),
    (0x2066, 0x2069),
    (0xD800, 0xDFFF),
)

# A text that is a number as a whole: digits and what stands between those of a time, or a SHA-256.
NUMBER = r"[-+]?[0-9][0-9.:TZ+-]*|[0-9a-f]{64}"

BOLD, RED, YELLOW, CYAN, DIM = "1", "1;31", "33", "36", "2"
MARK_COLOURS = {"+": "32", "-": "31", "~": YELLOW}


class Report(namedtuple("Report", "data blocks summary warnings exit_code", defaults=((), "", (), 0))):
    """What a command found or did.

    Fields: `data`, a dict ready for JSON; `blocks`, Tables and texts shown in this order; `summary`, the last line,
    which says what happened; `warnings`, sentences; `exit_code`, not 0 where a check found something wrong.
    """

    __slots__ = ()


class Table(namedtuple("Table", "columns rows aligns", defaults=(None,))):
    """Rows under column titles, as aligned plain text.

    Fields: `columns`, titles; `rows`, sequences of values of the same length (None is shown as nothing, True and
    False as yes and no); `aligns`, one of "<" and ">" a column, by default ">" for columns of numbers.
    """

    __slots__ = ()

    def lines(self):
        """The title line and one line a row, without trailing blanks."""
        columns = [*zip(*self.rows)] or [()] * len(self.columns)
        aligns = self.aligns or map(_natural_align, columns)
        shown = map(_column_lines, self.columns, columns, aligns)
        return ["  ".join(cells).rstrip() for cells in zip(*shown)]


class Marked(str):
    """A text whose lines begin with `+`, `-` or `~`, as a diff's do: on a terminal these have a colour."""

    __slots__ = ()

    def painted(self):
        """The text with its lines' colours; a line without a mark is a title."""
        return "\n".join(_paint(line, MARK_COLOURS.get(line[:1], BOLD)) for line in self.split("\n"))


def _natural_align(values):
    known = [value for value in values if value is not None]
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in known)
    return ">" if known and numbers else "<"


def _column_lines(title, values, align):
    """A column's title and cells, filled with blanks to one width."""
    cells = [visible(str(title)), *_cell_texts(values)]
    if all(map(str.isascii, cells)):
        width = max(map(len, cells))
        return [cell.rjust(width) for cell in cells] if align == ">" else [cell.ljust(width) for cell in cells]
    widths = [display_width(cell) for cell in cells]
    blanks = [" " * (max(widths) - width) for width in widths]
    return [b + cell if align == ">" else cell + b for cell, b in zip(cells, blanks)]


def _cell_texts(values):
    """The values of a column as cell_text gives them; thousands of plain texts are looked at as one."""
    if {*map(type, values)} == {str} and visible(text := "".join(values)) == text:
        return values
    return map(cell_text, values)


def cell_text(value):
    """A value as a table shows it: on one line, with nothing in it that a terminal would obey."""
    if isinstance(value, str):
        return visible(value)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(cell_text(item) for item in value)
    return visible(str(value))


def visible(text, keep=""):
    """`text` with what a terminal would obey or hide (see UNSEEN) written as escapes, but for characters in `keep`."""
    if text.isascii() and text.isprintable():
        return text
    # Each character is looked at once, however often it stands there: a diff of thousands of tables is megabytes.
    return text.translate({ord(char): _escape(char) for char in {*text} if _is_unseen(char) and char not in keep})


def _is_unseen(char):
    code = ord(char)
    return any(first <= code <= last for first, last in UNSEEN)


def _escape(char):
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(char)
    return named or ("\\x%02x" if ord(char) < 0x100 else "\\u%04x") % ord(char)


def display_width(text):
    """How many columns of a terminal `text` takes: two for wide characters, none for combining ones."""
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(_char_width(char, unicodedata) for char in text)


def _char_width(char, unicodedata):
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def bytes_text(count):
    """A number of bytes for people, in powers of 1024: `0 B`, `1.5 KB`, `20 MB`."""
    size = float(count)
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1024
    return f"{size:.1f} {unit}" if size < 10 and unit != "B" else f"{size:.0f} {unit}"


def duration_text(seconds):
    """A time span for people: `0.4 s`, `12 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def bytes_progress(label, done, total, seconds):
    """A progress line: how much of what, the rate, and the time left where `total` is known (else None)."""
    rate = done / seconds if seconds > 0 else 0.0
    parts = [bytes_text(done)]
    if total:
        parts = [f"{bytes_text(done)} of {bytes_text(total)} ({min(100, 100 * done // total)} %)"]
    if rate:
        parts.append(f"{bytes_text(rate)}/s")
        if total and done < total:
            parts.append(f"{duration_text((total - done) / rate)} left")
    return f"{label}: {', '.join(parts)}"


class Console:
    """The two streams of the program and the rules for what stands on them.

    Arguments: `stdout` and `stderr`, text streams (None where the program was started without one); `json_mode`,
    one JSON document on stdout instead of text; `quiet`, errors and the last line only; `verbose`, SQL as it runs;
    `secrets`, values to mask; `environ`, read for NO_COLOR and TERM; `clock`, seconds that only grow.
    """

    def __init__(
        self,
        stdout,
        stderr,
        json_mode=False,
        quiet=False,
        verbose=False,
        secrets=(),
        environ=None,
        clock=time.monotonic,
    ):
        environ = os.environ if environ is None else environ
        self.stdout = stdout
        self.stderr = stderr
        self.json_mode = json_mode
        self.quiet = quiet
        self.verbose = verbose
        self.secrets = ()
        self.add_secrets(secrets)
        self.warnings = []
        dumb = environ.get("TERM") == "dumb"
        colour = not environ.get("NO_COLOR") and not dumb
        self.colour_out = colour and is_terminal(stdout)
        self.colour_err = colour and is_terminal(stderr)
        self._rewrites = is_terminal(stderr) and not dumb
        self._clock = clock
        self._started = None
        self._shown_at = None
        self._line_open = False

    def add_secrets(self, values):
        """Mask these values too from now on."""
        self.secrets = tuple(dict.fromkeys((*self.secrets, *values)))
        self.redact = Redactor(self.secrets)

    # What a command says while it runs: all of it on stderr.

    def progress(self, text):
        """Show how far a long work is: one line that is rewritten on a terminal, a line now and then in a log.

        Nothing is shown in the first second, nor under --quiet.
        """
        now = self._clock()
        if self._started is None:
            self._started = now
        every = PROGRESS_EVERY_ON_TERMINAL if self._rewrites else PROGRESS_EVERY_IN_LOG
        is_due = now - self._started > PROGRESS_AFTER and (self._shown_at is None or now - self._shown_at >= every)
        if is_due and not self.quiet:
            self._shown_at = now
            self._show_progress(visible(self.redact(text)))

    def progress_bytes(self, done, total, label):
        """Show `done` of `total` bytes (None where unknown) with rate and time left, as `progress` does."""
        if self._started is None:
            self._started = self._clock()
        self.progress(bytes_progress(label, done, total, self._clock() - self._started))

    def end_progress(self):
        """Take the progress line away; the next long work begins with a second of silence again."""
        self._close_line()
        self._started = self._shown_at = None

    def _show_progress(self, text):
        if self._rewrites:
            self._write("\r\x1b[K" + _cut(text, _columns(self.stderr) - 1))
            self._line_open = True
        else:
            self._write(text + "\n")

    def _close_line(self):
        if self._line_open:
            self._line_open = False
            self._write("\r\x1b[K")

    def sql(self, text):
        """Show a statement as it runs, under --verbose."""
        if self.verbose:
            # Redacted while it is whole: a secret may end in the line end that is stripped.
            self._say(self.redact(text).strip().replace("\r\n", "\n"), DIM)

    def detail(self, text):
        """Say what only --verbose wants to know."""
        if self.verbose:
            self._say(text)

    def note(self, text):
        """Say something on stderr, unless --quiet."""
        if not self.quiet:
            self._say(text)

    def warn(self, text):
        """Warn on stderr, unless --quiet, and in the document of --json; the same warning only once."""
        if text not in self.warnings:
            self.warnings.append(text)
            if not self.quiet:
                self._say(text, YELLOW, "warning: ")

    def ask(self, text):
        """Write a question to stderr whatever the options, and leave the cursor behind it."""
        self._close_line()
        self._write(self._for_people(text))

    def _say(self, text, colour=None, label=""):
        """Write lines to stderr; the colour is the label's, or the text's where there is no label."""
        self._close_line()
        text = self._for_people(text)
        if self.colour_err and colour:
            label, text = _paint(label, colour), text if label else _paint(text, colour)
        self._write(f"{label}{text}\n")

    def _for_people(self, text):
        return visible(self.redact(text), keep="\n\t")

    # How a command ends.

    def emit(self, report, command, env, dry_run=False):
        """Write a report; answers its exit code.

        Arguments: `command`, its path in words ("migrate up"); `env`, the environment's name. Raises Unreachable
        where stdout cannot be written, BrokenPipeError where its reader has gone.
        """
        for warning in report.warnings:
            self.warn(warning)
        self.end_progress()
        if self.json_mode:
            self._document(report_document(report, command, env, dry_run, self.warnings))
            if report.summary:
                self._say(report.summary)
        else:
            self._out(self._text(report), None)
        return report.exit_code

    def emit_failure(self, failure, command, env, dry_run=False, warnings=()):
        """Write a failure, once, to stderr, and its document under --json; answers its exit code.

        `command` and `env` are None where the failure came before they were known.
        """
        for warning in warnings:
            self.warn(warning)
        self.end_progress()
        place = f"{failure.place}: " if failure.place else ""
        self._say(place + failure.message, RED, "error: ")
        if failure.excerpt:
            self._say(self.redact(_excerpt_text(failure.excerpt)).rstrip("\n"))
        if failure.hint:
            self._say(failure.hint, CYAN, "hint: ")
        if self.json_mode:
            self._last_document(failure_document(failure, command, env, dry_run, self.warnings))
        return failure.exit_code

    def _last_document(self, document):
        """Write the document of a failure; where stdout is what failed, it has been said on stderr."""
        try:
            self._document(document)
        except Unreachable:
            return

    def _text(self, report):
        """Blocks and summary. Texts follow one another line by line; a table and what follows it stand apart."""
        blocks = [] if self.quiet else [block for block in report.blocks if block]
        text = ""
        last_is_table = False
        for block in blocks:
            is_table = isinstance(block, Table)
            apart = "\n" if text and (is_table or last_is_table) else ""
            text += apart + self._block(block)
            last_is_table = is_table
        if report.summary:
            text += ("\n" if text else "") + self._for_people(report.summary) + "\n"
        return text

    def _block(self, block):
        if isinstance(block, Table):
            title, *lines = block._replace(rows=self._redacted(block.rows)).lines()
            return "\n".join([_paint(title, BOLD) if self.colour_out else title, *lines, ""])
        text = self.redact(block)
        if is_terminal(self.stdout):
            # Into a file or a pipe a text goes as it is: a plan's SQL must be the SQL that runs.
            text = visible(text, keep="\n\t")
        if isinstance(block, Marked) and self.colour_out:
            text = Marked(text).painted()
        return text if text.endswith("\n") else text + "\n"

    def _redacted(self, rows):
        """The rows of a table before they are aligned and escaped, while a secret in them is still itself.

        All are looked at as one text first: a table seldom holds a secret, and often thousands of cells.
        """
        values = [value for row in rows for value in row]
        text = "\n".join(map(str, values))
        # The text of a list shows its items with escapes, which may hide a secret.
        if self.redact(text) == text and not any(issubclass(kind, (list, tuple)) for kind in {*map(type, values)}):
            return rows
        return [json_ready(row, self.redact) for row in rows]

    def _document(self, document):
        import json

        ready = json_ready(document, self.redact)
        # The program's own words are never secrets, whatever somebody chose as a password.
        ready.update(command=document["command"], env=document["env"])
        if "error" in ready:
            ready["error"]["code"] = document["error"]["code"]
        self._out(json.dumps(ready, indent=2, ensure_ascii=False) + "\n", "utf-8")

    # The way to the streams.

    def _out(self, text, encoding):
        """Write to stdout and flush; a failure is raised once, and nothing is left that could fail again at exit."""
        if self.stdout is None:
            raise Unreachable("standard output is closed")
        try:
            _put(self.stdout, text, encoding)
        except BrokenPipeError:
            _silence(self.stdout)
            raise
        except (OSError, ValueError) as error:
            _silence(self.stdout)
            is_full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
            reason = getattr(error, "strerror", None) or error
            hint = "make room on the disk" if is_full else None
            raise Unreachable(f"standard output cannot be written: {reason}", hint) from None

    def _write(self, text):
        """Write to stderr; where that fails there is nowhere left to say so."""
        try:
            if self.stderr is not None:
                _put(self.stderr, text, None)
        except (OSError, ValueError):
            _silence(self.stderr)


def _put(stream, text, encoding):
    """Write and flush, with what the encoding cannot hold as escapes, which in a JSON document are JSON's own."""
    buffer = getattr(stream, "buffer", None)
    if buffer is None:
        stream.write(text.encode("utf-8", "backslashreplace").decode("utf-8"))
    else:
        stream.flush()
        buffer.write(text.encode(encoding or stream.encoding, "backslashreplace"))
    stream.flush()


def _silence(stream):
    """Send what is still buffered for a broken stream nowhere, so that the flush at exit does not fail again."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        return  # not a file: nothing is buffered


def is_terminal(stream):
    """Whether a stream is a terminal; None and a closed stream are none."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


def _columns(stream):
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def _cut(text, columns):
    """`text` cut to so many terminal columns: a longer line would wrap, and only its last part be rewritten."""
    if display_width(text) <= columns:
        return text
    while text and display_width(text) > columns - 3:
        text = text[:-1]
    return text + "..."


def _paint(text, colour):
    return f"\x1b[{colour}m{text}\x1b[0m" if text else ""


def json_ready(value, redact):
    """`value` as JSON can hold it, with every text in it redacted.

    Keys that are plain words are the schema's and stay; infinities, NaN and foreign types become texts.
    """
    if isinstance(value, str):
        return _redacted_text(value, redact)
    if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, dict):
        return {_json_key(key, redact): json_ready(item, redact) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_ready(item, redact) for item in value]
    return redact(str(value))


def _redacted_text(text, redact):
    """A text redacted, but for one that is a number (a version, a time, a hash) and no secret as a whole.

    A password of digits would be found in any longer number, which tells nothing of it, and would be another one then.
    """
    told = redact(text)
    return text if told not in (text, MASK) and _is_number(text) else told


def _is_number(text):
    import re

    return re.fullmatch(NUMBER, text) is not None


def _json_key(key, redact):
    key = str(key)
    return key if key.isidentifier() else _redacted_text(key, redact)


def report_document(report, command, env, dry_run, warnings):
    """The JSON document of a report, as a dict; `ok` is false, with an error, where its exit code is not 0."""
    document = _envelope(report.exit_code == 0, command, env, dry_run, report.data, warnings)
    if report.exit_code:
        code = CODES.get(report.exit_code, "failed")
        document["error"] = {"code": code, "message": report.summary, "hint": None, "exit_code": report.exit_code}
    return document


def failure_document(failure, command, env, dry_run, warnings):
    """The JSON document of a failure, as a dict; file, line, column and excerpt stand in it where they are known."""
    document = _envelope(False, command, env, dry_run, failure.data, warnings)
    document["error"] = {
        "code": failure.code,
        "message": failure.message,
        "hint": failure.hint,
        "exit_code": failure.exit_code,
    }
    known = {"file": failure.file, "line": failure.line, "column": failure.column}
    if failure.excerpt:
        known["excerpt"] = _excerpt_text(failure.excerpt)
    document["error"].update({name: value for name, value in known.items() if value is not None})
    return document


def _envelope(ok, command, env, dry_run, data, warnings):
    return {
        "ok": ok,
        "command": command,
        "env": env,
        "dry_run": bool(dry_run),
        "data": data or {},
        "warnings": list(warnings),
    }


def _excerpt_text(excerpt):
    """An excerpt, a text or its lines, as one text."""
    return excerpt if isinstance(excerpt, str) else "\n".join(excerpt)
