# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Refusal by default: each item of the reference has its code, and a plain VM has none."""

from __future__ import annotations

import dataclasses

import pytest

from ansible_collections.crosscluster.migration.plugins.module_utils.migration.refusals import (
    SourceFacts,
    VolumeFacts,
    refusals,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.spec import DiskPlace, NicPlace
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.vm_config import VmConfig

DISK = "local:100/vm-100-disk-0.qcow2"
PLAIN = f"""#notes
agent: 1
balloon: 512
boot: order=scsi0;net0
cores: 2
cpu: x86-64-v2-AES
ide2: none,media=cdrom
machine: q35
memory: 1024
meta: creation-qemu=10.0.2,ctime=1795155151
name: web01
net0: virtio=BC:24:11:58:B8:23,bridge=vmbr0,firewall=1
numa: 1
onboot: 1
ostype: l26
rng0: source=/dev/urandom
scsi0: {DISK},discard=on,iothread=1,size=1G,ssd=1
scsihw: virtio-scsi-single
serial0: socket
smbios1: uuid=0ce88e34-1edf-4663-9f3e-93fb78cddf2e
sockets: 1
tags: a;b
vga: std
vmgenid: f5f52c08-ad37-4ae4-b3db-70508755f40f
"""
FACTS = SourceFacts(
    vmid=100, running=True, disks={"default": DiskPlace("fast")}, nics={"default": NicPlace("vmbr0")},
    volumes={DISK: VolumeFacts("qcow2")},
)  # fmt: skip


def found(text=PLAIN, **changes):
    """Code and object of each refusal."""
    reasons = refusals(VmConfig.parse(text), dataclasses.replace(FACTS, **changes))
    return [(reason.code, reason.object) for reason in reasons]


def with_line(line):
    """The plain VM with one more line, in place of the one of the same key."""
    key = line.partition(":")[0]
    kept = [old for old in PLAIN.splitlines() if not old.startswith(key + ":")]
    return "\n".join([*kept, line]) + "\n"


def test_plain_vm_may_move():
    assert found() == []


def test_vm_with_efi_tpm_and_cloudinit_may_move():
    text = PLAIN + (
        "bios: ovmf\nciuser: demo\ncipassword: x\nipconfig0: ip=dhcp\n"
        "efidisk0: local:100/vm-100-disk-1.raw,efitype=4m,pre-enrolled-keys=1,size=528K\n"
        "ide0: local:100/vm-100-cloudinit.qcow2,media=cdrom,size=4M\n"
        "tpmstate0: local:100/vm-100-disk-2.raw,size=4M,version=v2.0\n"
        "unused0: local:100/vm-100-disk-3.raw\nscsi1: thin:vm-100-disk-4,size=1G,mbps_rd=5\n"
        "[special:cloudinit]\nciuser: demo\n"
    )
    assert found(text) == []


KEYS = [
    ("args: -foo", "ROOT_ONLY_KEY"), ("affinity: 0-3", "ROOT_ONLY_KEY"), ("arch: aarch64", "ROOT_ONLY_KEY"),
    ("hookscript: local:snippets/x.pl", "ROOT_ONLY_KEY"), ("hugepages: 2", "ROOT_ONLY_KEY"),
    ("keephugepages: 1", "ROOT_ONLY_KEY"), ("ivshmem: size=32", "ROOT_ONLY_KEY"),
    ("amd-sev: type=std", "ROOT_ONLY_KEY"),
    ("intel-tdx: type=tdx", "ROOT_ONLY_KEY"), ("parallel0: /dev/parport0", "ROOT_ONLY_KEY"),
    ("hostpci0: 00:01.0", "LOCAL_DEVICE"), ("hostpci1: mapping=gpu", "LOCAL_DEVICE"),
    ("usb0: host=1-2", "LOCAL_DEVICE"),
    ("usb1: spice", "LOCAL_DEVICE"), ("virtiofs0: dir=x", "LOCAL_DEVICE"), ("serial1: /dev/ttyS0", "LOCAL_DEVICE"),
    ("rng0: source=/dev/hwrng", "LOCAL_DEVICE"), ("numa0: cpus=0,hostnodes=0,memory=512", "LOCAL_DEVICE"),
    ("cpu: custom-mine", "CPU_CUSTOM"), ("cpu: cputype=custom-mine,flags=+aes", "CPU_CUSTOM"),
    ("vga: qxl", "SPICE_UNSUPPORTED"), ("vga: type=qxl2,memory=32", "SPICE_UNSUPPORTED"),
    ("vga: virtio-gl", "DISPLAY_UNSUPPORTED"), ("vga: std,clipboard=vnc", "CLIPBOARD"),
    ("vga: std,new=1", "KEY_UNKNOWN"),
    ("audio0: device=ich9-intel-hda,driver=spice", "SPICE_UNSUPPORTED"), ("spice_enhancements: 1", "SPICE_UNSUPPORTED"),
    ("cicustom: user=local:snippets/u.yml", "CLOUDINIT_CUSTOM"), ("protection: 1", "PROTECTION"),
    ("vmstatestorage: local", "STORAGE_SETTING"), ("freeze: 1", "KEY_UNKNOWN"), ("nosuchkey: 1", "KEY_UNKNOWN"),
    ("vmstate: local:100/vm-100-state-x.raw", "KEY_UNKNOWN"), ("runningmachine: q35", "KEY_UNKNOWN"),
    ("name: ü", "NOT_ASCII"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "code"), KEYS, ids=[line for line, _code in KEYS])
def test_key_is_refused(line, code):
    assert found(with_line(line)) == [(code, line.partition(":")[0])]


@pytest.mark.parametrize(
    "line",
    ["protection: 0", "freeze: 0", "template: 0", "vga: virtio,memory=32", "vga: serial0", "vga: none",
     "cpu: host,flags=+aes",
     "numa0: cpus=0-1,memory=512", "audio0: device=AC97,driver=none", "description: %C3%BC", "kvm: 0", "cpulimit: 2",
     "watchdog: model=i6300esb,action=reset", "startup: order=2"],
)  # fmt: skip
def test_key_is_taken(line):
    assert found(with_line(line)) == []


DRIVES = [
    ("ide2: local:iso/debian.iso,media=cdrom", "CDROM_IMAGE"), ("ide2: cdrom,media=cdrom", "CDROM_HOST"),
    ("scsi1: /dev/disk/by-id/x,size=1G", "PATH_DRIVE"), ("scsi1: local:101/vm-101-disk-0.raw", "VOLUME_FOREIGN"),
    ("scsi1: local:1000/vm-1000-disk-0.raw", "VOLUME_FOREIGN"), ("scsi1: iscsi:0.0.0.scsi-x", "VOLUME_FOREIGN"),
    ("scsi1: local:9/base-9-disk-0.raw/100/vm-100-disk-0.qcow2", "LINKED_CLONE"),
    ("scsi1: rbd:base-9-disk-0/vm-100-disk-1", "LINKED_CLONE"),
    ("scsi1: local:100/base-100-disk-0.raw", "LINKED_CLONE"),
    ("scsi1: local:100/vm-100-disk-9.raw,snapshot=1", "DRIVE_OPTION"),
    ("scsi1: local:100/vm-100-disk-9.raw,ro=1", "DRIVE_OPTION"),
    ("scsi1: local:100/vm-100-disk-9.raw,new-option=1", "DRIVE_OPTION"),
    ("scsi1: local:100/vm-100-disk-9.vmdk", "FORMAT_UNSUPPORTED"), (f"scsi1: {DISK}", "VOLUME_TWICE"),
    (f"unused0: {DISK}", "VOLUME_TWICE"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "code"), DRIVES, ids=[line for line, _code in DRIVES])
def test_drive_is_refused(line, code):
    assert found(with_line(line)) == [(code, line.partition(":")[0])]


@pytest.mark.parametrize(
    ("line", "code"),
    [("net1: virtio=BC:24:11:58:B8:24", "NIC_WITHOUT_BRIDGE"), ("net1: model=virtio,bridge=vmbr0", "NIC_WITHOUT_MAC"),
     ("net1: virtio=BC:24:11:58:B8:24,bridge=vmbr0,new=1", "NIC_OPTION")],
)  # fmt: skip
def test_nic_is_refused(line, code):
    assert found(with_line(line)) == [(code, "net1")]


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"ha_state": "ignored"}, "HA_RESOURCE"), ({"replicated": True}, "REPLICATED"),
     ({"backup_running": True}, "BACKUP_RUNNING"),
     ({"running": False}, "VM_STOPPED")],
    ids=str,
)  # fmt: skip
def test_state_is_refused(changes, code):
    assert found(**changes) == [(code, "VM 100")]


def test_stopped_vm_moves_when_asked_for():
    assert found(running=False, offline=True) == []


@pytest.mark.parametrize("word", ["backup", "migrate", "snapshot", "suspended"])
def test_foreign_lock_is_refused(word):
    assert found(PLAIN + f"lock: {word}\n") == [("LOCK_FOREIGN", "VM 100")]
    assert found(PLAIN + f"lock: {word}\n", own_lock=word) == []


@pytest.mark.parametrize(
    ("text", "code", "what"),
    [(PLAIN + "[s1]\ncores: 1\n", "SNAPSHOTS", "VM 100"), (PLAIN + "parent: s1\n", "SNAPSHOTS", "VM 100"),
     (PLAIN + "[PENDING]\ncores: 4\n", "PENDING_CHANGES", "VM 100"), (PLAIN + "template: 1\n", "TEMPLATE", "VM 100"),
     (PLAIN + "[special:fleecing]\nx: 1\n", "BACKUP_RUNNING", "VM 100"),
     (PLAIN + "[special:new]\nx: 1\n", "KEY_UNKNOWN", "[special:new]"),
     (PLAIN.replace("smbios1: uuid=0ce88e34-1edf-4663-9f3e-93fb78cddf2e\n", ""), "UUID_MISSING", "VM 100")],
    ids=["snapshot", "parent", "pending", "template", "fleecing", "special", "uuid"],
)  # fmt: skip
def test_section_is_refused(text, code, what):
    assert found(text) == [(code, what)]


def test_volume_with_a_backing_image_is_refused():
    assert found(volumes={DISK: VolumeFacts("qcow2", "base.qcow2")}) == [("LINKED_CLONE", "scsi0")]


def test_volume_another_vm_names_is_refused():
    assert found(references={DISK: [101, 102]}) == [("VOLUME_SHARED", "scsi0")]


def test_missing_places_are_refused():
    assert found(disks={}, nics={}) == [("STORAGE_UNMAPPED", "disks.scsi0"), ("BRIDGE_UNMAPPED", "nics.net0")]


def test_places_of_nothing_are_refused():
    disks, nics = {**FACTS.disks, "scsi9": DiskPlace("x")}, {**FACTS.nics, "net9": NicPlace("x")}
    assert found(disks=disks, nics=nics) == [("DISK_UNKNOWN", "disks.scsi9"), ("NIC_UNKNOWN", "nics.net9")]


def test_format_of_an_import_cannot_change():
    disks = {"default": DiskPlace("fast", "raw")}
    assert found(disks=disks) == []
    assert found(disks=disks, running=False, offline=True) == [("FORMAT_FIXED", "disks.scsi0")]


def test_import_from_zfs_is_refused():
    assert found(storage_types={"local": "zfspool"}) == []
    for kind in ("zfspool", "zfs", "iscsi", "iscsidirect"):
        assert found(storage_types={"local": kind}, running=False, offline=True) == [("EXPORT_UNSUPPORTED", "scsi0")]
    for kind in ("dir", "btrfs"):
        assert found(storage_types={"local": kind}, running=False, offline=True) == []


@pytest.mark.parametrize("kind", ["lvm", "lvmthin", "rbd"])
@pytest.mark.parametrize(("image", "refused"), [("raw", []), ("qcow2", [("EXPORT_UNSUPPORTED", "scsi0")])])
def test_only_raw_images_leave_a_storage_without_files(kind, image, refused):
    volumes = {DISK: VolumeFacts(image)}
    assert found(storage_types={"local": kind}, running=False, offline=True, volumes=volumes) == refused


def test_volume_that_nothing_can_read_is_refused_before_it_is_exported():
    volumes = {DISK: VolumeFacts("qcow2", inactive=True)}
    assert found(volumes=volumes) == []  # mirrored by the QEMU that has it open
    assert found(running=False, offline=True, volumes=volumes) == [("VOLUME_INACTIVE", "scsi0")]


def test_every_refusal_is_named_at_once():
    text = PLAIN + "args: -x\nhostpci0: 00:01.0\nlock: backup\n[s1]\ncores: 1\n"
    assert [code for code, _object in found(text)] == ["LOCK_FOREIGN", "SNAPSHOTS", "ROOT_ONLY_KEY", "LOCAL_DEVICE"]


def test_value_that_cannot_be_understood_is_a_refusal():
    assert found(with_line("vga: std,std")) == [("CONFIG_INVALID", "vga")]


def test_refusals_say_what_to_do():
    for line, _code in KEYS + DRIVES:
        for reason in refusals(VmConfig.parse(with_line(line)), FACTS):
            assert reason.message
            assert reason.remedy
