# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""Whether a VM is at the target already (DESIGN 3, identity), and what else there has its uuid.

A VM is its uuid. The VMs of the target cluster that have the number or the name are asked for theirs, each on its own
node; what runs under the uuid is the VM, what an earlier move left or kept is not. Only reads, and repairs nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, List, Mapping, Optional, Sequence

from ..errors import Side
from ..proxmox.errors import PrivilegeMissing, VmAbsent
from ..proxmox.target_api import TargetApi, VmResource, VmStatus
from ..proxmox.vm_config import VmConfig
from .errors import MigrationError, Recorded, Split, TargetNotRunning, TargetResidue, VmAmbiguous
from .history import Facts
from .real_world import SourceNode
from .spec import Spec
from .states import Phase

__all__ = ["Arrival", "check_residue", "find"]

# A QEMU that waits for a guest, or holds one that it has never run: no running copy (safety 5).
_LOADING = frozenset({"inmigrate", "paused", "prelaunch"})
_MOVE_LOCKS = frozenset({"create", "migrate"})
# What `finish.fence` writes into the notes of the source copy that is kept after a move.
_KEPT = re.compile(r"\bcrosscluster [0-9a-f]{32}: committed to ")
_LOOKS = 3  # a look at a monitor that is busy takes 3 s by itself (pve-cli 5)


@dataclass(frozen=True)
class _Seen:
    """A VM of the uuid as it was found; no ``status`` when it went away or is not ours to see."""

    vm: VmResource
    notes: str
    status: Optional[VmStatus]


@dataclass(frozen=True)
class Arrival:
    """Where the VM is; ``moved`` when the newest journal tells how it came there, ``locked`` when it still is."""

    vmid: int
    node: str
    moved: bool
    locked: bool


def find(
    spec: Spec,
    uuid: Optional[str],
    source: SourceNode,
    target: TargetApi,
    facts: Optional[Facts],
    ended: Sequence[Facts],
) -> Optional[Arrival]:
    """Where the VM is at the target; None when it is not there and may be moved.

    Args:
        spec: What is asked for.
        uuid: Of the VM, None when nobody knows it.
        source: The VM on this node.
        target: The API of the target.
        facts: The newest migration of the VM.
        ended: All its migrations that were rolled back and left something.

    Raises:
        Recorded: TARGET_LOST, nobody has decided yet.
        Split, TargetNotRunning, TargetResidue, VmAmbiguous: as it is; nothing is done.
    """
    if facts is not None and facts.phase is Phase.LOST and not _decided(spec, source, target, facts):
        raise Recorded.parse(facts.error)
    moved = facts if facts is not None and facts.phase is Phase.COMPLETED and _same_target(spec, facts) else None
    uuid = uuid or (moved.uuid or None if moved is not None else None)
    vms = target.vm_resources()
    matching = _of_uuid(target, _candidates(spec, vms, _name(source), moved), uuid) if uuid else []
    found = [seen for seen in matching if not _is_left(spec, seen, ended) and not _is_kept(spec, seen)]
    if len(found) > 1:
        raise VmAmbiguous(
            f"the VMs {[seen.vm.vmid for seen in found]} of the target have the uuid of VM {spec.vmid}",
            side=Side.TARGET,
            object=f"VM {spec.vmid}",
            remedy="Find out which one is the VM; a uuid must not be used twice",
        )
    if found:
        return _judge(spec, source, found[0], moved)
    if moved is not None and not matching:
        _check_gone(spec, source, target, moved)
    return None


def check_residue(spec: Spec, target: TargetApi, ended: Sequence[Facts]) -> None:
    """A VMID with residue of ours is not used again (DESIGN 2).

    Raises:
        TargetResidue: it is still there.
    """
    for facts in ended:
        if facts.target_vmid is None or facts.target_vmid != _wanted(spec) or not _same_target(spec, facts):
            continue
        if _is_there(target, facts.target_vmid):
            raise _residue_of(facts)


def _wanted(spec: Spec) -> Optional[int]:
    """The number that is asked for; None when any of the pool will do."""
    if spec.target.vmid == "pool":
        return None
    return spec.vmid if spec.target.vmid == "same" else int(spec.target.vmid)


def _same_target(spec: Spec, facts: Facts) -> bool:
    """Whether a journal speaks of the target that is meant now: another cluster has other VMs under its numbers."""
    if facts.spec is None:
        return False
    then, now = facts.spec.target, spec.target
    return (then.api_host, then.api_port) == (now.api_host, now.api_port)


def _decided(spec: Spec, source: SourceNode, target: TargetApi, facts: Facts) -> bool:
    """Whether somebody has decided for the source after a loss: it runs, unlocked, and the target's copy is gone."""
    if facts.target_vmid is None or not _same_target(spec, facts) or not source.qemu_alive():
        return False
    return not VmConfig.read(source.config()).lock and not _is_there(target, facts.target_vmid)


def _is_there(target: TargetApi, vmid: int) -> bool:
    """Whether the target cluster has a VM of that number, on whatever node."""
    if any(entry.vmid == vmid for entry in target.vm_resources()):
        return True
    try:
        target.vm_status(vmid)  # the list has only what the token may see, this says so
    except VmAbsent:
        return False
    return True


def _candidates(spec: Spec, vms: Sequence[VmResource], name: str, moved: Optional[Facts]) -> List[VmResource]:
    """The VMs whose uuid is worth a look: those of the number or the name (DESIGN 3)."""
    numbers = {_wanted(spec) or spec.vmid, moved.target_vmid if moved is not None else None}
    return [vm for vm in vms if vm.vmid in numbers or (name and vm.name == name)]


def _name(source: SourceNode) -> str:
    try:
        return VmConfig.read(source.config()).values.get("name", "")
    except VmAbsent:
        return ""  # the kept copy was removed, as its owner may


def _of_uuid(target: TargetApi, vms: Sequence[VmResource], uuid: str) -> List[_Seen]:
    """Those of the VMs that have the uuid; each is looked at once."""
    found = []
    for vm in vms:
        try:
            config = target.vm_config(vm.vmid, vm.node)
        except (VmAbsent, PrivilegeMissing):
            continue  # gone meanwhile, or not ours to see; any other error means that nothing is known
        if _uuid(config) == uuid:
            found.append(_Seen(vm, str(config.get("description") or ""), _status(target, vm)))
    return found


def _uuid(config: Mapping[str, Any]) -> Optional[str]:
    for part in str(config.get("smbios1") or "").split(","):
        if part.startswith("uuid="):
            return part[5:].lower()
    return None


def _status(target: TargetApi, vm: VmResource) -> Optional[VmStatus]:
    """State of a VM, genuine if it can be had; None when it is gone or not ours to see."""
    try:
        for _look in range(_LOOKS):
            status = target.vm_status(vm.vmid, node=vm.node)
            if status.genuine or status.status != "running":
                break
        return status
    except (VmAbsent, PrivilegeMissing):
        return None


def _is_left(spec: Spec, seen: _Seen, ended: Sequence[Facts]) -> bool:
    """Whether an attempt that was rolled back left it, and it lies there as it was left: locked, and nothing runs.

    Raises:
        TargetResidue: it has the number that is asked for.
    """
    status = seen.status
    if status is None or status.lock not in _MOVE_LOCKS or status.runs:
        return False
    for facts in ended:
        if facts.target_vmid == seen.vm.vmid and _same_target(spec, facts):
            if seen.vm.vmid == _wanted(spec):
                raise _residue_of(facts)
            return True
    return False


def _is_kept(spec: Spec, seen: _Seen) -> bool:
    """Whether it is the source copy of a move away from there: marked, stopped and locked (finish.fence).

    Raises:
        TargetResidue: it has the number that is asked for.
    """
    vm, status = seen.vm, seen.status
    if status is None or status.status != "stopped" or status.lock != "migrate" or not _KEPT.search(seen.notes):
        return False
    if vm.vmid == _wanted(spec):
        raise TargetResidue(
            f"VM {vm.vmid} of node {vm.node} is the copy that was kept when the VM was moved away from there",
            side=Side.TARGET,
            object=f"VM {vm.vmid}",
            remedy=f"Look at it (qm config {vm.vmid}) and remove it if nobody needs it, as root on node {vm.node}: "
            f"qm unlock {vm.vmid}; qm destroy {vm.vmid}. Or give another target.vmid",
        )
    return True


def _judge(spec: Spec, source: SourceNode, seen: _Seen, moved: Optional[Facts]) -> Arrival:
    """A VM that is at the target is done if its guest runs there; anything else is told, not repaired."""
    vm, status = seen.vm, seen.status
    if status is None:
        raise TargetNotRunning(
            f"VM {vm.vmid} went away while it was looked at",
            side=Side.TARGET,
            object=f"VM {vm.vmid}",
            remedy="Run the play again",
        )
    came = moved if moved is not None and vm.vmid == moved.target_vmid else None
    locked = status.lock in _MOVE_LOCKS
    if source.qemu_alive():
        raise _both(spec, vm, status, came is not None)
    if status.runs or (came is not None and _as_its_owner_left_it(status, came)):
        return Arrival(vm.vmid, vm.node, came is not None, locked)
    if locked and came is None:
        raise TargetResidue(
            f"VM {vm.vmid} of the target has the uuid of VM {spec.vmid} and the lock of a move that did not end "
            f"({status.qmpstatus}); the VM does not run here either",
            side=Side.TARGET,
            object=f"VM {vm.vmid}",
            remedy=f"Do not start it: the disks of the source count unless a journal says otherwise. Start VM "
            f"{spec.vmid} here if it shall run, and remove what is at the target (docs: recovery)",
        )
    raise TargetNotRunning(
        f"VM {vm.vmid} is at the target but does not run there: it is {status.qmpstatus}"
        + ("" if status.genuine or status.status == "stopped" else ", and its monitor does not answer"),
        side=Side.TARGET,
        object=f"VM {vm.vmid}",
        remedy="Start or resume it at the target",
    )


def _as_its_owner_left_it(status: VmStatus, came: Facts) -> bool:
    """A VM that was moved paused or stopped need not run (DESIGN 3)."""
    run_state = came.running.get("run_state")
    if run_state == "paused":
        return status.genuine and status.qmpstatus == "paused"
    return run_state == "stopped" and status.status == "stopped"


def _both(spec: Spec, vm: VmResource, status: VmStatus, came: bool) -> MigrationError:
    """The source has a QEMU and the target has a VM of the uuid."""
    unknown = not status.genuine and status.lock in _MOVE_LOCKS
    waits = not came and (status.qmpstatus in _LOADING or unknown)
    if status.runs or (status.status == "running" and not waits):
        return Split(
            f"VM {spec.vmid} runs here and as VM {vm.vmid} at the target",
            side=Side.TARGET,
            object=f"VM {vm.vmid}",
            remedy="Decide which copy is right and stop the other one; nothing was changed",
        )
    return TargetResidue(
        f"the target has a VM {vm.vmid} of the same uuid that does not run",
        side=Side.TARGET,
        object=f"VM {vm.vmid}",
        remedy="Remove what an earlier run left (module target_recovery), or give another target.vmid",
    )


def _check_gone(spec: Spec, source: SourceNode, target: TargetApi, moved: Facts) -> None:
    """The journal says it was moved there, and no VM of its uuid is there: fine only if it came home.

    Raises:
        VmAmbiguous: the number belongs to another VM.
        TargetNotRunning: nobody runs it.
    """
    if source.qemu_alive():
        return
    if moved.target_vmid is not None and _is_there(target, moved.target_vmid):
        raise VmAmbiguous(
            f"VM {moved.target_vmid} at the target has another uuid than the VM that was moved there",
            side=Side.TARGET,
            object=f"VM {moved.target_vmid}",
            remedy="Look for the VM at the target; the source copy was kept, stopped and locked",
        )
    raise TargetNotRunning(
        f"VM {moved.target_vmid} was moved to node {spec.target.node} but is not there any more",
        side=Side.TARGET,
        object=f"VM {moved.target_vmid}",
        remedy="Look for the VM at the target; the source copy was kept, stopped and locked",
    )


def _residue_of(facts: Facts) -> TargetResidue:
    return TargetResidue(
        f"VM {facts.target_vmid} at the target is left from migration {facts.migration_id}",
        side=Side.TARGET,
        object=f"VM {facts.target_vmid}",
        remedy=str((facts.error or {}).get("remedy", "")) or "Remove it (module target_recovery)",
        facts={"residue": facts.residue, "migration_id": facts.migration_id},
    )
