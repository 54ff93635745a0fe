# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""Frames of RFC 6455 as the Proxmox VE tunnel takes and gives them: bytes in, events out.

Client frames are masked with the zero key. RFC 6455 5.3 asks for a fresh random key; Proxmox VE's own clients send
zero, the server supports it on purpose, and it saves the copy of every byte (tunnel-performance 4.4). The key is an
argument, so that a caller may choose otherwise.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import List, Optional, Tuple, Union

from .errors import FrameInvalid, FrameUnsendable

__all__ = [
    "ALIGNED_PAYLOADS",
    "MAX_PAYLOAD",
    "ZERO_KEY",
    "Close",
    "Data",
    "Decoder",
    "Event",
    "Opcode",
    "Ping",
    "Pong",
    "client_header",
    "close_frame",
    "encode",
    "ping_frame",
]

# mtunnel-protocol 3.4: a longer frame can end the server process and every tunnel in it.
MAX_PAYLOAD = 131072
MAX_CONTROL_PAYLOAD = 125
ZERO_KEY = b"\0\0\0\0"

# tunnel-performance 4.1: header + payload fill 4 or 7 TLS records of 16384 bytes exactly.
ALIGNED_PAYLOADS = (65528, 114674)

_FIN = 0x80
_MASK = 0x80


class Opcode(enum.IntEnum):
    """The opcodes the server knows; any other is fatal for it (mtunnel-protocol 3.4)."""

    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


@dataclass(frozen=True)
class Data:
    """Payload of a data frame; frame boundaries mean nothing in the byte stream."""

    payload: bytes


@dataclass(frozen=True)
class Ping:
    """A ping of the server. Proxmox VE sends none; answered with a pong if it ever does."""

    payload: bytes


@dataclass(frozen=True)
class Pong:
    """The answer to our ping, with the ping's payload."""

    payload: bytes


@dataclass(frozen=True)
class Close:
    """A close frame; ``code`` is None when it carried none. Proxmox VE sends none and just ends TCP."""

    code: Optional[int]


Event = Union[Data, Ping, Pong, Close]


def client_header(length: int) -> bytes:
    """Header of a binary data frame with the zero key: 6, 8 or 14 bytes for ``length`` bytes of payload."""
    if not 0 <= length <= MAX_PAYLOAD:
        raise FrameUnsendable(f"a frame of {length} bytes is not in 0..{MAX_PAYLOAD}")
    return _header(Opcode.BINARY, length) + ZERO_KEY


def encode(opcode: int, payload: bytes, key: bytes = ZERO_KEY) -> bytes:
    """One whole client frame, masked with ``key`` (4 bytes)."""
    known = Opcode(opcode) if opcode in (1, 2, 8, 9, 10) else None
    if known is None:
        raise FrameUnsendable(f"opcode {opcode} is not known to the server")
    limit = MAX_CONTROL_PAYLOAD if known >= Opcode.CLOSE else MAX_PAYLOAD
    if len(payload) > limit:
        raise FrameUnsendable(f"a {known.name.lower()} frame of {len(payload)} bytes exceeds {limit}")
    if len(key) != 4:
        raise FrameUnsendable(f"a masking key has 4 bytes, not {len(key)}")
    return b"".join((_header(known, len(payload)), key, _masked(payload, key)))


def ping_frame(payload: bytes = b"") -> bytes:
    """A ping; the server answers at once with the same payload."""
    return encode(Opcode.PING, payload)


def close_frame(status: int = 1000) -> bytes:
    """A close frame: without it the server drops what it has buffered (mtunnel-protocol 3.5)."""
    return encode(Opcode.CLOSE, status.to_bytes(2, "big"))


def _header(opcode: Opcode, length: int) -> bytes:
    first = _FIN | opcode
    if length < 126:
        return bytes((first, _MASK | length))
    if length < 65536:
        return bytes((first, _MASK | 126)) + length.to_bytes(2, "big")
    return bytes((first, _MASK | 127)) + length.to_bytes(8, "big")


def _masked(payload: bytes, key: bytes) -> bytes:
    if key == ZERO_KEY or not payload:
        return payload
    size = len(payload)
    mask = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")).to_bytes(size, "big")


class Decoder:
    """Turns the server's bytes into events, whatever the cuts between them.

    After a violation or a close frame nothing is decoded any more.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._closed = False

    def receive(self, data: bytes) -> List[Event]:
        """Take bytes as they came; give the events that are complete now."""
        if self._closed:
            return []
        self._buffer += data
        events: List[Event] = []
        position = 0
        while not self._closed:
            frame = self._frame(position)
            if frame is None:
                break
            opcode, start, position = frame
            event = self._event(opcode, bytes(self._buffer[start:position]))
            if event is not None:
                events.append(event)
        del self._buffer[:position]
        return events

    def _frame(self, position: int) -> Optional[Tuple[int, int, int]]:
        """Opcode, start and end of the payload of the frame at ``position``; None while it is incomplete."""
        buffer = self._buffer
        available = len(buffer) - position
        if available < 2:
            return None
        opcode = self._check_first(buffer[position])
        length = buffer[position + 1]
        if length & _MASK:
            raise self._invalid("a masked frame from the server")
        extra = {126: 2, 127: 8}.get(length, 0)
        if opcode >= Opcode.CLOSE and length > MAX_CONTROL_PAYLOAD:
            raise self._invalid("a control frame over 125 bytes")
        if available < 2 + extra:
            return None
        start = position + 2 + extra
        if extra:
            length = self._check_length(int.from_bytes(buffer[position + 2 : start], "big"), extra)
        return (opcode, start, start + length) if len(buffer) >= start + length else None

    def _check_first(self, first: int) -> int:
        if first & 0x70:
            raise self._invalid("reserved bits are set")
        if not first & _FIN:
            raise self._invalid("a fragmented frame")
        opcode = first & 0x0F
        # mtunnel-protocol 3.5: the server sends binary frames and pongs; ping and close are tolerated.
        if opcode not in (Opcode.BINARY, Opcode.CLOSE, Opcode.PING, Opcode.PONG):
            raise self._invalid(f"opcode {opcode}")
        return opcode

    def _check_length(self, length: int, extra: int) -> int:
        if length > MAX_PAYLOAD:
            raise self._invalid(f"a frame of {length} bytes, more than {MAX_PAYLOAD}")
        if length < (126 if extra == 2 else 65536):
            raise self._invalid("a length that is not written in its shortest form")
        return length

    def _event(self, opcode: int, payload: bytes) -> Optional[Event]:
        if opcode == Opcode.BINARY:
            return Data(payload) if payload else None
        if opcode == Opcode.PING:
            return Ping(payload)
        if opcode == Opcode.PONG:
            return Pong(payload)
        if len(payload) == 1:
            raise self._invalid("a close frame with half a status")
        self._closed = True
        return Close(int.from_bytes(payload[:2], "big") if payload else None)

    def _invalid(self, what: str) -> FrameInvalid:
        self._closed = True
        return FrameInvalid(f"the target sent {what}", remedy="Check what stands between the two nodes on port 8006.")
