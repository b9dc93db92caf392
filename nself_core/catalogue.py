"""Tables as the catalogue knows them, asked for by name: columns, keys, and what must be filled before what.

One query answers for any number of tables. A partition stands for the table it is a part of: what is said here of a
partitioned table is said of its root.
"""

from __future__ import annotations

from collections import namedtuple

from nself_core.sql.quoting import qualified

Column = namedtuple("Column", "name type array nullable default identity generated sequence")
Column.__doc__ = """One column.

`type`, as SQL writes it ("character varying(20)"), a domain as its base type; `array`, whether that is an array;
`nullable` and `default`, whether it may be NULL and whether it has a default; `identity`, "always", "by default" or
""; `generated`, whether it is computed; `sequence`, SQL for the name of the sequence it takes numbers from, or None.
"""


class Table(namedtuple("Table", "schema name columns primary_key unique deferrable copies triggers")):
    """One table.

    `columns`, Columns in order; `primary_key`, names of its columns, () where it has none; `unique`, whether any
    constraint or index could refuse a row for another's sake; `deferrable`, whether any of these may do so later, for
    then none can settle an ON CONFLICT; `copies`, whether COPY may put rows straight into it, which it may not into a
    view or past row-level security; `triggers`, whether it has any of its own, which could fill other tables.
    """

    __slots__ = ()

    @property
    def key(self):
        """(schema, name)."""
        return self.schema, self.name

    @property
    def sql(self):
        """Its name as SQL."""
        return qualified(self.schema, self.name)

    @property
    def shown(self):
        """Its name for people: without the schema where that is public."""
        return self.name if self.schema == "public" else f"{self.schema}.{self.name}"


ForeignKey = namedtuple("ForeignKey", "name table columns target target_columns deferrable nullable")
ForeignKey.__doc__ = """One foreign key.

`table` and `target`, (schema, name); `columns` and `target_columns`, names in the key's order; `deferrable`, whether
it may be checked at the end of a transaction; `nullable`, whether a row may leave it empty (one of its columns may be
NULL, and it is not MATCH FULL, or all may).
"""

Facts = namedtuple("Facts", "tables keys")
Facts.__doc__ = """What is known of the tables asked for.

`tables`, asked-for (schema or None, name) -> Table, without those that are not there; `keys`, the ForeignKeys of these
tables, sorted by table and name, also those that lead to tables not asked for.
"""

# asked: the names, each with the table it means by the session's search_path; folded: each with its root.
# What pg_get_serial_sequence cannot name (a default by hand that calls nextval) is no column's own sequence.
SQL_TABLES = """
WITH asked AS (
    SELECT item.number, pg_catalog.to_regclass(CASE WHEN item.schema IS NULL THEN pg_catalog.quote_ident(item.name)
        ELSE pg_catalog.format('%I.%I', item.schema, item.name) END)::oid AS oid
    FROM pg_catalog.json_to_recordset(:names::json) AS item(number int, schema text, name text)
), folded AS (
    SELECT asked.number, coalesce(pg_catalog.pg_partition_root(c.oid), c.oid)::oid AS oid
    FROM asked JOIN pg_catalog.pg_class c ON c.oid = asked.oid AND c.relkind IN ('r', 'p', 'v', 'f')
), roots AS (
    SELECT DISTINCT oid FROM folded
), columns AS (
    SELECT a.attrelid AS oid, pg_catalog.json_agg(pg_catalog.json_build_array(
        a.attname, pg_catalog.format_type(CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE a.atttypid END,
                                          CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE a.atttypmod END),
        coalesce(b.typcategory, t.typcategory) = 'A', NOT (a.attnotnull OR t.typnotnull),
        a.atthasdef OR t.typdefault IS NOT NULL,
        CASE a.attidentity WHEN 'a' THEN 'always' WHEN 'd' THEN 'by default' ELSE '' END, a.attgenerated <> '',
        CASE WHEN a.attidentity <> '' OR a.atthasdef THEN pg_catalog.pg_get_serial_sequence(
            pg_catalog.format('%I.%I', n.nspname, c.relname), a.attname) END) ORDER BY a.attnum) AS columns
    FROM roots JOIN pg_catalog.pg_class c ON c.oid = roots.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_catalog.pg_type t ON t.oid = a.atttypid LEFT JOIN pg_catalog.pg_type b ON b.oid = t.typbasetype
    GROUP BY a.attrelid
), tables AS (
    SELECT folded.number, n.nspname AS schema, c.relname AS name, coalesce(columns.columns, '[]') AS columns,
           coalesce((SELECT pg_catalog.json_agg(a.attname ORDER BY k.place)
                     FROM pg_catalog.pg_constraint p, pg_catalog.unnest(p.conkey) WITH ORDINALITY AS k(attnum, place),
                          pg_catalog.pg_attribute a
                     WHERE p.conrelid = c.oid AND p.contype = 'p' AND a.attrelid = c.oid AND a.attnum = k.attnum),
                    '[]') AS primary_key,
           EXISTS (SELECT FROM pg_catalog.pg_index i
                   WHERE i.indrelid = c.oid AND (i.indisunique OR i.indisexclusion)) AS "unique",
           EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND NOT i.indimmediate) AS deferrable,
           c.relkind <> 'v' AND NOT pg_catalog.row_security_active(c.oid) AS copies,
           EXISTS (SELECT FROM pg_catalog.pg_trigger g WHERE g.tgrelid = c.oid AND NOT g.tgisinternal) AS triggers
    FROM folded JOIN pg_catalog.pg_class c ON c.oid = folded.oid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace LEFT JOIN columns ON columns.oid = c.oid
), keys AS (
    SELECT f.conname AS name, pg_catalog.json_build_array(n.nspname, c.relname) AS "table",
           pg_catalog.json_build_array(tn.nspname, tc.relname) AS target,
           f.condeferrable AS deferrable, own.columns, own.nullable, far.columns AS target_columns,
           n.nspname AS by_schema, c.relname AS by_name
    FROM pg_catalog.pg_constraint f
    JOIN roots ON roots.oid = f.conrelid OR roots.oid = pg_catalog.pg_partition_root(f.conrelid)
    JOIN pg_catalog.pg_class c ON c.oid = roots.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_class tc ON tc.oid = coalesce(pg_catalog.pg_partition_root(f.confrelid), f.confrelid)
    JOIN pg_catalog.pg_namespace tn ON tn.oid = tc.relnamespace
    CROSS JOIN LATERAL (
        SELECT pg_catalog.json_agg(a.attname ORDER BY k.place) AS columns,
               CASE f.confmatchtype WHEN 'f' THEN pg_catalog.bool_and(NOT a.attnotnull)
                    ELSE pg_catalog.bool_or(NOT a.attnotnull) END AS nullable
        FROM pg_catalog.unnest(f.conkey) WITH ORDINALITY AS k(attnum, place)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.attnum) own
    CROSS JOIN LATERAL (
        SELECT pg_catalog.json_agg(a.attname ORDER BY k.place) AS columns
        FROM pg_catalog.unnest(f.confkey) WITH ORDINALITY AS k(attnum, place)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = f.confrelid AND a.attnum = k.attnum) far
    WHERE f.contype = 'f' AND f.conparentid = 0
)
SELECT coalesce((SELECT pg_catalog.json_agg(tables) FROM tables), '[]') AS tables,
       coalesce((SELECT pg_catalog.json_agg(keys ORDER BY by_schema, by_name, name) FROM keys), '[]') AS keys
"""


def find_tables(database, names):
    """The Facts of tables by name, in one query.

    Arguments: `database`, asked in its session and by its search_path; `names`, an iterable of (schema or None, name)
    as the catalogue spells them. A name that means no table, view or foreign table is left out.
    """
    asked = list(dict.fromkeys(names))
    if not asked:
        return Facts({}, [])
    items = [{"number": number, "schema": schema, "name": name} for number, (schema, name) in enumerate(asked)]
    (row,) = database.rows(SQL_TABLES, names=items)
    tables = {asked[found["number"]]: _table(found) for found in row["tables"]}
    return Facts(tables, [_foreign_key(found) for found in row["keys"]])


def _table(found):
    columns = tuple(Column(*values) for values in found["columns"])
    known = (found[name] for name in ("unique", "deferrable", "copies", "triggers"))
    return Table(found["schema"], found["name"], columns, tuple(found["primary_key"]), *known)


def _foreign_key(found):
    return ForeignKey(
        found["name"],
        tuple(found["table"]),
        tuple(found["columns"]),
        tuple(found["target"]),
        tuple(found["target_columns"]),
        found["deferrable"],
        found["nullable"],
    )
