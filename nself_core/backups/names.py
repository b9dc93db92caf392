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
NAME = re.compile(rf"(\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:_({LABEL}))??(\.dump|\.sql\.gz|\.sql|\.dir)", re.ASCII)

Name = namedtuple("Name", "file seconds label format")
Name.__doc__ = "A backup's `file`, its time as `seconds` since 1970, its `label` or None, and its `format`."


def check_label(label):
    """Raise UsageFailure for a label that cannot stand in a file's name."""
    if label is not None and not re.fullmatch(LABEL, label):
        raise UsageFailure(
            f"{label!r} is no label: it may hold letters, digits, '.', _ and -, at most 64, and begins with one of the "
            "first two"
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
    return Name(file, seconds, found[2], ENDINGS[found[3]])


def ending_of(form, compressed):
    """The ending of a format; a plain dump that is compressed is a `.sql.gz`."""
    if form == PLAIN:
        return ".sql.gz" if compressed else ".sql"
    return ".dump" if form == CUSTOM else ".dir"
