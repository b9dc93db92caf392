"""Which row of a JSON seed the server refuses: it takes a batch of them and names none.

So what failed is done once more, row by row, in a transaction that is rolled back.
"""

from __future__ import annotations

from nself_core.failures import Failure
from nself_core.postgres.session import ConnectionLost, StatementFailed, Unit
from nself_core.seeds.scripts import row_by_row


def find_line(database, work, failed):
    """The line of the row for which a batch was refused; None where it cannot be told from one row.

    Arguments: `work`, the Work that failed; `failed`, its StatementFailed, which has ended the session.
    """
    statements = row_by_row(work, failed.index)
    try:
        for _ in database.session().perform([Unit(work, ("BEGIN",), statements, ("ROLLBACK",))]):
            pass
    except StatementFailed as again:
        is_same = isinstance(again.index, int) and again.error.sqlstate == failed.error.sqlstate
        return statements[again.index].line if is_same and again.index >= failed.index else None
    except (ConnectionLost, Failure):
        pass  # the failure that is to be told is the first one
    return None
