# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The worker's local control socket: one JSON object a line, request ids, protocol version.

Only root reaches it (directory 0700, socket 0600). Each connection is greeted with ``{"hello": {...}}``; a request
is ``{"id": n, "op": "...", ...}``, its answer ``{"id": n, "data": {...}}`` or ``{"id": n, "error": {...}}``.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from typing import Any, Callable, Dict, Mapping, Optional

from ..errors import CrossclusterError, Side
from .errors import MigrationError

__all__ = ["LINE_LIMIT", "PROTOCOL", "ControlSocket"]

PROTOCOL = 1
LINE_LIMIT = 1 << 20  # bytes
_IDLE = 120.0  # seconds after which a silent client is dropped
_LOG = logging.getLogger(__name__)

Handler = Callable[[Mapping[str, Any]], Dict[str, Any]]


class ControlSocket:
    """Serves the operations of one migration, one thread per connection.

    Args:
        path: Where the socket is made.
        hello: Sent first on every connection, beside the protocol number.
        operations: Name to handler; a handler returns the answer's data or raises a CrossclusterError.
    """

    def __init__(self, path: str, hello: Mapping[str, Any], operations: Mapping[str, Handler]) -> None:
        self._operations = operations
        self._hello = {"hello": dict(hello, protocol=PROTOCOL)}
        if os.path.exists(path):
            os.unlink(path)  # of a worker that died; the VM's lock says that we are the only one
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._listener.bind(path)
        os.chmod(path, 0o600)
        self._listener.listen(8)
        self._path = path

    def start(self) -> None:
        """Serve in a thread of its own."""
        threading.Thread(target=self._accept, name="control", daemon=True).start()

    def close(self) -> None:
        """Stop listening; running answers are finished."""
        self._listener.close()
        if os.path.exists(self._path):
            os.unlink(self._path)

    def _accept(self) -> None:
        while True:
            try:
                connection, _address = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._serve, args=(connection,), name="client", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(_IDLE)
        with connection, connection.makefile("rwb") as stream:
            try:
                _send(stream, self._hello)
                while True:
                    line = stream.readline(LINE_LIMIT)
                    if not line.endswith(b"\n"):
                        return
                    _send(stream, self._answer(line))
            except OSError as error:
                _LOG.debug("client of the control socket left: %s", error)

    def _answer(self, line: bytes) -> Dict[str, Any]:
        identity: Optional[Any] = None
        try:
            request = json.loads(line.decode("utf-8", "replace"))
            if not isinstance(request, dict):
                raise _bad_request("a request is not an object")
            identity = request.get("id")
            handler = self._operations.get(str(request.get("op")))
            if handler is None:
                raise _bad_request(f"unknown operation {str(request.get('op'))[:40]!r}")
            return {"id": identity, "data": handler(request)}
        except CrossclusterError as error:
            return {"id": identity, "error": error.to_dict()}
        except (ValueError, KeyError, TypeError) as error:
            return {"id": identity, "error": _bad_request(f"malformed request: {type(error).__name__}").to_dict()}


def _bad_request(message: str) -> MigrationError:
    return MigrationError(message, side=Side.SOURCE, object="control socket")


def _send(stream: Any, message: Mapping[str, Any]) -> None:
    stream.write(json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n")
    stream.flush()
