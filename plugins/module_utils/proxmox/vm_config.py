# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The config text of a VM: parsed into sections and values, written back byte for byte where nothing was changed."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Union
from urllib.parse import unquote

from .errors import printable
from .property_strings import (
    Properties,
    config_invalid,
    format_properties,
    format_size,
    parse_properties,
    parse_size,
    split_key,
    volume_storage,
)

__all__ = [
    "Drive",
    "Nic",
    "Properties",
    "Section",
    "VmConfig",
    "format_properties",
    "format_size",
    "parse_properties",
    "parse_size",
    "split_key",
    "volume_storage",
]

_HEADER = re.compile(r"\[([^\[\]]+)\]")
_LINE = re.compile(r"([a-z][a-z0-9_-]*): *(.*?)\s*", re.DOTALL)
_SNAPSHOT = re.compile(r"[A-Za-z][A-Za-z0-9_-]+", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_MAC = re.compile(r"[0-9A-F]{2}(?::[0-9A-F]{2}){5}", re.ASCII)
_DRIVE_KEY = re.compile(r"(ide|sata|scsi|virtio|efidisk|tpmstate|unused)([0-9]+)", re.ASCII)
_NET_KEY = re.compile(r"net([0-9]+)", re.ASCII)
_NIC_MODELS = (
    "e1000", "e1000-82540em", "e1000-82544gc", "e1000-82545em", "e1000e", "i82551", "i82557b", "i82559er", "ne2k_isa",
    "ne2k_pci", "pcnet", "rtl8139", "virtio", "vmxnet3",
)  # fmt: skip
_TRUE = ("1", "on", "yes", "true")
_FALSE = ("0", "off", "no", "false")
# Options that Proxmox VE holds as numbers; `disk` gets them as JSON integers (mtunnel-protocol 4.2).
_BOOLEAN_OPTIONS = frozenset(
    ("backup", "iothread", "ssd", "replicate", "ro", "snapshot", "shared", "detect_zeroes", "pre-enrolled-keys",
     "scsiblock")
)  # fmt: skip
_INTEGER_OPTIONS = frozenset(("queues", "iops", "iops_max", "iops_rd", "iops_rd_max", "iops_wr", "iops_wr_max"))


@dataclass(frozen=True)
class Drive:
    """One drive line.

    Attributes:
        key: ``scsi0``, ``efidisk0``, ``tpmstate0``, ``unused1``, ...
        file: Volume id, ``none``, ``cdrom`` or an absolute path.
        options: Everything else, in its order, ``format`` and ``size`` included.
    """

    key: str
    file: str
    options: Mapping[str, str]

    @classmethod
    def parse(cls, key: str, value: str) -> "Drive":
        """From a config line; ``volume=`` is another name of ``file=``."""
        if not _DRIVE_KEY.fullmatch(key):
            config_invalid(f"'{key}' is no drive", key)
        properties = parse_properties(value, "file", key)
        names = [name for name in ("file", "volume") if name in properties]
        if len(names) != 1 or not properties[names[0]]:
            config_invalid(f"'{key}' does not name exactly one volume", key)
        return cls(key, properties.pop(names[0]), properties)

    @property
    def interface(self) -> str:
        """``scsi``, ``virtio``, ``efidisk``, ..."""
        return split_key(self.key)[0]

    @property
    def index(self) -> int:
        """Number behind the interface."""
        return split_key(self.key)[1] or 0

    @property
    def storage(self) -> str:
        """Storage of the volume; empty when there is none."""
        return volume_storage(self.file)

    @property
    def unused(self) -> bool:
        """True for a volume that is noted but not attached."""
        return self.interface == "unused"

    @property
    def cdrom(self) -> bool:
        """True for ``media=cdrom``, the cloud-init drive included."""
        return self.options.get("media") == "cdrom" or self.file == "cdrom"

    @property
    def empty(self) -> bool:
        """True for a CD drive without a medium."""
        return self.file == "none"

    @property
    def cloudinit(self) -> bool:
        """True for the generated cloud-init image."""
        return self.cdrom and bool(re.search(r"(?:^|[/:])vm-[0-9]+-cloudinit(?:\.[a-z0-9]+)?$", self.file, re.ASCII))

    @property
    def size_bytes(self) -> Optional[int]:
        """Size by the config, bytes; QEMU knows better while the VM runs."""
        return parse_size(self.options["size"], self.key) if "size" in self.options else None

    @property
    def image_format(self) -> str:
        """Image format: named, or by the name of the volume; raw on block storages."""
        if "format" in self.options:
            return self.options["format"]
        suffix = self.file.rsplit(".", 1)[-1] if "." in self.file.rsplit("/", 1)[-1] else ""
        return suffix if suffix in ("qcow2", "vmdk", "qcow", "qed", "cloop") else "raw"

    def tunnel_parameters(self, size: int) -> Dict[str, Any]:
        """The ``drive`` object of the command ``disk`` for a volume of ``size`` bytes (mtunnel-protocol 5.1)."""
        drive: Dict[str, Any] = {"interface": self.interface, "index": str(self.index), "size": size}
        for name, value in self.options.items():
            if name not in ("size", "format", "media"):
                drive[name] = _typed_option(name, value)
        return drive

    def format(self) -> str:
        """The value of the config line."""
        return ",".join([self.file, *(f"{name}={value}" for name, value in self.options.items())])


def _typed_option(name: str, value: str) -> Union[int, str]:
    if name in _BOOLEAN_OPTIONS and value.lower() in _TRUE + _FALSE:
        return int(value.lower() in _TRUE)
    if name in _INTEGER_OPTIONS and value.isdecimal() and value.isascii():
        return int(value)
    return value


@dataclass(frozen=True)
class Nic:
    """One NIC line.

    Attributes:
        key: ``net0``, ...
        model: Device model.
        mac: MAC address, upper case; empty when the line has none.
        bridge: Bridge; empty for a NIC without one.
        options: Everything else (``tag``, ``firewall``, ``mtu``, ...), in its order.
    """

    key: str
    model: str
    mac: str
    bridge: str
    options: Mapping[str, str]

    @classmethod
    def parse(cls, key: str, value: str) -> "Nic":
        """From a config line: ``virtio=MAC,bridge=...`` or ``model=virtio,macaddr=MAC,...``."""
        if not _NET_KEY.fullmatch(key):
            config_invalid(f"'{key}' is no NIC", key)
        properties = parse_properties(value, "model", key)
        short = [name for name in properties if name in _NIC_MODELS]
        if len(short) == 1 and not {"model", "macaddr"} & set(properties):
            model, mac = short[0], properties.pop(short[0])
        elif not short and properties.get("model") in _NIC_MODELS:
            model, mac = properties.pop("model"), properties.pop("macaddr", "")
        else:
            config_invalid(f"'{key}' does not name exactly one known NIC model", key)
        if mac and not _MAC.fullmatch(mac.upper()):
            config_invalid(f"'{key}' has a MAC address that is none", key)
        return cls(key, model, mac.upper(), properties.pop("bridge", ""), properties)

    @property
    def virtio(self) -> bool:
        """True for virtio-net, the only model with a host MTU."""
        return self.model == "virtio"

    def mapped(self, bridge: str, tag: Optional[int] = None, firewall: Optional[bool] = None) -> "Nic":
        """The NIC on another bridge; ``tag`` and ``firewall`` stay as they are when None, ``tag`` 0 removes it."""
        options = dict(self.options)
        if tag is not None:
            options["tag"] = str(tag)
        if tag == 0:
            del options["tag"]
        if firewall is not None:
            options["firewall"] = str(int(firewall))
        return replace(self, bridge=bridge, options=options)

    def format(self) -> str:
        """The value of the config line: model and MAC, then bridge, then the rest."""
        parts = [f"{self.model}={self.mac}"]
        if self.bridge:
            parts.append(f"bridge={self.bridge}")
        return ",".join([*parts, *(f"{name}={value}" for name, value in self.options.items())])


@dataclass(frozen=True)
class Section:
    """A part of the file: ``header`` is the line in brackets (empty for the current config), ``lines`` follow it."""

    name: str
    header: str
    # Not shown: a config may hold a password hash.
    lines: Tuple[str, ...] = field(repr=False)

    def items(self) -> Iterator[Tuple[str, str]]:
        """Keys and values, without the description in comment lines."""
        for line in self.lines:
            bare = line.rstrip("\n")
            if bare.strip() and not bare.startswith("#"):
                yield _split_line(bare, self.name)

    def values(self) -> Dict[str, str]:
        """Keys and values in their order; a key twice is refused."""
        found: Dict[str, str] = {}
        for key, value in self.items():
            if key in found:
                config_invalid(f"the config has '{key}' twice", key)
            found[key] = value
        return found


def _split_line(line: str, section: str) -> Tuple[str, str]:
    found = _LINE.fullmatch(line)
    if not found or not found.group(2):
        # The rest of the line may be a secret.
        word = re.match("[A-Za-z0-9_-]*", line, re.ASCII)
        where = f"section [{printable(section, 40)}]" if section else "the config"
        start = printable(word.group(0) if word else "", 40)
        config_invalid(f"{where} has a line that cannot be understood, beginning with {start!r}", "config")
    return found.group(1), found.group(2)


@dataclass(frozen=True)
class VmConfig:
    """A parsed config. ``format()`` gives the very text that was parsed."""

    sections: Tuple[Section, ...]

    @classmethod
    def parse(cls, text: str) -> "VmConfig":
        """From the file's text (bytes that are no UTF-8 decoded with ``surrogateescape``). Checks every line."""
        sections: List[Section] = []
        name, header = "", ""
        lines: List[str] = []
        for line in _lines(text):
            found = _HEADER.fullmatch(line.strip()) if line.startswith("[") else None
            if line.startswith("[") and not found:
                config_invalid(f"the config has a section header that is none: {printable(line, 40)!r}", "config")
            if found:
                sections.append(Section(name, header, tuple(lines)))
                name, header, lines = found.group(1), line, []
            else:
                lines.append(line)
        sections.append(Section(name, header, tuple(lines)))
        config = cls(tuple(sections))
        config._check()
        return config

    @classmethod
    def read(cls, data: bytes) -> "VmConfig":
        """From the file's bytes, whatever they are; raises as :meth:`parse`."""
        return cls.parse(data.decode("utf-8", "surrogateescape"))

    def _check(self) -> None:
        names = [section.name for section in self.sections]
        for name in names:
            if names.count(name) > 1:
                config_invalid(f"the config has section [{printable(name, 40)}] twice", "config")
            if name and name.upper() != "PENDING" and not name.startswith("special:") and not _SNAPSHOT.fullmatch(name):
                config_invalid(f"the config has a section whose name is none: {printable(name, 40)!r}", "config")
        for section in self.sections:
            section.values()
        for drive in self.drives() + self.unused():
            drive.size_bytes  # noqa: B018 - raises for a size that is none
        self.nics()

    def format(self) -> str:
        """The text."""
        return "".join(section.header + "".join(section.lines) for section in self.sections)

    @property
    def digest(self) -> str:
        """SHA-1 of the text, the digest Proxmox VE compares."""
        return hashlib.sha1(self.format().encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()

    @property
    def values(self) -> Dict[str, str]:
        """The current config in its order, the description in comment lines excluded."""
        return self.sections[0].values()

    @property
    def description(self) -> str:
        """The description, percent-decoded; lines joined by line feeds."""
        parts = [line[1:].rstrip("\n") for line in self.sections[0].lines if line.startswith("#")]
        parts += [value for key, value in self.sections[0].items() if key == "description"]
        return "\n".join(unquote(part) for part in parts)

    @property
    def pending(self) -> Dict[str, str]:
        """Changes that wait for a restart of the VM."""
        return next((part.values() for part in self.sections[1:] if part.name.upper() == "PENDING"), {})

    @property
    def snapshots(self) -> List[str]:
        """Names of the snapshots."""
        return [
            part.name
            for part in self.sections[1:]
            if part.name.upper() != "PENDING" and not part.name.startswith("special:")
        ]

    @property
    def special(self) -> Dict[str, Dict[str, str]]:
        """Special sections by name: ``cloudinit``, ``fleecing``."""
        parts = [part for part in self.sections[1:] if part.name.startswith("special:")]
        return {part.name[len("special:") :]: part.values() for part in parts}

    @property
    def lock(self) -> str:
        """The lock word; empty without a lock."""
        return self.values.get("lock", "")

    @property
    def uuid(self) -> str:
        """SMBIOS uuid, lower case; empty without one: the identity of the VM."""
        text = self.values.get("smbios1", "")
        if not text:
            return ""
        uuid = parse_properties(text, "uuid", "smbios1").get("uuid", "").lower()
        if uuid and not _UUID.fullmatch(uuid):
            config_invalid("'smbios1' has a uuid that is none", "smbios1")
        return uuid

    def drives(self) -> List[Drive]:
        """Attached drives in the file's order: CD drives, EFI disk and TPM state included."""
        return [
            Drive.parse(key, value)
            for key, value in self.values.items()
            if _DRIVE_KEY.fullmatch(key) and not key.startswith("unused")
        ]

    def unused(self) -> List[Drive]:
        """Volumes that are noted but not attached."""
        return [Drive.parse(key, value) for key, value in self.values.items() if re.fullmatch("unused[0-9]+", key)]

    def nics(self) -> List[Nic]:
        """NICs in the file's order."""
        return [Nic.parse(key, value) for key, value in self.values.items() if _NET_KEY.fullmatch(key)]

    def changed(self, values: Mapping[str, str], delete: Sequence[str] = ()) -> "VmConfig":
        """The current config with other values and without the deleted keys; new keys are appended."""
        left = dict(values)
        lines: List[str] = []
        for line in self.sections[0].lines:
            key = line.partition(":")[0] if not line.startswith("#") and ":" in line else ""
            if key and key in delete:
                continue
            lines.append(f"{key}: {left.pop(key)}\n" if key and key in left else line)
        if lines and left and not lines[-1].endswith("\n"):
            lines[-1] += "\n"
        lines += [f"{key}: {value}\n" for key, value in left.items()]
        return VmConfig((replace(self.sections[0], lines=tuple(lines)), *self.sections[1:]))


def _lines(text: str) -> List[str]:
    """Lines with their line feed; only a line feed ends a line."""
    parts = text.split("\n")
    return [part + "\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])
