# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Neighbours, bridge ports and guests."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.fakes.network_outputs import PEER_MAC, link, output

from ansible_collections.crosscluster.migration.plugins.module_utils.network import neighbours
from ansible_collections.crosscluster.migration.plugins.module_utils.network.addresses import parse_links
from ansible_collections.crosscluster.migration.plugins.module_utils.network.errors import NetworkFactsInvalid

PORTS_OF_VMBR0 = [("eth0", ""), ("eth0", "veth"), ("tap100i0", "tun"), ("veth101i0", "veth"), ("fwpr102p0", "veth")]


def guests(interface, *entries, ports=None, taken=()):
    return neighbours.guest_ports(parse_links(output(*entries)), ports or {}, interface, taken)


def test_neighbours_that_answered_are_known():
    found = neighbours.parse_neighbours(
        output(
            {"dst": "10.5.0.2", "dev": "mig", "lladdr": PEER_MAC.upper(), "state": ["REACHABLE"]},
            {"dst": "10.5.0.3", "dev": "mig", "state": ["FAILED"]},
            {"dst": "10.5.0.4", "dev": "tun0", "lladdr": "192.0.2.1", "state": ["PERMANENT"]},
        )
    )
    assert [(str(one.address), one.interface, one.mac) for one in found] == [("10.5.0.2", "mig", PEER_MAC)]


@given(st.text() | st.lists(st.dictionaries(st.sampled_from(["dst", "lladdr", "state"]), st.text())).map(json.dumps))
def test_any_text_is_parsed_or_refused(text):
    for parse in (neighbours.parse_neighbours, neighbours.parse_bridge_ports, neighbours.parse_taken):
        try:
            parse(text)
        except NetworkFactsInvalid:
            pass


def test_addresses_that_an_interface_takes_besides_its_own_are_known():
    found = neighbours.parse_taken(
        output(
            {"mac": PEER_MAC.upper(), "ifname": "mig", "flags": ["self"], "state": "permanent"},
            {"mac": "33:33:00:00:00:01", "ifname": "mig", "flags": ["self"], "state": "permanent"},
            {"mac": "02:00:00:00:00:09", "ifname": "mig", "flags": [], "master": "vmbr0"},
            {"mac": "02:00:00:00:00:0a", "ifname": "vxlan0", "flags": ["self"], "dst": "192.0.2.1"},
        )
    )
    assert found == (("mig", PEER_MAC),)


@pytest.mark.parametrize(("port", "mac", "shared"), [
    ("mig", "02:00:00:00:00:09", True), ("mig", PEER_MAC, False), ("eth0", "02:00:00:00:00:09", False),
])  # fmt: skip
def test_guest_whose_interface_is_elsewhere_leaves_its_address(port, mac, shared):
    links = (link("mig", address=PEER_MAC), link("eth0"))
    found = guests("mig", *links, taken=((port, mac),))
    assert found == ([f"somebody with {mac} on {port}"] if shared else [])


def test_bridge_ports_have_their_bridge():
    found = neighbours.parse_bridge_ports(output({"ifname": "tap100i0", "master": "vmbr0"}, {"ifname": "eth0"}))
    assert found == {"tap100i0": "vmbr0"}


def test_hardware_alone_has_no_guest():
    assert guests("eth1", link("eth1"), link("eth0", master="vmbr0"), link("vmbr0", "bridge")) == []


@pytest.mark.parametrize(("port", "kind"), PORTS_OF_VMBR0[1:])
@pytest.mark.parametrize("seen_by", ["ip", "bridge"])
def test_port_that_may_be_a_guest_is_found(port, kind, seen_by):
    """A veth port counts as well: who is at its other end cannot be seen."""
    entry = link(port, kind, master="vmbr0") if seen_by == "ip" else link(port, kind)
    ports = {} if seen_by == "ip" else {port: "vmbr0"}
    assert guests("vmbr0", link("vmbr0", "bridge"), entry, ports=ports) == [port]


def test_port_that_only_the_bridge_tells_of_is_a_guest():
    assert guests("vmbr0", link("vmbr0", "bridge"), ports={"gone0": "vmbr0"}) == ["gone0"]


def test_bridge_of_hardware_has_no_guest():
    assert guests("vmbr1", link("vmbr1", "bridge"), link("eth1", master="vmbr1")) == []


def test_vlan_of_the_guests_bridge_has_guests():
    entries = [link("vmbr0", "bridge"), link("tap1i0", "tun", master="vmbr0"), link("vmbr0.30", "vlan", link="vmbr0")]
    assert guests("vmbr0.30", *entries) == ["tap1i0"]


def test_vlan_of_hardware_in_the_guests_bridge_has_guests():
    """A guest can send tagged frames, which leave by the same cable."""
    entries = [
        link("vmbr0", "bridge"), link("tap1i0", "tun", master="vmbr0"), link("eth0", master="vmbr0"),
        link("eth0.30", "vlan", link="eth0"),
    ]  # fmt: skip
    assert guests("eth0.30", *entries) == ["tap1i0"]


def test_end_of_a_pair_into_the_guests_bridge_has_guests_but_is_none():
    entries = [
        link("mig", "veth", link="migbr"), link("migbr", "veth", link="mig", master="vmbr0"), link("vmbr0", "bridge"),
        link("tap1i0", "tun", master="vmbr0"),
    ]  # fmt: skip
    assert guests("mig", *entries) == ["tap1i0"]


@pytest.mark.parametrize("kind", neighbours.SHARING_KINDS)
def test_guest_that_shares_the_interface_is_found(kind):
    assert guests("eth1", link("eth1"), link("shared0", kind, link="eth1")) == ["shared0"]


def test_guest_at_a_switch_of_another_kind_is_found():
    """Open vSwitch: a port without a VLAN of its own sends tagged frames, which leave by the same cable."""
    entries = [
        link("ovs-system", "openvswitch"), link("tap1i0", "tun", master="ovs-system"),
        link("eth0", master="ovs-system"), link("eth0.30", "vlan", link="eth0"),
    ]  # fmt: skip
    assert guests("eth0.30", *entries) == ["tap1i0"]


def test_members_of_a_vrf_share_no_wire():
    entries = [link("red", "vrf"), link("eth0", master="red"), link("veth5i0", "veth", master="red")]
    assert guests("eth0", *entries) == []


def test_virtual_function_of_the_card_may_be_a_guests():
    card = link("eth0", vfinfo_list=[{"vf": 0}, {"vf": 1}])
    assert guests("eth0.30", card, link("eth0.30", "vlan", link="eth0")) == ["eth0 function 0", "eth0 function 1"]
    assert guests("eth1", card, link("eth1")) == []


def test_slave_of_a_bond_is_no_guest():
    entries = [link("bond0", "bond"), link("eth0", master="bond0"), link("eth1", "veth", master="bond0")]
    assert guests("bond0", *entries) == []
