# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""What a user wants: one VM, where to, on which storages, bridges and transports, within which limits.

The spec's digest covers what defines the migration. Limits, timeouts, credentials and the certificate pin are
outside of it, so that asserting them again tunes the running move (DESIGN 3).
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ..proxmox.endpoint import is_token_id, is_user, plain_host
from .errors import SpecInvalid
from .meeting_point import MeetingPoint

__all__ = ["DiskPlace", "Limits", "NicPlace", "Spec", "difference", "parse_duration", "parse_rate"]

_RATE_UNITS = {"B/s": 1, "KiB/s": 1 << 10, "MiB/s": 1 << 20, "GiB/s": 1 << 30}
_TIME_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?) ([A-Za-z/]+)", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,62}[A-Za-z0-9])?", re.ASCII)
_STORAGE = re.compile(r"[A-Za-z][A-Za-z0-9._-]*[A-Za-z0-9]", re.ASCII)
_BRIDGE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,14}", re.ASCII)
_DISK_KEY = re.compile(r"default|(?:scsi|virtio|sata|ide)[0-9]{1,2}|efidisk0|tpmstate0|unused[0-9]{1,3}", re.ASCII)
_NIC_KEY = re.compile(r"default|net[0-9]{1,2}", re.ASCII)
_FORMATS = ("raw", "qcow2")
_TRANSPORTS = ("websocket", "tls", "tcp", "qemu-tls", "qemu-tcp")
_VMID = (100, 999999999)  # mtunnel-protocol 2.1

DEFAULT_DOWNTIME = 0.3  # seconds
DEFAULT_DEADLINE = 24 * 3600.0  # seconds; a guest that never converges must not move for ever (safety B8)


def _quantity(option: str, text: Any, units: Mapping[str, float], example: str) -> float:
    expected = f"a number, a space and one of {', '.join(units)} (for example {example!r})"
    match = _QUANTITY.fullmatch(text) if isinstance(text, str) else None
    if match is None or match.group(2) not in units:
        raise SpecInvalid(option, text, expected)
    value = float(match.group(1)) * units[match.group(2)]
    if not 0 < value < 1e15:
        raise SpecInvalid(option, text, expected + ", greater than zero")
    return value


def parse_rate(text: Any, option: str = "limits.bandwidth") -> int:
    """Bytes per second from for example ``200 MiB/s``.

    Raises:
        SpecInvalid: no unit, unknown unit, or not greater than zero.
    """
    return max(1, int(_quantity(option, text, _RATE_UNITS, "200 MiB/s")))


def parse_duration(text: Any, option: str = "limits.deadline") -> float:
    """Seconds from for example ``300 ms`` or ``30 min``.

    Raises:
        SpecInvalid: no unit, unknown unit, or not greater than zero.
    """
    return _quantity(option, text, _TIME_UNITS, "30 min")


@dataclass(frozen=True)
class DiskPlace:
    """Storage and image format of a disk at the target; format None keeps the source's."""

    storage: str
    format: Optional[str] = None

    @classmethod
    def parse(cls, option: str, raw: Any) -> DiskPlace:
        """From ``fast`` or ``{storage: fast, format: raw}``."""
        raw = {"storage": raw} if isinstance(raw, str) else raw
        if not isinstance(raw, Mapping) or set(raw) - {"storage", "format"} or "storage" not in raw:
            raise SpecInvalid(option, raw, "a storage, or a dictionary with storage and format")
        storage, image_format = raw["storage"], raw.get("format")
        if not isinstance(storage, str) or not _STORAGE.fullmatch(storage):
            raise SpecInvalid(option, storage, "the name of a storage of the target")
        if image_format is not None and image_format not in _FORMATS:
            raise SpecInvalid(f"{option}.format", image_format, f"one of {', '.join(_FORMATS)}")
        return cls(storage, image_format)


@dataclass(frozen=True)
class NicPlace:
    """Bridge of a network card at the target; tag and firewall None keep the source's."""

    bridge: str
    tag: Optional[int] = None
    firewall: Optional[bool] = None

    @classmethod
    def parse(cls, option: str, raw: Any) -> NicPlace:
        """From ``vmbr0`` or ``{bridge: vmbr0, tag: 7, firewall: true}``."""
        raw = {"bridge": raw} if isinstance(raw, str) else raw
        if not isinstance(raw, Mapping) or set(raw) - {"bridge", "tag", "firewall"} or "bridge" not in raw:
            raise SpecInvalid(option, raw, "a bridge, or a dictionary with bridge, tag and firewall")
        bridge, tag, firewall = raw["bridge"], raw.get("tag"), raw.get("firewall")
        if not isinstance(bridge, str) or not _BRIDGE.fullmatch(bridge):
            raise SpecInvalid(option, bridge, "the name of a bridge of the target node")
        if tag is not None and (isinstance(tag, bool) or not isinstance(tag, int) or not 1 <= tag <= 4094):
            raise SpecInvalid(f"{option}.tag", tag, "a VLAN number from 1 to 4094")
        if firewall is not None and not isinstance(firewall, bool):
            raise SpecInvalid(f"{option}.firewall", firewall, "true or false")
        return cls(bridge, tag, firewall)


@dataclass(frozen=True)
class Limits:
    """What may be tuned while the move runs. Bandwidth in bytes/s (None: measured), times in seconds."""

    bandwidth: Optional[int] = None
    downtime: float = DEFAULT_DOWNTIME
    deadline: float = DEFAULT_DEADLINE

    @classmethod
    def parse(cls, raw: Any) -> Limits:
        """From the option ``limits``."""
        raw = {} if raw is None else raw
        if not isinstance(raw, Mapping) or set(raw) - {"bandwidth", "downtime", "deadline"}:
            raise SpecInvalid("limits", raw, "a dictionary with bandwidth, downtime and deadline")
        downtime = DEFAULT_DOWNTIME
        if raw.get("downtime") is not None:
            downtime = parse_duration(raw["downtime"], "limits.downtime")
            if not 0.001 <= downtime <= 2000:  # qemu-facts 1: downtime max 2 000 000 ms
                raise SpecInvalid("limits.downtime", raw["downtime"], "between 1 ms and 2000 s")
        return cls(
            parse_rate(raw["bandwidth"]) if raw.get("bandwidth") is not None else None,
            downtime,
            parse_duration(raw["deadline"]) if raw.get("deadline") is not None else DEFAULT_DEADLINE,
        )

    def to_dict(self) -> Dict[str, Any]:
        """JSON form: bytes/s and seconds."""
        return {"bandwidth": self.bandwidth, "downtime": self.downtime, "deadline": self.deadline}

    @classmethod
    def restore(cls, raw: Mapping[str, Any]) -> Limits:
        """From :meth:`to_dict`."""
        return cls(raw["bandwidth"], float(raw["downtime"]), float(raw["deadline"]))


def _vmid(option: str, raw: Any) -> int:
    text = str(raw)
    if isinstance(raw, (bool, float)) or not re.fullmatch(r"[0-9]{3,9}", text, re.ASCII):
        raise SpecInvalid(option, raw, f"a VM id from {_VMID[0]} to {_VMID[1]}")
    if not _VMID[0] <= int(text) <= _VMID[1]:
        raise SpecInvalid(option, raw, f"a VM id from {_VMID[0]} to {_VMID[1]}")
    return int(text)


def _pool(raw: Any) -> Optional[Tuple[int, int]]:
    if raw is None or raw == "":
        return None
    match = re.fullmatch(r"([0-9]{3,9})-([0-9]{3,9})", str(raw), re.ASCII)
    if match is None or int(match.group(1)) > int(match.group(2)):
        raise SpecInvalid("target.vmid_pool", raw, "a range such as 20000-20999")
    return _vmid("target.vmid_pool", match.group(1)), _vmid("target.vmid_pool", match.group(2))


def _mapping(option: str, raw: Any, keys: re.Pattern[str], parse: Any) -> Dict[str, Any]:
    raw = {} if raw is None else raw
    if not isinstance(raw, Mapping):
        raise SpecInvalid(option, raw, "a dictionary")
    places = {}
    for key in sorted(raw):
        if not isinstance(key, str) or not keys.fullmatch(key):
            raise SpecInvalid(option, key, f"keys such as {'default, scsi0' if option == 'disks' else 'default, net0'}")
        places[key] = parse(f"{option}.{key}", raw[key])
    return places


@dataclass(frozen=True)
class Target:
    """The node the VM moves to and how its API is reached (the secret is not in here)."""

    api_host: str
    api_port: int
    node: str
    vmid: str  # "same", "pool" or a number as text
    vmid_pool: Optional[Tuple[int, int]]
    api_user: str
    api_token_id: str
    validate_certs: bool = True
    ca_path: Optional[str] = None
    fingerprint: Optional[str] = None

    @classmethod
    def parse(cls, raw: Any) -> Target:
        """From the option ``target``."""
        if not isinstance(raw, Mapping):
            raise SpecInvalid("target", "(not a dictionary)", "a dictionary")
        for key in ("api_host", "node", "api_user", "api_token_id"):
            if not isinstance(raw.get(key), str) or not raw[key]:
                raise SpecInvalid(f"target.{key}", raw.get(key), "a non-empty text")
        if not _NAME.fullmatch(raw["node"]):
            raise SpecInvalid("target.node", raw["node"], "the name of a node")
        host = plain_host(raw["api_host"])
        if not host:
            raise SpecInvalid("target.api_host", raw["api_host"], "a host name or an address")
        if not is_user(raw["api_user"]):
            raise SpecInvalid("target.api_user", raw["api_user"], "user@realm")
        if not is_token_id(raw["api_token_id"]):
            raise SpecInvalid("target.api_token_id", raw["api_token_id"], "the token's name without user and '!'")
        port = 8006 if raw.get("api_port") is None else raw["api_port"]
        if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
            raise SpecInvalid("target.api_port", port, "a port from 1 to 65535")
        vmid = str(raw.get("vmid") or "same")
        pool = _pool(raw.get("vmid_pool"))
        if vmid == "pool" and pool is None:
            raise SpecInvalid("target.vmid_pool", None, "a range such as 20000-20999 when target.vmid is pool")
        return cls(
            host,
            port,
            raw["node"],
            vmid if vmid in ("same", "pool") else str(_vmid("target.vmid", vmid)),
            pool,
            raw["api_user"],
            raw["api_token_id"],
            bool(raw.get("validate_certs", True)),
            raw.get("ca_path") or None,
            raw.get("fingerprint") or None,
        )


@dataclass(frozen=True)
class Spec:
    """One migration as asked for; :meth:`from_options` is the only door."""

    vmid: int
    uuid: Optional[str]
    target: Target
    disks: Mapping[str, DiskPlace]
    nics: Mapping[str, NicPlace]
    transports: Tuple[str, ...]
    offline: bool
    limits: Limits = field(default_factory=Limits)
    on_controller_loss: str = "rollback"
    controller_timeout: float = 120.0
    reservation_timeout: float = 1800.0
    incoming: MeetingPoint = field(default_factory=MeetingPoint)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Spec:
        """The spec of module options (DESIGN 9).

        Raises:
            SpecInvalid: names the option, its value and what would be right.
        """
        source = options.get("source")
        if not isinstance(source, Mapping):
            raise SpecInvalid("source", source, "a dictionary with vmid and uuid")
        uuid = source.get("uuid")
        if uuid is not None and (not isinstance(uuid, str) or not _UUID.fullmatch(uuid.lower())):
            raise SpecInvalid("source.uuid", uuid, "the SMBIOS uuid of the VM")
        loss = options.get("on_controller_loss") or "rollback"
        if loss not in ("rollback", "continue"):
            raise SpecInvalid("on_controller_loss", loss, "rollback or continue")
        return cls(
            _vmid("source.vmid", source.get("vmid")),
            uuid.lower() if uuid else None,
            Target.parse(options.get("target")),
            _mapping("disks", options.get("disks"), _DISK_KEY, DiskPlace.parse),
            _mapping("nics", options.get("nics"), _NIC_KEY, NicPlace.parse),
            _transports(options.get("transports")),
            bool(options.get("offline", False)),
            Limits.parse(options.get("limits")),
            loss,
            _timeout(options, "controller_timeout", 120.0),
            _timeout(options, "reservation_timeout", 1800.0),
            MeetingPoint.parse(options.get("incoming"), options.get("clear_text")),
        )

    def identity(self) -> Dict[str, Any]:
        """What the digest covers, as JSON."""
        target = self.target
        return {
            "source": {"vmid": self.vmid},
            "target": {
                "api_host": target.api_host,
                "api_port": target.api_port,
                "node": target.node,
                "vmid": target.vmid,
                "vmid_pool": list(target.vmid_pool) if target.vmid_pool else None,
            },
            "disks": {key: {"storage": p.storage, "format": p.format} for key, p in sorted(self.disks.items())},
            "nics": {
                key: {"bridge": p.bridge, "tag": p.tag, "firewall": p.firewall} for key, p in sorted(self.nics.items())
            },
            "transports": list(self.transports),
            "offline": self.offline,
        }

    @property
    def digest(self) -> str:
        """SHA-256 over the canonical form of :meth:`identity`."""
        text = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode("ascii")).hexdigest()

    def to_dict(self) -> Dict[str, Any]:
        """Everything but the secret, as JSON; for journal and worker."""
        target = self.target
        return dict(
            self.identity(),
            uuid=self.uuid,
            access={
                "api_user": target.api_user,
                "api_token_id": target.api_token_id,
                "validate_certs": target.validate_certs,
                "ca_path": target.ca_path,
                "fingerprint": target.fingerprint,
            },
            limits=self.limits.to_dict(),
            on_controller_loss=self.on_controller_loss,
            controller_timeout=self.controller_timeout,
            reservation_timeout=self.reservation_timeout,
            incoming=self.incoming.to_dict(),
        )

    @classmethod
    def restore(cls, raw: Mapping[str, Any]) -> Spec:
        """From :meth:`to_dict`, written by this or an older worker."""
        pool = raw["target"].get("vmid_pool")
        target = dict(raw["target"], **raw["access"])
        target["vmid_pool"] = f"{pool[0]}-{pool[1]}" if pool else None
        return cls(
            int(raw["source"]["vmid"]),
            raw.get("uuid"),
            Target.parse(target),
            _mapping("disks", raw.get("disks"), _DISK_KEY, DiskPlace.parse),
            _mapping("nics", raw.get("nics"), _NIC_KEY, NicPlace.parse),
            tuple(raw["transports"]),
            bool(raw["offline"]),
            Limits.restore(raw["limits"]),
            str(raw["on_controller_loss"]),
            float(raw["controller_timeout"]),
            float(raw["reservation_timeout"]),
            MeetingPoint.parse(raw.get("incoming")),
        )


def _transports(raw: Any) -> Tuple[str, ...]:
    raw = ["websocket"] if raw is None else raw
    if not isinstance(raw, (list, tuple)) or not raw:
        raise SpecInvalid("transports", raw, f"an ordered list out of {', '.join(_TRANSPORTS)}")
    for name in raw:
        if name not in _TRANSPORTS:
            raise SpecInvalid("transports", name, f"one of {', '.join(_TRANSPORTS)}")
    if len(set(raw)) != len(raw):
        raise SpecInvalid("transports", list(raw), "each transport once")
    return tuple(raw)


def _timeout(options: Mapping[str, Any], name: str, default: float) -> float:
    raw = options.get(name)
    if raw is None:
        return default
    if isinstance(raw, (int, float)) and not isinstance(raw, bool):
        raise SpecInvalid(name, raw, "a duration with a unit, for example '120 s'")
    return parse_duration(raw, name)


def difference(running: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> List[Dict[str, Any]]:
    """Where two :meth:`Spec.identity` differ: a list of ``{option, running, wanted}``."""
    rows: List[Dict[str, Any]] = []
    for key in sorted(set(running) | set(wanted)):
        old, new = running.get(key), wanted.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            rows += difference(old, new, f"{prefix}{key}.")
        elif old != new:
            rows.append({"option": prefix + key, "running": old, "wanted": new})
    return rows
