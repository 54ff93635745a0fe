# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every measure shares: a figure with its goal, and medians."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any, Dict, Optional, Sequence, Union

__all__ = ["Figure", "median"]


@dataclass(frozen=True)
class Figure:
    """One line of build/bench.json; it holds when ``value <= goal``, or ``>=`` with ``at_least``.

    Without a goal it is told, not judged; then it may be a text.
    """

    name: str
    value: Union[float, str]
    unit: str
    goal: Optional[float] = None
    at_least: bool = False

    @property
    def holds(self) -> Optional[bool]:
        if self.goal is None or isinstance(self.value, str):
            return None
        return self.value >= self.goal if self.at_least else self.value <= self.goal

    def to_dict(self) -> Dict[str, Any]:
        shown = {"name": self.name, "value": self.value, "unit": self.unit, "goal": self.goal}
        return {**shown, "holds": self.holds}

    def to_line(self) -> str:
        goal = f"goal {'>=' if self.at_least else '<='} {self.goal:<8} {'holds' if self.holds else 'MISSED'}"
        return f"{self.name:24} {self.value:>12} {self.unit:12} {'' if self.goal is None else goal}".rstrip()


def median(values: Sequence[float]) -> float:
    """The median, rounded to three digits after the point."""
    return round(statistics.median(values), 3)
