# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The process of a pump: its settings say which one it is (websocket, direct or plain). An edge file.

A node runs one for every disk of every VM that moves, so what the other one needs is not loaded.
"""

from __future__ import annotations

import time
from typing import Any, Callable

from ..errors import CrossclusterError
from .interface import DirectSettings, EndReason, EventName, PlainSettings, PumpEnd, PumpSettings
from .pump_channel import PumpChannel

__all__ = ["main"]


def main(stdin: int = 0, stdout: int = 1, clock: Callable[[], float] = time.monotonic) -> int:
    """The process: first line of stdin are the settings, then commands; events on stdout."""
    channel = PumpChannel(stdin, stdout)
    try:
        pump = _pump(channel, clock)
        end = pump.run()
        figures = {**pump.books.stats(), "announced": pump.books.announced}
    except CrossclusterError as error:
        end, figures = PumpEnd(EndReason.CONNECT_FAILED, False, f"{error.code}: {error.message}"), {}
    told = {"reason": end.reason.value, "clean": end.clean, "detail": end.detail, "code": end.code}
    channel.tell(EventName.ENDED, {**told, **figures})
    channel.close()
    return 0


def _pump(channel: PumpChannel, clock: Callable[[], float]) -> Any:
    """The pump that the first line asks for."""
    line = channel.first_line()
    if DirectSettings.is_meant(line):
        from .direct_pump import DirectPump

        return DirectPump(*DirectSettings.parse(line), channel, clock)
    if PlainSettings.is_meant(line):
        from .plain_pump import PlainPump

        return PlainPump(*PlainSettings.parse(line), channel, clock)
    from .websocket_pump import Pump

    return Pump(*PumpSettings.parse(line), channel, clock)
