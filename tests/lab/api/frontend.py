# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One worker process of the front end: event loop, connections, faults in force, and how it dies.

The real one's vices are kept: no back-pressure, no close frame, no ping of its own, and a bad frame or a dead socket
that either kills this process 5 s later with every connection in it, or leaves that connection hanging for ever
(mtunnel-protocol 3.2 to 3.6).
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import random
import signal
import socket
import ssl
import struct
import time
from typing import Any, Dict, List, Optional, Set

from lab import faults
from lab.node.base import Node

from .backend import READ, Backend
from .connection import Connection, Mode
from .daemon import SOCKET, answer_of, late, pack
from .http import Answer, Request
from .personality import EventLoop, current, scaled
from .stats import StatsFile

__all__ = ["Worker"]

log = logging.getLogger("pveproxy")
DEATH_DELAY = 5.0  # seconds between the exception and the end of the process
FAULT_POLL = 0.02  # seconds a change of /run/lab-faults may take to be seen
STATS_POLL = 0.1
IDLE_POLL = 0.25  # with no websocket open
DRAIN_TICK = 0.004
BUCKET_SECONDS = 0.05  # a late event loop may catch up that much


class Worker:
    """One process: event loop, connections, faults in force."""

    def __init__(self, node: Node, context: ssl.SSLContext, slot: int) -> None:
        self.node = node
        self.context = context
        self.connections: Set[Connection] = set()
        self.lingering: Set[Backend] = set()
        self.ghosts: Set[Connection] = set()
        self.stats = StatsFile(node, slot)
        self.drain: Optional[float] = None
        self.loop: asyncio.AbstractEventLoop
        self._faults: List[Dict[str, Any]] = []
        self._kept: Set["asyncio.Task[None]"] = set()
        self.thirsty: Set[Backend] = set()
        self._next_poll: Optional[asyncio.TimerHandle] = None
        self._calm = current().calm
        self._bucket = 0.0
        self._filled = 0.0

    def run(self, listener: socket.socket) -> None:
        """Serve until killed."""
        asyncio.run(self._run(listener))

    async def _run(self, listener: socket.socket) -> None:
        self.loop = asyncio.get_running_loop()
        self.loop.add_signal_handler(signal.SIGTERM, os._exit, 0)
        server = await self.loop.create_server(lambda: Connection(self), sock=listener, backlog=128)
        self._poll_faults()
        self._poll_stats()
        async with server:
            await server.serve_forever()

    def keep(self, work: Any) -> None:
        """Run a coroutine and hold on to it."""
        task = self.loop.create_task(work)
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)

    async def ask(self, request: Request) -> Optional[Answer]:
        """The daemon's answer; None when it died over the request."""
        message = {
            "method": request.method,
            "path": request.path,
            "query": request.query,
            "headers": request.headers,
            "body": base64.b64encode(request.body).decode(),
        }
        try:
            reader, writer = await asyncio.open_unix_connection(str(self.node.path(SOCKET)))
            writer.write(pack(message))
            head = await reader.readexactly(4)
            data = await reader.readexactly(struct.unpack(">I", head)[0])
            writer.close()
        except (OSError, asyncio.IncompleteReadError):
            return None
        await self.loop.run_in_executor(None, late, request.path, request.method)
        return answer_of(json.loads(data))

    def exception(self, connection: Connection, text: str) -> None:
        """An exception in a callback: the two things the real one does about it (mtunnel-protocol 3.4)."""
        log.error("%s", text)
        if current().event_loop is EventLoop.LIBEV:
            connection.mode = Mode.STALLED
            return
        self.stats.write(self._summaries(), self.drain)
        time.sleep(scaled(DEATH_DELAY))  # nothing in this process moves any more
        log.error("worker exit")
        os._exit(255)

    # -- faults -----------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """A websocket comes up: from now on faults are looked for often."""
        if self._next_poll:
            self._next_poll.cancel()
        self._poll_faults()

    def _look_for_faults(self) -> None:
        self._faults = [fault for _, fault in faults._all(self.node.root)]
        self.drain = next((float(f["rate"]) for f in self._faults if f.get("fault") == "drain"), None)

    def _poll_faults(self) -> None:
        silent = self.ghosts | {c for c in self.connections if c.held_in or c.held_out or c.finish_held or c.eof_held}
        self._look_for_faults()
        for connection in silent:
            if not self.silence(connection):
                connection.release()
        for backend in [b for b in self.lingering if not b.queue]:
            backend.close()
            self.lingering.discard(backend)
        busy = self.lingering or self.ghosts or any(connection.backend for connection in self.connections)
        self._next_poll = self.loop.call_later(self._pause(FAULT_POLL, bool(busy)), self._poll_faults)

    def allowance(self) -> int:
        """Bytes that may be passed on to UNIX sockets now: a bucket filled at the drain rate."""
        if self.drain is None:
            return 1 << 30
        now = time.monotonic()
        self._bucket = min(self._bucket + self.drain * (now - self._filled), self.drain * BUCKET_SECONDS)
        self._filled = now
        return int(self._bucket)

    def spend(self, count: int) -> None:
        """Take bytes out of the bucket."""
        self._bucket -= count

    def out_of_allowance(self, backend: Backend) -> None:
        """Try that one again a little later."""
        if not self.thirsty:
            self.loop.call_later(DRAIN_TICK, self._refill)
        self.thirsty.add(backend)

    def _refill(self) -> None:
        thirsty, self.thirsty = list(self.thirsty), set()
        random.shuffle(thirsty)
        for backend in thirsty:
            backend.flush()

    def fault(self, wanted: str, connection: Connection) -> Optional[Dict[str, Any]]:
        """The fault in force for a websocket, from the last look at the directory."""
        for fault in self._faults:
            if fault.get("fault") != wanted:
                continue
            if fault.get("vmid", connection.facts.get("vmid")) != connection.facts.get("vmid"):
                continue
            if fault.get("kind", connection.kind) == connection.kind:
                return fault
        return None

    def silence(self, connection: Connection) -> Optional[str]:
        """to_source, both, or None."""
        fault = self.fault("silent", connection)
        if fault is None or ("kind" not in fault and connection.kind == "control"):
            return None
        return str(fault.get("direction", "both"))

    def pong_off(self, connection: Connection) -> bool:
        """Whether pings of this connection go unanswered."""
        return self.fault("pong_off", connection) is not None

    def frame_limit(self, connection: Connection) -> int:
        """Payload bytes per server frame."""
        fault = self.fault("split", connection)
        return int(fault["size"]) if fault else READ

    # -- statistics -------------------------------------------------------------------------------------------------

    def _summaries(self) -> List[Dict[str, Any]]:
        return [connection.summary() for connection in self.connections if connection.backend]

    def _poll_stats(self) -> None:
        self.stats.write(self._summaries(), self.drain)
        busy = any(connection.backend for connection in self.connections)
        self.loop.call_later(self._pause(STATS_POLL, busy), self._poll_stats)

    def _pause(self, seconds: float, busy: bool) -> float:
        """Seconds until one looks again; a calm host takes more of them, most of all when it has nothing to do."""
        return max(self._calm, seconds) if busy else max(10 * self._calm, IDLE_POLL)
