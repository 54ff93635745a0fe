# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Frames between two workers: any cut gives the same frames, garbage never passes, memory stays bounded."""

from __future__ import annotations

import contextlib
import struct
from typing import List, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.crosscluster.migration.plugins.module_utils.transport import wire
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.errors import WireError
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.wire import Decoder, Frame, FrameKind

MAX = 300  # of these tests; the codec only compares


def raw(number: int, payload: bytes, flags: int = 0, reserved: int = 0, length: int = -1) -> bytes:
    """A frame written by hand, not by the codec under test."""
    return struct.pack(">BBHI", number, flags, reserved, len(payload) if length < 0 else length) + payload


SPOKEN = st.sampled_from([1, 2, 3, 4, 10])
FRAMES = st.lists(
    st.one_of(
        st.tuples(SPOKEN, st.dictionaries(st.text("abc", max_size=3), st.integers(), max_size=3).map(repr)).map(
            lambda pair: (pair[0], pair[1].replace("'", '"').encode())
        ),
        st.tuples(st.sampled_from([5, 6, 9]), st.just(b"")),
        st.tuples(st.just(8), st.binary(min_size=8, max_size=8)),
        st.tuples(st.just(7), st.binary(min_size=1, max_size=MAX)),
    ),
    max_size=12,
)


def merged(frames: List[Frame]) -> List[Tuple[int, bytes]]:
    """Neighbouring pieces of data as one: where a DATA frame was cut means nothing."""
    whole: List[Tuple[int, bytes]] = []
    for kind, payload in frames:
        if whole and kind == whole[-1][0] == FrameKind.DATA:
            whole[-1] = (kind, whole[-1][1] + bytes(payload))
        else:
            whole.append((int(kind), bytes(payload)))
    return whole


@given(FRAMES, st.lists(st.integers(1, 400), max_size=30))
def test_any_cut_gives_the_same_frames(frames, cuts):
    data = b"".join(raw(number, payload) for number, payload in frames)
    decoder = Decoder(MAX)
    got: List[Frame] = []
    at = 0
    for cut in [*cuts, len(data)]:
        got += decoder.receive(data[at : at + cut])
        at += cut
    got += decoder.receive(data[at:])
    assert merged(got) == merged([Frame(FrameKind(number), payload) for number, payload in frames])


def test_data_is_not_copied():
    data = memoryview(bytearray(raw(7, b"x" * 100)))
    (frame,) = Decoder(MAX).receive(data)
    data[8:9] = b"y"
    assert bytes(frame.payload[:2]) == b"yx"


@pytest.mark.parametrize(
    "data",
    [raw(0, b""), raw(11, b""), raw(255, b""), raw(9, b"", flags=1), raw(9, b"", reserved=1), raw(9, b"x"),
     raw(5, b"{}"), raw(8, b"1234567"), raw(8, b"123456789"), raw(7, b""), raw(7, b"", length=MAX + 1),
     raw(1, b"", length=4097), raw(1, b""), raw(10, b"", length=2**32 - 1), b"GET / HTTP/1.1\r\n", b"QEVM\0\0\0\3",
     b"NBDMAGICIHAVEOPT", b"\x16\x03\x01\x02\x00\x01\x00\x01"],
    ids=["0", "11", "255", "flags", "reserved", "fin", "open", "short-beat", "long-beat", "no-data", "long-data",
         "long-hello", "empty-hello", "huge", "http", "qemu", "nbd", "tls"],
)  # fmt: skip
def test_what_is_no_frame_is_refused_by_its_first_eight_bytes(data):
    decoder = Decoder(MAX)
    with pytest.raises(WireError):
        decoder.receive(data[:8])
    with pytest.raises(WireError):
        decoder.receive(raw(9, b""))


@given(st.binary(min_size=1, max_size=3000), st.integers(1, 700))
def test_garbage_never_takes_memory(data, cut):
    decoder = Decoder(MAX)
    with contextlib.suppress(WireError):
        for at in range(0, len(data), cut):
            decoder.receive(data[at : at + cut])
            assert len(decoder._held) < wire.MAX_CONTROL + wire.HEADER_SIZE


@given(st.integers(0, 2**64 - 1))
def test_beat_carries_its_count(count):
    (frame,) = Decoder(MAX).receive(wire.beat(count))
    assert (frame.kind, frame.consumed) == (FrameKind.BEAT, count)


@pytest.mark.parametrize("plane", ["tls", "tcp"])
def test_header_and_full_frame_fill_whole_kibibytes(plane):
    """direct-transports 5: exactly 8 TLS records."""
    length = wire.MAX_DATA[plane]
    assert wire.header(length) == raw(7, b"", length=length)
    assert (length + wire.HEADER_SIZE) % 16384 == 0


@pytest.mark.parametrize(
    ("kind", "payload"),
    [(FrameKind.FIN, b"x"), (FrameKind.BEAT, b""), (FrameKind.DATA, b""), (FrameKind.DATA, bytes(2**18)),
     (FrameKind.HELLO, bytes(4097))],
)  # fmt: skip
def test_nothing_is_sent_that_no_peer_takes(kind, payload):
    with pytest.raises(WireError):
        wire.encode(kind, payload)


@given(st.text(max_size=2000), st.text(max_size=200))
def test_abort_always_arrives_on_one_line(text, code):
    (frame,) = Decoder(MAX).receive(wire.abort(code, text))
    assert set(frame.fields) == {"code", "text"}
    assert frame.fields["text"].isprintable()
    assert len(frame.fields["text"]) <= wire.MAX_TEXT


@pytest.mark.parametrize(
    "payload",
    [b"[]", b"12", b'"a"', b"{]", b'{"a":NaN}', b"[" * 4096, b"\xff\xfe{}", b'{"a":' * 800, b"null"],
    ids=["list", "number", "text", "broken", "nan", "deep", "utf16", "deep-object", "null"],
)
def test_spoken_frame_is_one_object(payload):
    (frame,) = Decoder(MAX).receive(raw(1, payload))
    with pytest.raises(WireError):
        frame.fields  # noqa: B018  reading is what raises
