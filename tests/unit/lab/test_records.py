# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checker of the guest's records must find what is lost, torn or misplaced, and nothing else."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from lab.records import HEADER, RING_START, SECTOR, check_image, check_region, make_record

SLOTS = 16


def region(highest: int, disk: int = 0, slots: int = SLOTS) -> bytearray:
    """A ring as a guest leaves it after so many records."""
    data = bytearray(HEADER.pack(b"CCLDISK1", disk, slots).ljust(SECTOR, b"\0") + bytes(SECTOR * slots))
    for seq in range(max(1, highest - slots + 1), highest + 1):
        put(data, seq, make_record(disk, seq), slots)
    return data


def put(data: bytearray, seq: int, record: bytes, slots: int = SLOTS) -> None:
    at = SECTOR * (seq % slots + 1)
    data[at : at + SECTOR] = record


@given(st.integers(0, 100), st.integers(0, 5))
def test_what_a_guest_leaves_is_whole(highest: int, unseen: int) -> None:
    found = check_region(bytes(region(highest + unseen)), {0: highest})
    assert found.bad == []
    assert found.checked == max(0, min(highest, SLOTS - 1))
    assert found.disks == {0: highest + unseen}


@given(st.integers(2, 100), st.data())
def test_a_lost_record_is_found(highest: int, data: st.DataObject) -> None:
    lost = data.draw(st.integers(max(1, highest - SLOTS + 2), highest))
    ring = region(highest)
    old = make_record(0, lost - SLOTS) if lost > SLOTS else bytes(SECTOR)
    put(ring, lost, old)
    found = check_region(bytes(ring), {0: highest})
    assert len(found.bad) == 1
    assert "record %d" % lost in found.bad[0]


@given(st.integers(2, 100), st.data())
def test_a_torn_record_is_found(highest: int, data: st.DataObject) -> None:
    torn = data.draw(st.integers(max(1, highest - SLOTS + 2), highest))
    ring = region(highest)
    at = SECTOR * (torn % SLOTS + 1) + data.draw(st.integers(0, SECTOR - 1))
    ring[at] ^= data.draw(st.integers(1, 255))
    assert len(check_region(bytes(ring), {0: highest}).bad) == 1


def test_the_write_under_way_may_be_torn() -> None:
    ring = region(40)
    put(ring, 41, bytes(SECTOR))
    assert check_region(bytes(ring), {0: 40}).bad == []


def test_records_of_another_disk_are_found() -> None:
    ring = region(20)
    put(ring, 20, make_record(1, 20))
    assert "of disk 1" in check_region(bytes(ring), {0: 20}).bad[0]


def test_an_image_without_header_is_bad(tmp_path: Path) -> None:
    image = tmp_path / "empty.raw"
    image.write_bytes(bytes(RING_START + SECTOR))
    assert check_image(image, {0: 5}).bad == ["empty.raw: no header of a recorder"]


def test_a_raw_image_is_read_at_the_ring(tmp_path: Path) -> None:
    image = tmp_path / "disk.raw"
    image.write_bytes(bytes(RING_START) + bytes(region(30, disk=3)) + b"more")
    found = check_image(image, {3: 30})
    assert (found.checked, found.bad, found.disks) == (SLOTS - 1, [], {3: 30})
