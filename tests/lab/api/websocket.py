# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Server side of the websocket, as strict as the real front end (mtunnel-protocol 3.3 to 3.5). No I/O.

The real one accepts less than RFC 6455 asks for: every client frame must be whole, masked and at most 128 KiB, and
anything else is an exception in an event callback. What that exception does to the process is the front end's matter.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from dataclasses import dataclass
from typing import Iterator

__all__ = ["BadFrame", "Frame", "FrameReader", "MAX_PAYLOAD", "Opcode", "accept_key", "frame", "frames"]

MAX_PAYLOAD = 131072
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_NULL_MASK = b"\0\0\0\0"


class Opcode:
    """Opcodes the server understands; continuation (0) and reserved ones end in BadFrame."""

    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10
    DATA = frozenset((1, 2))
    KNOWN = frozenset((1, 2, 8, 9, 10))


class BadFrame(Exception):
    """The client broke a rule of mtunnel-protocol 3.4; no answer is ever sent for it."""


@dataclass(frozen=True)
class Frame:
    """One whole client frame, unmasked."""

    opcode: int
    payload: bytes


def accept_key(key: str) -> str:
    """Value of Sec-WebSocket-Accept for a client's Sec-WebSocket-Key."""
    return base64.b64encode(hashlib.sha1(key.encode("latin-1") + _GUID).digest()).decode("ascii")


def frame(opcode: int, payload: bytes) -> bytes:
    """One server frame: FIN set, unmasked."""
    length = len(payload)
    if length < 126:
        head = struct.pack(">BB", 0x80 | opcode, length)
    elif length < 65536:
        head = struct.pack(">BBH", 0x80 | opcode, 126, length)
    else:
        head = struct.pack(">BBQ", 0x80 | opcode, 127, length)
    return head + payload


def frames(data: bytes, limit: int = MAX_PAYLOAD) -> bytes:
    """The byte stream as binary frames of at most ``limit`` payload bytes."""
    if len(data) <= limit:
        return frame(Opcode.BINARY, data)
    return b"".join(frame(Opcode.BINARY, data[at : at + limit]) for at in range(0, len(data), limit))


def _unmask(payload: bytes, key: bytes) -> bytes:
    if key == _NULL_MASK or not payload:
        return payload
    length = len(payload)
    pad = (key * (length // 4 + 1))[:length]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(length, "big")


class FrameReader:
    """Cuts the client's byte stream into frames; raises BadFrame as soon as a head is illegal."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def receive(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames completed by ``data``, one by one, so that those before a bad one still count."""
        self._buffer += data
        at = 0
        try:
            while True:
                head = self._head(at)
                if head is None:
                    return
                opcode, start, length = head
                if len(self._buffer) < start + 4 + length:
                    return
                key = bytes(self._buffer[start : start + 4])
                payload = bytes(memoryview(self._buffer)[start + 4 : start + 4 + length])
                at = start + 4 + length
                yield Frame(opcode, _unmask(payload, key))
        finally:
            del self._buffer[:at]

    def _head(self, at: int) -> "tuple[int, int, int] | None":
        """Opcode, offset of the mask and payload length of the frame at ``at``; None while incomplete."""
        have = len(self._buffer) - at
        if have < 2:
            return None
        first, second = self._buffer[at], self._buffer[at + 1]
        if not first & 0x80:
            raise BadFrame("fragmented frame")
        if first & 0x70:
            raise BadFrame("reserved bits set")
        opcode = first & 0x0F
        if opcode not in Opcode.KNOWN:
            raise BadFrame("opcode %d" % opcode)
        if not second & 0x80:
            raise BadFrame("unmasked frame")
        length, start = second & 0x7F, at + 2
        if length == 126:
            if have < 4:
                return None
            length, start = struct.unpack_from(">H", self._buffer, at + 2)[0], at + 4
        elif length == 127:
            if have < 10:
                return None
            length, start = struct.unpack_from(">Q", self._buffer, at + 2)[0], at + 10
        if length > MAX_PAYLOAD:
            raise BadFrame("payload of %d bytes" % length)
        return opcode, start, length
