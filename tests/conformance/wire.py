# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""TLS, HTTP/1.1 and websocket as a client that may also break every rule on purpose.

Nothing of this is shared with the collection: an error on one side must not cancel out on the other.
"""

from __future__ import annotations

import base64
import ctypes
import hashlib
import os
import select
import socket
import ssl
import struct
import threading
import time
import urllib.parse
from typing import Any, Dict, List, Optional, Tuple

__all__ = ["Answer", "Stream", "WebSocket", "frame", "request"]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def _disconnect(descriptor: int) -> None:
    address = struct.pack("=H14x", socket.AF_UNSPEC)
    ctypes.CDLL(None, use_errno=True).connect(descriptor, address, len(address))


class Stream:
    """TLS over a plain socket; the TCP end can be cut in every way (FIN, RST, TLS close)."""

    def __init__(self, address: Tuple[str, int], timeout: float = 10.0) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self._raw = socket.create_connection(address, timeout=timeout)
        self._raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out)
        self._lock, self._send_lock = threading.Lock(), threading.Lock()
        self.close_notify = False
        self._handshake()
        self._raw.settimeout(None)

    def _handshake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._push()
                data = self._raw.recv(65536)
                if not data:
                    raise ConnectionError("TLS handshake: connection closed") from None
                self._in.write(data)
                continue
            self._push()
            return

    @property
    def port(self) -> int:
        """This end's TCP port."""
        return int(self._raw.getsockname()[1])

    @property
    def certificate(self) -> bytes:
        return self._tls.getpeercert(binary_form=True) or b""

    def _push(self) -> None:
        data = self._out.read()
        if data:
            self._raw.sendall(data)

    def send(self, data: bytes) -> None:
        with self._send_lock:
            view = memoryview(data)
            while view:
                with self._lock:
                    count = self._tls.write(view[:65536])
                    cipher = self._out.read()
                self._raw.sendall(cipher)
                view = view[count:]

    def receive(self, timeout: Optional[float]) -> bytes:
        """Bytes of the stream; b"" at its end; TimeoutError when nothing came in time."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._lock:
                try:
                    data = self._tls.read(1 << 18)
                    if data:
                        return data
                    self.close_notify = True
                    return b""
                except ssl.SSLWantReadError:
                    pass
                except ssl.SSLZeroReturnError:
                    self.close_notify = True
                    return b""
            try:
                # the socket stays blocking: a timeout set here would strike a sender in another thread
                if not select.select(
                    [self._raw], [], [], None if until is None else max(0.0, until - time.monotonic())
                )[0]:
                    raise TimeoutError
                cipher = self._raw.recv(1 << 18)
            except TimeoutError:
                raise
            except (ConnectionError, ValueError):
                return b""
            except OSError:
                return b""
            if not cipher:
                return b""
            with self._lock:
                self._in.write(cipher)

    def finish(self) -> None:
        """FIN only: no TLS close, no websocket close; nothing if the connection is gone already."""
        try:
            self._raw.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def reset(self) -> None:
        """RST: what the peer sees when a process with unread data dies."""
        try:
            self._raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass
        # a reader blocked in recv would keep the connection alive after close(): AF_UNSPEC disconnects at once,
        # and with SO_LINGER 0 the disconnect is a reset
        _disconnect(self._raw.fileno())
        try:
            self._raw.close()
        except OSError:
            pass

    def close(self) -> None:
        try:
            self._raw.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._raw.close()


class Answer:
    """An HTTP answer: status, reason, headers as sent, body."""

    def __init__(self, status: int, reason: str, headers: List[Tuple[str, str]], body: bytes, elapsed: float) -> None:
        self.status, self.reason, self.headers, self.body, self.elapsed = status, reason, headers, body, elapsed

    def header(self, name: str) -> Optional[str]:
        for key, value in self.headers:
            if key.lower() == name.lower():
                return value
        return None


def _parse_head(head: bytes) -> Tuple[int, str, List[Tuple[str, str]]]:
    lines = head.decode("latin-1").split("\r\n")
    parts = lines[0].split(" ", 2)
    headers = []
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers.append((name.strip(), value.strip()))
    return int(parts[1]), parts[2] if len(parts) > 2 else "", headers


def _head(stream: Stream, until: float) -> Tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = stream.receive(max(0.01, until - time.monotonic()))
        if not piece:
            raise ConnectionError(f"connection closed before an HTTP answer (got {data[:80]!r})")
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def _chunked(data: bytes) -> Optional[bytes]:
    body = b""
    while True:
        line, found, rest = data.partition(b"\r\n")
        if not found:
            return None
        size = int(line.split(b";")[0], 16)
        if size == 0:
            return body
        if len(rest) < size + 2:
            return None
        body, data = body + rest[:size], rest[size + 2 :]


def _body(stream: Stream, headers: List[Tuple[str, str]], data: bytes, until: float) -> bytes:
    low = {name.lower(): value for name, value in headers}
    chunked = "chunked" in low.get("transfer-encoding", "")
    length = int(low["content-length"]) if "content-length" in low else None
    while True:
        if chunked:
            whole = _chunked(data)
            if whole is not None:
                return whole
        elif length is not None and len(data) >= length:
            return data[:length]
        piece = stream.receive(max(0.01, until - time.monotonic()))
        if not piece:
            return data
        data += piece


def _path(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return parts.path + ("?" + parts.query if parts.query else "")


def request(
    address: Tuple[str, int],
    method: str,
    url: str,
    headers: Dict[str, str],
    params: Optional[Dict[str, Any]],
    timeout: float,
) -> Answer:
    """One request on its own connection. ``params`` go into the query of a GET and the form of everything else."""
    started = time.monotonic()
    path, form = _path(url), b""
    encoded = urllib.parse.urlencode(params or {})
    if method == "GET" and encoded:
        path += ("&" if "?" in path else "?") + encoded
    elif method != "GET":
        form = encoded.encode()
    lines = [f"{method} {path} HTTP/1.1", f"Host: {address[0]}:{address[1]}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if method != "GET":
        lines += ["Content-Type: application/x-www-form-urlencoded", f"Content-Length: {len(form)}"]
    stream = Stream(address)
    try:
        stream.send(("\r\n".join(lines) + "\r\n\r\n").encode() + form)
        until = started + timeout
        head, rest = _head(stream, until)
        status, reason, got = _parse_head(head)
        return Answer(status, reason, got, _body(stream, got, rest, until), time.monotonic() - started)
    finally:
        stream.close()


def frame(opcode: int, payload: bytes, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """Any frame, also an illegal one. The mask is zero, as Proxmox's own clients send it."""
    head = bytearray([(0x80 if fin else 0) | (rsv << 4) | opcode])
    bit, length = (0x80 if masked else 0), len(payload)
    if length < 126:
        head.append(bit | length)
    elif length < 65536:
        head.append(bit | 126)
        head += struct.pack("!H", length)
    else:
        head.append(bit | 127)
        head += struct.pack("!Q", length)
    if masked:
        head += b"\0\0\0\0"
    return bytes(head) + payload


class WebSocket:
    """A websocket after its 101: a reader thread collects what the server sends."""

    def __init__(self, stream: Stream, rest: bytes) -> None:
        self.stream = stream
        self._raw = bytearray(rest)
        self._data = bytearray()
        self.pongs: List[bytes] = []
        self.odd: List[str] = []
        self.ended: Optional[str] = None
        self.received = 0
        self._cut = False
        self._changed = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    @classmethod
    def open(
        cls, address: Tuple[str, int], path: str, headers: Dict[str, str], timeout: float
    ) -> Tuple[Answer, Optional["WebSocket"]]:
        started = time.monotonic()
        stream = Stream(address)
        lines = [f"GET {path} HTTP/1.1", f"Host: {address[0]}:{address[1]}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        stream.send(("\r\n".join(lines) + "\r\n\r\n").encode())
        try:
            head, rest = _head(stream, started + timeout)
        except BaseException:
            stream.close()
            raise
        status, reason, got = _parse_head(head)
        if status != 101:
            body = _body(stream, got, rest, started + timeout)
            stream.close()
            return Answer(status, reason, got, body, time.monotonic() - started), None
        return Answer(status, reason, got, b"", time.monotonic() - started), cls(stream, rest)

    @staticmethod
    def key() -> str:
        return base64.b64encode(os.urandom(16)).decode()

    @staticmethod
    def accept(key: str) -> str:
        return base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()

    def _frames(self) -> None:
        while len(self._raw) >= 2:
            first, second = self._raw[0], self._raw[1]
            length, offset = second & 0x7F, 2
            if length == 126:
                if len(self._raw) < 4:
                    return
                length, offset = struct.unpack("!H", self._raw[2:4])[0], 4
            elif length == 127:
                if len(self._raw) < 10:
                    return
                length, offset = struct.unpack("!Q", self._raw[2:10])[0], 10
            if second & 0x80:
                self.odd.append("masked frame from the server")
            if len(self._raw) < offset + length:
                return
            payload = bytes(self._raw[offset : offset + length])
            del self._raw[: offset + length]
            self._take(first, payload)

    def _take(self, first: int, payload: bytes) -> None:
        if first == 0x82:
            self._data += payload
            self.received += len(payload)
            if not 1 <= len(payload) <= 131072:
                self.odd.append(f"data frame of {len(payload)} bytes")
        elif first == 0x8A:
            self.pongs.append(payload)
        else:
            self.odd.append(f"frame 0x{first:02x}")

    def _read(self) -> None:
        with self._changed:
            self._frames()
            self._changed.notify_all()
        while True:
            try:
                data = self.stream.receive(None)
            except OSError:
                data = b""
            with self._changed:
                if data:
                    self._raw += data
                    self._frames()
                else:
                    self.ended = "cut" if self._cut else ("close_notify" if self.stream.close_notify else "eof")
                self._changed.notify_all()
            if not data:
                return

    def send(self, data: bytes) -> None:
        self.stream.send(data)

    def send_data(self, data: bytes, size: int = 131072) -> None:
        view = memoryview(data)
        while view:
            self.send(frame(2, bytes(view[:size])))
            view = view[size:]

    def line(self, timeout: float) -> bytes:
        """The next line of the control protocol, without its newline."""
        with self._changed:
            self._changed.wait_for(lambda: b"\n" in self._data or self.ended, timeout)
            if b"\n" not in self._data:
                raise TimeoutError(f"no line within {timeout:g} s" + (f" ({self.ended})" if self.ended else ""))
            line, _, rest = bytes(self._data).partition(b"\n")
            self._data = bytearray(rest)
            return line

    def take(self, timeout: float) -> bytes:
        """Whatever data came; b"" at the end of the stream."""
        with self._changed:
            self._changed.wait_for(lambda: self._data or self.ended, timeout)
            data, self._data = bytes(self._data), bytearray()
            if not data and not self.ended:
                raise TimeoutError
            return data

    def wait_end(self, timeout: float) -> bool:
        with self._changed:
            return bool(self._changed.wait_for(lambda: self.ended is not None, timeout))

    def wait_pong(self, timeout: float) -> Optional[bytes]:
        with self._changed:
            self._changed.wait_for(lambda: self.pongs or self.ended, timeout)
            return self.pongs.pop(0) if self.pongs else None

    def finish(self) -> None:
        self._cut = True
        self.stream.finish()

    def reset(self) -> None:
        self._cut = True
        self.stream.reset()

    def close_frame(self, status: int = 1000) -> None:
        self.send(frame(8, struct.pack("!H", status)))
