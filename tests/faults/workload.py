"""Migrations whose effects can be counted, and the verdict on a database in which they were run.

Each statement leaves something that shows a second run: a row in a table without a unique constraint, a sum that
grows, a table, an index. So "applied once or not at all" is read from the tables and compared with what is recorded.
"""

from __future__ import annotations

from collections import Counter, namedtuple

TRANSACTION, NO_TRANSACTION, SELF_TEST = "transaction", "no_transaction", "self_test"
KINDS = ("plain", "several", "concurrent", "copy")
ROWS = 40  # in each table that a migration makes

Piece = namedtuple("Piece", "number mode text effects alone")
Piece.__doc__ = """One migration: its `number`, its `mode`, its `text`, and the `effects` of its statements, in order.

An effect is (kind, name): ("log", "7 1") for the row of statement 1 of migration 7, ("table", name), ("index", name).
`alone` holds the places, from 1, of the statements that run in no transaction.
"""

State = namedtuple("State", "effects versions records")
State.__doc__ = """What a database holds: `effects`, a Counter; `versions`, {version: dirty} as Hasura's table has it;
`records`, {version: row} as nself_db.migrations has it. An index that is not valid counts as ("invalid", name)."""


def log_row(number, step):
    """The statement that leaves one row for statement `step` of migration `number`."""
    return f"INSERT INTO log (number, step) VALUES ({number}, {step});\n"


def first_piece():
    """The migration that makes the tables in which the others leave their traces."""
    text = "CREATE TABLE log (number int NOT NULL, step int NOT NULL);\nCREATE TABLE tally (total int NOT NULL);\n"
    text += "INSERT INTO tally VALUES (0);\n" + log_row(1, 1)
    return Piece(1, TRANSACTION, text, [("table", "log"), ("table", "tally"), ("log", "1 1")], ())


def plain_piece(number):
    """DDL with data."""
    text = f"CREATE TABLE t{number} (id int PRIMARY KEY, note text);\n"
    text += f"INSERT INTO t{number} SELECT i, 'row; ' || i FROM generate_series(1, {ROWS}) i;\n" + log_row(number, 1)
    return Piece(number, TRANSACTION, text, [("table", f"t{number}"), ("log", f"{number} 1")], ())


def several_piece(number):
    """Several statements: a function body with semicolons, an UPDATE that a second run would repeat, a DELETE."""
    text = f"""CREATE FUNCTION f{number}() RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    UPDATE tally SET total = total + 1;
    RETURN 1; -- it's done
END $$;
SELECT f{number}();
{log_row(number, 1)}{log_row(number, 2)}DELETE FROM log WHERE number = {number} AND step = 2;
{log_row(number, 3)}"""
    effects = [("function", f"f{number}"), ("tally", "total"), ("log", f"{number} 1"), ("log", f"{number} 3")]
    return Piece(number, TRANSACTION, text, effects, ())


def concurrent_piece(number):
    """A file outside a transaction: single statements, an index built concurrently, inline COPY, a block."""
    text = f"""-- nself:no-transaction
{log_row(number, 1)}CREATE INDEX CONCURRENTLY i{number} ON log (number);
COPY log (number, step) FROM stdin;
{number}\t3
\\.
BEGIN;
{log_row(number, 4)}{log_row(number, 5)}COMMIT;
VACUUM tally;
{log_row(number, 7)}"""
    effects = [("log", f"{number} 1"), ("index", f"i{number}"), ("log", f"{number} 3"), ("log", f"{number} 4"),
               ("log", f"{number} 5"), None, ("log", f"{number} 7")]  # fmt: skip
    return Piece(number, NO_TRANSACTION, text, effects, (2, 6))


def copy_piece(number):
    """Inline COPY data of some size, so that a cut may fall into it."""
    lines = "".join(f"{row}\tnote; '{row} $$ \\\\.\n" for row in range(1, ROWS + 1))
    text = f"CREATE TABLE t{number} (id int PRIMARY KEY, note text);\n"
    text += f"COPY t{number} (id, note) FROM stdin;\n{lines}\\.\n" + log_row(number, 1)
    return Piece(number, TRANSACTION, text, [("table", f"t{number}"), ("log", f"{number} 1")], ())


def self_test_piece(number):
    """A file that rolls itself back: recorded, with no effect."""
    text = f"BEGIN;\nCREATE TABLE t{number} (id int);\n{log_row(number, 1)}ROLLBACK;\n"
    return Piece(number, SELF_TEST, text, [], ())


def make_pieces(count):
    """`count` migrations of all kinds, numbered from 1."""
    makers = (plain_piece, several_piece, concurrent_piece, copy_piece)
    pieces = [first_piece()] + [makers[number % len(makers)](number) for number in range(2, count + 1)]
    if count >= 10:
        pieces[9] = self_test_piece(10)
    return pieces


def write_pieces(project, pieces):
    """Write the migrations of `pieces` into `project`."""
    for piece in pieces:
        project.migration(f"{piece.number}_piece", piece.text)


def rows(project, statement):
    """The rows of a statement in the project's database as tuples, asked without the program."""
    return [tuple(row.values()) for row in project.database.admin(statement)]


def read_state(database):
    """The State of `database`; nobody may be writing to it."""
    with database.connect() as connection:
        effects = Counter({("table", name): 1 for name in _names(connection, SQL_TABLES)})
        effects.update(("function", name) for name in _names(connection, SQL_FUNCTIONS))
        effects.update(("index" if row["valid"] else "invalid", row["name"]) for row in connection.execute(SQL_INDEXES))
        for name in [name for kind, name in effects if kind == "table" and name.startswith("t") and name[1:].isdigit()]:
            count = connection.execute(f"SELECT count(*) AS n FROM {name}").fetchone()["n"]
            assert count == ROWS, f"table {name} has {count} rows of {ROWS}"
        if ("table", "log") in effects:
            effects.update(("log", f"{row['number']} {row['step']}") for row in connection.execute("TABLE log"))
            total = connection.execute("SELECT total FROM tally").fetchone()["total"]
            effects[("tally", "total")] = total
        return State(effects, *_read_records(connection))


SQL_TABLES = "SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public'"
SQL_FUNCTIONS = "SELECT proname AS name FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prokind = 'f'"
SQL_INDEXES = """
SELECT c.relname AS name, i.indisvalid AS valid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE c.relnamespace = 'public'::regnamespace AND NOT i.indisprimary
"""


def _names(connection, statement):
    return [row["name"] for row in connection.execute(statement)]


def _read_records(connection):
    """({version: dirty}, {version: row}); both empty where the tables are not made yet."""
    there = connection.execute("SELECT to_regclass('nself_db.migrations') IS NOT NULL AS there").fetchone()["there"]
    if not there:
        return {}, {}
    versions = {row["version"]: row["dirty"] for row in connection.execute("TABLE hdb_catalog.schema_migrations")}
    return versions, {row["version"]: row for row in connection.execute("TABLE nself_db.migrations")}


def faults_of(pieces, state):
    """Sentences on all that contradicts "each migration is applied and recorded, or neither"."""
    faults = [] if set(state.versions) == set(state.records) else [f"{state.versions} against {state.records}"]
    possible: Counter = Counter()
    sums: Counter = Counter()
    for piece in pieces:
        wanted, open_effects = _expected(piece, state, faults)
        sums.update(wanted)
        possible.update(open_effects)
    faults += [f"{effect} is there {state.effects[effect]} times, {sums[effect]} wanted"
               for effect in {*sums, *state.effects}
               if not sums[effect] <= state.effects[effect] <= sums[effect] + possible[effect]]  # fmt: skip
    faults += [f"{version} is dirty beside a later one" for version in state.versions
               if state.versions[version] and version != max(state.versions)]  # fmt: skip
    return faults


def _expected(piece, state, faults):
    """(effects that must be there, effects that may be there) of one migration, by what is recorded of it."""
    if piece.number not in state.versions:
        return [], []
    every = [effect for effect in piece.effects if effect]
    record = state.records.get(piece.number, {})
    if not state.versions[piece.number]:
        if record.get("started") is not None or record.get("statements_done") != record.get("statements"):
            faults.append(f"{piece.number} is applied, but recorded as {record}")
        return every, []
    if piece.mode != NO_TRANSACTION:
        faults.append(f"{piece.number} is dirty and was in a transaction")
    done, started = record.get("statements_done", 0), record.get("started")
    if started is not None and (started != done + 1 or started not in piece.alone):
        faults.append(f"{piece.number}: statement {started} is started, {done} are done")
    there = [effect for effect in piece.effects[:done] if effect]
    if started is None:
        return there, []
    maybe = piece.effects[done]
    return there, [maybe, ("invalid", maybe[1])] if maybe else []


def check_whole_or_nothing(pieces, state):
    """Raise AssertionError unless each migration is applied and recorded once, or neither."""
    faults = faults_of(pieces, state)
    assert not faults, "\n".join(map(str, faults))


def check_complete(pieces, state):
    """Raise AssertionError unless every migration is applied and recorded, each exactly once."""
    check_whole_or_nothing(pieces, state)
    assert sorted(state.versions) == [piece.number for piece in pieces]
    assert not any(state.versions.values()), state.versions
