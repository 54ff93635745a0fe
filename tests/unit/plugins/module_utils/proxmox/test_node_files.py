# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of a node, read below a directory that looks like one."""

from __future__ import annotations

import pytest

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import Side
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox import node_files
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.errors import (
    ConfigInvalid,
    NodeFileUnreadable,
    VmAbsent,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.node_files import NodeFiles


@pytest.fixture
def node(tmp_path):
    """A node `a1` of a cluster with `a2`; VM 100 here, VM 101 there."""
    for name in ("a1", "a2"):
        (tmp_path / f"etc/pve/nodes/{name}/qemu-server").mkdir(parents=True)
    (tmp_path / "etc/pve/local").symlink_to("nodes/a1")
    (tmp_path / "etc/pve/qemu-server").symlink_to("nodes/a1/qemu-server")
    (tmp_path / "run/qemu-server").mkdir(parents=True)
    write(
        tmp_path,
        "etc/pve/nodes/a1/qemu-server/100.conf",
        "cores: 1\nlock: migrate\nscsi0: local:100/vm-100-disk-0.raw,size=1G\n",
    )
    write(tmp_path, "etc/pve/nodes/a2/qemu-server/101.conf", "cores: 1\n")
    return tmp_path


def write(root, name, text):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_config_of_a_vm_of_this_node(node):
    files = NodeFiles(str(node))
    assert files.vm_config(100).values["cores"] == "1"
    assert files.vm_lock(100) == "migrate"
    assert files.vm_config_bytes(100).startswith(b"cores: 1\n")


def test_config_of_a_vm_of_another_node_is_absent(node):
    with pytest.raises(VmAbsent) as caught:
        NodeFiles(str(node)).vm_config(101)
    assert caught.value.side is Side.SOURCE


def test_config_that_cannot_be_understood(node):
    write(node, "etc/pve/nodes/a1/qemu-server/102.conf", "garbage\n")
    with pytest.raises(ConfigInvalid):
        NodeFiles(str(node)).vm_config(102)


def test_node_name_is_where_local_leads(node):
    assert NodeFiles(str(node)).node_name() == "a1"


def test_node_without_cluster_files_says_so(tmp_path):
    with pytest.raises(NodeFileUnreadable, match="/etc/pve/local"):
        NodeFiles(str(tmp_path)).node_name()


def test_ha_state_in_any_state(node):
    write(node, "etc/pve/ha/resources.cfg", "vm: 100\n\tstate ignored\n\tmax_restart 1\n\nct: 7\n\nvm: 101\n")
    files = NodeFiles(str(node))
    assert (files.ha_state(100), files.ha_state(101), files.ha_state(7), files.ha_state(102)) == (
        "ignored", "started", "started", "",
    )  # fmt: skip


def test_absent_files_are_empty_ones(node):
    files = NodeFiles(str(node))
    assert (files.ha_resources(), files.replication_jobs(100), files.storages(), files.firewall(100)) == (
        [],
        [],
        {},
        None,
    )


def test_replication_jobs_of_a_vm(node):
    write(node, "etc/pve/replication.cfg", "local: 100-0\n\ttarget a2\n\tdisable 1\n\nlocal: 1000-0\n\ttarget a2\n")
    assert NodeFiles(str(node)).replication_jobs(100) == [node_files.ReplicationJob("100-0", 100, "a2")]


def test_storages_of_the_cluster(node):
    text = (
        "dir: local\n\tpath /var/lib/vz\n\tcontent iso,images\n\n# x\n"
        "lvmthin: fast\n\tvgname pve\n\tnodes a1,a2\n\tdisable\n"
    )
    write(node, "etc/pve/storage.cfg", text)
    found = NodeFiles(str(node)).storages()
    assert (found["local"].type, found["local"].properties["path"]) == ("dir", "/var/lib/vz")
    assert found["fast"].properties == {"vgname": "pve", "nodes": "a1,a2", "disable": "1"}


@pytest.mark.parametrize("text", ["garbage\n", "\tpath /x\n", "dir local\n", "dir: a b\n"], ids=repr)
def test_section_file_refuses(text):
    with pytest.raises(NodeFileUnreadable):
        node_files.parse_sections(text, "storage.cfg")


def test_replication_job_without_a_vmid_is_refused():
    with pytest.raises(NodeFileUnreadable):
        node_files.parse_replication("local: x-0\n")


def test_firewall_file_as_it_is(node):
    write(node, "etc/pve/firewall/100.fw", "[OPTIONS]\nenable: 0\n")
    assert NodeFiles(str(node)).firewall(100) == "[OPTIONS]\nenable: 0\n"


def test_volume_of_lvm_without_its_device_is_inactive(node):
    write(node, "etc/pve/storage.cfg", "lvmthin: thin\n\tvgname pve\n\tthinpool data\n\ndir: local\n\tpath /x\n")
    files = NodeFiles(str(node))
    assert files.volume_inactive("thin:vm-100-disk-0")
    write(node, "dev/pve/vm-100-disk-0", "")
    assert not files.volume_inactive("thin:vm-100-disk-0")
    assert not files.volume_inactive("local:100/vm-100-disk-0.raw")


def test_firewall_file_has_a_character_per_byte(node):
    path = node / "etc/pve/firewall/100.fw"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"# b\xfcro \xc3\xbc\n")
    text = NodeFiles(str(node)).firewall(100)
    assert text == "# b\u00fcro \u00c3\u00bc\n"
    text.encode("utf-8")  # no lone surrogate


@pytest.mark.parametrize(
    "line",
    ["scsi1: local:100/vm-100-disk-0.raw,size=1G", "scsi1: file=local:100/vm-100-disk-0.raw",
     "scsi0: local:100/vm-100-disk-0.raw/101/vm-101-disk-0.qcow2", "unused0: local:100/vm-100-disk-0.raw",
     "[old]\nscsi0: local:100/vm-100-disk-0.raw"],
    ids=["attached", "file", "clone", "unused", "snapshot"],
)  # fmt: skip
def test_references_of_other_vms(node, line):
    write(node, "etc/pve/nodes/a2/qemu-server/101.conf", line + "\n")
    volid = "local:100/vm-100-disk-0.raw"
    assert NodeFiles(str(node)).references(100, [volid, "local:x"]) == {volid: [101]}


def test_references_are_not_those_of_a_longer_name(node):
    write(node, "etc/pve/nodes/a2/qemu-server/101.conf", "scsi1: local:100/vm-100-disk-0.raw2\n")
    assert NodeFiles(str(node)).references(100, ["local:100/vm-100-disk-0.raw"]) == {}


def test_qemu_pid_of_a_running_process(node):
    write(node, "run/qemu-server/100.pid", "77\n")
    write(node, "proc/77/cmdline", "/usr/bin/kvm\0-id\x00100\0-pidfile\0/var/run/qemu-server/100.pid\0")
    assert NodeFiles(str(node)).qemu_pid(100) == 77


@pytest.mark.parametrize("command", [None, "", "/usr/bin/other\0"], ids=["gone", "zombie", "reused"])
def test_qemu_pid_of_a_stale_file_is_none(node, command):
    write(node, "run/qemu-server/100.pid", "77\n")
    if command is not None:
        write(node, "proc/77/cmdline", command)
    assert NodeFiles(str(node)).qemu_pid(100) is None


def test_qemu_pid_without_a_file_is_none(node):
    assert NodeFiles(str(node)).qemu_pid(100) is None


def test_file_that_is_too_large_is_refused(node):
    with (node / "etc/pve/firewall.cfg").open("wb"):
        pass
    path = node / "etc/pve/firewall"
    path.mkdir()
    with (path / "100.fw").open("wb") as file:
        file.truncate(5 << 20)
    with pytest.raises(NodeFileUnreadable):
        NodeFiles(str(node)).firewall(100)
