# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""Errors of the room qemu.

QemuError
├── QmpUnreachable    QMP_UNREACHABLE    no monitor behind the socket, or it hung up
├── QmpTimeout        QMP_TIMEOUT        the monitor is there and does not answer in time
├── QmpRefused        QMP_REFUSED        QEMU answered with an error
├── QmpInvalid        QMP_INVALID        bytes that are not QMP, or a reply of an unexpected shape
├── CapabilityMissing CAPABILITY_MISSING QEMU lacks what a safe switchover needs
├── DriveMissing      DRIVE_MISSING      a configured disk is not attached to the running QEMU
├── NbdInvalid        NBD_INVALID        bytes that are not NBD, or a server that is not an NBD server
├── QemuTlsFailed     QEMU_TLS_FAILED    QEMU refuses a certificate, or the other QEMU refuses ours
└── QemuTlsNotSet     QEMU_TLS_NOT_SET   QEMU does not say back what it was told about its TLS
"""

from __future__ import annotations

from ..errors import CrossclusterError, Side

__all__ = [
    "CapabilityMissing",
    "DriveMissing",
    "NbdInvalid",
    "QemuError",
    "QemuTlsFailed",
    "QemuTlsNotSet",
    "QmpInvalid",
    "QmpRefused",
    "QmpTimeout",
    "QmpUnreachable",
]


class QemuError(CrossclusterError):
    """Base of every error about a QEMU process."""

    code = "QEMU_FAILED"


class QmpUnreachable(QemuError):
    """No monitor listens on the socket, or it closed the connection."""

    code = "QMP_UNREACHABLE"


class QmpTimeout(QemuError):
    """The monitor did not answer before the deadline; what it was asked may still happen."""

    code = "QMP_TIMEOUT"


class QmpRefused(QemuError):
    """QEMU answered a command with an error.

    Args:
        command: The command that was refused.
        error_class: QEMU's error class, for example ``GenericError``.
        description: QEMU's own words, cut.
        object: The monitor's socket.
    """

    code = "QMP_REFUSED"

    def __init__(self, command: str, error_class: str, description: str, *, object: str) -> None:
        self.command = command
        self.error_class = error_class
        self.description = description[:500]
        super().__init__(
            f"QEMU refused {command}: {self.description}",
            side=Side.SOURCE,
            object=object,
            facts={"command": command, "error_class": error_class, "description": self.description},
        )


class QmpInvalid(QemuError):
    """What came over the monitor's socket is not QMP or has an unexpected shape."""

    code = "QMP_INVALID"


class CapabilityMissing(QemuError):
    """QEMU does not list a migration capability without which the switchover proves nothing."""

    code = "CAPABILITY_MISSING"


class DriveMissing(QemuError):
    """A disk of the configuration is not attached to the running QEMU."""

    code = "DRIVE_MISSING"


class NbdInvalid(QemuError):
    """The bytes of an NBD connection break the protocol."""

    code = "NBD_INVALID"


class QemuTlsFailed(QemuError):
    """QEMU cannot use a certificate, or one of the two QEMUs refuses that of the other; ``facts.cause`` says why."""

    code = "QEMU_TLS_FAILED"


class QemuTlsNotSet(QemuError):
    """QEMU does not have the TLS settings that it was told: nothing may flow."""

    code = "QEMU_TLS_NOT_SET"
