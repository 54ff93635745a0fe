# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of a VM config: types, error texts, who may set them (mtunnel-protocol 2.6, 5.4 and 9.3)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Set, Tuple, Union

from .base import Die
from .formats import FormatError, Member, check_members
from .properties import is_drive, parse_drive, split_volid

__all__ = [
    "LOCK_WORDS",
    "Kind",
    "Option",
    "is_cdrom",
    "is_cloudinit",
    "known",
    "normalise",
    "option",
    "privileges",
    "root_only",
    "stored",
    "typed",
]

LOCK_WORDS = (
    "backup",
    "clone",
    "create",
    "migrate",
    "rollback",
    "snapshot",
    "snapshot-delete",
    "suspending",
    "suspended",
)


class Kind(Enum):
    """Type of a value."""

    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    STRING = "string"


@dataclass(frozen=True)
class Option:
    """One option: its type, its bounds, and the privileges a change asks for on /vms/<id>."""

    kind: Kind
    privileges: Tuple[str, ...] = ()
    any_of: bool = False
    root: bool = False
    minimum: Optional[float] = None
    maximum: Optional[float] = None
    words: Tuple[str, ...] = ()
    check: Optional[Callable[[str], None]] = None


NATURAL = {Kind.INTEGER: r"\d+", Kind.NUMBER: r"\d+(\.\d+)?"}
CPU, MEMORY, NETWORK = ("VM.Config.CPU",), ("VM.Config.Memory",), ("VM.Config.Network",)
OPTIONS, HWTYPE, DISK = ("VM.Config.Options",), ("VM.Config.HWType",), ("VM.Config.Disk",)
CDROM, POWER = ("VM.Config.CDROM",), ("VM.PowerMgmt",)
CLOUDINIT = ("VM.Config.Cloudinit", "VM.Config.Network")


def _string(privileges: Sequence[str], **more: object) -> Option:
    return Option(Kind.STRING, tuple(privileges), **more)  # type: ignore[arg-type]


def _integer(privileges: Sequence[str], minimum: Optional[float] = None, maximum: Optional[float] = None) -> Option:
    return Option(Kind.INTEGER, tuple(privileges), minimum=minimum, maximum=maximum)


def _boolean(privileges: Sequence[str], root: bool = False) -> Option:
    return Option(Kind.BOOLEAN, tuple(privileges), root=root)


def _memory(text: str) -> None:
    check_members(text, {"current": Member("integer", optional=False, minimum=16)}, "current")


def _machine(text: str) -> None:
    check_members(text, MACHINE_MEMBERS, "type")


def _agent(text: str) -> None:
    check_members(text, AGENT_MEMBERS, "enabled")


def _keys(text: str) -> Set[str]:
    return {part.partition("=")[0] for part in text.split(",") if "=" in part}


def _net(text: str) -> None:
    models = _keys(text) & NIC_MODELS
    members = {**NIC_MEMBERS, "model": Member(optional=bool(models), words=sorted(NIC_MODELS))}
    check_members(text, members, "model", {model: "macaddr" for model in models})


def _drive(text: str) -> None:
    plain = {key: Member() for key in DRIVE_KEYS if key not in DRIVE_MEMBERS}
    limits = {key: Member("number", minimum=0) for key in _keys(text) if LIMIT.fullmatch(key)}
    check_members(text, {**DRIVE_MEMBERS, **plain, **limits}, "file", {"volume": "file"})


def _hookscript(text: str) -> None:
    try:
        split_volid(text)
    except Die as error:
        raise FormatError(error.text) from None


def _uuid(text: str) -> None:
    if not re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[01]", text):
        raise ValueError("value does not match the regex pattern")


def _name(text: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.\-]*[A-Za-z0-9])?", text):
        raise FormatError("value does not look like a valid DNS name")


MACHINE = re.compile(
    r"(pc|pc(-i440fx)?-\d+(\.\d+)+(\+pve\d+)?(\.pxe)?|q35|pc-q35-\d+(\.\d+)+(\+pve\d+)?(\.pxe)?|virt(?:-\d+(\.\d+)+)?(\+pve\d+)?)"
)
NIC_MODELS = frozenset(
    [
        "e1000",
        "e1000-82540em",
        "e1000-82544gc",
        "e1000-82545em",
        "e1000e",
        "i82551",
        "i82557b",
        "i82559er",
        "ne2k_isa",
        "ne2k_pci",
        "pcnet",
        "rtl8139",
        "virtio",
        "vmxnet3",
    ]
)
MACHINE_MEMBERS = {
    "type": Member(pattern=MACHINE.pattern),
    "viommu": Member(words=("intel", "virtio")),
    "aw-bits": Member("number", minimum=32, maximum=64),
    "enable-s3": Member("boolean"),
    "enable-s4": Member("boolean"),
}
AGENT_MEMBERS = {
    "enabled": Member("boolean", optional=False),
    "fstrim_cloned_disks": Member("boolean"),
    "freeze-fs-on-backup": Member("boolean"),
    "guest-fsfreeze": Member("boolean"),
    "type": Member(words=("virtio", "isa")),
}
NIC_MEMBERS = {
    "macaddr": Member(pattern=r"[a-fA-F0-9]{2}(:[a-fA-F0-9]{2}){2,5}:?"),
    "bridge": Member(),
    "queues": Member("integer", minimum=0, maximum=64),
    "rate": Member("number", minimum=0),
    "tag": Member("integer", minimum=1, maximum=4094),
    "trunks": Member(pattern=r"\d+(?:-\d+)?(?:;\d+(?:-\d+)?)*"),
    "firewall": Member("boolean"),
    "link_down": Member("boolean"),
    "mtu": Member("integer", minimum=1, maximum=65520),
    "host_mtu": Member("integer", minimum=0, maximum=65520),
}
LIMIT = re.compile(r"(mbps|iops|bps)(_rd|_wr)?(_max)?(_length)?")
DRIVE_MEMBERS = {
    "file": Member(optional=False),
    "aio": Member(words=("native", "threads", "io_uring")),
    "backup": Member("boolean"),
    "cache": Member(words=("none", "writethrough", "writeback", "unsafe", "directsync")),
    "detect_zeroes": Member("boolean"),
    "discard": Member(words=("ignore", "on")),
    "efitype": Member(words=("2m", "4m")),
    "format": Member(words=("raw", "qcow", "qed", "qcow2", "vmdk", "cloop")),
    "iothread": Member("boolean"),
    "media": Member(words=("cdrom", "disk")),
    "replicate": Member("boolean"),
    "rerror": Member(words=("ignore", "report", "stop")),
    "ro": Member("boolean"),
    "shared": Member("boolean"),
    "size": Member(pattern=r"\d+(\.\d+)?[KMGT]?"),
    "ssd": Member("boolean"),
    "version": Member(words=("v1.2", "v2.0")),
    "werror": Member(words=("enospc", "ignore", "report", "stop")),
}
DRIVE_KEYS = frozenset(
    [
        "file",
        "volume",
        "aio",
        "backup",
        "cache",
        "cyls",
        "heads",
        "secs",
        "trans",
        "snapshot",
        "detect_zeroes",
        "discard",
        "error_policy",
        "rerror",
        "werror",
        "format",
        "media",
        "serial",
        "shared",
        "size",
        "replicate",
        "ssd",
        "iothread",
        "queues",
        "scsiblock",
        "ro",
        "wwn",
        "product",
        "vendor",
        "model",
        "efitype",
        "pre-enrolled-keys",
        "ms-cert",
        "version",
        "import-from",
    ]
)

PLAIN: Dict[str, Option] = {
    "acpi": _boolean(HWTYPE),
    "affinity": _string((), root=True),
    "agent": _string(OPTIONS, check=_agent),
    "allow-ksm": _boolean(MEMORY),
    "amd-sev": _string((), root=True),
    "arch": _string((), root=True, words=("x86_64", "aarch64")),
    "args": _string((), root=True),
    "audio0": _string(HWTYPE),
    "autostart": _boolean(OPTIONS),
    "balloon": _integer(MEMORY, 0),
    "bios": _string(OPTIONS, words=("seabios", "ovmf")),
    "boot": _string(DISK),
    "bootdisk": _string(DISK),
    "cicustom": _string(CLOUDINIT, any_of=True),
    "cipassword": _string(CLOUDINIT, any_of=True),
    "citype": _string(CLOUDINIT, any_of=True, words=("configdrive2", "nocloud", "opennebula")),
    "ciupgrade": Option(Kind.BOOLEAN, CLOUDINIT, any_of=True),
    "ciuser": _string(CLOUDINIT, any_of=True),
    "cores": _integer(CPU, 1),
    "cpu": _string(CPU),
    "cpulimit": Option(Kind.NUMBER, CPU, minimum=0, maximum=128),
    "cpuunits": _integer(CPU, 1, 262144),
    "description": _string(OPTIONS),
    "freeze": _boolean(POWER),
    "hookscript": _string((), root=True, check=_hookscript),
    "hotplug": _string(HWTYPE),
    "hugepages": _string((), root=True, words=("any", "2", "1024")),
    "intel-tdx": _string((), root=True),
    "ivshmem": _string((), root=True),
    "keephugepages": _boolean((), root=True),
    "keyboard": _string(OPTIONS),
    "kvm": _boolean(HWTYPE),
    "localtime": _boolean(OPTIONS),
    "lock": _string((), root=True, words=LOCK_WORDS),
    "machine": _string(HWTYPE, check=_machine),
    "memory": _string(MEMORY, check=_memory),
    "meta": _string(()),
    "migrate_downtime": Option(Kind.NUMBER, OPTIONS, minimum=0),
    "migrate_speed": _integer(OPTIONS, 0),
    "name": _string(OPTIONS, check=_name),
    "nameserver": _string(CLOUDINIT, any_of=True),
    "numa": _boolean(CPU),
    "onboot": _boolean(OPTIONS),
    "ostype": _string(
        OPTIONS,
        words=(
            "other",
            "wxp",
            "w2k",
            "w2k3",
            "w2k8",
            "wvista",
            "win7",
            "win8",
            "win10",
            "win11",
            "l24",
            "l26",
            "solaris",
        ),
    ),
    "parent": _string(()),
    "protection": _boolean(OPTIONS),
    "reboot": _boolean(OPTIONS),
    "rng0": _string(HWTYPE),
    "running-nets-host-mtu": _string(()),
    "scsihw": _string(HWTYPE, words=("lsi", "lsi53c810", "virtio-scsi-pci", "virtio-scsi-single", "megasas", "pvscsi")),
    "searchdomain": _string(CLOUDINIT, any_of=True),
    "shares": _integer(MEMORY, 0, 50000),
    "smbios1": _string(HWTYPE),
    "smp": _integer(CPU, 1),
    "sockets": _integer(CPU, 1),
    "spice_enhancements": _string(OPTIONS),
    "sshkeys": _string(CLOUDINIT, any_of=True),
    "startdate": _string(OPTIONS),
    "startup": _string(OPTIONS),
    "tablet": _boolean(HWTYPE),
    "tags": _string(OPTIONS),
    "tdf": _boolean(OPTIONS),
    "template": _boolean(OPTIONS),
    "vcpus": _integer(CPU, 1),
    "vga": _string(HWTYPE),
    "vmgenid": _string((), check=_uuid),
    "vmstatestorage": _string(DISK),
    "watchdog": _string(HWTYPE),
}

NUMBERED: Dict[str, Tuple[int, Option]] = {
    "net": (32, _string(NETWORK, check=_net)),
    "ipconfig": (32, _string(CLOUDINIT, any_of=True)),
    "serial": (4, _string(HWTYPE)),
    "parallel": (3, _string((), root=True)),
    "usb": (14, _string(HWTYPE)),
    "hostpci": (16, _string(HWTYPE)),
    "numa": (8, _string(CPU)),
    "virtiofs": (10, _string(HWTYPE)),
    "unused": (256, _string(DISK)),
}
DRIVE_OPTION = _string(DISK, check=_drive)


def option(key: str) -> Optional[Option]:
    """The option of a key, or None."""
    if key in PLAIN:
        return PLAIN[key]
    if is_drive(key):
        return DRIVE_OPTION
    match = re.fullmatch(r"([a-z]+)(0|[1-9]\d*)", key)
    if match and match[1] in NUMBERED and int(match[2]) < NUMBERED[match[1]][0]:
        return NUMBERED[match[1]][1]
    return None


def known(key: str) -> bool:
    """Whether a config may carry the key."""
    return option(key) is not None


def stored(key: str, value: str) -> str:
    """A value of a config file, or ValueError with Proxmox's text.

    Reading a file looks at types and at the formats of property strings, but neither at bounds nor at closed sets of
    words: those are parameters' matter.
    """
    found = option(key)
    if found is None:
        raise ValueError(f"unknown setting '{key}'")
    if found.kind is Kind.BOOLEAN:
        return _as_boolean(value)
    if found.kind is not Kind.STRING and not re.fullmatch(NATURAL[found.kind], value):
        raise ValueError(f"type check ('{found.kind.value}') failed - got '{value}'")
    if found.check is not None and found.check is not _uuid:
        found.check(value)
    return value


def normalise(key: str, value: str) -> str:
    """The text to store of a parameter, or ValueError with Proxmox's text."""
    found = option(key)
    if found is None:
        raise ValueError(f"unknown setting '{key}'")
    if found.kind is Kind.BOOLEAN:
        return _as_boolean(value)
    if found.kind is not Kind.STRING:
        _check_number(found, value)
    if found.words and value not in found.words:
        raise ValueError(f"value '{value}' does not have a value in the enumeration '{', '.join(found.words)}'")
    if found.check is not None:
        found.check(value)
    return value


def _as_boolean(value: str) -> str:
    lowered = value.lower()
    if lowered in ("1", "on", "yes", "true"):
        return "1"
    if lowered in ("0", "off", "no", "false"):
        return "0"
    raise ValueError(f"type check ('boolean') failed - got '{value}'")


def _check_number(found: Option, value: str) -> None:
    pattern = r"-?\d+" if found.kind is Kind.INTEGER else r"-?\d+(\.\d+)?"
    if not re.fullmatch(pattern, value):
        raise ValueError(f"type check ('{found.kind.value}') failed - got '{value}'")
    if found.minimum is not None and float(value) < found.minimum:
        raise ValueError(f"value must have a minimum value of {found.minimum:g}")
    if found.maximum is not None and float(value) > found.maximum:
        raise ValueError(f"value must have a maximum value of {found.maximum:g}")


def typed(key: str, value: str) -> Union[str, int, float]:
    """A stored value as the JSON of GET config shows it."""
    found = option(key)
    if found is not None and found.kind in (Kind.INTEGER, Kind.BOOLEAN) and re.fullmatch(r"-?\d+", value):
        return int(value)
    if found is not None and found.kind is Kind.NUMBER and re.fullmatch(r"-?\d+(\.\d+)?", value):
        return float(value)
    return value


def is_cdrom(value: str) -> bool:
    """Whether a drive string is an optical drive that is not a cloud-init image."""
    try:
        drive = parse_drive(value)
    except ValueError:
        return False
    return drive.get("media") == "cdrom" and not is_cloudinit(drive)


def is_cloudinit(drive: Mapping[str, str]) -> bool:
    """Whether a parsed drive is the cloud-init image."""
    return re.search(r"[:/]vm-\d+-cloudinit(\.\w+)?$|^\S+:cloudinit$", drive.get("file", "")) is not None


def privileges(key: str, value: Optional[str] = None) -> List[Tuple[Tuple[str, ...], bool]]:
    """What a change of the key asks for on /vms/<id>: a list of (privileges, any of them is enough)."""
    found = option(key)
    if found is None or not found.privileges:
        return []
    if is_drive(key) and value is not None:
        drive = parse_drive(value)
        if is_cloudinit(drive):
            return [(("VM.Config.Cloudinit",), False), (CDROM, False)]
        if drive.get("media") == "cdrom":
            return [(CDROM, False)]
    return [(found.privileges, found.any_of)]


def root_only(key: str, value: Optional[str] = None) -> Optional[str]:
    """Why only root@pam may set the key to that value, or None."""
    found = option(key)
    if found is not None and found.root:
        return f"only root can set '{key}' config"
    if value is None:
        return None
    if re.fullmatch(r"hostpci\d+|usb\d+", key) and "mapping=" not in value and "spice" not in value.split(","):
        return f"only root can set '{key}' config for non-mapped devices"
    if re.fullmatch(r"serial\d+", key) and value != "socket":
        return f"only root can set '{key}' config for real devices"
    return None
