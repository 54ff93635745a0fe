# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The event daemon: ends a QEMU whose guest powered off (it runs with -no-shutdown), by its second monitor."""

from __future__ import annotations

import fcntl
import json
import os
import selectors
import socket
import subprocess
import sys
from typing import Dict

from .base import Node

__all__ = ["ensure", "serve"]

SOCKET = "/run/qmeventd.sock"
LOCK = "/run/lock/lab-qmeventd"


def ensure(node: Node) -> None:
    """Start the daemon unless it runs (it holds a flock for its life)."""
    lock = node.path(LOCK)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
    environment = {**os.environ, "LAB_ROOT": node.root, "PYTHONPATH": os.pathsep.join(sys.path)}
    daemon = subprocess.Popen(
        [sys.executable, "-m", "lab.node.events"],
        env=environment,
        start_new_session=True,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert daemon.stdout is not None
    daemon.stdout.read(1)


def serve(node: Node) -> None:
    """Run until killed."""
    lock = open(node.path(LOCK), "ab")  # noqa: SIM115 (held for the life of the process)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    path = node.path(SOCKET)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(64)
    os.write(1, b"+")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    _loop(listener)


def _loop(listener: socket.socket) -> None:
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    buffers: Dict[socket.socket, bytes] = {}
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                connection = listener.accept()[0]
                buffers[connection] = b""
                selector.register(connection, selectors.EVENT_READ)
            else:
                assert isinstance(key.fileobj, socket.socket)
                if not _receive(key.fileobj, buffers):
                    selector.unregister(key.fileobj)
                    del buffers[key.fileobj]
                    key.fileobj.close()


def _receive(connection: socket.socket, buffers: Dict[socket.socket, bytes]) -> bool:
    try:
        data = connection.recv(65536)
        lines = (buffers[connection] + data).split(b"\n")
        buffers[connection] = lines.pop()
        for line in lines:
            message = json.loads(line)
            if "QMP" in message:
                connection.sendall(b'{"execute": "qmp_capabilities"}\n')
            elif message.get("event") == "SHUTDOWN":
                connection.sendall(b'{"execute": "quit"}\n')
    except (OSError, ValueError):
        return False
    return bool(data)


if __name__ == "__main__":
    serve(Node())
