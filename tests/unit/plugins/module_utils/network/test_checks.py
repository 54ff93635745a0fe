# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each check: what passes, what fails, what could not be seen."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest
from unit.fakes.network_outputs import (
    LINK,
    MAC,
    NETWORK,
    OWN,
    PEER,
    PEER_MAC,
    PORT,
    address,
    chain,
    link,
    match,
    narrowing,
    output,
    rule,
    ruleset,
)

from ansible_collections.crosscluster.migration.plugins.module_utils.network import checks
from ansible_collections.crosscluster.migration.plugins.module_utils.network.addresses import parse_links
from ansible_collections.crosscluster.migration.plugins.module_utils.network.evidence import (
    Answers,
    Conversation,
    Knock,
    KnockOutcome,
    PacketSizes,
    Quality,
    State,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.network.filtering import Door
from ansible_collections.crosscluster.migration.plugins.module_utils.network.neighbours import Neighbour
from ansible_collections.crosscluster.migration.plugins.module_utils.network.routes import Way, parse_routes
from ansible_collections.crosscluster.migration.plugins.module_utils.network.ruleset import parse_ruleset
from ansible_collections.crosscluster.migration.plugins.module_utils.network.xfrm import parse_policies, parse_states

NODE = "alpha-a1"
A, B = ("10.5.0.1", 40000), ("10.5.0.2", PORT)
TALK = Conversation("", True, A, B, A, B)
MASQUERADE = ruleset(chain("nat", hook="postrouting", type="nat"), rule({"masquerade": None}, chain="nat"))


def facts(*entries, routes=(), forwards=False, hidden=False, rules="", **fields):
    return checks.NodeFacts(
        links=parse_links(output(*(entries or [link(LINK, "", "10.5.0.1/24")]))),
        bridge_ports=fields.pop("bridge_ports", {}),
        routes=parse_routes(output(*routes), 4),
        neighbours=fields.pop("neighbours", ()),
        ruleset=None if rules is None else parse_ruleset(rules),
        forwards=forwards,
        hidden_translation=hidden,
        **fields,
    )


# 1


@pytest.mark.parametrize("text", ["10.5.0.0/24", "172.31.0.0/16", "192.168.0.0/16", "fd00:5::/64", "10.0.0.0/16"])
def test_private_network_passes(text):
    assert checks.check_network(ipaddress.ip_network(text), NODE).state is State.PASSED


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0/0", "203.0.113.0/24", "172.32.0.0/16", "10.0.0.0/8", "10.0.0.0/15", "8.0.0.0/6", "100.64.0.0/24",
        "169.254.0.0/24", "fe80::/64", "2001:db8::/64", "::/0", "fd00::/32", "127.0.0.0/24", "192.168.0.0/15",
    ],
)  # fmt: skip
def test_other_network_fails(text):
    assert checks.check_network(ipaddress.ip_network(text), NODE).state is State.FAILED


@pytest.mark.parametrize(("text", "word"), [("100.64.0.0/24", "cgnat"), ("fe80::/64", "link-local")])
def test_network_that_was_allowed_passes(text, word):
    assert checks.check_network(ipaddress.ip_network(text), NODE, [word]).state is State.PASSED


# 2


def test_one_address_inside_passes():
    assert checks.check_own_address(facts(), NETWORK, NODE).state is State.PASSED


@pytest.mark.parametrize(
    "entries",
    [
        [link(LINK, "", "10.6.0.1/24")],
        [link(LINK, "", "10.5.0.1/24", "10.5.0.9/24")],
        [link(LINK, "", "10.5.0.1/24"), link("api", "", "10.5.0.7/24")],
        [link(LINK, "", "10.5.0.1/24", flags=["UP"])],
        [link(LINK, "", "10.5.0.1/16")],
        [link(LINK, "", "10.5.0.1/32")],
        [link(LINK, "", address("10.5.0.1/24", dadfailed=True))],
    ],
)
def test_other_addresses_fail(entries):
    assert checks.check_own_address(facts(*entries), NETWORK, NODE).state is State.FAILED


# 3

WAY = Way(PEER, LINK, "", OWN, True)


def test_way_on_the_link_passes():
    assert checks.check_way(WAY, LINK, OWN, PEER, NODE).state is State.PASSED


@pytest.mark.parametrize(
    "way",
    [
        None,
        replace(WAY, destination=ipaddress.ip_address("10.5.0.3")),
        replace(WAY, interface="api"),
        replace(WAY, gateway="10.5.0.254", direct=False),
        replace(WAY, unless="rule 5 asks dport"),
        replace(WAY, direct=False),
        replace(WAY, source=ipaddress.ip_address("10.5.0.9")),
        replace(WAY, source=None),
    ],
)
def test_other_way_fails(way):
    assert checks.check_way(way, LINK, OWN, PEER, NODE).state is State.FAILED


# 4


@pytest.mark.parametrize("dst", ["default", "0.0.0.0/1", "128.0.0.0/1", "203.0.113.0/24", "8.8.8.8"])
def test_route_to_the_world_fails(dst):
    found = facts(routes=[{"dst": dst, "gateway": "10.5.0.254", "dev": LINK}])
    assert checks.check_leads_nowhere(found, NETWORK, LINK, NODE).state is State.FAILED


@pytest.mark.parametrize(("dst", "dev"), [("default", "api"), ("10.5.0.0/24", LINK), ("224.0.0.0/4", LINK)])
def test_other_route_passes(dst, dev):
    found = facts(routes=[{"dst": dst, "dev": dev}])
    assert checks.check_leads_nowhere(found, NETWORK, LINK, NODE).state is State.PASSED


@pytest.mark.parametrize(
    ("route", "state"),
    [
        ({"dst": "default", "gateway": "fe80::1"}, State.FAILED),
        ({"dst": "2000::/3", "gateway": "fe80::1"}, State.FAILED),
        ({"dst": "default"}, State.FAILED),
        ({"dst": "2001:db8:5::/64"}, State.PASSED),
        ({"dst": "fe80::/64"}, State.PASSED),
    ],
)
def test_way_to_the_world_of_the_other_version_fails(route, state):
    found = replace(facts(), routes=parse_routes(output({"dev": LINK, **route}), 6))
    assert checks.check_leads_nowhere(found, NETWORK, LINK, NODE).state is state


@pytest.mark.parametrize(
    ("forwards", "hidden", "rules", "state"),
    [
        (False, None, None, State.PASSED),
        (False, True, MASQUERADE, State.PASSED),
        (True, False, "", State.PASSED),
        (True, False, MASQUERADE, State.FAILED),
        (True, False, None, State.NOT_RUN),
        (True, True, "", State.NOT_RUN),
        (True, None, "", State.NOT_RUN),
        (None, False, "", State.NOT_RUN),
    ],
)
def test_router_that_hides_others_fails(forwards, hidden, rules, state):
    found = facts(forwards=forwards, hidden=hidden, rules=rules)
    assert checks.check_leads_nowhere(found, NETWORK, LINK, NODE).state is state


# 5, 6


def test_same_addresses_on_both_sides_pass():
    assert checks.check_untranslated(TALK, NODE).state is State.PASSED
    assert checks.check_identity(TALK, NODE).state is State.PASSED


@pytest.mark.parametrize(
    "change",
    [{"seen": ("10.5.0.254", 40000)}, {"seen": ("10.5.0.1", 1)}, {"answered": ("10.5.0.3", PORT)}, {"local": ("", 0)}],
)
def test_translated_address_fails(change):
    talk = replace(TALK, **change)
    assert checks.check_untranslated(talk, NODE).state is State.FAILED
    assert checks.check_identity(talk, NODE).state is State.PASSED


@pytest.mark.parametrize("talk", [Conversation("timed out"), replace(TALK, proven=False), Conversation("", True)])
def test_no_proof_fails(talk):
    assert checks.check_untranslated(talk, NODE).state is State.FAILED


def test_who_has_not_the_key_fails():
    assert checks.check_identity(replace(TALK, proven=False), NODE).state is State.FAILED
    assert checks.check_identity(Conversation("timed out"), NODE).state is State.FAILED


# 7


@pytest.mark.parametrize(
    ("answers", "layer", "expected", "state"),
    [
        (Answers("", (PEER_MAC,), (), PEER_MAC), "ether", PEER_MAC, State.PASSED),
        (Answers("", (PEER_MAC,)), "ether", PEER_MAC, State.PASSED),
        (Answers("", (MAC, PEER_MAC)), "ether", PEER_MAC, State.FAILED),
        (Answers("", (MAC,)), "ether", PEER_MAC, State.FAILED),
        (Answers("", ()), "ether", PEER_MAC, State.FAILED),
        (Answers("", (PEER_MAC,), (MAC,)), "ether", PEER_MAC, State.FAILED),
        (Answers("", (PEER_MAC,), (), MAC), "ether", PEER_MAC, State.FAILED),
        (Answers("not permitted"), "ether", PEER_MAC, State.NOT_RUN),
        (Answers("", (PEER_MAC,)), "ether", "", State.NOT_RUN),
        (Answers("", (PEER_MAC,)), "infiniband", PEER_MAC, State.NOT_RUN),
        (Answers("", (PEER_MAC,)), "", PEER_MAC, State.NOT_RUN),
        (Answers(""), "none", "", State.PASSED),
    ],
)
def test_owners_of_the_address(answers, layer, expected, state):
    assert checks.check_answers(answers, layer, PEER, expected, NODE).state is state


# 8


@pytest.mark.parametrize(
    ("sizes", "state"),
    [
        (PacketSizes(1500), State.PASSED),
        (PacketSizes(1499), State.FAILED),
        (PacketSizes(0), State.FAILED),
        (None, State.NOT_RUN),
    ],
)
def test_full_packets(sizes, state):
    assert checks.check_packet_sizes(sizes, 1500, NODE).state is state


# 9


@pytest.mark.parametrize(
    ("text", "state"),
    [
        (narrowing(), State.PASSED),
        (None, State.NOT_RUN),
        ("", State.FAILED),
        (narrowing(port=22), State.FAILED),
        (ruleset(chain(policy="drop")), State.FAILED),
    ],
)
def test_filter(text, state):
    rules = None if text is None else parse_ruleset(text)
    assert checks.check_filter(rules, Door(LINK, OWN, PEER, PORT), NODE).state is state


# 10


@pytest.mark.parametrize(
    ("outcomes", "answered", "state"),
    [
        ([], True, State.NOT_RUN),
        ([KnockOutcome.SILENT], True, State.PASSED),
        ([KnockOutcome.UNREACHABLE], True, State.PASSED),
        ([KnockOutcome.SILENT], False, State.NOT_RUN),
        ([KnockOutcome.NOT_SENT], True, State.NOT_RUN),
        ([KnockOutcome.SILENT, KnockOutcome.CONNECTED], True, State.FAILED),
        ([KnockOutcome.REFUSED], True, State.FAILED),
        ([KnockOutcome.REFUSED], False, State.FAILED),
    ],
)
def test_strangers(outcomes, answered, state):
    knocks = [Knock("monitoring", NODE, outcome) for outcome in outcomes]
    assert checks.check_strangers(NODE, knocks, answered).state is state


def test_knock_at_another_node_says_nothing_about_this_one():
    assert checks.check_strangers(NODE, [Knock("m", "b", KnockOutcome.SILENT)], True).state is State.NOT_RUN


def test_neighbour_that_nobody_declared_fails():
    stranger = Neighbour(ipaddress.ip_address("10.5.0.77"), LINK, "02:00:00:00:00:77")
    elsewhere = Neighbour(ipaddress.ip_address("10.6.0.77"), "api", "02:00:00:00:00:78")
    peer = Neighbour(PEER, LINK, PEER_MAC)
    for others, state in (((peer, elsewhere), State.PASSED), ((peer, stranger), State.FAILED)):
        found = checks.check_neighbours(facts(neighbours=others), NETWORK, LINK, {OWN, PEER}, NODE)
        assert found.state is state


def test_neighbour_of_another_network_on_the_wire_fails():
    foreign = Neighbour(ipaddress.ip_address("10.6.0.77"), LINK, "02:00:00:00:00:77")
    inet6 = Neighbour(ipaddress.ip_address("fd00:9::77"), LINK, "02:00:00:00:00:77")
    own_kind = Neighbour(ipaddress.ip_address("fe80::77"), LINK, "02:00:00:00:00:77")
    peers_other = Neighbour(ipaddress.ip_address("fd00:9::2"), LINK, PEER_MAC)
    for others, state in (([foreign], State.FAILED), ([inet6], State.FAILED), ([own_kind, peers_other], State.PASSED)):
        found = checks.check_neighbours(facts(neighbours=others), NETWORK, LINK, {OWN, PEER}, NODE, PEER_MAC)
        assert found.state is state


# 11, 12


@pytest.mark.parametrize(
    ("entries", "state"),
    [
        ([link(LINK)], State.NOTED),
        ([link(LINK, "veth")], State.NOTED),
        ([link(LINK, "bond"), link("eth0", master=LINK)], State.NOTED),
        ([link(LINK, "bridge"), link("tap1i0", "tun", master=LINK)], State.NOTED),
        ([link(LINK, "wireguard")], State.PASSED),
        ([link(LINK, "vlan", link="wg0"), link("wg0", "wireguard")], State.PASSED),
        ([link(LINK, "bridge"), link("wg0", "wireguard", master=LINK)], State.NOTED),
        ([link(LINK, "vxlan")], State.FAILED),
        ([link(LINK, "gretap")], State.FAILED),
        ([link(LINK, "tun")], State.FAILED),
        ([link(LINK, "openvswitch")], State.FAILED),
        ([link(LINK, "vlan", link="vx0"), link("vx0", "vxlan")], State.FAILED),
        ([link(LINK, "bond"), link("gt", "gretap", master=LINK)], State.FAILED),
        ([link(LINK, "vlan", link="bond0"), link("bond0", "bond"), link("vx", "vxlan", master="bond0")], State.FAILED),
        ([link(LINK, "vlan", link=LINK)], State.NOTED),
        ([link("other")], State.FAILED),
    ],
)
def test_kind_of_the_link(entries, state):
    assert checks.check_encryption(facts(*entries), LINK, OWN, PEER, NODE).state is state


def test_ipsec_encrypts_a_plain_link():
    state = "src {0} dst {1}\n\tproto esp spi 1 reqid 1 mode transport\n\tenc cbc(aes) <<Keys hidden>>\n"
    policy = "src {0}/32 dst {1}/32\n\tdir {2} priority 0\n\ttmpl\n\t\tproto esp reqid 1 mode transport\n"
    found = facts(
        link(LINK),
        protections=parse_states(state.format(OWN, PEER) + state.format(PEER, OWN)),
        policies=parse_policies(policy.format(OWN, PEER, "out") + policy.format(PEER, OWN, "in")),
    )
    assert checks.check_encryption(found, LINK, OWN, PEER, NODE).state is State.PASSED
    assert checks.check_encryption(found, LINK, OWN, None, NODE).state is State.NOTED


def test_guests_on_the_wire_fail():
    entries = [link(LINK, "bridge"), link("tap1i0", "tun", master=LINK)]
    assert checks.check_guests(facts(*entries), LINK, NODE).state is State.FAILED
    assert checks.check_guests(facts(), LINK, NODE).state is State.PASSED
    assert checks.check_guests(facts(bridge_ports=None), LINK, NODE).state is State.NOT_RUN


# 13


@pytest.mark.parametrize(
    ("quality", "limits", "state"),
    [
        (Quality(20, 20, 300), {}, State.NOTED),
        (Quality(20, 0, 0), {}, State.NOTED),
        (None, {"round_trip_us": 1}, State.NOTED),
        (Quality(20, 20, 300), {"round_trip_us": 299}, State.FAILED),
        (Quality(20, 0, 0), {"round_trip_us": 299}, State.FAILED),
        (Quality(20, 19, 300), {"loss_percent": 4}, State.FAILED),
        (Quality(20, 19, 300), {"loss_percent": 5}, State.NOTED),
    ],
)
def test_quality(quality, limits, state):
    assert checks.check_quality(quality, NODE, **limits).state is state


# both nodes


@pytest.mark.parametrize(
    ("change", "states"),
    [
        ({}, (State.PASSED, State.PASSED)),
        ({"prefix": 16}, (State.FAILED, State.PASSED)),
        ({"mtu": 9000}, (State.PASSED, State.FAILED)),
        (None, (State.NOT_RUN, State.NOT_RUN)),
    ],
)
def test_equal_on_both_nodes(change, states):
    one = checks.summarise(facts(), NETWORK)
    other = None if change is None else replace(one, **change)
    found = {(check.number, check.node): check.state for check in checks.check_equal(["a", "b"], [one, other])}
    assert found == {(2, "a"): states[0], (2, "b"): states[0], (8, "a"): states[1], (8, "b"): states[1]}


def test_summary_says_where_the_node_is():
    assert checks.summarise(facts(), NETWORK) == checks.Summary(OWN, 24, LINK, MAC, "ether", 1500, "")
    assert checks.summarise(facts(link(LINK)), NETWORK) is None


def test_finding_never_fails_without_a_remedy():
    """Somebody reads it at three in the morning."""
    failed = [
        checks.check_way(None, LINK, OWN, PEER, NODE),
        checks.check_own_address(facts(link(LINK)), NETWORK, NODE),
        checks.check_filter(parse_ruleset(ruleset(rule(match("tcp dport", 1)))), Door(LINK, OWN, PEER, PORT), NODE),
    ]
    assert all(check.remedy and check.finding for check in failed)
