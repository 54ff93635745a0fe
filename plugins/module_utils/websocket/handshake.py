# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The HTTP upgrade to a websocket (RFC 6455 section 4), client side: bytes in, bytes out."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from typing import Dict, Mapping, Optional, Tuple

from .errors import HandshakeInvalid, UpgradeRefused

__all__ = ["Response", "accept_value", "request"]

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_MAX_HEAD = 16384
_MAX_BODY = 4096
_SHOWN_BODY = 300
_STATUS_LINE = re.compile(r"HTTP/1\.[01] ([1-9][0-9]{2})(?: ([^\r\n]*))?")


def request(
    host: str, port: int, target_path: str, headers: Mapping[str, str], nonce: Optional[bytes] = None
) -> Tuple[bytes, str]:
    """The upgrade request and the key to check the answer with.

    Args:
        host: Name or address for the ``Host`` header.
        port: TCP port.
        target_path: Path with query, already percent-encoded.
        headers: More headers, e.g. ``Authorization``.
        nonce: 16 bytes; random when None.
    """
    key = base64.b64encode(secrets.token_bytes(16) if nonce is None else nonce).decode("ascii")
    name = f"[{host}]" if ":" in host else host
    # mtunnel-protocol 3.3: no subprotocol header; whatever is sent would only be echoed.
    lines = {
        "Host": f"{name}:{port}",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": key,
    }
    lines.update(headers)
    for text in (target_path, *lines.values()):
        if not text.isascii() or any(ord(char) < 32 for char in text) or (text is target_path and " " in text):
            raise HandshakeInvalid("a value of the upgrade request has characters that HTTP does not allow")
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"GET {target_path} HTTP/1.1\r\n{head}\r\n".encode("ascii"), key


def accept_value(key: str) -> str:
    """What ``Sec-WebSocket-Accept`` must be for a key."""
    return base64.b64encode(hashlib.sha1((key + _GUID).encode("ascii"), usedforsecurity=False).digest()).decode("ascii")


class Response:
    """The server's answer; feed it until :meth:`receive` returns bytes."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._buffer = bytearray()

    def receive(self, data: bytes) -> Optional[bytes]:
        """None until the 101 is complete; then the bytes after it. Raises UpgradeRefused for another status."""
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > _MAX_HEAD:
                raise HandshakeInvalid(f"the answer to the upgrade has more than {_MAX_HEAD} bytes of headers")
            return None
        status, reason, headers = self._head(end)
        rest = bytes(self._buffer[end + 4 :])
        if status == 101:
            self._check(headers)
            return rest
        if len(rest) < self._body_length(headers):
            return None
        raise self._refused(status, reason, rest)

    def eof(self) -> None:
        """The server closed before 101: always raises."""
        end = self._buffer.find(b"\r\n\r\n")
        if end >= 0:
            status, reason, _headers = self._head(end)
            if status != 101:
                raise self._refused(status, reason, bytes(self._buffer[end + 4 :]))
        raise HandshakeInvalid("the target closed the connection without an answer to the upgrade")

    def _head(self, end: int) -> Tuple[int, str, Dict[str, str]]:
        first, *lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        found = _STATUS_LINE.fullmatch(first)
        if not found:
            raise HandshakeInvalid("the answer to the upgrade is not HTTP")
        headers: Dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon or not name.strip():
                raise HandshakeInvalid("the answer to the upgrade has a malformed header")
            headers[name.strip().lower()] = value.strip()
        return int(found.group(1)), _clean(found.group(2) or ""), headers

    def _check(self, headers: Mapping[str, str]) -> None:
        if headers.get("upgrade", "").lower() != "websocket":
            raise HandshakeInvalid("the target answered 101 but did not upgrade to a websocket")
        if headers.get("sec-websocket-accept") != accept_value(self._key):
            raise HandshakeInvalid("the 101 of the target does not belong to our key")
        # mtunnel-protocol 3.3: no extensions; one we did not ask for changes the meaning of frames.
        if "sec-websocket-extensions" in headers:
            raise HandshakeInvalid("the target wants a websocket extension that was not asked for")

    @staticmethod
    def _body_length(headers: Mapping[str, str]) -> int:
        """Bytes of body worth waiting for; without a length all until EOF, cut at the limit."""
        text = headers.get("content-length", "")
        return min(int(text), _MAX_BODY) if text.isdecimal() and text.isascii() and len(text) < 10 else _MAX_BODY

    @staticmethod
    def _refused(status: int, reason: str, body: bytes) -> UpgradeRefused:
        return UpgradeRefused(status, reason, _clean(body[:_SHOWN_BODY].decode("utf-8", "replace")))


def _clean(text: str) -> str:
    """Printable, on one line, cut."""
    return "".join(char if char.isprintable() else " " for char in text).strip()[:_SHOWN_BODY]
