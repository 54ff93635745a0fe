# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""RAM up to pre-switchover: near the end the monitor is held, bounded and with gaps."""

from __future__ import annotations

import contextlib

import pytest
from unit.fakes.migration_run import context_of, run
from unit.fakes.migration_world import Cluster, FakePump

from ansible_collections.crosscluster.migration.plugins.module_utils.migration import precopy
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.errors import TransferFailed
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.states import Phase


def test_monitor_is_never_held_longer_than_its_bound(tmp_path):
    """Proxmox's own pollers give up after 3 s (pve-cli 5)."""
    cluster = Cluster()
    cluster.qemu.migration = "active"
    holds = []

    @contextlib.contextmanager
    def session(deadline):
        begin = cluster.clock.now
        yield cluster.qemu
        holds.append((begin, cluster.clock.now))

    looks = []

    def active(_arguments):
        looks.append(cluster.clock.now)
        status = "pre-switchover" if len(looks) > 40 else "active"
        return {"status": status, "ram": {"total": 1 << 30, "transferred": 1, "remaining": 1000}}

    cluster.qemu.session, cluster.qemu.query_migrate = session, active
    context = context_of(cluster, tmp_path)
    context.pumps["ram"] = FakePump()
    context.applied_limits = context.requests.limits
    precopy._follow(context)
    assert len(holds) > 1
    assert max(end - begin for begin, end in holds) <= 2.6
    assert min(later[0] - earlier[1] for earlier, later in zip(holds, holds[1:])) >= 0.3


def seen_after(cluster, tmp_path, remaining, stops_at) -> float:
    """Seconds between the guest's stop and the moment in which the worker knows; RAM of 64 GiB."""
    clock, total = cluster.clock, 64 << 30
    begin = clock.now
    cluster.qemu.migration = "active"

    def answer(_arguments):
        if clock.now - begin >= stops_at:
            return {"status": "pre-switchover"}
        left = remaining(clock.now - begin)
        if left is None:
            return {"status": "setup"}
        return {"status": "active", "ram": {"total": total, "transferred": 1, "remaining": int(left)}}

    cluster.qemu.query_migrate = answer
    context = context_of(cluster, tmp_path)
    context.pumps["ram"] = FakePump()
    context.applied_limits = context.requests.limits
    precopy._follow(context)
    return clock.now - begin - stops_at


def test_small_vm_is_seen_to_stop_at_once(tmp_path):
    """It was ready before the second look."""
    assert seen_after(Cluster(), tmp_path, lambda _at: None, 0.4) <= 0.11


def test_empty_ram_that_goes_faster_than_its_bandwidth_is_seen_to_stop(tmp_path):
    """4 GiB/s of zero pages: neither the bandwidth nor the limit says that the end is near."""
    late = seen_after(Cluster(), tmp_path, lambda at: (64 << 30) - at * (4 << 30) if at else None, 15.9)
    assert late <= precopy._GAP + 0.11


@pytest.mark.parametrize("status", ["failed", "cancelled", "failing"])
def test_migration_that_ends_early_is_told_with_its_reason(tmp_path, status):
    cluster = Cluster()
    cluster.qemu.query_migrate = lambda _a: {"status": status, "error-desc": "Unable to write to socket: Broken pipe"}
    context = context_of(cluster, tmp_path)
    info = precopy.information(context)
    with pytest.raises(TransferFailed) as caught:
        precopy._is_paused(context, info)
    assert "Broken pipe" in caught.value.message


def test_unknown_status_of_a_later_qemu_is_waited_through(tmp_path):
    cluster = Cluster()
    statuses = iter(["setup", "news-of-2030", "active"])
    query = cluster.qemu.query_migrate

    def answer(arguments):
        if cluster.qemu.migration != "active":
            return query(arguments)
        word = next(statuses, None)
        return {"status": word} if word and word != "active" else query(arguments)

    cluster.qemu.query_migrate = answer
    assert run(cluster, tmp_path).facts.phase is Phase.COMPLETED
