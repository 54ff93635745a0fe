# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The look before the first write: every refusal names its object, and nothing is changed by looking."""

from __future__ import annotations

import pytest
from unit.fakes.migration_run import spec_of
from unit.fakes.migration_world import CONFIG, UUID, Cluster

from ansible_collections.crosscluster.migration.plugins.module_utils.migration import preflight
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.errors import Refused
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.target_api import StorageInfo


def look(cluster, **options):
    return preflight.look(spec_of(**options), cluster.source, cluster.qemu)


def test_plan_of_a_running_vm():
    plan = look(Cluster())
    assert (plan.run_state, plan.machine, plan.memory, plan.nets_host_mtu) == (
        "running",
        "pc-q35-7.2",
        128 << 20,
        "net0=1500",
    )
    assert [(volume.key, volume.storage, volume.size) for volume in plan.mirrored] == [("scsi0", "fast", 64 << 20)]
    assert plan.imported == []


def test_memory_that_was_plugged_in_counts():
    cluster = Cluster()
    cluster.qemu.query_memory_size_summary = lambda _a: {"base-memory": 1 << 30, "plugged-memory": 3 << 30}
    assert look(cluster).memory == 4 << 30


def test_machine_carries_the_revision_that_proxmox_tells():
    cluster = Cluster()
    cluster.qemu.query_machines = lambda _a: [{"name": "pc-q35-9.2", "is-current": True, "pve-version": "pve1"}]
    assert look(cluster).machine == "pc-q35-9.2+pve1"


def test_stopped_vm_is_refused_unless_offline():
    cluster = Cluster()
    cluster.qemu.alive = False
    cluster.source.volume_list = lambda _s: {"local:100/vm-100-disk-0.raw": {"size": 64 << 20, "format": "raw"}}
    with pytest.raises(Refused):
        look(cluster)
    plan = look(cluster, offline=True)
    assert [volume.key for volume in plan.imported] == ["scsi0"]


@pytest.mark.parametrize(
    ("line", "code_part"),
    [
        ("lock: backup\n", "LOCK"),
        ("hostpci0: 0000:01:00.0\n", ""),
        ("args: -device x\n", ""),
        ("unheard_of: 1\n", ""),
        ("parent: snap\n\n[snap]\ncores: 1\n", ""),
    ],
)
def test_vm_outside_of_the_supported_set_is_refused(line, code_part):
    with pytest.raises(Refused) as caught:
        look(Cluster(text=CONFIG + line))
    assert code_part in caught.value.code
    assert caught.value.remedy
    assert caught.value.facts["refusals"][0]["code"] == caught.value.code


def test_other_uuid_than_asked_for_is_refused():
    with pytest.raises(Refused) as caught:
        look(Cluster(), source={"vmid": 100, "uuid": UUID.replace("7", "8")})
    assert caught.value.code == "UUID_DIFFERS"


def test_vm_in_a_strange_state_is_refused():
    cluster = Cluster()
    cluster.qemu.state = "io-error"
    with pytest.raises(Refused) as caught:
        look(cluster)
    assert caught.value.code == "RUN_STATE"


def refusal(target_changes, **options):
    cluster = Cluster()
    plan = look(cluster, **options)
    for name, value in target_changes.items():
        setattr(cluster.target, name, lambda value=value: value)
    with pytest.raises(Refused) as caught:
        preflight.check_target(spec_of(**options), plan, cluster.target)
    return caught.value


def test_unknown_storage_is_named():
    error = refusal({"storages": [StorageInfo("slow", "dir", 1, 1, True)]})
    assert (error.code, error.object, error.side.value) == ("STORAGE_UNKNOWN", "storage fast", "target")


def test_inactive_storage_is_as_good_as_none():
    assert refusal({"storages": [StorageInfo("fast", "dir", 1, 1, False)]}).code == "STORAGE_UNKNOWN"


def test_missing_bridge_is_named():
    error = refusal({"bridge_names": ["vmbr9"]})
    assert (error.code, error.object) == ("BRIDGE_UNKNOWN", "bridge vmbr0")


def test_format_that_the_storage_cannot_hold_is_refused():
    error = refusal(
        {"storages": [StorageInfo("fast", "lvmthin", 1 << 40, 1 << 40, True)]},
        disks={"default": {"storage": "fast", "format": "qcow2"}},
    )
    assert error.code == "FORMAT_UNSUPPORTED"


def test_machine_newer_than_the_target_s_qemu_is_refused():
    error = refusal({"machines": ["pc-q35-7.1", "pc-i440fx-9.0", "virt-9.0"]})
    assert (error.code, error.object) == ("MACHINE_UNSUPPORTED", "machine pc-q35-7.2")


@pytest.mark.parametrize("machines", [["pc-q35-7.2"], ["pc-q35-9.0+pve1"], ["pc-i440fx-7.1"], []])
def test_machine_that_the_target_may_know_is_not_refused(machines):
    cluster = Cluster()
    plan = look(cluster)
    cluster.target.machines = lambda: machines
    preflight.check_target(spec_of(), plan, cluster.target)


def test_looking_changes_nothing():
    cluster = Cluster()
    look(cluster)
    assert (cluster.source.lock, cluster.source.held, cluster.target.vms) == ("", False, {})
    assert not {"cont", "migrate", "blockdev-add"} & set(cluster.qemu.commands)


@pytest.mark.parametrize(("kind", "taken"), [("zfspool", False), ("iscsi", False), ("lvmthin", True), ("btrfs", True)])
def test_storage_that_takes_no_image_stream_is_refused_for_what_is_imported(kind, taken):
    cluster = Cluster()
    cluster.qemu.alive = False
    cluster.source.volume_list = lambda _s: {"local:100/vm-100-disk-0.raw": {"size": 64 << 20, "format": "raw"}}
    plan = look(cluster, offline=True)
    cluster.target.storages = lambda: [StorageInfo("fast", kind, 1 << 40, 1 << 40, True)]
    if taken:
        preflight.check_target(spec_of(offline=True), plan, cluster.target)
        return
    with pytest.raises(Refused) as caught:
        preflight.check_target(spec_of(offline=True), plan, cluster.target)
    assert (caught.value.code, caught.value.object) == ("IMPORT_UNSUPPORTED", "storage fast")


def test_mirror_goes_to_any_storage():
    cluster = Cluster()
    plan = look(cluster)
    cluster.target.storages = lambda: [StorageInfo("fast", "zfspool", 1 << 40, 1 << 40, True)]
    preflight.check_target(spec_of(), plan, cluster.target)
