# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may change what, and the effects of a change on a config file."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.node import update
from lab.node.base import Die, Node, ParamError
from lab.node.cluster import Cluster
from lab.node.vmconfig import load


@pytest.fixture
def node(tmp_path: Path) -> Node:
    (tmp_path / "etc/pve/nodes/alpha1/qemu-server").mkdir(parents=True)
    node = Node(root=str(tmp_path), name="alpha1")
    Cluster(node).create_stub(901)
    return node


def nobody(path: str, privileges: "list[str]", any_of: bool) -> bool:
    del path, privileges, any_of
    return False


def anybody(path: str, privileges: "list[str]", any_of: bool) -> bool:
    return not nobody(path, privileges, any_of)


def silent(text: str) -> None:
    del text


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("", "no options specified"),
        ("vmgenid: 02721a73-1309-4bb7-a2a9-dec1c75b1ddf\n", "no options specified"),
        ("cores: 1\n", "403 Permission check failed (/vms/901, VM.Config.CPU)"),
        ("net0: virtio=BC:24:11:00:00:01,bridge=vmbr0\n", "403 Permission check failed (/vms/901, VM.Config.Network)"),
        ("ide2: none,media=cdrom\n", "403 Permission check failed (/vms/901, VM.Config.CDROM)"),
        ("ciuser: x\n", "403 Permission check failed (/vms/901, VM.Config.Cloudinit|VM.Config.Network)"),
        ("hostpci0: 00:02.0\n", "only root can set 'hostpci0' config for non-mapped devices"),
        ("args: -foo\ncores: 1\n", "only root can set 'args' config"),
    ],
)
def test_a_refused_config_leaves_the_stub_as_it_was(node: Node, text: str, refusal: str) -> None:
    with pytest.raises(Die) as caught:
        update.apply_tunnel_config(node, 901, text, "min@pve!tok", nobody, silent)
    assert caught.value.text == refusal
    assert Cluster(node).read(901) == "lock: create\n"


def test_only_the_current_section_is_applied_and_the_lock_becomes_migrate(node: Node) -> None:
    current = "#%C3%BCbung\nmemory: 192\nlock: backup\nparent: s1\n"
    text = current + "\n[PENDING]\nmemory: 256\n\n[s1]\nmemory: 128\nsnaptime: 1\n"
    update.apply_tunnel_config(node, 901, text, "mig@pve!t1", anybody, silent)
    assert Cluster(node).read(901) == "#%C3%BCbung\nlock: migrate\nmemory: 192\n"
    with pytest.raises(Die, match="found lock 'migrate' trying to remove 'create' lock"):
        update.apply_tunnel_config(node, 901, text, "mig@pve!t1", anybody, silent)


def test_a_bridge_is_asked_after_the_vm(node: Node) -> None:
    def on_the_vm(path: str, privileges: "list[str]", any_of: bool) -> bool:
        del privileges, any_of
        return path.startswith("/vms/")

    with pytest.raises(Die) as caught:
        update.apply_tunnel_config(node, 901, "net0: virtio,bridge=vmbr0,tag=7\n", "x@pve!t", on_the_vm, silent)
    assert caught.value.text == "403 Permission check failed (/sdn/zones/localnetwork/vmbr0/7, SDN.Use)"


@pytest.mark.parametrize(
    ("text", "path", "privilege"),
    [
        ("net0: virtio,bridge=vmbr0,trunks=5;7-8\n", "/sdn/zones/localnetwork/vmbr0/7", "SDN.Use"),
        ("net1: virtio,bridge=vmbr1\nnet0: virtio,bridge=vmbr0\n", "/sdn/zones/localnetwork/vmbr0", "SDN.Use"),
        ("hostpci0: mapping=gpu\n", "/mapping/pci/gpu", "Mapping.Use"),
        ("usb1: mapping=key\n", "/mapping/usb/key", "Mapping.Use"),
    ],
)
def test_tags_and_mappings_are_asked_one_by_one(node: Node, text: str, path: str, privilege: str) -> None:
    def but_this(asked: str, privileges: "list[str]", any_of: bool) -> bool:
        del any_of
        return (asked, privileges) != (path, [privilege])

    with pytest.raises(Die) as caught:
        update.apply_tunnel_config(node, 901, text, "x@pve!t", but_this, silent)
    assert caught.value.text == f"403 Permission check failed ({path}, {privilege})"


def test_the_log_line_names_every_parameter_in_order(node: Node) -> None:
    lines: "list[str]" = []
    change = update.Change({"name": "x", "cipassword": "s3"}, ["onboot"], skiplock=True)
    update.change_vm(node, 901, change, lines.append)
    assert lines == ["update VM 901: -cipassword <hidden> -delete onboot -name x -skiplock 1"]


def test_skiplock_is_for_root_alone(node: Node) -> None:
    with pytest.raises(Die) as caught:
        update.change_vm(node, 901, update.Change({"name": "x"}, skiplock=True, user="root@pam!token"), silent)
    assert caught.value.text == "400 Parameter verification failed.\nskiplock: Only root may use this option."


def test_a_lock_and_a_wrong_digest_refuse(node: Node) -> None:
    with pytest.raises(Die, match=r"VM is locked \(create\)"):
        update.change_vm(node, 901, update.Change({"name": "x"}), silent)
    with pytest.raises(Die, match="checksum mismatch"):
        update.refuse_change(node, 901, update.Change({"name": "x"}, skiplock=True, digest="0" * 40))
    assert "name" not in load(node, 901).values


def test_a_missing_volume_refuses(node: Node) -> None:
    with pytest.raises(Die) as caught:
        update.apply_tunnel_config(node, 901, "scsi0: local:100/vm-100-disk-0.qcow2\n", "r@pam!t", anybody, silent)
    assert caught.value.text == "volume 'local:100/vm-100-disk-0.qcow2' does not exist"


@pytest.mark.parametrize(
    ("params", "delete", "errors"),
    [
        ({}, ["nosuch"], {"delete": "unknown option 'nosuch'"}),
        ({"name": "x"}, ["name"], {"delete": "you can't use '-name' and -delete name' at the same time"}),
        (
            {"memory": "abc"},
            [],
            {"memory": "invalid format - format error\nmemory.current: type check ('integer') failed - got 'abc'\n"},
        ),
        (
            {"scsi0": "local:8,foo=1"},
            [],
            {"scsi0": "invalid format - invalid key in comma-separated list property: foo\n"},
        ),
        (
            {"net0": "bridge=vmbr0"},
            [],
            {"net0": "invalid format - format error\nnet0.model: property is missing and it is not optional\n"},
        ),
        ({"name": "a b"}, [], {"name": "invalid format - value does not look like a valid DNS name\n"}),
        ({"cores": "0"}, [], {"cores": "value must have a minimum value of 1"}),
    ],
)
def test_bad_parameters(node: Node, params: "dict[str, str]", delete: "list[str]", errors: "dict[str, str]") -> None:
    with pytest.raises(ParamError) as caught:
        update.refuse_change(node, 901, update.Change(params, delete))
    assert caught.value.errors == errors


def test_a_pending_change_is_taken_back(node: Node) -> None:
    Cluster(node).write(901, "memory: 192\n\n[PENDING]\nmemory: 256\ndelete: cores\n")
    lines: "list[str]" = []
    update.change_vm(node, 901, update.Change({}, revert=["memory", "cores"]), lines.append)
    assert lines == ["update VM 901: -revert memory,cores"]
    assert Cluster(node).read(901) == "memory: 192\n"
