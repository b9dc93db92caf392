"""Which databases restores have set aside, or begun and never finished: asked where a server answers.

They take as much room as the database itself, and nothing but a list shows them. A list of backups is wanted without a
server, too: so nobody is waited for here for long, and nothing is started.
"""

from __future__ import annotations

from collections import namedtuple

from nself_core.backups import swap
from nself_core.failures import Failure

PATIENCE_SECONDS = 3  # for a server to answer
# Settings that say that there should be a server.
PLACES = ("NSELF_DB_URL", "NSELF_DB_ENGINE", "NSELF_DB_CONTAINER", "POSTGRES_DB", "POSTGRES_PASSWORD")

Aside = namedtuple("Aside", "database kind seconds size_bytes")
Aside.__doc__ = """A database beside the present one.

Its name, `database`; `kind`, swap.BEFORE for what a restore has set aside, swap.RESTORE for what one has begun to fill;
`seconds` since 1970, from its name, None where that is no time; `size_bytes`.
"""


def look(settings, database):
    """(the Asides of the database, the newest first, or None where nobody answers; warnings why they are not known).

    There is a warning only where the settings say that there should be a server.
    """
    try:
        if not _is_embedded_one_down(settings):
            return _read(database), []
        reason = "the embedded server does not run"
    except Failure as failure:
        reason = failure.message
    is_expected = any(settings.get(name) for name in PLACES)
    return None, [f"which databases restores have set aside is not known: {reason}"] if is_expected else []


def _is_embedded_one_down(settings):
    """Whether the way to the server would start it first."""
    if settings.get("NSELF_DB_URL") or settings.get("NSELF_DB_ENGINE") != "embedded":
        return False
    from nself_core.postgres import embedded

    return not embedded.status(settings).running


def _read(database):
    database.patience = PATIENCE_SECONDS
    name = database.name
    found = [
        Aside(row["name"], kind, swap.side_seconds(row["name"]), row["size_bytes"])
        for kind in (swap.BEFORE, swap.RESTORE)
        for row in database.rows(swap.SQL_DATABASES, prefix=swap.side_prefix(name, kind))
        if row["size_bytes"] is not None  # of one that is just being dropped
    ]
    return sorted(found, key=lambda aside: (aside.seconds or 0, aside.database), reverse=True)
