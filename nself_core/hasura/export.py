"""Which files of a metadata tree an export writes and removes: decided from the tree, the folder and a new document.

An object that means the same as before keeps its file, its place there, its layout and its comments. One that changed
is written anew in its own place. Files of objects that are gone are removed; files the tree does not know are left.
"""

from __future__ import annotations

import os
from collections import namedtuple

from nself_core.failures import FileFailure
from nself_core.hasura.action_edit import change
from nself_core.hasura.actions import ordered, split
from nself_core.hasura.diff import same
from nself_core.hasura.layout import (
    MEMBERS,
    SINGLE_FILE_ORDER,
    SOURCE_KEYS,
    check_form,
    include,
    is_flat,
    place_source,
    render_files,
    render_single,
    section_value,
    version_value,
)
from nself_core.hasura.objects import below, root
from nself_core.hasura.reshape import Reshape, in_order, included_file, included_files, is_exact, means_same
from nself_core.hasura.sections import ACTIONS, DATABASES, FLAT, GRAPHQL, LAST, PLAIN, VERSION, is_empty
from nself_core.hasura.tree import JSON, V2, V3, value_at
from nself_core.hasura.yaml_edit import edit
from nself_core.hasura.yaml_style import render
from nself_core.hasura.yaml_values import YamlReader

Write = namedtuple("Write", "file text before")
Write.__doc__ = """A file, by its path in the tree, that is written with `text`; `before` is its text now, None where
there is none."""
Remove = namedtuple("Remove", "file before")
Remove.__doc__ = "A file whose object is gone, and its text now."
Keep = namedtuple("Keep", "file")
Keep.__doc__ = "A file that stays as it is."


def plan_files(folder, tree, document, exact=False):
    """What an export of `document` does with the files of a metadata tree: a list of Write, Keep and Remove.

    Arguments: `folder`, the tree's; `tree`, the Tree there, None where there is none yet; `document`, the engine's;
    `exact`, whether also what means the same is written as the document has it, as a correction by lint wants. What is
    included stands in the list before what includes it, and what is removed last, so that the files are a whole tree
    after each step. Raises FileFailure where the tree's kind has no place for something, and for actions that GraphQL
    cannot hold.
    """
    if tree is None:
        return plan_anew(folder, document, None)
    if is_flat(tree.document) or tree.kind == V2:
        document = lower(document)
    elif is_flat(document):
        raise _no_place()
    check_form(document)
    return _Planned(tree, document, exact).actions()


def plan_anew(folder, document, kind):
    """What an export does where there is no tree, or one that cannot be read and is overwritten: Writes and Keeps.

    The files are those of Hasura's CLI. Argument: `kind`, V3 or V2, what the directory is and stays; None where nothing
    says so: then it is what the document is. First in the list come files that are no tree without the last one, so
    that a run that is cut off leaves nothing that looks like less metadata.
    """
    if kind == V2:
        document = {"tables": [], **lower(document), "version": 2}
    elif kind == V3 and is_flat(document):
        raise _no_place()
    elif kind == V3:
        document = {"sources": [], **document}
    files = render_files(document)
    order = sorted(files, key=_depth_first)
    return [_compared(file, files[file], _text_inside(folder, file)) for file in order]


def _no_place():
    return FileFailure("metadata of version 2 has no place in files of version 3", "export into an empty directory")


def plan_single(path, document):
    """What an export does where the metadata is to be a single file that is not there yet: a list of one Write.

    Argument: `path`, the file's, whose folder `apply_files` is given.
    """
    name = os.path.basename(path)
    return [Write(name, render_single(document, name.endswith(".json")), None)]


def _text_inside(folder, file):
    """`text_there` of a file that may be written; it must be within the folder, also behind links."""
    path = path_of(folder, file)
    if os.path.isdir(folder) and not os.path.realpath(path).startswith(os.path.realpath(folder) + os.sep):
        raise FileFailure(f"this leads out of {folder}", "remove the link", file=path)
    return text_there(folder, file)


def path_of(folder, file):
    """The path of a tree's file."""
    return os.path.join(folder, *file.split("/"))


def text_there(folder, file):
    """The present text of a tree's file, None where there is none.

    What is not UTF-8 is no failure here, for it may be overwritten: such a byte is half a character of the text. Raises
    FileFailure for what is no file, or cannot be read at all.
    """
    path = path_of(folder, file)
    return text_of(read_bytes(path)) if os.path.exists(path) else None


def text_of(data):
    """The text that bytes are, without a byte order mark; what is no UTF-8 becomes halves of characters."""
    return data.decode("utf-8", "surrogateescape").removeprefix("\ufeff")


def read_bytes(path):
    """What a file holds. Raises FileFailure."""
    if not os.path.isfile(path):
        raise FileFailure("this is no regular file", file=path)
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise FileFailure(f"this cannot be read: {error.strerror}", file=path) from None


def _compared(file, text, before):
    return Keep(file) if text == before else Write(file, text, before)


def _depth_first(file):
    """A key that puts what is included before what includes it, and behind all what makes a directory a tree."""
    folder, _, name = file.rpartition("/")
    return file in LAST, not folder, name == f"{folder.rpartition('/')[2]}.yaml", file


def lower(document):
    """A document of version 3 as one of version 2, which holds the tables and functions of source default only.

    Its other parts (configuration, native queries, …) are the engine's to keep: what it is sent of version 2 does not
    touch them. Raises FileFailure where there are other sources, which it would drop.
    """
    check_form(document)
    if "sources" not in document:
        return document
    others = [source.get("name") for source in document["sources"] if source.get("name") != "default"]
    if others:
        raise FileFailure(
            f"config v2 has no place for source {others[0]}: it holds source default only",
            "make it one of config v3: write version: 3 into config.yaml, and export into an empty directory",
        )
    default = next(iter(document["sources"]), {})
    members = {key: default.get(key) or [] for key in MEMBERS if key == "tables" or default.get(key)}
    rest = {key: value for key, value in document.items() if key not in ("version", "sources")}
    return {"version": 2, **members, **rest}


class _Planned:
    """An export over one tree."""

    def __init__(self, tree, document, exact):
        self._tree = tree
        self._new = document
        self._exact = exact
        self._is_same = is_exact if exact else means_same
        self._reshape = Reshape(tree, exact)
        self._values: dict = {}  # of YAML files, in the order of the actions
        self._texts: dict = {}
        self._all_values: dict = {}
        self._known: set = set()
        self._paths = {mount.file: mount.path for mount in reversed(tree.mounts)}

    def actions(self):
        """What is done with each file, in order."""
        tree = self._tree
        if tree.kind in (V3, V2):
            self._plan_directory()
        else:
            self._plan_single()
        self._all_values = {**tree.raw, **self._reshape.values, **self._values}
        self._known = {*self._all_values, *tree.files}
        texts = {**self._reshape.texts, **self._texts}
        for file, value in {**self._reshape.values, **self._values}.items():
            texts[file] = self._text(file, value)
        gone = sorted(set(tree.files) - set(texts) - self._referenced())
        kept = [Keep(file) for file in tree.files if file not in texts and file not in gone]
        written = [_compared(file, texts[file], self._before(file)) for file in self._included_first(texts)]
        return [*kept, *written, *(Remove(file, tree.files[file]) for file in gone)]

    def _included_first(self, files):
        """The files in an order in which each stands behind those that it includes."""
        ordered: dict = {}

        def visit(file):
            if file not in ordered and file in files:
                ordered[file] = None  # no circle: the tree had none
                for target in self._includes(file):
                    visit(target)
                ordered[file] = ordered.pop(file)

        for file in sorted(files):
            visit(file)
        return [*ordered]

    def _includes(self, file):
        """The files that a file includes after the export."""
        if file in self._reshape.texts:
            return []
        value = self._all_values.get(file)
        if file == DATABASES:
            value = [[source.get(key) for key in MEMBERS] for source in value or ()]
        return included_files(value, file, self._known)

    def _before(self, file):
        """The text of a file now; of one that the tree does not know, as it is there."""
        known = self._tree.files.get(file)
        return _text_inside(self._tree.folder, file) if known is None else known

    # Texts.

    def _text(self, file, value):
        """The text of a YAML file with a new value, edited in place where that is possible."""
        text = self._tree.files.get(file)
        old = self._tree.raw.get(file)
        if text is None or old is None:
            return render(value)
        if same(old, value):
            return text
        reader = YamlReader()
        spec = self._spec_of(file)
        edited = edit(text, reader.compose(text, file), spec, old, value)
        if edited is not None:
            try:
                if same(reader.value(edited, file), value):
                    return edited
            except FileFailure:
                pass
        return render(value)

    def _spec_of(self, file):
        """The objects.Spec of what stands in a file."""
        path = () if file == ACTIONS else self._paths.get(file, ())
        spec = root()
        for depth, step in enumerate(path):
            spec = below(spec, value_at(self._tree.document, path[:depth]), step)
        return spec

    # Single files.

    def _plan_single(self):
        (file,) = self._tree.files
        old = self._tree.document
        value = self._reshape.value(root(), old, old, ordered(self._new, SINGLE_FILE_ORDER))
        if self._tree.kind == JSON:
            self._texts[file] = self._tree.files[file] if same(old, value) else _json(value, self._tree.files[file])
        else:
            self._values[file] = value

    # Directories.

    def _plan_directory(self):
        tree = self._tree
        self._plan_version()
        if tree.kind == V3:
            self._plan_sources()
        for section in (*(FLAT if tree.kind == V2 else ()), *PLAIN):
            self._plan_section(section)
        self._plan_actions()

    def _plan_version(self):
        """version.yaml, which also holds what belongs to no other file."""
        elsewhere = self._tree.raw.get(ACTIONS) or {}
        new = {key: value for key, value in version_value(self._new).items() if key not in elsewhere}
        old = self._tree.raw.get(VERSION)
        if old is None:
            if len(new) > 1 or new["version"] != self._tree.document.get("version"):
                self._values[VERSION] = new
            return
        if new["version"] == self._tree.document.get("version"):
            new["version"] = old.get("version", new["version"])  # of config v2 it counts for nothing
        self._values[VERSION] = self._reshape.value(root(), old, old, new)

    def _plan_section(self, section):
        new = section_value(section, self._new.get(section.key))
        old = self._tree.raw.get(section.file)
        if section.file not in self._tree.files:
            if not is_empty(section, new):
                self._values[section.file] = new
            return
        if is_empty(section, old) and is_empty(section, new):
            return
        spec = below(root(), self._new, section.key)
        self._values[section.file] = new if old is None else self._reshape.value(spec, old, old, new)

    def _plan_sources(self):
        if "sources" not in self._new:
            if DATABASES in self._tree.files:
                self._values[DATABASES] = []
            return
        written = self._tree.raw.get(DATABASES) or []
        old = {source.get("name"): index for index, source in enumerate(written)}
        names = [source.get("name") for source in self._new["sources"]]
        made = []
        for name in names if self._exact else in_order([*old], names):
            source = self._new["sources"][names.index(name)]
            if name in old:
                before = self._tree.document["sources"][old[name]]
                made.append(self._source(written[old[name]], before, source))
            else:
                entry, files = place_source(source, self._reshape.free_folder(name))
                self._reshape.add_files(files)
                made.append(entry)
        self._values[DATABASES] = made

    def _source(self, written, old, new):
        """The entry of a source that was there before."""
        spec = below(below(root(), self._new, "sources"), self._new["sources"], 0)
        plain = [{key: value for key, value in one.items() if key not in MEMBERS} for one in (written, old, new)]
        made = self._reshape.value(spec, *plain)
        for key in MEMBERS:
            value = self._members(spec, key, written, old, new)
            if value is not None:
                made = {**made, key: value}
        wanted = ordered({key: value for key, value in made.items() if key not in MEMBERS}, SOURCE_KEYS)
        order = in_order([*written], [*wanted, *(key for key in MEMBERS if key in made)])
        return {key: made[key] for key in order}

    def _members(self, spec, key, written, old, new):
        """What stands under "tables" or "functions" of a source, None for nothing."""
        if not isinstance(new.get(key, []), list):  # no engine gives that, and it is not for us to read
            return new[key]
        if key not in new or (not new[key] and key not in written):
            if key not in written or (key == "functions" and old.get(key)):
                return None
            return self._reshape.members(key, below(spec, new, key), written[key], old[key], [], DATABASES)
        if key in written and isinstance(old[key], list):
            return self._reshape.members(key, below(spec, new, key), written[key], old[key], new[key], DATABASES)
        return include(self._reshape.add_list(key, new[key], self._source_folder(written, new)), DATABASES)

    def _source_folder(self, written, new):
        """The folder of a source's files: the one its other list is in, or a new one."""
        for key in MEMBERS:
            text = written.get(key)
            file = included_file(self._tree.files, text, DATABASES) if isinstance(text, str) else None
            if file is not None and file.endswith(f"/{key}/{key}.yaml"):
                return file[: -len(f"/{key}/{key}.yaml")]
        return self._reshape.free_folder(new.get("name"))

    def _plan_actions(self):
        old, new = self._tree.document, self._new
        if all(
            self._is_same(below(root(), new, key), old.get(key) or nothing, new.get(key) or nothing)
            for key, nothing in _ACTIONS.items()
        ):
            return
        is_known = ACTIONS in self._tree.files and GRAPHQL in self._tree.files
        self._values[ACTIONS], self._texts[GRAPHQL] = change(self._tree, new, self._exact) if is_known else split(new)

    # What is no longer used.

    def _referenced(self):
        """The files that are included after the export, and those of the sections."""
        tree = self._tree
        found = {section.file for section in (*PLAIN, *FLAT)} | {VERSION, DATABASES, ACTIONS, GRAPHQL}
        if tree.kind not in (V3, V2):
            return found | set(tree.files)
        waiting = [DATABASES]
        while waiting:
            for target in self._includes(waiting.pop()):
                if target not in found:
                    found.add(target)
                    waiting.append(target)
        return found


_ACTIONS: dict = {"actions": [], "custom_types": {}}


def _json(value, before):
    """A JSON text in the layout of the one before."""
    import json
    import re

    match = re.match(r"\s*\{\r?\n([ \t]+)", before)
    indent = None if match is None else match.group(1) if "\t" in match.group(1) else len(match.group(1))
    end = "\n" if before.endswith("\n") else ""
    return json.dumps(value, ensure_ascii=False, indent=indent) + end
