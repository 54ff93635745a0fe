# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""What the listening end of one migration is told when it is started. Pure."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from dataclasses import dataclass, field
from typing import Any, Dict, Mapping, Tuple

from ..transport import handshake
from ..transport.incoming_errors import IncomingInvalid
from ..transport.interface import OPAQUE_KINDS, Kind
from ..transport.tls import is_node_name

__all__ = [
    "DEFAULT_PORTS",
    "LIFETIME",
    "PKI",
    "PLANE_OF",
    "IncomingSettings",
    "is_domain",
    "is_key",
    "is_opaque",
    "parse_address",
    "parse_ports",
    "plane_of",
]

DEFAULT_PORTS = "60100-60149"  # 60000-60050 is Proxmox's own range (direct-transports 7)
LIFETIME = 600.0  # seconds without an authenticated stream
PKI = "/etc/crosscluster/pki"
# What is between the two workers. With "qemu-tls" that holds for what QEMU does not encrypt itself: see plane_of.
PLANE_OF = {"tls": "tls", "tcp": "tcp", "qemu-tls": "tls"}

_DOMAIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?", re.ASCII)
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", re.ASCII)
_SCOPE = re.compile(r"(?:%[A-Za-z0-9._-]{1,15})?", re.ASCII)
_MOST_PORTS = 1000  # tried one after the other
_LONGEST = 24 * 3600.0  # seconds


def is_opaque(transport: str, kind: Kind) -> bool:
    """Whether QEMU encrypts a stream itself, so that the workers carry it as it comes (direct-transports 1)."""
    return transport == "qemu-tls" and kind in OPAQUE_KINDS


def plane_of(transport: str, kind: Kind) -> str:
    """What is between the two workers for a stream: nothing is encrypted twice, and nothing not at all by ``tls``."""
    return "tcp" if is_opaque(transport, kind) else PLANE_OF[transport]


def is_key(text: Any) -> bool:
    """Whether it has the form of a key for ``tcp``: 256 bits."""
    return isinstance(text, str) and handshake.is_key(text)


def is_domain(text: str) -> bool:
    """Whether a trust domain may be called so: it becomes part of a path."""
    return bool(_DOMAIN.fullmatch(text))


def parse_ports(text: Any) -> Tuple[int, int]:
    """First and last port of ``60100-60149`` or ``60100``; raises IncomingInvalid."""
    match = _PORTS.fullmatch(str(text))
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1024 <= first <= last <= 65535 or last - first >= _MOST_PORTS:
        raise _invalid("ports", f"a range such as {DEFAULT_PORTS}, from 1024 on, at most {_MOST_PORTS} ports")
    return first, last


@dataclass(frozen=True)
class IncomingSettings:
    """One listening end, without its key.

    Attributes:
        migration_id: Whose it is.
        transports: What is wanted, of :data:`PLANE_OF`.
        address: Where to listen on this node.
        ports: First and last port to try.
        peer_address: Where the source connects from; nobody else is heard.
        peer_name: The name that the source's certificate must carry.
        credentials: Directory of this node's certificates; empty without TLS.
        lifetime: Seconds without an authenticated stream after which it ends by itself.
        limits: Timers of the streams in seconds (``transport.direct_guard``).
    """

    migration_id: str
    transports: Tuple[str, ...]
    address: str
    ports: Tuple[int, int]
    peer_address: str
    peer_name: str = ""
    credentials: str = ""
    lifetime: float = LIFETIME
    limits: Mapping[str, float] = field(default_factory=dict)

    @property
    def planes(self) -> Tuple[str, ...]:
        """What may be between the two workers, by the transports that are wanted."""
        return tuple(dict.fromkeys(PLANE_OF[name] for name in self.transports))

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> IncomingSettings:
        """From JSON; raises IncomingInvalid, which names the option."""
        transports = tuple(raw.get("transports") or ())
        if not transports or not set(transports) <= set(PLANE_OF):
            raise _invalid("transports", f"at least one of {', '.join(PLANE_OF)}")
        ports = raw.get("ports") or DEFAULT_PORTS
        domain = str(raw.get("domain") or "")
        settings = cls(
            migration_id=str(raw.get("migration_id")),
            transports=tuple(dict.fromkeys(transports)),
            address=parse_address("address", raw.get("address")),
            ports=(int(ports[0]), int(ports[1])) if isinstance(ports, (list, tuple)) else parse_ports(ports),
            peer_address=_on_device_of(
                parse_address("address", raw.get("address")), parse_address("peer_address", raw.get("peer_address"))
            ),
            peer_name=str(raw.get("peer_name") or ""),
            credentials=str(raw.get("credentials") or (f"{PKI}/{domain}" if domain else "")),
            lifetime=float(raw.get("lifetime") or LIFETIME),
            limits=_limits(raw.get("limits") or {}),
        )
        settings._check(domain)
        return settings

    def _check(self, domain: str) -> None:
        own, peer = (ipaddress.ip_address(text.partition("%")[0]) for text in (self.address, self.peer_address))
        for option, holds, expected in (
            ("migration_id", handshake.is_migration_id(self.migration_id), "32 hexadecimal digits"),
            ("address", not own.is_multicast and not own.is_unspecified, "one address of this node"),
            ("peer_address", own.version == peer.version, "an address of the same family as address"),
            ("domain", not domain or is_domain(domain), "the name of a trust domain"),
            ("domain", "tls" not in self.planes or bool(self.credentials), "given for tls and qemu-tls"),
            ("peer_name", "tls" not in self.planes or is_node_name(self.peer_name), "the name of a node"),
            ("lifetime", 1.0 <= self.lifetime <= _LONGEST, "from 1 s to 24 h"),
        ):
            if not holds:
                raise _invalid(option, expected)

    def to_dict(self) -> Dict[str, Any]:
        """JSON form; :meth:`parse` reads it again."""
        return dict(
            vars(self),
            transports=list(self.transports),
            ports=list(self.ports),
            limits=dict(sorted(self.limits.items())),
        )

    def digest(self, key: str) -> str:
        """Names settings and key together; the key has 256 random bits, so this tells nothing about it."""
        text = json.dumps([self.to_dict(), key], sort_keys=True)
        return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _on_device_of(own: str, peer: str) -> str:
    """The peer's scope is the name of a device over there; here it comes in over ours."""
    scope = own.partition("%")[2]
    return f"{peer.partition('%')[0]}%{scope}" if scope and "%" in peer else peer


def _limits(raw: Mapping[Any, Any]) -> Dict[str, float]:
    """Their names and bounds are checked by who uses them (``transport.direct_guard``)."""
    try:
        return {str(name): float(value) for name, value in raw.items()}
    except (TypeError, ValueError):
        raise _invalid("limits", "numbers of seconds by name, such as {deadman: 3}") from None


def parse_address(option: str, raw: Any) -> str:
    """An address with its scope where it needs one; raises IncomingInvalid, which names the option."""
    text = str(raw)
    plain, percent, scope = text.partition("%")
    try:
        address = ipaddress.ip_address(plain)
    except ValueError:
        raise _invalid(option, "an IPv4 or IPv6 address") from None
    if percent and address.version == 4:
        raise _invalid(option, "an IPv4 address without a scope")
    # A link-local address means something together with its device only.
    if address.version == 6 and address.is_link_local and not scope:
        raise _invalid(option, "an address with its scope, such as fe80::1%eth0")
    if not _SCOPE.fullmatch(percent + scope):
        raise _invalid(option, "an address whose scope is the name of a device")
    return str(address) + percent + scope


def _invalid(option: str, expected: str) -> IncomingInvalid:
    return IncomingInvalid(f"option {option} must be {expected}", object=option, remedy=f"Give {option} as {expected}")
