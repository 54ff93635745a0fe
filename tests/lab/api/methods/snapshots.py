# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""/nodes/{node}/qemu/{vmid}/snapshot."""

from __future__ import annotations

from typing import Any, Dict, List

from lab.node import snapshots, vm, vmconfig

from ..registry import Call, Need, method
from ..schema import boolean, string

BASE = "/nodes/{node}/qemu/{vmid}/snapshot"
AUDIT = Need("/vms/{vmid}", ("VM.Audit",))
CHANGE = Need("/vms/{vmid}", ("VM.Snapshot",))
BACK = Need("/vms/{vmid}", ("VM.Snapshot", "VM.Snapshot.Rollback"), True)
READ = Need("/vms/{vmid}", ("VM.Snapshot", "VM.Snapshot.Rollback", "VM.Audit"), True)


@method("GET", BASE, {}, AUDIT)
def listing(call: Call) -> List[Dict[str, Any]]:
    """All snapshots, and the entry `current` that says which one the VM stands on."""
    config = vmconfig.load(call.node, call.vmid)
    running = vm.pid(call.node, call.vmid) is not None
    return snapshots.listing(config, running)


@method(
    "POST",
    BASE,
    {"snapname": string(), "description": string(optional=True), "vmstate": boolean(optional=True)},
    CHANGE,
)
def create(call: Call) -> str:
    """Take one in a task."""
    name, text = call.params["snapname"], call.params.get("description", "")
    snapshots.check_name(name)
    return call.spawn("qmsnapshot", str(call.vmid), lambda: snapshots.create(call.node, call.vmid, name, text))


@method("GET", BASE + "/{snapname}/config", {}, READ)
def config(call: Call) -> Dict[str, Any]:
    """The values of one."""
    found = vmconfig.load(call.node, call.vmid)
    return dict(found.typed(snapshots.get(found, call.params["snapname"])))


@method("DELETE", BASE + "/{snapname}", {"force": boolean(optional=True)}, CHANGE)
def delete(call: Call) -> str:
    """Remove one in a task."""
    name = call.params["snapname"]
    return call.spawn("qmdelsnapshot", str(call.vmid), lambda: snapshots.delete(call.node, call.vmid, name))


@method("POST", BASE + "/{snapname}/rollback", {"start": boolean(optional=True)}, BACK)
def rollback(call: Call) -> str:
    """Back to one in a task."""
    name = call.params["snapname"]

    def work() -> None:
        snapshots.rollback(call.node, call.vmid, name)
        if call.params.get("start"):
            vm.start(call.node, call.vmid)

    return call.spawn("qmrollback", str(call.vmid), work)
