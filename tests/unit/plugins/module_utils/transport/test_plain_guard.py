# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a clear-text stream is cut: by what the target's kernel took, by answers, by the deadline."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.crosscluster.migration.plugins.module_utils.transport.interface import EndReason
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.plain_guard import STALL, PlainGuard


def ticks(guard, start, end, acknowledged, waiting):
    """The first verdict in that time, looked at ten times a second, and when."""
    for tenth in range(int(start * 10), int(end * 10) + 1):
        now = tenth / 10
        guard.took(acknowledged, waiting, now)
        reason = guard.verdict(now)
        if reason is not None:
            return reason, now
    return None, end


def test_ram_without_progress_is_cut_after_ten_seconds():
    guard = PlainGuard(awaits_greeting=False, now=0.0)
    assert ticks(guard, 0, 5, 100, 0) == (None, 5)
    reason, when = ticks(guard, 5, 30, 100, 7)
    assert (reason, round(when - 5)) == (EndReason.PEER_STALLED, STALL)


def test_any_progress_begins_anew():
    guard = PlainGuard(awaits_greeting=False, now=0.0)
    for round_ in range(5):
        assert ticks(guard, round_ * 9, round_ * 9 + 9, round_, 7)[0] is None


@given(st.lists(st.booleans(), max_size=60))
def test_nothing_in_flight_is_never_a_stall(marks):
    """A switchover or write-blocking mirror that waits for nothing must not be cut for silence."""
    guard = PlainGuard(awaits_greeting=False, now=0.0)
    guard.set_write_blocking(0.0)
    for second, armed in enumerate(marks):
        if armed:
            guard.arm(float(second), 1000.0)
        guard.took(5, 0, float(second))
        assert guard.verdict(float(second)) is None


def test_slow_disk_is_no_stall_but_a_write_waits_three_seconds_at_most():
    guard = PlainGuard(awaits_greeting=True, now=0.0)
    guard.greeted()
    assert ticks(guard, 0, 30, 1, 1 << 20)[0] is None
    guard.set_write_blocking(30.0)
    for tenth in range(300, 400):
        reason = guard.verdict(tenth / 10, oldest=29.0)
        if reason is not None:
            break
    assert (reason, tenth / 10) == (EndReason.ANSWER_MISSING, 33.0)


def test_greeting_and_switchover_have_their_deadlines():
    guard = PlainGuard(awaits_greeting=True, now=0.0)
    assert (guard.verdict(0.5), guard.verdict(1.0)) == (None, EndReason.GREETING_MISSING)
    guard = PlainGuard(awaits_greeting=False, now=0.0)
    guard.arm(1.0, 10.0)
    assert (guard.verdict(10.9), guard.verdict(11.0)) == (None, EndReason.SWITCHOVER_DEADLINE)
