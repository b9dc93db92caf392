"""Which files are seeds: their kind, for which environments they are, and what they say of themselves."""

from __future__ import annotations

import os
from collections import namedtuple

from nself_core.environments import ENV_ALIASES, environments
from nself_core.failures import CheckFailed, FileFailure, UsageFailure
from nself_core.seeds.directives import ALL, NOTHING, read_head
from nself_core.seeds.imports import checksum_with_imports
from nself_core.sql.source import checksum, checksum_of_data, read_text

SQL, TYPESCRIPT, JAVASCRIPT, CSV, JSON = "sql", "typescript", "javascript", "csv", "json"
KINDS = {
    ".sql": SQL,
    ".ts": TYPESCRIPT,
    ".mts": TYPESCRIPT,
    ".js": JAVASCRIPT,
    ".mjs": JAVASCRIPT,
    ".csv": CSV,
    ".json": JSON,
}
COMMENTS = {SQL: "--", TYPESCRIPT: "//", JAVASCRIPT: "//"}
PROGRAMS = (TYPESCRIPT, JAVASCRIPT)

COMMON_FOLDERS = ("_common", "common", ALL)
USUAL_ENVS = ("dev", "staging", "prod", "test")
# What a TypeScript project keeps beside its files.
NOT_SEEDS = ("package.json", "package-lock.json", "tsconfig.json", "jsconfig.json", "deno.json")
NOT_FOLDERS = ("node_modules",)


class Seed(namedtuple("Seed", "file path kind envs tags head")):
    """One seed.

    `file`, its path as the user would write it, from the project's root; `path`, the same, absolute; `kind`, one of
    KINDS; `envs`, the environments it is for, () where neither it nor its folder says any; `tags`, its folders and its
    own words, by which --tag finds it; `head`, its Head.
    """

    __slots__ = ()

    @property
    def checksum(self):
        """SHA-256 of its text with LF for line ends, a program's with what it imports, of a data file's bytes.

        Raises FileFailure.
        """
        if self.kind in (CSV, JSON):
            return checksum_of_data(self.path, self.file)
        if self.kind in PROGRAMS:
            return checksum_with_imports(self.path, self.text)
        return checksum(self.text)

    @property
    def text(self):
        """Its text. Raises FileFailure for what is not UTF-8."""
        return read_text(self.path, self.file)

    @property
    def stem(self):
        """Its file name without the ending: for a data file, the table's name."""
        return os.path.splitext(os.path.basename(self.file))[0]


Listing = namedtuple("Listing", "seeds warnings folder")
Listing.__doc__ = "What `find_seeds` found: Seeds sorted by file, warnings, and the folder as people write it."


def find_seeds(settings):
    """The Listing of the project's seeds, at any depth below SEEDS_DIR.

    Hidden files and folders, files whose name begins with `_` (what seeds import), `.d.ts` and a TypeScript project's
    own files are none. Raises FileFailure for what cannot be read and for a bad directive.
    """
    folder = settings.path("SEEDS_DIR", "seeds")
    shown = _shown(folder, settings.root)
    if not os.path.isdir(folder):
        return Listing((), (f"there is no folder {shown}, and so no seeds",), shown)
    known = {*USUAL_ENVS, *ENV_ALIASES, settings.env, *environments(settings.root)}
    seeds = [_seed(path, folder, shown, known) for path in _paths(folder, shown)]
    return Listing(tuple(sorted(seeds)), (), shown)


def _shown(path, root):
    relative = os.path.relpath(path, root)
    return path if relative.startswith(os.pardir) else relative


def _paths(folder, shown):
    """The paths of all seeds below a folder; a link that leads back up is not followed twice."""
    entered = set()

    def fail(error):
        raise FileFailure(f"cannot be read: {error.strerror}", file=shown)

    for place, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in entered else sorted(n for n in folders if n[0] != "." and n not in NOT_FOLDERS)
        if real in entered:
            continue
        entered.add(real)
        yield from (os.path.join(place, name) for name in sorted(names) if _is_seed(name))


def _is_seed(name):
    low = name.lower()
    is_own = name[0] in "._" or low in NOT_SEEDS or low.endswith((".d.ts", ".d.mts"))
    return not is_own and _kind(name) is not None


def _kind(name):
    return KINDS.get(os.path.splitext(name)[1].lower())


def _seed(path, folder, shown, known):
    inside = os.path.relpath(path, folder)
    file = os.path.join(shown, inside)
    try:
        file.encode()
    except UnicodeEncodeError:
        raise FileFailure("the file's name is not UTF-8", "rename the file", file=ascii(file)) from None
    kind = _kind(path)
    head = read_head(read_text(path, file), COMMENTS[kind], file) if kind in COMMENTS else NOTHING
    folders = tuple(inside.split(os.sep)[:-1])
    envs = head.envs if head.envs is not None else _envs_of(folders, known)
    return Seed(file, path, kind, envs, tuple(dict.fromkeys((*envs, *folders, *head.tags))), head)


def _envs_of(folders, known):
    """What the folders say: the innermost that is an environment's name, or stands for all of them."""
    for name in reversed(folders):
        if name in COMMON_FOLDERS:
            return (ALL,)
        if name in known:
            return (ENV_ALIASES.get(name, name),)
    return ()


def is_for(seed, env):
    """Whether a seed is for the environment `env`; one that says nothing is for every one but prod (issue 3)."""
    if not seed.envs:
        return env != "prod"
    return ALL in seed.envs or env in seed.envs


def find_seed(listing, file, settings):
    """The Seed that --file means: a path from here, from the project's root or from the seeds' folder, or a plain name.

    Raises UsageFailure where there is none, or several.
    """
    wanted = {os.path.realpath(os.path.join(base, file)) for base in (os.curdir, settings.root)}
    found = [seed for seed in listing.seeds if os.path.realpath(seed.path) in wanted]
    found = found or [seed for seed in listing.seeds if _ends_with(seed, file)]
    if not found:
        raise UsageFailure(f"there is no seed {file}", "see: nself-db seed list")
    if len(found) > 1:
        names = ", ".join(seed.file for seed in found)
        raise UsageFailure(f"{file} may be any of {names}", "give the whole path")
    return found[0]


def _ends_with(seed, name):
    return seed.file == name or seed.file.endswith(os.sep + name)


def choose(listing, settings, file=None, tag=None):
    """The Seeds of one run in this environment, unordered.

    Arguments: `file` and `tag`, the options or None. Raises CheckFailed for a --file that is for other environments,
    UsageFailure for a tag that no seed has.
    """
    env = settings.env
    if file is not None:
        seed = find_seed(listing, file, settings)
        if not is_for(seed, env):
            raise CheckFailed(f"{seed.file} is for {_told(seed)}, not for {env}")
        return [seed]
    if tag is not None and not any(tag in seed.tags for seed in listing.seeds):
        raise UsageFailure(f"no seed has the tag {tag}", "see: nself-db seed list")
    return [seed for seed in listing.seeds if is_for(seed, env) and (tag is None or tag in seed.tags)]


def _told(seed):
    return " and ".join(seed.envs) if seed.envs else "every environment but prod"


def find_dependency(seed, said, seeds):
    """The Seed that a `depends-on` of `seed` means: beside it, from the seeds' folder, or the only one of that name.

    Raises FileFailure at the directive's line where there is none, or several.
    """
    beside = os.path.normpath(os.path.join(os.path.dirname(seed.file), said.text))
    found = [one for one in seeds if one.file == beside] or [one for one in seeds if _ends_with(one, said.text)]
    if len(found) == 1:
        return found[0]
    place = {"file": seed.file, "line": said.line}
    if not found:
        raise FileFailure(f"it depends on {said.text}, and there is no such seed", "see: nself-db seed list", **place)
    names = ", ".join(one.file for one in found)
    raise FileFailure(f"it depends on {said.text}, which may be any of {names}", "give the whole path", **place)
