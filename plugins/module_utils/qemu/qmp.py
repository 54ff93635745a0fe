# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The codec of QMP, QEMU's monitor protocol: bytes in, messages out; commands to bytes.

Knows lines of JSON, the greeting, replies, errors and events. Does not know sockets, time or what a command
means. Every line and the number of waiting messages are bounded: a broken QEMU must not fill our memory.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Union

from ..errors import Side
from .errors import QmpInvalid

__all__ = ["MAX_LINE", "Codec", "Event", "Failure", "Greeting", "Message", "Reply", "command"]

MAX_LINE = 8 * 1024 * 1024  # bytes; query-block of a VM with 60 disks stays below 1 MiB


@dataclass(frozen=True)
class Greeting:
    """The first line of a monitor."""

    version: Mapping[str, Any]


@dataclass(frozen=True)
class Reply:
    """A command succeeded."""

    id: Optional[str]
    value: Any


@dataclass(frozen=True)
class Failure:
    """A command was refused by QEMU."""

    id: Optional[str]
    error_class: str
    description: str


@dataclass(frozen=True)
class Event:
    """Something happened in QEMU; it belongs to no command."""

    name: str
    data: Mapping[str, Any] = field(default_factory=dict)


Message = Union[Greeting, Reply, Failure, Event]


def command(name: str, arguments: Optional[Mapping[str, Any]] = None, identity: Optional[str] = None) -> bytes:
    """One command as a line of bytes."""
    message: Dict[str, Any] = {"execute": name}
    if arguments:
        message["arguments"] = dict(arguments)
    if identity is not None:
        message["id"] = identity
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


class Codec:
    """Cuts a byte stream into messages, however it was cut on the way.

    Args:
        object: What errors name: the monitor's socket.
    """

    def __init__(self, object: str = "qmp", max_line: int = MAX_LINE) -> None:
        self._object = object
        self._max_line = max_line
        self._buffer = bytearray()

    def receive(self, data: bytes) -> List[Message]:
        """Take bytes, return the messages they complete.

        Raises:
            QmpInvalid: QMP_INVALID, the line is too long, not JSON, or of no known shape.
        """
        self._buffer += data
        *lines, rest = self._buffer.split(b"\n")
        if max(map(len, (rest, *lines))) > self._max_line:
            raise self._invalid(f"a line is longer than {self._max_line} bytes")
        self._buffer = bytearray(rest)
        return [self._message(bytes(line)) for line in lines if line.strip()]

    def _message(self, line: bytes) -> Message:
        try:
            raw = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise self._invalid("a line is not JSON") from error
        if not isinstance(raw, dict):
            raise self._invalid("a line is not an object")
        if "return" in raw:
            return Reply(self._identity(raw), raw["return"])
        if "error" in raw:
            return self._failure(raw)
        if "event" in raw:
            return self._event(raw)
        if isinstance(raw.get("QMP"), dict):
            version = raw["QMP"].get("version")
            return Greeting(version if isinstance(version, dict) else {})
        raise self._invalid("a line is neither greeting, reply, error nor event")

    def _failure(self, raw: Dict[str, Any]) -> Failure:
        error = raw["error"]
        if not isinstance(error, dict):
            raise self._invalid("an error is not an object")
        return Failure(self._identity(raw), str(error.get("class", "GenericError")), str(error.get("desc", "")))

    def _event(self, raw: Dict[str, Any]) -> Event:
        name, data = raw["event"], raw.get("data", {})
        if not isinstance(name, str) or not isinstance(data, dict):
            raise self._invalid("an event has an unknown shape")
        return Event(name, data)

    def _identity(self, raw: Dict[str, Any]) -> Optional[str]:
        identity = raw.get("id")
        if identity is not None and not isinstance(identity, str):
            raise self._invalid("a reply carries an id that we never gave")
        return identity

    def _invalid(self, what: str) -> QmpInvalid:
        return QmpInvalid(f"The monitor sent what is not QMP: {what}", side=Side.SOURCE, object=self._object)
