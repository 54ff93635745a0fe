# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tunnel client process of the source: JSON lines on stdin, replies on stdout (mtunnel-protocol 11).

``connect`` opens the control websocket, ``forward`` listens on a local socket and carries every connection made to it
over a websocket with a ticket of its own; every other line goes to the target as it is.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import socket
import ssl
import struct
import sys
import threading
from typing import Any, Dict, Optional, Tuple
from urllib.parse import quote, urlsplit

from .rest import fingerprint_of

__all__ = ["Channel", "main"]

BINARY, CLOSE, PONG = 2, 8, 10
CHUNK = 65536
AHEAD = 1 << 20
CONNECT_SECONDS = 30.0
NO_MASK = b"\0\0\0\0"


class Broken(Exception):
    """A websocket that does not open or has ended."""


def frame(opcode: int, payload: bytes) -> bytes:
    """One client frame: whole, masked with the null mask."""
    length = len(payload)
    if length < 126:
        head = struct.pack(">BB", 0x80 | opcode, 0x80 | length)
    elif length < 65536:
        head = struct.pack(">BBH", 0x80 | opcode, 0x80 | 126, length)
    else:
        head = struct.pack(">BBQ", 0x80 | opcode, 0x80 | 127, length)
    return head + NO_MASK + payload


def cut(buffer: bytearray) -> Optional[Tuple[int, bytes]]:
    """Take the first whole server frame off the buffer."""
    if len(buffer) < 2:
        return None
    length, start = buffer[1] & 0x7F, 2
    if length == 126:
        start = 4
    elif length == 127:
        start = 10
    if len(buffer) < start:
        return None
    if start > 2:
        length = int.from_bytes(buffer[2:start], "big")
    if len(buffer) < start + length:
        return None
    found = buffer[0] & 0x0F, bytes(buffer[start : start + length])
    del buffer[: start + length]
    return found


def dial(url: str, headers: "list[list[str]]", fingerprint: Optional[str]) -> Tuple[ssl.SSLSocket, bytearray]:
    """A websocket and the bytes that came behind its 101."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 443
    context = ssl.create_default_context()
    if fingerprint:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    raw = socket.create_connection((host, port), CONNECT_SECONDS)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection = context.wrap_socket(raw, server_hostname=host)
    if fingerprint and fingerprint_of(connection.getpeercert(True) or b"") != fingerprint.upper():
        raise Broken("fingerprint of the target does not match")
    key = base64.b64encode(os.urandom(16)).decode("ascii")
    lines = [
        f"GET {parts.path}?{parts.query} HTTP/1.1",
        f"Host: {host}:{port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {key}",
    ]
    lines += [f"{name}: {value}" for name, value in headers]
    connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    buffer = bytearray()
    while b"\r\n\r\n" not in buffer:
        data = connection.recv(CHUNK)
        if not data:
            raise Broken("no answer to the upgrade")
        buffer += data
    head, _, rest = bytes(buffer).partition(b"\r\n\r\n")
    status = head.split(b"\r\n")[0].decode("latin-1")
    if " 101 " not in status:
        raise Broken(f"upgrade refused: {status}")
    return connection, bytearray(rest)


class Channel:
    """The control websocket: one request outstanding at a time."""

    def __init__(self, data: Dict[str, Any]) -> None:
        self.mutex = threading.Lock()
        self.socket, self.buffer = dial(data["url"], data["headers"], data.get("fingerprint"))
        self.socket.settimeout(None)
        self.text = b""

    def request(self, line: str) -> str:
        """The reply line to a command line."""
        with self.mutex:
            payload = line.encode() + b"\n"
            for at in range(0, len(payload), CHUNK):
                self.socket.sendall(frame(BINARY, payload[at : at + CHUNK]))
            while b"\n" not in self.text:
                self._more()
            reply, _, self.text = self.text.partition(b"\n")
            return reply.decode()

    def _more(self) -> None:
        data = self.socket.recv(CHUNK)
        if not data:
            raise Broken("the control connection has ended")
        self.buffer += data
        while (found := cut(self.buffer)) is not None:
            if found[0] == BINARY:
                self.text += found[1]


class Carrier:
    """One local connection over one websocket, in a thread of its own."""

    def __init__(self, local: socket.socket, remote: ssl.SSLSocket, buffer: bytearray) -> None:
        self.local, self.remote, self.buffer = local, remote, buffer
        self.out = bytearray()
        self.local_open = True

    def run(self) -> None:
        """Until the remote side ends; the local end is told to it by a close frame."""
        self.local.setblocking(False)
        self.remote.setblocking(False)
        try:
            self._deliver()
            while self._turn():
                pass
        except (OSError, ValueError):
            pass
        finally:
            self.local.close()
            self.remote.close()

    def _turn(self) -> bool:
        readable: "list[Any]" = [self.remote]
        if self.local_open and len(self.out) < AHEAD:
            readable.append(self.local)
        ready, _, _ = select.select(readable, [self.remote] if self.out else [], [])
        if self.local in ready:
            self._read_local()
        self._send()
        return self._read_remote()

    def _read_local(self) -> None:
        try:
            data = self.local.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.local_open = bool(data)
        self.out += frame(BINARY, data) if data else frame(CLOSE, struct.pack(">H", 1000))

    def _send(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
            while self.out:
                del self.out[: self.remote.send(bytes(self.out[:CHUNK]))]

    def _read_remote(self) -> bool:
        while True:
            try:
                data = self.remote.recv(CHUNK)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return True
            except (ssl.SSLError, ConnectionResetError):
                return False
            if not data:
                return False
            self.buffer += data
            self._deliver()

    def _deliver(self) -> None:
        while (found := cut(self.buffer)) is not None:
            if found[0] == BINARY:
                self.local.setblocking(True)
                self.local.sendall(found[1])
                self.local.setblocking(False)


class Forward:
    """A local listener whose connections go to one socket of the target."""

    def __init__(self, channel: Channel, data: Dict[str, Any]) -> None:
        self.channel, self.data = channel, data
        path = data["unix"]
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(8)

    def run(self) -> None:
        """Accept for ever."""
        while True:
            local, _ = self.listener.accept()
            threading.Thread(target=self._carry, args=(local,), daemon=True).start()

    def _carry(self, local: socket.socket) -> None:
        try:
            reply = json.loads(self.channel.request(json.dumps({"cmd": "ticket", "path": self.data["ticket"]["path"]})))
            url = self.data["url"] + "ticket=" + quote(reply["ticket"], safe="")
            remote, rest = dial(url, self.data["headers"], self.data.get("fingerprint"))
        except (Broken, OSError, KeyError, ValueError) as error:
            sys.stderr.write(f"forward to {self.data['ticket']['path']}: {error}\n")
            local.close()
            return
        Carrier(local, remote, rest).run()


class Process:
    """The commands on stdin."""

    def __init__(self) -> None:
        self.channel: Optional[Channel] = None

    def line(self, text: str) -> Optional[str]:
        """The answer to one line, None where there is none."""
        message = json.loads(text)
        if not message.get("control"):
            if self.channel is None:
                raise Broken("not connected")
            return self.channel.request(text)
        if message["cmd"] == "connect":
            self.channel = Channel(message["data"])
            return None
        if self.channel is None:
            raise Broken("not connected")
        forward = Forward(self.channel, message["data"])
        threading.Thread(target=forward.run, daemon=True).start()
        return '{"success":true}'


def main() -> int:
    """Until EOF on stdin or the end of the control connection."""
    with contextlib.suppress(OSError), open("/proc/self/comm", "w", encoding="ascii") as name:
        name.write("proxmox-websock")
    process = Process()
    for text in sys.stdin:
        try:
            reply = process.line(text.rstrip("\n"))
        except (Broken, OSError) as error:
            sys.stderr.write(f"Error: {error}\n")
            return 1
        if reply is not None:
            sys.stdout.write(reply + "\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    os._exit(main())
