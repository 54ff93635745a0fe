# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""Frames between two workers (direct-transports 5): bytes in, frames out; frames in, bytes out. Sans-I/O.

A frame is ``type u8, flags u8 = 0, reserved u16 = 0, length u32`` (big endian) and its payload. One connection
carries one stream, so nothing in a frame says which. Knows neither the order of frames nor what they are for.
"""

from __future__ import annotations

import enum
import json
import struct
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple, Union

from ..errors import Side
from .errors import WireError

__all__ = [
    "HEADER_SIZE",
    "MAX_CONTROL",
    "MAX_DATA",
    "Decoder",
    "Frame",
    "FrameKind",
    "abort",
    "beat",
    "encode",
    "header",
    "message",
    "printable",
]

Buffer = Union[bytes, bytearray, memoryview]

_HEADER = struct.Struct(">BBHI")
_COUNT = struct.Struct(">Q")
HEADER_SIZE = _HEADER.size
MAX_CONTROL = 4096  # bytes of a payload that is no data
# direct-transports 2.1b, 5: with its header a full frame is exactly 8 TLS records; without TLS 256 KiB cost least.
MAX_DATA: Mapping[str, int] = {"tls": 128 * 1024 - HEADER_SIZE, "tcp": 256 * 1024 - HEADER_SIZE}
MAX_TEXT = 500  # characters of the sentence in an ABORT


class FrameKind(enum.IntEnum):
    """The types of frames; their numbers are the protocol."""

    HELLO = 1
    CHALLENGE = 2
    PROOF = 3
    WELCOME = 4
    OPEN = 5
    OPENED = 6
    DATA = 7
    BEAT = 8
    FIN = 9
    ABORT = 10


_SPOKEN = (2, MAX_CONTROL)  # one JSON object
_LENGTHS: Mapping[FrameKind, Tuple[int, int]] = {
    FrameKind.HELLO: _SPOKEN,
    FrameKind.CHALLENGE: _SPOKEN,
    FrameKind.PROOF: _SPOKEN,
    FrameKind.WELCOME: _SPOKEN,
    FrameKind.OPEN: (0, 0),
    FrameKind.OPENED: (0, 0),
    FrameKind.DATA: (1, max(MAX_DATA.values())),
    FrameKind.BEAT: (_COUNT.size, _COUNT.size),
    FrameKind.FIN: (0, 0),
    FrameKind.ABORT: _SPOKEN,
}
_KINDS: Mapping[int, FrameKind] = {int(kind): kind for kind in FrameKind}


class Frame(NamedTuple):
    """One frame, or a piece of a DATA frame: its payload is a view into the bytes given to the decoder."""

    kind: FrameKind
    payload: Buffer

    @property
    def fields(self) -> Dict[str, Any]:
        """The JSON object of a spoken frame.

        Raises:
            WireError: WIRE_INVALID.
        """
        try:
            fields = json.loads(bytes(self.payload).decode(), parse_constant=_no_constant)
        except (ValueError, RecursionError):
            raise _invalid(f"a {self.kind.name} that is no JSON") from None
        if not isinstance(fields, dict):
            raise _invalid(f"a {self.kind.name} that is no object")
        return fields

    @property
    def consumed(self) -> int:
        """The number in a BEAT."""
        return int(_COUNT.unpack(self.payload)[0])


def header(length: int) -> bytes:
    """The header of a DATA frame whose payload stands behind it."""
    return _HEADER.pack(FrameKind.DATA, 0, 0, length)


def encode(kind: FrameKind, payload: Buffer = b"") -> bytes:
    """One whole frame.

    Raises:
        WireError: WIRE_INVALID, no peer would take it (our bug).
    """
    least, most = _LENGTHS[kind]
    if not least <= len(payload) <= most:
        raise _invalid(f"a {kind.name} of {len(payload)} bytes")
    return b"".join((_HEADER.pack(kind, 0, 0, len(payload)), payload))


def message(kind: FrameKind, fields: Mapping[str, Any]) -> bytes:
    """A spoken frame: HELLO, CHALLENGE, PROOF, WELCOME, ABORT."""
    return encode(kind, json.dumps(dict(fields), separators=(",", ":"), ensure_ascii=False).encode())


def beat(consumed: int) -> bytes:
    """A BEAT: so many bytes of data has our end really read."""
    return encode(FrameKind.BEAT, _COUNT.pack(consumed))


def abort(code: str, text: str) -> bytes:
    """An ABORT; its text reaches the user on the other side."""
    return message(FrameKind.ABORT, {"code": printable(code)[:64], "text": printable(text)})


def printable(text: str) -> str:
    """A sentence of the peer or for it, on one line and bounded."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:MAX_TEXT])


class Decoder:
    """Turns bytes into frames, whatever the cuts between them; holds less than one control frame.

    Args:
        max_data: Bytes of the longest DATA payload of this plane (:data:`MAX_DATA`).
    """

    def __init__(self, max_data: int) -> None:
        self._max_data = max_data
        self._data_left = 0  # bytes of the DATA frame under way
        self._held = bytearray()  # the beginning of a header or of a control frame
        self._kind: Optional[FrameKind] = None  # of the control frame under way
        self._need = HEADER_SIZE
        self._broken = False

    def receive(self, data: Buffer) -> List[Frame]:
        """The frames that are complete now. A DATA frame comes as it came, in pieces that view ``data``.

        Raises:
            WireError: WIRE_INVALID; nothing is decoded any more.
        """
        if self._broken:
            raise _invalid("more after a fault")
        view = memoryview(data)
        frames: List[Frame] = []
        at, end = 0, len(view)
        while at < end:
            if self._data_left:
                step = min(self._data_left, end - at)
                frames.append(Frame(FrameKind.DATA, view[at : at + step]))
                self._data_left -= step
            else:
                step = min(self._need - len(self._held), end - at)
                self._held += view[at : at + step]
                if len(self._held) == self._need:
                    self._complete(frames)
            at += step
        return frames

    def _complete(self, frames: List[Frame]) -> None:
        """As many bytes are held as were needed: a header, or a control frame."""
        if self._kind is None:
            kind, length = self._parse_header()
            if kind is FrameKind.DATA:
                self._data_left = length
                self._held.clear()
                return
            self._kind, self._need = kind, HEADER_SIZE + length
            if length:
                return
        frames.append(Frame(self._kind, bytes(self._held[HEADER_SIZE:])))
        self._held.clear()
        self._kind, self._need = None, HEADER_SIZE

    def _parse_header(self) -> Tuple[FrameKind, int]:
        number, flags, reserved, length = _HEADER.unpack(self._held)
        kind = _KINDS.get(number)
        if kind is None or flags or reserved:
            self._broken = True
            raise _invalid("bytes that are no frame")
        least, most = _LENGTHS[kind]
        if not least <= length <= (self._max_data if kind is FrameKind.DATA else most):
            self._broken = True
            raise _invalid(f"a {kind.name} of {length} bytes")
        return kind, int(length)


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _invalid(what: str) -> WireError:
    return WireError(f"The connection between the workers carries {what}", side=Side.TARGET, object="wire")
