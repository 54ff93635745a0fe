# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""Errors of the room ``websocket``.

::

    WebsocketError
     +-- FrameInvalid        FRAME_INVALID         the server's bytes are no frame it may send
     +-- FrameUnsendable     FRAME_UNSENDABLE      we tried to send what the server must never see (our bug)
     +-- HandshakeInvalid    HANDSHAKE_INVALID     the answer to the upgrade is not HTTP, or not for us
     +-- UpgradeRefused      UPGRADE_REFUSED       the server answered the upgrade with another status
     +-- ConnectFailed       CONNECT_FAILED        no TCP or TLS connection; nothing of the application was sent
     +-- ConnectTimeout      CONNECT_TIMEOUT       the same, by deadline
     +-- StreamLost          STREAM_LOST           an established connection broke
"""

from __future__ import annotations

from typing import Any

from ..errors import CrossclusterError, Side

__all__ = [
    "ConnectFailed",
    "ConnectTimeout",
    "FrameInvalid",
    "FrameUnsendable",
    "HandshakeInvalid",
    "StreamLost",
    "UpgradeRefused",
    "WebsocketError",
]


class WebsocketError(CrossclusterError):
    """Base class of the room; the object is ``host:port`` or the word ``websocket``."""

    code = "WEBSOCKET"

    def __init__(self, message: str, *, side: Side = Side.TARGET, object: str = "websocket", **keywords: Any) -> None:
        super().__init__(message, side=side, object=object, **keywords)


class FrameInvalid(WebsocketError):
    """The peer broke the frame rules of mtunnel-protocol 3.5."""

    code = "FRAME_INVALID"


class FrameUnsendable(WebsocketError):
    """We were about to break the frame rules of mtunnel-protocol 3.4."""

    code = "FRAME_UNSENDABLE"


class HandshakeInvalid(WebsocketError):
    """The answer to the upgrade request cannot be read or does not belong to our key."""

    code = "HANDSHAKE_INVALID"


class UpgradeRefused(WebsocketError):
    """The server answered the upgrade with a status other than 101.

    Attributes:
        status: HTTP status.
        reason: Reason phrase, cleaned and cut.
        body: Beginning of the body, cleaned and cut.
    """

    code = "UPGRADE_REFUSED"

    def __init__(self, status: int, reason: str, body: str, *, object: str = "websocket", remedy: str = "") -> None:
        detail = f"{reason}: {body}" if body and body != reason else reason
        super().__init__(
            f"the target refused the websocket with HTTP {status} {detail}".rstrip(),
            object=object,
            remedy=remedy,
            facts={"status": status, "reason": reason},
        )
        self.status = status
        self.reason = reason
        self.body = body


class ConnectFailed(WebsocketError):
    """No connection; not one application byte was sent."""

    code = "CONNECT_FAILED"


class ConnectTimeout(ConnectFailed):
    """No connection before the deadline."""

    code = "CONNECT_TIMEOUT"


class StreamLost(WebsocketError):
    """An established connection broke."""

    code = "STREAM_LOST"
