"""YAML exactly as Hasura's CLI writes it, so that a directory stays the same whichever of the two exports it.

The CLI's texts come out of Go's yaml.v3, asked by CUE to quote what YAML 1.1 would misread; their rules are here.
"""

from __future__ import annotations

import re

from nself_core.hasura.yaml_values import INCLUDE
from nself_core.yaml_reader import RESOLVERS

# What CUE quotes because YAML 1.1 has a meaning for it, beside dates, times and base 60 numbers.
LEGACY = frozenset((
    "y", "Y", "yes", "Yes", "YES", "n", "N", "no", "No", "NO", "t", "T", "f", "F", "on", "On", "ON", "off", "Off",
    "OFF", "true", "True", "TRUE", "false", "False", "FALSE", ".Nan",
))  # fmt: skip
_DATE_LIKE = re.compile(r"[-+0-9:. \t]+(?:[-:tT])[-+0-9:. \t]+[zZ]?|0x[a-fA-F0-9]+")
# What yaml.v3 resolves to null, a bool, a float or a merge by its whole text.
RESOLVED = frozenset((
    "", "~", "null", "Null", "NULL", "true", "True", "TRUE", "false", "False", "FALSE", "<<", ".nan", ".NaN", ".NAN",
    ".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF", "-.inf", "-.Inf", "-.INF",
))  # fmt: skip
# Its numbers; underscores are left out before they are looked at, but not behind a leading point.
_NUMBER = re.compile(
    r"[-+]?(?:0[xX][0-9a-fA-F]+|0[oO]?[0-7]+|0[bB][01]+|(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?)"
)
_READ_OTHERWISE = re.compile("|".join(pattern.strip("^$") for _, pattern, _ in RESOLVERS))

# What libyaml sees in a text. Characters beyond the basic plane count as special for Go, so emoji are escaped. Half a
# surrogate pair is left as it is: no file can hold it, and who writes the file says so.
_SPECIAL = re.compile("[^\n\t\x20-\x7e\xa0-\ufefe\uff00-\ufffd]|[\u2028\u2029]")
_SPACE_BEFORE_BREAK = re.compile(r" \n| \Z")
_NOT_PLAIN = re.compile(
    r"---|\.\.\.|[#,\[\]{}&*!|>'\"%@`]|[?:-](?:[ \t]|\Z)"  # at the start
    r"|.*?(?::(?:[ \t]|\Z)|[ \t]\#)",  # anywhere
    re.DOTALL,
)
LONGEST_SIMPLE_KEY = 128

_ESCAPES = {
    "\0": "0", "\a": "a", "\b": "b", "\t": "t", "\n": "n", "\v": "v", "\f": "f", "\r": "r", "\x1b": "e", '"': '"',
    "\\": "\\", "\x85": "N", "\u2028": "L", "\u2029": "P",
}  # fmt: skip
_ESCAPED = re.compile('["\\\\\n\t]|' + _SPECIAL.pattern)


def render(value):
    """The YAML of a value of dicts, lists, texts, numbers, bools and None, with a line break at its end."""
    if isinstance(value, (dict, list)) and value:
        lines: list = []
        _write_block(value, 0, lines)
        return "".join(lines)
    return _inline(value, 0) + "\n"


def render_item(value, indent):
    """The lines of one item of a block sequence whose dash stands at column `indent`, its own indentation included."""
    lines = [" " * indent]
    _write_item(value, indent, lines)
    return "".join(lines)


def render_entry(key, value, indent):
    """The lines of one entry of a block mapping whose keys stand at column `indent`, its own indentation included."""
    lines = [" " * indent]
    _write_entry(key, value, indent, lines)
    return "".join(lines)


def _write_block(value, indent, lines):
    """Add what stands for a filled dict or list; its first line's indentation is there already."""
    is_mapping = isinstance(value, dict)
    for number, entry in enumerate(value.items() if is_mapping else value):
        if number:
            lines.append(" " * indent)
        if is_mapping:
            _write_entry(entry[0], entry[1], indent, lines)
        else:
            _write_item(entry, indent, lines)


def _write_item(value, indent, lines):
    if isinstance(value, (dict, list)) and value:
        lines.append("- ")
        _write_block(value, indent + 2, lines)
    else:
        lines.append(f"- {_inline(value, indent)}\n")


def _write_entry(key, value, indent, lines):
    name = _key(key)
    if len(name) > LONGEST_SIMPLE_KEY:
        name = f"? {name}\n{' ' * indent}"
    if isinstance(value, (dict, list)) and value:
        lines.append(f"{name}:\n{' ' * (indent + 2)}")
        _write_block(value, indent + 2, lines)
    else:
        lines.append(f"{name}: {_inline(value, indent)}\n")


def _inline(value, indent):
    """What stands on the line of its key or dash, at column `indent`; a block of text goes on below that."""
    if isinstance(value, str):
        return _block_text(value, indent) if _is_block(value) else _text(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    return "{}" if isinstance(value, dict) else "[]"


def _is_block(text):
    if text[:1] == "\t":  # Go writes a block, which neither libyaml nor Go itself can read
        return False
    return "\n" in text and not _SPACE_BEFORE_BREAK.search(text) and not _SPECIAL.search(text)


def _block_text(text, indent):
    """A literal block, whose lines stand two columns behind its key or dash."""
    hint = "2" if text[0] in " \n" else ""
    chomp = "-" if text[-1] != "\n" else "+" if text == "\n" or text[-2] == "\n" else ""
    space = " " * (indent + 2)
    lines = text.split("\n")
    if chomp != "-":
        lines.pop()
    return f"|{hint}{chomp}" + "".join(f"\n{space}{line}" if line else "\n" for line in lines)


_KNOWN: dict = {}  # the keys of metadata are few, and each stands in it thousands of times


def _key(key):
    if key not in _KNOWN:
        if len(_KNOWN) > 10_000:
            _KNOWN.clear()
        _KNOWN[key] = _double_quoted(key) if "\n" in key else _text(key)
    return _KNOWN[key]


def _text(text):
    """A text in its plain, single-quoted or double-quoted form."""
    if _is_misread(text) or "\t" in text or "\n" in text or _SPECIAL.search(text) or text.startswith(INCLUDE + " "):
        return _double_quoted(text)
    if text[0] == " " or text[-1] == " " or _NOT_PLAIN.match(text):
        return "'" + text.replace("'", "''") + "'"
    return text


def _is_misread(text):
    """Whether some reader would take the plain text for something else than a text."""
    if text in RESOLVED or text in LEGACY or _DATE_LIKE.fullmatch(text) or _READ_OTHERWISE.fullmatch(text):
        return True
    if text[0] not in "+-.0123456789":
        return False
    return _NUMBER.fullmatch(text if text[0] == "." else text.replace("_", "")) is not None


def _double_quoted(text):
    return '"' + _ESCAPED.sub(_escaped, text) + '"'


def _escaped(match):
    char = match.group()
    if char in _ESCAPES:
        return "\\" + _ESCAPES[char]
    code = ord(char)
    return f"\\x{code:02X}" if code < 0x100 else f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"
