# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""What a running migration can be asked for: its goal, an abort, other limits; and its lease.

Written by the control socket's thread, read by the migration's thread. The lease is the promise that somebody
still wants this migration; it is renewed only by requests that carry it (DESIGN 3).
"""

from __future__ import annotations

import threading
from typing import Callable, Optional

from ..errors import Side
from .errors import Aborted, DeadlinePassed, LeaseLost
from .spec import Limits, Spec
from .states import Phase, reached

__all__ = ["Requests"]

_FIRST_CALL = 60.0  # seconds; who starts a worker asks it for something at once, or died before it could


class Requests:
    """The wishes of the callers, and until when they hold.

    Args:
        spec: Gives the timeouts (seconds).
        now: Monotonic clock of the source node, seconds.
    """

    def __init__(self, spec: Spec, now: Callable[[], float]) -> None:
        self._spec = spec
        self._now = now
        self._lock = threading.Lock()
        self.changed = threading.Event()
        self.goal = Phase.PREFLIGHT
        self.limits: Limits = spec.limits
        self.lease: Optional[str] = None
        self.abort = False
        self.forward = False
        self.triggered_at: Optional[float] = None
        self._renewed_at = now()

    def advance(self, goal: Phase, lease: str, limits: Optional[Limits]) -> None:
        """Go on to ``goal`` (never back); the caller's ``lease`` is the one that counts from now on."""
        with self._lock:
            if not reached(self.goal, goal):
                self.goal = goal
            if goal is Phase.COMPLETED and self.triggered_at is None:
                self.triggered_at = self._now()
            if limits is not None:
                self.limits = limits
            self.lease = lease
            self._renewed_at = self._now()
        self.changed.set()

    def renew(self, lease: str) -> bool:
        """Renew the lease if it is still the caller's."""
        with self._lock:
            if lease != self.lease:
                return False
            self._renewed_at = self._now()
            return True

    def ask_abort(self) -> None:
        """Ask for the end; acts at the next look, before COMMIT_INTENT."""
        self.abort = True
        self.changed.set()

    def ask_forward(self) -> None:
        """Ask that a migration in hold no longer goes back; acts at its next look."""
        self.forward = True

    def lease_left(self) -> float:
        """Seconds until the lease ends; infinite with ``on_controller_loss: continue`` after the trigger."""
        if self.triggered_at is not None and self._spec.on_controller_loss == "continue":
            return float("inf")
        timeout = self._spec.reservation_timeout if self.triggered_at is None else self._spec.controller_timeout
        if self.lease is None:
            timeout = min(timeout, _FIRST_CALL)
        return self._renewed_at + timeout - self._now()

    def deadline_left(self) -> float:
        """Seconds until ``limits.deadline``, counted from the trigger; infinite before it."""
        if self.triggered_at is None:
            return float("inf")
        return self.triggered_at + self.limits.deadline - self._now()

    def check(self) -> None:
        """Look whether the migration may go on.

        Raises:
            Aborted: asked for.
            LeaseLost: nobody renewed the lease in time.
            DeadlinePassed: ``limits.deadline`` passed.
        """
        name = f"VM {self._spec.vmid}"
        if self.abort:
            raise Aborted("the migration was aborted on request", side=Side.SOURCE, object=name)
        if self.lease_left() <= 0:
            raise LeaseLost(
                "the controller did not renew its lease in time",
                side=Side.CONTROLLER,
                object=name,
                remedy="Run the play again; with on_controller_loss=continue a migration goes on alone",
            )
        if self.deadline_left() <= 0:
            raise DeadlinePassed(
                f"the migration did not reach the switchover within {self.limits.deadline:g} s",
                side=Side.SOURCE,
                object=name,
                remedy="Raise limits.deadline or limits.bandwidth, or allow a longer limits.downtime",
            )
