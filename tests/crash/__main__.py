# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make crash`: every case with and without root on the target; goes on where an earlier run stopped.

    python -m crash [--fresh] [--only WORD ...] [--list]

Results are in build/crash.json. A case that ended well is not run again as long as the product is the same; --fresh
runs all. Ends with "N passed, N failed".
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import signal
import sys
import tempfile
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from e2e.controller import ROOT, Controller
from e2e.direct import certify

from lab.instance import Lab

from .catalogue import CERTIFIED, Case, cases
from .run import Trial

RESULTS = ROOT / "build" / "crash.json"
DIGEST = ROOT / "build" / "crash.digest"


def product_digest() -> str:
    """What the results are true of: every file of the product."""
    digest = hashlib.sha256()
    for place in ("plugins", "roles", "playbooks", "tests/lab", "tests/crash"):
        for path in sorted((ROOT / place).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def known_rows(fresh: bool) -> list[dict[str, Any]]:
    """Rows of an earlier run of the same product that ended well."""
    same = DIGEST.exists() and DIGEST.read_text(encoding="ascii").strip() == product_digest()
    if fresh or not same or not RESULTS.exists():
        return []
    return [row for row in json.loads(RESULTS.read_text(encoding="utf-8")) if row["ok"]]


def write(rows: list[dict[str, Any]]) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    new = RESULTS.with_suffix(".new")
    new.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    new.replace(RESULTS)
    DIGEST.write_text(product_digest() + "\n", encoding="ascii")


def wanted(words: list[str]) -> list[tuple[Case, bool]]:
    chosen = [case for case in cases() if not words or any(word in case.name for word in words)]
    return [(case, target_root) for case in chosen for target_root in case.modes]


def _lab() -> contextlib.AbstractContextManager[Lab]:
    """A lab of its own, or the one that LAB_INSTANCE names and that stays up."""
    kept = os.environ.get("LAB_INSTANCE")
    return contextlib.nullcontext(Lab.attach(int(kept))) if kept else Lab.up()


class Round:
    """The cases that are left to be run and the rows of those that were, shared by the lanes."""

    def __init__(self, todo: list[tuple[Case, bool]], rows: list[dict[str, Any]]) -> None:
        self._left, self._count = deque(todo), len(todo)
        self._certified = any(case.transport in CERTIFIED for case, _target_root in todo)
        self._rows = rows
        self._lock = threading.Lock()

    def run(self) -> None:
        """Two lanes, each with a lab of its own: a case waits more than it computes. Ends after the cases that run."""
        lanes = 1 if os.environ.get("LAB_INSTANCE") else 2
        with ThreadPoolExecutor(lanes) as pool:
            try:
                for lane in [pool.submit(self._lane) for _ in range(lanes)]:
                    lane.result()
            finally:
                self._left.clear()

    def _lane(self) -> None:
        with _lab() as lab, tempfile.TemporaryDirectory(prefix="crash-") as directory:
            controller = Controller(lab, Path(directory))
            if self._certified:
                certify(controller)
            while (chosen := self._next()) is not None:
                self._take(Trial(lab, controller, *chosen).run().row())

    def _next(self) -> tuple[Case, bool] | None:
        with self._lock:
            return self._left.popleft() if self._left else None

    def _take(self, row: dict[str, Any]) -> None:
        """The results are on disk after each case."""
        with self._lock:
            self._rows.append(row)
            write(self._rows)
            self._count -= 1
            mark = "ok" if row["ok"] else "FAILED"
            rooted = "with" if row["target_root"] else "without"
            got = row["got"].partition("\n")[0]
            text = f"{row['case']} {rooted} root: expected {row['expected']}, got {got} ({row['seconds']} s)"
            print(f"{mark} {text}, {self._count} left", flush=True)


def _end(*_signal: Any) -> None:
    """The cases that run come to their end and the labs are taken down; once is enough to ask for it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(143)


def main() -> int:
    parser = argparse.ArgumentParser(prog="crash", description=__doc__.splitlines()[0])
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--list", action="store_true")
    given = parser.parse_args()
    todo = wanted(given.only)
    if given.list:
        print("\n".join(dict.fromkeys(case.name for case, _target_root in todo)))
        return 0
    signal.signal(signal.SIGTERM, _end)
    rows = known_rows(given.fresh)
    done = {(row["case"], row["target_root"]) for row in rows}
    open_cases = [(case, target_root) for case, target_root in todo if (case.name, target_root) not in done]
    if open_cases:
        Round(open_cases, rows).run()
    failed = sum(1 for row in rows if not row["ok"])
    print(f"{len(rows) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
