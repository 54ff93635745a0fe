# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The pump of ``qemu-tcp``: between QEMU's UNIX socket and a clear-text listener of the target's QEMU.

All but the far end and its guard is as on the websocket plane. RAM is dialled when the source's QEMU has connected and
not before: the target's QEMU takes the first who comes and ends with him (qemu-facts, the clear-text migration port is
a kill switch), so nothing of ours ever tries that port. An edge file.
"""

from __future__ import annotations

from typing import cast

from .errors import LinkLost
from .interface import EndReason, Kind, PlainSettings
from .plain_end import PlainEnd
from .plain_guard import PlainGuard
from .websocket_pump import Pump

__all__ = ["PlainPump"]


class PlainPump(Pump):
    """Carries one stream in clear text."""

    _guard: PlainGuard

    def _connect(self, is_nbd: bool) -> None:
        settings = cast(PlainSettings, self._settings)
        self._remote = self._plain = PlainEnd()
        if settings.local_address is not None:
            from .network_proof import prove_way  # the other pumps do without its memory

            prove_way(settings.local_address, settings.address)
        if is_nbd:
            self._plain.connect(settings)
        else:
            self._stalled = True  # there is nothing to be read yet
        self._guard = PlainGuard(awaits_greeting=is_nbd, now=self._clock())

    def _accept(self, now: float) -> None:
        super()._accept(now)
        if self._local is None or self._settings.kind is not Kind.RAM:
            return
        try:
            self._plain.connect(cast(PlainSettings, self._settings))
        except LinkLost as error:
            self._finish(EndReason.CONNECT_FAILED, False, f"{error.code}: {error.message}")
            return
        self._unstall(self._clock())

    def _watch(self, now: float) -> None:
        """No pings: what the target's kernel has acknowledged tells whether it reads."""
        waiting = self._plain.unacknowledged
        taken = max(0, self.books.sent - waiting)
        if self._settings.kind is Kind.RAM:
            self.books.consumed(taken, now)
        self._guard.took(taken, waiting, now)
        reason = self._guard.verdict(now, oldest=self.books.oldest, negotiating=self.books.negotiating)
        if reason is not None:
            self._finish(reason, False)
