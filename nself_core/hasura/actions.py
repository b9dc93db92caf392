"""The actions and custom types of a document, out of actions.yaml and actions.graphql, and into both.

The GraphQL holds what has a form there; actions.yaml holds the rest, joined by name. What neither has a place for, such
as a key of an argument that is not known here, stands in actions.yaml, so that nothing is lost.
"""

from __future__ import annotations

from nself_core.failures import FileFailure
from nself_core.hasura.sections import ACTIONS, CUSTOM_TYPES, GRAPHQL

# What the GraphQL says of an action's definition, and of a type; the order is the one in which the CLI writes.
IN_GRAPHQL = ("type", "arguments", "output_type")
ACTION_KEYS = ("name", "definition", "permissions", "comment")
DEFINITION_KEYS = (
    "kind", "handler", "forward_client_headers", "headers", "timeout", "request_transform", "response_transform",
)  # fmt: skip
TYPE_KEYS = ("name", "description", "values", "fields", "relationships")


def join(listed, sdl, place):
    """The document's `actions` and `custom_types`, as a dict that leaves out what is empty.

    Arguments: `listed`, what actions.yaml holds, a dict; `sdl`, the Sdl of actions.graphql; `place(path)`, the
    FileFailure's file and line of a path into actions.yaml, as keyword arguments. Raises FileFailure for a name that
    stands in actions.yaml and not in actions.graphql, or twice in either, and for what has not the form of an action.
    """
    found = {key: value for key, value in listed.items() if key not in ("actions", "custom_types")}
    actions = _joined(sdl.actions, listed.get("actions"), ("actions",), place, _join_action)
    if actions:
        found["actions"] = actions
    known = _of_form(dict, listed.get("custom_types"), ("custom_types",), place)
    types = {
        kind: _joined(sdl.types[kind], known.get(kind), ("custom_types", kind), place, _join_type)
        for kind in CUSTOM_TYPES
    }
    made = {kind: ones for kind, ones in types.items() if ones}
    made.update({key: value for key, value in known.items() if key not in CUSTOM_TYPES})
    return {**found, "custom_types": made} if made else found


def _of_form(form, value, path, place):
    """The value where it is a `form`, an empty one where it is None."""
    if value is not None and not isinstance(value, form):
        raise FileFailure(f"this is not {'a list' if form is list else 'a mapping'}", **place(path))
    return form() if value is None else value


def _joined(defined, listed, path, place, join_one):
    """What the GraphQL defines, each joined with the entry of its name in actions.yaml."""
    noun = "action" if path == ("actions",) else "custom type"
    entries: dict = {}
    for number, entry in enumerate(_of_form(list, listed, path, place)):
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str):
            raise FileFailure(f"an entry without a name is no {noun}", **place((*path, number)))
        if name in entries:
            raise FileFailure(f"{noun} {name} stands twice", **place((*path, number)))
        _of_form(dict, entry.get("definition"), (*path, number, "definition"), place)
        entries[name] = entry
    names = {one["name"] for one in defined}
    for number, name in enumerate(entries):
        if name not in names:
            raise FileFailure(f"{noun} {name} is not present in {GRAPHQL}", **place((*path, number)))
    if len(names) < len(defined):
        said = [one["name"] for one in defined]
        twice = next(name for name in said if said.count(name) > 1)
        raise FileFailure(f"{noun} {twice} is defined twice in {GRAPHQL}", **place(None))
    return [join_one(one, entries.get(one["name"], {})) for one in defined]


def _join_action(defined, entry):
    said = entry.get("definition") or {}
    definition = {"kind": said.get("kind"), **defined["definition"]}
    definition.update({key: value for key, value in said.items() if key not in IN_GRAPHQL})
    definition["arguments"] = _with_rest(definition["arguments"], said.get("arguments"), "name")
    if not definition["kind"]:  # the CLI writes an empty kind for queries, which have none
        del definition["kind"]
    return {**entry, "name": defined["name"], "definition": definition}


def _join_type(defined, entry):
    made = {**entry, **defined}
    if entry.get("description") is not None:
        made["description"] = entry["description"]
    elif made.get("description") is None:
        made.pop("description", None)
    for key, name in (("fields", "name"), ("values", "value")):
        if key in defined:
            made[key] = _with_rest(defined[key], entry.get(key), name)
    return made


def _with_rest(defined, listed, key):
    """Arguments, fields or values as the GraphQL has them, with what more actions.yaml says of each."""
    entries = listed if isinstance(listed, list) else ()
    rest = {one[key]: one for one in entries if isinstance(one, dict) and isinstance(one.get(key), str)}
    made = []
    for one in defined:
        more = {name: value for name, value in rest.get(one[key], {}).items() if value is not None and name != "type"}
        made.append({**more, **one})
    return made


def split(document):
    """The content of actions.yaml (a dict) and of actions.graphql (a text) that hold the document's actions and types.

    Raises FileFailure where a name or a type is none that GraphQL can hold.
    """
    from nself_core.hasura.sdl import render_sdl

    types = types_of(document)
    actions = document.get("actions") or []
    try:
        text = render_sdl(actions, types)
    except FileFailure as failure:
        raise FileFailure(failure.message, file=ACTIONS) from None
    known = {kind: [_type_entry(one) for one in types.get(kind) or ()] for kind in CUSTOM_TYPES}
    rest = {key: value for key, value in types.items() if key not in CUSTOM_TYPES}
    return {"actions": [_action_entry(one) for one in actions], "custom_types": {**known, **rest}}, text


def types_of(document):
    """The custom types of a document, an empty dict where it has none."""
    return document.get("custom_types") or {}


def _action_entry(action):
    definition = action.get("definition") or {}
    said = {key: value for key, value in definition.items() if key not in IN_GRAPHQL}
    rest = _rest(definition.get("arguments"), "name")
    if rest:
        said["arguments"] = rest
    said = ordered({"kind": "", **said}, DEFINITION_KEYS)
    return ordered({**action, "definition": said}, ACTION_KEYS)


def _type_entry(one):
    made = {key: value for key, value in one.items() if key != "fields" and not (key == "values" and not value)}
    rest = _rest(one.get("fields"), "name")
    if rest:
        made["fields"] = rest
    return ordered(made, TYPE_KEYS)


def _rest(parts, key):
    """What of arguments or fields GraphQL has no place for: those with such a key, each with its name."""
    known = (key, "type", "description")
    found = []
    for part in parts or ():
        more = {name: value for name, value in part.items() if name not in known and value is not None}
        if more:
            found.append({key: part[key], **more})
    return found


def ordered(mapping, keys):
    """The mapping with the `keys` it has first, in their order, and all others behind them."""
    first = {key: mapping[key] for key in keys if key in mapping}
    return {**first, **{key: value for key, value in mapping.items() if key not in first}}
