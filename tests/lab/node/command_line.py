# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The QEMU command line of a VM: ids, buses and addresses as Proxmox gives them, on upstream QEMU under TCG.

Differences, all deliberate: no `-id` and no `+pveN` machine suffix (upstream knows neither); no event monitor; with
`bios: ovmf` the flash of the firmware holds SeaBIOS (the one of the variables is the EFI disk); a TPM is a volume only;
image locks are off, as in Proxmox's own QEMU; aio is `threads` where the real one takes io_uring.
"""

from __future__ import annotations

import json
import os
import re
import socket
from dataclasses import dataclass, field
from typing import Dict, List, Mapping, Optional, Tuple

from . import schema
from .base import Die, Node
from .properties import drive_keys, parse_drive, parse_list
from .storage import Storages

__all__ = ["Extras", "bridge_exists", "build", "guest_files", "machine_type", "nics", "tap_name"]

RUN = "/run/qemu-server"
GUEST_FILE = "/run/lab-guest.json"
SERIAL_LOGS = "/run/lab-serial"
# The guest is booted by -kernel, which SeaBIOS does in a second; OVMF would take half a minute of emulation.
FIRMWARE = "/usr/share/seabios/bios-256k.bin"
EFI_VARIABLES = {"4m": 540672, "2m": 131072}  # bytes by efitype; a volume may be larger, the flash is not
NIC_SLOTS = {index: 18 + index for index in range(6)}


@dataclass(frozen=True)
class Extras:
    """What a start adds to the config: incoming URI, machine and CPU of the source, MTU of its NICs."""

    incoming: Optional[str] = None
    forcemachine: Optional[str] = None
    forcecpu: Optional[str] = None
    host_mtu: Mapping[str, int] = field(default_factory=dict)
    iothreads: bool = True


def machine_type(text: Optional[str]) -> str:
    """Machine type for QEMU: without Proxmox's +pveN."""
    kind = parse_list(text or "pc", "type").get("type", "pc")
    return re.sub(r"\+pve\d+", "", kind) or "pc"


def nics(values: Mapping[str, str]) -> Dict[str, Dict[str, str]]:
    """NICs of a config: key -> properties with "model" and "macaddr"."""
    found = {}
    for key in sorted((key for key in values if re.fullmatch(r"net\d+", key)), key=lambda key: int(key[3:])):
        properties = parse_list(values[key], "model")
        for model in [name for name in properties if name in schema.NIC_MODELS]:
            properties = {"model": model, "macaddr": properties.pop(model), **properties}
        found[key] = properties
    return found


def tap_name(vmid: int, key: str) -> str:
    """Host side of a NIC."""
    return f"tap{vmid}i{key[3:]}"


def guest_files(node: Node, values: Mapping[str, str]) -> Optional[Dict[str, str]]:
    """Kernel, initrd and append of the lab's guest, for VMs tagged labguest."""
    if "labguest" not in re.split(r"[;,\s]+", values.get("tags", "")):
        return None
    try:
        return json.loads(node.path(GUEST_FILE).read_text("utf-8")) or None
    except FileNotFoundError:
        return None


def build(node: Node, vmid: int, values: Mapping[str, str], extras: Extras = Extras()) -> List[str]:
    """The argument list, without the program."""
    return _Builder(node, vmid, values, extras).build()


class _Builder:
    def __init__(self, node: Node, vmid: int, values: Mapping[str, str], extras: Extras) -> None:
        self.node, self.vmid, self.values, self.extras = node, vmid, values, extras
        self.machine = machine_type(extras.forcemachine or values.get("machine"))
        self.q35 = "q35" in self.machine
        self.out: List[str] = []
        self.bootindex = self._boot_order()

    def path(self, name: str) -> str:
        return str(self.node.path(f"{RUN}/{self.vmid}.{name}"))

    def add(self, *words: str) -> None:
        self.out += words

    def build(self) -> List[str]:
        self._process()
        self._firmware()
        self._processor()
        self._buses()
        self._serial()
        self._small_devices()
        for key in drive_keys(self.values):
            self._drive(key, parse_drive(self.values[key]))
        for key, nic in nics(self.values).items():
            self._nic(key, nic)
        self._machine()
        self._guest()
        if self.extras.incoming:
            self.add("-incoming", self.extras.incoming, "-S")
        return self.out

    def _process(self) -> None:
        name = self.values.get("name", f"vm{self.vmid}")
        self.add("-name", name, "-no-shutdown")
        self.add(
            "-chardev", f"socket,id=qmp,path={self.path('qmp')},server=on,wait=off", "-mon", "chardev=qmp,mode=control"
        )
        events = self.node.path("/run/qmeventd.sock")
        self.add("-chardev", f"socket,id=qmp-event,path={events},reconnect=5", "-mon", "chardev=qmp-event,mode=control")
        self.add("-pidfile", self.path("pid"), "-daemonize")

    def _firmware(self) -> None:
        smbios = self.values.get("smbios1")
        if smbios:
            known = {key: value for key, value in parse_list(smbios).items() if key != "base64"}
            self.add("-smbios", "type=1," + ",".join(f"{key}={value}" for key, value in known.items()))
        if self.values.get("bios") == "ovmf":
            self._flash()

    def _flash(self) -> None:
        self.add("-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={FIRMWARE}")
        if "efidisk0" not in self.values:
            return
        drive = parse_drive(self.values["efidisk0"])
        path, form = self._image(drive)
        size = f",size={EFI_VARIABLES[drive.get('efitype', '2m')]}" if form == "raw" else ""
        self.add("-drive", f"if=pflash,unit=1,id=drive-efidisk0,format={form},file={path},file.locking=off{size}")

    def _processor(self) -> None:
        sockets, cores = int(self.values.get("sockets", "1")), int(self.values.get("cores", "1"))
        count = int(self.values.get("vcpus", sockets * cores))
        self.add("-smp", f"{count},sockets={sockets},cores={cores},maxcpus={sockets * cores}", "-nodefaults")
        self.add("-boot", "menu=on,strict=on,reboot-timeout=1000")
        self.add("-vga", "none", "-nographic")
        self.add("-cpu", self.extras.forcecpu or self._cpu())
        self.add("-m", parse_list(self.values.get("memory", "512"), "current")["current"])

    def _cpu(self) -> str:
        properties = parse_list(self.values.get("cpu", ""), "cputype")
        kind = properties.get("cputype", "qemu64" if self.values.get("kvm") == "0" else "kvm64")
        kind = {"x86-64-v2": "Nehalem", "x86-64-v2-AES": "Westmere", "x86-64-v3": "max", "kvm64": "qemu64"}.get(
            kind, kind
        )
        flags = [flag for flag in properties.get("flags", "").split(";") if flag]
        return ",".join([kind, *flags])

    def _buses(self) -> None:
        if self.q35:
            self.add("-device", "i82801b11-bridge,id=pcidmi,bus=pcie.0,addr=1e.0")
            for number, address in ((0, "1.0"), (1, "2.0"), (2, "3.0")):
                self.add("-device", f"pci-bridge,id=pci.{number},bus=pcidmi,addr={address},chassis_nr={number + 1}")
        else:
            self.add("-global", "PIIX4_PM.disable_s3=1", "-global", "PIIX4_PM.disable_s4=1")
            self.add("-device", "pci-bridge,id=pci.1,chassis_nr=1,bus=pci.0,addr=0x1e")
            self.add("-device", "pci-bridge,id=pci.2,chassis_nr=2,bus=pci.0,addr=0x1f")

    def _serial(self) -> None:
        for key in sorted(key for key in self.values if re.fullmatch(r"serial[0-3]", key)):
            if self.values[key] != "socket":
                raise Die(f"no such serial device '{self.values[key]}'")
            log = f",logfile={self._serial_log(key)},logappend=on" if self._serial_log(key) else ""
            self.add("-chardev", f"socket,id={key},path={self.path(key)},server=on,wait=off{log}")
            self.add("-device", f"isa-serial,chardev={key}")

    def _serial_log(self, key: str) -> Optional[str]:
        directory = self.node.path(SERIAL_LOGS)
        return str(directory / f"{self.vmid}.{key}.log") if directory.is_dir() else None

    def _small_devices(self) -> None:
        genid = self.values.get("vmgenid", "0")
        if genid not in ("0", "1"):
            self.add("-device", f"vmgenid,guid={genid}")
        if parse_list(self.values.get("agent", "0"), "enabled").get("enabled") == "1":
            self.add("-chardev", f"socket,path={self.path('qga')},server=on,wait=off,id=qga0")
            self.add("-device", "virtio-serial,id=qga0,bus=pci.0,addr=0x8")
            self.add("-device", "virtserialport,chardev=qga0,name=org.qemu.guest_agent.0")
        if self.values.get("balloon") != "0":
            self.add("-device", "virtio-balloon-pci,id=balloon0,bus=pci.0,addr=0x3,free-page-reporting=on")
        if "rng0" in self.values:
            source = parse_list(self.values["rng0"], "source").get("source", "/dev/urandom")
            self.add("-object", f"rng-random,filename={source},id=rng0")
            self.add("-device", "virtio-rng-pci,rng=rng0,max-bytes=1024,period=1000,bus=pci.1,addr=0x1d")

    # drives

    def _drive(self, key: str, drive: Mapping[str, str]) -> None:
        if key == "tpmstate0" or (key == "efidisk0" and self.values.get("bios") == "ovmf"):
            return
        self.add("-drive", self._drive_string(key, drive))
        if key != "efidisk0":
            self.add("-device", self._device(key, drive))

    def _drive_string(self, key: str, drive: Mapping[str, str]) -> str:
        words = [f"if=none,id=drive-{key}"]
        cdrom = drive.get("media") == "cdrom"
        if cdrom:
            words.append("media=cdrom")
        if drive["file"] != "none":
            path, form = self._image(drive)
            words = [f"file={path},file.locking=off", *words, f"format={form}"]
        words += [
            f"{name}={drive[name]}" for name in ("discard", "cache", "rerror", "werror", "snapshot") if name in drive
        ]
        if not cdrom and "cache" not in drive and key != "efidisk0":
            words.append("cache=none")
        words.append("aio=threads")
        if not cdrom and key != "efidisk0" and drive.get("detect_zeroes") != "0":
            words.append("detect-zeroes=" + ("unmap" if drive.get("discard") == "on" else "on"))
        return ",".join(words)

    def _image(self, drive: Mapping[str, str]) -> Tuple[str, str]:
        volid = drive["file"]
        if volid.startswith("/"):
            return volid, drive.get("format", "raw")
        storages = Storages(self.node)
        storage, name = storages.split(volid)
        form = "raw" if name.startswith("iso/") else storages.owner_and_format(storage, name)[1]
        return storages.real_path(volid), drive.get("format", form)

    def _device(self, key: str, drive: Mapping[str, str]) -> str:
        kind, index = re.sub(r"\d+$", "", key), int(re.sub(r"^\D+", "", key))
        boot = f",bootindex={self.bootindex[key]}" if key in self.bootindex else ""
        serial = f",serial={drive['serial']}" if "serial" in drive else ""
        medium = "cd" if drive.get("media") == "cdrom" else "hd"
        tail = f"drive=drive-{key},id={key}"
        if kind == "virtio":
            thread = self._iothread(f"iothread-{key}") if drive.get("iothread") == "1" else ""
            return f"virtio-blk-pci,{tail},bus=pci.0,addr={hex(10 + index)}{thread}{boot}{serial}"
        if kind == "scsi":
            return self._scsi(index, medium, drive) + f",{tail}{boot}{serial}" + self._rotation(drive)
        if kind == "sata":
            self._once("ahci0", "ahci,id=ahci0,multifunction=on,bus=pci.0,addr=0x7")
            return f"ide-{medium},bus=ahci0.{index},{tail}{boot}{serial}"
        bus, unit = (index, 0) if self.q35 else (index // 2, index % 2)
        return f"ide-{medium},bus=ide.{bus},unit={unit},{tail}{boot}{serial}"

    def _scsi(self, index: int, medium: str, drive: Mapping[str, str]) -> str:
        kind = self.values.get("scsihw", "lsi")
        if kind == "virtio-scsi-single":
            self._once("pci.3", "pci-bridge,id=pci.3,chassis_nr=4,bus=pci.0,addr=0x5")
            bus = f"virtioscsi{index}"
            thread = self._iothread(f"iothread-{bus}") if drive.get("iothread") == "1" else ""
            self._once(bus, f"virtio-scsi-pci,id={bus},bus=pci.3,addr={hex(index + 1)}{thread}")
            return f"scsi-{medium},bus={bus}.0,channel=0,scsi-id=0,lun={index}"
        device = {"lsi": "lsi53c895a"}.get(kind, kind)
        self._once("scsihw0", f"{device},id=scsihw0,bus=pci.0,addr=0x5")
        if kind.startswith("virtio"):
            return f"scsi-{medium},bus=scsihw0.0,channel=0,scsi-id=0,lun={index}"
        return f"scsi-{medium},bus=scsihw0.0,scsi-id={index}"

    def _rotation(self, drive: Mapping[str, str]) -> str:
        return ",rotation_rate=1" if drive.get("ssd") == "1" else ""

    def _iothread(self, name: str) -> str:
        if not self.extras.iothreads:
            return ""
        if f"iothread,id={name}" not in self.out:
            self.add("-object", f"iothread,id={name}")
        return f",iothread={name}"

    def _once(self, ident: str, device: str) -> None:
        if device not in self.out:
            # the controller precedes the -drive of its first disk
            position = len(self.out) - 2
            self.out[position:position] = ["-device", device]

    def _boot_order(self) -> Dict[str, int]:
        order = parse_list(self.values.get("boot", ""), "legacy").get("order", "")
        return {key: 100 + position for position, key in enumerate(word for word in order.split(";") if word)}

    # network, machine, guest

    def _nic(self, key: str, nic: Mapping[str, str]) -> None:
        index = int(key[3:])
        if tun_usable() and nic.get("bridge"):
            name = tap_name(self.vmid, key)
            self.add("-netdev", f"type=tap,id={key},ifname={name},script=no,downscript=no")
        else:
            self.add("-netdev", f"hubport,id={key},hubid={100 + index}")
        model = {"virtio": "virtio-net-pci"}.get(nic["model"], nic["model"])
        bus = f"bus=pci.0,addr={hex(NIC_SLOTS[index])}" if index in NIC_SLOTS else f"bus=pci.1,addr={hex(index - 5)}"
        boot = f",bootindex={self.bootindex[key]}" if key in self.bootindex else ""
        extra = ",romfile="
        if model == "virtio-net-pci":
            extra = ",rx_queue_size=1024,tx_queue_size=256,romfile=" + self._mtu(key, nic)
        self.add("-device", f"{model},mac={nic.get('macaddr', '')},netdev={key},{bus},id={key}{boot}{extra}")

    def _mtu(self, key: str, nic: Mapping[str, str]) -> str:
        if key in self.extras.host_mtu:
            mtu = self.extras.host_mtu[key]
        else:
            mtu = int(nic.get("mtu", "1"))
            mtu = bridge_mtu(nic.get("bridge", "")) if mtu == 1 else mtu
        return f",host_mtu={mtu}" if mtu else ""

    def _machine(self) -> None:
        accelerator = "tcg" if self.values.get("kvm") == "0" else "kvm"
        self.add("-machine", f"accel={accelerator},smm=off,type={self.machine}")

    def _guest(self) -> None:
        guest = guest_files(self.node, self.values)
        if guest is not None:
            self.add("-kernel", guest["kernel"], "-initrd", guest["initrd"], "-append", self._append(guest))

    def _append(self, guest: Mapping[str, str]) -> str:
        # "labguest <words>" in the first line of the notes reaches the guest's kernel command line
        own = re.search(r"^labguest (.+)$", self.values.get("description", ""), re.MULTILINE)
        return " ".join([guest.get("append", ""), *([own[1]] if own else [])]).strip()


def tun_usable() -> bool:
    """Whether tap devices can be made here; makes the device file if it is missing."""
    try:
        os.makedirs("/dev/net", exist_ok=True)
        if not os.path.exists("/dev/net/tun"):
            os.mknod("/dev/net/tun", 0o20666, os.makedev(10, 200))
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError:
        return False
    return os.environ.get("LAB_NO_TAP", "") == ""


def bridge_mtu(name: str) -> int:
    """MTU of a bridge in bytes, 1500 when it cannot be read."""
    try:
        with open(f"/sys/class/net/{name}/mtu", encoding="ascii") as stream:
            return min(int(stream.read()), 65535)
    except (OSError, ValueError):
        return 1500


def bridge_exists(name: str) -> bool:
    """Whether an interface of that name is up in this network namespace."""
    try:
        return bool(name) and len(name) < 16 and socket.if_nametoindex(name) > 0
    except OSError:
        return False
