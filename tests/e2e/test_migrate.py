# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job: VMs of every supported kind move, their guests go on, and a second run changes nothing."""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from pathlib import Path

import pytest

from e2e.moves import assert_changes_nothing
from lab.vms import EFI_MIB, Disk

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

DISKS = {
    "one-raw": [Disk("scsi0", "fast", 64, "raw", fill_mib=24)],
    "three-mixed": [
        Disk("scsi0", "fast", 64, "raw", fill_mib=16),
        Disk("scsi1", "local", 96, "qcow2", fill_mib=16),
        Disk("virtio0", "fast", 1024, "raw"),
    ],
}


# Three disks of mixed kinds show what one does; the single one is left to `make e2e-slow`.
@pytest.mark.parametrize(
    "disks", [pytest.param(DISKS["one-raw"], marks=pytest.mark.slow), DISKS["three-mixed"]], ids=DISKS.keys()
)
def test_running_vm_moves_with_its_disks(mover, disks):
    vm = mover().create(disks)
    run = vm.migrate().expect(0)
    vm.assert_moved()
    vm.assert_guest_went_on()
    result = run.result()
    assert result["phase"] == "completed"
    assert result["transport"] == "websocket"
    assert result["residue"] == []
    assert result["target"]["vmid"] == vm.vmid
    assert result["bytes"] > 16 << 20
    assert 0 < result["downtime_ms"] < 30_000
    assert_changes_nothing(vm.migrate())
    vm.assert_moved()


def test_disks_go_to_the_storages_they_are_mapped_to(mover):
    vm = mover().create([Disk("scsi0", "fast", 64), Disk("scsi1", "fast", 64, "qcow2")])
    vm.migrate(move_disks={"default": "fast", "scsi1": "slow"}).expect(0)
    vm.assert_guest_went_on()
    assert vm.target.config["scsi0"].startswith("fast:")
    assert vm.target.config["scsi1"].startswith("slow:")


def test_sparse_disk_stays_sparse(mover):
    vm = mover().create([Disk("scsi0", "fast", 2048, "raw", fill_mib=8)])
    vm.migrate().expect(0)
    vm.assert_guest_went_on()
    (volid,) = vm.target.volumes()
    status = vm.target.image(volid).stat()
    assert status.st_size == 2048 << 20
    assert status.st_blocks * 512 < 256 << 20


def test_paused_vm_arrives_paused(mover):
    vm = mover().create()
    vm.source.qmp("stop")
    run = vm.migrate().expect(0)
    vm.assert_moved(state="paused")
    assert run.result()["phase"] == "completed"
    assert vm.guest.transcript.switches() == []
    assert_changes_nothing(vm.migrate())
    vm.target.qmp("cont")
    vm.assert_guest_went_on()


def test_stopped_vm_moves_when_asked_to(mover):
    vm = mover().create()
    acknowledged = vm.guest.acknowledged()
    vm.source_host.run(["qm", "stop", str(vm.vmid)])
    refused = vm.migrate()
    assert refused.status != 0
    vm.assert_nothing_on_target()
    vm.migrate(move_offline=True).expect(0)
    assert vm.source.lock == "migrate"
    assert vm.target.lock is None
    assert vm.target.qemu is None
    checked = vm.check_records(vm.target)
    assert checked.bad == []
    assert checked.checked >= len(acknowledged)
    assert_changes_nothing(vm.migrate(move_offline=True))


def test_volumes_beside_the_disks_arrive_as_they_were(mover):
    """EFI disk: mirrored. TPM state, cloud-init and an unused volume: copied byte by byte by the target's importer.

    To another storage and under another number, so that every name in the config has to be a new one.
    """
    disks = [
        Disk("scsi0", "fast", 64),
        Disk("efidisk0", "fast", EFI_MIB, fill_mib=1, options="efitype=4m,pre-enrolled-keys=0"),
        Disk("tpmstate0", "fast", 4, fill_mib=4, options="version=v2.0"),
        Disk("ide2", "fast", 4, "qcow2", fill_mib=4, options="media=cdrom", name="cloudinit"),
        Disk("unused0", "fast", 32, "qcow2", fill_mib=4),
    ]
    vm = mover()
    vm.target_vmid = number = 20100 + vm.vmid
    vm.create(disks, extra={"bios": "ovmf", "ciuser": "demo", "ipconfig0": "ip=dhcp"})
    beside = {disk.key: disk.format for disk in disks[1:]}
    before = {key: content(vm.source.image(vm.vm.volumes[key]), form) for key, form in beside.items()}
    words = {"move_vmid": number, "move_storage": "local"}
    vm.migrate(**words).expect(0)
    vm.assert_moved()
    vm.assert_guest_went_on()
    config = vm.target.config
    assert {key: content(vm.target.image(config[key].split(",")[0]), form) for key, form in beside.items()} == before
    # The image keeps its name but for the number, or Proxmox would take it for a CD; it is copied, never made anew.
    assert config["ide2"] == f"local:{number}/vm-{number}-cloudinit.qcow2,media=cdrom,size=4M"
    assert config["efidisk0"].startswith(f"local:{number}/vm-{number}-disk-")
    assert config["efidisk0"].endswith(".raw,efitype=4m,format=raw,pre-enrolled-keys=0,size=528K")
    assert {key: config[key] for key in ("bios", "ciuser", "ipconfig0")} == {
        "bios": "ovmf", "ciuser": "demo", "ipconfig0": "ip=dhcp",
    }  # fmt: skip
    assert len(vm.target.volumes()) == len(disks)
    assert_changes_nothing(vm.migrate(**words))


def content(image: Path, form: str) -> str:
    """Digest of what a guest would read; what a file of qcow2 looks like is its writer's business."""
    raw = image.read_bytes()
    if form != "raw":
        with tempfile.NamedTemporaryFile(dir=image.parent, suffix=".reading") as copy:
            subprocess.run(["qemu-img", "convert", "-U", "-f", form, "-O", "raw", image, copy.name], check=True)
            raw = Path(copy.name).read_bytes()
    assert any(raw), f"{image} is empty"
    return hashlib.sha256(raw).hexdigest()


def test_vm_takes_another_number_and_the_source_cluster_needs_no_token(mover):
    """Without a token the VM is looked up on the first declared node that answers (DESIGN 9)."""
    vm = mover()
    vm.target_vmid = 20100 + vm.vmid
    vm.create()
    clusters = vm.controller.clusters()
    for key in ("api_user", "api_token_id", "api_token_secret"):
        del clusters["alpha"][key]
    options = {"move_vmid": vm.target_vmid, "crosscluster_clusters": clusters}
    vm.migrate(**options).expect(0)
    vm.assert_moved()
    vm.assert_guest_went_on()
    assert_changes_nothing(vm.migrate(**options))
