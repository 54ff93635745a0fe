# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The far end of a pump: one websocket to the target's proxy, as frames in a buffer that is filled in place.

A frame is built around its payload: the local end reads at offset 14 of the buffer, the header goes in front.
Masking key zero: RFC 6455 asks for an unpredictable one, Proxmox's own clients use zero and the server
supports it (mtunnel-protocol 3.4, tunnel-performance 4.4); it saves two copies of every byte. An edge file.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Callable, List, Optional

from ..proxmox.endpoint import Endpoint
from ..proxmox.upgrade import open_websocket
from ..websocket import frames
from ..websocket.tls_stream import TlsStream
from .tcp_options import limit_unsent

__all__ = ["DEFAULT_PAYLOAD", "WebsocketEnd"]

HEADER_ROOM = 14  # bytes; the longest client header
# tunnel-performance 4.1: header and payload together fill TLS records of 16384 bytes exactly.
DEFAULT_PAYLOAD = frames.ALIGNED_PAYLOADS[1]


class WebsocketEnd:
    """One websocket; at most one data frame is ahead of the kernel."""

    def __init__(self, stream: TlsStream, rest: bytes, payload: int) -> None:
        self._stream = stream
        self._decoder = frames.Decoder()
        self._rest = rest
        self._buffer = memoryview(bytearray(HEADER_ROOM + payload))
        self._length = -1
        self._start = 0
        self.room = self._buffer[HEADER_ROOM:]  # where the local end reads into

    @classmethod
    def open(
        cls, endpoint: Endpoint, secret: str, path: str, *, timeout: float, payload: int, clock: Callable[[], float]
    ) -> WebsocketEnd:
        """Connect, check the certificate, upgrade. Blocks up to ``timeout`` seconds; no guest depends on it yet.

        Raises:
            CrossclusterError: a code of the rooms websocket or proxmox (fingerprint).
        """
        deadline = clock() + timeout
        stream, rest = open_websocket(endpoint, secret, path, deadline, clock)
        _tune(stream)
        return cls(stream, rest, payload)

    def fileno(self) -> int:
        """Descriptor to poll."""
        return self._stream.fileno()

    @property
    def pending(self) -> int:
        """Encrypted bytes that the kernel has not taken yet."""
        return self._stream.pending

    @property
    def hidden(self) -> bool:
        """Whether bytes have come that poll() no longer shows."""
        return bool(self._rest) or self._stream.hidden

    def send_room(self, length: int) -> bool:
        """Send the first ``length`` bytes of :attr:`room` as one frame; True when the kernel has all of it."""
        if length != self._length:  # one full frame after the other keeps its header
            header = frames.client_header(length)
            self._start = HEADER_ROOM - len(header)
            self._buffer[self._start : HEADER_ROOM] = header
            self._length = length
        self._stream.write(self._buffer[self._start : HEADER_ROOM + length])
        return self._stream.flush()

    def send_ping(self, payload: bytes) -> None:
        """A ping; behind the frame that is under way, if there is one."""
        self._stream.write(frames.ping_frame(payload))
        self._stream.flush()

    def send_close(self) -> None:
        """A close frame: without it the server drops what it has buffered (mtunnel-protocol 3.5)."""
        self._stream.write(frames.close_frame())
        self._stream.flush()

    def flush(self) -> bool:
        """Try again; True when nothing waits."""
        return self._stream.flush()

    def receive(self) -> Optional[List[frames.Event]]:
        """The events of one read: a list (maybe empty), None at the end of the connection.

        An empty list means that there is nothing now; poll then, not before.
        """
        while True:
            data: Optional[bytes] = self._rest or self._stream.read()
            self._rest = b""
            if data is None:
                return []
            if not data:
                return None
            events = self._decoder.receive(data)
            if events:
                return events

    def abort(self) -> None:
        """Cut with a reset."""
        self._stream.abort()

    def close(self) -> None:
        """Close an ended connection."""
        self._stream.close_gracefully()


def _tune(stream: TlsStream) -> None:
    """Keep the kernel's queue short, so that a ping is not seconds behind data on a slow link."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(stream.fileno())) as sock:
        limit_unsent(sock)
