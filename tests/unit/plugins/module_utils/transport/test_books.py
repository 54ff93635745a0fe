# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The books: what counts as acknowledged, and when an import has kept its word."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.crosscluster.migration.plugins.module_utils.qemu.errors import NbdInvalid
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.books import Books
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.interface import Kind


def send(books: Books, data: bytes) -> bool:
    return books.may_send(memoryview(data), 1.0)


def test_pong_acknowledges_what_went_before_its_ping():
    books = Books(Kind.RAM, True, 0.0)
    send(books, b"x" * 10)
    books.pinged(b"1")
    send(books, b"x" * 5)
    assert (books.acknowledged, books.in_flight) == (0, 15)
    books.ponged(b"1")
    assert (books.acknowledged, books.in_flight) == (10, 5)
    books.ponged(b"foreign")
    assert books.acknowledged == 10


@given(st.binary(max_size=40), st.lists(st.integers(0, 48), max_size=5))
def test_import_is_complete_at_its_announced_length_for_every_cut(data, cuts):
    stream = len(data).to_bytes(8, "little") + data
    books = Books(Kind.IMPORT, True, 0.0)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    assert all(send(books, stream[start:end]) for start, end in zip(edges, edges[1:]))
    assert books.is_complete
    assert books.announced == books.sent == len(stream)
    assert not send(books, b"x")


@pytest.mark.parametrize("stream", [b"", b"\1\0\0", (9).to_bytes(8, "little") + b"12345678"])
def test_short_import_is_not_complete(stream):
    books = Books(Kind.IMPORT, True, 0.0)
    assert send(books, stream)
    assert not books.is_complete


def test_import_without_a_length_is_complete_at_its_end():
    books = Books(Kind.IMPORT, False, 0.0)
    assert send(books, b"zfs")
    assert books.is_complete


def test_broken_nbd_is_refused_in_both_directions():
    with pytest.raises(NbdInvalid):
        Books(Kind.NBD, True, 0.0).came(b"HTTP/1.1 400 Bad Request", 0.0)
    with pytest.raises(NbdInvalid):
        send(Books(Kind.NBD, True, 0.0), b"\0\0\0\3" + b"GET / HTTP/1.1\r\n")


def test_stream_without_requests_has_none_open():
    books = Books(Kind.RAM, True, 0.0)
    assert (books.oldest, books.negotiating) == (None, None)
    assert books.stats() == {
        "sent": 0, "received": 0, "acknowledged": 0, "in_flight": 0, "acknowledged_rate": 0, "busy_s": 0.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("length", "came", "complete"),
    [(8704, 8384, True), (8704, 8704, True), (8704, 8192, False), (8704, 0, False), (8700, 8384, False), (0, 0, True)],
)
def test_length_told_in_whole_sectors_may_be_less_than_a_sector_too_much(length, came, complete):
    books = Books(Kind.IMPORT, True, 0.0)
    assert books.may_send(memoryview(length.to_bytes(8, "little") + bytes(came)), 0.0)
    assert books.is_complete is complete


def test_beat_tells_what_the_targets_qemu_has_read():
    books = Books(Kind.RAM, sized=False, now=0.0)
    for second in range(1, 5):
        books.may_send(memoryview(bytes(10**6)), float(second))
        books.consumed(second * 10**6 - 1000, float(second))
    books.consumed(5, 5.0)  # never back
    stats = books.stats()
    assert (stats["acknowledged"], stats["in_flight"]) == (4 * 10**6 - 1000, 1000)
    assert 0.5e6 < stats["acknowledged_rate"] < 2e6


def test_encrypted_nbd_has_no_ledger():
    books = Books(Kind.NBD, sized=True, now=0.0, opaque=True)
    assert books.ledger is None
    assert books.may_send(memoryview(b"\x16\x03\x01"), 1.0)
    books.came(b"anything", 1.0)
    assert books.is_complete
