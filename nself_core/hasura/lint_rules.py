"""The rules of lint: what is allowed in metadata, and yet seldom meant. Each looks at a document and gives Findings.

RULES is the one list of them: the page docs/lint.md, `--rule` and `--ignore` are made from it.
"""

from __future__ import annotations

from collections import namedtuple

from nself_core.hasura.diff import alike
from nself_core.hasura.expressions import old_operators
from nself_core.hasura.identity import entry_name, is_flat, ordered_text, qualified_text, repeated
from nself_core.hasura.objects import SCALARS, below, canonical, keys_of, kind_of, root, spec_of
from nself_core.hasura.validate import Finding, dicts, sources_of, tables_of

Rule = namedtuple("Rule", "id summary reason find fix", defaults=(None,))
Rule.__doc__ = """One rule: its `id` in kebab-case, what it finds (`summary`) and why that matters (`reason`), each a
sentence; `find`, a function from a Reading to (path, message); `fix`, None or a function that takes the name of one of
objects.OBJECTS and such an object, and gives it back as it should be: the same one where it is right."""

ADMIN = "admin"
VERBS = ("insert", "select", "update", "delete")


class Reading:
    """A document as the rules look at it, gone through once for all of them.

    `document`; `objects`, every object of it whose name in OBJECTS is known, as (name, object, index path), parents
    first; `secrets`, every text that must not be shown, as (the name of its form, index path).
    """

    def __init__(self, document):
        self.document = document
        self.objects = []
        self.secrets = []
        waiting = [(root(), document, ())]
        while waiting:
            spec, value, path = waiting.pop()
            kind = kind_of(spec, value)
            if kind is not None and kind.form == "secret" and isinstance(value, str) and value:
                self.secrets.append((spec.name, path))
            elif kind is not None and kind.form not in SCALARS:
                if kind.form == "object":
                    self.objects.append((kind.item, value, path))
                waiting += reversed([*_inside(kind, value, path)])


def _inside(kind, value, path):
    """What of a value has parts of its own or is a secret, as (spec, part, path)."""
    if kind.form == "object":
        keys = keys_of(kind.item)
        parts = [(keys[key], key, item) for key, item in value.items() if key in keys]
    else:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        parts = [(kind.item, key, item) for key, item in items]
    for spec, key, item in parts:
        if isinstance(item, (dict, list)) or any(kind.form == "secret" for kind in spec.kinds):
            yield spec, item, (*path, key)


def permissions_of(reading):
    """Each permission of a table as (index path of its rule, verb, role, rule, the table's name)."""
    for path, table, _source in tables_of(reading.document):
        for verb in VERBS:
            for index, entry in dicts(table.get(f"{verb}_permissions")):
                if isinstance(entry.get("permission"), dict):
                    place = (*path, f"{verb}_permissions", index, "permission")
                    yield place, verb, entry.get("role"), entry["permission"], qualified_text(table.get("table"))


# Permissions.


def _no_filter(reading):
    for path, verb, role, rule, table in permissions_of(reading):
        key = "check" if verb == "insert" else "filter"
        if role == ADMIN or rule.get(key) not in ({}, None):
            continue
        rows = "may insert any row into" if verb == "insert" else f"may {verb} every row of"
        message = f"role {role} {rows} {table}"
        if rule.get(key) is None:
            message = f"the {verb} permission of role {role} on {table} has no {key}"
        yield (*path, key) if key in rule else path, message


def _all_columns(reading):
    for path, verb, role, rule, table in permissions_of(reading):
        if rule.get("columns") == "*" or (verb == "insert" and "columns" not in rule):
            place = (*path, "columns") if "columns" in rule else path
            yield place, f"role {role} may {verb} all columns of {table}, also those added later"


def _no_limit(reading):
    for path, verb, role, rule, table in permissions_of(reading):
        if verb == "select" and rule.get("limit") is None:
            yield path, f"role {role} may select any number of rows of {table} at once"


def _empty_permission(reading):
    for path, verb, role, rule, table in permissions_of(reading):
        if verb in ("select", "update") and rule.get("columns") == [] and not rule.get("computed_fields"):
            yield path, f"role {role} may {verb} rows of {table}, but none of their columns"


# Relationships.


def _one_key(reading):
    for path, table, _source in tables_of(reading.document):
        seen: dict = {}
        for key in ("object_relationships", "array_relationships"):
            spec = spec_of("object_using" if key[0] == "o" else "array_using")
            for index, entry in dicts(table.get(key)):
                used = entry.get("using")
                if isinstance(used, dict) and used:
                    way = key + _using_text(spec, used)
                    if way in seen:
                        yield (*path, key, index), f"{entry.get('name')} leads where {seen[way]} leads already"
                    seen.setdefault(way, entry.get("name"))


def _duplicate_relationship(reading):
    for path, table, _source in tables_of(reading.document):
        seen: dict = {}
        for key in ("object_relationships", "array_relationships", "remote_relationships"):
            kind = kind_of(keys_of("table")[key], table.get(key))
            for index, entry in dicts(table.get(key)):
                name = entry.get("name")
                before = seen.setdefault(name, []) if isinstance(name, str) else []
                if before and not any(place == key and alike(kind.item, other, entry) for place, other in before):
                    yield (*path, key, index), f"{name} is the name of another relationship of its table"
                before.append((key, entry))


def _using_text(spec, value):
    """A text of what a relationship uses that is the same for every way to write it."""
    return ordered_text(_in_one_form(spec, value))


def _in_one_form(spec, value):
    value = canonical(spec, value)
    if isinstance(value, dict):
        return {key: _in_one_form(below(spec, value, key), item) for key, item in value.items()}
    return sorted(value, key=str) if isinstance(value, list) else value


def _naming(reading):
    for path, source in sources_of(reading.document):
        names = [*_field_names(path, source)]
        wanted = _wanted_style(source, [style_of(name) for _place, name in names])
        for place, name in names if wanted else ():
            if style_of(name) not in (None, wanted):
                yield place, f"{name} is not in {wanted}, as the other names of its source are"


def _field_names(path, source):
    for index, table in dicts(source.get("tables")):
        for key in ("object_relationships", "array_relationships", "computed_fields", "remote_relationships"):
            for number, entry in dicts(table.get(key)):
                if isinstance(entry.get("name"), str):
                    yield (*path, "tables", index, key, number, "name"), entry["name"]


def style_of(name):
    """snake_case, camelCase or mixed; None for a name of one word in lower case, which is either."""
    bare = name.strip("_")
    if "_" in bare:
        return "snake_case" if bare == bare.lower() else "mixed"
    return None if bare == bare.lower() else "camelCase"


def _wanted_style(source, styles):
    customization = source.get("customization")
    if isinstance(customization, dict) and customization.get("naming_convention") == "graphql-default":
        return "camelCase"
    snake, camel = styles.count("snake_case"), styles.count("camelCase")
    return None if snake == camel else "snake_case" if snake > camel else "camelCase"


# Form.


def _unknown_key(reading):
    for name, value, path in reading.objects:
        for key in value:
            if key not in keys_of(name):
                yield (*path, key), f"{key} is no key that Hasura's schema has here; the engine drops it"


# The lists that the server keeps sorted, by object and key (metadata's serialisation).
SORTED = {
    "source": ("tables", "functions", "native_queries", "logical_models"),
    "table": ("object_relationships", "array_relationships", "computed_fields", "remote_relationships",
              "event_triggers", *(f"{verb}_permissions" for verb in VERBS)),
}  # fmt: skip


def _unsorted(reading):
    for name, value, path in reading.objects:
        for key in SORTED.get(name, ()):
            if _sorted(name, key, value.get(key)) is not value.get(key):
                yield (*path, key), f"{key} are not sorted; an export would write them in another order"


def _sort(name, value):
    changed = {key: _sorted(name, key, value[key]) for key in SORTED.get(name, ()) if key in value}
    return _with(value, changed)


def _sorted(name, key, items):
    kind = kind_of(keys_of(name)[key], items)
    if not isinstance(items, list) or kind is None:
        return items
    keys = [_sort_key(kind.key, item) for item in items]
    if None in keys or keys == sorted(keys):
        return items
    return [items[index] for index in sorted(range(len(items)), key=keys.__getitem__)]


def _sort_key(key, item):
    value = item.get(key) if isinstance(item, dict) else None
    if key in ("table", "function"):
        value = canonical(spec_of("table_name"), value)
        parts = (value.get("schema"), value.get("name")) if isinstance(value, dict) else (None,)
        return parts if all(isinstance(part, str) for part in parts) else None
    return (value,) if isinstance(value, str) else None


def _duplicate_entry(reading):
    for name, value, path in reading.objects:
        for key, indexes in _duplicates(name, value):
            for index in indexes:
                yield (*path, key, index), f"an entry of {key} stands there already"


def _deduplicate(name, value):
    changed = {
        key: [item for index, item in enumerate(value[key]) if index not in indexes]
        for key, indexes in _duplicates(name, value)
    }
    return _with(value, changed)


def _duplicates(name, value):
    """The indexes of the entries of each list that mean the same as one before them, with the list's key."""
    for key, spec in keys_of(name).items():
        kind = kind_of(spec, value[key]) if isinstance(value.get(key), list) else None
        if kind is not None and kind.form == "set":
            indexes = [index for index in repeated(kind, value[key]) if _is_before(kind, value[key], index)]
            if indexes:
                yield key, indexes


def _is_before(kind, items, index):
    name = entry_name(kind.key, items[index])
    before = (item for item in items[:index] if entry_name(kind.key, item) == name)
    return not kind.key or any(alike(kind.item, item, items[index]) for item in before)


def _deprecated(reading):
    if is_flat(reading.document):
        yield (), "metadata of version 2 has one source; version 3 is what the engine writes"
    for name, value, path in reading.objects:
        for key, message in _deprecated_keys(name, value):
            yield (*path, key), message


def _deprecated_keys(name, value):
    if name == "source" and value.get("kind") == "pg":
        yield "kind", "kind pg is an old name of postgres"
    if name == "table_settings" and _unmirrored(value):
        columns = ", ".join(map(str, _unmirrored(value)))
        yield "custom_column_names", f"custom_column_names is an old form of column_config (columns {columns})"
    if name == "remote_relationship" and _is_old_remote(value.get("definition")):
        yield "definition", "hasura_fields and remote_field are an old form of to_remote_schema"
    for key in ("filter", "check"):
        found = old_operators(value.get(key)) if name.endswith("_rule") else []
        if found:
            yield key, f"{', '.join(sorted(found))}: operators begin with _ and no longer with $"


def _modernise(name, value):
    changed: dict = {}
    for key, _message in _deprecated_keys(name, value):
        if key == "kind":
            changed["kind"] = "postgres"
        elif key == "custom_column_names":
            changed["column_config"] = canonical(spec_of("table_configuration"), value)["column_config"]
        elif key == "definition":
            old = value["definition"]
            rest = {part: item for part, item in old.items() if part != "hasura_fields"}
            changed["definition"] = {"to_remote_schema": {**rest, "lhs_fields": old["hasura_fields"]}}
        else:
            changed[key] = _renamed(value[key])
    return _with(value, changed)


def _unmirrored(settings):
    """The columns that only custom_column_names names: an engine of today writes each name in both places."""
    names, config = settings.get("custom_column_names"), settings.get("column_config", {})
    if not isinstance(names, dict) or not isinstance(config, dict):
        return []
    return [column for column in names if not isinstance(config.get(column), dict) or
            "custom_name" not in config[column]]  # fmt: skip


def _is_old_remote(definition):
    keys = ("remote_schema", "hasura_fields", "remote_field")
    return isinstance(definition, dict) and all(key in definition for key in keys)


def _renamed(expression):
    if isinstance(expression, dict):
        old = old_operators(expression, deep=False)
        return {"_" + key[1:] if key in old else key: _renamed(item) for key, item in expression.items()}
    return [_renamed(item) for item in expression] if isinstance(expression, list) else expression


def _overruled(reading):
    for name, value, path in reading.objects:
        names, config = value.get("custom_column_names"), value.get("column_config")
        if name == "table_settings" and isinstance(names, dict) and isinstance(config, dict):
            for column, custom in names.items():
                other = config[column].get("custom_name") if isinstance(config.get(column), dict) else None
                if other is not None and other != custom:
                    message = f"{custom} has no effect: column_config names column {column} {other}"
                    yield (*path, "custom_column_names", column), message


def _include_in_text(reading):
    for path, source in sources_of(reading.document):
        for key in ("tables", "functions"):
            for place, text in _texts(source.get(key), (*path, key)):
                if "!include" in text:
                    yield place, "Hasura's CLI takes a text that has !include in it for an include of a file"
    for place, text in _texts({key: item for key, item in reading.document.items() if key not in IN_SOURCES}, ()):
        if text.startswith("!include "):
            yield place, "an include is not followed here: the engine is given this text as it is"


IN_SOURCES = ("sources", "tables", "functions")


def _texts(value, path):
    waiting = [(path, value)]
    while waiting:
        place, item = waiting.pop()
        if isinstance(item, str):
            yield place, item
        elif isinstance(item, dict):
            waiting += [((*place, key), inner) for key, inner in item.items()]
        elif isinstance(item, list):
            waiting += [((*place, index), inner) for index, inner in enumerate(item)]


# The other sections.


def _unused_collection(reading):
    document = reading.document
    used = [entry.get("collection") for _index, entry in dicts(document.get("allowlist"))]
    for _index, endpoint in dicts(document.get("rest_endpoints")):
        query = endpoint["definition"].get("query") if isinstance(endpoint.get("definition"), dict) else None
        used.append(query.get("collection_name") if isinstance(query, dict) else None)
    for index, collection in dicts(document.get("query_collections")):
        if collection.get("name") not in used:
            yield ("query_collections", index), f"no allow list and no REST endpoint uses {collection.get('name')}"


def _action_without_handler(reading):
    for index, action in dicts(reading.document.get("actions")):
        definition = action.get("definition")
        if isinstance(definition, dict) and not definition.get("handler"):
            message = f"action {action.get('name')} has no handler: it stands in actions.graphql alone"
            yield ("actions", index, "definition"), message


def _unexported_cron(reading):
    for index, trigger in dicts(reading.document.get("cron_triggers")):
        if trigger.get("include_in_metadata") is False:
            message = f"cron trigger {trigger.get('name')} is made once and never exported, changed or removed again"
            yield ("cron_triggers", index, "include_in_metadata"), message


def _literal_secret(reading):
    for form, path in reading.secrets:
        value, around = _at(reading.document, path)
        if value.startswith("{{"):
            continue
        if form == "database_url" or path[-1] == "connection_string":
            yield path, "a connection string stands in the metadata; from_env keeps it out of git"
        elif _sounds_secret(around.get("name") if path[-1] == "value" else path[-1]):
            yield path, "a secret stands in the metadata; value_from_env keeps it out of git"


def _at(document, path):
    """What stands at an index path, and what that stands in."""
    around, value = None, document
    for key in path:
        around, value = value, value[key]
    return value, around


def _sounds_secret(name):
    from nself_core.redaction import is_secret

    words = str(name).replace("-", "_")
    return is_secret(words) or words.lower() in ("authorization", "x_api_key", "apikey", "cookie")


def _with(value, changed):
    """`value` with other values under some keys, in their old places; the same object where nothing changed."""
    changed = {key: item for key, item in changed.items() if item is not value.get(key)}
    return {**value, **changed} if changed else value


def orphans_found(files):
    """The Findings of files that nothing includes, as read_tree lists them."""
    return [Finding((), "orphan-file", f"{file} is included by nothing, so nothing in it has any effect", file)
            for file in files]  # fmt: skip


RULES = {
    rule.id: rule
    for rule in (
        Rule("action-without-handler", "An action has no handler.",
             "It stands in actions.graphql and not in actions.yaml; the engine refuses it.", _action_without_handler),
        Rule("all-columns", "A permission gives all columns.",
             "A column that a migration adds later is given as well, whatever is in it.", _all_columns),
        Rule("deprecated", "An old form is used that has a successor.",
             "The engine writes the new form, and may one day not read the old one.", _deprecated, _modernise),
        Rule("duplicate-entry", "An entry of a list stands there twice, and both mean the same.",
             "The engine refuses two tables, relationships or permissions of one name.",
             _duplicate_entry, _deduplicate),
        Rule("duplicate-relationship", "Two relationships of a table have one name and lead differently.",
             "A table has one field of a name, so the engine refuses one of them.", _duplicate_relationship),
        Rule("empty-permission", "A permission gives rows and none of their columns.",
             "It lets a role see that there are rows, which is seldom meant.", _empty_permission),
        Rule("include-in-text", "A text has !include in it and is no include, or an include stands where none is read.",
             "Hasura's CLI follows includes only below a source's tables and functions, and there in any text.",
             _include_in_text),
        Rule("literal-secret", "A connection string, or the value of a header that carries a secret, is written out.",
             "Metadata is kept in git, and everybody who may read it may use the secret.", _literal_secret),
        Rule("missing-limit", "A select permission has no limit.",
             "One query can then ask for a whole table.", _no_limit),
        Rule("naming", "A relationship or computed field is named in another style than most of its source.",
             "snake_case beside camelCase makes an API hard to guess.", _naming),
        Rule("no-filter", "A permission's filter or check is empty, null or missing.",
             "The role sees or changes the rows of everybody.", _no_filter),
        Rule("orphan-file", "A file of a table or function is included by nothing.",
             "Hasura's own export leaves the file of a dropped table behind; what is in it has no effect.", None),
        Rule("overruled-name", "custom_column_names and column_config give a column two names.",
             "Only column_config counts, so that a change of the other is lost.", _overruled),
        Rule("two-relationships-one-key", "Two relationships of a table lead the same way.",
             "One of them is a leftover, or its key is wrong.", _one_key),
        Rule("unexported-cron-trigger", "A cron trigger is not to be part of the metadata.",
             "The engine makes it and then never exports, changes or removes it.", _unexported_cron),
        Rule("unknown-key", "A key is not part of Hasura's schema.",
             "The engine drops it without a word; often it is misspelt.", _unknown_key),
        Rule("unsorted", "A list that the server keeps sorted is not.",
             "The next export would write it in another order, which hides what really changed.", _unsorted, _sort),
        Rule("unused-collection", "A query collection is used by no allow list and no REST endpoint.",
             "It has no effect.", _unused_collection),
    )
}  # fmt: skip
