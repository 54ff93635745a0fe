# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is refused before a task that changes a VM's state, and what only in it (pve-cli 4)."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.api.auth import Caller
from lab.api.registry import Registry
from lab.commands.cli import main
from lab.commands.qm import COMMANDS
from lab.node import power, vm
from lab.node.base import Die, Node
from lab.node.cluster import Cluster

NOT_HERE = "unable to find configuration file for VM 999 on node 'alpha1'"


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    (tmp_path / "etc/pve/nodes/alpha1/qemu-server").mkdir(parents=True)
    monkeypatch.setenv("LAB_ROOT", str(tmp_path))
    monkeypatch.setenv("LAB_NODE", "alpha1")
    node = Node()
    Cluster(node).create_stub(110, content="memory: 64\n")
    return node


def qm(*words: str) -> int:
    return main("qm", COMMANDS, words)


@pytest.mark.parametrize("action", ["resume", "reset", "suspend"])
def test_these_want_a_process_before_their_task(node: Node, capfd: pytest.CaptureFixture, action: str) -> None:
    assert qm(action, "110") == 2
    assert capfd.readouterr() == ("", "VM 110 not running\n")
    assert qm(action, "999") == 2
    assert capfd.readouterr() == ("", NOT_HERE + "\n")


@pytest.mark.parametrize(
    ("action", "text"),
    [("stop", NOT_HERE), ("start", "Configuration file 'nodes/alpha1/qemu-server/999.conf' does not exist")],
)
def test_these_find_out_in_their_task(node: Node, capfd: pytest.CaptureFixture, action: str, text: str) -> None:
    assert qm(action, "999") == 255
    assert capfd.readouterr() == ("", text + "\n")
    registry = Registry(node)
    entry, values = registry.find("POST", f"/nodes/alpha1/qemu/999/status/{action}")
    upid = registry.run(entry, values, {}, Caller("root@pam"), synchronous=True)
    assert f":qm{action}:999:root@pam:" in str(upid)
    assert capfd.readouterr() == ("", text + "\n")


def test_a_shutdown_of_a_stopped_vm_only_mentions_it(node: Node, capfd: pytest.CaptureFixture) -> None:
    assert qm("shutdown", "110") == 0
    assert capfd.readouterr() == ("", "VM 110 not running\n\n")


def test_a_vm_that_stands_still_cannot_shut_down(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vm, "command", lambda *_: {"status": "paused"})
    with pytest.raises(Die, match="VM is paused - cannot shutdown"):
        power.shutdown(node, 110, False)
    assert not power.shutdown(node, 110, True)


def test_ha_is_only_asked(node: Node, capfd: pytest.CaptureFixture) -> None:
    (node.path("/etc/pve/ha")).mkdir()
    node.path("/etc/pve/ha/resources.cfg").write_text("vm: 110\n\tstate started\n")
    assert qm("stop", "110") == 0
    assert capfd.readouterr() == ("Requesting HA stop for VM 110\n", "")
    assert "state started" in node.path("/etc/pve/ha/resources.cfg").read_text()
    node.path("/etc/pve/ha/resources.cfg").write_text("vm: 110\n\tstate stopped\n")
    assert qm("start", "110") == 0
    assert "state started" in node.path("/etc/pve/ha/resources.cfg").read_text()


def test_migrate_refuses_itself_before_it_looks_for_the_node(node: Node, capfd: pytest.CaptureFixture) -> None:
    assert qm("migrate", "110", "alpha1") == 255
    usage = "qm migrate <vmid> <target> [OPTIONS]\n"
    assert capfd.readouterr().err == f"400 Parameter verification failed.\ntarget: target is local node.\n{usage}"
    assert qm("migrate", "110", "nosuch") == 255
    assert capfd.readouterr().err == "no such cluster node 'nosuch'\n"


def test_the_agent_is_asked_for_in_the_real_order(node: Node, capfd: pytest.CaptureFixture) -> None:
    assert qm("guest", "cmd", "110", "ping") == 255
    assert capfd.readouterr().err == "No QEMU guest agent configured\n"
    node.path("/etc/pve/nodes/alpha1/qemu-server/110.conf").write_text("agent: 1\nmemory: 64\n")
    assert qm("guest", "cmd", "110", "ping") == 255
    assert capfd.readouterr().err == "VM 110 is not running\n"
