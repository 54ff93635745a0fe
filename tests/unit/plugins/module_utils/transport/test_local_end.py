# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The near ends: one private connection, bytes in place, a cut that QEMU sees at once."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from ansible_collections.crosscluster.migration.plugins.module_utils.transport.local_end import (
    InputEnd,
    Listener,
    SocketEnd,
)


@pytest.fixture
def pair():
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    yield SocketEnd(near), far
    near.close()
    far.close()


def test_listener_is_private_and_takes_one_connection(tmp_path: Path):
    path = tmp_path / "s"
    listener = Listener(str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    assert listener.accept() is None
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.connect(str(path))
    end = listener.accept()
    assert end is not None
    assert not path.exists()
    end.close()


def test_listener_replaces_what_a_killed_pump_left(tmp_path: Path):
    path = tmp_path / "s"
    socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).bind(str(path))
    Listener(str(path)).close()
    assert not path.exists()


def test_listener_replaces_nothing_but_a_socket(tmp_path: Path):
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(OSError, match="in use"):
        Listener(str(path))
    assert path.read_text() == "precious"


def test_socket_end_reads_in_place(pair):
    end, qemu = pair
    room = memoryview(bytearray(10))
    assert end.recv_into(room) is None
    qemu.send(b"abc")
    assert end.recv_into(room) == 3
    qemu.close()
    assert (bytes(room[:3]), end.recv_into(room)) == (b"abc", 0)


def test_socket_end_keeps_what_qemu_does_not_take(pair):
    end, qemu = pair
    data = os.urandom(1 << 20)
    end.send(data)
    assert 0 < end.pending < len(data)
    got = bytearray()
    while len(got) < len(data):
        end.flush()
        got += qemu.recv(1 << 20)
    assert bytes(got) == data
    assert end.flush()


def test_closed_socket_end_is_the_end_for_qemu(pair):
    end, qemu = pair
    end.close()
    assert qemu.recv(1) == b""


def test_input_end_reads_a_pipe_to_its_end():
    reader, writer = os.pipe()
    end = InputEnd(reader)
    room = memoryview(bytearray(10))
    assert end.recv_into(room) is None
    os.write(writer, b"abc")
    assert end.recv_into(room) == 3
    os.close(writer)
    assert end.recv_into(room) == 0
    end.close()
    end.close()


def test_input_end_gives_nothing_back():
    reader, writer = os.pipe()
    end = InputEnd(reader)
    assert end.give([memoryview(b"imported")])
    end.finish()
    os.write(writer, b"x")
    assert (end.recv_into(memoryview(bytearray(2))), end.pending, end.consumed) == (1, 0, 0)
    end.close()
    os.close(writer)
