# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""HELLO to WELCOME, both roles: who is there, and for which stream (direct-transports 5). Sans-I/O.

``tls``: the certificates have proven who is there before the first frame; HELLO, WELCOME.
``tcp``: HELLO, CHALLENGE, PROOF, WELCOME. Both prove that they know a key, the target first. What is proven is bound to
both nonces, the migration, the stream and both addresses, so it can be neither replayed nor relayed from elsewhere; it
proves the connection's start only. So there are two keys: one for the transport ``tcp``, only on a network proven
trusted, at which each side looks once more before its last word of the greeting (``network_proof``), and one for opaque
streams, which QEMU encrypts itself (``qemu-tls``). Neither opens what the other does.

Until WELCOME each side speaks in turn: anything out of turn ends the greeting. An unauthenticated peer learns no
more than that it was refused.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Any, Callable, Dict, NamedTuple, NoReturn, Optional, Tuple

from ..errors import Side
from . import wire
from .errors import GreetingRefused, NetworkChanged, WireError
from .interface import OPAQUE_KINDS, kind_of
from .wire import Frame, FrameKind

__all__ = [
    "PLANES",
    "REFUSED",
    "VERSION",
    "Addresses",
    "SourceGreeting",
    "TargetGreeting",
    "farewell",
    "is_key",
    "is_migration_id",
    "is_stream",
    "welcome",
]

VERSION = 1  # both workers come from the same payload: another one is an error, not a negotiation
PLANES = ("tls", "tcp")
REFUSED = "REFUSED"  # all that a stranger is told

_STREAM = re.compile(r"[a-z0-9]+(/[a-z0-9]+)?(\.[2-9])?")
_STREAM_LENGTH = 64
_HEX32 = re.compile(r"[0-9a-f]{32}")
_HEX64 = re.compile(r"[0-9a-f]{64}")

_LABEL = "crosscluster direct"
_SOURCE, _TARGET = "S", "T"  # who proves: a proof of one side is worth nothing from the other


class Addresses(NamedTuple):
    """Both ends of the connection, as this side's kernel names them (``[address]:port``)."""

    source: str
    target: str


def is_stream(name: str) -> bool:
    """Whether a stream may be called so: ``control``, ``ram``, ``disk/scsi0``, ``disk/scsi0.2``."""
    return len(name) <= _STREAM_LENGTH and _STREAM.fullmatch(name) is not None


def is_migration_id(text: str) -> bool:
    """Whether this is the id of a migration: 128 bits in hex."""
    return _HEX32.fullmatch(text) is not None


def is_key(text: str) -> bool:
    """Whether this is a key or a nonce: 256 bits in hex."""
    return _HEX64.fullmatch(text) is not None


class _Greeting:
    """What both roles share."""

    def __init__(self, plane: str, migration_id: str, keys: Tuple[str, ...], addresses: Addresses, nonce: str) -> None:
        if plane not in PLANES or not is_migration_id(migration_id) or not is_key(nonce):
            raise ValueError("plane, migration id or nonce")  # before any byte: our bug
        if (plane == "tcp") != any(keys) or not all(is_key(key) for key in keys if key):
            raise ValueError("a key is for tcp, and tcp needs one")
        self._authenticates = plane == "tcp"
        self._migration_id = migration_id
        self._key = b""
        self._addresses = addresses
        self._nonce = nonce
        self._peer_nonce = ""
        self._expected: Optional[FrameKind] = None
        self.stream = ""
        self.opaque = False
        self.done = False

    def _mac(self, role: str, source_nonce: str, target_nonce: str) -> str:
        # No field can hold a newline: hex, a checked name, numbers, addresses.
        fields = (
            _LABEL, str(VERSION), role, source_nonce, target_nonce, self._migration_id, self.stream,
            "opaque" if self.opaque else "clear", *self._addresses,
        )  # fmt: skip
        return hmac.new(self._key, "\n".join(fields).encode(), hashlib.sha256).hexdigest()


class SourceGreeting(_Greeting):
    """The connecting side: send :meth:`hello`, then give it every frame until :attr:`done`.

    Args:
        plane: ``tls`` or ``tcp``.
        migration_id: 32 hex digits.
        stream: What the connection is to carry.
        key: 64 hex digits for ``tcp``, empty for ``tls``.
        addresses: Both ends as this side sees them.
        nonce: 64 random hex digits, never used before.
        opaque: QEMU encrypts what is carried, and ``key`` is the one for that.
    """

    def __init__(
        self,
        plane: str,
        migration_id: str,
        stream: str,
        key: str,
        addresses: Addresses,
        nonce: str,
        opaque: bool = False,
    ) -> None:
        super().__init__(plane, migration_id, (key,), addresses, nonce)
        if not is_stream(stream) or (opaque and not (key and _may_be_opaque(stream))):
            raise ValueError("name of the stream")
        self._key = bytes.fromhex(key)
        self.stream = stream
        self.opaque = opaque
        self._expected = FrameKind.CHALLENGE if self._authenticates else FrameKind.WELCOME

    def hello(self) -> bytes:
        """The first bytes of the connection."""
        fields: Dict[str, Any] = {
            "v": VERSION, "mid": self._migration_id, "stream": self.stream, "nonce": self._nonce, "opaque": self.opaque
        }  # fmt: skip
        return wire.message(FrameKind.HELLO, fields)

    def receive(self, frame: Frame) -> bytes:
        """Take the next frame; returns what to send now.

        Raises:
            GreetingRefused: GREETING_REFUSED, by the target or by us: it does not know the key.
            NetworkChanged: NETWORK_CHANGED, by the target: its network is not as it was proven.
            WireError: WIRE_INVALID.
        """
        expected, self._expected = self._expected, None  # whatever is wrong ends the greeting
        if expected is None:
            raise _out_of_turn(frame)
        if frame.kind is FrameKind.ABORT:
            fields = frame.fields
            code, text = wire.printable(str(fields.get("code")))[:64], wire.printable(str(fields.get("text", "")))
            message = f"The target worker refused the stream {self.stream}: {code} {text}".strip()
            if code == NetworkChanged.code:
                raise NetworkChanged(message, side=Side.TARGET, object=self.stream)
            raise self._refused(message, code)
        if frame.kind is not expected:
            raise _out_of_turn(frame)
        if frame.kind is FrameKind.CHALLENGE:
            return self._prove(frame.fields)
        if frame.fields.get("v") != VERSION:
            raise self._refused("The target worker speaks another version of the protocol", "VERSION")
        self.done = True
        return b""

    def _prove(self, fields: Dict[str, Any]) -> bytes:
        nonce, mac = fields.get("nonce"), fields.get("mac")
        if not isinstance(nonce, str) or not is_key(nonce) or not isinstance(mac, str) or not is_key(mac):
            raise WireError("The target worker sent a damaged CHALLENGE", side=Side.TARGET, object=self.stream)
        if nonce == self._nonce or not hmac.compare_digest(mac, self._mac(_TARGET, self._nonce, nonce)):
            raise self._refused(
                "Who listens on the target does not know the key of this migration, or addresses are translated on "
                "the way to it",
                "KEY",
            )
        self._expected = FrameKind.WELCOME
        return wire.message(FrameKind.PROOF, {"mac": self._mac(_SOURCE, self._nonce, nonce)})

    def _refused(self, message: str, code: str) -> GreetingRefused:
        return GreetingRefused(
            message,
            side=Side.TARGET,
            object=self.stream,
            remedy="See that incoming was started on the target for this migration, and look at its log",
            facts={"refusal": code},
        )


class TargetGreeting(_Greeting):
    """The listening side: give it every frame until :attr:`done`; then :attr:`stream` is authenticated.

    Args:
        plane: ``tls`` or ``tcp``.
        migration_id: The one migration that is expected, 32 hex digits.
        key: 64 hex digits for ``tcp``; empty for ``tls``, and where only opaque streams may come in the clear.
        addresses: Both ends as this side sees them.
        nonce: 64 random hex digits, never used before.
        may_open: Asked once, of an authenticated peer only: None when the stream may stand now (each stream once,
            the answer counts as taken), else why not, for the user on the other side.
        opaque_key: The same as ``key`` for streams that QEMU encrypts, RAM and disks; empty when there are none.
        holds_welcome: Of a stream in the clear somebody else sends :func:`welcome` when it is time, or an ABORT.

    Attributes:
        opaque: Authenticated with ``opaque_key``: nothing but QEMU's own TLS may flow.
    """

    def __init__(
        self,
        plane: str,
        migration_id: str,
        key: str,
        addresses: Addresses,
        nonce: str,
        may_open: Callable[[str], Optional[str]],
        opaque_key: str = "",
        holds_welcome: bool = False,
    ) -> None:
        super().__init__(plane, migration_id, (key, opaque_key), addresses, nonce)
        self._keys = {False: key, True: opaque_key}
        self._may_open = may_open
        self._holds_welcome = holds_welcome
        self._expected = FrameKind.HELLO

    def receive(self, frame: Frame) -> bytes:
        """Take the next frame; returns what to send now.

        Raises:
            GreetingRefused: GREETING_REFUSED; send :func:`farewell` of it, then close.
            WireError: WIRE_INVALID; the same.
        """
        expected, self._expected = self._expected, None  # whatever is wrong ends the greeting
        if frame.kind is FrameKind.ABORT and self._peer_nonce:
            _refuse(f"by the peer itself, {wire.printable(str(frame.fields.get('text')))}")
        if frame.kind is not expected:
            raise _out_of_turn(frame)
        if frame.kind is FrameKind.PROOF:
            return self._check(frame.fields)
        self._peer_nonce = self._read_hello(frame.fields)
        if not self._authenticates:
            return self._welcome()
        self._expected = FrameKind.PROOF
        mac = self._mac(_TARGET, self._peer_nonce, self._nonce)
        return wire.message(FrameKind.CHALLENGE, {"nonce": self._nonce, "mac": mac})

    def _read_hello(self, fields: Dict[str, Any]) -> str:
        mid, stream, nonce = fields.get("mid"), fields.get("stream"), fields.get("nonce")
        opaque = fields.get("opaque", False)
        if not isinstance(nonce, str) or not is_key(nonce) or not isinstance(stream, str) or not is_stream(stream):
            _refuse("a damaged HELLO")
        if not isinstance(opaque, bool) or (opaque and not _may_be_opaque(stream)):
            _refuse("a damaged HELLO")
        if not isinstance(mid, str) or not is_migration_id(mid) or not hmac.compare_digest(mid, self._migration_id):
            _refuse("a HELLO for another migration")
        if fields.get("v") != VERSION:
            _refuse("a HELLO in another version of the protocol", "VERSION" if not self._authenticates else REFUSED)
        if (self._authenticates or opaque) and not self._keys[opaque]:
            _refuse(f"the stream {stream} in the clear")
        self.stream, self.opaque = stream, opaque
        self._key = bytes.fromhex(self._keys[opaque])
        return nonce

    def _check(self, fields: Dict[str, Any]) -> bytes:
        mac = fields.get("mac")
        wanted = self._mac(_SOURCE, self._peer_nonce, self._nonce)
        if not isinstance(mac, str) or not is_key(mac) or not hmac.compare_digest(mac, wanted):
            _refuse("a peer that does not know the key")
        return self._welcome()

    def _welcome(self) -> bytes:
        reason = self._may_open(self.stream)
        if reason is not None:
            _refuse(f"the stream {self.stream}: {reason}", "STREAM_REFUSED", reason)
        self.done = True
        return b"" if self._holds_welcome and not self.opaque else welcome()


def welcome() -> bytes:
    """The WELCOME of a stream that may stand."""
    return wire.message(FrameKind.WELCOME, {"v": VERSION})


def _may_be_opaque(stream: str) -> bool:
    return kind_of(stream) in OPAQUE_KINDS


def farewell(error: Exception) -> bytes:
    """The ABORT that a refused peer gets; nothing but a code unless it is authenticated."""
    facts = error.facts if isinstance(error, GreetingRefused) else {}
    return wire.abort(str(facts.get("refusal", REFUSED)), str(facts.get("told", "")))


def _refuse(what: str, code: str = REFUSED, told: str = "") -> NoReturn:
    message = f"The connection was refused: {what}"
    raise GreetingRefused(message, side=Side.SOURCE, object="incoming", facts={"refusal": code, "told": told})


def _out_of_turn(frame: Frame) -> WireError:
    return WireError(f"The connection carries a {frame.kind.name} out of turn", side=Side.TARGET, object="greeting")
