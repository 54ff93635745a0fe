# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ids and addresses on the QEMU command line."""

from __future__ import annotations

from lab.node.base import Node
from lab.node.command_line import Extras, build, machine_type, nics, tap_name

VALUES = {
    "kvm": "0",
    "memory": "192",
    "scsihw": "virtio-scsi-pci",
    "scsi0": "local:100/vm-100-disk-0.qcow2,size=1G",
    "serial0": "socket",
    "virtio1": "local:100/vm-100-disk-1.raw,cache=writeback,serial=abc",
    "efidisk0": "local:100/vm-100-disk-2.raw,size=528K",
    "tpmstate0": "local:100/vm-100-disk-3.raw,size=4M",
    "ide2": "none,media=cdrom",
    "boot": "order=scsi0;net0",
    "net0": "virtio=BC:24:11:0C:7D:64,bridge=nosuch0",
}


NO_EXTRAS = Extras()


def command(extras: Extras = NO_EXTRAS, **more: str) -> "list[str]":
    return build(Node(root="/nonexistent", name="alpha1"), 100, {**VALUES, **more}, extras)


def test_machine_types_lose_their_suffix() -> None:
    assert machine_type("pc-q35-7.2+pve0,viommu=intel") == "pc-q35-7.2"
    assert machine_type(None) == "pc"


def test_drives_carry_proxmox_ids_and_no_image_lock() -> None:
    words = command()
    drives = [words[index + 1] for index, word in enumerate(words) if word == "-drive"]
    assert [drive.split("id=drive-")[1].split(",")[0] for drive in drives] == ["ide2", "efidisk0", "scsi0", "virtio1"]
    assert all("file.locking=off" in drive for drive in drives if "file=" in drive)
    assert "cache=none" in drives[2]
    assert "cache=writeback" in drives[3]
    assert "scsi-hd,bus=scsihw0.0,channel=0,scsi-id=0,lun=0,drive=drive-scsi0,id=scsi0,bootindex=100" in words
    assert "virtio-blk-pci,drive=drive-virtio1,id=virtio1,bus=pci.0,addr=0xb,serial=abc" in words


def test_an_efi_disk_is_the_second_flash() -> None:
    words = command(bios="ovmf", efidisk0="local:100/vm-100-disk-2.raw,efitype=4m,size=4M")
    drives = [
        words[index + 1] for index, word in enumerate(words) if word == "-drive" and "efidisk0" in words[index + 1]
    ]
    assert len(drives) == 1
    assert drives[0].startswith("if=pflash,unit=1,id=drive-efidisk0,format=raw,file=")
    assert drives[0].endswith(",size=540672")
    assert words.index("-drive") < words.index("-smp")


def test_a_tpm_is_a_volume_only() -> None:
    assert not any("tpm" in word for word in command())


def test_an_incoming_start_waits_paused_with_the_sources_machine_and_mtu() -> None:
    words = command(Extras("unix:/run/qemu-server/100.migrate", "pc-q35-7.2+pve0", "Nehalem", {"net0": 1400}))
    assert words[-3:] == ["-incoming", "unix:/run/qemu-server/100.migrate", "-S"]
    assert words[words.index("-cpu") + 1] == "Nehalem"
    assert words[words.index("-machine") + 1].endswith("type=pc-q35-7.2")
    assert any("host_mtu=1400" in word for word in words)


def test_the_controller_precedes_its_first_disk() -> None:
    words = command(scsihw="virtio-scsi-single", scsi1="local:100/vm-100-disk-4.raw,iothread=1")
    assert words.index("virtio-scsi-pci,id=virtioscsi1,bus=pci.3,addr=0x2,iothread=iothread-virtioscsi1") < next(
        index for index, word in enumerate(words) if "drive=drive-scsi1" in word
    )


def test_nics() -> None:
    assert nics({"net1": "e1000=AA:BB:CC:00:00:01,bridge=vmbr1,tag=7", "name": "x"}) == {
        "net1": {"model": "e1000", "macaddr": "AA:BB:CC:00:00:01", "bridge": "vmbr1", "tag": "7"}
    }
    assert tap_name(100, "net1") == "tap100i1"
