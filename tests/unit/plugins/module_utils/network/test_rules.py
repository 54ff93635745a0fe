# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Policy rules: which of them send some packets to the peer another way."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.fakes.network_outputs import LINK, OWN, PEER, output

from ansible_collections.crosscluster.migration.plugins.module_utils.network import routes, rules
from ansible_collections.crosscluster.migration.plugins.module_utils.network.errors import NetworkFactsInvalid

# Every node has these.
USUAL = (
    {"priority": 0, "src": "all", "table": "local"},
    {"priority": 32766, "src": "all", "table": "main"},
    {"priority": 32767, "src": "all", "table": "default"},
)
ROUTES = routes.parse_routes(
    output(
        {"dst": "10.5.0.0/24", "dev": LINK},
        {"dst": "default", "gateway": "192.0.2.254", "dev": "api"},
        {"dst": "default", "gateway": "192.0.2.254", "dev": "api", "table": "away"},
        {"dst": "10.5.0.0/24", "dev": LINK, "table": "same"},
        {"dst": "default", "gateway": "192.0.2.254", "dev": "api", "table": "same"},
        {"dst": "10.9.0.0/16", "gateway": "192.0.2.254", "dev": "api", "table": "others"},
    ),
    4,
)


def deciding(*more):
    found = rules.parse_rules(output(*USUAL, *more), 4)
    return rules.deciding_rule(found, ROUTES, OWN, PEER, LINK)


@pytest.mark.parametrize(
    "narrow",
    [
        {"ipproto": "tcp", "dport": 60100}, {"ipproto": "tcp", "dport_start": 60100, "dport_end": 60149},
        {"sport": 5}, {"fwmark": "0x5"}, {"uid_start": 0, "uid_end": 0}, {"tos": "0x10"}, {"oif": "x"},
        {"iif": "lo", "sport": 5}, {"invented later": 1}, {"src": "10.5.0.1", "fwmark": "0x5"},
        {"not": None, "src": "10.5.0.1"}, {"dst": "10.5.0.0", "dstlen": 24, "sport": 5},
    ],
)  # fmt: skip
def test_rule_for_some_packets_that_leads_away_is_found(narrow):
    assert deciding({"priority": 5, "src": "all", "table": "away", **narrow}).priority == 5


@pytest.mark.parametrize(
    "harmless",
    [
        {"table": "same", "sport": 5}, {"table": "others", "sport": 5}, {"table": "no such table", "sport": 5},
        {"table": "away", "sport": 5, "src": "192.0.2.1"},
        {"table": "away", "sport": 5, "dst": "10.6.0.0", "dstlen": 16},
        {"table": "away", "sport": 5, "iif": "tap0"}, {"l3mdev": None}, {"action": "blackhole", "sport": 5},
        {"table": "away", "sport": 5, "suppress_prefixlen": 0}, {"table": "away", "sport": 5, "priority": 32766},
    ],
)  # fmt: skip
def test_other_rules_are_of_no_concern(harmless):
    assert deciding({"priority": 5, "src": "all", **harmless}) is None


def test_rule_behind_the_one_that_all_packets_come_to_is_of_no_concern():
    first = {"priority": 4, "src": "all", "table": "main", "suppress_prefixlen": 0}
    assert deciding(first, {"priority": 5, "src": "all", "table": "away", "not": None, "fwmark": "0xca6c"}) is None


def test_rule_that_jumps_is_not_followed():
    assert deciding({"priority": 5, "src": "all", "goto": 32767}).priority == 5


def test_rules_of_ipv6_are_read():
    found = rules.parse_rules(output({"priority": 5, "src": "fd00::", "srclen": 8, "table": "x"}), 6)
    assert str(found[0].source) == "fd00::/8"


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"src": "fd00::1"},
        {"src": "x"},
        {"dst": 5},
        {"table": 7},
        {"srclen": 99, "src": "10.0.0.0"},
        {"priority": "5"},
    ],
)
def test_rule_that_is_none_is_refused(wrong):
    raw = {"priority": 5, "src": "all", **wrong} if wrong else {"src": "all"}
    with pytest.raises(NetworkFactsInvalid):
        rules.parse_rules(output(raw), 4)


@given(st.text() | st.lists(st.dictionaries(st.sampled_from(["priority", "src", "table"]), st.text())).map(json.dumps))
def test_any_text_is_parsed_or_refused(text):
    try:
        rules.parse_rules(text, 4)
    except NetworkFactsInvalid:
        pass
