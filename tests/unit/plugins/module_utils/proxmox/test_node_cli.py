# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's commands: what is run, and that only the effect counts."""

from __future__ import annotations

import pytest

from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.errors import (
    LockForeign,
    NodeCommandFailed,
    VmAbsent,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.node_cli import (
    Completed,
    NodeCli,
    run_command,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.vm_config import VmConfig


class FakeNode:
    """Config and process of VM 100, and commands that may or may not change them."""

    def __init__(self, text="cores: 1\n", pid=None, works=True, returncode=0):
        self.text, self.pid, self.works, self.returncode = text, pid, works, returncode
        self.commands = []
        self.output = ""

    def run(self, argv, timeout):
        self.commands.append(list(argv))
        if self.works:
            self._act(list(argv))
        return Completed(self.returncode, self.output, "" if self.works else "VM is locked (backup)")

    def _act(self, argv):
        program, verb = argv[0].rpartition("/")[2], argv[1]
        if (program, verb) == ("qm", "stop"):
            self.pid = None
        elif (program, verb) == ("qm", "destroy"):
            self.text = None
        elif (program, verb) == ("qm", "set"):
            options = dict(zip(argv[3::2], argv[4::2]))
            gone = options.pop("--delete", "").split(",")
            values = {key[2:]: value for key, value in options.items() if key != "--skiplock"}
            self.text = self.vm_config(100).changed(values, gone).format()

    # As NodeFiles.

    def vm_config(self, vmid):
        return VmConfig.parse(self.vm_config_bytes(vmid).decode())

    def vm_config_bytes(self, vmid):
        if self.text is None:
            raise VmAbsent("gone", object=f"VM {vmid}")
        return self.text.encode()

    def vm_lock(self, vmid):
        return self.vm_config(vmid).lock

    def qemu_pid(self, _vmid):
        return self.pid

    @property
    def cli(self):
        return NodeCli(self.run, self)


def test_set_lock_is_a_test_and_set():
    node = FakeNode()
    node.cli.set_lock(100)
    assert node.commands == [["/usr/sbin/qm", "set", "100", "--lock", "migrate"]]


@pytest.mark.parametrize("word", ["backup", "migrate"])
def test_set_lock_refuses_a_foreign_lock(word):
    node = FakeNode(f"lock: {word}\n", works=False, returncode=255)
    with pytest.raises(LockForeign) as caught:
        node.cli.set_lock(100)
    assert caught.value.facts == {"lock": word}


def test_set_lock_without_effect_fails_whatever_the_exit_code():
    with pytest.raises(NodeCommandFailed, match="VM is locked"):
        FakeNode(works=False).cli.set_lock(100)


def test_unlock_own_checks_the_word_first():
    node = FakeNode("cores: 1\nlock: migrate\n")
    assert node.cli.unlock_own(100)
    assert node.commands == [["/usr/sbin/qm", "set", "100", "--delete", "lock", "--skiplock"]]


def test_unlock_own_leaves_a_foreign_lock():
    node = FakeNode("lock: backup\n")
    with pytest.raises(LockForeign):
        node.cli.unlock_own(100)
    assert node.commands == []


def test_unlock_own_without_a_lock_does_nothing():
    node = FakeNode()
    assert not node.cli.unlock_own(100)
    assert node.commands == []


def test_unlock_own_without_effect_fails():
    with pytest.raises(NodeCommandFailed):
        FakeNode("lock: migrate\n", works=False).cli.unlock_own(100)


def test_stop_ends_the_process():
    node = FakeNode(pid=7)
    assert node.cli.stop(100)
    assert node.commands == [["/usr/sbin/qm", "stop", "100", "--skiplock"]]


def test_stop_of_a_stopped_vm_runs_nothing():
    node = FakeNode()
    assert not node.cli.stop(100)
    assert node.commands == []


def test_stop_that_only_requests_fails():
    with pytest.raises(NodeCommandFailed):
        FakeNode(pid=7, works=False).cli.stop(100)


def test_set_options_reads_back():
    node = FakeNode("cores: 1\nonboot: 1\nagent: 1\n")
    node.cli.set_options(100, {"onboot": "0"}, ["agent", "absent"])
    assert node.commands == [["/usr/sbin/qm", "set", "100", "--onboot", "0", "--delete", "agent", "--skiplock"]]
    assert node.vm_config(100).values == {"cores": "1", "onboot": "0"}


def test_set_options_takes_another_order_of_members():
    node = FakeNode("net0: virtio=BC:24:11:58:B8:23,bridge=vmbr0,link_down=1\n", works=False)
    node.cli.set_options(100, {"net0": "virtio=BC:24:11:58:B8:23,link_down=1,bridge=vmbr0"})


def test_set_options_without_a_change_runs_nothing():
    node = FakeNode()
    node.cli.set_options(100, {}, ["absent"])
    assert node.commands == []


def test_set_options_without_effect_fails():
    with pytest.raises(NodeCommandFailed, match="onboot"):
        FakeNode(works=False).cli.set_options(100, {"onboot": "0"})


def test_destroy_removes_the_config():
    node = FakeNode()
    assert node.cli.destroy(100)
    assert not node.cli.destroy(100)
    assert node.commands == [["/usr/sbin/qm", "destroy", "100", "--skiplock", "--purge"]]


def test_destroy_without_effect_fails():
    with pytest.raises(NodeCommandFailed):
        FakeNode(works=False).cli.destroy(100)


@pytest.mark.parametrize(
    ("stream", "snapshots", "tail"),
    [("raw+size", False, []), ("qcow2+size", True, ["--with-snapshots", "1"])],
)
def test_export_writes_to_stdout(stream, snapshots, tail):
    argv = NodeCli.export_argv("local:100/vm-100-disk-0.raw", stream, snapshots)
    assert argv == ["/usr/sbin/pvesm", "export", "local:100/vm-100-disk-0.raw", stream, "-", *tail]


def test_volume_exists_when_the_storage_lists_it():
    node = FakeNode()
    node.output = "Volid Format Type Size VMID\nlocal:100/a.raw raw images 5 100\n"
    assert node.cli.volume_exists("local:100/a.raw", 100)
    assert not node.cli.volume_exists("local:100/b.raw", 100)


def test_volumes_have_size_in_bytes_and_format():
    node = FakeNode()
    node.output = "Volid Format Type Size VMID\nlocal:100/a.raw raw images 5 100\nthin:b raw images x 100\n\n"
    found = node.cli.volumes("local", 100)
    assert [(entry.volid, entry.format, entry.size) for entry in found] == [("local:100/a.raw", "raw", 5)]


def test_volume_path_must_be_absolute():
    node = FakeNode()
    node.output = "/var/lib/vz/images/100/a.raw\n"
    assert node.cli.volume_path("local:100/a.raw") == "/var/lib/vz/images/100/a.raw"
    node.output = "oops\n"
    with pytest.raises(NodeCommandFailed):
        node.cli.volume_path("local:100/a.raw")


def test_pvesh_gives_the_last_line_as_json():
    node = FakeNode()
    node.output = 'update VM 100\n{"a":1}\n'
    assert node.cli.pvesh_get("/cluster/resources", type="vm") == {"a": 1}
    assert node.commands == [
        ["/usr/sbin/pvesh", "get", "/cluster/resources", "--output-format", "json", "--type", "vm"]
    ]


def test_task_is_ended_by_its_own_node():
    node = FakeNode()
    node.cli.end_task("UPID:x")
    assert node.commands[-1][1:] == ["delete", "/nodes/localhost/tasks/UPID:x"]


def test_task_that_cannot_be_ended_is_told():
    with pytest.raises(NodeCommandFailed, match="could not be ended"):
        FakeNode(works=False, returncode=2).cli.end_task("UPID:x")


@pytest.mark.parametrize(("output", "returncode"), [("no json", 0), ("", 0), ("{}", 255)])
def test_pvesh_fails(output, returncode):
    node = FakeNode(returncode=returncode)
    node.output = output
    with pytest.raises(NodeCommandFailed):
        node.cli.pvesh_get("/version")


def test_run_command_gives_output_and_status():
    done = run_command(["/bin/sh", "-c", "echo out; echo err >&2; exit 3"], 10)
    assert done == Completed(3, "out\n", "err\n")


def test_run_command_ends_at_its_deadline_and_without_a_program():
    assert run_command(["/bin/sh", "-c", "exec sleep 30"], 0.05).returncode == -1
    assert run_command(["/no/such/program"], 1).returncode == -1
