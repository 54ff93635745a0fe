# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands before the tasks that change a VM's state, the same for `qm` and the API (pve-cli 4 and 7).

Starts, stops and shutdowns look for the VM in their task only; the others refuse at once.
"""

from __future__ import annotations

import os
from typing import Callable, Optional, Tuple

from . import texts, vm
from .base import Die, Node, ParamError, complain
from .cluster import Cluster
from .ha import Resources
from .vmconfig import check_lock, load

__all__ = ["check_migration", "must_run", "paused", "request_of_ha", "shutdown"]

PAUSED = ("paused", "prelaunch", "suspended")


def must_run(node: Node, vmid: int) -> None:
    """Die with the status of a missing file: without its config on this node, or without a process."""
    if not Cluster(node).exists(vmid):
        raise Die(texts.no_such_config(node.name, vmid), 2)
    if vm.pid(node, vmid) is None:
        raise Die(texts.not_running(vmid), 2)


def paused(node: Node, vmid: int) -> bool:
    """Whether the monitor says that the VM stands still; no answer is only a warning."""
    try:
        if not Cluster(node).exists(vmid):
            raise Die(texts.no_such_config(node.name, vmid))
        return vm.command(node, vmid, "query-status")["status"] in PAUSED
    except Die as error:
        complain(error.text + "\n")
        return False


def shutdown(node: Node, vmid: int, force: bool) -> bool:
    """Whether to ask the guest (else the VM is stopped): a VM that stands still would obey only when it runs again."""
    if not paused(node, vmid):
        return True
    if not force:
        raise Die("VM is paused - cannot shutdown")
    complain("VM is paused - stop instead of shutdown")
    return False


def request_of_ha(node: Node, vmid: int, action: str) -> Optional[Tuple[str, Callable[[], None]]]:
    """Type and work of the task that asks HA instead, for a VM that HA acts on, whatever its lock.

    A stop is a word to the manager, which alone would change the requested state; none runs here (recorded).
    """
    if not Resources(node).managed(vmid):
        return None

    def work() -> None:
        os.write(1, f"Requesting HA {action} for VM {vmid}\n".encode())
        if action == "start":
            Resources(node).set(f"vm:{vmid}", "started")

    return f"ha{action}", work


def check_migration(node: Node, vmid: int, target: str, online: bool) -> None:
    """The refusals of a migration within the cluster, in their order."""
    if target == node.name:
        raise ParamError({"target": "target is local node."})
    Cluster(node).check_quorum()
    if target not in Cluster(node).nodes():
        raise Die(f"no such cluster node '{target}'")
    check_lock(load(node, vmid))
    if vm.pid(node, vmid) is not None and not online:
        raise Die("can't migrate running VM without --online")
