# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The listening end's side of a conversation: a greeting, then requests and answers, one JSON object a line. Sans-I/O.

The same words as the worker's control socket (``control_socket``), so that its client speaks to both: over the local
socket the module, over the stream ``control`` the source. What the peer sends is bounded and never trusted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional

from ..errors import CrossclusterError
from ..transport.incoming_errors import RequestInvalid
from .control_socket import PROTOCOL

__all__ = ["Conversation", "Request", "TooLong"]

_LONGEST = 65536  # bytes of one request; the longest real one lists the volumes of a VM


class TooLong(Exception):
    """The peer sends a line without an end, or more than anybody answers: close the conversation."""


@dataclass(frozen=True)
class Request:
    """One request; ``op`` is empty when it could not be understood."""

    id: Optional[int]
    op: str
    values: Mapping[str, Any]


class Conversation:
    """One client."""

    def __init__(self) -> None:
        self._buffer = b""

    @staticmethod
    def greeting(**facts: Any) -> bytes:
        """The first line."""
        return _line({"hello": dict(facts, protocol=PROTOCOL)})

    def receive(self, data: bytes) -> List[Request]:
        """The requests that are complete now; raises TooLong."""
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        if len(self._buffer) > _LONGEST or any(len(line) > _LONGEST for line in lines):
            raise TooLong
        return [_request(line) for line in lines]

    @staticmethod
    def answer(request: Request, data: Mapping[str, Any]) -> bytes:
        """What was asked for."""
        return _line({"id": request.id, "data": dict(data)})

    @staticmethod
    def refuse(request: Request, error: CrossclusterError) -> bytes:
        """Why there is no answer."""
        return _line({"id": request.id, "error": error.to_dict()})


def invalid(message: str) -> RequestInvalid:
    """A request that cannot be served."""
    return RequestInvalid(message, object="control")


def _request(line: bytes) -> Request:
    try:
        raw = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return Request(None, "", {})
    if not isinstance(raw, dict):
        return Request(None, "", {})
    identity, op = raw.pop("id", None), raw.pop("op", None)
    if isinstance(identity, bool) or not isinstance(identity, int) or not isinstance(op, str):
        return Request(None, "", {})
    return Request(identity, op, raw)


def _line(message: Dict[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"
