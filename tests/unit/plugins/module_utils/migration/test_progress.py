# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The numbers of a running migration and the one line that a person reads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.crosscluster.migration.plugins.module_utils.migration.progress import (
    LINE_LIMIT,
    Progress,
    line,
)

MIB = 1 << 20


def test_rate_percent_and_eta_follow_from_the_byte_counts():
    progress = Progress()
    progress.moved(100.0, 0, 1000 * MIB)
    progress.moved(102.0, 200 * MIB, 1000 * MIB)
    values = progress.snapshot()
    assert (values["rate"], values["percent"], values["bytes_remaining"], values["eta_s"]) == (
        100 * MIB,
        20,
        800 * MIB,
        8,
    )


@pytest.mark.parametrize("start", [0, 1000 * MIB], ids=["moving", "at rest"])
def test_nothing_is_waited_for_when_all_is_there(start):
    progress = Progress()
    progress.moved(100.0, start, 1000 * MIB)
    progress.moved(102.0, 1000 * MIB, 1000 * MIB)
    assert progress.snapshot()["eta_s"] == 0


def test_rate_forgets_what_is_older_than_ten_seconds():
    progress = Progress()
    progress.moved(0.0, 0, 1000 * MIB)
    progress.moved(1.0, 500 * MIB, 1000 * MIB)
    progress.moved(11.5, 500 * MIB, 1000 * MIB)
    assert progress.snapshot()["rate"] == 0
    assert progress.snapshot()["eta_s"] is None


def test_waiting_returns_at_once_when_the_phase_has_changed():
    progress = Progress()
    progress.announce(phase="mirroring")
    assert progress.wait(0, timeout=60)["phase"] == "mirroring"


def test_line_tells_all_a_person_asks_for():
    status = {
        "phase": "mirroring",
        "percent": 42,
        "bytes_transferred": 42 * MIB,
        "bytes_total": 100 * MIB,
        "rate": 10 * MIB,
        "bytes_remaining": 58 * MIB,
        "eta_s": 75,
        "dirty_rate": MIB,
    }
    assert line("web01", "a1", status) == (
        "web01 on a1: mirroring 42% 42.0 MiB/100.0 MiB 10.0 MiB/s, left 58.0 MiB, ETA 1m15s, dirty 1.0 MiB/s"
    )


@given(st.text(max_size=300), st.integers(0, 1 << 60), st.one_of(st.none(), st.integers(0, 1 << 40)))
def test_line_is_never_longer_than_its_limit(name, total, eta):
    text = line(
        name, "a1", {"phase": "precopy", "bytes_total": total, "eta_s": eta, "rate": total, "dirty_rate": total}
    )
    assert len(text) <= LINE_LIMIT


@given(st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 1 << 50), st.integers(0, 1 << 50)), max_size=30))
def test_any_counts_give_sensible_numbers(samples):
    progress = Progress()
    for now, moved, total in samples:
        progress.moved(now, moved, total)
        values = progress.snapshot()
        assert 0 <= values["percent"] <= 100
        assert values["bytes_remaining"] >= 0
        assert values["rate"] >= 0
