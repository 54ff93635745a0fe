# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pacing: the mean rate holds, the meter tells the target's speed, the target's queue stays small."""

from __future__ import annotations

from collections import deque
from typing import Deque, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.crosscluster.migration.plugins.module_utils.qemu.mirror import buffer_size
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.pacing import (
    COUNTS_FROM,
    UNMEASURED_RATE,
    Measure,
    Meter,
    TokenBucket,
    combine,
    stream_rate,
)

MIB = 1024 * 1024
FRAME = 114674


def sent_in(bucket: TokenBucket, seconds: float, wake: float = 0.001) -> int:
    """Bytes a greedy stream sends when it wakes every ``wake`` seconds."""
    total, now, end = 0, 0.0, seconds
    while now < end:
        while bucket.wait(now) <= 0:
            bucket.take(FRAME, now)
            total += FRAME
        now += max(wake, bucket.wait(now))
    return total


@pytest.mark.parametrize("rate", [MIB, 20_000_000, 100_000_000, 400_000_000, 2_000_000_000])
def test_mean_rate_holds_within_five_percent_over_five_seconds(rate):
    assert sent_in(TokenBucket(rate, 0.0), 5.0) == pytest.approx(rate * 5, rel=0.05)


@given(st.integers(1, 10**9), st.lists(st.tuples(st.integers(1, FRAME), st.floats(0, 0.5)), max_size=50))
def test_bucket_never_gives_more_than_rate_plus_one_burst(rate, wishes):
    bucket, now, total = TokenBucket(rate, 0.0), 0.0, 0
    for size, pause in wishes:
        now += pause
        if bucket.wait(now) <= 0:
            bucket.take(size, now)
            total += size
    assert total <= rate * now + max(rate * 0.02, 128 * 1024) + FRAME


def test_bucket_without_rate_never_waits():
    bucket = TokenBucket(None, 0.0)
    bucket.take(10**12, 0.0)
    assert bucket.wait(0.0) == 0.0


def test_another_rate_counts_from_now_on_and_keeps_the_debt():
    bucket = TokenBucket(1000, 0.0)
    bucket.take(10_000, 0.0)
    bucket.set_rate(10_000, 0.0)
    assert bucket.wait(0.0) == pytest.approx(1.0)
    bucket.set_rate(None, 0.0)
    assert bucket.wait(0.0) == 0.0


class Drain:
    """A target that takes ``rate`` bytes/s from a queue that never pushes back."""

    def __init__(self, rate: float) -> None:
        self.rate, self.queue, self.peak = rate, 0.0, 0.0

    def add(self, size: int) -> None:
        self.queue += size
        self.peak = max(self.peak, self.queue)

    def run(self, seconds: float) -> None:
        self.queue = max(0.0, self.queue - self.rate * seconds)


def mirror(drain: Drain, size: int, buffer: int, meter: Meter, now: float, write: int = MIB) -> float:
    """Copy ``size`` bytes with at most ``buffer`` in flight; returns the time it ended."""
    waiting: Deque[Tuple[float, int]] = deque()
    sent = acknowledged = arrived = 0
    while acknowledged < size:
        while sent < size and sent - acknowledged + write <= buffer:
            drain.add(write)
            sent += write
            waiting.append((sent, write))
        meter.update(acknowledged, sent - acknowledged, now)
        drain.run(0.001)
        now += 0.001
        arrived = sent - drain.queue
        while waiting and waiting[0][0] <= arrived + 1:
            acknowledged += waiting.popleft()[1]
        meter.update(acknowledged, sent - acknowledged, now)
    return now


@pytest.mark.parametrize("rate", [20_000_000, 100_000_000, 400_000_000])
def test_meter_tells_how_fast_the_target_drains(rate):
    meter = Meter(0.0)
    size = 3 * rate // MIB * MIB
    mirror(Drain(rate), size, 4 * MIB, meter, 0.0)
    assert meter.measure.acknowledged == size
    assert meter.measure.rate == pytest.approx(rate, rel=0.05)


@pytest.mark.parametrize("rate", [20_000_000, 100_000_000, 400_000_000])
@pytest.mark.parametrize("disk", [64 * MIB, 512 * MIB], ids=["64-mib", "512-mib"])
def test_queue_of_the_target_stays_below_16_mib(rate, disk):
    """A target without back-pressure, first a disk, then RAM at the rate that follows from it."""
    drain, meter = Drain(rate), Meter(0.0)
    now = mirror(drain, disk, buffer_size(1), meter, 0.0)
    ram = stream_rate(None, None, meter.measure)
    assert ram <= rate
    bucket, end = TokenBucket(ram, now), now + 10.0
    while now < end:
        while bucket.wait(now) <= 0:
            bucket.take(FRAME, now)
            drain.add(FRAME)
        drain.run(0.001)
        now += 0.001
    assert drain.peak <= 16 * MIB


class Buffered(Drain):
    """A target that catches up what it could have taken in the last 50 ms."""

    credit = 0.0

    def run(self, seconds: float) -> None:
        able = self.rate * seconds + self.credit
        taken = min(self.queue, able)
        self.queue -= taken
        self.credit = min(able - taken, self.rate * 0.05)


@pytest.mark.parametrize("rate", [20_000_000, 100_000_000, 400_000_000])
@pytest.mark.parametrize("stopped", [0.02, 0.1], ids=["20-ms", "100-ms"])
def test_source_that_stops_and_starts_does_not_make_the_target_look_fast(rate, stopped):
    """A busy node: the source runs for a moment, then waits for the processor while nothing is in flight."""
    drain, meter, now = Buffered(rate), Meter(0.0), 0.0
    size = acknowledged = 0
    while size < 96 * MIB:
        size += 4 * MIB
        drain.add(4 * MIB)
        while acknowledged < size:
            meter.update(acknowledged, size - acknowledged, now)
            drain.run(0.001)
            now += 0.001
            acknowledged = size - int(drain.queue)
        meter.update(acknowledged, 0, now)
        drain.run(stopped)
        now += stopped
    assert 0 < stream_rate(None, None, meter.measure) <= rate


def test_target_that_became_slower_is_told_as_it_is():
    meter, drain = Meter(0.0), Drain(200_000_000)
    now = mirror(drain, 600 * MIB, 4 * MIB, meter, 0.0)
    fast = meter.measure
    drain.rate = 50_000_000
    at = 0
    while at < 160 * MIB:
        at += MIB // 20
        now += (MIB // 20) / drain.rate
        meter.update(fast.acknowledged + at, 4 * MIB, now)
    assert fast.rate == pytest.approx(200_000_000, rel=0.05)
    assert meter.measure.rate == pytest.approx(50_000_000, rel=0.05)


def test_quiet_guest_does_not_spoil_the_measure():
    meter = Meter(0.0)
    now = mirror(Drain(100_000_000), 128 * MIB, 4 * MIB, meter, 0.0)
    before = meter.measure.rate
    for _write in range(1000):  # 4 KiB, answered after 10 ms: 0.4 MB/s
        meter.update(meter.measure.acknowledged, 4096, now)
        now += 0.01
        meter.update(meter.measure.acknowledged + 4096, 0, now)
    assert meter.measure.rate == before


def test_idle_time_is_not_counted():
    meter = Meter(0.0)
    meter.update(0, 1000, 10.0)
    meter.update(1000, 0, 11.0)
    meter.update(1000, 0, 500.0)
    assert (meter.measure.busy_s, meter.measure.rate) == (1.0, 1000)


def test_rate_without_a_measure_is_cautious():
    assert stream_rate(None, None, None) == UNMEASURED_RATE
    assert stream_rate(None, None, Measure(COUNTS_FROM - 1, 1.0, 10**9)) == UNMEASURED_RATE


def test_word_of_the_user_replaces_the_cautious_rate():
    assert stream_rate(200 * MIB, None, None) == 200 * MIB


@given(
    st.none() | st.integers(1, 10**10),
    st.none() | st.integers(1, 10**10),
    st.none() | st.builds(Measure, st.integers(0, 10**10), st.just(1.0), st.integers(0, 10**10)),
    st.integers(0, 10**10),
)
def test_rate_is_never_above_any_known_limit(user, target, measure, others):
    rate = stream_rate(user, target, measure, others=others)
    assert rate >= 1
    assert user is None or rate <= user
    assert target is None or rate <= target
    if measure is not None and measure.acknowledged >= COUNTS_FROM and measure.rate > 0:
        assert rate <= max(1, measure.rate * 0.9)


def test_streams_that_share_the_target_are_left_room():
    measure = Measure(COUNTS_FROM, 1.0, 100_000_000)
    assert stream_rate(None, None, measure, others=20_000_000) == 70_000_000
    assert stream_rate(None, None, measure, others=10**9) == 9_000_000


def test_small_disks_count_together():
    measures = [Measure(32 * MIB, 0.32, 100 * MIB), Measure(32 * MIB, 0.32, 100 * MIB)]
    assert combine(measures) == Measure(64 * MIB, 0.64, 100 * MIB)
    assert combine([]) == Measure()


def test_long_measure_outweighs_short_ones():
    assert combine([Measure(100 * MIB, 2.0, 80 * MIB), Measure(MIB, 10.0, MIB // 10)]) == Measure(
        101 * MIB, 12.0, 80 * MIB
    )
