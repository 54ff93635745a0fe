# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The clear-text end on real sockets, IPv4 and IPv6."""

from __future__ import annotations

import socket
import time

import pytest

from ansible_collections.crosscluster.migration.plugins.module_utils.transport.errors import LinkLost
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.interface import Kind, PlainSettings
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.plain_end import (
    USER_TIMEOUT,
    PlainEnd,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.websocket import frames


@pytest.fixture(params=["127.0.0.1", "::1"])
def listener(request):
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.bind((request.param, 0))
        sock.listen(1)
        sock.settimeout(5)
        yield sock


def settings(listener, **more):
    address, port = listener.getsockname()[:2]
    return PlainSettings(**{"name": "ram", "kind": Kind.RAM, "address": address, "port": port, "listen": "/x", **more})


def connected(listener):
    end = PlainEnd()
    end.connect(settings(listener))
    peer, _address = listener.accept()
    return end, peer


def test_bytes_go_as_they_are_in_both_directions(listener):
    end, peer = connected(listener)
    end.room[:5] = b"guest"
    assert end.send_room(5)
    assert peer.recv(100) == b"guest"
    peer.sendall(b"answer")
    assert end.receive() == [frames.Data(b"answer")]
    assert end.receive() == []
    end.close()
    peer.close()


def test_each_direction_ends_by_itself_and_nothing_is_lost(listener):
    end, peer = connected(listener)
    end.room[:4] = b"last"
    end.send_room(4)
    end.send_close()
    assert (peer.recv(100), peer.recv(100)) == (b"last", b"")
    peer.sendall(b"words")
    peer.close()
    assert end.receive() == [frames.Data(b"words")]
    assert end.receive() is None
    end.close()


def test_what_the_kernel_has_not_delivered_is_known(listener):
    end, peer = connected(listener)
    assert end.unacknowledged == 0
    size = len(end.room)
    sent = 0
    while end.send_room(size):
        sent += size
    assert end.pending > 0
    assert end.unacknowledged > 0
    peer.settimeout(5)
    taken = 0
    while end.pending and not end.flush():
        taken += len(peer.recv(1 << 20))
    while taken < sent + size:
        taken += len(peer.recv(1 << 20))
    for _try in range(100):
        if end.unacknowledged == 0:
            break
        time.sleep(0.01)
    assert end.unacknowledged == 0
    end.close()
    peer.close()


def test_kernel_gives_a_silent_network_up(listener):
    end, peer = connected(listener)
    with socket.socket(fileno=end.fileno()) as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == USER_TIMEOUT * 1000
        sock.detach()
    end.abort()
    with pytest.raises(ConnectionResetError):
        peer.recv(1)
    peer.close()


def test_nobody_there_is_told_with_what_to_open(listener):
    where = settings(listener)
    listener.close()
    end = PlainEnd()
    with pytest.raises(LinkLost, match="refused") as told:
        end.connect(where)
    assert "60000 to 60050" in told.value.remedy
    end.abort()


def test_own_address_is_the_one_of_the_proof(listener):
    own = listener.getsockname()[0]
    end = PlainEnd()
    end.connect(settings(listener, local_address=own))
    peer, address = listener.accept()
    assert address[0] == own
    end.close()
    peer.close()


def test_other_end_of_another_address_is_refused(listener, monkeypatch):
    class Translated(socket.socket):
        def getpeername(self):
            return ("192.0.2.9", 60000)

    monkeypatch.setattr(socket, "socket", Translated)
    with pytest.raises(LinkLost, match=r"leads to 192\.0\.2\.9"):
        PlainEnd().connect(settings(listener))


def test_before_the_connection_nothing_is_there():
    end = PlainEnd()
    assert (end.fileno(), end.receive(), end.pending, end.unacknowledged) == (-1, [], 0, 0)
    end.close()
