"""Every file of upstream's recorded cases is read by some test, or listed here with the reason why none reads it."""

from __future__ import annotations

from fnmatch import fnmatchcase

import test_hasura_diff  # noqa: F401 - each says which files its tests read
import test_hasura_export  # noqa: F401
import test_hasura_inconsistency  # noqa: F401
import test_hasura_sdl  # noqa: F401
import test_hasura_tree  # noqa: F401
import test_hasura_yaml_style  # noqa: F401
from bed.gaps import wants_shared
from bed.hasura_material import GOLDEN, READ_BY, recorded
from test_hasura_double import NOT_REPLAYED, stem

# Patterns of paths, each with the reason why no test reads such a file.
UNREAD = {
    "MANIFEST.md": "it is the list of the cases, not one of them",
    "cmd-project-v1/migrations/*/*.yaml":
        "migrations as requests to the engine, of config v1, which Hasura's own CLI has not run since its version 2;"
        " migrations of nself-db are SQL files",
}  # fmt: skip


def reason_of(file):
    """Why no test reads a recorded file, None where nothing says so."""
    if file.startswith("server-v1-") and stem(file) in NOT_REPLAYED:
        return NOT_REPLAYED[stem(file)]
    return next((reason for pattern, reason in UNREAD.items() if fnmatchcase(file, pattern)), None)


@wants_shared(GOLDEN.name)
def test_every_recorded_file_is_read_by_a_test_or_says_why_not():
    assert [file for file in recorded("**/*") if file not in READ_BY and not reason_of(file)] == []


@wants_shared(GOLDEN.name)
def test_every_reason_is_of_a_file_that_no_test_reads():
    unread = [file for file in recorded("**/*") if file not in READ_BY]
    assert [pattern for pattern in UNREAD if not any(fnmatchcase(file, pattern) for file in unread)] == []
    assert [name for name in NOT_REPLAYED if name not in map(stem, recorded("server-v1-*/**/*"))] == []


@wants_shared(GOLDEN.name)
def test_every_file_that_a_test_says_it_reads_is_there():
    assert sorted(READ_BY.keys() - recorded("**/*")) == []
