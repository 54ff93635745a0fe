# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The processes around a measured tunnel: feeder, sink, and the unframed copy loop it is compared with.

``python3 peers.py feeder PATH BYTES`` writes as QEMU does (32 KiB) into a UNIX socket.
``python3 peers.py sink CERTIFICATE MODE`` is the far end: TLS, counts records by their raw headers, parses
frames, skips payloads; MODE ``frames``, ``echo`` (frames sent back) or ``plain`` (no websocket at all).
``python3 peers.py copy PATH PORT`` is the comparison: UNIX to TLS without frames, SSLObject and MemoryBIO,
64 KiB, written as plainly as it can be.
"""

from __future__ import annotations

import base64
import hashlib
import json
import select
import socket
import ssl
import sys
import time
from typing import Any, Dict, List

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
WRITE = 32768
COPY = 65536


def feeder(path: str, size: int) -> None:
    """Write ``size`` bytes, end, and wait for the other end to close."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(path)
    block = bytes(range(256)) * (WRITE // 256)
    for _at in range(size // WRITE):
        sock.sendall(block)
    sock.shutdown(socket.SHUT_WR)
    sock.recv(1)


class Sink:
    """One TLS connection, counted."""

    def __init__(self, certificate: str) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self._listener = socket.create_server(("127.0.0.1", 0))
        print(self._listener.getsockname()[1], flush=True)
        self._socket, _address = self._listener.accept()
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)
        self._raw = bytearray(262144)
        self._view = memoryview(self._raw)
        self._skip, self._head = 0, b""
        self.records = self.small = self.bytes = self.frames = 0
        self._plain = bytearray(131072 + 16384)
        self.services: List[int] = []
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush()
                self._in.write(self._socket.recv(65536))
        self._flush()

    def _flush(self) -> None:
        if self._out.pending:
            self._socket.sendall(self._out.read())

    def _count(self, size: int) -> None:
        """Walk the record headers of ``size`` raw bytes; a header may be cut."""
        at = self._skip
        while at < size:
            if self._head:
                need = 5 - len(self._head)
                head = self._head + bytes(self._view[at : at + need])
            else:
                head = bytes(self._view[at : at + 5])
            if len(head) < 5:
                self._head = head
                at = size
                break
            length = head[3] << 8 | head[4]
            self.records += 1
            self.small += length < 1024
            at += 5 - len(self._head) + length
            self._head = b""
        self._skip = at - size

    def read(self) -> Any:
        """Plain bytes, None at the end."""
        while True:
            try:
                got = self._tls.read(len(self._plain), self._plain)
            except ssl.SSLWantReadError:
                size = self._socket.recv_into(self._raw)
                if not size:
                    return None
                self._arrived = time.perf_counter_ns()
                self._count(size)
                self._in.write(self._view[:size])
                continue
            except ssl.SSLError:
                return None
            return memoryview(self._plain)[:got] if got else None

    def write(self, data: bytes) -> None:
        self._tls.write(data)
        self._flush()

    def upgrade(self) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += bytes(self.read() or b"")
        head, _rest = data.split(b"\r\n\r\n", 1)
        key = next(line.split(b": ")[1] for line in head.split(b"\r\n") if line.startswith(b"Sec-WebSocket-Key"))
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
        self.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        self.records = self.small = 0

    def plain(self) -> None:
        while True:
            data = self.read()
            if data is None:
                return
            self.bytes += len(data)

    def echo(self) -> None:
        """Send small data frames back as they come, one per read; answer pings.

        Notes how long each answer took from the bytes' arrival: that is this process, not the tunnel.
        """
        self.upgrade()
        while True:
            data = self.read()
            if data is None or data[0] & 15 == 8:
                return
            opcode = 0x8A if data[0] & 15 == 9 else 0x82
            self.write(bytes((opcode, data[1] & 127)) + bytes(data[6:]))
            self.services.append(time.perf_counter_ns() - self._arrived)

    def skip_frames(self) -> None:
        """Parse frames by their headers, skip the payloads."""
        self.upgrade()
        skip, head = 0, b""
        while True:
            data = self.read()
            if data is None:
                return
            at, end = 0, len(data)
            while at < end:
                step = min(skip, end - at)
                skip, at = skip - step, at + step
                if at == end:
                    break
                before = len(head)
                head += bytes(data[at : at + 14 - before])
                size = {126: 8, 127: 14}.get(head[1] & 127, 6) if len(head) > 1 else 14
                if len(head) < size:
                    break
                at += size - before
                length = int.from_bytes(head[2 : size - 4], "big") if size > 6 else head[1] & 127
                opcode, head = head[0] & 15, b""
                if opcode == 8:
                    return
                if opcode == 9:
                    self.write(b"\x8a" + bytes([length]) + bytes(data[at : at + length]))
                else:
                    self.frames += 1
                    self.bytes += length
                skip = length

    def report(self) -> None:
        self._socket.close()
        service = sorted(self.services)[len(self.services) // 2] if self.services else 0
        figures: Dict[str, int] = {"records": self.records, "small": self.small, "frames": self.frames}
        print(json.dumps({**figures, "bytes": self.bytes, "service_ns": service}), flush=True)


def sink(certificate: str, mode: str) -> None:
    far = Sink(certificate)
    {"plain": far.plain, "echo": far.echo, "frames": far.skip_frames}[mode]()
    far.report()


def copy(path: str, port: int) -> None:
    """UNIX to TLS, nothing else: what a tunnel cannot do without."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    inside, outside = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(inside, outside)
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            sock.sendall(outside.read())
            inside.write(sock.recv(65536))
    sock.sendall(outside.read())
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(1)
    print("listening", flush=True)
    local, _address = listener.accept()
    local.setblocking(False)
    sock.setblocking(False)
    readable, writable = select.poll(), select.poll()
    readable.register(local, select.POLLIN)
    writable.register(sock, select.POLLOUT)
    buffer = memoryview(bytearray(COPY))
    while True:
        readable.poll()
        size = local.recv_into(buffer)
        if not size:
            break
        at = 0
        while at < size:
            at += tls.write(buffer[at:size])
        out = outside.read()
        while out:
            try:
                out = out[sock.send(out) :]
            except BlockingIOError:
                writable.poll()
    sock.shutdown(socket.SHUT_WR)
    sock.setblocking(True)
    while sock.recv(65536):
        pass


if __name__ == "__main__":
    role, first, second = sys.argv[1:]
    if role == "feeder":
        feeder(first, int(second))
    elif role == "sink":
        sink(first, second)
    else:
        copy(first, int(second))
