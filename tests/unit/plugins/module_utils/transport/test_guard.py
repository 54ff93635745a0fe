# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guard: every bound of the design holds for the guest, and a living far end is never cut."""

from __future__ import annotations

from typing import List, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.crosscluster.migration.plugins.module_utils.transport.guard import Guard
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.interface import EndReason

TICK = 0.1


class Simulation:
    """A pump's loop in simulated time: data sent at will, pongs after ``round_trip`` until ``silent_from``."""

    def __init__(self, *, round_trip: float = 0.05, silent_from: float = 1e9, greeting: bool = False) -> None:
        self.now = 100.0
        self.guard = Guard(awaits_greeting=greeting, now=self.now)
        self.round_trip, self.silent_from = round_trip, silent_from
        self.pongs: List[tuple[float, bytes]] = []
        self.pings: List[float] = []
        self.oldest: Optional[float] = None
        self.negotiating: Optional[float] = None

    def step(self, sends: bool = False) -> Optional[EndReason]:
        self.now += TICK
        while self.pongs and self.pongs[0][0] <= self.now:
            self.guard.pong(self.pongs.pop(0)[1], self.now)
        if sends:
            self.guard.sent(self.now)
        if self.guard.ping_due(self.now):
            payload = self.guard.ping_sent(self.now)
            self.pings.append(self.now)
            if self.now < self.silent_from:
                self.pongs.append((self.now + self.round_trip, payload))
        return self.guard.verdict(self.now, oldest=self.oldest, negotiating=self.negotiating)

    def run(self, seconds: float, sends: bool = False) -> Optional[EndReason]:
        end = self.now + seconds
        while self.now < end:
            verdict = self.step(sends)
            if verdict is not None:
                return verdict
        return None


def test_busy_stream_pings_every_second():
    simulation = Simulation()
    assert simulation.run(10, sends=True) is None
    gaps = [later - earlier for earlier, later in zip(simulation.pings, simulation.pings[1:])]
    assert gaps
    assert max(gaps) <= 1.0 + TICK


def test_idle_stream_pings_every_half_minute():
    simulation = Simulation()
    assert simulation.run(100) is None
    assert len(simulation.pings) == 3


def test_last_data_is_covered_by_one_ping_and_then_there_is_rest():
    simulation = Simulation()
    simulation.step(sends=True)
    simulation.run(5)
    assert len(simulation.pings) == 1


@given(st.floats(100.0, 130.0))
def test_busy_stream_is_cut_within_five_and_a_half_seconds_of_silence(silent_from):
    """The last pong answers a ping sent before the silence; nothing may take longer than 5 s after it."""
    simulation = Simulation(silent_from=silent_from)
    assert simulation.run(60, sends=True) is EndReason.PONG_MISSING
    assert simulation.now - silent_from <= 5.5


@given(st.floats(0.0, 3.9))
def test_slow_but_living_link_is_not_cut(round_trip):
    assert Simulation(round_trip=round_trip).run(60, sends=True) is None


@given(st.lists(st.booleans(), max_size=400), st.floats(0.0, 3.0))
def test_living_link_is_never_cut_whatever_is_sent(sends, round_trip):
    simulation = Simulation(round_trip=round_trip)
    assert [simulation.step(sent) for sent in sends] == [None] * len(sends)


def test_silence_is_noticed_even_while_nothing_is_sent_once_writes_wait():
    simulation = Simulation(silent_from=110.0)
    simulation.guard.set_write_blocking(simulation.now)
    assert simulation.run(60) is EndReason.PONG_MISSING
    assert simulation.now <= 115.5


def test_nbd_server_has_one_second_to_greet():
    simulation = Simulation(greeting=True)
    assert simulation.run(60) is EndReason.GREETING_MISSING
    assert simulation.now <= 101.2


def test_greeting_in_time_ends_the_wait():
    simulation = Simulation(greeting=True)
    simulation.run(0.5)
    simulation.guard.greeted()
    assert simulation.run(60) is None


def test_answer_may_take_long_while_the_mirror_runs_in_the_background():
    simulation = Simulation()
    simulation.oldest = simulation.now
    assert simulation.run(60, sends=True) is None


@pytest.mark.parametrize("asked_before", [0.0, 20.0], ids=["fresh", "old"])
def test_answer_is_due_in_three_seconds_once_writes_wait(asked_before):
    simulation = Simulation()
    simulation.oldest = simulation.now - asked_before
    simulation.guard.set_write_blocking(simulation.now)
    assert simulation.run(60, sends=True) is EndReason.ANSWER_MISSING
    assert 103.0 <= simulation.now <= 103.2


def test_negotiation_is_answered_in_three_seconds():
    """QEMU negotiates in its main loop: the guest may stand still."""
    simulation = Simulation()
    simulation.negotiating = simulation.now
    assert simulation.run(60) is EndReason.ANSWER_MISSING
    assert simulation.now <= 103.2


def test_switchover_deadline_cuts_a_living_link():
    simulation = Simulation()
    simulation.guard.arm(simulation.now, 10.0)
    assert simulation.run(60, sends=True) is EndReason.SWITCHOVER_DEADLINE
    assert simulation.now <= 110.2


def test_disarmed_deadline_does_nothing():
    simulation = Simulation()
    simulation.guard.arm(simulation.now, 10.0)
    simulation.run(5)
    simulation.guard.disarm()
    assert simulation.run(60) is None


def test_silence_is_ours_while_qemu_does_not_read():
    simulation = Simulation(silent_from=0.0)
    simulation.step(sends=True)
    simulation.guard.suspend()
    assert simulation.run(60, sends=True) is None
    simulation.guard.resume(simulation.now)
    assert simulation.run(4.8, sends=True) is None
    assert simulation.run(0.5, sends=True) is EndReason.PONG_MISSING


def test_stopped_pump_gives_the_network_a_new_chance_but_not_the_switchover():
    simulation = Simulation()
    simulation.run(2, sends=True)
    simulation.now += 60
    assert simulation.step(sends=True) is None
    simulation.guard.arm(simulation.now, 10.0)
    simulation.now += 60
    assert simulation.step() is EndReason.SWITCHOVER_DEADLINE


@pytest.mark.parametrize("payload", [b"", b"x" * 8, (99).to_bytes(8, "big"), bytes(8)])
def test_foreign_pong_proves_nothing(payload):
    simulation = Simulation(silent_from=0.0)
    simulation.step(sends=True)
    while simulation.now < 104.9:
        simulation.guard.pong(payload, simulation.now)
        assert simulation.step(sends=True) is None
    simulation.guard.pong(payload, simulation.now)
    assert simulation.run(0.5, sends=True) is EndReason.PONG_MISSING
