# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""POST remote_migrate of the stock source: every refusal, and its task up to the tunnel's version."""

from __future__ import annotations

from typing import Any, Dict

from lab.node import vm, vmconfig
from lab.node.base import Die

from ..personality import current
from ..registry import Call, Need, method
from ..schema import Field, boolean, enum, integer, string
from ..stock_source import Endpoint, StockSource

PARAMETERS: Dict[str, Field] = {
    "target-vmid": integer(optional=True, minimum=100),
    "target-endpoint": string(),
    "target-storage": string(),
    "target-bridge": string(),
    "online": boolean(optional=True),
    "delete": boolean(optional=True),
    "bwlimit": integer(optional=True, minimum=0),
}
PATCHED: Dict[str, Field] = {
    "migration_type": enum("websocket", "insecure", optional=True),
    "migration_network": string(optional=True, format="cidr"),
}


@method(
    "POST",
    "/nodes/{node}/qemu/{vmid}/remote_migrate",
    {**PARAMETERS, **PATCHED},
    needs=[Need("/vms/{vmid}", ("VM.Migrate",))],
)
def remote_migrate(call: Call) -> str:
    """Check everything that needs no task, then start it."""
    params: Dict[str, Any] = call.params
    asked = [key for key in PATCHED if params.get(key) is not None]
    if asked and not current().generation.insecure_remote:
        raise Die("insecure migration to remote cluster not implemented")
    if params.get("migration_type") == "insecure" or params.get("migration_network"):
        call.need("/", "Sys.Modify")
    config = vmconfig.load(call.node, call.vmid)
    vmconfig.check_lock(config)
    if vm.pid(call.node, call.vmid) is not None and not params.get("online"):
        raise Die("can't migrate running VM without --online")
    if params["target-storage"] == "1":
        raise Die("remote migration requires explicit storage mapping!")
    endpoint = Endpoint.parse(params["target-endpoint"])
    node = endpoint.call("GET", "/cluster/status")
    local = next((entry["name"] for entry in node if entry.get("local")), call.node.name)
    source = StockSource(
        endpoint=endpoint,
        node=str(local),
        target=int(params.get("target-vmid") or call.vmid),
        storages=_targets(params["target-storage"]),
        bridges=_targets(params["target-bridge"]),
        insecure=params.get("migration_type") == "insecure",
    )
    return call.spawn("qmigrate", str(call.vmid), source.run)


def _targets(text: str) -> str:
    """The right-hand sides of a mapping, each once."""
    return ",".join(dict.fromkeys(part.rpartition(":")[2] for part in text.split(",")))
