# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The direct transports in the order of a migration, with the incoming worker played."""

from __future__ import annotations

import pytest
from unit.fakes import migration_run
from unit.fakes.migration_run import POINT, context_of, run
from unit.fakes.migration_world import Cluster, Crash, FakeTunnel

from ansible_collections.crosscluster.migration.plugins.module_utils.migration.machine import Machine
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.states import Phase
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.steps import STEPS
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.interface import EndReason, PumpEnd
from ansible_collections.crosscluster.migration.plugins.module_utils.transport.policy import Rejection

TLS = {"transports": ["tls"], "incoming": POINT}


@pytest.fixture
def cluster():
    return Cluster()


def kinds(context):
    return [record["kind"] for record in context.journal.records]


def test_vm_arrives_over_tls(cluster, tmp_path):
    context = run(cluster, tmp_path, **TLS)
    assert (context.facts.phase, context.facts.transport) == (Phase.COMPLETED, "tls")
    assert cluster.dialled == ["control", "scsi0", "ram"]
    assert [op for op, _values in cluster.incoming.calls if op != "state"] == ["attach", "seal", "bye"]
    assert cluster.incoming.closed


def test_everything_stands_before_anything_is_written(cluster, tmp_path):
    context = run(cluster, tmp_path, **TLS)
    assert kinds(context).index("standing") < kinds(context).index("locking")


def test_what_cannot_stand_is_refused_before_any_write(cluster, tmp_path):
    cluster.unreachable.add("ram")
    context = run(cluster, tmp_path, **TLS)
    assert (context.facts.phase, context.facts.error["code"]) == (Phase.ROLLED_BACK, "NO_TRANSPORT_USABLE")
    assert "locking" not in kinds(context)
    assert cluster.target.vms == {}
    assert all(pump.ended for pump in cluster.pumps)


def test_next_listed_transport_is_taken_and_the_reason_told(cluster, tmp_path):
    cluster.unreachable.add("control")
    context = run(cluster, tmp_path, transports=["tls", "tcp", "websocket"], incoming={**POINT, "planes": ["tls"]})
    assert (context.facts.phase, context.facts.transport) == (Phase.COMPLETED, "websocket")
    told = {entry["transport"]: entry["code"] for entry in context.facts.transports_rejected}
    assert told == {"tls": "PUMP_FAILED", "tcp": "INCOMING_REFUSES"}


def test_code_of_a_refused_stream_is_that_of_its_transport(cluster, tmp_path):
    cluster.unreachable.add("control")
    cluster.refusal = "NETWORK_CHANGED"
    context = run(cluster, tmp_path, transports=["tls", "websocket"], incoming=POINT)
    assert [entry["code"] for entry in context.facts.transports_rejected] == ["NETWORK_CHANGED"]


def test_stream_that_breaks_while_it_waits_ends_the_migration(cluster, tmp_path):
    cluster.faults.before = lambda command: (
        command == "start" and setattr(cluster.pumps[-1], "ended", PumpEnd(EndReason.PEER_SILENT, False))
    )
    context = run(cluster, tmp_path, **TLS)
    assert (context.facts.phase, context.facts.error["code"]) == (Phase.ROLLED_BACK, "TRANSFER_FAILED")
    assert cluster.qemu.state == "running"


def test_what_a_lost_channel_leaves_is_removed_over_control(cluster, tmp_path):
    def lose(command):
        if command == "start":
            cluster.target.connection.drop()

    cluster.faults.before = lose
    context = run(cluster, tmp_path, **TLS)
    assert (context.facts.phase, context.facts.residue) == (Phase.ROLLED_BACK, [])
    assert cluster.target.vms == {}
    removed = dict(cluster.incoming.calls)["remove"]["recorded"]
    assert (removed["vmid"], removed["commit_intent"]) == (200, False)


@pytest.mark.parametrize("fault", ["lose_channel_at", "silent_at"])
def test_channel_that_is_lost_behind_the_intent_is_replaced_by_control(cluster, tmp_path, fault):
    """Neither hold nor residue: the target is resumed, and later unlocked, by its own node."""
    setattr(cluster.faults, fault, "resume")
    began = cluster.clock.now
    context = run(cluster, tmp_path, **TLS)
    assert (context.facts.phase, context.facts.residue) == (Phase.COMPLETED, [])
    assert (cluster.target.qemu, cluster.qemu.alive, cluster.target.vms[200]["lock"]) == ("running", False, "")
    written = kinds(context)
    assert written.count("COMMIT_INTENT") == 2
    # What leads back is given up before the intent by which it is asked for.
    assert written.index("forward") < len(written) - 1 - written[::-1].index("COMMIT_INTENT")
    assert cluster.clock.now - began < 60.0


def falls_silent(cluster, at):
    """From that command on nothing of the target's API answers; the workers still talk."""

    def silence(command):
        cluster.faults.api_down = cluster.faults.api_down or command == at

    cluster.faults.before = silence


def test_api_that_falls_silent_behind_the_intent_is_replaced_by_control(cluster, tmp_path):
    """The tunnel's task outlives the connection that fell silent: its node ends it, and sees its end."""
    falls_silent(cluster, "resume")
    cluster.faults.silent_at = "resume"
    began = cluster.clock.now
    context = run(cluster, tmp_path, **TLS)
    assert (context.facts.phase, context.facts.residue) == (Phase.COMPLETED, [])
    assert (cluster.target.qemu, cluster.qemu.alive, cluster.target.vms[200]["lock"]) == ("running", False, "")
    asked = [op for op, _values in cluster.incoming.calls]
    assert asked.index("end_task") < asked.index("resume")
    assert cluster.clock.now - began < 60.0


def test_reply_is_not_waited_for_long_where_control_can_be_asked(tmp_path, monkeypatch):
    """The guest stands still meanwhile; without control nothing but the reply tells anything soon."""
    waits = []
    resume = FakeTunnel.resume
    monkeypatch.setattr(FakeTunnel, "resume", lambda self, timeout=None: (waits.append(timeout), resume(self)))
    for place, options in (("tls", TLS), ("websocket", {})):
        (tmp_path / place).mkdir()
        run(Cluster(), tmp_path / place, **options)
    assert waits == [12.0, None]


def test_resume_that_was_executed_is_seen_over_control(cluster, tmp_path):
    falls_silent(cluster, "resume")
    cluster.faults.silent_reply_of = "resume"
    context = run(cluster, tmp_path, **TLS)
    assert (context.facts.phase, context.facts.residue) == (Phase.COMPLETED, [])
    assert context.facts.proof["target"] == "observed running, by its own node, over control"
    assert (cluster.target.vms[200]["lock"], cluster.target.task_running) == ("", False)
    assert "forward" not in kinds(context)


def test_control_that_does_not_answer_leaves_the_word_to_the_api(cluster, tmp_path):
    cluster.faults.lose_reply_of = "resume"
    cluster.incoming.loses_answer_of = "state"
    context = run(cluster, tmp_path, **TLS)
    assert context.facts.phase is Phase.COMPLETED
    assert context.facts.proof["target"] == "observed running, with QMP-derived fields"


def test_way_back_without_the_api_leaves_nothing_either(cluster, tmp_path):
    """``control`` alone proves that the guest never ran there, and removes what is left (issue 5.2)."""
    crash_at(cluster, tmp_path, "COMMIT_INTENT")
    cluster.faults.api_down = True
    context = run(cluster, tmp_path, **TLS)
    assert (context.facts.phase, context.facts.residue, cluster.target.ever_ran) == (Phase.ROLLED_BACK, [], False)
    assert (cluster.qemu.state, cluster.target.vms, cluster.target.volumes) == ("running", {}, [])
    assert context.facts.proof == {"task": "ended", "resume_in_log": False, "target": "paused"}


def test_channel_and_api_that_are_lost_before_the_intent_leave_nothing(cluster, tmp_path):
    falls_silent(cluster, "start")
    cluster.faults.silent_at = "start"
    context = run(cluster, tmp_path, **TLS)
    assert (context.facts.phase, context.facts.residue, cluster.qemu.state) == (Phase.ROLLED_BACK, [], "running")
    assert (cluster.target.vms, cluster.target.task_running) == ({}, False)


def test_target_that_ran_already_is_not_resumed_again(cluster, tmp_path):
    cluster.faults.lose_reply_of = "resume"
    context = run(cluster, tmp_path, **TLS)
    assert (context.facts.phase, context.facts.residue) == (Phase.COMPLETED, [])
    assert "forward" not in kinds(context)
    assert [values["recorded"]["source_fenced"] for op, values in cluster.incoming.calls if op == "resume"] == [True]


def test_resume_over_control_without_an_answer_never_leads_back(cluster, tmp_path):
    cluster.faults.lose_channel_at = "resume"
    cluster.incoming.loses_answer_of = "resume"
    context = run(cluster, tmp_path, **TLS)
    assert (context.facts.phase, cluster.target.qemu) == (Phase.COMPLETED, "running")
    assert not cluster.qemu.alive


def test_target_lost_before_control_was_asked_gives_the_guest_back(cluster, tmp_path):
    """I4: the task has ended, its log has no resume, the target is gone."""
    cluster.faults.lose_channel_at = "resume"
    cluster.faults.target_qemu_dies_at = "resume"
    context = run(cluster, tmp_path, **TLS)
    assert (context.facts.phase, context.facts.residue) == (Phase.ROLLED_BACK, [])
    assert (cluster.qemu.state, cluster.target.ever_ran, cluster.target.vms) == ("running", False, {})


def test_source_that_was_let_run_meanwhile_keeps_the_guest(cluster, tmp_path):
    def let_run(command):
        if command == "resume":
            cluster.qemu.state = "running"

    cluster.faults.before = let_run
    cluster.faults.lose_channel_at = "resume"
    context = run(cluster, tmp_path, **TLS)
    assert (context.facts.phase, cluster.running, cluster.target.ever_ran) == (Phase.ROLLED_BACK, 1, False)


def crash_at(cluster, tmp_path, kind, **fields):
    """A worker that dies right behind a record, and with it the connection to Proxmox's task."""

    class Dying(migration_run.CrashingJournal):
        def record(self, written, **values):
            entry = super().record(written, **values)
            if written == kind and fields.items() <= values.items():
                raise Crash
            return entry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(migration_run, "CrashingJournal", Dying)
        context = context_of(cluster, tmp_path, **TLS)
    with pytest.raises(Crash):
        Machine(context, STEPS).run(restarted=len(context.journal.records) > 1)
    context.journal.close()
    cluster.worker_dies()


@pytest.mark.parametrize("phase", ["locked", "reserved", "allocated", "mirroring", "precopy", "switchover"])
def test_worker_that_was_started_again_leaves_nothing(cluster, tmp_path, phase):
    crash_at(cluster, tmp_path, "phase", phase=phase)
    context = run(cluster, tmp_path, **TLS)
    assert (context.facts.phase, context.facts.residue, cluster.qemu.state) == (Phase.ROLLED_BACK, [], "running")
    assert (cluster.target.vms, cluster.target.volumes, cluster.target.qemu) == ({}, [], "")
    assert [stream for stream in cluster.streams if "control" in stream] == ["control", "control.2"]
    assert cluster.incoming.calls[-1][0] == "bye"


def test_third_worker_has_a_name_of_its_own(cluster, tmp_path):
    crash_at(cluster, tmp_path, "phase", phase="mirroring")
    crash_at(cluster, tmp_path, "source_state")
    context = run(cluster, tmp_path, **TLS)
    assert (context.facts.phase, context.facts.residue) == (Phase.ROLLED_BACK, [])
    assert cluster.streams[-1] == "control.2"  # the second worker did not come so far


def test_name_in_the_journal_counts_as_used(cluster, tmp_path):
    crash_at(cluster, tmp_path, "phase", phase="mirroring")
    crash_at(cluster, tmp_path, "control", number=2)
    run(cluster, tmp_path, **TLS)
    assert cluster.streams[-1] == "control.3"


@pytest.mark.parametrize("kind", ["COMMITTED", "SOURCE_FENCED"])
def test_worker_that_was_started_again_behind_the_commit_takes_the_lock_off(cluster, tmp_path, kind):
    crash_at(cluster, tmp_path, kind)
    context = run(cluster, tmp_path, **TLS)
    assert (context.facts.phase, context.facts.residue) == (Phase.COMPLETED, [])
    assert (cluster.target.vms[200]["lock"], cluster.running, cluster.qemu.alive) == ("", 1, False)


def test_worker_that_was_started_again_behind_the_intent_proves_who_owns_the_guest(cluster, tmp_path):
    """It does not know any more what the VM was like (I2), so it goes back on proof (I4), and leaves nothing."""
    crash_at(cluster, tmp_path, "COMMIT_INTENT")
    context = run(cluster, tmp_path, **TLS)
    assert (context.facts.phase, context.facts.residue, cluster.target.ever_ran) == (Phase.ROLLED_BACK, [], False)
    assert (cluster.qemu.state, cluster.target.vms) == ("running", {})


def test_incoming_worker_that_is_gone_is_looked_for_a_few_seconds(cluster, tmp_path):
    crash_at(cluster, tmp_path, "phase", phase="precopy")
    cluster.unreachable.add("control")
    began = cluster.clock.now
    context = run(cluster, tmp_path, **TLS)
    assert context.facts.phase is Phase.ROLLED_BACK
    assert [entry["kind"] for entry in context.facts.residue] == ["vm", "volume", "task"]
    assert cluster.clock.now - began < 30.0
    assert set(cluster.streams[-2:]) == {"control.2"}  # a name that nobody took is tried again


def test_control_that_the_network_took_is_dialled_again(cluster, tmp_path):
    """Everything was silent for a while, so everything was cut; Proxmox's channel as well."""

    def cut(command):
        if command == "start":
            cluster.target.connection.drop()
            for pump in cluster.pumps:
                pump.ended = PumpEnd(EndReason.PEER_SILENT, False)

    cluster.faults.before = cut
    context = run(cluster, tmp_path, **TLS)
    assert (context.facts.phase, context.facts.residue) == (Phase.ROLLED_BACK, [])
    assert cluster.streams[-1] == "control.2"


def test_next_transport_has_a_control_of_its_own(cluster, tmp_path):
    cluster.unreachable.add("disk/scsi0")
    point = {**POINT, "rejected": {}}
    context = run(cluster, tmp_path, transports=["tls", "qemu-tls"], incoming=point)
    assert context.facts.phase is Phase.ROLLED_BACK
    assert [stream for stream in cluster.streams if "control" in stream] == ["control", "control.2"]


def test_no_rate_is_guessed_where_the_peer_tells_what_it_took(cluster, tmp_path):
    context = context_of(cluster, tmp_path, **TLS)
    assert context.stream_rate() is None
    context.ram_limit = 5000
    assert context.stream_rate() == 5000


def test_certificate_that_will_not_do_for_the_next_listed_transport_is_found_again(cluster, tmp_path):
    """``tls`` fails only when it is dialled: what was found before the worker began holds for the one after it."""
    cluster.unreachable.add("control")
    cluster.bad_credentials["qemu-tls"] = Rejection("CREDENTIALS_UNUSABLE", "its subject is not CN=a1 alone")
    context = run(cluster, tmp_path, transports=["tls", "qemu-tls", "websocket"], incoming={**POINT, "planes": ["tls"]})
    assert (context.facts.phase, context.facts.transport) == (Phase.COMPLETED, "websocket")
    told = {entry["transport"]: entry["code"] for entry in context.facts.transports_rejected}
    assert told == {"tls": "PUMP_FAILED", "qemu-tls": "CREDENTIALS_UNUSABLE"}
    assert cluster.dialled == ["control"]
