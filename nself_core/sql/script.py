"""How one migration runs: in one transaction, statement by statement without one, or as a self-test.

Everything is decided from the text, before anything is sent. A file runs in one transaction, ours, unless it says
otherwise or holds a statement that Postgres refuses there. Its own BEGIN; ... COMMIT; around the whole is taken as
ours; with ROLLBACK at the end it is a self-test. Any other transaction control would end our transaction behind
our back and is refused (issue 2, Migrations).
"""

from __future__ import annotations

import itertools
import re
from collections import namedtuple

from nself_core.failures import FileFailure
from nself_core.sql.directives import read_head, refuse_part
from nself_core.sql.lexer import split
from nself_core.sql.statements import (
    first_words,
    is_session_setting,
    may_end_transaction,
    needs_no_transaction,
    transaction_control,
)

_SET_CONFIG = re.compile(r"SELECT\s+(?:pg_catalog\s*\.\s*)?set_config\s*\(", re.IGNORECASE)

TRANSACTION = "transaction"
NO_TRANSACTION = "no_transaction"
SELF_TEST = "self_test"

_PARTED = "end the file here and put the rest into another one, or mark it -- nself:no-transaction"
_INSIDE = {
    "begin": ("{0} inside a file that runs in one transaction", "leave it out: the file runs in one as it is"),
    "commit": ("{0} would end the file's transaction before the file ends", _PARTED),
    "rollback": ("{0} would undo what the file did before it", "leave it out; a savepoint may be rolled back to"),
    "prepare": ("{0} cannot be part of a migration", "two-phase commit would leave the run's transaction behind"),
}


class Unit(namedtuple("Unit", "statements alone first begin_text")):
    """What runs and is recorded together.

    `statements`: a tuple of the lexer's Statements. `alone`: whether it may not be in a transaction, and then it
    is one statement. `first`: the place of its first statement among `Script.statements`, from 0. `begin_text`:
    the file's own BEGIN with its options, without `;`, or None.
    """

    __slots__ = ()


class Script(
    namedtuple(
        "Script",
        "file checksum mode reason lock_timeout statement_timeout begin_text statements units warnings",
    )
):
    """One migration file, ready to run.

    `file`, `checksum`: as given. `mode`: "transaction", "no_transaction" or "self_test". `reason`: why it runs
    without a transaction, a sentence, else None. `lock_timeout`, `statement_timeout`: milliseconds, 0 for none,
    None where the file does not say. `begin_text`: the file's own BEGIN around the whole, else None.
    `statements`: a tuple of what runs, the file's BEGIN, COMMIT and ROLLBACK left out. `units`: the same in a tuple
    of `Unit`s: a single one unless the mode is "no_transaction" (none where there is no statement).
    `warnings`: a tuple of sentences.
    """

    __slots__ = ()


def read_script(text, file, checksum):
    """The `Script` of an up file.

    Arguments: `text`, as `source.read_text` gives it; `file`, its name; `checksum`, of the same text. Raises
    FileFailure with file, line and column for what the lexer refuses, for transaction control that would break
    the run, for a down part in the file, for bad directives, and for a file that says it is not written yet.
    """
    return _read(text, file, checksum, "down")


def read_down_script(text, file, checksum):
    """The `Script` of a down file; as `read_script`, but it is an up part that must not be in it."""
    return _read(text, file, checksum, "up")


def read_made_script(statements, file, checksum):
    """The Script of statements that a program made, which run in one transaction.

    Arguments: `statements`, a list of Statements with their places in `file`. Raises FileFailure for transaction
    control and for what cannot be in a transaction.
    """
    for statement in statements:
        if _ends_or_begins(statement):
            raise _refuse_control(statement, file)
        refused = needs_no_transaction(statement)
        if refused:
            raise _refused(f"{refused} cannot run in a transaction", "put it into a migration", statement, file)
    body = tuple(statements)
    return Script(file, checksum, TRANSACTION, None, None, None, None, body, _one_unit(body, None), ())


def _read(text, file, checksum, other_part):
    statements = split(text, file)
    refuse_part(other_part, text, statements, file)
    head = read_head(text, statements, file)
    if head.to_be_written:
        raise FileFailure(
            "the file is still to be written",
            f"write its statements and remove line {head.to_be_written.line}",
            file=file,
            line=head.to_be_written.line,
            column=head.to_be_written.column,
        )
    _refuse_binary_data(statements, file)
    mode, reason, begin_text, units = _decided(statements, head, file)
    body = tuple(statement for unit in units for statement in unit.statements)
    warnings = tuple(_warnings(body, mode, file))
    return Script(
        file, checksum, mode, reason, head.lock_timeout, head.statement_timeout, begin_text, body, units, warnings
    )


def _refuse_binary_data(statements, file):
    """Refuses COPY … FROM stdin in binary format with data in the file: psql would read it to the file's end."""
    for statement in statements:
        if statement.copy_data is not None and any(token.keyword == "BINARY" for token in statement.tokens):
            raise _refused("binary data cannot stand in an SQL file", "use COPY's text or CSV format", statement, file)


def _warnings(body, mode, file):
    if not body:
        yield f"{file} has no statements"
    if mode == SELF_TEST:
        yield f"{file} ends in ROLLBACK: it is run, undone, and recorded as applied"


def _decided(statements, head, file):
    """(mode, reason, begin_text, units) of a file."""
    if head.no_transaction:
        reason = f"line {head.no_transaction.line} says so: -- {head.no_transaction.text}"
        return NO_TRANSACTION, reason, None, _separate(statements, file)
    controls = [statement for statement in statements if _ends_or_begins(statement)]
    whole = _whole(statements, controls)
    if whole:
        mode = SELF_TEST if whole == "rollback" else TRANSACTION
        body = tuple(statement for statement in statements if statement not in controls)
        _check_block(controls[0], body, file, mode)
        return mode, None, controls[0].text, _one_unit(body, controls[0].text)
    for statement in statements:
        refused = needs_no_transaction(statement)
        if refused and transaction_control(statement) is None:
            reason = f"line {statement.line}: {refused} cannot run in a transaction"
            return NO_TRANSACTION, reason, None, _separate(statements, file)
    if controls:
        _refuse_controls(statements, controls, file)
    return TRANSACTION, None, None, _one_unit(tuple(statements), None)


def _one_unit(body, begin_text):
    return (Unit(body, False, 0, begin_text),) if body else ()


def _ends_or_begins(statement):
    return transaction_control(statement) not in (None, "savepoint")


def _whole(statements, controls):
    """Returns "commit" or "rollback" where one BEGIN; ... COMMIT; or ROLLBACK; stands around the whole file, else None.

    Settings of the session may stand before the BEGIN: they do the same inside it.
    """
    if len(controls) != 2 or transaction_control(controls[0]) != "begin" or controls[1] is not statements[-1]:
        return None
    if not _opens(statements, controls[0]) or _chains(controls[1]):
        return None
    kind = transaction_control(controls[1])
    return kind if kind in ("commit", "rollback") else None


def _opens(statements, begin):
    return all(map(is_session_setting, statements[: statements.index(begin)]))


def _chains(statement):
    """Whether a COMMIT or ROLLBACK opens the next transaction at once (AND CHAIN)."""
    words = first_words(statement, 5)
    return words[-1:] == ("CHAIN",) and words[-2:] != ("NO", "CHAIN")


def _check_block(begin, body, file, mode):
    """Refuses a block that cannot do its work between its BEGIN and its end."""
    for statement in body:
        refused = needs_no_transaction(statement)
        if refused:
            message = f"{refused} cannot run in a transaction, and BEGIN on line {begin.line} opens one"
            raise _refused(message, "move it out of the block, or into a file of its own", statement, file)
    words = [token.keyword for token in begin.tokens]
    if mode != SELF_TEST and ("READ", "ONLY") in zip(words, words[1:]):
        raise _refused("in a READ ONLY transaction the migration cannot be recorded", "leave it out", begin, file)


def _refuse_controls(statements, controls, file):
    """Raises for the statement that is to blame: the first control that does not open the file."""
    blamed = controls[0]
    if transaction_control(blamed) == "begin" and _opens(statements, blamed):
        if len(controls) == 1:
            raise _refused("BEGIN without a COMMIT", "end the file with COMMIT, or leave both out", blamed, file)
        blamed = controls[1]
    raise _refuse_control(blamed, file)


def _refuse_control(statement, file):
    message, hint = _INSIDE[transaction_control(statement)]
    return _refused(message.format(" ".join(statement.text.split())[:60]), hint, statement, file)


def _refused(message, hint, statement, file):
    return FileFailure(message, hint, file=file, line=statement.line, column=statement.column)


class _Block:
    """A BEGIN in a file without a transaction, and what followed it."""

    def __init__(self, begin):
        self.begin = begin
        self.body = []


def _separate(statements, file):
    """The units of a file without a transaction: each BEGIN; ... COMMIT; is one, each other statement is one."""
    units, block, done = [], None, 0
    for statement in statements:
        control = transaction_control(statement)
        if block is None and control == "begin":
            block = _Block(statement)
        elif block is None:
            _check_outside(statement, control, file)
            alone = bool(needs_no_transaction(statement) or may_end_transaction(statement))
            units.append(Unit((statement,), alone, done, None))
            done += 1
        elif control == "commit" and not _chains(statement):
            _check_block(block.begin, block.body, file, NO_TRANSACTION)
            if block.body:
                units.append(Unit(tuple(block.body), False, done, block.begin.text))
            done, block = done + len(block.body), None
        elif control in (None, "savepoint"):
            block.body.append(statement)
        else:
            raise _in_block(statement, control, block, file)
    if block:
        raise _refused("BEGIN without a COMMIT", "end the block with COMMIT", block.begin, file)
    return tuple(units)


def _check_outside(statement, control, file):
    if control in ("commit", "rollback"):
        message = f"{statement.keyword} without a BEGIN before it"
        raise _refused(message, "in a file without a transaction a block is BEGIN; ... COMMIT;", statement, file)
    if control == "savepoint":
        raise _refused(f"{statement.keyword} outside a transaction", "put it between BEGIN and COMMIT", statement, file)
    if control == "prepare":
        raise _refuse_control(statement, file)


def _in_block(statement, control, block, file):
    if control == "begin":
        message = f"BEGIN inside the block that line {block.begin.line} opens"
        return _refused(message, "end the block with COMMIT first", statement, file)
    if control == "prepare":
        return _refuse_control(statement, file)
    hint = "in a file without a transaction a block ends in a plain COMMIT"
    return _refused(f"{' '.join(statement.text.split())[:60]} cannot end a block of a migration", hint, statement, file)


def prefix_hash(statements, count):
    """SHA-256 in hex over the first `count` statements, by which a half-done file knows its done part again.

    Space and comments between statements, their `;` and the kind of line end do not matter; what stands inside a
    statement, and the data of a COPY, do.
    """
    return next(itertools.islice(prefix_hashes(statements), count, None))


def prefix_hashes(statements):
    """`prefix_hash` for 0, 1, 2, … statements, one after another, in one pass over all."""
    import hashlib

    digest = hashlib.sha256()
    yield digest.hexdigest()
    for statement in statements:
        for part in (statement.text, statement.copy_data):
            written = b"" if part is None else _line_ends(part).encode("utf-8")
            digest.update(b"%d:" % len(written) + written)
        yield digest.hexdigest()


def _line_ends(text):
    return text.replace("\r\n", "\n").replace("\r", "\n")


def settings_before(statements, count):
    """A tuple of what sets the session among the first `count` statements: a resumed session needs it again.

    That is SET and RESET, and SELECT set_config(…) as pg_dump writes it.
    """
    return tuple(filter(_sets_session, statements[:count]))


def _sets_session(statement):
    return is_session_setting(statement) or _SET_CONFIG.match(statement.text) is not None
