# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Links that the test machine's kernel cannot make: outputs of ip(8) and bridge(8) from a file, probes that succeed.

So whatever keeps these from being proven, or makes them encrypted, is in the outputs alone.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from unit.fakes.network_outputs import chain, match, rule, ruleset

from ansible_collections.crosscluster.migration.plugins.module_utils.network import probe, survey
from ansible_collections.crosscluster.migration.plugins.module_utils.network.evidence import (
    Answers,
    Conversation,
    KnockOutcome,
    PacketSizes,
    Quality,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.network.probe import Completed
from ansible_collections.crosscluster.migration.plugins.plugin_utils.network_audit import conclude

CASES = json.loads((Path(__file__).parent / "data" / "links.json").read_text(encoding="utf-8"))["cases"]
NETWORK, PORT = "10.5.0.0/24", 60150


def world(outputs, interface, peer, peer_mac):
    door = [
        chain(),
        rule(match("tcp dport", PORT), match("ip saddr", peer, "!="), {"drop": None}),
        rule(match("tcp dport", PORT), match("meta iifname", interface, "!="), {"drop": None}),
    ]
    said = {
        "ip -4 -j rule show": [{"priority": 32766, "src": "all", "table": "main"}],
        "ip -6 -j route show table all": [],
        "bridge -j fdb show": [],
        **outputs,
        "nft -j list ruleset": ruleset(*door),
    }

    def run(argv, stdin):
        found = said[" ".join(argv).partition(" from ")[0]]
        return Completed(0, found if isinstance(found, str) else json.dumps(found), "")

    real = survey.world(run)
    return replace(
        real,
        # The test machine's own settings are no part of the evidence.
        gather=lambda version: replace(real.gather(version), forwards=False, hidden_translation=False),
        converse=lambda pair: Conversation(
            "", True, (str(pair.own), 40000), (str(pair.peer), PORT), (str(pair.own), 40000), (str(pair.peer), PORT)
        ),
        echo=lambda pair, mtu: (PacketSizes(mtu), Quality(10, 10, 200)),
        owners=lambda *_asked: Answers("", (peer_mac,)),
        start=lambda settings: PORT,
    )


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_link_has_its_class(case):
    options = {"network": NETWORK, "key": "0" * 64, "lifetime": 60, "responder_id": "0" * 32, "peer_port": PORT}
    evidence = {"network": NETWORK, "knocks": []}
    summaries = {
        name: survey.look(world(case[name], "", "10.5.0.9", ""), {**options, "node": name})["summary"] for name in "ab"
    }
    for side, name, other in (("source", "a", "b"), ("target", "b", "a")):
        own, peer = summaries[name], summaries[other]
        edge = world(case[name], own["interface"], peer["address"], peer["mac"])
        asked = {
            **options, "node": name, "peer": other, "own_address": own["address"], "interface": own["interface"],
            "peer_address": peer["address"], "peer_mac": peer["mac"],
        }  # fmt: skip
        evidence[side] = {
            "name": name,
            "look": survey.look(edge, asked),
            "listen": survey.listen(edge, asked),
            "probe": survey.probe_peer(edge, asked),
        }
        evidence["knocks"].append({"stranger": "o", "node": name, "outcome": KnockOutcome.SILENT.value})
    verdict = conclude(evidence, now=time.time())
    assert verdict["verdict"] == case["verdict"], [c for c in verdict["checks"] if c["state"] != "passed"]


def test_no_key_is_asked_for():
    """`ip xfrm state` prints them unless told not to."""
    assert probe.STATE_COMMAND.endswith("nokeys")
