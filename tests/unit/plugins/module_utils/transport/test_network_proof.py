# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checks of one connection of ``tcp``: which pass, and what is said when one does not."""

from __future__ import annotations

import pytest
from unit.fakes.network_outputs import LINK, OWN, PEER, PORT, narrowing

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import Side
from ansible_collections.crosscluster.migration.plugins.module_utils.network import survey
from ansible_collections.crosscluster.migration.plugins.module_utils.network.errors import NetworkFactsInvalid
from ansible_collections.crosscluster.migration.plugins.module_utils.network.routes import Way
from ansible_collections.crosscluster.migration.plugins.module_utils.network.ruleset import parse_ruleset
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.errors import NetworkChanged
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.handshake import Addresses
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.network_proof import prove

DIRECT = Way(PEER, LINK, "", OWN, True)
ROUTED = Way(PEER, LINK, "10.5.0.254", OWN, False)
# Seen from either side this node is OWN.
AS_TARGET = Addresses(f"[{PEER}]:40000", f"[{OWN}]:{PORT}")
AS_SOURCE = Addresses(f"[{OWN}]:40000", f"[{PEER}]:{PORT}")


def look(side, *, way=DIRECT, rules="", device=LINK):
    asked = []

    def read_ruleset():
        asked.append("ruleset")
        return parse_ruleset(rules) if rules is not None else None

    real = survey.world()
    edge = survey.World(**{**vars(real), "way": lambda _peer: way, "ruleset": read_ruleset})
    prove(AS_TARGET if side is Side.TARGET else AS_SOURCE, side, edge, {str(OWN): device}.get)
    return asked


def test_target_looks_at_way_and_filter_the_source_at_its_way():
    assert look(Side.TARGET, rules=narrowing()) == ["ruleset"]
    assert look(Side.SOURCE) == []


@pytest.mark.parametrize("side", list(Side))
@pytest.mark.parametrize("way", [ROUTED, None, Way(PEER, "eth0", "", OWN, True), Way(PEER, LINK, "", PEER, True)])
def test_way_that_is_not_the_proven_one_is_told_with_the_side(side, way):
    with pytest.raises(NetworkChanged, match=rf"On the {side.value} node .*: check 3 ") as refused:
        look(side, way=way, rules=narrowing())
    assert (refused.value.code, refused.value.side) == ("NETWORK_CHANGED", side)
    assert refused.value.remedy


@pytest.mark.parametrize("rules", ["", narrowing(port=1), narrowing(peer=str(OWN)), None])
def test_port_that_others_reach_is_refused(rules):
    with pytest.raises(NetworkChanged, match="check 9"):
        look(Side.TARGET, rules=rules)


def test_address_on_no_one_device_is_refused():
    with pytest.raises(NetworkChanged, match="not on exactly one device"):
        look(Side.SOURCE, device=None)


def test_answer_of_the_node_that_cannot_be_read_is_a_refusal():
    def way(_peer):
        raise NetworkFactsInvalid("no JSON", object="ip")

    edge = survey.World(**{**vars(survey.world()), "way": way})
    with pytest.raises(NetworkChanged, match="no JSON"):
        prove(AS_SOURCE, Side.SOURCE, edge, lambda _address: LINK)
