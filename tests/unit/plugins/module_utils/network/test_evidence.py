# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks as they travel."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.crosscluster.migration.plugins.module_utils.network.errors import NetworkInvalid
from ansible_collections.crosscluster.migration.plugins.module_utils.network.evidence import TITLES, Check, State

CHECKS = st.builds(
    Check,
    st.sampled_from(sorted(TITLES)),
    st.text(max_size=9),
    st.sampled_from(State),
    st.text(max_size=9),
    st.text(max_size=9),
    st.sampled_from(["", "equal", "neighbours"]),
)


@given(CHECKS)
def test_check_comes_back_as_it_went(check):
    assert Check.parse(check.to_dict()) == check


@pytest.mark.parametrize(
    "change",
    [{"number": 0}, {"number": True}, {"number": "1"}, {"state": "fine"}, {"state": []}, {"node": None}, {"part": 1}],
)
def test_what_is_no_check_is_refused(change):
    with pytest.raises(NetworkInvalid):
        Check.parse({**Check(1, "a", State.PASSED, "x").to_dict(), **change})


@pytest.mark.parametrize("value", [None, [], "passed", 1])
def test_what_is_no_object_is_refused(value):
    with pytest.raises(NetworkInvalid):
        Check.parse(value)


def test_long_text_is_cut():
    raw = {**Check(1, "a", State.PASSED, "x" * 10_000).to_dict()}
    assert len(Check.parse(raw).finding) == 600
