"""After a run: Hasura reads its metadata anew, so that the API shows the new schema."""

from __future__ import annotations

from nself_core.failures import Failure
from nself_core.output import Report
from nself_core.plan import Step


def after(plan, metadata, settings):
    """`plan` with the reload as its last step, where there is a Hasura to tell.

    There is one when its `metadata` is in this database, before or after, or when the settings name its endpoint.
    """
    if not plan.steps or not (metadata or settings.get("HASURA_GRAPHQL_ENDPOINT")):
        return plan
    title = f"reload Hasura's metadata at {settings.hasura_endpoint}"
    return plan._replace(steps=[*plan.steps, Step("reload", title)])


def perform(settings):
    """Reload the metadata. An engine that is down is a warning: the SQL is done."""
    from nself_core.hasura.reach import open_api

    try:
        answer = open_api(settings).reload_metadata()
    except Failure as failure:
        later = "until it is (in Hasura's console, or by a restart of Hasura) the API may show the old schema"
        warning = f"Hasura's metadata was not reloaded: {failure.message}; {later}"
        return Report({"metadata": "not_reloaded"}, (), "", [warning])
    if not answer.get("is_consistent", True):
        objects = _inconsistent(settings, answer.get("inconsistent_objects") or ())
        warnings = [f"Hasura: {text}" for text in objects or ["its metadata is inconsistent"]]
        return Report({"metadata": "inconsistent"}, (), "metadata reloaded", warnings)
    return Report({"metadata": "reloaded"}, (), "metadata reloaded")


def _inconsistent(settings, objects):
    """A line for each object that the engine leaves out, with its file and line in the project's metadata."""
    from nself_core.hasura import comparison, verdict

    try:
        local = comparison.read_local(settings) if objects else None
    except Failure:
        local = None
    findings = verdict.find_places(local, objects)
    return [f"{finding.place}{finding.type}: {finding.reason}" for finding in findings]
