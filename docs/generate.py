"""Writes docs/commands.md, docs/json.md, docs/lint.md and the README's table of commands from the program's own tables.

Run `python3 docs/generate.py` after a change of COMMANDS, of nself_core/shapes.py or of lint's RULES; a test compares
what it would write with what is committed.
"""

from __future__ import annotations

import json
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

import nself_db  # noqa: E402 - the path above comes first
from nself_core import shapes  # noqa: E402
from nself_core.hasura.lint import rules_page  # noqa: E402

BEGIN, END = "<!-- commands: begin (docs/generate.py) -->", "<!-- commands: end -->"
EFFECTS = {
    nself_db.READS: "reads only",
    nself_db.WRITES: "writes",
    nself_db.DESTROYS: "may lose data or history; asks for consent in prod",
}


def option_line(option):
    """One line of a command's option list."""
    names = ", ".join(f"`{name}`" for name in option.names)
    value = option.keywords.get("metavar") or " or ".join(option.keywords.get("choices", ()))
    takes = f" {value}" if value and option.names[0].startswith("-") else ""
    return f"| {names}{takes} | {option.keywords['help']} |"


def command_section(row):
    """The section of one command."""
    lines = [f"## {row.path}", "", row.help + f" ({EFFECTS[row.effect]})", "", "```", f"$ {row.example}", "```", ""]
    if row.options:
        lines += ["| option | meaning |", "|---|---|", *map(option_line, row.options), ""]
    return lines


def commands_page():
    """The text of docs/commands.md."""
    lines = [
        "# Commands",
        "",
        "Made by docs/generate.py from the table `COMMANDS` in nself_db.py. A leading word `db` is accepted and",
        "dropped.",
        "",
        "For every command, before or after its words:",
        "",
        "| option | meaning |",
        "|---|---|",
        *map(option_line, nself_db.GLOBAL),
        "",
        "| exit code | meaning |",
        "|---|---|",
        "| 0 | done; nothing wrong found |",
        "| 1 | wrong usage, wrong file, failed SQL, a check that failed |",
        "| 2 | Docker, Postgres or Hasura cannot be reached; disk full |",
        "| 3 | credentials are missing or were refused |",
        "| 4 | refused: no consent, not allowed read-only, another run holds the lock |",
        "| 130 | interrupted |",
        "| 141 | the reader of its output went away, as `head` does |",
        "",
    ]
    for row in nself_db.COMMANDS:
        lines += command_section(row)
    return "\n".join(lines).rstrip("\n") + "\n"


def shape_text(shape):
    """A shape as indented text, one key a line."""
    return json.dumps(_named(shape), indent=2, ensure_ascii=False)


def _named(shape):
    if isinstance(shape, tuple):
        return " | ".join("null" if value is None else str(value) for value in shape)
    if isinstance(shape, list):
        return [_named(shape[0])]
    if isinstance(shape, dict):
        return {name: _named(inner) for name, inner in shape.items()}
    return shape


def json_page():
    """The text of docs/json.md."""
    lines = [
        "# JSON",
        "",
        "Made by docs/generate.py from nself_core/shapes.py; a test holds every command's output to it. With `--json`",
        "a command prints exactly one document on standard output, and everything for people on standard error.",
        "",
        "```",
        json.dumps(
            {"ok": True, "command": "migrate status", "env": "dev", "dry_run": False, "data": {}, "warnings": []}
        ),
        "```",
        "",
        "`ok` is true when the exit code is 0. Otherwise there is an `error`:",
        "",
        "```",
        shape_text({"error": shapes.ERROR}),
        "```",
        "",
        "In the shapes below a word is a type, `?` behind a type allows null, `?` behind a key says that it may be",
        "absent, and `a | b` lists the values. A migration's version is text, the number without leading zeros.",
        "",
        "## Every command under --dry-run",
        "",
        "A command that writes prints its plan instead of its own data:",
        "",
        "```",
        shape_text(shapes.PLAN),
        "```",
        "",
    ]
    for path, shape in shapes.DATA.items():
        lines += [f"## {path}", "", "```", shape_text(shape), "```", ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def readme_table():
    """The README's table of commands, between its two marks."""
    rows = [f"| `{row.path}` | {row.help} |" for row in nself_db.COMMANDS]
    return "\n".join([BEGIN, "| command | |", "|---|---|", *rows, END])


def pages():
    """Every file that this program writes: its path below the root, and its text."""
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        readme = file.read()
    head, _, rest = readme.partition(BEGIN)
    tail = rest.partition(END)[2]
    return {
        "docs/commands.md": commands_page(),
        "docs/json.md": json_page(),
        "docs/lint.md": rules_page(),
        "README.md": head + readme_table() + tail,
    }


def main():
    for path, text in pages().items():
        with open(os.path.join(ROOT, path), "w", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    main()
