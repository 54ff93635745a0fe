# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""Who has this address? ARP requests and IPv6 neighbour solicitations as frames, and the answers to them (check 7).

The kernel asks for itself and keeps one answer; two hosts with one address show only to who listens for all of them.
Bytes out, bytes in. RFC 826; RFC 4861 sections 4.3 and 4.4.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Optional, Tuple

from .addresses import Address

__all__ = ["ETH_ARP", "ETH_IPV6", "answer_of", "question"]

ETH_ARP, ETH_IPV6 = 0x0806, 0x86DD
_BROADCAST = b"\xff" * 6
_ARP = struct.Struct(">HHBBH6s4s6s4s")
_ETHERNET = struct.Struct(">6s6sH")
_IPV6 = struct.Struct(">IHBB16s16s")
_ICMPV6, _SOLICITATION, _ADVERTISEMENT = 58, 135, 136
_HOPS = 255  # RFC 4861 7.1: less than that came from another network


def question(address: Address, asker_mac: str, asker: Optional[Address]) -> bytes:
    """The frame that asks who has ``address``.

    Args:
        address: Whose owner is looked for.
        asker_mac: Hardware address of our interface.
        asker: Our own address; None asks as duplicate address detection does, naming nobody, so that no neighbour
            learns anything wrong from it.
    """
    mac = bytes.fromhex(asker_mac.replace(":", ""))
    if isinstance(address, ipaddress.IPv4Address):
        sender = bytes(4) if asker is None else asker.packed
        body = _ARP.pack(1, 0x0800, 6, 4, 1, mac, sender, bytes(6), address.packed)
        return _ETHERNET.pack(_BROADCAST, mac, ETH_ARP) + body
    last = address.packed[-3:]
    group = bytes.fromhex("ff0200000000000000000001ff") + last
    source = bytes(16) if asker is None else asker.packed
    # The option with our hardware address must be left out when nobody is named (RFC 4861 4.3).
    option = b"" if asker is None else b"\x01\x01" + mac
    body = struct.pack(">BBHI", _SOLICITATION, 0, 0, 0) + address.packed + option
    body = body[:2] + struct.pack(">H", _checksum(source, group, body)) + body[4:]
    head = _IPV6.pack(6 << 28, len(body), _ICMPV6, _HOPS, source, group)
    return _ETHERNET.pack(b"\x33\x33\xff" + last, mac, ETH_IPV6) + head + body


def answer_of(frame: bytes) -> Optional[Tuple[Address, str]]:
    """The address that a frame says it has, and the hardware address it says so for; None for any other frame."""
    if len(frame) < _ETHERNET.size:
        return None
    kind = _ETHERNET.unpack_from(frame)[2]
    if kind == ETH_ARP:
        return _arp_answer(frame[_ETHERNET.size :])
    if kind == ETH_IPV6:
        return _advertisement(frame[_ETHERNET.size :], frame[6:12])
    return None


def _arp_answer(body: bytes) -> Optional[Tuple[Address, str]]:
    if len(body) < _ARP.size:
        return None
    hardware, protocol, hardware_size, protocol_size, operation, mac, address, _to, _whom = _ARP.unpack_from(body)
    if (hardware, protocol, hardware_size, protocol_size, operation) != (1, 0x0800, 6, 4, 2):
        return None
    return ipaddress.IPv4Address(address), _text(mac)


def _advertisement(packet: bytes, sender: bytes) -> Optional[Tuple[Address, str]]:
    """RFC 4861 4.4; the option is left out where the sender's own frame says it."""
    if len(packet) < _IPV6.size + 24:
        return None
    _first, size, following, hops, _source, _group = _IPV6.unpack_from(packet)
    body = packet[_IPV6.size : _IPV6.size + size]
    if following != _ICMPV6 or hops != _HOPS or len(body) < 24 or body[0] != _ADVERTISEMENT or body[1] != 0:
        return None
    option = body[24:32]
    mac = option[2:8] if len(option) == 8 and option[:2] == b"\x02\x01" else sender
    return ipaddress.IPv6Address(body[8:24]), _text(mac)


def _checksum(source: bytes, destination: bytes, body: bytes) -> int:
    """RFC 8200 8.1."""
    data = source + destination + struct.pack(">II", len(body), _ICMPV6) + body + bytes(len(body) % 2)
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def _text(mac: bytes) -> str:
    return ":".join(f"{byte:02x}" for byte in mac)
