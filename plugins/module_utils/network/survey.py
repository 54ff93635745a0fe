# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""What one node does for an audit of its network, step by step, each with its checks; and what the worker repeats.

The steps of a pair: ``look`` on both nodes, ``listen`` on both, ``probe`` from both, ``knock`` from hosts that are no
peers, ``report`` on both. The controller carries summaries between them and concludes. Everything that touches the
world is a field of :class:`World`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Collection, Dict, List, Mapping, Optional, Tuple

from . import probe, responder
from .addresses import Address, Network, interface_stack, parse_address, parse_network
from .checks import (
    ALLOWABLE,
    NodeFacts,
    Summary,
    check_answers,
    check_encryption,
    check_filter,
    check_guests,
    check_identity,
    check_leads_nowhere,
    check_neighbours,
    check_network,
    check_own_address,
    check_packet_sizes,
    check_quality,
    check_untranslated,
    check_way,
    summarise,
)
from .errors import NetworkInvalid
from .evidence import Answers, Check, Conversation, KnockOutcome, PacketSizes, Quality
from .exchange import parse_key
from .fields import name
from .filtering import Door
from .probe import Pair
from .responder import Settings
from .routes import Way
from .ruleset import Ruleset

__all__ = ["World", "knock_at", "listen", "look", "parse_ports", "probe_peer", "recheck", "report", "world"]

PORTS = "60150-60159"  # beside 60100-60149 of `incoming` and 60000-60050 of Proxmox VE (direct-transports 7)
_MOST_PORTS = 100
_MOST_MEMBERS = 1000
_MAX_NAME = 100


@dataclass(frozen=True)
class World:
    """The edge, as functions."""

    gather: Callable[[int], NodeFacts]
    way: Callable[[Address], Optional[Way]]
    ruleset: Callable[[], Optional[Ruleset]]
    converse: Callable[[Pair], Conversation]
    echo: Callable[[Pair, int], Tuple[Optional[PacketSizes], Quality]]
    owners: Callable[[str, str, Address, Address, str], Answers]
    knock: Callable[[Address, int], KnockOutcome]
    start: Callable[[Settings], int]
    collect: Callable[[str], Optional[Dict[str, Any]]]


def world(run: probe.Run = probe.run_command) -> World:
    """The real one."""
    return World(
        gather=lambda version: probe.gather(run, version),
        way=lambda peer: probe.read_way(run, peer),
        ruleset=lambda: probe.read_ruleset(run),
        converse=probe.converse,
        echo=probe.echo,
        owners=probe.ask_owners,
        knock=probe.knock,
        start=lambda settings: responder.start(settings, run),
        collect=responder.collect,
    )


def look(edge: World, options: Mapping[str, Any]) -> Dict[str, Any]:
    """Where the node is in the network, with the checks 1, 2, 4 and 12; sends nothing."""
    network, node = parse_network(options.get("network")), _name(options, "node")
    facts = edge.gather(network.version)
    checks = [check_network(network, node, _allowed(options)), check_own_address(facts, network, node)]
    summary = summarise(facts, network)
    if summary is not None:
        checks += [
            check_leads_nowhere(facts, network, summary.interface, node),
            check_guests(facts, summary.interface, node),
        ]
    return {
        "summary": None if summary is None else _summary(summary),
        "networks": _other_networks(facts, network),
        "checks": _dicts(checks),
    }


def listen(edge: World, options: Mapping[str, Any]) -> Dict[str, Any]:
    """Lets a responder live for a short time, and sees whether the filter guards it (check 9)."""
    own, peer = parse_address(options.get("own_address")), parse_address(options.get("peer_address"))
    if own.version != peer.version:
        raise _invalid("peer_address", f"{own} and {peer} are not of one version of IP")
    settings = Settings(
        responder_id=responder.parse_id(options.get("responder_id")),
        own_name=_name(options, "node"),
        peer_name=_name(options, "peer"),
        own=own,
        peer=peer,
        interface=name("the option", options, "interface"),
        ports=parse_ports(options.get("ports", PORTS)),
        lifetime=_lifetime(options.get("lifetime")),
        key=parse_key(options.get("key")),
    )
    port = edge.start(settings)
    door = Door(settings.interface, own, peer, port)
    return {"port": port, "checks": _dicts([check_filter(edge.ruleset(), door, settings.own_name)])}


def probe_peer(edge: World, options: Mapping[str, Any]) -> Dict[str, Any]:
    """Everything that is seen from this node of its peer: the checks 3, 5 to 8, 10 (neighbours), 11 and 13."""
    network, node = parse_network(options.get("network")), _name(options, "node")
    peer = parse_address(options.get("peer_address"))
    summary = summarise(edge.gather(network.version), network)
    if summary is None:
        raise NetworkInvalid(f"{node} has not one address in {network}", object="network")
    own, interface = summary.address, summary.interface
    pair = Pair(node, _name(options, "peer"), own, peer, _port(options.get("peer_port")), parse_key(options.get("key")))
    talk = edge.converse(pair)
    sizes, quality = (None, Quality(0, 0, 0)) if talk.problem else edge.echo(pair, summary.mtu)
    # After the exchange, so that the kernel knows the peer.
    facts = edge.gather(network.version)
    table = next((one.mac for one in facts.neighbours if one.address == peer and one.interface == interface), "")
    answers = edge.owners(interface, summary.mac, own, peer, table) if summary.link_layer == "ether" else Answers("")
    peer_mac = str(options.get("peer_mac") or "").lower()
    known = {own, peer, *_members(options)}
    checks = [
        check_way(edge.way(peer), interface, own, peer, node),
        check_untranslated(talk, node),
        check_identity(talk, node),
        check_answers(answers, summary.link_layer, peer, peer_mac, node),
        check_packet_sizes(sizes, summary.mtu, node),
        check_neighbours(facts, network, interface, known, node, peer_mac),
        check_encryption(facts, interface, own, peer, node),
        check_quality(
            quality,
            node,
            round_trip_us=int(options.get("round_trip_us") or 0),
            loss_percent=int(100 if options.get("loss_percent") is None else options["loss_percent"]),
        ),
    ]
    return {"answered": talk.proven and not talk.problem, "checks": _dicts(checks)}


def knock_at(edge: World, options: Mapping[str, Any]) -> Dict[str, Any]:
    """A host that is no peer tries one port, and says which addresses it has itself."""
    address = parse_address(options.get("peer_address"))
    outcome = edge.knock(address, _port(options.get("peer_port")))
    return {"outcome": outcome.value, "networks": _other_networks(edge.gather(address.version), None)}


def report(edge: World, options: Mapping[str, Any]) -> Dict[str, Any]:
    """Ends the responder; what it has seen, or that it is gone already."""
    found = edge.collect(responder.parse_id(options.get("responder_id")))
    strangers = found.get("strangers") if found else None
    return {
        "found": found is not None,
        "strangers": [str(one)[:64] for one in strangers[:64]] if isinstance(strangers, list) else [],
    }


def recheck(edge: World, door: Door, talk: Conversation, node: str, *, listens: bool) -> List[Check]:
    """The checks 3, 5 and 9 again, for one connection that stands (check 14): what the worker does on each.

    Args:
        edge: Only ``way`` and ``ruleset`` are used.
        door: Both ends, and the port of the side that listens.
        talk: Both ends as both kernels say, carried over the authenticated connection.
        node: Name for the findings.
        listens: Whether this node is the side that listens; the other has no door to guard.
    """
    checks = [
        check_way(edge.way(door.peer), door.interface, door.own, door.peer, node),
        check_untranslated(talk, node),
    ]
    return [*checks, check_filter(edge.ruleset(), door, node)] if listens else checks


def parse_ports(text: Any) -> Tuple[int, ...]:
    """``60150-60159`` or one number; raises NETWORK_INVALID."""
    first, hyphen, last = str(text).partition("-")
    ends = [first, last if hyphen else first]
    if not all(end.isascii() and end.isdigit() and len(end) <= 5 for end in ends):
        raise _invalid("ports", f"{text!r:.40} is no range of ports")
    low, high = int(ends[0]), int(ends[1])
    if not 1024 <= low <= high <= 65535 or high - low >= _MOST_PORTS:
        raise _invalid("ports", f"{text!r:.40} is no range of at most {_MOST_PORTS} ports from 1024 on")
    return tuple(range(low, high + 1))


def _summary(summary: Summary) -> Dict[str, Any]:
    return {
        "address": str(summary.address),
        "prefix": summary.prefix,
        "interface": summary.interface,
        "mac": summary.mac,
        "link_layer": summary.link_layer,
        "mtu": summary.mtu,
        "kind": summary.kind,
    }


def _other_networks(facts: NodeFacts, network: Optional[Network]) -> List[str]:
    """Every network that the node is in by an address of its own, but the one that is audited and the loopback."""
    own = summarise(facts, network) if network is not None else None
    skipped = {"lo"} | ({own.interface} if own else set())
    # Below our own interface there are only parts of it.
    if own is not None:
        skipped |= {link.name for link in interface_stack(facts.links, own.interface)}
    found = {
        str(held.interface.network)
        for link in facts.links
        for held in link.addresses
        if link.name not in skipped and not held.interface.is_link_local
    }
    return sorted(found)


def _members(options: Mapping[str, Any]) -> Collection[Address]:
    members = options.get("members") or []
    if not isinstance(members, list) or len(members) > _MOST_MEMBERS:
        raise _invalid("members", "the members of the network are a list of addresses")
    return [parse_address(member) for member in members]


def _allowed(options: Mapping[str, Any]) -> List[str]:
    return [str(word) for word in options.get("allowed_ranges") or [] if word in ALLOWABLE]


def _name(options: Mapping[str, Any], key: str) -> str:
    value = options.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_NAME or not value.isprintable():
        raise _invalid(key, f"{value!r:.40} is no name of a node")
    return value


def _port(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 65536:
        raise _invalid("peer_port", f"{value!r:.40} is no port")
    return int(value)


def _lifetime(value: Any) -> int:
    low, high = responder.LIVES
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise _invalid("lifetime", f"a responder lives from {low} s to {high} s")
    return int(value)


def _invalid(object: str, message: str) -> NetworkInvalid:
    return NetworkInvalid(message, object=object, remedy="See the documentation of the option.")


def _dicts(checks: List[Check]) -> List[Dict[str, Any]]:
    return [check.to_dict() for check in checks]
