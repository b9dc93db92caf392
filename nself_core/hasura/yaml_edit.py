"""Changes single objects in the text of a YAML file: all other lines, with their comments and layout, stay as they are.

Only block collections are gone into, down to the object that changed; that is written anew in its own place. Who asks
reads the result again, for what stands in a file by hand can be stranger than what is foreseen here.
"""

from __future__ import annotations

from nself_core.hasura.diff import same
from nself_core.hasura.identity import entry_names
from nself_core.hasura.objects import below, kind_of
from nself_core.hasura.yaml_style import render_entry, render_item


def edit(text, node, spec, old, new):
    """The text with `new` in place of `old`; None where that cannot be done in place.

    Arguments: `node`, the composed root of `text`, which holds `old`; `spec`, the objects.Spec of both values.
    """
    plain = text.replace("\r\n", "\n")
    if any(char in plain for char in "\r\x85\u2028\u2029"):  # YAML 1.1 breaks lines there, too
        return None
    editor = _Editor(text)
    edits = editor.inside(node, spec, old, new)
    return None if edits is None else editor.applied(edits)


class _Editor:
    """One text that is being edited. An edit is (start, end, text), offsets of the text as it was."""

    def __init__(self, text):
        self._text = text
        self._break = "\r\n" if "\r\n" in text else "\n"
        self._starts = [0]
        for line in text.split("\n"):
            self._starts.append(self._starts[-1] + len(line) + 1)
        self._starts[-1] = len(text)

    def applied(self, edits):
        """The text with the edits made; None where they overlap."""
        parts, position = [], 0
        for start, end, text in sorted(edits, key=lambda one: one[:2]):
            if start < position:
                return None
            parts += [self._text[position:start], text]
            position = end
        return "".join([*parts, self._text[position:]])

    def inside(self, node, spec, old, new):
        """The edits that make a node's value `new`; None where the node must be written anew as a whole."""
        if same(old, new):
            return []
        if not old or not new or type(old) is not type(new) or getattr(node, "flow_style", True):
            return None
        if isinstance(old, dict):
            return self._in_mapping(node, spec, old, new)
        return self._in_sequence(node, spec, old, new) if isinstance(old, list) else None

    def _in_mapping(self, node, spec, old, new):
        nodes = {key.value: (key, value) for key, value in node.value}
        if [*nodes] != [*old]:  # merges, for one
            return None
        column = node.value[0][0].start_mark.column
        entries = [
            _Entry(name, self._offset(key.start_mark), self._end(value, column), value)
            for name, (key, value) in nodes.items()
        ]
        kept = [name for name in old if name in new]

        def inner(entry):
            return self.inside(entry.node, below(spec, new, entry.name), old[entry.name], new[entry.name])

        def written(name):
            return render_entry(name, new[name], column)

        return self._in_entries(entries, [*new], kept, inner, written)

    def _in_sequence(self, node, spec, old, new):
        kind = kind_of(spec, new)
        if len(node.value) != len(old) or kind is None:
            return None
        is_named = kind.form == "set" or bool(kind.key)
        if not is_named and len(old) != len(new):
            return None
        names = entry_names(kind, old), entry_names(kind, new)
        values = dict(zip(names[0], old)), dict(zip(names[1], new))
        column = node.start_mark.column
        entries = []
        line = node.start_mark.line
        for name, item in zip(names[0], node.value):
            dash = self._dash(line, item, column)
            if dash is None:
                return None
            entries.append(_Entry(name, dash, self._end(item, column), item))
            line = self._last_line(item) + 1

        item_spec = below(spec, new, 0)

        def inner(entry):
            return self.inside(entry.node, item_spec, values[0][entry.name], values[1][entry.name])

        def written(name):
            return render_item(values[1][name], column)

        return self._in_entries(entries, names[1], [name for name in names[0] if name in values[1]], inner, written)

    def _in_entries(self, entries, names, kept, inner, written):
        """The edits of a collection whose entries are to be `names`, in that order; None where they were in another."""
        stays = set(kept)
        if not kept or [name for name in names if name in stays] != kept:
            return None
        edits = []
        for entry in entries:
            if entry.name not in stays:
                if not self._is_first(entry.start):
                    return None
                edits.append((self._line_start(entry.start), entry.end, ""))
                continue
            inside = inner(entry)
            if inside is None:
                text = self._broken(written(entry.name).lstrip(" "))
                inside = [(entry.start, entry.end, text if self._has_break(entry.end) else text.rstrip("\r\n"))]
            edits += inside
        return self._with_new(entries, names, stays, written, edits)

    def _with_new(self, entries, names, stays, written, edits):
        ends = {entry.name: entry.end for entry in entries}
        at = None
        for name in names:
            if name in stays:
                at = ends[name]
                continue
            start = self._line_start(entries[0].start) if at is None else at
            if at is None and not self._is_first(entries[0].start):
                return None
            text = self._broken(written(name))
            edits.append((start, start, text if self._has_break(start) else self._break + text.rstrip("\r\n")))
        return edits

    # Places.

    def _offset(self, mark):
        return self._starts[mark.line] + mark.column

    def _line_start(self, offset):
        return self._text.rfind("\n", 0, offset) + 1

    def _is_first(self, offset):
        """Whether nothing but blanks stands before `offset` on its line."""
        return not self._text[self._line_start(offset) : offset].strip(" ")

    def _has_break(self, end):
        """Whether the line that ends at `end` ends with a line break: the last of a file may not."""
        return end == 0 or self._text[end - 1 : end] == "\n"

    def _broken(self, text):
        return text.replace("\n", self._break)

    def _dash(self, line, item, column):
        """The offset of an item's dash, which stands in `column` between `line` and the item's own."""
        for number in range(item.start_mark.line, line - 1, -1):
            offset = self._starts[number] + column
            if self._text[offset : offset + 1] == "-" and (number == line or self._is_first(offset)):
                return offset
        return None

    def _end(self, node, column):
        """The offset behind the last line of an entry in `column`; comments that stand further right are its own."""
        line = self._last_line(node) + 1
        while line < len(self._starts) - 1:
            text = self._line(line)
            if not text.lstrip(" ").startswith("#") or text.index("#") <= column:
                break
            line += 1
        return self._starts[min(line, len(self._starts) - 1)]

    def _last_line(self, node):
        """The number, from 0, of the last line on which something of a node stands."""
        if isinstance(node.value, list) and node.value and not node.flow_style:
            last = node.value[-1]
            return self._last_line(last[1] if isinstance(last, tuple) else last)
        line = node.end_mark.line
        if getattr(node, "style", None) in ("|", ">"):
            line = min(line, len(self._starts) - 2)
            while line > node.start_mark.line and (
                (line == node.end_mark.line and node.end_mark.column == 0) or not self._line(line).strip()
            ):
                line -= 1
        return line

    def _line(self, number):
        return self._text[self._starts[number] : self._starts[number + 1]]


class _Entry:
    """An item or an entry in the text: its name, the offset at which it starts, that behind its last line, its node."""

    __slots__ = ("end", "name", "node", "start")

    def __init__(self, name, start, end, node):
        self.name = name
        self.start = start
        self.end = end
        self.node = node
