# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checked reading of what commands print."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.crosscluster.migration.plugins.module_utils.network import fields
from ansible_collections.crosscluster.migration.plugins.module_utils.network.errors import NetworkFactsInvalid

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(JSON)
def test_entries_are_objects_or_refused(value):
    try:
        found = fields.entries("ip", value)
    except NetworkFactsInvalid:
        return
    assert all(isinstance(entry, dict) and entry for entry in found)


def test_entries_leaves_out_what_ip_filtered():
    assert fields.entries("ip", [{}, {"a": 1}]) == [{"a": 1}]


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "nan-", "\x00"])
def test_output_that_is_no_json_is_refused(text):
    with pytest.raises(NetworkFactsInvalid):
        fields.parse_json("ip", text)


def test_output_longer_than_any_node_prints_is_refused():
    with pytest.raises(NetworkFactsInvalid, match="length"):
        fields.parse_json("ip", " " * (fields.MAX_OUTPUT + 1))


@pytest.mark.parametrize("value", ["", "a/b", "..", "a b", "x" * 16, "ä", "a\n", None, 1, ["a"]])
def test_name_of_an_interface_is_refused(value):
    with pytest.raises(NetworkFactsInvalid):
        fields.name("ip", {"ifname": value}, "ifname")


@pytest.mark.parametrize("value", ["eth0", "vmbr0.30", "tap100i0", "fwpr100p0", "veth1@if2"])
def test_name_of_an_interface_is_taken(value):
    assert fields.name("ip", {"ifname": value}, "ifname") == value


@pytest.mark.parametrize("value", [-1, 10, True, "5", None, 1.5])
def test_number_out_of_bounds_is_refused(value):
    with pytest.raises(NetworkFactsInvalid):
        fields.number("ip", {"mtu": value}, "mtu", 0, 9)


@pytest.mark.parametrize("value", ["UP", [1], ["a b"], ["x" * 65], ["a"] * 65])
def test_words_are_refused(value):
    with pytest.raises(NetworkFactsInvalid):
        fields.words("ip", {"flags": value}, "flags")
