"""A diff of metadata as text: grouped by table, one mark at the start of each line.

A line begins with `+` for what applying the local document would add, `-` for what it would take away, `~` for what it
would change; a line without a mark is the title of a group. Nothing else begins with these, so that colour can be put
on by whoever writes them.
"""

from __future__ import annotations

from nself_core.hasura.diff import ADDED, CHANGED, REMOVED

MARKS = {ADDED: "+", REMOVED: "-", CHANGED: "~"}
# A value longer than this is not written beside its name.
LINE = 100
CONTEXT = 2


def report_lines(changes, where=None):
    """The lines of a report on diff.Changes: a title for each table, function or other object, its changes below.

    Argument: `where(change)`, the place that a title tells of its group's first change; None tells none.
    """
    groups: dict = {}
    places: dict = {}
    for change in changes:
        title, rest = _grouped(change.path)
        groups.setdefault(title, []).append(change._replace(path=rest))
        if where and title not in places:
            places[title] = where(change)
    lines = []
    for title, members in groups.items():
        place = f"  ({places[title]})" if places.get(title) else ""
        lines += [title + place, *(line for change in members for line in _lines(change))]
    return lines


NOUNS = {
    "tables": "table",
    "functions": "function",
    "native_queries": "native query",
    "logical_models": "logical model",
    "stored_procedures": "stored procedure",
}


def _grouped(path):
    """A group's title, and what of an identity path is left to say below it."""
    if path[:1] == ("sources",) and len(path) > 1:
        if len(path) > 3 and path[2] in NOUNS:
            return f"source {path[1]}, {NOUNS[path[2]]} {path[3]}", path[4:]
        return f"source {path[1]}", path[2:]
    return " ".join(path[:2]), path[2:]


def _lines(change):
    mark, name = MARKS[change.change], " ".join(change.path) or "all of it"
    if change.change == CHANGED:
        return _changed(name, change.live, change.local)
    value = change.local if change.change == ADDED else change.live
    return [f"{mark} {line}" for line in _outline(name, value)]


def _changed(name, old, new):
    if isinstance(old, list) and isinstance(new, list):
        return _changed_list(name, old, new)
    if isinstance(old, str) and isinstance(new, str) and "\n" in old + new:
        return [f"~ {name}:", *_changed_text(old, new)]
    if old == new:
        return [f"~ {name}: {_scalar(new)} (the value differs)"]
    shown = f"~ {name}: {_short(old)} -> {_short(new)}"
    if len(shown) <= LINE:
        return [shown]
    return [f"~ {name}:", *(f"-   {line}" for line in _nested(old)), *(f"+   {line}" for line in _nested(new))]


def _changed_list(name, old, new):
    gone = [item for item in old if item not in new]
    more = [item for item in new if item not in old]
    if not gone and not more:
        return [f"~ {name}: in another order", *(f"+   {line}" for line in _nested(new))]
    return [
        f"~ {name}:",
        *(f"-   {line}" for line in _nested(gone)),
        *(f"+   {line}" for line in _nested(more)),
    ]


def _changed_text(old, new):
    import difflib

    found = difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=CONTEXT)
    marked = {"-": "-", "+": "+", " ": "~"}
    return [f"{marked[line[0]]}   {line[1:]}" for line in list(found)[2:] if line[0] in marked]


# Values as an outline, much as YAML would write them.


def _outline(name, value):
    """`name` and its value: on one line where that is short, else the value's lines below."""
    shown = f"{name}: {_short(value)}"
    if not isinstance(value, dict) and len(shown) <= LINE and "\n" not in shown:
        return [shown]
    return [f"{name}:" if value else f"{name}: {_short(value)}", *(f"  {line}" for line in _nested(value))]


def _nested(value):
    if isinstance(value, dict):
        return [line for key, item in value.items() for line in _outline(str(key), item)]
    if isinstance(value, list):
        return [line for item in value for line in _bullet(item)]
    if isinstance(value, str) and "\n" in value:
        return value.splitlines()
    return [_scalar(value)]


def _bullet(item):
    first, *others = _nested(item) or ["{}"]
    return [f"- {first}", *(f"  {line}" for line in others)]


def _short(value):
    import json

    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return _scalar(value)


def _scalar(value):
    """A plain text as it is, anything else as JSON writes it, so that "1" and 1 can be told apart."""
    import json

    if isinstance(value, str) and value.isprintable() and value.strip() == value and not _is_json(value, json):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


def _is_json(text, json):
    try:
        json.loads(text)
    except ValueError:
        return not text
    return True
