# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The interfaces of the world: the real things and the fakes both fit."""

from __future__ import annotations

import inspect

import pytest
from unit.fakes import migration_world as fakes

from ansible_collections.crosscluster.migration.plugins.module_utils.migration import real_world, world
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.target_api import TargetApi
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.tunnel import Tunnel
from ansible_collections.crosscluster.migration.plugins.module_utils.qemu.monitor import Monitor
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.pump_handle import PumpHandle

PAIRS = [
    (world.Clock, real_world.RealClock, fakes.FakeClock),
    (world.Qmp, Monitor, fakes.FakeQemu),
    (world.Source, real_world.SourceNode, fakes.FakeSource),
    (world.Target, TargetApi, fakes.FakeTarget),
    (world.Tunnel, Tunnel, fakes.FakeTunnel),
    (world.Pump, PumpHandle, fakes.FakePump),
]


def methods(interface):
    return [name for name, member in vars(interface).items() if inspect.isfunction(member) and not name.startswith("_")]


@pytest.mark.parametrize(("interface", "real", "_fake"), PAIRS, ids=[pair[0].__name__ for pair in PAIRS])
def test_real_thing_has_every_method_with_the_parameters_of_the_interface(interface, real, _fake):
    for name in methods(interface):
        wanted = list(inspect.signature(getattr(interface, name)).parameters)
        assert list(inspect.signature(getattr(real, name)).parameters)[: len(wanted)] == wanted


USED_BY_OTHERS = {"disk_import", "query_disk_import", "export"}  # imports run against the lab, not against fakes


@pytest.mark.parametrize(("interface", "_real", "fake"), PAIRS, ids=[pair[0].__name__ for pair in PAIRS])
def test_fake_has_every_method_of_the_interface(interface, _real, fake):
    assert [name for name in methods(interface) if not hasattr(fake, name) and name not in USED_BY_OTHERS] == []
