"""What could not run on this machine, said at the end of the run; under CI=true it fails the run.

There is no other way to leave a test out: every skip, whoever raised it, is counted here.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest


class Gap(Exception):
    """Something this machine lacks. The bed's parts raise it; `not_run` or a fixture turns it into a skip."""

    def __init__(self, what, reason):
        super().__init__(f"{what}: {reason}")
        self.what = what
        self.reason = reason


def not_run(what, reason):
    """Leave the calling test out: `what` cannot be tested here because of `reason`. Does not return."""
    pytest.skip(f"{what}: {reason}")


class GapReporter:
    """The pytest plugin that collects the gaps and prints them."""

    def __init__(self):
        self.reasons: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report):
        """Count a test that was skipped; an expected failure is no gap."""
        if report.skipped and not hasattr(report, "wasxfail"):
            self._count(report.longrepr)

    def pytest_collectreport(self, report):
        """Count a module that was skipped as a whole."""
        if report.skipped:
            self._count(report.longrepr)

    def pytest_sessionfinish(self, session):
        """Fail the run in CI when there is a gap."""
        if self.reasons and os.environ.get("CI") == "true" and session.exitstatus == 0:
            session.exitstatus = 1

    def pytest_terminal_summary(self, terminalreporter):
        """List each gap once, with the number of tests it kept from running."""
        for reason, count in sorted(self.reasons.items()):
            terminalreporter.write_line(f"not run: {reason} [{count} test{'s' if count > 1 else ''}]", yellow=True)

    def _count(self, longrepr):
        text = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
        self.reasons[text.removeprefix("Skipped: ")] += 1
