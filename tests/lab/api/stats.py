# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests may know of the front end: per worker a file /run/lab-api/frontend-<slot>.json.

``{"pid", "drain", "queued", "peak", "open": [...], "ended": [...]}``; a connection has vmid, kind (control, ram, nbd,
import), socket, from_client, to_client, pings, queued and peak (payload bytes received but not yet passed on).
"""

from __future__ import annotations

import json
import os
from collections import deque
from typing import Any, Deque, Dict, List, Optional

from lab.node.base import Node

__all__ = ["DIRECTORY", "StatsFile", "queued", "read"]

DIRECTORY = "/run/lab-api"


class StatsFile:
    """Writes one worker's file when something changed."""

    def __init__(self, node: Node, slot: int) -> None:
        self.path = node.path("%s/frontend-%d.json" % (DIRECTORY, slot))
        self._ended: Deque[Dict[str, Any]] = deque(maxlen=50)
        self._peak = 0
        self._last = ""

    def ended(self, summary: Dict[str, Any]) -> None:
        """Remember a websocket that is over."""
        self._ended.append(summary)

    def write(self, connections: List[Dict[str, Any]], drain: Optional[float]) -> None:
        """Write the file unless it would say the same again."""
        total = sum(connection["queued"] for connection in connections)
        self._peak = max(self._peak, total)
        text = json.dumps(
            {
                "pid": os.getpid(),
                "drain": drain,
                "queued": total,
                "peak": self._peak,
                "open": connections,
                "ended": list(self._ended),
            }
        )
        if text == self._last:
            return
        self._last = text
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".new")
        temporary.write_text(text, "utf-8")
        os.replace(temporary, self.path)


def read(root: str) -> List[Dict[str, Any]]:
    """The files of all workers of the host whose files lie below ``root``."""
    directory = root.rstrip("/") + DIRECTORY
    found = []
    for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else []:
        if name.startswith("frontend-") and name.endswith(".json"):
            with open(os.path.join(directory, name), encoding="utf-8") as stream:
                found.append(json.load(stream))
    return found


def queued(root: str, vmid: Optional[int] = None) -> int:
    """Bytes now waiting in the front end, of one VM's websockets or of all."""
    return sum(
        connection["queued"]
        for worker in read(root)
        for connection in worker["open"]
        if vmid in (None, connection["vmid"])
    )
