"""The SQL that finds which Requirements the catalogue does not satisfy: one SELECT, whatever their number.

The requirements travel inside it as JSON, so it needs no table of its own and sees what its transaction sees. The
rules are the engine's (hasura/graphql-engine v2: pg_table_metadata, getRequiredFkey, fetchAndValidateEnumValues).
"""

from __future__ import annotations

from nself_core.guard.requirements import RELATIONSHIP
from nself_core.sql.quoting import bind, dollar

# The SQLSTATE of the guard's exception: ours, outside the classes that Postgres and PL/pgSQL use.
BROKEN_SQLSTATE = "NSG01"

# The document that `requirements` reads, where to_regclass('hdb_catalog.hdb_metadata') finds the table.
SQL_METADATA = "SELECT metadata FROM hdb_catalog.hdb_metadata"

OPERATORS = ("=", "<>", ">", "<=", "@>", "<@", "+", "~")


def _with_own_operators(sql):
    """`sql` with every operator named by its schema: a file may have left a search_path with operators of its own."""
    for operator in OPERATORS:
        sql = sql.replace(f" {operator} ", f" OPERATOR(pg_catalog.{operator}) ")
    return sql


# need: the requirements, each with its table found.
# hop: the relationships that work, and the table each leads to. The engine wants exactly one foreign key on exactly
#   these columns and a tracked table behind it; a partition's copy of a constraint on the same table is no second one.
# walk: from the start of a path along its relationships.
# An enum table's rows are read by ts_stat, the one function of every build that runs a query given as text (those on
#   XML want libxml): it must have rows, and only such as are names in GraphQL. Rows that may not be read count as good.
SQL_UNSATISFIED = _with_own_operators("""
WITH RECURSIVE need AS MATERIALIZED (
    SELECT item.*, c.oid AS relation
    FROM pg_catalog.json_to_recordset(:needs::pg_catalog.json) AS item(
        kind pg_catalog.text, s pg_catalog.text, t pg_catalog.text, n pg_catalog.text, why pg_catalog.int8[],
        path pg_catalog.text[], columns pg_catalog.text[], other pg_catalog.text[])
    LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = item.s
    LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = item.t
        AND c.relkind = ANY (ARRAY['r', 'v', 'm', 'f', 'p']::pg_catalog."char"[])
), link AS MATERIALIZED (
    SELECT need.*, c.oid AS far
    FROM need
    LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = need.other[1]
    LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = need.other[2]
        AND c.relkind = ANY (ARRAY['r', 'v', 'm', 'f', 'p']::pg_catalog."char"[])
    WHERE need.kind = 'relationship' AND need.relation IS NOT NULL
), hop AS MATERIALIZED (
    SELECT link.relation, link.n, CASE WHEN link.other IS NULL THEN found.target ELSE link.far END AS target
    FROM link
    CROSS JOIN LATERAL (
        SELECT pg_catalog.count(*) AS keys, pg_catalog.max(f.confrelid) AS target
        FROM pg_catalog.pg_constraint f
        CROSS JOIN LATERAL (
            SELECT pg_catalog.array_agg(a.attname::pg_catalog.text) AS columns
            FROM pg_catalog.pg_attribute a WHERE a.attrelid = f.conrelid AND a.attnum = ANY (f.conkey)
        ) own
        WHERE f.contype = 'f' AND own.columns @> link.columns AND own.columns <@ link.columns
            AND f.conrelid = CASE WHEN link.other IS NULL THEN link.relation ELSE link.far END
            AND (link.other IS NULL OR f.confrelid = link.relation)
            AND NOT EXISTS (
                SELECT FROM pg_catalog.pg_constraint whole
                WHERE whole.oid = f.conparentid AND whole.conrelid = f.conrelid)
    ) found
    WHERE CASE
        WHEN pg_catalog.cardinality(link.columns) = 0 THEN link.far IS NOT NULL
        WHEN link.other IS NOT NULL THEN found.keys = 1
        ELSE found.keys = 1 AND found.target = ANY (
            SELECT need.relation FROM need WHERE need.kind = ANY (ARRAY['table', 'tracked'])) END
), walk AS (
    SELECT DISTINCT need.relation AS start, need.path, 1 AS step, need.relation AS place
    FROM need WHERE need.path IS NOT NULL
    UNION ALL
    SELECT walk.start, walk.path, walk.step + 1, hop.target
    FROM walk JOIN hop ON hop.relation = walk.place AND hop.n = walk.path[walk.step]
), broken AS MATERIALIZED (
    SELECT need.* FROM need WHERE CASE
        WHEN need.kind = 'table' THEN need.relation IS NOT NULL
        WHEN need.kind = 'column' AND need.path IS NULL THEN EXISTS (
            SELECT FROM pg_catalog.pg_attribute a
            WHERE a.attrelid = need.relation AND a.attname = need.n AND a.attnum > 0 AND NOT a.attisdropped)
        WHEN need.kind = 'column' THEN EXISTS (
            SELECT FROM walk JOIN pg_catalog.pg_attribute a ON a.attrelid = walk.place
            WHERE walk.start = need.relation AND walk.path = need.path
                AND walk.step = pg_catalog.cardinality(need.path) AND a.attname = need.path[walk.step]
                AND a.attnum > 0 AND NOT a.attisdropped)
        WHEN need.kind = 'relationship' THEN
            (need.relation, need.n) = ANY (SELECT hop.relation, hop.n FROM hop)
        WHEN need.kind = 'function' THEN (
            SELECT pg_catalog.count(*) FROM pg_catalog.pg_proc f
            JOIN pg_catalog.pg_namespace n ON n.oid = f.pronamespace
            WHERE f.proname = need.n AND n.nspname = need.s AND f.prokind <> 'a') = 1
        WHEN need.kind = 'enum_table' THEN EXISTS (
            SELECT FROM pg_catalog.pg_index i
            JOIN pg_catalog.pg_attribute key ON key.attrelid = i.indrelid AND key.attnum = i.indkey[0]
            CROSS JOIN LATERAL (
                SELECT pg_catalog.count(*) AS columns, pg_catalog.bool_and('pg_catalog.text'::pg_catalog.regtype =
                    CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END) AS texts
                FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
                WHERE a.attrelid = i.indrelid AND a.attnum > 0 AND NOT a.attisdropped
            ) shape
            WHERE i.indrelid = need.relation AND i.indisprimary AND i.indnkeyatts = 1 AND CASE
                WHEN NOT shape.texts OR shape.columns > 2 THEN FALSE
                WHEN NOT pg_catalog.has_table_privilege(need.relation, 'SELECT') THEN TRUE
                WHEN pg_catalog.row_security_active(need.relation) THEN TRUE
                ELSE EXISTS (SELECT FROM pg_catalog.ts_stat(
                    pg_catalog.format(:values, key.attname, need.s, need.t))) END)
        ELSE TRUE END IS NOT TRUE
)
SELECT broken.kind, broken.s AS "schema", broken.t AS "table", broken.n AS name, reason.said AS why
FROM broken
JOIN pg_catalog.json_array_elements_text(:reasons::pg_catalog.json) WITH ORDINALITY AS reason(said, number)
    ON reason.number = ANY (broken.why)
ORDER BY broken.kind, broken.s, broken.t, broken.n, reason.said
""")

# Run by ts_stat, so it returns a tsvector: one row when the enum table is good, none when not.
SQL_ENUM_VALUES = _with_own_operators(
    "SELECT 'good'::pg_catalog.tsvector FROM %2$I.%3$I HAVING pg_catalog.count(*) > 0"
    " AND pg_catalog.bool_and(%1$I::pg_catalog.text ~ '^[_A-Za-z][_0-9A-Za-z]*$'"
    " AND %1$I::pg_catalog.text <> ALL (ARRAY['true', 'false', 'null']))"
)

# The role is put back because the rest of the transaction is not the guard's; none is the role that logged in, which
# may read what the file's SET ROLE may not.
GUARD_BODY = """
DECLARE
    nself_role pg_catalog.text := pg_catalog.current_setting('role');
    nself_broken pg_catalog.jsonb;
BEGIN
    PERFORM pg_catalog.set_config('role', 'none', true);
    SELECT pg_catalog.jsonb_agg(pg_catalog.to_jsonb(missing)) INTO nself_broken FROM ({select}) missing;
    PERFORM pg_catalog.set_config('role', nself_role, true);
    IF nself_broken IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = '{sqlstate}', DETAIL = nself_broken::pg_catalog.text,
            MESSAGE = pg_catalog.format('this would break the live API: %s of the things that Hasura''s metadata '
                'names would be missing', pg_catalog.jsonb_array_length(nself_broken));
    END IF;
END
"""


def sql_unsatisfied(needed):
    """One SELECT of what is missing.

    Arguments: `needed`, Requirements. Returns SQL that gives rows kind, schema, table, name, why: one for each broken
    requirement, as requirements.without and requirements.describe take them. It only reads, on Postgres 13 and later.
    """
    things: dict = {}
    reasons: dict = {}
    for requirement in sorted(needed, key=_by_name):
        thing = things.setdefault(requirement._replace(why=""), _as_item(requirement))
        thing["why"].append(reasons.setdefault(requirement.why, len(reasons) + 1))
    return bind(SQL_UNSATISFIED, {
        "needs": _json(list(things.values())), "reasons": _json(list(reasons)), "values": SQL_ENUM_VALUES,
    })


def sql_guard(needed):
    """One statement that fails when anything of `needed` is missing, to be run inside a migration's transaction.

    It raises SQLSTATE BROKEN_SQLSTATE; the error's detail is a JSON array, on one line, of sql_unsatisfied's rows.
    """
    body = GUARD_BODY.format(select=sql_unsatisfied(needed), sqlstate=BROKEN_SQLSTATE)
    return f"DO {dollar(body)}"


def _by_name(requirement):
    return requirement[:5]


def _as_item(requirement):
    """The requirement as the SELECT's recordset takes it; what is empty is left out, for it may be thousands."""
    item = {"kind": requirement.kind, "s": requirement.schema, "t": requirement.table, "n": requirement.name, "why": []}
    if requirement.path:
        item["path"] = requirement.path
    if requirement.kind == RELATIONSHIP:
        item["columns"] = requirement.columns
        item["other"] = requirement.other
    return item


def _json(value):
    """JSON in ASCII, so that it means the same whatever client_encoding a file has set."""
    import json

    return json.dumps(value, separators=(",", ":"))
