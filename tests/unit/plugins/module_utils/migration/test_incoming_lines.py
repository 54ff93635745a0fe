# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.crosscluster.migration.plugins.module_utils.migration.control_socket import PROTOCOL
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.incoming_lines import (
    Conversation,
    Request,
    TooLong,
    invalid,
)


def test_greeting_names_the_protocol_of_the_client():
    assert json.loads(Conversation.greeting(migration_id="5d")) == {
        "hello": {"migration_id": "5d", "protocol": PROTOCOL}
    }


@given(st.lists(st.integers(1, 20), max_size=20))
def test_requests_come_whole_whatever_the_pieces(cuts):
    data = b'{"id":1,"op":"state","wait":0}\n{"id":2,"op":"seal"}\n'
    words, found = Conversation(), []
    for cut in [*cuts, len(data)]:
        found += words.receive(data[:cut])
        data = data[cut:]
    assert found == [Request(1, "state", {"wait": 0}), Request(2, "seal", {})]


@pytest.mark.parametrize(
    "line",
    [b"", b"[]", b"nonsense", b'{"op":"state"}', b'{"id":true,"op":"x"}', b'{"id":1,"op":2}', b"\xff", b"[" * 9999],
)
def test_what_is_no_request_is_answered_with_an_error(line):
    (request,) = Conversation().receive(line + b"\n")
    assert request.op == ""
    answer = json.loads(Conversation.refuse(request, invalid("unknown request")))
    assert answer["error"]["code"] == "REQUEST_INVALID"


def test_answer_carries_the_id_of_its_request():
    assert json.loads(Conversation.answer(Request(7, "seal", {}), {"a": 1})) == {"id": 7, "data": {"a": 1}}


@pytest.mark.parametrize("data", [b"x" * 65537, b"x" * 65537 + b"\n"])
def test_line_without_an_end_ends_the_conversation(data):
    with pytest.raises(TooLong):
        Conversation().receive(data)
