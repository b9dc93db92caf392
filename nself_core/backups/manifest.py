"""What stands beside a backup: what it is of, what it holds, and the hash by which it is known again.

A dump without its manifest is not known to be whole: the manifest is written last.
"""

from __future__ import annotations

import json
import os

from nself_core import __version__
from nself_core.backups.folder import PART, remove
from nself_core.backups.names import MANIFEST
from nself_core.failures import FileFailure, UsageFailure

FORM = 1  # of the manifest itself

# What a manifest must say for a backup to be known again, and what more for it to be restored.
KNOWN_BY = {"file": str, "bytes": int, "sha256": str, "database": str, "env": str}
RESTORED_BY = {
    "server": str, "server_version": int, "encoding": str, "collate": str, "size_bytes": int, "started_at": str,
    "extensions": dict, "estimated_rows": dict, "versions": list,
}  # fmt: skip

# About how many rows a table `c` has; of one that was never analysed, what the statistics have seen being written.
ABOUT_ROWS = "CASE WHEN c.reltuples < 0 THEN pg_catalog.pg_stat_get_live_tuples(c.oid) ELSE c.reltuples::bigint END"
# Whether that number says little: never analysed, or a twentieth of the rows was written since.
UNSURE = "(c.reltuples < 0 OR pg_catalog.pg_stat_get_mod_since_analyze(c.oid) > c.reltuples / 20)"

METADATA = "hdb_catalog.hdb_metadata"
HAS_METADATA = """EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = 'hdb_catalog' AND c.relname = 'hdb_metadata')"""
SQL_METADATA = f"SELECT {HAS_METADATA} AS metadata"

SQL_FACTS = f"""
SELECT pg_catalog.current_database() AS database,
       pg_catalog.current_setting('server_version') AS server,
       pg_catalog.current_setting('server_version_num')::int AS server_version,
       pg_catalog.pg_encoding_to_char(d.encoding) AS encoding, d.datcollate AS collate, d.datctype AS ctype,
       pg_catalog.to_jsonb(d) ->> 'datlocprovider' AS locale_provider,
       coalesce(pg_catalog.to_jsonb(d) ->> 'datlocale', pg_catalog.to_jsonb(d) ->> 'daticulocale') AS locale,
       pg_catalog.pg_get_userbyid(d.datdba) AS owner, d.datacl::text AS grants,
       pg_catalog.pg_database_size(d.oid) AS size_bytes,
       pg_catalog.shobj_description(d.oid, 'pg_database') AS comment,
       coalesce((SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                            'role', pg_catalog.pg_get_userbyid(s.setrole), 'settings', s.setconfig))
                 FROM pg_catalog.pg_db_role_setting s WHERE s.setdatabase = d.oid), '[]') AS settings,
       coalesce((SELECT pg_catalog.json_object_agg(e.extname, e.extversion ORDER BY e.extname)
                 FROM pg_catalog.pg_extension e), '{{}}') AS extensions,
       coalesce((SELECT pg_catalog.json_object_agg(pg_catalog.format('%I.%I', n.nspname, c.relname), {ABOUT_ROWS}
                                                   ORDER BY n.nspname, c.relname)
                 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                 WHERE c.relkind = 'r' AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'), '{{}}')
           AS estimated_rows,
       coalesce((SELECT pg_catalog.json_agg(pg_catalog.format('%I.%I', n.nspname, c.relname)
                                            ORDER BY n.nspname, c.relname)
                 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                 WHERE c.relkind = 'r' AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
                     AND {UNSURE}), '[]') AS unsure_rows,
       EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = 'hdb_catalog' AND c.relname = 'schema_migrations') AS migrated,
       {HAS_METADATA} AS metadata,
       pg_catalog.pg_is_in_recovery() AS standby,
       pg_catalog.current_setting('max_connections')::int AS max_connections
FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
"""

SQL_VERSIONS = "SELECT version::text AS version FROM hdb_catalog.schema_migrations WHERE NOT dirty ORDER BY version"


def read_facts(database):
    """What the manifest says of the database, in one question, or two where migrations are recorded."""
    facts = dict(database.rows(SQL_FACTS)[0])
    versions = database.rows(SQL_VERSIONS) if facts.pop("migrated") else []
    facts["versions"] = [row["version"] for row in versions]
    return facts


def check_connections(jobs, facts):
    """Raise UsageFailure for more jobs than the server has connections: they would take them from everybody else.

    Arguments: `jobs`, a number or None; `facts`, of `read_facts`.
    """
    most = facts["max_connections"]
    if jobs and jobs >= most:
        raise UsageFailure(f"--jobs {jobs} takes {jobs + 1} connections, and the server has {most}")


def read_metadata(database):
    """Whether Hasura keeps its metadata in the database."""
    return database.rows(SQL_METADATA)[0]["metadata"]


def may_hold_metadata(manifest):
    """Whether a backup may bring Hasura's metadata with it; one without a manifest (None) may.

    What a manifest tells of the tables is not readable where it is encrypted: the fact itself is.
    """
    return manifest is None or bool(manifest.get("metadata")) or METADATA in (manifest.get("estimated_rows") or ())


def document(facts, details):
    """The manifest as a dict.

    Arguments: `facts`, of `read_facts`; `details`, what is known of the dump itself: file, format, sha256, bytes,
    pg_dump, globals, label, env, project, started_at, finished_at.
    """
    return {"nself_backup": FORM, "tool": f"nself-db {__version__}", **details, **facts}


def is_of_project(manifest, project):
    """Whether a manifest is of the `project` of this name, or does not say of which it is."""
    return manifest.get("project", project) == project


def write_manifest(path, manifest):
    """Write it whole beside the backup at `path`. Raises OSError."""
    temporary = f"{path}{MANIFEST}{PART}"
    try:
        _write(temporary, manifest)
        os.replace(temporary, f"{path}{MANIFEST}")
    except BaseException:
        remove(temporary)
        raise


def _write(temporary, manifest):
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as stream:
        stream.write(encoded(manifest))
        stream.flush()
        os.fsync(stream.fileno())


def read_manifest(path):
    """The manifest beside the backup at `path`, or None where there is none. Raises FileFailure for what is not one."""
    target = f"{path}.json"
    try:
        with open(target, encoding="utf-8") as stream:
            found = json.load(stream)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise FileFailure(f"this manifest cannot be read: {error}", file=target) from None
    return checked(found, target)


def parse(data, place):
    """The manifest that is these bytes; `place`, where they come from. Raises FileFailure for what is not one."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FileFailure(f"this manifest cannot be read: {error}", file=place) from None
    return checked(found, place)


def encoded(manifest):
    """A manifest as bytes, as it stands in files and objects."""
    return (json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def checked(found, place):
    """A document that is a manifest, itself. Raises FileFailure for another one."""
    if not isinstance(found, dict) or found.get("nself_backup") != FORM:
        raise FileFailure("this is not the manifest of a backup of nself-db", file=place)
    _refuse_lacking(found, KNOWN_BY, place)
    return found


def check_restorable(manifest, place, sealed=()):
    """Raise FileFailure for a manifest by which nothing can be restored: it lacks facts that every backup's has.

    Arguments: `place`, where it stands; `sealed`, the names of the facts that may be encrypted in it.
    """
    hidden = sealed if "sealed" in manifest else ()
    _refuse_lacking(manifest, {name: kind for name, kind in RESTORED_BY.items() if name not in hidden}, place)
    numbers = {} if "estimated_rows" in hidden else manifest["estimated_rows"]
    versions = () if "versions" in hidden else manifest["versions"]
    if not all(isinstance(rows, int) for rows in numbers.values()):
        raise FileFailure("this manifest holds numbers of rows that are none", file=place)
    if not all(isinstance(version, str) and version.isdecimal() for version in versions):
        raise FileFailure("this manifest holds versions of migrations that are none", file=place)


def _refuse_lacking(manifest, kinds, place):
    wrong = [name for name, kind in kinds.items() if not isinstance(manifest.get(name), kind)]
    if wrong:
        raise FileFailure(f"this manifest does not say its {', '.join(wrong)}", file=place)
