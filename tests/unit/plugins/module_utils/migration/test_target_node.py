# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os

import pytest

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import Side
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.recovery_errors import (
    RecordInvalid,
    RecoveryFailed,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.target_node import Node
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.target_recovery import Action, Step
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.errors import NodeCommandFailed
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.node_cli import Completed, NodeCli
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.node_files import NodeFiles

UPID = "UPID:b1:0000002A:00C4D5E6:65F0000A:qmtunnel:117:m@pve!move:"
BEGUN = 0x65F0000A
VOLUME = "fast:117/vm-117-disk-1"


@pytest.fixture
def root(tmp_path):
    for directory in ("etc/pve/nodes/b1/qemu-server", "etc/pve/nodes/b2/qemu-server", "etc/pve/nodes/b2/lxc"):
        (tmp_path / directory).mkdir(parents=True)
    for directory in ("run/qemu-server", "proc/42", "proc/77/fd", "var/log/pve/tasks/A", "images"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "etc/pve/qemu-server").symlink_to("nodes/b1/qemu-server")
    (tmp_path / "etc/pve/local").symlink_to("nodes/b1")
    (tmp_path / "etc/pve/nodes/b1/qemu-server/117.conf").write_text(f"lock: migrate\nscsi0: {VOLUME}0,size=1G\n")
    return tmp_path


class Commands:
    """Programs of the node: answers by the first words, and everything that was run."""

    def __init__(self, **answers):
        self.answers = {key.replace("_", " "): value for key, value in answers.items()}
        self.run = []

    def __call__(self, argv, timeout):
        words = [os.path.basename(argv[0]), *argv[1:]]
        self.run.append(words)
        for beginning, answer in self.answers.items():
            if " ".join(words).startswith(beginning):
                return answer if isinstance(answer, Completed) else Completed(0, answer, "")
        return Completed(255, "", "no such thing")


def node(root, commands=None, **more):
    files = NodeFiles(root=str(root), side=Side.TARGET)
    return Node(NodeCli(run=commands or Commands(), files=files, side=Side.TARGET), files, root=str(root), **more)


def test_running_tunnel_task_of_the_number_is_seen_even_if_another_was_recorded(root):
    active = '[{"type": "qmstart"}, {"type": "qmtunnel", "upid": "UPID:b1:other"}]'
    assert node(root, Commands(pvesh_get=active)).task_running(None, 117) is True


@pytest.mark.parametrize(("status", "running"), [("stopped", False), ("running", True)])
def test_recorded_task_is_asked_for_its_status(root, status, running):
    class Tasks(Commands):
        def __call__(self, argv, timeout):
            return Completed(0, f'{{"status": "{status}"}}' if UPID in argv[2] else "[]", "")

    assert node(root, Tasks()).task_running(UPID, 117) is running


@pytest.mark.parametrize(("started", "running"), [("12899814", True), ("1", False)])
def test_task_without_a_log_is_judged_by_its_process(root, started, running):
    class Tasks(Commands):
        def __call__(self, argv, timeout):
            return Completed(255, "", "unable to open file") if UPID in argv[2] else Completed(0, "[]", "")

    (root / "proc/42/stat").write_text(f"42 (task (a b)) S {' '.join(['0'] * 18)} {started} 0 0")
    assert node(root, Tasks()).task_running(UPID, 117) is running


def process(root, state="S", started=12899814):
    (root / "proc/42/stat").write_text(f"42 (task UPID:b1) {state} {' '.join(['0'] * 18)} {started} 0 0")


@pytest.mark.parametrize(
    ("state", "started", "alive"),
    [("S", 12899814, True), ("R", 12899814, True), ("S", 1, False), ("Z", 12899814, False)],
)
def test_task_lives_as_long_as_the_process_that_its_id_names(root, state, started, alive):
    process(root, state, started)
    assert node(root).task_alive(UPID) is alive


def test_task_without_a_process_has_ended(root):
    assert node(root).task_alive(UPID) is False


def test_task_of_another_node_is_not_looked_for_among_the_own_processes(root):
    for ask in (node(root).task_alive, node(root).end_task):
        with pytest.raises(RecordInvalid, match="node b1"):
            ask(UPID.replace("b1", "b2"))


class Ending(Commands):
    """Ends the task, or says so only."""

    def __init__(self, root, ends):
        super().__init__(pvesh_delete="")
        self.root, self.ends = root, ends

    def __call__(self, argv, timeout):
        if self.ends:
            (self.root / "proc/42/stat").unlink()
        return super().__call__(argv, timeout)


def test_task_is_ended_by_proxmox(root):
    process(root)
    commands = Ending(root, ends=True)
    node(root, commands).end_task(UPID)
    node(root, commands).end_task(UPID)  # there is none any more
    assert commands.run == [["pvesh", "delete", f"/nodes/localhost/tasks/{UPID}"]]


def test_task_that_does_not_end_is_told(root):
    process(root)
    moments = iter(range(100))
    with pytest.raises(RecoveryFailed, match="lives on"):
        node(root, Ending(root, ends=False), clock=lambda: next(moments), pause=lambda _s: None).end_task(UPID)


def test_list_of_tasks_that_fails_is_no_proof_of_anything(root):
    with pytest.raises(NodeCommandFailed):
        node(root).task_running(UPID, 117)


def test_log_is_found_by_the_last_digit_of_the_start_time(root):
    assert node(root).task_log(UPID) is None
    (root / "var/log/pve/tasks/A" / UPID).write_text("mtunnel started\nreceived command 'resume'\n")
    assert node(root).task_log(UPID) == ["mtunnel started", "received command 'resume'"]


@pytest.mark.parametrize(("written", "own"), [(BEGUN + 5, True), (BEGUN - 100, False), (BEGUN + 500, False)])
def test_config_belongs_to_the_task_that_ran_when_it_was_written(root, written, own):
    log = root / "var/log/pve/tasks/A" / UPID
    log.write_text("")
    os.utime(log, (BEGUN + 100, BEGUN + 100))
    os.utime(root / "etc/pve/nodes/b1/qemu-server/117.conf", (written, written))
    assert node(root).written_by_task(117, UPID) is own
    assert node(root).written_by_task(117, None) is False


def test_number_is_found_on_another_node_as_vm_or_container(root):
    assert node(root).owner(118) is None
    (root / "etc/pve/nodes/b2/lxc/118.conf").write_text("")
    assert node(root).owner(118) == "b2"


def test_volume_is_told_from_one_whose_name_only_begins_alike(root):
    assert node(root).referrer(VOLUME, 117) is None
    (root / "etc/pve/nodes/b2/qemu-server/200.conf").write_text(f"scsi0: {VOLUME}0,size=1G\n")
    assert node(root).referrer(VOLUME, 117) is None
    (root / "etc/pve/nodes/b2/lxc/201.conf").write_text(f"mp0: {VOLUME},mp=/data\n")
    assert "201.conf" in node(root).referrer(VOLUME, 117)


def test_config_of_the_vm_itself_is_no_referrer(root):
    assert node(root).referrer(VOLUME + "0", 117) is None


def test_process_that_has_the_image_open_is_a_referrer(root):
    image = root / "images/disk.raw"
    image.write_text("x")
    (root / "proc/77/fd/5").symlink_to(image)
    assert node(root, Commands(pvesm_path="/images/disk.raw\n")).referrer(VOLUME, 117) == "process 77"


def test_vm_without_a_process_has_no_run_state(root):
    assert node(root).run_state(117) is None
    (root / "run/qemu-server/117.pid").write_text("42\n")
    (root / "proc/42/cmdline").write_bytes(b"less\0/etc/passwd\0")
    assert node(root).run_state(117) is None


def test_qemu_that_does_not_answer_is_in_an_unknown_state(root):
    (root / "run/qemu-server/117.pid").write_text("42\n")
    (root / "proc/42/cmdline").write_bytes(b"/usr/bin/kvm\0-id\x00117\0")
    assert node(root).run_state(117) == "unknown"
    assert node(root).loaded(117) is False


def test_destroyed_vm_must_be_gone(root):
    config = root / "etc/pve/nodes/b1/qemu-server/117.conf"
    commands = Commands(qm_destroy="")
    with pytest.raises(NodeCommandFailed):
        node(root, commands).carry_out(Step(Action.DESTROY, "VM 117"), 117)
    config.unlink()
    node(root, commands).carry_out(Step(Action.DESTROY, "VM 117"), 117)


def test_resumed_vm_must_be_seen_running(root):
    times = iter(range(100))
    with pytest.raises(RecoveryFailed):
        node(root, Commands(qm_resume=""), clock=lambda: next(times), pause=lambda _seconds: None).carry_out(
            Step(Action.RESUME, "VM 117"), 117
        )


def test_volume_is_freed_by_its_name(root):
    commands = Commands(pvesm_free="Removed volume")
    node(root, commands).carry_out(Step(Action.FREE, VOLUME), 117)
    assert commands.run == [["pvesm", "free", VOLUME]]


def test_unlocking_takes_away_its_own_lock_only(root):
    config = root / "etc/pve/nodes/b1/qemu-server/117.conf"

    class Set(Commands):
        def __call__(self, argv, timeout):
            config.write_text("name: web01\n")
            return super().__call__(argv, timeout)

    node(root, Set(qm_set="")).carry_out(Step(Action.UNLOCK, "VM 117"), 117)
    assert config.read_text() == "name: web01\n"
