"""run_sql and the old `select` as the engine runs them: its answers, its errors, and what DDL does to the metadata."""

from __future__ import annotations

import copy
import re

import psycopg
from psycopg import sql

from .hasura_catalogue import CONNECTIVES, VERBS, SourceCheck, key_of, shown
from .hasura_document import Refusal, find_source

# What makes the server look at the metadata where the request does not say (RQL/DDL/Schema.hs, isSchemaCacheBuild…).
CHANGES_SCHEMA = re.compile(r"\b(alter|drop|replace|create function|comment on)\b", re.IGNORECASE)


def run_script(connection, args):
    """Run a request's SQL and return its answer; the connection is in a transaction unless `no_transaction` is set."""
    text = args["sql"]
    try:
        if args.get("read_only"):
            connection.execute("SET TRANSACTION READ ONLY")
        parts = split_statements(text) if args.get("no_transaction") else [text]
        cursor = None
        for part in parts:
            cursor = connection.execute(part, prepare=False)
        return _answer(cursor)
    except psycopg.Error as error:
        raise _postgres_error(error, text) from error


def split_statements(text):
    """The statements of a script, as a lexer that is nobody's own reads them."""
    import pglast

    return [part for part in pglast.split(text, with_parser=False) if part.strip()]


def _answer(cursor):
    while cursor is not None and cursor.nextset():
        pass
    if cursor is None or cursor.description is None:
        return {"result_type": "CommandOk", "result": None}
    result = cursor.pgresult
    rows = [[_text(result.get_value(row, column)) for column in range(result.nfields)] for row in range(result.ntuples)]
    return {"result_type": "TuplesOk", "result": [[column.name for column in cursor.description], *rows]}


def _text(value):
    return "NULL" if value is None else value.decode()


def _postgres_error(error, text):
    facts = error.diag
    if facts.sqlstate is None:  # no answer of the server's: the connection broke
        return Refusal("unexpected", str(error), status=500)
    said = {
        "exec_status": "FatalError", "message": facts.message_primary, "status_code": facts.sqlstate,
        "hint": facts.message_hint, "description": facts.message_detail,
    }  # fmt: skip
    internal = {"statement": text, "prepared": False, "error": said, "arguments": []}
    return Refusal("postgres-error", "query execution failed", internal=internal)


# What DDL does to the metadata.


def follow_catalogue(document, name, before, after, cascade):
    """The document after DDL on source `name`: renamed tables and columns have their new names, dropped ones are gone.

    Arguments: `before` and `after`, the Catalogues; `cascade`, whether what hangs on a dropped thing may go with it.
    Raises Refusal (dependency-error) where it may not, and where a column whose static value a permission holds
    changes its type.
    """
    document = copy.deepcopy(document)
    source = find_source(document, name)
    places = {row["oid"]: key for key, row in after.tables.items()}
    _check_types(source, before, after, places)
    check = SourceCheck(source, before)
    renames = Renames(check, {
        key: (places[row["oid"]], _columns_by_number(row, after.tables[places[row["oid"]]]))
        for key, row in before.tables.items() if row["oid"] in places
    })  # fmt: skip
    source["tables"] = [
        renames.of_entry(entry) for entry in source["tables"] if _is_there(key_of(entry["table"]), before, places)
    ]
    left = SourceCheck(source, after).found()
    was_bad = {item["name"] for item in check.found()}
    newly = [item for item in left if item["name"] not in was_bad]
    if newly and not cascade:
        names = ", ".join(f"{item['type']} {item['name']}" for item in newly)
        raise Refusal("dependency-error", f"cannot drop due to the following dependent objects: {names}")
    return document, newly


def _is_there(key, before, places):
    return key not in before.tables or before.tables[key]["oid"] in places


def _columns_by_number(row, later):
    numbers = {facts["number"]: name for name, facts in later["columns"].items()}
    return {name: numbers[facts["number"]] for name, facts in row["columns"].items() if facts["number"] in numbers}


class Renames:
    """New names for old: `moved`, (new table, {old column: new column}) by old table; `check` tells the old targets."""

    def __init__(self, check, moved):
        self._check = check
        self._moved = moved

    def of_entry(self, entry):
        """A tracked table's entry under the new names."""
        old = key_of(entry["table"])
        if old not in self._moved:
            return entry
        entry = {**entry, "table": self._table(entry["table"])}
        for kind in ("object_relationships", "array_relationships"):
            if kind in entry:
                entry[kind] = [{**item, "using": self._using(old, item["using"])} for item in entry[kind]]
        for verb in VERBS:
            name = f"{verb}_permissions"
            if name in entry:
                entry[name] = [
                    {**item, "permission": self._permission(old, item["permission"])} for item in entry[name]
                ]
        return entry

    def _table(self, name):
        key = key_of(name)
        return {"name": self._moved[key][0][1], "schema": self._moved[key][0][0]} if key in self._moved else name

    def _column(self, table, name):
        return self._moved.get(table, (None, {}))[1].get(name, name)

    def _columns(self, table, told):
        return [self._column(table, name) for name in told] if isinstance(told, list) else self._column(table, told)

    def _using(self, old, using):
        if "manual_configuration" in using:
            manual, other = using["manual_configuration"], key_of(using["manual_configuration"]["remote_table"])
            pairs = manual["column_mapping"].items()
            mapping = {self._column(old, one): self._column(other, two) for one, two in pairs}
            moved = {**manual, "column_mapping": mapping, "remote_table": self._table(manual["remote_table"])}
            return {"manual_configuration": moved}
        told = using["foreign_key_constraint_on"]
        if not isinstance(told, dict):
            return {"foreign_key_constraint_on": self._columns(old, told)}
        names = {
            part: self._columns(key_of(told["table"]), told[part]) for part in ("column", "columns") if part in told
        }
        return {"foreign_key_constraint_on": {**names, "table": self._table(told["table"])}}

    def _permission(self, old, permission):
        moved = dict(permission)
        if isinstance(moved.get("columns"), list):
            moved["columns"] = self._columns(old, moved["columns"])
        if moved.get("set"):
            moved["set"] = {self._column(old, name): value for name, value in moved["set"].items()}
        for part in ("filter", "check"):
            if moved.get(part):
                moved[part] = self._expression(old, moved[part])
        return moved

    def _expression(self, table, expression):
        moved = {}
        for name, value in expression.items():
            using = self._relationships(table).get(name)
            if name in CONNECTIVES:
                parts = [self._expression(table, part) for part in (value if isinstance(value, list) else [value])]
                moved[name] = parts if isinstance(value, list) else parts[0]
            elif using is not None:
                moved[name] = self._expression(self._check.target(table, using), value)
            else:
                moved[self._column(table, name)] = value
        return moved

    def _relationships(self, table):
        entry = self._check.entries.get(table, {})
        kinds = ("object_relationships", "array_relationships")
        return {item["name"]: item["using"] for kind in kinds for item in entry.get(kind, [])}


def _check_types(source, before, after, places):
    for entry in source["tables"]:
        key = key_of(entry["table"])
        row = before.tables.get(key)
        if row is None or row["oid"] not in places:
            continue
        types = {facts["number"]: facts["type"] for facts in after.tables[places[row["oid"]]]["columns"].values()}
        for column, facts in row["columns"].items():
            if types.get(facts["number"], facts["type"]) != facts["type"]:
                _refuse_static(source["name"], key, entry, column)


def _refuse_static(source, key, entry, column):
    held = [
        f'permission {shown(key)}.{item["role"]}.{verb} in source "{source}"'
        for verb in sorted(VERBS)
        for item in entry.get(f"{verb}_permissions", [])
        if _holds_static(item["permission"], column)
    ]
    if held:
        error = (
            f'cannot change type of column "{column}" in table "{shown(key)}" because of the following dependencies: '
        )
        raise Refusal("dependency-error", error + ", ".join(held))


def _holds_static(permission, column):
    values = [(permission.get(part) or {}).get(column) for part in ("filter", "check", "set")]
    return any(value is not None and not str(value).lower().startswith("x-hasura-") for value in values)


# The select of /v1/query.


def select(connection, document, catalogue, args, role, variables):
    """The rows that a `select` asks for: columns of one tracked table, through the role's filter where it has one."""
    source = find_source(document, "default")
    check, key = SourceCheck(source, catalogue), key_of(args["table"])
    if key not in check.good:
        raise Refusal("not-exists", f'table "{shown(key)}" does not exist', "$.args.table")
    condition = sql.SQL("true")
    if role != "admin":
        allowed = [item for item in check.entries[key].get("select_permissions", []) if item["role"] == role]
        if not allowed:
            said = f'select on "{shown(key)}" for role "{role}" is not allowed. '
            raise Refusal("permission-denied", said, "$.args")
        condition = _condition(check, key, allowed[0]["permission"]["filter"], variables, "t0")
    columns = sql.SQL(", ").join(map(sql.Identifier, args["columns"]))
    query = sql.SQL("SELECT {} FROM {} AS t0 WHERE {} ORDER BY 1").format(columns, sql.Identifier(*key), condition)
    return connection.execute(query).fetchall()


def _condition(check, key, expression, variables, name):
    """A filter of equalities and relationships as SQL: what the recorded exchanges use."""
    parts: list = [sql.SQL("true")]
    for field, value in expression.items():
        column = sql.Identifier(name, field)
        if field in check.catalogue.tables[key]["columns"]:
            value = value.get("_eq") if isinstance(value, dict) else value
            value = variables.get(str(value).lower(), value)
            parts.append(sql.SQL("{}::text = {}").format(column, sql.Literal(str(value))))
        else:
            parts.append(_exists(check, key, field, value, variables, name))
    return sql.SQL(" AND ").join(parts)


def _exists(check, key, field, value, variables, name):
    entry = check.entries[key]
    using = next(item["using"] for item in entry["object_relationships"] if item["name"] == field)
    told, other = using["foreign_key_constraint_on"], check.target(key, using)
    mapping = next(item["mapping"] for item in check.catalogue.tables[key]["foreign_keys"] if item["columns"] == [told])
    inner = name + "_"
    pairs = [sql.SQL("{} = {}").format(sql.Identifier(name, one), sql.Identifier(inner, two))
             for one, two in mapping.items()]  # fmt: skip
    condition = sql.SQL(" AND ").join([*pairs, _condition(check, other, value, variables, inner)])
    return sql.SQL("EXISTS (SELECT FROM {} AS {} WHERE {})").format(
        sql.Identifier(*other), sql.Identifier(inner), condition
    )
