# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The same reading of the same target, by its API and by its own node."""

from __future__ import annotations

import pytest
from unit.fakes.migration_world import UPID, UUID, Cluster

from ansible_collections.crosscluster.migration.plugins.module_utils.migration.errors import TargetUnexpected
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.witness import ApiWitness, NodeWitness
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.target_api import VmStatus

TASK = UPID.format(vmid=200)


@pytest.fixture
def cluster():
    cluster = Cluster()
    cluster.target.vms[200] = {"lock": "migrate", "conf": "of this VM"}
    return cluster


@pytest.fixture(params=["api", "node"])
def witness(cluster, request):
    return ApiWitness(cluster.target, 200) if request.param == "api" else NodeWitness(cluster.incoming)


@pytest.mark.parametrize(("qemu", "runs"), [("running", True), ("paused", False), ("inmigrate", False)])
def test_state_of_a_vm_that_has_a_qemu(cluster, witness, qemu, runs):
    cluster.target.qemu = qemu
    assert witness.status() == VmStatus("running", qemu, "migrate", True)
    assert witness.status().runs is runs
    assert witness.uuid() == UUID


def test_vm_without_a_qemu_is_stopped(witness):
    assert witness.status() == VmStatus("stopped", "stopped", "migrate", False)


def test_vm_that_is_gone_has_no_state(cluster, witness):
    cluster.target.vms.clear()
    assert witness.status() is None


def test_task_is_seen_to_end(cluster, witness):
    cluster.target.task_running = True
    assert witness.task_running(TASK)
    witness.end_task(TASK)
    assert not witness.task_running(TASK)


@pytest.mark.parametrize("received", [True, False])
def test_log_tells_whether_resume_came(cluster, witness, received):
    cluster.target.log = ["mtunnel started", *(["received command 'resume'"] if received else [])]
    assert witness.resume_received(TASK) is received


class Node:
    """A node that answers oddly."""

    def __init__(self, **answer):
        self.answer = answer

    def call(self, _op, _wait=0.0, **_values):
        return self.answer


def test_qemu_that_does_not_answer_proves_nothing():
    status = NodeWitness(Node(exists=True, run_state="unknown", lock="migrate")).status()
    assert (status.status, status.genuine, status.runs) == ("running", False, False)


@pytest.mark.parametrize(
    "answer",
    [{}, {"exists": False}, {"run_state": None}, {"exists": None, "run_state": None}, {"exists": True, "run_state": 1}],
)
def test_answer_that_is_none_proves_nothing(answer):
    with pytest.raises(TargetUnexpected, match="was not told"):
        NodeWitness(Node(**answer)).status()


def test_qemu_without_a_config_file_is_not_absent():
    status = NodeWitness(Node(exists=False, run_state="paused")).status()
    assert (status.status, status.qmpstatus, status.lock) == ("running", "paused", "")


def test_task_of_which_nothing_is_said_runs():
    assert NodeWitness(Node()).task_running(TASK)


@pytest.mark.parametrize("answer", [{}, {"resume_received": None}, {"resume_received": "no"}])
def test_log_that_is_gone_is_no_proof(answer):
    with pytest.raises(TargetUnexpected, match="log of the tunnel task"):
        NodeWitness(Node(**answer)).resume_received(TASK)
