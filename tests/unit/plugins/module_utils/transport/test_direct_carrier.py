# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The loop of both ends against frames written by hand: what may come when, and what the other side is told."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from typing import Any, Callable, Iterator, List, Optional, Tuple

import pytest

from ansible_collections.crosscluster.migration.plugins.module_utils.transport import direct_carrier, wire
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.direct_carrier import Carrier
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.direct_end import DirectEnd
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.direct_guard import (
    DirectGuard,
    DirectLimits,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.interface import (
    EndReason,
    Kind,
    PumpEnd,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.unix_end import UnixEnd
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.wire import FrameKind

FIN, OPEN = wire.encode(FrameKind.FIN), wire.encode(FrameKind.OPEN)


def data(payload: bytes) -> bytes:
    return wire.header(len(payload)) + payload


class Opened(Carrier):
    """A carrier whose QEMU is there from the beginning."""

    def __init__(self, peer: DirectEnd, qemu: socket.socket, limits: DirectLimits, kind: Kind) -> None:
        super().__init__(peer, DirectGuard(limits, time.monotonic()), kind, time.monotonic, farewell=1.0)
        self._local = UnixEnd(qemu)
        self._opened = True

    def _tick(self, now: float) -> None:
        reason = self._guard.verdict(now)
        if reason is not None:
            self._finish(reason, False)


class Scene:
    """The carrier in a thread; the test is the other worker and QEMU."""

    def __init__(self, kind: Kind = Kind.RAM, pair: Callable[..., Any] = socket.socketpair, **limits: float) -> None:
        near, self.peer = pair()
        qemu, self.qemu = socket.socketpair()
        self.peer.settimeout(10)
        self.qemu.settimeout(10)
        self._decoder = wire.Decoder(10**6)
        carrier = Opened(DirectEnd(near, "tcp"), qemu, DirectLimits.parse({"deadman": 10.0, **limits}), kind)
        self.result: Optional[PumpEnd] = None
        self._thread = threading.Thread(target=self._run, args=(carrier,), daemon=True)
        self._thread.start()

    def _run(self, carrier: Carrier) -> None:
        self.result = carrier.carry()

    def until(self, kind: FrameKind) -> List[Tuple[FrameKind, Any]]:
        """The frames up to the first of a kind, which is the last one."""
        frames: List[Tuple[FrameKind, Any]] = []
        while True:
            got = self.peer.recv(65536)
            assert got, f"no {kind.name}: {frames}"
            for frame in self._decoder.receive(got):
                frames.append((frame.kind, bytes(frame.payload)))
                if frame.kind is kind:
                    return frames

    def end(self) -> PumpEnd:
        self._thread.join(10)
        assert self.result is not None
        return self.result


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.peer.close()
    made.qemu.close()


def test_stream_ends_when_both_directions_have(scene: Scene) -> None:
    scene.peer.sendall(data(b"abc") + FIN)
    assert scene.qemu.recv(10) == b"abc"
    assert scene.qemu.recv(10) == b""
    scene.qemu.sendall(b"xyz")
    scene.qemu.close()
    frames = scene.until(FrameKind.FIN)
    assert b"".join(payload for kind, payload in frames if kind is FrameKind.DATA) == b"xyz"
    assert struct.unpack(">Q", frames[-2][1]) == (3,)  # the last beat tells what QEMU has read
    assert scene.peer.recv(1) == b""
    scene.peer.close()
    assert scene.end() == PumpEnd(EndReason.SERVER_CLOSED, True)


def test_beats_come_in_time_also_under_traffic() -> None:
    scene = Scene(beat=0.1)
    began = time.monotonic()
    beats = 0
    while time.monotonic() - began < 1.0:
        scene.qemu.sendall(bytes(1000))
        beats += sum(frame.kind is FrameKind.BEAT for frame in scene._decoder.receive(scene.peer.recv(65536)))
    assert beats >= 4
    scene.peer.close()
    scene.qemu.close()
    scene.end()


@pytest.mark.parametrize(
    "said",
    [OPEN, wire.encode(FrameKind.OPENED), wire.message(FrameKind.HELLO, {}), FIN + FIN, FIN + data(b"x"), wire.beat(1),
     b"GET / HTTP/1.1\r\n\r\n"],
    ids=["open", "opened", "hello", "fin-twice", "data-after-fin", "beat-of-nothing", "http"],
)  # fmt: skip
def test_what_does_not_belong_ends_the_stream_and_is_told(scene: Scene, said: bytes) -> None:
    scene.peer.sendall(said)
    _kind, payload = scene.until(FrameKind.ABORT)[-1]
    assert b"WIRE_INVALID" in payload
    assert scene.qemu.recv(1) == b""
    scene.peer.close()
    assert scene.end().reason is EndReason.SERVER_LOST


def test_abort_of_the_peer_closes_qemu_at_once_and_reaches_the_user(scene: Scene) -> None:
    scene.peer.sendall(data(b"abc") + wire.abort("answer_missing", "the target QEMU\ndid not answer"))
    while scene.qemu.recv(10):
        pass
    scene.peer.close()
    assert scene.end() == PumpEnd(EndReason.PEER_ABORTED, False, "answer_missing: the target QEMU did not answer")


def test_end_of_the_connection_without_fin_is_a_loss(scene: Scene) -> None:
    scene.peer.close()
    assert scene.qemu.recv(1) == b""
    assert scene.end().reason is EndReason.SERVER_LOST


def test_broken_qemu_is_told_to_the_peer(scene: Scene) -> None:
    scene.peer.sendall(data(b"unread"))
    time.sleep(0.1)
    scene.qemu.close()
    assert b"local_failed" in scene.until(FrameKind.ABORT)[-1][1]
    scene.peer.close()
    assert scene.end().reason is EndReason.LOCAL_FAILED


def test_silent_peer_frees_qemu() -> None:
    scene = Scene(deadman=1.0)
    began = time.monotonic()
    assert scene.qemu.recv(1) == b""
    assert time.monotonic() - began >= 0.9
    assert scene.end().reason is EndReason.PEER_SILENT
    assert b"nothing was heard" in scene.until(FrameKind.ABORT)[-1][1]


def test_peer_that_does_not_read_stops_qemu_and_not_the_memory(scene: Scene) -> None:
    scene.qemu.settimeout(0.3)
    sent = 0
    with contextlib.suppress(socket.timeout):
        while sent < 1 << 26:
            sent += scene.qemu.send(bytes(65536))
    assert sent < 1 << 22
    scene.peer.close()
    assert scene.end().reason is EndReason.SERVER_LOST


class Gathering:
    """A carrier that is asked, not run; the clock stands still."""

    def __init__(self, kind: Kind) -> None:
        self.near, self._far = socket.socketpair()
        guard = DirectGuard(DirectLimits(), 0.0)
        self.carrier = Carrier(DirectEnd(self.near, "tcp"), guard, kind, lambda: 0.0, farewell=0.0)
        self.carrier._due, self.carrier._more = direct_carrier.TICK, False

    def after(self, came: int) -> Tuple[int, float]:
        """From how many bytes on poll() wakes, and how long it waits for them, in milliseconds."""
        self.carrier._gather(came, 0.0)
        return self.near.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT), self.carrier._timeout()

    def drain(self) -> None:
        """Take what was sent."""
        while self.carrier._peer.pending or select.select([self._far], [], [], 0)[0]:
            self._far.recv(1 << 20)
            self.carrier._peer.flush()


@pytest.fixture
def gathering(request: pytest.FixtureRequest) -> Iterator[Gathering]:
    scene = Gathering(request.param)
    yield scene
    scene.near.close()


@pytest.mark.parametrize("gathering", [Kind.RAM, Kind.IMPORT], indirect=True)
def test_bulk_that_flows_is_read_when_much_has_come_or_after_a_pause(gathering: Gathering) -> None:
    tick = direct_carrier.TICK * 1000
    assert gathering.after(0) == (1, tick)
    assert gathering.after(30_000) == (direct_carrier.GATHER, direct_carrier.GATHER_PAUSE * 1000)
    gathering.carrier._stalled = True  # nothing is read now: no reason to wake
    assert gathering.after(30_000) == (direct_carrier.GATHER, tick)
    gathering.carrier._stalled = False
    assert gathering.after(100) == (1, tick)


@pytest.mark.parametrize("gathering", [Kind.NBD, Kind.CONTROL], indirect=True)
def test_what_somebody_waits_for_is_read_at_once(gathering: Gathering) -> None:
    assert gathering.after(30_000) == (1, direct_carrier.TICK * 1000)


def test_last_bytes_of_a_burst_do_not_wait_for_more() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    with contextlib.closing(listener):
        scene = Scene(pair=lambda: (socket.create_connection(listener.getsockname()), listener.accept()[0]))
    for size in (100_000, 5000, 1, 200_000, 4096):
        began = time.monotonic()
        scene.peer.sendall(data(bytes(size)))
        while size:
            got = scene.qemu.recv(size)
            assert got
            size -= len(got)
        assert time.monotonic() - began < 5
    scene.peer.close()
    assert scene.end().reason is EndReason.SERVER_LOST


@pytest.mark.parametrize(("kind", "pauses"), [(Kind.RAM, [16_000, 60_000]), (Kind.NBD, [])])
def test_short_reads_of_bulk_are_followed_by_a_pause(
    monkeypatch: pytest.MonkeyPatch, kind: Kind, pauses: List[int]
) -> None:
    """A word is passed on at once, and a full read says that QEMU waits for us."""
    sizes = [100, 16_000, 60_000, 100_000, 4096]
    left, paused = list(sizes), []
    scene = Gathering(kind)

    class Local:
        pending = False

        def recv_into(self, room: memoryview) -> Optional[int]:
            return left.pop(0) if left else None

    monkeypatch.setattr(direct_carrier.time, "sleep", lambda seconds: paused.append(sizes[-len(left) - 1]))
    while left:
        scene.carrier._push(Local(), 0.0)  # type: ignore[arg-type]
        scene.drain()
    assert paused == pauses
    scene.near.close()
