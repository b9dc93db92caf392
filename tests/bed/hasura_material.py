"""Upstream's recorded cases of Hasura metadata, where they stand beside the checkout."""

from __future__ import annotations

import json

from bed.projects import REPOSITORY

GOLDEN = REPOSITORY.parent / "shared/data/hasura-golden"
REAL = REPOSITORY.parent / "shared/data/hasura-real"


def cases(pattern):
    """The names of the recorded cases that fit a pattern of names; none where the material is not there."""
    return sorted(path.name for path in GOLDEN.glob(pattern))


def recorded_json(case, name):
    """What a JSON file of a case holds."""
    return json.loads((GOLDEN / case / name).read_text(encoding="utf-8"))


def without_nothing(document):
    """A document without sections that say nothing: the server's export leaves them out, and so does reading."""
    nothing = ([], {}, None, {"disabled_for_roles": []})
    return {key: value for key, value in document.items() if value not in nothing}


def write_tree(folder, files):
    """Write texts (or bytes) by their paths below `folder`, and return the folder as text."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return str(folder)
