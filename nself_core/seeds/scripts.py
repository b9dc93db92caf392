"""What a seed runs: the statements of each kind of file, and the tables that they fill.

An SQL file is split by the lexer; CSV goes by COPY straight from the file; JSON goes as json_populate_recordset; a
program yields its statements. All of it is known before anything runs.
"""

from __future__ import annotations

import json
from collections import namedtuple

from nself_core.failures import FileFailure
from nself_core.postgres.session import END_LINE, DataFile
from nself_core.seeds.files import CSV, JSON, PROGRAMS
from nself_core.sql.lexer import Statement
from nself_core.sql.quoting import identifier, literal
from nself_core.sql.script import NO_TRANSACTION, SELF_TEST, TRANSACTION, Script, Unit, read_made_script, read_script
from nself_core.sql.statements import filled_tables

# Rows of JSON in one statement, and how many characters of them.
BATCH_ROWS, BATCH_LENGTH = 1000, 1 << 20
STAGE = "pg_temp.nself_rows"

Work = namedtuple("Work", "seed script checksum fills data target", defaults=(None, None))
Work.__doc__ = """A seed to run.

`script`, its Script, which a data file gets once the table is known; `fills`, (schema or None, name) of the tables its
statements put rows into; `data`, the CsvData or JsonData of a data file, else None; `target`, what its script was made
for (see `with_statements`).
"""

CsvData = namedtuple("CsvData", "columns file")
CsvData.__doc__ = "`columns` of the header, and the DataFile that it begins."
JsonData = namedtuple("JsonData", "batches")
JsonData.__doc__ = "Rows with the same keys, one after another: (columns, JSON text of an array, line of the first)."


def read_works(seeds, env, programs):
    """The Works of `seeds`, in their order, every file read.

    Arguments: `env`, the environment's name; `programs(seed, env)`, which runs a program and returns its Statements.
    Raises FileFailure with file and line for the first that must not run.
    """
    return [_read_work(seed, env, programs) for seed in seeds]


def _read_work(seed, env, programs):
    if seed.kind == CSV:
        data = read_csv(seed, seed.checksum)
        return Work(seed, None, data.file.checksum, (table_of(seed),), data)
    if seed.kind == JSON:
        return Work(seed, None, seed.checksum, (table_of(seed),), read_json(seed))
    checksum = seed.checksum
    script = _script(seed, checksum, env, programs)
    fills = dict.fromkeys(table for statement in script.statements for table in filled_tables(statement))
    return Work(seed, script, checksum, tuple(fills))


def _script(seed, checksum, env, programs):
    if seed.kind in PROGRAMS:
        return read_made_script(programs(seed, env), seed.file, checksum)
    script = _sql_script(seed, checksum)
    if script.mode == NO_TRANSACTION:
        raise FileFailure(f"a seed runs in one transaction: {script.reason}", "put it into a migration", file=seed.file)
    if script.mode == SELF_TEST:
        raise FileFailure("the file ends in ROLLBACK, so it would leave nothing", file=seed.file)
    return script


def _sql_script(seed, checksum):
    try:
        return read_script(seed.text, seed.file, checksum)
    except FileFailure as failure:
        # What helps a migration is no way out here.
        if "no-transaction" in (failure.hint or ""):
            failure.hint = "a seed runs in one transaction as it is: leave it out, or make two seeds of the file"
        raise


def table_of(seed):
    """(schema or None, name) of the table that a data file is named after."""
    schema, dot, name = seed.stem.partition(".")
    return (schema, name) if dot else (None, seed.stem)


def read_csv(seed, checksum=None):
    """The CsvData of a CSV file.

    Argument: `checksum`, its own, which it must still have when it is sent. Raises FileFailure for a header that names
    no columns, or one twice.
    """
    import csv

    file = DataFile(seed.path, seed.file, checksum)
    head = _csv_head(file)
    text = _decoded(head[3:] if head.startswith(b"\xef\xbb\xbf") else head, seed)
    csv.field_size_limit(2**31 - 1)
    try:
        columns = tuple(next(csv.reader([text]), ()))
    except csv.Error:
        hint = "a quote stands around a whole name, and is doubled inside"
        raise FileFailure("its first line cannot be read as CSV", hint, file=seed.file, line=1) from None
    _check_columns(columns, seed)
    return CsvData(columns, file)


def _csv_head(data):
    """The bytes of the first record."""
    head = data.head()
    if b"\r" in head.rstrip(b"\r\n"):
        raise FileFailure("its lines end in CR alone", "save it with LF or CRLF", file=data.file, line=1)
    if any(line.rstrip(b"\r\n") == END_LINE for line in head.split(b"\n")):
        raise FileFailure("a line of its header is \\., which ends the data for psql", file=data.file, line=1)
    return head


def _decoded(data, seed):
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise FileFailure("its header is not UTF-8", "save it as UTF-8", file=seed.file, line=1) from None


def _check_columns(columns, seed):
    place = {"file": seed.file, "line": 1}
    if not columns:
        raise FileFailure("it is empty: its first line names the columns", **place)
    if not all(columns):
        raise FileFailure("its first line does not name a column for every value", **place)
    doubled = next((column for column in columns if columns.count(column) > 1), None)
    if doubled is not None:
        raise FileFailure(f"the column {doubled} stands twice in its first line", **place)


def read_json(seed):
    """The JsonData of a JSON file, an array of flat objects.

    The text of each object is kept as it is, so that numbers keep their digits. Raises FileFailure with the line.
    """
    text = seed.text
    batches: list = []
    line, counted = 1, 0
    for start, end, keys in _objects(text, seed):
        if not (batches and batches[-1].takes(keys, end)):
            line, counted = line + text.count("\n", counted, start), start
            batches.append(_Batch(keys, line, start))
        batches[-1].add(end)
    return JsonData([(batch.columns, f"[{text[batch.start : batch.end]}]", batch.line) for batch in batches])


class _Batch:
    """Rows of JSON with the same keys, one behind the other in their text from `start` to `end`."""

    def __init__(self, columns, line, start):
        self.columns = columns
        self.line = line
        self.start = start
        self.end = start
        self._rows = 0

    def takes(self, columns, end):
        """Whether a row with these columns, which ends there, may join."""
        return self._rows < BATCH_ROWS and end - self.start <= BATCH_LENGTH and columns == self.columns

    def add(self, end):
        self._rows += 1
        self.end = end


def _objects(text, seed):
    """(start, end, keys in order) of each object of the array that `text` is."""
    # Only the keys are wanted: a number of any length stays a text.
    decoder = json.JSONDecoder(object_pairs_hook=_pairs, parse_int=str, parse_float=str)
    place = _skip_space(text, 0)
    if text[place : place + 1] != "[":
        raise _not_json(text, place, "it is not an array of rows: it does not begin with [", seed)
    place = _skip_space(text, place + 1)
    while text[place : place + 1] != "]":
        try:
            found, end = decoder.raw_decode(text, place)
        except ValueError as error:
            position = error.pos if isinstance(error, json.JSONDecodeError) else place
            raise _not_json(text, position, getattr(error, "msg", str(error)), seed) from None
        except RecursionError:
            raise _not_json(text, place, "values stand in values too deep", seed) from None
        if not isinstance(found, _Pairs) or not found:
            raise _not_json(text, place, "a row is an object with at least one column: {column: value}", seed)
        yield place, end, tuple(sorted(found))
        place = _skip_space(text, end)
        if text[place : place + 1] == ",":
            place = _skip_space(text, place + 1)
        elif text[place : place + 1] != "]":
            raise _not_json(text, place, "a comma or ] is missing", seed)
    if text[place + 1 :].strip():
        raise _not_json(text, place + 1, "there is more behind the array", seed)


class _Pairs(dict):
    """An object of JSON."""


def _pairs(pairs):
    found = _Pairs(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)} stands twice")
    return found


def _skip_space(text, place):
    while text[place : place + 1] in (" ", "\t", "\r", "\n"):
        place += 1
    return place


def _line(text, place):
    return text.count("\n", 0, place) + 1


def _not_json(text, place, message, seed):
    return FileFailure(message, file=seed.file, line=_line(text, place))


def with_statements(work, table, is_empty):
    """The Work of a data file with its Script, which loads it into `table`.

    Rows that are there already stay as they are: a table that holds rows takes only those that no unique constraint
    refuses and that no row there equals in all that the file says of it. `is_empty` says that there is nothing to look
    at: then a CSV goes straight in where it can, and rows of the file that refuse one another are told.
    """
    work = work._replace(target=(table, is_empty))
    statements = tuple((_csv_statements if isinstance(work.data, CsvData) else _json_statements)(work))
    unit = Unit(statements, False, 0, None)
    file = work.seed.file
    return work._replace(
        script=Script(file, work.checksum, TRANSACTION, None, None, None, None, statements, (unit,), ())
    )


def row_by_row(work, number):
    """The statements of a JSON seed up to its batch `number`, counted from 0, of which each row has its own."""
    columns, text, line = work.data.batches[number]
    rows, counted = [], 0
    for start, end, _ in _objects(text, work.seed):
        line, counted = line + text.count("\n", counted, start), start
        rows.append((columns, f"[{text[start:end]}]", line))
    return (*work.script.statements[:number], *_json_statements(work._replace(data=JsonData(rows))))


def check_columns(work, table):
    """Raise FileFailure where the data file has a column that the table has not, or computes itself."""
    known = {column.name for column in table.columns if not column.generated}
    data = work.data
    heads = [(data.columns, 1)] if isinstance(data, CsvData) else [(columns, line) for columns, _, line in data.batches]
    for columns, line in heads:
        strange = [column for column in columns if column not in known]
        if strange:
            hint = f"its columns are {', '.join(sorted(known))}"
            computed = {column.name for column in table.columns} & {*strange}
            what = f"computes {min(computed)} itself" if computed else f"has no column {' and '.join(strange)}"
            raise FileFailure(f"{table.shown} {what}", hint, file=work.seed.file, line=line)


def _made(text, line, copy_data=None):
    return Statement(text, line, 1, 0, line, copy_data, True)


def _csv_statements(work):
    table, is_empty = work.target
    columns = _columns(work.data.columns)
    if is_empty and table.copies:
        yield _made(_copy(table.sql, columns), 1, work.data.file)
        return
    stage = "CREATE TEMPORARY TABLE nself_rows ON COMMIT DROP"
    yield _made(f"{stage} AS SELECT {columns} FROM {table.sql} WITH NO DATA", 1)
    yield _made(_copy(STAGE, columns), 1, work.data.file)
    yield _made(_insert(table, work.data.columns, STAGE, is_empty), 1)
    yield _made(f"DROP TABLE {STAGE}", 1)


def _copy(target, columns):
    return f"COPY {target} ({columns}) FROM STDIN WITH (FORMAT csv, HEADER)"


def _columns(names, prefix=""):
    return ", ".join(f"{prefix}{identifier(name)}" for name in names)


def _json_statements(work):
    table, is_empty = work.target
    for columns, text, line in work.data.batches:
        source = f"pg_catalog.json_populate_recordset(NULL::{table.sql}, {literal(text)})"
        yield _made(_insert(table, columns, source, is_empty), line)


def _insert(table, columns, source, is_empty):
    """INSERT of the rows of `source`, with the values they give for identity columns; see `with_statements`."""
    insert = f"INSERT INTO {table.sql} ({_columns(columns)}) OVERRIDING SYSTEM VALUE SELECT {_columns(columns, 'new.')}"
    text = f"{insert} FROM {source} AS new"
    if is_empty:
        return text
    settles = table.unique and not table.deferrable
    has_key = bool(table.primary_key) and {*table.primary_key} <= {*columns}
    if not (settles and has_key):
        told = table.primary_key if has_key else columns
        rows = (f"ROW({_columns(told, prefix)})::pg_catalog.text" for prefix in ("present.", "new."))
        text += f" WHERE NOT EXISTS (SELECT FROM {table.sql} AS present WHERE {' = '.join(rows)})"
    return f"{text} ON CONFLICT DO NOTHING" if settles else text
