"""The embedded server as its user sees it: does it run, and stop it."""

from __future__ import annotations

from nself_core.output import Report
from nself_core.plan import Plan, Step
from nself_core.postgres import embedded


def status(settings):
    """The Report on the project's embedded server; starts nothing."""
    found = embedded.status(settings)
    data = {"running": found.running, "version": found.major, "data": found.data_folder, "socket": found.host,
            "log": found.log}
    if found.major is None:
        none = "there is no embedded server here; NSELF_DB_ENGINE=embedded makes one with the first command"
        return Report(data, (), none)
    text = "runs" if found.running else "does not run"
    return Report(data, (f"data    {found.data_folder}\nlog     {found.log}",), f"Postgres {found.major} {text}")


def plan_stop(settings):
    """The Plan that stops the embedded server; without steps when none runs."""
    if not embedded.status(settings).running:
        return Plan((), nothing="no embedded server runs", data={"stopped": False})
    return Plan([Step("server", "stop the embedded server")], data={"stopped": False})


def stopper(settings):
    """What performs the step of plan_stop."""

    def perform(steps):
        stopped = embedded.stop(settings)
        return Report({"stopped": stopped}, (), "stopped" if stopped else "no embedded server runs")

    return perform
