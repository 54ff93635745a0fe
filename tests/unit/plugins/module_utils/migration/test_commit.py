# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What HOLD concludes from the target, row by row of the read-back table (safety 5, I4)."""

from __future__ import annotations

import pytest
from unit.fakes.migration_run import context_of, run
from unit.fakes.migration_world import UPID, Cluster

from ansible_collections.crosscluster.migration.plugins.module_utils.migration import commit
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.errors import Held
from ansible_collections.crosscluster.migration.plugins.module_utils.migration.states import Outcome, Phase
from ansible_collections.crosscluster.migration.plugins.module_utils.proxmox.target_api import VmStatus

RESUME = "received command 'resume'"


def held(tmp_path, status, log=(), run_state="running", task_running=False):
    """A context in HOLD whose worker has no channel any more."""
    cluster = Cluster()
    context = context_of(cluster, tmp_path)
    context.remember("running", facts={"run_state": run_state})
    context.remember("reserving", vmid=200)
    context.remember("tunnel", upid=UPID.format(vmid=200))
    cluster.target.log, cluster.target.task_running = list(log), task_running
    cluster.target.vms[200] = {"lock": status.lock if status else "", "conf": "of this VM"}
    cluster.qemu.state = "postmigrate"
    if status is None:
        cluster.target.vms.clear()
    else:
        cluster.target.vm_status = lambda _vmid, timeout=None: status
    return cluster, context


def vm(qmpstatus, lock="migrate", genuine=True):
    return VmStatus("stopped" if qmpstatus == "stopped" else "running", qmpstatus, lock, genuine)


ROWS = [
    ("running", vm("running"), [RESUME], "running", Outcome.TARGET_RUNS),
    ("running without a word in the log", vm("running"), [], "running", Outcome.TARGET_RUNS),
    ("paused, resume arrived but not done", vm("paused"), [RESUME], "running", Outcome.NEVER_RAN),
    ("paused, resume never arrived", vm("paused"), [], "running", Outcome.NEVER_RAN),
    ("inmigrate, resume never arrived", vm("inmigrate"), [], "running", Outcome.NEVER_RAN),
    ("gone, resume never arrived", None, [], "running", Outcome.NEVER_RAN),
    ("gone, resume arrived", None, [RESUME], "running", Outcome.TARGET_LOST),
    ("stopped, resume arrived", vm("stopped", genuine=False), [RESUME], "running", Outcome.TARGET_LOST),
    ("paused VM is there", vm("paused"), [], "paused", Outcome.TARGET_RUNS),
    ("stopped VM still locked", vm("stopped", genuine=False), [], "stopped", Outcome.NEVER_RAN),
    ("stopped VM unlocked", vm("stopped", lock="", genuine=False), [], "stopped", Outcome.TARGET_RUNS),
]


@pytest.mark.parametrize(
    ("status", "log", "run_state", "outcome"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_hold_concludes(tmp_path, status, log, run_state, outcome):
    _cluster, context = held(tmp_path, status, log, run_state)
    assert commit.read_back(context) is outcome
    assert context.facts.proof


FORWARD = [
    ("it runs there", vm("running"), [], Outcome.TARGET_RUNS),
    ("it ran or did not, and is gone", None, [], Outcome.TARGET_LOST),
    ("its QEMU is gone", vm("stopped", genuine=False), [], Outcome.TARGET_LOST),
]


@pytest.mark.parametrize(("status", "log", "outcome"), [row[1:] for row in FORWARD], ids=[row[0] for row in FORWARD])
def test_hold_given_over_to_the_target_concludes(tmp_path, status, log, outcome):
    _cluster, context = held(tmp_path, status, log)
    context.requests.ask_forward()
    assert commit.read_back(context) is outcome
    assert context.facts.forward


@pytest.mark.parametrize("status", [vm("paused"), vm("inmigrate")], ids=["paused", "inmigrate"])
def test_hold_given_over_to_the_target_never_goes_back(tmp_path, status):
    """Somebody who is root there may be about to resume it: what proved NEVER_RAN a moment ago proves nothing now."""
    _cluster, context = held(tmp_path, status)
    context.requests.ask_forward()
    with pytest.raises(Held):
        commit.read_back(context)
    context.requests.forward = False  # another worker, which knows only the journal
    with pytest.raises(Held):
        commit.read_back(context)


@pytest.mark.parametrize("run_state", ["stopped", "paused"])
def test_a_vm_that_nobody_resumes_is_not_given_over(tmp_path, run_state):
    _cluster, context = held(tmp_path, vm("stopped", genuine=False), run_state=run_state)
    context.requests.ask_forward()
    assert commit.read_back(context) is Outcome.NEVER_RAN
    assert not context.facts.forward


UNDECIDED = [
    ("monitor silent", vm("running", genuine=False), []),
    ("paused and unlocked by somebody", vm("paused", lock=""), []),
    ("inmigrate, resume arrived", vm("inmigrate"), [RESUME]),
]


@pytest.mark.parametrize(("status", "log"), [row[1:] for row in UNDECIDED], ids=[row[0] for row in UNDECIDED])
def test_hold_stays_when_nothing_is_proven(tmp_path, status, log):
    _cluster, context = held(tmp_path, status, log)
    with pytest.raises(Held):
        commit.read_back(context)


def test_running_fallback_of_a_busy_monitor_is_never_taken_for_running(tmp_path):
    _cluster, context = held(tmp_path, vm("running", genuine=False), [RESUME])
    with pytest.raises(Held):
        commit.read_back(context)


def test_task_that_outlives_its_connection_is_waited_for_and_then_ended(tmp_path):
    cluster, context = held(tmp_path, vm("paused"), [], task_running=True)
    with pytest.raises(Held):
        commit.read_back(context)
    assert cluster.target.task_running
    cluster.clock.sleep(16)
    assert commit.read_back(context) is Outcome.NEVER_RAN
    assert not cluster.target.task_running


def test_log_is_read_only_after_the_task_has_ended(tmp_path):
    """A buffered resume runs after its connection is gone, up to 10 s later (pve-cli 3)."""
    cluster, context = held(tmp_path, vm("paused"), [], task_running=True)
    cluster.target.task_log = lambda _upid: pytest.fail("read while the task runs")
    with pytest.raises(Held):
        commit.read_back(context)


def test_intent_of_another_process_is_never_followed_by_resume(tmp_path):
    cluster, context = held(tmp_path, vm("paused"))
    assert context.intent_at is None
    assert commit.commit(context) is Outcome.UNKNOWN
    assert cluster.target.log == []


LOCK_BUSY = "can't lock file '/var/lock/qemu-server/lock-200.conf' - got timeout"
MONITOR_BUSY = (
    "VM 200 qmp command 'query-status' failed - unable to connect to VM 200 qmp socket - timeout after 51 retries"
)


def refusing(cluster, times, text=LOCK_BUSY):
    """``resume`` is refused that often, each time after the 10 s for which the target waits for its lock."""
    seen = []

    def look(command):
        cluster.faults.refuse.clear()
        if command == "resume":
            seen.append((cluster.source.lock, cluster.qemu.state, cluster.target.qemu))
            if len(seen) <= times:
                cluster.clock.sleep(10.0)
                cluster.faults.refuse["resume"] = text

    cluster.faults.before = look
    return seen


@pytest.mark.parametrize("text", [LOCK_BUSY, MONITOR_BUSY], ids=["config lock", "monitor"])
@pytest.mark.parametrize("times", [1, 2])
def test_resume_that_was_not_executed_is_sent_again_with_a_new_intent(tmp_path, times, text):
    cluster = Cluster()
    seen = refusing(cluster, times, text)
    begun = cluster.clock.now
    context = run(cluster, tmp_path)
    assert context.facts.phase is Phase.COMPLETED
    assert seen == [("migrate", "postmigrate", "paused")] * (times + 1)
    assert context.facts.intents == len(seen)
    assert cluster.running == 1
    assert cluster.clock.now - begun < 10 * times + 10


def test_target_that_goes_on_refusing_gives_the_guest_back_and_keeps_nothing(tmp_path):
    cluster = Cluster()
    seen = refusing(cluster, 99)
    context = run(cluster, tmp_path)
    assert (context.facts.phase, len(seen)) == (Phase.ROLLED_BACK, 3)
    assert (cluster.qemu.state, cluster.target.ever_ran) == ("running", False)
    assert (cluster.target.vms, context.facts.residue) == ({}, [])
    assert context.facts.proof["resume"] == "refused, not executed (3 times)"
    assert context.facts.error["code"] == "COMMAND_REFUSED"


def test_source_that_was_let_go_meanwhile_keeps_the_guest(tmp_path):
    cluster = Cluster()
    refusing(cluster, 1)
    refused = cluster.faults.before

    def somebody(command):
        refused(command)
        if command == "resume":
            cluster.qemu.state = "running"

    cluster.faults.before = somebody
    context = run(cluster, tmp_path)
    assert context.facts.phase is Phase.ROLLED_BACK
    assert (cluster.running, cluster.target.ever_ran) == (1, False)


@pytest.mark.parametrize("text", ["VM 200 qmp command 'cont' failed - got timeout", "no"])
def test_refusal_that_may_have_been_executed_is_never_followed_by_another_resume(tmp_path, text):
    cluster = Cluster()
    seen = refusing(cluster, 1, text)
    context = run(cluster, tmp_path)
    assert len(seen) == 1
    assert context.facts.phase is Phase.ROLLED_BACK
    assert context.facts.proof["task"] == "ended"


def test_target_that_runs_after_all_is_a_commit(tmp_path):
    cluster = Cluster()
    refusing(cluster, 1)
    refused = cluster.faults.before

    def runs(command):
        refused(command)
        if command == "resume":
            cluster.target.qemu, cluster.target.ever_ran = "running", True

    cluster.faults.before = runs
    context = run(cluster, tmp_path)
    assert context.facts.phase is Phase.COMPLETED
    assert cluster.running == 1
