# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every QEMU of the lab has a second monitor that connects to the node's event daemon; here it tells us instead.

So events come with QEMU's own time stamps while its one ordinary monitor stays free for the product.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
from pathlib import Path
from typing import Any, Dict, List, Tuple

from bench.links import hear_all

__all__ = ["Events"]

SOCKET = "/run/qmeventd.sock"
ENSURE = "from lab.node.base import Node; from lab.node import events; events.ensure(Node())"
MONITOR = re.compile(rb"path=/run/qemu-server/(\d+)\.qmp")
PATIENCE = 30.0  # seconds


class Events:
    """Takes the place of a host's event daemon for the QEMUs that start within the block."""

    def __init__(self, host: Any) -> None:
        self._host = host
        self._path = host.path(SOCKET)
        self._changed = threading.Condition()
        self._seen: Dict[Tuple[int, str], float] = {}
        self._links: List[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)

    def wait(self, vmid: int, event: str) -> float:
        """When that VM's last event of a kind was stamped (seconds of the machine's clock); waits for a first one."""
        with self._changed:
            if not self._changed.wait_for(lambda: (vmid, event) in self._seen, PATIENCE):
                raise RuntimeError(f"VM {vmid} on {self._host.name} told of no {event}: {sorted(self._seen)}")
            return self._seen[vmid, event]

    def __enter__(self) -> Events:
        self._host.api_python(["-c", ENSURE])  # or the daemon would start with the first VM and take the path
        os.rename(self._path, self._path + ".daemon")
        self._listener.bind(self._path)
        self._listener.listen(16)
        hear_all(self._listener, self._read)
        return self

    def __exit__(self, *_: object) -> None:
        os.rename(self._path + ".daemon", self._path)
        for each in (self._listener, *self._links):
            each.close()

    def _read(self, link: socket.socket) -> None:
        self._links.append(link)
        vmid = 0
        try:
            for line in link.makefile("rb"):
                message = json.loads(line)
                if "QMP" in message:
                    link.sendall(b'{"execute": "qmp_capabilities"}\n')
                elif "event" in message:
                    vmid = vmid or _vmid(link)
                    self._note(vmid, message)
        except (OSError, ValueError):
            return

    def _note(self, vmid: int, message: Dict[str, Any]) -> None:
        stamp = message["timestamp"]
        with self._changed:
            self._seen[vmid, message["event"]] = stamp["seconds"] + stamp["microseconds"] / 1e6
            self._changed.notify_all()


def _vmid(link: socket.socket) -> int:
    """Whose QEMU is at the other end."""
    pid = int.from_bytes(link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], "little")
    found = MONITOR.search(Path(f"/proc/{pid}/cmdline").read_bytes())
    return int(found[1]) if found else 0
