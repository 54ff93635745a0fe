# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""Disk mirrors of the source QEMU: the arguments of their commands and their typed state.

The sequence that works against Proxmox (qemu-facts 6): ``blockdev-add`` an NBD node, ``blockdev-mirror``,
wait ready, ``block-job-change`` to write-blocking (QEMU >= 8.2), at the end ``block-job-cancel`` without
force, wait concluded, ``job-dismiss``, ``blockdev-del``. Values only; nothing here talks to QEMU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Optional

from .fields import mapping, number, optional_text, sequence, text
from .status import Version

__all__ = [
    "BUFFER_SIZE",
    "BlockJob",
    "Job",
    "add_node",
    "buffer_size",
    "delete_node",
    "dismiss",
    "end",
    "set_speed",
    "start",
    "supports_copy_mode_change",
    "write_blocking",
]

# Bytes that a mirror may have unacknowledged. It clocks the stream: pveproxy applies no back-pressure
# (mtunnel-protocol 3.6), so what QEMU has in flight is what can pile up there.
BUFFER_SIZE = 4 * 1024 * 1024
BUFFERS_TOGETHER = 12 * 1024 * 1024  # bytes over all mirrors; the goal is 16 MiB with the RAM stream
MIN_BUFFER_SIZE = 1024 * 1024  # bytes; the largest single request of a mirror
COPY_MODE_CHANGE = Version(8, 2, 0)  # block-job-change came with 8.2 (mtunnel-protocol 7.2, step 9)


def supports_copy_mode_change(version: Version) -> bool:
    """Whether this QEMU can switch a running mirror to write-blocking."""
    return version >= COPY_MODE_CHANGE


def buffer_size(mirrors: int) -> int:
    """Bytes in flight for each of ``mirrors`` that run at the same time."""
    return max(MIN_BUFFER_SIZE, min(BUFFER_SIZE, BUFFERS_TOGETHER // max(1, mirrors)))


def add_node(node: str, socket_path: str, export: str) -> Dict[str, Any]:
    """Arguments of ``blockdev-add``: an NBD client node over a UNIX socket of our worker.

    detect-zeroes keeps a sparse disk sparse on the wire (13.8 MB against 1.07 GB, mtunnel-protocol 6.1). No
    reconnect: a websocket to a dead socket can take the target's proxy worker down (mtunnel-protocol 3.3).
    """
    return {
        "driver": "nbd",
        "node-name": node,
        "server": {"type": "unix", "path": socket_path},
        "export": export,
        "detect-zeroes": "on",
        "discard": "unmap",
        "reconnect-delay": 0,
    }


def start(
    job: str, device: str, node: str, *, speed: Optional[int] = None, buffer: int = BUFFER_SIZE
) -> Dict[str, Any]:
    """Arguments of ``blockdev-mirror``: copy all of ``device`` to ``node`` in the background.

    Args:
        job: The id of the job.
        device: Device or node name of the guest's disk (:class:`~.status.BlockDevice`.mirror_source).
        node: The node made with :func:`add_node`.
        speed: bytes/s; None is no limit.
        buffer: bytes in flight.
    """
    arguments: Dict[str, Any] = {
        "job-id": job,
        "device": device,
        "target": node,
        "sync": "full",
        "copy-mode": "background",
        "auto-dismiss": False,
        "buf-size": buffer,
    }
    if speed is not None:
        arguments["speed"] = speed
    return arguments


def write_blocking(job: str) -> Dict[str, Any]:
    """Arguments of ``block-job-change``: guest writes are answered only after the target has them."""
    return {"id": job, "type": "mirror", "copy-mode": "write-blocking"}


def set_speed(job: str, speed: Optional[int]) -> Dict[str, Any]:
    """Arguments of ``block-job-set-speed``; bytes/s, None is no limit."""
    return {"device": job, "speed": 0 if speed is None else speed}


def end(job: str, *, force: bool = False) -> Dict[str, Any]:
    """Arguments of ``block-job-cancel``: on a ready mirror without force both sides end identical."""
    return {"device": job, "force": force}


def dismiss(job: str) -> Dict[str, Any]:
    """Arguments of ``job-dismiss`` for a concluded job."""
    return {"id": job}


def delete_node(node: str) -> Dict[str, Any]:
    """Arguments of ``blockdev-del``; a node left behind fails the next migration (qemu-facts 5.7)."""
    return {"node-name": node}


@dataclass(frozen=True)
class BlockJob:
    """One entry of ``query-block-jobs``; offset, len in bytes."""

    id: str
    type: str
    status: str
    offset: int
    len: int
    ready: bool
    actively_synced: Optional[bool]  # None before QEMU 8.2
    error: Optional[str] = None

    @property
    def remaining(self) -> int:
        """Bytes still to be copied, as QEMU counts them."""
        return max(0, self.len - self.offset)

    @property
    def is_concluded(self) -> bool:
        """Whether only the dismissal is left."""
        return self.status == "concluded"

    @classmethod
    def parse(cls, raw: Any) -> BlockJob:
        """Check and type one entry.

        Raises:
            QmpInvalid: QMP_INVALID, naming the field.
        """
        entry = mapping("job", raw)
        synced = entry.get("actively-synced")
        return cls(
            id=text(entry, "device"),
            type=text(entry, "type"),
            status=text(entry, "status"),
            offset=number(entry, "offset"),
            len=number(entry, "len"),
            ready=entry.get("ready") is True,
            actively_synced=synced if isinstance(synced, bool) else None,
            error=optional_text(entry, "error"),
        )

    @classmethod
    def parse_all(cls, raw: Any) -> Dict[str, BlockJob]:
        """The answer of ``query-block-jobs`` by job id."""
        return {job.id: job for job in map(cls.parse, sequence("jobs", raw))}


@dataclass(frozen=True)
class Job:
    """One entry of ``query-jobs``: the only list that still shows a concluded job on every version."""

    id: str
    type: str
    status: str
    error: Optional[str] = None

    @property
    def is_concluded(self) -> bool:
        """Whether only the dismissal is left."""
        return self.status == "concluded"

    @classmethod
    def parse(cls, raw: Any) -> Job:
        """Check and type one entry.

        Raises:
            QmpInvalid: QMP_INVALID, naming the field.
        """
        entry = mapping("job", raw)
        return cls(text(entry, "id"), text(entry, "type"), text(entry, "status"), optional_text(entry, "error"))

    @classmethod
    def parse_all(cls, raw: Any) -> Dict[str, Job]:
        """The answer of ``query-jobs`` by job id."""
        return {job.id: job for job in map(cls.parse, sequence("jobs", raw))}
