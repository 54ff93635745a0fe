# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The direct transports in the order of a migration: stand, attach, open, and what is done over ``control``.

All streams stand authenticated and beating before anything is written on either side (DESIGN 5.0): a stream that
stands has proven address, port, firewall and certificates. Nothing touches QEMU's sockets before ``attach``.
"""

from __future__ import annotations

import logging
from typing import Any, Dict, Mapping, Optional, Tuple

from ..errors import CrossclusterError
from ..proxmox import replies
from ..qemu.mirror import supports_copy_mode_change
from ..transport import policy
from ..transport.interface import Kind
from ..transport.policy import Rejection
from . import qemu_tcp, qemu_tls
from .context import Context
from .meeting_point import available
from .plan import Plan
from .witness import ApiWitness, NodeWitness, Witness
from .world import Export, Pump

__all__ = [
    "attach",
    "is_loaded",
    "leave",
    "open_stream",
    "reach",
    "remove",
    "resume",
    "stand",
    "state",
    "take_next",
    "unlock",
    "witness",
]

_STAND_TIMEOUT = 10.0  # seconds for TCP, TLS and the greeting of all streams; the target gives each 5 s
_LISTEN_TIMEOUT = 10.0  # seconds for OPEN and an NBD greeting
_RECOVERY_WAIT = 300.0  # seconds; the incoming worker gives the commands of its node 330 in all
_RESUME_WAIT = 60.0  # seconds; `qm resume` may wait for the config lock, the node then looks 15 s for a guest that runs
_END_WAIT = 30.0  # seconds for a task to end: Proxmox gives it 5 (mtunnel-protocol 2.4)
_REACH_TIMEOUT = 5.0  # seconds for the target to see the end of the `control` before: its deadman has 2 s
_REACH_PAUSE = 0.5
_MOST_CONTROLS = 9  # the highest number in the name of a stream
_CONTROL = "control"
_LOG = logging.getLogger(__name__)


def stand(context: Context, plan: Plan) -> None:
    """Step 0: dial every stream; what cannot stand is rejected by name and the next listed transport is taken.

    Raises:
        NoTransportUsable: none of those listed; nothing was written.
    """
    while context.is_direct:
        try:
            _dial_all(context, plan)
            return
        except CrossclusterError as error:
            _LOG.warning("transport %s: %s", context.facts.transport, error)
            context.drop_direct()
            # A stream that never stood knows more than that it is none.
            take_next(context, Rejection(str(error.facts.get("code") or error.code), error.message))


def _dial_all(context: Context, plan: Plan) -> None:
    """``control`` first: it alone tells why the others are refused, and has the key of those that QEMU encrypts."""
    qemu_tls.rehearse(context, plan)
    control = _dial_control(context)
    context.opaque_key = qemu_tls.opaque_key(context)
    _dial_streams(context, plan)
    context.note("standing", peer=dict(control.peer or {}))


def _dial_control(context: Context) -> Pump:
    """Requests go over it from now on. Its socket is not the worker's own ``control``."""
    control = _dial(context, _CONTROL, Kind.CONTROL, _control_name(context))
    control.wait_standing(context.world.clock.monotonic() + _STAND_TIMEOUT)
    context.control_pump = context.standing.pop(_CONTROL)
    context.incoming = context.world.open_incoming(_listen(context, control, "incoming"))
    return control


def _control_name(context: Context) -> str:
    """A name for ``control`` that no transport and no worker before us has used: none is ever opened twice."""
    if not context.control_name:
        number = context.facts.controls + 1
        context.note_or_remember("control", number=number)
        context.control_name = _CONTROL if number == 1 else f"{_CONTROL}.{number}"
    return context.control_name


def _dial(context: Context, name: str, kind: Kind, stream: str, export: Optional[Export] = None) -> Pump:
    transport, key = context.facts.transport, context.opaque_key
    context.standing[name] = context.world.dial(transport, name, kind, stream, export, key)
    return context.standing[name]


def take_next(context: Context, why: Rejection) -> None:
    """Take the next listed transport, because this one cannot be used.

    Raises:
        NoTransportUsable: there is none.
    """
    facts = context.facts
    known = available(
        context.spec.incoming,
        context.world.has_incoming_key,
        context.world.bad_credentials,
        context.world.clock.wall(),
    )
    for entry in facts.transports_rejected:
        known[entry["transport"]] = Rejection(entry["code"], entry["reason"])
    known[facts.transport] = why
    choice = policy.choose(context.spec.transports, known)
    context.note("transport", transport=choice.name, rejected=choice.rejected_as_list())


def attach(context: Context) -> None:
    """Tell the incoming worker which sockets QEMU opened; it checks that they are those of this VM."""
    if not context.is_direct:
        return
    if context.facts.attempts:
        _dial_again(context)
    else:
        vmid = context.target_vmid
        nbd = replies.nbd_socket(vmid) if context.plan.mirrored else None
        context.require_incoming().call(
            "attach", vmid=vmid, uuid=context.facts.uuid, ram=replies.ram_socket(vmid), nbd=nbd
        )
    qemu_tls.arm(context)
    if context.plan.qemu and supports_copy_mode_change(context.plan.qemu):
        context.require_incoming().call("seal")  # no second attempt will be needed: nobody else may come


def _dial_again(context: Context) -> None:
    """A new attempt of a move that did not converge has streams of its own: none is ever opened twice."""
    _dial_streams(context, context.plan, f".{context.facts.attempts + 1}")


def _dial_streams(context: Context, plan: Plan, attempt: str = "") -> None:
    """What QEMU will use; returns when all that was dialled stands."""
    for volume in plan.mirrored:
        _dial(context, volume.key, Kind.NBD, f"disk/{volume.key}{attempt}")
    if plan.run_state != "stopped":
        _dial(context, "ram", Kind.RAM, f"ram{attempt}")
    end = context.world.clock.monotonic() + _STAND_TIMEOUT
    for pump in context.standing.values():
        pump.wait_standing(end)


def open_stream(
    context: Context, name: str, kind: Kind, remote: str, export: Optional[Export] = None
) -> Tuple[Pump, str]:
    """A stream that QEMU (or the exporter) may use now, and the path of its UNIX socket (empty for an import)."""
    if context.is_plain and kind is not Kind.IMPORT:
        return qemu_tcp.open_stream(context, name, kind)
    if not context.is_direct:
        return context.open_websocket(name, kind, remote, export)
    clock = context.world.clock
    if kind is Kind.IMPORT:
        # Its descriptor exists only now; control has shown that the way is open.
        context.require_incoming().call("attach_import", vmid=context.target_vmid)
        _dial(context, name, kind, name.replace("-", "/", 1), export).wait_standing(clock.monotonic() + _STAND_TIMEOUT)
    pump = context.standing.pop(name)
    context.pumps[name] = pump
    pump.set_rate(context.stream_rate() if kind is not Kind.NBD else None)
    if kind is Kind.IMPORT:
        pump.open()
        return pump, ""
    return pump, _listen(context, pump, name)


def _listen(context: Context, pump: Pump, name: str) -> str:
    path = context.world.socket_path(name)
    pump.open(path)
    pump.wait_listening(context.world.clock.monotonic() + _LISTEN_TIMEOUT)
    return path


# Over ``control``, when Proxmox's own control channel is gone. What fails here is told as residue, as without it.


def reach(context: Context) -> None:
    """Come back to an incoming worker of which this worker has no ``control`` (any more), if there is one.

    A worker that was started again has none; and one whose network was silent has lost its own. Certificates, or the
    key among the secrets, are all that it takes.
    """
    if not context.is_direct or not context.facts.stood or _has_control(context):
        return
    context.drop_direct()
    clock = context.world.clock
    end = clock.monotonic() + _REACH_TIMEOUT
    while context.incoming is None and context.facts.controls < _MOST_CONTROLS:
        name = _control_name(context)
        try:
            _dial_control(context)
        except CrossclusterError as error:
            _LOG.warning("%s: %s", name, error)
            stood = context.control_pump is not None
            context.drop_direct()
            if not stood:
                context.control_name = name  # nobody has used it
            if clock.monotonic() > end:
                return
            clock.sleep(_REACH_PAUSE)


def _has_control(context: Context) -> bool:
    if context.control_pump is None:
        return False
    context.control_pump.poll_events()
    return context.control_pump.ended is None


def witness(context: Context) -> Witness:
    """Who is to say what became of the target: its node, if it answers over ``control``, else the API."""
    reach(context)
    if state(context) is not None:
        return NodeWitness(context.require_incoming())
    return ApiWitness(context.world.target, context.target_vmid)


def state(context: Context) -> Optional[Mapping[str, Any]]:
    """What the VM is on the target node, by QEMU's own word; None when nobody can be asked."""
    return None if context.incoming is None else _call(context, "state")


def is_loaded(context: Context) -> bool:
    """Whether the target holds the whole guest, paused, still under our lock."""
    seen = state(context) or {}
    migrate = seen.get("migrate")
    return (
        seen.get("uuid") == context.facts.uuid
        and seen.get("lock") == "migrate"
        and seen.get("run_state") == "paused"
        and isinstance(migrate, dict)
        and migrate.get("status") == "completed"
    )


def resume(context: Context) -> None:
    """Have the guest run on the target, by all rules of ``target_recovery``.

    Raises:
        Recorded: the target node's reason; one of ``recovery_errors`` means that nothing was done.
        WorkerUnreachable: no answer; it may have been done, or may be done yet.
    """
    context.require_incoming().call("resume", _RESUME_WAIT, recorded=_recorded(context, [], []))


def remove(context: Context, left: Any) -> bool:
    """Have what is left at the target removed, as its node reads back; whether it was."""
    upids = [entry["upid"] for entry in left if entry["kind"] == "task"]
    volumes = [entry["volid"] for entry in left if entry["kind"] == "volume"]
    return _recover(context, "remove", upids, volumes)


def unlock(context: Context) -> bool:
    """Have the target's lock taken off after the source was fenced; whether it was."""
    return _recover(context, "resume", [], [])


def _recover(context: Context, operation: str, upids: Any, volumes: Any) -> bool:
    if context.incoming is None:
        return False
    recorded = _recorded(context, upids, volumes)
    if recorded["upid"]:  # it outlives a connection that fell silent, and then the API was not there to end it
        _call(context, "end_task", _END_WAIT, upid=recorded["upid"])
    return _call(context, operation, _RECOVERY_WAIT, recorded=recorded) is not None


def _recorded(context: Context, upids: Any, volumes: Any) -> Dict[str, Any]:
    """What the journal says about the VM on the target, as ``target_recovery`` wants it."""
    facts = context.facts
    made = [volume.volid for volume in facts.volumes.values() if volume.volid]
    return {
        "vmid": context.target_vmid,
        "uuid": facts.uuid,
        "upid": facts.upid or next(iter(upids), None),
        "volumes": sorted({*made, *volumes}),
        "commit_intent": facts.intents > 0,
        "source_fenced": facts.source_fenced,
        "run_state": facts.running.get("run_state"),
    }


def leave(context: Context) -> None:
    """The incoming worker is not needed any more: it takes listener, rules and itself away."""
    if context.incoming is not None:
        _call(context, "bye")
    context.drop_direct()


def _call(context: Context, operation: str, wait: float = 0.0, **values: Any) -> Optional[Mapping[str, Any]]:
    try:
        return context.require_incoming().call(operation, wait, **values)
    except CrossclusterError as error:
        _LOG.warning("%s over control: %s", operation, error)
        return None
