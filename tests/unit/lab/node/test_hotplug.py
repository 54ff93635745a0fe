# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes of a VM that runs: at once, through the monitor, or at its next start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab.node import update, vm
from lab.node.base import Die, Node, ParamError
from lab.node.cluster import Cluster

STORAGE = "dir: local\n\tpath /store\n\tcontent images,iso\n"
CONFIG = """cores: 1
ide2: local:iso/a.iso,media=cdrom,size=5
net0: virtio=BC:24:11:00:00:01,bridge=vmbr0
scsi0: local:110/vm-110-disk-0.raw,size=512
unused0: local:110/vm-110-disk-1.raw
"""


@pytest.fixture
def node(tmp_path: Path) -> Node:
    (tmp_path / "etc/pve/nodes/alpha1/qemu-server").mkdir(parents=True)
    (tmp_path / "etc/pve/storage.cfg").write_text(STORAGE)
    (tmp_path / "store/template/iso").mkdir(parents=True)
    (tmp_path / "store/template/iso/a.iso").write_bytes(b"12345")
    (tmp_path / "store/images/110").mkdir(parents=True)
    for number in range(2):
        (tmp_path / f"store/images/110/vm-110-disk-{number}.raw").write_bytes(b"\0" * 512)
    node = Node(root=str(tmp_path), name="alpha1")
    Cluster(node).create_stub(110, content=CONFIG)
    return node


@pytest.fixture
def monitor(monkeypatch: pytest.MonkeyPatch) -> "list[tuple[str, Any]]":
    """The VM runs; what its monitor is told."""
    told: "list[tuple[str, Any]]" = []
    monkeypatch.setattr(vm, "pid", lambda node, vmid: 4711)
    monkeypatch.setattr(vm, "command", lambda node, vmid, name, arguments=None: told.append((name, arguments)))
    return told


def change(node: Node, *delete: str, **params: str) -> str:
    update.change_vm(node, 110, update.Change(params, delete), lambda text: None)
    return Cluster(node).read(110)


def test_an_iso_is_ejected_at_once(node: Node, monitor: "list[tuple[str, Any]]") -> None:
    text = change(node, ide2="none,media=cdrom")
    assert monitor == [("eject", {"device": "drive-ide2", "force": True})]
    assert "ide2: none,media=cdrom\n" in text
    assert "PENDING" not in text


def test_the_link_of_a_card_goes_down_at_once(node: Node, monitor: "list[tuple[str, Any]]") -> None:
    text = change(node, net0="virtio=BC:24:11:00:00:01,bridge=vmbr0,link_down=1")
    assert monitor == [("set_link", {"name": "net0", "up": False})]
    assert "PENDING" not in text


@pytest.mark.parametrize(
    ("params", "waits"),
    [
        ({"cores": "2"}, True),
        ({"net0": "virtio=BC:24:11:00:00:02,bridge=vmbr0"}, True),
        ({"scsi0": "local:110/vm-110-disk-0.raw,ssd=1"}, True),
        ({"scsi0": "local:110/vm-110-disk-0.raw,backup=0"}, False),
        ({"cpulimit": "2"}, False),
        ({"description": "x"}, False),
    ],
)
def test_what_waits(node: Node, monitor: "list[tuple[str, Any]]", params: "dict[str, str]", waits: bool) -> None:
    assert ("[PENDING]" in change(node, **params)) is waits
    assert monitor == []


def test_an_unused_volume_goes_at_once_and_a_key_at_the_next_start(node: Node, monitor: "list[Any]") -> None:
    text = change(node, "unused0", "cores")
    assert "unused0" not in text
    assert text.endswith("\n[PENDING]\ndelete: cores\n")
    assert not node.path("/store/images/110/vm-110-disk-1.raw").exists()


def test_a_refusal_of_the_monitor_leaves_the_change_pending(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise Die("VM 110 not running")

    monkeypatch.setattr(vm, "pid", lambda node, vmid: 4711)
    monkeypatch.setattr(vm, "command", refuse)
    with pytest.raises(ParamError) as caught:
        change(node, ide2="none,media=cdrom")
    assert caught.value.errors == {"ide2": "hotplug problem - VM 110 not running\n"}
    assert "[PENDING]\nide2: none,media=cdrom\n" in Cluster(node).read(110)
