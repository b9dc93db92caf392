"""Where a project keeps its metadata, and what the migrations' guard goes by of it.

Hasura's CLI keeps a `config.yaml` beside the metadata; HASURA_METADATA_DIR, where it is set, says more than that file.
"""

from __future__ import annotations

import os
from collections import namedtuple

from nself_core.failures import FileFailure, Unreachable
from nself_core.guard.requirements import SOURCE, default_source, table_name
from nself_core.hasura.sections import ACTIONS, DATABASES, FLAT, GRAPHQL, PLAIN, VERSION
from nself_core.hasura.tree import read_text, read_tree
from nself_core.hasura.unfinished import is_mixed, read_note
from nself_core.hasura.yaml_values import YamlReader

SETTING = "HASURA_METADATA_DIR"
FOLDER = "hasura"

Place = namedtuple("Place", "path version")
Place.__doc__ = """Where the metadata is: the `path` of a directory or of a single file, and the `version` that
config.yaml gives, None where there is none."""

LocalMetadata = namedtuple("LocalMetadata", "document reason")
LocalMetadata.__doc__ = "The tree as one metadata `document`, or None and the `reason` why there is none to go by."


def find_metadata(settings):
    """The Place of the project's metadata: what the setting names, else what `hasura/config.yaml` says.

    The path need not exist. Raises FileFailure where config.yaml cannot be read.
    """
    path = settings.path(SETTING, f"{FOLDER}/metadata")
    config = _read_config(os.path.dirname(path), settings)
    if settings.get(SETTING):
        return Place(path, config.get("version"))
    folder = os.path.dirname(path)
    if config and "version" not in config:  # config v1 kept the metadata with the migrations
        return Place(os.path.join(folder, "migrations", "metadata.yaml"), 1)
    named = config.get("metadata_file") or config.get("metadata_directory") or "metadata"
    return Place(os.path.normpath(os.path.join(folder, named)), config.get("version"))


def _read_config(folder, settings):
    """What counts here of a folder's config.yaml; empty where there is none, or no PyYAML to read it."""
    path = os.path.join(folder, "config.yaml")
    if not os.path.isfile(path):
        return {}
    try:
        reader = YamlReader()
    except Unreachable:
        return {}
    config = reader.value(read_text(path), path)
    if not isinstance(config, dict):
        return {}
    return {key: _expanded(value, settings) for key, value in config.items()}


def _expanded(value, settings):
    """A value of config.yaml with its ${NAME} replaced from the settings."""
    if not isinstance(value, str) or "${" not in value:
        return value
    import re

    return re.sub(r"\$\{(\w+)\}", lambda match: settings.get(match.group(1), ""), value)


def read_local_metadata(path, version=None):
    """What of the project's own metadata the guard goes by.

    Arguments as `tree.read_tree` takes them. Returns a LocalMetadata. Its document is None when there is no metadata,
    when it tracks nothing in source `default` (one that was never exported says nothing of what is wanted), when a run
    that was ended has left old files and new ones, and without PyYAML. Raises FileFailure, with file and line, for what
    cannot be read, and for an entry that tracks nothing.
    """
    if not os.path.isfile(path) and not _holds_sources(path):
        return LocalMetadata(None, f"there is no metadata tree in {path}")
    try:
        tree = read_tree(path, version)
    except Unreachable:
        return LocalMetadata(None, f"PyYAML is not installed, so {path} was not read")
    if os.path.isdir(path) and is_mixed(tree, read_note(path)):
        return LocalMetadata(None, f"an export or a pull ended before it had written all files of {path}")
    for place, entries in _tracked_lists(tree.document):
        _check_entries(tree, place, entries)
    source = default_source(tree.document)
    if not source.get("tables") and not source.get("functions"):
        return LocalMetadata(None, f"{path} tracks nothing in source {SOURCE}")
    return LocalMetadata(tree.document, "")


def is_tree(folder):
    """Whether a folder holds any file of a metadata directory."""
    files = (VERSION, DATABASES, ACTIONS, GRAPHQL, *(section.file for section in (*PLAIN, *FLAT)))
    return any(os.path.isfile(os.path.join(folder, *file.split("/"))) for file in files)


def _holds_sources(folder):
    return any(
        os.path.isfile(os.path.join(folder, *name.split("/"))) for name in ("databases/databases.yaml", "tables.yaml")
    )


def _tracked_lists(document):
    """The lists of tables and of functions, each with its path."""
    for key in ("tables", "functions"):
        if key in document:
            yield (key,), document[key]
        for number, source in enumerate(document.get("sources") or ()):
            yield ("sources", number, key), source.get(key) if isinstance(source, dict) else None


def _check_entries(tree, place, entries):
    """Raise FileFailure when an entry of a source's tables or functions says nothing about what it tracks."""
    key = place[-1]
    noun = key[:-1]
    if entries is None:
        return
    if not isinstance(entries, list):
        raise FileFailure(f"the {key} are not a list", **_where(tree, place))
    for number, entry in enumerate(entries, 1):
        named = entry.get(noun, entry if noun == "function" else None) if isinstance(entry, dict) else entry
        if table_name(named) is None or (noun == "table" and not isinstance(entry, dict)):
            raise FileFailure(f"entry {number} of the {key} names no {noun}", **_where(tree, (*place, number - 1)))


def _where(tree, path):
    file, line = tree.locate(path)
    return {"file": os.path.join(tree.folder, file), "line": line}
