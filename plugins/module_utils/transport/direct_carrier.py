# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""Both directions between QEMU's socket and the other worker: the same loop at either end of a direct transport.

One frame out and one batch in at most: while the other worker does not take a frame, nothing is read from QEMU, and
while QEMU does not take a batch, nothing is read from the other worker. Memory stays flat at any speed.

The end of a stream (direct-transports 4.5): QEMU's end, then everything read is sent, then FIN; FIN received, then
everything is delivered, then QEMU sees the end. A stream has ended when both directions have. Everything else is a
failure: QEMU's socket is closed first, because that is what frees the guest, then ABORT tells the other side why.

An edge file, and the hot path of the product: no blocking call, few objects per frame.
"""

from __future__ import annotations

import select
import time
from typing import Any, Callable, Dict, List, Optional, Union

from ..errors import Side
from . import wire
from .direct_end import BATCH, DirectEnd
from .direct_guard import DirectGuard
from .errors import LinkLost, TlsFailed, WireError
from .interface import EndReason, Kind, PumpEnd
from .local_end import InputEnd
from .unix_end import UnixEnd
from .wire import Frame, FrameKind

__all__ = ["Carrier"]

TICK = 0.1  # seconds between looks at the guard
BURST_FRAMES = 8  # full frames before the other direction is looked at
# Of a bulk stream that flows, most of a batch comes together before it is read, or what has come after a pause: every
# wake-up has its price (direct-transports 2.1): on a link of 2 Gbit/s the target worker needs half the CPU so.
GATHER = BATCH - 64 * 1024
GATHER_PAUSE = 0.001  # seconds; the least that poll() can wait
FLOWING = 4096  # bytes; less is the end of something, or a word that somebody waits for
# QEMU's own TLS writes 16 KiB at a time: let several of them come together, but not so many that QEMU waits for us.
SHORT_READ = 64 * 1024  # bytes
READ_PAUSE = 0.00025  # seconds
FAREWELL = 2.0  # seconds to hear the peer's end after ours (direct-transports 4.5)

_WORDS = {
    EndReason.CUT: "the migration was ended on the other side",
    EndReason.PARENT_GONE: "the worker on the other side is gone",
    EndReason.GREETING_MISSING: "QEMU's NBD server did not greet",
    EndReason.ANSWER_MISSING: "the target QEMU did not answer",
    EndReason.SWITCHOVER_DEADLINE: "the switchover took too long",
    EndReason.PEER_SILENT: "nothing was heard any more",
    EndReason.PEER_STALLED: "the target QEMU did not read any more",
    EndReason.DRAIN_TIMEOUT: "the end of the stream was not answered",
}
_NEVER = float("inf")
_ORDINARY = (EndReason.LOCAL_EOF, EndReason.SERVER_CLOSED)

Local = Union[UnixEnd, InputEnd]


class Carrier:
    """Carries one stream from its WELCOME on; a role adds when QEMU is met and what it watches.

    Args:
        peer: The other worker.
        guard: The timers.
        kind: What the stream carries.
        clock: Monotonic clock, seconds.
        farewell: Seconds to hear the peer's end after a failure, for our ABORT to arrive.
    """

    def __init__(
        self, peer: DirectEnd, guard: DirectGuard, kind: Kind, clock: Callable[[], float], *, farewell: float
    ) -> None:
        self._peer = peer
        self._guard = guard
        self._kind = kind
        self._clock = clock
        self._farewell = farewell
        self._is_bulk = kind in (Kind.RAM, Kind.IMPORT)
        self._local: Optional[Local] = None
        self._end: Optional[PumpEnd] = None
        self._is_dead = False  # the connection: nothing can be said any more
        self._poll = select.poll()
        self._handlers: Dict[int, Callable[[float], None]] = {}
        self._state: Any = None
        self._more = True  # the TLS object may hold bytes that poll() does not see: read before waiting
        self._opened = False  # OPENED has passed: data may flow
        self._stalled = False  # our QEMU does not take what came
        self._throttled = False
        self._local_ended = False
        self._fin_sent = False
        self._peer_ended = False
        self._delivered = False
        self._first_end: Optional[EndReason] = None
        self._sent = 0
        self._due = clock()
        self._gather_due = _NEVER  # when to read what has come, although poll() shows nothing
        if self._is_bulk:
            peer.expect_bulk()

    def carry(self) -> PumpEnd:
        """Run to the end, which it returns."""
        try:
            while self._end is None:
                self._register()
                ready = self._poll.poll(self._timeout())
                now = self._clock()
                try:
                    for descriptor, _events in ready:
                        self._handlers[descriptor](now)
                    if (self._more or now >= self._gather_due) and not self._stalled:
                        self._pull(now)
                    self._speak(now)
                    if now >= self._due:
                        self._due = now + TICK
                        self._tick(now)
                except LinkLost as error:
                    self._lost(error.message)
                except (WireError, TlsFailed) as error:
                    self._finish(EndReason.SERVER_LOST, False, f"{error.code}: {error.message}")
        finally:
            self._close()
        return self._end or PumpEnd(EndReason.DIED, False)

    # What a role adds.

    def _watch_more(self) -> None:
        """Register what else is to be polled, with :meth:`_handle`."""

    def _state_more(self) -> Any:
        """What decides about :meth:`_watch_more`."""

    def _may_send(self, data: memoryview, now: float) -> bool:
        """Look at what QEMU sends; False when it may not."""
        return True

    def _took(self, length: int, now: float) -> None:
        """So many bytes of QEMU are on their way; may set ``_throttled``."""

    def _came(self, slices: List[memoryview], now: float) -> None:
        """Look at what came for QEMU."""

    def _keep(self, slices: List[memoryview], now: float) -> None:
        """Data came before QEMU did."""
        raise _unexpected("data before QEMU")

    def _peer_opens(self, kind: FrameKind, now: float) -> None:
        """OPEN or OPENED came."""
        raise _unexpected(f"a {kind.name} out of turn")

    def _consumed(self, total: int, now: float) -> None:
        """The other QEMU has read so many bytes."""

    def _has_local_end(self, now: float) -> None:
        """Our QEMU has finished."""

    def _tick(self, now: float) -> None:
        """Every 0.1 s: guard, statistics."""

    def _is_clean(self) -> bool:
        """Whether a stream that ended in both directions said everything it had to."""
        return True

    # The loop.

    def _timeout(self) -> float:
        """Milliseconds for poll()."""
        if self._more and not self._stalled:
            return 0
        due = self._due if self._stalled else min(self._due, self._gather_due)
        return max(0.0, (due - self._clock()) * 1000)  # poll() rounds up to whole milliseconds

    def _register(self) -> None:
        """Poll for what can be worked on now; the kernel is only told of changes.

        What has no interest now is left out altogether: poll() would report its hang-up again and again.
        """
        peer, local = self._peer, self._local
        reads = self._may_read()
        state = (reads, self._stalled, peer.pending, local, local and local.pending, self._state_more())
        if state == self._state:
            return
        self._state = state
        for descriptor in self._handlers:
            self._poll.unregister(descriptor)
        self._handlers.clear()
        mask = (0 if self._stalled else select.POLLIN) | (select.POLLOUT if peer.pending else 0)
        self._handle(peer.fileno(), mask, self._serve_peer)
        if local is not None:
            mask = (select.POLLIN if reads else 0) | (select.POLLOUT if local.pending else 0)
            self._handle(local.fileno(), mask, self._serve_local)
        self._watch_more()

    def _handle(self, descriptor: int, mask: int, handler: Callable[[float], None]) -> None:
        if mask:
            self._poll.register(descriptor, mask)
            self._handlers[descriptor] = handler

    def _may_read(self) -> bool:
        """Whether another frame of QEMU may be taken: one frame in flight, and the rate allows it."""
        return self._opened and not (self._peer.pending or self._throttled or self._local_ended)

    def _serve_peer(self, now: float) -> None:
        if self._peer.pending:
            self._peer.flush()
        if not self._stalled:
            self._pull(now)

    def _serve_local(self, now: float) -> None:
        local = self._local
        try:
            if local is not None and local.pending and local.flush():
                self._stalled = False
                self._more = True
                self._guard.resume(now)
                self._settle()
            self._speak(now)  # a beat in time also under traffic (direct-transports 4.3, trap a)
            if local is not None and self._may_read():
                self._push(local, now)
        except OSError as error:
            self._local_failed(error)

    # From QEMU to the other worker.

    def _push(self, local: Local, now: float) -> None:
        """Carry frames until QEMU has no full one, the kernel takes no more, or the rate is used."""
        peer = self._peer
        room = peer.room
        full = len(room)
        for _frame in range(BURST_FRAMES):
            length = local.recv_into(room)
            if length is None:
                return
            if length == 0:
                self._local_ended = True
                self._first_end = self._first_end or EndReason.LOCAL_EOF
                self._has_local_end(now)
                return
            if not self._may_send(room[:length], now):
                return
            self._sent += length
            taken = peer.send_room(length)
            self._took(length, now)
            if not taken or self._throttled:
                return
            if self._is_bulk:  # QEMU has written on meanwhile: another read is cheaper than a poll
                if FLOWING < length < SHORT_READ:
                    time.sleep(READ_PAUSE)
            elif length < full:
                return

    def _speak(self, now: float) -> None:
        """A beat when it is time, FIN when QEMU has finished; behind the frame that is under way, if there is one."""
        peer = self._peer
        if peer.pending or self._end is not None:
            return
        if self._local_ended and not self._fin_sent:
            self._fin_sent = True
            # What QEMU has read is told once more: the peer's books shall be complete at the end.
            peer.send(wire.beat(self._read_by_qemu()) + wire.encode(FrameKind.FIN))
            self._guard.beat_sent(now)
            self._settle()
        elif self._guard.beat_due(now):
            peer.send(wire.beat(self._read_by_qemu()))
            self._guard.beat_sent(now)

    def _read_by_qemu(self) -> int:
        return self._local.consumed if self._local is not None else 0

    # From the other worker to QEMU.

    def _pull(self, now: float) -> None:
        """Take one batch of the other worker."""
        peer = self._peer
        self._more = False
        frames = peer.receive()
        if frames is None:
            self._lost("the other worker closed the connection without saying why")
            return
        if not peer.heard:
            self._gather(0, now)
            return
        self._guard.heard(now)
        self._more = peer.hidden
        data: List[Any] = []
        size = 0
        for frame in frames:
            if frame.kind is FrameKind.DATA:
                if not self._opened or self._peer_ended:
                    raise _unexpected("data out of turn")
                data.append(frame.payload)
                size += len(frame.payload)
            else:
                self._hear(frame, now)
        if self._end is not None:
            return
        self._gather(size, now)
        if data:
            self._deliver(data, now)
        self._settle()

    def _deliver(self, slices: List[memoryview], now: float) -> None:
        self._guard.answered(now)
        self._came(slices, now)
        if self._end is not None:
            return
        if self._local is None:
            self._keep(slices, now)
            return
        try:
            if not self._local.give(slices):
                self._stalled = True
                self._guard.suspend()
        except OSError as error:
            self._local_failed(error)

    def _hear(self, frame: Frame, now: float) -> None:
        """A frame that is no data."""
        kind = frame.kind
        if kind is FrameKind.BEAT:
            consumed = frame.consumed
            if consumed > self._sent:
                raise _unexpected("a BEAT that counts more than was sent")
            self._consumed(consumed, now)
        elif kind is FrameKind.ABORT:
            fields = frame.fields
            detail = wire.printable(f"{fields.get('code')}: {fields.get('text')}")
            self._aborted(str(fields.get("code")), detail)
        elif kind is FrameKind.FIN and self._opened and not self._peer_ended:
            self._peer_ended = True
            self._first_end = self._first_end or EndReason.SERVER_CLOSED
        elif kind in (FrameKind.OPEN, FrameKind.OPENED) and not self._opened:
            self._peer_opens(kind, now)
        else:
            raise _unexpected(f"a {kind.name} out of turn")

    def _gather(self, came: int, now: float) -> None:
        """So many bytes came at once: decide how the next ones are waited for."""
        flows = self._is_bulk and came > FLOWING
        self._gather_due = now + GATHER_PAUSE if flows else _NEVER
        self._peer.gather(GATHER if flows else 1)

    # The end.

    def _settle(self) -> None:
        """Whether a direction has ended, or both have."""
        local = self._local
        if self._peer_ended and not self._delivered and not (local is not None and local.pending):
            self._delivered = True
            if local is None:
                self._finish(EndReason.SERVER_CLOSED, False, "before QEMU came")
            else:
                local.finish()
        if self._delivered and self._fin_sent and self._first_end is not None:
            self._finish(self._first_end, self._is_clean())

    def _finish(self, reason: EndReason, clean: bool, detail: str = "") -> None:
        if self._end is None:
            self._end = PumpEnd(reason, clean, detail)

    def _aborted(self, code: str, detail: str) -> None:
        self._finish(EndReason.PEER_ABORTED, False, detail)

    def _lost(self, detail: str) -> None:
        self._is_dead = True
        self._finish(EndReason.SERVER_LOST, False, detail)

    def _local_failed(self, error: OSError) -> None:
        self._finish(EndReason.LOCAL_FAILED, False, f"QEMU's socket: {error.strerror or type(error).__name__}")

    def _close(self) -> None:
        """QEMU first: that is what frees the guest."""
        if self._local is not None:
            self._local.close()
        peer, end = self._peer, self._end
        if end is None or self._is_dead or peer.pending:
            peer.abort()
            return
        try:
            if end.reason not in (*_ORDINARY, EndReason.PEER_ABORTED):
                peer.send(wire.abort(end.reason.value, end.detail or _WORDS.get(end.reason, "")))
        except (LinkLost, TlsFailed):
            pass
        peer.finish()
        peer.linger(FAREWELL if end.reason in _ORDINARY else self._farewell, self._clock)
        peer.close()


def _unexpected(what: str) -> WireError:
    return WireError(f"The connection between the workers carries {what}", side=Side.TARGET, object="stream")
