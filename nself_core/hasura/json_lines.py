"""Metadata in one JSON file: its value, with a key that is given twice refused, and the lines of its values."""

from __future__ import annotations

from nself_core.failures import FileFailure

DEEPEST = 100


class _Twice(ValueError):
    """A key was given twice in one object."""


def read_json(text, file):
    """The value of a JSON text, None where it is empty. Raises FileFailure, with the line, for what is not sound."""
    import json

    if not text.strip():
        return None
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        raise FileFailure(
            f"this is not sound JSON: {error.msg}", file=file, line=error.lineno, column=error.colno
        ) from None
    except _Twice as error:
        raise FileFailure(
            f"this is not sound JSON: {error} stands twice", file=file, line=_line_of_twice(text)
        ) from None
    except ValueError as error:  # of numbers
        raise FileFailure(f"this is not sound JSON: {error}", file=file) from None
    except RecursionError:
        raise FileFailure("this is not sound JSON: it is nested too deep", file=file) from None
    if isinstance(value, (dict, list)) and _is_deeper(value, DEEPEST):
        raise FileFailure(f"this is not sound JSON: more than {DEEPEST} levels", file=file)
    return value


def _unique(pairs):
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _Twice(next(key for key in keys if keys.count(key) > 1))
    return found


def _refuse(word):
    raise ValueError(f"{word} is no number of JSON")


def _is_deeper(value, levels):
    """Whether lists and objects are nested in more levels."""
    inside = [value]
    for _ in range(levels):
        inside = [
            item
            for one in inside
            for item in (one.values() if isinstance(one, dict) else one)
            if isinstance(item, (dict, list))
        ]
        if not inside:
            return False
    return True


class _Open:
    """An object or array that is being read: the key or index of the value under way, and the keys that were."""

    __slots__ = ("is_object", "keys", "step")

    def __init__(self, is_object):
        self.is_object = is_object
        self.step = None if is_object else 0
        self.keys: set = set()


def _places(text):
    """The values of a sound text below its root, as (path, start of the key or of the value, whether the key was)."""
    import re

    stack: list = []
    for match in re.finditer(r'"(?:[^"\\]|\\.)*"|[\[\]{},]', text):
        token = match.group()
        if token[0] == '"':
            if stack and stack[-1].step is None:
                yield _key(stack, token, match.start())
        elif token in "]}":
            stack.pop()
        elif token == ",":
            stack[-1].step = None if stack[-1].is_object else stack[-1].step + 1
        else:
            stack.append(_Open(token == "{"))
        if token in ("[", ",") and not stack[-1].is_object:
            yield tuple(one.step for one in stack), match.end() + _spaces(text, match.end()), False


def _key(stack, token, start):
    import json

    top = stack[-1]
    top.step = json.loads(token, strict=False)
    twice = top.step in top.keys
    top.keys.add(top.step)
    return tuple(one.step for one in stack), start, twice


def _spaces(text, start):
    end = start
    while text[end : end + 1].isspace():
        end += 1
    return end - start


def read_lines(text):
    """A function that gives the line, from 1, of the value at a path of a sound text, or of the nearest above it."""
    import re
    from bisect import bisect_right

    starts = {path: start for path, start, _ in _places(text)}
    ends = [match.start() for match in re.finditer("\n", text)]

    def line(path):
        known = next((starts[path[:length]] for length in range(len(path), 0, -1) if path[:length] in starts), 0)
        return bisect_right(ends, known - 1) + 1 if known else 1

    return line


def _line_of_twice(text):
    """The line on which a key first stands for the second time in its object."""
    start = next(start for _, start, twice in _places(text) if twice)
    return text.count("\n", 0, start) + 1
