# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a checked VM to a listening target: numbers, imports, the order of the records."""

from __future__ import annotations

import pytest
from unit.fakes.migration_run import OPTIONS, context_of, run
from unit.fakes.migration_world import Cluster

from ansible_collections.crosscluster.migration.plugins.module_utils.migration import prepare
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.states import Phase
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.target_api import VmResource

TAKEN = [VmResource(20000, "b1", "x", "running", ""), VmResource(20002, "b1", "y", "stopped", "")]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [("same", [100]), ("200", [200]), ("pool", [20001, 20003, 20004])],
    ids=str,
)
def test_numbers_to_try(wanted, expected):
    assert prepare.candidates(wanted, 100, (20000, 20004), TAKEN) == expected


def test_next_number_of_the_pool_is_tried_when_one_is_taken_meanwhile(tmp_path):
    cluster = Cluster()
    cluster.target.vms[20000] = {"lock": ""}
    context = run(cluster, tmp_path, target={**OPTIONS["target"], "vmid": "pool", "vmid_pool": "20000-20009"})
    assert context.facts.phase is Phase.COMPLETED
    assert context.facts.target_vmid == 20001


def test_taken_number_is_refused_with_a_way_out_and_nothing_is_left(tmp_path):
    cluster = Cluster()
    cluster.target.vms[200] = {"lock": ""}
    context = run(cluster, tmp_path)
    assert context.facts.phase is Phase.ROLLED_BACK
    assert (context.facts.error["code"], context.facts.residue) == ("VMID_TAKEN", [])
    assert "pool" in context.facts.error["remedy"]
    assert cluster.target.vms == {200: {"lock": ""}}


def test_what_is_asked_for_is_in_the_journal_before_the_target_hears_it(tmp_path):
    cluster = Cluster()
    context = context_of(cluster, tmp_path)
    seen = {}

    def look(command):
        seen.setdefault(command, [record["kind"] for record in context.journal.records])

    cluster.faults.before = look
    prepare_and_run(context)
    assert "reserving" in seen["version"]
    assert "allocating" in seen["disk"]
    assert "volume" not in seen["disk"]
    assert "starting" in seen["start"]


def prepare_and_run(context):
    from ansible_collections.crosscluster.migration.plugins.module_utils.migration.machine import Machine
    from ansible_collections.crosscluster.migration.plugins.module_utils.migration.steps import STEPS

    Machine(context, STEPS).run()


def test_tunnel_that_never_starts_ends_in_time(tmp_path):
    cluster = Cluster()
    cluster.target.task_log = lambda _upid: []
    context = run(cluster, tmp_path)
    assert context.facts.phase is Phase.ROLLED_BACK
    assert cluster.qemu.state == "running"


def test_foreign_lock_is_not_taken_off(tmp_path):
    cluster = Cluster()
    cluster.source.lock = "backup"
    context = run(cluster, tmp_path)
    assert context.facts.phase is Phase.ROLLED_BACK
    assert cluster.source.lock == "backup"
