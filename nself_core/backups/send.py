"""Sends a backup to the object store: beside its dump, from the one stream, or later, from its file.

The object is completed only when the dump has ended well, and its manifest comes last. Where a local file is kept, the
store's trouble never spoils that: it is kept, too, and told at the end.
"""

from __future__ import annotations

import os
from collections import namedtuple

from nself_core.backups import folder as folders
from nself_core.backups import remote as remotes
from nself_core.backups.age import read_recipients
from nself_core.backups.names import DIRECTORY, MANIFEST, TAR, object_file
from nself_core.backups.tar import chunks, tar_of
from nself_core.failures import (
    CheckFailed,
    CredentialsRefused,
    Failure,
    FileFailure,
    Refused,
    Unreachable,
    UsageFailure,
)
from nself_core.output import Report, bytes_text, duration_text
from nself_core.plan import Plan, Step
from nself_core.s3.answers import Busy
from nself_core.s3.multipart import Uploading
from nself_core.s3.store import STORED, TAKEN

Destination = namedtuple("Destination", "remote env database")
Destination.__doc__ = "Where a backup goes: a Remote, and whose it is."


def key_of(destination, file):
    """The key of an object of this name."""
    remote, env, database = destination
    return remotes.folder_key(remote, env, database) + file


class Sending:
    """One upload, called with the object's bytes once `begin` has named it.

    Arguments: `destination`; `must`, whether nothing else is kept of the backup: trouble is then raised at once.
    Otherwise it is kept as `trouble`, and what comes after it is let pass.
    """

    def __init__(self, destination, must, resume=False):
        self.destination = destination
        self.trouble = None
        self._must = must
        self._resume = resume
        self._uploading = None
        self._key = None
        self._attempt(self._check)

    def _check(self):
        """Look whether the bucket is there: where nobody answers that is told at once, a busy store is waited for."""
        try:
            self.destination.remote.store.check()
        except Busy:
            self.destination.remote.patient.check()

    @property
    def shown(self):
        """The object's place for people."""
        return remotes.shown_key(self.destination.remote, self._key)

    def is_free(self, file):
        """Whether no backup of this name is there; where nobody can tell, it counts as free."""
        key = key_of(self.destination, file)
        return self._attempt(lambda: remotes.is_free(self.destination.remote, key)) is not False

    def begin(self, file):
        """Name the object."""
        self._key = key_of(self.destination, file)
        store = self.destination.remote.patient
        self._uploading = Uploading(store, self._key, remotes.MARK, only_new=True, resume=self._resume)

    def __call__(self, data):
        uploading = self._uploading
        if uploading is not None:
            self._attempt(lambda: uploading(data))

    def finish(self, manifest):
        """Complete the object and store its manifest: a dict, or a function that makes it of the Uploaded."""
        uploading = self._uploading
        if uploading is not None:
            self._attempt(lambda: self._complete(uploading, manifest))

    def _complete(self, uploading, manifest):
        done = uploading.finish()
        self._uploading = None
        if done.outcome == TAKEN:
            raise Failure(f"another backup of this name was stored meanwhile: {self.shown}", "take it again")
        manifest = manifest(done) if callable(manifest) else manifest
        if (done.size, done.sha256) != (manifest["bytes"], manifest["sha256"]):
            raise CheckFailed(f"what was sent is not what was written: {self.shown}")
        remotes.put_manifest(self.destination.remote, self._key, manifest, done.outcome == STORED)

    def leave(self):
        """End without a backup there."""
        if self._uploading is not None:
            self._uploading.leave(keep=self._resume)
            self._uploading = None

    def _attempt(self, act):
        """What `act()` returns; None where it, or one before it, met trouble that is kept."""
        if self.trouble is not None:
            return None
        try:
            return act()
        except Failure as failure:
            if self._must:
                raise
            self.trouble = failure.with_traceback(None)  # its frames would hold a part of the dump
            self.leave()
            return None


def raise_trouble(trouble, file, data, warnings):
    """Raise what says that a backup is good here and that its upload did not happen; do nothing for None."""
    if trouble is None:
        return
    kind = CredentialsRefused if isinstance(trouble, CredentialsRefused) else Unreachable
    hint = f"send it when that is mended: nself-db backup --upload {os.path.basename(file)}"
    failure = kind(
        f"the backup is whole in {file}, but it was not uploaded: {trouble.message}",
        f"{trouble.hint}; {hint}" if trouble.hint else hint,
        data=data,
    )
    failure.warnings = tuple(warnings)
    raise failure


# A backup that is there already.


def plan_upload(settings, args):
    """The Plan of `backup --upload FILE`.

    Raises UsageFailure for options that belong to a new dump, CheckFailed for a backup without manifest, Refused for
    one that is not encrypted where backups are to be.
    """
    given = [name for name in ("label", "compress", "jobs", "no_local", "verify") if getattr(args, name)]
    if given:
        raise UsageFailure(f"--upload sends what is there: leave out --{given[0].replace('_', '-')}")
    backup = folders.find_backup(folders.backup_folder(settings), args.upload)
    if backup.manifest is None:
        raise CheckFailed("the backup has no manifest: nothing says what it is of", file=backup.shown)
    if read_recipients(settings) and not backup.name.is_encrypted:
        raise Refused(
            f"{backup.shown} is not encrypted, and BACKUP_AGE_RECIPIENTS wants backups to be",
            "take a new backup, or send this one without that setting",
        )
    manifest = backup.manifest
    destination = Destination(remotes.open_remote(settings), manifest["env"], manifest["database"])
    place = remotes.shown_key(destination.remote, key_of(destination, object_file(backup.name)))
    work = backup, destination
    return Plan([
        Step("upload", f"send {backup.shown} to {place}, in parts, if it is as its manifest says", work=work),
        Step("upload", f"store its manifest, last, as {place}{MANIFEST}"),
    ])  # fmt: skip


def perform_upload(work, progress, clock):
    """Send a Backup and return the Report.

    Arguments: `work`, (Backup, Destination); `progress(done, total)`, in bytes; `clock()`, seconds.
    """
    backup, destination = work
    begun = clock()
    if not folders.is_intact(backup):
        raise CheckFailed("the backup is not as its manifest says, and was not sent", file=backup.shown)
    sending = Sending(destination, True, resume=True)
    try:
        sending.begin(object_file(backup.name))
        send_file(sending, backup.path, lambda done: progress(done, backup.bytes))
        sending.finish(lambda done: object_manifest(backup.manifest, done))
    except BaseException:
        sending.leave()
        raise
    seconds = clock() - begun
    data = {
        "file": backup.shown,
        "format": backup.name.format,
        "bytes": backup.bytes,
        "sha256": backup.manifest["sha256"],
        "remote": sending.shown,
        "duration_ms": round(seconds * 1000),
    }
    told = f"{bytes_text(backup.bytes)} in {duration_text(seconds)}"
    return Report(data, (), f"sent {backup.shown} to {sending.shown}: {told}")


def send_file(sending, path, progress):
    """Send a file, or a folder as a tar. Raises FileFailure where it cannot be read."""
    measuring = folders.Measuring([sending], progress)
    try:
        for data in tar_of(path) if os.path.isdir(path) else chunks(path):
            measuring(data)
    except OSError as error:
        raise FileFailure(f"cannot be read: {error.strerror}", file=path) from None


def object_manifest(manifest, done):
    """The manifest of an object: that of the file, or of a folder's tar, with the folder's own facts as `content`."""
    if manifest["format"] != DIRECTORY:
        return manifest
    own = {name: manifest[name] for name in ("file", "bytes", "sha256")}
    return {**manifest, "file": manifest["file"] + TAR, "bytes": done.size, "sha256": done.sha256, "content": own}
