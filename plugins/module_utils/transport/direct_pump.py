# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The two ends of a stream of a direct transport: the source's pump process, and :func:`serve` on the target.

Source: dial, TLS, HELLO to WELCOME (``standing``), then beats until the command ``open``. Before QEMU may connect,
the target's QEMU is known to be there: a disk's NBD server has greeted. RAM is the exception, for its socket may be
touched once only: OPEN follows QEMU's connection. One connection is accepted, from one process.

Target: nothing is touched before OPEN; then the UNIX socket is connected, once.

It decides alone, without QMP and without the supervisor, when to cut (direct_guard.py): a ``close()`` of QEMU's socket.
"""

from __future__ import annotations

import os
import select
import socket
import time
from typing import Any, Callable, List, Optional, Protocol

from ..errors import CrossclusterError, Side, sentence
from ..qemu.errors import NbdInvalid
from ..qemu.nbd import GREETING_SIZE, check_greeting
from . import wire
from .books import Books
from .direct_carrier import Carrier
from .direct_end import DirectEnd, dial
from .direct_guard import DirectGuard, DirectLimits
from .errors import GreetingRefused, NetworkChanged, SettingsInvalid, TlsFailed
from .interface import DirectSettings, EndReason, EventName, Kind, PumpEnd, kind_of
from .local_end import InputEnd, Listener
from .opening import Opening
from .pacing import TokenBucket
from .pump_channel import PumpChannel
from .unix_end import UnixEnd, peer_pid
from .wire import FrameKind

__all__ = ["DirectPump", "TargetSocket", "connect_unix", "serve"]

STATS_INTERVAL = 0.5  # seconds
FAREWELL_SOURCE = 0.2  # seconds; the worker waits for our last word
FAREWELL_TARGET = 2.0
# Bytes that may come before anybody has connected here; a RAM stream has nothing to say before.
_EARLY = {Kind.NBD: GREETING_SIZE, Kind.CONTROL: 65536}


class DirectPump:
    """The source's end as a process; :meth:`run` returns how it ended.

    Args:
        settings: What to carry.
        secret: The migration's key for ``tcp``.
        channel: Commands in, events out.
        clock: Monotonic clock, seconds.
    """

    def __init__(
        self,
        settings: DirectSettings,
        secret: str,
        channel: PumpChannel,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._limits = DirectLimits.parse(settings.limits)
        self._secret = secret
        self._channel = channel
        self._clock = clock
        self.books = Books(settings.kind, settings.sized, clock(), settings.opaque)

    def run(self) -> PumpEnd:
        """Connect, stand, open, carry, close."""
        try:
            peer, facts = dial(self._settings, self._secret, self._clock)
        except (GreetingRefused, NetworkChanged, TlsFailed) as error:
            return PumpEnd(EndReason.REFUSED, False, _why(error), error.code)
        except CrossclusterError as error:
            return PumpEnd(EndReason.CONNECT_FAILED, False, _why(error), error.code)
        self._channel.tell(EventName.STANDING, {"peer": facts, "pid": os.getpid()})
        return _Source(self._settings, self._limits, peer, self._channel, self.books, self._clock).carry()


def _why(error: CrossclusterError) -> str:
    """For the person whose transport is not used because of it; the code goes beside it."""
    return sentence(error.message, "", error.remedy).rstrip(".")


class _Source(Carrier):
    """The source's end: QEMU connects here."""

    def __init__(
        self,
        settings: DirectSettings,
        limits: DirectLimits,
        peer: DirectEnd,
        channel: PumpChannel,
        books: Books,
        clock: Callable[[], float],
    ) -> None:
        now = clock()
        guard = DirectGuard(limits, now, kind=settings.kind, opaque=settings.opaque)
        super().__init__(peer, guard, settings.kind, clock, farewell=FAREWELL_SOURCE)
        self._settings = settings
        self._channel = channel
        self._books = books
        self._opening = Opening(settings.kind, settings.opaque)
        self._bucket = TokenBucket(settings.rate, now)
        self._listen = settings.listen
        self._asked = False  # the command ``open`` has come
        self._open_due = False  # OPEN is to be sent when nothing is on its way
        self._listener: Optional[Listener] = None
        self._early: List[bytes] = []  # what came before QEMU has connected
        self._early_size = 0
        self._draining_until: Optional[float] = None
        self._stats_due = now

    # Opening.

    def _open(self, listen: Optional[str], now: float) -> None:
        """The target's socket is there."""
        if self._asked:
            self._finish(EndReason.LOCAL_FAILED, False, "a stream is opened once")
            return
        self._asked = True
        self._listen = listen or self._listen
        if self._kind is not Kind.IMPORT and not self._listen:
            self._finish(EndReason.LOCAL_FAILED, False, "no socket to listen on was told")
        elif self._kind is Kind.RAM:
            self._meet()
        else:
            self._send_open(now)

    def _send_open(self, now: float) -> None:
        self._open_due = True
        self._guard.opening(now)

    def _speak(self, now: float) -> None:
        if self._open_due and not self._peer.pending:
            self._open_due = False
            self._peer.send(wire.encode(FrameKind.OPEN))
        super()._speak(now)

    def _peer_opens(self, kind: FrameKind, now: float) -> None:
        if kind is not FrameKind.OPENED or not self._asked or self._open_due:
            super()._peer_opens(kind, now)
        self._opened = True
        if self._kind is Kind.NBD:
            self._guard.opening(now)  # now its greeting is awaited
            return
        self._guard.opened()
        if self._kind is not Kind.RAM:
            self._meet()

    def _keep(self, slices: List[memoryview], now: float) -> None:
        """Nobody has connected here yet: an NBD server's greeting, or the first words of the listening end."""
        self._early += [bytes(view) for view in slices]
        self._early_size += sum(len(view) for view in slices)
        if self._early_size > _EARLY.get(self._kind, 0):
            super()._keep(slices, now)
        if self._kind is Kind.NBD and self._has_greeted():
            self._guard.opened()
            self._meet()

    def _has_greeted(self) -> bool:
        try:
            return check_greeting(b"".join(self._early))
        except NbdInvalid as error:
            self._finish(EndReason.NBD_INVALID, False, error.message)
            return False

    def _meet(self) -> None:
        """QEMU may connect now; an exporter runs already."""
        try:
            if self._settings.input_fd is not None:
                self._local = InputEnd(self._settings.input_fd)
            elif self._listen is not None:
                self._listener = Listener(self._listen)
        except OSError as error:
            self._finish(EndReason.LOCAL_FAILED, False, f"{self._listen}: {error.strerror}")
            return
        self._channel.tell(EventName.LISTENING, {"pid": os.getpid()})

    def _accept(self, now: float) -> None:
        connection = self._listener.accept_socket() if self._listener is not None else None
        if connection is None:
            return
        self._listener = None
        local = UnixEnd(connection)
        self._local = local
        wanted, found = self._settings.peer_pid, peer_pid(connection)
        if wanted is not None and found != wanted:
            self._finish(EndReason.LOCAL_FAILED, False, f"process {found} connected in the place of QEMU, {wanted}")
            return
        self._channel.tell(EventName.ATTACHED, {})
        if self._kind is Kind.RAM:
            self._send_open(now)
        elif self._early and not local.give([memoryview(data) for data in self._early]):
            self._stalled = True
            self._guard.suspend()

    def _state_more(self) -> Any:
        return self._listener

    def _watch_more(self) -> None:
        self._handle(self._channel.fileno(), select.POLLIN, self._commands)
        if self._listener is not None:
            self._handle(self._listener.fileno(), select.POLLIN, self._accept)

    # The books.

    def _may_send(self, data: memoryview, now: float) -> bool:
        if not self._opening.takes(data):
            self._finish(EndReason.CLEAR_TEXT, False, "QEMU does not encrypt what it was told to")
            return False
        try:
            if self._books.may_send(data, now):
                return True
        except NbdInvalid as error:
            self._finish(EndReason.NBD_INVALID, False, error.message)
            return False
        self._finish(EndReason.LENGTH_DIFFERS, False, f"more than the announced {self._books.announced} bytes")
        return False

    def _took(self, length: int, now: float) -> None:
        if self._bucket.rate is not None:
            self._bucket.take(length, now)
            self._throttled = self._bucket.wait(now) > 0

    def _came(self, slices: List[memoryview], now: float) -> None:
        try:
            for view in slices:
                self._books.came(view, now)
        except NbdInvalid as error:
            self._finish(EndReason.NBD_INVALID, False, error.message)

    def _local_failed(self, error: OSError) -> None:
        if self._local_ended:  # QEMU has left; what is still said to it, only the books hear
            self._local = InputEnd(os.open(os.devnull, os.O_RDONLY))
            self._stalled = False
            self._guard.resume(self._clock())
        else:
            super()._local_failed(error)

    def _consumed(self, total: int, now: float) -> None:
        self._books.consumed(total, now)
        self._guard.consumed(total, now)

    # The end.

    def _has_local_end(self, now: float) -> None:
        self._draining_until = now + self._settings.drain_timeout
        self._channel.tell(EventName.DRAINING, self._books.stats())

    def _is_clean(self) -> bool:
        return self._books.is_complete

    def _aborted(self, code: str, detail: str) -> None:
        # An NBD server leaves at the client's last request, so our last words may meet a closed socket.
        left = code == EndReason.LOCAL_FAILED.value and self._local_ended and self._kind is Kind.NBD
        if left and self._books.is_complete:
            self._finish(EndReason.LOCAL_EOF, True)
        else:
            super()._aborted(code, detail)

    def _close(self) -> None:
        if self._listener is not None:
            self._listener.close()
        super()._close()

    # Time and the worker.

    def _timeout(self) -> float:
        milliseconds = super()._timeout()
        if self._throttled:
            milliseconds = min(milliseconds, self._bucket.wait(self._clock()) * 1000)
        return milliseconds

    def _may_read(self) -> bool:
        if self._throttled:
            self._throttled = self._bucket.wait(self._clock()) > 0
        return super()._may_read()

    def _tick(self, now: float) -> None:
        guard, books = self._guard, self._books
        guard.sent(self._sent, now)
        reason = guard.verdict(now, oldest=books.oldest, negotiating=books.negotiating)
        if reason is not None:
            self._finish(reason, False)
        if self._draining_until is not None and now >= self._draining_until:
            self._finish(EndReason.DRAIN_TIMEOUT, False)
        if self._channel.is_orphaned():
            self._finish(EndReason.PARENT_GONE, False)
        if now >= self._stats_due:
            self._stats_due = now + STATS_INTERVAL
            self._channel.tell_stats(books.stats())

    def _commands(self, now: float) -> None:
        for command in self._channel.commands():
            self._obey(str(command.get("command")), command.get("value"), now)
        if self._channel.is_orphaned():
            self._finish(EndReason.PARENT_GONE, False)

    def _obey(self, name: str, value: Any, now: float) -> None:
        if name == "cut":
            self._finish(EndReason.CUT, False)
        elif name == "open":
            self._open((value or {}).get("listen"), now)
        elif name == "rate":
            self._bucket.set_rate(None if value is None else int(value), now)
        elif name == "write_blocking":
            self._guard.set_write_blocking(now)
        elif name == "arm":
            self._guard.arm(now, float(value))
        elif name == "disarm":
            self._guard.disarm()


class TargetSocket(Protocol):
    """How the target's end comes to its UNIX socket."""

    def connect(self) -> socket.socket:
        """Called once, at OPEN: a connected socket.

        Raises:
            OSError: there is none; or
            CrossclusterError: the same, with a sentence that the user on the other side reads.
        """


class _Target(Carrier):
    """The target's end: connects to QEMU when the source's QEMU is there."""

    def __init__(
        self, peer: DirectEnd, kind: Kind, target: TargetSocket, limits: DirectLimits, clock: Callable[[], float]
    ) -> None:
        super().__init__(peer, DirectGuard(limits, clock()), kind, clock, farewell=FAREWELL_TARGET)
        self._target = target
        self._opened_due = False

    def _peer_opens(self, kind: FrameKind, now: float) -> None:
        if kind is not FrameKind.OPEN or self._opened_due:
            super()._peer_opens(kind, now)
        try:
            self._local = UnixEnd(self._target.connect())
        except CrossclusterError as error:
            self._finish(EndReason.CONNECT_FAILED, False, f"{error.code}: {error.message}")
        except OSError as error:
            self._finish(EndReason.CONNECT_FAILED, False, f"the target's socket: {error.strerror or error}")
        else:
            self._local.enlarge()
            self._opened_due = True

    def _speak(self, now: float) -> None:
        if self._opened_due and not self._peer.pending and self._end is None:
            self._opened_due = False
            self._opened = True
            self._peer.send(wire.encode(FrameKind.OPENED))
        super()._speak(now)

    def _local_failed(self, error: OSError) -> None:
        """QEMU closed its socket with our bytes in it; an NBD server does so after the client's last request."""
        if self._kind is Kind.NBD and self._peer_ended and not self._local_ended:
            self._local_ended = True
            self._settle()
        else:
            super()._local_failed(error)

    def _tick(self, now: float) -> None:
        reason = self._guard.verdict(now)
        if reason is not None:
            self._finish(reason, False)


def serve(
    connection: DirectEnd,
    stream: str,
    target: TargetSocket,
    limits: DirectLimits,
    clock: Callable[[], float] = time.monotonic,
) -> PumpEnd:
    """Carry one authenticated stream on the target, from its WELCOME to its end.

    Args:
        connection: The source worker.
        stream: What it carries.
        target: Where to; not touched before OPEN.
        limits: The timers; of them only deadman and beat hold here.
        clock: Monotonic clock, seconds.
    """
    kind = kind_of(stream)
    if kind is None:
        raise SettingsInvalid(f"No stream is called {stream}", side=Side.TARGET, object="stream")
    return _Target(connection, kind, target, limits, clock).carry()


def connect_unix(path: str) -> socket.socket:
    """A connection to a UNIX socket of QEMU; never waits.

    Raises:
        OSError: Nobody listens there, or its queue is full.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection
