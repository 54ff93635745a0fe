# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The connection to a QEMU monitor: connect, act, disconnect.

QMP serves one client at a time and Proxmox waits only a few seconds for it (qemu-facts 8), so a session is
short: it has one deadline for everything in it, and never outlives its ``with`` block. An edge file: it opens
sockets. The clock is passed in.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import select
import socket
import struct
import time
from typing import Any, Callable, Collection, ContextManager, Deque, Iterator, Mapping, Optional

from ..errors import Side
from . import qmp
from .errors import QmpInvalid, QmpRefused, QmpTimeout, QmpUnreachable

__all__ = ["Monitor", "Session"]

READ_SIZE = 65536  # bytes per recv
MAX_EVENTS = 1000  # kept per session; older ones are dropped, a session lasts seconds


class Session:
    """One connected client of a monitor; made by :meth:`Monitor.session` only."""

    def __init__(self, sock: socket.socket, path: str, deadline: float, clock: Callable[[], float]) -> None:
        self._socket = sock
        self._path = path
        self._deadline = deadline
        self._clock = clock
        self._codec = qmp.Codec(path)
        self._messages: Deque[qmp.Message] = collections.deque()
        self._events: Deque[qmp.Event] = collections.deque(maxlen=MAX_EVENTS)
        self._count = 0

    def fileno(self) -> int:
        """The socket, for a poll loop."""
        return self._socket.fileno()

    def negotiate(self) -> None:
        """Read the greeting and leave capability negotiation.

        An event may come first: QEMU takes the connection in one thread and sends events from another.
        """
        message = self._next(self._deadline, "its greeting")
        while isinstance(message, qmp.Event):
            self._events.append(message)
            message = self._next(self._deadline, "its greeting")
        if not isinstance(message, qmp.Greeting):
            raise QmpInvalid("The monitor did not begin with a greeting", side=Side.SOURCE, object=self._path)
        self.execute("qmp_capabilities")

    def execute(self, command: str, arguments: Optional[Mapping[str, Any]] = None) -> Any:
        """Run one command and return its value.

        Raises:
            QmpRefused: QMP_REFUSED, QEMU answered with an error.
            QmpTimeout: QMP_TIMEOUT, no answer before the session's deadline; it may still be executed.
            QmpUnreachable: QMP_UNREACHABLE, QEMU hung up.
            QmpInvalid: QMP_INVALID, the answer is not QMP.
        """
        self._count += 1
        identity = f"crosscluster-{self._count}"
        self._send(qmp.command(command, arguments, identity))
        while True:
            message = self._next(self._deadline, f"the answer to {command}")
            if isinstance(message, qmp.Event):
                self._events.append(message)
                continue
            if isinstance(message, qmp.Greeting) or message.id != identity:
                raise QmpInvalid(f"The answer to {command} is out of order", side=Side.SOURCE, object=self._path)
            if isinstance(message, qmp.Failure):
                raise QmpRefused(command, message.error_class, message.description, object=self._path)
            return message.value

    def wait_event(self, names: Collection[str], deadline: float) -> Optional[qmp.Event]:
        """The next event with one of ``names``; None when ``deadline`` (clock seconds) passes first.

        Events with other names that came before it are dropped.
        """
        while self._events:
            event = self._events.popleft()
            if event.name in names:
                return event
        while True:
            try:
                message = self._next(deadline, "an event")
            except QmpTimeout:
                return None
            if not isinstance(message, qmp.Event):
                raise QmpInvalid("The monitor answered what was not asked", side=Side.SOURCE, object=self._path)
            if message.name in names:
                return message

    def _send(self, data: bytes) -> None:
        while data:
            try:
                data = data[self._socket.send(data) :]
            except BlockingIOError:
                self._wait(select.POLLOUT, self._deadline, "room for a command")
            except OSError as error:
                raise self._gone() from error

    def _next(self, deadline: float, what: str) -> qmp.Message:
        while not self._messages:
            self._wait(select.POLLIN, deadline, what)
            try:
                data = self._socket.recv(READ_SIZE)
            except BlockingIOError:
                continue
            except OSError as error:
                raise self._gone() from error
            if not data:
                raise self._gone()
            self._messages.extend(self._codec.receive(data))
        return self._messages.popleft()

    def _wait(self, events: int, deadline: float, what: str) -> None:
        left = deadline - self._clock()
        poll = select.poll()
        poll.register(self._socket, events)
        if not poll.poll(max(0.0, left) * 1000):
            raise QmpTimeout(f"The monitor did not give {what} in time", side=Side.SOURCE, object=self._path)

    def _gone(self) -> QmpUnreachable:
        return QmpUnreachable("QEMU closed its monitor: the process has ended", side=Side.SOURCE, object=self._path)


class Monitor:
    """A QEMU monitor at a UNIX socket path; holds no connection between sessions."""

    def __init__(self, path: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._clock = clock

    @contextlib.contextmanager
    def session(self, deadline: float) -> Iterator[Session]:
        """Connect, negotiate, and hand out a session that ends with the block.

        Args:
            deadline: Clock value (seconds) after which every wait of the session raises QMP_TIMEOUT.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._connect(sock, deadline)
            session = Session(sock, self.path, deadline, self._clock)
            session.negotiate()
            yield session
        finally:
            sock.close()

    def within(self, seconds: float) -> ContextManager[Session]:
        """A session that has to end within ``seconds`` from now."""
        return self.session(self._clock() + seconds)

    def run(self, command: str, arguments: Optional[Mapping[str, Any]] = None, timeout: float = 5.0) -> Any:
        """One command in a session of its own; ``timeout`` in seconds."""
        with self.within(timeout) as session:
            return session.execute(command, arguments)

    def _connect(self, sock: socket.socket, deadline: float) -> None:
        # A UNIX connect waits while the backlog is full (another client is being served) and only a send
        # timeout bounds that wait; a non-blocking connect would fail at once instead.
        left = max(0.001, deadline - self._clock())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(left), int(left % 1 * 1e6)))
        try:
            sock.connect(self.path)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                message = "The monitor is busy with another client"
                raise QmpTimeout(message, side=Side.SOURCE, object=self.path) from error
            message = f"No monitor answers: {error.strerror}"
            raise QmpUnreachable(message, side=Side.SOURCE, object=self.path) from error
        sock.setblocking(False)
