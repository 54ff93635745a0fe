# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python3 -m bench.transports.proxy ADDRESS CERTIFICATES SOCKET``: stands for a worker of the target's pveproxy.

One websocket to one UNIX socket. As the real one it applies no back-pressure: what the socket does not take waits here,
however much it is. Its CPU is its own, not that of Perl.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import sys
from collections import deque
from pathlib import Path
from typing import Deque, Iterator, Tuple

from lab.api.websocket import Opcode, accept_key, frame, frames

__all__ = ["Cutter", "Proxy"]

READ = 256 * 1024  # bytes
SLICES = 64  # of one sendmsg


class Cutter:
    """Cuts a client's bytes into pieces of payload with the opcode of their frame; the zero key only."""

    def __init__(self) -> None:
        self._head = b""
        self._left = 0
        self._opcode = 0

    def receive(self, data: memoryview) -> Iterator[Tuple[int, bytes]]:
        at, end = 0, len(data)
        while at < end:
            if self._left:
                step = min(self._left, end - at)
                self._left -= step
                yield self._opcode, bytes(data[at : at + step])
            else:
                step = min(self._size() - len(self._head), end - at)
                self._head += data[at : at + step]
                if len(self._head) == self._size() > 2:
                    self._begin()
                    if not self._left:
                        yield self._opcode, b""
            at += step

    def _size(self) -> int:
        """Bytes of the head, as far as it is known: 2 say more."""
        return 2 if len(self._head) < 2 else {126: 8, 127: 14}.get(self._head[1] & 127, 6)

    def _begin(self) -> None:
        head, self._head = self._head, b""
        if head[0] & 0xF0 != 0x80 or not head[1] & 0x80 or any(head[-4:]):
            raise ValueError("a fragment, an unmasked frame or another key than zero")
        self._opcode = head[0] & 15
        self._left = int.from_bytes(head[2:-4], "big") if len(head) > 6 else head[1] & 127


class Proxy:
    """One connection of each kind."""

    def __init__(self, far: socket.socket, context: ssl.SSLContext, path: str) -> None:
        self._far = far
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)
        self._plain = memoryview(bytearray(READ))
        self._shake()
        key = next(line for line in self._head().split("\r\n") if line.lower().startswith("sec-websocket-key"))
        self._near = socket.socket(socket.AF_UNIX)
        self._near.connect(path)
        accept = f"Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: {accept_key(key.split(': ')[1])}"
        self._say(f"HTTP/1.1 101 Switching Protocols\r\n{accept}\r\n\r\n".encode())
        self._cutter = Cutter()
        self._queue: Deque[memoryview] = deque()
        self._closing = False

    def run(self) -> None:
        """Until one of the two has left and the other has everything."""
        self._near.setblocking(False)
        while not (self._closing and not self._queue):
            poller = select.poll()
            poller.register(self._far, 0 if self._closing else select.POLLIN)
            poller.register(self._near, select.POLLIN | (select.POLLOUT if self._queue else 0))
            ready = dict(poller.poll())
            if ready.get(self._far.fileno(), 0) and not self._forth():
                self._closing = True
            if ready.get(self._near.fileno(), 0) and not self._serve_near():
                break
        with contextlib.suppress(OSError):
            self._near.shutdown(socket.SHUT_WR)
            self._near.setblocking(True)
            while data := self._near.recv(READ):  # its last words
                self._say(frames(data))
        self._far.shutdown(socket.SHUT_WR)

    def _forth(self) -> bool:
        """One read of the client; False when it has ended."""
        data = self._far.recv(READ)
        self._in.write(data)
        with contextlib.suppress(ssl.SSLWantReadError):
            while count := self._tls.read(READ, self._plain):
                for opcode, payload in self._cutter.receive(self._plain[:count]):
                    if opcode in Opcode.DATA:
                        self._queue.append(memoryview(payload))
                    elif opcode == Opcode.PING:
                        self._say(frame(Opcode.PONG, payload))
                    elif opcode == Opcode.CLOSE:
                        return False
        return bool(data)

    def _serve_near(self) -> bool:
        """Both directions of the UNIX socket; False when QEMU has ended."""
        try:
            self._feed()
        except BlockingIOError:
            pass
        except OSError:  # an NBD server leaves before the client's last word
            return False
        with contextlib.suppress(BlockingIOError):
            data = self._near.recv(READ)
            if not data:
                return False
            self._say(frames(data))
        return True

    def _feed(self) -> None:
        while self._queue:
            taken = self._near.sendmsg([self._queue[at] for at in range(min(SLICES, len(self._queue)))])
            while self._queue and taken >= len(self._queue[0]):
                taken -= len(self._queue.popleft())
            if taken:
                self._queue[0] = self._queue[0][taken:]

    def _shake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
                return
            except ssl.SSLWantReadError:
                self._send()
                self._in.write(self._far.recv(READ))

    def _head(self) -> str:
        head = b""
        while b"\r\n\r\n" not in head:
            try:
                head += self._tls.read(READ)
            except ssl.SSLWantReadError:
                self._in.write(self._far.recv(READ))
        return head.decode("latin-1")

    def _say(self, data: bytes) -> None:
        while data:
            data = data[self._tls.write(data) :]  # one record
        self._send()

    def _send(self) -> None:
        if self._out.pending:
            self._far.sendall(self._out.read())


def main(address: str, certificates: str, path: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    place = Path(certificates)
    context.load_cert_chain(place / "server-cert.pem", place / "server-key.pem")
    with socket.create_server((address, 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        far, _client = listener.accept()
        far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        Proxy(far, context, path).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
