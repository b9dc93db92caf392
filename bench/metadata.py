"""Measures what reading a metadata tree, comparing and exporting it costs, as ratios to the YAML's load alone.

    .venv/bin/python bench/metadata.py [--rounds 5] [--tables 2000]

The tree has a file of 101 lines for each table. The floor loads the same files with PyYAML's own safe loader and keeps
what they hold. All runs with libyaml first, and then, on the same tree, with PyYAML's Python code alone.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "bench")]

import yaml  # noqa: E402 - the paths above come first

from migrations import machine, table  # noqa: E402
from nself_core.hasura.diff import find_changes  # noqa: E402
from nself_core.hasura.export import plan_files  # noqa: E402
from nself_core.hasura.tree import read_tree  # noqa: E402
from nself_core.hasura.write_files import apply_files  # noqa: E402

ROLES = ("admin", "anonymous", "user")


def table_entry(number, count):
    """The metadata of one table: four relationships out, two in, three roles that read twelve columns."""
    rule = {
        "columns": [f"column_{column}" for column in range(12)],
        "filter": {"_and": [{"owner_id": {"_eq": "X-Hasura-User-Id"}}, {"deleted": {"_eq": False}}]},
        "limit": 100,
        "allow_aggregations": True,
    }
    return {
        "table": {"name": f"t_{number}", "schema": "public"},
        "object_relationships": [
            {"name": f"to_{other}", "using": {"foreign_key_constraint_on": f"to_{other}_id"}} for other in range(4)
        ],
        "array_relationships": [
            {
                "name": f"from_{other}",
                "using": {
                    "foreign_key_constraint_on": {
                        "column": f"t_{other}_id",
                        "table": {"name": f"t_{(number + other) % count}", "schema": "public"},
                    }
                },
            }
            for other in range(2)
        ],
        "select_permissions": [{"role": role, "permission": rule} for role in ROLES],
    }


def document_of(count):
    """A document with so many tables."""
    configuration = {"connection_info": {"database_url": {"from_env": "PG_DATABASE_URL"}}}
    tables = [table_entry(number, count) for number in range(count)]
    source = {"name": "default", "kind": "postgres", "tables": tables, "configuration": configuration}
    return {"version": 3, "sources": [source]}


def contenders(folder, live, loader):
    """name -> function, for one tree."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(Path(folder).rglob("*.yaml"))]
    return {
        "floor": lambda: [yaml.load(text, loader) for text in texts],
        "build": lambda: read_tree(folder),
        "build and diff": lambda: find_changes(read_tree(folder).document, live),
        "build and plan an export": lambda: plan_files(folder, read_tree(folder), live),
    }


def seconds(function):
    """How long the processor works on a function; it waits for nothing but files that lie in memory."""
    gc.collect()
    begun = time.process_time()
    kept = function()
    took = time.process_time() - begun
    del kept
    return took


def measure(count, rounds, loader, title):
    """All rounds over one tree, as a table."""
    live = json.loads(json.dumps(document_of(count)))
    with tempfile.TemporaryDirectory() as folder:
        apply_files(folder, plan_files(folder, None, live))
        lines = sum(path.read_text(encoding="utf-8").count("\n") for path in Path(folder).rglob("*.yaml"))
        live["sources"][0]["tables"][count // 2]["select_permissions"][0]["permission"]["limit"] = 7
        functions = contenders(folder, live, loader)
        found = []
        for number in range(rounds):
            names = [*functions][number % len(functions) :] + [*functions][: number % len(functions)]
            took = {name: seconds(functions[name]) for name in names}
            found.append({"metadata": {name: took[name] for name in functions}})
    return table(found, f"{title}, {count} tables, {lines} lines, {rounds} rounds")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tables", type=int, default=2000)
    chosen = parser.parse_args()
    parts = [f"{machine()}.", measure(chosen.tables, chosen.rounds, yaml.CSafeLoader, "With libyaml")]
    del yaml.CSafeLoader
    parts.append(measure(chosen.tables, chosen.rounds, yaml.SafeLoader, "Without libyaml"))
    sys.stdout.write("\n".join(parts))


if __name__ == "__main__":
    main()
