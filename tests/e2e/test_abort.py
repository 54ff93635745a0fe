# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Abort: acts at once before the commit, changes nothing where nothing moves, and is too late after the commit."""

from __future__ import annotations

import time

import pytest

from e2e.moves import assert_changes_nothing
from lab.vms import Disk

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

SLOW = {"bandwidth": "1 MiB/s"}  # the abort is a play too, and takes its time on a loaded machine


def wait_phase(vm, phase: str, timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not any(record.get("phase") == phase for record in vm.records()):
        assert time.monotonic() < deadline, f"phase {phase} was not reached"
        time.sleep(0.05)


def test_abort_takes_a_running_move_back(mover):
    vm = mover().create([Disk("scsi0", "fast", 64, "raw", fill_mib=40)])
    play = vm.controller.start("migrate", extra=vm.extra(move_limits=SLOW))
    wait_phase(vm, "mirroring")
    vm.controller.run("abort", extra={"move_vms": vm.name, "move_from": "alpha"}).expect(0)
    assert play.wait().status != 0
    assert vm.wait_final() == "rolled_back"
    vm.assert_stayed()
    vm.assert_nothing_on_target()
    vm.migrate().expect(0)
    vm.assert_moved()
    vm.assert_guest_went_on()


def test_abort_of_nothing_changes_nothing(mover):
    vm = mover().create(watch=False, guest=False)
    run = vm.controller.run("abort", extra={"move_vms": vm.name, "move_from": "alpha"})
    assert_changes_nothing(run)
    assert vm.source.run_state == "running"
