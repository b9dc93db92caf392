"""The failures of the program: one tree, each class with its exit code and its code word.

A failure is raised where it is found and printed once, by the face (DESIGN.md, section 5). It carries
what a reader needs to act on it: a sentence, a hint, and where there is one the file, line and column.
"""

from __future__ import annotations


class Failure(Exception):
    """Something the program tells its user instead of a traceback.

    Arguments: `message`, one sentence without a final stop; `hint`, what to do about it; `file`, the path as
    the user would write it; `line` and `column`, counted from 1; `data`, facts for the JSON document's `data`;
    `excerpt`, lines shown under the message as they are (a statement with its caret, the server's detail).
    """

    exit_code = 1
    code = "failed"

    def __init__(self, message, hint=None, *, file=None, line=None, column=None, data=None, excerpt=None):
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.file = file
        self.line = line
        self.column = column
        self.data = data
        self.excerpt = excerpt
        self.warnings: tuple = ()  # what was to be warned of when it happened, set by who knows it

    @property
    def place(self):
        """Where it happened as `file:line:column`, as far as known; empty when nothing is."""
        parts = [self.file, self.line, self.column]
        known = parts[: parts.index(None)] if None in parts else parts
        return ":".join(str(part) for part in known)


class UsageFailure(Failure):
    """The command line or a setting is wrong."""

    code = "usage"


class FileFailure(Failure):
    """A file of the project cannot be used as it is."""

    code = "bad_file"


class SqlFailure(Failure):
    """The server refused a statement of ours or of a file."""

    code = "sql_failed"


class MigrationFailed(SqlFailure):
    """A statement of a migration failed; what the file did is undone or recorded."""

    code = "migration_failed"


class SeedFailed(SqlFailure):
    """A statement of a seed failed; nothing of the seed was kept."""

    code = "seed_failed"


class CheckFailed(Failure):
    """A check ran and found something wrong."""

    code = "check_failed"


class CommandFailed(Failure):
    """A command of the user's that was run with fixtures ended with another exit code than 0, which is this one's."""

    code = "command_failed"


class Unreachable(Failure):
    """Docker, Postgres, Hasura or storage cannot be reached, or the disk is full."""

    exit_code = 2
    code = "unreachable"


class DatabaseClosed(Unreachable):
    """The server is there, and the database lets nobody in (ALLOW_CONNECTIONS false); `database`, its name."""

    database = ""


class CredentialsRefused(Failure):
    """Credentials are missing or were refused."""

    exit_code = 3
    code = "credentials_refused"


class Refused(Failure):
    """Not done on purpose: no consent, or a protected environment."""

    exit_code = 4
    code = "refused"


class LockHeld(Refused):
    """Another run holds the lock."""

    code = "locked"


class Interrupted(Failure):
    """The user stopped the program (Ctrl-C)."""

    exit_code = 130
    code = "interrupted"
