# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The transports that go straight from node to node: real certificates, real sockets, a guest that goes on."""

from __future__ import annotations

import json
import re

import pytest

from e2e.direct import ACCEPTED, assert_nobody_listens, assert_refused, over, rooted
from e2e.moves import assert_changes_nothing
from lab.vms import EFI_MIB, Disk

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def migrate(vm, transports, *arguments, **more):
    return vm.migrate(*arguments, migrate_vm_transports=transports, **rooted(vm.controller), **more)


def test_running_vm_moves_over_tls(mover, certificates):
    vm = mover().create([Disk("scsi0", "fast", 64, fill_mib=16), Disk("virtio0", "fast", 64, "qcow2", fill_mib=8)])
    run = migrate(vm, ["tls"]).expect(0)
    vm.assert_moved()
    vm.assert_guest_went_on()
    result = run.result()
    assert (result["phase"], result["transport"], result["residue"]) == ("completed", "tls", [])
    assert result["bytes"] > 16 << 20
    assert_nobody_listens(vm)
    assert_changes_nothing(migrate(vm, ["tls"]))


# With qemu-tls they take the ways that test_running_vm_moves_with_the_tls_of_qemu and the case of tls show.
@pytest.mark.parametrize("transport", ["tls", pytest.param("qemu-tls", marks=pytest.mark.slow)])
def test_volumes_beside_the_disks_travel_the_same_way(mover, certificates, transport):
    disks = [
        Disk("scsi0", "fast", 64),
        Disk("efidisk0", "fast", EFI_MIB, fill_mib=1, options="efitype=4m,pre-enrolled-keys=0"),
        Disk("tpmstate0", "fast", 4, fill_mib=4, options="version=v2.0"),
    ]
    vm = mover().create(disks, extra={"bios": "ovmf"})
    before = vm.source.image(vm.vm.volumes["tpmstate0"]).read_bytes()
    run = migrate(vm, [transport]).expect(0)
    vm.assert_moved()
    vm.assert_guest_went_on()
    assert run.result()["transport"] == transport
    assert vm.target.image(vm.target.config["tpmstate0"].split(",")[0]).read_bytes() == before


def test_one_transport_means_no_fall_back(mover, certificates):
    """A firewall in front of the ports: found before anything is written on either side, and named."""
    vm = mover().create(watch=False, guest=False)
    rule = "add table inet wall; add chain inet wall in { type filter hook input priority 0; }; "
    rule += "add rule inet wall in tcp dport 60100-60149 drop"
    vm.target_host.run(["nft", rule])
    try:
        run = migrate(vm, ["tls"])
    finally:
        vm.target_host.run(["nft", "delete", "table", "inet", "wall"])
    assert_refused(vm, run)


def test_next_listed_transport_is_taken_and_said(mover, controller):
    """Without root on the target there is no direct transport; the listed websocket is used, and why is told."""
    vm = mover().create()
    run = vm.migrate(migrate_vm_transports=["tls", "websocket"]).expect(0)
    vm.assert_moved()
    result = run.result()
    assert result["transport"] == "websocket"
    assert [each["transport"] for each in result["transports_rejected"]] == ["tls"]
    assert "target_root" in result["transports_rejected"][0]["reason"]
    assert "transport tls is not used" in run.output


def test_clear_text_is_refused_unless_proven_and_accepted(mover, certificates):
    vm = mover().create(watch=False, guest=False)
    assert_refused(vm, migrate(vm, ["tcp"]))


@pytest.mark.slow  # the same as test_running_vm_moves_over_ipv6, which `make e2e` has
def test_running_vm_moves_in_the_clear_over_a_proven_network(mover, certificates):
    vm = mover().create([Disk("scsi0", "fast", 64, fill_mib=16)])
    run = vm.controller.run("migrate", extra=over(vm, "tcp")).expect(0)
    vm.assert_moved()
    vm.assert_guest_went_on()
    assert (run.result()["transport"], run.result()["residue"]) == ("tcp", [])
    assert_nobody_listens(vm)


def test_network_that_changes_behind_its_proof_is_found_before_any_write(mover, certificates):
    """Somebody takes the rule away that lets in the source alone: the target sees it at the first connection."""
    vm = mover().create()
    play = vm.controller.start("migrate", extra=over(vm, "tcp"))
    name = ""
    while not name and play.poll() is None:
        tables = json.loads(vm.target_host.run(["nft", "-j", "list", "tables"]).stdout)["nftables"]
        names = [entry["table"]["name"] for entry in tables if "table" in entry]
        name = next((each for each in names if re.fullmatch("crosscluster_[0-9a-f]{32}", each)), "")
    vm.target_host.run(["nft", "delete", "table", "inet", name])
    run = play.wait(240.0)
    assert_refused(vm, run)
    assert '"code": "NETWORK_CHANGED"' in run.output
    assert "On the target node the network is not (any more) as it was proven: check 9" in run.output


def test_check_mode_says_that_clear_text_is_subject_to_the_proof(mover, certificates):
    vm = mover().create(watch=False, guest=False)
    network = {"network": str(vm.target_host.addresses.migration4.network)}
    wanted = {"migrate_vm_incoming": network, "migrate_vm_clear_text": ACCEPTED}
    run = migrate(vm, ["tcp"], "--check", **wanted).expect(0)
    assert "transport tcp is subject to the proof of the network" in run.output
    run = migrate(vm, ["tcp"], "--check", **{**wanted, "migrate_vm_incoming": {"network": "192.0.2.0/24"}})
    assert run.status != 0
    assert "NO_TRANSPORT_USABLE" in run.codes
    vm.assert_stayed()
    assert_nobody_listens(vm)


def test_mistakes_about_clear_text_are_named_before_anything_listens(mover):
    vm = mover().create(watch=False)
    network = {"migrate_vm_incoming": {"network": "10.77.0.0/33"}}
    run = migrate(vm, ["tcp"], migrate_vm_clear_text=ACCEPTED, **network)
    assert "tcp: '10.77.0.0/33' is no network that can be used. Write the network as in " in run.output
    assert {"NO_TRANSPORT_USABLE", "NETWORK_INVALID"} <= run.codes
    run = migrate(vm, ["tcp"], migrate_vm_clear_text={"accepted_by": "ops", "until": "soon"}, **network)
    assert run.status != 0
    assert "Write migrate_vm_clear_text as {accepted_by: a name, until: 2026-12-31}" in run.output
    assert_nobody_listens(vm)


def test_running_vm_moves_with_the_tls_of_qemu(mover, certificates):
    """Disks and RAM; afterwards the QEMU that runs the guest has nothing of it any more."""
    vm = mover().create([Disk("scsi0", "fast", 64, fill_mib=16), Disk("virtio0", "fast", 64, "qcow2", fill_mib=8)])
    run = migrate(vm, ["qemu-tls"]).expect(0)
    vm.assert_moved()
    vm.assert_guest_went_on()
    result = run.result()
    assert (result["phase"], result["transport"], result["residue"]) == ("completed", "qemu-tls", [])
    objects = vm.target.qmp("qom-list", path="/objects")
    assert not [each["name"] for each in objects if each["name"].startswith("crosscluster")]
    assert not vm.target.qmp("query-migrate-parameters").get("tls-creds")
    assert_nobody_listens(vm)
