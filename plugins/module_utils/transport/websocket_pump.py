# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The pump: one process that carries one byte stream between a UNIX socket (or a pipe) and a websocket.

Order of its life: settings from stdin, websocket opened, NBD greeting seen, listener opened, QEMU's one
connection accepted, bytes carried, close frame and drain at the local end's EOF. It keeps one frame in
flight: while the kernel does not take it, nothing is read from QEMU, so memory stays flat at any speed.

It decides alone, without QMP and without the worker, when to cut (guard.py): the cut is a ``close()`` of
QEMU's socket. The end of its stdin or of its parent is a cut too: QEMU must never wait for a worker that is
gone. An edge file, and the hot path of the product: few imports, few objects per frame (tunnel-performance 4).
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from typing import Any, Callable, Dict, List, Optional, Protocol, Union, cast

from ..errors import CrossclusterError
from ..proxmox.endpoint import Endpoint
from ..qemu.errors import NbdInvalid
from ..qemu.nbd import check_greeting
from ..websocket import frames
from ..websocket.errors import WebsocketError
from .books import Books
from .errors import LinkLost
from .guard import Guard
from .interface import EndReason, EventName, Kind, PlainSettings, PumpEnd, PumpSettings
from .local_end import InputEnd, Listener, SocketEnd
from .pacing import TokenBucket
from .pump_channel import PumpChannel
from .remote_end import DEFAULT_PAYLOAD, WebsocketEnd

__all__ = ["Pump"]

TICK = 0.1  # seconds between looks at guard, commands' effects and statistics
STATS_INTERVAL = 0.5  # seconds
BURST_FRAMES = 8  # full frames before the other direction is looked at
# Bytes from which a read that did not fill the frame is tried again: half-empty frames cost records.
COALESCE_FROM = 4096

Local = Union[SocketEnd, InputEnd]


class FarEnd(Protocol):
    """What carries the bytes to the target: a :class:`WebsocketEnd`, or another end of the same kind."""

    room: memoryview

    @property
    def pending(self) -> int:
        """Bytes that the kernel has not taken yet."""

    @property
    def hidden(self) -> bool:
        """Whether bytes have come that poll() no longer shows."""

    def fileno(self) -> int:
        """Descriptor to poll."""

    def send_room(self, length: int) -> bool:
        """Send the first ``length`` bytes of ``room``; True when the kernel has all of it."""

    def send_close(self) -> None:
        """Nothing more will be sent."""

    def flush(self) -> bool:
        """Try again; True when nothing waits."""

    def receive(self) -> Optional[List[frames.Event]]:
        """What one read brought, None at the end of the connection."""

    def abort(self) -> None:
        """Cut with a reset."""

    def close(self) -> None:
        """Close an ended connection."""


class Pump:
    """Carries one stream; :meth:`run` returns how it ended.

    Args:
        settings: What to carry.
        secret: The token's secret.
        channel: Commands in, events out.
        clock: Monotonic clock, seconds.
    """

    _remote: FarEnd
    _guard: Guard

    def __init__(
        self,
        settings: Union[PumpSettings, PlainSettings],
        secret: str,
        channel: PumpChannel,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._secret = secret
        self._channel = channel
        self._clock = clock
        self._poll = select.poll()
        self._handlers: Dict[int, Callable[[float], None]] = {}
        self._state: Any = None
        self._end: Optional[PumpEnd] = None
        self._listener: Optional[Listener] = None
        self._local: Optional[Local] = None
        self._early: List[bytes] = []  # what the server sent before QEMU connected
        self._draining_until: Optional[float] = None
        self._throttled = False
        self._stalled = False
        self._more = False  # the TLS object may hold bytes that poll() does not see
        self._sent_before = 0
        now = clock()
        self.books = Books(settings.kind, settings.sized, now)
        self._bucket = TokenBucket(settings.rate, now)

    def run(self) -> PumpEnd:
        """Open, carry, close."""
        is_nbd = self._settings.kind is Kind.NBD
        try:
            self._connect(is_nbd)
        except CrossclusterError as error:
            return PumpEnd(EndReason.CONNECT_FAILED, False, f"{error.code}: {error.message}")
        self._due = self._stats_due = self._clock()
        try:
            if not is_nbd:
                self._open_local()
            self._loop()
        finally:
            self._close()
        return self._end or PumpEnd(EndReason.DIED, False)

    def _connect(self, is_nbd: bool) -> None:
        """Make the far end and its guard.

        Raises:
            CrossclusterError: there is no connection.
        """
        settings = cast(PumpSettings, self._settings)
        self._remote = self._websocket = WebsocketEnd.open(
            Endpoint(**settings.endpoint),
            self._secret,
            settings.path,
            timeout=settings.open_timeout,
            payload=settings.payload or DEFAULT_PAYLOAD,
            clock=self._clock,
        )
        self._guard = Guard(awaits_greeting=is_nbd, now=self._clock())

    # The loop.

    def _loop(self) -> None:
        self._more = True
        while self._end is None:
            self._register()
            ready = self._poll.poll(self._timeout())
            now = self._clock()
            try:
                for descriptor, _events in ready:
                    self._handlers[descriptor](now)
                if self._more:
                    self._pull(now)
                if self._throttled:
                    self._throttled = self._bucket.wait(now) > 0
                if now >= self._due:
                    self._tick(now)
            except (WebsocketError, LinkLost) as error:
                self._server_lost(f"{error.code}: {error.message}")
            except NbdInvalid as error:
                self._finish(EndReason.NBD_INVALID, False, error.message)

    def _timeout(self) -> float:
        """Milliseconds for poll()."""
        if self._more:
            return 0
        now = self._clock()
        left = self._due - now
        if self._throttled:
            left = min(left, self._bucket.wait(now))
        return max(0.0, left * 1000)  # poll() rounds up to whole milliseconds

    def _register(self) -> None:
        """Poll for what can be worked on now; the kernel is only told of changes.

        What has no interest now is left out altogether: poll() would report its hang-up again and again.
        """
        remote, local = self._remote, self._local
        state = (self._may_read(), self._stalled, remote.pending > 0, local and local.pending > 0, self._listener)
        if state == self._state:
            return
        self._state = state
        for descriptor in self._handlers:
            self._poll.unregister(descriptor)
        self._handlers.clear()
        self._handle(self._channel.fileno(), select.POLLIN, self._commands)
        mask = (0 if self._stalled else select.POLLIN) | (select.POLLOUT if remote.pending else 0)
        self._handle(remote.fileno(), mask, self._serve_remote)
        if local is not None:
            mask = (select.POLLIN if self._may_read() else 0) | (select.POLLOUT if local.pending else 0)
            self._handle(local.fileno(), mask, self._serve_local)
        elif self._listener is not None:
            self._handle(self._listener.fileno(), select.POLLIN, self._accept)

    def _handle(self, descriptor: int, mask: int, handler: Callable[[float], None]) -> None:
        if mask:
            self._poll.register(descriptor, mask)
            self._handlers[descriptor] = handler

    def _may_read(self) -> bool:
        """Whether another frame of QEMU may be taken: one frame in flight, and the rate allows it."""
        return not self._remote.pending and not self._throttled and self._draining_until is None

    def _serve_remote(self, now: float) -> None:
        if self._remote.pending:
            self._remote.flush()
        if not self._stalled:
            self._pull(now)

    # From QEMU to the server.

    def _serve_local(self, now: float) -> None:
        local = self._local
        try:
            if local is not None and local.pending and local.flush():
                self._unstall(now)
            if self._may_read():
                self._push(now)
        except OSError as error:
            self._finish(EndReason.LOCAL_FAILED, False, error.strerror or "")

    def _push(self, now: float) -> None:
        """Carry frames to the server until QEMU has no full one, the kernel takes no more, or the rate is used."""
        local, remote = self._local, self._remote
        if local is None:
            return
        room = remote.room
        full = len(room)
        for _frame in range(BURST_FRAMES):
            length = local.recv_into(room)
            if length is None:
                return
            if length == 0:
                self._local_eof(now)
                return
            if COALESCE_FROM <= length < full:
                length += local.recv_into(room[length:]) or 0
            if not self.books.may_send(room[:length], now):
                self._finish(EndReason.LENGTH_DIFFERS, False, f"more than the announced {self.books.announced} bytes")
                return
            taken = remote.send_room(length)
            if self._bucket.rate is not None:
                self._bucket.take(length, now)
                self._throttled = self._bucket.wait(now) > 0
                if self._throttled:
                    return
            if not taken or length < full:
                return

    def _local_eof(self, now: float) -> None:
        """QEMU or the exporter has finished: say so by a close frame and wait for the server's end."""
        if self._local is not None:
            self._local.close()
            self._local = None
        self._stalled = False
        self._more = True
        self._remote.send_close()
        self._draining_until = now + self._settings.drain_timeout
        self._channel.tell(EventName.DRAINING, self.books.stats())

    # From the server to QEMU.

    def _pull(self, now: float) -> None:
        """Take what the server sent until there is nothing, or until QEMU does not take it."""
        self._more = False
        while self._end is None:
            if self._local is not None and self._local.pending:
                self._stalled = True
                self._guard.suspend()
                return
            events = self._remote.receive()
            if events is None:
                self._server_eof()
                return
            for event in events:
                self._event(event, now)
            if not events or not self._remote.hidden:
                return

    def _unstall(self, now: float) -> None:
        self._stalled = False
        self._more = True
        self._guard.resume(now)

    def _event(self, event: frames.Event, now: float) -> None:
        if isinstance(event, frames.Data):
            self._deliver(event.payload, now)
        elif isinstance(event, frames.Pong):
            self._guard.pong(event.payload, now)
            self.books.ponged(event.payload)
        elif isinstance(event, frames.Close):
            self._server_eof()

    def _deliver(self, data: bytes, now: float) -> None:
        self.books.came(data, now)
        if self._draining_until is not None:
            return
        if self._local is None:
            self._keep(data)
            return
        try:
            self._local.send(data)
        except OSError as error:
            self._finish(EndReason.LOCAL_FAILED, False, error.strerror or "")

    def _keep(self, data: bytes) -> None:
        """Before QEMU has connected only an NBD server has something to say: its greeting."""
        self._early.append(data)
        early = b"".join(self._early)
        if self._settings.kind is not Kind.NBD or len(early) > frames.MAX_PAYLOAD:
            self._finish(EndReason.SERVER_LOST, False, "the target spoke before it was asked")
        elif self._listener is None and check_greeting(early):
            self._guard.greeted()
            self._open_local()

    def _server_eof(self) -> None:
        if self._draining_until is not None:
            self._end_of_drain()
            return
        # What the server sent before belongs to QEMU: on the RAM stream the last words of the return path
        # decide whether the source succeeds (direct-transports 4.5).
        if self._local is not None and self._local.pending:
            with contextlib.suppress(OSError):
                self._local.flush()
        undelivered = self._local.pending if self._local is not None else 0
        # The last bytes of RAM are proven by QEMU's return path, not by us; an NBD server never leaves first.
        proven = self._settings.kind is Kind.RAM and self.books.received > 0
        self._finish(EndReason.SERVER_CLOSED, proven and not undelivered and not self._remote.pending)

    def _end_of_drain(self) -> None:
        books = self.books
        if self._remote.pending:
            self._finish(EndReason.SERVER_CLOSED, False, "before everything was sent")
        elif books.is_complete:
            self._finish(EndReason.LOCAL_EOF, True)
        elif books.ledger is not None:
            self._finish(EndReason.LOCAL_EOF, False, "written bytes without an answer")
        else:
            self._finish(EndReason.LENGTH_DIFFERS, False, f"{books.sent} bytes of the announced {books.announced}")

    def _server_lost(self, detail: str) -> None:
        ledger = self.books.ledger
        if self._draining_until is not None and ledger is not None and not ledger.outstanding:
            # An NBD server ends at the client's last request, so the close frame may meet a closed socket.
            self._end_of_drain()
        self._finish(EndReason.SERVER_LOST, False, detail)

    # Opening and closing.

    def _open_local(self) -> None:
        settings = self._settings
        try:
            if settings.listen is not None:
                self._listener = Listener(settings.listen)
            elif settings.input_fd is not None:
                self._local = InputEnd(settings.input_fd)
        except OSError as error:
            self._finish(EndReason.LOCAL_FAILED, False, f"{settings.listen}: {error.strerror}")
            return
        self._channel.tell(EventName.LISTENING, {"pid": os.getpid()})

    def _accept(self, now: float) -> None:
        if self._listener is None:
            return
        connection = self._listener.accept()
        if connection is None:
            return
        self._listener, self._local = None, connection
        self._channel.tell(EventName.ATTACHED, {})
        early, self._early = self._early, []
        try:
            for data in early:
                connection.send(data)
        except OSError as error:
            self._finish(EndReason.LOCAL_FAILED, False, error.strerror or "")

    def _finish(self, reason: EndReason, clean: bool, detail: str = "") -> None:
        if self._end is None:
            self._end = PumpEnd(reason, clean, detail)

    def _close(self) -> None:
        """QEMU first: that is what frees the guest."""
        if self._local is not None:
            self._local.close()
        if self._listener is not None:
            self._listener.close()
        if self._end is not None and self._end.reason in (EndReason.LOCAL_EOF, EndReason.SERVER_CLOSED):
            self._remote.close()
        else:
            self._remote.abort()

    # Time and the worker.

    def _tick(self, now: float) -> None:
        self._due = now + TICK
        if self._draining_until is None:
            self._watch(now)
        elif now >= self._draining_until:
            self._finish(EndReason.DRAIN_TIMEOUT, False)
        if self._channel.is_orphaned():
            self._finish(EndReason.PARENT_GONE, False)
        if now >= self._stats_due:
            self._stats_due = now + STATS_INTERVAL
            self._channel.tell_stats(self.books.stats())

    def _watch(self, now: float) -> None:
        """Ping when it is time, and ask the guard whether QEMU must be freed."""
        guard, books = self._guard, self.books
        if books.sent != self._sent_before:
            self._sent_before = books.sent
            guard.sent(now)
        if guard.ping_due(now):
            self._ping(now)
        reason = guard.verdict(now, oldest=books.oldest, negotiating=books.negotiating)
        if reason is not None:
            self._finish(reason, False)

    def _ping(self, now: float) -> None:
        payload = self._guard.ping_sent(now)
        self.books.pinged(payload)
        self._websocket.send_ping(payload)

    def _commands(self, now: float) -> None:
        for command in self._channel.commands():
            self._obey(str(command.get("command")), command.get("value"), now)
        if self._channel.is_orphaned():
            self._finish(EndReason.PARENT_GONE, False)

    def _obey(self, name: str, value: Any, now: float) -> None:
        if name == "cut":
            self._finish(EndReason.CUT, False)
        elif name == "rate":
            self._bucket.set_rate(None if value is None else int(value), now)
        elif name == "write_blocking":
            self._guard.set_write_blocking(now)
        elif name == "arm":
            self._guard.arm(now, float(value))
        elif name == "disarm":
            self._guard.disarm()
