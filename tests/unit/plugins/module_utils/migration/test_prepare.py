# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a checked VM to a listening target: numbers, imports, the order of the records."""

from __future__ import annotations

import dataclasses

import pytest
from unit.fakes.migration_run import OPTIONS, context_of, run, spec_of
from unit.fakes.migration_world import Cluster, FakePump

from ansible_collections.crosscluster.migration.plugins.module_utils.migration import prepare
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.states import Phase
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.target_api import VmResource
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.interface import EndReason, PumpEnd

TAKEN = [VmResource(20000, "b1", "x", "running"), VmResource(20002, "b1", "y", "stopped")]


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


OFFLINE = {"offline": True}


class Stream(FakePump):
    """A stream that is done when ``done`` says so; what it said is heard at the next look."""

    def __init__(self, clock, done):
        super().__init__()
        self.clock, self.done = clock, done

    def poll_events(self):
        self.draining = self.draining or self.done()
        if self.draining and self.ended is None and self.target.import_ends():
            self.ended = PumpEnd(EndReason.LOCAL_EOF, True)
        return []


def stopped(done=lambda: True):
    """A stopped VM: its one volume is imported. The importer ends with its stream."""
    cluster = Cluster()
    cluster.qemu.alive = False
    cluster.streams, cluster.size = [], 1 << 20

    def world():
        def open_stream(name, kind, *_rest):
            cluster.streams.append(Stream(cluster.clock, done))
            cluster.streams[-1].target, cluster.streams[-1].sent = cluster.target, cluster.size
            return cluster.streams[-1], ""

        return dataclasses.replace(Cluster.world(cluster), open_stream=open_stream)

    cluster.world = world
    return cluster


def test_stopped_vm_is_imported(tmp_path):
    cluster = stopped()
    context = run(cluster, tmp_path, **OFFLINE)
    assert context.facts.phase is Phase.COMPLETED
    assert context.facts.volumes["scsi0"].volid in cluster.target.volumes


def test_end_of_the_stream_may_be_heard_after_the_target_has_said_complete(tmp_path):
    cluster = stopped()
    polls = []

    def late(self):
        polls.append(1)
        if len(polls) > 5:
            self.ended = PumpEnd(EndReason.LOCAL_EOF, True)
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stream, "poll_events", late)
        assert run(cluster, tmp_path, **OFFLINE).facts.phase is Phase.COMPLETED


def test_stream_that_never_tells_its_end_is_no_whole_volume(tmp_path):
    cluster = stopped()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stream, "poll_events", FakePump.poll_events)
        context = run(cluster, tmp_path, **OFFLINE)
    assert (context.facts.phase, context.facts.error["code"]) == (Phase.ROLLED_BACK, "TRANSFER_FAILED")


def cut(cluster):
    """Whether the stream was ended by us: the importer takes that for its end, and for success."""
    return any(stream.ended is not None for stream in cluster.streams)


@pytest.mark.parametrize("how", ["abort", "stream breaks"])
def test_volume_of_an_import_that_was_cut_is_removed_over_the_living_channel(tmp_path, how):
    cluster = stopped(lambda: False)
    cluster.target.import_ends = lambda: cut(cluster) and cluster.clock.now > 1010
    context = context_of(cluster, tmp_path, **OFFLINE)

    def disturb(command):
        if command == "query-disk-import" and how == "abort":
            context.requests.ask_abort()
        elif command == "query-disk-import":
            cluster.streams[-1].ended = PumpEnd(EndReason.SERVER_LOST, False)

    cluster.faults.before = disturb
    prepare_and_run(context)
    assert context.facts.phase is Phase.ROLLED_BACK
    assert context.facts.error["code"] == ("ABORTED" if how == "abort" else "TRANSFER_FAILED")
    assert (cluster.target.vms, cluster.target.volumes, context.facts.residue) == ({}, [], [])


def test_importer_that_never_ends_does_not_hold_the_way_back(tmp_path):
    cluster = stopped(lambda: False)
    cluster.target.import_ends = lambda: False
    context = context_of(cluster, tmp_path, **OFFLINE)
    cluster.faults.before = lambda command: context.requests.ask_abort() if command == "query-disk-import" else None
    begun = cluster.clock.now
    prepare_and_run(context)
    assert [entry["kind"] for entry in context.facts.residue] == ["volume", "task"]
    assert cluster.clock.now - begun < 120


def test_channel_lost_during_an_import_is_told_as_the_cause(tmp_path):
    cluster = stopped(lambda: False)
    cluster.faults.lose_channel_at = "query-disk-import"
    context = run(cluster, tmp_path, **OFFLINE)
    assert context.facts.error["facts"]["cause"]["code"] == "CHANNEL_LOST"


@pytest.mark.parametrize(("size", "patience"), [(1 << 20, 120), (8 << 30, 120 + 1024)], ids=["small", "large"])
def test_importer_that_hangs_is_given_up_by_the_size_after_the_last_byte(tmp_path, size, patience):
    cluster = stopped()
    cluster.target.import_ends = lambda: cut(cluster)
    begun = cluster.clock.now
    cluster.size = size
    context = run(cluster, tmp_path, on_controller_loss="continue", **OFFLINE)
    assert context.facts.error["code"] == "TRANSFER_FAILED"
    assert "after the last byte" in context.facts.error["message"]
    assert patience < cluster.clock.now - begun < patience + 20
    assert cluster.target.volumes == []


def test_limit_asserted_during_an_import_reaches_its_stream(tmp_path):
    finished = []
    cluster = stopped(lambda: bool(finished))
    cluster.target.import_ends = lambda: bool(finished)
    context = context_of(cluster, tmp_path, **OFFLINE)

    def assert_again(command):
        if command == "query-disk-import" and cluster.clock.now > 1020:
            finished.append(True)
        elif command == "query-disk-import":
            limits = spec_of(limits={"bandwidth": "3 MiB/s"}).limits
            context.requests.advance(Phase.COMPLETED, "lease", limits)

    cluster.faults.before = assert_again
    prepare_and_run(context)
    assert context.facts.phase is Phase.COMPLETED
    assert cluster.streams[-1].rates[-1] == 3 << 20
    assert context.facts.limits.bandwidth == 3 << 20
