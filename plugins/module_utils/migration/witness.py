# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""Who says what became of the target: its API, or its own node over ``control`` (safety 5, I4).

Both give the same readings. The node needs no API: it sees the tunnel task's process, the log and the VM's QEMU itself.
"""

from __future__ import annotations

from typing import Any, Mapping, Optional, Protocol

from ..errors import Side
from ..proxmox.errors import VmAbsent
from ..proxmox.target_api import VmStatus
from .errors import TargetUnexpected
from .target_recovery import RESUME_RECEIVED
from .world import Incoming, Target

__all__ = ["ApiWitness", "NodeWitness", "Witness"]

_END_WAIT = 30.0  # seconds; Proxmox gives a task 5 to end by itself (mtunnel-protocol 2.4)


class Witness(Protocol):
    """What is read back of one VM on the target."""

    knows_by: str  # for the proof: how it knows what QEMU does

    def status(self) -> Optional[VmStatus]:
        """State of the VM; None when it does not exist any more."""

    def uuid(self) -> str:
        """Of the VM that has the number now; empty without one."""

    def task_running(self, upid: str) -> bool:
        """Whether the tunnel task may still execute a command."""

    def resume_received(self, upid: str) -> bool:
        """Whether ``resume`` is in the log of the task; asked once the task has ended."""

    def end_task(self, upid: str) -> None:
        """End the task as Proxmox does it."""


class ApiWitness:
    """The target's API, with the token.

    Args:
        target: The API.
        vmid: Number of the VM.
    """

    knows_by = "with QMP-derived fields"

    def __init__(self, target: Target, vmid: int) -> None:
        self._target = target
        self._vmid = vmid

    def status(self) -> Optional[VmStatus]:
        """State of the VM, by status/current."""
        try:
            return self._target.vm_status(self._vmid)
        except VmAbsent:
            return None

    def uuid(self) -> str:
        """Of the VM that has the number now."""
        smbios = str(self._target.vm_config(self._vmid).get("smbios1", "")).lower()
        return next((part[5:] for part in smbios.split(",") if part.startswith("uuid=")), "")

    def task_running(self, upid: str) -> bool:
        """As the API has it, which looks for the process."""
        return self._target.task_status(upid).running

    def resume_received(self, upid: str) -> bool:
        """As the API reads the log."""
        return any(RESUME_RECEIVED in line for line in self._target.task_log(upid))

    def end_task(self, upid: str) -> None:
        """With the token, whose own task it is."""
        self._target.delete_task(upid)


class NodeWitness:
    """The incoming worker, root on the node of the VM.

    Args:
        incoming: It, by its stream ``control``.
    """

    knows_by = "by its own node, over control"

    def __init__(self, incoming: Incoming) -> None:
        self._incoming = incoming

    def status(self) -> Optional[VmStatus]:
        """State of the VM, by its config file and its QEMU's own word. A QEMU without a config file is not absent.

        Raises:
            TargetUnexpected: the answer is none, so it proves nothing.
        """
        seen = self._state()
        exists, run_state = seen.get("exists"), seen.get("run_state", 0)
        if not isinstance(exists, bool) or not (run_state is None or isinstance(run_state, str)):
            raise _no_proof("the state of the target VM was not told", "VM", "Run the play again")
        if run_state is None:
            return VmStatus("stopped", "stopped", str(seen.get("lock") or ""), False) if exists else None
        return VmStatus("running", run_state, str(seen.get("lock") or ""), run_state != "unknown")

    def uuid(self) -> str:
        """Of the VM that has the number now."""
        return str(self._state().get("uuid") or "")

    def _state(self) -> Mapping[str, Any]:
        return self._incoming.call("state")

    def task_running(self, upid: str) -> bool:
        """Whether its process lives."""
        return self._incoming.call("task", upid=upid).get("running") is not False

    def resume_received(self, upid: str) -> bool:
        """As the node reads the log.

        Raises:
            TargetUnexpected: there is no log.
        """
        received = self._incoming.call("task", upid=upid).get("resume_received")
        if not isinstance(received, bool):
            what = "the log of the tunnel task is gone, so nobody knows whether it was told to resume"
            raise _no_proof(what, upid, "Look at the target VM's state by hand")
        return received

    def end_task(self, upid: str) -> None:
        """As root."""
        self._incoming.call("end_task", _END_WAIT, upid=upid)


def _no_proof(what: str, object: str, remedy: str) -> TargetUnexpected:
    return TargetUnexpected(what, side=Side.TARGET, object=object, remedy=remedy)
