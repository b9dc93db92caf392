"""Backups in the object store: `<prefix>/<env>/<database>/<file>`, beside it `….json`; without that it is no backup.

A folder is one object there, a tar. What is asked of the store goes by `store`; what takes long and must not fail for
a minute's trouble, by `patient`, which waits for as long as PATIENCE says unless STORAGE_TRIES is set.
"""

from __future__ import annotations

import time
from collections import namedtuple

from nself_core.backups.age import readable
from nself_core.backups.manifest import encoded as encoded_manifest
from nself_core.backups.manifest import is_of_project, parse
from nself_core.backups.names import MANIFEST, object_file, read_object_name
from nself_core.failures import CheckFailed, Failure, FileFailure, UsageFailure
from nself_core.s3.account import read_account
from nself_core.s3.client import TIMEOUT, TRIES
from nself_core.s3.signing import encoded
from nself_core.s3.store import TAKEN, Store

FIRST_PAUSE = 0.5  # seconds
# A store that is started anew is away for a minute, or two; and of one that hangs each try takes a minute itself.
PATIENCE = 180  # seconds
PATIENT_TRIES = 4
MARK = {"nself-backup": "1"}  # metadata by which prune knows what is left of our own uploads
SCHEME = "s3://"

Remote = namedtuple("Remote", "store patient env project")
Remote.__doc__ = """The backups of one environment in a bucket: two Stores of one account (see above), and its name.

`project` is the name of ours: another's backups may lie beside them under the same keys.
"""

RemoteBackup = namedtuple("RemoteBackup", "name key shown bytes env database has_manifest modified manifest identity")
RemoteBackup.__doc__ = """One backup in the store.

Its Name, its `key`, `shown` to people, the object's size in `bytes`, of which `env` and `database` it is, whether its
manifest is there, when it was `modified` (ISO 8601), its `manifest` once it is read, and the `identity` file or None.
"""


def open_remote(settings):
    """The Remote that the settings name. Raises UsageFailure and CredentialsRefused as `read_account` does."""
    account = read_account(settings)
    timeout = settings.integer("STORAGE_TIMEOUT", TIMEOUT) or TIMEOUT
    given = settings.integer("STORAGE_TRIES")
    tries, patience = (PATIENT_TRIES, PATIENCE) if given is None else (given or 1, 0)
    store = Store(account, timeout, TRIES if given is None else min(tries, TRIES))
    patient = Store(account, timeout, tries, FIRST_PAUSE, patience=patience)
    return Remote(store, patient, settings.env, settings.project_name)


def folder_key(remote, env, database=None):
    """What the keys of an environment's backups begin with, or those of one database."""
    place = f"{remote.store.account.prefix}{env}/"
    return place if database is None else f"{place}{segment(database)}/"


def segment(name):
    """A database's name as one part of a key: percent-encoded, and never one that a path would swallow."""
    return name.replace(".", "%2E") if name in (".", "..") else encoded(name)


def shown_key(remote, key):
    """A key as people see it, and as --file takes it."""
    return f"{SCHEME}{remote.store.account.bucket}/{key}"


# What is there.


def find_keys(remote, database=None):
    """All objects of the environment, or of one of its databases, as a dict of Entries by key."""
    return {entry.key: entry for entry in remote.store.find_objects(folder_key(remote, remote.env, database))}


def list_backups(remote, database=None, identity=None, entries=None):
    """The RemoteBackups of the environment, the newest first; `entries`, of `find_keys`, where that has been asked."""
    entries = find_keys(remote, database) if entries is None else entries
    found = [_backup(remote, entry, f"{entry.key}{MANIFEST}" in entries, identity) for entry in entries.values()]
    return sorted(filter(None, found), key=lambda each: (each.name.seconds, each.name.file), reverse=True)


def _backup(remote, entry, has_manifest, identity):
    """The RemoteBackup of an object, or None where its key is not a backup's."""
    from urllib.parse import unquote

    parts = entry.key[len(remote.store.account.prefix) :].split("/")
    name = read_object_name(parts[-1]) if len(parts) == 3 else None
    if name is None:
        return None
    shown, database = shown_key(remote, entry.key), unquote(parts[1])
    return RemoteBackup(
        name, entry.key, shown, entry.size, parts[0], database, has_manifest, entry.modified, None, identity
    )


def find_backup(remote, file, database=None, identity=None):
    """The RemoteBackup that a --file or FILE means: a name, `env/database/name`, or what `list` shows.

    A name alone is looked for in the environment, or in its `database` where one is given. Raises UsageFailure where
    there is none, or more than one.
    """
    key = _key_of(remote, file)
    if key is not None:
        env = key[len(remote.store.account.prefix) :].split("/")[0]
        entries = {each.key: each for each in remote.store.find_objects(key) if each.key in (key, key + MANIFEST)}
        found = list_backups(remote._replace(env=env), None, identity, entries)
    else:
        found = [
            each
            for each in list_backups(remote, database, identity)
            if file in (each.name.file, object_file(each.name))
        ]
    if not found:
        raise UsageFailure(f"there is no backup {file} in {remote.store.account}", "see: nself-db backup list --remote")
    if len(found) > 1:
        raise UsageFailure(f"{file} is a backup of more than one database", f"name it whole: {found[0].shown}")
    return found[0]


def _key_of(remote, file):
    """The key that `file` names as a whole, or None where it is a name alone."""
    account = remote.store.account
    whole = shown_key(remote, account.prefix)
    if file.startswith(whole):
        return account.prefix + file[len(whole) :]
    if file.startswith(SCHEME):
        raise UsageFailure(f"{file} is not in {account}" + (f", below {account.prefix}" if account.prefix else ""))
    return account.prefix + file if "/" in file else None


def with_manifest(remote, backup):
    """The RemoteBackup with its manifest, read. Raises FileFailure for what is none, or that of another backup."""
    manifest = parse(remote.store.get(backup.key + MANIFEST), backup.shown + MANIFEST)
    wanted = {"file": object_file(backup.name), "env": backup.env, "database": backup.database}
    wrong = [name for name, value in wanted.items() if manifest[name] != value]
    if wrong:
        raise FileFailure(
            f"this manifest is of another backup: its {', '.join(wrong)} differs", file=backup.shown + MANIFEST
        )
    return backup._replace(manifest=manifest)


def choose(remote, database, file, identity, passed_over):
    """The RemoteBackup to restore, with its manifest: the one that --file names, else the newest good-looking one.

    Argument: `passed_over`, a label that is taken only by name. Raises CheckFailed where there is none.
    """
    if file is not None:
        found = find_backup(remote, file, database, identity)
        if not found.has_manifest:
            raise CheckFailed(f"{found.shown} has no manifest: its upload was never finished, and it is no backup")
        return readable(with_manifest(remote, found))
    others = 0
    for backup in list_backups(remote, database, identity):
        if backup.has_manifest and backup.name.label != passed_over:
            try:
                found = with_manifest(remote, backup)
                if is_of_project(found.manifest, remote.project):
                    return readable(found)
                others += 1
            except FileFailure:
                continue
    told = f" of project {remote.project}, and {others} of others" if others else ""
    raise CheckFailed(
        f"there is no backup of {database} in {remote.env} in {remote.store.account}{told}",
        "name another one with --file; see: nself-db backup list --remote",
    )


# What is written.


def is_free(remote, key):
    """Whether neither an object of this key is there nor its manifest."""
    return remote.patient.head(key) is None and remote.patient.head(key + MANIFEST) is None


def put_manifest(remote, key, manifest, is_new):
    """Store the manifest of an object that is there, which makes it a backup.

    Where that fails, the object is removed; unless it was there before, and not `is_new`.
    """
    try:
        outcome = remote.patient.put(key + MANIFEST, encoded_manifest(manifest), MARK, only_new=True)
        if outcome == TAKEN:
            raise Failure(f"there is another manifest already: {shown_key(remote, key + MANIFEST)}")
    except BaseException as error:
        if is_new:
            _take_back(remote, key, isinstance(error, Failure) and error.exit_code == 1)
        raise


def _take_back(remote, key, is_others):
    """Remove an object, and its manifest, whose storing may have succeeded unheard, unless it is another's."""
    try:
        if not is_others:
            remote.store.delete(key + MANIFEST)
        remote.store.delete(key)
    except Failure:
        pass  # what failed first is told; prune finds what stays


def stamp(seconds):
    """A time as the store writes it, to compare with."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
