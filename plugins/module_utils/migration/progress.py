# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""How far a migration is: a snapshot for the control socket, and the one line a person reads.

All sizes in bytes, rates in bytes/s, times in seconds unless the name says ms. The worker computes; faces print.
"""

from __future__ import annotations

import math
import threading
from typing import Any, Dict, List, Mapping, Optional, Tuple

__all__ = ["Progress", "line"]

LINE_LIMIT = 120  # characters; ansible-tooling 5: one line, no cursor codes


class Progress:
    """The numbers of the running migration; ``version`` rises with every phase change."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._values: Dict[str, Any] = {}
        self._samples: List[Tuple[float, int]] = []
        self.version = 0

    def update(self, **values: Any) -> None:
        """Merge new values into the snapshot."""
        with self._condition:
            self._values.update(values)

    def announce(self, **values: Any) -> None:
        """Merge new values and wake everybody who waits: a phase changed or the migration ended."""
        with self._condition:
            self._values.update(values)
            self.version += 1
            self._condition.notify_all()

    def moved(self, now: float, transferred: int, total: int, **values: Any) -> None:
        """New byte counts: rate over the last 10 s, percent and ETA follow."""
        with self._condition:
            self._samples = [s for s in self._samples if now - s[0] <= 10.0 and s[1] <= transferred]
            self._samples.append((now, transferred))
            first = self._samples[0]
            rate = int((transferred - first[1]) / (now - first[0])) if now > first[0] else 0
            remaining = max(0, total - transferred)
            self._values.update(
                values,
                bytes_transferred=transferred,
                bytes_total=total,
                bytes_remaining=remaining,
                rate=rate,
                percent=min(100, int(100 * transferred / total)) if total else 100,
                eta_s=math.ceil(remaining / rate) if rate else None if remaining else 0,
            )

    def snapshot(self) -> Dict[str, Any]:
        """A copy of the values, with ``version``."""
        with self._condition:
            return dict(self._values, version=self.version)

    def wait(self, version: int, timeout: float) -> Dict[str, Any]:
        """The snapshot as soon as its version is above ``version``, at the latest after ``timeout`` seconds."""
        with self._condition:
            self._condition.wait_for(lambda: self.version > version, timeout)
            return dict(self._values, version=self.version)


def _size(value: Optional[float]) -> str:
    if value is None:
        return "?"
    amount = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def _duration(seconds: Optional[int]) -> str:
    if seconds is None:
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


def line(name: str, host: str, status: Mapping[str, Any]) -> str:
    """One line of progress: VM, node, phase, transport, percent, bytes, rate, what is left, ETA, dirty rate."""
    text = f"{name} on {host}: {status.get('phase', '?')}"
    if status.get("transport"):
        text += f" over {status['transport']}"
    if status.get("bytes_total"):
        text += (
            f" {status.get('percent', 0)}% {_size(status.get('bytes_transferred'))}/{_size(status['bytes_total'])}"
            f" {_size(status.get('rate'))}/s, left {_size(status.get('bytes_remaining'))}"
            f", ETA {_duration(status.get('eta_s'))}"
        )
    if status.get("dirty_rate") is not None:
        text += f", dirty {_size(status['dirty_rate'])}/s"
    return text if len(text) <= LINE_LIMIT else text[: LINE_LIMIT - 1] + "~"
