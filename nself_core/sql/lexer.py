"""Where a statement begins and ends: psql's own lexical rules, over a whole file in one pass.

The rules are those of psqlscan.l and of the server's scan.l, as PostgreSQL 13 to 18 have them; where psql sees
less than the server (it reads line by line), the server's rule is taken, for each statement is sent whole.
A file that cannot be split with certainty is refused before anything of it runs.

Most of a file is of no interest to the splitter, so one regular expression runs over all that cannot end a
statement, and Python looks only at what stops it. Its repeats are bounded and its alternatives exclude one
another, so time is linear in the text, whatever the text.
"""

from __future__ import annotations

import functools
import itertools
import re
from bisect import bisect_right
from collections import namedtuple

from nself_core.failures import FileFailure

SPACE = " \t\n\r\f\v"

# Every character that is not ASCII belongs to names, the no-break space too. The classes are written as what they
# leave out, in ASCII alone, for Python compiles a range up to U+10FFFF ten times as slowly.
_START = r"[^\x00-@\[-\^`{-\x7f]"
_TAG_PART = r"[^\x00-/:-@\[-\^`{-\x7f]"
_PART = r"[^\x00-#%-/:-@\[-\^`{-\x7f]"
_WORD = f"{_START}{_PART}*"
_TAG = rf"\$(?:{_START}{_TAG_PART}*)?\$"

_LINE_END = re.compile(r"\r\n|\r|\n")
_SPACES = re.compile(rf"(?:[{SPACE}]+|--[^\r\n]*){{0,500}}")
# A line `\\.` alone, by the kind of line end that the COPY's own line has: is it a lone CR?
_END_OF_DATA = {
    True: re.compile(r"(?<=\r)\\\.(?=\r|\Z)"),
    False: re.compile(r"(?<=\n)\\\.(?=\r?\n|\Z)"),
}
_BLOCK_COMMENT_MARK = re.compile(r"/\*|\*/")
_DOLLAR_TAG = re.compile(_TAG)
_NAME = re.compile(_WORD)
_RESTRICT = re.compile(r"\\(?:un)?restrict[ \t]+[A-Za-z0-9]+[ \t]*(?=\r|\n|\Z)")
_META_COMMAND = re.compile(r"\\(?:[A-Za-z_]+\+?|\S)?")

# Inside '..' and "..": only the quote counts; inside E'..' a backslash takes the next character with it.
_BODY = {
    ("'", False): re.compile(r"(?:[^']+|''){0,500}"),
    ("'", True): re.compile(r"(?:[^'\\]+|\\.|''){0,500}", re.DOTALL),
    ('"', False): re.compile(r'(?:[^"]+|""){0,500}'),
}
_BEFORE_CONTINUATION = tuple(SPACE + "-")
_STRING_START = re.compile(r"(?:[eEbBxX]|[uU]&)?'")


@functools.cache
def _dull(standard_strings):
    """The `match` that runs over what cannot end a statement.

    A string without a backslash reads the same in every mode. Strings with a prefix stop the run, for the lines that
    continue them keep its mode.
    """
    plain = "'[^']*'" if standard_strings else r"'[^'\\]*'"
    other = r"[\x00-!#%&*-,.0-:<-@\[\]^`{-\x7f]+"  # ASCII but letters, quotes and $;()\/-
    return re.compile(
        rf"(?:{other}|(?![eEbBxX]'|[uU]&'){_WORD}|{plain}|\"[^\"]*\"|-(?!-)|/(?!\*)|\$[0-9]+){{0,500}}"
    ).match


_TOKEN = re.compile(
    rf"(?P<space>[{SPACE}]+|--[^\r\n]*)|(?P<comment>/\*)"
    r"|(?P<string>(?:[eEbBxXnN]|[uU]&)?')|(?P<quoted>(?:[uU]&)?\")"
    rf"|(?P<dollar>{_TAG})|(?P<param>\$[0-9]+)|(?P<word>{_WORD})"
    r"|(?P<number>(?:[0-9]+(?:\.(?!\.)[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)"
    r"|(?P<op>::|:=|\.\.|(?:(?!--|/\*)[~!@#^&|`?+*/%<>=-])+|.)",
    re.DOTALL,
)

_UNFINISHED = {
    "'": "a quote (') that is never closed",
    '"': 'a double quote (") that is never closed',
    "/*": "a comment (/*) that is never closed",
    "$": "a dollar quote that is never closed",
    "(": "a parenthesis that is never closed",
    "BEGIN": "BEGIN ATOMIC without its END (behind a `;`)",
}


class Token(namedtuple("Token", "kind text offset")):
    """One significant token: neither space nor comment.

    `kind`: "word" (key word or unquoted name), "quoted" (name in double quotes), "string" (any form, with its
    quotes and prefix), "number", "param" ($1) or "op" (operators, and each of `,()[].;:`).
    `text`: as written. `offset`: in characters, from 0.
    """

    __slots__ = ()

    @property
    def keyword(self):
        """The word in capitals as Postgres compares key words (ASCII letters only); empty for other kinds."""
        return self.text.upper() if self.kind == "word" and self.text.isascii() else ""


class Statement(namedtuple("Statement", "text line column offset end_line copy_data standard_strings")):
    """One statement of a file.

    `text`: from its first token to its last, without the `;`, comments inside kept.
    `line`, `column`: of its first character, from 1. `offset`: the same in characters of the file's text, from 0.
    `end_line`: the line of its last character. `copy_data`: for COPY .. FROM STDIN the data lines as they stand
    in the file, without the `\\.`, else None. `standard_strings`: whether standard_conforming_strings was on.
    """

    __slots__ = ()

    @property
    def keyword(self):
        """Its first word in capitals (cheap); empty when it begins with something else."""
        match = _NAME.match(self.text)
        return match.group().upper() if match and match.group().isascii() else ""

    @property
    def tokens(self):
        """Its significant tokens one after another, with offsets in the file: a generator, lexed while it is read."""
        return tokens(self.text, self.standard_strings, self.offset)


class _Unfinished(Exception):
    """Something that opened at `offset` is not closed at the end of the text."""

    def __init__(self, opener, offset):
        self.opener = opener
        self.offset = offset


def line_column(text, offset):
    """Return (line, column), from 1, of the character at `offset` (from 0) of `text`; lines end with LF, CRLF or CR."""
    # The LF of a CRLF stands on the line that it ends.
    before = offset - 1 if text[max(offset - 1, 0) : offset + 1] == "\r\n" else offset
    ends = text.count("\n", 0, before) + text.count("\r", 0, before) - text.count("\r\n", 0, before)
    begin = max(text.rfind("\n", 0, before), text.rfind("\r", 0, before)) + 1
    return ends + 1, offset - begin + 1


def _wide_encoding(data):
    """The name of the UTF-16 or UTF-32 that `data` is written in, with or without its mark, or None."""
    marks = ((b"\xff\xfe\0\0", "UTF-32"), (b"\0\0\xfe\xff", "UTF-32"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))
    for mark, name in marks:
        if data.startswith(mark):
            return name
    sample = data[:4096]
    # SQL is mostly ASCII: in UTF-16 every other byte is then zero, in UTF-32 three of four.
    zeros = [sample[place::4].count(0) * 4 for place in range(4)]
    often = [count > len(sample) // 2 for count in zeros]
    if len(data) >= 8 and sum(often) == 3:
        return "UTF-32"
    if len(data) >= 4 and (often[0] and often[2]) != (often[1] and often[3]):
        return "UTF-16"
    return None


def _bad_byte(data, offset, what, file):
    before = data[:offset].decode("utf-8", "replace").lstrip("\ufeff")
    line, column = line_column(before, len(before))
    return FileFailure(f"{what} at offset {offset} (line {line})", file=file, line=line, column=column)


def decode(data, file=None):
    """Return the bytes of a file as text, without a UTF-8 byte order mark.

    Arguments: `data`, bytes; `file`, the path as the user would write it. Raises FileFailure with file and line
    for a NUL byte (the protocol would cut the statement there) and for what is not UTF-8, with the byte's offset
    in the file; UTF-16 and UTF-32 are named.
    """
    wide = _wide_encoding(data)
    if wide:
        raise FileFailure(f"the file is {wide}, not UTF-8", "save it as UTF-8", file=file)
    if b"\0" in data:
        raise _bad_byte(data, data.index(b"\0"), "NUL byte", file)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _bad_byte(data, error.start, f"not UTF-8: byte 0x{data[error.start]:02X}", file) from None
    return text[1:] if text.startswith("\ufeff") else text


def _behind_all(pattern, text, pos):
    """The offset behind all matches of the pattern, which has a bound of its own, one after another from `pos`."""
    match = pattern.match(text, pos)
    while match and match.end() > pos:
        pos = match.end()
        match = pattern.match(text, pos)
    return pos


def _skip_spaces(text, pos):
    """The offset behind spaces and `--` comments."""
    return _behind_all(_SPACES, text, pos)


def _end_of_comment(text, start):
    depth = 0
    for mark in _BLOCK_COMMENT_MARK.finditer(text, start):
        depth += 1 if mark.group() == "/*" else -1
        if not depth:
            return mark.end()
    raise _Unfinished("/*", start)


def _skip(text, pos):
    """The offset behind spaces and comments of both kinds."""
    pos = _skip_spaces(text, pos)
    while text.startswith("/*", pos):
        pos = _skip_spaces(text, _end_of_comment(text, pos))
    return pos


def _end_of_quotes(text, quote, escapes, start):
    """The offset behind the closing quote; `quote` is the place of the opening one, `start` that of its prefix."""
    pos = _behind_all(_BODY[text[quote], escapes], text, quote + 1)
    if text[pos : pos + 1] != text[quote]:
        raise _Unfinished(text[quote], start)
    return pos + 1


def _end_of_string(text, start, standard_strings):
    """The offset behind a string that begins, prefix and all, at `start`, with its continuations on further lines."""
    letter = text[start]
    escapes = letter in "eE" or (letter in "'nN" and not standard_strings)
    pos = _end_of_quotes(text, text.index("'", start), escapes, start)
    while text[pos : pos + 1] in _BEFORE_CONTINUATION:
        resumed = _skip_spaces(text, pos)
        if text[resumed : resumed + 1] != "'" or not _LINE_END.search(text, pos, resumed):
            break
        pos = _end_of_quotes(text, resumed, escapes, start)
    return pos


def _end_of_dollar_quote(text, tag):
    """The offset behind a dollar-quoted text; `tag`, the match of its opening tag."""
    end = text.find(tag.group(), tag.end())
    if end < 0:
        raise _Unfinished("$", tag.start())
    return end + len(tag.group())


def _tokens(text, standard_strings, pos=0, base=0):
    while pos < len(text):
        match = _TOKEN.match(text, pos)
        assert match  # the last alternative takes any character
        kind, start, pos = match.lastgroup, pos, match.end()
        if kind == "space":
            continue
        if kind == "comment":
            pos = _end_of_comment(text, start)
            continue
        if kind == "string":
            pos = _end_of_string(text, start, standard_strings)
        elif kind == "quoted":
            pos = _end_of_quotes(text, pos - 1, False, start)
        elif kind == "dollar":
            kind, pos = "string", _end_of_dollar_quote(text, match)
        yield Token(kind, text[start:pos], base + start)


def tokens(text, standard_strings=True, base=0):
    """Return a generator of the significant tokens of `text`.

    Arguments: `standard_strings`, whether a backslash in '..' is plain; `base`, added to each token's offset.
    Raises FileFailure (without a file) when it reaches something that is not closed.
    """
    try:
        yield from _tokens(text, standard_strings, 0, base)
    except _Unfinished as unfinished:
        line, column = line_column(text, unfinished.offset)
        raise FileFailure(_UNFINISHED[unfinished.opener], line=line, column=column) from None


_ON = re.compile("on|1|t(r(ue?)?)?|y(es?)?|default", re.IGNORECASE)


def _standard_strings_after(statement):
    """What the statement sets standard_conforming_strings to: True, False, or None when it leaves it alone."""
    if statement.keyword not in ("SET", "RESET", "DISCARD", "SELECT"):
        return None
    words = [token.text.strip("'\"").lower() for token in itertools.islice(statement.tokens, 8)]
    if words in (["reset", "all"], ["discard", "all"], ["reset", "standard_conforming_strings"]):
        return True
    setting = words[2:5] if words[1:2] in (["session"], ["local"]) else words[1:4]
    if words[0] == "select":
        call = words[3:] if words[1:3] == ["pg_catalog", "."] else words[1:]
        setting = call[2:5] if call[:2] == ["set_config", "("] else []
    if len(setting) == 3 and setting[0] == "standard_conforming_strings" and setting[1] in ("=", "to", ","):
        return _ON.fullmatch(setting[2]) is not None
    return None


def _copies_from_the_file(statement):
    """Whether it is a COPY whose data stand in the file behind it (the grammar takes STDOUT for STDIN and back)."""
    if statement.keyword != "COPY":
        return False
    depth, before = 0, ""
    for token in statement.tokens:
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if depth:
            continue
        if before == "FROM" and token.keyword in ("STDIN", "STDOUT"):
            return True
        before = token.keyword
    return False


def _makes_routine(tokens):
    """Whether the tokens begin with CREATE [OR REPLACE] FUNCTION or PROCEDURE."""
    words = (token.keyword for token in tokens)
    if next(words, "") != "CREATE":
        return False
    word = next(words, "")
    if word == "OR" and next(words, "") == "REPLACE":
        word = next(words, "")
    return word in ("FUNCTION", "PROCEDURE")


def _is_space_or_comments(text):
    try:
        return _skip(text, 0) == len(text)
    except _Unfinished:
        return False


class _Splitter:
    """One pass over one file."""

    def __init__(self, text, file):
        self.text = text
        self.file = file
        self.line_starts = [0, *(match.end() for match in _LINE_END.finditer(text))]
        self.standard_strings = True
        self.sets_strings = "standard_conforming_strings" in text.lower()

    def place(self, offset):
        line = bisect_right(self.line_starts, offset)
        return line, offset - self.line_starts[line - 1] + 1

    def failure(self, message, offset, hint=None):
        line, column = self.place(offset)
        return FileFailure(message, hint, file=self.file, line=line, column=column)

    def statements(self):
        found = []
        if "\0" in self.text:
            raise self.failure("NUL character", self.text.index("\0"))
        try:
            start = self.next_start(0)
            while start < len(self.text):
                statement, pos = self.statement_at(start)
                found.append(statement)
                start = self.next_start(pos)
        except _Unfinished as unfinished:
            raise self.failure(_UNFINISHED[unfinished.opener], unfinished.offset) from None
        return found

    def next_start(self, pos):
        """The offset of the next statement: behind spaces, comments, empty statements and pg_dump's \\restrict."""
        while True:
            pos = _skip(self.text, pos)
            if self.text.startswith(";", pos):
                pos += 1
                continue
            mark = _RESTRICT.match(self.text, pos) if self.text.startswith("\\", pos) else None
            if not mark or self.text[pos - self.place(pos)[1] + 1 : pos].strip(SPACE):
                return pos
            pos = mark.end()

    def statement_at(self, start):
        """The statement that begins at `start`, and the offset behind its `;` and its data."""
        end, after = self.extent(start)
        text = self.text[start:end].rstrip(SPACE)
        line, column = self.place(start)
        end_line = bisect_right(self.line_starts, start + len(text) - 1, line - 1)
        statement = Statement(text, line, column, start, end_line, None, self.standard_strings)
        if text[0] in "cC" and _copies_from_the_file(statement):
            data, after = self.copy_data(statement, after)
            statement = statement._replace(copy_data=data)
        if self.sets_strings:
            changed = _standard_strings_after(statement)
            self.standard_strings = self.standard_strings if changed is None else changed
        return statement, after

    def extent(self, start):
        """Where the code of the statement at `start` ends, without trailing comments, and the offset behind its `;`."""
        text, dull = self.text, _dull(self.standard_strings)
        if text[start] in "cC" and _makes_routine(_tokens(text, self.standard_strings, start)):
            return self.routine_extent(start)
        pos = comments_end = start
        code_end = None  # where the code ended, as long as only space follows the comments behind it
        parens, paren_at = 0, start
        while True:
            pos = dull(text, pos).end()
            char = text[pos : pos + 1]
            if char == "(":
                paren_at = paren_at if parens else pos
                parens += 1
                pos += 1
            elif char == ")":
                parens -= 1 if parens else 0
                pos += 1
            elif char == ";" and parens:
                pos += 1
            elif char in (";", ""):
                break
            elif text.startswith(("--", "/*"), pos):
                if code_end is None or text[comments_end:pos].strip(SPACE):
                    code_end = pos
                pos = comments_end = _skip(text, pos)
            else:
                pos = self.behind_quoted(pos, start)
        if parens:
            raise _Unfinished("(", paren_at)
        return (pos if code_end is None or text[comments_end:pos].strip(SPACE) else code_end), pos + 1

    def behind_quoted(self, pos, start):
        """The offset behind the quoted thing at `pos`, or `pos` where the dull run stopped for its length only."""
        text = self.text
        char = text[pos]
        if _STRING_START.match(text, pos):
            return _end_of_string(text, pos, self.standard_strings)
        if char == '"':
            return _end_of_quotes(text, pos, False, pos)
        if char == "$":
            tag = _DOLLAR_TAG.match(text, pos)
            return _end_of_dollar_quote(text, tag) if tag else pos + 1
        if char == "\\":
            raise self.meta_command(pos, start)
        return pos

    def routine_extent(self, start):
        """As `extent`, for a routine, whose body may be BEGIN ATOMIC .. END, token by token.

        psql counts BEGIN, CASE and END. The server's grammar is more exact, and simpler: the END that closes a body
        is the one that stands where a statement would begin.
        """
        parens, blocks, before = [], [], ""
        begin_at = end = start
        for token in _tokens(self.text, self.standard_strings, start):
            word = token.keyword or token.text
            if word == "\\":
                raise self.meta_command(token.offset, start)
            if word == "(":
                parens.append(token.offset)
            elif word == ")":
                del parens[-1:]
            elif parens:
                continue
            elif word == "BEGIN":
                begin_at = token.offset
            elif word == "ATOMIC" and before == "BEGIN":
                blocks.append(begin_at)
                word = ";"  # a statement may begin behind it
            elif word == "END" and blocks and before == ";":
                blocks.pop()
            elif word == ";" and not blocks:
                return end, token.offset + 1
            before, end = word, token.offset + len(token.text)
        if parens or blocks:
            raise _Unfinished("(" if parens else "BEGIN", (parens or blocks)[0])
        return end, len(self.text)

    def meta_command(self, pos, start):
        hint = "write plain SQL: psql's own commands do not reach a server"
        if start < pos:
            hint = f"the statement that begins on line {self.place(start)[0]} is not finished there"
        command = _META_COMMAND.match(self.text, pos)
        return self.failure(f"psql meta-command {command and command.group()} is not supported", pos, hint)

    def copy_data(self, statement, pos):
        """The data lines of a COPY whose `;` ends before `pos`, and the offset behind their `\\.`."""
        text = self.text
        line_end = _LINE_END.search(text, pos)
        line_stop, begin = line_end.span() if line_end else (len(text), len(text))
        if not _is_space_or_comments(text[pos:line_stop]):
            raise self.failure("behind COPY .. FROM STDIN; only a comment may stand on the line", pos)
        end = _END_OF_DATA[text[line_stop:begin] == "\r"].search(text, begin)
        if not end:
            raise self.failure("the data of COPY .. FROM STDIN have no end: a line with \\. alone", statement.offset)
        return text[begin : end.start()], end.end()


def split(text, file=None):
    """Return the statements of `text` as a list of Statement.

    Arguments: `text`, a whole file (see `decode`); `file`, its path as the user would write it, for failures.
    Empty statements yield nothing. Raises FileFailure with file, line and column for psql's meta-commands (the
    `\\restrict` and `\\unrestrict` of pg_dump are skipped), for NUL, and for what is open at the end, with the line
    where it opened: a quote, a comment, a parenthesis, a BEGIN ATOMIC body, COPY data without `\\.`.
    """
    return _Splitter(text, file).statements()
