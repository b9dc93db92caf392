"""The project's own metadata tree, read as far as the guard needs it: what its sources track.

The tree is Hasura CLI's: `databases/databases.yaml` with `!include`s (config v3), or `tables.yaml` and
`functions.yaml` (config v2). Plain scalars are read as YAML 1.2 reads them: on, yes, 2024-01-01 and 012 are texts.
"""

from __future__ import annotations

import os
from collections import namedtuple

from nself_core import yaml_reader
from nself_core.failures import FileFailure
from nself_core.guard.requirements import SOURCE, default_source, table_name

LocalMetadata = namedtuple("LocalMetadata", "document reason")
LocalMetadata.__doc__ = "The tree as one metadata `document`, or None and the `reason` why there is none to go by."

INCLUDE = "!include"


def read_local_metadata(folder):
    """Read the metadata tree in `folder`, which HASURA_METADATA_DIR names.

    Returns a LocalMetadata. Its document is None when the folder holds no tree, when the tree tracks nothing in source
    `default` (one that was never exported says nothing of what is wanted), and without PyYAML. Raises FileFailure, with
    file and line, for what is not YAML, for an include that is missing or leads out of the folder, and for an entry
    that tracks nothing.
    """
    databases = os.path.join(folder, "databases", "databases.yaml")
    tables = os.path.join(folder, "tables.yaml")
    if not os.path.isfile(databases) and not os.path.isfile(tables):
        return LocalMetadata(None, f"there is no metadata tree in {folder}")
    try:
        import yaml
    except ImportError:
        return LocalMetadata(None, f"PyYAML is not installed, so {folder} was not read")
    tree = _Tree(folder, _loader(yaml), yaml)
    document = tree.read_sources(databases) if os.path.isfile(databases) else tree.read_flat()
    source = default_source(document)
    if not source.get("tables") and not source.get("functions"):
        return LocalMetadata(None, f"{folder} tracks nothing in source {SOURCE}")
    return LocalMetadata(document, "")


def _loader(yaml):
    """A loader class that keeps `!include` as text."""
    made = yaml_reader.loader(yaml)
    made.add_constructor(INCLUDE, lambda loader, node: f"{INCLUDE} {loader.construct_scalar(node)}")
    return made


class _Tree:
    """The files of one folder."""

    def __init__(self, folder, loader, yaml):
        self.folder = folder
        self._root = os.path.realpath(folder)
        self._loader = loader
        self._yaml = yaml

    def read_sources(self, path):
        """The document of a config v3 tree, whose sources stand in `path`."""
        sources = self._load(path) or []
        if not isinstance(sources, list) or not all(isinstance(source, dict) for source in sources):
            raise FileFailure("this is not a list of sources", file=path)
        for source in sources:
            self._resolve_source(source, path)
        return {"version": 3, "sources": sources, **self._read_beside()}

    def read_flat(self):
        """The document of a config v2 tree."""
        document = {"version": 2}
        for key in ("tables", "functions"):
            path = os.path.join(self.folder, f"{key}.yaml")
            document[key] = self._load(path) if os.path.isfile(path) else []
            _check_entries(document[key], key, path)
        return {**document, **self._read_beside()}

    def _read_beside(self):
        """The sections outside the sources that can lead into one: remote schemas, and the actions' types."""
        found = {}
        for key, name in (("remote_schemas", "remote_schemas.yaml"), ("actions", "actions.yaml")):
            path = os.path.join(self.folder, name)
            found[key] = self._load(path) if os.path.isfile(path) else None
        actions = found.pop("actions")
        found["custom_types"] = actions.get("custom_types") if isinstance(actions, dict) else None
        return found

    def _resolve_source(self, source, path):
        for key in ("tables", "functions"):
            source[key] = self._resolve(source.get(key), path, (os.path.realpath(path),))
            _check_entries(source[key], key, path)

    def _resolve(self, value, path, chain):
        """`value` with its includes replaced, at any depth; `path` is the file it stands in, `chain` those above."""
        if isinstance(value, list):
            return [self._resolve(item, path, chain) for item in value]
        if isinstance(value, dict):
            return {key: self._resolve(item, path, chain) for key, item in value.items()}
        if isinstance(value, str) and value.startswith(INCLUDE + " "):
            return self._include(value, path, chain)
        return value

    def _include(self, text, path, chain):
        name = text[len(INCLUDE):].strip().strip('"')
        target = os.path.join(os.path.dirname(path), name)
        real = os.path.realpath(target)
        if not real.startswith(self._root + os.sep):
            raise FileFailure(f"the include of {name} leads out of {self.folder}", file=path, line=_line_of(name, path))
        if not os.path.isfile(real):
            raise FileFailure(f"the include of {name} leads to no file", file=path, line=_line_of(name, path))
        if real in chain:
            raise FileFailure(f"the include of {name} leads round in a circle", file=path, line=_line_of(name, path))
        if not name.endswith(".yaml"):
            return self._read(target)
        return self._resolve(self._load(target), target, (*chain, real))

    def _load(self, path):
        text = self._read(path)
        try:
            return self._yaml.load(text, self._loader)
        except (self._yaml.YAMLError, ValueError, RecursionError) as error:
            raise yaml_reader.unsound(error, path) from None

    def _read(self, path):
        try:
            with open(path, encoding="utf-8") as file:
                return file.read()
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            raise FileFailure("this is not UTF-8", file=path, line=line) from None
        except OSError as error:
            raise FileFailure(f"this cannot be read: {error.strerror}", file=path) from None


def _line_of(text, path):
    """The line, from 1, on which `text` first stands in a file that has been read; None when it stands on none."""
    with open(path, encoding="utf-8") as file:
        return next((number for number, line in enumerate(file, 1) if text in line), None)


def _check_entries(entries, key, path):
    """Raise FileFailure when an entry of a source's tables or functions says nothing about what it tracks."""
    noun = key[:-1]
    if entries is None:
        return
    if not isinstance(entries, list):
        raise FileFailure(f"the {key} are not a list", file=path)
    for number, entry in enumerate(entries, 1):
        named = entry.get(noun, entry if noun == "function" else None) if isinstance(entry, dict) else entry
        if table_name(named) is None or (noun == "table" and not isinstance(entry, dict)):
            raise FileFailure(f"entry {number} of the {key} names no {noun}", file=path)
