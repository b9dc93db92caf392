"""What of a metadata document cannot stand on the catalogue: the engine's own verdict, in its own words.

Written from upstream's server (pg_table_metadata.sql, RQL/DDL/Schema/Cache, its recorded exchanges) and not from
nself_core/guard, so that the two can contradict each other.
"""

from __future__ import annotations

TABLES = """
SELECT n.nspname AS schema, c.relname AS name, c.oid::bigint AS oid,
    (SELECT coalesce(json_object_agg(a.attname, json_build_object(
        'number', a.attnum, 'type', format_type(a.atttypid, NULL))), '{}')
     FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
    (SELECT coalesce(json_agg(json_build_object(
        'columns', (SELECT json_agg(a.attname) FROM pg_attribute a
                    WHERE a.attrelid = f.conrelid AND a.attnum = ANY (f.conkey)),
        'schema', fn.nspname, 'table', fc.relname,
        'mapping', (SELECT json_object_agg(a.attname, b.attname) FROM unnest(f.conkey, f.confkey) AS pair(x, y)
                    JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = pair.x
                    JOIN pg_attribute b ON b.attrelid = f.confrelid AND b.attnum = pair.y))), '[]')
     FROM pg_constraint f JOIN pg_class fc ON fc.oid = f.confrelid JOIN pg_namespace fn ON fn.oid = fc.relnamespace
     WHERE f.conrelid = c.oid AND f.contype = 'f') AS foreign_keys,
    EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indnkeyatts = 1) AS has_key
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'v', 'm', 'f', 'p') AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
"""
FUNCTIONS = """
SELECT n.nspname AS schema, p.proname AS name, count(*) AS number, min(tn.nspname) AS of_schema,
    min(c.relname) AS of_table
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
LEFT JOIN pg_type t ON t.oid = p.prorettype LEFT JOIN pg_class c ON c.oid = t.typrelid
LEFT JOIN pg_namespace tn ON tn.oid = c.relnamespace
WHERE p.prokind <> 'a' AND n.nspname NOT LIKE 'pg\\_%' GROUP BY 1, 2
"""
POSTGRES_KINDS = ("postgres", "citus", "cockroach")
VERBS = ("insert", "select", "update", "delete")
CONNECTIVES = ("_and", "_or", "_not", "$and", "$or", "$not")


class Catalogue:
    """The tables and functions of one database: rows of the queries above, by (schema, name)."""

    def __init__(self, connection):
        self.tables = {(row["schema"], row["name"]): row for row in connection.execute(TABLES)}
        self.functions = {(row["schema"], row["name"]): row for row in connection.execute(FUNCTIONS)}


def key_of(name):
    """(schema, name) of a table or function as metadata names it."""
    return ("public", name) if isinstance(name, str) else (name.get("schema", "public"), name["name"])


def shown(key):
    """A table or function as the engine's texts name it."""
    return key[1] if key[0] == "public" else ".".join(key)


def find_inconsistencies(document, catalogues):
    """The inconsistent objects of a version 3 document, as get_inconsistent_metadata lists them.

    Arguments: `catalogues`, the Catalogue by source's name; None for a source that cannot be reached.
    """
    found = []
    for source in document.get("sources", []):
        if source.get("kind", "postgres") not in POSTGRES_KINDS:
            continue  # another kind of database has no catalogue here, and is taken for good
        catalogue = catalogues.get(source["name"])
        if catalogue is None:
            found.append(_object("source", source["name"], f"source {source['name']}", "cannot be connected to"))
        else:
            found += SourceCheck(source, catalogue).found()
    return found


def _object(kind, definition, name, reason):
    return {"definition": definition, "name": name, "reason": f"Inconsistent object: {reason}", "type": kind}


class SourceCheck:
    """The check of one source; `found` gives its inconsistent objects."""

    def __init__(self, source, catalogue):
        self.source = source["name"]
        self.catalogue = catalogue
        self.entries = {key_of(entry["table"]): entry for entry in source.get("tables", [])}
        self.functions = source.get("functions", [])
        self.good = {key for key in self.entries if key in catalogue.tables}

    def found(self):
        """What is wrong, tables first."""
        objects = [self._lost_table(key) for key in self.entries if key not in self.good]
        objects += [self._bad_enum(key) for key in self.good if self._is_bad_enum(key)]
        for key, entry in self.entries.items():
            if key in self.good:
                objects += self._of_table(key, entry)
        return objects + list(self._of_functions())

    def _lost_table(self, key):
        return self._table(key, f'no such table/view exists in source: "{shown(key)}"')

    def _table(self, key, reason):
        definition = {"schema": key[0], "name": key[1]}
        return _object("table", definition, f"table {shown(key)} in source {self.source}", reason)

    def _is_bad_enum(self, key):
        return self.entries[key].get("is_enum") and not self.catalogue.tables[key]["has_key"]

    def _bad_enum(self, key):
        why = "because the table must have a primary key"
        return self._table(key, f'the table "{shown(key)}" cannot be used as an enum {why}')

    def _of_table(self, key, entry):
        for name in ("object", "array"):
            for relationship in entry.get(f"{name}_relationships", []):
                reason = self._relationship_trouble(key, relationship)
                if reason:
                    yield self._part(key, f"{name}_relation", relationship["name"], relationship, reason)
        for field in entry.get("computed_fields", []):
            reason = self._function_trouble(key_of(field["definition"]["function"]))
            if reason:
                reason = f'in table "{shown(key)}": in computed field "{field["name"]}": {reason}'
                yield self._part(key, "computed_field", field["name"], field, reason)
        for verb in VERBS:
            for permission in entry.get(f"{verb}_permissions", []):
                for column in self._missing_of(key, permission["permission"]):
                    role = permission["role"]
                    reason = f'in table "{shown(key)}": in permission for role "{role}": "{column}" does not exist'
                    yield self._part(key, f"{verb}_permission", role, permission, reason)
                    break
        for trigger in entry.get("event_triggers", []):
            for column in self._missing_of_trigger(key, trigger):
                reason = f'table "{shown(key)}" has no field named "{column}"'
                yield self._part(key, "event_trigger", trigger["name"], trigger, reason)
                break

    def _part(self, key, kind, name, definition, reason):
        place = {"source": self.source, "table": {"schema": key[0], "name": key[1]}}
        definition = {"comment": None, **definition, **place}
        return _object(kind, definition, f"{kind} {name} in table {shown(key)} in source {self.source}", reason)

    # Relationships.

    def _relationship_trouble(self, key, relationship):
        using, prefix = relationship["using"], f'in table "{shown(key)}": in relationship "{relationship["name"]}": '
        if "manual_configuration" in using:
            return self._manual_trouble(key, using["manual_configuration"])
        told = using["foreign_key_constraint_on"]
        if not isinstance(told, dict):
            return self._key_trouble(key, {told} if isinstance(told, str) else {*told}, prefix)
        other = key_of(told["table"])
        if other not in self.good:
            return f'{prefix}table "{shown(other)}" does not exist in source: {self.source}'
        columns = {told["column"]} if "column" in told else {*told["columns"]}
        keys = [item for item in self._keys(other, columns) if (item["schema"], item["table"]) == key]
        return self._count_trouble(keys, prefix)

    def _keys(self, table, columns):
        return [item for item in self.catalogue.tables[table]["foreign_keys"] if {*item["columns"]} == columns]

    def _count_trouble(self, keys, prefix):
        if len(keys) == 1:
            return None
        number = "more than one foreign key constraint exists" if keys else "no foreign constraint exists"
        return f"{prefix}{number} on the given column(s)"

    def _key_trouble(self, key, columns, prefix):
        keys = self._keys(key, columns)
        trouble = self._count_trouble(keys, prefix)
        target = (keys[0]["schema"], keys[0]["table"]) if keys else None
        if trouble is None and target not in self.good:
            return f'table "{shown(target)}" is not tracked'
        return trouble

    def _manual_trouble(self, key, manual):
        other = key_of(manual["remote_table"])
        if other not in self.good:
            return f'table "{shown(other)}" is not tracked'
        mapping = manual["column_mapping"]
        for table, columns in ((key, mapping), (other, mapping.values())):
            for column in columns:
                if column not in self.catalogue.tables[table]["columns"]:
                    return f'table "{shown(table)}" has no field named "{column}"'
        return None

    # Functions.

    def _function_trouble(self, key):
        row = self.catalogue.functions.get(key)
        if row is None:
            return f'no such function exists: "{shown(key)}"'
        if row["number"] > 1:
            return f'function "{shown(key)}" is overloaded. Overloaded functions are not supported'
        return None

    def _of_functions(self):
        for item in self.functions:
            key = key_of(item["function"])
            trouble = self._function_trouble(key)
            reason = trouble and f'in function "{shown(key)}": {trouble}'
            row = self.catalogue.functions.get(key)
            if row and row["of_table"] and (row["of_schema"], row["of_table"]) not in self.good:
                reason = f'table "{shown((row["of_schema"], row["of_table"]))}" is not tracked'
            if reason:
                definition = {"schema": key[0], "name": key[1]}
                yield _object("function", definition, f"function {shown(key)} in source {self.source}", reason)

    # Columns.

    def _missing_of(self, key, permission):
        columns = permission.get("columns")
        names = [*columns] if isinstance(columns, list) else []
        names += permission.get("set", {}) or {}
        missing = [name for name in names if name not in self.catalogue.tables[key]["columns"]]
        for part in ("filter", "check"):
            missing += self._missing_in(key, permission.get(part) or {})
        return missing

    def _missing_in(self, key, expression):
        """The names in a boolean expression that are neither columns, relationships nor computed fields."""
        for name, value in expression.items():
            if name in CONNECTIVES:
                for part in value if isinstance(value, list) else [value]:
                    yield from self._missing_in(key, part)
            elif name not in ("_exists", "$exists") and name not in self.catalogue.tables[key]["columns"]:
                yield from self._missing_beyond(key, name, value)

    def _missing_beyond(self, key, name, value):
        entry = self.entries[key]
        using = {item["name"]: item["using"] for kind in ("object", "array")
                 for item in entry.get(f"{kind}_relationships", [])}  # fmt: skip
        if name in using:
            other = self.target(key, using[name])
            yield from self._missing_in(other, value) if other in self.good else ()
        elif name not in [item["name"] for item in entry.get("computed_fields", [])]:
            yield name

    def target(self, key, using):
        """The table at the other end of a relationship; None where it does not work."""
        if "manual_configuration" in using:
            return key_of(using["manual_configuration"]["remote_table"])
        told = using["foreign_key_constraint_on"]
        if isinstance(told, dict):
            return key_of(told["table"])
        keys = self._keys(key, {told} if isinstance(told, str) else {*told})
        return (keys[0]["schema"], keys[0]["table"]) if keys else None

    def _missing_of_trigger(self, key, trigger):
        for verb in ("insert", "update", "delete"):
            columns = (trigger["definition"].get(verb) or {}).get("columns")
            for column in columns if isinstance(columns, list) else ():
                if column not in self.catalogue.tables[key]["columns"]:
                    yield column
