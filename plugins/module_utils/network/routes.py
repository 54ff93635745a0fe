# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""Routes of a node: the whole table, and the way to one address.

Knows what ``ip -j route`` prints. Does not decide which way is a good one.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any, List, Mapping, Optional, Tuple

from .addresses import Address, Network, parse_address
from .errors import NetworkInvalid
from .fields import entries, invalid, mapping, optional_name, parse_json

__all__ = ["ROUTES_COMMAND", "WAY_COMMAND", "Route", "Way", "parse_routes", "parse_way"]

ROUTES_COMMAND = "ip -j route show table all"
WAY_COMMAND = "ip -j route get"
_EVERYTHING = {4: ipaddress.ip_network("0.0.0.0/0"), 6: ipaddress.ip_network("::/0")}


@dataclass(frozen=True)
class Route:
    """Where packets to ``destination`` go; several interfaces for a route with several next hops."""

    destination: Network
    interfaces: Tuple[str, ...]
    has_gateway: bool
    table: str = "main"


@dataclass(frozen=True)
class Way:
    """How the node reaches one address.

    Attributes:
        source: The address it would use.
        unless: What makes some packets go another way, in words; empty when nothing does.
    """

    destination: Address
    interface: str
    gateway: str
    source: Optional[Address]
    direct: bool
    unless: str = ""


def parse_routes(text: str, version: int) -> Tuple[Route, ...]:
    """The routes of every table, without those to the node itself.

    Args:
        text: Output of ``ip -4`` or ``-6 -j route show table all``.
        version: 4 or 6.

    Raises:
        NetworkFactsInvalid: NETWORK_FACTS_INVALID.
    """
    found = []
    for raw in entries(ROUTES_COMMAND, parse_json(ROUTES_COMMAND, text)):
        # Routes to the node's own addresses, to groups, and those that throw packets away lead to nobody else.
        if raw.get("type", "unicast") == "unicast" and raw.get("table") != "local":
            found.append(_route(raw, version))
    return tuple(found)


def _route(raw: Mapping[str, Any], version: int) -> Route:
    hops = entries(ROUTES_COMMAND, raw.get("nexthops", []))
    names = [optional_name(ROUTES_COMMAND, hop, "dev") for hop in [raw, *hops]]
    return Route(
        destination=_destination(raw.get("dst"), version),
        interfaces=tuple(sorted({word for word in names if word})),
        has_gateway=any(hop.get("gateway") or hop.get("via") for hop in [raw, *hops]),
        table=str(raw.get("table", "main")),
    )


def _destination(value: Any, version: int) -> Network:
    if value == "default":
        return _EVERYTHING[version]
    try:
        if not isinstance(value, str) or not value.isascii():
            raise ValueError
        network = ipaddress.ip_network(value, strict=True)
    except ValueError:
        raise invalid(ROUTES_COMMAND, "dst", value) from None
    if network.version != version:
        raise invalid(ROUTES_COMMAND, "dst", value)
    return network


def parse_way(text: str) -> Way:
    """What ``ip -j route get ADDRESS``, with or without ``from OWN``, says.

    Raises:
        NetworkFactsInvalid: NETWORK_FACTS_INVALID.
    """
    found: List[Mapping[str, Any]] = entries(WAY_COMMAND, parse_json(WAY_COMMAND, text), limit=4)
    if len(found) != 1:
        raise invalid(WAY_COMMAND, "list", found)
    raw = found[0]
    gateway = raw.get("gateway") or mapping(WAY_COMMAND, raw.get("via", {})).get("host") or ""
    try:
        destination = parse_address(raw.get("dst"))
        source = raw.get("prefsrc") or raw.get("from")
        source = parse_address(source) if source else None
        gateway = str(parse_address(gateway)) if gateway else ""
    except NetworkInvalid:
        raise invalid(WAY_COMMAND, "address", raw) from None
    return Way(
        destination=destination,
        interface=optional_name(WAY_COMMAND, raw, "dev"),
        gateway=gateway,
        source=source,
        # A blackhole has another type, an encapsulating route (MPLS, seg6, ip in ip) has "encap".
        direct=raw.get("type", "unicast") == "unicast" and not gateway and "encap" not in raw and "via" not in raw,
    )
