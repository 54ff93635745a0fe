# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of the role, between namespaces instead of nodes: the same functions, without Ansible between them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ansible_collections.crosscluster.migration.plugins.module_utils.network import probe, survey
from ansible_collections.crosscluster.migration.plugins.plugin_utils.network_audit import conclude

from .spaces import Net, result

Step = Callable[[survey.World, dict[str, Any]], dict[str, Any]]
# A wire here is a function call of the kernel; on a busy machine it still takes a while.
CONNECT_TIME, OWNER_TIME = 1.0, 0.3


def audit(
    net: Net,
    network: str,
    *,
    outside: Sequence[str] = ("o",),
    statement: dict[str, str] | None = None,
    with_filter: bool = True,
    impostor: bool = False,
) -> dict[str, Any]:
    """The verdict on the network between the namespaces a and b."""
    key = secrets.token_hex(32)
    options = {"network": network, "ports": "60150-60159", "lifetime": 20, "key": key, "members": []}
    evidence: dict[str, Any] = {"network": network, "knocks": []}
    sides = {"source": "a", "target": "b"}
    looks = together(net, survey.look, {name: {**options, "node": name} for name in "ab"})
    for side, name in sides.items():
        evidence[side] = {"name": name, "look": looks[name]}
    summaries = {name: looks[name]["summary"] for name in "ab"}
    ids = {name: secrets.token_hex(16) for name in "ab"}
    if all(summaries.values()):
        wanted = {
            name: {
                **options,
                "node": name,
                "peer": other,
                "own_address": summaries[name]["address"],
                "peer_address": summaries[other]["address"],
                "peer_mac": summaries[other]["mac"],
                "interface": summaries[name]["interface"],
                "responder_id": ids[name],
                "key": secrets.token_hex(32) if impostor and name == "b" else key,
            }
            for name, other in (("a", "b"), ("b", "a"))
        }
        listens = together(net, survey.listen, wanted, with_filter=with_filter)
        for name, other in (("a", "b"), ("b", "a")):
            wanted[name]["peer_port"] = listens[other]["port"]
        knocks = [
            (stranger, name, {"peer_address": summaries[name]["address"], "peer_port": listens[name]["port"]})
            for stranger in outside
            for name in "ab"
        ]
        begun = [(stranger, name, net.begin(stranger, survey.knock_at, asked)) for stranger, name, asked in knocks]
        probes = together(net, survey.probe_peer, wanted)
        evidence["knocks"] = [{**result(one), "stranger": stranger, "node": name} for stranger, name, one in begun]
        reports = together(net, survey.report, wanted)
        for side, name in sides.items():
            evidence[side].update(listen=listens[name], probe=probes[name], report=reports[name])
    return conclude(evidence, now=time.time(), statement=statement)


def together(net: Net, step: Step, options: dict[str, dict[str, Any]], **how: Any) -> dict[str, dict[str, Any]]:
    """One step in several namespaces at a time."""
    begun = {name: net.begin(name, step, wanted, **how) for name, wanted in options.items()}
    return {name: result(one) for name, one in begun.items()}


def in_space(step: Step, options: dict[str, Any], with_filter: bool = True) -> dict[str, Any]:
    """What runs in the namespace."""
    probe.CONNECT_TIME, probe.OWNER_TIME = CONNECT_TIME, OWNER_TIME
    edge = survey.world()
    if not with_filter:
        start = edge.start
        edge = replace(edge, start=lambda settings: start(replace(settings, with_filter=False)))
    return step(edge, options)
