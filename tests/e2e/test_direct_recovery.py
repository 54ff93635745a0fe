# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proxmox's own control channel is lost while the incoming worker of the target lives: ``control`` takes its place.

The role's ``target_recovery`` is not needed then, and nothing is left on the target (DESIGN 5, safety I4 and I6).
"""

from __future__ import annotations

import pytest

from crash.blows import API_PORT, has_received
from e2e.direct import assert_nobody_listens, over
from e2e.test_guard import until
from lab import faults
from lab.vms import Disk

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def test_channel_lost_behind_the_intent_is_replaced_by_control(mover, certificates):
    vm = mover().create([Disk("scsi0", "fast", 64, fill_mib=8)])
    faults.set(vm.target_host.root, "control_cut", name="lost", command="resume", when="before", count=1)
    try:
        run = vm.controller.run("migrate", extra=over(vm, "tls")).expect(0)
    finally:
        faults.clear(vm.target_host.root)
    vm.assert_moved()
    vm.assert_guest_went_on()
    result = run.result()
    assert (result["phase"], result["transport"], result["residue"]) == ("completed", "tls", [])
    assert "over control" in result["proof"]["target"]
    assert "Let the target take the guest over" not in run.output
    assert_nobody_listens(vm)


def test_api_that_falls_silent_behind_the_intent_is_replaced_by_control(mover, certificates):
    """The target has read `resume`, and nobody hears of its API any more: the tunnel's task lives on.

    Its own node ends it, sees in the process table that it has ended, and lets the guest run.
    """
    vm = mover().create([Disk("scsi0", "fast", 64, fill_mib=8)])
    faults.set(vm.target_host.root, "command_delay", name="stuck", command="resume", seconds=600, count=1)
    play = vm.controller.start("migrate", extra=over(vm, "tls"))
    try:
        until(lambda: has_received(vm, "resume"), "resume", play, pause=0.05)
        vm.target_host.lose_port(API_PORT, vm.source_host)
        run = play.wait().expect(0)
        vm.assert_moved()
        vm.assert_guest_went_on()
    finally:
        vm.target_host.accept_port(API_PORT)
        faults.clear(vm.target_host.root)
    result = run.result()
    assert (result["phase"], result["transport"], result["residue"]) == ("completed", "tls", [])
    assert "over control" in result["proof"]["target"]
    assert [record["kind"] for record in vm.records()].count("COMMIT_INTENT") == 2
    assert_nobody_listens(vm)
