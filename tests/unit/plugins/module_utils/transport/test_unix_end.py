# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""QEMU's UNIX socket: views are handed over in order and without copies, and what QEMU has read is known."""

from __future__ import annotations

import os
import socket
from typing import Iterator, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.crosscluster.migration.plugins.module_utils.transport.unix_end import (
    SEND_BUFFER,
    UnixEnd,
    peer_pid,
)


@pytest.fixture
def pair() -> Iterator[Tuple[UnixEnd, socket.socket]]:
    near, far = socket.socketpair()
    yield UnixEnd(near), far
    near.close()
    far.close()


@given(st.lists(st.integers(1, 200_000), min_size=1, max_size=600).filter(lambda sizes: sum(sizes) < 4 << 20))
def test_slices_arrive_in_order_however_slowly_qemu_reads(sizes):
    near, far = socket.socketpair()
    end = UnixEnd(near)
    data = os.urandom(sum(sizes))
    view, slices, at = memoryview(data), [], 0
    for size in sizes:
        slices.append(view[at : at + size])
        at += size
    done = end.give(slices)
    assert done == (not end.pending)
    got = bytearray()
    while len(got) < len(data):
        got += far.recv(70_000)
        end.flush()
    assert bytes(got) == data
    assert not end.pending
    assert end.consumed == len(data)
    near.close()
    far.close()


def test_consumed_is_what_qemu_has_read(pair: Tuple[UnixEnd, socket.socket]) -> None:
    end, qemu = pair
    end.enlarge()
    end.give([memoryview(bytes(1 << 20))])
    assert end.consumed == 0  # it is written, and in the buffer
    qemu.recv(1 << 20)
    before = end.consumed
    while before < 1 << 20:
        qemu.recv(1 << 20)
        assert end.consumed >= before
        before = end.consumed
    qemu.close()
    assert end.consumed == 1 << 20


def test_large_buffer_takes_many_frames_at_once(pair: Tuple[UnixEnd, socket.socket]) -> None:
    end, _qemu = pair
    end.enlarge()
    assert end.give([memoryview(bytes(1 << 17))] * 4)
    assert SEND_BUFFER > 4 << 17


def test_qemu_sees_the_end_and_may_still_speak(pair: Tuple[UnixEnd, socket.socket]) -> None:
    end, qemu = pair
    end.finish()
    assert qemu.recv(1) == b""
    qemu.send(b"last")
    room = memoryview(bytearray(10))
    assert end.recv_into(room) == 4
    assert end.recv_into(room) is None
    qemu.close()
    assert end.recv_into(room) == 0


def test_close_is_the_end_for_qemu_and_forgets_what_waits(pair: Tuple[UnixEnd, socket.socket]) -> None:
    end, qemu = pair
    end.give([memoryview(bytes(1 << 24))])
    assert end.pending
    end.close()
    assert not end.pending
    while qemu.recv(1 << 20):
        pass


def test_closed_qemu_is_an_error_when_it_is_given_something(pair: Tuple[UnixEnd, socket.socket]) -> None:
    end, qemu = pair
    qemu.close()
    with pytest.raises(BrokenPipeError):
        end.give([memoryview(b"x")])
    end.finish()  # knows


def test_process_that_connected_is_known() -> None:
    near, far = socket.socketpair()
    assert peer_pid(near) == os.getpid()
    near.close()
    far.close()
