"""Upstream's recorded cases of Hasura metadata, where they stand beside the checkout, and which test reads which."""

from __future__ import annotations

import json

from bed.gaps import SHARED, wants_shared

GOLDEN = SHARED / "hasura-golden"
REAL = SHARED / "hasura-real"
REAL_NAMES = ("aerie", "bdjuno", "learn-graphql-services")

# The names of the tests that read a recorded file, by its path; test_hasura_material.py holds it against the folder.
READ_BY: dict = {}


def recorded(*patterns):
    """The recorded files that fit one of the patterns of paths, below GOLDEN and in order; none where they are not."""
    paths = {path for pattern in patterns for path in GOLDEN.glob(pattern) if path.is_file()}
    return sorted(path.relative_to(GOLDEN).as_posix() for path in paths)


def cases_of(files):
    """The names of the cases that recorded files are of."""
    return sorted({file.split("/")[0] for file in files})


def reads(files):
    """Say of a test that it reads these recorded files; where they are not, it is a gap."""

    def mark(test):
        for file in files:
            READ_BY.setdefault(file, set()).add(test.__name__)
        return wants_shared(GOLDEN.name)(test)

    return mark


def recorded_text(file):
    """The text of a recorded file."""
    return (GOLDEN / file).read_text(encoding="utf-8")


def recorded_json(file):
    """What a recorded JSON file holds."""
    return json.loads(recorded_text(file))


def without_nothing(document):
    """A document without sections that say nothing: the server's export leaves them out, and so does reading."""
    nothing = ([], {}, None, {"disabled_for_roles": []})
    return {key: value for key, value in document.items() if value not in nothing}


def without_null_descriptions(value):
    """Upstream's programs write a null description of each argument and field; the server's export has none."""
    if isinstance(value, list):
        return [without_null_descriptions(item) for item in value]
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if not (key == "description" and item is None)}
        return {key: without_null_descriptions(item) for key, item in kept.items()}
    return value


def write_tree(folder, files):
    """Write texts (or bytes) by their paths below `folder`, and return the folder as text."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return str(folder)
