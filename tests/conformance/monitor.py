# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A QMP client that keeps every event and answers in request order."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any, Dict, List, Optional

__all__ = ["Monitor"]


class Monitor:
    """One connection to a monitor socket; ``negotiate=False`` leaves qmp_capabilities to the caller."""

    def __init__(self, path: str, negotiate: bool = True, timeout: float = 10.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        self._socket.connect(path)
        self._changed = threading.Condition()
        self._replies: List[Dict[str, Any]] = []
        self.events: List[Dict[str, Any]] = []
        self.greeting: Optional[Dict[str, Any]] = None
        self.ended = False
        self._count = 0
        self._socket.settimeout(None)
        threading.Thread(target=self._read, daemon=True).start()
        with self._changed:
            if not self._changed.wait_for(lambda: self.greeting or self.ended, timeout) or self.ended:
                raise TimeoutError(f"no QMP greeting on {path}")
        if negotiate:
            self.execute("qmp_capabilities")

    def _read(self) -> None:
        try:
            for line in self._socket.makefile("rb"):
                self._take(json.loads(line))
        except OSError:
            pass
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def _take(self, message: Dict[str, Any]) -> None:
        with self._changed:
            if "QMP" in message:
                self.greeting = message
            elif "event" in message:
                self.events.append(message)
            else:
                self._replies.append(message)
            self._changed.notify_all()

    @property
    def version(self) -> "tuple[int, int, int]":
        qemu = (self.greeting or {})["QMP"]["version"]["qemu"]
        return qemu["major"], qemu["minor"], qemu["micro"]

    def send(self, command: Dict[str, Any]) -> None:
        self._socket.sendall(json.dumps(command).encode() + b"\n")

    def reply(self, timeout: float, identity: Optional[str] = None) -> Dict[str, Any]:
        """The next reply to a command sent with that id (or to the next one without)."""

        def mine() -> Optional[Dict[str, Any]]:
            return next((each for each in self._replies if each.get("id") == identity), None)

        with self._changed:
            self._changed.wait_for(lambda: mine() or self.ended, timeout)
            found = mine()
            if found is None:
                raise TimeoutError("no QMP reply" + (" (monitor closed)" if self.ended else ""))
            self._replies.remove(found)
            return found

    def execute(
        self, command: str, arguments: Optional[Dict[str, Any]] = None, timeout: float = 30.0
    ) -> Dict[str, Any]:
        """The whole reply, with ``return`` or ``error``."""
        self._count += 1
        identity = f"own{self._count}"
        self.send({"execute": command, "id": identity, **({"arguments": arguments} if arguments else {})})
        return self.reply(timeout, identity)

    def query(self, command: str, arguments: Optional[Dict[str, Any]] = None) -> Any:
        reply = self.execute(command, arguments)
        if "error" in reply:
            raise RuntimeError(f"{command}: {reply['error']}")
        return reply["return"]

    def seen(self, event: str, since: int = 0, timeout: float = 0.0) -> bool:
        with self._changed:
            return bool(
                self._changed.wait_for(lambda: any(each["event"] == event for each in self.events[since:]), timeout)
            )

    def close(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._socket.close()
