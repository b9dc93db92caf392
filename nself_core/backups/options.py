"""Which options of `restore` contradict each other: refused before anything is asked, for one would do nothing."""

from __future__ import annotations

from nself_core.failures import UsageFailure

# Each of these works on what is there already, and takes nothing that says what to restore, or how.
ALONE = ("--undo", "--clean")
OF_A_BACKUP = ("--file", "--remote", "--jobs", "--in-place", "--no-safety-backup")


def check_options(args):
    """Raise UsageFailure for options of `restore` that do not go together; `args`, as the command line gives them."""
    given = [name for name in (*ALONE, *OF_A_BACKUP) if getattr(args, name[2:].replace("-", "_"))]
    if given and given[0] in ALONE and len(given) > 1:
        raise UsageFailure(f"{given[0]} does not go with {' or '.join(given[1:])}", "see: nself-db restore --help")
