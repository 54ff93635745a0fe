# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Outputs of ip(8), bridge(8) and nft(8) as a node prints them, to be varied by tests."""

from __future__ import annotations

import ipaddress
import json

NETWORK = ipaddress.ip_network("10.5.0.0/24")
OWN, PEER = ipaddress.ip_address("10.5.0.1"), ipaddress.ip_address("10.5.0.2")
MAC, PEER_MAC = "02:00:00:00:05:01", "02:00:00:00:05:02"
LINK = "mig"
PORT = 60150
UP = ["BROADCAST", "MULTICAST", "UP", "LOWER_UP"]


def address(text, **fields):
    """One entry of addr_info."""
    interface = ipaddress.ip_interface(text)
    family = "inet" if interface.version == 4 else "inet6"
    return {"family": family, "local": str(interface.ip), "prefixlen": interface.network.prefixlen, **fields}


def link(name=LINK, kind="", *addresses, **fields):
    """One entry of `ip -d -j addr`."""
    found = {
        "ifname": name,
        "flags": UP,
        "mtu": 1500,
        "link_type": "ether",
        "address": MAC,
        "addr_info": [entry if isinstance(entry, dict) else address(entry) for entry in addresses],
    }
    if kind:
        found["linkinfo"] = {"info_kind": kind}
    return {**found, **fields}


def output(*entries):
    """The text that a command prints."""
    return json.dumps(list(entries))


def rule(*expressions, family="inet", table="t", chain="in"):
    return {"rule": {"family": family, "table": table, "chain": chain, "expr": list(expressions)}}


def chain(name="in", hook="input", policy="accept", type="filter", family="inet", table="t"):
    base = {"hook": hook, "type": type, "prio": 0, "policy": policy} if hook else {}
    return {"chain": {"family": family, "table": table, "name": name, **base}}


def match(left, right, op="=="):
    """``left`` is "ip saddr", "tcp dport", "meta iifname", "ct state"."""
    first, second = left.split()
    field = {"payload": {"protocol": first, "field": second}}
    if first in ("meta", "ct"):
        field = {first: {"key": second}}
    return {"match": {"op": op, "left": field, "right": right}}


def ruleset(*objects):
    return json.dumps({"nftables": [{"metainfo": {"version": "1.0.6"}}, *objects]})


def narrowing(peer=str(PEER), interface=LINK, port=PORT, version="ip"):
    """The table of direct-transports 7."""
    return ruleset(
        chain(),
        rule(match("tcp dport", port), match(f"{version} saddr", peer, "!="), {"counter": {}}, {"drop": None}),
        rule(match("tcp dport", port), match("meta iifname", interface, "!="), {"drop": None}),
    )
