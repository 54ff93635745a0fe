# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""What becomes of a VM on the target whose control channel was lost: the decision, and the order of the steps.

``plan`` decides from what was recorded and what is observed, and touches nothing. ``recover`` observes, plans and
carries out, through a :class:`TargetNode` that is passed in.

Rules (safety I1, I4, I6, I12; pve-cli 3):

* Nothing is done while the tunnel task runs: a command it has read may still take effect, up to ten seconds later.
* Nothing is done to a VM that does not carry the recorded uuid and lock. Before ``config`` was sent a VM has no uuid;
  then it must be an empty one with the lock ``create`` that was written while the task ran.
* A VM that runs, or whose task log shows ``resume``, is never removed: its disks may be the newer ones. One whose QEMU
  does not answer is removed only if nobody of ours can have let it run: the source has written no COMMIT_INTENT, and
  the log of the ended task is there and shows no ``resume``. Under our lock only root on that node could have done so.
* A VM is resumed only with COMMIT_INTENT, and unlocked only after the source was fenced. One that its owner had paused
  or stopped is not resumed.
* A volume is freed only if it was recorded and nothing refers to it; ``pvesm free`` itself would not ask.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Protocol, Tuple

from ..proxmox.vm_config import VmConfig
from .recovery_errors import (
    IntentMissing,
    LockChanged,
    RecordInvalid,
    TargetGone,
    TargetMayHaveRun,
    TargetNotLoaded,
    TunnelTaskRunning,
    VmidReused,
    VolumesDiffer,
)

__all__ = [
    "RESUME_RECEIVED",
    "Action",
    "Goal",
    "Observed",
    "Recorded",
    "Step",
    "TargetNode",
    "checked_upid",
    "observe",
    "plan",
    "recover",
]

_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_VOLUME = re.compile(r"[A-Za-z][A-Za-z0-9._-]*[A-Za-z0-9]:[^\s,:]+", re.ASCII)
_UPID = re.compile(r"UPID:[A-Za-z0-9.-]+(?::[0-9A-Fa-f]{8,9}){3}:qmtunnel:([0-9]+):[^:\s/]+:", re.ASCII)
_UPID_LENGTH = 255  # it is the name of a file too
RESUME_RECEIVED = "received command 'resume'"  # pve-cli 3: in the log before the task is reported stopped

# Run states of a QEMU in which the guest has not executed anything here.
NEVER_RAN = frozenset({"inmigrate", "prelaunch", "postmigrate", "paused"})


class Goal(enum.Enum):
    """What is to become of the VM."""

    REMOVED = "removed"
    RUNNING = "running"


class Action(enum.Enum):
    """One command, with its effect read back."""

    STOP = "stop"
    DESTROY = "destroy"
    FREE = "free"
    RESUME = "resume"
    UNLOCK = "unlock"


@dataclass(frozen=True)
class Step:
    """An action and the VM or volume it is about."""

    action: Action
    object: str

    def to_dict(self) -> Dict[str, str]:
        """As it stands in a result."""
        return {"action": self.action.value, "object": self.object}


@dataclass(frozen=True)
class Recorded:
    """What the journal of the source says about the VM on the target."""

    migration_id: str
    vmid: int
    uuid: str
    lock: Optional[str]
    upid: Optional[str]
    volumes: Tuple[str, ...]
    commit_intent: bool
    source_fenced: bool
    run_state: str = "running"

    @property
    def name(self) -> str:
        """The VM, for people."""
        return f"VM {self.vmid}"

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Recorded:
        """From the options of the module.

        Raises:
            RecordInvalid: RECORD_INVALID, names the option.
        """
        vmid, uuid = raw["vmid"], str(raw["uuid"]).lower()
        upid = raw.get("upid") or None
        _require(bool(_ID.fullmatch(str(raw["migration_id"]))), "migration_id", "32 hexadecimal digits")
        _require(isinstance(vmid, int) and 100 <= vmid <= 999999999, "vmid", "a number from 100 to 999999999")
        _require(bool(_UUID.fullmatch(uuid)), "uuid", "a uuid")
        if upid is not None:
            checked_upid(upid, vmid)
        for volume in raw.get("volumes") or ():
            _require(bool(_VOLUME.fullmatch(str(volume))), "volumes", "names such as fast:117/vm-117-disk-0.raw")
        return cls(
            migration_id=str(raw["migration_id"]),
            vmid=vmid,
            uuid=uuid,
            lock=raw.get("lock") or None,
            upid=str(upid) if upid else None,
            volumes=tuple(dict.fromkeys(str(volume) for volume in raw.get("volumes") or ())),
            commit_intent=bool(raw.get("commit_intent")),
            source_fenced=bool(raw.get("source_fenced")),
            run_state=str(raw.get("run_state") or "running"),
        )


def checked_upid(upid: Any, vmid: int) -> str:
    """The id of a tunnel task of a VM.

    Raises:
        RecordInvalid: RECORD_INVALID, it is something else.
    """
    match = _UPID.fullmatch(str(upid))
    valid = match is not None and match.group(1) == str(vmid) and len(str(upid)) <= _UPID_LENGTH
    _require(valid, "upid", f"a task of type qmtunnel for VM {vmid}")
    return str(upid)


def _require(holds: bool, option: str, expected: str) -> None:
    if not holds:
        raise RecordInvalid(f"option {option} must be {expected}", object=option, remedy="Take it from the result.")


@dataclass(frozen=True)
class Observed:
    """What is on the target node now.

    Attributes:
        task_running: Whether the recorded task, or any tunnel task for this VMID on this node, runs.
        resume_received: Whether the log of the recorded task says that ``resume`` arrived; None if there is no log.
        config: The VM's configuration here; None if there is none.
        owner: The node that has a VM or container of this number, if it is not here.
        written_by_task: Whether the configuration was last written while the recorded task ran.
        run_state: QEMU's own word; None without a QEMU, ``unknown`` if it does not answer.
        loaded: Whether QEMU says that an incoming migration has completed.
        existing: Those of the recorded volumes that exist.
        referrers: What refers to an existing recorded volume, this VM and its QEMU left out.
    """

    task_running: bool
    resume_received: Optional[bool]
    config: Optional[VmConfig]
    owner: Optional[str]
    written_by_task: bool
    run_state: Optional[str]
    loaded: bool
    existing: Tuple[str, ...]
    referrers: Mapping[str, str]

    @property
    def status(self) -> str:
        """The state of the VM in one word."""
        if self.config is None:
            return "absent"
        return self.run_state or "stopped"


class TargetNode(Protocol):
    """The target node, as root; ``target_node`` has the real one."""

    def task_running(self, upid: Optional[str], vmid: int) -> bool:
        """Whether the task, or any tunnel task for this VMID, runs."""

    def task_alive(self, upid: str) -> bool:
        """Whether the process of a task of this node lives: without it no command is executed any more."""

    def end_task(self, upid: str) -> None:
        """End a task of this node as Proxmox does; raises NodeCommandFailed if it lives on."""

    def task_log(self, upid: str) -> Optional[List[str]]:
        """The lines of its log, None if there is none."""

    def config(self, vmid: int) -> Optional[VmConfig]:
        """The configuration of a VM of this node."""

    def owner(self, vmid: int) -> Optional[str]:
        """Another node that has a VM or container of this number."""

    def written_by_task(self, vmid: int, upid: Optional[str]) -> bool:
        """Whether the configuration was last written while the task ran."""

    def run_state(self, vmid: int) -> Optional[str]:
        """QEMU's run state; None without a process, ``unknown`` if it does not answer."""

    def loaded(self, vmid: int) -> bool:
        """Whether an incoming migration has completed."""

    def exists(self, volume: str, vmid: int) -> bool:
        """Whether the volume is there."""

    def referrer(self, volume: str, vmid: int) -> Optional[str]:
        """A configuration or process other than those of this VM that refers to the volume."""

    def carry_out(self, step: Step, vmid: int) -> None:
        """Runs the command and reads its effect back; raises RecoveryFailed."""


def observe(recorded: Recorded, node: TargetNode) -> Observed:
    """Looks, in the order in which what is seen proves something: task, its log, then the VM (safety 5)."""
    running = node.task_running(recorded.upid, recorded.vmid)
    log = node.task_log(recorded.upid) if recorded.upid else None
    config = node.config(recorded.vmid)
    run_state = node.run_state(recorded.vmid)
    existing = tuple(volume for volume in recorded.volumes if node.exists(volume, recorded.vmid))
    referrers = {volume: node.referrer(volume, recorded.vmid) for volume in existing}
    return Observed(
        task_running=running,
        resume_received=None if log is None else any(RESUME_RECEIVED in line for line in log),
        config=config,
        owner=None if config is not None else node.owner(recorded.vmid),
        written_by_task=config is not None and node.written_by_task(recorded.vmid, recorded.upid),
        run_state=run_state,
        loaded=run_state == "paused" and node.loaded(recorded.vmid),
        existing=existing,
        referrers={volume: referrer for volume, referrer in referrers.items() if referrer},
    )


def plan(recorded: Recorded, observed: Observed, goal: Goal) -> List[Step]:
    """The steps that lead to ``goal``; none if it is reached.

    Raises:
        RecoveryRefused: its code names the rule that forbids it.
    """
    if observed.task_running:
        raise TunnelTaskRunning(
            f"the tunnel task of {recorded.name} has not ended",
            object=recorded.upid or recorded.name,
            remedy="End it with the token that opened it, or wait, and run this again.",
        )
    if goal is Goal.REMOVED:
        return _plan_removed(recorded, observed)
    return _plan_running(recorded, observed)


def _plan_removed(recorded: Recorded, observed: Observed) -> List[Step]:
    steps: List[Step] = []
    named: Tuple[str, ...] = ()
    if observed.config is None:
        _refuse_owner(recorded, observed)
        if observed.existing:
            _refuse_run(recorded, observed)
    else:
        _refuse_foreign(recorded, observed, observed.config)
        _refuse_run(recorded, observed)
        named = _volumes_of(observed.config)
        foreign = [volume for volume in named if volume not in recorded.volumes]
        if foreign:
            raise VolumesDiffer(
                f"{recorded.name} has volumes that the migration did not record: {', '.join(foreign)}",
                object=recorded.name,
                remedy="Look at them; detach what shall be kept.",
            )
        _refuse_shared(recorded, observed, named)
        if observed.run_state is not None:
            steps.append(Step(Action.STOP, recorded.name))
        steps.append(Step(Action.DESTROY, recorded.name))
    freed = [volume for volume in observed.existing if volume not in observed.referrers and volume not in named]
    return steps + [Step(Action.FREE, volume) for volume in freed]


def _plan_running(recorded: Recorded, observed: Observed) -> List[Step]:
    if not recorded.commit_intent:
        raise IntentMissing(
            f"the source has not given up the guest of {recorded.name}",
            object=recorded.name,
            remedy="Remove the VM here instead; the guest belongs to the source.",
        )
    if observed.config is None:
        _refuse_owner(recorded, observed)
        raise TargetGone(f"{recorded.name} is not there any more", object=recorded.name)
    if observed.config.uuid != recorded.uuid:
        raise _reused(recorded, observed.config)
    steps: List[Step] = []
    if recorded.run_state == "running" and observed.run_state != "running":
        _refuse_lock(recorded, observed.config)
        if observed.run_state is None:
            raise TargetGone(
                f"the QEMU of {recorded.name} is gone",
                object=recorded.name,
                remedy="A person has to decide which disks count; start nothing before.",
            )
        if observed.run_state != "paused" or not observed.loaded:
            raise TargetNotLoaded(
                f"{recorded.name} is {observed.run_state} and holds no complete guest", object=recorded.name
            )
        steps.append(Step(Action.RESUME, recorded.name))
    if observed.config.lock and recorded.source_fenced:
        _refuse_lock(recorded, observed.config)
        steps.append(Step(Action.UNLOCK, recorded.name))
    return steps


def _refuse_owner(recorded: Recorded, observed: Observed) -> None:
    if observed.owner:
        raise VmidReused(
            f"number {recorded.vmid} belongs to a guest of node {observed.owner}",
            object=recorded.name,
            remedy="Nothing of it was touched.",
        )


def _refuse_foreign(recorded: Recorded, observed: Observed, config: VmConfig) -> None:
    """Refuses a VM that is not, or not only, what the migration made."""
    if config.uuid:
        if config.uuid != recorded.uuid:
            raise _reused(recorded, config)
    elif set(config.values) != {"lock"} or config.lock != "create" or not observed.written_by_task:
        raise _reused(recorded, config)
    _refuse_lock(recorded, config)


def _refuse_lock(recorded: Recorded, config: VmConfig) -> None:
    own = {recorded.lock} if recorded.lock else {"create", "migrate"}
    if config.lock not in own:
        raise LockChanged(
            f"{recorded.name} is locked as {config.lock!r}"
            if config.lock
            else f"{recorded.name} has been unlocked by somebody else",
            object=recorded.name,
            remedy="Somebody has taken it over; nothing of it was touched.",
        )


def _refuse_run(recorded: Recorded, observed: Observed) -> None:
    """Refuses to remove what may hold newer data than the source."""
    if observed.resume_received or not _never_ran(recorded, observed):
        raise TargetMayHaveRun(
            f"{recorded.name} is {observed.status} and may have run here",
            object=recorded.name,
            remedy="Let it run (state: running), or decide by hand whose disks count.",
        )
    if observed.resume_received is None and recorded.commit_intent:
        raise TargetMayHaveRun(
            f"whether {recorded.name} ran here cannot be told, the log of its tunnel task is gone",
            object=recorded.upid or recorded.name,
            remedy="Decide by hand whose disks count.",
        )


def _never_ran(recorded: Recorded, observed: Observed) -> bool:
    """Whether the guest has executed nothing here, by QEMU's word; or, if it does not answer, because nobody let it."""
    if observed.run_state == "unknown":
        let_run = recorded.commit_intent or observed.resume_received is not False
        return observed.config is not None and not let_run
    return observed.run_state is None or observed.run_state in NEVER_RAN


def _refuse_shared(recorded: Recorded, observed: Observed, named: Tuple[str, ...]) -> None:
    """Refuses to destroy a VM together with a volume that something else uses: destroying does not ask."""
    for volume in named:
        if volume in observed.referrers:
            raise VolumesDiffer(
                f"volume {volume} of {recorded.name} is used by {observed.referrers[volume]}", object=volume
            )


def _reused(recorded: Recorded, config: VmConfig) -> VmidReused:
    return VmidReused(
        f"{recorded.name} is another VM by now (uuid {config.uuid or 'none'})",
        object=recorded.name,
        remedy="Nothing of it was touched.",
    )


def _volumes_of(config: VmConfig) -> Tuple[str, ...]:
    """The volumes that ``qm destroy`` would remove."""
    drives = config.drives() + config.unused()
    return tuple(
        drive.file for drive in drives if _VOLUME.fullmatch(drive.file) and (not drive.cdrom or drive.cloudinit)
    )


def recover(recorded: Recorded, node: TargetNode, state: str, *, check_mode: bool = False) -> Dict[str, Any]:
    """Brings the VM to ``state``; in check mode says how.

    Raises:
        RecoveryRefused: its code names the rule that forbids it, or the command that failed.
    """
    goal = Goal(state)
    seen = observe(recorded, node)
    steps = plan(recorded, seen, goal)
    result = {
        "changed": bool(steps),
        "steps": [step.to_dict() for step in steps],
        "kept": [{"volume": volume, "used_by": user} for volume, user in sorted(seen.referrers.items())],
        "status": seen.status,
        "diff": _diff(recorded, seen, steps, goal),
    }
    if check_mode:
        return result
    for step in steps:
        _confirm(recorded, node, step)
        node.carry_out(step, recorded.vmid)
    return result


def _confirm(recorded: Recorded, node: TargetNode, step: Step) -> None:
    """Looks once more, right before the command: the commands themselves ask nothing (pve-cli 1.7)."""
    if step.action is Action.FREE:
        user = node.referrer(step.object, recorded.vmid)
        if user:
            raise VolumesDiffer(f"volume {step.object} is used by {user}", object=step.object)
        return
    config = node.config(recorded.vmid)
    if config is None or config.uuid not in ("", recorded.uuid):
        raise VmidReused(f"{recorded.name} changed hands meanwhile", object=recorded.name)
    _refuse_lock(recorded, config)
    if step.action is Action.STOP and node.run_state(recorded.vmid) == "running":  # it did not answer before
        raise TargetMayHaveRun(f"{recorded.name} runs here", object=recorded.name)


def _diff(recorded: Recorded, seen: Observed, steps: List[Step], goal: Goal) -> Dict[str, Any]:
    before = {"status": seen.status, "lock": seen.config.lock if seen.config else "", "volumes": list(seen.existing)}
    if goal is Goal.REMOVED:
        after = {"status": "absent", "lock": "", "volumes": sorted(seen.referrers)}
    else:
        unlocked = any(step.action is Action.UNLOCK for step in steps)
        resumed = any(step.action is Action.RESUME for step in steps)
        after = dict(before, lock="" if unlocked else before["lock"])
        after["status"] = "running" if resumed else before["status"]
    return {"before": before, "after": after, "before_header": recorded.name, "after_header": recorded.name}
