# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The near end of a pump: the UNIX socket that QEMU connects to, or the exporter's pipe.

Exactly one connection is accepted; then the listener is closed and its path unlinked, so that QEMU cannot
reconnect behind our back and the close of the connection is final (direct-transports 4.4). An edge file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
from typing import List, Optional

__all__ = ["InputEnd", "Listener", "SocketEnd"]

PIPE_SIZE = 1024 * 1024  # bytes; the default of 64 KiB cannot fill one frame per read


class Listener:
    """A UNIX socket, mode 0600, for one connection."""

    def __init__(self, path: str) -> None:
        self.path = path
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.lstat(path).st_mode):  # left by a pump that was killed
                os.unlink(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.setblocking(False)
            before = os.umask(0o177)
            try:
                self._socket.bind(path)
            finally:
                os.umask(before)
            self._socket.listen(1)
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Descriptor to poll for POLLIN."""
        return self._socket.fileno()

    def accept(self) -> Optional[SocketEnd]:
        """The one connection, None when there is none yet; afterwards the listener is gone."""
        connection = self.accept_socket()
        return None if connection is None else SocketEnd(connection)

    def accept_socket(self) -> Optional[socket.socket]:
        """The same, as a socket."""
        try:
            connection, _address = self._socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return None
        self.close()
        return connection

    def close(self) -> None:
        """Close and unlink."""
        if self._socket.fileno() >= 0:
            self._socket.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)


class SocketEnd:
    """QEMU's connection, both directions."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._out = bytearray()

    def fileno(self) -> int:
        """Descriptor to poll."""
        return self._socket.fileno()

    @property
    def pending(self) -> int:
        """Bytes for QEMU that it has not taken yet."""
        return len(self._out)

    def recv_into(self, view: memoryview) -> Optional[int]:
        """Bytes of QEMU straight into ``view``: how many, 0 at the end, None when there are none now."""
        try:
            return self._socket.recv_into(view)
        except (BlockingIOError, InterruptedError):
            return None

    def send(self, data: bytes) -> None:
        """Give QEMU ``data``; what it does not take at once waits here."""
        if self._out:
            self._out += data
            return
        try:
            taken = self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            taken = 0
        if taken < len(data):
            self._out += data[taken:]

    def flush(self) -> bool:
        """Try again; True when nothing waits."""
        if self._out:
            data = bytes(self._out)
            self._out.clear()
            self.send(data)
        return not self._out

    def close(self) -> None:
        """Cut: QEMU sees the end at once, in both directions."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class InputEnd:
    """The reading end of an exporter's pipe; nothing goes back."""

    pending = 0
    consumed = 0

    def __init__(self, descriptor: int) -> None:
        self._fd = descriptor
        os.set_blocking(descriptor, False)
        with contextlib.suppress(OSError):  # no pipe, or above the user's limit: only slower
            fcntl.fcntl(descriptor, getattr(fcntl, "F_SETPIPE_SZ", 1031), PIPE_SIZE)

    def fileno(self) -> int:
        """Descriptor to poll."""
        return self._fd

    def recv_into(self, view: memoryview) -> Optional[int]:
        """Bytes of the exporter straight into ``view``: how many, 0 at the end, None when there are none now."""
        try:
            return os.readv(self._fd, [view])
        except (BlockingIOError, InterruptedError):
            return None

    def send(self, data: bytes) -> None:
        """What an importer says is not for the exporter."""

    def give(self, slices: List[memoryview]) -> bool:
        """The same."""
        return True

    def finish(self) -> None:
        """The exporter does not read, so it sees no end."""

    def flush(self) -> bool:
        """Nothing ever waits."""
        return True

    def close(self) -> None:
        """The exporter gets SIGPIPE with its next write."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
