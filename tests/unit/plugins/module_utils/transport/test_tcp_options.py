# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of a TCP connection, seen by the kernel and by the peer."""

from __future__ import annotations

import socket

import pytest

from ansible_collections.crosscluster.migration.plugins.module_utils.transport import tcp_options

LINUX_TCP_NOTSENT_LOWAT = 25  # include/uapi/linux/tcp.h


@pytest.fixture
def pair():
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        peer, _address = server.accept()
    with client, peer:
        yield client, peer


@pytest.mark.parametrize("size", [tcp_options.NOTSENT_LOWAT, 1 << 20])
def test_queue_of_what_is_not_sent_is_bounded(pair, size):
    client, _peer = pair
    tcp_options.limit_unsent(client, size)
    assert client.getsockopt(socket.IPPROTO_TCP, LINUX_TCP_NOTSENT_LOWAT) == size


def test_what_is_not_tcp_is_told():
    one, other = socket.socketpair()
    with one, other, pytest.raises(OSError, match="not supported"):
        tcp_options.limit_unsent(one)


def test_peer_sees_a_reset(pair):
    client, peer = pair
    tcp_options.reset(client)
    assert client.fileno() == -1
    with pytest.raises(ConnectionResetError):
        peer.recv(1)
