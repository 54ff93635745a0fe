# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""What the far ends of all planes ask of their TCP connection. An edge file."""

from __future__ import annotations

import contextlib
import socket
import struct

__all__ = ["NOTSENT_LOWAT", "limit_unsent", "reset"]

# Bytes that may wait unsent in the kernel: what waits there is in front of every ping, and invisible to QEMU's
# estimate of the downtime.
NOTSENT_LOWAT = 256 * 1024
_TCP_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", 25)  # has a name since Python 3.12


def limit_unsent(sock: socket.socket, size: int = NOTSENT_LOWAT) -> None:
    """Let at most about ``size`` bytes wait unsent in the kernel.

    Raises:
        OSError: it is no TCP connection.
    """
    sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, size)


def reset(sock: socket.socket) -> None:
    """Close at once: the peer gets a reset, even if it does not read."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
