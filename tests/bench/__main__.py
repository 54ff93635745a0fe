# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m bench``: measures against the goals, writes build/bench.json.

A measure is a module of this package with ``measure() -> list[Figure]``; its name goes into MEASURES.
``python -m bench tunnel`` runs only those named and keeps the other figures of the file.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any, Dict, List

from .figure import Figure

MEASURES = ("tunnel", "moves")
RESULT = Path(__file__).resolve().parents[2] / "build" / "bench.json"


def merge(before: List[Dict[str, Any]], figures: List[Figure]) -> List[Dict[str, Any]]:
    """The new figures, and of the old ones those that were not measured again."""
    fresh = [figure.to_dict() for figure in figures]
    names = {entry["name"] for entry in fresh}
    return [entry for entry in before if entry["name"] not in names] + fresh


def main(names: List[str]) -> int:
    figures: List[Figure] = []
    for name in names or MEASURES:
        print(f"{name}:")
        figures.extend(importlib.import_module(f"bench.{name}").measure())
    before = json.loads(RESULT.read_text()) if names and RESULT.exists() else []
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(merge(before, figures), indent=2) + "\n")
    for figure in figures:
        print(figure.to_line())
    return 1 if any(figure.holds is False for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
