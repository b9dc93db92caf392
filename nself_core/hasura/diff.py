"""What differs between two metadata documents by meaning: the local tree and what the engine has.

The order of lists that are sets, and what the server adds or drops as a default, are no difference; GraphQL texts are
compared token by token. Nothing that a Change holds or a report says has a secret of the metadata in it.
"""

from __future__ import annotations

from collections import namedtuple

from nself_core.hasura.identity import entry_names, is_flat
from nself_core.hasura.masking import masked
from nself_core.hasura.objects import ABSENT, ANY, below, canonical, keys_of, kind_of, root

ADDED, REMOVED, CHANGED = "added", "removed", "changed"

Change = namedtuple("Change", "path change local live place")
Change.__doc__ = """One difference, as applying the local document would make it.

`path`, its identity path; `change`, "added" (only in the local document), "removed" (only in the live one) or
"changed"; `local` and `live`, the two values without their secrets, None where there is none; `place`, its index path
in the local document, or that of the nearest parent that is there.
"""

# Two values of one spec, with the identity path and the local document's index path at which they stand. Where a value
# was put into its canonical form, what is new in that has no place of its own: `nowhere`, at the place of its parent.
Pair = namedtuple("Pair", "path place spec local live nowhere", defaults=(False,))


def find_changes(local, live):
    """The Changes that applying `local` would make to `live`, in the documents' order.

    Arguments: two metadata documents, also such as are not well formed. A `local` one of version 2 is source `default`
    alone: the engine drops the other sources when it is given one, and most other sections too.
    """
    if is_flat(local) and isinstance(live, dict) and not is_flat(live):
        changes = list(differences(root(), _as_sources(local, live), live))
        return [_shown(change._replace(place=_flat_place(change.place))) for change in changes]
    return [_shown(change) for change in differences(root(), local, live)]


def _as_sources(local, live):
    """What the engine makes of a document of version 2: see runReplaceMetadata in its source."""
    sources = live.get("sources") if isinstance(live.get("sources"), list) else []
    default = next((source for source in sources if isinstance(source, dict) and source.get("name") == "default"), {})
    tables = {"tables": local.get("tables") or [], "functions": local.get("functions") or []}
    rest = {key: value for key, value in local.items() if key not in tables and key != "version"}
    kept = {"rest_endpoints": live["rest_endpoints"]} if "rest_endpoints" in live else {}
    return {"version": live.get("version"), "sources": [{**default, "name": "default", **tables}], **rest, **kept}


def _flat_place(place):
    return place[2:] if place[:1] == ("sources",) else place


def _shown(change):
    return Change(
        change.path,
        REMOVED if change.local is ABSENT else ADDED if change.live is ABSENT else CHANGED,
        masked(change.spec, change.local),
        masked(change.spec, change.live),
        change.place,
    )


# Comparing.


def differences(spec, local, live):
    """Each place at which two values of `spec` mean something else, as a Pair, in order; see find_changes."""
    waiting = [Pair((), (), spec, local, live)]
    while waiting:
        pair = waiting.pop()
        if pair.local is ABSENT or pair.live is ABSENT:
            yield pair
        # What has no known form is gone into at once: to look first, at each of its levels, takes the square of them.
        elif pair.spec.kinds == ANY.kinds or not same(pair.local, pair.live):
            inner = _inner(pair)
            if inner is None:
                yield pair
            else:
                waiting.extend(reversed(inner))


def alike(spec, one, other):
    """Whether two values under a key whose Spec is `spec` mean the same; ABSENT where the key is not there."""
    one, other = _meant(spec, one, other), _meant(spec, other, one)
    return one is other or next(differences(spec, one, other), None) is None


def same(one, other):
    """Whether two values are the same, whatever the order of keys; unlike ==, 1 is not true."""
    waiting = [(one, other)]
    while waiting:
        left, right = waiting.pop()
        if isinstance(left, dict) and isinstance(right, dict):
            if left.keys() != right.keys():
                return False
            waiting.extend([(value, right[key]) for key, value in left.items()])
        elif isinstance(left, list) and isinstance(right, list):
            if len(left) != len(right):
                return False
            waiting.extend(zip(left, right))
        elif left != right or isinstance(left, bool) is not isinstance(right, bool):
            return False
    return True


def _inner(pair):
    """The Pairs inside a pair that differ or may do so; None when the pair itself is what differs."""
    written = pair.local
    pair = pair._replace(local=canonical(pair.spec, pair.local), live=canonical(pair.spec, pair.live))
    if isinstance(pair.local, dict) and isinstance(pair.live, dict):
        return _of_mappings(pair, written)
    if isinstance(pair.local, list) and isinstance(pair.live, list):
        return _of_lists(pair, written)
    kind = kind_of(pair.spec, pair.local)
    if kind and kind.form == "sdl" and isinstance(pair.local, str) and isinstance(pair.live, str):
        return [] if graphql_tokens(pair.local) == graphql_tokens(pair.live) else None
    return [] if same(pair.local, pair.live) else None


def _below(pair, key, name, written, spec, local, live):
    """The Pair under `key` of the local document's value, which stood there as `written`."""
    there = written is pair.local or (isinstance(written, dict) and written.get(key, ABSENT) is local)
    if pair.nowhere or local is ABSENT or not there:
        return Pair((*pair.path, name), pair.place, spec, local, live, True)
    return Pair((*pair.path, name), (*pair.place, key), spec, local, live)


def _of_mappings(pair, written):
    kind = kind_of(pair.spec, pair.local)
    keys = keys_of(kind.item) if kind is not None and kind.form == "object" else {}
    inner = []
    for key in {**pair.local, **pair.live}:
        local, live = pair.local.get(key, ABSENT), pair.live.get(key, ABSENT)
        spec = below(pair.spec, pair.local if key in pair.local else pair.live, key)
        if key in keys:
            local, live = _meant(spec, local, live), _meant(spec, live, local)
        if local is not live and key in pair.local:
            inner.append(_below(pair, key, str(key), written, spec, local, live))
        elif local is not live:
            inner.append(Pair((*pair.path, str(key)), pair.place, spec, local, live, True))
    return inner


def _meant(spec, value, other):
    """What an object's key has, where the other document's has `other`: a null is nothing, and so is a default.

    Nothing is an empty list or mapping where the other has one to compare it with. All this is only so under a key
    that the schema knows: in a filter, a preset or a payload a null is a null.
    """
    if value is None:
        value = ABSENT
    if value is not ABSENT:
        return ABSENT if other in (ABSENT, None) and _is_assumed(spec, value) else value
    is_empty = spec.default in ([], {}) and type(spec.default) is type(other)
    return spec.default if is_empty and not _is_assumed(spec, other) else ABSENT


def _is_assumed(spec, value):
    """Whether `value` is what the server takes where there is nothing."""
    return spec.default is not ABSENT and next(differences(spec, value, spec.default), None) is None


def _of_lists(pair, written):
    kind = kind_of(pair.spec, pair.local)
    if kind is not None and kind.form == "set" and not kind.key:
        return [] if _distinct(pair.local) == _distinct(pair.live) else None
    if kind is not None and kind.key:
        return _of_named(pair, kind, written)
    if len(pair.local) != len(pair.live):
        return None
    spec = below(pair.spec, pair.local, 0)
    return [
        _below(pair, index, str(index), written, spec, *both) for index, both in enumerate(zip(pair.local, pair.live))
    ]


def _distinct(items):
    """The items of a set of plain values; what else stands in it counts by its text."""
    return {(type(item).__name__, item if isinstance(item, (str, int, float)) else repr(item)) for item in items}


def _of_named(pair, kind, written):
    local = dict(zip(entry_names(kind, pair.local), enumerate(pair.local)))
    live = dict(zip(entry_names(kind, pair.live), pair.live))
    if kind.form == "list" and _is_reordered(local, live):
        return None
    inner = [
        _below(pair, index, name, written, kind.item, item, live.get(name, ABSENT))
        for name, (index, item) in local.items()
    ]
    gone = (name for name in live if name not in local)
    return inner + [_below(pair, None, name, written, kind.item, ABSENT, live[name]) for name in gone]


def _is_reordered(local, live):
    return [name for name in local if name in live] != [name for name in live if name in local]


def graphql_tokens(text):
    """The tokens of a GraphQL document, without what does not count: blanks, commas, comments, a block's indent."""
    import re

    pattern = r'"""(?:\\"""|(?!""").)*"""|"(?:\\.|[^"\\\n])*"|[\s,\ufeff]+|#[^\n]*|\.\.\.|[A-Za-z_]\w*|-?\d[\w.+-]*|.'
    found = re.findall(pattern, text, re.DOTALL)
    return [_block(token) if token.startswith('"""') else token for token in found if _counts(token)]


def _counts(token):
    return not token[0].isspace() and token[0] not in ",\ufeff#"


def _block(token):
    return '"""' + "\n".join(line.strip() for line in token[3:-3].strip().splitlines())
