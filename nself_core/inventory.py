"""What `list` shows: the tables, views and sequences of the database, their sizes, and on request their rows.

Sizes come from one catalogue query however many objects there are; rows are counted in a few statements of one
session, so that a container costs one `docker exec`.
"""

from __future__ import annotations

from nself_core.failures import LockHeld
from nself_core.output import Report, Table, bytes_text
from nself_core.row_counts import count_rows
from nself_core.sql.quoting import literal

# Partitions are folded under their parent; what belongs to an extension is the extension's. A column's own sequence
# (serial, identity) is listed like any other, as psql's \d does. `obstacle` is why the rows cannot be counted: empty
# where they can, NULL where there are none of its own (a foreign table's are another server's, which may be down).
SQL_OBJECTS = """
SELECT n.nspname AS schema, c.relname AS name,
       CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'v' THEN 'view'
            WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence' ELSE 'foreign table' END AS type,
       CASE WHEN c.relkind IN ('v', 'f') THEN NULL
            WHEN c.relkind = 'p' THEN (SELECT sum(pg_catalog.pg_total_relation_size(t.relid))
                                       FROM pg_catalog.pg_partition_tree(c.oid) t)
            ELSE pg_catalog.pg_total_relation_size(c.oid) END AS size_bytes,
       CASE WHEN c.relkind NOT IN ('r', 'p', 'm') THEN NULL
            WHEN NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE') THEN 'no right to read'
            WHEN NOT pg_catalog.has_table_privilege(c.oid, 'SELECT') THEN 'no right to read'
            WHEN NOT c.relispopulated THEN 'not populated yet' ELSE '' END AS obstacle
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND NOT c.relispartition
  AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema')
  AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                  AND d.objid = c.oid AND d.deptype = 'e')
  AND {condition}
ORDER BY n.nspname, c.relname
"""


SQL_LOCKED = """
SELECT n.nspname || '.' || c.relname AS name, l.pid, a.application_name AS application
FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.mode = 'AccessExclusiveLock' AND l.granted AND c.relkind IN ('r', 'p', 'm') AND n.nspname <> 'pg_catalog'
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
ORDER BY name LIMIT 5
"""


def report(database, prefixes, start, counts, tell):
    """The Report of `list`.

    Arguments: `prefixes`, names must begin with one of them, None for every object of every schema; `start`, a further
    prefix or None; `counts`, whether to count rows; `tell(text)`, progress.
    """
    try:
        objects = database.rows(sql_objects(prefixes, start))
        rows = count_rows(database, objects, tell) if counts else {}
    except LockHeld as failure:
        failure.hint = _lock_hint(database.rows(SQL_LOCKED))
        raise
    data = [_object_data(item, rows) for item in objects]
    warnings = _not_counted(objects) if counts else []
    return Report({"objects": data}, [_table(data, counts)] if data else [], _summary(data, counts), warnings)


def _not_counted(objects):
    """A warning for each reason why objects that have rows were not counted."""
    reasons = sorted({item["obstacle"] for item in objects if item["obstacle"]})
    names = {reason: [f"{o['schema']}.{o['name']}" for o in objects if o["obstacle"] == reason] for reason in reasons}
    return [f"not counted, {reason}: {', '.join(names[reason])}" for reason in reasons]


def _lock_hint(locked):
    """Who holds what; such a lock is a migration's or a VACUUM FULL's, so waiting helps."""
    held = [f"{row['name']} by pid {row['pid']} ({row['application'] or 'no name'})" for row in locked]
    return "wait for the other session" + (f", which holds {', '.join(held)}" if held else "")


def sql_objects(prefixes, start):
    """The catalogue query for objects whose names begin as asked."""
    tests = []
    if prefixes is not None:
        tests.append("(" + (" OR ".join(_begins(prefix) for prefix in prefixes) or "false") + ")")
    else:
        tests.append("n.nspname NOT IN ('hdb_catalog', 'nself_db')")
    if start:
        tests.append(_begins(start))
    return SQL_OBJECTS.format(condition=" AND ".join(tests))


def _begins(prefix):
    return f"pg_catalog.starts_with(c.relname::pg_catalog.text, {literal(prefix)})"


def _object_data(item, rows):
    key = item["schema"], item["name"]
    return {"schema": item["schema"], "name": item["name"], "type": item["type"], "rows": rows.get(key),
            "size_bytes": item["size_bytes"]}


def _table(data, counts):
    columns = ["schema", "name", "type", *(["rows"] if counts else []), "size"]
    rows = [
        [item["schema"], item["name"], item["type"], *([item["rows"]] if counts else []),
         None if item["size_bytes"] is None else bytes_text(item["size_bytes"])]
        for item in data
    ]
    return Table(columns, rows, ["<", "<", "<", *([">"] if counts else []), ">"])


def _summary(data, counts):
    if not data:
        return "no objects with a managed prefix (see NSELF_TABLE_PREFIXES, or --all)"
    total = sum(item["size_bytes"] or 0 for item in data)
    number = sum(item["rows"] or 0 for item in data)
    rows = f", {number} row{'' if number == 1 else 's'}" if counts else ""
    return f"{len(data)} object{'' if len(data) == 1 else 's'}{rows}, {bytes_text(total)}"
