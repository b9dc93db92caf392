"""The project's metadata into the engine: the plan that shows the difference, and the one request that makes it.

The engine is told the resource version that was compared with, so that what somebody else changes in between is never
overwritten unseen.
"""

from __future__ import annotations

from collections import namedtuple

from nself_core.failures import CheckFailed, Failure, Refused
from nself_core.hasura import comparison as comparisons
from nself_core.hasura import verdict
from nself_core.hasura.api import MetadataConflict, MetadataInconsistent, MetadataRefused
from nself_core.hasura.diff import REMOVED, find_changes
from nself_core.output import Report
from nself_core.plan import Plan, Step

Job = namedtuple("Job", "comparison allow_inconsistent")
Job.__doc__ = "A Comparison whose local side is to become the engine's, also where not all of it can be, or only then."

CONSENT_LINES = 20
# Each reload counts the resource version up: so often the same metadata is tried again under its new version.
TRIES = 4


class MetadataMoved(Refused):
    """The engine's metadata is not what it was when it was compared or last synced; nothing was changed."""

    code = "metadata_moved"


def plan_apply(comparison, allow_inconsistent):
    """The Plan of `hasura metadata apply`: one request, or nothing where the engine has it all."""
    local, live, changes = comparison
    data = {"applied": False, "changes": [], "inconsistent": [], "resource_version": live.version}
    warnings = comparisons.warnings_of(local)
    if not changes:
        return Plan((), warnings, f"nothing to apply: {live.where} has the metadata of {local.shown}", data)
    counted = comparisons.count_text(changes)
    title = f"replace the metadata of {live.where} (resource version {live.version}) by {local.shown}: {counted}"
    detail = comparisons.change_text(local, changes)
    step = Step("metadata", title, None, None, True, Job(comparison, allow_inconsistent), detail)
    return Plan([step], warnings, data=data, loses=_lost(changes), where=live.where)


def _lost(changes):
    """What is taken out of the API, for the consent."""
    gone = [" ".join(change.path) for change in changes if change.change == REMOVED]
    shown = [f"takes away {name}" for name in gone[:CONSENT_LINES]]
    more = [f"and {len(gone) - CONSENT_LINES} more"] if len(gone) > CONSENT_LINES else []
    counted = comparisons.count_text(changes)
    return [f"the metadata: {counted}", *shown, *more] if gone else [f"the metadata: {counted}; nothing is taken away"]


def perform(api, job, record):
    """Send the metadata and return the Report.

    Argument: `record(document, resource_version)`, keeps what both sides have now. Raises CheckFailed, with each
    object's file and line, where the engine does not take it; MetadataMoved where it was changed meanwhile; and
    MetadataRefused, with file and line, for what the engine cannot read.
    """
    local, _, changes = job.comparison
    try:
        answer = _replace(api, job)
    except MetadataInconsistent as failure:
        raise _not_applied(local, failure) from None
    except MetadataRefused as failure:
        place = local.place(refused_path(failure.data["path"]))
        failure.file, failure.line = place["file"], place["line"]
        raise
    version, unrecorded = _record(api, local.document, record)
    findings = verdict.find_places(local, answer["inconsistent_objects"])
    data = {
        "applied": True,
        "changes": comparisons.change_rows(local, changes),
        "inconsistent": verdict.rows(findings),
        "resource_version": version,
    }
    blocks = [comparisons.change_text(local, changes), *verdict.lines(findings)]
    counted = comparisons.count_text(changes)
    said = f"; {verdict.count_text(findings)}" if findings else ""
    warnings = [*unrecorded, *(_warning(item) for item in answer["warnings"])]
    return Report(data, blocks, f"metadata applied to {api.endpoint}: {counted}{said}", warnings, 1 if findings else 0)


def refused_path(path):
    """The index path in the document of what the engine's `path` of an error means, `$.args.metadata.sources[0]`."""
    import re

    steps = re.findall(r"\.([A-Za-z_]\w*)|\[(\d+)\]|\['([^']*)'\]", path or "")
    found = tuple(int(index) if index else key or quoted for key, index, quoted in steps)
    return found[2:] if found[:2] == ("args", "metadata") else ()


def _warning(item):
    return f"Hasura: {item.get('message', item) if isinstance(item, dict) else item}"


def _replace(api, job):
    """Send the document; again under its new version while the engine's metadata is still the one compared with."""
    local, live, _ = job.comparison
    version = live.version
    for _ in range(TRIES):
        try:
            return api.replace_metadata(local.document, version, job.allow_inconsistent)
        except MetadataConflict:
            now = comparisons.read_live(api)
        meanwhile = find_changes(now.document, live.document)
        if meanwhile:
            raise moved(f"the metadata of {live.where} was changed while it was compared", meanwhile)
        version = now.version
    raise MetadataMoved(f"the metadata of {live.where} is being replaced again and again; nothing was changed")


def moved(what, changes):
    """The MetadataMoved that lists what changed in the engine."""
    return MetadataMoved(
        f"{what}; nothing was changed",
        "look at it with: nself-db hasura metadata diff; take it over with: nself-db hasura git pull",
        data={"changes": comparisons.change_rows(None, changes)},
        excerpt=str(comparisons.change_text(None, changes)),
    )


def _not_applied(local, failure):
    findings = verdict.find_places(local, failure.objects)
    placed = next((finding for finding in findings if finding.file), None)
    return CheckFailed(
        f"the metadata was not applied: {verdict.count_text(findings)}",
        "mend them, or apply it all the same with --allow-inconsistent",
        file=placed and placed.file,
        line=placed and placed.line,
        data={"applied": False, "inconsistent": verdict.rows(findings)},
        excerpt="\n".join(verdict.lines(findings)),
    )


def _record(api, document, record):
    """Record what both sides have now; returns its resource version and warnings.

    Where the engine's metadata is no longer what was sent, somebody has changed it since: what was sent is what both
    had, under no version that could be told. The metadata is applied, so what fails here is a warning.
    """
    try:
        now = comparisons.read_live(api)
        if find_changes(document, now.document):
            record(document, None)
            return None, []
        record(now.document, now.version)
        return now.version, []
    except Failure as failure:
        return None, [f"this sync is not recorded, so the next pull or push may ask more: {failure.message}"]
