"""What one statement is: pure questions about a Statement of the lexer, answered from its tokens.

Only key words outside quotes, comments and bodies count. What may not be in a transaction is what calls
PreventInTransactionBlock in the sources of PostgreSQL 13 to 18; where that depends on the database (a partitioned
table under CLUSTER or REINDEX), the statement is taken to be able to.
"""

from __future__ import annotations

import itertools
import re
from collections import namedtuple

from nself_core.sql.lexer import Token

_END = Token("end", "", -1)
_ENDS_TRANSACTION = re.compile(r"(?<![A-Za-z0-9])(?:commit|rollback|call)(?![A-Za-z0-9])", re.IGNORECASE | re.ASCII)
_NUMERIC_ESCAPE = re.compile(r"\\[0-7xuU]")
_UPPER_ASCII = re.compile("[A-Z]+")

_TRANSACTION_WORDS = {
    "BEGIN": "begin",
    "START": "begin",
    "COMMIT": "commit",
    "END": "commit",
    "ROLLBACK": "rollback",
    "ABORT": "rollback",
    "SAVEPOINT": "savepoint",
    "RELEASE": "savepoint",
}
_READING_WORDS = ("SELECT", "VALUES", "TABLE", "WITH", "EXPLAIN", "SHOW")
_REPEATABLE = ("VACUUM", "CLUSTER", "REINDEX", "DISCARD")


class CatalogueEffect(namedtuple("CatalogueEffect", "kind schema name table_schema table_name")):
    """What a statement leaves in the catalogue, so that one can look there whether it was done.

    `kind`: "create_index", "drop_index", "create_database", "drop_database", "detach_partition" (`name` is the
    partition, `table_name` its parent), "create_subscription", "drop_subscription", "create_tablespace",
    "drop_tablespace", or "repeatable": nothing to look for, but it may be run again.
    Names are as the catalogue spells them; a schema is None where the statement gives none.
    """

    __slots__ = ()

    @classmethod
    def of(cls, kind, schema=None, name=None, table_schema=None, table_name=None):
        return cls(kind, schema, name, table_schema, table_name)


def _catalogue_name(token):
    """The name as the catalogue spells it; None for what is no name, and for U&"..", which is not decoded.

    Postgres folds ASCII letters only (in UTF-8) and cuts a name at 63 bytes, between two characters.
    """
    if token.kind == "word":
        name = _UPPER_ASCII.sub(lambda match: match.group().lower(), token.text)
    elif token.kind == "quoted" and token.text[0] == '"':
        name = token.text[1:-1].replace('""', '"')
    else:
        return None
    return name.encode()[:63].decode("utf-8", "ignore")


class _Reader:
    """Reads the tokens of one statement from left to right, looking ahead as far as it must and no further."""

    def __init__(self, statement):
        self._tokens = statement.tokens
        self._ahead = []

    def peek(self, places=0):
        while len(self._ahead) <= places:
            self._ahead.append(next(self._tokens, _END))
        return self._ahead[places]

    def next(self):
        token = self.peek()
        del self._ahead[0]
        return token

    def take(self, *words):
        """Whether these key words or signs come next; if so they are read."""
        if any(self.peek(place) is _END for place in range(len(words))):
            return False
        if any((self.peek(place).keyword or self.peek(place).text) != word for place, word in enumerate(words)):
            return False
        del self._ahead[: len(words)]
        return True

    def take_any(self, *words):
        """The one of these words that comes next, read; or an empty text."""
        return next((word for word in words if self.take(word)), "")

    def name(self):
        """(schema or None, name) of a possibly qualified name; name is None where none can be read."""
        parts = [_catalogue_name(self.next())]
        while self.take("."):
            parts.append(_catalogue_name(self.next()))
        if None in parts:
            return None, None
        return (parts[-2] if len(parts) > 1 else None), parts[-1]

    def skip_to(self, *words):
        """Read up to and with these words, outside parentheses; whether they were found."""
        depth = 0
        while self.peek() is not _END:
            if not depth and self.take(*words):
                return True
            depth += {"(": 1, ")": -1}.get(self.next().text, 0)
        return False

    def options(self):
        """`(name [=] value, ...)` as a dict of lower-case names to lower-case values ("" when there is none)."""
        options, option = {}, []
        depth = 1 if self.take("(") else 0
        while depth and self.peek() is not _END:
            token = self.next()
            depth += {"(": 1, ")": -1}.get(token.text, 0)
            if depth and (depth > 1 or token.text != ","):
                option.append(token.text.lower())
                continue
            if option:
                options[option[0].strip('"')] = "".join(part for part in option[1:] if part != "=").strip("'\"")
            option = []
        return options


def _is_on(options, name, default):
    """Whether the option is switched on, as defGetBoolean reads it: alone it means true."""
    return options.get(name, "on" if default else "off") not in ("false", "off", "0")


def first_words(statement, count):
    """Return a tuple of the unquoted words, at most `count`, in capitals, with which the statement begins."""
    words = (token.keyword for token in itertools.islice(statement.tokens, count))
    return tuple(itertools.takewhile(bool, words))


def transaction_control(statement):
    """Return what the statement does to a transaction: "begin", "commit", "rollback", "savepoint", "prepare" or None.

    "savepoint" is SAVEPOINT, RELEASE and ROLLBACK TO; "prepare" is PREPARE TRANSACTION, COMMIT PREPARED and ROLLBACK
    PREPARED. PREPARE name AS .. is none of it.
    """
    first = statement.keyword
    if first == "PREPARE":
        reader = _Reader(statement)
        return "prepare" if reader.take(first, "TRANSACTION") and reader.peek().kind == "string" else None
    if first not in _TRANSACTION_WORDS:
        return None
    reader = _Reader(statement)
    reader.next()
    if first in ("COMMIT", "ROLLBACK") and reader.take("PREPARED"):
        return "prepare"
    reader.take_any("WORK", "TRANSACTION")
    if first == "ROLLBACK" and reader.take("TO"):
        return "savepoint"
    return _TRANSACTION_WORDS[first]


def _create_alone(reader):
    reader.take("UNIQUE")
    if reader.take("INDEX", "CONCURRENTLY"):
        return "CREATE INDEX CONCURRENTLY"
    if reader.take("SUBSCRIPTION"):
        options = reader.options() if reader.skip_to("WITH") else {}
        slot = _is_on(options, "create_slot", _is_on(options, "connect", True))
        return "CREATE SUBSCRIPTION" if slot else None
    what = reader.take_any("DATABASE", "TABLESPACE")
    return f"CREATE {what}" if what else None


def _drop_alone(reader):
    if reader.take("INDEX", "CONCURRENTLY"):
        return "DROP INDEX CONCURRENTLY"
    what = reader.take_any("DATABASE", "TABLESPACE", "SUBSCRIPTION")
    return f"DROP {what}" if what else None


def _alter_subscription_alone(reader):
    reader.name()
    if reader.take("REFRESH"):
        return "ALTER SUBSCRIPTION ... REFRESH"
    verb = reader.take_any("SET", "ADD", "DROP")
    if verb and reader.take("PUBLICATION"):
        options = reader.options() if reader.skip_to("WITH") else {}
        return f"ALTER SUBSCRIPTION ... {verb} PUBLICATION" if _is_on(options, "refresh", True) else None
    options = reader.options() if verb == "SET" else {}
    if "failover" in options:  # since 17: it changes the slot on the publisher
        return "ALTER SUBSCRIPTION ... SET (failover)"
    if not _is_on(options, "two_phase", True):  # since 18, and only to switch it off
        return "ALTER SUBSCRIPTION ... SET (two_phase)"
    return None


def _alter_alone(reader):
    if reader.take("SYSTEM"):
        return "ALTER SYSTEM"
    if reader.take("SUBSCRIPTION"):
        return _alter_subscription_alone(reader)
    if reader.take("DATABASE"):
        reader.name()
        moves = reader.take("SET", "TABLESPACE") and reader.peek().text != "=" and reader.peek().keyword != "TO"
        return "ALTER DATABASE ... SET TABLESPACE" if moves else None
    if _detached_partition(reader):
        return "ALTER TABLE ... DETACH PARTITION CONCURRENTLY"
    return None


def _reindex_alone(reader):
    options = reader.options()
    what = reader.take_any("DATABASE", "SYSTEM", "SCHEMA", "TABLE", "INDEX")
    if reader.take("CONCURRENTLY") or _is_on(options, "concurrently", False):
        return "REINDEX CONCURRENTLY"
    return f"REINDEX {what}" if what in ("DATABASE", "SYSTEM", "SCHEMA") else None


def _cluster_alone(reader):
    reader.options()
    reader.take("VERBOSE")
    return "CLUSTER without a table" if reader.peek() is _END else None


def _prepared_alone(reader, first):
    return f"{first} PREPARED" if reader.take("PREPARED") else None


_ALONE = {
    "CREATE": _create_alone,
    "DROP": _drop_alone,
    "ALTER": _alter_alone,
    "REINDEX": _reindex_alone,
    "CLUSTER": _cluster_alone,
    "VACUUM": lambda reader: "VACUUM",
    "DISCARD": lambda reader: "DISCARD ALL" if reader.take("ALL") else None,
    "COMMIT": lambda reader: _prepared_alone(reader, "COMMIT"),
    "ROLLBACK": lambda reader: _prepared_alone(reader, "ROLLBACK"),
}


def needs_no_transaction(statement):
    """Return the words for which Postgres refuses the statement inside a transaction block, or None.

    For example "CREATE INDEX CONCURRENTLY" or "VACUUM". ALTER TYPE .. ADD VALUE may be in one since PostgreSQL 12.
    """
    if statement.keyword not in _ALONE:
        return None
    reader = _Reader(statement)
    reader.next()
    return _ALONE[statement.keyword](reader)


def _hides_words(body):
    return body[0] in "eEuU" and _NUMERIC_ESCAPE.search(body) is not None


def may_end_transaction(statement):
    """Whether the statement may commit or roll back by itself: CALL, and a DO whose body says so (or calls on).

    Such a statement can only do it outside a transaction block, so it is run alone in a file without a transaction.
    Words in the body's own comments count, too: the answer is on the safe side.
    """
    if statement.keyword == "CALL":
        return True
    if statement.keyword != "DO":
        return False
    bodies = [token.text for token in statement.tokens if token.kind == "string"]
    return any(_ENDS_TRANSACTION.search(body) or _hides_words(body) for body in bodies)


def _detached_partition(reader):
    """The effect of ALTER TABLE .. DETACH PARTITION .. CONCURRENTLY, read from behind ALTER; else None."""
    if not reader.take("TABLE"):
        return None
    reader.take("IF", "EXISTS")
    reader.take("ONLY")
    table_schema, table_name = reader.name()
    reader.take("*")
    if not reader.take("DETACH", "PARTITION"):
        return None
    schema, name = reader.name()
    if not reader.take("CONCURRENTLY"):
        return None
    return CatalogueEffect("detach_partition", schema, name, table_schema, table_name)


def _created_index(reader):
    """The index that CREATE INDEX makes, in its table's schema; None when the statement does not name it."""
    reader.take("CONCURRENTLY")
    reader.take("IF", "NOT", "EXISTS")
    if reader.take("ON"):
        return None
    _, name = reader.name()
    if not reader.take("ON"):
        return None
    reader.take("ONLY")
    table_schema, table_name = reader.name()
    return CatalogueEffect("create_index", table_schema, name, table_schema, table_name)


def _create_effect(reader):
    reader.take("UNIQUE")
    if reader.take("INDEX"):
        return _created_index(reader)
    what = reader.take_any("DATABASE", "SUBSCRIPTION", "TABLESPACE")
    return CatalogueEffect.of(f"create_{what.lower()}", *reader.name()) if what else None


def _drop_effect(reader):
    what = reader.take_any("INDEX", "DATABASE", "SUBSCRIPTION", "TABLESPACE")
    if not what:
        return None
    reader.take("CONCURRENTLY")
    reader.take("IF", "EXISTS")
    effect = CatalogueEffect.of(f"drop_{what.lower()}", *reader.name())
    return None if reader.take(",") else effect


def _alter_effect(reader):
    # Moving a database where it already is, and refreshing twice, change nothing.
    if reader.take("SYSTEM"):
        return CatalogueEffect.of("repeatable")
    if reader.take_any("DATABASE", "SUBSCRIPTION"):
        reader.name()
        repeatable = reader.take("SET", "TABLESPACE") or reader.take("REFRESH") or reader.take("SET", "PUBLICATION")
        return CatalogueEffect.of("repeatable") if repeatable else None
    return _detached_partition(reader)


_EFFECTS = {"CREATE": _create_effect, "DROP": _drop_effect, "ALTER": _alter_effect}


def effect_in_catalogue(statement):
    """Return the CatalogueEffect by which one can tell whether the statement was done, or None when one cannot.

    Where a run died between a statement's start and its end, this says what to look for.
    """
    first = statement.keyword
    if first in _REPEATABLE:
        return CatalogueEffect.of("repeatable")
    if first not in _EFFECTS:
        return None
    reader = _Reader(statement)
    reader.next()
    effect = _EFFECTS[first](reader)
    if effect is None or (effect.name is None and effect.kind != "repeatable"):
        return None
    return None if effect.kind == "detach_partition" and effect.table_name is None else effect


def created_tables(statement):
    """Return a list of (schema or None, name) of what a CREATE TABLE makes: partitions too, temporary tables not."""
    if statement.keyword != "CREATE":
        return []
    reader = _Reader(statement)
    reader.next()
    reader.take("UNLOGGED")
    if not reader.take("TABLE"):
        return []
    reader.take("IF", "NOT", "EXISTS")
    schema, name = reader.name()
    return [] if name is None or schema == "pg_temp" else [(schema, name)]


_FILLS = (("INSERT", "INTO"), ("MERGE", "INTO"))
_BEFORE_A_COLUMN = ("SELECT", "DISTINCT", "AS", ",", ".")  # INSERT may be a column's name: SELECT insert INTO t


def _copied_table(reader):
    """The table of COPY .. FROM, read from its start; (None, None) for COPY .. TO."""
    reader.next()
    reader.take("BINARY")
    if reader.peek().text == "(":
        return None, None
    name = reader.name()
    if reader.take("("):
        reader.skip_to(")")
    return name if reader.take("FROM") else (None, None)


def _filling_names(reader):
    """The name behind each INSERT INTO and MERGE INTO, wherever a statement may begin."""
    before = ""
    while reader.peek() is not _END:
        if before not in _BEFORE_A_COLUMN and any(reader.take(*words) for words in _FILLS):
            reader.take("ONLY")
            yield reader.name()
            before = ""
            continue
        token = reader.next()
        before = token.keyword or token.text


def filled_tables(statement):
    """Return a list of (schema or None, name) of the tables that the statement puts rows into, each once, in order.

    That is INSERT INTO and MERGE INTO, also in WITH, and COPY .. FROM; not what is only read, and nothing in pg_temp.
    What a function, a trigger or DO does is not seen.
    """
    if statement.keyword not in ("INSERT", "MERGE", "COPY", "WITH"):
        return []
    reader = _Reader(statement)
    names = [_copied_table(reader)] if statement.keyword == "COPY" else _filling_names(reader)
    return [*dict.fromkeys((schema, name) for schema, name in names if name is not None and schema != "pg_temp")]


def is_session_setting(statement):
    """Whether the statement is a SET or RESET whose effect outlives the transaction (SET LOCAL's does not)."""
    words = first_words(statement, 2)
    if words[:1] == ("SET",):
        return words[1:] not in (("LOCAL",), ("CONSTRAINTS",), ("TRANSACTION",))
    return words[:1] == ("RESET",)


def _copy_refusal(statement):
    reader = _Reader(statement)
    while reader.peek() is not _END and reader.peek().keyword not in ("TO", "FROM"):
        if reader.next().text == "(":
            reader.skip_to(")")
    if not reader.take("TO"):
        return "COPY .. FROM writes"
    if reader.take_any("STDOUT", "STDIN"):
        return None
    return "COPY to a file or a program acts on the server; COPY .. TO STDOUT is allowed"


def _refusal(statement, reading_words):
    first = statement.keyword
    if first in reading_words or statement.text.startswith("("):
        return None
    if first == "COPY":
        return _copy_refusal(statement)
    if transaction_control(statement):
        return f"{first} would leave the read-only transaction"
    if first in ("SET", "RESET", "DISCARD"):
        return f"{first} could change the settings that keep the session read-only"
    if first in ("DO", "CALL"):
        return f"{first} can run anything; it is allowed to a reader role only"
    return f"{first or statement.text[:1]} does not only read"


def read_only_refusal(statement):
    """Return why the statement is refused in a read-only session whose login may do more than read, or None.

    Allowed are SELECT, VALUES, TABLE, WITH, EXPLAIN, SHOW and COPY .. TO STDOUT; that they write nothing is for the
    read-only transaction to see to. All else is refused, for much of it a read-only transaction would let pass:
    ALTER SYSTEM, VACUUM, LOAD, NOTIFY, COPY TO PROGRAM, and what ends the transaction itself.
    """
    return _refusal(statement, _READING_WORDS)


def read_only_refusal_for_reader(statement):
    """Return why the statement is refused when the login is an unprivileged reader role, or None.

    As `read_only_refusal`, but DO and CALL are allowed: they can do no more than the role may.
    """
    return _refusal(statement, (*_READING_WORDS, "DO", "CALL"))
