# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The QMP codec: every cut of a stream gives the same messages; nothing unbounded or unknown passes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.crosscluster.migration.plugins.module_utils.qemu import qmp
from ansible_collections.crosscluster.migration.plugins.module_utils.qemu.errors import QmpInvalid

LINES = (
    b'{"QMP": {"version": {"qemu": {"micro": 3, "minor": 1, "major": 11}, "package": ""}, "capabilities": ["oob"]}}\r\n'
    b'{"return": {}, "id": "a"}\r\n'
    b'{"timestamp": {"seconds": 12, "microseconds": 500000}, "event": "STOP"}\r\n'
    b'{"id": "b", "error": {"class": "GenericError", "desc": "no"}}\r\n'
)
MESSAGES = [
    qmp.Greeting({"qemu": {"micro": 3, "minor": 1, "major": 11}, "package": ""}),
    qmp.Reply("a", {}),
    qmp.Event("STOP", {}),
    qmp.Failure("b", "GenericError", "no"),
]


@given(st.lists(st.integers(0, len(LINES))))
def test_codec_gives_the_same_messages_for_every_cut(cuts):
    codec = qmp.Codec()
    edges = [0, *sorted(cuts), len(LINES)]
    got = [message for start, end in zip(edges, edges[1:]) for message in codec.receive(LINES[start:end])]
    assert got == MESSAGES


@given(st.binary(max_size=200))
def test_codec_raises_nothing_but_its_own_error(data):
    try:
        qmp.Codec().receive(data + b"\n")
    except QmpInvalid:
        pass


@pytest.mark.parametrize(
    "line",
    [b"[]", b"1", b"{}", b"{", b'{"event": 1}', b'{"event": "X", "data": 1}', b'{"error": 1}',
     b'{"return": 1, "id": 2}', b"[" * 100000],
    ids=["list", "number", "empty", "cut", "event-number", "event-data", "error-number", "foreign-id", "deep"],
)  # fmt: skip
def test_codec_refuses_what_is_no_message(line):
    with pytest.raises(QmpInvalid):
        qmp.Codec().receive(line + b"\n")


def test_codec_refuses_a_line_without_end():
    with pytest.raises(QmpInvalid):
        qmp.Codec(max_line=100).receive(b"x" * 101)


@pytest.mark.parametrize("arguments", [None, {"device": "drive-scsi0", "force": False}])
def test_command_is_one_line_of_json(arguments):
    line = qmp.command("block-job-cancel", arguments, "c1")
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    expected = {"execute": "block-job-cancel", "id": "c1"}
    assert json.loads(line) == (expected if arguments is None else {**expected, "arguments": arguments})
