# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""Who else is on the wire: the neighbour table, the ports of bridges, and guests among them.

Knows what ``ip -j neigh`` and ``bridge -j link`` print, and how Proxmox VE and libvirt name the interfaces of guests.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Dict, List, Sequence, Tuple

from .addresses import Address, Link, interface_stack, parse_address
from .errors import NetworkInvalid
from .fields import entries, invalid, name, optional_name, parse_json, words

__all__ = [
    "BRIDGE_COMMAND",
    "NEIGH_COMMAND",
    "TAKEN_COMMAND",
    "Neighbour",
    "guest_ports",
    "parse_bridge_ports",
    "parse_neighbours",
    "parse_taken",
]

NEIGH_COMMAND = "ip -j neigh show"
BRIDGE_COMMAND = "bridge -j link show"
TAKEN_COMMAND = "bridge -j fdb show"
# What a port without any guest behind it can be: hardware, a part of it, several of it, and encrypted hardware.
PLAIN_PORTS = ("", "vlan", "bond", "team", "macsec")
# Masters that join no networks: the ports of a bond are one cable, a VRF is a routing table. All others are switches
# (a bridge, the "openvswitch" named ovs-system, of whose bridges the kernel says nothing).
BUNDLES = ("bond", "team", "vrf")
# Guests that share an interface without any bridge.
SHARING_KINDS = ("macvlan", "macvtap", "ipvlan", "ipvtap")
# Proxmox VE's firewall puts a veth pair between the guest's own bridge and the real one (fwpr, fwln); containers have
# veth; libvirt has vnet and macvtap.
_GUEST_NAME = re.compile(r"(?:tap|veth)[0-9]+i[0-9]+|fw(?:br|ln|pr)[0-9]+[ip][0-9]+|(?:vnet|macvtap)[0-9]+", re.ASCII)
_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}", re.ASCII)


@dataclass(frozen=True)
class Neighbour:
    """An entry of the neighbour table; ``mac`` is empty while nobody has answered."""

    address: Address
    interface: str
    mac: str


def parse_neighbours(text: str) -> Tuple[Neighbour, ...]:
    """The neighbours that have answered at some time.

    Raises:
        NetworkFactsInvalid: NETWORK_FACTS_INVALID.
    """
    found = []
    for raw in entries(NEIGH_COMMAND, parse_json(NEIGH_COMMAND, text)):
        mac = raw.get("lladdr", "")
        # A tunnel's entry has an IP address where the hardware address would be: nobody on a wire.
        if {"FAILED", "INCOMPLETE", "NOARP"} & set(words(NEIGH_COMMAND, raw, "state")) or not isinstance(mac, str):
            continue
        if not _MAC.fullmatch(mac.lower()):
            continue
        try:
            address = parse_address(raw.get("dst"))
        except NetworkInvalid:
            raise invalid(NEIGH_COMMAND, "dst", raw.get("dst")) from None
        found.append(Neighbour(address, optional_name(NEIGH_COMMAND, raw, "dev"), mac.lower()))
    return tuple(found)


def parse_bridge_ports(text: str) -> Dict[str, str]:
    """The bridge of each port.

    Raises:
        NetworkFactsInvalid: NETWORK_FACTS_INVALID.
    """
    found = {}
    for raw in entries(BRIDGE_COMMAND, parse_json(BRIDGE_COMMAND, text)):
        master = optional_name(BRIDGE_COMMAND, raw, "master")
        if master:
            found[name(BRIDGE_COMMAND, raw, "ifname")] = master
    return found


def parse_taken(text: str) -> Tuple[Tuple[str, str], ...]:
    """Interfaces, and what hardware addresses they take packets for besides their own.

    Raises:
        NetworkFactsInvalid: NETWORK_FACTS_INVALID.
    """
    found = set()
    for raw in entries(TAKEN_COMMAND, parse_json(TAKEN_COMMAND, text)):
        mac = raw.get("mac")
        if "self" not in words(TAKEN_COMMAND, raw, "flags") or not isinstance(mac, str):
            continue
        # The lowest bit of the first byte: an address of many. With a destination it is a tunnel's entry.
        if _MAC.fullmatch(mac.lower()) and not int(mac[:2], 16) & 1 and "dst" not in raw:
            found.add((optional_name(TAKEN_COMMAND, raw, "ifname"), mac.lower()))
    return tuple(sorted(found))


def guest_ports(
    links: Sequence[Link], ports: Dict[str, str], interface: str, taken: Sequence[Tuple[str, str]] = ()
) -> List[str]:
    """Interfaces through which a guest may reach the wire that ``interface`` is on.

    A guest may be a port of the bridge that the interface is, stands on, or shares a cable with (a guest on a bridge
    that knows no VLANs can send tagged frames itself), or share an interface without a bridge. A port counts as a
    guest's unless it is hardware or made of hardware, because the other end of a veth pair cannot be seen.
    """
    stack = {link.name for link in interface_stack(links, interface)}
    kinds = {link.name: link.kind for link in links}
    # The other end of our own veth pair is no guest.
    own = {interface} | {link.lower for link in links if link.name == interface and link.kind == "veth"}
    masters = {**{link.name: link.master for link in links if link.master}, **ports}
    bridges = {master for port, master in masters.items() if port in stack} | stack
    # Every bridge on the way, and what those stand on in turn.
    shared = {link.name for bridge in bridges for link in interface_stack(links, bridge)} | stack
    found = {
        port
        for port, master in masters.items()
        if master in shared
        and kinds.get(master, "bridge") not in BUNDLES
        and port not in own
        and (kinds.get(port, "unseen") not in PLAIN_PORTS or _GUEST_NAME.fullmatch(port))
    }
    found |= {link.name for link in links if link.lower in shared and link.kind in SHARING_KINDS}
    # A macvlan of a container is in the container's network namespace: here only its address is left.
    macs = {link.mac for link in links}
    found |= {f"somebody with {mac} on {port}" for port, mac in taken if port in shared and mac not in macs}
    # What a virtual function of the card is given to cannot be seen; the card switches between them and the cable.
    found |= {
        f"{link.name} function {number}" for link in links if link.name in shared for number in range(link.functions)
    }
    found |= {word for word in stack - own if _GUEST_NAME.fullmatch(word)}
    # Whose name says so comes first, for people.
    return sorted(found, key=lambda port: (not _GUEST_NAME.fullmatch(port), port))
