# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Evidence of two nodes and of strangers put together."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.crosscluster.migration.plugins.module_utils.network.errors import NetworkInvalid
from ansible_collections.crosscluster.migration.plugins.module_utils.network.evidence import Check, State
from ansible_collections.crosscluster.migration.plugins.plugin_utils.network_audit import conclude, overlapping

NOW = 1_800_000_000.0
STEPS = {
    "look": [(1, ""), (2, ""), (4, ""), (12, "")],
    "listen": [(9, "")],
    "probe": [(3, ""), (5, ""), (6, ""), (7, ""), (8, ""), (10, "neighbours"), (11, ""), (13, "")],
}


def node(name, last):
    steps = {
        step: {
            "checks": [
                Check(number, name, State.NOTED if number in (11, 13) else State.PASSED, "x", part=part).to_dict()
                for number, part in keys
            ]
        }
        for step, keys in STEPS.items()
    }
    steps["look"]["summary"] = {
        "address": f"10.5.0.{last}", "prefix": 24, "interface": "mig", "mac": f"02:00:00:00:05:0{last}",
        "link_layer": "ether", "mtu": 1500, "kind": "",
    }  # fmt: skip
    steps["look"]["networks"] = ["192.0.2.0/24"]
    steps["probe"]["answered"] = True
    return {"name": name, **steps, "report": {"strangers": []}}


def evidence():
    knocks = [
        {"stranger": "office", "node": name, "outcome": "silent", "networks": ["192.0.2.0/24"]} for name in ("a", "b")
    ]
    return {"network": "10.5.0.0/24", "source": node("a", 1), "target": node("b", 2), "knocks": knocks}


def verdict(change=lambda found: None, **more):
    found = evidence()
    change(found)
    return conclude(found, now=NOW, **more)


def failed(result):
    return {(check["number"], check["node"]) for check in result["checks"] if check["state"] == "failed"}


def test_all_evidence_there_is_proven():
    assert verdict()["verdict"] == "private-proven"
    assert verdict()["checked_at"] == NOW


def test_no_stranger_asked_is_a_claim_on_ones_word():
    statement = {"accepted_by": "operator", "until": "2099-12-31"}
    assert verdict(lambda found: found.update(knocks=[]))["verdict"] == "unknown"
    assert verdict(lambda found: found.update(knocks=[]), statement=statement)["verdict"] == "private-claimed"


@pytest.mark.parametrize("step", ["look", "listen", "probe"])
@pytest.mark.parametrize("side", ["source", "target"])
def test_step_that_was_not_made_is_missed(step, side):
    assert verdict(lambda found: found[side].pop(step))["verdict"] == "unknown"


@pytest.mark.parametrize(("step", "number"), [("look", 2), ("listen", 9), ("probe", 5)])
@pytest.mark.parametrize("how", ["failed", "unreachable"])
def test_step_that_broke_is_told(step, number, how):
    result = verdict(lambda found: found["target"].update({step: {how: True, "msg": "no python"}}))
    assert result["verdict"] == "unknown"
    told = [check for check in result["checks"] if check["finding"] == f"the step {step} failed: no python"]
    assert [(check["number"], check["node"], check["state"]) for check in told] == [(number, "b", "not_run")]


def test_node_cannot_vouch_for_the_other():
    def move(found):
        found["source"]["probe"]["checks"] += found["target"]["probe"].pop("checks")

    assert verdict(move)["verdict"] == "unknown"


def test_silence_to_strangers_is_nothing_while_the_peer_gets_no_answer():
    result = verdict(lambda found: found["target"]["probe"].update(answered=False))
    states = {c["node"]: c["state"] for c in result["checks"] if (c["number"], c["part"]) == (10, "")}
    assert states == {"a": "not_run", "b": "passed"}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda e: e["knocks"][0].update(outcome="connected"), {(10, "a")}),
        (lambda e: e["knocks"][1].update(outcome="refused"), {(10, "b")}),
        (lambda e: e["knocks"][0].update(networks=["10.5.0.0/25"]), {(10, "a")}),
        (lambda e: e["source"]["look"].update(networks=["10.0.0.0/8"]), {(2, "a")}),
        (lambda e: e["target"]["look"]["summary"].update(mtu=9000), {(8, "a"), (8, "b")}),
        (lambda e: e["target"]["look"]["summary"].update(prefix=16), {(2, "a"), (2, "b")}),
        (lambda e: e["target"]["look"]["summary"].update(address="10.5.0.1"), {(7, "a"), (7, "b")}),
    ],
)
def test_what_does_not_fit_together_fails(change, found):
    result = verdict(change)
    assert result["verdict"] == "unknown"
    assert failed(result) == found


def test_address_that_arrived_instead_is_named():
    def translate(found):
        failure = Check(5, "a", State.FAILED, "no exchange", "cure").to_dict()
        found["source"]["probe"]["checks"] = [
            failure if check["number"] == 5 else check for check in found["source"]["probe"]["checks"]
        ]
        found["target"]["report"]["strangers"] = ["10.5.0.254"]

    finding = next(c["finding"] for c in verdict(translate)["checks"] if c["number"] == 5 and c["node"] == "a")
    assert finding == "no exchange; b was knocked at from 10.5.0.254"


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e.update(network="10.5.0.1/24"),
        lambda e: e.update(source=None),
        lambda e: e["source"].update(name=""),
        lambda e: e["source"].update(look="x"),
        lambda e: e["source"]["look"].update(summary={"address": "10.5.0.1"}),
        lambda e: e["source"]["look"].update(networks=["x"]),
        lambda e: e["source"]["look"].update(checks=[{}]),
        lambda e: e.update(knocks=["x"]),
    ],
)
def test_evidence_that_is_none_is_refused(change):
    with pytest.raises(NetworkInvalid):
        verdict(change)


@given(st.data())
def test_taking_evidence_away_never_proves_more(data):
    """Of what is complete, any piece: a key of a result, a check, an attempt of a stranger."""
    found = copy.deepcopy(evidence())
    where = found[data.draw(st.sampled_from(["source", "target"]))]
    step = data.draw(st.sampled_from(["look", "listen", "probe"]))
    what = data.draw(st.sampled_from(["check", "knock", "key"]))
    if what == "check":
        checks = where[step]["checks"]
        del checks[data.draw(st.integers(0, len(checks) - 1))]
    elif what == "knock":
        del found["knocks"][data.draw(st.integers(0, 1))]
    else:
        del where[step][data.draw(st.sampled_from(sorted(set(where[step]) - {"networks"})))]
    result = conclude(found, now=NOW)
    gone = {check["number"] for check in result["checks"] if check["state"] == "not_run"}
    assert result["verdict"] == "unknown" or not gone


@pytest.mark.parametrize(
    ("networks", "found"),
    [
        (["10.5.0.0/24"], ["10.5.0.0/24"]),
        (["10.4.0.0/15", "10.5.1.0/24"], ["10.4.0.0/15"]),
        (["10.5.0.77/32"], ["10.5.0.77/32"]),
        (["fd00:5::/64", "192.0.2.0/24"], []),
    ],
)
def test_overlapping_networks_are_found(networks, found):
    assert overlapping(networks, "10.5.0.0/24") == found
