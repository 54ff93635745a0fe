# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""A connection that nobody knows yet: from its first byte to WELCOME, or to the door. Sans-I/O.

Served in the loop of the listening end, beside others like it, without a process of its own (direct-transports 7).
"""

from __future__ import annotations

import contextlib
import ssl
from typing import Callable, List, Optional, Tuple

from ..errors import Side
from .errors import GreetingRefused, TlsFailed, TransportError
from .handshake import TargetGreeting, farewell
from .tls import Handshake
from .wire import MAX_DATA, Decoder, abort

__all__ = ["Newcomer"]

_TLS_RECORD = 0x16  # RFC 8446 5.1: the first byte of a ClientHello; no frame of ours begins so
_READ = 65536


class Newcomer:
    """One connection; give it what arrives, send what it gives, also after it has raised.

    Args:
        planes: What may be between the two workers; the first byte shows what the peer has chosen of it.
        handshake: Makes the TLS side, for ``tls``.
        greeting: Makes the greeting of a plane.

    Attributes:
        plane: Which of the planes it is; empty before the first byte.
        handshake: The TLS side, None on ``tcp``.
    """

    def __init__(
        self, planes: Tuple[str, ...], handshake: Callable[[], Handshake], greeting: Callable[[str], TargetGreeting]
    ) -> None:
        self._planes = planes
        self._make_handshake = handshake
        self._make_greeting = greeting
        self.plane = ""
        self.handshake: Optional[Handshake] = None
        self._greeting: Optional[TargetGreeting] = None
        self._decoder: Optional[Decoder] = None
        self._secured = False
        self._out: List[bytes] = []

    @property
    def stream(self) -> str:
        """What it carries once it is known; empty before."""
        return self._greeting.stream if self._greeting is not None and self._greeting.done else ""

    @property
    def opaque(self) -> bool:
        """Whether nothing but QEMU's own TLS may flow in it."""
        return self._greeting is not None and self._greeting.opaque

    def to_send(self) -> bytes:
        """Bytes for the peer."""
        data = b"".join(self._out)
        self._out.clear()
        return data

    def receive(self, data: bytes) -> None:
        """Take bytes of the peer.

        Raises:
            TransportError: It is refused: send what :meth:`to_send` gives, it says why, then close.
        """
        if not self.plane:
            self._begin(data[0])
        try:
            if self.handshake is None:
                self._take(data)
            else:
                self._take_secured(self.handshake, data)
        except TransportError as error:
            self._say_farewell(error)
            raise

    def _begin(self, first: int) -> None:
        plane = "tls" if first == _TLS_RECORD else "tcp"
        if plane not in self._planes:
            raise GreetingRefused(
                f"The connection was refused: {plane} is not spoken here", side=Side.SOURCE, object="incoming"
            )
        self.plane = plane
        if plane == "tls":
            self.handshake = self._make_handshake()
        self._decoder = Decoder(MAX_DATA[plane])
        self._greeting = self._make_greeting(plane)

    def _take_secured(self, handshake: Handshake, data: bytes) -> None:
        handshake.receive(data)
        try:
            if not self._secured:
                self._secured = handshake.advance()
            while self._secured:
                # Read before waiting: HELLO may have come with the last bytes of the handshake (10.1, row 4).
                data = handshake.tls.read(_READ)
                if not data:  # a close notify, and it would be read for ever
                    raise handshake.failure(ssl.SSLZeroReturnError())
                self._take(data)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            raise handshake.failure(error) from error
        finally:
            self._out.append(handshake.to_send())

    def _take(self, data: bytes) -> None:
        """Frames in the clear."""
        if self._decoder is None or self._greeting is None:
            raise ValueError("it has not begun")
        for frame in self._decoder.receive(data):
            answer = self._greeting.receive(frame)
            if answer:
                self._say(answer)

    def _say(self, data: bytes) -> None:
        if self.handshake is None:
            self._out.append(data)
            return
        self.handshake.tls.write(data)
        self._out.append(self.handshake.to_send())

    def _say_farewell(self, error: TransportError) -> None:
        """In words where a peer is there to hear them; OpenSSL has a way of its own to refuse a certificate."""
        if self.handshake is None:
            self._say(farewell(error))
        elif self._secured:
            self._say_last(self.handshake, farewell(error))
        elif isinstance(error, TlsFailed) and self.handshake.stands:
            # TLS has let it pass and we do not: the peer, who is of our CA, would else see a connection that just ends.
            self._say_last(self.handshake, abort(error.code, error.message))

    def _say_last(self, handshake: Handshake, data: bytes) -> None:
        """With a close notify behind it: an end without one looks like a cut."""
        with contextlib.suppress(ssl.SSLError):  # it waits for the peer's, we do not
            self._say(data)
            handshake.tls.unwrap()
        self._out.append(handshake.to_send())
