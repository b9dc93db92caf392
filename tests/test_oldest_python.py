"""The shipped code is Python 3.9's: its grammar, and the names and arguments of its standard library.

The tests run on one Python only; this is what can be said of the oldest one without it. Ruff's target version says a
part of the same.
"""

from __future__ import annotations

import ast

import pytest
from bed.projects import REPOSITORY

from build import OLDEST_PYTHON

SHIPPED = [
    REPOSITORY / "nself_db.py", REPOSITORY / "build.py", *sorted((REPOSITORY / "nself_core").rglob("*.py"))
]  # fmt: skip

# What came after 3.9, by module; None is the whole module.
LATER_NAMES: dict = {
    "tomllib": None,
    "builtins": {
        "aiter",
        "anext",
        "BaseExceptionGroup",
        "EncodingWarning",
        "ExceptionGroup",
        "PythonFinalizationError",
    },
    "asyncio": {"Barrier", "Runner", "TaskGroup", "timeout", "timeout_at"},
    "base64": {"z85decode", "z85encode"},
    "contextlib": {"aclosing", "chdir"},
    "copy": {"replace"},
    "dataclasses": {"KW_ONLY"},
    "datetime": {"UTC"},
    "enum": {"EnumCheck", "EnumType", "ReprEnum", "StrEnum", "global_enum", "member", "nonmember", "verify"},
    "errno": {"ENOTCAPABLE", "EQFULL"},
    "hashlib": {"file_digest"},
    "inspect": {"BufferFlags", "get_annotations", "getasyncgenstate", "getmembers_static", "markcoroutinefunction"},
    "io": {"text_encoding"},
    "itertools": {"batched", "pairwise"},
    "logging": {"getHandlerByName", "getHandlerNames", "getLevelNamesMapping"},
    "math": {"cbrt", "exp2", "fma", "sumprod"},
    "operator": {"call", "is_none", "is_not_none"},
    "os": {
        "eventfd",
        "eventfd_read",
        "eventfd_write",
        "listdrives",
        "login_tty",
        "process_cpu_count",
        "setns",
        "splice",
        "unshare",
    },
    "os.path": {"isdevdrive", "isjunction", "isreserved", "splitroot"},
    "queue": {"ShutDown"},
    "random": {"binomialvariate"},
    "sqlite3": {"Blob"},
    "statistics": {"correlation", "covariance", "kde", "linear_regression"},
    "sys": {"activate_stack_trampoline", "exception", "monitoring", "orig_argv", "stdlib_module_names"},
    "threading": {"getprofile", "gettrace", "setprofile_all_threads", "settrace_all_threads"},
    "types": {"EllipsisType", "NoneType", "NotImplementedType", "UnionType", "get_original_bases"},
    "uuid": {"uuid6", "uuid7", "uuid8"},
    "warnings": {"deprecated"},
}
# Arguments that came after 3.9, by the name of what is called.
LATER_ARGUMENTS = {
    "zip": {"strict"}, "rmtree": {"onexc"}, "Popen": {"process_group", "pipesize"}, "run": {"process_group"},
    "glob": {"root_dir", "dir_fd", "include_hidden"}, "iglob": {"root_dir", "dir_fd", "include_hidden"},
    "bisect": {"key"}, "bisect_left": {"key"}, "bisect_right": {"key"}, "insort": {"key"},
    "NamedTemporaryFile": {"delete_on_close"}, "dataclass": {"slots", "kw_only"},
}  # fmt: skip


def bound_modules(tree):
    """The modules of the standard library that names of a file stand for: import a.b as c gives {"c": "a.b"}."""
    found = {}
    for node in ast.walk(tree):
        for name in node.names if isinstance(node, ast.Import) else ():
            found[name.asname or name.name] = name.name
    return found


def later(source):
    """What of a module's text 3.9 does not have, as (line, what)."""
    tree = ast.parse(source)
    modules = bound_modules(tree)
    nodes: list = list(ast.walk(tree))
    for node in nodes:
        for module, name in imported(node, modules):
            names = LATER_NAMES.get(module, ())
            if names is None or name in names:
                yield node.lineno, f"{module}.{name}"
        if isinstance(node, ast.Name) and node.id in LATER_NAMES["builtins"]:
            yield node.lineno, node.id
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func).rpartition(".")[2]
            arguments = {keyword.arg for keyword in node.keywords} & LATER_ARGUMENTS.get(called, set())
            yield from ((node.lineno, f"{called}({argument}=)") for argument in arguments)
            if called == "isinstance" and any(isinstance(part, ast.BinOp) for part in node.args[1:]):
                yield node.lineno, "isinstance(x, A | B)"


def imported(node, modules):
    """The (module, name) pairs that a node takes from the standard library."""
    if isinstance(node, ast.Import):
        return [(name.name, "") for name in node.names]
    if isinstance(node, ast.ImportFrom):
        return [(node.module, name.name) for name in node.names]
    if isinstance(node, ast.Attribute) and ast.unparse(node.value) in {*modules, "os.path"}:
        value = ast.unparse(node.value)
        return [(modules.get(value, value), node.attr)]
    return []


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_the_shipped_code_is_the_oldest_pythons(path):
    source = path.read_text(encoding="utf-8")
    ast.parse(source, feature_version=OLDEST_PYTHON)
    assert list(later(source)) == []
    # Annotations are never evaluated, so that those of later versions may stand in them.
    annotated = any(isinstance(node, ast.AnnAssign) or getattr(node, "annotation", None) or
                    getattr(node, "returns", None) for node in ast.walk(ast.parse(source)))  # fmt: skip
    assert not annotated or "from __future__ import annotations\n" in source


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import tomllib", ["tomllib."]),
        ("from itertools import chain, pairwise", ["itertools.pairwise"]),
        ("import hashlib as h\nh.file_digest(f, 'md5')", ["hashlib.file_digest"]),
        ("import os\nos.path.splitroot(x)", ["os.path.splitroot"]),
        ("import sys\nsys.argv, sys.exception()", ["sys.exception"]),
        ("zip(a, b, strict=True)", ["zip(strict=)"]),
        ("isinstance(x, int | str)", ["isinstance(x, A | B)"]),
        ("raise ExceptionGroup('x', [])", ["ExceptionGroup"]),
        ("batched = mine.pairwise; zip(a, b); isinstance(x, (int, str))", []),
    ],
)
def test_what_came_later_is_found(source, found):
    assert [what for _line, what in later(source)] == found


@pytest.mark.parametrize(
    "source", ["match x:\n    case 1: pass", "try: pass\nexcept* ValueError: pass", "type A = int"]
)
def test_a_later_grammar_is_found(source):
    with pytest.raises(SyntaxError):
        ast.parse(source, feature_version=OLDEST_PYTHON)
