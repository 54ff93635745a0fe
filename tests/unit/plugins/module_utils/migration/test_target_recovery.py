# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import itertools

import pytest

from ansible_collections.crosscluster.migration.plugins.module_utils.migration import recovery_errors
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.target_recovery import (
    RESUME_RECEIVED,
    Action,
    Recorded,
    recover,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.vm_config import VmConfig

UUID = "6f7d5a10-0a4e-4f0e-9d6d-0d8c2f4f9b11"
OTHER = "11111111-2222-4333-8444-555555555555"
UPID = "UPID:b1:0001A2B3:00C4D5E6:65F00000:qmtunnel:117:m@pve!move:"
DISK = "fast:117/vm-117-disk-0.raw"
SECOND = "slow:117/vm-117-disk-1.qcow2"


def text(uuid=UUID, lock="migrate", disks=(DISK,)):
    lines = [f"lock: {lock}"] if lock else []
    lines += ["name: web01", f"smbios1: uuid={uuid}", "memory: 128", "ide2: none,media=cdrom"]
    lines += [f"scsi{number}: {volume},size=1G" for number, volume in enumerate(disks)]
    return "\n".join(lines) + "\n"


class FakeNode:
    """A target node in memory; commands have the effects that Proxmox VE's have."""

    def __init__(self, config=None, run_state=None, volumes=(DISK,), *, log=("mtunnel started",), **more):
        self.text = config
        self.state = run_state
        self.volumes = set(volumes)
        self.log = log
        self.busy = more.get("busy", False)
        self.elsewhere = more.get("elsewhere")
        self.stub_of_task = more.get("stub_of_task", True)
        self.complete = more.get("complete", True)
        self.users = more.get("users", {})
        self.done = []

    def task_running(self, upid, vmid):
        return self.busy

    def task_log(self, upid):
        return None if self.log is None else list(self.log)

    def config(self, vmid):
        return None if self.text is None else VmConfig.parse(self.text)

    def owner(self, vmid):
        return self.elsewhere

    def written_by_task(self, vmid, upid):
        return self.stub_of_task

    def run_state(self, vmid):
        return self.state

    def loaded(self, vmid):
        return self.complete

    def exists(self, volume, vmid):
        return volume in self.volumes

    def referrer(self, volume, vmid):
        return self.users.get(volume)

    def carry_out(self, step, vmid):
        self.done.append((step.action, step.object))
        if step.action is Action.STOP:
            self.state = None
        elif step.action is Action.DESTROY:
            assert self.state is None, "qm destroy never stops a VM"
            self.volumes -= {drive.file for drive in VmConfig.parse(self.text).drives()}
            self.text = None
        elif step.action is Action.FREE:
            self.volumes.discard(step.object)
        elif step.action is Action.RESUME:
            self.state = "running"
        else:
            self.text = self.text.replace("lock: migrate\n", "")


def recorded(**more):
    options = {
        "migration_id": "ab" * 16,
        "vmid": 117,
        "uuid": UUID,
        "upid": UPID,
        "volumes": [DISK],
        "commit_intent": False,
        "source_fenced": False,
    }
    return Recorded.parse({**options, **more})


def actions(node):
    return [action.value for action, _object in node.done]


def refused(node, goal="removed", **more):
    before = (node.text, node.state, set(node.volumes))
    with pytest.raises(recovery_errors.RecoveryRefused) as caught:
        recover(recorded(**more), node, goal)
    assert node.done == []
    assert (node.text, node.state, node.volumes) == before
    return caught.value.code


# --- removed


@pytest.mark.parametrize("state", ["inmigrate", "paused", "prelaunch"])
def test_waiting_vm_is_stopped_and_destroyed(state):
    node = FakeNode(text(), state)
    result = recover(recorded(), node, "removed")
    assert actions(node) == ["stop", "destroy"]
    assert result["changed"] is True
    assert result["status"] == state
    assert (node.text, node.volumes) == (None, set())


def test_volume_that_the_config_does_not_name_is_freed_after_the_vm():
    node = FakeNode(text(), None, [DISK, SECOND])
    recover(recorded(volumes=[DISK, SECOND]), node, "removed")
    assert node.done == [(Action.DESTROY, "VM 117"), (Action.FREE, SECOND)]


def test_reservation_is_destroyed_and_its_volumes_freed():
    node = FakeNode("lock: create\n")
    recover(recorded(), node, "removed")
    assert actions(node) == ["destroy", "free"]


def test_second_run_changes_nothing():
    node = FakeNode(text(), "inmigrate")
    recover(recorded(), node, "removed")
    node.done.clear()
    result = recover(recorded(), node, "removed")
    assert result["changed"] is False
    assert result["steps"] == []
    assert result["status"] == "absent"
    assert node.done == []


@pytest.mark.parametrize("goal", ["removed", "running"])
def test_check_mode_says_the_same_and_does_nothing(goal):
    looked, worked = (FakeNode(text(), "paused", log=["mtunnel started"]) for _each in range(2))
    intent = {"commit_intent": goal == "running", "source_fenced": True}
    foretold = recover(recorded(**intent), looked, goal, check_mode=True)
    assert looked.done == []
    assert foretold == recover(recorded(**intent), worked, goal)
    assert foretold["changed"] is True


def test_volume_in_use_is_kept_and_told():
    node = FakeNode(None, None, [DISK, SECOND], users={SECOND: "process 4711"})
    result = recover(recorded(volumes=[DISK, SECOND]), node, "removed")
    assert node.done == [(Action.FREE, DISK)]
    assert result["kept"] == [{"volume": SECOND, "used_by": "process 4711"}]


@pytest.mark.parametrize(
    ("code", "node"),
    [
        ("TUNNEL_TASK_RUNNING", FakeNode(text(), "inmigrate", busy=True)),
        ("VMID_REUSED", FakeNode(text(uuid=OTHER), "running")),
        ("VMID_REUSED", FakeNode(text(uuid=OTHER), None)),
        ("VMID_REUSED", FakeNode("lock: create\n", stub_of_task=False)),
        ("VMID_REUSED", FakeNode("lock: create\nmemory: 512\n")),
        ("VMID_REUSED", FakeNode("name: new\n")),
        ("VMID_REUSED", FakeNode(None, elsewhere="b2")),
        ("TARGET_LOCK_CHANGED", FakeNode(text(lock=""), "inmigrate")),
        ("TARGET_LOCK_CHANGED", FakeNode(text(lock="backup"), "inmigrate")),
        ("TARGET_MAY_HAVE_RUN", FakeNode(text(), "running")),
        ("TARGET_MAY_HAVE_RUN", FakeNode(text(), "unknown", log=None)),
        ("TARGET_MAY_HAVE_RUN", FakeNode(text(), "unknown", log=[RESUME_RECEIVED])),
        ("TARGET_MAY_HAVE_RUN", FakeNode(None, "unknown")),
        ("TARGET_MAY_HAVE_RUN", FakeNode(text(), "io-error")),
        ("TARGET_MAY_HAVE_RUN", FakeNode(text(), "shutdown")),
        ("TARGET_MAY_HAVE_RUN", FakeNode(text(), "paused", log=[RESUME_RECEIVED])),
        ("TARGET_MAY_HAVE_RUN", FakeNode(text(), None, log=[RESUME_RECEIVED])),
        ("TARGET_MAY_HAVE_RUN", FakeNode(None, None, log=[RESUME_RECEIVED])),
        ("TARGET_VOLUMES_DIFFER", FakeNode(text(disks=(DISK, SECOND)), "inmigrate")),
        ("TARGET_VOLUMES_DIFFER", FakeNode(text(), "inmigrate", users={DISK: "process 4711"})),
    ],
)
def test_removal_is_refused(code, node):
    assert refused(node) == code


def test_removal_after_the_intent_needs_the_log_of_the_task():
    assert refused(FakeNode(text(), None, log=None), commit_intent=True) == "TARGET_MAY_HAVE_RUN"
    node = FakeNode(text(), None)
    recover(recorded(commit_intent=True), node, "removed")
    assert actions(node) == ["destroy"]


def test_silent_qemu_that_nobody_let_run_is_removed():
    """It stands still, on storage or by a signal: before COMMIT_INTENT nobody has sent `resume`."""
    node = FakeNode(text(), "unknown")
    recover(recorded(), node, "removed")
    assert actions(node) == ["stop", "destroy"]
    assert refused(FakeNode(text(), "unknown"), commit_intent=True) == "TARGET_MAY_HAVE_RUN"


def test_qemu_that_answers_at_last_that_it_runs_is_left_alone():
    node = FakeNode(text(), "unknown")
    answers = iter(["unknown", "running"])
    node.run_state = lambda _vmid: next(answers)
    assert refused(node) == "TARGET_MAY_HAVE_RUN"


def test_lock_that_was_recorded_is_the_only_one_taken_for_its_own():
    assert refused(FakeNode(text(), None), lock="create") == "TARGET_LOCK_CHANGED"


# --- running


def test_loaded_vm_is_resumed_and_unlocked_once_the_source_is_fenced():
    node = FakeNode(text(), "paused")
    recover(recorded(commit_intent=True), node, "running")
    assert actions(node) == ["resume"]
    assert "lock: migrate" in node.text
    recover(recorded(commit_intent=True, source_fenced=True), node, "running")
    assert actions(node) == ["resume", "unlock"]
    assert recover(recorded(commit_intent=True, source_fenced=True), node, "running")["changed"] is False


@pytest.mark.parametrize("state", ["paused", None])
def test_vm_that_its_owner_had_not_running_is_only_unlocked(state):
    node = FakeNode(text(), state)
    run_state = "paused" if state else "stopped"
    recover(recorded(commit_intent=True, source_fenced=True, run_state=run_state), node, "running")
    assert actions(node) == ["unlock"]


@pytest.mark.parametrize(
    ("code", "node"),
    [
        ("TUNNEL_TASK_RUNNING", FakeNode(text(), "paused", busy=True)),
        ("TARGET_GONE", FakeNode(None)),
        ("TARGET_GONE", FakeNode(text(), None)),
        ("VMID_REUSED", FakeNode(None, elsewhere="b2")),
        ("VMID_REUSED", FakeNode(text(uuid=OTHER), "paused")),
        ("VMID_REUSED", FakeNode("lock: create\n")),
        ("TARGET_LOCK_CHANGED", FakeNode(text(lock=""), "paused")),
        ("TARGET_LOCK_CHANGED", FakeNode(text(lock="backup"), "running")),
        ("TARGET_NOT_LOADED", FakeNode(text(), "inmigrate")),
        ("TARGET_NOT_LOADED", FakeNode(text(), "paused", complete=False)),
        ("TARGET_NOT_LOADED", FakeNode(text(), "unknown")),
        ("TARGET_NOT_LOADED", FakeNode(text(), "shutdown")),
    ],
)
def test_resume_is_refused(code, node):
    assert refused(node, "running", commit_intent=True, source_fenced=True) == code


def test_resume_is_refused_without_intent_in_every_state():
    for state in ("paused", "running", "inmigrate", None):
        assert refused(FakeNode(text(), state), "running", source_fenced=True) == "COMMIT_INTENT_MISSING"


def test_number_that_changes_hands_in_between_is_left_alone():
    class Changing(FakeNode):
        def carry_out(self, step, vmid):
            super().carry_out(step, vmid)
            self.text = text(uuid=OTHER)

    node = Changing(text(), "inmigrate")
    with pytest.raises(recovery_errors.VmidReused):
        recover(recorded(), node, "removed")
    assert actions(node) == ["stop"]


# --- over everything


STATES = [None, "running", "paused", "inmigrate", "unknown", "shutdown", "io-error"]
LOGS = [None, (), (RESUME_RECEIVED,)]


@pytest.mark.parametrize("goal", ["removed", "running"])
def test_no_world_lets_it_touch_what_may_run_or_is_foreign(goal):
    configs = [None, text(), text(uuid=OTHER), text(lock=""), text(lock="backup"), "lock: create\n"]
    for config, state, log, intent, fenced in itertools.product(configs, STATES, LOGS, [False, True], [False, True]):
        node = FakeNode(config, state if config else None, log=log)
        try:
            recover(recorded(commit_intent=intent, source_fenced=fenced), node, goal)
        except recovery_errors.RecoveryRefused:
            assert node.done == []
        done = set(actions(node))
        if config in (text(uuid=OTHER), text(lock=""), text(lock="backup")):
            assert not done
        silent = state == "unknown" and (intent or log != ())
        may_have_run = (config and (silent or state in ("running", "shutdown"))) or log == (RESUME_RECEIVED,)
        if goal == "removed" and may_have_run:
            assert not done
        if "resume" in done:
            assert intent
            assert state == "paused"
        if "unlock" in done:
            assert intent
            assert fenced


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("migration_id", "x"),
        ("vmid", 99),
        ("uuid", "none"),
        ("upid", UPID.replace("qmtunnel", "qmstart")),
        ("upid", UPID.replace(":117:", ":118:")),
        ("upid", "../../etc/passwd"),
        ("volumes", ["/etc/passwd"]),
        ("volumes", ["fast:a b"]),
        ("volumes", ["--all:x"]),
    ],
)
def test_record_that_cannot_be_right_is_refused(option, value):
    with pytest.raises(recovery_errors.RecordInvalid) as caught:
        recorded(**{option: value})
    assert option in caught.value.message
