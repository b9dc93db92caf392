"""The only place where values, names and texts become SQL.

Everything written here is read by psql's lexer first and the server's second, so a quoted piece must mean the
same to both, and whatever the session's standard_conforming_strings is. Rules: PostgreSQL manual, section 4.1,
"Lexical Structure".
"""

from __future__ import annotations

import functools
import re

from nself_core.failures import UsageFailure

_TAG = "nself"
_TAGS_IN_TEXT = re.compile(r"\$" + _TAG + "([0-9]*)")


def _sound(text, what):
    """`text` itself, when Postgres can hold it: neither a NUL nor half a surrogate pair (an undecodable argument)."""
    if "\0" in text:
        raise UsageFailure(f"a NUL character cannot stand in {what}")
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        raise UsageFailure(f"bytes that are not UTF-8 cannot stand in {what}")
    return text


def _text_literal(text):
    doubled = _sound(text, "a text").replace("'", "''")
    if "\\" not in doubled:
        return f"'{doubled}'"
    return "E'" + doubled.replace("\\", "\\\\") + "'"


def _number_literal(value):
    written = repr(float(value) if isinstance(value, float) else int(value))
    if written in ("nan", "inf", "-inf"):
        return f"'{written}'::double precision"
    # Without the parentheses `a -:b` would become a comment, and `-9223372036854775808::bigint` out of range.
    return f"({written})" if written.startswith("-") else written


def _json_literal(value):
    import json

    try:
        return _text_literal(json.dumps(value, ensure_ascii=False, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UsageFailure(f"this value cannot be written as JSON: {error}") from None


def literal(value):
    """Return `value` as an SQL constant.

    Arguments: `value`, None, bool, int, float, str, or a dict or list, which becomes its JSON as a text constant.
    A text with a backslash is written as E'..', so that it reads the same whatever standard_conforming_strings is;
    a negative number stands in parentheses. Raises UsageFailure for a NUL, for what is not Unicode, and for
    any other type.
    """
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, (int, float)):
        return _number_literal(value)
    if isinstance(value, str):
        return _text_literal(value)
    if isinstance(value, (dict, list)):
        return _json_literal(value)
    raise UsageFailure(f"a value of type {type(value).__name__} cannot be written in SQL")


def array_text(values):
    """The text by which Postgres reads an array (manual, "Array Input and Output Syntax"); `literal` makes SQL of it.

    Argument: `values`, a list of texts, numbers, booleans and None, or of such lists for more dimensions.
    """
    return "{" + ",".join(map(_array_element, values)) + "}"


def _array_element(value):
    if isinstance(value, list):
        return array_text(value)
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, (int, float)):
        return repr(value)
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def identifier(name):
    """Return `name` (one part, as the catalogue spells it) as a double-quoted identifier.

    Raises UsageFailure when it is empty or holds a NUL.
    """
    if not name:
        raise UsageFailure("a name in SQL cannot be empty")
    return '"' + _sound(name, "a name").replace('"', '""') + '"'


def qualified(schema, name):
    """Return `"schema"."name"`, or `"name"` alone when `schema` is None. Raises as `identifier` does."""
    return identifier(name) if schema is None else f"{identifier(schema)}.{identifier(name)}"


def dollar(text):
    """Return `text` as a dollar-quoted constant whose tag nothing in the text can end, not even its last characters.

    What psql's \\gexec runs is sent so: a stream cut inside it leaves an open quote, which psql does not execute.
    The caller puts a space before it, for `a$b` is one identifier. Raises UsageFailure for a NUL.
    """
    taken = set(_TAGS_IN_TEXT.findall(_sound(text, "a statement")))
    number = ""
    while number in taken:
        number = str(int(number or 0) + 1)
    return f"${_TAG}{number}${text}${_TAG}{number}$"


@functools.lru_cache(maxsize=256)
def _template(sql):
    """The pieces of `sql`: plain text at even places, parameter names at odd ones."""
    # The lexer's patterns take 10 ms to compile, and most of our SQL has no parameters.
    from nself_core.sql import lexer

    pieces, done, colon = [], 0, None
    for token in lexer.tokens(sql):
        if colon is not None and token.kind == "word" and token.offset == colon + 1:
            pieces += [sql[done:colon], token.text]
            done = token.offset + len(token.text)
        # A colon right behind a name or number is the slice of an array: a[1:n].
        stands_alone = token.text == ":" and not re.match(r"[\w$\"\])]", sql[token.offset - 1 : token.offset])
        colon = token.offset if stands_alone else None
    return (*pieces, sql[done:])


def bind(sql, params):
    """Return `sql` with each `:name` replaced by the constant of `params[name]`.

    Arguments: `sql`, a text of this program; `params`, a dict of name to value (see `literal`). Casts (`::text`),
    array slices, quoted texts and comments are left alone. Raises UsageFailure when `sql` names a parameter that
    `params` lacks, and when it does not use one that is given.
    """
    pieces = list(_template(sql))
    names = pieces[1::2]
    for name in names:
        if name not in params:
            raise UsageFailure(f"the SQL wants a parameter :{name} that is not given")
    for name in params:
        if name not in names:
            raise UsageFailure(f"the SQL does not use the parameter :{name}")
    pieces[1::2] = [literal(params[name]) for name in names]
    return "".join(pieces)
