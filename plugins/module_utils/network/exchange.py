# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""Nonce, answer, proof: what two nodes say to each other to learn whose addresses arrive at whose end (checks 5, 6).

Sans-I/O: lines in, lines out; datagrams likewise. Over TCP the asking side says a nonce; the answering side says its
own, which address it saw, on which it was reached, and proves with the key of this run that it is the peer; the asking
side proves the same. Over UDP a datagram comes back as large as it was sent, if its tag fits.

Both names are part of every proof: otherwise whoever stands between could send a node's own answers back to it, since
both nodes answer with the same key.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import struct
from typing import Any, Dict, List, Mapping, Optional, Tuple

from .errors import ExchangeBroken, NetworkInvalid
from .evidence import Conversation

__all__ = ["MAX_LINE", "SMALLEST_ECHO", "Answerer", "Asker", "echo_key", "echo_packet", "echo_sequence", "parse_key"]

MAX_LINE = 1024  # bytes; the longest line of ours has about 300
_NONCE = re.compile(r"[0-9a-f]{64}", re.ASCII)
_KEY = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_HEAD = struct.Struct(">4sBI")
_MARK = b"CCn1"
_TAG = 16
SMALLEST_ECHO = _HEAD.size + _TAG
ASK, ANSWER = 1, 2
End = Tuple[str, int]


def parse_key(text: Any) -> bytes:
    """256 bits as hexadecimal digits; the value is never part of the error.

    Raises:
        NetworkInvalid: NETWORK_INVALID.
    """
    if not isinstance(text, str) or not _KEY.fullmatch(text):
        raise NetworkInvalid(
            "the key must be 64 hexadecimal digits", object="key", remedy="Draw a new one for each run."
        )
    return bytes.fromhex(text)


class Asker:
    """The side that dials.

    Args:
        key: The key of this run.
        own, peer: The names of the nodes, the same on both sides.
        nonce: 64 random hexadecimal digits, never used before.
        local, remote: Both ends of the connection, as our kernel says.
    """

    def __init__(self, key: bytes, own: str, peer: str, nonce: str, local: End, remote: End) -> None:
        self._key, self._own, self._peer, self._nonce = key, own, peer, nonce
        self._local, self._remote = local, remote

    def hello(self) -> bytes:
        """The first line."""
        return _line({"nonce": self._nonce})

    def take(self, line: bytes) -> Tuple[Conversation, bytes]:
        """What the answer means, and the line to send back (empty when the other end has not the key).

        Raises:
            ExchangeBroken: EXCHANGE_BROKEN.
        """
        raw = _object(line)
        nonce, seen, answered = _nonce(raw), _end(raw, "seen"), _end(raw, "local")
        expected = _proof(self._key, "answer", self._peer, self._own, [self._nonce, nonce, seen, answered])
        proven = hmac.compare_digest(expected, str(raw.get("proof")).encode())
        talk = Conversation("", proven, self._local, self._remote, seen, answered)
        if not proven:
            return talk, b""
        proof = _proof(self._key, "ask", self._own, self._peer, [self._nonce, nonce, self._local, self._remote])
        return talk, _line({"proof": proof.decode(), "local": self._local, "remote": self._remote})


class Answerer:
    """The side that listens; arguments as those of :class:`Asker`."""

    def __init__(self, key: bytes, own: str, peer: str, nonce: str, local: End, remote: End) -> None:
        self._key, self._own, self._peer, self._nonce = key, own, peer, nonce
        self._local, self._remote = local, remote
        self._theirs: Optional[str] = None
        self.proven = False

    def take(self, line: bytes) -> bytes:
        """The line to send back: to the nonce an answer, to the proof a last word; empty: close.

        Raises:
            ExchangeBroken: EXCHANGE_BROKEN.
        """
        raw = _object(line)
        if self._theirs is None:
            self._theirs = _nonce(raw)
            parts = [self._theirs, self._nonce, self._remote, self._local]
            proof = _proof(self._key, "answer", self._own, self._peer, parts)
            return _line(
                {"nonce": self._nonce, "seen": self._remote, "local": self._local, "proof": proof.decode()},
            )
        parts = [self._theirs, self._nonce, _end(raw, "local"), _end(raw, "remote")]
        expected = _proof(self._key, "ask", self._peer, self._own, parts)
        self.proven = hmac.compare_digest(expected, str(raw.get("proof")).encode())
        return _line({"done": True}) if self.proven else b""


def echo_key(key: bytes, asker: str, answerer: str) -> bytes:
    """The key of the datagrams of one direction."""
    return hmac.new(key, json.dumps(["echo", asker, answerer]).encode(), hashlib.sha256).digest()


def echo_packet(key: bytes, kind: int, sequence: int, size: int) -> bytes:
    """A datagram of ``size`` bytes, at least :data:`SMALLEST_ECHO`."""
    body = _HEAD.pack(_MARK, kind, sequence) + bytes(max(0, size - SMALLEST_ECHO))
    return body + hmac.new(key, body, hashlib.sha256).digest()[:_TAG]


def echo_sequence(key: bytes, kind: int, packet: bytes) -> Optional[int]:
    """The number of a datagram of ours, None for anything else."""
    if len(packet) < SMALLEST_ECHO:
        return None
    body, tag = packet[:-_TAG], packet[-_TAG:]
    mark, found, sequence = _HEAD.unpack_from(body)
    if (
        mark != _MARK
        or found != kind
        or not hmac.compare_digest(tag, hmac.new(key, body, hashlib.sha256).digest()[:_TAG])
    ):
        return None
    return int(sequence)


def _proof(key: bytes, word: str, speaker: str, listener: str, parts: List[Any]) -> bytes:
    message = json.dumps([word, speaker, listener, *parts], separators=(",", ":")).encode()
    return hmac.new(key, message, hashlib.sha256).hexdigest().encode()


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _object(line: bytes) -> Dict[str, Any]:
    try:
        value = json.loads(line.decode("ascii")) if len(line) <= MAX_LINE else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _broken("no line of this protocol")
    return value


def _nonce(raw: Mapping[str, Any]) -> str:
    value = raw.get("nonce")
    if not isinstance(value, str) or not _NONCE.fullmatch(value):
        raise _broken("no nonce")
    return value


def _end(raw: Mapping[str, Any], key: str) -> End:
    value = raw.get(key)
    if not isinstance(value, list) or len(value) != 2:
        raise _broken(f"no {key}")
    address, port = value
    if not isinstance(address, str) or len(address) > 64 or not address.isprintable():
        raise _broken(f"no {key}")
    if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 65536:
        raise _broken(f"no {key}")
    return address, port


def _broken(what: str) -> ExchangeBroken:
    return ExchangeBroken(
        f"the other end of the probe sent {what}",
        object="probe",
        remedy="Something else answers on that port: look at what listens there, and at proxies on the way.",
    )
