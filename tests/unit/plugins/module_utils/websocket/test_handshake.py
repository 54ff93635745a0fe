# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The upgrade to a websocket, cut anywhere."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.crosscluster.migration.plugins.module_utils.websocket import handshake
from ansible_collections.crosscluster.migration.plugins.module_utils.websocket.errors import (
    HandshakeInvalid,
    UpgradeRefused,
)

# The key and its answer are the example of RFC 6455 1.3.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
SWITCHING = (
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
    f"Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
).encode()
REFUSED = b"HTTP/1.1 401 permission denied - invalid PVETUNNEL ticket\r\nContent-Length: 5\r\n\r\nbody\n"


def test_request_is_what_the_server_asks_for():
    sent, key = handshake.request(
        "target.example", 8006, "/api2/json/x?ticket=a%2Bb", {"Authorization": "PVEAPIToken=a"}, bytes(16)
    )
    assert key == base64.b64encode(bytes(16)).decode()
    lines = sent.decode().split("\r\n")
    assert lines[0] == "GET /api2/json/x?ticket=a%2Bb HTTP/1.1"
    assert set(lines[1:-2]) == {
        "Host: target.example:8006", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {key}", "Authorization: PVEAPIToken=a",
    }  # fmt: skip
    assert lines[-2:] == ["", ""]


def test_request_brackets_an_ipv6_address():
    assert b"Host: [2001:db8::1]:8006\r\n" in handshake.request("2001:db8::1", 8006, "/", {})[0]


def test_request_takes_a_new_key_each_time():
    assert handshake.request("h", 1, "/", {})[1] != handshake.request("h", 1, "/", {})[1]


@pytest.mark.parametrize(
    ("path", "headers"),
    [("/a b", {}), ("/\r\nX: y", {}), ("/ü", {}), ("/", {"Authorization": "a\r\nX: y"})],
    ids=["space", "newline", "non-ascii", "header-newline"],
)
def test_request_refuses_injection(path, headers):
    with pytest.raises(HandshakeInvalid):
        handshake.request("host", 8006, path, headers)


def test_accept_value_is_that_of_the_rfc():
    assert handshake.accept_value(KEY) == ACCEPT


@given(st.integers(min_value=0, max_value=len(SWITCHING) + 4))
def test_response_gives_left_over_for_any_cut(cut):
    stream = SWITCHING + b"rest"
    response = handshake.Response(KEY)
    first = response.receive(stream[:cut])
    found = first + stream[cut:] if first is not None else response.receive(stream[cut:])
    assert found == b"rest"


@given(st.integers(min_value=0, max_value=len(REFUSED) - 1))
def test_response_raises_refusal_for_any_cut(cut):
    response = handshake.Response(KEY)
    assert response.receive(REFUSED[:cut]) is None
    with pytest.raises(UpgradeRefused) as caught:
        response.receive(REFUSED[cut:])
    assert (caught.value.status, caught.value.body) == (401, "body")
    assert caught.value.reason == "permission denied - invalid PVETUNNEL ticket"


def test_response_raises_refusal_at_eof_without_length():
    response = handshake.Response(KEY)
    assert response.receive(b"HTTP/1.0 500 no\r\n\r\n<html>") is None
    with pytest.raises(UpgradeRefused) as caught:
        response.eof()
    assert caught.value.body == "<html>"


def test_response_cuts_and_cleans_a_long_body():
    response = handshake.Response(KEY)
    with pytest.raises(UpgradeRefused) as caught:
        response.receive(b"HTTP/1.1 500 no\r\n\r\n" + b"\x1b[31m" * 9000)
    assert len(caught.value.body) <= 300
    assert caught.value.body.isprintable()


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 101 Switching"], ids=["nothing", "half"])
def test_response_raises_when_the_server_closes_without_answer(sent):
    response = handshake.Response(KEY)
    response.receive(sent)
    with pytest.raises(HandshakeInvalid):
        response.eof()


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 999999 x\r\n\r\n",
        b"HTTP/1.1 101 x\r\nbroken\r\n\r\n",
        SWITCHING.replace(ACCEPT.encode(), b"AAAA"),
        SWITCHING.replace(b"Upgrade: websocket", b"Upgrade: h2c"),
        SWITCHING.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
        b"HTTP/1.1 101 x\r\n" + b"A: b\r\n" * 4000,
    ],
    ids=["ssh", "status", "header", "accept", "upgrade", "extension", "endless"],
)
def test_response_refuses_answer(answer):
    with pytest.raises(HandshakeInvalid):
        handshake.Response(KEY).receive(answer)


@given(st.binary(max_size=300))
def test_response_survives_garbage(data):
    with pytest.raises((HandshakeInvalid, UpgradeRefused)):
        handshake.Response(KEY).receive(data + b"\r\n\r\n" + bytes(5000))
