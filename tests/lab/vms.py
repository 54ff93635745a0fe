# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs of the lab, made from outside as an administrator would have: volumes, a config in Proxmox's format, qm start."""

from __future__ import annotations

import os
import re
import subprocess
import uuid as uuids
from dataclasses import dataclass, field
from pathlib import Path

from .cluster_files import SMALL_STORAGE, STORAGES, THIN_STORAGE
from .hosts import Host

__all__ = ["EFI_MIB", "GUEST_TAG", "Disk", "Vm", "config_text", "create_vm", "image_paths", "read_config", "size_text"]

GUEST_TAG = "labguest"
MACHINE = "pc-q35-7.2"  # lab.md 3: exists in every QEMU of the lab
CPU = "qemu64"
DATA_START_MIB = 8  # behind the recorder's ring, which only volumes of at least that size have
EFI_MIB = 528 / 1024  # of `efitype=4m`
STORAGE_PATHS = {**STORAGES, SMALL_STORAGE[0]: SMALL_STORAGE[1]}
DRIVE_KEY = re.compile(r"(?:scsi|virtio|sata|ide|efidisk|tpmstate|unused)\d+")
MIB = 1 << 20


@dataclass(frozen=True)
class Disk:
    """A disk to make: its config key, where, how big, and how much of it holds random data from the start.

    The fraction of a MiB is for EFI disks (EFI_MIB); Proxmox names a cloud-init image `cloudinit` instead of disk-N.
    """

    key: str = "scsi0"
    storage: str = "fast"
    size_mib: float = 64
    format: str = "raw"
    fill_mib: int = 0
    options: str = ""
    name: str = ""

    @classmethod
    def parse(cls, text: str, number: int) -> Disk:
        """STORAGE:MIB[:FORMAT]."""
        words = text.split(":")
        if len(words) not in (2, 3) or words[0] not in STORAGE_PATHS or not words[1].isdigit():
            raise ValueError("disk %r: STORAGE:MIB[:raw|qcow2], storage one of %s" % (text, ", ".join(STORAGE_PATHS)))
        return cls("scsi%d" % number, words[0], int(words[1]), words[2] if len(words) > 2 else "raw")


@dataclass
class Vm:
    """A VM as it was made."""

    vmid: int
    name: str
    uuid: str
    host: Host
    disks: list[Disk] = field(default_factory=list)
    volumes: dict[str, str] = field(default_factory=dict)

    def config(self) -> dict[str, str]:
        """The current config where it was made."""
        return read_config(self.host, self.vmid)


def size_text(mib: float) -> str:
    """A size as Proxmox writes it: 4G, 64M, 528K."""
    if mib % 1:
        return "%dK" % (mib * 1024)
    return "%dG" % (mib // 1024) if mib % 1024 == 0 else "%dM" % mib


def config_text(values: dict[str, str]) -> str:
    """A config file's text: keys sorted, one per line."""
    return "".join("%s: %s\n" % (key, values[key]) for key in sorted(values))


def read_config(host: Host, vmid: int) -> dict[str, str]:
    """A VM's config on a host: the keys of its main section."""
    text = Path(host.path("/etc/pve/nodes/%s/qemu-server/%d.conf" % (host.node, vmid))).read_text(encoding="utf-8")
    found = {}
    for line in text.split("\n["):
        for each in line.splitlines():
            key, colon, value = each.partition(": ")
            if colon and not each.startswith("#"):
                found[key] = value
        break
    return found


def image_paths(host: Host, vmid: int) -> dict[str, Path]:
    """Config key to image file, as seen from the machine, of every disk in a VM's config."""
    found = {}
    for key, value in read_config(host, vmid).items():
        storage, colon, rest = value.partition(":")
        if DRIVE_KEY.fullmatch(key) and storage == THIN_STORAGE[0] and colon:
            found[key] = Path(host.path("%s/%s" % (THIN_STORAGE[1], rest.split(",")[0])))
        if not DRIVE_KEY.fullmatch(key) or not colon or storage not in STORAGE_PATHS or "media=cdrom" in value:
            continue
        found[key] = Path(host.path("%s/images/%s" % (STORAGE_PATHS[storage], rest.split(",")[0])))
    return found


def create_vm(
    host: Host,
    vmid: int,
    name: str,
    *,
    disks: list[Disk] | None = None,
    memory: int = 128,
    cores: int = 1,
    bridges: tuple[str, ...] = ("vmbr0",),
    machine: str = MACHINE,
    cpu: str = CPU,
    guest: bool = True,
    start: bool = True,
    uuid: str = "",
    extra: dict[str, str] | None = None,
    guest_words: str = "",
) -> Vm:
    """Make a VM on a host and start it. guest: it boots the lab's guest (the tag makes qm start say so to QEMU).

    extra overrides or adds config lines; a value "" takes a line away. memory in MiB (96 is the guest's floor).
    guest_words go to the guest's kernel command line (worker.c: "rate=20 set=64"), by way of the VM's notes.
    """
    vm = Vm(vmid, name, uuid or str(uuids.uuid4()), host, list(disks if disks is not None else [Disk()]))
    values = {
        "agent": "1",
        "cores": str(cores),
        "cpu": cpu,
        "kvm": "0",
        "machine": machine,
        "memory": str(memory),
        "meta": "creation-qemu=7.2.0,ctime=1750000000",
        "name": name,
        "numa": "0",
        "ostype": "l26",
        "scsihw": "virtio-scsi-single",
        "serial0": "socket",
        "smbios1": "uuid=" + vm.uuid,
        "sockets": "1",
        "vga": "none" if guest else "std",
        "vmgenid": str(uuids.uuid4()),
    }
    if guest:
        values["tags"] = GUEST_TAG
    for disk in vm.disks:
        vm.volumes[disk.key] = _make_volume(host, vmid, disk)
        values[disk.key] = "%s%s,size=%s" % (
            vm.volumes[disk.key],
            disk.options and "," + disk.options,
            size_text(disk.size_mib),
        )
    for number, bridge in enumerate(bridges):
        values["net%d" % number] = "virtio=%s,bridge=%s" % (_mac(vm.uuid, number), bridge)
    boot = [disk.key for disk in vm.disks[:1]] + ["net%d" % number for number in range(len(bridges[:1]))]
    values["boot"] = "order=" + ";".join(boot)
    values.update(extra or {})
    path = Path(host.path("/etc/pve/nodes/%s/qemu-server/%d.conf" % (host.node, vmid)))
    notes = "#labguest %s\n" % guest_words if guest_words else ""
    path.write_text(notes + config_text({key: value for key, value in values.items() if value}), encoding="utf-8")
    path.chmod(0o640)
    if start:
        host.run(["qm", "start", str(vmid)])
    return vm


def _mac(uuid: str, number: int) -> str:
    digits = uuid.replace("-", "")
    return "BC:24:11:%s:%s:%02X" % (digits[0:2].upper(), digits[2:4].upper(), (int(digits[4:6], 16) + number) % 256)


def _make_volume(host: Host, vmid: int, disk: Disk) -> str:
    """Allocate an image as Proxmox names them and return its volume id."""
    if disk.storage == THIN_STORAGE[0]:
        return _make_device(host, vmid, disk)
    directory = Path(host.path("%s/images/%d" % (STORAGE_PATHS[disk.storage], vmid)))
    directory.mkdir(parents=True, exist_ok=True)
    number = 0
    while any(directory.glob("vm-%d-disk-%d.*" % (vmid, number))):
        number += 1
    name = "vm-%d-%s.%s" % (vmid, disk.name or "disk-%d" % number, disk.format)
    path = directory / name
    if not disk.fill_mib:
        options = ["-o", "preallocation=metadata"] if disk.format == "qcow2" else []
        _qemu_img(["create", "-q", "-f", disk.format, *options, str(path), size_text(disk.size_mib)])
    else:
        raw = path if disk.format == "raw" else path.with_suffix(".filling")
        size = int(disk.size_mib * MIB)
        start = DATA_START_MIB * MIB if disk.size_mib >= DATA_START_MIB else 0
        with open(raw, "wb") as image:
            image.truncate(size)
            image.seek(start)
            for place in range(start, min(start + disk.fill_mib * MIB, size), MIB):
                image.write(os.urandom(min(MIB, size - place)))
        if raw != path:
            _qemu_img(["convert", "-q", "-O", disk.format, str(raw), str(path)])
            raw.unlink()
    path.chmod(0o640)
    return "%s:%d/%s" % (disk.storage, vmid, name)


def _make_device(host: Host, vmid: int, disk: Disk) -> str:
    """The same on the storage that is no directory; the node's own pvesm knows how its devices come about."""
    said = host.run(
        ["pvesm", "alloc", disk.storage, str(vmid), "", str(int(disk.size_mib * 1024)), "--format", disk.format]
    ).stdout
    volid = said.rpartition("successfully created '")[2].rstrip("'\n")
    with open(host.path("%s/%s" % (THIN_STORAGE[1], volid.partition(":")[2])), "r+b") as image:
        image.seek(DATA_START_MIB * MIB)
        for _ in range(max(0, min(disk.fill_mib, int(disk.size_mib) - DATA_START_MIB))):
            image.write(os.urandom(MIB))
    return volid


def _qemu_img(arguments: list[str]) -> None:
    done = subprocess.run(["qemu-img", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError("qemu-img %s: %s" % (arguments[0], done.stderr.strip()))
