# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mirrors: one after the other, watched, ended identical, and their nodes removed."""

from __future__ import annotations

import pytest
from unit.fakes.migration_run import context_of
from unit.fakes.migration_world import Cluster, FakePump

from ansible_collections.crosscluster.migration.plugins.module_utils.migration import mirroring
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.errors import GuestOff, TransferFailed
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.spec import Limits
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.interface import EndReason, PumpEnd


@pytest.fixture
def cluster():
    return Cluster()


@pytest.fixture
def context(cluster, tmp_path):
    context = context_of(cluster, tmp_path)
    context.remember("mirror", key="scsi0", job="crosscluster-scsi0", node="crosscluster-scsi0")
    context.pumps["scsi0"] = FakePump()
    cluster.qemu.blockdev_add({"node-name": "crosscluster-scsi0"})
    cluster.qemu.blockdev_mirror({"job-id": "crosscluster-scsi0"})
    return context


def test_failed_job_is_told_with_the_text_of_qemu(cluster, context):
    cluster.qemu.jobs["crosscluster-scsi0"].update(status="concluded", error="No space left on device")
    with pytest.raises(TransferFailed) as caught:
        mirroring.jobs(context)
    assert "No space left on device" in caught.value.message
    assert caught.value.side.value == "target"


def test_error_of_reading_is_the_source_s(cluster, context):
    cluster.qemu.jobs["crosscluster-scsi0"].update(status="concluded", error="Input/output error while reading")
    with pytest.raises(TransferFailed) as caught:
        mirroring.jobs(context)
    assert caught.value.side.value == "source"


def test_broken_stream_explains_a_failed_job(cluster, context):
    cluster.qemu.jobs["crosscluster-scsi0"].update(status="concluded", error="Input/output error")
    context.pumps["scsi0"].ended = PumpEnd(EndReason.PONG_MISSING, False)
    with pytest.raises(TransferFailed) as caught:
        mirroring.jobs(context)
    assert "pong_missing" in caught.value.message


def test_stream_that_ended_is_seen_while_the_job_still_says_running(context):
    """QEMU says "running" as long as its client would reconnect (mtunnel-protocol 8.2)."""
    context.pumps["scsi0"].ended = PumpEnd(EndReason.SERVER_LOST, False)
    with pytest.raises(TransferFailed):
        mirroring.jobs(context)


def test_vanished_job_is_a_failure(cluster, context):
    cluster.qemu.jobs.clear()
    with pytest.raises(TransferFailed):
        mirroring.jobs(context)


def test_ending_leaves_neither_job_nor_node(cluster, context):
    mirroring.end(context)
    assert (cluster.qemu.jobs, cluster.qemu.nodes) == ({}, [])


def test_mirror_that_does_not_end_is_given_up_in_time(cluster, context):
    cluster.qemu.block_job_cancel = lambda _arguments: None
    before = cluster.clock.now
    with pytest.raises(TransferFailed):
        mirroring.end(context)
    assert cluster.clock.now - before < mirroring.END_TIMEOUT + 1


def test_guest_that_powered_off_ends_the_migration(cluster, context):
    cluster.qemu.state = "shutdown"
    with pytest.raises(GuestOff):
        mirroring.check_guest(context)


def test_new_limits_reach_the_mirrors_once(cluster, context):
    assert mirroring.retune(context)
    assert not mirroring.retune(context)
    context.requests.limits = Limits(bandwidth=1 << 20)
    assert mirroring.retune(context)
    assert cluster.qemu.jobs["crosscluster-scsi0"]["speed"] == 1 << 20
    assert context.facts.limits.bandwidth == 1 << 20
