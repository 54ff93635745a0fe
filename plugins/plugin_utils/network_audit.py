# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what two nodes and some strangers have seen to the verdict on the network between them.

Knows which answer belongs to which check, and the sets of addresses that must not overlap (netaddr). The rules
themselves stand in the room ``network``, which the nodes have too.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

try:
    import netaddr

    MISSING: Optional[ImportError] = None
except ImportError as error:  # the message says what to install
    MISSING = error

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import Side
from ansible_collections.crosscluster.migration.plugins.module_utils.network.addresses import (
    parse_address,
    parse_network,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.network.checks import (
    Summary,
    check_equal,
    check_strangers,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.network.errors import NetworkInvalid
from ansible_collections.crosscluster.migration.plugins.module_utils.network.evidence import (
    Check,
    Knock,
    KnockOutcome,
    State,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.network.verdict import Statement, judge

__all__ = ["conclude", "overlapping"]

_STEPS = ("look", "listen", "probe", "report")
# Under which check a step that failed as a whole is told.
_TOLD_AT = {"look": 2, "listen": 9, "probe": 5}
_MAX_TEXT = 300


def conclude(
    evidence: Mapping[str, Any], *, now: float, statement: Optional[Mapping[str, Any]] = None
) -> Dict[str, Any]:
    """The verdict on one pair, as a dictionary.

    Args:
        evidence: ``network``; ``source`` and ``target``, each with ``name`` and the results of the steps ``look``,
            ``listen``, ``probe`` and ``report`` of the module as far as they were made; ``knocks``, the results of the
            step ``knock`` with ``stranger`` and ``node``.
        now: Seconds since 1970.
        statement: ``{accepted_by, until}``, if somebody states that the network is trusted.

    Raises:
        NetworkInvalid: NETWORK_INVALID.
    """
    network = parse_network(evidence.get("network"))
    nodes = [_Node.parse(evidence.get(side), side) for side in ("source", "target")]
    source, target = nodes
    knocks = [_knock(raw) for raw in evidence.get("knocks") or []]
    checks = check_equal([node.name for node in nodes], [node.summary for node in nodes])
    for node, other in ((source, target), (target, source)):
        checks += [_with_arrivals(check, other) for check in node.checks]
        checks.append(check_strangers(node.name, [knock for knock, _networks in knocks], other.answered))
        checks += _overlaps(node, str(network), knocks)
    if source.summary and target.summary and source.summary.address == target.summary.address:
        finding = f"both nodes have {source.summary.address}"
        checks += [
            Check(7, node.name, State.FAILED, finding, "Give each node an address of its own.") for node in nodes
        ]
    word = Statement.parse(statement) if statement else None
    return judge(source.name, target.name, str(network), checks, now=now, statement=word).to_dict()


def overlapping(networks: Sequence[str], network: str) -> List[str]:
    """Those of ``networks`` that share an address with ``network``."""
    if MISSING is not None:
        raise NetworkInvalid(
            "netaddr is not installed on the controller",
            side=Side.CONTROLLER,
            object="netaddr",
            remedy="pip install netaddr, for the Python of ansible",
        ) from MISSING
    own = netaddr.IPSet([network])
    return [other for other in networks if not own.isdisjoint(netaddr.IPSet([other]))]


@dataclass(frozen=True)
class _Node:
    """What one node has said in all steps."""

    name: str
    summary: Optional[Summary]
    networks: Tuple[str, ...]
    checks: Tuple[Check, ...]
    answered: bool
    strangers: Tuple[str, ...]

    @classmethod
    def parse(cls, raw: Any, side: str) -> _Node:
        if not isinstance(raw, Mapping) or not isinstance(raw.get("name"), str) or not raw["name"]:
            raise NetworkInvalid(f"the {side} has no name", object=side)
        steps = {step: raw.get(step) or {} for step in _STEPS}
        if not all(isinstance(step, Mapping) for step in steps.values()):
            raise NetworkInvalid(f"the steps of {raw['name']} are no results", object=side)
        look = steps["look"]
        return cls(
            name=str(raw["name"]),
            summary=_summary(look.get("summary")),
            networks=_networks(look.get("networks")),
            # Only what the node says of itself: one node cannot vouch for the other.
            checks=(
                *(
                    check
                    for step in steps.values()
                    for check in map(Check.parse, step.get("checks") or [])
                    if check.node == raw["name"]
                ),
                *_broken(str(raw["name"]), steps),
            ),
            answered=steps["probe"].get("answered") is True,
            strangers=tuple(str(one)[:64] for one in steps["report"].get("strangers") or []),
        )


def _broken(name: str, steps: Mapping[str, Mapping[str, Any]]) -> List[Check]:
    """Steps that ended with an error instead of checks."""
    return [
        Check(number, name, State.NOT_RUN, f"the step {step} failed: {str(steps[step].get('msg'))[:_MAX_TEXT]}")
        for step, number in _TOLD_AT.items()
        if steps[step].get("msg") and "checks" not in steps[step]
    ]


def _summary(raw: Any) -> Optional[Summary]:
    if not isinstance(raw, Mapping):
        return None
    words = ("interface", "mac", "link_layer", "kind")
    numbers = ("prefix", "mtu")
    good = all(isinstance(raw.get(key), str) for key in words) and all(isinstance(raw.get(key), int) for key in numbers)
    if not good:
        raise NetworkInvalid("this is no summary of a node", object="summary")
    return Summary(
        address=parse_address(str(raw.get("address"))),
        prefix=int(raw["prefix"]),
        interface=str(raw["interface"]),
        mac=str(raw["mac"]),
        link_layer=str(raw["link_layer"]),
        mtu=int(raw["mtu"]),
        kind=str(raw["kind"]),
    )


def _networks(raw: Any) -> Tuple[str, ...]:
    try:
        return tuple(str(ipaddress.ip_network(str(one), strict=False)) for one in raw or [])
    except (ValueError, TypeError):
        raise NetworkInvalid("these are no networks", object="networks") from None


def _knock(raw: Any) -> Tuple[Knock, Tuple[str, ...]]:
    outcomes = {outcome.value: outcome for outcome in KnockOutcome}
    if not isinstance(raw, Mapping):
        raise NetworkInvalid("this is no attempt of a stranger", object="knock")
    # A host that could not be asked has not tried.
    outcome = outcomes.get(str(raw.get("outcome")), KnockOutcome.NOT_SENT)
    return Knock(str(raw.get("stranger")), str(raw.get("node")), outcome), _networks(raw.get("networks"))


def _with_arrivals(check: Check, other: _Node) -> Check:
    """A failed exchange, with the addresses that did arrive at the other node: most likely ours, translated."""
    if check.number != 5 or check.state is not State.FAILED or not other.strangers:
        return check
    finding = f"{check.finding}; {other.name} was knocked at from {', '.join(other.strangers[:3])}"
    return Check(5, check.node, check.state, finding, check.remedy)


def _overlaps(node: _Node, network: str, knocks: Sequence[Tuple[Knock, Tuple[str, ...]]]) -> List[Check]:
    """The sets that must not overlap: the node's other networks, and those of hosts that are no peers."""
    found = []
    same = overlapping(node.networks, network)
    if same:
        finding = f"another interface is in {', '.join(same)}, which overlaps {network}"
        found.append(Check(2, node.name, State.FAILED, finding, "Give one of the networks other addresses."))
    for knock, networks in knocks:
        same = overlapping(networks, network)
        if same and knock.node == node.name:
            finding = f"{knock.stranger} is no peer and has an address in {', '.join(same)}"
            found.append(Check(10, node.name, State.FAILED, finding, "Take that host out of the network."))
    return found
