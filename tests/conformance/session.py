# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""State of one replay that its drivers share: connections, bindings, deviations found so far."""

from __future__ import annotations

import concurrent.futures
import time
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional

from .bind import Bindings
from .capture import Capture, Event
from .normalise import Comparer
from .wire import WebSocket
from .world import World

__all__ = ["Fatal", "Mismatch", "Session"]

TOLERANCE_S = 1.0


class Fatal(Exception):
    """The replay cannot go on."""


@dataclass(frozen=True)
class Mismatch:
    """One deviation of the lab from the recording."""

    line: int
    where: str
    text: str

    def __str__(self) -> str:
        return f"line {self.line} {self.where}: {self.text}"


@dataclass
class Session:
    """Everything a driver needs. Times are seconds of the monotonic clock."""

    capture: Capture
    world: World
    bindings: Bindings
    comparer: Comparer
    slow: bool = False
    sockets: Dict[str, WebSocket] = field(default_factory=dict)
    paths: Dict[str, str] = field(default_factory=dict)
    pending: Dict[str, "List[concurrent.futures.Future[Any]]"] = field(default_factory=dict)
    mismatches: List[Mismatch] = field(default_factory=list)
    marks: Dict[str, float] = field(default_factory=dict)
    facts: Dict[str, Any] = field(default_factory=dict)
    pool: concurrent.futures.ThreadPoolExecutor = field(
        default_factory=lambda: concurrent.futures.ThreadPoolExecutor(max_workers=40)
    )

    def fail(self, event: Event, *texts: str) -> None:
        where = " ".join(part for part in (event.channel, event.connection, event.kind) if part)
        self.mismatches += [Mismatch(event.index + 1, where, text) for text in texts]

    def compare(self, event: Event, expected: Any, actual: Any, partial: bool = False, path: str = "") -> None:
        self.fail(event, *self.comparer.differences(expected, actual, path, partial))

    def submit(self, key: str, call: Any, *arguments: Any) -> None:
        self.pending.setdefault(key, []).append(self.pool.submit(call, *arguments))

    def result(self, key: str, timeout: float) -> Any:
        waiting = self.pending.get(key)
        if not waiting:
            raise Fatal(f"an answer on {key} without a request")
        return waiting.pop(0).result(timeout)

    def socket(self, event: Event) -> WebSocket:
        socket = self.sockets.get(event.connection or "")
        if socket is None:
            raise Fatal(f"no websocket {event.connection} is open")
        return socket

    def socket_named(self, name: str) -> WebSocket:
        socket = self.sockets.get(name)
        if socket is None:
            raise Fatal(f"no websocket {name} is open")
        return socket

    def scaled(self, seconds: float) -> float:
        """A recorded wait on the lab's clock: above 60 s it is shortened unless the run is a slow one."""
        return seconds if self.slow or seconds <= 60 else seconds * self.world.long_scale

    def gap(self, event: Event) -> float:
        before = self.capture.before(event)
        return max(0.0, event.at - (before.at if before else 0.0))

    def timed(self, event: Event, recorded: float, measured: float, what: str) -> None:
        """Delays of the protocol: +-1 s."""
        expected = self.scaled(recorded)
        if abs(expected - measured) > TOLERANCE_S:
            self.fail(event, f"{what}: {expected:.1f} s recorded, {measured:.1f} s here")

    def vmid(self) -> int:
        """The target VM: the one whose control connection was opened last."""
        known = self.facts.get("vmid")
        if known is None:
            raise Fatal("no target VM known yet")
        return int(known)

    def close(self) -> None:
        for socket in self.sockets.values():
            if socket.ended is None:
                socket.finish()
        self.pool.shutdown(wait=False, cancel_futures=True)

    @staticmethod
    def now() -> float:
        return time.monotonic()

    def optional(self, key: str) -> Optional[Any]:
        return self.facts.get(key)
