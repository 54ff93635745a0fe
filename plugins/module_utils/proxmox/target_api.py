# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""The REST calls on the target that a migration needs, with typed answers."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence
from urllib.parse import quote

from .errors import AnswerMalformed, ApiRefused, VmAbsent, printable
from .replies import TICKET
from .session import Session

__all__ = [
    "BridgeInfo",
    "StorageInfo",
    "TargetApi",
    "TaskStatus",
    "TunnelGrant",
    "VmResource",
    "VmStatus",
    "control_socket",
]

# pve-cli 1.3: with QMP busy the target falls back to "running" after 3 s.
_GENUINE_WITHIN = 2.0
_LOG_PAGE = 500
_LOG_LIMIT = 100_000  # lines; two of a tunnel's task stand for one command, one for each percent of an import
_UPID = re.compile(
    r"UPID:[A-Za-z0-9.-]+:[0-9A-Fa-f]{8}:[0-9A-Fa-f]{8,9}:[0-9A-Fa-f]{8}:qmtunnel:([0-9]+):[^:\s/]+:", re.ASCII
)


def control_socket(vmid: int) -> str:
    """Path of the control socket of a tunnel on the target."""
    return f"/run/qemu-server/{vmid}.mtunnel"


@dataclass(frozen=True)
class TunnelGrant:
    """What POST mtunnel gives; the ticket is a secret of 40 s and does not show in ``repr``."""

    upid: str
    ticket: str
    socket: str

    @classmethod
    def parse(cls, raw: Any, vmid: int) -> "TunnelGrant":
        """Check every member; the socket is exactly the one of this VMID."""
        fields = _object(raw, "POST mtunnel")
        upid, ticket, socket = (_string(fields, key, "POST mtunnel") for key in ("upid", "ticket", "socket"))
        found = _UPID.fullmatch(upid)
        if not found or found.group(1) != str(vmid):
            raise _malformed("POST mtunnel", "upid", upid)
        if not TICKET.fullmatch(ticket):
            raise AnswerMalformed("the ticket of POST mtunnel is no tunnel ticket", object="POST mtunnel")
        if socket != control_socket(vmid):
            raise _malformed("POST mtunnel", "socket", socket)
        return cls(upid, ticket, socket)

    def __repr__(self) -> str:
        return f"TunnelGrant(upid={self.upid!r}, socket={self.socket!r})"


@dataclass(frozen=True)
class TaskStatus:
    """State of a task; ``exitstatus`` is empty while it runs."""

    running: bool
    exitstatus: str

    @classmethod
    def parse(cls, raw: Any) -> "TaskStatus":
        """From GET tasks/<upid>/status."""
        fields = _object(raw, "task status")
        word = _string(fields, "status", "task status")
        if word not in ("running", "stopped"):
            raise _malformed("task status", "status", word)
        exitstatus = fields.get("exitstatus")
        return cls(word == "running", printable(exitstatus) if isinstance(exitstatus, str) else "")


@dataclass(frozen=True)
class VmStatus:
    """State of a VM as the target sees it.

    Attributes:
        status: State of the process: ``running`` or ``stopped``.
        qmpstatus: State of the guest; means nothing unless ``genuine`` when it says ``running``.
        lock: Lock word, empty without one.
        genuine: True when QMP answered for it: ``running-qemu`` is there and the answer took less than 2 s.
        machine: Machine version the running QEMU reports.
    """

    status: str
    qmpstatus: str
    lock: str
    genuine: bool
    machine: str = ""

    @classmethod
    def parse(cls, raw: Any, seconds: float) -> "VmStatus":
        """From GET status/current that took ``seconds``."""
        fields = _object(raw, "status/current")
        status = _string(fields, "status", "status/current")
        if status not in ("running", "stopped"):
            raise _malformed("status/current", "status", status)
        has_qemu = bool(fields.get("running-qemu"))
        qmpstatus = _optional(fields, "qmpstatus", "status/current") or status
        return cls(
            status=status,
            qmpstatus=qmpstatus,
            lock=_optional(fields, "lock", "status/current"),
            genuine=has_qemu and seconds < _GENUINE_WITHIN,
            machine=_optional(fields, "running-machine", "status/current"),
        )

    @property
    def runs(self) -> bool:
        """True only on proof that the guest runs (pve-cli 1.3)."""
        return self.genuine and self.qmpstatus == "running"


@dataclass(frozen=True)
class VmResource:
    """One VM of the cluster's list."""

    vmid: int
    node: str
    name: str
    status: str
    template: bool = False

    @classmethod
    def parse(cls, raw: Any) -> "VmResource":
        """From one entry of GET cluster/resources?type=vm."""
        fields = _object(raw, "cluster/resources")
        vmid = fields.get("vmid")
        if not isinstance(vmid, int) or isinstance(vmid, bool):
            raise _malformed("cluster/resources", "vmid", vmid)
        text = {key: _optional(fields, key, "cluster/resources") for key in ("node", "name", "status")}
        return cls(vmid=vmid, template=bool(fields.get("template")), **text)


@dataclass(frozen=True)
class StorageInfo:
    """A storage of the target node that takes images. Sizes in bytes, None when the token may not see them."""

    name: str
    type: str
    available: Optional[int]
    total: Optional[int]
    active: bool

    @classmethod
    def parse(cls, raw: Any) -> "StorageInfo":
        """From one entry of GET nodes/<node>/storage."""
        fields = _object(raw, "storage list")
        sizes = {key: fields.get(key) for key in ("avail", "total")}
        numbers = {key: value if isinstance(value, int) else None for key, value in sizes.items()}
        return cls(
            name=_string(fields, "storage", "storage list"),
            type=_optional(fields, "type", "storage list"),
            available=numbers["avail"],
            total=numbers["total"],
            active=bool(fields.get("active", 1)),
        )


@dataclass(frozen=True)
class BridgeInfo:
    """A bridge of the target node."""

    name: str
    type: str
    active: bool


class TargetApi:
    """Calls on the node ``node`` of the target."""

    def __init__(self, session: Session, node: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._session = session
        self._node = node
        self._clock = clock

    def open_tunnel(self, vmid: int, storages: Sequence[str], bridges: Sequence[str]) -> TunnelGrant:
        """POST mtunnel: reserves the VMID atomically (mtunnel-protocol 3.1). Wait for ``mtunnel started`` next."""
        raw = self._session.post(
            "nodes", self._node, "qemu", str(vmid), "mtunnel", storages=",".join(storages), bridges=",".join(bridges)
        )
        return TunnelGrant.parse(raw, vmid)

    def tunnel_path(self, vmid: int, ticket: str, socket: str) -> str:
        """Path and query of the websocket to ``socket``; ticket and socket percent-encoded."""
        base = f"/api2/json/nodes/{quote(self._node, safe='')}/qemu/{vmid}/mtunnelwebsocket"
        return f"{base}?ticket={quote(ticket, safe='')}&socket={quote(socket, safe='')}"

    def task_status(self, upid: str) -> TaskStatus:
        """Whether a task still runs."""
        return TaskStatus.parse(self._session.get("nodes", self._node, "tasks", upid, "status"))

    def task_log(self, upid: str) -> List[str]:
        """All lines of a task's log, oldest first.

        Raises:
            AnswerMalformed: it could not be read to its end; what is not in a part of it proves nothing (safety I4).
        """
        lines: List[str] = []
        while len(lines) < _LOG_LIMIT:
            page, total = self._session.page(
                "nodes", self._node, "tasks", upid, "log", start=len(lines), limit=_LOG_PAGE
            )
            # An empty log is one line "no content".
            texts = [_log_line(entry) for entry in _list(page, "task log")]
            lines += texts
            if total is not None and len(lines) >= total:
                return lines
            if not texts:
                break
        raise AnswerMalformed(
            f"the log of the task could not be read to its end, {len(lines)} lines came",
            object=upid,
            remedy="Look for the word resume in the log of the task at the target",
        )

    def delete_task(self, upid: str) -> None:
        """End a task of our own: the fence that needs no root (pve-cli 3); up to 6 s."""
        self._session.delete("nodes", self._node, "tasks", upid)

    def vm_status(self, vmid: int, timeout: Optional[float] = None, node: Optional[str] = None) -> VmStatus:
        """State of a VM, within ``timeout`` seconds; ``node`` when it is on another one. Raises VmAbsent."""
        before = self._clock()
        raw = self._vm(vmid, "status", "current", timeout=timeout, node=node)
        return VmStatus.parse(raw, self._clock() - before)

    def vm_config(self, vmid: int, node: Optional[str] = None) -> Dict[str, Any]:
        """Config of a VM, with ``digest`` and ``lock``; ``node`` when it is on another one. Raises VmAbsent."""
        return dict(_object(self._vm(vmid, "config", node=node), "config"))

    def vm_resources(self) -> List[VmResource]:
        """Every VM of the cluster the token may see."""
        raw = _list(self._session.get("cluster", "resources", type="vm"), "cluster/resources")
        return [VmResource.parse(entry) for entry in raw if _object(entry, "cluster/resources").get("type") == "qemu"]

    def storages(self) -> List[StorageInfo]:
        """Enabled storages of the node that take images."""
        raw = self._session.get("nodes", self._node, "storage", enabled=1, content="images")
        return [StorageInfo.parse(entry) for entry in _list(raw, "storage list")]

    def bridges(self) -> List[BridgeInfo]:
        """Bridges of the node (also SDN vnets, which the kernel shows as bridges)."""
        raw = _list(self._session.get("nodes", self._node, "network", type="any_bridge"), "network list")
        return [
            BridgeInfo(
                _string(_object(entry, "network list"), "iface", "network list"),
                _optional(entry, "type", "network list"),
                bool(entry.get("active", 0)),
            )
            for entry in raw
        ]

    def bridge_names(self) -> List[str]:
        """Names of the bridges of the node."""
        return [bridge.name for bridge in self.bridges()]

    def volumes_of(self, storage: str, vmid: int) -> List[str]:
        """Volume ids on a storage that belong to a VMID, sorted."""
        raw = self._session.get("nodes", self._node, "storage", storage, "content", vmid=vmid)
        entries = [_object(entry, "storage content") for entry in _list(raw, "storage content")]
        return sorted(_string(entry, "volid", "storage content") for entry in entries)

    def own_tunnel_task(self, vmid: int) -> Optional[str]:
        """UPID of the running tunnel task of a VMID that this token may see; None without one."""
        raw = self._session.get("nodes", self._node, "tasks", vmid=vmid, typefilter="qmtunnel", source="active")
        for entry in _list(raw, "task list"):
            upid = _string(_object(entry, "task list"), "upid", "task list")
            found = _UPID.fullmatch(upid)
            if found and found.group(1) == str(vmid) and not entry.get("endtime"):
                return upid
        return None

    def machines(self) -> List[str]:
        """Versioned machines that the node's QEMU knows."""
        raw = _list(self._session.get("nodes", self._node, "capabilities", "qemu", "machines"), "machine list")
        return [_string(_object(entry, "machine list"), "id", "machine list") for entry in raw]

    def version(self) -> str:
        """Version of the target's pve-manager."""
        return _string(_object(self._session.get("version"), "version"), "version", "version")

    def permissions(self) -> Dict[str, List[str]]:
        """Privileges of the token per path."""
        raw = _object(self._session.get("access", "permissions"), "permissions")
        return {path: sorted(_object(held, "permissions")) for path, held in raw.items()}

    def _vm(self, vmid: int, *segments: str, timeout: Optional[float] = None, node: Optional[str] = None) -> Any:
        node = node or self._node
        try:
            return self._session.request("GET", ("nodes", node, "qemu", str(vmid), *segments), {}, timeout)
        except ApiRefused as error:
            # pve-cli 5: an unknown VMID is a 500 with this text; there is no status of its own for it.
            if error.status == 500 and f"qemu-server/{vmid}.conf' does not exist" in error.message:
                absent = f"VM {vmid} does not exist on node {node}"
                # pylint cannot see through the relative import that the class is an exception.
                raise VmAbsent(  # pylint: disable=bad-exception-cause
                    absent, object=f"VM {vmid}", status=error.status
                ) from error
            raise


def _log_line(entry: Any) -> str:
    text = _object(entry, "task log").get("t")
    return text[:4096] if isinstance(text, str) else ""


def _list(raw: Any, what: str) -> List[Any]:
    if not isinstance(raw, list):
        raise AnswerMalformed(f"the target's {what} is no list", object=what)
    return raw


def _object(raw: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(raw, dict):
        raise AnswerMalformed(f"the target's {what} is no object", object=what)
    return raw


def _string(fields: Mapping[str, Any], key: str, what: str) -> str:
    value = fields.get(key)
    if not isinstance(value, str) or not value or len(value) > 4096:
        raise _malformed(what, key, value)
    return value


def _optional(fields: Mapping[str, Any], key: str, what: str) -> str:
    value = fields.get(key)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > 4096:
        raise _malformed(what, key, value)
    return value


def _malformed(what: str, key: str, value: Any) -> AnswerMalformed:
    return AnswerMalformed(
        f"in the target's {what} '{key}' is not what it must be: {printable(repr(value), 120)}", object=what
    )
