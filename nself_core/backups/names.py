"""What a backup is called: `2024-05-01T12:00:00_label.dump`, the time in UTC, and beside it the same with `.json`."""

from __future__ import annotations

import calendar
import re
import time
from collections import namedtuple

from nself_core.failures import UsageFailure

CUSTOM, PLAIN, DIRECTORY = "custom", "plain", "directory"
FORMATS = (CUSTOM, PLAIN, DIRECTORY)
ENDINGS = {".dump": CUSTOM, ".sql": PLAIN, ".sql.gz": PLAIN, ".dir": DIRECTORY}
MANIFEST = ".json"
TIME_FORM = "%Y-%m-%dT%H:%M:%S"
LABEL = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
AGE = ".age"  # behind the ending of what is encrypted; a folder is not
TAR = ".tar"  # behind that of a folder in an object store, where it is one object
SAFETY_LABEL = "before-restore"  # of what `restore` takes by itself, and passes over
STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"
NAME = re.compile(rf"({STAMP})(?:_({LABEL}))??((\.dump|\.sql\.gz|\.sql)(\.age)?|\.dir)", re.ASCII)


class Name(namedtuple("Name", "file seconds label format")):
    """A backup's `file`, its time as `seconds` since 1970, its `label` or None, and its `format`."""

    __slots__ = ()

    @property
    def is_encrypted(self):
        """Whether it is encrypted by age."""
        return self.file.endswith(AGE)

    @property
    def is_gzipped(self):
        """Whether what pg_dump wrote as plain text is one stream of gzip."""
        return self.file.removesuffix(AGE).endswith(".gz")


def check_label(label):
    """Raise UsageFailure for a label that cannot stand in a file's name."""
    if label is not None and not re.fullmatch(LABEL, label):
        raise UsageFailure(
            f"{label!r} is no label: it may hold letters, digits, '.', _ and -, at most 64, and begins with one of the "
            "first two"
        )


def check_own_label(label):
    """Raise UsageFailure for a label that a person may not give, because `restore` tells its own backups by it."""
    if label == SAFETY_LABEL:
        raise UsageFailure(
            f"the label {SAFETY_LABEL} is that of what `restore` takes by itself, and passes over without --file",
            "give another label",
        )


def file_name(seconds, label, ending):
    """The name of a backup taken at `seconds` since 1970."""
    stamp = time.strftime(TIME_FORM, time.gmtime(seconds))
    return f"{stamp}_{label}{ending}" if label else f"{stamp}{ending}"


def read_name(file):
    """The Name of a file, or None where it is not a backup's."""
    found = NAME.fullmatch(file)
    if not found:
        return None
    try:
        seconds = calendar.timegm(time.strptime(found[1], TIME_FORM))
    except ValueError:
        return None
    return Name(file, seconds, found[2], ENDINGS[found[3].removesuffix(AGE)])


def object_file(name):
    """What a backup of this Name is called in an object store."""
    return name.file + TAR if name.format == DIRECTORY else name.file


def read_object_name(file):
    """The Name of an object, or None where it is not a backup's."""
    name = read_name(file.removesuffix(TAR))
    return name if name and object_file(name) == file else None


def ending_of(form, compressed, encrypted=False):
    """The ending of a format; a plain dump that is compressed is a `.sql.gz`, what is encrypted ends in `.age`."""
    if form == DIRECTORY:
        return ".dir"
    plain = (".sql.gz" if compressed else ".sql") if form == PLAIN else ".dump"
    return plain + AGE if encrypted else plain
