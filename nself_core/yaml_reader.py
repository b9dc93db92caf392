"""YAML as version 1.2 reads it, with the place of everything: what on, yes, 2024-01-01 and 012 are texts in.

PyYAML is not part of the core: it is imported here, when a file is read.
"""

from __future__ import annotations

from nself_core.failures import FileFailure

TAG = "tag:yaml.org,2002:"

# Resolvers of plain scalars: what is none of these is a text (YAML 1.2, core schema, without octals).
RESOLVERS = (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", list("-+0123456789")),
    ("float", r"^[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?$", list("-+0123456789")),
    ("merge", r"^<<$", ["<"]),
)


def loader(yaml):
    """A new loader class with the resolvers above, which refuses a key that is given twice.

    Argument: `yaml`, the module, imported by the caller, who says what is to be done without it.
    """
    import re

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        yaml_implicit_resolvers: dict = {}

        def construct_mapping(self, node, deep=False):
            _refuse_twice(yaml, node)
            return super().construct_mapping(node, deep)

    for name, pattern, first in RESOLVERS:
        Loader.add_implicit_resolver(TAG + name, re.compile(pattern), first)
    return Loader


def _refuse_twice(yaml, node):
    seen = set()
    for key, _value in node.value:
        if not isinstance(key.value, str) or key.tag == TAG + "merge":
            continue
        if key.value in seen:
            raise yaml.constructor.ConstructorError(None, None, f"{key.value} stands twice", key.start_mark)
        seen.add(key.value)


def compose(yaml, text, file):
    """The root node of the one document in `text`, None where it is empty; nothing is made of the nodes.

    Arguments: `yaml`, the module; `file`, the path for failures. Raises FileFailure with line and column for what is
    not YAML.
    """
    try:
        return yaml.compose(text, loader(yaml))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise unsound(error, file) from None


def pairs(yaml, node, known):
    """The (key node, value node) pairs of a mapping with `<<` merged in: its own keys count more, and the first merged.

    Argument: `known`, a dict that is kept for one document, so that what is merged often is read once. Raises
    yaml.MarkedYAMLError for a key given twice, and for a merge of what is no mapping, or of the mapping itself.
    """
    if id(node) not in known:
        known[id(node)] = None
        _refuse_twice(yaml, node)
        found = {str(key.value): (key, value) for key, value in node.value if key.tag != TAG + "merge"}
        for source in _merged(yaml, node):
            for key, value in pairs(yaml, source, known):
                found.setdefault(str(key.value), (key, value))
        known[id(node)] = [*found.values()]
    if known[id(node)] is None:
        raise yaml.constructor.ConstructorError(None, None, "a mapping is merged into itself", node.start_mark)
    return known[id(node)]


def _merged(yaml, node):
    """The mappings behind the `<<` of a mapping."""
    for merged in (value for key, value in node.value if key.tag == TAG + "merge"):
        for source in merged.value if isinstance(merged, yaml.SequenceNode) else [merged]:
            if not isinstance(source, yaml.MappingNode):
                raise yaml.constructor.ConstructorError(None, None, "only mappings can be merged", source.start_mark)
            yield source


def unsound(error, file):
    """The failure that an error of PyYAML, or of what reads its nodes, means; with line and column where it has any."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:
        return FileFailure(f"this is not sound YAML: {str(error).splitlines()[0]}", file=file)
    text = getattr(error, "problem", None) or getattr(error, "context", None)
    return FileFailure(f"this is not sound YAML: {text}", file=file, line=mark.line + 1, column=mark.column + 1)
