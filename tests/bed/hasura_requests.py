"""The engine's JSON API over its database: one request in, status and answer out; HTTP is bed/hasura_engine's."""

from __future__ import annotations

import contextlib
import copy
import json
import threading

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Json

from . import hasura_sql
from .hasura_catalogue import Catalogue, find_inconsistencies
from .hasura_document import CHANGES, Refusal, canonical, changed, without

# As server/src-rsr/initialise.sql has them.
INITIALISE = """
CREATE SCHEMA IF NOT EXISTS hdb_catalog;
CREATE TABLE IF NOT EXISTS hdb_catalog.hdb_version (
    hasura_uuid uuid PRIMARY KEY DEFAULT gen_random_uuid(), version text NOT NULL, upgraded_on timestamptz NOT NULL,
    cli_state jsonb NOT NULL DEFAULT '{}'::jsonb, console_state jsonb NOT NULL DEFAULT '{}'::jsonb,
    ee_client_id text, ee_client_secret text);
CREATE UNIQUE INDEX IF NOT EXISTS hdb_version_one_row ON hdb_catalog.hdb_version ((version IS NOT NULL));
CREATE TABLE IF NOT EXISTS hdb_catalog.hdb_metadata (
    id integer PRIMARY KEY, metadata json NOT NULL, resource_version integer NOT NULL DEFAULT 1 UNIQUE);
"""
DEFAULT_URL = "HASURA_GRAPHQL_DATABASE_URL"
CONFIGURATION = {
    "connection_info": {
        "database_url": {"from_env": DEFAULT_URL}, "isolation_level": "read-committed", "use_prepared_statements": True,
    }
}  # fmt: skip
EMPTY = {"version": 3, "sources": [
    {"name": "default", "kind": "postgres", "tables": [], "configuration": CONFIGURATION}
]}  # fmt: skip

PREFIXES = ("pg_", "postgres_", "citus_", "cockroach_", "mssql_", "bigquery_")
SQL_TYPES = ("run_sql",)
DATA_TYPES = ("select", "insert", "update", "delete", "count")
BULKS = ("bulk", "bulk_keep_going", "bulk_atomic", "concurrent_bulk")
READS = (
    "export_metadata", "get_inconsistent_metadata", "get_catalog_state", "set_catalog_state", "dump_internal_state",
    "create_function_permission", "drop_function_permission",
)  # fmt: skip
METADATA_TYPES = (*CHANGES, *READS, *BULKS, "replace_metadata", "reload_metadata", "drop_inconsistent_metadata")
ACCEPTED = {
    "/v1/metadata": METADATA_TYPES,
    "/v1/query": (*METADATA_TYPES, *SQL_TYPES, *DATA_TYPES),
    "/v2/query": (*SQL_TYPES, *DATA_TYPES, "bulk", "concurrent_bulk"),
}
SUCCESS = {"message": "success"}


class Asker:
    """Who asks: `role`, and the session `variables` (x-hasura-… headers) by lower-case name."""

    def __init__(self, role="admin", variables=None):
        self.role = role
        self.variables = variables or {}


class Api:
    """The engine's metadata and SQL, over the database at `url`.

    `env` are the engine's own environment variables, which sources name by `from_env`. What is inconsistent is known
    since metadata was last built, as in the engine's schema cache: DDL behind its back is seen by reload_metadata.
    """

    def __init__(self, url, env=None):
        self.url = url
        self.env = {DEFAULT_URL: url, **(env or {})}
        self._lock = threading.RLock()
        with psycopg.connect(url) as connection:
            connection.execute(INITIALISE)
            connection.execute(
                "INSERT INTO hdb_catalog.hdb_metadata VALUES (1, %s, 1) ON CONFLICT DO NOTHING", [Json(EMPTY)]
            )
            connection.execute(
                "INSERT INTO hdb_catalog.hdb_version (version, upgraded_on) VALUES ('48', now()) ON CONFLICT DO NOTHING"
            )
        with self._work() as work:
            self.inconsistent = work.judge()

    def answer(self, path, body, asker):
        """(status, document) of one request to `path` with its `body` in bytes."""
        try:
            with self._lock:
                return 200, self._answer(path, _parse(body), asker)
        except Refusal as refusal:
            return refusal.status, refusal.body

    def _answer(self, path, request, asker):
        kind = _request_type(path, request)
        if asker.role != "admin" and kind not in DATA_TYPES:
            raise Refusal("access-denied", "restricted access : admin only")
        if kind in SQL_TYPES and request["args"].get("no_transaction"):
            return self._outside_transaction(request["args"])
        with self._work(request.get("resource_version")) as work:
            answer = work.run(kind, request, asker, path)
            work.save()
        self.inconsistent = work.inconsistent
        return answer

    def _outside_transaction(self, args):
        with self.connect(args.get("source", "default"), autocommit=True) as connection:
            return hasura_sql.run_script(connection, args)

    @contextlib.contextmanager
    def _work(self, version=None):
        with psycopg.connect(self.url, row_factory=dict_row) as connection:
            (row,) = connection.execute("SELECT metadata, resource_version FROM hdb_catalog.hdb_metadata")
            work = Work(self, connection, row["metadata"], row["resource_version"])
            work.referenced = version
            yield work
            work.close()

    def source_url(self, told):
        """The URL that a source's `database_url` means; None where the engine's environment has not what it names."""
        if isinstance(told, str):
            return told
        if "from_env" in told:
            return self.env.get(told["from_env"])
        parts = told["connection_parameters"]
        names = {"username": "user", "database": "dbname"}
        return psycopg.conninfo.make_conninfo("", **{names.get(name, name): value for name, value in parts.items()})

    def connect(self, source, document=None, autocommit=False):
        """A connection to a source's database. Raises Refusal."""
        if document is None:
            with self._work() as work:
                document = work.document
        for item in document["sources"]:
            if item["name"] == source:
                url = self.source_url(item["configuration"]["connection_info"]["database_url"])
                if url:
                    return psycopg.connect(url, row_factory=dict_row, autocommit=autocommit, connect_timeout=5)
        raise Refusal("not-exists", f'source with name "{source}" does not exist')


def _parse(body):
    try:
        request = json.loads(body)
    except ValueError as error:
        raise Refusal("invalid-json", f"invalid json: {error}", "$") from error
    if not isinstance(request, dict):
        kind = {str: "String", list: "Array", bool: "Boolean", type(None): "Null"}.get(type(request), "Number")
        raise Refusal("parse-failed", f"parsing Object failed, expected Object, but encountered {kind}", "$")
    return request


def _request_type(path, request):
    version = request.get("version", 1)
    if version not in (1, 2):
        raise Refusal("parse-failed", f"expected 1 or 2, encountered {version}", "$.version")
    told = request.get("type")
    prefix = next((prefix for prefix in PREFIXES if str(told).startswith(prefix)), "")
    kind = str(told)[len(prefix) :]
    if kind not in ACCEPTED[path]:
        raise Refusal("parse-failed", f'unknown request type: "{told}"', "$.type")
    if "args" not in request:
        raise Refusal("parse-failed", "the key 'args' was not present", "$")
    return kind


class Work:
    """One request under way, in one transaction: the document as it stands, and what will be written at its end."""

    def __init__(self, api, connection, document, version):
        self.api = api
        self.connection = connection
        self.document = document
        self.version = version
        self.referenced = None
        self.inconsistent = getattr(api, "inconsistent", [])
        self._touched = False
        self._others = {}

    # The database.

    def source_connection(self, name):
        """The connection to a source, in a transaction that ends with the request's own."""
        url = self._url_of(name)
        if url == self.api.url:
            return self.connection
        if name not in self._others:
            self._others[name] = self.api.connect(name, self.document)
        return self._others[name]

    def _url_of(self, name):
        for source in self.document["sources"]:
            if source["name"] == name:
                return self.api.source_url(source["configuration"]["connection_info"]["database_url"])
        return None

    def catalogues(self, document):
        """The Catalogue of each source that can be reached."""
        found: dict = {}
        kept, self.document = self.document, document
        for source in document["sources"]:
            try:
                found[source["name"]] = Catalogue(self.source_connection(source["name"]))
            except (Refusal, KeyError, psycopg.OperationalError):
                found[source["name"]] = None
        self.document = kept
        return found

    def judge(self, document=None):
        """What of a document, by default the present one, is inconsistent now."""
        document = self.document if document is None else document
        return find_inconsistencies(document, self.catalogues(document))

    def put(self, document, objects):
        """Let `document` be the metadata from now on, with these inconsistent objects."""
        self.document, self.inconsistent, self._touched = document, objects, True

    def save(self):
        """Write the document where it was touched. Raises Refusal (409) where it is not the version referred to."""
        if self._touched:
            referenced = self.version if self.referenced is None else self.referenced
            done = self.connection.execute(
                "UPDATE hdb_catalog.hdb_metadata SET metadata = %s, resource_version = resource_version + 1"
                " WHERE resource_version = %s",
                [Json(self.document), referenced],
            )
            if not done.rowcount:
                said = f"metadata resource version referenced ({referenced}) did not match current version"
                raise Refusal("conflict", said, "$", 409)

    def close(self):
        """Commit what was done in other databases."""
        for connection in self._others.values():
            connection.commit()
            connection.close()

    # The requests.

    def run(self, kind, request, asker, path):
        """The answer to one request."""
        args = request["args"]
        if kind in BULKS:
            return self._bulk(kind, args, asker, path)
        if kind in CHANGES:
            return self._change(kind, args)
        if kind in DATA_TYPES:
            return self._select(kind, args, asker)
        return getattr(self, f"_{kind}")(args, request)

    def _bulk(self, kind, requests, asker, path):
        answers = []
        for number, request in enumerate(requests):
            try:
                answers.append(self.run(_request_type(path, request), request, asker, path))
            except Refusal as refusal:
                refusal.body["path"] = f"$.args[{number}]" + refusal.body["path"][1:]
                if kind != "bulk_keep_going":
                    raise
                answers.append(refusal.body)
        return answers

    def _change(self, kind, args):
        after = canonical(changed(self.document, kind, args), CONFIGURATION)
        objects = self.judge(after)
        known = [item["name"] for item in self.inconsistent]
        newly = [item for item in objects if item["name"] not in known]
        if newly and not kind.startswith(("drop_", "untrack_", "clear_", "delete_")):
            raise Refusal("invalid-configuration", newly[0]["reason"], internal=newly)
        self.put(after, objects)
        return SUCCESS

    def _export_metadata(self, args, request):
        if request.get("version", 1) == 2:
            return {"resource_version": self.version, "metadata": self.document}
        return self.document

    def _replace_metadata(self, args, request):
        is_second = "metadata" in args
        told = args["metadata"] if is_second else args
        after = _read_document(told, self.document, "$.args.metadata" if is_second else "$.args")
        objects = self.judge(after)
        if objects and not (is_second and args.get("allow_inconsistent_metadata")):
            raise Refusal("unexpected", "cannot continue due to inconsistent metadata", internal=objects)
        self.put(after, objects)
        return {"is_consistent": not objects, "inconsistent_objects": objects} if is_second else SUCCESS

    def _reload_metadata(self, args, request):
        names = args.get("reload_sources")
        for name in names if isinstance(names, list) else ():
            if name not in [source["name"] for source in self.document["sources"]]:
                raise Refusal("not-exists", f'Source with name "{name}" not found in metadata')
        self.put(self.document, self.judge())
        objects = {"inconsistent_objects": self.inconsistent} if self.inconsistent else {}
        return {**SUCCESS, "is_consistent": not self.inconsistent, **objects}

    def _get_inconsistent_metadata(self, args, request):
        return {"is_consistent": not self.inconsistent, "inconsistent_objects": self.inconsistent}

    def _drop_inconsistent_metadata(self, args, request):
        after = self.document
        while objects := self.judge(after):
            after = without(after, objects)
        self.put(canonical(after, CONFIGURATION), [])
        return SUCCESS

    def _dump_internal_state(self, args, request):
        return {"inconsistent_objects": self.inconsistent}

    def _get_catalog_state(self, args, request):
        row = self.connection.execute(
            "SELECT hasura_uuid, cli_state, console_state FROM hdb_catalog.hdb_version"
        ).fetchone()
        return {"id": str(row["hasura_uuid"]), "cli_state": row["cli_state"], "console_state": row["console_state"]}

    def _set_catalog_state(self, args, request):
        if args.get("type") not in ("cli", "console"):
            raise Refusal("parse-failed", "unexpected catalog state type", "$.args.type")
        column = "cli_state" if args["type"] == "cli" else "console_state"
        self.connection.execute(f"UPDATE hdb_catalog.hdb_version SET {column} = %s", [Json(args["state"])])
        return SUCCESS

    def _run_sql(self, args, request):
        name = args.get("source", "default")
        connection = self.source_connection(name) if self._url_of(name) else self.api.connect(name, self.document)
        checks = args.get("check_metadata_consistency")
        if checks is None:
            checks = not args.get("read_only") and bool(hasura_sql.CHANGES_SCHEMA.search(args["sql"]))
        before = Catalogue(connection) if checks else None
        answer = hasura_sql.run_script(connection, args)
        if checks:
            after = Catalogue(connection)
            cascade = bool(args.get("cascade"))
            document, newly = hasura_sql.follow_catalogue(self.document, name, before, after, cascade)
            document = canonical(without(document, newly), CONFIGURATION)
            self.put(document, self.judge(document))
        return answer

    def _select(self, kind, args, asker):
        if kind != "select":
            raise Refusal("not-supported", f"this double does not {kind}")
        catalogue = Catalogue(self.connection)
        return hasura_sql.select(self.connection, self.document, catalogue, args, asker.role, asker.variables)


def _read_document(told, present, path):
    """The document of a replace_metadata in its canonical form. Raises Refusal for what is none."""
    if not isinstance(told, dict):
        raise Refusal("parse-failed", "parsing Metadata failed, expected Object, but encountered another value", path)
    configuration = next(
        (source["configuration"] for source in present["sources"] if source["name"] == "default"), CONFIGURATION
    )
    for number, source in enumerate(told.get("sources", [])):
        for name in ("name", "tables", "configuration"):
            if name not in source:
                raise Refusal("parse-failed", f"the key '{name}' was not present", f"{path}.sources[{number}]")
    try:
        return canonical(copy.deepcopy(told), configuration)
    except (KeyError, TypeError, AttributeError) as error:
        raise Refusal("parse-failed", f"the key {error} was not present", path) from error
