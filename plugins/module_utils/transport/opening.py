# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""How an opaque stream must begin: QEMU was told to encrypt it, and between the workers nothing else does. Sans-I/O.

TLS begins with a record of its handshake (RFC 8446 5.1). An NBD client first sends its flags and asks for TLS, an
option without data; a client that was told to encrypt asks for nothing before that (NBD, "newstyle", STARTTLS).
"""

from __future__ import annotations

from typing import Mapping, Tuple

from .interface import Kind

__all__ = ["Opening"]

_HANDSHAKE = (b"\x16", b"\x03")
_FLAGS = (b"\0", b"\0", b"\0", b"\1\3")  # fixed newstyle, perhaps without zeroes
_STARTTLS = tuple(bytes([byte]) for byte in b"IHAVEOPT\0\0\0\5\0\0\0\0")
# By kind, for each byte in turn what it may be.
_BEGINNINGS: Mapping[Kind, Tuple[bytes, ...]] = {
    Kind.RAM: _HANDSHAKE,
    Kind.NBD: (*_FLAGS, *_STARTTLS, *_HANDSHAKE),
}


class Opening:
    """Watches what our QEMU sends.

    Args:
        kind: What the stream carries.
        opaque: Whether QEMU encrypts it; anything goes in other streams.
    """

    def __init__(self, kind: Kind, opaque: bool) -> None:
        self._left = _BEGINNINGS[kind] if opaque else ()

    def takes(self, data: memoryview) -> bool:
        """Whether these bytes, the next ones, may be sent: False when QEMU speaks in the clear."""
        if not self._left:
            return True
        fits = all(byte in allowed for byte, allowed in zip(data, self._left))
        self._left = self._left[len(data) :]
        return fits
