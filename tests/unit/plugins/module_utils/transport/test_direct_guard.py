# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The timers of a direct transport: every bound of the design holds, and a living stream is never cut."""

from __future__ import annotations

from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.crosscluster.migration.plugins.module_utils.transport.direct_guard import (
    _BOUNDS,
    DirectGuard,
    DirectLimits,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.errors import SettingsInvalid
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.interface import EndReason, Kind

TICK = 0.1


class Simulation:
    """A pump's loop in simulated time; the other worker beats until ``silent_from``, its QEMU reads what it may.

    Attributes:
        reads: Whether the other QEMU reads what comes.
    """

    def __init__(
        self, kind: Optional[Kind] = Kind.RAM, *, silent_from: float = 1e9, opaque: bool = False, **limits: float
    ) -> None:
        self.now = 100.0
        self.limits = DirectLimits.parse(limits)
        self.guard = DirectGuard(self.limits, self.now, kind=kind, opaque=opaque)
        self.silent_from = silent_from
        self.reads = True
        self.total = self.read = 0
        self.oldest: Optional[float] = None
        self.negotiating: Optional[float] = None
        self.beats = 0
        self._heard = self.now

    def step(self, sends: int = 0) -> Optional[EndReason]:
        self.now += TICK
        if self.now < self.silent_from and self.now - self._heard >= self.limits.beat:
            self._heard = self.now
            self.read = self.total if self.reads else self.read
            self.guard.heard(self.now)
            self.guard.consumed(self.read, self.now)
        self.total += sends
        self.guard.sent(self.total, self.now)
        if self.guard.beat_due(self.now):
            self.beats += 1
            self.guard.beat_sent(self.now)
        return self.guard.verdict(self.now, oldest=self.oldest, negotiating=self.negotiating)

    def run(self, seconds: float, sends: int = 0) -> Optional[EndReason]:
        end = self.now + seconds
        while self.now < end:
            verdict = self.step(sends)
            if verdict is not None:
                return verdict
        return None


@pytest.mark.parametrize("sends", [0, 1000])
def test_beats_go_out_every_half_second_also_under_traffic(sends):
    simulation = Simulation()
    simulation.run(10, sends)
    assert 16 <= simulation.beats <= 21


@given(st.floats(100.0, 130.0), st.sampled_from([*Kind, None]), st.integers(0, 1))
def test_silent_network_cuts_any_stream_after_the_deadman(silent_from, kind, sends):
    simulation = Simulation(kind, silent_from=silent_from)
    assert simulation.run(60, sends) is EndReason.PEER_SILENT
    assert simulation.now - silent_from <= 2.0 + 2 * TICK


@given(
    st.sampled_from([*Kind, None]), st.booleans(), st.floats(1.0, 10.0), st.floats(0.1, 0.5),
    st.lists(st.integers(0, 10**6), max_size=300),
)  # fmt: skip
def test_living_stream_is_never_cut_whatever_is_sent(kind, opaque, deadman, beat, sends):
    """The other side beats, reads and answers: nothing is ever a reason."""
    simulation = Simulation(kind, opaque=opaque, deadman=deadman, beat=beat)
    for sent in sends:
        assert simulation.step(sent) is None
        simulation.guard.answered(simulation.now)


def test_target_that_stops_reading_ram_stalls_after_ten_seconds():
    simulation = Simulation()
    simulation.run(5, sends=1000)
    simulation.reads = False
    stopped = simulation.now
    assert simulation.run(60, sends=1000) is EndReason.PEER_STALLED
    assert 9.5 <= simulation.now - stopped <= 10.7


def test_idle_stream_does_not_stall():
    simulation = Simulation()
    simulation.run(5, sends=1000)
    simulation.run(1)
    simulation.reads = False
    assert simulation.run(60) is None


@pytest.mark.parametrize("kind", [Kind.IMPORT, Kind.CONTROL, None])
def test_only_ram_stalls(kind):
    """An importer may write to slow storage for minutes, a supervisor may work; the worker knows how long."""
    simulation = Simulation(kind)
    simulation.reads = False
    assert simulation.run(60, sends=1000) is None


def test_open_and_greeting_have_a_second_each():
    simulation = Simulation(Kind.NBD)
    simulation.guard.opening(simulation.now)
    simulation.run(0.8)
    simulation.guard.opening(simulation.now)  # OPENED has come
    assert simulation.run(60) is EndReason.GREETING_MISSING
    assert 101.8 <= simulation.now <= 102.0


def test_greeting_in_time_ends_the_wait():
    simulation = Simulation(Kind.NBD)
    simulation.guard.opening(simulation.now)
    simulation.run(0.8)
    simulation.guard.opened()
    assert simulation.run(60) is None


def test_negotiation_is_answered_in_three_seconds():
    """QEMU negotiates in its main loop: the guest may stand still."""
    simulation = Simulation(Kind.NBD)
    simulation.negotiating = simulation.now
    assert simulation.run(60) is EndReason.ANSWER_MISSING
    assert simulation.now <= 103.2


def test_guest_writes_are_answered_in_three_seconds():
    simulation = Simulation(Kind.NBD)
    simulation.guard.set_write_blocking(simulation.now)
    simulation.oldest = simulation.now
    assert simulation.run(60) is EndReason.ANSWER_MISSING
    assert 102.9 <= simulation.now <= 103.2


def test_request_from_before_write_blocking_gets_its_three_seconds_from_then_on():
    simulation = Simulation(Kind.NBD)
    simulation.oldest = simulation.now
    simulation.run(4)
    simulation.guard.set_write_blocking(simulation.now)
    assert simulation.run(2.8) is None
    assert simulation.run(0.5) is EndReason.ANSWER_MISSING


def test_background_mirror_has_five_seconds_without_any_answer():
    simulation = Simulation(Kind.NBD)
    simulation.oldest = simulation.now
    for _second in range(20):
        assert simulation.run(1, sends=10) is None  # one request hangs, others are answered
        simulation.guard.answered(simulation.now)
    began = simulation.now
    assert simulation.run(60, sends=10) is EndReason.ANSWER_MISSING
    assert 4.9 <= simulation.now - began <= 5.2


@pytest.mark.parametrize(
    ("sent", "blocking", "limit"),
    [(300, False, 3.0), (10**6, False, 5.0), (10**6, True, 3.0)],
    ids=["negotiation", "background", "write-blocking"],
)
def test_opaque_disk_is_answered_with_any_byte(sent, blocking, limit):
    simulation = Simulation(Kind.NBD, opaque=True)
    if blocking:
        simulation.guard.set_write_blocking(simulation.now)
    simulation.step(sent)
    simulation.guard.answered(simulation.now)
    assert simulation.run(60) is None
    began = simulation.now
    simulation.step(10)
    assert simulation.run(60) is EndReason.ANSWER_MISSING
    assert limit - TICK <= simulation.now - began <= limit + 3 * TICK


def test_opaque_ram_needs_a_first_word_in_three_seconds_and_no_other():
    simulation = Simulation(Kind.RAM, opaque=True)
    assert simulation.run(60) is None
    assert simulation.run(60, sends=500) is EndReason.ANSWER_MISSING
    assert simulation.now <= 163.4
    answered = Simulation(Kind.RAM, opaque=True)
    answered.step(500)
    answered.guard.answered(answered.now)
    assert answered.run(60, sends=500) is None


def test_plain_ram_is_never_answered():
    assert Simulation(Kind.RAM).run(60, sends=500) is None


def test_switchover_deadline_holds_even_while_our_qemu_does_not_read():
    simulation = Simulation()
    simulation.guard.arm(simulation.now, 10.0)
    simulation.guard.suspend()
    assert simulation.run(60) is EndReason.SWITCHOVER_DEADLINE
    assert 109.9 <= simulation.now <= 110.2


def test_disarmed_switchover_is_forgotten():
    simulation = Simulation()
    simulation.guard.arm(simulation.now, 10.0)
    simulation.run(5)
    simulation.guard.disarm()
    assert simulation.run(60) is None


def test_silence_while_our_qemu_does_not_read_is_ours():
    """direct-transports 4.3, trap (b): the deadman starts anew when we read again."""
    simulation = Simulation(silent_from=100.0)
    simulation.guard.suspend()
    assert simulation.run(60) is None
    simulation.guard.resume(simulation.now)
    assert simulation.run(1.8) is None
    assert simulation.run(0.5) is EndReason.PEER_SILENT


def test_stopped_pump_gives_the_network_another_chance():
    simulation = Simulation()
    simulation.now += 60
    assert simulation.guard.verdict(simulation.now) is None
    simulation.silent_from = simulation.now
    assert simulation.run(60) is EndReason.PEER_SILENT


@given(st.dictionaries(st.sampled_from(sorted(_BOUNDS)), st.floats(0.01, 100.0), max_size=4))
def test_limits_are_taken_within_their_bounds_only(values):
    try:
        limits = DirectLimits.parse(values)
    except SettingsInvalid:
        return
    for name, value in limits.to_dict().items():
        assert _BOUNDS[name][0] <= value <= _BOUNDS[name][1]
    assert limits.beat <= limits.deadman / 2
    assert DirectLimits.parse(limits.to_dict()) == limits


@pytest.mark.parametrize("values", [{"deadman": "2"}, {"deadman": True}, {"deadman": None}, {"pong": 1.0}])
def test_limits_are_numbers_with_known_names(values):
    with pytest.raises(SettingsInvalid):
        DirectLimits.parse(values)
