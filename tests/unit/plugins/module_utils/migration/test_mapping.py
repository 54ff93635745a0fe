# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the source's config to the target's."""

from __future__ import annotations

import pytest

from ansible_collections.crosscluster.migration.plugins.module_utils.migration import mapping
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.mapping import Mode
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.spec import DiskPlace, NicPlace
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.vm_config import VmConfig

FULL = """#multi line
boot: order=scsi0;ide0;net0
efidisk0: local:101/vm-101-disk-2.raw,efitype=4m,pre-enrolled-keys=0,size=528K
ide0: local:101/vm-101-cloudinit.qcow2,media=cdrom,size=4M
ide2: none,media=cdrom
lock: migrate
net0: virtio=BC:24:11:58:B8:23,bridge=vmbr0,firewall=1,mtu=1
net1: e1000=BC:24:11:89:C9:DA,bridge=vmbr1
parent: s1
scsi0: local:101/vm-101-disk-0.qcow2,cache=writeback,size=1G
smbios1: uuid=0ce88e34-1edf-4663-9f3e-93fb78cddf2e
tpmstate0: local:101/vm-101-disk-4.raw,size=9K,version=v2.0
unused0: local:101/vm-101-disk-3.qcow2
virtio1: thin:vm-101-disk-1,size=2G
vmgenid: f5f52c08-ad37-4ae4-b3db-70508755f40f

[PENDING]
cores: 2

[special:cloudinit]
ciuser: demo

[s1]
cores: 1
"""
DISKS = {"default": DiskPlace("fast"), "virtio1": DiskPlace("slow", "qcow2")}
NICS = {"default": NicPlace("vmbr5"), "net1": NicPlace("vmbr6", 7, True)}


def config(text=FULL):
    return VmConfig.parse(text)


def found(running=True, **options):
    return {volume.key: volume for volume in mapping.volumes(config(), running, DISKS, **options)}


def test_running_vm_mirrors_what_is_attached_and_imports_the_rest():
    assert {key: volume.mode for key, volume in found().items()} == {
        "efidisk0": Mode.MIRROR, "scsi0": Mode.MIRROR, "virtio1": Mode.MIRROR,
        "ide0": Mode.IMPORT, "tpmstate0": Mode.IMPORT, "unused0": Mode.IMPORT,
    }  # fmt: skip


def test_stopped_vm_imports_everything():
    assert {volume.mode for volume in found(running=False).values()} == {Mode.IMPORT}


def test_empty_cd_drive_is_no_volume():
    assert "ide2" not in found()


def test_volumes_go_where_they_are_declared():
    volumes = found()
    assert (volumes["scsi0"].storage, volumes["scsi0"].format) == ("fast", "qcow2")
    assert (volumes["virtio1"].storage, volumes["virtio1"].source_format, volumes["virtio1"].format) == (
        "slow", "raw", "qcow2",
    )  # fmt: skip


def test_import_keeps_its_format():
    assert found(running=False)["virtio1"].format == "raw"


def test_disk_without_a_place_is_left_out():
    assert [volume.key for volume in mapping.volumes(config(), True, {"scsi0": DiskPlace("fast")})] == ["scsi0"]


def test_sizes_and_formats_of_the_running_qemu_win():
    volumes = found(sizes={"local:101/vm-101-disk-0.qcow2": 5}, formats={"thin:vm-101-disk-1": "qcow2"})
    assert (volumes["scsi0"].size, volumes["efidisk0"].size) == (5, 540672)
    assert volumes["virtio1"].source_format == "qcow2"


def test_parameters_are_those_of_the_command_disk():
    assert found()["scsi0"].parameters == {"interface": "scsi", "index": "0", "size": 1 << 30, "cache": "writeback"}


@pytest.mark.parametrize(
    ("image", "stream"), [("raw", ("raw+size", False)), ("qcow2", ("qcow2+size", True)), ("vmdk", ("vmdk+size", True))]
)
def test_export_format(image, stream):
    assert mapping.export_format(image) == stream


@pytest.mark.parametrize(
    ("volid", "name"),
    [("local:101/vm-101-disk-0.raw", "vm-201-disk-0.raw"), ("thin:vm-101-disk-101", "vm-201-disk-101"),
     ("local:101/vm-101-cloudinit.qcow2", "vm-201-cloudinit.qcow2"),
     ("local:1/vm-1011-disk-0.raw", "vm-1011-disk-0.raw")],
)  # fmt: skip
def test_import_name_has_the_new_vmid(volid, name):
    assert mapping.import_volume_name(volid, 101, 201) == name


def test_imported_drives_have_no_format_and_sorted_options():
    volumes = found(running=False)
    assert mapping.imported_drive(volumes["ide0"], "local:201/vm-201-cloudinit.qcow2") == (
        "local:201/vm-201-cloudinit.qcow2,media=cdrom,size=4M"
    )
    assert mapping.imported_drive(volumes["tpmstate0"], "local:201/vm-201-disk-1.raw") == (
        "local:201/vm-201-disk-1.raw,size=4M,version=v2.0"
    )
    assert mapping.imported_drive(volumes["unused0"], "local:201/x.qcow2") == "local:201/x.qcow2"


def test_nics_go_where_they_are_declared():
    nics = mapping.mapped_nics(config(), NICS)
    assert nics["net0"].format() == "virtio=BC:24:11:58:B8:23,bridge=vmbr5,firewall=1,mtu=1"
    assert nics["net1"].format() == "e1000=BC:24:11:89:C9:DA,bridge=vmbr6,tag=7,firewall=1"
    assert mapping.mapped_bridges(nics) == ["vmbr5", "vmbr6"]


def test_nic_without_a_place_is_left_out():
    assert list(mapping.mapped_nics(config(), {"net1": NicPlace("vmbr6")})) == ["net1"]


def test_storages_are_each_named_once():
    assert mapping.mapped_storages(list(found().values())) == ["fast", "slow"]


def test_host_mtus_are_those_of_virtio_nics():
    nics = mapping.mapped_nics(config(), NICS)
    assert mapping.nets_host_mtu(nics, {"net0": 1500, "net1": 1500}) == "net0=1500"
    assert mapping.nets_host_mtu(nics, {"net1": 1500}) is None


def test_target_config_substitutes_and_drops():
    text = mapping.target_config(config(), {"scsi0": "fast:vm-201-disk-0,size=1G"}, mapping.mapped_nics(config(), NICS))
    parsed = config(text)
    assert [key for key in parsed.values if key in ("lock", "parent")] == []
    assert (parsed.pending, parsed.snapshots) == ({}, [])
    assert parsed.values["scsi0"] == "fast:vm-201-disk-0,size=1G"
    assert parsed.values["net0"].startswith("virtio=BC:24:11:58:B8:23,bridge=vmbr5")
    assert (parsed.uuid, parsed.values["vmgenid"]) == (config().uuid, config().values["vmgenid"])
    assert text.startswith("#multi line\nboot: ")
    assert [key for key in config().values if key not in ("lock", "parent")] == list(parsed.values)


def test_target_config_keeps_the_cloudinit_section():
    assert config(mapping.target_config(config(), {}, {})).special == {"cloudinit": {"ciuser": "demo"}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("#übung\n", "#%C3%BCbung\n"), ("#%C3%BC\n", "#%C3%BC\n"), (b"#\xff\n".decode("utf-8", "surrogateescape"),
     "#%FF\n")],
    ids=["utf-8", "encoded", "bytes"],
)  # fmt: skip
def test_target_config_is_ascii(text, expected):
    assert mapping.target_config(config(text), {}, {}) == expected


def test_target_config_ends_its_last_line():
    assert mapping.target_config(config("cores: 1"), {}, {}) == "cores: 1\n"
