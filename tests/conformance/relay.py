# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries a local UNIX socket of the source through a data websocket, as a migration client does."""

from __future__ import annotations

import os
import queue
import socket
import threading
from typing import Optional

from .wire import WebSocket

__all__ = ["Carried", "Forward"]


class Carried:
    """One accepted local connection joined with one websocket. Byte counts are payload."""

    def __init__(self, local: socket.socket, remote: WebSocket) -> None:
        self.local, self.remote = local, remote
        self.sent = self.received = 0
        self.local_eof, self.remote_eof = threading.Event(), threading.Event()
        threading.Thread(target=self._outwards, daemon=True).start()
        threading.Thread(target=self._inwards, daemon=True).start()

    def _outwards(self) -> None:
        try:
            while True:
                data = self.local.recv(131072)
                if not data:
                    break
                self.remote.send_data(data)
                self.sent += len(data)
            self.local_eof.set()
            # without the close frame the server drops what it still holds for its UNIX socket
            self.remote.close_frame()
        except OSError:
            self.local_eof.set()

    def _inwards(self) -> None:
        try:
            while True:
                try:
                    data = self.remote.take(3600.0)
                except TimeoutError:
                    continue
                if not data:
                    break
                self.local.sendall(data)
                self.received += len(data)
        except OSError:
            pass
        self.remote_eof.set()
        try:
            self.local.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def abort(self) -> None:
        """The data websocket is reset; the local connection ends with it."""
        self.remote.reset()
        try:
            self.local.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


class Forward:
    """A listener on the source; its accepted connections wait until a websocket is there for them."""

    def __init__(self, path: str) -> None:
        self.path = path
        if os.path.exists(path):
            os.unlink(path)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen(16)
        self._accepted: "queue.Queue[socket.socket]" = queue.Queue()
        self.carried: "list[Carried]" = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                self._accepted.put(self._listener.accept()[0])
            except OSError:
                return

    def attach(self, remote: WebSocket, timeout: float = 30.0) -> Carried:
        carried = Carried(self._accepted.get(timeout=timeout), remote)
        self.carried.append(carried)
        return carried

    def last(self) -> Optional[Carried]:
        return self.carried[-1] if self.carried else None

    def close(self) -> None:
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        if os.path.exists(self.path):
            os.unlink(self.path)
