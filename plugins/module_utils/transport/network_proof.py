# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The network under one connection in clear text, looked at again before anything counts on it.

Both workers repeat the checks 3, 5 and 9 of safety 10 (its check 14): the source once the target has proven itself,
the target once the source has. That the addresses are not translated is in the proofs themselves, which name both
ends as each kernel says; route and packet filter are read anew. Nothing of this is on the way of the bytes.

With ``qemu-tcp`` nobody at the far end can be asked: the source looks at its route alone (check 3).
"""

from __future__ import annotations

from typing import Callable, Optional

from ..errors import Side
from ..network import survey
from ..network.addresses import parse_address
from ..network.checks import check_way
from ..network.errors import NetworkError
from ..network.evidence import Check, Conversation, State
from ..network.filtering import Door
from .errors import NetworkChanged
from .handshake import Addresses
from .listener import device_with

__all__ = ["prove", "prove_way"]


def prove(
    addresses: Addresses,
    side: Side,
    edge: Optional[survey.World] = None,
    device_of: Callable[[str], Optional[str]] = device_with,
) -> None:
    """Look at the network of a connection whose both ends have proven the key.

    Args:
        addresses: Both ends, as the proofs name them.
        side: Which of them this node is; the target listens.
        edge: How the node is asked; the node itself when None.
        device_of: The one device that has an address.

    Raises:
        NetworkChanged: NETWORK_CHANGED, the first check that has not passed.
    """
    source, target = _end(addresses.source), _end(addresses.target)
    own, peer = (target, source) if side is Side.TARGET else (source, target)
    device = device_of(own[0])
    if device is None:
        raise _changed(side, f"{own[0]} is not on exactly one device", "Give that address to one device alone")
    door = Door(device, parse_address(own[0]), parse_address(peer[0]), target[1])
    talk = Conversation("", True, own, peer, own, peer)
    node = f"the {side.value} node"
    try:
        checks = survey.recheck(edge or survey.world(), door, talk, node, listens=side is Side.TARGET)
    except NetworkError as error:
        raise _changed(side, error.message, error.remedy) from error
    for check in checks:
        _demand(check, side)


def prove_way(own: str, peer: str) -> None:
    """Look at the route from this node, the source, to an address that only listens.

    Raises:
        NetworkChanged: NETWORK_CHANGED, it is not the way that was proven.
    """
    address = parse_address(peer)
    way = survey.world().way(address)
    _demand(check_way(way, device_with(own) or "", parse_address(own), address, "the source node"), Side.SOURCE)


def _demand(check: Check, side: Side) -> None:
    if check.state is not State.PASSED:
        raise _changed(side, f"check {check.number} ({check.title}): {check.finding}", check.remedy)


def _end(text: str) -> "tuple[str, int]":
    """``[address]:port`` as the greeting writes it."""
    address, _bracket, port = text[1:].partition("]:")
    return address, int(port)


def _changed(side: Side, finding: str, remedy: str) -> NetworkChanged:
    return NetworkChanged(
        f"On the {side.value} node the network is not (any more) as it was proven: {finding}",
        side=side,
        object="network",
        remedy=remedy or "Run trusted_network again, or use a transport with TLS",
    )
