# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What two people, two controllers, a stopped worker or a guest's own will can do in between: found in a review."""

from __future__ import annotations

import os

import pytest
from unit.fakes import migration_world
from unit.fakes.migration_run import after_intent, context_of, run, run_with_crash, spec_of
from unit.fakes.migration_world import CONFIG, UPID, Cluster

from ansible_collections.crosscluster.migration.plugins.module_utils.errors import Side
from ansible_collections.crosscluster.migration.plugins.module_utils.migration import (
    commit,
    engines,
    places,
    worker,
)
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.errors import Held
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.history import Facts
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.journal import Journal
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.machine import Machine
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.states import Outcome, Phase
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.steps import STEPS
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox import errors as perr
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox import target_api


class Stuck(BaseException):
    pass


def bounded(context, n=60):
    left = [n]
    sleep = context.world.clock.sleep

    def rest(seconds):
        left[0] -= 1
        if left[0] < 0:
            raise Stuck
        sleep(seconds)

    context.rest = rest
    return context


def machine_run(context):
    Machine(context, STEPS).run()
    return context


def test_worker_stopped_inside_the_intent_record(tmp_path):
    """SIGSTOP for an hour in write/fsync of COMMIT_INTENT: `resume` must not be sent before both sides are read."""
    cluster = Cluster()
    context = context_of(cluster, tmp_path)
    record = context.journal.record
    sent_after = []

    def slow(kind, **fields):
        entry = record(kind, **fields)
        if kind == "COMMIT_INTENT" and context.facts.intents == 0:
            cluster.clock.now += 3600.0
            cluster.qemu.state = "running"  # a person took the lock away and resumed the frozen source meanwhile
            cluster.source.lock = ""
        return entry

    context.journal.record = slow
    cluster.faults.before = lambda name: sent_after.append(cluster.running) if name == "resume" else None
    machine_run(bounded(context))
    assert cluster.running <= 1
    assert not cluster.target.ever_ran


def test_still_loaded_must_look_at_the_source(tmp_path):
    """The intent's deadline passed, the source was resumed by hand meanwhile (lock kept: --skiplock)."""
    cluster = Cluster()
    context = context_of(cluster, tmp_path)

    def slow():
        cluster.clock.now += 3600.0
        cluster.qemu.state = "running"

    after_intent(context, slow)
    machine_run(bounded(context))
    assert cluster.running <= 1
    assert not cluster.target.ever_ran


def test_lock_taken_away_before_the_commit(tmp_path):
    cluster = Cluster()
    cluster.faults.before = lambda name: setattr(cluster.source, "lock", "") if name == "nbdstop" else None
    context = run(cluster, tmp_path)
    assert context.facts.phase is Phase.ROLLED_BACK  # not committed with an unlocked, startable source


def test_foreign_lock_word_migrate_is_removed(tmp_path):
    """`qm set --lock` lost the race against another tool's `qm set --lock migrate`."""
    cluster = Cluster()

    def set_lock():
        cluster.source.lock = "migrate"
        raise perr.LockForeign("locked (migrate)", side=Side.SOURCE, object="VM 100")

    cluster.source.set_lock = set_lock
    run(cluster, tmp_path)
    assert cluster.source.lock == "migrate"  # not ours


def test_backup_lock_makes_the_rollback_endless(tmp_path):
    cluster = Cluster()

    def set_lock():
        cluster.source.lock = "backup"
        raise perr.LockForeign("locked (backup)", side=Side.SOURCE, object="VM 100")

    def unlock():  # NodeCli.unlock_own
        if cluster.source.lock and cluster.source.lock != "migrate":
            raise perr.LockForeign("locked (backup)", side=Side.SOURCE, object="VM 100")
        cluster.source.lock = ""

    cluster.source.set_lock, cluster.source.unlock = set_lock, unlock
    context = bounded(context_of(cluster, tmp_path))
    machine_run(context)
    assert context.facts.phase is Phase.ROLLED_BACK
    assert cluster.source.lock == "backup"


def offline_cluster():
    cluster = Cluster()
    cluster.qemu.alive = False
    cluster.source.volume_list = lambda storages: {"local:100/vm-100-disk-0.raw": {"size": 64 << 20, "format": "raw"}}
    return cluster


def test_offline_source_started_during_the_copy(tmp_path):
    cluster = offline_cluster()
    context = context_of(cluster, tmp_path, offline=True)
    steps = dict(STEPS)

    def allocate(context):
        volume = context.plan.volumes[0]
        context.note("volume", key=volume.key, storage="fast", volid="fast:200/vm-200-disk-0.raw", drive="x,size=64M")
        cluster.qemu.alive, cluster.qemu.state = True, "running"  # somebody unlocked and started it
        cluster.source.ha = "started"
        return Outcome.OK

    steps[Phase.RESERVED] = allocate
    steps[Phase.ALLOCATED] = lambda context: (context.require_tunnel().config("x"), Outcome.OK)[1]
    Machine(bounded(context), steps).run()
    assert cluster.qemu.alive, "the running source was stopped: everything written since the export is lost"
    assert context.facts.phase is Phase.ROLLED_BACK


def test_source_gone_and_target_loaded_is_no_way_back(tmp_path):
    """safety 5: process gone | paused, completed | with intent: T, forward. Not NEVER_RAN -> removed."""
    cluster = Cluster()

    def before(name):
        if name == "resume":
            cluster.qemu.alive = False  # the source node kills its QEMU (OOM) just now

    cluster.faults.before = before
    cluster.faults.lose_channel_at = "resume"
    context = bounded(context_of(cluster, tmp_path), 20)
    with pytest.raises(Stuck):
        machine_run(context)
    assert context.facts.phase is Phase.HOLD
    assert cluster.source.lock == "migrate"


def worker_of(context):
    it = object.__new__(worker.Worker)
    it.context, it.facts, it.requests, it.progress = context, context.facts, context.requests, context.progress
    it.spec = context.spec
    return it


@pytest.mark.parametrize("phase", [Phase.LOCKED, Phase.HOLD, Phase.COMMITTED, Phase.CLEANUP])
def test_restarted_worker_says_finished(tmp_path, phase):
    """A restarted worker has nobody's goal yet; the poll of the waiting play must not read `finished, no error`."""
    context = context_of(Cluster(), tmp_path, goal=Phase.PREFLIGHT)
    context.facts.phase = phase
    result = worker_of(context)._poll({"lease": "of the play"})
    assert not (result["finished"] and result["error"] is None)


def test_guest_off_between_last_look_and_stop(tmp_path):
    """QEMU: shutdown -> finish-migrate (no STOP event) -> postmigrate; the target ends `shutdown`. No `cont`."""
    cluster = Cluster()
    load = cluster.target.load

    def off():
        load()
        cluster.target.qemu = "shutdown"

    cluster.target.load = off
    context = run(cluster, tmp_path)
    assert context.facts.phase is Phase.ROLLED_BACK
    assert "cont" not in cluster.qemu.commands


def test_end_of_a_task_that_does_not_end_is_bounded(tmp_path):
    cluster = Cluster()
    cluster.faults.lose_channel_at = "nbdstop"
    deletes = []

    def status(upid):
        return target_api.TaskStatus(True, "")

    def delete(upid):
        deletes.append(upid)
        if len(deletes) > 20:
            raise Stuck

    cluster.target.task_status, cluster.target.delete_task = status, delete
    context = bounded(context_of(cluster, tmp_path))
    machine_run(context)
    assert context.facts.phase is Phase.ROLLED_BACK
    assert context.facts.residue


def test_foreign_tunnel_task_is_ended(tmp_path):
    """POST got no answer (it was refused: another migration of the same token took the VMID a moment before)."""
    cluster = Cluster()
    deleted = []
    cluster.target.delete_task = lambda upid: (deleted.append(upid), setattr(cluster.target, "task_running", False))

    def post(vmid, storages, bridges):
        cluster.target.vms[200] = {"lock": "migrate"}
        cluster.target.task_running = True
        cluster.target.log = ["mtunnel started", "received command 'version'", "received command 'disk'"]
        raise perr.ApiOutcomeUnknown("no answer", object="mtunnel", status=0)

    cluster.target.open_tunnel = post
    run(cluster, tmp_path)
    assert deleted == []


def test_cleanup_with_a_target_that_moved_on(tmp_path):
    """The target cluster moves or removes the VM right after `unlock`: CLEANUP must end."""
    cluster = Cluster()
    context = bounded(context_of(cluster, tmp_path))
    status = cluster.target.vm_status

    def vm_status(vmid, timeout=None):
        if context.facts.phase is Phase.CLEANUP:
            raise perr.VmAbsent("absent", object="VM 200", status=500)
        return status(vmid)

    cluster.target.vm_status = vm_status
    machine_run(context)
    assert context.facts.phase is Phase.COMPLETED


def test_source_state_of_a_refused_vm(tmp_path):
    cluster = Cluster()
    cluster.source.ha = "started"  # became an HA resource between the module's look and the worker's
    context = run(cluster, tmp_path)
    assert context.facts.phase is Phase.ROLLED_BACK
    assert context.facts.source_state != "stopped"  # it runs


def test_error_after_hold_that_ended_with_the_source(tmp_path, monkeypatch):
    cluster = Cluster()
    cluster.faults.silent_reply_of = "resume"
    cluster.faults.refuse = {}

    # executed by nobody: the config lock timed out, the reply never came (pve-cli 3, 12 s row)

    def resume(self, timeout=None):
        self._command("resume", lambda: None)

    monkeypatch.setattr(migration_world.FakeTunnel, "resume", resume)
    context = run(cluster, tmp_path)
    assert context.facts.phase is Phase.ROLLED_BACK
    assert cluster.qemu.state == "running"
    code = (context.facts.error or {}).get("code")
    cause = ((context.facts.error or {}).get("facts") or {}).get("cause") or {}
    assert "HELD" not in (code, cause.get("code"))


def test_abort_accepted_in_switchover_is_honoured(tmp_path):
    cluster = Cluster()
    context = context_of(cluster, tmp_path)
    it = worker_of(context)

    def before(name):
        if name == "nbdstop":
            it._abort({})  # answered without TOO_LATE

    cluster.faults.before = before
    machine_run(bounded(context))
    assert context.facts.phase is Phase.ROLLED_BACK


def test_residue_error_does_not_nest(tmp_path):
    cluster = Cluster()
    cluster.faults.lose_channel_at = "nbdstop"
    tries = [0]

    def unlock():
        tries[0] += 1
        if tries[0] < 8:
            raise perr.NodeCommandFailed("flock timeout", side=Side.SOURCE, object="x")
        cluster.source.lock = ""

    cluster.source.unlock = unlock
    context = bounded(context_of(cluster, tmp_path))
    machine_run(context)
    depth, error = 0, context.facts.error
    while error:
        depth, error = depth + 1, (error.get("facts") or {}).get("cause")
    assert depth <= 2


@pytest.mark.parametrize("state", ["shutdown", "io-error", "guest-panicked"])
def test_answered_resume_then_guest_ends_is_a_commit(tmp_path, monkeypatch, state):
    cluster = Cluster()
    fake = migration_world.FakeTunnel
    real = fake.resume

    def resume(self, timeout=None):
        real(self, timeout)
        cluster.target.qemu = state

    monkeypatch.setattr(fake, "resume", resume)
    context = bounded(context_of(cluster, tmp_path), 40)
    machine_run(context)
    assert context.facts.phase is Phase.COMPLETED
    assert cluster.target.vms[200]["lock"] == ""


def test_stop_refused_does_not_skip_quit(tmp_path):
    """`stop` answered with an error on a sound channel (e.g. config flock): quit cleanup must still be tried."""
    cluster = Cluster()
    cluster.faults.mirror_error = "No space left on device"
    cluster.faults.refuse = {"stop": "can't lock file '/var/lock/qemu-server/lock-200.conf' - got timeout"}
    seen = []
    cluster.faults.before = seen.append
    run(cluster, tmp_path)
    assert seen.count("stop") > 1 or "quit" in seen


def test_unlock_refused_once_is_tried_again(tmp_path):
    cluster = Cluster()
    text = "can't lock file '/var/lock/qemu-server/lock-200.conf' - got timeout"
    cluster.faults.refuse = {"unlock": text}
    seen = []

    def before(name):
        seen.append(name)
        if seen.count("unlock") > 1:
            cluster.faults.refuse = {}

    cluster.faults.before = before
    context = run(cluster, tmp_path)
    assert context.facts.phase is Phase.COMPLETED
    assert cluster.target.vms[200]["lock"] == ""


def test_vm_moved_there_and_back_can_move_again(monkeypatch):
    """Journal COMPLETED, the VM came home by other means and runs here; the target's copy was deleted."""
    spec = spec_of()

    class Target:
        def vm_status(self, vmid):
            raise perr.VmAbsent("absent", object="VM 200", status=500)

        def vm_resources(self):
            return []

    class Source:
        def __init__(self, *_a):
            pass

        def qemu_alive(self):
            return True

        def config(self):
            return CONFIG.encode()

    monkeypatch.setattr(engines, "_target", lambda *_a: Target())
    monkeypatch.setattr(engines, "SourceNode", Source)
    facts = Facts(migration_id="a" * 32, spec=spec, phase=Phase.COMPLETED, target_vmid=200)
    assert engines.WorkerEngine()._arrived(spec, "s", facts, []) is None


def test_api_silent_after_completed_frees_the_guest_in_time(tmp_path):
    """The network goes silent between `completed` and the look at the target: Session waits 30 s for it."""
    cluster = Cluster()
    context = context_of(cluster, tmp_path)

    real = cluster.target.vm_status

    def vm_status(vmid, **_k):
        if cluster.target.qemu != "paused":
            return real(vmid)
        cluster.clock.sleep(min(30.0, _k.get("timeout", 30.0)))
        raise perr.ApiOutcomeUnknown("no answer", object="api", status=0)

    cluster.target.vm_status = vm_status
    resumed = []
    cont = cluster.qemu.cont
    cluster.qemu.cont = lambda a: (resumed.append(cluster.clock.now), cont(a))
    machine_run(bounded(context))
    assert resumed
    assert resumed[0] - context.stopped_at <= 12.0


@pytest.mark.parametrize("at", [2, 3, 4, 5])
def test_rollback_after_a_restart_tells_an_error(tmp_path, at):
    """Otherwise the polling play reads finished=True, error=None, phase=rolled_back: success without a move."""
    cluster = Cluster()
    assert run_with_crash(cluster, tmp_path, at, after=True)
    context = run(cluster, tmp_path)
    assert context.facts.phase is Phase.ROLLED_BACK
    assert context.facts.error is not None


def test_the_loser_of_two_starts_leaves_no_open_journal(tmp_path, monkeypatch):
    """Two controllers begin at once: the second worker finds the VM's lock taken; its journal must not be `newest`."""
    monkeypatch.setattr(places, "LIBRARY", str(tmp_path / "lib"))
    monkeypatch.setattr(places, "RUN", str(tmp_path / "run"))
    spec = spec_of()
    for index, name in enumerate(("a" * 32, "b" * 32)):
        os.makedirs(places.migration_directory(name))
        j = Journal(places.journal_path(name))
        j.record(
            "opened",
            format=1,
            migration_id=name,
            spec=spec.to_dict(),
            spec_digest=spec.digest,
            uuid="u",
            phase="preflight",
            time=float(index),
        )
        if index == 0:
            j.record("phase", phase="mirroring")
        j.close()
    winner = places.VmLock(spec.vmid)
    assert winner.take()
    monkeypatch.setattr(worker, "log_to", lambda _path, _size: None)
    worker._run("b" * 32)
    winner.release()
    assert places.newest(vmid=spec.vmid).migration_id == "a" * 32 or places.read_facts("b" * 32).final


def test_another_vm_of_that_number_is_no_proof(tmp_path):
    """HOLD for hours; a person removed the leftover and uses VMID 200 for another VM, which runs."""
    cluster = Cluster()
    context = context_of(cluster, tmp_path)
    context.note("running", facts={"run_state": "running"})
    context.note("reserving", vmid=200)
    context.note("tunnel", upid=UPID.format(vmid=200))
    context.note("COMMIT_INTENT", phase="committing")
    context.note("phase", phase="hold")
    cluster.target.vms[200] = {"lock": "", "smbios1": "uuid=11111111-2222-4333-8444-555555555555"}
    cluster.target.qemu = "running"
    try:
        outcome = commit.read_back(context)
    except Held:
        return
    assert outcome is not Outcome.TARGET_RUNS  # else the source, the only copy, is stopped


def test_intent_too_old_and_vm_changed_goes_back(tmp_path):
    """resume was never sent and the channel lives: HA added meanwhile means back to the source, not HOLD for ever."""
    cluster = Cluster()
    context = context_of(cluster, tmp_path)

    def slow():
        cluster.clock.now += 60.0
        cluster.source.ha = "started"

    after_intent(context, slow)
    machine_run(bounded(context))
    assert context.facts.phase is Phase.ROLLED_BACK
    assert cluster.running == 1


def test_a_live_worker_takes_a_new_secret(tmp_path, monkeypatch):
    """Token rotated, or the worker was started by an abort without a secret: the next run must be able to help it."""
    sent = {}

    class Client:
        def __init__(self, *_a):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_a):
            pass

        def call(self, op, *_a, **parameters):
            sent.update(parameters)
            return {"finished": True, "phase": "hold", "progress": {}}

    monkeypatch.setattr(engines, "Client", Client)
    spec = spec_of()
    facts = Facts(migration_id="a" * 32, spec=spec, phase=Phase.HOLD)
    engines.WorkerEngine()._attach(spec, "new-secret", facts, "completed", "lease", 0.0)
    assert "new-secret" in sent.values()
