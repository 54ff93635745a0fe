# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The packet filter of a node: what ``nft -j list ruleset`` prints, as far as it decides about single packets.

Knows tables, chains, sets and the matches that concern addresses, interfaces and ports. What it does not know is kept
as such (:class:`Opaque`) and later makes an answer undecided, never favourable.
"""

from __future__ import annotations

import fnmatch
import ipaddress
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Tuple, Union

from .addresses import Address
from .fields import entries, invalid, parse_json

__all__ = ["RULESET_COMMAND", "Chain", "Match", "Opaque", "Packet", "Rule", "Ruleset", "Statement", "parse_ruleset"]

RULESET_COMMAND = "nft -j list ruleset"
_MAX_PARTS = 20_000  # members of one set
_TEXT = 128
ChainKey = Tuple[str, str, str]  # family, table, name

# What a rule may hold that neither asks anything nor decides anything.
_SILENT = ("counter", "log", "comment", "set", "notrack", "mangle", "last")
_FINAL = ("accept", "drop", "return")
_TRANSLATING = ("masquerade", "snat", "dnat", "redirect")


@dataclass(frozen=True)
class Packet:
    """What a rule may ask about the first packet of a connection; None is "any" and makes the answer undecided."""

    version: int
    interface_in: Optional[str] = None
    interface_out: Optional[str] = None
    source: Optional[Address] = None
    destination: Optional[Address] = None
    protocol: str = "tcp"
    port: Optional[int] = None


@dataclass(frozen=True)
class Span:
    """Addresses from ``low`` to ``high``, ports likewise."""

    low: int
    high: int


Part = Union[Span, str]  # a span of numbers, or a word (of an interface with wildcards, of a protocol)


@dataclass(frozen=True)
class Match:
    """One question: is ``field`` among ``parts``? ``version`` 0 for fields of no version of IP."""

    field: str
    version: int
    negated: bool
    parts: Tuple[Part, ...]

    def holds(self, packet: Packet) -> Optional[bool]:
        """Yes, no, or None when it depends on what is not known of the packet."""
        if self.version and self.version != packet.version:
            return False  # nft asks for the version before such a question, also before its negation
        if self.field in ("tcp port", "udp port") and not self.field.startswith(packet.protocol):
            return False  # likewise for the protocol
        value = _value(self.field, packet)
        if value is None:
            return None
        return any(_contains(part, value) for part in self.parts) != self.negated


@dataclass(frozen=True)
class Opaque:
    """A question that is not understood."""

    def holds(self, _packet: Packet) -> Optional[bool]:
        """Nobody knows."""
        return None


@dataclass(frozen=True)
class Statement:
    """How a rule ends: ``accept``, ``drop``, ``return``, ``jump``, ``goto``, ``translate``, ``next`` or ``unknown``."""

    kind: str
    target: str = ""


@dataclass(frozen=True)
class Rule:
    """All questions must hold for the statement to be taken."""

    matches: Tuple[Union[Match, Opaque], ...]
    statement: Statement
    text: str

    def holds(self, packet: Packet) -> Optional[bool]:
        """Whether the statement is taken for the packet."""
        answers = [match.holds(packet) for match in self.matches]
        if any(answer is False for answer in answers):
            return False
        return None if any(answer is None for answer in answers) else True


@dataclass(frozen=True)
class Chain:
    """Rules in order; a base chain has a hook and a policy."""

    family: str
    table: str
    name: str
    hook: str
    type: str
    policy: str
    rules: Tuple[Rule, ...]

    def sees(self, version: int) -> bool:
        """Whether packets of that version of IP come by."""
        return self.family == "inet" or self.family == {4: "ip", 6: "ip6"}[version]


@dataclass(frozen=True)
class Ruleset:
    """Every chain of the node."""

    chains: Mapping[ChainKey, Chain]

    def base_chains(self, hooks: Tuple[str, ...], version: int) -> List[Chain]:
        """The chains that packets of that version meet at one of the hooks."""
        return [chain for chain in self.chains.values() if chain.hook in hooks and chain.sees(version)]


def parse_ruleset(text: str) -> Ruleset:
    """What ``nft -j list ruleset`` printed; nothing at all is an empty rule set.

    Raises:
        NetworkFactsInvalid: NETWORK_FACTS_INVALID.
    """
    value = parse_json(RULESET_COMMAND, text) if text.strip() else {"nftables": []}
    if not isinstance(value, dict):
        raise invalid(RULESET_COMMAND, "object", value)
    objects = entries(RULESET_COMMAND, value.get("nftables"))
    sets: Dict[ChainKey, Any] = {}
    for raw in _of_kind(objects, "set"):
        sets[_key(raw, "name")] = raw.get("elem", [])
    rules: Dict[ChainKey, List[Rule]] = {}
    for raw in _of_kind(objects, "rule"):
        rules.setdefault(_key(raw, "chain"), []).append(_rule(raw, sets))
    asleep = {
        (raw.get("family"), raw.get("name")) for raw in _of_kind(objects, "table") if "dormant" in str(raw.get("flags"))
    }
    chains = {}
    for raw in _of_kind(objects, "chain"):
        key = _key(raw, "name")
        if key[:2] in asleep:
            continue
        chains[key] = Chain(
            family=key[0],
            table=key[1],
            name=key[2],
            hook=_text(raw.get("hook", "")),
            type=_text(raw.get("type", "")),
            policy=_text(raw.get("policy", "accept")),
            rules=tuple(rules.get(key, ())),
        )
    return Ruleset(chains)


def _of_kind(objects: List[Mapping[str, Any]], kind: str) -> List[Mapping[str, Any]]:
    found = [entry[kind] for entry in objects if kind in entry]
    if not all(isinstance(entry, dict) for entry in found):
        raise invalid(RULESET_COMMAND, kind, found)
    return found


def _key(raw: Mapping[str, Any], name: str) -> ChainKey:
    return _text(raw.get("family")), _text(raw.get("table")), _text(raw.get(name))


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _TEXT:
        raise invalid(RULESET_COMMAND, "name", value)
    return value


def _rule(raw: Mapping[str, Any], sets: Mapping[ChainKey, Any]) -> Rule:
    """The last statement counts; whatever is not known before it makes the rule undecided."""
    matches: List[Union[Match, Opaque]] = []
    statement = Statement("next")
    scope = (_text(raw.get("family")), _text(raw.get("table")))
    for expression in entries(RULESET_COMMAND, raw.get("expr", []), limit=1000):
        word, value = next(iter(expression.items()))
        if word in _SILENT:
            continue
        if word == "match":
            matches.append(_match(value, scope, sets))
        elif word in _FINAL:
            statement = Statement(word)
        elif word == "reject":
            statement = Statement("drop")
        elif word in _TRANSLATING:
            statement = Statement("translate")
        elif word in ("jump", "goto"):
            statement = Statement(word, _text(value.get("target") if isinstance(value, dict) else None))
        else:
            # "xt" of iptables-nft is both a question and an answer; so may be what a later nft invents.
            matches.append(Opaque())
            statement = Statement("unknown")
    return Rule(
        tuple(matches), statement, f"{raw['family']} {raw['table']} {raw.get('chain')}: {raw.get('expr')!r:.300}"
    )


def _match(value: Any, scope: Tuple[str, str], sets: Mapping[ChainKey, Any]) -> Union[Match, Opaque]:
    if not isinstance(value, dict) or value.get("op") not in ("==", "!=", "in"):
        return Opaque()
    field = _field(value.get("left"))
    if field is None:
        return Opaque()
    name, version = field
    right = value.get("right")
    if isinstance(right, str) and right.startswith("@"):
        right = sets.get((*scope, right[1:]))
    parts = _parts(right, name)
    return Opaque() if parts is None else Match(name, version, value["op"] == "!=", tuple(parts))


def _field(left: Any) -> Optional[Tuple[str, int]]:
    """Our name of what is asked about and the version of IP that the question implies."""
    if not isinstance(left, dict) or len(left) != 1:
        return None
    kind, value = next(iter(left.items()))
    if not isinstance(value, dict):
        return None
    words = {
        "payload": (value.get("protocol"), value.get("field")),
        "meta": ("meta", value.get("key")),
        "ct": ("ct", value.get("key")),
    }.get(kind)
    fields = {
        ("ip", "saddr"): ("source", 4),
        ("ip", "daddr"): ("destination", 4),
        ("ip6", "saddr"): ("source", 6),
        ("ip6", "daddr"): ("destination", 6),
        ("tcp", "dport"): ("tcp port", 0),
        ("udp", "dport"): ("udp port", 0),
        ("th", "dport"): ("port", 0),
        ("meta", "iifname"): ("interface_in", 0),
        ("meta", "iif"): ("interface_in", 0),
        ("meta", "oifname"): ("interface_out", 0),
        ("meta", "oif"): ("interface_out", 0),
        ("meta", "l4proto"): ("protocol", 0),
        ("ct", "state"): ("state", 0),
    }
    return fields.get(words) if words and all(isinstance(word, str) for word in words) else None  # type: ignore[arg-type]


def _parts(right: Any, field: str) -> Optional[List[Part]]:
    """The members of a value, a list or a set; None when one of them is not understood."""
    if isinstance(right, dict) and "set" in right:
        right = right["set"]
    members = right if isinstance(right, list) else [right]
    if len(members) > _MAX_PARTS:
        return None
    found = [_part(member, field) for member in members]
    return None if any(part is None for part in found) else [part for part in found if part is not None]


def _part(member: Any, field: str) -> Optional[Part]:
    if isinstance(member, dict) and isinstance(member.get("elem"), dict):
        member = member["elem"].get("val")
    if field in ("source", "destination"):
        return _address_span(member)
    if field.endswith("port"):
        return _port_span(member)
    return member if isinstance(member, str) and 0 < len(member) <= _TEXT else None


def _address_span(member: Any) -> Optional[Span]:
    try:
        if isinstance(member, str):
            number = int(ipaddress.ip_address(member))
            return Span(number, number)
        if isinstance(member, dict) and isinstance(member.get("prefix"), dict):
            network = ipaddress.ip_network(
                f"{member['prefix'].get('addr')}/{member['prefix'].get('len')}", strict=False
            )
            return Span(int(network.network_address), int(network.broadcast_address))
        if isinstance(member, dict) and isinstance(member.get("range"), list) and len(member["range"]) == 2:
            low, high = (int(ipaddress.ip_address(str(end))) for end in member["range"])
            return Span(low, high)
    except ValueError:
        return None
    return None


def _port_span(member: Any) -> Optional[Span]:
    ends = member.get("range") if isinstance(member, dict) else [member, member]
    if not isinstance(ends, list) or len(ends) != 2:
        return None
    low, high = ends
    good = all(isinstance(end, int) and not isinstance(end, bool) and 0 <= end < 65536 for end in ends)
    return Span(low, high) if good else None


def _value(field: str, packet: Packet) -> Union[int, str, None]:
    if field in ("source", "destination"):
        address = packet.source if field == "source" else packet.destination
        return None if address is None else int(address)
    if field.endswith("port"):
        return packet.port
    if field == "interface_in":
        return packet.interface_in
    if field == "interface_out":
        return packet.interface_out
    return packet.protocol if field == "protocol" else "new"


def _contains(part: Part, value: Union[int, str]) -> bool:
    if isinstance(part, Span):
        return isinstance(value, int) and part.low <= value <= part.high
    return isinstance(value, str) and fnmatch.fnmatchcase(value, part.replace("[", "[[]").replace("?", "[?]"))
