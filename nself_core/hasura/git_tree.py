"""What git says of the metadata files: what is not committed, and what was committed last."""

from __future__ import annotations

import os
from collections import namedtuple

from nself_core import processes
from nself_core.failures import CheckFailed, FileFailure, Unreachable

GIT_SECONDS = 120

# What says which repository git is to work on, as a hook of it is told: `git rev-parse --local-env-vars` names them.
# Settings are not among them (GIT_CONFIG_COUNT, GIT_CONFIG_PARAMETERS): safe.directory may come by these.
LOCAL_VARIABLES = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR", "GIT_CONFIG", "GIT_DIR", "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_INTERNAL_SUPER_PREFIX", "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY", "GIT_PREFIX", "GIT_REPLACE_REF_BASE", "GIT_SHALLOW_FILE", "GIT_WORK_TREE",
)  # fmt: skip

# Of git status' two letters (index, working tree); the first that fits.
STATES = (
    ("??", "untracked"),
    ("!!", "ignored"),
    ("U", "conflicted"),
    ("AA", "conflicted"),
    ("DD", "conflicted"),
    ("D", "deleted"),
    ("A", "added"),
    ("", "modified"),
)
SUBMODULE = "160000 "  # so begins git's line of one


class Repository(namedtuple("Repository", "folder name top prefix")):
    """The git work tree around a metadata tree.

    Fields: `folder`, the tree's, absolute; `name`, the one file in it where the tree is a single file, else None;
    `top`, the work tree's root; `prefix`, the folder relative to that, with a slash at its end, empty at the root.
    """

    __slots__ = ()


def find_repository(path):
    """The Repository around a metadata directory or file; None where there is no git, or no work tree.

    Argument: `path`, absolute; it need not exist. Raises Unreachable where git is there and cannot say.
    """
    if processes.find_program("git") is None:
        return None
    folder, name = os.path.split(path) if os.path.isfile(path) else (path, None)
    found = _git(_existing(folder), "rev-parse", "--is-inside-work-tree", "--show-toplevel")
    inside, _, top = found.out.partition("\n")
    if inside == "false" or "not a git repository" in found.err:  # in a bare repository git fails after the first
        return None
    if found.code:
        raise _git_failure(found)
    top = top.removesuffix("\n")
    inner = os.path.relpath(os.path.realpath(folder), os.path.realpath(top))
    return Repository(folder, name, top, "" if inner == "." else inner.replace(os.sep, "/") + "/")


def require_repository(path):
    """The same, but no Repository is a failure: Unreachable without git, CheckFailed outside of a work tree."""
    if processes.find_program("git") is None:
        raise Unreachable("the program git was not found", "install git, or put it on PATH")
    found = find_repository(path)
    if found is None:
        raise CheckFailed(f"{path} is in no git work tree", "make one: git init")
    return found


def _existing(folder):
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return folder


def _git(folder, *arguments, env=None, input=None):
    """Run git in a folder; it takes no lock that it can do without, and runs no program that watches files."""
    settings = {**dict.fromkeys(LOCAL_VARIABLES), "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C", **(env or {})}
    argv = ["git", "--literal-pathspecs", "-c", "core.fsmonitor=false", *arguments]
    return processes.run(argv, processes.child_env(settings), input, GIT_SECONDS, cwd=folder)


def _checked(done):
    if done.code:
        raise _git_failure(done)
    return done.out


def _git_failure(done):
    lines = [line.removeprefix("fatal: ") for line in done.err.splitlines() if line.strip()]
    return Unreachable(f"git could not answer: {lines[0] if lines else f'exit code {done.code}'}")


def changed_files(repository):
    """Which files of the tree are not as HEAD has them: {path relative to the tree: state}.

    A state is untracked, ignored, conflicted, deleted, added or modified. Of a submodule both are told: itself, which
    is not at the commit of HEAD or not clean, and the files in it.
    """
    words = ("status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=all", "--ignored=traditional")
    if not os.path.isdir(repository.folder):
        place = repository.top, repository.prefix
    else:
        place = repository.folder, repository.name or "."
    text = _checked(_git(place[0], *words, "--", place[1]))
    found = {}
    for entry in filter(None, text.split("\0")):
        file = entry[3:]
        if file.startswith(repository.prefix):
            found[file[len(repository.prefix) :].rstrip("/")] = _state(entry[:2])
    for file in [*found]:
        found |= _changed_within(repository, file)
    return found


def _changed_within(repository, file):
    """The same of a submodule or another repository in the tree, of which git says only that there is something."""
    folder = os.path.join(repository.folder, *file.split("/"))
    inner = find_repository(folder) if file and os.path.lexists(os.path.join(folder, ".git")) else None
    if inner is None or inner.prefix:  # what is called .git there is no repository
        return {}
    return {f"{file}/{name}": state for name, state in changed_files(inner).items()}


def _state(letters):
    return next(state for mark, state in STATES if mark in letters)


def committed_files(repository, files):
    """Those of the tree's files whose text, as it is now, HEAD has; a symbolic link counts as what it leads to.

    Argument: `files`, their paths relative to the tree. What git cannot confirm is not among them: status is not asked,
    as it is silent on files that it was told to overlook. Of a file in a submodule, or in another repository within the
    work tree, the HEAD of that one is asked.
    """
    paths = {file: os.path.realpath(os.path.join(repository.folder, *file.split("/"))) for file in files}
    tops = _nearest_tops(os.path.realpath(repository.top), paths.values())
    found = set()
    for top in dict.fromkeys(tops.values()):
        inner = {file: path for file, path in paths.items() if tops.get(os.path.dirname(path)) == top}
        found |= _committed(top, inner)
    return found


def _nearest_tops(top, paths):
    """The root of the innermost work tree around each folder of `paths`: {folder: root}; none outside of `top`."""
    found: dict = {}
    for folder in dict.fromkeys(map(os.path.dirname, paths)):
        root = folder
        while root != top and root != os.path.dirname(root) and not os.path.lexists(os.path.join(root, ".git")):
            root = os.path.dirname(root)
        if os.path.commonpath((root, top)) == top:
            found[folder] = root
    return found


def _committed(top, paths):
    """Those of the files of one work tree, {file: path}, that are as its HEAD has them."""
    names = {file: os.path.relpath(path, top).replace(os.sep, "/") for file, path in paths.items()}
    names = {file: name for file, name in names.items() if _is_nameable(name)}
    asked = _lines(top, [f"HEAD:{name}" for name in names.values()], "cat-file", "--batch-check")
    heads = {file: line.split(" ")[0] for file, line in zip(names, asked) if " blob " in line}
    # HEAD may have it as it is, where git would store it with other line ends.
    filtered, plain = _hashes(top, names, heads), _hashes(top, names, heads, "--no-filters")
    return {file for file, head in heads.items() if head in (filtered.get(file), plain.get(file))}


def _is_nameable(name):
    """Whether a path fits a line of UTF-8."""
    return "\n" not in name and (name.isascii() or name == name.encode("utf-8", "replace").decode())


def _hashes(top, names, files, *options):
    """The object name that each file would have: {file: object name}; empty where git cannot tell of all."""
    quoted = [_quoted(names[file]) for file in files]
    return dict(zip(files, _lines(top, quoted, "hash-object", "--stdin-paths", *options)))


def _quoted(name):
    """A path as git reads it from a line, where a leading quote means that it is quoted."""
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _lines(top, lines, *words):
    """What git answers to each of the lines; nothing where it fails with one."""
    if not lines:
        return []
    done = _git(top, *words, input="".join(f"{line}\n" for line in lines))
    answers = done.out.removesuffix("\n").split("\n")
    return answers if done.code == 0 and len(answers) == len(lines) else []


def has_head(repository):
    """Whether anything of the tree is committed."""
    spot = f"HEAD:{repository.prefix}{repository.name or ''}"
    return _git(repository.top, "cat-file", "-e", spot).code == 0


def write_head(repository, folder):
    """Write the tree's files, as HEAD has them, into `folder`, which must not be there yet and is its owner's alone.

    Those of submodules are as the commits have them that HEAD names. git's own index is not touched: a second one is
    used, beside the files. Raises FileFailure, also where such a commit is not there, and Unreachable.
    """
    try:
        os.makedirs(folder, 0o700)
    except OSError as error:
        raise FileFailure(f"this folder cannot be made: {error.strerror}", file=folder) from None
    words = ["--all"] if repository.name is None else ["--", repository.name]
    _write_commit(repository.top, f"HEAD:{repository.prefix}", words, folder, f"{folder}.index")
    if repository.name is None:
        _write_submodules(repository.folder, repository.top, f"HEAD:{repository.prefix}", folder)


def _write_commit(top, commit, words, folder, index):
    """Write files of a commit, or of a folder in it, below `folder`."""
    env = {"GIT_INDEX_FILE": index}
    try:
        _checked(_git(top, "read-tree", commit, env=env))
        # git's `--prefix` is put before each name as it is: the slash at its end makes it a folder.
        _checked(_git(top, "checkout-index", f"--prefix={folder}{os.sep}", *words, env=env))
    finally:
        if os.path.lexists(index):
            os.unlink(index)


def _write_submodules(place, top, commit, folder):
    """The same of the submodules in a commit, and of theirs. One that is not checked out stays an empty folder.

    Argument: `place`, the folder in the work tree of which `commit` is what is committed.
    """
    for entry in filter(None, _checked(_git(top, "ls-tree", "-r", "-z", commit)).split("\0")):
        words, _, file = entry.partition("\t")
        inner = os.path.join(place, *file.split("/"))
        if not words.startswith(SUBMODULE) or not os.path.lexists(os.path.join(inner, ".git")):
            continue
        target, named = os.path.join(folder, *file.split("/")), words.split(" ")[2]
        if _git(inner, "cat-file", "-e", f"{named}^{{commit}}").code:
            raise FileFailure(f"the submodule {file} lacks the commit that HEAD names", "git submodule update")
        _write_commit(inner, named, ["--all"], target, f"{folder}.index")
        _write_submodules(inner, inner, named, target)
