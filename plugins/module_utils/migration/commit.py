# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The commit, and what is read back when its outcome is unknown (safety I2, I4, 5).

``resume`` is sent once per COMMIT_INTENT, within its deadline, by the process that wrote the intent. Everything
else in here only reads: the target's own state first, then task status until ``stopped``, its log, the state again.
"""

from __future__ import annotations

import logging
from typing import Any, Dict, Optional

from ..errors import CrossclusterError, Side
from ..proxmox.errors import CommandRefused, VmAbsent
from ..proxmox.target_api import VmStatus
from .context import Context
from .errors import Held, MigrationLost
from .states import Outcome
from .switchover import check_unchanged

__all__ = ["INTENT_DEADLINE", "commit", "read_back"]

INTENT_DEADLINE = 10.0  # seconds between COMMIT_INTENT and `resume` (safety I2)
_OBSERVE = 15.0  # seconds in which the target must be seen running after `resume`
_SILENCE = 60.0  # seconds to wait for a reply on an open channel before the task is ended (DESIGN 5)
_TASK_END = 15.0  # seconds for a task whose connection is gone to end by itself: the config lock waits 10 s (pve-cli 3)
_RESUMED = "received command 'resume'"
_LOG = logging.getLogger(__name__)


def commit(context: Context) -> Outcome:
    """COMMITTING: let the target run and see it run.

    UNKNOWN whenever that was not seen: a late wake-up, a lost reply, a state that proves nothing.
    """
    clock = context.world.clock
    if context.intent_at is None or clock.monotonic() - context.intent_at > INTENT_DEADLINE:
        _LOG.warning("COMMIT_INTENT is too old or of another process: both sides are read back first")
        return Outcome.UNKNOWN
    if context.run_state == "stopped":
        return _commit_stopped(context)
    if context.run_state == "paused":
        return _commit_paused(context)
    tunnel = context.require_tunnel()
    context.resume_sent = True
    context.resumed_at = clock.monotonic()
    try:
        tunnel.resume()
    except CommandRefused as error:
        # mtunnel-protocol 5.3: the process was gone before anything could be run in it.
        context.resume_refused = error.text.rstrip().endswith(f"VM {context.target_vmid} not running")
        raise
    context.measure_pause()
    return _observe_running(context)


def _commit_stopped(context: Context) -> Outcome:
    """A stopped VM has no one to resume: the target's config, locked and complete, is the commit."""
    status = context.world.target.vm_status(context.target_vmid)
    if status.status == "stopped" and status.lock == "migrate":
        context.prove(target="config and volumes read back, locked, stopped")
        return Outcome.OK
    return Outcome.UNKNOWN


def _commit_paused(context: Context) -> Outcome:
    """A VM that its owner paused arrives paused (DESIGN 3)."""
    status = context.world.target.vm_status(context.target_vmid)
    if status.genuine and status.qmpstatus == "paused":
        context.prove(target="read back paused, as its owner left it")
        return Outcome.OK
    return Outcome.UNKNOWN


def _observe_running(context: Context) -> Outcome:
    clock = context.world.clock
    end = clock.monotonic() + _OBSERVE
    while True:
        status = context.world.target.vm_status(context.target_vmid)
        if status.runs:
            context.prove(target="observed running, with QMP-derived fields")
            return Outcome.OK
        if clock.monotonic() > end:
            return Outcome.UNKNOWN
        clock.sleep(0.05)


def read_back(context: Context) -> Outcome:
    """HOLD: one look at both sides; tried again until it proves something.

    Raises:
        Held: nothing is proven yet.
    """
    if context.run_state == "running":
        status = _status(context)
        if status is not None and status.runs:
            context.prove(target="observed running, with QMP-derived fields")
            return Outcome.TARGET_RUNS
    if context.tunnel is not None and not context.tunnel.poisoned and not context.resume_sent:
        return _still_loaded(context)
    if context.resume_refused:
        return _refused(context)
    if not _task_ended(context):
        raise _held(context, "the target's tunnel task still runs; its end is waited for")
    return _after_the_task(context)


def _refused(context: Context) -> Outcome:
    """The target answered that there was no QEMU to resume: if there still is none, the guest never ran there."""
    status = _status(context)
    if status is None or status.status == "stopped":
        context.prove(resume="refused: VM not running", target=status.qmpstatus if status else "absent")
        return Outcome.NEVER_RAN
    raise _held(context, f"the target refused to resume but is {status.qmpstatus}")


def _status(context: Context) -> Optional[VmStatus]:
    """State of the target VM; None when it does not exist any more."""
    try:
        return context.world.target.vm_status(context.target_vmid)
    except VmAbsent:
        return None


def _still_loaded(context: Context) -> Outcome:
    """``resume`` was never sent and the channel lives: look at everything I2 asks for once more."""
    context.require_tunnel().version(timeout=5.0)
    check_unchanged(context)
    status = _status(context)
    if status is None or status.lock != "migrate":
        raise _held(context, "the target's config lost its lock")
    if context.run_state == "stopped" or (status.genuine and status.qmpstatus == "paused"):
        return Outcome.STILL_LOADED
    raise _held(context, f"the target is {status.qmpstatus}, not paused")


def _task_ended(context: Context) -> bool:
    """Wait for the end of our tunnel task; end it with the token when waiting is over (pve-cli 3)."""
    target, clock, upid = context.world.target, context.world.clock, context.facts.upid
    if upid is None:
        return True  # no tunnel was ever opened
    if not target.task_status(upid).running:
        return True
    now = clock.monotonic()
    if context.waiting_since is None:
        context.waiting_since = now
    if context.tunnel is not None and now - context.waiting_since < _SILENCE:
        _late_reply(context)
        return not target.task_status(upid).running
    if context.tunnel is None and now - context.waiting_since < _TASK_END:
        return False
    _LOG.warning("ending the target's tunnel task %s: it outlived its connection", upid)
    context.close_tunnel()
    target.delete_task(upid)
    return not target.task_status(upid).running


def _late_reply(context: Context) -> None:
    """A silent link may still deliver the reply while the socket is open (pve-cli 3)."""
    try:
        reply = context.require_tunnel().late_reply(5.0)
        _LOG.info("late reply to resume: %s", "came" if reply is not None else "none yet")
    except CrossclusterError as error:
        _LOG.info("late reply to resume: %s", error.code)
        if error.code != "REPLY_TIMEOUT":
            context.close_tunnel()


def _after_the_task(context: Context) -> Outcome:
    """The task has ended: its log and then the target's state decide (safety I4, in this order)."""
    upid = context.facts.upid
    log = context.world.target.task_log(upid) if upid else []
    arrived = any(_RESUMED in line for line in log)
    status = _status(context)
    found = {"task": "ended", "resume_in_log": arrived, "target": status.qmpstatus if status else "absent"}
    if context.run_state == "stopped":
        return _stopped_after_the_task(context, status, found)
    if status is None or status.status == "stopped":
        return _gone(context, arrived, found)
    if status.runs:
        context.prove(**dict(found, target="observed running, with QMP-derived fields"))
        return Outcome.TARGET_RUNS
    if not status.genuine:
        raise _held(context, "the target's monitor does not answer, so its state is not known")
    if status.qmpstatus == "paused" and context.run_state == "paused":
        context.prove(**dict(found, target="read back paused, as its owner left it"))
        return Outcome.TARGET_RUNS
    if status.lock == "migrate" and (status.qmpstatus == "paused" or not arrived):
        # No token can start a locked VM, and no command is executed any more: it never ran and will not.
        context.prove(**found)
        return Outcome.NEVER_RAN
    raise _held(context, f"the target is {status.qmpstatus} with lock '{status.lock or 'none'}'")


def _stopped_after_the_task(context: Context, status: Optional[VmStatus], found: Dict[str, Any]) -> Outcome:
    if status is None or status.lock:
        context.prove(**found)
        return Outcome.NEVER_RAN
    if status.status == "running":
        raise _held(context, "the target VM was unlocked and started by somebody")
    context.prove(**dict(found, target="unlocked at the target"))
    return Outcome.TARGET_RUNS


def _gone(context: Context, arrived: bool, found: Dict[str, Any]) -> Outcome:
    """No QEMU at the target: never ran if ``resume`` never arrived, else lost after the commit (safety 5)."""
    context.prove(**found)
    if not arrived:
        return Outcome.NEVER_RAN
    lost = MigrationLost(
        "the target was lost after the commit; it may have run and its disks may hold newer writes",
        side=Side.TARGET,
        object=f"VM {context.target_vmid}",
        remedy="The source copy is kept, stopped and locked. Decide by hand which copy is newer; start only one",
        facts=found,
    )
    context.note_or_remember("error", error=lost.to_dict())
    return Outcome.TARGET_LOST


def _held(context: Context, reason: str) -> Held:
    return Held(
        f"neither side may run yet: {reason}",
        side=Side.TARGET,
        object=f"VM {context.target_vmid}",
        remedy="Run the play again when the target answers; look at the target VM's state and task log, "
        "do not start or unlock either copy by hand",
    )
