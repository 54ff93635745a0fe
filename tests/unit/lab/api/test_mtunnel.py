# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tunnel worker says about lines it cannot read, and its replies under faults."""

from __future__ import annotations

import pytest

from lab.api.mtunnel import _merged, json_error, socket_of


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("this is not json", "'true' expected, at character offset 0 (before \"this is not json\")"),
        (
            "",
            "malformed JSON string, neither tag, array, object, number, string or atom, at character offset 0 "
            '(before "(end of string)")',
        ),
        ("nosuch", "'null' expected, at character offset 0 (before \"nosuch\")"),
    ],
)
def test_parser_texts(line: str, text: str) -> None:
    assert json_error(line) == text


def test_control_socket() -> None:
    assert socket_of(100) == "/run/qemu-server/100.mtunnel"


def test_faults_merge_into_nested_replies() -> None:
    reply = {"migrate": {"addr": "/a", "proto": "unix"}, "success": True}
    assert _merged(reply, {"migrate": {"addr": "/b"}, "x": 1}) == {
        "migrate": {"addr": "/b", "proto": "unix"},
        "success": True,
        "x": 1,
    }
