"""A whole metadata directory as Hasura's CLI writes it: which files, under which names, with which text."""

from __future__ import annotations

import re

from nself_core.failures import FileFailure
from nself_core.hasura.actions import ordered, split
from nself_core.hasura.sections import (
    ACTIONS,
    CUSTOM_TYPES,
    DATABASES,
    FLAT,
    GRAPHQL,
    ORDER,
    PLAIN,
    VERSION,
    is_empty,
)
from nself_core.hasura.yaml_style import render
from nself_core.hasura.yaml_values import INCLUDE

# The keys of these objects are written in this order; all other objects keep the server's.
SOURCE_KEYS = (
    "name", "kind", "configuration", "query_tags", "customization", "health_check", "logical_models", "native_queries",
    "stored_procedures",
)  # fmt: skip
REMOTE_SCHEMA_KEYS = ("name", "definition", "comment", "permissions", "remote_relationships")
# Behind all other keys of a source.
MEMBERS = ("tables", "functions")
# The order in which the CLI writes a document as one file.
SINGLE_FILE_ORDER = (
    "version", "sources", "tables", "functions", "actions", "custom_types", "remote_schemas", "query_collections",
    "allowlist", "cron_triggers", "network", "api_limits", "rest_endpoints", "inherited_roles", "opentelemetry",
    "backend_configs", "graphql_schema_introspection", "metrics_config",
)  # fmt: skip

LONGEST_NAME = 200  # bytes; file systems take 255, and a temporary name is longer


def render_files(document):
    """The files of a metadata directory that holds a document, as a dict of path -> text, in the form of Hasura's CLI.

    A document of version 2, with its tables at its top, gives a directory of config v2. Two objects whose names would
    be one file's have two files. Raises FileFailure for actions that GraphQL cannot hold.
    """
    check_form(document)
    files = {VERSION: render(version_value(document))}
    if is_flat(document):
        for section in FLAT:
            files[section.file] = render(document.get(section.key) or section.empty)
    elif "sources" in document:
        files.update(_render_sources(document["sources"]))
    for section in PLAIN:
        files[section.file] = render(section_value(section, document.get(section.key)))
    listed, text = split(document)
    files.update({ACTIONS: render(listed), GRAPHQL: text})
    return files


def check_form(document):
    """Raise FileFailure where the sources, actions or custom types of a document are no lists of mappings.

    No engine gives such, and there would be no saying which files they belong into.
    """
    types = document.get("custom_types")
    lists = {"sources": document.get("sources"), "actions": document.get("actions")}
    if types is not None and not isinstance(types, dict):
        raise FileFailure("this is no metadata: its custom_types are not a mapping")
    lists.update({kind: (types or {}).get(kind) for kind in CUSTOM_TYPES})
    for key, ones in lists.items():
        if ones is not None and not (isinstance(ones, list) and all(isinstance(one, dict) for one in ones)):
            raise FileFailure(f"this is no metadata: its {key} are not a list of mappings")
    if any(isinstance(source.get("name"), (list, dict)) for source in lists["sources"] or ()):
        raise FileFailure("this is no metadata: the name of a source is not a text")


def is_flat(document):
    """Whether a document has its tables at its top, as metadata of version 2 does."""
    return "sources" not in document and any(section.key in document for section in FLAT)


def version_value(document):
    """What version.yaml holds: the version, and the keys of the document that belong to no other file."""
    rest = {key: value for key, value in document.items() if key not in ORDER}
    return {"version": document.get("version", 3), **rest}


def section_value(section, value):
    """What a section's file holds for the document's `value` under its key, None where it has none."""
    if is_empty(section, value):
        return section.empty
    if section.key == "remote_schemas":
        return [ordered(one, REMOTE_SCHEMA_KEYS) if isinstance(one, dict) else one for one in value]
    return value


def render_single(document, is_json):
    """A document as one file, in the form of Hasura's CLI: JSON or YAML."""
    check_form(document)
    ordered_document = ordered(document, SINGLE_FILE_ORDER)
    if not is_json:
        return render(ordered_document)
    import json

    return json.dumps(ordered_document, ensure_ascii=False, indent=2) + "\n"


def _render_sources(sources):
    files: dict = {}
    names = Names()
    entries = []
    for source in sources:
        folder = names.take("databases", source.get("name"), "")
        entry, members = place_source(source, folder)
        entries.append(entry)
        for file, value in members.items():
            files[file] = render(value)
    return {DATABASES: render(entries), **files}


def place_source(source, folder):
    """The entry of databases.yaml for a source, and the files of its tables and functions.

    Argument: `folder`, the source's folder as a path in the tree. Returns (entry, dict of path -> value); functions
    have files only where there are any.
    """
    entry = {key: value for key, value in source.items() if key not in MEMBERS}
    entry = ordered(entry, SOURCE_KEYS)
    files: dict = {}
    for key in MEMBERS:
        if not isinstance(source.get(key, []), list):
            entry[key] = source[key]
        elif key == "tables" or source.get(key):
            list_file = f"{folder}/{key}/{key}.yaml"
            entry[key] = include(list_file, DATABASES)
            files.update(place_members(source.get(key) or [], key, list_file, Names()))
    return entry, files


def place_members(members, key, list_file, names):
    """The files of a list of tables or functions: that of the list, and one of each member, as a dict of path -> value.

    Arguments: `key`, "tables" or "functions"; `list_file`, the path of the list's file; `names`, the Names taken.
    """
    folder = list_file.rpartition("/")[0]
    names.take(folder, key, ".yaml")
    files = {names.take(folder, member_name(member, key), ".yaml"): member for member in members}
    return {list_file: [include(file, list_file) for file in files], **files}


def include(file, origin):
    """The include of `file` in the file `origin`, both paths in the tree."""
    from posixpath import dirname, relpath

    return f"{INCLUDE} {relpath(file, dirname(origin) or '.')}"


def member_name(member, key):
    """What the file of a table or function is called, without its end: schema and name, joined by an underscore."""
    named = member.get(key[:-1], member) if isinstance(member, dict) else member
    if isinstance(named, str):
        return f"public_{named}"
    if isinstance(named, list):
        return "_".join(str(part) for part in named)
    if not isinstance(named, dict):
        return "_"
    return f"{named.get('schema', named.get('dataset', ''))}_{named.get('name', '')}"


class Names:
    """Paths that are taken; each new one is told apart from them, also where a file system ignores upper case."""

    def __init__(self, taken=()):
        self._taken = {_folded(file) for file in taken}

    def take(self, folder, name, end, reuse=None):
        """A path in `folder` for `name` that is free: it itself, or it with a number. It is taken then.

        Argument: `reuse(path)`, whether one that was taken may be given all the same.
        """
        base = _file_name(str(name), end)
        number, file = 1, f"{folder}/{base}{end}"
        while _folded(file) in self._taken and not (reuse and reuse(file)):
            number += 1
            file = f"{folder}/{base}_{number}{end}"
        self._taken.add(_folded(file))
        return file


def _folded(file):
    import unicodedata

    return unicodedata.normalize("NFC", file).casefold()


_UNSAFE = re.compile(r'[/"\\\x00-\x1f\x7f-\x9f\ud800-\udfff]')


def _file_name(name, end):
    """A name as one part of a path: what has a meaning there, or in an include, is written as %XX.

    Hasura's CLI writes a name with a slash into a folder, and one with `..` wherever that leads.
    """
    safe = "".join(f"%{ord(char):02X}" if _UNSAFE.match(char) else char for char in name)
    if not end and safe in ("", ".", ".."):
        safe = safe.replace(".", "%2E") or "_"
    data = safe.encode("utf-8", "surrogatepass")
    if len(data) <= LONGEST_NAME:
        return safe
    import hashlib

    digest = hashlib.sha256(data).hexdigest()[:12]
    return data[: LONGEST_NAME - 13].decode("utf-8", "ignore") + "_" + digest
