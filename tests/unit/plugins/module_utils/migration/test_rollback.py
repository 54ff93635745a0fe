# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way back, step by step; repeatable, touching only what is ours."""

from __future__ import annotations

import pytest
from unit.fakes.migration_run import context_of
from unit.fakes.migration_world import Cluster

from ansible_collections.crosscluster.migration.plugins.module_utils.migration import rollback
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.states import Outcome


@pytest.fixture
def cluster():
    return Cluster()


def context_in(cluster, tmp_path, run_state="running"):
    context = context_of(cluster, tmp_path)
    context.remember("running", facts={"run_state": run_state})
    context.remember("locking")
    cluster.source.lock = "migrate"
    return context


def test_foreign_jobs_and_nodes_are_left_alone(cluster, tmp_path):
    context = context_in(cluster, tmp_path)
    context.remember("mirror", key="scsi0", job="crosscluster-scsi0", node="crosscluster-scsi0")
    cluster.qemu.jobs = {name: {"status": "running", "error": None} for name in ("crosscluster-scsi0", "backup")}
    cluster.qemu.nodes = ["crosscluster-scsi0", "other"]
    rollback.rollback(context)
    assert (list(cluster.qemu.jobs), cluster.qemu.nodes) == (["backup"], ["other"])


@pytest.mark.parametrize("state", ["paused", "postmigrate", "finish-migrate"])
def test_source_that_does_not_run_by_itself_is_continued(cluster, tmp_path, state):
    cluster.qemu.state = state
    rollback.rollback(context_in(cluster, tmp_path))
    assert cluster.qemu.state == "running"


@pytest.mark.parametrize("state", ["shutdown", "io-error", "guest-panicked"])
def test_guest_that_is_off_or_broken_is_not_touched(cluster, tmp_path, state):
    cluster.qemu.state = state
    context = context_in(cluster, tmp_path)
    rollback.rollback(context)
    assert cluster.qemu.state == state
    assert context.facts.source_state == state


def test_vm_that_its_owner_paused_stays_paused(cluster, tmp_path):
    cluster.qemu.state = "paused"
    rollback.rollback(context_in(cluster, tmp_path, "paused"))
    assert cluster.qemu.state == "paused"


def test_source_whose_qemu_is_gone_is_unlocked_and_reported_stopped(cluster, tmp_path):
    cluster.qemu.alive = False
    context = context_in(cluster, tmp_path)
    assert rollback.rollback(context) is Outcome.OK
    assert (context.facts.source_state, cluster.source.lock) == ("stopped", "")


def test_active_migration_is_cancelled_and_waited_for(cluster, tmp_path):
    cluster.qemu.migration, cluster.qemu.state = "pre-switchover", "finish-migrate"
    rollback.rollback(context_in(cluster, tmp_path))
    assert (cluster.qemu.migration, cluster.qemu.state) == ("cancelled", "running")


def test_lock_is_given_back_only_when_it_was_asked_for(cluster, tmp_path):
    context = context_of(cluster, tmp_path)
    cluster.source.lock = "backup"
    rollback.rollback(context)
    assert cluster.source.lock == "backup"


def test_unreachable_target_is_listed_from_the_journal_and_the_source_goes_on(cluster, tmp_path):
    context = context_in(cluster, tmp_path)
    context.remember("reserving", vmid=200)
    context.remember("volume", key="scsi0", storage="fast", volid="fast:200/vm-200-disk-0.raw")
    cluster.faults.api_down = True
    assert rollback.rollback(context) is Outcome.OK
    assert [(entry["kind"], entry["verified"]) for entry in context.facts.residue] == [("vm", False), ("volume", False)]
    assert cluster.source.lock == ""


def test_volume_that_was_there_before_is_never_listed_as_ours(cluster, tmp_path):
    context = context_in(cluster, tmp_path)
    context.remember("reserving", vmid=200, volumes_before=["fast:200/vm-200-disk-9.raw"])
    context.remember("allocating", key="scsi0", storage="fast")
    cluster.target.volumes = ["fast:200/vm-200-disk-9.raw", "fast:200/vm-200-disk-0.raw"]
    rollback.rollback(context)
    assert [entry.get("volid") for entry in context.facts.residue] == ["fast:200/vm-200-disk-0.raw"]


def test_residue_names_its_cause_and_commands_guarded_by_the_uuid(cluster, tmp_path):
    context = context_in(cluster, tmp_path)
    context.remember("reserving", vmid=200)
    context.remember("error", error={"code": "CHANNEL_LOST"})
    cluster.target.vms[200] = {"lock": "migrate"}
    rollback.rollback(context)
    error = context.facts.error
    assert (error["code"], error["facts"]["cause"]["code"]) == ("TARGET_RESIDUE", "CHANNEL_LOST")
    assert context.facts.uuid in error["remedy"]


def test_second_rollback_finds_nothing_to_do(cluster, tmp_path):
    context = context_in(cluster, tmp_path)
    rollback.rollback(context)
    commands = len(cluster.qemu.commands)
    assert rollback.rollback(context) is Outcome.OK
    assert "cont" not in cluster.qemu.commands[commands:]
