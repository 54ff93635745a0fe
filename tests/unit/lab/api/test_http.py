# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Request heads, limits and answers."""

from __future__ import annotations

import pytest

from lab.api.http import Answer, BadRequest, encode, head_end, parameters, parse_head

HEAD = (
    b"POST /api2/json/x?a=1 HTTP/1.1\r\nHost: h\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 7\r\n\r\n"
)


def test_head_query_and_form() -> None:
    end = head_end(HEAD + b"b=2&c=3")
    assert end == len(HEAD)
    request, length = parse_head(HEAD)
    request.body = b"b=2&c=3"
    assert (request.method, request.path, length) == ("POST", "/api2/json/x", 7)
    assert parameters(request) == {"a": "1", "b": "2", "c": "3"}
    assert request.keep_alive
    assert not request.upgrade


def test_json_body() -> None:
    request, _ = parse_head(HEAD.replace(b"application/x-www-form-urlencoded", b"application/json"))
    request.body = b'{"b": 2}'
    assert parameters(request)["b"] == 2


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 65 + b"\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * 8200 + b"\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nContent-Length: 600000\r\n\r\n", 501),
    ],
)
def test_limits(head: bytes, status: int) -> None:
    with pytest.raises(BadRequest) as refused:
        parse_head(head)
    assert refused.value.status == status


def test_upgrade_looks_at_the_path_and_not_at_connection() -> None:
    head = b"GET /api2/json/nodes/b/qemu/1/mtunnelwebsocket?x=1 HTTP/1.1\r\nUpgrade: WebSocket\r\n\r\n"
    assert parse_head(head)[0].upgrade == "websocket"
    assert parse_head(head.replace(b"WebSocket", b"h2c"))[0].upgrade == "h2c"
    assert not parse_head(head.replace(b"mtunnelwebsocket", b"mtunnelsocket"))[0].upgrade


def test_answer_headers() -> None:
    text = encode(Answer(401, "No ticket", None, None), False).decode()
    assert text.startswith("HTTP/1.1 401 No ticket\r\n")
    assert "Content-Length" not in text
    assert "Server: pve-api-daemon/3.0\r\n" in text
    assert "Connection: close\r\n" in text
