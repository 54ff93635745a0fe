# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""``qemu-tcp``: RAM and disks to clear-text listeners that the target's QEMU opens (mtunnel-protocol 6.2, seed 000).

Only targets with a patch series of 2026 can do it; they say so in their reply to ``version``. Nothing on that wire
proves anything, so all of it hangs on the address: inside the proven network, the very one the proof is about, and what
the target answers is taken for nothing but that. The control channel and all imports stay on the websocket.
"""

from __future__ import annotations

import logging
from typing import Mapping, Optional, Tuple

from ..errors import CrossclusterError, Side
from ..network.verdict import Verdict
from ..proxmox import commands
from ..proxmox.replies import DiskReply
from ..transport.errors import PumpFailed
from ..transport.interface import Kind
from ..transport.policy import Rejection
from .context import Context
from .errors import Refused, TargetUnexpected, TransferFailed
from .meeting_point import available
from .world import Pump, Target

__all__ = ["NAME", "explain", "missing_capability", "missing_right", "open_stream", "start"]

NAME = "qemu-tcp"
_CAPABILITY = "insecure-remote"
_RIGHT = "Sys.Modify"
_LISTEN_TIMEOUT = 10.0  # seconds for TCP and an NBD greeting
_LOOK_TIMEOUT = 3.0  # seconds for the target to say whether its QEMU is there
_LOG = logging.getLogger(__name__)


def missing_right(target: Target) -> Optional[Rejection]:
    """Why the token may not ask for it; None when it may.

    The patch series asks for Sys.Modify on the source, of whoever asks there: that is root, by this worker. The
    listeners are opened on the target, where only this token asks, so the same is asked of it.
    """
    if _RIGHT in target.permissions().get("/", ()):
        return None
    return Rejection("PRIVILEGE_MISSING", f"the token of the target lacks {_RIGHT} on /, which clear text asks for")


def missing_capability(context: Context) -> Optional[Rejection]:
    """Why the target cannot do it, by its own word and by no version number; None when it can."""
    if _CAPABILITY in context.caps:
        return None
    node = context.spec.target.node
    return Rejection("CAPABILITY_MISSING", f"the target node {node} does not announce the capability {_CAPABILITY}")


def start(context: Context, nbd: Mapping[str, DiskReply], timeout: float) -> None:
    """Start the target's QEMU with its listeners, if the proof still holds: a reservation may have waited.

    Raises:
        Refused: the network is not proven any more.
        AnswerMalformed: it listens elsewhere than it must; the rollback stops it.
    """
    point, plan, wall = context.spec.incoming, context.plan, context.world.clock.wall()
    why = available(point, False, lambda _domain, _transport: None, wall)[NAME]
    if why is not None:
        raise Refused(
            f"clear text is not allowed any more: {why.reason}",
            code=why.code,
            side=Side.SOURCE,
            object="incoming.network",
            remedy="Run the play again: the network is proven anew",
        )
    command = commands.start(
        plan.source_node,
        context.spec.target.node,
        plan.machine,
        {key: {"volid": reply.volid, "drivestr": reply.drivestr} for key, reply in nbd.items()},
        plan.nets_host_mtu,
        plan.cpu,
        timeout,
        Verdict.parse(point.network).network,
    )
    places = context.require_tunnel().start_plain(command, point.address)
    context.listeners = places
    context.note("plain_listeners", address=places.address, ram_port=places.ram_port, nbd_port=places.nbd_port)


def open_stream(context: Context, name: str, kind: Kind) -> Tuple[Pump, str]:
    """A stream that QEMU may use now, and the path of its UNIX socket. RAM is dialled only when QEMU has come.

    Raises:
        TransferFailed: there is no listener any more.
    """
    places = context.listeners
    port = None if places is None else places.nbd_port if kind is Kind.NBD else places.ram_port
    if places is None or port is None:
        raise TargetUnexpected("the target does not listen", side=Side.TARGET, object=name)
    rate = None if kind is Kind.NBD else context.stream_rate(kind)
    pump, path = context.world.open_plain(name, kind, places.address, port, rate)
    context.pumps[name] = pump
    try:
        pump.wait_listening(context.world.clock.monotonic() + _LISTEN_TIMEOUT)
    except PumpFailed as error:
        raise explain(context, name) or error from error
    return pump, path


def explain(context: Context, name: str) -> Optional[TransferFailed]:
    """What it means that a stream broke and the target's QEMU is gone; None for everything else.

    Never while the guest stands still: by then RAM has its connection, and the target's API may take its time.
    """
    if not context.is_plain or context.stopped_at is not None:
        return None
    try:
        status = context.world.target.vm_status(context.target_vmid, timeout=_LOOK_TIMEOUT)
    except CrossclusterError as error:
        _LOG.warning("the target could not be read: %s", error)
        return None
    if status.status != "stopped":
        return None
    places = context.listeners
    where = f"{places.address} port {places.ram_port}" if places is not None else "its port"
    return TransferFailed(
        f"the target's QEMU ended while it waited for the guest. It does that when anybody connects to {where} "
        "before the source does: a port scan or a health check is enough",
        side=Side.TARGET,
        object=name,
        remedy="Keep everybody but the source node away from TCP 60000 to 60050 of the target, or list another "
        "transport; the guest runs on at the source",
    )
