# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the stages of `make test` and adds up their counts.

Every stage runs even if an earlier one failed, so that one run shows everything. The last line is "N passed, N failed".
A stage that writes a JUnit report counts its tests; any other stage counts as one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
REPORTS = ROOT / "build" / "reports"

# What only computes runs beside two lanes of what mostly waits, each with labs of its own; the lanes are about equally
# long. What measures bounds has the machine for itself.
LANES = (
    (
        "house", "lint-python", "lint-yaml", "lint-reuse", "lint-changelog", "types", "unit", "lint-docs",
        "lint-ansible", "sanity", "crash-few",
    ),
    ("e2e-certified", "pairs", "conformance"),
    ("e2e-bare", "mixed", "molecule", "topologies"),
)  # fmt: skip
ALONE = ("measuring",)


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


class Stage:
    """One make target in its own process group. ``shown`` says whether it speaks at once or, of two, at its end."""

    def __init__(self, name: str, shown: bool) -> None:
        (REPORTS / f"{name}.xml").unlink(missing_ok=True)
        print(f"=== {name}" if shown else f"... {name}", flush=True)
        self.name, self._shown = name, shown
        self._log = REPORTS / f"{name}.log"
        self._started = time.monotonic()
        command = ["make", "--no-print-directory", name]
        with self._log.open("w") as log:
            said = None if shown else log
            self._process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stdout=said, stderr=said)

    def ended(self) -> bool:
        return self._process.poll() is not None

    def counts(self) -> Counts:
        """What came out of it, with all that it said."""
        counts = counts_of(self.name, self._process.wait())
        if not self._shown:
            print(f"=== {self.name}\n{self._log.read_text(errors='replace').rstrip()}")
        print(
            f"--- {self.name}: {counts.passed} passed, {counts.failed} failed, {counts.skipped} skipped, "
            f"{time.monotonic() - self._started:.0f} s",
            flush=True,
        )
        return counts

    def end(self) -> None:
        """Let it take its lab down, then kill what is left of it."""
        os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)


def run_side_by_side(*lanes: Sequence[str]) -> dict[str, Counts]:
    """Run lanes of stages at the same time, each lane in its order; all of it ends when we are ended."""
    waiting = [list(lane) for lane in lanes]
    running: list[Stage | None] = [None] * len(waiting)
    found: dict[str, Counts] = {}
    try:
        while any(waiting) or any(running):
            for number, stage in enumerate(running):
                if stage is not None and stage.ended():
                    found[stage.name] = stage.counts()
                    running[number] = None
                if running[number] is None and waiting[number]:
                    running[number] = Stage(waiting[number].pop(0), shown=len(lanes) == 1)
            time.sleep(0.1)
    except BaseException:
        for stage in running:
            if stage is not None:
                stage.end()
        raise
    return found


def main(wanted: list[str]) -> int:
    """Run the wanted stages one after the other (default: all, in lanes) and print the sum."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    REPORTS.mkdir(parents=True, exist_ok=True)
    found = run_side_by_side(wanted) if wanted else run_side_by_side(*LANES) | run_side_by_side(ALONE)
    total = sum(found.values(), Counts())
    bad = [stage for stage, counts in found.items() if counts.failed]
    if bad:
        print("failed: " + " ".join(bad))
    if total.skipped:
        print(f"{total.skipped} skipped")
    print(f"{total.passed} passed, {total.failed} failed", flush=True)
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
