"""Encryption by the program `age`: on the way out for recipients, whose keys are public; back with an identity.

A stream passes through it and stays a stream: nothing of it comes to a disk in plain. What a manifest tells of the
database's content is encrypted for the same recipients, and what is needed to find a backup and to compare its hash
stays readable.
"""

from __future__ import annotations

import json
import os
import select

from nself_core import processes
from nself_core.failures import CheckFailed, CredentialsRefused, Unreachable, UsageFailure

RECIPIENTS = "BACKUP_AGE_RECIPIENTS"
IDENTITY = "BACKUP_AGE_IDENTITY"
SECRET_KEY = "AGE-SECRET-KEY-"
CHUNK = 1 << 18
KEPT_WORDS = 16 << 10
TIMEOUT = 30  # seconds for a small text
# What of a manifest tells of the content, and is of no use to who cannot decrypt the dump.
SEALED = (
    "globals", "estimated_rows", "unsure_rows", "settings", "grants", "owner", "comment", "extensions", "versions",
    "content",
)  # fmt: skip


# Who may read, and by which key.


def read_recipients(settings):
    """The recipients that the settings name, as a tuple of texts; empty where backups are not encrypted.

    They are separated by commas or lines. Raises UsageFailure for what is no public key, without telling it.
    """
    found = []
    for item in settings.get(RECIPIENTS, "").replace("\n", ",").split(","):
        found += [item.strip()] if item.strip().startswith("ssh-") else item.split()
    if not all(item.startswith(("age1", "ssh-")) for item in found):
        raise UsageFailure(
            f"{RECIPIENTS} holds what is no recipient (from {settings.source(RECIPIENTS)})",
            "a recipient begins with age1 or ssh-; several are separated by commas",
        )
    return tuple(found)


def check_recipients(recipients):
    """Encrypt nothing for them, so that what is wrong is known before a dump begins; does nothing for none.

    Raises Unreachable where there is no `age`, UsageFailure where it does not take them.
    """
    if recipients:
        done = processes.run(_encryption(recipients), input="", timeout=TIMEOUT)
        if done.code:
            raise UsageFailure(f"age does not take {RECIPIENTS}: {_said(done.err)}")


def read_identity(settings):
    """The path of the identity file, absolute, or None. Raises UsageFailure where the key itself stands there."""
    value = settings.get(IDENTITY)
    if value is None:
        return None
    if value.startswith(SECRET_KEY):
        raise UsageFailure(f"{IDENTITY} is a key itself", "put it into a file of its own and give that file's path")
    return settings.path(IDENTITY, value)


def require_identity(identity, shown):
    """Raise CredentialsRefused where there is no identity, UsageFailure where it is no file."""
    if identity is None:
        raise CredentialsRefused(
            f"{shown} is encrypted, and {IDENTITY} is not set", "set it to the path of the identity file"
        )
    if not os.path.isfile(identity):
        raise UsageFailure(f"{IDENTITY} names {identity}, and there is no such file")


def _program():
    found = processes.find_program("age")
    if not found:
        raise Unreachable("there is no age on this host", "install it (Debian: apt-get install age)")
    return found


def _encryption(recipients, *options):
    return [_program(), *options, *(word for item in recipients for word in ("--recipient", item))]


def _decryption(identity):
    return [_program(), "--decrypt", "--identity", identity]


def _said(words):
    """What age says of its failure, in a line."""
    lines = [line.removeprefix("age: ").removeprefix("error: ") for line in words.split("\n") if line.strip()]
    return next((line for line in lines if not line.startswith("report unexpected")), "it said nothing")


# Streams.


class _Filter:
    # A child program that bytes pass through; it takes and gives at its own pace.

    def __init__(self, argv):
        self._child = processes.start(argv)
        self._words = bytearray()
        for end in (self._child.stdin, self._child.stdout, self._child.stderr):
            os.set_blocking(end.fileno(), False)

    @property
    def is_deaf(self):
        """Whether it takes no more, which before its end means that it has failed."""
        return self._child.stdin.closed

    def through(self, data):
        """Yield what comes out while `data` goes in."""
        waiting = memoryview(data)
        while waiting and not self.is_deaf:
            ready = self._ready(self._child.stdin)
            if self._child.stdin in ready:
                waiting = waiting[self._fed(waiting) :]
            yield from self._read(ready)

    def rest(self):
        """Let it come to its end and yield what still comes out; returns its exit code and what it said."""
        if not self._child.stdin.closed:
            self._child.stdin.close()
        while not (self._child.stdout.closed and self._child.stderr.closed):
            yield from self._read(self._ready())
        return self._child.wait(), self._words.decode("utf-8", "replace")

    def end(self):
        """End it, whatever it does."""
        processes.kill(self._child)

    def _ready(self, stdin=None):
        poll, ends = select.poll(), {}
        events = [(stdin, select.POLLOUT)] if stdin else []
        for end, event in (*events, (self._child.stdout, select.POLLIN), (self._child.stderr, select.POLLIN)):
            if not end.closed:
                ends[end.fileno()] = end
                poll.register(end.fileno(), event)
        return [ends[number] for number, _ in poll.poll()]

    def _fed(self, waiting):
        try:
            return os.write(self._child.stdin.fileno(), waiting)
        except BlockingIOError:
            return 0
        except (BrokenPipeError, ConnectionResetError):
            self._child.stdin.close()  # its exit code says why
            return 0

    def _read(self, ready):
        if self._child.stdout in ready:
            data = os.read(self._child.stdout.fileno(), CHUNK)
            if data:
                yield data
            else:
                self._child.stdout.close()
        if self._child.stderr in ready:
            words = os.read(self._child.stderr.fileno(), CHUNK)
            self._words += words
            del self._words[: max(len(self._words) - KEPT_WORDS, 0)]
            if not words:
                self._child.stderr.close()


class Encrypting:
    """Called with bytes, it hands their encryption to `sink(bytes)`; `finish` ends it well, `end` in any case.

    `size` and `hexdigest` are those of the plain bytes.
    """

    def __init__(self, recipients, sink):
        import hashlib

        self._filter = _Filter(_encryption(recipients))
        self._sink = sink
        self._digest = hashlib.sha256()
        self.size = 0

    def __call__(self, data):
        """Take the next bytes. Raises CheckFailed where age has ended."""
        self._digest.update(data)
        self.size += len(data)
        for out in self._filter.through(data):
            self._sink(out)
        if self._filter.is_deaf:
            self.finish()
            raise CheckFailed("age ended before what it was to encrypt")

    def finish(self):
        """Say that nothing follows. Raises CheckFailed where age did not end well."""
        code, words = _hand_on(self._sink, self._filter.rest())
        if code:
            raise CheckFailed(f"age failed ({code}): {_said(words)}")

    def end(self):
        """Let go of it."""
        self._filter.end()

    @property
    def hexdigest(self):
        """SHA-256 of the plain bytes."""
        return self._digest.hexdigest()


def _hand_on(sink, pieces):
    """Hand what a generator yields to `sink` and return what it returns."""
    while True:
        try:
            sink(next(pieces))
        except StopIteration as ended:
            return ended.value


def decrypted(identity, pieces):
    """Yield the plain bytes of encrypted `pieces`.

    Raises CheckFailed for what is damaged, CredentialsRefused where the identity is none of the recipients'.
    """
    passing = _Filter(_decryption(identity))
    try:
        for data in pieces:
            yield from passing.through(data)
            if passing.is_deaf:
                break
        code, words = yield from passing.rest()
        if code:
            raise _undecrypted(_said(words))
    finally:
        passing.end()


def _undecrypted(said):
    if "no identity matched" in said:
        return CredentialsRefused(f"{IDENTITY} is none of the identities that the backup is encrypted for")
    if said.startswith("reading "):  # the identity file
        return UsageFailure(f"{IDENTITY} names what age cannot use: {said}")
    return CheckFailed(f"it cannot be decrypted: {said}")


# Manifests.


def sealed(manifest, recipients):
    """The manifest of an encrypted dump: what tells of the content is encrypted, too."""
    private = {name: manifest[name] for name in SEALED if name in manifest}
    done = processes.run(_encryption(recipients, "--armor"), input=json.dumps(private), timeout=TIMEOUT)
    if done.code:
        raise CheckFailed(f"age failed ({done.code}): {_said(done.err)}")
    public = {name: value for name, value in manifest.items() if name not in private}
    return {**public, "encryption": "age", "recipients": [*recipients], "sealed": done.out}


def unsealed(manifest, identity):
    """The whole manifest; one that is not sealed is whole. Raises what `decrypted` raises."""
    if "sealed" not in manifest:
        return manifest
    text = b"".join(decrypted(identity, [str(manifest["sealed"]).encode()]))
    try:
        private = json.loads(text)
        return {**manifest, **{name: private[name] for name in SEALED if name in private}}
    except (ValueError, TypeError):
        raise CheckFailed("what the manifest keeps encrypted is not as it was written") from None


def as_sealed(manifest):
    """A manifest that was unsealed as it may be written again."""
    return {name: value for name, value in manifest.items() if "sealed" not in manifest or name not in SEALED}


def readable(backup):
    """A Backup whose manifest is whole, which needs the identity where it is encrypted.

    Raises what `require_identity` and `unsealed` raise.
    """
    if not backup.name.is_encrypted:
        return backup
    require_identity(backup.identity, backup.shown)
    return backup._replace(manifest=backup.manifest and unsealed(backup.manifest, backup.identity))
