"""The examples in docs/ do what the pages say: files are written, commands are run, and what they print is compared.

A fenced block with a path behind its language is a file of the project; a `console` block holds commands behind `$ `
and what they print on standard output. `# exit code N` behind a command says how it ends, by default with 0.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import pytest
from bed.hasura_projects import start_engine

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["seeds.md", "hasura.md"]
BLOCK = re.compile(r"^```(?P<language>\w+)(?: (?P<path>\S+))?\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
EXIT_CODE = re.compile(r"\s+# exit code (\d+)$")


def blocks(page):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [(found["language"], found["path"], found["text"]) for found in BLOCK.finditer(text)]


def commands(text):
    """(words, exit code, what is printed) of each command of a console block."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        line, _, printed = part.partition("\n")
        found = EXIT_CODE.search(line)
        yield shlex.split(EXIT_CODE.sub("", line)), int(found[1]) if found else 0, printed


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_run_as_it_says(page, plain_project):
    engine = start_engine(plain_project) if page == "hasura.md" else None
    programs = os.path.dirname(sys.executable)  # where the extra `typescript` has put Node.js
    env = {"PATH": os.pathsep.join([programs, os.environ["PATH"]])}
    sessions = []
    for language, path, text in blocks(page):
        if path:
            plain_project.write(path, text)
        elif language == "console":
            sessions += commands(text)
    assert sessions
    for words, code, printed in sessions:
        assert words[0] == "nself-db"
        outcome = plain_project.run(*words[1:], env=env)
        out = outcome.out.replace(engine.endpoint, "http://localhost:8080") if engine else outcome.out
        assert (outcome.code, out) == (code, printed), outcome
    if engine:
        engine.close()
