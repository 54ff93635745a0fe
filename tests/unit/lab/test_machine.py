# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that are machines themselves: what is worked out before one is started."""

from __future__ import annotations

import pytest

from lab.hosts import HostError
from lab.machine import host as machines
from lab.machine.accelerator import arguments
from lab.machine.host import MachineHost
from lab.network import AddressPlan, Segment, host_batch

PLAN = AddressPlan(3, {"alpha": {"alpha1": "machine"}, "beta": {"beta1": "machine"}})


@pytest.fixture
def machine(tmp_path) -> MachineHost:
    state = tmp_path / "hosts" / "alpha1"
    state.mkdir(parents=True)
    return MachineHost(PLAN, PLAN.hosts()[0], state)


def test_every_card_has_its_own_hardware_address() -> None:
    cards = [address for host in PLAN.hosts() for address in machines.card_addresses(host).values()]
    assert len(set(cards)) == len(cards) == 2 * len(Segment)


def test_every_cable_ends_beside_a_card() -> None:
    lines = machines.outer_batch()
    for segment in Segment:
        assert "link set %s master br-%s up" % (segment.value, segment.value) in lines
        assert "link set tap-%s master br-%s up" % (segment.value, segment.value) in lines


def test_machine_has_the_addresses_of_any_other_host() -> None:
    host = PLAN.hosts()[1]
    settings = machines.machine_settings(PLAN, host, {"guest": "/somewhere"})
    assert settings["network"] == host_batch(PLAN, host)
    assert sorted(settings["cards"].values()) == sorted(segment.value for segment in Segment)
    assert settings["guest"].startswith(machines.MOUNT)


def test_hosts_without_a_guest_get_none() -> None:
    assert machines.machine_settings(PLAN, PLAN.hosts()[0], {"guest": ""})["guest"] == ""


def test_files_lie_in_the_state_until_the_first_start(machine) -> None:
    top = machine.state.parents[1]
    config = "/etc/pve/nodes/alpha1/qemu-server/100.conf"
    assert machine.path(config) == "%s/clusters/alpha/pve/nodes/alpha1/qemu-server/100.conf" % top
    assert machine.path("/srv/fast/images/100") == str(machine.state / "storage/fast/images/100")
    with pytest.raises(HostError):
        machine.path("/etc/passwd")


def test_nothing_but_ssh_leads_into_a_machine_that_was_started(machine) -> None:
    (machine.state / "disk.ext4").touch()
    with pytest.raises(HostError, match="ssh"):
        machine.path("/srv/fast/images/100")


@pytest.mark.parametrize(("kvm", "accelerator"), [(True, "kvm"), (False, "tcg")])
def test_accelerator_follows_the_probe(monkeypatch, kvm, accelerator) -> None:
    monkeypatch.setattr("lab.machine.accelerator.has_kvm", lambda _: kvm)
    found = arguments(None)
    assert found[1].partition(",")[0] == accelerator
