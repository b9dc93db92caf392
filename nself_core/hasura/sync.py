"""Plans of what goes from the engine into the files, and whether what goes the other way would lose anything.

An export makes the files say what the engine has. A pull joins what changed on both sides since the last synced state,
and leaves what both changed to a person.
"""

from __future__ import annotations

import os
from collections import namedtuple

from nself_core.failures import FileFailure, Refused
from nself_core.hasura import apply
from nself_core.hasura import comparison as comparisons
from nself_core.hasura.diff import find_changes
from nself_core.hasura.export import Keep, Remove, lower, path_of, plan_anew, plan_files, plan_single, text_there
from nself_core.hasura.git_tree import committed_files, find_repository
from nself_core.hasura.identity import is_flat
from nself_core.hasura.merge import merge
from nself_core.hasura.project import find_metadata, is_tree
from nself_core.hasura.synced import FILE, Base, read_synced
from nself_core.hasura.tree import kind_there, read_tree
from nself_core.hasura.tree_writer import Change, Recorded, Seen, Settled, digest, is_ours
from nself_core.hasura.unfinished import folder_of, is_single, lacks_last, read_note, tree_lock
from nself_core.plan import Plan, Step

Files = namedtuple("Files", "path folder shown kind local synced note")
Files.__doc__ = """A project's metadata files.

`path`, what the settings name; `folder`, the tree's, and how it is `shown`; `kind`, V3 or V2, that a directory is or is
to be, None where nothing says so; `local`, the Local, None where there is none yet; `synced`, the project's Synced;
`note`, of a run that was ended in this tree, as unfinished.read_note gives it."""

Past = namedtuple("Past", "base begun")
Past.__doc__ = """What a project's files and an engine last had in common: the `base`, a Base or None, and what pulls
and exports had `begun` to write when they were ended, in their order."""

SHOWN_FILES = 10


def read_files(settings, anew):
    """The Files of a project. `anew`, whether what cannot be read counts as not there: it is to be overwritten.

    Raises FileFailure otherwise.
    """
    path, version = find_metadata(settings)
    folder = folder_of(path)
    shown = comparisons.shown_path(folder, settings.root)
    local, synced = None, read_synced(settings.root)
    with tree_lock(folder):
        note = read_note(folder)
        anew = anew or lacks_last(path, note)  # then this run completes it
        if os.path.isfile(path) or is_tree(path):
            try:
                local = comparisons.Local(read_tree(path, version), comparisons.shown_path(path, settings.root))
            except FileFailure:
                if not anew:
                    raise
    return Files(path, folder, shown, kind_there(path, version), local, synced, note)


def read_past(settings, api):
    """The Past of the active environment and its engine."""
    return _past(read_synced(settings.root), settings.env, engine_id(api))


def _past(synced, env, engine):
    return Past(synced.base(env, engine), synced.bases_begun(env, engine))


def engine_id(api):
    """What tells one engine's metadata from another's."""
    return api.get_catalog_state()["id"]


def recorded(env, api, live):
    """The Recorded by which a plan keeps what the engine has."""
    return Recorded(env, Base(engine_id(api), live.version, live.document))


# What is about to be done with the files.


def plan_export(files, live, record, force):
    """The Plan of `hasura metadata export`.

    Arguments: `files`, Files; `live`, a Live; `record`, the Recorded of it, or None; `force`, whether files with
    uncommitted edits are overwritten too. Raises Refused where there are such and they are not.
    """
    changes = _file_changes(files, live.document)
    repository = find_repository(files.path)
    unsaved = unsaved_files(repository, changes, files)
    if unsaved and repository is not None and not force:
        raise Refused(
            f"{_files_text(unsaved)} {'differ' if len(unsaved) > 1 else 'differs'} from HEAD and would be overwritten;"
            " nothing was changed",
            "commit them (those of a submodule in the submodule); or join both with: nself-db hasura git pull; or give"
            " --force, which keeps copies of them",
            data={"files": unsaved},
        )
    return _plan(files, changes, unsaved, record, live)


def plan_pull(files, live, record, force):
    """The Plan of `hasura git pull`; arguments as for plan_export.

    Raises Refused, with the conflicts, where both sides changed the same thing and `force` is not given; with it the
    engine's counts.
    """
    local, document, conflicts = files.local, live.document, []
    if local is not None:
        ours, base = _completed(local, _past(files.synced, record.env, record.base.engine))
        document, conflicts = _merged(local, base, ours, live.document)
        if conflicts and not force:
            raise _conflicts(local, live, conflicts)
        if conflicts:
            document, _ = _merged(local, base, live.document, ours)
    changes = _file_changes(files, document)
    unsaved = unsaved_files(find_repository(files.path), changes, files)
    warnings = [f"the engine's was taken: {_conflict_title(local, conflict)}" for conflict in conflicts]
    plan = _plan(files, changes, unsaved, record, live)._replace(warnings=warnings)
    if not changes and find_changes(document, live.document):
        return plan._replace(nothing=f"nothing to write: {files.shown} has what changed in {live.where}, and more")
    return plan


def _completed(local, past):
    """(document, base): what the files would be, and the Base, had those runs not been ended that wrote some of them.

    Otherwise what they brought would count as a person's, and would be kept where the engine has it no more.
    """
    document, base = local.document, past.base
    for begun in past.begun:
        document, conflicts = _merged(local, base, document, begun.document)
        if conflicts:
            return local.document, past.base
        base = begun
    return document, base


def _merged(local, base, ours, theirs):
    """What merge.merge makes of `ours` and `theirs` since a Base (or None); for a tree of version 2, of that."""
    sides = [base.document if base is not None else {}, ours, theirs]
    if is_flat(local.document):
        sides = [lower(side) for side in sides]
    return merge(*sides)


def _file_changes(files, document):
    """A Change for each file that is written or removed."""
    tree = files.local and files.local.tree
    if tree is None and is_single(files.path):
        return [change_of(files, item) for item in _single(files, document)]
    if tree is None:
        planned = plan_anew(files.folder, document, files.kind)
    else:
        planned = plan_files(files.folder, tree, document)
    actions = [item for item in planned if not isinstance(item, Keep)]
    touched = {item.file for item in actions} | set(tree.files if tree else ())
    left = [Remove(file, text_there(files.folder, file)) for file in _leftovers(files) if file not in touched]
    return [change_of(files, item) for item in [*actions, *left]]


def _single(files, document):
    """The actions for a single file that is not there yet, or cannot be read and is overwritten."""
    before = text_there(*os.path.split(files.path))
    return [item._replace(before=before) for item in plan_single(files.path, document)]


def change_of(files, action):
    """The Change that an export.Write or Remove of the tree is."""
    return Change(files.folder, f"{files.shown}/{action.file}", action, seen=_seen(files))


def _seen(files):
    return Seen(files.note, files.local.tree.files if files.local else {})


def _leftovers(files):
    """The files that a run was to remove and, being ended, has not. None that a link leads out of the tree."""
    found = [file for file, (_, wanted) in files.note.items() if wanted is None and ".." not in file.split("/")]
    top = os.path.realpath(files.folder) + os.sep
    paths = {file: path_of(files.folder, file) for file in found}
    return [file for file, path in paths.items() if os.path.isfile(path) and os.path.realpath(path).startswith(top)]


def unsaved_files(repository, changes, files):
    """The files whose present text would be gone: neither committed nor written by an export or a pull."""
    there = [item for item in changes if item.before is not None and not is_ours(files.synced, files.note, item)]
    if repository is not None and there:
        committed = committed_files(repository, [change.file for change in there])
        there = [change for change in there if change.file not in committed]
    return [change.shown for change in there]


def _files_text(files):
    if len(files) <= SHOWN_FILES:
        return ", ".join(files)
    return f"{', '.join(files[:SHOWN_FILES])} and {len(files) - SHOWN_FILES} more"


def _plan(files, changes, unsaved, record, live):
    steps = file_steps(changes, unsaved)
    if files.note and not changes:
        title = f"take away the note of a run that was ended in {files.shown}"
        steps.append(Step("tree", title, work=Settled(files.folder, f"{files.shown}/", _seen(files))))
    if record is not None and not _is_recorded(files.synced, record):
        title = f"record the metadata of {live.where} as the last synced state in {FILE}"
        steps.append(Step("tree", title, work=record))
    data = {"written": [], "removed": [], "copies": [], "resource_version": live.version}
    return Plan(steps, (), f"nothing to write: {files.shown} has the metadata of {live.where}", data)


def file_steps(changes, unsaved):
    """The steps of Changes; of the files in `unsaved` a copy is kept."""
    return [_step(change, change.shown in unsaved) for change in changes]


def _step(change, is_unsaved):
    verb = "write" if change.text is not None else "remove"
    kept = "; a copy of its uncommitted text is kept" if is_unsaved else ""
    return Step("tree", f"{verb} {change.shown}{kept}", work=change._replace(keep=is_unsaved))


def _is_recorded(synced, record):
    base = synced.base(record.env, record.base.engine)
    return base is not None and base.version == record.base.version and digest(base.document) == digest(
        record.base.document
    )  # fmt: skip


# Conflicts, and what a push would lose.


def _conflicts(local, live, conflicts):
    rows = [
        {"path": [*item.path], "base": item.base, "local": item.ours, "live": item.theirs, **local.place_of(item.path)}
        for item in conflicts
    ]
    count = len(conflicts)
    return Refused(
        f"{count} thing{' was' if count == 1 else 's were'} changed both here and in {live.where}; nothing was written",
        "make the files say what you want of them and push that (git push --force), or pull with --force to take the"
        " engine's",
        data={"conflicts": rows},
        excerpt="\n".join(_conflict_title(local, item) for item in conflicts),
        file=rows[0]["file"],
        line=rows[0]["line"],
    )


def _conflict_title(local, conflict):
    place = local.place_of(conflict.path)
    where = f"{place['file']}:{place['line']}: " if place["file"] else ""
    return where + " ".join(conflict.path)


def check_push(comparison, past):
    """Raise apply.MetadataMoved where the engine has something since a Past that a push would undo."""
    local, live, _ = comparison
    base = past.base
    # Not by their versions: a restore sets the engine's back, and it climbs to the base's again over something else.
    # Nor where a pull was killed: what it has brought is in the files, and no person's.
    if base is not None and not past.begun and digest(base.document) == digest(live.document):
        return
    ours, common = _completed(local, past)
    document, conflicts = _merged(local, common, ours, live.document)
    undone = find_changes(document, local.document)
    if not undone and not conflicts:
        return
    if base is None:
        what = f"nothing tells what {live.where} and {local.shown} last had in common, and both differ"
        raise apply.moved(what, [change for change in comparison.changes if change.live is not None])
    raise apply.moved(
        f"the metadata of {live.where} was changed since the last sync", find_changes(live.document, base.document)
    )
