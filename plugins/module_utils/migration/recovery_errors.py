# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""Errors of the recovery on the target node, one class per code.

::

    MigrationError
    └── RecoveryRefused
        ├── RecordInvalid       RECORD_INVALID        what the migration is said to have recorded cannot be right
        ├── TunnelTaskRunning   TUNNEL_TASK_RUNNING   the task may still execute a command
        ├── VmidReused          VMID_REUSED           the number belongs to somebody else by now
        ├── LockChanged         TARGET_LOCK_CHANGED   somebody else took the lock away or set another
        ├── VolumesDiffer       TARGET_VOLUMES_DIFFER the VM has volumes that were not recorded
        ├── TargetMayHaveRun    TARGET_MAY_HAVE_RUN   its disks may be newer than those of the source
        ├── TargetNotLoaded     TARGET_NOT_LOADED     there is no guest in it that could be resumed
        ├── TargetGone          TARGET_GONE           nothing is left to be resumed
        ├── IntentMissing       COMMIT_INTENT_MISSING the source has not given up the guest
        └── RecoveryFailed      RECOVERY_FAILED       a command did not have its effect
"""

from __future__ import annotations

from typing import Any

from ..errors import Side
from .errors import MigrationError

__all__ = [
    "IntentMissing",
    "LockChanged",
    "RecordInvalid",
    "RecoveryFailed",
    "RecoveryRefused",
    "TargetGone",
    "TargetMayHaveRun",
    "TargetNotLoaded",
    "TunnelTaskRunning",
    "VmidReused",
    "VolumesDiffer",
]


class RecoveryRefused(MigrationError):
    """The recovery was refused or failed; always about the target."""

    code = "RECOVERY_REFUSED"

    def __init__(self, message: str, *, object: str, **keywords: Any) -> None:
        super().__init__(message, side=Side.TARGET, object=object, **keywords)


class RecordInvalid(RecoveryRefused):
    """An option does not look like anything a migration records."""

    code = "RECORD_INVALID"


class TunnelTaskRunning(RecoveryRefused):
    """The task that holds the tunnel runs: a command that it has read already may still take effect (safety I4)."""

    code = "TUNNEL_TASK_RUNNING"


class VmidReused(RecoveryRefused):
    """The VM of this number is not what the migration made."""

    code = "VMID_REUSED"


class LockChanged(RecoveryRefused):
    """The VM does not have the lock that the migration left it with."""

    code = "TARGET_LOCK_CHANGED"


class VolumesDiffer(RecoveryRefused):
    """The VM refers to volumes that the migration did not make; destroying it would take them along."""

    code = "TARGET_VOLUMES_DIFFER"


class TargetMayHaveRun(RecoveryRefused):
    """The guest runs or may have run here: its disks may hold what the source's do not."""

    code = "TARGET_MAY_HAVE_RUN"


class TargetNotLoaded(RecoveryRefused):
    """The QEMU of the target has not received the guest."""

    code = "TARGET_NOT_LOADED"


class TargetGone(RecoveryRefused):
    """There is no QEMU or no VM that could be resumed."""

    code = "TARGET_GONE"


class IntentMissing(RecoveryRefused):
    """Without COMMIT_INTENT the guest belongs to the source."""

    code = "COMMIT_INTENT_MISSING"


class RecoveryFailed(RecoveryRefused):
    """A command of the node did not have its effect."""

    code = "RECOVERY_FAILED"
