# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The commit, and what is read back when its outcome is unknown (safety I2, I4, 5).

``resume`` is sent once per COMMIT_INTENT, within its deadline, by the process that wrote the intent; again only
after the target answered that the last one was not executed, or over the stream ``control`` of a direct transport once
the tunnel's task has ended; both sides were read then and there is a new intent. Everything else in here only reads:
the target's own state first, then task status until ``stopped``, its log, the state again. Whom it asks is the
``witness``: the target's node over ``control`` where there is one, else the API.
"""

from __future__ import annotations

import logging
import re
from typing import Any, Dict, Optional

from ..errors import CrossclusterError, Side
from ..proxmox.errors import CommandRefused
from ..proxmox.target_api import VmStatus
from ..qemu.status import RunState, RunStatus
from . import direct
from .context import Context
from .errors import Held, MigrationLost, VmChanged
from .states import Outcome
from .switchover import check_unchanged
from .witness import Witness

__all__ = ["INTENT_DEADLINE", "commit", "read_back"]

INTENT_DEADLINE = 10.0  # seconds between COMMIT_INTENT and `resume` (safety I2)
_OBSERVE = 15.0  # seconds in which the target must be seen running after `resume`
_SILENCE = 60.0  # seconds to wait for a reply on an open channel before the task is ended (DESIGN 5)
_BRIEF_SILENCE = 5.0  # the same when the target can be asked over `control`, and the guest need not stand still so long
_BRIEF_REPLY = 12.0  # seconds for the reply itself then: the target waits 10 for its config lock (pve-cli 4.1)
_TASK_END = 15.0  # seconds for a task whose connection is gone to end by itself: the config lock waits 10 s (pve-cli 3)
_REFUSED = "refused: VM not running"
# The target's words when it never came to the guest: no config lock within 10 s (pve-cli 3, 4.1), or no monitor
# to ask (pve-cli 5: held by another client). A command that the monitor has taken and not answered is none of these.
_NOT_EXECUTED = re.compile(r"can't lock file '[^']*' - got timeout|unable to connect to VM [0-9]+ qmp socket - timeout")
_CONTROL_PAUSE = 2.0  # seconds before another try over control
_RESUME_TRIES = 3  # each refusal took the target about 10 s, in which the guest stands still
# Where a QEMU is that was never resumed; any other state is one that a guest reached by running (safety 6.1, O).
_NEVER_RESUMED = frozenset({"inmigrate", "paused", "prelaunch", "postmigrate", "stopped"})
_LOG = logging.getLogger(__name__)


def commit(context: Context) -> Outcome:
    """COMMITTING: let the target run and see it run.

    UNKNOWN whenever that was not seen: a late wake-up, a lost reply, a state that proves nothing.
    """
    clock = context.world.clock
    # Counted from the look that the intent rests on: a worker may have stood still inside the record itself.
    checked_at = context.checked_at if context.intent_at is not None else None
    if checked_at is None or clock.monotonic() - checked_at > INTENT_DEADLINE:
        _LOG.warning("COMMIT_INTENT is too old or of another process: both sides are read back first")
        return Outcome.UNKNOWN
    if context.run_state == "stopped":
        return _commit_stopped(context)
    if context.run_state == "paused":
        return _commit_paused(context)
    if context.facts.forward and context.incoming is not None:
        return _resume_over_control(context)
    tunnel = context.require_tunnel()
    context.resume_sent = True
    try:
        tunnel.resume(None if context.incoming is None else _BRIEF_REPLY)
    except CommandRefused as error:
        _take_refusal(context, error.text.rstrip())
        raise
    context.resume_answered = True
    context.measure_pause()
    return _observe_running(context)


def _resume_over_control(context: Context) -> Outcome:
    """The incoming worker does as root what no token can; it looks itself whether the task has ended."""
    direct.resume(context)
    context.resume_answered = True
    context.measure_pause()
    seen = direct.state(context)
    if seen is None or seen.get("run_state") != "running":
        return Outcome.UNKNOWN
    context.prove(target="observed running on the target node, over control")
    return Outcome.OK


def _take_refusal(context: Context, text: str) -> None:
    """What a refusal proves. It is the reply: nothing of ours is left with the target's worker."""
    # mtunnel-protocol 5.3: the process was gone before anything could be run in it.
    context.resume_refused = text.endswith(f"VM {context.target_vmid} not running")
    if context.resume_refused:
        context.prove(resume=_REFUSED)
    elif _NOT_EXECUTED.search(text):
        context.resume_sent = False
        context.resume_refusals += 1


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

    Once somebody who is root on the target was told that he may resume the guest there (``forward``), no proof of
    the past leads back: only what runs, or is gone, decides (safety 5, "with intent: forward with target_root").

    Raises:
        Held: nothing is proven yet.
    """
    if context.requests.forward and not context.facts.forward and context.run_state == "running":
        context.note("forward")
        context.announce()
    witness = direct.witness(context)
    outcome = _conclude(context, witness)
    if outcome is not Outcome.NEVER_RAN or not context.facts.forward:
        return outcome
    status = witness.status()
    if status is not None and status.status == "running":
        raise _held(context, "the target was told to take the guest over and has not begun it")
    return _lost(context, {"target": status.qmpstatus if status else "absent"})


def _conclude(context: Context, witness: Witness) -> Outcome:
    """What one look at both sides proves."""
    if context.run_state == "running":
        status = witness.status()
        if status is not None and _has_run(context, status):
            _check_ours(context, witness)
            context.prove(target=f"observed {status.qmpstatus}, {witness.knows_by}")
            return Outcome.TARGET_RUNS
    if context.tunnel is not None and not context.tunnel.poisoned and not context.resume_sent:
        return _still_loaded(context, witness)
    if context.resume_refused or context.facts.proof.get("resume") == _REFUSED:
        return _refused(context, witness)
    if not _task_ended(context, witness):
        raise _held(context, "the target's tunnel task still runs; its end is waited for")
    return Outcome.STILL_LOADED if _may_resume_over_control(context) else _after_the_task(context, witness)


def _may_resume_over_control(context: Context) -> bool:
    """No command of the tunnel is executed any more; everything I2 asks for holds, by the target node's own word.

    A restarted worker does not know what the VM was like when it began (I2): for it only the proof of I4 is left.
    """
    if context.run_state != "running" or not context.has_plan or context.incoming is None:
        return False
    if context.facts.intents > 1:
        context.rest(_CONTROL_PAUSE)
    context.checked_at = context.world.clock.monotonic()
    if not direct.is_loaded(context):
        return False
    try:
        check_unchanged(context)
        _check_source_waits(context)
    except VmChanged as error:
        _LOG.warning("the target is not resumed: %s", error)
        return False
    if not context.facts.forward:
        # What is asked for over control may be done after its answer was lost: no proof of the past leads back now.
        context.note("forward")
    return True


def _refused(context: Context, witness: Witness) -> Outcome:
    """The target answered that there was no QEMU to resume: if there still is none, the guest never ran there."""
    status = witness.status()
    if status is None or status.status == "stopped":
        context.prove(resume=_REFUSED, target=status.qmpstatus if status else "absent")
        return Outcome.NEVER_RAN
    raise _held(context, f"the target refused to resume but is {status.qmpstatus}")


def _still_loaded(context: Context, witness: Witness) -> Outcome:
    """No ``resume`` was executed, none is under way, and the channel lives: everything I2 asks for, once more.

    A target that goes on refusing while it stays loaded, paused and locked has never run (I4): back to the source.
    """
    resume = f"refused, not executed ({context.resume_refusals} times)" if context.resume_refusals else "never sent"
    if context.facts.intents > 1:
        context.rest(1.0)
    context.require_tunnel().version(timeout=5.0)
    context.checked_at = context.world.clock.monotonic()
    try:
        check_unchanged(context)
        _check_source_waits(context)
    except VmChanged as error:
        context.prove(resume=resume, source=error.message)
        return Outcome.NEVER_RAN
    status = witness.status()
    if status is None or status.lock != "migrate":
        raise _held(context, "the target's config lost its lock")
    if context.run_state == "stopped" and status.status == "stopped":
        return Outcome.STILL_LOADED
    if context.run_state != "stopped" and status.genuine and status.qmpstatus == "paused":
        if context.resume_refusals < _RESUME_TRIES:
            return Outcome.STILL_LOADED
        context.prove(resume=resume, target="paused and locked")
        return Outcome.NEVER_RAN
    raise _held(context, f"the target is {status.qmpstatus}, not as it was loaded")


def _check_source_waits(context: Context) -> None:
    """The source still stands where the switchover left it.

    Raises:
        VmChanged: somebody let it run meanwhile; then it owns the guest, for ``resume`` was never sent.
    """
    source = context.world.source
    if not source.qemu_alive():
        return
    state = RunStatus.parse(context.world.qmp.run("query-status"))
    if context.run_state == "stopped" or state.state is not RunState.POSTMIGRATE:
        raise VmChanged(
            f"the source VM was started by somebody, it is {state.text}",
            side=Side.SOURCE,
            object=f"VM {context.facts.vmid}",
            remedy="The source goes on; run the play again",
        )


def _has_run(context: Context, status: VmStatus) -> bool:
    """Running, or in a state that only a guest which ran can have reached after an answered ``resume``."""
    return status.runs or (context.resume_answered and status.genuine and status.qmpstatus not in _NEVER_RESUMED)


def _check_ours(context: Context, witness: Witness) -> None:
    """The VM that runs there is this VM; a VMID may have been given to another one meanwhile.

    Raises:
        Held: it has another uuid.
    """
    if witness.uuid() != context.facts.uuid:
        raise _held(context, "a VM with another uuid has that number now")


def _task_ended(context: Context, witness: Witness) -> bool:
    """Wait for the end of our tunnel task; have it ended when waiting is over (pve-cli 3)."""
    clock, upid = context.world.clock, context.facts.upid
    if upid is None:
        return True  # no tunnel was ever opened
    if not witness.task_running(upid):
        return True
    now = clock.monotonic()
    if context.waiting_since is None:
        context.waiting_since = now
    patience = _SILENCE if context.incoming is None else _BRIEF_SILENCE
    if context.tunnel is not None and now - context.waiting_since < patience:
        _late_reply(context)
        return not witness.task_running(upid)
    if context.tunnel is None and now - context.waiting_since < _TASK_END:
        return False
    _LOG.warning("ending the target's tunnel task %s: it outlived its connection", upid)
    context.close_tunnel()
    witness.end_task(upid)
    return not witness.task_running(upid)


def _late_reply(context: Context) -> None:
    """A silent link may still deliver the reply while the socket is open (pve-cli 3)."""
    try:
        reply = context.require_tunnel().late_reply(5.0)
        _LOG.info("late reply to resume: %s", "came" if reply is not None else "none yet")
    except CrossclusterError as error:
        _LOG.info("late reply to resume: %s", error.code)
        if error.code != "REPLY_TIMEOUT":
            context.close_tunnel()


def _after_the_task(context: Context, witness: Witness) -> Outcome:
    """The task has ended: its log and then the target's state decide (safety I4, in this order)."""
    upid = context.facts.upid
    arrived = upid is not None and witness.resume_received(upid)
    status = witness.status()
    found = {"task": "ended", "resume_in_log": arrived, "target": status.qmpstatus if status else "absent"}
    if context.run_state == "stopped":
        return _stopped_after_the_task(context, witness, status, found)
    if status is None or status.status == "stopped":
        return _gone(context, arrived, found)
    if _has_run(context, status):
        _check_ours(context, witness)
        context.prove(**dict(found, target=f"observed {status.qmpstatus}, {witness.knows_by}"))
        return Outcome.TARGET_RUNS
    if not status.genuine:
        raise _held(context, "the target's monitor does not answer, so its state is not known")
    if status.qmpstatus == "paused" and context.run_state == "paused":
        _check_ours(context, witness)
        context.prove(**dict(found, target="read back paused, as its owner left it"))
        return Outcome.TARGET_RUNS
    if status.qmpstatus == "paused" and not context.world.source.qemu_alive():
        raise _held(context, "the source QEMU is gone and the target holds the guest, loaded and paused")
    if status.lock == "migrate" and (status.qmpstatus == "paused" or not arrived):
        # No token can start a locked VM, and no command is executed any more: it never ran and will not.
        context.prove(**found)
        return Outcome.NEVER_RAN
    raise _held(context, f"the target is {status.qmpstatus} with lock '{status.lock or 'none'}'")


def _stopped_after_the_task(
    context: Context, witness: Witness, status: Optional[VmStatus], found: Dict[str, Any]
) -> Outcome:
    if status is None or status.lock:
        context.prove(**found)
        return Outcome.NEVER_RAN
    if status.status == "running":
        raise _held(context, "the target VM was unlocked and started by somebody")
    _check_ours(context, witness)
    context.prove(**dict(found, target="unlocked at the target"))
    return Outcome.TARGET_RUNS


def _gone(context: Context, arrived: bool, found: Dict[str, Any]) -> Outcome:
    """No QEMU at the target: never ran if ``resume`` never arrived, else lost after the commit (safety 5)."""
    context.prove(**found)
    return _lost(context, found) if arrived else Outcome.NEVER_RAN


def _lost(context: Context, found: Dict[str, Any]) -> Outcome:
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
