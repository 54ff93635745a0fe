# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""Policy rules of a node: whether the way to a peer depends on more than the two addresses.

``ip route get`` tells one way. A rule for marked packets, a port or a user gives others another one, of which it says
nothing. Knows what ``ip -j rule`` prints; the way itself stands in :mod:`.routes`.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any, Mapping, Optional, Sequence, Tuple

from .addresses import Address, Network, is_within
from .fields import entries, invalid, number, parse_json
from .routes import Route

__all__ = ["RULES_COMMAND", "PolicyRule", "deciding_rule", "parse_rules"]

RULES_COMMAND = "ip -j rule show"
_LOWEST = (1 << 32) - 1
_BITS = {4: 32, 6: 128}
# What a rule says besides whom it concerns. Whatever else stands in it narrows it, be it of a later iproute2.
_PLAIN = {"priority", "src", "srclen", "dst", "dstlen", "table", "action", "suppress_prefixlen", "protocol"}


@dataclass(frozen=True)
class PolicyRule:
    """One rule; ``source`` and ``destination`` None are everybody.

    Attributes:
        table: Where it looks; empty for a rule that drops, jumps or asks a VRF.
        shortest: Routes of a shorter prefix are passed over.
        narrowed: What it asks besides the addresses; empty for a rule that holds for all packets between two of them.
        elsewhere: It is for packets of others that pass the node, or of another VRF.
    """

    priority: int
    source: Optional[Network]
    destination: Optional[Network]
    table: str
    shortest: int
    narrowed: Tuple[str, ...]
    elsewhere: bool

    def may_hold(self, own: Address, peer: Address) -> bool:
        """Whether packets from the one to the other may be meant."""
        if self.elsewhere:
            return False
        if "not" in self.narrowed:
            return True  # it turns the addresses round as well
        return all(
            network is None or is_within(address, network)
            for network, address in ((self.source, own), (self.destination, peer))
        )


def parse_rules(text: str, version: int) -> Tuple[PolicyRule, ...]:
    """The rules in the order in which the kernel asks them.

    Args:
        text: Output of ``ip -4`` or ``-6 -j rule show``.
        version: 4 or 6.

    Raises:
        NetworkFactsInvalid: NETWORK_FACTS_INVALID.
    """
    found = [_rule(raw, version) for raw in entries(RULES_COMMAND, parse_json(RULES_COMMAND, text))]
    return tuple(sorted(found, key=lambda rule: rule.priority))


def deciding_rule(
    rules: Sequence[PolicyRule], routes: Sequence[Route], own: Address, peer: Address, interface: str
) -> Optional[PolicyRule]:
    """The first rule that sends some packets from ``own`` to ``peer`` another way than by the link of ``interface``.

    Only rules before the one that all packets come to are asked: where that one leads, ``ip route get`` says.
    """
    for rule in rules:
        if not rule.may_hold(own, peer):
            continue
        if "goto" in rule.narrowed:
            return rule  # which rules it jumps over is not followed
        ways = [route for route in routes if route.table == rule.table and is_within(peer, route.destination)]
        longest = max((route.destination.prefixlen for route in ways), default=-1)
        if longest <= rule.shortest:
            continue
        if not rule.narrowed:
            return None
        best = [route for route in ways if route.destination.prefixlen == longest]
        if any(route.has_gateway or route.interfaces != (interface,) for route in best):
            return rule
    return None


def _rule(raw: Mapping[str, Any], version: int) -> PolicyRule:
    table = raw.get("table", "")
    if not isinstance(table, str):
        raise invalid(RULES_COMMAND, "table", table)
    return PolicyRule(
        priority=number(RULES_COMMAND, raw, "priority", 0, _LOWEST),
        source=_prefix(raw, "src", version),
        destination=_prefix(raw, "dst", version),
        table=table,
        shortest=number(RULES_COMMAND, raw, "suppress_prefixlen", -1, _BITS[version], default=-1),
        # "lo" is where the node's own packets come from.
        narrowed=tuple(sorted(key for key in raw if key not in _PLAIN and key != "iif")),
        elsewhere="l3mdev" in raw or raw.get("iif", "lo") != "lo",
    )


def _prefix(raw: Mapping[str, Any], key: str, version: int) -> Optional[Network]:
    value = raw.get(key, "all")
    if value == "all":
        return None
    length = number(RULES_COMMAND, raw, f"{key}len", 0, _BITS[version], default=_BITS[version])
    try:
        if not isinstance(value, str) or not value.isascii():
            raise ValueError
        network = ipaddress.ip_network(f"{value}/{length}", strict=False)
    except ValueError:
        raise invalid(RULES_COMMAND, key, value) from None
    if network.version != version:
        raise invalid(RULES_COMMAND, key, value)
    return network
