"""Plan, then act: what a command would do, as steps that are shown or performed.

This is the only place that knows dry-run. A room makes a Plan out of facts; the face hands `execute` what
performs each kind of step.
"""

from __future__ import annotations

from collections import namedtuple

from nself_core.failures import Failure
from nself_core.output import Report, visible


class Step(namedtuple("Step", "kind title sql mode destroys work detail", defaults=(None, None, False, None, None))):
    """One thing to do.

    `kind` names its performer ("migration", "sql", "file"…); `title`, one line for people; `sql`, the exact text that
    runs, None where it is none; `mode`, how it runs ("transaction", "no_transaction"…); `destroys`, whether data or
    history may be lost; `work`, what the performer needs; `detail`, a text for people on what it would do.
    """

    __slots__ = ()


class Plan(
    namedtuple(
        "Plan",
        "steps warnings nothing data loses asks_everywhere where",
        defaults=((), "nothing to do", None, (), False, None),
    )
):
    """Steps in order.

    `warnings`, texts found while planning; `nothing`, what to say when there is no step; `data`, the report's data
    before any step adds to it; `loses`, lines that name what will be destroyed, for the consent; `asks_everywhere`,
    whether consent is wanted outside prod too; `where`, the address it acts on where that is not the database.
    """

    __slots__ = ()

    @property
    def destroys(self):
        """Whether any step needs consent."""
        return any(step.destroys for step in self.steps)


def show(plan):
    """The plan as a Report: each step's title, mode and exact SQL, and what it would destroy; changes nothing."""
    blocks = []
    for step in plan.steps:
        mode = f" [{step.mode}]" if step.mode else ""
        blocks.append(f"-- {step.title}{mode}")
        if step.sql:
            blocks.append(step.sql.rstrip("\n"))
        if step.detail:
            blocks.append(step.detail)
    data = {"plan": [_shown(step) for step in plan.steps]}
    if plan.steps and plan.loses:
        blocks += ["-- what would be lost:", *(f"--   {visible(line)}" for line in plan.loses)]
        data["loses"] = list(plan.loses)
    count = len(plan.steps)
    summary = f"dry run: {count} step{'' if count == 1 else 's'}, nothing was changed" if count else plan.nothing
    return Report(data, blocks, summary, list(plan.warnings))


def _shown(step):
    shown = {"kind": step.kind, "title": step.title, "mode": step.mode, "destroys": step.destroys, "sql": step.sql}
    return shown if step.detail is None else {**shown, "detail": step.detail}


def perform(plan, performers):
    """Perform the plan: consecutive steps of one kind go to their performer together.

    Arguments: `performers`, a function by kind, which takes a list of steps and returns a Report. Returns one Report
    with the data and texts of all; the worst exit code wins.
    """
    if not plan.steps:
        return Report(plan.data or {}, (), plan.nothing, list(plan.warnings))
    try:
        reports = [performers[kind](steps) for kind, steps in _runs(plan.steps)]
    except Failure as failure:
        failure.warnings = (*plan.warnings, *failure.warnings)
        raise
    data, blocks, warnings = dict(plan.data or {}), [], list(plan.warnings)
    for report in reports:
        data.update(report.data)
        blocks.extend(report.blocks)
        warnings.extend(report.warnings)
    summary = "; ".join(report.summary for report in reports if report.summary)
    return Report(data, blocks, summary, warnings, max(report.exit_code for report in reports))


def _runs(steps):
    """Consecutive steps of one kind, as (kind, list)."""
    run = []
    for step in steps:
        if run and run[-1].kind != step.kind:
            yield run[0].kind, run
            run = []
        run.append(step)
    if run:
        yield run[0].kind, run


def execute(plan, performers, dry_run, consent):
    """Show the plan under dry-run; otherwise ask for consent where it destroys, and perform it.

    Arguments: `consent(plan)` raises Refused when it is not given.
    """
    if dry_run:
        return show(plan)
    if plan.destroys:
        consent(plan)
    return perform(plan, performers)
