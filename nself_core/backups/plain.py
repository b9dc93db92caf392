"""Whether a plain dump's text holds a command of psql (`\\!`, `\\copy`, `\\connect` …) that pg_dump does not write.

psql takes a backslash anywhere outside of quotes, comments and COPY's data for a command. So its own reading is
followed here, line by line; where two versions of psql would read differently, the text counts as none of pg_dump's.
"""

from __future__ import annotations

import re

PIECE = 1 << 20  # bytes of COPY's data at a time; a line of SQL is taken whole, as psql takes it
WHITE = b" \t\n\r\f\v"
TOKEN = re.compile(
    rb"""(?P<escapes>[eE]')
    | (?P<word>[A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*)
    | (?P<number>\$?[0-9][0-9A-Za-z_.\x80-\xff]*)
    | (?P<dollar>\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*)?\$)
    | (?P<variable>:(?:DBNAME|HOST|USER|PROMPT|LAST_|SERVER_))
    | ::|--|/\*|['"();\\]""",
    re.VERBOSE,
)
RESTRICT = re.compile(rb"\\(?:un)?restrict [A-Za-z0-9]+\r?\n?")
STANDARD = re.compile(rb"SET standard_conforming_strings = (on|off);\s*")
ENCODING = re.compile(rb"(?i)\s*SET\s+client_encoding\b.*(?:sjis|shift|big5|gbk|uhc|gb18030|johab)")
ESCAPED_END = re.compile(rb"\\.|''|'", re.DOTALL)
COMMENT_END = re.compile(rb"/\*|\*/")
LINE_END = re.compile(rb"[\n\r]")
COPY_ENDS = (b"\\.\n", b"\\.\r\n")
FUNCTION = re.compile(rb"create (?:or replace )?(?:function|procedure)\b")
DEFINING = (b"create", b"or", b"replace", b"function", b"procedure")


class Unwritten(Exception):
    """Something that pg_dump does not write: `what`, in words."""

    def __init__(self, what):
        super().__init__(what)
        self.what = what


def find_command(file):
    """(line, what) of the first thing in the text of a dump that pg_dump does not write, or None where there is none.

    Argument: a file to read bytes from. Raises what its reading raises.
    """
    reading, number = _Reading(), 0
    try:
        while line := file.readline(PIECE):
            number += 1
            while not reading.copies and not line.endswith(b"\n") and (more := file.readline(PIECE)):
                line += more
            reading.take(line, number == 1)
            if reading.copies:
                for lines in _copied(file):
                    number += lines
                reading.copies = False
    except Unwritten as unwritten:
        return number, unwritten.what
    return None


def _copied(file):
    """Read COPY's data to its end, and yield 1 for each line, 0 for a further piece of one."""
    begins = True
    while line := file.readline(PIECE):
        yield int(begins)
        if b"\0" in line:
            raise Unwritten("a NUL byte")
        if begins and line in COPY_ENDS:
            return
        begins = line.endswith(b"\n")


class _Reading:
    """What psql makes of a text, line by line. `copies` says that COPY's data follow the line."""

    def __init__(self):
        self.copies = False
        self._inside = None  # a function of (line, position): the position behind what is open, or None
        self._tag = b""
        self._comments = 0
        self._parens = 0
        self._begins = 0  # BEGIN … END of a function: psql since 14 splits nothing there
        self._words = []  # the first words of what psql sends
        self._first = None  # the first word since the last semicolon
        self._standard = None  # standard_conforming_strings, once the dump has set it
        self._escaped = False  # nothing but white space since a literal with escapes

    def take(self, line, is_first):
        """Read one line. Raises Unwritten."""
        if b"\0" in line or (is_first and line.startswith(b"\xef\xbb\xbf")):
            raise Unwritten("a NUL byte or a byte order mark")
        if self._inside is None and self._first is None:
            self._settle(line)
        at = 0
        while True:
            if self._inside:
                at = self._inside(line, at)
                if at is None:
                    return
                self._inside = None
            found = TOKEN.search(line, at)
            gap = line[at : found.start() if found else None]
            self._escaped = self._escaped and not gap.strip(WHITE)
            if not found:
                return
            at = self._token(line, found)

    def _settle(self, line):
        """Take note of the two settings by which psql reads otherwise."""
        if ENCODING.match(line):
            raise Unwritten("a client_encoding in which a backslash may be half a letter")
        found = STANDARD.fullmatch(line)
        if found:
            wanted = found[1] == b"on"
            if self._standard not in (None, wanted):
                raise Unwritten("another standard_conforming_strings")
            self._standard = wanted

    def _token(self, line, found):
        """Read one token, and return the position behind it."""
        kind, text, at = found.lastgroup, found[0], found.end()
        if text == b"\\":
            return self._command(line, found.start())
        if text == b"--":
            end = LINE_END.search(line, at)
            return end.start() if end else len(line)
        if text == b"/*":
            self._inside, self._comments = self._comment, 1
            return at
        self._literal(line, found)
        self._escaped = False
        if kind == "variable":
            raise Unwritten(f"the variable {text.decode()} of psql")
        if kind == "number" and line[at : at + 1] in (b"'", b"$"):
            raise Unwritten("a number beside a quote")
        if kind == "word":
            self._word(text.lower())
        elif text == b"(":
            self._parens += 1
        elif text == b")":
            self._parens = max(self._parens - 1, 0)
        elif text == b";" and not self._parens:
            self._end_statement(line, found.start())
        return at

    def _literal(self, line, found):
        """Where a literal begins, take note of what it ends with."""
        text = found[0]
        if text == b"'" and self._escaped:
            raise Unwritten("a literal with escapes in two parts")
        if found.lastgroup == "escapes" or (text == b"'" and self._standard is False):
            if text == b"'" and line[max(found.start() - 1, 0) : found.start()] in (b"b", b"B", b"x", b"X", b"&"):
                raise Unwritten("a literal that psql reads otherwise without standard_conforming_strings")
            self._inside = self._escapes
        elif text == b"'":
            self._inside = self._quoted
        elif text == b'"' or found.lastgroup == "dollar":
            self._inside, self._tag = self._until, text

    def _command(self, line, at):
        if at or not RESTRICT.fullmatch(line):
            word = line[at:].split(maxsplit=1)[0].decode("utf-8", "backslashreplace")
            raise Unwritten(f"psql's command {word}")
        return len(line)

    def _word(self, word):
        self._first = self._first or word
        self._words = self._words if len(self._words) == 4 else [*self._words, word if word in DEFINING else b"?"]
        if self._parens or not FUNCTION.match(b" ".join(self._words)):
            return
        if word == b"begin" or (word == b"case" and self._begins):
            self._begins += 1
        elif word == b"end" and self._begins:
            self._begins -= 1

    def _end_statement(self, line, at):
        if self._first == b"copy":
            if self._begins or not line[:at].endswith(b"FROM stdin") or line[at + 1 :] not in (b"\n", b"\r\n"):
                raise Unwritten("a COPY of another form")
            self.copies = True
        self._first = None
        if not self._begins:
            self._words = []

    def _until(self, line, at):
        end = line.find(self._tag, at)
        return None if end < 0 else end + len(self._tag)

    def _quoted(self, line, at):
        end = line.find(b"'", at)
        if end < 0:
            return None
        if self._standard is None and line[max(end - 1, 0) : end] == b"\\":
            raise Unwritten("a backslash before a quote, before standard_conforming_strings is set")
        return end + 1

    def _escapes(self, line, at):
        for found in ESCAPED_END.finditer(line, at):
            if found[0] == b"'":
                self._escaped = True
                return found.end()
        return None

    def _comment(self, line, at):
        for found in COMMENT_END.finditer(line, at):
            self._comments += 1 if found[0] == b"/*" else -1
            if not self._comments:
                return found.end()
        return None
