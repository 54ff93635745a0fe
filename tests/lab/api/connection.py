# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One client connection of the front end: TLS, HTTP, then a websocket (mtunnel-protocol 3.3 to 3.5).

Own TLS over MemoryBIO, because the ends matter: no close_notify, half-closed TCP, resets, silence.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import socket
import ssl
import struct
import time
from typing import TYPE_CHECKING, Any, Dict, List, Optional
from urllib.parse import parse_qs

from lab import faults

from .backend import READ, Backend, stream_kind
from .http import Answer, BadRequest, Request, encode, head_end, parse_head
from .websocket import BadFrame, Frame, FrameReader, Opcode, accept_key, frame, frames

if TYPE_CHECKING:
    from .frontend import Worker

__all__ = ["Connection", "Mode"]

log = logging.getLogger("pveproxy")
KEEP_ALIVE = 15.0  # seconds a connection may wait for its next request


class Mode(enum.Enum):
    """What a client connection is doing."""

    HANDSHAKE = "tls handshake"
    HTTP = "waiting for a request"
    BUSY = "request being answered"
    WEBSOCKET = "websocket"
    STALLED = "hangs for ever"
    CLOSED = "closed"


class Connection(asyncio.Protocol):
    """One TCP connection of a client."""

    def __init__(self, worker: "Worker") -> None:
        self.worker = worker
        self.mode = Mode.HANDSHAKE
        self.transport: asyncio.Transport
        self.tls: Optional[ssl.SSLObject] = None
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.buffer = b""
        self.reader = FrameReader()
        self.backend: Optional[Backend] = None
        self.closing_frame = False
        self.write_ended = False
        self.kind = ""
        self.facts: Dict[str, Any] = {}
        self.held_in: List[bytes] = []
        self.held_out: List[bytes] = []
        self.finish_held = False
        self.eof_held = False
        self.idle: Optional[asyncio.TimerHandle] = None

    @property
    def proxying(self) -> bool:
        """Whether the websocket is up."""
        return self.mode is Mode.WEBSOCKET

    # -- TCP and TLS ------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.transport.set_write_buffer_limits(high=1 << 40)
        self.worker.connections.add(self)

    def connection_lost(self, exc: Optional[Exception]) -> None:
        self.mode = Mode.CLOSED
        self.worker.connections.discard(self)
        if self.idle:
            self.idle.cancel()
        backend = self.backend
        if backend is None:
            return
        if self.worker.silence(self) == "both":
            self.worker.ghosts.add(self)  # a dead network would not have told about the end either
            return
        self._bury(backend)

    def _bury(self, backend: Backend) -> None:
        self.worker.stats.ended(self.summary())
        if self.closing_frame and backend.queue:
            self.worker.lingering.add(backend)  # a close frame came: what it closed is still passed on
        else:
            backend.close()

    def data_received(self, data: bytes) -> None:
        if self.mode is Mode.WEBSOCKET and self.worker.silence(self) == "both":
            self.held_in.append(data)
            return
        if self.tls is None and not self._begin_tls(data):
            return
        self.incoming.write(data)
        self._read_tls()

    def _begin_tls(self, data: bytes) -> bool:
        if data[:1] != b"\x16":
            self._redirect(data)
            return False
        self.tls = self.worker.context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        return True

    def _redirect(self, data: bytes) -> None:
        """Plain HTTP on the TLS port."""
        host = next(
            (line[5:].strip() for line in data.decode("latin-1").split("\r\n") if line.lower().startswith("host:")),
            "localhost",
        )
        words = data.decode("latin-1").split(" ")
        path = words[1] if len(words) > 1 else "/"
        answer = Answer(301, "Moved Permanently", b"", None, {"Location": "https://%s%s" % (host, path)})
        self.transport.write(encode(answer, False))
        self.transport.close()

    def _read_tls(self) -> None:
        assert self.tls is not None
        try:
            if self.mode is Mode.HANDSHAKE:
                self.tls.do_handshake()
                self.mode = Mode.HTTP
            while True:
                data = self.tls.read(READ)
                if not data:
                    self._client_ended()
                    break
                self._plain(data)
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            self._client_ended()
        except ssl.SSLError as error:
            log.info("tls: %s", error)
            self._push()
            self.transport.close()
            return
        self._push()

    def _push(self) -> None:
        data = self.outgoing.read()
        if data and not self.transport.is_closing() and not self.write_ended:
            self.transport.write(data)

    def _write(self, data: bytes) -> None:
        if self.tls is None or self.transport.is_closing() or self.write_ended:
            return
        self.tls.write(data)
        self._push()

    def eof_received(self) -> bool:
        if self.mode is Mode.WEBSOCKET and self.worker.silence(self) == "both":
            self.eof_held = True
            return True
        self._client_ended()
        return False

    def _client_ended(self) -> None:
        """FIN or close_notify of the client: without a close frame before it, what is queued is lost."""
        self.held_in.clear()
        self.transport.close()

    def _plain(self, data: bytes) -> None:
        if self.mode in (Mode.HTTP, Mode.BUSY):
            self.buffer += data
            if self.mode is Mode.HTTP:
                self._next_request()
        elif self.mode is Mode.WEBSOCKET:
            self._frames(data)

    # -- HTTP -------------------------------------------------------------------------------------------------------

    def _next_request(self) -> None:
        if self.idle:
            self.idle.cancel()
            self.idle = None
        try:
            end = head_end(self.buffer)
            if end is None:
                return
            request, length = parse_head(self.buffer[: end - 2])
        except BadRequest as error:
            self._answer(Answer(error.status, error.reason, (error.reason + "\n").encode(), None), False)
            return
        if len(self.buffer) < end + length:
            return
        request.body = self.buffer[end : end + length]
        self.buffer = self.buffer[end + length :]
        self.mode = Mode.BUSY
        self.worker.keep(self._serve(request))

    async def _serve(self, request: Request) -> None:
        answer = await self.worker.ask(request)
        if self.mode is not Mode.BUSY:
            return
        if answer is None or self._unanswered(request):
            self.transport.close()
        elif request.upgrade and answer.status == 200:
            self._upgrade(request)
        else:
            self._answer(answer, request.keep_alive and answer.status == 200)

    def _unanswered(self, request: Request) -> bool:
        fault = faults.find("http_no_answer")
        if not fault or fault.get("method", "POST") != request.method:
            return False
        return request.path.endswith(fault.get("path", "/mtunnel")) and faults.take("http_no_answer") is not None

    def _answer(self, answer: Answer, keep_alive: bool) -> None:
        self._write(encode(answer, keep_alive))
        if not keep_alive:
            self.transport.close()
            return
        self.mode = Mode.HTTP
        self.idle = self.worker.loop.call_later(KEEP_ALIVE, self.transport.close)
        if self.buffer:
            self._next_request()

    def _upgrade(self, request: Request) -> None:
        """101 only after the connection to the UNIX socket stands."""
        version, key = request.headers.get("sec-websocket-version", ""), request.headers.get("sec-websocket-key", "")
        refusal = ""
        if request.upgrade != "websocket":
            refusal = "unable to upgrade to protocol '%s'" % request.upgrade
        elif version != "13":
            refusal = "unsupported websocket-version '%s'" % version
        elif not key:
            refusal = "missing websocket-key"
        if refusal:
            self._answer(Answer(500, refusal, (refusal + "\n").encode(), None), False)
            return
        path = parse_qs(request.query)["socket"][0]
        self.backend = Backend(self, str(self.worker.node.path(path)))
        if not self.backend.connect():
            self.backend = None
            self.mode = Mode.STALLED
            self.worker.exception(self, "connect to 'unix/:%s' failed" % path)
            return
        self._accept(request, key, path)

    def _accept(self, request: Request, key: str, path: str) -> None:
        self.kind = stream_kind(path)
        self.worker.wake()
        self.facts = {
            "socket": path,
            "kind": self.kind,
            "from_client": 0,
            "to_client": 0,
            "pings": 0,
            "vmid": int(request.path.split("/")[-2]),
            "since": time.time(),
        }
        headers = {"Upgrade": "websocket", "Connection": "upgrade", "Sec-WebSocket-Accept": accept_key(key)}
        protocol = request.headers.get("sec-websocket-protocol")
        if protocol:
            headers["Sec-WebSocket-Protocol"] = protocol  # the whole value, unnegotiated (mtunnel-protocol 3.3)
        lines = ["HTTP/1.1 101 Switching Protocols"] + ["%s: %s" % item for item in headers.items()]
        self.mode = Mode.WEBSOCKET
        self._write(("\r\n".join(lines) + "\r\n\r\n").encode())
        rest, self.buffer = self.buffer, b""
        if rest:
            self._frames(rest)

    # -- websocket --------------------------------------------------------------------------------------------------

    def _frames(self, data: bytes) -> None:
        if self.closing_frame:
            return
        try:
            for received in self.reader.receive(data):
                self._frame(received)
        except BadFrame as error:
            self.mode = Mode.STALLED
            self.worker.exception(self, "websocket: %s" % error)

    def _frame(self, received: Frame) -> None:
        assert self.backend is not None
        if received.opcode in Opcode.DATA:
            self.facts["from_client"] += len(received.payload)
            if received.payload:
                self.backend.send(received.payload)
            self._cut_if_wanted()
        elif received.opcode == Opcode.PING:
            self.facts["pings"] += 1
            if not self.worker.pong_off(self):
                self._deliver(frame(Opcode.PONG, received.payload))
        elif received.opcode == Opcode.CLOSE:
            self._closed_by_client()

    def _closed_by_client(self) -> None:
        """Both directions are half-closed, each after what is queued for it; no close frame comes back."""
        assert self.backend is not None
        self.backend.end()
        if self.worker.silence(self):
            self.finish_held = True
        else:
            self._end_writing()
        self.closing_frame = True

    def _end_writing(self) -> None:
        """Half-close TCP without close_notify, behind what is still to be sent."""
        self.write_ended = True
        if not self.transport.is_closing():
            self.transport.write_eof()

    def _cut_if_wanted(self) -> None:
        fault = self.worker.fault("cut", self)
        due = fault is not None and self.facts["from_client"] >= int(fault.get("after_bytes", 0))
        if due and faults.take("cut", kind=self.kind, vmid=self.facts["vmid"]):
            self.reset()

    def reset(self) -> None:
        """Cut the TCP connection by RST."""
        raw = self.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def to_client(self, data: bytes) -> None:
        """Bytes of the UNIX socket; a ghost has nobody to give them to."""
        self.facts["to_client"] += len(data)
        self._deliver(frames(data, self.worker.frame_limit(self)))

    def _deliver(self, data: bytes) -> None:
        if self.held_out or self.worker.silence(self):
            self.held_out.append(data)
        else:
            self._write(data)

    def finish(self) -> None:
        """The UNIX peer is gone: what is left goes out, then TCP ends without any farewell."""
        if self.backend:
            self.backend.close()
        if self.held_out or self.worker.silence(self):
            self.finish_held = True
            return
        self.transport.close()

    def release(self) -> None:
        """Silence is over: deliver what was held, in order."""
        if self in self.worker.ghosts:
            self.worker.ghosts.discard(self)
            if self.backend:
                self._bury(self.backend)
            return
        incoming, self.held_in = self.held_in, []
        outgoing, self.held_out = self.held_out, []
        for data in outgoing:
            self._write(data)
        for data in incoming:
            self.data_received(data)
        if self.finish_held:
            self.finish_held = False
            if self.backend_alive():
                self._end_writing()
            else:
                self.finish()

        if self.eof_held:
            self._client_ended()

    def backend_alive(self) -> bool:
        """Whether the UNIX side is still there."""
        return self.backend is not None and self.backend.socket.fileno() >= 0

    def summary(self) -> Dict[str, Any]:
        """This websocket for the statistics file."""
        backend = self.backend
        queued = {"queued": backend.queued, "peak": backend.peak} if backend else {}
        return {**self.facts, **queued, "mode": self.mode.value}
