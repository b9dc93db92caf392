"""The shape of each command's JSON `data`: what docs/json.md shows and what the tests hold every output to.

Notation: a word is a type ("text", "integer", "number", "boolean", "any"), "?" behind it allows null; a list of one
is an array of that; a dict is an object, whose keys are all there unless they end in "?"; a tuple names the values.
"""

from __future__ import annotations

VERSION = "text"  # a migration's version is text: a bigint is not safe in every JSON reader

PLAN = {
    "plan": [
        {"kind": "text", "title": "text", "mode": "text?", "destroys": "boolean", "sql": "text?", "detail?": "text"}
    ],
    "loses?": ["text"],
}

STATE = ("applied", "pending", "out_of_order", "missing", "changed", "dirty")
COUNTS = dict.fromkeys(STATE, "integer")
MIGRATION = {
    "version": VERSION,
    "name": "text",
    "file": "text?",
    "state": STATE,
    "applied_at": "text?",
    "duration_ms": "number?",
}
RAN = [{"version": VERSION, "name": "text", "file": "text", "mode": ("transaction", "no_transaction", "self_test")}]
BACKUP_FORMATS = ("custom", "plain", "directory")
TAKEN = {
    "file": "text?",
    "format": BACKUP_FORMATS,
    "bytes": "integer",
    "sha256": "text",
    "remote": "text?",
    "duration_ms": "integer",
}
SEEDED = [{"file": "text", "rows": "any", "duration_ms": "number?"}]
METADATA = ("reloaded", "not_reloaded", "inconsistent")

DROPPED = {
    "dropped": [{"kind": "text", "schema": "text", "name": "text", "arguments": ["text"], "rows": "integer?"}],
    "also_dropped": ["text"],
    "api_loses": ["text"],
    "forgotten": "integer",
}

PLACE = {"file": "text?", "line": "integer?"}
FINDING = {"rule": "text", "message": "text", "path": ["any"], **PLACE}
CHANGES = [
    {"path": ["text"], "change": ("added", "removed", "changed"), "local": "any", "live": "any", **PLACE}
]
INCONSISTENT = [{"type": "text", "name": "text", "reason": "text", **PLACE}]
APPLIED = {
    "applied": "boolean",
    "changes": CHANGES,
    "inconsistent": INCONSISTENT,
    "resource_version": "integer?",
}
WRITTEN = {"written": ["text"], "removed": ["text"], "copies": ["text"], "resource_version": "integer?"}

DATA = {
    "migrate up": {"applied": RAN, "metadata?": METADATA},
    "migrate down": {"rolled_back": RAN, "metadata?": METADATA},
    "migrate status": {
        "migrations": [MIGRATION],
        "counts": COUNTS,
        "compared_with?": {"env": "text", "reachable": "boolean", "differs": [VERSION]},
    },
    "migrate create": {"files": ["text"], "version": VERSION},
    "migrate verify-checksums": {
        "checked": "integer",
        "wrong": [{"version": VERSION, "file": "text?", "state": ("changed", "missing")}],
    },
    "migrate reset-checksum": {"migration": "text?", "checksum?": "text"},
    "migrate baseline": {"recorded": [VERSION]},
    "migrate repair": {
        "migration": VERSION,
        "repaired": ("applied", "pending", "statement_done", "statement_undone", None),
    },
    "seed run": {"seeds": SEEDED},
    "seed list": {
        "seeds": [
            {
                "file": "text",
                "kind": ("sql", "typescript", "javascript", "csv", "json"),
                "tags": ["text"],
                "depends_on": ["text"],
                "state": ("applied", "changed", "pending", "other_env"),
                "applied_at": "text?",
            }
        ],
        "counts": dict.fromkeys(("applied", "changed", "pending", "other_env"), "integer"),
    },
    "seed verify": {
        "checked": ["text"],
        "findings": [
            {
                "file": "text",
                "line": "integer?",
                "kind": ("missing rows", "not idempotent", "fails", "not true"),
                "table": "text?",
                "rows": "integer?",
                "message": "text?",
            }
        ],
    },
    "seed graph": {
        "nodes": ["text"],
        "edges": [{"from": "text", "to": "text", "reason": "text"}],
        "order": ["text"],
    },
    "backup": TAKEN,
    "backup list": {
        "backups": [
            {
                "file": "text",
                "time": "text",
                "label": "text?",
                "format": BACKUP_FORMATS,
                "bytes": "integer",
                "env": "text?",
                "database": "text?",
                "manifest": "boolean",
            }
        ],
        # Databases that restores have set aside; without --remote, and where a server answers.
        "aside?": [
            {
                "database": "text",
                "kind": ("before", "restore"),
                "since": "text?",
                "age_seconds": "integer?",
                "size_bytes": "integer",
            }
        ],
    },
    "backup verify": {
        "backups": [
            {
                "file": "text",
                "bytes": "integer",
                "state": ("good", "damaged", "without manifest", "not decrypted"),
                "reason": "text?",
            }
        ]
    },
    "backup prune": {"removed": ["text"], "kept": ["text"]},
    "restore": {
        "file?": "text",
        "database?": "text",
        "before?": "text?",
        "safety_backup?": "text?",
        "duration_ms?": "integer",
        "dropped?": ["text"],
        "metadata?": METADATA,
    },
    "list": {
        "objects": [{"schema": "text", "name": "text", "type": "text", "rows": "integer?", "size_bytes": "integer?"}]
    },
    "shell": {"columns?": ["text"], "rows?": [["any"]], "tag?": "text", "reader?": "text"},
    "drop": {**DROPPED, **{f"{name}?": kind for name, kind in TAKEN.items()}},
    "reset": {**DROPPED, "applied": RAN, "metadata?": METADATA, "seeds?": SEEDED},
    "protect": {"protected": "boolean", "changed": "boolean"},
    "fixtures list": {"fixtures": [{"name": "text", "files": ["text"], "tables": ["text"], "needs": ["text"]}]},
    "fixtures run": {
        "fixtures": ["text"],
        "rows": [{"schema": "text", "table": "text", "rows": "integer"}],
        "kept": "boolean",
        "database?": "text",
        "exit_code?": "integer",
    },
    "fixtures verify": {"fixtures": [{"name": "text", "ok": "boolean", "error": "any"}]},
    "hasura metadata apply": APPLIED,
    "hasura metadata export": WRITTEN,
    "hasura metadata reload": {"is_consistent": "boolean", "inconsistent": INCONSISTENT},
    "hasura metadata diff": {"changes": CHANGES, "resource_version": "integer?"},
    "hasura metadata validate": {
        "asked": dict.fromkeys(("structure", "catalogue", "engine"), "boolean"),
        "findings": [{"asked": ("structure", "catalogue", "engine"), **FINDING}],
    },
    "hasura metadata lint": {
        "findings": [{**FINDING, "fixable": "boolean"}],
        "written?": ["text"],
        "removed?": ["text"],
        "copies?": ["text"],
    },
    "hasura git status": {
        "files": [{"file": "text", "state": "text"}],
        "engine": {
            "asked": "boolean",
            "resource_version": "integer?",
            "differs_from_head": "boolean?",
            "differs_from_working_tree": "boolean?",
        },
    },
    "hasura git pull": WRITTEN,
    "hasura git push": APPLIED,
    "hasura console": {
        "endpoint": "text",
        "port": "integer",
        "read_only": "boolean",
        "changed": "boolean",
        "resource_version": {"before": "integer", "after": "integer?"},
    },
    "server status": {"running": "boolean", "version": "integer?", "data": "text?", "socket": "text?", "log": "text?"},
    "server stop": {"stopped": "boolean"},
}

TYPES = {"text": "string", "integer": "integer", "number": "number", "boolean": "boolean"}


def document_schema(path):
    """The JSON Schema (2020-12) of the document a command prints when it ends well (DESIGN.md, section 5)."""
    return _document_with(DATA[path])


def plan_schema():
    """The JSON Schema of the document that a command which writes prints under --dry-run."""
    return _document_with(PLAN)


def _document_with(data):
    return _schema(
        {
            "ok": "boolean",
            "command": "text",
            "env": "text",
            "dry_run": "boolean",
            "data": data,
            "warnings": ["text"],
            "error?": "any",
        }
    )


ERROR = {
    "code": "text",
    "message": "text",
    "hint": "text?",
    "exit_code": "integer",
    "file?": "text",
    "line?": "integer",
    "column?": "integer",
    "excerpt?": "text",
}


def failure_schema():
    """The JSON Schema of the document of a command that failed."""
    return _schema(
        {
            "ok": (False,),
            "command": "text",
            "env": "text?",
            "dry_run": "boolean",
            "data": "any",
            "warnings": ["text"],
            "error": ERROR,
        }
    )


def _schema(shape):
    if isinstance(shape, tuple):
        return {"enum": [*shape]}
    if isinstance(shape, list):
        return {"type": "array", "items": _schema(shape[0])}
    if isinstance(shape, dict):
        return {
            "type": "object",
            "properties": {name.rstrip("?"): _schema(inner) for name, inner in shape.items()},
            "required": [name for name in shape if not name.endswith("?")],
            "additionalProperties": False,
        }
    if shape == "any":
        return {}
    if shape.endswith("?"):
        return {"type": [TYPES[shape[:-1]], "null"]}
    return {"type": TYPES[shape]}
