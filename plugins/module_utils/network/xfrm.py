# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""IPsec between two addresses: what ``ip xfrm state`` and ``ip xfrm policy`` say.

The kernel has no JSON for these; ``nokeys`` keeps the keys out of the output, and whatever follows an algorithm's name
is dropped here too. A state alone says only that a key is there; that packets must use it stands in a policy.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple

from .addresses import Address, Network
from .fields import invalid

__all__ = ["POLICY_COMMAND", "STATE_COMMAND", "Policy", "Protection", "is_protected", "parse_policies", "parse_states"]

STATE_COMMAND = "ip xfrm state list nokeys"
POLICY_COMMAND = "ip xfrm policy list"
_MAX_OUTPUT = 4 * 1024 * 1024
_HEAD = re.compile(r"src (\S+) dst (\S+)", re.ASCII)
_PROTOCOL = re.compile(r"\bproto (\S+) (?:spi \S+ )?reqid (\S+) mode (\S+)", re.ASCII)
_ALGORITHM = re.compile(r"(?:enc|aead) (\S+)", re.ASCII)
_POLICY = re.compile(r"(?:socket )?dir (\S+)(?: action (\S+))?", re.ASCII)


@dataclass(frozen=True)
class Protection:
    """One ESP state: packets from ``source`` to ``destination`` are encrypted with ``cipher``."""

    source: Address
    destination: Address
    cipher: str


@dataclass(frozen=True)
class Policy:
    """Packets from ``source`` to ``destination`` in ``direction`` must be protected, or ``required`` is false."""

    direction: str
    source: Network
    destination: Network
    required: bool


def parse_states(text: str) -> Tuple[Protection, ...]:
    """The ESP states with a cipher.

    Raises:
        NetworkFactsInvalid: NETWORK_FACTS_INVALID.
    """
    found = []
    for block in _blocks(STATE_COMMAND, text):
        head, protocol, cipher = _HEAD.match(block[0]), _search(_PROTOCOL, block), _search(_ALGORITHM, block)
        if head is None:
            raise invalid(STATE_COMMAND, "line", block[0])
        # Of an interface of its own or of marked packets: another packet does not come to it.
        if _is_for_some(block):
            continue
        if protocol and protocol[1] == "esp" and cipher and _encrypts(cipher[1].lower()):
            try:
                found.append(Protection(ipaddress.ip_address(head[1]), ipaddress.ip_address(head[2]), cipher[1]))
            except ValueError:
                raise invalid(STATE_COMMAND, "address", block[0]) from None
    return tuple(found)


def parse_policies(text: str) -> Tuple[Policy, ...]:
    """The policies for networks. Of those narrowed to a protocol, a port, marked packets or an interface only the ones
    that leave it in clear count.

    Raises:
        NetworkFactsInvalid: NETWORK_FACTS_INVALID.
    """
    found = []
    for block in _blocks(POLICY_COMMAND, text):
        head, way = _HEAD.match(block[0]), _search(_POLICY, block[1:])
        if head is None:
            raise invalid(POLICY_COMMAND, "line", block[0])
        if way is None:
            continue  # of a socket, not of the node
        templates = [line.split() for line in block[1:] if line.startswith("proto ") and " " in line]
        required = bool(templates) and way[2] in (None, "allow")
        required = required and all(line[1] == "esp" for line in templates) and "level use" not in block
        if required and (block[0][head.end() :].strip() or _is_for_some(block)):
            continue
        try:
            source, destination = (ipaddress.ip_network(word, strict=False) for word in (head[1], head[2]))
        except ValueError:
            raise invalid(POLICY_COMMAND, "network", block[0]) from None
        found.append(Policy(way[1], source, destination, required))
    return tuple(found)


def is_protected(own: Address, peer: Address, states: Sequence[Protection], policies: Sequence[Policy]) -> bool:
    """Whether everything between the two addresses must be encrypted, both ways, and can be.

    A policy of another address pair that fits as well may win by priority; one of them without protection is enough
    to say no.
    """
    ways = (("out", own, peer), ("in", peer, own))
    for direction, source, destination in ways:
        fitting = [
            policy
            for policy in policies
            if policy.direction == direction
            and source.version == policy.source.version == policy.destination.version
            and source in policy.source
            and destination in policy.destination
        ]
        if not fitting or not all(policy.required for policy in fitting):
            return False
        if not any((state.source, state.destination) == (source, destination) for state in states):
            return False
    return True


def _encrypts(cipher: str) -> bool:
    """The NULL cipher (RFC 2410) and GMAC (RFC 4543) authenticate and encrypt nothing."""
    return "null" not in cipher and "rfc4543" not in cipher


def _is_for_some(block: Sequence[str]) -> bool:
    return any(line.split(" ")[0] in ("mark", "if_id") for line in block[1:])


def _blocks(what: str, text: str) -> List[List[str]]:
    """An entry is a line without indentation and the indented lines below it."""
    if len(text) > _MAX_OUTPUT:
        raise invalid(what, "length", len(text))
    found: List[List[str]] = []
    for line in text.splitlines():
        if line and not line[0].isspace():
            found.append([line.strip()])
        elif line.strip():
            if not found:
                raise invalid(what, "line", line)
            found[-1].append(line.strip())
    return found


def _search(pattern: "re.Pattern[str]", lines: Sequence[str]) -> Optional["re.Match[str]"]:
    return next((found for found in map(pattern.search, lines) if found), None)
