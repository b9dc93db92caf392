"""The statement that takes back what a simple statement did, for the down file of a new migration.

It is made only where it takes back exactly that, whatever the database held before: CREATE ... IF NOT EXISTS and
CREATE OR REPLACE may have found something there, ALTER ... SET DEFAULT does not say what was before, and an index
without a name gets one from the server. Names are kept as they are written.
"""

from __future__ import annotations


class _Cursor:
    """Reads tokens from left to right."""

    def __init__(self, tokens):
        self.tokens = list(tokens)
        self.at = 0

    @property
    def done(self):
        return self.at == len(self.tokens)

    def word(self, ahead=0):
        """The key word or sign that comes next; empty for a quoted name and at the end."""
        place = self.at + ahead
        if place >= len(self.tokens):
            return ""
        token = self.tokens[place]
        return token.keyword or (token.text if token.kind == "op" else "")

    def take(self, *words):
        """Whether these come next; if so they are read."""
        if any(self.word(ahead) != word for ahead, word in enumerate(words)):
            return False
        self.at += len(words)
        return True

    def name(self):
        """The parts of a possibly qualified name, as written; empty where none can be read with certainty."""
        parts = [self._part()]
        while self.take("."):
            parts.append(self._part())
        return parts if None not in parts and self.word() != "UESCAPE" and parts[0].lower() != "pg_temp" else []

    def _part(self):
        if self.done or self.tokens[self.at].kind not in ("word", "quoted"):
            return None
        self.at += 1
        return self.tokens[self.at - 1].text

    def skip_to(self, word):
        """Reads up to and with the word, outside parentheses; whether it was found."""
        depth = 0
        while not self.done:
            depth += {"(": 1, ")": -1}.get(self.word(), 0)
            self.at += 1
            if not depth and self.tokens[self.at - 1].keyword == word:
                return True
        return False

    def parts(self):
        """What is left, parted at the commas outside parentheses, as a list of `_Cursor`s."""
        depth = 0
        parts: list[list] = [[]]
        for token in self.tokens[self.at :]:
            depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(token.text, 0)
            if token.text == "," and not depth:
                parts.append([])
            else:
                parts[-1].append(token)
        return [_Cursor(part) for part in parts]


def _drop(kind):
    """The undo of a CREATE whose name follows it."""

    def undo_this(cursor, statement):
        parts = cursor.name()
        return f"DROP {kind} {'.'.join(parts)}" if parts else None

    return undo_this


def _undo_index(cursor, statement):
    """An index lives in its table's schema, and one without a name gets one from the server."""
    concurrently = "CONCURRENTLY " if cursor.take("CONCURRENTLY") else ""
    if cursor.take("IF", "NOT", "EXISTS") or cursor.take("ON"):
        return None
    name = cursor.name()
    if not name or not cursor.take("ON"):
        return None
    cursor.take("ONLY")
    table = cursor.name()
    return f"DROP INDEX {concurrently}{'.'.join(table[:-1] + name)}" if table else None


def _undo_schema(cursor, statement):
    """Only a schema alone: with objects in it, they would have to go first."""
    if cursor.word() == "AUTHORIZATION":
        return None
    name = cursor.name()
    if cursor.take("AUTHORIZATION"):
        cursor.name()
    return f"DROP SCHEMA {name[0]}" if name and cursor.done else None


def _undo_extension(cursor, statement):
    """With CASCADE it may have brought others with it."""
    name = cursor.name()
    return None if not name or cursor.skip_to("CASCADE") else f"DROP EXTENSION {name[0]}"


def _drop_on(kind):
    """The undo of a trigger or policy, which belong to a table."""

    def undo_this(cursor, statement):
        name = cursor.name()
        table = cursor.name() if name and cursor.skip_to("ON") else []
        return f"DROP {kind} {name[0]} ON {'.'.join(table)}" if table else None

    return undo_this


def _drop_routine(kind):
    """The undo of a function or procedure, which are named by their arguments, too."""

    def undo_this(cursor, statement):
        name = cursor.name()
        if not name or not cursor.take("("):
            return None
        arguments = _arguments(cursor, statement)
        return None if arguments is None else f"DROP {kind} {'.'.join(name)}({', '.join(arguments)})"

    return undo_this


def _arguments(cursor, statement):
    """The arguments up to the closing parenthesis, as written but for their defaults; None where it is not clear."""
    inside, depth = [], 1
    while depth:
        depth += {"(": 1, ")": -1}.get(cursor.word(), 0)
        inside.append(cursor.tokens[cursor.at])
        cursor.at += 1
    if len(inside) == 1:
        return []
    written = [_argument(part.tokens, statement) for part in _Cursor(inside[:-1]).parts()]
    return None if None in written else written


def _argument(tokens, statement):
    """One argument without its default. OUT differs between the versions of Postgres, and a comment is not a type."""
    ends = [place for place, token in enumerate(tokens) if token.keyword == "DEFAULT" or token.text == "="]
    tokens = tokens[: ends[0]] if ends else tokens
    if not tokens or tokens[0].keyword in ("OUT", "INOUT"):
        return None
    start, last = tokens[0].offset - statement.offset, tokens[-1]
    written = statement.text[start : last.offset - statement.offset + len(last.text)]
    return None if "--" in written or "/*" in written else " ".join(written.split())


_UNDO_CREATE = {
    ("TABLE",): _drop("TABLE"),
    ("UNLOGGED", "TABLE"): _drop("TABLE"),
    ("FOREIGN", "TABLE"): _drop("FOREIGN TABLE"),
    ("VIEW",): _drop("VIEW"),
    ("RECURSIVE", "VIEW"): _drop("VIEW"),
    ("MATERIALIZED", "VIEW"): _drop("MATERIALIZED VIEW"),
    ("SEQUENCE",): _drop("SEQUENCE"),
    ("TYPE",): _drop("TYPE"),
    ("DOMAIN",): _drop("DOMAIN"),
    ("INDEX",): _undo_index,
    ("UNIQUE", "INDEX"): _undo_index,
    ("SCHEMA",): _undo_schema,
    ("EXTENSION",): _undo_extension,
    ("TRIGGER",): _drop_on("TRIGGER"),
    ("CONSTRAINT", "TRIGGER"): _drop_on("TRIGGER"),
    ("POLICY",): _drop_on("POLICY"),
    ("FUNCTION",): _drop_routine("FUNCTION"),
    ("PROCEDURE",): _drop_routine("PROCEDURE"),
}


def _undo_alter_table(cursor):
    """The undo of each action, the last first; None where one has none."""
    exists = "IF EXISTS " if cursor.take("IF", "EXISTS") else ""
    only = "ONLY " if cursor.take("ONLY") else ""
    table = cursor.name()
    if not table:
        return None
    if cursor.word() == "RENAME" and cursor.word(1) == "TO":
        return None if exists else _undo_table_name(cursor, table)
    undone = [_undo_action(action) for action in reversed(cursor.parts())]
    return None if None in undone else f"ALTER TABLE {exists}{only}{'.'.join(table)} {', '.join(undone)}"


def _undo_table_name(cursor, table):
    cursor.take("RENAME", "TO")
    new = cursor.name()
    return f"ALTER TABLE {'.'.join(table[:-1] + new)} RENAME TO {table[-1]}" if len(new) == 1 else None


def _undo_action(action):
    for words, undo_this in _UNDO_ACTION.items():
        if action.take(*words):
            return undo_this(action)
    return None


def _undo_added(action):
    """ADD of a column, or of a constraint that has a name."""
    if action.take("CONSTRAINT"):
        name = action.name()
        # With USING INDEX the constraint takes an index over, and would take it along.
        return f"DROP CONSTRAINT {name[0]}" if name and not action.skip_to("USING") else None
    if action.word() in ("PRIMARY", "UNIQUE", "CHECK", "FOREIGN", "EXCLUDE", "NOT"):
        return None
    action.take("COLUMN")
    exists = "IF EXISTS " if action.take("IF", "NOT", "EXISTS") else ""
    name = action.name()
    return f"DROP COLUMN {exists}{name[0]}" if name else None


def _undo_name(action):
    """RENAME [COLUMN] or RENAME CONSTRAINT."""
    kind = "CONSTRAINT" if action.take("CONSTRAINT") else "COLUMN"
    action.take("COLUMN")
    old = action.name()
    new = action.name() if action.take("TO") else []
    return f"RENAME {kind} {new[0]} TO {old[0]}" if old and new and action.done else None


def _undo_column(action):
    """ALTER [COLUMN] name SET or DROP NOT NULL; what a default or a type was before is not known."""
    action.take("COLUMN")
    name = action.name()
    for done, undone in (("SET", "DROP"), ("DROP", "SET")):
        if name and action.take(done, "NOT", "NULL"):
            return f"ALTER COLUMN {name[0]} {undone} NOT NULL" if action.done else None
    return None


def _switch(action_text):
    return lambda action: action_text if action.done else None


_UNDO_ACTION = {
    ("ADD",): _undo_added,
    ("RENAME",): _undo_name,
    ("ALTER",): _undo_column,
    ("ENABLE", "ROW", "LEVEL", "SECURITY"): _switch("DISABLE ROW LEVEL SECURITY"),
    ("DISABLE", "ROW", "LEVEL", "SECURITY"): _switch("ENABLE ROW LEVEL SECURITY"),
    ("FORCE", "ROW", "LEVEL", "SECURITY"): _switch("NO FORCE ROW LEVEL SECURITY"),
    ("NO", "FORCE", "ROW", "LEVEL", "SECURITY"): _switch("FORCE ROW LEVEL SECURITY"),
}


def undo(statement):
    """The text, without its `;`, that takes back exactly what `statement` (of the lexer) did; None where there is none.

    One thing is taken on trust: a column that was added IF NOT EXISTS is dropped as one that was not there.
    """
    cursor = _Cursor(statement.tokens)
    if cursor.take("ALTER", "TABLE"):
        return _undo_alter_table(cursor)
    if not cursor.take("CREATE"):
        return None
    for words, undo_this in _UNDO_CREATE.items():
        if cursor.take(*words):
            return None if cursor.take("IF", "NOT", "EXISTS") else undo_this(cursor, statement)
    return None
