"""What `hasura git status` shows: files that are not committed, and whether the engine has what the files say."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple

from nself_core.failures import Failure, FileFailure
from nself_core.hasura import comparison as comparisons
from nself_core.hasura import git_tree
from nself_core.hasura.diff import find_changes
from nself_core.hasura.project import find_metadata
from nself_core.hasura.synced import FOLDER, is_running, make_own_folder
from nself_core.hasura.unfinished import read_whole
from nself_core.output import Report, Table

Documents = namedtuple("Documents", "head working live warnings failure")
Documents.__doc__ = """The metadata as it is committed, in the files, and in the engine (a Live): None for each that is
not to be had, with its reason among the `warnings`; `failure`, why the engine could not be asked, or None."""

SCRATCH = "hasura-head-"


def status(settings, api):
    """The Report of `hasura git status`. Raises what git_tree.require_repository does."""
    path = find_metadata(settings).path
    repository = git_tree.require_repository(path)
    files = git_tree.changed_files(repository)
    folder = os.path.dirname(path) if repository.name else path
    return report(files, read_documents(settings, api, repository), comparisons.shown_path(folder, settings.root))


def read_documents(settings, api, repository):
    """The Documents of a project."""
    path, version = find_metadata(settings)
    warnings: list = []
    shown = comparisons.shown_path(path, settings.root)
    working = _or_warning(lambda: read_whole(path, version, shown).document, warnings)
    head = _or_warning(lambda: read_head(settings.root, repository, version), warnings)
    try:
        return Documents(head, working, comparisons.read_live(api), warnings, None)
    except Failure as failure:
        return Documents(head, working, None, warnings, failure)


def _or_warning(read, warnings):
    try:
        return read()
    except FileFailure as failure:
        place = f"{failure.place}: " if failure.place else ""
        warnings.append(f"{place}{failure.message}")
        return None


def read_head(root, repository, version):
    """The metadata document that HEAD holds; None where nothing of the tree is committed.

    The files are written beside the project's own for as long as it takes to read them.
    """
    if not git_tree.has_head(repository):
        return None
    make_own_folder(os.path.join(root, FOLDER))
    _sweep(os.path.join(root, FOLDER))
    folder = os.path.join(root, FOLDER, f"{SCRATCH}{os.getpid()}")
    try:
        git_tree.write_head(repository, folder)
        path = os.path.join(folder, repository.name) if repository.name else folder
        return read_whole(path, version, "HEAD").document
    except FileFailure as failure:
        raise FileFailure(f"HEAD's metadata cannot be read: {failure.message}", failure.hint) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(folder):
    """Take away what runs that were killed have left."""
    for name in os.listdir(folder):
        pid = name.removeprefix(SCRATCH).removesuffix(".index")
        if name.startswith(SCRATCH) and pid.isdigit() and not is_running(int(pid)):
            path = os.path.join(folder, name)
            shutil.rmtree(path, ignore_errors=True) if os.path.isdir(path) else os.unlink(path)


def report(files, documents, shown):
    """The Report of `hasura git status`. Where the engine could not be asked, that failure, with the files, is raised.

    Arguments: `files`, git_tree.changed_files of the tree; `documents`, Documents; `shown`, the tree as people know it.
    """
    rows = [{"file": f"{shown}/{file}", "state": state} for file, state in sorted(files.items()) if state != "ignored"]
    live, failure = documents.live, documents.failure
    head, working = (_differing(document, live) for document in (documents.head, documents.working))
    data = {
        "files": rows,
        "engine": {
            "asked": live is not None,
            "resource_version": live and live.version,
            "differs_from_head": head if head is None else bool(head),
            "differs_from_working_tree": working if working is None else bool(working),
        },
    }
    if failure is not None:
        # Half of the answer is known: it is told with the failure.
        failure.data, failure.warnings = data, tuple(documents.warnings)
        failure.excerpt = "\n".join(f"  {row['state']}  {row['file']}" for row in rows)
        raise failure
    blocks = [Table(("STATE", "FILE"), [(row["state"], row["file"]) for row in rows])] if rows else []
    blocks += [_line(name, changes, live) for name, changes in (("HEAD", head), (shown, working))]
    count = f"{len(rows)} file{'' if len(rows) == 1 else 's'} not as committed"
    return Report(data, blocks, f"{count}; {_verdict(head, working, live)}", documents.warnings)


def _differing(document, live):
    """The Changes between a document and the engine's; None where one of them is not to be had."""
    return None if document is None or live is None else find_changes(document, live.document)


def _line(name, changes, live):
    if changes is None:
        return f"{name}: no metadata to compare with {live.where}"
    return f"{name}: {'the same as' if not changes else comparisons.count_text(changes) + ' against'} {live.where}"


def _verdict(head, working, live):
    known = {"HEAD": head, "the files": working}
    differs = [name for name, changes in known.items() if changes]
    if differs:
        return f"{live.where} differs from {' and '.join(differs)}"
    equal = [name for name, changes in known.items() if changes == []]
    if equal:
        return f"{live.where} has the metadata of {' and '.join(equal)}"
    return f"there is nothing to compare {live.where} with"
