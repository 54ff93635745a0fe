# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The other end of the control socket: what modules on the node use to talk to a worker."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from typing import Any, Dict, Optional

from ..errors import Side
from .control_socket import LINE_LIMIT, PROTOCOL
from .errors import Recorded, WorkerTooOld, WorkerUnreachable

__all__ = ["Client"]

_ANSWER_MARGIN = 15.0  # seconds on top of a long poll


class Client:
    """One connection to the worker of a migration; a context manager.

    Raises:
        WorkerUnreachable: nobody listens, or the answer does not come.
        WorkerTooOld: the worker speaks another protocol.
    """

    def __init__(self, path: str, timeout: float = 10.0) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            raise self._unreachable(os.strerror(error.errno or 0)) from error
        self._stream = self._socket.makefile("rwb")
        self.hello = self._read().get("hello", {})
        if self.hello.get("protocol") != PROTOCOL:
            raise WorkerTooOld(
                f"the worker speaks protocol {self.hello.get('protocol')!r}, this collection speaks {PROTOCOL}",
                side=Side.SOURCE,
                object=path,
                remedy="Finish or abort this migration with the collection version that started it",
            )
        self._count = 0

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_exception: Any) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; harmless when the worker is gone."""
        with contextlib.suppress(OSError):  # what it did not take is still in the buffer
            self._stream.close()
        self._socket.close()

    def call(self, op: str, wait: float = 0.0, **parameters: Any) -> Dict[str, Any]:
        """One operation and its data.

        Args:
            op: Name of the operation.
            wait: Seconds that the worker may hold the answer back (long poll).
            **parameters: Of the operation, JSON.

        Raises:
            Recorded: the worker's error, with its own code.
        """
        self._count += 1
        self._socket.settimeout(wait + _ANSWER_MARGIN)
        request = dict(parameters, id=self._count, op=op, wait=wait)
        try:
            self._stream.write(json.dumps(request).encode("ascii") + b"\n")
            self._stream.flush()
        except OSError as error:
            raise self._unreachable(os.strerror(error.errno or 0)) from error
        answer = self._read()
        if "error" in answer:
            raise Recorded.parse(answer["error"])
        data = answer.get("data")
        if not isinstance(data, dict):
            raise self._unreachable("its answer has no data")
        return data

    def _read(self) -> Dict[str, Any]:
        try:
            line: Optional[bytes] = self._stream.readline(LINE_LIMIT)
            answer = json.loads(line or b"null")
        except (OSError, ValueError) as error:
            raise self._unreachable(f"no answer ({type(error).__name__})") from error
        if not isinstance(answer, dict):
            raise self._unreachable("it closed the connection")
        return answer

    def _unreachable(self, reason: str) -> WorkerUnreachable:
        return WorkerUnreachable(
            f"the worker does not answer on {self._path}: {reason}",
            side=Side.SOURCE,
            object=self._path,
            remedy="Run the play again: it starts the worker again and recovers",
        )
