# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of a node, with a world of plain functions."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from unit.fakes.network_outputs import LINK, NETWORK, OWN, PEER, PEER_MAC, PORT, link, narrowing, output

from ansible_collections.crosscluster.migration.plugins.module_utils.network import survey
from ansible_collections.crosscluster.migration.plugins.module_utils.network.addresses import parse_links
from ansible_collections.crosscluster.migration.plugins.module_utils.network.checks import NodeFacts
from ansible_collections.crosscluster.migration.plugins.module_utils.network.errors import NetworkInvalid
from ansible_collections.crosscluster.migration.plugins.module_utils.network.evidence import (
    Answers,
    Conversation,
    KnockOutcome,
    PacketSizes,
    Quality,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.network.filtering import Door
from ansible_collections.crosscluster.migration.plugins.module_utils.network.routes import Way
from ansible_collections.crosscluster.migration.plugins.module_utils.network.ruleset import parse_ruleset

A, B = (str(OWN), 40000), (str(PEER), PORT)
TALK = Conversation("", True, A, B, A, B)
OPTIONS = {
    "network": str(NETWORK), "node": "a", "peer": "b", "own_address": str(OWN), "peer_address": str(PEER),
    "peer_port": PORT, "peer_mac": PEER_MAC, "interface": LINK, "responder_id": "0" * 32, "key": "0" * 64,
    "ports": "60150-60159", "lifetime": 60.0, "members": [], "allowed_ranges": [], "round_trip_us": 0,
    "loss_percent": 100,
}  # fmt: skip


def world(*links, talk=TALK, rules=None):
    facts = NodeFacts(
        links=parse_links(output(*(links or [link(LINK, "", "10.5.0.1/24"), link("api", "", "192.0.2.1/24")]))),
        bridge_ports={},
        routes=(),
        neighbours=(),
        ruleset=parse_ruleset(""),
        forwards=False,
        hidden_translation=False,
    )
    return survey.World(
        gather=lambda version: facts,
        way=lambda peer: Way(PEER, LINK, "", OWN, True),
        ruleset=lambda: parse_ruleset(narrowing() if rules is None else rules),
        converse=lambda pair: talk,
        echo=lambda pair, mtu: (PacketSizes(mtu), Quality(10, 10, 200)),
        owners=lambda interface, mac, own, peer, table: Answers("", (PEER_MAC,)),
        knock=lambda address, port: KnockOutcome.SILENT,
        start=lambda settings: settings.ports[0],
        collect=lambda responder_id: {"proven": 1, "strangers": ["10.5.0.254"]},
    )


def states(result):
    return {(check["number"], check["part"]): check["state"] for check in result["checks"]}


def test_look_says_where_the_node_is():
    result = survey.look(world(), OPTIONS)
    assert result["summary"]["address"] == "10.5.0.1"
    assert result["networks"] == ["192.0.2.0/24"]
    assert states(result) == {(1, ""): "passed", (2, ""): "passed", (4, ""): "passed", (12, ""): "passed"}


def test_look_without_an_address_has_no_summary():
    result = survey.look(world(link(LINK)), OPTIONS)
    assert result["summary"] is None
    assert states(result) == {(1, ""): "passed", (2, ""): "failed"}


def test_listen_looks_at_the_filter():
    assert survey.listen(world(), OPTIONS)["port"] == PORT
    assert states(survey.listen(world(), OPTIONS)) == {(9, ""): "passed"}
    assert states(survey.listen(world(rules=""), OPTIONS)) == {(9, ""): "failed"}


def test_probe_makes_every_check_of_the_way():
    result = survey.probe_peer(world(), OPTIONS)
    assert result["answered"] is True
    passed = {(3, ""), (5, ""), (6, ""), (7, ""), (8, ""), (10, "neighbours")}
    assert states(result) == {**dict.fromkeys(passed, "passed"), (11, ""): "noted", (13, ""): "noted"}


def test_probe_of_a_silent_peer_fails():
    result = survey.probe_peer(world(talk=Conversation("timed out")), OPTIONS)
    assert result["answered"] is False
    assert {key for key, state in states(result).items() if state == "failed"} == {(5, ""), (6, "")}
    assert states(result)[8, ""] == "not_run"


def test_knock_says_what_came_of_it_and_where_it_comes_from():
    result = survey.knock_at(world(), OPTIONS)
    assert result == {"outcome": "silent", "networks": ["10.5.0.0/24", "192.0.2.0/24"]}


def test_report_is_bounded_text():
    assert survey.report(world(), OPTIONS) == {"found": True, "strangers": ["10.5.0.254"]}
    gone = replace(world(), collect=lambda responder_id: None)
    assert survey.report(gone, OPTIONS) == {"found": False, "strangers": []}


def test_recheck_is_3_5_and_9_and_for_the_side_that_dialled_3_and_5():
    door = Door(LINK, OWN, PEER, PORT)
    assert [check.number for check in survey.recheck(world(), door, TALK, "a", listens=True)] == [3, 5, 9]
    assert [check.number for check in survey.recheck(world(), door, TALK, "a", listens=False)] == [3, 5]


@pytest.mark.parametrize(
    ("step", "change"),
    [
        (survey.look, {"network": "10.5.0.1/24"}),
        (survey.look, {"node": ""}),
        (survey.look, {"node": "a\n"}),
        (survey.listen, {"key": "x"}),
        (survey.listen, {"own_address": "10.5"}),
        (survey.listen, {"ports": "22"}),
        (survey.listen, {"ports": "60159-60150"}),
        (survey.listen, {"ports": "2000-9000"}),
        (survey.listen, {"ports": "x"}),
        (survey.listen, {"lifetime": 4}),
        (survey.listen, {"lifetime": 301}),
        (survey.listen, {"responder_id": "x"}),
        (survey.probe_peer, {"peer_port": 0}),
        (survey.probe_peer, {"peer_port": True}),
        (survey.probe_peer, {"members": ["x"]}),
        (survey.knock_at, {"peer_address": "example.org"}),
    ],
)
def test_option_that_cannot_be_used_is_refused(step, change):
    with pytest.raises(NetworkInvalid):
        step(world(), {**OPTIONS, **change})


def test_key_is_in_no_result():
    key = "ab" * 32
    for step in (survey.look, survey.listen, survey.probe_peer, survey.knock_at, survey.report):
        assert key not in json.dumps(step(world(), {**OPTIONS, "key": key}))
