# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The privileged process behind the front end: one forked child per request runs the method and answers.

Requests come over a UNIX socket as one length-prefixed JSON object and are answered likewise. A child of its own per
request may block (QMP, flocks, the 3 s of a refused login) and fork tasks without harm to anybody else.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import struct
import sys
import time
import traceback
from typing import Any, Dict, Mapping, Optional, Tuple

from lab import faults
from lab.node.base import Die, Node, ParamError

from . import auth, peers
from .http import Answer, BadRequest, Request, parameters
from .personality import pause
from .registry import NotImplementedHere, Paged, Registry, error_answer

__all__ = ["Daemon", "SOCKET", "pack", "request_of", "unpack"]

SOCKET = "/run/lab-api/daemon.sock"
PREFIX = "/api2/"
REFUSAL_DELAY = 3.0  # seconds before any 401 (mtunnel-protocol 1.1)


def pack(value: Mapping[str, Any]) -> bytes:
    """A message between front end and daemon."""
    data = json.dumps(value).encode()
    return struct.pack(">I", len(data)) + data


def unpack(connection: socket.socket) -> Optional[Dict[str, Any]]:
    """The next message, or None at EOF."""
    head = _exactly(connection, 4)
    data = _exactly(connection, struct.unpack(">I", head)[0]) if head else None
    return json.loads(data) if data else None


def _exactly(connection: socket.socket, length: int) -> Optional[bytes]:
    data = b""
    while len(data) < length:
        part = connection.recv(length - len(data))
        if not part:
            return None
        data += part
    return data


def request_of(message: Mapping[str, Any]) -> Request:
    """A request as the front end packed it."""
    return Request(
        message["method"], message["path"], message["query"], message["headers"], base64.b64decode(message["body"])
    )


def answer_of(message: Mapping[str, Any]) -> Answer:
    """An answer as the daemon packed it."""
    body = None if message["body"] is None else base64.b64decode(message["body"])
    return Answer(message["status"], message["reason"], body, message["type"], message["headers"])


def _packed_answer(answer: Answer) -> bytes:
    body = None if answer.body is None else base64.b64encode(answer.body).decode()
    return pack(
        {
            "status": answer.status,
            "reason": answer.reason,
            "body": body,
            "type": answer.content_type,
            "headers": dict(answer.headers),
        }
    )


class Daemon:
    """Accepts requests of the front end for ever."""

    def __init__(self, node: Node, registry: Registry) -> None:
        self.node = node
        self.registry = registry

    def serve(self, listener: socket.socket) -> None:
        """Fork a child per request; the kernel reaps them."""
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                self._child(connection)
            connection.close()

    def _child(self, connection: socket.socket) -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        try:
            message = unpack(connection)
            if message is not None:
                connection.sendall(_packed_answer(self.answer(request_of(message))))
        except BrokenPipeError:
            pass
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(0)

    def answer(self, request: Request) -> Answer:
        """The answer to one request, the delay of refusals included."""
        try:
            return self._answer(request)
        except auth.Unauthorized as error:
            pause(REFUSAL_DELAY)
            if error.with_body:
                return Answer.json(401, error.reason, {"data": None, "message": error.reason + "\n"})
            return Answer(401, error.reason, None if request.upgrade else b"", None)
        except BadRequest as error:
            return Answer.json(error.status, error.reason, {"data": None, "message": error.reason + "\n"})

    def _answer(self, request: Request) -> Answer:
        if not request.path.startswith(PREFIX):
            return Answer(404, "no such file", b"", "text/plain")
        formatter, _, path = request.path[len(PREFIX) :].partition("/")
        if formatter not in ("json", "extjs"):
            return Answer(501, "no such uri", b"", "text/plain")
        status, reason, body = self._call(request, path)
        if isinstance(body, Answer):
            return body
        if formatter == "extjs":
            body = dict(body, success=int(status == 200), **({} if status == 200 else {"status": status}))
            status, reason = 200, "OK"
        return Answer.json(status, reason, body)

    def _call(self, request: Request, path: str) -> Tuple[int, str, Any]:
        open_to_all = path.strip("/") == "access/ticket" and request.method in ("GET", "POST")
        caller = None if open_to_all else auth.authenticate(self.node, request.headers, request.method)
        try:
            entry, values = self.registry.find(request.method, path)
            elsewhere = self.registry.elsewhere(entry, values)
            if elsewhere:
                return 0, "", peers.forward(self.node, elsewhere, request)
            data = self.registry.run(entry, values, parameters(request), caller or auth.Caller(""))
        except (Die, ParamError, NotImplementedHere) as error:
            return error_answer(error)
        except (auth.Unauthorized, BadRequest):
            raise
        except Exception as error:
            return error_answer(error)
        if isinstance(data, Paged):
            return 200, "OK", {"data": data.data, **data.extra}
        return 200, "OK", {"data": data}


def late(request_path: str, method: str) -> None:
    """Strike of the fault http_delay."""
    fault = faults.find("http_delay", method=method)
    if fault and request_path.endswith(fault.get("path", "")):
        time.sleep(float(fault["seconds"]))
