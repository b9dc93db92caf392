"""The unit of one file that runs in one transaction: which SQL of ours goes before and after its statements.

Pure text: a test can read, cut and feed what is made here without a server (issue 2, "A cut stream never runs half a
statement").
"""

from __future__ import annotations

import itertools

from nself_core.bookkeeping.proof import NOTICE_DEATH, RESET_SESSION
from nself_core.postgres.session import Unit
from nself_core.sql.quoting import literal
from nself_core.sql.statements import first_words


def file_unit(label, script, texts, variables=()):
    """The Unit of a file that is one transaction together with our own `texts`: all of it or nothing.

    Arguments: `label`, any value that tells units apart; `script`, its Script; `texts`, statements of ours that end the
    transaction, before its COMMIT; `variables`, SQL expressions with their names (`… AS nself_x`), computed when the
    transaction begins, which `texts` take as :'nself_x', beside :'nself_xid' (see `proof.proven`).
    """
    settings = transaction_settings(script.statements)
    columns = (
        "pg_catalog.pg_current_xact_id()::pg_catalog.text AS nself_xid",
        f"{NOTICE_DEATH} AS nself_watch",
        *variables,
    )
    opening = (
        script.begin_text or "BEGIN",
        *(statement.text for statement in settings),
        *timeouts(script, "SET LOCAL"),
        f"SELECT {', '.join(columns)}",
    )
    closing = ("SET CONSTRAINTS ALL IMMEDIATE", *RESET_SESSION, *texts, "COMMIT")
    return Unit(label, opening, script.statements[len(settings) :], closing)


def transaction_settings(statements):
    """The SET TRANSACTION statements that a transaction begins with: they must come before any query, ours too."""
    return tuple(itertools.takewhile(lambda s: first_words(s, 2) == ("SET", "TRANSACTION"), statements))


def timeouts(script, verb):
    """The statements that set what the file's head asks for; `verb` is SET or SET LOCAL."""
    texts = []
    if script.lock_timeout is not None:
        texts.append(f"{verb} lock_timeout = {literal(script.lock_timeout)}")
    if script.statement_timeout is not None:
        texts.append(f"{verb} statement_timeout = {literal(script.statement_timeout)}")
    return tuple(texts)
