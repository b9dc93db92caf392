"""Bringing what was written to disk, where a power cut leaves it."""

from __future__ import annotations

import os


def sync(path):
    """Bring a file, or the names in a folder, to disk. Raises OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
