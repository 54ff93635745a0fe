# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""Who may wait at the door, how many, and for how long (direct-transports 7). Sans-I/O.

Knows addresses, times and counts; values in seconds come in. A connection is a number that the caller chooses, from
:meth:`Door.arrived` until :meth:`Door.left`. One deadline holds for everything it does before it is known: a limit per
read would be met by a byte now and then (slowloris).
"""

from __future__ import annotations

import enum
import ipaddress
from dataclasses import dataclass
from typing import Dict, List, Optional, Union

__all__ = ["AcceptLimits", "Door", "Turned", "same_address"]

_Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]


class Turned(enum.Enum):
    """Why a connection was turned away before it was known."""

    STRANGER = "stranger"  # it does not come from the peer's address
    LATE = "late"
    TALKATIVE = "talkative"
    FAILED = "failed"  # TLS, the protocol or the authentication


@dataclass(frozen=True)
class AcceptLimits:
    """Connections, connections/s, seconds, bytes."""

    waiting: int = 16
    rate: float = 4.0
    deadline: float = 5.0  # for TLS and the greeting together
    bytes: int = 65536  # read from one of them before it is known
    parting: float = 1.0  # seconds for one that was refused to take in why


@dataclass
class _Guest:
    deadline: float
    read: int = 0


class Door:
    """Decides about connections that nobody knows yet.

    Args:
        peer: The one address that may connect.
        limits: How many, how fast, how long, how much.
        now: Clock value.

    Attributes:
        turned: How many were turned away, by reason.
    """

    def __init__(self, peer: str, limits: AcceptLimits = AcceptLimits(), now: float = 0.0) -> None:
        self._peer = peer
        self._limits = limits
        self._guests: Dict[int, _Guest] = {}
        # A source dials all its streams at once; so as many as may wait come in at once, then one after the other.
        self._turns = float(limits.waiting)
        self._counted = now
        self.turned: Dict[Turned, int] = dict.fromkeys(Turned, 0)

    def is_open(self, now: float) -> bool:
        """Whether to accept; what comes meanwhile waits in the backlog of the kernel."""
        self._refill(now)
        return len(self._guests) < self._limits.waiting and self._turns >= 1

    def arrived(self, number: int, address: str, now: float) -> bool:
        """A connection was accepted; False when it must be closed at once, without a byte.

        A stranger takes nobody's turn: he costs an accept and a close.
        """
        if not same_address(address, self._peer):
            self._count(Turned.STRANGER)
            return False
        self._refill(now)
        self._turns -= 1
        self._guests[number] = _Guest(now + self._limits.deadline)
        return True

    def room(self, number: int) -> int:
        """Bytes that it may still send; 0 when it has said too much."""
        return max(0, self._limits.bytes - self._guests[number].read)

    def heard(self, number: int, length: int) -> None:
        """``length`` bytes were read from it."""
        self._guests[number].read += length

    def parts(self, number: int, turned: Turned, now: float) -> None:
        """It is turned away and may read why for a moment; until it has :meth:`left` it counts as waiting."""
        self._count(turned)
        guest = self._guests[number]
        guest.deadline = min(guest.deadline, now + self._limits.parting)

    def left(self, number: int, turned: Optional[Turned] = None) -> None:
        """It is known now, or was turned away."""
        if self._guests.pop(number, None) is not None and turned is not None:
            self._count(turned)

    def late(self, now: float) -> List[int]:
        """Those whose time is over."""
        return sorted(number for number, guest in self._guests.items() if now >= guest.deadline)

    def next_look(self, now: float) -> Optional[float]:
        """Seconds until something changes by itself; None when nothing does."""
        self._refill(now)
        waits = [guest.deadline - now for guest in self._guests.values()]
        if self._turns < 1:
            waits.append((1 - self._turns) / self._limits.rate)
        return max(0.0, min(waits)) if waits else None

    def _refill(self, now: float) -> None:
        earned = max(0.0, now - self._counted) * self._limits.rate
        self._turns = min(float(self._limits.waiting), self._turns + earned)
        self._counted = max(self._counted, now)

    def _count(self, turned: Turned) -> None:
        self.turned[turned] += 1


def same_address(one: str, other: str) -> bool:
    """Whether two texts are one address; a mapped IPv4 address counts as the IPv4 one. A scope has to be equal."""
    return _parsed(one) == _parsed(other)


def _parsed(text: str) -> "tuple[_Address, str]":
    plain, _percent, scope = text.partition("%")
    address = ipaddress.ip_address(plain)
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address, scope
