# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""Errors of the room ``proxmox``.

::

    ProxmoxError
     +-- EndpointInvalid        ENDPOINT_INVALID         an endpoint, token or fingerprint that cannot be used
     +-- FingerprintMismatch    FINGERPRINT_MISMATCH     the target shows another certificate
     +-- ApiError
     |    +-- TokenRefused      TOKEN_REFUSED            401
     |    +-- PrivilegeMissing  PRIVILEGE_MISSING        403
     |    +-- ParameterRefused  PARAMETER_REFUSED        400, with the errors per parameter
     |    +-- ApiRefused        API_REFUSED              any other status
     |    +-- ApiUnreachable    API_UNREACHABLE          nothing was sent
     |    +-- ApiOutcomeUnknown API_OUTCOME_UNKNOWN      sent, no answer: read the state back
     |    +-- VmAbsent          VM_ABSENT                there is no such VM
     +-- AnswerMalformed        REPLY_MALFORMED          an answer that is not what was asked for
     +-- VersionUnsupported     TUNNEL_VERSION_UNSUPPORTED
     +-- CommandInvalid         COMMAND_INVALID          we built a command that cannot be sent (our bug)
     +-- CommandRefused         COMMAND_REFUSED          the target said no
     +-- ChannelError
     |    +-- ReplyTimeout      REPLY_TIMEOUT            no reply in time; the channel is poisoned
     |    +-- ChannelLost       CHANNEL_LOST             the control connection ended
     |    +-- TunnelPoisoned    TUNNEL_POISONED          a command after a timeout or a malformed reply
     +-- ConfigInvalid          CONFIG_INVALID           a VM config (or a part of one) that cannot be understood
     +-- NodeFileUnreadable     NODE_FILE_UNREADABLE     a file of the node that cannot be read or understood
     +-- NodeCommandFailed      NODE_COMMAND_FAILED      qm, pvesm or pvesh did not have the effect
     +-- LockForeign            LOCK_FOREIGN             somebody else's lock is on the VM
"""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional

from ..errors import CrossclusterError, Side

__all__ = [
    "AnswerMalformed",
    "ApiError",
    "ApiOutcomeUnknown",
    "ApiRefused",
    "ApiUnreachable",
    "ChannelError",
    "ChannelLost",
    "CommandInvalid",
    "CommandRefused",
    "ConfigInvalid",
    "EndpointInvalid",
    "FingerprintMismatch",
    "LockForeign",
    "NodeCommandFailed",
    "NodeFileUnreadable",
    "ParameterRefused",
    "PrivilegeMissing",
    "ProxmoxError",
    "ReplyTimeout",
    "TokenRefused",
    "TunnelPoisoned",
    "VersionUnsupported",
    "VmAbsent",
    "printable",
]


def printable(text: str, limit: int = 300) -> str:
    """Text of the other side, fit for a message: one line, printable, at most ``limit`` characters."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text[: 4 * limit]).split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


class ProxmoxError(CrossclusterError):
    """Base class of the room; on the target unless said otherwise."""

    code = "PROXMOX"

    def __init__(self, message: str, *, side: Side = Side.TARGET, **keywords: Any) -> None:
        super().__init__(message, side=side, **keywords)


class EndpointInvalid(ProxmoxError):
    """An endpoint, token or fingerprint that cannot be used."""

    code = "ENDPOINT_INVALID"


class FingerprintMismatch(ProxmoxError):
    """The certificate on the wire is not the pinned one; nothing was sent to it."""

    code = "FINGERPRINT_MISMATCH"


class ApiError(ProxmoxError):
    """Something about a REST request.

    Attributes:
        status: HTTP status; 0 when there was none.
        errors: Text per refused parameter.
    """

    code = "API"

    def __init__(
        self,
        message: str,
        *,
        object: str,
        remedy: str = "",
        status: int = 0,
        errors: Optional[Mapping[str, str]] = None,
        side: Side = Side.TARGET,
    ) -> None:
        facts: Dict[str, Any] = {"status": status} if status else {}
        if errors:
            facts["errors"] = dict(errors)
        super().__init__(message, side=side, object=object, remedy=remedy, facts=facts)
        self.status = status
        self.errors: Dict[str, str] = dict(errors or {})


class TokenRefused(ApiError):
    """401: no such token, or a wrong secret."""

    code = "TOKEN_REFUSED"


class PrivilegeMissing(ApiError):
    """403: the token lacks a privilege; the message names path and privilege."""

    code = "PRIVILEGE_MISSING"


class ParameterRefused(ApiError):
    """400: a parameter was refused; see ``errors``."""

    code = "PARAMETER_REFUSED"


class ApiRefused(ApiError):
    """Any other status that is no success."""

    code = "API_REFUSED"


class ApiUnreachable(ApiError):
    """No connection; nothing was sent, so nothing happened."""

    code = "API_UNREACHABLE"


class ApiOutcomeUnknown(ApiError):
    """The request may have been executed: read the state back before repeating it (mtunnel-protocol 1.1)."""

    code = "API_OUTCOME_UNKNOWN"


class VmAbsent(ApiError):
    """The VM does not exist there."""

    code = "VM_ABSENT"


class AnswerMalformed(ProxmoxError):
    """An answer of the target that is not what was asked for; nothing of it was used."""

    code = "REPLY_MALFORMED"


class VersionUnsupported(ProxmoxError):
    """The target speaks another version of the tunnel protocol."""

    code = "TUNNEL_VERSION_UNSUPPORTED"


class CommandInvalid(ProxmoxError):
    """We built a command that must not be sent."""

    code = "COMMAND_INVALID"


class CommandRefused(ProxmoxError):
    """The target answered ``success: false``.

    Attributes:
        text: The target's text, redacted and cut.
    """

    code = "COMMAND_REFUSED"

    def __init__(self, command: str, text: str, *, object: str, remedy: str = "") -> None:
        super().__init__(
            f"the target refused '{command}': {printable(text)}",
            object=object,
            remedy=remedy,
            facts={"command": command, "text": text},
        )
        self.command = command
        self.text = text


class ChannelError(ProxmoxError):
    """The control channel is of no use any more."""

    code = "CHANNEL"


class ReplyTimeout(ChannelError):
    """No reply in time. Replies carry no ids, so no further command may be sent (mtunnel-protocol 4.1)."""

    code = "REPLY_TIMEOUT"


class ChannelLost(ChannelError):
    """The control connection ended."""

    code = "CHANNEL_LOST"


class TunnelPoisoned(ChannelError):
    """A command after the channel was given up."""

    code = "TUNNEL_POISONED"


class ConfigInvalid(ProxmoxError):
    """A VM config, or a value in one, that cannot be understood."""

    code = "CONFIG_INVALID"


class NodeFileUnreadable(ProxmoxError):
    """A file of the node that cannot be read or understood."""

    code = "NODE_FILE_UNREADABLE"


class NodeCommandFailed(ProxmoxError):
    """A command of the node that did not have the effect (pve-cli 1.5: exit codes are no classes)."""

    code = "NODE_COMMAND_FAILED"


class LockForeign(ProxmoxError):
    """Somebody else's lock is on the VM."""

    code = "LOCK_FOREIGN"
