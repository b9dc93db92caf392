"""Which files are migrations: their versions and their down files.

A migration is named by its leading digits, read as a number: `7_a.sql` stands before `0010_b.sql`. The forms
(issue 2, Migrations) are `<version>_<name>.sql`, `<version>_<name>.up.sql` and `<version>_<name>/up.sql`; the
downs `.down.sql`, `_down.sql` and `down.sql` in the folder. All may stand in the migrations folder itself or in
one folder below it that is named after a Hasura source (`default`). What looks like a migration and is not one
is named in a warning; nothing is passed over in silence but what is plainly something else.
"""

from __future__ import annotations

import os
from collections import namedtuple

from nself_core.failures import FileFailure, UsageFailure

LARGEST_VERSION = 2**63 - 1  # hdb_catalog.schema_migrations.version is a bigint
NAME_FORM = "<version>_<name>.sql"
DEFAULT_SOURCE = "default"
# Folders beside migrations that real projects keep and that are never a source (reference/nself.md, section 6).
NOT_A_SOURCE = frozenset(("rollback", "rollbacks", "down", "downs", "sqlite"))
NOT_FOR_US = frozenset(("rollback", "sqlite"))  # `0001_x.sqlite.sql`, `0001_x.rollback.sql`
SHOWN_AT_MOST = 5  # names in one warning

SCHEMES = {
    8: "date",
    10: "unix seconds",
    12: "date and minute",
    13: "unix milliseconds",
    14: "date and time",
    16: "unix microseconds",
    19: "unix nanoseconds",
}


class Migration(namedtuple("Migration", "version name up_path down_path file down_file scheme")):
    """One migration of the project.

    `version` is its number, `name` what follows it in the file's name; `up_path` and `down_path` are to be opened
    (`down_path` None where there is none), `file` and `down_file` are the same as the user would write them:
    relative to the project's root. `scheme` is the way its version is numbered, in words (see `scheme_of`).
    """

    __slots__ = ()

    @property
    def version_text(self):
        """The version as every output shows it: the number without leading zeros."""
        return str(self.version)


class Listing(namedtuple("Listing", "migrations warnings folder shown_folder")):
    """What `find_migrations` found.

    `migrations` is a tuple sorted by version, `warnings` a tuple of sentences; `folder` is where a new migration
    belongs (it need not exist), `shown_folder` the same relative to the project's root.
    """

    __slots__ = ()


def find_migrations(settings):
    """The migrations of the project, sorted by number, as a `Listing`.

    Reads names only, not the files. Of `settings.migrations_folders` the first that is there counts. Raises
    FileFailure for a folder that cannot be read, a file that is a link to nothing, a version beyond bigint, and
    two ups with one version (all of them named).
    """
    folder = _present_folder(settings)
    if folder is None:
        first = _joined(settings.root, settings.migrations_folders[0])
        shown = _shown(first, settings.root)
        return Listing((), (f"there is no folder {shown}, and so no migrations",), first, shown)
    shown = _shown(folder, settings.root)
    harvest = _Harvest()
    sources = _scan(folder, shown, harvest)
    home = _read_sources(sources, (folder, shown), harvest)
    _refuse_duplicates(harvest.ups)
    migrations = tuple(_migration(harvest, version) for version in sorted(harvest.ups))
    warnings = tuple(harvest.warnings()) + tuple(scheme_warnings(migrations))
    return Listing(migrations, warnings, home[0], home[1])


def _present_folder(settings):
    for folder in settings.migrations_folders:
        path = _joined(settings.root, folder)
        if os.path.lexists(path):
            return path
    return None


def _joined(root, folder):
    return os.path.normpath(os.path.join(root, folder))


def _shown(path, root):
    """`path` relative to the project's root, or as it is where it lies outside."""
    relative = os.path.relpath(path, root)
    outside = relative == os.pardir or relative.startswith(os.pardir + os.sep)
    return path if outside else relative


_Found = namedtuple("_Found", "title path file rank")
# `rank` orders several down files of one version: the plainest name first.


class _Harvest:
    """What has been read so far: ups and downs by version, and what is to be warned about."""

    def __init__(self):
        self.ups = {}  # version -> [_Found]
        self.downs = {}
        self.strays = []
        self.without_up = []
        self.unused = []
        self.notes = []

    def add_up(self, version, found):
        self.ups.setdefault(version, []).append(found)

    def add_down(self, version, found):
        self.downs.setdefault(version, []).append(found)

    def take(self, other):
        """Adds what another harvest holds."""
        for version, found in other.ups.items():
            self.ups.setdefault(version, []).extend(found)
        for version, found in other.downs.items():
            self.downs.setdefault(version, []).extend(found)
        self.strays += other.strays
        self.notes += other.notes

    def warnings(self):
        """The warnings, one sentence each."""
        for version in sorted(self.downs):
            if version not in self.ups:
                self.without_up += [found.file for found in self.downs[version]]
        if self.strays:
            yield f"not migrations, for their names are not {NAME_FORM}: {_names(self.strays)}"
        if self.without_up:
            yield f"down files without an up file: {_names(self.without_up)}"
        if self.unused:
            yield f"down files that are not used, for another of the same version is: {_names(self.unused)}"
        yield from self.notes


def _names(files):
    shown = ", ".join(sorted(files)[:SHOWN_AT_MOST])
    rest = len(files) - SHOWN_AT_MOST
    return f"{shown} and {rest} more" if rest > 0 else shown


def _scan(folder, shown, harvest):
    """Reads one folder's entries into the harvest; returns its other folders as (name, path, shown)."""
    folders = []
    for entry in _entries(folder, shown):
        name = entry.name
        file = f"{shown}/{name}"
        if name[0] == ".":
            continue
        if _is_folder(entry):
            if _is_version_folder(name):
                _read_version_folder(entry.path, file, name, harvest)
            else:
                folders.append((name, entry.path, file))
        elif name[-4:].lower() == ".sql":
            _read_file(entry, file, harvest)
        elif _is_version_folder(name) and not os.path.exists(entry.path):
            _regular(entry, file)
    return folders


def _entries(folder, shown):
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise FileFailure(f"cannot be read: {error.strerror}", file=shown) from error


def _is_folder(entry):
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _is_version_folder(name):
    digits = _leading_digits(name)
    return digits != "" and name[len(digits) : len(digits) + 1] == "_"


def _leading_digits(text):
    return text[: len(text) - len(text.lstrip("0123456789"))]


def _read_version_folder(path, file, name, harvest):
    """`<version>_<name>/up.sql` and `down.sql`; other files in the folder are Hasura's own or notes."""
    members = {member.lower(): member for member in _members(path, file)}
    digits = _leading_digits(name)
    version = _version_of(digits, file)
    title = name[len(digits) + 1 :]
    if "down.sql" in members:
        harvest.add_down(version, _found(title, path, file, members["down.sql"]))
    if "up.sql" in members:
        harvest.add_up(version, _found(title, path, file, members["up.sql"]))
    elif "down.sql" not in members:
        harvest.notes.append(f"{file} holds no up.sql")


def _members(path, file):
    try:
        return os.listdir(path)
    except OSError as error:
        raise FileFailure(f"cannot be read: {error.strerror}", file=file) from error


def _found(title, folder, shown, member):
    return _Found(_printable(title, shown), f"{folder}/{member}", f"{shown}/{member}", (0, 0))


def _printable(title, file):
    """`title`, which goes into the database and into JSON; refused where its bytes are not UTF-8."""
    if title.isascii():
        return title
    try:
        title.encode("utf-8")
    except UnicodeEncodeError as error:
        shown = file.encode("utf-8", "backslashreplace").decode("utf-8")
        raise FileFailure("the file's name is not UTF-8", "rename the file", file=shown) from error
    return title


def _read_file(entry, file, harvest):
    """Sorts one `.sql` file into ups, downs, strays, or what is not for us."""
    stem = entry.name[:-4]
    low = stem.lower()
    parts = low.split(".")[1:] if "." in low else ()
    if parts and not NOT_FOR_US.isdisjoint(parts):
        return
    marked_up = low.endswith(".up")
    if not marked_up and ("down" in parts or low.endswith("_down")):
        _read_down(entry, file, stem, harvest)
        return
    digits = _leading_digits(stem)
    title = stem[len(digits) : -3 if marked_up else None]
    if not digits or not title.startswith("_"):
        harvest.strays.append(file)
        return
    found = _Found(_printable(title[1:], file), _regular(entry, file), file, (0, 0))
    harvest.add_up(_version_of(digits, file), found)


def _read_down(entry, file, stem, harvest):
    """A down file, whose name may say so twice (`001_x_down.down.sql`)."""
    digits = _leading_digits(stem)
    if not digits:
        harvest.strays.append(file)
        return
    title, marks = stem[len(digits) :], 0
    underscored = title[-5:].lower() == "_down"
    while title[-5:].lower() in (".down", "_down"):
        title, marks = title[:-5], marks + 1
    found = _Found(_printable(title[1:], file), _regular(entry, file), file, (marks, underscored))
    harvest.add_down(_version_of(digits, file), found)


def _regular(entry, file):
    """The entry's path; refused where there is no plain file behind it (a pipe would hang the run)."""
    try:
        if entry.is_file():
            return entry.path
        reason = "is not a plain file"
        if entry.is_symlink():
            reason = f"is a link to {os.readlink(entry.path)}, where no plain file is"
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    raise FileFailure(reason, file=file)


def _version_of(digits, file):
    number = digits.lstrip("0") or "0"
    if len(number) > 19 or int(number) > LARGEST_VERSION:
        raise FileFailure(
            f"the version {number} is beyond {LARGEST_VERSION}, the largest that can be recorded",
            "versions are kept in a bigint column; number the file with fewer digits",
            file=file,
        )
    return int(number)


def _read_sources(folders, home, harvest):
    """Reads the folders named after a Hasura source; returns the (path, shown) where new migrations belong.

    `default` counts beside migrations at the top; any other one only where there is nothing else.
    """
    others = []
    for name, path, shown in sorted(folders):
        if name.lower() in NOT_A_SOURCE or _leads_back(path, home[0]):
            continue
        if name == DEFAULT_SOURCE:
            at_the_top = bool(harvest.ups)
            _scan(path, shown, harvest)
            home = home if at_the_top else (path, shown)
        else:
            others.append((path, shown, _source(path, shown)))
    others = [(path, shown, found) for path, shown, found in others if found.ups or found.notes]
    if harvest.ups:
        harvest.notes += [f"the migrations in {shown} are not read" for _, shown, found in others if found.ups]
        return home
    return _only_source(others, home, harvest)


def _leads_back(path, folder):
    """Whether a link leads from a folder to itself or to a folder above it."""
    below = os.path.realpath(folder)
    above = os.path.realpath(path)
    return (below + os.sep).startswith(above.rstrip(os.sep) + os.sep)


def _source(path, shown):
    """The harvest of one folder that may be a source; one that cannot be read (lost+found) is only noted."""
    found = _Harvest()
    try:
        _scan(path, shown, found)
    except FileFailure as failure:
        found = _Harvest()
        found.notes.append(f"{failure.file} is not read: {failure.message}")
    return found


def _only_source(others, home, harvest):
    holding = [(path, shown, found) for path, shown, found in others if found.ups]
    if len(holding) > 1:
        raise FileFailure(
            f"several folders hold migrations: {', '.join(shown for _, shown, _ in holding)}",
            f"set MIGRATIONS_DIR to the one of this database, or name it {DEFAULT_SOURCE}",
        )
    for path, shown, found in others:
        harvest.take(found)
        if found.ups:
            home = (path, shown)
    return home


def _refuse_duplicates(ups):
    doubled = {version: sorted(one.file for one in found) for version, found in ups.items() if len(found) > 1}
    if not doubled:
        return
    version = min(doubled)
    files = doubled[version]
    count = "two" if len(files) == 2 else str(len(files))
    also = f" ({len(doubled) - 1} other versions too)" if len(doubled) > 1 else ""
    raise FileFailure(
        f"{count} migrations have the version {version}: {' and '.join(files)}{also}",
        "the version is the number at the head of the name, whatever its leading zeros; give each its own",
        data={"duplicates": [{"version": str(one), "files": doubled[one]} for one in sorted(doubled)]},
    )


def _migration(harvest, version):
    up = harvest.ups[version][0]
    down = _chosen_down(harvest, version, up.title)
    return Migration(
        version,
        up.title,
        up.path,
        down.path if down else None,
        up.file,
        down.file if down else None,
        scheme_of(version),
    )


def _chosen_down(harvest, version, title):
    """The down file of a version: of several the one with the up's name, then the plainest."""
    downs = harvest.downs.get(version)
    if not downs:
        return None
    if len(downs) == 1:
        return downs[0]
    downs = sorted(downs, key=lambda one: (one.title != title, one.rank, one.file))
    harvest.unused += [one.file for one in downs[1:]]
    return downs[0]


def scheme_of(version):
    """How a version is numbered, judged by its digits: "number", "date", "date and time", "unix milliseconds", …"""
    return SCHEMES.get(len(str(version)), "number")


def scheme_warnings(migrations):
    """A list of one sentence where the versions follow several schemes, else empty. `migrations` is sorted."""
    schemes: dict[str, Migration] = {}
    for migration in migrations:
        schemes.setdefault(migration.scheme, migration)
    if len(schemes) < 2:
        return []
    shown = ", ".join(f"{scheme} ({migration.file})" for scheme, migration in schemes.items())
    newest = migrations[-1]
    return [
        f"versions of {len(schemes)} schemes are mixed: {shown}; they run in the order of their numbers, so a new "
        f"one has to be above {newest.version} to come last"
    ]


def parse_version(text):
    """The number of a version given as an argument in any spelling: "00013" and "13" are 13.

    Raises UsageFailure where it is not a number or is beyond bigint.
    """
    digits = text.strip()
    if not digits or _leading_digits(digits) != digits:
        raise UsageFailure(f"{text!r} is not a version", _version_hint(digits))
    digits = digits.lstrip("0") or "0"
    if len(digits) > 19 or int(digits) > LARGEST_VERSION:
        raise UsageFailure(f"the version {text[:40]} is beyond {LARGEST_VERSION}, the largest that can be recorded")
    return int(digits)


def _version_hint(text):
    digits = _leading_digits(os.path.basename(text))
    return f"give the number alone: {digits}" if digits else "a version is the number at the head of the file's name"
