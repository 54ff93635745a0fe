# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""A pump's two pipes to its worker: commands in, events out; never blocks. An edge file."""

from __future__ import annotations

import json
import os
import select
from typing import Any, Dict, List, Mapping, Optional

from ..errors import Side
from .errors import SettingsInvalid
from .interface import EventName, PumpEvent

__all__ = ["PumpChannel"]

MAX_LINE = 65536  # bytes of one command or of the settings
MAX_OUT = 65536  # bytes of events a stopped worker may leave unread; statistics are dropped first
LAST_WORDS = 1000  # milliseconds to get the last event out


class PumpChannel:
    """Non-blocking lines of JSON over two descriptors.

    Args:
        stdin: Commands; its end means that the worker is gone.
        stdout: Events.
        parent: Process id of the worker; None takes the parent of this process.
    """

    def __init__(self, stdin: int, stdout: int, parent: Optional[int] = None) -> None:
        self._in, self._out = stdin, stdout
        self._parent = os.getppid() if parent is None else parent
        self._watches_parent = parent is None
        self._buffer = b""
        self._unsent = bytearray()
        self._ended = False
        os.set_blocking(stdout, False)

    def fileno(self) -> int:
        """Descriptor to poll for commands."""
        return self._in

    def first_line(self) -> bytes:
        """The settings; waits for them.

        Raises:
            SettingsInvalid: PUMP_SETTINGS, none came.
        """
        while b"\n" not in self._buffer:
            data = os.read(self._in, MAX_LINE)
            self._buffer += data
            if not data or len(self._buffer) > MAX_LINE:
                raise SettingsInvalid("A pump was started without settings", side=Side.SOURCE, object="pump")
        line, self._buffer = self._buffer.split(b"\n", 1)
        os.set_blocking(self._in, False)
        return line

    def commands(self) -> List[Dict[str, Any]]:
        """What has come since the last call. What is no command ends the channel: it is not our worker."""
        try:
            data = os.read(self._in, MAX_LINE)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError:
            data = b""
        self._ended = not data
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        try:
            commands = [json.loads(line) for line in lines if line]
        except ValueError:
            commands = [None]
        if len(self._buffer) > MAX_LINE or not all(isinstance(command, dict) for command in commands):
            self._ended = True
            return []
        return commands

    def is_orphaned(self) -> bool:
        """Whether the worker is gone."""
        return self._ended or (self._watches_parent and os.getppid() != self._parent)

    def tell(self, name: EventName, facts: Mapping[str, Any]) -> None:
        """An event that must arrive."""
        self._unsent += PumpEvent(name, facts).to_line()
        self._flush()

    def tell_stats(self, facts: Mapping[str, Any]) -> None:
        """Statistics: the next ones replace them, so they are dropped while the worker does not read."""
        self._flush()
        if not self._unsent:
            self.tell(EventName.STATS, facts)

    def close(self) -> None:
        """Get the last words out, within a second."""
        if self._unsent:
            poller = select.poll()
            poller.register(self._out, select.POLLOUT)
            poller.poll(LAST_WORDS)
            self._flush()

    def _flush(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: os.write(self._out, self._unsent)]
        except (BlockingIOError, InterruptedError):
            del self._unsent[MAX_OUT:]
        except OSError:
            self._unsent.clear()  # nobody reads any more; the end of stdin says the rest
