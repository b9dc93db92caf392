"""The engine's verdict on its metadata: what it leaves out of its API and why, with the file and line that says it."""

from __future__ import annotations

from collections import namedtuple

from nself_core.hasura.inconsistency import inconsistency_paths
from nself_core.output import Report
from nself_core.plan import Plan, Step


class Finding(namedtuple("Finding", "type name reason file line")):
    """An inconsistent object in the engine's words, with its place in the project's files, None where there is none.

    Of an object that they do not have it is the place of what would hold it.
    """

    __slots__ = ()

    @property
    def place(self):
        """The place as `file:line: `, empty where there is none."""
        return f"{self.file}:{self.line}: " if self.file else ""


def find_places(local, objects):
    """A Finding for each inconsistent object.

    Arguments: `local`, a comparison.Local, None where there are no files to be read; `objects`, as the engine lists
    them.
    """
    paths = inconsistency_paths(local.document, objects) if local is not None else [()] * len(objects)
    return [Finding(*_words(item), *_place(local, path)) for item, path in zip(objects, paths)]


def _words(item):
    return tuple(str(item.get(key) or "") for key in ("type", "name", "reason"))


def _place(local, path):
    """(file, line) of an index path; nothing of the whole document's."""
    place = local.place(path) if path else {"file": None, "line": None}
    return place["file"], place["line"]


def rows(findings):
    """The Findings as JSON has them."""
    return [finding._asdict() for finding in findings]


def lines(findings):
    """The Findings for people, a line each."""
    return [_line(finding) for finding in findings]


def _line(finding):
    return f"{finding.place}{finding.name or finding.type}: {finding.reason.removeprefix('Inconsistent object: ')}"


def plan_reload(api):
    """The Plan of `hasura metadata reload`."""
    return Plan([Step("reload metadata", f"have {api.endpoint} read its metadata and the database anew")])


def reload(api, read_local):
    """Have the engine read its metadata anew and return the Report of `hasura metadata reload`.

    Argument: `read_local()`, the Local, or None; asked for only where something is inconsistent.
    """
    answer = api.reload_metadata()
    if answer["is_consistent"]:
        return Report({"is_consistent": True, "inconsistent": []}, (), f"metadata reloaded at {api.endpoint}")
    findings = find_places(read_local(), answer["inconsistent_objects"])
    data = {"is_consistent": False, "inconsistent": rows(findings)}
    summary = f"metadata reloaded at {api.endpoint}; {count_text(findings)}"
    return Report(data, lines(findings), summary, (), 1)


def count_text(findings):
    """How many objects the engine leaves out, in words."""
    count = len(findings)
    return f"{count} object{' is' if count == 1 else 's are'} inconsistent"
