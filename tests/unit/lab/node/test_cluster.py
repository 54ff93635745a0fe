# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMIDs are unique over the cluster, locks are real flocks, and without quorum nothing is written."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from lab.node.base import Die, Node
from lab.node.cluster import NO_QUORUM_FLAG, Cluster
from lab.node.flock import config_lock, config_lock_path
from lab.node.vmconfig import load, remove_lock, set_lock


@pytest.fixture
def node(tmp_path: Path) -> Node:
    for name in ("alpha1", "alpha2"):
        (tmp_path / f"etc/pve/nodes/{name}/qemu-server").mkdir(parents=True)
    node = Node(root=str(tmp_path), name="alpha1")
    node.time_scale = 0.001
    return node


def test_a_vmid_is_reserved_once_in_the_whole_cluster(node: Node) -> None:
    Cluster(Node(root=node.root, name="alpha2")).create_stub(601)
    with pytest.raises(Die) as caught:
        Cluster(node).create_stub(601)
    assert caught.value.text == "unable to create empty VM config - VM 601 already exists on node 'alpha2'"
    assert Cluster(node).locate(601) == ("alpha2", "qemu")
    assert Cluster(node).next_id() == 100


def test_a_config_of_another_node_is_not_there(node: Node) -> None:
    Cluster(Node(root=node.root, name="alpha2")).create_stub(601)
    with pytest.raises(Die) as caught:
        load(node, 601)
    assert caught.value.text == "Configuration file 'nodes/alpha1/qemu-server/601.conf' does not exist"
    assert caught.value.code == 2


def test_a_held_flock_times_out_with_the_real_text(node: Node, capfd: pytest.CaptureFixture[str]) -> None:
    path = node.path(config_lock_path(111))
    path.parent.mkdir(parents=True)
    with open(path, "ab") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(Die) as caught, config_lock(node, 111, code=4):
            pass
    assert caught.value.text == "can't lock file '/var/lock/qemu-server/lock-111.conf' - got timeout"
    assert caught.value.code == 4
    assert capfd.readouterr().err == "trying to acquire lock...\n"
    with config_lock(node, 111):
        pass


def test_lock_words(node: Node) -> None:
    Cluster(node).create_stub(610)
    with pytest.raises(Die, match=r"VM is locked \(create\)"):
        set_lock(node, 610, "migrate")
    remove_lock(node, 610, "create")
    with pytest.raises(Die, match="no lock found trying to remove any lock"):
        remove_lock(node, 610)
    set_lock(node, 610, "migrate")
    with pytest.raises(Die, match="found lock 'migrate' trying to remove 'create' lock"):
        remove_lock(node, 610, "create")


def test_without_quorum_configs_are_read_only(node: Node) -> None:
    Cluster(node).create_stub(610)
    flag = node.path(NO_QUORUM_FLAG)
    flag.parent.mkdir(parents=True)
    flag.touch()
    with pytest.raises(Die, match="no quorum"):
        Cluster(node).check_quorum()
    with pytest.raises(Die, match="Permission denied"):
        remove_lock(node, 610)
    assert load(node, 610).lock == "create"
