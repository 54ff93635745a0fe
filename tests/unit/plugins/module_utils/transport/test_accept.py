# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may wait at the door: never more than the limits say, whatever comes when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.crosscluster.migration.plugins.module_utils.transport.accept import (
    AcceptLimits,
    Door,
    Turned,
    same_address,
)

PEER, STRANGER = "10.77.0.11", "10.77.0.66"
LIMITS = AcceptLimits()


def let_in(door, now, number):
    """As the loop does: accept only while the door is open."""
    return door.is_open(now) and door.arrived(number, PEER, now)


def test_stranger_is_turned_away_at_once_and_takes_nobodys_turn():
    door = Door(PEER)
    assert [door.arrived(number, STRANGER, 0.0) for number in range(100)] == [False] * 100
    assert door.turned[Turned.STRANGER] == 100
    assert sum(let_in(door, 0.0, number) for number in range(20)) == LIMITS.waiting


def test_a_source_dials_all_its_streams_at_once():
    door = Door(PEER)
    for number in range(LIMITS.waiting):
        assert let_in(door, 0.0, number)
        door.left(number)
    assert not door.is_open(0.0)
    assert door.is_open(0.25)  # then four a second


def test_door_tells_when_to_look_again():
    door = Door(PEER)
    assert door.next_look(0.0) is None
    door.arrived(1, PEER, 0.0)
    assert door.next_look(1.0) == 4.0
    assert door.late(4.9) == []
    assert door.late(5.0) == [1]


def test_who_is_refused_may_read_why_and_counts_until_it_has_left():
    door = Door(PEER)
    for number in range(LIMITS.waiting):
        door.arrived(number, PEER, 0.0)
    door.parts(0, Turned.FAILED, 1.0)
    assert door.turned[Turned.FAILED] == 1
    assert not door.is_open(1.5)
    assert (door.late(1.9), door.late(2.0)) == ([], [0])
    door.left(0)
    assert door.is_open(2.0)
    assert door.turned[Turned.FAILED] == 1


def test_parting_does_not_put_the_deadline_off():
    door = Door(PEER)
    door.arrived(1, PEER, 0.0)
    door.parts(1, Turned.FAILED, 4.5)
    assert door.late(5.0) == [1]


def test_deadline_is_not_put_off_by_what_is_said():
    door = Door(PEER)
    door.arrived(1, PEER, 0.0)
    for _second in range(5):
        door.heard(1, 1)
    assert door.late(5.0) == [1]


def test_who_says_too_much_has_no_room_left():
    door = Door(PEER)
    door.arrived(1, PEER, 0.0)
    door.heard(1, LIMITS.bytes - 10)
    assert door.room(1) == 10
    door.heard(1, 10)
    assert door.room(1) == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.77.0.11", "10.77.0.11", True),
        ("::ffff:10.77.0.11", "10.77.0.11", True),
        ("fd00::1", "fd00:0::0001", True),
        ("fe80::1%eth0", "fe80::1%eth0", True),
        ("fe80::1%eth0", "fe80::1%eth1", False),
        ("10.77.0.11", "10.77.0.12", False),
    ],
)
def test_addresses_are_compared_by_value(one, other, same):
    assert same_address(one, other) is same


STEPS = st.lists(
    st.tuples(st.floats(0, 2), st.sampled_from(["peer", "stranger", "known", "late", "talk"]), st.integers(0, 30)),
    max_size=200,
)


@given(STEPS)
def test_limits_hold_whatever_comes(steps):
    door, now, number = Door(PEER), 0.0, 0
    waiting, times = {}, []
    for wait, what, choice in steps:
        now += wait
        for gone in door.late(now):
            assert now >= waiting.pop(gone) + LIMITS.deadline
            door.left(gone, Turned.LATE)
        if what == "peer" and door.is_open(now):
            number += 1
            assert door.arrived(number, PEER, now)
            waiting[number] = now
            times.append(now)
        elif what == "stranger":
            number += 1
            assert not door.arrived(number, STRANGER, now)
        elif what in ("known", "late") and waiting:
            gone = sorted(waiting)[choice % len(waiting)]
            del waiting[gone]
            door.left(gone, None if what == "known" else Turned.FAILED)
        elif what == "talk" and waiting:
            door.heard(sorted(waiting)[choice % len(waiting)], choice)
        assert len(waiting) <= LIMITS.waiting
        assert all(now - since < LIMITS.deadline for since in waiting.values())
        assert (door.next_look(now) is not None) or not waiting
    for first in range(len(times)):
        for last in range(first, len(times)):
            assert last - first + 1 <= LIMITS.waiting + LIMITS.rate * (times[last] - times[first]) + 1e-6
