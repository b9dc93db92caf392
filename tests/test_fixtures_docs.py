"""The examples of docs/fixtures.md, run as they stand there."""

from __future__ import annotations

import os
import re
import shlex

import pytest
from bed.projects import REPOSITORY

from nself_core.fixtures.template import template_name

PAGE = (REPOSITORY / "docs" / "fixtures.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def blocks(kind):
    return [text for found, text in BLOCKS if found == kind]


def examples():
    """(command line, output) of each console block."""
    for text in blocks("console"):
        command, _, output = text.partition("\n")
        assert command.startswith("$ nself-db fixtures ")
        yield command[2:], output


@pytest.fixture
def project_of_the_page(plain_project):
    tables, crowd = blocks("sql")
    plain_project.database.admin(tables)
    plain_project.write("fixtures/family.yaml", blocks("yaml")[0])
    plain_project.write("fixtures/crowd.sql", crowd)
    plain_project.write("fixtures/strays.json", blocks("json")[0])
    yield plain_project
    plain_project.database.server.drop_database(template_name(plain_project.database.name))


def squeezed(text):
    """The lines of a text, with the blanks between a table's columns as one."""
    return [re.sub(r" {2,}", "  ", line).rstrip() for line in text.splitlines()]


def test_every_example_prints_what_stands_there(project_of_the_page):
    found = [*examples()]
    assert len(found) == 5
    for command, output in found:
        words = shlex.split(command)[1:]
        outcome = project_of_the_page.run(*words, env={"PATH": os.environ["PATH"]})
        assert squeezed(outcome.out) == squeezed(output), command
        assert outcome.code == (1 if "failed" in output else 0)


def test_every_block_is_run_or_named_here():
    kinds = [kind for kind, _ in BLOCKS]
    assert {*kinds} == {"sql", "yaml", "json", "console", "python"}
    assert kinds.count("python") == 1  # a fixture of pytest's, which wants a test suite around it
