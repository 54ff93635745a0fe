# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""One end of a connection between two workers: frames over TLS or over plain TCP. Non-blocking; an edge file.

A frame is built around its payload: the near end reads at offset 8 of the buffer, the header goes in front, and one
``send`` takes both. What comes is read in batches, and its data is handed on as views into the batch. TLS runs in
memory buffers: an ``SSLSocket`` costs two system calls per record (direct-transports 2.5).
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import socket
import ssl
from typing import Any, Callable, Dict, List, Optional, Tuple, Union

from ..errors import Side
from . import wire
from .errors import GreetingRefused, LinkLost, NetworkChanged, TransportError
from .handshake import Addresses, SourceGreeting
from .interface import DirectSettings
from .tcp_options import limit_unsent, reset
from .tls import Credentials, Handshake, client_context
from .wire import Decoder, Frame

__all__ = ["DirectEnd", "addresses_of", "dial", "place_of"]

BATCH = 512 * 1024  # bytes of one batch in (direct-transports 5); bounds the memory of a stream
# Encrypted bytes per read: more than a full frame, and still in the processor's cache when they are decrypted.
ENCRYPTED = 256 * 1024
# Bytes of bulk that may wait unsent in the kernel: with the usual 256 KiB the source worker took 1.4 times the CPU on a
# link of 2 Gbit/s, and 1 MiB lasts 4 ms there.
NOTSENT_LOWAT_BULK = 1024 * 1024

Buffer = Union[bytes, bytearray, memoryview]


class DirectEnd:
    """One end; at most one frame is ahead of the kernel.

    Args:
        sock: Connected.
        plane: ``tls`` or ``tcp``.
        handshake: The TLS side (``tls``); may hold bytes that have come already.

    Attributes:
        room: Where the near end reads into, see :meth:`send_room`.
        heard: Whether the last :meth:`receive` read anything at all, be it half a frame.
    """

    def __init__(self, sock: socket.socket, plane: str, handshake: Optional[Handshake] = None) -> None:
        sock.setblocking(False)
        self._socket = sock
        with contextlib.suppress(OSError):  # not over TCP in a test
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            limit_unsent(sock)
        self._tls = handshake
        self._decoder = Decoder(wire.MAX_DATA[plane])
        payload = wire.MAX_DATA[plane]
        self._frame = memoryview(bytearray(wire.HEADER_SIZE + payload))
        self._length = -1  # of the payload whose header stands in front
        # Pages that nothing was read into cost nothing: to a source hardly anything comes.
        self._batch = memoryview(mmap.mmap(-1, BATCH))
        self._encrypted = memoryview(mmap.mmap(-1, ENCRYPTED) if handshake else b"")
        self._out: Buffer = b""  # not yet taken by the kernel from _sent on
        self._sent = 0
        self._eof = False
        self._gathered = 1  # bytes from which poll() shows what has come
        self.heard = False
        self.room = self._frame[wire.HEADER_SIZE :]

    def fileno(self) -> int:
        """Descriptor to poll."""
        return self._socket.fileno()

    def expect_bulk(self) -> None:
        """Nobody waits for a single piece of what is sent from now on: more may lie in the kernel."""
        with contextlib.suppress(OSError):  # not over TCP in a test
            limit_unsent(self._socket, NOTSENT_LOWAT_BULK)

    # Out.

    @property
    def pending(self) -> bool:
        """Whether the kernel has not taken everything yet; nothing new may be sent until it has."""
        return self._sent < len(self._out)

    def send_room(self, length: int) -> bool:
        """Send the first ``length`` bytes of :attr:`room` as one frame; True when the kernel has all of it.

        Raises:
            LinkLost: LINK_LOST.
        """
        if length != self._length:  # one full frame after the other keeps its header
            self._frame[: wire.HEADER_SIZE] = wire.header(length)
            self._length = length
        return self.send(self._frame[: wire.HEADER_SIZE + length])

    def send(self, data: Buffer) -> bool:
        """Send one frame that is complete; True when the kernel has all of it.

        Raises:
            LinkLost: LINK_LOST.
        """
        if self._tls is not None:
            data = self._encrypt(self._tls, data)
        self._out, self._sent = data, 0
        return self.flush()

    def flush(self) -> bool:
        """Try again; True when nothing waits.

        Raises:
            LinkLost: LINK_LOST.
        """
        out = self._out
        try:
            while self._sent < len(out):
                self._sent += self._socket.send(memoryview(out)[self._sent :] if self._sent else out)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            raise _lost(error) from error
        return True

    # In.

    def gather(self, size: int) -> None:
        """Let poll() show from ``size`` bytes on what has come; the end of the connection it always shows."""
        if size != self._gathered:
            self._gathered = size
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)

    @property
    def hidden(self) -> bool:
        """Whether bytes have come that poll() no longer shows."""
        return self._tls is not None and (self._tls.incoming.pending > 0 or self._tls.tls.pending() > 0)

    def receive(self) -> Optional[List[Frame]]:
        """The frames of one batch: a list, None at the end of the connection.

        The data in them is valid until the next call. An empty list means that no frame is complete now.

        Raises:
            LinkLost: LINK_LOST.
            WireError: WIRE_INVALID.
            TlsFailed: why the other side refused our certificate; it shows at the first read only.
        """
        length = self._read_plain() if self._tls is None else self._read_tls(self._tls)
        self.heard = length > 0
        if length == 0 and self._eof:
            return None
        return self._decoder.receive(self._batch[:length])

    def _read_plain(self) -> int:
        try:
            length = self._socket.recv_into(self._batch)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            raise _lost(error) from error
        self._eof = not length
        return length

    def _read_tls(self, handshake: Handshake) -> int:
        """Fill the batch with what can be decrypted without waiting."""
        read: Callable[..., int] = handshake.tls.read  # type: ignore[assignment]  # into a buffer it gives a count
        batch = self._batch
        length, size = 0, len(batch)
        drained = False
        try:
            while length < size:
                # Decrypt first: after the handshake the peer's words may be in here already (direct-transports 10.1).
                try:
                    count = read(size - length, batch[length:])
                    if not count:  # a close notify: the peer sends no more
                        self._eof = True
                        break
                    length += count
                except ssl.SSLWantReadError:
                    if self._eof or drained:
                        break
                    taken = self._fill(handshake, length > 0)
                    if taken is None:
                        break
                    drained = taken < ENCRYPTED  # else the next read would only say so
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            self._eof = True
        except ssl.SSLError as error:
            # Python 3.11.2 tells a cut connection so, and not as SSLEOFError.
            if error.reason != "UNEXPECTED_EOF_WHILE_READING":
                raise handshake.failure(error) from error
            self._eof = True
        return length

    def _fill(self, handshake: Handshake, has_some: bool) -> Optional[int]:
        """Bytes of the kernel into the TLS object: how many, None when there are none now."""
        try:
            length = self._socket.recv_into(self._encrypted)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            if not has_some:
                raise _lost(error) from error
            self._eof = True  # what came before may say why
            return None
        if length:
            handshake.incoming.write(self._encrypted[:length])
        else:
            self._eof = True
            handshake.incoming.write_eof()
        return length

    # The end.

    def finish(self) -> None:
        """Nothing more will be sent: a close notify and TCP's end in this direction. Never raises."""
        with contextlib.suppress(OSError, TransportError, ValueError):
            if self._tls is not None and not self.pending:
                with contextlib.suppress(ssl.SSLError):
                    self._tls.tls.unwrap()
                self._out, self._sent = self._tls.to_send(), 0
                self.flush()
            self._socket.shutdown(socket.SHUT_WR)

    def linger(self, seconds: float, clock: Callable[[], float]) -> None:
        """Read on until the peer has ended too: a close with unread input resets what is still on its way to it."""
        deadline = clock() + seconds
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        with contextlib.suppress(OSError):
            while poller.poll(max(0.0, deadline - clock()) * 1000):
                if not self._socket.recv_into(self._batch):
                    break

    def close(self) -> None:
        """Close; ends the connection for good."""
        self._socket.close()

    def abort(self) -> None:
        """Cut at once: the peer gets a reset, even if it does not read."""
        reset(self._socket)

    def _encrypt(self, handshake: Handshake, data: Buffer) -> bytes:
        view = memoryview(data)
        try:
            while view:
                # Partial writes are on in Python's contexts: one TLS record per call.
                view = view[handshake.tls.write(view) :]
        except ssl.SSLError as error:
            raise handshake.failure(error) from error
        return handshake.to_send()


def addresses_of(sock: socket.socket, side: Side) -> Addresses:
    """Both ends of a connected socket, the same text on both sides unless something stands between."""
    own, peer = _format(sock.getsockname()), _format(sock.getpeername())
    return Addresses(own, peer) if side is Side.SOURCE else Addresses(peer, own)


def dial(settings: DirectSettings, key: str, clock: Callable[[], float]) -> Tuple[DirectEnd, Dict[str, Any]]:
    """Connect, prove who we are, see who is there: up to WELCOME. Blocks; no guest depends on it yet.

    Returns:
        The connection, and who is at its other end: name, address, local_address, cipher.

    Raises:
        LinkLost: LINK_LOST, not in ``settings.open_timeout`` seconds, or it broke.
        TlsFailed: a code of tls.py.
        GreetingRefused: GREETING_REFUSED.
        NetworkChanged: NETWORK_CHANGED, the network is not as it was proven.
        WireError: WIRE_INVALID.
    """
    deadline = clock() + settings.open_timeout
    sock = _connected(settings, deadline, clock)
    try:
        waiter = _Waiter(sock, deadline, clock)
        handshake = None if settings.credentials is None else _shaken(settings, settings.credentials, waiter)
        end = DirectEnd(sock, settings.plane, handshake)
        _greet(end, settings, key, addresses_of(sock, Side.SOURCE), waiter)
        facts = {
            "name": settings.peer_name,
            "address": _format(sock.getpeername()),
            "local_address": _format(sock.getsockname()),
            "cipher": handshake.seen()["cipher"] if handshake is not None else None,
        }
    except BaseException:
        sock.close()
        raise
    return end, facts


class _Waiter:
    """Waits for a socket until a deadline, and says so when that has passed."""

    def __init__(self, sock: socket.socket, deadline: float, clock: Callable[[], float]) -> None:
        self.socket = sock
        self._deadline, self._clock = deadline, clock

    def wait(self, events: int, for_what: str) -> None:
        poller = select.poll()
        poller.register(self.socket, events)
        left = self._deadline - self._clock()
        if left <= 0 or not poller.poll(max(1, int(left * 1000))):
            raise _failed(f"No {for_what} in time")


def _connected(settings: DirectSettings, deadline: float, clock: Callable[[], float]) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.address else socket.AF_INET
    where = f"{settings.address} port {settings.port}"
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if settings.local_address is not None:
            sock.bind(place_of(settings.local_address, 0))
        try:
            sock.connect(place_of(settings.address, settings.port, settings.local_address or ""))
        except BlockingIOError:
            _Waiter(sock, deadline, clock).wait(select.POLLOUT, f"connection to {where}")
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code)) from None
    except OSError as error:
        sock.close()
        raise _failed(f"No connection to {where}: {error.strerror or error}") from error
    except BaseException:
        sock.close()
        raise
    return sock


def place_of(address: str, port: int, beside: str = "") -> Any:
    """What bind and connect want. Python takes a scope as a number only, not within the address.

    Args:
        address: With the scope of the node it was written for.
        port: The port.
        beside: Our own address: its scope is the name of the device here.
    """
    plain, percent, scope = address.partition("%")
    scope = beside.partition("%")[2] or scope if percent else ""
    flags = socket.AI_NUMERICHOST
    return socket.getaddrinfo(f"{plain}%{scope}" if scope else plain, port, type=socket.SOCK_STREAM, flags=flags)[0][4]


def _shaken(settings: DirectSettings, directory: str, waiter: _Waiter) -> Handshake:
    """TLS up to the point where this side believes it; the other side's verdict shows at the first read."""
    credentials = Credentials(directory)
    handshake = Handshake(Side.SOURCE, client_context(credentials), credentials, settings.peer_name)
    buffer = bytearray(16384)
    try:
        while True:
            try:
                done = handshake.advance()
            finally:  # an alert tells the peer why
                _send_all(waiter, handshake.to_send())
            if done:
                return handshake
            waiter.wait(select.POLLIN, "answer to the TLS handshake")
            handshake.receive(bytes(buffer[: waiter.socket.recv_into(buffer)]))
    except OSError as error:
        raise _lost(error) from error


def _send_all(waiter: _Waiter, data: bytes) -> None:
    while data:
        try:
            data = data[waiter.socket.send(data) :]
        except BlockingIOError:
            waiter.wait(select.POLLOUT, "room for the TLS handshake")


def _greet(end: DirectEnd, settings: DirectSettings, key: str, addresses: Addresses, waiter: _Waiter) -> None:
    nonce = os.urandom(32).hex()
    greeting = SourceGreeting(
        settings.plane, settings.migration_id, settings.stream, key, addresses, nonce, settings.opaque
    )
    end.send(greeting.hello())
    while not greeting.done:
        while end.pending and not end.flush():
            waiter.wait(select.POLLOUT, "room for the greeting")
        frames = end.receive()  # before waiting: it may be here already (direct-transports 10.1)
        if frames is None:
            raise GreetingRefused(
                "The target closed the connection without a word",
                side=Side.TARGET,
                object=settings.stream,
                remedy="See that incoming listens there for this migration and knows this node",
                facts={"refusal": "CLOSED"},
            )
        if not end.heard:
            waiter.wait(select.POLLIN, "WELCOME")
        for frame in frames:
            # The target beats from its WELCOME on; no beat is lost that the next one would not repeat.
            if not greeting.done:
                answer = greeting.receive(frame)
                if answer:
                    _look_at_network(end, settings, addresses)
                    end.send(answer)


def _look_at_network(end: DirectEnd, settings: DirectSettings, addresses: Addresses) -> None:
    """The target has proven itself and both addresses; it hears why, should we not go on."""
    if not settings.proven:
        return
    from .network_proof import prove  # pumps of other transports do without its memory

    try:
        prove(addresses, Side.SOURCE)
    except NetworkChanged as error:
        end.send(wire.abort(error.code, error.message))
        end.finish()
        raise


def _format(address: Any) -> str:
    """An address of a socket as both sides write it: a scope is known on one side only."""
    return f"[{str(address[0]).partition('%')[0]}]:{address[1]}"


def _failed(message: str) -> LinkLost:
    return LinkLost(
        message, side=Side.TARGET, object="incoming", remedy="Check address, port, route and firewall of the target"
    )


def _lost(error: OSError) -> LinkLost:
    reason = error.strerror or type(error).__name__
    return LinkLost(f"The connection between the workers broke: {reason}", side=Side.TARGET, object="connection")
