"""What a seed says of itself in the comments at its head.

    -- +seed:env dev,staging          the environments it is for; `all` is every one, prod too
    -- +seed:depends-on users.sql     it runs after that one (repeatable, or a comma list)
    -- +seed:idempotent               a second run adds nothing
    -- +seed:destructive              it removes data: refused in prod
    -- +seed:verify SELECT ...        must be true once it has run (repeatable)
    -- +seed:tag demo                 a word of its own for --tag

`env:`, `depends:` and `verify:` are short for the first two and the last but one. TypeScript has them behind `//`. The
head ends with the first line that is neither empty nor such a comment.
"""

from __future__ import annotations

import re
from collections import namedtuple

from nself_core.environments import env_name
from nself_core.failures import FileFailure, UsageFailure

ALL = "all"
MARK = "+seed:"
# A directive's own name, by how it may be written. The last three are understood without the mark, with a colon.
NAMES = {
    "env": "env",
    "depends-on": "depends-on",
    "depends": "depends-on",
    "idempotent": "idempotent",
    "destructive": "destructive",
    "verify": "verify",
    "tag": "tag",
    "tags": "tag",
}
SHORT = ("env", "depends", "verify")
FLAGS = ("idempotent", "destructive")

Said = namedtuple("Said", "text line")
Said.__doc__ = "What one directive says: its `text`, and the `line` of the file it stands on, from 1."

Head = namedtuple("Head", "envs depends verify tags idempotent destructive")
Head.__doc__ = """What a seed's head says.

`envs`, names of environments, or `all`; None where it says none. `depends` and `verify`, Saids; `tags`, words;
`idempotent` and `destructive`, whether it says so.
"""

NOTHING = Head(None, (), (), (), False, False)


def read_head(text, comment, file):
    """The Head of a seed.

    Arguments: `text`, the file's; `comment`, what begins a comment in it ("--" or "//"); `file`, its name. Raises
    FileFailure with the line for a directive that is not known or has no value where it wants one.
    """
    found: dict = {name: [] for name in NAMES.values()}
    for number, line in enumerate(re.split("\r\n|\r|\n", text), 1):
        said = line.strip()
        if said.startswith(comment):
            _read_line(said[len(comment) :].strip(), number, found, file)
        elif said and not (number == 1 and said.startswith("#!")):
            break
    return Head(
        _environments(found["env"], file) if found["env"] else None,
        tuple(_listed(found["depends-on"])),
        tuple(found["verify"]),
        tuple(said.text for said in _listed(found["tag"])),
        bool(found["idempotent"]),
        bool(found["destructive"]),
    )


def _read_line(said, number, found, file):
    if said.startswith(MARK):
        word, *value = said[len(MARK) :].split(None, 1) or [""]
        value = "".join(value)
        name = NAMES.get(word.rstrip(":").lower())
        if name is None:
            raise FileFailure(f"{MARK}{word} is not a directive", _near(word), file=file, line=number)
    else:
        word, colon, value = said.partition(":")
        if not colon or word.strip().lower() not in SHORT:
            return
        name = NAMES[word.strip().lower()]
    value = value.strip()
    if name in FLAGS and value:
        raise FileFailure(f"{MARK}{name} takes no value", file=file, line=number)
    if name not in FLAGS and not value.strip(", "):
        raise FileFailure(f"{MARK}{name} says nothing", file=file, line=number)
    found[name].append(Said(value, number))


def _near(word):
    import difflib

    near = difflib.get_close_matches(word.lower(), NAMES, 1)
    return f"did you mean {MARK}{near[0]}?" if near else f"there are: {', '.join(sorted({*NAMES.values()}))}"


def _listed(saids):
    """Each part of the comma lists, with its line."""
    for said in saids:
        yield from (Said(part.strip(), said.line) for part in said.text.split(",") if part.strip())


def _environments(saids, file):
    """The names, aliases resolved."""
    names = []
    for said in _listed(saids):
        try:
            names.append(ALL if said.text.lower() == ALL else env_name(said.text.lower(), file))
        except UsageFailure as failure:
            raise FileFailure(failure.message, failure.hint, file=file, line=said.line) from None
    return tuple(dict.fromkeys(names))
