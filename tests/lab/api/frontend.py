# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One worker process of the front end: TLS, HTTP, and websockets proxied to UNIX sockets (mtunnel-protocol 3.2 to 3.6).

Own TLS over MemoryBIO, because the ends matter: no close_notify, half-closed TCP, resets, silence. The real one's vices
are kept: no back-pressure, no close frame, no ping of its own, and a bad frame or a dead socket that either kills this
process 5 s later with every connection in it, or leaves the connection hanging for ever.
"""

from __future__ import annotations

import asyncio
import base64
import enum
import json
import logging
import os
import random
import signal
import socket
import ssl
import struct
import time
from collections import deque
from typing import Any, Deque, Dict, List, Optional, Set
from urllib.parse import parse_qs

from lab import faults
from lab.node.base import Node

from .daemon import SOCKET, answer_of, late, pack
from .http import Answer, BadRequest, Request, encode, head_end, parse_head
from .personality import EventLoop, current, scaled
from .stats import StatsFile
from .websocket import BadFrame, Frame, FrameReader, Opcode, accept_key, frame, frames

__all__ = ["Worker", "stream_kind"]

log = logging.getLogger("pveproxy")
READ = 131072
DEATH_DELAY = 5.0  # seconds between the exception and the end of the process
FAULT_POLL = 0.02  # seconds a change of /run/lab-faults may take to be seen
STATS_POLL = 0.1
IDLE_POLL = 0.25  # with no websocket open
DRAIN_TICK = 0.004
BUCKET_SECONDS = 0.05  # a late event loop may catch up that much
KEEP_ALIVE = 15.0


class Mode(enum.Enum):
    """What a client connection is doing."""

    HANDSHAKE = "tls handshake"
    HTTP = "waiting for a request"
    BUSY = "request being answered"
    WEBSOCKET = "websocket"
    STALLED = "hangs for ever"
    CLOSED = "closed"


def stream_kind(path: str) -> str:
    """Which stream a socket carries, by its name (mtunnel-protocol 6.1)."""
    if path.endswith(".mtunnel"):
        return "control"
    if path.endswith("_nbd.migrate"):
        return "nbd"
    if path.endswith(".storage"):
        return "import"
    return "ram" if path.endswith(".migrate") else "other"


class Backend:
    """The UNIX socket behind a websocket, with a queue that knows no limit."""

    def __init__(self, owner: "Connection", path: str) -> None:
        self.owner = owner
        self.path = path
        self.loop = owner.worker.loop
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.queue: Deque[memoryview] = deque()
        self.queued = 0
        self.peak = 0
        self.ending = False
        self._writing = False

    def connect(self) -> bool:
        """Connect; False when nobody listens. A full backlog (second connection to .mtunnel) just waits."""
        try:
            self.socket.connect(self.path)
        except BlockingIOError:
            self.loop.call_later(0.1, self._again)
            return True
        except OSError:
            self.socket.close()
            return False
        self.loop.add_reader(self.socket, self._readable)
        return True

    def _again(self) -> None:
        if self.owner.mode is Mode.WEBSOCKET and not self.connect():
            self.owner.worker.exception(self.owner, "connect to 'unix/:%s' failed" % self.path)

    def send(self, data: bytes) -> None:
        """Queue data and write what goes."""
        self.queue.append(memoryview(data))
        self.queued += len(data)
        self.peak = max(self.peak, self.queued)
        if not self._writing:
            self.flush()

    def flush(self) -> None:
        """Write what goes now, within what the drain rate allows."""
        worker = self.owner.worker
        while self.queue:
            allowance = worker.allowance()
            if allowance <= 0:
                worker.out_of_allowance(self)
                break
            try:
                count = self.socket.send(self.queue[0][:allowance])
            except BlockingIOError:
                break
            except OSError:
                self.owner.finish()
                return
            worker.spend(count)
            self.queued -= count
            rest = self.queue[0][count:]
            if len(rest):
                self.queue[0] = rest
            else:
                self.queue.popleft()
        self._watch(bool(self.queue) and self not in worker.thirsty)

    def _watch(self, wanted: bool) -> None:
        if self.socket.fileno() < 0:
            return
        if wanted and not self._writing:
            self.loop.add_writer(self.socket, self.flush)
        elif self._writing and not wanted:
            self.loop.remove_writer(self.socket)
        self._writing = wanted
        if self.ending and not self.queue:
            self._half_close()

    def end(self) -> None:
        """After a close frame: pass on what is queued, then half-close."""
        self.ending = True
        if not self.queue:
            self._half_close()

    def _half_close(self) -> None:
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        self.ending = False

    def _readable(self) -> None:
        try:
            data = self.socket.recv(READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.owner.to_client(data)
        else:
            self.loop.remove_reader(self.socket)
            self.owner.finish()

    def close(self) -> None:
        """Drop everything; what was queued is lost."""
        if self.socket.fileno() >= 0:
            self.loop.remove_reader(self.socket)
            self.loop.remove_writer(self.socket)
            self.socket.close()
        self.queue.clear()
        self.queued = 0


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
        version = request.headers.get("sec-websocket-version", "")
        if version != "13":
            text = "unsupported websocket-version '%s'" % version
            self._answer(Answer(500, text, (text + "\n").encode(), None), False)
            return
        key = request.headers.get("sec-websocket-key")
        if not key:
            self._answer(Answer(500, "missing websocket-key", b"missing websocket-key\n", None), False)
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
        self.worker.look_for_faults()
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


class Worker:
    """One process: event loop, connections, faults in force."""

    def __init__(self, node: Node, context: ssl.SSLContext, slot: int) -> None:
        self.node = node
        self.context = context
        self.connections: Set[Connection] = set()
        self.lingering: Set[Backend] = set()
        self.ghosts: Set[Connection] = set()
        self.stats = StatsFile(node, slot)
        self.drain: Optional[float] = None
        self.loop: asyncio.AbstractEventLoop
        self._faults: List[Dict[str, Any]] = []
        self._kept: Set["asyncio.Task[None]"] = set()
        self.thirsty: Set[Backend] = set()
        self._bucket = 0.0
        self._filled = 0.0

    def run(self, listener: socket.socket) -> None:
        """Serve until killed."""
        asyncio.run(self._run(listener))

    async def _run(self, listener: socket.socket) -> None:
        self.loop = asyncio.get_running_loop()
        self.loop.add_signal_handler(signal.SIGTERM, os._exit, 0)
        server = await self.loop.create_server(lambda: Connection(self), sock=listener, backlog=128)
        self._poll_faults()
        self._poll_stats()
        async with server:
            await server.serve_forever()

    def keep(self, work: Any) -> None:
        """Run a coroutine and hold on to it."""
        task = self.loop.create_task(work)
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)

    async def ask(self, request: Request) -> Optional[Answer]:
        """The daemon's answer; None when it died over the request."""
        message = {
            "method": request.method,
            "path": request.path,
            "query": request.query,
            "headers": request.headers,
            "body": base64.b64encode(request.body).decode(),
        }
        try:
            reader, writer = await asyncio.open_unix_connection(str(self.node.path(SOCKET)))
            writer.write(pack(message))
            head = await reader.readexactly(4)
            data = await reader.readexactly(struct.unpack(">I", head)[0])
            writer.close()
        except (OSError, asyncio.IncompleteReadError):
            return None
        await self.loop.run_in_executor(None, late, request.path, request.method)
        return answer_of(json.loads(data))

    def exception(self, connection: Connection, text: str) -> None:
        """An exception in a callback: the two things the real one does about it (mtunnel-protocol 3.4)."""
        log.error("%s", text)
        if current().event_loop is EventLoop.LIBEV:
            connection.mode = Mode.STALLED
            return
        self.stats.write(self._summaries(), self.drain)
        time.sleep(scaled(DEATH_DELAY))  # nothing in this process moves any more
        log.error("worker exit")
        os._exit(255)

    # -- faults -----------------------------------------------------------------------------------------------------

    def look_for_faults(self) -> None:
        """Read the directory of faults."""
        self._faults = [fault for _, fault in faults._all(self.node.root)]
        self.drain = next((float(f["rate"]) for f in self._faults if f.get("fault") == "drain"), None)

    def _poll_faults(self) -> None:
        silent = self.ghosts | {c for c in self.connections if c.held_in or c.held_out or c.finish_held or c.eof_held}
        self.look_for_faults()
        for connection in silent:
            if not self.silence(connection):
                connection.release()
        for backend in [b for b in self.lingering if not b.queue]:
            backend.close()
            self.lingering.discard(backend)
        busy = self.lingering or self.ghosts or any(connection.backend for connection in self.connections)
        self.loop.call_later(FAULT_POLL if busy else IDLE_POLL, self._poll_faults)

    def allowance(self) -> int:
        """Bytes that may be passed on to UNIX sockets now: a bucket filled at the drain rate."""
        if self.drain is None:
            return 1 << 30
        now = time.monotonic()
        self._bucket = min(self._bucket + self.drain * (now - self._filled), self.drain * BUCKET_SECONDS)
        self._filled = now
        return int(self._bucket)

    def spend(self, count: int) -> None:
        """Take bytes out of the bucket."""
        self._bucket -= count

    def out_of_allowance(self, backend: Backend) -> None:
        """Try that one again a little later."""
        if not self.thirsty:
            self.loop.call_later(DRAIN_TICK, self._refill)
        self.thirsty.add(backend)

    def _refill(self) -> None:
        thirsty, self.thirsty = list(self.thirsty), set()
        random.shuffle(thirsty)
        for backend in thirsty:
            backend.flush()

    def fault(self, wanted: str, connection: Connection) -> Optional[Dict[str, Any]]:
        """The fault in force for a websocket, from the last look at the directory."""
        for fault in self._faults:
            if fault.get("fault") != wanted:
                continue
            if fault.get("vmid", connection.facts.get("vmid")) != connection.facts.get("vmid"):
                continue
            if fault.get("kind", connection.kind) == connection.kind:
                return fault
        return None

    def silence(self, connection: Connection) -> Optional[str]:
        """to_source, both, or None."""
        fault = self.fault("silent", connection)
        if fault is None or ("kind" not in fault and connection.kind == "control"):
            return None
        return str(fault.get("direction", "both"))

    def pong_off(self, connection: Connection) -> bool:
        """Whether pings of this connection go unanswered."""
        return self.fault("pong_off", connection) is not None

    def frame_limit(self, connection: Connection) -> int:
        """Payload bytes per server frame."""
        fault = self.fault("split", connection)
        return int(fault["size"]) if fault else READ

    # -- statistics -------------------------------------------------------------------------------------------------

    def _summaries(self) -> List[Dict[str, Any]]:
        return [connection.summary() for connection in self.connections if connection.backend]

    def _poll_stats(self) -> None:
        self.stats.write(self._summaries(), self.drain)
        busy = any(connection.backend for connection in self.connections)
        self.loop.call_later(STATS_POLL if busy else IDLE_POLL, self._poll_stats)
