# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The books of a pump: what was sent, received, acknowledged, and whether an import kept its word. Sans-I/O.

Each kind of stream proves something else: an NBD answer says that bytes are on the target's disk, a pong that
the proxy took what went before its ping, a beat what the target's QEMU has read, and an import only knows the
length that its header announced.
"""

from __future__ import annotations

from typing import Any, Dict, Optional, Union

from ..qemu.nbd import Ledger
from .interface import Kind
from .pacing import Meter

__all__ = ["Books"]

LENGTH_HEADER = 8  # bytes; mtunnel-protocol 7.3: little-endian length in front of a sized stream
Buffer = Union[bytes, memoryview]


# The length of a raw image is told in whole sectors: a TPM state of 8384 bytes is announced as 8704
# (capture remote-migrate-tpm-online). A loss below a sector shows in the exporter's exit status only.
SECTOR = 512


class Books:
    """Follows both directions of one stream.

    Args:
        kind: What the stream carries.
        sized: An import begins with its length.
        now: Clock value, seconds.
        opaque: QEMU encrypts: no NBD request can be read.

    Attributes:
        sent, received: bytes of the stream.
        ledger: The NBD requests; None for other kinds, and where they cannot be read.
    """

    def __init__(self, kind: Kind, sized: bool, now: float, opaque: bool = False) -> None:
        self.sent = self.received = 0
        self.ledger = Ledger() if kind is Kind.NBD and not opaque else None
        self._sized = sized and kind is Kind.IMPORT
        self._meter = Meter(now)
        self._ponged = 0
        self._marks: Dict[bytes, int] = {}
        self._head = b""

    def may_send(self, data: memoryview, now: float) -> bool:
        """Look at what is about to be sent; False when an import has more than it announced.

        Raises:
            NbdInvalid: NBD_INVALID.
        """
        if self.ledger is not None:
            self.ledger.client(data, now)
            self._meter.update(self.ledger.acknowledged, self.ledger.in_flight, now)
        elif self._sized:
            if len(self._head) < LENGTH_HEADER:
                self._head += bytes(data[: LENGTH_HEADER - len(self._head)])
            if self.sent + len(data) > self.announced:
                return False
        self.sent += len(data)
        return True

    def came(self, data: Buffer, now: float) -> None:
        """The target sent ``data``.

        Raises:
            NbdInvalid: NBD_INVALID.
        """
        self.received += len(data)
        if self.ledger is not None:
            self.ledger.server(data, now)
            self._meter.update(self.ledger.acknowledged, self.ledger.in_flight, now)

    def pinged(self, payload: bytes) -> None:
        """A ping went out behind everything sent so far."""
        self._marks[payload] = self.sent

    def ponged(self, payload: bytes) -> None:
        """Its answer came: the proxy has taken what went before."""
        self._ponged = max(self._ponged, self._marks.pop(payload, 0))

    def consumed(self, total: int, now: float) -> None:
        """Direct transports: the target's QEMU has read so many bytes."""
        self._ponged = max(self._ponged, total)
        if self.ledger is None:
            self._meter.update(self._ponged, self.sent - self._ponged, now)

    @property
    def announced(self) -> int:
        """Bytes of a sized import, its header included."""
        if len(self._head) < LENGTH_HEADER:
            return LENGTH_HEADER
        return LENGTH_HEADER + int.from_bytes(self._head, "little")

    @property
    def is_complete(self) -> bool:
        """Whether a finished stream said everything it had to: lengths are equal, no write is unanswered."""
        if self.ledger is not None:
            return self.ledger.in_flight == 0
        if not self._sized:
            return True
        length, came = self.announced - LENGTH_HEADER, self.sent - LENGTH_HEADER
        rounded = SECTOR if length and length % SECTOR == 0 else 1
        return len(self._head) == LENGTH_HEADER and length - rounded < came <= length

    @property
    def acknowledged(self) -> int:
        """Bytes known to have arrived: written by QEMU for NBD, taken by the proxy or read by QEMU for the others."""
        return self.ledger.acknowledged if self.ledger is not None else self._ponged

    @property
    def in_flight(self) -> int:
        """Bytes sent and not acknowledged."""
        return self.ledger.in_flight if self.ledger is not None else self.sent - self._ponged

    @property
    def oldest(self) -> Optional[float]:
        """When the oldest open NBD request passed."""
        request = None if self.ledger is None else self.ledger.oldest
        return None if request is None else request.since

    @property
    def negotiating(self) -> Optional[float]:
        """When QEMU sent the NBD option that is not answered yet."""
        return None if self.ledger is None else self.ledger.negotiating_since

    def stats(self) -> Dict[str, Any]:
        """The figures of an event; bytes, bytes/s, seconds."""
        measure = self._meter.measure
        return {
            "sent": self.sent,
            "received": self.received,
            "acknowledged": self.acknowledged,
            "in_flight": self.in_flight,
            "acknowledged_rate": measure.rate,
            "busy_s": round(measure.busy_s, 3),
        }
