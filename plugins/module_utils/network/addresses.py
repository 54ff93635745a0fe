# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""Networks, addresses and interfaces of a node, as ``ip -d -j addr`` prints them.

Knows what a private network is (safety 10, check 1) and how interfaces stand on one another. Does not know a peer.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from .errors import NetworkInvalid
from .fields import ADDRESS_FAMILY, entries, invalid, mapping, name, number, optional_name, parse_json, words

__all__ = [
    "ADDR_COMMAND",
    "Address",
    "HeldAddress",
    "Link",
    "Network",
    "interface_stack",
    "is_within",
    "only_address",
    "parse_address",
    "parse_links",
    "parse_network",
]

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]
Interface = Union[ipaddress.IPv4Interface, ipaddress.IPv6Interface]

ADDR_COMMAND = "ip -d -j addr show"
_MAX_MTU = 1 << 31
_DEEPEST = 8  # interfaces on top of each other; vlan on bond on slaves is three


@dataclass(frozen=True)
class HeldAddress:
    """One address of an interface; ``usable`` is false while or because duplicate address detection runs or failed."""

    interface: Interface
    usable: bool


@dataclass(frozen=True)
class Link:
    """One interface.

    Attributes:
        kind: What the kernel made it with (``bridge``, ``vlan``, ``wireguard``, ...); empty for hardware.
        master: The bridge or bond that it is a port of.
        lower: The interface it stands on, or its other end, in the same network namespace.
        link_layer: The kernel's word for what carries its packets: ``ether``, or ``none`` for a tunnel of IP packets.
        functions: How many virtual functions of the card there are (SR-IOV), each an interface of its own for a guest.
        encrypts: Whether all that leaves through it is encrypted and what arrives in clear is dropped.
    """

    name: str
    kind: str
    up: bool
    mtu: int
    mac: str
    master: str
    lower: str
    link_layer: str
    encrypts: bool
    addresses: Tuple[HeldAddress, ...]
    functions: int = 0


def parse_address(text: Any) -> Address:
    """An address without a zone; IPv4 written as IPv6 is refused.

    Raises:
        NetworkInvalid: NETWORK_INVALID.
    """
    try:
        if not isinstance(text, str) or not text.isascii() or "%" in text:
            raise ValueError
        address = ipaddress.ip_address(text)
    except ValueError:
        raise _refused("address", text, "Write an IPv4 or IPv6 address.") from None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        raise _refused("address", text, "Write the IPv4 address itself.")
    return address


def parse_network(text: Any) -> Network:
    """A network in CIDR notation, without host bits.

    Raises:
        NetworkInvalid: NETWORK_INVALID.
    """
    try:
        if not isinstance(text, str) or not text.isascii() or "/" not in text or "%" in text:
            raise ValueError
        return ipaddress.ip_network(text, strict=True)
    except ValueError:
        raise _refused("network", text, "Write the network as in 10.5.0.0/24 or fd00:5::/64.") from None


def is_within(address: Address, network: Network) -> bool:
    """Whether the address lies in the network; never for two versions of IP."""
    return address.version == network.version and address in network


def parse_links(text: str) -> Tuple[Link, ...]:
    """Every interface that ``ip -d -j addr show`` printed.

    Raises:
        NetworkFactsInvalid: NETWORK_FACTS_INVALID.
    """
    links = tuple(_link(raw) for raw in entries(ADDR_COMMAND, parse_json(ADDR_COMMAND, text)))
    names = [link.name for link in links]
    if len(set(names)) != len(names):
        raise invalid(ADDR_COMMAND, "ifname", "the same twice")
    return links


def interface_stack(links: Sequence[Link], start: str) -> Tuple[Link, ...]:
    """The interface and all it stands on: what a vlan is cut from, the ports of a bond or bridge, the other end of a
    veth pair. Whoever is plugged in anywhere there shares the wire.
    """
    by_name = {link.name: link for link in links}
    found: Dict[str, Link] = {}
    waiting: List[Tuple[str, int]] = [(start, 0)]
    while waiting:
        current, depth = waiting.pop(0)
        if current in found or current not in by_name or depth > _DEEPEST:
            continue
        link = by_name[current]
        found[current] = link
        ports = [port.name for port in links if port.master == current]
        waiting += [(other, depth + 1) for other in [link.lower, *ports] if other]
    return tuple(found.values())


def _link(raw: Mapping[str, Any]) -> Link:
    info = mapping(ADDR_COMMAND, raw.get("linkinfo", {}))
    kind = info.get("info_kind", "")
    if not isinstance(kind, str) or len(kind) > 32 or not kind.isascii():
        raise invalid(ADDR_COMMAND, "info_kind", kind)
    flags = words(ADDR_COMMAND, raw, "flags")
    mac, layer = raw.get("address", ""), raw.get("link_type")
    return Link(
        name=name(ADDR_COMMAND, raw, "ifname"),
        kind=kind,
        # A tunnel says UP without a state of its own (UNKNOWN), a port without a cable has NO-CARRIER.
        up="UP" in flags and "LOWER_UP" in flags and "NO-CARRIER" not in flags,
        mtu=number(ADDR_COMMAND, raw, "mtu", 0, _MAX_MTU),
        mac=mac.lower() if isinstance(mac, str) and len(mac) == 17 else "",
        master=optional_name(ADDR_COMMAND, raw, "master"),
        lower=optional_name(ADDR_COMMAND, raw, "link"),
        link_layer=layer if isinstance(layer, str) and len(layer) <= 32 else "",
        encrypts=_encrypts(kind, mapping(ADDR_COMMAND, info.get("info_data") or {})),
        addresses=tuple(held for entry in entries(ADDR_COMMAND, raw.get("addr_info", [])) for held in _held(entry)),
        functions=len(entries(ADDR_COMMAND, raw.get("vfinfo_list", []))),
    )


def _held(raw: Mapping[str, Any]) -> List[HeldAddress]:
    if raw.get("family") not in ADDRESS_FAMILY:
        return []
    bits = 32 if raw["family"] == "inet" else 128
    prefix = number(ADDR_COMMAND, raw, "prefixlen", 0, bits)
    try:
        interface = ipaddress.ip_interface(f"{parse_address(raw.get('local'))}/{prefix}")
    except NetworkInvalid:
        raise invalid(ADDR_COMMAND, "local", raw.get("local")) from None
    if interface.version != ADDRESS_FAMILY[raw["family"]]:
        raise invalid(ADDR_COMMAND, "local", raw.get("local"))
    return [HeldAddress(interface, not (raw.get("tentative") or raw.get("dadfailed")))]


def _encrypts(kind: str, data: Mapping[str, Any]) -> bool:
    """WireGuard always does. MACsec only with ``encrypt``, and what arrives in clear is only dropped with ``strict``
    (ip-macsec(8)); iproute2 prints on and off or true and false, and calls the latter ``validation`` in this place.
    """
    if kind == "macsec":
        on = (True, "on")
        return data.get("encrypt") in on and data.get("protect", True) in on and data.get("validation") == "strict"
    return kind == "wireguard"


def _refused(object: str, value: Any, remedy: str) -> NetworkInvalid:
    return NetworkInvalid(f"{value!r:.80} is no {object} that can be used", object=object, remedy=remedy)


def only_address(links: Sequence[Link], network: Network) -> Optional[Tuple[Link, HeldAddress]]:
    """The one address of the node inside ``network`` and its interface; None for none or several."""
    inside = [(link, held) for link in links for held in link.addresses if is_within(held.interface.ip, network)]
    return inside[0] if len(inside) == 1 else None
