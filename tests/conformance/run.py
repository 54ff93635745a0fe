#!/usr/bin/env python3
# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replays a directory of recorded conversations against the lab.

    python tests/conformance/run.py [--captures DIR] [--slow] [--table FILE] [NAME ...]

Ends with "N passed, N failed"; every file of the directory and below it is counted.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import List

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from conformance.replay import Outcome, replay  # noqa: E402
from conformance.world import clear_debris  # noqa: E402

SHOWN = 6


def files(directory: Path, names: List[str]) -> List[Path]:
    """Every recording at or below the directory; none at all is an error, not a success."""
    found = sorted(directory.rglob("*.jsonl"))
    if not found:
        raise SystemExit(f"no recordings (*.jsonl) in {directory}")
    if names:
        wanted = {name[: -len(".jsonl")] if name.endswith(".jsonl") else name for name in names}
        found = [path for path in found if path.stem in wanted]
        missing = wanted - {path.stem for path in found}
        if missing:
            raise SystemExit(f"no recording {', '.join(sorted(missing))} in {directory}")
    return found


def show(outcome: Outcome, full: bool) -> None:
    excused = f", {len(outcome.excused)} known deviations" if outcome.excused else ""
    verdict = "ok    " if outcome.passed else "FAILED"
    print(f"{verdict} {outcome.name} ({outcome.personality}, {outcome.elapsed:.1f} s{excused})", flush=True)
    shown = outcome.mismatches if full else outcome.mismatches[:SHOWN]
    for mismatch in shown:
        print("    " + str(mismatch).replace("\n", "\n    "), flush=True)
    if len(outcome.mismatches) > len(shown):
        print(f"    ... {len(outcome.mismatches) - len(shown)} more", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--captures", type=Path, default=HERE / "captures")
    parser.add_argument("--slow", action="store_true", help="waits over 60 s in real time")
    parser.add_argument("--table", type=Path, help="write the results as JSON")
    parser.add_argument("--full", action="store_true", help="show every deviation")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    clear_debris()
    outcomes = []
    for path in files(options.captures, options.names):
        outcomes.append(replay(path, options.slow))
        show(outcomes[-1], options.full)
    if options.table:
        options.table.parent.mkdir(parents=True, exist_ok=True)
        options.table.write_text(
            json.dumps(
                [
                    {
                        "file": each.name,
                        "personality": each.personality,
                        "passed": each.passed,
                        "seconds": round(each.elapsed, 1),
                        "mismatches": [str(mismatch) for mismatch in each.mismatches],
                        "deviations": [{"where": str(mismatch), "reason": reason} for mismatch, reason in each.excused],
                    }
                    for each in outcomes
                ],
                indent=1,
            )
            + "\n",
            encoding="utf-8",
        )
    passed = sum(each.passed for each in outcomes)
    print(f"{passed} passed, {len(outcomes) - passed} failed")
    return 0 if passed == len(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
