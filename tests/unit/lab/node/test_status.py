# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Status texts, and what a status is made of without a process."""

from __future__ import annotations

from lab.node.base import Node
from lab.node.status import summary, verbose
from lab.node.vmconfig import VmConfig

STUB = {
    "cpu": 0, "cpus": 1, "disk": 0, "lock": "create", "maxdisk": 0, "maxmem": 536870912, "mem": 0, "memhost": 0,
    "name": "VM 211", "netin": 0, "netout": 0, "status": "stopped", "uptime": 0, "vmid": 211,
}  # fmt: skip


def test_a_fresh_stub_shows_as_a_stopped_vm_of_512_mib() -> None:
    node = Node(root="/nonexistent", name="alpha1")
    assert summary(node, 211, VmConfig.parse(211, "lock: create\n")) == STUB


def test_the_boot_disk_gives_the_size() -> None:
    text = "boot: order=scsi0\nide2: none,media=cdrom\nscsi0: local:1/vm-1-disk-0.qcow2,size=1G\nserial0: socket\n"
    answer = summary(Node(root="/nonexistent", name="alpha1"), 100, VmConfig.parse(100, text))
    assert (answer["maxdisk"], answer["serial"]) == (1 << 30, 1)


def test_verbose_text_is_nested_by_tabs_and_leaves_out_what_the_command_does_not_know() -> None:
    blockstat = {"scsi0": {"account_failed": True, "timed_stats": [], "rd_bytes": 512}}
    answer = {"status": "running", "cpu": 0, "clipboard": None, "ha": {"managed": 0}, "blockstat": blockstat}
    assert verbose(answer) == (
        "blockstat:\n\tscsi0:\n\t\taccount_failed: 1\n\t\trd_bytes: 512\n\t\ttimed_stats:\nstatus: running\n"
    )
