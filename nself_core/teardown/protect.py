"""`protect`: sets and takes away the marker under which nothing that destroys runs."""

from __future__ import annotations

from nself_core.bookkeeping import lock
from nself_core.bookkeeping.protection import read_marker, sql_protect, sql_unprotect
from nself_core.output import Report
from nself_core.plan import Plan, Step


def plan_protect(marker, off):
    """The Plan that sets the marker, or with `off` takes it away; no step where it is so already.

    Arguments: `marker`, as protection.read_marker gives it.
    """
    state = "is not protected" if off else "is protected"
    if marker["protected"] != bool(off):
        return Plan((), nothing=f"the database {state} already", data={"protected": not off, "changed": False})
    texts = sql_unprotect() if off else sql_protect(marker)
    title = "take the protection away" if off else "protect the database from drop, reset and restore"
    step = Step("protection", title, ";\n".join(texts) + ";", "transaction", bool(off), (texts, off))
    return Plan([step], loses=("its protection: drop, reset and restore can run afterwards",) if off else ())


def perform(database, steps, wait, tell):
    """Set or take away the marker in one transaction, under the migration lock, and return the Report.

    Arguments: `wait`, seconds to wait for another run; `tell(text)`, progress.
    """
    texts, off = steps[0].work
    lock.take_lock(database, wait, tell)
    changed = read_marker(database)["protected"] == bool(off)
    database.execute("BEGIN READ WRITE", *texts, "COMMIT")
    summary = f"{database.where}: {'not protected any more' if off else 'protected'}"
    return Report({"protected": not off, "changed": changed}, (), summary)
