"""Consent to what destroys or replaces data: says where and what, then asks, and refuses when nobody can answer.

The rules are DESIGN.md, section 5, "Destruction asks". A database's protect marker is not known here: whoever
has the connection refuses before asking.
"""

from __future__ import annotations

from collections import namedtuple

from nself_core.failures import Refused
from nself_core.output import is_terminal

HEADING = "This destroys or replaces data:"


class Target(namedtuple("Target", "env server database project_name")):
    """Where something is about to be destroyed.

    Fields: `env`, the environment's name; `server`, the host or container as people know it; `database`, its
    name, None where it is not a database; `project_name`, what is to be typed in prod.
    """

    __slots__ = ()

    @property
    def is_prod(self):
        """Whether this is the environment that asks for the project's name."""
        return self.env == "prod"

    def lines(self, what):
        """The place and the loss, for people; `what` is a sequence of lines."""
        named = f", database {self.database}" if self.database else ""
        where = f"environment {self.env}, {self.server.removesuffix(named)}{named}"  # a container is named with it
        titles = ["  what:  ", *["         "] * len(what)]
        return [f"  where: {where}", *map("".join, zip(titles, what))]


def confirm(console, target, what, *, force, confirm_name, environ, stdin):
    """Return when there is consent; raise Refused (exit code 4) when there is none.

    Arguments: `target`, a Target; `what`, lines that say what will be lost (objects, rows, size); `force`, whether
    --force was given; `confirm_name`, the value of --confirm or None; `environ`, read for NSELF_NONINTERACTIVE;
    `stdin`, the stream an answer is read from. To be called after connecting, so that no server is 2 and never 4.
    """
    if confirm_name is not None and confirm_name != target.project_name:
        raise _refused(f"--confirm says {confirm_name}, but the project is {target.project_name}")
    if force and (confirm_name is not None or not target.is_prod):
        console.note("\n".join([HEADING, *target.lines(what)]))
    elif can_ask(console, environ, stdin):
        _ask(console, target, what, stdin)
    else:
        raise _nobody_there(target, what)


def can_ask(console, environ, stdin):
    """Whether a question reaches a person: stdin and stderr are terminals and NSELF_NONINTERACTIVE is not set."""
    forbidden = environ.get("NSELF_NONINTERACTIVE", "").strip().lower() not in ("", "0", "false", "no")
    return not forbidden and is_terminal(stdin) and is_terminal(console.stderr)


def _ask(console, target, what, stdin):
    wanted, called = (target.project_name, "the project's name") if target.is_prod else ("yes", "yes")
    console.ask("\n".join([HEADING, *target.lines(what), f"Type {called} to go on: "]))
    try:
        answer = stdin.readline()
    except UnicodeDecodeError:
        answer = ""
    if not answer.endswith("\n"):
        console.ask("\n")
    if answer.strip() != wanted:
        raise _refused("not confirmed")


def _nobody_there(target, what):
    option = f"--force --confirm {target.project_name}" if target.is_prod else "--force"
    message = f"this destroys or replaces data in {target.env}, and there is nobody to ask"
    return _refused(message, f"give {option} to do it without being asked", "\n".join(target.lines(what)))


def _refused(message, hint=None, excerpt=None):
    return Refused(f"{message}; nothing was changed", hint, excerpt=excerpt)
