"""What identifies the parts of a metadata document: a name instead of a place in a list.

An identity path is a tuple of texts ("sources", "default", "tables", "public.posts", "select_permissions", "user",
"permission", "columns"), which stays the same when lists are in another order. An index path is the way through the
document as it was read: ("sources", 0, "tables", 3, ...).
"""

from __future__ import annotations

from nself_core.hasura.objects import ABSENT, UNKNOWN, below, kind_of, root

# Keys whose value is the name of a table or a function, which can be written in more than one way.
QUALIFIED = ("table", "function", "stored_procedure")


def entry_names(kind, items):
    """The name of each entry of a list, in its order; two that have the same are told apart by #2, #3, ...

    Arguments: `kind`, an objects.Kind of form set or list; `items`, its entries. Which of two entries of one name is
    the second does not depend on the list's order. An entry that says nothing of what identifies it has a digest for
    its name, and one of an ordered list without names its index.
    """
    if kind.form != "set" and not kind.key:
        return [str(index) for index in range(len(items))]
    names = [entry_name(kind.key, item) for item in items]
    return names if len(set(names)) == len(names) else _told_apart(names, items)


def entry_name(key, item):
    """The name of one entry of a list whose entries `key` identifies ("" for plain values), alone."""
    value = item.get(key) if isinstance(item, dict) and key else item
    # A plain text where a mapping belongs is no name: in a header's place it is as often a secret.
    name = qualified_text(value) if key in QUALIFIED else value if isinstance(item, dict) or not key else None
    if not isinstance(name, str):
        return "#" + _digest(item)
    return f"{name}:{item['suffix']}" if key == "host" and isinstance(item, dict) and item.get("suffix") else name


def qualified_text(value):
    """The text that names a table or function, `schema.name`, however metadata writes it; None for what names none.

    A part with a dot or a double quote in it stands in double quotes, so that no two names have one text.
    """
    parts: list
    if isinstance(value, str):
        parts = ["public", value]
    elif isinstance(value, list):
        parts = value
    elif isinstance(value, dict):
        parts = [value.get("schema", value.get("dataset", "public")), value.get("name")]
    else:
        return None
    return ".".join(map(_part, parts)) if parts and all(isinstance(part, str) for part in parts) else None


def _part(text):
    return '"' + text.replace('"', '""') + '"' if "." in text or '"' in text or not text else text


def _digest(item):
    """A short text that stands for a value: not the value, which could hold a secret."""
    import hashlib

    return hashlib.sha256(ordered_text(item).encode("utf-8", "surrogatepass")).hexdigest()[:12]


def ordered_text(value):
    """One text for one value, whatever the order of its mappings' keys."""
    import json

    return json.dumps(_by_key(value), ensure_ascii=False, default=str)


def _by_key(value):
    if isinstance(value, dict):
        return {str(key): _by_key(value[key]) for key in sorted(value, key=str)}
    return [_by_key(item) for item in value] if isinstance(value, list) else value


def repeated(kind, items):
    """The indexes of the entries whose name an entry before them has; of those that name nothing, none."""
    seen = set()
    for index, item in enumerate(items):
        name = entry_name(kind.key, item)
        if name in seen and not name.startswith("#"):
            yield index
        seen.add(name)


def _told_apart(names, items):
    places: dict = {}
    for index, name in enumerate(names):
        places.setdefault(name, []).append(index)
    taken = set(names)
    for name, indexes in sorted(places.items()):
        number = 2
        for index in sorted(indexes, key=lambda index: ordered_text(items[index]))[1:]:
            while f"{name}#{number}" in taken:
                number += 1
            names[index] = f"{name}#{number}"
            taken.add(names[index])
    return names


# From one path to the other.


def step_names(spec, value):
    """What can be stepped into from `value`, which is of `spec`: identity name -> key or index; empty for a scalar."""
    if isinstance(value, dict):
        return {str(key): key for key in value}
    if not isinstance(value, list):
        return {}
    kind = kind_of(spec, value)
    if kind is None or kind.form not in ("set", "list"):
        return {str(index): index for index in range(len(value))}
    return {name: index for index, name in enumerate(entry_names(kind, value))}


def index_path(document, identity_path):
    """The index path of what `identity_path` names in `document`, or of its nearest parent that is there.

    In a document of version 2, which is source `default` and nothing else, its tables are looked for at the top.
    """
    path: tuple = ()
    steps = identity_path[2:] if is_flat(document) and identity_path[:1] == ("sources",) else identity_path
    spec, value = root(), document
    for step in steps:
        key = step_names(spec, value).get(step, ABSENT)
        if key is ABSENT:
            break
        spec, value, path = below(spec, value, key), value[key], (*path, key)
    return path


def is_flat(document):
    """Whether a document is of version 2 (or 1): without sources, its tables at the top."""
    return isinstance(document, dict) and "sources" not in document and "tables" in document


def identity_path(document, index_path):
    """The identity path of what stands at `index_path` in `document`, or of as much of it as is there."""
    path: tuple = ()
    spec, value = root(), document
    for key in index_path:
        names = {index: name for name, index in step_names(spec, value).items()}
        if key not in names:
            break
        spec, value, path = below(spec, value, key), value[key], (*path, names[key])
    return path


def named(document):
    """Every entry of a list whose entries have names, as a dict of identity path -> index path, parents first."""
    found: dict = {}
    waiting: list = [(root(), document, (), ())]
    while waiting:
        spec, value, path, place = waiting.pop()
        kind = kind_of(spec, value) if isinstance(value, list) else None
        steps = [((*path, name), (*place, key), key) for name, key in step_names(spec, value).items()]
        if kind is not None and kind.key:
            found.update({inner: index for inner, index, _key in steps})
        for inner, index, key in reversed(steps):
            if below(spec, value, key) is not UNKNOWN:
                waiting.append((below(spec, value, key), value[key], inner, index))
    return found
