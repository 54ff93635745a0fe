# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The UNIX socket behind a websocket, with a queue that knows no limit (mtunnel-protocol 3.6)."""

from __future__ import annotations

import socket
from collections import deque
from typing import TYPE_CHECKING, Deque

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["READ", "Backend", "stream_kind"]

READ = 131072


def stream_kind(path: str) -> str:
    """Which stream a socket carries, by its name (mtunnel-protocol 6.1)."""
    if path.endswith(".mtunnel"):
        return "control"
    if path.endswith("_nbd.migrate"):
        return "nbd"
    if path.endswith(".storage"):
        return "import"
    return "ram" if path.endswith(".migrate") else "other"


class Backend:
    """The UNIX socket behind a websocket, with a queue that knows no limit."""

    def __init__(self, owner: "Connection", path: str) -> None:
        self.owner = owner
        self.path = path
        self.loop = owner.worker.loop
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.queue: Deque[memoryview] = deque()
        self.queued = 0
        self.peak = 0
        self.ending = False
        self._writing = False

    def connect(self) -> bool:
        """Connect; False when nobody listens. A full backlog (second connection to .mtunnel) just waits."""
        try:
            self.socket.connect(self.path)
        except BlockingIOError:
            self.loop.call_later(0.1, self._again)
            return True
        except OSError:
            self.socket.close()
            return False
        self.loop.add_reader(self.socket, self._readable)
        return True

    def _again(self) -> None:
        if self.owner.proxying and not self.connect():
            self.owner.worker.exception(self.owner, "connect to 'unix/:%s' failed" % self.path)

    def send(self, data: bytes) -> None:
        """Queue data and write what goes."""
        self.queue.append(memoryview(data))
        self.queued += len(data)
        self.peak = max(self.peak, self.queued)
        if not self._writing:
            self.flush()

    def flush(self) -> None:
        """Write what goes now, within what the drain rate allows."""
        worker = self.owner.worker
        while self.queue:
            allowance = worker.allowance()
            if allowance <= 0:
                worker.out_of_allowance(self)
                break
            try:
                count = self.socket.send(self.queue[0][:allowance])
            except BlockingIOError:
                break
            except OSError:
                self.owner.finish()
                return
            worker.spend(count)
            self.queued -= count
            rest = self.queue[0][count:]
            if len(rest):
                self.queue[0] = rest
            else:
                self.queue.popleft()
        self._watch(bool(self.queue) and self not in worker.thirsty)

    def _watch(self, wanted: bool) -> None:
        if self.socket.fileno() < 0:
            return
        if wanted and not self._writing:
            self.loop.add_writer(self.socket, self.flush)
        elif self._writing and not wanted:
            self.loop.remove_writer(self.socket)
        self._writing = wanted
        if self.ending and not self.queue:
            self._half_close()

    def end(self) -> None:
        """After a close frame: pass on what is queued, then half-close."""
        self.ending = True
        if not self.queue:
            self._half_close()

    def _half_close(self) -> None:
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        self.ending = False

    def _readable(self) -> None:
        try:
            data = self.socket.recv(READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.owner.to_client(data)
        else:
            self.loop.remove_reader(self.socket)
            self.owner.finish()

    def close(self) -> None:
        """Drop everything; what was queued is lost."""
        if self.socket.fileno() >= 0:
            self.loop.remove_reader(self.socket)
            self.loop.remove_writer(self.socket)
            self.socket.close()
        self.queue.clear()
        self.queued = 0
