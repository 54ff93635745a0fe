# SPDX-FileCopyrightText: 2026 crosscluster contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to the collection: may change at any time.
"""Errors of the listening end on the target node, one class per code.

::

    TransportError
    └── IncomingError
        ├── IncomingInvalid   INCOMING_INVALID    an option cannot be right; nothing was done
        ├── AddressAbsent     ADDRESS_ABSENT      this node does not have the address it is to listen on
        ├── PortsTaken        PORTS_TAKEN         no port of the range is free there
        ├── FirewallMissing   FIREWALL_MISSING    nft is not there or does not do what it is told
        ├── IncomingDiffers   INCOMING_DIFFERS    one of this id listens already, with other settings
        ├── IncomingFailed    INCOMING_FAILED     it did not start, or does not answer
        ├── RequestInvalid    REQUEST_INVALID     the source asked for what does not exist
        ├── NotAttached       NOT_ATTACHED        the source has not said yet which VM it is about
        └── AttachRefused     ATTACH_REFUSED      what the source wants to be attached to is not that VM
"""

from __future__ import annotations

from typing import Any

from ..errors import Side
from .errors import TransportError

__all__ = [
    "AddressAbsent",
    "AttachRefused",
    "FirewallMissing",
    "IncomingDiffers",
    "IncomingError",
    "IncomingFailed",
    "IncomingInvalid",
    "NotAttached",
    "PortsTaken",
    "RequestInvalid",
]


class IncomingError(TransportError):
    """Base of what the listening end says; always about the target."""

    code = "INCOMING"

    def __init__(self, message: str, *, object: str, **keywords: Any) -> None:
        super().__init__(message, side=Side.TARGET, object=object, **keywords)


class IncomingInvalid(IncomingError):
    """An option of the listening end cannot be right."""

    code = "INCOMING_INVALID"


class AddressAbsent(IncomingError):
    """The node does not have the address that it is to listen on."""

    code = "ADDRESS_ABSENT"


class PortsTaken(IncomingError):
    """No port of the range is free on the address."""

    code = "PORTS_TAKEN"


class FirewallMissing(IncomingError):
    """The rule that lets only the peer in cannot be set."""

    code = "FIREWALL_MISSING"


class IncomingDiffers(IncomingError):
    """One of this migration listens already, with other settings."""

    code = "INCOMING_DIFFERS"


class IncomingFailed(IncomingError):
    """The listening end did not start or does not answer."""

    code = "INCOMING_FAILED"


class RequestInvalid(IncomingError):
    """A request of the source is malformed or unknown."""

    code = "REQUEST_INVALID"


class NotAttached(IncomingError):
    """The source has not said yet which VM its requests are about."""

    code = "NOT_ATTACHED"


class AttachRefused(IncomingError):
    """The sockets or the VM are not those of this migration."""

    code = "ATTACH_REFUSED"
