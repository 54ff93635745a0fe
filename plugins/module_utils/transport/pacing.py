# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""How fast a stream may go: a token bucket, a meter of acknowledged bytes, and the rule that joins them.

pveproxy applies no back-pressure (mtunnel-protocol 3.6): what is sent faster than the target drains it piles
up in its memory. Only NBD tells what has arrived, so its measured rate bounds the streams that tell nothing.
Sans-I/O; clock values come in.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Deque, Iterable, Optional, Tuple

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
ALWAYS = 0.9  # of a span in that state is as good as all of it
MARK_SECONDS = 0.1  # between two possible beginnings of a span
SPAN_SECONDS = 2.0  # what buffers swallow at once is little beside what a target takes in so long
FIRST_SECONDS = 1.0  # a shorter beginning counts as that long
TELLING_FROM = 8 * MIB  # bytes of a stream that show a rate: a disk of a megabyte is all latency
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
    rate: int = 0  # bytes/s, of the best span (:class:`Meter`)


class Meter:
    """Measures the rate at which written bytes are acknowledged, from one stream's totals.

    Only a span of wall clock tells: on a busy node the source stops and starts, what the target's buffers swallow
    after each stop comes back at once, and the time in which something was in flight alone shows several times
    the target's speed. Any span shows at most that speed, so the best one counts; one in which the target always
    had work is its speed, be it lower than before. A quiet guest's trickle changes nothing.
    """

    def __init__(self, now: float) -> None:
        self._at = now
        self._acknowledged = 0
        self._in_flight = 0
        self._busy = 0.0
        self._saturated = 0.0
        self._rate = 0.0
        self._marks: Deque[Tuple[float, int, float]] = deque()  # time, acknowledged, saturated seconds

    def update(self, acknowledged: int, in_flight: int, now: float) -> None:
        """The totals as they stand at ``now``."""
        if self._in_flight > 0:
            self._busy += now - self._at
            if self._in_flight >= SATURATED:
                self._saturated += now - self._at
        self._at, self._acknowledged, self._in_flight = now, acknowledged, in_flight
        if not self._marks:
            if in_flight > 0:
                self._mark()
            return
        due = now - self._marks[-1][0] >= MARK_SECONDS
        if due or not in_flight:
            self._rate = self._look()
        if due:
            self._mark()

    def _mark(self) -> None:
        marks = self._marks
        marks.append((self._at, self._acknowledged, self._saturated))
        while len(marks) > 1 and self._at - marks[1][0] >= SPAN_SECONDS:
            marks.popleft()

    def _look(self) -> float:
        """The rate with the span that ends now."""
        if not self._marks:
            return 0.0
        since, acknowledged, saturated = self._marks[0]
        span = self._at - since
        rate = (self._acknowledged - acknowledged) / max(span, FIRST_SECONDS)
        if span >= SPAN_SECONDS and self._saturated - saturated >= ALWAYS * span:
            return rate
        return max(rate, self._rate)

    @property
    def measure(self) -> Measure:
        """What is known so far."""
        return Measure(self._acknowledged, self._busy, int(self._look()))


def combine(measures: Iterable[Measure]) -> Measure:
    """Several streams as one, cautiously: mirrors that ran at the same time count as if one after another.

    The rate comes from those that carried enough to show one: a disk of a megabyte is all latency.
    """
    known = [measure for measure in measures if measure.rate > 0]
    telling = [measure for measure in known if measure.acknowledged >= TELLING_FROM] or known
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
