# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""/nodes/{node}/qemu/{vmid}/agent: the guest agent, by one path for all commands or one for each."""

from __future__ import annotations

from typing import Any, Callable, Dict

from lab.node import guest_agent

from ..registry import Call, Need, method
from ..schema import enum

BASE = "/nodes/{node}/qemu/{vmid}/agent"


@method("POST", BASE, {"command": enum(*sorted(guest_agent.COMMANDS))})
def any_command(call: Call) -> Dict[str, Any]:
    """The command as a parameter; it asks for what its own path asks for."""
    name = call.params["command"]
    call.need("/vms/%d" % call.vmid, *guest_agent.privileges(name), any_of=True)
    return {"result": guest_agent.run(call.node, call.vmid, name)}


def _own_path(name: str) -> Callable[[Call], Any]:
    def run(call: Call) -> Dict[str, Any]:
        return {"result": guest_agent.run(call.node, call.vmid, name)}

    return run


for _name, (_verb, _privileges) in guest_agent.COMMANDS.items():
    method(_verb, "%s/%s" % (BASE, _name), {}, Need("/vms/{vmid}", _privileges, True))(_own_path(_name))
