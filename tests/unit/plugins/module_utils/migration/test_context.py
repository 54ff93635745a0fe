# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What steps work with: facts only through the journal, waiting that serves, rates that fit what is known."""

from __future__ import annotations

import pytest
from unit.fakes.migration_run import context_of
from unit.fakes.migration_world import Cluster, FakePump, FakeTunnel

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import Side
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.errors import (
    Aborted,
    JournalUnwritable,
    MigrationError,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.states import Phase
from ansible_collections.crosscluster.migration.plugins.module_utils.transport import pacing
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.interface import Kind

MIB = 1 << 20


@pytest.fixture
def cluster():
    return Cluster()


@pytest.fixture
def context(cluster, tmp_path):
    return context_of(cluster, tmp_path)


def test_fact_that_the_journal_cannot_take_does_not_count(context):
    context.journal.full_from = 0
    with pytest.raises(JournalUnwritable):
        context.note("reserving", vmid=200)
    assert context.facts.target_vmid is None


def test_fact_of_the_way_back_counts_in_memory_at_least(context):
    context.journal.full_from = 0
    context.note_or_remember("source_state", state="running")
    assert context.facts.source_state == "running"


def test_waiting_sees_an_abort(context):
    context.requests.ask_abort()
    with pytest.raises(Aborted):
        context.pause(60)


def test_waiting_behind_the_intent_is_not_disturbed(cluster, context):
    context.remember("COMMIT_INTENT", phase="committing")
    context.requests.ask_abort()
    context.pause(1)
    assert context.facts.phase is Phase.COMMITTING


def test_what_a_restarted_worker_does_not_know_is_an_error_of_ours(context):
    for look in (lambda: context.plan, lambda: context.target_vmid, context.require_tunnel):
        with pytest.raises(MigrationError):
            look()


def test_stream_gets_a_ticket_of_its_own_right_before(cluster, context):
    context.remember("reserving", vmid=200)
    cluster.target.vms[200] = {"lock": "migrate"}
    context.tunnel = FakeTunnel(cluster.target, 200)
    context.open_websocket("scsi0", Kind.NBD, "/run/qemu-server/200_nbd.migrate")
    context.open_websocket("ram", Kind.RAM, "/run/qemu-server/200.migrate")
    assert cluster.target.log == ["received command 'ticket'"] * 2


def test_unmeasured_path_gets_the_cautious_rate(context):
    assert context.stream_rate() == pacing.UNMEASURED_RATE
    assert context.measured_rate() == pacing.UNMEASURED_RATE


def test_acknowledged_mirror_sets_the_rate(context):
    context.remember("mirror", key="scsi0", job="j", node="n")
    pump = FakePump()
    pump.acknowledged, pump.busy_s, pump.acknowledged_rate = 128 * MIB, 1.0, 100 * MIB
    context.pumps["scsi0"] = pump
    assert context.stream_rate() == 90 * MIB


@pytest.mark.parametrize(("user", "target", "rate"), [(10, None, 10), (None, 20, 20), (30, 20, 20), (10, 20, 10)])
def test_least_limit_counts(cluster, tmp_path, user, target, rate):
    limits = {"bandwidth": f"{user} MiB/s"} if user else None
    context = context_of(cluster, tmp_path, limits=limits)
    context.ram_limit = target * MIB if target else None
    assert context.stream_rate() == rate * MIB


def test_bytes_of_ended_streams_are_counted(context):
    context.pumps = {"a": FakePump(), "b": FakePump()}
    context.drop_pumps()
    context.finish_result()
    assert context.facts.result["bytes"] == 2 * MIB


def test_warning_does_not_change_the_outcome(context):
    context.warn(MigrationError("odd", side=Side.SOURCE, object="x"))
    assert context.facts.result["warnings"][0]["message"] == "odd"
    assert context.facts.error is None
