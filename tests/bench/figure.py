# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every measure shares: a figure with its goal, and medians."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import Any, Dict, Sequence

__all__ = ["Figure", "median"]


@dataclass(frozen=True)
class Figure:
    """One line of build/bench.json; it holds when ``value <= goal``."""

    name: str
    value: float
    unit: str
    goal: float

    def to_dict(self) -> Dict[str, Any]:
        return {**asdict(self), "holds": self.value <= self.goal}


def median(values: Sequence[float]) -> float:
    """The median, rounded to three digits after the point."""
    return round(statistics.median(values), 3)
