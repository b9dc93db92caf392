"""The house holds: floors, start-up, what is exported and documented (DESIGN.md, section 2; docs/architecture.md)."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nself_db

ROOT = Path(__file__).resolve().parents[1]
CORE = ROOT / "nself_core"

# From the ground up; a room may import from its own floor's folder and from floors below.
FLOORS = [
    {"failures", "disk", "__init__"},
    {"redaction", "output", "env_files", "environments", "settings", "consent", "shapes", "yaml_reader"},
    {"plan", "processes", "sql"},
    {"postgres", "http", "s3"},
    {"guard", "bookkeeping", "catalogue", "row_counts"},
    {"hasura"},
    {"migrations", "seeds", "fixtures", "backups", "inventory", "shell", "server", "teardown"},
    {"context", "reset"},
]
GROUPS = FLOORS[-2]
# hasura/ is a group, too, and stands one floor lower: migrate's guard and reload are asked of it.

HEAVY = {
    "dataclasses",
    "typing",
    "pathlib",
    "logging",
    "inspect",
    "tempfile",
    "urllib.request",
    "ssl",
    "http.client",
    "yaml",
    "psycopg",
}
COMMAND_WORDS = HEAVY | {"argparse", "json", "subprocess", "hashlib", "re"}


def modules():
    """Every module of the core: its room (first part of its path) and its file."""
    return [(path.relative_to(CORE).parts[0].removesuffix(".py"), path) for path in sorted(CORE.rglob("*.py"))]


def imported_rooms(path):
    """The rooms of nself_core that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "nself_core":
            parts = node.module.split(".")
            yield from (
                [parts[1]] if len(parts) > 1 else [name.name for name in node.names if name.name != "__version__"]
            )
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[1] for name in node.names if name.name.startswith("nself_core."))


def floor_of(room):
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


@pytest.mark.parametrize(("room", "path"), modules(), ids=lambda value: str(getattr(value, "name", value)))
def test_imports_run_downwards_only(room, path):
    for other in imported_rooms(path):
        assert floor_of(other) <= floor_of(room), f"{path.name} imports {other} from a floor above"
        if room in GROUPS and other in GROUPS:
            assert other == room, f"{path.name} imports the inside of group {other}"


def test_no_circles():
    uses = {}
    for path in CORE.rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        top = [
            node
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nself_core")
        ]
        uses[name] = {f"{node.module}.{item.name}" for node in top for item in node.names}
        uses[name] |= {str(node.module) for node in top}
    done, under_way = set(), []

    def visit(name):
        if name in done or name not in uses:
            return
        assert name not in under_way, f"circle: {' -> '.join([*under_way, name])}"
        under_way.append(name)
        for other in uses[name]:
            if other != name:
                visit(other)
        done.add(under_way.pop())

    for name in uses:
        visit(name)


@pytest.mark.parametrize(
    ("words", "forbidden"),
    [
        (["--version"], COMMAND_WORDS),
        (["--help"], COMMAND_WORDS),
        (["migrate", "--help"], COMMAND_WORDS),
        (["migrate", "up", "--help"], HEAVY),
        (["migrate", "status"], HEAVY),
    ],
)
def test_start_up_loads_only_what_it_needs(words, forbidden, tmp_path):
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); before = set(sys.modules)\n"
        "import nself_db\n"
        "try:\n    nself_db.main(sys.argv[2:])\nexcept SystemExit:\n    pass\n"
        "sys.stderr.write('\\n[' + ','.join('\"%s\"' % n for n in sorted(set(sys.modules) - before)) + ']')"
    )
    (tmp_path / "migrations").mkdir()
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, str(ROOT), *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(json.loads(done.stderr.splitlines()[-1]))
    assert "nself_db" in loaded
    assert not loaded & forbidden


def test_only_plan_knows_dry_run():
    for path in [*CORE.rglob("*.py"), ROOT / "nself_db.py"]:
        if path.name != "plan.py":
            assert "if dry_run" not in path.read_text(encoding="utf-8"), path.name


def test_no_room_prints():
    for path in [*CORE.rglob("*.py"), ROOT / "nself_db.py"]:
        calls = [
            node
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
        ]
        assert not calls, path.name


def test_only_processes_starts_children():
    for path in [*CORE.rglob("*.py"), ROOT / "nself_db.py"]:
        if path.name == "processes.py":
            continue
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"subprocess\.(Popen|run|call|check_\w+)|os\.(system|popen|exec\w+|spawn\w+)\(", text), (
            path.name
        )


def test_functions_and_modules_keep_their_size():
    lengths = []
    for path in [*CORE.rglob("*.py"), ROOT / "nself_db.py"]:
        text = path.read_text(encoding="utf-8")
        # The face holds the whole table and every handler (DESIGN.md, section 2), and so grows with the commands.
        assert len(text.splitlines()) <= (1500 if path.name == "nself_db.py" else 600), path.name
        lengths += [
            (node.end_lineno or 0) - node.lineno + 1
            for node in ast.walk(ast.parse(text))
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        ]
    assert max(lengths) <= 70
    assert sorted(lengths)[len(lengths) // 2] <= 11


def test_every_module_and_public_name_says_what_it_is():
    for path in [*CORE.rglob("*.py"), ROOT / "nself_db.py"]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), path.name
        if path.name == "nself_db.py":
            continue
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path.name}: {node.name}"


def test_every_handler_stands_in_the_table():
    tree = ast.parse((ROOT / "nself_db.py").read_text(encoding="utf-8"))
    handlers = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and [argument.arg for argument in node.args.args] == ["ctx", "args"]
    }
    assert handlers == {row.path.replace(" ", "_").replace("-", "_") for row in nself_db.COMMANDS}


def test_the_generated_pages_are_up_to_date():
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import runpy; pages = runpy.run_path('docs/generate.py')['pages']();"
            "import sys; old = {p: open(p, encoding='utf-8').read() for p in pages};"
            "sys.exit(', '.join(p for p in pages if old[p] != pages[p]) or 0)",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"run python3 docs/generate.py: {done.stderr}"


def test_the_architecture_page_names_every_room():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for _, path in modules():
        name = str(path.relative_to(ROOT))
        assert path.name == "__init__.py" or f"`{name}`" in text, name
