# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Simulated nodes: what is written for them, and who answers for them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.api.registry import Registry
from lab.fleet import Fleet, extend_members, populate
from lab.node import simulated
from lab.node.base import Node

FLEET = Fleet(nodes=3, vms=20, first_vmid=500, seed=7)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    pve = tmp_path / "etc/pve"
    (pve / "nodes/alpha1/qemu-server").mkdir(parents=True)
    (pve / ".members").write_text('{"nodename": "alpha1", "nodelist": {"alpha1": {"id": 1, "ip": "192.0.2.1"}}}')
    populate(pve, "alpha", FLEET)
    extend_members(pve / ".members", FLEET.names("alpha"), "192.0.2.1")
    return Node(root=str(tmp_path), name="alpha1")


def get(node: Node, path: str) -> object:
    registry = Registry(node)
    entry, values = registry.find("GET", path)
    assert registry.elsewhere(entry, values) is None
    return registry.run(entry, values, {})


def test_everything_is_there_and_the_same_for_the_same_seed(node: Node, tmp_path: Path) -> None:
    resources = get(node, "/cluster/resources")
    assert isinstance(resources, list)
    vms = [entry for entry in resources if entry["type"] == "qemu"]
    assert [entry["vmid"] for entry in vms] == list(range(500, 520))
    assert {entry["status"] for entry in vms} <= {"running", "stopped"}
    assert len([entry for entry in resources if entry["type"] == "node" and entry["status"] == "online"]) == 3
    other = tmp_path / "again"
    (other / "nodes").mkdir(parents=True)
    populate(other, "alpha", FLEET)
    told = [json.loads((place / ".lab-status/alphas002.json").read_text()) for place in (other, tmp_path / "etc/pve")]
    assert told[0]["vms"] == told[1]["vms"]


def test_a_simulated_node_is_answered_for(node: Node) -> None:
    vmid = int(next(iter(simulated.report(Node(node.root, "alphas002"))["vms"])))  # type: ignore[index]
    base = f"/nodes/alphas002/qemu/{vmid}"
    current, config = get(node, base + "/status/current"), get(node, base + "/config")
    assert isinstance(current, dict)
    assert isinstance(config, dict)
    assert (current["name"], config["name"]) == (f"fleet-{vmid}", f"fleet-{vmid}")
    assert len(get(node, "/cluster/status")) == 1 + 4  # type: ignore[arg-type]
    figures = get(node, "/nodes/alphas002/status")
    assert isinstance(figures, dict)
    assert figures["memory"]["total"] >= figures["memory"]["used"]


def test_a_tunnel_to_a_simulated_node_is_refused(node: Node) -> None:
    registry = Registry(node)
    entry, values = registry.find("POST", "/nodes/alphas002/qemu/900/mtunnel")
    with pytest.raises(Exception, match="node needs to be 'localhost' or local hostname 'alpha1'"):
        registry.run(entry, values, {})
