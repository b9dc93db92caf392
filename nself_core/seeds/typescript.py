"""Seeds that are programs: which runtime runs them, and what becomes of the statements that they yield.

The program gets no connection and no credentials: it yields statements, and we run them in the seed's transaction, so
that dry-run, verify and rollback hold for it too. Its values come as values and are quoted by `sql.quoting` alone.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shlex

from nself_core import processes
from nself_core.failures import FileFailure, Unreachable, UsageFailure
from nself_core.seeds.files import TYPESCRIPT
from nself_core.seeds.harness import SOURCE
from nself_core.sql.lexer import split, tokens
from nself_core.sql.quoting import array_text, identifier, literal

RUNTIMES = ("node", "deno", "bun", "tsx")
# What each wants before the script's name. A seed may read files and its environment, and no more.
ARGUMENTS = {
    "node": ("--no-warnings",),
    "deno": ("run", "--quiet", "--no-prompt", "--allow-read", "--allow-env", "--allow-sys"),
    "bun": ("run",),
    "tsx": (),
}
# Node.js takes types off by itself since these versions, and on request since the other.
STRIPS = ((23, 6), (22, 18))
STRIPS_ON_REQUEST = (22, 6)
STRIP_OPTION = "--experimental-strip-types"

# All that a seed's process has of our environment.
KEPT = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "PATH", "TMPDIR", "TZ", "USER", "DENO_DIR", "XDG_CACHE_HOME")
PLAIN = {"NO_COLOR": "1"}  # deno colours what its errors say, pipe or not
VERSION_SECONDS = 30
MOST_DIGITS = 4000
# What stands for a value where a template is looked at alone; its E would join a name right before it.
PLACE = "E'x'"


class Programs:
    """Runs seed programs, with a runtime that is looked for once.

    Arguments: `settings`; `note(text)`, which tells people a line that a seed has printed. `warnings` holds what
    `if_possible` could not do.
    """

    def __init__(self, settings, note):
        self.settings = settings
        self.note = note
        self.warnings: list = []
        self._found: dict = {}

    def __call__(self, seed, env):
        """The Statements that a seed yields, in order, each with its line in the seed.

        Raises Unreachable where no runtime is to be had, FileFailure with the seed's line where it throws.
        """
        mark = f"nself-{os.urandom(9).hex()} "
        with _Script() as script:
            argv = [*self._runtime(seed), script, os.path.realpath(seed.path), env, mark]
            done = processes.run(argv, _environment(self.settings.environ), cwd=os.path.dirname(seed.path))
        messages, printed = _heard(done.out, mark)
        for line in (*printed, *done.err.splitlines()):
            self.note(f"{seed.file}: {line}")
        return _statements(messages, seed, done)

    def if_possible(self, seed, env):
        """As a call; where no runtime is to be had there are no statements, and a warning in `warnings`."""
        try:
            return self(seed, env)
        except Unreachable as failure:
            self.warnings.append(f"the tables that {seed.file} fills are not known: {failure.message}")
            return []

    def _runtime(self, seed):
        if seed.kind not in self._found:
            self._found[seed.kind] = find_runtime(self.settings, seed.kind == TYPESCRIPT)
        return self._found[seed.kind]


class _Script:
    """The harness in a file of its own while it runs."""

    def __enter__(self):
        base = os.path.abspath(os.environ.get("TMPDIR") or "/tmp")
        self._folder = os.path.join(base, f"nself-db-{os.urandom(9).hex()}")
        self._path = os.path.join(self._folder, "seed.mjs")
        try:
            os.mkdir(self._folder, 0o700)
            with open(self._path, "w", encoding="utf-8") as file:
                file.write(SOURCE)
        except OSError as error:
            self.__exit__()
            hint = "set TMPDIR to a folder with space"
            raise Unreachable(f"{base} cannot be written: {error.strerror}", hint) from None
        return self._path

    def __exit__(self, *_):
        import shutil  # loaded with subprocess, which has run the seed

        shutil.rmtree(self._folder, ignore_errors=True)


def _environment(environ):
    return {**{name: environ[name] for name in KEPT if name in environ}, **PLAIN}


def find_runtime(settings, types):
    """The words that begin a command which runs a script: SEED_RUNTIME, or the first of RUNTIMES that works.

    Argument: `types`, whether it must understand TypeScript. Raises Unreachable where there is none.
    """
    env = _environment(settings.environ)
    chosen = settings.get("SEED_RUNTIME")
    if chosen:
        return _chosen_runtime(chosen, types, settings.root, env)
    reasons = []
    for name in RUNTIMES:
        words, reason = _try_runtime([name], types, env)
        if words:
            return words
        reasons.append(f"{name} {reason}")
    raise Unreachable(
        f"nothing here runs a {'TypeScript' if types else 'JavaScript'} seed: {', '.join(reasons)}",
        "install Node.js 22.18 or later, deno, bun or tsx, or name one in SEED_RUNTIME",
    )


def _chosen_runtime(chosen, types, root, env):
    try:
        words = shlex.split(chosen)
    except ValueError as error:
        raise UsageFailure(f"SEED_RUNTIME is {chosen}, which cannot be read: {error}") from None
    if not words:
        raise UsageFailure("SEED_RUNTIME names no program")
    if os.sep in words[0]:
        words[0] = os.path.join(root, words[0])  # the seed runs in a folder of its own
    found, reason = _try_runtime(words, types, env)
    if not found:
        raise Unreachable(f"SEED_RUNTIME is {chosen}, which {reason}", "name another, or leave it unset")
    return found


def _try_runtime(words, types, env):
    """(the whole command, "") of a runtime that works, or (None, why not).

    Words behind the program are its own arguments, and then they are all it gets, save what Node.js needs for types.
    """
    path = words[0] if os.sep in words[0] else processes.find_program(words[0])
    if not path:
        return None, "is not installed"
    kind = os.path.splitext(os.path.basename(words[0]))[0]
    # What starts another program (npx tsx) is asked for that one's version.
    asked = words[1:] if kind not in ARGUMENTS else []
    try:
        told = processes.run([path, *asked, "--version"], env, timeout=VERSION_SECONDS)
    except Unreachable:
        return None, "does not start"
    if told.code:
        return None, "does not start"
    extra = _node_options(told.out, types) if kind == "node" else ()
    if extra is None:
        return None, f"{told.out.strip()} does not take types off"
    return [path, *(words[1:] or ARGUMENTS.get(kind, ())), *extra], ""


def _node_options(told, types):
    """What Node.js needs to be told of types; None where it cannot take them off."""
    found = re.match(r"v(\d+)\.(\d+)", told.strip())
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    if not types or version >= STRIPS[0] or STRIPS[1] <= version < (23,):
        return ()
    return (STRIP_OPTION,) if version >= STRIPS_ON_REQUEST else None


def _heard(out, mark):
    """(messages, other lines) of what the harness wrote."""
    lines = out.split("\n")
    ours = [json.loads(line[len(mark) :]) for line in lines if line.startswith(mark)]
    return ours, [line for line in lines if line.strip() and not line.startswith(mark)]


def _statements(messages, seed, done):
    last = messages[-1] if messages else {}
    if last.get("t") == "error":
        raise FileFailure(last["v"], None, file=seed.file, line=last["line"], column=last["column"])
    if last.get("t") != "end" or last["count"] != len(messages) - 1:
        lines = [line for line in done.err.splitlines() if line.strip()]
        raise FileFailure(
            f"the program ended with {done.code} before its last statement",
            None,
            file=seed.file,
            excerpt="\n".join(f"  {line}" for line in lines[-8:]) or None,
        )
    return [statement for message in messages[:-1] for statement in _made(message, seed.file)]


def _made(message, file):
    """The Statements of one template, usually one, where they stand in the seed."""
    line, column = message["line"], message["column"]
    try:
        statements = split(render(message), file)
    except (FileFailure, UsageFailure) as failure:
        raise FileFailure(failure.message, failure.hint, file=file, line=line, column=column) from None
    return [_placed(statement, line, column) for statement in statements]


def _placed(statement, line, column):
    """A statement moved from its place in the template to that in the seed, whose place is that of `sql`."""
    if line is None:
        return statement._replace(line=1, column=1, end_line=1)
    first = column + len("sql`") - 1 if column and statement.line == 1 else 0
    return statement._replace(
        line=line + statement.line - 1, column=first + statement.column, end_line=line + statement.end_line - 1
    )


def render(message):
    """The SQL of one message of the harness: its template with each value as a constant between the parts."""
    kind = message["t"]
    if kind == "sql":
        _check_places(tuple(message["parts"]))
        values = [render(value) for value in message["values"]]
        return "".join(part + value for part, value in zip(message["parts"], [*values, ""]))
    if kind == "name":
        return ".".join(map(identifier, message["v"]))
    if kind == "bytes":
        return literal(rf"\x{message['v']}") + "::pg_catalog.bytea"
    if kind == "array":
        return literal(array_text([_element(item) for item in message["v"]]))
    return literal(_value(message))


@functools.lru_cache(maxsize=256)
def _check_places(parts):
    """Raise FileFailure where a value would stand inside quotes or in a comment, and so not be read as a value."""
    text = parts[0]
    places = []
    for part in parts[1:]:
        places.append(len(text))
        text += PLACE + part
    if not {*places} <= {token.offset for token in tokens(text) if token.text == PLACE}:
        raise FileFailure(
            "a value stands inside quotes, in a comment, or right behind a name",
            "it gets its own quotes: write ${value} by itself, and a name as ${sql.id(name)}",
        )


def _value(message):
    if message["t"] == "number":
        return _number(message["v"])
    return None if message["t"] == "null" else message["v"]


def _number(text):
    """A JavaScript number or BigInt, to the last digit; NaN and the infinities are texts for Postgres.

    So is a whole number of more digits than Python makes one of.
    """
    if text.lstrip("-").isdecimal():
        return int(text) if len(text) <= MOST_DIGITS else text
    return text if text in ("NaN", "Infinity", "-Infinity") else float(text)


def _element(message):
    if message["t"] == "array":
        return [_element(item) for item in message["v"]]
    return rf"\x{message['v']}" if message["t"] == "bytes" else _value(message)
