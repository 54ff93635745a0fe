# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""Replies of the tunnel as checked values: parsed, never matched loosely (safety 8, 9).

Every ``parse`` takes the reply object and what we asked for; what is not exactly as expected raises AnswerMalformed
and nothing of the reply is used. Keys a command does not know are refused, but for ``version``, where a target
announces what it can.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from dataclasses import dataclass
from typing import AbstractSet, Any, Dict, FrozenSet, Mapping, Optional, Sequence

from .errors import AnswerMalformed, VersionUnsupported, printable

__all__ = [
    "TICKET",
    "BwlimitReply",
    "DiskImportReply",
    "DiskReply",
    "ImportState",
    "ImportStatus",
    "PlainStartReply",
    "StartReply",
    "StartedDrive",
    "TicketReply",
    "VersionReply",
    "check_empty",
    "import_socket",
    "nbd_socket",
    "ram_socket",
]

TUNNEL_VERSION = 2
TICKET = re.compile(r"PVETUNNEL:[0-9A-F]{8}::[A-Za-z0-9+/]{40,2048}={0,2}", re.ASCII)
_STORAGE = r"[A-Za-z][A-Za-z0-9._-]*[A-Za-z0-9]"
_VOLUME_PATH = r"[A-Za-z0-9][A-Za-z0-9+._-]*(?:/[A-Za-z0-9][A-Za-z0-9+._-]*)*"
_VOLID = re.compile(rf"({_STORAGE}):({_VOLUME_PATH})", re.ASCII)
_DRIVE_STRING = re.compile(r"[\x21-\x7e]+(?: [\x21-\x7e]+)*")
_MAX_TEXT = 4096
_MAX_KIB = 1 << 50
_PORTS = range(60000, 60051)  # of Proxmox VE, for whatever its QEMUs listen on (mtunnel-protocol 6.2)
_PORT = re.compile(r"[0-9]{5}", re.ASCII)
_HOST6 = re.compile(r"\[([0-9A-Fa-f:.]{2,45})\]", re.ASCII)
_PLAIN_NBD = re.compile(r"nbd:([^:\[\]]+|\[[^\[\]]+\]):([0-9]{5}):exportname=[^:]+", re.ASCII)


def ram_socket(vmid: int) -> str:
    """The target's socket for RAM."""
    return f"/run/qemu-server/{vmid}.migrate"


def nbd_socket(vmid: int) -> str:
    """The target's socket for all disks."""
    return f"/run/qemu-server/{vmid}_nbd.migrate"


def import_socket(vmid: int) -> str:
    """The target's socket for the one running import."""
    return f"/run/qemu-server/{vmid}.storage"


@dataclass(frozen=True)
class VersionReply:
    """Protocol version of the target and what it announces."""

    api: int
    age: int
    caps: FrozenSet[str] = frozenset()

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> "VersionReply":
        """Check against our version (mtunnel-protocol 4.4); raises VersionUnsupported."""
        api, age = (_integer(raw, key, "version", 0, 1 << 31) for key in ("api", "age"))
        caps = raw.get("caps", [])
        if not isinstance(caps, list) or len(caps) > 100 or not all(isinstance(cap, str) for cap in caps):
            raise _malformed("version", "caps", caps)
        if not api - age <= TUNNEL_VERSION <= api:
            raise VersionUnsupported(
                f"the target speaks tunnel versions {api - age} to {api}, this collection speaks {TUNNEL_VERSION}",
                object="version",
                remedy="Update the older of the two sides.",
                facts={"api": api, "age": age},
            )
        return cls(api, age, frozenset(caps))


@dataclass(frozen=True)
class BwlimitReply:
    """Bandwidth limit of the target, KiB/s; None without one."""

    kib_per_second: Optional[float]

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> "BwlimitReply":
        """A number, a number as text, or null (mtunnel-protocol 4.2); 0 means no limit."""
        _only(raw, {"bwlimit"}, "bwlimit")
        value = raw.get("bwlimit")
        if value is None:
            return cls(None)
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,15}(?:\.[0-9]{1,9})?", value, re.ASCII):
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _MAX_KIB:
            raise _malformed("bwlimit", "bwlimit", value)
        return cls(float(value) if value else None)

    @property
    def bytes_per_second(self) -> Optional[int]:
        """The limit in bytes/s, None without one; at least 1 KiB/s."""
        return None if self.kib_per_second is None else max(1024, int(self.kib_per_second * 1024))


@dataclass(frozen=True)
class DiskReply:
    """A volume the target allocated; ``drivestr`` goes into config and ``start`` byte for byte."""

    volid: str
    drivestr: str

    @classmethod
    def parse(cls, raw: Mapping[str, Any], storage: str, vmid: int) -> "DiskReply":
        """The volume lies on the storage asked for and belongs to the VMID."""
        _only(raw, {"volid", "drivestr"}, "disk")
        volid = _volid(raw, "disk", storage, vmid)
        drivestr = _text(raw, "drivestr", "disk")
        if not _DRIVE_STRING.fullmatch(drivestr) or not (drivestr + ",").startswith(volid + ","):
            raise _malformed("disk", "drivestr", drivestr)
        return cls(volid, drivestr)


@dataclass(frozen=True)
class DiskImportReply:
    """Where and in which format a volume's stream is to be sent."""

    socket: str
    format: str

    @classmethod
    def parse(cls, raw: Mapping[str, Any], vmid: int, offered: Sequence[str]) -> "DiskImportReply":
        """Exactly the import socket of the VMID, one of the formats we offered."""
        _only(raw, {"socket", "format"}, "disk-import")
        if raw.get("socket") != import_socket(vmid):
            raise _malformed("disk-import", "socket", raw.get("socket"))
        chosen = raw.get("format")
        if not isinstance(chosen, str) or chosen not in offered:
            raise _malformed("disk-import", "format", chosen)
        return cls(import_socket(vmid), chosen)


class ImportState(enum.Enum):
    """States of ``query-disk-import``."""

    PENDING = "pending"
    COMPLETE = "complete"
    ERROR = "error"


@dataclass(frozen=True)
class ImportStatus:
    """Progress of an import. ``complete`` says nothing about truncation: count what was sent (mtunnel-protocol 7.3)."""

    state: ImportState
    message: str
    volid: str

    @classmethod
    def parse(cls, raw: Mapping[str, Any], storage: str, vmid: int) -> "ImportStatus":
        """``volid`` is there when complete, on the storage asked for, and belongs to the VMID."""
        _only(raw, {"status", "msg", "volid"}, "query-disk-import")
        words = {state.value: state for state in ImportState}
        word = raw.get("status")
        if not isinstance(word, str) or word not in words:
            raise _malformed("query-disk-import", "status", word)
        message = raw.get("msg")
        if message is not None and not isinstance(message, str):
            raise _malformed("query-disk-import", "msg", message)
        complete = words[word] is ImportState.COMPLETE
        volid = _volid(raw, "query-disk-import", storage, vmid) if complete else ""
        return cls(words[word], printable(message or ""), volid)


@dataclass(frozen=True)
class StartedDrive:
    """One drive of the target that waits for its mirror."""

    volid: str
    drivestr: str
    export: str


@dataclass(frozen=True)
class StartReply:
    """What the target listens on. Both sockets are the only ones it may name."""

    ram_socket: str
    nbd_socket: Optional[str]
    drives: Mapping[str, StartedDrive]

    @classmethod
    def parse(cls, raw: Mapping[str, Any], vmid: int, asked: Mapping[str, Mapping[str, str]]) -> "StartReply":
        """UNIX sockets only, exactly the expected ones; exactly the drives of ``asked`` (key: volid, drivestr)."""
        drives = _drives(raw, asked)
        _check_plane(_object(raw, "migrate", "start"), vmid, bool(asked))
        server = f"unix:{nbd_socket(vmid)}"
        started = {key: _started(key, drives, asked[key], server) for key in asked}
        return cls(ram_socket(vmid), nbd_socket(vmid) if asked else None, started)


@dataclass(frozen=True)
class PlainStartReply:
    """Where a target with ``insecure-remote`` listens in clear text: at one address, with one port for all disks."""

    address: str
    ram_port: int
    nbd_port: Optional[int]

    @classmethod
    def parse(cls, raw: Mapping[str, Any], asked: Mapping[str, Mapping[str, str]], address: str) -> "PlainStartReply":
        """Plain TCP at ``address`` and on ports of Proxmox VE only; exactly the drives of ``asked``.

        A host name, another address or a port elsewhere could be anybody's: the patch series looks at none of it
        (mtunnel-protocol 6.2).
        """
        drives = _drives(raw, asked)
        migrate = _object(raw, "migrate", "start")
        _only(migrate, {"proto", "addr", "port", "uri"}, "start")
        if migrate.get("proto") != "tcp":
            raise _malformed("start", "migrate.proto", migrate.get("proto"))
        _check_host(migrate.get("addr"), address, "migrate.addr")
        ram_port = _plain_port(migrate.get("port"), "migrate.port")
        if migrate.get("uri") != f"tcp:{migrate['addr']}:{ram_port}":
            raise _malformed("start", "migrate.uri", migrate.get("uri"))
        ports = {key: _plain_nbd_port(key, drives, asked[key], address) for key in asked}
        if len(set(ports.values())) > 1 or ram_port in ports.values():
            raise _malformed("start", "ports", {"migrate": ram_port, **ports})
        return cls(address, ram_port, next(iter(ports.values()), None))


def _plain_nbd_port(key: str, drives: Mapping[str, Any], asked: Mapping[str, str], address: str) -> int:
    uri = _object(drives, key, "start").get("nbd_uri")
    found = _PLAIN_NBD.fullmatch(uri) if isinstance(uri, str) else None
    if found is None:
        raise _malformed("start", f"drives.{key}.nbd_uri", uri)
    _check_host(found.group(1), address, f"drives.{key}.nbd_uri")
    _started(key, drives, asked, f"{found.group(1)}:{found.group(2)}")
    return _plain_port(found.group(2), f"drives.{key}.nbd_uri")


def _check_host(text: Any, address: str, key: str) -> None:
    """IPv6 comes in brackets (mtunnel-protocol 6.2) and may be written in several ways, IPv4 in one."""
    if ":" not in address:
        same = text == address
    else:
        found = _HOST6.fullmatch(text) if isinstance(text, str) else None
        try:
            same = found is not None and ipaddress.ip_address(found.group(1)) == ipaddress.ip_address(address)
        except ValueError:
            same = False
    if not same:
        raise _malformed("start", key, text)


def _plain_port(text: Any, key: str) -> int:
    """A port is a JSON string (mtunnel-protocol 4.2)."""
    if not isinstance(text, str) or not _PORT.fullmatch(text) or int(text) not in _PORTS:
        raise _malformed("start", key, text)
    return int(text)


def _drives(raw: Mapping[str, Any], asked: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part ``drives`` of the reply to ``start``: those that were asked for, no more and no less."""
    _only(raw, {"migrate", "drives", "spice_port"}, "start")
    drives = raw.get("drives") or {}
    if not isinstance(drives, dict) or set(drives) != set(asked):
        raise _malformed("start", "drives", sorted(drives) if isinstance(drives, dict) else drives)
    if raw.get("spice_port") is not None:
        _integer(raw, "spice_port", "start", 1, 65535)
    return drives


def _check_plane(migrate: Mapping[str, Any], vmid: int, with_nbd: bool) -> None:
    _only(migrate, {"proto", "addr", "uri", "unix_sockets"}, "start")
    expected: Dict[str, Any] = {
        "proto": "unix",
        "addr": ram_socket(vmid),
        "uri": "unix:" + ram_socket(vmid),
        "unix_sockets": [nbd_socket(vmid)] if with_nbd else None,
    }
    for key, value in expected.items():
        found = migrate.get(key)
        # Without disks the list is absent or empty.
        if found != value and not (key == "unix_sockets" and value is None and found == []):
            raise _malformed("start", f"migrate.{key}", found)


def _started(key: str, drives: Mapping[str, Any], asked: Mapping[str, str], server: str) -> StartedDrive:
    drive = _object(drives, key, "start")
    _only(drive, {"volid", "drivestr", "nbd_uri"}, "start")
    export = f"drive-{key}"
    expected = {
        "volid": asked["volid"],
        "drivestr": asked["drivestr"],
        "nbd_uri": f"nbd:{server}:exportname={export}",
    }
    for name, value in expected.items():
        if drive.get(name) != value:
            raise _malformed("start", f"drives.{key}.{name}", drive.get(name))
    return StartedDrive(asked["volid"], asked["drivestr"], export)


@dataclass(frozen=True)
class TicketReply:
    """A secret of 40 s; does not show in ``repr``."""

    ticket: str

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> "TicketReply":
        """Shape of a tunnel ticket (mtunnel-protocol 1.3)."""
        _only(raw, {"ticket"}, "ticket")
        value = raw.get("ticket")
        if not isinstance(value, str) or not TICKET.fullmatch(value):
            raise AnswerMalformed("the reply to 'ticket' has no tunnel ticket", object="ticket")
        return cls(value)

    def __repr__(self) -> str:
        return "TicketReply()"


def check_empty(raw: Mapping[str, Any], command: str) -> None:
    """A reply that says success and nothing else."""
    _only(raw, set(), command)


def _volid(raw: Mapping[str, Any], command: str, storage: str, vmid: int) -> str:
    volid = _text(raw, "volid", command)
    found = _VOLID.fullmatch(volid)
    name = found.group(2).rsplit("/", 1)[-1] if found else ""
    # Proxmox VE names every volume of a VM after it; anything else would be somebody else's.
    if not found or found.group(1) != storage or not name.startswith(f"vm-{vmid}-"):
        raise _malformed(command, "volid", volid)
    return volid


def _only(raw: Mapping[str, Any], known: AbstractSet[str], command: str) -> None:
    unknown = sorted(set(raw) - known - {"success"})
    if unknown:
        raise AnswerMalformed(
            f"the reply to '{command}' has keys nobody asked for: {printable(', '.join(unknown), 120)}", object=command
        )


def _object(raw: Mapping[str, Any], key: str, command: str) -> Mapping[str, Any]:
    value = raw.get(key)
    if not isinstance(value, dict):
        raise _malformed(command, key, value)
    return value


def _text(raw: Mapping[str, Any], key: str, command: str) -> str:
    value = raw.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_TEXT:
        raise _malformed(command, key, value)
    return value


def _integer(raw: Mapping[str, Any], key: str, command: str, least: int, most: int) -> int:
    value = raw.get(key)
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,10}", value, re.ASCII):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise _malformed(command, key, value)
    return value


def _malformed(command: str, key: str, value: Any) -> AnswerMalformed:
    return AnswerMalformed(
        f"in the reply to '{command}' '{key}' is not what it must be: {printable(repr(value), 160)}", object=command
    )
