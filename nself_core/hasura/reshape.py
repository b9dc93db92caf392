"""What a new document says, in the shape that the files of a tree have: pure.

What means the same as before stays as it is written, with its includes; a list that is a set keeps its order; what is
new goes behind what it stands behind in the new document.
"""

from __future__ import annotations

from nself_core.failures import FileFailure
from nself_core.hasura.diff import differences, same
from nself_core.hasura.identity import entry_names
from nself_core.hasura.layout import Names, include, member_name
from nself_core.hasura.objects import below, kind_of
from nself_core.hasura.tree import read_text
from nself_core.hasura.yaml_values import INCLUDE, YamlReader


def means_same(spec, one, other):
    """Whether two values of an objects.Spec mean the same."""
    return one is other or next(differences(spec, one, other), None) is None


def is_exact(_spec, one, other):
    """Whether two values are the same but for the order of keys, as `means_same` is asked."""
    return same(one, other)


def in_order(old, new):
    """The names that are in `new`, those of `old` first in their order, each new one behind the one before it."""
    wanted = set(new)
    ordered = [name for name in old if name in wanted]
    known = set(ordered)
    before = None
    for name in new:
        if name not in known:
            ordered.insert(0 if before is None else ordered.index(before) + 1, name)
        before = name
    return ordered


def like(written, new):
    """`new` with its keys in the order in which `written` has them, at every depth."""
    if not isinstance(written, dict) or not isinstance(new, dict):
        return new
    return {key: like(written.get(key), new[key]) for key in in_order([*written], [*new])}


class Reshape:
    """New values in the shape of one tree.

    Attributes: `values`, the new value of each YAML file that is reached through an include, with includes as texts;
    `texts`, that of other included files. Argument: `exact`, whether also what means the same becomes as it is in the
    new document: a list that is a set in its order, a default that was written or left out.
    """

    def __init__(self, tree, exact=False):
        self._exact = exact
        self._is_same = is_exact if exact else means_same
        self.values: dict = {}
        self.texts: dict = {}
        self._tree = tree
        self._left = set(tree.orphans)
        self._names = Names((*tree.files, *self._left))
        self._uses: dict = {}
        for mount in tree.mounts:
            self._uses[mount.file] = self._uses.get(mount.file, 0) + 1

    def value(self, spec, written, old, new, file=None):
        """`new` in the shape of `written`.

        Arguments: `spec`, of both values; `written`, as it stands in its file; `old`, that with its includes replaced;
        `file`, its file where includes are followed.
        """
        if self._is_same(spec, old, new):
            return written
        target = self._target(written, file)
        if target is not None:
            return self._included(target, written, new, lambda inner: self.value(spec, inner, old, new, target))
        if isinstance(written, dict) and isinstance(new, dict):
            return self._mapping(spec, written, old, new, file)
        if isinstance(written, list) and isinstance(new, list):
            return self._list(spec, written, old, new, file)
        return new

    def _target(self, written, file):
        """The file that an include means, None for what is none."""
        if file is None or not isinstance(written, str) or not written.startswith(f"{INCLUDE} "):
            return None
        return included_file(self._tree.files, written, file)

    def _included(self, target, written, new, reshaped):
        """What stands in place of an include whose file is to say `new`: the include, or where it cannot, `new`.

        A file that is included more than once stays as it is: the others still mean what it says.
        """
        if self._uses[target] > 1:
            return new
        if target.endswith(".yaml"):
            self.values[target] = reshaped(self._tree.raw[target])
        elif isinstance(new, str):
            self.texts[target] = new
        else:
            return new
        return written

    def _mapping(self, spec, written, old, new, file):
        gone = [] if self._exact else [key for key in old if key not in new]
        silent = [key for key in gone if means_same(spec, {**new, key: old[key]}, new)]
        made = {}
        for key in in_order([*old], [*new, *silent]):
            if key not in new:
                made[key] = written[key]
            elif key in old:
                made[key] = self.value(below(spec, new, key), written[key], old[key], new[key], file)
            else:
                made[key] = new[key]
        return made

    def _list(self, spec, written, old, new, file):
        kind = kind_of(spec, new)
        is_named = kind is not None and (kind.form == "set" or bool(kind.key))
        if kind is None or (not is_named and len(old) != len(new)):
            return new
        return self._items(kind, below(spec, new, 0), (written, old, new), file, lambda item: item)

    def _items(self, kind, spec, lists, file, place):
        """A list's items. Arguments: `lists`, (written, old, new); `place(item)`, what stands for a new item."""
        written, old, new = lists
        before = {name: index for index, name in enumerate(entry_names(kind, old))}
        after = dict(zip(entry_names(kind, new), new))
        names = in_order([*before], [*after]) if kind.form == "set" and not self._exact else [*after]
        made = []
        for name in names:
            index = before.get(name)
            if index is None:
                made.append(place(after[name]))
            else:
                made.append(self.value(spec, written[index], old[index], after[name], file))
        return made

    # Tables and functions, which have files of their own.

    def members(self, key, spec, written, old, new, file):
        """The tables or functions `new` of a source in the shape of `written`.

        Arguments as `value` takes them; `key`, "tables" or "functions". A new one gets a file where the others have
        one, or where there are none yet.
        """
        if self._is_same(spec, old, new):
            return written
        target = self._target(written, file)
        if target is not None:
            return self._included(target, written, new, lambda inner: self.members(key, spec, inner, old, new, target))
        kind = kind_of(spec, new)
        if not isinstance(written, list) or not isinstance(new, list) or kind is None:
            return new
        own_file = self._tree.raw.get(file) is written
        by_file = any(isinstance(item, str) and item.startswith(INCLUDE) for item in written) or (
            own_file and not written
        )

        def place(item):
            return include(self.add_member(key, item, file), file) if by_file else item

        return self._items(kind, below(spec, new, 0), (written, old, new), file, place)

    def add_member(self, key, item, list_file):
        """The path of a new file for a table or function, beside the file of its list.

        A file that nothing includes is written over where it holds the same table, as one is that was left behind.
        """
        folder = list_file.rpartition("/")[0]
        file = self._names.take(folder, member_name(item, key), ".yaml", lambda file: self._is_left(file, key, item))
        self._left.discard(file)
        self.values[file] = item
        return file

    def _is_left(self, file, key, item):
        """Whether a file was left behind by the same table or function."""
        if file not in self._left:
            return False
        path = f"{self._tree.folder}/{file}"
        try:
            value = YamlReader().value(read_text(path), path)
        except FileFailure:
            return False
        return isinstance(value, dict) and key[:-1] in value and member_name(value, key) == member_name(item, key)

    def add_list(self, key, items, folder):
        """The path of a new file that lists a source's tables or functions, each in a file of its own beside it."""
        file = self._names.take(f"{folder}/{key}", key, ".yaml", self._left.__contains__)
        self._left.discard(file)
        self.values[file] = [include(self.add_member(key, item, file), file) for item in items]
        return file

    def add_files(self, files):
        """New files whose values are known: a dict of path -> value."""
        self.values.update(files)

    def free_folder(self, name):
        """A folder for a new source."""
        files = (*self._tree.files, *self._tree.orphans, *self.values)
        return Names("/".join(file.split("/")[:2]) for file in files).take("databases", name, "")


def included_file(known, written, file):
    """The path of the file that an include in `file` means, None for one that is not among the `known` files."""
    from posixpath import dirname, normpath

    name = written[len(INCLUDE) + 1 :].strip('"')
    for spelling in (name, name.strip().strip('"')):
        path = normpath(f"{dirname(file)}/{spelling}")
        if path in known:
            return path
    return None


def included_files(value, file, known):
    """The paths of all `known` files that the includes in a value mean; `file` is the one in which it stands."""
    found = []
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, (list, dict)):
            waiting += value.values() if isinstance(value, dict) else value
        elif isinstance(value, str) and value.startswith(f"{INCLUDE} "):
            found.append(included_file(known, value, file))
    return [path for path in found if path is not None]
