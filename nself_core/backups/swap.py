"""Two databases change places: the present one steps aside under another name, the restored one takes its own.

All of it is sent as one message, which the server carries to its end even where the client dies in the middle: new
connections are refused, the present ones ended, and both renames committed together. A rename needs a database that
nobody is connected to, so it is done from another one.
"""

from __future__ import annotations

import calendar
import re
import time

from nself_core.postgres.maintenance import LOCALE_COLUMNS, sql_create_like, sql_open
from nself_core.redaction import MASK, Masked
from nself_core.sql.quoting import dollar, identifier, literal

BEFORE, RESTORE = "before", "restore"
LONGEST_NAME = 63  # bytes (NAMEDATALEN - 1)
HASH_DIGITS = 8
STAMP_FORM, STAMP_DIGITS = "%Y%m%d%H%M%S", 14  # of the time at the end of a name of `side_name`
LAST_SECONDS = 253402300799  # the end of the year 9999, behind which a time has more digits
WAIT_SECONDS = 15  # for the ended sessions to be gone

SQL_DATABASES = """
SELECT d.datname AS name, d.datallowconn AS open, pg_catalog.pg_database_size(d.oid) AS size_bytes,
       pg_catalog.shobj_description(d.oid, 'pg_database') AS comment
FROM pg_catalog.pg_database d
WHERE pg_catalog.starts_with(d.datname, :prefix)
  AND pg_catalog.substr(d.datname, pg_catalog.length(:prefix) + 1) ~ '^[0-9]{14}$'
ORDER BY d.datname
"""

FAILED = "nself.failed"  # the setting by which a swap tells, behind its last COMMIT, why there was none

# Settings that the server keeps as names, each quoted where it has to be (GUC_LIST_QUOTE in its sources).
LISTS_OF_NAMES = (
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
)

# Whether this role, no superuser, may not end a session of the role `r` (pg_terminate_backend).
MAY_NOT_END = (
    "(r.rolsuper OR NOT (pg_catalog.pg_has_role(r.oid, 'USAGE') "
    "OR pg_catalog.pg_has_role('pg_signal_backend', 'USAGE')))"
)

# For a block that declares `wanted` and `deadline`. An autovacuum worker has no user; only a superuser may end it, and
# the rename does so by itself. (The kind of a process that is not its own an ordinary role is not shown.)
ENDING = f"""LOOP
        BEGIN
            PERFORM pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
            WHERE datname = ANY (wanted) AND pid <> pg_catalog.pg_backend_pid() AND usesysid IS NOT NULL;
            EXIT WHEN NOT FOUND;
        EXCEPTION WHEN insufficient_privilege THEN
            RAISE EXCEPTION 'this role may not end sessions of %', (
                SELECT pg_catalog.string_agg(DISTINCT a.usename::text, ', ') FROM pg_catalog.pg_stat_activity a
                JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid
                WHERE a.datname = ANY (wanted) AND {MAY_NOT_END}
            );
        END;
        IF pg_catalog.clock_timestamp() > deadline THEN
            RAISE EXCEPTION 'sessions in % do not end', wanted;
        END IF;
        PERFORM pg_catalog.pg_sleep(0.05);
        PERFORM pg_catalog.pg_stat_clear_snapshot();
    END LOOP;"""

# What `CREATE DATABASE` and the statements behind it need to make a second database like the first.
SQL_LIKENESS = f"""
SELECT {LOCALE_COLUMNS},
       pg_catalog.pg_get_userbyid(d.datdba) AS owner, d.datconnlimit AS connections,
       CASE WHEN t.oid <> template.dattablespace THEN t.spcname END AS tablespace,
       pg_catalog.shobj_description(d.oid, 'pg_database') AS comment, d.datacl IS NOT NULL AS has_grants,
       coalesce((SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                     'to', CASE WHEN a.grantee = 0 THEN NULL ELSE pg_catalog.pg_get_userbyid(a.grantee) END,
                     'privilege', a.privilege_type, 'option', a.is_grantable))
                 FROM pg_catalog.aclexplode(d.datacl) a), '[]') AS grants,
       coalesce((SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                     'role', CASE WHEN s.setrole = 0 THEN NULL ELSE pg_catalog.pg_get_userbyid(s.setrole) END,
                     'name', pg_catalog.split_part(one, '=', 1),
                     'value', pg_catalog.substr(one, pg_catalog.strpos(one, '=') + 1)))
                 FROM pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) AS one
                 WHERE s.setdatabase = d.oid), '[]') AS settings
FROM pg_catalog.pg_database d JOIN pg_catalog.pg_tablespace t ON t.oid = d.dattablespace
JOIN pg_catalog.pg_database template ON template.datname = 'template0'
WHERE d.datname = :name
"""


def side_name(name, kind, seconds):
    """The name of a database beside `name`: `<name>_before_20240501120000`, at most 63 bytes.

    A name that is too long is cut, and told from others that begin alike by a hash of the whole of it.
    Arguments: `kind`, BEFORE or RESTORE; `seconds` since 1970.
    """
    ending = f"_{kind}_{time.strftime(STAMP_FORM, time.gmtime(seconds))}"
    whole, space = name.encode(), LONGEST_NAME - len(ending)
    if len(whole) > space:
        import hashlib

        ending = f"_{hashlib.sha256(whole).hexdigest()[:HASH_DIGITS]}{ending}"
        name = whole[: LONGEST_NAME - len(ending)].decode("utf-8", "ignore")
    return name + ending


def side_prefix(name, kind):
    """What the names of `side_name` begin with."""
    return side_name(name, kind, 0)[: -len("19700101000000")]


def side_seconds(name):
    """The time in a name of `side_name`, in seconds since 1970; None where what stands there is none."""
    try:
        return calendar.timegm(time.strptime(name[-STAMP_DIGITS:], STAMP_FORM))
    except ValueError:
        return None


def later_name(name, kind, seconds, taken):
    """As `side_name`, but behind the names in `taken`, also where the clock went back: undo takes the last of them."""
    known = [found + 1 for found in map(side_seconds, taken) if found is not None and found < LAST_SECONDS]
    return side_name(name, kind, max([seconds, *known]))


def sql_create(new, like):
    """The statement that makes the empty database `new` like `like`, a row of SQL_LIKENESS."""
    text = f"{sql_create_like(new, like)} OWNER {identifier(like['owner'])}"
    # To name the template's own tablespace, too, wants a right that an ordinary owner has not.
    return f"{text} TABLESPACE {identifier(like['tablespace'])}" if like["tablespace"] else text


def sql_dress(new, like):
    """The statements that give `new` the owner, grants, settings, limit and comment of `like`."""
    name = identifier(new)
    texts = [f"ALTER DATABASE {name} OWNER TO {identifier(like['owner'])}"]  # it may have another one by now
    if like["has_grants"]:
        texts.append(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
        texts += [_grant(name, grant) for grant in like["grants"]]
    for setting in like["settings"]:
        who = f"ROLE {identifier(setting['role'])} IN DATABASE" if setting["role"] else "DATABASE"
        texts.append(_set(f"ALTER {who} {name} SET {_setting_name(setting['name'])} TO ", setting))
    if like["connections"] >= 0:
        texts.append(f"ALTER DATABASE {name} CONNECTION LIMIT {int(like['connections'])}")
    if like["comment"] is not None:
        texts.append(f"COMMENT ON DATABASE {name} IS {literal(like['comment'])}")
    return tuple(texts)


def _grant(name, grant):
    to = identifier(grant["to"]) if grant["to"] else "PUBLIC"
    option = " WITH GRANT OPTION" if grant["option"] else ""
    return f"GRANT {grant['privilege']} ON DATABASE {name} TO {to}{option}"


def _set(head, setting):
    """The whole statement. Of an application's own setting nobody knows whether its value is a secret."""
    text = head + _setting_value(setting)
    return Masked(text, head + literal(MASK)) if "." in setting["name"] else text


def _setting_name(name):
    return ".".join(identifier(part) for part in name.split("."))


def _setting_value(setting):
    """The value as SET takes it: of a list of names, each by itself, for the server quotes each."""
    if setting["name"].lower() not in LISTS_OF_NAMES:
        return literal(setting["value"])
    items = re.findall(r'"((?:[^"]|"")*)"|([^\s",]+)', setting["value"])
    return ", ".join(literal(quoted.replace('""', '"') or plain) for quoted, plain in items) or "''"


def sql_swap(present, new, aside):
    """The statements by which `new` becomes `present` and what was there becomes `aside`; sent as one message.

    The first COMMIT stands where it does because sessions see a database closed only once that is committed. From there
    on the server lets connections in again by itself where it fails: whoever has sent this may be gone by then. And it
    has nothing to tell him before the end, where each COMMIT would warn that none was begun: it would find him gone,
    and stop with the database closed.
    """
    opened = literal(sql_open(present))
    return (
        f"SELECT pg_catalog.set_config('{FAILED}', '', false)",
        "SELECT pg_catalog.set_config('client_min_messages', 'error', false)",
        f"ALTER DATABASE {identifier(present)} WITH ALLOW_CONNECTIONS false",
        "COMMIT",
        "DO "
        + dollar(f"""{_deadline((present, new))}
BEGIN
    {ENDING}
    EXECUTE {literal(f"ALTER DATABASE {identifier(present)} RENAME TO {identifier(aside)}")};
    EXECUTE {literal(f"ALTER DATABASE {identifier(new)} RENAME TO {identifier(present)}")};
    EXECUTE {literal(sql_open(aside))};
EXCEPTION WHEN OTHERS OR query_canceled THEN
    EXECUTE {opened};
    PERFORM pg_catalog.set_config('{FAILED}', SQLERRM, false);
END"""),
        "COMMIT",
        f"""DO $nself$ BEGIN
    IF pg_catalog.current_setting('{FAILED}') <> '' THEN
        RAISE EXCEPTION '%', pg_catalog.current_setting('{FAILED}');
    END IF;
END $nself$""",
    )


def sql_end_sessions(names):
    """A DO statement that ends the sessions of databases and waits until they are gone."""
    return "DO " + dollar(f"{_deadline(names)}\nBEGIN\n    {ENDING}\nEND")


def _deadline(names):
    wanted = ", ".join(literal(name) for name in names)
    return f"""DECLARE deadline timestamptz := pg_catalog.clock_timestamp() + interval '{WAIT_SECONDS} seconds';
    wanted name[] := ARRAY[{wanted}];"""
