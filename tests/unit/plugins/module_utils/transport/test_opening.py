# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What QEMU was told to encrypt begins with TLS, whatever the cuts; anything else is seen at its first byte."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.crosscluster.migration.plugins.module_utils.transport.interface import Kind
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.opening import Opening

HELLO = b"\x16\x03\x01\x01\x2c\x01"
STARTTLS, EXPORT_NAME, GO = 5, 1, 7


def option(number: int, data: bytes = b"") -> bytes:
    return struct.pack(">8sII", b"IHAVEOPT", number, len(data)) + data


ASKED = b"\0\0\0\3" + option(STARTTLS) + HELLO


def takes(opening: Opening, data: bytes, cuts: "list[int]") -> bool:
    """All pieces of it are taken."""
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return all(opening.takes(memoryview(data[a:b])) for a, b in zip(edges, edges[1:]))


@given(st.sampled_from([(Kind.RAM, HELLO), (Kind.NBD, ASKED), (Kind.NBD, b"\0\0\0\1" + ASKED[4:])]),
       st.binary(max_size=30), st.lists(st.integers(0, 60), max_size=5))  # fmt: skip
def test_tls_is_taken_and_whatever_comes_behind_it(stream, rest, cuts):
    kind, beginning = stream
    assert takes(Opening(kind, opaque=True), beginning + rest, cuts)


@pytest.mark.parametrize(
    ("kind", "data"),
    [(Kind.RAM, b"QEVM\0\0\0\3"), (Kind.RAM, b"\x16\x02"), (Kind.RAM, ASKED), (Kind.NBD, HELLO),
     (Kind.NBD, b"\0\0\0\3" + option(GO, b"\0\0\0\x0cdrive-scsi0\0\0")),
     (Kind.NBD, b"\0\0\0\3" + option(EXPORT_NAME, b"drive-scsi0")),
     (Kind.NBD, b"\0\0\0\3" + option(STARTTLS, b"drive-scsi0")),
     (Kind.NBD, b"\0\0\0\3" + option(STARTTLS) + option(GO)), (Kind.NBD, b"\0\0\0\2" + ASKED[4:])],
)  # fmt: skip
@pytest.mark.parametrize("cuts", [[], [1], [4, 20]])
def test_clear_text_is_not_taken(kind, data, cuts):
    assert not takes(Opening(kind, opaque=True), data, cuts)


@pytest.mark.parametrize("kind", Kind)
def test_other_streams_begin_as_they_like(kind):
    assert takes(Opening(kind, opaque=False), b"QEVM\0\0\0\3", [1])


@given(st.sampled_from([Kind.RAM, Kind.NBD]), st.binary(min_size=1, max_size=40), st.lists(st.integers(0, 40)))
def test_nothing_of_clear_text_goes_beyond_what_tls_begins_with(kind, data, cuts):
    """Whatever is taken is a beginning of TLS, or goes on behind one."""
    if takes(Opening(kind, opaque=True), data, cuts):
        tail = data[20:] if kind is Kind.NBD else data
        assert (b"\x16\x03" + tail[2:]).startswith(tail[:2]) if tail else len(data) <= 20
