"""The metadata of a project's own files as one document, and the file and line of everything in it.

Four kinds of trees are read: directories of config v3 (`databases/databases.yaml` with its includes) and v2
(`tables.yaml`), and single files of JSON and YAML, as the `metadata_file` of Hasura's config.yaml names them.
"""

from __future__ import annotations

import os
import stat
from collections import namedtuple

from nself_core.failures import FileFailure
from nself_core.hasura import actions as action_files
from nself_core.hasura.sections import ACTIONS, DATABASES, FLAT, GRAPHQL, PLAIN, VERSION, in_server_order, is_empty
from nself_core.hasura.yaml_values import INCLUDE, YamlReader, find_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from nself_core.hasura.sdl import Sdl

V3, V2, JSON, YAML = "v3", "v2", "json", "yaml"

DEEPEST_INCLUDE = 30
MOST_INCLUDES = 100_000

Mount = namedtuple("Mount", "path file")
Mount.__doc__ = """That the document's value at `path` stands in `file`; a file that is included twice has two."""


class Tree:
    """What was read. `read_tree` makes it.

    Attributes: `folder`, where it is; `kind`, one of V3, V2, JSON, YAML; `document`, the metadata as export_metadata
    gives it ("version": 2 and no sources for V2), which is not to be changed: change a copy; `files`, the text of each
    file by its path relative to `folder`; `raw`, the value of each YAML file with its includes as texts; `mounts`, a
    Mount for each file and include; `orphans`, YAML files below `databases/` that nothing includes; `sdl`, the Sdl of
    actions.graphql, None where there is none.
    """

    def __init__(self, folder, kind):
        self.folder = folder
        self.kind = kind
        self.document: dict = {}
        self.files: dict = {}
        self.raw: dict = {}
        self.mounts: list = []
        self.sdl: Sdl | None = None
        self._places: dict = {}
        self._nodes: dict = {}

    def locate(self, path):
        """Where the value at `path` stands, as (file relative to the folder, line from 1).

        Argument: `path`, a tuple of keys and indexes into the document. Where the file holds no such value, as one
        that is missing or is given by a default, the line is that of the nearest value above it. A path outside of
        every file gives (None, None). The one file is read again for it.
        """
        if path and path[0] in ("actions", "custom_types") and self.sdl is not None:
            return self._locate_action(tuple(path))
        if not self._places:
            self._places = {mount.path: mount.file for mount in self.mounts}
        for length in range(len(path), -1, -1):
            file = self._places.get(tuple(path[:length]))
            if file is not None:
                return file, self.line(file, path[length:])
        return None, None

    def line(self, file, inner):
        """The line, from 1, of the value at `inner`, a path into one of the tree's files."""
        if file not in self._nodes:
            self._nodes[file] = self._read_again(file)
        return self._nodes[file](inner)

    def _read_again(self, file):
        """A function that finds the lines of one file."""
        if file.endswith(".json"):
            from nself_core.hasura.json_lines import read_lines

            return read_lines(self.files[file])
        node = YamlReader().compose(self.files[file], file) if file.endswith(".yaml") else None
        return lambda inner: find_line(node, inner) if node is not None else 1

    def _locate_action(self, path):
        """The place of something in the actions or the custom types, which stand in two files."""
        assert self.sdl is not None
        depth = 2 if path[0] == "actions" else 3
        owner = value_at(self.document, path[:depth]) if len(path) >= depth else None
        name = owner.get("name") if isinstance(owner, dict) else None
        if name is None:
            file = ACTIONS if ACTIONS in self.files else GRAPHQL
            return file, self.line(file, path[:depth])
        rest = path[depth:]
        if path[0] == "actions":
            in_graphql = rest[:1] == ("definition",) and rest[1:2] and rest[1] in action_files.IN_GRAPHQL
            parts = rest[2:] if rest[1:2] == ("arguments",) else ()
        else:
            in_graphql = rest[:1] in (("fields",), ("values",))
            parts = rest[1:]
        listed = self._listed_at(path[: depth - 1], name)
        if listed is not None and not in_graphql:
            return ACTIONS, self.line(ACTIONS, (*path[: depth - 1], listed, *rest))
        lines = self.sdl.lines["actions" if path[0] == "actions" else "types"]
        part = value_at(owner, rest[: len(rest) - len(parts) + 1]) if parts else None
        inner = part.get("name", part.get("value")) if isinstance(part, dict) else None
        return GRAPHQL, lines.get((name, inner), lines.get((name,), 1))

    def _listed_at(self, path, name):
        """The index of the entry called `name` in a list of actions.yaml; None where there is none."""
        entries = value_at(self.raw.get(ACTIONS), path) or ()
        found = (number for number, entry in enumerate(entries) if isinstance(entry, dict) and entry["name"] == name)
        return next(found, None)

    @property
    def orphans(self):
        """The YAML files below `databases/` that nothing includes, relative to the folder and sorted."""
        found = []
        root = os.path.join(self.folder, "databases")
        for folder, _, names in os.walk(root) if self.kind == V3 else ():
            for name in names:
                file = os.path.relpath(os.path.join(folder, name), self.folder).replace(os.sep, "/")
                if name.endswith((".yaml", ".yml")) and file not in self.files:
                    found.append(file)
        return sorted(found)


def value_at(value, path):
    """The value at a path, None where there is none."""
    for step in path:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            return None
    return value


def read_tree(path, version=None):
    """The Tree of a metadata directory, or of a single file.

    Arguments: `path`, the directory, or the file (JSON by its name's end, else YAML); `version`, the version in
    Hasura's config.yaml where it is known, which decides where a directory could be of both kinds. Raises FileFailure,
    with file and line, for what cannot be read as metadata, and Unreachable where PyYAML is wanted and not installed.
    """
    if os.path.isfile(path):
        folder, name = os.path.split(path)
        return _read_single(folder, name)
    if not os.path.isdir(path):
        raise FileFailure(f"there is no metadata tree in {path}", "nself-db hasura metadata export makes one")
    return _read_uncollected(_Directory(path, kind_there(path, version) or V3))


def _read_uncollected(directory):
    """Read a directory without the garbage collector, which would walk through all that was read again and again."""
    import gc

    was_on = gc.isenabled()
    gc.disable()
    try:
        return directory.read()
    finally:
        if was_on:
            gc.enable()


def kind_there(folder, version):
    """What a directory is by its files' names and the `version` of config.yaml: V3, V2, or None where neither says."""
    is_v3 = os.path.isfile(os.path.join(folder, DATABASES))
    is_v2 = any(os.path.isfile(os.path.join(folder, section.file)) for section in FLAT)
    if is_v3 and not (is_v2 and version == 2):
        return V3
    return V2 if is_v2 or version == 2 else None


# Single files.


def _read_single(folder, name):
    is_json = name.endswith(".json")
    tree = Tree(folder, JSON if is_json else YAML)
    path = os.path.join(folder, name)
    text = tree.files[name] = read_text(path)
    if is_json:
        from nself_core.hasura.json_lines import read_json

        document = read_json(text, path)
    else:
        document = YamlReader().value(text, path)
    if document is None:  # a file that was cut off; to apply it would take everything out of the engine
        raise FileFailure("nothing stands in it", file=path, line=1)
    if not isinstance(document, dict):
        raise FileFailure("this is no metadata: a mapping is expected", file=path, line=1)
    tree.document = tree.raw[name] = document
    tree.mounts.append(Mount((), name))
    return tree


# Directories.


class _Directory:
    """One directory that is being read into a Tree."""

    def __init__(self, folder, kind):
        self._tree = Tree(folder, kind)
        self._folder = folder
        self._root = os.path.realpath(folder)
        self._real_folders: dict = {}
        self._included: set = set()
        self._yaml = YamlReader()

    def read(self):
        """The Tree."""
        tree = self._tree
        found = self._read_version()
        if tree.kind == V3:
            self._add(found, self._read_sources())
        for section in (*(FLAT if tree.kind == V2 else ()), *PLAIN):
            self._add(found, self._read_section(section))
        self._add(found, self._read_actions())
        if not tree.files:
            raise FileFailure(
                f"there is no metadata tree in {self._folder}", "nself-db hasura metadata export makes one"
            )
        if tree.kind == V2:
            found["version"] = 2
        tree.document = in_server_order(found)
        return tree

    def _add(self, found, more):
        """Put more keys into the document; one key must not come from two files."""
        for key, value in more.items():
            if key in found:
                first = next(mount.file for mount in self._tree.mounts if mount.path in ((key,), ()))
                raise FileFailure(f"{key} stands in {first} too", file=self._shown(self._tree.mounts[-1].file))
            found[key] = value

    def _shown(self, file):
        return os.path.join(self._folder, *file.split("/"))

    def _read_version(self):
        """What version.yaml holds; keys that belong to no other file stand there, too."""
        value = self._load_root(VERSION, dict)
        self._mount((), VERSION, value)
        return {"version": 3, **(value or {})}

    def _read_section(self, section):
        value = self._load_root(section.file, section.root)
        self._mount((section.key,), section.file, value)
        if is_empty(section, value) and not (section.key == "tables" and value is not None):
            return {}
        return {section.key: value}

    def _read_actions(self):
        from nself_core.hasura.sdl import read_sdl

        listed = self._load_root(ACTIONS, dict)
        if self._is_there(GRAPHQL):
            text = self._read(GRAPHQL)
            self._tree.sdl = read_sdl(text, self._shown(GRAPHQL))
            self._mount(("actions",), GRAPHQL, text)
        if listed is None and self._tree.sdl is None:
            return {}
        self._mount(("actions",), ACTIONS, listed)
        self._mount(("custom_types",), ACTIONS, listed)
        return action_files.join(listed or {}, self._tree.sdl or read_sdl("", GRAPHQL), self._place_of_action)

    def _place_of_action(self, inner):
        if inner is None:
            return {"file": self._shown(GRAPHQL)}
        return {"file": self._shown(ACTIONS), "line": self._tree.line(ACTIONS, inner)}

    def _mount(self, path, file, value):
        if value is not None:
            self._tree.mounts.append(Mount(path, file))

    def _read_sources(self):
        sources = self._load_root(DATABASES, list)
        if self._tree.raw.get(DATABASES) is None and self._tree.orphans:
            raise FileFailure(
                "no source stands in it, and there are files of some beside it",
                "bring it back from git; where no source is wanted, write [] into it",
                file=self._shown(DATABASES),
            )
        if sources is None:
            return {}
        self._mount(("sources",), DATABASES, sources)
        return {"sources": [self._read_source(source, number) for number, source in enumerate(sources)]}

    def _read_source(self, source, number):
        if not isinstance(source, dict):
            raise self._failure("this is not a list of sources", DATABASES, (number,))
        made = dict(source)
        for key in ("tables", "functions"):
            if key in made:
                spot = _Spot(("sources", number, key), DATABASES, (number, key), (DATABASES,))
                made[key] = self._resolve(made[key], spot)
        return made

    # Includes.

    def _resolve(self, value, spot):
        """`value` with its includes replaced, at any depth; what holds none is not copied."""
        if isinstance(value, str):
            return self._include(value, spot) if value.startswith(f"{INCLUDE} ") else value
        if INCLUDE not in self._tree.files[spot.file]:
            return value
        if isinstance(value, list):
            return [self._resolve(item, spot.at(number)) for number, item in enumerate(value)]
        if isinstance(value, dict):
            return {key: self._resolve(item, spot.at(key)) for key, item in value.items()}
        return value

    def _include(self, text, spot):
        """What the include `text` stands for, whose file is found from the folder of the including one."""
        name = text[len(INCLUDE) + 1 :].strip('"')
        base = spot.file.rpartition("/")[0]
        file = self._included_file(base, name, spot)
        if file in spot.chain or len(spot.chain) > DEEPEST_INCLUDE:
            raise self._failure(f"the include of {name} leads round in a circle", spot.file, spot.inner)
        self._tree.mounts.append(Mount(spot.path, file))
        if len(self._tree.mounts) > MOST_INCLUDES:
            raise self._failure(f"more than {MOST_INCLUDES} includes", spot.file, spot.inner)
        if not file.endswith(".yaml"):  # as upstream does
            return self._read(file)
        value = self._resolve(self._load(file), _Spot(spot.path, file, (), (*spot.chain, file)))
        if file in self._included:  # each place has a value of its own
            return _copied(value)
        self._included.add(file)
        return value

    def _included_file(self, base, name, spot):
        """The included file's path relative to the folder. It must be a file in it, also behind links."""
        for spelling in (name, name.strip().strip('"')):
            file = os.path.normpath(f"{base}/{spelling}").replace(os.sep, "/")
            if spelling.startswith("/") or file.startswith("../"):
                raise self._failure(f"the include of {name} leads out of {self._folder}", spot.file, spot.inner)
            if file in self._tree.files:
                return file
            try:
                found = os.lstat(self._shown(file))
            except (OSError, ValueError):
                continue
            self._check_inside(file, stat.S_ISLNK(found.st_mode), spot)
            if stat.S_ISREG(found.st_mode) or os.path.isfile(self._shown(file)):
                return file
        raise self._failure(f"the include of {name} leads to no file", spot.file, spot.inner)

    def _check_inside(self, file, is_link, spot):
        path = self._shown(file)
        folder = os.path.dirname(path)
        if folder not in self._real_folders:
            self._real_folders[folder] = os.path.realpath(folder)
        real = os.path.realpath(path) if is_link else os.path.join(self._real_folders[folder], os.path.basename(path))
        if not real.startswith(self._root + os.sep):
            raise self._failure(f"the include of {file} leads out of {self._folder}", spot.file, spot.inner)

    # Files.

    def _failure(self, what, file, inner):
        return FileFailure(what, file=self._shown(file), line=self._tree.line(file, inner))

    def _is_there(self, file):
        """Whether there is a file of a section. Raises FileFailure where it is a link that leads out of the folder."""
        path = self._shown(file)
        if os.path.islink(path) and not os.path.realpath(path).startswith(self._root + os.sep):
            raise FileFailure(f"this link leads out of {self._folder}", file=path)
        return os.path.lexists(path)

    def _load_root(self, file, root):
        """The value of a section's file, which must be a `root`; None where there is no such file or nothing in it."""
        if not self._is_there(file):
            return None
        value = self._load(file)
        if value is not None and not isinstance(value, root):
            wanted = "a list" if root is list else "a mapping"
            raise FileFailure(f"this is not {wanted}", file=self._shown(file), line=1)
        return root() if value is None else value

    def _load(self, file):
        """The value of a YAML file, read once."""
        if file not in self._tree.raw:
            self._tree.raw[file] = self._yaml.value(self._read(file), self._shown(file))
        return self._tree.raw[file]

    def _read(self, file):
        if file not in self._tree.files:
            self._tree.files[file] = read_text(self._shown(file))
        return self._tree.files[file]


def _copied(value):
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


class _Spot(namedtuple("_Spot", "path file inner chain")):
    """Where a value stands: its `path` in the document, its `file` and the path in that, the files that led here."""

    __slots__ = ()

    def at(self, step):
        """The spot of an item or a key's value."""
        return self._replace(path=(*self.path, step), inner=(*self.inner, step))


def read_text(path):
    """The text of a file, without a byte order mark. Raises FileFailure, with the line, for what is not UTF-8."""
    try:
        # A pipe that nobody writes to would otherwise keep us waiting before it can be seen what it is.
        with open(path, "rb", opener=_open_at_once) as file:
            is_file = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            data = file.read() if is_file else b""
    except OSError as error:
        raise FileFailure(f"this cannot be read: {error.strerror}", file=path) from None
    if not is_file:
        raise FileFailure("this is no regular file", file=path)
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise FileFailure("this is UTF-16, and metadata is UTF-8", file=path) from None
        line = data.count(b"\n", 0, error.start) + 1
        raise FileFailure("this is not UTF-8", file=path, line=line) from None


def _open_at_once(path, flags):
    return os.open(path, flags | os.O_NONBLOCK)
