# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The timers of a direct transport (direct-transports 4.3): decides from times alone when a stream must be cut.

Each rule sees something else: the deadman a silent network, the stall a target QEMU that no longer reads, the answer
rules one that reads and does not answer, the switchover deadline everything while the guest stands still. It decides
without QMP and without the supervisor, which may both be dead just then. Sans-I/O; clock values in seconds come in.

The rules for the guest hold on the source; on the target only the deadman does.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Mapping, Optional

from ..errors import Side
from .errors import SettingsInvalid
from .guard import GuestGuard
from .interface import EndReason, Kind

__all__ = ["DirectGuard", "DirectLimits"]

# direct-transports 4.3: beats and deadman keep the guest's pause below 3 s; a false alarm costs a retry only.
_BOUNDS: Mapping[str, "tuple[float, float]"] = {
    "deadman": (1.0, 10.0),
    "beat": (0.1, 2.0),
    "greeting": (0.5, 10.0),
    "answer": (1.0, 30.0),
    "background_answer": (1.0, 60.0),
    "first_answer": (1.0, 30.0),
    "stall": (2.0, 60.0),
    "switchover": (2.0, 30.0),
}
_STOPPED = 1.0
# An NBD client that has sent so much negotiates no longer, be it readable or not: QEMU's negotiation is below 5 KiB,
# with its TLS below 16 KiB. Until then QEMU's main loop, and with it the guest, may wait for the answer.
_NEGOTIATED = 65536


@dataclass(frozen=True)
class DirectLimits:
    """Seconds."""

    deadman: float = 2.0  # nothing at all received
    beat: float = 0.5  # between two beats, also under traffic
    greeting: float = 1.0  # from OPEN to OPENED, from OPENED to the NBD greeting
    answer: float = 3.0  # a disk stream while the guest waits for it
    background_answer: float = 5.0  # a disk stream whose mirror runs in the background
    first_answer: float = 3.0  # the target QEMU's first word on a RAM stream with QEMU's TLS
    stall: float = 10.0  # RAM: sent bytes that the target QEMU does not read
    switchover: float = 10.0  # the guest stands still; the worker arms it

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> DirectLimits:
        """Some limits by name, the others as they are.

        Raises:
            SettingsInvalid: PUMP_SETTINGS, a name is unknown or a value outside its bounds.
        """
        for name, value in values.items():
            if name not in _BOUNDS:
                raise _invalid(name, f"is none of {', '.join(sorted(_BOUNDS))}")
            least, most = _BOUNDS[name]
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
                raise _invalid(name, f"is not between {least:g} and {most:g} s")
        limits = cls(**{name: float(value) for name, value in values.items()})
        if limits.beat > limits.deadman / 2:
            raise _invalid("beat", "is more than half the deadman: one late beat would cut a healthy stream")
        return limits

    def to_dict(self) -> Mapping[str, float]:
        """The limits by name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


class DirectGuard(GuestGuard):
    """Watches one stream, from its WELCOME on.

    Args:
        limits: How long what may last.
        now: Clock value.
        kind: What the stream carries, for the rules of the guest; None on the target, which has none of them.
        opaque: QEMU encrypts: requests and answers cannot be told apart.

    Attributes:
        heard_at: when the last byte came.
    """

    def __init__(self, limits: DirectLimits, now: float, *, kind: Optional[Kind] = None, opaque: bool = False) -> None:
        super().__init__(now, _STOPPED)
        self._limits = limits
        self._kind = kind
        self._opaque = opaque
        self.heard_at = now
        self._beaten_at = now - limits.beat  # the first beat goes out at once
        self._greeting_since: Optional[float] = None
        self._unread_since: Optional[float] = None  # sent bytes that the other QEMU has not read
        self._unanswered_since: Optional[float] = None  # sent bytes after which nothing came
        self._sent = self._consumed = 0
        self._answered_at: Optional[float] = None

    # What happened.

    def heard(self, now: float) -> None:
        """Anything came from the other worker: even half a frame is a sign of life."""
        self.heard_at = now

    def beat_sent(self, now: float) -> None:
        """A beat went out."""
        self._beaten_at = now

    def opening(self, now: float) -> None:
        """OPEN went out; or OPENED came, and now the NBD server must greet."""
        self._greeting_since = now

    def opened(self) -> None:
        """Nothing more is to come before QEMU speaks."""
        self._greeting_since = None

    def sent(self, total: int, now: float) -> None:
        """So many bytes of QEMU have gone out up to now."""
        if total == self._sent:
            return
        self._sent = total
        if self._unread_since is None:
            self._unread_since = now
        if self._unanswered_since is None:
            self._unanswered_since = now

    def consumed(self, total: int, now: float) -> None:
        """The other QEMU has read so many of them: a beat said so."""
        if total > self._consumed:
            self._consumed = total
            self._unread_since = now
        if self._consumed >= self._sent:
            self._unread_since = None

    def answered(self, now: float) -> None:
        """Data came from the other QEMU."""
        self._answered_at = now
        self._unanswered_since = None

    # What follows.

    def beat_due(self, now: float) -> bool:
        """Whether a beat is to be sent now: always in time, also under traffic (direct-transports 4.3, trap a)."""
        return now - self._beaten_at >= self._limits.beat

    def _silence(self, now: float, oldest: Optional[float], negotiating: Optional[float]) -> Optional[EndReason]:
        limits = self._limits
        if self._is_over(self._greeting_since, limits.greeting, now):
            return EndReason.GREETING_MISSING
        if self._kind is Kind.NBD and self._answer_is_over(oldest, negotiating, now):
            return EndReason.ANSWER_MISSING
        if self._kind is Kind.RAM:
            waits_for_first = self._opaque and self._answered_at is None
            if waits_for_first and self._is_over(self._unanswered_since, limits.first_answer, now):
                return EndReason.ANSWER_MISSING
            if self._is_over(self._unread_since, limits.stall, now):
                return EndReason.PEER_STALLED
        if self._is_over(self.heard_at, limits.deadman, now):
            return EndReason.PEER_SILENT
        return None

    def _answer_is_over(self, oldest: Optional[float], negotiating: Optional[float], now: float) -> bool:
        limits, writes_wait_since = self._limits, self._writes_wait_since
        if self._opaque:
            # What comes may be an answer to anything, so only silence after a byte of ours tells.
            since = self._unanswered_since
            waits = writes_wait_since is not None or self._sent <= _NEGOTIATED
            limit = limits.answer if waits else limits.background_answer
        elif negotiating is not None:
            since, limit = negotiating, limits.answer
        elif writes_wait_since is not None:
            since, limit = oldest, limits.answer
        else:
            # One slow request is the target's storage; no answer at all, with requests open, a target that hangs.
            since = None if oldest is None else max(oldest, self._answered_at or oldest)
            limit = limits.background_answer
        if since is not None and writes_wait_since is not None:
            since = max(since, writes_wait_since)
        return self._is_over(since, limit, now)


def _invalid(name: str, what: str) -> SettingsInvalid:
    return SettingsInvalid(f"The limit {name} {what}", side=Side.SOURCE, object=name)
