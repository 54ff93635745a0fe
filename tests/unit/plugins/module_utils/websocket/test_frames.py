# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The frame codec: what may be sent, what may come, whatever the cuts."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.crosscluster.migration.plugins.module_utils.websocket import frames
from ansible_collections.crosscluster.migration.plugins.module_utils.websocket.errors import (
    FrameInvalid,
    FrameUnsendable,
)

KEYS = st.one_of(st.just(frames.ZERO_KEY), st.binary(min_size=4, max_size=4))


def server_frame(payload: bytes, opcode: int = 2, first: int = 0x80) -> bytes:
    """A frame as the server writes it; written here by hand, not by the codec under test."""
    size = len(payload)
    if size < 126:
        length = bytes([size])
    elif size < 65536:
        length = b"\x7e" + size.to_bytes(2, "big")
    else:
        length = b"\x7f" + size.to_bytes(8, "big")
    return bytes([first | opcode]) + length + payload


def unmask(frame: bytes) -> "tuple[int, bytes]":
    """Opcode and payload of one client frame."""
    assert frame[0] & 0xF0 == 0x80
    assert frame[1] & 0x80
    size, at = frame[1] & 0x7F, 2
    if size == 126:
        size, at = int.from_bytes(frame[2:4], "big"), 4
    elif size == 127:
        size, at = int.from_bytes(frame[2:10], "big"), 10
    key, payload = frame[at : at + 4], frame[at + 4 :]
    assert len(payload) == size
    return frame[0] & 0x0F, bytes(byte ^ key[position % 4] for position, byte in enumerate(payload))


@pytest.mark.parametrize(
    ("length", "size"), [(0, 6), (125, 6), (126, 8), (65535, 8), (65536, 14), (131072, 14)], ids=str
)
def test_client_header_has_zero_key_and_size(length, size):
    header = frames.client_header(length)
    assert len(header) == size
    assert header[0] == 0x82
    assert header[-4:] == b"\0\0\0\0"
    assert unmask(header + bytes(length)) == (2, bytes(length))


@pytest.mark.parametrize("length", [-1, 131073])
def test_client_header_refuses_length(length):
    with pytest.raises(FrameUnsendable):
        frames.client_header(length)


@pytest.mark.parametrize("payload", frames.ALIGNED_PAYLOADS)
def test_aligned_payload_fills_tls_records(payload):
    assert (payload + len(frames.client_header(payload))) % 16384 == 0


@given(payload=st.binary(max_size=70000), key=KEYS)
def test_client_sends_masked_frame(payload, key):
    assert unmask(frames.encode(frames.Opcode.BINARY, payload, key)) == (2, payload)


def test_client_sends_largest_frame():
    assert len(frames.encode(2, bytes(frames.MAX_PAYLOAD))) == frames.MAX_PAYLOAD + 14


@pytest.mark.parametrize(
    ("opcode", "payload", "key"),
    [(2, bytes(131073), b"\0\0\0\0"), (0, b"", b"\0\0\0\0"), (3, b"", b"\0\0\0\0"), (11, b"", b"\0\0\0\0"),
     (9, bytes(126), b"\0\0\0\0"), (2, b"x", b"\0\0\0")],
    ids=["oversize", "continuation", "opcode-3", "opcode-11", "long-ping", "short-key"],
)  # fmt: skip
def test_client_refuses_to_send_what_kills_the_server(opcode, payload, key):
    with pytest.raises(FrameUnsendable):
        frames.encode(opcode, payload, key)


def test_client_sends_close_with_status():
    assert unmask(frames.close_frame()) == (8, b"\x03\xe8")


def test_client_sends_ping():
    assert unmask(frames.ping_frame(b"tick")) == (9, b"tick")


@given(
    payloads=st.lists(st.binary(min_size=1, max_size=300), max_size=6),
    cuts=st.lists(st.integers(min_value=1, max_value=50), max_size=40),
)
def test_decoder_gives_same_events_for_any_cut(payloads, cuts):
    stream = b"".join(server_frame(payload) for payload in payloads)
    decoder, events, at = frames.Decoder(), [], 0
    for cut in [*cuts, len(stream)]:
        events += decoder.receive(stream[at : at + cut])
        at += cut
    assert [event.payload for event in events] == payloads


@pytest.mark.parametrize("size", [125, 126, 65535, 65536, 131072])
def test_decoder_receives_every_length_form(size):
    assert frames.Decoder().receive(server_frame(bytes(size))) == [frames.Data(bytes(size))]


def test_decoder_receives_pong_ping_and_close():
    stream = server_frame(b"a", 10) + server_frame(b"b", 9) + server_frame(b"\x03\xe8", 8)
    assert frames.Decoder().receive(stream) == [frames.Pong(b"a"), frames.Ping(b"b"), frames.Close(1000)]


def test_decoder_receives_close_without_status():
    assert frames.Decoder().receive(server_frame(b"", 8)) == [frames.Close(None)]


def test_decoder_ignores_what_follows_a_close():
    decoder = frames.Decoder()
    assert decoder.receive(server_frame(b"", 8) + b"\xff\xff") == [frames.Close(None)]
    assert decoder.receive(b"\xff") == []


def test_decoder_gives_no_event_for_an_empty_frame():
    assert frames.Decoder().receive(server_frame(b"") + server_frame(b"x")) == [frames.Data(b"x")]


@pytest.mark.parametrize(
    "bad",
    [
        b"\x02\x01x",
        b"\xc2\x01x",
        b"\x80\x01x",
        b"\x81\x01x",
        b"\x83\x01x",
        b"\x82\x81\0\0\0\0x",
        b"\x82\x7f" + (131073).to_bytes(8, "big"),
        b"\x82\x7f" + (1 << 63).to_bytes(8, "big"),
        b"\x82\x7e\x00\x01x",
        b"\x82\x7f" + (1).to_bytes(8, "big"),
        b"\x8a\x7e",
        b"\x88\x01x",
    ],
    ids=["fragment", "rsv", "continuation", "text", "opcode-3", "masked", "oversize", "huge", "long-form-16",
         "long-form-64", "long-pong", "half-status"],
)  # fmt: skip
def test_decoder_refuses_frame(bad):
    with pytest.raises(FrameInvalid):
        frames.Decoder().receive(bad)


def test_decoder_refuses_oversize_before_the_payload_comes():
    decoder = frames.Decoder()
    header = b"\x82\x7f" + (1 << 40).to_bytes(8, "big")
    assert decoder.receive(header[:-1]) == []
    with pytest.raises(FrameInvalid):
        decoder.receive(header[-1:])


def test_decoder_gives_nothing_after_a_violation():
    decoder = frames.Decoder()
    with pytest.raises(FrameInvalid):
        decoder.receive(b"\x02\x01x")
    assert decoder.receive(server_frame(b"x")) == []


@given(st.binary(max_size=400))
def test_decoder_survives_garbage(data):
    with contextlib.suppress(FrameInvalid):
        assert all(isinstance(event, frames.Event.__args__) for event in frames.Decoder().receive(data))
