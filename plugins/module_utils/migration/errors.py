# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""Errors of the migration room, one class per code.

::

    MigrationError
    ├── SpecInvalid          SPEC_INVALID        an option is wrong; nothing was written
    ├── SpecDiffers          SPEC_DIFFERS        a migration of this VM runs with another spec
    ├── Refused              (code of the refusal) the VM or the target cannot be migrated; nothing was written
    ├── Aborted              ABORTED             asked for
    │   ├── LeaseLost        CONTROLLER_LOST     nobody asked for this migration any more
    │   └── DeadlinePassed   DEADLINE_PASSED     limits.deadline before COMMIT_INTENT
    ├── Interrupted          INTERRUPTED         the worker died; a new one took the migration back
    ├── VmBusy               VM_BUSY             another worker was quicker
    ├── TooLate              TOO_LATE            abort after COMMIT_INTENT
    ├── NotConverging        NOT_CONVERGING      the guest writes faster than the path carries
    ├── GuestOff             GUEST_OFF           the guest powered itself off
    ├── SourceLost           SOURCE_LOST         the source QEMU is gone
    ├── TargetUnexpected     TARGET_UNEXPECTED   the target is not in the state that was read or asked
    ├── VmChanged            VM_CHANGED          config or HA state changed during the migration
    ├── TransferFailed       TRANSFER_FAILED     a mirror, the RAM stream or an import failed
    ├── TargetResidue        TARGET_RESIDUE      objects of an earlier run are left on the target
    ├── Held                 HELD                neither side may run; a person or the next run decides
    ├── MigrationLost        TARGET_LOST         the target was lost after the commit
    ├── Split                SPLIT               both copies run
    ├── TargetNotRunning     TARGET_NOT_RUNNING  the VM is at the target but does not run
    ├── VmAmbiguous          VM_AMBIGUOUS        more than one VM answers to the identity
    ├── JournalUnreadable    JOURNAL_UNREADABLE
    ├── JournalUnwritable    JOURNAL_UNWRITABLE
    ├── WorkerUnreachable    WORKER_UNREACHABLE
    ├── WorkerTooOld         WORKER_TOO_OLD
    └── NotFound             MIGRATION_UNKNOWN   no migration of that id or VM on this node
"""

from __future__ import annotations

from typing import Any, Optional

from ..errors import CrossclusterError, Side

__all__ = [
    "Aborted",
    "DeadlinePassed",
    "GuestOff",
    "Held",
    "Interrupted",
    "JournalUnreadable",
    "JournalUnwritable",
    "LeaseLost",
    "MigrationError",
    "MigrationLost",
    "NotConverging",
    "NotFound",
    "Recorded",
    "Refused",
    "SourceLost",
    "SpecDiffers",
    "SpecInvalid",
    "Split",
    "TargetNotRunning",
    "TargetResidue",
    "TargetUnexpected",
    "TooLate",
    "TransferFailed",
    "VmAmbiguous",
    "VmBusy",
    "VmChanged",
    "WorkerTooOld",
    "WorkerUnreachable",
]


class MigrationError(CrossclusterError):
    """Base of this room."""

    code = "MIGRATION_FAILED"


class SpecInvalid(MigrationError):
    """An option has a wrong value."""

    code = "SPEC_INVALID"

    def __init__(self, option: str, value: Any, expected: str) -> None:
        super().__init__(
            f"option {option} has the value {value!r}; expected {expected}",
            side=Side.CONTROLLER,
            object=option,
            remedy=f"Give {option} as {expected}",
        )


class SpecDiffers(MigrationError):
    """A migration of this VM is under way with another spec."""

    code = "SPEC_DIFFERS"


class Refused(MigrationError):
    """The migration was refused before any write; carries the code of the first refusal."""

    code = "REFUSED"

    def __init__(self, message: str, *, code: Optional[str] = None, **keywords: Any) -> None:
        super().__init__(message, **keywords)
        if code:
            self.code = code


class Aborted(MigrationError):
    """Somebody asked for the end of the migration."""

    code = "ABORTED"


class LeaseLost(Aborted):
    """The controller has not renewed its lease in time."""

    code = "CONTROLLER_LOST"


class DeadlinePassed(Aborted):
    """``limits.deadline`` passed before COMMIT_INTENT."""

    code = "DEADLINE_PASSED"


class Interrupted(MigrationError):
    """The worker died and a new one took the migration back."""

    code = "INTERRUPTED"


class VmBusy(MigrationError):
    """Another worker was quicker."""

    code = "VM_BUSY"


class TooLate(MigrationError):
    """An abort came after COMMIT_INTENT."""

    code = "TOO_LATE"


class NotConverging(MigrationError):
    """The guest changes its data faster than the path carries it."""

    code = "NOT_CONVERGING"


class GuestOff(MigrationError):
    """The guest powered itself off; that is honoured at the source."""

    code = "GUEST_OFF"

    def __init__(self, vmid: int) -> None:
        super().__init__(
            "the guest powered itself off during the migration",
            side=Side.SOURCE,
            object=f"VM {vmid}",
            remedy="Move the stopped VM with offline: true",
        )


class SourceLost(MigrationError):
    """The QEMU process of the source is gone."""

    code = "SOURCE_LOST"


class TargetUnexpected(MigrationError):
    """The target is in another state than was read, asked or answered."""

    code = "TARGET_UNEXPECTED"


class VmChanged(MigrationError):
    """Somebody changed the VM's configuration or made it an HA resource meanwhile."""

    code = "VM_CHANGED"


class TransferFailed(MigrationError):
    """A byte stream, a mirror or the RAM migration failed."""

    code = "TRANSFER_FAILED"


class TargetResidue(MigrationError):
    """Objects of an earlier, failed run are left on the target."""

    code = "TARGET_RESIDUE"


class Held(MigrationError):
    """Neither side runs and nothing proves which may (safety 5)."""

    code = "HELD"


class MigrationLost(MigrationError):
    """The target was lost after the commit; the source copy is kept (safety 6.1, LT)."""

    code = "TARGET_LOST"


class Split(MigrationError):
    """Both copies run."""

    code = "SPLIT"


class TargetNotRunning(MigrationError):
    """The VM is at the target already but does not run there."""

    code = "TARGET_NOT_RUNNING"


class VmAmbiguous(MigrationError):
    """More than one VM answers to the identity asked for."""

    code = "VM_AMBIGUOUS"


class JournalUnreadable(MigrationError):
    """A journal cannot be read back."""

    code = "JOURNAL_UNREADABLE"


class JournalUnwritable(MigrationError):
    """A journal cannot be written, for example because the disk is full."""

    code = "JOURNAL_UNWRITABLE"


class WorkerUnreachable(MigrationError):
    """The worker's control socket does not answer."""

    code = "WORKER_UNREACHABLE"


class WorkerTooOld(MigrationError):
    """The worker speaks a protocol this collection does not."""

    code = "WORKER_TOO_OLD"


class NotFound(MigrationError):
    """No migration of that id or VM is known on this node."""

    code = "MIGRATION_UNKNOWN"


class Recorded(MigrationError):
    """An error read back from a journal or received from a worker; carries its original code."""

    @classmethod
    def parse(cls, raw: Any) -> Recorded:
        """From the dictionary of :meth:`CrossclusterError.to_dict`."""
        raw = raw if isinstance(raw, dict) else {}
        side = raw.get("side")
        error = cls(
            str(raw.get("message", "the worker reported no reason")),
            side=Side(side) if side in [s.value for s in Side] else Side.SOURCE,
            object=str(raw.get("object", "migration")),
            remedy=str(raw.get("remedy", "")),
            facts=raw.get("facts") if isinstance(raw.get("facts"), dict) else {},
        )
        error.code = str(raw.get("code", cls.code))
        return error
