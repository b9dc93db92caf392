"""The SQL that empties a database as far as a dump fills it again, without dropping the database itself.

It is one text, whatever the database holds: what there is, it asks the catalogue for, inside the transaction. What it
leaves: schema public and its owner, extensions that the backup has too, and what belongs to the database itself.
"""

from __future__ import annotations

from nself_core.sql.quoting import dollar, literal

# Schemas that a dump makes; those of an extension come and go with it.
OWN_SCHEMA = (
    "n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' AND NOT EXISTS (SELECT FROM "
    "pg_catalog.pg_depend m WHERE m.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND m.objid = n.oid "
    "AND m.deptype = 'e')"
)
OWN_TABLES = f"""
    SELECT pg_catalog.string_agg(pg_catalog.format('%I.%I', n.nspname, c.relname), ', ' ORDER BY n.nspname, c.relname)
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND {OWN_SCHEMA}
"""

# Who has read or written in a transaction that is still open holds a lock that a DROP waits for.
ENDING = f"""
    BEGIN
        PERFORM pg_catalog.pg_terminate_backend(l.pid)
        FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation
            JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE l.granted AND l.pid <> pg_catalog.pg_backend_pid() AND {OWN_SCHEMA}
            AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database());
    EXCEPTION WHEN insufficient_privilege THEN NULL;
    END;
"""

LOCKING = """
DECLARE tables text;
BEGIN
    {ending}
    {tables};
    IF tables IS NOT NULL THEN EXECUTE 'LOCK TABLE ' || tables || ' IN {mode} MODE'; END IF;
END
"""

# What stands in no schema, by catalogue; what came with the server has a number below 16384.
OUTSIDE_SCHEMAS = (
    "pg_event_trigger",
    "pg_publication",
    "pg_foreign_data_wrapper",
    "pg_foreign_server",
    "pg_cast",
    "pg_transform",
    "pg_language",
    "pg_am",
)
# The words of pg_identify_object are those of DROP, but for two.
DROP_TEXT = """pg_catalog.format('DROP %s IF EXISTS %s CASCADE',
        CASE o.type WHEN 'statistics object' THEN 'statistics' WHEN 'composite type' THEN 'type'
            WHEN 'foreign-data wrapper' THEN 'foreign data wrapper' ELSE o.type END, o.identity)"""
OF_NO_OTHER = """NOT EXISTS (SELECT FROM pg_catalog.pg_depend m
        WHERE m.classid = {catalogue} AND m.objid = {number} AND m.objsubid = 0 AND m.deptype IN ('e', 'i'))"""

CLEARING = """
DECLARE texts text[];
    one text;
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid
               WHERE d.datname = pg_catalog.current_database()) THEN
        RAISE EXCEPTION 'this database has a subscription, which cannot be dropped in a transaction'
            USING HINT = 'drop it first: DROP SUBSCRIPTION';
    END IF;
    PERFORM pg_catalog.lo_unlink(oid) FROM pg_catalog.pg_largeobject_metadata;
    SELECT pg_catalog.array_agg(dropped.text) INTO texts FROM (
        {outside}
        UNION ALL SELECT pg_catalog.format('DROP EXTENSION IF EXISTS %I CASCADE', e.extname)
        FROM pg_catalog.pg_extension e
        WHERE e.extname <> ALL (ARRAY(SELECT pg_catalog.json_array_elements_text({kept})))
        UNION ALL SELECT pg_catalog.format('DROP SCHEMA IF EXISTS %I CASCADE', n.nspname)
        FROM pg_catalog.pg_namespace n WHERE n.nspname <> 'public' AND {own_schema}
        UNION ALL SELECT {drop_text}
        FROM pg_catalog.pg_depend d, pg_catalog.pg_identify_object(d.classid, d.objid, 0) o
        WHERE d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.deptype = 'n'
            AND d.refobjid = pg_catalog.to_regnamespace('public') AND d.objsubid = 0 AND {of_no_other}
    ) AS dropped(text);
    FOREACH one IN ARRAY coalesce(texts, '{{}}') LOOP EXECUTE one; END LOOP;
    IF pg_catalog.to_regnamespace('public') IS NULL THEN CREATE SCHEMA public; END IF;
    FOR one IN {grants} LOOP EXECUTE one; END LOOP;
END
"""

# A dump says how grants differ from those that a new database has: so these are put back first.
GRANTS = """
    SELECT pg_catalog.format('REVOKE ALL ON SCHEMA public FROM %s', CASE a.grantee WHEN 0 THEN 'PUBLIC'
        ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END)
    FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_init_privs i ON i.objoid = n.oid
        AND i.classoid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND i.objsubid = 0,
        pg_catalog.aclexplode(n.nspacl) a
    WHERE n.nspname = 'public' AND n.nspacl IS DISTINCT FROM i.initprivs
    UNION ALL
    SELECT pg_catalog.format('GRANT %s ON SCHEMA public TO %s', a.privilege_type, CASE a.grantee WHEN 0 THEN 'PUBLIC'
        ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END)
    FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_init_privs i ON i.objoid = n.oid
        AND i.classoid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND i.objsubid = 0,
        pg_catalog.aclexplode(i.initprivs) a
    WHERE n.nspname = 'public' AND n.nspacl IS DISTINCT FROM i.initprivs
    UNION ALL
    SELECT pg_catalog.format('ALTER DEFAULT PRIVILEGES FOR ROLE %I %s REVOKE ALL ON %s FROM %s',
        pg_catalog.pg_get_userbyid(d.defaclrole),
        CASE WHEN n.oid IS NULL THEN '' ELSE pg_catalog.format('IN SCHEMA %I', n.nspname) END, what.word,
        CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END)
    FROM pg_catalog.pg_default_acl d LEFT JOIN pg_catalog.pg_namespace n ON n.oid = d.defaclnamespace
        JOIN {words} ON what.letter = d.defaclobjtype, pg_catalog.aclexplode(d.defaclacl) a
    UNION ALL
    SELECT pg_catalog.format('ALTER DEFAULT PRIVILEGES FOR ROLE %I GRANT %s ON %s TO %s',
        pg_catalog.pg_get_userbyid(d.defaclrole), a.privilege_type, what.word,
        CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END)
    FROM pg_catalog.pg_default_acl d JOIN {words} ON what.letter = d.defaclobjtype,
        pg_catalog.aclexplode(pg_catalog.acldefault(what.own, d.defaclrole)) a
    WHERE d.defaclnamespace = 0
"""
WORDS = """(VALUES ('r'::"char", 'TABLES', 'r'::"char"), ('S', 'SEQUENCES', 's'), ('f', 'FUNCTIONS', 'f'),
    ('T', 'TYPES', 'T'), ('n', 'SCHEMAS', 'n')) AS what(letter, word, own)"""


def sql_lock(mode, ends_others=False):
    """The statement that locks all tables of the database.

    Arguments: `mode`, EXCLUSIVE (others may read) or ACCESS EXCLUSIVE; `ends_others`, whether sessions in whose
    transactions tables are locked are ended first, as far as we may.
    """
    text = LOCKING.format(ending=ENDING if ends_others else "", mode=mode, tables=f"tables := ({OWN_TABLES})")
    return "DO " + dollar(text)


def sql_clear(extensions):
    """The statement that drops what a dump would make again. Argument: `extensions`, names of those that stay."""
    import json

    outside = "\nUNION ALL ".join(_outside(catalogue) for catalogue in OUTSIDE_SCHEMAS)
    text = CLEARING.format(
        outside=outside,
        kept=f"{literal(json.dumps(sorted(extensions)))}::pg_catalog.json",
        own_schema=OWN_SCHEMA,
        drop_text=DROP_TEXT,
        of_no_other=OF_NO_OTHER.format(catalogue="d.classid", number="d.objid"),
        grants=GRANTS.format(words=WORDS),
    )
    return "DO " + dollar(text)


def _outside(catalogue):
    number = f"'pg_catalog.{catalogue}'::pg_catalog.regclass"
    return (
        f"SELECT {DROP_TEXT} FROM pg_catalog.{catalogue} x, pg_catalog.pg_identify_object({number}, x.oid, 0) o "
        f"WHERE x.oid >= 16384 AND {OF_NO_OTHER.format(catalogue=number, number='x.oid')}"
    )
