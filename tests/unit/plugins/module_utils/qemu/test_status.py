# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What QEMU says about itself."""

from __future__ import annotations

import pytest

from ansible_collections.crosscluster.migration.plugins.module_utils.qemu.errors import DriveMissing, QmpInvalid
from ansible_collections.crosscluster.migration.plugins.module_utils.qemu.status import (
    BlockDevice,
    RunState,
    RunStatus,
    Version,
    find_drive,
)

IMAGE = {"virtual-size": 1 << 30, "filename": "/x.qcow2", "format": "qcow2"}
LEGACY = {
    "device": "drive-scsi0", "qdev": "scsi0",
    "inserted": {"node-name": "#block123", "drv": "qcow2", "file": "/x.qcow2", "ro": False, "image": IMAGE},
}  # fmt: skip
BLOCKDEV = {
    "device": "", "qdev": "/machine/peripheral/virtio0/virtio-backend",
    "inserted": {"node-name": "drive-virtio0", "drv": "throttle", "file": "json:{}", "image": IMAGE},
}  # fmt: skip


@pytest.mark.parametrize("text", ["running", "paused", "inmigrate", "postmigrate"])
def test_run_state_is_typed(text):
    status = RunStatus.parse({"status": text, "running": text == "running"})
    assert status.state.value == status.text == text


def test_run_state_of_a_later_qemu_is_kept_as_text():
    status = RunStatus.parse({"status": "dreaming", "running": False})
    assert (status.state, status.text) == (RunState.UNKNOWN, "dreaming")


@pytest.mark.parametrize("raw", [None, {}, {"status": "running"}, {"status": 1, "running": True}])
def test_malformed_status_is_refused(raw):
    with pytest.raises(QmpInvalid):
        RunStatus.parse(raw)


def test_versions_compare_as_numbers():
    assert Version.parse({"qemu": {"major": 10, "minor": 0, "micro": 2}, "package": "pve"}) > Version(9, 2, 0)
    assert str(Version(8, 2)) == "8.2.0"


@pytest.mark.parametrize("raw", [{}, {"qemu": {"major": 8}}, {"qemu": {"major": "8", "minor": 1, "micro": 0}}])
def test_malformed_version_is_refused(raw):
    with pytest.raises(QmpInvalid):
        Version.parse(raw)


@pytest.mark.parametrize(("key", "source"), [("scsi0", "drive-scsi0"), ("virtio0", "drive-virtio0")])
def test_drive_is_found_by_device_or_by_node(key, source):
    device = find_drive(BlockDevice.parse_all([LEGACY, BLOCKDEV]), key)
    assert (device.mirror_source, device.virtual_size) == (source, 1 << 30)


def test_empty_drives_are_left_out():
    assert BlockDevice.parse_all([{"device": "drive-ide2", "qdev": "ide2", "removable": True}]) == []


def test_missing_drive_is_named():
    with pytest.raises(DriveMissing, match="scsi1"):
        find_drive(BlockDevice.parse_all([LEGACY]), "scsi1")


@pytest.mark.parametrize("raw", [None, [1], [{"inserted": []}], [{"inserted": {"image": {"virtual-size": "1"}}}]])
def test_malformed_block_devices_are_refused(raw):
    with pytest.raises(QmpInvalid):
        BlockDevice.parse_all(raw)
