# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The check of records that molecule's verify runs on a node, against records as the lab makes them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from lab.records import HEADER, SECTOR, make_record

SCRIPT = Path(__file__).resolve().parents[3] / "extensions" / "molecule" / "default" / "files" / "records.py"
SLOTS = 16


@pytest.fixture(scope="module")
def records():
    spec = importlib.util.spec_from_file_location("molecule_records", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def region(last: int, lost: tuple[int, ...] = (), disk: int = 3) -> bytes:
    """Header and ring of a disk on which records up to `last` were written but for the lost ones."""
    slots = [bytes(SECTOR)] * SLOTS
    for number in range(1, last + 1):
        if number not in lost:
            slots[number % SLOTS] = make_record(disk, number)
    return HEADER.pack(b"CCLDISK1", disk, SLOTS).ljust(SECTOR, b"\0") + b"".join(slots)


def test_a_ring_that_is_not_full_yet_holds_every_record(records) -> None:
    assert records.check(region(9), {3: 9}) == (3, 9, [])


def test_a_full_ring_holds_the_last_ones(records) -> None:
    assert records.check(region(100), {3: 100}) == (3, SLOTS - 1, [])


def test_what_was_written_after_the_last_word_does_not_count(records) -> None:
    disk, count, missing = records.check(region(104), {3: 100})
    assert (disk, count, missing) == (3, SLOTS - 5, [])


def test_a_lost_record_is_found(records) -> None:
    assert records.check(region(100, lost=(93,)), {3: 100})[2] == [93]
    assert records.check(region(9, lost=(1,)), {3: 9})[2] == [1]


def test_a_copy_from_before_the_move_is_found(records) -> None:
    """As if the target ran on an old copy: everything since is missing."""
    assert records.check(region(90), {3: 100})[2] == list(range(91, 101))


def test_a_torn_record_is_found(records) -> None:
    data = bytearray(region(9))
    data[SECTOR * (1 + 5) + 100] ^= 1
    assert records.check(bytes(data), {3: 9})[2] == [5]
