# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A TLS server on the loopback that runs one function per connection, in a thread of its own."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from pathlib import Path
from typing import Callable, List

__all__ = ["TlsServer", "read_request"]


class TlsServer:
    """Accepts ``connections`` connections and hands each TLS socket to ``serve``.

    Args:
        certificate: File with key and certificate.
        serve: Called with each connected socket; errors of the connection are swallowed, the peer sees the end.
        connections: How many to accept.
    """

    def __init__(self, certificate: Path, serve: Callable[[ssl.SSLSocket], None], connections: int = 1) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._serve = serve
        self._connections = connections
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(10)
        self.port = self._listener.getsockname()[1]
        self.seen: List[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for _number in range(self._connections):
            try:
                raw, _address = self._listener.accept()
            except OSError:
                return
            raw.settimeout(10)
            with contextlib.suppress(OSError), raw:
                secured = self._context.wrap_socket(raw, server_side=True)
                with secured:
                    self._serve(secured)

    def close(self) -> None:
        """End the listener and wait for the thread."""
        self._listener.close()
        self._thread.join(10)


def read_request(connection: ssl.SSLSocket) -> str:
    """One HTTP request with its body."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            return data.decode()
        data += part
    head, _blank, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.decode().split("\r\n"):
        if line.lower().startswith("content-length:"):
            length = int(line.split(":")[1])
    while len(body) < length:
        body += connection.recv(65536)
    return (head + b"\r\n\r\n" + body).decode()
