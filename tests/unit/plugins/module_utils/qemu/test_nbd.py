# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger of an NBD connection: the same books for every cut, in every dialect QEMU speaks."""

from __future__ import annotations

import struct
from typing import List, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.crosscluster.migration.plugins.module_utils.qemu import nbd
from ansible_collections.crosscluster.migration.plugins.module_utils.qemu.errors import NbdInvalid

GREETING = b"NBDMAGICIHAVEOPT\0\3"
FLAGS = b"\0\0\0\3"
GO = 7


def option(number: int, data: bytes = b"") -> bytes:
    return struct.pack(">8sII", b"IHAVEOPT", number, len(data)) + data


def option_reply(number: int, kind: int, data: bytes = b"") -> bytes:
    return struct.pack(">QIII", 0x3E889045565A9, number, kind, len(data)) + data


NEGOTIATION: List[Tuple[str, bytes]] = [
    ("server", GREETING),
    ("client", FLAGS + option(8)),
    ("server", option_reply(8, 1)),
    ("client", option(10, b"\0\0\0\x0bdrive-scsi0\0\0\0\1\0\0\0\x0fbase:allocation")),
    ("server", option_reply(10, 4, b"\0\0\0\1base:allocation") + option_reply(10, 1)),
    ("client", option(GO, b"\0\0\0\x0bdrive-scsi0\0\1\0\3")),
    ("server", option_reply(GO, 3, b"\0\0" + bytes(10)) + option_reply(GO, 1)),
]


def request(command: int, cookie: int, length: int, payload: bytes = b"") -> bytes:
    return struct.pack(">IHHQQI", 0x25609513, 0, command, cookie, 0, length) + payload


def extended(command: int, cookie: int, length: int, payload: bytes = b"") -> bytes:
    return struct.pack(">IHHQQQ", 0x21E41C71, 32 if payload else 0, command, cookie, 0, length) + payload


def simple(cookie: int, error: int = 0, data: bytes = b"") -> bytes:
    return struct.pack(">IIQ", 0x67446698, error, cookie) + data


def chunk(cookie: int, flags: int = 1, kind: int = 0, data: bytes = b"") -> bytes:
    return struct.pack(">IHHQI", 0x668E33EF, flags, kind, cookie, len(data)) + data


def extended_chunk(cookie: int, flags: int = 1, kind: int = 0, data: bytes = b"") -> bytes:
    return struct.pack(">IHHQQQ", 0x6E8A278C, flags, kind, cookie, 0, len(data)) + data


def opened(now: float = 0.0) -> nbd.Ledger:
    ledger = nbd.Ledger()
    for side, data in NEGOTIATION:
        getattr(ledger, side)(data, now)
    return ledger


DIALECTS = {
    "simple": (request, simple),
    "structured": (request, chunk),
    "extended": (extended, extended_chunk),
}


@pytest.fixture(params=DIALECTS.values(), ids=DIALECTS)
def dialect(request):
    return request.param


def test_negotiation_ends_with_go(dialect):
    ledger = opened()
    assert ledger.transmitting
    assert ledger.negotiating_since is None
    assert ledger.outstanding == 0


def test_written_bytes_are_in_flight_until_acknowledged(dialect):
    ask, answer = dialect
    ledger = opened()
    ledger.client(ask(1, 7, 65536, bytes(65536)), 10.0)
    assert (ledger.in_flight, ledger.acknowledged, ledger.outstanding) == (65536, 0, 1)
    assert ledger.oldest is not None
    assert ledger.oldest.since == 10.0
    ledger.server(answer(7), 11.0)
    assert (ledger.in_flight, ledger.acknowledged, ledger.outstanding) == (0, 65536, 0)
    assert ledger.oldest is None


def test_zeroes_cost_nothing_on_the_wire(dialect):
    ask, answer = dialect
    ledger = opened()
    ledger.client(ask(6, 1, 1 << 20), 0.0)
    assert (ledger.in_flight, ledger.outstanding) == (0, 1)
    ledger.server(answer(1), 0.0)
    assert (ledger.acknowledged, ledger.outstanding) == (0, 0)


@pytest.mark.parametrize("flags", [0, 1, 32, 33], ids=["none", "fua", "payload", "both"])
def test_extended_write_carries_its_bytes_whatever_its_flags(flags):
    """QEMU 10.0 asks for extended headers and leaves the payload flag away."""
    ledger = opened()
    header = struct.pack(">IHHQQQ", 0x21E41C71, flags, 1, 7, 0, 65536)
    ledger.client(header + bytes(65536) + extended(1, 8, 3, b"abc"), 0.0)
    assert (ledger.in_flight, ledger.outstanding) == (65539, 2)
    ledger.server(extended_chunk(7) + extended_chunk(8), 0.0)
    assert (ledger.acknowledged, ledger.outstanding) == (65539, 0)


def test_failed_write_is_not_acknowledged():
    ledger = opened()
    ledger.client(request(1, 1, 4, b"abcd"), 0.0)
    ledger.server(simple(1, error=28), 0.0)
    assert (ledger.acknowledged, ledger.in_flight, ledger.outstanding) == (0, 0, 0)


def test_error_chunk_fails_the_request_that_a_later_chunk_ends():
    ledger = opened()
    ledger.client(request(1, 1, 4, b"abcd"), 0.0)
    ledger.server(chunk(1, flags=0, kind=32769, data=b"\0\0\0\x05\0\0") + chunk(1), 0.0)
    assert (ledger.acknowledged, ledger.outstanding) == (0, 0)


def test_read_data_is_skipped_in_simple_replies():
    ledger = opened()
    ledger.client(request(0, 1, 100) + request(1, 2, 4, b"abcd"), 0.0)
    ledger.server(simple(1, data=simple(9) + bytes(84)) + simple(2), 0.0)
    assert (ledger.acknowledged, ledger.outstanding) == (4, 0)


def test_oldest_request_is_the_one_sent_first():
    ledger = opened()
    for cookie in (5, 3, 9):
        ledger.client(request(1, cookie, 1, b"x"), float(cookie))
    ledger.server(simple(5), 20.0)
    assert ledger.oldest is not None
    assert ledger.oldest.since == 3.0


def test_unanswered_option_is_remembered():
    ledger = nbd.Ledger()
    ledger.server(GREETING, 0.0)
    ledger.client(FLAGS + option(8), 5.0)
    assert ledger.negotiating_since == 5.0
    ledger.server(option_reply(8, 1 << 31 | 1), 6.0)
    assert ledger.negotiating_since is None


@pytest.mark.parametrize(("flags", "size"), [(b"\0\0\0\1", 134), (b"\0\0\0\3", 10)], ids=["zeroes", "no-zeroes"])
def test_export_name_is_answered_without_a_reply_header(flags, size):
    ledger = nbd.Ledger()
    ledger.server(GREETING, 0.0)
    ledger.client(flags + option(1, b"drive-scsi0"), 0.0)
    ledger.server(bytes(size), 0.0)
    ledger.client(request(1, 1, 2, b"ab"), 0.0)
    ledger.server(simple(1), 0.0)
    assert ledger.acknowledged == 2


def test_disconnect_waits_for_no_answer():
    ledger = opened()
    ledger.client(request(2, 0, 0), 0.0)
    assert ledger.outstanding == 0


CONVERSATION: List[Tuple[str, bytes]] = [
    *NEGOTIATION,
    ("client", request(1, 1, 1000, bytes(1000)) + request(6, 2, 4096) + request(0, 3, 50)),
    ("server", simple(1) + chunk(2) + chunk(3, 0, 1, bytes(58)) + chunk(3)),
    ("client", extended(1, 4, 3, b"abc") + request(1, 5, 5, b"IHAVE")),
    ("server", extended_chunk(5) + extended_chunk(4)),
    ("client", request(2, 0, 0)),
]


@given(st.data())
def test_books_are_the_same_for_every_cut(data):
    ledger = nbd.Ledger()
    for side, whole in CONVERSATION:
        cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
        for start, end in zip([0, *cuts], [*cuts, len(whole)]):
            getattr(ledger, side)(memoryview(whole)[start:end], 1.0)
    assert (ledger.acknowledged, ledger.in_flight, ledger.outstanding) == (1008, 0, 0)
    assert ledger.transmitting


@given(st.lists(st.tuples(st.sampled_from(["client", "server"]), st.binary(max_size=60)), max_size=8))
def test_hostile_bytes_raise_nothing_but_the_rooms_error(parts):
    for ledger in (nbd.Ledger(), opened()):
        try:
            for side, data in parts:
                getattr(ledger, side)(data, 0.0)
        except NbdInvalid:
            pass
        assert ledger.outstanding <= nbd.MAX_OPEN


@pytest.mark.parametrize(
    ("side", "data"),
    [
        ("client", b"\x25\x60\x95\x14" + bytes(24)),
        ("server", simple(99)),
        ("server", chunk(99)),
        ("server", b"\x67\x44\x66\x99" + bytes(12)),
        ("client", extended(1, 1, 1 << 40, b"x")),
        ("client", request(1, 1, 1, b"x") * 2),
        ("client", option(8)),
    ],
    ids=["request-magic", "unasked", "unasked-chunk", "reply-magic", "huge", "cookie-twice", "option-late"],
)
def test_breach_of_the_protocol_is_refused(side, data):
    with pytest.raises(NbdInvalid):
        getattr(opened(), side)(data, 0.0)


@pytest.mark.parametrize("cut", range(18))
def test_greeting_is_incomplete_before_its_last_byte(cut):
    assert nbd.check_greeting(GREETING[:cut]) is False


def test_greeting_is_checked():
    assert nbd.check_greeting(GREETING + b"more") is True
    for wrong in (b"HTTP/1.1", b"NBDMAGIC\0\0\x42", GREETING[:16] + b"\0\0"):
        with pytest.raises(NbdInvalid):
            nbd.check_greeting(wrong)
