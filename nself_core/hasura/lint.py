"""Looks through metadata by the rules of lint_rules.py, and sets right what can be set right without a question."""

from __future__ import annotations

from nself_core.hasura.lint_rules import RULES, Reading, orphans_found
from nself_core.hasura.objects import UNKNOWN, below, kind_of, root
from nself_core.hasura.validate import Finding


def chosen_rules(only=(), ignored=()):
    """The ids of the rules to go by: those of `only`, or all, without those of `ignored`.

    Raises ValueError with the first id that is no rule's.
    """
    for name in (*only, *ignored):
        if name not in RULES:
            raise ValueError(name)
    return [name for name in RULES if (not only or name in only) and name not in ignored]


def lint(document, rules, orphans=()):
    """The Findings of a document, by its order within each rule.

    Arguments: `document`, metadata of either version; `rules`, ids as chosen_rules gives them; `orphans`, the files
    that nothing includes, which are Findings with a `file` and without a path.
    """
    if not isinstance(document, dict):
        return []
    found = orphans_found(orphans) if "orphan-file" in rules else []
    reading = Reading(document)
    for name in rules:
        if RULES[name].find:
            found += [Finding(path, name, message) for path, message in RULES[name].find(reading)]
    return found


def fixed(document, rules):
    """The document with all that the fixable ones of `rules` would change; the same object where that is nothing.

    What was changed means the same to the engine. Parts that were right are shared with the old document.
    """
    fixes = [RULES[name].fix for name in rules if RULES[name].fix]
    return _fixed(root(), document, fixes)


def _fixed(spec, value, fixes):
    kind = kind_of(spec, value)
    if kind is None or spec is UNKNOWN or kind.form not in ("object", "map", "set", "list"):
        return value
    if isinstance(value, list):
        items = [_fixed(kind.item, item, fixes) for item in value]
        return items if any(new is not old for new, old in zip(items, value)) else value
    parts = {key: _fixed(below(spec, value, key), item, fixes) for key, item in value.items()}
    made = parts if any(parts[key] is not item for key, item in value.items()) else value
    for fix in fixes if kind.form == "object" else ():
        made = fix(kind.item, made)
    return made


def rules_page():
    """The text of docs/lint.md."""
    rows = [
        f"| `{rule.id}` | {rule.summary} | {rule.reason} | {'yes' if rule.fix else ''} |" for rule in RULES.values()
    ]
    return "\n".join([
        "# The rules of `hasura metadata lint`",
        "",
        "Made by docs/generate.py from the table `RULES` in nself_core/hasura/lint_rules.py. `--rule ID` looks for",
        "that one only, `--ignore ID` for all others, `--fix` sets right what can be set right without a question.",
        "",
        "| rule | what it finds | why that matters | `--fix` |",
        "|---|---|---|---|",
        *rows,
        "",
    ])  # fmt: skip
