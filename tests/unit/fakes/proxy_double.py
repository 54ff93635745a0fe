# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A double of the target's websocket proxy over real TLS on the loopback, with frame code of its own.

It checks the wire contract of mtunnel-protocol 3.4 and notes every breach, counts TLS records by their
5-byte headers before OpenSSL sees them, and otherwise behaves like the proxy: answers pings, never sends a
close frame, ends TCP after the client's close frame. A test drives it through the methods below.
"""

from __future__ import annotations

import base64
import hashlib
import os
import select
import socket
import ssl
import subprocess
import threading
from pathlib import Path
from typing import Callable, List, Optional, Tuple

__all__ = ["ProxyDouble", "make_certificate"]

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def make_certificate(directory: Path) -> Tuple[Path, str]:
    """A self-signed certificate with its key in one file, and its SHA-256 fingerprint in hex."""
    path = directory / "proxy.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    files = ["-subj", "/CN=target.example", "-days", "2", "-keyout", f"{path}.key", "-out", f"{path}.crt"]
    subprocess.run([*command, *files], check=True, capture_output=True)
    certificate = Path(str(path) + ".crt").read_text()
    path.write_text(Path(str(path) + ".key").read_text() + certificate)
    return path, hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate)).hexdigest()


class ProxyDouble(threading.Thread):
    """Serves exactly one connection.

    Args:
        certificate: From :func:`make_certificate`.
        greeting: Bytes sent right after the upgrade, as an NBD server does.
        answer: Called with each data payload; what it returns is sent back in one frame.
        status: Status line of the answer to the upgrade.
        answers_pings: False makes the double a silent network that still swallows bytes.
    """

    def __init__(
        self,
        certificate: Path,
        *,
        greeting: bytes = b"",
        answer: Optional[Callable[[bytes], bytes]] = None,
        status: str = "101 Switching Protocols",
        answers_pings: bool = True,
    ) -> None:
        super().__init__(daemon=True)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._greeting, self._answer, self._status = greeting, answer, status
        self.answers_pings = answers_pings
        self.breaches: List[str] = []
        self.frames: List[int] = []  # payload lengths of data frames
        self.records: List[int] = []  # lengths of application records from the client, header and tag included
        self.pings = 0
        self.data = bytearray()
        self.request = b""
        self.close_status: Optional[int] = None
        self.reads = threading.Event()  # cleared: the double takes nothing from the network
        self.reads.set()
        self.finished = threading.Event()
        self.upgraded = threading.Event()
        self._came = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._wake, self._woken = os.pipe()[::-1]
        self._commands: List[Tuple[str, bytes]] = []
        self._plain = bytearray()
        self._raw = bytearray()
        self.start()

    # Driven by the test.

    def send(self, data: bytes) -> None:
        """Send ``data`` in frames of at most 65536 bytes."""
        self._tell("send", data)

    def hang_up(self) -> None:
        """End TCP in order."""
        self._tell("close", b"")

    def reset(self) -> None:
        """End TCP with a reset."""
        self._tell("reset", b"")

    def raw(self, data: bytes) -> None:
        """Send bytes that need not be a frame."""
        self._tell("raw", data)

    def wait_for(self, size: int) -> None:
        """Wait until ``size`` bytes of data have come."""
        with self._came:
            if not self._came.wait_for(lambda: len(self.data) >= size, 10):
                raise TimeoutError(f"{len(self.data)} of {size} bytes came")

    def _tell(self, name: str, data: bytes) -> None:
        self._commands.append((name, data))
        os.write(self._wake, b"x")

    # The thread.

    def run(self) -> None:
        self._listener.settimeout(10)
        try:
            self._socket, _address = self._listener.accept()
            self._listener.close()
            self._serve()
        except (OSError, ssl.SSLError) as error:
            self.error = error
        finally:
            self.finished.set()
            if hasattr(self, "_socket"):
                self._socket.close()

    def _serve(self) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = self._context.wrap_bio(self._in, self._out, server_side=True)
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._drain_out()
                self._in.write(self._socket.recv(65536))
        self._drain_out()
        self._decrypt()  # the request may have come along with the client's last handshake message
        self._upgrade()
        if self._greeting:
            self._frame(2, self._greeting)
        while self._step():
            pass

    def _upgrade(self) -> None:
        while b"\r\n\r\n" not in self._plain:
            self._read()
        end = self._plain.index(b"\r\n\r\n") + 4
        self.request = bytes(self._plain[:end])
        del self._plain[:end]
        key = next(
            line.split(b": ", 1)[1]
            for line in self.request.split(b"\r\n")
            if line.lower().startswith(b"sec-websocket-key")
        )
        accept = base64.b64encode(hashlib.sha1(key + GUID.encode()).digest()).decode()
        head = f"HTTP/1.1 {self._status}\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
        if self._status.startswith("101"):
            self._write(f"{head}Sec-WebSocket-Accept: {accept}\r\n\r\n".encode())
        else:
            self._write(f"HTTP/1.1 {self._status}\r\nContent-Length: 0\r\n\r\n".encode())
        self._records_from_now()
        self.upgraded.set()

    def _records_from_now(self) -> None:
        self.records.clear()

    def _step(self) -> bool:
        ready, _w, _x = select.select(([self._socket] if self.reads.is_set() else []) + [self._woken], [], [], 0.05)
        if self._woken in ready:
            os.read(self._woken, 1)
            return self._obey(*self._commands.pop(0))
        alive = self._read() if self._socket in ready else True
        return self._parse() and alive

    def _obey(self, name: str, data: bytes) -> bool:
        if name == "send":
            for at in range(0, len(data), 65536):
                self._frame(2, data[at : at + 65536])
        elif name == "raw":
            self._write(data)
        elif name == "reset":
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            return False
        else:
            return False
        return True

    def _read(self) -> bool:
        data = self._socket.recv(262144)
        if not data:
            return False
        self._count_records(data)
        self._in.write(data)
        return self._decrypt()

    def _decrypt(self) -> bool:
        while True:
            try:
                plain = self._tls.read(65536)
            except ssl.SSLWantReadError:
                return True
            except ssl.SSLError:
                return False
            if not plain:
                return False
            self._plain += plain

    def _count_records(self, data: bytes) -> None:
        self._raw += data
        while len(self._raw) >= 5:
            length = 5 + int.from_bytes(self._raw[3:5], "big")
            if len(self._raw) < length:
                return
            if self._raw[0] == 23:
                self.records.append(length)
            del self._raw[:length]

    def _parse(self) -> bool:
        while True:
            frame = self._one()
            if frame is None:
                return True
            opcode, payload = frame
            if opcode == 8:
                self.close_status = int.from_bytes(payload[:2], "big")
                return False  # mtunnel-protocol 3.5: no close frame back, TCP just ends
            if opcode == 9:
                self.pings += 1
                if self.answers_pings:
                    self._frame(10, payload)
                continue
            self.frames.append(len(payload))
            with self._came:
                self.data += payload
                self._came.notify_all()
            reply = self._answer(payload) if self._answer else b""
            if reply:
                self._frame(2, reply)

    def _one(self) -> Optional[Tuple[int, bytes]]:
        buffer = self._plain
        if len(buffer) < 2:
            return None
        length, start = buffer[1] & 127, 2
        if length >= 126:
            start = 4 if length == 126 else 10
            if len(buffer) < start:
                return None
            length = int.from_bytes(buffer[2:start], "big")
        self._check(buffer[0], buffer[1], length)
        if len(buffer) < start + 4 + length:
            return None
        key = bytes(buffer[start : start + 4])
        payload = bytes(buffer[start + 4 : start + 4 + length])
        if any(key):
            payload = bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))
        opcode = buffer[0] & 15
        del buffer[: start + 4 + length]
        return opcode, payload

    def _check(self, first: int, second: int, length: int) -> None:
        if not first & 0x80:
            self.breaches.append("fragmented")
        if first & 0x70:
            self.breaches.append("reserved bits")
        if not second & 0x80:
            self.breaches.append("unmasked")
        if length > 131072:
            self.breaches.append("oversize")
        if first & 15 not in (1, 2, 8, 9, 10):
            self.breaches.append(f"opcode {first & 15}")

    def _frame(self, opcode: int, payload: bytes) -> None:
        size = len(payload)
        if size < 126:
            head = bytes([0x80 | opcode, size])
        elif size < 65536:
            head = bytes([0x80 | opcode, 126]) + size.to_bytes(2, "big")
        else:
            head = bytes([0x80 | opcode, 127]) + size.to_bytes(8, "big")
        self._write(head + payload)

    def _write(self, data: bytes) -> None:
        self._tls.write(data)
        self._drain_out()

    def _drain_out(self) -> None:
        data = self._out.read()
        if data:
            self._socket.sendall(data)
