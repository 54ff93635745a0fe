# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A pump in a thread, with the two pipes of its worker."""

from __future__ import annotations

import json
import os
import threading
import time
from typing import Any, Callable, Dict, List, Union

from ansible_collections.crosscluster.migration.plugins.module_utils.transport import pump
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.interface import (
    DirectSettings,
    EventName,
    PumpEvent,
    PumpSettings,
)

__all__ = ["Runner"]


class Runner:
    """One pump.

    Args:
        settings: What it carries.
        secret: Of its first line.
        clock: A faster one shortens what the guard waits for.
    """

    def __init__(
        self, settings: Union[PumpSettings, DirectSettings], secret: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        their_in, self._commands = os.pipe()
        self._events, their_out = os.pipe()
        self.seen: List[PumpEvent] = []
        self._thread = threading.Thread(target=self._run, args=(their_in, their_out), daemon=True)
        os.write(self._commands, settings.to_line(secret))
        self._thread.start()
        self._file = os.fdopen(self._events, "rb")

    def _run(self, their_in: int, their_out: int) -> None:
        pump.main(their_in, their_out, self._clock)
        os.close(their_in)
        os.close(their_out)

    def command(self, name: str, value: Any = None) -> None:
        os.write(self._commands, json.dumps({"command": name, "value": value}).encode() + b"\n")

    def leave(self) -> None:
        """The worker dies."""
        os.close(self._commands)

    def wait(self, name: EventName) -> Dict[str, Any]:
        """The facts of the next event of that name."""
        while True:
            line = self._file.readline()
            assert line, f"the pump ended before {name}"
            event = PumpEvent.parse(line)
            self.seen.append(event)
            assert event.name is name or event.name is not EventName.ENDED, event
            if event.name is name:
                return dict(event.facts)

    def end(self) -> Dict[str, Any]:
        facts = self.wait(EventName.ENDED)
        self._thread.join(5)
        return facts
