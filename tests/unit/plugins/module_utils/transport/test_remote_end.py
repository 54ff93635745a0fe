# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The far end over real TLS, against a double of the target's proxy."""

from __future__ import annotations

import select
import time
from typing import Any, List

import pytest
from unit.fakes.proxy_double import ProxyDouble, make_certificate

from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.endpoint import Endpoint
from ansible_collections.crosscluster.migration.plugins.module_utils.transport import remote_end
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.remote_end import WebsocketEnd
from ansible_collections.crosscluster.migration.plugins.module_utils.websocket import frames
from ansible_collections.crosscluster.migration.plugins.module_utils.websocket.errors import ConnectTimeout


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


def connect(double: ProxyDouble, certificate: Any, timeout: float = 5.0, **more: Any) -> WebsocketEnd:
    endpoint = Endpoint("127.0.0.1", double.port, "target", "mig@pve", "t1", fingerprint=certificate[1])
    values = {"payload": remote_end.DEFAULT_PAYLOAD, "clock": time.monotonic, **more}
    return WebsocketEnd.open(endpoint, "secret", "/x", timeout=timeout, **values)


def events_of(end: WebsocketEnd) -> List[Any]:
    """The next events; [None] at the end of the connection."""
    while True:
        events = end.receive()
        if events is None:
            return [None]
        if events:
            return events
        select.select([end], [], [], 5)


@pytest.mark.parametrize("length", [1, 125, 126, 65535, 65536, remote_end.DEFAULT_PAYLOAD])
def test_frame_is_built_around_its_payload(certificate, length):
    double = ProxyDouble(certificate[0])
    end = connect(double, certificate)
    data = bytes(range(256)) * (length // 256) + bytes(length % 256)
    end.room[:length] = data
    while not end.send_room(length) and end.pending:
        end.flush()
    end.send_close()
    assert double.finished.wait(5)
    assert (double.frames, bytes(double.data), double.breaches) == ([length], data, [])


def test_header_follows_a_change_of_length(certificate):
    double = ProxyDouble(certificate[0])
    end = connect(double, certificate)
    for length in (3, 70000, 200, 200, 70000, 3):
        end.send_room(length)
    end.send_close()
    assert double.finished.wait(5)
    assert double.frames == [3, 70000, 200, 200, 70000, 3]


def test_default_frame_fills_whole_tls_records():
    header = len(frames.client_header(remote_end.DEFAULT_PAYLOAD))
    assert (header + remote_end.DEFAULT_PAYLOAD) % 16384 == 0
    assert remote_end.DEFAULT_PAYLOAD <= frames.MAX_PAYLOAD


def test_pong_comes_back_with_the_pings_payload(certificate):
    end = connect(ProxyDouble(certificate[0]), certificate)
    end.send_ping(b"12345678")
    assert events_of(end) == [frames.Pong(b"12345678")]
    end.abort()


def test_bytes_sent_along_with_the_upgrade_are_not_lost(certificate):
    end = connect(ProxyDouble(certificate[0], greeting=b"NBDMAGIC"), certificate)
    assert events_of(end) == [frames.Data(b"NBDMAGIC")]
    end.abort()


def test_end_of_the_server_is_the_end(certificate):
    double = ProxyDouble(certificate[0])
    end = connect(double, certificate)
    double.hang_up()
    assert events_of(end) == [None]
    end.close()


def test_dead_socket_is_a_timeout(certificate):
    """mtunnel-protocol 3.3: the server never answers the upgrade then."""
    import socket

    silent = socket.create_server(("127.0.0.1", 0))
    endpoint = Endpoint("127.0.0.1", silent.getsockname()[1], "target", "mig@pve", "t1", fingerprint=certificate[1])
    with pytest.raises(ConnectTimeout):
        WebsocketEnd.open(endpoint, "secret", "/x", timeout=0.1, payload=100, clock=time.monotonic)
