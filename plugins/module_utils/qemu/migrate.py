# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""What the source QEMU is told about a migration and what it answers: arguments and typed status.

Values only; nothing here talks to QEMU. All versions' keys stand in this one place (qemu-facts 1 to 3): a
poller must tolerate statuses that it has never heard of.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional

from ..errors import Side
from .errors import CapabilityMissing
from .fields import mapping, number, optional_number, optional_text, sequence, text

__all__ = ["MigrationInfo", "MigrationStatus", "continue_arguments", "parameters", "source_capabilities", "uri"]

# qemu-facts 3.1: without return-path "completed" proves nothing; on the source alone it is enough.
# pause-before-switchover gives the moment in which mirrors are ended and the target is read.
NEEDED = ("return-path", "pause-before-switchover")
# mtunnel-protocol 7.2: the target is started with exactly these two, and both shape the stream.
MATCHED = ("xbzrle", "auto-converge")
UNLIMITED = 16 * 1024**3  # bytes/s, what Proxmox sets for "no limit" (mtunnel-protocol 7.2, step 11)
MAX_DOWNTIME_MS = 2_000_000  # QEMU refuses more (qemu-facts 1)
MIN_XBZRLE_CACHE = 65536  # bytes; a power of two, at least a page on every architecture


class MigrationStatus(enum.Enum):
    """The status of a migration; what QEMU may add later is UNKNOWN and kept as text."""

    NONE = "none"
    SETUP = "setup"
    WAIT_UNPLUG = "wait-unplug"
    ACTIVE = "active"
    PRE_SWITCHOVER = "pre-switchover"
    DEVICE = "device"
    COMPLETED = "completed"
    FAILING = "failing"
    FAILED = "failed"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"

    @classmethod
    def of(cls, text: str) -> MigrationStatus:
        """The member of that name, else UNKNOWN."""
        try:
            return cls(text)
        except ValueError:
            return cls.UNKNOWN

    @property
    def is_final(self) -> bool:
        """Whether this attempt has ended, well or not."""
        return self in (MigrationStatus.COMPLETED, MigrationStatus.FAILED, MigrationStatus.CANCELLED)

    @property
    def has_failed(self) -> bool:
        """Whether this attempt has ended or is ending without success."""
        return self in (
            MigrationStatus.FAILED,
            MigrationStatus.FAILING,
            MigrationStatus.CANCELLED,
            MigrationStatus.CANCELLING,
        )


@dataclass(frozen=True)
class MigrationInfo:
    """The answer of ``query-migrate``; sizes in bytes, rates in bytes/s, times in ms."""

    status: MigrationStatus
    status_text: str
    total: int = 0
    transferred: int = 0
    remaining: int = 0
    dirty_rate_bytes: int = 0
    bandwidth: int = 0
    passes: int = 0
    downtime_ms: Optional[int] = None
    error: Optional[str] = None

    @classmethod
    def parse(cls, raw: Any) -> MigrationInfo:
        """Check and type an answer.

        Raises:
            QmpInvalid: QMP_INVALID, naming the field.
        """
        reply = mapping("query-migrate", raw)
        status = text(reply, "status", "none")  # a QEMU that never migrated answers {}
        ram = mapping("ram", reply.get("ram", {}))
        page = number(ram, "page-size") or 4096  # absent before 2.10; every target page is 4 KiB on x86
        return cls(
            status=MigrationStatus.of(status),
            status_text=status[:64],
            total=number(ram, "total"),
            transferred=number(ram, "transferred"),
            remaining=number(ram, "remaining"),
            dirty_rate_bytes=number(ram, "dirty-pages-rate") * page,
            bandwidth=int(_float(ram, "mbps") * 1e6 / 8),
            passes=number(ram, "dirty-sync-count"),
            downtime_ms=optional_number(reply, "downtime"),
            error=optional_text(reply, "error-desc"),
        )


def source_capabilities(listed: Any) -> Dict[str, List[Dict[str, Any]]]:
    """Arguments of ``migrate-set-capabilities`` on the source: every listed capability said explicitly.

    Args:
        listed: The answer of ``query-migrate-capabilities`` of the same QEMU.

    Raises:
        CapabilityMissing: CAPABILITY_MISSING, return-path or pause-before-switchover is not listed.
        QmpInvalid: QMP_INVALID, the answer has an unknown shape.
    """
    names = [_capability(entry) for entry in sequence("query-migrate-capabilities", listed)]
    missing = [name for name in NEEDED if name not in names]
    if missing:
        raise CapabilityMissing(
            f"This QEMU has no migration capability {' and '.join(missing)}",
            side=Side.SOURCE,
            object="QEMU",
            remedy="Stop and start the VM so that it runs under the installed QEMU, or move it with offline: true",
            facts={"missing": missing},
        )
    wanted = NEEDED + MATCHED
    return {"capabilities": [{"capability": name, "state": name in wanted} for name in names]}


def parameters(
    *, downtime_limit_ms: int, bandwidth: Optional[int] = None, ram_bytes: Optional[int] = None
) -> Dict[str, int]:
    """Arguments of ``migrate-set-parameters`` on the source.

    Args:
        downtime_limit_ms: How long QEMU may plan to keep the guest stopped.
        bandwidth: bytes/s; None is no limit.
        ram_bytes: The guest's RAM; sizes the XBZRLE cache, left as it is when None.
    """
    values = {
        "max-bandwidth": UNLIMITED if bandwidth is None else max(1, bandwidth),
        "downtime-limit": min(max(1, downtime_limit_ms), MAX_DOWNTIME_MS),
    }
    if ram_bytes is not None:
        values["xbzrle-cache-size"] = _power_of_two(ram_bytes // 10)
    return values


def uri(socket_path: str) -> Dict[str, str]:
    """Arguments of ``migrate``: QEMU connects to a UNIX socket of its own worker, never to the network."""
    return {"uri": f"unix:{socket_path}"}


def continue_arguments() -> Dict[str, str]:
    """Arguments of ``migrate-continue``; naming the state makes QEMU refuse it anywhere else."""
    return {"state": MigrationStatus.PRE_SWITCHOVER.value}


def _power_of_two(size: int) -> int:
    """``size`` rounded up to a power of two, as Proxmox sizes the cache (mtunnel-protocol 7.2, step 11)."""
    return max(MIN_XBZRLE_CACHE, 1 << max(0, size - 1).bit_length())


def _capability(entry: Any) -> str:
    return text(mapping("capability", entry), "capability")


def _float(raw: Mapping[str, Any], key: str) -> float:
    value = raw.get(key, 0)
    # QEMU divides by the time passed: the very first answer may carry no finite number.
    if not isinstance(value, (int, float)) or not 0 <= value < 1e12:
        return 0.0
    return float(value)
