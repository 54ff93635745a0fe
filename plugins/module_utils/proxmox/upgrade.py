# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""A websocket of the target's API, opened: TLS, the certificate checked, the upgrade answered. An edge file.

Control channel and byte streams begin the same way; pumps import this and little else.
"""

from __future__ import annotations

import select
from typing import Callable, Tuple

from ..websocket import handshake
from ..websocket.errors import ConnectTimeout
from ..websocket.tls_stream import TlsStream
from .endpoint import Endpoint

__all__ = ["open_websocket", "wait"]


def open_websocket(
    endpoint: Endpoint, secret: str, path: str, deadline: float, clock: Callable[[], float]
) -> Tuple[TlsStream, bytes]:
    """A websocket to ``path`` and the first bytes that came after the 101.

    A dead socket behind the path never answers (mtunnel-protocol 3.3): the deadline (on ``clock``, seconds) is all
    there is against it.
    """
    stream = TlsStream.open(
        endpoint.host,
        endpoint.port,
        endpoint.tls_context(),
        endpoint.check_certificate,
        deadline,
        clock,
        endpoint.server_hostname,
    )
    try:
        request, key = handshake.request(
            endpoint.host, endpoint.port, path, {"Authorization": endpoint.authorization(secret)}
        )
        stream.write(request)
        return stream, _upgraded(stream, handshake.Response(key), deadline, clock)
    except BaseException:
        stream.abort()
        raise


def _upgraded(stream: TlsStream, response: handshake.Response, deadline: float, clock: Callable[[], float]) -> bytes:
    while True:
        flushed = stream.flush()
        data = stream.read()
        if data:
            rest = response.receive(data)
            if rest is not None:
                return rest
        elif data == b"":
            response.eof()
        elif not wait(stream, flushed, deadline - clock()):
            raise ConnectTimeout(f"{stream.name} did not answer the upgrade to a websocket in time", object=stream.name)


def wait(stream: TlsStream, flushed: bool, left: float) -> bool:
    """False when ``left`` seconds passed without anything to do."""
    if left <= 0:
        return False
    poller = select.poll()
    poller.register(stream.fileno(), select.POLLIN if flushed else select.POLLIN | select.POLLOUT)
    return bool(poller.poll(max(1, int(left * 1000))))
