# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""A non-blocking TLS connection over TCP: SSLObject and two memory buffers, one system call per frame.

Edge file: sockets. The way follows tunnel-performance 4.2 (``SSLSocket.send`` costs one system call per TLS record)
and 4.6 (one object is never shared between threads).
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import struct
from typing import Callable, List, Optional, Union

from ..errors import Side
from .errors import ConnectFailed, ConnectTimeout, StreamLost

__all__ = ["TlsStream"]

# Bytes per read. What comes back through a tunnel is small, and a large buffer costs its allocation each time.
_READ = 65536
Buffer = Union[bytes, bytearray, memoryview]


class TlsStream:
    """One TLS connection.

    Reading: call :meth:`read` until it returns None; poll for POLLIN only then (decrypted bytes may wait inside).
    Writing: :meth:`write` encrypts at once; call :meth:`flush` until it returns True before the next frame, so that
    at most one frame is ahead of the kernel.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, server_hostname: Optional[str], name: str) -> None:
        self.name = name
        self._socket = sock
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
        self._out: Buffer = b""  # taken out of the TLS object, not yet taken by the kernel from _sent on
        self._sent = 0
        self._eof = False

    @classmethod
    def open(
        cls,
        host: str,
        port: int,
        context: ssl.SSLContext,
        check: Callable[[bytes], None],
        deadline: float,
        clock: Callable[[], float],
        server_hostname: Optional[str] = None,
    ) -> "TlsStream":
        """Connect, shake hands, have the certificate checked.

        Args:
            host: Name or address.
            port: TCP port.
            context: Client context; must have OP_IGNORE_UNEXPECTED_EOF (pve-cli 6: the server ends without notify).
            check: Gets the peer's certificate (DER) before any application byte is sent; raises to refuse.
            deadline: Moment on ``clock`` (seconds) by which the connection stands.
            clock: Monotonic clock, seconds.
            server_hostname: Name for SNI and the host name check; ``host`` when None.
        """
        name = f"{host}:{port}"
        stream = cls(_connect(host, port, name, deadline, clock), context, server_hostname or host, name)
        try:
            stream._handshake(deadline, clock)
            check(stream.certificate())
        except BaseException:
            stream.abort()
            raise
        return stream

    def fileno(self) -> int:
        """Descriptor to poll."""
        return self._socket.fileno()

    def certificate(self) -> bytes:
        """The peer's certificate, DER."""
        return self._tls.getpeercert(binary_form=True) or b""

    @property
    def pending(self) -> int:
        """Encrypted bytes that the kernel has not taken yet."""
        return len(self._out) - self._sent + self._outgoing.pending

    @property
    def hidden(self) -> bool:
        """Whether bytes have come that poll() no longer shows."""
        return self._incoming.pending > 0 or self._tls.pending() > 0

    def read(self) -> Optional[bytes]:
        """Decrypted bytes; None when there are none now; b"" at the end of the connection."""
        while True:
            if not self._eof and not self.hidden and not self._fill():
                return None
            try:
                return self._tls.read(_READ)
            except ssl.SSLWantReadError:
                if self._eof or not self._fill():  # half a record
                    return b"" if self._eof else None
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""
            except ssl.SSLError as error:
                raise self._lost(error) from error

    def write(self, data: Buffer) -> None:
        """Encrypt ``data``; nothing is sent before :meth:`flush`."""
        view = memoryview(data)
        try:
            while view:
                # Partial writes are on in Python's contexts: one TLS record per call.
                view = view[self._tls.write(view) :]
        except ssl.SSLError as error:
            raise self._lost(error) from error

    def flush(self) -> bool:
        """Hand encrypted bytes to the kernel; True when all of them are there."""
        try:
            while True:
                if self._sent == len(self._out):
                    # One read of everything and one send of it: a frame is one system call.
                    self._out, self._sent = self._outgoing.read(), 0
                    if not self._out:
                        return True
                self._sent += self._socket.send(memoryview(self._out)[self._sent :] if self._sent else self._out)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            raise self._lost(error) from error

    def close_gracefully(self) -> None:
        """Send what the kernel takes at once and a close notify, then close. Never blocks, never raises."""
        try:
            self._tls.unwrap()
        except (ssl.SSLError, OSError, ValueError):
            pass
        try:
            self.flush()
            self._socket.shutdown(socket.SHUT_WR)
        except (OSError, StreamLost):
            pass
        self._socket.close()

    def abort(self) -> None:
        """Cut at once: the peer gets a reset, queued bytes are dropped."""
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass
        self._socket.close()

    def _fill(self) -> bool:
        """Bytes from the kernel into the TLS object; False when there are none now."""
        if self._eof:
            return False
        try:
            data = self._socket.recv(_READ)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            raise self._lost(error) from error
        if data:
            self._incoming.write(data)
        else:
            self._eof = True
            self._incoming.write_eof()
        return True

    def _handshake(self, deadline: float, clock: Callable[[], float]) -> None:
        while True:
            try:
                self._tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                done = False
            except ssl.SSLCertVerificationError as error:
                raise ConnectFailed(
                    f"the certificate of {self.name} is not trusted: {error.verify_message}",
                    object=self.name,
                    remedy="Give the fingerprint of the target node or the path of its CA.",
                ) from error
            except ssl.SSLError as error:
                raise ConnectFailed(f"TLS with {self.name} failed: {error.reason}", object=self.name) from error
            self._exchange(done, deadline, clock)
            if done:
                return

    def _exchange(self, done: bool, deadline: float, clock: Callable[[], float]) -> None:
        """Send what the handshake produced and, unless it is done, wait for more of the peer."""
        try:
            while not self.flush():
                _wait(self._socket, select.POLLOUT, self.name, deadline, clock)
            while not done and not self._fill():
                if self._eof:
                    raise ConnectFailed(f"{self.name} closed the connection in the TLS handshake", object=self.name)
                _wait(self._socket, select.POLLIN, self.name, deadline, clock)
        except StreamLost as error:
            raise ConnectFailed(f"the TLS handshake with {self.name} broke", object=self.name) from error

    def _lost(self, error: OSError) -> StreamLost:
        reason = getattr(error, "reason", None) or error.strerror or type(error).__name__
        return StreamLost(f"the connection to {self.name} broke: {reason}", side=Side.TARGET, object=self.name)


def _connect(host: str, port: int, name: str, deadline: float, clock: Callable[[], float]) -> socket.socket:
    """A connected non-blocking TCP socket; tries each address the name has."""
    failures: List[str] = []
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConnectFailed(f"the name of {name} cannot be resolved: {error}", object=name) from error
    for family, kind, protocol, _canonical, address in addresses:
        sock = None
        try:
            sock = socket.socket(family, kind, protocol)
            _connect_one(sock, address, name, deadline, clock)
            return sock
        except ConnectTimeout:
            if sock is not None:
                sock.close()
            raise
        except OSError as error:
            if sock is not None:
                sock.close()
            failures.append(error.strerror or type(error).__name__)
    reasons = ", ".join(sorted(set(failures))) or "no address"
    raise ConnectFailed(f"no connection to {name}: {reasons}", object=name, remedy="Check address, port and firewall.")


def _connect_one(sock: socket.socket, address: object, name: str, deadline: float, clock: Callable[[], float]) -> None:
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    try:
        sock.connect(address)  # type: ignore[arg-type]
    except BlockingIOError:
        _wait(sock, select.POLLOUT, name, deadline, clock)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code)) from None


def _wait(sock: socket.socket, events: int, name: str, deadline: float, clock: Callable[[], float]) -> None:
    poller = select.poll()
    poller.register(sock, events)
    left = deadline - clock()
    if left <= 0 or not poller.poll(max(1, int(left * 1000))):
        raise ConnectTimeout(f"no connection to {name} in time", object=name, remedy="Check address and firewall.")
