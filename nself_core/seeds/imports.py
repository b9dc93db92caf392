"""What a seed program imports from files beside it: they are part of what ran, and so of its checksum.

Found by looking at the text, not by running it: every quoted relative path behind `from`, `import`, `require`, `URL` or
`resolve`, also one in a comment, which does no harm. A path that the program computes is not seen, nor is a package.
"""

from __future__ import annotations

import os
import re

from nself_core.sql.source import checksum, checksum_of_data, checksum_of_file, read_bytes

IMPORT = re.compile(r"""\b(?:from|import|require|URL|resolve)\s*\(?\s*(["'`])(\.{1,2}(?:/(?:(?!\1)[^\n])*)?)\1""")
CODE = (".ts", ".mts", ".cts", ".tsx", ".js", ".mjs", ".cjs", ".jsx")
# What runtimes try behind a path without an ending, and the file a .js stands for before it is compiled.
ENDINGS = (".ts", ".mts", ".tsx", ".js", ".mjs", ".cjs", ".json")
COMPILED = {".js": (".ts", ".tsx"), ".mjs": (".mts",), ".cjs": (".cts",), ".jsx": (".tsx",)}


def checksum_with_imports(path, text):
    """The checksum of a program that is `text` in the file `path`, over what it imports, too.

    One that imports no file has that of its text alone. Raises FileFailure for an import that cannot be read.
    """
    own = checksum(text)
    path = os.path.realpath(path)  # as the runtimes do
    folder = os.path.dirname(path)
    lines = [f"{os.path.relpath(one, folder)} {sum_}" for one, sum_ in sorted(_imported(path, text).items())]
    return checksum("\n".join([own, *lines])) if lines else own


def _imported(path, text):
    """The checksums of all files that a program imports, and that those import, by path."""
    found: dict = {}
    waiting = [(path, text)]
    while waiting:
        path, text = waiting.pop()
        for one in _paths(os.path.dirname(path), text):
            if one in found or one == path:
                continue
            if one.endswith(CODE):
                found[one] = checksum_of_file(one, one)
                waiting.append((one, read_bytes(one, one).decode("utf-8", "replace")))
            else:
                found[one] = checksum_of_data(one, one)
    return found


def _paths(folder, text):
    """The files that a text's imports mean; what is not there is left to the runtime to tell."""
    for _, said in IMPORT.findall(text):
        path = next(filter(os.path.isfile, _candidates(os.path.join(folder, said))), None)
        if path is not None:
            yield os.path.realpath(path)


def _candidates(path):
    from urllib.parse import unquote

    # An import is an address: it may have a query, and a blank as %20.
    for one in dict.fromkeys((path, unquote(re.split("[?#]", path)[0]))):
        yield one
        stem, ending = os.path.splitext(one)
        yield from (stem + other for other in COMPILED.get(ending, ()))
        yield from (one + other for other in ENDINGS)
        yield from (os.path.join(one, f"index{other}") for other in ENDINGS)
