"""psql for people, read-only unless asked otherwise, and `--command` for one statement.

`--command` is enforced: one statement, by the extended protocol's own rule, in a read-only transaction whose
snapshot is taken, so that it can neither be left nor made writable. A superuser can act even there, so both forms
log in as the reader role where there is one. The interactive shell guards against accidents, not intent.
"""

from __future__ import annotations

import os

from nself_core import processes
from nself_core.failures import CredentialsRefused, Failure, FileFailure, Refused, SqlFailure, UsageFailure
from nself_core.output import Report, display_width, visible
from nself_core.plan import Plan, Step
from nself_core.postgres.database import NO_PARAMETERS, SQL_PROCESS
from nself_core.postgres.reach import Login
from nself_core.sql import statements as sql_statements
from nself_core.sql.lexer import split
from nself_core.sql.quoting import identifier, literal

READER = "nself_reader"
READER_PASSWORD = "NSELF_DB_READER_PASSWORD"
READ_ONLY = {"default_transaction_read_only": "on"}
NUMERIC = ("smallint", "integer", "bigint", "oid", "real", "double precision", "numeric")
TO_THE_RIGHT = (*NUMERIC, "xid", "xid8", "cid", "money")  # as psql has it (print.c, column_type_alignment)
TAB = 8
BINARY_COPY = [["PGCOPY"], ["\ufffd\r"]]  # its signature as text (manual, COPY, "Binary Format")
NO_READER = (
    "logged in as a superuser: functions that act outside the database (files, programs, configuration) still can; "
    "make a reader role with: nself-db shell --install-reader"
)

SQL_READER_FACTS = """
SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = :reader) AS there,
       (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = CURRENT_USER) AS superuser,
       CURRENT_USER::text AS "user",
       (SELECT pg_catalog.pg_has_role(CURRENT_USER, oid, 'MEMBER WITH ADMIN OPTION')
        FROM pg_catalog.pg_roles WHERE rolname = 'pg_read_all_data') AS grants,
       pg_catalog.current_setting('server_version_num')::int AS version, pg_catalog.current_database() AS database
"""
SQL_IS_SUPERUSER = "SELECT rolsuper AS superuser FROM pg_catalog.pg_roles WHERE rolname = CURRENT_USER"


def plan_command(sql, writes):
    """The Plan that runs one statement.

    Arguments: `sql`, the text of --command; `writes`, whether it may write. Raises Refused (exit 4) for what is not
    one statement, UsageFailure when there is none.
    """
    try:
        found = split(sql)
    except FileFailure as failure:
        raise Refused(f"--command was not run: {failure.message}", failure.hint) from None
    if not found:
        raise UsageFailure("--command has no statement in it")
    if len(found) > 1:
        raise Refused(f"--command takes exactly one statement, this is {len(found)}; nothing was run")
    if not writes:
        _check_reads(sql_statements.read_only_refusal_for_reader(found[0]))
    mode = "read-write" if writes else "read-only"
    return Plan([Step("statement", f"run one statement ({mode})", found[0].text, mode, False, found[0])])


def _check_reads(reason):
    if reason:
        raise Refused(f"not run, the shell is read-only: {reason}", "add --rw to write")


def run_statement(database, step):
    """Run the statement of a Step and return the Report: psql's table, or columns and rows."""
    statement = step.work
    if step.mode == "read-write":
        session, login, warnings = database.connect(), None, []
        result = _query(database, session, statement, ())
    else:
        session, login, warnings = _read_only_session(database, statement)
        try:
            result = _query(database, session, statement, ("BEGIN READ ONLY", "SELECT 1"))
        except SqlFailure as failure:
            raise _with_hint(failure, login) from None
    if result.tag == "COPY" and result.rows[:2] == BINARY_COPY:
        raise UsageFailure("the shell shows texts, and this COPY is binary", "use FORMAT text or csv")
    data = {"columns": result.columns, "rows": [_json_row(row, result.types) for row in result.rows], "tag": result.tag}
    blocks, summary = _shown(result)
    return Report(data, blocks, summary, [*warnings, *map(_notice, result.notices)])


def _with_hint(failure, login):
    if "(SQLSTATE 25006)" in failure.message:
        failure.hint = "the shell is read-only: add --rw to write"
    elif login and "(SQLSTATE 42501)" in failure.message:
        failure.hint = f"this ran as {READER}; to let it read what is new: nself-db shell --install-reader"
    return failure


def _shown(result):
    """The Report's blocks and summary: COPY's lines as they are, a table, or the command's tag."""
    if result.tag and result.columns:
        return ["".join(f"{line}\n" for (line,) in result.rows)], ""
    return ([], result.tag) if result.tag else ([aligned(result)], "")


def _notice(report):
    return report.message if report.severity == "WARNING" else f"{report.severity.lower()}: {report.message}"


def _query(database, session, statement, before):
    """The Result of the statement, after which the session is over; an interrupted one is ended in the server, too."""
    from nself_core.postgres.errors import connection_failure, failure_of
    from nself_core.postgres.session import ConnectionLost, StatementFailed

    process = None
    try:
        process = session.rows(SQL_PROCESS)[0]
        return session.query(statement.text, before, statement.copy_data)
    except StatementFailed as failed:
        raise failure_of(failed.error, database.where, statement.text) from None
    except ConnectionLost as lost:
        raise connection_failure(lost.text, database.where) from None
    except KeyboardInterrupt:
        session.abandon()
        _end_in_server(database, process)
        raise
    finally:
        session.close()


def _end_in_server(database, process):
    try:
        if process:
            database.terminate(process)
    except Failure:
        return  # the interrupt is what is told


def _read_only_session(database, statement):
    """A session that may only read, the Login of the reader role where there is one, and warnings."""
    login, session = find_reader(database)
    if login is None:
        _check_reads(sql_statements.read_only_refusal(statement))
        session = database.connect(Login(), READ_ONLY)
    superuser = not login and session.rows(SQL_IS_SUPERUSER)[0]["superuser"]
    return session, login, [NO_READER] if superuser else []


def find_reader(database):
    """The Login of the reader role and a session of it; two None where there is none or its password is not known."""
    login = Login(READER, _reader_password(database.settings))
    if database.reach.kind == "url" and login.password is None:
        return None, None
    try:
        return login, database.connect(login, READ_ONLY)
    except CredentialsRefused:
        return None, None


def _password_file(settings):
    return os.path.join(settings.root, ".nself", f"reader-{settings.env}")


def _reader_password(settings):
    """The reader's password: a setting, or the file that install_reader wrote."""
    given = settings.get(READER_PASSWORD)
    if given:
        return given
    try:
        with open(_password_file(settings), encoding="utf-8") as file:
            return file.read().strip() or None
    except OSError:
        return None


def plan_terminal(writes, as_json):
    """The Plan that opens psql on the terminal."""
    if as_json:
        raise UsageFailure("an interactive shell has no JSON", "give the statement by --command")
    mode = "read-write" if writes else "read-only"
    return Plan([Step("terminal", f"open psql ({mode})", None, mode)])


def open_terminal(database, step, warn):
    """Run psql on the terminal until the user leaves it; the Report has psql's exit code.

    Arguments: `warn(text)`, which is called before psql starts. Raises Refused where a pooler stands between, which
    would leave the session read-write.
    """
    writes = step.mode == "read-write"
    login, session = (None, None) if writes else find_reader(database)
    session = session or database.connect(Login(), NO_PARAMETERS if writes else READ_ONLY)
    with session:
        superuser = not writes and not login and session.rows(SQL_IS_SUPERUSER)[0]["superuser"]
    if not (writes or login or database.keeps_parameters):
        raise Refused(
            "this connection goes through a pooler that drops settings, so the shell would not be read-only",
            "give a direct connection to Postgres, make a reader role (--install-reader), or use --command",
        )
    if superuser:
        warn(NO_READER)
    from nself_core.postgres import container_clients

    variables = database.variables(NO_PARAMETERS if writes else READ_ONLY)
    argv, env = container_clients.interactive(database, variables, login or Login())
    return Report({}, exit_code=processes.replace([*argv, "-X", *prompt_arguments(database.settings, step.mode)], env))


def prompt_arguments(settings, mode):
    """psql's arguments for a prompt that names environment and mode, red where it is prod."""
    label = f"{settings.env} {mode} "
    if settings.is_prod and not os.environ.get("NO_COLOR"):
        label = f"%[%033[1;31m%]{label}%[%033[0m%]"
    prompt = label.replace("'", "") + "%/%R%x%# "
    return ["-v", f"PROMPT1={prompt}", "-v", f"PROMPT2={prompt}"]


def plan_reader(database, command, writes):
    """The Plan that makes the reader role: it may log in and read everything, and nothing else.

    Raises UsageFailure where the command line also asks for something to run (`command`) or to write (`writes`), and
    Failure where this login may not let another read everything.
    """
    if command is not None or writes:
        raise UsageFailure("--install-reader makes a role, and runs nothing else", "give it alone")
    facts = database.rows(SQL_READER_FACTS, reader=READER)[0]
    if facts["version"] >= 160000 and not facts["grants"]:  # until then CREATEROLE was enough
        raise Failure(
            f"{facts['user']} may not grant pg_read_all_data, by which {READER} reads every table",
            f"a superuser lets it: GRANT pg_read_all_data TO {identifier(facts['user'])} WITH ADMIN OPTION",
        )
    texts = sql_reader(facts, _schemas(database))
    loses = (f"login role {READER} is made; it may read every table of database {facts['database']}",)
    step = Step("reader", f"make the login role {READER}", ";\n".join(texts) + ";", "transaction", True, texts)
    return Plan([step], loses=loses, asks_everywhere=True)


def _schemas(database):
    rows = database.rows(
        "SELECT nspname AS name FROM pg_catalog.pg_namespace "
        "WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema' ORDER BY nspname"
    )
    return [row["name"] for row in rows]


def sql_reader(facts, schemas):
    """The statements that make the reader role.

    Arguments: `facts`, the row of SQL_READER_FACTS; `schemas`, names for a server before 14, which has no
    pg_read_all_data (manual, "Predefined Roles"). Policies would hide rows from the reader, so a superuser lets it
    read past them.
    """
    role = identifier(READER)
    attributes = "LOGIN"
    if facts["superuser"]:
        attributes += " NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION BYPASSRLS"
    texts = [f"{'ALTER' if facts['there'] else 'CREATE'} ROLE {role} {attributes}",
             f"ALTER ROLE {role} SET default_transaction_read_only = on",
             f"GRANT CONNECT ON DATABASE {identifier(facts['database'])} TO {role}"]
    if facts["version"] >= 140000:
        return [*texts, f"GRANT pg_read_all_data TO {role}"]
    for schema in map(identifier, schemas):
        texts += [f"GRANT USAGE ON SCHEMA {schema} TO {role}",
                  f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}",
                  f"GRANT SELECT ON ALL SEQUENCES IN SCHEMA {schema} TO {role}"]
    return [*texts, *(f"ALTER DEFAULT PRIVILEGES GRANT {right} TO {role}"
                      for right in ("USAGE ON SCHEMAS", "SELECT ON TABLES", "SELECT ON SEQUENCES"))]


def install_reader(database, step):
    """Make the reader role; where a password is needed to log in, make one and keep it in a file of ours (0600)."""
    texts = [*step.work]
    settings = database.settings
    password = _reader_password(settings)
    if database.reach.kind == "url" and not password:
        password = os.urandom(24).hex()
        write_password(_password_file(settings), password)
    if password:
        texts.append(f"ALTER ROLE {identifier(READER)} PASSWORD {literal(scram_verifier(password, os.urandom(16)))}")
    database.execute("BEGIN", *texts, "COMMIT")
    return Report({"reader": READER}, (), f"login role {READER} is ready; read-only shells use it from now on")


def scram_verifier(password, salt):
    """What the server keeps of a password, made here so that its log never has the password (RFC 5803, RFC 5802)."""
    import hashlib
    import hmac
    import unicodedata
    from base64 import b64encode

    rounds = 4096
    salted = hashlib.pbkdf2_hmac("sha256", unicodedata.normalize("NFKC", password).encode(), salt, rounds)
    client_key, server_key = (hmac.digest(salted, word, "sha256") for word in (b"Client Key", b"Server Key"))
    stored = hashlib.sha256(client_key).digest()
    parts = [b64encode(data).decode() for data in (salt, stored, server_key)]
    return f"SCRAM-SHA-256${rounds}:{parts[0]}${parts[1]}:{parts[2]}"


def write_password(path, password):
    """Write the reader's password, readable for us alone, whole or not at all, and never part of a commit."""
    folder = os.path.dirname(path)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        _write_whole(path, password + "\n")
        ignore = os.path.join(folder, ".gitignore")
        if not os.path.exists(ignore):
            _write_whole(ignore, "*\n")  # all of it: what Hasura's commands keep there is no part of a commit either
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror}") from None


def _write_whole(path, text):
    temporary = f"{path}.{os.getpid()}"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _json_row(row, types):
    return [json_value(text, kind) for text, kind in zip(row, types)]


def json_value(text, kind):
    """A value as JSON has it: numbers, booleans and JSON as themselves, everything else as the server's text.

    A number that a JSON reader's float would change (numeric with many digits, NaN) stays text.
    """
    if text is None or not kind:
        return text
    if kind == "boolean":
        return text == "t"
    if kind in ("json", "jsonb"):
        return _json_exactly(text)
    if kind.partition("(")[0] not in NUMERIC:
        return text
    try:
        return int(text)
    except ValueError:
        return _exact_float(text)


def _json_exactly(text):
    import json

    try:
        return json.loads(text, parse_float=_exact_float)
    except (RecursionError, ValueError):
        return text  # deeper, or a number longer, than Python reads


def _exact_float(text):
    from decimal import Decimal

    number = float(text)
    if number - number != 0 or Decimal(repr(number)) != Decimal(text):
        return text
    return number


def aligned(result):
    """The result as psql's aligned table (print.c, print_aligned_text): a value of many lines goes on below itself."""
    titles = [_cell_lines(name) for name in result.columns]
    grid = [[_cell_lines("" if value is None else value) for value in row] for row in result.rows]
    widths = [max(display_width(line) for cell in column for line in cell) for column in zip(titles, *grid)]
    sides = [_RIGHT if kind.partition("(")[0] in TO_THE_RIGHT else _LEFT for kind in result.types]
    rule = "-" + "-+-".join("-" * width for width in widths) + "-"
    lines = [*_drawn(titles, widths, [_CENTRED] * len(titles)), rule]
    for row in grid:
        lines += _drawn(row, widths, sides)
    count = len(grid)
    return "\n".join([*lines, f"({count} row{'' if count == 1 else 's'})"]) + "\n"


_LEFT, _RIGHT, _CENTRED = "left", "right", "centred"


def _cell_lines(text):
    """A value's lines as psql shows them: tabs as blanks, and nothing that a terminal would obey."""
    return [visible(_without_tabs(line)) for line in text.split("\n")]


def _without_tabs(line):
    head, *parts = line.split("\t")
    for part in parts:
        head += " " * (TAB - display_width(visible(head)) % TAB) + part
    return head


def _drawn(cells, widths, sides):
    """The lines of one row. A `+` behind a line says that the value goes on below; the last column has no blanks."""
    lines = []
    last = len(cells) - 1
    for number in range(max(map(len, cells), default=0)):
        line = ""
        for place, (cell, width, side) in enumerate(zip(cells, widths, sides)):
            text, goes_on = (cell[number] if number < len(cell) else ""), number + 1 < len(cell)
            is_open = place == last and not goes_on and side != _CENTRED
            line += " " + _padded(text, width, side if number < len(cell) else _LEFT, is_open)
            line += ("+" if goes_on else "" if is_open else " ") + ("" if place == last else "|")
        lines.append(line)
    return lines


def _padded(text, width, side, is_open):
    blanks = width - display_width(text)
    if side == _LEFT:
        return text if is_open else text + " " * blanks
    left = blanks if side == _RIGHT else blanks // 2
    return " " * left + text + " " * (blanks - left)
