"""Env files in Compose's syntax: text in, settings out, nothing ever executed.

    NAME=value                 up to the end of the line; ` #` starts a comment; ${...} is expanded
    NAME="value"               may span lines; \\n \\r \\t \\" \\\\ \\$ are escapes; ${...} is expanded
    NAME='value'               may span lines; literal, but for \\' which is a quote
    NAME                       taken over from the process environment, where it is set there
    export NAME=value          the word is accepted and dropped; `NAME: value` is accepted too

    ${A} $A                    the value of A, empty where it is unset
    ${A:-text} ${A-text}       text where A is unset or empty / unset
    ${A:?text} ${A?text}       a failure with that text where A is unset or empty / unset
    ${A:+text} ${A+text}       text where A is set and not empty / set
    $$                         a dollar sign, as is every `$` that starts no name

Compose refuses the last kind; here it stands for itself, so that a password such as `p$1` is read as written.
"""

from __future__ import annotations

import re
from collections import namedtuple

from nself_core.failures import FileFailure


class EnvFile(namedtuple("EnvFile", "values unset")):
    """What one file says.

    Fields: `values`, name -> text in the file's order; `unset`, name -> the names its value refers to, without a
    default, that nothing sets.
    """

    __slots__ = ()


SPACE = " \t\v\f\r\x85\xa0"

STATEMENT = re.compile(rf"(?:export[{SPACE}]+)?(?P<name>\w[\w.\-\[\]]*)[{SPACE}]*(?P<sign>[=:]|(?=\n)|\Z)")
COMMENT = re.compile(r"[ \t]#.*")
QUOTED = {
    "'": re.compile(r"'([^'\\]*(?:\\.[^'\\]*)*)'", re.DOTALL),
    '"': re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)"', re.DOTALL),
}
ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", '"': '"', "\\": "\\", "$": "$$"}
BRACE = re.compile(r"\$\{|\}")
REFERENCE = re.compile(r"\$(?:(?P<dollar>\$)|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<brace>\{))")
NESTED_AT_MOST = 20
BRACED = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:(?P<sign>:?[-?+])(?P<text>.*))?", re.DOTALL)


def parse(text, file, lookup=None):
    """The settings in `text`, as a dict in the file's order; of a name given twice the last one holds.

    Arguments: `text`, the whole file; `file`, its path for messages; `lookup`, a function from a name to its value
    or None, asked before the file's own earlier lines (the process environment wins, as in Compose).
    Raises FileFailure with the line for what is not of the syntax above.
    """
    return read(text, file, lookup).values


def read(text, file, lookup=None, earlier=()):
    """As `parse`, but answers an EnvFile. `earlier`: the settings of files read before, asked last."""
    return _Reader(text, file, lookup or {}.get, dict(earlier)).read()


def decode(data, file):
    """The text of an env file's bytes, without its byte order mark. Raises FileFailure for what is not UTF-8."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise FileFailure("the file is UTF-16, not UTF-8", "save it as UTF-8", file=file, line=1)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FileFailure("the file is not UTF-8 text", "save it as UTF-8", file=file, line=line) from None


class _Reader:
    """One pass over one file: `position` stands before the next statement."""

    def __init__(self, text, file, lookup, earlier):
        self.text = text.lstrip("\ufeff").replace("\r\n", "\n")
        self.file = file
        self.lookup = lookup
        self.earlier = earlier
        self.values = {}
        self.unset = {}
        self.position = 0

    def read(self):
        if "\0" in self.text:
            self.position = self.text.index("\0")
            raise self.failure("a NUL byte", "no setting can hold one")
        while self.skip_to_statement():
            self.statement()
        return EnvFile(self.values, self.unset)

    def failure(self, message, hint=None):
        # The text of a line is never part of a message: it may hold a password.
        return FileFailure(message, hint, file=self.file, line=self.text.count("\n", 0, self.position) + 1)

    def skip_to_statement(self):
        """Move over blank lines and comment lines; whether anything is left."""
        text, end = self.text, len(self.text)
        while self.position < end:
            if text[self.position] == "#":
                self.position = self.line_end()
            elif text[self.position] in SPACE or text[self.position] == "\n":
                self.position += 1
            else:
                return True
        return False

    def line_end(self):
        end = self.text.find("\n", self.position)
        return len(self.text) if end < 0 else end

    def statement(self):
        match = STATEMENT.match(self.text, self.position)
        if match is None:
            raise self.failure("not a setting", "a line reads NAME=value; a name is letters, digits and _")
        name = match["name"]
        if match["sign"]:
            value = self.value(match.end(), name)
        else:
            self.position = match.end()
            value = self.lookup(name)
        if value is not None:
            self.values[name] = value

    def value(self, start, name):
        """The value behind the sign before `start`, expanded; leaves the position at the end of its last line."""
        self.unset.pop(name, None)
        end = self.line_end()
        line = self.text[start:end]
        bare = line.lstrip(SPACE)
        if bare[:1] in QUOTED:
            return self.quoted(end - len(bare), bare[0], name)
        # The line with its leading blanks: NAME=#1 is a value, NAME= #1 a comment.
        value = self.expand(COMMENT.sub("", line).strip(SPACE), name)
        self.position = end
        return value

    def quoted(self, start, quote, name):
        match = QUOTED[quote].match(self.text, start)
        if match is None:
            raise self.failure(f"the value of {name} opens a quote {quote} that is never closed")
        if quote == "'":
            value = re.sub(r"\\(.)", lambda pair: "'" if pair[1] == "'" else pair[0], match[1], flags=re.DOTALL)
        else:
            value = self.expand(_without_escapes(match[1]), name)
        self.position = match.end()
        rest = self.text[self.position : self.line_end()].strip(SPACE)
        if rest and not rest.startswith("#"):
            raise self.failure(f"text after the closing quote of {name}", f"write a quote inside as \\{quote}")
        self.position = self.line_end()
        return value

    def expand(self, template, name, depth=0):
        """`template` with its references replaced; `name` is the setting it belongs to."""
        if depth > NESTED_AT_MOST:
            raise self.failure(f"the value of {name} nests ${{...}} too deeply")
        parts: list[str] = []
        position = 0
        while True:
            match = REFERENCE.search(template, position)
            if match is None:
                return "".join(parts) + template[position:]
            parts.append(template[position : match.start()])
            position = match.end()
            if match["dollar"]:
                parts.append("$")
            elif match["name"]:
                parts.append(self.known(match["name"], name))
            else:
                end = _closing_brace(template, position)
                parts.append(self.braced(template[position:end], name, depth))
                position = end + 1

    def braced(self, inside, name, depth):
        """The value of `${inside}`."""
        match = BRACED.fullmatch(inside)
        if match is None:
            raise self.failure(
                f"the value of {name} has a ${{ that is no ${{NAME}}",
                "write $$ for a dollar sign, or use single quotes",
            )
        if match["sign"] is None:
            return self.known(match["name"], name)
        value = self.find(match["name"])
        there = value is not None and (value != "" or ":" not in match["sign"])
        kind = match["sign"][-1]
        if kind == "+":
            return self.expand(match["text"], name, depth + 1) if there else ""
        if there:
            return value
        if kind == "?":
            reason = f": {match['text']}" if match["text"] else ""
            raise self.failure(f"{name} needs {match['name']}, which is not set{reason}")
        return self.expand(match["text"], name, depth + 1)

    def known(self, reference, name):
        """The value of a plain reference; one that nothing sets is empty, and is remembered."""
        value = self.find(reference)
        if value is None:
            self.unset.setdefault(name, []).append(reference)
        return value or ""

    def find(self, reference):
        value = self.lookup(reference)
        if value is None:
            value = self.values.get(reference)
        return self.earlier.get(reference) if value is None else value


def _without_escapes(text):
    """A double-quoted text with its escapes resolved; `\\$` becomes `$$`, which expansion turns into a dollar sign."""
    return re.sub(r"\\(.)", lambda pair: ESCAPES.get(pair[1], pair[0]), text, flags=re.DOTALL)


def _closing_brace(template, position):
    """Where the `}` stands that closes the `${` before `position`; `position` itself, for nothing, where none does."""
    depth = 1
    for match in BRACE.finditer(template, position):
        depth += 1 if match[0] == "${" else -1
        if depth == 0:
            return match.start()
    return position
