# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""Back to a running source, and nothing of ours left at the target or on a list of what is (safety I3, I6).

Repeatable: a worker that dies in here starts it again. The source comes first: before COMMIT_INTENT no ``resume``
was ever sent, and after it only NEVER_RAN leads here, so the target cannot run.
"""

from __future__ import annotations

import logging
import shlex
from typing import Any, Dict, List

from ..errors import CrossclusterError, Side
from ..proxmox.errors import LockForeign, VmAbsent
from ..qemu import mirror as mirrors
from ..qemu.migrate import MigrationStatus
from ..qemu.mirror import Job
from ..qemu.status import RunState, RunStatus
from . import direct, precopy, qemu_tls
from .context import Context
from .errors import SourceLost, TargetResidue, TargetUnexpected
from .states import Outcome

__all__ = ["leave_migration", "remove_mirrors", "rollback", "run_again"]

_CANCEL_TIMEOUT = 15.0  # seconds for QEMU to give a migration up
_RUN_TIMEOUT = 10.0  # seconds for the source to run again
_JOB_TIMEOUT = 10.0
_TASK_END = 12.0  # seconds for a task to end: a buffered command may wait 10 s for the config lock (pve-cli 3)
_TASK_DELETES = 2
# States in which a guest that its owner had running is brought back with `cont`.
_CONTINUE = (RunState.PAUSED, RunState.POSTMIGRATE, RunState.FINISH_MIGRATE, RunState.PRELAUNCH)
_LOG = logging.getLogger(__name__)


def rollback(context: Context) -> Outcome:
    """ROLLBACK: source as its owner left it, target removed or listed, lock given back."""
    context.drop_pumps()
    _restore_source(context)
    qemu_tls.disarm(context)
    _end_tunnel(context)
    direct.reach(context)
    _remove_target(context)
    direct.leave(context)
    _give_lock_back(context)
    context.finish_result()
    return Outcome.OK


def _restore_source(context: Context) -> None:
    source = context.world.source
    if not source.qemu_alive():
        if context.run_state in ("running", "paused"):
            _LOG.error("the source QEMU is gone: its disks are authoritative (safety 5, LOST-S)")
        context.facts_source_state("stopped")
        return
    if context.run_state not in ("running", "paused"):
        # Refused before anything was done, or started by its owner meanwhile: not ours to touch.
        context.facts_source_state(RunStatus.parse(context.world.qmp.run("query-status")).text)
        return
    leave_migration(context)
    remove_mirrors(context)
    run_again(context)


def leave_migration(context: Context) -> None:
    """No RAM migration is active any more; harmless when none was."""
    clock = context.world.clock
    end = clock.monotonic() + _CANCEL_TIMEOUT
    asked = False
    while True:
        info = precopy.information(context)
        if info.status is MigrationStatus.NONE or info.status.is_final:
            return
        if not asked:
            context.world.qmp.run("migrate_cancel")
            asked = True
        if clock.monotonic() > end:
            raise SourceLost(
                f"QEMU does not give the migration up; it is {info.status_text}",
                side=Side.SOURCE,
                object=f"VM {context.facts.vmid}",
                remedy="The worker tries again; if it stays so, look at the VM in its monitor",
            )
        clock.sleep(0.02)


def remove_mirrors(context: Context) -> None:
    """Our jobs and nodes are gone from the source QEMU; foreign ones are not touched."""
    for names in context.facts.mirrors.values():
        _end_job(context, names["job"])
        nodes = context.world.qmp.run("query-named-block-nodes", {"flat": True})
        if any(isinstance(node, dict) and node.get("node-name") == names["node"] for node in nodes):
            context.world.qmp.run("blockdev-del", mirrors.delete_node(names["node"]))


def _end_job(context: Context, job_id: str) -> None:
    qmp, clock = context.world.qmp, context.world.clock
    end = clock.monotonic() + _JOB_TIMEOUT
    asked = False
    while True:
        job = Job.parse_all(qmp.run("query-jobs")).get(job_id)
        if job is None:
            return
        if job.is_concluded:
            qmp.run("job-dismiss", mirrors.dismiss(job_id))
            return
        if not asked:
            qmp.run("block-job-cancel", mirrors.end(job_id, force=True))
            asked = True
        if clock.monotonic() > end:
            raise SourceLost(
                f"the mirror job {job_id} does not end", side=Side.SOURCE, object=f"VM {context.facts.vmid}"
            )
        clock.sleep(0.02)


def run_again(context: Context) -> None:
    """The owner's run state; a guest that is off or broke down by itself stays as it is."""
    if context.facts.guest_off:
        # It powered itself off at the last moment: what is left of its QEMU ends, nobody continues it (safety 6.1, O).
        context.world.source.stop()
        context.facts_source_state("stopped")
        return
    qmp, clock = context.world.qmp, context.world.clock
    end = clock.monotonic() + _RUN_TIMEOUT
    while True:
        state = RunStatus.parse(qmp.run("query-status")).state
        if context.run_state == "paused" or state is RunState.RUNNING or state not in _CONTINUE:
            context.facts_source_state(state.value)
            return
        qmp.run("cont")
        if clock.monotonic() > end:
            raise SourceLost(
                f"the source does not run again, it is {state.value}",
                side=Side.SOURCE,
                object=f"VM {context.facts.vmid}",
                remedy=f"Look at it: qm monitor {context.facts.vmid}, info status",
            )
        clock.sleep(0.05)


def _end_tunnel(context: Context) -> None:
    """Have the target remove everything, while its control channel lives."""
    tunnel = context.tunnel
    # Without `stop` first, `quit` leaves an orphan QEMU (mtunnel-protocol 5.3).
    if tunnel is not None and not tunnel.poisoned and context.persist(tunnel.stop):
        context.persist(lambda: tunnel.quit(True))
    context.close_tunnel()


def _remove_target(context: Context) -> None:
    """What is left nevertheless is removed over ``control``, or told."""
    if context.facts.target_vmid is None:
        return
    left = _look(context, _recorded(context, verified=False))
    if left and direct.remove(context, left):
        left = _look(context, [])  # its own node has read back that nothing is left
    if left and left != context.facts.residue:
        context.note_or_remember("residue", objects=left)
        _say_residue(context, left)


def _look(context: Context, unread: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """What of ours is at the target; ``unread`` when its API does not answer."""
    try:
        return _left_on_target(context)
    except CrossclusterError as error:
        _LOG.warning("the target could not be read: %s", error)
        return unread


def _left_on_target(context: Context) -> List[Dict[str, Any]]:
    """What of ours is there, read back: our task ended first, so that nothing comes after the look."""
    target, facts = context.world.target, context.facts
    upid = facts.upid
    if upid is None:
        # The POST had no answer. A task that has served commands is somebody else's: we never connected (safety I6).
        upid = target.own_tunnel_task(context.target_vmid)
        if upid is not None and any("received command" in line for line in target.task_log(upid)):
            _LOG.warning("VM %d at the target belongs to another migration", context.target_vmid)
            return []
        if upid is not None:
            context.note_or_remember("tunnel", upid=upid)
    if upid is not None:
        _end_task(context, upid)
    left: List[Dict[str, Any]] = []
    try:
        status = target.vm_status(context.target_vmid)
        left.append(_vm(context, lock=status.lock, qemu=status.status == "running"))
    except VmAbsent:
        _LOG.info("VM %s is gone from the target", context.target_vmid)
    left += [{"kind": "volume", "node": context.spec.target.node, "volid": volid} for volid in _left_volumes(context)]
    if left and upid is not None:
        left.append({"kind": "task", "node": context.spec.target.node, "upid": upid})
    return left


def _end_task(context: Context, upid: str) -> None:
    target, clock = context.world.target, context.world.clock
    deletes = 0
    end = clock.monotonic() + _TASK_END
    while target.task_status(upid).running:
        if clock.monotonic() > end:
            if deletes == _TASK_DELETES:
                raise TargetUnexpected(
                    "the tunnel task does not end",
                    side=Side.TARGET,
                    object=upid,
                    remedy="End that task on the target node",
                )
            target.delete_task(upid)
            deletes += 1
            end = clock.monotonic() + _TASK_END
        clock.sleep(0.2)


def _left_volumes(context: Context) -> List[str]:
    """Recorded volumes that still exist, and new ones of that VMID which the journal could not name in time."""
    facts = context.facts
    before = facts.volumes_before
    found: List[str] = []
    for storage in sorted({volume.storage for volume in facts.volumes.values()}):
        present = context.world.target.volumes_of(storage, context.target_vmid)
        ours = {volume.volid for volume in facts.volumes.values() if volume.volid}
        found += [volid for volid in present if volid in ours or (before is not None and volid not in before)]
    return found


def _recorded(context: Context, verified: bool) -> List[Dict[str, Any]]:
    facts = context.facts
    left = [_vm(context, lock="unknown", qemu=None)]
    left += [
        {"kind": "volume", "node": context.spec.target.node, "volid": v.volid}
        for v in facts.volumes.values()
        if v.volid
    ]
    if facts.upid:
        left.append({"kind": "task", "node": context.spec.target.node, "upid": facts.upid})
    return [dict(entry, verified=verified) for entry in left]


def _vm(context: Context, lock: str, qemu: Any) -> Dict[str, Any]:
    return {
        "kind": "vm",
        "node": context.spec.target.node,
        "vmid": context.target_vmid,
        "lock": lock,
        "qemu": qemu,
    }


def _say_residue(context: Context, left: List[Dict[str, Any]]) -> None:
    """The result's error: residue, with what led to it as its cause, and guarded commands."""
    error = TargetResidue(
        f"the source runs on, but objects of this migration are left on node {context.spec.target.node}",
        side=Side.TARGET,
        object=f"VM {context.target_vmid}",
        remedy="With target_root: true the role removes them. By hand, as root on that node: "
        + "; ".join(_commands(context, left)),
        facts={"cause": context.facts.error, "residue": left},
    )
    context.note_or_remember("error", error=error.to_dict())


def _commands(context: Context, left: List[Dict[str, Any]]) -> List[str]:
    """What a person may type there; a line whose guard does not hold does nothing.

    The guards ask for the lock too: who took it off has taken the VM over. It stays on until the VM is gone
    (``--skiplock``), so that nothing starts the VM in between and a line may be repeated.
    """
    vmid = context.target_vmid
    locks = [entry["lock"] for entry in left if entry["kind"] == "vm"]
    volumes = [shlex.quote(entry["volid"]) for entry in left if entry["kind"] == "volume"]
    # pvesm free has no in-use check (pve-cli 1.7): it comes after the stop, and never without a guard of its own.
    frees = "".join(f"pvesm free {volid}; " for volid in volumes)
    remove = f"{{ {frees}qm destroy {vmid} --skiplock --purge; }}"
    commands = []
    if any(lock != "create" for lock in locks):
        ours = f"grep -qi '^smbios1:.*uuid={context.facts.uuid}' && qm config {vmid} | grep -q '^lock: migrate'"
        # An HA VM does not stop at once, with success (pve-cli 7).
        stop = f"qm stop {vmid} --skiplock && qm status {vmid} | grep -q stopped"
        commands.append(f"qm config {vmid} | {ours} && {stop} && {remove}")
    if any(lock in ("create", "unknown") for lock in locks):
        # Before `config` was sent a VM has no uuid; then it is nothing but its lock (mtunnel-protocol 8.1).
        commands.append(f"[ \"$(qm config {vmid})\" = 'lock: create' ] && {remove}")
    if locks in ([], ["unknown"]):
        # The VM is gone: no guest of the cluster has its number, none names the volume, no QEMU was left over
        # (mtunnel-protocol 5.3). The first test is for a /etc/pve that is not mounted.
        gone = f"[ -e /etc/pve/.version ] && ! ls /etc/pve/nodes/*/*/{vmid}.conf >/dev/null 2>&1"
        gone += f" && [ ! -e /run/qemu-server/{vmid}.pid ]"
        commands += [f"{gone} && ! grep -rqF {volid} /etc/pve/nodes && pvesm free {volid}" for volid in volumes]
    return commands


def _give_lock_back(context: Context) -> None:
    facts = context.facts
    if facts.locking and not facts.unlocked:
        try:
            context.world.source.unlock()
        except (LockForeign, VmAbsent) as error:
            context.warn(error)  # somebody took it meanwhile: not ours any more (safety I6)
        context.note_or_remember("unlocked")
    context.world.source.release_migration_lock()
