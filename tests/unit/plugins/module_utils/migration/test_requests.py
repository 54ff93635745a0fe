# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Goals, abort, lease and deadline, on a clock of our own."""

from __future__ import annotations

import pytest
from unit.fakes.migration_run import spec_of

from ansible_collections.crosscluster.migration.plugins.module_utils.migration.errors import (
    Aborted,
    DeadlinePassed,
    LeaseLost,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.requests import Requests
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.states import Phase


class Hand:
    now = 0.0

    def __call__(self):
        return self.now


def requests_of(clock, **options):
    return Requests(spec_of(**options), clock)


def test_reservation_lives_for_its_timeout():
    clock = Hand()
    requests = requests_of(clock)
    requests.advance(Phase.RESERVED, "a", None)
    clock.now = 1799
    requests.check()
    clock.now = 1801
    with pytest.raises(LeaseLost):
        requests.check()


def test_worker_whom_nobody_ever_asked_for_anything_ends_soon():
    """Who started it was killed before its first call: the VM must not stay locked for half an hour."""
    clock = Hand()
    requests = requests_of(clock)
    clock.now = 59
    requests.check()
    clock.now = 61
    with pytest.raises(LeaseLost):
        requests.check()


def test_trigger_shortens_the_lease_to_the_controller_timeout():
    clock = Hand()
    requests = requests_of(clock)
    requests.advance(Phase.COMPLETED, "a", None)
    clock.now = 121
    with pytest.raises(LeaseLost):
        requests.check()


def test_only_the_lease_that_counts_renews():
    clock = Hand()
    requests = requests_of(clock)
    requests.advance(Phase.COMPLETED, "a", None)
    clock.now = 100
    assert not requests.renew("b")
    assert requests.renew("a")
    clock.now = 219
    requests.check()


def test_second_run_takes_the_lease_over():
    clock = Hand()
    requests = requests_of(clock)
    requests.advance(Phase.COMPLETED, "a", None)
    requests.advance(Phase.COMPLETED, "b", None)
    assert not requests.renew("a")
    assert requests.renew("b")


def test_goal_never_goes_back():
    requests = requests_of(Hand())
    requests.advance(Phase.COMPLETED, "a", None)
    requests.advance(Phase.RESERVED, "a", None)
    assert requests.goal is Phase.COMPLETED


def test_continue_needs_no_controller_after_the_trigger():
    clock = Hand()
    requests = requests_of(clock, on_controller_loss="continue")
    requests.advance(Phase.COMPLETED, "a", None)
    clock.now = 10_000
    requests.check()


def test_deadline_counts_from_the_trigger():
    clock = Hand()
    requests = requests_of(clock, limits={"deadline": "1 min"})
    requests.advance(Phase.RESERVED, "a", None)
    clock.now = 100
    requests.advance(Phase.COMPLETED, "a", None)
    clock.now = 159
    requests.check()
    clock.now = 161
    with pytest.raises(DeadlinePassed):
        requests.check()


def test_abort_is_seen_at_the_next_look():
    requests = requests_of(Hand())
    requests.ask_abort()
    with pytest.raises(Aborted):
        requests.check()


def test_limits_are_taken_over_when_given():
    requests = requests_of(Hand())
    limits = spec_of(limits={"bandwidth": "1 MiB/s"}).limits
    requests.advance(Phase.RESERVED, "a", limits)
    requests.advance(Phase.RESERVED, "a", None)
    assert requests.limits == limits
