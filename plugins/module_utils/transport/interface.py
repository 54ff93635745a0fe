# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""What the worker and a transport say to each other: the plan of a stream, settings, events, the end.

One pump process carries one stream. It gets one line of settings on stdin, then commands; it tells events on
stdout; all are JSON objects, one per line. The secret travels beside the settings, never in an argument list.
"""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass, field
from typing import Any, Dict, Mapping, Optional, Tuple

from ..errors import Side
from .errors import SettingsInvalid

__all__ = ["EndReason", "EventName", "Kind", "PumpEnd", "PumpEvent", "PumpSettings", "StreamPlan"]


class Kind(enum.Enum):
    """What a stream carries; decides who speaks first, what is answered, and how it ends."""

    RAM = "ram"
    NBD = "nbd"
    IMPORT = "import"


@dataclass(frozen=True)
class StreamPlan:
    """One byte stream of a migration."""

    name: str  # "ram", "scsi0", "import-tpmstate0": unique within the migration, used in file names
    kind: Kind
    remote_socket: str  # UNIX socket on the target node


class EventName(enum.Enum):
    """The events of a pump."""

    LISTENING = "listening"  # the far end stands (and greeted, for NBD); QEMU may connect now
    ATTACHED = "attached"  # QEMU has connected; the listener is gone
    STATS = "stats"
    DRAINING = "draining"  # the local end has finished; what was sent is still on its way
    ENDED = "ended"  # always the last one


class EndReason(enum.Enum):
    """Why a stream ended. The first three are ordinary, all others are failures of this stream."""

    LOCAL_EOF = "local_eof"  # QEMU or the exporter finished; everything was sent and the server closed
    SERVER_CLOSED = "server_closed"  # the target closed first; what it sent was delivered
    CUT = "cut"  # the worker asked for it
    PARENT_GONE = "parent_gone"  # the worker died: QEMU must not wait for it
    CONNECT_FAILED = "connect_failed"  # no websocket; detail says why
    GREETING_MISSING = "greeting_missing"  # the NBD server said nothing
    PONG_MISSING = "pong_missing"  # the network or the proxy is silent
    ANSWER_MISSING = "answer_missing"  # the link lives, the target's QEMU does not answer
    SWITCHOVER_DEADLINE = "switchover_deadline"
    DRAIN_TIMEOUT = "drain_timeout"  # the server did not close after our close frame
    SERVER_LOST = "server_lost"  # reset, TLS failure or a frame that no server may send
    NBD_INVALID = "nbd_invalid"
    LOCAL_FAILED = "local_failed"  # QEMU's socket broke
    LENGTH_DIFFERS = "length_differs"  # an import sent more or less than its header announced
    DIED = "died"  # the pump process ended without a word


@dataclass(frozen=True)
class PumpEnd:
    """How a pump ended; ``clean`` means that every byte of both directions arrived where it was going."""

    reason: EndReason
    clean: bool
    detail: str = ""


@dataclass(frozen=True)
class PumpEvent:
    """One line of a pump."""

    name: EventName
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_line(self) -> bytes:
        """The event as a line of bytes."""
        return json.dumps({"event": self.name.value, **self.facts}, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> PumpEvent:
        """A line back into an event; ValueError when it is none."""
        raw = json.loads(line)
        if not isinstance(raw, dict):
            raise ValueError("an event is an object")
        return cls(EventName(raw.pop("event", None)), raw)


@dataclass(frozen=True)
class PumpSettings:
    """Everything a pump of the websocket plane must know, except the secret.

    Attributes:
        endpoint: Fields of :class:`~..proxmox.endpoint.Endpoint`.
        path: Path and query of the upgrade request, with a fresh ticket (usable for 40 s).
        listen: Path of the UNIX socket for QEMU (RAM, NBD).
        input_fd: Inherited descriptor to read from (IMPORT).
        rate: bytes/s, None is no limit.
        sized: An import begins with its length in 8 bytes (``raw+size``, ``qcow2+size``).
        open_timeout: Seconds for TCP, TLS and upgrade together.
        drain_timeout: Seconds that the server has to close after our close frame.
        payload: Bytes of a full frame; None takes the default.
    """

    name: str
    kind: Kind
    endpoint: Mapping[str, Any]
    path: str
    listen: Optional[str] = None
    input_fd: Optional[int] = None
    rate: Optional[int] = None
    sized: bool = True
    open_timeout: float = 10.0
    drain_timeout: float = 10.0
    payload: Optional[int] = None

    def to_line(self, secret: str) -> bytes:
        """The first line for the pump's stdin."""
        values = dict(vars(self), kind=self.kind.value, endpoint=dict(self.endpoint))
        return json.dumps({"settings": values, "secret": secret}, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> Tuple[PumpSettings, str]:
        """The first line back into settings and secret.

        Raises:
            SettingsInvalid: PUMP_SETTINGS; never repeats the line, it holds the secret.
        """
        try:
            raw = json.loads(line)
            values: Dict[str, Any] = dict(raw["settings"])
            values["kind"] = Kind(values["kind"])
            settings, secret = cls(**values), str(raw["secret"])
        except (ValueError, TypeError, KeyError) as error:
            message = "The settings of a pump cannot be read"
            raise SettingsInvalid(
                message, side=Side.SOURCE, object="pump", facts={"type": type(error).__name__}
            ) from None
        if (settings.input_fd is None) == (settings.listen is None):
            message = "A pump needs either a socket to listen on or a descriptor to read from"
            raise SettingsInvalid(message, side=Side.SOURCE, object=settings.name)
        return settings, secret
