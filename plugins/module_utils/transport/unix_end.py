# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""QEMU's UNIX socket at either end of a direct transport: views in, no copies, and what QEMU has really read.

What QEMU does not take at once stays where it is, as views into the batch that it came in: the batch is not filled
again before everything is taken. An edge file.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import socket
import struct
import termios
from typing import List, Optional

__all__ = ["SEND_BUFFER", "UnixEnd", "peer_pid"]

# direct-transports 5: on UNIX sockets only the sender's buffer counts; many frames fit into one sendmsg. What sits in
# it adds to the downtime that QEMU estimates, and QEMU reads it sooner from the processor's cache: with 4 MiB a stream
# over loopback took 1.06 times the CPU.
SEND_BUFFER = 1024 * 1024
_SO_SNDBUFFORCE = getattr(socket, "SO_SNDBUFFORCE", 32)
_MAX_SLICES = 256  # IOV_MAX is 1024


class UnixEnd:
    """One connected socket, both directions."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._waiting: List[memoryview] = []
        self._written = self._read = 0
        self._unsent_size = array.array("i", [0])

    def enlarge(self) -> None:
        """A send buffer of many frames; without root's right as large as the kernel lets everybody have."""
        for option in (_SO_SNDBUFFORCE, socket.SO_SNDBUF):
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, option, SEND_BUFFER)
                return

    def fileno(self) -> int:
        """Descriptor to poll."""
        return self._socket.fileno()

    @property
    def pending(self) -> bool:
        """Whether QEMU has not taken everything yet."""
        return bool(self._waiting)

    @property
    def consumed(self) -> int:
        """How many bytes QEMU has really read: written minus what lies in the buffer; never less than before.

        The kernel counts buffers with their overhead, so this may be less than the truth, but not once all is read.
        """
        try:
            fcntl.ioctl(self._socket, termios.TIOCOUTQ, self._unsent_size)  # SIOCOUTQ has the same number
        except (OSError, ValueError):
            return self._read
        self._read = max(self._read, self._written - self._unsent_size[0])
        return self._read

    def recv_into(self, view: memoryview) -> Optional[int]:
        """Bytes of QEMU straight into ``view``: how many, 0 at the end, None when there are none now."""
        try:
            return self._socket.recv_into(view)
        except (BlockingIOError, InterruptedError):
            return None

    def give(self, slices: List[memoryview]) -> bool:
        """Hand QEMU these bytes; False when some wait, in their place. Not while others wait."""
        self._waiting = slices
        return self.flush()

    def flush(self) -> bool:
        """Try again; True when nothing waits."""
        while self._waiting:
            try:
                taken = self._socket.sendmsg(self._waiting[:_MAX_SLICES])
            except (BlockingIOError, InterruptedError):
                return False
            self._written += taken
            self._drop(taken)
        return True

    def _drop(self, taken: int) -> None:
        done = 0
        for view in self._waiting:
            if taken < len(view):
                break
            taken -= len(view)
            done += 1
        self._waiting = self._waiting[done:]
        if taken:
            self._waiting[0] = self._waiting[0][taken:]

    def finish(self) -> None:
        """QEMU sees the end of what it reads; it may still write. One that has closed knows."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Cut: QEMU sees the end at once, in both directions."""
        self._waiting = []
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def peer_pid(connection: socket.socket) -> int:
    """The process that connected."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[0])
