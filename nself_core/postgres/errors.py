"""What the server says when it refuses: read from psql's verbose text or libpq's fields, turned into one failure.

psql prints `SEVERITY:  SQLSTATE: message` and then labelled lines (PostgreSQL manual, psql, VERBOSITY). The
caret under its LINE is the only place where it tells the position, so the column is found again in the text.
"""

from __future__ import annotations

from collections import namedtuple

from nself_core.failures import CredentialsRefused, DatabaseClosed, LockHeld, SqlFailure, Unreachable
from nself_core.postgres.maintenance import command_to_open

ServerError = namedtuple(
    "ServerError",
    "sqlstate message detail hint context line column severity internal",
    defaults=(None, None, None, None, None, "ERROR", None),
)
ServerError.__doc__ = """One report of the server.

`line` and `column` count from 1 inside the statement that was sent, None where the server gave no position;
`internal` is the text of the query a function ran, where the position is inside that one.
"""

LABELS = ("DETAIL", "HINT", "QUERY", "CONTEXT", "LOCATION", "SCHEMA NAME", "TABLE NAME", "COLUMN NAME",
          "DATATYPE NAME", "CONSTRAINT NAME")

# The classes of SQLSTATE that speak of the server's state and not of the statement (manual, appendix A).
INFRASTRUCTURE = ("08", "53", "57P0", "58")
EXHAUSTED = ("53", "58030", "57P0")
CREDENTIALS = ("28",)
RETRYABLE = ("55P03", "40P01", "40001")


def parse_reports(text, statement=""):
    """All reports in psql's stderr `text`, in order; `statement` is the SQL they speak of, for the column."""
    import re

    head = re.compile(r"^(?:psql:[^\n]*?:\d+: )?([^\s:][^:\n]{0,20}):  ([0-9A-Z]{5}): ?(.*)$")
    reports: list = []
    current: dict | None = None
    for line in text.split("\n"):
        found = head.match(line)
        # A message may have lines that look like a report's first: a report ends with its LOCATION.
        ended = current is None or any(text.startswith("LOCATION:") for text in current["lines"])
        if found and ended and found.group(1) not in LABELS:
            current = {"severity": found.group(1), "sqlstate": found.group(2), "lines": [found.group(3)]}
            reports.append(current)
        elif current is not None:
            current["lines"].append(line)
    return [_report(entry, statement) for entry in reports]


def _report(entry, statement):
    parts: dict = {"message": []}
    label = "message"
    lines = entry["lines"]
    position = None
    skip = -1
    for number, line in enumerate(lines):
        if number == skip:
            continue
        if line.startswith("LINE ") and number + 1 < len(lines) and lines[number + 1].strip() == "^":
            position = (line, lines[number + 1])
            skip = number + 1
            continue
        found = next((name for name in LABELS if line.startswith(name + ":  ")), None)
        if found:
            label = found
            parts[label] = [line[len(found) + 3:]]
        else:
            parts.setdefault(label, []).append(line)
    joined = {name: "\n".join(lines).rstrip() for name, lines in parts.items()}
    internal = joined.get("QUERY")
    line, column = _position(position, statement) if position and not internal else (None, None)
    return ServerError(entry["sqlstate"], joined["message"], joined.get("DETAIL"), joined.get("HINT"),
                       joined.get("CONTEXT"), line, column, entry["severity"], internal)


def _position(position, statement):
    """Line and column, counted from 1, that psql's `LINE n: extract` and caret mean inside `statement`."""
    shown, caret = position
    prefix, _, extract = shown.partition(": ")
    line = int(prefix[5:]) if prefix[5:].isdigit() else 1
    width = len(caret) - 1 - len(prefix) - 2
    before = _take_columns(extract, width)
    lines = statement.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    whole = lines[line - 1].replace("\t", " ") if line <= len(lines) else ""
    core, cut = extract, 0
    if core.startswith("...") and not whole.startswith("..."):
        core, cut = core[3:], 3
    if core.endswith("..."):
        core = core[:-3]
    # An extract that is cut before but not behind is the line's end.
    start = whole.rfind(core) if cut and extract.endswith(core) else whole.find(core)
    return line, (max(start, 0) + before - cut + 1)


def _take_columns(text, width):
    """How many characters of `text` fill `width` columns as libpq counts them: wide ones two, all others one."""
    import unicodedata

    used = 0
    for count, character in enumerate(text):
        if used >= width:
            return count
        used += max(1, _columns_of(character, unicodedata))
    return len(text)


def _columns_of(character, unicodedata):
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def failure_of(error, where, statement=None, file=None, first_line=1, first_column=1, kind=SqlFailure):
    """The failure that shows `error` to a person.

    Arguments: `where`, the server in words; `statement`, the SQL text sent; `file`, where that stands, with
    `first_line` and `first_column` of the statement in it; `kind`, the class for a refusal that is the statement's own
    fault.
    """
    own = file is None
    if own and error.sqlstate.startswith(CREDENTIALS):
        return CredentialsRefused(f"{where}: {error.message}", "check the user and the password in the env files")
    cls = kind
    # A file's own statement can raise almost any code: only what is certainly the server's state counts against it.
    if error.sqlstate.startswith(INFRASTRUCTURE if own else EXHAUSTED):
        cls = Unreachable
    elif error.sqlstate == "55P03" and kind is SqlFailure:
        cls = LockHeld
    line, column = _place_in_file(error, first_line, first_column)
    return cls(
        f"{error.message} (SQLSTATE {error.sqlstate})",
        _hint(error, statement, file),
        file=file,
        line=line if file else None,
        column=column if file else None,
        excerpt=_excerpt(error, statement),
    )


def _place_in_file(error, first_line, first_column):
    if error.line is None or first_line is None:
        return first_line, first_column
    column = error.column + (first_column - 1 if error.line == 1 else 0)
    return first_line + error.line - 1, column


def _excerpt(error, statement):
    """The statement's line with a caret, then the server's detail and context."""
    lines = []
    texts = (statement or "").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    number = error.line or 1
    if statement and number <= len(texts):
        shown, offset = _window(texts[number - 1], error.column)
        lines.append("  " + shown)
        if error.column:
            lines.append("  " + _blank(shown[: error.column - 1 - offset]) + "^")
    if error.detail:
        lines.append("  detail: " + error.detail.replace("\n", "\n  "))
    if error.internal:
        lines.append("  query: " + error.internal.replace("\n", "\n  "))
    if error.context:
        lines.append("  context: " + error.context.replace("\n", "\n  "))
    return "\n".join(lines) or None


def _window(line, column, width=160):
    """The part of a long line that holds `column`, and how many characters were left out before it."""
    if len(line) <= width:
        return line, 0
    start = max(0, (column or 1) - 1 - width // 2)
    return line[start:start + width], start


def _blank(text):
    """As many columns of white space as `text` fills; tabs stay tabs."""
    import unicodedata

    return "".join("\t" if character == "\t" else " " * _columns_of(character, unicodedata) for character in text)


# What experience adds to the server's words about a statement of a file: SQLSTATE, words of the message, the hint.
FILE_HINTS = (
    ("55P04", "", "a new enum value can be used only after it is committed: put its use in a migration of its own"),
    ("55P03", "", "another session holds a lock on the object: see pg_stat_activity, or raise -- nself:lock-timeout="),
    ("25001", "transaction block", "mark the file with -- nself:no-transaction in its head"),
    ("25001", "before any query", "put it into the file's own BEGIN: BEGIN ISOLATION LEVEL SERIALIZABLE; … COMMIT;"),
    ("2D000", "", "what it calls ends the transaction: mark the file with -- nself:no-transaction in its head"),
)


def _hint(error, statement, file):
    """The server's own hint, or what experience adds to it."""
    if error.sqlstate.startswith("42") and error.line and "\u00a0" in _beside(statement or "", error):
        return "there is a no-break space (U+00A0) here, which only looks like a blank: replace it"
    if file is None:
        return error.hint or ("see pg_stat_activity for who holds the lock" if error.sqlstate == "55P03" else None)
    known = (hint for sqlstate, words, hint in FILE_HINTS if error.sqlstate == sqlstate and words in error.message)
    return next(known, error.hint)


def _beside(statement, error):
    """The token at the error's position with one character on either side."""
    lines = statement.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    line = lines[error.line - 1] if error.line <= len(lines) else ""
    start = max(error.column - 2, 0)
    end = start + 2
    while end < len(line) and line[end] not in " \t;":
        end += 1
    return line[start:end + 1]


CHECK_PLACE = "start the stack, or check host, port and database"
REFUSED_LOGIN = ("authentication failed", "no password supplied", "pg_hba.conf", "permission denied for database")


def _closed_database(text):
    """The name of the database that lets nobody in, where the words of a refused connection say so."""
    name, found, _ = text.partition('FATAL:  database "')[2].partition('" is not currently accepting connections')
    return name if found else None


def connection_failure(text, where):
    """The failure that psql's or libpq's words about a lost or refused connection mean."""
    lines = dict.fromkeys(line.strip() for line in text.split("\n"))  # of several jobs each says the same
    told = [line for line in lines if line and not line.startswith(("LOCATION:", "NOTICE:", "WARNING:", "INFO:"))]
    message = " ".join(told)[:500] or "no answer"
    for prefix in ("psql: error: ", "psql: "):
        message = message[len(prefix):] if message.startswith(prefix) else message
    if (name := _closed_database(text)) is not None:
        failure = DatabaseClosed(f"{where}: {message}", f"let connections in again: {command_to_open(name)}")
        failure.database = name
        return failure
    low = message.lower()
    unknown_role = 'role "' in low and ("does not exist" in low or "not permitted to log in" in low)
    if unknown_role or any(words in low for words in REFUSED_LOGIN):
        hint = "check the user and the password in the env files"
        return CredentialsRefused(f"{where} refused the login: {message}", hint)
    if "does not exist" in low and "database" in low:
        return Unreachable(f"{where}: {message}", "create the database, or set POSTGRES_DB to the one that is meant")
    return Unreachable(f"{where} cannot be reached: {message}", CHECK_PLACE)
