# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One end of a connection between two workers: frames through real sockets, over TLS and without."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any, Iterator, List, Tuple

import pytest
from unit.fakes.certificates import Authority, lay

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import CrossclusterError, Side
from ansible_collections.crosscluster.migration.plugins.module_utils.transport import (
    direct_end,
    network_proof,
    tls,
    wire,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.direct_end import (
    DirectEnd,
    addresses_of,
    dial,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.errors import (
    GreetingRefused,
    LinkLost,
    NetworkChanged,
    WireError,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.handshake import TargetGreeting
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.interface import DirectSettings, Kind
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.wire import FrameKind

KEY = "ab" * 32


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> "dict[Side, tls.Credentials]":
    place, authority = tmp_path_factory.mktemp("domain"), Authority()
    names = {Side.SOURCE: "node-a", Side.TARGET: "node-b"}
    return {
        side: tls.Credentials(str(lay(place / name, authority.pem, authority.issue(name))))
        for side, name in names.items()
    }


def tcp_pair() -> Tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _address = listener.accept()
    return one, other


def ends(plane: str, credentials: Any) -> Tuple[DirectEnd, DirectEnd]:
    """Both ends; TLS has shaken hands in memory."""
    one, other = tcp_pair()
    if plane == "tcp":
        return DirectEnd(one, plane), DirectEnd(other, plane)
    a, b = credentials[Side.SOURCE], credentials[Side.TARGET]
    client = tls.Handshake(Side.SOURCE, tls.client_context(a), a, "node-b")
    server = tls.Handshake(Side.TARGET, tls.server_context(b), b, "node-a")
    tls._shake(client, server)
    return DirectEnd(one, plane, client), DirectEnd(other, plane, server)


@pytest.fixture(params=["tls", "tcp"])
def pair(request: Any, credentials: Any) -> Iterator[Tuple[DirectEnd, DirectEnd]]:
    both = ends(request.param, credentials)
    yield both
    for end in both:
        end.close()


def receive(end: DirectEnd, count: int, seconds: float = 10.0) -> List[Tuple[FrameKind, bytes]]:
    """So many frames, pieces of one DATA frame joined."""
    frames: List[Tuple[FrameKind, bytes]] = []
    left = 0
    deadline = time.monotonic() + seconds
    while len(frames) < count or left:
        assert time.monotonic() < deadline
        got = end.receive()
        assert got is not None
        for kind, payload in got:
            if left:
                frames[-1] = (kind, frames[-1][1] + bytes(payload))
            else:
                frames.append((kind, bytes(payload)))
            left = end._decoder._data_left
        if not end.heard:
            select.select([end], [], [], 0.1)
    return frames


def receive_for_long(end: DirectEnd) -> None:
    for _try in range(500):
        end.receive()
        time.sleep(0.01)


def test_scope_of_an_address_reaches_the_kernel():
    number = socket.if_nametoindex("lo")
    assert direct_end.place_of("fe80::1%lo", 5) == ("fe80::1", 5, 0, number)
    assert direct_end.place_of("fe80::1%eth9", 5, "fe80::2%lo") == ("fe80::1", 5, 0, number)
    assert direct_end.place_of("192.0.2.1", 5, "192.0.2.2") == ("192.0.2.1", 5)
    with pytest.raises(socket.gaierror):
        direct_end.place_of("b1.example", 5)


def test_frame_is_built_around_what_was_read_in_place(pair: Tuple[DirectEnd, DirectEnd]) -> None:
    one, other = pair
    for length in (3, 3, len(one.room), 1):
        one.room[:length] = payload = os.urandom(length)
        assert one.send_room(length) or one.pending
        while one.pending:
            one.flush()
        assert receive(other, 1) == [(FrameKind.DATA, payload)]


def test_both_directions_at_once(pair: Tuple[DirectEnd, DirectEnd]) -> None:
    one, other = pair
    one.send(wire.beat(1))
    other.send(wire.beat(2))
    assert receive(one, 1)[0][1] == struct.pack(">Q", 2)
    assert receive(other, 1)[0][1] == struct.pack(">Q", 1)


def test_what_the_kernel_does_not_take_waits(pair: Tuple[DirectEnd, DirectEnd]) -> None:
    one, other = pair
    sent = 0
    while one.send_room(len(one.room)):
        sent += 1
        assert sent < 1000
    assert one.pending
    while not one.flush():
        other.receive()
    assert not one.pending


def test_batch_is_bounded_and_the_rest_is_hidden_or_polled(pair: Tuple[DirectEnd, DirectEnd]) -> None:
    one, other = pair
    for _frame in range(3):
        one.room[:] = bytes(len(one.room))
        one.send_room(len(one.room))
        while one.pending:
            one.flush()
            other.receive()
    time.sleep(0.05)
    size = sum(len(payload) for _kind, payload in other.receive() or [])
    assert size <= direct_end.BATCH


def test_gathered_bytes_show_when_they_are_enough_and_the_end_always(pair: Tuple[DirectEnd, DirectEnd]) -> None:
    one, other = pair
    poller = select.poll()
    poller.register(other, select.POLLIN)
    other.gather(50_000)
    one.send(wire.header(1000) + bytes(1000))
    assert not poller.poll(100)
    assert len(receive(other, 1)[0][1]) == 1000  # reading takes what is there
    one.send(wire.header(60_000) + bytes(60_000))
    assert poller.poll(10_000)
    other.gather(1)
    assert sum(len(payload) for _kind, payload in receive(other, 1)) == 60_000
    other.gather(50_000)
    one.finish()
    assert poller.poll(10_000)


def test_end_of_the_peer_is_none_after_everything_it_said(pair: Tuple[DirectEnd, DirectEnd]) -> None:
    one, other = pair
    one.send(wire.encode(FrameKind.FIN))
    one.finish()
    assert receive(other, 1) == [(FrameKind.FIN, b"")]
    other.send(wire.encode(FrameKind.FIN))  # the other direction is open
    assert receive(one, 1) == [(FrameKind.FIN, b"")]
    deadline = time.monotonic() + 5
    while other.receive() is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_cut_peer_is_a_loss(pair: Tuple[DirectEnd, DirectEnd]) -> None:
    one, other = pair
    other.send(wire.beat(0))
    one.abort()
    with pytest.raises(LinkLost):
        receive_for_long(other)


def test_linger_ends_with_the_peers_end_or_in_time(pair: Tuple[DirectEnd, DirectEnd]) -> None:
    one, other = pair
    one.finish()
    began = time.monotonic()
    one.linger(0.1, time.monotonic)
    assert time.monotonic() - began < 5
    other.finish()
    one.linger(60.0, time.monotonic)


def test_garbage_in_a_tls_stream_is_refused(credentials: Any) -> None:
    one, other = ends("tls", credentials)
    one._socket.send(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(CrossclusterError):
        receive_for_long(other)
    one.close()
    other.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_both_sides_name_the_same_addresses(host: str) -> None:
    try:
        listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError:
        pytest.skip("no IPv6 here")
    with listener:
        one = socket.create_connection(listener.getsockname()[:2])
        other, _address = listener.accept()
        assert addresses_of(one, Side.SOURCE) == addresses_of(other, Side.TARGET)
        assert addresses_of(one, Side.SOURCE).target == f"[{host}]:{listener.getsockname()[1]}"
    one.close()
    other.close()


def settings(port: int, **changes: Any) -> DirectSettings:
    values = {
        "name": "ram", "kind": Kind.RAM, "plane": "tcp", "address": "127.0.0.1", "port": port, "peer_name": "node-b",
        "own_name": "node-a", "migration_id": "0" * 32, "stream": "ram", "open_timeout": 0.3,
    }  # fmt: skip
    return DirectSettings(**{**values, **changes})  # type: ignore[arg-type]


def test_nobody_there_is_told_with_address_and_reason() -> None:
    with pytest.raises(LinkLost, match=r"127.0.0.1 port 1: Connection refused"):
        dial(settings(1, open_timeout=20.0), KEY, time.monotonic)


@pytest.mark.parametrize("plane", ["tls", "tcp"])
def test_silent_listener_is_given_up_in_time(credentials: Any, plane: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        directory = credentials[Side.SOURCE].directory if plane == "tls" else None
        began = time.monotonic()
        with pytest.raises(LinkLost, match="in time"):
            dial(settings(listener.getsockname()[1], plane=plane, credentials=directory), KEY, time.monotonic)
        assert 0.2 <= time.monotonic() - began <= 5


@pytest.mark.parametrize(("said", "error"), [(b"HTTP/1.1 400\r\n", WireError), (b"", GreetingRefused)])
def test_what_is_no_worker_is_told(said: bytes, error: type) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            sock, _address = listener.accept()
            with sock, contextlib.suppress(OSError):
                sock.recv(4096)
                sock.sendall(said)

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(error):
            dial(settings(listener.getsockname()[1], open_timeout=10.0), KEY, time.monotonic)


@pytest.mark.parametrize("trusted", [True, False])
def test_source_looks_at_the_network_before_it_proves_itself(trusted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: List[Any] = []

    def prove(addresses: Any, side: Side) -> None:
        seen.append((addresses, side))
        if not trusted:
            raise NetworkChanged("On the source node check 3", side=side, object="network")

    monkeypatch.setattr(network_proof, "prove", prove)
    told: List[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            sock, _address = listener.accept()
            where = addresses_of(sock, Side.TARGET)
            end, greeting = (
                DirectEnd(sock, "tcp"),
                TargetGreeting("tcp", "0" * 32, KEY, where, "cd" * 32, lambda _: None),
            )
            try:
                while not greeting.done:
                    for kind, payload in receive(end, 1):
                        end.send(greeting.receive(wire.Frame(kind, payload)))
            except GreetingRefused as error:
                told.append(error.message)
            end.close()

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        wanted = settings(listener.getsockname()[1], proven=True, open_timeout=10.0)
        if trusted:
            dial(wanted, KEY, time.monotonic)[0].close()
        else:
            with pytest.raises(NetworkChanged, match="check 3"):
                dial(wanted, KEY, time.monotonic)
        server.join(10)
    assert [side for _addresses, side in seen] == [Side.SOURCE]
    assert told == ([] if trusted else ["The connection was refused: by the peer itself, On the source node check 3"])


def test_connection_comes_from_the_address_that_was_given() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with pytest.raises(LinkLost):
            dial(settings(listener.getsockname()[1], local_address="127.0.0.9", open_timeout=1.0), KEY, time.monotonic)
        sock, peer = listener.accept()
        sock.close()
        assert peer[0] == "127.0.0.9"


def test_credentials_are_files_of_this_node(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(CrossclusterError, match="no such file"):
        dial(
            settings(listener.getsockname()[1], plane="tls", credentials=str(tmp_path), open_timeout=20.0),
            "",
            time.monotonic,
        )
