"""The GraphQL of actions.graphql: a reader of its type definitions, and a printer in the form Hasura's CLI writes.

Upstream hands both to a program of its own on graphql-js 14; this is what it does, and what it leaves out is named.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import namedtuple

from nself_core.failures import FileFailure
from nself_core.sql.lexer import line_column

Sdl = namedtuple("Sdl", "actions types lines dropped spans")
Sdl.__doc__ = """What an SDL text holds.

`actions`: dicts of name and definition (type, arguments, output_type), in order; `types`: lists of dicts by "scalars",
"input_objects", "objects", "enums"; `lines`: the line of each action and of its arguments, (name,) and (name,
argument), under "actions", and likewise of types and their fields under "types"; `dropped`: (line, text) for what
stands in the text and that actions have no place for; `spans`: under "actions" by name a Span of the field with its
`block`, the span of the whole definition that it stands in, and likewise of types under "types".
"""
Span = namedtuple("Span", "start end block")

ROOTS = {"Query": "query", "Mutation": "mutation"}
KINDS = {"scalar": "scalars", "input": "input_objects", "type": "objects", "enum": "enums"}
NAME = re.compile(r"[_A-Za-z][_0-9A-Za-z]*")
DEEPEST = 30  # brackets of a list type

_IGNORED = re.compile(r"(?:[ \t\r\n,\ufeff]|#[^\r\n]*)*")
_TOKEN = re.compile(
    r'(?P<block>"""(?:\\"""|(?!"""|\\""").)*""")|(?P<string>"(?:[^"\\\r\n]|\\.)*")|(?P<name>[_A-Za-z][_0-9A-Za-z]*)'
    r"|(?P<number>-?[0-9][0-9.eE+-]*)|(?P<sign>\.\.\.|[!$&():=@\[\]{|}])",
    re.DOTALL,
)
_Token = namedtuple("_Token", "kind text start")


def read_sdl(text, file):
    """The Sdl of a text, empty for one without definitions.

    Argument: `file`, the path for failures. Raises FileFailure with line and column for what is no GraphQL, and for
    definitions that actions cannot have: schema, union, directive.
    """
    return _Reader(text, file).document()


def check_sdl(text, file=None):
    """Raise FileFailure with line and column where a text is no GraphQL of definitions.

    Of any definitions, as a remote schema's permissions have them: what they define does not count, only their form.
    """
    _Checker(text, file).document()


class _Reader:
    """One text that is read from its start to its end."""

    def __init__(self, text, file):
        self._text = text
        self._file = file
        self._position = 0
        self._token = _Token("", "", 0)
        self._end = 0
        self._open: list = []  # the parts of the definition under way, as (place, name, start, end)
        self._breaks = [match.start() for match in re.finditer("\n", text)]
        self._found = Sdl(
            [], {kind: [] for kind in KINDS.values()}, {"actions": {}, "types": {}}, [], {"actions": {}, "types": {}}
        )
        self._step()

    def document(self):
        while self._token.kind:
            self._definition()
        return self._found

    # Tokens.

    def _step(self):
        """Read the next token; returns the one before."""
        before = self._token
        self._end = self._position
        ignored = _IGNORED.match(self._text, self._position)
        start = ignored.end() if ignored else self._position
        match = _TOKEN.match(self._text, start)
        if match is None and start < len(self._text):
            self._token = _Token("sign", self._text[start], start)
            raise self._failure(f"{self._text[start]!r} means nothing here")
        self._token = _Token(match.lastgroup, match.group(), start) if match else _Token("", "", start)
        self._position = match.end() if match else start
        return before

    def _failure(self, what, start=None):
        line, column = line_column(self._text, self._token.start if start is None else start)
        return FileFailure(f"this is not sound GraphQL: {what}", file=self._file, line=line, column=column)

    def _line(self, start):
        return bisect_left(self._breaks, start) + 1

    def _is(self, sign):
        return self._token.kind == "sign" and self._token.text == sign

    def _skip(self, sign):
        """Whether `sign` stands here; it is read."""
        if self._is(sign):
            self._step()
            return True
        return False

    def _expect(self, sign):
        if not self._skip(sign):
            raise self._failure(f"{sign} is expected, and {self._token.text or 'the end'} found")

    def _name(self):
        if self._token.kind != "name":
            raise self._failure(f"a name is expected, and {self._token.text or 'the end'} found")
        return self._step().text

    # Definitions.

    def _definition(self):
        begin = self._token.start
        description = self._description()
        start = self._token.start
        word = self._name()
        extends = word == "extend"
        if extends:
            word = self._name()
        if word == "interface" and not extends:
            self._drop(start, f"interface {self._name()}")
            self._directives()
            self._fields()
        elif word not in KINDS:
            raise self._failure(f"{word} has no place among actions and their types", start)
        elif extends and (word != "type" or self._token.text not in ROOTS):
            raise self._failure("only Query and Mutation can be extended", start)
        else:
            self._type(word, self._name(), description, start)
            self._close(begin)

    def _close(self, begin):
        """Give the parts of one definition the spans that are known at its end."""
        for place, name, start, end in self._open:
            span = Span(begin, self._end, (begin, self._end)) if start is None else Span(start, end, (begin, self._end))
            self._found.spans[place].setdefault(name, span)
        self._open.clear()

    def _type(self, word, name, description, start):
        if word == "type":
            self._implements()
        self._directives()
        if word == "type" and name in ROOTS:
            if description:
                self._drop(start, f"the description of {name}")
            self._actions(ROOTS[name])
        elif word == "type" and name == "Subscription":
            self._drop(start, "type Subscription")
            self._fields()
        else:
            self._custom_type(word, name, description, start)

    def _custom_type(self, word, name, description, start):
        self._found.lines["types"].setdefault((name,), self._line(start))
        self._open.append(("types", name, None, None))
        made = _described({"name": name}, description)
        if word == "enum":
            made["values"] = self._values(name)
        elif word != "scalar":
            made["fields"] = [
                _described({"name": field.name, "type": field.type}, field.description) for field in self._fields(name)
            ]
        self._found.types[KINDS[word]].append(made)

    def _actions(self, kind):
        for field in self._fields():
            if field.description:
                self._drop(field.start, f"the description of {field.name}")
            self._found.lines["actions"].setdefault((field.name,), self._line(field.start))
            self._open.append(("actions", field.name, field.begin, field.end))
            for argument in field.arguments:
                self._found.lines["actions"].setdefault((field.name, argument.name), self._line(argument.start))
            arguments = [_described({"name": one.name, "type": one.type}, one.description) for one in field.arguments]
            definition = {"type": kind, "arguments": arguments, "output_type": field.type}
            self._found.actions.append({"name": field.name, "definition": definition})

    # Parts.

    def _drop(self, start, what):
        self._found.dropped.append((self._line(start), what))

    def _implements(self):
        if self._token.kind == "name" and self._token.text == "implements":
            self._drop(self._token.start, "implements")
            self._step()
            self._skip("&")
            self._name()
            while self._skip("&") or self._token.kind == "name":
                self._name()

    def _fields(self, of=None):
        """The fields in braces, none where there are no braces; of type `of` where they belong to one of ours."""
        fields: list = []
        if not self._skip("{"):
            return fields
        while not self._skip("}"):
            field = self._field()
            fields.append(field)
            if of and field.arguments:
                self._drop(field.start, f"the arguments of {of}.{field.name}")
            if of:
                self._found.lines["types"].setdefault((of, field.name), self._line(field.start))
        if not fields:
            raise self._failure("a name is expected, and } found")
        return fields

    def _field(self):
        begin = self._token.start
        description, start = self._description(), self._token.start
        name, arguments = self._name(), []
        if self._skip("("):
            while not self._skip(")"):
                arguments.append(self._field())
        self._expect(":")
        type_text = self._type_text(0)
        if self._skip("="):
            self._drop(start, f"the default value of {name}")
            self._constant(0)
        self._directives()
        return _Field(name, type_text, description, arguments, start, begin, self._end)

    def _values(self, of):
        values: list = []
        if not self._skip("{"):
            return values
        while not self._skip("}"):
            description, start = self._description(), self._token.start
            value = self._name()
            self._found.lines["types"].setdefault((of, value), self._line(start))
            values.append(_described({"value": value}, description))
            self._directives()
        return values

    def _type_text(self, depth):
        if depth > DEEPEST:
            raise self._failure(f"more than {DEEPEST} brackets")
        if self._skip("["):
            text = f"[{self._type_text(depth + 1)}]"
            if not self._skip("]"):
                raise self._failure(f"] is expected, and {self._token.text or 'the end'} found")
        else:
            text = self._name()
        return text + ("!" if self._skip("!") else "")

    def _directives(self):
        while self._is("@"):
            start = self._step().start
            self._drop(start, f"directive @{self._name()}")
            if self._skip("("):
                while not self._skip(")"):
                    self._name()
                    self._expect(":")
                    self._constant(0)

    def _constant(self, depth):
        """Read a value; what it is does not count."""
        if depth > DEEPEST:
            raise self._failure(f"more than {DEEPEST} brackets")
        if self._skip("["):
            while not self._skip("]"):
                self._constant(depth + 1)
        elif self._skip("{"):
            while not self._skip("}"):
                self._name()
                self._expect(":")
                self._constant(depth + 1)
        elif self._token.kind in ("", "sign"):
            raise self._failure(f"a value is expected, and {self._token.text or 'the end'} found")
        else:
            self._step()

    def _description(self):
        if self._token.kind not in ("string", "block"):
            return None
        token = self._step()
        if token.kind == "block":
            return _dedented(token.text[3:-3].replace('\\"""', '"""')).strip()
        return self._unescaped(token)

    def _unescaped(self, token):
        import json

        try:
            return json.loads(token.text, strict=False)
        except ValueError:
            raise self._failure("this text has an escape that GraphQL does not know", token.start) from None


class _Checker(_Reader):
    """A text of which only the form counts, and in which each kind of definition may stand."""

    def _definition(self):
        self._description()
        start = self._token.start
        word = self._name()
        if word == "extend":
            word = self._name()
        if word == "directive":
            self._directive()
        elif word in (*KINDS, "interface", "union", "schema"):
            self._named_definition(word)
        else:
            raise self._failure(f"{word} begins no definition", start)

    def _named_definition(self, word):
        if word != "schema":
            self._name()
        self._implements()
        self._directives()
        if word == "union":
            self._members("=")
        elif word == "enum":
            self._values(None)
        elif word != "scalar":
            self._fields()

    def _directive(self):
        self._expect("@")
        self._name()
        if self._skip("("):
            while not self._skip(")"):
                self._field()
        if self._name() == "repeatable":
            self._name()
        self._members()

    def _members(self, sign=None):
        """Names with | between them, after `sign`; where that does not stand there, there are none."""
        if sign and not self._skip(sign):
            return
        self._skip("|")
        self._name()
        while self._skip("|"):
            self._name()


_Field = namedtuple("_Field", "name type description arguments start begin end")


def _described(made, description):
    if description:
        made["description"] = description
    return made


def _dedented(text):
    """A block string's value: without the indentation that its lines behind the first have in common."""
    lines = re.split(r"\r\n|[\n\r]", text)
    filled = [line for line in lines[1:] if line.strip(" \t")]
    indent = min((len(line) - len(line.lstrip(" \t")) for line in filled), default=0)
    return "\n".join([lines[0], *(line[indent:] for line in lines[1:])])


def render_sdl(actions, types):
    """The text of actions.graphql, as Hasura's CLI writes it.

    Arguments: `actions`, the document's list; `types`, its custom_types. Raises FileFailure where a name or a type is
    none that SDL can hold; what SDL has no place for is not looked at.
    """
    return "".join(f"{block}\n\n" for _, _, block in sdl_blocks(actions, types))


def sdl_blocks(actions, types):
    """The definitions of an SDL text in order, each as ("actions" or "types", its name, its text).

    Arguments as `render_sdl` takes them.
    """
    for action in actions:
        root = "Query" if (action.get("definition") or {}).get("type") == "query" else "Mutation"
        yield "actions", action["name"], f"type {root} {{\n  {action_field(action)}\n}}"
    for word, kind in KINDS.items():
        for one in types.get(kind) or ():
            yield "types", _checked(one, "name"), _type_block(word, one)


def action_field(action):
    """The field of Query or Mutation that an action is."""
    definition = action.get("definition") or {}
    name = _checked(action, "name")
    if not definition.get("output_type"):
        raise FileFailure(f"action {name} has no output_type")
    arguments = "".join(f"    {_prefix(one)}{_named(one)}\n" for one in definition.get("arguments") or ())
    head = f"{name}(\n{arguments}  )" if arguments else name
    return f"{head}: {_type_checked(definition['output_type'], name)}"


def _type_block(word, one):
    fields = [f"{_prefix(field)}{_named(field)}" for field in one.get("fields") or ()] if word != "scalar" else []
    values = [f"{_prefix(value)}{_checked(value, 'value')}" for value in one.get("values") or ()]
    inner = "".join(f"  {line}\n" for line in (values if word == "enum" else fields))
    return f"{_prefix(one)}{word} {_checked(one, 'name')}{_braced(inner)}"


def _braced(lines):
    return f" {{\n{lines}}}" if lines else ""


def _named(one):
    name = _checked(one, "name")
    return f"{name}: {_type_checked(one.get('type'), name)}"


def _checked(one, key):
    """The name under `key`, which SDL must be able to hold."""
    name = one.get(key)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise FileFailure(f"{name!r} is no name that actions.graphql can hold")
    return name


def _type_checked(text, name):
    inner = text.replace("[", "").replace("]", "").replace("!", "") if isinstance(text, str) else ""
    if not NAME.fullmatch(inner):
        raise FileFailure(f"{text!r}, the type of {name}, is none that actions.graphql can hold")
    return text


def _prefix(one):
    """The description before what it describes; in one line with escapes where a block would change it."""
    import json

    text = one.get("description")
    if not isinstance(text, str) or not text:
        return ""
    if _dedented(f" {text} ").strip() == text:
        return '""" ' + text.replace('"""', '\\"""') + ' """ '
    return json.dumps(text, ensure_ascii=False) + " "
