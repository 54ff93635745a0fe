# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The guest's deadman in a pump: decides from times alone when a stream must be cut.

Knows when something was sent, pinged, answered; does not know sockets or clocks (values in seconds come in).
It decides without QMP and without the supervisor, because both may be dead just then
(direct-transports 1.5, 4.3). Bounds as DESIGN section 4: a silent network ends a stream after 5 s, an NBD
server that does not answer after 3 s once writes wait for it, a switchover after 10 s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from .interface import EndReason

__all__ = ["Guard", "GuardLimits", "GuestGuard"]


@dataclass(frozen=True)
class GuardLimits:
    """Seconds."""

    ping: float = 1.0  # while anything is in flight
    idle_ping: float = 30.0  # mtunnel-protocol 3.5: NAT and firewalls forget idle connections
    pong: float = 5.0
    greeting: float = 1.0
    answer: float = 3.0
    stopped: float = 2.0


class GuestGuard:
    """What holds for the guest on every plane; each adds how it sees silence.

    Args:
        now: Clock value at which the stream opened.
        stopped: Our loop looks at the clock every 0.1 s. A longer hole than this means that we were stopped, not that
            the network was silent: the clocks that count silence start again, those that bound the guest's pause do
            not.
    """

    def __init__(self, now: float, stopped: float) -> None:
        self._stopped = stopped
        self._suspended = False
        self._writes_wait_since: Optional[float] = None
        self._deadline: Optional[float] = None
        self._ticked = self._awake_since = now

    def suspend(self) -> None:
        """We do not read the network, because QEMU does not read from us."""
        self._suspended = True

    def resume(self, now: float) -> None:
        """We read the network again: the silence before was ours (direct-transports 4.3, trap b)."""
        if self._suspended:
            self._suspended = False
            self._awake_since = now

    def set_write_blocking(self, now: float) -> None:
        """From now on a guest write waits for the target."""
        if self._writes_wait_since is None:
            self._writes_wait_since = now

    def arm(self, now: float, seconds: float) -> None:
        """The guest stands still from about now on: cut after ``seconds`` whatever happens."""
        self._deadline = now + seconds

    def disarm(self) -> None:
        """The switchover has ended."""
        self._deadline = None

    def verdict(
        self, now: float, *, oldest: Optional[float] = None, negotiating: Optional[float] = None
    ) -> Optional[EndReason]:
        """Why the stream must be cut now, or None.

        Args:
            now: Clock value; what has arrived by then must have been reported before.
            oldest: When the oldest open NBD request was sent, None without one.
            negotiating: When QEMU sent the NBD option that is not answered yet.
        """
        if now - self._ticked > self._stopped:
            self._awake_since = now
        self._ticked = now
        if self._deadline is not None and now >= self._deadline:
            return EndReason.SWITCHOVER_DEADLINE
        return None if self._suspended else self._silence(now, oldest, negotiating)

    def _silence(self, now: float, oldest: Optional[float], negotiating: Optional[float]) -> Optional[EndReason]:
        """The verdict about a far end that we do listen to."""
        raise NotImplementedError

    def _is_over(self, since: Optional[float], limit: float, now: float) -> bool:
        return since is not None and now - max(since, self._awake_since) >= limit


class Guard(GuestGuard):
    """Watches one stream of the websocket plane.

    Args:
        awaits_greeting: The server speaks first (NBD).
        now: Clock value at which the stream opened.
    """

    def __init__(self, *, awaits_greeting: bool, now: float, limits: GuardLimits = GuardLimits()) -> None:
        super().__init__(now, limits.stopped)
        self._limits = limits
        self._greeting_since: Optional[float] = now if awaits_greeting else None
        self._pings = 0
        self._covering = 1  # number of the first ping that went out after the last data
        self._pinged = now
        self._silent_since: Optional[float] = None  # None: nothing is in flight

    # What happened.

    def greeted(self) -> None:
        """The NBD server greeted."""
        self._greeting_since = None

    def sent(self, now: float) -> None:
        """Data went out since the last call."""
        self._covering = self._pings + 1
        self._watch(now)

    def ping_sent(self, now: float) -> bytes:
        """A ping goes out now; returns its payload."""
        self._pings += 1
        self._pinged = now
        if self._silent_since is None:
            self._covering = self._pings
            self._watch(now)
        return self._pings.to_bytes(8, "big")

    def pong(self, payload: bytes, now: float) -> None:
        """A pong came. One that answers a ping sent after the last data ends the watch."""
        number = int.from_bytes(payload, "big") if len(payload) == 8 else 0
        if not 0 < number <= self._pings:
            return  # no answer to us: no proof of life in our direction
        done = number >= self._covering and not self._held
        self._silent_since = None if done or self._silent_since is None else now

    def set_write_blocking(self, now: float) -> None:
        """From now on the far end is watched even while nothing is in flight."""
        super().set_write_blocking(now)
        self._watch(now)

    def arm(self, now: float, seconds: float) -> None:
        """The same."""
        super().arm(now, seconds)
        self._watch(now)

    # What follows.

    def ping_due(self, now: float) -> bool:
        """Whether a ping is to be sent now."""
        interval = self._limits.idle_ping if self._silent_since is None else self._limits.ping
        return now - self._pinged >= interval

    def _silence(self, now: float, oldest: Optional[float], negotiating: Optional[float]) -> Optional[EndReason]:
        if self._is_over(self._greeting_since, self._limits.greeting, now):
            return EndReason.GREETING_MISSING
        if self._is_over(negotiating, self._limits.answer, now) or self._is_over(
            self._waits_since(oldest), self._limits.answer, now
        ):
            return EndReason.ANSWER_MISSING
        if self._is_over(self._silent_since, self._limits.pong, now):
            return EndReason.PONG_MISSING
        return None

    @property
    def _held(self) -> bool:
        """Whether the guest depends on the far end even while nothing is in flight."""
        return self._writes_wait_since is not None or self._deadline is not None

    def _waits_since(self, oldest: Optional[float]) -> Optional[float]:
        """Since when a guest write may be waiting for the answer to the oldest request."""
        if self._writes_wait_since is None or oldest is None:
            return None
        return max(oldest, self._writes_wait_since)

    def _watch(self, now: float) -> None:
        if self._silent_since is None:
            self._silent_since = now
