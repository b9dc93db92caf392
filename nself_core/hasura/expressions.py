"""Boolean expressions of permissions: which operators there are, and on which types each works.

The engine's own tables of operators (hasura/graphql-engine v2, Postgres backend) are what this follows.
"""

from __future__ import annotations

CONNECTIVES = ("and", "or", "not", "exists")
# Operators by the types that they work on; those of any type are first.
ANY_TYPE = (
    "eq", "ne", "neq", "gt", "lt", "gte", "lte", "in", "nin", "is_null",
    "ceq", "cne", "cneq", "cgt", "clt", "cgte", "clte", "cast",
)  # fmt: skip
TEXT_ONLY = (
    "like", "nlike", "ilike", "nilike", "similar", "nsimilar", "regex", "iregex", "nregex", "niregex",
)  # fmt: skip
JSONB_ONLY = ("contains", "contained_in", "has_key", "has_keys_any", "has_keys_all")
LTREE_ONLY = (
    "ancestor", "ancestor_any", "descendant", "descendant_any", "matches", "matches_any", "matches_fulltext",
)  # fmt: skip
SPATIAL_ONLY = (
    "st_contains", "st_crosses", "st_equals", "st_overlaps", "st_touches", "st_within", "st_intersects",
    "st_3d_intersects", "st_d_within", "st_3d_d_within", "st_intersects_rast", "st_intersects_nband_geom",
    "st_intersects_geom_nband",
)  # fmt: skip
OPERATORS = frozenset(ANY_TYPE + TEXT_ONLY + JSONB_ONLY + LTREE_ONLY + SPATIAL_ONLY)


def is_operator(key):
    """Whether a key of an expression is one of the operators of columns, in today's form or the old one."""
    return isinstance(key, str) and key[:1] in ("_", "$") and key[1:] in OPERATORS


def old_operators(expression, deep=True):
    """The operators and connectives of an expression that are written in the old form, with $, as a set."""
    found: set = set()
    waiting = [expression]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            found.update(key for key in value if isinstance(key, str) and _is_old(key))
            waiting += value.values() if deep else ()
        elif isinstance(value, list):
            waiting += value
    return found


def _is_old(key):
    return key[:1] == "$" and (key[1:] in OPERATORS or key[1:] in CONNECTIVES)
