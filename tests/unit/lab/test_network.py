# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's address plan."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.network import AddressPlan, Segment, fabric_batch, host_batch, machine_batch, overlaps
from lab.trees import HostType

clusters = st.dictionaries(st.sampled_from(["alpha", "beta", "gamma", "delta"]), st.integers(1, 9), min_size=1)
plans = st.builds(AddressPlan, st.integers(0, 99), clusters)


@given(plans)
def test_every_address_is_the_instances_and_used_once(plan: AddressPlan) -> None:
    found = []
    for host in plan.hosts():
        found += [host.api4.ip, host.api6.ip, host.migration4.ip, host.migration6.ip]
    assert len(found) == len(set(found))
    for address in found:
        assert address in (plan.network4 if address.version == 4 else plan.network6)


@given(plans)
def test_hosts_of_one_cluster_share_a_segment_and_clusters_do_not(plan: AddressPlan) -> None:
    networks: dict[str, set] = {}
    for host in plan.hosts():
        networks.setdefault(host.cluster, set()).add(host.api4.network)
        assert host.gateway4 in host.api4.network
    assert all(len(each) == 1 for each in networks.values())
    assert len(set.union(*networks.values())) == len(networks)


@given(plans)
def test_interface_names_fit_the_kernel(plan: AddressPlan) -> None:
    names = [plan.port(segment, host.name) for host in plan.hosts() for segment in Segment]
    assert len(names) == len(set(names))
    assert max(map(len, [*names, plan.prefix])) <= 15


@given(plans, plans)
def test_two_instances_share_nothing(one: AddressPlan, other: AddressPlan) -> None:
    if one.instance != other.instance:
        assert not one.network4.overlaps(other.network4)
        assert not one.network6.overlaps(other.network6)
        assert one.fabric != other.fabric


def test_no_address_waits_for_duplicate_detection() -> None:
    plan = AddressPlan(3, {"alpha": 1, "beta": 1})
    lines = machine_batch(plan) + fabric_batch(plan) + host_batch(plan, plan.hosts()[0])
    six = [line for line in lines if line.startswith("addr add fd")]
    assert six
    assert all(line.endswith("nodad") for line in six)


def test_migration_and_guest_segments_have_no_address_in_the_fabric() -> None:
    plan = AddressPlan(0, {"alpha": 2})
    assert not [line for line in fabric_batch(plan) if line.startswith("addr") and line.split()[-1] in ("br30", "br40")]


@pytest.mark.parametrize(
    ("network", "hit"),
    [("10.107.0.0/16", True), ("10.107.3.0/24", True), ("10.0.0.0/8", False), ("10.106.0.0/16", False)],
)
def test_only_an_equal_or_narrower_route_of_the_machine_hinders(network: str, hit: bool) -> None:
    assert overlaps(AddressPlan(7, {"alpha": 1}), [ipaddress.IPv4Network(network)]) is hit


@pytest.mark.parametrize("clusters", [{}, {"Alpha": 1}, {"al-pha": 1}, {"alphabetic": 1}, {"alpha": 0}])
def test_unusable_clusters_are_refused(clusters: dict) -> None:
    with pytest.raises(ValueError, match="cluster"):
        AddressPlan(0, clusters)


def test_equal_node_names_of_two_clusters_are_told_apart() -> None:
    plan = AddressPlan(0, {"alpha": ["pve1", "pve2"], "beta": ["pve1"]})
    assert [(host.name, host.node) for host in plan.hosts()] == [("pve1a", "pve1"), ("pve2", "pve2"), ("pve1b", "pve1")]
    with pytest.raises(ValueError, match="same name"):
        AddressPlan(0, {"alpha": ["pve1", "pve1"]})


def test_each_node_may_have_a_type_of_its_own() -> None:
    plan = AddressPlan(0, {"alpha": 1, "beta": {"b1": "trixie", "b2": "systemd", "b3": "self"}})
    assert [(host.name, host.kind) for host in plan.hosts()] == [
        ("alpha1", HostType.SELF),
        ("b1", HostType.TRIXIE),
        ("b2", HostType.SYSTEMD),
        ("b3", HostType.SELF),
    ]
    with pytest.raises(ValueError, match="woody"):
        AddressPlan(0, {"alpha": {"a1": "woody"}}).hosts()
