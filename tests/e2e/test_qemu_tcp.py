# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``qemu-tcp``: clear-text listeners of the target's QEMU, where the target has the patch series for them."""

from __future__ import annotations

import json
import socket
import threading
import time

import pytest

from e2e.direct import ACCEPTED, assert_refused, full, insecure, listeners, rooted
from e2e.moves import assert_changes_nothing
from lab.vms import EFI_MIB, Disk

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

PORTS = range(60000, 60051)


@pytest.fixture
def patched(lab):
    with insecure(lab.host("beta1")):
        yield


def network_of(vm):
    return str(vm.target_host.addresses.migration4.network)


def migrate(vm, transports=("qemu-tcp",), *, clusters=None, incoming=None, **more):
    return vm.migrate(
        migrate_vm_transports=list(transports),
        migrate_vm_incoming=incoming or {"network": network_of(vm), "outside": ["localhost"]},
        migrate_vm_clear_text=more.pop("accepted", ACCEPTED),
        crosscluster_clusters=clusters or full(vm),
        **more,
    )


def why_refused(vm, run, transport="qemu-tcp"):
    """Nothing is left on either side; returns why that transport was not taken."""
    assert_refused(vm, run)
    rejected = {each["transport"]: each for each in run.result()["facts"]["rejected"]}
    return rejected[transport]["code"]


def test_running_vm_moves_to_listeners_of_the_targets_qemu(mover, patched):
    disks = [
        Disk("scsi0", "fast", 64, fill_mib=16),
        Disk("virtio0", "fast", 64, "qcow2", fill_mib=8),
        Disk("efidisk0", "fast", EFI_MIB, fill_mib=1, options="efitype=4m,pre-enrolled-keys=0"),
        Disk("tpmstate0", "fast", 4, fill_mib=4, options="version=v2.0"),
    ]
    vm = mover().create(disks, extra={"bios": "ovmf"})
    run = migrate(vm).expect(0)
    vm.assert_moved()
    vm.assert_guest_went_on()
    result = run.result()
    assert (result["phase"], result["transport"], result["residue"]) == ("completed", "qemu-tcp", [])
    assert result["bytes"] > 16 << 20
    [place] = [record for record in vm.records() if record["kind"] == "plain_listeners"]
    assert place["address"] == vm.target_host.migration_address
    assert listeners(vm.target_host, PORTS) == set()
    assert_changes_nothing(migrate(vm))


def test_target_without_root_is_refused_unless_a_verdict_is_there(mover, patched):
    vm = mover().create(watch=False, guest=False)
    assert why_refused(vm, migrate(vm, clusters=full(vm, root=False))) == "NETWORK_NOT_PROVEN"


@pytest.mark.timeout(500)
def test_verdict_of_somebody_who_may_look_around_serves(mover, patched):
    """Nobody of this play has root on the target."""
    vm = mover().create()
    path = vm.controller.directory / "verdict.json"
    check = {"check_network": network_of(vm), "check_from": "alpha", "check_to": "beta", "check_outside": "localhost"}
    vm.controller.run("trusted_network", extra={**check, "check_report_json": str(path)}).expect(0)
    report = json.loads(path.read_text(encoding="utf-8"))
    run = migrate(vm, clusters=full(vm, root=False), incoming={"verdict": report["verdicts"][0]}).expect(0)
    vm.assert_moved()
    vm.assert_guest_went_on()
    assert run.result()["transport"] == "qemu-tcp"


def test_released_target_is_refused_by_its_own_word_and_nothing_is_left(mover):
    vm = mover().create(watch=False, guest=False)
    run = migrate(vm)
    assert why_refused(vm, run) == "CAPABILITY_MISSING"
    assert vm.target_host.node in run.output
    assert "lock_taken" not in [record["kind"] for record in vm.records()]


@pytest.mark.slow  # as in test_direct; what the reason is, test_released_target_... asserts
def test_next_listed_transport_is_taken_and_the_reason_told(mover):
    vm = mover().create()
    run = migrate(vm, ["qemu-tcp", "websocket"]).expect(0)
    vm.assert_moved()
    vm.assert_guest_went_on()
    result = run.result()
    assert result["transport"] == "websocket"
    assert [each["code"] for each in result["transports_rejected"]] == ["CAPABILITY_MISSING"]
    assert "transport qemu-tcp is not used" in run.output


def test_token_needs_the_right_to_modify_the_target(mover, patched):
    vm = mover().create(watch=False, guest=False)
    run = migrate(vm, clusters=rooted(vm.controller)["crosscluster_clusters"])
    assert why_refused(vm, run) == "PRIVILEGE_MISSING"
    assert "reserving" not in [record["kind"] for record in vm.records()]


def test_clear_text_that_nobody_accepts_is_refused_before_any_write(mover, patched):
    vm = mover().create(watch=False, guest=False)
    assert why_refused(vm, migrate(vm, accepted={})) == "CLEAR_TEXT_NOT_ACCEPTED"
    assert vm.records() == []


def test_check_mode_reserves_nothing_and_says_what_is_open(mover, patched):
    vm = mover().create(watch=False, guest=False)
    run = vm.migrate(
        "--check",
        migrate_vm_transports=["qemu-tcp"],
        migrate_vm_incoming={"network": network_of(vm)},
        migrate_vm_clear_text=ACCEPTED,
        crosscluster_clusters=full(vm),
    ).expect(0)
    assert run.result()["transport"] == "qemu-tcp"
    assert "qemu-tcp is subject to the proof of the network" in run.output
    assert vm.records() == []
    vm.assert_nothing_on_target()


@pytest.mark.slow  # the same verdict as that of test_target_without_root_...
def test_network_in_which_the_target_is_not_is_refused(mover, patched):
    vm = mover().create(watch=False, guest=False)
    run = migrate(vm, incoming={"network": "10.99.0.0/24", "outside": ["localhost"]})
    assert why_refused(vm, run) == "NETWORK_NOT_PROVEN"


def test_stranger_at_the_ram_port_ends_the_move_and_it_is_told(mover, patched):
    """A port scan that comes first ends the waiting QEMU of the target: the guest goes on, and the reason is said."""
    vm = mover().create()
    done = threading.Event()

    def knock():
        while not done.is_set():
            places = [record for record in vm.records() if record["kind"] == "plain_listeners"]
            if places:
                pid = vm.source_host.pid
                knock_from(pid, places[-1]["address"], places[-1]["ram_port"])
                return
            time.sleep(0.02)

    stranger = threading.Thread(target=knock, daemon=True)
    stranger.start()
    try:
        run = migrate(vm)
    finally:
        done.set()
        stranger.join(10)
    assert run.status != 0
    assert "a port scan" in run.output
    vm.assert_stayed()
    vm.assert_nothing_on_target()


def knock_from(pid, address, port):
    """Connect and close, from within the network of a process."""
    import os

    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    theirs = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        _setns(theirs)
        with socket.create_connection((address, port), 5):
            pass
    finally:
        _setns(own)
        os.close(own)
        os.close(theirs)


def _setns(descriptor):
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(descriptor, 0x40000000) != 0:
        raise OSError(ctypes.get_errno(), "setns")
