"""Three metadata documents become one: what changed here and what changed there since both were the same.

Parts are put together by identity, as diff.py compares them. What only means something as a whole (a filter, what a
relationship uses, an ordered list) is taken whole from one side.
"""

from __future__ import annotations

from collections import namedtuple

from nself_core.hasura.diff import alike, same
from nself_core.hasura.identity import entry_names, index_path
from nself_core.hasura.masking import masked
from nself_core.hasura.objects import ABSENT, canonical, key_of, kind_of, root

Conflict = namedtuple("Conflict", "path base ours theirs place")
Conflict.__doc__ = """One thing that both sides changed, each in its own way; one side may have removed it.

`path`, its identity path; `base`, `ours` and `theirs`, the three values without their secrets, None where there is
none; `place`, its index path in our document, or that of the nearest parent that is there.
"""

# Objects of whose keys one side's cannot stand beside the other's.
WHOLE = (
    "qualified", "object_using", "array_using", "query_using", "manual_relationship", "computed_definition",
    "to_source_definition", "to_schema_definition", "old_schema_definition", "header", "from_env",
    "connection_parameters_url", "allowlist_scope",
)  # fmt: skip

# Objects that are little more than what others stand in: where both sides made one, each may have its parts.
CONTAINERS = ("source", "table")

Sides = namedtuple("Sides", "base ours theirs")


def merge(base, ours, theirs):
    """(document, conflicts): our document with what they changed since `base`, and the Conflicts.

    Arguments: three metadata documents; `base` the one that both come from, {} where none is known. The document has
    our value at each conflict, and shares parts with those given.
    """
    conflicts: list = []
    document = _merged(root(), Sides(base, ours, theirs), (), conflicts)
    return document, [_shown(conflict, ours) for conflict in conflicts]


def _shown(conflict, document):
    path, spec, sides = conflict
    base, ours, theirs = (masked(spec, value) for value in sides)
    return Conflict(path, base, ours, theirs, index_path(document, path))


def _merged(spec, sides, path, conflicts):
    """The merged value of one key or entry, ABSENT where it is to go; appends (path, spec, sides) of each conflict."""
    chosen = _chosen(spec, sides)
    if chosen is not None:
        return chosen[0]
    forms = Sides(*(_form(spec, value) for value in sides))
    kind = kind_of(spec, forms.ours)
    if kind is None or kind != kind_of(spec, forms.theirs) or not _has_parts(kind, forms.base):
        conflicts.append((path, spec, sides))
        return sides.ours
    merged = (_merged_set if kind.form == "set" else _merged_mapping)(kind, forms, path, conflicts)
    return merged if merged or sides.ours is not ABSENT else ABSENT


def _has_parts(kind, base):
    """Whether each side may have its own parts of a value of `kind`.

    Not where both made it anew: a permission that one side gives with a limit and the other without has to be read.
    """
    if kind.form in ("set", "list"):
        return kind.form == "set" and (bool(kind.key) or base is not ABSENT)
    if kind.form == "object" and kind.item not in WHOLE:
        return base is not ABSENT or kind.item in CONTAINERS
    return kind.form == "map" and base is not ABSENT


def _form(spec, value):
    """A value in its canonical form; an empty list or mapping where one is meant by nothing at all."""
    if value is ABSENT:
        return spec.default if spec.default in ([], {}) else ABSENT
    return canonical(spec, value)


def _chosen(spec, sides):
    """(value,) where one side's can be taken, None where both changed it.

    What is the same to the letter goes first, so that a side that changed nothing leaves the other's as it was written.
    """
    base, ours, theirs = sides
    if same(base, ours):
        return (theirs,)
    if same(base, theirs) or alike(spec, ours, theirs):
        return (ours,)
    if alike(spec, base, ours):
        return (theirs,)
    return (ours,) if alike(spec, base, theirs) else None


def _merged_mapping(kind, sides, path, conflicts):
    base, ours, theirs = (value if isinstance(value, dict) else {} for value in sides)
    merged = {}
    for key in {**ours, **theirs, **base}:
        spec = key_of(kind.item, key) if kind.form == "object" else kind.item
        parts = Sides(*(side.get(key, ABSENT) for side in (base, ours, theirs)))
        value = _merged(spec, parts, (*path, str(key)), conflicts)
        if value is not ABSENT:
            merged[key] = value
    return merged


def _merged_set(kind, sides, path, conflicts):
    lists = [value if isinstance(value, list) else [] for value in sides]
    base, ours, theirs = (dict(zip(entry_names(kind, items), items)) for items in lists)
    merged = []
    for name in {**ours, **theirs, **base}:
        parts = Sides(*(side.get(name, ABSENT) for side in (base, ours, theirs)))
        value = _merged(kind.item, parts, (*path, name), conflicts)
        if value is not ABSENT:
            merged.append(value)
    return merged
