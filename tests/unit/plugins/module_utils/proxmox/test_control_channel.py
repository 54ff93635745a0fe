# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control channel: one command at a time, whatever breaks the pairing ends it."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox import commands, control_channel
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.control_channel import ControlChannel
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.errors import (
    AnswerMalformed,
    TunnelPoisoned,
)

OK = b'{"success":true,"api":2,"age":0}\n'


def waiting(command=None):
    """A channel that waits for the reply to `command`."""
    channel = ControlChannel()
    channel.send(command or commands.version())
    return channel


def test_channel_gives_line_of_command():
    assert json.loads(ControlChannel().send(commands.nbdstop())) == {"cmd": "nbdstop"}


@given(st.integers(min_value=0, max_value=len(OK)))
def test_channel_receives_reply_for_any_cut(cut):
    channel = waiting()
    found = channel.receive(OK[:cut]) + channel.receive(OK[cut:])
    assert [(reply.command.name.value, reply.success, reply.body) for reply in found] == [
        ("version", True, {"api": 2, "age": 0})
    ]
    assert channel.outstanding is None


def test_channel_receives_reply_ended_by_crlf():
    assert waiting().receive(OK.replace(b"\n", b"\r\n"))[0].success


@pytest.mark.parametrize("value", [b"1", b"true"])
def test_channel_takes_perl_truth(value):
    assert waiting().receive(b'{"success":%b}\n' % value)[0].success


def test_channel_gives_the_refusal_of_the_target():
    found = waiting(commands.unlock()).receive(b'{"success":false,"msg":"VM 610 not running\\n"}\n')[0]
    assert (found.success, found.text, found.body) == (False, "VM 610 not running", {})


def test_channel_takes_a_refusal_without_text():
    assert waiting().receive(b'{"success":0}\n')[0].text == "no reason given"


def test_channel_hides_secrets_the_target_quotes():
    command = commands.config("cipassword: canary-5\ncores: 1\n")
    line = json.dumps({"success": False, "msg": "unable to parse 'canary-5'" + "x" * 9000}).encode() + b"\n"
    text = waiting(command).receive(line)[0].text
    assert "canary-5" not in text
    assert len(text) <= 2000


def test_channel_refuses_second_command_before_the_reply():
    with pytest.raises(TunnelPoisoned):
        waiting().send(commands.resume())


def test_channel_sends_next_command_after_the_reply():
    channel = waiting()
    channel.receive(OK)
    assert channel.send(commands.resume())


def test_poisoned_channel_sends_nothing():
    channel = waiting()
    channel.poison("no reply in time")
    with pytest.raises(TunnelPoisoned, match="no reply in time"):
        channel.send(commands.stop())


def test_poisoned_channel_still_takes_the_late_reply_and_nothing_else():
    channel = waiting()
    channel.poison("no reply in time")
    assert channel.receive(OK)[0].success
    with pytest.raises(TunnelPoisoned):
        channel.send(commands.stop())
    with pytest.raises(AnswerMalformed):
        channel.receive(OK)


def test_channel_refuses_a_reply_nobody_asked_for():
    channel = ControlChannel()
    with pytest.raises(AnswerMalformed):
        channel.receive(OK)
    assert channel.poisoned


def test_channel_refuses_two_replies_to_one_command():
    channel = waiting()
    with pytest.raises(AnswerMalformed):
        channel.receive(OK + OK)
    assert channel.poisoned


DEEP = b'{"a":' + b"[" * 40 + b"]" * 40 + b',"success":true}\n'
BAD_LINES = {
    "empty": b"\n",
    "no-json": b"this is not json\n",
    "half": b'{"success":tr\n',
    "array": b"[1]\n",
    "string": b'"success"\n',
    "number": b"1\n",
    "null": b"null\n",
    "no-success": b'{"api":2}\n',
    "success-text": b'{"success":"false"}\n',
    "success-null": b'{"success":null}\n',
    "success-two": b'{"success":2}\n',
    "success-list": b'{"success":[]}\n',
    "key-twice": b'{"success":false,"success":true}\n',
    "key-twice-inside": b'{"success":true,"a":{"b":1,"b":2}}\n',
    "nan": b'{"success":true,"a":NaN}\n',
    "infinity": b'{"success":true,"a":-Infinity}\n',
    "overflow": b'{"success":true,"a":1e999}\n',
    "digits": b'{"success":true,"a":' + b"9" * 5000 + b"}\n",
    "surrogate": b'{"success":true,"a":"\\ud800"}\n',
    "surrogate-key": b'{"success":true,"\\udfff":1}\n',
    "utf-8": b'{"success":true,"a":"\xff"}\n',
    "nul": b'{"success":true,"a":"\0"}\n',
    "deep": DEEP,
    "deeper": b"[" * 10000 + b"]" * 10000 + b"\n",
    "open-brackets": b"[" * 100000 + b"\n",
    "trailing": b'{"success":true} x\n',
}


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES.keys())
def test_channel_refuses_line_and_is_poisoned(line):
    channel = waiting()
    with pytest.raises(AnswerMalformed) as caught:
        channel.receive(line)
    assert caught.value.code == "REPLY_MALFORMED"
    assert channel.poisoned
    with pytest.raises(TunnelPoisoned):
        channel.send(commands.stop())


def test_channel_takes_nesting_up_to_the_limit():
    line = b'{"success":true,"a":' + b"[" * 31 + b"]" * 31 + b"}\n"
    assert waiting().receive(line)[0].success


def test_channel_counts_no_brackets_in_text():
    line = b'{"success":true,"a":"' + b"[{" * 100 + b'\\"[["}\n'
    assert waiting().receive(line)[0].success


def test_channel_refuses_an_endless_line():
    channel = waiting()
    for _number in range(8):
        channel.receive(b"x" * 131072)
    with pytest.raises(AnswerMalformed):
        channel.receive(b"x")
    assert channel.poisoned


def test_channel_takes_a_line_of_the_greatest_length():
    body = b'{"success":true,"a":"' + b"x" * (control_channel.MAX_LINE - 24) + b'"}'
    assert waiting().receive(body + b"\n")[0].success


def test_message_of_a_malformed_line_does_not_quote_it():
    with pytest.raises(AnswerMalformed) as caught:
        waiting().receive(b"canary-secret\n")
    assert "canary" not in str(caught.value)


@given(st.binary(max_size=200))
def test_channel_survives_garbage(data):
    channel = waiting()
    with contextlib.suppress(AnswerMalformed):
        for reply in channel.receive(data + b"\n"):
            assert isinstance(reply.success, bool)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["a", "volid", "msg"]), JSON, max_size=3), st.booleans())
def test_channel_gives_what_json_says(body, escaped):
    line = json.dumps({**body, "success": True}, ensure_ascii=escaped).encode() + b"\n"
    assert waiting().receive(line)[0].body == body
