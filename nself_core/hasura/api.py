"""Hasura's HTTP API, as far as the program asks it: metadata, its consistency, the CLI's state, the version.

Every request of the metadata API is a POST of {"type", "version", "args"} to /v1/metadata; an error is JSON with
`error`, `path`, `code` and sometimes `internal` (hasura/graphql-engine v2, Hasura.Base.Error).
"""

from __future__ import annotations

from nself_core.failures import CredentialsRefused, Failure, Unreachable
from nself_core.http import json_request, redact

# Paths that people give with the endpoint because a browser or a client of the API wants them.
FOREIGN_PATHS = ("/v1/graphql", "/v1/metadata", "/console")


class MetadataRefused(Failure):
    """The engine refused a request of its metadata API; `data` holds its code word, path and `internal`."""

    code = "metadata_refused"


class MetadataConflict(MetadataRefused):
    """Somebody else changed the metadata since the resource version that was named."""

    code = "metadata_conflict"


class HasuraApi:
    """The engine at one address.

    Arguments: `endpoint`, its base address, as HASURA_GRAPHQL_ENDPOINT gives it; `admin_secret`, None or empty for an
    engine without one; `timeout`, seconds for each request. Every method raises Unreachable when the engine does not
    answer, CredentialsRefused when it does not accept the secret, and MetadataRefused when it refuses the request.
    """

    def __init__(self, endpoint, admin_secret=None, timeout=60):
        self.endpoint = _base(endpoint)
        self.timeout = timeout
        self._headers = {"X-Hasura-Admin-Secret": admin_secret} if admin_secret else {}
        self._secrets = (admin_secret,) if admin_secret else ()

    def reload_metadata(self):
        """Make the engine read the database's catalogue again.

        Returns {"is_consistent": bool, "inconsistent_objects": [{"type", "name", "reason", "definition"}, …]}.
        """
        answer = self._metadata("reload_metadata", {})
        return _consistency(answer) if "is_consistent" in answer else self.get_inconsistent_metadata()

    def get_inconsistent_metadata(self):
        """What of the metadata the engine left out of its API; the same form as reload_metadata gives."""
        return _consistency(self._metadata("get_inconsistent_metadata", {}))

    def export_metadata(self):
        """The whole metadata with its version: {"resource_version": int, "metadata": {…}}."""
        return self._metadata("export_metadata", {}, version=2)

    def get_catalog_state(self):
        """What Hasura's own tools have stored: {"id", "cli_state": {…}, "console_state": {…}}."""
        return self._metadata("get_catalog_state", {})

    def version(self):
        """The engine's version, such as "v2.48.10"; asked without the secret."""
        answer = json_request("GET", f"{self.endpoint}/v1/version", timeout=self.timeout, secrets=self._secrets)
        version = answer.document.get("version") if isinstance(answer.document, dict) else None
        if answer.status != 200 or not isinstance(version, str):
            raise Unreachable(f"what answers at {self.endpoint} is not Hasura's engine ({answer.status})")
        return version

    def _metadata(self, request_type, args, version=None):
        """Send one request of the metadata API and return its answer, a dict."""
        request = {"type": request_type, "args": args}
        if version is not None:
            request["version"] = version
        answer = json_request(
            "POST", f"{self.endpoint}/v1/metadata", request, self._headers, self.timeout, self._secrets
        )
        if answer.status != 200:
            raise self._refusal(request_type, answer)
        if not isinstance(answer.document, dict):
            raise Unreachable(f"what answers at {self.endpoint} is not Hasura's metadata API")
        return answer.document

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
        kind = MetadataConflict if answer.status == 409 or code == "conflict" else MetadataRefused
        where = f" at {error['path']}" if error.get("path") not in (None, "$") else ""
        return kind(f"Hasura refused {request_type}: {message}{where}", data={
            "hasura_code": code, "path": error.get("path"), "internal": error.get("internal"),
        })


def _base(endpoint):
    base = endpoint.strip().rstrip("/")
    for path in FOREIGN_PATHS:
        base = base[: -len(path)].rstrip("/") if base.endswith(path) else base
    return base


def _consistency(answer):
    return {
        "is_consistent": bool(answer.get("is_consistent")),
        "inconsistent_objects": answer.get("inconsistent_objects") or [],
    }
