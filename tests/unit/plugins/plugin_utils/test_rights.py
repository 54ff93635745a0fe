# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of mtunnel-protocol 2.6: which privilege each key of a configuration asks for."""

from __future__ import annotations

import pytest

from ansible_collections.crosscluster.migration.plugins.plugin_utils.rights import (
    needs_startup_right,
    vlans_of,
    vm_rights,
)


@pytest.mark.parametrize(
    ("key", "value", "asked"),
    [
        ("cores", 2, {("VM.Config.CPU",)}),
        ("numa0", "cpus=0", {("VM.Config.CPU",)}),
        ("memory", 512, {("VM.Config.Memory",)}),
        ("smbios1", "uuid=x", {("VM.Config.HWType",)}),
        ("serial0", "socket", {("VM.Config.HWType",)}),
        ("tags", "a;b", {("VM.Config.Options",)}),
        ("boot", "order=scsi0", {("VM.Config.Disk",)}),
        ("scsi11", "local:vm-1-disk-0", {("VM.Config.Disk",)}),
        ("unused3", "local:vm-1-disk-1", {("VM.Config.Disk",)}),
        ("net0", "virtio=x", {("VM.Config.Network",)}),
        ("ipconfig0", "ip=dhcp", {("VM.Config.Cloudinit", "VM.Config.Network")}),
        ("ide2", "none,media=cdrom", {("VM.Config.CDROM",)}),
        ("ide2", "local:vm-1-cloudinit,media=cdrom", {("VM.Config.CDROM",), ("VM.Config.Cloudinit",)}),
        ("vmgenid", "x", set()),
        ("digest", "x", set()),
    ],
)
def test_right_of_a_key(key, value, asked):
    assert vm_rights({key: value}) == asked


def test_start_order_asks_for_a_right_on_the_host():
    assert needs_startup_right({"startup": "order=1"})
    assert not needs_startup_right({"onboot": 1})


def test_vlans_of_a_nic():
    assert vlans_of("virtio=x,bridge=b") == (set(), set())
    assert vlans_of("virtio=x,tag=5,trunks=7;9-11") == ({5}, {7, 9, 10, 11})
    assert vlans_of("virtio=x,tag=5", 6) == ({6}, set())
