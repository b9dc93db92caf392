"""Hasura's HTTP API, as far as the program asks it: metadata, its consistency, the CLI's state, the version.

Every request of the metadata API is a POST of {"type", "version", "args"} to /v1/metadata; an error is JSON with
`error`, `path`, `code` and sometimes `internal` (hasura/graphql-engine v2, Hasura.Base.Error).
"""

from __future__ import annotations

from nself_core.failures import CheckFailed, CredentialsRefused, Failure, Unreachable
from nself_core.hasura.masking import masked
from nself_core.hasura.objects import spec_of
from nself_core.http import json_request, redact

# Paths that people give with the endpoint because a browser or a client of the API wants them.
FOREIGN_PATHS = ("/v1/graphql", "/v1/metadata", "/console")


class MetadataRefused(Failure):
    """The engine refused a request of its metadata API; `data` holds its code word, path and `internal`."""

    code = "metadata_refused"


class MetadataConflict(MetadataRefused):
    """Somebody else changed the metadata since the resource version that was named."""

    code = "metadata_conflict"


class MetadataInconsistent(MetadataRefused):
    """The engine did not take the metadata, because some of its objects cannot be; `objects` are these."""

    code = "metadata_inconsistent"

    @property
    def objects(self):
        """[{"type", "name", "reason", "definition"}, …], as get_inconsistent_metadata gives them."""
        return self.data["internal"]


# Asked before the table itself, which is not there in every database, and may not be for every role to read.
SQL_IS_STORED = """
SELECT pg_catalog.has_schema_privilege(n.oid, 'USAGE')
       AND pg_catalog.has_table_privilege(c.oid, 'SELECT') AS readable
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'hdb_catalog' AND c.relname = 'hdb_metadata'
"""
SQL_STORED = "SELECT resource_version, metadata FROM hdb_catalog.hdb_metadata"

# Large metadata is built anew object by object, and every source's catalogue is read for it (seconds).
REPLACE_SECONDS = 600


def read_stored_metadata(database):
    """The metadata as the engine has stored it, read without the engine: what `export_metadata` gives.

    Argument: `database`, the one in which the engine keeps its metadata. Only ever read: an engine is not told of
    what others write there. Raises CheckFailed where there is none, CredentialsRefused where the role may not read it.
    """
    found = database.rows(SQL_IS_STORED)
    rows = database.rows(SQL_STORED) if found and found[0]["readable"] else []
    if found and not found[0]["readable"]:
        raise CredentialsRefused(
            f"hdb_catalog.hdb_metadata in {database.where} may not be read by this role",
            "GRANT USAGE ON SCHEMA hdb_catalog and SELECT on the table, or connect as its owner",
        )
    if not rows:
        raise CheckFailed(
            f"Hasura keeps no metadata in {database.where}",
            "it may keep it in another database (HASURA_GRAPHQL_METADATA_DATABASE_URL): name that one by --url",
        )
    return {"resource_version": rows[0]["resource_version"], "metadata": rows[0]["metadata"]}


class HasuraApi:
    """The engine at one address.

    Arguments: `endpoint`, its base address, as HASURA_GRAPHQL_ENDPOINT gives it; `admin_secret`, None or empty for an
    engine without one; `timeout`, seconds for each request; `dial`, where no address leads to it (see reach.py). Every
    method raises Unreachable when the engine does not answer, CredentialsRefused when it does not accept the secret,
    and MetadataRefused when it refuses the request.
    """

    def __init__(self, endpoint, admin_secret=None, timeout=60, dial=None):
        self.endpoint = _base(endpoint)
        self._dial = dial
        self.timeout = timeout
        self._headers = {"X-Hasura-Admin-Secret": admin_secret} if admin_secret else {}
        self._secrets = (admin_secret,) if admin_secret else ()

    def reload_metadata(self):
        """Make the engine read the database's catalogue again.

        Returns {"is_consistent": bool, "inconsistent_objects": [{"type", "name", "reason", "definition"}, …]}.
        """
        answer = self._metadata("reload_metadata", {})
        return self._consistency(answer) if "is_consistent" in answer else self.get_inconsistent_metadata()

    def get_inconsistent_metadata(self):
        """What of the metadata the engine left out of its API; the same form as reload_metadata gives."""
        return self._consistency(self._metadata("get_inconsistent_metadata", {}))

    def export_metadata(self):
        """The whole metadata with its version: {"resource_version": int, "metadata": {…}}."""
        answer = self._metadata("export_metadata", {}, version=2)
        return self._checked(answer, {"resource_version": int, "metadata": dict})

    def replace_metadata(self, document, resource_version=None, allow_inconsistent=False):
        """Put `document` in the place of all metadata.

        Arguments: `resource_version`, the version that it was compared with: where it is no longer the present one,
        nothing is changed and MetadataConflict raised; None replaces whatever is there. `allow_inconsistent`, whether
        it is taken also when some of its objects cannot be: otherwise nothing is changed then, and
        MetadataInconsistent raised. Returns what reload_metadata does, and `warnings`, as the engine words them.
        """
        args = {"allow_inconsistent_metadata": allow_inconsistent, "metadata": document}
        locked = {} if resource_version is None else {"resource_version": resource_version}
        answer = self._metadata("replace_metadata", args, 2, REPLACE_SECONDS, **locked)
        return {**self._consistency(answer), "warnings": answer.get("warnings") or []}

    def get_catalog_state(self):
        """What Hasura's own tools have stored: {"id", "cli_state": {…}, "console_state": {…}}."""
        return self._checked(self._metadata("get_catalog_state", {}), {"id": str})

    def version(self):
        """The engine's version, such as "v2.48.10"; asked without the secret."""
        url = f"{self.endpoint}/v1/version"
        answer = json_request("GET", url, timeout=self.timeout, secrets=self._secrets, dial=self._dial)
        version = answer.document.get("version") if isinstance(answer.document, dict) else None
        if answer.status != 200 or not isinstance(version, str):
            raise Unreachable(f"what answers at {self.endpoint} is not Hasura's engine ({answer.status})")
        return version

    def _metadata(self, request_type, args, version=None, timeout=0, **more):
        """Send one request of the metadata API, `more` beside its args, and return its answer, a dict."""
        request = {"type": request_type, "args": args, **more}
        if version is not None:
            request["version"] = version
        timeout = max(timeout, self.timeout)
        url = f"{self.endpoint}/v1/metadata"
        answer = json_request("POST", url, request, self._headers, timeout, self._secrets, self._dial)
        if answer.status != 200:
            raise self._refusal(request_type, answer)
        if not isinstance(answer.document, dict):
            raise self._foreign()
        return answer.document

    def _foreign(self):
        return Unreachable(f"what answers at {self.endpoint} is not Hasura's metadata API")

    def _checked(self, answer, types):
        """The answer, where what it has under each key of `types` is of that type; raises Unreachable otherwise."""
        if not all(isinstance(answer.get(key), kind) for key, kind in types.items()):
            raise self._foreign()
        return answer

    def _consistency(self, answer):
        objects = self._checked(answer, {"is_consistent": bool}).get("inconsistent_objects") or []
        if not isinstance(objects, list) or not all(isinstance(item, dict) for item in objects):
            raise self._foreign()
        return {"is_consistent": answer["is_consistent"], "inconsistent_objects": objects}

    def _refusal(self, request_type, answer):
        """The failure that an error of the API means."""
        error = answer.document if isinstance(answer.document, dict) else {}
        code = error.get("code")
        message = redact(str(error.get("error", f"status {answer.status}")), self._secrets)
        if code == "access-denied":
            return CredentialsRefused(f"Hasura at {self.endpoint} refused {request_type}: {message}")
        if answer.status in (404, 405):
            return Unreachable(f"there is no metadata API at {self.endpoint}: {message}",
                               "Hasura 2 has it, unless HASURA_GRAPHQL_ENABLED_APIS leaves it out")
        if answer.status in (502, 503, 504):
            return Unreachable(f"Hasura at {self.endpoint} is not ready: {message}")
        where = f" at {error['path']}" if error.get("path") not in (None, "$") else ""
        internal = without_secrets(error.get("internal"))
        data = {"hasura_code": code, "path": error.get("path"), "internal": internal}
        return _kind_of_refusal(answer.status, error)(f"Hasura refused {request_type}: {message}{where}", data=data)


def _kind_of_refusal(status, error):
    """The class of failure for an error document of the metadata API."""
    if status == 409 or error.get("code") == "conflict":
        return MetadataConflict
    internal = error.get("internal")
    are_objects = isinstance(internal, list) and all(isinstance(item, dict) and "reason" in item for item in internal)
    if internal and are_objects and "inconsistent" in str(error.get("error")):
        return MetadataInconsistent
    return MetadataRefused


# Keys under which an object of the metadata has what it sends to others, and where it connects; objects.py knows them.
TELLING = ("headers", "request_headers", "connection_info")


def without_secrets(value):
    """`value`, of an error of the engine, without the headers and connections that objects of the metadata have."""
    if isinstance(value, list):
        return [without_secrets(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: masked(spec_of(key), item) if key in TELLING else without_secrets(item) for key, item in value.items()}


def _base(endpoint):
    base = endpoint.strip().rstrip("/")
    for path in FOREIGN_PATHS:
        base = base[: -len(path)].rstrip("/") if base.endswith(path) else base
    return base
