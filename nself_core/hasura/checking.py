"""What `hasura metadata validate` and `hasura metadata lint` ask and tell: findings, each with its file and line."""

from __future__ import annotations

from collections import namedtuple

from nself_core.failures import CredentialsRefused, Unreachable, UsageFailure
from nself_core.hasura import lint, verdict
from nself_core.hasura.comparison import read_local
from nself_core.hasura.export import Keep, plan_files
from nself_core.hasura.git_tree import find_repository
from nself_core.hasura.lint_rules import RULES
from nself_core.hasura.sync import change_of, file_steps, unsaved_files
from nself_core.hasura.validate import check_structure
from nself_core.hasura.validate_catalogue import unasked_sources
from nself_core.output import Report
from nself_core.plan import Plan, Step

STRUCTURE, CATALOGUE, ENGINE = "structure", "catalogue", "engine"

Asked = namedtuple("Asked", "findings reason failure", defaults=(None, None, None))
Asked.__doc__ = """The findings of one way to ask, None where it was not asked.

`reason`, why it was not, where that is worth a warning; `failure`, where it could not be asked."""


# validate


def validate(local, find_broken, find_inconsistent):
    """The Report of `hasura metadata validate`: structure, then the database's catalogue, then the engine.

    Arguments: `local`, a Local; `find_broken(document)`, the catalogue's findings; `find_inconsistent()`, what the
    engine says of the metadata that it has now. Where one of these raises Unreachable or CredentialsRefused, that is
    raised, with what the others found.
    """
    found = check_structure(local.document)
    if any(finding.rule == "wrong-kind" for finding in found):
        catalogue = Asked(None, "what is wrong with the structure comes first")
    else:
        catalogue = _ask(lambda: find_broken(local.document))
    return _validated(local, {STRUCTURE: Asked(found), CATALOGUE: catalogue, ENGINE: _ask(find_inconsistent)})


def validate_offline(local):
    """The Report of `hasura metadata validate --offline`: the structure alone."""
    return _validated(local, {STRUCTURE: Asked(check_structure(local.document)), CATALOGUE: Asked(), ENGINE: Asked()})


def _ask(question):
    try:
        return Asked(question())
    except (Unreachable, CredentialsRefused) as failure:
        return Asked(None, failure.message, failure)


def _row(local, asked, finding):
    place = {"file": local.shown_file(finding.file), "line": 1} if finding.file else local.place(finding.path)
    return {"asked": asked, "rule": finding.rule, "message": finding.message, "path": [*finding.path], **place}


def _engine_row(finding):
    message = f"{finding.name or finding.type}: {finding.reason.removeprefix('Inconsistent object: ')}"
    return {"asked": ENGINE, "rule": finding.type, "message": message, "path": [], "file": finding.file,
            "line": finding.line}  # fmt: skip


def _validated(local, asked):
    rows = _validated_rows(local, asked)
    names = [name for name, answer in asked.items() if answer.findings is not None]
    failures = [answer.failure for answer in asked.values() if answer.failure]
    worst = sorted(failures, key=lambda failure: failure.exit_code)[-1:]
    left = {name: answer.reason for name, answer in asked.items() if answer.reason and answer.failure not in worst}
    warnings = [f"the {name} was not asked: {reason}" for name, reason in left.items()]
    data = {"asked": {name: answer.findings is not None for name, answer in asked.items()}, "findings": rows}
    warnings += unasked_sources(local.document) if data["asked"][CATALOGUE] else []
    what = f"{local.shown}, by {_and(names)}"
    summary = f"{_count(rows)} in {what}" if rows else f"nothing wrong with {what}"
    report = Report(data, _lines(rows), summary, warnings, 1 if rows else 0)
    if worst:
        raise _with_report(worst[0], report)
    return report


def _validated_rows(local, asked):
    rows = [_row(local, name, finding) for name in (STRUCTURE, CATALOGUE) for finding in asked[name].findings or ()]
    return rows + [_engine_row(finding) for finding in verdict.find_places(local, asked[ENGINE].findings or ())]


def _with_report(failure, report):
    """`failure` with what a Report tells: a part of the answer is known."""
    failure.data, failure.warnings = report.data, tuple(report.warnings)
    failure.excerpt = "\n".join([*report.blocks, report.summary])
    offline = "to check the structure alone: --offline"
    failure.hint = f"{failure.hint}; {offline}" if failure.hint else offline
    return failure


def _and(names):
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _count(rows):
    return f"{len(rows)} finding{'' if len(rows) == 1 else 's'}"


def _lines(rows):
    """A line for each finding, in the order of files and lines."""
    placed = sorted(rows, key=lambda row: (row["file"] or "", row["line"] or 0))
    return [f"{_place(row)}{row['message']} ({row['rule']})" for row in placed]


def _place(row):
    return f"{row['file']}:{row['line']}: " if row["file"] else ""


# lint


def choose_rules(only, ignored):
    """The ids of the rules to go by. Raises UsageFailure, with the nearest ids, for what is none, and for none."""
    import difflib

    try:
        rules = lint.chosen_rules(only or (), ignored or ())
    except ValueError as error:
        name = str(error)
        near = difflib.get_close_matches(name, RULES, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(RULES)}"
        raise UsageFailure(f"there is no rule {name!r}", hint) from None
    if not rules:
        raise UsageFailure("no rule is left to go by", "--ignore names all of them")
    return rules


def report_lint(local, rules):
    """The Report of `hasura metadata lint`: exit code 1 where anything is found."""
    found = lint.lint(local.document, rules, local.tree.orphans)
    rows = [_lint_row(local, finding) for finding in found]
    data = {"findings": rows}
    if not rows:
        return Report(data, (), f"nothing found in {local.shown}")
    fixable = sum(row["fixable"] for row in rows)
    more = f"; --fix sets {fixable} of them right" if fixable else ""
    return Report(data, _lines(rows), f"{_count(rows)} in {local.shown}{more}", (), 1)


def _lint_row(local, finding):
    row = _row(local, None, finding)
    del row["asked"]
    return {**row, "fixable": RULES[finding.rule].fix is not None}


def plan_fix(files, rules):
    """The Plan of `hasura metadata lint --fix`: the files that are written, and a second look.

    Argument: `files`, sync.Files with a local tree. Of a file with uncommitted edits a copy is kept.
    """
    tree = files.local.tree
    document = lint.fixed(tree.document, rules)
    actions = [] if document is tree.document else plan_files(files.folder, tree, document, exact=True)
    changes = [change_of(files, item)._replace(is_fix=True) for item in actions if not isinstance(item, Keep)]
    unsaved = unsaved_files(find_repository(files.path), changes, files)
    look = Step("lint", f"look through {files.local.shown} again", work=rules)
    return Plan([*file_steps(changes, unsaved), look])


def look_again(settings, rules):
    """The Report of the second look."""
    return report_lint(read_local(settings), rules)
