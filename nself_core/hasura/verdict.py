"""The engine's verdict on its metadata: what it leaves out of its API and why, with the file and line that says it."""

from __future__ import annotations

from collections import namedtuple

from nself_core.hasura.identity import index_path, qualified_text
from nself_core.output import Report
from nself_core.plan import Plan, Step


class Finding(namedtuple("Finding", "type name reason file line")):
    """An inconsistent object in the engine's words, with its place in the project's files: None where there is none."""

    __slots__ = ()

    @property
    def place(self):
        """The place as `file:line: `, empty where there is none."""
        return f"{self.file}:{self.line}: " if self.file else ""


# Where the engine's types of objects stand: the key that holds their list, below a table, a source or the document.
OF_TABLES = {
    "object_relation": "object_relationships",
    "array_relation": "array_relationships",
    "computed_field": "computed_fields",
    "remote_relationship": "remote_relationships",
    "event_trigger": "event_triggers",
    **{f"{verb}_permission": f"{verb}_permissions" for verb in ("insert", "select", "update", "delete")},
}
OF_SOURCES = {
    "table": "tables",
    "function": "functions",
    "native_query": "native_queries",
    "logical_model": "logical_models",
    "stored_procedure": "stored_procedures",
}
OF_DOCUMENTS = {
    "source": "sources",
    "remote_schema": "remote_schemas",
    "action": "actions",
    "cron_trigger": "cron_triggers",
    "inherited_role": "inherited_roles",
    "query_collection": "query_collections",
    "rest_endpoint": "rest_endpoints",
    "remote_schema_permission": "remote_schemas",
    "remote_schema_remote_relationship": "remote_schemas",
    "custom_types": "custom_types",
}


def object_path(item):
    """The identity path of an inconsistent object, as far as what the engine says of it tells one.

    Argument: `item`, {"type", "name", "definition"…} of get_inconsistent_metadata. Its definition is the object's own
    with `source` and `table` beside it; for tables, functions and sources it is the bare name.
    """
    kind = str(item.get("type")).replace(" ", "_")
    definition = item.get("definition")
    known = definition if isinstance(definition, dict) else {}
    if kind in OF_DOCUMENTS:
        name = definition if isinstance(definition, str) else known.get("name", known.get("role_name"))
        return _texts(OF_DOCUMENTS[kind], name)
    source = known.get("source") if isinstance(known.get("source"), str) else _source_in(item.get("name"))
    if kind in OF_TABLES:
        table = ("sources", source, "tables", qualified_text(known.get("table")))
        return _texts(*table, OF_TABLES[kind], known.get("name", known.get("role")))
    if kind == "function_permission":
        return _texts("sources", source, "functions", qualified_text(known.get("function")), "permissions",
                      known.get("role"))  # fmt: skip
    if kind in OF_SOURCES:
        name = known.get("root_field_name") or qualified_text(known.get(kind, definition))
        return _texts("sources", source, OF_SOURCES[kind], name)
    return ()


def _source_in(name):
    """The source that stands at the end of the engine's name of an object, `table x in source y`."""
    _, mark, source = str(name).rpartition(" in source ")
    return source if mark else "default"


def _texts(*steps):
    """The steps up to the first that is not known."""
    known = [isinstance(step, str) for step in steps]
    return steps[: known.index(False)] if False in known else steps


def find_places(local, objects):
    """A Finding for each inconsistent object.

    Arguments: `local`, a comparison.Local, None where there are no files to be read; `objects`, as the engine lists
    them.
    """
    return [Finding(*_words(item), *_place(local, item)) for item in objects]


def _words(item):
    return tuple(str(item.get(key) or "") for key in ("type", "name", "reason"))


def _place(local, item):
    """(file, line) of an object in the project's files; of one whose own entry is not there, (None, None)."""
    path = object_path(item)
    found = index_path(local.document, path) if local is not None and path else ()
    if len(found) < len(path) - (2 if "sources" not in (local.document if local else {}) else 0) or not found:
        return None, None
    place = local.place(found)
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
