# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The guest's deadman of a clear-text stream: there is nobody at the far end who would answer a ping.

What the target's kernel has acknowledged stands in its place: RAM that waits without any progress for 10 s is a
target that does not read (DESIGN 4). A network that is silent altogether ends the connection by TCP_USER_TIMEOUT.
The rules for greeting, answers and switchover are those of the websocket plane.
"""

from __future__ import annotations

from typing import Optional

from .guard import Guard, GuardLimits
from .interface import EndReason

__all__ = ["STALL", "PlainGuard"]

STALL = 10.0  # seconds (DESIGN 4)


class PlainGuard(Guard):
    """Watches one clear-text stream.

    Args:
        awaits_greeting: The server speaks first (NBD); what stalls there is a slow disk, and answers are counted.
        now: Clock value at which the stream opened.
    """

    def __init__(self, *, awaits_greeting: bool, now: float) -> None:
        super().__init__(awaits_greeting=awaits_greeting, now=now, limits=GuardLimits(pong=STALL))
        self._watches_stall = not awaits_greeting
        self._acknowledged = 0

    def took(self, acknowledged: int, waiting: int, now: float) -> None:
        """So many bytes has the target's kernel acknowledged, so many more it has not."""
        progress = acknowledged > self._acknowledged
        self._acknowledged = acknowledged
        if not waiting or not self._watches_stall:
            self._silent_since = None
        elif progress or self._silent_since is None:
            self._silent_since = now

    def verdict(
        self, now: float, *, oldest: Optional[float] = None, negotiating: Optional[float] = None
    ) -> Optional[EndReason]:
        """As its base, with a word of its own for the silence."""
        reason = super().verdict(now, oldest=oldest, negotiating=negotiating)
        return EndReason.PEER_STALLED if reason is EndReason.PONG_MISSING else reason
