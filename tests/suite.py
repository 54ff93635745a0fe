# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the stages of `make test` one after the other and adds up their counts.

Every stage runs even if an earlier one failed, so that one run shows everything. The last line is "N passed, N failed".
A stage that writes a JUnit report counts its tests; any other stage counts as one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
REPORTS = ROOT / "build" / "reports"

# Quick and cheap first: what fails early is read early.
STAGES = (
    "house", "lint-python", "lint-yaml", "lint-reuse", "lint-changelog", "types", "unit", "conformance",
    "lint-docs", "lint-ansible", "sanity", "e2e", "mixed", "molecule", "crash-few",
)  # fmt: skip
# A stage whose directory is not there yet has nothing to run.
NEEDS = {"conformance": "tests/conformance", "e2e": "tests/e2e", "crash-few": "tests/crash"}


@dataclass(frozen=True)
class Counts:
    """What a stage found; skipped tests are shown, never hidden in the passed ones."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)


def counts_of(stage: str, status: int) -> Counts:
    """Read the stage's report. A stage that failed without a failed test has failed once more than it says."""
    report = REPORTS / f"{stage}.xml"
    if not report.exists():
        return Counts(passed=int(status == 0), failed=int(status != 0))
    suites = list(ElementTree.parse(report).getroot().iter("testsuite"))
    total, failed, skipped = (
        sum(int(suite.get(name, "0")) for suite in suites for name in names)
        for names in (("tests",), ("failures", "errors"), ("skipped",))
    )
    return Counts(total - failed - skipped, failed or int(status not in (0, 5)), skipped)


def run_stage(stage: str) -> Counts:
    """Run one make target in its own process group, show what it says, and end all of it when we are ended."""
    (REPORTS / f"{stage}.xml").unlink(missing_ok=True)
    print(f"=== {stage}", flush=True)
    started = time.monotonic()
    process = subprocess.Popen(["make", "--no-print-directory", stage], cwd=ROOT, start_new_session=True)
    try:
        status = process.wait()
    except BaseException:
        # The stage gets the chance to take its lab down before it is killed.
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        raise
    counts = counts_of(stage, status)
    print(
        f"--- {stage}: {counts.passed} passed, {counts.failed} failed, {counts.skipped} skipped, "
        f"{time.monotonic() - started:.0f} s",
        flush=True,
    )
    return counts


def main(wanted: list[str]) -> int:
    """Run the wanted stages (default: all) and print the sum."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    REPORTS.mkdir(parents=True, exist_ok=True)
    total = Counts()
    bad = []
    for stage in wanted or STAGES:
        if stage in NEEDS and not any((ROOT / NEEDS[stage]).glob("**/test_*.py")):
            print(f"=== {stage}: nothing there yet", flush=True)
            continue
        counts = run_stage(stage)
        total += counts
        bad += [stage] if counts.failed else []
    if bad:
        print("failed: " + " ".join(bad))
    if total.skipped:
        print(f"{total.skipped} skipped")
    print(f"{total.passed} passed, {total.failed} failed", flush=True)
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
