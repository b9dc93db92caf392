"""What a read-only console lets through: pure decisions over a request's method, path and body.

It keeps a person from changing production by a wrong click. What is not known to read is refused.
"""

from __future__ import annotations

from nself_core.failures import FileFailure

# Requests of the metadata API that change nothing are named so (Hasura.Server.API.Metadata, RQLMetadataV1).
READING = ("export_", "get_", "list_", "dump_", "introspect_", "suggest_", "describe_")
BULKS = ("bulk", "concurrent_bulk", "bulk_keep_going")
# Of these databases run_sql has a read-only mode, which the server holds to.
SQL_KINDS = ("run_sql", "pg_run_sql", "postgres_run_sql", "citus_run_sql", "cockroach_run_sql")
ROW_READING = ("select", "count")

APIS = ("/v1/metadata", "/v1/query", "/v2/query")
GRAPHQL = ("/v1/graphql", "/v1alpha1/graphql", "/v1beta1/relay")
# POST requests that only read whatever their body says.
READING_PATHS = ("/v1/graphql/explain", "/v1alpha1/pg_dump")

REASON = "this console is read-only: start it with --rw to change anything"


def allowed_body(method, path, body):
    """The body to send on, as bytes; None where the request may change something, and is refused.

    Arguments: `path` without its query; `body`, bytes. SQL of statements that read is sent on with `read_only` set, so
    that the server itself refuses what writes all the same.
    """
    if method in ("GET", "HEAD"):
        return body
    if method != "POST":
        return None
    if path in READING_PATHS:
        return body
    document = _document(body)
    if path in APIS:
        reading = _reading(document)
        return None if reading is None else _encoded(reading)
    return body if path in GRAPHQL and _only_queries(document) else None


def _document(body):
    import json

    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _encoded(document):
    import json

    return json.dumps(document).encode()


def _reading(request):
    """The request as it may be sent, or None. A bulk may hold only what may be sent alone."""
    if not isinstance(request, dict) or not isinstance(request.get("type"), str):
        return None
    kind, args = request["type"], request.get("args")
    if kind in BULKS:
        parts = [_reading(part) for part in args] if isinstance(args, list) else [None]
        return None if None in parts else {**request, "args": parts}
    if kind in SQL_KINDS:
        if not isinstance(args, dict) or not _only_reads(args.get("sql")):
            return None
        return {**request, "args": {**args, "read_only": True, "no_transaction": False}}
    return request if kind in ROW_READING or _is_reading(kind) else None


def _only_reads(sql):
    """Whether every statement is of a kind that reads; a COMMIT would leave the transaction that the server opens."""
    from nself_core.sql.lexer import split
    from nself_core.sql.statements import read_only_refusal

    try:
        return isinstance(sql, str) and not any(map(read_only_refusal, split(sql)))
    except FileFailure:
        return False


def _is_reading(kind):
    # Requests of a kind of database begin with its name: pg_get_viewdef, mssql_get_….
    return kind.startswith(READING) or kind.partition("_")[2].startswith(READING)


def _only_queries(document):
    """Whether a GraphQL request, or each of a batch, holds no mutation, whichever of its operations is asked for."""
    requests = document if isinstance(document, list) else [document]
    texts = [request.get("query") if isinstance(request, dict) else None for request in requests]
    return bool(texts) and all(isinstance(text, str) and "mutation" not in _top_words(text) for text in texts)


def _top_words(text):
    """The names in a GraphQL document that stand in no braces, strings or comments."""
    import re

    block = r'"""(?:[^"\\]|\\"""|\\(?!""")|"(?!""))*"""'
    tokens = re.findall(block + r'|#[^\n\r]*|"(?:\\.|[^"\\\n])*"|[A-Za-z_]\w*|[\s\S]', text)
    depth, words = 0, []
    for token in tokens:
        depth += (token == "{") - (token == "}")
        if depth <= 0 and (token[0].isalpha() or token[0] == "_"):
            words.append(token)
    return words
