"""YAML as plain values, quickly, and the line of a value by a second read of its one file.

A metadata tree may have thousands of files, so values are made straight of the nodes that libyaml composed: a fifth of
what PyYAML's own constructors take. What is a text and what a number is yaml_reader's to say.
"""

from __future__ import annotations

from nself_core import yaml_reader
from nself_core.failures import FileFailure, Unreachable

INCLUDE = "!include"

DEEPEST = 100  # nested lists and mappings; real metadata has about 20, its boolean expressions included
LONGEST_NUMBER = 400  # characters: what is longer is no number that an engine would take
# Aliases may repeat what is written once, but not without bound: "a billion laughs" would fill the memory.
EXPANDED_FREELY = 100_000
EXPANDED_TIMES = 10

STR, SEQ, MAP, MERGE, NULL, BOOL, INT, FLOAT = (
    yaml_reader.TAG + word for word in ("str", "seq", "map", "merge", "null", "bool", "int", "float")
)


_LOADERS: dict = {}  # our loader class by PyYAML's, which is libyaml's where there is one: to make one takes a while


class YamlReader:
    """Reads YAML files. Raises Unreachable where PyYAML is not installed."""

    def __init__(self):
        try:
            import yaml
        except ImportError:
            raise Unreachable(
                "Hasura's metadata cannot be read without PyYAML",
                "install it: pip install pyyaml (or nself-db's extra hasura)",
            ) from None
        self._yaml = yaml
        base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        if base not in _LOADERS:
            _LOADERS[base] = _loader(yaml)
        self._loader = _LOADERS[base]
        self._plain = _plain_maker(yaml)

    def compose(self, text, file):
        """The root node of the one document in `text`, None where it is empty.

        Argument: `file`, the path for failures. Raises FileFailure, with line and column, for what is not YAML.
        """
        try:
            return self._yaml.compose(text, self._loader)
        except (self._yaml.YAMLError, ValueError, RecursionError) as error:
            raise self._unsound(error, text, file) from None

    def value(self, text, file):
        """What `text` holds, of dicts, lists, texts, numbers, bools and None; an `!include` tag becomes its text.

        Raises FileFailure, with line and column, for what is not YAML, for a key that is given twice, for tags that
        mean nothing here, and for aliases that repeat without bound.
        """
        node = self.compose(text, file)
        if node is None:
            return None
        careful = ("*" in text and "&" in text) or "<<" in text  # aliases and merges
        make = _Careful(self._yaml, len(text)).make if careful else self._plain
        try:
            return make(node)
        except self._yaml.YAMLError as error:
            raise self._unsound(error, text, file) from None

    def _unsound(self, error, text, file):
        position = getattr(error, "position", None)  # of a character that YAML does not know
        if position is None:
            return yaml_reader.unsound(error, file)
        line = text.count("\n", 0, position) + 1
        return FileFailure(f"this is not sound YAML: {error.reason}", file=file, line=line)


def _loader(yaml):
    """A loader class that resolves as yaml_reader says, in fewer steps, and ends what is nested too deep."""
    slow = yaml_reader.loader(yaml)
    scalar, mapping = yaml.ScalarNode, yaml.MappingNode
    resolvers = slow.yaml_implicit_resolvers

    class Loader(slow):  # type: ignore[misc, valid-type]
        depth = 0

        def resolve(self, kind, value, implicit):
            if kind is scalar:
                if implicit[0]:
                    for tag, pattern in resolvers.get(value[:1], ()):
                        if pattern.match(value):
                            return tag
                return STR
            return MAP if kind is mapping else SEQ

        # Both are called around every node, so they can count: libyaml's composer would run into the end of the stack.
        def descend_resolver(self, parent, _index):
            self.depth += 1
            if self.depth > DEEPEST:
                raise _wrong(yaml, parent, f"more than {DEEPEST} levels of lists and mappings")

        def ascend_resolver(self):
            self.depth -= 1

    return Loader


def _wrong(yaml, node, what):
    return yaml.constructor.ConstructorError(None, None, what, node.start_mark)


def _plain_maker(yaml):
    """A function that makes the value of a node without aliases and merges."""
    scalar, mapping = yaml.ScalarNode, yaml.MappingNode

    def make(node):
        kind = node.__class__
        if kind is scalar:
            return node.value if node.tag == STR else _scalar(yaml, node)
        if kind is mapping:
            if node.tag != MAP:
                raise _wrong(yaml, node, f"the tag {node.tag} means nothing here")
            made = {}
            for key, value in node.value:
                name = key.value
                if key.__class__ is not scalar:
                    raise _wrong(yaml, key, "a list or a mapping cannot be a key")
                if name in made:
                    raise _wrong(yaml, key, f"{name} stands twice")
                made[name] = value.value if value.tag == STR and value.__class__ is scalar else make(value)
            return made
        if node.tag != SEQ:
            raise _wrong(yaml, node, f"the tag {node.tag} means nothing here")
        return [make(item) for item in node.value]

    return make


class _Careful:
    """Makes values of one text that has aliases or merges, and counts what they repeat."""

    def __init__(self, yaml, size):
        self._yaml = yaml
        self._left = EXPANDED_FREELY + EXPANDED_TIMES * size
        self._merged: dict = {}

    def make(self, node, depth=0):
        """The value of a node, its aliases in full."""
        self._left -= 1
        if self._left < 0:
            raise _wrong(self._yaml, node, "its aliases repeat too much")
        if depth > DEEPEST:
            raise _wrong(self._yaml, node, f"more than {DEEPEST} levels, or an alias inside itself")
        if isinstance(node, self._yaml.ScalarNode):
            return _scalar(self._yaml, node)
        if node.tag not in (MAP, SEQ):
            raise _wrong(self._yaml, node, f"the tag {node.tag} means nothing here")
        if isinstance(node, self._yaml.SequenceNode):
            return [self.make(item, depth + 1) for item in node.value]
        for key, _ in node.value:
            if not isinstance(key, self._yaml.ScalarNode):
                raise _wrong(self._yaml, key, "a list or a mapping cannot be a key")
        pairs = yaml_reader.pairs(self._yaml, node, self._merged)
        return {key.value: self.make(value, depth + 1) for key, value in pairs}


def _scalar(yaml, node):
    """The value of a scalar node, by its tag."""
    tag, text = node.tag, node.value
    if tag in (STR, "!"):
        return text
    if tag == INCLUDE:
        return f"{INCLUDE} {text}"
    if tag == NULL:
        return None
    if tag == BOOL and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if tag in (INT, FLOAT):
        return _number(yaml, node)
    if tag == MERGE:  # as a value it is nothing but these two characters
        return text
    raise _wrong(yaml, node, f"the tag {tag} means nothing here")


def _number(yaml, node):
    text = node.value
    if len(text) > LONGEST_NUMBER:
        raise _wrong(yaml, node, "this number is too long; put it in quotes if it is a text")
    try:
        value = int(text) if node.tag == INT else float(text)
    except ValueError:
        raise _wrong(yaml, node, f"{text} is not a number") from None
    if value in (float("inf"), float("-inf")) or value != value:
        raise _wrong(yaml, node, "this number is too large for JSON; put it in quotes if it is a text")
    return value


def find_line(node, path):
    """The line, from 1, on which the value at `path` stands below `node`; where there is none, of the nearest above it.

    Arguments: `node`, as YamlReader.compose gives it; `path`, keys and indexes.
    """
    line = node.start_mark.line + 1
    for step in path:
        entries = node.value if isinstance(node.value, list) else []
        if isinstance(step, int):
            if step >= len(entries) or isinstance(entries[step], tuple):
                break
            node = entries[step]
            line = node.start_mark.line + 1
            continue
        pair = next((pair for pair in entries if isinstance(pair, tuple) and pair[0].value == step), None)
        if pair is None:
            break
        line, node = pair[0].start_mark.line + 1, pair[1]
    return line
