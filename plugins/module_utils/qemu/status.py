# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""What a QEMU says about itself: run state, version, block devices. Typed values, no I/O."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, List, Optional

from ..errors import Side
from .errors import DriveMissing
from .fields import invalid, mapping, sequence, text

__all__ = ["BlockDevice", "RunState", "RunStatus", "Version", "find_drive"]


class RunState(enum.Enum):
    """QEMU's run states; what QEMU may add later is UNKNOWN and kept as text."""

    DEBUG = "debug"
    FINISH_MIGRATE = "finish-migrate"
    GUEST_PANICKED = "guest-panicked"
    INMIGRATE = "inmigrate"
    INTERNAL_ERROR = "internal-error"
    IO_ERROR = "io-error"
    PAUSED = "paused"
    POSTMIGRATE = "postmigrate"
    PRELAUNCH = "prelaunch"
    RESTORE_VM = "restore-vm"
    RUNNING = "running"
    SAVE_VM = "save-vm"
    SHUTDOWN = "shutdown"
    SUSPENDED = "suspended"
    WATCHDOG = "watchdog"
    COLO = "colo"
    UNKNOWN = "unknown"

    @classmethod
    def of(cls, text: str) -> RunState:
        """The member of that name, else UNKNOWN."""
        try:
            return cls(text)
        except ValueError:
            return cls.UNKNOWN


@dataclass(frozen=True)
class RunStatus:
    """The answer of ``query-status``."""

    state: RunState
    text: str
    running: bool

    @classmethod
    def parse(cls, raw: Any) -> RunStatus:
        """Check and type an answer.

        Raises:
            QmpInvalid: QMP_INVALID, naming the field.
        """
        reply = mapping("query-status", raw)
        name, running = text(reply, "status"), reply.get("running")
        if not isinstance(running, bool):
            raise invalid("running", running)
        return cls(RunState.of(name), name[:64], running)


@dataclass(frozen=True, order=True)
class Version:
    """A QEMU version, comparable."""

    major: int
    minor: int
    micro: int = 0

    @classmethod
    def parse(cls, raw: Any) -> Version:
        """The answer of ``query-version`` (or the greeting's version object).

        Raises:
            QmpInvalid: QMP_INVALID, naming the field.
        """
        numbers = mapping("qemu", mapping("query-version", raw).get("qemu"))
        values = [numbers.get(key) for key in ("major", "minor", "micro")]
        if not all(isinstance(value, int) for value in values):
            raise invalid("version", raw)
        return cls(*values)  # type: ignore[arg-type]  # checked one line above

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.micro}"


@dataclass(frozen=True)
class BlockDevice:
    """One entry of ``query-block`` that has a medium."""

    device: str  # the legacy device name; empty for disks made with -blockdev (Proxmox machine >= 10.0)
    node: str  # the node on top of the medium
    file: str
    virtual_size: int  # bytes

    @property
    def mirror_source(self) -> str:
        """What ``blockdev-mirror`` is given as ``device``."""
        return self.device or self.node

    @classmethod
    def parse(cls, raw: Any) -> Optional[BlockDevice]:
        """One entry; None for an empty drive.

        Raises:
            QmpInvalid: QMP_INVALID, naming the field.
        """
        entry = mapping("block device", raw)
        if entry.get("inserted") is None:
            return None
        inserted = mapping("inserted", entry["inserted"])
        image = mapping("image", inserted.get("image", {}))
        size = image.get("virtual-size")
        if not isinstance(size, int) or size < 0:
            raise invalid("virtual-size", size)
        return cls(
            device=text(entry, "device", ""),
            node=text(inserted, "node-name", ""),
            file=text(inserted, "file", ""),
            virtual_size=size,
        )

    @classmethod
    def parse_all(cls, raw: Any) -> List[BlockDevice]:
        """The answer of ``query-block`` without empty drives."""
        return [device for device in map(cls.parse, sequence("query-block", raw)) if device is not None]


def find_drive(devices: List[BlockDevice], key: str) -> BlockDevice:
    """The disk that the configuration calls ``key`` (``scsi0``, ``virtio1``, ``efidisk0``, ...).

    Proxmox names it ``drive-<key>``: as device with ``-drive``, as node with ``-blockdev``.

    Raises:
        DriveMissing: DRIVE_MISSING, no such disk is attached.
    """
    name = f"drive-{key}"
    for device in devices:
        if name in (device.device, device.node):
            return device
    raise DriveMissing(
        f"The running QEMU has no disk {key}",
        side=Side.SOURCE,
        object=key,
        remedy="Compare the configuration with the running VM: a pending change may not have been applied",
        facts={"attached": [device.mirror_source for device in devices]},
    )
