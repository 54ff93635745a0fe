# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""POST mtunnel and GET mtunnelwebsocket (mtunnel-protocol 3.1 and 3.2); neither is passed on to another node."""

from __future__ import annotations

import time
from typing import Dict

from lab import faults
from lab.node import vmconfig
from lab.node.tasks import Tasks

from .. import mtunnel, preconditions
from ..auth import Keys, Unauthorized
from ..registry import Call, Need, method
from ..schema import split_list, string

HEAD_START = 0.3  # seconds


@method(
    "POST",
    "/nodes/{node}/qemu/{vmid}/mtunnel",
    {"storages": string(optional=True, format="storage-list"), "bridges": string(optional=True)},
    needs=[Need("/vms/{vmid}", ("VM.Allocate",)), Need("/", ("Sys.Incoming",))],
    local=True,
)
def open_tunnel(call: Call) -> Dict[str, str]:
    """Check storages and bridges, take the VMID, start the worker; does not wait for its socket."""
    for sid in split_list(call.params.get("storages")):
        preconditions.storage(call.node, sid, call.may)
    for name in split_list(call.params.get("bridges")):
        preconditions.bridge(name)
    call.cluster.check_quorum()
    preconditions.stub(call.node, call.vmid)
    work = mtunnel.open_tunnel(call.node, call.vmid, call.caller.user)
    upid = call.spawn("qmtunnel", str(call.vmid), work)
    _let_it_listen(call, upid)
    socket = mtunnel.socket_of(call.vmid)
    ticket = Keys(call.node).tunnel_ticket(call.caller.user, socket, time.time())
    return {"upid": upid, "ticket": ticket, "socket": socket}


def _let_it_listen(call: Call, upid: str) -> None:
    """The real worker listens before or within a millisecond after the answer, in nearly every case (pve-cli 6).

    Ours gets the same head start on a busy machine; when the config flock is held, the race is as open as there.
    """
    deadline = time.monotonic() + HEAD_START
    while time.monotonic() < deadline and "mtunnel started" not in Tasks(call.node).log(upid)[0]:
        time.sleep(0.002)


@method(
    "GET",
    "/nodes/{node}/qemu/{vmid}/mtunnelwebsocket",
    {"ticket": string(), "socket": string()},
    local=True,
)
def websocket(call: Call) -> Dict[str, str]:
    """Check a ticket; the front end upgrades afterwards if it was asked to."""
    vmconfig.load(call.node, call.vmid)
    path, ticket = call.params["socket"], call.params["ticket"]
    refused = faults.find("tickets_refused", vmid=call.vmid)
    if refused and path.endswith(refused.get("socket", "")) and faults.take("tickets_refused", vmid=call.vmid):
        raise Unauthorized("permission denied - invalid PVETUNNEL ticket", True)
    if not Keys(call.node).tunnel_ticket_valid(ticket, call.caller.user, path, time.time()):
        raise Unauthorized("permission denied - invalid PVETUNNEL ticket", True)
    return {"socket": path}
