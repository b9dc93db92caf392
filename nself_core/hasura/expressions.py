"""Boolean expressions of permissions: which operators there are, and on which types each works.

The engine's own tables of operators (hasura/graphql-engine v2, Postgres backend) are what this follows.
"""

from __future__ import annotations

from nself_core.guard.requirements import table_name

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


# An expression beside what the catalogue knows.

# The categories of types (pg_type.typcategory) that are plainly none of an operator's own.
PLAIN = ("N", "B", "D", "T")
WRONG_CATEGORIES = (
    (TEXT_ONLY, PLAIN),
    (JSONB_ONLY, (*PLAIN, "S")),
    (LTREE_ONLY, (*PLAIN, "S")),
    (SPATIAL_ONLY, (*PLAIN, "S")),
)
# Types whose category says nothing, by name.
NO_TEXT = ("json", "jsonb", "uuid", "bytea")


def operator_findings(expression, name, tables, facts):
    """What is wrong with the operators of a permission's expression, as (path inside it, rule id, message).

    Arguments: `expression`, said of the rows of table `name`, (schema, name); `tables`, the tracked entries by such
    names; `facts`, with `relations` by such names. What the catalogue does not know is passed over.
    """
    waiting: list = [((), expression, name)]
    while waiting:
        path, value, table = waiting.pop()
        if isinstance(value, list):
            waiting += [((*path, index), item, table) for index, item in enumerate(value)]
        if not isinstance(value, dict) or table not in facts.relations:
            continue
        for key, item in [(key, item) for key, item in value.items() if isinstance(key, str)]:
            if key[:1] in ("_", "$") and key[1:] in ("and", "or", "not"):
                waiting.append(((*path, key), item, table))
            elif key[:1] in ("_", "$") and key[1:] == "exists":
                waiting += _in_exists((*path, key), item)
            elif key in facts.relations[table].columns and not _far_table(key, tables.get(table), table, facts):
                yield from _of_column((*path, key), key, item, facts.relations[table].columns[key])
            else:
                waiting.append(((*path, key), item, _far_table(key, tables.get(table), table, facts)))


def _in_exists(path, value):
    table = table_name(value.get("_table")) if isinstance(value, dict) else None
    return [((*path, "_where"), value.get("_where"), table)] if table else []


def _far_table(key, entry, table, facts):
    """The table behind relationship `key` of a tracked table, None where there is none or it is not known."""
    for kind in ("object_relationships", "array_relationships"):
        for relationship in entry.get(kind) or [] if entry else []:
            if relationship.get("name") == key and isinstance(relationship.get("using"), dict):
                return _target(relationship["using"], table, facts)
    return None


def _target(using, table, facts):
    key, manual = using.get("foreign_key_constraint_on"), using.get("manual_configuration")
    if isinstance(key, dict):
        return table_name(key.get("table"))
    if isinstance(manual, dict):
        return table_name(manual.get("remote_table"))
    columns = frozenset([key] if isinstance(key, str) else key if isinstance(key, list) else [])
    targets = {target for own, target in facts.relations[table].keys if own == columns}
    return targets.pop() if len(targets) == 1 else None


def _of_column(path, name, value, column):
    for key in [key for key in value if isinstance(key, str)] if isinstance(value, dict) else ():
        if key[:1] not in ("_", "$") or key[1:] not in OPERATORS:
            yield (*path, key), "unknown-operator", f"column {name} is compared by {key}, which is no operator"
        elif _is_wrong(key[1:], column):
            yield (*path, key), "wrong-operator", f"{key} does not work on column {name}, which is {column.type}"


def _is_wrong(operator, column):
    if operator in ("contains", "contained_in") and column.category == "A":
        return False
    for operators, categories in WRONG_CATEGORIES:
        if operator in operators:
            return column.category in categories or (operators is TEXT_ONLY and column.name in NO_TEXT)
    return False
