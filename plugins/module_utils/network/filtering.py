# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""What a node's packet filter does to strangers, to the peer, and to addresses. Pure.

netfilter asks every base chain at a hook: one drop is final, an accept is none (direct-transports 7). So strangers are
kept out for sure if one single chain drops all of them, whatever the other chains say; the peer gets in only if no
chain drops it. Who "all strangers" are is decided exactly: the questions of a chain cut the addresses and the
interfaces into classes, and one member of each class is tried.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import FrozenSet, List, Optional, Sequence, Set, Tuple

from .addresses import Address, Network
from .ruleset import Chain, Match, Packet, Rule, Ruleset, Span

__all__ = ["Door", "FilterFinding", "narrowed_to_peer", "translating_rules"]

ACCEPT, DROP, NEXT = "accept", "drop", "next"
_UNKNOWN: FrozenSet[str] = frozenset((ACCEPT, DROP, NEXT))
_DEEPEST = 16  # the kernel's own limit of nested jumps
_MOST_TRIALS = 20_000
_ANYWHERE = "any other interface"
# Hooks that a packet for the node itself passes. At "output" and "postrouting" it is too late.
_IN_HOOKS = ("prerouting", "input")
_BITS = {4: 32, 6: 128}
# An address of nobody's, for chains that name none (RFC 5737, RFC 3849).
_NOBODY = {4: int(ipaddress.ip_address("192.0.2.99")), 6: int(ipaddress.ip_address("2001:db8::99"))}


@dataclass(frozen=True)
class Door:
    """A port of ours, whom it is for, and through which interface."""

    interface: str
    own: Address
    peer: Address
    port: int
    protocol: str = "tcp"


@dataclass(frozen=True)
class FilterFinding:
    """``narrowed`` only when nobody else gets in for sure, ``peer_passes`` unless the peer is dropped for sure."""

    narrowed: bool
    peer_passes: bool
    stranger: str


def narrowed_to_peer(ruleset: Ruleset, door: Door) -> FilterFinding:
    """Whether only the peer, and only through the interface, reaches the port."""
    chains = ruleset.base_chains(_IN_HOOKS, door.own.version)
    stranger = f"anybody through any interface reaches port {door.port}"
    narrowed = False
    for chain in chains:
        passing = _passing_stranger(ruleset, chain, door)
        if passing is None:
            narrowed = True
        elif _mentions_port(ruleset, chain, door):
            stranger = passing
    peer = _packet(door, door.peer, door.interface)
    shut_out = any(DROP in found and ACCEPT not in found for found in (_verdicts(ruleset, one, peer) for one in chains))
    return FilterFinding(narrowed, not shut_out, "" if narrowed else stranger)


def translating_rules(ruleset: Ruleset, interface: str, network: Network) -> List[str]:
    """Rules that may change addresses of packets that come in or go out through ``interface``."""
    some = network.network_address + min(1, network.num_addresses - 1)
    packets = (
        Packet(network.version, interface_in=interface, source=some),
        Packet(network.version, interface_out=interface),
    )
    found = []
    for chain in ruleset.chains.values():
        if chain.type == "nat" and chain.sees(network.version):
            for rule in _reachable(ruleset, chain):
                if rule.statement.kind in ("translate", "unknown") and any(_may(rule, packet) for packet in packets):
                    found.append(rule.text)
    return sorted(set(found))


def _may(rule: Rule, packet: Packet) -> bool:
    return rule.holds(packet) is not False


def _passing_stranger(ruleset: Ruleset, chain: Chain, door: Door) -> Optional[str]:
    """The first stranger that the chain does not surely drop; None when it drops all."""
    rules = list(_reachable(ruleset, chain))
    interfaces = _interfaces(rules, door)
    sources = _sources(rules, door)
    if len(interfaces) * len(sources) > _MOST_TRIALS:
        return f"chain {chain.table} {chain.name} asks about too many addresses and interfaces to be decided"
    for interface in interfaces:
        for source in sources:
            if interface == door.interface and source == door.peer:
                continue
            if _verdicts(ruleset, chain, _packet(door, source, interface)) != {DROP}:
                return f"{source} through {interface} passes chain {chain.table} {chain.name} to port {door.port}"
    return None


def _packet(door: Door, source: Address, interface: str) -> Packet:
    return Packet(door.own.version, interface, None, source, door.own, door.protocol, door.port)


def _verdicts(ruleset: Ruleset, chain: Chain, packet: Packet) -> FrozenSet[str]:
    """What a base chain may do with the packet."""
    found = _outcomes(ruleset, chain, packet, 0)
    return (found - {NEXT}) | ({DROP if chain.policy == "drop" else ACCEPT} if NEXT in found else set())


def _outcomes(ruleset: Ruleset, chain: Chain, packet: Packet, depth: int) -> FrozenSet[str]:
    """Everything that may come out of a chain; NEXT is "it returned"."""
    if depth > _DEEPEST:
        return _UNKNOWN
    possible: Set[str] = set()
    for rule in chain.rules:
        holds = rule.holds(packet)
        if holds is False:
            continue
        found, returns = _outcome(ruleset, chain, rule, packet, depth)
        possible |= found - {NEXT}
        if returns:
            possible.add(NEXT)
        if holds and NEXT not in found:
            return frozenset(possible)
    return frozenset(possible | {NEXT})


def _outcome(ruleset: Ruleset, chain: Chain, rule: Rule, packet: Packet, depth: int) -> Tuple[FrozenSet[str], bool]:
    """What a rule whose questions hold leads to, NEXT for the rule after it; and whether the chain may end by it."""
    kind = rule.statement.kind
    if kind in (ACCEPT, DROP):
        return frozenset((kind,)), False
    if kind == "return":
        return frozenset(), True
    if kind in ("jump", "goto"):
        target = ruleset.chains.get((chain.family, chain.table, rule.statement.target))
        found = _UNKNOWN if target is None else _outcomes(ruleset, target, packet, depth + 1)
        return (found, False) if kind == "jump" else (found - {NEXT}, NEXT in found)
    # What changes addresses lets the packet go on; what is not understood may do anything.
    return (frozenset((NEXT,)), False) if kind == "next" else (_UNKNOWN, True)


def _reachable(ruleset: Ruleset, chain: Chain) -> List[Rule]:
    """The rules of a chain and of all that it jumps to."""
    seen: Set[str] = set()
    waiting = [chain]
    rules: List[Rule] = []
    while waiting:
        current = waiting.pop()
        if current.name in seen:
            continue
        seen.add(current.name)
        rules += current.rules
        targets = [rule.statement.target for rule in current.rules if rule.statement.target]
        found = [ruleset.chains.get((current.family, current.table, target)) for target in targets]
        waiting += [one for one in found if one is not None]
    return rules


def _matches(rules: Sequence[Rule], field: str) -> List[Match]:
    return [one for rule in rules for one in rule.matches if isinstance(one, Match) and one.field == field]


def _mentions_port(ruleset: Ruleset, chain: Chain, door: Door) -> bool:
    rules = _reachable(ruleset, chain)
    asked = [part for field in ("port", "tcp port", "udp port") for one in _matches(rules, field) for part in one.parts]
    return any(isinstance(part, Span) and part.low <= door.port <= part.high for part in asked)


def _interfaces(rules: Sequence[Rule], door: Door) -> List[str]:
    """One interface of each class: those named, one for each pattern, and one that nobody names."""
    words = {part for one in _matches(rules, "interface_in") for part in one.parts if isinstance(part, str)}
    # The node's own packets to itself are no stranger's.
    return sorted(({word.replace("*", "0") for word in words} | {door.interface, _ANYWHERE}) - {"lo"})


def _sources(rules: Sequence[Rule], door: Door) -> List[Address]:
    """One address of each class: both ends of every span that is asked about, and their neighbours outside."""
    version = door.own.version
    numbers = {int(door.peer), int(door.peer) - 1, int(door.peer) + 1, int(door.own), _NOBODY[version]}
    for one in _matches(rules, "source"):
        for part in one.parts:
            if one.version == version and isinstance(part, Span):
                numbers |= {part.low - 1, part.low, part.high, part.high + 1}
    kind = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
    return [kind(number) for number in sorted(numbers) if 0 <= number < 1 << _BITS[version]]
