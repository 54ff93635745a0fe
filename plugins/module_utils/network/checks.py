# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The checks of safety 10, one function each. Pure: facts in, :class:`Check` out.

A check is FAILED when what was seen contradicts it, NOT_RUN when it could not be seen; neither is ever PASSED. Every
function but the last three looks at one node's facts alone, so the worker repeats the checks 3, 5 and 9 on each
connection with :func:`check_way`, :func:`check_untranslated` and :func:`check_filter`.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Collection, Dict, List, Mapping, Optional, Sequence, Tuple

from .addresses import Address, Link, Network, interface_stack, is_within, only_address
from .evidence import Answers, Check, Conversation, Knock, KnockOutcome, PacketSizes, Quality, State
from .filtering import Door, narrowed_to_peer, translating_rules
from .neighbours import BUNDLES, Neighbour, guest_ports
from .routes import Route, Way
from .ruleset import Ruleset
from .xfrm import Policy, Protection, is_protected

__all__ = [
    "ALLOWABLE",
    "NodeFacts",
    "Summary",
    "check_answers",
    "check_encryption",
    "check_equal",
    "check_filter",
    "check_guests",
    "check_identity",
    "check_leads_nowhere",
    "check_network",
    "check_neighbours",
    "check_own_address",
    "check_packet_sizes",
    "check_quality",
    "check_strangers",
    "check_untranslated",
    "check_way",
    "summarise",
]

PRIVATE = tuple(
    # RFC 1918, RFC 4193
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
)
ALLOWABLE: Dict[str, Tuple[Network, ...]] = {
    "cgnat": (ipaddress.ip_network("100.64.0.0/10"),),  # RFC 6598
    "link-local": (ipaddress.ip_network("169.254.0.0/16"), ipaddress.ip_network("fe80::/10")),
}
# What a route may lead to without leading anywhere: groups and the link itself.
_LOCAL_ROUTES = tuple(
    ipaddress.ip_network(text)
    for text in ("224.0.0.0/4", "169.254.0.0/16", "255.255.255.255/32", "fe80::/10", "ff00::/8")
)
# Larger networks hold more hosts than anybody has counted; /16 is what a fleet of clusters may need, /48 a site's ULA.
_SHORTEST_PREFIX = {4: 16, 6: 48}
# Interfaces whose wire is what it seems to be. Any other kind (vxlan, gre, tun, ...) carries the network over another
# one, which nobody has looked at.
_PLAIN_KINDS = ("", "veth", "vlan", "bond", "team", "bridge", "macsec", "wireguard")


@dataclass(frozen=True)
class NodeFacts:
    """What one node says about its network; None where it could not be asked."""

    links: Tuple[Link, ...]
    bridge_ports: Optional[Dict[str, str]]
    routes: Tuple[Route, ...]
    neighbours: Tuple[Neighbour, ...]
    ruleset: Optional[Ruleset]
    forwards: Optional[bool]
    hidden_translation: Optional[bool]
    protections: Tuple[Protection, ...] = ()
    policies: Tuple[Policy, ...] = ()
    taken: Tuple[Tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Summary:
    """What the other node and the controller need to know of a node."""

    address: Address
    prefix: int
    interface: str
    mac: str
    link_layer: str
    mtu: int
    kind: str


def summarise(facts: NodeFacts, network: Network) -> Optional[Summary]:
    """The node's place in the network; None without exactly one address in it."""
    found = only_address(facts.links, network)
    if found is None:
        return None
    link, held = found
    prefix = held.interface.network.prefixlen
    return Summary(held.interface.ip, prefix, link.name, link.mac, link.link_layer, link.mtu, link.kind)


def check_network(network: Network, node: str, allowed: Collection[str] = ()) -> Check:
    """Check 1: a private network of a size that can be overseen; ``allowed`` takes in kinds of :data:`ALLOWABLE`."""
    ranges = PRIVATE + tuple(extra for word in allowed for extra in ALLOWABLE.get(word, ()))
    if not any(_covers(one, network) for one in ranges):
        kind = next((word for word, some in ALLOWABLE.items() if any(_covers(one, network) for one in some)), "public")
        finding = f"{network} is not private, it is {kind}"
        return Check(1, node, State.FAILED, finding, "Use a network of RFC 1918 or a ULA, or TLS.")
    if network.prefixlen < _SHORTEST_PREFIX[network.version]:
        return Check(1, node, State.FAILED, f"{network} is too large to be overseen", "Declare a smaller network.")
    return Check(1, node, State.PASSED, f"{network} is private")


def check_own_address(facts: NodeFacts, network: Network, node: str) -> Check:
    """Check 2: exactly one own address inside, on an interface that is up, with the prefix of the network."""
    inside = [(link, held) for link in facts.links for held in link.addresses if is_within(held.interface.ip, network)]
    if len(inside) != 1:
        listed = ", ".join(f"{held.interface} on {link.name}" for link, held in inside) or "none"
        remedy = "Give the node one address in the network, or declare the network that it has one in."
        return Check(2, node, State.FAILED, f"addresses in {network}: {listed}; one is wanted", remedy)
    link, held = inside[0]
    if not link.up:
        return Check(2, node, State.FAILED, f"interface {link.name} is not up", f"Look at the cable of {link.name}.")
    if not held.usable:
        remedy = "Find the other host that has this address."
        return Check(
            2, node, State.FAILED, f"{held.interface} on {link.name} failed or runs its duplicate test", remedy
        )
    if held.interface.network != network:
        remedy = (
            f"Set the prefix of {held.interface.ip} on {link.name} to /{network.prefixlen}, or declare its network."
        )
        return Check(2, node, State.FAILED, f"{link.name} has {held.interface}, the network is {network}", remedy)
    return Check(2, node, State.PASSED, f"{held.interface} on {link.name}, which is up")


def check_way(way: Optional[Way], interface: str, own: Address, peer: Address, node: str) -> Check:
    """Check 3: packets to the peer leave by the interface, without a gateway, from the own address."""
    remedy = f"Look at `ip route get {peer}` and `ip rule` on {node}: the peer must be on the link of {interface}."
    if way is None:
        return Check(3, node, State.FAILED, f"there is no way to {peer}", remedy)
    if way.destination != peer or not way.direct or way.interface != interface or way.source != own:
        through = f" through the gateway {way.gateway}" if way.gateway else ""
        finding = f"{peer} is reached by {way.interface or 'nothing'}{through} from {way.source}"
        return Check(3, node, State.FAILED, finding, remedy)
    if way.unless:
        finding = f"{peer} is on the link of {interface}, but not for all packets: {way.unless}"
        return Check(3, node, State.FAILED, finding, remedy)
    return Check(3, node, State.PASSED, f"{peer} is on the link of {interface}, reached from {own}")


def check_leads_nowhere(facts: NodeFacts, network: Network, interface: str, node: str) -> Check:
    """Check 4: no route to the world leaves by the interface, and the node is no router that hides others behind it."""
    for route in facts.routes:
        harmless = any(_covers(one, route.destination) for one in (network, *PRIVATE, *_LOCAL_ROUTES))
        # Of the other version of IP only what leads on is told: it has addresses of its own on the same wire.
        if route.destination.version != network.version:
            harmless = harmless or not (route.has_gateway or route.destination.prefixlen == 0)
        if interface in route.interfaces and not harmless:
            finding = f"the route to {route.destination} leaves by {interface}"
            return Check(4, node, State.FAILED, finding, "Put that route on another network.")
    if facts.forwards is False:
        return Check(4, node, State.PASSED, f"no route to the world leaves by {interface}, and nothing is forwarded")
    if facts.forwards is None or facts.ruleset is None:
        finding = "the node may forward packets, and its packet filter could not be read"
        return Check(4, node, State.NOT_RUN, finding, "Install nftables, or turn forwarding off on the interface.")
    rules = translating_rules(facts.ruleset, interface, network)
    if rules:
        remedy = f"Narrow the rule so that it does not concern {interface}, or turn forwarding off on it."
        return Check(4, node, State.FAILED, f"the node forwards, and may hide others behind it: {rules[0]}", remedy)
    if facts.hidden_translation is not False:
        finding = "the node forwards, and has address translation of old iptables that nft does not show"
        return Check(4, node, State.NOT_RUN, finding, "Use iptables-nft, or turn forwarding off on the interface.")
    return Check(4, node, State.PASSED, f"the node forwards, but no rule translates addresses on {interface}")


def check_untranslated(talk: Conversation, node: str) -> Check:
    """Check 5: the peer saw the address and port that we sent from, and answered from those that we dialled."""
    if talk.problem:
        return Check(5, node, State.FAILED, f"no exchange with the peer: {talk.problem}", _UNREACHED)
    if not talk.proven:
        return Check(5, node, State.FAILED, "nobody who has the key said what addresses it saw", _UNREACHED)
    if talk.local != talk.seen or talk.remote != talk.answered or not talk.local[1] or not talk.remote[1]:
        finding = (
            f"sent from {_end(talk.local)}, arrived from {_end(talk.seen)}; "
            f"dialled {_end(talk.remote)}, answered by {_end(talk.answered)}"
        )
        return Check(5, node, State.FAILED, finding, "Take the address translation (NAT, proxy) out of the way.")
    return Check(5, node, State.PASSED, f"{_end(talk.local)} and {_end(talk.remote)} are seen alike on both sides")


def check_identity(talk: Conversation, node: str) -> Check:
    """Check 6: who answers has the key that this run gave to the two nodes over SSH."""
    if talk.problem or not talk.proven:
        finding = talk.problem or f"who answered at {_end(talk.remote)} does not have the key"
        return Check(6, node, State.FAILED, finding, _UNREACHED)
    return Check(6, node, State.PASSED, f"who answered at {_end(talk.remote)} has the key of this run")


def check_answers(answers: Answers, link_layer: str, peer: Address, expected: str, node: str) -> Check:
    """Check 7: one hardware address answers for the peer's address, the peer's own, and none for ours."""
    if link_layer == "none":
        return Check(
            7, node, State.PASSED, "packets carry no hardware addresses on this tunnel, nobody can take one over"
        )
    if link_layer != "ether" or answers.problem or not expected:
        finding = answers.problem or f"no way is known to ask on an interface of kind {link_layer or 'unknown'}"
        return Check(7, node, State.NOT_RUN, finding, "Run the check as root on an Ethernet interface.")
    remedy = f"Find the other host that has the address: look at `ip neigh` on {node} and at the tables of the switch."
    if answers.own:
        return Check(7, node, State.FAILED, f"our own address is answered for by {', '.join(answers.own)}", remedy)
    if answers.peer != (expected,):
        finding = f"{peer} is answered for by {', '.join(answers.peer) or 'nobody'}; the peer is {expected}"
        return Check(7, node, State.FAILED, finding, remedy)
    if answers.table and answers.table != expected:
        finding = f"the neighbour table has {answers.table} for {peer}; the peer is {expected}"
        return Check(7, node, State.FAILED, finding, remedy)
    return Check(7, node, State.PASSED, f"only {expected} answers for {peer}, and nobody for our own address")


def check_packet_sizes(sizes: Optional[PacketSizes], mtu: int, node: str) -> Check:
    """Check 8: a packet as large as the interface allows goes to the peer and comes back whole."""
    if sizes is None:
        return Check(8, node, State.NOT_RUN, "the peer echoes no packets", _UNREACHED)
    if sizes.largest < mtu:
        largest = f"the largest one that did is {sizes.largest}" if sizes.largest else "no smaller one did"
        remedy = "Set the same MTU on both nodes and on all ports of the switches between them."
        finding = f"packets of {mtu} bytes do not come back, {largest}"
        return Check(8, node, State.FAILED, finding, remedy)
    return Check(8, node, State.PASSED, f"packets of {mtu} bytes go there and back whole")


def check_filter(ruleset: Optional[Ruleset], door: Door, node: str) -> Check:
    """Check 9: the packet filter lets nobody but the peer, by this interface, reach the port."""
    if ruleset is None:
        remedy = "Install nftables, or use a transport with TLS."
        return Check(9, node, State.NOT_RUN, "the packet filter cannot be read or set (nft)", remedy)
    found = narrowed_to_peer(ruleset, door)
    if not found.narrowed:
        return Check(9, node, State.FAILED, found.stranger, "Look at `nft list ruleset`: a chain must drop all others.")
    if not found.peer_passes:
        remedy = f"Let {door.peer} reach {door.protocol} port {door.port} in the firewall of {node}."
        return Check(9, node, State.FAILED, f"the peer {door.peer} itself is dropped", remedy)
    where = f"{door.protocol} port {door.port} on {door.own}"
    return Check(9, node, State.PASSED, f"only {door.peer} by {door.interface} reaches {where}")


def check_encryption(facts: NodeFacts, interface: str, own: Address, peer: Optional[Address], node: str) -> Check:
    """Check 11: PASSED for an encrypted link, NOTED for a plain one, FAILED for one whose wire nobody has looked at."""
    by_name = {link.name: link for link in facts.links}
    stack = [by_name[interface]] if interface in by_name else []
    # The packets of a vlan pass what it is cut from.
    while stack and stack[-1].kind == "vlan" and stack[-1].lower in by_name and len(stack) < len(by_name):
        stack.append(by_name[stack[-1].lower])
    if any(link.encrypts for link in stack):
        kinds = " on ".join(link.kind for link in stack if link.kind)
        return Check(11, node, State.PASSED, f"{interface} is encrypted ({kinds})")
    if peer is not None and is_protected(own, peer, facts.protections, facts.policies):
        return Check(11, node, State.PASSED, f"IPsec encrypts everything between {own} and {peer}")
    odd = [
        link
        for link in interface_stack(facts.links, interface)
        if link.kind not in _PLAIN_KINDS and (link.name == interface or not _is_port(link, by_name))
    ]
    if not stack or odd:
        kind = odd[0].kind if odd else "unknown"
        finding = (
            f"{interface} is or stands on {odd[0].name if odd else interface} of kind {kind}, whose wire is unknown"
        )
        return Check(11, node, State.FAILED, finding, "Use hardware, VLAN, bond, bridge, WireGuard or MACsec.")
    return Check(11, node, State.NOTED, f"{interface} does not encrypt ({stack[0].kind or 'hardware'})")


def check_guests(facts: NodeFacts, interface: str, node: str) -> Check:
    """Check 12: no guest can reach the wire of the interface."""
    if facts.bridge_ports is None:
        return Check(12, node, State.NOT_RUN, "the ports of the bridges could not be listed", "Install iproute2.")
    guests = guest_ports(facts.links, facts.bridge_ports, interface, facts.taken)
    if guests:
        listed = ", ".join(guests[:5]) + (f" and {len(guests) - 5} more" if len(guests) > 5 else "")
        remedy = f"Take {interface} and its cable out of the guests' bridge, or use TLS."
        return Check(12, node, State.FAILED, f"guests may share the wire of {interface}: {listed}", remedy)
    return Check(12, node, State.PASSED, f"no guest is on the wire of {interface}")


def check_quality(quality: Optional[Quality], node: str, *, round_trip_us: int = 0, loss_percent: int = 100) -> Check:
    """Check 13: round trip and loss of small packets; fails only against limits that were set (0, 100: none)."""
    if quality is None or not quality.sent:
        return Check(13, node, State.NOTED, "round trip and loss could not be measured")
    lost = quality.sent - quality.returned
    finding = f"{lost} of {quality.sent} packets lost, median round trip {quality.median_us} us"
    slow = round_trip_us and (quality.median_us > round_trip_us or not quality.returned)
    if slow or lost * 100 > loss_percent * quality.sent:
        return Check(13, node, State.FAILED, finding, "Look for the busy or broken link, or raise the limit.")
    return Check(13, node, State.NOTED, finding)


def check_neighbours(
    facts: NodeFacts, network: Network, interface: str, known: Collection[Address], node: str, peer_mac: str = ""
) -> Check:
    """Part of check 10: whoever has lately talked on this wire is a declared member of the network.

    A member may have more addresses there, of other networks: it is known by its hardware address. What every
    interface has by itself (fe80::) says nothing.
    """
    on_wire = [one for one in facts.neighbours if one.interface == interface]
    macs = {one.mac for one in on_wire if one.address in known} | {peer_mac}
    others = sorted(
        {
            f"{one.address} ({one.mac})"
            for one in on_wire
            if one.address not in known
            and (is_within(one.address, network) or not (one.address.is_link_local or one.mac in macs))
        }
    )
    if others:
        finding = f"others are on this network: {', '.join(others[:5])}"
        remedy = "Name them as members of the network if they belong to it, else find out who they are."
        return Check(10, node, State.FAILED, finding, remedy, part="neighbours")
    finding = "the neighbour table knows nobody but members of the network"
    return Check(10, node, State.PASSED, finding, part="neighbours")


def check_strangers(node: str, knocks: Sequence[Knock], answered: bool) -> Check:
    """Check 10: nobody outside reaches the port that the peer has just reached.

    Args:
        node: The node whose port was tried.
        knocks: The attempts of hosts that are no peers.
        answered: Whether the peer got an answer there; else silence proves nothing.
    """
    mine = [one for one in knocks if one.node == node]
    inside = [one for one in mine if one.outcome in (KnockOutcome.CONNECTED, KnockOutcome.REFUSED)]
    if inside:
        words = "got through" if inside[0].outcome is KnockOutcome.CONNECTED else "was refused, so its packets arrive"
        remedy = "Find the way that leads from there into this network, and close it."
        return Check(10, node, State.FAILED, f"{inside[0].stranger} is no peer and {words}", remedy)
    tried = [one for one in mine if one.outcome is not KnockOutcome.NOT_SENT]
    if not tried:
        finding = "no outside host has tried to get in"
        return Check(10, node, State.NOT_RUN, finding, "Name a host outside of the network that can try.")
    if not answered:
        return Check(10, node, State.NOT_RUN, "silence proves nothing while the peer has no answer either", _UNREACHED)
    how = ", ".join(f"{one.stranger} ({one.outcome.value})" for one in tried)
    return Check(10, node, State.PASSED, f"does not get in: {how}")


def check_equal(nodes: Sequence[str], summaries: Sequence[Optional[Summary]]) -> List[Check]:
    """What must be equal on both nodes: prefix (check 2) and MTU (check 8)."""
    checks = []
    known = [one for one in summaries if one is not None]
    for number, word, values in (
        (2, "prefixes", [one.prefix for one in known]),
        (8, "MTUs", [one.mtu for one in known]),
    ):
        for node in nodes:
            if len(known) != len(nodes):
                checks.append(Check(number, node, State.NOT_RUN, f"the {word} cannot be compared", part="equal"))
            elif len(set(values)) != 1:
                finding = f"the {word} differ: {' and '.join(map(str, values))}"
                remedy = f"Set the same {word[:-1]} on both nodes."
                checks.append(Check(number, node, State.FAILED, finding, remedy, part="equal"))
            else:
                checks.append(Check(number, node, State.PASSED, f"the {word} are equal: {values[0]}", part="equal"))
    return checks


_UNREACHED = "Look at cables, VLAN and firewall between the two nodes: the peer's port must be reachable for the probe."


def _is_port(link: Link, by_name: Mapping[str, Link]) -> bool:
    """Whether it is a port of a bridge, of which check 12 decides. All that a bond sends goes through its ports."""
    master = by_name.get(link.master)
    return bool(link.master) and (master is None or master.kind not in BUNDLES)


def _covers(outer: Network, inner: Network) -> bool:
    if isinstance(outer, ipaddress.IPv4Network) and isinstance(inner, ipaddress.IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(outer, ipaddress.IPv6Network) and isinstance(inner, ipaddress.IPv6Network):
        return inner.subnet_of(outer)
    return False


def _end(end: Tuple[str, int]) -> str:
    return f"{end[0] or 'nowhere'} port {end[1]}"
