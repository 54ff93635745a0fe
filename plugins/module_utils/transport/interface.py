# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""What the worker and a transport say to each other: settings, events, the end.

One pump process carries one stream. It gets one line of settings on stdin, then commands; it tells events on
stdout; all are JSON objects, one per line. The secret travels beside the settings, never in an argument list.
"""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass, field
from typing import Any, Mapping, Optional, Tuple, Type, TypeVar

from ..errors import Side
from .errors import SettingsInvalid

__all__ = [
    "OPAQUE_KINDS",
    "DirectSettings",
    "EndReason",
    "EventName",
    "Kind",
    "PlainSettings",
    "PumpEnd",
    "PumpEvent",
    "PumpSettings",
    "Settings",
    "kind_of",
]


class Kind(enum.Enum):
    """What a stream carries; decides who speaks first, what is answered, and how it ends."""

    RAM = "ram"
    NBD = "nbd"
    IMPORT = "import"
    CONTROL = "control"  # requests to the listening end of a direct transport


def kind_of(stream: str) -> Optional[Kind]:
    """What a stream of a direct transport carries, by its name (``disk/scsi0.2``); None when none is called so."""
    word, slash, _key = stream.partition("/")
    if slash:
        return {"disk": Kind.NBD, "import": Kind.IMPORT}.get(word)
    return {"ram": Kind.RAM, "control": Kind.CONTROL}.get(word.partition(".")[0])


OPAQUE_KINDS = (Kind.RAM, Kind.NBD)  # what QEMU can encrypt itself; an import comes from an exporter


class EventName(enum.Enum):
    """The events of a pump."""

    STANDING = "standing"  # direct transports: both ends are authenticated and beat; ``peer`` says who is there
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
    CLEAR_TEXT = "clear_text"  # QEMU did not encrypt what nobody else does; none of it was sent
    LENGTH_DIFFERS = "length_differs"  # an import sent more or less than its header announced
    REFUSED = "refused"  # the listening end refused the stream, or we refused it
    PEER_SILENT = "peer_silent"  # nothing at all came from the other worker for the deadman's time
    PEER_STALLED = "peer_stalled"  # the other worker lives, its QEMU does not read
    PEER_ABORTED = "peer_aborted"  # the other worker gave up; detail is its sentence
    DIED = "died"  # the pump process ended without a word


@dataclass(frozen=True)
class PumpEnd:
    """How a pump ended; ``clean`` means that every byte of both directions arrived where it was going.

    ``code`` is that of the error for which a stream never stood, empty in every other case.
    """

    reason: EndReason
    clean: bool
    detail: str = ""
    code: str = ""


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


_Settings = TypeVar("_Settings", bound="Settings")


@dataclass(frozen=True)
class Settings:
    """The first line of a pump; what each plane must know beside is in the subclasses. The secret is never a field."""

    name: str  # "ram", "scsi0", "import-tpmstate0": unique within the migration, used in file names
    kind: Kind

    def to_line(self, secret: str) -> bytes:
        """The first line for the pump's stdin."""
        values = {**vars(self), "kind": self.kind.value}
        line = {"pump": type(self).__name__, "settings": values, "secret": secret}
        return json.dumps(line, default=dict, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def is_meant(cls, line: bytes) -> bool:
        """Whether a first line is for this pump; False when it cannot be read."""
        try:
            return bool(json.loads(line)["pump"] == cls.__name__)
        except (ValueError, TypeError, KeyError):
            return False

    @classmethod
    def parse(cls: Type[_Settings], line: bytes) -> Tuple[_Settings, str]:
        """The first line back into settings and secret.

        Raises:
            SettingsInvalid: PUMP_SETTINGS; never repeats the line, it holds the secret.
        """
        try:
            raw = json.loads(line)
            settings = cls(**{**raw["settings"], "kind": Kind(raw["settings"]["kind"])})
            secret = str(raw["secret"])
        except (ValueError, TypeError, KeyError) as error:
            message, facts = "The settings of a pump cannot be read", {"type": type(error).__name__}
            raise SettingsInvalid(message, side=Side.SOURCE, object="pump", facts=facts) from None
        fault = settings._fault(secret)
        if fault:
            raise SettingsInvalid(fault, side=Side.SOURCE, object=settings.name)
        return settings, secret

    def _fault(self, secret: str) -> str:
        """What contradicts what; empty when nothing does."""
        return ""


@dataclass(frozen=True)
class PumpSettings(Settings):
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

    endpoint: Mapping[str, Any]
    path: str
    listen: Optional[str] = None
    input_fd: Optional[int] = None
    rate: Optional[int] = None
    sized: bool = True
    open_timeout: float = 10.0
    drain_timeout: float = 10.0
    payload: Optional[int] = None

    def _fault(self, secret: str) -> str:
        if (self.input_fd is None) == (self.listen is None):
            return "A pump needs either a socket to listen on or a descriptor to read from"
        return ""


@dataclass(frozen=True)
class PlainSettings(Settings):
    """Everything a pump to a clear-text listener of the target's QEMU must know; there is no secret.

    Attributes:
        address: IP address of the target, the one that was proven.
        port: Where its QEMU listens: for RAM for the first who comes, whoever that is.
        listen: Path of the UNIX socket for QEMU.
        local_address: The address to connect from; None leaves it to the kernel.
        rate: bytes/s, None is no limit.
        connect_timeout: Seconds for TCP.
        drain_timeout: Seconds that the target has to close after our end of the stream.
    """

    address: str
    port: int
    listen: str
    local_address: Optional[str] = None
    rate: Optional[int] = None
    connect_timeout: float = 5.0
    drain_timeout: float = 10.0
    input_fd: None = None  # nothing but QEMU's own streams travels so
    sized: bool = False

    def _fault(self, secret: str) -> str:
        return "" if self.kind in (Kind.RAM, Kind.NBD) else "Only RAM and disks travel in clear text"


@dataclass(frozen=True)
class DirectSettings(Settings):
    """Everything the source's pump of a direct transport must know, except the secret.

    The secret is a key for plane ``tcp`` (64 hex digits) and empty for ``tls``: of an opaque stream the one that the
    target has made for such, else the migration's.

    Attributes:
        plane: ``tls`` or ``tcp``: what is between the two workers.
        address: IP address of the listening end.
        peer_name: The name that its certificate must carry (``tls``).
        own_name: The name of this node; the listening end demands it.
        stream: ``control``, ``ram``, ``disk/<key>``, ``import/<key>``, from a second attempt on with ``.2``...
        credentials: Directory of the certificates (``tls``).
        listen: UNIX socket for QEMU or the worker; may instead come with the command ``open``.
        input_fd: Inherited descriptor to read from (IMPORT).
        rate: bytes/s, None is no limit.
        limits: Values of :class:`~.direct_guard.DirectLimits` that are not the default.
        peer_pid: Who alone may connect to ``listen``; None does not ask.
        local_address: The address to connect from; None leaves it to the kernel.
        opaque: QEMU encrypts what it sends (``qemu-tls``): nothing can be read in it. Over ``tcp``, for nothing is
            encrypted twice.
        proven: Clear text, over a network that was proven: each connection looks at it again (plane ``tcp``).
        sized: An import begins with its length in 8 bytes.
        open_timeout: Seconds for TCP, TLS and authentication together.
        drain_timeout: Seconds from our end of the stream to the other side's.
    """

    plane: str
    address: str
    port: int
    peer_name: str
    own_name: str
    migration_id: str
    stream: str
    credentials: Optional[str] = None
    listen: Optional[str] = None
    input_fd: Optional[int] = None
    rate: Optional[int] = None
    limits: Mapping[str, float] = field(default_factory=dict)
    peer_pid: Optional[int] = None
    local_address: Optional[str] = None
    opaque: bool = False
    proven: bool = False
    sized: bool = True
    open_timeout: float = 5.0
    drain_timeout: float = 10.0

    def _fault(self, secret: str) -> str:
        if self.kind is not kind_of(self.stream):
            return f"The stream {self.stream} does not carry {self.kind.value}"
        if (self.kind is Kind.IMPORT) != (self.input_fd is not None) or (self.input_fd is not None and self.listen):
            return "An import reads from a descriptor, everything else from a socket"
        if self.plane not in ("tls", "tcp") or (self.plane == "tls") != (self.credentials is not None):
            return "tls needs certificates, tcp has none"
        if (self.plane == "tcp") != bool(secret):
            return "tcp needs a key, tls has none"
        if self.opaque and (self.plane != "tcp" or self.kind not in OPAQUE_KINDS):
            return "QEMU encrypts RAM and disks, which then go over tcp"
        return ""
