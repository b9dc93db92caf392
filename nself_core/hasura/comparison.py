"""The project's metadata beside the engine's: what both are, what differs, and where that stands in the files."""

from __future__ import annotations

import os
from collections import namedtuple

from nself_core.hasura.api import read_stored_metadata
from nself_core.hasura.diff import ADDED, CHANGED, REMOVED, find_changes
from nself_core.hasura.diff_report import report_lines
from nself_core.hasura.identity import index_path, is_flat
from nself_core.hasura.project import find_metadata
from nself_core.hasura.unfinished import read_whole
from nself_core.output import Marked, Report

Live = namedtuple("Live", "document version where")
Live.__doc__ = "What the engine has: the metadata `document`, its resource `version`, and `where` it was asked."


class Local(namedtuple("Local", "tree shown")):
    """The project's own metadata: its Tree, and the folder (or file) as people know it, from the project's root."""

    __slots__ = ()

    @property
    def document(self):
        """The metadata of the files, as one document."""
        return self.tree.document

    def place(self, path):
        """Where the value at an index path stands: {"file", "line"}, None for what stands in no file."""
        file, line = self.tree.locate(path)
        return {"file": self.shown_file(file) if file else None, "line": line}

    def place_of(self, identity_path):
        """The same of an identity path."""
        return self.place(index_path(self.document, identity_path))

    def shown_file(self, file):
        """A file of the tree as people know it."""
        return f"{self.shown}/{file}" if self.tree.kind in ("v2", "v3") else self.shown


Comparison = namedtuple("Comparison", "local live changes")
Comparison.__doc__ = "A Local, a Live, and the Changes that applying the one would make to the other."


def read_local(settings):
    """The Local of the project. Raises what `unfinished.read_whole` does."""
    path, version = find_metadata(settings)
    shown = shown_path(path, settings.root)
    return Local(read_whole(path, version, shown), shown)


def shown_path(path, root):
    """A path as people know it: from the project's root where it is below that."""
    inner = os.path.relpath(path, root)
    return path if inner.startswith("..") else inner.replace(os.sep, "/")


def read_live(api):
    """The Live of an engine. Raises what `api` does."""
    answer = api.export_metadata()
    return Live(answer["metadata"], answer["resource_version"], api.endpoint)


def read_stored(database):
    """The Live that the engine has stored in its database. Raises what `api.read_stored_metadata` does."""
    answer = read_stored_metadata(database)
    return Live(answer["metadata"], answer["resource_version"], database.where)


def compare(local, live):
    """The Comparison of a Local and a Live."""
    return Comparison(local, live, find_changes(local.document, live.document))


# What is told of it.


def change_rows(local, changes):
    """The Changes as JSON has them, each with its file and line; `local` may be None, for documents without files."""
    return [
        {
            "path": [*change.path],
            "change": change.change,
            "local": change.local,
            "live": change.live,
            **(local.place(change.place) if local else {"file": None, "line": None}),
        }
        for change in changes
    ]


def change_text(local, changes):
    """The Changes as a text for people, each group's title with the place of its first change."""
    where = (lambda change: _where(local.place(change.place))) if local else None
    return Marked("\n".join(report_lines(changes, where)))


def _where(place):
    return f"{place['file']}:{place['line']}" if place["file"] else ""


def count_text(changes):
    """How many there are of each kind, such as "2 added, 1 removed"."""
    counts = [(word, sum(change.change == word for change in changes)) for word in (ADDED, CHANGED, REMOVED)]
    return ", ".join(f"{count} {word}" for word, count in counts if count) or "no difference"


def report(comparison, fails):
    """The Report of `hasura metadata diff`; `fails`, whether a difference is exit code 1."""
    local, live, changes = comparison
    data = {"changes": change_rows(local, changes), "resource_version": live.version}
    if not changes:
        return Report(data, (), f"{local.shown} and {live.where} have the same metadata", warnings_of(local))
    summary = f"{local.shown} against {live.where}: {count_text(changes)}"
    return Report(data, [change_text(local, changes)], summary, warnings_of(local), 1 if fails else 0)


def warnings_of(local):
    """What to warn of before a tree is compared or applied."""
    if is_flat(local.document):
        return [f"{local.shown} is of version 2: the engine takes it as source default, and drops every other source"]
    return []
