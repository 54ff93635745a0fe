# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes with a VM and what stays (pve-cli 4)."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.node.base import Die, Node
from lab.node.cluster import Cluster
from lab.node.destroy import check_removable, destroy

STORAGE = "dir: local\n\tpath /store\n\tcontent images\n"
USERS = "pool:p1:both:100,101:local:\npool:p2::::\nacl:1:/vms/100:a@pve:R:\nacl:1:/vms/1001:a@pve:R:\n"


@pytest.fixture
def node(tmp_path: Path) -> Node:
    (tmp_path / "etc/pve/nodes/alpha1/qemu-server").mkdir(parents=True)
    (tmp_path / "etc/pve/ha").mkdir()
    (tmp_path / "etc/pve/storage.cfg").write_text(STORAGE)
    (tmp_path / "etc/pve/user.cfg").write_text(USERS)
    (tmp_path / "store/images/100").mkdir(parents=True)
    for number in range(2):
        (tmp_path / f"store/images/100/vm-100-disk-{number}.raw").write_bytes(b"\0" * 512)
    node = Node(root=str(tmp_path), name="alpha1")
    Cluster(node).create_stub(100, content="memory: 64\nscsi0: local:100/vm-100-disk-0.raw,size=512\n")
    return node


def test_rights_and_pool_go_with_it_and_unknown_volumes_stay(node: Node) -> None:
    destroy(node, 100)
    assert not Cluster(node).exists(100)
    assert [path.name for path in node.path("/store/images/100").iterdir()] == ["vm-100-disk-1.raw"]
    users = node.path("/etc/pve/user.cfg").read_text()
    assert users == "pool:p1:both:101:local:\npool:p2::::\nacl:1:/vms/1001:a@pve:R:\n"


def test_unreferenced_volumes_go_when_asked(node: Node, capfd: pytest.CaptureFixture) -> None:
    destroy(node, 100, unreferenced=True)
    assert not node.path("/store/images/100").exists()
    assert capfd.readouterr().out == "try to remove unreferenced disk 'local:100/vm-100-disk-1.raw'\n"


def test_ha_asks_for_purge_and_goes_with_it(node: Node, capfd: pytest.CaptureFixture) -> None:
    node.path("/etc/pve/ha/resources.cfg").write_text("vm: 100\n\tstate ignored\n")
    with pytest.raises(Die, match="used in HA resources and purge parameter not set"):
        check_removable(node, 100)
    destroy(node, 100, purge=True)
    assert capfd.readouterr().out == (
        "purging VM 100 from related configurations..\nNOTE: removed VM 100 from HA resource configuration.\n"
    )
    assert "100" not in node.path("/etc/pve/ha/resources.cfg").read_text()


def test_protection_comes_first(node: Node) -> None:
    Cluster(node).write(100, "protection: 1\n")
    with pytest.raises(Die, match="can't remove VM 100 - protection mode enabled"):
        check_removable(node, 100, purge=True)
