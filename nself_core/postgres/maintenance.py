"""What work on a whole database needs: another one to stand in, and sessions that no timeout of the role ends.

A database that lets nobody in is opened from another one of its server, too.
"""

from __future__ import annotations

from nself_core.sql.quoting import identifier, literal

# What a role or a database may have set, and a server's version may not know.
TIMEOUTS = "('statement_timeout', 'transaction_timeout', 'idle_session_timeout', 'idle_in_transaction_session_timeout')"
SQL_KNOWN_TIMEOUTS = f"SELECT name FROM pg_catalog.pg_settings WHERE name IN {TIMEOUTS}"
# For a session that is open already; `local`, "true" for its transaction only.
SQL_NO_TIMEOUTS = (
    f"SELECT pg_catalog.set_config(name, '0', {{local}}) FROM pg_catalog.pg_settings WHERE name IN {TIMEOUTS}"
)

# What `sql_create_like` takes from a row `d` of pg_database, whose columns every version of Postgres names otherwise.
LOCALE_COLUMNS = """pg_catalog.pg_encoding_to_char(d.encoding) AS encoding,
       d.datcollate AS collate, d.datctype AS ctype,
       pg_catalog.to_jsonb(d) ->> 'datlocprovider' AS provider,
       coalesce(pg_catalog.to_jsonb(d) ->> 'datlocale', pg_catalog.to_jsonb(d) ->> 'daticulocale') AS locale,
       pg_catalog.to_jsonb(d) ->> 'daticurules' AS rules"""


def sql_create_like(name, like):
    """The statement that makes the empty database `name`, in encoding and locale as `like`, a row of LOCALE_COLUMNS."""
    text = (
        f"CREATE DATABASE {identifier(name)} TEMPLATE template0 ENCODING {literal(like['encoding'])} "
        f"LC_COLLATE {literal(like['collate'])} LC_CTYPE {literal(like['ctype'])}"
    )
    words = {"i": "icu ICU_LOCALE", "b": "builtin BUILTIN_LOCALE"}.get(like["provider"])
    text += f" LOCALE_PROVIDER {words} {literal(like['locale'])}" if words else ""
    return f"{text} ICU_RULES {literal(like['rules'])}" if like["rules"] else text


def maintenance_name(name):
    """A database to connect to while `name` is made, renamed or dropped."""
    return "template1" if name == "postgres" else "postgres"


def find_keeper(database, name):
    """The Database from which another one, `name`, is made, renamed or dropped.

    No timeout that the role or a database has set counts in its sessions, nor in those of its siblings: they are given
    at connection, so that they hold in a client program, and in a session that replaces a lost one.
    """
    parameters = {row["name"]: "0" for row in database.rows(SQL_KNOWN_TIMEOUTS)}
    return database.sibling(maintenance_name(name), parameters)


def sql_open(name):
    """The statement that lets connections into a database again."""
    return f"ALTER DATABASE {identifier(name)} WITH ALLOW_CONNECTIONS true"


def command_to_open(name):
    """The command for a person to do that by hand, as a shell takes it."""
    import shlex

    return f"psql -d {maintenance_name(name)} -c {shlex.quote(sql_open(name))}"
