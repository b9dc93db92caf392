"""What a migration says about itself in its comments: how it is to run, and whether it holds two parts.

A directive stands in the head of the file: the line comments before its first statement. Ours are written
`-- nself:<name>` or `-- nself:<name>=<value>`; of dbmate, goose and sql-migrate the marks that mean the same are
understood. Only real comments count: what stands in a string, a dollar-quoted body, a block comment or the data
of a COPY is not one, which is why every function here wants the statements that the lexer found.
"""

from __future__ import annotations

import re
from collections import namedtuple

from nself_core.failures import FileFailure
from nself_core.sql.lexer import line_column

TO_BE_WRITTEN = "-- nself: to be written"
LARGEST_TIMEOUT = 2**31 - 1  # lock_timeout and statement_timeout are integers of milliseconds
KNOWN = ("no-transaction", "lock-timeout", "statement-timeout", "to be written")

_MILLISECONDS = {"us": 0.001, "ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
_TIMEOUT = re.compile(r"([0-9]+(?:\.[0-9]*)?) ?(us|ms|s|min|h|d)?")

_NSELF = re.compile(r"nself\s*:\s*(.*)", re.IGNORECASE | re.DOTALL)
_NO_TRANSACTION_ELSEWHERE = re.compile(
    r"migrate:(?:up|down)\s.*\btransaction:\s*false\b.*"  # dbmate
    r"|\+goose\s+no\s+transaction"
    r"|\+migrate\s+(?:up|down)\s.*\bnotransaction\b.*",  # sql-migrate
    re.IGNORECASE | re.DOTALL,
)

# The marks that part a file in two, for tools that keep both directions in one file.
_PART = (
    r"migrate:{0}(?:[ \t][^\r\n]*)?|migrate[ \t]+{0}|\+goose[ \t]+{0}|\+migrate[ \t]+{0}(?:[ \t][^\r\n]*)?"
    r"|{0}(?:[ \t]+migration)?[ \t]*:?"
)
_UP, _DOWN = _PART.format("up"), _PART.format("down") + r"|//[ \t]*@undo"
_PARTS = {"up": re.compile(_UP, re.IGNORECASE), "down": re.compile(_DOWN, re.IGNORECASE)}
# Most files hold no such line at all, and then nothing need be lexed to know it. (The bounds keep time linear.)
_PART_LINE = r"(?<!-)--[ \t\f\v=-]{{0,80}}(?:{0})[ \t\f\v=-]{{0,80}}(?:[\r\n]|\Z)"
_PART_LIKELY = {
    "up": re.compile(_PART_LINE.format(_UP), re.IGNORECASE),
    "down": re.compile(_PART_LINE.format(_DOWN), re.IGNORECASE),
}
_DIRECTIVE_LIKELY = re.compile(r"--[ \t]*nself[ \t]*:", re.IGNORECASE)

_PIECE = re.compile(r"--([^\r\n]*)|(/\*)|\\[^\r\n]*")
_COMMENT_OR_END = re.compile(r";|--[^\r\n]*|/\*")
_BLOCK_MARK = re.compile(r"/\*|\*/")
_LINE_END = re.compile(r"\r\n|\r|\n")


class Head(namedtuple("Head", "no_transaction lock_timeout statement_timeout to_be_written")):
    """What the head of a file says.

    `no_transaction`: the `Comment` that asks to run outside a transaction, or None. `lock_timeout` and
    `statement_timeout`: milliseconds, 0 for none at all, None where the file does not say. `to_be_written`: the
    `Comment` that says that the file is not written yet, or None.
    """

    __slots__ = ()


class Comment(namedtuple("Comment", "text line column")):
    """A line comment: what stands behind its dashes, stripped, and where its dashes stand (line, column from 1)."""

    __slots__ = ()


def read_head(text, statements, file):
    """The directives of a file as a `Head`.

    Arguments: `text`, the decoded text; `statements`, what the lexer's `split` made of it; `file`, its name.
    Raises FileFailure with line and column for a directive that is not known, has a bad value, or stands behind
    the first statement, where it would come too late.
    """
    first = statements[0].offset if statements else len(text)
    found = {}
    for said, offset in _comments(text, [(0, first)]):
        ours = _NSELF.fullmatch(said)
        if ours:
            name, value = _directive(ours.group(1), _placed(said, offset, text), file)
            found[name] = value
        elif _NO_TRANSACTION_ELSEWHERE.fullmatch(said):
            found["no-transaction"] = _placed(said, offset, text)
    _refuse_late(text, statements, first, file)
    return Head(*(found.get(name) for name in KNOWN))


def _directive(written, comment, file):
    """(name, value) of one of our directives; a directive without a value has its comment as value."""
    name, equals, value = written.partition("=")
    name = _spelled(name)
    if name not in KNOWN:
        raise _failure(f"nself:{written.strip()[:60]} is not a directive", _near(name), comment, file)
    if name.endswith("-timeout"):
        return name, _milliseconds(name, value.strip().strip("'\""), comment, file)
    if equals:
        raise _failure(f"nself:{name} takes no value", None, comment, file)
    return name, comment


def _spelled(name):
    """The name as KNOWN has it: `no_transaction`, `No Transaction` and `to-be-written` are understood."""
    words = name.strip().lower().replace("_", " ").replace("-", " ").split()
    joined = "-".join(words)
    return "to be written" if joined == "to-be-written" else joined


def _near(name):
    import difflib

    near = difflib.get_close_matches(name, KNOWN, 1)
    return f"did you mean nself:{near[0]}?" if near else f"there are: {', '.join(KNOWN)}"


def _milliseconds(name, value, comment, file):
    """A timeout as Postgres takes it: a number of milliseconds, or a number with a unit; 0 switches it off."""
    match = _TIMEOUT.fullmatch(value)
    if not match:
        shown = f"{value!r} is not a time" if value else "a time is missing"
        raise _failure(f"nself:{name}: {shown}", "write 500ms, 5s, 10min, 1h, or 0 for none", comment, file)
    milliseconds = float(match.group(1)) * _MILLISECONDS[match.group(2) or "ms"]
    if milliseconds > LARGEST_TIMEOUT:
        raise _failure(f"nself:{name}: {value} is more than Postgres takes (24 days)", None, comment, file)
    if 0 < milliseconds < 0.5:
        raise _failure(f"nself:{name}: {value} rounds to 0, which is no timeout", "write 1ms or more", comment, file)
    return int(milliseconds + 0.5)


def _refuse_late(text, statements, first, file):
    """Refuses a known directive behind the first statement; prose that begins with `nself:` is left alone there."""
    if not _DIRECTIVE_LIKELY.search(text, first):
        return
    for said, offset in _comments(text, _gaps(text, statements)):
        ours = _NSELF.fullmatch(said)
        if ours and offset > first and _spelled(ours.group(1).partition("=")[0]) in KNOWN:
            hint = "directives stand in the head of the file, before its first statement"
            comment = _placed(said, offset, text)
            raise _failure(f"nself:{ours.group(1)} comes too late to be heeded", hint, comment, file)


def refuse_part(part, text, statements, file):
    """Raises FileFailure where a file of one direction holds a part of the other, which would run with it.

    Arguments: `part`, the direction that must not be in it: "down" for an up file, "up" for a down file; `text`,
    `statements`, `file` as for `read_head`. A mark with no statement behind it is harmless and passes.
    """
    if not statements or not _PART_LIKELY[part].search(text):
        return
    end = _end(statements[-1])
    for said, offset in _comments(text, _gaps(text, statements)):
        if offset < end and _PARTS[part].fullmatch(said):
            whole = "up" if part == "down" else "down"
            raise _failure(
                f"the file holds its {part} part, too (-- {said}), which would run as part of its {whole}",
                f"move what belongs to it to the {part} file, beside this one",
                _placed(said, offset, text),
                file,
            )


def _placed(said, offset, text):
    return Comment(said, *line_column(text, offset))


def _failure(message, hint, comment, file):
    return FileFailure(message, hint, file=file, line=comment.line, column=comment.column)


def _end(statement):
    return statement.offset + len(statement.text)


def _gaps(text, statements):
    """The (start, end) of all that is neither a token nor the data of a COPY."""
    start = 0
    for statement in statements:
        for token in statement.tokens:
            yield start, token.offset
            start = token.offset + len(token.text)
        if statement.copy_data is not None:
            start = _data_start(text, start) + len(statement.copy_data)
    yield start, len(text)


def _data_start(text, start):
    """Where the data of a COPY begin whose last token ends at `start`: on the line behind its semicolon."""
    while True:
        match = _COMMENT_OR_END.search(text, start)
        if match is None or match.group() == ";":
            line_end = _LINE_END.search(text, match.end() if match else start)
            return line_end.end() if line_end else len(text)
        start = _block_end(text, match.end(), len(text)) if match.group() == "/*" else match.end()


def _comments(text, gaps):
    """The line comments in the gaps, as (what stands behind the dashes, offset).

    Block comments nest, and a backslash line (`\\restrict`) is none. Dashes and equal signs around the words are
    decoration.
    """
    for start, end in gaps:
        match = _PIECE.search(text, start, end)
        while match:
            if match.group(2):
                start = _block_end(text, match.end(), end)
            else:
                start = match.end()
                if match.group(1) is not None:
                    yield match.group(1).strip(" \t\f\v-="), match.start()
            match = _PIECE.search(text, start, end)


def _block_end(text, start, end):
    depth = 1
    while depth:
        mark = _BLOCK_MARK.search(text, start, end)
        if not mark:
            return end
        depth += 1 if mark.group() == "/*" else -1
        start = mark.end()
    return start
