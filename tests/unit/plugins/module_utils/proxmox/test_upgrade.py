# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Opening a websocket of the target, on the loopback: what is sent to whom, and every way in which it does not open."""

from __future__ import annotations

import time

import pytest
from unit.fakes.proxy_double import ProxyDouble, make_certificate
from unit.fakes.tls_server import TlsServer, read_request

from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.endpoint import Endpoint
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.errors import FingerprintMismatch
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.upgrade import open_websocket
from ansible_collections.crosscluster.migration.plugins.module_utils.websocket.errors import (
    ConnectTimeout,
    HandshakeInvalid,
    UpgradeRefused,
)

SECRET = "12345678-canary"
PATH = "/api2/json/nodes/b1/qemu/200/mtunnelwebsocket?ticket=PVETUNNEL%3Ax&socket=%2Frun%2Fqemu-server%2F200.mtunnel"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("certificate"))


def opened(port, fingerprint, seconds=5.0):
    endpoint = Endpoint("127.0.0.1", port, "b1", "mig@pve", "t1", fingerprint)
    return open_websocket(endpoint, SECRET, PATH, time.monotonic() + seconds, time.monotonic)


def test_open_carries_the_token_and_keeps_what_came_along(certificate):
    double = ProxyDouble(certificate[0], greeting=b"NBDMAGIC")
    stream, rest = opened(double.port, certificate[1])
    while not rest:
        rest = stream.read() or b""
    assert rest.endswith(b"NBDMAGIC")
    assert f"Authorization: PVEAPIToken=mig@pve!t1={SECRET}" in double.request.decode().split("\r\n")
    stream.abort()


def test_open_is_refused_with_the_status_of_the_target(certificate):
    double = ProxyDouble(certificate[0], status="401 permission denied - invalid PVETUNNEL ticket")
    with pytest.raises(UpgradeRefused) as caught:
        opened(double.port, certificate[1])
    assert caught.value.status == 401
    assert SECRET not in str(caught.value)


def test_open_sends_nothing_to_another_certificate(certificate):
    double = ProxyDouble(certificate[0])
    with pytest.raises(FingerprintMismatch):
        opened(double.port, "ab" * 32)
    double.join(5)
    assert double.request == b""


def test_open_ends_at_the_deadline_of_a_dead_socket(certificate):
    """mtunnel-protocol 3.3: the server never answers the upgrade then."""

    def silent(connection):
        read_request(connection)
        connection.recv(1)

    server = TlsServer(certificate[0], silent)
    with pytest.raises(ConnectTimeout):
        opened(server.port, certificate[1], 0.2)
    server.close()


def test_open_says_when_the_server_closes_without_an_answer(certificate):
    server = TlsServer(certificate[0], read_request)
    with pytest.raises(HandshakeInvalid):
        opened(server.port, certificate[1])
    server.close()
