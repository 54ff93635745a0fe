# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Interfaces and addresses: what ip prints, and how interfaces stand on one another."""

from __future__ import annotations

import ipaddress
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.fakes.network_outputs import NETWORK, UP, address, link, output

from ansible_collections.crosscluster.migration.plugins.module_utils.network import addresses
from ansible_collections.crosscluster.migration.plugins.module_utils.network.errors import (
    NetworkFactsInvalid,
    NetworkInvalid,
)


def parse(*entries):
    return addresses.parse_links(output(*entries))


def test_link_has_its_addresses():
    found = parse(link("mig", "", "10.5.0.1/24", "fd00:5::1/64"))[0]
    assert [str(held.interface) for held in found.addresses] == ["10.5.0.1/24", "fd00:5::1/64"]
    assert (found.up, found.mtu, found.link_layer, found.encrypts) == (True, 1500, "ether", False)


@pytest.mark.parametrize("flags", [[], ["UP"], ["LOWER_UP"], [*UP, "NO-CARRIER"]])
def test_link_without_a_carrier_is_not_up(flags):
    assert not parse(link(flags=flags))[0].up


@pytest.mark.parametrize("flag", ["tentative", "dadfailed"])
def test_address_under_test_cannot_be_used(flag):
    assert not parse(link("mig", "", address("fd00:5::1/64", **{flag: True})))[0].addresses[0].usable


@pytest.mark.parametrize(
    ("kind", "data", "encrypts"),
    [
        ("wireguard", {}, True),
        ("macsec", {"encrypt": "on", "protect": "on", "validation": "strict"}, True),
        ("macsec", {"encrypt": True, "validation": "strict"}, True),
        ("macsec", {"encrypt": True, "protect": False, "validation": "strict"}, False),
        ("macsec", {"encrypt": "on"}, False),
        ("macsec", {"encrypt": "off", "protect": "on", "validation": "strict"}, False),
        ("macsec", {"encrypt": "on", "protect": "on", "validation": "check"}, False),
        ("vlan", {"encrypt": "on"}, False),
        ("", {}, False),
    ],
)
def test_only_some_kinds_encrypt(kind, data, encrypts):
    assert parse(link(linkinfo={"info_kind": kind, "info_data": data}))[0].encrypts is encrypts


@pytest.mark.parametrize(
    "entry",
    [
        link(mtu="1500"), link(mtu=-1), link("a/b"), link(flags="UP"), link(linkinfo=[]), link(addr_info={}),
        link("mig", "", {"family": "inet", "local": "10.5.0.1", "prefixlen": 33}),
        link("mig", "", {"family": "inet", "local": "fd00::1", "prefixlen": 24}),
        link("mig", "", {"family": "inet", "local": "10.5.0.1; rm", "prefixlen": 24}),
        link("mig", "", {"family": "inet6", "local": "::ffff:10.5.0.1", "prefixlen": 64}),
    ],
)  # fmt: skip
def test_unexpected_field_is_refused(entry):
    with pytest.raises(NetworkFactsInvalid):
        parse(entry)


def test_two_interfaces_of_one_name_are_refused():
    with pytest.raises(NetworkFactsInvalid):
        parse(link("mig"), link("mig"))


@given(st.text() | st.binary().map(repr) | st.lists(st.dictionaries(st.text(), st.text())).map(json.dumps))
def test_any_text_is_parsed_or_refused(text):
    try:
        addresses.parse_links(text)
    except NetworkFactsInvalid:
        pass


@given(st.ip_addresses())
def test_address_is_read_as_written(ip):
    mapped = ip.version == 6 and ip.ipv4_mapped is not None
    if mapped:
        with pytest.raises(NetworkInvalid):
            addresses.parse_address(str(ip))
    else:
        assert addresses.parse_address(str(ip)) == ip


@pytest.mark.parametrize("text", ["", "10.5", "010.5.0.1", "10.5.0.1\n", "fe80::1%eth0", "１.2.3.4", None, 10, b"1"])
def test_text_that_is_no_address_is_refused(text):
    with pytest.raises(NetworkInvalid):
        addresses.parse_address(text)


@pytest.mark.parametrize("text", ["10.5.0.0", "10.5.0.1/24", "10.5.0.0/33", "", "fd00::/129", None, "10.5.0.0/24 "])
def test_text_that_is_no_network_is_refused(text):
    with pytest.raises(NetworkInvalid):
        addresses.parse_network(text)


def test_network_holds_no_address_of_the_other_version():
    assert not addresses.is_within(ipaddress.ip_address("::1"), ipaddress.ip_network("0.0.0.0/0"))


def test_stack_goes_down_through_vlan_bond_and_bridge():
    links = parse(
        link("vmbr1", "bridge"), link("bond0.30", "vlan", link="bond0", master="vmbr1"), link("bond0", "bond"),
        link("eth0", master="bond0"), link("eth1", master="bond0"), link("eth2"),
    )  # fmt: skip
    found = {one.name for one in addresses.interface_stack(links, "vmbr1")}
    assert found == {"vmbr1", "bond0.30", "bond0", "eth0", "eth1"}


def test_stack_of_interfaces_in_a_circle_ends():
    links = parse(link("a", "veth", link="b"), link("b", "veth", link="a"))
    assert [one.name for one in addresses.interface_stack(links, "a")] == ["a", "b"]


@pytest.mark.parametrize(
    ("inside", "found"),
    [([], None), (["10.5.0.1/24"], "mig"), (["10.5.0.1/24", "10.5.0.9/24"], None), (["10.6.0.1/24"], None)],
)
def test_only_address_is_the_one_inside(inside, found):
    one = addresses.only_address(parse(link("mig", "", *inside)), NETWORK)
    assert (one[0].name if one else None) == found
