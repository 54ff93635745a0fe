# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""How fast a stream may go: a token bucket, a meter of acknowledged bytes, and the rule that joins them.

pveproxy applies no back-pressure (mtunnel-protocol 3.6): what is sent faster than the target drains it piles
up in its memory. Only NBD tells what has arrived, so its measured rate bounds the streams that tell nothing.
Sans-I/O; clock values come in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Optional

__all__ = [
    "COUNTS_FROM",
    "UNMEASURED_RATE",
    "Measure",
    "Meter",
    "TokenBucket",
    "combine",
    "stream_rate",
]

MIB = 1024 * 1024
COUNTS_FROM = 64 * MIB  # acknowledged bytes before a measured rate means anything
UNMEASURED_RATE = 50 * MIB  # bytes/s without a measure and without a word of the user
SATURATED = 512 * 1024  # bytes in flight from which the target, not the source, sets the pace
SATURATED_FROM = 8 * MIB  # bytes acknowledged in that state before they stand for the whole
SHARE = 0.9  # of the acknowledged rate: a queue that never drains would only grow
BURST_SECONDS = 0.02  # what may be caught up after a late wake-up; poll() counts in milliseconds
MIN_BURST = 128 * 1024  # bytes; one frame


class TokenBucket:
    """Bounds the mean rate of a stream; a frame may overdraw the account once.

    Args:
        rate: bytes/s, None is no limit.
        now: Clock value, seconds.
    """

    def __init__(self, rate: Optional[int], now: float) -> None:
        self.rate: Optional[int] = None
        self._balance = 0.0
        self._at = now
        self.set_rate(rate, now)

    def set_rate(self, rate: Optional[int], now: float) -> None:
        """Another rate from now on; a debt is kept, so that changing often gains nothing."""
        self._settle(now)
        self.rate = None if rate is None else max(1, rate)

    def take(self, size: int, now: float) -> None:
        """``size`` bytes went out."""
        if self.rate is not None:
            self._settle(now)
            self._balance -= size

    def wait(self, now: float) -> float:
        """Seconds until the next bytes may go out; 0.0 when they may now."""
        if self.rate is None:
            return 0.0
        self._settle(now)
        return 0.0 if self._balance >= 0 else -self._balance / self.rate

    def _settle(self, now: float) -> None:
        rate = self.rate
        if rate is None:
            self._balance = 0.0
        else:
            limit = max(rate * BURST_SECONDS, MIN_BURST)
            self._balance = min(limit, self._balance + max(0.0, now - self._at) * rate)
        self._at = now


@dataclass(frozen=True)
class Measure:
    """What one or several NBD streams were acknowledged."""

    acknowledged: int = 0  # bytes
    busy_s: float = 0.0  # seconds in which written bytes were waiting for an answer
    rate: int = 0  # bytes/s, over the time in which the target was kept busy


class Meter:
    """Measures the rate at which written bytes are acknowledged while the target is kept busy.

    A mirror that follows a quiet guest sends little and proves nothing about the target's speed, and a source
    that reads slowly proves too little. So only the time counts in which at least half a mebibyte was waiting
    for an answer; without any such time it is the time in which anything was.
    """

    def __init__(self, now: float) -> None:
        self._at = now
        self._acknowledged = 0
        self._in_flight = 0
        self._busy = 0.0
        self._saturated_busy = 0.0
        self._saturated_bytes = 0

    def update(self, acknowledged: int, in_flight: int, now: float) -> None:
        """The totals as they stand at ``now``."""
        if self._in_flight > 0:
            self._busy += now - self._at
        if self._in_flight >= SATURATED:
            self._saturated_busy += now - self._at
            self._saturated_bytes += acknowledged - self._acknowledged
        self._at, self._acknowledged, self._in_flight = now, acknowledged, in_flight

    @property
    def measure(self) -> Measure:
        """What is known so far."""
        if self._saturated_bytes >= SATURATED_FROM and self._saturated_busy > 0:
            rate = self._saturated_bytes / self._saturated_busy
        else:
            rate = self._acknowledged / self._busy if self._busy > 0 else 0.0
        return Measure(self._acknowledged, self._busy, int(rate))


def combine(measures: Iterable[Measure]) -> Measure:
    """Several streams as one, cautiously: mirrors that ran at the same time count as if one after another.

    The rate comes from those that carried enough to show one: a disk of a megabyte is all latency.
    """
    known = [measure for measure in measures if measure.rate > 0]
    telling = [measure for measure in known if measure.acknowledged >= SATURATED_FROM] or known
    seconds = sum(measure.acknowledged / measure.rate for measure in telling)
    rate = int(sum(measure.acknowledged for measure in telling) / seconds) if seconds > 0 else 0
    total = sum(measure.acknowledged for measure in known)
    return Measure(total, sum(measure.busy_s for measure in known), rate)


def stream_rate(
    user_limit: Optional[int], target_limit: Optional[int], measure: Optional[Measure], *, others: int = 0
) -> int:
    """bytes/s for a stream that nothing acknowledges (RAM, import).

    Args:
        user_limit: ``limits.bandwidth``.
        target_limit: The ``bwlimit`` reply.
        measure: What the NBD mirrors of this migration were acknowledged; None without any.
        others: bytes/s that NBD streams take at the same moment; they share the target's worker.
    """
    limits = [limit for limit in (user_limit, target_limit) if limit is not None]
    if measure is not None and measure.acknowledged >= COUNTS_FROM and measure.rate > 0:
        measured = measure.rate * SHARE
        limits.append(max(int(measured - others), int(measured / 10)))
    elif user_limit is None:
        limits.append(UNMEASURED_RATE)
    return max(1, min(limits))
