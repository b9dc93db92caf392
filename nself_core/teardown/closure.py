"""What goes when managed objects go: the objects, what is part of them, and what outside hangs on them.

One question to the catalogue, which waits for no lock. It follows pg_depend as the server's own DROP does (manual,
"pg_depend"), so that nothing need be known here of defaults, policies, generated columns or what a later version adds.
"""

from __future__ import annotations

from collections import namedtuple

from nself_core.sql.quoting import identifier, qualified

# Schemas of which nothing is taken, beside all whose names begin with pg_ or hdb_ and those of extensions.
KEPT_SCHEMAS = ("auth", "storage", "cron", "information_schema", "nself_db")

RELATIONS = ("table", "view", "materialized view", "foreign table", "sequence")

Scope = namedtuple("Scope", "prefixes audit emptied whole", defaults=(False, (), ()))
Scope.__doc__ = """Which objects are meant.

`prefixes`, objects and schemas whose names begin with one of them; `audit`, whether the audit log too; `emptied`,
names of further schemas of which everything goes; `whole`, names of further schemas that go themselves.
"""

Outside = namedtuple("Outside", "text kept")
Outside.__doc__ = """A thing that hangs on what goes, and would go with it.

`text` names it as the server does; `kept`, whether it is an extension's or in a schema of which nothing is taken.
"""

Closure = namedtuple("Closure", "objects needs outside gone")
Closure.__doc__ = """What a drop means for the whole database.

`objects`, the Objects to drop; `needs`, (a, b): object number a hangs on number b; `outside`, Outsides; `gone`, a set
of (kind, schema, name) of every relation, routine, type and schema that would be there no more, also as part of another
or outside.
"""


class Object(namedtuple("Object", "number kind schema name arguments is_procedure obstacle")):
    """One object to drop.

    `kind`, one of RELATIONS, "routine", "type" or "schema"; `arguments`, of a routine the input types as (schema,
    name); `obstacle`, why rows cannot be counted: "" where they can, None where there are none.
    """

    __slots__ = ()

    @property
    def sql(self):
        """Its name as DROP takes it.

        An argument's mode is said of procedures: without it their output arguments could be meant too.
        """
        if self.kind == "schema":
            return identifier(self.name)
        if self.kind != "routine":
            return qualified(self.schema, self.name)
        mode = "IN " if self.is_procedure else ""
        return f"{qualified(self.schema, self.name)}({', '.join(mode + qualified(*type) for type in self.arguments)})"

    @property
    def shown(self):
        """Its name for people."""
        name = self.name if self.kind == "schema" or self.schema == "public" else f"{self.schema}.{self.name}"
        return f"{name}({', '.join(_shown_type(*type) for type in self.arguments)})" if self.kind == "routine" else name


def _shown_type(schema, name):
    if schema != "pg_catalog":
        return f"{schema}.{name}"
    return f"{name[1:]}[]" if name.startswith("_") else name  # pg_catalog's arrays are called so


# Whether d's object is a part of the object it refers to, and so goes with it unasked. An automatic dependency of a
# column is none: until Postgres 14 that is a generated column's on a function, which may be another's. A trigger is a
# part of its table only, not of a second one that it names (FROM).
_IS_PART = """(
    d.deptype IN ('i', 'P', 'S') OR d.deptype = 'a' AND d.objsubid = 0 AND (
        d.classid <> 'pg_catalog.pg_trigger'::pg_catalog.regclass
        OR EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.oid = d.objid AND t.tgrelid = d.refobjid)))"""

_FOLLOWED = "d.deptype IN ('n', 'a', 'i', 'P', 'S')"

# space: the schemas something may be taken of, and whether all of it, and whether they themselves.
# item: what is meant by name; what belongs to an extension or to another object is not for itself.
# audit: the audit log where it stays, its parts, and the routines and types it needs.
# target: what is dropped. A partition goes with a table above it; a schema stays with an extension or the audit log.
# home: the targets and all that is part of them. outside: what else the server's DROP … CASCADE would take; where a
#   thing that another is made of goes ('i' upwards: a view's rule), that other goes.
SQL_CLOSURE = f"""
WITH RECURSIVE prefix AS MATERIALIZED (
    SELECT value FROM pg_catalog.json_array_elements_text(:prefixes) AS given(value)
), space AS MATERIALIZED (
    SELECT n.oid, n.nspname::pg_catalog.text AS name, named.goes OR n.nspname::pg_catalog.text IN (
               SELECT value FROM pg_catalog.json_array_elements_text(:emptied) AS given(value)) AS emptied, named.goes
    FROM pg_catalog.pg_namespace n CROSS JOIN LATERAL (
        SELECT EXISTS (SELECT FROM prefix WHERE pg_catalog.starts_with(n.nspname::pg_catalog.text, prefix.value))
            OR n.nspname::pg_catalog.text IN (
               SELECT value FROM pg_catalog.json_array_elements_text(:whole) AS given(value)) AS goes) named
    WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT LIKE 'hdb\\_%'
      AND n.nspname::pg_catalog.text NOT IN (
          SELECT value FROM pg_catalog.json_array_elements_text(:kept) AS given(value))
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.objid = n.oid AND d.deptype = 'e'
                      AND d.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass)
), thing AS (
    SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid AS class, c.oid AS id, c.relnamespace AS space,
           c.relname::pg_catalog.text AS name, CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view'
               WHEN 'f' THEN 'foreign table' WHEN 'S' THEN 'sequence' ELSE 'table' END AS kind
    FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    UNION ALL SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid, p.pronamespace, p.proname, 'routine'
    FROM pg_catalog.pg_proc p
    UNION ALL SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid, t.typnamespace, t.typname, 'type'
    FROM pg_catalog.pg_type t
    UNION ALL SELECT 'pg_catalog.pg_namespace'::pg_catalog.regclass, space.oid, space.oid, space.name, 'schema'
    FROM space WHERE space.goes
), item AS MATERIALIZED (
    SELECT thing.class, thing.id, space.oid AS space, space.name AS schema, thing.name, thing.kind
    FROM thing JOIN space ON space.oid = thing.space
    WHERE (space.emptied
           OR EXISTS (SELECT FROM prefix WHERE pg_catalog.starts_with(thing.name, prefix.value)))
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = thing.class AND d.objid = thing.id
          AND d.objsubid = 0 AND (d.deptype IN ('e', 'i') OR d.deptype = 'a' AND thing.kind = 'sequence'))
), audit(class, id) AS (
    SELECT item.class, item.id FROM item
    WHERE NOT :audit AND (item.name = 'np_audit_log' OR pg_catalog.starts_with(item.name, 'np_audit_log_'))
    UNION
    SELECT step.class, step.id FROM audit CROSS JOIN LATERAL (
        SELECT d.classid, d.objid FROM pg_catalog.pg_depend d
        WHERE d.refclassid = audit.class AND d.refobjid = audit.id AND {_IS_PART}
        UNION ALL SELECT d.refclassid, d.refobjid FROM pg_catalog.pg_depend d
        WHERE d.classid = audit.class AND d.objid = audit.id AND d.deptype IN ('n', 'i') AND (
            d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
            OR d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass)) AS step(class, id)
), target AS MATERIALIZED (
    SELECT item.*, pg_catalog.row_number() OVER (ORDER BY item.schema, item.name, item.kind, item.id) AS number
    FROM item
    WHERE NOT EXISTS (SELECT FROM audit WHERE audit.class = item.class AND audit.id = item.id)
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_partition_ancestors(
                          CASE WHEN item.kind IN ('table', 'foreign table') THEN item.id END) AS above(id)
                      JOIN item AS parent ON parent.id = above.id AND parent.kind = 'table' AND above.id <> item.id
                      WHERE NOT EXISTS (SELECT FROM audit WHERE audit.class = parent.class AND audit.id = parent.id))
      AND NOT (item.kind = 'schema' AND (
          EXISTS (SELECT FROM pg_catalog.pg_extension e WHERE e.extnamespace = item.id)
          OR EXISTS (SELECT FROM audit JOIN item AS stays ON stays.class = audit.class AND stays.id = audit.id
                     WHERE stays.space = item.id)))
), home(class, id, number) AS (
    SELECT target.class, target.id, target.number FROM target
    UNION
    SELECT d.classid, d.objid, home.number
    FROM home JOIN pg_catalog.pg_depend d ON d.refclassid = home.class AND d.refobjid = home.id
    WHERE {_IS_PART}
), inside AS MATERIALIZED (
    SELECT DISTINCT home.class, home.id FROM home
), outside(class, id, sub) AS (
    SELECT d.classid, d.objid, d.objsubid
    FROM inside JOIN pg_catalog.pg_depend d ON d.refclassid = inside.class AND d.refobjid = inside.id
    WHERE {_FOLLOWED} AND NOT EXISTS (SELECT FROM inside own WHERE own.class = d.classid AND own.id = d.objid)
    UNION
    SELECT step.class, step.id, step.sub FROM outside CROSS JOIN LATERAL (
        SELECT d.classid, d.objid, d.objsubid FROM pg_catalog.pg_depend d
        WHERE d.refclassid = outside.class AND d.refobjid = outside.id AND {_FOLLOWED}
          AND (outside.sub = 0 OR d.refobjsubid = outside.sub)
        UNION ALL SELECT d.refclassid, d.refobjid, d.refobjsubid FROM pg_catalog.pg_depend d
        WHERE d.classid = outside.class AND d.objid = outside.id AND d.objsubid = outside.sub AND d.deptype = 'i'
    ) AS step(class, id, sub)
    WHERE NOT EXISTS (SELECT FROM inside own WHERE own.class = step.class AND own.id = step.id)
), shown AS (
    SELECT outside.*, pg_catalog.pg_describe_object(class, id, sub) AS text,
           CASE WHEN class = 'pg_catalog.pg_type'::pg_catalog.regclass
                THEN (pg_catalog.pg_identify_object(class, id, sub)).schema
                ELSE (pg_catalog.pg_identify_object_as_address(class, id, sub)).object_names[1] END AS schema
    FROM outside
    WHERE NOT EXISTS (SELECT FROM outside AS whole WHERE whole.class = outside.class AND whole.id = outside.id
                      AND whole.sub = 0 AND outside.sub > 0)
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                      JOIN outside AS owner ON owner.class = d.refclassid AND owner.id = d.refobjid
                           AND owner.sub IN (0, d.refobjsubid)
                      WHERE d.classid = outside.class AND d.objid = outside.id AND outside.sub = 0 AND {_IS_PART})
), gone AS (
    SELECT class, id FROM inside UNION SELECT class, id FROM outside WHERE sub = 0
)
SELECT coalesce((SELECT pg_catalog.json_agg(pg_catalog.json_build_array(
        target.number, target.kind, target.schema, target.name,
        coalesce((SELECT pg_catalog.json_agg(pg_catalog.json_build_array(n.nspname, t.typname) ORDER BY given.place)
            FROM pg_catalog.pg_proc p, pg_catalog.unnest(p.proargtypes) WITH ORDINALITY AS given(type, place),
                 pg_catalog.pg_type t, pg_catalog.pg_namespace n
            WHERE target.kind = 'routine' AND p.oid = target.id AND t.oid = given.type AND n.oid = t.typnamespace),
            '[]'),
        EXISTS (SELECT FROM pg_catalog.pg_proc p
                WHERE target.kind = 'routine' AND p.oid = target.id AND p.prokind = 'p'),
        CASE WHEN target.kind <> 'table' THEN NULL
             WHEN NOT pg_catalog.has_schema_privilege(target.space, 'USAGE')
               OR NOT pg_catalog.has_table_privilege(target.id, 'SELECT') THEN 'no right to read' ELSE '' END
    ) ORDER BY target.number) FROM target), '[]') AS objects,
    coalesce((SELECT pg_catalog.json_agg(pg_catalog.json_build_array(pair.one, pair.other)) FROM (
        SELECT DISTINCT one.number AS one, other.number AS other
        FROM pg_catalog.pg_depend d JOIN home one ON one.class = d.classid AND one.id = d.objid
            JOIN home other ON other.class = d.refclassid AND other.id = d.refobjid
        WHERE one.number <> other.number AND {_FOLLOWED}) pair), '[]') AS needs,
    coalesce((SELECT pg_catalog.json_agg(pg_catalog.json_build_array(shown.text,
        shown.class = 'pg_catalog.pg_extension'::pg_catalog.regclass
        OR EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = shown.class AND d.objid = shown.id
                   AND d.deptype = 'e')
        OR EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.nspname = shown.schema
                   AND n.oid NOT IN (SELECT space.oid FROM space))
        ) ORDER BY shown.text) FROM shown), '[]') AS outside,
    coalesce((SELECT pg_catalog.json_agg(pg_catalog.json_build_array(thing.kind, n.nspname, thing.name))
        FROM gone JOIN thing ON thing.class = gone.class AND thing.id = gone.id
            JOIN pg_catalog.pg_namespace n ON n.oid = thing.space), '[]') AS gone
"""


def is_kept(schema):
    """Whether nothing of the schema of this name is ever taken; those of extensions are known to the server only."""
    return schema in KEPT_SCHEMAS or schema.startswith(("pg_", "hdb_"))


def read_closure(database, scope):
    """The Closure of what `scope` means, in one question; changes nothing. Raises as Database.rows does."""
    (row,) = database.rows(
        SQL_CLOSURE,
        prefixes=list(scope.prefixes),
        audit=scope.audit,
        emptied=list(scope.emptied),
        whole=list(scope.whole),
        kept=list(KEPT_SCHEMAS),
    )
    return Closure(
        [_object(values) for values in row["objects"]],
        [tuple(pair) for pair in row["needs"]],
        [Outside(*values) for values in row["outside"]],
        {tuple(values) for values in row["gone"]},
    )


def _object(values):
    number, kind, schema, name, arguments, *rest = values
    return Object(number, kind, schema, name, tuple(tuple(type) for type in arguments), *rest)
