# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tunnel worker says about lines it cannot read, and its replies under faults."""

from __future__ import annotations

import pytest

from lab.api.mtunnel import _merged, parsed, socket_of
from lab.node.base import Die


def test_a_line_without_an_object_ends_the_worker() -> None:
    assert parsed(b'{"cmd":"version"}\r') == {"cmd": "version"}
    assert parsed(b"null") == {}
    for line, text in ((b"[1]", "Not a HASH reference at "), (b"true", "Not a HASH reference at ")):
        with pytest.raises(Die, match=text):
            parsed(line)
    with pytest.raises(Die) as caught:
        parsed(b'"version"')
    assert caught.value.text.startswith('Can\'t use string ("version") as a HASH ref while "strict refs" in use at ')


def test_control_socket() -> None:
    assert socket_of(100) == "/run/qemu-server/100.mtunnel"


def test_faults_merge_into_nested_replies() -> None:
    reply = {"migrate": {"addr": "/a", "proto": "unix"}, "success": True}
    assert _merged(reply, {"migrate": {"addr": "/b"}, "x": 1}) == {
        "migrate": {"addr": "/b", "proto": "unix"},
        "success": True,
        "x": 1,
    }
