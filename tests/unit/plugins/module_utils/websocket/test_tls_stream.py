# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The TLS connection against a real TLS server on the loopback."""

from __future__ import annotations

import errno
import hashlib
import os
import select
import socket
import ssl
import threading
import time

import pytest
from unit.fakes.proxy_double import make_certificate
from unit.fakes.tls_server import TlsServer

from ansible_collections.crosscluster.migration.plugins.module_utils.websocket.errors import (
    ConnectFailed,
    ConnectTimeout,
    StreamLost,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.websocket.tls_stream import TlsStream


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("certificate"))


def context():
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    made.options |= 1 << 7
    return made


def connect(port, check=lambda der: None, seconds=5.0, made=None):
    return TlsStream.open("127.0.0.1", port, made or context(), check, time.monotonic() + seconds, time.monotonic)


def read_some(stream):
    """The next bytes, waiting for them."""
    while True:
        data = stream.read()
        if data is not None:
            return data
        assert select.select([stream.fileno()], [], [], 5)[0]


def read_all(stream):
    data = b""
    while True:
        part = read_some(stream)
        if not part:
            return data
        data += part


def write_on(stream):
    for _number in range(1000):
        stream.write(bytes(100000))
        stream.flush()
        select.select([], [stream.fileno()], [], 0.05)


def echo(connection):
    while True:
        data = connection.recv(65536)
        if not data:
            return
        connection.sendall(data)


def test_stream_carries_bytes_both_ways(certificate):
    server = TlsServer(certificate[0], echo)
    stream = connect(server.port)
    stream.write(b"hello")
    assert stream.flush()
    assert read_some(stream) == b"hello"
    stream.close_gracefully()
    server.close()


def test_stream_reads_none_when_nothing_came(certificate):
    server = TlsServer(certificate[0], echo)
    stream = connect(server.port)
    assert stream.read() is None
    stream.close_gracefully()
    server.close()


def test_stream_reads_end_without_close_notify(certificate):
    server = TlsServer(certificate[0], lambda connection: connection.sendall(b"bye"))
    stream = connect(server.port)
    assert read_all(stream) == b"bye"
    assert stream.read() == b""
    stream.close_gracefully()
    server.close()


def test_stream_counts_what_the_kernel_does_not_take(certificate):
    server = TlsServer(certificate[0], lambda connection: connection.recv(1) and select.select([], [], [], 1))
    stream = connect(server.port)
    frame = bytes(1 << 20)
    for _number in range(64):
        stream.write(frame)
        if not stream.flush():
            break
    assert 0 < stream.pending <= (1 << 20) + 65536
    stream.abort()
    server.close()


def test_stream_shows_certificate_before_any_byte(certificate):
    shown, received = [], []

    def serve(connection):
        received.append(connection.recv(10))

    server = TlsServer(certificate[0], serve)

    def check(der):
        shown.append(hashlib.sha256(der).hexdigest())
        raise ValueError("not this one")

    with pytest.raises(ValueError, match="not this one"):
        connect(server.port, check)
    server.close()
    assert shown == [certificate[1]]
    assert received in ([], [b""])


def test_stream_abort_resets(certificate):
    ends = []

    def serve(connection):
        connection.sendall(connection.recv(10))
        # Read below TLS: the ssl module shows a reset as an end.
        with socket.socket(fileno=os.dup(connection.fileno())) as raw:
            select.select([raw], [], [], 5)
            ends.append(raw.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    server = TlsServer(certificate[0], serve)
    stream = connect(server.port)
    stream.write(b"x")
    stream.flush()
    read_some(stream)
    stream.abort()
    server.close()
    assert ends == [errno.ECONNRESET]


def test_stream_raises_when_the_connection_breaks(certificate):
    server = TlsServer(certificate[0], lambda connection: connection.close())
    stream = connect(server.port)
    with pytest.raises(StreamLost):
        write_on(stream)
    stream.abort()
    server.close()


def test_open_raises_when_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ConnectFailed) as caught:
        connect(port)
    assert caught.value.code == "CONNECT_FAILED"


def test_open_raises_for_a_name_that_does_not_exist():
    with pytest.raises(ConnectFailed):
        TlsStream.open("no.such.name.invalid", 1, context(), lambda der: None, time.monotonic() + 5, time.monotonic)


def test_open_raises_at_deadline_of_a_silent_server():
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(ConnectTimeout):
        connect(silent.getsockname()[1], seconds=0.1)


def test_open_raises_when_the_server_speaks_no_tls():
    with socket.create_server(("127.0.0.1", 0)) as plain:
        plain.settimeout(5)

        def serve():
            connection, _address = plain.accept()
            connection.sendall(b"HTTP/1.1 400 no\r\n\r\n")
            connection.recv(4096)
            connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(ConnectFailed):
            connect(plain.getsockname()[1])
        thread.join(5)


def test_open_refuses_an_untrusted_certificate(certificate):
    server = TlsServer(certificate[0], echo)
    strict = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with pytest.raises(ConnectFailed, match="not trusted"):
        connect(server.port, made=strict)
    server.close()
