"""Changes single actions and custom types in their two files: all others, and the comments, stay as they are."""

from __future__ import annotations

from nself_core.failures import FileFailure
from nself_core.hasura.actions import split, types_of
from nself_core.hasura.objects import below, root
from nself_core.hasura.reshape import in_order, is_exact, like, means_same
from nself_core.hasura.sdl import action_field, read_sdl, sdl_blocks
from nself_core.hasura.sections import ACTIONS, CUSTOM_TYPES, GRAPHQL


def change(tree, document, exact):
    """As `split`, over the two files of a tree: what means the same keeps its entry and its text.

    Arguments: `tree`, a Tree that has both files; `exact`, whether only what is the same counts as that.
    """
    value, text = split(document)
    old = tree.raw[ACTIONS] or {}
    made = {key: item for key, item in old.items() if key in document}
    lists = [one.get("actions") or [] for one in (old, tree.document, document)]
    made["actions"] = _kept(below(root(), document, "actions"), lists, value["actions"], exact)
    types = dict(value["custom_types"])
    for kind in CUSTOM_TYPES:
        spec = below(below(root(), document, "custom_types"), types, kind)
        lists = [types_of(one).get(kind) or [] for one in (old, tree.document, document)]
        types[kind] = _kept(spec, lists, types[kind], exact)
        if not types[kind] and kind not in types_of(old):
            del types[kind]
    made["custom_types"] = types
    return made, _edit_sdl(tree, document, text)


def _kept(spec, lists, entries, exact):
    """The new `entries` of one list of actions.yaml, as they were written where the old and the new mean the same.

    Argument: `lists`, of what was written, and of the old and the new document.
    """
    written, old = ({one["name"]: one for one in ones} for ones in lists[:2])
    new = lists[2]
    made = {}
    for entry, one in zip(entries, new):
        name = entry["name"]
        is_same = name in written and (is_exact if exact else means_same)(below(spec, new, 0), old[name], one)
        made[name] = written[name] if is_same else like(written.get(name), entry)
    return [made[name] for name in ([*made] if exact else in_order([*written], [*made]))]


def _edit_sdl(tree, document, rendered):
    """The text of actions.graphql with single definitions changed; `rendered` where that cannot be done in place."""
    text = tree.files[GRAPHQL]
    wanted = read_sdl(rendered, GRAPHQL)
    if _meaning(tree.sdl) == _meaning(wanted):
        return text
    edited = _edited(text, tree.sdl, wanted, document.get("actions") or [], types_of(document))
    try:
        return edited if _meaning(read_sdl(edited, GRAPHQL)) == _meaning(wanted) else rendered
    except FileFailure:
        return rendered


def _meaning(sdl):
    """What an Sdl says, whatever the order of its definitions."""
    return _by_name(sdl.actions), {kind: _by_name(ones) for kind, ones in sdl.types.items()}


def _by_name(ones):
    return {one["name"]: one for one in ones}


def _edited(text, sdl, wanted, actions, types):
    old, new = _definitions(sdl), _definitions(wanted)
    fields = {action["name"]: action_field(action) for action in actions}
    edits = _without_gone(text, sdl, old, new)
    after = 0  # the end of the definition behind which a new one goes
    for place, name, block in sdl_blocks(actions, types):
        key = (place, name)
        span = sdl.spans[place].get(name)
        if key in old and _is_kept(old[key], new[key]):
            after = span.block[1]
            if old[key] != new[key]:
                edits.append((span.start, span.end, fields[name] if place == "actions" else block))
        else:
            edits.append((after, after, f"\n\n{block}" if after else f"{block}\n\n"))
    return _applied(text, edits)


def _definitions(sdl):
    """All definitions of an Sdl by ("actions" or "types", name), each as (its kind, what it says)."""
    found = {("actions", one["name"]): (one["definition"]["type"], one) for one in sdl.actions}
    found.update({("types", one["name"]): (kind, one) for kind, ones in sdl.types.items() for one in ones})
    return found


def _is_kept(old, new):
    """Whether a definition stays in its place: it does not when it becomes one of another kind."""
    return old[0] == new[0]


def _without_gone(text, sdl, old, new):
    """The edits that take away what is gone: a whole definition where nothing of it stays."""
    gone = [key for key in old if key not in new or not _is_kept(old[key], new[key])]
    blocks: dict = {}
    for place, name in old:
        blocks.setdefault(sdl.spans[place][name].block, []).append((place, name))
    edits = []
    for block, keys in blocks.items():
        if all(key in gone for key in keys):
            edits.append((block[0], _behind_breaks(text, block[1]), ""))
            continue
        for place, name in keys:
            if (place, name) in gone:
                span = sdl.spans[place][name]
                edits.append((_line_start(text, span.start), _line_end(text, span.end), ""))
    return edits


def _behind_breaks(text, offset):
    """The offset behind the line breaks that separate a definition from the next."""
    end = offset
    while text[end : end + 1] in ("\r", "\n") and text.count("\n", offset, end) < 2:
        end += 1
    return end


def _line_start(text, offset):
    start = text.rfind("\n", 0, offset) + 1
    return start if not text[start:offset].strip() else offset


def _line_end(text, offset):
    end = text.find("\n", offset)
    return end + 1 if end >= 0 and not text[offset:end].strip(" ,\r") else offset


def _applied(text, edits):
    parts, position = [], 0
    for start, end, new in sorted(edits, key=lambda one: one[0]):
        parts += [text[position:start], new]
        position = max(position, end)
    return "".join([*parts, text[position:]])
