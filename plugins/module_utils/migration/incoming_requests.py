# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""What the source may ask of the target node over the stream ``control``, and what is checked before it is done.

The source names a VM once (``attach``, ``attach_import``); every later request is about that one and nothing else.
QEMU's sockets are looked at with ``stat`` only: connecting to the RAM socket and closing again ends the target QEMU
(direct-transports 7). Removing and resuming go through ``target_recovery`` with all its rules.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Dict, Mapping, Optional, Protocol, Tuple

from ..proxmox.replies import import_socket, nbd_socket, ram_socket
from ..qemu.errors import QemuError
from ..transport.incoming_errors import AttachRefused, NotAttached, RequestInvalid
from . import incoming_tls
from .target_recovery import RESUME_RECEIVED, Recorded, TargetNode, checked_upid, recover

__all__ = ["OPERATIONS", "Attachment", "World", "carry_out"]

_EXPORT = re.compile(r"drive-[a-z]{3,8}[0-9]{1,3}", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


class Qemu(incoming_tls.Monitor, Protocol):
    """The monitor of one QEMU: connect, act, disconnect."""

    def run(self, command: str) -> Any:
        """The value of one command; raises QemuError."""


@dataclass(frozen=True)
class World:
    """The target node.

    Attributes:
        node: What ``target_recovery`` does things with.
        monitor: The monitor of a VM.
        is_socket: Whether there is a UNIX socket of that path, by ``stat``.
        unlink: Removes a file; one that is not there is no matter.
        credentials: Directory of this node's certificates; empty without TLS.
        peer_name: The name in the source's certificate.
    """

    node: TargetNode
    monitor: Callable[[int], Qemu]
    is_socket: Callable[[str], bool]
    unlink: Callable[[str], None]
    credentials: str = ""
    peer_name: str = ""


@dataclass(frozen=True)
class Attachment:
    """The VM that this is about, once the source has said so.

    Attributes:
        migration_id: Whose requests are served.
        vmid: Number of the VM; None before the first attach.
        uuid: Its uuid; empty while only imports are attached.
        paths: The socket of each kind of stream, ``ram``, ``disk``, ``import``.
        armed: Its QEMU may have TLS settings of ours.
    """

    migration_id: str
    vmid: Optional[int] = None
    uuid: str = ""
    paths: Mapping[str, str] = field(default_factory=dict)
    armed: bool = False

    def path(self, stream: str) -> Optional[str]:
        """The socket for a stream, by its name (``ram``, ``disk/scsi0.2``); None when it was not attached."""
        return self.paths.get(re.split(r"[/.]", stream)[0])


Operation = Callable[[Attachment, Mapping[str, Any], World], Tuple[Dict[str, Any], Attachment]]


def carry_out(
    op: str, attachment: Attachment, request: Mapping[str, Any], world: World
) -> Tuple[Dict[str, Any], Attachment]:
    """Serve one request: its answer and what is attached afterwards.

    Raises:
        CrossclusterError: nothing was done, or the code says what was not done.
    """
    return OPERATIONS[op](attachment, request, world)


def _attach(attachment: Attachment, request: Mapping[str, Any], world: World) -> Tuple[Dict[str, Any], Attachment]:
    """The VM that QEMU was started for: exact paths, sockets, our lock, the uuid of the spec."""
    vmid, uuid = _vmid(attachment, request), str(request.get("uuid")).lower()
    _require(bool(_UUID.fullmatch(uuid)), "uuid must be a uuid")
    paths = dict(attachment.paths)
    for kind, option, exact in (("ram", "ram", ram_socket(vmid)), ("disk", "nbd", nbd_socket(vmid))):
        given = request.get(option)
        if given is None and option == "nbd":
            continue  # a VM without disks
        _require(given == exact, f"{option} must be {exact}")
        _look(world, exact)
        paths[kind] = exact
    config = world.node.config(vmid)
    if config is None or config.uuid != uuid or config.lock != "migrate":
        found = "absent" if config is None else f"uuid {config.uuid or 'none'}, lock {config.lock or 'none'}"
        raise AttachRefused(
            f"VM {vmid} is not the one that this migration made ({found})",
            object=f"VM {vmid}",
            remedy="Nothing of it was touched; run the play again",
            facts={"found": found},
        )
    if attachment.uuid and (attachment.uuid != uuid or dict(attachment.paths) != paths):
        raise AttachRefused(f"VM {vmid} is attached already, in another way", object=f"VM {vmid}")
    attached = replace(attachment, vmid=vmid, uuid=uuid, paths=paths)
    return {"vmid": vmid, "uuid": uuid, "paths": paths}, attached


def _attach_import(
    attachment: Attachment, request: Mapping[str, Any], world: World
) -> Tuple[Dict[str, Any], Attachment]:
    """The socket of the one running import; there is a new one of the same name for each."""
    vmid = _vmid(attachment, request)
    path = import_socket(vmid)
    _look(world, path)
    config = world.node.config(vmid)
    if config is None or config.lock not in ("create", "migrate") or attachment.uuid not in ("", config.uuid):
        raise AttachRefused(f"VM {vmid} is not being made by a migration", object=f"VM {vmid}")
    paths = {**attachment.paths, "import": path}
    return {"vmid": vmid, "path": path}, replace(attachment, vmid=vmid, paths=paths)


def _state(attachment: Attachment, _request: Mapping[str, Any], world: World) -> Tuple[Dict[str, Any], Attachment]:
    """What the VM is now: by its configuration and by QEMU's own word."""
    vmid = _attached(attachment)
    config = world.node.config(vmid)
    run_state = world.node.run_state(vmid)
    answer = {
        "vmid": vmid,
        "exists": config is not None,
        "uuid": config.uuid if config else "",
        "lock": config.lock if config else "",
        "run_state": run_state,
        "migrate": _incoming_migration(world.monitor(vmid)) if run_state is not None else {},
    }
    return answer, attachment


def _incoming_migration(monitor: Qemu) -> Dict[str, Any]:
    try:
        answer = monitor.run("query-migrate")
    except QemuError as error:
        return {"status": "unknown", "error": error.message}
    answer = answer if isinstance(answer, dict) else {}
    return {"status": str(answer.get("status", "none")), "error": str(answer.get("error-desc", ""))[:1000]}


def _task(attachment: Attachment, request: Mapping[str, Any], world: World) -> Tuple[Dict[str, Any], Attachment]:
    """Whether the tunnel task of the VM has ended, and only then what its log says: in this order it proves something.

    Nobody but root on this node can tell when the API does not answer (safety I4).
    """
    upid = checked_upid(request.get("upid"), _attached(attachment))
    running = world.node.task_alive(upid)
    log = world.node.task_log(upid)
    received = None if log is None else any(RESUME_RECEIVED in line for line in log)
    return {"running": running, "resume_received": received}, attachment


def _end_task(attachment: Attachment, request: Mapping[str, Any], world: World) -> Tuple[Dict[str, Any], Attachment]:
    """The tunnel task of the VM has ended: a connection that fell silent keeps it for long."""
    world.node.end_task(checked_upid(request.get("upid"), _attached(attachment)))
    return {}, attachment


def _resume(attachment: Attachment, request: Mapping[str, Any], world: World) -> Tuple[Dict[str, Any], Attachment]:
    """The guest runs here: only with the source's word that it has given it up, and all rules of target_recovery."""
    return recover(_recorded(attachment, request), world.node, "running"), attachment


def _remove(attachment: Attachment, request: Mapping[str, Any], world: World) -> Tuple[Dict[str, Any], Attachment]:
    """What the journal of the source recorded is gone, and the sockets that ``qm destroy`` leaves behind."""
    recorded = _recorded(attachment, request)
    result = recover(recorded, world.node, "removed")
    if world.node.config(recorded.vmid) is None and world.node.run_state(recorded.vmid) is None:
        for path in (ram_socket(recorded.vmid), nbd_socket(recorded.vmid), import_socket(recorded.vmid)):
            if world.is_socket(path):
                world.unlink(path)
    return result, attachment


def _tls_arm(attachment: Attachment, request: Mapping[str, Any], world: World) -> Tuple[Dict[str, Any], Attachment]:
    """QEMU's own TLS, before anything flows: for the source that this listening end was started for, no other."""
    vmid, exports = _attached(attachment), request.get("exports")
    _require(bool(world.credentials and world.peer_name), "this node listens without certificates")
    _require("ram" in attachment.paths, "attach comes first")
    _require(
        isinstance(exports, list) and all(isinstance(name, str) and _EXPORT.fullmatch(name) for name in exports),
        "exports must be a list such as drive-scsi0",
    )
    answer = incoming_tls.arm(
        world.monitor(vmid),
        directory=world.credentials,
        peer_name=world.peer_name,
        nbd=attachment.paths.get("disk"),
        exports=exports or [],
    )
    return answer, replace(attachment, armed=True)


def _tls_disarm(attachment: Attachment, _request: Mapping[str, Any], world: World) -> Tuple[Dict[str, Any], Attachment]:
    """Nothing of ours stays in a QEMU whose guest has arrived."""
    return incoming_tls.disarm(world.monitor(_attached(attachment))), replace(attachment, armed=False)


OPERATIONS: Mapping[str, Operation] = {
    "attach": _attach,
    "attach_import": _attach_import,
    "state": _state,
    "task": _task,
    "end_task": _end_task,
    "resume": _resume,
    "remove": _remove,
    "tls_arm": _tls_arm,
    "tls_disarm": _tls_disarm,
}


def _attached(attachment: Attachment) -> int:
    """The number of the VM that this is about."""
    if attachment.vmid is None:
        raise NotAttached("no VM was attached yet", object="control")
    return attachment.vmid


def _vmid(attachment: Attachment, request: Mapping[str, Any]) -> int:
    """The number of the VM: final once it was given."""
    vmid = request.get("vmid")
    valid = isinstance(vmid, int) and not isinstance(vmid, bool) and 100 <= vmid <= 999999999
    _require(valid, "vmid must be a number from 100 to 999999999")
    if attachment.vmid not in (None, vmid):
        raise AttachRefused(f"this is about VM {attachment.vmid} already", object=f"VM {vmid}")
    return int(vmid)  # type: ignore[arg-type]


def _recorded(attachment: Attachment, request: Mapping[str, Any]) -> Recorded:
    """What the source has recorded: ``recorded`` has the options of ``target_recovery``, about the attached VM."""
    raw = request.get("recorded")
    if not isinstance(raw, Mapping):
        raise RequestInvalid("recorded must hold what the migration has recorded", object="control")
    _vmid(attachment, raw)
    recorded = Recorded.parse(dict(raw, migration_id=attachment.migration_id, uuid=raw.get("uuid")))
    if attachment.uuid not in ("", recorded.uuid):
        raise AttachRefused(f"{recorded.name} is attached with another uuid", object=recorded.name)
    return recorded


def _look(world: World, path: str) -> None:
    if not world.is_socket(path):
        raise AttachRefused(
            f"there is no socket {path}", object=path, remedy="QEMU has ended or was not started for a migration"
        )


def _require(holds: bool, text: str) -> None:
    if not holds:
        raise RequestInvalid(text, object="control")
