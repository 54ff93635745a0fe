# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The switchover: deadlines armed before the source continues, and the target's own word at its end."""

from __future__ import annotations

import pytest
from unit.fakes.migration_run import POINT, context_of, run
from unit.fakes.migration_world import CONFIG, Cluster

from ansible_collections.crosscluster.migration.plugins.module_utils.migration import switchover
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.errors import TargetUnexpected
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.states import Phase
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.target_api import VmStatus


def test_deadline_is_armed_before_the_source_continues(tmp_path):
    cluster = Cluster()
    seen = []
    migrate_continue = cluster.qemu.migrate_continue

    def watched(arguments):
        seen.append([pump.armed for pump in cluster.pumps])
        migrate_continue(arguments)

    cluster.qemu.migrate_continue = watched
    run(cluster, tmp_path)
    assert seen == [[False, True]]
    assert not any(pump.armed for pump in cluster.pumps)


@pytest.mark.parametrize(("transport", "seconds"), [("websocket", switchover.SWITCHOVER_DEADLINE), ("tls", 4.0)])
def test_direct_transport_has_the_deadline_of_its_timers(tmp_path, transport, seconds):
    cluster = Cluster()
    run(cluster, tmp_path, transports=[transport], incoming={**POINT, "limits": {"switchover": 4.0}})
    assert cluster.pumps[-1].armed_for == seconds


def test_switchover_that_does_not_end_goes_back(tmp_path):
    cluster = Cluster()
    query = cluster.qemu.query_migrate
    cluster.qemu.query_migrate = lambda a: {"status": "device"} if cluster.qemu.migration == "device" else query(a)
    before = cluster.clock.now
    context = run(cluster, tmp_path)
    assert context.facts.phase is Phase.ROLLED_BACK
    assert cluster.qemu.state == "running"
    assert cluster.clock.now - before < 40


def test_monitor_may_be_mute_as_long_as_the_pump_lets_the_switchover_last(tmp_path):
    cluster = Cluster()
    patience = []
    asked = cluster.qemu.run

    def watched(command, arguments=None, timeout=5.0):
        if command == "query-migrate" and cluster.qemu.migration == "device":
            patience.append(timeout)
        return asked(command, arguments, timeout)

    cluster.qemu.run = watched
    run(cluster, tmp_path)
    assert patience
    assert patience[0] > switchover.SWITCHOVER_DEADLINE


def test_target_without_a_disk_has_no_nbd_server_to_stop(tmp_path):
    disk = next(line for line in CONFIG.splitlines(keepends=True) if line.startswith("scsi0"))
    cluster = Cluster(text=CONFIG.replace(disk, "").replace("order=scsi0", "order=net0"))
    assert run(cluster, tmp_path).facts.phase is Phase.COMPLETED


def test_completed_source_with_a_target_that_is_not_loaded_goes_back(tmp_path):
    """Finding 1 of safety: "completed" alone proves nothing."""
    cluster = Cluster()
    cluster.target.load = lambda: None
    context = run(cluster, tmp_path)
    assert context.facts.phase is Phase.ROLLED_BACK
    assert cluster.qemu.state == "running"
    assert not any("resume" in line for line in cluster.target.log)
    assert context.facts.intents == 0


@pytest.mark.parametrize("qmpstatus", ["running", "io-error", "stopped"])
def test_any_other_word_of_the_target_is_no_proof(tmp_path, qmpstatus):
    cluster = Cluster()
    context = context_of(cluster, tmp_path)
    context.remember("reserving", vmid=200)
    cluster.target.vm_status = lambda _vmid, timeout=None: VmStatus("running", qmpstatus, "migrate", True)
    with pytest.raises(TargetUnexpected):
        switchover.loaded(context)


def test_paused_that_qmp_did_not_say_is_no_proof(tmp_path):
    cluster = Cluster()
    context = context_of(cluster, tmp_path)
    context.remember("reserving", vmid=200)
    cluster.target.vm_status = lambda _vmid, timeout=None: VmStatus("running", "paused", "migrate", False)
    with pytest.raises(TargetUnexpected):
        switchover.loaded(context)
