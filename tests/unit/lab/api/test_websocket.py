# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The front end's frame rules (mtunnel-protocol 3.4 and 3.5)."""

from __future__ import annotations

import struct
from typing import List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.api.websocket import MAX_PAYLOAD, BadFrame, Frame, FrameReader, Opcode, accept_key, frame, frames


def client_frame(payload: bytes, first: int = 0x82, key: bytes = b"\0\0\0\0", masked: bool = True) -> bytes:
    length, bit = len(payload), 0x80 if masked else 0
    if length < 126:
        head = struct.pack(">BB", first, bit | length)
    elif length < 65536:
        head = struct.pack(">BBH", first, bit | 126, length)
    else:
        head = struct.pack(">BBQ", first, bit | 127, length)
    if not masked:
        return head + payload
    return head + key + bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))


def read(*chunks: bytes) -> List[Frame]:
    reader = FrameReader()
    return [found for chunk in chunks for found in reader.receive(chunk)]


@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(Opcode.KNOWN)), st.binary(max_size=300), st.binary(min_size=4, max_size=4))
    ),
    st.integers(min_value=1, max_value=50),
)
def test_any_cut_of_the_stream_gives_the_same_frames(wanted: "list[tuple[int, bytes, bytes]]", size: int) -> None:
    stream = b"".join(client_frame(payload, 0x80 | opcode, key) for opcode, payload, key in wanted)
    cut = [stream[at : at + size] for at in range(0, len(stream), size)]
    assert read(*cut) == [Frame(opcode, payload) for opcode, payload, _ in wanted]


@pytest.mark.parametrize("length", [0, 125, 126, 65535, 65536, MAX_PAYLOAD])
def test_lengths_up_to_the_limit_pass(length: int) -> None:
    assert read(client_frame(b"x" * length))[0].payload == b"x" * length


@pytest.mark.parametrize(
    "raw",
    [
        client_frame(b"x", masked=False),
        client_frame(b"x", 0x02),
        client_frame(b"x", 0x80),
        client_frame(b"x", 0x83),
        client_frame(b"x", 0xC2),
        client_frame(b"x", 0xA2),
        struct.pack(">BBQ", 0x82, 0xFF, MAX_PAYLOAD + 1),
    ],
    ids=["unmasked", "fragmented", "continuation", "opcode 3", "rsv1", "rsv2", "oversize, head only"],
)
def test_a_broken_rule_is_fatal_at_once(raw: bytes) -> None:
    with pytest.raises(BadFrame):
        read(raw)


def test_frames_before_a_bad_one_still_count() -> None:
    reader = FrameReader()
    stream = reader.receive(client_frame(b"good") + client_frame(b"bad", 0x83))
    assert next(stream).payload == b"good"
    with pytest.raises(BadFrame):
        next(stream)


def test_server_frames_are_whole_unmasked_and_bounded() -> None:
    assert frame(Opcode.PONG, b"hi") == b"\x8a\x02hi"
    data = frames(b"y" * (MAX_PAYLOAD + 1))
    assert data[:10] == struct.pack(">BBQ", 0x82, 127, MAX_PAYLOAD)
    assert data[-3:] == b"\x82\x01y"


def test_accept_key_of_the_standard() -> None:
    assert accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
