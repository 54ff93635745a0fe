# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The far end of a clear-text stream: one TCP connection to a listener of the target's QEMU, bytes as they are.

Nobody there proves who he is (mtunnel-protocol 6.2), so the only thing to hold on to is the address: it is the one
that was proven, and the kernel is asked once more who is at the other end. An edge file.
"""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
import termios
from typing import List, Optional

from ..errors import Side
from ..websocket import frames
from .errors import LinkLost
from .interface import PlainSettings
from .tcp_options import limit_unsent, reset

__all__ = ["USER_TIMEOUT", "PlainEnd"]

USER_TIMEOUT = 10.0  # seconds for which sent bytes may stay unacknowledged (DESIGN 4)
PAYLOAD = 128 * 1024  # bytes of one read of QEMU


class PlainEnd:
    """One connection, made by :meth:`connect`; until then nothing is sent to the target at all."""

    def __init__(self) -> None:
        self._socket: Optional[socket.socket] = None
        self._buffer = memoryview(bytearray(PAYLOAD))
        self._batch = memoryview(bytearray(PAYLOAD))
        self._sent = self._length = 0
        self._finishing = False
        self.room = self._buffer  # where the near end reads into

    def connect(self, settings: PlainSettings) -> None:
        """Connect. Blocks up to ``settings.connect_timeout`` seconds; no guest waits for it.

        Raises:
            LinkLost: LINK_LOST.
        """
        where = f"{settings.address} port {settings.port}"
        sock = socket.socket(socket.AF_INET6 if ":" in settings.address else socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(USER_TIMEOUT * 1000))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            limit_unsent(sock)
            if settings.local_address is not None:
                sock.bind((settings.local_address, 0))
            sock.settimeout(settings.connect_timeout)
            sock.connect((settings.address, settings.port))
            sock.setblocking(False)
            peer = sock.getpeername()
        except OSError as error:
            sock.close()
            reason = "no answer in time" if isinstance(error, socket.timeout) else error.strerror or str(error)
            raise _lost(f"No connection to {where}: {reason}") from error
        if (ipaddress.ip_address(peer[0]), peer[1]) != (ipaddress.ip_address(settings.address), settings.port):
            sock.close()
            raise _lost(f"The connection to {where} leads to {peer[0]} port {peer[1]}")
        self._socket = sock

    def fileno(self) -> int:
        """Descriptor to poll; -1 before there is a connection."""
        return -1 if self._socket is None else self._socket.fileno()

    @property
    def pending(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return self._length - self._sent

    @property
    def hidden(self) -> bool:
        """Nothing stands between the kernel and us."""
        return False

    @property
    def unacknowledged(self) -> int:
        """Bytes that were sent and that the target's kernel has not acknowledged."""
        if self._socket is None:
            return 0
        queued = fcntl.ioctl(self._socket, termios.TIOCOUTQ, struct.pack("i", 0))
        return int(struct.unpack("i", queued)[0]) + self.pending

    def send_room(self, length: int) -> bool:
        """Send the first ``length`` bytes of :attr:`room`; True when the kernel has all of it.

        Raises:
            LinkLost: LINK_LOST.
        """
        self._sent, self._length = 0, length
        return self.flush()

    def send_close(self) -> None:
        """TCP's end in this direction, behind everything that was sent."""
        self._finishing = True
        self.flush()

    def flush(self) -> bool:
        """Try again; True when nothing waits.

        Raises:
            LinkLost: LINK_LOST.
        """
        if self._socket is None:
            return not self.pending
        try:
            while self._sent < self._length:
                self._sent += self._socket.send(self._buffer[self._sent : self._length])
            if self._finishing:
                self._finishing = False
                self._socket.shutdown(socket.SHUT_WR)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            raise _broke(error) from error
        return True

    def receive(self) -> Optional[List[frames.Event]]:
        """What one read brought: a list (maybe empty), None at the end of the connection.

        Raises:
            LinkLost: LINK_LOST.
        """
        if self._socket is None:
            return []
        try:
            length = self._socket.recv_into(self._batch)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError as error:
            raise _broke(error) from error
        return [frames.Data(bytes(self._batch[:length]))] if length else None

    def abort(self) -> None:
        """Cut: the target sees a reset."""
        if self._socket is not None:
            reset(self._socket)

    def close(self) -> None:
        """Close an ended connection."""
        if self._socket is not None:
            self._socket.close()


def _lost(message: str) -> LinkLost:
    return LinkLost(
        message,
        side=Side.TARGET,
        object="qemu",
        remedy="Open TCP 60000 to 60050 of the target for the source's migration address, and for nobody else",
    )


def _broke(error: OSError) -> LinkLost:
    reason = error.strerror or type(error).__name__
    return LinkLost(f"The connection to the target's QEMU broke: {reason}", side=Side.TARGET, object="qemu")
