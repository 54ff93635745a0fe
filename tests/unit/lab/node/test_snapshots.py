# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots as they are listed."""

from __future__ import annotations

import time

import pytest

from lab.node import snapshots
from lab.node.base import Die
from lab.node.vmconfig import VmConfig

CONFIG = """memory: 64
parent: second

[first]
#before
#the move
memory: 64
snaptime: 1700000000

[second]
memory: 64
parent: first
snaptime: 1700000100

[side]
memory: 64
parent: first
snaptime: 1700000050
"""


def test_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    entries = snapshots.listing(VmConfig.parse(100, CONFIG), True)
    assert entries[-1]["parent"] == "second"
    assert entries[-1]["running"] == 1
    assert entries[0] == {
        "name": "first",
        "snaptime": 1700000000,
        "vmstate": 0,
        "description": "before\nthe move",
    }
    assert snapshots.tree(entries) == (
        "`-> first                       2023-11-14 22:13:20     before\n"
        " `-> side                       2023-11-14 22:14:10     no-description\n"
        " `-> second                     2023-11-14 22:15:00     no-description\n"
        "  `-> current                                           You are here!\n"
    )


@pytest.mark.parametrize("name", ["current", "pending", "PENDING"])
def test_reserved_names(name: str) -> None:
    with pytest.raises(Die, match="reserved name"):
        snapshots.check_name(name)
