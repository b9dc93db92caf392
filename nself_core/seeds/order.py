"""Which seed comes before which, and why: pure, from what seeds declare, fill, and the foreign keys between tables.

What a seed declares counts most. Then a seed that fills a table comes behind those that fill the tables its foreign
keys lead to, unless it fills these itself. A key that may be left empty gives way where the order would be a circle,
and any key gives way to what is declared.
"""

from __future__ import annotations

import heapq
from collections import namedtuple

from nself_core.failures import CheckFailed

DECLARED = "declared"
# The strength of an edge; in a circle the weakest gives way, but never one that is declared.
OPTIONAL_KEY, KEY, STATED = 0, 1, 2


class Edge(namedtuple("Edge", "before after reason strength")):
    """Seed `before` (a file) runs before seed `after`, for `reason`: "declared", or `orders.account_id -> accounts`."""

    __slots__ = ()


Order = namedtuple("Order", "files edges dropped")
Order.__doc__ = "The `files` in order, the `edges` that it keeps, and those `dropped` because they closed a circle."


def find_edges(declared, fills, keys):
    """The Edges between seeds, sorted, one for each pair: the strongest reason there is.

    Arguments: `declared`, pairs of files (before, after); `fills`, file -> set of (schema, name) of the tables that it
    fills; `keys`, ForeignKeys.
    """
    edges = sorted((*_declared_edges(declared), *_key_edges(fills, keys)), key=lambda edge: (-edge.strength, edge))
    strongest: dict = {}
    for edge in edges:
        strongest.setdefault(edge[:2], edge)
    return sorted(strongest.values())


def _declared_edges(declared):
    return [Edge(before, after, DECLARED, STATED) for before, after in declared]


def _key_edges(fills, keys):
    fillers: dict = {}
    for file, tables in fills.items():
        for table in tables:
            fillers.setdefault(table, []).append(file)
    for key in keys:
        reason = f"{_shown(key.table)}.{', '.join(key.columns)} -> {_shown(key.target)}"
        strength = OPTIONAL_KEY if key.nullable else KEY
        for after in fillers.get(key.table, ()):
            if key.target not in fills[after]:
                yield from (Edge(before, after, reason, strength) for before in fillers.get(key.target, ()))


def _shown(table):
    schema, name = table
    return name if schema == "public" else f"{schema}.{name}"


def sort_seeds(files, edges):
    """The Order of `files` under `edges`: dependencies first, then by name; the same whatever order they came in.

    Raises CheckFailed for a circle in which nothing may give way, shown as a path.
    """
    kept, dropped = list(edges), []
    while True:
        order, rest = _sorted(files, kept)
        if not rest:
            return Order(order, kept, dropped)
        circle = _circle(rest, kept)
        weakest = min(circle)[1]
        if weakest.strength == STATED or (weakest.strength == KEY and not _is_declared(circle)):
            raise _circle_failure([edge for _, edge in circle])
        kept.remove(weakest)
        dropped.append(weakest)


def _is_declared(circle):
    return any(edge.strength == STATED for _, edge in circle)


def _sorted(files, edges):
    """(what can be put in order, what cannot)."""
    waits = dict.fromkeys(files, 0)
    followers: dict = {}
    for edge in edges:
        waits[edge.after] += 1
        followers.setdefault(edge.before, []).append(edge.after)
    ready = [file for file, count in waits.items() if not count]
    heapq.heapify(ready)
    order = []
    while ready:
        file = heapq.heappop(ready)
        order.append(file)
        for follower in followers.get(file, ()):
            waits[follower] -= 1
            if not waits[follower]:
                heapq.heappush(ready, follower)
    return order, {*files} - {*order}


def _circle(rest, edges):
    """The edges of one circle among `rest`, each with its strength before it, in the order they lead round."""
    into = {edge.after: edge for edge in sorted(edges, reverse=True) if {edge.before, edge.after} <= rest}
    path, place = [], min(rest)
    seen: dict = {}
    while place not in seen:
        seen[place] = len(path)
        path.append(into[place])
        place = into[place].before
    return [(edge.strength, edge) for edge in reversed(path[seen[place] :])]


def _circle_failure(edges):
    steps = [f"  {edge.after} comes after {edge.before} ({edge.reason})" for edge in edges]
    path = " -> ".join([edges[0].before, *(edge.after for edge in edges)])
    return CheckFailed(
        f"the seeds depend on one another in a circle: {path}",
        "take one of the reasons away, or put what belongs together into one seed",
        excerpt="\n".join(steps),
        data={"circle": [edge.before for edge in edges]},
    )
