# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The packet filter as read: what is understood, and what stays undecided."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.fakes.network_outputs import LINK, OWN, PEER, PORT, chain, match, rule
from unit.fakes.network_outputs import ruleset as text_of

from ansible_collections.crosscluster.migration.plugins.module_utils.network import ruleset
from ansible_collections.crosscluster.migration.plugins.module_utils.network.errors import NetworkFactsInvalid
from ansible_collections.crosscluster.migration.plugins.module_utils.network.ruleset import Packet

TO_US = Packet(4, LINK, None, PEER, OWN, "tcp", PORT)


def holds(*expressions, packet=TO_US, objects=()):
    """Whether the questions of one rule hold for the packet."""
    found = ruleset.parse_ruleset(text_of(chain(), *objects, rule(*expressions, {"drop": None})))
    return found.chains["inet", "t", "in"].rules[0].holds(packet)


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        (match("ip saddr", "10.5.0.2"), True),
        (match("ip saddr", "10.5.0.2", "!="), False),
        (match("ip saddr", {"prefix": {"addr": "10.5.0.0", "len": 24}}), True),
        (match("ip saddr", {"range": ["10.5.0.3", "10.5.0.9"]}), False),
        (match("ip saddr", {"set": ["10.5.0.9", {"prefix": {"addr": "10.5.0.2", "len": 31}}]}), True),
        (match("ip6 saddr", "fd00::2"), False),
        (match("ip6 saddr", "fd00::2", "!="), False),
        (match("ip daddr", "10.5.0.1"), True),
        (match("tcp dport", PORT), True),
        (match("tcp dport", {"range": [60100, 60149]}), False),
        (match("tcp dport", {"set": [22, {"range": [60100, 60199]}]}), True),
        (match("udp dport", PORT), False),
        (match("udp dport", PORT, "!="), False),
        (match("th dport", PORT), True),
        (match("meta iifname", LINK), True),
        (match("meta iifname", "mi*"), True),
        (match("meta iifname", {"set": ["lo", "vmbr0"]}, "!="), True),
        (match("meta l4proto", "tcp"), True),
        (match("ct state", ["established", "related"], "in"), False),
        (match("ct state", "new", "in"), True),
        (match("meta oifname", LINK), None),
        (match("tcp sport", 22), None),
        (match("tcp dport", PORT, "<"), None),
        (match("tcp dport", "ssh"), None),
        (match("ip saddr", "@nowhere"), None),
        ({"xt": None}, None),
        ({"limit": {"rate": 1}}, None),
        ({"counter": {"packets": 0}}, True),
    ],
)
def test_question_is_answered(expression, answer):
    assert holds(expression) is answer


def test_named_set_is_looked_up_with_its_timeouts():
    element = {"elem": {"val": "10.5.0.2", "timeout": 60, "expires": 59}}
    peers = {"set": {"family": "inet", "table": "t", "name": "peers", "elem": [element]}}
    assert holds(match("ip saddr", "@peers"), objects=[peers]) is True
    assert holds(match("ip saddr", "@peers", "!="), objects=[peers]) is False


def test_set_whose_elements_have_gone_holds_nobody():
    peers = {"set": {"family": "inet", "table": "t", "name": "peers"}}
    assert holds(match("ip saddr", "@peers", "!="), objects=[peers]) is True


def test_one_no_beats_what_is_undecided():
    assert holds({"xt": None}, match("tcp dport", 22)) is False


@pytest.mark.parametrize(
    ("expression", "kind"),
    [
        ({"accept": None}, "accept"), ({"drop": None}, "drop"), ({"reject": {"type": "tcp reset"}}, "drop"),
        ({"return": None}, "return"), ({"jump": {"target": "x"}}, "jump"), ({"goto": {"target": "x"}}, "goto"),
        ({"masquerade": None}, "translate"), ({"dnat": {"addr": "10.0.0.1"}}, "translate"), ({"vmap": {}}, "unknown"),
        ({"queue": {}}, "unknown"), ({"counter": {}}, "next"),
    ],
)  # fmt: skip
def test_statement_is_known(expression, kind):
    found = ruleset.parse_ruleset(text_of(chain(), rule(expression)))
    assert found.chains["inet", "t", "in"].rules[0].statement.kind == kind


def test_table_that_sleeps_does_nothing():
    table = {"table": {"family": "inet", "name": "t", "flags": ["dormant"]}}
    assert ruleset.parse_ruleset(text_of(table, chain())).chains == {}


@pytest.mark.parametrize("family", ["inet", "ip", "ip6", "arp", "bridge"])
def test_chain_sees_its_own_version(family):
    found = ruleset.parse_ruleset(text_of(chain(family=family)))
    assert [bool(found.base_chains(("input",), version)) for version in (4, 6)] == [
        family in ("inet", "ip"),
        family in ("inet", "ip6"),
    ]


def test_nothing_at_all_is_an_empty_rule_set():
    assert ruleset.parse_ruleset("").chains == {}


@pytest.mark.parametrize(
    "value", [[], {"nftables": {}}, {"nftables": [{"chain": []}]}, {"nftables": [{"rule": {"family": 1}}]}]
)
def test_unexpected_output_is_refused(value):
    with pytest.raises(NetworkFactsInvalid):
        ruleset.parse_ruleset(json.dumps(value))


WORDS = st.sampled_from(["set", "rule", "chain", "table", "family", "name", "expr", "elem", "match", "nftables"])
LEAVES = st.none() | st.integers(-1, 70_000) | st.text(max_size=5)
TREES = st.recursive(
    LEAVES, lambda one: st.lists(one, max_size=3) | st.dictionaries(WORDS, one, max_size=4), max_leaves=6
)


@given(TREES)
def test_any_tree_is_parsed_or_refused(tree):
    try:
        ruleset.parse_ruleset(json.dumps({"nftables": [tree]}))
    except NetworkFactsInvalid:
        pass


@given(TREES)
def test_any_expression_is_parsed_or_refused(tree):
    entry = rule()
    entry["rule"]["expr"] = [{"match": {"op": "==", "left": tree, "right": tree}}, {"match": tree}]
    ruleset.parse_ruleset(text_of(chain(), entry))
