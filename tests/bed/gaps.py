"""What could not run on this machine, said at the end of the run; under CI=true it fails the run.

There is no other way to leave a test out: every skip, whoever raised it, is counted here. One kind of gap fails no run:
other projects' data, which are no part of this repository and stand beside the checkouts of its developers only. In a
clone without any of them, the tests' own cases of the same behaviour run alone; a part of them that is missing where
the others are is a gap like any.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
ELSEWHERE = "the shared data are not beside this checkout"


class Gap(Exception):
    """Something this machine lacks. The bed's parts raise it; `not_run` or a fixture turns it into a skip."""

    def __init__(self, what, reason):
        super().__init__(f"{what}: {reason}")
        self.what = what
        self.reason = reason


def not_run(what, reason):
    """Leave the calling test out: `what` cannot be tested here because of `reason`. Does not return."""
    pytest.skip(f"{what}: {reason}")


def wants_shared(name):
    """A mark for tests that read the folder `name` of SHARED: where it is not, they are a gap."""
    reason = "the shared data lack it" if SHARED.is_dir() else ELSEWHERE
    return pytest.mark.skipif(not (SHARED / name).is_dir(), reason=f"{name}: {reason}")


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
        """Fail the run in CI when there is a gap that this machine could have filled."""
        gaps = [reason for reason in self.reasons if not reason.endswith(ELSEWHERE)]
        if gaps and os.environ.get("CI") == "true" and session.exitstatus == 0:
            session.exitstatus = 1

    def pytest_terminal_summary(self, terminalreporter):
        """List each gap once, with the number of tests it kept from running."""
        for reason, count in sorted(self.reasons.items()):
            terminalreporter.write_line(f"not run: {reason} [{count} test{'s' if count > 1 else ''}]", yellow=True)

    def _count(self, longrepr):
        text = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
        self.reasons[text.removeprefix("Skipped: ")] += 1
