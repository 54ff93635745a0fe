# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who gets in: decided for every stranger, not for a sample."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.fakes.network_outputs import LINK, NETWORK, OWN, PEER, PORT, chain, match, narrowing, rule, ruleset

from ansible_collections.crosscluster.migration.plugins.module_utils.network.filtering import (
    Door,
    narrowed_to_peer,
    translating_rules,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.network.ruleset import parse_ruleset

DOOR = Door(LINK, OWN, PEER, PORT)
DROP, ACCEPT = {"drop": None}, {"accept": None}
TO_PORT = match("tcp dport", PORT)


def find(*objects, door=DOOR):
    return narrowed_to_peer(parse_ruleset(ruleset(*objects)), door)


def test_table_of_the_reference_lets_only_the_peer_in():
    found = narrowed_to_peer(parse_ruleset(narrowing()), DOOR)
    assert (found.narrowed, found.peer_passes, found.stranger) == (True, True, "")


def test_table_of_the_reference_for_ipv6():
    door = Door(LINK, ipaddress.ip_address("fd00:5::1"), ipaddress.ip_address("fd00:5::2"), PORT)
    assert narrowed_to_peer(parse_ruleset(narrowing("fd00:5::2", version="ip6")), door).narrowed
    assert not narrowed_to_peer(parse_ruleset(narrowing()), door).narrowed


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (ruleset(), "nothing"),
        (narrowing(port=PORT + 1), "another port"),
        (narrowing(peer="10.5.0.3"), "another peer"),
        (narrowing(interface="api"), "another interface"),
    ],
)
def test_filter_that_is_not_for_this_door_is_found(text, why):
    found = narrowed_to_peer(parse_ruleset(text), DOOR)
    assert not (found.narrowed and found.peer_passes), why


@pytest.mark.parametrize(
    "hole",
    [
        match("ip saddr", "10.5.0.77"),
        match("ip saddr", {"prefix": {"addr": "203.0.113.0", "len": 24}}),
        match("meta iifname", "vmbr0"),
        match("meta iifname", "tap*"),
        match("meta iifname", "api", "!="),
        {"xt": None},
        {"limit": {"rate": 1}},
    ],
)
def test_every_hole_is_found(hole):
    """Before the rules that drop."""
    rules = [
        rule(hole, ACCEPT),
        rule(TO_PORT, match("ip saddr", str(PEER), "!="), DROP),
        rule(TO_PORT, match("meta iifname", LINK, "!="), DROP),
    ]
    assert not find(chain(), *rules).narrowed


def test_policy_drop_with_one_exception_is_enough():
    allowed = rule(match("ip saddr", str(PEER)), match("meta iifname", LINK), ACCEPT)
    assert find(chain(policy="drop"), rule(match("ct state", ["established"], "in"), ACCEPT), allowed).narrowed


def test_accept_of_another_chain_is_none():
    other = [chain("other"), rule(ACCEPT, chain="other")]
    narrow = [chain(), rule(match("ip saddr", str(PEER), "!="), DROP), rule(match("meta iifname", LINK, "!="), DROP)]
    assert find(*other, *narrow).narrowed


def test_drop_of_another_chain_shuts_the_peer_out():
    found = find(chain("strict", policy="drop"), chain(), rule(match("ip saddr", str(PEER), "!="), DROP))
    assert not found.peer_passes


def test_chain_that_is_jumped_to_counts():
    objects = [
        chain(policy="accept"), rule(TO_PORT, {"jump": {"target": "door"}}), chain("door", hook=""),
        rule(match("meta iifname", LINK), match("ip saddr", str(PEER)), {"return": None}, chain="door"),
        rule(DROP, chain="door"),
    ]  # fmt: skip
    assert find(*objects).narrowed


def test_jump_in_a_circle_is_undecided():
    found = find(chain(policy="drop"), rule({"jump": {"target": "in"}}))
    assert (found.narrowed, found.peer_passes) == (False, True)


def test_goto_that_returns_meets_the_policy():
    objects = [chain(policy="drop"), rule({"goto": {"target": "x"}}), rule(ACCEPT), chain("x", hook="")]
    assert not find(*objects).peer_passes


def test_output_hook_is_too_late():
    assert not find(chain(hook="output", policy="drop")).narrowed


def test_rule_set_that_is_too_large_is_not_decided():
    many = rule(match("ip saddr", {"set": [f"10.{a}.{b}.1" for a in range(80) for b in range(100)]}), DROP)
    assert not find(chain(policy="drop"), many).narrowed


SPANS = st.integers(0, 9).map(lambda last: f"10.5.0.{last}")
FIELDS = st.one_of(
    st.builds(match, st.just("ip saddr"), SPANS, st.sampled_from(["==", "!="])),
    st.builds(match, st.just("meta iifname"), st.sampled_from([LINK, "api", "ap*"]), st.sampled_from(["==", "!="])),
    st.builds(match, st.just("tcp dport"), st.sampled_from([PORT, 22]), st.sampled_from(["==", "!="])),
)
RULES = st.lists(st.tuples(st.lists(FIELDS, max_size=3), st.sampled_from([DROP, ACCEPT])), max_size=5)


def passes(rules, policy, source, interface):
    """netfilter, in ten lines of its own."""
    for fields, end in rules:
        held = True
        for field in fields:
            name, right = field["match"]["left"], field["match"]["right"]
            value = {"payload": {"saddr": source, "dport": PORT}, "meta": {"iifname": interface}}
            kind, inner = next(iter(name.items()))
            seen = value[kind][inner.get("field") or inner.get("key")]
            same = str(seen).startswith(right[:-1]) if str(right).endswith("*") else seen == right
            held = held and (same if field["match"]["op"] == "==" else not same)
        if held:
            return end is ACCEPT
    return policy == "accept"


@given(RULES, st.sampled_from(["accept", "drop"]))
def test_narrowed_agrees_with_trying_everybody(rules, policy):
    objects = [chain(policy=policy), *(rule(*fields, end) for fields, end in rules)]
    everybody = [f"10.5.0.{last}" for last in range(12)] + ["192.0.2.99"]
    open_to = [
        (source, interface)
        for interface in (LINK, "api", "ap0", "eth9")
        for source in everybody
        if passes(rules, policy, source, interface) and (source, interface) != (str(PEER), LINK)
    ]
    assert find(*objects).narrowed == (not open_to)


# translation


def nat(*expressions, hook="postrouting"):
    return [chain("nat", hook=hook, type="nat"), rule(*expressions, chain="nat")]


@pytest.mark.parametrize(
    ("expressions", "touches"),
    [
        ([match("meta oifname", LINK), {"masquerade": None}], True),
        ([{"masquerade": None}], True),
        ([match("meta oifname", "api"), {"masquerade": None}], True),
        ([match("meta oifname", "api"), match("meta iifname", "vmbr0"), {"masquerade": None}], False),
        ([match("meta oifname", "api"), match("ip saddr", "192.168.7.1"), {"masquerade": None}], False),
        ([match("meta oifname", "docker0", "!="), match("ip saddr", "172.17.0.1"), {"masquerade": None}], True),
        ([match("meta iifname", LINK), match("tcp dport", 80), {"dnat": {"addr": "10.9.9.9"}}], True),
        ([match("meta iifname", "api"), match("meta oifname", "vmbr0"), {"snat": {}}], False),
        ([match("meta oifname", "api"), match("meta iifname", "vmbr0"), {"xt": None}], False),
        ([{"xt": None}], True),
        ([{"counter": None}], False),
    ],
)
def test_translation_that_may_touch_the_interface_is_found(expressions, touches):
    assert bool(translating_rules(parse_ruleset(ruleset(*nat(*expressions))), LINK, NETWORK)) is touches
