# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the engine decides before it starts anything: attach, refuse, or say that nothing is to be done."""

from __future__ import annotations

import contextlib
import os
import subprocess

import pytest
from unit.fakes.migration_run import spec_of
from unit.fakes.migration_world import CONFIG, UUID, Cluster

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import Side
from ansible_collections.crosscluster.migration.plugins.module_utils.migration import engines, places
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.errors import (
    NotFound,
    SpecDiffers,
    WorkerUnreachable,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.journal import FORMAT, Journal
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.errors import VmAbsent
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.target_api import VmResource, VmStatus

ID = "a" * 32
RUNNING = VmStatus("running", "running", "", True)


class Target:
    """The target's API in memory."""

    def __init__(self):
        self.vms = {}
        self.configs = {}
        self.resources = []

    def vm_status(self, vmid, timeout=None, node=None):
        if vmid not in self.vms:
            raise VmAbsent("absent", object=f"VM {vmid}", status=500)
        return self.vms[vmid]

    def vm_config(self, vmid, node=None):
        return self.configs[vmid]

    def vm_resources(self):
        return self.resources

    def add(self, vmid, status, uuid=UUID, name="web01"):
        self.vms[vmid] = status
        self.configs[vmid] = {"smbios1": f"uuid={uuid}"}
        self.resources.append(VmResource(vmid, "beta1", name, status.status))


@pytest.fixture
def target(monkeypatch):
    target = Target()
    monkeypatch.setattr(engines, "_target", lambda _spec, _secret: target)
    return target


@pytest.fixture
def source(monkeypatch, tmp_path):
    monkeypatch.setattr(places, "LIBRARY", str(tmp_path / "lib"))
    monkeypatch.setattr(places, "RUN", str(tmp_path / "run"))
    cluster = Cluster()
    monkeypatch.setattr(engines, "SourceNode", lambda _vmid: cluster.source)
    return cluster


def journal_of(*records, **options):
    spec = spec_of(**options)
    os.makedirs(places.migration_directory(ID))
    journal = Journal(places.journal_path(ID))
    journal.record(
        "opened",
        format=FORMAT,
        migration_id=ID,
        spec=spec.to_dict(),
        spec_digest=spec.digest,
        uuid=UUID,
        time=1.0,
        phase="preflight",
    )
    for kind, fields in records:
        journal.record(kind, **fields)
    journal.close()


COMPLETED = [
    ("running", {"facts": {"run_state": "running"}}),
    ("reserving", {"vmid": 200}),
    ("phase", {"phase": "completed", "time": 2.0}),
]


def test_second_run_of_a_completed_move_changes_nothing(source, target):
    journal_of(*COMPLETED)
    source.qemu.alive = False
    target.add(200, RUNNING)
    result = engines.WorkerEngine().advance(spec_of(), "s", "completed")
    assert (result["changed"], result["finished"], result["phase"]) == (False, True, "completed")
    assert result["target"]["vmid"] == 200


def test_lock_that_was_left_is_told_until_it_is_gone(source, target):
    left = [{"kind": "lock", "node": "beta1", "vmid": 200, "lock": "migrate"}]
    journal_of(*COMPLETED[:-1], ("residue", {"objects": left}), COMPLETED[-1])
    source.qemu.alive = False
    target.add(200, VmStatus("running", "running", "migrate", True))
    assert engines.WorkerEngine().advance(spec_of(), "s", "completed")["residue"] == left
    target.vms[200] = RUNNING
    assert engines.WorkerEngine().advance(spec_of(), "s", "completed")["residue"] == []


def test_empty_or_damaged_journal_of_another_vm_does_not_stand_in_the_way(source, target):
    os.makedirs(places.migration_directory("b" * 32))
    journal_of(source={"vmid": 101})
    with open(places.journal_path(ID), "ab") as stream:
        stream.write(b"2 00000000 {}\n2 00000000 {}\n")
    source.qemu.alive = False
    target.add(200, RUNNING)
    assert engines.WorkerEngine().advance(spec_of(), "s", "completed")["changed"] is False


def test_move_under_way_with_another_spec_is_refused(source, target):
    journal_of(("phase", {"phase": "mirroring"}))
    with pytest.raises(SpecDiffers):
        engines.WorkerEngine().advance(spec_of(offline=True), "s", "completed")


def test_aborting_nothing_is_no_change(source, target):
    assert engines.WorkerEngine().abort(vmid=100)["changed"] is False


def test_asking_for_an_unknown_vm_says_so(source):
    with pytest.raises(NotFound):
        engines.WorkerEngine().info(vmid=100)


def test_migration_without_a_worker_is_told_from_its_journal(source):
    journal_of(("phase", {"phase": "mirroring"}))
    result = engines.WorkerEngine().info(vmid=100, journal=True)
    assert (result["phase"], result["finished"], result["error"]["code"]) == ("mirroring", True, "HELD")
    assert [record["kind"] for record in result["journal"]] == ["opened", "phase"]


def test_configuration_that_is_shown_hides_what_nobody_should_read():
    shown = engines._public(CONFIG + "cipassword: $5$abc\nsshkeys: ssh-rsa%20AAAA\n")
    assert "abc" not in shown
    assert "AAAA" not in shown
    assert "cipassword: (not shown)" in shown


@pytest.mark.parametrize("run_state", ["running", "stopped"])
def test_forward_asks_the_worker_only_for_a_running_vm_in_hold(source, monkeypatch, run_state):
    asked = []

    class Worker:
        def call(self, op, *_arguments):
            asked.append(op)
            return {"phase": "hold", "forward": True, "error": {"code": "HELD"}}

    monkeypatch.setattr(engines, "Client", lambda _path: contextlib.nullcontext(Worker()))
    journal_of(("running", {"facts": {"run_state": run_state}}), ("phase", {"phase": "hold"}))
    given = engines.WorkerEngine().forward(vmid=spec_of().vmid)
    assert (asked, given["forward"]) == ((["forward"], True) if run_state == "running" else ([], False))
    assert given["changed"] is bool(asked)
    assert given["error"] is None


class DyingClient:
    """A worker that dies in its first long poll; ``restarts`` says how many looks it takes until it is back."""

    restarts = 0
    down = 0

    def __init__(self, *_arguments):
        if DyingClient.down:
            DyingClient.down -= 1
            raise WorkerUnreachable("gone", side=Side.SOURCE, object="worker")

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        self.close()

    def close(self):
        pass

    def call(self, _op, wait=0.0, **_parameters):
        if wait:
            DyingClient.down = DyingClient.restarts
            raise WorkerUnreachable("killed", side=Side.SOURCE, object="worker")
        return {"phase": "mirroring", "finished": False, "error": None, "progress": {"version": 1}}


@pytest.fixture
def dying(source, monkeypatch):
    monkeypatch.setattr(engines, "Client", DyingClient)
    monkeypatch.setattr(engines.time, "sleep", lambda _seconds: None)
    journal_of(("phase", {"phase": "mirroring"}))
    return lambda restarts: monkeypatch.setattr(DyingClient, "restarts", restarts)


def test_worker_that_dies_while_it_is_listened_to_and_comes_back_is_not_gone(dying, monkeypatch):
    monkeypatch.setattr(engines, "_is_kept", lambda _id: True)
    dying(3)
    result = engines.WorkerEngine().poll(ID, "lease", 30.0)
    assert (result["finished"], result["error"], result["lease"]) == (False, None, "lease")


def test_worker_that_dies_and_is_not_started_again_is_gone(dying, monkeypatch):
    monkeypatch.setattr(engines, "_is_kept", lambda _id: False)
    dying(9)
    monkeypatch.setattr(DyingClient, "down", 0)
    assert engines.WorkerEngine().poll(ID, "lease", 30.0)["error"]["code"] == "HELD"


def test_attaching_to_a_worker_that_comes_back_starts_no_second_one(dying, target, monkeypatch):
    monkeypatch.setattr(engines, "_is_kept", lambda _id: True)
    monkeypatch.setattr(engines, "_start", lambda *_arguments: pytest.fail("a second worker"))
    monkeypatch.setattr(engines.WorkerEngine, "_wait_end", lambda *_arguments: {"phase": "completed"})
    dying(2)
    assert engines.WorkerEngine().advance(spec_of(), "s", "completed", wait=30.0)["phase"] == "completed"


@pytest.mark.parametrize(
    ("word", "kept"), [("active", True), ("activating", True), ("inactive", False), ("failed", False)]
)
def test_unit_that_systemd_starts_again_is_not_given_up(monkeypatch, word, kept):
    asked = []

    def run(argv, **_options):
        asked.append(argv)
        return subprocess.CompletedProcess(argv, 3, word.encode() + b"\n")

    monkeypatch.setattr(engines.os.path, "isdir", lambda path: path == "/run/systemd/system")
    monkeypatch.setattr(engines.subprocess, "run", run)
    assert engines._is_kept(ID) is kept
    assert asked == [["systemctl", "is-active", f"crosscluster-{ID}.service"]]
